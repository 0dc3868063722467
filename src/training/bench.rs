//! How fast this machine takes a training step, beside how fast it multiplies matrices at all; and the
//! naive model that a bundle's is compared with.

use std::path::Path;
use std::time::Instant;

use ndarray::Array3;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::Serialize;

use super::export::{ExportError, FlowForm, ModelExport};
use super::features::LevelBank;
use super::fit::{FitError, LevelFit, StepReport};
use super::flow::{Flow, FlowShape, FoldedFlow, matrix_product_gflops};
use super::settings::Settings;
use super::warm::{TrainedLevels, WarmStartError, read_flows};
use crate::bundle::{Bundle, FLOWS_FILE, METADATA_NAME, METADATA_VERSION};
use crate::config::Preset;
use crate::scoring::BackboneSpec;

/// Why there is no naive model.
#[derive(Debug, thiserror::Error)]
pub enum NaiveError {
    /// The bundle's flows.
    #[error(transparent)]
    Flows(#[from] WarmStartError),
    /// The export.
    #[error(transparent)]
    Export(#[from] ExportError),
}

/// Writes a bundle's model with nothing of its flows folded, as a framework would export it. `backbone`
/// is the one that the bundle was trained on, which `spec` describes.
///
/// # Errors
/// [`NaiveError`] when the bundle has no flows or they do not fit the backbone.
pub fn write_naive_model(bundle: &Bundle, backbone: &Path, spec: &BackboneSpec, out: &Path) -> Result<(), NaiveError> {
    let manifest = &bundle.manifest;
    let TrainedLevels { levels, coreset, contrast } = read_flows(&bundle.path.join(FLOWS_FILE))?;
    let mut folded: Vec<FoldedFlow> = levels
        .iter()
        .zip(&manifest.levels)
        .map(|(level, shape)| {
            FoldedFlow::fold(&level.flow, (shape.rows, shape.columns), level.source, &level.statistics)
        })
        .collect();
    let mut rest = manifest.levels.iter().skip(levels.len()).map(|shape| (shape.rows, shape.columns));
    folded.extend(coreset.and_then(|coreset| Some(coreset.fold(rest.next()?))));
    folded.extend(contrast.and_then(|contrast| Some(contrast.fold(rest.next()?))));
    let flows: Vec<&Flow> = levels.iter().map(|level| &level.flow).collect();
    let outputs: Vec<String> = manifest.levels.iter().map(|level| level.output.clone()).collect();
    let metadata = [(METADATA_NAME, &manifest.name), (METADATA_VERSION, &manifest.version)]
        .map(|(key, value)| (key.to_owned(), value.clone()));
    let size = manifest.preprocessing.size;
    let export = ModelExport { backbone, spec, size, flows: &folded, outputs: &outputs, metadata: &metadata };
    Ok(export.write(FlowForm::Naive(&flows), out)?)
}

/// Pixels of a measured step: the paper's batch.
const PIXELS: usize = 4096;
/// Pictures of random features that the pixels are drawn from.
const PICTURES: usize = 8;

/// One level, measured.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StepCost {
    /// Channels C.
    pub channels: usize,
    /// Threads.
    pub threads: usize,
    /// Fastest of the steps taken, wall ms: forward, loss, backward, Adam on 4,096 pixels.
    pub wall_ms: f64,
    /// Multiply-adds of the step's matrix products, times two, by that time.
    pub gflops: f64,
    /// The same as a share of what one thread makes on one large product in the same run, times
    /// the threads.
    pub share_of_peak: f64,
    /// How many times faster than on one thread.
    pub speed_up: f64,
}

/// Measures the training step of the paper's flows on maps of 256 × 256 pixels, for the channels of
/// EfficientNet-Lite0, on one thread and on `threads`. The fastest of `steps` counts, since whatever
/// else runs on the machine only ever adds.
///
/// # Errors
/// [`FitError`] never in practice: random features are finite.
pub fn training_step(threads: usize, steps: usize) -> Result<Vec<StepCost>, FitError> {
    let peak = matrix_product_gflops();
    let mut costs = Vec::new();
    for (channels, side) in [(24, 64), (40, 32), (112, 16)] {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let mut bank = LevelBank::new(side, side, channels);
        for _ in 0..PICTURES.max(PIXELS / (side * side)) {
            bank.push(&Array3::from_shape_simple_fn((side, side, channels), || rng.random_range(-1.7..1.7)), 1)?;
        }
        // The paper's, whatever the presets have.
        let settings = Settings {
            batch_pixels: PIXELS,
            steps: Some(steps + 1),
            blocks: 8,
            finest_blocks: None,
            hidden_width: None,
            finest_hidden_width: None,
            ..Settings::preset(Preset::Standard)
        };
        let shape = FlowShape::of(channels, 0, &settings);
        let inner = shape.first() * shape.hidden + shape.hidden * 2 * shape.second() + channels * channels;
        // Backward has two products for each of forward's.
        let operations = 2.0 * 3.0 * (PIXELS * shape.blocks * inner) as f64;
        let mut single = 0.0;
        let counts = if threads > 1 { vec![1, threads] } else { vec![1] };
        for threads in counts {
            let settings = Settings { threads, ..settings.clone() };
            let mut fit = LevelFit::new(0, &bank, &settings, None);
            let mut fastest = f64::INFINITY;
            let mut last = None;
            fit.run(usize::MAX, &bank, None, &mut |_: StepReport| {
                let now = Instant::now();
                // The first step warms buffers up.
                if let Some(before) = last.replace(now) {
                    fastest = fastest.min((now - before).as_secs_f64());
                }
                Ok(())
            })?;
            if threads == 1 {
                single = fastest;
            }
            let gflops = operations / fastest / 1e9;
            costs.push(StepCost {
                channels,
                threads,
                wall_ms: fastest * 1e3,
                gflops,
                share_of_peak: gflops / (peak * threads as f64),
                speed_up: single / fastest,
            });
        }
    }
    Ok(costs)
}
