//! What the line's threads leave for the publishing thread, and what it tells them.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::SyncSender;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::message::{CommandReply, ModelMessage, StateMessage, Stats};
use super::trigger::{ReplyTo, TriggerRequest};
use super::{DeliveryCounters, StationState};
use crate::inspection::Decision;

/// Changes of state that wait to be said at most; beyond, the oldest are left out.
const STATES: usize = 16;
/// Decisions that the outbox did not take and that wait to be published at most.
const DIRECT: usize = 256;
/// Replies that wait to be said at most; beyond, the oldest are left out.
const REPLIES: usize = 256;

/// What the publishing thread shall do.
#[derive(Debug, Clone, Copy, Default)]
pub(super) enum Order {
    /// Publish.
    #[default]
    Run,
    /// Drain until then at most, say goodbye, end.
    Stop { until: Instant },
    /// End without a word.
    Abort,
}

#[derive(Debug, Default)]
struct Slots {
    order: Order,
    connected: bool,
    state: Option<StateMessage>,
    unsaid_states: VecDeque<StateMessage>,
    model: Option<ModelMessage>,
    unsaid_model: bool,
    unsaid_stats: Option<Stats>,
    direct: VecDeque<Decision>,
    replies: VecDeque<(ReplyTo, CommandReply)>,
    trigger_line: Option<SyncSender<TriggerRequest>>,
}

/// What is new since the publishing thread last looked.
#[derive(Debug, Default)]
pub(super) struct News {
    pub(super) states: Vec<StateMessage>,
    pub(super) model: Option<ModelMessage>,
    pub(super) stats: Option<Stats>,
    pub(super) replies: Vec<(ReplyTo, CommandReply)>,
}

/// Shared between the line's threads and the publishing thread. Every part is bounded.
#[derive(Debug, Default)]
pub(super) struct Shared {
    /// Rung when there is something to do.
    pub(super) wake: Notify,
    slots: Mutex<Slots>,
    connection_changed: Condvar,
    submitted: AtomicU64,
    acknowledged: AtomicU64,
    replayed: AtomicU64,
    lost: AtomicU64,
    turned: Mutex<Option<Instant>>,
    /// Decisions in the outbox that are acknowledged and not yet removed.
    held: AtomicU64,
}

impl Shared {
    fn slots(&self) -> MutexGuard<'_, Slots> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn hold(&self, held: u64) {
        self.held.store(held, Ordering::Release);
    }

    pub(super) fn held(&self) -> u64 {
        self.held.load(Ordering::Acquire)
    }

    /// Says that the publishing thread gets on.
    pub(super) fn turn(&self) {
        *self.turned.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    /// How long ago the publishing thread got on; nothing before its first turn.
    pub(super) fn since_turn(&self) -> Duration {
        self.turned.lock().unwrap_or_else(PoisonError::into_inner).map_or(Duration::ZERO, |at| at.elapsed())
    }

    pub(super) fn order(&self, order: Order) {
        self.slots().order = order;
        self.wake.notify_one();
    }

    pub(super) fn current_order(&self) -> Order {
        self.slots().order
    }

    pub(super) fn set_state(&self, message: StateMessage) {
        let mut slots = self.slots();
        slots.state = Some(message.clone());
        slots.unsaid_states.push_back(message);
        if slots.unsaid_states.len() > STATES {
            slots.unsaid_states.pop_front();
        }
        drop(slots);
        self.wake.notify_one();
    }

    pub(super) fn set_model(&self, message: ModelMessage) {
        let mut slots = self.slots();
        slots.model = Some(message);
        slots.unsaid_model = true;
        drop(slots);
        self.wake.notify_one();
    }

    pub(super) fn set_stats(&self, stats: Stats) {
        self.slots().unsaid_stats = Some(stats);
        self.wake.notify_one();
    }

    /// Leaves a decision that the outbox did not take.
    pub(super) fn submit_directly(&self, decision: Decision) {
        let mut slots = self.slots();
        slots.direct.push_back(decision);
        let lost = (slots.direct.len() > DIRECT).then(|| slots.direct.pop_front()).flatten();
        drop(slots);
        if let Some(lost) = lost {
            self.lose(&lost.result_id);
        }
        self.wake.notify_one();
    }

    pub(super) fn take_direct(&self) -> Option<Decision> {
        self.slots().direct.pop_front()
    }

    pub(super) fn has_direct(&self) -> bool {
        !self.slots().direct.is_empty()
    }

    /// Counts and reports a decision that neither outbox nor broker has.
    pub(super) fn lose(&self, result_id: &str) {
        self.lost.fetch_add(1, Ordering::Relaxed);
        tracing::error!(result_id, "decision lost: neither the outbox nor the broker took it");
    }

    /// What is new; for a new connection the last state and model, new or not.
    pub(super) fn news(&self, new_connection: bool) -> News {
        let mut slots = self.slots();
        let unsaid: Vec<StateMessage> = slots.unsaid_states.drain(..).collect();
        let states = if new_connection { slots.state.clone().into_iter().collect() } else { unsaid };
        let model = slots.model.clone().filter(|_| new_connection || slots.unsaid_model);
        slots.unsaid_model = false;
        let replies = slots.replies.drain(..).collect();
        News { states, model, stats: slots.unsaid_stats.take(), replies }
    }

    pub(super) fn set_trigger_line(&self, line: SyncSender<TriggerRequest>) {
        self.slots().trigger_line = Some(line);
    }

    pub(super) fn trigger_line(&self) -> Option<SyncSender<TriggerRequest>> {
        self.slots().trigger_line.clone()
    }

    pub(super) fn reply(&self, to: ReplyTo, reply: CommandReply) {
        let mut slots = self.slots();
        slots.replies.push_back((to, reply));
        let left_out = (slots.replies.len() > REPLIES).then(|| slots.replies.pop_front()).flatten();
        drop(slots);
        if let Some((to, _)) = left_out {
            tracing::warn!(topic = to.topic, "reply left out: too many wait for the broker");
        }
        self.wake.notify_one();
    }

    /// The last state that was set.
    pub(super) fn state(&self) -> Option<StateMessage> {
        self.slots().state.clone()
    }

    /// The state to leave behind: halted, unless the line said so by itself.
    pub(super) fn last_state(&self, now_us: i64) -> StateMessage {
        self.state().filter(|last| last.state == StationState::Halted).unwrap_or(StateMessage {
            state: StationState::Halted,
            detail: None,
            since_us: now_us,
        })
    }

    pub(super) fn set_connected(&self, connected: bool) {
        self.slots().connected = connected;
        self.connection_changed.notify_all();
    }

    pub(super) fn wait_connected(&self, patience: Duration) -> bool {
        let waited = self.connection_changed.wait_timeout_while(self.slots(), patience, |slots| !slots.connected);
        waited.unwrap_or_else(PoisonError::into_inner).0.connected
    }

    pub(super) fn count_submitted(&self) {
        self.submitted.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn count_acknowledged(&self) {
        self.acknowledged.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn count_replayed(&self) {
        self.replayed.fetch_add(1, Ordering::Relaxed);
    }

    /// The counters that are kept here.
    pub(super) fn counters(&self) -> DeliveryCounters {
        DeliveryCounters {
            submitted: self.submitted.load(Ordering::Relaxed),
            acknowledged: self.acknowledged.load(Ordering::Relaxed),
            replayed: self.replayed.load(Ordering::Relaxed),
            lost: self.lost.load(Ordering::Relaxed),
            connected: self.slots().connected,
            ..DeliveryCounters::default()
        }
    }
}
