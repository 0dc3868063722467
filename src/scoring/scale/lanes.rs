//! The two steps that scaling is made of.

use super::axis::BITS;

/// Rows that are scaled together, and bytes of a vector that stand for one column of them.
pub(super) const TOGETHER: usize = 64;
/// Rows and columns of a tile, of which [`TOGETHER`] is a multiple.
pub(super) const SIDE: usize = 16;
/// What is turned at once.
pub(super) type Tile = [[u8; SIDE]; SIDE];
/// What is added before fraction bits are cut off.
pub(super) const HALF: u32 = 1 << (BITS - 1);

/// Rows of pixels one below the other; the last may end early.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rows<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) stride: usize,
}

impl<'a> Rows<'a> {
    pub(super) fn from(self, row: usize) -> Self {
        Self { bytes: &self.bytes[row * self.stride..], ..self }
    }

    #[inline(always)]
    pub(super) fn part<const PIXELS: usize>(self, row: usize, at: usize) -> &'a [u8; PIXELS] {
        self.bytes[row * self.stride + at..].first_chunk().expect("rows are as long as what is made of them")
    }
}

/// How a processor works on many bytes at once; the same numbers come of each.
pub(super) trait Lanes: Copy {
    /// The mean of the first rows by their weights, as far as `into` reaches. The `next` rows below these are wanted
    /// soon: a vector's pixels are far from those of the row below, which processors do not foresee.
    fn mean_of_rows(self, rows: Rows<'_>, weights: &[u16], next: usize, into: &mut [u8]);

    /// Rows become columns.
    fn transposed(self, tile: Tile) -> Tile;
}

/// As any processor can.
#[derive(Debug, Clone, Copy)]
pub(super) struct Portable;

impl Lanes for Portable {
    #[inline(always)]
    fn mean_of_rows(self, rows: Rows<'_>, weights: &[u16], _: usize, into: &mut [u8]) {
        let (vectors, rest) = into.as_chunks_mut::<SIDE>();
        let rest_at = vectors.len() * SIDE;
        for (number, into) in vectors.iter_mut().enumerate() {
            let mut sums = [HALF; SIDE];
            for (row, &weight) in weights.iter().enumerate() {
                let pixels = rows.part::<SIDE>(row, number * SIDE);
                for i in 0..SIDE {
                    sums[i] += u32::from(pixels[i]) * u32::from(weight);
                }
            }
            for i in 0..SIDE {
                into[i] = (sums[i] >> BITS) as u8;
            }
        }
        for (at, into) in (rest_at..).zip(rest) {
            let pixel = |row: usize| u32::from(rows.bytes[row * rows.stride + at]);
            let sum = weights.iter().enumerate().fold(HALF, |sum, (row, &weight)| sum + pixel(row) * u32::from(weight));
            *into = (sum >> BITS) as u8;
        }
    }

    #[inline(always)]
    fn transposed(self, tile: Tile) -> Tile {
        std::array::from_fn(|row| std::array::from_fn(|column| tile[column][row]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(length: usize) -> Vec<u8> {
        (0..length).map(|at| (at.wrapping_mul(2_654_435_761) >> 11) as u8).collect()
    }

    #[test]
    fn vectors_give_what_single_bytes_give() {
        compare(Portable);
        #[cfg(target_arch = "x86_64")]
        {
            let wide = pulp::x86::V3::try_new();
            compare(wide.expect("a processor without AVX2 has nothing to compare"));
            if let Some(wider) = pulp::x86::V4::try_new() {
                compare(wider);
            }
        }
    }

    fn compare(wide: impl Lanes) {
        for (width, weights) in [
            (1, vec![1 << BITS]),
            (64, vec![5, 16379]),
            (127, vec![9000, 7384]),
            (128, vec![1, 2, 16381]),
            (300, vec![2048; 8]),
        ] {
            let stride = width + 7;
            let bytes = noise(stride * (weights.len() - 1) + width);
            let rows = Rows { bytes: &bytes, stride };
            let [mut one, mut many] = [(); 2].map(|()| vec![0; width]);
            Portable.mean_of_rows(rows, &weights, 0, &mut one);
            // There are no further rows, and what is not there is not brought.
            wide.mean_of_rows(rows, &weights, 2, &mut many);
            assert_eq!(one, many, "{width}");
        }
        let tile: Tile = noise(SIDE * SIDE).as_chunks().0.try_into().unwrap();
        let turned = Portable.transposed(tile);
        assert_eq!((turned[3][5], turned[15][0]), (tile[5][3], tile[0][15]));
        assert_eq!(wide.transposed(tile), turned);
    }
}
