//! From a camera picture to model size.

use fast_image_resize::images::{CroppedImage, Image, ImageRef};
use fast_image_resize::{FilterType, PixelType, ResizeAlg, ResizeOptions, Resizer};

use super::ScoringError;
use crate::bundle::Preprocessing;
use crate::inspection::{Picture, Rectangle, Size};

/// Cuts pictures to the region of interest and scales them anti-aliased; keeps its buffers.
///
/// The filter is the triangle stretched to the scale (Pillow's `BILINEAR`): every camera pixel
/// has its share in the result, so that fine texture neither aliases into false structure nor
/// vanishes, and it has no negative lobes, so that no edge gets a halo that looks like a defect.
/// Sharper filters (Catmull-Rom, Lanczos) ring and cost two to four times as much.
#[derive(Debug, Default)]
pub struct PictureFitter {
    resizer: Resizer,
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
        let (from, to) = (picture.size(), preprocessing.size);
        let whole = Rectangle { x: 0, y: 0, width: from.width, height: from.height };
        let region = preprocessing.region_of_interest.unwrap_or(whole);
        if !region.fits(from) {
            return Err(ScoringError::RegionOutside { region, size: from });
        }
        if region == whole && from == to {
            return Ok(picture.clone());
        }
        let cut = Size { width: region.width, height: region.height };
        self.scale(picture, region, to).map_err(|source| ScoringError::Scale { from: cut, to, source })
    }

    fn scale(
        &mut self,
        picture: &Picture,
        region: Rectangle,
        to: Size,
    ) -> Result<Picture, Box<dyn std::error::Error + Send + Sync>> {
        let from = picture.size();
        let source = ImageRef::new(from.width.try_into()?, from.height.try_into()?, picture.rgb(), PixelType::U8x3)?;
        // A view of the region alone, not the resizer's own crop: that lets the kernel reach over
        // the region's border.
        let source = CroppedImage::new(
            &source,
            region.x.try_into()?,
            region.y.try_into()?,
            region.width.try_into()?,
            region.height.try_into()?,
        )?;
        let mut target = Image::new(to.width.try_into()?, to.height.try_into()?, PixelType::U8x3);
        let options = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(FilterType::Bilinear)).use_alpha(false);
        self.resizer.resize(&source, &mut target, &options)?;
        Ok(Picture::from_rgb(to, target.into_vec())?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
