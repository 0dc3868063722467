//! Tests of archive.
