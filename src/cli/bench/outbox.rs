//! What the outbox costs at an even rate of decisions.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context;
use serde::Serialize;

use crate::config::{Durability, Outbox as Settings};
use crate::inspection::{
    DECISION_SCHEMA_VERSION, Decision, Latency, ModelIdentity, PartSource, Reason, Rectangle, Region, TimeSource,
    Verdict,
};
use crate::line::outbox::Outbox;
use crate::training::cost::cpu_seconds;

/// Decisions a second.
const RATE: u32 = 500;
/// Decisions are read and removed in groups of so many, as in a tenth of a second of a line.
const PAGE: usize = 50;

/// Cost of one durability.
#[derive(Debug, Serialize)]
pub(super) struct OutboxCost {
    durability: Durability,
    decisions_per_second: f64,
    /// Processor time of appending, reading and removing, share of one core.
    cpu_share: f64,
    /// How long a decision waits for its commit, ms.
    append_p50_ms: f64,
    append_p99_ms: f64,
    append_p999_ms: f64,
}

/// Measures both durabilities on the disk of `folder`, `seconds` each.
pub(super) fn measure(folder: &Path, seconds: u32) -> anyhow::Result<Vec<OutboxCost>> {
    [Durability::Process, Durability::Power].map(|durability| one(folder, seconds, durability)).into_iter().collect()
}

fn one(folder: &Path, seconds: u32, durability: Durability) -> anyhow::Result<OutboxCost> {
    let folder = tempfile::tempdir_in(folder).context("the folder for the outbox cannot be written")?;
    let file = folder.path().join("outbox.sqlite");
    let outbox = Outbox::open_with(&Settings { file, durability, ..Settings::default() })?;
    let count = RATE * seconds;
    let mut waits = Vec::with_capacity(count as usize);
    let mut after = 0;
    let (started, cpu) = (Instant::now(), cpu_seconds());
    for number in 1..=count {
        let decision = decision(number.into());
        let since = Instant::now();
        outbox.append(&decision)?;
        waits.push(since.elapsed().as_secs_f64() * 1000.0);
        if (number as usize).is_multiple_of(PAGE) {
            let rows: Vec<i64> = outbox.page(after, PAGE)?.iter().map(|waiting| waiting.row).collect();
            after = rows.last().copied().unwrap_or(after);
            outbox.remove(rows)?;
        }
        std::thread::sleep((Duration::from_secs(1) * number / RATE).saturating_sub(started.elapsed()));
    }
    outbox.settle()?;
    let (wall, cpu) = (started.elapsed().as_secs_f64(), cpu_seconds() - cpu);
    waits.sort_by(f64::total_cmp);
    let quantile = |share: f64| waits[((waits.len() - 1) as f64 * share) as usize];
    Ok(OutboxCost {
        durability,
        decisions_per_second: f64::from(count) / wall,
        cpu_share: cpu / wall,
        append_p50_ms: quantile(0.5),
        append_p99_ms: quantile(0.99),
        append_p999_ms: quantile(0.999),
    })
}

/// Prints a table for people.
pub(super) fn print(costs: &[OutboxCost]) {
    println!("durability  decisions/s  share of a core  commit p50     p99    p99.9");
    for cost in costs {
        println!(
            "{:<10}  {:>11.0}  {:>13.1} %  {:>7.2} ms  {:>5.2} ms  {:>5.2} ms",
            format!("{:?}", cost.durability).to_lowercase(),
            cost.decisions_per_second,
            cost.cpu_share * 100.0,
            cost.append_p50_ms,
            cost.append_p99_ms,
            cost.append_p999_ms
        );
    }
}

/// A reject as a line makes them.
fn decision(sequence: u64) -> Decision {
    Decision {
        schema_version: DECISION_SCHEMA_VERSION,
        result_id: ulid::Ulid::generate().to_string(),
        boot_id: ulid::Ulid::generate().to_string(),
        sequence,
        site: "plant".into(),
        line: "line".into(),
        station: "station".into(),
        camera: "camera".into(),
        frame: sequence,
        part_id: Some(format!("{sequence:08}")),
        part_source: PartSource::Counter,
        verdict: Verdict::Reject,
        eject: true,
        reasons: vec![Reason::ScoreAboveBoundary { score: 9.5, boundary: 4.25 }],
        image_score: Some(9.5),
        threshold: Some(4.25),
        boundary: Some(3.0),
        regions: vec![Region {
            bounds: Rectangle { x: 10, y: 20, width: 30, height: 40 },
            area: 900.0,
            peak_score: 9.5,
        }],
        model: Some(ModelIdentity { name: "plate".into(), version: "1".into(), sha256: "ab".repeat(32) }),
        captured_us: 1_795_000_000_000_000,
        captured_source: TimeSource::Arrival,
        decided_us: 1_795_000_000_020_000,
        published_us: 0,
        latency: Latency { queue_ms: 1.0, batch_ms: 2.0, infer_ms: 16.0, decide_ms: 1.0 },
        deadline_ms: Some(1500),
        deadline_met: Some(true),
        replayed: false,
        age_ms: None,
        image_ref: None,
        heatmap_ref: None,
        combined: None,
        trigger: None,
    }
}
