//! Whole rows on vectors of 64 bytes; the rest as [`V3`] does it.

use std::arch::x86_64::__m512i;

use pulp::x86::{V3, V4};

use super::avx2::{fetch, numbers, together};
use super::axis::BITS;
use super::lanes::{HALF, Lanes, Rows, Tile};

/// Pixels of a vector.
const VECTOR: usize = 64;
/// Pixels of a row that are worked on at once.
const PIXELS: usize = 2 * VECTOR;

#[inline(always)]
fn vector(pixels: &[u8; VECTOR]) -> __m512i {
    pulp::cast(*pixels)
}

/// Of so many vectors' pixels, which are `PIXELS`, from `at` on.
#[inline(always)]
fn mean_of_many<const VECTORS: usize, const PIXELS: usize>(
    simd: V4,
    rows: Rows<'_>,
    weights: &[u16],
    at: usize,
) -> [[u8; VECTOR]; VECTORS] {
    let V4 { avx512f, avx512bw, .. } = simd;
    let zero = avx512f._mm512_setzero_si512();
    let mut sums = [[avx512f._mm512_set1_epi32(HALF as i32); 4]; VECTORS];
    for (number, pair) in weights.chunks(2).enumerate() {
        let (upper, lower) = numbers(number, pair);
        let weights = avx512f._mm512_set1_epi32(together(pair));
        let upper = rows.part::<PIXELS>(upper, at).as_chunks().0;
        let lower = rows.part::<PIXELS>(lower, at).as_chunks().0;
        for i in 0..VECTORS {
            let (upper, lower) = (vector(&upper[i]), vector(&lower[i]));
            let low = avx512bw._mm512_unpacklo_epi8(upper, lower);
            let high = avx512bw._mm512_unpackhi_epi8(upper, lower);
            let pairs = [
                avx512bw._mm512_unpacklo_epi8(low, zero),
                avx512bw._mm512_unpackhi_epi8(low, zero),
                avx512bw._mm512_unpacklo_epi8(high, zero),
                avx512bw._mm512_unpackhi_epi8(high, zero),
            ];
            for k in 0..4 {
                sums[i][k] = avx512f._mm512_add_epi32(sums[i][k], avx512bw._mm512_madd_epi16(pairs[k], weights));
            }
        }
    }
    let mut means = [[0; VECTOR]; VECTORS];
    for i in 0..VECTORS {
        let mut sums = sums[i];
        for k in 0..4 {
            sums[k] = avx512f._mm512_srli_epi32::<{ BITS }>(sums[k]);
        }
        // Packing puts them back into the order that unpacking took them out of.
        let [a, b, c, d] = sums;
        let halves = [avx512bw._mm512_packus_epi32(a, b), avx512bw._mm512_packus_epi32(c, d)];
        means[i] = pulp::cast(avx512bw._mm512_packus_epi16(halves[0], halves[1]));
    }
    means
}

impl Lanes for V4 {
    #[inline(always)]
    fn mean_of_rows(self, rows: Rows<'_>, weights: &[u16], next: usize, into: &mut [u8]) {
        if let Ok(into) = <&mut [u8; VECTOR]>::try_from(&mut *into) {
            [*into] = mean_of_many::<1, VECTOR>(self, rows, weights, 0);
            return;
        }
        let Some(last) = into.len().checked_sub(PIXELS) else {
            return V3::mean_of_rows(*self, rows, weights, next, into);
        };
        let mut at = 0;
        // The last part begins sooner than the one before it ends, where the row is no multiple.
        while at < into.len() {
            let from = at.min(last);
            for row in 0..next {
                fetch(rows, weights.len() + row, from);
                fetch(rows, weights.len() + row, from + VECTOR);
            }
            let means = mean_of_many::<2, PIXELS>(self, rows, weights, from);
            into[from..from + PIXELS].copy_from_slice(means.as_flattened());
            at += PIXELS;
        }
    }

    #[inline(always)]
    fn transposed(self, tile: Tile) -> Tile {
        V3::transposed(*self, tile)
    }
}
