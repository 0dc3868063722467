//! What was decided about a part, and why.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Rectangle;

/// The decision about one frame. Never good by default: whatever was not shown to be normal is
/// one of the other three.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Inside the normal boundary.
    Accept,
    /// Beyond the abnormal boundary.
    Reject,
    /// Between the two boundaries.
    Suspect,
    /// No verdict could be reached in time or at all.
    NotInspected,
}

impl Verdict {
    /// The word used on the wire and in tables.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Accept => "accept",
            Self::Reject => "reject",
            Self::Suspect => "suspect",
            Self::NotInspected => "not_inspected",
        }
    }
}

impl std::fmt::Display for Verdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}

/// Why a frame got no inspection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum NotInspected {
    /// The deadline passed first.
    Late,
    /// A queue was full and the written policy gave this frame up.
    Shed,
    /// Grabbed, but lost between the first pad and the scorer (torn, undecodable, dropped).
    Lost,
    /// Triggered, but no frame came in time; for a combined verdict: not every camera told its own.
    NoFrame,
    /// The model could not score it.
    Failed,
    /// The model's answer was not a number.
    NotFinite,
    /// The line was stopping.
    Stopped,
}

/// One reason for a verdict.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Reason {
    /// The image score lies beyond the boundary named.
    ScoreAboveBoundary {
        /// Image score, calibrated units.
        score: f32,
        /// The boundary it passed, same units.
        boundary: f32,
    },
    /// The frame was not inspected.
    NotInspected {
        /// Why.
        cause: NotInspected,
    },
}

/// A connected set of pixels beyond the normal boundary.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Region {
    /// Bounding box in pixels of the full frame.
    #[serde(rename = "box")]
    pub bounds: Rectangle,
    /// Area in pixels of the full frame.
    pub area: f32,
    /// Highest anomaly score inside, calibrated units.
    pub peak_score: f32,
}

/// What the decision room says about one picture.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// The verdict.
    pub verdict: Verdict,
    /// Why; empty for an accept.
    pub reasons: Vec<Reason>,
    /// Image score in calibrated units; none where there was no inspection.
    pub image_score: Option<f32>,
    /// Regions beyond the normal boundary, highest peak first.
    pub regions: Vec<Region>,
}

impl Outcome {
    /// The outcome of a frame that was not inspected.
    pub fn not_inspected(cause: NotInspected) -> Self {
        Self {
            verdict: Verdict::NotInspected,
            reasons: vec![Reason::NotInspected { cause }],
            image_score: None,
            regions: Vec::new(),
        }
    }
}
