//! What features are brought to before a flow sees them.

use ndarray::linalg::general_mat_mul;
use ndarray::{Array1, Array2, ArrayView2};

/// What whitening adds to the variance of every standardised channel: directions in which normals hardly
/// vary carry noise, and without it would be enlarged without bound. With a tenth of it the known defects of
/// magnetic_tile were told a little worse.
const FLOOR: f64 = 0.1;
/// Cells of a picture that the correlations are learned from: neighbours tell much the same.
const CORRELATED: usize = 256;

/// How features are brought to zero mean and, channel by channel or all together, unit variance.
#[derive(Debug, Clone, PartialEq)]
pub struct ChannelStatistics {
    /// `[C]`.
    pub mean: Vec<f32>,
    /// `[C]`, positive.
    pub deviation: Vec<f32>,
    /// `[C, C]`: of a standardised vector `x` comes `x · whitening`, whose channels do not correlate
    /// among the training normals. None leaves them as they are.
    pub whitening: Option<Array2<f32>>,
}

impl ChannelStatistics {
    /// Those that change nothing.
    pub fn identity(channels: usize) -> Self {
        Self { mean: vec![0.0; channels], deviation: vec![1.0; channels], whitening: None }
    }

    /// Standardises packed feature vectors `[cell, C]` and whitens them, where these do.
    pub fn apply(&self, values: &mut [f32]) {
        for cell in values.chunks_exact_mut(self.mean.len().max(1)) {
            for ((v, mean), deviation) in cell.iter_mut().zip(&self.mean).zip(&self.deviation) {
                *v = (*v - mean) / deviation;
            }
        }
        self.whiten(values);
    }

    /// Whitens packed vectors `[cell, C]` that are standardised already, where these do.
    pub(super) fn whiten(&self, values: &mut [f32]) {
        let Some(whitening) = &self.whitening else { return };
        let channels = self.mean.len();
        let cells = ArrayView2::from_shape((values.len() / channels, channels), &*values);
        let whitened = cells.expect("packed vectors").dot(whitening);
        values.iter_mut().zip(&whitened).for_each(|(value, &whitened)| *value = whitened);
    }
}

/// Sums over cells, of which [`ChannelStatistics`] are made.
#[derive(Debug)]
pub(super) struct Sums {
    /// Cells that came.
    seen: u64,
    /// Sum and sum of squares of every channel.
    each: Vec<(f64, f64)>,
    /// Cells of which the products of channels were taken.
    correlated: u64,
    /// Sums of those, less an origin, `[C]`.
    totals: Array1<f64>,
    /// And of their products, `[C, C]`.
    products: Array2<f64>,
}

impl Sums {
    pub(super) fn new(channels: usize) -> Self {
        Self {
            seen: 0,
            each: vec![(0.0, 0.0); channels],
            correlated: 0,
            totals: Array1::zeros(channels),
            products: Array2::zeros((channels, channels)),
        }
    }

    /// Adds packed vectors `[cell, C]`.
    pub(super) fn add(&mut self, values: &[f32]) {
        let channels = self.each.len();
        for cell in values.chunks_exact(channels) {
            for (sum, &v) in self.each.iter_mut().zip(cell) {
                sum.0 += f64::from(v);
                sum.1 += f64::from(v) * f64::from(v);
            }
        }
        self.seen += (values.len() / channels) as u64;
    }

    /// Mean of every channel, `[C]`.
    pub(super) fn means(&self) -> Vec<f32> {
        self.each.iter().map(|(sum, _)| (sum / self.seen.max(1) as f64) as f32).collect()
    }

    /// Adds the correlations of a picture's packed vectors, less the same origin for all.
    pub(super) fn correlate(&mut self, values: &[f32]) {
        let channels = self.each.len();
        let stride = (values.len() / channels).div_ceil(CORRELATED).max(1);
        // Another place in every picture, so that all places count.
        let first = (self.correlated as usize / CORRELATED) % stride;
        let chosen: Vec<f64> = values
            .chunks_exact(channels)
            .skip(first)
            .step_by(stride)
            .flat_map(|cell| cell.iter().copied().map(f64::from))
            .collect();
        let cells = chosen.len() / channels;
        let chosen = Array2::from_shape_vec((cells, channels), chosen).expect("whole cells");
        general_mat_mul(1.0, &chosen.t(), &chosen, 1.0, &mut self.products);
        self.totals += &chosen.sum_axis(ndarray::Axis(0));
        self.correlated += cells as u64;
    }

    /// Mean and deviation of every channel; with `whiten` also what takes the correlations away.
    pub(super) fn statistics(&self, whiten: bool) -> ChannelStatistics {
        let n = self.seen.max(1) as f64;
        let (mean, deviation): (Vec<f32>, Vec<f32>) = self
            .each
            .iter()
            .map(|(sum, square)| {
                let mean = sum / n;
                // A channel that never moves carries nothing; the floor keeps it harmless.
                (mean as f32, (square / n - mean * mean).max(0.0).sqrt().max(1e-3) as f32)
            })
            .unzip();
        let whitening = whiten.then(|| {
            let n = self.correlated.max(1) as f64;
            let covariance = |(i, j): (usize, usize)| {
                let covariance = self.products[(i, j)] / n - self.totals[i] * self.totals[j] / (n * n);
                covariance / (f64::from(deviation[i]) * f64::from(deviation[j]))
            };
            whitening(&Array2::from_shape_fn(self.products.dim(), covariance))
        });
        ChannelStatistics { mean, deviation, whitening }
    }
}

/// The upper triangular `W` with `Wᵀ (covariance + floor) W = 1`, by Cholesky's decomposition: every channel
/// less what those before it say of it, brought to unit variance.
fn whitening(covariance: &Array2<f64>) -> Array2<f32> {
    let channels = covariance.nrows();
    let mut lower = Array2::<f64>::zeros((channels, channels));
    for i in 0..channels {
        for j in 0..=i {
            let known: f64 = (0..j).map(|k| lower[(i, k)] * lower[(j, k)]).sum();
            let rest = covariance[(i, j)] + if i == j { FLOOR } else { 0.0 } - known;
            // A covariance has none below the floor; rounding might.
            lower[(i, j)] = if i == j { rest.max(FLOOR / 2.0).sqrt() } else { rest / lower[(j, j)] };
        }
    }
    // Its inverse, column by column, transposed.
    let mut inverse = Array2::<f64>::zeros((channels, channels));
    for j in 0..channels {
        for i in j..channels {
            let known: f64 = (j..i).map(|k| lower[(i, k)] * inverse[(j, k)]).sum();
            inverse[(j, i)] = (if i == j { 1.0 } else { 0.0 } - known) / lower[(i, i)];
        }
    }
    inverse.mapv(|v| v as f32)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Mean and covariance of packed vectors.
    fn moments(values: &[f32], channels: usize) -> (Array1<f64>, Array2<f64>) {
        let cells = ArrayView2::from_shape((values.len() / channels, channels), values).unwrap().mapv(f64::from);
        let mean = cells.mean_axis(ndarray::Axis(0)).unwrap();
        let centred = cells - &mean;
        let covariance = centred.t().dot(&centred) / centred.nrows() as f64;
        (mean, covariance)
    }

    #[test]
    fn whitened_channels_do_not_correlate_but_for_the_floor_though_one_says_nothing_of_its_own() {
        let mut noise = (0..u64::MAX).map(|i| (i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) as f32 / (1 << 24) as f32);
        let mut sums = Sums::new(4);
        let mut all = Vec::new();
        for _ in 0..40 {
            let values: Vec<f32> = (0..100)
                .flat_map(|_| {
                    let [a, b, c] = std::array::from_fn(|_| noise.next().unwrap_or_default());
                    // The last is the sum of two others.
                    [a * 3.0 + 50.0, a + 0.2 * b, c - 0.5 * a, a * 4.0 + 0.2 * b + 50.0]
                })
                .collect();
            sums.add(&values);
            sums.correlate(&values.iter().map(|v| v - 7.0).collect::<Vec<_>>());
            all.extend(values);
        }
        let statistics = sums.statistics(true);
        let mut whitened = all.clone();
        statistics.apply(&mut whitened);
        let (mean, covariance) = moments(&whitened, 4);
        assert!(mean.iter().all(|mean| mean.abs() < 1e-3), "{mean}");
        let whitening = statistics.whitening.unwrap().mapv(f64::from);
        let left = covariance + whitening.t().dot(&whitening) * FLOOR;
        for ((i, j), &value) in left.indexed_iter() {
            assert!((value - if i == j { 1.0 } else { 0.0 }).abs() < 0.05, "{left}");
        }
        let mut standardised = all;
        sums.statistics(false).apply(&mut standardised);
        let (_, correlated) = moments(&standardised, 4);
        assert!((correlated[(0, 0)] - 1.0).abs() < 1e-3 && correlated[(0, 3)] > 0.9, "{correlated}");
    }
}
