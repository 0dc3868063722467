//! The decision as it is published, stored and archived.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{PartSource, Reason, Region, TimeSource, Verdict};

/// Version of the decision's JSON schema; raised when a field changes its meaning or goes.
pub const DECISION_SCHEMA_VERSION: u32 = 1;

/// Which model decided.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ModelIdentity {
    /// Name of the bundle.
    pub name: String,
    /// Version of the bundle.
    pub version: String,
    /// SHA-256 of the bundle's manifest, hexadecimal.
    pub sha256: String,
}

/// Where the time from capture to decision went, milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
pub struct Latency {
    /// From capture until the frame joined a batch.
    pub queue_ms: f64,
    /// From joining a batch until the batch closed.
    pub batch_ms: f64,
    /// Scaling and scoring.
    pub infer_ms: f64,
    /// Fusion, regions and verdict.
    pub decide_ms: f64,
}

/// One decision about one frame. Times are microseconds since the Unix epoch, UTC.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Decision {
    /// [`DECISION_SCHEMA_VERSION`].
    pub schema_version: u32,
    /// ULID of this decision; a duplicate delivery has the same.
    pub result_id: String,
    /// Random identity of this run of the program; with `sequence` it makes gaps visible.
    pub boot_id: String,
    /// Counted from 1 over all decisions of this run, without gaps.
    pub sequence: u64,
    /// Site, as configured.
    pub site: String,
    /// Line, as configured.
    pub line: String,
    /// Station, as configured.
    pub station: String,
    /// Camera, as configured.
    pub camera: String,
    /// Number of the frame at this camera, counted from 1 since start; numbers of frames without a
    /// part (see `presence` of the camera) are left out.
    pub frame: u64,
    /// Identity of the part, where known.
    pub part_id: Option<String>,
    /// What the identity comes from.
    pub part_source: PartSource,
    /// Number of the trigger at this camera since the start; null where it is not triggered.
    #[serde(default)]
    pub trigger: Option<u64>,
    /// The verdict.
    pub verdict: Verdict,
    /// What the line shall do with the part under the configured policy: `true` is take it out.
    pub eject: bool,
    /// Why.
    pub reasons: Vec<Reason>,
    /// Image score, calibrated units; null where there was no inspection.
    pub image_score: Option<f32>,
    /// Reject threshold on the image score (the abnormal boundary); null without a model.
    pub threshold: Option<f32>,
    /// The learned normal boundary on pixels of the anomaly map; null without a model.
    pub boundary: Option<f32>,
    /// Regions beyond the normal boundary.
    pub regions: Vec<Region>,
    /// Which model decided; null where none did.
    pub model: Option<ModelIdentity>,
    /// Capture time.
    pub captured_us: i64,
    /// Where the capture time was read.
    pub captured_source: TimeSource,
    /// Decision time.
    pub decided_us: i64,
    /// Time of this publish.
    pub published_us: i64,
    /// Where the time went.
    pub latency: Latency,
    /// Deadline after capture, milliseconds, where one is set.
    pub deadline_ms: Option<u64>,
    /// Whether the decision was made before the deadline; null where none is set.
    pub deadline_met: Option<bool>,
    /// True when it comes out of the outbox after its first publish failed: no actuator may fire.
    pub replayed: bool,
    /// Age at this publish since the decision, milliseconds; only for a replayed one.
    pub age_ms: Option<u64>,
    /// Archived full frame, relative to the archive folder.
    pub image_ref: Option<String>,
    /// Archived anomaly map, relative to the archive folder.
    pub heatmap_ref: Option<String>,
    /// What a combined verdict about a part was made of; only on the topic `{part}/part`, where
    /// `camera` is the part's configured name and `frame` counts its verdicts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub combined: Option<Combined>,
}

/// What a combined verdict about one part was made of.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Combined {
    /// Cameras that had to accept the part.
    pub needed: usize,
    /// Cameras that accepted it.
    pub accepted: usize,
    /// What each camera said, as configured.
    pub cameras: Vec<CameraVote>,
}

/// What one camera says about a part.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct CameraVote {
    /// The camera.
    pub camera: String,
    /// Its verdict over its frames.
    pub verdict: Verdict,
    /// Its single decisions; fewer than configured where frames were missing.
    pub decisions: Vec<FrameVote>,
}

/// One decision that went into a combined verdict.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FrameVote {
    /// Which decision.
    pub result_id: String,
    /// Its verdict.
    pub verdict: Verdict,
}
