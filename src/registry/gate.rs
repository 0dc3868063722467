//! Whether a challenger may take the champion's place.

use serde::{Deserialize, Serialize};

/// The rule, in words; every report carries it.
pub const GATE_RULE: &str = "Both models are judged on the same pictures, which neither was trained on. The challenger is \
promoted only if it lets no more defective parts escape than the champion, its false-reject rate is at most the \
champion's plus the allowed slack, and, where escapes and false rejects are both equal, its image AUROC is not \
lower. Without a champion it is promoted if its image AUROC is above 0.5 and it rejects at least one defective part \
while accepting at least one good one.";

/// What one model did on the gate set at its own calibrated boundary.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct GateFigures {
    /// Defective pictures judged.
    pub defective: usize,
    /// Of these accepted.
    pub escapes: usize,
    /// Good pictures judged.
    pub good: usize,
    /// Of these rejected.
    pub false_rejects: usize,
    /// Area under the image ROC curve, 0 to 1.
    pub image_auroc: f64,
}

impl GateFigures {
    /// Share of good pictures rejected, 0 to 1.
    pub fn false_reject_rate(&self) -> f64 {
        self.false_rejects as f64 / self.good.max(1) as f64
    }
}

/// What the gate says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GateVerdict {
    /// Whether the challenger becomes active.
    pub promote: bool,
    /// Every comparison in words, those that speak against promotion first.
    pub reasons: Vec<String>,
}

/// Judges the challenger by [`GATE_RULE`]. `slack` is the share of false rejects allowed above the
/// champion's, 0 to 1. Models that were judged on different pictures are never compared: the
/// champion is kept.
pub fn gate(champion: &GateFigures, challenger: &GateFigures, slack: f64) -> GateVerdict {
    let mut against = unusable(challenger);
    let mut for_it = Vec::new();
    if (champion.defective, champion.good) != (challenger.defective, challenger.good) {
        against.push(format!(
            "the champion was judged on {} defective and {} good pictures, the challenger on {} and {}",
            champion.defective, champion.good, challenger.defective, challenger.good
        ));
        return GateVerdict { promote: false, reasons: against };
    }
    let mut compare = |passes: bool, words: String| if passes { for_it.push(words) } else { against.push(words) };
    compare(
        challenger.escapes <= champion.escapes,
        format!("escapes {} -> {} of {}", champion.escapes, challenger.escapes, champion.defective),
    );
    // Counted in pictures, so that a rounding of rates cannot decide.
    let allowed = champion.false_rejects as f64 + slack * champion.good as f64;
    compare(
        challenger.false_rejects as f64 <= allowed + 1e-9,
        format!(
            "false rejects {} -> {} of {}, allowed {}",
            champion.false_rejects,
            challenger.false_rejects,
            champion.good,
            (allowed + 1e-9).floor()
        ),
    );
    let equal = (challenger.escapes, challenger.false_rejects) == (champion.escapes, champion.false_rejects);
    let words = format!("image AUROC {:.4} -> {:.4}", champion.image_auroc, challenger.image_auroc);
    if equal {
        compare(challenger.image_auroc >= champion.image_auroc, words);
    } else {
        for_it.push(format!("{words} (does not decide: the counts differ)"));
    }
    decide(against, for_it)
}

/// Judges a challenger where nothing is active yet, by the last sentence of [`GATE_RULE`].
pub fn first_gate(challenger: &GateFigures) -> GateVerdict {
    let mut against = unusable(challenger);
    let mut for_it = Vec::new();
    let mut compare = |passes: bool, words: String| if passes { for_it.push(words) } else { against.push(words) };
    compare(
        challenger.image_auroc > 0.5,
        format!("image AUROC {:.4}, above 0.5 is better than chance", challenger.image_auroc),
    );
    compare(
        challenger.escapes < challenger.defective,
        format!("{} of {} defective parts escape", challenger.escapes, challenger.defective),
    );
    compare(
        challenger.false_rejects < challenger.good,
        format!("{} of {} good parts are rejected", challenger.false_rejects, challenger.good),
    );
    decide(against, for_it)
}

/// Figures that prove nothing.
fn unusable(figures: &GateFigures) -> Vec<String> {
    let mut problems = Vec::new();
    if figures.good == 0 || figures.defective == 0 {
        problems.push(format!(
            "{} good and {} defective pictures are left in the gate set: at least one of each is needed",
            figures.good, figures.defective
        ));
    }
    if !figures.image_auroc.is_finite() {
        problems.push("the challenger's image AUROC is not a number".into());
    }
    problems
}

fn decide(against: Vec<String>, for_it: Vec<String>) -> GateVerdict {
    let promote = against.is_empty();
    GateVerdict { promote, reasons: against.into_iter().chain(for_it).collect() }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CHAMPION: GateFigures =
        GateFigures { defective: 50, escapes: 5, good: 100, false_rejects: 2, image_auroc: 0.9 };

    #[test]
    fn a_better_challenger_is_promoted() {
        let verdict = gate(&CHAMPION, &GateFigures { escapes: 3, ..CHAMPION }, 0.0);
        assert!(verdict.promote, "{verdict:?}");
        assert_eq!(verdict.reasons.len(), 3);
    }

    #[test]
    fn one_more_escape_keeps_the_champion_however_good_the_rest() {
        let challenger = GateFigures { escapes: 6, false_rejects: 0, image_auroc: 0.99, ..CHAMPION };
        let verdict = gate(&CHAMPION, &challenger, 1.0);
        assert!(!verdict.promote);
        assert_eq!(verdict.reasons[0], "escapes 5 -> 6 of 50");
    }

    #[test]
    fn false_rejects_may_rise_by_the_slack_and_no_further() {
        let with = |false_rejects| GateFigures { escapes: 4, false_rejects, ..CHAMPION };
        assert!(gate(&CHAMPION, &with(5), 0.03).promote);
        assert!(!gate(&CHAMPION, &with(6), 0.03).promote);
        assert!(!gate(&CHAMPION, &with(3), 0.0).promote);
    }

    #[test]
    fn between_equal_counts_the_auroc_decides_and_an_equal_one_promotes() {
        let with = |image_auroc| GateFigures { image_auroc, ..CHAMPION };
        assert!(gate(&CHAMPION, &with(0.9), 0.0).promote);
        assert!(!gate(&CHAMPION, &with(0.899), 0.5).promote);
        assert!(!gate(&CHAMPION, &with(f64::NAN), 0.0).promote);
    }

    #[test]
    fn models_judged_on_other_pictures_are_not_compared() {
        assert!(!gate(&CHAMPION, &GateFigures { good: 99, escapes: 0, ..CHAMPION }, 0.0).promote);
        let nothing = GateFigures { defective: 0, escapes: 0, ..CHAMPION };
        assert!(!gate(&nothing, &nothing, 0.0).promote);
    }

    #[test]
    fn the_first_model_must_beat_chance_and_tell_parts_apart() {
        assert!(first_gate(&CHAMPION).promote);
        assert!(!first_gate(&GateFigures { image_auroc: 0.5, ..CHAMPION }).promote);
        assert!(!first_gate(&GateFigures { escapes: 50, ..CHAMPION }).promote);
        assert!(!first_gate(&GateFigures { false_rejects: 100, ..CHAMPION }).promote);
        assert!(!first_gate(&GateFigures { good: 0, false_rejects: 0, ..CHAMPION }).promote);
    }

    proptest! {
        #[test]
        fn escapes_never_rise_and_false_rejects_stay_within_the_slack(
            a in figures(), b in figures(), slack in 0.0..1.0f64,
        ) {
            if gate(&a, &b, slack).promote {
                prop_assert!(b.escapes <= a.escapes);
                prop_assert!(b.false_rejects as f64 <= a.false_rejects as f64 + slack * 100.0 + 1e-6);
            }
        }

        #[test]
        fn fewer_errors_never_lose_a_promotion(a in figures(), b in figures(), slack in 0.0..1.0f64) {
            if b.escapes < a.escapes && gate(&a, &b, slack).promote && b.false_rejects > 0 {
                let better = GateFigures { false_rejects: b.false_rejects - 1, ..b };
                prop_assert!(gate(&a, &better, slack).promote);
            }
        }
    }

    fn figures() -> impl Strategy<Value = GateFigures> {
        (0..=50usize, 0..=100usize, 0.0..1.0f64).prop_map(|(escapes, false_rejects, image_auroc)| GateFigures {
            defective: 50,
            escapes,
            good: 100,
            false_rejects,
            image_auroc,
        })
    }
}
