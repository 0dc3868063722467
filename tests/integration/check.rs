//! `linegate check`: problems of the file, then real tries of cameras, broker and folders.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

struct Line {
    folder: tempfile::TempDir,
    port: u16,
}

impl Line {
    /// A folder with pictures and an empty registry, and a port that is free.
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("pictures")).unwrap();
        image::RgbImage::new(64, 48).save(folder.path().join("pictures/part.png")).unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        Self { folder, port }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn config(&self, more: &str) -> PathBuf {
        let file = self.path().join("line.toml");
        let text = format!(
            r#"
station = {{ site = "plant", line = "line", station = "one" }}
model = {{ registry = "models" }}
outbox = {{ file = "state/outbox.sqlite" }}

[mqtt]
broker = {{ kind = "embedded", listen = "127.0.0.1:{}" }}

[[camera]]
name = "folder"
pipeline = "folder"
parameters = {{ location = "pictures", rate = 20 }}
ends = true
{more}
"#,
            self.port
        );
        std::fs::write(&file, text).unwrap();
        file
    }

    fn check(&self, more: &str, arguments: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_linegate"))
            .args(["check", "--config"])
            .arg(self.config(more))
            .args(arguments)
            .output()
            .unwrap()
    }

    /// The checks by name: (ok, detail).
    fn trials(&self, more: &str) -> Vec<(String, bool, String)> {
        let output = self.check(more, &["--json", "--patience-s", "20"]);
        let answer: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"));
        let trials: Vec<_> = answer["checks"]
            .as_array()
            .unwrap()
            .iter()
            .map(|trial| {
                let text = |key: &str| trial[key].as_str().unwrap().to_owned();
                (text("name"), trial["ok"].as_bool().unwrap(), text("detail"))
            })
            .collect();
        let all = trials.iter().all(|trial| trial.1);
        assert_eq!(answer["ok"].as_bool(), Some(all));
        assert_eq!(output.status.code(), Some(i32::from(!all)));
        trials
    }
}

fn find<'a>(trials: &'a [(String, bool, String)], name: &str) -> (bool, &'a str) {
    let trial = trials.iter().find(|trial| trial.0 == name).unwrap_or_else(|| panic!("no {name} in {trials:?}"));
    (trial.1, &trial.2)
}

#[test]
fn a_real_camera_delivers_a_frame_and_a_registry_without_a_model_says_what_to_do() {
    let line = Line::new();
    let trials = line.trials("[archive]\ndirectory = \"archive\"\nquota_mib = 1\n");
    let (ok, detail) = find(&trials, "camera folder");
    assert!(ok && detail.contains("64x48"), "{detail}");
    assert!(find(&trials, "camera folder pipeline").0);
    let (ok, detail) = find(&trials, "model");
    assert!(!ok && detail.contains("linegate models"), "{detail}");
    assert!(find(&trials, "broker").0);
    assert!(find(&trials, "outbox").0);
    assert!(find(&trials, "archive").0);
    assert!(!line.path().join("state").exists(), "a check must leave nothing behind");
    assert!(!line.path().join("archive").exists(), "a check must leave nothing behind");
}

#[test]
fn a_region_of_interest_outside_the_frame_is_found() {
    let trials = Line::new().trials("region_of_interest = { x = 10, y = 0, width = 64, height = 48 }\n");
    let (ok, detail) = find(&trials, "camera folder");
    assert!(!ok && detail.contains("64x48"), "{detail}");
}

#[test]
fn a_camera_that_cannot_be_and_a_port_in_use_are_found() {
    let line = Line::new();
    let _busy = TcpListener::bind(("127.0.0.1", line.port)).unwrap();
    let trials =
        line.trials("[[camera]]\nname = \"gone\"\npipeline = \"folder\"\nparameters = { location = \"nowhere\" }\n");
    assert!(!find(&trials, "camera gone").0);
    assert!(find(&trials, "camera folder").0);
    let (ok, detail) = find(&trials, "broker");
    assert!(!ok && detail.contains("in use"), "{detail}");
}

#[test]
fn a_pipeline_that_does_not_exist_is_found_without_opening_a_camera() {
    let more = "[[camera]]\nname = \"odd\"\npipeline = \"oddity\"\n";
    let output = Line::new().check(more, &["--no-cameras"]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.lines().any(|line| line.starts_with("FAIL  camera odd pipeline: ")), "{text}");
    assert!(text.lines().any(|line| line.starts_with("ok    camera folder pipeline: ")), "{text}");
    assert!(!text.contains("camera folder: "), "{text}");
}

#[test]
fn the_paths_of_a_retraining_are_tried() {
    let line = Line::new();
    for name in ["set/train/good", "set/test/good", "gate/test/good", "gate/test/crack"] {
        std::fs::create_dir_all(line.path().join(name)).unwrap();
        image::RgbImage::new(32, 32).save(line.path().join(name).join("a.png")).unwrap();
    }
    std::fs::write(line.path().join("training.toml"), "steps = 0\n").unwrap();
    let more = |gate: &str| {
        format!(
            "[retrain]\nbase = \"set\"\nreviewed = \"reviewed\"\ngate = \"{gate}\"\nreports = \"reports\"\n\
             training = \"training.toml\"\n"
        )
    };
    let trials = line.trials(&more("gate"));
    assert_eq!(find(&trials, "retrain base"), (true, "1 normal pictures to learn from"));
    assert_eq!(find(&trials, "retrain gate"), (true, "1 good and 1 defective pictures to judge by"));
    let (ok, detail) = find(&trials, "retrain training");
    assert!(!ok && detail.contains("steps"), "{detail}");
    std::fs::remove_dir_all(line.path().join("gate/test/crack")).unwrap();
    assert!(!find(&line.trials(&more("gate")), "retrain gate").0);
}

#[test]
fn problems_of_the_file_end_with_code_two_and_are_told_as_json_too() {
    let line = Line::new();
    let output = line.check("deadline = 5\n", &[]);
    assert_eq!(output.status.code(), Some(2));
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.contains("did you mean `deadline_ms`?") && text.contains("^^^^^^^^"), "{text}");
    assert!(output.stdout.is_empty());
    let output = line.check("deadline = 5\n", &["--json"]);
    assert_eq!(output.status.code(), Some(2));
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((answer["ok"].as_bool(), answer["problems"][0]["line"].as_u64()), (Some(false), Some(14)));
}
