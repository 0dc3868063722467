//! Metrics, evaluation of a bundle on a data set, and its report.
