//! Both steps on vectors of 32 bytes.

use std::arch::x86_64::{__m128i, __m256i};

use pulp::x86::V3;

use super::axis::BITS;
use super::lanes::{HALF, Lanes, Portable, Rows, TOGETHER, Tile};

/// Vectors that are worked on at once.
const VECTORS: usize = 2;
/// Pixels of them.
const PIXELS: usize = VECTORS * 32;

/// The weights of two rows, as often as a vector holds them: products of pairs are added by one instruction.
#[inline(always)]
fn both(simd: V3, pair: &[u16]) -> __m256i {
    let second = if pair.len() > 1 { pair[1] } else { 0 };
    simd.avx._mm256_set1_epi32((u32::from(second) << 16 | u32::from(pair[0])) as i32)
}

/// Numbers of the two rows of a pair; twice the same where there is one.
#[inline(always)]
fn numbers(number: usize, pair: &[u16]) -> (usize, usize) {
    (2 * number, 2 * number + pair.len() - 1)
}

/// Of 16 pixels from `at` on.
#[inline(always)]
fn mean_of_few(simd: V3, rows: Rows<'_>, weights: &[u16], at: usize) -> [u8; TOGETHER] {
    let V3 { sse2, avx, avx2, .. } = simd;
    let mut sums = [avx._mm256_set1_epi32(HALF as i32); 2];
    for (number, pair) in weights.chunks(2).enumerate() {
        let (upper, lower) = numbers(number, pair);
        let weights = both(simd, pair);
        let upper: __m128i = pulp::cast(*rows.part::<TOGETHER>(upper, at));
        let lower: __m128i = pulp::cast(*rows.part::<TOGETHER>(lower, at));
        let halves = [sse2._mm_unpacklo_epi8(upper, lower), sse2._mm_unpackhi_epi8(upper, lower)];
        for i in 0..2 {
            let products = avx2._mm256_madd_epi16(avx2._mm256_cvtepu8_epi16(halves[i]), weights);
            sums[i] = avx2._mm256_add_epi32(sums[i], products);
        }
    }
    let [low, high] =
        [avx2._mm256_srli_epi32::<{ BITS as i32 }>(sums[0]), avx2._mm256_srli_epi32::<{ BITS as i32 }>(sums[1])];
    // Packing works within halves of a vector; the middle quarters change places.
    let means = avx2._mm256_permute4x64_epi64::<0b11_01_10_00>(avx2._mm256_packus_epi32(low, high));
    let halves: [__m128i; 2] = pulp::cast(means);
    pulp::cast(sse2._mm_packus_epi16(halves[0], halves[1]))
}

/// Of [`PIXELS`] from `at` on.
#[inline(always)]
fn mean_of_many(simd: V3, rows: Rows<'_>, weights: &[u16], at: usize) -> [u8; PIXELS] {
    let V3 { avx, avx2, .. } = simd;
    let zero = avx._mm256_setzero_si256();
    let mut sums = [[avx._mm256_set1_epi32(HALF as i32); 4]; VECTORS];
    for (number, pair) in weights.chunks(2).enumerate() {
        let (upper, lower) = numbers(number, pair);
        let weights = both(simd, pair);
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

impl Lanes for V3 {
    #[inline(always)]
    fn mean_of_rows(self, rows: Rows<'_>, weights: &[u16], into: &mut [u8]) {
        if let Ok(into) = <&mut [u8; TOGETHER]>::try_from(&mut *into) {
            *into = mean_of_few(self, rows, weights, 0);
            return;
        }
        let Some(last) = into.len().checked_sub(PIXELS) else { return Portable.mean_of_rows(rows, weights, into) };
        let mut at = 0;
        // The last part begins sooner than the one before it ends, where the row is no multiple.
        while at < into.len() {
            let from = at.min(last);
            *into[from..].first_chunk_mut().expect("as many are left") = mean_of_many(self, rows, weights, from);
            at += PIXELS;
        }
    }

    #[inline(always)]
    fn transposed(self, tile: Tile) -> Tile {
        let mut rows: [__m128i; TOGETHER] = pulp::cast(tile);
        // Every round doubles what stands together of a column.
        for _ in 0..TOGETHER.ilog2() {
            let before = rows;
            for i in 0..TOGETHER / 2 {
                let (upper, lower) = (before[i], before[i + TOGETHER / 2]);
                rows[2 * i] = self.sse2._mm_unpacklo_epi8(upper, lower);
                rows[2 * i + 1] = self.sse2._mm_unpackhi_epi8(upper, lower);
            }
        }
        pulp::cast(rows)
    }
}
