//! What a retraining did and why, for machines (JSON) and people (Markdown).

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};

use anyhow::Context;
use serde::{Deserialize, Serialize};

use crate::registry::{GATE_RULE, GateFigures};

/// What became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Outcome {
    /// The challenger is active now.
    Promoted,
    /// The champion stays; the challenger stands in the registry.
    Kept,
}

/// One model in the report.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Judged {
    pub(super) version: String,
    pub(super) figures: GateFigures,
    pub(super) pixel_auroc: Option<f64>,
    pub(super) aupro: Option<f64>,
}

/// `retrain-TIME.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Report {
    /// When, RFC 3339, UTC.
    pub(super) at: String,
    pub(super) outcome: Outcome,
    /// Every comparison in words.
    pub(super) reasons: Vec<String>,
    /// The rule that was applied.
    pub(super) rule: String,
    /// False rejects allowed above the champion's, share.
    pub(super) false_reject_slack: f64,
    /// None where nothing was active.
    pub(super) champion: Option<Judged>,
    pub(super) challenger: Judged,
    /// What is active now.
    pub(super) active: Option<String>,
    /// Reviewed pictures per folder.
    pub(super) reviewed: BTreeMap<String, usize>,
    pub(super) reviewed_with_mask: usize,
    /// Pictures of the gate set that a model was trained on.
    pub(super) left_out: Vec<String>,
    /// What a person must know.
    pub(super) warnings: Vec<String>,
    /// Training cost, processor seconds.
    pub(super) training_cpu_seconds: f64,
}

impl Report {
    /// Writes both forms; returns the paths.
    pub(super) fn write(&self, folder: &Path) -> anyhow::Result<[PathBuf; 2]> {
        std::fs::create_dir_all(folder).with_context(|| format!("cannot make the folder {}", folder.display()))?;
        let stem = format!("retrain-{}", self.at.replace([':', '.'], "-"));
        let json = folder.join(format!("{stem}.json"));
        let markdown = folder.join(format!("{stem}.md"));
        for (path, text) in [(&json, serde_json::to_string_pretty(self)?), (&markdown, self.markdown())] {
            std::fs::write(path, text).with_context(|| format!("cannot write the report {}", path.display()))?;
        }
        Ok([json, markdown])
    }

    /// One sentence.
    pub(super) fn headline(&self) -> String {
        match (self.outcome, &self.champion) {
            (Outcome::Promoted, Some(champion)) => {
                format!("promoted: {} replaces {}", self.challenger.version, champion.version)
            }
            (Outcome::Promoted, None) => format!("promoted: {} is the first active model", self.challenger.version),
            (Outcome::Kept, Some(champion)) => {
                format!("kept: {} stays, {} does not replace it", champion.version, self.challenger.version)
            }
            (Outcome::Kept, None) => {
                format!("kept: {} does not become the first, no model is active", self.challenger.version)
            }
        }
    }

    fn markdown(&self) -> String {
        let mut text = format!("# Retraining of {}\n\n**{}**\n\n", self.at, self.headline());
        for reason in &self.reasons {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "- {reason}");
        }
        text += "\n| | champion | challenger |\n|---|---|---|\n";
        let mut row = |name: &str, value: &dyn Fn(&Judged) -> String| {
            let champion = self.champion.as_ref().map_or_else(|| "none".into(), value);
            let _ = writeln!(text, "| {name} | {champion} | {} |", value(&self.challenger));
        };
        row("version", &|judged| judged.version.clone());
        row("escapes", &|judged| format!("{} of {}", judged.figures.escapes, judged.figures.defective));
        row("false rejects", &|judged| {
            let figures = &judged.figures;
            format!("{} of {} ({:.2} %)", figures.false_rejects, figures.good, 100.0 * figures.false_reject_rate())
        });
        row("image AUROC", &|judged| format!("{:.4}", judged.figures.image_auroc));
        let figure = |value: Option<f64>| value.map_or_else(|| "no masks".into(), |value| format!("{value:.4}"));
        row("pixel AUROC", &|judged| figure(judged.pixel_auroc));
        row("AUPRO", &|judged| figure(judged.aupro));
        let reviewed: Vec<String> = self.reviewed.iter().map(|(folder, count)| format!("{count} {folder}")).collect();
        let _ = write!(
            text,
            "\nReviewed pictures added: {}; defects with a mask: {}. Training took {:.0} CPU s.\n\
             Gate pictures left out because a model was trained on them: {}.\n\
             Active now: {}.\n\n## Rule\n\n{}\nAllowed slack: {} %.\n",
            if reviewed.is_empty() { "none".to_owned() } else { reviewed.join(", ") },
            self.reviewed_with_mask,
            self.training_cpu_seconds,
            self.left_out.len(),
            self.active.as_deref().unwrap_or("none"),
            GATE_RULE,
            100.0 * self.false_reject_slack,
        );
        if !self.warnings.is_empty() {
            text += "\n## Warnings\n\n";
            for warning in &self.warnings {
                let _ = writeln!(text, "- {warning}");
            }
        }
        text
    }
}
