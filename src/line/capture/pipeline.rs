//! One camera's GStreamer graph, built from its description.

use std::sync::Arc;
use std::time::Duration;

use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_app as gst_app;

use super::clock::StreamClock;
use super::feed::{Feed, watch_first_pad};
use super::folder::{self, FolderSource};
use super::genicam::{self, GenicamSource};
use super::{CaptureError, LaunchDescription};
use crate::config::{CameraConfig, TriggerMode};

/// What follows every description. Frames of the formats that [`super::sample`] reads pass as they are,
/// for to convert one at full size takes longer than to scale it; `dither=none` and the default matrix
/// keep RGB pictures exact; few buffers and no dropping make a slow reader felt upstream instead of
/// losing frames unseen.
const ENDING: &str = "! videoconvert dither=none \
     ! video/x-raw,format={RGB,GRAY8,NV12,I420,Y42B,Y444} \
     ! appsink name=linegate-sink sync=false max-buffers=2 drop=false enable-last-sample=false";

/// A camera that was found to be buildable.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) camera: Arc<str>,
    pub(super) deadline: Option<Duration>,
    pub(super) watchdog: Option<Duration>,
    pub(super) ends: bool,
    pub(super) trigger: TriggerMode,
    pub(super) trigger_timeout: Duration,
    pub(super) lent_buffers: usize,
    text: String,
}

impl Plan {
    /// Fills the description in and builds the graph once for trial.
    pub(super) fn new(camera: &CameraConfig) -> Result<Self, CaptureError> {
        gst::init().map_err(CaptureError::Initialise)?;
        folder::register().and_then(|()| genicam::register()).map_err(CaptureError::Register)?;
        let text = LaunchDescription::find(&camera.pipeline)?.render(&camera.parameters)?;
        let plan = Self {
            camera: camera.name.as_str().into(),
            deadline: camera.deadline_ms.map(Duration::from_millis),
            watchdog: camera.watchdog_ms.map(Duration::from_millis),
            ends: camera.ends,
            trigger: camera.trigger,
            trigger_timeout: Duration::from_millis(camera.trigger_timeout_ms),
            lent_buffers: camera.lent_buffers,
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

    /// Builds the graph of that number at its feed, with its probes; it does not play yet.
    pub(super) fn build(&self, feed: &Arc<Feed>, number: u64, position: u64) -> Result<Graph, CaptureError> {
        let pipeline = self.parse()?;
        let clock = StreamClock::of(&pipeline);
        for pad in self.first_pads(&pipeline)? {
            watch_first_pad(&pad, feed, number, clock);
        }
        let folder = pipeline.iterate_sources().into_iter().filter_map(Result::ok).find_map(|e| e.downcast().ok());
        if let Some(folder) = &folder {
            FolderSource::set_position(folder, position);
        }
        if let Some(sink) = pipeline.by_name("linegate-sink").and_then(|e| e.downcast::<gst_app::AppSink>().ok()) {
            // Weakly, as in the probe.
            let feed = Arc::downgrade(feed);
            let on_sample = move |sink: &gst_app::AppSink| {
                let sample = sink.pull_sample().map_err(|_| gst::FlowError::Eos)?;
                let feed = feed.upgrade().filter(|feed| feed.hears(number)).ok_or(gst::FlowError::Flushing)?;
                feed.arrive(&sample);
                Ok(gst::FlowSuccess::Ok)
            };
            sink.set_callbacks(gst_app::AppSinkCallbacks::builder().new_sample(on_sample).build());
        }
        let genicam = source_of(&pipeline, genicam::NAME).and_then(|source| source.downcast::<GenicamSource>().ok());
        if let Some(source) = genicam.as_ref().filter(|_| self.trigger != TriggerMode::Free) {
            source.be_patient();
        }
        let on_command = |source: &GenicamSource| self.trigger == TriggerMode::Software && source.exposes_on_command();
        feed.set_release(number, genicam.filter(on_command));
        Ok(Graph { pipeline, folder })
    }
}

/// A graph's source of that kind (`v4l2src`), where it has one.
pub(super) fn source_of(pipeline: &gst::Pipeline, kind: &str) -> Option<gst::Element> {
    let mut sources = pipeline.iterate_sources().into_iter().filter_map(Result::ok);
    sources.find(|source| source.factory().is_some_and(|factory| factory.name() == kind))
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
