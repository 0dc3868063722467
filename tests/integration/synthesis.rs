//! Tests of synthesis.
