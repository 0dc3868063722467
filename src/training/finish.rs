//! From trained flows to a bundle: export, comparison, calibration.

use std::path::Path;

use super::TrainError;
use super::calibration::{Trial, calibrate};
use super::coreset::Coreset;
use super::features::{ChannelStatistics, FeatureBank};
use super::fit::LevelFit;
use super::flow::FoldedFlow;
use super::gather::Pictures;
use super::progress::Progress;
use super::settings::Settings;
use crate::bundle::{Bundle, Calibration, LevelShape, Manifest};
use crate::inspection::{LogLikelihoodMaps, ModelIdentity, Picture};
use crate::scoring::{Model, SessionOptions};

/// Largest difference allowed between the ONNX file and the trained flow, nats per dimension.
pub(super) const PARITY: f32 = 1e-3;
/// Log-likelihoods beyond are compared by their share of it: a cell like none of the normals' can have
/// thousands, of which f32 does not hold [`PARITY`].
const FAR: f32 = 10.0;
/// Pictures that the comparison looks at.
pub(super) const COMPARED: usize = 8;
/// Pictures scored in one run.
const BATCH: usize = 3;

/// Folds every level for its grid: the flows and what compares.
pub(super) fn fold(
    fits: &[LevelFit],
    coreset: Option<&Coreset>,
    bank: &FeatureBank,
    statistics: &[ChannelStatistics],
) -> Vec<FoldedFlow> {
    let grid = |level: usize| (bank.levels[level].rows, bank.levels[level].columns);
    let flows = fits.iter().zip(&bank.sources).zip(statistics).enumerate();
    let flows = flows.map(|(level, ((fit, &source), s))| FoldedFlow::fold(&fit.flow, grid(level), source, s));
    let at = |coreset: &Coreset| bank.sources.iter().position(|&source| source == coreset.source);
    let compares = coreset.and_then(|coreset| Some(coreset.fold(grid(at(coreset)?))));
    flows.chain(compares).collect()
}

/// The shapes of the model's outputs.
pub(super) fn level_shapes(folded: &[FoldedFlow], settings: &Settings) -> Vec<LevelShape> {
    folded
        .iter()
        .map(|level| {
            let stride = settings.size.height / level.rows;
            let output = match &level.nearest {
                Some(_) => format!("nearest_{stride}"),
                None if level.source.pooling == settings.pooling => format!("log_likelihood_{stride}"),
                None => format!("log_likelihood_{stride}_context"),
            };
            LevelShape { output, stride, rows: level.rows, columns: level.columns }
        })
        .collect()
}

/// An exported file in a session as the line would make it.
pub(super) fn load_exported(file: &Path, manifest: &Manifest, threads: usize) -> Result<Model, TrainError> {
    let bundle = Bundle {
        path: file.parent().unwrap_or(file).to_owned(),
        manifest: manifest.clone(),
        identity: ModelIdentity {
            name: manifest.name.clone(),
            version: manifest.version.clone(),
            sha256: String::new(),
        },
    };
    Ok(Model::load_file(file, &bundle, &SessionOptions::on_processor(threads))?)
}

/// Scores pictures with the exported model, as many in memory as one run takes.
pub(super) fn score_all(
    model: &mut Model,
    pictures: &Pictures<'_>,
    progress: &dyn Progress,
) -> Result<Vec<LogLikelihoodMaps>, TrainError> {
    let mut maps = Vec::with_capacity(pictures.len());
    while maps.len() < pictures.len() {
        let batch = pictures.get(maps.len()..(maps.len() + BATCH).min(pictures.len()))?;
        maps.extend(model.score(&batch.iter().map(AsRef::as_ref).collect::<Vec<_>>())?);
        progress.advance(maps.len() as u64, "");
    }
    Ok(maps)
}

/// Scores pictures with the exported model.
pub(super) fn score(model: &mut Model, pictures: &[&Picture]) -> Result<Vec<LogLikelihoodMaps>, TrainError> {
    let mut maps = Vec::with_capacity(pictures.len());
    for batch in pictures.chunks(BATCH) {
        maps.extend(model.score(batch)?);
    }
    Ok(maps)
}

/// Largest difference between the exported model's maps and what was trained, on the standardised
/// features of the same pictures, last those of the coreset where there is one (`[picture][level]`, single precision: what training rounded must
/// not pass for a difference of the export), nats per dimension, beyond [`FAR`] as a share of ten; an error
/// where it passes [`PARITY`].
pub(super) fn compare(
    fits: &mut [LevelFit],
    coreset: Option<&Coreset>,
    features: &[Vec<Vec<f32>>],
    maps: &[LogLikelihoodMaps],
    file: &Path,
) -> Result<f32, TrainError> {
    let mut largest = 0.0f32;
    for (features, maps) in features.iter().zip(maps) {
        let flows = fits.iter_mut().zip(features).map(|(fit, features)| fit.log_likelihood(features));
        let compares = coreset.zip(features.last()).map(|(coreset, features)| coreset.log_likelihood(features));
        for (trained, map) in flows.chain(compares).zip(&maps.levels) {
            for (trained, exported) in trained.into_iter().zip(map) {
                let difference = (trained - exported).abs() / (trained.abs() / FAR).max(1.0);
                // A difference that is not a number must not pass as small.
                largest = if difference.is_finite() { largest.max(difference) } else { f32::INFINITY };
            }
        }
    }
    if largest > PARITY {
        return Err(TrainError::Parity { path: file.to_owned(), difference: largest, limit: PARITY });
    }
    Ok(largest)
}

/// Learns the calibration with the exported model: what the line will see.
pub(super) fn learn_calibration(
    normals: &[LogLikelihoodMaps],
    groups: &[usize],
    trial: &Trial,
    settings: &Settings,
    progress: &dyn Progress,
) -> Calibration {
    let calibration = calibrate(normals, groups, trial, settings);
    for warning in &calibration.set.warnings {
        progress.warn(warning);
    }
    calibration
}
