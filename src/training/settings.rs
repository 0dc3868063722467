//! What training is asked to do, with every default resolved.

use serde::{Deserialize, Serialize};

use crate::bundle::Evidence;
use crate::config::{ImageSize, Numbers, Orientation, Preset, TrainingConfig};
use crate::inspection::{Rectangle, Size};

/// Every setting of training.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Where the defaults came from.
    pub preset: Preset,
    /// Model input size, multiples of 16.
    pub size: Size,
    /// Whether training chooses `size` by the pictures; afterwards `size` is what was chosen.
    #[serde(default)]
    pub auto_size: bool,
    /// Side of the tiles that the backbone sees a frame through, model pixels; 0 shows it whole.
    #[serde(default)]
    pub tile: usize,
    /// How parts lie before the camera; of a finished training never [`Orientation::Auto`].
    #[serde(default)]
    pub orientation: Orientation,
    /// Turned copies of each training normal that are learned, too; chosen by how parts lie.
    #[serde(default)]
    pub turned_copies: usize,
    /// What the backbone's convolutions work on.
    #[serde(default)]
    pub numbers: Numbers,
    /// Region of interest in pixels of the full pictures; none is the whole picture.
    pub region_of_interest: Option<Rectangle>,
    /// Known defects taken from the data set's test folders.
    pub defects: usize,
    /// Seed of every random choice.
    pub seed: u64,
    /// Training threads, at least 1.
    pub threads: usize,
    /// Coupling blocks per level; the authors' 8. Half as many tell about as much on every set
    /// that was measured, if they take more steps, and cost half in training and on the line.
    pub blocks: usize,
    /// Coupling blocks of the finest map's level, which has three quarters of the cells and tells least;
    /// none is as many as the others have.
    #[serde(default)]
    pub finest_blocks: Option<usize>,
    /// Hidden width of every level; none is the authors' `2 (C - C/2 + 128)`, which is what their way
    /// to enter the condition needs and hardly better.
    pub hidden_width: Option<usize>,
    /// Hidden width of the finest map's level; none is that of the others.
    #[serde(default)]
    pub finest_hidden_width: Option<usize>,
    /// Channels that a block's fixed rotation turns among each other; none is all of them, as the authors
    /// have it. Groups of 8, dealt anew for each block, tell as much and leave a third of a flow's work away.
    #[serde(default)]
    pub rotated: Option<usize>,
    /// Side of the features' neighbourhood average, odd.
    pub pooling: usize,
    /// Side of the average of one more level on the coarsest map, odd; 0 leaves that level out.
    pub context: usize,
    /// Vectors of training normals that the coarsest map's cells are compared with where fewer than five
    /// defects are known, a level of its own; 0 leaves it out. Afterwards what was used.
    #[serde(default)]
    pub coreset: usize,
    /// Whether known defects that fill the average of `context` are contrasted with normals, a level of its own, where
    /// five or more are known, all with masks. Afterwards whether they were.
    #[serde(default)]
    pub contrast: bool,
    /// Optimiser steps; none makes `passes`.
    pub steps: Option<usize>,
    /// Passes over every pixel where `steps` is none; the authors' 200.
    pub passes: usize,
    /// Pixels per step and level.
    pub batch_pixels: usize,
    /// Abnormal pixels among them once defects take part.
    pub abnormal_pixels: usize,
    /// Normal pixels of the defect pictures among them.
    pub beside_pixels: usize,
    /// Share of the steps on normals alone, 0 to 1.
    pub normals_only: f64,
    /// Highest learning rate.
    pub learning_rate: f32,
    /// Share of the steps in which the rate rises, 0 to 1.
    pub warm_up: f64,
    /// Quantile of normals that is the normal boundary (paper beta).
    pub boundary_quantile: f32,
    /// Distance of the abnormal boundary (paper tau), log-likelihood / 10; where fewer than five defects are known 0.1
    /// at most. Afterwards what was used.
    pub margin: f32,
    /// Pasted or invented pictures to make.
    pub synthesised: usize,
    /// Pictures with invented defects beside those; none: by the number of the known, see
    /// [`Settings::invented_beside`].
    pub invented: Option<usize>,
    /// Invent defects where none, or few, are known.
    pub synthetic: bool,
    /// Defect types that known defects are not taken from.
    pub unseen: Vec<String>,
    /// Share of the normals held out for calibration, 0 to 1.
    pub calibration_fraction: f64,
    /// Wished share of normal parts rejected.
    pub false_reject_rate: f64,
    /// Wished share of normal parts rejected or suspect.
    pub suspect_rate: f64,
    /// Whether features are brought to zero mean and unit deviation.
    pub standardise: bool,
    /// Whether standardised features are whitened, too: what channels have in common the flow then need not
    /// learn.
    #[serde(default)]
    pub whiten: bool,
    /// Most that one level can say against a cell, units in which a typical good part's oddest cell lies at
    /// 4; none is without bound.
    pub ceiling: Option<f32>,
    /// Share of a cell's score that is what the level that says most of it says, 0 to 1; the rest is the levels' mean.
    /// 0 where fewer than five defects are known. Afterwards what was used.
    #[serde(default)]
    pub strongest: f32,
    /// Whether levels speak by the paper's score.
    pub paper_score: bool,
    /// Deviation of the Gaussian on the fused map, cells of the finest level.
    pub smoothing_sigma: f32,
    /// Most that the features of the training pictures may take, MiB; beyond 256 in a temporary file
    /// beside the bundle. Of more pictures an even share of the cells is kept. Those of defects are
    /// kept whole and count first, the normals' get half of it at least.
    pub feature_budget_mib: u64,
}

/// From so many known defects on, they speak for themselves.
pub(super) const ENOUGH_DEFECTS: usize = 5;
/// Greatest `margin` with fewer; the authors'.
const FEW_MARGIN: f32 = 0.1;
/// Share of the normals-only phase that is left where the flows are trained already.
const WARM_NORMALS_ONLY: f64 = 0.2;

impl Settings {
    /// The defaults of a preset.
    pub fn preset(preset: Preset) -> Self {
        let threads = std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get);
        let standard = Self {
            preset,
            size: Size { width: 256, height: 256 },
            auto_size: false,
            tile: 0,
            orientation: Orientation::Auto,
            turned_copies: 0,
            numbers: Numbers::F32,
            region_of_interest: None,
            defects: 0,
            seed: 0,
            threads,
            blocks: 4,
            finest_blocks: Some(2),
            hidden_width: Some(64),
            finest_hidden_width: Some(32),
            rotated: Some(8),
            pooling: 3,
            context: 9,
            coreset: 1024,
            contrast: true,
            steps: Some(800),
            passes: 200,
            batch_pixels: 2048,
            abnormal_pixels: 256,
            beside_pixels: 256,
            normals_only: 0.1,
            // The small flows of so few steps need it: at 1e-3 they had not learned enough.
            learning_rate: 6e-3,
            warm_up: 0.1,
            boundary_quantile: 0.01,
            // The authors' 0.1 leaves known defects closer to what normals say than the large ones need (magnetic_tile, seeds
            // 1 to 3: pixel AUROC 0.853, so 0.862; screw's images 0.937, so 0.952).
            margin: 0.3,
            synthesised: 256,
            invented: None,
            synthetic: true,
            unseen: Vec::new(),
            calibration_fraction: 0.2,
            false_reject_rate: 0.01,
            suspect_rate: 0.05,
            standardise: true,
            whiten: true,
            ceiling: Some(4.0),
            strongest: 0.2,
            paper_score: false,
            smoothing_sigma: 0.5,
            feature_budget_mib: 8192,
        };
        match preset {
            Preset::Standard => standard,
            // Fewer pixels a step cost less than fewer steps (magnetic_tile, seeds 1 to 6, image AUROC: 0.881, so 0.876).
            Preset::Fast => Self { batch_pixels: 1024, abnormal_pixels: 128, beside_pixels: 128, ..standard },
            Preset::Paper => Self {
                steps: None,
                blocks: 8,
                finest_blocks: None,
                hidden_width: None,
                finest_hidden_width: None,
                rotated: None,
                batch_pixels: 4096,
                learning_rate: 2e-4,
                normals_only: 1.0 / 25.0,
                margin: 0.1,
                warm_up: 0.08,
                pooling: 1,
                context: 0,
                coreset: 0,
                contrast: false,
                synthetic: false,
                beside_pixels: 0,
                standardise: false,
                whiten: false,
                ceiling: None,
                strongest: 0.0,
                paper_score: true,
                orientation: Orientation::Fixed,
                smoothing_sigma: 0.0,
                ..standard
            },
        }
    }

    /// Pictures with invented defects beside those made from so many known ones. Of few, what is learned would
    /// be these alone, which is worse than to know none (magnetic_tile, three seeds, image AUROC: one known 0.775,
    /// with 64 invented beside 0.832; from five on no difference).
    pub fn invented_beside(&self, known: usize) -> usize {
        let few = self.synthetic && (1..ENOUGH_DEFECTS).contains(&known);
        self.invented.unwrap_or(if few { self.synthesised / 4 } else { 0 })
    }

    /// The preset that a configuration names (`standard` without one), changed by its other keys.
    pub fn from_config(config: &TrainingConfig) -> Self {
        let preset = Self::preset(config.preset.unwrap_or(Preset::Standard));
        let batch_pixels = config.batch_pixels.unwrap_or(preset.batch_pixels);
        // The kinds of pixels keep their shares of the batch.
        let share = |pixels: usize| (pixels * batch_pixels).div_ceil(preset.batch_pixels);
        Self {
            abnormal_pixels: share(preset.abnormal_pixels),
            beside_pixels: config.beside_pixels.unwrap_or_else(|| share(preset.beside_pixels)),
            ceiling: config.ceiling.map_or(preset.ceiling, |v| (v > 0.0).then_some(v as f32)),
            size: match config.image_size {
                Some(ImageSize::Fixed(size)) => size,
                Some(ImageSize::Auto) | None => preset.size,
            },
            auto_size: config.image_size == Some(ImageSize::Auto),
            tile: config.tile.unwrap_or(preset.tile),
            orientation: config.orientation.unwrap_or(preset.orientation),
            numbers: config.numbers.unwrap_or(preset.numbers),
            defects: config.defects.unwrap_or(preset.defects),
            seed: config.seed.unwrap_or(preset.seed),
            threads: config.threads.filter(|&threads| threads > 0).unwrap_or(preset.threads),
            boundary_quantile: config.boundary_quantile.map_or(preset.boundary_quantile, |v| v as f32),
            margin: config.margin.map_or(preset.margin, |v| v as f32),
            steps: config.steps.or(preset.steps),
            batch_pixels,
            learning_rate: config.learning_rate.map_or(preset.learning_rate, |v| v as f32),
            hidden_width: config.hidden_width.or(preset.hidden_width),
            // As with the blocks.
            finest_hidden_width: config
                .finest_hidden_width
                .or(preset.finest_hidden_width.filter(|_| config.hidden_width.is_none())),
            blocks: config.blocks.unwrap_or(preset.blocks),
            // Those of the preset belong to its `blocks`.
            finest_blocks: config.finest_blocks.or(preset.finest_blocks.filter(|_| config.blocks.is_none())),
            pooling: config.pooling.unwrap_or(preset.pooling),
            whiten: config.whiten.unwrap_or(preset.whiten),
            context: config.context.unwrap_or(preset.context),
            coreset: config.coreset.unwrap_or(preset.coreset),
            contrast: config.contrast.unwrap_or(preset.contrast),
            strongest: config.strongest.map_or(preset.strongest, |v| v as f32),
            synthesised: config.synthesised.unwrap_or(preset.synthesised),
            invented: config.invented.or(preset.invented),
            unseen: config.unseen.clone().unwrap_or_default(),
            calibration_fraction: config.calibration_fraction.unwrap_or(preset.calibration_fraction),
            false_reject_rate: config.false_reject_rate.unwrap_or(preset.false_reject_rate),
            suspect_rate: config.suspect_rate.unwrap_or(preset.suspect_rate),
            synthetic: config.synthetic.unwrap_or(preset.synthetic),
            feature_budget_mib: config.feature_budget_mib.unwrap_or(preset.feature_budget_mib),
            ..preset
        }
    }

    /// The same for so many known defects: from five on they teach the flows what matters, and to compare with
    /// normals beside them only makes it fainter (magnetic_tile, one seed, computed on the maps of trained bundles:
    /// image AUROC 0.876, so 0.859). With fewer there is little to contrast, and what is invented beside them is not to
    /// be trusted as far: to push it as far as known ones, and to let one level speak by itself, cost defects of screw their
    /// place (two seeds, AUPRO 0.916, so 0.885) and toothbrush its images (0.964, so 0.907).
    #[must_use]
    pub fn for_known(self, known: usize) -> Self {
        if known >= ENOUGH_DEFECTS {
            return Self { coreset: 0, contrast: self.contrast && self.context > 0, ..self };
        }
        Self { contrast: false, margin: self.margin.min(FEW_MARGIN), strongest: 0.0, ..self }
    }

    /// What a level's log-likelihood says against a cell.
    pub fn evidence(&self) -> Evidence {
        match self.ceiling {
            _ if self.paper_score => Evidence::Likelihood,
            Some(ceiling) => Evidence::Bounded { ceiling },
            None => Evidence::Deviations,
        }
    }

    /// The same for flows that are trained already: half of the steps (unless `keep_steps`) and a
    /// fifth of the share on normals alone.
    #[must_use]
    pub fn for_warm_start(self, keep_steps: bool) -> Self {
        let halve = |steps: usize| if keep_steps { steps } else { steps.div_ceil(2) };
        Self {
            steps: self.steps.map(halve),
            passes: halve(self.passes),
            normals_only: self.normals_only * WARM_NORMALS_ONLY,
            ..self
        }
    }

    /// Says what is out of range: one line per problem.
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let mut check = |ok: bool, text: String| {
            if !ok {
                problems.push(text);
            }
        };
        let size = self.size;
        let sized = |v: usize| v.is_multiple_of(16) && (32..=4096).contains(&v);
        check(
            sized(size.width) && sized(size.height),
            format!("image size {size}: width and height must be multiples of 16 from 32 to 4096"),
        );
        check(self.tile == 0 || sized(self.tile), format!("tile {}: 0 or a multiple of 16 from 32 to 4096", self.tile));
        check((1..=256).contains(&self.threads), format!("threads {}: 1 to 256", self.threads));
        for (name, blocks) in [("blocks", self.blocks), ("finest_blocks", self.finest_blocks.unwrap_or(1))] {
            check((1..=64).contains(&blocks), format!("{name} {blocks}: 1 to 64"));
        }
        for (name, width) in [("hidden_width", self.hidden_width), ("finest_hidden_width", self.finest_hidden_width)] {
            let width = width.unwrap_or(1);
            check((1..=8192).contains(&width), format!("{name} {width}: 1 to 8192"));
        }
        check(self.pooling % 2 == 1 && self.pooling < 64, format!("pooling {}: odd, 1 to 63", self.pooling));
        check(
            self.context == 0 || self.context % 2 == 1 && self.context < 64,
            format!("context {}: 0 or odd, up to 63", self.context),
        );
        check(self.coreset <= 1 << 16, format!("coreset {}: up to 65536", self.coreset));
        check((0.0..=1.0).contains(&self.strongest), format!("strongest {}: 0 to 1", self.strongest));
        check(
            self.steps.is_none_or(|s| (1..=10_000_000).contains(&s)),
            format!("steps {:?}: 1 to 10000000", self.steps),
        );
        check((1..=1_000_000).contains(&self.passes), format!("passes {}: 1 to 1000000", self.passes));
        check(
            (1..=1 << 24).contains(&self.feature_budget_mib),
            format!("feature_budget_mib {}: 1 to 16777216", self.feature_budget_mib),
        );
        check(
            (16..=1 << 20).contains(&self.batch_pixels),
            format!("batch_pixels {}: 16 to 1048576", self.batch_pixels),
        );
        check(
            self.abnormal_pixels > 0 && (self.abnormal_pixels + self.beside_pixels) * 2 <= self.batch_pixels,
            format!(
                "abnormal_pixels {} and beside_pixels {}: more than 0 and together up to half of batch_pixels ({})",
                self.abnormal_pixels, self.beside_pixels, self.batch_pixels
            ),
        );
        check(
            self.learning_rate.is_finite() && self.learning_rate > 0.0,
            format!("learning_rate {}: above 0", self.learning_rate),
        );
        check(self.margin.is_finite() && self.margin >= 0.0, format!("margin {}: 0 or above", self.margin));
        check(
            self.smoothing_sigma.is_finite() && (0.0..=64.0).contains(&self.smoothing_sigma),
            format!("smoothing_sigma {}: 0 to 64", self.smoothing_sigma),
        );
        for (name, value) in [
            ("boundary_quantile", f64::from(self.boundary_quantile)),
            ("calibration_fraction", self.calibration_fraction),
            ("false_reject_rate", self.false_reject_rate),
            ("suspect_rate", self.suspect_rate),
        ] {
            check(value > 0.0 && value < 1.0, format!("{name} {value}: between 0 and 1, both excluded"));
        }
        for (name, value) in [("normals_only", self.normals_only), ("warm_up", self.warm_up)] {
            check((0.0..=1.0).contains(&value), format!("{name} {value}: 0 to 1"));
        }
        check(
            self.suspect_rate >= self.false_reject_rate,
            format!(
                "suspect_rate {} lies below false_reject_rate {}: a rejected part is suspect, too",
                self.suspect_rate, self.false_reject_rate
            ),
        );
        problems
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_known_defects_get_invented_ones_beside_them_unless_somebody_says_otherwise() {
        let beside = |settings: &Settings| [0, 1, 4, 5, 20].map(|known| settings.invented_beside(known));
        let standard = Settings::preset(Preset::Standard);
        assert_eq!(beside(&standard), [0, 64, 64, 0, 0]);
        assert_eq!(beside(&Settings { synthetic: false, ..standard.clone() }), [0; 5]);
        assert_eq!(beside(&Settings { invented: Some(7), ..standard }), [7; 5]);
        assert_eq!(beside(&Settings { synthesised: 128, ..Settings::preset(Preset::Fast) })[1], 32);
        assert_eq!(beside(&Settings::preset(Preset::Paper)), [0; 5]);
    }

    #[test]
    fn few_known_defects_are_pushed_less_far_and_contrasted_with_nothing() {
        let used = |preset, known| {
            let settings = Settings::preset(preset).for_known(known);
            (settings.margin, settings.strongest, settings.contrast, settings.coreset)
        };
        for preset in [Preset::Standard, Preset::Fast] {
            assert_eq!([4, 5].map(|known| used(preset, known)), [(0.1, 0.0, false, 1024), (0.3, 0.2, true, 0)]);
        }
        assert_eq!([0, 10].map(|known| used(Preset::Paper, known)), [(0.1, 0.0, false, 0); 2]);
        let without = Settings { context: 0, ..Settings::preset(Preset::Standard) };
        assert!(!without.for_known(10).contrast, "nothing looks wide enough");
    }
}
