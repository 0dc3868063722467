//! Outcomes -> decision records: numbered without gaps, archived, counted, handed to delivery.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use ulid::Ulid;

use super::judgement::{Begun, Judgement, Keeping, Subject};
use super::keeper::{Keeper, Place};
use super::latency::ms;
use super::part_desk::PartDesk;
use super::parts::CombinedPart;
use super::tally::Tally;
use super::triggers::TriggerDesk;
use crate::config::{Config, Decisions, Policy, Station};
use crate::inspection::{CameraPicture, DECISION_SCHEMA_VERSION, Decision, Latency, PartSource, Stamp, Verdict};
use crate::line::publishing::{Delivery, Handing, Stats};

/// Makes decision records. Shared by everybody who decides.
pub(super) struct Recorder {
    station: Station,
    policy: Decisions,
    boot_id: String,
    delivery: Arc<Delivery>,
    keeper: Option<Keeper>,
    observer: Option<SyncSender<Decision>>,
    tally: Mutex<Tally>,
    pub(super) desk: TriggerDesk,
    pub(super) parts: PartDesk,
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
        let cameras = config.camera.iter().map(|camera| camera.name.clone());
        Self {
            station: config.station.clone(),
            policy: config.decisions.clone(),
            boot_id,
            delivery,
            keeper,
            observer,
            tally: Mutex::new(Tally::new(cameras)),
            desk: TriggerDesk::new(config),
            parts: PartDesk::new(config),
            not_stored: AtomicU64::new(0),
        }
    }

    /// What is counted, for one look or count.
    pub(super) fn tally(&self) -> MutexGuard<'_, Tally> {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether frames are archived, so that their maps are wanted.
    pub(super) fn archives(&self) -> bool {
        self.keeper.is_some()
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
        let mut tally = self.tally();
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
            ..self.numbered(&mut tally, &subject.camera, subject.captured)
        };
        let place = self.archive_place(&mut tally, &mut decision, subject.picture.as_ref(), map.is_some());
        tally.decision(&decision, ms(spent));
        let keeping = place.zip(subject.picture).map(|(place, picture)| Keeping {
            place,
            decision: decision.clone(),
            picture,
            map,
        });
        let answer = self.desk.decided(&decision);
        let part = self.parts.vote(&decision, subject.captured);
        let handed = self.hand_over(decision);
        let combined = part.map(|part| self.record_part(&mut tally, part));
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
            if picture.is_lent() {
                self.tally().copied();
            }
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
        let mut tally = self.tally();
        let handed: Vec<_> = parts.into_iter().map(|part| self.record_part(&mut tally, part)).collect();
        drop(tally);
        self.commit(handed);
    }

    /// A combined verdict is a decision like any other: numbered, durable, replayed.
    fn record_part(&self, tally: &mut Tally, part: CombinedPart) -> Handing<'_> {
        let spent = part.captured.monotonic.elapsed();
        self.hand_over(Decision {
            frame: tally.part(),
            part_source: part.identified_by,
            part_id: part.part_id.as_deref().map(Into::into),
            verdict: part.verdict,
            eject: self.eject(part.verdict),
            reasons: part.reasons,
            latency: Latency { queue_ms: ms(spent), ..Latency::default() },
            deadline_ms: Some(part.window.as_millis() as u64),
            deadline_met: Some(spent <= part.window),
            combined: Some(part.combined),
            ..self.numbered(tally, &part.name, part.captured)
        })
    }

    /// A decision with the next number that says nothing yet: never good by default.
    fn numbered(&self, tally: &mut Tally, camera: &str, captured: Stamp) -> Decision {
        tally.sequence += 1;
        let decided_us = utc_us();
        Decision {
            schema_version: DECISION_SCHEMA_VERSION,
            result_id: Ulid::generate().to_string(),
            boot_id: self.boot_id.clone(),
            sequence: tally.sequence,
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
        tally: &mut Tally,
        decision: &mut Decision,
        picture: Option<&Arc<CameraPicture>>,
        with_map: bool,
    ) -> Option<Place<'_>> {
        let keeper = self.keeper.as_ref()?;
        picture?;
        let (image, heatmap) = keeper.references(decision)?;
        let Some(place) = keeper.reserve() else {
            if let Some(frames) = tally.not_archived() {
                tracing::warn!(
                    frames,
                    camera = decision.camera,
                    "no room in the archive's queue, on its disk or in memory: frames not archived, decisions without references"
                );
            }
            return None;
        };
        decision.image_ref = Some(image);
        decision.heatmap_ref = with_map.then_some(heatmap);
        Some(place)
    }

    /// The counters; `restart` begins a new span for rate and percentiles.
    pub(super) fn stats(&self, restart: bool) -> Stats {
        let delivery = self.delivery.counters();
        self.tally().stats(delivery, restart)
    }

    /// Waits for the archive.
    pub(super) fn finish_archive(&self) {
        if let Some(keeper) = &self.keeper {
            keeper.stop();
        }
    }
}
