//! What held-out normals teach: level constants, boundaries, thresholds.

mod conformal;

use std::collections::BTreeSet;

use ndarray::Array2;

use crate::bundle::{Calibration, CalibrationSet, Evidence, ImageBoundary, LevelCalibration};
use crate::decision::{fuse, image_score};
use crate::inspection::{AnomalyMap, LogLikelihoodMaps};
use crate::training::evaluation::clopper_pearson;
use crate::training::fit::loss::NORMALISER;
use crate::training::settings::Settings;

pub use conformal::{GroupedScore, Threshold, conformal_threshold, smallest_set};

/// Minimum areas tried, cells of the fused map.
const AREAS: [usize; 5] = [1, 2, 4, 8, 16];
/// Cells between regions across which they are merged, tried with every area.
const MERGED: [usize; 3] = [0, 1, 3];
/// Where the oddest cell of a typical good part (the median one) lies on every level, units of the evidence: at
/// the ceiling that it is bent at by default.
const ODDEST: f32 = 4.0;

/// What stands in until the calibration is learned: the model must run to learn it.
pub fn uncalibrated(levels: usize, settings: &Settings) -> Calibration {
    let level = LevelCalibration {
        mean: 0.0,
        deviation: 1.0,
        weight: 1.0 / levels as f32,
        or_previous: false,
        normal_boundary: 0.0,
        abnormal_boundary: 0.0,
    };
    Calibration {
        levels: vec![level; levels],
        evidence: settings.evidence(),
        strongest: settings.strongest,
        smoothing_sigma: settings.smoothing_sigma,
        minimum_area: 1,
        merging: 0,
        image: ImageBoundary {
            normal: 0.0,
            abnormal: 0.0,
            suspect_rate: settings.suspect_rate,
            false_reject_rate: settings.false_reject_rate,
        },
        set: CalibrationSet {
            images: 0,
            groups: 0,
            false_reject_interval: [0.0, 1.0],
            warnings: Vec::new(),
            scores: Vec::new(),
            score_groups: Vec::new(),
        },
    }
}

/// Maps that choose what is chosen by trying: never those of the calibration set, whose scores
/// would come out lower for it than the next part's.
pub struct Trial {
    /// Normals that the flows were trained on.
    pub normals: Vec<LogLikelihoodMaps>,
    /// Known or invented defects.
    pub defects: Vec<LogLikelihoodMaps>,
}

/// Learns the calibration from maps of held-out normals.
///
/// `groups` has the number of each normal's group; `trial` chooses only the region rule.
/// The boundaries come from the normals alone, by the conformal quantile: of the next normal part's
/// score it is known that it passes with at most the wished probability, if it is like those. That
/// holds only where a calibration picture is scored as the next part will be, by level constants it
/// had no part in; so each is scored by the constants of the others.
///
/// # Panics
/// Without any map.
pub fn calibrate(normals: &[LogLikelihoodMaps], groups: &[usize], trial: &Trial, settings: &Settings) -> Calibration {
    let count = normals[0].levels.len();
    // The levels are one a map, the one with context, the one that compares or the one that contrasts.
    let beside = usize::from(settings.coreset > 0) + usize::from(settings.contrast);
    let context = (settings.context > 0).then(|| count.saturating_sub(1 + beside));
    let contrast = settings.contrast.then(|| count - 1);
    // What contrasts takes up what the context says, and speaks for both.
    let speaks = |level: usize| contrast.is_none() || Some(level) != context;
    let speakers = (0..count).filter(|&level| speaks(level)).count();
    let moments: Vec<Vec<Moments>> =
        (0..count).map(|level| normals.iter().map(|maps| Moments::of(&maps.levels[level])).collect()).collect();
    let levels: Vec<LevelCalibration> = (0..count)
        .map(|level| {
            let mut values: Vec<f32> = normals.iter().flat_map(|maps| maps.levels[level].iter().copied()).collect();
            let at = ((values.len() as f64 * f64::from(settings.boundary_quantile)) as usize).min(values.len() - 1);
            let quantile = *values.select_nth_unstable_by(at, f32::total_cmp).1;
            let (mean, deviation) = Moments::all_but(&moments[level], None).constants(settings.evidence());
            LevelCalibration {
                mean,
                deviation,
                weight: if speaks(level) { 1.0 / speakers as f32 } else { 0.0 },
                // Of what is small the wider look sees little: averaged with the narrow one it would
                // speak for the part (magnetic_tile, three seeds: image AUROC 0.865, so 0.877).
                or_previous: [context, contrast].contains(&Some(level)),
                normal_boundary: quantile,
                abnormal_boundary: quantile - settings.margin * NORMALISER,
            }
        })
        .collect();
    let mut calibration = Calibration { levels, ..uncalibrated(count, settings) };
    calibration.set.images = normals.len();
    calibration.set.groups = groups.iter().collect::<BTreeSet<_>>().len();
    (calibration.minimum_area, calibration.merging) = region_rule(trial, &calibration);
    let mut normal_scores: Vec<GroupedScore> = normals
        .iter()
        .zip(groups)
        .enumerate()
        .map(|(picture, (maps, &group))| {
            let mut others = calibration.clone();
            if normals.len() > 1 {
                for (level, moments) in others.levels.iter_mut().zip(&moments) {
                    (level.mean, level.deviation) =
                        Moments::all_but(moments, Some(picture)).constants(settings.evidence());
                }
            }
            GroupedScore { score: image_score(&fuse(maps, &others), others.minimum_area, others.merging), group }
        })
        .collect();
    normal_scores.sort_by(|a, b| a.score.total_cmp(&b.score));
    let reject = conformal_threshold(&normal_scores, settings.false_reject_rate);
    let suspect = conformal_threshold(&normal_scores, settings.suspect_rate);
    for (threshold, what, rate) in
        [(&reject, "false-reject", settings.false_reject_rate), (&suspect, "suspect", settings.suspect_rate)]
    {
        if !threshold.reached {
            let needed = smallest_set(rate);
            let (has, needs) = if calibration.set.groups < normals.len() {
                (format!(" from {} groups", calibration.set.groups), format!("{needed} groups"))
            } else {
                (String::new(), needed.to_string())
            };
            calibration.set.warnings.push(format!(
                "{} calibration pictures{has} are too few for a {what} rate of {} %: at least {needs} are needed, the boundary is the highest score among them",
                normals.len(),
                rate * 100.0,
            ));
        }
    }
    if calibration.set.groups < normals.len() {
        calibration.set.warnings.push(format!(
            "the {} calibration pictures come from {} groups: pictures of a group resemble each other, so the interval of the false-reject rate is narrower than it should be",
            normals.len(),
            calibration.set.groups,
        ));
    }
    let passed = normal_scores.iter().filter(|s| s.score > reject.value).count();
    calibration.set.false_reject_interval = clopper_pearson(passed, normals.len(), 0.95);
    calibration.image.abnormal = reject.value.max(suspect.value);
    calibration.image.normal = suspect.value;
    calibration.set.scores = normal_scores.iter().map(|s| s.score).collect();
    calibration.set.score_groups = normal_scores.iter().map(|s| s.group).collect();
    calibration
}

/// What a level's constants are made of: of one picture, or of several.
#[derive(Clone)]
struct Moments {
    count: f64,
    sum: f64,
    highest: f32,
    /// The lowest log-likelihood of each picture.
    lowest: Vec<f32>,
}

impl Moments {
    fn of(map: &Array2<f32>) -> Self {
        let ends = |(low, high): (f32, f32), &v: &f32| (low.min(v), high.max(v));
        let (lowest, highest) = map.iter().fold((f32::INFINITY, f32::NEG_INFINITY), ends);
        let sum = map.iter().map(|&v| f64::from(v)).sum();
        Self { count: map.len() as f64, sum, highest, lowest: vec![lowest] }
    }

    fn all_but(pictures: &[Self], without: Option<usize>) -> Self {
        let others = pictures.iter().enumerate().filter(|(picture, _)| Some(*picture) != without);
        let none = Self { count: 0.0, sum: 0.0, highest: f32::NEG_INFINITY, lowest: Vec::new() };
        others.fold(none, |mut a, (_, b)| {
            a.lowest.extend(&b.lowest);
            Self { count: a.count + b.count, sum: a.sum + b.sum, highest: a.highest.max(b.highest), ..a }
        })
    }

    /// Mean and unit of a level as the evidence uses them.
    ///
    /// The unit is not the deviation of the cells: most cells of most parts show nothing, and how far beyond their
    /// deviation the oddest cell of a good part lies differs from level to level by up to ten times. The level with the
    /// longest tail would then speak for all of them; with this unit a good part's oddest cell says as much on each.
    fn constants(mut self, evidence: Evidence) -> (f32, f32) {
        if evidence == Evidence::Likelihood {
            return (self.highest, 1.0);
        }
        let mean = (self.sum / self.count) as f32;
        let middle = self.lowest.len() / 2;
        let lowest = *self.lowest.select_nth_unstable_by(middle, f32::total_cmp).1;
        (mean, ((mean - lowest) / ODDEST).max(1e-6))
    }
}

/// The smallest area, and with it the smallest merging, by whose scores the trial's defects stand out
/// best from its normals, cells.
fn region_rule(trial: &Trial, calibration: &Calibration) -> (usize, usize) {
    let fused = |maps: &[LogLikelihoodMaps]| maps.iter().map(|m| fuse(m, calibration)).collect::<Vec<_>>();
    let (normals, defects) = (fused(&trial.normals), fused(&trial.defects));
    let scores = |maps: &[AnomalyMap], (area, merging)| {
        maps.iter().map(|map| image_score(map, area, merging)).collect::<Vec<f32>>()
    };
    let mut best = (f64::NEG_INFINITY, (1, 0));
    let cells = normals.first().map_or(1, |map| map.0.len());
    for area in AREAS.into_iter().filter(|&area| area <= cells) {
        // A region of one cell needs no other.
        for merging in MERGED.into_iter().filter(|&merging| merging == 0 || area > 1) {
            let order = separation(&scores(&normals, (area, merging)), &scores(&defects, (area, merging)));
            // Strictly better only.
            if order > best.0 {
                best = (order, (area, merging));
            }
        }
    }
    best.1
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

#[cfg(test)]
mod tests {
    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;
    use crate::config::Preset;

    /// Settings of a training in which nothing was contrasted.
    fn of_flows_alone() -> Settings {
        Settings { contrast: false, ..Settings::preset(Preset::Standard) }
    }

    /// A part whose log-likelihoods scatter as much as this part does, for parts differ.
    fn part(rng: &mut ChaCha8Rng) -> LogLikelihoodMaps {
        let scatter = 0.2 + 2.0 * rng.random::<f32>().powi(3);
        let map = Array2::from_shape_simple_fn((4, 4), || -3.0 + scatter * (rng.random::<f32>() - 0.5));
        LogLikelihoodMaps { levels: vec![map] }
    }

    fn learned(normals: &[LogLikelihoodMaps], settings: &Settings) -> Calibration {
        calibrate(
            normals,
            &(0..normals.len()).collect::<Vec<_>>(),
            &Trial { normals: Vec::new(), defects: Vec::new() },
            settings,
        )
    }

    #[test]
    fn the_next_part_passes_the_highest_of_ten_once_in_eleven_times() {
        let mut rng = ChaCha8Rng::seed_from_u64(7);
        let settings = of_flows_alone();
        let rounds = 2_000;
        let passed = (0..rounds)
            .filter(|_| {
                let parts: Vec<_> = (0..11).map(|_| part(&mut rng)).collect();
                let calibration = learned(&parts[1..], &settings);
                image_score(&fuse(&parts[0], &calibration), calibration.minimum_area, calibration.merging)
                    > calibration.image.abnormal
            })
            .count();
        let share = passed as f64 / f64::from(rounds);
        // Three standard errors.
        assert!((share - 1.0 / 11.0).abs() < 3.0 * (10.0f64 / 121.0 / f64::from(rounds)).sqrt(), "{share}");
    }

    #[test]
    fn a_calibration_part_is_scored_by_the_constants_of_the_others() {
        let settings = of_flows_alone();
        let flat = |low: f32| {
            let map = Array2::from_shape_fn((4, 4), |(r, c)| low + 0.1 * ((r + c) % 3) as f32);
            LogLikelihoodMaps { levels: vec![map] }
        };
        let (parts, odd) = ([flat(-3.0), flat(-3.1)], flat(-9.0));
        let of_the_others = image_score(&fuse(&odd, &learned(&parts, &settings)), 1, 0);
        let [a, b] = parts;
        let calibration = learned(&[a, b, odd], &settings);
        assert_eq!(calibration.set.scores[2], of_the_others, "{:?}", calibration.set.scores);
    }

    #[test]
    fn a_good_parts_oddest_cell_says_as_much_on_every_level() {
        // One level scatters evenly, the other is flat but for a cell here and there.
        let part = |oddest: f32| LogLikelihoodMaps {
            levels: vec![
                Array2::from_shape_fn((8, 8), |(r, c)| -3.0 - oddest * ((r + c) % 5) as f32 / 4.0),
                Array2::from_shape_fn((8, 8), |cell| if cell == (3, 3) { -3.0 - 7.0 * oddest } else { -3.0 }),
            ],
        };
        let learned = learned(&[0.2, 0.3, 0.9].map(part), &of_flows_alone());
        for (level, oddest) in learned.levels.iter().zip([-3.3, -5.1]) {
            assert!(((level.mean - oddest) / level.deviation - ODDEST).abs() < 1e-4, "{level:?}");
        }
    }

    #[test]
    fn a_single_calibration_part_is_scored_by_its_own_constants() {
        let calibration = learned(&[part(&mut ChaCha8Rng::seed_from_u64(1))], &of_flows_alone());
        assert!(calibration.set.scores[0].is_finite(), "{:?}", calibration.set.scores);
    }

    #[test]
    fn the_area_is_the_smallest_that_separates_the_trial() {
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        let normals: Vec<_> = (0..4).map(|_| part(&mut rng)).collect();
        // Single cells are odd in normals; defects are odd in patches.
        let odd = |cells: &[(usize, usize)]| {
            let mut map = Array2::from_elem((16, 16), -3.0);
            map.indexed_iter_mut().for_each(|((r, c), v)| *v += 0.1 * ((r * 7 + c * 3) % 5) as f32);
            for &cell in cells {
                map[cell] = -9.0;
            }
            LogLikelihoodMaps { levels: vec![map] }
        };
        let patch: Vec<_> = (5..9).flat_map(|r| (5..9).map(move |c| (r, c))).collect();
        let trial = Trial { normals: vec![odd(&[(2, 2)]), odd(&[(11, 4)])], defects: vec![odd(&patch)] };
        let settings = Settings { smoothing_sigma: 0.0, ..of_flows_alone() };
        let tried = calibrate(&normals, &[0, 1, 2, 3], &trial, &settings);
        assert!(tried.minimum_area > 1, "{}", tried.minimum_area);
        assert_eq!(tried.merging, 0, "merging tells nothing here");
        assert_eq!(learned(&normals, &settings).minimum_area, 1, "nothing tried");

        // Odd in cells that lie apart, but in more of them than the normal's patch has.
        let apart: Vec<_> = (0..10).map(|i| (4 + 2 * (i / 2), 8 + 2 * (i % 2))).collect();
        let patch = [(2, 2), (2, 3), (3, 2), (3, 3)];
        let mut normal = odd(&patch);
        // And the normal is a little odd everywhere.
        normal.levels[0] -= 1.0;
        let trial = Trial { normals: vec![normal], defects: vec![odd(&apart)] };
        let merged = calibrate(&normals, &[0, 1, 2, 3], &trial, &settings);
        assert_eq!((merged.minimum_area, merged.merging), (8, 1));
    }
}
