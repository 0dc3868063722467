//! A level's whole flow as one operator of ONNX Runtime, for processors.
//!
//! A file for every provider says a flow with standard operators: a dozen a block, each of which
//! carries all cells' values through memory. On a processor that takes nearly twice as long as to keep
//! them in the cache; so a bundle has a second file, in which a level is one node of [`NAME`], and what is here
//! runs it a tile of cells at a time.
//!
//! `operator` is what ONNX Runtime sees, `kernel` the flow on a tile, `product`, `elementary`, `average` and
//! `nearest` what it is made of. Vectors are as wide as the processor has them (pulp).

#![expect(clippy::inline_always, reason = "what stays a call of its own is compiled without the vectors")]

mod aligned;
mod average;
mod elementary;
mod kernel;
mod nearest;
mod operator;
mod product;

pub(super) use operator::operators;

/// Domain of the operator.
pub const DOMAIN: &str = "linegate";
/// Version of the domain that files are written for.
pub const VERSION: i64 = 1;
/// Name of the operator.
pub const NAME: &str = "CouplingFlow";
/// Attribute: side of the neighbourhood that features are averaged over, odd.
pub const POOLING: &str = "pooling";
/// Attribute: what every log-likelihood has, times C.
pub const CONSTANT: &str = "constant";
/// Bound of a block's log-scale, `s = CLAMP * tanh(..)` (FrEIA `affine_clamping`).
pub const CLAMP: f32 = 1.9;
/// Inputs in their order, f32, B blocks of hidden width H on C channels: the features `[batch, C, row,
/// column]`, then constants: scale and shift `[C]`, `w1 [B, C - C/2, H]`, `row_table [B, row, H]`,
/// `column_table [B, column, H]`, `w2 [B, H, 2 (C/2)]`, `b2 [B, 2 (C/2)]`, `mix [B, C, C]`, `mix_shift
/// [B, C]`. The output is `[batch, row, column]`, nats per feature dimension.
pub const INPUTS: [&str; 10] =
    ["features", "scale", "shift", "w1", "row_table", "column_table", "w2", "b2", "mix", "mix_shift"];
/// Name of the operator of a level that compares with vectors of training normals.
pub const NEAREST: &str = "NearestVector";
/// Its attributes beside [`POOLING`]: rows and columns of its map.
pub const ROWS: &str = "rows";
/// See [`ROWS`].
pub const COLUMNS: &str = "columns";
/// Its inputs, f32: the features `[batch, C, row, column]`, then constants: scale and shift `[C]`, whitening
/// `[C, C]`, vectors `[vector, C]`. The output is `[batch, row, column]`: `-sqrt(NEAREST_FLOOR + d² / C)`, where `d`
/// is the distance of a whitened vector, its channels cut off at ±[`NEAREST_LIMIT`], to the nearest of those.
pub const NEAREST_INPUTS: [&str; 5] = ["features", "scale", "shift", "whitening", "nearest"];
/// Where a channel that is compared is cut off, deviations. Beyond it says nothing more, and a square of
/// thousands would leave of a small difference from another but rounding.
pub const NEAREST_LIMIT: f32 = 8.0;
/// Least mean square of a comparison: at 0 the root would make much of rounding.
pub const NEAREST_FLOOR: f32 = 0.01;
/// One more input of flows on whitened features: the constant `[C, C]` that scaled and shifted vectors are
/// multiplied with.
pub const WHITENING: &str = "whitening";
