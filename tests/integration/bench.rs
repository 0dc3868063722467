//! `linegate bench` and `linegate tune`: what scoring costs, beside something else in the same run.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

use crate::support::parts::{backbone, hardly_trained};

fn linegate(command: &str, bundle: &Path, further: &[&str]) -> Output {
    let mut linegate = Command::new(env!("CARGO_BIN_EXE_linegate"));
    linegate.args([command, "--json", "--bundle"]).arg(bundle).args(further).output().unwrap()
}

fn told(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"))
}

fn number(value: &Value, key: &str) -> f64 {
    value[key].as_f64().unwrap_or_else(|| panic!("{key} in {value}"))
}

#[test]
fn the_cost_of_a_bundle_is_told_beside_the_backbones_and_a_missing_backbone_by_its_name() {
    let folder = tempfile::tempdir().unwrap();
    let bundle = hardly_trained(folder.path()).path;
    let backbone = backbone();
    let cost =
        told(&linegate("bench", &bundle, &["--steps", "2", "--naive", "--backbone", backbone.to_str().unwrap()]));
    for key in ["backbone_ms", "model_ms", "fit_ms", "fit_nv12_ms", "decision_ms"] {
        assert!(number(&cost, key) > 0.0, "{key} in {cost}");
    }
    // That anything is counted shows what a frame of noise has: regions.
    assert!(cost["allocations"]["decision"].as_u64().unwrap() > 0, "{cost}");
    for stage in ["fit", "model"] {
        assert_eq!(cost["allocations"][stage], 0, "{cost}");
    }
    let ratio = number(&cost, "model_ms") / number(&cost, "backbone_ms");
    assert!((number(&cost, "cost_ratio_model_to_backbone") - ratio).abs() < 1e-9 * ratio, "{cost}");
    // The naive model was compared with the bundle's before it was measured.
    assert!(number(&cost, "cost_ratio_naive_to_model") > 0.0, "{cost}");
    assert!(number(&cost, "cost_ratio_standard_operators_to_model") > 0.0, "{cost}");

    let none = folder.path().join("none.onnx");
    let output = linegate("bench", &bundle, &["--backbone", none.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("--backbone") && text.contains("none.toml"), "{text}");
}

#[test]
fn lines_of_test_cameras_are_run_to_the_broker_and_back_and_told_beside_the_session_alone() {
    let folder = tempfile::tempdir().unwrap();
    let bundle = hardly_trained(folder.path()).path;
    let backbone = backbone();
    let backbone = ["--steps", "2", "--backbone", backbone.to_str().unwrap()];
    let further = [&["--line", "--seconds", "2", "--frame", "96x64", "--cameras", "2"], &backbone[..]].concat();
    let cost = told(&linegate("bench", &bundle, &further));
    for ratio in ["cost_ratio_model_to_backbone", "throughput_ratio_pipeline_to_session"] {
        assert!(number(&cost, ratio) > 0.0, "{ratio} in {cost}");
    }
    let runs = cost["runs"].as_array().unwrap();
    assert_eq!(runs.len(), 3, "half, nine tenths and overloaded: {cost}");
    for run in runs {
        assert!(number(run, "frames_per_second") > 0.0 && number(run, "cpu_ms") > 0.0, "{run}");
        assert_eq!(number(run, "copies_a_frame"), 0.0, "{run}");
        assert!(number(&run["latency_ms"], "p50") <= number(&run["latency_ms"], "p99"), "{run}");
    }
}

#[test]
fn tuning_names_one_of_the_ways_it_measured() {
    let folder = tempfile::tempdir().unwrap();
    let bundle = hardly_trained(folder.path()).path;
    let tuning = told(&linegate("tune", &bundle, &["--seconds", "1"]));
    let ways = tuning["ways"].as_array().unwrap();
    assert!(ways.contains(&tuning["chosen"]), "{tuning}");
    assert!(ways.iter().all(|way| number(way, "frames_per_second") > 0.0), "{tuning}");
    assert!(ways.iter().any(|way| way["batch"] == 8), "{tuning}");
    for (what, other) in [("pinned", true), ("arena", false)] {
        assert!(ways.iter().any(|way| way[what] == other), "{what}: {tuning}");
    }
    assert!(ways[ways.len() - 3..].contains(&tuning["chosen"]), "the last choice is among the last ways: {tuning}");
}
