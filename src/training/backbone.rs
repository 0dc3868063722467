//! The backbone as training wants it: on other numbers, through tiles, or as it is.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use super::dataset::Sample;
use super::export::{Tiling, ValueRange, halve_backbone, observe_backbone, quantise_backbone, tile_backbone};
use super::gather::{check, load};
use super::settings::Settings;
use super::{Progress, TrainError};
use crate::bundle::Preprocessing;
use crate::config::Numbers;
use crate::inspection::Size;
use crate::scoring::{BackboneSpec, FeatureExtractor, PictureFitter, SessionOptions};

/// Pictures that ranges of values are taken from at most.
const OBSERVED: usize = 32;
/// By how much they are widened: the line will see what training has not.
const WIDENED: f32 = 1.25;

/// Opens the backbone for pictures of the model's size; where other numbers or tiles are wanted, one made from
/// it that works on those or sees the pictures through tiles, which stands in `folder`. `samples` show
/// what values occur.
pub(super) fn open_backbone(
    backbone: &Path,
    settings: &Settings,
    samples: &[&Sample],
    folder: &Path,
    progress: &dyn Progress,
    stop: &AtomicBool,
) -> Result<FeatureExtractor, TrainError> {
    let session = SessionOptions::on_processor(settings.threads);
    let Settings { size, tile, .. } = *settings;
    let along = |length: usize| if tile == 0 { length } else { tile.min(length) };
    let seen = Size { width: along(size.width), height: along(size.height) };
    let other = match settings.numbers {
        Numbers::F32 => None,
        Numbers::F16 => {
            let halved = folder.join("backbone_f16.onnx");
            halve_backbone(backbone, &BackboneSpec::beside(backbone)?, seen, &halved)?;
            progress.tell("backbone on 16-bit floats");
            Some(halved)
        }
        Numbers::Int8 => {
            let preprocessing = Preprocessing { size: seen, region_of_interest: settings.region_of_interest };
            let ranges = values_of(backbone, preprocessing, samples, &session, folder, stop)?;
            let quantised = folder.join("backbone_int8.onnx");
            quantise_backbone(backbone, &BackboneSpec::beside(backbone)?, seen, &ranges, &quantised)?;
            progress.tell(&format!("backbone on 8-bit integers, {} ranges", ranges.len()));
            Some(quantised)
        }
    };
    let backbone = other.as_deref().unwrap_or(backbone);
    if tile == 0 {
        return Ok(FeatureExtractor::load(backbone, size, &session)?);
    }
    let extractor = FeatureExtractor::load(backbone, seen, &session)?;
    let strides: Vec<usize> = extractor.levels().iter().map(|&(_, stride)| stride).collect();
    let coarsest = strides.iter().copied().max().unwrap_or(1);
    let tiling = Tiling::new(size, tile, coarsest).map_err(|problem| TrainError::Settings(vec![problem]))?;
    if tiling.tiles() == 1 {
        return Ok(extractor);
    }
    progress.tell(&format!(
        "{} tiles of {seen} a picture, {:.2} times the backbone's work on {size} whole",
        tiling.tiles(),
        tiling.overhead()
    ));
    let tiled = folder.join("backbone.onnx");
    tile_backbone(backbone, extractor.spec(), &strides, &tiling, &tiled)?;
    Ok(FeatureExtractor::load(&tiled, size, &session)?)
}

/// What values go in and out of a backbone's convolutions, by an even choice of the samples.
fn values_of(
    backbone: &Path,
    preprocessing: Preprocessing,
    samples: &[&Sample],
    session: &SessionOptions,
    folder: &Path,
    stop: &AtomicBool,
) -> Result<BTreeMap<String, ValueRange>, TrainError> {
    let observing = folder.join("observing.onnx");
    let spec = BackboneSpec::beside(backbone)?;
    let tensors = observe_backbone(backbone, &spec, preprocessing.size, &observing)?;
    let mut extractor = FeatureExtractor::load(&observing, preprocessing.size, session)?;
    let mut fitter = PictureFitter::new();
    let mut ranges = vec![ValueRange { low: 0.0, high: 0.0 }; tensors.len()];
    for sample in samples.iter().step_by(samples.len().div_ceil(OBSERVED).max(1)) {
        check(stop)?;
        let (picture, _) = load(sample, &preprocessing, &mut fitter)?;
        for maps in extractor.extract(&[&picture])? {
            for (at, range) in ranges.iter_mut().enumerate() {
                range.high = range.high.max(maps[0][[0, 0, 2 * at]] * WIDENED);
                range.low = range.low.min(maps[0][[0, 0, 2 * at + 1]] * WIDENED);
            }
        }
    }
    Ok(tensors.into_iter().zip(ranges).collect())
}
