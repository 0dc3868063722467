//! The conditional normalizing flow: parameters, forward, backward, and its folded form.

mod folded;

pub use folded::{FoldedBlock, FoldedFlow};
