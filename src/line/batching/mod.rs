//! Frames of all cameras -> batches, closed by size or by age. The [`Batcher`] has neither clock
//! nor channel: time comes in as an argument, so that every rule below is tested as a plain
//! function. The [`BatchQueue`] around it owns clock and waiting.
//!
//! Rules
//! - A batch closes when it is full, when the oldest waiting frame has waited `max_wait`, or when
//!   waiting longer would let a frame miss its deadline, by a running estimate of the time that
//!   scoring takes.
//! - No more frames join than the tightest deadline in the batch allows.
//! - A frame that cannot make its deadline any more is not scored, so that those behind it can; it
//!   is told as late at its deadline. When no frame can, one is tried all the same: the estimate
//!   may be wrong.
//! - Cameras take turns, one frame each, starting behind the camera that was served last; so a
//!   fast camera cannot starve a slow one. Each camera keeps its own order.
//! - Each camera's queue is bounded. Policy when full: a frame of that camera is shed and becomes a
//!   `not_inspected: shed` decision: its oldest, because the newest part is the one that can still
//!   be ejected, or as configured its newest.

mod driver;
mod pace;

use std::collections::VecDeque;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub use driver::{BatchQueue, Taken};

use crate::config::ShedPolicy;
use crate::inspection::Frame;
use pace::Pace;

/// A frame that was given up because its camera's queue was full.
#[derive(Debug, Clone)]
pub struct Shed(pub Frame);

/// A frame on its way through a batch, with the times that the latency split needs.
#[derive(Debug, Clone)]
pub struct Batched {
    /// The frame.
    pub frame: Frame,
    /// When it found room in the batch that was forming.
    pub joined: Instant,
}

/// Frames to score together.
#[derive(Debug, Clone)]
pub struct Batch {
    /// The frames, at least one, per camera in the order of their capture.
    pub frames: Vec<Batched>,
    /// When the batch closed.
    pub closed: Instant,
}

#[derive(Debug)]
struct Waiting {
    frame: Frame,
    pushed: Instant,
    /// None while more frames than a batch holds stand before it.
    joined: Option<Instant>,
}

/// Groups frames into batches.
#[derive(Debug)]
pub struct Batcher {
    max_batch: usize,
    max_wait: Duration,
    queue_frames: usize,
    shed: ShedPolicy,
    pace: Pace,
    cameras: Vec<Arc<str>>,
    /// One queue per camera, same order.
    queues: Vec<VecDeque<Waiting>>,
    /// Camera whose turn is next.
    turn: usize,
}

impl Batcher {
    /// A batcher for `cameras`. `max_batch` frames at most in a batch, `max_wait` the longest
    /// time that the oldest frame waits for company, `queue_frames` the most that wait per camera.
    pub fn new(
        max_batch: NonZeroUsize,
        max_wait: Duration,
        queue_frames: NonZeroUsize,
        cameras: impl IntoIterator<Item = Arc<str>>,
    ) -> Self {
        let cameras: Vec<_> = cameras.into_iter().collect();
        let queues = cameras.iter().map(|_| VecDeque::new()).collect();
        Self {
            max_batch: max_batch.get(),
            max_wait,
            queue_frames: queue_frames.get(),
            shed: ShedPolicy::Oldest,
            pace: Pace::default(),
            cameras,
            queues,
            turn: 0,
        }
    }

    /// Which frame is given up when a camera's queue is full.
    pub fn shedding(self, shed: ShedPolicy) -> Self {
        Self { shed, ..self }
    }

    /// A batch of `frames` took so long.
    pub fn observe(&mut self, frames: usize, took: Duration) {
        self.pace.observe(frames, took);
    }

    /// Takes a frame in at time `now`; what had to be given up for it comes back. A frame of a
    /// camera that was not announced opens a queue of its own.
    pub fn push(&mut self, frame: Frame, now: Instant) -> Vec<Shed> {
        let camera = self.cameras.iter().position(|name| *name == frame.camera).unwrap_or_else(|| {
            self.cameras.push(frame.camera.clone());
            self.queues.push(VecDeque::new());
            self.cameras.len() - 1
        });
        if self.shed == ShedPolicy::Newest && self.queues[camera].len() >= self.queue_frames {
            return vec![Shed(frame)];
        }
        let mut shed = Vec::new();
        while self.queues[camera].len() >= self.queue_frames {
            shed.extend(self.queues[camera].pop_front().map(|waiting| Shed(waiting.frame)));
        }
        let joined = (self.len() < self.max_batch).then_some(now);
        self.queues[camera].push_back(Waiting { frame, pushed: now, joined });
        shed
    }

    /// Frames waiting, all cameras.
    pub fn len(&self) -> usize {
        self.queues.iter().map(VecDeque::len).sum()
    }

    /// Whether no frame waits.
    pub fn is_empty(&self) -> bool {
        self.queues.iter().all(VecDeque::is_empty)
    }

    /// When the waiting frames will be due as a batch, by age or by a deadline; none while no frame
    /// waits. A full batch is due at once, which is said by the time its oldest frame came.
    pub fn wait_until(&self) -> Option<Instant> {
        let oldest = self.oldest()?;
        if self.len() >= self.max_batch {
            return Some(oldest);
        }
        let by_age = oldest + self.max_wait;
        let tightest = self.queues.iter().flatten().filter_map(|waiting| waiting.frame.due()).min();
        // Nothing is known yet: the first batch with a deadline shows what scoring takes.
        let tightest = if self.pace.is_known() { tightest } else { tightest.map(|_| oldest) };
        let by_deadline = tightest.map(|due| due.checked_sub(self.pace.of(self.len())).unwrap_or(oldest).max(oldest));
        Some(by_deadline.map_or(by_age, |due| due.min(by_age)))
    }

    fn oldest(&self) -> Option<Instant> {
        self.queues.iter().filter_map(|queue| queue.front().map(|waiting| waiting.pushed)).min()
    }

    /// The next batch, if one is due at time `now`: full, or old enough.
    pub fn next(&mut self, now: Instant) -> Option<Batch> {
        if self.wait_until()? > now {
            return None;
        }
        self.leave_hopeless(now);
        self.take(now)
    }

    /// The next batch whether due or not; for a line that stops. None when no frame waits.
    pub fn flush(&mut self, now: Instant) -> Option<Batch> {
        if self.is_empty() { None } else { self.take(now) }
    }

    /// Takes out the frames that cannot make their deadline, but one where none can.
    fn leave_hopeless(&mut self, now: Instant) {
        let soonest = now + self.pace.of(1);
        let hopeless = |waiting: &Waiting| waiting.frame.due().is_some_and(|due| due < soonest);
        let all = self.queues.iter().flatten().all(hopeless);
        let latest = self.queues.iter().flatten().filter_map(|waiting| waiting.frame.due()).max();
        let mut kept = false;
        for queue in &mut self.queues {
            queue.retain(|waiting| {
                let tried = all && !kept && waiting.frame.due() == latest;
                kept |= tried;
                tried || !hopeless(waiting)
            });
        }
    }

    fn take(&mut self, now: Instant) -> Option<Batch> {
        let mut frames = Vec::with_capacity(self.max_batch.min(self.len()));
        let count = self.queues.len();
        let mut passed = 0;
        let mut tightest: Option<Instant> = None;
        while frames.len() < self.max_batch && passed < count {
            let camera = self.turn % count;
            self.turn = (camera + 1) % count;
            if let Some(due) = self.queues[camera].front().and_then(|waiting| waiting.frame.due()) {
                let tight = tightest.map_or(due, |tightest: Instant| tightest.min(due));
                if !frames.is_empty() && now + self.pace.of(frames.len() + 1) > tight {
                    // Its turn comes first in the next batch.
                    self.turn = camera;
                    break;
                }
                tightest = Some(tight);
            }
            match self.queues[camera].pop_front() {
                Some(Waiting { frame, joined, .. }) => {
                    passed = 0;
                    frames.push(Batched { frame, joined: joined.unwrap_or(now) });
                }
                None => passed += 1,
            }
        }
        // What stays behind forms the next batch from now on, as far as it has room there.
        let mut room = self.max_batch;
        for waiting in self.queues.iter_mut().flatten() {
            if room == 0 {
                break;
            }
            waiting.joined.get_or_insert(now);
            room -= 1;
        }
        (!frames.is_empty()).then_some(Batch { frames, closed: now })
    }
}
