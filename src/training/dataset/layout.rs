//! Finds pictures and masks under a root.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use super::{DatasetError, Label, Sample, Split};

/// A data set beyond this was surely pointed at the wrong folder.
const MAX_FILES: usize = 1_000_000;

const EXTENSIONS: [&str; 6] = ["png", "jpg", "jpeg", "bmp", "tif", "tiff"];

/// Every picture under `root`, sorted by name, each with its mask.
pub(super) fn scan(root: &Path) -> Result<Vec<Sample>, DatasetError> {
    if !root.is_dir() {
        return Err(DatasetError::NoSuchFolder(root.to_path_buf()));
    }
    let splits = [Split::Train, Split::Test];
    if splits.iter().all(|split| !root.join(split.as_str()).is_dir()) {
        return Err(DatasetError::NotALayout(root.to_path_buf()));
    }
    let mut samples = Vec::new();
    for split in splits {
        for folder in label_folders(&root.join(split.as_str()))? {
            let label = if folder == "good" { Label::Good } else { Label::Defect(folder.clone()) };
            let prefix = format!("{}/{folder}", split.as_str());
            for file in pictures(&root.join(&prefix))? {
                let name = format!("{prefix}/{file}");
                samples.push(Sample {
                    path: root.join(&name),
                    name,
                    split,
                    label: label.clone(),
                    mask: None,
                    group: None,
                });
            }
        }
    }
    if samples.is_empty() {
        return Err(DatasetError::NoPictures(root.to_path_buf()));
    }
    samples.sort_by(|a, b| a.name.cmp(&b.name));
    find_masks(root, &mut samples)?;
    Ok(samples)
}

/// Names in a folder, sorted, without those that systems leave behind.
fn names(folder: &Path) -> Result<Vec<(String, bool)>, DatasetError> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).map_err(DatasetError::unreadable(folder))? {
        let path = entry.map_err(DatasetError::unreadable(folder))?.path();
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else {
            return Err(DatasetError::Name(path));
        };
        if name.starts_with('.') || name.eq_ignore_ascii_case("thumbs.db") {
            continue;
        }
        if found.len() == MAX_FILES {
            return Err(DatasetError::TooManyFiles { folder: folder.to_path_buf(), limit: MAX_FILES });
        }
        found.push((name.to_owned(), path.is_dir()));
    }
    found.sort();
    Ok(found)
}

/// `good` and the defect types under `train/`, `test/` or `ground_truth/`; none where it is missing.
fn label_folders(folder: &Path) -> Result<Vec<String>, DatasetError> {
    if !folder.is_dir() {
        return Ok(Vec::new());
    }
    let mut folders = Vec::new();
    for (name, is_folder) in names(folder)? {
        if is_folder {
            folders.push(name);
        } else if is_picture(&name) {
            return Err(DatasetError::StrayPicture(folder.join(name)));
        }
    }
    Ok(folders)
}

fn is_picture(name: &str) -> bool {
    Path::new(name)
        .extension()
        .and_then(|extension| extension.to_str())
        .is_some_and(|extension| EXTENSIONS.iter().any(|known| known.eq_ignore_ascii_case(extension)))
}

fn pictures(folder: &Path) -> Result<Vec<String>, DatasetError> {
    names(folder)?
        .into_iter()
        .map(|(name, is_folder)| {
            if is_folder {
                Err(DatasetError::UnexpectedFolder(folder.join(name)))
            } else if is_picture(&name) {
                Ok(name)
            } else {
                Err(DatasetError::UnsupportedKind(folder.join(name)))
            }
        })
        .collect()
}

fn stem(name: &str) -> &str {
    name.rsplit_once('.').map_or(name, |(stem, _)| stem)
}

/// Gives each defect its mask. `train/DEFECT` and `test/DEFECT` share `ground_truth/DEFECT`.
fn find_masks(root: &Path, samples: &mut [Sample]) -> Result<(), DatasetError> {
    let ground_truth = root.join("ground_truth");
    // Some sets carry all-black masks for good; a good picture has no defect, so they say nothing.
    for kind in label_folders(&ground_truth)?.into_iter().filter(|kind| kind != "good") {
        let folder = ground_truth.join(&kind);
        // Several pictures of one stem are trouble only when a mask wants one of them.
        let mut by_stem: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        for (index, sample) in samples.iter().enumerate().filter(|(_, s)| s.label.as_str() == kind) {
            let file = sample.name.rsplit('/').next().unwrap_or_default();
            by_stem.entry(stem(file).to_owned()).or_default().push(index);
        }
        let mut given = BTreeSet::new();
        for file in pictures(&folder)? {
            let mask = folder.join(&file);
            let stem = stem(&file);
            // The plain name first: a picture may itself be called NAME_mask.
            let named = by_stem.get(stem).or_else(|| by_stem.get(stem.strip_suffix("_mask")?));
            match named.map(Vec::as_slice) {
                Some(&[index]) if given.insert(index) => samples[index].mask = Some(mask),
                Some(&[index]) => return Err(two_masks(&samples[index], mask)),
                Some(&[first, second, ..]) => {
                    return Err(DatasetError::SharedMask {
                        mask,
                        first: samples[first].path.clone(),
                        second: samples[second].path.clone(),
                    });
                }
                Some(&[]) | None => {
                    return Err(DatasetError::MaskWithoutPicture { mask, looked_in: root.join("test").join(&kind) });
                }
            }
        }
    }
    Ok(())
}

fn two_masks(sample: &Sample, second: PathBuf) -> DatasetError {
    let first = sample.mask.clone().unwrap_or_default();
    DatasetError::TwoMasks { picture: sample.path.clone(), first, second }
}
