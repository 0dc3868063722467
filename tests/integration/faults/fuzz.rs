//! Whatever stands in a file: an error or a result, never a panic. Seconds with the other tests, ten
//! minutes each in the long form.

use std::fmt::Debug;
use std::path::Path;
use std::time::{Duration, Instant};

use linegate::bundle::{Bundle, MANIFEST_FILE};
use linegate::config::{Config, TrainingConfig};
use linegate::inspection::Size;
use linegate::scoring::{Model, SessionOptions, initialise};
use proptest::prelude::*;
use proptest::test_runner::{self, TestRunner};

use super::extent;
use crate::support::onnx::{self, Dim, F32, U8, node, tensor};

/// Calls `body` with new cases until the time is over.
fn fuzz<S: Strategy>(name: &str, cases: S, body: impl Fn(S::Value))
where
    S::Value: Debug,
{
    let until = Instant::now() + Duration::from_millis(extent(700, 600_000));
    let count = std::cell::Cell::new(0u64);
    while Instant::now() < until {
        let config = test_runner::Config { cases: 32, failure_persistence: None, ..Default::default() };
        let result = TestRunner::new(config).run(&cases, |case| {
            count.set(count.get() + 1);
            body(case);
            Ok(())
        });
        if let Err(error) = result {
            panic!("{name}: {error}");
        }
    }
    println!("{name}: {} cases, no panic", count.get());
}

/// One change of a file.
#[derive(Debug, Clone)]
enum Change {
    Flip(prop::sample::Index, u8),
    Cut(prop::sample::Index),
    Insert(prop::sample::Index, Vec<u8>),
    Repeat(prop::sample::Index, u8),
}

fn changes() -> impl Strategy<Value = Vec<Change>> {
    let bytes = prop_oneof![
        prop::collection::vec(any::<u8>(), 1..12),
        prop::sample::select(vec![
            "[",
            "{",
            "\"",
            "=",
            "\n",
            "-",
            "9999999999999999999",
            "nan",
            "1e999",
            "\u{202e}",
            "''"
        ])
        .prop_map(|text| text.as_bytes().to_vec()),
    ];
    let change = prop_oneof![
        4 => (any::<prop::sample::Index>(), any::<u8>()).prop_map(|(at, byte)| Change::Flip(at, byte)),
        1 => any::<prop::sample::Index>().prop_map(Change::Cut),
        3 => (any::<prop::sample::Index>(), bytes).prop_map(|(at, bytes)| Change::Insert(at, bytes)),
        1 => (any::<prop::sample::Index>(), 1..40u8).prop_map(|(at, times)| Change::Repeat(at, times)),
    ];
    prop::collection::vec(change, 1..8)
}

fn changed(original: &[u8], changes: &[Change]) -> Vec<u8> {
    let mut bytes = original.to_vec();
    for change in changes {
        if bytes.is_empty() {
            break;
        }
        match change {
            Change::Flip(at, byte) => {
                let at = at.index(bytes.len());
                bytes[at] ^= byte;
            }
            Change::Cut(at) => bytes.truncate(at.index(bytes.len())),
            Change::Insert(at, more) => {
                let at = at.index(bytes.len());
                bytes.splice(at..at, more.iter().copied());
            }
            Change::Repeat(at, times) => {
                let at = at.index(bytes.len());
                let piece = bytes[at..bytes.len().min(at + 16)].repeat(usize::from(*times));
                bytes.splice(at..at, piece);
            }
        }
    }
    bytes
}

#[test]
fn no_configuration_file_makes_the_program_panic() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("line.toml");
    let examples = ["line.toml", "two-cameras.toml", "training.toml"]
        .map(|name| std::fs::read(crate::support::root().join("config").join(name)).unwrap());
    let cases = (0..examples.len(), changes(), prop::collection::vec(any::<u8>(), 0..200), any::<bool>());
    fuzz("configuration", cases, |(which, changes, noise, is_noise)| {
        std::fs::write(&file, if is_noise { noise } else { changed(&examples[which], &changes) }).unwrap();
        for error in [Config::load(&file).err(), TrainingConfig::load(&file).err()].into_iter().flatten() {
            assert!(!error.to_string().is_empty());
        }
    });
}

#[test]
fn no_manifest_makes_the_program_panic() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bundle");
    crate::run::write_bundle(&path, "1", 128.0);
    let file = path.join(MANIFEST_FILE);
    let original = std::fs::read(&file).unwrap();
    fuzz("manifest", changes(), |changes| {
        std::fs::write(&file, changed(&original, &changes)).unwrap();
        if let Err(error) = Bundle::open(&path) {
            assert!(!error.to_string().is_empty());
        }
    });
}

#[test]
fn no_model_metadata_makes_the_program_panic() {
    initialise(None).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bundle");
    let dim = prop_oneof![(0..100usize).prop_map(Dim::Fixed), Just(Dim::Open("any"))];
    let text = prop_oneof![".{0,12}", Just("parts".to_owned()), Just("linegate.version".to_owned())];
    let cases = (
        prop::collection::vec((text.clone(), text.clone()), 0..4),
        prop::sample::select(vec!["image", "picture", ""]),
        prop::collection::vec(dim, 0..5),
        prop::sample::select(vec![U8, F32, onnx::BOOL, onnx::I64]),
    );
    fuzz("model metadata", cases, |(metadata, input, dims, element)| {
        crate::run::write_bundle(&path, "1", 128.0);
        let bundle = Bundle::open(&path).unwrap();
        let metadata: Vec<(&str, &str)> = metadata.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        let nodes = [node("Cast", input, "ll16", &[("to", &[F32])])];
        let model = onnx::model(&nodes, &[tensor(input, element, &dims)], &[tensor("ll16", F32, &dims)], &metadata);
        std::fs::write(bundle.model_path(), model).unwrap();
        // Past the hash, as a bundle made so by somebody would be.
        match Model::load(&bundle, &SessionOptions::default()) {
            Ok(mut model) => drop(model.score(&[])),
            Err(error) => assert!(!error.to_string().is_empty()),
        }
    });
}

#[test]
fn no_picture_file_makes_the_program_panic() {
    let folder = tempfile::tempdir().unwrap();
    let picture = image::RgbImage::from_fn(24, 16, |x, y| image::Rgb([x as u8 * 9, y as u8 * 7, 90]));
    let originals: Vec<(&str, Vec<u8>)> = ["png", "jpg", "bmp", "tiff"]
        .into_iter()
        .map(|kind| {
            let file = folder.path().join(format!("original.{kind}"));
            picture.save(&file).unwrap();
            (kind, std::fs::read(file).unwrap())
        })
        .collect();
    fuzz("pictures", (0..originals.len(), changes()), |(which, changes)| {
        let (kind, original) = &originals[which];
        let file = folder.path().join(format!("changed.{kind}"));
        std::fs::write(&file, changed(original, &changes)).unwrap();
        decode(&file);
    });
}

fn decode(file: &Path) {
    use linegate::training::dataset::{load_mask, load_picture};
    if let Ok(picture) = load_picture(file) {
        assert_eq!(picture.rgb().len(), picture.size().width * picture.size().height * 3);
    }
    drop(load_mask(file, Size { width: 24, height: 16 }));
}
