//! Tests of batching.
