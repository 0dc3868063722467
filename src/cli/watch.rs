//! `linegate watch`.

use std::process::ExitCode;

/// Arguments of `linegate watch`.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let _ = arguments;
    unimplemented!()
}
