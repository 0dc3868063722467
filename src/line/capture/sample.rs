//! A GStreamer sample -> a picture of our own.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use gstreamer as gst;
use gstreamer_video::prelude::*;
use gstreamer_video::video_frame::Readable;
use gstreamer_video::{VideoColorMatrix, VideoColorRange, VideoFormat, VideoFrame, VideoInfo};

use crate::inspection::{CameraPicture, LentPixels, PLANES, PixelFormat, Size, YuvColour, YuvMatrix};

/// Largest picture side, pixels: a bound on what a broken header may make us allocate.
const MAX_SIDE: u32 = 32_768;

/// What a camera has lent to the line: its frames stay in its buffers until they are scaled, and are copied
/// where too many wait for that.
#[derive(Debug)]
pub(super) struct Lending {
    lent: Arc<AtomicUsize>,
    at_most: usize,
}

impl Lending {
    /// Lends so many buffers at the same time at most.
    pub(super) fn new(at_most: usize) -> Self {
        Self { lent: Arc::default(), at_most }
    }

    /// Takes one more, unless there are too many.
    fn lend(&self) -> Option<Loan> {
        let more = |lent| (lent < self.at_most).then_some(lent + 1);
        let lent = self.lent.fetch_update(Ordering::SeqCst, Ordering::SeqCst, more);
        lent.is_ok().then(|| Loan(self.lent.clone()))
    }
}

/// Counts until it is dropped.
struct Loan(Arc<AtomicUsize>);

impl Drop for Loan {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A mapped buffer that goes back to its camera when nobody looks at it any more.
struct Lent {
    frame: VideoFrame<Readable>,
    _loan: Option<Loan>,
}

impl LentPixels for Lent {
    fn plane(&self, number: usize) -> &[u8] {
        u32::try_from(number).ok().and_then(|number| self.frame.plane_data(number).ok()).unwrap_or_default()
    }
}

/// A sample as a picture. Its pixels stay in the camera's buffer; they are copied, rows tightly packed, where
/// too many buffers are lent already or the rows begin amid a pixel.
pub(super) fn read(sample: &gst::Sample, lending: &Lending) -> Result<CameraPicture, &'static str> {
    let buffer = sample.buffer_owned().ok_or("there is no buffer")?;
    if buffer.flags().contains(gst::BufferFlags::CORRUPTED) {
        return Err("the decoder calls it corrupted");
    }
    let caps = sample.caps().ok_or("there are no caps")?;
    let info = VideoInfo::from_caps(caps).map_err(|_| "the caps are no video caps")?;
    if info.width() == 0 || info.height() == 0 || info.width() > MAX_SIDE || info.height() > MAX_SIDE {
        return Err("its size is out of bounds");
    }
    let size = Size { width: info.width() as usize, height: info.height() as usize };
    let format = format(&info)?;
    let frame =
        VideoFrame::from_buffer_readable(buffer, &info).map_err(|_| "the buffer is smaller than its caps say")?;
    let mut strides = [0; PLANES];
    for ((number, stride), (_, rows)) in strides.iter_mut().enumerate().zip(format.planes(size)) {
        if rows > 0 {
            let given = *frame.plane_stride().get(number).ok_or("a plane is missing")?;
            *stride = usize::try_from(given).ok().filter(|&given| given > 0).ok_or("it stands upside down")?;
        }
    }
    let whole_pixels = format != PixelFormat::Rgb || strides[0].is_multiple_of(3);
    let loan = lending.lend().filter(|_| whole_pixels);
    let stays = loan.is_some();
    let lent = Arc::new(Lent { frame, _loan: loan });
    let picture = CameraPicture::lent(size, format, strides, lent).map_err(|_| "rows are missing")?;
    Ok(if stays { picture } else { picture.owned() })
}

fn format(info: &VideoInfo) -> Result<PixelFormat, &'static str> {
    let interleaved = match info.format() {
        VideoFormat::Rgb => return Ok(PixelFormat::Rgb),
        VideoFormat::Gray8 => return Ok(PixelFormat::Grey),
        VideoFormat::Nv12 => true,
        VideoFormat::I420 | VideoFormat::Y42b | VideoFormat::Y444 => false,
        _ => return Err("its format is none that was asked for"),
    };
    let chroma = Size { width: info.comp_width(1) as usize, height: info.comp_height(1) as usize };
    let colorimetry = info.colorimetry();
    let matrix = match colorimetry.matrix() {
        VideoColorMatrix::Bt709 => YuvMatrix::Bt709,
        VideoColorMatrix::Bt2020 => YuvMatrix::Bt2020,
        // What says nothing or something rare is read as GStreamer reads it.
        _ => YuvMatrix::Bt601,
    };
    let full_range = colorimetry.range() == VideoColorRange::Range0_255;
    Ok(PixelFormat::Yuv { chroma, interleaved, colour: YuvColour { matrix, full_range } })
}
