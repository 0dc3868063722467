//! A way around GStreamer 1.22.0, the version of Debian 12.
//!
//! There, a v4l2 source that stops leaves its buffer pool behind for ever, and with it the open device
//! file. As long as somebody holds it, the kernel keeps the device's number: a camera that is plugged in
//! again becomes `/dev/video1`, and `/dev/video0` never comes back. 1.22.1 and its successors free the
//! pool. The source does, too, where it is told to wait for its buffers instead of leaving them to the
//! kernel; nobody holds one by then, for pictures are copied out.

use gstreamer as gst;

/// GStreamer's variable that has a v4l2 source wait for its buffers.
const FORCE_DRAIN: &str = "GST_V4L2_FORCE_DRAIN";

/// Whether a GStreamer of this version leaves pools behind.
fn leaves_pools_behind(version: (u32, u32, u32, u32)) -> bool {
    matches!(version, (1, 22, 0, _))
}

/// Prepares the process for cameras. To be called first in `main`.
///
/// # Safety
/// No other thread may run yet: the environment is written.
#[expect(unsafe_code, reason = "GStreamer takes this setting from the environment alone")]
pub unsafe fn prepare_process() {
    if leaves_pools_behind(gst::version()) && std::env::var_os(FORCE_DRAIN).is_none() {
        // SAFETY: the caller says that no other thread reads the environment.
        unsafe { std::env::set_var(FORCE_DRAIN, "1") };
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn only_the_version_with_the_fault_is_told_to_drain() {
        assert!(super::leaves_pools_behind((1, 22, 0, 0)));
        for sound in [(1, 20, 7, 0), (1, 22, 1, 0), (1, 24, 0, 0)] {
            assert!(!super::leaves_pools_behind(sound), "{sound:?}");
        }
    }
}
