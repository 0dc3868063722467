//! The one thread that writes, and its group commit.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use super::OutboxError;
use super::store::Store;

/// Commands waiting for the writer at most; beyond, callers wait, which slows the line to the
/// speed of its disk instead of filling the memory.
const QUEUE: usize = 1024;
/// Commands in one transaction at most.
const GROUP: usize = 256;

/// What the writer can be asked to do.
#[derive(Debug)]
pub(super) enum Command {
    /// Append a decision and answer with its row.
    Append { worth: usize, payload: Vec<u8>, reply: SyncSender<Result<i64, OutboxError>> },
    /// Remove acknowledged rows.
    Remove(Vec<i64>),
    /// Move an unreadable row to its own table.
    SetAside(i64),
    /// Answer when all before is committed.
    Settle(SyncSender<()>),
}

/// Numbers about the queue, true after every commit.
#[derive(Debug, Default)]
pub(super) struct Gauges {
    pub(super) waiting: AtomicU64,
    pub(super) expired: AtomicU64,
    pub(super) newest_row: AtomicI64,
}

/// The thread, and the way to it.
#[derive(Debug)]
pub(super) struct Writer {
    commands: Option<SyncSender<Command>>,
    gauges: Arc<Gauges>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    pub(super) fn start(store: Store) -> std::io::Result<Self> {
        let (commands, receiver) = sync_channel(QUEUE);
        let gauges = Arc::new(Gauges::default());
        publish_gauges(&store, &gauges);
        let shared = Arc::clone(&gauges);
        let thread = std::thread::Builder::new().name("outbox".into()).spawn(move || run(store, &receiver, &shared))?;
        Ok(Self { commands: Some(commands), gauges, thread: Some(thread) })
    }

    pub(super) fn gauges(&self) -> &Gauges {
        &self.gauges
    }

    pub(super) fn send(&self, command: Command) -> Result<(), OutboxError> {
        let commands = self.commands.as_ref().ok_or(OutboxError::Stopped)?;
        commands.send(command).map_err(|_| OutboxError::Stopped)
    }

    pub(super) fn append(&self, worth: usize, payload: Vec<u8>) -> Result<i64, OutboxError> {
        let (reply, answer) = sync_channel(1);
        self.send(Command::Append { worth, payload, reply })?;
        answer.recv().unwrap_or(Err(OutboxError::Stopped))
    }

    pub(super) fn settle(&self) -> Result<(), OutboxError> {
        let (reply, answer) = sync_channel(1);
        self.send(Command::Settle(reply))?;
        answer.recv().map_err(|_| OutboxError::Stopped)
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        drop(self.commands.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("outbox writer ended with a panic");
        }
    }
}

fn publish_gauges(store: &Store, gauges: &Gauges) {
    gauges.newest_row.store(store.newest_row, Ordering::Release);
    gauges.waiting.store(store.len(), Ordering::Release);
    gauges.expired.store(store.expired, Ordering::Release);
}

fn run(mut store: Store, commands: &Receiver<Command>, gauges: &Gauges) {
    // Removals that could not be committed (a full disk) are tried again with the next group.
    let mut unremoved: Vec<i64> = Vec::new();
    while let Ok(first) = commands.recv() {
        let mut group = vec![first];
        while group.len() < GROUP
            && let Ok(next) = commands.try_recv()
        {
            group.push(next);
        }
        let expired_before = store.expired;
        let rows = store.transaction(|store| {
            let mut rows = Vec::new();
            for row in &unremoved {
                store.remove(*row)?;
            }
            for command in &group {
                match command {
                    Command::Append { worth, payload, .. } => rows.push(store.append(*worth, payload)?),
                    Command::Remove(acknowledged) => {
                        for row in acknowledged {
                            store.remove(*row)?;
                        }
                    }
                    Command::SetAside(row) => store.set_aside_row(*row)?,
                    Command::Settle(_) => {}
                }
            }
            store.expire()?;
            Ok(rows)
        });
        publish_gauges(&store, gauges);
        if store.expired > expired_before {
            tracing::error!(
                expired = store.expired - expired_before,
                total = store.expired,
                "outbox is full: the oldest decisions of least worth expired unacknowledged"
            );
        }
        answer(group, rows.map_err(Arc::new), &mut unremoved);
    }
}

/// Tells everyone in the group how the commit went.
fn answer(group: Vec<Command>, rows: Result<Vec<i64>, Arc<rusqlite::Error>>, unremoved: &mut Vec<i64>) {
    let failure = rows.as_ref().err().cloned();
    if let Some(error) = &failure {
        tracing::error!(%error, commands = group.len(), "outbox could not commit");
    } else {
        unremoved.clear();
    }
    let mut rows = rows.unwrap_or_default().into_iter();
    for command in group {
        match command {
            Command::Append { reply, .. } => {
                let answer = match &failure {
                    Some(source) => Err(OutboxError::Write { source: Arc::clone(source) }),
                    None => rows.next().ok_or(OutboxError::Stopped),
                };
                // A caller that no longer waits needs no answer.
                let _ = reply.send(answer);
            }
            Command::Remove(acknowledged) => {
                if failure.is_some() {
                    unremoved.extend(acknowledged);
                }
            }
            // Not moved: it is met again with the next page.
            Command::SetAside(_) => {}
            Command::Settle(reply) => {
                let _ = reply.send(());
            }
        }
    }
}
