//! Rejects, suspects and uninspected frames on disk, and a sample of accepts: full frame, map and
//! record, under a quota.
//!
//! ```text
//! YYYY-MM-DD/                   UTC day of the decision
//!     RESULT_ID.png             full frame, as the camera gave it
//!     RESULT_ID.map.png         anomaly map in colours
//!     RESULT_ID.map.npy         the same as numbers: float32 [row, column], calibrated units
//!     RESULT_ID.json            the decision
//! ```
//!
//! Every file is written under a temporary name and renamed, the record last: a frame with a
//! record is complete.

mod inventory;
mod room;
mod write;

use std::io;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::config;
use crate::inspection::{AnomalyMap, Decision, Picture, PngError, Verdict};
use inventory::{Inventory, Kept};
pub use room::Room;

/// Why the archive could not take a frame.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// The folder cannot be used.
    #[error("archive folder {directory} cannot be used: check that it is a folder and may be written")]
    Directory {
        /// The folder.
        directory: PathBuf,
        /// What the operating system says.
        source: io::Error,
    },
    /// A file could not be written.
    #[error("{file} could not be written to the archive: check the space and the rights on its disk")]
    Write {
        /// The file.
        file: PathBuf,
        /// What the operating system says.
        source: io::Error,
    },
    /// A file could not be removed to keep the quota.
    #[error("{file} could not be removed from the archive to keep its quota: check the rights on its folder")]
    Remove {
        /// The file.
        file: PathBuf,
        /// What the operating system says.
        source: io::Error,
    },
    /// A picture could not be encoded.
    #[error("decision {result_id} could not be archived")]
    Encode {
        /// Its identity.
        result_id: String,
        /// Why.
        source: PngError,
    },
    /// The record could not be turned into JSON.
    #[error("decision {result_id} cannot be written as JSON")]
    Record {
        /// Its identity.
        result_id: String,
        /// Why.
        source: serde_json::Error,
    },
    /// The decision's identity or time is no name for a file.
    #[error("decision `{result_id}` at {decided_us} us cannot be archived: a ULID and a time after 1970 are needed")]
    Name {
        /// Its identity.
        result_id: String,
        /// Its time.
        decided_us: i64,
    },
}

/// What the archive has done since it was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ArchiveCounters {
    /// Frames stored.
    pub stored: u64,
    /// Frames that could not be stored.
    pub failed: u64,
    /// Frames removed to keep the quota.
    pub removed: u64,
    /// Frames in the folder.
    pub frames: u64,
    /// Bytes in the folder.
    pub bytes: u64,
}

/// The archive folder under its quota.
#[derive(Debug)]
pub struct Archive {
    directory: PathBuf,
    quota_bytes: u64,
    accept_sample: f64,
    inventory: Inventory,
    counters: ArchiveCounters,
}

impl Archive {
    /// Opens or creates the folder and counts what it holds. What a dying process left half
    /// written is removed.
    ///
    /// # Errors
    /// The folder cannot be created or written.
    pub fn open(config: &config::Archive) -> Result<Self, ArchiveError> {
        let directory = config.directory.clone();
        let inventory = std::fs::create_dir_all(&directory)
            .and_then(|()| write::probe(&directory))
            .and_then(|()| Inventory::take(&directory))
            .map_err(|source| ArchiveError::Directory { directory: directory.clone(), source })?;
        tracing::info!(
            directory = %directory.display(), frames = inventory.frames(), bytes = inventory.bytes(), "archive opened"
        );
        Ok(Self {
            directory,
            quota_bytes: config.quota_mib.saturating_mul(1024 * 1024),
            accept_sample: config.accept_sample,
            inventory,
            counters: ArchiveCounters::default(),
        })
    }

    /// The folder.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// What was done so far, and what the folder holds.
    pub fn counters(&self) -> ArchiveCounters {
        ArchiveCounters { frames: self.inventory.frames(), bytes: self.inventory.bytes(), ..self.counters }
    }

    /// Names under which the frame of this decision will be kept, so that the decision can refer
    /// to them before they are written: (image, heatmap) relative to the folder; none where the
    /// decision is not to be kept (an accept outside the sample). Without a map there will be no
    /// heatmap: leave that reference out then.
    pub fn references(&self, decision: &Decision) -> Option<(String, String)> {
        if decision.verdict == Verdict::Accept && !sampled(&decision.result_id, self.accept_sample) {
            return None;
        }
        let stem = stem(decision)?;
        Some((format!("{stem}.png"), format!("{stem}.map.png")))
    }

    /// Writes full frame, map and record, then keeps the quota. Called from a thread of its own.
    /// A decision that [`Archive::references`] does not keep is passed over.
    ///
    /// # Errors
    /// The disk is full or not writable; nothing of the frame remains, and the line goes on.
    pub fn store(
        &mut self,
        decision: &Decision,
        frame: &Picture,
        map: Option<&AnomalyMap>,
    ) -> Result<(), ArchiveError> {
        let result = self.try_store(decision, frame, map);
        if let Err(error) = &result {
            self.counters.failed += 1;
            tracing::error!(
                %error, result_id = decision.result_id, failed = self.counters.failed, "frame could not be archived"
            );
        }
        result
    }

    fn try_store(
        &mut self,
        decision: &Decision,
        frame: &Picture,
        map: Option<&AnomalyMap>,
    ) -> Result<(), ArchiveError> {
        let stem = stem(decision).ok_or_else(|| ArchiveError::Name {
            result_id: decision.result_id.clone(),
            decided_us: decision.decided_us,
        })?;
        if self.references(decision).is_none() {
            return Ok(());
        }
        let bytes = write::frame(&self.directory, &stem, decision, frame, map)?;
        self.inventory.add(stem, Kept { accept: decision.verdict == Verdict::Accept, bytes });
        self.counters.stored += 1;
        self.keep_quota()
    }

    /// Removes the oldest accepts, then the oldest of the rest, until the folder fits.
    fn keep_quota(&mut self) -> Result<(), ArchiveError> {
        while self.inventory.bytes() > self.quota_bytes {
            let Some(stem) = self.inventory.first_to_go() else { break };
            for ending in write::ENDINGS {
                let file = self.directory.join(format!("{stem}{ending}"));
                match std::fs::remove_file(&file) {
                    Err(source) if source.kind() != io::ErrorKind::NotFound => {
                        return Err(ArchiveError::Remove { file, source });
                    }
                    _ => {}
                }
            }
            self.inventory.remove(&stem);
            self.counters.removed += 1;
            // An empty day goes, too; one that is not empty stays.
            if let Some((day, _)) = stem.split_once('/') {
                let _ = std::fs::remove_dir(self.directory.join(day));
            }
        }
        Ok(())
    }
}

/// `YYYY-MM-DD/RESULT_ID`; none where the identity is no ULID, which could lead out of the folder,
/// or the time none of our years.
fn stem(decision: &Decision) -> Option<String> {
    let id = &decision.result_id;
    if id.len() != 26 || !id.bytes().all(|byte| byte.is_ascii_alphanumeric()) || decision.decided_us < 0 {
        return None;
    }
    let day = jiff::tz::Offset::UTC.to_datetime(jiff::Timestamp::from_microsecond(decision.decided_us).ok()?).date();
    Some(format!("{day}/{id}"))
}

/// Whether an accept belongs to the sample: by the hash of its identity, so that the same one
/// always does.
fn sampled(result_id: &str, share: f64) -> bool {
    let digest = Sha256::digest(result_id.as_bytes());
    let number = digest.iter().take(8).fold(0u64, |number, &byte| number << 8 | u64::from(byte));
    (number as f64) < share * 2f64.powi(64)
}
