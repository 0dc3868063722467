//! Keeps one camera running: watches its graph's bus and its frames, takes it down and builds it
//! again.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use gstreamer as gst;
use gstreamer::prelude::*;

use super::controls;
use super::feed::Feed;
use super::life::{Life, Pulse};
use super::pipeline::{Graph, Plan};
use crate::inspection::NotInspected;
use crate::line::prompt::take_short_turns;

/// Pause before the first attempt to build a lost camera again; doubles with every attempt that
/// brings no frame.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// Longest pause between two attempts.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// How long one look at the bus lasts, so that stopping and the watchdog are noticed.
const LOOK: Duration = Duration::from_millis(20);
/// A camera that plays so long without fault counts as up, even if its trigger is silent.
const QUIET_UP: Duration = Duration::from_secs(1);
/// Graphs of a camera that hang at the same time at most: before another is built, one must have let go.
const MOST_HANGING: usize = 3;
/// A frame that does not get from first pad to appsink in this time is lost; a shorter deadline
/// counts first.
const LONGEST_TRANSIT: Duration = Duration::from_secs(5);

/// Tells the supervisors to stop, and wakes those that pause.
#[derive(Debug, Default)]
pub(super) struct Stop {
    wanted: Mutex<bool>,
    changed: Condvar,
}

impl Stop {
    pub(super) fn now(&self) {
        *self.wanted.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.changed.notify_all();
    }

    pub(super) fn is_wanted(&self) -> bool {
        *self.wanted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for `pause`; `true` when it was cut short.
    fn pause(&self, pause: Duration) -> bool {
        let wanted = self.wanted.lock().unwrap_or_else(PoisonError::into_inner);
        *self.changed.wait_timeout_while(wanted, pause, |wanted| !*wanted).unwrap_or_else(PoisonError::into_inner).0
    }
}

/// How a graph's life ended.
#[derive(Debug)]
pub(super) enum End {
    Stopped,
    Ended,
    /// The stream ended although it should not: begin again from the start.
    Over(String),
    Failed(String),
}

/// Runs one camera until it is told to stop or its stream has ended.
pub(super) fn supervise(plan: &Arc<Plan>, feed: &Arc<Feed>, stop: &Arc<Stop>) {
    let mut pause = FIRST_PAUSE;
    let mut position = 0;
    let mut hanging: Vec<JoinHandle<()>> = Vec::new();
    loop {
        let life = Life::begin(plan, feed, stop, position);
        let (end, at) = life.end();
        position = at.unwrap_or(position);
        let cause = if matches!(end, End::Stopped) { NotInspected::Stopped } else { NotInspected::Lost };
        // Nobody hears the graph any more: what has not arrived by now never will.
        feed.give_up_all(cause);
        let reason = match &end {
            End::Over(reason) | End::Failed(reason) => Some(reason.clone()),
            End::Stopped | End::Ended => None,
        };
        if let Some(reason) = reason {
            if feed.last_arrival().is_some() {
                pause = FIRST_PAUSE;
            }
            tracing::warn!(camera = %plan.camera, reason, pause_ms = pause.as_millis() as u64, "camera lost");
            feed.say_down(reason);
        }
        // Told first, because to take a graph down may take long.
        hanging.extend(life.wait_until_down());
        // A frame that was being numbered when it was no longer heard.
        feed.give_up_all(cause);
        match end {
            End::Stopped => return,
            End::Ended => {
                tracing::info!(camera = %plan.camera, "camera ended");
                return feed.say_ended();
            }
            End::Over(_) | End::Failed(_) => {}
        }
        loop {
            if stop.pause(pause) {
                return;
            }
            hanging.retain(|thread| !thread.is_finished());
            if hanging.len() < MOST_HANGING {
                break;
            }
        }
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Watches a graph from its start to its end.
pub(super) fn watch(plan: &Plan, graph: &Graph, feed: &Feed, pulse: &Pulse) -> End {
    let Some(bus) = graph.pipeline.bus() else { return End::Failed("the graph has no bus".into()) };
    let kinds = [gst::MessageType::Error, gst::MessageType::Eos, gst::MessageType::Warning];
    if let Some(problem) = controls::problem(&graph.pipeline) {
        return End::Failed(problem);
    }
    // In the threads themselves, as each begins.
    bus.set_sync_handler(|_, message| {
        if let gst::MessageView::StreamStatus(status) = message.view()
            && status.get().0 == gst::StreamStatusType::Enter
        {
            take_short_turns();
        }
        gst::BusSyncReply::Pass
    });
    // A refused start leaves its reason on the bus.
    let refused = graph.pipeline.set_state(gst::State::Playing).is_err();
    let began = Instant::now();
    let transit = plan.deadline.map_or(LONGEST_TRANSIT, |deadline| deadline.min(LONGEST_TRANSIT));
    let mut source_warning = None;
    loop {
        if !pulse.goes_on() {
            return End::Stopped;
        }
        let message = if refused {
            bus.pop_filtered(&kinds)
        } else {
            bus.timed_pop_filtered(gst::ClockTime::from_mseconds(LOOK.as_millis() as u64), &kinds)
        };
        match message.as_ref().map(|message| (message, message.view())) {
            Some((message, gst::MessageView::Error(error))) => {
                let text = text(&error.error(), error.debug());
                return End::Failed(
                    wished_in_vain(message, error).map_or(text.clone(), |why| format!("{why} ({text})")),
                );
            }
            Some((message, gst::MessageView::Warning(warning))) => {
                let text = text(&warning.error(), warning.debug());
                tracing::warn!(camera = %plan.camera, warning = text, "camera warns");
                if from_source(message) {
                    source_warning = Some(text);
                }
            }
            Some((_, gst::MessageView::Eos(_))) => {
                return match source_warning {
                    // A dead RTSP server says so: a warning, then the end.
                    Some(warning) => End::Failed(format!("the stream ended after: {warning}")),
                    None if plan.ends => End::Ended,
                    None => End::Over("the stream ended".into()),
                };
            }
            _ if refused => return End::Failed("GStreamer refused to start".into()),
            _ => {}
        }
        let now = Instant::now();
        if let Some(limit) = now.checked_sub(transit) {
            feed.give_up_before(limit);
        }
        feed.expire_triggers(now);
        let quiet = now.saturating_duration_since(feed.last_arrival().unwrap_or(began));
        if let Some(watchdog) = plan.watchdog.filter(|watchdog| quiet >= *watchdog) {
            return End::Failed(format!("no frame for {} ms", watchdog.as_millis()));
        }
        if now.saturating_duration_since(began) >= QUIET_UP && graph.pipeline.current_state() == gst::State::Playing {
            feed.say_up();
        }
    }
}

/// Whether a message comes from a source or from something inside one; decoders warn about torn
/// pictures, which is no sign of a lost camera.
fn from_source(message: &gst::Message) -> bool {
    let mut object = message.src().cloned();
    while let Some(current) = object {
        let source = current.downcast_ref::<gst::Element>().is_some_and(|element| {
            element.element_flags().contains(gst::ElementFlags::SOURCE) && !element.is::<gst::Pipeline>()
        });
        if source {
            return true;
        }
        object = current.parent();
    }
    false
}

/// What a source was asked for and does not offer, where that is why it failed; GStreamer's own words for
/// it are "internal data stream error".
fn wished_in_vain(message: &gst::Message, error: &gst::message::Error) -> Option<String> {
    let flow = error.details()?.get::<i32>("flow-return").ok()?;
    if flow != gst::ffi::GST_FLOW_NOT_NEGOTIATED {
        return None;
    }
    let source = message.src()?.downcast_ref::<gst::Element>()?;
    let wished = source.static_pad("src")?.peer_query_caps(None);
    Some(format!("the camera does not offer {wished}: choose other `caps`, `gst-device-monitor-1.0` lists what it has"))
}

fn text(error: &gst::glib::Error, debug: Option<gst::glib::GString>) -> String {
    match debug {
        // The last line of the debug text is the element's own detail.
        Some(debug) => format!("{error} ({})", debug.lines().last().unwrap_or_default()),
        None => error.to_string(),
    }
}

pub(super) fn describe(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
