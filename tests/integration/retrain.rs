//! Tests of retrain.
