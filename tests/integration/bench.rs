//! `linegate bench`: what scoring costs, beside the backbone in the same run.

use std::path::Path;
use std::process::{Command, Output};
use std::sync::atomic::AtomicBool;

use linegate::config::Preset;
use linegate::inspection::Size;
use linegate::training::settings::Settings;
use linegate::training::{Silent, TrainOptions, train};
use serde_json::Value;

use crate::support::parts::{PartSet, backbone};

fn bench(bundle: &Path, backbone: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_linegate"))
        .args(["bench", "--json", "--steps", "2", "--bundle"])
        .arg(bundle)
        .arg("--backbone")
        .arg(backbone)
        .output()
        .unwrap()
}

#[test]
fn the_cost_of_a_bundle_is_told_beside_the_backbones_and_a_missing_backbone_by_its_name() {
    let folder = tempfile::tempdir().unwrap();
    PartSet::write(folder.path(), 16, 2);
    let settings = Settings {
        size: Size { width: 64, height: 64 },
        steps: Some(2),
        batch_pixels: 64,
        abnormal_pixels: 8,
        beside_pixels: 8,
        hidden_width: Some(16),
        synthesised: 2,
        ..Settings::preset(Preset::Fast)
    };
    let out = folder.path().join("bundle");
    let (data, name) = (folder.path().to_owned(), None);
    let options = TrainOptions { data, groups: None, out, backbone: backbone(), name, from: None, settings };
    train(&options, &Silent, &AtomicBool::new(false)).unwrap();

    let output = bench(&options.out, &backbone());
    let cost: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"));
    let number = |key: &str| cost[key].as_f64().unwrap_or_else(|| panic!("{key} in {cost}"));
    for key in ["backbone_ms", "model_ms", "fit_ms", "decision_ms"] {
        assert!(number(key) > 0.0, "{key} in {cost}");
    }
    let ratio = number("model_ms") / number("backbone_ms");
    assert!((number("cost_ratio_model_to_backbone") - ratio).abs() < 1e-9 * ratio, "{cost}");

    let output = bench(&options.out, &folder.path().join("none.onnx"));
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("--backbone") && text.contains("none.toml"), "{text}");
}
