//! Both steps on vectors of 32 bytes and less.

use std::arch::x86_64::{__m128i, __m256i, _MM_HINT_T1, _mm_prefetch};

use pulp::x86::V3;

use super::axis::BITS;
use super::lanes::{HALF, Lanes, Portable, Rows, SIDE, Tile};

/// Vectors that are worked on at once.
const VECTORS: usize = 2;
/// Pixels of them.
const PIXELS: usize = VECTORS * 32;

/// The weights of two rows as a vector has them many times: products of pairs are added by one instruction.
#[inline(always)]
pub(super) fn together(pair: &[u16]) -> i32 {
    let second = if pair.len() > 1 { pair[1] } else { 0 };
    (u32::from(second) << 16 | u32::from(pair[0])) as i32
}

/// Numbers of the two rows of a pair; twice the same where there is one.
#[inline(always)]
pub(super) fn numbers(number: usize, pair: &[u16]) -> (usize, usize) {
    (2 * number, 2 * number + pair.len() - 1)
}

/// Of [`PIXELS`] from `at` on.
#[inline(always)]
fn mean_of_many(simd: V3, rows: Rows<'_>, weights: &[u16], at: usize) -> [u8; PIXELS] {
    let V3 { avx, avx2, .. } = simd;
    let zero = avx._mm256_setzero_si256();
    let mut sums = [[avx._mm256_set1_epi32(HALF as i32); 4]; VECTORS];
    for (number, pair) in weights.chunks(2).enumerate() {
        let (upper, lower) = numbers(number, pair);
        let weights = avx._mm256_set1_epi32(together(pair));
        let upper: [__m256i; VECTORS] = pulp::cast(*rows.part::<PIXELS>(upper, at));
        let lower: [__m256i; VECTORS] = pulp::cast(*rows.part::<PIXELS>(lower, at));
        for i in 0..VECTORS {
            let low = avx2._mm256_unpacklo_epi8(upper[i], lower[i]);
            let high = avx2._mm256_unpackhi_epi8(upper[i], lower[i]);
            let pairs = [
                avx2._mm256_unpacklo_epi8(low, zero),
                avx2._mm256_unpackhi_epi8(low, zero),
                avx2._mm256_unpacklo_epi8(high, zero),
                avx2._mm256_unpackhi_epi8(high, zero),
            ];
            for k in 0..4 {
                sums[i][k] = avx2._mm256_add_epi32(sums[i][k], avx2._mm256_madd_epi16(pairs[k], weights));
            }
        }
    }
    let mut means = [zero; VECTORS];
    for i in 0..VECTORS {
        let mut sums = sums[i];
        for k in 0..4 {
            sums[k] = avx2._mm256_srli_epi32::<{ BITS as i32 }>(sums[k]);
        }
        // Packing puts them back into the order that unpacking took them out of.
        let [a, b, c, d] = sums;
        means[i] = avx2._mm256_packus_epi16(avx2._mm256_packus_epi32(a, b), avx2._mm256_packus_epi32(c, d));
    }
    pulp::cast(means)
}

/// Has the processor bring the pixels at a place, where there are such, into its cache.
#[inline(always)]
#[expect(unsafe_code, reason = "an instruction that takes an address")]
pub(super) fn fetch(rows: Rows<'_>, row: usize, at: usize) {
    if let Some(pixel) = rows.bytes.get(row * rows.stride + at) {
        // SAFETY: it reads nothing, and the address is that of a byte.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(std::ptr::from_ref(pixel).cast()) };
    }
}

impl Lanes for V3 {
    #[inline(always)]
    fn mean_of_rows(self, rows: Rows<'_>, weights: &[u16], next: usize, into: &mut [u8]) {
        let Some(last) = into.len().checked_sub(PIXELS) else {
            return Portable.mean_of_rows(rows, weights, next, into);
        };
        let mut at = 0;
        // The last part begins sooner than the one before it ends, where the row is no multiple.
        while at < into.len() {
            let from = at.min(last);
            for row in 0..next {
                fetch(rows, weights.len() + row, from);
            }
            *into[from..].first_chunk_mut().expect("as many are left") = mean_of_many(self, rows, weights, from);
            at += PIXELS;
        }
    }

    #[inline(always)]
    fn transposed(self, tile: Tile) -> Tile {
        let mut rows: [__m128i; SIDE] = pulp::cast(tile);
        // Every round doubles what stands together of a column.
        for _ in 0..SIDE.ilog2() {
            let before = rows;
            for i in 0..SIDE / 2 {
                let (upper, lower) = (before[i], before[i + SIDE / 2]);
                rows[2 * i] = self.sse2._mm_unpacklo_epi8(upper, lower);
                rows[2 * i + 1] = self.sse2._mm_unpackhi_epi8(upper, lower);
            }
        }
        pulp::cast(rows)
    }
}
