//! Software triggers: which part the next frame is. Without clock or channel.
//!
//! A trigger waits for the next frames of its camera. A camera that is gone takes none: its next
//! frame after a gap could be another part. Policy of the queue when full: the new trigger is
//! refused and becomes a `not_inspected: shed` decision, so that its part is not mistaken for the
//! one before.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::inspection::{NotInspected, Stamp};

/// Triggers of a camera that wait for their frame at most.
pub(super) const MAX_WAITING: usize = 64;

/// An order to take a part's picture.
#[derive(Debug, Clone)]
pub struct Trigger {
    /// The part.
    pub part_id: Arc<str>,
    /// Number of the trigger at its camera, counted from 1.
    pub sequence: u64,
    /// When it came.
    pub at: Stamp,
    /// Consecutive frames to take, at least 1.
    pub frames: usize,
}

/// The triggers of one camera, oldest first.
#[derive(Debug)]
pub(super) struct TriggerQueue {
    waiting: VecDeque<Trigger>,
    /// Why no trigger is taken at present.
    shut: Option<NotInspected>,
}

impl Default for TriggerQueue {
    /// A camera that is not there yet.
    fn default() -> Self {
        Self { waiting: VecDeque::new(), shut: Some(NotInspected::Lost) }
    }
}

impl TriggerQueue {
    /// The camera is there.
    pub(super) fn open(&mut self) {
        self.shut = None;
    }

    /// The camera is gone for `cause`: what waits comes back.
    pub(super) fn shut(&mut self, cause: NotInspected) -> Vec<Trigger> {
        self.shut = Some(cause);
        self.waiting.drain(..).collect()
    }

    /// Lets a trigger wait for its frames.
    ///
    /// # Errors
    /// The trigger and why it has to be given up.
    pub(super) fn push(&mut self, trigger: Trigger) -> Result<(), (Trigger, NotInspected)> {
        let refusal = self.shut.or((self.waiting.len() >= MAX_WAITING).then_some(NotInspected::Shed));
        if let Some(cause) = refusal {
            return Err((trigger, cause));
        }
        self.waiting.push_back(trigger);
        Ok(())
    }

    /// Whether a trigger waits for a frame.
    pub(super) fn waits(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// The part that a frame shows which was captured then: that of the oldest trigger. None for a
    /// frame that nobody asked for, or that was captured before somebody did.
    pub(super) fn take(&mut self, captured: Instant) -> Option<(Arc<str>, u64)> {
        let oldest = self.waiting.front_mut().filter(|oldest| oldest.at.monotonic <= captured)?;
        let taken = (oldest.part_id.clone(), oldest.sequence);
        oldest.frames = oldest.frames.saturating_sub(1);
        if oldest.frames == 0 {
            self.waiting.pop_front();
        }
        Some(taken)
    }

    /// Takes out what has waited for `timeout` or longer.
    pub(super) fn expire(&mut self, now: Instant, timeout: Duration) -> Vec<Trigger> {
        let old = |trigger: &Trigger| now.saturating_duration_since(trigger.at.monotonic) >= timeout;
        let fresh = self.waiting.iter().position(|trigger| !old(trigger)).unwrap_or(self.waiting.len());
        self.waiting.drain(..fresh).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inspection::TimeSource;

    fn trigger(sequence: u64, at: Instant, frames: usize) -> Trigger {
        let at = Stamp { monotonic: at, utc_us: 0, source: TimeSource::Trigger };
        Trigger { part_id: format!("part-{sequence}").into(), sequence, at, frames }
    }

    fn open() -> TriggerQueue {
        let mut queue = TriggerQueue::default();
        queue.open();
        queue
    }

    #[test]
    fn frames_belong_to_the_oldest_trigger_and_to_none_when_nobody_asked() {
        let (mut queue, now) = (open(), Instant::now());
        assert_eq!(queue.take(now), None);
        queue.push(trigger(1, now, 2)).unwrap();
        queue.push(trigger(2, now, 1)).unwrap();
        let taken: Vec<_> = std::iter::from_fn(|| queue.take(now)).map(|(part, n)| format!("{part} {n}")).collect();
        assert_eq!(taken, ["part-1 1", "part-1 1", "part-2 2"]);
        let later = now + Duration::from_millis(1);
        queue.push(trigger(3, later, 1)).unwrap();
        assert_eq!(queue.take(now), None, "captured before anybody asked");
        assert!(queue.waits() && queue.take(later).is_some() && !queue.waits());
    }

    #[test]
    fn a_trigger_waits_exactly_its_time() {
        let (mut queue, now) = (open(), Instant::now());
        let timeout = Duration::from_millis(100);
        queue.push(trigger(1, now, 1)).unwrap();
        queue.push(trigger(2, now + Duration::from_millis(1), 1)).unwrap();
        assert!(queue.expire(now + Duration::from_millis(99), timeout).is_empty());
        let expired = queue.expire(now + timeout, timeout);
        assert_eq!(expired.iter().map(|t| t.sequence).collect::<Vec<_>>(), [1]);
    }

    #[test]
    fn a_camera_that_is_gone_takes_no_trigger_and_keeps_none() {
        let now = Instant::now();
        let mut queue = TriggerQueue::default();
        assert_eq!(queue.push(trigger(1, now, 1)).unwrap_err().1, NotInspected::Lost);
        queue.open();
        queue.push(trigger(2, now, 1)).unwrap();
        assert_eq!(queue.shut(NotInspected::Stopped).len(), 1);
        assert_eq!(queue.push(trigger(3, now, 1)).unwrap_err().1, NotInspected::Stopped);
        assert_eq!(queue.take(now), None, "no trigger outlives a gap");
    }

    #[test]
    fn the_queue_is_bounded() {
        let (mut queue, now) = (open(), Instant::now());
        for n in 0..MAX_WAITING as u64 {
            queue.push(trigger(n, now, 1)).unwrap();
        }
        assert_eq!(queue.push(trigger(99, now, 1)).unwrap_err().1, NotInspected::Shed);
    }
}
