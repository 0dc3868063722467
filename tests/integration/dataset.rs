//! Tests of dataset.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use image::{DynamicImage, GrayImage, ImageBuffer, ImageFormat, Luma, LumaA, Rgb, Rgb32FImage, Rgba};
use linegate::inspection::Size;
use linegate::training::dataset::{
    Dataset, DatasetError, Label, Sample, Split, Warning, choose_known_defects, hold_out, load_mask, load_picture,
    picture_size,
};
use tempfile::TempDir;

/// A 2x1 picture of two palette entries, (200, 100, 50) and (10, 20, 30); Python's zlib packed it.
const PALETTED_PNG: [u8; 86] = [
    0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a, 0x00, 0x00, 0x00, 0x0d, 0x49, 0x48, 0x44, 0x52, 0x00, 0x00, 0x00,
    0x02, 0x00, 0x00, 0x00, 0x01, 0x08, 0x03, 0x00, 0x00, 0x00, 0xc3, 0xfc, 0x8f, 0xb8, 0x00, 0x00, 0x00, 0x06, 0x50,
    0x4c, 0x54, 0x45, 0x0a, 0x14, 0x1e, 0xc8, 0x64, 0x32, 0x77, 0xa0, 0xb3, 0x9c, 0x00, 0x00, 0x00, 0x0b, 0x49, 0x44,
    0x41, 0x54, 0x78, 0x9c, 0x63, 0x60, 0x64, 0x00, 0x00, 0x00, 0x05, 0x00, 0x02, 0xd1, 0x66, 0x33, 0x78, 0x00, 0x00,
    0x00, 0x00, 0x49, 0x45, 0x4e, 0x44, 0xae, 0x42, 0x60, 0x82,
];

fn folder() -> TempDir {
    tempfile::tempdir().expect("a temporary folder")
}

/// A small grey picture at `root/name`.
fn put(root: &Path, name: &str, grey: u8) -> PathBuf {
    let path = root.join(name);
    fs::create_dir_all(path.parent().expect("inside the root")).expect("a folder");
    GrayImage::from_pixel(8, 6, Luma([grey])).save(&path).expect("a picture file");
    path
}

fn save(root: &Path, name: &str, image: impl Into<DynamicImage>, format: ImageFormat) -> PathBuf {
    let path = root.join(name);
    image.into().save_with_format(&path, format).expect("a picture file");
    path
}

/// Two train normals, a test normal, a masked crack and an unmasked dent.
fn small_set() -> TempDir {
    let dir = folder();
    for (name, grey) in [
        ("train/good/b.png", 100),
        ("train/good/a.JPG", 110),
        ("test/good/a.png", 120),
        ("test/crack/1.png", 130),
        ("test/dent/1.png", 140),
        ("ground_truth/crack/1_mask.png", 255),
    ] {
        put(dir.path(), name, grey);
    }
    dir
}

fn names(samples: &[&Sample]) -> Vec<String> {
    samples.iter().map(|sample| sample.name.clone()).collect()
}

fn sample(name: &str, kind: &str, group: Option<&str>) -> Sample {
    let label = if kind == "good" { Label::Good } else { Label::Defect(kind.to_owned()) };
    let group = group.map(str::to_owned);
    Sample { path: name.into(), name: name.to_owned(), split: Split::Test, label, mask: None, group }
}

fn kinds(samples: &[Sample], kind: &str) -> usize {
    samples.iter().filter(|sample| sample.label.as_str() == kind).count()
}

#[test]
fn a_folder_in_mvtec_layout_is_read_with_labels_and_masks() {
    let dir = small_set();
    put(dir.path(), "train/crack/9.bmp", 1);
    put(dir.path(), "ground_truth/crack/9.png", 255);
    fs::write(dir.path().join("readme.txt"), "beside the layout").unwrap();
    fs::write(dir.path().join("train/good/.DS_Store"), "left by a system").unwrap();
    let set = Dataset::open(dir.path(), None).unwrap();
    assert_eq!(names(&set.train_good()), ["train/good/a.JPG", "train/good/b.png"]);
    assert_eq!(names(&set.train_defects()), ["train/crack/9.bmp"]);
    assert_eq!(names(&set.test_good()), ["test/good/a.png"]);
    assert_eq!(names(&set.test_defects()), ["test/crack/1.png", "test/dent/1.png"]);
    let crack = set.test_defects()[0];
    assert_eq!(crack.label, Label::Defect("crack".into()));
    assert_eq!(crack.path, dir.path().join("test/crack/1.png"));
    assert_eq!(crack.mask, Some(dir.path().join("ground_truth/crack/1_mask.png")));
    assert_eq!(set.train_defects()[0].mask, Some(dir.path().join("ground_truth/crack/9.png")));
    assert_eq!(set.test_defects()[1].mask, None);
}

#[test]
fn the_digest_changes_with_name_content_and_order() {
    let dir = small_set();
    let set = Dataset::open(dir.path(), None).unwrap();
    let good = set.train_good();
    let digest = Dataset::digest(&good).unwrap();
    assert_eq!(digest, Dataset::digest(&good).unwrap());
    assert_eq!(digest.len(), 64);
    assert_ne!(digest, Dataset::digest(&[good[1], good[0]]).unwrap());
    assert_ne!(digest, Dataset::digest(&good[..1]).unwrap());
    let renamed = Sample { name: "train/good/c.png".into(), ..good[1].clone() };
    assert_ne!(digest, Dataset::digest(&[good[0], &renamed]).unwrap());
    put(dir.path(), "train/good/b.png", 101);
    assert_ne!(digest, Dataset::digest(&good).unwrap());
}

#[test]
fn what_is_wrong_with_the_folders_is_told_by_name() {
    let open = |root: &Path| Dataset::open(root, None).unwrap_err();
    let dir = folder();
    let root = dir.path();
    assert!(matches!(open(&root.join("gone")), DatasetError::NoSuchFolder(path) if path.ends_with("gone")));
    assert!(matches!(open(root), DatasetError::NotALayout(_)));
    fs::create_dir_all(root.join("train/good")).unwrap();
    assert!(matches!(open(root), DatasetError::NoPictures(_)));
    let error = Dataset::open_for_training(root, None).unwrap_err();
    assert!(matches!(&error, DatasetError::NoTrainGood(path) if path.ends_with("train/good")), "{error}");

    put(root, "test/crack/1.png", 1);
    assert!(Dataset::open(root, None).is_ok(), "a set to judge by needs no normals to learn from");
    assert!(matches!(Dataset::open_for_training(root, None).unwrap_err(), DatasetError::NoTrainGood(_)));

    put(root, "ground_truth/crack/2_mask.png", 255);
    let error = open(root);
    assert!(matches!(&error, DatasetError::MaskWithoutPicture { mask, .. } if mask.ends_with("2_mask.png")), "{error}");
    fs::remove_file(root.join("ground_truth/crack/2_mask.png")).unwrap();

    put(root, "ground_truth/crack/1_mask.png", 255);
    put(root, "ground_truth/crack/1.png", 255);
    assert!(matches!(open(root), DatasetError::TwoMasks { .. }));
    fs::remove_file(root.join("ground_truth/crack/1.png")).unwrap();

    put(root, "train/crack/1.png", 1);
    assert!(matches!(open(root), DatasetError::SharedMask { .. }));
    fs::remove_file(root.join("train/crack/1.png")).unwrap();

    let stray = put(root, "test/3.png", 1);
    assert!(matches!(open(root), DatasetError::StrayPicture(path) if path == stray));
    fs::remove_file(stray).unwrap();

    fs::write(root.join("train/good/notes.txt"), "x").unwrap();
    assert!(matches!(open(root), DatasetError::UnsupportedKind(path) if path.ends_with("notes.txt")));
    fs::remove_file(root.join("train/good/notes.txt")).unwrap();
    fs::create_dir(root.join("train/good/more")).unwrap();
    assert!(matches!(open(root), DatasetError::UnexpectedFolder(path) if path.ends_with("more")));
}

#[test]
fn groups_are_read_and_a_forgotten_picture_is_named() {
    let dir = small_set();
    let csv = dir.path().join("groups.csv");
    let mut text = String::from("file,group\ntrain/good/a.JPG,g1\ntrain/good/b.png,g1\ntest/good/a.png,g1\n");
    text += "test/crack/1.png,g2\n";
    fs::write(&csv, &text).unwrap();
    let error = Dataset::open(dir.path(), Some(&csv)).unwrap_err();
    assert!(matches!(&error, DatasetError::NotGrouped { name, .. } if name == "test/dent/1.png"), "{error}");

    text += "test/dent/1.png,g3\ntest/dent/2.png,g3\n";
    fs::write(&csv, &text).unwrap();
    let set = Dataset::open(dir.path(), Some(&csv)).unwrap();
    assert_eq!(set.test_defects()[1].group.as_deref(), Some("g3"));
    let warnings = set.warnings().unwrap();
    assert!(warnings.contains(&Warning::GroupInBothSplits { group: "g1".into() }), "{warnings:?}");
    assert!(
        warnings.iter().any(
            |w| matches!(w, Warning::GroupsNameMissing { count: 1, first, line: 7, .. } if first == "test/dent/2.png")
        ),
        "{warnings:?}"
    );

    fs::write(&csv, "file,group\ntrain/good/a.JPG\n").unwrap();
    let error = Dataset::open(dir.path(), Some(&csv)).unwrap_err();
    assert!(matches!(error, DatasetError::Groups { line: 2, .. }), "{error}");
    let error = Dataset::open(dir.path(), Some(&dir.path().join("none.csv"))).unwrap_err();
    assert!(matches!(&error, DatasetError::Unreadable { path, .. } if path.ends_with("none.csv")), "{error}");
}

#[test]
fn an_empty_or_missing_mask_is_a_warning_and_one_of_another_size_an_error() {
    let dir = small_set();
    let mask = put(dir.path(), "ground_truth/crack/1_mask.png", 1);
    let set = Dataset::open(dir.path(), None).unwrap();
    let without = Warning::WithoutMask { kind: "dent".into(), count: 1, of: 1 };
    assert_eq!(set.warnings().unwrap(), [Warning::EmptyMask(mask.clone()), without]);
    GrayImage::from_pixel(9, 6, Luma([255])).save(&mask).unwrap();
    let error = set.warnings().unwrap_err();
    assert!(
        matches!(&error, DatasetError::MaskSize { mask: at, expected: Size { width: 8, height: 6 }, found: Size { width: 9, height: 6 } } if *at == mask),
        "{error}"
    );
}

#[test]
fn every_kind_of_picture_comes_out_as_the_same_rgb() {
    let dir = folder();
    let root = dir.path();
    let grey8 = GrayImage::from_fn(4, 3, |x, y| Luma([(x * 40 + y * 10) as u8]));
    let expected: Vec<u8> = grey8.pixels().flat_map(|p| [p.0[0]; 3]).collect();
    // The lower byte must not count, not even by rounding.
    let grey16 = ImageBuffer::from_fn(4, 3, |x, y| Luma([((x * 40 + y * 10) as u16) << 8 | 0xff]));
    let grey_alpha = ImageBuffer::from_fn(4, 3, |x, y| LumaA([(x * 40 + y * 10) as u8, 7]));
    let files = [
        save(root, "8.png", grey8.clone(), ImageFormat::Png),
        save(root, "8.bmp", grey8.clone(), ImageFormat::Bmp),
        save(root, "8.tiff", grey8.clone(), ImageFormat::Tiff),
        save(root, "16.png", grey16.clone(), ImageFormat::Png),
        save(root, "16.tif", grey16, ImageFormat::Tiff),
        save(root, "alpha.png", DynamicImage::ImageLumaA8(grey_alpha), ImageFormat::Png),
        save(root, "a png by content.jpg", grey8, ImageFormat::Png),
    ];
    for file in files {
        let picture = load_picture(&file).unwrap();
        assert_eq!(picture.size(), Size { width: 4, height: 3 }, "{}", file.display());
        assert_eq!(picture.rgb(), expected, "{}", file.display());
        assert_eq!(picture_size(&file).unwrap(), picture.size());
    }

    let colour = [200_u8, 100, 50];
    let rgb = ImageBuffer::from_pixel(2, 2, Rgb(colour));
    let rgb16 = ImageBuffer::from_pixel(2, 2, Rgb(colour.map(|v| u16::from(v) << 8 | 0x80)));
    let rgba = ImageBuffer::from_pixel(2, 2, Rgba([200_u8, 100, 50, 0]));
    let rgba16 = ImageBuffer::from_pixel(2, 2, Rgba([200_u16 << 8, 100 << 8, 50 << 8, 9]));
    let paletted = root.join("palette.png");
    fs::write(&paletted, PALETTED_PNG).unwrap();
    for file in [
        save(root, "rgb.bmp", rgb.clone(), ImageFormat::Bmp),
        save(root, "rgb.tiff", rgb, ImageFormat::Tiff),
        save(root, "rgb16.png", rgb16.clone(), ImageFormat::Png),
        save(root, "rgb16.tiff", rgb16, ImageFormat::Tiff),
        save(root, "rgba.png", rgba, ImageFormat::Png),
        save(root, "rgba16.png", rgba16, ImageFormat::Png),
        paletted.clone(),
    ] {
        assert_eq!(load_picture(&file).unwrap().pixel(0, 0), colour, "{}", file.display());
    }
    assert_eq!(load_picture(&paletted).unwrap().pixel(1, 0), [10, 20, 30]);

    let grey = GrayImage::from_pixel(16, 16, Luma([90]));
    let [r, g, b] = load_picture(&save(root, "grey.jpg", grey, ImageFormat::Jpeg)).unwrap().pixel(5, 5);
    assert!(r == g && g == b && r.abs_diff(90) <= 2, "{r} {g} {b}");
    let colour = ImageBuffer::from_pixel(16, 16, Rgb([180_u8, 60, 30]));
    let pixel = load_picture(&save(root, "rgb.jpeg", colour, ImageFormat::Jpeg)).unwrap().pixel(5, 5);
    assert!(pixel.iter().zip([180_u8, 60, 30]).all(|(&v, want)| v.abs_diff(want) <= 4), "{pixel:?}");
}

#[test]
fn a_mask_is_defect_above_half_of_its_range() {
    let dir = folder();
    let size = Size { width: 4, height: 1 };
    let values = [0_u8, 127, 128, 255];
    let grey = GrayImage::from_raw(4, 1, values.to_vec()).unwrap();
    let deep = ImageBuffer::from_fn(4, 1, |x, _| Luma([u16::from(values[x as usize]) << 8]));
    let painted = ImageBuffer::from_fn(4, 1, |x, _| Rgb([0, values[x as usize], 0]));
    for file in [
        save(dir.path(), "grey.png", grey, ImageFormat::Png),
        save(dir.path(), "deep.png", deep, ImageFormat::Png),
        save(dir.path(), "painted.png", painted, ImageFormat::Png),
    ] {
        assert_eq!(load_mask(&file, size).unwrap().flags(), [false, false, true, true], "{}", file.display());
    }
    let error = load_mask(&dir.path().join("grey.png"), Size { width: 1, height: 4 }).unwrap_err().to_string();
    assert!(error.contains("grey.png") && error.contains("4x1") && error.contains("1x4"), "{error}");
}

#[test]
fn a_torn_picture_of_any_kind_is_an_error_naming_the_file() {
    let dir = folder();
    let noise =
        ImageBuffer::from_fn(64, 64, |x, y| Rgb([(x * 97 + y * 31) as u8, (x * x + y * 57) as u8, (x * y * 13) as u8]));
    for (name, format) in [
        ("a.jpg", ImageFormat::Jpeg),
        ("a.png", ImageFormat::Png),
        ("a.bmp", ImageFormat::Bmp),
        ("a.tiff", ImageFormat::Tiff),
    ] {
        let path = save(dir.path(), name, noise.clone(), format);
        load_picture(&path).unwrap();
        let whole = fs::read(&path).unwrap();
        for share in [2, 30, 60, 95, 99] {
            fs::write(&path, &whole[..whole.len() * share / 100]).unwrap();
            let error = load_picture(&path).unwrap_err();
            assert!(
                matches!(
                    error,
                    DatasetError::Torn { .. } | DatasetError::Undecodable { .. } | DatasetError::UnsupportedKind(_)
                ),
                "{name} at {share} %: {error}"
            );
            assert!(error.to_string().contains(name), "{error}");
        }
        // What a crash leaves where the file system had set the length already.
        let mut zeroed = whole.clone();
        zeroed[whole.len() * 6 / 10..].fill(0);
        fs::write(&path, &zeroed).unwrap();
        if format == ImageFormat::Jpeg || format == ImageFormat::Png {
            assert!(load_picture(&path).is_err(), "{name} with a zeroed tail");
        }
    }
}

#[test]
fn unreadable_empty_foreign_and_oversized_files_each_get_their_own_error() {
    let dir = folder();
    let at = |name: &str| dir.path().join(name);
    assert!(matches!(load_picture(&at("none.png")), Err(DatasetError::Unreadable { .. })));
    fs::write(at("empty.png"), []).unwrap();
    assert!(matches!(load_picture(&at("empty.png")), Err(DatasetError::EmptyFile(_))));
    fs::write(at("page.png"), "<html>not found</html>").unwrap();
    assert!(matches!(load_picture(&at("page.png")), Err(DatasetError::UnsupportedKind(_))));
    fs::write(at("gif.png"), b"GIF89a\x01\0\x01\0\0\0\0;").unwrap();
    assert!(matches!(load_picture(&at("gif.png")), Err(DatasetError::UnsupportedKind(_))));
    let float = Rgb32FImage::from_pixel(2, 2, Rgb([0.5, 0.5, 0.5]));
    let float = save(dir.path(), "float.tiff", float, ImageFormat::Tiff);
    assert!(matches!(load_picture(&float), Err(DatasetError::FloatingPoint(_))));

    let long = save(dir.path(), "long.png", GrayImage::new(16_385, 1), ImageFormat::Png);
    assert!(matches!(load_picture(&long), Err(DatasetError::TooLarge { width: 16_385, height: 1, .. })));
    // A header that announces 16000 x 16000 pixels and nothing behind it: refused before any
    // memory is taken.
    let mut bomb = PALETTED_PNG;
    for side in [16..20, 20..24] {
        bomb[side].copy_from_slice(&16_000_u32.to_be_bytes());
    }
    bomb[29..33].copy_from_slice(&0x76a0_2fec_u32.to_be_bytes());
    fs::write(at("bomb.png"), bomb).unwrap();
    let error = load_picture(&at("bomb.png")).unwrap_err();
    assert!(matches!(error, DatasetError::TooLarge { width: 16_000, height: 16_000, .. }), "{error:?}");
}

#[test]
fn known_defects_are_chosen_evenly_over_types() {
    let mut all: Vec<Sample> = (0..20).map(|i| sample(&format!("test/a/{i}"), "a", None)).collect();
    all.extend((0..20).map(|i| sample(&format!("test/b/{i}"), "b", None)));
    all.extend((0..2).map(|i| sample(&format!("test/c/{i}"), "c", None)));
    let mut candidates: Vec<&Sample> = all.iter().collect();
    let chosen = choose_known_defects(&candidates, 11, 5).unwrap();
    assert_eq!((kinds(&chosen, "a"), kinds(&chosen, "b"), kinds(&chosen, "c")), (5, 4, 2));
    assert!(chosen.is_sorted_by(|a, b| a.name < b.name));
    candidates.reverse();
    assert_eq!(chosen, choose_known_defects(&candidates, 11, 5).unwrap());
    assert_ne!(chosen, choose_known_defects(&candidates, 11, 6).unwrap());
    assert_eq!(choose_known_defects(&candidates, 42, 1).unwrap().len(), 42);
    assert!(choose_known_defects(&[], 0, 1).unwrap().is_empty());
    let error = choose_known_defects(&candidates, 43, 1).unwrap_err().to_string();
    assert!(error.contains("43") && error.contains("42") && error.contains("c 2"), "{error}");
}

#[test]
fn known_defects_come_from_many_groups_and_leave_half_of_them() {
    let all: Vec<Sample> = ["a", "b"]
        .into_iter()
        .flat_map(|kind| {
            (0..24).map(move |i| sample(&format!("test/{kind}/{i:02}"), kind, Some(&format!("{kind}{}", i / 6))))
        })
        .collect();
    let candidates: Vec<&Sample> = all.iter().collect();
    for seed in 0..20 {
        let chosen = choose_known_defects(&candidates, 10, seed).unwrap();
        assert_eq!((kinds(&chosen, "a"), kinds(&chosen, "b")), (5, 5));
        let groups: BTreeSet<_> = chosen.iter().map(|s| s.group.clone()).collect();
        assert_eq!(groups.len(), 4, "two of the four groups of each type");
        let few = choose_known_defects(&candidates, 4, seed).unwrap();
        assert_eq!(few.iter().map(|s| s.group.clone()).collect::<BTreeSet<_>>().len(), 4, "a group each");
        assert_eq!(choose_known_defects(&candidates, 48, seed).unwrap().len(), 48);
    }
    // A part with both defects is used by both types before either opens another.
    let mixed = [
        sample("test/a/1", "a", Some("p")),
        sample("test/b/1", "b", Some("p")),
        sample("test/b/2", "b", Some("q")),
        sample("test/b/3", "b", Some("r")),
    ];
    let candidates: Vec<&Sample> = mixed.iter().collect();
    for seed in 0..20 {
        let chosen = choose_known_defects(&candidates, 2, seed).unwrap();
        assert_eq!(chosen, [mixed[0].clone(), mixed[1].clone()]);
    }
}

#[test]
fn normals_are_held_out_by_whole_groups_and_near_the_wanted_share() {
    let all: Vec<Sample> =
        (0..300).map(|i| sample(&format!("train/good/{i:03}"), "good", Some(&format!("g{}", i / 6)))).collect();
    let normals: Vec<&Sample> = all.iter().collect();
    let groups = |samples: &[Sample]| samples.iter().map(|s| s.group.clone()).collect::<BTreeSet<_>>();
    for seed in 0..20 {
        let (training, calibration) = hold_out(&normals, 0.2, seed, &BTreeSet::new()).unwrap();
        assert_eq!((training.len(), calibration.len()), (240, 60));
        assert!(groups(&training).is_disjoint(&groups(&calibration)));
        assert_eq!((training, calibration), hold_out(&normals, 0.2, seed, &BTreeSet::new()).unwrap());
    }
    assert_ne!(
        hold_out(&normals, 0.2, 0, &BTreeSet::new()).unwrap(),
        hold_out(&normals, 0.2, 1, &BTreeSet::new()).unwrap()
    );
}

#[test]
fn normals_that_the_flows_know_never_calibrate() {
    let all: Vec<Sample> = (0..40).map(|i| sample(&format!("train/good/{i:02}"), "good", None)).collect();
    let normals: Vec<&Sample> = all.iter().collect();
    let (training, calibration) = hold_out(&normals[..30], 0.2, 0, &BTreeSet::new()).unwrap();
    let fitted: BTreeSet<String> = training.iter().map(|s| s.name.clone()).collect();
    for seed in 0..10 {
        let (_, later) = hold_out(&normals, 0.2, seed, &fitted).unwrap();
        assert_eq!(later.len(), 8);
        assert!(later.iter().all(|s| !fitted.contains(&s.name)));
    }
    let known: Vec<&Sample> = training.iter().chain(&calibration[..2]).collect();
    let error = hold_out(&known, 0.2, 0, &fitted).unwrap_err();
    assert!(matches!(error, DatasetError::TooFewUnfitted { available: 2, .. }), "{error}");
}

#[test]
fn a_huge_group_stays_in_training_and_too_few_normals_are_an_error() {
    let mut all: Vec<Sample> = (0..100).map(|i| sample(&format!("train/good/{i:03}"), "good", Some("lot"))).collect();
    all.extend((100..104).map(|i| sample(&format!("train/good/{i:03}"), "good", Some("other"))));
    let normals: Vec<&Sample> = all.iter().collect();
    for seed in 0..10 {
        let (training, calibration) = hold_out(&normals, 0.2, seed, &BTreeSet::new()).unwrap();
        assert_eq!((training.len(), calibration.len()), (100, 4), "seed {seed}");
    }
    let error = hold_out(&normals[..100], 0.2, 0, &BTreeSet::new()).unwrap_err();
    assert!(matches!(error, DatasetError::TooFewNormals { normals: 100, groups: 1, .. }), "{error}");

    let single: Vec<Sample> = (0..8).map(|i| sample(&format!("train/good/{i}"), "good", None)).collect();
    let normals: Vec<&Sample> = single.iter().collect();
    let (training, calibration) = hold_out(&normals, 0.1, 0, &BTreeSet::new()).unwrap();
    assert_eq!((training.len(), calibration.len()), (4, 4));
    assert!(matches!(hold_out(&normals[1..], 0.1, 0, &BTreeSet::new()), Err(DatasetError::TooFewNormals { .. })));
    for fraction in [0.0, 1.0, f64::NAN] {
        assert!(matches!(hold_out(&normals, fraction, 0, &BTreeSet::new()), Err(DatasetError::Fraction(_))));
    }
}
