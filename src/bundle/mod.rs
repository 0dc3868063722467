//! The model bundle on disk: the only contract between training and the line.
//!
//! A directory holding `model.onnx`, `model.cpu.onnx`, `manifest.json`, `flows.bin` and `report/`.
//! Written under a temporary name, synced and renamed; read only when every hash, shape and version fits.

mod active;
mod manifest;
mod signature;
mod store;

pub use active::{ACTIVE_FILE, read_active};
pub use manifest::{
    BUNDLE_SCHEMA_VERSION, Calibration, CalibrationSet, Evidence, ImageBoundary, LevelCalibration, LevelShape,
    Manifest, Phase, Preprocessing, Provenance, UsedDefect,
};
pub use signature::{SIGNATURE_FILE, SignatureError, make_keys, sign, verify};
pub use store::{Bundle, BundleError, BundleWriter, sha256_file, sha256_hex};

/// Name of the model file inside a bundle.
pub const MODEL_FILE: &str = "model.onnx";
/// Name of the same model for sessions on a processor, with an operator that only [`crate::scoring`] has.
pub const PROCESSOR_MODEL_FILE: &str = "model.cpu.onnx";
/// Name of the trained flows inside a bundle, from which a later training can start.
pub const FLOWS_FILE: &str = "flows.bin";
/// Name of the manifest inside a bundle.
pub const MANIFEST_FILE: &str = "manifest.json";
/// Name of the report folder inside a bundle.
pub const REPORT_DIRECTORY: &str = "report";
/// Key of the bundle's name in the ONNX file's `metadata_props`.
pub const METADATA_NAME: &str = "linegate.bundle";
/// Key of the bundle's version in the ONNX file's `metadata_props`.
pub const METADATA_VERSION: &str = "linegate.version";
/// Name of the model's input: u8 `[batch, row, column, channel]`, RGB, at model size.
pub const MODEL_INPUT: &str = "image";
