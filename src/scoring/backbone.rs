//! The frozen feature extractor.

use std::path::Path;

use ndarray::Array3;
use serde::{Deserialize, Serialize};

use super::{ScoringError, SessionOptions};
use crate::inspection::{Picture, Size};

/// Order of the colour channels that a backbone expects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ColorOrder {
    /// Red first.
    #[serde(rename = "RGB")]
    Rgb,
    /// Blue first.
    #[serde(rename = "BGR")]
    Bgr,
}

/// Order of the axes of a backbone's input and outputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Layout {
    /// `[batch, channel, row, column]`.
    #[serde(rename = "NCHW")]
    Nchw,
    /// `[batch, row, column, channel]`.
    #[serde(rename = "NHWC")]
    Nhwc,
}

/// How a backbone's input is made and which outputs are its feature maps; stands in a TOML file
/// of the same name beside the ONNX file. The input is `(pixel - mean) / deviation` with pixels
/// from 0 to 255.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BackboneSpec {
    /// Short name, such as `efficientnet_lite0`.
    pub name: String,
    /// Name of the image input, f32.
    pub input: String,
    /// Names of the feature maps, finest level first.
    pub outputs: Vec<String>,
    /// Colour order.
    pub color: ColorOrder,
    /// Axis order.
    pub layout: Layout,
    /// Per channel in `color` order, pixel values 0 to 255.
    pub mean: [f32; 3],
    /// Per channel in `color` order.
    pub deviation: [f32; 3],
}

/// A backbone in a session of its own, for training.
#[derive(Debug)]
pub struct FeatureExtractor {}

impl FeatureExtractor {
    /// Loads an ONNX backbone and the TOML beside it, runs it once at `size` and learns the
    /// levels' channels and strides.
    ///
    /// # Errors
    /// [`ScoringError`] saying what was expected of the file and what was found.
    pub fn load(path: &Path, size: Size, options: &SessionOptions) -> Result<Self, ScoringError> {
        let _ = (path, size, options);
        unimplemented!()
    }

    /// The description beside the file.
    pub fn spec(&self) -> &BackboneSpec {
        unimplemented!()
    }

    /// Per level, finest first: (channels, stride).
    pub fn levels(&self) -> &[(usize, usize)] {
        unimplemented!()
    }

    /// Features of pictures of model size: per picture, per level `[row, column, channel]`.
    ///
    /// # Errors
    /// [`ScoringError`] when a picture has another size or the run fails.
    pub fn extract(&mut self, pictures: &[&Picture]) -> Result<Vec<Vec<Array3<f32>>>, ScoringError> {
        let _ = pictures;
        unimplemented!()
    }
}
