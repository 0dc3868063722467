//! What a decision is about, what was decided, and the record of it on its way out.

use std::sync::Arc;
use std::time::Duration;

use super::keeper::Place;
use crate::bundle::ImageBoundary;
use crate::inspection::{
    AnomalyMap, CameraPicture, Decision, Frame, FrameId, Latency, ModelIdentity, NotInspected, Outcome, PartSource,
    Stamp, Verdict,
};
use crate::line::capture::LostFrame;
use crate::line::publishing::{CommandReply, Handing, ReplyTo};

/// What a decision is about.
pub(super) struct Subject {
    pub(super) camera: Arc<str>,
    pub(super) id: FrameId,
    pub(super) part_id: Option<Arc<str>>,
    pub(super) part_source: PartSource,
    pub(super) trigger: Option<u64>,
    pub(super) captured: Stamp,
    pub(super) deadline: Option<Duration>,
    pub(super) picture: Option<Arc<CameraPicture>>,
}

impl From<Frame> for Subject {
    fn from(frame: Frame) -> Self {
        Self {
            camera: frame.camera,
            id: frame.id,
            part_id: frame.part_id,
            part_source: frame.part_source,
            trigger: frame.trigger,
            captured: frame.captured,
            deadline: frame.deadline,
            picture: Some(frame.picture),
        }
    }
}

impl From<LostFrame> for Subject {
    fn from(lost: LostFrame) -> Self {
        Self {
            camera: lost.camera,
            id: lost.id,
            part_id: lost.part_id,
            part_source: lost.part_source,
            trigger: lost.trigger,
            captured: lost.captured,
            deadline: lost.deadline,
            picture: None,
        }
    }
}

/// What was decided, by whom and how long it took.
pub(super) struct Judgement {
    pub(super) outcome: Outcome,
    pub(super) map: Option<AnomalyMap>,
    pub(super) model: Option<(ModelIdentity, ImageBoundary)>,
    /// Queue, batch and infer times; the rest until the record is made is `decide`. None where
    /// nothing was scored: all the time was spent waiting.
    pub(super) latency: Option<Latency>,
}

impl Judgement {
    pub(super) fn not_inspected(cause: NotInspected) -> Self {
        Self { outcome: Outcome::not_inspected(cause), map: None, model: None, latency: None }
    }

    /// What it is worth so long after the capture: what was scored and comes behind its deadline is late.
    pub(super) fn after(self, spent: Duration, deadline: Option<Duration>) -> Self {
        let late = self.is_inspected() && deadline.is_some_and(|deadline| spent > deadline);
        if late { Self::not_inspected(NotInspected::Late) } else { self }
    }

    /// Whether it says something about the part.
    pub(super) fn is_inspected(&self) -> bool {
        self.outcome.verdict != Verdict::NotInspected
    }
}

/// A decision that has its number and its place, on its way to the disk.
#[must_use = "the decision is taken over when `finish` has returned"]
pub(super) struct Begun<'recorder> {
    pub(super) handed: Handing<'recorder>,
    /// Of the part that it completes.
    pub(super) combined: Option<Handing<'recorder>>,
    pub(super) answer: Option<(ReplyTo, CommandReply)>,
    pub(super) keeping: Option<Keeping<'recorder>>,
}

/// A frame that is to be archived, and its place in the queue there.
pub(super) struct Keeping<'recorder> {
    pub(super) place: Place<'recorder>,
    pub(super) decision: Decision,
    pub(super) picture: Arc<CameraPicture>,
    pub(super) map: Option<AnomalyMap>,
}
