//! Products of a constant matrix with the vectors of a tile of cells.

use ndarray::ArrayView2;
use pulp::Simd;

/// Vectors of a tile: the columns of a product that are worked on at once.
pub(super) const TILE: usize = 4;
/// Outputs of a panel: so many rows of the product are kept in registers.
const PANEL: usize = 8;
/// Inputs of a panel up to which they are taken together first.
const FEW: usize = PANEL;

/// Values of a channel for the cells of a tile.
pub(super) type Lanes<S> = [<S as Simd>::f32s; TILE];

/// The vector at the beginning of a slice that is long enough.
#[inline(always)]
pub(super) fn lanes_at<S: Simd>(values: &[f32]) -> S::f32s {
    S::as_simd_f32s(&values[..S::F32_LANES]).0[0]
}

/// Rows of a buffer that a product of so many outputs writes.
pub(super) fn padded(outputs: usize) -> usize {
    outputs.next_multiple_of(PANEL)
}

/// A matrix `[K, M]` in the order in which a product reads it: panels of [`PANEL`] outputs, in each
/// every input's weights beside each other; zeros beyond M.
#[derive(Debug)]
pub(super) struct Panels {
    /// Inputs of a panel.
    inputs: usize,
    values: Vec<f32>,
    /// Which inputs each panel has, where it has few of them.
    which: Option<Vec<usize>>,
}

impl Panels {
    pub(super) fn pack(matrix: ArrayView2<'_, f32>) -> Self {
        let (inputs, outputs) = matrix.dim();
        let firsts = (0..outputs).step_by(PANEL);
        let weighs = |input, first: usize| (first..outputs.min(first + PANEL)).any(|m| matrix[(input, m)] != 0.0);
        let mut which: Vec<Vec<usize>> =
            firsts.clone().map(|first| (0..inputs).filter(|&input| weighs(input, first)).collect()).collect();
        let most = which.iter().map(Vec::len).max().unwrap_or(0).max(1);
        // To take them takes time, too.
        let few = most <= FEW && most * 2 <= inputs;
        let count = if few { most } else { inputs };
        for (which, first) in which.iter_mut().zip(firsts.clone()) {
            // As many in every panel: others add nothing.
            which.extend((0..inputs).filter(|&input| !weighs(input, first)).take(count - which.len()));
            which.sort_unstable();
        }
        let weight = |input, m| matrix.get((input, m)).copied().unwrap_or(0.0);
        let values = firsts.zip(&which).flat_map(|(first, which)| {
            which.iter().flat_map(move |&input| (first..first + PANEL).map(move |m| weight(input, m)))
        });
        Self { inputs: count, values: values.collect(), which: few.then(|| which.concat()) }
    }

    /// `out[m] = start(m) + sum over k of matrix[k, m] * x[k]`, then finished, for every vector of a
    /// tile.
    #[inline(always)]
    pub(super) fn multiply<S: Simd>(&self, simd: S, x: &[Lanes<S>], out: &mut [Lanes<S>], ends: &impl Ends<S>) {
        let mut taken = [[simd.splat_f32s(0.0); TILE]; FEW];
        let panels = self.values.chunks_exact((self.inputs * PANEL).max(1));
        for (number, (panel, out)) in panels.zip(out.as_chunks_mut::<PANEL>().0).enumerate() {
            let first = number * PANEL;
            let x = match &self.which {
                None => x,
                // Beside each other, so that what follows is the same code.
                Some(which) => {
                    for (taken, &input) in taken.iter_mut().zip(&which[number * self.inputs..]) {
                        *taken = x[input];
                    }
                    &taken
                }
            };
            let x = &x[..self.inputs];
            // As many sums as the registers hold beside what is multiplied.
            if S::REGISTER_COUNT >= 32 {
                columns::<S, 2, 0>(simd, panel, x, first, out, ends);
                columns::<S, 2, 2>(simd, panel, x, first, out, ends);
            } else {
                columns::<S, 1, 0>(simd, panel, x, first, out, ends);
                columns::<S, 1, 1>(simd, panel, x, first, out, ends);
                columns::<S, 1, 2>(simd, panel, x, first, out, ends);
                columns::<S, 1, 3>(simd, panel, x, first, out, ends);
            }
        }
    }
}

/// What a sum begins with and what becomes of it. Not closures: those are not always inlined, and a
/// call for every sum takes as long as the sum.
pub(super) trait Ends<S: Simd> {
    /// Asked for every padded output.
    fn start(&self, simd: S, output: usize, vector: usize) -> S::f32s;

    fn finish(&self, simd: S, sum: S::f32s) -> S::f32s;
}

/// Outputs with a number of their own added, the same for every cell.
pub(super) struct Bias<'a>(pub(super) &'a [f32]);

impl<S: Simd> Ends<S> for Bias<'_> {
    #[inline(always)]
    fn start(&self, simd: S, output: usize, _: usize) -> S::f32s {
        simd.splat_f32s(self.0[output])
    }

    #[inline(always)]
    fn finish(&self, _: S, sum: S::f32s) -> S::f32s {
        sum
    }
}

/// A step for every output of a panel, written out with its number as a constant. Of a loop it depends on what else the
/// compiler has at hand whether it is unrolled, and an array that a loop goes through lies in memory, not in registers.
macro_rules! every_output {
    ($output:ident => $step:block) => {
        every_output!($output => $step; 0 1 2 3 4 5 6 7)
    };
    ($output:ident => $step:block; $($number:literal)*) => {
        const { assert!([$($number),*].len() == PANEL) };
        $({ const $output: usize = $number; $step })*
    };
}

/// The product of one panel, of the outputs from `first` on, for `N` vectors from `FROM` on.
#[inline(always)]
fn columns<S: Simd, const N: usize, const FROM: usize>(
    simd: S,
    panel: &[f32],
    x: &[Lanes<S>],
    first: usize,
    out: &mut [Lanes<S>; PANEL],
    ends: &impl Ends<S>,
) {
    let mut sums = [[simd.splat_f32s(0.0); N]; PANEL];
    every_output!(OUTPUT => {
        for n in 0..N {
            sums[OUTPUT][n] = ends.start(simd, first + OUTPUT, FROM + n);
        }
    });
    for (weights, x) in panel.as_chunks::<PANEL>().0.iter().zip(x) {
        every_output!(OUTPUT => {
            let weight = simd.splat_f32s(weights[OUTPUT]);
            for n in 0..N {
                sums[OUTPUT][n] = simd.mul_add_e_f32s(weight, x[FROM + n], sums[OUTPUT][n]);
            }
        });
    }
    every_output!(OUTPUT => {
        for n in 0..N {
            out[OUTPUT][FROM + n] = ends.finish(simd, sums[OUTPUT][n]);
        }
    });
}

#[cfg(test)]
mod tests {
    use ndarray::{Array1, Array2};
    use pulp::{Arch, WithSimd};
    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;

    /// The products of both matrices with the same vector in every lane: those of the best vectors and of none.
    struct Product<'a>(&'a Panels, &'a [f32], &'a [f32]);

    impl WithSimd for Product<'_> {
        type Output = Vec<f32>;

        fn with_simd<S: Simd>(self, simd: S) -> Vec<f32> {
            let x: Vec<Lanes<S>> = self.1.iter().map(|&value| [simd.splat_f32s(value); TILE]).collect();
            let mut out = vec![[simd.splat_f32s(f32::NAN); TILE]; self.2.len()];
            self.0.multiply(simd, &x, &mut out, &Bias(self.2));
            out.iter().map(|lanes| simd.reduce_max_f32s(lanes[TILE - 1])).collect()
        }
    }

    #[test]
    fn a_matrix_with_few_inputs_a_panel_gives_what_it_gives_as_a_whole() {
        let mut rng = ChaCha8Rng::seed_from_u64(6);
        let (inputs, outputs) = (40, 21);
        let whole = Array2::from_shape_simple_fn((inputs, outputs), || rng.random_range(-1.0f32..1.0));
        // Each panel of its own inputs, the last of fewer.
        let dealt = Array2::from_shape_fn((inputs, outputs), |(input, output)| {
            if (input * 7) % 11 == output / PANEL && input > output { whole[(input, output)] } else { 0.0 }
        });
        let nothing = Array2::zeros((inputs, outputs));
        let x = Array1::from_shape_simple_fn(inputs, || rng.random_range(-1.0f32..1.0));
        let bias: Vec<f32> = (0..padded(outputs)).map(|output| output as f32 * 0.1).collect();
        for (matrix, few) in [(whole, false), (dealt, true), (nothing, true)] {
            let panels = Panels::pack(matrix.view());
            assert_eq!(panels.which.is_some(), few);
            let expected = x.dot(&matrix);
            for found in [
                Arch::new().dispatch(Product(&panels, x.as_slice().unwrap(), &bias)),
                Product(&panels, x.as_slice().unwrap(), &bias).with_simd(pulp::Scalar),
            ] {
                for (output, expected) in expected.iter().enumerate() {
                    let expected = expected + bias[output];
                    assert!((found[output] - expected).abs() < 1e-5, "{output}: {}, not {expected}", found[output]);
                }
            }
        }
    }
}
