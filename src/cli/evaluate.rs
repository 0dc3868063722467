//! `linegate evaluate`.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use indicatif::{ProgressBar, ProgressStyle};

use crate::bundle::Bundle;
use crate::scoring::{self, SessionOptions};
use crate::training::dataset::Dataset;
use crate::training::evaluation::{Evaluation, EvaluationOptions, Figures, evaluate, write_report};

/// Arguments of `linegate evaluate`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Scores every picture under test/ through the bundle's ONNX file and the line's own code. Pictures \
that training used as known defects are left out (found by their content), and with --groups everything that shows the \
same part. Suspects count neither as false rejects nor as escapes; intervals are exact, 95 %. Masks are compared at \
model size; defects without a mask count for the image metrics only.

Exit code 0 when every figure could be had; 1 when a picture cannot be read or a metric is undefined, such as on a test \
set without good pictures.

Examples:
  linegate evaluate --bundle models/tile --data data/tile --groups data/tile/groups.csv
  linegate evaluate --bundle models/tile --data data/tile --json | jq .at_boundary
  linegate evaluate --bundle models/tile --data data/tile --report out/  # out/report.html, out/metrics.json"
)]
pub(super) struct Arguments {
    /// The bundle: a folder with model.onnx and manifest.json
    #[arg(long, value_name = "BUNDLE")]
    bundle: PathBuf,
    /// Data set in MVTec layout: test/good, test/DEFECT, ground_truth/DEFECT (masks may be missing)
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// CSV with the header file,group: pictures of one group show the same part
    #[arg(long, value_name = "FILE")]
    groups: Option<PathBuf>,
    /// Print the figures as one JSON document in place of the table
    #[arg(long)]
    json: bool,
    /// Write report.html (curves, histograms, worst cases) and metrics.json into this folder
    #[arg(long, value_name = "DIR")]
    report: Option<PathBuf>,
    /// Threads of one run of the model; 0 is one per core
    #[arg(long, value_name = "N", default_value_t = 0)]
    threads: usize,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let bundle = Bundle::open(&arguments.bundle)?;
    let dataset = Dataset::open(&arguments.data, arguments.groups.as_deref())?;
    scoring::initialise(None)?;

    let bar = ProgressBar::new(0).with_style(
        ProgressStyle::with_template("scoring {wide_bar} {pos}/{len} pictures, {eta} left")
            .context("the progress bar's template is broken")?,
    );
    let progress = |done: usize, of: usize| {
        bar.set_length(of as u64);
        bar.set_position(done as u64);
    };
    let session = SessionOptions { threads: arguments.threads, ..SessionOptions::default() };
    let options = EvaluationOptions { session: Some(&session), progress: Some(&progress) };
    let result = evaluate(&bundle, &dataset, options);
    bar.finish_and_clear();
    let evaluation = result?;

    for warning in &evaluation.warnings {
        eprintln!("warning: {warning}");
    }
    if let Some(directory) = &arguments.report {
        write_report(&evaluation, &bundle.manifest, &dataset, directory)?;
        eprintln!("report: {}", directory.join(crate::training::evaluation::PAGE_FILE).display());
    }
    let mut text = if arguments.json { serde_json::to_string_pretty(&evaluation)? } else { table(&evaluation) };
    text.push('\n');
    std::io::stdout().write_all(text.as_bytes()).context("cannot write to standard output")?;
    Ok(ExitCode::SUCCESS)
}

/// The figures for people.
fn table(evaluation: &Evaluation) -> String {
    let mut out = String::new();
    let Evaluation { bundle, counts, figures, at_boundary, authors_score, excluded, cost, .. } = evaluation;
    let _ = writeln!(out, "{} {} on {}", bundle.name, bundle.version, evaluation.data);
    let _ = writeln!(
        out,
        "{} good, {} defective ({} without mask), {} left out\n",
        counts.good,
        counts.defective,
        counts.without_mask,
        excluded.len()
    );
    let width = evaluation.per_defect.keys().map(|name| name.chars().count()).max().unwrap_or(0).max(14);
    let _ = writeln!(out, "{:width$}  pictures  image AUROC  pixel AUROC   AUPRO  pixel AP  escapes", "");
    let mut row = |name: &str, pictures: usize, f: &Figures, escapes: f64| {
        let _ = writeln!(
            out,
            "{name:width$}  {pictures:8}  {:11.3}  {:>11}  {:>6}  {:>8}  {:>5.1} %",
            f.image_auroc,
            figure(f.pixel_auroc),
            figure(f.aupro),
            figure(f.pixel_ap),
            escapes * 100.0
        );
    };
    for (name, defect) in &evaluation.per_defect {
        row(name, defect.images, &defect.figures, defect.escape_rate);
    }
    for (name, means) in [("mean of seen", &evaluation.seen), ("mean of unseen", &evaluation.unseen)] {
        let Some(means) = means.as_ref().filter(|means| means.types.len() < evaluation.per_defect.len()) else {
            continue;
        };
        let pictures = means.types.iter().map(|kind| evaluation.per_defect[kind].images).sum();
        let figures = Figures {
            image_auroc: means.image_auroc,
            pixel_auroc: means.pixel_auroc,
            aupro: means.aupro,
            pixel_ap: means.pixel_ap,
            no_pixel_metrics: None,
        };
        row(name, pictures, &figures, means.escape_rate);
    }
    row("all", counts.defective, figures, at_boundary.escape_rate);
    let authors = Figures {
        image_auroc: authors_score.image_auroc,
        pixel_auroc: authors_score.pixel_auroc,
        aupro: authors_score.aupro,
        pixel_ap: None,
        no_pixel_metrics: None,
    };
    let _ = writeln!(
        out,
        "{:width$}  {:8}  {:11.3}  {:>11}  {:>6}",
        "authors' score",
        "",
        authors.image_auroc,
        figure(authors.pixel_auroc),
        figure(authors.aupro)
    );
    if let Some(reason) = &figures.no_pixel_metrics {
        let _ = writeln!(out, "no pixel metrics: {reason}");
    }

    let _ = writeln!(out, "\nat the boundary      accept  suspect  reject");
    for (name, tally) in [("good", at_boundary.confusion.good), ("defective", at_boundary.confusion.defective)] {
        let _ = writeln!(out, "{name:19}  {:6}  {:7}  {:6}", tally.accept, tally.suspect, tally.reject);
    }
    for (name, rate, [low, high]) in [
        ("false rejects", at_boundary.false_reject_rate, at_boundary.false_reject_interval),
        ("escapes", at_boundary.escape_rate, at_boundary.escape_interval),
    ] {
        let _ = writeln!(out, "{name:13} {:5.1} %  (95 %: {:.1} to {:.1} %)", rate * 100.0, low * 100.0, high * 100.0);
    }
    let _ = write!(out, "\n{:.1} ms CPU a picture, reading included", cost.cpu_ms_per_image);
    out
}

fn figure(value: Option<f64>) -> String {
    value.map_or_else(|| "-".to_owned(), |v| format!("{v:.3}"))
}
