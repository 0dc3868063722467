//! The presence gate: an empty belt is not a part. Without clock or channel.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::error::PresenceError;
use crate::config;
use crate::inspection::{CameraPicture, Frame, PartSource, Picture, Size};

/// Cells a side into which a picture is divided.
const CELLS: usize = 32;
/// Pixels of a cell that are looked at a side, at most.
const SAMPLES: usize = 16;

/// Tells frames of the empty belt from frames with something on it, and counts what comes by.
#[derive(Debug)]
pub(super) struct Gate {
    size: Size,
    empty: Vec<[f32; 3]>,
    difference: f32,
    share: f32,
    parts: u64,
    occupied: bool,
}

impl Gate {
    /// Reads the picture of the empty belt.
    ///
    /// # Errors
    /// [`PresenceError`]: it cannot be read.
    pub(super) fn new(config: &config::Presence) -> Result<Self, PresenceError> {
        let empty = read(&config.empty)?;
        let (difference, share) = (config.difference as f32, config.share as f32);
        Ok(Self { size: empty.size(), empty: cells(&empty), difference, share, parts: 0, occupied: false })
    }

    /// Whether the picture shows more than the empty belt; one of another size does, because it
    /// cannot be told.
    fn is_occupied(&self, picture: &CameraPicture) -> bool {
        if picture.size() != self.size {
            return true;
        }
        let far = |(cell, empty): (&[f32; 3], &[f32; 3])| {
            cell.iter().zip(empty).any(|(value, empty)| (value - empty).abs() >= self.difference)
        };
        let cells = cells(picture);
        let occupied = cells.iter().zip(&self.empty).filter(|pair| far(*pair)).count();
        occupied as f32 >= self.share * cells.len() as f32
    }

    /// Lets a frame pass that shows a part, numbered where nothing else names the part: frames with
    /// no empty one between them show the same.
    pub(super) fn pass(&mut self, mut frame: Frame) -> Option<Frame> {
        let occupied = self.is_occupied(&frame.picture);
        self.parts += u64::from(occupied && !self.occupied);
        self.occupied = occupied;
        if frame.part_id.is_none() {
            frame.part_id = Some(self.parts.to_string().into());
            frame.part_source = PartSource::Counter;
        }
        occupied.then_some(frame)
    }
}

fn read(path: &Path) -> Result<CameraPicture, PresenceError> {
    let unreadable = |source| PresenceError { path: PathBuf::from(path), source };
    let picture = image::open(path).map_err(|error| unreadable(Arc::new(error)))?.to_rgb8();
    let size = Size { width: picture.width() as usize, height: picture.height() as usize };
    Ok(Picture::from_rgb(size, picture.into_raw()).map_err(|error| unreadable(Arc::new(error)))?.into())
}

/// Mean colour of each cell, over a grid of samples.
fn cells(picture: &CameraPicture) -> Vec<[f32; 3]> {
    let Size { width, height } = picture.size();
    let (columns, rows) = (CELLS.min(width), CELLS.min(height));
    let mut means = Vec::with_capacity(columns * rows);
    for row in 0..rows {
        let (top, bottom) = (row * height / rows, (row + 1) * height / rows);
        for column in 0..columns {
            let (left, right) = (column * width / columns, (column + 1) * width / columns);
            let (down, across) = ((bottom - top).div_ceil(SAMPLES), (right - left).div_ceil(SAMPLES));
            let (mut sum, mut count) = ([0.0; 3], 0.0);
            for y in (top..bottom).step_by(down) {
                for x in (left..right).step_by(across) {
                    for (sum, value) in sum.iter_mut().zip(picture.stored(x, y)) {
                        *sum += f32::from(value);
                    }
                    count += 1.0;
                }
            }
            // Of the mean, not of every sample: the conversion is linear, but for what it clips.
            let mean = sum.map(|sum: f32| (sum / count).round() as u8);
            means.push(picture.colour(mean).map(f32::from));
        }
    }
    means
}
