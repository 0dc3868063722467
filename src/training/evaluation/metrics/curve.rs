//! Curves, thinned for drawing.

use super::{Ranking, Selection, Undefined};

/// Points (x, y), both from 0 to 1, from the highest threshold to the lowest.
pub type Curve = Vec<[f64; 2]>;

/// A point is kept when it lies so far from the last one kept.
const SPACING: f64 = 1.0 / 400.0;

/// True positive rate over false positive rate.
///
/// # Errors
/// [`Undefined`] where only one of the two kinds is there.
pub fn roc_curve(ranking: &Ranking, selection: Selection) -> Result<Curve, Undefined> {
    let totals = ranking.totals(selection)?;
    Ok(thin(ranking.steps(selection).map(|step| {
        [step.false_positives as f64 / totals.normals as f64, step.true_positives as f64 / totals.abnormals as f64]
    })))
}

/// Mean per-region overlap over false positive rate.
///
/// # Errors
/// [`Undefined`] where only one of the two kinds is there.
pub fn pro_curve(ranking: &Ranking, selection: Selection) -> Result<Curve, Undefined> {
    let totals = ranking.totals(selection)?;
    Ok(thin(
        ranking
            .steps(selection)
            .map(|step| [step.false_positives as f64 / totals.normals as f64, step.overlap / totals.regions as f64]),
    ))
}

/// Keeps the corners: a point is passed over only while the curve stays near the last one kept,
/// and the last point before a jump is kept as well.
fn thin(points: impl Iterator<Item = [f64; 2]>) -> Curve {
    let mut kept = vec![[0.0, 0.0]];
    let mut before = [0.0, 0.0];
    for point in points {
        let last = kept[kept.len() - 1];
        if point[0] - last[0] >= SPACING || point[1] - last[1] >= SPACING {
            if before != last {
                kept.push(before);
            }
            kept.push(point);
        }
        before = point;
    }
    if kept.last() != Some(&before) {
        kept.push(before);
    }
    kept
}
