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

    /// Says that a stage turned at `now`; a time to come is how long it may now take.
    pub(super) fn turned(&self, stage: Stage, now: Instant) {
        self.turned_ms[stage.place()].store(self.ms(now), Ordering::Relaxed);
    }

    /// The scorers, by number, that have not turned for `patience`.
    pub(super) fn stuck_scorers(&self, now: Instant, patience: Duration) -> Vec<usize> {
        let scorers = 0..self.turned_ms.len() - SINGLE.len();
        scorers.filter(|&number| self.stands(Stage::Scorer(number).place(), now, patience)).collect()
    }

    /// The stages that have not turned for `patience`.
    pub(super) fn stuck(&self, now: Instant, patience: Duration) -> Vec<&'static str> {
        let places = (0..self.turned_ms.len()).filter(|&place| self.stands(place, now, patience));
        places.map(|place| SINGLE.get(place).copied().unwrap_or("scorer")).collect()
    }

    fn stands(&self, place: usize, now: Instant, patience: Duration) -> bool {
        let turned = self.turned_ms[place].load(Ordering::Relaxed);
        self.ms(now).saturating_sub(turned) > patience.as_millis() as u64
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
        assert_eq!(progress.stuck_scorers(at(20), patience), [0]);
        progress.turned(Stage::Scorer(0), at(60));
        assert!(progress.stuck_scorers(at(30), patience).is_empty(), "it has until then");
        assert_eq!(progress.stuck_scorers(at(71), patience), [0, 1]);
    }
}
