//! Hands frames to the archive on a thread of its own.
//!
//! Policy when its queue is full: the frame is not archived, which is counted and logged, and the
//! decision goes out without references. Inspection never waits for the disk. Where disk or memory run
//! short it is the archive that goes without, first of all.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use super::error::LineError;
use crate::config;
use crate::inspection::{AnomalyMap, CameraPicture, Decision};
use crate::line::archive::{Archive, Room};

/// Frames waiting for the disk at most.
const QUEUE: usize = 16;
/// Time between two looks at what disk and memory have left.
const LOOK: Duration = Duration::from_secs(1);

struct Kept {
    decision: Decision,
    picture: Arc<CameraPicture>,
    map: Option<AnomalyMap>,
}

/// The way into the archive.
pub(super) struct Keeper {
    /// Names only: the archive that writes is busy in its thread while names are needed here.
    names: Archive,
    /// Whether disk or memory run short, as last seen.
    short: Arc<AtomicBool>,
    /// Ends the look-out when it is dropped.
    _look_out: SyncSender<()>,
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
        let (short, look_out) = look_out(config)?;
        Ok(Self {
            names,
            short,
            _look_out: look_out,
            sender: Mutex::new(Some(sender)),
            waiting,
            thread: Mutex::new(Some(thread)),
        })
    }

    /// Names for a decision that is to be kept.
    pub(super) fn references(&self, decision: &Decision) -> Option<(String, String)> {
        self.names.references(decision)
    }

    /// A place in the queue, while one is free and there is room on the machine.
    pub(super) fn reserve(&self) -> Option<Place<'_>> {
        if self.short.load(Ordering::SeqCst) {
            return None;
        }
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

/// Looks at disk and memory on a thread of its own, which nobody waits for: a network disk may hang.
fn look_out(config: &config::Archive) -> Result<(Arc<AtomicBool>, SyncSender<()>), LineError> {
    let shortage = |config: &config::Archive| Room::look(&config.directory).shortage(config);
    let tell = |known: Option<&String>, now: Option<&String>| match (known, now) {
        (None, Some(what)) => tracing::error!(what, "frames are not archived, decisions go on"),
        (Some(_), None) => tracing::info!("frames are archived again"),
        _ => {}
    };
    let mut known = shortage(config);
    tell(None, known.as_ref());
    let short = Arc::new(AtomicBool::new(known.is_some()));
    let (sender, end) = sync_channel(0);
    let (config, told) = (config.clone(), short.clone());
    let look = move || {
        while end.recv_timeout(LOOK) == Err(RecvTimeoutError::Timeout) {
            let now = shortage(&config);
            tell(known.as_ref(), now.as_ref());
            told.store(now.is_some(), Ordering::SeqCst);
            known = now;
        }
    };
    std::thread::Builder::new()
        .name("archive-room".into())
        .spawn(look)
        .map_err(|source| LineError::Thread { name: "archive-room", source })?;
    Ok((short, sender))
}

impl Place<'_> {
    /// Hands the frame over.
    pub(super) fn store(mut self, decision: Decision, picture: Arc<CameraPicture>, map: Option<AnomalyMap>) {
        // The archive takes its time; the camera gets its buffer back now.
        let picture = if picture.is_lent() { Arc::new(picture.owned()) } else { picture };
        let sender = self.keeper.sender.lock().unwrap_or_else(PoisonError::into_inner);
        // Never full: the queue has as many places as can be reserved.
        self.used = sender.as_ref().is_some_and(|s| s.try_send(Kept { decision, picture, map }).is_ok());
        if !self.used {
            tracing::error!("the archive is gone: a frame was not archived");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inspection::{LentPixels, PixelFormat, Size};

    /// A camera's.
    struct Buffer(Vec<u8>);

    impl LentPixels for Buffer {
        fn plane(&self, number: usize) -> &[u8] {
            if number == 0 { &self.0 } else { &[] }
        }
    }

    #[test]
    fn what_goes_to_the_archive_does_not_keep_its_cameras_buffer() {
        let folder = tempfile::tempdir().unwrap();
        let config = config::Archive {
            directory: folder.path().to_owned(),
            quota_mib: 64,
            accept_sample: 0.0,
            min_free_mib: 0,
            min_memory_mib: 0,
        };
        let decision: Decision = serde_json::from_value(serde_json::json!({
            "schema_version": 1, "result_id": ulid::Ulid::generate().to_string(), "boot_id": "boot", "sequence": 1,
            "site": "s", "line": "l", "station": "t", "camera": "c", "frame": 1, "part_source": "none",
            "verdict": "reject", "eject": true, "reasons": [], "regions": [], "captured_us": 1, "decided_us": 2,
            "captured_source": "arrival", "published_us": 2, "replayed": false,
            "latency": { "queue_ms": 0.0, "batch_ms": 0.0, "infer_ms": 0.0, "decide_ms": 0.0 },
        }))
        .unwrap();
        let keeper = Keeper::start(&config).unwrap();
        // Large, so that the archive works on it for longer than it takes to look.
        let size = Size { width: 2048, height: 2048 };
        let buffer = Arc::new(Buffer(vec![7; size.width * size.height]));
        let strides = [size.width, 0, 0];
        let picture = CameraPicture::lent(size, PixelFormat::Grey, strides, buffer.clone()).unwrap();
        let names = keeper.references(&decision).unwrap();
        let decision = Decision { image_ref: Some(names.0.clone()), ..decision };
        keeper.reserve().unwrap().store(decision, Arc::new(picture), None);
        assert_eq!(Arc::strong_count(&buffer), 1, "the archive holds the camera's buffer");
        keeper.stop();
        let kept = image::open(folder.path().join(names.0)).unwrap().into_luma8();
        assert!(kept.dimensions() == (2048, 2048) && kept.pixels().all(|pixel| pixel.0 == [7]));
    }
}
