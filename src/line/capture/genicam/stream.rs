//! A camera's stream and its frames.
#![expect(unsafe_code, reason = "C functions of Aravis, called as its headers say")]

use std::ffi::c_int;
use std::ptr::null_mut;
use std::sync::Arc;

use gstreamer::glib;
use gstreamer::glib::gobject_ffi::GObject;
use gstreamer::glib::translate::{IntoGlibPtr, from_glib_full};

use super::library::Aravis;
use super::object::{Handle, call};

/// `ARV_BUFFER_STATUS_SUCCESS`.
const SUCCESS: c_int = 0;
/// `ARV_BUFFER_STATUS_CLEARED` and `ARV_BUFFER_STATUS_ABORTED`: never filled, or broken off because the stream stops.
const UNUSED: [c_int; 2] = [1, 7];

/// A camera's stream, with the buffers that it fills.
#[derive(Debug)]
pub(super) struct Stream {
    pub(super) aravis: &'static Aravis,
    pub(super) object: Handle,
    /// Reads its frames' chunk data, where they have some, and how many ticks make a second.
    pub(super) chunks: Option<(Handle, u64)>,
}

impl Stream {
    /// The next frame, whole or not, if one comes in `patience_us` microseconds.
    pub(super) fn next(self: &Arc<Self>, patience_us: u64) -> Option<Frame> {
        // SAFETY: the stream is ours, and so is a buffer that it lets go of.
        let buffer: Option<glib::Object> =
            unsafe { from_glib_full((self.aravis.arv_stream_timeout_pop_buffer)(self.object.raw(), patience_us)) };
        Some(Frame { stream: self.clone(), buffer: Some(Handle(buffer?)) })
    }
}

/// A frame in the stream's own buffer, which goes back to the stream when this is dropped.
#[derive(Debug)]
pub(super) struct Frame {
    stream: Arc<Stream>,
    /// Taken when it is dropped alone.
    buffer: Option<Handle>,
}

/// How a frame came.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Arrived {
    Whole,
    /// Packets are missing, or it is another size than was agreed.
    Torn,
    /// No frame: the stream was being stopped.
    Never,
}

impl Frame {
    fn raw(&self) -> *mut GObject {
        self.buffer.as_ref().map_or(null_mut(), Handle::raw)
    }

    pub(super) fn arrived(&self) -> Arrived {
        // SAFETY: the buffer is ours.
        match unsafe { (self.stream.aravis.arv_buffer_get_status)(self.raw()) } {
            SUCCESS => Arrived::Whole,
            status if UNUSED.contains(&status) => Arrived::Never,
            _ => Arrived::Torn,
        }
    }

    /// The number that the camera gave it.
    pub(super) fn id(&self) -> u64 {
        // SAFETY: the buffer is ours.
        unsafe { (self.stream.aravis.arv_buffer_get_frame_id)(self.raw()) }
    }

    /// When it was exposed, nanoseconds on the camera's clock: as its chunk data say, else the stream.
    pub(super) fn timestamp_ns(&self) -> u64 {
        let aravis = self.stream.aravis;
        if let Some((parser, frequency)) = &self.stream.chunks
            // SAFETY: the buffer and the parser are ours.
            && let Ok(ticks) = call(|error| unsafe {
                (aravis.arv_chunk_parser_get_integer_value)(parser.raw(), self.raw(), c"ChunkTimestamp".as_ptr(), error)
            })
            && let Some(ticks) = u64::try_from(ticks).ok().filter(|&ticks| ticks > 0)
        {
            let nanoseconds = u128::from(ticks) * 1_000_000_000 / u128::from(*frequency);
            return u64::try_from(nanoseconds).unwrap_or(u64::MAX);
        }
        // SAFETY: the buffer is ours.
        unsafe { (aravis.arv_buffer_get_timestamp)(self.raw()) }
    }

    /// Bytes of a row of pixels, and rows.
    pub(super) fn rows(&self) -> (usize, usize) {
        let (mut width, mut height) = (0, 0);
        // SAFETY: the buffer is ours, the numbers are written before it returns.
        let format = unsafe {
            let region = self.stream.aravis.arv_buffer_get_image_region;
            region(self.raw(), null_mut(), null_mut(), &raw mut width, &raw mut height);
            (self.stream.aravis.arv_buffer_get_image_pixel_format)(self.raw())
        };
        // Bits of a pixel stand in the format's third byte (PFNC).
        let bits = (format >> 16 & 0xff) as usize;
        let (width, height) = (usize::try_from(width).unwrap_or(0), usize::try_from(height).unwrap_or(0));
        (width * bits / 8, height)
    }
}

impl AsRef<[u8]> for Frame {
    fn as_ref(&self) -> &[u8] {
        let mut size = 0;
        // SAFETY: the buffer is ours and nobody writes to it until it is given back, when this is dropped.
        unsafe {
            let data = (self.stream.aravis.arv_buffer_get_image_data)(self.raw(), &raw mut size);
            if data.is_null() { &[] } else { std::slice::from_raw_parts(data.cast(), size) }
        }
    }
}

impl Drop for Frame {
    fn drop(&mut self) {
        if let Some(buffer) = self.buffer.take() {
            // SAFETY: both are ours; the stream takes the buffer over.
            unsafe { (self.stream.aravis.arv_stream_push_buffer)(self.stream.object.raw(), buffer.0.into_glib_ptr()) }
        }
    }
}
