//! The line itself is killed at random moments.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Stdio;
use std::time::{Duration, Instant};

use linegate::inspection::Decision;
use rand::RngExt;

use super::account::{left_in, received};
use super::extent;
use crate::publishing::brokers::{Listener, Mosquitto, PATIENCE};
use crate::run::{Site, linegate};

/// Parts that come in one run at most; no run lives long enough for all of them.
const PARTS: u64 = 1500;

/// The part of this number of this run.
fn part(run: u64, number: u64) -> String {
    format!("{run:03}-{number:05}.png")
}

#[test]
fn a_line_that_is_killed_loses_no_durable_decision_and_its_outbox_opens_clean() {
    let broker = Mosquitto::start();
    let listener = Listener::start(broker.port, "linegate/v1/+/+/+/+/decision", &["-c", "-i", "keeper"]);
    let mut site = Site::new("[model]\nbundle = \"bundle\"\nthreads = 1\n");
    site.add(&format!(
        "[mqtt]\nbroker = {{ kind = \"external\", host = \"127.0.0.1\", port = {} }}\n\
         [[camera]]\nname = \"cam\"\npipeline = \"folder\"\nends = true\n\
         parameters = {{ location = \"parts\", rate = 150 }}",
        broker.port
    ));
    let config = site.path();
    let (folder, outbox) = (site.folder.path(), site.folder.path().join("outbox.sqlite"));
    let picture = folder.join("picture.png");
    image::RgbImage::from_pixel(96, 64, image::Rgb([90; 3])).save(&picture).unwrap();
    let bring = |run: u64, count: u64| {
        let parts = folder.join("parts");
        std::fs::remove_dir_all(&parts).ok();
        std::fs::create_dir(&parts).unwrap();
        (1..=count).for_each(|number| std::fs::hard_link(&picture, parts.join(part(run, number))).unwrap());
    };
    let start = || {
        let mut command = linegate(&["run", "--config", config.to_str().unwrap()]);
        command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    };

    let kills = extent(4, 50);
    let mut durable: BTreeMap<String, Decision> = BTreeMap::new();
    for run in 1..=kills {
        bring(run, PARTS);
        let mut line = start();
        std::thread::sleep(Duration::from_millis(rand::rng().random_range(0..2000)));
        line.kill().unwrap();
        line.wait().unwrap();
        durable.extend(left_in(&outbox).into_iter().map(|decision| (decision.result_id.clone(), decision)));
    }
    bring(kills + 1, 1);
    assert!(start().wait().unwrap().success());
    assert!(left_in(&outbox).is_empty());

    let until = Instant::now() + PATIENCE;
    let arrived = loop {
        let arrived = received(&listener);
        let ids: BTreeSet<&String> = arrived.iter().map(|decision| &decision.result_id).collect();
        let missing = durable.keys().filter(|id| !ids.contains(id)).count();
        if missing == 0 && arrived.iter().any(|decision| decision.part_id == Some(part(kills + 1, 1))) {
            break arrived;
        }
        assert!(Instant::now() < until, "{missing} of {} durable decisions never arrived", durable.len());
        std::thread::sleep(Duration::from_millis(100));
    };
    let total = arrived.len();
    let mut runs: BTreeMap<String, BTreeMap<u64, Decision>> = BTreeMap::new();
    for decision in arrived {
        let of_run = runs.entry(decision.boot_id.clone()).or_default();
        if let Some(before) = of_run.insert(decision.sequence, decision.clone()) {
            assert_eq!(before.result_id, decision.result_id, "one number, one decision");
        }
    }
    let decided: usize = runs.values().map(BTreeMap::len).sum();
    for decisions in runs.values() {
        // Numbers without gaps, and behind the last one a new run: what died undecided is visible.
        let run: u64 = decisions[&1].part_id.as_ref().unwrap()[..3].parse().unwrap();
        let last = decisions.len() as u64;
        assert_eq!(decisions.keys().copied().collect::<Vec<_>>(), (1..=last).collect::<Vec<_>>(), "run {run}");
        let mut frames: Vec<(u64, String)> =
            decisions.values().map(|decision| (decision.frame, decision.part_id.clone().unwrap())).collect();
        frames.sort_unstable();
        let expected: Vec<(u64, String)> = (1..=last).map(|number| (number, part(run, number))).collect();
        assert_eq!(frames, expected, "every numbered part up to the last is decided");
    }
    println!(
        "{kills} kills: {} runs came to deciding, {decided} parts decided, {} found in the outbox after a kill, \
         0 lost, {} copies",
        runs.len(),
        durable.len(),
        total - decided
    );
}
