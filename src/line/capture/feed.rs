//! What the streaming threads share with the supervisor: frames are numbered and stamped at the first
//! pad and told at the appsink.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use gstreamer as gst;
use gstreamer::prelude::*;

use super::clock::{StreamClock, arrived_now, behind, micros, our_time, ptp_time};
use super::genicam::{GenicamSource, LOST_EVENT};
use super::pipeline::Plan;
use super::sample::{self, Lending};
use super::stamp::{CameraClock, DriverCounter, Grabbed, PART_EVENT, PartMark, Pending, is_whole};
use super::trigger::{Trigger, TriggerQueue};
use super::{CaptureEvent, LostFrame};
use crate::config::TriggerMode;
use crate::inspection::{Frame, FrameId, NotInspected, Stamp, TimeSource};

/// Caps that mark the meta which carries a frame's number.
const NUMBER_CAPS: &str = "timestamp/x-linegate-frame";

/// What the streaming threads share with the supervisor, over all graphs of one camera.
#[derive(Debug)]
pub(super) struct Feed {
    camera: Arc<str>,
    deadline: Option<Duration>,
    events: Mutex<Option<SyncSender<CaptureEvent>>>,
    /// Graphs so far.
    graphs: AtomicU64,
    /// Number of the graph that is heard; 0 is none.
    heard: AtomicU64,
    number_caps: gst::Caps,
    pending: Mutex<Pending>,
    camera_clock: Mutex<CameraClock>,
    /// Identity told for the buffer that follows.
    part: Mutex<Option<Arc<str>>>,
    trigger: TriggerMode,
    trigger_timeout: Duration,
    triggers: Mutex<TriggerQueue>,
    /// Of a camera that exposes on command.
    release: Mutex<Option<GenicamSource>>,
    /// Whether it was told to and its frame has not come.
    exposing: AtomicBool,
    /// When a picture last arrived.
    last_arrival: Mutex<Option<Instant>>,
    up: AtomicBool,
    lending: Lending,
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
            events: Mutex::new(Some(events.clone())),
            graphs: AtomicU64::new(0),
            heard: AtomicU64::new(0),
            number_caps: gst::Caps::builder(NUMBER_CAPS).build(),
            pending: Mutex::default(),
            camera_clock: Mutex::default(),
            part: Mutex::default(),
            trigger: plan.trigger,
            trigger_timeout: plan.trigger_timeout,
            triggers: Mutex::default(),
            release: Mutex::default(),
            exposing: AtomicBool::new(false),
            last_arrival: Mutex::default(),
            up: AtomicBool::new(false),
            lending: Lending::new(plan.lent_buffers),
        }
    }

    /// Begins with another graph: forgets the arrival of pictures from an earlier one, which is not heard
    /// any more. The new one's number.
    pub(super) fn begin(&self) -> u64 {
        *lock(&self.last_arrival) = None;
        *lock(&self.part) = None;
        *lock(&self.camera_clock) = CameraClock::default();
        let number = self.graphs.fetch_add(1, Ordering::SeqCst) + 1;
        self.heard.store(number, Ordering::SeqCst);
        number
    }

    /// What the graph of that number says is no longer heard: it has ended, or hangs.
    pub(super) fn hear_no_more(&self, graph: u64) {
        let _ = self.heard.compare_exchange(graph, 0, Ordering::SeqCst, Ordering::SeqCst);
    }

    /// Whether the graph of that number is heard.
    pub(super) fn hears(&self, graph: u64) -> bool {
        self.heard.load(Ordering::SeqCst) == graph
    }

    /// Lets go of the events' channel, for good.
    pub(super) fn close(&self) {
        *lock(&self.events) = None;
    }

    pub(super) fn is_of(&self, camera: &str) -> bool {
        &*self.camera == camera
    }

    /// Takes a trigger; what cannot wait for a frame is told as lost.
    pub(super) fn trigger(&self, trigger: Trigger) {
        let refused = lock(&self.triggers).push(trigger);
        match refused {
            Ok(()) => self.expose(),
            Err((trigger, cause)) => self.give_up_triggers([trigger], cause),
        }
    }

    /// How the camera of the graph of that number is told to expose, where it is one that must be.
    pub(super) fn set_release(&self, graph: u64, release: Option<GenicamSource>) {
        if self.hears(graph) {
            *lock(&self.release) = release;
            self.exposing.store(false, Ordering::SeqCst);
        }
    }

    /// Tells a camera that exposes on command to do so for the trigger that waits longest: one frame after
    /// the other, for while it exposes it does not listen.
    fn expose(&self) {
        let Some(release) = lock(&self.release).clone() else { return };
        if !lock(&self.triggers).waits() || self.exposing.swap(true, Ordering::SeqCst) {
            return;
        }
        if let Err(problem) = release.trigger() {
            // Its trigger is given up when its time is over.
            tracing::warn!(camera = %self.camera, problem, "the camera was not triggered");
        }
    }

    /// Gives up triggers that wait for too long.
    pub(super) fn expire_triggers(&self, now: Instant) {
        let expired = lock(&self.triggers).expire(now, self.trigger_timeout);
        if !expired.is_empty() {
            self.give_up_triggers(expired, NotInspected::NoFrame);
            self.exposing.store(false, Ordering::SeqCst);
            self.expose();
        }
    }

    /// Tells frames that the camera took and that did not come, at the time of what told so: those of which
    /// nothing came, and a torn one. Of a camera that streams by itself and is triggered by software nobody
    /// knows whether they were asked for; one that exposes on command takes one at a time, so that a torn one
    /// is what was asked for, and what nothing came of has been given up.
    fn lose_unseen(&self, missing: u64, torn: bool, stamp: Stamp) {
        let count = match self.trigger {
            TriggerMode::Software if lock(&self.release).is_none() => 0,
            TriggerMode::Software => u64::from(torn),
            TriggerMode::Free | TriggerMode::Hardware => missing + u64::from(torn),
        };
        if count == 0 {
            return;
        }
        tracing::warn!(camera = %self.camera, frames = count, "frames of the camera did not arrive");
        for _ in 0..count {
            let Some(part) = self.next_part(stamp.monotonic) else { return };
            let id = lock(&self.pending).next();
            self.lose([Grabbed { id, stamp, pts: None, part }], NotInspected::Lost);
        }
    }

    /// Tells every frame that a trigger still waits for.
    fn give_up_triggers(&self, triggers: impl IntoIterator<Item = Trigger>, cause: NotInspected) {
        for trigger in triggers {
            tracing::warn!(camera = %self.camera, part_id = %trigger.part_id, ?cause, "triggered part gets no frame");
            for _ in 0..trigger.frames.max(1) {
                let id = lock(&self.pending).next();
                let part = PartMark { id: Some(trigger.part_id.clone()), trigger: Some(trigger.sequence) };
                self.lose([Grabbed { id, stamp: trigger.at, pts: None, part }], cause);
            }
        }
    }

    /// Whose picture the buffer is that is grabbed now; none where it is nobody's.
    fn next_part(&self, captured: Instant) -> Option<PartMark> {
        let told = lock(&self.part).take();
        match self.trigger {
            TriggerMode::Free => Some(PartMark { id: told, trigger: None }),
            TriggerMode::Hardware => Some(PartMark { id: told, trigger: Some(lock(&self.pending).upcoming()) }),
            TriggerMode::Software => {
                let (id, sequence) = lock(&self.triggers).take(captured)?;
                self.exposing.store(false, Ordering::SeqCst);
                self.expose();
                Some(PartMark { id: Some(id), trigger: Some(sequence) })
            }
        }
    }

    pub(super) fn last_arrival(&self) -> Option<Instant> {
        *lock(&self.last_arrival)
    }

    /// Says that the camera is there, once.
    pub(super) fn say_up(&self) {
        if !self.up.swap(true, Ordering::SeqCst) {
            lock(&self.triggers).open();
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
        let triggers = lock(&self.triggers).shut(cause);
        let frames = lock(&self.pending).clear();
        self.lose(frames, cause);
        self.give_up_triggers(triggers, cause);
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
                part_source: frame.part.source(),
                part_id: frame.part.id,
                trigger: frame.part.trigger,
                deadline: self.deadline,
                cause,
            }));
        }
    }

    /// Waits for room; an absent reader means that the line is gone, so nothing is left to tell.
    fn send(&self, event: CaptureEvent) {
        if let Some(events) = self.events() {
            let _ = events.send(event);
        }
    }

    fn events(&self) -> Option<SyncSender<CaptureEvent>> {
        lock(&self.events).clone()
    }

    /// When a buffer that passes the first pad now was captured.
    fn stamp(&self, pad: &gst::Pad, clock: StreamClock, buffer: &gst::BufferRef) -> Stamp {
        let pts = buffer.pts();
        let (now, utc) = (Instant::now(), our_time());
        let read = match (clock, pts) {
            (StreamClock::Graph(source), Some(pts)) => behind(pad, pts).map(|delay| (delay, source)),
            (StreamClock::Camera, Some(pts)) => {
                let captured = lock(&self.camera_clock).captured(now, pts.nseconds());
                captured.map(|captured| (now.saturating_duration_since(captured), TimeSource::Camera))
            }
            _ => None,
        };
        let (delay, source) = read.unwrap_or((Duration::ZERO, TimeSource::Arrival));
        let (captured, source) =
            ptp_time(buffer, utc).map_or((utc.saturating_sub(delay), source), |time| (time, TimeSource::Ptp));
        Stamp { monotonic: now.checked_sub(delay).unwrap_or(now), utc_us: micros(captured), source }
    }

    /// A buffer passes the first pad: number, stamp and mark it. `false` when it is torn and not
    /// worth decoding.
    fn grab(
        &self,
        pad: &gst::Pad,
        clock: StreamClock,
        counter: Option<&DriverCounter>,
        media: Option<&str>,
        buffer: &mut gst::Buffer,
    ) -> bool {
        let stamp = self.stamp(pad, clock, buffer);
        let dropped = counter.map_or(0, |counter| counter.dropped_before(buffer.offset()));
        if dropped > 0 {
            self.lose_unseen(dropped, false, stamp);
        }
        // A frame that nobody asked for passes without a number: later ones may need it to decode.
        let Some(part) = self.next_part(stamp.monotonic) else { return true };
        let pts = buffer.pts().map(gst::ClockTime::nseconds);
        let (id, given_up) = lock(&self.pending).grab(stamp, pts, part);
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
    pub(super) fn arrive(&self, sample: &gst::Sample) {
        let Some(buffer) = sample.buffer() else { return };
        let number = buffer
            .iter_meta::<gst::ReferenceTimestampMeta>()
            .find(|meta| meta.reference() == &*self.number_caps)
            .map(|meta| FrameId(meta.timestamp().nseconds()));
        let arrival = lock(&self.pending).arrive(number, buffer.pts().map(gst::ClockTime::nseconds));
        *lock(&self.last_arrival) = Some(Instant::now());
        let Some((grabbed, overtaken)) = arrival else {
            if number.is_none() && self.trigger == TriggerMode::Software {
                return self.say_up();
            }
            // Told as lost already, or a decoder repeated it: one number, one outcome.
            tracing::warn!(camera = %self.camera, frame = number.map(|n| n.0), "picture without a waiting frame dropped");
            return;
        };
        self.lose(overtaken, NotInspected::Lost);
        self.say_up();
        let picture = match sample::read(sample, &self.lending) {
            Ok(picture) => Arc::new(picture),
            Err(problem) => {
                tracing::warn!(camera = %self.camera, frame = grabbed.id.0, problem, "picture unusable: the frame is lost");
                return self.lose([grabbed], NotInspected::Lost);
            }
        };
        let frame = Frame {
            camera: self.camera.clone(),
            id: grabbed.id,
            part_id: grabbed.part.id.clone(),
            part_source: grabbed.part.source(),
            trigger: grabbed.part.trigger,
            captured: grabbed.stamp,
            deadline: self.deadline,
            picture,
        };
        let Some(events) = self.events() else { return };
        if let Err(TrySendError::Full(_)) = events.try_send(CaptureEvent::Frame(frame)) {
            self.lose([grabbed], NotInspected::Shed);
        }
    }
}

/// Numbers and stamps what passes a first pad of the graph of that number.
pub(super) fn watch_first_pad(pad: &gst::Pad, feed: &Arc<Feed>, graph: u64, clock: StreamClock) {
    // Weakly: what GStreamer never frees must not hold the feed.
    let feed = Arc::downgrade(feed);
    let counter = DriverCounter::of(pad);
    let kinds = gst::PadProbeType::BUFFER | gst::PadProbeType::BUFFER_LIST | gst::PadProbeType::EVENT_DOWNSTREAM;
    pad.add_probe(kinds, move |pad, info| {
        let Some(feed) = feed.upgrade() else { return gst::PadProbeReturn::Remove };
        let heard = feed.hears(graph);
        let media = || pad.current_caps().and_then(|caps| caps.structure(0).map(|s| s.name().to_string()));
        match &mut info.data {
            // Events pass: behind the pad nobody hears this graph either.
            Some(gst::PadProbeData::Buffer(_) | gst::PadProbeData::BufferList(_)) if !heard => {
                gst::PadProbeReturn::Handled
            }
            Some(gst::PadProbeData::Buffer(buffer)) => {
                if feed.grab(pad, clock, counter.as_ref(), media().as_deref(), buffer) {
                    gst::PadProbeReturn::Ok
                } else {
                    gst::PadProbeReturn::Drop
                }
            }
            Some(gst::PadProbeData::BufferList(list)) => {
                let media = media();
                list.make_mut().foreach_mut(|mut buffer, _| {
                    let keep = feed.grab(pad, clock, counter.as_ref(), media.as_deref(), &mut buffer);
                    ControlFlow::Continue(keep.then_some(buffer))
                });
                gst::PadProbeReturn::Ok
            }
            Some(gst::PadProbeData::Event(event)) => {
                if let Some(structure) = event.structure().filter(|s| s.name() == PART_EVENT) {
                    *lock(&feed.part) = structure.get::<String>("part-id").ok().map(Into::into);
                }
                if let Some(structure) = event.structure().filter(|s| heard && s.name() == LOST_EVENT) {
                    let missing = structure.get("missing").unwrap_or_default();
                    feed.lose_unseen(missing, structure.get("torn").unwrap_or_default(), arrived_now());
                }
                gst::PadProbeReturn::Ok
            }
            _ => gst::PadProbeReturn::Ok,
        }
    });
}
