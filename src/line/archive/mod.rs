//! Rejects and suspects on disk, full frame with map and record.

use std::path::Path;

use crate::config;
use crate::inspection::{AnomalyMap, Decision, Picture};

/// Why the archive could not take a frame.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {}

/// The archive folder under its quota.
#[derive(Debug)]
pub struct Archive {}

impl Archive {
    /// Opens or creates the folder and counts what it holds.
    ///
    /// # Errors
    /// The folder cannot be created or written.
    pub fn open(config: &config::Archive) -> Result<Self, ArchiveError> {
        let _ = config;
        unimplemented!()
    }

    /// The folder.
    pub fn directory(&self) -> &Path {
        unimplemented!()
    }

    /// Names under which the frame of this decision will be kept, so that the decision can refer
    /// to them before they are written: (image, heatmap) relative to the folder; none where the
    /// decision is not to be kept (an accept outside the sample).
    pub fn references(&self, decision: &Decision) -> Option<(String, String)> {
        let _ = decision;
        unimplemented!()
    }

    /// Writes full frame, map and record, then keeps the quota. Called from a thread of its own.
    ///
    /// # Errors
    /// The disk is full or not writable; the line goes on.
    pub fn store(
        &mut self,
        decision: &Decision,
        frame: &Picture,
        map: Option<&AnomalyMap>,
    ) -> Result<(), ArchiveError> {
        let _ = (decision, frame, map);
        unimplemented!()
    }
}
