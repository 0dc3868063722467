//! The clock and lock around [`Assembly`].

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::parts::{Assembly, CombinedPart, Vote};
use crate::config::Config;
use crate::inspection::{Decision, Stamp};

/// How long one wait for the end of a window lasts, so that stopping is noticed.
const PATIENCE: Duration = Duration::from_millis(200);

/// Parts that are being put together, shared by everybody who decides.
#[derive(Debug)]
pub(super) struct PartDesk {
    assembly: Mutex<Assembly>,
    changed: Condvar,
    used: bool,
}

impl PartDesk {
    pub(super) fn new(config: &Config) -> Self {
        let assembly = Assembly::new(&config.part);
        Self { used: assembly.is_used(), assembly: Mutex::new(assembly), changed: Condvar::new() }
    }

    /// Whether any part is configured.
    pub(super) fn is_used(&self) -> bool {
        self.used
    }

    fn lock(&self) -> MutexGuard<'_, Assembly> {
        self.assembly.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a decision in. Comes back with the part that it completed.
    pub(super) fn vote(&self, decision: &Decision, captured: Stamp) -> Option<CombinedPart> {
        if !self.used {
            return None;
        }
        let part = self.lock().add(Vote {
            camera: decision.camera.as_str().into(),
            part_id: decision.part_id.as_deref().map(Arc::from),
            identified_by: decision.part_source,
            captured,
            result_id: decision.result_id.clone(),
            verdict: decision.verdict,
            reasons: decision.reasons.clone(),
        });
        self.changed.notify_all();
        part
    }

    /// Waits for the end of a window, for a while at most.
    pub(super) fn wait_due(&self) -> Vec<CombinedPart> {
        let assembly = self.lock();
        let now = Instant::now();
        let pause = assembly.next_due().map_or(PATIENCE, |due| due.saturating_duration_since(now)).min(PATIENCE);
        let mut assembly = self.changed.wait_timeout(assembly, pause).unwrap_or_else(PoisonError::into_inner).0;
        assembly.due(Instant::now())
    }

    /// Every part that is not told; for a line that stops.
    pub(super) fn close(&self) -> Vec<CombinedPart> {
        self.lock().close()
    }
}
