//! Linegate: streaming industrial visual inspection with a learned boundary.
//!
//! Two wings share a middle and never import each other:
//!
//! ```text
//! line      capture -> batching -> scoring -> decision -> outbox -> publishing -> broker
//!                                                      \-> archive
//! training  dataset -> synthesis -> features -> fit -> calibration -> export -> evaluation
//! registry  versions, gate, promotion: the only room that may change which bundle is active
//! ```
//!
//! | room | may use |
//! |---|---|
//! | [`inspection`] | nothing of ours; plain data, no I/O |
//! | [`config`] | nothing of ours; no library types |
//! | [`bundle`] | `inspection` |
//! | [`scoring`] | `inspection`, `bundle`; the only room with `ort` |
//! | [`decision`] | `inspection`, `bundle`; pure: no clock, no I/O, no randomness |
//! | [`mod@line`] | everything but `training`, `registry` and `cli`; `capture` alone has `gstreamer`, `publishing` alone `rumqttc`/`rumqttd`, `outbox` alone the queue database |
//! | [`training`] | everything but `line`, `registry` and `cli`; `export` alone has the ONNX protobuf |
//! | [`registry`] | `inspection`, `bundle`, `config` |
//! | `cli` | everything; the only room with `anyhow` |
//!
//! What is absent on purpose: no web server, no database of images, no Python at run time.

pub mod bundle;
pub mod cli;
pub mod config;
pub mod decision;
pub mod inspection;
pub mod line;
pub mod registry;
pub mod scoring;
pub mod telemetry;
pub mod training;
