//! The publishing thread: one connection after the other, with a pause between.

use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rumqttc::v5::mqttbytes::v5::DisconnectReasonCode;
use rumqttc::v5::{ConnectionError, MqttOptions, StateError};

use super::session::{self, End, Speaker};
use super::shared::Order;
use crate::line::prompt::take_short_turns;

/// First pause after a failure.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// Longest pause, before the jitter.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// A connection that held so long was a good one: the pauses begin anew.
const GOOD_CONNECTION: Duration = Duration::from_secs(5);
/// The same failure is reported again after so long.
const REPORT_AGAIN: Duration = Duration::from_secs(60);

/// Pauses between attempts: doubling, bounded, with up to a quarter added at random so that many
/// stations do not come back to a broker at the same moment.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    failures: u32,
}

impl Backoff {
    pub(super) fn reset(&mut self) {
        self.failures = 0;
    }

    /// The next pause; `random` is in 0..1.
    pub(super) fn next(&mut self, random: f64) -> Duration {
        let pause = FIRST_PAUSE.saturating_mul(1 << self.failures.min(16)).min(LONGEST_PAUSE);
        self.failures = self.failures.saturating_add(1);
        pause.mul_f64(1.0 + 0.25 * random.clamp(0.0, 1.0))
    }
}

/// Starts the thread.
pub(super) fn start(options: MqttOptions, speaker: Speaker) -> std::io::Result<JoinHandle<()>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::Builder::new().name("publishing".into()).spawn(move || {
        take_short_turns();
        runtime.block_on(run(&options, speaker));
        // A name look-up still under way must not hold the stop up.
        runtime.shutdown_background();
    })
}

async fn run(options: &MqttOptions, mut speaker: Speaker) {
    let mut backoff = Backoff::default();
    let mut reports = Reports::default();
    loop {
        let (end, connected_at) = session::run(&mut speaker, options.clone()).await;
        speaker.shared.set_connected(false);
        let error = match end {
            End::Stopped | End::Aborted => return,
            End::Lost(error) => error,
        };
        reports.report(&error, connected_at.is_some());
        if connected_at.is_some_and(|at| at.elapsed() > GOOD_CONNECTION) {
            backoff.reset();
        }
        if !pause(&speaker, backoff.next(rand::random())).await {
            return;
        }
    }
}

/// Waits; `false` when the thread shall end instead of trying again.
async fn pause(speaker: &Speaker, pause: Duration) -> bool {
    let until = Instant::now() + pause;
    loop {
        speaker.shared.turn();
        let now = Instant::now();
        let wake_at = match speaker.shared.current_order() {
            Order::Abort => return false,
            Order::Stop { until: deadline } => {
                if now >= deadline || !speaker.has_decisions() {
                    speaker.lose_unstored();
                    return false;
                }
                until.min(deadline)
            }
            Order::Run => until,
        };
        if now >= until {
            return true;
        }
        tokio::select! {
            () = tokio::time::sleep_until(wake_at.into()) => {}
            () = speaker.shared.wake.notified() => {}
        }
    }
}

/// Says each failure once, and again after a while.
#[derive(Debug, Default)]
struct Reports {
    last: Option<(String, Instant)>,
}

impl Reports {
    fn report(&mut self, error: &ConnectionError, was_connected: bool) {
        let text = error.to_string();
        let fresh = self.last.as_ref().is_none_or(|(last, at)| *last != text || at.elapsed() > REPORT_AGAIN);
        if was_connected || fresh {
            match error {
                ConnectionError::ConnectionRefused(code) => {
                    tracing::error!(?code, "broker refused the connection; trying again");
                }
                ConnectionError::MqttState(StateError::ServerDisconnect {
                    reason_code: DisconnectReasonCode::SessionTakenOver,
                    ..
                }) => tracing::error!(
                    "another client took over our client id: give every station its own `mqtt.client_id`"
                ),
                _ if was_connected => {
                    tracing::warn!(%error, "broker connection lost; decisions wait in the outbox");
                }
                _ => tracing::warn!(%error, "broker cannot be reached; decisions wait in the outbox"),
            }
            self.last = Some((text, Instant::now()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_their_bound() {
        let mut backoff = Backoff::default();
        let pauses: Vec<u128> = (0..8).map(|_| backoff.next(0.0).as_millis()).collect();
        assert_eq!(pauses, [100, 200, 400, 800, 1600, 3200, 5000, 5000]);
        assert_eq!(backoff.next(1.0).as_millis(), 6250);
        backoff.reset();
        assert_eq!(backoff.next(0.0).as_millis(), 100);
    }
}
