//! `linegate check`: every problem of a configuration, then everything that can be tried.

mod broker;
mod cameras;
mod model;
mod places;

use std::process::ExitCode;
use std::time::Duration;

use serde::Serialize;

use super::{ConfigArguments, EXIT_USAGE};
use crate::config::{Config, ConfigError, Problem};

/// Arguments of `linegate check`.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    config: ConfigArguments,
    /// How long cameras and broker may take to answer, seconds, 0.1 to 600
    #[arg(long, value_name = "SECONDS", default_value_t = 5.0, value_parser = seconds)]
    patience_s: f64,
    /// Do not open the cameras (a running line holds them), only build their pipelines
    #[arg(long)]
    no_cameras: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(value) if (0.1..=600.0).contains(&value) => Ok(value),
        _ => Err("a number of seconds from 0.1 to 600 is needed".into()),
    }
}

/// What was tried and what came of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Trial {
    /// What was tried.
    name: String,
    /// Whether it works.
    ok: bool,
    /// What was found, or what is wrong and what to do.
    detail: String,
}

impl Trial {
    fn ok(name: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { name: name.into(), ok: true, detail: one_line(&detail.into()) }
    }

    fn fail(name: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { name: name.into(), ok: false, detail: one_line(&detail.into()) }
    }

    /// The error with every cause.
    fn error(name: impl Into<String>, error: impl Into<anyhow::Error>) -> Self {
        Self::fail(name, format!("{:#}", error.into()))
    }
}

/// Libraries break their messages; a trial is one line.
fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[derive(Debug, Serialize)]
struct Answer<'a> {
    ok: bool,
    problems: &'a [Problem],
    checks: &'a [Trial],
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let config = match arguments.config.load() {
        Err(error @ ConfigError::Invalid { .. }) if arguments.json => {
            let answer = Answer { ok: false, problems: error.problems(), checks: &[] };
            println!("{}", serde_json::to_string_pretty(&answer)?);
            return Ok(ExitCode::from(EXIT_USAGE));
        }
        config => config?,
    };
    let patience = Duration::from_secs_f64(arguments.patience_s);
    let trials = tried(&config, patience, !arguments.no_cameras, |trial| {
        if !arguments.json {
            let mark = if trial.ok { "ok  " } else { "FAIL" };
            println!("{mark}  {}: {}", trial.name, trial.detail);
        }
    });
    let ok = trials.iter().all(|trial| trial.ok);
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(&Answer { ok, problems: &[], checks: &trials })?);
    }
    Ok(if ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Everything in order; each is told as soon as it is known.
fn tried(config: &Config, patience: Duration, open_cameras: bool, mut tell: impl FnMut(&Trial)) -> Vec<Trial> {
    let mut all = vec![Trial::ok("configuration", format!("{} camera(s)", config.camera.len()))];
    tell(&all[0]);
    let mut add = |trials: Vec<Trial>| {
        trials.iter().for_each(&mut tell);
        all.extend(trials);
    };
    add(model::check(&config.model));
    add(cameras::check(&config.camera, open_cameras.then_some(patience)));
    add(broker::check(&config.mqtt, patience));
    add(vec![places::outbox(&config.outbox.file)]);
    if let Some(archive) = &config.archive {
        add(vec![places::archive(archive)]);
    }
    if let Some(retrain) = &config.retrain {
        add(places::retrain(retrain));
    }
    all
}
