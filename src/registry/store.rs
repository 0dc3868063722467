//! The registry folder:
//!
//! ```text
//! versions/VERSION/   a bundle each, never changed once it stands there
//! active              names the active one (bundle::ACTIVE_FILE)
//! history.jsonl       what was activated when, why, and what before
//! lock                held while something is changed
//! ```

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::RegistryError;
use super::error::io;
use crate::bundle::{ACTIVE_FILE, Bundle, read_active};

const VERSIONS: &str = "versions";
const HISTORY: &str = "history.jsonl";
const LOCK: &str = "lock";
/// Largest history that is read, bytes: a hundred thousand activations.
const MAX_HISTORY_BYTES: u64 = 32 << 20;
/// Largest bundle that is added, files.
const MAX_FILES: usize = 100_000;

/// One activation, a line of the history.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Activation {
    /// When, RFC 3339, UTC.
    pub at: String,
    /// What became active.
    pub version: String,
    /// What was active before.
    pub former: Option<String>,
    /// Why.
    pub reason: String,
    /// Whether it went back instead of forward.
    #[serde(default)]
    pub rollback: bool,
}

/// A version as it is listed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Listed {
    /// Version: the name of its folder.
    pub version: String,
    /// Name of the bundle; none where it cannot be read.
    pub name: Option<String>,
    /// When it was trained, RFC 3339.
    pub trained_at: Option<String>,
    /// Whether it is active.
    pub active: bool,
    /// Why it cannot be used; none where it can.
    pub problem: Option<String>,
}

/// A registry of bundles. Readers need no lock: `active` and every version appear by rename.
#[derive(Debug)]
pub struct Registry {
    root: PathBuf,
}

impl Registry {
    /// Opens the registry, making its folders where they do not exist yet.
    ///
    /// # Errors
    /// The folder cannot be made.
    pub fn open(root: &Path) -> Result<Self, RegistryError> {
        let versions = root.join(VERSIONS);
        fs::create_dir_all(&versions).map_err(io(&versions, "create the folder"))?;
        Ok(Self { root: root.to_owned() })
    }

    /// The folder of a version, whether it stands there or not.
    ///
    /// # Errors
    /// The version cannot be the name of a folder.
    pub fn path(&self, version: &str) -> Result<PathBuf, RegistryError> {
        let is_name = !version.is_empty()
            && version.len() <= 128
            && !version.starts_with('.')
            && version.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '+'));
        if is_name {
            Ok(self.root.join(VERSIONS).join(version))
        } else {
            Err(RegistryError::VersionName { version: version.to_owned() })
        }
    }

    /// The active version; none where nothing was activated yet.
    ///
    /// # Errors
    /// The file cannot be read or names something outside the registry.
    pub fn active(&self) -> Result<Option<String>, RegistryError> {
        let path = read_active(&self.root).map_err(|source| RegistryError::Bundle { source })?;
        Ok(path.and_then(|path| Some(path.file_name()?.to_string_lossy().into_owned())))
    }

    /// The active bundle, verified; none where nothing was activated yet.
    ///
    /// # Errors
    /// It cannot be read or is broken.
    pub fn active_bundle(&self) -> Result<Option<Bundle>, RegistryError> {
        let path = read_active(&self.root).map_err(|source| RegistryError::Bundle { source })?;
        path.map(|path| Bundle::open(&path)).transpose().map_err(|source| RegistryError::Bundle { source })
    }

    /// Every version, oldest name first, with what is wrong with it.
    ///
    /// # Errors
    /// The folder cannot be listed.
    pub fn list(&self) -> Result<Vec<Listed>, RegistryError> {
        let folder = self.root.join(VERSIONS);
        let active = self.active()?;
        let mut listed = Vec::new();
        for entry in fs::read_dir(&folder).map_err(io(&folder, "list it"))? {
            let path = entry.map_err(io(&folder, "list it"))?.path();
            let version = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if version.starts_with('.') || !path.is_dir() {
                continue;
            }
            let opened = Bundle::open(&path);
            listed.push(Listed {
                active: active.as_ref() == Some(&version),
                version,
                name: opened.as_ref().ok().map(|bundle| bundle.manifest.name.clone()),
                trained_at: opened.as_ref().ok().map(|bundle| bundle.manifest.provenance.trained_at.clone()),
                problem: opened.err().map(|error| error.to_string()),
            });
        }
        listed.sort_by(|a, b| a.version.cmp(&b.version));
        Ok(listed)
    }

    /// The activations so far, oldest first.
    ///
    /// # Errors
    /// The history cannot be read. A last line torn by a power cut is left out.
    pub fn history(&self) -> Result<Vec<Activation>, RegistryError> {
        let file = self.root.join(HISTORY);
        let length = match fs::metadata(&file) {
            Ok(metadata) => metadata.len(),
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(source) => return Err(io(&file, "read it")(source)),
        };
        if length > MAX_HISTORY_BYTES {
            return Err(RegistryError::HistoryTooLong { path: file, bytes: length, limit: MAX_HISTORY_BYTES });
        }
        let text = fs::read_to_string(&file).map_err(io(&file, "read it"))?;
        let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
        let mut history = Vec::new();
        for (index, line) in lines.iter().enumerate() {
            match serde_json::from_str(line) {
                Ok(activation) => history.push(activation),
                Err(_) if index + 1 == lines.len() && !text.ends_with('\n') => {}
                Err(source) => return Err(RegistryError::History { path: file, line: index + 1, source }),
            }
        }
        Ok(history)
    }

    /// Copies a bundle in and returns its version. The same bundle twice is one version; another
    /// one under the same version is refused.
    ///
    /// # Errors
    /// The bundle is broken, the version is taken, another program changes the registry, or a file
    /// operation failed.
    pub fn add(&self, bundle: &Path) -> Result<String, RegistryError> {
        let open = |path: &Path| Bundle::open(path).map_err(|source| RegistryError::Bundle { source });
        let source = open(bundle)?;
        let version = source.identity.version.clone();
        let target = self.path(&version)?;
        let _lock = self.lock()?;
        if target.exists() {
            return match open(&target) {
                Ok(there) if there.identity == source.identity => Ok(version),
                _ => Err(RegistryError::VersionTaken { version, path: target }),
            };
        }
        let versions = self.root.join(VERSIONS);
        let staging = tempfile::Builder::new()
            .prefix(".adding-")
            .tempdir_in(&versions)
            .map_err(io(&versions, "write into the folder"))?;
        let mut files = 0;
        copy_tree(&source.path, staging.path(), &mut files)?;
        // What was copied is what counts: a disk that lies is found here, not on the line.
        let copied = open(staging.path())?;
        if copied.identity != source.identity {
            return Err(RegistryError::VersionTaken { version, path: target });
        }
        let staged = staging.keep();
        if let Err(error) = fs::rename(&staged, &target) {
            // Best effort: the error that matters is the one reported.
            let _ = fs::remove_dir_all(&staged);
            return Err(io(&target, "put it in place")(error));
        }
        sync(&versions)?;
        Ok(version)
    }

    /// Makes a version active after verifying its bundle, and notes it in the history. A running
    /// line takes it over between two batches.
    ///
    /// # Errors
    /// The version is not there or broken, another program changes the registry, or a file
    /// operation failed; the former version stays active then.
    pub fn activate(&self, version: &str, reason: &str) -> Result<Activation, RegistryError> {
        let _lock = self.lock()?;
        self.switch(version, reason, false)
    }

    /// Makes the version active that was active before the present one. Twice goes back twice.
    ///
    /// # Errors
    /// There was none, it is gone or broken, or as in [`Registry::activate`].
    pub fn rollback(&self) -> Result<Activation, RegistryError> {
        let _lock = self.lock()?;
        let active = self.active()?;
        let history = self.history()?;
        // How the present one came to be active going forward: else two rollbacks would swap.
        let is_it = |activation: &&Activation| Some(&activation.version) == active.as_ref() && !activation.rollback;
        let last = history.iter().rev().find(is_it);
        match (active, last.and_then(|activation| activation.former.clone())) {
            (Some(active), Some(former)) => self.switch(&former, &format!("rollback from {active}"), true),
            (active, _) => Err(RegistryError::NoFormer { active }),
        }
    }

    fn switch(&self, version: &str, reason: &str, rollback: bool) -> Result<Activation, RegistryError> {
        let path = self.path(version)?;
        if !path.is_dir() {
            return Err(RegistryError::UnknownVersion { version: version.to_owned(), root: self.root.clone() });
        }
        let bundle = Bundle::open(&path).map_err(|source| RegistryError::Bundle { source })?;
        if bundle.identity.version != version {
            return Err(RegistryError::VersionTaken { version: version.to_owned(), path });
        }
        let activation = Activation {
            at: jiff::Timestamp::now().to_string(),
            version: version.to_owned(),
            former: self.active()?.filter(|former| former != version),
            reason: reason.to_owned(),
            rollback,
        };
        // The history first: a crash between the two leaves a note of an activation that did not
        // happen, which rollback passes over, but never an active model that nobody noted.
        self.note(&activation)?;
        let active = self.root.join(ACTIVE_FILE);
        let mut staged = tempfile::Builder::new()
            .prefix(".active-")
            .tempfile_in(&self.root)
            .map_err(io(&self.root, "write into the folder"))?;
        writeln!(staged, "{VERSIONS}/{version}")
            .and_then(|()| staged.as_file().sync_all())
            .map_err(io(&active, "write it"))?;
        readable_by_the_line(staged.as_file()).map_err(io(&active, "make it readable"))?;
        staged.persist(&active).map_err(|error| io(&active, "put it in place")(error.error))?;
        sync(&self.root)?;
        Ok(activation)
    }

    fn note(&self, activation: &Activation) -> Result<(), RegistryError> {
        let path = self.root.join(HISTORY);
        let line = serde_json::to_string(activation).map_err(|source| RegistryError::History {
            path: path.clone(),
            line: 0,
            source,
        })?;
        let mut file = OpenOptions::new()
            .create(true)
            .read(true)
            .append(true)
            .open(&path)
            .map_err(io(&path, "open it for writing"))?;
        let mut there = Vec::new();
        (&file).take(MAX_HISTORY_BYTES).read_to_end(&mut there).map_err(io(&path, "read it"))?;
        // What a power cut left of a last line is no activation: the next line must not follow it.
        if there.last().is_some_and(|byte| *byte != b'\n') {
            let whole = there.iter().rposition(|byte| *byte == b'\n').map_or(0, |newline| newline + 1);
            file.set_len(whole as u64).map_err(io(&path, "cut off a torn line"))?;
        }
        file.write_all(format!("{line}\n").as_bytes()).and_then(|()| file.sync_all()).map_err(io(&path, "write it"))
    }

    /// Holds the registry against other programs until it is dropped.
    fn lock(&self) -> Result<File, RegistryError> {
        let path = self.root.join(LOCK);
        let file =
            OpenOptions::new().create(true).append(true).open(&path).map_err(io(&path, "open it for writing"))?;
        match file.try_lock() {
            Ok(()) => Ok(file),
            Err(fs::TryLockError::WouldBlock) => Err(RegistryError::Locked { path }),
            Err(fs::TryLockError::Error(source)) => Err(io(&path, "lock it")(source)),
        }
    }
}

/// Temporary files are for their owner alone; the line may run as another user.
fn readable_by_the_line(file: &File) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    file.set_permissions(fs::Permissions::from_mode(0o644))
}

fn sync(folder: &Path) -> Result<(), RegistryError> {
    File::open(folder).and_then(|file| file.sync_all()).map_err(io(folder, "sync it"))
}

fn copy_tree(from: &Path, to: &Path, files: &mut usize) -> Result<(), RegistryError> {
    for entry in fs::read_dir(from).map_err(io(from, "list it"))? {
        let path = entry.map_err(io(from, "list it"))?.path();
        let target = to.join(path.file_name().unwrap_or_default());
        *files += 1;
        if *files > MAX_FILES {
            return Err(RegistryError::TooManyFiles { path: from.to_owned(), limit: MAX_FILES });
        }
        if path.is_dir() {
            fs::create_dir(&target).map_err(io(&target, "create the folder"))?;
            copy_tree(&path, &target, files)?;
            sync(&target)?;
        } else {
            fs::copy(&path, &target).map_err(io(&path, "copy it"))?;
            File::open(&target).and_then(|file| file.sync_all()).map_err(io(&target, "sync it"))?;
        }
    }
    sync(to)
}
