//! Enlarging and smoothing of maps.

use ndarray::Array2;

/// One target cell as a mix of two source cells.
#[derive(Debug, Clone, Copy)]
struct Tap {
    first: usize,
    second: usize,
    share: f32,
}

/// Where the grids meet.
#[derive(Clone, Copy)]
enum Corners {
    /// The outer edges of the outermost cells coincide; beyond the border the border cell repeats.
    Edges,
    /// The centres of the outermost cells coincide (`align_corners = true`).
    Centres,
}

fn taps(source: usize, target: usize, corners: Corners, taps: &mut Vec<Tap>) {
    let last = (source - 1) as f64;
    let scale = match corners {
        Corners::Edges => source as f64 / target as f64,
        Corners::Centres => last / (target - 1).max(1) as f64,
    };
    taps.clear();
    taps.extend((0..target).map(|cell| {
        let place = match corners {
            Corners::Edges => (cell as f64 + 0.5) * scale - 0.5,
            Corners::Centres => cell as f64 * scale,
        };
        let place = place.clamp(0.0, last);
        let first = place as usize;
        Tap { first, second: (first + 1).min(source - 1), share: (place - first as f64) as f32 }
    }));
}

/// Brings maps to another resolution, one after the other in the same memory.
#[derive(Debug, Default)]
pub(super) struct Resampler {
    across: Vec<Tap>,
    down: Vec<Tap>,
    /// The map `[source row, target column]`, packed.
    wide: Vec<f32>,
}

impl Resampler {
    /// Adds the map `[row, column]`, packed, of so many rows and columns, times `weight` to a larger
    /// one. An empty map adds nothing.
    pub(super) fn add(&mut self, weight: f32, map: &[f32], (rows, columns): (usize, usize), onto: &mut Array2<f32>) {
        self.resample(map, (rows, columns), Corners::Edges, onto, |cell, value| *cell += weight * value);
    }

    /// Raises a larger map to the map, likewise enlarged, where that is higher.
    pub(super) fn raise(&mut self, map: &[f32], (rows, columns): (usize, usize), onto: &mut Array2<f32>) {
        self.resample(map, (rows, columns), Corners::Edges, onto, |cell, value| *cell = cell.max(value));
    }

    fn resample(
        &mut self,
        map: &[f32],
        (rows, columns): (usize, usize),
        corners: Corners,
        onto: &mut Array2<f32>,
        put: impl Fn(&mut f32, f32),
    ) {
        if map.is_empty() || onto.is_empty() {
            return;
        }
        let (target_rows, target_columns) = onto.dim();
        if (rows, columns) == (target_rows, target_columns) {
            onto.iter_mut().zip(map).for_each(|(cell, &value)| put(cell, value));
            return;
        }
        taps(columns, target_columns, corners, &mut self.across);
        taps(rows, target_rows, corners, &mut self.down);
        self.wide.clear();
        for row in map.chunks_exact(columns) {
            self.wide.extend(self.across.iter().map(|tap| lerp(row[tap.first], row[tap.second], tap.share)));
        }
        let wide = |row: usize| &self.wide[row * target_columns..(row + 1) * target_columns];
        for (mut target, tap) in onto.outer_iter_mut().zip(&self.down) {
            for ((cell, &a), &b) in target.iter_mut().zip(wide(tap.first)).zip(wide(tap.second)) {
                put(cell, lerp(a, b, tap.share));
            }
        }
    }
}

/// The map `[row, column]` at another resolution, bilinear with half-pixel centres
/// (`align_corners = false`, as in PyTorch and OpenCV). Meant for enlarging; shrinking aliases.
/// An empty map or target gives an empty map.
pub fn enlarge(map: &Array2<f32>, rows: usize, columns: usize) -> Array2<f32> {
    resampled(map, rows, columns, Corners::Edges)
}

/// As [`enlarge`], but with the centres of the corner cells kept in place (`align_corners = true`),
/// as the authors of BGAD enlarge their maps.
pub fn enlarge_with_aligned_corners(map: &Array2<f32>, rows: usize, columns: usize) -> Array2<f32> {
    resampled(map, rows, columns, Corners::Centres)
}

fn resampled(map: &Array2<f32>, rows: usize, columns: usize, corners: Corners) -> Array2<f32> {
    if map.is_empty() || rows == 0 || columns == 0 {
        return Array2::zeros((0, 0));
    }
    let mut out = Array2::zeros((rows, columns));
    let values = map.as_standard_layout();
    let values = values.as_slice().unwrap_or_default();
    Resampler::default().resample(values, map.dim(), corners, &mut out, |cell, value| *cell = value);
    out
}

/// Written so that the result never leaves the range of its ends and grows with either.
fn lerp(a: f32, b: f32, share: f32) -> f32 {
    a * (1.0 - share) + b * share
}

/// The map smoothed by a Gaussian of deviation `sigma` cells, cut at 4 deviations, the border
/// mirrored (`d c b a | a b c d | d c b a`), as `scipy.ndimage.gaussian_filter` does. A `sigma`
/// that is not above 0 leaves the map as it is.
pub fn smooth(map: &Array2<f32>, sigma: f32) -> Array2<f32> {
    let mut out = map.as_standard_layout().into_owned();
    Smoother::default().smooth(&mut out, sigma);
    out
}

/// Smooths maps, one after the other in the same memory.
#[derive(Debug, Default)]
pub(super) struct Smoother {
    /// The middle weight and one side.
    kernel: Vec<f32>,
    source: Vec<f32>,
    padded: Vec<f32>,
}

impl Smoother {
    /// As [`smooth`], in place.
    pub(super) fn smooth(&mut self, map: &mut Array2<f32>, sigma: f32) {
        if map.is_empty() || sigma.is_nan() || sigma <= 0.0 {
            return;
        }
        let (rows, columns) = map.dim();
        self.set_kernel(sigma, rows.max(columns));
        let radius = self.kernel.len() - 1;
        // Down the columns a row at a time: rows lie packed, so every step works on neighbours.
        self.source.clear();
        self.source.extend(map.iter());
        let row = |at: usize| &self.source[at * columns..(at + 1) * columns];
        for (middle, mut target) in map.outer_iter_mut().enumerate() {
            target.iter_mut().zip(row(middle)).for_each(|(cell, v)| *cell = self.kernel[0] * v);
            for (d, weight) in self.kernel.iter().enumerate().skip(1) {
                let [above, below] = [middle as isize - d as isize, (middle + d) as isize].map(|at| mirrored(at, rows));
                for ((cell, a), b) in target.iter_mut().zip(row(above)).zip(row(below)) {
                    *cell += weight * (a + b);
                }
            }
        }
        for mut target in map.outer_iter_mut() {
            self.padded.clear();
            self.padded
                .extend((0..columns + 2 * radius).map(|at| target[mirrored(at as isize - radius as isize, columns)]));
            for (middle, cell) in target.iter_mut().enumerate() {
                *cell = self.kernel[0] * self.padded[middle + radius];
            }
            for (d, weight) in self.kernel.iter().enumerate().skip(1) {
                let (before, after) = (&self.padded[radius - d..], &self.padded[radius + d..]);
                for ((cell, a), b) in target.iter_mut().zip(before).zip(after) {
                    *cell += weight * (a + b);
                }
            }
        }
    }

    fn set_kernel(&mut self, sigma: f32, side: usize) {
        let sigma = f64::from(sigma);
        // A mirrored border repeats after two map lengths: a longer kernel only costs time.
        let radius = ((4.0 * sigma + 0.5) as usize).min(2 * side);
        let raw = |d: usize| (-0.5 * (d as f64 / sigma).powi(2)).exp();
        let total = raw(0) + 2.0 * (1..=radius).map(raw).sum::<f64>();
        self.kernel.clear();
        self.kernel.extend((0..=radius).map(|d| (raw(d) / total) as f32));
    }
}

/// The place inside `0..length` that a place before or behind it mirrors.
fn mirrored(at: isize, length: usize) -> usize {
    let place = at.rem_euclid(2 * length as isize) as usize;
    place.min(2 * length - 1 - place)
}

#[cfg(test)]
mod tests {
    use ndarray::array;

    use super::*;

    #[test]
    fn enlarging_agrees_with_torch_interpolate() {
        // torch.nn.functional.interpolate([[1., 2.], [3., 5.]], (4, 3), mode='bilinear').
        let got = enlarge(&array![[1.0, 2.0], [3.0, 5.0]], 4, 3);
        let want = array![[1.0, 1.5, 2.0], [1.5, 2.125, 2.75], [2.5, 3.375, 4.25], [3.0, 4.0, 5.0]];
        assert!((&got - &want).iter().all(|d: &f32| d.abs() < 1e-6), "{got}");
    }

    #[test]
    fn aligned_corners_agree_with_torch_interpolate_too() {
        // The same with align_corners=True.
        let got = enlarge_with_aligned_corners(&array![[1.0, 2.0], [3.0, 5.0]], 3, 3);
        let want = array![[1.0, 1.5, 2.0], [2.0, 2.75, 3.5], [3.0, 4.0, 5.0]];
        assert!((&got - &want).iter().all(|d: &f32| d.abs() < 1e-6), "{got}");
    }

    #[test]
    fn smoothing_agrees_with_scipy_gaussian_filter() {
        // scipy.ndimage.gaussian_filter([[0, 0, 8], [1, 0, 0]], 0.8).
        let got = smooth(&array![[0.0, 0.0, 8.0], [1.0, 0.0, 0.0]], 0.8);
        let want = array![[0.330_791_55, 1.524_345_4, 4.236_858_5], [0.578_53, 0.727_643_9, 1.601_830_7]];
        assert!((&got - &want).iter().all(|d: &f32| d.abs() < 1e-5), "{got}");
    }

    #[test]
    fn smoothing_keeps_a_constant_map_whatever_the_width() {
        let map = Array2::from_elem((3, 5), 2.5_f32);
        for sigma in [0.0, 0.3, 2.0, 1e9] {
            assert!(smooth(&map, sigma).iter().all(|v| (v - 2.5).abs() < 1e-5), "sigma {sigma}");
        }
    }
}
