//! Whole evaluations: a real bundle whose log-likelihood is the brightness of a cell, on pictures
//! whose defects are dark.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use image::{GrayImage, Luma, RgbImage};
use linegate::bundle::{
    BUNDLE_SCHEMA_VERSION, Bundle, BundleWriter, Calibration, CalibrationSet, Evidence, ImageBoundary, LevelShape,
    MODEL_FILE, Manifest, Preprocessing, Provenance, UsedDefect, sha256_file,
};
use linegate::inspection::{AnomalyMap, LogLikelihoodMaps, Mask, Size, Verdict};
use linegate::training::dataset::{Dataset, Label};
use linegate::training::evaluation::{
    Case, Evaluation, EvaluationError, EvaluationOptions, Exclusion, METRICS_FILE, PAGE_FILE, Tally, evaluate, measure,
    write_report,
};
use ndarray::Array2;

use crate::support::calibrated_level;
use crate::support::onnx::{self, Dim, F32, U8, node, tensor};

const SIZE: Size = Size { width: 48, height: 32 };
/// Pictures are larger than the model: evaluation has to fit them, and their masks.
const FULL: (u32, u32) = (96, 64);
const STRIDES: [u64; 2] = [4, 8];

fn model() -> Vec<u8> {
    let mut nodes = vec![
        node("Cast", "image", "real", &[("to", &[F32])]),
        node("Transpose", "real", "planes", &[("perm", &[0, 3, 1, 2])]),
    ];
    for stride in STRIDES {
        let pooled = format!("pooled{stride}");
        let square = [stride, stride];
        nodes.push(node("AveragePool", "planes", &pooled, &[("kernel_shape", &square), ("strides", &square)]));
        nodes.push(node("ReduceMean", &pooled, &format!("ll{stride}"), &[("axes", &[1]), ("keepdims", &[0])]));
    }
    let input = [Dim::Open("batch"), Dim::Fixed(SIZE.height), Dim::Fixed(SIZE.width), Dim::Fixed(3)];
    let map = [Dim::Open("batch"), Dim::Open("row"), Dim::Open("column")];
    let outputs = STRIDES.map(|stride| tensor(&format!("ll{stride}"), F32, &map));
    let metadata = [("linegate.bundle", "plate"), ("linegate.version", "1")];
    onnx::model(&nodes, &[tensor("image", U8, &input)], &outputs, &metadata)
}

fn manifest(known_defects: Vec<UsedDefect>) -> Manifest {
    let calibrated = calibrated_level(200.0, 10.0, 0.5);
    Manifest {
        schema_version: BUNDLE_SCHEMA_VERSION,
        name: "plate".into(),
        version: "1".into(),
        preprocessing: Preprocessing { size: SIZE, region_of_interest: None },
        levels: STRIDES
            .map(|stride| LevelShape {
                output: format!("ll{stride}"),
                stride: stride as usize,
                rows: SIZE.height / stride as usize,
                columns: SIZE.width / stride as usize,
            })
            .to_vec(),
        calibration: Calibration {
            levels: vec![calibrated; 2],
            evidence: Evidence::Deviations,
            strongest: 0.0,
            smoothing_sigma: 0.0,
            minimum_area: 2,
            merging: 0,
            image: ImageBoundary { normal: 1.0, abnormal: 3.0, suspect_rate: 0.05, false_reject_rate: 0.01 },
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
            known_defects,
            normals: vec!["train/good/0.png".into(), "test/good/seen.png".into()],
            export_difference: 0.0,
            phases: Vec::new(),
            started_from: None,
            fitted_before: Vec::new(),
            peak_memory_mib: 1.0,
        },
        files: BTreeMap::new(),
    }
}

/// A folder with a data set and, when asked for, a bundle.
struct Plates {
    folder: tempfile::TempDir,
}

/// A dark square on a plate, in pixels of the full picture: side and how much darker.
#[derive(Clone, Copy)]
struct Spot {
    x: u32,
    y: u32,
    side: u32,
    depth: u8,
}

impl Spot {
    fn covers(self, x: u32, y: u32) -> bool {
        (self.x..self.x + self.side).contains(&x) && (self.y..self.y + self.side).contains(&y)
    }
}

impl Plates {
    /// Four good plates; two scratches with masks, one dent with a mask, one dent without.
    fn new() -> Self {
        let plates = Self { folder: tempfile::tempdir().unwrap() };
        for index in 0..4 {
            plates.picture(&format!("test/good/{index}.png"), index, None);
        }
        let spot = |x, depth| Some(Spot { x, y: 16, side: 16, depth });
        plates.picture("test/scratch/0.png", 5, spot(16, 120));
        plates.picture("test/scratch/1.png", 6, spot(48, 90));
        plates.picture("test/dent/0.png", 7, spot(64, 60));
        plates.picture("test/dent/1.png", 8, spot(32, 70));
        for (name, x) in [("scratch/0", 16), ("scratch/1", 48), ("dent/0", 64)] {
            plates.mask(name, Spot { x, y: 16, side: 16, depth: 0 });
        }
        plates
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// A plate of brightness 200 with a pattern of its own, so that no two files are equal.
    fn picture(&self, name: &str, seed: u32, spot: Option<Spot>) {
        let path = self.data().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        let picture = RgbImage::from_fn(FULL.0, FULL.1, |x, y| {
            let grain = ((x * 31 + y * 17 + seed * 7919) % 5) as u8;
            let dark = spot.filter(|spot| spot.covers(x, y)).map_or(0, |spot| spot.depth);
            image::Rgb([198 + grain - dark; 3])
        });
        picture.save(path).unwrap();
    }

    fn mask(&self, name: &str, spot: Spot) {
        let path = self.data().join("ground_truth").join(format!("{name}_mask.png"));
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        GrayImage::from_fn(FULL.0, FULL.1, |x, y| Luma([if spot.covers(x, y) { 255 } else { 0 }])).save(path).unwrap();
    }

    fn bundle(&self, known_defects: Vec<UsedDefect>) -> Bundle {
        let writer = BundleWriter::new(&self.folder.path().join("bundle")).unwrap();
        std::fs::write(writer.path().join(MODEL_FILE), model()).unwrap();
        writer.commit(manifest(known_defects)).unwrap()
    }

    fn used(&self, name: &str, group: Option<&str>) -> UsedDefect {
        UsedDefect {
            // Elsewhere and under another name: the content counts.
            path: "train/elsewhere/renamed.png".into(),
            sha256: sha256_file(&self.data().join(name)).unwrap(),
            defect_type: "any".into(),
            group: group.map(str::to_owned),
            weak: false,
        }
    }

    fn evaluate(&self, known_defects: Vec<UsedDefect>) -> Result<Evaluation, EvaluationError> {
        let dataset = Dataset::open(&self.data(), None).unwrap();
        evaluate(&self.bundle(known_defects), &dataset, EvaluationOptions::default())
    }
}

#[test]
fn a_bundle_is_measured_on_the_whole_test_set() {
    let plates = Plates::new();
    let evaluation = plates.evaluate(Vec::new()).unwrap();
    assert_eq!((evaluation.counts.good, evaluation.counts.defective, evaluation.counts.without_mask), (4, 4, 1));
    assert_eq!(evaluation.counts.regions, 3);
    assert_eq!(evaluation.figures.image_auroc, 1.0);
    let pixel_auroc = evaluation.figures.pixel_auroc.unwrap();
    assert!(pixel_auroc > 0.99, "{pixel_auroc}");
    assert!(evaluation.figures.aupro.unwrap() > 0.97 && evaluation.figures.pixel_ap.unwrap() > 0.9);
    assert_eq!(evaluation.at_boundary.confusion.good, Tally { accept: 4, suspect: 0, reject: 0 });
    assert_eq!(evaluation.at_boundary.confusion.defective, Tally { accept: 0, suspect: 0, reject: 4 });
    assert_eq!(evaluation.per_defect.keys().collect::<Vec<_>>(), ["dent", "scratch"]);
    assert_eq!((evaluation.per_defect["dent"].images, evaluation.per_defect["dent"].with_mask), (2, 1));
    let dent = evaluation.images.iter().find(|image| image.name == "test/dent/0.png").unwrap();
    // The fine level gives 0.5 * 6; the coarse one, a single cell enlarged, 0.75 * 0.75 of that;
    // scaling blurs the edge a little.
    assert!((4.2..4.7).contains(&dent.score), "{}", dent.score);
    assert!(evaluation.cost.wall_ms_per_image > 0.0);
}

#[test]
fn known_defects_are_left_out_by_content_and_training_normals_by_name() {
    let plates = Plates::new();
    plates.picture("test/good/seen.png", 9, None);
    let evaluation = plates.evaluate(vec![plates.used("test/dent/0.png", None)]).unwrap();
    let excluded: Vec<_> = evaluation.excluded.iter().map(|e| (e.name.as_str(), e.reason)).collect();
    assert_eq!(
        excluded,
        [("test/dent/0.png", Exclusion::KnownDefect), ("test/good/seen.png", Exclusion::TrainingNormal)]
    );
    assert_eq!((evaluation.counts.good, evaluation.counts.defective), (4, 3));
    // The only dent with a mask is gone: the type has no pixel metrics, and says why.
    let dent = &evaluation.per_defect["dent"].figures;
    assert_eq!(dent.pixel_auroc, None);
    assert!(dent.no_pixel_metrics.as_ref().unwrap().contains("dent"));
    assert!(evaluation.figures.pixel_auroc.is_some());
}

#[test]
fn the_groups_of_known_defects_are_left_out_whole() {
    let plates = Plates::new();
    let groups = plates.folder.path().join("groups.csv");
    let lines = [
        "file,group",
        "test/scratch/0.png,a",
        "test/scratch/1.png,a",
        "test/good/0.png,a",
        "test/dent/0.png,b",
        "test/dent/1.png,c",
    ]
    .into_iter()
    .map(str::to_owned)
    .chain((1..4).map(|i| format!("test/good/{i}.png,g")));
    std::fs::write(&groups, lines.collect::<Vec<_>>().join("\n")).unwrap();
    let dataset = Dataset::open(&plates.data(), Some(&groups)).unwrap();
    let bundle = plates.bundle(vec![plates.used("test/scratch/0.png", None)]);
    let evaluation = evaluate(&bundle, &dataset, EvaluationOptions::default()).unwrap();
    let excluded: Vec<_> = evaluation.excluded.iter().map(|e| (e.name.as_str(), e.reason)).collect();
    let group = Exclusion::GroupOfKnownDefect;
    assert_eq!(
        excluded,
        [("test/good/0.png", group), ("test/scratch/0.png", Exclusion::KnownDefect), ("test/scratch/1.png", group)]
    );
    assert!(evaluation.warnings.iter().any(|w| w.contains("independent")), "{:?}", evaluation.warnings);
}

#[test]
fn a_bundle_trained_with_groups_warns_when_evaluated_without() {
    let plates = Plates::new();
    let evaluation = plates.evaluate(vec![plates.used("test/scratch/0.png", Some("a"))]).unwrap();
    assert!(evaluation.warnings.iter().any(|w| w.contains("--groups")), "{:?}", evaluation.warnings);
}

#[test]
fn without_any_mask_there_are_image_metrics_and_a_reason() {
    let plates = Plates::new();
    std::fs::remove_dir_all(plates.data().join("ground_truth")).unwrap();
    let evaluation = plates.evaluate(Vec::new()).unwrap();
    assert_eq!((evaluation.figures.image_auroc, evaluation.figures.pixel_ap), (1.0, None));
    assert!(evaluation.figures.no_pixel_metrics.unwrap().contains("mask"));
    assert_eq!(evaluation.authors_score.pixel_auroc, None);
}

#[test]
fn a_test_set_of_one_class_is_an_error_that_names_the_metric() {
    for (folders, missing) in [(["scratch", "dent"].as_slice(), "abnormal"), (["good"].as_slice(), "normal")] {
        let plates = Plates::new();
        for folder in folders {
            std::fs::remove_dir_all(plates.data().join("test").join(folder)).unwrap();
        }
        if missing == "abnormal" {
            std::fs::remove_dir_all(plates.data().join("ground_truth")).unwrap();
        }
        let error = anyhow::Error::from(plates.evaluate(Vec::new()).unwrap_err());
        let text = format!("{error:#}");
        assert!(text.contains("image_auroc is undefined") && text.contains(missing), "{text}");
    }
}

fn case(label: &str, log_likelihood: f32) -> Case {
    Case {
        label: if label == "good" { Label::Good } else { Label::Defect(label.into()) },
        score: -log_likelihood,
        verdict: Verdict::Suspect,
        maps: LogLikelihoodMaps { levels: vec![Array2::from_elem((2, 2), log_likelihood)] },
        fused: AnomalyMap(Array2::from_elem((2, 2), -log_likelihood)),
        mask: None,
    }
}

#[test]
fn the_authors_score_loses_what_underflows_and_ours_does_not() {
    let size = Size { width: 8, height: 8 };
    // e^-200 and e^-300 are both 0 in single precision: the worst picture ties with the defect.
    let cases = [case("good", 0.0), case("good", -300.0), case("good", -1.0), case("hole", -200.0)];
    let boundary = manifest(Vec::new()).calibration.image;
    let measured = measure(&cases, size, &boundary).unwrap();
    assert!((measured.figures.image_auroc - 2.0 / 3.0).abs() < 1e-12);
    assert!((measured.authors.image_auroc - 2.5 / 3.0).abs() < 1e-12, "{:?}", measured.authors);
}

#[test]
fn suspects_are_neither_false_rejects_nor_escapes() {
    let mut cases = vec![case("good", 0.0), case("good", 0.0), case("hole", -2.0), case("hole", -3.0)];
    for (case, verdict) in cases.iter_mut().zip([Verdict::Suspect, Verdict::Reject, Verdict::Suspect, Verdict::Accept])
    {
        case.verdict = verdict;
    }
    cases[2].mask = Some(Mask::from_flags(SIZE, vec![true; SIZE.width * SIZE.height]).unwrap());
    let at = measure(&cases, SIZE, &manifest(Vec::new()).calibration.image).unwrap().at_boundary;
    assert_eq!((at.false_reject_rate, at.escape_rate, at.suspects, at.counts), (0.5, 0.5, 2, 4));
    assert!(at.escape_interval[0] > 0.01 && at.escape_interval[0] < 0.02, "{:?}", at.escape_interval);
}

#[test]
fn the_report_needs_nothing_from_outside_and_escapes_names() {
    let plates = Plates::new();
    plates.picture("test/a<b>&c/0.png", 11, Some(Spot { x: 8, y: 8, side: 12, depth: 8 }));
    let dataset = Dataset::open(&plates.data(), None).unwrap();
    let bundle = plates.bundle(Vec::new());
    let evaluation = evaluate(&bundle, &dataset, EvaluationOptions::default()).unwrap();
    let folder = plates.folder.path().join("out/report");
    write_report(&evaluation, &bundle.manifest, &dataset, &folder).unwrap();

    let page = std::fs::read_to_string(folder.join(PAGE_FILE)).unwrap();
    for outside in ["http://", "https://", "<script", "url(", "<link"] {
        assert!(!page.contains(outside), "the page refers to {outside}");
    }
    assert!(page.contains("a&lt;b&gt;&amp;c") && !page.contains("a<b>"));
    assert!(page.contains("normal boundary") && page.contains("Per-region overlap"));
    assert!(!page.contains("NaN"));
    // The weakest defect leads the misses; each case shows picture, map and, where there is one, mask.
    let misses = page.split_once("Worst misses").unwrap().1;
    assert!(misses.find("a&lt;b&gt;").unwrap() < misses.find("test/dent/0.png").unwrap());
    assert_eq!(page.matches("<div class=\"case\"").count(), 5 + 4);
    assert_eq!(page.matches("data:image/png;base64,").count(), 2 * 9 + 3);

    let metrics = std::fs::read(folder.join(METRICS_FILE)).unwrap();
    let back: Evaluation = serde_json::from_slice(&metrics).unwrap();
    assert_eq!((back.figures, back.at_boundary), (evaluation.figures, evaluation.at_boundary));
}

fn linegate(arguments: &[&Path]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_linegate")).args(arguments).output().unwrap()
}

#[test]
fn the_command_prints_json_with_the_promised_keys() {
    let plates = Plates::new();
    let bundle = plates.bundle(vec![plates.used("test/dent/0.png", None)]);
    let flag = Path::new;
    let data = plates.data();
    let call = [flag("evaluate"), flag("--bundle"), &bundle.path, flag("--data"), &data];
    let output = linegate(&[call.as_slice(), &[flag("--json")]].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    for key in ["image_auroc", "pixel_auroc", "aupro", "pixel_ap", "per_defect", "at_boundary", "excluded"] {
        assert!(!json[key].is_null(), "{key} is missing");
    }
    assert_eq!(json["excluded"][0]["reason"], "known_defect");
    for key in ["image_auroc", "pixel_auroc", "aupro", "pixel_ap"] {
        assert!(json["per_defect"]["scratch"][key].is_f64(), "{key} of scratch is missing");
    }
    for key in ["false_reject_rate", "false_reject_interval", "escape_rate", "escape_interval", "confusion"] {
        assert!(!json["at_boundary"][key].is_null(), "{key} is missing");
    }

    let table = linegate(&call);
    let text = String::from_utf8(table.stdout).unwrap();
    assert!(text.contains("scratch") && text.contains("escapes") && text.contains("1 left out"), "{text}");
}

#[test]
fn an_unreadable_picture_is_not_inspected_and_the_others_still_are() {
    let plates = Plates::new();
    let bundle = plates.bundle(Vec::new());
    let torn = plates.folder.path().join("torn.png");
    std::fs::write(&torn, b"no picture").unwrap();
    let (good, dent) = (plates.data().join("test/good/0.png"), plates.data().join("test/dent/0.png"));
    let heatmaps = plates.folder.path().join("heatmaps");
    let flag = Path::new;
    let call = [flag("score"), flag("--bundle"), &bundle.path, flag("--json"), flag("--heatmap"), &heatmaps];
    let output = linegate(&[call.as_slice(), &[&torn, &good, &dent]].concat());
    assert_eq!(output.status.code(), Some(1));
    let lines: Vec<serde_json::Value> =
        String::from_utf8(output.stdout).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let verdicts: Vec<_> = lines.iter().map(|line| line["verdict"].as_str().unwrap()).collect();
    assert_eq!(verdicts, ["not_inspected", "accept", "reject"]);
    assert!(lines[0]["problem"].as_str().unwrap().contains("torn.png") && lines[0]["image_score"].is_null());
    // The dent lies at 64..80 x 16..32 of 96x64 pixels; cells are 8 pixels there.
    let bounds = &lines[2]["regions"][0]["box"];
    let edge = |key: &str| bounds[key].as_i64().unwrap();
    assert!((edge("x") - 64).abs() <= 16 && (edge("y") - 16).abs() <= 16, "{bounds}");
    let drawn = image::open(heatmaps.join("0_2_heatmap.png")).unwrap();
    assert_eq!((drawn.width(), drawn.height()), FULL, "the second picture named 0.png has a file of its own");

    let fine = linegate(&[flag("score"), flag("--bundle"), &bundle.path, &good]);
    assert_eq!(fine.status.code(), Some(0));
    assert!(String::from_utf8(fine.stdout).unwrap().contains("accept"));
}
