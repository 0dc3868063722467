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

#[cfg(test)]
mod tests {
    use super::Sampler;
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
}
