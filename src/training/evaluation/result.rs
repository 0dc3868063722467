//! What an evaluation says: `metrics.json`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::metrics::Curve;
use crate::inspection::{AnomalyMap, ModelIdentity, Verdict};

/// A bundle measured on a data set. Rates and areas run from 0 to 1.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// The bundle.
    pub bundle: ModelIdentity,
    /// Folder of the data set, as it was given.
    pub data: String,
    /// Pictures and pixels looked at.
    pub counts: Counts,
    /// All test pictures together.
    #[serde(flatten)]
    pub figures: Figures,
    /// Per defect type: its pictures against all good ones.
    pub per_defect: BTreeMap<String, DefectFigures>,
    /// Means over the types that the model was trained on; none where it knew no defect.
    pub seen: Option<TypeMeans>,
    /// Means over the types that it never saw.
    pub unseen: Option<TypeMeans>,
    /// What the line would have done.
    pub at_boundary: AtBoundary,
    /// The paper's own score on the same log-likelihoods.
    pub authors_score: AuthorsFigures,
    /// Test pictures left out, because training used them or their groups.
    pub excluded: Vec<Excluded>,
    /// Cost of scoring.
    pub cost: Cost,
    /// What a person must know to read the figures.
    pub warnings: Vec<String>,
    /// Every picture, in order of its name.
    pub images: Vec<ScoredImage>,
    /// For drawing.
    #[serde(skip)]
    pub curves: Curves,
}

/// Image and pixel metrics. The pixel metrics are at model size, over the good pictures and the
/// defects that have a mask; they are none only where no defect has one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Figures {
    /// Area under the ROC curve of the image score.
    pub image_auroc: f64,
    /// Area under the ROC curve of the pixels.
    pub pixel_auroc: Option<f64>,
    /// Area under the per-region overlap up to a false positive rate of 0.3, divided by 0.3.
    pub aupro: Option<f64>,
    /// Average precision of the pixels.
    pub pixel_ap: Option<f64>,
    /// Why there are no pixel metrics.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub no_pixel_metrics: Option<String>,
}

/// One defect type.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DefectFigures {
    /// Its metrics against all good pictures.
    #[serde(flatten)]
    pub figures: Figures,
    /// Its pictures.
    pub images: usize,
    /// Those with a mask.
    pub with_mask: usize,
    /// Verdicts on its pictures.
    pub verdicts: Tally,
    /// Share of its pictures that were accepted.
    pub escape_rate: f64,
    /// Exact 95 % interval of the escape rate.
    pub escape_interval: [f64; 2],
}

/// Several defect types: every figure the mean of the types' own, so that all count alike.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TypeMeans {
    /// The types, by name.
    pub types: Vec<String>,
    /// Mean of the types' image AUROC.
    pub image_auroc: f64,
    /// Mean of the pixel AUROC of types with masks; none where none has one.
    pub pixel_auroc: Option<f64>,
    /// Likewise of AUPRO.
    pub aupro: Option<f64>,
    /// Likewise of the pixel average precision.
    pub pixel_ap: Option<f64>,
    /// Mean of the types' escape rates.
    pub escape_rate: f64,
}

impl TypeMeans {
    /// The means over those types of `figures` whose name is `wanted`; none where there are none.
    pub fn of(figures: &BTreeMap<String, DefectFigures>, wanted: impl Fn(&str) -> bool) -> Option<Self> {
        let chosen: Vec<_> = figures.iter().filter(|(name, _)| wanted(name)).collect();
        let mean = |of: &dyn Fn(&DefectFigures) -> Option<f64>| {
            let values: Vec<f64> = chosen.iter().filter_map(|(_, figures)| of(figures)).collect();
            (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
        };
        Some(Self {
            image_auroc: mean(&|f| Some(f.figures.image_auroc))?,
            pixel_auroc: mean(&|f| f.figures.pixel_auroc),
            aupro: mean(&|f| f.figures.aupro),
            pixel_ap: mean(&|f| f.figures.pixel_ap),
            escape_rate: mean(&|f| Some(f.escape_rate))?,
            types: chosen.into_iter().map(|(name, _)| name.clone()).collect(),
        })
    }
}

/// What was looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Good pictures.
    pub good: usize,
    /// Pictures of defects.
    pub defective: usize,
    /// Pictures of defects without a mask (or with nothing marked in view): they count for the
    /// image metrics and are left out of the pixel metrics.
    pub without_mask: usize,
    /// Defect regions at model size.
    pub regions: usize,
}

/// Verdicts counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// Accepted.
    pub accept: usize,
    /// Between the boundaries.
    pub suspect: usize,
    /// Rejected.
    pub reject: usize,
}

/// The line's verdicts at the calibrated boundaries.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AtBoundary {
    /// Normal boundary of the image score, calibrated units.
    pub normal: f32,
    /// Abnormal boundary of the image score, calibrated units.
    pub abnormal: f32,
    /// Share of good pictures rejected (suspects not counted).
    pub false_reject_rate: f64,
    /// Exact 95 % (Clopper-Pearson) interval of it.
    pub false_reject_interval: [f64; 2],
    /// Share of defective pictures accepted (suspects not counted).
    pub escape_rate: f64,
    /// Exact 95 % (Clopper-Pearson) interval of it.
    pub escape_interval: [f64; 2],
    /// Pictures between the boundaries, good and defective.
    pub suspects: usize,
    /// Pictures judged, good and defective.
    pub counts: usize,
    /// Verdicts by what the picture shows.
    pub confusion: Confusion,
}

/// Verdicts by what the picture shows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confusion {
    /// On good pictures.
    pub good: Tally,
    /// On defective pictures.
    pub defective: Tally,
}

/// The paper's own score: per level `exp(l - max l)` with the maximum over the whole test set,
/// enlarged and added up, subtracted from its maximum. It needs all test pictures at once, so no
/// line can use it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct AuthorsFigures {
    /// Area under the ROC curve of the highest pixel.
    pub image_auroc: f64,
    /// Area under the ROC curve of the pixels.
    pub pixel_auroc: Option<f64>,
    /// Area under the per-region overlap up to 0.3.
    pub aupro: Option<f64>,
}

/// A picture left out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Excluded {
    /// Name in the data set.
    pub name: String,
    /// Why.
    pub reason: Exclusion,
}

/// Why a test picture is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Exclusion {
    /// Training used it as a known defect (the file has the same SHA-256).
    KnownDefect,
    /// It shows the same part as a known defect.
    GroupOfKnownDefect,
    /// Training or calibration used it as a normal.
    TrainingNormal,
}

/// Cost of one picture: reading, fitting, scoring and deciding.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Cost {
    /// Processor milliseconds an image, all threads, mean.
    pub cpu_ms_per_image: f64,
    /// Wall milliseconds an image, mean.
    pub wall_ms_per_image: f64,
}

/// One picture's result.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ScoredImage {
    /// Name in the data set.
    pub name: String,
    /// `good` or the defect type.
    pub label: String,
    /// Image score, calibrated units.
    pub score: f32,
    /// Verdict.
    pub verdict: Verdict,
    /// The fused map, for drawing.
    #[serde(skip, default = "empty_map")]
    pub map: AnomalyMap,
}

fn empty_map() -> AnomalyMap {
    AnomalyMap(ndarray::Array2::zeros((0, 0)))
}

/// Curves for drawing, thinned.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Curves {
    /// ROC of the images.
    pub image_roc: Curve,
    /// ROC of the pixels.
    pub pixel_roc: Curve,
    /// Per-region overlap over the false positive rate of the pixels.
    pub pro: Curve,
}
