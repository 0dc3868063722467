//! The offline wing: from labelled pictures to a bundle.

pub mod calibration;
mod cost;
pub mod dataset;
pub mod evaluation;
pub mod export;
pub mod features;
pub mod fit;
pub mod flow;
pub mod settings;
pub mod synthesis;
