//! What is committed goes from SQLite's journal into the queue's file in a thread of its own. Done by the writer, as
//! SQLite does by itself, it holds whoever waits for a commit meanwhile back: by 3 to 4 ms at 500 decisions a second (p99.9;
//! so 0.2 to 0.4), and by more where the disk is slow.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{JoinHandle, Thread};
use std::time::Duration;

use rusqlite::Connection;
use rusqlite::hooks::Wal;

/// Pages of the journal from which on it is due; SQLite's own measure.
const DUE: i32 = 1000;
/// Pages from which on the writer does it itself, for the journal must not grow for ever: 128 MiB.
const MOST: i32 = 32 * DUE;
/// Passes until none has been committed meanwhile: only then the journal is begun anew.
const PASSES: usize = 8;
/// Rest after that many, or after a failure.
const REST: Duration = Duration::from_millis(50);

#[derive(Debug, Default)]
struct Asked {
    due: AtomicBool,
    stop: AtomicBool,
}

/// The thread; it ends when this is dropped.
#[derive(Debug)]
pub(super) struct Checkpointer {
    asked: Arc<Asked>,
    thread: Option<JoinHandle<()>>,
}

impl Checkpointer {
    pub(super) fn start(file: &Path) -> std::io::Result<Self> {
        let (asked, file) = (Arc::new(Asked::default()), file.to_path_buf());
        let shared = Arc::clone(&asked);
        let thread = std::thread::Builder::new().name("checkpoint".into()).spawn(move || run(&file, &shared))?;
        Ok(Self { asked, thread: Some(thread) })
    }

    /// Has the thread look after the journal that this connection writes, in SQLite's place.
    pub(super) fn watch(&self, connection: &mut Connection) -> rusqlite::Result<()> {
        let asked = Arc::clone(&self.asked);
        let Some(thread) = self.thread.as_ref().map(|thread| thread.thread().clone()) else { return Ok(()) };
        connection.wal_hook(Some(move |journal: &mut Wal, pages| {
            after_commit(journal, pages, &asked, &thread);
            Ok(())
        }))
    }
}

impl Drop for Checkpointer {
    fn drop(&mut self) {
        self.asked.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            if thread.join().is_err() {
                tracing::error!("the thread that empties the outbox's journal ended with a panic");
            }
        }
    }
}

fn after_commit(journal: &mut Wal, pages: i32, asked: &Asked, thread: &Thread) {
    if pages < DUE {
        return;
    }
    // What fails here is tried again after the next commit, and told by the thread.
    if pages >= MOST && journal.checkpoint().is_ok() {
        return;
    }
    if !asked.due.swap(true, Ordering::AcqRel) {
        thread.unpark();
    }
}

fn run(file: &Path, asked: &Asked) {
    let mut told = false;
    while !asked.stop.load(Ordering::Acquire) {
        if !asked.due.load(Ordering::Acquire) {
            std::thread::park();
            continue;
        }
        let done = empty(file);
        match &done {
            Ok(_) => told = false,
            Err(error) if !told => {
                tracing::warn!(%error, file = %file.display(), "the outbox's journal could not be emptied; it grows until that succeeds");
                told = true;
            }
            Err(_) => {}
        }
        // Forgotten before the rest: a commit meanwhile asks again.
        asked.due.store(false, Ordering::Release);
        if !matches!(done, Ok(true)) {
            std::thread::park_timeout(REST);
        }
    }
}

/// Moves what is committed into the file; whether the whole journal was.
fn empty(file: &Path) -> rusqlite::Result<bool> {
    // Opened each time: a damaged file may have been set aside and another be there.
    let connection = Connection::open_with_flags(file, rusqlite::OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    for _ in 0..PASSES {
        let pass = connection
            .query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |row| Ok((row.get::<_, i64>(1)?, row.get::<_, i64>(2)?)));
        let (pages, moved) = pass?;
        if pages == moved {
            return Ok(true);
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::time::Instant;

    use super::*;

    fn queue(folder: &Path) -> (PathBuf, Connection) {
        let file = folder.join("queue.sqlite");
        let connection = Connection::open(&file).unwrap();
        connection.query_row("PRAGMA journal_mode = WAL", [], |_| Ok(())).unwrap();
        connection.execute_batch("PRAGMA synchronous = NORMAL; CREATE TABLE t (v BLOB)").unwrap();
        (file, connection)
    }

    /// Pages in the journal, looked at without moving any.
    fn pages(connection: &Connection) -> i64 {
        connection.query_row("PRAGMA wal_checkpoint(NOOP)", [], |row| row.get(1)).unwrap()
    }

    fn insert(connection: &Connection, bytes: i64) {
        connection.execute("INSERT INTO t VALUES (zeroblob(?1))", [bytes]).unwrap();
    }

    #[test]
    fn the_journal_is_emptied_beside_the_writer_and_begun_anew() {
        let folder = tempfile::tempdir().unwrap();
        let (file, mut connection) = queue(folder.path());
        let checkpointer = Checkpointer::start(&file).unwrap();
        checkpointer.watch(&mut connection).unwrap();
        let rows = 10 * i64::from(DUE) / 4;
        (0..rows).for_each(|_| insert(&connection, 12_000));
        let began = Instant::now();
        while pages(&connection) >= i64::from(DUE) {
            assert!(began.elapsed() < Duration::from_secs(60), "{} pages in the journal", pages(&connection));
            insert(&connection, 1);
            std::thread::sleep(Duration::from_millis(5));
        }
        drop(checkpointer);
        let found = "SELECT count(*) FROM t WHERE length(v) = 12000";
        assert_eq!(connection.query_row(found, [], |row| row.get::<_, i64>(0)).unwrap(), rows);
        assert!(std::fs::metadata(&file).unwrap().len() > 12_000 * rows as u64, "they are in the file");
    }

    #[test]
    fn where_the_thread_does_not_come_to_it_the_writer_does() {
        let folder = tempfile::tempdir().unwrap();
        let (file, mut connection) = queue(folder.path());
        Checkpointer::start(&file).unwrap().watch(&mut connection).unwrap();
        for _ in 0..2 * MOST / DUE {
            insert(&connection, 4096 * i64::from(DUE));
            assert!(pages(&connection) < i64::from(MOST + 2 * DUE), "{} pages", pages(&connection));
        }
    }

    #[test]
    fn a_file_that_is_gone_is_an_error_and_none_is_made() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("queue.sqlite");
        assert!(empty(&file).is_err());
        assert!(!file.exists());
    }
}
