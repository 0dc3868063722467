//! What can go wrong in a registry.

use std::path::{Path, PathBuf};

use crate::bundle::BundleError;

/// Why the registry could not be read or changed. Whatever it says, the active version is the one
/// that was active before.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// A file operation failed.
    #[error("registry {path}: cannot {action}")]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// Cause.
        source: std::io::Error,
    },
    /// A bundle cannot be used.
    #[error("the registry takes only bundles that are whole")]
    Bundle {
        /// Cause.
        source: BundleError,
    },
    /// A version that cannot be the name of a folder.
    #[error("`{version}` cannot be a version: letters, digits, `-`, `_`, `.` and `+`, 1 to 128 characters")]
    VersionName {
        /// The version.
        version: String,
    },
    /// A version that is not there.
    #[error("the registry {root} has no version {version}; `linegate models list` shows what it has")]
    UnknownVersion {
        /// The version.
        version: String,
        /// The registry.
        root: PathBuf,
    },
    /// Another bundle stands under this version.
    #[error("{path} holds another bundle than version {version}: remove the folder if it is broken, or train again")]
    VersionTaken {
        /// The version.
        version: String,
        /// Its folder.
        path: PathBuf,
    },
    /// There is nothing to roll back to.
    #[error("nothing was active before {}: there is nothing to roll back to", active.as_deref().unwrap_or("the first activation"))]
    NoFormer {
        /// What is active.
        active: Option<String>,
    },
    /// Another program changes the registry.
    #[error("another program is changing the registry (it holds {path}): try again when it is done")]
    Locked {
        /// The lock.
        path: PathBuf,
    },
    /// The history has a line that cannot be read.
    #[error("{path}, line {line}, is not an activation: remove the line")]
    History {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// Cause.
        source: serde_json::Error,
    },
    /// The history is longer than any history.
    #[error("{path} has {bytes} bytes, the limit is {limit}: move it away to begin a new one")]
    HistoryTooLong {
        /// The file.
        path: PathBuf,
        /// Its length.
        bytes: u64,
        /// The limit.
        limit: u64,
    },
    /// A bundle with more files than any bundle.
    #[error("{path} has more than {limit} files: is it a bundle?")]
    TooManyFiles {
        /// The folder.
        path: PathBuf,
        /// The limit.
        limit: usize,
    },
}

/// Turns the error of a file operation into ours.
pub(super) fn io(path: &Path, action: &'static str) -> impl FnOnce(std::io::Error) -> RegistryError {
    let path = path.to_owned();
    move |source| RegistryError::Io { path, action, source }
}
