//! `linegate retrain`: base set + reviewed frames -> challenger -> gate -> registry.

mod assemble;
mod judge;
mod report;

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use anyhow::Context;

use super::progress::Bars;
use super::{BackboneArgument, ConfigArguments, session_options};
use crate::bundle::{self, Bundle};
use crate::config::{Config, Retrain, TrainingConfig};
use crate::registry::{GATE_RULE, GateFigures, Registry, first_gate, gate};
use crate::scoring;
use crate::training::dataset::DatasetError;
use crate::training::evaluation::Evaluation;
use crate::training::settings::Settings;
use crate::training::{TrainError, TrainOptions, train};
use assemble::{Assembled, assemble};
use judge::GateSet;
use report::{Judged, Outcome, Report};

/// Arguments of `linegate retrain`.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    config: ConfigArguments,
    #[command(flatten)]
    backbone: BackboneArgument,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let config = arguments.config.load()?;
    let retrain = config.retrain.as_ref().context("the configuration has no [retrain] table: add one")?;
    // Before the hours of training: what can be known to fail shall fail now.
    let training = retrain.training.as_deref().map(TrainingConfig::load).transpose()?.unwrap_or_default();
    let registry = config.model.registry.as_deref().context("retraining needs `model.registry`")?;
    let registry = Registry::open(registry)?;
    std::fs::create_dir_all(&retrain.reports)
        .with_context(|| format!("cannot make the folder {}", retrain.reports.display()))?;
    scoring::initialise(None)?;

    let mut warnings = Vec::new();
    let champion = registry.active_bundle().unwrap_or_else(|error| {
        // The line cannot use it either: whatever passes the first gate is better.
        warnings.push(format!("the active model cannot be used and counts as none: {:#}", anyhow::Error::from(error)));
        None
    });
    let assembled = assemble(&retrain.base, retrain.base_groups.as_deref(), &retrain.reviewed)?;
    if assembled.reviewed.is_empty() {
        warnings.push("nothing was reviewed: the challenger learns from the base set alone".into());
    }
    GateSet::open(&retrain.gate, &assembled.hashes, champion.as_slice())?.require_both_kinds(&retrain.gate)?;
    let work = tempfile::tempdir().context("cannot make a temporary folder for the challenger")?;
    let options = TrainOptions {
        data: assembled.root().to_owned(),
        groups: assembled.groups.clone(),
        out: work.path().join("challenger"),
        backbone: arguments.backbone.file.clone(),
        name: Some(name(champion.as_ref(), &retrain.base)),
        from: None,
        settings: settings(&training, champion.as_ref()),
    };
    let champion_to_start_from = champion.as_ref().filter(|_| retrain.warm_start);
    let challenger = train_challenger(options, champion_to_start_from, &mut warnings)?;
    if let Some(key) = &retrain.private_key_file {
        bundle::sign(&challenger, key).context("the challenger cannot be signed; the active model stays")?;
    }
    let report = promote(&config, retrain, &registry, champion.as_ref(), &challenger, &assembled, warnings)?;
    let paths = report.write(&retrain.reports)?;
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        println!("{}", report.headline());
        for reason in &report.reasons {
            println!("  {reason}");
        }
        for warning in &report.warnings {
            println!("  warning: {warning}");
        }
        println!("report: {}", paths[1].display());
    }
    Ok(ExitCode::SUCCESS)
}

/// The challenger, from the champion's flows where they are given and fit, else afresh; Ctrl-C ends it
/// without one.
fn train_challenger(
    options: TrainOptions,
    start: Option<&Bundle>,
    warnings: &mut Vec<String>,
) -> anyhow::Result<Bundle> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        // A second one ends the program at once.
        signal_hook::flag::register_conditional_shutdown(signal, 130, Arc::clone(&stop))?;
        signal_hook::flag::register(signal, Arc::clone(&stop)).context("cannot catch signals")?;
    }
    let failed = "the challenger could not be trained; the active model stays";
    if let Some(bundle) = start {
        let from = Some(bundle.path.clone());
        let warm = TrainOptions { from, settings: options.settings.clone().for_warm_start(false), ..options.clone() };
        match train(&warm, &Bars::new(), &stop) {
            // What it starts from is looked at before the pictures: little time is lost.
            Err(error @ (TrainError::WarmStart(_) | TrainError::Dataset(DatasetError::TooFewUnfitted { .. }))) => {
                warnings.push(format!("trained afresh: {:#}", anyhow::Error::from(error)));
            }
            trained => return trained.context(failed),
        }
    }
    train(&options, &Bars::new(), &stop).context(failed)
}

/// Judges both, adds the challenger to the registry and activates it if it passes. Whatever fails
/// before the activation leaves the champion active.
fn promote(
    config: &Config,
    retrain: &Retrain,
    registry: &Registry,
    champion: Option<&Bundle>,
    challenger: &Bundle,
    assembled: &Assembled,
    mut warnings: Vec<String>,
) -> anyhow::Result<Report> {
    // First into safety: a challenger that cannot be judged today can be activated by hand.
    let version = registry.add(&challenger.path)?;
    let bundles: Vec<Bundle> = champion.into_iter().chain([challenger]).cloned().collect();
    let gate_set = GateSet::open(&retrain.gate, &assembled.hashes, &bundles)?;
    gate_set.require_both_kinds(&retrain.gate)?;
    let session = session_options(&config.model);
    let champion = champion.map(|bundle| gate_set.judge(bundle, &session).map(|it| judged(bundle, it))).transpose()?;
    let challenger_judged = judged(challenger, gate_set.judge(challenger, &session)?);
    warnings.extend(challenger.manifest.calibration.set.warnings.iter().cloned());
    let verdict = match &champion {
        Some(champion) => gate(&champion.figures, &challenger_judged.figures, retrain.false_reject_slack),
        None => first_gate(&challenger_judged.figures),
    };
    let mut reasons = verdict.reasons;
    // The line would refuse it and say so on `state`; the former model would go on.
    let key = config.model.public_key_file.as_ref();
    let refused = key.and_then(|key| bundle::verify(challenger, key).err()).map(anyhow::Error::from);
    let promote = verdict.promote && refused.is_none();
    reasons.extend(refused.map(|refused| format!("the line would not take it: {refused:#}")));
    if promote {
        registry.activate(&version, &format!("retrained: {}", reasons.join("; ")))?;
    }
    Ok(Report {
        at: jiff::Timestamp::now().to_string(),
        outcome: if promote { Outcome::Promoted } else { Outcome::Kept },
        reasons,
        rule: GATE_RULE.into(),
        false_reject_slack: retrain.false_reject_slack,
        champion,
        challenger: challenger_judged,
        active: registry.active()?,
        reviewed: assembled.reviewed.clone(),
        reviewed_with_mask: assembled.with_mask,
        left_out: gate_set.left_out,
        warnings,
        training_cpu_seconds: challenger.manifest.provenance.phases.iter().map(|phase| phase.cpu_seconds).sum(),
    })
}

fn judged(bundle: &Bundle, (figures, evaluation): (GateFigures, Evaluation)) -> Judged {
    Judged {
        version: bundle.identity.version.clone(),
        figures,
        pixel_auroc: evaluation.figures.pixel_auroc,
        aupro: evaluation.figures.aupro,
    }
}

/// The champion's name, so that the line's model keeps it; else the base set's folder.
fn name(champion: Option<&Bundle>, base: &Path) -> String {
    match champion {
        Some(bundle) => bundle.manifest.name.clone(),
        None => base.file_name().map_or_else(|| "model".into(), |name| name.to_string_lossy().into_owned()),
    }
}

/// What the training configuration says; size, tiles and region stay the champion's where it is silent.
fn settings(training: &TrainingConfig, champion: Option<&Bundle>) -> Settings {
    let settings = Settings::from_config(training);
    let former = champion.map(|bundle| bundle.manifest.preprocessing);
    let tile = champion.and_then(|bundle| bundle.manifest.provenance.settings.get("tile")?.as_u64());
    Settings {
        size: former.filter(|_| training.image_size.is_none()).map_or(settings.size, |it| it.size),
        tile: tile.filter(|_| training.tile.is_none()).map_or(settings.tile, |it| it as usize),
        region_of_interest: former.and_then(|it| it.region_of_interest),
        ..settings
    }
}
