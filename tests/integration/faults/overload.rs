//! More frames than the line can inspect: every one has its decision by its deadline.

use std::fmt::Write as _;
use std::sync::mpsc::sync_channel;
use std::time::{Duration, Instant};

use linegate::inspection::{Decision, Verdict};
use linegate::line::topology::Line;

use super::extent;
use crate::run::{Site, assert_complete, wait_until, write_slow_bundle};

const DEADLINE_MS: u64 = 200;

fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    resident.trim().trim_end_matches("kB").trim().parse().unwrap()
}

/// Two cameras at a rate in frames a second, and a model that is slow.
fn site(rate: u64) -> Site {
    let mut site = Site::with_bundle();
    let bundle = site.folder.path().join("bundle");
    std::fs::remove_dir_all(&bundle).unwrap();
    write_slow_bundle(&bundle, "1", 128.0, 40);
    let mut text = "[batching]\nmax_batch = 4\nmax_wait_ms = 20\nqueue_frames = 8\n".to_owned();
    for camera in ["left", "right"] {
        write!(
            text,
            "[[camera]]\nname = \"{camera}\"\npipeline = \"test\"\ndeadline_ms = {DEADLINE_MS}\n\
             parameters = {{ pattern = \"white\", width = 320, height = 240, rate = {} }}\n",
            rate / 2
        )
        .unwrap();
    }
    site.add(&text);
    site
}

/// Frames a second that the line decides about when it has as many as it likes.
fn capacity() -> u64 {
    let line = Line::start(&site(300).config(), None).unwrap();
    wait_until(|| line.stats().frames > 20);
    let (begin, before) = (Instant::now(), line.stats());
    std::thread::sleep(Duration::from_secs(extent(2, 10)));
    let after = line.stats();
    let inspected = (after.decisions - after.not_inspected) - (before.decisions - before.not_inspected);
    let rate = inspected as f64 / begin.elapsed().as_secs_f64();
    line.stop();
    (rate as u64).max(2)
}

#[test]
fn under_threefold_overload_every_frame_has_its_decision_by_its_deadline() {
    let capacity = capacity();
    let site = site(3 * capacity);
    let (sender, decisions) = sync_channel(1_000_000);
    let line = Line::start(&site.config(), Some(sender)).unwrap();
    let seconds = extent(4, 300);
    std::thread::sleep(Duration::from_secs(seconds / 4));
    let before = resident_kib();
    std::thread::sleep(Duration::from_secs(seconds - seconds / 4));
    let after = resident_kib();
    let summary = line.stop();
    let decisions: Vec<Decision> = decisions.try_iter().collect();
    assert_complete(&decisions, &summary);
    let mut over_ms: Vec<f64> = decisions
        .iter()
        .map(|decision| {
            let latency = decision.latency;
            let spent = latency.queue_ms + latency.batch_ms + latency.infer_ms + latency.decide_ms;
            spent - DEADLINE_MS as f64
        })
        .collect();
    over_ms.sort_by(f64::total_cmp);
    let at = |share: f64| over_ms[((over_ms.len() - 1) as f64 * share) as usize];
    let inspected = decisions.iter().filter(|d| d.verdict != Verdict::NotInspected).count();
    println!(
        "{} frames at {} a second where {capacity} can be inspected, {inspected} inspected; beyond the deadline: \
         p99 {:.1} ms, p99.9 {:.1} ms, highest {:.1} ms; resident {before} -> {after} KiB",
        decisions.len(),
        3 * capacity,
        at(0.99),
        at(0.999),
        at(1.0)
    );
    assert!(inspected > 0, "a line that is late with every frame inspects none");
    assert!(decisions.iter().filter(|d| d.verdict != Verdict::NotInspected).all(|d| d.deadline_met == Some(true)));
    // The machine may be loaded by others in the short form.
    let allowed = if extent(0, 1) == 1 { 20.0 } else { 500.0 };
    assert!(at(0.999) <= allowed, "p99.9 is {:.1} ms beyond the deadline", at(0.999));
    if extent(0, 1) == 1 {
        assert!(after <= before + 64 * 1024, "resident {before} -> {after} KiB");
    }
}
