//! What can keep a line from starting. What goes wrong later is decisions, states and log events.

use std::path::PathBuf;
use std::sync::Arc;

use crate::bundle::{BundleError, SignatureError};
use crate::line::archive::ArchiveError;
use crate::line::capture::CaptureError;
use crate::line::outbox::OutboxError;
use crate::line::publishing::PublishingError;
use crate::scoring::ScoringError;

/// Why the line cannot start.
#[derive(Debug, thiserror::Error)]
pub enum LineError {
    /// A camera cannot be set up.
    #[error("the cameras cannot be set up")]
    Capture(#[from] Box<CaptureError>),
    /// The outbox cannot be opened.
    #[error("the outbox {path} cannot be opened")]
    Outbox {
        /// Its file.
        path: PathBuf,
        /// Cause.
        source: Box<OutboxError>,
    },
    /// Delivery cannot start.
    #[error("delivery cannot start")]
    Publishing(#[from] Box<PublishingError>),
    /// The archive cannot be opened.
    #[error("the archive {path} cannot be opened")]
    Archive {
        /// Its folder.
        path: PathBuf,
        /// Cause.
        source: Box<ArchiveError>,
    },
    /// The model cannot be loaded.
    #[error("the model cannot be loaded")]
    Model(#[from] Box<ModelError>),
    /// The presence gate cannot be set up.
    #[error("camera {camera}: the presence gate cannot be set up")]
    Presence {
        /// The camera.
        camera: String,
        /// Cause.
        source: Box<PresenceError>,
    },
    /// The operating system gave no thread.
    #[error("the thread {name} cannot be started")]
    Thread {
        /// Its name.
        name: &'static str,
        /// Cause.
        source: std::io::Error,
    },
}

/// Why a model cannot be taken into use.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// The configuration names none, or two.
    #[error("the configuration must name exactly one of `model.bundle` and `model.registry`")]
    NotOne,
    /// Nothing was activated yet.
    #[error("the registry {path} has no active bundle: train one and activate it (`linegate models activate`)")]
    NothingActive {
        /// The registry.
        path: PathBuf,
    },
    /// The bundle or the registry's pointer to it is not usable.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// The bundle is not signed as the configuration wants it.
    #[error(transparent)]
    Signature(#[from] SignatureError),
    /// ONNX Runtime refuses.
    #[error(transparent)]
    Scoring(#[from] ScoringError),
}

/// The picture of the empty belt is not usable.
#[derive(Debug, thiserror::Error)]
#[error("the picture of the empty belt {path} cannot be read: it must be a png, jpg, bmp or tif of the camera")]
pub struct PresenceError {
    /// Its file (`presence.empty`).
    pub path: PathBuf,
    /// Cause.
    pub source: Arc<dyn std::error::Error + Send + Sync>,
}
