//! The integration tests, in the order of the flow.
#![expect(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

mod archive;
mod backbone;
mod batching;
mod bench;
mod calibration;
mod capture;
mod check;
mod config;
mod dataset;
mod decision;
mod evaluation;
mod export;
mod faults;
mod fences;
mod flow;
mod frames;
mod hot_path;
mod night;
mod outbox;
mod publishing;
mod quantise;
mod registry;
mod retrain;
mod run;
mod scoring;
mod support;
mod synthesis;
mod threads;
mod train;
mod triggers;
