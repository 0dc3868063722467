//! A picture as its camera gave it.

use std::sync::Arc;

use super::{Picture, PictureError, Size};

/// From luma and chroma to red, green and blue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum YuvMatrix {
    /// ITU-R BT.601: standard definition, JPEG.
    Bt601,
    /// ITU-R BT.709: high definition.
    Bt709,
    /// ITU-R BT.2020: ultra high definition.
    Bt2020,
}

/// What the numbers of a YUV picture mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct YuvColour {
    /// The matrix.
    pub matrix: YuvMatrix,
    /// Whether luma takes 0 to 255 (JPEG) and not 16 to 235.
    pub full_range: bool,
}

/// Fraction bits of the conversion's factors.
const BITS: u32 = 14;

impl YuvColour {
    /// Luma offset, and the factors on luma, V in red, U and V in green, U in blue.
    fn factors(self) -> (i32, [i32; 5]) {
        let (red, blue) = match self.matrix {
            YuvMatrix::Bt601 => (0.299, 0.114),
            YuvMatrix::Bt709 => (0.2126, 0.0722),
            YuvMatrix::Bt2020 => (0.2627, 0.0593),
        };
        let green: f64 = 1.0 - red - blue;
        let (offset, luma, chroma) = if self.full_range { (0, 1.0, 1.0) } else { (16, 255.0 / 219.0, 255.0 / 224.0) };
        let (v_in_red, u_in_blue) = (2.0 * (1.0 - red), 2.0 * (1.0 - blue));
        let fixed = |factor: f64| (factor * f64::from(1 << BITS)).round() as i32;
        let factors = [
            fixed(luma),
            fixed(chroma * v_in_red),
            fixed(-chroma * u_in_blue * blue / green),
            fixed(-chroma * v_in_red * red / green),
            fixed(chroma * u_in_blue),
        ];
        (offset, factors)
    }

    /// Converts pixels: one value of `luma` and one pair of `chroma` (U, V) a pixel, packed RGB out.
    /// What one of them has too many is passed over.
    pub fn to_rgb(self, luma: &[u8], chroma: impl Iterator<Item = [u8; 2]>, rgb: &mut [u8]) {
        let (offset, [gain, v_in_red, u_in_green, v_in_green, u_in_blue]) = self.factors();
        let half = 1 << (BITS - 1);
        let byte = |value: i32| (value >> BITS).clamp(0, 255) as u8;
        for ((pixel, &y), [u, v]) in rgb.chunks_exact_mut(3).zip(luma).zip(chroma) {
            let y = (i32::from(y) - offset) * gain + half;
            let (u, v) = (i32::from(u) - 128, i32::from(v) - 128);
            pixel[0] = byte(y + v * v_in_red);
            pixel[1] = byte(y + u * u_in_green + v * v_in_green);
            pixel[2] = byte(y + u * u_in_blue);
        }
    }
}

/// How the bytes of a [`CameraPicture`] stand, 8 bits each, in up to three planes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PixelFormat {
    /// `[row, column, channel]`.
    Rgb,
    /// `[row, column]`.
    Grey,
    /// Luma `[row, column]`; then U and V of a size of their own.
    Yuv {
        /// Columns and rows of U and of V.
        chroma: Size,
        /// Whether U and V stand side by side (`[row, column, 2]`) and not one plane behind the other.
        interleaved: bool,
        /// What the numbers mean.
        colour: YuvColour,
    },
}

impl PixelFormat {
    /// Bytes that a picture of `size` takes; none where there are no pixels.
    fn bytes(self, size: Size) -> Option<usize> {
        let pixels = |size: Size| size.width.checked_mul(size.height).filter(|&pixels| pixels > 0);
        match self {
            Self::Rgb => pixels(size)?.checked_mul(3),
            Self::Grey => pixels(size),
            Self::Yuv { chroma, .. } => pixels(size)?.checked_add(pixels(chroma)?.checked_mul(2)?),
        }
    }

    /// Bytes of a row, and rows, of every plane of a picture of `size`; a plane that is not there has neither.
    pub fn planes(self, size: Size) -> [(usize, usize); PLANES] {
        let Size { width, height } = size;
        match self {
            Self::Rgb => [(width * 3, height), (0, 0), (0, 0)],
            Self::Grey => [(width, height), (0, 0), (0, 0)],
            Self::Yuv { chroma, interleaved: true, .. } => [(width, height), (chroma.width * 2, chroma.height), (0, 0)],
            Self::Yuv { chroma, interleaved: false, .. } => {
                [(width, height), (chroma.width, chroma.height), (chroma.width, chroma.height)]
            }
        }
    }
}

/// Planes of a picture at most.
pub const PLANES: usize = 3;

/// One plane of a picture.
#[derive(Debug, Clone, Copy)]
pub struct Plane<'a> {
    /// Its rows one behind the other, `stride` bytes each.
    pub bytes: &'a [u8],
    /// Bytes from the start of a row to that of the next.
    pub stride: usize,
    /// Bytes of a row that are pixels, at most `stride`.
    pub row: usize,
}

impl<'a> Plane<'a> {
    /// The pixels of every row.
    pub fn rows(self) -> impl Iterator<Item = &'a [u8]> {
        self.bytes.chunks_exact(self.stride.max(1)).map(move |row| &row[..self.row])
    }
}

/// Pixels that are somebody else's, such as in a buffer that goes back to its camera when this is dropped.
pub trait LentPixels: Send + Sync {
    /// The bytes of a plane; empty where there is none of that number. The same at every call.
    fn plane(&self, number: usize) -> &[u8];
}

#[derive(Clone)]
enum Pixels {
    /// Rows tightly packed, planes one behind the other.
    Own(Vec<u8>),
    Lent {
        pixels: Arc<dyn LentPixels>,
        strides: [usize; PLANES],
    },
}

/// A picture in the format of its camera. To convert it at full size would take longer than to scale
/// it; so it stays as it is until it is scaled, or kept.
#[derive(Clone)]
pub struct CameraPicture {
    size: Size,
    format: PixelFormat,
    pixels: Pixels,
}

impl std::fmt::Debug for CameraPicture {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "CameraPicture({}, {:?})", self.size, self.format)
    }
}

impl CameraPicture {
    /// Wraps the bytes of a picture.
    ///
    /// # Errors
    /// [`PictureError`] when they are more or fewer than the format takes, or the picture is empty.
    pub fn new(size: Size, format: PixelFormat, bytes: Vec<u8>) -> Result<Self, PictureError> {
        let expected = format.bytes(size).unwrap_or(0);
        if expected == 0 || bytes.len() != expected {
            let channels = if format == PixelFormat::Grey { 1 } else { 3 };
            return Err(PictureError { size, channels, expected, got: bytes.len() });
        }
        Ok(Self { size, format, pixels: Pixels::Own(bytes) })
    }

    /// A picture whose pixels stay where they are. `strides`: bytes from the start of a row of each plane
    /// to that of the next.
    ///
    /// # Errors
    /// [`PictureError`] when a plane has fewer bytes than its rows take, rows lie in each other, or the picture
    /// is empty.
    pub fn lent(
        size: Size,
        format: PixelFormat,
        strides: [usize; PLANES],
        pixels: Arc<dyn LentPixels>,
    ) -> Result<Self, PictureError> {
        let picture = Self { size, format, pixels: Pixels::Lent { pixels, strides } };
        for (number, (row, rows)) in format.planes(size).into_iter().enumerate() {
            let got = picture.plane(number).bytes.len();
            let expected = rows * strides[number].max(row);
            if format.bytes(size).is_none() || strides[number] < row || got < expected {
                return Err(PictureError { size, channels: 1, expected, got });
            }
        }
        Ok(picture)
    }

    /// The same with pixels of its own, so that what was lent can go back.
    #[must_use]
    pub fn owned(&self) -> Self {
        let mut bytes = Vec::with_capacity(self.format.bytes(self.size).unwrap_or(0));
        for number in 0..PLANES {
            self.plane(number).rows().for_each(|row| bytes.extend_from_slice(row));
        }
        Self { pixels: Pixels::Own(bytes), ..*self }
    }

    /// Whether its pixels are somebody else's.
    pub fn is_lent(&self) -> bool {
        matches!(self.pixels, Pixels::Lent { .. })
    }

    /// Width and height.
    pub fn size(&self) -> Size {
        self.size
    }

    /// How the bytes stand.
    pub fn format(&self) -> PixelFormat {
        self.format
    }

    /// A plane; without bytes where there is none of that number.
    pub fn plane(&self, number: usize) -> Plane<'_> {
        let planes = self.format.planes(self.size);
        let (row, rows) = planes[number];
        match &self.pixels {
            Pixels::Own(bytes) => {
                let before: usize = planes[..number].iter().map(|(row, rows)| row * rows).sum();
                Plane { bytes: &bytes[before..before + row * rows], stride: row, row }
            }
            Pixels::Lent { pixels, strides } => {
                let (bytes, stride) = (pixels.plane(number), strides[number]);
                Plane { bytes: &bytes[..bytes.len().min(rows * stride)], stride, row }
            }
        }
    }

    /// The values of a pixel inside the picture as they stand: red, green and blue; three times grey; or
    /// luma, U and V.
    pub fn stored(&self, x: usize, y: usize) -> [u8; 3] {
        let Size { width, height } = self.size;
        let first = self.plane(0);
        let at = |plane: Plane<'_>, x: usize, y: usize| plane.bytes[y * plane.stride + x];
        match self.format {
            PixelFormat::Rgb => [0, 1, 2].map(|channel| at(first, 3 * x + channel, y)),
            PixelFormat::Grey => [at(first, x, y); 3],
            PixelFormat::Yuv { chroma, interleaved, .. } => {
                let (cx, cy) = (x * chroma.width / width, y * chroma.height / height);
                let second = self.plane(1);
                let [u, v] = if interleaved {
                    [at(second, 2 * cx, cy), at(second, 2 * cx + 1, cy)]
                } else {
                    [at(second, cx, cy), at(self.plane(2), cx, cy)]
                };
                [at(first, x, y), u, v]
            }
        }
    }

    /// The colour of stored values, red, green and blue.
    pub fn colour(&self, stored: [u8; 3]) -> [u8; 3] {
        let PixelFormat::Yuv { colour, .. } = self.format else { return stored };
        let [luma, u, v] = stored;
        let mut rgb = [0; 3];
        colour.to_rgb(&[luma], std::iter::once([u, v]), &mut rgb);
        rgb
    }

    /// At full size in RGB; every pixel takes the chroma that covers it.
    pub fn to_rgb(&self) -> Picture {
        let Size { width, height } = self.size;
        let first = self.plane(0);
        let mut rgb = vec![0; width * height * 3];
        for (y, (rgb, row)) in rgb.chunks_exact_mut(width * 3).zip(first.rows()).enumerate() {
            match self.format {
                PixelFormat::Rgb => rgb.copy_from_slice(row),
                PixelFormat::Grey => rgb.chunks_exact_mut(3).zip(row).for_each(|(pixel, &value)| pixel.fill(value)),
                PixelFormat::Yuv { chroma, interleaved, colour } => {
                    let below = y * chroma.height / height;
                    let [second, third] = [1, 2].map(|number| {
                        let plane = self.plane(number);
                        plane.bytes.get(below * plane.stride..).unwrap_or_default()
                    });
                    let pair = |at: usize| {
                        if interleaved { [second[2 * at], second[2 * at + 1]] } else { [second[at], third[at]] }
                    };
                    colour.to_rgb(row, (0..width).map(|x| pair(x * chroma.width / width)), rgb);
                }
            }
        }
        Picture::from_rgb(self.size, rgb).expect("as many bytes as pixels, times three")
    }
}

impl From<Picture> for CameraPicture {
    fn from(picture: Picture) -> Self {
        Self { size: picture.size(), format: PixelFormat::Rgb, pixels: Pixels::Own(picture.into_rgb()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn convert(colour: YuvColour, yuv: [u8; 3]) -> [u8; 3] {
        let mut rgb = [0; 3];
        colour.to_rgb(&yuv[..1], std::iter::once([yuv[1], yuv[2]]), &mut rgb);
        rgb
    }

    #[test]
    fn known_colours_come_out_as_the_standards_say() {
        let jpeg = YuvColour { matrix: YuvMatrix::Bt601, full_range: true };
        assert_eq!(convert(jpeg, [255, 128, 128]), [255; 3]);
        assert_eq!(convert(jpeg, [76, 85, 255]), [254, 0, 0], "red of JFIF");
        let television = YuvColour { matrix: YuvMatrix::Bt709, full_range: false };
        assert_eq!(convert(television, [16, 128, 128]), [0; 3]);
        assert_eq!(convert(television, [235, 128, 128]), [255; 3]);
        // 75 % bars of SMPTE RP 219: yellow and blue.
        assert_eq!(convert(television, [168, 44, 136]), [191, 191, 0]);
        assert_eq!(convert(television, [28, 212, 120]), [0, 0, 191]);
        assert_eq!(convert(television, [255, 128, 128]), [255; 3], "beyond white is white");
    }

    #[test]
    fn planes_side_by_side_and_one_behind_the_other_are_the_same_picture() {
        let colour = YuvColour { matrix: YuvMatrix::Bt601, full_range: false };
        let (size, chroma) = (Size { width: 3, height: 2 }, Size { width: 2, height: 1 });
        let format = |interleaved| PixelFormat::Yuv { chroma, interleaved, colour };
        let luma = [50, 90, 120, 60, 70, 80];
        let apart = [&luma[..], &[100, 140], &[130, 90]].concat();
        let beside = [&luma[..], &[100, 130, 140, 90]].concat();
        let picture_apart = CameraPicture::new(size, format(false), apart).unwrap();
        let picture_beside = CameraPicture::new(size, format(true), beside).unwrap();
        let apart = picture_apart.to_rgb();
        assert_eq!(apart, picture_beside.to_rgb());
        assert_eq!(apart.pixel(2, 1), convert(colour, [80, 140, 90]));
        for picture in [picture_apart, picture_beside] {
            for (x, y) in [(0, 0), (2, 0), (2, 1)] {
                assert_eq!(picture.colour(picture.stored(x, y)), apart.pixel(x, y));
            }
        }
    }

    #[test]
    fn bytes_that_are_not_the_picture_are_refused() {
        let size = Size { width: 4, height: 4 };
        let colour = YuvColour { matrix: YuvMatrix::Bt601, full_range: false };
        let chroma = Size { width: 2, height: 2 };
        let yuv = PixelFormat::Yuv { chroma, interleaved: true, colour };
        for (format, bytes) in [(PixelFormat::Rgb, 48), (PixelFormat::Grey, 16), (yuv, 24)] {
            assert!(CameraPicture::new(size, format, vec![0; bytes]).is_ok());
            assert!(CameraPicture::new(size, format, vec![0; bytes - 1]).is_err());
        }
        assert!(CameraPicture::new(Size { width: 0, height: 4 }, PixelFormat::Grey, Vec::new()).is_err());
        let nothing = PixelFormat::Yuv { chroma: Size { width: 0, height: 0 }, interleaved: true, colour };
        assert!(CameraPicture::new(size, nothing, vec![0; 16]).is_err());
    }

    /// Planes with bytes between their rows that belong to no pixel.
    struct Padded([Vec<u8>; PLANES]);

    impl LentPixels for Padded {
        fn plane(&self, number: usize) -> &[u8] {
            &self.0[number]
        }
    }

    fn padded(picture: &CameraPicture, by: usize) -> (Padded, [usize; PLANES]) {
        let strides = [0, 1, 2].map(|number| picture.plane(number).row + by);
        let pad = |number| picture.plane(number).rows().flat_map(|row| [row, &vec![0xee; by]].concat()).collect();
        (Padded([0, 1, 2].map(pad)), strides)
    }

    #[test]
    fn lent_pixels_are_the_same_picture_whatever_stands_between_their_rows() {
        let colour = YuvColour { matrix: YuvMatrix::Bt601, full_range: false };
        let (size, chroma) = (Size { width: 5, height: 3 }, Size { width: 3, height: 2 });
        let yuv = |interleaved| PixelFormat::Yuv { chroma, interleaved, colour };
        for format in [PixelFormat::Rgb, PixelFormat::Grey, yuv(false), yuv(true)] {
            let bytes = (0..format.bytes(size).unwrap()).map(|at| (at * 37) as u8).collect();
            let own = CameraPicture::new(size, format, bytes).unwrap();
            let (pixels, strides) = padded(&own, 7);
            let lent = CameraPicture::lent(size, format, strides, Arc::new(pixels)).unwrap();
            assert!(lent.is_lent() && !lent.owned().is_lent());
            let rows = |picture: &CameraPicture| -> Vec<Vec<u8>> {
                (0..PLANES).flat_map(|number| picture.plane(number).rows().map(<[u8]>::to_vec)).collect()
            };
            assert_eq!(rows(&lent), rows(&own), "{format:?}");
            assert_eq!(rows(&lent.owned()), rows(&own), "{format:?}");
            assert_eq!(lent.to_rgb(), own.to_rgb());
            assert_eq!(lent.stored(4, 2), own.stored(4, 2));
        }
    }

    #[test]
    fn planes_that_cannot_be_the_picture_are_refused() {
        let (size, format) = (Size { width: 5, height: 3 }, PixelFormat::Rgb);
        let own = CameraPicture::new(size, format, vec![9; 45]).unwrap();
        let lent = |by, strides| CameraPicture::lent(size, format, strides, Arc::new(padded(&own, by).0));
        assert!(lent(1, [16, 0, 0]).is_ok());
        assert!(lent(1, [17, 0, 0]).is_err(), "it would end too early");
        assert!(lent(1, [14, 0, 0]).is_err(), "rows would lie in each other");
        let yuv = PixelFormat::Yuv {
            chroma: size,
            interleaved: true,
            colour: YuvColour { matrix: YuvMatrix::Bt601, full_range: false },
        };
        assert!(
            CameraPicture::lent(size, yuv, [15, 10, 0], Arc::new(padded(&own, 0).0)).is_err(),
            "a plane is missing"
        );
    }
}
