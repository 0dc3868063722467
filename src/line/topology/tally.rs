//! What a line counts, and the number of its last decision.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use super::latency::{Latencies, LatencySummary};
use super::seldom::Seldom;
use crate::inspection::{Decision, Verdict};
use crate::line::publishing::{DeliveryCounters, Stats};

/// Counts of a running line.
pub(super) struct Tally {
    /// Of the last decision; the next has the next number.
    pub(super) sequence: u64,
    stats: Stats,
    /// Since the last message on `stats`.
    recent: Latencies,
    recent_frames: u64,
    since: Instant,
    /// Cameras that are gone, and since when.
    gone: HashMap<Arc<str>, Instant>,
    all: Latencies,
    /// Frames that were not archived.
    untold: Seldom,
}

impl Tally {
    /// Of a line with these cameras.
    pub(super) fn new(cameras: impl Iterator<Item = String>) -> Self {
        Self {
            sequence: 0,
            stats: Stats { cameras: cameras.map(|camera| (camera, 0)).collect(), ..Stats::default() },
            recent: Latencies::default(),
            recent_frames: 0,
            since: Instant::now(),
            gone: HashMap::new(),
            all: Latencies::default(),
            untold: Seldom::default(),
        }
    }

    /// A frame was grabbed, whatever becomes of it.
    pub(super) fn frame(&mut self, camera: &str) {
        self.stats.frames += 1;
        self.recent_frames += 1;
        match self.stats.cameras.get_mut(camera) {
            Some(count) => *count += 1,
            None => drop(self.stats.cameras.insert(camera.to_owned(), 1)),
        }
    }

    /// A frame was copied at full size.
    pub(super) fn copied(&mut self) {
        self.stats.copied += 1;
    }

    /// A frame should have been archived and was not. How many since this was last told, where it is to be told.
    pub(super) fn not_archived(&mut self) -> Option<u64> {
        self.stats.not_archived += 1;
        self.untold.due(Instant::now())
    }

    /// A frame of an empty belt, which is no part.
    pub(super) fn empty(&mut self) {
        self.stats.empty += 1;
    }

    /// A frame or a triggered part was lost with its camera.
    pub(super) fn lost(&mut self, camera: &str) {
        self.stats.gaps.entry(camera.to_owned()).or_default().lost += 1;
    }

    /// A batch was scored.
    pub(super) fn batch(&mut self) {
        self.stats.batches += 1;
    }

    /// A combined verdict; its number.
    pub(super) fn part(&mut self) -> u64 {
        self.stats.parts += 1;
        self.stats.parts
    }

    /// A decision that took so long.
    pub(super) fn decision(&mut self, decision: &Decision, latency_ms: f64) {
        self.recent.add(latency_ms);
        self.all.add(latency_ms);
        let stats = &mut self.stats;
        stats.decisions += 1;
        *match decision.verdict {
            Verdict::Accept => &mut stats.accept,
            Verdict::Reject => &mut stats.reject,
            Verdict::Suspect => &mut stats.suspect,
            Verdict::NotInspected => &mut stats.not_inspected,
        } += 1;
    }

    /// A camera is gone; an attempt in vain to get it back is no second loss. How often it was lost.
    pub(super) fn camera_gone(&mut self, camera: &Arc<str>, now: Instant) -> u64 {
        let first = !self.gone.contains_key(camera);
        self.gone.entry(camera.clone()).or_insert(now);
        let gaps = self.stats.gaps.entry(camera.to_string()).or_default();
        gaps.losses += u64::from(first);
        gaps.losses
    }

    /// A camera is there again.
    pub(super) fn camera_back(&mut self, camera: &Arc<str>, now: Instant) {
        let Some(since) = self.gone.remove(camera) else { return };
        let gone_ms = now.saturating_duration_since(since).as_millis() as u64;
        self.stats.gaps.entry(camera.to_string()).or_default().gone_ms += gone_ms;
    }

    /// The counters; `restart` begins a new span for rate and percentiles.
    pub(super) fn stats(&mut self, delivery: DeliveryCounters, restart: bool) -> Stats {
        let seconds = self.since.elapsed().as_secs_f64();
        let mut gaps = self.stats.gaps.clone();
        for (camera, since) in &self.gone {
            gaps.entry(camera.to_string()).or_default().gone_ms += since.elapsed().as_millis() as u64;
        }
        let stats = Stats {
            gaps,
            acknowledged: delivery.acknowledged,
            outbox: delivery.waiting,
            outbox_oldest_age_s: delivery.oldest_age.map(|age| age.as_secs_f64()),
            replayed: delivery.replayed,
            expired: delivery.expired,
            expired_rejects: delivery.expired_rejects,
            lost: delivery.lost,
            frames_per_second: if seconds > 0.0 { self.recent_frames as f64 / seconds } else { 0.0 },
            latency_p50_ms: self.recent.quantile(0.5),
            latency_p99_ms: self.recent.quantile(0.99),
            ..self.stats.clone()
        };
        if restart {
            self.recent = Latencies::default();
            self.recent_frames = 0;
            self.since = Instant::now();
        }
        stats
    }

    /// Percentiles since the start.
    pub(super) fn latency(&self) -> LatencySummary {
        LatencySummary {
            p50_ms: self.all.quantile(0.5),
            p90_ms: self.all.quantile(0.9),
            p99_ms: self.all.quantile(0.99),
            highest_ms: self.all.highest(),
        }
    }
}
