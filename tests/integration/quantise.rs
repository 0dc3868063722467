//! A backbone on eight-bit integers or half-precision floats: near to itself in f32, exported like any other, trained on.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use linegate::bundle::MODEL_FILE;
use linegate::config::Numbers;
use linegate::inspection::Size;
use linegate::scoring::{FeatureExtractor, SessionOptions};
use linegate::training::export::{ExportError, ValueRange, halve_backbone, observe_backbone, quantise_backbone};
use linegate::training::settings::Settings;
use linegate::training::{Silent, TrainOptions, train};

use crate::export::{exported_model_equals_the_definition, fixture, lite0, pictures, read_spec};
use crate::support::parts::PartSet;
use crate::train::options;

const SIZE: Size = Size { width: 96, height: 64 };

/// What values a backbone's convolutions see on some pictures, as it says itself.
fn ranges(backbone: &Path, folder: &Path) -> BTreeMap<String, ValueRange> {
    let observing = folder.join("observing.onnx");
    let tensors = observe_backbone(backbone, &read_spec(backbone), SIZE, &observing).unwrap();
    let mut extractor = FeatureExtractor::load(&observing, SIZE, &SessionOptions::default()).unwrap();
    let shown = pictures(SIZE, 3);
    let maps = extractor.extract(&shown.iter().collect::<Vec<_>>()).unwrap();
    let range = |at: usize| {
        let ends = |end: usize| maps.iter().map(move |maps| maps[0][[0, 0, 2 * at + end]]);
        ValueRange { low: ends(1).fold(0.0, f32::min), high: ends(0).fold(0.0, f32::max) }
    };
    tensors.into_iter().enumerate().map(|(at, tensor)| (tensor, range(at))).collect()
}

fn quantised(backbone: &Path, folder: &Path) -> PathBuf {
    let out = folder.join("int8.onnx");
    quantise_backbone(backbone, &read_spec(backbone), SIZE, &ranges(backbone, folder), &out).unwrap();
    out
}

fn halved(backbone: &Path, folder: &Path) -> PathBuf {
    let out = folder.join("f16.onnx");
    halve_backbone(backbone, &read_spec(backbone), SIZE, &out).unwrap();
    out
}

/// The mean difference of each map from that of the f32 backbone, of the map's spread.
fn differences(backbone: &Path, other: &Path) -> Vec<f32> {
    let [mut exact, mut rounded] =
        [backbone, other].map(|file| FeatureExtractor::load(file, SIZE, &SessionOptions::default()).unwrap());
    assert_eq!(exact.levels(), rounded.levels());
    let shown = pictures(SIZE, 3);
    let shown: Vec<_> = shown.iter().collect();
    let (exact, rounded) = (exact.extract(&shown).unwrap(), rounded.extract(&shown).unwrap());
    let pairs = exact.iter().flatten().zip(rounded.iter().flatten());
    pairs.map(|(exact, rounded)| (exact - rounded).mapv(f32::abs).mean().unwrap() / exact.std(0.0)).collect()
}

fn bytes(file: &Path) -> u64 {
    std::fs::metadata(file).unwrap().len()
}

#[test]
fn an_observed_backbone_says_the_highest_and_lowest_value_of_every_tensor() {
    let folder = tempfile::tempdir().unwrap();
    let lite0 = lite0(folder.path());
    let ranges = ranges(&lite0, folder.path());
    let mut extractor = FeatureExtractor::load(&lite0, SIZE, &SessionOptions::default()).unwrap();
    let shown = pictures(SIZE, 3);
    let maps = extractor.extract(&shown.iter().collect::<Vec<_>>()).unwrap();
    // The map of stride 4 goes into the next convolution.
    let values = maps.iter().flat_map(|maps| maps[0].iter().copied());
    let (low, high) = values.fold((0.0f32, 0.0f32), |(low, high), value| (low.min(value), high.max(value)));
    let range = ranges["backbone/f4"];
    assert!((range.low - low).abs() < 1e-4 && (range.high - high).abs() < 1e-4, "{range:?}, not {low} to {high}");
    let bounded = ranges["backbone/b1.dw"];
    assert!(bounded.low == 0.0 && bounded.high > 0.0 && bounded.high <= 6.0, "{bounded:?}");
    assert_eq!(ranges["backbone/image"].high.max(1.008), 1.008);
}

#[test]
fn a_backbone_on_integers_or_half_precision_says_nearly_the_same() {
    let folder = tempfile::tempdir().unwrap();
    for backbone in [lite0(folder.path()), fixture("nhwc_bgr.onnx")] {
        let [int8, f16] = [quantised, halved].map(|make| make(&backbone, folder.path()));
        for (file, suffix, limit) in [(&int8, "int8", 0.25), (&f16, "f16", 0.01)] {
            assert_eq!(read_spec(file).name, format!("{}_{suffix}", read_spec(&backbone).name));
            for found in differences(&backbone, file) {
                assert!(found > 0.0 && found < limit, "{suffix}: {found} of the spread");
            }
        }
    }
    let lite0 = folder.path().join("lite0.onnx");
    assert!(bytes(&quantised(&lite0, folder.path())) * 3 < bytes(&lite0), "a byte for each weight");
    let f16 = bytes(&halved(&lite0, folder.path()));
    assert!(f16 * 9 < bytes(&lite0) * 5, "two bytes for each weight");
}

#[test]
fn pixels_that_are_read_in_groups_say_the_same_to_the_last_bit() {
    let folder = tempfile::tempdir().unwrap();
    let lite0 = lite0(folder.path());
    let ranges = ranges(&lite0, folder.path());
    // No groups of four make up a row of the second width; the file works on any.
    let [grouped, single] = [SIZE, Size { width: SIZE.width + 2, ..SIZE }].map(|size| {
        let out = folder.path().join(format!("{}.onnx", size.width));
        quantise_backbone(&lite0, &read_spec(&lite0), size, &ranges, &out).unwrap();
        let groups = b"image/integers/groups";
        let written = std::fs::read(&out).unwrap().windows(groups.len()).any(|bytes| bytes == groups);
        assert_eq!(written, size == SIZE, "{size}");
        let mut extractor = FeatureExtractor::load(&out, SIZE, &SessionOptions::default()).unwrap();
        let shown = pictures(SIZE, 3);
        extractor.extract(&shown.iter().collect::<Vec<_>>()).unwrap()
    });
    assert_eq!(grouped, single);
}

#[test]
fn a_model_on_a_backbone_of_other_numbers_equals_the_definition_of_its_flows() {
    let folder = tempfile::tempdir().unwrap();
    for make in [quantised, halved] {
        let made = make(&lite0(folder.path()), folder.path());
        exported_model_equals_the_definition(&made, SIZE, &[(0, 3), (1, 1), (2, 3)]);
        let made = make(&fixture("nhwc_bgr.onnx"), folder.path());
        exported_model_equals_the_definition(&made, SIZE, &[(0, 1), (1, 1)]);
    }
}

#[test]
fn a_range_that_is_missing_or_none_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let lite0 = lite0(folder.path());
    let whole = ranges(&lite0, folder.path());
    let out = folder.path().join("int8.onnx");
    for change in [None, Some(ValueRange { low: 0.0, high: f32::NAN }), Some(ValueRange { low: 1.0, high: 0.0 })] {
        let mut ranges = whole.clone();
        ranges.remove("backbone/f8");
        ranges.extend(change.map(|range| ("backbone/f8".to_owned(), range)));
        let error = quantise_backbone(&lite0, &read_spec(&lite0), SIZE, &ranges, &out).unwrap_err();
        assert!(matches!(&error, ExportError::Request { problem } if problem.contains("backbone/f8")), "{error:?}");
    }
    assert!(!out.exists());
}

#[test]
fn a_model_may_be_trained_on_integers_or_half_precision() {
    let folder = tempfile::tempdir().unwrap();
    PartSet::write(folder.path(), 16, 4);
    let options = |out: &str, numbers| {
        let mut options = options(folder.path(), folder.path().join(out));
        options.settings = Settings { steps: Some(4), synthesised: 8, defects: 2, numbers, ..options.settings };
        options
    };
    let train = |options: &TrainOptions| train(options, &Silent, &AtomicBool::new(false));
    let exact = train(&options("f32", Numbers::F32)).unwrap();
    let integers = train(&options("int8", Numbers::Int8)).unwrap();
    // The training itself compares the exported model with the flows on the integers' features.
    let half = train(&options("f16", Numbers::F16)).unwrap();
    for (bundle, name) in [(&integers, "efficientnet_lite0_int8 "), (&half, "efficientnet_lite0_f16 ")] {
        assert!(bytes(&bundle.path.join(MODEL_FILE)) * 3 < bytes(&exact.path.join(MODEL_FILE)) * 2);
        let backbone = &bundle.manifest.provenance.backbone;
        assert!(backbone.starts_with(name), "{backbone}");
    }
    let files = std::fs::read_dir(&integers.path).unwrap().count();
    assert_eq!(files, 4, "manifest, the model for all and for processors, and flows");
    // Flows that know what f32 says know nothing of this.
    let other = TrainOptions { from: Some(exact.path), ..options("warm", Numbers::Int8) };
    let text = train(&other).unwrap_err().to_string();
    assert!(text.contains("efficientnet_lite0"), "{text}");
    let tiled = Settings { size: Size { width: 192, height: 160 }, tile: 128, ..other.settings.clone() };
    train(&TrainOptions { from: None, settings: tiled, ..options("tiled", Numbers::Int8) }).unwrap();
}
