//! What a station keeps between two connections.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::super::commands::{Bucket, COMMANDS, TRIGGERS};
use super::super::credentials::CommandSecret;
use super::super::shared::Shared;
use super::super::topics::Topics;
use crate::line::outbox::Outbox;

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
        }
    }

    /// Whether there are decisions that the broker has not acknowledged.
    pub(in super::super) fn has_decisions(&self) -> bool {
        !self.outbox.is_empty() || self.shared.has_direct()
    }

    /// Reports the decisions that stand nowhere but here, at the end.
    pub(in super::super) fn lose_unstored(&self) {
        while let Some(decision) = self.shared.take_direct() {
            self.shared.lose(&decision.result_id);
        }
    }
}
