//! Cameras through GStreamer. The only room that imports it.
//!
//! A camera is a launch description ([`LaunchDescription`]) to which the room appends
//! `videoconvert ! video/x-raw,format=RGB ! appsink`. A frame is numbered and stamped at the
//! first pad: that of the element named `stamp` where the description has one, else every source
//! pad of its one source element. The number travels with the buffer to the appsink; a frame
//! that was grabbed and does not arrive there is told as [`CaptureEvent::Lost`], so that every
//! number comes out exactly once.
//!
//! Each camera has a supervisor on a thread of its own, which takes the graph down and builds it
//! again after an error, an unwanted end of stream or silence. The graph lives on another thread, which
//! is left behind where it hangs.
//!
//! Policy of the channel when full: the picture of the new frame is given up and its number is
//! told as lost with cause `shed`; that small event waits for room. Nothing vanishes unseen.

mod clock;
mod controls;
mod drain;
mod error;
mod feed;
mod folder;
mod genicam;
mod launch;
mod life;
mod pipeline;
mod sample;
mod stamp;
mod supervisor;
mod trigger;

use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::thread::JoinHandle;
use std::time::Duration;

pub use drain::prepare_process;
pub use error::CaptureError;
pub use launch::{LaunchDescription, Parameter};
pub use trigger::Trigger;

use crate::config::CameraConfig;
use crate::inspection::{Frame, FrameId, NotInspected, PartSource, Stamp};

/// A frame that was grabbed and cannot be inspected.
#[derive(Debug, Clone)]
pub struct LostFrame {
    /// Name of the camera, as configured.
    pub camera: Arc<str>,
    /// Number at this camera.
    pub id: FrameId,
    /// When it was captured.
    pub captured: Stamp,
    /// Identity of the part, where known.
    pub part_id: Option<Arc<str>>,
    /// What the identity comes from.
    pub part_source: PartSource,
    /// Number of the trigger at this camera, where the camera is triggered.
    pub trigger: Option<u64>,
    /// How long after capture a decision is useful; none means always.
    pub deadline: Option<Duration>,
    /// `lost` (torn, dropped, overtaken; a trigger while the camera was gone), `shed` (the channel
    /// was full, or too many triggers waited), `no_frame` (triggered in vain) or `stopped`.
    pub cause: NotInspected,
}

/// What cameras say.
#[derive(Debug, Clone)]
pub enum CaptureEvent {
    /// The camera delivers, or plays without fault for a while (a triggered one may be silent).
    Up {
        /// Name of the camera.
        camera: Arc<str>,
    },
    /// A frame.
    Frame(Frame),
    /// A frame that was grabbed but does not arrive.
    Lost(LostFrame),
    /// The camera is gone; it is being built again.
    Down {
        /// Name of the camera.
        camera: Arc<str>,
        /// What happened, for people.
        reason: String,
    },
    /// The stream of a camera that may end has ended; nothing more comes from it.
    Ended {
        /// Name of the camera.
        camera: Arc<str>,
    },
}

/// The running cameras. Dropped without [`Capture::stop`], it stops them all the same.
#[derive(Debug)]
pub struct Capture {
    stop: Arc<supervisor::Stop>,
    threads: Vec<JoinHandle<()>>,
    feeds: Vec<Arc<feed::Feed>>,
}

/// Triggers cameras by software. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Shutter(Vec<Arc<feed::Feed>>);

impl Shutter {
    /// Has the named camera take the part's frames next. What cannot be taken is told as
    /// [`CaptureEvent::Lost`]; an unknown camera takes none.
    pub fn trigger(&self, camera: &str, trigger: Trigger) {
        if let Some(feed) = self.0.iter().find(|feed| feed.is_of(camera)) {
            feed.trigger(trigger);
        }
    }
}

impl Capture {
    /// Checks every camera's description by parsing the whole graph, then starts one supervisor
    /// per camera. Does not wait for a camera to be there.
    ///
    /// # Errors
    /// GStreamer cannot be initialised; a description is not found, contradicts itself, lacks a
    /// parameter or names an element that is not installed; a thread cannot be started.
    pub fn start(cameras: &[CameraConfig], events: &SyncSender<CaptureEvent>) -> Result<Self, CaptureError> {
        let plans = cameras.iter().map(pipeline::Plan::new).collect::<Result<Vec<_>, _>>()?;
        let mut capture = Self { stop: Arc::default(), threads: Vec::new(), feeds: Vec::new() };
        for plan in plans {
            let (stop, name) = (capture.stop.clone(), plan.camera.clone());
            let feed = Arc::new(feed::Feed::new(&plan, events));
            capture.feeds.push(feed.clone());
            let plan = Arc::new(plan);
            let thread = std::thread::Builder::new()
                .name(format!("camera-{name}"))
                .spawn(move || supervisor::supervise(&plan, &feed, &stop))
                .map_err(|source| CaptureError::Thread { camera: name.to_string(), source })?;
            capture.threads.push(thread);
        }
        Ok(capture)
    }

    /// The way to trigger cameras; it leads nowhere once they have stopped.
    pub fn shutter(&self) -> Shutter {
        Shutter(self.feeds.clone())
    }

    /// Stops every camera and waits for its thread. When this returns, every frame that was
    /// numbered stands in the channel as a frame or as lost: somebody must be reading it.
    pub fn stop(mut self) {
        self.halt();
    }

    fn halt(&mut self) {
        self.stop.now();
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a camera's thread had panicked");
            }
        }
        // A graph that hangs still holds its own.
        self.feeds.drain(..).for_each(|feed| feed.close());
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        self.halt();
    }
}

/// Checks that a camera's description can become a graph, without starting it.
///
/// # Errors
/// As [`Capture::start`].
pub fn check(camera: &CameraConfig) -> Result<(), CaptureError> {
    pipeline::Plan::new(camera).map(|_| ())
}
