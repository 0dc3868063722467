//! Area under the per-region overlap.

use super::{Ranking, Selection, Undefined};

/// Usual upper limit of the false positive rate.
pub const PRO_LIMIT: f64 = 0.3;

/// Mean over the regions of the share found, integrated over the false positive rate of all
/// normal pixels from 0 to `limit` and divided by it; 0 to 1. Every distinct score is a threshold;
/// the curve starts at (0, 0) and is cut at the limit by linear interpolation.
///
/// Source: Bergmann et al., "The MVTec Anomaly Detection Dataset", IJCV 2021, section 4.2, and the
/// evaluation code that goes with it.
///
/// # Errors
/// [`Undefined`] where only one of the two kinds is there.
pub fn aupro(ranking: &Ranking, selection: Selection, limit: f64) -> Result<f64, Undefined> {
    let totals = ranking.totals(selection)?;
    let (mut area, mut before) = (0.0, (0.0, 0.0));
    for step in ranking.steps(selection) {
        let rate = step.false_positives as f64 / totals.normals as f64;
        let overlap = step.overlap / totals.regions as f64;
        let (last_rate, last_overlap) = before;
        if rate >= limit {
            // Reached from below, so the step has a width.
            let at_limit = last_overlap + (overlap - last_overlap) * (limit - last_rate) / (rate - last_rate);
            return Ok((area + (limit - last_rate) * (last_overlap + at_limit) / 2.0) / limit);
        }
        area += (rate - last_rate) * (last_overlap + overlap) / 2.0;
        before = (rate, overlap);
    }
    // The last threshold takes everything, so the rate reaches 1 and any limit up to 1.
    Ok(area / limit)
}
