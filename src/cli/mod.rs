//! The command line: one file per subcommand, its steps in order. The only room with `anyhow`.

mod backbone;
mod bench;
mod check;
mod evaluate;
mod models;
mod progress;
mod retrain;
mod run;
mod schema;
mod score;
mod train;
mod tune;
mod watch;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::scoring::SessionOptions;

/// A configuration file and the keys set over it.
#[derive(Debug, clap::Args)]
pub(super) struct ConfigArguments {
    /// Configuration file
    #[arg(long, value_name = "FILE")]
    config: std::path::PathBuf,
    /// Set a key over the file, such as mqtt.keep_alive_s=5 or camera.0.deadline_ms=100
    #[arg(long, value_name = "KEY=VALUE", value_parser = key_and_value)]
    set: Vec<(String, String)>,
}

impl ConfigArguments {
    /// Loads the configuration with everything set over it.
    ///
    /// # Errors
    /// Every problem of the file and of what is set over it.
    pub(super) fn load(&self) -> Result<crate::config::Config, crate::config::ConfigError> {
        crate::config::Config::load_with(&self.config, &self.set)
    }
}

/// The backbone that models are trained on.
#[derive(Debug, clap::Args)]
pub(super) struct BackboneArgument {
    /// Backbone that the model is trained on: ONNX with a TOML of the same name beside it
    #[arg(
        id = "backbone",
        long = "backbone",
        value_name = "FILE.onnx",
        default_value = ".runtime/efficientnet_lite0.onnx",
        env = "LINEGATE_BACKBONE"
    )]
    file: std::path::PathBuf,
}

/// How the configuration wants a model to be opened where it has the cores to itself, and a line that runs may have them
/// too.
pub(super) fn session_options(model: &crate::config::ModelConfig) -> SessionOptions {
    SessionOptions { sessions: 1, pinned: false, ..crate::line::topology::session_options(model) }
}

fn key_and_value(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("expected KEY=VALUE")?;
    Ok((key.trim().to_owned(), value.to_owned()))
}

/// Exit code for usage and configuration errors; failures exit with 1.
pub const EXIT_USAGE: u8 = 2;

#[derive(Debug, Parser)]
#[command(name = "linegate", version, about, propagate_version = true)]
struct Cli {
    /// Log level of this program (error, warn, info, debug, trace), or a filter such as
    /// `linegate::line=debug`; LINEGATE_LOG sets it too
    #[arg(long, global = true, value_name = "LEVEL", help_heading = "Logging")]
    log_level: Option<String>,
    /// Log as JSON, one object a line
    #[arg(long, global = true, help_heading = "Logging")]
    log_json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Inspect a running line: cameras in, reject decisions over MQTT out
    Run(run::Arguments),
    /// Report every problem of a configuration, then try cameras, model and broker
    Check(check::Arguments),
    /// Follow a line's decisions over MQTT in a live table
    Watch(watch::Arguments),
    /// Fit BGAD on a data set and export it as a bundle
    Train(train::Arguments),
    /// Measure a bundle on a data set
    Evaluate(evaluate::Arguments),
    /// Score single pictures
    Score(score::Arguments),
    /// Train a challenger from reviewed frames and promote it if it is not worse
    Retrain(retrain::Arguments),
    /// List, activate and roll back bundles of a registry
    Models(models::Arguments),
    /// Make a feature extractor from published weights
    Backbone(backbone::Arguments),
    /// Measure what training and scoring cost on this machine
    Bench(bench::Arguments),
    /// Find the threads and the batch that score a bundle fastest on this machine
    Tune(tune::Arguments),
    /// Print the JSON schema of a published message
    Schema(schema::Arguments),
}

/// Parses the arguments, runs the subcommand and reports its error with every cause.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    if let Err(error) = crate::telemetry::init(cli.log_json, cli.log_level.as_deref()) {
        eprintln!("error: {:#}", anyhow::Error::from(error));
        return ExitCode::from(EXIT_USAGE);
    }
    let result = match cli.command {
        Command::Run(arguments) => run::run(&arguments),
        Command::Check(arguments) => check::run(&arguments),
        Command::Watch(arguments) => watch::run(&arguments),
        Command::Train(arguments) => train::run(&arguments),
        Command::Evaluate(arguments) => evaluate::run(&arguments),
        Command::Score(arguments) => score::run(&arguments),
        Command::Retrain(arguments) => retrain::run(&arguments),
        Command::Models(arguments) => models::run(&arguments),
        Command::Backbone(arguments) => backbone::run(&arguments),
        Command::Bench(arguments) => bench::run(&arguments),
        Command::Tune(arguments) => tune::run(&arguments),
        Command::Schema(arguments) => schema::run(&arguments),
    };
    result.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::from(if error.is::<crate::config::ConfigError>() { EXIT_USAGE } else { 1 })
    })
}
