//! What several integration tests make for themselves.

pub(crate) mod onnx;
pub(crate) mod parts;
