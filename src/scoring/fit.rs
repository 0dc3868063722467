//! From a camera picture to model size.

use crate::bundle::Preprocessing;
use crate::inspection::Picture;

use super::ScoringError;

/// Cuts pictures to the region of interest and scales them anti-aliased; keeps its buffers.
#[derive(Debug, Default)]
pub struct PictureFitter {}

impl PictureFitter {
    /// A fitter with empty buffers.
    pub fn new() -> Self {
        Self::default()
    }

    /// The picture cut and scaled to the model's size. A picture that has the size already is
    /// returned as it is.
    ///
    /// # Errors
    /// [`ScoringError`] when the region of interest leaves the picture.
    pub fn fit(&mut self, picture: &Picture, preprocessing: &Preprocessing) -> Result<Picture, ScoringError> {
        let _ = (picture, preprocessing);
        unimplemented!()
    }
}
