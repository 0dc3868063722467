//! MQTT. The only room with the client and the embedded broker.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::outbox::Outbox;
use crate::config::Config;
use crate::inspection::{Decision, ModelIdentity};

/// States of the station after OPC 40100-1 (machine vision).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum StationState {
    /// Starting: nothing is ready.
    Preoperational,
    /// Configuration and model are loaded.
    Initialized,
    /// Cameras and broker are ready.
    Ready,
    /// Inspecting.
    Executing,
    /// Stopped in order.
    Halted,
    /// Cannot inspect; see the detail.
    Error,
}

/// Counters of a running line, published on `stats` and shown at the end.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
pub struct Stats {
    /// Frames grabbed, all cameras.
    pub frames: u64,
    /// Decisions made.
    pub decisions: u64,
    /// Of these accepted.
    pub accept: u64,
    /// Of these rejected.
    pub reject: u64,
    /// Of these suspect.
    pub suspect: u64,
    /// Of these not inspected.
    pub not_inspected: u64,
    /// Decisions that the broker acknowledged.
    pub acknowledged: u64,
    /// Decisions waiting in the outbox.
    pub outbox: u64,
    /// Batches scored.
    pub batches: u64,
    /// Frames a second since the last message.
    pub frames_per_second: f64,
    /// Capture to decision, milliseconds, 50th percentile since the last message.
    pub latency_p50_ms: f64,
    /// Capture to decision, milliseconds, 99th percentile since the last message.
    pub latency_p99_ms: f64,
    /// Frames per camera.
    pub cameras: std::collections::BTreeMap<String, u64>,
}

/// What delivery has done so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DeliveryCounters {
    /// Decisions taken over.
    pub submitted: u64,
    /// Decisions that the broker acknowledged, of this run or an earlier one.
    pub acknowledged: u64,
    /// Publishes that were replays.
    pub replayed: u64,
    /// Decisions in the outbox now.
    pub waiting: u64,
    /// Whether the broker is connected now.
    pub connected: bool,
}

/// Why publishing could not do its work.
#[derive(Debug, thiserror::Error)]
pub enum PublishingError {}

/// The connection to the broker, with its own thread; the embedded broker too where configured.
#[derive(Debug)]
pub struct Delivery {}

impl Delivery {
    /// Starts the embedded broker where configured and the client, and begins with what the
    /// outbox holds. Does not wait for the connection.
    ///
    /// # Errors
    /// The embedded broker cannot listen, or credentials or certificates cannot be read.
    pub fn start(config: &Config, outbox: Outbox, boot_id: &str) -> Result<Self, PublishingError> {
        let _ = (config, outbox, boot_id);
        unimplemented!()
    }

    /// Takes a decision over: when this returns, it stands in the outbox. Never waits for the
    /// broker.
    ///
    /// # Errors
    /// The outbox could not take it; it is published all the same.
    pub fn submit(&self, decision: Decision) -> Result<(), PublishingError> {
        let _ = decision;
        unimplemented!()
    }

    /// Publishes the state (retained).
    pub fn set_state(&self, state: StationState, detail: Option<String>) {
        let _ = (state, detail);
        unimplemented!()
    }

    /// Publishes which model decides (retained).
    pub fn set_model(&self, model: &ModelIdentity, provider: &str) {
        let _ = (model, provider);
        unimplemented!()
    }

    /// Publishes counters.
    pub fn set_stats(&self, stats: &Stats) {
        let _ = stats;
        unimplemented!()
    }

    /// What was done so far.
    pub fn counters(&self) -> DeliveryCounters {
        unimplemented!()
    }

    /// Waits until the broker is connected; `false` when `patience` ended first.
    pub fn wait_connected(&self, patience: Duration) -> bool {
        let _ = patience;
        unimplemented!()
    }

    /// Waits for acknowledgements until `drain` has passed, says `stopped`, disconnects and stops
    /// the threads. What was not acknowledged stays in the outbox for the next start.
    pub fn stop(self, drain: Duration) -> DeliveryCounters {
        let _ = drain;
        unimplemented!()
    }
}
