//! When a buffer was captured, as far as its stream tells.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use gstreamer as gst;
use gstreamer::prelude::*;

use super::genicam;
use super::stamp::MAX_BEHIND;
use crate::inspection::{Stamp, TimeSource};

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
                "aravissrc" | genicam::NAME => Some(Self::Camera),
                _ => None,
            })
            .unwrap_or(Self::Arrival)
    }
}

/// TAI, which PTP counts in, is ahead of UTC by so much since 2017.
const TAI: Duration = Duration::from_secs(37);
/// A camera's time that is further from ours than this is not the time of day.
const BELIEVED: Duration = Duration::from_secs(10);

/// The time of day, since the Unix epoch, of a synchronised camera's time stamp. Its master gives TAI, as PTP
/// has it, or UTC, as many in a plant do: whichever is near to ours. None for one that counts from when it
/// was switched on.
fn time_of_day(ptp: Duration, ours: Duration) -> Option<Duration> {
    let read = [Some(ptp), ptp.checked_sub(TAI)].into_iter().flatten();
    read.min_by_key(|time| time.abs_diff(ours)).filter(|time| time.abs_diff(ours) <= BELIEVED)
}

/// When a frame of a camera that follows a PTP master was captured, since the Unix epoch; none of another.
pub(super) fn ptp_time(buffer: &gst::BufferRef, ours: Duration) -> Option<Duration> {
    let mut stamps = buffer.iter_meta::<gst::ReferenceTimestampMeta>();
    let is_ptp = |caps: &gst::StructureRef| caps.name() == genicam::PTP_CAPS;
    let stamp = stamps.find(|stamp| stamp.reference().structure(0).is_some_and(is_ptp))?;
    time_of_day(stamp.timestamp().into(), ours)
}

/// Since the Unix epoch, by our clock.
pub(super) fn our_time() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// As a [`Stamp`] counts.
pub(super) fn micros(time: Duration) -> i64 {
    i64::try_from(time.as_micros()).unwrap_or(i64::MAX)
}

/// The stamp of what has no capture time of its own.
pub(super) fn arrived_now() -> Stamp {
    Stamp { monotonic: Instant::now(), utc_us: micros(our_time()), source: TimeSource::Arrival }
}

/// How long ago a buffer was captured by its presentation time on the graph's clock.
pub(super) fn behind(pad: &gst::Pad, pts: gst::ClockTime) -> Option<Duration> {
    let element = pad.parent_element()?;
    let now = element.clock()?.time().checked_sub(element.base_time()?)?;
    let segment = pad.sticky_event::<gst::event::Segment>(0)?;
    let shown = segment.segment().downcast_ref::<gst::ClockTime>()?.to_running_time(pts)?;
    let behind = now.saturating_sub(shown).into();
    (behind <= MAX_BEHIND).then_some(behind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_synchronised_camera_may_count_in_tai_or_utc_but_not_from_when_it_was_switched_on() {
        let seconds = Duration::from_secs;
        let ours = seconds(1_800_000_000);
        let captured = ours.saturating_sub(Duration::from_millis(30));
        assert_eq!(time_of_day(captured, ours), Some(captured));
        assert_eq!(time_of_day(captured + TAI, ours), Some(captured));
        for far in [seconds(5_000), ours.saturating_sub(seconds(60)), ours + seconds(60), Duration::ZERO] {
            assert_eq!(time_of_day(far, ours), None, "{far:?}");
        }
    }
}
