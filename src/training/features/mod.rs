//! Backbone features of the training pictures, computed once.
//!
//! A level keeps them in half precision, in memory or in a temporary file, and standardises a cell
//! when it is read: so the memory that training takes does not grow with the pictures. Where even
//! the file would grow beyond its budget, every picture keeps the same number of its cells.

mod statistics;
mod store;

use std::path::Path;

use ndarray::Array3;
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

pub use statistics::ChannelStatistics;
use statistics::Sums;
pub use store::FeatureFileError;
use store::{Store, VALUE_BYTES};

/// Up to here a bank stays in memory, bytes.
const IN_MEMORY: u64 = 256 << 20;

/// How a bank keeps what it is given.
#[derive(Debug, Clone, Copy)]
pub struct Keeping<'a> {
    /// Pictures that will come.
    pub pictures: usize,
    /// Most that they may take, bytes; of more, each picture keeps an even share of its cells.
    pub budget: u64,
    /// Where the temporary file goes.
    pub folder: &'a Path,
    /// Seed of the choice of cells.
    pub seed: u64,
}

/// Features of many pictures at one level.
#[derive(Debug)]
pub struct LevelBank {
    /// Rows of the map.
    pub rows: usize,
    /// Columns of the map.
    pub columns: usize,
    /// Channels C.
    pub channels: usize,
    pictures: usize,
    /// Cells kept of every picture.
    kept: usize,
    /// All cells in random order; empty where every cell is kept. Every picture takes the next
    /// `kept` of them, around and around: all places of the map come equally often.
    order: Vec<u32>,
    /// `[picture, kept cell, channel]`, less `origin`.
    store: Store,
    /// Mean of the first picture, `[C]`: half precision is for what a channel varies by, not for
    /// where it lies.
    origin: Vec<f32>,
    /// Over all cells that came, kept or not.
    sums: Sums,
    /// What a cell is standardised with when it is read.
    statistics: Option<ChannelStatistics>,
    /// What that makes of a stored value: factor and offset, `[C]`.
    reading: Vec<(f32, f32)>,
}

/// A map `[row, column, channel]`, averaged over `pooling` × `pooling` cells; cells outside the map
/// do not count. Packed `[cell, C]`.
pub fn pooled(map: &Array3<f32>, pooling: usize) -> Vec<f32> {
    let (rows, columns, channels) = map.dim();
    let reach = pooling / 2;
    let mut values = vec![0.0; rows * columns * channels];
    for (at, cell) in values.chunks_exact_mut(channels.max(1)).enumerate() {
        let (row, column) = (at / columns, at % columns);
        let mut count = 0.0;
        for r in row.saturating_sub(reach)..=(row + reach).min(rows - 1) {
            for c in column.saturating_sub(reach)..=(column + reach).min(columns - 1) {
                cell.iter_mut().zip(map.slice(ndarray::s![r, c, ..])).for_each(|(sum, v)| *sum += v);
                count += 1.0;
            }
        }
        if count > 1.0 {
            for v in cell {
                *v /= count;
            }
        }
    }
    values
}

impl LevelBank {
    /// An empty bank in memory that keeps every cell.
    pub fn new(rows: usize, columns: usize, channels: usize) -> Self {
        Self {
            rows,
            columns,
            channels,
            pictures: 0,
            kept: rows * columns,
            order: Vec::new(),
            store: Store::in_memory(),
            origin: vec![0.0; channels],
            sums: Sums::new(channels),
            statistics: None,
            reading: vec![(1.0, 0.0); channels],
        }
    }

    /// Keeps only so many cells of every picture.
    fn keep(&mut self, cells: usize, seed: u64, level: usize) {
        self.kept = cells.clamp(1, self.cells());
        if self.kept < self.cells() {
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            rng.set_stream(level as u64);
            self.order = (0..self.cells() as u32).collect();
            self.order.shuffle(&mut rng);
        }
    }

    /// Pictures in the bank.
    pub fn pictures(&self) -> usize {
        self.pictures
    }

    /// Cells of a map.
    pub fn cells(&self) -> usize {
        self.rows * self.columns
    }

    /// Cells kept of every picture.
    pub fn kept(&self) -> usize {
        self.kept
    }

    /// Which cell a picture keeps as its `slot`-th, `slot` below [`LevelBank::kept`].
    pub fn kept_cell(&self, picture: usize, slot: usize) -> usize {
        if self.order.is_empty() { slot } else { self.order[(picture * self.kept + slot) % self.order.len()] as usize }
    }

    /// Adds a picture's map `[row, column, channel]`, see [`pooled`].
    ///
    /// # Errors
    /// [`FeatureFileError`] when the file cannot be written.
    pub fn push(&mut self, map: &Array3<f32>, pooling: usize) -> Result<(), FeatureFileError> {
        assert_eq!(map.dim(), (self.rows, self.columns, self.channels), "the map has another shape");
        let mut values = pooled(map, pooling);
        self.sums.add(&values);
        if self.pictures == 0 {
            self.origin = self.sums.means();
            self.set_reading();
        }
        for cell in values.chunks_exact_mut(self.channels) {
            cell.iter_mut().zip(&self.origin).for_each(|(v, origin)| *v -= origin);
        }
        self.sums.correlate(&values);
        if !self.order.is_empty() {
            values = (0..self.kept)
                .map(|slot| self.kept_cell(self.pictures, slot) * self.channels)
                .flat_map(|at| values[at..at + self.channels].iter().copied())
                .collect();
        }
        self.store.push(&values)?;
        self.pictures += 1;
        Ok(())
    }

    /// What standardises, and with `whiten` whitens, the features of all cells that came, kept or not.
    pub fn statistics(&self, whiten: bool) -> ChannelStatistics {
        self.sums.statistics(whiten)
    }

    /// From now on cells are read as the given statistics have them.
    pub fn standardise(&mut self, statistics: &ChannelStatistics) {
        self.statistics = Some(statistics.clone());
        self.set_reading();
    }

    fn set_reading(&mut self) {
        self.reading = match &self.statistics {
            None => self.origin.iter().map(|&origin| (1.0, origin)).collect(),
            Some(ChannelStatistics { mean, deviation, .. }) => {
                let channels = mean.iter().zip(deviation).zip(&self.origin);
                channels.map(|((mean, deviation), origin)| (1.0 / deviation, (origin - mean) / deviation)).collect()
            }
        };
    }

    /// Appends the feature vectors `[cell, C]` of kept cells, each named by its picture and slot.
    ///
    /// # Errors
    /// [`FeatureFileError`] when the file cannot be read.
    pub fn gather(&self, cells: &[(usize, usize)], into: &mut Vec<f32>) -> Result<(), FeatureFileError> {
        let start = into.len();
        for (picture, slot) in cells {
            self.store.read((picture * self.kept + slot) * self.channels, self.channels, into)?;
        }
        self.finish(&mut into[start..]);
        Ok(())
    }

    /// All kept feature vectors of one picture, `[cell, C]`.
    ///
    /// # Errors
    /// [`FeatureFileError`] when the file cannot be read.
    pub fn picture(&self, picture: usize) -> Result<Vec<f32>, FeatureFileError> {
        let length = self.kept * self.channels;
        let mut values = Vec::with_capacity(length);
        self.store.read(picture * length, length, &mut values)?;
        self.finish(&mut values);
        Ok(values)
    }

    /// What is to be done with stored vectors; together, for the whitening is a matrix product.
    fn finish(&self, values: &mut [f32]) {
        for cell in values.chunks_exact_mut(self.channels) {
            cell.iter_mut().zip(&self.reading).for_each(|(v, (factor, offset))| *v = *v * factor + offset);
        }
        if let Some(statistics) = &self.statistics {
            statistics.whiten(values);
        }
    }

    /// Row and column of a cell.
    pub fn place(&self, cell: usize) -> [u16; 2] {
        [(cell / self.columns) as u16, (cell % self.columns) as u16]
    }

    /// Rows and columns of all cells, in order.
    pub fn places(&self) -> Vec<[u16; 2]> {
        (0..self.cells()).map(|cell| self.place(cell)).collect()
    }
}

/// Features of many pictures at all levels, finest first.
#[derive(Debug)]
pub struct FeatureBank {
    /// One per level.
    pub levels: Vec<LevelBank>,
    /// Where each level's features come from.
    pub sources: Vec<Source>,
}

/// What a level of the model looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Source {
    /// Number of the backbone's map, 0 is the finest.
    pub map: usize,
    /// Side of the neighbourhood over which features are averaged, odd.
    pub pooling: usize,
}

/// Bytes that the features of one picture take; `maps` are the backbone's `(rows, columns, channels)`.
pub fn picture_bytes(maps: &[(usize, usize, usize)], sources: &[Source]) -> u64 {
    let values = |source: &Source| maps[source.map].0 * maps[source.map].1 * maps[source.map].2;
    sources.iter().map(values).sum::<usize>() as u64 * VALUE_BYTES
}

impl FeatureBank {
    /// An empty bank for the given sources; `maps` are the backbone's `(rows, columns, channels)`.
    ///
    /// # Errors
    /// [`FeatureFileError`] when a file is needed and cannot be made.
    ///
    /// # Panics
    /// When a source names a map that is not there.
    pub fn new(
        maps: &[(usize, usize, usize)],
        sources: Vec<Source>,
        keeping: &Keeping<'_>,
    ) -> Result<Self, FeatureFileError> {
        let needed = picture_bytes(maps, &sources).saturating_mul(keeping.pictures as u64);
        let mut levels: Vec<_> =
            sources.iter().map(|source| maps[source.map]).map(|(r, c, k)| LevelBank::new(r, c, k)).collect();
        for (number, level) in levels.iter_mut().enumerate() {
            if needed > keeping.budget {
                let share = keeping.budget as f64 / needed as f64;
                level.keep((level.cells() as f64 * share) as usize, keeping.seed, number);
            }
            if needed.min(keeping.budget) > IN_MEMORY {
                level.store = Store::in_file(keeping.folder)?;
            }
        }
        Ok(Self { levels, sources })
    }

    /// Pictures in the bank.
    pub fn pictures(&self) -> usize {
        self.levels.first().map_or(0, LevelBank::pictures)
    }

    /// Adds a picture's maps, as the backbone gives them.
    ///
    /// # Errors
    /// [`FeatureFileError`] when the file cannot be written.
    pub fn push(&mut self, maps: &[Array3<f32>]) -> Result<(), FeatureFileError> {
        for (bank, source) in self.levels.iter_mut().zip(&self.sources) {
            bank.push(&maps[source.map], source.pooling)?;
        }
        Ok(())
    }

    /// Standardises every level.
    pub fn standardise(&mut self, statistics: &[ChannelStatistics]) {
        for (bank, statistics) in self.levels.iter_mut().zip(statistics) {
            bank.standardise(statistics);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pooling_averages_only_cells_inside_the_map() {
        let map = Array3::from_shape_fn((2, 3, 1), |(r, c, _)| (r * 3 + c) as f32);
        let pooled = pooled(&map, 3);
        assert_eq!(pooled[0], (0.0 + 1.0 + 3.0 + 4.0) / 4.0);
        assert_eq!(pooled[1], 15.0 / 6.0);
    }

    #[test]
    fn standardised_channels_have_zero_mean_and_unit_deviation_though_they_lie_far_off() {
        let mut bank = LevelBank::new(4, 4, 2);
        let map =
            Array3::from_shape_fn((4, 4, 2), |(r, c, k)| ((r * 7 + c * 3) % 5) as f32 * 0.1 * (k + 1) as f32 + 1000.0);
        bank.push(&map, 1).unwrap();
        bank.standardise(&bank.statistics(false));
        let values = bank.picture(0).unwrap();
        for k in 0..2 {
            let channel: Vec<f32> = values.iter().skip(k).step_by(2).copied().collect();
            let mean = channel.iter().sum::<f32>() / 16.0;
            let variance = channel.iter().map(|v| (v - mean).powi(2)).sum::<f32>() / 16.0;
            assert!(mean.abs() < 2e-3 && (variance - 1.0).abs() < 5e-3, "{mean} {variance}");
        }
    }

    #[test]
    fn a_bank_over_its_budget_keeps_every_place_equally_often_and_statistics_of_all() {
        let (maps, source) = ([(6, 6, 2), (3, 3, 4)], |map| Source { map, pooling: 1 });
        let folder = tempfile::tempdir().unwrap();
        let all = picture_bytes(&maps, &[source(0), source(1)]) * 12;
        let bank = |budget| {
            let keeping = Keeping { pictures: 12, budget, folder: folder.path(), seed: 3 };
            let mut bank = FeatureBank::new(&maps, vec![source(0), source(1)], &keeping).unwrap();
            for picture in 0..12 {
                let value = |side: usize| move |(r, c, k)| (picture * 100 + (r * side + c) * 3 + k) as f32;
                let maps = [Array3::from_shape_fn(maps[0], value(6)), Array3::from_shape_fn(maps[1], value(3))];
                bank.push(&maps).unwrap();
            }
            bank
        };
        let (whole, part) = (bank(all), bank(all / 3));
        for (whole, part) in whole.levels.iter().zip(&part.levels) {
            assert_eq!((whole.kept(), part.kept()), (whole.cells(), whole.cells() / 3));
            assert_eq!(whole.statistics(true), part.statistics(true));
            let mut times = vec![0; part.cells()];
            for picture in 0..12 {
                for slot in 0..part.kept() {
                    let cell = part.kept_cell(picture, slot);
                    times[cell] += 1;
                    let (mut kept, mut expected) = (Vec::new(), Vec::new());
                    part.gather(&[(picture, slot)], &mut kept).unwrap();
                    whole.gather(&[(picture, cell)], &mut expected).unwrap();
                    assert_eq!(kept, expected);
                }
            }
            assert!(times.iter().all(|&n| n == 4), "{times:?}");
        }
        assert_eq!(part.levels[0].order, bank(all / 3).levels[0].order);
    }
}
