//! Files + environment + flags -> one checked [`Config`]. Knows names and limits, no library types.
//!
//! A file is parsed, what the environment and the command line say is put over it, and the whole is
//! checked against one table of keys: all problems at once, each where it was written.

mod batching;
mod document;
mod keys;
mod load;
mod model;
mod part;
mod problem;
mod rules;
mod scoring;
mod training;
mod walk;

use std::path::Path;

pub use batching::{Batching, ShedPolicy};
pub use model::{
    Archive, Broker, CameraConfig, Config, Decisions, Durability, Mqtt, Outbox, Policy, Retrain, Station, Tls,
    TriggerMode,
};
pub use part::{PartConfig, PartRule, Presence};
pub use problem::{ConfigError, Problem};
pub use scoring::{ModelConfig, ProviderName};
pub use training::{ImageSize, Numbers, Orientation, Preset, TrainingConfig, parse_image_size};

impl Config {
    /// Reads and checks a configuration file, with what the environment sets
    /// (`LINEGATE__MQTT__KEEP_ALIVE_S=5`). Relative paths become relative to the file's folder.
    ///
    /// # Errors
    /// [`ConfigError`] with every problem.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        Self::load_with(path, &[])
    }

    /// The same with keys set on the command line, which win: pairs of a dotted key
    /// (`mqtt.keep_alive_s`, `camera.0.deadline_ms`) and a value.
    ///
    /// # Errors
    /// [`ConfigError`] with every problem.
    pub fn load_with(path: &Path, overrides: &[(String, String)]) -> Result<Self, ConfigError> {
        // A variable that is not text cannot name one of our keys.
        let variables = std::env::vars_os().filter_map(|(n, v)| Some((n.into_string().ok()?, v.into_string().ok()?)));
        let mut all = load::from_environment(variables);
        all.extend(load::from_flags(overrides));
        load::load(path, &all, keys::LINE, rules::line)
    }
}
