//! What can go wrong with cameras before they run; what happens later is told as an event.

use std::path::PathBuf;

/// Why a camera cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// GStreamer itself.
    #[error("GStreamer cannot be initialised: is it installed whole?")]
    Initialise(#[source] gstreamer::glib::Error),
    /// An element of our own could not be made known.
    #[error("the folder source cannot be registered with GStreamer")]
    Register(#[source] gstreamer::glib::BoolError),
    /// No such description.
    #[error("launch description {path} cannot be read; built in are: {built_in}")]
    DescriptionFile {
        /// The path as given.
        path: PathBuf,
        /// Names of the built-in descriptions.
        built_in: String,
        /// Cause.
        source: std::io::Error,
    },
    /// The description contradicts itself.
    #[error("launch description {name}: {problem}")]
    Description {
        /// Name or path.
        name: String,
        /// What is wrong and what to do.
        problem: String,
    },
    /// The parameters do not fit the description.
    #[error("launch description {name}: {problem}; it takes {takes}")]
    Parameter {
        /// Name or path.
        name: String,
        /// What is wrong.
        problem: String,
        /// Everything that the description takes.
        takes: String,
    },
    /// GStreamer does not understand the graph.
    #[error("camera {camera}: GStreamer cannot make the graph: {text}")]
    Graph {
        /// The camera.
        camera: String,
        /// The graph's text.
        text: String,
        /// Cause; names the element that is missing or the property that is wrong.
        source: gstreamer::glib::Error,
    },
    /// The graph has no place to stamp frames at.
    #[error(
        "camera {camera}: it is not clear where frames are to be stamped, {problem}: \
         put `identity name=stamp` where one buffer is one frame"
    )]
    NoFirstPad {
        /// The camera.
        camera: String,
        /// What was found.
        problem: String,
    },
    /// The operating system gave no thread.
    #[error("camera {camera}: no thread could be started")]
    Thread {
        /// The camera.
        camera: String,
        /// Cause.
        source: std::io::Error,
    },
}
