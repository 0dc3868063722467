//! What a bundle says about itself.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::inspection::{Rectangle, Size};

/// Version of the manifest's layout that this program reads and writes.
pub const BUNDLE_SCHEMA_VERSION: u32 = 2;

/// `manifest.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// [`BUNDLE_SCHEMA_VERSION`].
    pub schema_version: u32,
    /// Name of the bundle: the product class it inspects.
    pub name: String,
    /// Version of the bundle: UTC time of training and the first digits of the model's hash.
    pub version: String,
    /// How a camera picture becomes the model's input.
    pub preprocessing: Preprocessing,
    /// Output maps, finest level first.
    pub levels: Vec<LevelShape>,
    /// What was learned for the line.
    pub calibration: Calibration,
    /// How it was made.
    pub provenance: Provenance,
    /// SHA-256 of every other file, by path relative to the bundle, hexadecimal.
    pub files: BTreeMap<String, String>,
}

/// How a camera picture becomes the model's input: cut to the region, then scaled anti-aliased.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Preprocessing {
    /// Model input size in pixels, each a multiple of 16.
    pub size: Size,
    /// Region of interest in pixels of the full frame; none is the whole frame.
    pub region_of_interest: Option<Rectangle>,
}

/// One output map of the model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LevelShape {
    /// Name of the ONNX output, f32 `[batch, row, column]`.
    pub output: String,
    /// Pixels of the input per map cell.
    pub stride: usize,
    /// Rows.
    pub rows: usize,
    /// Columns.
    pub columns: usize,
}

/// Everything that turns raw log-likelihood maps into a verdict. Lives outside the ONNX graph,
/// so that a boundary can be moved without a new export.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Calibration {
    /// Per level, in the order of [`Manifest::levels`].
    pub levels: Vec<LevelCalibration>,
    /// What a level's log-likelihood says against a cell.
    pub evidence: Evidence,
    /// Share of a cell's score that is what the level that says most against it says, 0 to 1; the rest is the weighted
    /// sum of all. 0 in bundles older than this.
    #[serde(default)]
    pub strongest: f32,
    /// Deviation of the Gaussian that smooths the fused map, cells of the finest level; 0 is none.
    pub smoothing_sigma: f32,
    /// Smallest connected area that counts, cells of the fused map, at least 1.
    pub minimum_area: usize,
    /// Regions with so many cells between them are one region; 0 merges none.
    #[serde(default)]
    pub merging: usize,
    /// Boundaries on the image score, which is the highest level at which the fused map still
    /// has a connected region of `minimum_area`: so they are boundaries on pixels, too.
    pub image: ImageBoundary,
    /// What it was learned from.
    pub set: CalibrationSet,
}

/// What a level's log-likelihood l says against a cell, with the level's `mean` and `deviation` as
/// z = (mean - l) / deviation. [`crate::decision::evidence`] computes it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Evidence {
    /// z itself.
    Deviations,
    /// `-ln(e^-z + e^-ceiling) + 0.1 ln(1 + max(z, 0) / ceiling)`: z, bent smoothly so that beyond
    /// the ceiling it hardly grows.
    Bounded {
        /// About the most that a level can say, units, positive.
        ceiling: f32,
    },
    /// `-e^-z`, the paper's score; `mean` is then the highest log-likelihood among the held-out
    /// normals (the authors take it over the test set) and `deviation` 1.
    Likelihood,
}

/// Constants of one level.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LevelCalibration {
    /// Mean log-likelihood over the held-out normals, nats per feature dimension.
    pub mean: f32,
    /// Unit of z: what training counts as one deviation of the same.
    pub deviation: f32,
    /// Weight of the level in the fused map; the weights add up to 1.
    pub weight: f32,
    /// Whether the level says at least what the one before it says, which then has as many rows and
    /// columns: a second look at the same map, from farther off, that may add to the first and never
    /// excuses what that one saw. False in bundles older than this.
    #[serde(default)]
    pub or_previous: bool,
    /// Normal boundary `b_n` (paper), nats per feature dimension.
    pub normal_boundary: f32,
    /// Abnormal boundary `b_a = b_n - tau` (paper), nats per feature dimension.
    pub abnormal_boundary: f32,
}

/// Boundaries on the image score, calibrated units.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImageBoundary {
    /// Up to here a part is accepted; regions are drawn where the map lies above.
    pub normal: f32,
    /// Beyond here a part is rejected; between the two it is suspect.
    pub abnormal: f32,
    /// Share of normal parts that may pass `normal` (suspect or reject).
    pub suspect_rate: f64,
    /// Share of normal parts that may pass `abnormal`: the wished false-reject rate.
    pub false_reject_rate: f64,
}

/// What the calibration was learned from, and how sure it is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CalibrationSet {
    /// Held-out normal images.
    pub images: usize,
    /// Groups they come from; equal to `images` where parts do not repeat.
    pub groups: usize,
    /// Exact 95 % (Clopper-Pearson) interval of the true false-reject rate at `abnormal`.
    pub false_reject_interval: [f64; 2],
    /// What a person must know, such as a set too small for the wished rate.
    pub warnings: Vec<String>,
    /// Sorted image scores of the held-out normals, calibrated units.
    pub scores: Vec<f32>,
    /// Number of the group that each score's picture comes from; empty in bundles older than this.
    #[serde(default)]
    pub score_groups: Vec<usize>,
}

/// How a bundle was made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Provenance {
    /// Version of this program.
    pub software: String,
    /// UTC time of training, RFC 3339.
    pub trained_at: String,
    /// Seed of every random choice.
    pub seed: u64,
    /// Training threads; with the seed they fix the bundle.
    pub threads: usize,
    /// Preset.
    pub preset: String,
    /// Every setting that training used, as resolved.
    pub settings: serde_json::Value,
    /// Name of the backbone and SHA-256 of its file.
    pub backbone: String,
    /// SHA-256 over path and content of every training file, in order.
    pub training_set_sha256: String,
    /// Normal images the flow was fitted on.
    pub training_images: usize,
    /// Known defects used; evaluation leaves them and their groups out.
    pub known_defects: Vec<UsedDefect>,
    /// Training normals and calibration normals, paths relative to the data set.
    pub normals: Vec<String>,
    /// Name and version of the bundle whose flows training started from; none for a fresh start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_from: Option<String>,
    /// Normals that the flows were fitted on in trainings before and that are not in `normals`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fitted_before: Vec<String>,
    /// Largest difference between the ONNX file and the trained flow, nats per feature dimension.
    pub export_difference: f32,
    /// Cost per phase, in order.
    pub phases: Vec<Phase>,
    /// Highest resident memory of the process, MiB.
    pub peak_memory_mib: f64,
}

/// A known defect that training used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UsedDefect {
    /// Path relative to the data set's root.
    pub path: String,
    /// SHA-256 of the image file: leaves it out wherever it lies.
    pub sha256: String,
    /// Defect type (its folder).
    pub defect_type: String,
    /// Group, where a groups file was given.
    pub group: Option<String>,
    /// True when it had no mask and the region was found by the model.
    pub weak: bool,
}

/// Cost of one phase of training.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Phase {
    /// Name.
    pub name: String,
    /// Processor seconds, all threads.
    pub cpu_seconds: f64,
    /// Wall seconds.
    pub wall_seconds: f64,
}
