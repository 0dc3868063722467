//! The shape of what the configuration says about parts.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Tells the empty belt from parts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Presence {
    /// A picture of the empty belt, as large as the camera's frames.
    pub empty: PathBuf,
    /// A cell of a 32nd of width and height is occupied where a channel's mean differs from the empty
    /// belt's by so many levels, above 0 to 255.
    #[serde(default = "default_difference")]
    pub difference: f64,
    /// A part is there when this share of the cells is occupied, above 0 and below 1.
    #[serde(default = "default_occupied_share")]
    pub share: f64,
}

fn default_difference() -> f64 {
    12.0
}

fn default_occupied_share() -> f64 {
    0.01
}

/// How many cameras must accept a part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PartRule {
    /// Every one.
    All,
    /// One is enough.
    Any,
    /// `at_least` of them.
    AtLeast,
}

/// A part that several cameras or frames see.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PartConfig {
    /// Name used in topics: letters, digits, `-`, `_` and `.`, 1 to 64 characters; unique.
    pub name: String,
    /// The cameras that see it.
    pub cameras: Vec<String>,
    /// How many of them must accept it.
    pub rule: PartRule,
    /// With the rule `at_least`: how many, 1 to the number of cameras.
    #[serde(default)]
    pub at_least: Option<usize>,
    /// From the first capture until then all belongs to the part, and what is missing counts as not
    /// inspected, 1 to 3600000.
    pub window_ms: u64,
    /// Consecutive frames that each camera takes of the part, 1 to 64.
    #[serde(default = "one")]
    pub frames: usize,
    /// How many of these must be accepted for the camera to accept, 1 to `frames`; none means all.
    #[serde(default)]
    pub accept_frames: Option<usize>,
}

fn one() -> usize {
    1
}
