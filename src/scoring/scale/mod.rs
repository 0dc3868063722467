//! Planes of bytes -> the model's size, anti-aliased.
//!
//! Down the columns first, for that leaves few rows to scale along: a mean of whole rows by their weights,
//! in which each vector of pixels is like the next. As many rows of what is left as a vector has bytes are then turned, so
//! that a vector holds one column of them, and scaling along the rows is the same kind of mean. In between pixels are bytes.

#![expect(clippy::inline_always, reason = "what stays a call of its own is compiled without the vectors")]

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod axis;
mod lanes;

use self::axis::Axis;
use self::lanes::{Lanes, Portable, Rows, SIDE, TOGETHER};
use crate::inspection::Size;

/// Axes whose weights are kept at most: of a few cameras, each of several planes.
const MOST_AXES: usize = 64;

/// Pixels of one to three bytes each.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pixels<'a> {
    /// From the first pixel on.
    pub(super) bytes: &'a [u8],
    /// Bytes from a row to the next.
    pub(super) stride: usize,
    /// Columns and rows, at least one of each.
    pub(super) size: Size,
    /// Bytes of a pixel.
    pub(super) channels: usize,
}

/// Scales pixels; keeps weights and buffers, so that the same sizes allocate nothing again.
#[derive(Debug, Default)]
pub(super) struct Scaler {
    axes: Vec<Axis>,
    memory: Memory,
}

/// Rows that are scaled together on their way.
#[derive(Debug, Default)]
struct Memory {
    /// Of the scaled height, `[row, byte]`.
    rows: Vec<u8>,
    /// The same turned.
    columns: Vec<[u8; TOGETHER]>,
    /// Of the scaled size, turned.
    scaled: Vec<[u8; TOGETHER]>,
}

impl Scaler {
    /// Scales to so many columns and rows, at least one of each, `[row, column, channel]`.
    ///
    /// # Panics
    /// When a size is none, or `into` or the pixels' bytes are of another.
    pub(super) fn scale(&mut self, pixels: Pixels<'_>, to: Size, into: &mut [u8]) {
        assert_eq!(into.len(), to.width * to.height * pixels.channels, "the place is not of that size");
        let (across, down) = ((pixels.size.width, to.width), (pixels.size.height, to.height));
        if [across, down].iter().any(|&(from, to)| !self.axes.iter().any(|axis| axis.is(from, to))) {
            if self.axes.len() + 2 > MOST_AXES {
                self.axes.clear();
            }
            self.axes.extend([across, down].map(|(from, to)| Axis::new(from, to)));
        }
        let axis = |(from, to)| self.axes.iter().find(|axis| axis.is(from, to)).expect("just made");
        let job = Job { pixels, across: axis(across), down: axis(down), memory: &mut self.memory, into };
        #[cfg(target_arch = "x86_64")]
        if let Some(simd) = pulp::x86::V4::try_new() {
            return simd.vectorize(Vectorized(job, simd));
        } else if let Some(simd) = pulp::x86::V3::try_new() {
            return simd.vectorize(Vectorized(job, simd));
        }
        job.run(Portable);
    }
}

/// One plane to scale.
struct Job<'a> {
    pixels: Pixels<'a>,
    across: &'a Axis,
    down: &'a Axis,
    memory: &'a mut Memory,
    into: &'a mut [u8],
}

impl Job<'_> {
    #[inline(always)]
    fn run<L: Lanes>(self, lanes: L) {
        let Self { pixels: Pixels { bytes, stride, size, channels }, across, down, memory, into } = self;
        let (row, scaled_row) = (size.width * channels, across.len() * channels);
        let [wide, scaled_wide] = [row, scaled_row].map(|bytes| bytes.next_multiple_of(SIDE));
        let Memory { rows, columns, scaled } = memory;
        rows.resize(wide * TOGETHER, 0);
        columns.resize(wide, [0; TOGETHER]);
        scaled.resize(scaled_wide, [0; TOGETHER]);
        let source = Rows { bytes, stride };
        for (number, into) in into.chunks_mut(scaled_row * TOGETHER).enumerate() {
            for (row_number, line) in (number * TOGETHER..down.len()).zip(rows.chunks_exact_mut(wide)) {
                let (first, weights) = down.of(row_number);
                lanes.mean_of_rows(source.from(first), weights, down.further(row_number), &mut line[..row]);
            }
            // Tiles of rows that there are none of hold something from before, which nobody looks at.
            let tiles = into.len().div_ceil(scaled_row * SIDE);
            for (at, columns) in (0..wide).step_by(SIDE).zip(columns.as_chunks_mut::<SIDE>().0) {
                for tile in 0..tiles {
                    let rows = &rows[tile * SIDE * wide + at..];
                    let turned = lanes.transposed(std::array::from_fn(|row| part(rows, row * wide)));
                    columns.iter_mut().zip(turned).for_each(|(column, turned)| *place(column, tile * SIDE) = turned);
                }
            }
            let columns = columns.as_flattened();
            for (pixel, scaled) in scaled[..scaled_row].chunks_exact_mut(channels).enumerate() {
                let (first, weights) = across.of(pixel);
                for (channel, scaled) in scaled.iter_mut().enumerate() {
                    let bytes = &columns[(first * channels + channel) * TOGETHER..];
                    lanes.mean_of_rows(Rows { bytes, stride: channels * TOGETHER }, weights, 0, scaled);
                }
            }
            for (at, scaled) in (0..).step_by(SIDE).zip(scaled.as_chunks::<SIDE>().0) {
                for (tile, into) in into.chunks_mut(scaled_row * SIDE).enumerate() {
                    let turned = lanes.transposed(std::array::from_fn(|column| part(&scaled[column], tile * SIDE)));
                    for (into, row) in into.chunks_exact_mut(scaled_row).zip(&turned) {
                        match into[at..].first_chunk_mut() {
                            Some(into) => *into = *row,
                            None => into[at..].iter_mut().zip(row).for_each(|(into, &byte)| *into = byte),
                        }
                    }
                }
            }
        }
    }
}

/// A tile's share of a row.
#[inline(always)]
fn part(bytes: &[u8], at: usize) -> [u8; SIDE] {
    *bytes[at..].first_chunk().expect("rows are whole tiles")
}

/// The same to be written.
#[inline(always)]
fn place(bytes: &mut [u8], at: usize) -> &mut [u8; SIDE] {
    bytes[at..].first_chunk_mut().expect("rows are whole tiles")
}

/// A job with everything in it compiled for the processor's vectors.
#[cfg(target_arch = "x86_64")]
struct Vectorized<'a, L>(Job<'a>, L);

#[cfg(target_arch = "x86_64")]
impl<L: Lanes> pulp::NullaryFnOnce for Vectorized<'_, L> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        self.0.run(self.1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(length: usize) -> Vec<u8> {
        (0..length).map(|at| (at.wrapping_mul(2_654_435_761) >> 11) as u8).collect()
    }

    /// The triangle by its definition, one axis: shares of `from` pixels in pixel `at` of `to`.
    fn shares(from: usize, to: usize, at: usize) -> Vec<f64> {
        let scale = from as f64 / to as f64;
        let middle = (at as f64 + 0.5) * scale;
        let share = |pixel: usize| (1.0 - (pixel as f64 + 0.5 - middle).abs() / scale.max(1.0)).max(0.0);
        let all: Vec<f64> = (0..from).map(share).collect();
        let sum: f64 = all.iter().sum();
        all.into_iter().map(|share| share / sum).collect()
    }

    fn by_definition(pixels: Pixels<'_>, to: Size) -> Vec<f64> {
        let Pixels { bytes, stride, size, channels } = pixels;
        let mut scaled = Vec::new();
        for y in 0..to.height {
            let down = shares(size.height, to.height, y);
            for x in 0..to.width {
                let across = shares(size.width, to.width, x);
                for channel in 0..channels {
                    let value =
                        |row: usize, column: usize| f64::from(bytes[row * stride + column * channels + channel]);
                    let along = |row| across.iter().enumerate().map(|(at, share)| share * value(row, at)).sum::<f64>();
                    scaled.push(down.iter().enumerate().map(|(row, share)| share * along(row)).sum());
                }
            }
        }
        scaled
    }

    #[test]
    fn every_size_and_number_of_channels_is_the_triangle_by_its_definition_to_one_level() {
        let sizes = [
            (300, 70, 48, 33),
            (64, 64, 16, 16),
            (7, 5, 31, 18),
            (131, 200, 131, 16),
            (1, 1, 4, 4),
            (900, 3, 1, 1),
            (40, 300, 18, 147),
        ];
        let mut scaler = Scaler::default();
        for (width, height, to_width, to_height) in sizes {
            for channels in 1..=3 {
                let stride = width * channels + 5;
                let bytes = noise(stride * (height - 1) + width * channels);
                let pixels = Pixels { bytes: &bytes, stride, size: Size { width, height }, channels };
                let to = Size { width: to_width, height: to_height };
                let [mut vectors, mut single] = [(); 2].map(|()| vec![0; to_width * to_height * channels]);
                scaler.scale(pixels, to, &mut vectors);
                let (across, down) = (Axis::new(width, to_width), Axis::new(height, to_height));
                let memory = &mut Memory::default();
                Job { pixels, across: &across, down: &down, memory, into: &mut single }.run(Portable);
                assert_eq!(vectors, single);
                for (found, expected) in vectors.iter().zip(by_definition(pixels, to)) {
                    // Rounded twice, and weights are of 14 bits.
                    assert!((f64::from(*found) - expected).abs() < 1.1, "{found} for {expected}, {width} x {height}");
                }
            }
        }
    }

    #[test]
    fn a_flat_picture_keeps_its_level_at_any_scale() {
        for level in [0, 1, 127, 254, 255] {
            let bytes = vec![level; 4000 * 3];
            let pixels = Pixels { bytes: &bytes, stride: 4000, size: Size { width: 4000, height: 3 }, channels: 1 };
            for to in [Size { width: 1, height: 1 }, Size { width: 3, height: 2 }, Size { width: 999, height: 7 }] {
                let mut scaled = vec![!level; to.width * to.height];
                Scaler::default().scale(pixels, to, &mut scaled);
                assert!(scaled.iter().all(|&pixel| pixel == level), "{level} at {to}");
            }
        }
    }

    #[test]
    fn many_sizes_in_turn_do_not_fill_memory() {
        let mut scaler = Scaler::default();
        for width in 1..200 {
            let bytes = noise(width);
            let pixels = Pixels { bytes: &bytes, stride: width, size: Size { width, height: 1 }, channels: 1 };
            scaler.scale(pixels, Size { width: 4, height: 4 }, &mut [0; 16]);
            assert!(scaler.axes.len() <= MOST_AXES);
        }
    }
}
