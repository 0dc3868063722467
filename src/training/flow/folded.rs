//! A trained flow with everything folded that is known before run time.

use ndarray::{Array1, Array2, ArrayView2, Axis};

use super::parameters::DAMPING;
use super::{CONDITION_LENGTH, Flow, Part, position_code};
use crate::training::features::{ChannelStatistics, Source};

/// A flow of one level for a fixed grid, ready for export.
///
/// On every cell's feature vector `f` (length C), at (row, column):
/// 1. `f`, of the backbone's map `source.map`, is first averaged over `source.pooling` ×
///    `source.pooling` cells around it (cells outside the map not counted),
/// 2. `x = f * input_scale + input_shift` and, where there is one, `x <- x · whitening`,
/// 3. the blocks in order,
/// 4. `log_likelihood = (constant - 0.5 * |x|² + sum of s over all blocks) / C`.
///
/// Or, of a level that compares instead (`nearest`), in place of 3 and 4: `-sqrt(0.01 + d² / C)`, where `d` is the
/// distance of `x`, cut off at ±8, to the nearest of those vectors. Or, of one that contrasts (`contrast`):
/// `-(x · direction + offset)`.
#[derive(Debug, Clone, PartialEq)]
pub struct FoldedFlow {
    /// Rows of the grid.
    pub rows: usize,
    /// Columns of the grid.
    pub columns: usize,
    /// Channels C.
    pub channels: usize,
    /// The features it looks at.
    pub source: Source,
    /// `[C]`.
    pub input_scale: Array1<f32>,
    /// `[C]`.
    pub input_shift: Array1<f32>,
    /// `[C, C]`.
    pub whitening: Option<Array2<f32>>,
    /// In order; none with `nearest` or `contrast`.
    pub blocks: Vec<FoldedBlock>,
    /// `[vector, C]`.
    pub nearest: Option<Array2<f32>>,
    /// Direction `[C]` and offset.
    pub contrast: Option<(Array1<f32>, f32)>,
    /// `-C ln sqrt(2 pi)` plus every log-determinant that does not depend on x.
    pub constant: f32,
}

/// One coupling block. With `x1` the first `C - C/2` and `x2` the last `C/2` channels:
/// `h = relu(x1 · w1 + row_table[row] + column_table[column])`, `a = h · w2 + b2`,
/// `s = 1.9 * tanh(a[..C/2])`, `x2 <- x2 * exp(s) + a[C/2..]`, `x <- [x1, x2] · mix + shift`.
#[derive(Debug, Clone, PartialEq)]
pub struct FoldedBlock {
    /// `[C - C/2, hidden]`.
    pub w1: Array2<f32>,
    /// `[rows, hidden]`; holds the first bias too.
    pub row_table: Array2<f32>,
    /// `[columns, hidden]`.
    pub column_table: Array2<f32>,
    /// `[hidden, 2 * (C/2)]`, the factor 0.1 inside.
    pub w2: Array2<f32>,
    /// `[2 * (C/2)]`, the factor 0.1 inside.
    pub b2: Array1<f32>,
    /// `[C, C]`: global scale and rotation; of the last block without the rotation, so diagonal.
    pub mix: Array2<f32>,
    /// `[C]`: global offset, rotated.
    pub shift: Array1<f32>,
}

impl FoldedFlow {
    /// Folds a trained flow for a grid of `(rows, columns)`. The input, after averaging as the
    /// source says, is what the `statistics` make of it.
    pub fn fold(flow: &Flow, (rows, columns): (usize, usize), source: Source, statistics: &ChannelStatistics) -> Self {
        let shape = flow.shape;
        let (c, first, hidden, half) = (shape.channels, shape.first(), shape.hidden, CONDITION_LENGTH / 2);
        let matrix = |block, part, rows: usize, columns: usize| {
            ArrayView2::from_shape((rows, columns), flow.part(block, part)).expect("the shape gives the length")
        };
        let mut constant = -0.5 * std::f64::consts::TAU.ln() * c as f64;
        let blocks = (0..shape.blocks)
            .map(|block| {
                let condition = matrix(block, Part::ConditionWeight, hidden, CONDITION_LENGTH);
                let bias = Array1::from(flow.part(block, Part::HiddenBias).to_vec());
                let (by_column, by_row) = condition.split_at(Axis(1), half);
                let global = Array1::from(flow.global_scale(block).0);
                constant += global.iter().map(|&g| f64::from(g).ln()).sum::<f64>();
                let offset = Array1::from(flow.part(block, Part::GlobalOffset).to_vec());
                // Behind the last block only |x|² counts, which no rotation changes.
                let rotation = if block + 1 == shape.blocks {
                    Array2::eye(c)
                } else {
                    let rotation = ArrayView2::from_shape((c, c), &flow.rotations[block]);
                    rotation.expect("a rotation has C rows of C").to_owned()
                };
                FoldedBlock {
                    w1: matrix(block, Part::FeatureWeight, hidden, first).t().as_standard_layout().into_owned(),
                    row_table: position_code(rows).dot(&by_row.t()) + &bias,
                    column_table: position_code(columns).dot(&by_column.t()),
                    w2: (matrix(block, Part::OutputWeight, 2 * shape.second(), hidden).t().to_owned() * DAMPING)
                        .as_standard_layout()
                        .into_owned(),
                    b2: Array1::from(flow.part(block, Part::OutputBias).to_vec()) * DAMPING,
                    mix: (&rotation * &global).t().as_standard_layout().into_owned(),
                    shift: rotation.dot(&offset),
                }
            })
            .collect();
        Self { blocks, constant: constant as f32, ..Self::empty((rows, columns), source, statistics) }
    }

    /// A level that compares with vectors, `[vector, C]`, made by the same `statistics`.
    pub fn nearest(vectors: Array2<f32>, grid: (usize, usize), source: Source, statistics: &ChannelStatistics) -> Self {
        Self { nearest: Some(vectors), ..Self::empty(grid, source, statistics) }
    }

    /// A level that contrasts in a direction `[C]`, with an offset, made by the same `statistics`.
    pub fn contrast(
        (direction, offset): (&[f32], f32),
        grid: (usize, usize),
        source: Source,
        statistics: &ChannelStatistics,
    ) -> Self {
        let contrast = Some((Array1::from(direction.to_vec()), offset));
        Self { contrast, ..Self::empty(grid, source, statistics) }
    }

    fn empty((rows, columns): (usize, usize), source: Source, statistics: &ChannelStatistics) -> Self {
        let input_scale: Array1<f32> = statistics.deviation.iter().map(|d| 1.0 / d).collect();
        Self {
            rows,
            columns,
            channels: input_scale.len(),
            source,
            input_shift: statistics.mean.iter().zip(&input_scale).map(|(m, s)| -m * s).collect(),
            input_scale,
            whitening: statistics.whitening.clone(),
            blocks: Vec::new(),
            nearest: None,
            contrast: None,
            constant: 0.0,
        }
    }
}
