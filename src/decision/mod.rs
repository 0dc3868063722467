//! Score maps + boundary -> verdict with reasons. Pure: no clock, no I/O, no randomness.

mod component;
mod heatmap;
mod resample;

use ndarray::Array2;

use crate::bundle::{Calibration, Evidence, Manifest};
use crate::inspection::{
    AnomalyMap, LogLikelihoodMaps, NotInspected, Outcome, Reason, Rectangle, Region, Size, Verdict,
};

use component::Scorer;
pub use component::image_score;
pub use heatmap::{heatmap, outline, overlay};
use resample::{Resampler, Smoother};
pub use resample::{enlarge, enlarge_with_aligned_corners, smooth};

/// At most so many regions are named in one decision, the highest peaks.
pub const MAX_REGIONS: usize = 64;

/// Weight of the logarithm that goes on beyond the ceiling.
const BEYOND: f32 = 0.1;

/// What a cell that lies `z` units ([`crate::bundle::LevelCalibration::deviation`]) below the mean log-likelihood says
/// against the part.
///
/// Why bounded: log-likelihoods of defects lie thousands of units off. Unbounded, the coarse
/// levels' halo around a strong defect outshouts every weaker one (magnetic_tile, three seeds: AUPRO 0.746,
/// bounded 0.790). `-ln(e^-z + e^-ceiling)` is the log-likelihood of a cell that is drawn from
/// the normals or, with a constant density beside, from anything else.
///
/// The small logarithm beside it never ends: were evidence to stop at the ceiling, one odd normal
/// there would put the boundary where no defect could pass it.
pub fn evidence(z: f32, kind: Evidence) -> f32 {
    match kind {
        Evidence::Deviations => z,
        Evidence::Bounded { ceiling } => {
            let (low, high) = if z < ceiling { (z, ceiling) } else { (ceiling, z) };
            // ln(1 + x), for ln_1p takes three times as long; what it would add is below the last digit
            // of `low`.
            let bent = low - (1.0 + (low - high).exp()).ln();
            if z > 0.0 { bent + BEYOND * (1.0 + z / ceiling).ln() } else { bent }
        }
        // Above the highest that calibration saw there is nothing left to say for a cell.
        Evidence::Likelihood => -(-z).min(0.0).exp(),
    }
}

/// Fuses the levels into one anomaly map at the finest level's resolution:
/// `sum_l weight_l * e_l`, where `e_l = evidence((mean_l - log_likelihood_l) / deviation_l)` or, of a
/// level with `or_previous`, the higher of that and `e_(l-1)`; coarser levels enlarged bilinearly. Of a
/// calibration with `strongest` that sum makes up the rest of it, beside the highest `e_l` times `strongest`: what one
/// level alone sees, a soft wide defect, is not outvoted. All smoothed by a Gaussian of `smoothing_sigma` cells. Levels beyond those calibrated are left out,
/// and without any level the map is empty; [`decide`] refuses both.
pub fn fuse(maps: &LogLikelihoodMaps, calibration: &Calibration) -> AnomalyMap {
    let mut decider = Decider::new();
    decider.fuse(maps, calibration);
    decider.map
}

/// What a [`Decider`] makes of one picture, and the fused map.
pub fn decide(maps: &LogLikelihoodMaps, manifest: &Manifest, full: Size) -> (Outcome, AnomalyMap) {
    let mut decider = Decider::new();
    let outcome = decider.decide(maps, manifest, full);
    (outcome, decider.map)
}

/// Decides about pictures, one after the other in the same memory: about an accepted picture of the
/// size of the one before, without allocating any.
#[derive(Debug)]
pub struct Decider {
    map: AnomalyMap,
    /// The most that any level says.
    most: Array2<f32>,
    /// What one level says.
    said: Vec<f32>,
    resampler: Resampler,
    smoother: Smoother,
    scorer: Scorer,
}

impl Default for Decider {
    fn default() -> Self {
        Self::new()
    }
}

impl Decider {
    /// One that has decided about nothing yet.
    pub fn new() -> Self {
        Self {
            map: AnomalyMap(Array2::zeros((0, 0))),
            most: Array2::zeros((0, 0)),
            said: Vec::new(),
            resampler: Resampler::default(),
            smoother: Smoother::default(),
            scorer: Scorer::default(),
        }
    }

    /// The fused map of the last picture; empty where it could not be made.
    pub fn map(&self) -> &AnomalyMap {
        &self.map
    }

    /// The verdict on one picture. `full` is the size of the full frame: regions are given in its
    /// pixels.
    ///
    /// A score up to the normal boundary is accepted, up to the abnormal boundary suspect, beyond it
    /// rejected. A map that is not finite everywhere gives [`NotInspected::NotFinite`], and maps that
    /// are not those of the manifest give [`NotInspected::Failed`]: never good by default.
    pub fn decide(&mut self, maps: &LogLikelihoodMaps, manifest: &Manifest, full: Size) -> Outcome {
        let expected = manifest.levels.iter().map(|level| (level.rows, level.columns));
        if maps.levels.is_empty() || !maps.levels.iter().map(Array2::dim).eq(expected) {
            self.map = AnomalyMap(Array2::zeros((0, 0)));
            return Outcome::not_inspected(NotInspected::Failed);
        }
        let calibration = &manifest.calibration;
        self.fuse(maps, calibration);
        if !maps.is_finite() || !self.map.0.iter().all(|v| v.is_finite()) {
            return Outcome::not_inspected(NotInspected::NotFinite);
        }
        let score = self.scorer.score(&self.map, calibration.minimum_area, calibration.merging);
        let (verdict, boundary) = judge(score, calibration);
        let reasons = boundary.map(|boundary| Reason::ScoreAboveBoundary { score, boundary }).into_iter().collect();
        let regions = regions(&self.map, calibration, manifest.preprocessing.region_of_interest, full);
        Outcome { verdict, reasons, image_score: Some(score), regions }
    }

    /// See [`fuse`].
    fn fuse(&mut self, maps: &LogLikelihoodMaps, calibration: &Calibration) {
        let finest = maps.levels.first().map_or((0, 0), Array2::dim);
        if self.map.0.dim() == finest {
            self.map.0.fill(0.0);
        } else {
            self.map.0 = Array2::zeros(finest);
        }
        let share = calibration.strongest;
        if self.most.dim() == finest {
            self.most.fill(f32::NEG_INFINITY);
        } else {
            self.most = Array2::from_elem(finest, f32::NEG_INFINITY);
        }
        self.said.clear();
        let mut levels = maps.levels.iter().zip(&calibration.levels).peekable();
        while let Some((map, level)) = levels.next() {
            let say = |l: &f32| evidence((level.mean - l) / level.deviation, calibration.evidence);
            if level.or_previous && self.said.len() == map.len() {
                // What is no number stays none, whatever was said before.
                let more = |said: &mut f32, now: f32| *said = if now.is_finite() { said.max(now) } else { now };
                self.said.iter_mut().zip(map).for_each(|(said, l)| more(said, say(l)));
            } else {
                self.said.clear();
                self.said.extend(map.iter().map(say));
            }
            if level.weight != 0.0 {
                self.resampler.add(level.weight * (1.0 - share), &self.said, map.dim(), &mut self.map.0);
            }
            // A level that goes by this one says as much.
            if share > 0.0 && !levels.peek().is_some_and(|(_, next)| next.or_previous) {
                self.resampler.raise(&self.said, map.dim(), &mut self.most);
            }
        }
        if share > 0.0 {
            self.map.0.zip_mut_with(&self.most, |cell, most| *cell += share * most);
        }
        self.smoother.smooth(&mut self.map.0, calibration.smoothing_sigma);
    }
}

/// The verdict on a finite score, and the boundary it passed.
fn judge(score: f32, calibration: &Calibration) -> (Verdict, Option<f32>) {
    let boundary = calibration.image;
    if score <= boundary.normal {
        (Verdict::Accept, None)
    } else if score <= boundary.abnormal {
        (Verdict::Suspect, Some(boundary.normal))
    } else {
        (Verdict::Reject, Some(boundary.abnormal))
    }
}

/// Where the map lies above the normal boundary, in pixels of the full frame.
fn regions(map: &AnomalyMap, calibration: &Calibration, roi: Option<Rectangle>, full: Size) -> Vec<Region> {
    let (rows, columns) = map.0.dim();
    let roi = roi.unwrap_or(Rectangle { x: 0, y: 0, width: full.width, height: full.height });
    let cell_area = (roi.width as f32 / columns as f32) * (roi.height as f32 / rows as f32);
    // First and last pixel of a run of cells; at least one pixel, and inside the frame.
    let span = |from: usize, to: usize, start: usize, length: usize, cells: usize, limit: usize| {
        let first = (start + from * length / cells).min(limit.saturating_sub(1));
        let end = (start + ((to + 1) * length).div_ceil(cells)).min(limit);
        (first, end.saturating_sub(first).max(1))
    };
    component::components(&map.0, calibration.image.normal, calibration.minimum_area, calibration.merging)
        .into_iter()
        .take(MAX_REGIONS)
        .map(|c| {
            let (x, width) = span(c.left, c.right, roi.x, roi.width, columns, full.width);
            let (y, height) = span(c.top, c.bottom, roi.y, roi.height, rows, full.height);
            Region { bounds: Rectangle { x, y, width, height }, area: c.cells as f32 * cell_area, peak_score: c.peak }
        })
        .collect()
}
