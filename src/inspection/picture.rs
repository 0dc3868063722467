//! Pixels in memory.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Width and height in pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Size {
    /// Columns.
    pub width: usize,
    /// Rows.
    pub height: usize,
}

impl std::fmt::Display for Size {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}x{}", self.width, self.height)
    }
}

/// An axis-aligned box in pixels of the picture it belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Rectangle {
    /// First column.
    pub x: usize,
    /// First row.
    pub y: usize,
    /// Columns, at least 1.
    pub width: usize,
    /// Rows, at least 1.
    pub height: usize,
}

impl Rectangle {
    /// Whether the box is not empty and lies wholly inside a picture of `size`.
    pub fn fits(&self, size: Size) -> bool {
        self.width > 0
            && self.height > 0
            && self.x.checked_add(self.width).is_some_and(|right| right <= size.width)
            && self.y.checked_add(self.height).is_some_and(|bottom| bottom <= size.height)
    }
}

/// Bytes that do not make the picture that was announced.
#[derive(Debug, thiserror::Error)]
#[error("{got} bytes cannot be a {size} picture with {channels} channel(s): {expected} are needed")]
pub struct PictureError {
    /// Announced size.
    pub size: Size,
    /// Announced channels.
    pub channels: usize,
    /// Bytes needed.
    pub expected: usize,
    /// Bytes given.
    pub got: usize,
}

/// An RGB picture, 8 bits a channel, rows tightly packed: `[row, column, channel]`.
#[derive(Clone, PartialEq, Eq)]
pub struct Picture {
    size: Size,
    rgb: Vec<u8>,
}

impl std::fmt::Debug for Picture {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Picture({})", self.size)
    }
}

impl Picture {
    /// Wraps packed RGB bytes of length `width * height * 3`.
    ///
    /// # Errors
    /// [`PictureError`] when the length is another one or the picture is empty.
    pub fn from_rgb(size: Size, rgb: Vec<u8>) -> Result<Self, PictureError> {
        let expected = size.width * size.height * 3;
        if expected == 0 || rgb.len() != expected {
            return Err(PictureError { size, channels: 3, expected, got: rgb.len() });
        }
        Ok(Self { size, rgb })
    }

    /// Width and height.
    pub fn size(&self) -> Size {
        self.size
    }

    /// Packed RGB bytes, `[row, column, channel]`.
    pub fn rgb(&self) -> &[u8] {
        &self.rgb
    }

    /// Packed RGB bytes, writable.
    pub fn rgb_mut(&mut self) -> &mut [u8] {
        &mut self.rgb
    }

    /// Packed RGB bytes, taken out.
    pub fn into_rgb(self) -> Vec<u8> {
        self.rgb
    }

    /// The three channel values at a place inside the picture.
    pub fn pixel(&self, x: usize, y: usize) -> [u8; 3] {
        let at = (y * self.size.width + x) * 3;
        [self.rgb[at], self.rgb[at + 1], self.rgb[at + 2]]
    }
}

/// Which pixels are defective: `true` is defect. `[row, column]`, packed.
#[derive(Clone, PartialEq, Eq)]
pub struct Mask {
    size: Size,
    defect: Vec<bool>,
}

impl std::fmt::Debug for Mask {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Mask({}, {} defect pixels)", self.size, self.area())
    }
}

impl Mask {
    /// A mask without any defect.
    pub fn empty(size: Size) -> Self {
        Self { size, defect: vec![false; size.width * size.height] }
    }

    /// Wraps packed flags of length `width * height`.
    ///
    /// # Errors
    /// [`PictureError`] when the length is another one.
    pub fn from_flags(size: Size, defect: Vec<bool>) -> Result<Self, PictureError> {
        let expected = size.width * size.height;
        if defect.len() != expected {
            return Err(PictureError { size, channels: 1, expected, got: defect.len() });
        }
        Ok(Self { size, defect })
    }

    /// Width and height.
    pub fn size(&self) -> Size {
        self.size
    }

    /// Packed flags, `[row, column]`.
    pub fn flags(&self) -> &[bool] {
        &self.defect
    }

    /// Packed flags, writable.
    pub fn flags_mut(&mut self) -> &mut [bool] {
        &mut self.defect
    }

    /// Whether the pixel at a place inside the mask is defective.
    pub fn is_defect(&self, x: usize, y: usize) -> bool {
        self.defect[y * self.size.width + x]
    }

    /// Number of defect pixels.
    pub fn area(&self) -> usize {
        self.defect.iter().filter(|&&d| d).count()
    }

    /// The mask cut to `roi` and scaled to `size`; a target cell is defective when any defect
    /// pixel falls into it, so that no small defect vanishes.
    pub fn fit(&self, roi: Option<Rectangle>, size: Size) -> Self {
        let roi = roi.unwrap_or(Rectangle { x: 0, y: 0, width: self.size.width, height: self.size.height });
        let mut out = Self::empty(size);
        // Cell c of the target covers the source columns [c*w/W, (c+1)*w/W), at least one.
        let span = |cell: usize, source: usize, target: usize| {
            let from = cell * source / target;
            from..((cell + 1) * source).div_ceil(target).max(from + 1).min(source)
        };
        for y in 0..size.height {
            for x in 0..size.width {
                out.defect[y * size.width + x] = span(y, roi.height, size.height)
                    .any(|sy| span(x, roi.width, size.width).any(|sx| self.is_defect(roi.x + sx, roi.y + sy)));
            }
        }
        out
    }
}
