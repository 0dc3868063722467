//! Which grabbed frame an arriving picture is, and which grabbed frames will never arrive.
//! Without clock or channel.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use gstreamer as gst;
use gstreamer::prelude::*;

use crate::inspection::{FrameId, PartSource, Stamp};

/// Name of the event that tells the identity of the part on the buffer that follows; its field
/// `part-id` is a string.
pub(super) const PART_EVENT: &str = "linegate-part";

/// Frames between first pad and appsink at most; beyond, the oldest is lost.
const MAX_PENDING: usize = 4096;

/// A frame seen at the first pad.
#[derive(Debug, Clone)]
pub(super) struct Grabbed {
    pub(super) id: FrameId,
    pub(super) stamp: Stamp,
    /// Presentation time, nanoseconds.
    pub(super) pts: Option<u64>,
    pub(super) part: PartMark,
}

/// Whose picture a frame is.
#[derive(Debug, Clone, Default)]
pub(super) struct PartMark {
    pub(super) id: Option<Arc<str>>,
    /// Number of the trigger, where the camera is triggered.
    pub(super) trigger: Option<u64>,
}

impl PartMark {
    pub(super) fn source(&self) -> PartSource {
        if self.id.is_some() { PartSource::Trigger } else { PartSource::Counter }
    }
}

/// Frames between first pad and appsink, in the order of grabbing.
#[derive(Debug, Default)]
pub(super) struct Pending {
    last: u64,
    waiting: VecDeque<Grabbed>,
}

impl Pending {
    /// A number for a part that gets no frame.
    pub(super) fn next(&mut self) -> FrameId {
        self.last += 1;
        FrameId(self.last)
    }

    /// The number that the next frame gets.
    pub(super) fn upcoming(&self) -> u64 {
        self.last + 1
    }

    /// Numbers a frame that was just grabbed. Comes back with the frames that are given up
    /// because too many wait.
    pub(super) fn grab(&mut self, stamp: Stamp, pts: Option<u64>, part: PartMark) -> (FrameId, Option<Grabbed>) {
        let id = self.next();
        let given_up = if self.waiting.len() >= MAX_PENDING { self.waiting.pop_front() } else { None };
        self.waiting.push_back(Grabbed { id, stamp, pts, part });
        (id, given_up)
    }

    /// A picture arrived, known by the number it carries or, where a decoder stripped that, by
    /// its presentation time. Comes back with its frame and with those it has overtaken for good:
    /// decoders put pictures out in order of presentation, so whatever should have been shown
    /// before it will not come any more. None for a picture that is not waited for.
    pub(super) fn arrive(&mut self, id: Option<FrameId>, pts: Option<u64>) -> Option<(Grabbed, Vec<Grabbed>)> {
        let at = match id {
            Some(id) => self.waiting.iter().position(|g| g.id == id),
            None => pts.and_then(|pts| self.waiting.iter().position(|g| g.pts == Some(pts))),
        }?;
        let arrived = self.waiting.remove(at)?;
        let overtaken = |g: &Grabbed| match (g.pts, arrived.pts) {
            (Some(pts), Some(shown)) if pts != shown => pts < shown,
            _ => g.id < arrived.id,
        };
        let (lost, waiting) = std::mem::take(&mut self.waiting).into_iter().partition(|g| overtaken(g));
        self.waiting = waiting;
        Some((arrived, lost.into_iter().collect()))
    }

    /// Takes one frame out that is known not to arrive.
    pub(super) fn withdraw(&mut self, id: FrameId) -> Option<Grabbed> {
        let at = self.waiting.iter().position(|g| g.id == id)?;
        self.waiting.remove(at)
    }

    /// Takes out what was grabbed before `limit`.
    pub(super) fn expire(&mut self, limit: Instant) -> Vec<Grabbed> {
        let fresh = self.waiting.iter().position(|g| g.stamp.monotonic >= limit).unwrap_or(self.waiting.len());
        self.waiting.drain(..fresh).collect()
    }

    /// Takes everything out: the stream is over.
    pub(super) fn clear(&mut self) -> Vec<Grabbed> {
        self.waiting.drain(..).collect()
    }
}

/// More than this is no count of dropped frames but another beginning.
pub(super) const MOST_DROPPED: u64 = 10_000;

/// Follows the number that a v4l2 driver gives every frame it takes, dropped ones included.
#[derive(Debug)]
pub(super) struct DriverCounter(AtomicU64);

impl DriverCounter {
    /// Of a source pad; none where the source does not number what it drops.
    pub(super) fn of(pad: &gst::Pad) -> Option<Self> {
        let factory = pad.parent_element()?.factory()?;
        (factory.name() == "v4l2src").then(Self::new)
    }

    fn new() -> Self {
        Self(AtomicU64::new(gst::ffi::GST_BUFFER_OFFSET_NONE))
    }

    /// Frames dropped between the last one and this, which has the given number.
    pub(super) fn dropped_before(&self, number: u64) -> u64 {
        let none = gst::ffi::GST_BUFFER_OFFSET_NONE;
        let last = self.0.swap(number, Ordering::Relaxed);
        if last == none || number == none {
            return 0;
        }
        // Counted anew where the driver began again.
        number.checked_sub(last + 1).filter(|dropped| *dropped <= MOST_DROPPED).unwrap_or(0)
    }
}

/// A clock that says that a frame was captured longer ago than this is not believed.
pub(super) const MAX_BEHIND: Duration = Duration::from_secs(10);
/// How long one span of a [`CameraClock`]'s minimum lasts.
const CLOCK_SPAN: Duration = Duration::from_secs(30);

/// Places a camera's own clock on ours. What is known is the camera's time since its first frame,
/// and when each frame arrived; transport only ever adds. So the frame that was fastest within the
/// last one or two spans tells how far the clocks are apart, and what another one took longer than
/// it is delay, not capture. The spans end so that a drift of the camera's clock is followed.
///
/// A clock that stands still or runs back, or by which a frame took longer than [`MAX_BEHIND`], is not
/// believed, and begins anew: it was set, or counts in other units than it says.
#[derive(Debug, Default)]
pub(super) struct CameraClock {
    origin: Option<Instant>,
    last_ns: Option<u64>,
    span_began: Option<Instant>,
    /// Arrival since `origin` less the camera's time, nanoseconds: smallest of this span and of the
    /// one before.
    smallest: [Option<i128>; 2],
}

impl CameraClock {
    /// When a frame was captured that arrived `now` and has this time on the camera's clock,
    /// nanoseconds; none where that cannot be.
    pub(super) fn captured(&mut self, now: Instant, camera_ns: u64) -> Option<Instant> {
        if self.last_ns.is_some_and(|last| camera_ns <= last) {
            *self = Self { last_ns: Some(camera_ns), ..Self::default() };
            return None;
        }
        self.last_ns = Some(camera_ns);
        let origin = *self.origin.get_or_insert(now);
        let arrival = now.saturating_duration_since(origin).as_nanos() as i128;
        let apart = arrival - i128::from(camera_ns);
        let began = *self.span_began.get_or_insert(now);
        if now.saturating_duration_since(began) >= CLOCK_SPAN {
            self.span_began = Some(now);
            self.smallest = [None, self.smallest[0]];
        }
        self.smallest[0] = Some(self.smallest[0].map_or(apart, |smallest| smallest.min(apart)));
        let fastest = self.smallest.iter().flatten().min().copied().unwrap_or(apart);
        let delay = Duration::from_nanos(u64::try_from(apart - fastest).unwrap_or(u64::MAX));
        if delay > MAX_BEHIND {
            *self = Self { last_ns: Some(camera_ns), ..Self::default() };
            return None;
        }
        now.checked_sub(delay)
    }
}

/// Whether the bytes of a compressed still picture reach its end. Decoders fill the rest of a
/// torn JPEG with grey and call it a picture; here it is found out before.
pub(super) fn is_whole(media: &str, bytes: &[u8]) -> bool {
    let end = bytes.iter().rposition(|&b| b != 0).map_or(0, |last| last + 1);
    match media {
        // Cameras pad the end with zeros.
        "image/jpeg" => bytes.starts_with(b"\xff\xd8") && bytes[..end].ends_with(b"\xff\xd9"),
        "image/png" => {
            bytes.starts_with(b"\x89PNG\r\n\x1a\n") && bytes[..end].ends_with(b"\0\0\0\0IEND\xae\x42\x60\x82")
        }
        "image/bmp" => bytes
            .get(2..6)
            .and_then(|length| length.try_into().ok())
            .is_some_and(|length| bytes.len() as u64 >= u64::from(u32::from_le_bytes(length))),
        _ => bytes.len() > 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inspection::TimeSource;

    fn grab(pending: &mut Pending, at: Instant, pts: Option<u64>) -> u64 {
        let stamp = Stamp { monotonic: at, utc_us: 0, source: TimeSource::Arrival };
        pending.grab(stamp, pts, PartMark::default()).0.0
    }

    #[test]
    fn frames_that_a_driver_dropped_are_counted_and_a_new_beginning_is_none() {
        let counter = DriverCounter::new();
        let numbers = [7, 8, 11, 0, 1, 3, gst::ffi::GST_BUFFER_OFFSET_NONE, 9, 1_000_000];
        let dropped: Vec<u64> = numbers.iter().map(|&number| counter.dropped_before(number)).collect();
        assert_eq!(dropped, [0, 0, 2, 0, 0, 1, 0, 0, 0]);
    }

    fn ids(frames: &[Grabbed]) -> Vec<u64> {
        frames.iter().map(|g| g.id.0).collect()
    }

    #[test]
    fn a_gap_becomes_lost_when_a_later_picture_arrives() {
        let mut pending = Pending::default();
        let now = Instant::now();
        for pts in [10, 20, 30] {
            grab(&mut pending, now, Some(pts));
        }
        let (arrived, lost) = pending.arrive(Some(FrameId(3)), Some(30)).unwrap();
        assert_eq!((arrived.id.0, ids(&lost)), (3, vec![1, 2]));
        assert!(pending.arrive(Some(FrameId(2)), None).is_none(), "a lost frame cannot come back");
    }

    #[test]
    fn frames_that_a_decoder_reorders_are_not_lost() {
        let mut pending = Pending::default();
        let now = Instant::now();
        // Coded order I P B: the P frame is grabbed before the B frame that is shown before it.
        for pts in [0, 200, 100] {
            grab(&mut pending, now, Some(pts));
        }
        for (id, pts) in [(1, 0), (3, 100), (2, 200)] {
            let (arrived, lost) = pending.arrive(Some(FrameId(id)), Some(pts)).unwrap();
            assert_eq!((arrived.id.0, lost.len()), (id, 0));
        }
    }

    #[test]
    fn without_a_number_the_presentation_time_tells_the_frame() {
        let mut pending = Pending::default();
        let now = Instant::now();
        grab(&mut pending, now, Some(5));
        grab(&mut pending, now, Some(6));
        assert_eq!(pending.arrive(None, Some(5)).unwrap().0.id, FrameId(1));
        assert!(pending.arrive(None, Some(7)).is_none());
        assert!(pending.arrive(None, None).is_none());
    }

    #[test]
    fn what_is_too_old_expires_and_numbers_go_on_after_a_clear() {
        let mut pending = Pending::default();
        let start = Instant::now();
        grab(&mut pending, start, None);
        grab(&mut pending, start + Duration::from_secs(1), None);
        assert_eq!(ids(&pending.expire(start + Duration::from_secs(1))), [1]);
        assert_eq!(ids(&pending.clear()), [2]);
        assert_eq!(grab(&mut pending, start, None), 3);
    }

    #[test]
    fn a_cameras_clock_tells_capture_from_delay_and_its_drift_is_followed() {
        let (start, mut clock) = (Instant::now(), CameraClock::default());
        let ms = Duration::from_millis;
        // The camera's clock runs 100 ppm fast; every third frame is 40 ms late.
        for n in 0..6000u64 {
            let captured = start + ms(20 * n);
            let late = ms(if n % 3 == 1 { 45 } else { 5 });
            let told = clock.captured(captured + late, 20_000_000 * n + 2_000 * n).unwrap();
            let off = told.saturating_duration_since(captured);
            assert!(off <= ms(12), "frame {n} is off by {off:?}");
        }
    }

    #[test]
    fn a_cameras_clock_that_stands_still_runs_back_or_counts_otherwise_makes_no_frame_old() {
        let (start, second) = (Instant::now(), Duration::from_secs(1));
        let told = |times: &[u64]| -> Vec<Option<u128>> {
            let mut clock = CameraClock::default();
            let arrived = (0..).map(|n| start + second * n);
            let delay =
                |(now, &ns): (Instant, &u64)| Some((now - clock.captured(now, ns * 1_000_000_000)?).as_millis());
            arrived.zip(times).map(delay).collect()
        };
        assert_eq!(told(&[0, 0, 0]), [Some(0), None, None]);
        // Set back by eight seconds, then forth by a year.
        assert_eq!(told(&[10, 11, 3, 4, 5]), [Some(0), Some(0), None, Some(0), Some(0)]);
        assert_eq!(told(&[10, 31_000_000, 31_000_001]), [Some(0), Some(0), Some(0)]);
        // A tenth of a second each: the frames seem older and older, until nobody believes it.
        let mut clock = CameraClock::default();
        let delays: Vec<_> = (0..40)
            .map(|n| {
                let now = start + second * n;
                clock.captured(now, u64::from(n) * 100_000_000).map(|captured| now - captured)
            })
            .collect();
        assert_eq!(delays.iter().filter(|delay| delay.is_none()).count(), 3);
        assert!(delays.iter().flatten().all(|delay| *delay <= MAX_BEHIND));
    }

    #[test]
    fn a_torn_picture_is_told_from_a_whole_one() {
        assert!(is_whole("image/jpeg", b"\xff\xd8\xff\xe0 data \xff\xd9\0\0\0"));
        assert!(!is_whole("image/jpeg", b"\xff\xd8\xff\xe0 da"));
        assert!(!is_whole("image/png", b"\x89PNG\r\n\x1a\n data"));
        assert!(!is_whole("image/jpeg", b""));
        assert!(!is_whole("image/bmp", b"BM\x40\0\0\0torn"));
    }
}
