//! Which bundle of a registry folder is active. Reading only: the registry alone writes it.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::BundleError;

/// File inside a registry folder that names the active bundle: one line, a path relative to the
/// registry folder. Replaced by rename, so that a reader sees the old or the new one.
pub const ACTIVE_FILE: &str = "active";

/// The active bundle of a registry folder; none where nothing was activated yet.
///
/// # Errors
/// The file cannot be read or names a place outside the registry.
pub fn read_active(registry: &Path) -> Result<Option<PathBuf>, BundleError> {
    let file = registry.join(ACTIVE_FILE);
    let text = match std::fs::read_to_string(&file) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(BundleError::Io { path: file, action: "read it", source }),
    };
    let name = Path::new(text.trim());
    if name.as_os_str().is_empty() || name.components().any(|part| !matches!(part, std::path::Component::Normal(_))) {
        return Err(BundleError::Inconsistent {
            path: file,
            problem: format!("it names {}, which is not inside the registry", name.display()),
        });
    }
    Ok(Some(registry.join(name)))
}
