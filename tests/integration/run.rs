//! Tests of the whole line: real GStreamer, ONNX Runtime and brokers on pictures and models that
//! the tests make.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::{Duration, Instant};

use crate::support::onnx::{
    self,
    Dim::{Fixed, Open},
};
use crate::support::{calibrated_level, free_port};
use image::{Rgb, RgbImage};
use linegate::bundle::{
    ACTIVE_FILE, BUNDLE_SCHEMA_VERSION, BundleWriter, Calibration, CalibrationSet, Evidence, ImageBoundary, LevelShape,
    MODEL_FILE, Manifest, Preprocessing, Provenance,
};
use linegate::config::Config;
use linegate::inspection::{Decision, NotInspected, Reason, Size, Verdict};
use linegate::line::publishing::{Observation, StationState, Subscriber, SubscriberOptions};
use linegate::line::topology::{Line, LineError, Summary};

/// Longest that a test waits for one thing: far more than any machine needs.
const PATIENCE: Duration = Duration::from_mins(1);
const SIZE: Size = Size { width: 48, height: 32 };

/// A model whose log-likelihood is the brightness of each 16 × 16 square, calibrated so that 128
/// scores 0 and every 10 less score 1 more: 128 is accepted, 113 suspect, 90 rejected.
pub(crate) fn write_bundle(target: &Path, version: &str, mean: f32) {
    write_slow_bundle(target, version, mean, 0);
}

/// The same with steps that change nothing about flat pictures and cost time.
pub(crate) fn write_slow_bundle(target: &Path, version: &str, mean: f32, steps: usize) {
    let mut nodes = vec![
        onnx::node("Cast", "image", "real", &[("to", &[onnx::F32])]),
        onnx::node("Transpose", "real", "slow0", &[("perm", &[0, 3, 1, 2])]),
    ];
    let plane = |step: usize| format!("slow{step}");
    nodes.extend((0..steps).map(|step| {
        let attributes: [(&str, &[u64]); 3] = [("kernel_shape", &[15, 15]), ("strides", &[1, 1]), ("pads", &[7; 4])];
        onnx::node("AveragePool", &plane(step), &plane(step + 1), &attributes)
    }));
    nodes.extend([
        onnx::node("AveragePool", &plane(steps), "pooled", &[("kernel_shape", &[16, 16]), ("strides", &[16, 16])]),
        onnx::node("ReduceMean", "pooled", "ll16", &[("axes", &[1]), ("keepdims", &[0])]),
    ]);
    write_bundle_of(target, version, mean, &nodes);
}

/// The same with another graph from `image` to `ll16`.
pub(crate) fn write_bundle_of(target: &Path, version: &str, mean: f32, nodes: &[Vec<u8>]) {
    let dims = [Open("batch"), Fixed(SIZE.height), Fixed(SIZE.width), Fixed(3)];
    let model = onnx::model(
        nodes,
        &[onnx::tensor("image", onnx::U8, &dims)],
        &[onnx::tensor("ll16", onnx::F32, &[Open("batch"), Open("row"), Open("column")])],
        &[("linegate.bundle", "parts"), ("linegate.version", version)],
    );
    let manifest = Manifest {
        schema_version: BUNDLE_SCHEMA_VERSION,
        name: "parts".into(),
        version: version.into(),
        preprocessing: Preprocessing { size: SIZE, region_of_interest: None },
        levels: vec![LevelShape { output: "ll16".into(), stride: 16, rows: 2, columns: 3 }],
        calibration: Calibration {
            levels: vec![calibrated_level(mean, 10.0, 1.0)],
            evidence: Evidence::Deviations,
            strongest: 0.0,
            smoothing_sigma: 0.0,
            minimum_area: 1,
            merging: 0,
            image: ImageBoundary { normal: 1.0, abnormal: 2.0, suspect_rate: 0.05, false_reject_rate: 0.01 },
            set: CalibrationSet {
                images: 1,
                groups: 1,
                false_reject_interval: [0.0, 1.0],
                warnings: Vec::new(),
                scores: vec![0.0],
                score_groups: Vec::new(),
            },
        },
        provenance: Provenance {
            software: "test".into(),
            trained_at: "2026-11-01T00:00:00Z".into(),
            seed: 1,
            threads: 1,
            preset: "test".into(),
            settings: serde_json::Value::Null,
            backbone: "none".into(),
            training_set_sha256: String::new(),
            training_images: 1,
            known_defects: Vec::new(),
            normals: Vec::new(),
            export_difference: 0.0,
            phases: Vec::new(),
            started_from: None,
            fitted_before: Vec::new(),
            peak_memory_mib: 1.0,
        },
        files: BTreeMap::new(),
    };
    let writer = BundleWriter::new(target).unwrap();
    std::fs::write(writer.path().join(MODEL_FILE), model).unwrap();
    writer.commit(manifest).unwrap();
}

/// A folder with everything that a line needs, and the configuration's text.
pub(crate) struct Site {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) text: String,
}

impl Site {
    pub(crate) fn new(head: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        write_bundle(&folder.path().join("bundle"), "1", 128.0);
        let text = format!(
            "{head}\n[station]\nsite = \"s\"\nline = \"l\"\nstation = \"t\"\n[outbox]\nfile = \"outbox.sqlite\"\n"
        );
        Self { folder, text }
    }

    pub(crate) fn with_bundle() -> Self {
        Self::new("[model]\nbundle = \"bundle\"\nthreads = 1\n").embedded()
    }

    pub(crate) fn embedded(mut self) -> Self {
        let listen = format!("127.0.0.1:{}", free_port());
        write!(self.text, "[mqtt]\nbroker = {{ kind = \"embedded\", listen = \"{listen}\" }}\n").unwrap();
        self
    }

    pub(crate) fn add(&mut self, text: &str) -> &mut Self {
        self.text.push_str(text);
        self.text.push('\n');
        self
    }

    /// A folder camera that ends, with flat pictures of the given brightness.
    pub(crate) fn folder_camera(&mut self, name: &str, rate: u32, greys: &[u8], more: &str) -> &mut Self {
        let folder = self.folder.path().join(name);
        std::fs::create_dir_all(&folder).unwrap();
        for (index, grey) in greys.iter().enumerate() {
            let (width, height) = (90 + 7 * (index as u32 % 5), 61);
            let picture = RgbImage::from_pixel(width, height, Rgb([*grey; 3]));
            picture.save(folder.join(format!("{index:04}.png"))).unwrap();
        }
        self.add(&format!(
            "[[camera]]\nname = \"{name}\"\npipeline = \"folder\"\nends = true\n{more}\n\
             [camera.parameters]\nlocation = \"{name}\"\nrate = {rate}"
        ))
    }

    pub(crate) fn path(&self) -> std::path::PathBuf {
        let file = self.folder.path().join("line.toml");
        std::fs::write(&file, &self.text).unwrap();
        file
    }

    pub(crate) fn config(&self) -> Config {
        match Config::load(&self.path()) {
            Ok(config) => config,
            Err(error) => panic!("{error}\n{}", self.text),
        }
    }

    /// Runs until every camera has ended.
    pub(crate) fn run(&self) -> (Vec<Decision>, Summary) {
        let (sender, decisions) = sync_channel(100_000);
        let line = Line::start(&self.config(), Some(sender)).unwrap();
        wait_until(|| line.has_ended());
        let summary = line.stop();
        (decisions.try_iter().collect(), summary)
    }
}

pub(crate) fn wait_until(done: impl Fn() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < until, "it did not happen in {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

pub(crate) fn cause(decision: &Decision) -> Option<NotInspected> {
    decision.reasons.iter().find_map(|reason| match reason {
        Reason::NotInspected { cause } => Some(*cause),
        Reason::ScoreAboveBoundary { .. } => None,
    })
}

/// Every frame of every camera exactly once, numbers without gaps.
#[track_caller]
pub(crate) fn assert_complete(decisions: &[Decision], summary: &Summary) {
    assert!(summary.is_whole(), "{summary:?}");
    assert_eq!(decisions.len() as u64, summary.stats.frames);
    let sequences: Vec<_> = decisions.iter().map(|d| d.sequence).collect();
    assert_eq!(sequences, (1..=summary.stats.frames).collect::<Vec<_>>());
    for (camera, count) in &summary.stats.cameras {
        let mut frames: Vec<_> = decisions.iter().filter(|d| d.camera == *camera).map(|d| d.frame).collect();
        frames.sort_unstable();
        assert_eq!(frames, (1..=*count).collect::<Vec<_>>(), "{camera}");
    }
}

/// A real broker in a process of its own.
struct Mosquitto {
    process: Child,
    port: u16,
    _folder: tempfile::TempDir,
}

impl Mosquitto {
    fn start() -> Self {
        let port = free_port();
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("mosquitto.conf");
        std::fs::write(&file, format!("listener {port} 127.0.0.1\nallow_anonymous true\nmax_queued_messages 0\n"))
            .unwrap();
        let mut command = Command::new("mosquitto");
        // Debian keeps it where only root's path leads.
        command.env("PATH", format!("{}:/usr/sbin:/usr/local/sbin", std::env::var("PATH").unwrap_or_default()));
        let process =
            command.arg("-c").arg(&file).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("mosquitto starts");
        Self { process, port, _folder: folder }
    }

    /// A subscriber to everything, connected.
    fn subscriber(&self) -> Subscriber {
        let subscriber = Subscriber::start(&SubscriberOptions {
            host: "127.0.0.1".into(),
            port: self.port,
            site: None,
            line: None,
            station: None,
            username: None,
            password_file: None,
        })
        .unwrap();
        loop {
            match subscriber.next(PATIENCE).expect("the broker answers") {
                Observation::Connected => return subscriber,
                Observation::Disconnected { .. } => {}
                other => panic!("{other:?}"),
            }
        }
    }
}

impl Drop for Mosquitto {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn two_cameras_share_batches_keep_their_order_and_every_frame_becomes_one_message() {
    let broker = Mosquitto::start();
    let subscriber = broker.subscriber();
    let mut site = Site::new("[model]\nbundle = \"bundle\"\nthreads = 1\n");
    site.add(&format!("[mqtt]\nbroker = {{ kind = \"external\", host = \"127.0.0.1\", port = {} }}", broker.port));
    site.add("[batching]\nmax_batch = 4\nmax_wait_ms = 150");
    let greys: Vec<u8> = (0..40).map(|n| [128, 113, 90, 128][n % 4]).collect();
    site.folder_camera("fast", 50, &greys, "").folder_camera("slow", 20, &greys[..16], "");
    let (decisions, summary) = site.run();
    assert_complete(&decisions, &summary);
    assert_eq!((summary.stats.cameras["fast"], summary.stats.cameras["slow"]), (40, 16));
    assert!(summary.stats.batches < 56, "no batch held two frames: {summary:?}");
    assert_eq!((summary.acknowledged, summary.outbox), (56, 0));

    let mut heard = Vec::new();
    let mut states = Vec::new();
    while heard.len() < 56 || states.last() != Some(&StationState::Halted) {
        match subscriber.next(PATIENCE).expect("every decision is published") {
            Observation::Decision(decision) => heard.push(*decision),
            Observation::State { message, .. } => states.push(message.state),
            Observation::Unreadable { topic, error } => panic!("{topic}: {error}"),
            _ => {}
        }
    }
    assert_eq!(heard.len(), 56);
    assert!(states.contains(&StationState::Executing), "{states:?}");
    for camera in ["fast", "slow"] {
        let frames: Vec<_> = heard.iter().filter(|d| d.camera == camera).map(|d| d.frame).collect();
        assert_eq!(frames, (1..=frames.len() as u64).collect::<Vec<_>>(), "{camera} is out of order");
    }
    for decision in &heard {
        let grey = greys[decision.frame as usize - 1];
        let expected = match grey {
            128 => (Verdict::Accept, false, 0.0),
            113 => (Verdict::Suspect, true, 1.5),
            _ => (Verdict::Reject, true, 3.8),
        };
        assert_eq!((decision.verdict, decision.eject), (expected.0, expected.1), "grey {grey}");
        assert!((decision.image_score.unwrap() - expected.2).abs() < 1e-4);
        assert_eq!((decision.threshold, decision.boundary), (Some(2.0), Some(1.0)));
        assert_eq!(decision.part_id.as_deref(), Some(format!("{:04}.png", decision.frame - 1).as_str()));
        assert_eq!(decision.model.as_ref().unwrap().version, "1");
        assert!(decision.decided_us >= decision.captured_us && !decision.replayed);
        let split = decision.latency;
        assert!(split.queue_ms >= 0.0 && split.batch_ms >= 0.0 && split.infer_ms > 0.0 && split.decide_ms > 0.0);
        assert_eq!((decision.deadline_ms, decision.deadline_met), (None, None));
    }
}

#[test]
fn a_torn_picture_becomes_a_decision_of_its_own() {
    let mut site = Site::with_bundle();
    site.folder_camera("cam", 100, &[128; 6], "");
    let torn = site.folder.path().join("cam/0003.png");
    let bytes = std::fs::read(&torn).unwrap();
    std::fs::write(&torn, &bytes[..bytes.len() - 20]).unwrap();
    let (decisions, summary) = site.run();
    assert_complete(&decisions, &summary);
    assert_eq!((summary.stats.accept, summary.stats.not_inspected), (5, 1));
    let lost = decisions.iter().find(|d| d.verdict == Verdict::NotInspected).unwrap();
    assert_eq!((lost.frame, cause(lost), lost.eject), (4, Some(NotInspected::Lost), true));
    assert_eq!((lost.part_id.as_deref(), &lost.model, lost.image_score), (Some("0003.png"), &None, None));
}

#[test]
fn a_frame_that_cannot_be_scored_fails_alone_and_its_batch_goes_on() {
    let mut site = Site::with_bundle();
    site.add("[batching]\nmax_batch = 4\nmax_wait_ms = 100");
    site.folder_camera("good", 50, &[128; 10], "region_of_interest = { x = 2, y = 2, width = 60, height = 40 }");
    site.folder_camera("bad", 50, &[128; 10], "region_of_interest = { x = 0, y = 0, width = 5000, height = 40 }");
    let (decisions, summary) = site.run();
    assert_complete(&decisions, &summary);
    for decision in &decisions {
        let expected = if decision.camera == "good" { None } else { Some(NotInspected::Failed) };
        assert_eq!(cause(decision), expected, "{decision:?}");
    }
    assert_eq!(summary.stats.accept, 10);
}

#[test]
fn every_copy_of_a_frame_is_counted() {
    // A camera that lends no buffer, and one that lends many: then the first two pictures are copied because their
    // rows begin amid a pixel, and the third for the archive.
    for (lent_buffers, copied) in [(0, 4), (1024, 3)] {
        let mut site = Site::with_bundle();
        site.add("[archive]\ndirectory = \"kept\"");
        site.folder_camera("cam", 50, &[128, 128, 90, 128], &format!("lent_buffers = {lent_buffers}"));
        let (decisions, summary) = site.run();
        assert_complete(&decisions, &summary);
        assert_eq!((summary.stats.reject, summary.stats.copied), (1, copied), "{summary:?}");
    }
}

#[test]
fn a_cameras_own_region_of_interest_wins_over_the_bundles() {
    let mut site = Site::with_bundle();
    site.folder_camera("whole", 50, &[128], "");
    site.folder_camera("part", 50, &[128], "region_of_interest = { x = 0, y = 0, width = 20, height = 61 }");
    // Dark on the right: seen by the camera that looks at all of it.
    for camera in ["whole", "part"] {
        let picture = RgbImage::from_fn(90, 61, |x, _| Rgb([if x < 30 { 128 } else { 20 }; 3]));
        picture.save(site.folder.path().join(camera).join("0000.png")).unwrap();
    }
    let (decisions, summary) = site.run();
    assert_complete(&decisions, &summary);
    for decision in decisions {
        let expected = if decision.camera == "part" { Verdict::Accept } else { Verdict::Reject };
        assert_eq!(decision.verdict, expected, "{}", decision.camera);
    }
}

#[test]
fn what_several_sessions_scored_beside_each_other_leaves_in_the_cameras_order() {
    let mut site = Site::new("[model]\nbundle = \"bundle\"\nsessions = 3\nthreads = 1\n");
    let bundle = site.folder.path().join("bundle");
    std::fs::remove_dir_all(&bundle).unwrap();
    write_slow_bundle(&bundle, "1", 128.0, 400);
    site.add("[batching]\nmax_batch = 2\nqueue_frames = 64");
    site.folder_camera("one", 400, &[128; 60], "").folder_camera("other", 200, &[128; 30], "");
    let (decisions, summary) = site.run();
    assert_complete(&decisions, &summary);
    assert_eq!(summary.stats.accept, 90);
    for camera in ["one", "other"] {
        let frames: Vec<_> = decisions.iter().filter(|d| d.camera == camera).map(|d| d.frame).collect();
        assert_eq!(frames, (1..=frames.len() as u64).collect::<Vec<_>>(), "{camera} is out of order");
    }
}

#[test]
fn a_frame_past_its_deadline_is_told_as_late_once_while_it_still_waits() {
    let mut site = Site::with_bundle();
    // Scoring takes far longer than the deadline allows.
    let bundle = site.folder.path().join("bundle");
    std::fs::remove_dir_all(&bundle).unwrap();
    write_slow_bundle(&bundle, "1", 128.0, 6000);
    site.add("[batching]\nmax_batch = 64\nmax_wait_ms = 10000\nqueue_frames = 64");
    site.folder_camera("cam", 100, &[128; 5], "deadline_ms = 15");
    let (sender, decisions) = sync_channel(100);
    let line = Line::start(&site.config(), Some(sender)).unwrap();
    let mut late: Vec<Decision> = (0..5).map(|_| decisions.recv_timeout(PATIENCE).unwrap()).collect();
    let summary = line.stop();
    late.extend(decisions.try_iter());
    assert_complete(&late, &summary);
    for decision in &late {
        assert_eq!(cause(decision), Some(NotInspected::Late), "{decision:?}");
        assert_eq!((decision.deadline_ms, decision.deadline_met), (Some(15), Some(false)));
        assert!(decision.decided_us - decision.captured_us >= 15_000, "not before the deadline");
        assert!(decision.latency.queue_ms < 10_000.0, "not when the batch closed");
    }
    assert!(summary.late_results > 0, "what was scored in vain is counted");
}

#[test]
fn a_batch_does_not_wait_for_company_where_a_frame_would_be_late() {
    let mut site = Site::with_bundle();
    site.add("[batching]\nmax_batch = 64\nmax_wait_ms = 10000\nqueue_frames = 64");
    site.folder_camera("cam", 2, &[128; 3], "deadline_ms = 2000");
    let (decisions, summary) = site.run();
    assert_complete(&decisions, &summary);
    assert_eq!(summary.stats.accept, 3, "{decisions:?}");
}

#[test]
fn an_overloaded_line_sheds_frames_as_decisions_and_loses_none() {
    let mut site = Site::with_bundle();
    site.add("[batching]\nmax_batch = 64\nmax_wait_ms = 10000\nqueue_frames = 3");
    site.folder_camera("cam", 200, &[128; 20], "");
    let (decisions, summary) = site.run();
    assert_complete(&decisions, &summary);
    // The batch never fills: 17 are pushed out one by one, 3 are scored when the line stops.
    let shed: Vec<_> = decisions.iter().filter(|d| cause(d) == Some(NotInspected::Shed)).map(|d| d.frame).collect();
    assert_eq!(shed, (1..=17).collect::<Vec<_>>());
    assert_eq!(summary.stats.accept, 3);
}

#[test]
fn rejects_and_suspects_lie_in_the_archive_under_the_names_that_their_decisions_tell() {
    let mut site = Site::with_bundle();
    site.add("[archive]\ndirectory = \"archive\"");
    site.folder_camera("cam", 20, &[128, 90, 113], "");
    let (decisions, summary) = site.run();
    assert_complete(&decisions, &summary);
    assert_eq!(summary.stats.not_archived, 0);
    for decision in &decisions {
        let kept = decision.verdict != Verdict::Accept;
        for name in [&decision.image_ref, &decision.heatmap_ref] {
            assert_eq!(name.is_some(), kept, "{decision:?}");
            let Some(name) = name else { continue };
            assert!(site.folder.path().join("archive").join(name).is_file(), "{name} is not there");
        }
        let Some(name) = &decision.image_ref else { continue };
        let picture = image::open(site.folder.path().join("archive").join(name)).unwrap().to_rgb8();
        assert_eq!(picture.get_pixel(0, 0).0, [[128, 90, 113][decision.frame as usize - 1]; 3]);
    }
}

pub(crate) fn decide_until(decisions: &Receiver<Decision>, wanted: impl Fn(&Decision) -> bool) -> Vec<Decision> {
    let mut all = Vec::new();
    loop {
        let decision = decisions.recv_timeout(PATIENCE).expect("the line goes on");
        let found = wanted(&decision);
        all.push(decision);
        if found {
            return all;
        }
    }
}

#[test]
fn a_running_line_takes_a_newly_activated_model_over_and_stays_with_the_former_when_it_is_torn() {
    // Room for a machine that pauses: what is shed then would not be the change's fault.
    let mut site =
        Site::new("[model]\nregistry = \"registry\"\nthreads = 1\n[batching]\nqueue_frames = 1024\n").embedded();
    let registry = site.folder.path().join("registry");
    let activate = |name: &str| {
        std::fs::write(registry.join("new"), format!("{name}\n")).unwrap();
        std::fs::rename(registry.join("new"), registry.join(ACTIVE_FILE)).unwrap();
    };
    write_bundle(&registry.join("first"), "1", 128.0);
    write_bundle(&registry.join("torn"), "2", 90.0);
    write_bundle(&registry.join("third"), "3", 90.0);
    let model = registry.join("torn").join(MODEL_FILE);
    let bytes = std::fs::read(&model).unwrap();
    std::fs::write(&model, &bytes[..bytes.len() / 2]).unwrap();
    activate("first");
    site.folder_camera("cam", 100, &[90; 3], "").add("loop = true");
    let (sender, decisions) = sync_channel(100_000);
    let line = Line::start(&site.config(), Some(sender)).unwrap();
    let mut all = decide_until(&decisions, |d| d.frame >= 5);
    activate("torn");
    // The watcher looks every second: in three it has seen the torn one and left it.
    let seen = all.len() as u64;
    all.extend(decide_until(&decisions, |d| d.frame >= seen + 300));
    assert!(all.iter().all(|d| d.model.as_ref().is_some_and(|m| m.version == "1") && d.verdict == Verdict::Reject));
    activate("third");
    all.extend(decide_until(&decisions, |d| d.model.as_ref().is_some_and(|m| m.version == "3")));
    assert_eq!(all.last().unwrap().verdict, Verdict::Accept);
    let summary = line.stop();
    all.extend(decisions.try_iter());
    assert_complete(&all, &summary);
    assert_eq!(summary.stats.not_inspected, 0, "no frame was lost to the change");
}

#[test]
fn a_line_without_a_usable_model_does_not_start() {
    let mut site = Site::with_bundle();
    site.folder_camera("cam", 10, &[128], "");
    std::fs::write(site.folder.path().join("bundle").join(MODEL_FILE), b"torn").unwrap();
    match Line::start(&site.config(), None) {
        Err(LineError::Model(error)) => assert!(error.to_string().contains("SHA-256"), "{error}"),
        Err(other) => panic!("{other:?}"),
        Ok(_) => panic!("it started"),
    }
}

pub(crate) fn linegate(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_linegate"));
    command.args(arguments).current_dir(crate::support::root());
    command
}

#[test]
fn the_command_runs_a_line_to_its_end_and_sums_up() {
    let mut site = Site::with_bundle();
    site.folder_camera("cam", 100, &[128, 90, 113, 128], "");
    let config = site.path();
    let config = config.to_str().unwrap();
    let output = linegate(&["run", "--config", config, "--json"]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let lines: Vec<serde_json::Value> =
        String::from_utf8(output.stdout).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 2);
    assert_eq!((&lines[0]["event"], &lines[0]["provider"]), (&"start".into(), &"cpu".into()));
    assert_eq!(lines[1]["whole"], true);
    for (key, count) in [("frames", 4), ("decisions", 4), ("accept", 2), ("reject", 1), ("suspect", 1)] {
        assert_eq!(lines[1]["stats"][key], count, "{key}");
    }
    assert_eq!((&lines[1]["acknowledged"], &lines[1]["outbox"]), (&4.into(), &0.into()));

    let output = linegate(&["run", "--config", config, "--table"]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success());
    assert!(text.contains("model     parts 1") && text.contains("broker    embedded at 127.0.0.1:"), "{text}");
    assert!(text.contains("0001.png") && text.contains("3.80/2.00"), "{text}");
    assert!(text.contains("decisions     4: 2 accept, 1 reject, 1 suspect, 0 not_inspected"), "{text}");
    assert!(!text.contains('\x1b'), "colours are for terminals");
}

#[test]
fn the_command_stops_in_order_at_a_signal() {
    let mut site = Site::with_bundle();
    site.folder_camera("cam", 50, &[128; 3], "").add("loop = true");
    let config = site.path();
    let child = linegate(&["run", "--config", config.to_str().unwrap(), "--table"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let pid = child.id().to_string();
    let mut child = child;
    let mut text = String::new();
    let mut reader = std::io::BufReader::new(child.stdout.take().unwrap());
    // Once a decision is shown the line is running.
    while !text.contains("accept ") {
        assert!(std::io::BufRead::read_line(&mut reader, &mut text).unwrap() > 0, "{text}");
    }
    assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    std::io::Read::read_to_string(&mut reader, &mut text).unwrap();
    assert!(child.wait().unwrap().success(), "{text}");
    assert!(text.contains("stopping: a signal") && text.contains("0 left in the outbox"), "{text}");
}

#[test]
fn the_command_ends_with_2_for_a_configuration_it_cannot_use() {
    let output = linegate(&["run", "--config", "/nowhere/line.toml"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{}", String::from_utf8_lossy(&output.stderr));
}
