//! From raw log-likelihoods to a verdict.

use std::collections::BTreeMap;

use linegate::bundle::{
    BUNDLE_SCHEMA_VERSION, Calibration, CalibrationSet, Evidence, ImageBoundary, LevelCalibration, LevelShape,
    Manifest, Preprocessing, Provenance,
};
use linegate::decision::{MAX_REGIONS, decide, evidence, fuse};
use linegate::inspection::{LogLikelihoodMaps, NotInspected, Outcome, Reason, Rectangle, Size, Verdict};
use ndarray::{Array2, array};
use proptest::prelude::*;

use crate::support::calibrated_level;

/// Levels of 4x4 and 2x2 cells on a model of 16x16, plain sum of negative log-likelihoods.
fn manifest(normal: f32, abnormal: f32, minimum_area: usize) -> Manifest {
    let level = |rows, stride| LevelShape { output: format!("level_{rows}"), stride, rows, columns: rows };
    let calibrated = calibrated_level(0.0, 1.0, 0.5);
    Manifest {
        schema_version: BUNDLE_SCHEMA_VERSION,
        name: "part".into(),
        version: "1".into(),
        preprocessing: Preprocessing { size: Size { width: 16, height: 16 }, region_of_interest: None },
        levels: vec![level(4, 4), level(2, 8)],
        calibration: Calibration {
            levels: vec![calibrated; 2],
            evidence: Evidence::Deviations,
            strongest: 0.0,
            smoothing_sigma: 0.0,
            minimum_area,
            merging: 0,
            image: ImageBoundary { normal, abnormal, suspect_rate: 0.05, false_reject_rate: 0.01 },
            set: CalibrationSet {
                images: 1,
                groups: 1,
                false_reject_interval: [0.0, 1.0],
                warnings: Vec::new(),
                scores: vec![0.0],
                score_groups: Vec::new(),
            },
        },
        provenance: Provenance {
            software: "0".into(),
            trained_at: "2026-01-01T00:00:00Z".into(),
            seed: 0,
            threads: 1,
            preset: "test".into(),
            settings: serde_json::Value::Null,
            backbone: "none".into(),
            training_set_sha256: String::new(),
            training_images: 1,
            known_defects: Vec::new(),
            normals: Vec::new(),
            export_difference: 0.0,
            phases: Vec::new(),
            started_from: None,
            fitted_before: Vec::new(),
            peak_memory_mib: 0.0,
        },
        files: BTreeMap::new(),
    }
}

/// Maps whose fused value is `fused` at every cell, for the manifest above.
fn maps_of(fused: &Array2<f32>) -> LogLikelihoodMaps {
    LogLikelihoodMaps { levels: vec![fused.mapv(|v| -2.0 * v), Array2::zeros((2, 2))] }
}

fn one_hot_cell(value: f32) -> Array2<f32> {
    let mut fused = Array2::zeros((4, 4));
    fused[[1, 2]] = value;
    fused
}

const FULL: Size = Size { width: 64, height: 32 };

#[test]
fn a_score_on_a_boundary_belongs_to_the_milder_side() {
    let manifest = manifest(2.0, 4.0, 1);
    let verdict = |score| {
        let (outcome, _) = decide(&maps_of(&one_hot_cell(score)), &manifest, FULL);
        assert_eq!(outcome.image_score, Some(score));
        (outcome.verdict, outcome.reasons)
    };
    let passed = |score, boundary| vec![Reason::ScoreAboveBoundary { score, boundary }];
    assert_eq!(verdict(2.0), (Verdict::Accept, Vec::new()));
    assert_eq!(verdict(2.5), (Verdict::Suspect, passed(2.5, 2.0)));
    assert_eq!(verdict(4.0), (Verdict::Suspect, passed(4.0, 2.0)));
    assert_eq!(verdict(4.5), (Verdict::Reject, passed(4.5, 4.0)));
}

#[test]
fn one_value_that_is_no_number_means_not_inspected() {
    for (level, bad) in [(0, f32::NAN), (1, f32::INFINITY), (1, f32::NEG_INFINITY)] {
        let mut maps = maps_of(&Array2::zeros((4, 4)));
        maps.levels[level][[1, 1]] = bad;
        let (outcome, _) = decide(&maps, &manifest(2.0, 4.0, 1), FULL);
        assert_eq!(outcome, Outcome::not_inspected(NotInspected::NotFinite), "{bad} at level {level}");
    }
}

#[test]
fn what_one_level_alone_sees_is_not_outvoted_by_its_share() {
    let mut manifest = manifest(2.0, 4.0, 1);
    manifest.calibration.strongest = 0.25;
    let mut maps = maps_of(&Array2::zeros((4, 4)));
    maps.levels[1][[0, 0]] = -4.0;
    maps.levels[0][[3, 3]] = -8.0;
    let (_, fused) = decide(&maps, &manifest, FULL);
    // Three quarters of the mean of 0 and 4, or of 8 and 0, and a quarter of the higher.
    assert_eq!([fused.0[[0, 0]], fused.0[[3, 3]], fused.0[[0, 3]]], [2.5, 5.0, 0.0]);

    // A level without weight speaks through the next, which takes up what it says.
    let shape = LevelShape { output: "contrast".into(), ..manifest.levels[1].clone() };
    manifest.levels.push(shape);
    let contrast = LevelCalibration { or_previous: true, ..manifest.calibration.levels[1] };
    manifest.calibration.levels[1].weight = 0.0;
    manifest.calibration.levels.push(contrast);
    maps.levels.push(array![[3.0, 0.0], [-6.0, 0.0]]);
    let (_, fused) = decide(&maps, &manifest, FULL);
    assert_eq!([fused.0[[0, 0]], fused.0[[3, 0]]], [2.5, 3.75]);
}

#[test]
fn a_second_look_at_a_map_says_at_least_what_the_first_says_and_hides_nothing() {
    let mut manifest = manifest(2.0, 4.0, 1);
    manifest.levels.push(LevelShape { output: "context".into(), ..manifest.levels[1].clone() });
    let context = LevelCalibration { weight: 0.25, or_previous: true, ..manifest.calibration.levels[1] };
    manifest.calibration.levels.push(context);
    let mut maps = maps_of(&Array2::zeros((4, 4)));
    // The upper left quarter says 4 at first sight; the second look adds the lower right one.
    maps.levels[1][[0, 0]] = -4.0;
    maps.levels.push(array![[3.0, 0.0], [0.0, -8.0]]);
    let (_, fused) = decide(&maps, &manifest, FULL);
    // 0.5 * 4 + 0.25 * max(4, -3), and 0.5 * 0 + 0.25 * max(0, 8).
    assert_eq!([fused.0[[0, 0]], fused.0[[3, 3]]], [3.0, 2.0]);

    // One so high that it overflows is none that the first look may stand in for.
    maps.levels[2][[0, 0]] = f32::MAX;
    manifest.calibration.levels[2].deviation = 1e-3;
    assert_eq!(decide(&maps, &manifest, FULL).0, Outcome::not_inspected(NotInspected::NotFinite));
}

#[test]
fn log_likelihoods_so_low_that_the_sum_overflows_are_not_accepted() {
    let mut maps = maps_of(&Array2::zeros((4, 4)));
    maps.levels[0].fill(f32::MAX);
    let mut manifest = manifest(2.0, 4.0, 1);
    manifest.calibration.levels[0].deviation = 1e-3;
    assert_eq!(decide(&maps, &manifest, FULL).0, Outcome::not_inspected(NotInspected::NotFinite));
}

#[test]
fn maps_of_another_shape_or_number_mean_failed() {
    let manifest = manifest(2.0, 4.0, 1);
    let fine = maps_of(&Array2::zeros((4, 4)));
    let wrong = [
        LogLikelihoodMaps { levels: Vec::new() },
        LogLikelihoodMaps { levels: fine.levels[..1].to_vec() },
        LogLikelihoodMaps { levels: vec![Array2::zeros((4, 5)), Array2::zeros((2, 2))] },
        LogLikelihoodMaps { levels: vec![Array2::zeros((0, 0)); 2] },
    ];
    for maps in &wrong {
        assert_eq!(decide(maps, &manifest, FULL).0, Outcome::not_inspected(NotInspected::Failed));
    }
}

#[test]
fn a_region_is_given_in_pixels_of_the_full_frame() {
    let (outcome, _) = decide(&maps_of(&one_hot_cell(5.0)), &manifest(2.0, 4.0, 1), FULL);
    // Column 2 and row 1 of a 4x4 grid over 64x32 pixels.
    assert_eq!(outcome.regions.len(), 1);
    assert_eq!(outcome.regions[0].bounds, Rectangle { x: 32, y: 8, width: 16, height: 8 });
    assert_eq!((outcome.regions[0].area, outcome.regions[0].peak_score), (128.0, 5.0));
}

#[test]
fn a_region_of_interest_shifts_the_regions() {
    let mut manifest = manifest(2.0, 4.0, 1);
    manifest.preprocessing.region_of_interest = Some(Rectangle { x: 10, y: 4, width: 40, height: 20 });
    let (outcome, _) = decide(&maps_of(&one_hot_cell(5.0)), &manifest, FULL);
    assert_eq!(outcome.regions[0].bounds, Rectangle { x: 30, y: 9, width: 10, height: 5 });
}

#[test]
fn specks_below_the_minimum_area_are_neither_scored_nor_drawn() {
    let mut fused = one_hot_cell(9.0);
    fused[[3, 0]] = 5.0;
    fused[[3, 1]] = 6.0;
    let (outcome, _) = decide(&maps_of(&fused), &manifest(2.0, 4.0, 2), FULL);
    assert_eq!((outcome.image_score, outcome.verdict), (Some(5.0), Verdict::Reject));
    assert_eq!(outcome.regions.len(), 1);
    assert_eq!(outcome.regions[0].peak_score, 6.0);
}

#[test]
fn levels_are_standardised_weighted_and_enlarged() {
    let mut manifest = manifest(2.0, 4.0, 1);
    manifest.calibration.levels[0].mean = 1.0;
    manifest.calibration.levels[1].deviation = 2.0;
    let maps = LogLikelihoodMaps { levels: vec![Array2::zeros((4, 4)), array![[-4.0, -12.0], [-4.0, -12.0]]] };
    let fused = fuse(&maps, &manifest.calibration).0;
    // 0.5 * (1 - 0) / 1 + 0.5 * (0 - l) / 2, the second bilinear between 1 and 3.
    assert_eq!(fused.row(0).to_vec(), [1.5, 2.0, 3.0, 3.5]);
}

#[test]
fn evidence_is_bounded_smoothly_and_never_falls_with_the_deviation() {
    let bounded = Evidence::Bounded { ceiling: 4.0 };
    assert_eq!(evidence(2.5, Evidence::Deviations), 2.5);
    assert!((evidence(4.0, bounded) - (4.0 - 0.9 * 2f32.ln())).abs() < 1e-6);
    assert!((evidence(-30.0, bounded) + 30.0).abs() < 1e-5, "far inside the normals it is z");
    // An odd normal far beyond the ceiling leaves room for defects above it.
    for (odd, defect) in [(20.0, 30.0), (1e3, 2e3), (1e6, 1e7), (1e20, 1e30)] {
        assert!(evidence(odd, bounded) + 0.01 < evidence(defect, bounded), "{odd} {defect}");
    }
    assert!(evidence(1e3, bounded) < 4.6);
    assert!(!evidence(f32::INFINITY, bounded).is_finite(), "what is no number is not inspected");
    assert!(evidence(f32::NAN, bounded).is_nan() && evidence(f32::NEG_INFINITY, bounded) == f32::NEG_INFINITY);
    assert!((evidence(1.0, Evidence::Likelihood) + (-1f32).exp()).abs() < 1e-6);
    assert_eq!(evidence(-3.0, Evidence::Likelihood), -1.0);
    for kind in [Evidence::Deviations, bounded, Evidence::Likelihood] {
        let values: Vec<f32> = (-200..200).map(|i| evidence(i as f32 / 10.0, kind)).collect();
        assert!(values.is_sorted(), "{kind:?}");
    }
}

#[test]
fn at_most_sixty_four_regions_are_named_and_they_are_the_worst() {
    let mut manifest = manifest(0.5, 4.0, 1);
    manifest.levels.truncate(1);
    manifest.levels[0] = LevelShape { output: "fine".into(), stride: 1, rows: 16, columns: 16 };
    manifest.calibration.levels.truncate(1);
    manifest.calibration.levels[0].weight = 1.0;
    let board =
        Array2::from_shape_fn((16, 16), |(r, c)| if (r + c) % 2 == 0 { -((r * 16 + c) as f32) - 1.0 } else { 0.0 });
    let (outcome, _) = decide(&LogLikelihoodMaps { levels: vec![board] }, &manifest, FULL);
    assert_eq!(outcome.regions.len(), MAX_REGIONS);
    assert_eq!(outcome.regions[0].peak_score, 256.0);
    assert!(outcome.regions.is_sorted_by(|a, b| a.peak_score >= b.peak_score));
}

fn severity(verdict: Verdict) -> u8 {
    match verdict {
        Verdict::Accept => 0,
        Verdict::Suspect => 1,
        Verdict::Reject => 2,
        Verdict::NotInspected => 3,
    }
}

proptest! {
    #[test]
    fn a_less_likely_pixel_never_makes_the_verdict_milder(
        values in prop::collection::vec(-3.0_f32..3.0, 20),
        at in 0_usize..20,
        by in 0.0_f32..10.0,
        area in 1_usize..4,
        sigma in prop::sample::select(vec![0.0_f32, 0.7]),
    ) {
        let mut manifest = manifest(0.6, 1.2, area);
        manifest.calibration.smoothing_sigma = sigma;
        let maps = |v: &[f32]| LogLikelihoodMaps {
            levels: vec![
                Array2::from_shape_vec((4, 4), v[..16].to_vec()).expect("shape"),
                Array2::from_shape_vec((2, 2), v[16..].to_vec()).expect("shape"),
            ],
        };
        let mut worse = values.clone();
        worse[at] -= by;
        let (before, _) = decide(&maps(&values), &manifest, FULL);
        let (after, _) = decide(&maps(&worse), &manifest, FULL);
        prop_assert!(after.image_score >= before.image_score);
        prop_assert!(severity(after.verdict) >= severity(before.verdict));
    }

    #[test]
    fn there_is_a_region_to_show_exactly_when_a_part_is_not_accepted(
        values in prop::collection::vec(-2.0_f32..2.0, 16), area in 1_usize..5,
    ) {
        let fused = Array2::from_shape_vec((4, 4), values).expect("shape");
        let (outcome, _) = decide(&maps_of(&fused), &manifest(0.5, 1.0, area), FULL);
        prop_assert_eq!(outcome.regions.is_empty(), outcome.verdict == Verdict::Accept);
        prop_assert!(outcome.regions.iter().all(|r| r.bounds.fits(FULL)));
    }
}
