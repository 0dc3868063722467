//! What the line tells the service manager: readiness, state and signs of life (`sd_notify(3)`).

use std::time::{Duration, Instant};

use sd_notify::NotifyState;

use crate::line::topology::Line;

/// A stage that does not turn for so long is stuck.
pub(super) const STUCK: Duration = Duration::from_secs(20);

/// Says nothing where no service manager listens.
pub(super) struct Service {
    /// Time between two signs of life, half of what the manager waits; none where it does not watch.
    interval: Option<Duration>,
    next: Instant,
    said: String,
    stuck: Vec<&'static str>,
}

impl Service {
    /// Says that the line is started.
    pub(super) fn ready() -> Self {
        tell(&[NotifyState::Ready]);
        let interval = sd_notify::watchdog_enabled().map(|patience| patience / 2);
        Self { interval, next: Instant::now(), said: String::new(), stuck: Vec::new() }
    }

    /// Passes the state on, and a sign of life where every stage gets on.
    pub(super) fn look(&mut self, line: &Line) {
        let state = line.state();
        if state != self.said {
            tell(&[NotifyState::Status(&state)]);
            self.said = state;
        }
        let stuck = line.stuck(STUCK);
        if stuck != self.stuck {
            if !stuck.is_empty() {
                tracing::error!(?stuck, "stages are stuck: the service manager gets no sign of life");
            }
            self.stuck = stuck;
        }
        if self.stuck.is_empty() {
            self.alive();
        }
    }

    /// A sign of life, where one is due.
    pub(super) fn alive(&mut self) {
        if let Some(interval) = self.interval
            && Instant::now() >= self.next
        {
            tell(&[NotifyState::Watchdog]);
            self.next = Instant::now() + interval;
        }
    }

    /// Says that the line stops, and goes on with signs of life while `stop` drains.
    pub(super) fn stopping<T>(mut self, stop: impl FnOnce() -> T) -> T {
        tell(&[NotifyState::Stopping]);
        let (done, waiting) = std::sync::mpsc::channel::<()>();
        std::thread::scope(|scope| {
            scope.spawn(move || {
                while waiting
                    .recv_timeout(Duration::from_millis(100))
                    .is_err_and(|error| error == std::sync::mpsc::RecvTimeoutError::Timeout)
                {
                    self.alive();
                }
            });
            let result = stop();
            drop(done);
            result
        })
    }
}

fn tell(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!(%error, "the service manager cannot be told");
    }
}
