//! `linegate bench`.

use std::process::ExitCode;

use crate::training::bench::training_step;

/// Measure how fast this machine takes a training step
///
/// A step is forward, loss, backward and Adam on 4,096 pixels of one level. Beside the time stands
/// the share of what this machine makes on one large matrix product in the same run: that number
/// can be compared between machines, the time cannot.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Threads to compare with one; 0 is one per core
    #[arg(long, value_name = "N", default_value_t = 0)]
    threads: usize,
    /// Steps taken; the fastest counts
    #[arg(long, value_name = "N", default_value_t = 12, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    steps: u32,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get);
    let threads = if arguments.threads == 0 { cores } else { arguments.threads };
    let costs = training_step(threads, arguments.steps as usize)?;
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(&costs)?);
        return Ok(ExitCode::SUCCESS);
    }
    println!("channels  threads  ms a step  GFLOP/s  of peak  speed-up");
    for cost in costs {
        println!(
            "{:8}  {:7}  {:9.1}  {:7.1}  {:5.0} %  {:7.2}x",
            cost.channels,
            cost.threads,
            cost.wall_ms,
            cost.gflops,
            cost.share_of_peak * 100.0,
            cost.speed_up
        );
    }
    Ok(ExitCode::SUCCESS)
}
