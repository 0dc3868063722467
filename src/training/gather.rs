//! Pictures of the data set at model size, and their features.

use std::sync::atomic::{AtomicBool, Ordering};

use super::dataset::{Sample, load_picture};
use super::features::{FeatureBank, Source};
use super::fit::FitError;
use super::settings::Settings;
use super::{Progress, TrainError};
use crate::bundle::Preprocessing;
use crate::inspection::{Picture, Size};
use crate::scoring::{FeatureExtractor, PictureFitter};

/// Pictures per run of the backbone: enough to keep its threads busy, few enough for the cache.
const BATCH: usize = 4;

/// Loads samples and brings them to model size; gives the full sizes, too.
pub(super) fn load(
    samples: &[Sample],
    preprocessing: &Preprocessing,
    progress: &dyn Progress,
    stop: &AtomicBool,
) -> Result<Vec<(Picture, Size)>, TrainError> {
    let mut fitter = PictureFitter::new();
    let mut pictures = Vec::with_capacity(samples.len());
    for (i, sample) in samples.iter().enumerate() {
        check(stop)?;
        let full = load_picture(&sample.path)?;
        let fitted = fitter
            .fit(&full, preprocessing)
            .map_err(|source| TrainError::Picture { path: sample.path.clone(), source })?;
        pictures.push((fitted, full.size()));
        progress.advance(i as u64 + 1, &sample.name);
    }
    Ok(pictures)
}

/// Features of pictures of model size.
pub(super) fn extract<'a>(
    extractor: &mut FeatureExtractor,
    pictures: impl Iterator<Item = &'a Picture>,
    bank: &mut FeatureBank,
    progress: &dyn Progress,
    stop: &AtomicBool,
) -> Result<(), TrainError> {
    let pictures: Vec<&Picture> = pictures.collect();
    let mut done = 0;
    for batch in pictures.chunks(BATCH) {
        check(stop)?;
        for maps in extractor.extract(batch)? {
            bank.push(&maps);
        }
        done += batch.len() as u64;
        progress.advance(done, "");
    }
    Ok(())
}

/// An empty bank for an extractor at model size: a level for each of its maps and, where wanted, one
/// more on the coarsest map for context.
pub(super) fn empty_bank(extractor: &FeatureExtractor, settings: &Settings) -> FeatureBank {
    let size = settings.size;
    let maps: Vec<_> = extractor
        .levels()
        .iter()
        .map(|&(channels, stride)| (size.height / stride, size.width / stride, channels))
        .collect();
    let mut sources: Vec<_> = (0..maps.len()).map(|map| Source { map, pooling: settings.pooling }).collect();
    if settings.context > 0 {
        sources.push(Source { map: maps.len() - 1, pooling: settings.context });
    }
    FeatureBank::new(&maps, sources)
}

/// Fails when the user asked to stop.
pub(super) fn check(stop: &AtomicBool) -> Result<(), FitError> {
    if stop.load(Ordering::Relaxed) { Err(FitError::Interrupted) } else { Ok(()) }
}
