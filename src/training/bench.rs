//! How fast this machine takes a training step, beside how fast it multiplies matrices at all.

use std::time::Instant;

use ndarray::Array3;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::Serialize;

use super::features::{LevelBank, Source};
use super::fit::{FitError, LevelFit, StepReport};
use super::flow::{FlowShape, matrix_product_gflops};
use super::settings::Settings;
use crate::config::Preset;

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
            let map = Array3::from_shape_simple_fn((side, side, channels), || rng.random_range(-1.7..1.7));
            bank.push(&map, Source::every(0, 1))?;
        }
        let shape = FlowShape { channels, blocks: 8, hidden: FlowShape::paper_hidden(channels) };
        let inner = shape.first() * shape.hidden + shape.hidden * 2 * shape.second() + channels * channels;
        // Backward has two products for each of forward's.
        let operations = 2.0 * 3.0 * (PIXELS * shape.blocks * inner) as f64;
        let mut single = 0.0;
        let counts = if threads > 1 { vec![1, threads] } else { vec![1] };
        for threads in counts {
            let settings = Settings {
                threads,
                batch_pixels: PIXELS,
                steps: Some(steps + 1),
                ..Settings::preset(Preset::Standard)
            };
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
