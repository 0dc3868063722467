//! Events that may come with every frame: told at once, then no more than now and then.

use std::time::{Duration, Instant};

/// Time between two tellings: what goes on is not forgotten, and a night of it does not fill the journal.
const PAUSE: Duration = Duration::from_secs(10);

/// Counts what happens and says when to tell it.
#[derive(Debug, Default)]
pub(super) struct Seldom {
    told: Option<Instant>,
    since: u64,
}

impl Seldom {
    /// It happened again: how often since it was last told, this time included, where it is to be told now.
    pub(super) fn due(&mut self, now: Instant) -> Option<u64> {
        self.since += 1;
        if self.told.is_some_and(|told| now.saturating_duration_since(told) < PAUSE) {
            return None;
        }
        self.told = Some(now);
        Some(std::mem::take(&mut self.since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_is_told_at_once_and_the_others_by_their_number() {
        let mut seldom = Seldom::default();
        let start = Instant::now();
        assert_eq!(seldom.due(start), Some(1));
        for ms in 1..=40 {
            assert_eq!(seldom.due(start + Duration::from_millis(ms)), None);
        }
        assert_eq!(seldom.due(start + PAUSE), Some(41));
        assert_eq!(seldom.due(start + PAUSE), None);
        assert_eq!(seldom.due(start + 3 * PAUSE), Some(2));
    }
}
