//! One camera's GStreamer graph: built from its description, stamped at the first pad, read at
//! the appsink.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_app as gst_app;

use super::folder::{self, FolderSource};
use super::stamp::{Grabbed, PART_EVENT, Pending, is_whole};
use super::{CaptureError, CaptureEvent, LaunchDescription, LostFrame};
use crate::config::CameraConfig;
use crate::inspection::{Frame, FrameId, NotInspected, PartSource, Stamp, TimeSource};

/// What follows every description. Frames of the formats that [`super::sample`] reads pass as they are,
/// for to convert one at full size takes longer than to scale it; `dither=none` and the default matrix
/// keep RGB pictures exact; few buffers and no dropping make a slow reader felt upstream instead of
/// losing frames unseen.
const ENDING: &str = "! videoconvert dither=none \
     ! video/x-raw,format={RGB,GRAY8,NV12,I420,Y42B,Y444} \
     ! appsink name=linegate-sink sync=false max-buffers=2 drop=false enable-last-sample=false";
/// Caps that mark the meta which carries a frame's number.
const NUMBER_CAPS: &str = "timestamp/x-linegate-frame";

/// A camera that was found to be buildable.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) camera: Arc<str>,
    pub(super) deadline: Option<Duration>,
    pub(super) watchdog: Option<Duration>,
    pub(super) ends: bool,
    text: String,
}

impl Plan {
    /// Fills the description in and builds the graph once for trial.
    pub(super) fn new(camera: &CameraConfig) -> Result<Self, CaptureError> {
        gst::init().map_err(CaptureError::Initialise)?;
        folder::register().map_err(CaptureError::Register)?;
        let text = LaunchDescription::find(&camera.pipeline)?.render(&camera.parameters)?;
        let plan = Self {
            camera: camera.name.as_str().into(),
            deadline: camera.deadline_ms.map(Duration::from_millis),
            watchdog: camera.watchdog_ms.map(Duration::from_millis),
            ends: camera.ends,
            text: format!("{text} {ENDING}"),
        };
        let pipeline = plan.parse()?;
        plan.first_pads(&pipeline)?;
        Ok(plan)
    }

    fn parse(&self) -> Result<gst::Pipeline, CaptureError> {
        let broken = |source| CaptureError::Graph { camera: self.camera.to_string(), text: self.text.clone(), source };
        let element = gst::parse::launch_full(&self.text, None, gst::ParseFlags::FATAL_ERRORS).map_err(broken)?;
        element.downcast().map_err(|_| {
            broken(gst::glib::Error::new(gst::ParseError::Empty, "it holds a single element, no pipeline"))
        })
    }

    /// Where frames are numbered and stamped.
    fn first_pads(&self, pipeline: &gst::Pipeline) -> Result<Vec<gst::Pad>, CaptureError> {
        let unclear = |problem: String| CaptureError::NoFirstPad { camera: self.camera.to_string(), problem };
        let element = if let Some(element) = pipeline.by_name("stamp") {
            element
        } else {
            let sources: Vec<_> = pipeline.iterate_sources().into_iter().filter_map(Result::ok).collect();
            let [source] = <[gst::Element; 1]>::try_from(sources)
                .map_err(|sources| unclear(format!("there are {} sources", sources.len())))?;
            source
        };
        let pads = element.src_pads();
        if pads.is_empty() {
            return Err(unclear(format!("{} has no pad yet", element.name())));
        }
        Ok(pads)
    }

    /// Builds the graph with its probes; it does not play yet.
    pub(super) fn build(&self, feed: &Arc<Feed>, position: u64) -> Result<Graph, CaptureError> {
        let pipeline = self.parse()?;
        for pad in self.first_pads(&pipeline)? {
            watch_first_pad(&pad, feed);
        }
        let folder = pipeline.iterate_sources().into_iter().filter_map(Result::ok).find_map(|e| e.downcast().ok());
        if let Some(folder) = &folder {
            FolderSource::set_position(folder, position);
        }
        if let Some(sink) = pipeline.by_name("linegate-sink").and_then(|e| e.downcast::<gst_app::AppSink>().ok()) {
            let feed = feed.clone();
            let on_sample = move |sink: &gst_app::AppSink| {
                let sample = sink.pull_sample().map_err(|_| gst::FlowError::Eos)?;
                feed.arrive(&sample);
                Ok(gst::FlowSuccess::Ok)
            };
            sink.set_callbacks(gst_app::AppSinkCallbacks::builder().new_sample(on_sample).build());
        }
        Ok(Graph { pipeline, folder })
    }
}

/// A built graph; taken down when dropped.
#[derive(Debug)]
pub(super) struct Graph {
    pub(super) pipeline: gst::Pipeline,
    folder: Option<FolderSource>,
}

impl Graph {
    /// Where a folder camera stands, so that the next graph goes on behind it.
    pub(super) fn position(&self) -> u64 {
        self.folder.as_ref().map_or(0, FolderSource::position)
    }
}

impl Drop for Graph {
    fn drop(&mut self) {
        if self.pipeline.set_state(gst::State::Null).is_err() {
            tracing::warn!("a camera's graph did not stop in order");
        }
    }
}

/// What the streaming threads share with the supervisor, over all graphs of one camera.
#[derive(Debug)]
pub(super) struct Feed {
    camera: Arc<str>,
    deadline: Option<Duration>,
    events: SyncSender<CaptureEvent>,
    number_caps: gst::Caps,
    pending: Mutex<Pending>,
    /// Identity told for the buffer that follows.
    part: Mutex<Option<Arc<str>>>,
    /// When a picture last arrived.
    last_arrival: Mutex<Option<Instant>>,
    up: AtomicBool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // The guarded values are whole between any two statements.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Feed {
    pub(super) fn new(plan: &Plan, events: &SyncSender<CaptureEvent>) -> Self {
        Self {
            camera: plan.camera.clone(),
            deadline: plan.deadline,
            events: events.clone(),
            number_caps: gst::Caps::builder(NUMBER_CAPS).build(),
            pending: Mutex::default(),
            part: Mutex::default(),
            last_arrival: Mutex::default(),
            up: AtomicBool::new(false),
        }
    }

    /// Forgets the arrival of pictures from an earlier graph.
    pub(super) fn begin(&self) {
        *lock(&self.last_arrival) = None;
        *lock(&self.part) = None;
    }

    pub(super) fn last_arrival(&self) -> Option<Instant> {
        *lock(&self.last_arrival)
    }

    /// Says that the camera is there, once.
    pub(super) fn say_up(&self) {
        if !self.up.swap(true, Ordering::SeqCst) {
            self.send(CaptureEvent::Up { camera: self.camera.clone() });
        }
    }

    pub(super) fn say_down(&self, reason: String) {
        self.up.store(false, Ordering::SeqCst);
        self.send(CaptureEvent::Down { camera: self.camera.clone(), reason });
    }

    pub(super) fn say_ended(&self) {
        self.send(CaptureEvent::Ended { camera: self.camera.clone() });
    }

    /// Gives up everything between first pad and appsink; for a graph that was taken down.
    pub(super) fn give_up_all(&self, cause: NotInspected) {
        let frames = lock(&self.pending).clear();
        self.lose(frames, cause);
    }

    /// Gives up what was grabbed before `limit` and has not arrived.
    pub(super) fn give_up_before(&self, limit: Instant) {
        let frames = lock(&self.pending).expire(limit);
        self.lose(frames, NotInspected::Lost);
    }

    fn lose(&self, frames: impl IntoIterator<Item = Grabbed>, cause: NotInspected) {
        for frame in frames {
            self.send(CaptureEvent::Lost(LostFrame {
                camera: self.camera.clone(),
                id: frame.id,
                captured: frame.stamp,
                part_id: frame.part_id,
                part_source: frame.part_source,
                deadline: self.deadline,
                cause,
            }));
        }
    }

    /// Waits for room; an absent reader means that the line is gone, so nothing is left to tell.
    fn send(&self, event: CaptureEvent) {
        let _ = self.events.send(event);
    }

    /// A buffer passes the first pad: number, stamp and mark it. `false` when it is torn and not
    /// worth decoding.
    fn grab(&self, media: Option<&str>, buffer: &mut gst::Buffer) -> bool {
        let utc_us = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| i64::try_from(since.as_micros()).unwrap_or(i64::MAX));
        let stamp = Stamp { monotonic: Instant::now(), utc_us, source: TimeSource::Arrival };
        let part_id = lock(&self.part).take();
        let part_source = if part_id.is_some() { PartSource::Trigger } else { PartSource::Counter };
        let pts = buffer.pts().map(gst::ClockTime::nseconds);
        let (id, given_up) = lock(&self.pending).grab(stamp, pts, part_id, part_source);
        self.lose(given_up, NotInspected::Lost);
        let torn = media.is_some_and(|media| {
            media.starts_with("image/") && !buffer.map_readable().is_ok_and(|bytes| is_whole(media, &bytes))
        });
        if torn {
            tracing::warn!(camera = %self.camera, frame = id.0, "picture torn: the frame is lost");
            let frame = lock(&self.pending).withdraw(id);
            self.lose(frame, NotInspected::Lost);
            return false;
        }
        let number = gst::ClockTime::from_nseconds(id.0);
        gst::ReferenceTimestampMeta::add(buffer.make_mut(), &self.number_caps, number, None);
        true
    }

    /// A picture reached the appsink.
    fn arrive(&self, sample: &gst::Sample) {
        let Some(buffer) = sample.buffer() else { return };
        let number = buffer
            .iter_meta::<gst::ReferenceTimestampMeta>()
            .find(|meta| meta.reference() == &*self.number_caps)
            .map(|meta| FrameId(meta.timestamp().nseconds()));
        let arrival = lock(&self.pending).arrive(number, buffer.pts().map(gst::ClockTime::nseconds));
        *lock(&self.last_arrival) = Some(Instant::now());
        let Some((grabbed, overtaken)) = arrival else {
            // Told as lost already, or a decoder repeated it: one number, one outcome.
            tracing::warn!(camera = %self.camera, frame = number.map(|n| n.0), "picture without a waiting frame dropped");
            return;
        };
        self.lose(overtaken, NotInspected::Lost);
        self.say_up();
        let picture = match super::sample::read(sample) {
            Ok(picture) => Arc::new(picture),
            Err(problem) => {
                tracing::warn!(camera = %self.camera, frame = grabbed.id.0, problem, "picture unusable: the frame is lost");
                return self.lose([grabbed], NotInspected::Lost);
            }
        };
        let frame = Frame {
            camera: self.camera.clone(),
            id: grabbed.id,
            part_id: grabbed.part_id.clone(),
            part_source: grabbed.part_source,
            captured: grabbed.stamp,
            deadline: self.deadline,
            picture,
        };
        if let Err(TrySendError::Full(_)) = self.events.try_send(CaptureEvent::Frame(frame)) {
            self.lose([grabbed], NotInspected::Shed);
        }
    }
}

fn watch_first_pad(pad: &gst::Pad, feed: &Arc<Feed>) {
    let feed = feed.clone();
    let kinds = gst::PadProbeType::BUFFER | gst::PadProbeType::BUFFER_LIST | gst::PadProbeType::EVENT_DOWNSTREAM;
    pad.add_probe(kinds, move |pad, info| {
        let media = || pad.current_caps().and_then(|caps| caps.structure(0).map(|s| s.name().to_string()));
        match &mut info.data {
            Some(gst::PadProbeData::Buffer(buffer)) => {
                if feed.grab(media().as_deref(), buffer) {
                    gst::PadProbeReturn::Ok
                } else {
                    gst::PadProbeReturn::Drop
                }
            }
            Some(gst::PadProbeData::BufferList(list)) => {
                let media = media();
                list.make_mut().foreach_mut(|mut buffer, _| {
                    let keep = feed.grab(media.as_deref(), &mut buffer);
                    ControlFlow::Continue(keep.then_some(buffer))
                });
                gst::PadProbeReturn::Ok
            }
            Some(gst::PadProbeData::Event(event)) => {
                if let Some(structure) = event.structure().filter(|s| s.name() == PART_EVENT) {
                    *lock(&feed.part) = structure.get::<String>("part-id").ok().map(Into::into);
                }
                gst::PadProbeReturn::Ok
            }
            _ => gst::PadProbeReturn::Ok,
        }
    });
}
