//! Frames kept for review.

use std::path::{Path, PathBuf};

use linegate::config;
use linegate::inspection::{AnomalyMap, Decision, Picture, Size, Verdict};
use linegate::line::archive::{Archive, ArchiveError};
use ndarray::Array2;

use crate::publishing::decision;

fn settings(directory: &Path, quota_mib: u64, accept_sample: f64) -> config::Archive {
    config::Archive { directory: directory.to_path_buf(), quota_mib, accept_sample, min_free_mib: 0, min_memory_mib: 0 }
}

/// Noise does not compress: about three bytes a pixel on disk.
fn noise(side: usize, seed: u64) -> Picture {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let rgb = (0..side * side * 3)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 32) as u8
        })
        .collect();
    Picture::from_rgb(Size { width: side, height: side }, rgb).unwrap()
}

fn map() -> AnomalyMap {
    AnomalyMap(Array2::from_shape_fn((5, 7), |(row, column)| row as f32 - column as f32 / 4.0))
}

fn with(verdict: Verdict) -> Decision {
    Decision { verdict, ..decision("front") }
}

fn files(directory: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(directory)
        .unwrap()
        .flat_map(|day| std::fs::read_dir(day.unwrap().path()).unwrap())
        .map(|file| file.unwrap().path())
        .collect();
    files.sort();
    files
}

fn exists(archive: &Archive, decision: &Decision) -> bool {
    archive.directory().join(archive.references(decision).unwrap().0).exists()
}

#[test]
fn a_reject_is_kept_lossless_with_map_and_record() {
    let folder = tempfile::tempdir().unwrap();
    let directory = folder.path().join("archive");
    let mut archive = Archive::open(&settings(&directory, 100, 0.0)).unwrap();
    let mut reject = with(Verdict::Reject);
    let (image, heatmap) = archive.references(&reject).unwrap();
    assert_eq!(image, format!("2026-11-18/{}.png", reject.result_id), "the UTC day of the decision");
    (reject.image_ref, reject.heatmap_ref) = (Some(image.clone()), Some(heatmap.clone()));
    let frame = noise(40, 1);
    archive.store(&reject, &frame, Some(&map())).unwrap();

    let back = image::open(directory.join(&image)).unwrap().into_rgb8();
    assert_eq!(back.as_raw(), frame.rgb());
    let colours = image::open(directory.join(&heatmap)).unwrap();
    assert_eq!((colours.width(), colours.height()), (28, 20));
    let record: Decision =
        serde_json::from_slice(&std::fs::read(directory.join(image.replace(".png", ".json"))).unwrap()).unwrap();
    assert_eq!(record, reject);
    let numbers = std::fs::read(directory.join(image.replace(".png", ".map.npy"))).unwrap();
    assert!(numbers.starts_with(b"\x93NUMPY\x01\x00"));
    let header = usize::from(u16::from_le_bytes([numbers[8], numbers[9]]));
    assert!(String::from_utf8_lossy(&numbers[10..10 + header]).contains("'shape': (5, 7)"));
    let values: Vec<f32> =
        numbers[10 + header..].chunks_exact(4).map(|four| f32::from_le_bytes(four.try_into().unwrap())).collect();
    assert_eq!(values, map().0.iter().copied().collect::<Vec<_>>());
    assert_eq!(files(&directory).len(), 4, "nothing temporary is left");
    let bytes: u64 = files(&directory).iter().map(|file| file.metadata().unwrap().len()).sum();
    assert_eq!((archive.counters().bytes, archive.counters().stored), (bytes, 1));
}

#[test]
fn what_was_not_inspected_is_kept_without_a_map_and_its_record_names_none() {
    let folder = tempfile::tempdir().unwrap();
    let mut archive = Archive::open(&settings(folder.path(), 100, 0.0)).unwrap();
    let missed = with(Verdict::NotInspected);
    archive.store(&missed, &noise(16, 1), None).unwrap();
    let (image, _) = archive.references(&missed).unwrap();
    let record: Decision =
        serde_json::from_slice(&std::fs::read(folder.path().join(image.replace(".png", ".json"))).unwrap()).unwrap();
    assert_eq!((record.image_ref, record.heatmap_ref), (Some(image), None));
    assert_eq!(files(folder.path()).len(), 2);
}

#[test]
fn accepts_are_kept_as_the_wished_share_and_the_same_ones_every_time() {
    let folder = tempfile::tempdir().unwrap();
    let ids: Vec<Decision> = (0..2000u64)
        .map(|number| Decision { result_id: format!("01JDTEST{number:018}"), ..with(Verdict::Accept) })
        .collect();
    let kept = |share: f64| {
        let archive = Archive::open(&settings(folder.path(), 1, share)).unwrap();
        ids.iter().map(|decision| archive.references(decision).is_some()).collect::<Vec<_>>()
    };
    let quarter = kept(0.25);
    assert_eq!(quarter, kept(0.25));
    let count = quarter.iter().filter(|&&kept| kept).count();
    assert!((400..600).contains(&count), "{count} of 2000");
    assert!(kept(0.0).iter().all(|kept| !kept));
    assert!(kept(1.0).iter().all(|&kept| kept));
    let mut archive = Archive::open(&settings(folder.path(), 1, 0.0)).unwrap();
    archive.store(&ids[0], &noise(8, 1), Some(&map())).unwrap();
    assert!(files(folder.path()).is_empty(), "outside the sample nothing is written");
}

#[test]
fn the_quota_removes_the_oldest_accepts_first_and_holds_after_reopening() {
    let folder = tempfile::tempdir().unwrap();
    let config = settings(folder.path(), 1, 1.0);
    // About 200 kB each: five fit into 1 MiB.
    let frame = |seed| noise(256, seed);
    let verdicts = [Verdict::Reject, Verdict::Accept, Verdict::Suspect, Verdict::Accept, Verdict::Reject];
    let mut decisions: Vec<Decision> = verdicts
        .iter()
        .enumerate()
        .map(|(number, &verdict)| Decision { result_id: format!("01JDTEST{number:018}"), ..with(verdict) })
        .collect();
    {
        let mut archive = Archive::open(&config).unwrap();
        for (seed, decision) in decisions.iter().enumerate() {
            archive.store(decision, &frame(seed as u64), None).unwrap();
        }
        assert_eq!(archive.counters().frames, 5);
    }
    let mut archive = Archive::open(&config).unwrap();
    assert_eq!(archive.counters().frames, 5, "it counts what it finds");
    let mut store = |archive: &mut Archive, number: u64| {
        let next = Decision { result_id: format!("01JDTEST{number:018}"), ..with(Verdict::Reject) };
        archive.store(&next, &frame(number), None).unwrap();
        assert!(archive.counters().bytes <= 1024 * 1024);
        decisions.push(next);
        decisions.iter().map(|decision| exists(archive, decision)).collect::<Vec<_>>()
    };
    assert_eq!(store(&mut archive, 5), [true, false, true, true, true, true]);
    assert_eq!(store(&mut archive, 6), [true, false, true, false, true, true, true]);
    assert_eq!(store(&mut archive, 7), [false, false, true, false, true, true, true, true]);
    assert_eq!(archive.counters().removed, 3);
}

#[test]
fn what_a_dying_process_left_half_written_is_cleared_away() {
    let folder = tempfile::tempdir().unwrap();
    let day = folder.path().join("2026-11-18");
    std::fs::create_dir(&day).unwrap();
    std::fs::write(day.join("01JDTEST000000000000000001.png.part"), b"half").unwrap();
    std::fs::write(day.join("01JDTEST000000000000000002.png"), b"without record").unwrap();
    std::fs::write(folder.path().join("notes.txt"), b"somebody's").unwrap();
    let archive = Archive::open(&settings(folder.path(), 1, 0.0)).unwrap();
    assert_eq!(archive.counters().frames, 1, "a frame without a record counts for the quota");
    assert!(!day.join("01JDTEST000000000000000001.png.part").exists());
    assert!(folder.path().join("notes.txt").exists(), "other people's files are left alone");
}

#[test]
fn a_frame_that_cannot_be_written_is_an_error_and_the_next_one_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let mut archive = Archive::open(&settings(folder.path(), 100, 0.0)).unwrap();
    let obstacle = folder.path().join("2026-11-18");
    std::fs::write(&obstacle, b"a file where the day's folder should be").unwrap();
    let error = archive.store(&with(Verdict::Reject), &noise(8, 1), Some(&map())).unwrap_err();
    assert!(matches!(&error, ArchiveError::Write { file, .. } if file.starts_with(&obstacle)), "{error}");
    assert_eq!((archive.counters().failed, archive.counters().frames), (1, 0));
    std::fs::remove_file(&obstacle).unwrap();
    archive.store(&with(Verdict::Reject), &noise(8, 1), Some(&map())).unwrap();
    assert_eq!((archive.counters().failed, archive.counters().frames), (1, 1));
    let forged = Decision { result_id: "../../../../tmp/escape-----".into(), ..with(Verdict::Reject) };
    assert!(matches!(archive.store(&forged, &noise(8, 1), None), Err(ArchiveError::Name { .. })));
}

#[test]
fn a_folder_that_cannot_be_used_is_refused_at_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, b"").unwrap();
    assert!(matches!(Archive::open(&settings(&file, 1, 0.0)), Err(ArchiveError::Directory { .. })));
}
