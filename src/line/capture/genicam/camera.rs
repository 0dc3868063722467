//! A GenICam camera of Aravis, with the rules of its use kept.
#![expect(unsafe_code, reason = "C functions of Aravis, called as its headers say")]

use std::ffi::{CStr, CString, c_char, c_int, c_uint};
use std::ptr::{null, null_mut};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use gstreamer as gst;
use gstreamer::glib;
use gstreamer::glib::translate::{from_glib_full, from_glib_none};
use gstreamer::prelude::*;

use super::library::{Aravis, aravis};
use super::object::{Handle, call};
use super::stream::Stream;

/// `ARV_AUTO_OFF`.
const MANUAL: c_int = 0;
/// Where a camera says whether it follows a PTP master: in the standard's names (SFNC) of today and of before.
const PTP_STATUS: [&CStr; 2] = [c"PtpStatus", c"GevIEEE1588Status"];

fn c_string(text: &str) -> Result<CString, glib::Error> {
    let refuse = |_| glib::Error::new(gst::ResourceError::Settings, "the text has a zero in it");
    CString::new(text).map_err(refuse)
}

/// What a stream asks of its camera.
#[derive(Debug, Clone)]
pub(super) struct Settings {
    /// Name or address; empty for the first camera that is found.
    pub(super) camera: String,
    /// Exposure time, microseconds; negative leaves it.
    pub(super) exposure_us: f64,
    /// Gain as the camera counts it, mostly dB; negative leaves it.
    pub(super) gain: f64,
    /// More settings, `Name=Value`, separated by blanks.
    pub(super) features: String,
    /// Whole frames that can wait.
    pub(super) buffers: u32,
    /// Whether lost packets are asked for again (GigE Vision).
    pub(super) packet_resend: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            camera: String::new(),
            exposure_us: -1.0,
            gain: -1.0,
            features: String::new(),
            buffers: 8,
            packet_resend: true,
        }
    }
}

/// An open camera, in control of it.
#[derive(Debug)]
pub(super) struct Camera {
    aravis: &'static Aravis,
    object: Handle,
    device: Handle,
    lost: Arc<AtomicBool>,
}

impl Camera {
    /// Opens the camera of that name. May take seconds.
    ///
    /// # Errors
    /// Where there is no such camera, somebody else controls it, or Aravis is missing.
    pub(super) fn open(name: &str) -> Result<Self, glib::Error> {
        let aravis = aravis()?;
        let name = c_string(name)?;
        let wanted = if name.is_empty() { null() } else { name.as_ptr() };
        // SAFETY: a name or none; the object that comes back without an error is ours, its device the camera's.
        let (camera, device): (glib::Object, glib::Object) = unsafe {
            let camera = from_glib_full(call(|error| (aravis.arv_camera_new)(wanted, error))?);
            let device = from_glib_none((aravis.arv_camera_get_device)(glib::Object::as_ptr(&camera)));
            (camera, device)
        };
        let lost = Arc::new(AtomicBool::new(false));
        // After heartbeats that nobody answered (GigE Vision), or when it is unplugged (USB3 Vision).
        if glib::subclass::SignalId::lookup("control-lost", device.type_()).is_some() {
            let told = lost.clone();
            device.connect("control-lost", false, move |_| {
                told.store(true, Ordering::SeqCst);
                None
            });
        }
        Ok(Self { aravis, object: Handle(camera), device: Handle(device), lost })
    }

    /// Whether it has said that it no longer answers.
    pub(super) fn is_lost(&self) -> bool {
        self.lost.load(Ordering::SeqCst)
    }

    /// Every format, size and rate that it offers.
    pub(super) fn caps(&self) -> Result<gst::Caps, glib::Error> {
        let (aravis, camera) = (self.aravis, self.object.raw());
        let bounds = |function: unsafe extern "C" fn(_, _, _, _)| {
            let (mut least, mut most): (c_int, c_int) = (0, 0);
            // SAFETY: the camera is ours, the numbers are written before it returns.
            call(|error| unsafe { function(camera, &raw mut least, &raw mut most, error) })?;
            Ok::<_, glib::Error>(gst::IntRange::new(least, most.max(least + 1)))
        };
        let (width, height) =
            (bounds(aravis.arv_camera_get_width_bounds)?, bounds(aravis.arv_camera_get_height_bounds)?);
        let rates = self.has_frame_rate().then(|| {
            let (mut least, mut most) = (0.0, 0.0);
            // SAFETY: as above.
            call(|error| unsafe {
                (aravis.arv_camera_get_frame_rate_bounds)(camera, &raw mut least, &raw mut most, error);
            })?;
            let fraction = |rate: f64| gst::Fraction::approximate_f64(rate).unwrap_or(gst::Fraction::new(1, 1));
            Ok::<_, glib::Error>((fraction(least), fraction(most)))
        });
        let rates = rates.transpose()?.filter(|(least, most)| least < most);
        let mut caps = gst::Caps::new_empty();
        for format in self.pixel_formats()? {
            // SAFETY: a string of the library's own, or none for a format that GStreamer does not know.
            let text: Option<String> = unsafe { from_glib_none((aravis.arv_pixel_format_to_gst_caps_string)(format)) };
            let Some(mut structure) = text.and_then(|text| text.parse::<gst::Structure>().ok()) else { continue };
            structure.set("width", width);
            structure.set("height", height);
            if let Some((least, most)) = rates {
                structure.set("framerate", gst::FractionRange::new(least, most));
            }
            caps.make_mut().append_structure(structure);
        }
        Ok(caps)
    }

    fn pixel_formats(&self) -> Result<Vec<u32>, glib::Error> {
        let mut count: c_uint = 0;
        // SAFETY: the camera is ours; so is the array of so many formats that comes back, or none.
        unsafe {
            let formats = call(|error| {
                (self.aravis.arv_camera_dup_available_pixel_formats)(self.object.raw(), &raw mut count, error)
            })?;
            if formats.is_null() {
                return Ok(Vec::new());
            }
            let found =
                std::slice::from_raw_parts(formats, count as usize).iter().map(|&format| format as u32).collect();
            glib::ffi::g_free(formats.cast());
            Ok(found)
        }
    }

    fn has_frame_rate(&self) -> bool {
        // SAFETY: the camera is ours.
        call(|error| unsafe { (self.aravis.arv_camera_is_frame_rate_available)(self.object.raw(), error) })
            .is_ok_and(|available| available != 0)
    }

    /// Frames a second, where it says.
    pub(super) fn frame_rate(&self) -> Option<f64> {
        // SAFETY: the camera is ours.
        let rate = || call(|error| unsafe { (self.aravis.arv_camera_get_frame_rate)(self.object.raw(), error) });
        self.has_frame_rate().then(rate)?.ok()
    }

    /// Width and height, pixels, as it is set now.
    pub(super) fn size(&self) -> Result<(i32, i32), glib::Error> {
        let (mut width, mut height) = (0, 0);
        // SAFETY: the camera is ours; what is not asked for may be null.
        call(|error| unsafe {
            let region = self.aravis.arv_camera_get_region;
            region(self.object.raw(), null_mut(), null_mut(), &raw mut width, &raw mut height, error);
        })?;
        Ok((width, height))
    }

    /// Sets it up for caps that it offers: format, size and rate, then exposure and gain, the features last.
    ///
    /// # Errors
    /// What the camera says to a setting that it refuses.
    pub(super) fn configure(&self, caps: &gst::StructureRef, settings: &Settings) -> Result<(), glib::Error> {
        let (aravis, camera) = (self.aravis, self.object.raw());
        let number = |name: &str| caps.get::<i32>(name).ok();
        let (name, format) = (c_string(caps.name())?, c_string(caps.get::<&str>("format").unwrap_or_default())?);
        let features = c_string(&settings.features)?;
        let (width, height) = self.size()?;
        let (width, height) = (number("width").filter(|&n| n != width), number("height").filter(|&n| n != height));
        // SAFETY: the camera is ours, the strings live until the end.
        unsafe {
            let shown = if format.is_empty() { null() } else { format.as_ptr() };
            let (bits, depth) = (number("bpp").unwrap_or(0), number("depth").unwrap_or(0));
            let format = (aravis.arv_pixel_format_from_gst_caps)(name.as_ptr(), shown, bits, depth);
            call(|error| (aravis.arv_camera_set_pixel_format)(camera, format, error))?;
            if width.is_some() || height.is_some() {
                let (width, height) = (width.unwrap_or(-1), height.unwrap_or(-1));
                call(|error| (aravis.arv_camera_set_region)(camera, -1, -1, width, height, error))?;
            }
            if let Ok(rate) = caps.get::<gst::Fraction>("framerate")
                && rate.numer() > 0
                && self.has_frame_rate()
            {
                let rate = f64::from(rate.numer()) / f64::from(rate.denom());
                call(|error| (aravis.arv_camera_set_frame_rate)(camera, rate, error))?;
            }
            if settings.exposure_us >= 0.0 {
                if call(|error| (aravis.arv_camera_is_exposure_auto_available)(camera, error))? != 0 {
                    call(|error| (aravis.arv_camera_set_exposure_time_auto)(camera, MANUAL, error))?;
                }
                call(|error| (aravis.arv_camera_set_exposure_time)(camera, settings.exposure_us, error))?;
            }
            if settings.gain >= 0.0 {
                if call(|error| (aravis.arv_camera_is_gain_auto_available)(camera, error))? != 0 {
                    call(|error| (aravis.arv_camera_set_gain_auto)(camera, MANUAL, error))?;
                }
                call(|error| (aravis.arv_camera_set_gain)(camera, settings.gain, error))?;
            }
            let device = self.device.raw();
            call(|error| (aravis.arv_device_set_features_from_string)(device, features.as_ptr(), error)).map(|_| ())
        }
    }

    /// Makes its stream, with its buffers, and starts it.
    pub(super) fn start(&self, settings: &Settings) -> Result<Arc<Stream>, glib::Error> {
        let (aravis, camera) = (self.aravis, self.object.raw());
        // SAFETY: the camera is ours; what comes back without an error is, too, and a stream owns its buffers.
        let stream = unsafe {
            let payload = call(|error| (aravis.arv_camera_get_payload)(camera, error))?;
            let stream = call(|error| (aravis.arv_camera_create_stream)(camera, null(), null_mut(), error))?;
            let stream: glib::Object = from_glib_full(stream);
            if stream.find_property("packet-resend").is_some() {
                let wish = if settings.packet_resend { "always" } else { "never" };
                stream.set_property_from_str("packet-resend", wish);
            }
            for _ in 0..settings.buffers {
                (aravis.arv_stream_push_buffer)(stream.as_ptr(), (aravis.arv_buffer_new_allocate)(payload as usize));
            }
            call(|error| (aravis.arv_camera_start_acquisition)(camera, error))?;
            Handle(stream)
        };
        Ok(Arc::new(Stream { aravis, object: stream, chunks: self.chunk_clock() }))
    }

    /// The reader of its frames' chunk data, where it was told to send some, and ticks a second.
    fn chunk_clock(&self) -> Option<(Handle, u64)> {
        let (aravis, camera) = (self.aravis, self.object.raw());
        // SAFETY: the camera is ours, and so is the parser that comes back.
        unsafe {
            call(|error| (aravis.arv_camera_get_chunk_mode)(camera, error)).ok().filter(|&active| active != 0)?;
            let parser = (aravis.arv_camera_create_chunk_parser)(camera);
            let parser: Option<glib::Object> = from_glib_full(parser);
            let frequency = if (aravis.arv_camera_is_gv_device)(camera) != 0 {
                call(|error| (aravis.arv_gv_device_get_timestamp_tick_frequency)(self.device.raw(), error)).ok()?
            } else {
                0
            };
            // Where nothing is told, nanoseconds, as the standard has it for other transports.
            Some((Handle(parser?), if frequency == 0 { 1_000_000_000 } else { frequency }))
        }
    }

    /// Stops the stream; waits for the camera's answer, of one that is gone for as long as Aravis tries.
    pub(super) fn stop(&self) -> Result<(), glib::Error> {
        // SAFETY: the camera is ours.
        call(|error| unsafe { (self.aravis.arv_camera_stop_acquisition)(self.object.raw(), error) })
    }

    /// Has it expose one frame (`TriggerSoftware`); waits for its acknowledgement, a millisecond or so.
    pub(super) fn trigger(&self) -> Result<(), glib::Error> {
        // SAFETY: the camera is ours.
        call(|error| unsafe { (self.aravis.arv_camera_software_trigger)(self.object.raw(), error) })
    }

    /// Where it says whether its clock follows another's; none where it cannot.
    pub(super) fn ptp_status(&self) -> Option<&'static CStr> {
        let has = |name: &&CStr| {
            let function = self.aravis.arv_device_is_feature_available;
            // SAFETY: the device is the camera's, the name a constant.
            call(|error| unsafe { function(self.device.raw(), name.as_ptr(), error) }).is_ok_and(|has| has != 0)
        };
        PTP_STATUS.into_iter().find(has)
    }

    /// Whether its clock follows a PTP master now.
    pub(super) fn is_synchronised(&self, status: &CStr) -> bool {
        let function = self.aravis.arv_device_get_string_feature_value;
        // SAFETY: the device is the camera's; the string is its own and copied at once.
        let said: Option<String> = unsafe {
            let text: *const c_char =
                call(|error| function(self.device.raw(), status.as_ptr(), error)).unwrap_or(null());
            from_glib_none(text)
        };
        said.as_deref() == Some("Slave")
    }
}
