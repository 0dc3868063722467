//! A bundle's model in a session.

use super::{Provider, ScoringError, SessionOptions};
use crate::bundle::Bundle;
use crate::inspection::{LogLikelihoodMaps, Picture};

/// A bundle's ONNX model, loaded and checked against its manifest.
#[derive(Debug)]
pub struct Model {}

impl Model {
    /// Loads the bundle's model, checks input, outputs and metadata against the manifest and runs
    /// it once.
    ///
    /// # Errors
    /// [`ScoringError`] saying what was expected and what was found.
    pub fn load(bundle: &Bundle, options: &SessionOptions) -> Result<Self, ScoringError> {
        let _ = (bundle, options);
        unimplemented!()
    }

    /// The execution provider that the session really got.
    pub fn provider(&self) -> Provider {
        unimplemented!()
    }

    /// Scores pictures of model size as one batch.
    ///
    /// # Errors
    /// [`ScoringError`] when a picture has another size or the run fails.
    pub fn score(&mut self, pictures: &[&Picture]) -> Result<Vec<LogLikelihoodMaps>, ScoringError> {
        let _ = pictures;
        unimplemented!()
    }
}
