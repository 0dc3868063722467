//! Exact confidence interval of a rate.

use statrs::distribution::{Beta, ContinuousCDF};

/// Two-sided Clopper-Pearson interval of a rate of which `successes` of `trials` were seen:
/// `[low, high]`, both from 0 to 1. With no trials nothing is known: `[0, 1]`.
///
/// It holds for independent trials; pictures of the same part are not, so give groups where parts
/// repeat or read the interval as too narrow. `successes` beyond `trials` count as all of them, and
/// `confidence` is taken between 0 and 1.
///
/// Source: Clopper and Pearson, Biometrika 26, 404-413 (1934).
pub fn clopper_pearson(successes: usize, trials: usize, confidence: f64) -> [f64; 2] {
    if trials == 0 {
        return [0.0, 1.0];
    }
    let successes = successes.min(trials);
    let tail = (1.0 - confidence.clamp(0.0, 1.0)) / 2.0;
    let (k, n) = (successes as f64, trials as f64);
    let quantile = |a: f64, b: f64, p: f64| Beta::new(a, b).map(|beta| beta.inverse_cdf(p));
    // Both shapes are at least 1 where they are asked for, so the fall-backs (the widest answer)
    // stand for an error that cannot occur.
    let low = if successes == 0 { 0.0 } else { quantile(k, n - k + 1.0, tail).unwrap_or(0.0) };
    let high = if successes == trials { 1.0 } else { quantile(k + 1.0, n - k, 1.0 - tail).unwrap_or(1.0) };
    [low, high]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_agree_with_scipy_beta_quantiles() {
        // scipy.stats.beta.ppf(0.025, k, n - k + 1), beta.ppf(0.975, k + 1, n - k).
        let golden = [
            (0, 1, [0.0, 0.975]),
            (0, 20, [0.0, 0.168_433_470_983_085_3]),
            (1, 20, [0.001_265_089_497_949_803_8, 0.248_732_762_772_027_77]),
            (20, 20, [0.831_566_529_016_914_6, 1.0]),
            (7, 116, [0.024_603_421_247_974_357, 0.120_384_869_638_768_95]),
            (3, 388, [0.001_597_362_940_402_359_7, 0.022_428_672_900_020_97]),
        ];
        for (k, n, want) in golden {
            let got = clopper_pearson(k, n, 0.95);
            assert!((got[0] - want[0]).abs() < 1e-9 && (got[1] - want[1]).abs() < 1e-9, "{k}/{n}: {got:?}");
        }
        let got = clopper_pearson(7, 116, 0.99);
        assert!((got[0] - 0.017_871_456_736_098_07).abs() < 1e-9 && (got[1] - 0.141_347_014_440_012_85).abs() < 1e-9);
    }

    #[test]
    fn nothing_tried_means_nothing_known() {
        assert_eq!(clopper_pearson(0, 0, 0.95), [0.0, 1.0]);
    }
}
