//! Why an evaluation has no result.

use std::path::PathBuf;

use super::metrics::{TYPE_LIMIT, Undefined};
use crate::inspection::PngError;
use crate::scoring::ScoringError;
use crate::training::dataset::DatasetError;

/// Why a bundle could not be evaluated. An evaluation is whole or an error: a picture that cannot
/// be scored is never left out silently, and a metric without a value is never made up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EvaluationError {
    /// A picture or mask cannot be read.
    #[error("the data set cannot be used")]
    Dataset(#[from] DatasetError),
    /// The model cannot be loaded or run.
    #[error("the bundle cannot score")]
    Scoring(#[from] ScoringError),
    /// One picture cannot be fitted or scored.
    #[error("{name} cannot be scored")]
    Picture {
        /// Name in the data set.
        name: String,
        /// Cause.
        source: Box<ScoringError>,
    },
    /// The model's answer is not a number.
    #[error("the bundle gives no finite scores for {name}: train it again")]
    NotFinite {
        /// Name in the data set.
        name: String,
    },
    /// Nothing to evaluate on.
    #[error(
        "no test picture is left ({excluded} left out because training used them or their groups): add pictures to test/"
    )]
    NoPictures {
        /// Pictures left out.
        excluded: usize,
    },
    /// Too many defect types to tell apart.
    #[error("{found} defect types, but at most {} can be told apart: merge some folders", TYPE_LIMIT - 1)]
    TooManyTypes {
        /// Types found.
        found: usize,
    },
    /// A metric has no value on this data.
    #[error("{metric} is undefined on these test pictures")]
    Undefined {
        /// The metric.
        metric: &'static str,
        /// Why.
        source: Undefined,
    },
    /// The report cannot be written.
    #[error("the report {path} cannot be written: check that the folder may be written and the disk is not full")]
    Report {
        /// File or folder.
        path: PathBuf,
        /// Cause.
        source: std::io::Error,
    },
    /// A picture of the report cannot be encoded.
    #[error("a picture of the report cannot be drawn")]
    Drawing(#[from] PngError),
}
