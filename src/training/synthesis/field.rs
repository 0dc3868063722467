//! Numbers over the pixels of a picture: blur, noise and shapes.

use rand::{Rng, RngExt};

use crate::inspection::{Picture, Size};

/// One number a pixel, `[row, column]`, packed.
#[derive(Debug, Clone)]
pub(super) struct Field {
    pub(super) size: Size,
    pub(super) values: Vec<f32>,
}

impl Field {
    /// The values of `of(x, y)` at the pixels' places.
    pub(super) fn from_fn(size: Size, mut of: impl FnMut(f32, f32) -> f32) -> Self {
        let mut values = Vec::with_capacity(size.width * size.height);
        for y in 0..size.height {
            values.extend((0..size.width).map(|x| of(x as f32, y as f32)));
        }
        Self { size, values }
    }

    /// One channel of a picture, 0 to 255.
    pub(super) fn channel(picture: &Picture, channel: usize) -> Self {
        let values = picture.rgb().iter().skip(channel).step_by(3).map(|&v| f32::from(v)).collect();
        Self { size: picture.size(), values }
    }

    /// Smoothed by a Gaussian of deviation `sigma` pixels; the border is repeated outwards.
    pub(super) fn blurred(&self, sigma: f32) -> Self {
        let radius = (3.0 * sigma).ceil() as usize;
        let mut kernel: Vec<f32> = (0..=radius).map(|i| (-0.5 * (i as f32 / sigma).powi(2)).exp()).collect();
        let sum = kernel[0] + 2.0 * kernel[1..].iter().sum::<f32>();
        for share in &mut kernel {
            *share /= sum;
        }
        self.convolved(&kernel).transposed().convolved(&kernel).transposed()
    }

    /// Every row convolved with a symmetric kernel, given from its middle outwards.
    fn convolved(&self, kernel: &[f32]) -> Self {
        let width = self.size.width;
        let radius = kernel.len() - 1;
        let mut values = Vec::with_capacity(self.values.len());
        let mut padded = vec![0.0; width + 2 * radius];
        for row in self.values.chunks_exact(width) {
            padded[..radius].fill(row[0]);
            padded[radius..radius + width].copy_from_slice(row);
            padded[radius + width..].fill(row[width - 1]);
            values.extend((0..width).map(|x| {
                let middle = x + radius;
                (1..=radius).fold(kernel[0] * padded[middle], |sum, i| {
                    sum + kernel[i] * (padded[middle - i] + padded[middle + i])
                })
            }));
        }
        Self { size: self.size, values }
    }

    fn transposed(&self) -> Self {
        let Size { width, height } = self.size;
        let mut values = Vec::with_capacity(self.values.len());
        for x in 0..width {
            values.extend((0..height).map(|y| self.values[y * width + x]));
        }
        Self { size: Size { width: height, height: width }, values }
    }
}

/// Gradient noise (Perlin 1985) with cells of `cell` pixels, about -0.7 to 0.7, zero on average.
pub(super) struct Noise {
    cell: f32,
    columns: usize,
    gradients: Vec<[f32; 2]>,
}

impl Noise {
    /// Noise over a picture of `size`; a cell has at least one pixel.
    pub(super) fn new<R: Rng + ?Sized>(size: Size, cell: f32, rng: &mut R) -> Self {
        let cell = cell.max(1.0);
        let columns = (size.width as f32 / cell) as usize + 2;
        let rows = (size.height as f32 / cell) as usize + 2;
        let gradients = (0..columns * rows)
            .map(|_| {
                let (sin, cos) = rng.random_range(0.0..std::f32::consts::TAU).sin_cos();
                [cos, sin]
            })
            .collect();
        Self { cell, columns, gradients }
    }

    /// The noise at a place inside the picture.
    pub(super) fn at(&self, x: f32, y: f32) -> f32 {
        let (x, y) = (x / self.cell, y / self.cell);
        let (column, row) = (x as usize, y as usize);
        let (x, y) = (x - column as f32, y - row as f32);
        let corner = |right: usize, down: usize| {
            let [gx, gy] = self.gradients[(row + down) * self.columns + column + right];
            gx * (x - right as f32) + gy * (y - down as f32)
        };
        let fade = |t: f32| t * t * t * (t * (t * 6.0 - 15.0) + 10.0);
        let (u, v) = (fade(x), fade(y));
        let top = corner(0, 0) + u * (corner(1, 0) - corner(0, 0));
        let bottom = corner(0, 1) + u * (corner(1, 1) - corner(0, 1));
        top + v * (bottom - top)
    }
}

/// Two octaves of noise over a picture, about -1 to 1.
pub(super) fn noise<R: Rng + ?Sized>(size: Size, cell: f32, rng: &mut R) -> Field {
    let coarse = Noise::new(size, cell, rng);
    let fine = Noise::new(size, cell / 2.0, rng);
    Field::from_fn(size, |x, y| coarse.at(x, y) + 0.5 * fine.at(x, y))
}

/// 0 below `low`, 1 above `high`, smooth between.
pub(super) fn smoothstep(low: f32, high: f32, value: f32) -> f32 {
    let t = ((value - low) / (high - low)).clamp(0.0, 1.0);
    t * t * (3.0 - 2.0 * t)
}

/// An ellipse with an uneven outline. Positive inside, 1 in the middle.
pub(super) struct Blob {
    /// Middle, pixels.
    pub(super) middle: [f32; 2],
    /// Half axes, pixels.
    pub(super) radii: [f32; 2],
    /// Direction of the first axis, radians.
    pub(super) angle: f32,
    /// How far the outline strays, as a share of the radius.
    pub(super) roughness: f32,
}

impl Blob {
    pub(super) fn draw<R: Rng + ?Sized>(&self, size: Size, rng: &mut R) -> Field {
        let [rx, ry] = self.radii.map(|radius| radius.max(0.5));
        let outline = Noise::new(size, (rx.min(ry) * 0.7).max(2.0), rng);
        let (sin, cos) = self.angle.sin_cos();
        Field::from_fn(size, |x, y| {
            let (dx, dy) = (x - self.middle[0], y - self.middle[1]);
            let distance = ((dx * cos + dy * sin) / rx).hypot((dy * cos - dx * sin) / ry);
            // Far away no outline can reach: spare the noise.
            if distance > 2.5 { -1.5 } else { 1.0 - distance + self.roughness * outline.at(x, y) }
        })
    }
}
