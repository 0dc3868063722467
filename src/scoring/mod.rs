//! Pixels -> tensor -> ONNX Runtime -> log-likelihood maps. The only room that imports `ort`;
//! used by both wings, so that training and the line see the same pixels the same way.
//!
//! `fit` cuts and scales a camera picture, [`Model`] scores it with a bundle, and
//! [`FeatureExtractor`] gives training the backbone's features of it. `runtime` loads the shared
//! library, `provider` opens a session on the best execution provider that can be had (`cores`: and where), `flow` brings
//! sessions an operator of our own, and `contract` says what a file should have been.

mod backbone;
mod binding;
mod contract;
mod cores;
mod error;
mod fit;
pub mod flow;
mod handles;
mod model;
mod provider;
mod runtime;
mod scale;
mod spec;

pub use backbone::FeatureExtractor;
pub use error::ScoringError;
pub use fit::PictureFitter;
pub use model::{Breaker, Model};
pub use provider::{Provider, SessionOptions};
pub use runtime::{LIBRARY_VARIABLE, initialise, library};
pub use spec::{BackboneSpec, ColorOrder, Layout};
