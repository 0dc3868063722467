//! `train`: its steps in order.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use super::backbone::open_backbone;
use super::calibration::{Trial, uncalibrated};
use super::contrast::Contrast;
use super::coreset::Coreset;
use super::cost::{PhaseClock, peak_memory_mib};
use super::dataset::{Dataset, DatasetError, Sample, choose_known_defects, hold_out};
use super::defects::{defect_cells, find_regions, invent, synthesise};
use super::export::{ExportError, FlowForm, ModelExport};
use super::features::{ChannelStatistics, FeatureFileError, Source};
use super::finish::{self, Beside};
use super::fit::{FitError, LevelFit, StepReport};
use super::flow::FlowShape;
use super::gather::{Pictures, check, empty_banks, exact_features, extract, known_defects, sources};
use super::orientation;
use super::progress::Progress;
use super::proposal::{Proposal, ProposalError};
use super::settings::{ENOUGH_DEFECTS, Settings};
use super::synthesis::turned_copies;
use super::warm::{TrainedLevel, WarmStart, WarmStartError, write_flows};
use crate::bundle::{
    BUNDLE_SCHEMA_VERSION, Bundle, BundleError, BundleWriter, FLOWS_FILE, METADATA_NAME, METADATA_VERSION, MODEL_FILE,
    Manifest, PROCESSOR_MODEL_FILE, Preprocessing, Provenance, sha256_file,
};
use crate::inspection::Picture;
use crate::scoring::{FeatureExtractor, ScoringError};

/// Pictures with invented defects that choose the minimum area where fewer defects are known.
const AREA_PICTURES: usize = 32;
/// Normals that say where a defect without a mask lies.
const USUAL_PICTURES: usize = 32;

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
    /// Bundle whose flows to start from; none starts afresh. Its shape, backbone, size and region
    /// must be those of this training.
    pub from: Option<PathBuf>,
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
    /// The file of features.
    #[error(transparent)]
    Features(#[from] FeatureFileError),
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
    /// The bundle to start from.
    #[error(transparent)]
    WarmStart(#[from] WarmStartError),
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
    let start = options.from.as_deref().map(WarmStart::open).transpose()?;
    let fitted = start.as_ref().map(|start| start.fitted.clone()).unwrap_or_default();
    let (normals, held_out) = hold_out(&dataset.train_good(), settings.calibration_fraction, settings.seed, &fitted)?;
    dataset.require_types(&settings.unseen)?;
    let may_be_seen = |sample: &&Sample| !settings.unseen.iter().any(|unseen| unseen == sample.label.as_str());
    let mut chosen: Vec<Sample> = dataset.train_defects().into_iter().filter(may_be_seen).cloned().collect();
    if settings.defects > 0 {
        let candidates: Vec<&Sample> = dataset.test_defects().into_iter().filter(may_be_seen).collect();
        chosen.extend(choose_known_defects(&candidates, settings.defects, settings.seed)?);
    }
    let proposal = Proposal::of(&dataset, &chosen, settings.region_of_interest)?;
    let settings = proposal.settle(settings, progress)?.for_known(chosen.len());
    let settings = &orientation::settle(&settings, &options.backbone, &normals, start.as_ref(), progress, stop)?;
    // Until the end, for the export takes the backbone with its tiles, too.
    let tiles = tempfile::tempdir_in(writer.path()).map_err(|source| BundleError::Io {
        path: writer.path().to_owned(),
        action: "make a folder in it",
        source,
    })?;
    let shown: Vec<&Sample> = normals.iter().chain(&chosen).collect();
    let mut extractor = open_backbone(&options.backbone, settings, &shown, tiles.path(), progress, stop)?;
    let backbone = sha256_file(&options.backbone)
        .map_err(|source| TrainError::Unreadable { path: options.backbone.clone(), source })?;
    let backbone = format!("{} {backbone}", extractor.spec().name);
    if let Some(start) = &start {
        start.check(&backbone, &shapes(&extractor, settings), settings)?;
    }
    let preprocessing = Preprocessing { size: settings.size, region_of_interest: settings.region_of_interest };
    let used: Vec<&Sample> = normals.iter().chain(&held_out).chain(&chosen).collect();
    progress.phase("reading pictures", chosen.len().max(held_out.len()) as u64);
    let training_set_sha256 = Dataset::digest(&used)?;
    let mut known = known_defects(chosen, &preprocessing, progress, stop)?;
    let held_out_pictures = Pictures::read(&held_out, preprocessing, settings.seed, progress, stop, &mut |_| Ok(()))?;

    clock.start("features");
    let with_defects = !known.is_empty() || settings.synthetic;
    let invented = settings.invented_beside(known.len());
    if invented > 0 {
        progress.tell(&format!("{invented} pictures with invented defects beside the {} known", known.len()));
    }
    let copies = settings.turned_copies;
    let pictures =
        (normals.len() * (1 + copies), known.len() + if with_defects { settings.synthesised + invented } else { 0 });
    let (mut normal_bank, mut defect_bank) = empty_banks(&extractor, pictures, settings, writer.path(), progress)?;
    progress.phase("backbone features", normals.len() as u64);
    let normal_pictures = Pictures::read(&normals, preprocessing, settings.seed, progress, stop, &mut |batch| {
        extract(&mut extractor, &batch.iter().collect::<Vec<_>>(), &mut normal_bank, stop)?;
        let turned = turned_copies(batch, copies, proposal.stretch(settings.size), &mut rng);
        extract(&mut extractor, &turned.iter().collect::<Vec<_>>(), &mut normal_bank, stop)
    })?;
    extract(&mut extractor, &known.iter().map(|d| &d.picture).collect::<Vec<_>>(), &mut defect_bank, stop)?;
    // Flows that are trained already know features as they were standardised then.
    let statistics: Vec<_> = match &start {
        Some(start) => start.levels.iter().map(|level| level.statistics.clone()).collect(),
        None if settings.standardise => {
            normal_bank.levels.iter().map(|bank| bank.statistics(settings.whiten)).collect()
        }
        None => normal_bank.levels.iter().map(|bank| ChannelStatistics::identity(bank.channels)).collect(),
    };
    // The coarsest map's level as it is, not the one with context.
    let coarsest = extractor.levels().len() - 1;
    let coreset = (settings.coreset > 0)
        .then(|| {
            let (bank, source) = (&normal_bank.levels[coarsest], normal_bank.sources[coarsest]);
            Coreset::choose(bank, source, settings.coreset, &mut rng)
        })
        .transpose()?;
    normal_bank.standardise(&statistics);
    defect_bank.standardise(&statistics);

    clock.start("fit on normals");
    let flow_of = |level: usize| start.as_ref().map(|start| &start.levels[level].flow);
    let mut fits: Vec<LevelFit> =
        normal_bank.levels.iter().enumerate().map(|(i, bank)| LevelFit::new(i, bank, settings, flow_of(i))).collect();
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
    let mut contrast = None;
    if with_defects {
        clock.start("defects");
        let weak: Vec<usize> = (0..known.len()).filter(|&i| known[i].weak).collect();
        if !weak.is_empty() {
            let usual: Vec<_> = normal_pictures.kept().into_iter().take(USUAL_PICTURES).collect();
            let inputs: Vec<_> = normal_bank.sources.iter().copied().zip(statistics.iter().cloned()).collect();
            let usual = exact_features(&mut extractor, &usual, &inputs)?;
            let regions = find_regions(&mut fits, &usual, &defect_bank, &weak, settings.size)?;
            for (i, mask) in weak.into_iter().zip(regions) {
                known[i].mask = Some(mask);
            }
        }
        let mut made = synthesise(&known, &normal_pictures.kept(), settings.synthesised, &mut rng);
        made.extend(synthesise(&[], &normal_pictures.kept(), invented, &mut rng));
        extract(&mut extractor, &made.iter().map(|m| &m.0).collect::<Vec<_>>(), &mut defect_bank, stop)?;
        clock.start("fit on normals and defects");
        let levels = normal_bank.levels.iter().zip(defect_bank.levels.iter().zip(&defect_bank.sources));
        for (level, (fit, (bank, (defects, &source)))) in fits.iter_mut().zip(levels).enumerate() {
            let cells = defect_cells(defects, source.pooling, &known, &made);
            fit.run(usize::MAX, bank, Some(&cells), &mut observe)?;
            // What few known defects of any size have in common shows where the look is wide. A region that training had to
            // find itself is too often another one (magnetic_tile without masks: pixel AUROC 0.792, so 0.769).
            if settings.contrast && level > coarsest && !known.iter().any(|defect| defect.weak) {
                contrast = Contrast::fit(bank, &cells, source, &statistics[level], &mut rng)?;
            }
        }
    }
    let settings = &Settings { contrast: contrast.is_some(), ..settings.clone() };
    let beside = Beside { coreset: coreset.as_ref(), contrast: contrast.as_ref() };

    clock.start("export");
    let name = options.name.clone().unwrap_or_else(|| {
        options.data.file_name().map_or_else(|| "model".into(), |name| name.to_string_lossy().into_owned())
    });
    let version = finish::version(&fits, settings, &training_set_sha256, &backbone);
    let folded = finish::fold(&fits, beside, &normal_bank, &statistics);
    let levels = finish::level_shapes(&folded, settings);
    let outputs: Vec<String> = levels.iter().map(|level| level.output.clone()).collect();
    let metadata = [(METADATA_NAME.to_owned(), name.clone()), (METADATA_VERSION.to_owned(), version.clone())];
    let export = ModelExport {
        backbone: extractor.path(),
        spec: extractor.spec(),
        size: settings.size,
        flows: &folded,
        outputs: &outputs,
        metadata: &metadata,
    };
    let [model_file, processor_file] = [MODEL_FILE, PROCESSOR_MODEL_FILE].map(|name| writer.path().join(name));
    export.write(FlowForm::Standard, &model_file)?;
    export.write(FlowForm::Processor, &processor_file)?;
    let trained: Vec<TrainedLevel> = fits
        .iter()
        .zip(&normal_bank.sources)
        .zip(&statistics)
        .map(|((fit, &source), statistics)| TrainedLevel {
            source,
            statistics: statistics.clone(),
            flow: fit.flow.clone(),
        })
        .collect();
    let compares = coreset.iter().map(|coreset| (coreset.source, coreset.statistics.clone()));
    let contrasts = contrast.iter().map(|contrast| (contrast.source, contrast.statistics.clone()));
    let inputs = normal_bank.sources.iter().copied().zip(statistics).chain(compares).chain(contrasts);
    let inputs: Vec<_> = inputs.collect();
    drop(tiles);
    // The exported model needs memory, too; the features have done their part.
    drop((normal_bank, defect_bank));
    let flows_file = writer.path().join(FLOWS_FILE);
    write_flows(&flows_file, &trained, coreset.as_ref(), contrast.as_ref()).map_err(|source| BundleError::Io {
        path: flows_file,
        action: "write it",
        source,
    })?;
    let now: BTreeSet<&str> = normals.iter().map(|s| s.name.as_str()).collect();
    let mut manifest = Manifest {
        schema_version: BUNDLE_SCHEMA_VERSION,
        name,
        version,
        preprocessing,
        calibration: uncalibrated(levels.len(), settings),
        levels,
        provenance: Provenance {
            software: env!("CARGO_PKG_VERSION").into(),
            trained_at: jiff::Timestamp::now().to_string(),
            seed: settings.seed,
            threads: settings.threads,
            preset: settings.preset.as_str().into(),
            settings: serde_json::to_value(settings).unwrap_or_default(),
            backbone,
            training_set_sha256,
            training_images: normals.len(),
            known_defects: finish::used_defects(&known)?,
            normals: normals.iter().chain(&held_out).map(|s| s.name.clone()).collect(),
            started_from: start.as_ref().map(|start| start.identity.clone()),
            fitted_before: fitted.into_iter().filter(|name| !now.contains(name.as_str())).collect(),
            export_difference: 0.0,
            phases: Vec::new(),
            peak_memory_mib: 0.0,
        },
        files: std::collections::BTreeMap::new(),
    };
    let mut model = finish::load_exported(&processor_file, &manifest, settings.threads)?;

    clock.start("calibrate");
    progress.phase("calibrating", held_out.len() as u64);
    let maps = finish::score_all(&mut model, &held_out_pictures, progress)?;
    let compared = held_out_pictures.get(0..finish::COMPARED.min(held_out.len()))?;
    let compared: Vec<&Picture> = compared.iter().map(AsRef::as_ref).collect();
    let exact = exact_features(&mut extractor, &compared, &inputs)?;
    let difference = finish::compare(&mut fits, beside, &exact, &maps, &processor_file)?;
    let for_all = finish::load_exported(&model_file, &manifest, settings.threads)
        .and_then(|mut model| finish::score(&mut model, &compared))?;
    manifest.provenance.export_difference =
        finish::compare(&mut fits, beside, &exact, &for_all, &model_file)?.max(difference);
    let kept = normal_pictures.kept();
    // From all over the set: the first are often of one day or one part.
    let usual: Vec<&Picture> = kept.iter().copied().step_by(kept.len().div_ceil(USUAL_PICTURES).max(1)).collect();
    let defects: Vec<Picture> = if known.len() >= ENOUGH_DEFECTS {
        known.iter().map(|d| d.picture.clone()).collect()
    } else {
        invent(&usual, AREA_PICTURES, &mut rng)
    };
    let trial = Trial {
        normals: finish::score(&mut model, &usual)?,
        defects: finish::score(&mut model, &defects.iter().collect::<Vec<_>>())?,
    };
    let names: Vec<&String> = held_out.iter().map(|s| s.group.as_ref().unwrap_or(&s.name)).collect();
    let numbers: BTreeMap<&String, usize> = names.iter().zip(0..).map(|(&name, number)| (name, number)).collect();
    let groups: Vec<usize> = names.iter().map(|name| numbers[name]).collect();
    manifest.calibration = finish::learn_calibration(&maps, &groups, &trial, settings, progress);
    check(stop)?;
    manifest.provenance.phases = clock.finish();
    manifest.provenance.peak_memory_mib = peak_memory_mib();
    Ok(writer.commit(manifest)?)
}

/// What the levels look at, and the shapes of their flows.
fn shapes(extractor: &FeatureExtractor, settings: &Settings) -> Vec<(Source, FlowShape)> {
    let maps = extractor.levels();
    sources(maps.len(), settings)
        .into_iter()
        .enumerate()
        .map(|(level, source)| (source, FlowShape::of(maps[source.map].0, level, settings)))
        .collect()
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
