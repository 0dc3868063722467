//! Fitting the flow of one level.

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use super::loss::{LossSettings, LossTerms, loss};
use super::{Adam, CellSampler, PictureCells, Sampler, Schedule};
use crate::config::Orientation;
use crate::training::features::{FeatureFileError, LevelBank};
use crate::training::flow::{Flow, FlowShape, Pass, Pixels};
use crate::training::settings::Settings;

/// Why fitting stopped.
#[derive(Debug, thiserror::Error)]
pub enum FitError {
    /// A loss term is not a number.
    #[error(
        "the {term} term became not-a-number at step {step} of level {level}: lower learning_rate (now at most {peak}) or look for broken pictures among the training images"
    )]
    NotFinite {
        /// Level, 0 is the finest.
        level: usize,
        /// Step, from 1.
        step: usize,
        /// Term of the loss.
        term: &'static str,
        /// Highest learning rate.
        peak: f32,
    },
    /// The features.
    #[error(transparent)]
    Features(#[from] FeatureFileError),
    /// The user stopped it.
    #[error("interrupted")]
    Interrupted,
}

/// What a step did.
#[derive(Debug, Clone, Copy)]
pub struct StepReport {
    /// Level, 0 is the finest.
    pub level: usize,
    /// Step, from 1.
    pub step: usize,
    /// Loss, by term.
    pub terms: LossTerms,
    /// Learning rate.
    pub rate: f32,
}

/// What one level knows of defects.
#[derive(Debug)]
pub struct DefectCells<'a> {
    /// Features of the defect pictures, every cell.
    pub bank: &'a LevelBank,
    /// Abnormal cells of defects as they are.
    pub real: Vec<PictureCells>,
    /// Abnormal cells of pasted or invented defects.
    pub made: Vec<PictureCells>,
    /// Cells of the same pictures well beside the defects: normal ones, and the hardest.
    pub beside: Vec<PictureCells>,
}

/// The state of one level's fit; goes on where it stopped.
#[derive(Debug)]
pub struct LevelFit {
    level: usize,
    /// The flow so far.
    pub flow: Flow,
    pass: Pass,
    adam: Adam,
    rng: ChaCha8Rng,
    schedule: Schedule,
    loss: LossSettings,
    batch_pixels: usize,
    abnormal_pixels: usize,
    beside_pixels: usize,
    orientation: Orientation,
    step: usize,
    normals: Sampler,
    /// Row and column of every cell of a map.
    map: Vec<[u16; 2]>,
    features: Vec<f32>,
    places: Vec<[u16; 2]>,
    abnormal: Vec<bool>,
    gradient: Vec<f32>,
}

impl LevelFit {
    /// The fit of a level to its training normals, of a fresh flow or, where given, of one that is
    /// trained already and of the shape that [`FlowShape::of`] gives.
    pub fn new(level: usize, bank: &LevelBank, settings: &Settings, start: Option<&Flow>) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(settings.seed);
        rng.set_stream(1 + level as u64);
        let shape = FlowShape::of(bank.channels, level, settings);
        let pixels = bank.pictures() * bank.kept();
        let steps = settings.steps.unwrap_or((settings.passes * pixels).div_ceil(settings.batch_pixels));
        let mut flow = start.cloned().unwrap_or_else(|| Flow::new(shape, settings.rotated, &mut rng));
        if settings.orientation == Orientation::Any {
            flow.forget_places();
        }
        Self {
            level,
            flow,
            pass: Pass::new(shape, bank.rows, bank.columns, settings.threads),
            adam: Adam::new(shape.parameter_count()),
            rng,
            schedule: Schedule {
                steps,
                warm_up: ((steps as f64 * settings.warm_up) as usize).max(1),
                peak: settings.learning_rate,
            },
            loss: LossSettings {
                boundary_quantile: settings.boundary_quantile,
                margin: settings.margin,
                contrast: 1.0,
                focal: true,
            },
            batch_pixels: settings.batch_pixels,
            abnormal_pixels: settings.abnormal_pixels,
            beside_pixels: settings.beside_pixels,
            orientation: settings.orientation,
            step: 0,
            normals: Sampler::new(pixels),
            map: bank.places(),
            features: Vec::new(),
            places: Vec::new(),
            abnormal: Vec::new(),
            gradient: Vec::new(),
        }
    }

    /// Steps in all.
    pub fn steps(&self) -> usize {
        self.schedule.steps
    }

    /// Takes steps until `until` of them are done, on normals and, where given, on defects and what
    /// lies beside them.
    ///
    /// # Errors
    /// [`FitError`]: a term is not a number, features cannot be read, or `observe` said to stop.
    pub fn run(
        &mut self,
        until: usize,
        normals: &LevelBank,
        defects: Option<&DefectCells<'_>>,
        observe: &mut dyn FnMut(StepReport) -> Result<(), FitError>,
    ) -> Result<(), FitError> {
        let mut lists: Vec<(bool, CellSampler<'_>)> = defects.map_or_else(Vec::new, |defects| {
            let lists = [(true, &defects.real), (true, &defects.made), (false, &defects.beside)];
            lists.into_iter().map(|(abnormal, list)| (abnormal, CellSampler::new(list))).collect()
        });
        lists.retain(|(_, list)| !list.is_empty());
        let kinds = lists.iter().filter(|(abnormal, _)| *abnormal).count();
        let mut cells = Vec::new();
        while self.step < until.min(self.schedule.steps) {
            self.features.clear();
            self.places.clear();
            self.abnormal.clear();
            cells.clear();
            for (abnormal, list) in &mut lists {
                let Some(DefectCells { bank, .. }) = defects else { break };
                for _ in 0..if *abnormal { self.abnormal_pixels / kinds } else { self.beside_pixels } {
                    let Some((picture, cell)) = list.draw(&mut self.rng) else { break };
                    cells.push((picture, cell));
                    self.places.push(bank.place(cell));
                    self.abnormal.push(*abnormal);
                }
            }
            if let Some(DefectCells { bank, .. }) = defects {
                bank.gather(&cells, &mut self.features)?;
            }
            cells.clear();
            while self.places.len() < self.batch_pixels {
                let Some(i) = self.normals.draw(&mut self.rng) else { break };
                let (picture, slot) = (i / normals.kept(), i % normals.kept());
                cells.push((picture, slot));
                self.places.push(normals.place(normals.kept_cell(picture, slot)));
                self.abnormal.push(false);
            }
            normals.gather(&cells, &mut self.features)?;
            let report = self.take_step();
            if let Some(term) = report.terms.not_finite() {
                let (level, step, peak) = (self.level, self.step, self.schedule.peak);
                return Err(FitError::NotFinite { level, step, term, peak });
            }
            observe(report)?;
        }
        // Levels are fitted one after the other: their tapes need not stand side by side.
        self.pass.release();
        Ok(())
    }

    fn take_step(&mut self) -> StepReport {
        let pixels = Pixels { features: &self.features, places: &self.places };
        let log_likelihoods = self.pass.forward(&self.flow, pixels);
        let terms = loss(log_likelihoods, &self.abnormal, &self.loss, &mut self.gradient);
        let gradient = self.pass.backward(&self.flow, pixels, &self.gradient);
        let rate = self.schedule.rate(self.step);
        self.adam.step(&mut self.flow.parameters, gradient, rate);
        if self.orientation == Orientation::Any {
            self.flow.forget_places();
        }
        self.step += 1;
        StepReport { level: self.level, step: self.step, terms, rate }
    }

    /// Log-likelihood map of one picture, `[cell]`, nats per feature dimension, from its
    /// standardised features of every cell, `[cell, C]`.
    pub fn log_likelihood(&mut self, features: &[f32]) -> Vec<f32> {
        self.pass.log_likelihood(&self.flow, Pixels { features, places: &self.map }).to_vec()
    }
}

#[cfg(test)]
mod tests {
    use ndarray::Array3;
    use rand::RngExt;

    use super::*;
    use crate::config::Preset;
    use crate::training::features::{ChannelStatistics, Source, pooled};
    use crate::training::flow::{FoldedFlow, Part};

    #[test]
    fn features_in_half_precision_hardly_change_a_log_likelihood() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let value = |(_, _, k): (usize, usize, usize)| (rand::RngExt::random::<f32>(&mut rng) - 0.3) * (k + 1) as f32;
        let map = Array3::from_shape_fn((8, 8, 12), value);
        let mut bank = LevelBank::new(8, 8, 12);
        bank.push(&map, 3).unwrap();
        let statistics = bank.statistics(true);
        bank.standardise(&statistics);
        let settings = Settings {
            steps: Some(60),
            batch_pixels: 64,
            hidden_width: Some(16),
            threads: 1,
            ..Settings::preset(Preset::Fast)
        };
        let mut fit = LevelFit::new(0, &bank, &settings, None);
        fit.run(60, &bank, None, &mut |_| Ok(())).unwrap();
        let mut exact = pooled(&map, 3);
        statistics.apply(&mut exact);
        let (exact, half) = (fit.log_likelihood(&exact), fit.log_likelihood(&bank.picture(0).unwrap()));
        let largest = exact.iter().zip(&half).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(largest > 0.0 && largest < 5e-3, "{largest}");
    }

    const GRID: (usize, usize, usize) = (6, 5, 4);

    fn bank(pictures: usize, mut value: impl FnMut(usize) -> f32) -> LevelBank {
        let mut bank = LevelBank::new(GRID.0, GRID.1, GRID.2);
        for _ in 0..pictures {
            bank.push(&Array3::from_shape_fn(GRID, |(_, _, channel)| value(channel)), 1).unwrap();
        }
        bank
    }

    /// A fit for parts of an orientation, and its map of a picture with the same features everywhere.
    fn fitted(orientation: Orientation) -> (LevelFit, Vec<f32>) {
        let settings = Settings {
            orientation,
            threads: 2,
            blocks: 3,
            finest_blocks: None,
            finest_hidden_width: None,
            steps: Some(30),
            batch_pixels: 64,
            hidden_width: Some(12),
            ..Settings::preset(Preset::Fast)
        };
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        let normals = bank(4, |_| rng.random_range(-1.0..1.0));
        let mut fit = LevelFit::new(0, &normals, &settings, None);
        fit.run(usize::MAX, &normals, None, &mut |_| Ok(())).unwrap();
        let map = fit.log_likelihood(&bank(1, |channel| channel as f32 * 0.3 - 0.5).picture(0).unwrap());
        (fit, map)
    }

    fn spread(map: &[f32]) -> f32 {
        map.iter().copied().fold(f32::MIN, f32::max) - map.iter().copied().fold(f32::MAX, f32::min)
    }

    #[test]
    fn where_parts_lie_in_any_orientation_the_map_does_not_depend_on_the_place() {
        let (fit, map) = fitted(Orientation::Any);
        assert!(spread(&map) < 1e-6, "{map:?}");
        for block in 0..3 {
            assert!(fit.flow.part(block, Part::ConditionWeight).iter().all(|&weight| weight == 0.0));
        }
        let source = Source { map: 0, pooling: 1 };
        let folded = FoldedFlow::fold(&fit.flow, (GRID.0, GRID.1), source, &ChannelStatistics::identity(GRID.2));
        for block in &folded.blocks {
            for table in [&block.row_table, &block.column_table] {
                assert!(table.rows().into_iter().all(|row| row == table.row(0)), "{table}");
            }
        }
        assert!(spread(&fitted(Orientation::Fixed).1) > 1e-3, "with the condition it does");
    }
}
