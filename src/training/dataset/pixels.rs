//! From picture files to pixels.

use std::fs;
use std::io::Cursor;
use std::path::Path;

use image::{DynamicImage, ImageDecoder, ImageError, ImageFormat, ImageReader, Limits};

use crate::inspection::{Mask, Picture, Size};

use super::DatasetError;

/// Bytes of a picture file at most.
pub const MAX_FILE_BYTES: u64 = 512 << 20;

/// Pixels a side at most.
pub const MAX_SIDE: u32 = 16_384;

/// Pixels of a picture at most.
pub const MAX_PIXELS: u64 = 64_000_000;

/// Memory that decoding may take, bytes: four 16-bit channels at [`MAX_PIXELS`], and as much for
/// the decoder itself.
const MAX_DECODE_BYTES: u64 = MAX_PIXELS * 8 * 2;

/// A value above this is defect in a mask, of 255.
const MASK_THRESHOLD: u8 = 127;

/// Reads a png, jpeg, bmp or tiff as RGB, `[row, column, channel]`. The kind is told from the
/// content, not from the name. Grey becomes three equal channels; of 16 bits the upper 8 are kept
/// (`value >> 8`: 12-bit values stored without a shift come out dark, scale such pictures first);
/// alpha is dropped; a palette is looked up. EXIF orientation is ignored: pixels come as the sensor
/// stored them, as from a camera, and as masks are drawn.
///
/// # Errors
/// [`DatasetError`] naming the file when it is unreadable, empty, torn, of another kind, or beyond
/// [`MAX_FILE_BYTES`], [`MAX_SIDE`] or [`MAX_PIXELS`].
pub fn load_picture(path: &Path) -> Result<Picture, DatasetError> {
    let image = decode(path)?;
    let size = Size { width: image.width() as usize, height: image.height() as usize };
    let high = |value: u16| (value >> 8) as u8;
    let rgb: Vec<u8> = match image {
        DynamicImage::ImageLuma8(grey) => grey.into_raw().into_iter().flat_map(|v| [v; 3]).collect(),
        DynamicImage::ImageLumaA8(grey) => grey.pixels().flat_map(|p| [p.0[0]; 3]).collect(),
        DynamicImage::ImageRgb8(rgb) => rgb.into_raw(),
        DynamicImage::ImageRgba8(rgba) => rgba.pixels().flat_map(|p| [p.0[0], p.0[1], p.0[2]]).collect(),
        DynamicImage::ImageLuma16(grey) => grey.pixels().flat_map(|p| [high(p.0[0]); 3]).collect(),
        DynamicImage::ImageLumaA16(grey) => grey.pixels().flat_map(|p| [high(p.0[0]); 3]).collect(),
        DynamicImage::ImageRgb16(rgb) => rgb.into_raw().into_iter().map(high).collect(),
        DynamicImage::ImageRgba16(rgba) => {
            rgba.pixels().flat_map(|p| [high(p.0[0]), high(p.0[1]), high(p.0[2])]).collect()
        }
        _ => return Err(DatasetError::FloatingPoint(path.to_path_buf())),
    };
    // A picture without pixels is refused below; no decoder should give one.
    Picture::from_rgb(size, rgb).map_err(|_| DatasetError::EmptyFile(path.to_path_buf()))
}

/// Reads a mask: defect where the highest channel is above 127 of 255 (of 16 bits the upper 8
/// count). So masks are 0 and 255; one of 0 and 1 marks nothing, see
/// [`Dataset::warnings`](super::Dataset::warnings).
///
/// # Errors
/// As [`load_picture`]; [`DatasetError::MaskSize`] when its size is not `expected`, the picture's.
pub fn load_mask(path: &Path, expected: Size) -> Result<Mask, DatasetError> {
    let picture = load_picture(path)?;
    let found = picture.size();
    let wrong_size = || DatasetError::MaskSize { mask: path.to_path_buf(), expected, found };
    if found != expected {
        return Err(wrong_size());
    }
    let flags = picture.rgb().chunks_exact(3).map(|rgb| rgb.iter().any(|&v| v > MASK_THRESHOLD)).collect();
    Mask::from_flags(found, flags).map_err(|_| wrong_size())
}

/// Width and height of a picture file, from its header.
///
/// # Errors
/// As [`load_picture`], as far as the header shows it.
pub fn picture_size(path: &Path) -> Result<Size, DatasetError> {
    let bytes = read(path)?;
    let decoder = open(path, &bytes)?;
    let (width, height) = decoder.dimensions();
    Ok(Size { width: width as usize, height: height as usize })
}

fn read(path: &Path) -> Result<Vec<u8>, DatasetError> {
    let bytes = fs::metadata(path).map_err(DatasetError::unreadable(path))?.len();
    if bytes > MAX_FILE_BYTES {
        return Err(DatasetError::TooManyBytes { path: path.to_path_buf(), bytes, limit: MAX_FILE_BYTES });
    }
    let bytes = fs::read(path).map_err(DatasetError::unreadable(path))?;
    if bytes.is_empty() {
        return Err(DatasetError::EmptyFile(path.to_path_buf()));
    }
    Ok(bytes)
}

/// A decoder that has read the header, within the limits.
fn open<'a>(path: &Path, bytes: &'a [u8]) -> Result<impl ImageDecoder + 'a, DatasetError> {
    let undecodable = |source: ImageError| match source {
        ImageError::Unsupported(_) => DatasetError::UnsupportedKind(path.to_path_buf()),
        source => DatasetError::Undecodable { path: path.to_path_buf(), source },
    };
    let mut reader =
        ImageReader::new(Cursor::new(bytes)).with_guessed_format().map_err(DatasetError::unreadable(path))?;
    match reader.format() {
        Some(ImageFormat::Jpeg) if !jpeg_has_its_end(bytes) => {
            return Err(DatasetError::Torn { path: path.to_path_buf(), bytes: bytes.len() });
        }
        Some(ImageFormat::Png | ImageFormat::Jpeg | ImageFormat::Bmp | ImageFormat::Tiff) => {}
        _ => return Err(DatasetError::UnsupportedKind(path.to_path_buf())),
    }
    let mut limits = Limits::no_limits();
    limits.max_alloc = Some(MAX_DECODE_BYTES);
    reader.limits(limits);
    let decoder = reader.into_decoder().map_err(undecodable)?;
    let (width, height) = decoder.dimensions();
    if width > MAX_SIDE || height > MAX_SIDE || u64::from(width) * u64::from(height) > MAX_PIXELS {
        let path = path.to_path_buf();
        return Err(DatasetError::TooLarge { path, width, height, side: MAX_SIDE, pixels: MAX_PIXELS });
    }
    Ok(decoder)
}

fn decode(path: &Path) -> Result<DynamicImage, DatasetError> {
    let bytes = read(path)?;
    DynamicImage::from_decoder(open(path, &bytes)?)
        .map_err(|source| DatasetError::Undecodable { path: path.to_path_buf(), source })
}

/// Whether a JPEG goes on to its end-of-image marker. The decoder fills what is missing with grey
/// without a word, and a torn picture would be learned as normal.
fn jpeg_has_its_end(bytes: &[u8]) -> bool {
    let mut at = 2; // after start-of-image
    loop {
        // Between segments there may be fill bytes; after a scan there is entropy-coded data, in
        // which ff is followed by 00 or a restart marker.
        let Some(found) = bytes.get(at..).and_then(|rest| rest.windows(2).position(|pair| is_marker(pair[0], pair[1])))
        else {
            return false;
        };
        let marker = bytes[at + found + 1];
        if marker == 0xd9 {
            return true;
        }
        at += found + 2;
        let Some(length) = bytes.get(at..at + 2) else {
            return false;
        };
        at += usize::from(u16::from_be_bytes([length[0], length[1]])).max(2);
    }
}

/// Markers that end a scan: not stuffing, not fill, not a restart, not `TEM`, which has no length.
fn is_marker(first: u8, second: u8) -> bool {
    first == 0xff && !matches!(second, 0x00 | 0x01 | 0xd0..=0xd8 | 0xff)
}
