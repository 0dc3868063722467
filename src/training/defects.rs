//! What training knows of defects: real ones with their regions, found regions for those without
//! a mask, and pictures made from them or from nothing.

use rand::Rng;
use rand::seq::IndexedRandom;

use super::dataset::Sample;
use super::features::{FeatureBank, FeatureFileError, LevelBank};
use super::fit::{DefectCells, LevelFit, PictureCells};
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

/// Fused anomaly of every cell of the finest level: each level's log-likelihoods standardised,
/// coarser ones repeated. `levels` gives their rows and columns, `features` one picture's, per level.
fn fused(fits: &mut [LevelFit], levels: &[LevelBank], features: &[Vec<f32>], statistics: &[(f64, f64)]) -> Vec<f64> {
    let finest = (levels[0].rows, levels[0].columns);
    let mut sum = vec![0.0; finest.0 * finest.1];
    for (((fit, level), features), (mean, deviation)) in fits.iter_mut().zip(levels).zip(features).zip(statistics) {
        let map = fit.log_likelihood(features);
        for (i, value) in sum.iter_mut().enumerate() {
            let (row, column) = (i / finest.1 * level.rows / finest.0, i % finest.1 * level.columns / finest.1);
            *value += (mean - f64::from(map[row * level.columns + column])) / deviation;
        }
    }
    sum
}

/// Finds the regions of defects that have no mask, with the flows as trained so far: the cells
/// beyond nearly all cells of `normals`, at least the strongest cell of the picture. `weak[i]` is
/// the number in `bank` of the i-th picture looked at; `normals` are standardised features of some
/// normals, per picture and level.
pub(super) fn find_regions(
    fits: &mut [LevelFit],
    normals: &[Vec<Vec<f32>>],
    bank: &FeatureBank,
    weak: &[usize],
    size: Size,
) -> Result<Vec<Mask>, FeatureFileError> {
    let statistics: Vec<(f64, f64)> = fits
        .iter_mut()
        .enumerate()
        .map(|(level, fit)| {
            let maps = normals.iter().flat_map(|picture| fit.log_likelihood(&picture[level]));
            let values: Vec<f64> = maps.map(f64::from).collect();
            let n = values.len().max(1) as f64;
            let mean = values.iter().sum::<f64>() / n;
            let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / n;
            (mean, variance.sqrt().max(1e-6))
        })
        .collect();
    let mut usual: Vec<f64> =
        normals.iter().flat_map(|picture| fused(fits, &bank.levels, picture, &statistics)).collect();
    usual.sort_unstable_by(f64::total_cmp);
    let boundary = usual[((usual.len() as f64 * WEAK_QUANTILE) as usize).min(usual.len() - 1)];
    let grid = Size { width: bank.levels[0].columns, height: bank.levels[0].rows };
    weak.iter()
        .map(|&picture| {
            let features: Vec<_> = bank.levels.iter().map(|level| level.picture(picture)).collect::<Result<_, _>>()?;
            let map = fused(fits, &bank.levels, &features, &statistics);
            let strongest = map.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let mut mask = Mask::empty(size);
            for (i, flag) in mask.flags_mut().iter_mut().enumerate() {
                let (row, column) =
                    (i / size.width * grid.height / size.height, i % size.width * grid.width / size.width);
                let value = map[row * grid.width + column];
                *flag = value > boundary || value >= strongest;
            }
            Ok(mask)
        })
        .collect()
}

/// Pictures with a defect that was not there: known defects pasted into normals or, without known
/// ones, invented.
pub(super) fn synthesise(
    known: &[KnownDefect],
    normals: &[&Picture],
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

/// Cells within so many of a defect are neither abnormal nor surely normal.
const HALO: usize = 2;

/// Averages of features up to this side still show a defect of one cell.
const NARROW: usize = 3;

/// Share of a wider average that a defect must fill to be learned from it.
const LEAST_SEEN: f32 = 0.4;

/// The cells of one level, whose features are averages over a square of `pooling` cells: pictures
/// `0..known.len()` of `bank` are the known defects, those behind them the made ones.
pub(super) fn defect_cells<'a>(
    bank: &'a LevelBank,
    pooling: usize,
    known: &[KnownDefect],
    made: &[(Picture, Mask)],
) -> DefectCells<'a> {
    let mut cells = DefectCells { bank, real: Vec::new(), made: Vec::new(), beside: Vec::new() };
    for (picture, defect) in known.iter().enumerate() {
        let Some(mask) = &defect.mask else { continue };
        let coverage = Coverage::of(mask, bank, pooling);
        cells.real.push(PictureCells { picture, cells: coverage.abnormal() });
        // Beside a weak region there may be more of the defect than was found.
        if !defect.weak {
            cells.beside.push(PictureCells { picture, cells: coverage.beside() });
        }
    }
    for (i, (_, mask)) in made.iter().enumerate() {
        let picture = known.len() + i;
        let coverage = Coverage::of(mask, bank, pooling);
        cells.made.push(PictureCells { picture, cells: coverage.abnormal() });
        cells.beside.push(PictureCells { picture, cells: coverage.beside() });
    }
    cells
}

/// How many pixels of every cell are defective.
struct Coverage {
    rows: usize,
    columns: usize,
    cells: Vec<u32>,
    /// Pixels of a cell.
    whole: u32,
    /// Cells to each side that a cell's features are averaged with.
    reach: usize,
}

impl Coverage {
    fn of(mask: &Mask, bank: &LevelBank, pooling: usize) -> Self {
        let (rows, columns) = (bank.rows, bank.columns);
        let size = mask.size();
        let mut cells = vec![0; rows * columns];
        for (at, _) in mask.flags().iter().enumerate().filter(|(_, flag)| **flag) {
            let (x, y) = (at % size.width, at / size.width);
            cells[y * rows / size.height * columns + x * columns / size.width] += 1;
        }
        let whole = (size.width * size.height / (rows * columns)) as u32;
        Self { rows, columns, cells, whole, reach: pooling / 2 }
    }

    /// Cells around a cell, itself included.
    fn around(&self, cell: usize, reach: usize) -> impl Iterator<Item = u32> {
        let (row, column) = (cell / self.columns, cell % self.columns);
        let rows = row.saturating_sub(reach)..(row + reach + 1).min(self.rows);
        let columns = column.saturating_sub(reach)..(column + reach + 1).min(self.columns);
        rows.flat_map(move |r| columns.clone().map(move |c| self.cells[r * self.columns + c]))
    }

    /// Cells that are defective by half or, of a defect that is smaller or thinner than a cell, more
    /// than any cell around: a cell that a defect just touches looks normal and would teach that
    /// normals are abnormal. Where features are averages of a wide square, cells that are defective by half
    /// in a square that is so by [`LEAST_SEEN`]: what a small defect leaves of itself in it is a normal, too, and
    /// taught the flow less of the large ones (magnetic_tile, seeds 1 to 3: pixel AUROC 0.827, so 0.853).
    fn abnormal(&self) -> Vec<u32> {
        let wide = 2 * self.reach + 1 > NARROW;
        let abnormal = |cell: &usize| {
            let covered = self.cells[*cell];
            let by_half = covered > 0 && 2 * covered >= self.whole;
            if wide {
                by_half && self.seen(*cell) >= LEAST_SEEN
            } else {
                by_half || covered > 0 && self.around(*cell, 1).all(|other| other <= covered)
            }
        };
        (0..self.cells.len()).filter(abnormal).map(|cell| cell as u32).collect()
    }

    /// Share of what a cell's features are averaged over that is defective.
    fn seen(&self, cell: usize) -> f32 {
        let (cells, covered) = self.around(cell, self.reach).fold((0, 0), |(n, sum), covered| (n + 1, sum + covered));
        covered as f32 / (cells * self.whole) as f32
    }

    /// Cells without any defect near, or in what they are averaged over.
    fn beside(&self) -> Vec<u32> {
        let reach = self.reach.max(HALO);
        let clean = |cell: &usize| self.around(*cell, reach).all(|covered| covered == 0);
        (0..self.cells.len()).filter(clean).map(|cell| cell as u32).collect()
    }
}

/// A few pictures with invented defects, to choose the minimum area by where nothing is known.
pub(super) fn invent(normals: &[&Picture], count: usize, rng: &mut impl Rng) -> Vec<Picture> {
    (0..count).filter_map(|_| Some(invent_defect(normals.choose(rng)?, rng).0)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_is_abnormal_by_half_or_where_a_small_defect_is_most_and_normal_only_farther_off() {
        let size = Size { width: 80, height: 80 };
        let mut mask = Mask::empty(size);
        // Cells are 10 pixels: one cell whole, its right neighbour by 2 columns; a speck far off.
        for y in 10..20 {
            mask.flags_mut()[y * 80 + 10..y * 80 + 22].fill(true);
        }
        mask.flags_mut()[75 * 80 + 75] = true;
        let bank = LevelBank::new(8, 8, 2);
        let coverage = Coverage::of(&mask, &bank, 3);
        assert_eq!(coverage.abnormal(), [9, 63]);
        let beside = coverage.beside();
        assert!(!beside.contains(&12) && beside.contains(&13) && !beside.contains(&45) && beside.contains(&44));
    }

    #[test]
    fn a_wide_average_learns_only_from_defects_that_fill_it() {
        let size = Size { width: 160, height: 160 };
        let bank = LevelBank::new(16, 16, 2);
        let marked = |columns: std::ops::Range<usize>, rows: std::ops::Range<usize>| {
            let mut mask = Mask::empty(size);
            rows.for_each(|y| mask.flags_mut()[y * 160 + columns.start..y * 160 + columns.end].fill(true));
            Coverage::of(&mask, &bank, 9)
        };
        // Nine cells of eighty-one.
        assert!(marked(60..90, 60..90).abnormal().is_empty());
        assert!(!marked(60..90, 60..90).beside().is_empty());
        // The four left columns: the first sees four of five, the last four of eight.
        let band = marked(0..40, 0..160);
        let expected: Vec<u32> = (0..16).flat_map(|row| (0..4).map(move |column| row * 16 + column)).collect();
        assert_eq!(band.abnormal(), expected);
        // Normal is what sees none of it: four cells off and farther.
        assert_eq!(band.beside(), (0..16).flat_map(|row| (8..16).map(move |c| row * 16 + c)).collect::<Vec<u32>>());
        // A band of one column fills no square.
        assert!(marked(0..10, 0..160).abnormal().is_empty());
    }
}
