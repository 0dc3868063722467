//! Tests of calibration.
