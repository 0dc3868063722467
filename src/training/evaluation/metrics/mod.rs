//! One metric per file, all over one [`Ranking`] of scored items.

mod aupro;
mod auroc;
mod average_precision;
mod curve;
mod interval;
mod ranking;

pub use aupro::{PRO_LIMIT, aupro};
pub use auroc::auroc;
pub use average_precision::average_precision;
pub use curve::{Curve, pro_curve, roc_curve};
pub use interval::clopper_pearson;
pub use ranking::{Ranking, RankingBuilder, Selection, TYPE_LIMIT};

/// A metric has no value on these items; it is never made up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Undefined {
    /// Only normal items.
    #[error("it needs something abnormal to find, and there are only normal {0}")]
    NothingAbnormal(Unit),
    /// Only abnormal items.
    #[error("it needs something normal to compare with, and there are only abnormal {0}")]
    NothingNormal(Unit),
    /// A score was NaN.
    #[error("one of the scores is not a number")]
    NotANumber,
    /// More regions than can be told apart.
    #[error("more than {0} defect regions")]
    TooManyRegions(u32),
}

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Whole pictures.
    Images,
    /// Pixels at model size.
    Pixels,
}

impl std::fmt::Display for Unit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Images => "images",
            Self::Pixels => "pixels",
        })
    }
}
