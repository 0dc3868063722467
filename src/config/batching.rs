//! How frames wait for a scorer.

use serde::{Deserialize, Serialize};

/// A batch closes when it is full or its oldest frame has waited long enough.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Batching {
    /// Frames in a batch at most, 0 to 64; 0 is 1 on a processor and 8 on an accelerator.
    pub max_batch: usize,
    /// How long the oldest frame waits for company while a scorer is free, 0 to 10000.
    pub max_wait_ms: u64,
    /// Frames waiting per camera at most, 1 to 1024; beyond, one is shed as a decision.
    pub queue_frames: usize,
    /// Which frame of the camera whose queue is full is shed.
    pub shed: ShedPolicy,
}

/// Which frame is given up when a camera's queue is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ShedPolicy {
    /// The one that waited longest: the newest part is the one that can still be ejected.
    Oldest,
    /// The one that just came: what waits already is inspected.
    Newest,
}

impl Default for Batching {
    fn default() -> Self {
        Self { max_batch: 0, max_wait_ms: 0, queue_frames: 16, shed: ShedPolicy::Oldest }
    }
}
