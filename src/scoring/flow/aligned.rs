//! Numbers whose first lies at the beginning of a cache line: a vector that lies across two is read twice.

use std::ops::{Deref, DerefMut};

/// Bytes of a cache line, and of the longest vector.
const LINE: usize = 64;
/// Numbers of it.
const NUMBERS: usize = LINE / size_of::<f32>();

/// As a slice; grows, and keeps what it has for later.
#[derive(Debug, Default)]
pub(super) struct Aligned {
    values: Vec<f32>,
    from: usize,
    length: usize,
}

impl Aligned {
    pub(super) fn of(values: &[f32]) -> Self {
        let mut aligned = Self::default();
        aligned.make(values.len()).copy_from_slice(values);
        aligned
    }

    /// So many numbers; those that were there already stay where it does not grow, else all are zero.
    pub(super) fn make(&mut self, length: usize) -> &mut [f32] {
        if self.values.len() < length + NUMBERS {
            self.values = vec![0.0; length + NUMBERS];
            // At most so many: a slice of numbers is aligned to numbers.
            self.from = self.values.as_ptr().align_offset(LINE).min(NUMBERS);
        }
        self.length = length;
        self
    }
}

impl Deref for Aligned {
    type Target = [f32];

    #[inline(always)]
    fn deref(&self) -> &[f32] {
        &self.values[self.from..][..self.length]
    }
}

impl DerefMut for Aligned {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut self.values[self.from..][..self.length]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_its_length_it_begins_at_a_cache_line_and_holds_what_it_was_made_of() {
        for length in [0, 1, 15, 16, 17, 1000, 100_000] {
            let values: Vec<f32> = (0..length).map(|value| value as f32).collect();
            let mut aligned = Aligned::of(&values);
            assert_eq!(*aligned, *values);
            for length in [length / 2, length, 3 * length + 1] {
                assert_eq!(aligned.make(length).len(), length);
                assert_eq!(aligned.as_ptr().align_offset(LINE), 0);
            }
        }
    }
}
