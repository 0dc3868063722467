//! Shape and parameters of a flow.

use std::ops::Range;

use rand::seq::SliceRandom;
use rand::{Rng, RngExt};

use super::CONDITION_LENGTH;
use crate::training::settings::Settings;

/// Factor on the coupling network's output (FrEIA).
pub(super) const DAMPING: f32 = 0.1;

/// Sizes of a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FlowShape {
    /// Feature channels C, at least 2.
    pub channels: usize,
    /// Coupling blocks; the authors' count is 8.
    pub blocks: usize,
    /// Hidden width of every coupling network; the authors' is [`FlowShape::paper_hidden`].
    pub hidden: usize,
}

/// A kind of parameter inside a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// First layer, feature columns: `[hidden, C - C/2]`.
    FeatureWeight,
    /// First layer, condition columns: `[hidden, 128]`.
    ConditionWeight,
    /// First layer's bias: `[hidden]`.
    HiddenBias,
    /// Second layer: `[2 (C/2), hidden]`.
    OutputWeight,
    /// Second layer's bias: `[2 (C/2)]`.
    OutputBias,
    /// Global scale before its activation: `[C]`.
    GlobalScale,
    /// Global offset: `[C]`.
    GlobalOffset,
}

impl Part {
    /// All parts in the order of storage.
    pub const ALL: [Self; 7] = [
        Self::FeatureWeight,
        Self::ConditionWeight,
        Self::HiddenBias,
        Self::OutputWeight,
        Self::OutputBias,
        Self::GlobalScale,
        Self::GlobalOffset,
    ];
}

impl FlowShape {
    /// The authors' hidden width for C channels: twice the input of the coupling network.
    pub fn paper_hidden(channels: usize) -> usize {
        2 * (channels - channels / 2 + CONDITION_LENGTH)
    }

    /// The shape that the settings give a level of C channels; level 0 is the finest map's.
    pub fn of(channels: usize, level: usize, settings: &Settings) -> Self {
        let finest = |own: Option<usize>| own.filter(|_| level == 0);
        let hidden = finest(settings.finest_hidden_width).or(settings.hidden_width);
        let hidden = hidden.unwrap_or(Self::paper_hidden(channels));
        let blocks = finest(settings.finest_blocks).unwrap_or(settings.blocks);
        Self { channels, blocks, hidden }
    }

    /// Channels that pass a block unchanged and steer the others: `C - C/2`.
    pub fn first(&self) -> usize {
        self.channels - self.channels / 2
    }

    /// Channels that a block changes: `C/2`.
    pub fn second(&self) -> usize {
        self.channels / 2
    }

    fn length(&self, part: Part) -> usize {
        match part {
            Part::FeatureWeight => self.hidden * self.first(),
            Part::ConditionWeight => self.hidden * CONDITION_LENGTH,
            Part::HiddenBias => self.hidden,
            Part::OutputWeight => 2 * self.second() * self.hidden,
            Part::OutputBias => 2 * self.second(),
            Part::GlobalScale | Part::GlobalOffset => self.channels,
        }
    }

    fn block_length(&self) -> usize {
        Part::ALL.iter().map(|&part| self.length(part)).sum()
    }

    /// Number of trained values.
    pub fn parameter_count(&self) -> usize {
        self.blocks * self.block_length()
    }

    /// Where a part of a block lies among the flow's parameters.
    pub fn range(&self, block: usize, part: Part) -> Range<usize> {
        let before: usize = Part::ALL.iter().take_while(|&&p| p != part).map(|&p| self.length(p)).sum();
        let start = block * self.block_length() + before;
        start..start + self.length(part)
    }
}

/// A flow of one level.
#[derive(Debug, Clone, PartialEq)]
pub struct Flow {
    /// Its sizes.
    pub shape: FlowShape,
    /// Trained values, see [`FlowShape::range`].
    pub parameters: Vec<f32>,
    /// Fixed rotation of every block, `[C, C]` row after row; acts as `x · Qᵀ`.
    pub rotations: Vec<Vec<f32>>,
}

impl Flow {
    /// A fresh flow: linear layers uniform in `±1/sqrt(inputs)` (torch's default), global scale 1,
    /// offset 0, random rotations of `rotated` channels among each other (none: all of them).
    pub fn new(shape: FlowShape, rotated: Option<usize>, rng: &mut impl Rng) -> Self {
        let mut parameters = vec![0.0; shape.parameter_count()];
        let mut rotations = Vec::with_capacity(shape.blocks);
        for block in 0..shape.blocks {
            let inputs = [
                (Part::FeatureWeight, shape.first() + CONDITION_LENGTH),
                (Part::ConditionWeight, shape.first() + CONDITION_LENGTH),
                (Part::HiddenBias, shape.first() + CONDITION_LENGTH),
                (Part::OutputWeight, shape.hidden),
                (Part::OutputBias, shape.hidden),
            ];
            for (part, inputs) in inputs {
                let bound = 1.0 / (inputs as f32).sqrt();
                for value in &mut parameters[shape.range(block, part)] {
                    *value = rng.random_range(-bound..bound);
                }
            }
            // The inverse of `0.1 softplus(G; beta 0.5)` at 1.
            parameters[shape.range(block, Part::GlobalScale)].fill(2.0 * (5f32.exp() - 1.0).ln());
            rotations.push(rotation(shape.channels, rotated.unwrap_or(shape.channels), rng));
        }
        Self { shape, parameters, rotations }
    }

    /// A part of a block.
    pub fn part(&self, block: usize, part: Part) -> &[f32] {
        &self.parameters[self.shape.range(block, part)]
    }

    /// Takes the condition away: what the flow says of a feature vector no longer depends on its
    /// place. The tables of an exported flow are then alike for all rows and all columns.
    pub fn forget_places(&mut self) {
        for block in 0..self.shape.blocks {
            self.parameters[self.shape.range(block, Part::ConditionWeight)].fill(0.0);
        }
    }

    /// Global scale `g = 0.1 softplus(G; beta 0.5)` of a block and `dg/dG`, `[C]` each.
    pub(in crate::training) fn global_scale(&self, block: usize) -> (Vec<f32>, Vec<f32>) {
        self.part(block, Part::GlobalScale)
            .iter()
            .map(|&raw| {
                let half = 0.5 * raw;
                // softplus without overflow: max(h, 0) + ln(1 + e^-|h|)
                let softplus = 2.0 * (half.max(0.0) + (-half.abs()).exp().ln_1p());
                (0.1 * softplus, 0.1 / (1.0 + (-half).exp()))
            })
            .unzip()
    }
}

/// A random orthogonal matrix that deals the channels into groups and rotates each: row after row, those of a
/// group beside each other.
pub(super) fn rotation(channels: usize, group: usize, rng: &mut impl Rng) -> Vec<f32> {
    if group >= channels {
        return random_rotation(channels, rng);
    }
    let mut order: Vec<usize> = (0..channels).collect();
    order.shuffle(rng);
    let mut rows = Vec::with_capacity(channels * channels);
    for together in order.chunks(group.max(1)) {
        for rotated in random_rotation(together.len(), rng).chunks_exact(together.len()) {
            let mut row = vec![0.0; channels];
            together.iter().zip(rotated).for_each(|(&channel, &value)| row[channel] = value);
            rows.extend(row);
        }
    }
    rows
}

/// A random orthogonal matrix: Gram-Schmidt on Gaussian rows, in double precision.
fn random_rotation(n: usize, rng: &mut impl Rng) -> Vec<f32> {
    let mut rows: Vec<Vec<f64>> = Vec::with_capacity(n);
    while rows.len() < n {
        let mut row: Vec<f64> = (0..n)
            .map(|_| {
                // Box-Muller; 1 - u keeps the logarithm's argument above 0.
                let (u, v): (f64, f64) = (rng.random(), rng.random());
                (-2.0 * (1.0 - u).ln()).sqrt() * (std::f64::consts::TAU * v).cos()
            })
            .collect();
        // Twice is enough for orthogonality to rounding.
        for _ in 0..2 {
            for other in &rows {
                let dot: f64 = row.iter().zip(other).map(|(a, b)| a * b).sum();
                row.iter_mut().zip(other).for_each(|(a, b)| *a -= dot * b);
            }
        }
        let norm = row.iter().map(|a| a * a).sum::<f64>().sqrt();
        if norm > 1e-6 {
            rows.push(row.iter().map(|a| a / norm).collect());
        }
    }
    rows.into_iter().flatten().map(|a| a as f32).collect()
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    #[test]
    fn a_rotation_turns_channels_among_those_of_their_group_and_keeps_every_length() {
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(2);
        for (channels, group, most) in [(24, 8, 8), (21, 8, 8), (12, 1, 1), (10, 99, 10)] {
            let rotation = rotation(channels, group, &mut rng);
            let rows: Vec<&[f32]> = rotation.chunks_exact(channels).collect();
            assert_eq!(rows.len(), channels);
            for (i, a) in rows.iter().enumerate() {
                assert!(a.iter().filter(|&&value| value != 0.0).count() <= most);
                for (j, b) in rows.iter().enumerate() {
                    let dot: f32 = a.iter().zip(*b).map(|(a, b)| a * b).sum();
                    assert!((dot - if i == j { 1.0 } else { 0.0 }).abs() < 1e-5, "rows {i} and {j}: {dot}");
                }
            }
            let stay = (0..channels).filter(|&i| rows[i][i] != 0.0).count();
            assert!(group >= channels || stay <= channels / 2, "{stay} of {channels} channels were not dealt");
        }
    }
}
