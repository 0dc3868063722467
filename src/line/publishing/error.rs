//! What can go wrong in this room.

use std::path::PathBuf;

use crate::line::outbox::OutboxError;

/// Why publishing could not do its work.
#[derive(Debug, thiserror::Error)]
pub enum PublishingError {
    /// The embedded broker's address is not one.
    #[error("mqtt.broker.listen is `{listen}`: an IP address and port such as 127.0.0.1:1883 is needed")]
    ListenAddress {
        /// As configured.
        listen: String,
        /// Why it cannot be read.
        source: std::net::AddrParseError,
    },
    /// The embedded broker cannot listen.
    #[error(
        "the embedded broker cannot listen on {listen}: stop what uses the port, choose another `mqtt.broker.listen`, \
         or use the broker that runs there with `kind = \"external\"`"
    )]
    Listen {
        /// The address.
        listen: std::net::SocketAddr,
        /// What the operating system says.
        source: std::io::Error,
    },
    /// The embedded broker did not come up.
    #[error("the embedded broker on {listen} did not answer within {seconds} s: see the log")]
    BrokerSilent {
        /// The address.
        listen: std::net::SocketAddr,
        /// How long it was given.
        seconds: u64,
    },
    /// TLS was asked for with the embedded broker.
    #[error("mqtt.tls is for an external broker: the embedded one speaks plain MQTT on loopback; remove `mqtt.tls`")]
    EmbeddedTls,
    /// A file with a password or certificate cannot be read.
    #[error("{what} {file} cannot be read: check that it exists and that this user may read it")]
    Secret {
        /// What the file holds.
        what: &'static str,
        /// The file.
        file: PathBuf,
        /// What the operating system says.
        source: std::io::Error,
    },
    /// The environment variable with the password is not set.
    #[error("environment variable {variable} (mqtt.password_environment) is not set or not text")]
    PasswordVariable {
        /// Its name.
        variable: String,
        /// Why it cannot be read.
        source: std::env::VarError,
    },
    /// The environment variable with the commands' secret is not set.
    #[error("environment variable {variable} (mqtt.command_secret_environment) is not set or not text")]
    SecretVariable {
        /// Its name.
        variable: String,
        /// Why it cannot be read.
        source: std::env::VarError,
    },
    /// Both or the wrong one of the credentials were given.
    #[error("{problem}")]
    Credentials {
        /// What is wrong and what to do.
        problem: &'static str,
    },
    /// Certificates or keys are not usable.
    #[error("the TLS settings (mqtt.tls) cannot be used: check that {what} is what its name says")]
    Tls {
        /// The setting.
        what: &'static str,
        /// What the TLS library says.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A thread could not be started.
    #[error("the publishing thread cannot be started: check the limits on threads and memory")]
    Thread {
        /// What the operating system says.
        source: std::io::Error,
    },
    /// The outbox did not take a decision; it is published without this safety.
    #[error("decision {result_id} does not stand in the outbox: it is lost if the broker does not get it now")]
    NotStored {
        /// Its identity.
        result_id: String,
        /// Why.
        source: OutboxError,
    },
}
