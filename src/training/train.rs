//! `train`: its steps in order.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use super::cost::{PhaseClock, peak_memory_mib};
use super::dataset::{Dataset, DatasetError, Sample, choose_known_defects, hold_out, load_mask};
use super::defects::{KnownDefect, defect_cells, find_regions, invent, synthesise};
use super::export::{ExportError, export_model};
use super::fit::{FitError, LevelFit, StepReport};
use super::gather::{check, empty_bank, extract, load};
use super::progress::Progress;
use super::proposal::{Proposal, ProposalError};
use super::settings::Settings;
use super::synthesis::turned_copies;
use super::{finish, flow};
use crate::bundle::{
    BUNDLE_SCHEMA_VERSION, Bundle, BundleError, BundleWriter, METADATA_NAME, METADATA_VERSION, MODEL_FILE, Manifest,
    Preprocessing, Provenance, UsedDefect, sha256_file, sha256_hex,
};
use crate::config::Orientation;
use crate::inspection::Picture;
use crate::scoring::{FeatureExtractor, Provider, ScoringError, SessionOptions};

/// Pictures with invented defects that choose the minimum area where fewer defects are known.
const AREA_PICTURES: usize = 32;
/// From so many known defects on, they choose the minimum area themselves.
const ENOUGH_DEFECTS: usize = 5;

/// Turned copies of each training normal where parts lie in any orientation.
const TURNED_COPIES: usize = 2;

/// What to train, and where to.
#[derive(Debug, Clone)]
pub struct TrainOptions {
    /// Data set, MVTec layout.
    pub data: PathBuf,
    /// Groups file.
    pub groups: Option<PathBuf>,
    /// Bundle to write; an older one there is replaced in one step.
    pub out: PathBuf,
    /// Backbone, ONNX with a TOML beside it.
    pub backbone: PathBuf,
    /// Name of the bundle; none takes the data folder's.
    pub name: Option<String>,
    /// Everything else.
    pub settings: Settings,
}

/// Why there is no bundle.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// A setting is out of range.
    #[error("training settings cannot be used:\n  {}", .0.join("\n  "))]
    Settings(Vec<String>),
    /// The data set.
    #[error(transparent)]
    Dataset(#[from] DatasetError),
    /// No size could be proposed.
    #[error(transparent)]
    Proposal(#[from] ProposalError),
    /// A picture does not fit the model.
    #[error("picture {} cannot be brought to model size", path.display())]
    Picture {
        /// The file.
        path: PathBuf,
        /// Cause.
        source: ScoringError,
    },
    /// The backbone or the exported model.
    #[error(transparent)]
    Scoring(#[from] ScoringError),
    /// The fit.
    #[error(transparent)]
    Fit(#[from] FitError),
    /// The export.
    #[error(transparent)]
    Export(#[from] ExportError),
    /// The exported model says something else than the trained flow.
    #[error("the exported {} differs from the trained flow by {difference} nats per dimension, {limit} is allowed: the export or this ONNX Runtime is wrong, the bundle was not written", path.display())]
    Parity {
        /// The ONNX file.
        path: PathBuf,
        /// Largest difference.
        difference: f32,
        /// Limit.
        limit: f32,
    },
    /// The bundle.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// A file could not be hashed.
    #[error("cannot read {}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Cause.
        source: std::io::Error,
    },
}

/// Fits BGAD on a data set and writes the bundle. `stop` ends it early with
/// [`FitError::Interrupted`], leaving the old bundle or none.
///
/// # Errors
/// [`TrainError`]; in every case what stood at `out` before stands there still.
pub fn train(options: &TrainOptions, progress: &dyn Progress, stop: &AtomicBool) -> Result<Bundle, TrainError> {
    let settings = &options.settings;
    let problems = settings.problems();
    if !problems.is_empty() {
        return Err(TrainError::Settings(problems));
    }
    let mut clock = PhaseClock::new();
    let mut rng = ChaCha8Rng::seed_from_u64(settings.seed);
    let writer = BundleWriter::new(&options.out)?;

    clock.start("data set");
    let dataset = Dataset::open_for_training(&options.data, options.groups.as_deref())?;
    for warning in dataset.warnings()? {
        progress.warn(&warning.to_string());
    }
    let (normals, held_out) = hold_out(&dataset.train_good(), settings.calibration_fraction, settings.seed)?;
    let mut chosen: Vec<Sample> = dataset.train_defects().into_iter().cloned().collect();
    if settings.defects > 0 {
        chosen.extend(choose_known_defects(&dataset.test_defects(), settings.defects, settings.seed)?);
    }
    let proposal = Proposal::of(&dataset, &chosen, settings.region_of_interest)?;
    let settings = &proposal.settle(settings, progress)?;
    let preprocessing = Preprocessing { size: settings.size, region_of_interest: settings.region_of_interest };
    let used: Vec<&Sample> = normals.iter().chain(&held_out).chain(&chosen).collect();
    progress.phase("reading pictures", used.len() as u64);
    let training_set_sha256 = Dataset::digest(&used)?;
    let mut normal_pictures = pictures(&normals, &preprocessing, progress, stop)?;
    if settings.orientation == Orientation::Any {
        let turned = turned_copies(&normal_pictures, TURNED_COPIES, proposal.stretch(settings.size), &mut rng);
        normal_pictures.extend(turned);
    }
    let held_out_pictures = pictures(&held_out, &preprocessing, progress, stop)?;
    let mut known = known_defects(chosen, &preprocessing, progress, stop)?;

    clock.start("features");
    let session = SessionOptions { providers: vec![Provider::Cpu], required: true, threads: settings.threads };
    let mut extractor = FeatureExtractor::load(&options.backbone, settings.size, &session)?;
    progress.phase("backbone features", normal_pictures.len() as u64);
    let mut normal_bank = empty_bank(&extractor, settings);
    let mut held_out_bank = normal_bank.clone();
    let mut defect_bank = normal_bank.clone();
    extract(&mut extractor, normal_pictures.iter(), &mut normal_bank, progress, stop)?;
    extract(&mut extractor, held_out_pictures.iter(), &mut held_out_bank, progress, stop)?;
    extract(&mut extractor, known.iter().map(|d| &d.picture), &mut defect_bank, progress, stop)?;
    let statistics: Vec<_> = normal_bank.levels.iter().map(super::features::LevelBank::statistics).collect();
    normal_bank.standardise(&statistics);
    held_out_bank.standardise(&statistics);
    defect_bank.standardise(&statistics);

    clock.start("fit on normals");
    let mut fits: Vec<LevelFit> =
        normal_bank.levels.iter().enumerate().map(|(i, bank)| LevelFit::new(i, bank, settings)).collect();
    let with_defects = !known.is_empty() || settings.synthetic;
    let total: usize = fits.iter().map(LevelFit::steps).sum();
    progress.phase("fitting the flows", total as u64);
    let mut done = 0;
    let mut observe = |report: StepReport| {
        done += 1;
        progress.advance(done, &describe(&report));
        check(stop)
    };
    for (fit, bank) in fits.iter_mut().zip(&normal_bank.levels) {
        let share = if with_defects { settings.normals_only } else { 1.0 };
        let until = (fit.steps() as f64 * share).ceil() as usize;
        fit.run(until, bank, None, &mut observe)?;
    }
    if with_defects {
        clock.start("defects");
        let weak: Vec<usize> = (0..known.len()).filter(|&i| known[i].weak).collect();
        let regions = find_regions(&mut fits, &normal_bank, &defect_bank, &weak, settings.size);
        for (i, mask) in weak.into_iter().zip(regions) {
            known[i].mask = Some(mask);
        }
        let made = synthesise(&known, &normal_pictures, settings.synthesised, &mut rng);
        let mut made_bank = empty_bank(&extractor, settings);
        for maps in made.chunks(4).map(|batch| extractor.extract(&batch.iter().map(|m| &m.0).collect::<Vec<_>>())) {
            check(stop)?;
            maps?.iter().for_each(|maps| made_bank.push(maps));
        }
        made_bank.standardise(&statistics);
        for (defects, made) in defect_bank.levels.iter_mut().zip(&made_bank.levels) {
            defects.append(made);
        }
        clock.start("fit on normals and defects");
        for ((fit, bank), defects) in fits.iter_mut().zip(&normal_bank.levels).zip(&defect_bank.levels) {
            let cells = defect_cells(defects, &known, &made);
            fit.run(usize::MAX, bank, Some(&cells), &mut observe)?;
        }
    }

    clock.start("export");
    let name = options.name.clone().unwrap_or_else(|| {
        options.data.file_name().map_or_else(|| "model".into(), |name| name.to_string_lossy().into_owned())
    });
    let backbone_sha256 = sha256_file(&options.backbone)
        .map_err(|source| TrainError::Unreadable { path: options.backbone.clone(), source })?;
    let version = version(&fits, settings, &training_set_sha256, &backbone_sha256);
    let levels = finish::level_shapes(&normal_bank, settings);
    let folded = finish::fold(&fits, &normal_bank, &statistics);
    let outputs: Vec<String> = levels.iter().map(|level| level.output.clone()).collect();
    let metadata = [(METADATA_NAME.to_owned(), name.clone()), (METADATA_VERSION.to_owned(), version.clone())];
    let model_file = writer.path().join(MODEL_FILE);
    export_model(&options.backbone, extractor.spec(), settings.size, &folded, &outputs, &metadata, &model_file)?;
    let mut manifest = Manifest {
        schema_version: BUNDLE_SCHEMA_VERSION,
        name,
        version,
        preprocessing,
        calibration: finish::no_calibration(levels.len(), settings),
        levels,
        provenance: Provenance {
            software: env!("CARGO_PKG_VERSION").into(),
            trained_at: jiff::Timestamp::now().to_string(),
            seed: settings.seed,
            threads: settings.threads,
            preset: settings.preset.as_str().into(),
            settings: serde_json::to_value(settings).unwrap_or_default(),
            backbone: format!("{} {backbone_sha256}", extractor.spec().name),
            training_set_sha256,
            training_images: normals.len(),
            known_defects: used_defects(&known)?,
            normals: normals.iter().chain(&held_out).map(|s| s.name.clone()).collect(),
            export_difference: 0.0,
            phases: Vec::new(),
            peak_memory_mib: 0.0,
        },
        files: std::collections::BTreeMap::new(),
    };
    let mut model = finish::load_exported(writer.path(), &manifest, settings.threads)?;

    clock.start("calibrate");
    progress.phase("calibrating", held_out_pictures.len() as u64);
    let maps = finish::score(&mut model, &held_out_pictures.iter().collect::<Vec<_>>(), progress)?;
    manifest.provenance.export_difference = finish::compare(&mut fits, &held_out_bank, &maps, writer.path())?;
    let area_pictures: Vec<Picture> = if known.len() >= ENOUGH_DEFECTS {
        known.iter().map(|d| d.picture.clone()).collect()
    } else {
        invent(&held_out_pictures, AREA_PICTURES, &mut rng)
    };
    let defect_maps = finish::score(&mut model, &area_pictures.iter().collect::<Vec<_>>(), &super::Silent)?;
    let groups = held_out.iter().map(|s| s.group.as_ref().unwrap_or(&s.name)).collect::<BTreeSet<_>>().len();
    manifest.calibration = finish::learn_calibration(&maps, groups, &defect_maps, settings, progress);
    check(stop)?;
    manifest.provenance.phases = clock.finish();
    manifest.provenance.peak_memory_mib = peak_memory_mib();
    Ok(writer.commit(manifest)?)
}

fn pictures(
    samples: &[Sample],
    preprocessing: &Preprocessing,
    progress: &dyn Progress,
    stop: &AtomicBool,
) -> Result<Vec<Picture>, TrainError> {
    Ok(load(samples, preprocessing, progress, stop)?.into_iter().map(|(picture, _)| picture).collect())
}

fn known_defects(
    samples: Vec<Sample>,
    preprocessing: &Preprocessing,
    progress: &dyn Progress,
    stop: &AtomicBool,
) -> Result<Vec<KnownDefect>, TrainError> {
    let loaded = load(&samples, preprocessing, progress, stop)?;
    samples
        .into_iter()
        .zip(loaded)
        .map(|(sample, (picture, full))| {
            let mask = match &sample.mask {
                Some(path) => Some(load_mask(path, full)?.fit(preprocessing.region_of_interest, preprocessing.size)),
                None => None,
            };
            Ok(KnownDefect { weak: mask.is_none(), sample, picture, mask })
        })
        .collect()
}

fn used_defects(known: &[KnownDefect]) -> Result<Vec<UsedDefect>, TrainError> {
    known
        .iter()
        .map(|defect| {
            Ok(UsedDefect {
                path: defect.sample.name.clone(),
                sha256: defect.sample.sha256()?,
                defect_type: defect.sample.label.as_str().to_owned(),
                group: defect.sample.group.clone(),
                weak: defect.weak,
            })
        })
        .collect()
}

/// A version that depends on what was learned and from what, not on when: the same training gives
/// the same bundle.
fn version(fits: &[LevelFit], settings: &Settings, training_set: &str, backbone: &str) -> String {
    let mut bytes: Vec<u8> = fits
        .iter()
        .flat_map(|fit: &LevelFit| {
            let flow: &flow::Flow = &fit.flow;
            flow.parameters.iter().chain(flow.rotations.iter().flatten()).flat_map(|v| v.to_le_bytes())
        })
        .collect();
    bytes.extend_from_slice(serde_json::to_string(settings).unwrap_or_default().as_bytes());
    bytes.extend_from_slice(training_set.as_bytes());
    bytes.extend_from_slice(backbone.as_bytes());
    sha256_hex(&bytes)[..12].to_owned()
}

/// One line on a step.
fn describe(report: &StepReport) -> String {
    let terms = &report.terms;
    let mut text = format!("level {} likelihood {:.3}", report.level, terms.likelihood);
    if let (Some(b_n), Some(b_a)) = (terms.normal_boundary, terms.abnormal_boundary) {
        text += &format!(" pull {:.4} push {:.4} b_n {b_n:.3} b_a {b_a:.3}", terms.pull, terms.push);
    }
    text + &format!(" rate {:.1e}", report.rate)
}
