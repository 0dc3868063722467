//! Decisions over MQTT: real mosquitto processes, the embedded broker, real subscribers.

pub(crate) mod brokers;
mod commands;
mod contract;
mod outages;
mod security;
mod watching;

use std::path::Path;

use linegate::config::Config;
use linegate::inspection::{
    DECISION_SCHEMA_VERSION, Decision, Latency, ModelIdentity, PartSource, Reason, Rectangle, Region, TimeSource,
    Verdict,
};
use linegate::line::outbox::Outbox;
use linegate::line::publishing::Delivery;

use brokers::{PATIENCE, eventually};

/// A rejected part, complete, with an identity of its own.
pub(crate) fn decision(camera: &str) -> Decision {
    Decision {
        schema_version: DECISION_SCHEMA_VERSION,
        result_id: ulid::Ulid::generate().to_string(),
        boot_id: "01JDTESTBOOT00000000000000".into(),
        sequence: 1,
        site: "plant".into(),
        line: "line-1".into(),
        station: "cell".into(),
        camera: camera.into(),
        frame: 7,
        part_id: Some("part-7.png".into()),
        part_source: PartSource::Counter,
        trigger: None,
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
        image_ref: Some("2026-11-17/x.png".into()),
        heatmap_ref: Some("2026-11-17/x.map.png".into()),
        combined: None,
    }
}

/// A configuration whose `mqtt` table begins with the given lines.
pub(crate) fn config(mqtt: &str) -> Config {
    toml::from_str(&format!(
        r#"
        station = {{ site = "plant", line = "line-1", station = "cell" }}
        model = {{ bundle = "bundle" }}
        camera = [{{ name = "front", pipeline = "test" }}]
        [mqtt]
        expiry_s = 77
        {mqtt}
        "#
    ))
    .unwrap()
}

fn external(port: u16) -> Config {
    config(&format!("broker = {{ kind = \"external\", host = \"127.0.0.1\", port = {port} }}"))
}

fn embedded() -> Config {
    config("broker = { kind = \"embedded\", listen = \"127.0.0.1:0\" }")
}

pub(crate) fn outbox(folder: &Path) -> Outbox {
    Outbox::open(&folder.join("outbox.sqlite"), 100_000).unwrap()
}

pub(crate) fn start(config: &Config, folder: &Path) -> Delivery {
    Delivery::start(config, outbox(folder), "01JDTESTBOOT00000000000000").unwrap()
}

pub(crate) fn wait_acknowledged(delivery: &Delivery) {
    eventually("the broker acknowledges everything", PATIENCE, || delivery.counters().waiting == 0);
}
