//! A captured frame on its way through the line.

use std::sync::Arc;
use std::time::{Duration, Instant};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::CameraPicture;

/// A frame's number at its camera, counted from 1 at the first pad since the program started.
/// A gap means frames that were grabbed but never reached the scorer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct FrameId(pub u64);

/// Where a capture time was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TimeSource {
    /// When the buffer reached the first pad of our pipeline.
    Arrival,
    /// From the RTP time stamps of the stream.
    Rtp,
    /// From the camera's own clock.
    Camera,
    /// From the camera's clock, which follows a PTP master: comparable between cameras and machines.
    Ptp,
    /// When the trigger came, for a part that got no frame.
    Trigger,
}

/// When a frame was captured: monotonic for deadlines, UTC for people.
#[derive(Debug, Clone, Copy)]
pub struct Stamp {
    /// Monotonic time; deadlines and latencies count from here, whatever the wall clock does.
    pub monotonic: Instant,
    /// Microseconds since the Unix epoch, UTC.
    pub utc_us: i64,
    /// Where the time was read.
    pub source: TimeSource,
}

/// What a part's identity comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PartSource {
    /// A trigger told the identity.
    Trigger,
    /// Counted: the frame number is all that is known.
    Counter,
    /// Read from a code on the part.
    Barcode,
    /// No identity.
    None,
}

/// One captured frame, full size.
#[derive(Debug, Clone)]
pub struct Frame {
    /// Name of the camera, as configured.
    pub camera: Arc<str>,
    /// Number at this camera.
    pub id: FrameId,
    /// Identity of the part, where one is known (for a folder camera: the file name).
    pub part_id: Option<Arc<str>>,
    /// What `part_id` comes from.
    pub part_source: PartSource,
    /// Number of the trigger at this camera, where the camera is triggered.
    pub trigger: Option<u64>,
    /// When it was captured.
    pub captured: Stamp,
    /// How long after capture a decision is useful; none means always.
    pub deadline: Option<Duration>,
    /// The pixels as the camera gave them.
    pub picture: Arc<CameraPicture>,
}

impl Frame {
    /// When a decision about it stops being useful; none means never.
    pub fn due(&self) -> Option<Instant> {
        self.deadline.map(|deadline| self.captured.monotonic + deadline)
    }
}
