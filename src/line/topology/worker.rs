//! A scorer: batches -> pictures of model size -> log-likelihood maps -> verdicts.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::{Duration, Instant};

use super::Shared;
use super::judgement::{Begun, Judgement};
use super::latency::ms;
use super::ledger::key;
use super::model::{ActiveModel, Loader, Successor};
use super::progress::Stage;
use super::scorers::Seated;
use crate::decision::Decider;
use crate::inspection::{Latency, NotInspected};
use crate::line::batching::{Batch, Batched, Taken};
use crate::line::panic_message;
use crate::scoring::PictureFitter;

/// How long one wait for a batch lasts, so that a new model is taken over on an idle line too.
const PATIENCE: Duration = Duration::from_millis(200);

/// What works on frames one after the other, in the same memory.
struct Desk {
    fitter: PictureFitter,
    decider: Decider,
}

/// Batches that fail one after the other before the session is made anew.
const FAILURES: u32 = 3;
/// Time between two attempts to make a session anew.
const LOAD_AGAIN: Duration = Duration::from_secs(2);
/// Longest time that making a session takes: an engine may have to be built for it.
const LOADING: Duration = Duration::from_secs(600);
/// Decisions made at a deadline that wait for the disk at most; beyond, the next is made when one stands there.
const MOST_UNFINISHED: usize = 1024;

/// Scores batches until the queue is closed and empty, or another thread has the seat. Swaps models between two batches, and makes
/// the session anew where batch after batch fails (a GPU that was lost) or none is given.
pub(super) fn work(
    shared: &Shared,
    seat: &Seated,
    mut active: Option<ActiveModel>,
    loader: &Loader,
    successor: &Successor,
) {
    let mut desk = Desk { fitter: PictureFitter::new(), decider: Decider::new() };
    let mut failures = 0;
    let mut load_at = Instant::now();
    if let Some(model) = &active {
        seat.take_up(model);
    }
    while seat.turn(Duration::ZERO) {
        if let Some(model) = successor.take(seat.number) {
            // Once for all scorers; each decision says which model made it.
            if seat.number == 0 {
                tracing::info!(
                    bundle = model.identity.name,
                    version = model.identity.version,
                    provider = %model.provider,
                    "model swapped between two batches"
                );
                shared.delivery.set_model(&model.identity, &model.provider.to_string());
            }
            seat.take_up(&model);
            active = Some(model);
            failures = 0;
        }
        if active.is_none() && Instant::now() >= load_at {
            seat.turn(LOADING);
            active = load_again(shared, loader, seat.number);
            if let Some(model) = &active {
                seat.take_up(model);
            }
            load_at = Instant::now() + LOAD_AGAIN;
        }
        match (shared.queue.take(PATIENCE), &mut active) {
            (Taken::Batch(batch), Some(model)) => {
                failures = if score(shared, seat, model, &mut desk, batch) { 0 } else { failures + 1 };
                if failures >= FAILURES && Instant::now() >= load_at {
                    tracing::error!(failures, "batch after batch fails: the session is made anew");
                    (active, failures) = (None, 0);
                }
            }
            (Taken::Batch(batch), None) => {
                for one in &batch.frames {
                    fail(shared, one, "there is no session to score with");
                }
            }
            (Taken::Nothing, _) => {}
            (Taken::Closed, _) => return,
        }
    }
}

/// Loads the model that is to be used now; what is wrong with it is said on `state`.
fn load_again(shared: &Shared, loader: &Loader, scorer: usize) -> Option<ActiveModel> {
    match loader.current().and_then(|path| loader.load_one(&path, scorer)) {
        Ok(model) => {
            shared.note(|station| station.model_lost = None);
            shared.delivery.set_model(&model.identity, &model.provider.to_string());
            tracing::warn!(version = model.identity.version, "the session was made anew");
            Some(model)
        }
        Err(error) => {
            let text = super::describe(&error);
            tracing::error!(error = text, "the session cannot be made anew; trying again");
            shared.note(|station| station.model_lost = Some(text));
            None
        }
    }
}

/// Scores a batch; whether the model still works: it scored a frame, or none came to it.
fn score(shared: &Shared, seat: &Seated, active: &mut ActiveModel, desk: &mut Desk, batch: Batch) -> bool {
    let now = Instant::now();
    seat.take_in_hand(batch.frames.iter().map(|one| key(&one.frame)).collect());
    if active.model.makes_ready_for(batch.frames.len()) {
        seat.turn(LOADING);
    }
    if let Err(problem) = guarded(|| active.model.prepare(batch.frames.len())) {
        batch.frames.iter().for_each(|one| fail(shared, one, &problem));
        return false;
    }
    let mut ready: Vec<Batched> = Vec::with_capacity(batch.frames.len());
    for one in batch.frames {
        // Somebody else has decided: its deadline passed while it waited.
        if !shared.ledger().is_open(&key(&one.frame)) {
            continue;
        }
        if one.frame.due().is_some_and(|deadline| deadline <= now) {
            shared.conclude(&key(&one.frame), Judgement::not_inspected(NotInspected::Late));
            continue;
        }
        let preprocessing = active.manifest(&one.frame.camera).preprocessing;
        // Straight into the model's input: no copy between.
        let place = active.model.place(ready.len());
        match guarded(|| desk.fitter.fit_into(&one.frame.picture, &preprocessing, place)) {
            Ok(()) => ready.push(one),
            Err(problem) => {
                desk.fitter = PictureFitter::new();
                fail(shared, &one, &problem);
            }
        }
    }
    if ready.is_empty() {
        return true;
    }
    shared.recorder.tally().batch();
    let together = guarded(|| active.model.score_placed(0..ready.len()).map(|_| ()));
    if let Err(problem) = &together {
        tracing::warn!(frames = ready.len(), problem, "batch not scored: every frame is tried alone");
    }
    let frames = ready.len();
    let mut works = together.is_ok();
    let mut scored = Instant::now();
    for (place, one) in ready.into_iter().enumerate() {
        let mut at = place;
        let mut run = Ok(());
        if together.is_err() {
            // Broken off: whoever did that has decided about all of them.
            if !seat.turn(Duration::ZERO) {
                return false;
            }
            (at, run) = (0, guarded(|| active.model.score_placed(place..place + 1).map(|_| ())));
            scored = Instant::now();
            works |= run.is_ok();
        }
        let manifest = active.manifest(&one.frame.camera);
        let judged = run.and_then(|()| {
            let maps = active.model.scored(at).ok_or("the model gave no result")?;
            guarded(|| Ok::<_, String>(desk.decider.decide(maps, manifest, one.frame.picture.size())))
        });
        let outcome = match judged {
            Ok(outcome) => outcome,
            Err(problem) => {
                desk.decider = Decider::new();
                fail(shared, &one, &problem);
                continue;
            }
        };
        let latency = Latency {
            queue_ms: ms(one.joined.saturating_duration_since(one.frame.captured.monotonic)),
            batch_ms: ms(batch.closed.saturating_duration_since(one.joined)),
            infer_ms: ms(scored.saturating_duration_since(batch.closed)),
            decide_ms: 0.0,
        };
        let model = Some((active.identity.clone(), manifest.calibration.image));
        let map = shared.recorder.archives().then(|| desk.decider.map().clone());
        let judgement = Judgement { outcome, map, model, latency: Some(latency) };
        if !shared.conclude(&key(&one.frame), judgement) {
            shared.late_results.fetch_add(1, Ordering::SeqCst);
        }
    }
    shared.queue.observe(frames, now.elapsed());
    works
}

fn fail(shared: &Shared, one: &Batched, problem: &str) {
    tracing::error!(camera = %one.frame.camera, frame = one.frame.id.0, problem, "frame not inspected");
    shared.conclude(&key(&one.frame), Judgement::not_inspected(NotInspected::Failed));
}

/// Calls a step that may fail or panic; either way the line goes on and the cause is told.
fn guarded<T, E: std::fmt::Display>(step: impl FnOnce() -> Result<T, E>) -> Result<T, String> {
    // What a panic may leave half-done is a buffer that the next call fills anew.
    match catch_unwind(AssertUnwindSafe(step)) {
        Ok(result) => result.map_err(|error| error.to_string()),
        Err(payload) => Err(format!("panic: {}", panic_message(&*payload))),
    }
}

/// Publishes `late` at the deadline of every frame that is still waiting or being scored. A disk that is slow
/// to take one of these decisions does not keep the next: another thread waits for it.
pub(super) fn keep_deadlines(shared: &Arc<Shared>) {
    std::thread::scope(|scope| {
        let (waiting, begun) = sync_channel(MOST_UNFINISHED);
        scope.spawn(move || begun.into_iter().for_each(|begun| shared.recorder.finish(begun)));
        decide_at_deadlines(shared, &waiting);
    });
}

fn decide_at_deadlines<'shared>(shared: &'shared Arc<Shared>, waiting: &SyncSender<Begun<'shared>>) {
    loop {
        let mut ledger = shared.ledger();
        let late = loop {
            if shared.is_stopping() {
                return;
            }
            let now = Instant::now();
            shared.progress.turned(Stage::Deadlines, now);
            let late = ledger.settle_due(now, || Judgement::not_inspected(NotInspected::Late));
            if !late.is_empty() {
                break late;
            }
            let pause =
                ledger.next_deadline().map_or(PATIENCE, |next| next.saturating_duration_since(now).min(PATIENCE));
            ledger = shared.wait_ledger(ledger, pause);
        };
        for begun in shared.begin(ledger, late) {
            if waiting.send(begun).is_err() {
                // The other thread has panicked; so does this one, and the stage is started again.
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_becomes_a_problem_with_its_message() {
        let failed: Result<(), String> = guarded(|| -> Result<(), String> { panic!("tensor {} is gone", 7) });
        assert_eq!(failed.unwrap_err(), "panic: tensor 7 is gone");
        assert_eq!(guarded(|| Err::<(), _>("no")).unwrap_err(), "no");
        assert_eq!(guarded(|| Ok::<_, String>(3)), Ok(3));
    }
}
