//! Metrics, evaluation of a bundle on a data set, and its report.

pub mod metrics;
mod region;

pub use metrics::clopper_pearson;
