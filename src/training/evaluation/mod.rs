//! Metrics, evaluation of a bundle on a data set, and its report.
//!
//! The pictures take the way of the line: fitted, scored by ONNX Runtime and decided by the same
//! code, one after the other. Only then are all of them looked at together.

mod error;
mod exclusion;
mod measure;
pub mod metrics;
mod region;
mod report;
mod result;

use std::time::Instant;

use crate::bundle::Bundle;
use crate::decision::decide;
use crate::inspection::{NotInspected, Outcome, Reason};
use crate::scoring::{Model, PictureFitter, SessionOptions};
use crate::training::cost::cpu_seconds;
use crate::training::dataset::{Dataset, load_mask, load_picture};

pub use error::EvaluationError;
pub use measure::{Case, Measured, measure};
pub use metrics::clopper_pearson;
pub use report::{METRICS_FILE, PAGE_FILE, write_report};
pub use result::{
    AtBoundary, AuthorsFigures, Confusion, Cost, Counts, Curves, DefectFigures, Evaluation, Excluded, Exclusion,
    Figures, ScoredImage, Tally, TypeMeans,
};

/// How an evaluation is run.
#[derive(Clone, Copy, Default)]
pub struct EvaluationOptions<'a> {
    /// ONNX Runtime's session; none is the default one.
    pub session: Option<&'a SessionOptions>,
    /// Told after every picture: (done, of how many).
    pub progress: Option<&'a dyn Fn(usize, usize)>,
}

impl std::fmt::Debug for EvaluationOptions<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EvaluationOptions").field("session", &self.session).finish_non_exhaustive()
    }
}

/// Measures a bundle on the pictures under `test/`, leaving out what training has seen: its known
/// defects by content, their groups, and its normals by name. Masks are resized to model size by
/// covered area, at least half, no region lost. Keeps about 100 KiB a picture at 256 pixels, and
/// eight bytes a pixel while measuring.
///
/// # Errors
/// [`EvaluationError`]: a picture or mask that cannot be read, a model that cannot score, a metric
/// without a value. Pixel metrics are none, with the reason, where no defect has a mask.
pub fn evaluate(
    bundle: &Bundle,
    dataset: &Dataset,
    options: EvaluationOptions<'_>,
) -> Result<Evaluation, EvaluationError> {
    let manifest = &bundle.manifest;
    let size = manifest.preprocessing.size;
    let (samples, excluded) = exclusion::split(dataset, &manifest.provenance)?;
    if samples.is_empty() {
        return Err(EvaluationError::NoPictures { excluded: excluded.len() });
    }
    let mut model = Model::load(bundle, options.session.unwrap_or(&SessionOptions::default()))?;
    let mut fitter = PictureFitter::new();

    let (cpu, wall) = (cpu_seconds(), Instant::now());
    let mut cases = Vec::with_capacity(samples.len());
    let mut full_sizes = Vec::with_capacity(samples.len());
    for (done, sample) in samples.iter().enumerate() {
        let failed = |source| EvaluationError::Picture { name: sample.name.clone(), source: Box::new(source) };
        let picture = load_picture(&sample.path)?;
        let fitted = fitter.fit(&picture, &manifest.preprocessing).map_err(failed)?;
        let maps = model.score(&[&fitted]).map_err(failed)?.swap_remove(0);
        let (outcome, fused) = decide(&maps, manifest, picture.size());
        let Outcome { verdict, image_score: Some(score), .. } = outcome else {
            debug_assert!(matches!(outcome.reasons[..], [Reason::NotInspected { cause: NotInspected::NotFinite }]));
            return Err(EvaluationError::NotFinite { name: sample.name.clone() });
        };
        cases.push(Case { label: sample.label.clone(), score, verdict, maps, fused, mask: None });
        full_sizes.push(picture.size());
        if let Some(progress) = options.progress {
            progress(done + 1, samples.len());
        }
    }
    let per_image = 1e3 / samples.len() as f64;
    let cost = Cost {
        cpu_ms_per_image: (cpu_seconds() - cpu) * per_image,
        wall_ms_per_image: wall.elapsed().as_secs_f64() * per_image,
    };

    for ((sample, case), full) in samples.iter().zip(&mut cases).zip(full_sizes) {
        if let Some(path) = sample.mask.as_ref().filter(|_| sample.label.is_defect()) {
            let mask = load_mask(path, full)?;
            let mask = region::resize_by_coverage(&mask, manifest.preprocessing.region_of_interest, size);
            // A mask that marks nothing in view does not say where the defect is.
            case.mask = (mask.area() > 0).then_some(mask);
        }
    }
    let measured = measure(&cases, size, &manifest.calibration.image)?;
    let defective = cases.iter().filter(|case| case.label.is_defect()).count();
    let counts = Counts {
        good: cases.len() - defective,
        defective,
        without_mask: cases.iter().filter(|case| case.label.is_defect() && case.mask.is_none()).count(),
        regions: measured.regions,
    };
    let images = samples.iter().zip(cases).map(|(sample, case)| ScoredImage {
        name: sample.name.clone(),
        label: sample.label.as_str().to_owned(),
        score: case.score,
        verdict: case.verdict,
        map: case.fused,
    });
    let known = |name: &str| manifest.provenance.known_defects.iter().any(|defect| defect.defect_type == name);
    Ok(Evaluation {
        seen: TypeMeans::of(&measured.per_defect, known),
        unseen: TypeMeans::of(&measured.per_defect, |name| !known(name)),
        bundle: bundle.identity.clone(),
        data: dataset.root.display().to_string(),
        counts,
        figures: measured.figures,
        per_defect: measured.per_defect,
        at_boundary: measured.at_boundary,
        authors_score: measured.authors,
        warnings: exclusion::warnings(dataset, &manifest.provenance, &samples),
        excluded,
        cost,
        images: images.collect(),
        curves: measured.curves,
    })
}
