//! A day and a night of a line: it starts with a model of normals only, a script sorts its archive,
//! `linegate retrain` makes a model from that, and the line goes on with it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::{Duration, Instant};

use linegate::bundle::Bundle;
use linegate::config::Config;
use linegate::inspection::{Decision, Verdict};
use linegate::line::topology::Line;
use linegate::registry::Registry;
use serde_json::Value;

use crate::support::free_port;
use crate::support::parts::{PartSet, backbone};

/// Longest that a test waits for one decision: far more than any machine needs.
const PATIENCE: Duration = Duration::from_mins(2);

const TRAINING: &str = "preset = \"fast\"\nimage_size = 64\nsteps = 40\nbatch_pixels = 512\nhidden_width = 32\n\
                        blocks = 4\nseed = 3\nthreads = 2\n";

struct Plant(tempfile::TempDir);

impl Plant {
    /// A base set of normals, a gate set with both, and the pictures that come down the line.
    fn new() -> Self {
        let plant = Self(tempfile::tempdir().unwrap());
        PartSet::write(&plant.path("base"), 24, 0);
        PartSet::write(&plant.path("gate"), 24, 6);
        std::fs::remove_dir_all(plant.path("gate/train")).unwrap();
        // Other parts than the gate's, told apart by the name of their file.
        PartSet::write_from(&plant.path("day"), 24, 6, 500_000);
        for kind in ["good", "blot", "scratch"] {
            for entry in std::fs::read_dir(plant.path("day/test").join(kind)).unwrap() {
                let file = entry.unwrap().path();
                let name = format!("{kind}-{}", file.file_name().unwrap().to_str().unwrap());
                std::fs::create_dir_all(plant.path("pictures")).unwrap();
                std::fs::rename(&file, plant.path("pictures").join(name)).unwrap();
            }
        }
        std::fs::write(plant.path("training.toml"), TRAINING).unwrap();
        let config = format!(
            r#"
station = {{ site = "plant", line = "line", station = "one" }}
model = {{ registry = "models", threads = 1 }}
camera = [{{ name = "cam", pipeline = "folder", parameters = {{ location = "pictures", rate = 20, loop = true }} }}]
mqtt = {{ broker = {{ kind = "embedded", listen = "127.0.0.1:{}" }} }}
outbox = {{ file = "outbox.sqlite" }}
archive = {{ directory = "archive" }}

[retrain]
base = "base"
reviewed = "reviewed"
gate = "gate"
training = "training.toml"
reports = "reports"
false_reject_slack = 1.0
"#,
            free_port()
        );
        std::fs::write(plant.path("line.toml"), config).unwrap();
        plant
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn retrain(&self) -> Value {
        let output = Command::new(env!("CARGO_BIN_EXE_linegate"))
            .args(["retrain", "--json", "--config"])
            .arg(self.path("line.toml"))
            .arg("--backbone")
            .arg(backbone())
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// What a person does in the evening: rejects and suspects of real defects go into the folder
    /// of their type, blots with their mask; parts that are good go into `good`.
    fn review(&self, decisions: &[Decision]) -> BTreeMap<String, usize> {
        let mut sorted: BTreeMap<String, Vec<&str>> = BTreeMap::new();
        for decision in decisions {
            let (Some(part), Some(image)) = (&decision.part_id, &decision.image_ref) else { continue };
            let (kind, name) = part.split_once('-').unwrap();
            let names = sorted.entry(kind.to_owned()).or_default();
            if names.contains(&name) {
                continue;
            }
            names.push(name);
            let stem = name.split('.').next().unwrap();
            let image = self.path("archive").join(image);
            // The archive writes behind the decisions; a frame is there whole or not at all.
            let until = Instant::now() + PATIENCE;
            while !image.exists() && Instant::now() < until {
                std::thread::sleep(Duration::from_millis(10));
            }
            let extension = image.extension().unwrap().to_str().unwrap().to_owned();
            copy(&image, &self.path(&format!("reviewed/{kind}/{stem}.{extension}")));
            if kind == "blot" {
                let mask = format!("ground_truth/{kind}/{stem}_mask.png");
                copy(&self.path("day").join(&mask), &self.path("reviewed").join(&mask));
            }
        }
        sorted.into_iter().map(|(kind, names)| (kind, names.len())).collect()
    }
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to.parent().unwrap()).unwrap();
    std::fs::copy(from, to).unwrap_or_else(|error| panic!("{}: {error}", from.display()));
}

fn version(decision: &Decision) -> &str {
    &decision.model.as_ref().expect("every frame is scored").version
}

fn receive(decisions: &Receiver<Decision>, all: &mut Vec<Decision>, done: impl Fn(&[Decision]) -> bool) {
    while !done(all) {
        all.push(decisions.recv_timeout(PATIENCE).expect("the line goes on"));
    }
}

#[test]
fn a_line_that_knew_normals_only_goes_on_with_the_model_that_its_own_rejects_taught() {
    let plant = Plant::new();
    let first = plant.retrain();
    assert_eq!(first["outcome"], "promoted", "{first:#}");
    let former = first["active"].as_str().unwrap().to_owned();

    let (sender, decisions) = sync_channel(100_000);
    let line = Line::start(&Config::load(&plant.path("line.toml")).unwrap(), Some(sender)).unwrap();
    let pictures = std::fs::read_dir(plant.path("pictures")).unwrap().count();
    let mut all = Vec::new();
    receive(&decisions, &mut all, |all| all.len() >= pictures);
    let sorted = plant.review(&all);
    assert!(sorted.get("blot").is_some_and(|&count| count >= 3), "blots are told from normals alone: {sorted:?}");

    // The line runs on while the night's model is made.
    let second = plant.retrain();
    assert_eq!(second["outcome"], "promoted", "{second:#}");
    assert_eq!(second["champion"]["version"], former.as_str());
    let latter = second["active"].as_str().unwrap().to_owned();
    let learned = Bundle::open(&Registry::open(&plant.path("models")).unwrap().path(&latter).unwrap()).unwrap();
    let known: usize = sorted.iter().filter(|(kind, _)| *kind != "good").map(|(_, count)| count).sum();
    assert_eq!(learned.manifest.provenance.known_defects.len(), known);
    receive(&decisions, &mut all, |all| all.iter().filter(|d| version(d) == latter).count() >= pictures);

    let summary = line.stop();
    all.extend(decisions.try_iter());
    assert!(summary.is_whole(), "{summary:?}");
    let frames: Vec<u64> = all.iter().map(|d| d.frame).collect();
    assert_eq!(frames, (1..=summary.stats.frames).collect::<Vec<_>>(), "every frame, in order, through the change");
    assert_eq!(summary.stats.not_inspected, 0, "no frame was lost to the change");
    let change = all.iter().position(|d| version(d) == latter).unwrap();
    assert!(all[..change].iter().all(|d| version(d) == former) && all[change..].iter().all(|d| version(d) == latter));
    let missed = |decisions: &[Decision]| {
        decisions[..pictures]
            .iter()
            .filter(|d| !d.part_id.as_ref().unwrap().starts_with("good") && d.verdict == Verdict::Accept)
            .count()
    };
    assert!(missed(&all[change..]) <= missed(&all), "more defects pass than before");
}
