//! `linegate bench`.

mod line;
mod outbox;
mod scoring;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use serde::Serialize;

use self::line::{LineCost, Wish};
use self::scoring::ScoringCost;
use super::BackboneArgument;
use crate::bundle::Bundle;
use crate::inspection::Size;
use crate::scoring::{BackboneSpec, Provider};
use crate::training::bench::{StepCost, training_step, write_naive_model};

/// Measure how fast this machine trains, and with --bundle how fast it scores
///
/// Without a bundle: a training step is forward, loss, backward and Adam on 4,096 pixels of one
/// level. Beside the time stands the share of what this machine makes on one large matrix product in
/// the same run: that number can be compared between machines, the time cannot.
///
/// With a bundle: what the stages of one 1920x1080 frame take on one thread, and what the backbone
/// alone takes; measured in turns, so that whatever else runs on the machine meets all alike. The
/// ratio can be compared between machines. On a processor the flows are one operator of our own each;
/// beside it the file in standard operators, which other providers run. --naive adds the same model as
/// a framework would export it.
///
/// With --line whole lines, too, from test cameras (pipeline `still`, which paints its picture once)
/// through the outbox to a broker and back to a subscriber: overloaded, then at half and nine tenths
/// of what they scored so, beside what the sessions alone score in the same run.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Threads to compare with one; 0 is one per core
    #[arg(long, value_name = "N", default_value_t = 0)]
    threads: usize,
    /// Steps or frames taken; the fastest counts
    #[arg(long, value_name = "N", default_value_t = 12, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    steps: u32,
    /// Measure scoring with this bundle
    #[arg(long, value_name = "BUNDLE")]
    bundle: Option<PathBuf>,
    #[command(flatten)]
    backbone: BackboneArgument,
    /// Measure the same model with nothing folded, too
    #[arg(long, requires = "bundle")]
    naive: bool,
    /// Run whole lines as well, from test cameras to the broker and back, beside the session alone
    #[arg(long, requires = "bundle")]
    line: bool,
    /// Numbers of cameras to run lines with
    #[arg(long, value_name = "N", value_delimiter = ',', default_value = "1", value_parser = cameras, requires = "line")]
    cameras: Vec<usize>,
    /// Size of the test cameras' frames
    #[arg(long, value_name = "WIDTHxHEIGHT", default_value = "1920x1080", value_parser = frame, requires = "line")]
    frame: Size,
    /// Sessions that the line scores with beside each other; 0 as the line does by itself
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=64), requires = "line")]
    sessions: u32,
    /// Bind each thread of these sessions to a core of its own
    #[arg(long, requires = "line")]
    pinned: bool,
    /// Frames in a batch at most; 0 as the line does by itself
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=64), requires = "line")]
    max_batch: u32,
    /// How long a frame waits for company in its batch
    #[arg(long, value_name = "MS", default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=10_000), requires = "line")]
    max_wait_ms: u32,
    /// Measure the outbox at 500 decisions a second on the disk of this folder instead
    #[arg(long, value_name = "FOLDER", conflicts_with = "bundle")]
    outbox: Option<PathBuf>,
    /// Measured seconds of each run of --line and for each durability of --outbox
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(2..=86_400))]
    seconds: u32,
    /// Execution provider of scoring: tensorrt, cuda, openvino or cpu; it must be had
    #[arg(long, value_name = "NAME", default_value = "cpu", requires = "bundle")]
    provider: Provider,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    if let Some(bundle) = &arguments.bundle {
        return score(bundle, arguments);
    }
    if let Some(folder) = &arguments.outbox {
        let costs = outbox::measure(folder, arguments.seconds)?;
        return tell(arguments.json, &costs, || outbox::print(&costs));
    }
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get);
    let threads = if arguments.threads == 0 { cores } else { arguments.threads };
    let costs = training_step(threads, arguments.steps as usize)?;
    tell(arguments.json, &costs, || print_steps(&costs))
}

/// Prints what was measured for machines or for people.
fn tell(json: bool, cost: &impl Serialize, print: impl FnOnce()) -> anyhow::Result<ExitCode> {
    if json {
        println!("{}", serde_json::to_string_pretty(cost)?);
    } else {
        print();
    }
    Ok(ExitCode::SUCCESS)
}

fn print_steps(costs: &[StepCost]) {
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
}

/// What scoring costs, and where it was asked for whole lines.
#[derive(Debug, Serialize)]
struct Cost {
    #[serde(flatten)]
    scoring: ScoringCost,
    #[serde(flatten)]
    line: Option<LineCost>,
}

fn score(bundle: &Path, arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let scoring = scoring(bundle, arguments)?;
    let line = arguments.line.then(|| line(bundle, arguments)).transpose()?;
    let cost = Cost { scoring, line };
    tell(arguments.json, &cost, || {
        cost.scoring.print();
        if let Some(line) = &cost.line {
            println!();
            line.print();
        }
    })
}

fn scoring(bundle: &Path, arguments: &Arguments) -> anyhow::Result<ScoringCost> {
    crate::scoring::initialise(None)?;
    let bundle = Bundle::open(bundle)?;
    let folder = tempfile::tempdir()?;
    let naive = folder.path().join("naive.onnx");
    if arguments.naive {
        let spec = BackboneSpec::beside(&arguments.backbone.file)
            .context("the backbone that the bundle was trained on (--backbone) cannot be used")?;
        let trained_on = bundle.manifest.provenance.backbone.split(' ').next().unwrap_or_default();
        anyhow::ensure!(
            trained_on == spec.name,
            "the bundle was trained on {trained_on}, and --naive would be made from {} (--backbone): a backbone on \
             integers has no naive model to compare with",
            spec.name
        );
        write_naive_model(&bundle, &arguments.backbone.file, &spec, &naive)?;
    }
    let naive = arguments.naive.then_some(naive.as_path());
    ScoringCost::measure(&bundle, &arguments.backbone.file, arguments.provider, arguments.steps, naive)
}

fn line(bundle: &Path, arguments: &Arguments) -> anyhow::Result<LineCost> {
    let wish = Wish {
        bundle,
        provider: arguments.provider,
        cameras: &arguments.cameras,
        frame: arguments.frame,
        sessions: arguments.sessions,
        pinned: arguments.pinned,
        max_batch: arguments.max_batch,
        max_wait_ms: arguments.max_wait_ms,
        seconds: arguments.seconds.into(),
    };
    LineCost::measure(&wish, &|what| eprintln!("{what}"))
}

/// A frame size as `WIDTHxHEIGHT`.
fn frame(text: &str) -> Result<Size, String> {
    let side = |text: &str| text.parse().ok().filter(|side| (16..=8192).contains(side));
    let size =
        text.split_once('x').and_then(|(width, height)| Some(Size { width: side(width)?, height: side(height)? }));
    size.ok_or_else(|| "a frame is WIDTHxHEIGHT, each 16 to 8192".into())
}

/// A number of cameras.
fn cameras(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|count| (1..=64).contains(count)).ok_or_else(|| "1 to 64 cameras".into())
}
