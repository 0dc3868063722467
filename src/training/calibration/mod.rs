//! What held-out normals teach: level constants, boundaries, thresholds.

mod conformal;

use crate::bundle::{Calibration, CalibrationSet, Evidence, ImageBoundary, LevelCalibration};
use crate::decision::{fuse, image_score};
use crate::inspection::LogLikelihoodMaps;
use crate::training::evaluation::clopper_pearson;
use crate::training::fit::loss::NORMALISER;
use crate::training::settings::Settings;

pub use conformal::{Threshold, conformal_threshold, smallest_set};

/// Minimum areas tried, cells of the fused map.
const AREAS: [usize; 5] = [1, 2, 4, 8, 16];

/// Learns the calibration from maps of held-out normals.
///
/// `groups` is the number of groups the normals come from; `defects` are maps of known or
/// invented defects, which choose only the minimum area. The boundaries come from the normals
/// alone, by the conformal quantile: of the next normal part's score it is known that it passes
/// with at most the wished probability, if it is like those.
///
/// # Panics
/// Without any map.
pub fn calibrate(
    normals: &[LogLikelihoodMaps],
    groups: usize,
    defects: &[LogLikelihoodMaps],
    settings: &Settings,
) -> Calibration {
    let count = normals[0].levels.len();
    let levels: Vec<LevelCalibration> = (0..count)
        .map(|level| {
            let mut values: Vec<f32> = normals.iter().flat_map(|maps| maps.levels[level].iter().copied()).collect();
            let n = values.len() as f64;
            let mean = values.iter().map(|&v| f64::from(v)).sum::<f64>() / n;
            let variance = values.iter().map(|&v| (f64::from(v) - mean).powi(2)).sum::<f64>() / n;
            let at = ((n * f64::from(settings.boundary_quantile)) as usize).min(values.len() - 1);
            let quantile = *values.select_nth_unstable_by(at, f32::total_cmp).1;
            let highest = values.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let (mean, deviation) = match settings.evidence() {
                Evidence::Likelihood => (highest, 1.0),
                _ => (mean as f32, variance.sqrt().max(1e-6) as f32),
            };
            LevelCalibration {
                mean,
                deviation,
                weight: 1.0 / count as f32,
                normal_boundary: quantile,
                abnormal_boundary: quantile - settings.margin * NORMALISER,
            }
        })
        .collect();
    let mut calibration = Calibration {
        levels,
        evidence: settings.evidence(),
        smoothing_sigma: settings.smoothing_sigma,
        minimum_area: 1,
        image: ImageBoundary {
            normal: 0.0,
            abnormal: 0.0,
            suspect_rate: settings.suspect_rate,
            false_reject_rate: settings.false_reject_rate,
        },
        set: CalibrationSet {
            images: normals.len(),
            groups,
            false_reject_interval: [0.0, 1.0],
            warnings: Vec::new(),
            scores: Vec::new(),
        },
    };
    let fused = |maps: &[LogLikelihoodMaps]| maps.iter().map(|m| fuse(m, &calibration)).collect::<Vec<_>>();
    let (normal_maps, defect_maps) = (fused(normals), fused(defects));
    let scores = |maps: &[crate::inspection::AnomalyMap], area| {
        maps.iter().map(|map| image_score(map, area)).collect::<Vec<f32>>()
    };
    let mut best = (f64::NEG_INFINITY, 1);
    for area in AREAS.into_iter().filter(|&area| area <= normal_maps[0].0.len()) {
        let order = separation(&scores(&normal_maps, area), &scores(&defect_maps, area));
        // Strictly better only: the smallest area that separates best.
        if order > best.0 {
            best = (order, area);
        }
    }
    calibration.minimum_area = best.1;
    let mut normal_scores = scores(&normal_maps, best.1);
    normal_scores.sort_unstable_by(f32::total_cmp);
    let reject = conformal_threshold(&normal_scores, settings.false_reject_rate);
    let suspect = conformal_threshold(&normal_scores, settings.suspect_rate);
    for (threshold, what, rate) in
        [(&reject, "false-reject", settings.false_reject_rate), (&suspect, "suspect", settings.suspect_rate)]
    {
        if !threshold.reached {
            calibration.set.warnings.push(format!(
                "{} calibration pictures are too few for a {what} rate of {} %: at least {} are needed, the boundary is the highest score among them",
                normals.len(),
                rate * 100.0,
                smallest_set(rate),
            ));
        }
    }
    if groups < normals.len() {
        calibration.set.warnings.push(format!(
            "the {} calibration pictures come from {groups} groups: pictures of a group resemble each other, so the interval of the false-reject rate is narrower than it should be",
            normals.len(),
        ));
    }
    let passed = normal_scores.iter().filter(|&&score| score > reject.value).count();
    calibration.set.false_reject_interval = clopper_pearson(passed, normals.len(), 0.95);
    calibration.image.abnormal = reject.value.max(suspect.value);
    calibration.image.normal = suspect.value;
    calibration.set.scores = normal_scores;
    calibration
}

/// Probability that a defect scores above a normal, ties counting half; 0.5 without defects.
fn separation(normals: &[f32], defects: &[f32]) -> f64 {
    let pairs = (normals.len() * defects.len()) as f64;
    if pairs == 0.0 {
        return 0.5;
    }
    let above: f64 = defects
        .iter()
        .flat_map(|d| {
            normals.iter().map(move |n| {
                if d > n {
                    1.0
                } else if d == n {
                    0.5
                } else {
                    0.0
                }
            })
        })
        .sum();
    above / pairs
}
