//! Enlarging and smoothing of maps.

use ndarray::{Array2, ArrayView1, ArrayViewMut1, Axis};

/// One target cell as a mix of two source cells.
#[derive(Clone, Copy)]
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

fn taps(source: usize, target: usize, corners: Corners) -> Vec<Tap> {
    let last = (source - 1) as f64;
    let scale = match corners {
        Corners::Edges => source as f64 / target as f64,
        Corners::Centres => last / (target - 1).max(1) as f64,
    };
    (0..target)
        .map(|cell| {
            let place = match corners {
                Corners::Edges => (cell as f64 + 0.5) * scale - 0.5,
                Corners::Centres => cell as f64 * scale,
            };
            let place = place.clamp(0.0, last);
            let first = place as usize;
            Tap { first, second: (first + 1).min(source - 1), share: (place - first as f64) as f32 }
        })
        .collect()
}

/// The map `[row, column]` at another resolution, bilinear with half-pixel centres
/// (`align_corners = false`, as in PyTorch and OpenCV). Meant for enlarging; shrinking aliases.
/// An empty map or target gives an empty map.
pub fn enlarge(map: &Array2<f32>, rows: usize, columns: usize) -> Array2<f32> {
    resample(map, rows, columns, Corners::Edges)
}

/// As [`enlarge`], but with the centres of the corner cells kept in place (`align_corners = true`),
/// as the authors of BGAD enlarge their maps.
pub fn enlarge_with_aligned_corners(map: &Array2<f32>, rows: usize, columns: usize) -> Array2<f32> {
    resample(map, rows, columns, Corners::Centres)
}

fn resample(map: &Array2<f32>, rows: usize, columns: usize, corners: Corners) -> Array2<f32> {
    let (source_rows, source_columns) = map.dim();
    if (source_rows, source_columns) == (rows, columns) {
        return map.clone();
    }
    if map.is_empty() || rows == 0 || columns == 0 {
        return Array2::zeros((0, 0));
    }
    let across = taps(source_columns, columns, corners);
    let mut wide = Array2::<f32>::zeros((source_rows, columns));
    for (source, mut target) in map.outer_iter().zip(wide.outer_iter_mut()) {
        for (cell, tap) in target.iter_mut().zip(&across) {
            *cell = lerp(source[tap.first], source[tap.second], tap.share);
        }
    }
    let mut out = Array2::<f32>::zeros((rows, columns));
    for (mut target, tap) in out.outer_iter_mut().zip(taps(source_rows, rows, corners)) {
        let (first, second) = (wide.row(tap.first), wide.row(tap.second));
        for ((cell, &a), &b) in target.iter_mut().zip(&first).zip(&second) {
            *cell = lerp(a, b, tap.share);
        }
    }
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
    if map.is_empty() || sigma.is_nan() || sigma <= 0.0 {
        return map.clone();
    }
    let sigma = f64::from(sigma);
    // A mirrored border repeats after two map lengths: a longer kernel only costs time.
    let longest = 2 * map.nrows().max(map.ncols());
    let radius = ((4.0 * sigma + 0.5) as usize).min(longest);
    let raw: Vec<f64> = (0..=radius).map(|d| (-0.5 * (d as f64 / sigma).powi(2)).exp()).collect();
    let total = raw[0] + 2.0 * raw[1..].iter().sum::<f64>();
    let kernel: Vec<f32> = raw.iter().map(|w| (w / total) as f32).collect();

    let mut out = map.clone();
    for axis in [Axis(0), Axis(1)] {
        let source = out.clone();
        let mut padded = Vec::new();
        for (from, into) in source.lanes(axis).into_iter().zip(out.lanes_mut(axis)) {
            convolve(&from, into, &kernel, &mut padded);
        }
    }
    out
}

/// `kernel` holds the middle weight and one side.
fn convolve(from: &ArrayView1<f32>, into: ArrayViewMut1<f32>, kernel: &[f32], padded: &mut Vec<f32>) {
    let (n, radius) = (from.len(), kernel.len() - 1);
    padded.clear();
    padded.extend((0..n + 2 * radius).map(|at| {
        let place = (at as isize - radius as isize).rem_euclid(2 * n as isize) as usize;
        from[place.min(2 * n - 1 - place)]
    }));
    for (middle, cell) in into.into_iter().enumerate() {
        let middle = middle + radius;
        let sides = (1..=radius).map(|d| kernel[d] * (padded[middle - d] + padded[middle + d]));
        *cell = kernel[0] * padded[middle] + sides.sum::<f32>();
    }
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
