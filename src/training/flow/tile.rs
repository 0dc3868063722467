//! One tile of pixels, forward and backward.

use pulp::{Simd, WithSimd};

use super::elementary;
use super::parameters::{DAMPING, Flow, FlowShape, Part};
use super::product::{Matrix, product};
use super::rotation::Rotation;
use super::tape::{Layout, TILE};
use crate::scoring::flow::CLAMP;

/// What does not depend on the pixel: computed once per pass.
pub(super) struct Fixed<'a> {
    /// Of every block.
    pub(super) rotations: Vec<Rotation<'a>>,
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

/// A tile's way forward.
pub(super) struct Forward<'a> {
    pub(super) flow: &'a Flow,
    pub(super) fixed: &'a Fixed<'a>,
    pub(super) features: &'a [f32],
    pub(super) places: &'a [[u16; 2]],
    pub(super) tape: &'a mut [f32],
    pub(super) scratch: &'a mut Scratch,
    pub(super) log_likelihoods: &'a mut [f32],
    pub(super) log_determinants: &'a mut [f32],
}

impl WithSimd for Forward<'_> {
    type Output = ();

    /// No vector is named here: what is between the products is compiled for the widest that there are.
    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let Self { flow, fixed, features, places, tape, scratch, log_likelihoods, log_determinants } = self;
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
            // Each slice exactly as long as its loop: only then is it vector code.
            let (shift_bias, offsets) = (&bias[second..][..second], offset.split_at(first));
            let (bias, globals) = (&bias[..second], global.split_at(first));
            for i in 0..n {
                let (output, output_shift) = scratch.output[i * 2 * second..][..2 * second].split_at(second);
                let (x1, x2) = kept.x[i * c..][..c].split_at(first);
                let tanh = &mut kept.tanh[i * second..][..second];
                let scale = &mut kept.scale[i * second..][..second];
                let changed = &mut kept.changed[i * second..][..second];
                let (scaled1, scaled2) = scratch.scaled[i * c..][..c].split_at_mut(first);
                let x2 = &x2[..second];
                for j in 0..second {
                    tanh[j] = elementary::tanh(DAMPING * (output[j] + bias[j]));
                }
                for j in 0..second {
                    scale[j] = elementary::exp(CLAMP * tanh[j]);
                    changed[j] = x2[j] * scale[j] + DAMPING * (output_shift[j] + shift_bias[j]);
                }
                log_determinants[i] += CLAMP * elementary::sum(tanh, |v| v);
                scale_and_shift(x1, globals.0, offsets.0, scaled1);
                scale_and_shift(changed, globals.1, offsets.1, scaled2);
            }
            fixed.rotations[block].apply(&scratch.scaled[..n * c], next, c);
        }
        let z = layout.block(tape, shape.blocks - 1).1;
        let half_log_tau = 0.5 * f64::from(std::f32::consts::TAU).ln() * c as f64;
        for ((z, log_likelihood), logdet) in z.chunks_exact(c).zip(log_likelihoods).zip(log_determinants) {
            *logdet += fixed.logdet as f32;
            let square = elementary::sum(z, |v| v * v);
            *log_likelihood = ((f64::from(*logdet) - half_log_tau - 0.5 * f64::from(square)) / c as f64) as f32;
        }
    }
}

/// `out = x * scale + shift`.
#[inline(always)]
fn scale_and_shift(x: &[f32], scale: &[f32], shift: &[f32], out: &mut [f32]) {
    for (((out, x), scale), shift) in out.iter_mut().zip(x).zip(scale).zip(shift) {
        *out = x * scale + shift;
    }
}

/// A tile's way back.
pub(super) struct Backward<'a> {
    pub(super) flow: &'a Flow,
    pub(super) fixed: &'a Fixed<'a>,
    pub(super) places: &'a [[u16; 2]],
    pub(super) loss_gradient: &'a [f32],
    pub(super) tape: &'a mut [f32],
    pub(super) sums: &'a mut Sums,
}

impl WithSimd for Backward<'_> {
    type Output = ();

    /// As there.
    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let Self { flow, fixed, places, loss_gradient, tape, sums } = self;
        let shape = &flow.shape;
        let (n, c, first, second, hidden) = (places.len(), shape.channels, shape.first(), shape.second(), shape.hidden);
        let (rows, columns) =
            (sums.row_tables.len() / (shape.blocks * hidden), sums.column_tables.len() / (shape.blocks * hidden));
        let layout = Layout::new(shape);
        let z = layout.block(tape, shape.blocks - 1).1;
        for ((upstream, z), gradient) in sums.upstream.chunks_exact_mut(c).zip(z.chunks_exact(c)).zip(loss_gradient) {
            upstream.iter_mut().zip(z).for_each(|(upstream, z)| *upstream = -z * gradient / c as f32);
        }
        for block in (0..shape.blocks).rev() {
            let (kept, _) = layout.block(tape, block);
            // Through the rotation: dL/d(scaled) = upstream · Q.
            fixed.rotations[block].apply_back(&sums.upstream[..n * c], &mut sums.mixed, c);
            let (global, offset_at) = (&fixed.scales[block].0, shape.range(block, Part::GlobalOffset));
            let (before_offset, from_offset) = sums.parameters.split_at_mut(offset_at.start);
            let d_offset = &mut from_offset[..c];
            let d_global = &mut before_offset[shape.range(block, Part::GlobalScale)];
            let (d_global1, d_global2) = d_global.split_at_mut(first);
            let (global1, global2) = global.split_at(first);
            let (d_global2, global2) = (&mut d_global2[..second], &global2[..second]);
            for i in 0..n {
                let mixed = &mut sums.mixed[i * c..][..c];
                d_offset.iter_mut().zip(&*mixed).for_each(|(sum, value)| *sum += value);
                let (mixed1, mixed2) = mixed.split_at_mut(first);
                let (x1, x2) = kept.x[i * c..][..c].split_at(first);
                for (((mixed, x), d_global), global) in mixed1.iter_mut().zip(x1).zip(&mut *d_global1).zip(global1) {
                    *d_global += *mixed * x;
                    *mixed *= global;
                }
                let (mixed, x) = (&mut mixed2[..second], &x2[..second]);
                let changed = &kept.changed[i * second..][..second];
                let (tanh, scale) = (&kept.tanh[i * second..][..second], &kept.scale[i * second..][..second]);
                let (output, output_shift) = sums.output[i * 2 * second..][..2 * second].split_at_mut(second);
                let output_shift = &mut output_shift[..second];
                let d_logdet = loss_gradient[i] / c as f32;
                for j in 0..second {
                    d_global2[j] += mixed[j] * changed[j];
                    let d_changed = mixed[j] * global2[j];
                    let d_scale = d_changed * x[j] * scale[j] + d_logdet;
                    output[j] = DAMPING * CLAMP * (1.0 - tanh[j] * tanh[j]) * d_scale;
                    output_shift[j] = DAMPING * d_changed;
                    mixed[j] = d_changed * scale[j];
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
                for ((d, by_row), by_column) in d_hidden.iter().zip(by_row).zip(by_column) {
                    *by_row += d;
                    *by_column += d;
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
}
