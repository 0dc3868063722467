//! Which pixels of a row or column make one scaled pixel, and how much of each.

/// Fraction bits of a weight.
pub(super) const BITS: u32 = 14;

/// The triangle stretched to the scale, for every pixel of one axis of the scaled picture.
#[derive(Debug)]
pub(super) struct Axis {
    from: usize,
    to: usize,
    /// First pixel that counts, of each scaled pixel.
    firsts: Vec<usize>,
    /// Where each scaled pixel's weights begin, and where the last one's end.
    begins: Vec<usize>,
    /// Of `1 << BITS`, which is what those of one scaled pixel add up to.
    weights: Vec<u16>,
}

impl Axis {
    /// From so many pixels to so many, both at least 1.
    pub(super) fn new(from: usize, to: usize) -> Self {
        let mut axis = Self { from, to, firsts: Vec::with_capacity(to), begins: vec![0], weights: Vec::new() };
        let scale = from as f64 / to as f64;
        // Between pixels of a picture that is enlarged one goes straight from one to the next.
        let reach = scale.max(1.0);
        for pixel in 0..to {
            let middle = (pixel as f64 + 0.5) * scale;
            let first = (middle - reach + 0.5).max(0.0) as usize;
            let last = ((middle + reach + 0.5) as usize).min(from);
            let share = |at: usize| (1.0 - ((at as f64 + 0.5 - middle) / reach).abs()).max(0.0);
            let whole: f64 = (first..last).map(share).sum();
            // Rounded as they add up, so that they add up to one: grey stays the same grey.
            let (mut sum, mut given) = (0.0, 0u32);
            for at in first..last {
                sum += share(at) / whole;
                let so_far = (sum * f64::from(1 << BITS)).round() as u32;
                axis.weights.push((so_far - given) as u16);
                given = so_far;
            }
            axis.firsts.push(first);
            axis.begins.push(axis.weights.len());
        }
        axis
    }

    pub(super) fn is(&self, from: usize, to: usize) -> bool {
        (self.from, self.to) == (from, to)
    }

    /// Scaled pixels.
    pub(super) fn len(&self) -> usize {
        self.to
    }

    /// First pixel of a scaled one, and the weights from there on.
    #[inline(always)]
    pub(super) fn of(&self, pixel: usize) -> (usize, &[u16]) {
        (self.firsts[pixel], &self.weights[self.begins[pixel]..self.begins[pixel + 1]])
    }

    /// Pixels that count for the next scaled one and lie beyond those of this one.
    pub(super) fn further(&self, pixel: usize) -> usize {
        let end = |pixel: usize| self.firsts[pixel] + self.of(pixel).1.len();
        if pixel + 1 < self.to { end(pixel + 1) - end(pixel) } else { 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn from_the_first_scaled_pixel_on_every_pixel_is_a_further_one_once() {
        for (from, to) in [(1080, 256), (5, 18), (64, 64), (7, 1), (900, 899)] {
            let axis = Axis::new(from, to);
            let further: usize = (0..to).map(|pixel| axis.further(pixel)).sum();
            assert_eq!(axis.of(0).1.len() + further, from, "{from} to {to}");
        }
    }
}
