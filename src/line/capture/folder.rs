//! `linegatefoldersrc`: a GStreamer source that replays a folder of pictures like a live camera.
//!
//! Four pads, one per file format, all fed from one thread: the decoders behind them run in that
//! thread, so that pictures of mixed formats and sizes keep their order. Before each picture goes
//! an event [`PART_EVENT`] that names the part.

use std::sync::LazyLock;

use gstreamer as gst;
use gstreamer::glib;
use gstreamer::prelude::*;

use super::stamp::PART_EVENT;

glib::wrapper! {
    /// The element; see the module.
    pub struct FolderSource(ObjectSubclass<imp::FolderSource>) @extends gst::Element, gst::Object;
}

/// Makes the element known to GStreamer in this process.
pub(super) fn register() -> Result<(), glib::BoolError> {
    // Once: of two registrations at the same time one's factory is freed while the other's elements use it.
    static REGISTERED: LazyLock<Result<(), glib::BoolError>> = LazyLock::new(|| {
        gst::Element::register(None, "linegatefoldersrc", gst::Rank::NONE, FolderSource::static_type())
    });
    REGISTERED.clone()
}

impl FolderSource {
    /// How many pictures were sent; where a rebuilt graph goes on.
    pub(super) fn position(&self) -> u64 {
        self.property("position")
    }

    /// Begins at this picture of the endless row of repetitions.
    pub(super) fn set_position(&self, position: u64) {
        self.set_property("position", position);
    }
}

mod imp {
    use std::path::{Path, PathBuf};
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError};
    use std::thread::JoinHandle;
    use std::time::{Duration, Instant};

    use gst::subclass::prelude::*;

    use super::{PART_EVENT, glib, gst};
    use gst::prelude::*;

    /// Largest picture file, bytes; a larger one is sent torn and thus becomes a lost frame.
    const MAX_FILE_BYTES: u64 = 512 << 20;
    /// A replay further behind than this gives its schedule up instead of rushing after it.
    const MAX_BACKLOG: Duration = Duration::from_secs(1);
    /// Pad name and media type per format.
    const FORMATS: [(&str, &str); 4] =
        [("png", "image/png"), ("jpeg", "image/jpeg"), ("bmp", "image/bmp"), ("tiff", "image/tiff")];

    #[derive(Debug, Clone)]
    struct Settings {
        location: String,
        rate: f64,
        repeat: bool,
    }

    impl Default for Settings {
        fn default() -> Self {
            Self { location: String::new(), rate: 5.0, repeat: false }
        }
    }

    #[derive(Debug, Default)]
    struct Stop {
        wanted: Mutex<bool>,
        changed: Condvar,
    }

    impl Stop {
        /// Waits until `due`; `true` when the element is being stopped.
        fn wait(&self, due: Instant) -> bool {
            let mut wanted = self.wanted.lock().unwrap_or_else(PoisonError::into_inner);
            loop {
                let left = due.saturating_duration_since(Instant::now());
                if *wanted || left.is_zero() {
                    return *wanted;
                }
                wanted = self.changed.wait_timeout(wanted, left).unwrap_or_else(PoisonError::into_inner).0;
            }
        }

        fn now(&self) {
            *self.wanted.lock().unwrap_or_else(PoisonError::into_inner) = true;
            self.changed.notify_all();
        }
    }

    #[derive(Debug, Default)]
    pub struct FolderSource {
        settings: Mutex<Settings>,
        position: Arc<AtomicU64>,
        pads: OnceLock<Vec<gst::Pad>>,
        running: Mutex<Option<(Arc<Stop>, JoinHandle<()>)>>,
    }

    #[glib::object_subclass]
    impl ObjectSubclass for FolderSource {
        const NAME: &'static str = "LinegateFolderSource";
        type Type = super::FolderSource;
        type ParentType = gst::Element;
    }

    impl ObjectImpl for FolderSource {
        fn constructed(&self) {
            self.parent_constructed();
            let element = self.obj();
            element.set_element_flags(gst::ElementFlags::SOURCE);
            let pads: Vec<_> = Self::pad_templates().iter().map(gst::Pad::from_template).collect();
            for pad in &pads {
                // Only a second pad of the same name could be refused.
                if element.add_pad(pad).is_err() {
                    tracing::error!(pad = %pad.name(), "the folder source could not add its pad");
                }
            }
            let _ = self.pads.set(pads);
        }

        fn properties() -> &'static [glib::ParamSpec] {
            static PROPERTIES: OnceLock<Vec<glib::ParamSpec>> = OnceLock::new();
            PROPERTIES.get_or_init(|| {
                vec![
                    glib::ParamSpecString::builder("location").nick("Folder").blurb("Folder of pictures").build(),
                    glib::ParamSpecDouble::builder("rate")
                        .nick("Rate")
                        .blurb("Frames a second")
                        .minimum(0.01)
                        .maximum(1000.0)
                        .default_value(5.0)
                        .build(),
                    glib::ParamSpecBoolean::builder("loop").nick("Loop").blurb("Begin again at the end").build(),
                    glib::ParamSpecUInt64::builder("position").nick("Position").blurb("Pictures sent").build(),
                ]
            })
        }

        fn set_property(&self, _id: usize, value: &glib::Value, spec: &glib::ParamSpec) {
            let mut settings = self.settings.lock().unwrap_or_else(PoisonError::into_inner);
            // GLib has checked name, type and range.
            match spec.name() {
                "location" => settings.location = value.get().unwrap_or_default(),
                "rate" => settings.rate = value.get().unwrap_or(settings.rate),
                "loop" => settings.repeat = value.get().unwrap_or_default(),
                _ => self.position.store(value.get().unwrap_or_default(), Ordering::SeqCst),
            }
        }

        fn property(&self, _id: usize, spec: &glib::ParamSpec) -> glib::Value {
            let settings = self.settings.lock().unwrap_or_else(PoisonError::into_inner);
            match spec.name() {
                "location" => settings.location.to_value(),
                "rate" => settings.rate.to_value(),
                "loop" => settings.repeat.to_value(),
                _ => self.position.load(Ordering::SeqCst).to_value(),
            }
        }
    }

    impl GstObjectImpl for FolderSource {}

    impl ElementImpl for FolderSource {
        fn metadata() -> Option<&'static gst::subclass::ElementMetadata> {
            static METADATA: OnceLock<gst::subclass::ElementMetadata> = OnceLock::new();
            Some(METADATA.get_or_init(|| {
                gst::subclass::ElementMetadata::new(
                    "Folder camera",
                    "Source/Video",
                    "Replays a folder of pictures like a live camera",
                    "Linegate",
                )
            }))
        }

        fn pad_templates() -> &'static [gst::PadTemplate] {
            static TEMPLATES: OnceLock<Vec<gst::PadTemplate>> = OnceLock::new();
            TEMPLATES.get_or_init(|| {
                let template = |(name, media): (&str, &str)| {
                    let caps = gst::Caps::builder(media).build();
                    gst::PadTemplate::new(name, gst::PadDirection::Src, gst::PadPresence::Always, &caps)
                };
                // Fails only for a name that GStreamer cannot print.
                FORMATS.into_iter().map(template).filter_map(Result::ok).collect()
            })
        }

        fn change_state(&self, transition: gst::StateChange) -> Result<gst::StateChangeSuccess, gst::StateChangeError> {
            match transition {
                gst::StateChange::PausedToPlaying => self.start()?,
                gst::StateChange::PlayingToPaused => {
                    if let Some((stop, _)) = self.running.lock().unwrap_or_else(PoisonError::into_inner).as_ref() {
                        stop.now();
                    }
                }
                _ => {}
            }
            let success = self.parent_change_state(transition)?;
            match transition {
                gst::StateChange::ReadyToPaused | gst::StateChange::PlayingToPaused => {
                    // Live: there is no picture before PLAYING.
                    return Ok(gst::StateChangeSuccess::NoPreroll);
                }
                gst::StateChange::PausedToReady => {
                    // The pads are inactive now, so that a push that was blocked has returned.
                    let running = self.running.lock().unwrap_or_else(PoisonError::into_inner).take();
                    if let Some((_, thread)) = running
                        && thread.join().is_err()
                    {
                        tracing::error!("the folder source's thread had panicked");
                    }
                }
                _ => {}
            }
            Ok(success)
        }
    }

    impl FolderSource {
        fn start(&self) -> Result<(), gst::StateChangeError> {
            let settings = self.settings.lock().unwrap_or_else(PoisonError::into_inner).clone();
            let files = match pictures(Path::new(&settings.location)) {
                Ok(files) if !files.is_empty() => files,
                Ok(_) => {
                    gst::element_imp_error!(
                        self,
                        gst::ResourceError::NotFound,
                        ["folder {} holds no png, jpg, bmp or tif picture", settings.location]
                    );
                    return Err(gst::StateChangeError);
                }
                Err(error) => {
                    gst::element_imp_error!(
                        self,
                        gst::ResourceError::OpenRead,
                        ["folder {} cannot be read: {error}", settings.location]
                    );
                    return Err(gst::StateChangeError);
                }
            };
            let stop = Arc::new(Stop::default());
            let replay = Replay {
                element: self.obj().clone().upcast(),
                pads: self.pads.get().cloned().unwrap_or_default(),
                begun: [false; FORMATS.len()],
                settings,
                files,
                stop: stop.clone(),
                position: self.position.clone(),
            };
            let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some((_, former)) = running.take() {
                // Paused and played again: the former thread was told to stop.
                let _ = former.join();
            }
            let thread = std::thread::Builder::new()
                .name("folder-source".into())
                .spawn(move || {
                    crate::line::prompt::take_short_turns();
                    replay.run();
                })
                .map_err(|_| gst::StateChangeError)?;
            *running = Some((stop, thread));
            Ok(())
        }
    }

    /// The picture files of a folder, by name.
    fn pictures(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
        let mut files = Vec::new();
        for entry in std::fs::read_dir(folder)? {
            let path = entry?.path();
            if format_of_name(&path).is_some() && path.is_file() {
                files.push(path);
            }
        }
        files.sort();
        Ok(files)
    }

    fn format_of_name(path: &Path) -> Option<usize> {
        match path.extension()?.to_str()?.to_ascii_lowercase().as_str() {
            "png" => Some(0),
            "jpg" | "jpeg" => Some(1),
            "bmp" => Some(2),
            "tif" | "tiff" => Some(3),
            _ => None,
        }
    }

    /// The format by the first bytes: names lie.
    fn format_of_bytes(bytes: &[u8]) -> Option<usize> {
        const MAGIC: [(&[u8], usize); 5] =
            [(b"\x89PNG\r\n\x1a\n", 0), (b"\xff\xd8\xff", 1), (b"BM", 2), (b"II*\0", 3), (b"MM\0*", 3)];
        MAGIC.iter().find(|(magic, _)| bytes.starts_with(magic)).map(|(_, format)| *format)
    }

    struct Replay {
        element: gst::Element,
        pads: Vec<gst::Pad>,
        begun: [bool; FORMATS.len()],
        settings: Settings,
        files: Vec<PathBuf>,
        stop: Arc<Stop>,
        position: Arc<AtomicU64>,
    }

    impl Replay {
        fn run(mut self) {
            let period = Duration::from_secs_f64(1.0 / self.settings.rate);
            let mut due = Instant::now();
            let mut pts = Duration::ZERO;
            loop {
                let position = self.position.load(Ordering::SeqCst);
                let count = self.files.len() as u64;
                if position >= count && !self.settings.repeat {
                    break self.end();
                }
                if self.stop.wait(due) {
                    break;
                }
                self.position.store(position + 1, Ordering::SeqCst);
                match self.send((position % count) as usize, pts, period) {
                    Ok(_) => {}
                    Err(gst::FlowError::Flushing | gst::FlowError::Eos) => break,
                    Err(error) => {
                        gst::element_error!(
                            self.element,
                            gst::StreamError::Failed,
                            ["the picture could not be handed on: {error}"]
                        );
                        break;
                    }
                }
                pts += period;
                due = (due + period).max(Instant::now().checked_sub(MAX_BACKLOG).unwrap_or(due));
            }
        }

        fn send(&mut self, index: usize, pts: Duration, period: Duration) -> Result<gst::FlowSuccess, gst::FlowError> {
            let path = &self.files[index];
            let bytes = match std::fs::metadata(path) {
                Ok(data) if data.len() <= MAX_FILE_BYTES => std::fs::read(path),
                Ok(data) => Err(std::io::Error::other(format!("{} bytes, the limit is {MAX_FILE_BYTES}", data.len()))),
                Err(error) => Err(error),
            };
            let bytes = bytes.unwrap_or_else(|error| {
                tracing::warn!(file = %path.display(), %error, "picture unreadable: the frame is lost");
                Vec::new()
            });
            let format = format_of_bytes(&bytes).or_else(|| format_of_name(path)).unwrap_or(0);
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            self.begin(format);
            let pad = &self.pads[format];
            let part = gst::Structure::builder(PART_EVENT).field("part-id", name).build();
            pad.push_event(gst::event::CustomDownstream::new(part));
            // An empty buffer would be a gap, not a picture: one byte makes it a torn one.
            let mut buffer = gst::Buffer::from_slice(if bytes.is_empty() { vec![0] } else { bytes });
            if let Some(buffer) = buffer.get_mut() {
                buffer.set_pts(gst::ClockTime::try_from(pts).ok());
                buffer.set_duration(gst::ClockTime::try_from(period).ok());
            }
            pad.push(buffer)
        }

        /// What every stream begins with.
        fn begin(&mut self, format: usize) {
            if std::mem::replace(&mut self.begun[format], true) {
                return;
            }
            let (name, media) = FORMATS[format];
            let pad = &self.pads[format];
            pad.push_event(gst::event::StreamStart::new(&format!("linegate-folder/{name}")));
            pad.push_event(gst::event::Caps::new(&gst::Caps::builder(media).build()));
            pad.push_event(gst::event::Segment::new(&gst::FormattedSegment::<gst::ClockTime>::new()));
        }

        fn end(&mut self) {
            for format in 0..self.pads.len() {
                self.begin(format);
                self.pads[format].push_event(gst::event::Eos::new());
            }
        }
    }
}
