//! Software triggers on their way: from the command over the camera to the decision, and the
//! answer to who asked. A trigger that was taken ends in a decision, whatever happens.

use std::collections::HashMap;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::pulse::StopFlag;
use super::recorder::utc_us;
use crate::config::{Config, TriggerMode};
use crate::inspection::{Decision, Stamp, TimeSource};
use crate::line::capture::{Shutter, Trigger};
use crate::line::publishing::{CommandReply, Delivery, ReplyTo, TriggerRequest};

/// Triggers on their way from the broker to the cameras at most; beyond, they are refused.
pub(super) const WAITING: usize = 256;
/// How long one wait for a trigger lasts, so that stopping is noticed.
const LOOK: Duration = Duration::from_millis(50);

/// A requester who waits for decisions.
#[derive(Debug)]
struct Asked {
    reply_to: ReplyTo,
    part_id: Arc<str>,
    /// Decisions still to come.
    missing: usize,
    decisions: Vec<serde_json::Value>,
}

#[derive(Debug, Default)]
struct State {
    /// Triggers so far, per camera.
    sequences: HashMap<Arc<str>, u64>,
    /// Camera and trigger -> who asked.
    open: HashMap<(Arc<str>, u64), u64>,
    asked: HashMap<u64, Asked>,
    requests: u64,
}

/// Knows which trigger waits for which decision.
#[derive(Debug)]
pub(super) struct TriggerDesk {
    /// The software-triggered cameras, with the frames that each takes of a part.
    cameras: Vec<(Arc<str>, usize)>,
    state: Mutex<State>,
}

impl TriggerDesk {
    pub(super) fn new(config: &Config) -> Self {
        let frames =
            |name: &String| config.part.iter().find(|part| part.cameras.contains(name)).map_or(1, |part| part.frames);
        let triggered = config.camera.iter().filter(|camera| camera.trigger == TriggerMode::Software);
        let cameras = triggered.map(|camera| (camera.name.as_str().into(), frames(&camera.name))).collect();
        Self { cameras, state: Mutex::default() }
    }

    /// Whether any camera is triggered by software.
    pub(super) fn is_used(&self) -> bool {
        !self.cameras.is_empty()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Numbers a request's triggers and notes who waits for their decisions. None where the camera
    /// that is asked for is not triggered by software; the requester comes back.
    fn take(&self, request: TriggerRequest, at: Stamp) -> Result<Vec<(Arc<str>, Trigger)>, Option<ReplyTo>> {
        let TriggerRequest { command, reply_to } = request;
        let wanted = |name: &str| command.camera.as_deref().is_none_or(|camera| camera == name);
        let cameras: Vec<_> = self.cameras.iter().filter(|(name, _)| wanted(name)).collect();
        if cameras.is_empty() {
            return Err(reply_to);
        }
        let part_id: Arc<str> = command.part_id.into();
        let mut state = self.lock();
        state.requests += 1;
        let number = state.requests;
        let mut triggers = Vec::with_capacity(cameras.len());
        for (camera, frames) in &cameras {
            let sequence = state.sequences.entry(camera.clone()).or_default();
            *sequence += 1;
            let trigger = Trigger { part_id: part_id.clone(), sequence: *sequence, at, frames: *frames };
            if reply_to.is_some() {
                state.open.insert((camera.clone(), trigger.sequence), number);
            }
            triggers.push((camera.clone(), trigger));
        }
        if let Some(reply_to) = reply_to {
            let missing = cameras.iter().map(|(_, frames)| frames).sum();
            state.asked.insert(number, Asked { reply_to, part_id, missing, decisions: Vec::new() });
        }
        Ok(triggers)
    }

    /// A decision was made; comes back with the answer where it is the last one that somebody
    /// waits for.
    pub(super) fn decided(&self, decision: &Decision) -> Option<(ReplyTo, CommandReply)> {
        let key = (Arc::<str>::from(decision.camera.as_str()), decision.trigger?);
        let mut state = self.lock();
        let number = *state.open.get(&key)?;
        let asked = state.asked.get_mut(&number)?;
        asked.decisions.push(serde_json::json!({
            "camera": decision.camera,
            "result_id": decision.result_id,
            "verdict": decision.verdict,
            "eject": decision.eject,
        }));
        asked.missing = asked.missing.saturating_sub(1);
        if asked.missing > 0 {
            return None;
        }
        let asked = state.asked.remove(&number)?;
        state.open.retain(|_, request| *request != number);
        let result = serde_json::json!({ "part_id": &*asked.part_id, "decisions": asked.decisions });
        let reply = CommandReply { command: "trigger".into(), ok: true, result: Some(result), error: None };
        Some((asked.reply_to, reply))
    }
}

/// Carries triggers out until the line stops; those that came before that are carried out still.
pub(super) fn carry_out(
    desk: &TriggerDesk,
    delivery: &Delivery,
    requests: &Receiver<TriggerRequest>,
    shutter: &Shutter,
    stop: &StopFlag,
) {
    loop {
        let request = match requests.recv_timeout(LOOK) {
            Ok(request) => request,
            Err(RecvTimeoutError::Timeout) if stop.wait(Duration::ZERO) => return,
            Err(RecvTimeoutError::Timeout) => continue,
            Err(RecvTimeoutError::Disconnected) => return,
        };
        let camera = request.command.camera.clone();
        let at = Stamp { monotonic: Instant::now(), utc_us: utc_us(), source: TimeSource::Trigger };
        match desk.take(request, at) {
            Ok(triggers) => triggers.into_iter().for_each(|(camera, trigger)| shutter.trigger(&camera, trigger)),
            Err(reply_to) => {
                let camera = camera.unwrap_or_default();
                let problem = format!("no camera `{camera}` of this line is triggered by software");
                tracing::error!(problem, "trigger refused: its part is not inspected");
                if let Some(to) = reply_to {
                    let reply =
                        CommandReply { command: "trigger".into(), ok: false, result: None, error: Some(problem) };
                    delivery.reply(to, reply);
                }
            }
        }
    }
}
