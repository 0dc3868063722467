//! Decisions on disk until the broker has acknowledged them. The only room with the queue database.
//!
//! One file in SQLite's WAL mode, one writer thread, group commit: [`Outbox::append`] returns when
//! the transaction that holds the decision has been committed. What is committed survives the death
//! of the process at any moment. With `durability = "process"` (SQLite's `synchronous = NORMAL`) the
//! file is whole after a power cut, but what was committed since the last checkpoint may be missing;
//! with `"power"` (`FULL`) every commit waits for the disk.

mod checkpoint;
mod store;
mod writer;

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rusqlite::Connection;

use crate::config;
use crate::inspection::{Decision, Verdict};
pub use writer::Appending;
use writer::{Command, Gauges, Writer};

/// Why the outbox could not do its work.
#[derive(Debug, thiserror::Error)]
pub enum OutboxError {
    /// Another process, or another handle of this one, has the queue open.
    #[error("outbox {file} is in use by another process: give every line an `outbox.file` of its own")]
    InUse {
        /// The queue's file.
        file: PathBuf,
    },
    /// The file or its folder could not be made, opened or set aside.
    #[error("outbox {file} cannot be opened: check that its folder exists, is writable and has space")]
    Open {
        /// The queue's file.
        file: PathBuf,
        /// What the operating system says.
        source: std::io::Error,
    },
    /// The database could not be opened.
    #[error("outbox {file} cannot be opened as a database: check that its folder is writable and has space")]
    Database {
        /// The queue's file.
        file: PathBuf,
        /// What the database says.
        source: rusqlite::Error,
    },
    /// A write was not committed.
    #[error("a decision could not be written to the outbox: check the space on its disk")]
    Write {
        /// What the database says; shared by all decisions of the same commit.
        source: Arc<rusqlite::Error>,
    },
    /// Reading failed.
    #[error("the outbox could not be read: check its disk")]
    Read {
        /// What the database says.
        source: rusqlite::Error,
    },
    /// A decision could not be turned into JSON.
    #[error("decision {result_id} cannot be written as JSON")]
    Encode {
        /// Its identity.
        result_id: String,
        /// Why.
        source: serde_json::Error,
    },
    /// The writer thread is gone.
    #[error("the outbox writer has stopped: restart the line")]
    Stopped,
}

/// A decision in the queue.
#[derive(Debug, Clone, PartialEq)]
pub struct Waiting {
    /// Its place in the queue: ascending in the order of appending, never used twice.
    pub row: i64,
    /// The decision as it was appended.
    pub decision: Decision,
}

/// The queue's lock, held until it is dropped. Unlocked by name: closing alone would leave it to a
/// child process that was forked in between and has not started its program yet.
#[derive(Debug)]
struct Held(File);

impl Drop for Held {
    fn drop(&mut self) {
        if let Err(error) = self.0.unlock() {
            tracing::warn!(%error, "the outbox's lock was not given back");
        }
    }
}

/// The queue of unacknowledged decisions; cheap to clone, shared between threads. The file is
/// released when the last clone is dropped.
#[derive(Debug, Clone)]
pub struct Outbox {
    // Order matters at drop: the writer ends before the lock is released.
    writer: Arc<Writer>,
    reader: Arc<Mutex<Connection>>,
    _lock: Arc<Held>,
}

impl Outbox {
    /// Opens or creates the queue, bounded by a number of decisions, otherwise with the defaults of
    /// [`config::Outbox`].
    ///
    /// # Errors
    /// As in [`Outbox::open_with`].
    pub fn open(file: &Path, max_decisions: u64) -> Result<Self, OutboxError> {
        Self::open_with(&config::Outbox { file: file.to_path_buf(), max_decisions, ..config::Outbox::default() })
    }

    /// Opens or creates the queue; a torn or foreign file is set aside as `FILE.corrupt-SECONDS`
    /// and reported in the log and by [`Outbox::set_aside`], and a fresh queue is made; so is one
    /// that turns out to be damaged later. Holds at most `max_decisions` (beyond, the oldest accepts
    /// expire first, rejects last), none older than `max_age_h`.
    ///
    /// # Errors
    /// [`OutboxError::InUse`] when the queue is open elsewhere; [`OutboxError::Open`] and
    /// [`OutboxError::Database`] when the file can neither be opened nor set aside.
    pub fn open_with(config: &config::Outbox) -> Result<Self, OutboxError> {
        let file = config.file.as_path();
        let io_error = |source| OutboxError::Open { file: file.to_path_buf(), source };
        if let Some(parent) = file.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            std::fs::create_dir_all(parent).map_err(io_error)?;
        }
        let lock = File::create(store::beside(file, ".lock")).map_err(io_error)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(OutboxError::InUse { file: file.to_path_buf() }),
            Err(TryLockError::Error(source)) => return Err(io_error(source)),
        }
        let store = store::Store::open(config)?;
        let reader =
            store::open_reader(file).map_err(|source| OutboxError::Database { file: file.to_path_buf(), source })?;
        let reader = Arc::new(Mutex::new(reader));
        let writer = Writer::start(store, Arc::clone(&reader)).map_err(io_error)?;
        Ok(Self { writer: Arc::new(writer), reader, _lock: Arc::new(Held(lock)) })
    }

    /// Appends a decision and returns its row once it is committed. Calls from several threads
    /// share a commit.
    ///
    /// # Errors
    /// The decision was not committed: the disk is full or broken.
    pub fn append(&self, decision: &Decision) -> Result<i64, OutboxError> {
        self.begin_append(decision)?.wait()
    }

    /// Gives a decision its place in the queue without waiting for the commit, so that several of
    /// one thread can share one.
    ///
    /// # Errors
    /// The writer thread is gone.
    pub fn begin_append(&self, decision: &Decision) -> Result<Appending, OutboxError> {
        let payload = serde_json::to_vec(decision)
            .map_err(|source| OutboxError::Encode { result_id: decision.result_id.clone(), source })?;
        self.writer.append(worth(decision.verdict), payload)
    }

    /// Removes acknowledged decisions. Returns at once; rows that are no longer there are passed
    /// over.
    ///
    /// # Errors
    /// The writer thread is gone.
    pub fn remove(&self, rows: Vec<i64>) -> Result<(), OutboxError> {
        self.writer.send(Command::Remove(rows))
    }

    /// Waits until everything handed over so far is committed.
    ///
    /// # Errors
    /// The writer thread is gone.
    pub fn settle(&self) -> Result<(), OutboxError> {
        self.writer.settle()
    }

    /// Up to `limit` decisions with rows above `after`, oldest first. One that cannot be read
    /// (written by another version of the program) is moved to the table `unreadable` of the same
    /// file, where a person can find it, and reported in the log.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn page(&self, after: i64, limit: usize) -> Result<Vec<Waiting>, OutboxError> {
        let rows = {
            let reader = self.reader.lock().unwrap_or_else(PoisonError::into_inner);
            store::page(&reader, after, limit)
        };
        let rows = match rows {
            Ok(rows) => rows,
            Err(source) => {
                if store::is_damage(&source) {
                    self.writer.send(Command::Examine)?;
                }
                return Err(OutboxError::Read { source });
            }
        };
        let mut waiting = Vec::with_capacity(rows.len());
        let mut unreadable = false;
        for (row, payload) in rows {
            match serde_json::from_slice(&payload) {
                Ok(decision) => waiting.push(Waiting { row, decision }),
                Err(error) => {
                    tracing::error!(row, %error, "decision in the outbox is unreadable and was set aside");
                    self.writer.send(Command::SetAside(row))?;
                    unreadable = true;
                }
            }
        }
        if waiting.is_empty() && unreadable {
            // A page of nothing but unreadable rows must not look like the end of the queue.
            self.settle()?;
            return self.page(after, limit);
        }
        Ok(waiting)
    }

    /// Decisions in the queue.
    pub fn len(&self) -> u64 {
        self.gauges().waiting.load(Ordering::Acquire)
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Decisions that expired unacknowledged since the queue was opened, because it was full or they
    /// were too old.
    pub fn expired(&self) -> u64 {
        self.gauges().expired.iter().map(|expired| expired.load(Ordering::Acquire)).sum()
    }

    /// How many of these were rejects.
    pub fn expired_rejects(&self) -> u64 {
        self.gauges().expired[worth(Verdict::Reject)].load(Ordering::Acquire)
    }

    /// Age of the oldest decision as of a second ago; none where nothing waited.
    pub fn oldest_age(&self) -> Option<Duration> {
        let age_us = u64::try_from(self.gauges().oldest_age_us.load(Ordering::Acquire)).ok()?;
        (!self.is_empty()).then(|| Duration::from_micros(age_us))
    }

    /// Where a damaged file of this queue was put since it was opened.
    pub fn set_aside(&self) -> Option<PathBuf> {
        self.gauges().set_aside.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The highest row ever given out; 0 before the first.
    pub fn newest_row(&self) -> i64 {
        self.gauges().newest_row.load(Ordering::Acquire)
    }

    fn gauges(&self) -> &Gauges {
        self.writer.gauges()
    }
}

/// How long a decision is kept when the queue is full: the lowest number expires first.
fn worth(verdict: Verdict) -> usize {
    match verdict {
        Verdict::Accept => 0,
        Verdict::Suspect => 1,
        Verdict::NotInspected => 2,
        Verdict::Reject => 3,
    }
}
