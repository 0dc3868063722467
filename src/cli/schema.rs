//! `linegate schema`.

use std::process::ExitCode;

use anyhow::Context;
use clap::ValueEnum;

use crate::line::publishing::{Message, schema};

/// Arguments of `linegate schema`.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The message
    #[arg(value_enum)]
    message: Name,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Name {
    /// On `{camera}/decision` and `{camera}/last`
    Decision,
    /// On `state`
    State,
    /// On `model`
    Model,
    /// On `stats`
    Stats,
    /// The reply to a command
    Reply,
    /// To the line on `cmd/trigger`
    Trigger,
    /// On `{part}/part`
    Part,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let message = match arguments.message {
        Name::Decision => Message::Decision,
        Name::State => Message::State,
        Name::Model => Message::Model,
        Name::Stats => Message::Stats,
        Name::Reply => Message::Reply,
        Name::Trigger => Message::Trigger,
        Name::Part => Message::Part,
    };
    let text = serde_json::to_string_pretty(&schema(message)).context("the schema cannot be written as JSON")?;
    println!("{text}");
    Ok(ExitCode::SUCCESS)
}
