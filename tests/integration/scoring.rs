//! Tests of scoring: real ONNX Runtime on small files whose results can be told by hand.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use crate::support::calibrated_level;
use crate::support::onnx::Dim::{Fixed, Open};
use crate::support::onnx::{self, BOOL, Dim, F32, U8, node, tensor};
use linegate::bundle::{
    BUNDLE_SCHEMA_VERSION, Bundle, BundleWriter, Calibration, CalibrationSet, Evidence, ImageBoundary, LevelShape,
    MODEL_FILE, Manifest, PROCESSOR_MODEL_FILE, Preprocessing, Provenance,
};
use linegate::inspection::{Picture, Size};
use linegate::scoring::{
    BackboneSpec, FeatureExtractor, LIBRARY_VARIABLE, Model, Provider, ScoringError, SessionOptions, initialise,
    library,
};

const SIZE: Size = Size { width: 48, height: 32 };
const NAME: [(&str, &str); 2] = [("linegate.bundle", "cells"), ("linegate.version", "7")];

/// A model of the right form: each level is the mean of a stride's square over all channels.
struct Draft {
    input: Vec<u8>,
    channels_last: [u64; 4],
    outputs: Vec<(&'static str, u64)>,
    metadata: Vec<(&'static str, &'static str)>,
}

impl Default for Draft {
    fn default() -> Self {
        let dims = [Open("batch"), Fixed(SIZE.height), Fixed(SIZE.width), Fixed(3)];
        Self {
            input: tensor("image", U8, &dims),
            channels_last: [0, 3, 1, 2],
            outputs: vec![("ll4", 4), ("ll8", 8)],
            metadata: NAME.to_vec(),
        }
    }
}

impl Draft {
    fn bytes(&self, input: &str) -> Vec<u8> {
        let mut nodes = vec![
            node("Cast", input, "real", &[("to", &[F32])]),
            node("Transpose", "real", "planes", &[("perm", &self.channels_last)]),
        ];
        for &(name, stride) in &self.outputs {
            let pooled = format!("{name}.pooled");
            let square = [stride, stride];
            nodes.push(node("AveragePool", "planes", &pooled, &[("kernel_shape", &square), ("strides", &square)]));
            nodes.push(node("ReduceMean", &pooled, name, &[("axes", &[1]), ("keepdims", &[0])]));
        }
        let dims = [Open("batch"), Open("row"), Open("column")];
        let outputs = self.outputs.iter().map(|(name, _)| tensor(name, F32, &dims)).collect::<Vec<_>>();
        onnx::model(&nodes, std::slice::from_ref(&self.input), &outputs, &self.metadata)
    }
}

fn manifest() -> Manifest {
    let level = |stride: usize| LevelShape {
        output: format!("ll{stride}"),
        stride,
        rows: SIZE.height / stride,
        columns: SIZE.width / stride,
    };
    let calibrated = calibrated_level(0.0, 1.0, 0.5);
    Manifest {
        schema_version: BUNDLE_SCHEMA_VERSION,
        name: "cells".into(),
        version: "7".into(),
        preprocessing: Preprocessing { size: SIZE, region_of_interest: None },
        levels: vec![level(4), level(8)],
        calibration: Calibration {
            levels: vec![calibrated; 2],
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
        files: std::collections::BTreeMap::new(),
    }
}

fn bundle(folder: &Path, model: &[u8], manifest: Manifest) -> Bundle {
    let writer = BundleWriter::new(&folder.join("bundle")).unwrap();
    std::fs::write(writer.path().join(MODEL_FILE), model).unwrap();
    writer.commit(manifest).unwrap()
}

fn load(model: &[u8], options: &SessionOptions) -> Result<Model, ScoringError> {
    let folder = tempfile::tempdir().unwrap();
    Model::load(&bundle(folder.path(), model, manifest()), options)
}

/// The whole message of why a model is refused, causes included.
fn refusal(model: &[u8]) -> String {
    message(&load(model, &SessionOptions::default()).expect_err("the model should be refused"))
}

fn message(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

#[track_caller]
fn assert_says(message: &str, parts: &[&str]) {
    for part in parts {
        assert!(message.contains(part), "{part:?} is not in: {message}");
    }
}

fn picture(size: Size, value: impl Fn(usize, usize) -> [u8; 3]) -> Picture {
    let places = (0..size.height).flat_map(|y| (0..size.width).map(move |x| (x, y)));
    Picture::from_rgb(size, places.flat_map(|(x, y)| value(x, y)).collect()).unwrap()
}

/// Flat, but for a square of 8 × 8 with the corner (8, 16).
fn spotted(ground: u8, spot: [u8; 3]) -> Picture {
    picture(SIZE, |x, y| if (8..16).contains(&x) && (16..24).contains(&y) { spot } else { [ground; 3] })
}

#[test]
fn a_batch_gets_the_maps_of_each_picture_in_order() {
    let mut model = load(&Draft::default().bytes("image"), &SessionOptions::default()).unwrap();
    let pictures = [spotted(10, [30, 60, 90]), spotted(100, [0, 0, 3]), spotted(7, [7; 3])];
    let maps = model.score(&pictures.each_ref()).unwrap();
    assert_eq!(maps.len(), 3);
    for (maps, (ground, spot)) in maps.iter().zip([(10.0, 60.0), (100.0, 1.0), (7.0, 7.0)]) {
        assert!(maps.is_finite());
        let [fine, coarse] = maps.levels.as_slice() else { panic!("two levels are expected") };
        assert_eq!((fine.dim(), coarse.dim()), ((8, 12), (4, 6)));
        for ((row, column), &value) in fine.indexed_iter() {
            let expected = if (4..6).contains(&row) && (2..4).contains(&column) { spot } else { ground };
            assert!((value - expected).abs() < 1e-4, "{value} at row {row}, column {column}");
        }
        for ((row, column), &value) in coarse.indexed_iter() {
            let expected = if (row, column) == (2, 1) { spot } else { ground };
            assert!((value - expected).abs() < 1e-4, "{value} at row {row}, column {column}");
        }
    }
}

#[test]
fn a_smaller_batch_after_a_larger_one_sees_nothing_of_it() {
    let mut model = load(&Draft::default().bytes("image"), &SessionOptions::default()).unwrap();
    let (first, second) = (spotted(200, [90; 3]), spotted(20, [1, 2, 3]));
    let alone = model.score(&[&second]).unwrap();
    model.score(&[&first, &first, &first]).unwrap();
    assert_eq!(model.score(&[&second]).unwrap(), alone);
    assert!(model.score(&[]).unwrap().is_empty());
}

#[test]
fn places_of_a_prepared_batch_may_be_scored_in_any_part() {
    let mut model = load(&Draft::default().bytes("image"), &SessionOptions::default()).unwrap();
    let pictures: Vec<_> = (0..12u8).map(|n| spotted(20 * n, [n, 2, 3])).collect();
    let alone: Vec<_> = pictures.iter().map(|picture| model.score(&[picture]).unwrap().remove(0)).collect();
    // More numbers of pictures than memory is kept for.
    for count in (1..=12).chain([3, 1]) {
        model.prepare(count).unwrap();
        for (index, picture) in pictures[..count].iter().enumerate() {
            model.place(index).copy_from_slice(picture.rgb());
        }
        assert_eq!(model.score_placed(0..count).unwrap(), &alone[..count]);
        // One that could not be written, and one alone because the batch failed.
        assert_eq!(model.score_placed(0..count - 1).unwrap(), &alone[..count - 1]);
        assert_eq!(model.score_placed(count - 1..count).unwrap(), &alone[count - 1..count]);
        assert_eq!(model.score_placed(0..count).unwrap(), &alone[..count], "the batch is still there");
    }
}

/// Tells the test that it runs in a process that it started.
const CHILD: &str = "LINEGATE_TEST_FIRST_SESSIONS";

#[test]
fn the_first_sessions_of_a_process_may_be_opened_at_the_same_time() {
    if std::env::var_os(CHILD).is_some() {
        let model = Draft::default().bytes("image");
        initialise(None).unwrap();
        let together = std::sync::Barrier::new(8);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    together.wait();
                    load(&model, &SessionOptions::on_processor(1)).unwrap();
                });
            }
        });
        return;
    }
    for _ in 0..12 {
        let test = "scoring::the_first_sessions_of_a_process_may_be_opened_at_the_same_time";
        let child = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", test])
            .env(CHILD, "1")
            .output()
            .unwrap();
        assert!(child.status.success(), "{}", String::from_utf8_lossy(&child.stdout));
    }
}

#[test]
fn a_model_that_was_broken_off_scores_no_more() {
    let mut model = load(&Draft::default().bytes("image"), &SessionOptions::default()).unwrap();
    let breaker = model.breaker();
    std::thread::spawn(move || assert!(breaker.break_off())).join().unwrap();
    for _ in 0..2 {
        let error = model.score(&[&spotted(20, [1, 2, 3])]).unwrap_err();
        assert!(matches!(error, ScoringError::Run { batch: 1, .. }), "{error:?}");
    }
}

#[test]
fn a_picture_of_another_size_is_an_error_and_the_model_goes_on() {
    let mut model = load(&Draft::default().bytes("image"), &SessionOptions::default()).unwrap();
    let good = spotted(20, [1, 2, 3]);
    let odd = picture(Size { width: 32, height: 48 }, |_, _| [0; 3]);
    let error = model.score(&[&good, &odd]).unwrap_err().to_string();
    assert_says(&error, &["picture 1", "32x48", "48x32"]);
    assert_eq!(model.score(&[&good]).unwrap().len(), 1);
}

#[test]
fn a_model_says_which_bundle_it_is_and_moves_between_threads() {
    let folder = tempfile::tempdir().unwrap();
    let bundle = bundle(folder.path(), &Draft::default().bytes("image"), manifest());
    let mut model = Model::load(&bundle, &SessionOptions::default()).unwrap();
    assert_eq!(model.identity(), &bundle.identity);
    assert_eq!(model.manifest().levels, bundle.manifest.levels);
    assert_eq!(model.provider(), Provider::Cpu);
    let scored = std::thread::spawn(move || model.score(&[&spotted(3, [3; 3])]).unwrap().len());
    assert_eq!(scored.join().unwrap(), 1);
}

#[test]
fn a_model_with_another_input_is_refused_with_both_forms() {
    let dims = |height| [Open("batch"), Fixed(height), Fixed(SIZE.width), Fixed(3)];
    let with = |input| Draft { input, ..Draft::default() };
    let renamed = with(tensor("pixels", U8, &dims(SIZE.height))).bytes("pixels");
    assert_says(&refusal(&renamed), &["only input", "`image`", "`pixels`"]);
    let real = with(tensor("image", F32, &dims(SIZE.height))).bytes("image");
    assert_says(&refusal(&real), &["input `image`", "Tensor<u8>(batch, 32, 48, 3)", "Tensor<f32>(batch, 32, 48, 3)"]);
    let taller = with(tensor("image", U8, &dims(64))).bytes("image");
    assert_says(&refusal(&taller), &["Tensor<u8>(batch, 32, 48, 3)", "Tensor<u8>(batch, 64, 48, 3)"]);
    let single = [Fixed(1), Fixed(SIZE.height), Fixed(SIZE.width), Fixed(3)];
    let single = with(tensor("image", U8, &single)).bytes("image");
    assert_says(&refusal(&single), &["Tensor<u8>(batch, 32, 48, 3)", "Tensor<u8>(1, 32, 48, 3)"]);
    let planes = [Open("batch"), Fixed(3), Fixed(SIZE.height), Fixed(SIZE.width)];
    let planes = Draft { input: tensor("image", U8, &planes), channels_last: [0, 1, 2, 3], ..Draft::default() };
    assert_says(&refusal(&planes.bytes("image")), &["Tensor<u8>(batch, 32, 48, 3)", "Tensor<u8>(batch, 3, 32, 48)"]);
}

#[test]
fn a_model_with_other_outputs_is_refused_with_both_names_or_shapes() {
    let with = |outputs: &[_]| Draft { outputs: outputs.to_vec(), ..Draft::default() }.bytes("image");
    assert_says(&refusal(&with(&[("ll4", 4), ("score8", 8)])), &["`ll8`", "`ll4`, `score8`"]);
    assert_says(&refusal(&with(&[("ll4", 4)])), &["`ll8`", "`ll4`"]);
    assert_says(&refusal(&with(&[("ll4", 4), ("ll8", 8), ("ll16", 16)])), &["the outputs", "`ll4`, `ll8`", "`ll16`"]);
    assert_says(
        &refusal(&with(&[("ll4", 4), ("ll8", 4)])),
        &["output `ll8`", "Tensor<f32>(batch, 4, 6)", "Tensor<f32>(batch, 8, 12)"],
    );
}

#[test]
fn a_model_that_shows_another_shape_only_when_run_is_refused_at_load() {
    // It leaves black pictures out, so how many maps come cannot be told from the file.
    let nodes = [
        node("Cast", "image", "real", &[("to", &[F32])]),
        node("Transpose", "real", "planes", &[("perm", &[0, 3, 1, 2])]),
        node("ReduceMean", "planes", "mean", &[("axes", &[1, 2, 3]), ("keepdims", &[0])]),
        node("Cast", "mean", "lit", &[("to", &[BOOL])]),
        node("Compress", "planes lit", "kept", &[("axis", &[0])]),
        node("AveragePool", "kept", "p4", &[("kernel_shape", &[4, 4]), ("strides", &[4, 4])]),
        node("AveragePool", "kept", "p8", &[("kernel_shape", &[8, 8]), ("strides", &[8, 8])]),
        node("ReduceMean", "p4", "ll4", &[("axes", &[1]), ("keepdims", &[0])]),
        node("ReduceMean", "p8", "ll8", &[("axes", &[1]), ("keepdims", &[0])]),
    ];
    let outputs = ["ll4", "ll8"].map(|name| tensor(name, F32, &[Open("kept"), Open("row"), Open("column")]));
    let model = onnx::model(&nodes, &[Draft::default().input], &outputs, &NAME);
    assert_says(&refusal(&model), &["output `ll4`", "[1, 8, 12]", "[0, 8, 12]"]);
}

#[test]
fn a_model_of_another_bundle_is_refused_by_its_metadata() {
    let with = |metadata: &[_]| Draft { metadata: metadata.to_vec(), ..Draft::default() }.bytes("image");
    assert_says(&refusal(&with(&[("linegate.bundle", "tiles"), NAME[1]])), &["linegate.bundle", "`cells`", "`tiles`"]);
    assert_says(&refusal(&with(&[NAME[0], ("linegate.version", "6")])), &["linegate.version", "`7`", "`6`"]);
    assert_says(&refusal(&with(&[NAME[0]])), &["linegate.version", "`7`", "nothing"]);
}

#[test]
fn a_damaged_model_is_an_error_and_not_a_crash() {
    let whole = Draft::default().bytes("image");
    for damaged in [&whole[..whole.len() / 2], b"no model at all".as_slice(), b"".as_slice()] {
        assert_says(&refusal(damaged), &["model.onnx", "damaged"]);
    }
    let folder = tempfile::tempdir().unwrap();
    let bundle = bundle(folder.path(), &whole, manifest());
    std::fs::remove_file(bundle.model_path()).unwrap();
    let error = Model::load(&bundle, &SessionOptions::default()).unwrap_err();
    assert_says(&message(&error), &["model.onnx", "cannot be read", "No such file"]);
}

#[test]
fn the_file_for_processors_is_taken_where_the_manifest_lists_it_and_nowhere_else() {
    let folder = tempfile::tempdir().unwrap();
    let whole = Draft::default().bytes("image");
    let without = bundle(folder.path(), &whole, manifest());
    // Nobody vouches for what was put beside.
    std::fs::write(without.path.join(PROCESSOR_MODEL_FILE), b"no model at all").unwrap();
    let model = Model::load(&Bundle::open(&without.path).unwrap(), &SessionOptions::default()).unwrap();
    assert_eq!(model.path(), without.model_path());

    let writer = BundleWriter::new(&folder.path().join("both")).unwrap();
    for name in [MODEL_FILE, PROCESSOR_MODEL_FILE] {
        std::fs::write(writer.path().join(name), &whole).unwrap();
    }
    let both = writer.commit(manifest()).unwrap();
    let model = Model::load(&both, &SessionOptions::default()).unwrap();
    assert_eq!(Some(model.path().to_owned()), both.processor_model_path());
    std::fs::write(both.path.join(PROCESSOR_MODEL_FILE), b"no model at all").unwrap();
    assert_says(&message(&Bundle::open(&both.path).unwrap_err()), &[PROCESSOR_MODEL_FILE]);
    let error = Model::load(&both, &SessionOptions::default()).unwrap_err();
    assert_says(&message(&error), &[PROCESSOR_MODEL_FILE, "damaged"]);
}

#[test]
fn a_required_provider_that_is_missing_stops_the_start_by_name() {
    // deploy/setup.sh fetches the build for processors, whatever the machine.
    for provider in [Provider::Cuda, Provider::Tensorrt, Provider::Openvino] {
        let options = SessionOptions {
            providers: vec![provider, Provider::Cpu],
            required: true,
            threads: 1,
            ..SessionOptions::default()
        };
        let error = load(&Draft::default().bytes("image"), &options).expect_err("the provider should be missing");
        assert!(matches!(error, ScoringError::ProviderUnavailable { provider: named, .. } if named == provider));
        assert_says(&message(&error), &["model.onnx", provider.as_str(), "required"]);
    }
    let options =
        SessionOptions { providers: vec![Provider::Cpu], required: true, threads: 1, ..SessionOptions::default() };
    assert_eq!(load(&Draft::default().bytes("image"), &options).unwrap().provider(), Provider::Cpu);
}

/// Cores of the calling thread, and how many threads of this process have a single one, as the kernel says.
fn bound() -> (String, usize) {
    let cores = |status: &Path| {
        let text = std::fs::read_to_string(status).ok()?;
        text.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).map(|cores| cores.trim().to_owned())
    };
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let all = tasks.filter_map(|entry| cores(&entry.unwrap().path().join("status")));
    (cores(Path::new("/proc/thread-self/status")).unwrap(), all.filter(|cores| cores.parse::<usize>().is_ok()).count())
}

#[test]
fn a_pinned_sessions_threads_have_a_core_each_and_it_says_what_others_say() {
    let bytes = Draft::default().bytes("image");
    let mut usual = load(&bytes, &SessionOptions::on_processor(2)).unwrap();
    std::thread::spawn(move || {
        let (whole, _) = bound();
        let one_core = whole.parse::<usize>().is_ok();
        let pinned = SessionOptions { pinned: true, ..SessionOptions::on_processor(2) };
        let mut model = load(&bytes, &pinned).unwrap();
        // Whoever loads it stays where it was; the thread that ONNX Runtime made is on its core.
        assert!(one_core || bound() == (whole, 1), "{:?}", bound());
        model.bind_thread();
        assert!(bound().0.parse::<usize>().is_ok());
        let picture = spotted(1, [1; 3]);
        assert_eq!(model.score(&[&picture]).unwrap(), usual.score(&[&picture]).unwrap());
        let unbound = load(&bytes, &SessionOptions::on_processor(1)).unwrap();
        let single = bound().0;
        unbound.bind_thread();
        assert_eq!(bound().0, single, "a session that is not to be bound moves nobody");
    })
    .join()
    .unwrap();
}

#[test]
fn a_folder_for_engines_that_cannot_be_made_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, b"").unwrap();
    let with = |place: PathBuf| SessionOptions { engine_cache: Some(place), ..SessionOptions::default() };
    let error = load(&Draft::default().bytes("image"), &with(file.join("engines"))).unwrap_err();
    assert_says(&message(&error), &["file/engines", "model.engine_cache"]);
    let made = folder.path().join("some/engines");
    load(&Draft::default().bytes("image"), &with(made.clone())).unwrap();
    assert!(made.is_dir());
}

#[test]
fn a_wished_provider_that_is_missing_is_replaced_and_the_log_says_so() {
    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);
    impl Write for Log {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
    let options = SessionOptions {
        providers: vec![Provider::Tensorrt, Provider::Cuda],
        required: false,
        threads: 1,
        ..SessionOptions::default()
    };
    let mut model =
        tracing::subscriber::with_default(subscriber, || load(&Draft::default().bytes("image"), &options).unwrap());
    assert_eq!(model.provider(), Provider::Cpu);
    assert_eq!(model.score(&[&spotted(1, [1; 3])]).unwrap().len(), 1);
    let log = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    for provider in ["provider=tensorrt", "provider=cuda"] {
        let line = log.lines().find(|line| line.contains("WARN") && line.contains(provider));
        assert!(line.is_some_and(|line| line.contains("cannot be had")), "{log}");
    }
}

#[test]
fn the_runtime_is_loaded_once_and_later_calls_are_harmless() {
    initialise(None).unwrap();
    let first = library().expect("the library should be known").to_owned();
    initialise(None).unwrap();
    initialise(Some(&first)).unwrap();
    assert_eq!(library().unwrap(), first);
    let error = initialise(Some(Path::new("/nowhere/libonnxruntime.so"))).unwrap_err().to_string();
    assert_says(&error, &["/nowhere/libonnxruntime.so", "deploy/setup.sh", LIBRARY_VARIABLE]);
}

/// A backbone whose maps are the means of the strides' squares, per channel.
fn backbone(folder: &Path, layout: &str, batch: Dim, strides: &[u64]) -> PathBuf {
    let last = layout == "NHWC";
    let axes =
        |channel| if last { [batch, Open("h"), Open("w"), channel] } else { [batch, channel, Open("h"), Open("w")] };
    let mut nodes = vec![if last {
        node("Transpose", "x", "planes", &[("perm", &[0, 3, 1, 2])])
    } else {
        node("Identity", "x", "planes", &[])
    }];
    for stride in strides {
        let square = [*stride, *stride];
        let (pooled, name) = (format!("p{stride}"), format!("f{stride}"));
        nodes.push(node("AveragePool", "planes", &pooled, &[("kernel_shape", &square), ("strides", &square)]));
        nodes.push(if last {
            node("Transpose", &pooled, &name, &[("perm", &[0, 2, 3, 1])])
        } else {
            node("Identity", &pooled, &name, &[])
        });
    }
    // A head that is no map, as whole networks have one.
    nodes.push(node("ReduceMean", "planes", "head", &[("axes", &[2, 3]), ("keepdims", &[0])]));
    let mut outputs: Vec<_> =
        strides.iter().map(|stride| tensor(&format!("f{stride}"), F32, &axes(Open("c")))).collect();
    outputs.push(tensor("head", F32, &[batch, Open("c")]));
    let path = folder.join("backbone.onnx");
    std::fs::write(&path, onnx::model(&nodes, &[tensor("x", F32, &axes(Fixed(3)))], &outputs, &[])).unwrap();
    path
}

fn describe(path: &Path, layout: &str, color: &str, outputs: &str, change: (&str, &str)) {
    let text = format!(
        "name = \"means\"\ninput = \"x\"\noutputs = {outputs}\ncolor = \"{color}\"\nlayout = \"{layout}\"\nmean = [10, 20, 30.5]\ndeviation = [2, 4, 8.0]\n"
    );
    std::fs::write(path.with_extension("toml"), text.replace(change.0, change.1)).unwrap();
}

fn extractor(path: &Path) -> Result<FeatureExtractor, ScoringError> {
    FeatureExtractor::load(path, SIZE, &SessionOptions { threads: 1, ..SessionOptions::default() })
}

#[test]
fn features_are_normalised_and_laid_out_alike_for_every_kind_of_backbone() {
    for (layout, color) in [("NCHW", "RGB"), ("NCHW", "BGR"), ("NHWC", "RGB"), ("NHWC", "BGR")] {
        for batch in [Open("n"), Fixed(1)] {
            let folder = tempfile::tempdir().unwrap();
            let path = backbone(folder.path(), layout, batch, &[4, 8]);
            describe(&path, layout, color, r#"["f4", "f8"]"#, ("", ""));
            let mut extractor = extractor(&path).unwrap();
            assert_eq!(extractor.levels(), [(3, 4), (3, 8)]);
            assert_eq!((extractor.path(), extractor.spec().name.as_str()), (path.as_path(), "means"));
            let pictures = [spotted(10, [30, 60, 90]), spotted(100, [0, 4, 8])];
            let features = extractor.extract(&pictures.each_ref()).unwrap();
            assert_eq!(features.len(), 2);
            for (levels, (ground, spot)) in
                features.iter().zip([([10.0; 3], [30.0, 60.0, 90.0]), ([100.0; 3], [0.0, 4.0, 8.0])])
            {
                assert_eq!((levels[0].dim(), levels[1].dim()), ((8, 12, 3), (4, 6, 3)));
                for ((row, column, channel), &value) in levels[1].indexed_iter() {
                    let pixel: [f32; 3] = if (row, column) == (2, 1) { spot } else { ground };
                    let pixel = pixel[if color == "RGB" { channel } else { 2 - channel }];
                    let expected = (pixel - [10.0, 20.0, 30.5][channel]) / [2.0, 4.0, 8.0][channel];
                    assert!((value - expected).abs() < 1e-4, "{layout} {color}: {value}, not {expected}");
                }
            }
        }
    }
}

#[test]
fn a_picture_that_does_not_fit_the_backbone_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let path = backbone(folder.path(), "NCHW", Open("n"), &[4]);
    describe(&path, "NCHW", "RGB", r#"["f4"]"#, ("", ""));
    let mut extractor = extractor(&path).unwrap();
    let odd = picture(Size { width: 16, height: 16 }, |_, _| [0; 3]);
    // In a thread of its own, as training runs it.
    let run = || extractor.extract(&[&spotted(0, [0; 3]), &odd]).unwrap_err().to_string();
    let error = std::thread::scope(|scope| scope.spawn(run).join().unwrap());
    assert_says(&error, &["picture 1", "16x16", "48x32"]);
    assert!(extractor.extract(&[]).unwrap().is_empty());
}

#[test]
fn a_wrong_description_is_refused_with_what_is_wrong_in_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = backbone(folder.path(), "NCHW", Open("n"), &[4, 8]);
    let refusal = || message(&extractor(&path).expect_err("the backbone should be refused"));
    assert_says(&refusal(), &["backbone.toml", "same name beside it"]);
    let cases: [(&str, (&str, &str), &[&str]); 15] = [
        (r#"["f4"]"#, ("name", "nome"), &["backbone.toml", "unknown field `nome`", "line 1"]),
        (r#"["f4"]"#, ("mean = [10, 20, 30.5]\n", ""), &["missing field `mean`"]),
        (r#"["f4"]"#, ("RGB", "GRB"), &["`GRB`", "`BGR`"]),
        (r#"["f4"]"#, ("[10, 20, 30.5]", "[10, 20]"), &["backbone.toml", "array of length 3"]),
        (r#"["f4"]"#, ("[2, 4, 8.0]", "[2, 0, 8]"), &["`deviation`", "above 0", "[2.0, 0.0, 8.0]"]),
        (r#"["f4"]"#, ("[10, 20, 30.5]", "[10, nan, 1]"), &["`mean`", "NaN"]),
        ("[]", ("", ""), &["`outputs`", "names of the feature maps"]),
        (r#"["f4", ""]"#, ("", ""), &["`outputs`", "names of the feature maps"]),
        (r#"["f4", "f4"]"#, ("", ""), &["`outputs`", "different names"]),
        (r#"["f4"]"#, ("\"x\"", "\"data\""), &["only input", "`data`", "`x`"]),
        (r#"["f4", "f16"]"#, ("", ""), &["`f16`", "`f4`, `f8`, `head`"]),
        (r#"["f4", "head"]"#, ("", ""), &["output `head`", "(batch, channel, row, column)", "Tensor<f32>(n, 3)"]),
        (r#"["f8", "f4"]"#, ("", ""), &["finest level", "[8, 4]"]),
        (r#"["f4"]"#, ("NCHW", "NHWC"), &["input `x`", "(batch, 32, 48, 3)", "(n, 3, h, w)"]),
        (r#"["f4"]"#, ("\"x\"", "\"\""), &["`input`", "an empty text"]),
    ];
    for (outputs, change, parts) in cases {
        describe(&path, "NCHW", "RGB", outputs, change);
        assert_says(&refusal(), parts);
    }
}

#[test]
fn a_backbone_that_cannot_be_one_is_refused_with_what_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let refusal = |batch, stride: u64| {
        let path = backbone(folder.path(), "NCHW", batch, &[stride]);
        describe(&path, "NCHW", "RGB", &format!("[\"f{stride}\"]"), ("", ""));
        message(&extractor(&path).expect_err("the backbone should be refused"))
    };
    assert_says(&refusal(Open("n"), 5), &["output `f5`", "stride that divides 48x32", "9x6 cells"]);
    assert_says(&refusal(Fixed(4), 8), &["batch axis", "open or 1", "found 4"]);
    let path = backbone(folder.path(), "NCHW", Open("n"), &[4]);
    describe(&path, "NCHW", "RGB", r#"["f4"]"#, ("", ""));
    std::fs::write(&path, b"torn").unwrap();
    assert_says(&message(&extractor(&path).unwrap_err()), &["backbone.onnx", "damaged"]);
}

/// The backbone that set-up puts beside ONNX Runtime.
fn reference_backbone() -> PathBuf {
    let path = crate::support::root().join(".runtime/efficientnet_lite0.onnx");
    assert!(path.is_file(), "{} is missing: run deploy/setup.sh", path.display());
    path
}

#[test]
fn the_reference_backbone_has_its_three_levels_at_square_and_oblong_sizes() {
    for size in [Size { width: 256, height: 256 }, Size { width: 160, height: 96 }] {
        let mut extractor = FeatureExtractor::load(&reference_backbone(), size, &SessionOptions::default()).unwrap();
        assert_eq!(extractor.levels(), [(24, 4), (40, 8), (112, 16)]);
        let textured = picture(size, |x, y| [(x * 5) as u8, (y * 3) as u8, (x * y) as u8]);
        let flat = picture(size, |_, _| [127; 3]);
        let together = extractor.extract(&[&textured, &flat]).unwrap();
        for (picture, levels) in [&textured, &flat].into_iter().zip(&together) {
            let alone = extractor.extract(&[picture]).unwrap().remove(0);
            for ((alone, level), &(channels, stride)) in alone.iter().zip(levels).zip(extractor.levels()) {
                assert_eq!(level.dim(), (size.height / stride, size.width / stride, channels));
                let scale = level.iter().fold(1.0f32, |most, value| most.max(value.abs()));
                assert!(alone.iter().zip(level).all(|(a, b)| (a - b).abs() <= 1e-4 * scale));
            }
        }
        let differ =
            together[0].iter().zip(&together[1]).all(|(a, b)| a.iter().zip(b).any(|(a, b)| (a - b).abs() > 0.1));
        assert!(differ, "a textured and a flat picture have the same features");
    }
}

#[test]
fn the_reference_backbones_description_survives_writing_and_reading() {
    let spec = BackboneSpec::beside(&reference_backbone()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let onnx = folder.path().join("copy.onnx");
    std::fs::write(BackboneSpec::path_beside(&onnx), toml::to_string(&spec).unwrap()).unwrap();
    assert_eq!(BackboneSpec::beside(&onnx).unwrap(), spec);
}
