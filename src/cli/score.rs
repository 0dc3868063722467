//! `linegate score`.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use serde::Serialize;

use crate::bundle::{Bundle, Manifest};
use crate::decision::{decide, outline, overlay};
use crate::inspection::{AnomalyMap, NotInspected, Outcome, Picture, Reason, Region, Verdict, encode_png};
use crate::scoring::{self, Model, PictureFitter, SessionOptions};
use crate::training::dataset::load_picture;

/// Colour of the regions' boxes.
const BOX: [u8; 3] = [0, 255, 128];

/// Arguments of `linegate score`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Inspects each picture exactly as the line would and prints its verdict: accept up to the normal \
boundary, suspect up to the abnormal one, reject beyond it, not_inspected where the picture could not be read or \
scored. Exit code 0 when every picture was inspected, whatever the verdicts; 1 when one was not.

Examples:
  linegate score --bundle models/tile part.png
  linegate score --bundle models/tile --json *.jpg | jq -r 'select(.verdict == \"reject\").picture'
  linegate score --bundle models/tile --heatmap out/ part.png  # out/part_heatmap.png"
)]
pub(super) struct Arguments {
    /// The bundle: a folder with model.onnx and manifest.json
    #[arg(long, value_name = "BUNDLE")]
    bundle: PathBuf,
    /// Pictures: png, jpeg, bmp or tiff
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<PathBuf>,
    /// Print one JSON object a line and picture in place of the table
    #[arg(long)]
    json: bool,
    /// Write each picture with its anomaly map laid over it and its regions boxed into this folder
    #[arg(long, value_name = "DIR")]
    heatmap: Option<PathBuf>,
}

/// One picture's answer.
#[derive(Debug, Serialize)]
struct Answer<'a> {
    picture: &'a Path,
    verdict: Verdict,
    /// Calibrated units.
    image_score: Option<f32>,
    boundary: Boundary,
    reasons: Vec<Reason>,
    /// In pixels of the picture.
    regions: Vec<Region>,
    #[serde(skip_serializing_if = "Option::is_none")]
    heatmap: Option<PathBuf>,
    /// What went wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
}

#[derive(Debug, Clone, Copy, Serialize)]
struct Boundary {
    normal: f32,
    abnormal: f32,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let bundle = Bundle::open(&arguments.bundle)?;
    scoring::initialise(None)?;
    let mut model = Model::load(&bundle, &SessionOptions::default())?;
    if let Some(directory) = &arguments.heatmap {
        std::fs::create_dir_all(directory).with_context(|| format!("cannot create {}", directory.display()))?;
    }
    let manifest = &bundle.manifest;
    let boundary =
        Boundary { normal: manifest.calibration.image.normal, abnormal: manifest.calibration.image.abnormal };
    let mut fitter = PictureFitter::new();
    let mut names = HashSet::new();
    let mut whole = true;
    let mut out = std::io::stdout().lock();
    if !arguments.json {
        let Boundary { normal, abnormal } = boundary;
        writeln!(
            out,
            "{:13}  {:>8}  regions  picture (suspect above {normal:.2}, reject above {abnormal:.2})",
            "verdict", "score"
        )?;
    }
    for path in &arguments.images {
        let (outcome, heatmap, problem) = match inspect(path, &mut model, &mut fitter, manifest) {
            Ok((outcome, map, picture)) => {
                let heatmap = match &arguments.heatmap {
                    Some(directory) => {
                        Some(draw(&picture, &map, &outcome, manifest, &directory.join(name(path, &mut names)))?)
                    }
                    None => None,
                };
                (outcome, heatmap, None)
            }
            Err((cause, problem)) => (Outcome::not_inspected(cause), None, Some(format!("{problem:#}"))),
        };
        whole &= outcome.verdict != Verdict::NotInspected;
        let Outcome { verdict, reasons, image_score, regions } = outcome;
        let answer = Answer { picture: path, verdict, image_score, boundary, reasons, regions, heatmap, problem };
        let line = if arguments.json { serde_json::to_string(&answer)? } else { row(&answer) };
        writeln!(out, "{line}").context("cannot write to standard output")?;
    }
    Ok(if whole { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The line's own way from a file to an outcome; what stops it is no reason to stop at the others.
fn inspect(
    path: &Path,
    model: &mut Model,
    fitter: &mut PictureFitter,
    manifest: &Manifest,
) -> Result<(Outcome, AnomalyMap, Picture), (NotInspected, anyhow::Error)> {
    let picture = load_picture(path).map_err(|error| (NotInspected::Lost, error.into()))?;
    let failed = |error: scoring::ScoringError| (NotInspected::Failed, error.into());
    let fitted = fitter.fit(&picture, &manifest.preprocessing).map_err(failed)?;
    let maps = model.score(&[&fitted]).map_err(failed)?.swap_remove(0);
    let (outcome, map) = decide(&maps, manifest, picture.size());
    Ok((outcome, map, picture))
}

/// A file name for the heatmap that no other picture of this call has.
fn name(path: &Path, names: &mut HashSet<String>) -> String {
    let stem = path.file_stem().map_or_else(|| "picture".into(), |stem| stem.to_string_lossy());
    let mut name = format!("{stem}_heatmap.png");
    let mut count = 1;
    while !names.insert(name.clone()) {
        count += 1;
        name = format!("{stem}_{count}_heatmap.png");
    }
    name
}

fn draw(
    picture: &Picture,
    map: &AnomalyMap,
    outcome: &Outcome,
    manifest: &Manifest,
    file: &Path,
) -> anyhow::Result<PathBuf> {
    let mut drawn = overlay(picture, map, &manifest.calibration.image, manifest.preprocessing.region_of_interest);
    let thickness = (picture.size().width.max(picture.size().height) / 300).max(1);
    for region in &outcome.regions {
        outline(&mut drawn, region.bounds, thickness, BOX);
    }
    std::fs::write(file, encode_png(&drawn)?).with_context(|| format!("cannot write {}", file.display()))?;
    Ok(file.to_owned())
}

fn row(answer: &Answer<'_>) -> String {
    let score = answer.image_score.map_or_else(|| "-".to_owned(), |score| format!("{score:.2}"));
    let mut line =
        format!("{:13}  {score:>8}  {:7}  {}", answer.verdict, answer.regions.len(), answer.picture.display());
    for region in answer.regions.iter().take(3) {
        let bounds = region.bounds;
        let _ = write!(
            line,
            "\n{:>33}peak {:.2}, {}x{} at {},{}",
            "", region.peak_score, bounds.width, bounds.height, bounds.x, bounds.y
        );
    }
    if answer.regions.len() > 3 {
        let _ = write!(line, "\n{:>33}and {} more", "", answer.regions.len() - 3);
    }
    let not_inspected = answer.reasons.iter().find_map(|reason| match reason {
        Reason::NotInspected { cause } => Some(cause),
        Reason::ScoreAboveBoundary { .. } => None,
    });
    match (&answer.problem, not_inspected) {
        (Some(problem), _) => {
            let _ = write!(line, ": {problem}");
        }
        (None, Some(NotInspected::NotFinite)) => line.push_str(": the model's answer is not a number"),
        (None, Some(_)) => line.push_str(": the model's answer does not fit its manifest"),
        (None, None) => {}
    }
    line
}
