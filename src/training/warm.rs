//! The trained flows in a bundle, and the training that starts from them.
//!
//! `flows.bin`, all numbers little-endian: the 8 bytes `LGFLOWS` and 0; u32 version (1); u32 number of
//! levels; then per level u32 map, pooling, channels C, blocks B and hidden width, and f32 channel
//! means `[C]`, channel deviations `[C]`, parameters (see [`FlowShape::range`]) and rotations
//! `[B, C, C]`. Nothing follows. Its SHA-256 stands in the manifest as every file's does.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::features::{ChannelStatistics, Source};
use super::flow::{Flow, FlowShape};
use super::settings::Settings;
use crate::bundle::{Bundle, BundleError, FLOWS_FILE};
use crate::config::Orientation;

const MAGIC: &[u8; 8] = b"LGFLOWS\0";
const VERSION: u32 = 1;
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
        let levels = read_flows(&bundle.path.join(FLOWS_FILE))?;
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

/// Writes `flows.bin`.
///
/// # Errors
/// The file cannot be written.
pub fn write_flows(path: &Path, levels: &[TrainedLevel]) -> std::io::Result<()> {
    let mut bytes = MAGIC.to_vec();
    let word = |value: usize| u32::try_from(value).unwrap_or(u32::MAX).to_le_bytes();
    bytes.extend(VERSION.to_le_bytes());
    bytes.extend(word(levels.len()));
    for TrainedLevel { source, statistics, flow } in levels {
        for value in [source.map, source.pooling, flow.shape.channels, flow.shape.blocks, flow.shape.hidden] {
            bytes.extend(word(value));
        }
        let parts = [&statistics.mean, &statistics.deviation, &flow.parameters];
        for part in parts.into_iter().chain(&flow.rotations) {
            bytes.extend(part.iter().flat_map(|v| v.to_le_bytes()));
        }
    }
    fs::write(path, bytes)
}

/// Reads `flows.bin`.
///
/// # Errors
/// [`WarmStartError`] when it cannot be read or is not what [`write_flows`] wrote.
pub fn read_flows(path: &Path) -> Result<Vec<TrainedLevel>, WarmStartError> {
    let bytes = fs::read(path).map_err(|source| WarmStartError::Unreadable { path: path.to_owned(), source })?;
    parse(&bytes).map_err(|problem| WarmStartError::Format { path: path.to_owned(), problem })
}

fn parse(bytes: &[u8]) -> Result<Vec<TrainedLevel>, String> {
    let mut rest = bytes.strip_prefix(MAGIC).ok_or("it does not begin with LGFLOWS")?;
    let version = word(&mut rest)?;
    if version != VERSION {
        return Err(format!("its version is {version}, this program reads {VERSION}"));
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
        let statistics = ChannelStatistics {
            mean: numbers(&mut rest, shape.channels)?,
            deviation: numbers(&mut rest, shape.channels)?,
        };
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
    if rest.is_empty() { Ok(levels) } else { Err(format!("{} bytes are left over", rest.len())) }
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
        let level = |channels: usize, map| TrainedLevel {
            source: Source { map, pooling: 3 },
            statistics: ChannelStatistics { mean: vec![0.5; channels], deviation: vec![2.0; channels] },
            flow: Flow::new(FlowShape { channels, blocks: 2, hidden: 5 }, None, &mut rng),
        };
        let levels: Vec<_> = [(4, 0), (7, 1)]
            .map({
                let mut level = level;
                move |(channels, map)| level(channels, map)
            })
            .to_vec();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(FLOWS_FILE);
        write_flows(&path, &levels).unwrap();
        assert_eq!(read_flows(&path).unwrap(), levels);
        let bytes = fs::read(&path).unwrap();
        for end in (0..bytes.len()).step_by(97) {
            assert!(parse(&bytes[..end]).is_err());
        }
        assert!(parse(&[&bytes[..], &[0]].concat()).unwrap_err().contains("left over"));
        let mut other = bytes.clone();
        other[8] = 9;
        assert!(parse(&other).unwrap_err().contains("version is 9"));
        other.splice(8..32, [1, 0, 0, 0, 1, 0, 0, 0].into_iter().chain([255; 16]));
        assert!(parse(&other).is_err());
    }
}
