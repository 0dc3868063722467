//! Stopping threads that wait.

use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

/// Tells threads to stop and wakes those that wait.
#[derive(Debug, Default)]
pub(super) struct StopFlag {
    wanted: Mutex<bool>,
    changed: Condvar,
}

impl StopFlag {
    /// Stops everybody.
    pub(super) fn now(&self) {
        *self.wanted.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.changed.notify_all();
    }

    /// Waits for `pause`; `true` when it is time to stop.
    pub(super) fn wait(&self, pause: Duration) -> bool {
        let wanted = self.wanted.lock().unwrap_or_else(PoisonError::into_inner);
        *self.changed.wait_timeout_while(wanted, pause, |wanted| !*wanted).unwrap_or_else(PoisonError::into_inner).0
    }
}
