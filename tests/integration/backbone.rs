//! Tests of backbone.
