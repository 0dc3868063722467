//! Plain data that travels between rooms. No I/O, no clock, no library handles.

mod camera_picture;
mod frame;
mod picture;
mod png;
mod record;
mod score;
mod verdict;

pub use camera_picture::{CameraPicture, LentPixels, PLANES, PixelFormat, Plane, YuvColour, YuvMatrix};
pub use frame::{Frame, FrameId, PartSource, Stamp, TimeSource};
pub use picture::{Mask, Picture, PictureError, Rectangle, Size};
pub use png::{PngError, encode_mask_png, encode_png};
pub use record::{CameraVote, Combined, DECISION_SCHEMA_VERSION, Decision, FrameVote, Latency, ModelIdentity};
pub use score::{AnomalyMap, LogLikelihoodMaps};
pub use verdict::{NotInspected, Outcome, Reason, Region, Verdict};
