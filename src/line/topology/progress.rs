//! Whether the stages get on: each says so at every turn, whoever supervises looks at how long ago
//! that was. A thread that lives but does not turn is stuck.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Stages that are watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    Intake,
    Scorer,
    Deadlines,
    Pulse,
}

const STAGES: [(Stage, &str); 4] =
    [(Stage::Intake, "intake"), (Stage::Scorer, "scorer"), (Stage::Deadlines, "deadlines"), (Stage::Pulse, "pulse")];

/// When each stage last turned.
#[derive(Debug)]
pub(super) struct Progress {
    started: Instant,
    turned_ms: [AtomicU64; STAGES.len()],
}

impl Progress {
    pub(super) fn new(now: Instant) -> Self {
        Self { started: now, turned_ms: Default::default() }
    }

    /// Says that a stage turned at `now`.
    pub(super) fn turned(&self, stage: Stage, now: Instant) {
        self.turned_ms[stage as usize].store(self.ms(now), Ordering::Relaxed);
    }

    /// The stages that have not turned for `patience`.
    pub(super) fn stuck(&self, now: Instant, patience: Duration) -> Vec<&'static str> {
        let now = self.ms(now);
        let patience = patience.as_millis() as u64;
        let is_stuck =
            |stage: Stage| now.saturating_sub(self.turned_ms[stage as usize].load(Ordering::Relaxed)) > patience;
        STAGES.iter().filter(|(stage, _)| is_stuck(*stage)).map(|(_, name)| *name).collect()
    }

    fn ms(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.started).as_millis() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stage_that_does_not_turn_is_stuck_and_one_that_turns_again_is_not() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let patience = Duration::from_secs(10);
        let progress = Progress::new(start);
        assert!(progress.stuck(at(10), patience).is_empty());
        for stage in [Stage::Intake, Stage::Deadlines, Stage::Pulse] {
            progress.turned(stage, at(9));
        }
        assert_eq!(progress.stuck(at(11), patience), ["scorer"]);
        assert_eq!(progress.stuck(at(20), patience).len(), 4);
        progress.turned(Stage::Scorer, at(20));
        assert_eq!(progress.stuck(at(20), patience), ["intake", "deadlines", "pulse"]);
    }
}
