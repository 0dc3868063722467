//! ONNX Runtime's library and its execution providers.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::ScoringError;

/// An execution provider of ONNX Runtime.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Provider {
    /// NVIDIA TensorRT.
    Tensorrt,
    /// NVIDIA CUDA.
    Cuda,
    /// Intel OpenVINO.
    Openvino,
    /// The processor; always there.
    Cpu,
}

/// How a session is made.
#[derive(Debug, Clone)]
pub struct SessionOptions {
    /// Providers in order of preference.
    pub providers: Vec<Provider>,
    /// Whether the first provider must be had; if not, the next one is taken and that is said.
    pub required: bool,
    /// Threads inside one run; 0 is one per core.
    pub threads: usize,
}

impl Default for SessionOptions {
    fn default() -> Self {
        Self { providers: vec![Provider::Cpu], required: false, threads: 0 }
    }
}

/// Loads ONNX Runtime's shared library once for the process: `library`, else the environment
/// variable `LINEGATE_ONNXRUNTIME`, else `.runtime/` below the current folder, the program's
/// folder and its parents.
///
/// # Errors
/// The library is not found or cannot be loaded; the message names the places searched.
pub fn initialise(library: Option<&Path>) -> Result<(), ScoringError> {
    let _ = library;
    unimplemented!()
}
