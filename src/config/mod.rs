//! Files + environment + flags -> one checked [`Config`]. Knows names and limits, no library types.

mod model;

pub use model::{
    Archive, Batching, Broker, CameraConfig, Config, Decisions, ModelConfig, Mqtt, Outbox, Policy, ProviderName,
    Retrain, Station, Tls,
};

/// Problems of a configuration, all of them.
#[derive(Debug, thiserror::Error)]
#[error("{text}")]
pub struct ConfigError {
    /// One paragraph per problem, with file, line and caret.
    pub text: String,
}
