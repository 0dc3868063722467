//! Champion and challenger on the same pictures, which neither was trained on.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context, bail};

use crate::bundle::Bundle;
use crate::registry::GateFigures;
use crate::scoring::SessionOptions;
use crate::training::dataset::{Dataset, Split};
use crate::training::evaluation::{Evaluation, EvaluationOptions, evaluate};

/// The gate's pictures.
#[derive(Debug)]
pub(super) struct GateSet {
    dataset: Dataset,
    /// Names of pictures left out because a model was trained on them.
    pub(super) left_out: Vec<String>,
}

impl GateSet {
    /// The test pictures of the gate set without those whose content is in `trained_on` (SHA-256)
    /// or among the known defects of one of the bundles.
    pub(super) fn open(gate: &Path, trained_on: &BTreeSet<String>, bundles: &[Bundle]) -> anyhow::Result<Self> {
        let mut dataset = Dataset::open(gate, None).context("the gate set cannot be used")?;
        let known: BTreeSet<&str> = bundles
            .iter()
            .flat_map(|bundle| &bundle.manifest.provenance.known_defects)
            .map(|defect| defect.sha256.as_str())
            .chain(trained_on.iter().map(String::as_str))
            .collect();
        let mut left_out = Vec::new();
        let mut kept = Vec::new();
        for sample in std::mem::take(&mut dataset.samples) {
            if sample.split == Split::Test {
                if known.contains(sample.sha256()?.as_str()) {
                    left_out.push(sample.name);
                } else {
                    kept.push(sample);
                }
            }
        }
        dataset.samples = kept;
        Ok(Self { dataset, left_out })
    }

    /// Says what is missing for a judgement.
    pub(super) fn require_both_kinds(&self, gate: &Path) -> anyhow::Result<()> {
        let (good, defective) = (self.dataset.test_good().len(), self.dataset.test_defects().len());
        if good == 0 || defective == 0 {
            bail!(
                "{good} good and {defective} defective pictures are left under {}/test ({} left out because a model \
                 was trained on them): at least one of each is needed to judge by",
                gate.display(),
                self.left_out.len()
            );
        }
        Ok(())
    }

    /// What a bundle does on these pictures at its own boundary.
    pub(super) fn judge(&self, bundle: &Bundle, session: &SessionOptions) -> anyhow::Result<(GateFigures, Evaluation)> {
        let options = EvaluationOptions { session: Some(session), progress: None };
        let evaluation = evaluate(bundle, &self.dataset, options)
            .with_context(|| format!("model {} cannot be judged", bundle.identity.version))?;
        let confusion = &evaluation.at_boundary.confusion;
        let figures = GateFigures {
            defective: confusion.defective.total(),
            escapes: confusion.defective.accept,
            good: confusion.good.total(),
            false_rejects: confusion.good.reject,
            image_auroc: evaluation.figures.image_auroc,
        };
        Ok((figures, evaluation))
    }
}
