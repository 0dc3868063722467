//! From trained flows to a bundle: export, comparison, calibration.

use std::path::Path;

use super::TrainError;
use super::calibration::{Trial, calibrate};
use super::contrast::Contrast;
use super::coreset::Coreset;
use super::defects::KnownDefect;
use super::features::{ChannelStatistics, FeatureBank, Source};
use super::fit::LevelFit;
use super::flow::{Flow, FoldedFlow};
use super::gather::Pictures;
use super::progress::Progress;
use super::settings::Settings;
use crate::bundle::{Bundle, Calibration, LevelShape, Manifest, UsedDefect, sha256_hex};
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

/// Levels beside the flows, behind them in this order.
#[derive(Debug, Clone, Copy)]
pub(super) struct Beside<'a> {
    /// Compares with vectors of normals.
    pub coreset: Option<&'a Coreset>,
    /// Contrasts known defects with normals.
    pub contrast: Option<&'a Contrast>,
}

/// Folds every level for its grid.
pub(super) fn fold(
    fits: &[LevelFit],
    beside: Beside<'_>,
    bank: &FeatureBank,
    statistics: &[ChannelStatistics],
) -> Vec<FoldedFlow> {
    let grid = |level: usize| (bank.levels[level].rows, bank.levels[level].columns);
    let flows = fits.iter().zip(&bank.sources).zip(statistics).enumerate();
    let flows = flows.map(|(level, ((fit, &source), s))| FoldedFlow::fold(&fit.flow, grid(level), source, s));
    let at = |it: Source| bank.sources.iter().position(|&source| source == it);
    let compares = beside.coreset.and_then(|coreset| Some(coreset.fold(grid(at(coreset.source)?))));
    let contrasts = beside.contrast.and_then(|contrast| Some(contrast.fold(grid(at(contrast.source)?))));
    flows.chain(compares).chain(contrasts).collect()
}

/// The shapes of the model's outputs.
pub(super) fn level_shapes(folded: &[FoldedFlow], settings: &Settings) -> Vec<LevelShape> {
    folded
        .iter()
        .map(|level| {
            let stride = settings.size.height / level.rows;
            let output = match &level.nearest {
                Some(_) => format!("nearest_{stride}"),
                None if level.contrast.is_some() => format!("contrast_{stride}"),
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
/// features of the same pictures, those of the levels beside the flows behind them (`[picture][level]`, single precision:
/// what training rounded must not pass for a difference of the export), nats per dimension, beyond [`FAR`] as a share
/// of ten; an error where it passes [`PARITY`].
pub(super) fn compare(
    fits: &mut [LevelFit],
    beside: Beside<'_>,
    features: &[Vec<Vec<f32>>],
    maps: &[LogLikelihoodMaps],
    file: &Path,
) -> Result<f32, TrainError> {
    let mut largest = 0.0f32;
    for (features, maps) in features.iter().zip(maps) {
        let mut rest = features.iter();
        let mut trained: Vec<Vec<f32>> = fits.iter_mut().zip(&mut rest).map(|(fit, f)| fit.log_likelihood(f)).collect();
        trained.extend(beside.coreset.and_then(|coreset| Some(coreset.log_likelihood(rest.next()?))));
        trained.extend(beside.contrast.and_then(|contrast| Some(contrast.log_likelihood(rest.next()?))));
        for (trained, map) in trained.into_iter().zip(&maps.levels) {
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

/// The known defects as the manifest names them.
pub(super) fn used_defects(known: &[KnownDefect]) -> Result<Vec<UsedDefect>, TrainError> {
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
pub(super) fn version(fits: &[LevelFit], settings: &Settings, training_set: &str, backbone: &str) -> String {
    let mut bytes: Vec<u8> = fits
        .iter()
        .flat_map(|fit: &LevelFit| {
            let flow: &Flow = &fit.flow;
            flow.parameters.iter().chain(flow.rotations.iter().flatten()).flat_map(|v| v.to_le_bytes())
        })
        .collect();
    bytes.extend_from_slice(serde_json::to_string(settings).unwrap_or_default().as_bytes());
    bytes.extend_from_slice(training_set.as_bytes());
    bytes.extend_from_slice(backbone.as_bytes());
    sha256_hex(&bytes)[..12].to_owned()
}
