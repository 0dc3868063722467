//! User name, password and TLS for the client. Secrets come from files or the environment only
//! and are never logged.

use std::path::Path;

use rumqttc::tokio_native_tls::native_tls;
use rumqttc::{TlsConfiguration, Transport};
use sha2::{Digest, Sha256};

use super::PublishingError;
use crate::config::{Mqtt, Tls};

/// User name and password.
pub(super) struct Credentials {
    pub(super) username: String,
    pub(super) password: String,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Credentials({})", self.username)
    }
}

/// Reads the credentials; none where no user name is configured.
pub(super) fn read(mqtt: &Mqtt) -> Result<Option<Credentials>, PublishingError> {
    let password = match (&mqtt.password_file, &mqtt.password_environment) {
        (Some(_), Some(_)) => {
            let problem = "mqtt.password_file and mqtt.password_environment are both set: keep one of them";
            return Err(PublishingError::Credentials { problem });
        }
        (Some(file), None) => Some(first_line("the password file (mqtt.password_file)", file)?),
        (None, Some(variable)) => Some(
            std::env::var(variable)
                .map_err(|source| PublishingError::PasswordVariable { variable: variable.clone(), source })?,
        ),
        (None, None) => None,
    };
    match (&mqtt.username, password) {
        (Some(username), password) => {
            Ok(Some(Credentials { username: username.clone(), password: password.unwrap_or_default() }))
        }
        (None, Some(_)) => Err(PublishingError::Credentials {
            problem: "a password is configured without mqtt.username: add the user name",
        }),
        (None, None) => Ok(None),
    }
}

/// The secret that commands must carry, as its SHA-256: nothing here keeps or shows the secret itself.
#[derive(Clone)]
pub(super) struct CommandSecret([u8; 32]);

impl std::fmt::Debug for CommandSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("CommandSecret")
    }
}

impl CommandSecret {
    /// Of a text that is not empty.
    pub(super) fn new(secret: &str) -> Self {
        Self(Sha256::digest(secret).into())
    }

    /// Reads it; none where none is configured.
    pub(super) fn read(mqtt: &Mqtt) -> Result<Option<Self>, PublishingError> {
        let secret = match (&mqtt.command_secret_file, &mqtt.command_secret_environment) {
            (Some(file), _) => first_line("the commands' secret (mqtt.command_secret_file)", file)?,
            (None, Some(variable)) => std::env::var(variable)
                .map_err(|source| PublishingError::SecretVariable { variable: variable.clone(), source })?,
            (None, None) => return Ok(None),
        };
        if secret.is_empty() {
            return Err(PublishingError::Credentials { problem: "the secret for commands is empty: give it one" });
        }
        Ok(Some(Self::new(&secret)))
    }

    /// Whether this is the secret. Digests are compared, so the time tells nothing about it.
    pub(super) fn is(&self, given: &str) -> bool {
        let given: [u8; 32] = Sha256::digest(given).into();
        self.0.iter().zip(given).fold(0, |differing, (a, b)| differing | (a ^ b)) == 0
    }
}

/// The transport: plain TCP, or TLS through the system's library.
pub(super) fn transport(tls: Option<&Tls>) -> Result<Transport, PublishingError> {
    let Some(tls) = tls else { return Ok(Transport::tcp()) };
    let mut builder = native_tls::TlsConnector::builder();
    if let Some(file) = &tls.ca_file {
        let pem = read_file("the certificate authority (mqtt.tls.ca_file)", file)?;
        let certificate = native_tls::Certificate::from_pem(&pem)
            .map_err(|source| PublishingError::Tls { what: "ca_file", source: source.into() })?;
        // Who names an authority trusts that one, not every one that the system trusts, too.
        builder.disable_built_in_roots(true).add_root_certificate(certificate);
    }
    if let Some(file) = &tls.client_pkcs12_file {
        let bytes = read_file("the client certificate (mqtt.tls.client_pkcs12_file)", file)?;
        let password = match &tls.client_password_file {
            Some(file) => first_line("the client certificate's password (mqtt.tls.client_password_file)", file)?,
            None => String::new(),
        };
        let identity = native_tls::Identity::from_pkcs12(&bytes, &password).map_err(|source| PublishingError::Tls {
            what: "client_pkcs12_file with client_password_file",
            source: source.into(),
        })?;
        builder.identity(identity);
    }
    let connector =
        builder.build().map_err(|source| PublishingError::Tls { what: "every file", source: source.into() })?;
    Ok(Transport::tls_with_config(TlsConfiguration::NativeConnector(connector)))
}

/// First line of a file, without its end.
pub(super) fn first_line(what: &'static str, file: &Path) -> Result<String, PublishingError> {
    let text = std::fs::read_to_string(file).map_err(|source| PublishingError::Secret {
        what,
        file: file.to_path_buf(),
        source,
    })?;
    Ok(text.lines().next().unwrap_or_default().to_owned())
}

fn read_file(what: &'static str, file: &Path) -> Result<Vec<u8>, PublishingError> {
    std::fs::read(file).map_err(|source| PublishingError::Secret { what, file: file.to_path_buf(), source })
}
