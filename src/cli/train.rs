//! `linegate train`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use anyhow::Context;
use clap::ValueEnum;

use super::BackboneArgument;
use super::progress::Bars;
use crate::bundle::Bundle;
use crate::config::{ImageSize, Numbers, Orientation, Preset, TrainingConfig, parse_image_size};
use crate::inspection::Rectangle;
use crate::scoring;
use crate::training::settings::Settings;
use crate::training::{TrainOptions, train};

/// Fit BGAD on a data set and export it as a bundle
///
/// The data set has MVTec layout: train/good (normals; a share is held out for calibration),
/// optionally train/DEFECT (known defects), test/good, test/DEFECT and
/// ground_truth/DEFECT/NAME_mask.png. png, jpeg, bmp and tiff, grey or colour, 8 or 16 bit, any
/// sizes. Defects without a mask are used weakly: their region is found by the model trained so
/// far.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Data set in MVTec layout
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Where the bundle shall stand; an older one there is replaced in one step
    #[arg(long, value_name = "BUNDLE")]
    out: PathBuf,
    /// Start from this bundle's flows: its channel statistics are kept, and half of the preset's steps
    /// (unless --steps is given) and a fifth of the share on normals alone are enough; backbone, size,
    /// region and shape must be the same
    #[arg(long, value_name = "BUNDLE")]
    from: Option<PathBuf>,
    /// Training configuration (TOML); flags below override it
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    backbone: BackboneArgument,
    /// Starting point of the settings: fast, standard or paper
    #[arg(long, value_enum)]
    preset: Option<PresetName>,
    /// Known defects to take from the test folders, evenly over types; evaluation leaves them out
    #[arg(long, value_name = "N")]
    defects: Option<usize>,
    /// Make defects up where none, or fewer than five, are known: then the boundary is pushed by invented ones,
    /// too; `--synthetic false` learns from normals and known defects alone
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    synthetic: Option<bool>,
    /// Defect type that known defects are not taken from, to see how unseen defects are told;
    /// may be given more than once
    #[arg(long, value_name = "TYPE")]
    unseen: Vec<String>,
    /// Which pictures show the same part (columns path,group): groups are never split
    #[arg(long, value_name = "FILE.csv")]
    groups: Option<PathBuf>,
    /// Model input size: one number for a square, or WxH, multiples of 16; auto keeps the pictures'
    /// aspect and takes a size at which known defects are two cells wide, up to 16 times the cost
    /// of 256x256
    #[arg(long, value_name = "SIZE", value_parser = parse_image_size)]
    image_size: Option<ImageSize>,
    /// Show the backbone every picture (scaled to the image size) through overlapping tiles of this
    /// side, model pixels, as one batch; for a backbone that takes one size only or looks at the whole
    /// of what it is given. Others find the same without, for less
    #[arg(long, value_name = "SIDE")]
    tile: Option<usize>,
    /// How parts lie before the camera; any trains on turned copies, too, and makes what is normal
    /// independent of the place in the picture
    #[arg(long, value_enum)]
    orientation: Option<OrientationName>,
    /// What the backbone's convolutions work on; the flows are f32 and learn what the backbone says
    #[arg(long, value_enum)]
    numbers: Option<NumbersName>,
    /// Region of interest in pixels of the full pictures
    #[arg(long, value_name = "X,Y,W,H", value_parser = parse_region)]
    region: Option<Rectangle>,
    /// Seed of every random choice: same seed and threads, same model
    #[arg(long)]
    seed: Option<u64>,
    /// Training threads; 0 is one per core
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
    /// Steps per level, in place of the preset's
    #[arg(long, value_name = "N")]
    steps: Option<usize>,
    /// Most that the features of the pictures may take, in memory up to 256 and beyond in a temporary
    /// file beside the bundle; of more pictures an even share of the cells is used [default: 8192]
    #[arg(long, value_name = "MIB")]
    feature_budget_mib: Option<u64>,
    /// Name of the bundle; without it the data folder's
    #[arg(long)]
    name: Option<String>,
    /// Print the manifest's summary as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum PresetName {
    /// Half of standard's pixels a step: 13 to 25 CPU seconds with AVX-512 on up to 300 pictures of 256x256. With ten
    /// known defects image AUROC, pixel AUROC and AUPRO are 0.894, 0.892 and 0.798 on magnetic_tile (seeds 1 to 3; seeds 1 to
    /// 6: 0.881, 0.890, 0.793), 1.000, 0.996 and 0.955 on metal_plate
    Fast,
    /// The default: 22 to 40 CPU seconds. The same figures: 0.901, 0.892 and 0.801 (seeds 1 to 6: 0.884, 0.890, 0.795),
    /// 1.000, 0.995 and 0.953
    Standard,
    /// The authors' schedule, raw features and score: 200 passes over every pixel, 20 CPU seconds for each
    /// training picture of 256x256; for comparison. 0.989, 0.962 and 0.830 on metal_plate (one seed)
    Paper,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum NumbersName {
    /// 32-bit floats (the default)
    F32,
    /// 16-bit floats, for GPUs; on a processor slower than f32
    F16,
    /// Eight-bit integers, their ranges from training pictures
    Int8,
}

impl From<NumbersName> for Numbers {
    fn from(name: NumbersName) -> Self {
        match name {
            NumbersName::F32 => Self::F32,
            NumbersName::F16 => Self::F16,
            NumbersName::Int8 => Self::Int8,
        }
    }
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum OrientationName {
    /// Any where the normals, turned by quarters, are as like the others as they were; else, and of
    /// fewer than eight, fixed (the default)
    Auto,
    /// Always alike
    Fixed,
    /// Turned by any angle
    Any,
}

impl From<OrientationName> for Orientation {
    fn from(name: OrientationName) -> Self {
        match name {
            OrientationName::Auto => Self::Auto,
            OrientationName::Fixed => Self::Fixed,
            OrientationName::Any => Self::Any,
        }
    }
}

impl From<PresetName> for Preset {
    fn from(name: PresetName) -> Self {
        match name {
            PresetName::Fast => Self::Fast,
            PresetName::Standard => Self::Standard,
            PresetName::Paper => Self::Paper,
        }
    }
}

fn parse_region(text: &str) -> Result<Rectangle, String> {
    let numbers: Vec<usize> = text
        .split(',')
        .map(|part| part.trim().parse().map_err(|_| format!("`{part}` is not a number of pixels")))
        .collect::<Result<_, _>>()?;
    match numbers[..] {
        [x, y, width, height] if width > 0 && height > 0 => Ok(Rectangle { x, y, width, height }),
        _ => Err("four numbers are needed: x,y,width,height, the last two above 0".into()),
    }
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let settings = settings(arguments)?;
    scoring::initialise(None)?;
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        // A second one ends the program at once.
        signal_hook::flag::register_conditional_shutdown(signal, 130, Arc::clone(&stop))?;
        signal_hook::flag::register(signal, Arc::clone(&stop)).context("cannot catch signals")?;
    }
    let options = TrainOptions {
        data: arguments.data.clone(),
        groups: arguments.groups.clone(),
        out: arguments.out.clone(),
        backbone: arguments.backbone.file.clone(),
        name: arguments.name.clone(),
        from: arguments.from.clone(),
        settings,
    };
    let bundle = train(&options, &Bars::new(), &stop)?;
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(&summary(&bundle))?);
    } else {
        print_summary(&bundle);
    }
    Ok(ExitCode::SUCCESS)
}

fn settings(arguments: &Arguments) -> anyhow::Result<Settings> {
    let mut config = match &arguments.config {
        Some(path) => TrainingConfig::load(path)?,
        None => TrainingConfig::default(),
    };
    config.preset = arguments.preset.map(Preset::from).or(config.preset);
    config.defects = arguments.defects.or(config.defects);
    config.image_size = arguments.image_size.or(config.image_size);
    config.tile = arguments.tile.or(config.tile);
    config.orientation = arguments.orientation.map(Orientation::from).or(config.orientation);
    config.numbers = arguments.numbers.map(Numbers::from).or(config.numbers);
    config.seed = arguments.seed.or(config.seed);
    config.threads = arguments.threads.or(config.threads);
    config.steps = arguments.steps.or(config.steps);
    config.synthetic = arguments.synthetic.or(config.synthetic);
    if !arguments.unseen.is_empty() {
        config.unseen = Some(arguments.unseen.clone());
    }
    config.feature_budget_mib = arguments.feature_budget_mib.or(config.feature_budget_mib);
    let settings = Settings { region_of_interest: arguments.region, ..Settings::from_config(&config) };
    Ok(if arguments.from.is_some() { settings.for_warm_start(arguments.steps.is_some()) } else { settings })
}

fn summary(bundle: &Bundle) -> serde_json::Value {
    let manifest = &bundle.manifest;
    let provenance = &manifest.provenance;
    serde_json::json!({
        "bundle": bundle.path,
        "name": manifest.name,
        "version": manifest.version,
        "started_from": provenance.started_from,
        "training_images": provenance.training_images,
        "calibration_images": manifest.calibration.set.images,
        "known_defects": provenance.known_defects,
        "image_boundary": manifest.calibration.image,
        "minimum_area": manifest.calibration.minimum_area,
        "false_reject_interval": manifest.calibration.set.false_reject_interval,
        "warnings": manifest.calibration.set.warnings,
        "export_difference": provenance.export_difference,
        "phases": provenance.phases,
        "cpu_seconds": provenance.phases.iter().map(|p| p.cpu_seconds).sum::<f64>(),
        "wall_seconds": provenance.phases.iter().map(|p| p.wall_seconds).sum::<f64>(),
        "peak_memory_mib": provenance.peak_memory_mib,
    })
}

fn print_summary(bundle: &Bundle) {
    let manifest = &bundle.manifest;
    let provenance = &manifest.provenance;
    let set = &manifest.calibration.set;
    println!("bundle      {} ({} {})", bundle.path.display(), manifest.name, manifest.version);
    println!(
        "learned     {} normals, {} known defects; {} held-out normals calibrate",
        provenance.training_images,
        provenance.known_defects.len(),
        set.images
    );
    if let Some(bundle) = &provenance.started_from {
        println!("started     from {bundle}");
    }
    let image = &manifest.calibration.image;
    println!(
        "boundary    suspect above {:.3}, reject above {:.3}; smallest region {} cells",
        image.normal, image.abnormal, manifest.calibration.minimum_area
    );
    println!(
        "false rejects on held-out normals: 95 % interval {:.1} % to {:.1} % (wished {} %)",
        set.false_reject_interval[0] * 100.0,
        set.false_reject_interval[1] * 100.0,
        image.false_reject_rate * 100.0
    );
    println!("export      differs from the trained flow by at most {:.1e} nats", provenance.export_difference);
    for phase in &provenance.phases {
        println!("  {:30} {:8.1} CPU s {:8.1} s", phase.name, phase.cpu_seconds, phase.wall_seconds);
    }
    println!(
        "cost        {:.1} CPU s, {:.1} s, peak memory {:.0} MiB",
        provenance.phases.iter().map(|p| p.cpu_seconds).sum::<f64>(),
        provenance.phases.iter().map(|p| p.wall_seconds).sum::<f64>(),
        provenance.peak_memory_mib
    );
}
