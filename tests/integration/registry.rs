//! Versions of bundles: added whole, activated by rename, rolled back from the history.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use linegate::bundle::{
    BUNDLE_SCHEMA_VERSION, Bundle, BundleWriter, Calibration, CalibrationSet, Evidence, ImageBoundary, LevelShape,
    MODEL_FILE, Manifest, Preprocessing, Provenance, read_active,
};
use linegate::inspection::Size;
use linegate::registry::{Registry, RegistryError};

use crate::support::calibrated_level;

/// A bundle that is whole; its model is never run here.
pub(crate) fn bundle(folder: &Path, version: &str) -> PathBuf {
    let target = folder.join(format!("bundle-{version}"));
    let writer = BundleWriter::new(&target).unwrap();
    std::fs::write(writer.path().join(MODEL_FILE), version).unwrap();
    std::fs::create_dir(writer.path().join("report")).unwrap();
    std::fs::write(writer.path().join("report/index.html"), "report").unwrap();
    writer.commit(manifest(version)).unwrap();
    target
}

fn manifest(version: &str) -> Manifest {
    Manifest {
        schema_version: BUNDLE_SCHEMA_VERSION,
        name: "plate".into(),
        version: version.into(),
        preprocessing: Preprocessing { size: Size { width: 32, height: 32 }, region_of_interest: None },
        levels: vec![LevelShape { output: "level0".into(), stride: 16, rows: 2, columns: 2 }],
        calibration: Calibration {
            levels: vec![calibrated_level(-1.0, 1.0, 1.0)],
            evidence: Evidence::Deviations,
            strongest: 0.0,
            smoothing_sigma: 0.0,
            minimum_area: 1,
            merging: 0,
            image: ImageBoundary { normal: 1.0, abnormal: 2.0, suspect_rate: 0.05, false_reject_rate: 0.01 },
            set: CalibrationSet {
                images: 2,
                groups: 2,
                false_reject_interval: [0.0, 0.8],
                warnings: vec!["two images are few".into()],
                scores: vec![0.5, 0.9],
                score_groups: Vec::new(),
            },
        },
        provenance: Provenance {
            software: "linegate test".into(),
            trained_at: "2026-01-01T00:00:00Z".into(),
            seed: 1,
            threads: 1,
            preset: "fast".into(),
            settings: serde_json::Value::Null,
            backbone: "none".into(),
            training_set_sha256: "0".repeat(64),
            training_images: 2,
            known_defects: Vec::new(),
            normals: Vec::new(),
            export_difference: 0.0,
            phases: Vec::new(),
            started_from: None,
            fitted_before: Vec::new(),
            peak_memory_mib: 1.0,
        },
        files: std::collections::BTreeMap::default(),
    }
}

struct Place {
    folder: tempfile::TempDir,
    registry: Registry,
}

fn place(versions: &[&str]) -> Place {
    let folder = tempfile::tempdir().unwrap();
    let registry = Registry::open(&folder.path().join("models")).unwrap();
    for version in versions {
        assert_eq!(registry.add(&bundle(folder.path(), version)).unwrap(), *version);
    }
    Place { folder, registry }
}

#[test]
fn an_added_bundle_is_whole_and_becomes_active_only_when_told() {
    let Place { folder, registry } = place(&["1"]);
    assert_eq!(registry.active().unwrap(), None);
    let activation = registry.activate("1", "first").unwrap();
    assert_eq!((activation.version.as_str(), activation.former), ("1", None));
    let path = read_active(&folder.path().join("models")).unwrap().unwrap();
    let opened = Bundle::open(&path).unwrap();
    assert_eq!(opened.identity, Bundle::open(&folder.path().join("bundle-1")).unwrap().identity);
    assert!(path.join("report/index.html").is_file());
}

#[test]
fn the_same_bundle_twice_is_one_version_and_another_under_its_name_is_refused() {
    let Place { folder, registry } = place(&["1"]);
    assert_eq!(registry.add(&folder.path().join("bundle-1")).unwrap(), "1");
    let writer = BundleWriter::new(&folder.path().join("other")).unwrap();
    std::fs::write(writer.path().join(MODEL_FILE), "another model").unwrap();
    writer.commit(manifest("1")).unwrap();
    assert!(matches!(registry.add(&folder.path().join("other")), Err(RegistryError::VersionTaken { .. })));
    assert_eq!(registry.list().unwrap().len(), 1);
}

#[test]
fn a_second_look_at_a_map_needs_a_first_of_the_same_shape() {
    let folder = tempfile::tempdir().unwrap();
    let commit = |levels: Vec<LevelShape>| {
        let mut manifest = manifest("1");
        let first = manifest.calibration.levels[0];
        manifest.calibration.levels = vec![first; levels.len()];
        manifest.calibration.levels.last_mut().unwrap().or_previous = true;
        manifest.levels = levels;
        let writer = BundleWriter::new(&folder.path().join("bundle")).unwrap();
        std::fs::write(writer.path().join(MODEL_FILE), "1").unwrap();
        writer.commit(manifest)
    };
    let level = |stride| LevelShape { output: "map".into(), stride, rows: 32 / stride, columns: 32 / stride };
    assert!(commit(vec![level(8), level(16), level(16)]).is_ok());
    for wrong in [vec![level(16)], vec![level(8), level(16)]] {
        assert!(commit(wrong).unwrap_err().to_string().contains("other rows and columns"));
    }
}

#[test]
fn a_torn_bundle_is_neither_added_nor_activated_and_the_former_stays_active() {
    let Place { folder, registry } = place(&["1", "2"]);
    registry.activate("1", "first").unwrap();
    std::fs::write(registry.path("2").unwrap().join(MODEL_FILE), "torn").unwrap();
    assert!(matches!(registry.activate("2", "torn"), Err(RegistryError::Bundle { .. })));
    assert_eq!(registry.active().unwrap().as_deref(), Some("1"));
    assert_eq!(registry.history().unwrap().len(), 1);
    assert!(registry.list().unwrap()[1].problem.as_ref().unwrap().contains("SHA-256"));

    let torn = bundle(folder.path(), "3");
    std::fs::remove_file(torn.join(MODEL_FILE)).unwrap();
    assert!(matches!(registry.add(&torn), Err(RegistryError::Bundle { .. })));
    assert_eq!(registry.list().unwrap().len(), 2);
}

#[test]
fn rollback_goes_back_one_version_at_a_time_to_the_first() {
    let Place { registry, folder: _folder } = place(&["1", "2", "3"]);
    for version in ["1", "2", "3"] {
        registry.activate(version, "forward").unwrap();
    }
    assert_eq!(registry.rollback().unwrap().version, "2");
    assert_eq!(registry.rollback().unwrap().version, "1");
    assert!(matches!(registry.rollback(), Err(RegistryError::NoFormer { .. })));
    assert_eq!(registry.active().unwrap().as_deref(), Some("1"));
    let history = registry.history().unwrap();
    assert_eq!(history.iter().filter(|activation| activation.rollback).count(), 2);
    assert_eq!(history[3].reason, "rollback from 3");
}

#[test]
fn an_activation_that_a_crash_cut_short_does_not_mislead_a_rollback() {
    let Place { folder, registry } = place(&["1", "2"]);
    registry.activate("1", "first").unwrap();
    registry.activate("2", "second").unwrap();
    let history = folder.path().join("models/history.jsonl");
    let mut text = std::fs::read_to_string(&history).unwrap();
    text.push_str("{\"at\":\"2026-01-01T00:00:00Z\",\"version\":\"1\",\"for");
    std::fs::write(&history, text).unwrap();
    assert_eq!(registry.history().unwrap().len(), 2);
    assert_eq!(registry.rollback().unwrap().version, "1");
    assert_eq!(registry.history().unwrap().len(), 3);
}

#[test]
fn a_version_cannot_lead_out_of_the_registry() {
    let Place { registry, folder: _folder } = place(&["1"]);
    for version in ["../1", "", ".", "..", "a/b", ".hidden"] {
        assert!(matches!(registry.activate(version, ""), Err(RegistryError::VersionName { .. })), "{version}");
    }
    assert!(matches!(registry.activate("2", ""), Err(RegistryError::UnknownVersion { .. })));
}

#[test]
fn a_second_writer_is_turned_away_while_the_first_holds_the_lock() {
    let Place { folder, registry } = place(&["1"]);
    let lock = std::fs::File::create(folder.path().join("models/lock")).unwrap();
    lock.lock().unwrap();
    assert!(matches!(registry.activate("1", ""), Err(RegistryError::Locked { .. })));
    drop(lock);
    registry.activate("1", "").unwrap();
}

fn models(folder: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_linegate"))
        .args(["models", "--registry", "models", "--json"])
        .args(arguments)
        .current_dir(folder)
        .output()
        .unwrap()
}

#[test]
fn the_command_line_adds_activates_lists_shows_and_rolls_back() {
    let folder = tempfile::tempdir().unwrap();
    for version in ["1", "2"] {
        bundle(folder.path(), version);
        let added = models(folder.path(), &["add", &format!("bundle-{version}"), "--activate"]);
        assert!(added.status.success(), "{added:?}");
    }
    let json = |output: Output| -> serde_json::Value {
        assert!(output.status.success(), "{output:?}");
        serde_json::from_slice(&output.stdout).unwrap()
    };
    let list = json(models(folder.path(), &["list"]));
    assert_eq!(list["active"], "2");
    assert_eq!(list["versions"].as_array().unwrap().len(), 2);
    assert_eq!(list["history"][1]["former"], "1");
    assert_eq!(json(models(folder.path(), &["show"]))["version"], "2");
    assert_eq!(json(models(folder.path(), &["rollback"]))["version"], "1");
    assert_eq!(json(models(folder.path(), &["activate", "2"]))["former"], "1");
    let unknown = models(folder.path(), &["activate", "3"]);
    assert_eq!(unknown.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&unknown.stderr).contains("has no version 3"));
}
