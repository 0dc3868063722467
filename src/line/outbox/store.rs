//! The queue's file: schema, checks and statements. No threads.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rusqlite::{Connection, ErrorCode, OptionalExtension, params};

use super::OutboxError;
use super::checkpoint::Checkpointer;
use crate::config::{self, Durability};

/// Marks the file as ours ("LGOB").
const APPLICATION_ID: i32 = 0x4c47_4f42;
/// Version of the tables.
const LAYOUT_VERSION: i32 = 2;
/// Number of values of `worth`.
pub(super) const WORTHS: usize = 4;

// AUTOINCREMENT: a row number must not come back after a delete, the publisher orders by it.
const SCHEMA: &str = "
    CREATE TABLE decision (
        row INTEGER PRIMARY KEY AUTOINCREMENT,
        worth INTEGER NOT NULL,
        payload BLOB NOT NULL,
        made_us INTEGER NOT NULL DEFAULT 0
    ) STRICT;
    CREATE INDEX decision_by_worth ON decision (worth, row);
    CREATE INDEX decision_by_time ON decision (made_us);
    CREATE TABLE unreadable (row INTEGER PRIMARY KEY, payload BLOB NOT NULL) STRICT;
";

/// From layout 1, which did not know when a decision was made.
const FROM_LAYOUT_1: &str = "
    ALTER TABLE decision ADD COLUMN made_us INTEGER NOT NULL DEFAULT 0;
    UPDATE decision SET made_us = coalesce(json_extract(CAST(payload AS TEXT), '$.decided_us'), 0)
        WHERE json_valid(CAST(payload AS TEXT));
    CREATE INDEX decision_by_time ON decision (made_us);
";
/// Decisions that expire by age in one transaction at most.
const AGED: i64 = 4096;

/// `FILE` with something appended to its whole name.
pub(super) fn beside(file: &Path, ending: &str) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(ending);
    PathBuf::from(name)
}

/// Why a file that is there is not our queue.
enum Unfit {
    /// It is damaged or belongs to something else.
    SetAside(String),
    /// It cannot be judged.
    Database(rusqlite::Error),
}

impl From<rusqlite::Error> for Unfit {
    fn from(error: rusqlite::Error) -> Self {
        if is_damage(&error) { Self::SetAside(error.to_string()) } else { Self::Database(error) }
    }
}

/// Microseconds since the Unix epoch, from a wall clock that is looked at once: whoever sets the clock
/// while the line runs makes no decision older or younger.
#[derive(Debug)]
struct Clock {
    opened_us: i64,
    opened: Instant,
}

impl Clock {
    fn start() -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { opened_us: since.as_micros() as i64, opened: Instant::now() }
    }

    fn now_us(&self) -> i64 {
        self.opened_us.saturating_add(self.opened.elapsed().as_micros() as i64)
    }
}

/// The writing side of the queue.
#[derive(Debug)]
pub(super) struct Store {
    file: PathBuf,
    // Ends before the last connection is closed.
    checkpointer: Checkpointer,
    connection: Connection,
    max_decisions: u64,
    max_age_us: i64,
    durability: Durability,
    clock: Clock,
    /// Decisions per worth.
    pub(super) counts: [u64; WORTHS],
    /// Decisions that expired since opening, per worth.
    pub(super) expired: [u64; WORTHS],
    /// The highest row ever given out.
    pub(super) newest_row: i64,
    /// Where a damaged file was put, if one was met.
    pub(super) set_aside: Option<PathBuf>,
}

impl Store {
    pub(super) fn open(config: &config::Outbox) -> Result<Self, OutboxError> {
        let file = &config.file;
        let mut aside = None;
        let mut connection = match open_checked(file, config.durability) {
            Ok(connection) => connection,
            Err(Unfit::Database(source)) => return Err(OutboxError::Database { file: file.clone(), source }),
            Err(Unfit::SetAside(reason)) => {
                let (connection, name) = open_afresh(file, config.durability, &reason)?;
                aside = Some(name);
                connection
            }
        };
        let mut counts = [0; WORTHS];
        let mut newest_row = 0;
        (|| {
            let mut statement = connection.prepare("SELECT worth, count(*) FROM decision GROUP BY worth")?;
            let mut rows = statement.query([])?;
            while let Some(row) = rows.next()? {
                let worth: i64 = row.get(0)?;
                let count: i64 = row.get(1)?;
                counts[(worth.max(0) as usize).min(WORTHS - 1)] += count as u64;
            }
            let sequence = "SELECT seq FROM sqlite_sequence WHERE name = 'decision'";
            newest_row = connection.query_row(sequence, [], |row| row.get(0)).optional()?.unwrap_or(0);
            Ok(())
        })()
        .map_err(|source| OutboxError::Database { file: file.clone(), source })?;
        let checkpointer =
            Checkpointer::start(file).map_err(|source| OutboxError::Open { file: file.clone(), source })?;
        checkpointer.watch(&mut connection).map_err(|source| OutboxError::Database { file: file.clone(), source })?;
        Ok(Self {
            file: file.clone(),
            checkpointer,
            connection,
            max_decisions: config.max_decisions,
            max_age_us: i64::try_from(config.max_age_h.saturating_mul(3_600_000_000)).unwrap_or(i64::MAX),
            durability: config.durability,
            clock: Clock::start(),
            counts,
            expired: [0; WORTHS],
            newest_row,
            set_aside: aside,
        })
    }

    /// Sets the damaged file aside in the middle of work and goes on with an empty one, whose rows
    /// go on where the former's ended.
    pub(super) fn begin_afresh(&mut self, reason: &str) -> Result<(), OutboxError> {
        let (mut connection, aside) = open_afresh(&self.file, self.durability, reason)?;
        self.checkpointer
            .watch(&mut connection)
            .and_then(|()| {
                connection.execute("INSERT INTO sqlite_sequence (name, seq) VALUES ('decision', ?1)", [self.newest_row])
            })
            .map_err(|source| OutboxError::Database { file: self.file.clone(), source })?;
        self.connection = connection;
        self.counts = [0; WORTHS];
        self.set_aside = Some(aside);
        Ok(())
    }

    /// Checks the whole file; an error where it is damaged.
    pub(super) fn examine(&self) -> rusqlite::Result<()> {
        let check: String = self.connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
        if check == "ok" {
            return Ok(());
        }
        Err(rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CORRUPT), Some(check)))
    }

    /// The queue's file.
    pub(super) fn file(&self) -> &Path {
        &self.file
    }

    /// Age of the oldest decision, microseconds; none where nothing waits.
    pub(super) fn oldest_age_us(&self) -> rusqlite::Result<Option<i64>> {
        let oldest: Option<i64> =
            self.connection.prepare_cached("SELECT min(made_us) FROM decision")?.query_row([], |row| row.get(0))?;
        Ok(oldest.map(|made_us| (self.clock.now_us() - made_us).max(0)))
    }

    /// Decisions in the queue.
    pub(super) fn len(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Runs `work` in one transaction; nothing of it remains when it fails.
    pub(super) fn transaction<T>(
        &mut self,
        work: impl FnOnce(&mut Self) -> rusqlite::Result<T>,
    ) -> rusqlite::Result<T> {
        let before = (self.counts, self.expired, self.newest_row);
        let result = self.connection.execute_batch("BEGIN IMMEDIATE").and_then(|()| {
            let value = work(self)?;
            self.connection.execute_batch("COMMIT")?;
            Ok(value)
        });
        if result.is_err() {
            // Some errors roll back by themselves; then this one only says so.
            let _ = self.connection.execute_batch("ROLLBACK");
            (self.counts, self.expired, self.newest_row) = before;
        }
        result
    }

    pub(super) fn append(&mut self, worth: usize, payload: &[u8]) -> rusqlite::Result<i64> {
        self.connection
            .prepare_cached("INSERT INTO decision (worth, payload, made_us) VALUES (?1, ?2, ?3)")?
            .execute(params![worth as i64, payload, self.clock.now_us()])?;
        self.counts[worth] += 1;
        self.newest_row = self.connection.last_insert_rowid();
        Ok(self.newest_row)
    }

    pub(super) fn remove(&mut self, row: i64) -> rusqlite::Result<()> {
        let worth: Option<i64> = self
            .connection
            .prepare_cached("DELETE FROM decision WHERE row = ?1 RETURNING worth")?
            .query_row([row], |found| found.get(0))
            .optional()?;
        if let Some(worth) = worth {
            self.counts[(worth.max(0) as usize).min(WORTHS - 1)] -= 1;
        }
        Ok(())
    }

    pub(super) fn set_aside_row(&mut self, row: i64) -> rusqlite::Result<()> {
        self.connection.execute(
            "INSERT OR IGNORE INTO unreadable (row, payload) SELECT row, payload FROM decision WHERE row = ?1",
            [row],
        )?;
        self.remove(row)
    }

    /// Removes what is beyond the bound: the oldest of the lowest worth first.
    pub(super) fn expire(&mut self) -> rusqlite::Result<()> {
        while self.len() > self.max_decisions {
            let excess = self.len() - self.max_decisions;
            let Some(worth) = self.counts.iter().position(|&count| count > 0) else { break };
            let removed = self
                .connection
                .prepare_cached(
                    "DELETE FROM decision WHERE row IN
                     (SELECT row FROM decision WHERE worth = ?1 ORDER BY row LIMIT ?2)",
                )?
                .execute(params![worth as i64, excess as i64])? as u64;
            if removed == 0 {
                break;
            }
            self.counts[worth] = self.counts[worth].saturating_sub(removed);
            self.expired[worth] += removed;
        }
        Ok(())
    }

    /// Removes what is older than the bound.
    pub(super) fn expire_aged(&mut self) -> rusqlite::Result<()> {
        let before_us = self.clock.now_us().saturating_sub(self.max_age_us);
        let mut statement = self.connection.prepare_cached(
            "DELETE FROM decision WHERE row IN
             (SELECT row FROM decision WHERE made_us < ?1 ORDER BY made_us LIMIT ?2) RETURNING worth",
        )?;
        let mut rows = statement.query(params![before_us, AGED])?;
        while let Some(row) = rows.next()? {
            let worth: i64 = row.get(0)?;
            let worth = (worth.max(0) as usize).min(WORTHS - 1);
            self.counts[worth] = self.counts[worth].saturating_sub(1);
            self.expired[worth] += 1;
        }
        Ok(())
    }
}

/// Sets the file aside and makes a new one.
fn open_afresh(file: &Path, durability: Durability, reason: &str) -> Result<(Connection, PathBuf), OutboxError> {
    let aside = set_aside(file).map_err(|source| OutboxError::Open { file: file.to_path_buf(), source })?;
    tracing::error!(
        file = %file.display(), aside = %aside.display(), reason,
        "outbox was damaged or not ours and has been set aside; decisions in it were not published"
    );
    let connection = open_checked(file, durability).map_err(|unfit| {
        let source = match unfit {
            Unfit::Database(source) => source,
            Unfit::SetAside(_) => rusqlite::Error::InvalidQuery,
        };
        OutboxError::Database { file: file.to_path_buf(), source }
    })?;
    Ok((connection, aside))
}

/// Whether an error says that the file is damaged.
pub(super) fn is_damage(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt))
}

fn open_checked(file: &Path, durability: Durability) -> Result<Connection, Unfit> {
    let connection = Connection::open(file)?;
    connection.busy_timeout(Duration::from_secs(5))?;
    let application: i32 = connection.pragma_query_value(None, "application_id", |row| row.get(0))?;
    let version: i32 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let tables: i64 = connection.query_row("SELECT count(*) FROM sqlite_master", [], |row| row.get(0))?;
    let fresh = application == 0 && version == 0 && tables == 0;
    if !fresh {
        if application != APPLICATION_ID || !(1..=LAYOUT_VERSION).contains(&version) {
            return Err(Unfit::SetAside(format!(
                "application id {application:#x} and layout {version}, expected {APPLICATION_ID:#x} and {LAYOUT_VERSION}"
            )));
        }
        let check: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
        if check != "ok" {
            return Err(Unfit::SetAside(check));
        }
    }
    let mode: String = connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0))?;
    if mode != "wal" {
        return Err(Unfit::SetAside(format!("journal mode stays {mode}")));
    }
    // FULL syncs the journal at every commit, NORMAL at checkpoints alone.
    let synchronous = match durability {
        Durability::Process => "NORMAL",
        Durability::Power => "FULL",
    };
    connection.pragma_update(None, "synchronous", synchronous)?;
    if fresh {
        connection.execute_batch("BEGIN IMMEDIATE")?;
        connection.execute_batch(SCHEMA)?;
        connection.pragma_update(None, "application_id", APPLICATION_ID)?;
        connection.pragma_update(None, "user_version", LAYOUT_VERSION)?;
        connection.execute_batch("COMMIT")?;
    } else if version == 1 {
        connection.execute_batch("BEGIN IMMEDIATE")?;
        connection.execute_batch(FROM_LAYOUT_1)?;
        connection.pragma_update(None, "user_version", LAYOUT_VERSION)?;
        connection.execute_batch("COMMIT")?;
    }
    Ok(connection)
}

/// Renames the file and its journals; the name of the renamed file.
fn set_aside(file: &Path) -> std::io::Result<PathBuf> {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let mut ending = format!(".corrupt-{seconds}");
    let mut attempt = 1;
    while beside(file, &ending).exists() {
        attempt += 1;
        ending = format!(".corrupt-{seconds}-{attempt}");
    }
    let aside = beside(file, &ending);
    std::fs::rename(file, &aside)?;
    for journal in ["-wal", "-shm"] {
        match std::fs::rename(beside(file, journal), beside(&aside, journal)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(aside)
}

/// A second connection that only reads.
pub(super) fn open_reader(file: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open(file)?;
    connection.busy_timeout(Duration::from_secs(5))?;
    connection.pragma_update(None, "query_only", true)?;
    Ok(connection)
}

/// Rows above `after`, oldest first, as (row, payload).
pub(super) fn page(connection: &Connection, after: i64, limit: usize) -> rusqlite::Result<Vec<(i64, Vec<u8>)>> {
    connection
        .prepare_cached("SELECT row, payload FROM decision WHERE row > ?1 ORDER BY row LIMIT ?2")?
        .query_map(params![after, limit as i64], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect()
}
