//! Decisions on disk until the broker has acknowledged them. The only room with the queue database.

use std::path::Path;

/// Why the outbox could not do its work.
#[derive(Debug, thiserror::Error)]
pub enum OutboxError {}

/// The queue of unacknowledged decisions; cheap to clone, shared between threads.
#[derive(Debug, Clone)]
pub struct Outbox {}

impl Outbox {
    /// Opens or creates the queue; a torn or foreign file is set aside under another name and
    /// reported in the log.
    ///
    /// # Errors
    /// The file can neither be opened nor set aside.
    pub fn open(file: &Path, max_decisions: u64) -> Result<Self, OutboxError> {
        let _ = (file, max_decisions);
        unimplemented!()
    }
}
