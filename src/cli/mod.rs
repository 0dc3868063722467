//! The command line: one file per subcommand, its steps in order. The only room with `anyhow`.

mod backbone;
mod check;
mod evaluate;
mod models;
mod progress;
mod retrain;
mod run;
mod schema;
mod score;
mod train;
mod watch;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Exit code for usage and configuration errors; failures exit with 1.
pub const EXIT_USAGE: u8 = 2;

#[derive(Debug, Parser)]
#[command(name = "linegate", version, about, propagate_version = true)]
struct Cli {
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
    /// Print the JSON schema of a published message
    Schema(schema::Arguments),
}

/// Parses the arguments, runs the subcommand and reports its error with every cause.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
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
        Command::Schema(arguments) => schema::run(&arguments),
    };
    result.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::from(if error.is::<crate::config::ConfigError>() { EXIT_USAGE } else { 1 })
    })
}
