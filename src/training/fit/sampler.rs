//! Which pixels a step sees.

use rand::Rng;
use rand::seq::SliceRandom;

/// Up to so many numbers their order is stored; of more it is computed, or it would take more memory
/// than all else in training.
const STORED: usize = 1 << 20;

/// Draws numbers below a count in random order, each once before any comes again.
#[derive(Debug, Clone)]
pub struct Sampler {
    order: Order,
    count: usize,
    next: usize,
}

#[derive(Debug, Clone)]
enum Order {
    Stored(Vec<u32>),
    Computed(Scramble),
}

impl Sampler {
    /// For the numbers `0..count`.
    pub fn new(count: usize) -> Self {
        let order = if count <= STORED {
            Order::Stored((0..count as u32).collect())
        } else {
            Order::Computed(Scramble { keys: [0; 4], half_bits: (count as u64).ilog2() / 2 + 1, count: count as u64 })
        };
        Self { order, count, next: usize::MAX }
    }

    /// The next number; none where the count is 0.
    pub fn draw(&mut self, rng: &mut impl Rng) -> Option<usize> {
        if self.next >= self.count {
            match &mut self.order {
                Order::Stored(order) => order.shuffle(rng),
                Order::Computed(scramble) => scramble.keys = std::array::from_fn(|_| rng.next_u64()),
            }
            self.next = 0;
        }
        let drawn = match &self.order {
            Order::Stored(order) => *order.get(self.next)? as usize,
            Order::Computed(scramble) => scramble.at(self.next as u64) as usize,
        };
        self.next += 1;
        Some(drawn)
    }
}

/// A random-looking permutation of `0..count` without a table: a Feistel network on the next even
/// number of bits, walked on where it leaves the range (at most a few steps, as the range is at least
/// an eighth of what the bits can say).
#[derive(Debug, Clone)]
struct Scramble {
    keys: [u64; 4],
    half_bits: u32,
    count: u64,
}

impl Scramble {
    fn at(&self, mut number: u64) -> u64 {
        let mask = (1 << self.half_bits) - 1;
        loop {
            let (mut left, mut right) = (number >> self.half_bits, number & mask);
            for key in self.keys {
                (left, right) = (right, left ^ (mix(right ^ key) & mask));
            }
            number = left << self.half_bits | right;
            if number < self.count {
                return number;
            }
        }
    }
}

/// Every bit of the result depends on every bit given (the finaliser of SplitMix64).
fn mix(mut v: u64) -> u64 {
    v = (v ^ (v >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    v = (v ^ (v >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    v ^ (v >> 31)
}

/// Cells of one picture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PictureCells {
    /// Number of the picture in its bank.
    pub picture: usize,
    /// Numbers of the cells.
    pub cells: Vec<u32>,
}

/// Draws cells evenly over pictures: a defect of ten cells comes as often as one of a thousand, which
/// a draw over all cells would drown in the larger one's.
#[derive(Debug)]
pub struct CellSampler<'a> {
    pictures: Sampler,
    cells: Vec<(&'a PictureCells, Sampler)>,
}

impl<'a> CellSampler<'a> {
    /// For the given cells; pictures without any are passed over.
    pub fn new(pictures: &'a [PictureCells]) -> Self {
        let cells: Vec<_> = pictures
            .iter()
            .filter(|picture| !picture.cells.is_empty())
            .map(|picture| (picture, Sampler::new(picture.cells.len())))
            .collect();
        Self { pictures: Sampler::new(cells.len()), cells }
    }

    /// Whether there is nothing to draw.
    pub fn is_empty(&self) -> bool {
        self.cells.is_empty()
    }

    /// The next (picture, cell); none where there are none.
    pub fn draw(&mut self, rng: &mut impl Rng) -> Option<(usize, usize)> {
        let (picture, sampler) = &mut self.cells[self.pictures.draw(rng)?];
        let cell = picture.cells[sampler.draw(rng)?];
        Some((picture.picture, cell as usize))
    }
}

#[cfg(test)]
mod tests {
    use super::{CellSampler, PictureCells, STORED, Sampler};
    use rand::SeedableRng;

    #[test]
    fn every_number_comes_once_before_any_comes_again() {
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(1);
        let mut sampler = Sampler::new(7);
        for _ in 0..3 {
            let mut round: Vec<_> = (0..7).filter_map(|_| sampler.draw(&mut rng)).collect();
            round.sort_unstable();
            assert_eq!(round, (0..7).collect::<Vec<_>>());
        }
        assert_eq!(Sampler::new(0).draw(&mut rng), None);
    }

    #[test]
    fn many_numbers_come_once_each_too_and_spread_over_the_range() {
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(1);
        let count = STORED + 12_345;
        let mut sampler = Sampler::new(count);
        let mut seen = vec![false; count];
        let mut low = 0;
        for i in 0..count {
            let drawn = sampler.draw(&mut rng).unwrap();
            assert!(!std::mem::replace(&mut seen[drawn], true));
            low += usize::from(i < 10_000 && drawn < count / 4);
        }
        assert!((2300..2700).contains(&low), "{low}");
    }

    #[test]
    fn a_small_picture_comes_as_often_as_a_large_one() {
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(1);
        let cells = |picture, count| PictureCells { picture, cells: (0..count).collect() };
        let pictures = [cells(3, 1), cells(4, 0), cells(7, 1000)];
        let mut sampler = CellSampler::new(&pictures);
        let drawn: Vec<_> = (0..40).filter_map(|_| sampler.draw(&mut rng)).collect();
        assert_eq!(drawn.iter().filter(|(picture, _)| *picture == 3).count(), 20);
        assert_eq!(drawn.iter().filter(|(picture, _)| *picture == 7).count(), 20);
        assert!(CellSampler::new(&pictures[1..2]).is_empty());
    }
}
