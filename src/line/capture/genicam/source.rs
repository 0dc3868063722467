use std::ffi::CStr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use gstreamer as gst;
use gstreamer::glib;
use gstreamer::prelude::*;
use gstreamer::subclass::prelude::*;
use gstreamer_base::prelude::*;
use gstreamer_base::subclass::base_src::CreateSuccess;
use gstreamer_base::subclass::prelude::*;

use super::super::stamp::MOST_DROPPED;
use super::camera::{Camera, Settings};
use super::stream::{Arrived, Frame, Stream};
use super::{LOST_EVENT, PTP_CAPS};

/// How long it waits for a frame before it looks whether it shall stop.
const LOOK: Duration = Duration::from_millis(100);
/// A camera that streams by itself and sends nothing for so long, and for so many frames' time, is given up.
const SILENT: Duration = Duration::from_secs(2);
const SILENT_FRAMES: f64 = 3.0;
/// Time between two looks at whether the camera's clock is synchronised.
const PTP_LOOK: Duration = Duration::from_secs(10);
/// Rows of what GStreamer calls raw video begin at multiples of so many bytes.
const ROW: usize = 4;

/// An open camera, and what is known of its stream.
#[derive(Debug)]
struct Open {
    camera: Arc<Camera>,
    caps: gst::Caps,
    stream: Option<Arc<Stream>>,
    silence: Duration,
    last: Instant,
    /// The last frame's number, and the first one's time.
    number: Option<u64>,
    began_ns: Option<u64>,
    ptp: Option<&'static CStr>,
    synchronised: bool,
    asked: Instant,
}

#[derive(Debug, Default)]
pub struct GenicamSource {
    settings: Mutex<Settings>,
    patient: AtomicBool,
    flushing: AtomicBool,
    /// Whether it gave the camera up.
    gave_up: AtomicBool,
    open: Mutex<Option<Open>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // The guarded values are whole between any two statements.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Frames of which nothing came between two numbers. GigE Vision counts in 16 bits, without zero, where the
/// camera is not of the newer kind.
fn missed(last: u64, number: u64) -> u64 {
    const SHORT: u64 = 0xffff;
    let passed = if number > last {
        number - last
    } else if last <= SHORT {
        SHORT - last + number
    } else {
        0
    };
    passed.checked_sub(1).filter(|missed| *missed <= MOST_DROPPED).unwrap_or(0)
}

#[glib::object_subclass]
impl ObjectSubclass for GenicamSource {
    const NAME: &'static str = "LinegateGenicamSource";
    type Type = super::GenicamSource;
    type ParentType = gstreamer_base::PushSrc;
}

impl ObjectImpl for GenicamSource {
    fn constructed(&self) {
        self.parent_constructed();
        let element = self.obj();
        element.set_live(true);
        element.set_format(gst::Format::Time);
    }

    fn properties() -> &'static [glib::ParamSpec] {
        static PROPERTIES: OnceLock<Vec<glib::ParamSpec>> = OnceLock::new();
        PROPERTIES.get_or_init(|| {
            let number = |name: &str, blurb: &str| {
                glib::ParamSpecDouble::builder(name).blurb(blurb).minimum(-1.0).maximum(1e9).default_value(-1.0).build()
            };
            vec![
                glib::ParamSpecString::builder("camera-name").blurb("Name or address; none for the first").build(),
                number("exposure", "Exposure time, microseconds; -1 leaves it"),
                number("gain", "Gain; -1 leaves it"),
                glib::ParamSpecString::builder("features").blurb("More settings: Name=Value ...").build(),
                glib::ParamSpecUInt::builder("buffers")
                    .blurb("Frames that can wait")
                    .minimum(2)
                    .maximum(1024)
                    .default_value(8)
                    .build(),
                glib::ParamSpecBoolean::builder("packet-resend")
                    .blurb("Ask again for lost packets")
                    .default_value(true)
                    .build(),
                glib::ParamSpecBoolean::builder("patient").blurb("Silence is no fault").build(),
            ]
        })
    }

    fn set_property(&self, _id: usize, value: &glib::Value, spec: &glib::ParamSpec) {
        let mut settings = lock(&self.settings);
        let text = || value.get::<Option<String>>().ok().flatten().unwrap_or_default();
        // GLib has checked name, type and range.
        match spec.name() {
            "camera-name" => settings.camera = text(),
            "exposure" => settings.exposure_us = value.get().unwrap_or(-1.0),
            "gain" => settings.gain = value.get().unwrap_or(-1.0),
            "features" => settings.features = text(),
            "buffers" => settings.buffers = value.get().unwrap_or(settings.buffers),
            "packet-resend" => settings.packet_resend = value.get().unwrap_or(true),
            _ => self.patient.store(value.get().unwrap_or_default(), Ordering::SeqCst),
        }
    }

    fn property(&self, _id: usize, spec: &glib::ParamSpec) -> glib::Value {
        let settings = lock(&self.settings);
        match spec.name() {
            "camera-name" => settings.camera.to_value(),
            "exposure" => settings.exposure_us.to_value(),
            "gain" => settings.gain.to_value(),
            "features" => settings.features.to_value(),
            "buffers" => settings.buffers.to_value(),
            "packet-resend" => settings.packet_resend.to_value(),
            _ => self.patient.load(Ordering::SeqCst).to_value(),
        }
    }
}

impl GstObjectImpl for GenicamSource {}

impl ElementImpl for GenicamSource {
    fn metadata() -> Option<&'static gst::subclass::ElementMetadata> {
        static METADATA: OnceLock<gst::subclass::ElementMetadata> = OnceLock::new();
        Some(METADATA.get_or_init(|| {
            gst::subclass::ElementMetadata::new(
                "GenICam camera",
                "Source/Video",
                "Frames of a GigE Vision or USB3 Vision camera, and word of those that are missing",
                "Linegate",
            )
        }))
    }

    fn pad_templates() -> &'static [gst::PadTemplate] {
        static TEMPLATES: OnceLock<Vec<gst::PadTemplate>> = OnceLock::new();
        TEMPLATES.get_or_init(|| {
            let (direction, presence) = (gst::PadDirection::Src, gst::PadPresence::Always);
            // Fails only for a name that GStreamer cannot print.
            gst::PadTemplate::new("src", direction, presence, &gst::Caps::new_any()).into_iter().collect()
        })
    }
}

impl BaseSrcImpl for GenicamSource {
    fn start(&self) -> Result<(), gst::ErrorMessage> {
        let name = lock(&self.settings).camera.clone();
        let said = |error: glib::Error| {
            gst::error_msg!(gst::ResourceError::NotFound, ["camera \"{name}\" cannot be opened: {error}"])
        };
        let camera = Camera::open(&name).map_err(said)?;
        let caps = camera.caps().map_err(said)?;
        let ptp = camera.ptp_status();
        let now = Instant::now();
        self.gave_up.store(false, Ordering::SeqCst);
        *lock(&self.open) = Some(Open {
            camera: Arc::new(camera),
            caps,
            stream: None,
            silence: SILENT,
            last: now,
            number: None,
            began_ns: None,
            ptp,
            synchronised: false,
            asked: now,
        });
        Ok(())
    }

    fn stop(&self) -> Result<(), gst::ErrorMessage> {
        let Some(open) = lock(&self.open).take() else { return Ok(()) };
        let let_go = move || {
            if open.stream.is_some()
                && let Err(error) = open.camera.stop()
            {
                tracing::debug!(%error, "a camera did not stop in order");
            }
            // Its thread ends before the camera is left.
            drop(open.stream);
            drop(open.camera);
        };
        if self.gave_up.load(Ordering::SeqCst) {
            // Aravis asks a camera that is gone again and again, for up to ten seconds; the next one need not
            // wait for that. One that is there after all is free in a moment.
            let spawned = std::thread::Builder::new().name("camera-gone".into()).spawn(let_go);
            spawned.map(drop).map_err(|error| gst::error_msg!(gst::ResourceError::Close, ["{error}"]))
        } else {
            let_go();
            Ok(())
        }
    }

    fn unlock(&self) -> Result<(), gst::ErrorMessage> {
        self.flushing.store(true, Ordering::SeqCst);
        Ok(())
    }

    fn unlock_stop(&self) -> Result<(), gst::ErrorMessage> {
        self.flushing.store(false, Ordering::SeqCst);
        Ok(())
    }

    fn caps(&self, filter: Option<&gst::Caps>) -> Option<gst::Caps> {
        let caps = lock(&self.open).as_ref().map_or_else(gst::Caps::new_any, |open| open.caps.clone());
        Some(
            filter.map_or_else(
                || caps.clone(),
                |filter| filter.intersect_with_mode(&caps, gst::CapsIntersectMode::First),
            ),
        )
    }

    /// What is left open stays as the camera has it.
    fn fixate(&self, mut caps: gst::Caps) -> gst::Caps {
        let camera = lock(&self.open).as_ref().map(|open| open.camera.clone());
        if let Some(camera) = camera {
            caps.truncate();
            if let (Ok((width, height)), Some(structure)) = (camera.size(), caps.make_mut().structure_mut(0)) {
                structure.fixate_field_nearest_int("width", width);
                structure.fixate_field_nearest_int("height", height);
                if let Some(rate) = camera.frame_rate().and_then(gst::Fraction::approximate_f64) {
                    structure.fixate_field_nearest_fraction("framerate", rate);
                }
            }
        }
        self.parent_fixate(caps)
    }

    fn set_caps(&self, caps: &gst::Caps) -> Result<(), gst::LoggableError> {
        let settings = lock(&self.settings).clone();
        let mut open = lock(&self.open);
        let (Some(open), Some(structure)) = (open.as_mut(), caps.structure(0)) else {
            return Err(gst::loggable_error!(gst::CAT_RUST, "there is no camera"));
        };
        let start = || {
            if open.stream.is_some() {
                open.camera.stop()?;
            }
            open.camera.configure(structure, &settings)?;
            open.camera.start(&settings)
        };
        match start() {
            Ok(stream) => {
                open.stream = Some(stream);
                let frames = open.camera.frame_rate().filter(|rate| *rate > 0.0).map(|rate| SILENT_FRAMES / rate);
                open.silence =
                    frames.and_then(|time| Duration::try_from_secs_f64(time).ok()).unwrap_or(SILENT).max(SILENT);
                (open.last, open.number, open.began_ns) = (Instant::now(), None, None);
                open.synchronised = open.ptp.is_some_and(|status| open.camera.is_synchronised(status));
                open.asked = Instant::now();
                Ok(())
            }
            Err(error) => {
                gst::element_imp_error!(self, gst::ResourceError::Settings, ["the camera cannot be set up: {error}"]);
                Err(gst::loggable_error!(gst::CAT_RUST, "{error}"))
            }
        }
    }
}

impl PushSrcImpl for GenicamSource {
    fn create(&self, _buffer: Option<&mut gst::BufferRef>) -> Result<CreateSuccess, gst::FlowError> {
        loop {
            if self.flushing.load(Ordering::SeqCst) {
                return Err(gst::FlowError::Flushing);
            }
            let (camera, stream) = {
                let open = lock(&self.open);
                let open = open.as_ref().ok_or(gst::FlowError::Error)?;
                (open.camera.clone(), open.stream.clone().ok_or(gst::FlowError::NotNegotiated)?)
            };
            let frame = stream.next(LOOK.as_micros() as u64);
            if let Some(frame) = frame.filter(|frame| frame.arrived() != Arrived::Never) {
                if let Some(buffer) = self.take(frame) {
                    return Ok(CreateSuccess::NewBuffer(buffer));
                }
                continue;
            }
            let quiet = lock(&self.open).as_ref().map(|open| (open.last.elapsed(), open.silence));
            let problem = if camera.is_lost() {
                "the camera no longer answers".to_owned()
            } else if let Some((quiet, silence)) = quiet
                && quiet >= silence
                && !self.patient.load(Ordering::SeqCst)
            {
                format!("the camera sent nothing for {:.1} s", quiet.as_secs_f64())
            } else {
                continue;
            };
            self.gave_up.store(true, Ordering::SeqCst);
            gst::element_imp_error!(self, gst::ResourceError::Read, ["{problem}"]);
            return Err(gst::FlowError::Error);
        }
    }
}

impl GenicamSource {
    pub(super) fn trigger(&self) -> Result<(), String> {
        let camera = lock(&self.open).as_ref().map(|open| open.camera.clone());
        camera.ok_or("the camera is not open")?.trigger().map_err(|error| error.to_string())
    }

    /// A frame's buffer; none for a torn one. Tells what is missing before it.
    fn take(&self, frame: Frame) -> Option<gst::Buffer> {
        let whole = frame.arrived() == Arrived::Whole;
        let (camera, pts, synchronised, missing) = {
            let mut open = lock(&self.open);
            let open = open.as_mut()?;
            let number = frame.id();
            let missing = open.number.replace(number).map_or(0, |last| missed(last, number));
            open.last = Instant::now();
            let now_ns = frame.timestamp_ns();
            let began_ns = open.began_ns.filter(|began| *began <= now_ns).unwrap_or(now_ns);
            open.began_ns = Some(began_ns);
            let pts = now_ns - began_ns;
            let ask = open.ptp.filter(|_| open.asked.elapsed() >= PTP_LOOK).map(|status| (open.camera.clone(), status));
            if ask.is_some() {
                open.asked = Instant::now();
            }
            (ask, pts, open.synchronised.then_some(now_ns), missing)
        };
        if missing > 0 || !whole {
            let event = gst::Structure::builder(LOST_EVENT).field("missing", missing).field("torn", !whole).build();
            self.obj().static_pad("src")?.push_event(gst::event::CustomDownstream::new(event));
        }
        if let Some((camera, status)) = camera {
            let synchronised = camera.is_synchronised(status);
            if let Some(open) = lock(&self.open).as_mut() {
                open.synchronised = synchronised;
            }
        }
        whole.then(|| {
            let mut buffer = pixels(frame);
            let made = buffer.make_mut();
            made.set_pts(gst::ClockTime::from_nseconds(pts));
            if let Some(ptp_ns) = synchronised {
                static CAPS: LazyLock<gst::Caps> = LazyLock::new(|| gst::Caps::builder(PTP_CAPS).build());
                gst::ReferenceTimestampMeta::add(made, &CAPS, gst::ClockTime::from_nseconds(ptp_ns), None);
            }
            buffer
        })
    }
}

/// A frame's pixels, in the camera's own buffer where its rows are such as GStreamer wants them.
fn pixels(frame: Frame) -> gst::Buffer {
    let (row, rows) = frame.rows();
    if row % ROW == 0 {
        return gst::Buffer::from_slice(frame);
    }
    let stride = row.next_multiple_of(ROW);
    let mut padded = vec![0; stride * rows];
    for (to, from) in padded.chunks_mut(stride).zip(frame.as_ref().chunks(row)) {
        to[..from.len()].copy_from_slice(from);
    }
    gst::Buffer::from_mut_slice(padded)
}

#[cfg(test)]
mod tests {
    use super::missed;

    #[test]
    fn frames_between_two_numbers_are_counted_and_a_new_beginning_is_none() {
        let cases = [(7, 8, 0), (7, 10, 2), (65_535, 1, 0), (65_534, 2, 2), (70_000, 70_002, 1), (9, 1, 0), (9, 9, 0)];
        for (last, number, missing) in cases {
            assert_eq!(missed(last, number), missing, "{last} {number}");
        }
        assert_eq!(missed(0, 1), 0);
        assert_eq!(missed(5, 1 << 40), 0);
        assert_eq!(missed(1 << 40, 3), 0);
    }
}
