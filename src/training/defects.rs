//! What training knows of defects: real ones with their regions, found regions for those without
//! a mask, and pictures made from them or from nothing.

use rand::seq::IndexedRandom;
use rand::{Rng, RngExt};

use super::dataset::Sample;
use super::features::{FeatureBank, LevelBank};
use super::fit::{AbnormalCells, LevelFit};
use super::synthesis::{invent_defect, paste_defect};
use crate::inspection::{Mask, Picture, Size};

/// A known defect at model size.
#[derive(Debug)]
pub(super) struct KnownDefect {
    pub(super) sample: Sample,
    pub(super) picture: Picture,
    /// Its region; for a weak one, once it was found.
    pub(super) mask: Option<Mask>,
    /// Whether the region was found by the model, not marked by a person.
    pub(super) weak: bool,
}

/// Share of normal cells that a weak region must lie above.
const WEAK_QUANTILE: f64 = 0.995;

/// Fused anomaly of every cell of the finest level: each level standardised over `normals` cells,
/// coarser ones repeated.
fn fused(fits: &mut [LevelFit], bank: &FeatureBank, picture: usize, statistics: &[(f64, f64)]) -> Vec<f64> {
    let finest = (bank.levels[0].rows, bank.levels[0].columns);
    let mut sum = vec![0.0; finest.0 * finest.1];
    for ((fit, level), (mean, deviation)) in fits.iter_mut().zip(&bank.levels).zip(statistics) {
        let map = fit.log_likelihood(level, picture);
        for (i, value) in sum.iter_mut().enumerate() {
            let (row, column) = (i / finest.1 * level.rows / finest.0, i % finest.1 * level.columns / finest.1);
            *value += (mean - f64::from(map[row * level.columns + column])) / deviation;
        }
    }
    sum
}

/// Finds the regions of defects that have no mask, with the flows as trained so far: the cells
/// beyond nearly all cells of `normals`, at least the strongest cell of the picture. `weak[i]` is
/// the number in `bank` of the i-th picture looked at.
pub(super) fn find_regions(
    fits: &mut [LevelFit],
    normals: &FeatureBank,
    bank: &FeatureBank,
    weak: &[usize],
    size: Size,
) -> Vec<Mask> {
    let looked_at = normals.pictures().min(32);
    let statistics: Vec<(f64, f64)> = fits
        .iter_mut()
        .zip(&normals.levels)
        .map(|(fit, level)| {
            let values: Vec<f64> = (0..looked_at).flat_map(|p| fit.log_likelihood(level, p)).map(f64::from).collect();
            let n = values.len().max(1) as f64;
            let mean = values.iter().sum::<f64>() / n;
            let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / n;
            (mean, variance.sqrt().max(1e-6))
        })
        .collect();
    let mut usual: Vec<f64> = (0..looked_at).flat_map(|p| fused(fits, normals, p, &statistics)).collect();
    usual.sort_unstable_by(f64::total_cmp);
    let boundary = usual[((usual.len() as f64 * WEAK_QUANTILE) as usize).min(usual.len() - 1)];
    let grid = Size { width: bank.levels[0].columns, height: bank.levels[0].rows };
    weak.iter()
        .map(|&picture| {
            let map = fused(fits, bank, picture, &statistics);
            let strongest = map.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let mut mask = Mask::empty(size);
            for (i, flag) in mask.flags_mut().iter_mut().enumerate() {
                let (row, column) =
                    (i / size.width * grid.height / size.height, i % size.width * grid.width / size.width);
                let value = map[row * grid.width + column];
                *flag = value > boundary || value >= strongest;
            }
            mask
        })
        .collect()
}

/// Pictures with a defect that was not there: known defects pasted into normals or, without known
/// ones, invented.
pub(super) fn synthesise(
    known: &[KnownDefect],
    normals: &[Picture],
    count: usize,
    rng: &mut impl Rng,
) -> Vec<(Picture, Mask)> {
    let sources: Vec<(&Picture, &Mask)> =
        known.iter().filter_map(|d| Some((&d.picture, d.mask.as_ref().filter(|m| m.area() > 0)?))).collect();
    let mut made = Vec::with_capacity(count);
    for _ in 0..count {
        let Some(normal) = normals.choose(rng) else { break };
        match sources.choose(rng) {
            Some((picture, mask)) => made.extend(paste_defect(picture, mask, normal, rng)),
            None => made.push(invent_defect(normal, rng)),
        }
    }
    made
}

/// The abnormal cells of one level: pictures `0..known.len()` of `bank` are the known defects,
/// those behind them the made ones.
pub(super) fn abnormal_cells<'a>(
    bank: &'a LevelBank,
    known: &[KnownDefect],
    made: &[(Picture, Mask)],
) -> AbnormalCells<'a> {
    let grid = Size { width: bank.columns, height: bank.rows };
    let cells = |picture: usize, mask: &Mask| -> Vec<(u32, u32)> {
        let fitted = mask.fit(None, grid);
        let flags = fitted.flags().iter().enumerate();
        flags.filter(|(_, defect)| **defect).map(|(cell, _)| (picture as u32, cell as u32)).collect()
    };
    AbnormalCells {
        bank,
        real: known.iter().enumerate().filter_map(|(i, d)| Some(cells(i, d.mask.as_ref()?))).flatten().collect(),
        made: made.iter().enumerate().flat_map(|(i, (_, mask))| cells(known.len() + i, mask)).collect(),
    }
}

/// A few pictures with invented defects, to choose the minimum area by where nothing is known.
pub(super) fn invent(normals: &[Picture], count: usize, rng: &mut impl Rng) -> Vec<Picture> {
    (0..count)
        .filter_map(|_| {
            Some(invent_defect(&normals[rng.random_range(0..normals.len().max(1))..].first()?.clone(), rng).0)
        })
        .collect()
}
