//! The line as a whole: connects the stages and supervises them.
//!
//! ```text
//! cameras --events--> intake --frames--> batch queue --batches--> scorers -\
//!                        |  \--lost, shed--------------------------------- recorder -> outbox, archive
//!                        \--ledger--> deadlines --late--------------------/
//! ```
//!
//! Every frame that was numbered gets exactly one decision: it is entered in the ledger when it
//! arrives, and whoever takes it out decides. What never arrives is told by capture as lost.
//!
//! Queues and what happens when they are full: camera events (the new frame is shed, see
//! [`super::capture`]); frames per camera (the oldest is shed, see [`super::batching`]); archive
//! (the frame is not archived); the outbox keeps its own bound.

mod error;
mod judgement;
mod keeper;
mod latency;
mod ledger;
mod model;
mod part_desk;
mod parts;
mod presence;
mod progress;
mod pulse;
mod recorder;
mod scorers;
mod seldom;
mod station;
mod tally;
mod threads;
mod triggers;
mod worker;

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ulid::Ulid;

pub use error::{LineError, ModelError, PresenceError};
pub use latency::LatencySummary;
pub use model::session_options;

use super::batching::{BatchQueue, Batcher};
use super::capture::{self, CaptureEvent};
use super::outbox::Outbox;
use super::publishing::{Delivery, StationState, Stats};
use crate::config::{Broker, CameraConfig, Config};
use crate::inspection::{Decision, Frame, ModelIdentity, NotInspected};
use judgement::{Begun, Judgement};
use keeper::Keeper;
use ledger::{Ledger, key};
use model::Loader;
use presence::Gate;
use progress::Progress;
use recorder::Recorder;
use scorers::Seat;
use station::Station;
use threads::Threads;

/// A text with every cause.
fn describe(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// What is known about the station, and what was last said about it.
struct Told {
    station: Station,
    published: Option<(StationState, Option<String>)>,
}

/// What the threads of a line share.
struct Shared {
    queue: BatchQueue,
    ledger: Mutex<Ledger<Judgement>>,
    deadlines_changed: Condvar,
    recorder: Recorder,
    delivery: Arc<Delivery>,
    station: Mutex<Told>,
    gates: Mutex<HashMap<Arc<str>, Gate>>,
    stopping: AtomicBool,
    /// Scores that came after the frame was decided about.
    late_results: AtomicU64,
    progress: Progress,
    /// One for each scorer.
    seats: Vec<Seat>,
    /// Stages that died or hung and were started again.
    restarts: AtomicU64,
}

impl Shared {
    fn ledger(&self) -> MutexGuard<'_, Ledger<Judgement>> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait_ledger<'a>(
        &self,
        ledger: MutexGuard<'a, Ledger<Judgement>>,
        pause: Duration,
    ) -> MutexGuard<'a, Ledger<Judgement>> {
        self.deadlines_changed.wait_timeout(ledger, pause).unwrap_or_else(PoisonError::into_inner).0
    }

    fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }

    /// Decides about a frame unless somebody has; `false` then.
    fn conclude(&self, key: &ledger::Key, judgement: Judgement) -> bool {
        let mut ledger = self.ledger();
        let leaving = if judgement.is_inspected() {
            ledger.settle_in_order(key, judgement)
        } else {
            ledger.settle(key, judgement)
        };
        let Some(leaving) = leaving else { return false };
        self.let_out(ledger, leaving);
        true
    }

    /// Makes the decisions about what leaves the ledger; they are on their way to the disk.
    fn begin(&self, ledger: MutexGuard<'_, Ledger<Judgement>>, leaving: Vec<(Frame, Judgement)>) -> Vec<Begun<'_>> {
        let begun = leaving.into_iter().map(|(frame, judgement)| self.recorder.begin(frame, judgement)).collect();
        // Only now, so that no other scorer's decision comes between.
        drop(ledger);
        begun
    }

    /// Makes the decisions about what leaves the ledger, and waits until they stand in the outbox.
    fn let_out(&self, ledger: MutexGuard<'_, Ledger<Judgement>>, leaving: Vec<(Frame, Judgement)>) {
        for begun in self.begin(ledger, leaving) {
            self.recorder.finish(begun);
        }
    }

    /// Changes what is known about the station and publishes its state where that changes it.
    fn note(&self, change: impl FnOnce(&mut Station)) {
        let mut guard = self.station.lock().unwrap_or_else(PoisonError::into_inner);
        let Told { station, published } = &mut *guard;
        change(station);
        station.look();
        let state = station.state();
        if published.as_ref() != Some(&state) {
            tracing::info!(state = ?state.0, detail = state.1, "station state");
            self.delivery.set_state(state.0, state.1.clone());
            *published = Some(state);
        }
    }

    /// The frame, unless it shows an empty belt.
    fn past_gate(&self, frame: Frame) -> Option<Frame> {
        let mut gates = self.gates.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(gate) = gates.get_mut(&frame.camera) else { return Some(frame) };
        let passed = gate.pass(frame);
        if passed.is_none() {
            self.recorder.tally().empty();
        }
        passed
    }

    fn event(&self, event: CaptureEvent) {
        match event {
            CaptureEvent::Up { camera } => {
                self.recorder.tally().camera_back(&camera, Instant::now());
                self.note(|station| station.camera_up(&camera));
            }
            CaptureEvent::Down { camera, reason } => {
                let losses = self.recorder.tally().camera_gone(&camera, Instant::now());
                let again = if losses > 1 { format!(" (lost {losses} times so far)") } else { String::new() };
                self.note(|station| station.camera_down(&camera, reason + &again));
            }
            CaptureEvent::Ended { camera } => self.note(|station| station.camera_ended(&camera)),
            CaptureEvent::Lost(lost) => {
                self.recorder.tally().frame(&lost.camera);
                let cause = lost.cause;
                if cause == NotInspected::Lost {
                    self.recorder.tally().lost(&lost.camera);
                }
                self.recorder.record(lost, Judgement::not_inspected(cause));
            }
            CaptureEvent::Frame(frame) => {
                if !frame.picture.is_lent() {
                    self.recorder.tally().copied();
                }
                let Some(frame) = self.past_gate(frame) else { return };
                self.note(|station| station.inspecting = true);
                self.recorder.tally().frame(&frame.camera);
                self.ledger().open(frame.clone());
                self.deadlines_changed.notify_all();
                for shed in self.queue.push(frame) {
                    // False where its deadline passed first: then it has its decision.
                    self.conclude(&key(&shed.0), Judgement::not_inspected(NotInspected::Shed));
                }
            }
        }
    }
}

/// The presence gates of the cameras that have one.
fn gates(cameras: &[CameraConfig]) -> Result<HashMap<Arc<str>, Gate>, LineError> {
    let gate = |camera: &CameraConfig| {
        let gate = Gate::new(camera.presence.as_ref()?)
            .map_err(|source| LineError::Presence { camera: camera.name.clone(), source: Box::new(source) });
        Some(gate.map(|gate| (camera.name.as_str().into(), gate)))
    };
    cameras.iter().filter_map(gate).collect()
}

/// What a line did, from start to stop.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Summary {
    /// Counters.
    pub stats: Stats,
    /// Capture to decision.
    pub latency: LatencySummary,
    /// Results that came after the deadline had been published as late.
    pub late_results: u64,
    /// Decisions that the outbox could not take.
    pub not_stored: u64,
    /// Decisions acknowledged by the broker, of this run or an earlier one.
    pub acknowledged: u64,
    /// Decisions that wait in the outbox for the next start.
    pub outbox: u64,
    /// Threads of the line that died or hung and were started again.
    pub restarts: u64,
    /// Run time, seconds.
    pub seconds: f64,
}

impl Summary {
    /// Whether every frame got its decision and every decision a safe place.
    pub fn is_whole(&self) -> bool {
        self.stats.frames == self.stats.decisions && self.not_stored == 0
    }
}

/// A running line. Dropped without [`Line::stop`], its threads end without draining.
pub struct Line {
    threads: Threads,
    shared: Arc<Shared>,
    started: Instant,
    drain: Duration,
    /// Which model decided at the start.
    pub model: ModelIdentity,
    /// The execution provider that its session really got.
    pub provider: String,
    /// Where decisions go, for people.
    pub broker: String,
    /// Identity of this run.
    pub boot_id: String,
}

impl Line {
    /// Starts everything: checks the cameras' descriptions, opens outbox and archive, connects to
    /// the broker (without waiting for it), loads the model, then lets the cameras run. Each
    /// decision is also told to `observer`; one that is too slow misses decisions.
    ///
    /// # Errors
    /// [`LineError`]: the first thing that cannot be had. The state `error` is published where
    /// delivery stands already.
    pub fn start(config: &Config, observer: Option<SyncSender<Decision>>) -> Result<Self, LineError> {
        let started = Instant::now();
        config.camera.iter().try_for_each(capture::check).map_err(Box::new)?;
        let gates = gates(&config.camera)?;
        let keeper = config.archive.as_ref().map(Keeper::start).transpose()?;
        let outbox = Outbox::open_with(&config.outbox)
            .map_err(|source| LineError::Outbox { path: config.outbox.file.clone(), source: Box::new(source) })?;
        let boot_id = Ulid::generate().to_string();
        let delivery = Delivery::start(config, outbox, &boot_id).map_err(Box::new)?;
        delivery.set_state(StationState::Preoperational, None);
        let drain = Duration::from_millis(config.mqtt.drain_ms);
        let loader = Loader::new(&config.model, &config.camera);
        let (path, scorers) = match loader.current().and_then(|path| Ok((path.clone(), loader.load(&path, None)?))) {
            Ok(loaded) => loaded,
            Err(error) => {
                delivery.set_state(StationState::Error, Some(describe(&error)));
                delivery.stop(drain);
                return Err(Box::new(error).into());
            }
        };
        let delivery = Arc::new(delivery);
        let (model, provider) = (scorers[0].identity.clone(), scorers[0].provider);
        delivery.set_model(&model, &provider.to_string());
        let cameras = || config.camera.iter().map(|camera| Arc::<str>::from(camera.name.as_str()));
        let at_least_one = |n: usize| NonZeroUsize::new(n).unwrap_or(NonZeroUsize::MIN);
        let batching = &config.batching;
        let batcher = Batcher::new(
            provider.batch(batching.max_batch),
            Duration::from_millis(batching.max_wait_ms),
            at_least_one(batching.queue_frames),
            cameras(),
        )
        .shedding(batching.shed);
        let shared = Arc::new(Shared {
            queue: BatchQueue::new(batcher),
            ledger: Mutex::default(),
            deadlines_changed: Condvar::new(),
            recorder: Recorder::new(config, boot_id.clone(), delivery.clone(), keeper, observer),
            delivery,
            station: Mutex::new(Told { station: Station::new(cameras()), published: None }),
            gates: Mutex::new(gates),
            stopping: AtomicBool::new(false),
            late_results: AtomicU64::new(0),
            progress: Progress::new(scorers.len(), Instant::now()),
            seats: scorers.iter().map(|_| Seat::default()).collect(),
            restarts: AtomicU64::new(0),
        });
        shared.note(|station| station.model_loaded = true);
        let broker = match &config.mqtt.broker {
            Broker::Embedded { .. } => {
                let (host, port) = shared.delivery.broker();
                format!("embedded at {host}:{port}")
            }
            Broker::External { host, port } => format!("{host}:{port}"),
        };
        let provider = provider.to_string();
        // A failure in there ends what was started.
        let threads = Threads::start(config, &shared, loader, path, scorers)?;
        Ok(Self { threads, shared, started, drain, model, provider, broker, boot_id })
    }

    /// Stages that have not turned for `patience`: they hang, and only a new process helps.
    pub fn stuck(&self, patience: Duration) -> Vec<&'static str> {
        let mut stuck = self.shared.progress.stuck(Instant::now(), patience);
        if self.shared.delivery.since_turn() > patience {
            stuck.push("publishing");
        }
        stuck
    }

    /// State of the station in words, as last published.
    pub fn state(&self) -> String {
        let told = self.shared.station.lock().unwrap_or_else(PoisonError::into_inner);
        match told.station.state() {
            (state, Some(detail)) => format!("{}: {detail}", state.as_str()),
            (state, None) => state.as_str().to_owned(),
        }
    }

    /// Whether every camera's stream has ended, so that nothing comes any more.
    pub fn has_ended(&self) -> bool {
        self.shared.station.lock().unwrap_or_else(PoisonError::into_inner).station.all_ended()
    }

    /// Counters now; rate and percentiles since the last message on `stats`.
    pub fn stats(&self) -> Stats {
        self.shared.recorder.stats(false)
    }

    /// Capture to decision since the start.
    pub fn latency(&self) -> LatencySummary {
        self.shared.recorder.tally().latency()
    }

    /// Stops in order: cameras, batches, scores, archive; then publishes the last counters and
    /// `halted`, waits for acknowledgements as long as configured and disconnects.
    pub fn stop(self) -> Summary {
        let Self { mut threads, shared, .. } = self;
        threads.end();
        drop(threads);
        let recorder = &shared.recorder;
        let stats = recorder.stats(false);
        let mut summary = Summary {
            latency: recorder.tally().latency(),
            late_results: shared.late_results.load(Ordering::SeqCst),
            not_stored: recorder.not_stored.load(Ordering::SeqCst),
            acknowledged: 0,
            outbox: 0,
            restarts: shared.restarts.load(Ordering::SeqCst),
            seconds: self.started.elapsed().as_secs_f64(),
            stats,
        };
        shared.delivery.set_stats(&summary.stats);
        shared.note(|station| station.halted = true);
        let counters = shared.delivery.end_in_order(self.drain);
        (summary.acknowledged, summary.outbox) = (counters.acknowledged, counters.waiting);
        (summary.stats.acknowledged, summary.stats.outbox) = (counters.acknowledged, counters.waiting);
        summary
    }
}
