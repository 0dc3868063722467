//! Commands to the station: which there are, how large and how often.

use std::time::Instant;

use super::message::{CommandReply, StateMessage};
use super::now_us;

/// Largest payload of a command, bytes.
pub(super) const MAX_PAYLOAD: usize = 64 * 1024;
/// MQTT 5 user property that carries the secret, where one is asked for.
pub(super) const SECRET_PROPERTY: &str = "secret";
/// Commands a second over a longer time, and at once.
pub(super) const COMMANDS: Rate = Rate { a_second: 10.0, at_once: 20.0 };
/// Triggers likewise: far more than parts come on any line, and a bound on what a client gone wild
/// may cost.
pub(super) const TRIGGERS: Rate = Rate { a_second: 500.0, at_once: 500.0 };

/// What a command may know.
#[derive(Debug)]
pub(super) struct Station<'station> {
    pub(super) boot_id: &'station str,
    pub(super) state: Option<StateMessage>,
}

/// Carries a command out.
pub(super) fn answer(name: &str, payload: &[u8], station: &Station<'_>) -> CommandReply {
    if payload.len() > MAX_PAYLOAD {
        return refuse(name, format!("{} bytes are too many: at most {MAX_PAYLOAD}", payload.len()));
    }
    if let Err(problem) = without_arguments(payload) {
        return refuse(name, problem);
    }
    match name {
        "ping" => done(
            name,
            serde_json::json!({
                "boot_id": station.boot_id, "time_us": now_us(), "version": env!("CARGO_PKG_VERSION")
            }),
        ),
        "state" => match serde_json::to_value(&station.state) {
            Ok(state) => done(name, state),
            Err(error) => refuse(name, error.to_string()),
        },
        _ => refuse(name, "unknown command: there are ping, state and trigger".into()),
    }
}

/// The answer to one that did not carry the secret.
pub(super) fn forbid(name: &str) -> CommandReply {
    refuse(name, format!("not allowed: the user property `{SECRET_PROPERTY}` does not hold this station's secret"))
}

/// Both commands take nothing: no payload, or an object without keys.
fn without_arguments(payload: &[u8]) -> Result<(), String> {
    if payload.is_empty() {
        return Ok(());
    }
    match serde_json::from_slice::<serde_json::Map<String, serde_json::Value>>(payload) {
        Ok(arguments) => match arguments.keys().next() {
            Some(key) => Err(format!("unknown argument `{}`: this command takes none", key.escape_debug())),
            None => Ok(()),
        },
        Err(error) => Err(format!("the payload is no JSON object: {error}")),
    }
}

fn done(name: &str, result: serde_json::Value) -> CommandReply {
    CommandReply { command: name.into(), ok: true, result: Some(result), error: None }
}

pub(super) fn refuse(name: &str, error: String) -> CommandReply {
    // A name is as long as a topic may be; a reply need not repeat all of it.
    CommandReply { command: name.chars().take(64).collect(), ok: false, result: None, error: Some(error) }
}

/// How many may pass.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rate {
    a_second: f64,
    at_once: f64,
}

/// Lets so many through at once and a second over time.
#[derive(Debug)]
pub(super) struct Bucket {
    rate: Rate,
    tokens: f64,
    filled: Instant,
}

impl Bucket {
    pub(super) fn new(rate: Rate, now: Instant) -> Self {
        Self { rate, tokens: rate.at_once, filled: now }
    }

    /// Whether one more may pass at `now`.
    pub(super) fn take(&mut self, now: Instant) -> bool {
        let seconds = now.saturating_duration_since(self.filled).as_secs_f64();
        self.tokens = (self.tokens + seconds * self.rate.a_second).min(self.rate.at_once);
        self.filled = now;
        let pass = self.tokens >= 1.0;
        if pass {
            self.tokens -= 1.0;
        }
        pass
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_flood_of_commands_is_cut_to_the_rate() {
        let start = Instant::now();
        let mut bucket = Bucket::new(COMMANDS, start);
        let passed = (0..1000u32).filter(|n| bucket.take(start + Duration::from_millis(10) * *n)).count();
        // 20 at once and 10 a second for 9.99 seconds.
        assert!((118..=120).contains(&passed), "{passed}");
    }

    proptest::proptest! {
        #[test]
        fn no_command_can_break_the_station(
            name in ".{0,80}", payload in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200)
        ) {
            let reply = answer(&name, &payload, &Station { boot_id: "b", state: None });
            assert!(reply.ok || reply.error.is_some());
        }
    }

    #[test]
    fn unknown_and_oversized_commands_get_an_error() {
        let station = Station { boot_id: "b", state: None };
        assert!(answer("ping", b"", &station).ok);
        assert!(!answer("reboot", b"", &station).ok);
        assert!(!answer("ping", &vec![b'x'; MAX_PAYLOAD + 1], &station).ok);
        assert!(answer("ping", b"{}", &station).ok);
        for wrong in [&b"[1]"[..], b"{", b"\xff\xfe", b"{\"now\": true}", b"null"] {
            let reply = answer("ping", wrong, &station);
            assert!(!reply.ok && reply.error.is_some(), "{wrong:?}");
        }
        let long = answer(&"x".repeat(60_000), b"", &station);
        assert!(!long.ok && long.command.len() == 64);
    }
}
