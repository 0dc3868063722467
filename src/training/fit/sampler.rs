//! Which pixels a step sees.

use rand::Rng;
use rand::seq::SliceRandom;

/// Draws numbers below a count in random order, each once before any comes again.
#[derive(Debug, Clone)]
pub struct Sampler {
    order: Vec<u32>,
    next: usize,
}

impl Sampler {
    /// For the numbers `0..count`.
    pub fn new(count: usize) -> Self {
        Self { order: (0..count as u32).collect(), next: usize::MAX }
    }

    /// The next number; none where the count is 0.
    pub fn draw(&mut self, rng: &mut impl Rng) -> Option<usize> {
        if self.next >= self.order.len() {
            self.order.shuffle(rng);
            self.next = 0;
        }
        let drawn = self.order.get(self.next).copied()?;
        self.next += 1;
        Some(drawn as usize)
    }
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
    use super::{CellSampler, PictureCells, Sampler};
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
