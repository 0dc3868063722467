//! What sets known large defects apart from normals, in one direction of the features.
//!
//! Of a handful of known defects a flow learns to keep away from where they lie; what they have in common, and the
//! next one will have too, it hardly learns. A linear classifier learns nothing but that: on wide averages of
//! whitened features it told the pixels of magnetic_tile's large defects better than the flow beside it (seeds 1 to 3,
//! all pixels, computed on features, 0.90 for 0.88). It is blind to every other kind of defect, so it may only add to what that flow says.

use ndarray::{Array1, Array2, Axis};
use rand::Rng;
use rand::seq::index;

use super::features::{ChannelStatistics, FeatureFileError, LevelBank, Source};
use super::fit::{DefectCells, PictureCells};
use super::flow::FoldedFlow;

/// Normal cells that it is learned from.
const NORMALS: usize = 8192;
/// Cells of a defect picture: neighbours tell much the same.
const CELLS: usize = 40;
/// Weight of half of the squared direction beside the mean losses of normals and of defects.
const PENALTY: f64 = 0.1;
/// Newton steps at most; five or six are usual.
const STEPS: usize = 30;
/// A step that changes no coefficient by more ends it.
const SETTLED: f64 = 1e-6;

/// A linear classifier of a level's cells: known defects or normals.
#[derive(Debug, Clone, PartialEq)]
pub struct Contrast {
    /// What it looks at.
    pub source: Source,
    /// What makes features of it comparable.
    pub statistics: ChannelStatistics,
    /// `[C]`, towards the defects.
    pub direction: Vec<f32>,
    /// Added to the product with it.
    pub offset: f32,
}

impl Contrast {
    /// Learns by logistic regression: normals count one half, known defects and those made of them a quarter each,
    /// every picture as much as the next. None where no known defect has a cell. `normals` and the bank of `defects`
    /// are standardised by `statistics`.
    ///
    /// # Errors
    /// [`FeatureFileError`] when the features cannot be read.
    pub fn fit(
        normals: &LevelBank,
        defects: &DefectCells<'_>,
        source: Source,
        statistics: &ChannelStatistics,
        rng: &mut impl Rng,
    ) -> Result<Option<Self>, FeatureFileError> {
        if defects.real.iter().all(|picture| picture.cells.is_empty()) {
            return Ok(None);
        }
        let all = normals.pictures() * normals.kept();
        let chosen = index::sample(rng, all, NORMALS.min(all));
        let chosen: Vec<_> = chosen.iter().map(|at| (at / normals.kept(), at % normals.kept())).collect();
        let mut values = Vec::new();
        normals.gather(&chosen, &mut values)?;
        let mut weights = vec![1.0 / chosen.len() as f64; chosen.len()];
        let mut cells = Vec::new();
        let kinds = [&defects.real, &defects.made].map(|kind| filled(kind));
        let present = kinds.iter().filter(|kind| !kind.is_empty()).count();
        for kind in &kinds {
            for picture in kind {
                let stride = picture.cells.len().div_ceil(CELLS);
                let taken = picture.cells.iter().step_by(stride).map(|&cell| (picture.picture, cell as usize));
                let before = cells.len();
                cells.extend(taken);
                let each = 1.0 / (present * kind.len() * (cells.len() - before)) as f64;
                weights.resize(weights.len() + cells.len() - before, each);
            }
        }
        defects.bank.gather(&cells, &mut values)?;
        let channels = normals.channels;
        let values: Vec<f64> = values.into_iter().map(f64::from).collect();
        let rows = Array2::from_shape_vec((weights.len(), channels), values).expect("packed vectors");
        let (direction, offset) = separate(rows, &Array1::from(weights), chosen.len());
        Ok(Some(Self { source, statistics: statistics.clone(), direction, offset }))
    }

    /// What it says of standardised feature vectors `[cell, C]`, the lower the more like known defects: minus the
    /// log-odds.
    pub fn log_likelihood(&self, features: &[f32]) -> Vec<f32> {
        let product = |cell: &[f32]| cell.iter().zip(&self.direction).map(|(v, d)| v * d).sum::<f32>();
        features.chunks_exact(self.direction.len()).map(|cell| -(product(cell) + self.offset)).collect()
    }

    /// Its form for the export, for a grid of `(rows, columns)`.
    pub fn fold(&self, grid: (usize, usize)) -> FoldedFlow {
        FoldedFlow::contrast((&self.direction, self.offset), grid, self.source, &self.statistics)
    }
}

fn filled(pictures: &[PictureCells]) -> Vec<&PictureCells> {
    pictures.iter().filter(|picture| !picture.cells.is_empty()).collect()
}

/// Direction and offset that tell the rows behind the first `normals` from these, by Newton's method on the
/// penalised logistic loss, which is convex and here strictly so.
fn separate(rows: Array2<f64>, weights: &Array1<f64>, normals: usize) -> (Vec<f32>, f32) {
    let (count, channels) = rows.dim();
    let mut x = Array2::ones((count, channels + 1));
    x.slice_mut(ndarray::s![.., ..channels]).assign(&rows);
    let label = |row: usize| if row < normals { 0.0 } else { 1.0 };
    let penalty = |channel: usize| if channel < channels { PENALTY } else { 0.0 };
    let loss = |beta: &Array1<f64>| {
        let said = x.dot(beta);
        let each = |(row, &s): (usize, &f64)| {
            let against = if label(row) > 0.0 { -s } else { s };
            weights[row] * (against.max(0.0) + (-against.abs()).exp().ln_1p())
        };
        said.iter().enumerate().map(each).sum::<f64>()
            + 0.5 * beta.iter().enumerate().map(|(c, b)| penalty(c) * b * b).sum::<f64>()
    };
    let mut beta = Array1::<f64>::zeros(channels + 1);
    for _ in 0..STEPS {
        let odds = x.dot(&beta).mapv(|s| 1.0 / (1.0 + (-s).exp()));
        let residual = Array1::from_shape_fn(count, |row| weights[row] * (odds[row] - label(row)));
        let mut gradient = x.t().dot(&residual);
        let curvature = Array1::from_shape_fn(count, |row| weights[row] * odds[row] * (1.0 - odds[row]));
        let mut hessian = x.t().dot(&(&x * &curvature.view().insert_axis(Axis(1))));
        for channel in 0..=channels {
            gradient[channel] += penalty(channel) * beta[channel];
            // What the offset has of its own may vanish where everything is told for sure.
            hessian[(channel, channel)] += penalty(channel) + 1e-9;
        }
        let step = solve(&hessian, &gradient);
        let before = loss(&beta);
        let mut length = 1.0;
        // Far from the end a whole step may overshoot.
        while length > 1e-6 && loss(&(&beta - &(&step * length))) > before {
            length /= 2.0;
        }
        beta = beta - &step * length;
        if step.iter().all(|change| (change * length).abs() < SETTLED) {
            break;
        }
    }
    (beta.iter().take(channels).map(|&b| b as f32).collect(), beta[channels] as f32)
}

/// Solves `matrix · x = right` for a symmetric positive `matrix`, by Cholesky's decomposition.
fn solve(matrix: &Array2<f64>, right: &Array1<f64>) -> Array1<f64> {
    let size = right.len();
    let mut lower = Array2::<f64>::zeros((size, size));
    for i in 0..size {
        for j in 0..=i {
            let known: f64 = (0..j).map(|k| lower[(i, k)] * lower[(j, k)]).sum();
            let rest = matrix[(i, j)] - known;
            lower[(i, j)] = if i == j { rest.max(1e-12).sqrt() } else { rest / lower[(j, j)] };
        }
    }
    let mut x = right.clone();
    for i in 0..size {
        let known: f64 = (0..i).map(|k| lower[(i, k)] * x[k]).sum();
        x[i] = (x[i] - known) / lower[(i, i)];
    }
    for i in (0..size).rev() {
        let known: f64 = (i + 1..size).map(|k| lower[(k, i)] * x[k]).sum();
        x[i] = (x[i] - known) / lower[(i, i)];
    }
    x
}

#[cfg(test)]
mod tests {
    use ndarray::Array3;
    use rand::RngExt;
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    use super::*;

    #[test]
    fn a_system_is_solved() {
        let matrix = ndarray::array![[4.0, 2.0, 0.5], [2.0, 5.0, 1.0], [0.5, 1.0, 3.0]];
        let x = solve(&matrix, &ndarray::array![1.0, -2.0, 0.25]);
        for (left, right) in matrix.dot(&x).iter().zip([1.0, -2.0, 0.25]) {
            assert!((left - right).abs() < 1e-12, "{x}");
        }
    }

    #[test]
    fn what_sets_known_defects_apart_is_found_and_nothing_is_where_no_known_one_has_a_cell() {
        let mut rng = ChaCha8Rng::seed_from_u64(4);
        let (rows, columns, channels) = (6, 6, 5);
        // Every third channel counts; defects lie two deviations off in it.
        let mut bank = |shift: f32| {
            let mut bank = LevelBank::new(rows, columns, channels);
            for _ in 0..8 {
                let map = Array3::from_shape_fn((rows, columns, channels), |(_, _, channel)| {
                    let noise: f32 = (0..12).map(|_| rng.random::<f32>()).sum::<f32>() - 6.0;
                    noise + if channel == 2 { shift } else { 0.0 }
                });
                bank.push(&map, 1).unwrap();
            }
            bank
        };
        let (normals, odd) = (bank(0.0), bank(2.0));
        let cells = |picture, cells: &[u32]| PictureCells { picture, cells: cells.to_vec() };
        let all: Vec<u32> = (0..36).collect();
        let mut defects = DefectCells {
            bank: &odd,
            real: vec![cells(0, &all), cells(1, &[])],
            made: vec![cells(2, &all), cells(3, &all)],
            beside: Vec::new(),
        };
        let source = Source { map: 0, pooling: 1 };
        let statistics = ChannelStatistics::identity(channels);
        let fit = |defects: &DefectCells<'_>| {
            Contrast::fit(&normals, defects, source, &statistics, &mut ChaCha8Rng::seed_from_u64(1)).unwrap()
        };
        let contrast = fit(&defects).unwrap();
        let direction = &contrast.direction;
        assert!((0..channels).filter(|&c| c != 2).all(|c| direction[c].abs() < 0.3 * direction[2]), "{direction:?}");
        let mean = |bank: &LevelBank| {
            let said = contrast.log_likelihood(&bank.picture(5).unwrap());
            said.iter().sum::<f32>() / said.len() as f32
        };
        let (normal, defective) = (mean(&normals), mean(&odd));
        assert!(normal > 0.3 && defective < -0.3, "{normal} {defective}");
        defects.real = vec![cells(0, &[])];
        assert_eq!(fit(&defects), None);
    }
}
