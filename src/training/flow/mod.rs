//! The conditional normalizing flow: parameters, forward, backward, and its folded form.
//!
//! Source: Yao et al., CVPR 2023 (arXiv:2207.01463), whose flow is FrEIA's `AllInOneBlock`
//! conditioned on a sinusoidal position code. The condition enters the first layer of every
//! coupling network linearly, so its part is a sum of one table by column and one by row: the
//! 128 condition channels never enter the large product.

#![expect(clippy::inline_always, reason = "what stays a call of its own is compiled without the vectors")]

mod elementary;
mod folded;
mod parameters;
mod pass;
mod position;
mod product;
mod rotation;
mod tape;
mod tile;

pub use folded::{FoldedBlock, FoldedFlow};
pub use parameters::{Flow, FlowShape, Part};
pub use pass::{Pass, Pixels};
pub use position::{CONDITION_LENGTH, position_code};
pub use product::matrix_product_gflops;
