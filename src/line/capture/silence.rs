//! A triggered camera that is silent.
//!
//! Aravis's source gives a camera up that sends nothing for two seconds, which is what one that waits for
//! its next part does. Only the loop that takes frames stops then: the camera stays armed, and its
//! stream goes on filling buffers. So for triggered cameras that loop is set going again, which loses
//! nothing and builds nothing. Whether the camera is still there is told by its control connection: the
//! device's signal `control-lost`, after heartbeats that nobody answered (GigE Vision) or when it is
//! unplugged (USB3 Vision).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use gstreamer as gst;
use gstreamer::glib;
use gstreamer::prelude::*;

use super::pipeline::source_of;

/// Longest time between the source's message that it failed and its end.
const END: Duration = Duration::from_secs(1);

/// The Aravis source of a triggered camera's graph.
#[derive(Debug)]
pub(super) struct Silence {
    source: gst::Element,
    pad: gst::Pad,
    control_lost: Arc<AtomicBool>,
    /// Whether a flush does not leave the source.
    stays: Arc<AtomicBool>,
}

impl Silence {
    /// Of a graph that does not play yet; none where it has no Aravis source whose device can be heard.
    pub(super) fn of(pipeline: &gst::Pipeline) -> Option<Self> {
        let source = source_of(pipeline, "aravissrc")?;
        // Opened when the source was given the camera's name.
        let device = object(source.upcast_ref(), "camera").and_then(|camera| object(&camera, "device"))?;
        glib::subclass::SignalId::lookup("control-lost", device.type_())?;
        let control_lost = Arc::new(AtomicBool::new(false));
        let told = control_lost.clone();
        device.connect("control-lost", false, move |_| {
            told.store(true, Ordering::SeqCst);
            None
        });
        let pad = source.static_pad("src")?;
        let stays = Arc::new(AtomicBool::new(false));
        let kept = stays.clone();
        let kinds = gst::PadProbeType::EVENT_DOWNSTREAM | gst::PadProbeType::EVENT_FLUSH;
        pad.add_probe(kinds, move |_, info| {
            let stays = match info.event().map(|event| event.type_()) {
                // A camera has no end.
                Some(gst::EventType::Eos) => true,
                Some(gst::EventType::FlushStop) => kept.load(Ordering::SeqCst),
                _ => false,
            };
            if stays {
                info.data = None;
                gst::PadProbeReturn::Handled
            } else {
                gst::PadProbeReturn::Ok
            }
        })?;
        Some(Self { source, pad, control_lost, stays })
    }

    /// Whether the device no longer answers.
    pub(super) fn is_gone(&self) -> bool {
        self.control_lost.load(Ordering::SeqCst)
    }

    /// Whether a message is the source's own.
    pub(super) fn is_from_it(&self, message: &gst::Message) -> bool {
        message.src() == Some(self.source.upcast_ref())
    }

    /// Sets the source's loop going again after it gave up; `false` where it cannot.
    pub(super) fn go_on(&self) -> bool {
        let until = Instant::now() + END;
        // It says first that it failed, then sends its end, then stops: only behind that it can begin again.
        while !self.pad.pad_flags().contains(gst::PadFlags::EOS) {
            if Instant::now() > until {
                return false;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        drop(self.pad.stream_lock());
        // The pad forgets the end first: a frame must not meet it. What sets the loop going then sends the
        // same once more, behind the first frame perhaps, so that one stays here.
        let forgotten = self.pad.push_event(gst::event::FlushStop::new(false));
        self.stays.store(true, Ordering::SeqCst);
        self.source.send_event(gst::event::FlushStop::new(false));
        self.stays.store(false, Ordering::SeqCst);
        forgotten
    }
}

/// A property that holds an object.
pub(super) fn object(of: &glib::Object, name: &str) -> Option<glib::Object> {
    of.find_property(name).filter(|property| property.value_type().is_a(glib::Object::static_type()))?;
    of.property_value(name).get::<Option<glib::Object>>().ok()?
}
