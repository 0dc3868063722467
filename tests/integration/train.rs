//! Training from pictures on disk to a verified bundle, with the real backbone.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use linegate::bundle::{Bundle, FLOWS_FILE, MODEL_FILE, sha256_file};
use linegate::config::Preset;
use linegate::inspection::{Size, Verdict};
use linegate::training::dataset::Dataset;
use linegate::training::evaluation::{EvaluationOptions, evaluate};
use linegate::training::fit::FitError;
use linegate::training::settings::Settings;
use linegate::training::{Progress, Silent, TrainError, TrainOptions, train};

use crate::support::parts::{PartSet, backbone};

pub(crate) fn options(data: &Path, out: PathBuf) -> TrainOptions {
    TrainOptions {
        data: data.to_owned(),
        groups: None,
        out,
        backbone: backbone(),
        name: None,
        from: None,
        settings: Settings {
            size: Size { width: 64, height: 64 },
            seed: 5,
            threads: 2,
            steps: Some(40),
            batch_pixels: 256,
            abnormal_pixels: 64,
            beside_pixels: 32,
            hidden_width: Some(48),
            synthesised: 16,
            ..Settings::preset(Preset::Fast)
        },
    }
}

/// Stops the training as soon as the fit has begun.
struct StopAtFit<'a>(&'a AtomicBool);

impl Progress for StopAtFit<'_> {
    fn phase(&self, name: &str, _total: u64) {
        if name.contains("flows") {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    fn advance(&self, _done: u64, _note: &str) {}
    fn warn(&self, _text: &str) {}
}

/// Keeps what a person must know.
#[derive(Default)]
struct Warnings(Mutex<Vec<String>>);

impl Progress for Warnings {
    fn phase(&self, _name: &str, _total: u64) {}
    fn advance(&self, _done: u64, _note: &str) {}
    fn warn(&self, text: &str) {
        self.0.lock().unwrap().push(text.to_owned());
    }
}

/// Log-likelihoods of all levels of some pictures.
/// Those of the levels whose numbers are given.
fn log_likelihoods(bundle: &Bundle, levels: &Range<usize>, pictures: &[linegate::inspection::Picture]) -> Vec<f32> {
    let mut model = linegate::scoring::Model::load(bundle, &linegate::scoring::SessionOptions::default()).unwrap();
    let mut fitter = linegate::scoring::PictureFitter::new();
    let mut score = |picture| {
        model.score(&[&fitter.fit(picture, &bundle.manifest.preprocessing).unwrap()]).unwrap().remove(0).levels
    };
    pictures.iter().flat_map(|picture| score(picture).drain(levels.clone()).flatten().collect::<Vec<_>>()).collect()
}

fn verdicts(bundle: &Bundle, pictures: &[linegate::inspection::Picture]) -> Vec<Verdict> {
    let mut model = linegate::scoring::Model::load(bundle, &linegate::scoring::SessionOptions::default()).unwrap();
    let mut fitter = linegate::scoring::PictureFitter::new();
    pictures
        .iter()
        .map(|picture| {
            let fitted = fitter.fit(picture, &bundle.manifest.preprocessing).unwrap();
            let maps = model.score(&[&fitted]).unwrap();
            linegate::decision::decide(&maps[0], &bundle.manifest, picture.size()).0.verdict
        })
        .collect()
}

#[test]
fn a_model_trained_with_known_defects_rejects_unseen_clear_defects() {
    let folder = tempfile::tempdir().unwrap();
    let set = PartSet::write(folder.path(), 64, 8);
    let mut options = options(folder.path(), folder.path().join("out/bundle"));
    options.settings.defects = 5;
    let bundle = train(&options, &Silent, &AtomicBool::new(false)).unwrap();
    let provenance = &bundle.manifest.provenance;
    assert_eq!(provenance.known_defects.len(), 5);
    assert!(provenance.known_defects.iter().all(|d| !d.weak));
    assert!(provenance.export_difference < 1e-3);
    // The context level looks again at what the level before it looks at; the others speak for themselves.
    let second_looks: Vec<bool> = bundle.manifest.calibration.levels.iter().map(|level| level.or_previous).collect();
    assert_eq!(second_looks, [false, false, false, true]);
    assert!(provenance.phases.iter().any(|p| p.name.contains("defects") && p.wall_seconds > 0.0));
    let rejected = verdicts(&bundle, &set.fresh_defects(8)).into_iter().filter(|v| *v == Verdict::Reject).count();
    assert!(rejected >= 7, "{rejected} of 8 clear defects were rejected");
    let accepted = verdicts(&bundle, &set.fresh_normals(12)).into_iter().filter(|v| *v == Verdict::Accept).count();
    assert!(accepted >= 8, "{accepted} of 12 normals were accepted");
}

#[test]
fn known_defects_that_fill_the_wide_look_are_contrasted_with_normals() {
    let folder = tempfile::tempdir().unwrap();
    PartSet::write(folder.path(), 24, 4);
    PartSet::write_shaded(folder.path(), 8);
    let mut options = options(folder.path(), folder.path().join("bundle"));
    options.settings.defects = 5;
    options.settings.unseen = vec!["blot".into(), "scratch".into()];
    let bundle = train(&options, &Silent, &AtomicBool::new(false)).unwrap();
    let (levels, calibrated) = (&bundle.manifest.levels, &bundle.manifest.calibration.levels);
    assert_eq!(levels.last().unwrap().output, "contrast_16");
    assert_eq!(calibrated.iter().map(|l| l.or_previous).collect::<Vec<_>>(), [false, false, false, true, true]);
    // The context says what it says through the contrast.
    assert_eq!(calibrated.iter().map(|l| l.weight).collect::<Vec<_>>(), [0.25, 0.25, 0.25, 0.0, 0.25]);
    assert_eq!(bundle.manifest.provenance.settings["contrast"], true);
    let dataset = Dataset::open(folder.path(), None).unwrap();
    let evaluation = evaluate(&bundle, &dataset, EvaluationOptions::default()).unwrap();
    assert!(evaluation.per_defect["shade"].figures.image_auroc > 0.99);
    // What is written beside the model for later says the same; the bench compares them.
    let mut bench = Command::new(env!("CARGO_BIN_EXE_linegate"));
    let output = bench.args(["bench", "--naive", "--steps", "1", "--bundle"]).arg(&bundle.path).output().unwrap();
    assert!(output.status.success(), "{output:?}");

    // A further training starts from its flows, and small defects are contrasted with nothing.
    options.from = Some(bundle.path.clone());
    options.out = folder.path().join("second");
    options.settings.unseen = vec!["shade".into()];
    let bundle = train(&options, &Silent, &AtomicBool::new(false)).unwrap();
    assert_eq!(bundle.manifest.levels.len(), 4);
    assert_eq!(bundle.manifest.provenance.settings["contrast"], false);
}

#[test]
fn the_same_seed_and_threads_give_the_same_model() {
    let folder = tempfile::tempdir().unwrap();
    PartSet::write(folder.path(), 16, 4);
    let mut hashes = Vec::new();
    for (out, seed) in [("a", 5), ("b", 5), ("c", 6)] {
        let mut options = options(folder.path(), folder.path().join(out));
        options.settings.seed = seed;
        options.settings.defects = 2;
        options.settings.steps = Some(12);
        let bundle = train(&options, &Silent, &AtomicBool::new(false)).unwrap();
        hashes.push((bundle.manifest.version.clone(), sha256_file(&bundle.path.join(MODEL_FILE)).unwrap()));
    }
    assert_eq!(hashes[0], hashes[1]);
    assert_ne!(hashes[0], hashes[2]);
}

#[test]
fn defects_without_masks_are_used_weakly_and_said_to_be_weak() {
    let folder = tempfile::tempdir().unwrap();
    PartSet::write(folder.path(), 24, 6);
    std::fs::remove_dir_all(folder.path().join("ground_truth")).unwrap();
    let mut options = options(folder.path(), folder.path().join("bundle"));
    options.settings.defects = 4;
    let bundle = train(&options, &Silent, &AtomicBool::new(false)).unwrap();
    assert_eq!(bundle.manifest.provenance.known_defects.iter().filter(|d| d.weak).count(), 4);
}

#[test]
fn a_type_that_was_to_stay_unseen_is_not_learned_from_and_evaluated_apart() {
    let folder = tempfile::tempdir().unwrap();
    PartSet::write(folder.path(), 16, 4);
    let mut options = options(folder.path(), folder.path().join("bundle"));
    options.settings.defects = 3;
    options.settings.unseen = vec!["scratch".into()];
    let bundle = train(&options, &Silent, &AtomicBool::new(false)).unwrap();
    assert!(bundle.manifest.provenance.known_defects.iter().all(|defect| defect.defect_type == "blot"));
    let dataset = Dataset::open(folder.path(), None).unwrap();
    let evaluation = evaluate(&bundle, &dataset, EvaluationOptions::default()).unwrap();
    let (seen, unseen) = (evaluation.seen.unwrap(), evaluation.unseen.unwrap());
    assert_eq!((&seen.types[..], &unseen.types[..]), (&["blot".to_owned()][..], &["scratch".to_owned()][..]));
    assert_eq!(unseen.image_auroc, evaluation.per_defect["scratch"].figures.image_auroc);

    options.settings.unseen = vec!["crack".into()];
    let error = train(&options, &Silent, &AtomicBool::new(false)).unwrap_err().to_string();
    assert!(error.contains("no defect type `crack`") && error.contains("blot, scratch"), "{error}");
}

#[test]
fn synthetic_defects_can_take_the_place_of_known_ones() {
    let folder = tempfile::tempdir().unwrap();
    PartSet::write(folder.path(), 16, 2);
    let mut options = options(folder.path(), folder.path().join("bundle"));
    for synthetic in [true, false] {
        options.settings.synthetic = synthetic;
        let bundle = train(&options, &Silent, &AtomicBool::new(false)).unwrap();
        assert!(bundle.manifest.provenance.known_defects.is_empty());
        assert_eq!(bundle.manifest.provenance.phases.iter().any(|p| p.name == "defects"), synthetic);
        // What defects do not teach is compared with normals: by a level that speaks for itself.
        let levels = &bundle.manifest.levels;
        let outputs: Vec<&str> = levels.iter().map(|level| level.output.as_str()).collect();
        assert_eq!(outputs[3..], ["log_likelihood_16_context", "nearest_16"]);
        let second_looks = bundle.manifest.calibration.levels.iter().map(|level| level.or_previous);
        assert_eq!(second_looks.collect::<Vec<_>>(), [false, false, false, true, false]);
    }
    options.settings.coreset = 0;
    let bundle = train(&options, &Silent, &AtomicBool::new(false)).unwrap();
    assert_eq!(bundle.manifest.levels.len(), 4);
}

#[test]
fn an_interrupted_training_leaves_the_old_bundle_or_none() {
    let folder = tempfile::tempdir().unwrap();
    PartSet::write(folder.path(), 16, 2);
    let mut options = options(folder.path(), folder.path().join("out/bundle"));
    let stop = AtomicBool::new(false);
    let error = train(&options, &StopAtFit(&stop), &stop).unwrap_err();
    assert!(matches!(error, TrainError::Fit(FitError::Interrupted)), "{error}");
    assert_eq!(std::fs::read_dir(folder.path().join("out")).unwrap().count(), 0, "nothing is left behind");

    options.settings.steps = Some(4);
    let old = train(&options, &Silent, &AtomicBool::new(false)).unwrap();
    options.settings.seed += 1;
    stop.store(false, Ordering::Relaxed);
    train(&options, &StopAtFit(&stop), &stop).unwrap_err();
    assert_eq!(Bundle::open(&options.out).unwrap().identity, old.identity);
    assert_eq!(std::fs::read_dir(folder.path().join("out")).unwrap().count(), 1);
}

#[test]
fn a_loss_that_is_not_a_number_stops_with_step_and_term() {
    let folder = tempfile::tempdir().unwrap();
    PartSet::write(folder.path(), 16, 2);
    let mut options = options(folder.path(), folder.path().join("bundle"));
    options.settings.learning_rate = 1e30;
    let error = train(&options, &Silent, &AtomicBool::new(false)).unwrap_err();
    assert!(matches!(error, TrainError::Fit(FitError::NotFinite { .. })), "{error}");
    let text = error.to_string();
    assert!(text.contains("likelihood") && text.contains("step"), "{text}");
    assert!(!options.out.exists());
}

#[test]
fn settings_out_of_range_are_all_named_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let mut options = options(folder.path(), folder.path().join("bundle"));
    options.settings.size = Size { width: 100, height: 64 };
    options.settings.pooling = 2;
    let text = train(&options, &Silent, &AtomicBool::new(false)).unwrap_err().to_string();
    assert!(text.contains("100x64") && text.contains("pooling 2"), "{text}");
}

#[test]
fn a_region_of_interest_is_trained_stored_and_honoured() {
    let folder = tempfile::tempdir().unwrap();
    let set = PartSet::write(folder.path(), 24, 4);
    let mut options = options(folder.path(), folder.path().join("bundle"));
    // The parts are 96 × 80; the region is their left upper part.
    let region = linegate::inspection::Rectangle { x: 0, y: 0, width: 64, height: 64 };
    options.settings.region_of_interest = Some(region);
    let bundle = train(&options, &Silent, &AtomicBool::new(false)).unwrap();
    assert_eq!(bundle.manifest.preprocessing.region_of_interest, Some(region));
    let outside = set.normal_with_defect_at(80, 70);
    let untouched = set.normal_with_defect_at(usize::MAX, usize::MAX);
    let mut model = linegate::scoring::Model::load(&bundle, &linegate::scoring::SessionOptions::default()).unwrap();
    let mut fitter = linegate::scoring::PictureFitter::new();
    let mut maps = |picture| model.score(&[&fitter.fit(picture, &bundle.manifest.preprocessing).unwrap()]).unwrap();
    assert_eq!(maps(&outside), maps(&untouched), "what lies outside the region does not matter");
}

#[test]
fn a_model_trained_on_tiles_is_exported_with_them_and_leaves_nothing_else_in_the_bundle() {
    let folder = tempfile::tempdir().unwrap();
    PartSet::write(folder.path(), 16, 2);
    let mut options = options(folder.path(), folder.path().join("bundle"));
    options.settings.size = Size { width: 192, height: 160 };
    options.settings.tile = 128;
    options.settings.steps = Some(4);
    // The training itself compares the exported model with the flows on the tiled features.
    let bundle = train(&options, &Silent, &AtomicBool::new(false)).unwrap();
    let files: Vec<_> = std::fs::read_dir(&bundle.path).unwrap().map(|f| f.unwrap().file_name()).collect();
    assert_eq!(files.len(), 4, "manifest, two models and flows: {files:?}");
    let graph = std::fs::read(bundle.path.join(MODEL_FILE)).unwrap();
    assert!(graph.windows(8).any(|name| name == b"tile/1_1"), "two rows and two columns of tiles");
    for (tile, problem) in [(100, "tile 100: 0 or a multiple of 16"), (96, "tile 96: a multiple of 16 above 96")] {
        options.settings.tile = tile;
        let text = train(&options, &Silent, &AtomicBool::new(false)).unwrap_err().to_string();
        assert!(text.contains(problem), "{text}");
    }
}

#[test]
fn a_training_beyond_its_budget_says_how_much_it_keeps_and_still_gives_a_model() {
    let folder = tempfile::tempdir().unwrap();
    PartSet::write(folder.path(), 150, 2);
    let mut options = options(folder.path(), folder.path().join("bundle"));
    options.settings.feature_budget_mib = 1;
    options.settings.steps = Some(4);
    let warnings = Warnings::default();
    train(&options, &warnings, &AtomicBool::new(false)).unwrap();
    let texts = warnings.0.into_inner().unwrap();
    assert!(texts.iter().any(|text| text.contains("feature_budget_mib (1)") && text.contains('%')), "{texts:?}");
}

#[test]
fn a_warm_start_goes_on_from_the_old_flows_and_calibrates_on_what_they_do_not_know() {
    let folder = tempfile::tempdir().unwrap();
    let set = PartSet::write(folder.path(), 24, 2);
    let mut options = options(folder.path(), folder.path().join("old"));
    let old = train(&options, &Silent, &AtomicBool::new(false)).unwrap();
    assert!(old.manifest.files.contains_key(FLOWS_FILE) && old.manifest.provenance.started_from.is_none());

    options.settings = Settings { steps: Some(1), learning_rate: 1e-6, seed: 77, ..options.settings };
    options.out = folder.path().join("afresh");
    let afresh = train(&options, &Silent, &AtomicBool::new(false)).unwrap();
    options.from = Some(old.path.clone());
    options.out = folder.path().join("warm");
    let warm = train(&options, &Silent, &AtomicBool::new(false)).unwrap();

    let pictures = set.fresh_normals(4);
    let difference = |bundle, levels: Range<usize>, of: fn(f32) -> f32| {
        let [found, expected] = [bundle, &old].map(|bundle| log_likelihoods(bundle, &levels, &pictures));
        found.iter().zip(&expected).map(|(a, b)| (a - b).abs() / of(*b)).fold(0.0, f32::max)
    };
    let narrow = |bundle| difference(bundle, 0..3, |_| 1.0);
    assert!(narrow(&warm) < 5e-3, "{}", narrow(&warm));
    assert!(narrow(&afresh) > 0.1, "{}", narrow(&afresh));
    // Of a log-likelihood far off its share counts: the wide look at so few pictures gives thousands.
    let wide = |bundle| difference(bundle, 3..4, |expected| (expected.abs() / 10.0).max(1.0));
    assert!(wide(&warm) < 5e-3, "{}", wide(&warm));
    assert!(wide(&afresh) > 0.1, "{}", wide(&afresh));
    let identity = format!("{} {}", old.identity.name, old.identity.version);
    let (old, warm) = (old.manifest.provenance, warm.manifest.provenance);
    assert_eq!(warm.started_from, Some(identity));
    let calibrating = &warm.normals[warm.training_images..];
    assert!(calibrating.iter().all(|name| !old.normals[..old.training_images].contains(name)));
}

#[test]
fn a_bundle_of_another_shape_is_refused_by_what_differs() {
    let folder = tempfile::tempdir().unwrap();
    PartSet::write(folder.path(), 16, 2);
    let mut options = options(folder.path(), folder.path().join("old"));
    options.settings.steps = Some(2);
    let old = train(&options, &Silent, &AtomicBool::new(false)).unwrap();
    options.from = Some(old.path.clone());
    options.out = folder.path().join("new");
    options.settings.hidden_width = Some(32);
    options.settings.size = Size { width: 96, height: 64 };
    let text = train(&options, &Silent, &AtomicBool::new(false)).unwrap_err().to_string();
    assert!(text.contains("hidden_width 48") && text.contains("hidden_width 32"), "{text}");
    assert!(text.contains("give --image-size 64x64") && text.contains("without --from"), "{text}");
    options.settings.pooling = 1;
    let text = train(&options, &Silent, &AtomicBool::new(false)).unwrap_err().to_string();
    assert!(text.contains("map 0 over 3x3") && text.contains("map 0 over 1x1"), "{text}");
    assert!(!options.out.exists());
}
