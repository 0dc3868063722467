//! Hands frames to the archive on a thread of its own.
//!
//! Policy when its queue is full: the frame is not archived, which is counted and logged, and the
//! decision goes out without references. Inspection never waits for the disk.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use super::error::LineError;
use crate::config;
use crate::inspection::{AnomalyMap, CameraPicture, Decision};
use crate::line::archive::Archive;

/// Frames waiting for the disk at most.
const QUEUE: usize = 16;

struct Kept {
    decision: Decision,
    picture: Arc<CameraPicture>,
    map: Option<AnomalyMap>,
}

/// The way into the archive.
pub(super) struct Keeper {
    /// Names only: the archive that writes is busy in its thread while names are needed here.
    names: Archive,
    sender: Mutex<Option<SyncSender<Kept>>>,
    waiting: Arc<AtomicUsize>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// A place in the queue; given back when dropped unused.
pub(super) struct Place<'a> {
    keeper: &'a Keeper,
    used: bool,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if !self.used {
            self.keeper.waiting.fetch_sub(1, Ordering::SeqCst);
        }
    }
}

impl Keeper {
    pub(super) fn start(config: &config::Archive) -> Result<Self, LineError> {
        let open = || {
            Archive::open(config)
                .map_err(|source| LineError::Archive { path: config.directory.clone(), source: Box::new(source) })
        };
        let (names, mut archive) = (open()?, open()?);
        let (sender, receiver) = sync_channel::<Kept>(QUEUE);
        let waiting = Arc::new(AtomicUsize::new(0));
        let left = waiting.clone();
        let store = move || {
            for kept in receiver {
                // The archive counts and logs its own failures; the line goes on.
                let _ = archive.store(&kept.decision, &kept.picture.to_rgb(), kept.map.as_ref());
                left.fetch_sub(1, Ordering::SeqCst);
            }
        };
        let thread = std::thread::Builder::new()
            .name("archive".into())
            .spawn(store)
            .map_err(|source| LineError::Thread { name: "archive", source })?;
        Ok(Self { names, sender: Mutex::new(Some(sender)), waiting, thread: Mutex::new(Some(thread)) })
    }

    /// Names for a decision that is to be kept.
    pub(super) fn references(&self, decision: &Decision) -> Option<(String, String)> {
        self.names.references(decision)
    }

    /// A place in the queue, while one is free.
    pub(super) fn reserve(&self) -> Option<Place<'_>> {
        let taken = self.waiting.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| (n < QUEUE).then_some(n + 1));
        taken.ok().map(|_| Place { keeper: self, used: false })
    }

    /// Waits until everything is written and ends the thread.
    pub(super) fn stop(&self) {
        drop(self.sender.lock().unwrap_or_else(PoisonError::into_inner).take());
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if thread.is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the archive's thread had panicked");
        }
    }
}

impl Place<'_> {
    /// Hands the frame over.
    pub(super) fn store(mut self, decision: Decision, picture: Arc<CameraPicture>, map: Option<AnomalyMap>) {
        let sender = self.keeper.sender.lock().unwrap_or_else(PoisonError::into_inner);
        // Never full: the queue has as many places as can be reserved.
        self.used = sender.as_ref().is_some_and(|s| s.try_send(Kept { decision, picture, map }).is_ok());
        if !self.used {
            tracing::error!("the archive is gone: a frame was not archived");
        }
    }
}
