//! Outcomes -> decision records: numbered without gaps, archived, counted, handed to delivery.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use ulid::Ulid;

use super::judgement::{Begun, Judgement, Keeping, Subject};
use super::keeper::{Keeper, Place};
use super::latency::{Latencies, LatencySummary, ms};
use super::part_desk::PartDesk;
use super::parts::CombinedPart;
use super::triggers::TriggerDesk;
use crate::config::{Config, Decisions, Policy, Station};
use crate::inspection::{CameraPicture, DECISION_SCHEMA_VERSION, Decision, Latency, PartSource, Stamp, Verdict};
use crate::line::publishing::{Delivery, Handing, Stats};

struct State {
    sequence: u64,
    stats: Stats,
    /// Since the last message on `stats`.
    recent: Latencies,
    recent_frames: u64,
    /// Cameras that are gone, and since when.
    gone: HashMap<Arc<str>, Instant>,
    since: Instant,
    all: Latencies,
}

/// Makes decision records. Shared by everybody who decides.
pub(super) struct Recorder {
    station: Station,
    policy: Decisions,
    boot_id: String,
    delivery: Arc<Delivery>,
    keeper: Option<Keeper>,
    observer: Option<SyncSender<Decision>>,
    state: Mutex<State>,
    pub(super) desk: TriggerDesk,
    pub(super) parts: PartDesk,
    pub(super) not_archived: AtomicU64,
    pub(super) not_stored: AtomicU64,
}

pub(super) fn utc_us() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}

impl Recorder {
    pub(super) fn new(
        config: &Config,
        boot_id: String,
        delivery: Arc<Delivery>,
        keeper: Option<Keeper>,
        observer: Option<SyncSender<Decision>>,
    ) -> Self {
        let stats = Stats {
            cameras: config.camera.iter().map(|camera| (camera.name.clone(), 0)).collect(),
            ..Stats::default()
        };
        Self {
            station: config.station.clone(),
            policy: config.decisions.clone(),
            boot_id,
            delivery,
            keeper,
            observer,
            state: Mutex::new(State {
                sequence: 0,
                stats,
                recent: Latencies::default(),
                recent_frames: 0,
                gone: HashMap::new(),
                since: Instant::now(),
                all: Latencies::default(),
            }),
            desk: TriggerDesk::new(config),
            parts: PartDesk::new(config),
            not_archived: AtomicU64::new(0),
            not_stored: AtomicU64::new(0),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a frame that was grabbed, whatever becomes of it.
    pub(super) fn count_frame(&self, camera: &str) {
        let mut state = self.lock();
        state.stats.frames += 1;
        state.recent_frames += 1;
        match state.stats.cameras.get_mut(camera) {
            Some(count) => *count += 1,
            None => drop(state.stats.cameras.insert(camera.to_owned(), 1)),
        }
    }

    /// Whether frames are archived, so that their maps are wanted.
    pub(super) fn archives(&self) -> bool {
        self.keeper.is_some()
    }

    /// Counts a frame of an empty belt, which is no part.
    pub(super) fn count_empty(&self) {
        self.lock().stats.empty += 1;
    }

    /// A camera is gone; an attempt in vain to get it back is no second loss.
    pub(super) fn camera_gone(&self, camera: &Arc<str>, now: Instant) -> u64 {
        let mut state = self.lock();
        let first = !state.gone.contains_key(camera);
        state.gone.entry(camera.clone()).or_insert(now);
        let gaps = state.stats.gaps.entry(camera.to_string()).or_default();
        gaps.losses += u64::from(first);
        gaps.losses
    }

    /// A camera is there again.
    pub(super) fn camera_back(&self, camera: &Arc<str>, now: Instant) {
        let mut state = self.lock();
        let Some(since) = state.gone.remove(camera) else { return };
        let gone_ms = now.saturating_duration_since(since).as_millis() as u64;
        state.stats.gaps.entry(camera.to_string()).or_default().gone_ms += gone_ms;
    }

    /// A frame or a triggered part was lost with its camera.
    pub(super) fn count_lost(&self, camera: &str) {
        self.lock().stats.gaps.entry(camera.to_owned()).or_default().lost += 1;
    }

    /// Counts a batch that was scored.
    pub(super) fn count_batch(&self) {
        self.lock().stats.batches += 1;
    }

    /// Makes the one decision about a frame.
    pub(super) fn record(&self, subject: impl Into<Subject>, judgement: Judgement) {
        let begun = self.begin(subject, judgement);
        self.finish(begun);
    }

    /// Makes the one decision about a frame and gives it its place behind those before it, without
    /// waiting for the disk. What was scored and comes too late says that.
    pub(super) fn begin(&self, subject: impl Into<Subject>, judgement: Judgement) -> Begun<'_> {
        let subject = subject.into();
        // Numbers are given and handed over under one lock, so that they leave in order.
        let mut state = self.lock();
        // One look at the clock says both whether it is late and what it took.
        let spent = subject.captured.monotonic.elapsed();
        let Judgement { outcome, map, model, latency } = judgement.after(spent, subject.deadline);
        let latency = match latency {
            None => Latency { queue_ms: ms(spent), ..Latency::default() },
            Some(split) => {
                let known = split.queue_ms + split.batch_ms + split.infer_ms;
                Latency { decide_ms: (ms(spent) - known).max(0.0), ..split }
            }
        };
        let boundaries = model.as_ref().map(|(_, boundaries)| *boundaries);
        let mut decision = Decision {
            frame: subject.id.0,
            part_id: subject.part_id.as_deref().map(Into::into),
            part_source: subject.part_source,
            trigger: subject.trigger,
            verdict: outcome.verdict,
            eject: self.eject(outcome.verdict),
            reasons: outcome.reasons,
            image_score: outcome.image_score,
            threshold: boundaries.map(|b| b.abnormal),
            boundary: boundaries.map(|b| b.normal),
            regions: outcome.regions,
            model: model.map(|(identity, _)| identity),
            latency,
            deadline_ms: subject.deadline.map(|deadline| deadline.as_millis() as u64),
            deadline_met: subject.deadline.map(|deadline| spent <= deadline),
            ..self.numbered(&mut state, &subject.camera, subject.captured)
        };
        let place = self.archive_place(&mut decision, subject.picture.as_ref(), map.is_some());
        state.count(&decision, ms(spent));
        let keeping = place.zip(subject.picture).map(|(place, picture)| Keeping {
            place,
            decision: decision.clone(),
            picture,
            map,
        });
        let answer = self.desk.decided(&decision);
        let part = self.parts.vote(&decision, subject.captured);
        let handed = self.hand_over(decision);
        let combined = part.map(|part| self.record_part(&mut state, part));
        Begun { handed, combined, answer, keeping }
    }

    /// Waits until the decision stands in the outbox; then others hear of it.
    pub(super) fn finish(&self, begun: Begun<'_>) {
        let Begun { handed, combined, answer, keeping } = begun;
        self.commit(std::iter::once(handed).chain(combined));
        if let Some((to, reply)) = answer {
            self.delivery.reply(to, reply);
        }
        if let Some(Keeping { place, decision, picture, map }) = keeping {
            place.store(decision, picture, map);
        }
    }

    /// What the line shall do with a part under the configured policy.
    fn eject(&self, verdict: Verdict) -> bool {
        match verdict {
            Verdict::Accept => false,
            Verdict::Reject => true,
            Verdict::Suspect => self.policy.suspect == Policy::Reject,
            Verdict::NotInspected => self.policy.not_inspected == Policy::Reject,
        }
    }

    /// Tells onlookers, and gives the decision its place in the outbox.
    fn hand_over(&self, decision: Decision) -> Handing<'_> {
        if let Some(observer) = &self.observer
            && let Err(TrySendError::Full(_)) = observer.try_send(decision.clone())
        {
            tracing::trace!(sequence = decision.sequence, "an onlooker is too slow and missed a decision");
        }
        tracing::trace!(
            camera = decision.camera,
            frame = decision.frame,
            verdict = decision.verdict.as_str(),
            sequence = decision.sequence,
            "decision"
        );
        self.delivery.begin(decision)
    }

    /// Waits until decisions stand in the outbox.
    fn commit<'a>(&self, handed: impl IntoIterator<Item = Handing<'a>>) {
        for handing in handed {
            if let Err(error) = handing.finish() {
                self.not_stored.fetch_add(1, Ordering::SeqCst);
                tracing::error!(error = %super::describe(&error), "decision is not in the outbox");
            }
        }
    }

    /// Makes the records of parts whose window has ended.
    pub(super) fn record_parts(&self, parts: Vec<CombinedPart>) {
        let mut state = self.lock();
        let handed: Vec<_> = parts.into_iter().map(|part| self.record_part(&mut state, part)).collect();
        drop(state);
        self.commit(handed);
    }

    /// A combined verdict is a decision like any other: numbered, durable, replayed.
    fn record_part(&self, state: &mut State, part: CombinedPart) -> Handing<'_> {
        let spent = part.captured.monotonic.elapsed();
        state.stats.parts += 1;
        self.hand_over(Decision {
            frame: state.stats.parts,
            part_source: part.identified_by,
            part_id: part.part_id.as_deref().map(Into::into),
            verdict: part.verdict,
            eject: self.eject(part.verdict),
            reasons: part.reasons,
            latency: Latency { queue_ms: ms(spent), ..Latency::default() },
            deadline_ms: Some(part.window.as_millis() as u64),
            deadline_met: Some(spent <= part.window),
            combined: Some(part.combined),
            ..self.numbered(state, &part.name, part.captured)
        })
    }

    /// A decision with the next number that says nothing yet: never good by default.
    fn numbered(&self, state: &mut State, camera: &str, captured: Stamp) -> Decision {
        state.sequence += 1;
        let decided_us = utc_us();
        Decision {
            schema_version: DECISION_SCHEMA_VERSION,
            result_id: Ulid::generate().to_string(),
            boot_id: self.boot_id.clone(),
            sequence: state.sequence,
            site: self.station.site.clone(),
            line: self.station.line.clone(),
            station: self.station.station.clone(),
            camera: camera.to_owned(),
            frame: 0,
            part_id: None,
            part_source: PartSource::None,
            trigger: None,
            verdict: Verdict::NotInspected,
            eject: true,
            reasons: Vec::new(),
            image_score: None,
            threshold: None,
            boundary: None,
            regions: Vec::new(),
            model: None,
            captured_us: captured.utc_us,
            captured_source: captured.source,
            decided_us,
            published_us: decided_us,
            latency: Latency::default(),
            deadline_ms: None,
            deadline_met: None,
            replayed: false,
            age_ms: None,
            image_ref: None,
            heatmap_ref: None,
            combined: None,
        }
    }

    /// Names the archived files in a decision that is to be kept and has a place in the queue.
    fn archive_place(
        &self,
        decision: &mut Decision,
        picture: Option<&Arc<CameraPicture>>,
        with_map: bool,
    ) -> Option<Place<'_>> {
        let keeper = self.keeper.as_ref()?;
        picture?;
        let (image, heatmap) = keeper.references(decision)?;
        let Some(place) = keeper.reserve() else {
            self.not_archived.fetch_add(1, Ordering::SeqCst);
            tracing::warn!(
                camera = decision.camera,
                frame = decision.frame,
                "no room in the archive's queue, on its disk or in memory: frame not archived, decision without references"
            );
            return None;
        };
        decision.image_ref = Some(image);
        decision.heatmap_ref = with_map.then_some(heatmap);
        Some(place)
    }

    /// The counters; `restart` begins a new span for rate and percentiles.
    pub(super) fn stats(&self, restart: bool) -> Stats {
        let delivery = self.delivery.counters();
        let mut state = self.lock();
        let seconds = state.since.elapsed().as_secs_f64();
        let mut gaps = state.stats.gaps.clone();
        for (camera, since) in &state.gone {
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
            frames_per_second: if seconds > 0.0 { state.recent_frames as f64 / seconds } else { 0.0 },
            latency_p50_ms: state.recent.quantile(0.5),
            latency_p99_ms: state.recent.quantile(0.99),
            ..state.stats.clone()
        };
        if restart {
            state.recent = Latencies::default();
            state.recent_frames = 0;
            state.since = Instant::now();
        }
        stats
    }

    /// Percentiles since the start.
    pub(super) fn latency(&self) -> LatencySummary {
        let state = self.lock();
        LatencySummary {
            p50_ms: state.all.quantile(0.5),
            p90_ms: state.all.quantile(0.9),
            p99_ms: state.all.quantile(0.99),
            highest_ms: state.all.highest(),
        }
    }

    /// Waits for the archive.
    pub(super) fn finish_archive(&self) {
        if let Some(keeper) = &self.keeper {
            keeper.stop();
        }
    }
}

impl State {
    fn count(&mut self, decision: &Decision, latency_ms: f64) {
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
}
