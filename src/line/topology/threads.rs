//! The threads of a line, started and ended in the order of the flow.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::error::LineError;
use super::judgement::Judgement;
use super::model::{self, ActiveModel, Loader, Successor};
use super::progress::Stage;
use super::pulse::StopFlag;
use super::scorers::Scorers;
use super::{Shared, triggers, worker};
use crate::config::Config;
use crate::inspection::NotInspected;
use crate::line::capture::{Capture, CaptureEvent};
use crate::line::panic_message;
use crate::line::prompt::take_short_turns;

/// Time between two looks at the broker's connection.
const PULSE: Duration = Duration::from_millis(100);
/// Pause before a stage that died is started again.
const RESTART: Duration = Duration::from_millis(100);
/// Longest turn of a stage that has nothing to do.
const TURN: Duration = Duration::from_millis(200);
/// Camera events waiting at most.
const EVENTS: usize = 64;

/// The threads of a line; ended in order when dropped.
pub(super) struct Threads {
    shared: Arc<Shared>,
    capture: Option<Capture>,
    triggers: Option<JoinHandle<()>>,
    no_triggers: Arc<StopFlag>,
    intake: Option<JoinHandle<()>>,
    scorers: Option<Arc<Scorers>>,
    attendants: Vec<JoinHandle<()>>,
    stop: Arc<StopFlag>,
}

impl Threads {
    pub(super) fn start(
        config: &Config,
        shared: &Arc<Shared>,
        loader: Loader,
        path: PathBuf,
        models: Vec<ActiveModel>,
    ) -> Result<Self, LineError> {
        let mut threads = Self {
            shared: shared.clone(),
            capture: None,
            triggers: None,
            no_triggers: Arc::default(),
            intake: None,
            scorers: None,
            attendants: Vec::new(),
            stop: Arc::default(),
        };
        let successor = Arc::new(Successor::default());
        let scorers = Arc::new(Scorers::new(shared, &loader, &successor));
        scorers.start(models)?;
        let scorers = threads.scorers.insert(scorers).clone();
        let deadlines = shared.clone();
        threads.attendants.push(spawn("deadlines", move || {
            take_short_turns();
            keep(&deadlines, "deadlines", || worker::keep_deadlines(&deadlines));
        })?);
        if shared.recorder.parts.is_used() {
            let parts = shared.clone();
            threads.attendants.push(spawn("parts", move || {
                take_short_turns();
                keep(&parts, "parts", || tell_parts(&parts));
            })?);
        }
        if loader.registry().is_some() {
            let (watched, stop, scorers) = (shared.clone(), threads.stop.clone(), shared.seats.len());
            threads.attendants.push(spawn("model-watch", move || {
                let problem = |text| watched.note(|station| station.model_problem = text);
                keep(&watched, "model-watch", || {
                    model::watch(&loader, path.clone(), scorers, &successor, &problem, &stop);
                });
            })?);
        }
        let (pulse, stop) = (shared.clone(), threads.stop.clone());
        let interval = Duration::from_secs(config.mqtt.stats_interval_s);
        threads.attendants.push(spawn("pulse", move || {
            keep(&pulse, "pulse", || pulse_until_stopped(&pulse, &scorers, interval, &stop));
        })?);
        let (sender, receiver) = sync_channel::<CaptureEvent>(EVENTS);
        let intake = shared.clone();
        threads.intake = Some(spawn("intake", move || {
            take_short_turns();
            keep(&intake, "intake", || take_in(&intake, &receiver));
        })?);
        let capture = threads.capture.insert(Capture::start(&config.camera, &sender).map_err(Box::new)?);
        if shared.recorder.desk.is_used() {
            let (shutter, line, stop) = (capture.shutter(), shared.clone(), threads.no_triggers.clone());
            let (sender, requests) = sync_channel(triggers::WAITING);
            shared.delivery.hand_triggers_to(sender);
            threads.triggers = Some(spawn("triggers", move || {
                take_short_turns();
                keep(&line, "triggers", || {
                    triggers::carry_out(&line.recorder.desk, &line.delivery, &requests, &shutter, &stop);
                });
            })?);
        }
        Ok(threads)
    }

    /// Ends every thread in the order of the flow, so that each frame has its decision and each
    /// kept frame is on the disk.
    pub(super) fn end(&mut self) {
        self.no_triggers.now();
        join(self.triggers.take());
        if let Some(capture) = self.capture.take() {
            capture.stop();
        }
        join(self.intake.take());
        let shared = &self.shared;
        shared.queue.close();
        if let Some(scorers) = self.scorers.take() {
            scorers.end();
        }
        shared.stopping.store(true, Ordering::SeqCst);
        shared.deadlines_changed.notify_all();
        self.stop.now();
        self.attendants.drain(..).for_each(|thread| join(Some(thread)));
        // What is left waits for its deadline in vain, or a thread died.
        let left = shared.ledger().close_all();
        for (frame, judgement) in left {
            if let Some(judgement) = judgement {
                shared.recorder.record(frame, judgement);
                continue;
            }
            // One that could not make its deadline would have been told there.
            let cause = if frame.due().is_some() { NotInspected::Late } else { NotInspected::Stopped };
            tracing::warn!(camera = %frame.camera, frame = frame.id.0, ?cause, "frame not inspected before the end");
            shared.recorder.record(frame, Judgement::not_inspected(cause));
        }
        shared.recorder.record_parts(shared.recorder.parts.close());
        shared.recorder.finish_archive();
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.end();
    }
}

pub(super) fn spawn(name: &'static str, body: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, LineError> {
    std::thread::Builder::new().name(name.into()).spawn(body).map_err(|source| LineError::Thread { name, source })
}

/// Runs a stage to its end, and again from its beginning where it dies.
pub(super) fn keep(shared: &Shared, name: &str, mut stage: impl FnMut()) {
    // What a stage shares with others is whole between any two calls; what it had in hand alone is
    // made anew.
    while let Err(payload) = catch_unwind(AssertUnwindSafe(&mut stage)) {
        shared.restarts.fetch_add(1, Ordering::SeqCst);
        tracing::error!(stage = name, panic = panic_message(&*payload), "a stage died and is started again");
        std::thread::sleep(RESTART);
    }
}

/// Passes camera events on until the last camera's thread has let go of its sender.
fn take_in(shared: &Shared, events: &Receiver<CaptureEvent>) {
    loop {
        shared.progress.turned(Stage::Intake, Instant::now());
        match events.recv_timeout(TURN) {
            Ok(event) => shared.event(event),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

fn join(thread: Option<JoinHandle<()>>) {
    let Some(thread) = thread else { return };
    let name = thread.thread().name().unwrap_or_default().to_owned();
    if thread.join().is_err() {
        tracing::error!(thread = name, "a thread of the line had panicked");
    }
}

/// Publishes parts whose window ends before they are complete.
fn tell_parts(shared: &Shared) {
    while !shared.is_stopping() {
        let due = shared.recorder.parts.wait_due();
        if !due.is_empty() {
            shared.recorder.record_parts(due);
        }
    }
}

/// Watches the scorers and the broker's connection, and publishes counters.
fn pulse_until_stopped(shared: &Shared, scorers: &Scorers, interval: Duration, stop: &StopFlag) {
    let mut next = Instant::now() + interval;
    while !stop.wait(PULSE) {
        shared.progress.turned(Stage::Pulse, Instant::now());
        scorers.look();
        let set_aside = shared.delivery.outbox_set_aside();
        shared.note(|station| station.outbox_set_aside = set_aside);
        let connected = shared.delivery.counters().connected;
        shared.note(|station| station.broker_connected = connected);
        if Instant::now() >= next {
            next += interval;
            let stats = shared.recorder.stats(true);
            shared.delivery.set_stats(&stats);
            tracing::info!(
                frames = stats.frames,
                decisions = stats.decisions,
                frames_per_second = stats.frames_per_second,
                latency_p99_ms = stats.latency_p99_ms,
                outbox = stats.outbox,
                "line"
            );
        }
    }
}
