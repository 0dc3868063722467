//! What can go wrong between pixels and scores.

use std::path::PathBuf;

/// Why a model could not be loaded or run.
#[derive(Debug, thiserror::Error)]
pub enum ScoringError {
    /// To be refined by this room.
    #[error("{path}: {problem}")]
    Model {
        /// The model file.
        path: PathBuf,
        /// What is wrong and what to do.
        problem: String,
    },
}
