//! What the stages of one frame cost.

use std::num::NonZeroUsize;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context;
use serde::Serialize;

use crate::bundle::Bundle;
use crate::decision::Decider;
use crate::inspection::{CameraPicture, PixelFormat, Size, YuvColour, YuvMatrix};
use crate::scoring::{FeatureExtractor, Model, PictureFitter, Provider, SessionOptions};
use crate::telemetry;

/// A batch of one.
const ONE: NonZeroUsize = NonZeroUsize::MIN;
/// Size of the frame that is fitted: a usual camera's.
const FRAME: Size = Size { width: 1920, height: 1080 };

/// What the stages of one frame take, fastest of several, one thread.
#[derive(Debug, Serialize)]
pub(super) struct ScoringCost {
    /// Whole model by backbone alone.
    cost_ratio_model_to_backbone: f64,
    /// The model without anything folded by the whole model; none where it was not wanted.
    cost_ratio_naive_to_model: Option<f64>,
    /// The same flows in standard operators, as other providers run them, by the whole model; none
    /// where the model is that file.
    cost_ratio_standard_operators_to_model: Option<f64>,
    /// The backbone alone, ms.
    backbone_ms: f64,
    /// The whole model, ms.
    model_ms: f64,
    /// A 1920x1080 frame in RGB to model size, ms.
    fit_ms: f64,
    /// The same of NV12, ms.
    fit_nv12_ms: f64,
    /// Maps to verdict, ms.
    decision_ms: f64,
    /// Allocations of a frame once buffers are warm, those inside ONNX Runtime not counted.
    allocations: Allocations,
}

/// How often each stage of a frame asks for memory.
#[derive(Debug, Clone, Copy, Default, Serialize)]
struct Allocations {
    fit: u64,
    model: u64,
    /// A region that is found needs some.
    decision: u64,
}

impl ScoringCost {
    /// Measures in turns, so that whatever else runs on the machine meets all alike. `naive` is a
    /// model file to compare with.
    pub(super) fn measure(
        bundle: &Bundle,
        backbone: &Path,
        provider: Provider,
        frames: u32,
        naive: Option<&Path>,
    ) -> anyhow::Result<Self> {
        let providers = vec![provider, Provider::Cpu];
        let options = SessionOptions { providers, required: true, threads: 1, ..SessionOptions::default() };
        let preprocessing = bundle.manifest.preprocessing;
        let mut model = Model::load(bundle, &options)?;
        let for_all = bundle.model_path();
        let for_all = (model.path() != for_all).then_some(for_all.as_path());
        // Beside the model: none is measured that says something else.
        let mut beside = |file: Option<&Path>| {
            file.map(|file| {
                let mut other = Model::load_file(file, bundle, &options)?;
                compare(&mut model, &mut other)?;
                anyhow::Ok(other)
            })
            .transpose()
        };
        let (mut naive, mut for_all) = (beside(naive)?, beside(for_all)?);
        let mut backbone = FeatureExtractor::load(backbone, preprocessing.size, &options)
            .context("the backbone to compare with (--backbone) cannot be used")?;
        let size = preprocessing.region_of_interest.map_or(FRAME, |region| Size {
            width: FRAME.width.max(region.x + region.width),
            height: FRAME.height.max(region.y + region.height),
        });
        let (rgb, nv12) = (frame(size, PixelFormat::Rgb)?, frame(size, nv12(size))?);
        let (mut fitter, mut decider) = (PictureFitter::new(), Decider::new());
        let mut fastest = [Duration::MAX; 7];
        let mut allocations = Allocations::default();
        for _ in 0..frames {
            let fit_nv12 = timed(|| fitter.fit_into(&nv12, &preprocessing, model.place(0)))?;
            let before = telemetry::allocations();
            let fit = timed(|| fitter.fit_into(&rgb, &preprocessing, model.place(0)))?;
            let fitted = telemetry::allocations();
            let maps = &model.score_placed(0..1)?[0];
            let scored = telemetry::allocations();
            let began = Instant::now();
            let outcome = std::hint::black_box(decider.decide(maps, &bundle.manifest, size));
            let decision = began.elapsed();
            let decided = telemetry::allocations();
            drop(outcome);
            allocations = Allocations { fit: fitted - before, model: scored - fitted, decision: decided - scored };
            let run =
                |other: &mut Option<Model>| other.as_mut().map_or(Ok(Duration::ZERO), |other| other.time_run(ONE));
            let (naive, for_all) = (run(&mut naive)?, run(&mut for_all)?);
            let now = [backbone.time_run()?, model.time_run(ONE)?, fit, fit_nv12, decision, naive, for_all];
            fastest.iter_mut().zip(now).for_each(|(fastest, now)| *fastest = (*fastest).min(now));
        }
        let [backbone_ms, model_ms, fit_ms, fit_nv12_ms, decision_ms, naive_ms, for_all_ms] =
            fastest.map(|time| time.as_secs_f64() * 1e3);
        Ok(Self {
            cost_ratio_model_to_backbone: model_ms / backbone_ms,
            cost_ratio_naive_to_model: naive.is_some().then_some(naive_ms / model_ms),
            cost_ratio_standard_operators_to_model: for_all.is_some().then_some(for_all_ms / model_ms),
            backbone_ms,
            model_ms,
            fit_ms,
            fit_nv12_ms,
            decision_ms,
            allocations,
        })
    }

    /// For people.
    pub(super) fn print(&self) {
        println!("model / backbone  {:8.2}", self.cost_ratio_model_to_backbone);
        if let Some(ratio) = self.cost_ratio_naive_to_model {
            println!("naive / model     {ratio:8.2}");
        }
        if let Some(ratio) = self.cost_ratio_standard_operators_to_model {
            println!("standard operators / model {ratio:.2}");
        }
        println!("backbone alone    {:8.2} ms", self.backbone_ms);
        println!("whole model       {:8.2} ms", self.model_ms);
        println!("frame to picture  {:8.2} ms   {FRAME} RGB", self.fit_ms);
        println!("                  {:8.2} ms   {FRAME} NV12", self.fit_nv12_ms);
        println!("maps to verdict   {:8.2} ms", self.decision_ms);
        let Allocations { fit, model, decision } = self.allocations;
        println!("allocations       {fit:5} to scale a frame, {model} to score it, {decision} to decide");
    }
}

fn timed<E>(step: impl FnOnce() -> Result<(), E>) -> Result<Duration, E> {
    let began = Instant::now();
    step()?;
    Ok(began.elapsed())
}

fn nv12(size: Size) -> PixelFormat {
    let chroma = Size { width: size.width.div_ceil(2), height: size.height.div_ceil(2) };
    let colour = YuvColour { matrix: YuvMatrix::Bt709, full_range: false };
    PixelFormat::Yuv { chroma, interleaved: true, colour }
}

/// A frame of some texture: what is the same everywhere could be cheaper than it should.
fn frame(size: Size, format: PixelFormat) -> anyhow::Result<CameraPicture> {
    let bytes = format.planes(size).iter().map(|(row, rows)| row * rows).sum::<usize>();
    Ok(CameraPicture::new(size, format, (0..bytes).map(|at| ((at * 2_654_435_761) >> 24) as u8).collect())?)
}

/// Fails where the naive model says something else: then the two times would compare nothing.
fn compare(model: &mut Model, naive: &mut Model) -> anyhow::Result<()> {
    let mut said = Vec::new();
    for model in [model, naive] {
        model
            .place(0)
            .iter_mut()
            .zip(0u32..)
            .for_each(|(value, at)| *value = (at.wrapping_mul(2_654_435_761) >> 24) as u8);
        said.push(model.score_placed(0..1)?[0].clone());
    }
    for (ours, naive) in said[0].levels.iter().zip(&said[1].levels) {
        for (a, b) in ours.iter().zip(naive) {
            anyhow::ensure!(
                (a - b).abs() <= 1e-3 * a.abs().max(1.0),
                "the model to compare with says {b} where the bundle's says {a}"
            );
        }
    }
    Ok(())
}
