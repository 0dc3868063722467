//! Area under the receiver operating characteristic.

use super::{Ranking, Selection, Undefined};

/// Chance that an abnormal item scores above a normal one, ties counted half (Mann-Whitney);
/// 0 to 1. Agrees with scikit-learn's `roc_auc_score`.
///
/// # Errors
/// [`Undefined`] where only one of the two kinds is there.
pub fn auroc(ranking: &Ranking, selection: Selection) -> Result<f64, Undefined> {
    let totals = ranking.totals(selection)?;
    let (mut area, mut before) = (0.0, (0, 0));
    for step in ranking.steps(selection) {
        let width = (step.false_positives - before.0) as f64;
        area += width * (step.true_positives + before.1) as f64 / 2.0;
        before = (step.false_positives, step.true_positives);
    }
    Ok(area / (totals.normals as f64 * totals.abnormals as f64))
}
