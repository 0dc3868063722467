//! Latencies in bounded memory: a histogram with buckets 2 % wide.

use std::time::Duration;

/// Width of a bucket relative to the one before.
const GROWTH: f64 = 1.02;
/// Lower end of the first bucket, milliseconds.
const FIRST_MS: f64 = 0.01;
/// Up to about 2 hours.
const BUCKETS: usize = 1024;

/// Counts of latencies.
#[derive(Debug, Clone)]
pub(super) struct Latencies {
    counts: Vec<u64>,
    total: u64,
    highest_ms: f64,
}

impl Default for Latencies {
    fn default() -> Self {
        Self { counts: vec![0; BUCKETS], total: 0, highest_ms: 0.0 }
    }
}

impl Latencies {
    /// Counts one latency, milliseconds.
    pub(super) fn add(&mut self, ms: f64) {
        let bucket = (ms.max(FIRST_MS) / FIRST_MS).ln() / GROWTH.ln();
        self.counts[(bucket as usize).min(BUCKETS - 1)] += 1;
        self.total += 1;
        self.highest_ms = self.highest_ms.max(ms);
    }

    /// The latency that a share `quantile` (0 to 1) stays within, milliseconds, at most 2 % too
    /// high; 0 where nothing was counted.
    pub(super) fn quantile(&self, quantile: f64) -> f64 {
        let wanted = ((self.total as f64 * quantile).ceil() as u64).max(1);
        let mut seen = 0;
        for (bucket, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= wanted {
                return (FIRST_MS * GROWTH.powi(bucket as i32 + 1)).min(self.highest_ms);
            }
        }
        0.0
    }

    /// The highest latency, milliseconds.
    pub(super) fn highest(&self) -> f64 {
        self.highest_ms
    }
}

/// Percentiles of capture to decision, milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Default, serde::Serialize)]
pub struct LatencySummary {
    /// Half of the decisions came within this time.
    pub p50_ms: f64,
    /// 90 % of them.
    pub p90_ms: f64,
    /// 99 % of them.
    pub p99_ms: f64,
    /// All of them.
    pub highest_ms: f64,
}

/// Milliseconds.
pub(super) fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_right_to_two_percent() {
        let mut latencies = Latencies::default();
        assert_eq!(latencies.quantile(0.5), 0.0);
        for ms in 1..=1000 {
            latencies.add(f64::from(ms));
        }
        for (quantile, expected) in [(0.5, 500.0), (0.99, 990.0), (1.0, 1000.0)] {
            let got = latencies.quantile(quantile);
            assert!(got >= expected && got <= expected * 1.02, "{got} for {expected}");
        }
        latencies.add(1e12);
        assert_eq!(latencies.highest(), 1e12);
    }
}
