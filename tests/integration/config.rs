//! Configuration files: every problem at once, each where it was written.

use std::path::{Path, PathBuf};

use linegate::config::{Broker, Config, ConfigError, Orientation, TrainingConfig};
use linegate::training::settings::Settings;

fn example(name: &str) -> PathBuf {
    crate::support::root().join("config").join(name)
}

/// A configuration in a folder of its own.
fn write(text: impl AsRef<[u8]>) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("line.toml");
    std::fs::write(&file, text).unwrap();
    (folder, file)
}

/// The report on a broken file, with the folder's random name left out.
fn report(text: impl AsRef<[u8]>, flags: &[(&str, &str)]) -> String {
    let (folder, file) = write(text);
    let flags: Vec<_> = flags.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    let error = Config::load_with(&file, &flags).expect_err("the configuration must be refused");
    error.to_string().replace(&format!("{}/", folder.path().display()), "")
}

const GOOD: &str = r#"
[station]
site = "plant"
line = "line"
station = "one"

[model]
bundle = "models/a"

[[camera]]
name = "top"
pipeline = "test"
"#;

#[test]
fn the_example_line_loads_and_its_paths_start_at_its_folder() {
    let config = Config::load(&example("line.toml")).unwrap();
    assert_eq!(config.camera.len(), 1);
    assert_eq!(config.model.registry.unwrap(), example("../models"));
    assert_eq!(config.outbox.file, example("../state/outbox.sqlite"));
    assert_eq!(config.retrain.unwrap().training.unwrap(), example("training.toml"));
    assert_eq!(config.camera[0].pipeline, "folder");
    assert_eq!(config.camera[0].parameters["location"].as_str(), example("../pictures").to_str());
}

#[test]
fn the_example_of_two_cameras_loads() {
    let config = Config::load(&example("two-cameras.toml")).unwrap();
    assert_eq!(config.camera.iter().map(|camera| camera.name.as_str()).collect::<Vec<_>>(), ["top", "side"]);
    assert_eq!(config.mqtt.broker, Broker::External { host: "broker.example".into(), port: 8883 });
    assert_eq!(config.camera[1].parameters["location"].as_str(), Some("rtsp://192.0.2.10/stream"));
    assert_eq!(config.mqtt.tls.unwrap().ca_file.unwrap(), example("ca.pem"));
}

#[test]
fn the_example_of_a_training_loads() {
    let training = TrainingConfig::load(&example("training.toml")).unwrap();
    assert_eq!(training.image_size.unwrap().to_string(), "256x256");
    assert_eq!(training.steps, None);
}

#[test]
fn every_problem_of_a_file_is_reported_at_once_with_line_and_caret() {
    insta::assert_snapshot!(report(
        r#"
[station]
site = "plant 1"
line = "line"
colour = "blue"

[model]
bundle = "a"
registry = "b"
providers = ["cpu", "cdua", "cpu"]
threads = 257

[batching]
max_batch = "four"
max_wait = 10

[decisions]
suspect = "maybe"

[[camera]]
name = "top"
pipeline = "test"
deadline_ms = 0
region_of_interest = { x = 0, y = 0, width = 0 }

[[camera]]
name = "top"
pipeline = ""
parameters = { folder = [1] }

[mqtt]
broker = { kind = "embedded", listen = "0.0.0.0:1883", host = "x" }
keep_alive = 15
password_file = "secret"
password_environment = "SECRET"
tls = {}

[archive]
accept_sample = 1.5
quota_mib = 99999999999999999999

[retrain]
base = "set"
gate = "set"
reviewed = 1979-05-27
"#,
        &[]
    ));
}

#[test]
fn a_retraining_needs_a_registry() {
    let text = format!("{GOOD}\n[retrain]\nbase = \"a\"\nreviewed = \"b\"\ngate = \"c\"\nreports = \"d\"\n");
    insta::assert_snapshot!(report(text, &[]));
}

#[test]
fn an_empty_file_says_what_is_missing() {
    insta::assert_snapshot!(report("", &[]));
}

#[test]
fn broken_toml_is_reported_alone_and_with_every_break() {
    insta::assert_snapshot!(report("[station]\nsite = \nline = \"a\nsite = \"x\"\nsite = \"y\"\n[model\n", &[]));
}

#[test]
fn a_file_that_is_not_text_names_the_first_bad_byte() {
    insta::assert_snapshot!(report(b"[station]\nsite = \"\xff\"\n", &[]));
}

#[test]
fn a_long_line_is_cut_around_its_caret() {
    let text = GOOD.replace("bundle = ", &format!("padding = \"{}\", bundle = ", "x".repeat(3000)));
    let text = report(text, &[]);
    assert!(text.lines().all(|line| line.chars().count() < 200), "{text}");
}

#[test]
fn flags_win_over_the_file_and_keep_their_type() {
    let (_folder, file) = write(GOOD);
    let set = |pairs: &[(&str, &str)]| {
        let pairs: Vec<_> = pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        Config::load_with(&file, &pairs).unwrap()
    };
    let config = set(&[
        ("mqtt.keep_alive_s", "5"),
        ("mqtt.client_id", "7"),
        ("camera.0.deadline_ms", "250"),
        ("camera.0.parameters.pattern", "snow"),
        ("model.providers", "[\"cuda\", \"cpu\"]"),
        ("station.site", "other"),
    ]);
    assert_eq!(config.mqtt.keep_alive_s, 5);
    assert_eq!(config.mqtt.client_id.as_deref(), Some("7"));
    assert_eq!(config.camera[0].deadline_ms, Some(250));
    assert_eq!(config.camera[0].parameters["pattern"].as_str(), Some("snow"));
    assert_eq!(config.model.providers.len(), 2);
    assert_eq!(config.station.site, "other");
}

#[test]
fn another_kind_of_broker_leaves_the_former_ones_keys_behind() {
    let (_folder, file) =
        write(format!("{GOOD}\n[mqtt]\nbroker = {{ kind = \"embedded\", listen = \"127.0.0.1:1883\" }}\n"));
    let flags = [("mqtt.broker.kind", "external"), ("mqtt.broker.host", "broker"), ("mqtt.broker.port", "1884")];
    let flags = flags.map(|(key, value)| (key.to_owned(), value.to_owned()));
    let config = Config::load_with(&file, &flags).unwrap();
    assert_eq!(config.mqtt.broker, Broker::External { host: "broker".into(), port: 1884 });
}

#[test]
fn a_bad_flag_is_shown_as_it_was_typed() {
    let flags =
        [("mqtt.keep_alive_s", "soon"), ("mqtt.keepalive_s", "5"), ("camera.3.name", "x"), ("camera.0.name.x", "y")];
    insta::assert_snapshot!(report(GOOD, &flags));
}

#[test]
fn a_missing_and_an_oversized_file_are_errors_of_their_own() {
    let missing = Config::load(Path::new("/nowhere/line.toml"));
    assert!(matches!(missing, Err(ConfigError::Read { .. })), "{missing:?}");
    let (_folder, file) = write("#".repeat((1 << 20) + 1));
    let large = Config::load(&file);
    assert!(matches!(large, Err(ConfigError::TooLarge { limit: 1_048_576, .. })), "{large:?}");
}

#[test]
fn a_training_may_leave_the_size_to_the_pictures_and_take_parts_as_they_lie() {
    let (_folder, file) = write("image_size = \"auto\"\norientation = \"any\"\n");
    let settings = Settings::from_config(&TrainingConfig::load(&file).unwrap());
    assert!(settings.auto_size);
    assert_eq!(settings.orientation, Orientation::Any);
    let (_folder, file) = write("image_size = \"automatic\"\norientation = \"turned\"\n");
    let error = TrainingConfig::load(&file).unwrap_err().to_string();
    assert!(error.contains("neither a number of pixels nor `auto`") && error.contains("fixed, any"), "{error}");
}

#[test]
fn a_training_file_is_held_to_the_same_rules() {
    let (folder, file) = write(
        "preset = \"quick\"\nimage_size = 250\nlearning_rat = 0.1\nboundary_quantile = 1.0\nfalse_reject_rate = 0.1\n\
         suspect_rate = 0.05\ndefects = 3\npooling = 4\n",
    );
    let error = TrainingConfig::load(&file).unwrap_err();
    insta::assert_snapshot!(error.to_string().replace(&format!("{}/", folder.path().display()), ""));
}

#[test]
fn a_genicam_device_serves_one_camera_alone() {
    let camera = |name: &str, pipeline: &str, device: &str| {
        format!("\n[[camera]]\nname = \"{name}\"\npipeline = \"{pipeline}\"\n[camera.parameters]\n{device}\n")
    };
    let twice = format!(
        "{GOOD}{}{}{}",
        camera("left", "genicam", "camera = \"192.0.2.7\""),
        camera("right", "genicam", "camera = \"192.0.2.7\""),
        // Another kind of camera that happens to have such a parameter.
        camera("below", "mine", "camera = \"192.0.2.7\""),
    );
    let report = report(&twice, &[]);
    assert!(
        report.contains("device `192.0.2.7` stands there twice") && report.contains("one `[[camera]]`"),
        "{report}"
    );
    assert_eq!(report.matches("stands there twice").count(), 1, "{report}");
}
