//! Backbone features of the training pictures, computed once.

use ndarray::Array3;

/// Features of many pictures at one level.
#[derive(Debug, Clone)]
pub struct LevelBank {
    /// Rows of the map.
    pub rows: usize,
    /// Columns of the map.
    pub columns: usize,
    /// Channels C.
    pub channels: usize,
    /// `[picture, row, column, channel]`, packed.
    values: Vec<f32>,
}

/// Mean and deviation of every channel.
#[derive(Debug, Clone, PartialEq)]
pub struct ChannelStatistics {
    /// `[C]`.
    pub mean: Vec<f32>,
    /// `[C]`, positive.
    pub deviation: Vec<f32>,
}

impl ChannelStatistics {
    /// Those that change nothing.
    pub fn identity(channels: usize) -> Self {
        Self { mean: vec![0.0; channels], deviation: vec![1.0; channels] }
    }
}

impl LevelBank {
    /// An empty bank.
    pub fn new(rows: usize, columns: usize, channels: usize) -> Self {
        Self { rows, columns, channels, values: Vec::new() }
    }

    /// Pictures in the bank.
    pub fn pictures(&self) -> usize {
        self.values.len() / (self.cells() * self.channels)
    }

    /// Cells of a map.
    pub fn cells(&self) -> usize {
        self.rows * self.columns
    }

    /// Adds a picture's map `[row, column, channel]`, averaged over `pooling` × `pooling` cells
    /// ; cells outside the map do not count.
    pub fn push(&mut self, map: &Array3<f32>, pooling: usize) {
        assert_eq!(map.dim(), (self.rows, self.columns, self.channels), "the map has another shape");
        let reach = pooling / 2;
        for row in 0..self.rows {
            for column in 0..self.columns {
                let start = self.values.len();
                self.values.resize(start + self.channels, 0.0);
                let cell = &mut self.values[start..];
                let mut count = 0.0;
                for r in row.saturating_sub(reach)..=(row + reach).min(self.rows - 1) {
                    for c in column.saturating_sub(reach)..=(column + reach).min(self.columns - 1) {
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
        }
    }

    /// Adds the pictures of another bank of the same shape.
    pub fn append(&mut self, other: &Self) {
        assert_eq!(
            (self.rows, self.columns, self.channels),
            (other.rows, other.columns, other.channels),
            "the banks have other shapes"
        );
        self.values.extend_from_slice(&other.values);
    }

    /// Mean and deviation of every channel over all pictures and cells.
    pub fn statistics(&self) -> ChannelStatistics {
        let mut sums = vec![(0.0f64, 0.0f64); self.channels];
        for cell in self.values.chunks_exact(self.channels) {
            for (sum, &v) in sums.iter_mut().zip(cell) {
                sum.0 += f64::from(v);
                sum.1 += f64::from(v) * f64::from(v);
            }
        }
        let n = (self.values.len() / self.channels).max(1) as f64;
        let (mean, deviation) = sums
            .into_iter()
            .map(|(sum, square)| {
                let mean = sum / n;
                // A channel that never moves carries nothing; the floor keeps it harmless.
                (mean as f32, (square / n - mean * mean).max(0.0).sqrt().max(1e-3) as f32)
            })
            .unzip();
        ChannelStatistics { mean, deviation }
    }

    /// Brings every channel to the given statistics' zero mean and unit deviation.
    pub fn standardise(&mut self, statistics: &ChannelStatistics) {
        for cell in self.values.chunks_exact_mut(self.channels) {
            for ((v, mean), deviation) in cell.iter_mut().zip(&statistics.mean).zip(&statistics.deviation) {
                *v = (*v - mean) / deviation;
            }
        }
    }

    /// Feature vector of one cell, `[C]`.
    pub fn cell(&self, picture: usize, cell: usize) -> &[f32] {
        let at = (picture * self.cells() + cell) * self.channels;
        &self.values[at..at + self.channels]
    }

    /// All feature vectors of one picture, `[cell, C]`.
    pub fn picture(&self, picture: usize) -> &[f32] {
        let length = self.cells() * self.channels;
        &self.values[picture * length..][..length]
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
#[derive(Debug, Clone)]
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

impl FeatureBank {
    /// An empty bank for the given sources; `maps` are the backbone's `(rows, columns, channels)`.
    ///
    /// # Panics
    /// When a source names a map that is not there.
    pub fn new(maps: &[(usize, usize, usize)], sources: Vec<Source>) -> Self {
        let levels = sources.iter().map(|source| maps[source.map]).map(|(r, c, k)| LevelBank::new(r, c, k)).collect();
        Self { levels, sources }
    }

    /// Pictures in the bank.
    pub fn pictures(&self) -> usize {
        self.levels.first().map_or(0, LevelBank::pictures)
    }

    /// Adds a picture's maps, as the backbone gives them.
    pub fn push(&mut self, maps: &[Array3<f32>]) {
        for (bank, source) in self.levels.iter_mut().zip(&self.sources) {
            bank.push(&maps[source.map], source.pooling);
        }
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
        let mut bank = LevelBank::new(2, 3, 1);
        bank.push(&map, 3);
        let corner = (0.0 + 1.0 + 3.0 + 4.0) / 4.0;
        let middle = 15.0 / 6.0;
        assert_eq!(bank.cell(0, 0), [corner]);
        assert_eq!(bank.cell(0, 1), [middle]);
    }

    #[test]
    fn standardised_channels_have_zero_mean_and_unit_deviation() {
        let mut bank = LevelBank::new(4, 4, 2);
        bank.push(
            &Array3::from_shape_fn((4, 4, 2), |(r, c, k)| ((r * 7 + c * 3) % 5) as f32 * (k + 1) as f32 + 10.0),
            1,
        );
        let statistics = bank.statistics();
        bank.standardise(&statistics);
        let after = bank.statistics();
        for k in 0..2 {
            assert!(after.mean[k].abs() < 1e-5 && (after.deviation[k] - 1.0).abs() < 1e-4);
        }
    }
}
