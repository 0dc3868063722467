//! Whether the stages get on: each says so at every turn, whoever supervises looks at how long ago
//! that was. A thread that lives but does not turn is stuck.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Stages that are watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    Intake,
    Deadlines,
    Pulse,
    /// By number.
    Scorer(usize),
}

/// Stages that a line has once, in the order of their places; the scorers stand behind them.
const SINGLE: [&str; 3] = ["intake", "deadlines", "pulse"];

impl Stage {
    fn place(self) -> usize {
        match self {
            Self::Intake => 0,
            Self::Deadlines => 1,
            Self::Pulse => 2,
            Self::Scorer(number) => SINGLE.len() + number,
        }
    }
}

/// When each stage last turned.
#[derive(Debug)]
pub(super) struct Progress {
    started: Instant,
    turned_ms: Vec<AtomicU64>,
}

impl Progress {
    /// For a line with so many scorers that starts at `now`.
    pub(super) fn new(scorers: usize, now: Instant) -> Self {
        let turned_ms = (0..SINGLE.len() + scorers).map(|_| AtomicU64::new(0)).collect();
        Self { started: now, turned_ms }
    }

    /// Says that a stage turned at `now`.
    pub(super) fn turned(&self, stage: Stage, now: Instant) {
        self.turned_ms[stage.place()].store(self.ms(now), Ordering::Relaxed);
    }

    /// The stages that have not turned for `patience`.
    pub(super) fn stuck(&self, now: Instant, patience: Duration) -> Vec<&'static str> {
        let now = self.ms(now);
        let patience = patience.as_millis() as u64;
        let stands = |turned: &AtomicU64| now.saturating_sub(turned.load(Ordering::Relaxed)) > patience;
        let places = self.turned_ms.iter().enumerate().filter(|(_, turned)| stands(turned));
        places.map(|(place, _)| SINGLE.get(place).copied().unwrap_or("scorer")).collect()
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
        let progress = Progress::new(2, start);
        assert!(progress.stuck(at(10), patience).is_empty());
        for stage in [Stage::Intake, Stage::Deadlines, Stage::Pulse, Stage::Scorer(0)] {
            progress.turned(stage, at(9));
        }
        assert_eq!(progress.stuck(at(11), patience), ["scorer"]);
        assert_eq!(progress.stuck(at(20), patience).len(), 5);
        progress.turned(Stage::Scorer(1), at(20));
        assert_eq!(progress.stuck(at(20), patience), ["intake", "deadlines", "pulse", "scorer"]);
    }
}
