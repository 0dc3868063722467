//! Learning rate over the steps.

/// Linear warm-up to the highest rate, then a cosine down to a thousandth of it (the authors'
/// shape, without their overshoot at the end of the warm-up).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Schedule {
    /// Steps in all, at least 1.
    pub steps: usize,
    /// Of these, steps in which the rate rises.
    pub warm_up: usize,
    /// Highest rate.
    pub peak: f32,
}

impl Schedule {
    /// Rate of a step, counted from 0.
    pub fn rate(&self, step: usize) -> f32 {
        if step < self.warm_up {
            return self.peak * (step + 1) as f32 / self.warm_up as f32;
        }
        let rest = self.steps.saturating_sub(self.warm_up).max(1);
        let progress = ((step - self.warm_up) as f32 / rest as f32).min(1.0);
        let floor = 1e-3 * self.peak;
        floor + (self.peak - floor) * 0.5 * (1.0 + (std::f32::consts::PI * progress).cos())
    }
}

#[cfg(test)]
mod tests {
    use super::Schedule;

    #[test]
    fn the_rate_rises_to_its_peak_and_never_beyond() {
        let schedule = Schedule { steps: 100, warm_up: 10, peak: 1e-3 };
        let rates: Vec<f32> = (0..100).map(|s| schedule.rate(s)).collect();
        assert!(rates.iter().all(|&r| r > 0.0 && r <= 1e-3));
        assert_eq!(rates[9], 1e-3);
        assert!(rates[10..].windows(2).all(|w| w[1] <= w[0]));
        assert!(rates[99] < 3e-6);
    }
}
