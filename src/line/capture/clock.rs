//! When a buffer was captured, as far as its stream tells.

use std::time::Duration;

use gstreamer as gst;
use gstreamer::prelude::*;

use crate::inspection::TimeSource;

/// A stream whose clock says that a frame was captured longer ago than this is not believed.
const MAX_BEHIND: gst::ClockTime = gst::ClockTime::from_seconds(10);

/// What tells when a frame was captured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StreamClock {
    /// Its arrival.
    Arrival,
    /// Its presentation time, which the source has placed on the graph's clock.
    Graph(TimeSource),
    /// Its presentation time, on the camera's own clock.
    Camera,
}

impl StreamClock {
    pub(super) fn of(pipeline: &gst::Pipeline) -> Self {
        let sources = pipeline.iterate_sources().into_iter().filter_map(Result::ok);
        let mut names = sources.filter_map(|source| source.factory()).map(|factory| factory.name());
        names
            .find_map(|name| match name.as_str() {
                // From the RTP time stamps, with the skew between the clocks taken out.
                "rtspsrc" => Some(Self::Graph(TimeSource::Rtp)),
                // From the time at which the driver had the frame.
                "v4l2src" => Some(Self::Graph(TimeSource::Camera)),
                "aravissrc" => Some(Self::Camera),
                _ => None,
            })
            .unwrap_or(Self::Arrival)
    }
}

/// How long ago a buffer was captured by its presentation time on the graph's clock.
pub(super) fn behind(pad: &gst::Pad, pts: gst::ClockTime) -> Option<Duration> {
    let element = pad.parent_element()?;
    let now = element.clock()?.time().checked_sub(element.base_time()?)?;
    let segment = pad.sticky_event::<gst::event::Segment>(0)?;
    let shown = segment.segment().downcast_ref::<gst::ClockTime>()?.to_running_time(pts)?;
    let behind = now.saturating_sub(shown);
    (behind <= MAX_BEHIND).then(|| behind.into())
}
