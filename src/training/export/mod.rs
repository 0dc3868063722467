//! From backbone and trained flows to one ONNX file. The only room that knows ONNX's protobuf.

mod backbone;
mod contrast;
mod efficientnet;
mod error;
mod file;
mod flow;
mod fused;
mod graph;
mod half;
mod model;
mod naive;
mod nearest;
mod observe;
mod pack;
mod pickle;
mod quantise;
mod rebuild;
mod splice;
mod tile;
mod torch;

#[expect(
    unreachable_pub,
    clippy::all,
    clippy::pedantic,
    reason = "generated from the ONNX schema, whose own words are kept"
)]
mod onnx {
    include!(concat!(env!("OUT_DIR"), "/onnx.rs"));
}

pub use efficientnet::{ImportedBackbone, Variant, import_backbone};
pub use error::{ExportError, WeightsError};
pub use half::halve_backbone;
pub use model::{FlowForm, ModelExport};
pub use observe::observe_backbone;
pub use pickle::PickleError;
pub use quantise::{ValueRange, quantise_backbone};
pub use tile::{Tiling, tile_backbone};

/// At least the version that came with opset 13; a backbone's newer one is kept.
const IR_VERSION: i64 = 8;
/// Opset from which a Split into equal parts says how many.
const SPLIT_COUNTS_ITSELF: i64 = 18;
/// Opset from which all reductions take their axes as an input.
const AXES_AS_INPUT: i64 = 18;
