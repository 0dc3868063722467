//! From a camera picture to model size.

use super::ScoringError;
use super::scale::{Pixels, Scaler};
use crate::bundle::Preprocessing;
use crate::inspection::{CameraPicture, Picture, PixelFormat, Plane, Rectangle, Size};

/// Cuts pictures to the region of interest and scales them anti-aliased; keeps its buffers.
///
/// The filter is the triangle stretched to the scale (Pillow's `BILINEAR`): every camera pixel
/// has its share in the result, so that fine texture neither aliases into false structure nor
/// vanishes, and it has no negative lobes, so that no edge gets a halo that looks like a defect.
/// Sharper filters (Catmull-Rom, Lanczos) ring and cost two to four times as much.
#[derive(Debug, Default)]
pub struct PictureFitter {
    scaler: Scaler,
    /// Luma or grey at the model's size.
    luma: Vec<u8>,
    /// Chroma at the model's size, as it stands in the picture.
    chroma: Vec<u8>,
}

impl PictureFitter {
    /// A fitter with empty buffers.
    pub fn new() -> Self {
        Self::default()
    }

    /// The picture cut and scaled to the model's size. A picture that has the size already is
    /// returned as it is. Pixels outside the region of interest have no influence.
    ///
    /// # Errors
    /// [`ScoringError::RegionOutside`] when the region of interest leaves the picture,
    /// [`ScoringError::Scale`] when the model's size is no size.
    pub fn fit(&mut self, picture: &Picture, preprocessing: &Preprocessing) -> Result<Picture, ScoringError> {
        let to = preprocessing.size;
        let region = region(picture.size(), preprocessing)?;
        let mut rgb = vec![0; to.width * to.height * 3];
        let row = picture.size().width * 3;
        let plane = Plane { bytes: picture.rgb(), stride: row, row };
        self.scale(Part { plane, size: picture.size(), channels: 3 }, region, to, &mut rgb)?;
        let fitted = Picture::from_rgb(to, rgb);
        fitted.map_err(|source| failed(region, to, source))
    }

    /// As [`PictureFitter::fit`], from a camera's own format into the place of one picture in a tensor,
    /// `[row, column, channel]` RGB: the planes are scaled first, and only what is left is converted.
    /// Chroma that is coarser than luma is cut at whole chroma pixels.
    ///
    /// # Errors
    /// As there.
    ///
    /// # Panics
    /// When the place has another length than the model's size takes.
    pub fn fit_into(
        &mut self,
        picture: &CameraPicture,
        preprocessing: &Preprocessing,
        into: &mut [u8],
    ) -> Result<(), ScoringError> {
        let (from, to) = (picture.size(), preprocessing.size);
        let cells = to.width * to.height;
        assert_eq!(into.len(), cells * 3, "the place is not of the model's size");
        let region = region(from, preprocessing)?;
        let luma = Part { plane: picture.plane(0), size: from, channels: 1 };
        match picture.format() {
            PixelFormat::Rgb => self.scale(Part { channels: 3, ..luma }, region, to, into),
            PixelFormat::Grey => {
                self.scale_luma(luma, region, to)?;
                into.chunks_exact_mut(3).zip(&self.luma).for_each(|(pixel, &value)| pixel.fill(value));
                Ok(())
            }
            PixelFormat::Yuv { chroma: size, interleaved, colour } => {
                self.scale_luma(luma, region, to)?;
                let region = scaled(region, from, size);
                let mut pairs = std::mem::take(&mut self.chroma);
                pairs.resize(cells * 2, 0);
                let done = if interleaved {
                    self.scale(Part { plane: picture.plane(1), size, channels: 2 }, region, to, &mut pairs)
                } else {
                    let (u, v) = pairs.split_at_mut(cells);
                    self.scale(Part { plane: picture.plane(1), size, channels: 1 }, region, to, u)
                        .and_then(|()| self.scale(Part { plane: picture.plane(2), size, channels: 1 }, region, to, v))
                };
                self.chroma = pairs;
                done?;
                if interleaved {
                    colour.to_rgb(&self.luma, self.chroma.as_chunks().0.iter().copied(), into);
                } else {
                    let (u, v) = self.chroma.split_at(cells);
                    colour.to_rgb(&self.luma, u.iter().zip(v).map(|(&u, &v)| [u, v]), into);
                }
                Ok(())
            }
        }
    }

    fn scale_luma(&mut self, luma: Part<'_>, region: Rectangle, to: Size) -> Result<(), ScoringError> {
        let mut scaled = std::mem::take(&mut self.luma);
        scaled.resize(to.width * to.height, 0);
        let done = self.scale(luma, region, to, &mut scaled);
        self.luma = scaled;
        done
    }

    /// Scales the region of a plane whose pixels have so many bytes.
    fn scale(
        &mut self,
        Part { plane, size, channels }: Part<'_>,
        region: Rectangle,
        to: Size,
        into: &mut [u8],
    ) -> Result<(), ScoringError> {
        if region.width * region.height * to.width * to.height == 0 {
            return Err(failed(region, to, "nothing is left of it"));
        }
        if region == (Rectangle { x: 0, y: 0, width: size.width, height: size.height }) && size == to {
            into.chunks_exact_mut(plane.row).zip(plane.rows()).for_each(|(into, row)| into.copy_from_slice(row));
            return Ok(());
        }
        let bytes = &plane.bytes[region.y * plane.stride + region.x * channels..];
        let size = Size { width: region.width, height: region.height };
        self.scaler.scale(Pixels { bytes, stride: plane.stride, size, channels }, to, into);
        Ok(())
    }
}

/// A plane of so many columns and rows, and bytes of a pixel of it.
struct Part<'a> {
    plane: Plane<'a>,
    size: Size,
    channels: usize,
}

/// The part of a picture that the model sees.
fn region(from: Size, preprocessing: &Preprocessing) -> Result<Rectangle, ScoringError> {
    let whole = Rectangle { x: 0, y: 0, width: from.width, height: from.height };
    let region = preprocessing.region_of_interest.unwrap_or(whole);
    if region.fits(from) { Ok(region) } else { Err(ScoringError::RegionOutside { region, size: from }) }
}

/// A region of a picture in the pixels of one of its coarser planes: all that it touches.
fn scaled(region: Rectangle, from: Size, plane: Size) -> Rectangle {
    let span = |at: usize, length: usize, from: usize, plane: usize| {
        let first = at * plane / from;
        (first, ((at + length) * plane).div_ceil(from).min(plane).saturating_sub(first).max(1))
    };
    let (x, width) = span(region.x, region.width, from.width, plane.width);
    let (y, height) = span(region.y, region.height, from.height, plane.height);
    Rectangle { x, y, width, height }
}

fn failed(region: Rectangle, to: Size, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> ScoringError {
    ScoringError::Scale { from: Size { width: region.width, height: region.height }, to, source: source.into() }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::inspection::{LentPixels, YuvColour, YuvMatrix};

    fn picture(width: usize, height: usize, value: impl Fn(usize, usize) -> [u8; 3]) -> Picture {
        let rgb = (0..height).flat_map(|y| (0..width).map(move |x| (x, y))).flat_map(|(x, y)| value(x, y)).collect();
        Picture::from_rgb(Size { width, height }, rgb).unwrap()
    }

    fn to(width: usize, height: usize) -> Preprocessing {
        Preprocessing { size: Size { width, height }, region_of_interest: None }
    }

    #[test]
    fn a_one_pixel_checkerboard_becomes_mid_grey_at_even_and_uneven_scales() {
        let board = picture(256, 256, |x, y| [if (x + y) % 2 == 0 { 255 } else { 0 }; 3]);
        for size in [128, 96, 48] {
            let fitted = PictureFitter::new().fit(&board, &to(size, size)).unwrap();
            // At the border the kernel is cut off, so look inside it.
            for y in 1..size - 1 {
                for x in 1..size - 1 {
                    let value = fitted.pixel(x, y)[0];
                    assert!((124..=131).contains(&value), "{value} at ({x}, {y}) of {size}");
                }
            }
        }
    }

    #[test]
    fn the_channels_stay_apart_and_in_order_while_scaling() {
        let flat = picture(70, 50, |_, _| [200, 100, 7]);
        let fitted = PictureFitter::new().fit(&flat, &to(32, 16)).unwrap();
        assert_eq!(fitted.size(), Size { width: 32, height: 16 });
        assert!(fitted.rgb().chunks(3).all(|pixel| pixel == [200, 100, 7]));
    }

    #[test]
    fn a_scaled_region_of_interest_takes_nothing_from_outside_it() {
        let region = Rectangle { x: 20, y: 10, width: 64, height: 48 };
        let inside = |x, y| {
            (region.x..region.x + region.width).contains(&x) && (region.y..region.y + region.height).contains(&y)
        };
        let framed = picture(120, 90, |x, y| if inside(x, y) { [40; 3] } else { [255; 3] });
        for size in [Size { width: 32, height: 16 }, Size { width: 128, height: 96 }] {
            let preprocessing = Preprocessing { size, region_of_interest: Some(region) };
            let fitted = PictureFitter::new().fit(&framed, &preprocessing).unwrap();
            assert!(fitted.rgb().iter().all(|&value| value == 40), "{size}");
        }
    }

    #[test]
    fn a_region_of_the_models_size_is_cut_pixel_for_pixel() {
        let ramp = picture(64, 64, |x, y| [x as u8, y as u8, 9]);
        let region = Rectangle { x: 5, y: 7, width: 32, height: 16 };
        let preprocessing = Preprocessing { size: Size { width: 32, height: 16 }, region_of_interest: Some(region) };
        let fitted = PictureFitter::new().fit(&ramp, &preprocessing).unwrap();
        assert_eq!(fitted, picture(32, 16, |x, y| [x as u8 + 5, y as u8 + 7, 9]));
    }

    #[test]
    fn a_picture_of_the_models_size_comes_back_unchanged() {
        let ramp = picture(32, 32, |x, y| [x as u8, y as u8, 3]);
        assert_eq!(PictureFitter::new().fit(&ramp, &to(32, 32)).unwrap(), ramp);
    }

    #[test]
    fn a_fitter_used_for_many_sizes_gives_what_a_fresh_one_gives() {
        let mut used = PictureFitter::new();
        for side in [300, 64, 131] {
            let noisy = picture(side, side + 9, |x, y| [(x * 7 + y * 13) as u8, (x * y) as u8, (x ^ y) as u8]);
            let fresh = PictureFitter::new().fit(&noisy, &to(48, 32)).unwrap();
            assert_eq!(used.fit(&noisy, &to(48, 32)).unwrap(), fresh);
        }
    }

    const TELEVISION: YuvColour = YuvColour { matrix: YuvMatrix::Bt709, full_range: false };

    /// A smooth picture of 4:2:0, in both orders, and the same in RGB.
    fn smooth_yuv(size: Size) -> ([CameraPicture; 2], Picture) {
        let chroma = Size { width: size.width / 2, height: size.height / 2 };
        let wave = |x: usize, y: usize, by: f32| (128.0 + 60.0 * ((x as f32 + y as f32) * by).sin()) as u8;
        let plane = |of: Size, by: f32| -> Vec<u8> {
            (0..of.height).flat_map(|y| (0..of.width).map(move |x| wave(x, y, by))).collect()
        };
        let (luma, u, v) = (plane(size, 0.02), plane(chroma, 0.03), plane(chroma, 0.05));
        let beside: Vec<u8> = u.iter().zip(&v).flat_map(|(&u, &v)| [u, v]).collect();
        let format = |interleaved| PixelFormat::Yuv { chroma, interleaved, colour: TELEVISION };
        let pictures = [(false, [u, v].concat()), (true, beside)].map(|(interleaved, chroma)| {
            CameraPicture::new(size, format(interleaved), [&luma[..], &chroma].concat()).unwrap()
        });
        let rgb = pictures[0].to_rgb();
        (pictures, rgb)
    }

    #[test]
    fn scaled_planes_are_the_scaled_picture_in_every_format() {
        let (pictures, rgb) = smooth_yuv(Size { width: 320, height: 240 });
        let region = Some(Rectangle { x: 31, y: 20, width: 201, height: 160 });
        for preprocessing in [to(64, 48), Preprocessing { region_of_interest: region, ..to(96, 64) }] {
            let expected = PictureFitter::new().fit(&rgb, &preprocessing).unwrap();
            let mut fitted = [(); 2].map(|()| vec![0; expected.rgb().len()]);
            for (picture, fitted) in pictures.iter().zip(&mut fitted) {
                PictureFitter::new().fit_into(picture, &preprocessing, fitted).unwrap();
                let off = fitted.iter().zip(expected.rgb()).map(|(a, b)| a.abs_diff(*b)).max().unwrap();
                assert!(off <= 4, "{off}");
            }
            assert_eq!(fitted[0], fitted[1]);
            let mut direct = vec![0; expected.rgb().len()];
            PictureFitter::new().fit_into(&rgb.clone().into(), &preprocessing, &mut direct).unwrap();
            assert_eq!(direct, expected.rgb());
        }
    }

    /// Pixels of a camera's buffer.
    struct Buffer(Vec<u8>);

    impl LentPixels for Buffer {
        fn plane(&self, number: usize) -> &[u8] {
            if number == 0 { &self.0 } else { &[] }
        }
    }

    #[test]
    fn what_stands_between_the_rows_of_a_buffer_is_in_no_picture() {
        let picture = picture(40, 30, |x, y| [(x * 5) as u8, (y * 7) as u8, (x ^ y) as u8]);
        let padded = picture.rgb().chunks(120).flat_map(|row| [row, &[0xff; 24]].concat()).collect();
        let lent =
            CameraPicture::lent(picture.size(), PixelFormat::Rgb, [144, 0, 0], Arc::new(Buffer(padded))).unwrap();
        let region = Some(Rectangle { x: 8, y: 3, width: 32, height: 16 });
        for preprocessing in [to(16, 16), to(40, 30), Preprocessing { region_of_interest: region, ..to(32, 16) }] {
            let expected = PictureFitter::new().fit(&picture, &preprocessing).unwrap();
            let mut fitted = vec![0; expected.rgb().len()];
            PictureFitter::new().fit_into(&lent, &preprocessing, &mut fitted).unwrap();
            assert_eq!(fitted, expected.rgb());
        }
    }

    #[test]
    fn grey_becomes_three_equal_channels() {
        let size = Size { width: 40, height: 30 };
        let grey = (0..1200).map(|at| (at % 251) as u8).collect();
        let grey = CameraPicture::new(size, PixelFormat::Grey, grey).unwrap();
        let expected = PictureFitter::new().fit(&grey.to_rgb(), &to(16, 16)).unwrap();
        let mut fitted = vec![0; expected.rgb().len()];
        PictureFitter::new().fit_into(&grey, &to(16, 16), &mut fitted).unwrap();
        assert_eq!(fitted, expected.rgb());
    }

    #[test]
    fn a_region_that_leaves_the_picture_is_an_error_with_both_sizes() {
        let region = Rectangle { x: 600, y: 10, width: 64, height: 48 };
        let preprocessing = Preprocessing { size: Size { width: 32, height: 32 }, region_of_interest: Some(region) };
        let error =
            PictureFitter::new().fit(&picture(640, 480, |_, _| [0; 3]), &preprocessing).unwrap_err().to_string();
        assert!(error.contains("64x48 pixels at (600, 10)") && error.contains("640x480"), "{error}");
    }

    #[test]
    fn a_model_size_of_nothing_is_an_error() {
        let error = PictureFitter::new().fit(&picture(8, 8, |_, _| [0; 3]), &to(0, 32)).unwrap_err().to_string();
        assert!(error.contains("8x8") && error.contains("0x32"), "{error}");
    }
}
