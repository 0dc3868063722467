//! A trained flow with everything folded that is known before run time.

use ndarray::{Array1, Array2};

/// A flow of one level for a fixed grid, ready for export.
///
/// On every cell's feature vector `f` (length C), at (row, column):
/// 1. if `pooling` is 3, `f` is first averaged over its 3×3 neighbourhood (cells outside the map
///    not counted),
/// 2. `x = f * input_scale + input_shift`,
/// 3. the blocks in order,
/// 4. `log_likelihood = (constant - 0.5 * |x|² + sum of s over all blocks) / C`.
#[derive(Debug, Clone, PartialEq)]
pub struct FoldedFlow {
    /// Rows of the grid.
    pub rows: usize,
    /// Columns of the grid.
    pub columns: usize,
    /// Channels C.
    pub channels: usize,
    /// Side of the feature averaging: 1 (none) or 3.
    pub pooling: usize,
    /// `[C]`.
    pub input_scale: Array1<f32>,
    /// `[C]`.
    pub input_shift: Array1<f32>,
    /// In order.
    pub blocks: Vec<FoldedBlock>,
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
    /// `[C, C]`: global scale and rotation.
    pub mix: Array2<f32>,
    /// `[C]`: global offset, rotated.
    pub shift: Array1<f32>,
}
