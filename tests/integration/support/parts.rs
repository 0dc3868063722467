//! Small pictures of made-up parts: a grey plate with a soft gradient, fine grain and a printed
//! bar; a defect is a dark blot or a bright scratch.

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use linegate::bundle::Bundle;
use linegate::config::Preset;
use linegate::inspection::{Mask, Picture, Size};
use linegate::training::settings::Settings;
use linegate::training::{Silent, TrainOptions, train};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

const SIZE: Size = Size { width: 96, height: 80 };

/// The imported backbone that set-up puts in place.
pub(crate) fn backbone() -> PathBuf {
    let path = crate::support::root().join(".runtime/efficientnet_lite0.onnx");
    assert!(path.exists(), "{} is missing: run deploy/setup.sh", path.display());
    path
}

/// A bundle of 64 x 64 pixels that has hardly learned anything, in `folder/bundle`.
pub(crate) fn hardly_trained(folder: &Path) -> Bundle {
    PartSet::write(folder, 16, 2);
    let settings = Settings {
        size: Size { width: 64, height: 64 },
        steps: Some(2),
        batch_pixels: 64,
        abnormal_pixels: 8,
        beside_pixels: 8,
        hidden_width: Some(16),
        synthesised: 2,
        ..Settings::preset(Preset::Fast)
    };
    let (data, out) = (folder.to_owned(), folder.join("bundle"));
    let options = TrainOptions { data, groups: None, out, backbone: backbone(), name: None, from: None, settings };
    train(&options, &Silent, &AtomicBool::new(false)).unwrap()
}

/// A data set of made-up parts on disk.
#[derive(Debug)]
pub(crate) struct PartSet;

impl PartSet {
    /// Writes `normals` training normals, a third as many test normals and `defects` test defects
    /// of each of two types, with masks, in MVTec layout.
    pub(crate) fn write(root: &Path, normals: usize, defects: usize) -> Self {
        Self::write_from(root, normals, defects, 0)
    }

    /// The same with other parts: every set of numbers from `first` on has its own.
    pub(crate) fn write_from(root: &Path, normals: usize, defects: usize, first: u64) -> Self {
        let save = |folder: &str, name: String, picture: &Picture| {
            let folder = root.join(folder);
            std::fs::create_dir_all(&folder).unwrap();
            image::save_buffer(
                folder.join(name),
                picture.rgb(),
                SIZE.width as u32,
                SIZE.height as u32,
                image::ColorType::Rgb8,
            )
            .unwrap();
        };
        for i in 0..normals {
            save("train/good", format!("{i:03}.png"), &normal(first + i as u64));
        }
        for i in 0..normals / 3 {
            save("test/good", format!("{i:03}.png"), &normal(first + 10_000 + i as u64));
        }
        for i in 0..defects {
            for kind in ["blot", "scratch"] {
                let (picture, mask) = defect(kind, first + 20_000 + i as u64);
                save(&format!("test/{kind}"), format!("{i:03}.png"), &picture);
                let folder = root.join("ground_truth").join(kind);
                std::fs::create_dir_all(&folder).unwrap();
                let grey: Vec<u8> = mask.flags().iter().map(|&d| if d { 255 } else { 0 }).collect();
                image::save_buffer(
                    folder.join(format!("{i:03}_mask.png")),
                    &grey,
                    SIZE.width as u32,
                    SIZE.height as u32,
                    image::ColorType::L8,
                )
                .unwrap();
            }
        }
        Self
    }

    /// Adds test defects of a large type to a set: the right half of the part lies in the shade.
    pub(crate) fn write_shaded(root: &Path, count: usize) {
        let (pictures, masks) = (root.join("test/shade"), root.join("ground_truth/shade"));
        std::fs::create_dir_all(&pictures).unwrap();
        std::fs::create_dir_all(&masks).unwrap();
        let (width, height) = (SIZE.width as u32, SIZE.height as u32);
        let shaded = |at: usize| at % SIZE.width >= SIZE.width / 2;
        for i in 0..count {
            let part = normal(50_000 + i as u64);
            let dim = |(at, &v): (usize, &u8)| if shaded(at / 3) { v / 2 } else { v };
            let rgb: Vec<u8> = part.rgb().iter().enumerate().map(dim).collect();
            let mask: Vec<u8> = (0..SIZE.width * SIZE.height).map(|at| if shaded(at) { 255 } else { 0 }).collect();
            let file = pictures.join(format!("{i:03}.png"));
            image::save_buffer(file, &rgb, width, height, image::ColorType::Rgb8).unwrap();
            let file = masks.join(format!("{i:03}_mask.png"));
            image::save_buffer(file, &mask, width, height, image::ColorType::L8).unwrap();
        }
    }

    /// Normals that are in no folder.
    pub(crate) fn fresh_normals(&self, count: usize) -> Vec<Picture> {
        (0..count).map(|i| normal(30_000 + i as u64)).collect()
    }

    /// Defects that are in no folder, of both types.
    pub(crate) fn fresh_defects(&self, count: usize) -> Vec<Picture> {
        (0..count).map(|i| defect(["blot", "scratch"][i % 2], 40_000 + i as u64).0).collect()
    }

    /// One certain normal with a blot around a place; none where the place lies outside.
    pub(crate) fn normal_with_defect_at(&self, x: usize, y: usize) -> Picture {
        let mut picture = normal(77);
        if x < SIZE.width && y < SIZE.height {
            let mut mask = Mask::empty(SIZE);
            blot(&mut picture, &mut mask, x, y, 6.0);
        }
        picture
    }
}

/// A normal part.
pub(crate) fn normal(seed: u64) -> Picture {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let light: f32 = rng.random_range(-6.0..6.0);
    let mut rgb = Vec::with_capacity(SIZE.width * SIZE.height * 3);
    for y in 0..SIZE.height {
        for x in 0..SIZE.width {
            let bar = if (20..28).contains(&y) { -40.0 } else { 0.0 };
            let grain: f32 = rng.random_range(-5.0..5.0);
            let v = (140.0 + light + 0.3 * x as f32 + bar + grain).clamp(0.0, 255.0) as u8;
            rgb.extend([v, v, v.saturating_add(4)]);
        }
    }
    Picture::from_rgb(SIZE, rgb).unwrap()
}

fn blot(picture: &mut Picture, mask: &mut Mask, cx: usize, cy: usize, radius: f32) {
    for y in 0..SIZE.height {
        for x in 0..SIZE.width {
            let (dx, dy) = (x as f32 - cx as f32, y as f32 - cy as f32);
            if dx * dx + dy * dy <= radius * radius {
                let at = (y * SIZE.width + x) * 3;
                picture.rgb_mut()[at..at + 3].copy_from_slice(&[35, 30, 20]);
                mask.flags_mut()[y * SIZE.width + x] = true;
            }
        }
    }
}

/// A defective part and its mask.
pub(crate) fn defect(kind: &str, seed: u64) -> (Picture, Mask) {
    let mut rng = ChaCha8Rng::seed_from_u64(seed ^ 0x00de_fec7);
    let mut picture = normal(seed);
    let mut mask = Mask::empty(SIZE);
    if kind == "blot" {
        let (x, y) = (rng.random_range(12..SIZE.width - 12), rng.random_range(12..SIZE.height - 12));
        blot(&mut picture, &mut mask, x, y, 7.0);
    } else {
        let (x, y) = (rng.random_range(10..SIZE.width - 50), rng.random_range(36..SIZE.height - 8));
        for i in 0..40 {
            for thick in 0..3 {
                let at = (y + thick + i / 16) * SIZE.width + x + i;
                picture.rgb_mut()[at * 3..at * 3 + 3].copy_from_slice(&[250, 250, 240]);
                mask.flags_mut()[at] = true;
            }
        }
    }
    (picture, mask)
}
