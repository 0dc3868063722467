//! The settings that a v4l2 camera is asked for, held against those that it has.
//!
//! GStreamer passes over what a camera lacks or refuses: a slip of the pen in `exposure` would inspect
//! parts in the wrong light, in silence.

use std::ffi::CStr;
use std::fs::File;
use std::os::fd::AsFd;

use gstreamer as gst;
use gstreamer::prelude::*;
use rustix::ioctl::{Opcode, Updater, ioctl, opcode};

use super::pipeline::source_of;

/// `struct v4l2_query_ext_ctrl` of the kernel's `videodev2.h`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Query {
    id: u32,
    kind: u32,
    name: [u8; 32],
    minimum: i64,
    maximum: i64,
    step: u64,
    default_value: i64,
    flags: u32,
    elem_size: u32,
    elems: u32,
    nr_of_dims: u32,
    dims: [u32; 4],
    reserved: [u32; 32],
}

/// `VIDIOC_QUERY_EXT_CTRL`.
const QUERY: Opcode = opcode::read_write::<Query>(b'V', 103);
/// Asks for the control behind the one of that number.
const NEXT: u32 = 0x8000_0000;
/// Flags of controls that cannot be set: disabled for good, read-only.
const DISABLED: u32 = 0x0001;
const READ_ONLY: u32 = 0x0004;
/// Types that GStreamer sets: integer, boolean, menu, button, bit mask, integer menu.
const SETTABLE: [u32; 6] = [1, 2, 3, 4, 8, 9];

/// A setting of a camera.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Control {
    name: String,
    minimum: i64,
    maximum: i64,
    read_only: bool,
}

/// What is wrong with the settings that the graph's v4l2 camera is asked for, and what it has. None where
/// nothing is, or where the device cannot be asked: then GStreamer tells why.
pub(super) fn problem(pipeline: &gst::Pipeline) -> Option<String> {
    let source = source_of(pipeline, "v4l2src")?;
    let wished = source.property::<Option<gst::Structure>>("extra-controls").filter(|wished| wished.n_fields() > 0)?;
    let device = source.property::<Option<String>>("device")?;
    let controls = controls(&File::open(device).ok()?);
    if controls.is_empty() {
        return None;
    }
    wished.iter().find_map(|(name, value)| held_against(&controls, name, value.get::<i32>().ok()))
}

/// What is wrong with one wish; `value` is none where it is no whole number.
fn held_against(controls: &[Control], name: &str, value: Option<i32>) -> Option<String> {
    let Some(control) = controls.iter().find(|control| control.name == name) else {
        let has = |control: &Control| format!("{} ({} to {})", control.name, control.minimum, control.maximum);
        let all = controls.iter().filter(|control| !control.read_only).map(has).collect::<Vec<_>>().join(", ");
        return Some(format!("the camera has no setting `{name}` for `controls`; it has {all}"));
    };
    let Control { minimum, maximum, read_only, .. } = control;
    match value {
        _ if *read_only => Some(format!("the camera's setting `{name}` is read-only: leave it out of `controls`")),
        Some(value) if (*minimum..=*maximum).contains(&i64::from(value)) => None,
        Some(value) => {
            Some(format!("the camera's setting `{name}` takes {minimum} to {maximum}; `controls` asks for {value}"))
        }
        None => Some(format!("the camera's setting `{name}` takes a whole number, {minimum} to {maximum}")),
    }
}

/// What a device can be set to; nothing where it is none of Video4Linux.
#[expect(unsafe_code, reason = "the kernel's call, with the structure that its header gives")]
fn controls(device: &File) -> Vec<Control> {
    let mut controls = Vec::new();
    let mut query = Query { id: NEXT, ..Query::default() };
    // SAFETY: the call reads and writes one `v4l2_query_ext_ctrl`, which `Query` is to the byte.
    while unsafe { ioctl(device.as_fd(), Updater::<QUERY, Query>::new(&mut query)) }.is_ok() {
        if SETTABLE.contains(&query.kind) && query.flags & DISABLED == 0 {
            let name = CStr::from_bytes_until_nul(&query.name).map(CStr::to_string_lossy).unwrap_or_default();
            controls.push(Control {
                name: plain_name(&name),
                minimum: query.minimum,
                maximum: query.maximum,
                read_only: query.flags & READ_ONLY != 0,
            });
        }
        query = Query { id: query.id | NEXT, ..Query::default() };
    }
    controls
}

/// A control's name as `v4l2-ctl` and GStreamer write it: `White Balance, Auto` is `white_balance_auto`.
fn plain_name(name: &str) -> String {
    let words = name.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    words.map(str::to_ascii_lowercase).collect::<Vec<_>>().join("_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_structure_and_the_call_are_the_kernels() {
        // _IOWR('V', 103, struct v4l2_query_ext_ctrl), 232 bytes.
        assert_eq!((size_of::<Query>(), QUERY), (232, 0xc0e8_5667));
    }

    #[test]
    fn names_are_those_of_v4l2_ctl() {
        assert_eq!(plain_name("White Balance Temperature, Auto"), "white_balance_temperature_auto");
        assert_eq!(plain_name("Exposure (Absolute)"), "exposure_absolute");
    }

    #[test]
    fn what_a_camera_lacks_or_refuses_is_named_with_what_it_takes() {
        let control = |name: &str, read_only| Control { name: name.into(), minimum: 0, maximum: 255, read_only };
        let controls = [control("gain", false), control("temperature", true)];
        let say = |name, value| held_against(&controls, name, value);
        assert_eq!(say("gain", Some(255)), None);
        assert_eq!(
            say("gian", Some(1)).unwrap(),
            "the camera has no setting `gian` for `controls`; it has gain (0 to 255)"
        );
        assert!(say("gain", Some(256)).unwrap().contains("takes 0 to 255; `controls` asks for 256"));
        assert!(say("gain", None).unwrap().contains("a whole number"));
        assert!(say("temperature", Some(1)).unwrap().contains("read-only"));
    }
}
