//! Pictures of the data set at model size, and their features.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use super::dataset::{Sample, load_mask, load_picture};
use super::defects::KnownDefect;
use super::features::{ChannelStatistics, FeatureBank, Keeping, Source, picture_bytes, pooled};
use super::fit::FitError;
use super::settings::Settings;
use super::{Progress, TrainError};
use crate::bundle::Preprocessing;
use crate::inspection::{Picture, Size};
use crate::scoring::{FeatureExtractor, PictureFitter};

/// Pictures per run of the backbone: enough to keep its threads busy, few enough for the cache.
const BATCH: usize = 4;
/// Pictures of one kind that stay in memory: enough variety to paste defects into.
const KEPT: usize = 512;

/// Pictures of model size, of which memory holds at most [`KEPT`], a random sample.
#[derive(Debug)]
pub(super) struct Pictures<'a> {
    samples: &'a [Sample],
    preprocessing: Preprocessing,
    kept: BTreeMap<usize, Picture>,
}

impl<'a> Pictures<'a> {
    /// Reads every picture once, hands them on in small batches, and keeps the sample. So a picture
    /// that cannot be read is found before the hours of the fit.
    pub(super) fn read(
        samples: &'a [Sample],
        preprocessing: Preprocessing,
        seed: u64,
        progress: &dyn Progress,
        stop: &AtomicBool,
        each: &mut dyn FnMut(&[Picture]) -> Result<(), TrainError>,
    ) -> Result<Self, TrainError> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut keep = vec![false; samples.len()];
        for i in rand::seq::index::sample(&mut rng, samples.len(), samples.len().min(KEPT)) {
            keep[i] = true;
        }
        let mut pictures = Self { samples, preprocessing, kept: BTreeMap::new() };
        let mut fitter = PictureFitter::new();
        for start in (0..samples.len()).step_by(BATCH) {
            check(stop)?;
            let numbers = start..(start + BATCH).min(samples.len());
            let batch: Vec<Picture> = numbers
                .clone()
                .map(|i| Ok(load(&samples[i], &preprocessing, &mut fitter)?.0))
                .collect::<Result<_, TrainError>>()?;
            each(&batch)?;
            progress.advance(numbers.end as u64, &samples[numbers.end - 1].name);
            pictures.kept.extend(numbers.zip(batch).filter(|(i, _)| keep[*i]));
        }
        Ok(pictures)
    }

    /// How many there are, in memory or not.
    pub(super) fn len(&self) -> usize {
        self.samples.len()
    }

    /// Those that are in memory.
    pub(super) fn kept(&self) -> Vec<&Picture> {
        self.kept.values().collect()
    }

    /// Some by their numbers; what is not in memory is read again.
    pub(super) fn get(&self, numbers: Range<usize>) -> Result<Vec<Cow<'_, Picture>>, TrainError> {
        let mut fitter = PictureFitter::new();
        numbers
            .map(|i| match self.kept.get(&i) {
                Some(picture) => Ok(Cow::Borrowed(picture)),
                None => Ok(Cow::Owned(load(&self.samples[i], &self.preprocessing, &mut fitter)?.0)),
            })
            .collect()
    }
}

/// A picture brought to model size, and its full size.
pub(super) fn load(
    sample: &Sample,
    preprocessing: &Preprocessing,
    fitter: &mut PictureFitter,
) -> Result<(Picture, Size), TrainError> {
    let full = load_picture(&sample.path)?;
    let fitted =
        fitter.fit(&full, preprocessing).map_err(|source| TrainError::Picture { path: sample.path.clone(), source })?;
    Ok((fitted, full.size()))
}

/// Known defects with their masks; all stay in memory.
pub(super) fn known_defects(
    samples: Vec<Sample>,
    preprocessing: &Preprocessing,
    progress: &dyn Progress,
    stop: &AtomicBool,
) -> Result<Vec<KnownDefect>, TrainError> {
    let mut fitter = PictureFitter::new();
    let mut known = Vec::with_capacity(samples.len());
    for sample in samples {
        check(stop)?;
        let (picture, full) = load(&sample, preprocessing, &mut fitter)?;
        let mask = match &sample.mask {
            Some(path) => Some(load_mask(path, full)?.fit(preprocessing.region_of_interest, preprocessing.size)),
            None => None,
        };
        progress.advance(known.len() as u64 + 1, &sample.name);
        known.push(KnownDefect { weak: mask.is_none(), sample, picture, mask });
    }
    Ok(known)
}

/// Adds the features of pictures of model size to a bank.
pub(super) fn extract(
    extractor: &mut FeatureExtractor,
    pictures: &[&Picture],
    bank: &mut FeatureBank,
    stop: &AtomicBool,
) -> Result<(), TrainError> {
    for batch in pictures.chunks(BATCH) {
        check(stop)?;
        for maps in extractor.extract(batch)? {
            bank.push(&maps)?;
        }
    }
    Ok(())
}

/// Features of a few pictures in single precision, `[picture][input]`, each `[cell, C]`: of every source, by its
/// statistics.
pub(super) fn exact_features(
    extractor: &mut FeatureExtractor,
    pictures: &[&Picture],
    inputs: &[(Source, ChannelStatistics)],
) -> Result<Vec<Vec<Vec<f32>>>, TrainError> {
    let mut features = Vec::with_capacity(pictures.len());
    for batch in pictures.chunks(BATCH) {
        features.extend(extractor.extract(batch)?.iter().map(|maps| {
            let input = |(source, statistics): &(Source, ChannelStatistics)| {
                let mut values = pooled(&maps[source.map], source.pooling);
                statistics.apply(&mut values);
                values
            };
            inputs.iter().map(input).collect::<Vec<_>>()
        }));
    }
    Ok(features)
}

/// Rows, columns and channels of an extractor's maps at model size.
pub(super) fn maps(extractor: &FeatureExtractor) -> Vec<(usize, usize, usize)> {
    let size = extractor.size();
    let map = |&(channels, stride): &(usize, usize)| (size.height / stride, size.width / stride, channels);
    extractor.levels().iter().map(map).collect()
}

/// What the levels look at: each of `maps` maps and, where wanted, the coarsest once more for context.
pub(super) fn sources(maps: usize, settings: &Settings) -> Vec<Source> {
    let mut sources: Vec<_> = (0..maps).map(|map| Source { map, pooling: settings.pooling }).collect();
    if settings.context > 0 {
        sources.push(Source { map: maps - 1, pooling: settings.context });
    }
    sources
}

/// Empty banks for so many normals and defect pictures (known and made), within the budget for both.
pub(super) fn empty_banks(
    extractor: &FeatureExtractor,
    (normals, defects): (usize, usize),
    settings: &Settings,
    folder: &Path,
    progress: &dyn Progress,
) -> Result<(FeatureBank, FeatureBank), TrainError> {
    let maps = maps(extractor);
    let sources = sources(maps.len(), settings);
    let budget = settings.feature_budget_mib << 20;
    let each = picture_bytes(&maps, &sources);
    // Which cells of a defect picture matter is known only once its region is: those stay whole.
    let rest = budget.saturating_sub(each * defects as u64).max(budget / 2);
    let needed = each * normals as u64;
    if needed > rest {
        progress.warn(&format!(
            "the features of {normals} normals take {} MiB and feature_budget_mib ({}) leaves {} MiB for them: {:.1} % of the cells of every picture are kept, drawn evenly; raise feature_budget_mib to learn from all",
            needed >> 20,
            settings.feature_budget_mib,
            rest >> 20,
            100.0 * rest as f64 / needed as f64,
        ));
    }
    let keeping = Keeping { pictures: normals, budget: rest, folder, seed: settings.seed };
    let normals = FeatureBank::new(&maps, sources.clone(), &keeping)?;
    let keeping = Keeping { pictures: defects, budget: u64::MAX, ..keeping };
    Ok((normals, FeatureBank::new(&maps, sources, &keeping)?))
}

/// Fails when the user asked to stop.
pub(super) fn check(stop: &AtomicBool) -> Result<(), FitError> {
    if stop.load(Ordering::Relaxed) { Err(FitError::Interrupted) } else { Ok(()) }
}
