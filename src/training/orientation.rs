//! Whether parts lie alike before the camera, seen from the pictures.

use std::f32::consts::FRAC_PI_2;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use ndarray::{Array1, Array2, ArrayView2, Axis};

use super::dataset::{Sample, picture_size};
use super::gather::{check, load};
use super::settings::Settings;
use super::synthesis::turned;
use super::warm::WarmStart;
use super::{Progress, TrainError};
use crate::bundle::Preprocessing;
use crate::config::Orientation;
use crate::inspection::{Picture, Rectangle, Size};
use crate::scoring::{FeatureExtractor, PictureFitter, SessionOptions};

/// Normals looked at, at most.
const LOOKED_AT: usize = 32;
/// Of fewer nothing is concluded.
const FEWEST: usize = 8;
/// Side of the square that they are looked at, pixels: how a part lies is no small thing.
const SIDE: usize = 128;
/// Parts lie alike where a turn makes pictures so many times as unlike the others as they are. Measured, 32
/// normals: 1.26 to 1.36 on metal_plate and magnetic_tile, 0.98 to 1.03 on parts lying at random.
const ALIKE: f64 = 1.08;

/// With so many normals that lie in every orientation nothing is gained by turning some. Image AUROC of good parts
/// alone, two seeds, without and with two copies: 256 screws (MVTec AD) 0.757 and 0.704, 48 brackets 0.966 and 0.998.
const ENOUGH_TURNED: usize = 150;
/// Turned copies of each normal, at most.
const MOST_COPIES: usize = 2;

/// The settings with [`Orientation::Auto`] replaced by what is: that of the bundle that training starts
/// from, else what the pictures tell; and with the number of turned copies that it takes.
///
/// # Errors
/// [`TrainError`]: a picture or the backbone cannot be read, or the user stopped it.
pub(super) fn settle(
    settings: &Settings,
    backbone: &Path,
    normals: &[Sample],
    start: Option<&WarmStart>,
    progress: &dyn Progress,
    stop: &AtomicBool,
) -> Result<Settings, TrainError> {
    let given = match (settings.orientation, start) {
        (Orientation::Auto, Some(start)) => start.orientation(),
        (given, _) => given,
    };
    if given == Orientation::Fixed {
        return Ok(Settings { orientation: given, turned_copies: 0, ..settings.clone() });
    }
    let ratio = unlikeness_by_turns(backbone, settings, normals, stop)?;
    let orientation = if given == Orientation::Auto {
        let (orientation, text) = concluded(ratio, normals.len());
        progress.tell(&text);
        orientation
    } else {
        given
    };
    let turned_copies = if orientation == Orientation::Any { copies(ratio, normals.len()) } else { 0 };
    Ok(Settings { orientation, turned_copies, ..settings.clone() })
}

/// Turned copies of each of so many normals. Where these lie in every orientation the copies only stand in for normals
/// that are not there; where they lie alike, though parts need not, there is nothing else to learn it from.
fn copies(ratio: Option<f64>, normals: usize) -> usize {
    match ratio {
        Some(ratio) if ratio < ALIKE => (ENOUGH_TURNED.div_ceil(normals.max(1)) - 1).min(MOST_COPIES),
        _ => MOST_COPIES,
    }
}

/// What follows from the ratio, and how that is told.
fn concluded(ratio: Option<f64>, normals: usize) -> (Orientation, String) {
    match ratio {
        None => {
            let text = format!("{normals} normals are too few to see how parts lie: taken to lie alike");
            (Orientation::Fixed, format!("{text} (--orientation any where they do not)"))
        }
        Some(ratio) => {
            let turned = format!("normals turned by quarters are {ratio:.2} times as unlike the others as they were");
            if ratio < ALIKE {
                (Orientation::Any, format!("{turned}: parts lie in any orientation (--orientation fixed where not)"))
            } else {
                (Orientation::Fixed, format!("{turned}: parts lie alike (--orientation any where they do not)"))
            }
        }
    }
}

/// How many times as far pictures turned by a quarter, a half and three quarters are from the others as
/// those are from each other, the farthest of the three turns; none of too few pictures. Where every
/// orientation is as likely as any other it is 1, whatever the parts look like.
fn unlikeness_by_turns(
    backbone: &Path,
    settings: &Settings,
    normals: &[Sample],
    stop: &AtomicBool,
) -> Result<Option<f64>, TrainError> {
    if normals.len() < FEWEST {
        return Ok(None);
    }
    let size = Size { width: SIDE, height: SIDE };
    let mut extractor = FeatureExtractor::load(backbone, size, &SessionOptions::on_processor(settings.threads))?;
    let mut fitter = PictureFitter::new();
    // By the number of quarter turns, `[picture, feature]`.
    let mut features: [Vec<Array1<f32>>; 4] = Default::default();
    // From all over the set: the first are often of one day or one part.
    for sample in normals.iter().step_by(normals.len().div_ceil(LOOKED_AT)) {
        check(stop)?;
        let middle = square(settings.region_of_interest, picture_size(&sample.path)?);
        let (picture, _) = load(sample, &Preprocessing { size, region_of_interest: Some(middle) }, &mut fitter)?;
        let turns: [Picture; 4] = std::array::from_fn(|quarters| turned(&picture, quarters as f32 * FRAC_PI_2, 1.0));
        for (mut maps, features) in extractor.extract(&turns.each_ref())?.into_iter().zip(&mut features) {
            features.extend(maps.pop().map(Array1::from_iter));
        }
    }
    Ok(Some(farthest_turn(&features, extractor.levels().last().map_or(1, |&(channels, _)| channels))))
}

/// The largest square in the middle of what the model sees.
fn square(region: Option<Rectangle>, full: Size) -> Rectangle {
    let seen = region.unwrap_or(Rectangle { x: 0, y: 0, width: full.width, height: full.height });
    let side = seen.width.min(seen.height);
    Rectangle { x: seen.x + (seen.width - side) / 2, y: seen.y + (seen.height - side) / 2, width: side, height: side }
}

/// See [`unlikeness_by_turns`]; channels lie innermost and count alike.
fn farthest_turn(features: &[Vec<Array1<f32>>; 4], channels: usize) -> f64 {
    let pictures = features[0].len();
    let length = features[0].first().map_or(0, Array1::len);
    let [straight, turns @ ..] = features.each_ref().map(|pictures_of| {
        Array2::from_shape_fn((pictures, length), |(picture, feature)| f64::from(pictures_of[picture][feature]))
    });
    let deviations: Vec<f64> = (0..channels)
        .map(|channel| {
            let values = || straight.iter().skip(channel).step_by(channels.max(1));
            let mean = values().sum::<f64>() / values().count().max(1) as f64;
            (values().map(|v| (v - mean).powi(2)).sum::<f64>() / values().count().max(1) as f64).sqrt().max(1e-9)
        })
        .collect();
    let scaled = |mut matrix: Array2<f64>| {
        matrix.indexed_iter_mut().for_each(|((_, feature), v)| *v /= deviations[feature % channels.max(1)]);
        matrix
    };
    let straight = scaled(straight);
    let usual = mean_distance(straight.view(), straight.view()).max(1e-12);
    turns.into_iter().map(|turn| mean_distance(scaled(turn).view(), straight.view()) / usual).fold(0.0, f64::max)
}

/// Mean squared distance of every picture of `a` from every other one of `b`.
fn mean_distance(a: ArrayView2<'_, f64>, b: ArrayView2<'_, f64>) -> f64 {
    let count = a.nrows() as f64;
    let squares = |m: &ArrayView2<'_, f64>| m.iter().map(|v| v * v).sum::<f64>();
    let all = count * (squares(&a) + squares(&b)) - 2.0 * a.sum_axis(Axis(0)).dot(&b.sum_axis(Axis(0)));
    let with_itself: f64 = a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum();
    (all - with_itself) / (count * (count - 1.0))
}

#[cfg(test)]
mod tests {
    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;

    /// Maps of 4 x 4 cells and 2 channels of parts with one mark, turned by so many quarters.
    fn maps(rng: &mut ChaCha8Rng, quarters: impl Fn(&mut ChaCha8Rng) -> usize) -> [Vec<Array1<f32>>; 4] {
        let mut features: [Vec<Array1<f32>>; 4] = Default::default();
        for _ in 0..40 {
            let mut part = Array2::from_shape_simple_fn((4, 4), || rng.random_range(-1.0f32..1.0));
            part[(0, 1)] += 4.0;
            let lies = quarters(rng);
            for (turn, features) in features.iter_mut().enumerate() {
                let mut map = part.clone();
                for _ in 0..(lies + turn) % 4 {
                    map = Array2::from_shape_fn((4, 4), |(r, c)| map[(3 - c, r)]);
                }
                features.push(Array1::from_iter(map.into_iter().flat_map(|v| [v, 100.0 - 50.0 * v])));
            }
        }
        features
    }

    #[test]
    fn a_turn_makes_parts_that_lie_alike_unlike_and_leaves_others_as_unlike_as_they_are() {
        let mut rng = ChaCha8Rng::seed_from_u64(2);
        let alike = farthest_turn(&maps(&mut rng, |_| 2), 2);
        let any = farthest_turn(&maps(&mut rng, |rng| rng.random_range(0..4)), 2);
        assert!(alike > 1.5 && (0.95..ALIKE).contains(&any), "{alike} {any}");
        // Parts that lie one way or the other about do not lie in any orientation.
        let two_ways = farthest_turn(&maps(&mut rng, |rng| 2 * rng.random_range(0..2)), 2);
        assert!(two_ways > ALIKE, "{two_ways}");
    }

    #[test]
    fn what_is_concluded_says_what_to_do_where_it_is_wrong() {
        let (orientation, text) = concluded(Some(1.3), 20);
        assert!(orientation == Orientation::Fixed && text.contains("1.30") && text.contains("--orientation any"));
        let (orientation, text) = concluded(Some(1.0), 20);
        assert!(orientation == Orientation::Any && text.contains("--orientation fixed"), "{text}");
        assert_eq!(concluded(None, 5).0, Orientation::Fixed);
    }

    #[test]
    fn normals_are_turned_where_too_few_show_how_parts_may_lie() {
        assert_eq!([10, 48, 100, 149, 150, 2_000].map(|normals| copies(Some(1.0), normals)), [2, 2, 1, 1, 0, 0]);
        // Any orientation is what the user says, not what the pictures show.
        assert_eq!([Some(1.3), None].map(|ratio| copies(ratio, 2_000)), [2, 2]);
    }

    #[test]
    fn the_middle_of_the_region_is_looked_at() {
        let full = Size { width: 100, height: 60 };
        assert_eq!(square(None, full), Rectangle { x: 20, y: 0, width: 60, height: 60 });
        let region = Rectangle { x: 10, y: 20, width: 10, height: 30 };
        assert_eq!(square(Some(region), full), Rectangle { x: 10, y: 30, width: 10, height: 10 });
    }
}
