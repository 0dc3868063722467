//! Log events and their set-up, and a count of allocations. Events go to stderr; stdout is for results.

mod allocations;

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;

pub use allocations::{CountingAllocator, allocations};

/// Environment variable with the log level or filter; a flag wins over it.
pub const LOG_VARIABLE: &str = "LINEGATE_LOG";
/// Level of our own events where nothing is asked for.
const DEFAULT_LEVEL: &str = "info";

/// Why logging could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The level or filter cannot be understood.
    #[error("`{filter}` is no log level or filter: use error, warn, info, debug, trace or MODULE=LEVEL")]
    Filter {
        /// What was asked for.
        filter: String,
        /// Cause.
        source: ParseError,
    },
    /// Something else in the process logs already.
    #[error("logging is already set up in this process")]
    AlreadySet {
        /// Cause.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// Starts logging to stderr, as text or as one JSON object a line. `level` is a level for our own
/// events or a whole filter; without it [`LOG_VARIABLE`] counts, then `info`.
///
/// # Errors
/// The filter cannot be understood, or logging was set up before.
pub fn init(json: bool, level: Option<&str>) -> Result<(), TelemetryError> {
    let asked = level.map(str::to_owned).or_else(|| std::env::var(LOG_VARIABLE).ok().filter(|text| !text.is_empty()));
    let filter = filter(asked.as_deref().unwrap_or(DEFAULT_LEVEL))?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    let started = if json { builder.json().flatten_event(true).try_init() } else { builder.try_init() };
    started.map_err(|source| TelemetryError::AlreadySet { source })
}

/// A level alone is meant for our own events: libraries stay at `warn`.
fn filter(asked: &str) -> Result<EnvFilter, TelemetryError> {
    let is_level = asked.parse::<tracing::level_filters::LevelFilter>().is_ok();
    let text = if is_level { format!("warn,linegate={asked}") } else { asked.to_owned() };
    EnvFilter::try_new(text).map_err(|source| TelemetryError::Filter { filter: asked.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_is_meant_for_our_own_events_and_a_filter_is_taken_as_it_is() {
        assert_eq!(filter("debug").unwrap().to_string(), "linegate=debug,warn");
        assert_eq!(filter("linegate::line=trace").unwrap().to_string(), "linegate::line=trace");
    }

    #[test]
    fn a_filter_that_means_nothing_is_refused() {
        assert!(matches!(filter("linegate=loud"), Err(TelemetryError::Filter { .. })));
    }
}
