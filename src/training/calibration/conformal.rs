//! The conformal quantile.

use std::collections::BTreeMap;

/// A threshold and whether the set was large enough for it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Threshold {
    /// Scores above it are beyond.
    pub value: f32,
    /// False where the set was too small for the wished rate: then the value is the highest score.
    pub reached: bool,
}

/// Fewest groups from which a rate can be kept: `ceil(1 / rate) - 1`.
pub fn smallest_set(rate: f64) -> usize {
    // The small slack keeps 1/0.05 at 20.
    ((1.0 / rate - 1e-9).ceil() as usize).saturating_sub(1)
}

/// A held-out normal's image score and the number of the group it comes from.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct GroupedScore {
    /// Image score.
    pub score: f32,
    /// Pictures of one group show one part, one tray or one day: they resemble each other.
    pub group: usize,
}

/// The smallest threshold that the next part, of a group not seen yet, passes with probability at
/// most `rate`. `sorted` scores ascend; their groups are exchangeable, and so are the pictures within
/// a group. Every group counts alike however many pictures it has: of `k` groups each has the share
/// `1 / (k + 1)`, spread over its pictures, and the threshold is the first score up to which the
/// shares reach `1 - rate` (Lee, Barber and Willett, arXiv:2306.06342). Where every picture is its own
/// group that is the `ceil((n + 1) (1 - rate))`-th score (split conformal prediction, Vovk et al. 2005).
///
/// # Panics
/// Without any score.
pub fn conformal_threshold(sorted: &[GroupedScore], rate: f64) -> Threshold {
    let mut sizes = BTreeMap::<usize, usize>::new();
    for score in sorted {
        *sizes.entry(score.group).or_default() += 1;
    }
    let groups = sizes.len() as f64;
    let mut share = 0.0;
    for score in sorted {
        share += 1.0 / ((groups + 1.0) * sizes[&score.group] as f64);
        // The slack is rounding's: a rank that is met exactly must not slip to the next score.
        if share >= 1.0 - rate - 1e-9 {
            return Threshold { value: score.score, reached: true };
        }
    }
    Threshold { value: sorted[sorted.len() - 1].score, reached: false }
}

#[cfg(test)]
mod tests {
    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;

    fn alone(count: usize) -> Vec<GroupedScore> {
        (1..=count).map(|i| GroupedScore { score: i as f32, group: i }).collect()
    }

    #[test]
    fn the_threshold_is_the_conformal_rank() {
        assert_eq!(conformal_threshold(&alone(19), 0.05), Threshold { value: 19.0, reached: true });
        assert_eq!(conformal_threshold(&alone(19), 0.5), Threshold { value: 10.0, reached: true });
    }

    #[test]
    fn a_small_set_says_that_the_rate_is_out_of_reach() {
        assert_eq!(conformal_threshold(&alone(18), 0.05), Threshold { value: 18.0, reached: false });
        assert_eq!(smallest_set(0.05), 19);
        assert_eq!(smallest_set(0.01), 99);
    }

    #[test]
    fn a_group_counts_once_however_many_pictures_it_has() {
        // A hundred pictures of one part are no hundred parts.
        let mut scores: Vec<_> = (1..=100).map(|i| GroupedScore { score: i as f32, group: 0 }).collect();
        assert_eq!(conformal_threshold(&scores, 0.05), Threshold { value: 100.0, reached: false });
        // One share in three to each of two groups: half is reached in the middle of the second.
        scores.extend((101..=200).map(|i| GroupedScore { score: i as f32, group: 1 }));
        assert_eq!(conformal_threshold(&scores, 0.5), Threshold { value: 150.0, reached: true });
    }

    #[test]
    fn the_next_group_passes_at_most_as_often_as_wished() {
        let mut rng = ChaCha8Rng::seed_from_u64(5);
        let rounds = 4_000;
        let mut passed = [0.0f64; 2];
        for _ in 0..rounds {
            // Groups differ far more than their pictures do, and so do their sizes.
            let mut draw = |group: usize| -> Vec<GroupedScore> {
                let level = 10.0 * rng.random::<f32>();
                let size = 1 + (rng.random::<f32>() * 8.0) as usize;
                (0..size).map(|_| GroupedScore { score: level + rng.random::<f32>(), group }).collect()
            };
            let mut known: Vec<_> = (0..9).flat_map(&mut draw).collect();
            known.sort_unstable_by(|a, b| a.score.total_cmp(&b.score));
            let ungrouped: Vec<_> = known.iter().enumerate().map(|(i, s)| GroupedScore { group: i, ..*s }).collect();
            let next = draw(9);
            for (passed, set) in passed.iter_mut().zip([known, ungrouped]) {
                let threshold = conformal_threshold(&set, 0.2).value;
                *passed += next.iter().filter(|s| s.score > threshold).count() as f64 / next.len() as f64;
            }
        }
        let [grouped, ungrouped] = passed.map(|sum| sum / f64::from(rounds));
        assert!(grouped < 0.2 + 0.01, "{grouped}");
        assert!(ungrouped > 0.2 + 0.01, "pictures taken for parts keep no rate: {ungrouped}");
    }
}
