//! How long scoring takes, from how long it took.

use std::time::Duration;

/// Weight of a new time in the mean.
const GAIN: f64 = 1.0 / 8.0;
/// Weight of a new time's distance in the mean distance.
const SPREAD_GAIN: f64 = 1.0 / 4.0;
/// Mean distances that the estimate lies above the mean.
const CAUTION: f64 = 2.0;

/// A running estimate of the time that one frame takes in a batch: mean and mean distance from it,
/// both forgetting (after Jacobson, Congestion Avoidance and Control, 1988, Appendix A). Time grows
/// with the frames of a batch as it does on a processor; where a batch costs less than its frames
/// one by one, the estimate errs on the side of haste.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Pace {
    known: bool,
    mean_s: f64,
    spread_s: f64,
}

impl Pace {
    /// A batch of `frames` took so long.
    pub(super) fn observe(&mut self, frames: usize, took: Duration) {
        let Some(frames) = (frames > 0).then_some(frames) else { return };
        let time = took.as_secs_f64() / frames as f64;
        if self.known {
            let distance = time - self.mean_s;
            self.mean_s += GAIN * distance;
            self.spread_s += SPREAD_GAIN * (distance.abs() - self.spread_s);
        } else {
            *self = Self { known: true, mean_s: time, spread_s: time / 2.0 };
        }
    }

    /// Whether a batch was scored.
    pub(super) fn is_known(&self) -> bool {
        self.known
    }

    /// What a batch of `frames` will take, rather too long; nothing while no batch was scored.
    pub(super) fn of(&self, frames: usize) -> Duration {
        Duration::from_secs_f64((self.mean_s + CAUTION * self.spread_s) * frames as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_estimate_settles_on_what_is_seen_and_follows_a_change() {
        let mut pace = Pace::default();
        assert_eq!(pace.of(4), Duration::ZERO);
        pace.observe(0, Duration::from_secs(9));
        for _ in 0..50 {
            pace.observe(2, Duration::from_millis(20));
        }
        let near = |pace: Pace, ms: f64| (pace.of(1).as_secs_f64() * 1000.0 - ms).abs() < 0.1 * ms;
        assert!(near(pace, 10.0), "{:?}", pace.of(1));
        assert!(near(pace, pace.of(3).as_secs_f64() * 1000.0 / 3.0), "three frames take three times as long");
        for _ in 0..60 {
            pace.observe(1, Duration::from_millis(30));
        }
        assert!(near(pace, 30.0), "{:?}", pace.of(1));
    }

    #[test]
    fn unsteady_times_make_it_cautious() {
        let mut pace = Pace::default();
        for n in 0..100 {
            pace.observe(1, Duration::from_millis(if n % 2 == 0 { 5 } else { 15 }));
        }
        assert!(pace.of(1) > Duration::from_millis(15), "{:?}", pace.of(1));
    }
}
