//! `linegate bench`.

mod outbox;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use serde::Serialize;

use crate::bundle::Bundle;
use crate::decision::decide;
use crate::inspection::{Picture, Size};
use crate::scoring::{self, FeatureExtractor, Model, PictureFitter, SessionOptions};
use crate::training::bench::training_step;

/// Measure how fast this machine trains, and with --bundle how fast it scores
///
/// Without a bundle: a training step is forward, loss, backward and Adam on 4,096 pixels of one
/// level. Beside the time stands the share of what this machine makes on one large matrix product in
/// the same run: that number can be compared between machines, the time cannot.
///
/// With a bundle: what the stages of one 1920x1080 frame take on one thread, and what the backbone
/// alone takes; measured in turns, so that whatever else runs on the machine meets all alike. The
/// ratio can be compared between machines.
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
    /// The backbone that the bundle was trained on, to compare with
    #[arg(
        long,
        value_name = "FILE.onnx",
        default_value = ".runtime/efficientnet_lite0.onnx",
        env = "LINEGATE_BACKBONE"
    )]
    backbone: PathBuf,
    /// Measure the outbox at 500 decisions a second on the disk of this folder instead
    #[arg(long, value_name = "FOLDER", conflicts_with = "bundle")]
    outbox: Option<PathBuf>,
    /// How long the outbox is measured for each durability, seconds
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=600))]
    seconds: u32,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Size of the frame that is fitted: a usual camera's.
const FRAME: Size = Size { width: 1920, height: 1080 };

/// What the stages of one frame take, fastest of several, one thread.
#[derive(Debug, Serialize)]
struct ScoringCost {
    /// Whole model by backbone alone.
    cost_ratio_model_to_backbone: f64,
    /// The backbone alone, ms.
    backbone_ms: f64,
    /// The whole model, ms.
    model_ms: f64,
    /// A 1920x1080 frame to model size, ms.
    fit_ms: f64,
    /// Maps to verdict, ms.
    decision_ms: f64,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    if let Some(bundle) = &arguments.bundle {
        return score(bundle, arguments);
    }
    if let Some(folder) = &arguments.outbox {
        let costs = outbox::measure(folder, arguments.seconds)?;
        if arguments.json {
            println!("{}", serde_json::to_string_pretty(&costs)?);
        } else {
            outbox::print(&costs);
        }
        return Ok(ExitCode::SUCCESS);
    }
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

fn score(bundle: &Path, arguments: &Arguments) -> anyhow::Result<ExitCode> {
    scoring::initialise(None)?;
    let cost = scoring_cost(&Bundle::open(bundle)?, &arguments.backbone, arguments.steps)?;
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(&cost)?);
        return Ok(ExitCode::SUCCESS);
    }
    println!("model / backbone  {:8.2}", cost.cost_ratio_model_to_backbone);
    println!("backbone alone    {:8.2} ms", cost.backbone_ms);
    println!("whole model       {:8.2} ms", cost.model_ms);
    println!("frame to picture  {:8.2} ms   from {FRAME}", cost.fit_ms);
    println!("maps to verdict   {:8.2} ms", cost.decision_ms);
    Ok(ExitCode::SUCCESS)
}

fn scoring_cost(bundle: &Bundle, backbone: &Path, frames: u32) -> anyhow::Result<ScoringCost> {
    let options = SessionOptions { threads: 1, ..SessionOptions::default() };
    let preprocessing = bundle.manifest.preprocessing;
    let mut model = Model::load(bundle, &options)?;
    let mut backbone = FeatureExtractor::load(backbone, preprocessing.size, &options)
        .context("the backbone to compare with (--backbone) cannot be used")?;
    let size = preprocessing.region_of_interest.map_or(FRAME, |region| Size {
        width: FRAME.width.max(region.x + region.width),
        height: FRAME.height.max(region.y + region.height),
    });
    // A frame of some texture: what is the same everywhere could be cheaper than it should.
    let bytes = (0..size.width * size.height * 3).map(|at| ((at * 2_654_435_761) >> 24) as u8).collect();
    let frame = Picture::from_rgb(size, bytes)?;
    let mut fitter = PictureFitter::new();
    let mut fastest = [Duration::MAX; 4];
    for _ in 0..frames {
        let began = std::time::Instant::now();
        let picture = fitter.fit(&frame, &preprocessing)?;
        let fit = began.elapsed();
        let maps = model.score(&[&picture])?;
        let began = std::time::Instant::now();
        std::hint::black_box(decide(&maps[0], &bundle.manifest, size));
        let decision = began.elapsed();
        for (fastest, now) in fastest.iter_mut().zip([backbone.time_run()?, model.time_run()?, fit, decision]) {
            *fastest = (*fastest).min(now);
        }
    }
    let [backbone_ms, model_ms, fit_ms, decision_ms] = fastest.map(|time| time.as_secs_f64() * 1e3);
    Ok(ScoringCost { cost_ratio_model_to_backbone: model_ms / backbone_ms, backbone_ms, model_ms, fit_ms, decision_ms })
}
