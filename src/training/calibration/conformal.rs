//! The conformal quantile.

/// A threshold and whether the set was large enough for it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Threshold {
    /// Scores above it are beyond.
    pub value: f32,
    /// False where the set was too small for the wished rate: then the value is the highest score.
    pub reached: bool,
}

/// Fewest scores from which a rate can be kept: `ceil(1 / rate) - 1`.
pub fn smallest_set(rate: f64) -> usize {
    // The small slack keeps 1/0.05 at 20.
    ((1.0 / rate - 1e-9).ceil() as usize).saturating_sub(1)
}

/// The smallest threshold that the next score passes with probability at most `rate`, given
/// `sorted` exchangeable scores: the `ceil((n + 1) (1 - rate))`-th of them (split conformal
/// prediction, Vovk et al. 2005).
///
/// # Panics
/// Without any score.
pub fn conformal_threshold(sorted: &[f32], rate: f64) -> Threshold {
    let n = sorted.len();
    let rank = ((n as f64 + 1.0) * (1.0 - rate) - 1e-9).ceil().max(1.0) as usize;
    Threshold { value: sorted[rank.min(n) - 1], reached: rank <= n }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_threshold_is_the_conformal_rank() {
        let scores: Vec<f32> = (1..=19).map(|v| v as f32).collect();
        assert_eq!(conformal_threshold(&scores, 0.05), Threshold { value: 19.0, reached: true });
        assert_eq!(conformal_threshold(&scores, 0.5), Threshold { value: 10.0, reached: true });
    }

    #[test]
    fn a_small_set_says_that_the_rate_is_out_of_reach() {
        let scores: Vec<f32> = (1..=18).map(|v| v as f32).collect();
        assert_eq!(conformal_threshold(&scores, 0.05), Threshold { value: 18.0, reached: false });
        assert_eq!(smallest_set(0.05), 19);
        assert_eq!(smallest_set(0.01), 99);
    }
}
