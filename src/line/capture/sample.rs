//! A GStreamer sample -> a picture of our own.

use gstreamer as gst;
use gstreamer_video as gst_video;
use gstreamer_video::prelude::*;
use gstreamer_video::{VideoColorMatrix, VideoColorRange, VideoFormat};

use crate::inspection::{CameraPicture, PixelFormat, Size, YuvColour, YuvMatrix};

/// Largest picture side, pixels: a bound on what a broken header may make us allocate.
const MAX_SIDE: u32 = 32_768;

/// Copies a sample out, rows tightly packed: GStreamer pads them, and a camera driver may take its
/// buffer back. The only copy of a frame at full size on its way through the line.
pub(super) fn read(sample: &gst::Sample) -> Result<CameraPicture, &'static str> {
    let buffer = sample.buffer().ok_or("there is no buffer")?;
    if buffer.flags().contains(gst::BufferFlags::CORRUPTED) {
        return Err("the decoder calls it corrupted");
    }
    let caps = sample.caps().ok_or("there are no caps")?;
    let info = gst_video::VideoInfo::from_caps(caps).map_err(|_| "the caps are no video caps")?;
    if info.width() == 0 || info.height() == 0 || info.width() > MAX_SIDE || info.height() > MAX_SIDE {
        return Err("its size is out of bounds");
    }
    let size = Size { width: info.width() as usize, height: info.height() as usize };
    let format = format(&info)?;
    let frame = gst_video::VideoFrameRef::from_buffer_ref_readable(buffer, &info)
        .map_err(|_| "the buffer is smaller than its caps say")?;
    let planes = planes(size, format);
    let mut bytes = Vec::with_capacity(planes.iter().map(|(row, rows)| row * rows).sum());
    for (plane, (row, rows)) in (0..).zip(planes) {
        if rows == 0 {
            continue;
        }
        let stride = *frame.plane_stride().get(plane as usize).ok_or("a plane is missing")?;
        let stride = usize::try_from(stride).ok().filter(|&stride| stride > 0).ok_or("it stands upside down")?;
        let pixels = frame.plane_data(plane).map_err(|_| "it has no pixels")?;
        for line in pixels.chunks(stride).take(rows) {
            bytes.extend_from_slice(line.get(..row).ok_or("a row is too short")?);
        }
    }
    CameraPicture::new(size, format, bytes).map_err(|_| "rows are missing")
}

/// Bytes of a row, and rows, of every plane.
fn planes(size: Size, format: PixelFormat) -> [(usize, usize); 3] {
    let Size { width, height } = size;
    match format {
        PixelFormat::Rgb => [(width * 3, height), (0, 0), (0, 0)],
        PixelFormat::Grey => [(width, height), (0, 0), (0, 0)],
        PixelFormat::Yuv { chroma, interleaved: true, .. } => {
            [(width, height), (chroma.width * 2, chroma.height), (0, 0)]
        }
        PixelFormat::Yuv { chroma, interleaved: false, .. } => {
            [(width, height), (chroma.width, chroma.height), (chroma.width, chroma.height)]
        }
    }
}

fn format(info: &gst_video::VideoInfo) -> Result<PixelFormat, &'static str> {
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
