//! What can go wrong between weights, graphs and files.

use std::path::{Path, PathBuf};

use super::pickle::PickleError;

/// Why a model could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// A file operation failed.
    #[error("{path}: cannot {action}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// Cause.
        source: std::io::Error,
    },
    /// A file is larger than any that can be meant.
    #[error("{path}: {bytes} bytes are more than the {limit} that are read: this cannot be the file that was meant")]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its size, bytes.
        bytes: u64,
        /// The most that is read, bytes.
        limit: u64,
    },
    /// The weight file cannot be used.
    #[error("weight file {path} cannot be used")]
    Weights {
        /// The file.
        path: PathBuf,
        /// Cause.
        source: WeightsError,
    },
    /// A file is not ONNX at all.
    #[error("{path} is not an ONNX model: it is torn or of another format")]
    NotOnnx {
        /// The file.
        path: PathBuf,
        /// Cause.
        source: prost::DecodeError,
    },
    /// A backbone is a valid ONNX model, but not one that a flow can be appended to.
    #[error("backbone {path}: {problem}")]
    Backbone {
        /// The file.
        path: PathBuf,
        /// What was found, what was expected, and what to do.
        problem: String,
    },
    /// The flows do not fit the backbone or themselves.
    #[error("flow of level {level} cannot be exported: {problem}")]
    Flow {
        /// Index of the level, 0 is the finest.
        level: usize,
        /// What was found and what was expected.
        problem: String,
    },
    /// The call contradicts itself.
    #[error("model cannot be exported: {problem}")]
    Request {
        /// What was found and what was expected.
        problem: String,
    },
    /// The description of a backbone could not be written as TOML.
    #[error("the description of backbone {name} cannot be written as TOML")]
    Spec {
        /// Name of the backbone.
        name: String,
        /// Cause.
        source: toml::ser::Error,
    },
}

/// Why a weight file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum WeightsError {
    /// torch 1.6 and later.
    #[error(
        "it is in torch's zip format (torch 1.6 and later), only the format before that is read: convert it with \
         torch.save(torch.load(FILE), OUT, _use_new_zipfile_serialization=False)"
    )]
    ZipFormat,
    /// Neither of torch's formats.
    #[error("it does not start as a file of torch.save does: expected a state dict in torch's format before 1.6")]
    NotTorch,
    /// Written on another kind of machine.
    #[error("it was written on a big-endian machine: save it again on a little-endian one")]
    BigEndian,
    /// The file ends early.
    #[error("it ends at byte {size}, while {what} needs {needed}: copy it again")]
    Truncated {
        /// Size of the file, bytes.
        size: usize,
        /// Where the part would end, bytes from the start.
        needed: u64,
        /// The part.
        what: &'static str,
    },
    /// The pickled description cannot be read.
    #[error("its description of the tensors cannot be read")]
    Pickle(#[from] PickleError),
    /// The description is readable but not of a state dict.
    #[error("it holds no plain state dict: {0}")]
    Structure(String),
    /// A tensor that the network needs is absent.
    #[error("tensor {name} is missing: is it the weight file of another network or variant?")]
    MissingTensor {
        /// Name in the state dict.
        name: String,
    },
    /// A tensor has another shape.
    #[error(
        "tensor {name} has shape {found:?}, expected {expected:?}: is it the weight file of another network or variant?"
    )]
    Shape {
        /// Name in the state dict.
        name: String,
        /// Shape in the file.
        found: Vec<usize>,
        /// Shape that the network needs.
        expected: Vec<usize>,
    },
    /// A tensor is not of 32-bit floats.
    #[error("tensor {name} is not of 32-bit floats")]
    ElementType {
        /// Name in the state dict.
        name: String,
    },
    /// A weight is NaN or infinite, or a variance is not positive.
    #[error("tensor {name} holds {value}, which cannot be a weight: the file is damaged")]
    Value {
        /// Name in the state dict.
        name: String,
        /// The offending value.
        value: f32,
    },
}

pub(super) fn io(path: &Path, action: &'static str) -> impl FnOnce(std::io::Error) -> ExportError {
    let path = path.to_owned();
    move |source| ExportError::Io { path, action, source }
}
