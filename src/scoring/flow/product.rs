//! Products of a constant matrix with the vectors of a tile of cells.

use ndarray::ArrayView2;
use pulp::Simd;

/// Vectors of a tile: the columns of a product that are worked on at once.
pub(super) const TILE: usize = 4;
/// Outputs of a panel: so many rows of the product are kept in registers.
const PANEL: usize = 8;

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
    inputs: usize,
    values: Vec<f32>,
}

impl Panels {
    pub(super) fn pack(matrix: ArrayView2<'_, f32>) -> Self {
        let (inputs, outputs) = matrix.dim();
        let mut values = Vec::with_capacity(inputs * padded(outputs));
        for first in (0..outputs).step_by(PANEL) {
            for input in 0..inputs {
                values.extend((first..first + PANEL).map(|output| matrix.get((input, output)).copied().unwrap_or(0.0)));
            }
        }
        Self { inputs, values }
    }

    /// `out[m] = start(m) + sum over k of matrix[k, m] * x[k]`, then finished, for every vector of a
    /// tile.
    #[inline(always)]
    pub(super) fn multiply<S: Simd>(&self, simd: S, x: &[Lanes<S>], out: &mut [Lanes<S>], ends: &impl Ends<S>) {
        let x = &x[..self.inputs];
        let panels = self.values.chunks_exact((self.inputs * PANEL).max(1));
        for (number, (panel, out)) in panels.zip(out.as_chunks_mut::<PANEL>().0).enumerate() {
            let first = number * PANEL;
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
    for (row, sums) in sums.iter_mut().enumerate() {
        for (n, sum) in sums.iter_mut().enumerate() {
            *sum = ends.start(simd, first + row, FROM + n);
        }
    }
    for (weights, x) in panel.as_chunks::<PANEL>().0.iter().zip(x) {
        for (sums, &weight) in sums.iter_mut().zip(weights) {
            let weight = simd.splat_f32s(weight);
            for (n, sum) in sums.iter_mut().enumerate() {
                *sum = simd.mul_add_e_f32s(weight, x[FROM + n], *sum);
            }
        }
    }
    for (sums, out) in sums.iter().zip(out) {
        for (n, &sum) in sums.iter().enumerate() {
            out[FROM + n] = ends.finish(simd, sum);
        }
    }
}
