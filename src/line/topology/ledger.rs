//! Frames that still need a decision, so that each gets exactly one: whoever settles an entry
//! decides. Without clock: time comes in as an argument.
//!
//! Several scorers work on the frames of one camera, and the later frame may be done first. What was
//! scored leaves in the camera's order all the same: it is held until the frames before it have
//! their decisions. What was not inspected leaves at once.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Instant;

use crate::inspection::{Frame, FrameId};

/// What names a frame: its camera and its number there.
pub(super) type Key = (Arc<str>, FrameId);

/// The key of a frame.
pub(super) fn key(frame: &Frame) -> Key {
    (frame.camera.clone(), frame.id)
}

#[derive(Debug)]
struct Entry<J> {
    frame: Frame,
    /// What was decided, while frames before it are undecided.
    held: Option<J>,
}

/// The frames whose decision is not out, also in the order of their deadlines. `J` is what is decided.
#[derive(Debug)]
pub(super) struct Ledger<J> {
    cameras: HashMap<Arc<str>, BTreeMap<FrameId, Entry<J>>>,
    deadlines: BTreeSet<(Instant, Key)>,
}

impl<J> Default for Ledger<J> {
    fn default() -> Self {
        Self { cameras: HashMap::new(), deadlines: BTreeSet::new() }
    }
}

impl<J> Ledger<J> {
    /// Enters a frame that needs a decision.
    pub(super) fn open(&mut self, frame: Frame) {
        if let Some(deadline) = frame.due() {
            self.deadlines.insert((deadline, key(&frame)));
        }
        self.cameras.entry(frame.camera.clone()).or_default().insert(frame.id, Entry { frame, held: None });
    }

    /// Decides about a frame, out at once; what leaves with it: itself, then those that it held up.
    /// None where somebody else has decided.
    pub(super) fn settle(&mut self, key: &Key, judgement: J) -> Option<Vec<(Frame, J)>> {
        let entry = if self.is_open(key) { self.remove(key)? } else { return None };
        let mut leaving = vec![(entry.frame, judgement)];
        self.release(&key.0, &mut leaving);
        Some(leaving)
    }

    /// Decides about a frame, out behind those before it; what leaves now. None where somebody else
    /// has decided.
    pub(super) fn settle_in_order(&mut self, key: &Key, judgement: J) -> Option<Vec<(Frame, J)>> {
        let entry = self.cameras.get_mut(&key.0)?.get_mut(&key.1).filter(|entry| entry.held.is_none())?;
        entry.held = Some(judgement);
        let mut leaving = Vec::new();
        self.release(&key.0, &mut leaving);
        Some(leaving)
    }

    /// Takes out what is decided at the head of a camera's frames.
    fn release(&mut self, camera: &Arc<str>, leaving: &mut Vec<(Frame, J)>) {
        let Some(frames) = self.cameras.get_mut(camera) else { return };
        while let Some(first) = frames.first_entry().filter(|entry| entry.get().held.is_some()) {
            let Entry { frame, held } = first.remove();
            if let Some(deadline) = frame.due() {
                self.deadlines.remove(&(deadline, key(&frame)));
            }
            leaving.extend(held.map(|judgement| (frame, judgement)));
        }
    }

    fn remove(&mut self, key: &Key) -> Option<Entry<J>> {
        let entry = self.cameras.get_mut(&key.0)?.remove(&key.1)?;
        if let Some(deadline) = entry.frame.due() {
            self.deadlines.remove(&(deadline, key.clone()));
        }
        Some(entry)
    }

    /// Whether the frame still needs a decision.
    pub(super) fn is_open(&self, key: &Key) -> bool {
        self.cameras.get(&key.0).and_then(|frames| frames.get(&key.1)).is_some_and(|entry| entry.held.is_none())
    }

    /// The earliest deadline.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.deadlines.first().map(|(deadline, _)| *deadline)
    }

    /// Takes out the frames whose deadline has come, earliest first, and those that they held up;
    /// `late` judges the undecided ones.
    pub(super) fn settle_due(&mut self, now: Instant, late: impl Fn() -> J) -> Vec<(Frame, J)> {
        let mut leaving = Vec::new();
        while let Some((_, key)) = self.deadlines.first().filter(|(deadline, _)| *deadline <= now).cloned() {
            if let Some(Entry { frame, held }) = self.remove(&key) {
                leaving.push((frame, held.unwrap_or_else(&late)));
            }
            self.release(&key.0, &mut leaving);
        }
        leaving
    }

    /// Takes everything out, with what was decided.
    pub(super) fn close_all(&mut self) -> Vec<(Frame, Option<J>)> {
        self.deadlines.clear();
        let entries = self.cameras.drain().flat_map(|(_, frames)| frames.into_values());
        let mut all: Vec<_> = entries.map(|Entry { frame, held }| (frame, held)).collect();
        all.sort_by_key(|(frame, _)| frame.captured.monotonic);
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

    fn numbers(leaving: &[(Frame, char)]) -> Vec<(u64, char)> {
        leaving.iter().map(|(frame, judgement)| (frame.id.0, *judgement)).collect()
    }

    fn named(id: u64) -> Key {
        ("a".into(), FrameId(id))
    }

    #[test]
    fn only_the_first_to_settle_a_frame_decides_about_it() {
        let mut ledger = Ledger::default();
        let now = Instant::now();
        ledger.open(frame(1, now, Some(10)));
        assert!(ledger.is_open(&named(1)));
        assert_eq!(numbers(&ledger.settle(&named(1), 'x').unwrap()), [(1, 'x')]);
        assert!(ledger.settle(&named(1), 'y').is_none());
        assert!(ledger.settle_in_order(&named(1), 'y').is_none());
        assert!(ledger.settle_due(now + Duration::from_secs(1), || 'l').is_empty());
    }

    #[test]
    fn what_was_scored_leaves_in_order_and_what_was_not_at_once() {
        let mut ledger = Ledger::default();
        let now = Instant::now();
        for id in 1..=4 {
            ledger.open(frame(id, now, None));
        }
        assert!(ledger.settle_in_order(&named(2), 'b').unwrap().is_empty(), "the first is not done");
        assert!(!ledger.is_open(&named(2)));
        assert!(ledger.settle_in_order(&named(2), 'B').is_none(), "held is decided");
        assert!(ledger.settle(&named(2), 'f').is_none(), "whatever happens");
        assert_eq!(numbers(&ledger.settle(&named(4), 's').unwrap()), [(4, 's')], "shed: it waits for nobody");
        assert_eq!(numbers(&ledger.settle_in_order(&named(1), 'a').unwrap()), [(1, 'a'), (2, 'b')]);
        assert_eq!(numbers(&ledger.settle_in_order(&named(3), 'c').unwrap()), [(3, 'c')]);
        assert!(ledger.close_all().is_empty());
    }

    #[test]
    fn a_frame_that_fails_or_falls_due_lets_those_behind_it_go() {
        let mut ledger = Ledger::default();
        let now = Instant::now();
        for id in 1..=4 {
            ledger.open(frame(id, now + Duration::from_millis(id), Some(10)));
        }
        assert!(ledger.settle_in_order(&named(2), 'b').unwrap().is_empty());
        assert!(ledger.settle_in_order(&named(4), 'd').unwrap().is_empty());
        assert_eq!(numbers(&ledger.settle(&named(1), 'f').unwrap()), [(1, 'f'), (2, 'b')]);
        assert!(ledger.settle_due(now + Duration::from_millis(12), || 'l').is_empty(), "2 is out already");
        assert_eq!(numbers(&ledger.settle_due(now + Duration::from_millis(13), || 'l')), [(3, 'l'), (4, 'd')]);
        assert_eq!(ledger.next_deadline(), None);
    }

    #[test]
    fn frames_fall_due_at_their_deadline_and_not_before() {
        let mut ledger = Ledger::default();
        let now = Instant::now();
        for (id, deadline) in [(1, Some(30)), (2, Some(10)), (3, None)] {
            ledger.open(frame(id, now, deadline));
        }
        assert_eq!(ledger.next_deadline(), Some(now + Duration::from_millis(10)));
        assert!(ledger.settle_due(now + Duration::from_millis(9), || 'l').is_empty());
        let due = ledger.settle_due(now + Duration::from_millis(30), || 'l');
        assert_eq!(numbers(&due), [(2, 'l'), (1, 'l')]);
        assert_eq!(ledger.next_deadline(), None);
        assert_eq!(ledger.close_all().len(), 1);
    }
}
