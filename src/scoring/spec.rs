//! The description beside a backbone.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::ScoringError;
use super::contract::broken;

/// Most of a description that is read, bytes; a real one has some hundred.
const MAX_SPEC_BYTES: u64 = 64 << 10;

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

impl BackboneSpec {
    /// Where the description of an ONNX file stands: the same name with `.toml`.
    pub fn path_beside(onnx: &Path) -> PathBuf {
        onnx.with_extension("toml")
    }

    /// Reads and checks the description beside an ONNX file.
    ///
    /// # Errors
    /// [`ScoringError`] when it is missing, not understood, or has a value that cannot be.
    pub fn beside(onnx: &Path) -> Result<Self, ScoringError> {
        let path = Self::path_beside(onnx);
        let mut text = String::new();
        File::open(&path)
            .and_then(|file| file.take(MAX_SPEC_BYTES).read_to_string(&mut text))
            .map_err(|source| ScoringError::SpecMissing { path: path.clone(), source })?;
        let spec: Self =
            toml::from_str(&text).map_err(|source| ScoringError::SpecSyntax { path: path.clone(), source })?;
        spec.verify(&path)?;
        Ok(spec)
    }

    fn verify(&self, path: &Path) -> Result<(), ScoringError> {
        for (key, value) in [("name", &self.name), ("input", &self.input)] {
            if value.is_empty() {
                return Err(broken(path, format!("`{key}`"), "a name", "an empty text"));
            }
        }
        if self.outputs.is_empty() || self.outputs.iter().any(String::is_empty) {
            return Err(broken(path, "`outputs`", "the names of the feature maps", format!("{:?}", self.outputs)));
        }
        if self.outputs.iter().enumerate().any(|(place, name)| self.outputs[..place].contains(name)) {
            return Err(broken(path, "`outputs`", "different names", format!("{:?}", self.outputs)));
        }
        if self.mean.iter().any(|mean| !mean.is_finite()) {
            return Err(broken(path, "`mean`", "three numbers", format!("{:?}", self.mean)));
        }
        if self.deviation.iter().any(|deviation| !(deviation.is_finite() && *deviation > 0.0)) {
            return Err(broken(path, "`deviation`", "three numbers above 0", format!("{:?}", self.deviation)));
        }
        Ok(())
    }
}
