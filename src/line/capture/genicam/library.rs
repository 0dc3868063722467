//! The functions of Aravis 0.8 that are used, found at run time: a line without a GenICam camera needs no
//! Aravis.

use std::ffi::{c_char, c_int, c_uint, c_void};
use std::sync::OnceLock;

use gstreamer::glib;
use gstreamer::glib::ffi::{GError, gboolean};
use gstreamer::glib::gobject_ffi::GObject;
use libloading::Library;

const FILE: &str = "libaravis-0.8.so.0";

/// An object of Aravis: every one of them is a GObject.
type Object = *mut GObject;
type Error = *mut *mut GError;

macro_rules! functions {
    ($($name:ident($($argument:ty),*) $(-> $result:ty)?;)*) => {
        /// Names, arguments and results as in Aravis's headers.
        #[derive(Debug)]
        pub(super) struct Aravis {
            $(pub(super) $name: unsafe extern "C" fn($($argument),*) $(-> $result)?,)*
        }

        impl Aravis {
            #[expect(unsafe_code, reason = "a library that is loaded at run time")]
            fn load() -> Result<Self, libloading::Error> {
                // SAFETY: Aravis has no other initialisation than that of any GObject library, and its
                // functions have these types for as long as its file has this name. It stays loaded.
                unsafe {
                    let library = Box::leak(Box::new(Library::new(FILE)?));
                    Ok(Self { $($name: *library.get(stringify!($name))?,)* })
                }
            }
        }
    };
}

functions! {
    arv_camera_new(*const c_char, Error) -> Object;
    arv_camera_get_device(Object) -> Object;
    arv_camera_get_region(Object, *mut c_int, *mut c_int, *mut c_int, *mut c_int, Error);
    arv_camera_set_region(Object, c_int, c_int, c_int, c_int, Error);
    arv_camera_get_width_bounds(Object, *mut c_int, *mut c_int, Error);
    arv_camera_get_height_bounds(Object, *mut c_int, *mut c_int, Error);
    arv_camera_dup_available_pixel_formats(Object, *mut c_uint, Error) -> *mut i64;
    arv_camera_set_pixel_format(Object, u32, Error);
    arv_camera_is_frame_rate_available(Object, Error) -> gboolean;
    arv_camera_get_frame_rate_bounds(Object, *mut f64, *mut f64, Error);
    arv_camera_get_frame_rate(Object, Error) -> f64;
    arv_camera_set_frame_rate(Object, f64, Error);
    arv_camera_is_gain_auto_available(Object, Error) -> gboolean;
    arv_camera_set_gain_auto(Object, c_int, Error);
    arv_camera_set_gain(Object, f64, Error);
    arv_camera_is_exposure_auto_available(Object, Error) -> gboolean;
    arv_camera_set_exposure_time_auto(Object, c_int, Error);
    arv_camera_set_exposure_time(Object, f64, Error);
    arv_camera_get_payload(Object, Error) -> c_uint;
    arv_camera_create_stream(Object, *const c_void, *mut c_void, Error) -> Object;
    arv_camera_start_acquisition(Object, Error);
    arv_camera_stop_acquisition(Object, Error);
    arv_camera_software_trigger(Object, Error);
    arv_camera_get_chunk_mode(Object, Error) -> gboolean;
    arv_camera_create_chunk_parser(Object) -> Object;
    arv_camera_is_gv_device(Object) -> gboolean;
    arv_chunk_parser_get_integer_value(Object, Object, *const c_char, Error) -> i64;
    arv_gv_device_get_timestamp_tick_frequency(Object, Error) -> u64;
    arv_device_is_feature_available(Object, *const c_char, Error) -> gboolean;
    arv_device_get_string_feature_value(Object, *const c_char, Error) -> *const c_char;
    arv_device_set_features_from_string(Object, *const c_char, Error) -> gboolean;
    arv_pixel_format_to_gst_caps_string(u32) -> *const c_char;
    arv_pixel_format_from_gst_caps(*const c_char, *const c_char, c_int, c_int) -> u32;
    arv_stream_push_buffer(Object, Object);
    arv_stream_timeout_pop_buffer(Object, u64) -> Object;
    arv_buffer_new_allocate(usize) -> Object;
    arv_buffer_get_status(Object) -> c_int;
    arv_buffer_get_image_data(Object, *mut usize) -> *const c_void;
    arv_buffer_get_image_region(Object, *mut c_int, *mut c_int, *mut c_int, *mut c_int);
    arv_buffer_get_image_pixel_format(Object) -> u32;
    arv_buffer_get_timestamp(Object) -> u64;
    arv_buffer_get_frame_id(Object) -> u64;
}

/// Aravis, loaded at the first call.
///
/// # Errors
/// Where it is not installed, or not the version whose file has this name.
pub(super) fn aravis() -> Result<&'static Aravis, glib::Error> {
    static LOADED: OnceLock<Result<Aravis, String>> = OnceLock::new();
    LOADED.get_or_init(|| Aravis::load().map_err(|error| error.to_string())).as_ref().map_err(|error| {
        let text = format!("{error}; GenICam cameras need Aravis 0.8: apt-get install libaravis-0.8-0");
        glib::Error::new(gstreamer::LibraryError::Init, &text)
    })
}
