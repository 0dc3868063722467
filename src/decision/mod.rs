//! Score maps + boundary -> verdict with reasons. Pure: no clock, no I/O, no randomness.

use crate::bundle::{Calibration, Manifest};
use crate::inspection::{AnomalyMap, LogLikelihoodMaps, Outcome, Size};

/// Fuses the levels into one anomaly map at the finest level's resolution:
/// `sum_l weight_l * (mean_l - log_likelihood_l) / deviation_l`, coarser levels enlarged
/// bilinearly, smoothed by a Gaussian of `smoothing_sigma` cells.
pub fn fuse(maps: &LogLikelihoodMaps, calibration: &Calibration) -> AnomalyMap {
    let _ = (maps, calibration);
    unimplemented!()
}

/// The highest level at which the map has a 4-connected region of at least `minimum_area` cells.
pub fn image_score(map: &AnomalyMap, minimum_area: usize) -> f32 {
    let _ = (map, minimum_area);
    unimplemented!()
}

/// The verdict on one picture, and the fused map. `full` is the size of the full frame: regions
/// are given in its pixels.
pub fn decide(maps: &LogLikelihoodMaps, manifest: &Manifest, full: Size) -> (Outcome, AnomalyMap) {
    let _ = (maps, manifest, full);
    unimplemented!()
}
