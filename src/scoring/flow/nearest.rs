//! The distance to the nearest of a few vectors.

use ndarray::{ArrayView2, Axis};
use pulp::Simd;

use super::product::{Bias, Lanes, Panels, TILE, padded};
use super::{NEAREST_FLOOR, NEAREST_LIMIT};

/// Vectors that are compared with at once: their products stay in the nearest cache.
pub(super) const AT_ONCE: usize = 64;

/// Vectors `m` to compare with, ready for products.
#[derive(Debug)]
pub(super) struct Nearest {
    /// Of up to [`AT_ONCE`] each: `-2 m`, and `|m|²`, beyond the last vector infinite.
    parts: Vec<(Panels, Vec<f32>)>,
}

impl Nearest {
    /// Of vectors `[vector, C]`.
    pub(super) fn new(vectors: ArrayView2<'_, f32>) -> Self {
        let part = |vectors: ArrayView2<'_, f32>| {
            let mut squares: Vec<f32> = vectors.rows().into_iter().map(|vector| vector.dot(&vector)).collect();
            squares.resize(padded(vectors.nrows()), f32::INFINITY);
            (Panels::pack((&vectors * -2.0).t()), squares)
        };
        Self { parts: vectors.axis_chunks_iter(Axis(0), AT_ONCE).map(part).collect() }
    }

    /// What a tile's whitened vectors say, see [`super::NEAREST_INPUTS`]; cuts them off. `products` has room for
    /// [`AT_ONCE`].
    #[inline(always)]
    pub(super) fn compare<S: Simd>(&self, simd: S, x: &mut [Lanes<S>], products: &mut [Lanes<S>]) -> Lanes<S> {
        let (lowest, highest) = (simd.splat_f32s(-NEAREST_LIMIT), simd.splat_f32s(NEAREST_LIMIT));
        let mut squares = [simd.splat_f32s(0.0); TILE];
        for x in x.iter_mut() {
            for (sum, x) in squares.iter_mut().zip(x) {
                // Before it is cut off: what is no number must not become one.
                let broken = simd.mul_f32s(simd.sub_f32s(*x, *x), simd.splat_f32s(0.0));
                *x = simd.add_f32s(simd.max_f32s(lowest, simd.min_f32s(highest, *x)), broken);
                *sum = simd.mul_add_e_f32s(*x, *x, *sum);
            }
        }
        let mut least = [simd.splat_f32s(f32::INFINITY); TILE];
        for (vectors, squares) in &self.parts {
            vectors.multiply(simd, x, products, &Bias(squares));
            for product in &products[..squares.len()] {
                for (least, &product) in least.iter_mut().zip(product) {
                    *least = simd.min_f32s(*least, product);
                }
            }
        }
        let each = simd.splat_f32s(1.0 / x.len() as f32);
        std::array::from_fn(|v| {
            // Rounding can leave a little less than nothing of a small distance; the floor is more than that.
            let square = simd.add_f32s(least[v], squares[v]);
            let root = simd.sqrt_f32s(simd.mul_add_e_f32s(square, each, simd.splat_f32s(NEAREST_FLOOR)));
            simd.sub_f32s(simd.splat_f32s(0.0), root)
        })
    }
}
