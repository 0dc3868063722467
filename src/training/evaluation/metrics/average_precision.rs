//! Area under the precision-recall steps.

use super::{Ranking, Selection, Undefined};

/// `sum (recall_n - recall_{n-1}) * precision_n` over the distinct thresholds, without
/// interpolation; 0 to 1. Agrees with scikit-learn's `average_precision_score`.
///
/// # Errors
/// [`Undefined`] where only one of the two kinds is there.
pub fn average_precision(ranking: &Ranking, selection: Selection) -> Result<f64, Undefined> {
    let totals = ranking.totals(selection)?;
    let (mut sum, mut before) = (0.0, 0);
    for step in ranking.steps(selection) {
        let found = step.true_positives as f64;
        sum += (step.true_positives - before) as f64 * found / (found + step.false_positives as f64);
        before = step.true_positives;
    }
    Ok(sum / totals.abnormals as f64)
}
