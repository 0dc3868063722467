//! The scorer: batches -> pictures of model size -> log-likelihood maps -> verdicts.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::Shared;
use super::judgement::Judgement;
use super::ledger::key;
use super::model::{ActiveModel, Successor};
use super::recorder::ms;
use crate::decision::decide;
use crate::inspection::{Latency, LogLikelihoodMaps, NotInspected, Picture};
use crate::line::batching::{Batch, Batched, Taken};
use crate::scoring::PictureFitter;

/// How long one wait for a batch lasts, so that a new model is taken over on an idle line too.
const PATIENCE: Duration = Duration::from_millis(200);

/// Scores batches until the queue is closed and empty. Swaps models between two batches.
pub(super) fn work(shared: &Shared, mut active: ActiveModel, successor: &Successor) {
    let mut fitter = PictureFitter::new();
    loop {
        if let Some(model) = successor.take() {
            tracing::info!(
                bundle = model.identity.name,
                version = model.identity.version,
                provider = %model.provider,
                "model swapped between two batches"
            );
            shared.delivery.set_model(&model.identity, &model.provider.to_string());
            active = model;
        }
        match shared.queue.take(PATIENCE) {
            Taken::Batch(batch) => score(shared, &mut active, &mut fitter, batch),
            Taken::Nothing => {}
            Taken::Closed => return,
        }
    }
}

fn score(shared: &Shared, active: &mut ActiveModel, fitter: &mut PictureFitter, batch: Batch) {
    let now = Instant::now();
    let mut ready: Vec<(Batched, Picture)> = Vec::with_capacity(batch.frames.len());
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
        match guarded(|| fitter.fit(&one.frame.picture, &preprocessing)) {
            Ok(picture) => ready.push((one, picture)),
            Err(problem) => {
                *fitter = PictureFitter::new();
                fail(shared, &one, &problem);
            }
        }
    }
    if ready.is_empty() {
        return;
    }
    shared.recorder.count_batch();
    let pictures: Vec<&Picture> = ready.iter().map(|(_, picture)| picture).collect();
    let maps: Vec<Result<LogLikelihoodMaps, String>> = match run(active, &pictures) {
        Ok(maps) => maps.into_iter().map(Ok).collect(),
        Err(problem) => {
            tracing::warn!(frames = ready.len(), problem, "batch not scored: every frame is tried alone");
            pictures.iter().map(|picture| run(active, &[*picture]).and_then(only)).collect()
        }
    };
    let scored = Instant::now();
    let frames = ready.len();
    for ((one, _), maps) in ready.into_iter().zip(maps) {
        let manifest = active.manifest(&one.frame.camera);
        let judged =
            maps.and_then(|maps| guarded(|| Ok::<_, String>(decide(&maps, manifest, one.frame.picture.size()))));
        let (outcome, map) = match judged {
            Ok(judged) => judged,
            Err(problem) => {
                fail(shared, &one, &problem);
                continue;
            }
        };
        let late = one.frame.due().is_some_and(|deadline| deadline <= Instant::now());
        let judgement = if late {
            Judgement::not_inspected(NotInspected::Late)
        } else {
            let latency = Latency {
                queue_ms: ms(one.joined.saturating_duration_since(one.frame.captured.monotonic)),
                batch_ms: ms(batch.closed.saturating_duration_since(one.joined)),
                infer_ms: ms(scored.saturating_duration_since(batch.closed)),
                decide_ms: 0.0,
            };
            let model = Some((active.identity.clone(), manifest.calibration.image));
            Judgement { outcome, map: Some(map), model, latency: Some(latency) }
        };
        if !shared.conclude(&key(&one.frame), judgement) {
            shared.late_results.fetch_add(1, Ordering::SeqCst);
        }
    }
    shared.queue.observe(frames, now.elapsed());
}

fn run(active: &mut ActiveModel, pictures: &[&Picture]) -> Result<Vec<LogLikelihoodMaps>, String> {
    let maps = guarded(|| active.model.score(pictures))?;
    if maps.len() == pictures.len() {
        Ok(maps)
    } else {
        Err(format!("the model gave {} results for {} pictures", maps.len(), pictures.len()))
    }
}

fn only(maps: Vec<LogLikelihoodMaps>) -> Result<LogLikelihoodMaps, String> {
    maps.into_iter().next().ok_or_else(|| "the model gave no result".into())
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
        Err(payload) => Err(format!("panic: {}", message(&*payload))),
    }
}

fn message(payload: &(dyn Any + Send)) -> &str {
    payload
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("without a message")
}

/// Publishes `late` at the deadline of every frame that is still waiting or being scored.
pub(super) fn keep_deadlines(shared: &Arc<Shared>) {
    loop {
        let due = {
            let mut ledger = shared.ledger();
            loop {
                if shared.is_stopping() {
                    return;
                }
                let now = Instant::now();
                let due = ledger.close_due(now);
                if !due.is_empty() {
                    break due;
                }
                let pause = ledger.next_deadline().map_or(PATIENCE, |next| next.saturating_duration_since(now));
                ledger = shared.wait_ledger(ledger, pause);
            }
        };
        for frame in due {
            shared.recorder.record(frame, Judgement::not_inspected(NotInspected::Late));
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
