//! Whether somebody listens again after a connection was lost.
//!
//! A broker that comes back without its sessions acknowledges what nobody has subscribed to yet
//! (reason `No matching subscribers`): the decision would be gone although its subscriber is only
//! a moment late. So for a while after connecting, the decisions of a camera that had a subscriber
//! before go out one at a time until one is taken by somebody; the others stay in the outbox.
//! Without clock: time comes in as an argument.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

/// Time between two offers of the same decision.
const OFFER_AGAIN: Duration = Duration::from_millis(100);

/// A camera whose subscriber has not come back.
#[derive(Debug)]
struct Absent {
    /// Its oldest decision's row, which goes out again and again.
    offered: i64,
    under_way: bool,
    next: Instant,
}

/// What an acknowledgement means for the decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    /// It is delivered.
    Taken,
    /// It is delivered, and what was held back can follow.
    Resume,
    /// Nobody got it: it stays.
    Stays,
}

/// The cameras of one connection that wait for their subscriber.
#[derive(Debug)]
pub(super) struct Listeners {
    until: Instant,
    /// Rows up to here were left by an earlier run, which may have had a subscriber.
    inherited: i64,
    confirmed: HashSet<String>,
    absent: HashMap<String, Absent>,
    held_back: bool,
}

impl Listeners {
    /// For a connection made at `now`, waiting for `wait` at most.
    pub(super) fn new(now: Instant, wait: Duration, inherited: i64) -> Self {
        Self { until: now + wait, inherited, confirmed: HashSet::new(), absent: HashMap::new(), held_back: false }
    }

    /// Whether this decision may go out; `had` says whether its camera had a subscriber before.
    pub(super) fn admit(&mut self, row: i64, camera: &str, had: bool, now: Instant) -> bool {
        if now >= self.until || self.confirmed.contains(camera) || !(had || row <= self.inherited) {
            return true;
        }
        if self.absent.contains_key(camera) {
            self.held_back = true;
            return false;
        }
        self.absent.insert(camera.to_owned(), Absent { offered: row, under_way: true, next: now });
        true
    }

    /// Rows to be offered again now.
    pub(super) fn due(&mut self, now: Instant) -> Vec<i64> {
        let due = self.absent.values_mut().filter(|absent| !absent.under_way && now >= absent.next);
        due.map(|absent| {
            absent.under_way = true;
            absent.offered
        })
        .collect()
    }

    /// Says that a row that was due is no longer there; another one asks in its place.
    pub(super) fn gone(&mut self, row: i64) {
        self.absent.retain(|_, absent| absent.offered != row);
    }

    /// Takes an acknowledgement in; `somebody` says whether there was a subscriber.
    pub(super) fn answered(&mut self, camera: &str, row: i64, somebody: bool, now: Instant) -> Answer {
        if somebody {
            self.confirmed.insert(camera.to_owned());
            return if self.absent.remove(camera).is_some() { self.resume() } else { Answer::Taken };
        }
        match self.absent.get_mut(camera) {
            Some(absent) if absent.offered == row && now < self.until => {
                absent.under_way = false;
                absent.next = now + OFFER_AGAIN;
                Answer::Stays
            }
            _ => Answer::Taken,
        }
    }

    /// Whether the waiting has just ended, so that what was held back must go out.
    pub(super) fn gives_up(&mut self, now: Instant) -> bool {
        if now < self.until || self.absent.is_empty() {
            return false;
        }
        for (camera, _) in self.absent.drain() {
            tracing::warn!(camera, "no subscriber came back: decisions go to whoever the broker finds");
        }
        self.held_back = false;
        true
    }

    fn resume(&mut self) -> Answer {
        if std::mem::take(&mut self.held_back) { Answer::Resume } else { Answer::Taken }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WAIT: Duration = Duration::from_secs(10);

    #[test]
    fn a_camera_that_had_a_subscriber_holds_its_decisions_until_one_is_taken() {
        let now = Instant::now();
        let mut listeners = Listeners::new(now, WAIT, 0);
        assert!(listeners.admit(1, "a", true, now), "the first asks");
        assert!(!listeners.admit(2, "a", true, now), "the others wait");
        assert!(listeners.admit(3, "b", false, now), "nobody ever listened to this one");
        assert_eq!(listeners.answered("b", 3, false, now), Answer::Taken);
        assert_eq!(listeners.answered("a", 1, false, now), Answer::Stays);
        assert!(listeners.due(now).is_empty(), "not at once");
        let later = now + OFFER_AGAIN;
        assert_eq!(listeners.due(later), [1]);
        assert!(listeners.due(later).is_empty(), "it is under way");
        assert_eq!(listeners.answered("a", 1, true, later), Answer::Resume);
        assert!(listeners.admit(2, "a", true, later));
        assert_eq!(listeners.answered("a", 2, false, later), Answer::Taken, "it left in between: as the broker says");
    }

    #[test]
    fn the_waiting_ends_and_what_an_earlier_run_left_waits_too() {
        let now = Instant::now();
        let mut listeners = Listeners::new(now, WAIT, 5);
        assert!(listeners.admit(5, "a", false, now));
        assert!(!listeners.admit(5, "a", false, now));
        assert!(!listeners.gives_up(now + WAIT / 2));
        assert!(listeners.gives_up(now + WAIT));
        assert!(!listeners.gives_up(now + WAIT), "once");
        assert!(listeners.admit(5, "a", false, now + WAIT));
    }
}
