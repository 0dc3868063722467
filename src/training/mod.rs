//! The offline wing: from labelled pictures to a bundle.

mod backbone;
pub mod bench;
pub mod calibration;
pub mod contrast;
pub mod coreset;
pub(crate) mod cost;
pub mod dataset;
mod defects;
pub mod evaluation;
pub mod export;
pub mod features;
mod finish;
pub mod fit;
pub mod flow;
mod gather;
mod orientation;
mod progress;
pub mod proposal;
pub mod settings;
pub mod synthesis;
mod train;
pub mod warm;

pub use progress::{Progress, Silent};
pub use train::{TrainError, TrainOptions, train};
