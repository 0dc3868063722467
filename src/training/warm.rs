//! The trained flows in a bundle, and the training that starts from them.
//!
//! `flows.bin`, all numbers little-endian: the 8 bytes `LGFLOWS` and 0; u32 version (3); u32 number of
//! levels; then per level u32 map, pooling, channels C, blocks B, hidden width and whether features are
//! whitened (0 or 1; version 1 had neither this nor the whitening), and f32 channel means `[C]`, channel
//! deviations `[C]`, the whitening `[C, C]` if there is one, parameters (see [`FlowShape::range`]) and
//! rotations `[B, C, C]`. Behind the levels (not in version 1) u32 V, the vectors of the coreset, and where
//! they are any u32 map, pooling, channels C and f32 channel means, deviations, the whitening `[C, C]` and
//! the vectors `[V, C]`. Then (not before version 3) u32 0, or 1 and of the contrast u32 map, pooling, channels C,
//! whether features are whitened and f32 channel means, deviations, the whitening `[C, C]` if there is one, the direction
//! `[C]` and the offset. Nothing follows. Its SHA-256 stands in the manifest as every file's does.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use ndarray::Array2;
use serde::Deserialize;

use super::contrast::Contrast;
use super::coreset::Coreset;
use super::features::{ChannelStatistics, Source};
use super::flow::{Flow, FlowShape};
use super::settings::Settings;
use crate::bundle::{Bundle, BundleError, FLOWS_FILE};
use crate::config::Orientation;

const MAGIC: &[u8; 8] = b"LGFLOWS\0";
const VERSION: u32 = 3;
/// Before known defects were contrasted with normals.
const WITHOUT_CONTRAST: u32 = 2;
/// Before features were whitened.
const UNWHITENED: u32 = 1;
/// Limits of a plausible file, so that a wrong one takes no memory.
const MAX_LEVELS: u32 = 64;
const MAX_WIDTH: u32 = 1 << 16;

/// Why a training cannot start from a bundle.
#[derive(Debug, thiserror::Error)]
pub enum WarmStartError {
    /// The bundle cannot be used at all.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// Its flows cannot be read.
    #[error("cannot read {}: a bundle of an older version has none; train afresh, without --from", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Cause.
        source: std::io::Error,
    },
    /// Its flows are not what they should be.
    #[error("{} holds no flows that this version reads: {problem}; train afresh, without --from", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// It does not fit what shall be trained.
    #[error("this training cannot start from the bundle {}:\n  {}\nor train afresh, without --from", path.display(), problems.join("\n  "))]
    Differs {
        /// The bundle.
        path: PathBuf,
        /// Everything that differs, and what to do.
        problems: Vec<String>,
    },
}

/// What training learned of one level.
#[derive(Debug, Clone, PartialEq)]
pub struct TrainedLevel {
    /// What it looks at.
    pub source: Source,
    /// What features are standardised with.
    pub statistics: ChannelStatistics,
    /// The flow.
    pub flow: Flow,
}

/// What a training starts from.
#[derive(Debug)]
pub(super) struct WarmStart {
    pub(super) levels: Vec<TrainedLevel>,
    /// Name and version of the bundle.
    pub(super) identity: String,
    /// Normals that its flows were fitted on, by name: they cannot calibrate any more.
    pub(super) fitted: BTreeSet<String>,
    bundle: Bundle,
}

impl WarmStart {
    /// Reads and verifies a bundle with its flows.
    pub(super) fn open(path: &Path) -> Result<Self, WarmStartError> {
        let bundle = Bundle::open(path)?;
        let provenance = &bundle.manifest.provenance;
        let TrainedLevels { levels, .. } = read_flows(&bundle.path.join(FLOWS_FILE))?;
        Ok(Self {
            levels,
            identity: format!("{} {}", bundle.identity.name, bundle.identity.version),
            // The manifest names the fitted ones first, then those that calibrated.
            fitted: provenance
                .normals
                .iter()
                .take(provenance.training_images)
                .chain(&provenance.fitted_before)
                .cloned()
                .collect(),
            bundle,
        })
    }

    /// How the parts lie that its flows were fitted on.
    pub(super) fn orientation(&self) -> Orientation {
        let settings = &self.bundle.manifest.provenance.settings;
        let said = settings.get("orientation").and_then(|said| Orientation::deserialize(said).ok());
        said.filter(|&said| said != Orientation::Auto).unwrap_or_default()
    }

    /// Fails with everything in which the bundle differs from what shall be trained: `backbone` is
    /// its name and digest as in the manifest, `wanted` the levels.
    pub(super) fn check(
        &self,
        backbone: &str,
        wanted: &[(Source, FlowShape)],
        settings: &Settings,
    ) -> Result<(), WarmStartError> {
        let manifest = &self.bundle.manifest;
        let mut problems = Vec::new();
        if manifest.provenance.backbone != backbone {
            let was = &manifest.provenance.backbone;
            problems.push(format!("its backbone is {was}, here it is {backbone}: give --backbone the same file"));
        }
        let (was, size) = (manifest.preprocessing.size, settings.size);
        if was != size {
            problems.push(format!("its model size is {was}, here it is {size}: give --image-size {was}"));
        }
        let (was, region) = (manifest.preprocessing.region_of_interest, settings.region_of_interest);
        if was != region {
            let text = |region: Option<crate::inspection::Rectangle>| match region {
                Some(r) => format!("{},{},{},{}", r.x, r.y, r.width, r.height),
                None => "the whole picture".to_owned(),
            };
            problems.push(format!(
                "its region of interest is {}, here it is {}: give the same --region",
                text(was),
                text(region)
            ));
        }
        let sources = |sources: &mut dyn Iterator<Item = Source>| {
            sources.map(|it| format!("map {} over {1}x{1}", it.map, it.pooling)).collect::<Vec<_>>().join(", ")
        };
        let was = sources(&mut self.levels.iter().map(|level| level.source));
        let here = sources(&mut wanted.iter().map(|(source, _)| *source));
        if was == here {
            for (number, (level, (_, shape))) in self.levels.iter().zip(wanted).enumerate() {
                let text =
                    |s: &FlowShape| format!("{} channels, blocks {}, hidden_width {}", s.channels, s.blocks, s.hidden);
                if level.flow.shape != *shape {
                    let (was, here) = (text(&level.flow.shape), text(shape));
                    problems.push(format!("its level {number} has {was}, here it has {here}: give the same --config"));
                }
            }
        } else {
            problems.push(format!("its levels are {was}; here they are {here}: give the same `preset` and `pooling`"));
        }
        if problems.is_empty() {
            return Ok(());
        }
        Err(WarmStartError::Differs { path: self.bundle.path.clone(), problems })
    }
}

/// What `flows.bin` holds.
#[derive(Debug, Clone, PartialEq)]
pub struct TrainedLevels {
    /// The flows, finest first.
    pub levels: Vec<TrainedLevel>,
    /// What compares, where something does.
    pub coreset: Option<Coreset>,
    /// What contrasts, where something does.
    pub contrast: Option<Contrast>,
}

/// Writes `flows.bin`.
///
/// # Errors
/// The file cannot be written.
pub fn write_flows(
    path: &Path,
    levels: &[TrainedLevel],
    coreset: Option<&Coreset>,
    contrast: Option<&Contrast>,
) -> std::io::Result<()> {
    let mut bytes = MAGIC.to_vec();
    let word = |value: usize| u32::try_from(value).unwrap_or(u32::MAX).to_le_bytes();
    bytes.extend(VERSION.to_le_bytes());
    bytes.extend(word(levels.len()));
    for TrainedLevel { source, statistics, flow } in levels {
        let (shape, whitened) = (flow.shape, usize::from(statistics.whitening.is_some()));
        for value in [source.map, source.pooling, shape.channels, shape.blocks, shape.hidden, whitened] {
            bytes.extend(word(value));
        }
        let parts = statistics.mean.iter().chain(&statistics.deviation).chain(statistics.whitening.iter().flatten());
        let values = parts.chain(&flow.parameters).chain(flow.rotations.iter().flatten());
        bytes.extend(values.flat_map(|v| v.to_le_bytes()));
    }
    bytes.extend(word(coreset.map_or(0, |coreset| coreset.vectors.nrows())));
    if let Some(Coreset { source, statistics, vectors }) = coreset {
        for value in [source.map, source.pooling, vectors.ncols()] {
            bytes.extend(word(value));
        }
        let parts = statistics.mean.iter().chain(&statistics.deviation);
        let values = parts.chain(statistics.whitening.iter().flatten()).chain(vectors);
        bytes.extend(values.flat_map(|v| v.to_le_bytes()));
    }
    bytes.extend(word(usize::from(contrast.is_some())));
    if let Some(Contrast { source, statistics, direction, offset }) = contrast {
        let whitened = usize::from(statistics.whitening.is_some());
        for value in [source.map, source.pooling, direction.len(), whitened] {
            bytes.extend(word(value));
        }
        let parts = statistics.mean.iter().chain(&statistics.deviation).chain(statistics.whitening.iter().flatten());
        bytes.extend(parts.chain(direction).chain([offset]).flat_map(|v| v.to_le_bytes()));
    }
    fs::write(path, bytes)
}

/// Reads `flows.bin`.
///
/// # Errors
/// [`WarmStartError`] when it cannot be read or is not what [`write_flows`] wrote.
pub fn read_flows(path: &Path) -> Result<TrainedLevels, WarmStartError> {
    let bytes = fs::read(path).map_err(|source| WarmStartError::Unreadable { path: path.to_owned(), source })?;
    parse(&bytes).map_err(|problem| WarmStartError::Format { path: path.to_owned(), problem })
}

fn parse(bytes: &[u8]) -> Result<TrainedLevels, String> {
    let mut rest = bytes.strip_prefix(MAGIC).ok_or("it does not begin with LGFLOWS")?;
    let version = word(&mut rest)?;
    if !(UNWHITENED..=VERSION).contains(&version) {
        return Err(format!("its version is {version}, this program reads {UNWHITENED} to {VERSION}"));
    }
    let count = word(&mut rest)?;
    if !(1..=MAX_LEVELS).contains(&count) {
        return Err(format!("it names {count} levels, 1 to {MAX_LEVELS} are plausible"));
    }
    let mut levels = Vec::new();
    for number in 0..count {
        let mut size = || word(&mut rest);
        let [map, pooling, channels, blocks, hidden] = [size()?, size()?, size()?, size()?, size()?];
        if [channels, blocks, hidden].iter().any(|v| !(1..=MAX_WIDTH).contains(v)) || channels < 2 {
            return Err(format!("level {number} has {channels} channels, {blocks} blocks, hidden width {hidden}"));
        }
        let shape = FlowShape { channels: channels as usize, blocks: blocks as usize, hidden: hidden as usize };
        let whitened = match if version == UNWHITENED { 0 } else { word(&mut rest)? } {
            whitened @ (0 | 1) => whitened == 1,
            other => return Err(format!("level {number} is whitened {other} times")),
        };
        let (mean, deviation) = (numbers(&mut rest, shape.channels)?, numbers(&mut rest, shape.channels)?);
        let square = [shape.channels; 2];
        let whitening = whitened.then(|| matrix(&mut rest, square)).transpose()?;
        let statistics = ChannelStatistics { mean, deviation, whitening };
        if statistics.deviation.iter().any(|&v| v <= 0.0) {
            return Err(format!("level {number} has a channel without deviation"));
        }
        let parameters = numbers(&mut rest, shape.parameter_count())?;
        let square = shape.channels * shape.channels;
        let rotations = (0..shape.blocks).map(|_| numbers(&mut rest, square)).collect::<Result<_, _>>()?;
        levels.push(TrainedLevel {
            source: Source { map: map as usize, pooling: pooling as usize },
            statistics,
            flow: Flow { shape, parameters, rotations },
        });
    }
    let vectors = if version == UNWHITENED { 0 } else { word(&mut rest)? as usize };
    let coreset = (vectors > 0).then(|| parse_coreset(vectors, &mut rest)).transpose()?;
    let contrast = match if version <= WITHOUT_CONTRAST { 0 } else { word(&mut rest)? } {
        0 => None,
        1 => Some(parse_contrast(&mut rest)?),
        other => return Err(format!("it has {other} contrasts")),
    };
    if rest.is_empty() {
        Ok(TrainedLevels { levels, coreset, contrast })
    } else {
        Err(format!("{} bytes are left over", rest.len()))
    }
}

fn parse_contrast(rest: &mut &[u8]) -> Result<Contrast, String> {
    let [map, pooling, channels, whitened] = [word(rest)?, word(rest)?, word(rest)?, word(rest)?].map(|w| w as usize);
    if !(1..=MAX_WIDTH as usize).contains(&channels) || whitened > 1 {
        return Err(format!("the contrast has {channels} channels, whitened {whitened} times"));
    }
    let (mean, deviation) = (numbers(rest, channels)?, numbers(rest, channels)?);
    let whitening = (whitened == 1).then(|| matrix(rest, [channels; 2])).transpose()?;
    let (direction, offset) = (numbers(rest, channels)?, numbers(rest, 1)?[0]);
    let statistics = ChannelStatistics { mean, deviation, whitening };
    if statistics.deviation.iter().any(|&v| v <= 0.0) {
        return Err("the contrast has a channel without deviation".into());
    }
    Ok(Contrast { source: Source { map, pooling }, statistics, direction, offset })
}

fn parse_coreset(vectors: usize, rest: &mut &[u8]) -> Result<Coreset, String> {
    let [map, pooling, channels] = [word(rest)?, word(rest)?, word(rest)?].map(|word| word as usize);
    if !(1..=MAX_WIDTH as usize).contains(&channels) {
        return Err(format!("the coreset has {channels} channels"));
    }
    let (mean, deviation) = (numbers(rest, channels)?, numbers(rest, channels)?);
    let whitening = Some(matrix(rest, [channels; 2])?);
    let statistics = ChannelStatistics { mean, deviation, whitening };
    Ok(Coreset { source: Source { map, pooling }, statistics, vectors: matrix(rest, [vectors, channels])? })
}

/// A matrix of finite numbers.
fn matrix(rest: &mut &[u8], shape: [usize; 2]) -> Result<Array2<f32>, String> {
    let values = numbers(rest, shape[0].saturating_mul(shape[1]))?;
    Array2::from_shape_vec(shape, values).map_err(|error| error.to_string())
}

fn word(rest: &mut &[u8]) -> Result<u32, String> {
    let (word, after) = rest.split_first_chunk().ok_or("it ends early")?;
    *rest = after;
    Ok(u32::from_le_bytes(*word))
}

/// So many finite numbers.
fn numbers(rest: &mut &[u8], count: usize) -> Result<Vec<f32>, String> {
    let (part, after) = rest.split_at_checked(count.saturating_mul(4)).ok_or("it ends early")?;
    *rest = after;
    let (words, _) = part.as_chunks();
    let values: Vec<f32> = words.iter().map(|word| f32::from_le_bytes(*word)).collect();
    if values.iter().all(|v| v.is_finite()) { Ok(values) } else { Err("a value is not a number".into()) }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    #[test]
    fn flows_come_back_to_the_bit_and_a_torn_file_is_refused_without_a_panic() {
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(2);
        let levels = [(4, 0, true), (7, 1, false)].map(|(channels, map, whitened)| TrainedLevel {
            source: Source { map, pooling: 3 },
            statistics: ChannelStatistics {
                mean: vec![0.5; channels],
                deviation: vec![2.0; channels],
                whitening: whitened.then(|| Array2::from_shape_fn([channels; 2], |(i, j)| (i * 10 + j) as f32)),
            },
            flow: Flow::new(FlowShape { channels, blocks: 2, hidden: 5 }, None, &mut rng),
        });
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(FLOWS_FILE);
        let statistics = levels[0].statistics.clone();
        let vectors = Array2::from_shape_fn([5, 4], |(i, j)| (i * 3 + j) as f32);
        let coreset = Some(Coreset { source: Source { map: 1, pooling: 3 }, statistics, vectors });
        let contrast =
            [None, Some(levels[0].statistics.clone()), Some(levels[1].statistics.clone())].map(|statistics| {
                let source = Source { map: 2, pooling: 9 };
                statistics.map(|statistics| {
                    let direction = (0..statistics.mean.len()).map(|c| c as f32 - 1.5).collect();
                    Contrast { source, statistics, direction, offset: -0.25 }
                })
            });
        for contrast in contrast {
            write_flows(&path, &levels, coreset.as_ref(), contrast.as_ref()).unwrap();
            let written = TrainedLevels { levels: levels.to_vec(), coreset: coreset.clone(), contrast };
            assert_eq!(read_flows(&path).unwrap(), written);
        }
        let bytes = fs::read(&path).unwrap();
        for end in (0..bytes.len()).step_by(97) {
            assert!(parse(&bytes[..end]).is_err());
        }
        assert!(parse(&[&bytes[..], &[0]].concat()).unwrap_err().contains("left over"));
        let mut other = bytes.clone();
        other[8] = 9;
        assert!(parse(&other).unwrap_err().contains("version is 9"));
        other.splice(8..36, [2, 0, 0, 0, 1, 0, 0, 0].into_iter().chain([255; 20]));
        assert!(parse(&other).is_err());
    }

    #[test]
    fn flows_of_the_version_before_whitening_are_read() {
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(3);
        let level = TrainedLevel {
            source: Source { map: 0, pooling: 3 },
            statistics: ChannelStatistics { mean: vec![0.5; 4], deviation: vec![2.0; 4], whitening: None },
            flow: Flow::new(FlowShape { channels: 4, blocks: 2, hidden: 5 }, None, &mut rng),
        };
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(FLOWS_FILE);
        write_flows(&path, std::slice::from_ref(&level), None, None).unwrap();
        let mut bytes = fs::read(&path).unwrap();
        bytes[8] = UNWHITENED as u8;
        // Magic, version, number of levels, five sizes of the level; then what the old version had not.
        bytes.drain(36..40);
        // And at the end how many vectors a coreset has, and that there is no contrast.
        bytes.truncate(bytes.len() - 8);
        assert_eq!(parse(&bytes).unwrap(), TrainedLevels { levels: vec![level], coreset: None, contrast: None });
    }
}
