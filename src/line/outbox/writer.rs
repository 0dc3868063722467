//! The one thread that writes, and its group commit.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rusqlite::Connection;

use super::OutboxError;
use super::store::{self, Store, WORTHS};
use crate::line::prompt::take_short_turns;

/// Commands waiting for the writer at most; beyond, callers wait, which slows the line to the
/// speed of its disk instead of filling the memory.
const QUEUE: usize = 1024;
/// Commands in one transaction at most.
const GROUP: usize = 256;
/// Time between two looks at the age of what waits.
const AGE_LOOK: Duration = Duration::from_secs(1);

/// What the writer can be asked to do.
#[derive(Debug)]
pub(super) enum Command {
    /// Append a decision and answer with its row.
    Append { worth: usize, payload: Vec<u8>, reply: SyncSender<Result<i64, OutboxError>> },
    /// Remove acknowledged rows.
    Remove(Vec<i64>),
    /// Move an unreadable row to its own table.
    SetAside(i64),
    /// A reader met damage: look at the file, and set it aside if that is so.
    Examine,
    /// Answer when all before is committed.
    Settle(SyncSender<()>),
}

/// Numbers about the queue, true after every commit.
#[derive(Debug, Default)]
pub(super) struct Gauges {
    pub(super) waiting: AtomicU64,
    pub(super) expired: [AtomicU64; WORTHS],
    pub(super) newest_row: AtomicI64,
    /// Age of the oldest decision at the last look, microseconds; below 0 where nothing waited.
    pub(super) oldest_age_us: AtomicI64,
    /// A damaged file that was set aside.
    pub(super) set_aside: Mutex<Option<std::path::PathBuf>>,
}

/// A decision on its way to the disk; its place in the queue is taken.
#[derive(Debug)]
#[must_use = "it is durable when `wait` has returned"]
pub struct Appending(Receiver<Result<i64, OutboxError>>);

impl Appending {
    /// Waits for the commit; the decision's row.
    ///
    /// # Errors
    /// The decision was not committed: the disk is full or broken.
    pub fn wait(self) -> Result<i64, OutboxError> {
        self.0.recv().unwrap_or(Err(OutboxError::Stopped))
    }
}

/// The thread, and the way to it.
#[derive(Debug)]
pub(super) struct Writer {
    commands: Option<SyncSender<Command>>,
    gauges: Arc<Gauges>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    /// `reader` is the other connection to the file, changed with it when it is set aside.
    pub(super) fn start(store: Store, reader: Arc<Mutex<Connection>>) -> std::io::Result<Self> {
        let (commands, receiver) = sync_channel(QUEUE);
        let gauges = Arc::new(Gauges::default());
        publish_gauges(&store, &gauges);
        let shared = Arc::clone(&gauges);
        let thread =
            std::thread::Builder::new().name("outbox".into()).spawn(move || run(store, &reader, &receiver, &shared))?;
        Ok(Self { commands: Some(commands), gauges, thread: Some(thread) })
    }

    pub(super) fn gauges(&self) -> &Gauges {
        &self.gauges
    }

    pub(super) fn send(&self, command: Command) -> Result<(), OutboxError> {
        let commands = self.commands.as_ref().ok_or(OutboxError::Stopped)?;
        commands.send(command).map_err(|_| OutboxError::Stopped)
    }

    pub(super) fn append(&self, worth: usize, payload: Vec<u8>) -> Result<Appending, OutboxError> {
        let (reply, answer) = sync_channel(1);
        self.send(Command::Append { worth, payload, reply })?;
        Ok(Appending(answer))
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
    for (gauge, expired) in gauges.expired.iter().zip(store.expired) {
        gauge.store(expired, Ordering::Release);
    }
    gauges.set_aside.lock().unwrap_or_else(PoisonError::into_inner).clone_from(&store.set_aside);
}

fn run(mut store: Store, reader: &Mutex<Connection>, commands: &Receiver<Command>, gauges: &Gauges) {
    take_short_turns();
    // Removals that could not be committed (a full disk) are tried again with the next group.
    let mut unremoved: Vec<i64> = Vec::new();
    let mut aged_at: Option<Instant> = None;
    loop {
        let mut group = match commands.recv_timeout(AGE_LOOK) {
            Ok(first) => vec![first],
            Err(RecvTimeoutError::Timeout) => Vec::new(),
            Err(RecvTimeoutError::Disconnected) => return,
        };
        while group.len() < GROUP
            && let Ok(next) = commands.try_recv()
        {
            group.push(next);
        }
        let look_at_age = aged_at.is_none_or(|at| at.elapsed() >= AGE_LOOK);
        if group.is_empty() && !look_at_age {
            continue;
        }
        let expired_before: u64 = store.expired.iter().sum();
        let mut rows = commit(&mut store, &group, &unremoved, look_at_age);
        if let Err(error) = &rows
            && store::is_damage(error)
        {
            match go_on_afresh(&mut store, reader, &error.to_string()) {
                // What is in memory is written to the new file.
                Ok(()) => rows = commit(&mut store, &group, &[], false),
                Err(error) => tracing::error!(%error, "damaged outbox could not be set aside"),
            }
        }
        if look_at_age {
            aged_at = Some(Instant::now());
            let oldest = store.oldest_age_us().ok().flatten();
            gauges.oldest_age_us.store(oldest.unwrap_or(-1), Ordering::Release);
        }
        publish_gauges(&store, gauges);
        let expired: u64 = store.expired.iter().sum();
        if expired > expired_before {
            tracing::error!(
                expired = expired - expired_before,
                total = expired,
                "decisions expired unacknowledged: the outbox is full or they are too old"
            );
        }
        answer(group, rows.map_err(Arc::new), &mut unremoved);
    }
}

fn commit(store: &mut Store, group: &[Command], unremoved: &[i64], look_at_age: bool) -> rusqlite::Result<Vec<i64>> {
    store.transaction(|store| {
        let mut rows = Vec::new();
        for row in unremoved {
            store.remove(*row)?;
        }
        for command in group {
            match command {
                Command::Append { worth, payload, .. } => rows.push(store.append(*worth, payload)?),
                Command::Remove(acknowledged) => {
                    for row in acknowledged {
                        store.remove(*row)?;
                    }
                }
                Command::SetAside(row) => store.set_aside_row(*row)?,
                Command::Examine => store.examine()?,
                Command::Settle(_) => {}
            }
        }
        if look_at_age {
            store.expire_aged()?;
        }
        store.expire()?;
        Ok(rows)
    })
}

/// The file is damaged while the line runs: the next decisions need another one.
fn go_on_afresh(store: &mut Store, reader: &Mutex<Connection>, reason: &str) -> Result<(), OutboxError> {
    let mut reader = reader.lock().unwrap_or_else(PoisonError::into_inner);
    store.begin_afresh(reason)?;
    *reader = store::open_reader(store.file())
        .map_err(|source| OutboxError::Database { file: store.file().to_path_buf(), source })?;
    Ok(())
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
            // Not moved or not examined: it is met again with the next page.
            Command::SetAside(_) | Command::Examine => {}
            Command::Settle(reply) => {
                let _ = reply.send(());
            }
        }
    }
}
