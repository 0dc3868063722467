//! What several integration tests make for themselves.

pub(crate) mod parts;
