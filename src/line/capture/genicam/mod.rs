//! `linegategenicamsrc`: a GStreamer source for GenICam cameras (GigE Vision, USB3 Vision), built on the
//! library of Aravis.
//!
//! Aravis has a source of its own, which passes over frames that came torn or not at all, gives a camera up
//! that waits for its next part, and keeps the camera's time to itself. This one tells every frame that is
//! missing by an event [`LOST_EVENT`], waits for a triggered camera for as long as it answers, and says when
//! its clock follows a PTP master ([`PTP_CAPS`]).

mod camera;
mod library;
mod object;
mod source;
mod stream;

use std::sync::LazyLock;

use gstreamer as gst;
use gstreamer::glib;
use gstreamer::prelude::*;
use gstreamer::subclass::prelude::*;

/// Name of the element, and of its factory.
pub(super) const NAME: &str = "linegategenicamsrc";
/// Name of the event that tells of frames which the camera took and which did not arrive: `missing` (unsigned
/// 64 bits) of which nothing came, and whether one came `torn` behind them.
pub(super) const LOST_EVENT: &str = "linegate-lost";
/// Caps of the reference time stamp (nanoseconds since the epoch of PTP) on frames of a synchronised camera.
pub(super) const PTP_CAPS: &str = "timestamp/x-ptp";
/// What a camera is told that shall expose on command.
const ON_COMMAND: &str = "TriggerSource=Software";

glib::wrapper! {
    /// The element; see the module.
    pub struct GenicamSource(ObjectSubclass<source::GenicamSource>)
        @extends gstreamer_base::PushSrc, gstreamer_base::BaseSrc, gst::Element, gst::Object;
}

/// Makes the element known to GStreamer in this process.
pub(super) fn register() -> Result<(), glib::BoolError> {
    static REGISTERED: LazyLock<Result<(), glib::BoolError>> =
        LazyLock::new(|| gst::Element::register(None, NAME, gst::Rank::NONE, GenicamSource::static_type()));
    REGISTERED.clone()
}

impl GenicamSource {
    /// Lets it wait for its camera's next frame for as long as the camera answers.
    pub(super) fn be_patient(&self) {
        self.set_property("patient", true);
    }

    /// Whether its camera exposes on command (`TriggerSource=Software` among its features).
    pub(super) fn exposes_on_command(&self) -> bool {
        self.property::<String>("features").split_whitespace().any(|feature| feature == ON_COMMAND)
    }

    /// Has the camera expose one frame. Waits for its acknowledgement, a millisecond or so; of a camera that
    /// is gone for as long as Aravis tries.
    ///
    /// # Errors
    /// What Aravis says; that the camera is not open.
    pub(super) fn trigger(&self) -> Result<(), String> {
        self.imp().trigger()
    }
}
