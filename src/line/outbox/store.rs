//! The queue's file: schema, checks and statements. No threads.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rusqlite::{Connection, ErrorCode, OptionalExtension, params};

use super::OutboxError;

/// Marks the file as ours ("LGOB").
const APPLICATION_ID: i32 = 0x4c47_4f42;
/// Version of the tables.
const LAYOUT_VERSION: i32 = 1;
/// Number of values of `worth`.
pub(super) const WORTHS: usize = 4;

// AUTOINCREMENT: a row number must not come back after a delete, the publisher orders by it.
const SCHEMA: &str = "
    CREATE TABLE decision (
        row INTEGER PRIMARY KEY AUTOINCREMENT,
        worth INTEGER NOT NULL,
        payload BLOB NOT NULL
    ) STRICT;
    CREATE INDEX decision_by_worth ON decision (worth, row);
    CREATE TABLE unreadable (row INTEGER PRIMARY KEY, payload BLOB NOT NULL) STRICT;
";

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
        match error.sqlite_error_code() {
            Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => Self::SetAside(error.to_string()),
            _ => Self::Database(error),
        }
    }
}

/// The writing side of the queue.
#[derive(Debug)]
pub(super) struct Store {
    connection: Connection,
    max_decisions: u64,
    /// Decisions per worth.
    pub(super) counts: [u64; WORTHS],
    /// Decisions that expired since opening.
    pub(super) expired: u64,
    /// The highest row ever given out.
    pub(super) newest_row: i64,
}

impl Store {
    pub(super) fn open(file: &Path, max_decisions: u64) -> Result<Self, OutboxError> {
        let database_error = |source| OutboxError::Database { file: file.to_path_buf(), source };
        let connection = match open_checked(file) {
            Ok(connection) => connection,
            Err(Unfit::Database(source)) => return Err(database_error(source)),
            Err(Unfit::SetAside(reason)) => {
                let aside = set_aside(file).map_err(|source| OutboxError::Open { file: file.to_path_buf(), source })?;
                tracing::error!(
                    file = %file.display(), aside = %aside.display(), reason,
                    "outbox was damaged or not ours and has been set aside; decisions in it were not published"
                );
                open_checked(file).map_err(|unfit| match unfit {
                    Unfit::Database(source) => database_error(source),
                    Unfit::SetAside(_) => database_error(rusqlite::Error::InvalidQuery),
                })?
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
        .map_err(database_error)?;
        Ok(Self { connection, max_decisions, counts, expired: 0, newest_row })
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
            .prepare_cached("INSERT INTO decision (worth, payload) VALUES (?1, ?2)")?
            .execute(params![worth as i64, payload])?;
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
            self.expired += removed;
        }
        Ok(())
    }
}

fn open_checked(file: &Path) -> Result<Connection, Unfit> {
    let connection = Connection::open(file)?;
    connection.busy_timeout(Duration::from_secs(5))?;
    let application: i32 = connection.pragma_query_value(None, "application_id", |row| row.get(0))?;
    let version: i32 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let tables: i64 = connection.query_row("SELECT count(*) FROM sqlite_master", [], |row| row.get(0))?;
    let fresh = application == 0 && version == 0 && tables == 0;
    if !fresh {
        if application != APPLICATION_ID || version != LAYOUT_VERSION {
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
    connection.pragma_update(None, "synchronous", "NORMAL")?;
    if fresh {
        connection.execute_batch("BEGIN IMMEDIATE")?;
        connection.execute_batch(SCHEMA)?;
        connection.pragma_update(None, "application_id", APPLICATION_ID)?;
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
