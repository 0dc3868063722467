//! A GenICam camera's own software trigger (`TriggerSoftware`).
//!
//! Aravis's source has no way to give that command, so it is given to the camera object that the source
//! holds, by the library's own function.

use std::ffi::c_void;
use std::sync::OnceLock;

use gstreamer as gst;
use gstreamer::glib;
use gstreamer::glib::translate::from_glib_full;
use gstreamer::prelude::*;
use libloading::Library;

use super::pipeline::source_of;

/// The library that the source itself is built on; loaded already where the source is there.
const LIBRARY: &str = "libaravis-0.8.so.0";
/// What a camera is told that shall expose on command.
const SETTING: &str = "TriggerSource=Software";

/// `void arv_camera_software_trigger (ArvCamera *camera, GError **error)`.
type SoftwareTrigger = unsafe extern "C" fn(*mut c_void, *mut *mut glib::ffi::GError);

/// Has a camera expose now.
#[derive(Debug)]
pub(super) struct Release(gst::Element);

impl Release {
    /// Of a graph's camera; none where it is not one that exposes on command.
    pub(super) fn of(pipeline: &gst::Pipeline) -> Option<Self> {
        let source = source_of(pipeline, "aravissrc")?;
        let features = source.property::<Option<String>>("features")?;
        features.split_whitespace().any(|feature| feature == SETTING).then_some(())?;
        Some(Self(source))
    }

    /// Has the camera expose one frame. Waits for its acknowledgement, a millisecond or so; of a camera
    /// that is gone for as long as Aravis tries.
    ///
    /// # Errors
    /// What Aravis says.
    #[expect(unsafe_code, reason = "a C function of Aravis, called as its header says")]
    pub(super) fn fire(&self) -> Result<(), String> {
        static FUNCTION: OnceLock<Result<SoftwareTrigger, String>> = OnceLock::new();
        let load = || {
            let text = |error: libloading::Error| format!("{LIBRARY} cannot be used: {error}");
            // SAFETY: the library is in use by the plugin that made the camera; it stays loaded.
            unsafe {
                let library = Box::leak(Box::new(Library::new(LIBRARY).map_err(text)?));
                library.get::<SoftwareTrigger>(b"arv_camera_software_trigger").map(|symbol| *symbol).map_err(text)
            }
        };
        let camera = super::silence::object(self.0.upcast_ref(), "camera").ok_or("the source has no camera")?;
        let trigger = FUNCTION.get_or_init(load).as_ref().map_err(Clone::clone)?;
        let mut error = std::ptr::null_mut();
        // SAFETY: the object is an ArvCamera, held here, whose methods may be called from any thread; an
        // error that comes back is ours.
        let error: Option<glib::Error> = unsafe {
            trigger(camera.as_ptr().cast(), &raw mut error);
            from_glib_full(error)
        };
        error.map_or(Ok(()), |error| Err(error.to_string()))
    }
}
