//! What all of Aravis's objects and functions have in common.
#![expect(unsafe_code, reason = "objects and errors of a C library")]

use std::ptr::null_mut;

use gstreamer::glib;
use gstreamer::glib::ffi::GError;
use gstreamer::glib::gobject_ffi::GObject;
use gstreamer::glib::translate::from_glib_full;
use gstreamer::prelude::*;

/// A reference to an object of Aravis.
#[derive(Debug)]
pub(super) struct Handle(pub(super) glib::Object);

// SAFETY: cameras, devices, streams and buffers of Aravis guard themselves, whichever thread calls them;
// GObject's own counting is atomic.
unsafe impl Send for Handle {}
// SAFETY: as above.
unsafe impl Sync for Handle {}

impl Handle {
    pub(super) fn raw(&self) -> *mut GObject {
        self.0.as_ptr()
    }
}

/// Calls a function that tells its error by its last argument.
pub(super) fn call<T>(function: impl FnOnce(*mut *mut GError) -> T) -> Result<T, glib::Error> {
    let mut error = null_mut();
    let value = function(&raw mut error);
    // SAFETY: an error that comes back is ours.
    if error.is_null() { Ok(value) } else { Err(unsafe { from_glib_full(error) }) }
}
