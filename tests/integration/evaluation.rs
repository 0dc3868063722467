//! From scored pictures to figures.

mod bundle;

use linegate::training::evaluation::metrics::{
    PRO_LIMIT, Ranking, RankingBuilder, Selection, Undefined, Unit, aupro, auroc, average_precision, pro_curve,
    roc_curve,
};
use proptest::prelude::*;

/// Scores with ties, and what scikit-learn 1.7 says of them.
const SCORES: [f32; 10] = [0.9, 0.8, 0.8, 0.7, 0.6, 0.6, 0.5, 0.4, 0.4, 0.1];
const DEFECTIVE: [bool; 10] = [true, true, false, true, false, true, false, false, true, false];

fn images(scores: &[f32], defective: &[bool]) -> Ranking {
    Ranking::of_items(Unit::Images, scores.iter().copied().zip(defective.iter().copied())).expect("ranking")
}

#[test]
fn image_metrics_agree_with_scikit_learn_where_scores_tie() {
    let ranking = images(&SCORES, &DEFECTIVE);
    assert!((auroc(&ranking, Selection::All).expect("defined") - 0.74).abs() < 1e-12);
    let precision = average_precision(&ranking, Selection::All).expect("defined");
    assert!((precision - 0.727_777_777_777_777_9).abs() < 1e-12, "{precision}");
}

/// Three 4x6 maps with ties; regions of five, one and six pixels, the first joined at a corner.
#[rustfmt::skip]
const MAPS: [[f32; 24]; 3] = [
    [1.2, 1.5, -0.3, -0.9, -0.5, -1.0, 1.3, 2.5, -0.5, -0.6, 0.5, 0.4, 0.1, -0.9, 1.2, 0.7, -1.3, -0.5, -1.9, -1.3, -1.8, -0.2, -1.3, 1.5],
    [0.2, -0.2, -2.0, -0.5, -0.0, 0.1, -1.5, -0.5, -1.0, 0.4, 2.3, 0.4, -0.0, 0.9, -0.6, 1.1, 1.3, 1.3, -1.2, 0.1, 1.4, -1.5, 0.9, 0.1],
    [-0.6, 2.0, 0.8, -1.2, 0.1, 0.6, -0.2, 0.7, -0.1, 0.7, 1.4, -0.7, 0.2, -0.5, 0.1, -1.2, -0.6, -0.2, 0.9, 1.1, -1.3, -0.8, 0.6, -2.0],
];
const REGIONS: [[u32; 24]; 3] = [
    [1, 1, 0, 0, 0, 0, 1, 1, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 2],
    [0, 0, 0, 0, 0, 0, 0, 0, 0, 3, 3, 3, 0, 0, 0, 3, 3, 3, 0, 0, 0, 0, 0, 0],
    [0; 24],
];
/// Type of each map: two defect types and a good one.
const KINDS: [u8; 3] = [1, 2, 0];

fn pixels() -> Ranking {
    let mut builder = RankingBuilder::new(Unit::Pixels, 72);
    let opened: Vec<u32> = [1, 1, 2].into_iter().map(|kind| builder.region(kind).expect("room")).collect();
    assert_eq!(opened, [1, 2, 3]);
    for ((map, regions), kind) in MAPS.iter().zip(&REGIONS).zip(KINDS) {
        for (&score, &region) in map.iter().zip(regions) {
            builder.add(score, kind, (region > 0).then_some(region));
        }
    }
    builder.sort().expect("numbers")
}

#[test]
fn pixel_metrics_agree_with_scikit_learn_and_the_definition_of_per_region_overlap() {
    let ranking = pixels();
    let near = |got: Result<f64, Undefined>, want: f64| assert!((got.expect("defined") - want).abs() < 1e-12);
    near(auroc(&ranking, Selection::All), 0.93125);
    near(average_precision(&ranking, Selection::All), 0.733_597_883_597_883_6);
    // Every threshold, every region labelled by scipy, the trapezoid of numpy.
    near(aupro(&ranking, Selection::All, PRO_LIMIT), 0.825_617_283_950_617_3);
    near(aupro(&ranking, Selection::All, 1.0), 0.947_685_185_185_185_2);
}

#[test]
fn one_defect_type_is_measured_against_all_good_pictures_and_no_other_type() {
    let chosen = |kind: u8| {
        let items = (0..3).filter(|&i| KINDS[i] == kind || KINDS[i] == 0);
        items.flat_map(|i| MAPS[i].into_iter().zip(REGIONS[i].map(|r| r > 0))).collect::<Vec<_>>()
    };
    for kind in [1, 2] {
        let alone = Ranking::of_items(Unit::Pixels, chosen(kind)).expect("ranking");
        let want = auroc(&alone, Selection::All);
        assert_eq!(auroc(&pixels(), Selection::Type(kind)), want);
    }
}

#[test]
fn one_class_alone_has_no_metric() {
    let normal = images(&[0.1, 0.2], &[false, false]);
    let abnormal = images(&[0.1, 0.2], &[true, true]);
    for metric in [auroc, average_precision] {
        assert_eq!(metric(&normal, Selection::All), Err(Undefined::NothingAbnormal(Unit::Images)));
        assert_eq!(metric(&abnormal, Selection::All), Err(Undefined::NothingNormal(Unit::Images)));
    }
    assert_eq!(aupro(&normal, Selection::All, 0.3), Err(Undefined::NothingAbnormal(Unit::Images)));
    let torn = Ranking::of_items(Unit::Images, [(f32::NAN, true), (0.0, false)]);
    assert_eq!(torn.err(), Some(Undefined::NotANumber));
}

#[test]
fn curves_run_from_corner_to_corner_and_stay_short() {
    let many = (0..200_000_u32).map(|i| ((i.wrapping_mul(2_654_435_761) >> 8) as f32, i % 7 == 0));
    let ranking = Ranking::of_items(Unit::Images, many).expect("ranking");
    for curve in [roc_curve(&ranking, Selection::All), pro_curve(&ranking, Selection::All)] {
        let curve = curve.expect("defined");
        assert_eq!(curve[0], [0.0, 0.0]);
        let end = curve[curve.len() - 1];
        assert!((end[0] - 1.0).abs() < 1e-9 && (end[1] - 1.0).abs() < 1e-9, "{end:?}");
        assert!(curve.len() < 2_500, "{} points", curve.len());
        assert!(curve.is_sorted_by(|a, b| a[0] <= b[0] && a[1] <= b[1]));
    }
}

proptest! {
    #[test]
    fn auroc_is_the_chance_that_a_defect_scores_higher(
        items in prop::collection::vec((-3_i8..3, any::<bool>()), 2..40),
    ) {
        let items: Vec<(f32, bool)> = items.into_iter().map(|(s, d)| (f32::from(s), d)).collect();
        let ranking = Ranking::of_items(Unit::Images, items.iter().copied()).expect("ranking");
        let (mut wins, mut pairs) = (0.0, 0.0);
        for &(high, _) in items.iter().filter(|i| i.1) {
            for &(low, _) in items.iter().filter(|i| !i.1) {
                pairs += 1.0;
                wins += if high > low { 1.0 } else if high == low { 0.5 } else { 0.0 };
            }
        }
        if let Ok(area) = auroc(&ranking, Selection::All) {
            prop_assert!((area - wins / pairs).abs() < 1e-12);
        } else {
            prop_assert_eq!(pairs, 0.0);
        }
    }
}
