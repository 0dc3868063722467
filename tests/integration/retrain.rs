//! `linegate retrain`, whole: real training, both models judged on the same pictures, the registry.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use linegate::bundle::{Bundle, make_keys, verify};
use linegate::inspection::Picture;
use linegate::registry::{GateFigures, Registry, first_gate, gate};
use serde_json::Value;

use crate::support::parts::{PartSet, backbone, defect};

struct Plant {
    folder: tempfile::TempDir,
}

impl Plant {
    /// A base set of normals, a gate set with both, nothing reviewed, an empty registry.
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let plant = Self { folder };
        PartSet::write(&plant.path("base"), 24, 0);
        PartSet::write(&plant.path("gate"), 24, 5);
        std::fs::remove_dir_all(plant.path("gate/train")).unwrap();
        let config = r#"
station = { site = "plant", line = "line", station = "one" }
model = { registry = "models" }
camera = [{ name = "camera", pipeline = "test" }]

[retrain]
base = "base"
reviewed = "reviewed"
gate = "gate"
training = "training.toml"
reports = "reports"
"#;
        std::fs::write(plant.path("line.toml"), config).unwrap();
        let training = "preset = \"fast\"\nimage_size = 64\nsteps = 30\nbatch_pixels = 512\nhidden_width = 32\n\
                        blocks = 4\nseed = 3\nthreads = 2\n";
        std::fs::write(plant.path("training.toml"), training).unwrap();
        plant
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn retrain(&self) -> Output {
        Command::new(env!("CARGO_BIN_EXE_linegate"))
            .args(["retrain", "--json", "--config"])
            .arg(self.path("line.toml"))
            .arg("--backbone")
            .arg(backbone())
            .output()
            .unwrap()
    }

    fn report(&self) -> Value {
        let output = self.retrain();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// What a person sorts: defects with a mask and one without.
    fn review(&self, count: usize) {
        for i in 0..count {
            let (picture, mask) = defect("blot", 50_000 + i as u64);
            save(&self.path("reviewed/blot"), &format!("{i}.png"), &picture);
            if i > 0 {
                let size = mask.size();
                let grey: Vec<u8> = mask.flags().iter().map(|&flag| u8::from(flag) * 255).collect();
                let folder = self.path("reviewed/ground_truth/blot");
                std::fs::create_dir_all(&folder).unwrap();
                let file = folder.join(format!("{i}_mask.png"));
                image::save_buffer(file, &grey, size.width as u32, size.height as u32, image::ColorType::L8).unwrap();
            }
        }
    }
}

fn save(folder: &Path, name: &str, picture: &Picture) {
    std::fs::create_dir_all(folder).unwrap();
    let size = picture.size();
    let (width, height) = (size.width as u32, size.height as u32);
    image::save_buffer(folder.join(name), picture.rgb(), width, height, image::ColorType::Rgb8).unwrap();
}

fn figures(judged: &Value) -> GateFigures {
    serde_json::from_value(judged["figures"].clone()).unwrap()
}

#[test]
fn a_first_model_and_then_a_challenger_from_reviewed_defects_pass_the_gate_by_its_rule() {
    let plant = Plant::new();
    let first = plant.report();
    assert!(first["champion"].is_null());
    assert_eq!(first["outcome"] == "promoted", first_gate(&figures(&first["challenger"])).promote);
    assert_eq!(first["outcome"], "promoted", "{first:#}");
    let registry = Registry::open(&plant.path("models")).unwrap();
    let champion = registry.active_bundle().unwrap().unwrap();
    assert_eq!(first["active"], champion.identity.version.as_str());
    assert!(champion.manifest.provenance.known_defects.is_empty());

    plant.review(5);
    // The same picture in the gate set: the challenger is trained on it, so nobody is judged by it.
    std::fs::copy(plant.path("reviewed/blot/0.png"), plant.path("gate/test/blot/seen.png")).unwrap();
    let second = plant.report();
    assert_eq!(second["left_out"], serde_json::json!(["test/blot/seen.png"]));
    assert_eq!((&second["reviewed"]["blot"], &second["reviewed_with_mask"]), (&5.into(), &4.into()));
    assert_eq!(second["champion"]["version"], champion.identity.version.as_str());
    let (before, after) = (figures(&second["champion"]), figures(&second["challenger"]));
    assert_eq!((before.defective, before.good), (10, 8));
    let promote = gate(&before, &after, 0.0).promote;
    assert_eq!(second["outcome"], if promote { "promoted" } else { "kept" }, "{second:#}");
    let challenger = second["challenger"]["version"].as_str().unwrap().to_owned();
    let expected = if promote { &challenger } else { &champion.identity.version };
    assert_eq!(registry.active().unwrap().as_ref(), Some(expected));

    // Whatever the gate said, the challenger is there, whole, and learned from the reviewed ones.
    let bundle = Bundle::open(&registry.path(&challenger).unwrap()).unwrap();
    assert_eq!(bundle.manifest.provenance.known_defects.len(), 5);
    assert_eq!(bundle.manifest.provenance.known_defects.iter().filter(|defect| defect.weak).count(), 1);
    assert_eq!(bundle.manifest.name, champion.manifest.name);
    let identity = format!("{} {}", champion.identity.name, champion.identity.version);
    assert_eq!(bundle.manifest.provenance.started_from, Some(identity));
    if promote {
        assert_eq!(registry.rollback().unwrap().version, champion.identity.version);
    }
    let reports: Vec<_> =
        std::fs::read_dir(plant.path("reports")).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(reports.iter().filter(|path| path.extension().is_some_and(|extension| extension == "md")).count(), 2);
    let text = reports.iter().map(|path| std::fs::read_to_string(path).unwrap()).collect::<String>();
    assert!(text.contains("| escapes |") && text.contains("## Rule"), "{text}");
}

#[test]
fn what_cannot_be_judged_is_refused_before_the_training_and_changes_nothing() {
    let plant = Plant::new();
    for kind in ["blot", "scratch"] {
        std::fs::remove_dir_all(plant.path("gate/test").join(kind)).unwrap();
        std::fs::remove_dir_all(plant.path("gate/ground_truth").join(kind)).unwrap();
    }
    let output = plant.retrain();
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("8 good and 0 defective pictures are left"), "{text}");
    let registry = Registry::open(&plant.path("models")).unwrap();
    assert_eq!((registry.active().unwrap(), registry.list().unwrap().len()), (None, 0));
}

#[test]
fn where_the_line_takes_only_signed_models_a_retrained_one_is_signed_or_not_activated() {
    let plant = Plant::new();
    make_keys(&plant.path("private.key"), &plant.path("public.key")).unwrap();
    let text = std::fs::read_to_string(plant.path("line.toml")).unwrap();
    let text = text.replace("registry = \"models\"", "registry = \"models\", public_key_file = \"public.key\"");
    std::fs::write(plant.path("line.toml"), &text).unwrap();
    let report = plant.report();
    let reasons = report["reasons"].to_string();
    assert_eq!((&report["outcome"], &report["active"]), (&"kept".into(), &Value::Null), "{reasons}");
    assert!(reasons.contains("the line would not take it") && reasons.contains("is not signed"), "{reasons}");

    std::fs::write(plant.path("line.toml"), format!("{text}private_key_file = \"private.key\"\n")).unwrap();
    std::fs::remove_dir_all(plant.path("models")).unwrap();
    let report = plant.report();
    assert_eq!(report["outcome"], "promoted", "{report:#}");
    let bundle = Registry::open(&plant.path("models")).unwrap().active_bundle().unwrap().unwrap();
    verify(&bundle, &plant.path("public.key")).unwrap();
}

#[test]
fn a_picture_sorted_into_two_folders_is_refused_by_name() {
    let plant = Plant::new();
    plant.review(2);
    std::fs::create_dir_all(plant.path("reviewed/good")).unwrap();
    std::fs::copy(plant.path("reviewed/blot/1.png"), plant.path("reviewed/good/again.png")).unwrap();
    let output = plant.retrain();
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("blot/1.png and good/again.png"), "{text}");
}

#[test]
fn a_champion_of_another_shape_is_no_start_and_that_is_said() {
    let plant = Plant::new();
    assert_eq!(plant.report()["outcome"], "promoted");
    let text = std::fs::read_to_string(plant.path("training.toml")).unwrap();
    std::fs::write(plant.path("training.toml"), text.replace("blocks = 4", "blocks = 3")).unwrap();
    let report = plant.report();
    let warnings = report["warnings"].to_string();
    assert!(warnings.contains("trained afresh") && warnings.contains("blocks 4"), "{warnings}");
    let registry = Registry::open(&plant.path("models")).unwrap();
    let path = registry.path(report["challenger"]["version"].as_str().unwrap()).unwrap();
    assert_eq!(Bundle::open(&path).unwrap().manifest.provenance.started_from, None);
}
