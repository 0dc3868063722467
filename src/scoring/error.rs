//! What can go wrong between pixels and scores.

use std::path::PathBuf;

use super::{LIBRARY_VARIABLE, Provider};
use crate::inspection::{Rectangle, Size};

/// Why a model could not be loaded or run.
///
/// By consequence: [`Self::PictureSize`], [`Self::RegionOutside`], [`Self::Scale`] and
/// [`Self::Run`] lose the inspection of the frames at hand; everything else stops the start.
#[derive(Debug, thiserror::Error)]
pub enum ScoringError {
    /// ONNX Runtime's library is nowhere.
    #[error(
        "ONNX Runtime's library libonnxruntime.so was not found; searched {}: run deploy/setup.sh, or name the file in {LIBRARY_VARIABLE}",
        list(searched)
    )]
    LibraryMissing {
        /// Places searched, in order.
        searched: Vec<PathBuf>,
    },
    /// ONNX Runtime's library was found but cannot be loaded.
    #[error(
        "{path} cannot be loaded as ONNX Runtime 1.{} or newer: run deploy/setup.sh, or name another file in {LIBRARY_VARIABLE}",
        ort::MINOR_VERSION
    )]
    LibraryUnusable {
        /// The file.
        path: PathBuf,
        /// Cause.
        source: Box<ort::LoadDynamicError>,
    },
    /// ONNX Runtime was loaded but does not start.
    #[error("ONNX Runtime from {path} does not start")]
    Start {
        /// The library.
        path: PathBuf,
        /// Cause.
        source: ort::Error,
    },
    /// An execution provider with this name is not known.
    #[error("the execution provider `{name}` is not known: use tensorrt, cuda, openvino or cpu")]
    UnknownProvider {
        /// The name given.
        name: String,
    },
    /// The required execution provider cannot be had.
    #[error(
        "{path} cannot be run on the execution provider {provider}, which is required: install its drivers and a build of ONNX Runtime that has it, or allow another provider"
    )]
    ProviderUnavailable {
        /// The model file.
        path: PathBuf,
        /// The provider required.
        provider: Provider,
        /// Cause.
        source: ort::Error,
    },
    /// A file cannot be read.
    #[error("{path} cannot be read")]
    Read {
        /// The file.
        path: PathBuf,
        /// Cause.
        source: std::io::Error,
    },
    /// The folder for TensorRT's engines cannot be made.
    #[error("the folder {path} for TensorRT's engines (model.engine_cache) cannot be made")]
    EngineCache {
        /// The folder.
        path: PathBuf,
        /// Cause.
        source: std::io::Error,
    },
    /// A file is no model that ONNX Runtime can open.
    #[error("{path} cannot be opened as an ONNX model: it is damaged, or made for a newer ONNX Runtime")]
    Open {
        /// The model file.
        path: PathBuf,
        /// Cause.
        source: ort::Error,
    },
    /// A model is not what it should be.
    #[error("{path}: {what} should be {expected}, but found {found}")]
    Contract {
        /// The model file or its description.
        path: PathBuf,
        /// Which part of it.
        what: String,
        /// What was expected.
        expected: String,
        /// What was found.
        found: String,
    },
    /// The description beside a backbone is missing.
    #[error(
        "the backbone's description {path} cannot be read: a backbone needs a TOML file of the same name beside it, with name, input, outputs, color, layout, mean and deviation"
    )]
    SpecMissing {
        /// The TOML file.
        path: PathBuf,
        /// Cause.
        source: std::io::Error,
    },
    /// The description beside a backbone is not TOML of the right form.
    #[error(
        "the backbone's description {path} is not understood: it needs exactly name, input, outputs, color (RGB or BGR), layout (NCHW or NHWC), mean and deviation (three numbers each)"
    )]
    SpecSyntax {
        /// The TOML file.
        path: PathBuf,
        /// Cause, with line and column.
        source: toml::de::Error,
    },
    /// A picture does not have the model's size.
    #[error("picture {index} of the batch is {found}, but the model takes {expected}: fit it first")]
    PictureSize {
        /// Place in the batch, counted from 0.
        index: usize,
        /// The model's size.
        expected: Size,
        /// The picture's size.
        found: Size,
    },
    /// The region of interest leaves the picture.
    #[error(
        "the region of interest of {}x{} pixels at ({}, {}) does not lie within the {size} picture: check the camera's resolution, or train again with another region",
        region.width, region.height, region.x, region.y
    )]
    RegionOutside {
        /// The region, pixels of the full frame.
        region: Rectangle,
        /// The picture's size.
        size: Size,
    },
    /// A picture cannot be scaled.
    #[error("a {from} picture cannot be scaled to {to}")]
    Scale {
        /// Size after the cut.
        from: Size,
        /// The model's size.
        to: Size,
        /// Cause.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A run failed.
    #[error("{path} cannot score a batch of {batch}")]
    Run {
        /// The model file.
        path: PathBuf,
        /// Pictures in the batch.
        batch: usize,
        /// Cause.
        source: ort::Error,
    },
}

fn list(places: &[PathBuf]) -> String {
    places.iter().map(|place| place.display().to_string()).collect::<Vec<_>>().join(", ")
}
