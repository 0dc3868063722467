//! The training configuration's shape: what a preset gives unless a key here says otherwise.

use std::path::Path;

use serde::de::{self, Deserializer, Visitor};
use serde::{Deserialize, Serialize, Serializer};

use super::{ConfigError, keys, load};
use crate::inspection::Size;

/// The starting point that the other keys change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Preset {
    /// Minutes: for trying out and for demonstrations.
    Fast,
    /// The default.
    Standard,
    /// The schedule and shape of the paper (Yao et al., CVPR 2023).
    Paper,
}

impl Preset {
    /// The name used in files and on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Fast => "fast",
            Self::Standard => "standard",
            Self::Paper => "paper",
        }
    }
}

/// The model's input size as it is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImageSize {
    /// This size; each side a multiple of 16, 32 to 4096.
    Fixed(Size),
    /// A size that fits the pictures and their known defects, chosen when training starts.
    Auto,
}

impl std::fmt::Display for ImageSize {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Fixed(size) => size.fmt(f),
            Self::Auto => f.write_str("auto"),
        }
    }
}

/// What the backbone's convolutions work on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Numbers {
    /// 32-bit floats.
    #[default]
    F32,
    /// 16-bit floats (half precision).
    F16,
    /// Eight-bit integers.
    Int8,
}

/// How parts lie before the camera.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Orientation {
    /// Always alike: what is normal may depend on the place in the picture.
    #[default]
    Fixed,
    /// Turned by any angle: what is normal is the same everywhere in the picture.
    Any,
    /// One of these two, as the training normals show.
    Auto,
}

/// Everything that `linegate train --config` reads. A key that is absent leaves the preset's value.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TrainingConfig {
    /// Starting point.
    pub preset: Option<Preset>,
    /// Model input size: a whole number (square) or `"WIDTHxHEIGHT"`; each a multiple of 16, 32 to
    /// 4096; `"auto"` fits it to the pictures and their known defects.
    #[serde(deserialize_with = "size", serialize_with = "size_text")]
    pub image_size: Option<ImageSize>,
    /// Side of the overlapping tiles that the backbone sees a frame through, model pixels, a multiple
    /// of its coarsest stride, up to 4096; 0 shows the frame whole.
    pub tile: Option<usize>,
    /// How parts lie before the camera.
    pub orientation: Option<Orientation>,
    /// What the backbone's convolutions work on.
    pub numbers: Option<Numbers>,
    /// Known defects used, 0 to 10000.
    pub defects: Option<usize>,
    /// Seed of every random choice.
    pub seed: Option<u64>,
    /// Training threads, 0 to 256; 0 is one per core.
    pub threads: Option<usize>,
    /// Quantile of the normals' log-likelihood that is the normal boundary (paper: beta, 0.01);
    /// within 0 to 1, both excluded.
    pub boundary_quantile: Option<f64>,
    /// Distance from the normal to the abnormal boundary (paper: tau, 0.1), 0 to 100. 0.3 by itself, and 0.1 at most where
    /// fewer than five defects are known.
    pub margin: Option<f64>,
    /// Optimiser steps per level, 1 to 10000000.
    pub steps: Option<usize>,
    /// Pixels in one step, 64 to 1048576.
    pub batch_pixels: Option<usize>,
    /// Highest learning rate of the schedule; above 0, up to 1.
    pub learning_rate: Option<f64>,
    /// Hidden width of a coupling block's subnet, 1 to 8192.
    pub hidden_width: Option<usize>,
    /// The same of the finest map's level, 1 to 8192; without it `hidden_width`, where that is given.
    pub finest_hidden_width: Option<usize>,
    /// Coupling blocks per level, 1 to 64.
    pub blocks: Option<usize>,
    /// Coupling blocks of the finest map's level, 1 to 64; without it as many as `blocks`, where that is
    /// given.
    pub finest_blocks: Option<usize>,
    /// Side of the square over which features are averaged, odd, 1 to 63 cells; 1 is none.
    pub pooling: Option<usize>,
    /// Whether the features' correlations are taken away before the flows see them.
    pub whiten: Option<bool>,
    /// Side of the average of one more level on the coarsest map, odd, up to 63; 0 is no such level.
    pub context: Option<usize>,
    /// Vectors of training normals that cells are compared with where fewer than five defects are known, up to
    /// 65536; 0 leaves that level out.
    pub coreset: Option<usize>,
    /// Whether, from five known defects with masks on, one more level contrasts those that fill the average of `context` with normals.
    pub contrast: Option<bool>,
    /// From five known defects on, share of a cell's score that is what the level that says most of it says, 0 to 1; the rest
    /// is the levels' mean.
    pub strongest: Option<f64>,
    /// Pictures made from known defects by copy-paste (invented ones where none are known), 0 to
    /// 100000.
    pub synthesised: Option<usize>,
    /// Pictures with invented defects beside those, 0 to 100000. Without it, a quarter of `synthesised` where one
    /// to four defects are known, none from five on.
    pub invented: Option<usize>,
    /// Most that one level can say against a cell, up to 1000; 0 is no bound. The oddest cell of a typical
    /// good part lies at 4.
    pub ceiling: Option<f64>,
    /// Normal pixels from beside known defects in a step, 0 to half of `batch_pixels`.
    pub beside_pixels: Option<usize>,
    /// Defect types that known defects are not taken from.
    pub unseen: Option<Vec<String>>,
    /// Share of the training normals held out for calibration; within 0 to 1, both excluded.
    pub calibration_fraction: Option<f64>,
    /// Wished share of good parts that are rejected (0.01); within 0 to 1, both excluded.
    pub false_reject_rate: Option<f64>,
    /// Wished share of good parts that are suspect or rejected (0.05); at least
    /// `false_reject_rate`, below 1.
    pub suspect_rate: Option<f64>,
    /// Whether defects are made up where none, or few, are known.
    pub synthetic: Option<bool>,
    /// Most that the features of the training pictures may take, MiB, 1 to 16777216 (8192); beyond
    /// 256 they lie in a temporary file beside the bundle. Where the pictures need more, an even
    /// share of the cells of each is kept.
    pub feature_budget_mib: Option<u64>,
}

impl TrainingConfig {
    /// Reads and checks the file alone.
    ///
    /// # Errors
    /// [`ConfigError`] with every problem.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        load::load(path, &[], keys::TRAINING, super::rules::training)
    }
}

/// Reads a model's input size as it is typed: `256`, `320x256` or `auto`.
///
/// # Errors
/// Says what is wrong with the text.
pub fn parse_image_size(text: &str) -> Result<ImageSize, String> {
    if text.trim() == "auto" {
        return Ok(ImageSize::Auto);
    }
    let side = |text: &str| {
        text.trim().parse::<usize>().map_err(|_| format!("`{text}` is neither a number of pixels nor `auto`"))
    };
    let size = match text.split_once('x') {
        Some((width, height)) => Size { width: side(width)?, height: side(height)? },
        None => {
            let side = side(text)?;
            Size { width: side, height: side }
        }
    };
    for side in [size.width, size.height] {
        if !(32..=4096).contains(&side) || side % 16 != 0 {
            return Err(format!("{size} cannot be a model's size: each side must be a multiple of 16, 32 to 4096"));
        }
    }
    Ok(ImageSize::Fixed(size))
}

fn size<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<ImageSize>, D::Error> {
    struct Typed;
    impl Visitor<'_> for Typed {
        type Value = ImageSize;
        fn expecting(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
            f.write_str("a number of pixels, \"WIDTHxHEIGHT\" or \"auto\"")
        }
        fn visit_i64<E: de::Error>(self, side: i64) -> Result<ImageSize, E> {
            self.visit_str(&side.to_string())
        }
        fn visit_str<E: de::Error>(self, text: &str) -> Result<ImageSize, E> {
            parse_image_size(text).map_err(E::custom)
        }
    }
    deserializer.deserialize_any(Typed).map(Some)
}

#[expect(clippy::ref_option, reason = "serde's serialize_with gives a reference to the field")]
fn size_text<S: Serializer>(size: &Option<ImageSize>, serializer: S) -> Result<S::Ok, S::Error> {
    size.map(|size| size.to_string()).serialize(serializer)
}
