//! Big frames with small defects, and parts that lie turned.

use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;

use linegate::config::{Orientation, Preset};
use linegate::inspection::Size;
use linegate::training::settings::Settings;
use linegate::training::{Progress, Silent, TrainOptions, train};

use crate::support::parts::{PartSet, backbone};

const FRAME: Size = Size { width: 512, height: 384 };

fn save(path: &Path, grey: &[u8]) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    image::save_buffer(path, grey, FRAME.width as u32, FRAME.height as u32, image::ColorType::L8).unwrap();
}

/// Grey frames with fine grain; defects are dark pits of so many pixels a side.
fn write_frames(root: &Path, pit: usize) {
    let frame = |seed: usize| -> Vec<u8> {
        (0..FRAME.width * FRAME.height)
            .map(|i| 120 + (i.wrapping_mul(2_654_435_761 + seed * 97) >> 13) as u8 % 16)
            .collect()
    };
    for i in 0..10 {
        save(&root.join(format!("train/good/{i}.png")), &frame(i));
    }
    for i in 0..3 {
        let (mut picture, mut mask) = (frame(100 + i), vec![0; FRAME.width * FRAME.height]);
        for y in 50 + 90 * i..50 + 90 * i + pit {
            let row = y * FRAME.width + 70 + 130 * i;
            picture[row..row + pit].fill(20);
            mask[row..row + pit].fill(255);
        }
        save(&root.join(format!("test/pit/{i}.png")), &picture);
        save(&root.join(format!("ground_truth/pit/{i}_mask.png")), &mask);
    }
}

fn options(root: &Path) -> TrainOptions {
    TrainOptions {
        data: root.to_owned(),
        groups: None,
        out: root.join("bundle"),
        backbone: backbone(),
        name: None,
        from: None,
        settings: Settings {
            orientation: Orientation::Fixed,
            defects: 2,
            threads: 2,
            blocks: 2,
            steps: Some(4),
            batch_pixels: 256,
            abnormal_pixels: 64,
            beside_pixels: 32,
            hidden_width: Some(16),
            synthesised: 2,
            ..Settings::preset(Preset::Fast)
        },
    }
}

/// Keeps what was told and what was warned of.
#[derive(Default)]
struct Heard(Mutex<Vec<String>>);

impl Progress for Heard {
    fn phase(&self, _name: &str, _total: u64) {}
    fn advance(&self, _done: u64, _note: &str) {}
    fn tell(&self, text: &str) {
        self.0.lock().unwrap().push(format!("told: {text}"));
    }
    fn warn(&self, text: &str) {
        self.0.lock().unwrap().push(format!("warned: {text}"));
    }
}

impl Heard {
    fn one_with(&self, words: &[&str]) -> bool {
        self.0.lock().unwrap().iter().any(|text| words.iter().all(|word| text.contains(word)))
    }
}

#[test]
fn an_automatic_size_is_large_enough_for_small_defects_and_the_bundle_keeps_it() {
    let folder = tempfile::tempdir().unwrap();
    write_frames(folder.path(), 12);
    let mut options = options(folder.path());
    options.settings.auto_size = true;
    let heard = Heard::default();
    let bundle = train(&options, &heard, &AtomicBool::new(false)).unwrap();
    let size = bundle.manifest.preprocessing.size;
    assert!(12 * size.width / FRAME.width >= 8 && 12 * size.height / FRAME.height >= 8, "{size}");
    assert!(size.width <= FRAME.width && size.height <= FRAME.height, "{size}");
    assert!((size.width as f32 / size.height as f32 - 4.0 / 3.0).abs() < 0.07, "{size}");
    assert_eq!(bundle.manifest.levels[0].columns, size.width / 4);
    assert!(heard.one_with(&["told", &size.to_string(), "times the features and scoring"]), "{:?}", heard.0);
    assert!(bundle.manifest.provenance.settings["size"]["width"] == size.width);
}

#[test]
fn a_size_at_which_known_defects_are_lost_is_warned_of() {
    let folder = tempfile::tempdir().unwrap();
    write_frames(folder.path(), 6);
    let heard = Heard::default();
    train(&options(folder.path()), &heard, &AtomicBool::new(false)).unwrap();
    // Six pixels of 512 are three of 256, less than a cell; the source gives them six of eight.
    assert!(heard.one_with(&["warned", "2 of 2", "256x256", "--image-size auto would take 512x384"]), "{:?}", heard.0);
}

#[test]
fn a_region_that_leaves_the_pictures_is_named_before_anything_is_proposed() {
    let folder = tempfile::tempdir().unwrap();
    write_frames(folder.path(), 6);
    let mut options = options(folder.path());
    options.settings.region_of_interest =
        Some(linegate::inspection::Rectangle { x: 400, y: 0, width: 200, height: 100 });
    let error = train(&options, &Silent, &AtomicBool::new(false)).unwrap_err().to_string();
    assert!(error.contains("200x100 at 400, 0") && error.contains("512x384"), "{error}");
}

#[test]
fn parts_of_any_orientation_train_and_export_like_others() {
    let folder = tempfile::tempdir().unwrap();
    PartSet::write(folder.path(), 16, 4);
    let mut options = options(folder.path());
    options.settings.size = Size { width: 64, height: 64 };
    options.settings.orientation = Orientation::Any;
    let bundle = train(&options, &Silent, &AtomicBool::new(false)).unwrap();
    let provenance = &bundle.manifest.provenance;
    assert!(provenance.export_difference < 1e-3);
    assert_eq!(provenance.settings["orientation"], "any");
    assert!(provenance.training_images < 16, "turned copies are not counted as pictures");
}

#[test]
fn the_pictures_tell_whether_parts_lie_alike_and_a_later_training_goes_by_the_bundle_it_starts_from() {
    for (quarters, orientation, told) in [(1, "fixed", "parts lie alike"), (4, "any", "in any orientation")] {
        let folder = tempfile::tempdir().unwrap();
        PartSet::write(folder.path(), 24, 2);
        for (number, entry) in std::fs::read_dir(folder.path().join("train/good")).unwrap().enumerate() {
            let path = entry.unwrap().path();
            let part = image::open(&path).unwrap().crop_imm(8, 0, 80, 80);
            let turned = (0..number % quarters).fold(part, |part, _| part.rotate90());
            turned.save(&path).unwrap();
        }
        let mut options = options(folder.path());
        options.settings.size = Size { width: 64, height: 64 };
        options.settings.orientation = Orientation::Auto;
        let heard = Heard::default();
        let bundle = train(&options, &heard, &AtomicBool::new(false)).unwrap();
        assert_eq!(bundle.manifest.provenance.settings["orientation"], orientation);
        assert!(heard.one_with(&["told", told]), "{:?}", heard.0);

        options.from = Some(bundle.path);
        options.out = folder.path().join("later");
        let heard = Heard::default();
        let later = train(&options, &heard, &AtomicBool::new(false)).unwrap();
        assert_eq!(later.manifest.provenance.settings["orientation"], orientation);
        assert!(!heard.one_with(&[told]), "looked at again: {:?}", heard.0);
    }
}

#[test]
fn a_frame_of_more_cells_than_are_folded_at_load_is_exported_as_it_was_trained() {
    let folder = tempfile::tempdir().unwrap();
    write_frames(folder.path(), 12);
    let mut options = options(folder.path());
    options.settings.size = FRAME;
    let bundle = train(&options, &Silent, &AtomicBool::new(false)).unwrap();
    assert!(bundle.manifest.levels[0].rows * bundle.manifest.levels[0].columns > 8192);
    assert!(bundle.manifest.provenance.export_difference < 1e-3);
}
