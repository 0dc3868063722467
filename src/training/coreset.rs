//! A few vectors of the training normals that stand for all: how far a cell lies from the nearest.
//!
//! A small flow forgets what normals show but seldom, the tip of a part or its thread; defects that are
//! known teach it what matters all the same. Where none are, the distance to what was really seen
//! is a level of its own. Source: Roth et al., CVPR 2022 (arXiv:2106.08265), here on whitened features.

use ndarray::{Array2, Axis};
use rand::Rng;
use rand::seq::index;

use super::features::{ChannelStatistics, FeatureFileError, LevelBank, Source};
use super::flow::FoldedFlow;
use crate::scoring::flow::{NEAREST_FLOOR, NEAREST_LIMIT};

/// Cells that vectors are chosen from: each choice looks at all of them.
const CANDIDATES: usize = 32_768;

/// Whitened feature vectors that lie in reach of those of all training normals.
#[derive(Debug, Clone, PartialEq)]
pub struct Coreset {
    /// What it looks at.
    pub source: Source,
    /// What makes features of it comparable.
    pub statistics: ChannelStatistics,
    /// `[vector, C]`.
    pub vectors: Array2<f32>,
}

impl Coreset {
    /// Chooses up to `size` of a level's cells, each the one that lies farthest from those before (greedy
    /// k-centre): what is rare is kept, of what is common one of many. `bank` must not be standardised yet.
    ///
    /// # Errors
    /// [`FeatureFileError`] when the features cannot be read.
    pub fn choose(bank: &LevelBank, source: Source, size: usize, rng: &mut impl Rng) -> Result<Self, FeatureFileError> {
        let statistics = bank.statistics(true);
        let cells = bank.pictures() * bank.kept();
        let chosen = index::sample(rng, cells, CANDIDATES.min(cells));
        let chosen: Vec<_> = chosen.iter().map(|at| (at / bank.kept(), at % bank.kept())).collect();
        let mut values = Vec::with_capacity(chosen.len() * bank.channels);
        bank.gather(&chosen, &mut values)?;
        statistics.apply(&mut values);
        cut_off(&mut values);
        let candidates = Array2::from_shape_vec((chosen.len(), bank.channels), values).expect("packed vectors");
        let vectors = candidates.select(Axis(0), &farthest_first(&candidates, size));
        Ok(Self { source, statistics, vectors })
    }

    /// What it says of whitened feature vectors `[cell, C]`: about minus the distance to the nearest vector, in
    /// the mean over channels; exactly see [`NEAREST_INPUTS`](crate::scoring::flow::NEAREST_INPUTS).
    pub fn log_likelihood(&self, features: &[f32]) -> Vec<f32> {
        let channels = self.vectors.ncols();
        let mut features = features.to_vec();
        cut_off(&mut features);
        features
            .chunks_exact(channels)
            .map(|cell| {
                let squares = self.vectors.rows().into_iter().map(|vector| square_distance(vector.as_slice(), cell));
                -(NEAREST_FLOOR + squares.fold(f32::INFINITY, f32::min) / channels as f32).sqrt()
            })
            .collect()
    }

    /// Its form for the export, for a grid of `(rows, columns)`.
    pub fn fold(&self, (rows, columns): (usize, usize)) -> FoldedFlow {
        FoldedFlow::nearest(self.vectors.clone(), (rows, columns), self.source, &self.statistics)
    }
}

fn cut_off(values: &mut [f32]) {
    for value in values {
        *value = value.clamp(-NEAREST_LIMIT, NEAREST_LIMIT);
    }
}

/// In eight sums, which a processor keeps in one register: choosing is nothing but this.
fn square_distance(a: Option<&[f32]>, b: &[f32]) -> f32 {
    let ((a, a_rest), (b, b_rest)) = (a.unwrap_or_default().as_chunks::<8>(), b.as_chunks::<8>());
    let mut sums = [0.0f32; 8];
    for (a, b) in a.iter().zip(b) {
        for (sum, (a, b)) in sums.iter_mut().zip(a.iter().zip(b)) {
            *sum += (a - b) * (a - b);
        }
    }
    let rest: f32 = a_rest.iter().zip(b_rest).map(|(a, b)| (a - b) * (a - b)).sum();
    sums.iter().sum::<f32>() + rest
}

/// Numbers of up to `size` rows: the first, then ever the one farthest from all before; fewer where no other
/// differs from them.
fn farthest_first(candidates: &Array2<f32>, size: usize) -> Vec<usize> {
    let mut distances = vec![f32::INFINITY; candidates.nrows()];
    let mut chosen = Vec::new();
    let mut next = 0;
    while chosen.len() < size && next < candidates.nrows() && distances[next] > 0.0 {
        chosen.push(next);
        let latest = candidates.row(next);
        let latest = latest.as_slice().unwrap_or_default();
        for (distance, row) in distances.iter_mut().zip(candidates.rows()) {
            *distance = distance.min(square_distance(row.as_slice(), latest));
        }
        let farthest = distances.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1));
        next = farthest.map_or(0, |(number, _)| number);
    }
    chosen
}

#[cfg(test)]
mod tests {
    use ndarray::Array3;
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    use super::*;

    #[test]
    fn the_rare_is_kept_and_what_was_never_seen_lies_far_from_all() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let mut bank = LevelBank::new(16, 16, 4);
        for picture in 0..8 {
            let value = |(row, column, channel): (usize, usize, usize)| {
                // One cell of one picture is like no other.
                let rare = if (picture, row, column) == (5, 3, 7) && channel == 2 { 9.0 } else { 0.0 };
                ((row * 31 + column * 17 + channel * 7 + picture) % 61) as f32 * 0.02 + rare
            };
            bank.push(&Array3::from_shape_fn((16, 16, 4), value), 1).unwrap();
        }
        let coreset = Coreset::choose(&bank, Source { map: 0, pooling: 1 }, 24, &mut rng).unwrap();
        assert_eq!(coreset.vectors.dim(), (24, 4));
        let say = |vector: [f32; 4]| {
            let mut vector = vector.to_vec();
            coreset.statistics.apply(&mut vector);
            coreset.log_likelihood(&vector)[0]
        };
        let mut seen = Vec::new();
        bank.gather(&[(5, 3 * 16 + 7), (0, 0), (1, 40)], &mut seen).unwrap();
        let (seen, _) = seen.as_chunks();
        let seen: Vec<f32> = seen.iter().map(|&vector| say(vector)).collect();
        assert!(seen[0] > -0.11, "the rare cell stands in it: {seen:?}");
        assert!(seen.iter().all(|&value| value > -1.0), "{seen:?}");
        assert!(say([0.4, 0.4, -8.0, 0.4]) < -3.0);
    }

    #[test]
    fn of_few_different_vectors_none_comes_twice() {
        let candidates = Array2::from_shape_fn((40, 3), |(row, _)| (row % 4) as f32);
        let mut chosen: Vec<usize> = farthest_first(&candidates, 10).iter().map(|row| row % 4).collect();
        chosen.sort_unstable();
        assert_eq!(chosen, [0, 1, 2, 3]);
        assert!(farthest_first(&candidates, 0).is_empty());
        assert!(farthest_first(&Array2::zeros((0, 3)), 4).is_empty());
    }
}
