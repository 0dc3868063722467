//! What a station keeps between two connections.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::super::commands::{Bucket, COMMANDS, TRIGGERS};
use super::super::credentials::CommandSecret;
use super::super::shared::Shared;
use super::super::topics::Topics;
use crate::line::outbox::Outbox;

/// How long an acknowledged decision stays in the outbox. A broker acknowledges before it has saved the
/// message or passed it on; one that dies in between would take it along.
const HOLD: Duration = Duration::from_secs(2);

/// Time between two removals: so many rows share a commit.
const REMOVE: Duration = Duration::from_millis(100);

/// What stays from one connection to the next.
#[derive(Debug)]
pub(in super::super) struct Speaker {
    pub(in super::super) shared: Arc<Shared>,
    pub(super) outbox: Outbox,
    pub(super) topics: Topics,
    pub(super) boot_id: String,
    pub(super) expiry_s: u32,
    /// Highest row published so far: up to here a publish is a repetition.
    pub(super) published_row: i64,
    /// Row of the decision retained on each camera's `last`, so that it never goes back.
    pub(super) last_rows: HashMap<String, i64>,
    pub(super) bucket: Bucket,
    /// What commands must carry.
    pub(super) command_secret: Option<CommandSecret>,
    /// How long a connection waits for subscribers that an earlier one had.
    pub(super) subscriber_wait: Duration,
    /// Cameras to whose decisions somebody has listened.
    pub(super) heard: HashSet<String>,
    /// Rows up to here were left by an earlier run.
    pub(super) inherited: i64,
    /// Connections made so far.
    pub(super) connections: u64,
    pub(super) trigger_bucket: Bucket,
    /// Rows acknowledged on this connection, and when; removed a while later.
    settled: VecDeque<(Instant, i64)>,
    removed_at: Instant,
    /// Rows that were acknowledged on a connection that broke: they go out again, and count once.
    doubtful: HashSet<i64>,
}

impl Speaker {
    pub(in super::super) fn new(
        shared: Arc<Shared>,
        outbox: Outbox,
        topics: Topics,
        boot_id: String,
        expiry_s: u32,
        subscriber_wait: Duration,
        command_secret: Option<CommandSecret>,
    ) -> Self {
        let now = Instant::now();
        Self {
            inherited: outbox.newest_row(),
            shared,
            outbox,
            topics,
            boot_id,
            expiry_s,
            published_row: 0,
            last_rows: HashMap::new(),
            bucket: Bucket::new(COMMANDS, now),
            trigger_bucket: Bucket::new(TRIGGERS, now),
            command_secret,
            subscriber_wait,
            heard: HashSet::new(),
            connections: 0,
            settled: VecDeque::new(),
            removed_at: Instant::now(),
            doubtful: HashSet::new(),
        }
    }

    /// Whether there are decisions that the broker has not acknowledged.
    pub(in super::super) fn has_decisions(&self) -> bool {
        self.outbox.len() > self.settled.len() as u64 || self.shared.has_direct()
    }

    /// Takes an acknowledgement in.
    pub(super) fn settle(&mut self, row: i64, now: Instant) {
        if !self.doubtful.remove(&row) {
            self.shared.count_acknowledged();
        }
        self.settled.push_back((now, row));
        self.shared.hold(self.settled.len() as u64);
    }

    /// Whether a row was acknowledged on this connection.
    pub(super) fn is_settled(&self, row: i64) -> bool {
        self.settled.iter().any(|(_, settled)| *settled == row)
    }

    /// Removes what was acknowledged long enough ago; all of it where the connection ends in order.
    pub(super) fn forget(&mut self, now: Instant, all: bool) {
        if !all && now.saturating_duration_since(self.removed_at) < REMOVE {
            return;
        }
        self.removed_at = now;
        let old = |at: Instant| all || now.saturating_duration_since(at) >= HOLD;
        let count = self.settled.iter().take_while(|(at, _)| old(*at)).count();
        if count == 0 {
            return;
        }
        let rows: Vec<i64> = self.settled.drain(..count).map(|(_, row)| row).collect();
        if let Err(error) = self.outbox.remove(rows) {
            tracing::error!(%error, "acknowledged decisions could not be removed from the outbox");
        }
        self.shared.hold(self.settled.len() as u64);
    }

    /// After a connection broke: what was acknowledged last goes out again.
    pub(super) fn doubt(&mut self) {
        self.doubtful.extend(self.settled.drain(..).map(|(_, row)| row));
        self.shared.hold(0);
    }

    /// Reports the decisions that stand nowhere but here, at the end.
    pub(in super::super) fn lose_unstored(&self) {
        while let Some(decision) = self.shared.take_direct() {
            self.shared.lose(&decision.result_id);
        }
    }
}
