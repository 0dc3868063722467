//! One tile of pixels, forward and backward.

use super::elementary;
use super::parameters::{DAMPING, Flow, FlowShape, Part};
use super::product::{Matrix, product};
use super::tape::{Layout, TILE};
use crate::scoring::flow::CLAMP;

/// What does not depend on the pixel: computed once per pass.
pub(super) struct Fixed {
    /// Per block `[columns, hidden]` and `[rows, hidden]`, the bias in the latter.
    pub(super) column_tables: Vec<Vec<f32>>,
    pub(super) row_tables: Vec<Vec<f32>>,
    /// Per block: global scale and its derivative, `[C]`.
    pub(super) scales: Vec<(Vec<f32>, Vec<f32>)>,
    /// Sum of the log-determinants of all global scales.
    pub(super) logdet: f64,
}

/// One thread's sums.
#[derive(Debug)]
pub(super) struct Sums {
    /// As the flow's parameters; of the condition weight nothing, of the global scale dL/dg.
    pub(super) parameters: Vec<f32>,
    /// Per block `[columns, hidden]` and `[rows, hidden]`.
    pub(super) column_tables: Vec<f32>,
    pub(super) row_tables: Vec<f32>,
    /// Scratch: dL/dx `[TILE, C]` twice, dL/da `[TILE, 2 (C/2)]`, dL/dh `[TILE, hidden]`.
    pub(super) upstream: Vec<f32>,
    pub(super) mixed: Vec<f32>,
    pub(super) output: Vec<f32>,
    pub(super) hidden: Vec<f32>,
}

/// Scratch of the forward pass: coupling output `[TILE, 2 (C/2)]` and scaled vector `[TILE, C]`.
pub(super) struct Scratch {
    output: Vec<f32>,
    scaled: Vec<f32>,
}

impl Scratch {
    pub(super) fn new(shape: &FlowShape) -> Self {
        Self { output: vec![0.0; TILE * 2 * shape.second()], scaled: vec![0.0; TILE * shape.channels] }
    }
}

#[expect(clippy::too_many_arguments, reason = "inputs and outputs of one tile, called from one place")]
pub(super) fn forward_tile(
    flow: &Flow,
    fixed: &Fixed,
    features: &[f32],
    places: &[[u16; 2]],
    tape: &mut [f32],
    scratch: &mut Scratch,
    log_likelihoods: &mut [f32],
    log_determinants: &mut [f32],
) {
    let shape = &flow.shape;
    let (n, c, first, second, hidden) = (places.len(), shape.channels, shape.first(), shape.second(), shape.hidden);
    let layout = Layout::new(shape);
    layout.block(tape, 0).0.x[..n * c].copy_from_slice(features);
    log_determinants.fill(0.0);
    for block in 0..shape.blocks {
        let (kept, next) = layout.block(tape, block);
        for (row, place) in kept.hidden.chunks_exact_mut(hidden).zip(places) {
            let by_row = &fixed.row_tables[block][usize::from(place[0]) * hidden..][..hidden];
            let by_column = &fixed.column_tables[block][usize::from(place[1]) * hidden..][..hidden];
            row.iter_mut().zip(by_row).zip(by_column).for_each(|((v, a), b)| *v = a + b);
        }
        let weight = flow.part(block, Part::FeatureWeight);
        product(
            kept.hidden,
            hidden,
            true,
            Matrix::new(kept.x, n, first, c),
            Matrix::new(weight, hidden, first, first).t(),
        );
        kept.hidden[..n * hidden].iter_mut().for_each(|v| *v = v.max(0.0));
        let weight = flow.part(block, Part::OutputWeight);
        product(
            &mut scratch.output,
            2 * second,
            false,
            Matrix::new(kept.hidden, n, hidden, hidden),
            Matrix::new(weight, 2 * second, hidden, hidden).t(),
        );
        let bias = flow.part(block, Part::OutputBias);
        let (global, offset) = (&fixed.scales[block].0, flow.part(block, Part::GlobalOffset));
        for i in 0..n {
            let output = &scratch.output[i * 2 * second..][..2 * second];
            let x = &kept.x[i * c..][..c];
            let tanh = &mut kept.tanh[i * second..][..second];
            let scale = &mut kept.scale[i * second..][..second];
            let changed = &mut kept.changed[i * second..][..second];
            for j in 0..second {
                tanh[j] = elementary::tanh(DAMPING * (output[j] + bias[j]));
                scale[j] = elementary::exp(CLAMP * tanh[j]);
                changed[j] = x[first + j] * scale[j] + DAMPING * (output[second + j] + bias[second + j]);
            }
            log_determinants[i] += CLAMP * tanh.iter().sum::<f32>();
            let scaled = &mut scratch.scaled[i * c..][..c];
            for j in 0..first {
                scaled[j] = x[j] * global[j] + offset[j];
            }
            for j in 0..second {
                scaled[first + j] = changed[j] * global[first + j] + offset[first + j];
            }
        }
        let rotation = Matrix::new(&flow.rotations[block], c, c, c);
        product(next, c, false, Matrix::new(&scratch.scaled, n, c, c), rotation.t());
    }
    let z = layout.block(tape, shape.blocks - 1).1;
    let half_log_tau = 0.5 * f64::from(std::f32::consts::TAU).ln() * c as f64;
    for ((z, log_likelihood), logdet) in z.chunks_exact(c).zip(log_likelihoods).zip(log_determinants) {
        *logdet += fixed.logdet as f32;
        let square: f32 = z.iter().map(|v| v * v).sum();
        *log_likelihood = ((f64::from(*logdet) - half_log_tau - 0.5 * f64::from(square)) / c as f64) as f32;
    }
}

pub(super) fn backward_tile(
    flow: &Flow,
    fixed: &Fixed,
    places: &[[u16; 2]],
    loss_gradient: &[f32],
    tape: &mut [f32],
    sums: &mut Sums,
) {
    let shape = &flow.shape;
    let (n, c, first, second, hidden) = (places.len(), shape.channels, shape.first(), shape.second(), shape.hidden);
    let (rows, columns) =
        (sums.row_tables.len() / (shape.blocks * hidden), sums.column_tables.len() / (shape.blocks * hidden));
    let layout = Layout::new(shape);
    let z = layout.block(tape, shape.blocks - 1).1;
    for (i, gradient) in loss_gradient.iter().enumerate() {
        for j in 0..c {
            sums.upstream[i * c + j] = -z[i * c + j] * gradient / c as f32;
        }
    }
    for block in (0..shape.blocks).rev() {
        let (kept, _) = layout.block(tape, block);
        // Through the rotation: dL/d(scaled) = upstream · Q.
        let rotation = Matrix::new(&flow.rotations[block], c, c, c);
        product(&mut sums.mixed, c, false, Matrix::new(&sums.upstream, n, c, c), rotation);
        let (global, offset_at) = (&fixed.scales[block].0, shape.range(block, Part::GlobalOffset));
        let (before_offset, from_offset) = sums.parameters.split_at_mut(offset_at.start);
        let d_offset = &mut from_offset[..c];
        let d_global = &mut before_offset[shape.range(block, Part::GlobalScale)];
        for i in 0..n {
            let mixed = &mut sums.mixed[i * c..][..c];
            let x = &kept.x[i * c..][..c];
            let changed = &kept.changed[i * second..][..second];
            let (tanh, scale) = (&kept.tanh[i * second..][..second], &kept.scale[i * second..][..second]);
            let output = &mut sums.output[i * 2 * second..][..2 * second];
            for j in 0..c {
                d_offset[j] += mixed[j];
            }
            for j in 0..first {
                d_global[j] += mixed[j] * x[j];
                mixed[j] *= global[j];
            }
            let d_logdet = loss_gradient[i] / c as f32;
            for j in 0..second {
                d_global[first + j] += mixed[first + j] * changed[j];
                let d_changed = mixed[first + j] * global[first + j];
                let d_scale = d_changed * x[first + j] * scale[j] + d_logdet;
                output[j] = DAMPING * CLAMP * (1.0 - tanh[j] * tanh[j]) * d_scale;
                output[second + j] = DAMPING * d_changed;
                mixed[first + j] = d_changed * scale[j];
            }
        }
        let d_bias = &mut sums.parameters[shape.range(block, Part::OutputBias)];
        for output in sums.output[..n * 2 * second].chunks_exact(2 * second) {
            d_bias.iter_mut().zip(output).for_each(|(a, b)| *a += b);
        }
        let output = Matrix::new(&sums.output, n, 2 * second, 2 * second);
        let d_weight = &mut sums.parameters[shape.range(block, Part::OutputWeight)];
        product(d_weight, hidden, true, output.t(), Matrix::new(kept.hidden, n, hidden, hidden));
        let weight = Matrix::new(flow.part(block, Part::OutputWeight), 2 * second, hidden, hidden);
        product(&mut sums.hidden, hidden, false, output, weight);
        let row_table = &mut sums.row_tables[block * rows * hidden..][..rows * hidden];
        let column_table = &mut sums.column_tables[block * columns * hidden..][..columns * hidden];
        for (i, place) in places.iter().enumerate() {
            let d_hidden = &mut sums.hidden[i * hidden..][..hidden];
            d_hidden.iter_mut().zip(&kept.hidden[i * hidden..][..hidden]).for_each(|(d, &h)| {
                *d = if h > 0.0 { *d } else { 0.0 };
            });
            let by_row = &mut row_table[usize::from(place[0]) * hidden..][..hidden];
            let by_column = &mut column_table[usize::from(place[1]) * hidden..][..hidden];
            for j in 0..hidden {
                by_row[j] += d_hidden[j];
                by_column[j] += d_hidden[j];
            }
        }
        let d_hidden = Matrix::new(&sums.hidden, n, hidden, hidden);
        let d_weight = &mut sums.parameters[shape.range(block, Part::FeatureWeight)];
        product(d_weight, first, true, d_hidden.t(), Matrix::new(kept.x, n, first, c));
        if block > 0 {
            let weight = Matrix::new(flow.part(block, Part::FeatureWeight), hidden, first, first);
            product(&mut sums.mixed, c, true, d_hidden, weight);
            std::mem::swap(&mut sums.mixed, &mut sums.upstream);
        }
    }
}
