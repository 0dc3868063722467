//! The live wing: capture -> batching -> scoring -> decision -> outbox -> publishing.

pub mod archive;
pub mod batching;
pub mod capture;
pub mod outbox;
pub mod publishing;
pub mod topology;
