//! `linegate run`.

mod service;
mod table;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::sync_channel;
use std::time::{Duration, Instant};

use anyhow::Context;
use signal_hook::consts::{SIGINT, SIGTERM};

use crate::config::Config;
use crate::line::topology::{Line, Summary};
use service::Service;
use table::Table;

/// Decisions waiting to be shown at most; a terminal that is slower misses some.
const SHOWN: usize = 1024;
/// How often signals, time and the end of the cameras are looked at.
const LOOK: Duration = Duration::from_millis(50);

/// Arguments of `linegate run`.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Configuration file of the line
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Stop after so many seconds; otherwise at SIGINT, SIGTERM or when every camera has ended
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    seconds: Option<u64>,
    /// Show every decision, and counts, rates and latency every second
    #[arg(long, conflicts_with = "json")]
    table: bool,
    /// Print start and summary as one JSON object a line
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let config = Config::load(&arguments.config)?;
    let stop = stop_at_signals()?;
    let (sender, decisions) = sync_channel(SHOWN);
    let line = Line::start(&config, arguments.table.then_some(sender))?;
    let mut service = Service::ready();
    say_start(arguments, &config, &line);
    let until = arguments.seconds.map(|seconds| Instant::now() + Duration::from_secs(seconds));
    let mut table = arguments.table.then(Table::new);
    let reason = loop {
        match &mut table {
            Some(table) => table.follow(&decisions, &line, LOOK),
            None => std::thread::sleep(LOOK),
        }
        service.look(&line);
        if stop.load(Ordering::SeqCst) {
            break "a signal";
        }
        if until.is_some_and(|until| Instant::now() >= until) {
            break "the time is over";
        }
        if line.has_ended() {
            break "every camera has ended";
        }
    };
    if !arguments.json {
        if let Some(table) = &mut table {
            table.clear();
        }
        println!("stopping: {reason}; waiting up to {} ms for acknowledgements", config.mqtt.drain_ms);
    }
    let summary = service.stopping(|| line.stop());
    if let Some(table) = &mut table {
        table.finish(&decisions);
    }
    say_end(arguments, &summary)?;
    Ok(if summary.is_whole() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The first signal asks for an orderly stop, a second one ends the program at once.
fn stop_at_signals() -> anyhow::Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        // In this order: the check comes before the flag is set.
        signal_hook::flag::register_conditional_shutdown(signal, 1, stop.clone())
            .and_then(|_| signal_hook::flag::register(signal, stop.clone()))
            .context("signals cannot be caught")?;
    }
    Ok(stop)
}

fn say_start(arguments: &Arguments, config: &Config, line: &Line) {
    if arguments.json {
        let start = serde_json::json!({
            "event": "start",
            "boot_id": line.boot_id,
            "model": line.model,
            "provider": line.provider,
            "broker": line.broker,
            "cameras": config.camera.iter().map(|camera| &camera.name).collect::<Vec<_>>(),
        });
        println!("{start}");
        return;
    }
    println!("model     {} {} (sha256 {:.12})", line.model.name, line.model.version, line.model.sha256);
    println!("provider  {}", line.provider);
    for camera in &config.camera {
        let deadline = camera.deadline_ms.map_or_else(String::new, |ms| format!(", deadline {ms} ms"));
        println!("camera    {} ({}{deadline})", camera.name, camera.pipeline);
    }
    println!("broker    {}", line.broker);
}

fn say_end(arguments: &Arguments, summary: &Summary) -> anyhow::Result<()> {
    if arguments.json {
        let mut end = serde_json::to_value(summary).context("the summary cannot be written as JSON")?;
        if let Some(fields) = end.as_object_mut() {
            fields.insert("event".into(), "summary".into());
            fields.insert("whole".into(), summary.is_whole().into());
        }
        println!("{end}");
        return Ok(());
    }
    let stats = &summary.stats;
    println!("frames        {} in {:.1} s, {} batches", stats.frames, summary.seconds, stats.batches);
    for (camera, frames) in &stats.cameras {
        println!("  {camera:<12}{frames}");
    }
    println!(
        "decisions     {}: {} accept, {} reject, {} suspect, {} not_inspected",
        stats.decisions, stats.accept, stats.reject, stats.suspect, stats.not_inspected
    );
    println!("acknowledged  {}, {} left in the outbox", summary.acknowledged, summary.outbox);
    if stats.parts > 0 {
        println!("parts         {} combined verdicts", stats.parts);
    }
    for (camera, gaps) in &stats.gaps {
        let seconds = gaps.gone_ms as f64 / 1000.0;
        println!("gaps          {camera}: {} losses, gone {seconds:.1} s, {} frames lost", gaps.losses, gaps.lost);
    }
    let latency = &summary.latency;
    println!(
        "latency       p50 {:.1} ms, p90 {:.1} ms, p99 {:.1} ms, highest {:.1} ms",
        latency.p50_ms, latency.p90_ms, latency.p99_ms, latency.highest_ms
    );
    let troubles = [
        (summary.late_results, "results came after their deadline"),
        (stats.not_archived, "frames were not archived: the queue was full, or disk or memory ran short"),
        (summary.restarts, "times a thread of the line died and was started again"),
        (summary.not_stored, "decisions could not be stored in the outbox"),
        (stats.frames.abs_diff(stats.decisions), "frames and decisions differ: something was lost"),
    ];
    for (count, what) in troubles.into_iter().filter(|(count, _)| *count > 0) {
        println!("attention     {count} {what}");
    }
    Ok(())
}
