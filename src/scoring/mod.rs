//! Pixels -> tensor -> ONNX Runtime -> log-likelihood maps. The only room that imports `ort`;
//! used by both wings, so that training and the line see the same pixels the same way.

mod backbone;
mod error;
mod fit;
mod model;
mod runtime;

pub use backbone::{BackboneSpec, ColorOrder, FeatureExtractor, Layout};
pub use error::ScoringError;
pub use fit::PictureFitter;
pub use model::Model;
pub use runtime::{Provider, SessionOptions, initialise};
