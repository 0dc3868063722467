//! Pictures as PNG bytes.

use image::codecs::png::{CompressionType, FilterType, PngEncoder};
use image::{ExtendedColorType, ImageEncoder};

use super::{Mask, Picture, Size};

/// A picture could not be written as PNG.
#[derive(Debug, thiserror::Error)]
#[error("a {size} picture cannot be encoded as PNG")]
pub struct PngError {
    /// Size of the picture.
    pub size: Size,
    /// Cause.
    #[source]
    pub source: image::ImageError,
}

/// The picture as a PNG file, 8-bit RGB, quick rather than small.
///
/// # Errors
/// [`PngError`] when a side is beyond what PNG can hold (2³¹ - 1).
pub fn encode_png(picture: &Picture) -> Result<Vec<u8>, PngError> {
    encode(picture.rgb(), picture.size(), ExtendedColorType::Rgb8)
}

/// The mask as a PNG file, 8-bit grey, 255 is defect.
///
/// # Errors
/// [`PngError`] when the mask is empty or a side is beyond what PNG can hold (2³¹ - 1).
pub fn encode_mask_png(mask: &Mask) -> Result<Vec<u8>, PngError> {
    let grey: Vec<u8> = mask.flags().iter().map(|&defect| if defect { 255 } else { 0 }).collect();
    encode(&grey, mask.size(), ExtendedColorType::L8)
}

fn encode(bytes: &[u8], size: Size, color: ExtendedColorType) -> Result<Vec<u8>, PngError> {
    let mut out = Vec::new();
    PngEncoder::new_with_quality(&mut out, CompressionType::Fast, FilterType::Adaptive)
        .write_image(bytes, size.width as u32, size.height as u32, color)
        .map_err(|source| PngError { size, source })?;
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_comes_back_from_its_png_as_it_was() {
        let size = Size { width: 5, height: 3 };
        let picture = Picture::from_rgb(size, (0..45).map(|v| v * 5).collect()).expect("picture");
        let back = image::load_from_memory(&encode_png(&picture).expect("encodes")).expect("decodes").into_rgb8();
        assert_eq!((back.width(), back.height(), back.as_raw().as_slice()), (5, 3, picture.rgb()));
    }
}
