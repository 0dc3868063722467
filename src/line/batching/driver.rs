//! The batcher's clock and lock: one side pushes frames, the other waits for batches.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::{Batch, Batcher, Shed};
use crate::inspection::Frame;

/// What waiting for a batch brought.
#[derive(Debug)]
pub enum Taken {
    /// A batch.
    Batch(Batch),
    /// Nothing in the time given.
    Nothing,
    /// The queue is closed and empty: nothing will come.
    Closed,
}

#[derive(Debug)]
struct State {
    batcher: Batcher,
    closed: bool,
}

/// A [`Batcher`] between two threads. A batch forms while the taker is busy and closes when it is
/// due and somebody takes it.
#[derive(Debug)]
pub struct BatchQueue {
    state: Mutex<State>,
    changed: Condvar,
}

impl BatchQueue {
    /// Wraps a batcher.
    pub fn new(batcher: Batcher) -> Self {
        Self { state: Mutex::new(State { batcher, closed: false }), changed: Condvar::new() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // The batcher is whole between any two calls.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a frame in; never waits. What had to be given up comes back.
    pub fn push(&self, frame: Frame) -> Vec<Shed> {
        let shed = self.lock().batcher.push(frame, Instant::now());
        self.changed.notify_one();
        shed
    }

    /// A batch of `frames` took so long; the estimate that deadlines are kept by follows.
    pub fn observe(&self, frames: usize, took: Duration) {
        self.lock().batcher.observe(frames, took);
    }

    /// Says that no frame will come any more; what waits is handed out at once.
    pub fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_all();
    }

    /// Waits for a batch, `patience` at most.
    pub fn take(&self, patience: Duration) -> Taken {
        let until = Instant::now() + patience;
        let mut state = self.lock();
        loop {
            let now = Instant::now();
            let batch = if state.closed { state.batcher.flush(now) } else { state.batcher.next(now) };
            match batch {
                Some(batch) => return Taken::Batch(batch),
                None if state.closed => return Taken::Closed,
                None if now >= until => return Taken::Nothing,
                None => {}
            }
            let due = state.batcher.wait_until().map_or(until, |due| due.min(until));
            let pause = due.saturating_duration_since(now);
            state = self.changed.wait_timeout(state, pause).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}
