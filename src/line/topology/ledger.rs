//! Frames that still need a decision, so that each gets exactly one: whoever closes an entry
//! decides. Without clock: time comes in as an argument.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Instant;

use crate::inspection::{Frame, FrameId};

/// What names a frame: its camera and its number there.
pub(super) type Key = (Arc<str>, FrameId);

/// The key of a frame.
pub(super) fn key(frame: &Frame) -> Key {
    (frame.camera.clone(), frame.id)
}

/// The open frames, also in the order of their deadlines.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    open: HashMap<Key, Frame>,
    deadlines: BTreeSet<(Instant, Key)>,
}

impl Ledger {
    /// Enters a frame that needs a decision.
    pub(super) fn open(&mut self, frame: Frame) {
        let key = key(&frame);
        if let Some(deadline) = frame.due() {
            self.deadlines.insert((deadline, key.clone()));
        }
        self.open.insert(key, frame);
    }

    /// Takes a frame out to decide about it; none where somebody else has.
    pub(super) fn close(&mut self, key: &Key) -> Option<Frame> {
        let frame = self.open.remove(key)?;
        if let Some(deadline) = frame.due() {
            self.deadlines.remove(&(deadline, key.clone()));
        }
        Some(frame)
    }

    /// Whether the frame still needs a decision.
    pub(super) fn is_open(&self, key: &Key) -> bool {
        self.open.contains_key(key)
    }

    /// The earliest deadline.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.deadlines.first().map(|(deadline, _)| *deadline)
    }

    /// Takes out the frames whose deadline has come, earliest first.
    pub(super) fn close_due(&mut self, now: Instant) -> Vec<Frame> {
        let mut due = Vec::new();
        while self.next_deadline().is_some_and(|deadline| deadline <= now) {
            let Some((_, key)) = self.deadlines.pop_first() else { break };
            due.extend(self.open.remove(&key));
        }
        due
    }

    /// Takes everything out.
    pub(super) fn close_all(&mut self) -> Vec<Frame> {
        self.deadlines.clear();
        let mut all: Vec<_> = self.open.drain().map(|(_, frame)| frame).collect();
        all.sort_by_key(|frame| frame.captured.monotonic);
        all
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::inspection::{CameraPicture, PartSource, PixelFormat, Size, Stamp, TimeSource};

    fn frame(id: u64, at: Instant, deadline_ms: Option<u64>) -> Frame {
        Frame {
            camera: "a".into(),
            id: FrameId(id),
            part_id: None,
            part_source: PartSource::None,
            trigger: None,
            captured: Stamp { monotonic: at, utc_us: 0, source: TimeSource::Arrival },
            deadline: deadline_ms.map(Duration::from_millis),
            picture: Arc::new(CameraPicture::new(Size { width: 1, height: 1 }, PixelFormat::Rgb, vec![0; 3]).unwrap()),
        }
    }

    #[test]
    fn only_the_first_to_close_a_frame_decides_about_it() {
        let mut ledger = Ledger::default();
        let now = Instant::now();
        ledger.open(frame(1, now, Some(10)));
        let key = key(&frame(1, now, None));
        assert!(ledger.is_open(&key));
        assert!(ledger.close(&key).is_some());
        assert!(ledger.close(&key).is_none());
        assert!(ledger.close_due(now + Duration::from_secs(1)).is_empty());
    }

    #[test]
    fn frames_fall_due_at_their_deadline_and_not_before() {
        let mut ledger = Ledger::default();
        let now = Instant::now();
        for (id, deadline) in [(1, Some(30)), (2, Some(10)), (3, None)] {
            ledger.open(frame(id, now, deadline));
        }
        assert_eq!(ledger.next_deadline(), Some(now + Duration::from_millis(10)));
        assert!(ledger.close_due(now + Duration::from_millis(9)).is_empty());
        let due = ledger.close_due(now + Duration::from_millis(30));
        assert_eq!(due.iter().map(|f| f.id.0).collect::<Vec<_>>(), [2, 1]);
        assert_eq!(ledger.next_deadline(), None);
        assert_eq!(ledger.close_all().len(), 1);
    }
}
