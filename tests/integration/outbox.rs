//! The queue of unacknowledged decisions: order, bound, survival.

use std::path::Path;
use std::sync::Arc;

use linegate::inspection::{Decision, Verdict};
use linegate::line::outbox::{Outbox, OutboxError};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseError};

use crate::publishing::brokers::PATIENCE;
use crate::publishing::decision;

fn numbered(number: u64, verdict: Verdict) -> Decision {
    Decision { sequence: number, verdict, ..decision("front") }
}

fn sequences(outbox: &Outbox) -> Vec<u64> {
    outbox.page(0, 100_000).unwrap().into_iter().map(|waiting| waiting.decision.sequence).collect()
}

#[test]
fn decisions_come_back_in_the_order_of_appending_after_reopening() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("queue/outbox.sqlite");
    let sent: Vec<Decision> = (1..=20).map(|n| numbered(n, Verdict::Reject)).collect();
    {
        let outbox = Outbox::open(&file, 1000).unwrap();
        for decision in &sent {
            outbox.append(decision).unwrap();
        }
    }
    let outbox = Outbox::open(&file, 1000).unwrap();
    assert_eq!(outbox.len(), 20);
    let first = outbox.page(0, 7).unwrap();
    assert_eq!(first.len(), 7);
    let rest = outbox.page(first[6].row, 1000).unwrap();
    let back: Vec<Decision> = first.into_iter().chain(rest).map(|waiting| waiting.decision).collect();
    assert_eq!(back, sent);
}

#[test]
fn appends_from_many_threads_are_all_kept_and_each_knows_its_row() {
    let folder = tempfile::tempdir().unwrap();
    let outbox = Outbox::open(&folder.path().join("outbox.sqlite"), 10_000).unwrap();
    let mut rows: Vec<(i64, u64)> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8u64)
            .map(|thread| {
                let outbox = outbox.clone();
                scope.spawn(move || {
                    (0..50u64)
                        .map(|n| {
                            let number = thread * 50 + n;
                            (outbox.append(&numbered(number, Verdict::Accept)).unwrap(), number)
                        })
                        .collect::<Vec<_>>()
                })
            })
            .collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    rows.sort_unstable();
    let stored: Vec<(i64, u64)> =
        outbox.page(0, 10_000).unwrap().into_iter().map(|w| (w.row, w.decision.sequence)).collect();
    assert_eq!(stored, rows);
}

#[test]
fn a_full_outbox_expires_the_oldest_accepts_first_and_rejects_last() {
    let folder = tempfile::tempdir().unwrap();
    let outbox = Outbox::open(&folder.path().join("outbox.sqlite"), 4).unwrap();
    for (number, verdict) in
        [Verdict::Reject, Verdict::Accept, Verdict::NotInspected, Verdict::Accept, Verdict::Suspect]
            .into_iter()
            .enumerate()
    {
        outbox.append(&numbered(number as u64, verdict)).unwrap();
    }
    assert_eq!(sequences(&outbox), [0, 2, 3, 4], "the oldest accept goes first");
    for number in 5..8 {
        outbox.append(&numbered(number, Verdict::Reject)).unwrap();
    }
    assert_eq!(sequences(&outbox), [0, 5, 6, 7], "then the other accept, the suspect, the uninspected");
    outbox.append(&numbered(8, Verdict::Accept)).unwrap();
    assert_eq!(sequences(&outbox), [0, 5, 6, 7], "an accept does not push a reject out");
    assert_eq!(outbox.expired(), 5);
}

#[test]
fn a_second_line_cannot_open_the_same_outbox() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("outbox.sqlite");
    let first = Outbox::open(&file, 10).unwrap();
    assert!(matches!(Outbox::open(&file, 10), Err(OutboxError::InUse { .. })));
    drop(first);
    Outbox::open(&file, 10).unwrap();
}

fn set_aside_files(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.starts_with("outbox.sqlite.corrupt-") && !name.ends_with("-wal") && !name.ends_with("-shm"))
        .collect();
    names.sort();
    names
}

#[test]
fn a_foreign_file_is_set_aside_and_a_fresh_outbox_is_made() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("outbox.sqlite");
    std::fs::write(&file, "this is somebody's letter, long enough to be taken for a header".repeat(40)).unwrap();
    let outbox = Outbox::open(&file, 10).unwrap();
    assert!(outbox.is_empty());
    outbox.append(&numbered(1, Verdict::Accept)).unwrap();
    let aside = set_aside_files(folder.path());
    assert_eq!(aside.len(), 1);
    assert!(std::fs::read_to_string(folder.path().join(&aside[0])).unwrap().starts_with("this is somebody's letter"));
}

#[test]
fn a_torn_file_is_set_aside_and_a_fresh_outbox_is_made() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("outbox.sqlite");
    {
        let outbox = Outbox::open(&file, 10_000).unwrap();
        for number in 0..200 {
            outbox.append(&numbered(number, Verdict::Reject)).unwrap();
        }
    }
    let whole = std::fs::read(&file).unwrap();
    assert!(whole.len() > 16_384, "the test needs several pages");
    let mut torn = whole[..whole.len() / 2 / 4096 * 4096].to_vec();
    torn[8192..12_288].fill(0xa5);
    std::fs::write(&file, torn).unwrap();
    let outbox = Outbox::open(&file, 10_000).unwrap();
    assert!(outbox.is_empty());
    assert_eq!(set_aside_files(folder.path()).len(), 1);
}

#[test]
fn a_decision_that_cannot_be_read_does_not_hold_the_others_up() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("outbox.sqlite");
    {
        let outbox = Outbox::open(&file, 10).unwrap();
        for number in 0..3 {
            outbox.append(&numbered(number, Verdict::Reject)).unwrap();
        }
    }
    let database = rusqlite::Connection::open(&file).unwrap();
    database.execute("UPDATE decision SET payload = x'7b7d' WHERE row = 1", []).unwrap();
    drop(database);
    let outbox = Outbox::open(&file, 10).unwrap();
    let first = outbox.page(0, 1).unwrap();
    assert_eq!(first[0].decision.sequence, 1, "the page goes on behind the unreadable one");
    outbox.settle().unwrap();
    assert_eq!(outbox.len(), 2);
    drop(outbox);
    let database = rusqlite::Connection::open(&file).unwrap();
    let kept: i64 = database.query_row("SELECT count(*) FROM unreadable", [], |row| row.get(0)).unwrap();
    assert_eq!(kept, 1, "it is kept for a person");
}

#[test]
fn decisions_older_than_the_bound_expire_and_are_counted_whatever_the_clock_says_later() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("outbox.sqlite");
    {
        let outbox = Outbox::open(&file, 10).unwrap();
        for (number, verdict) in [(0, Verdict::Reject), (1, Verdict::Accept), (2, Verdict::Reject)] {
            outbox.append(&numbered(number, verdict)).unwrap();
        }
    }
    let database = rusqlite::Connection::open(&file).unwrap();
    let hours = |n: i64| n * 3_600_000_000;
    database.execute("UPDATE decision SET made_us = made_us - ?1 WHERE row < 3", [hours(3)]).unwrap();
    // The clock was ahead when this one was made.
    database.execute("UPDATE decision SET made_us = made_us + ?1 WHERE row = 3", [hours(50)]).unwrap();
    drop(database);
    let config = linegate::config::Outbox { file, max_age_h: 2, ..Default::default() };
    let outbox = Outbox::open_with(&config).unwrap();
    outbox.append(&numbered(3, Verdict::Reject)).unwrap();
    assert_eq!(sequences(&outbox), [2, 3]);
    assert_eq!((outbox.expired(), outbox.expired_rejects()), (2, 1));
    assert!(outbox.oldest_age().is_some_and(|age| age.as_secs() < 3600), "{:?}", outbox.oldest_age());
}

#[test]
fn an_outbox_of_the_former_layout_is_taken_over_with_its_decisions() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("outbox.sqlite");
    let database = rusqlite::Connection::open(&file).unwrap();
    database
        .execute_batch(
            "CREATE TABLE decision (row INTEGER PRIMARY KEY AUTOINCREMENT, worth INTEGER NOT NULL,
                                    payload BLOB NOT NULL) STRICT;
             CREATE INDEX decision_by_worth ON decision (worth, row);
             CREATE TABLE unreadable (row INTEGER PRIMARY KEY, payload BLOB NOT NULL) STRICT;
             PRAGMA application_id = 0x4c474f42; PRAGMA user_version = 1;",
        )
        .unwrap();
    let decided_us = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_micros() as i64;
    for number in 1..=2 {
        let old = Decision { decided_us: decided_us - 60_000_000, ..numbered(number, Verdict::Reject) };
        let payload = serde_json::to_vec(&old).unwrap();
        database.execute("INSERT INTO decision (worth, payload) VALUES (3, ?1)", [payload]).unwrap();
    }
    drop(database);
    let outbox = Outbox::open(&file, 10).unwrap();
    outbox.append(&numbered(3, Verdict::Accept)).unwrap();
    assert_eq!(sequences(&outbox), [1, 2, 3]);
    assert_eq!(outbox.set_aside(), None);
    let age = outbox.oldest_age().unwrap().as_secs();
    assert!((60..600).contains(&age), "{age} s");
}

#[test]
fn an_outbox_damaged_while_it_is_open_is_set_aside_and_the_next_decisions_are_kept() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("outbox.sqlite");
    let outbox = Outbox::open(&file, 100_000).unwrap();
    let rows: Vec<i64> = (0..300).map(|number| outbox.append(&numbered(number, Verdict::Reject)).unwrap()).collect();
    for name in ["outbox.sqlite", "outbox.sqlite-wal"] {
        let path = folder.path().join(name);
        let damaged = std::fs::read(&path).unwrap().iter().map(|byte| byte ^ 0xa5).collect::<Vec<_>>();
        let mut there = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
        std::io::Write::write_all(&mut there, &damaged).unwrap();
    }
    crate::publishing::brokers::eventually("a decision is kept again", PATIENCE, || {
        // What was read before may still be in memory; sooner or later a page is not.
        let _ = outbox.page(0, 1000);
        outbox.append(&numbered(300, Verdict::Reject)).is_ok() && outbox.set_aside().is_some()
    });
    let newest = outbox.append(&numbered(301, Verdict::Reject)).unwrap();
    assert!(newest > *rows.last().unwrap(), "rows never come back");
    assert_eq!(outbox.page(newest - 1, 10).unwrap()[0].decision.sequence, 301);
    assert_eq!(set_aside_files(folder.path()).len(), 1);
}

#[derive(Debug, Clone)]
enum Step {
    Append(Verdict),
    Remove(Vec<prop::sample::Index>),
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    let verdict = prop_oneof![
        4 => Just(Verdict::Accept), 1 => Just(Verdict::Reject),
        1 => Just(Verdict::Suspect), 1 => Just(Verdict::NotInspected)
    ];
    prop_oneof![
        8 => verdict.prop_map(Step::Append),
        3 => prop::collection::vec(any::<prop::sample::Index>(), 1..4).prop_map(Step::Remove),
        1 => Just(Step::Reopen),
    ]
}

fn worth(verdict: Verdict) -> u8 {
    match verdict {
        Verdict::Accept => 0,
        Verdict::Suspect => 1,
        Verdict::NotInspected => 2,
        Verdict::Reject => 3,
    }
}

/// Runs the steps on the outbox and on a plain list, and compares after every one.
fn compare_with_model(steps: Vec<Step>, bound: usize) -> Result<(), TestCaseError> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("outbox.sqlite");
    let mut outbox = Some(Arc::new(Outbox::open(&file, bound as u64).unwrap()));
    let mut model: Vec<(i64, Decision)> = Vec::new();
    let mut last_row = 0;
    for (number, step) in steps.into_iter().enumerate() {
        let queue = outbox.clone().unwrap();
        match step {
            Step::Append(verdict) => {
                let decision = numbered(number as u64, verdict);
                let row = queue.append(&decision).unwrap();
                prop_assert!(row > last_row, "rows ascend and never come back");
                last_row = row;
                model.push((row, decision));
                if model.len() > bound {
                    let expired = (0..model.len()).min_by_key(|&at| (worth(model[at].1.verdict), at)).unwrap();
                    model.remove(expired);
                }
            }
            Step::Remove(picks) => {
                let rows: Vec<i64> =
                    if model.is_empty() { vec![7] } else { picks.iter().map(|pick| pick.get(&model).0).collect() };
                queue.remove(rows.clone()).unwrap();
                queue.settle().unwrap();
                model.retain(|(row, _)| !rows.contains(row));
            }
            Step::Reopen => {
                drop(queue);
                drop(outbox.take());
                outbox = Some(Arc::new(Outbox::open(&file, bound as u64).unwrap()));
            }
        }
        let queue = outbox.clone().unwrap();
        prop_assert_eq!(queue.len(), model.len() as u64);
        prop_assert_eq!(queue.newest_row(), last_row);
        let stored: Vec<(i64, Decision)> =
            queue.page(0, 1000).unwrap().into_iter().map(|w| (w.row, w.decision)).collect();
        prop_assert_eq!(&stored, &model);
    }
    Ok(())
}

#[test]
fn the_outbox_behaves_like_a_bounded_list_whatever_is_done_to_it() {
    let config = Config { cases: 24, failure_persistence: None, ..Config::default() };
    proptest!(config, |(steps in prop::collection::vec(step(), 1..60), bound in 1usize..12)| {
        compare_with_model(steps, bound)?;
    });
}
