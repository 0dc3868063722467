//! One training set from the base set and what a person has sorted: links in a temporary folder.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use tempfile::TempDir;

use crate::training::dataset::{Dataset, Sample, Split};

/// Before the names of reviewed pictures, so that they meet none of the base set.
const PREFIX: &str = "reviewed-";
const MASKS: &str = "ground_truth";

/// The combined training set; the links go when it is dropped.
#[derive(Debug)]
pub(super) struct Assembled {
    folder: TempDir,
    /// Groups file, where the base set has one; every reviewed picture is a group of its own.
    pub(super) groups: Option<PathBuf>,
    /// SHA-256 of every picture that may be trained on without a choice.
    pub(super) hashes: BTreeSet<String>,
    /// Reviewed pictures per folder.
    pub(super) reviewed: BTreeMap<String, usize>,
    /// Reviewed defects with a mask; the others are weak.
    pub(super) with_mask: usize,
}

impl Assembled {
    /// The root of the layout.
    pub(super) fn root(&self) -> &Path {
        self.folder.path()
    }
}

/// Puts base and reviewed pictures together. The test pictures of the base set come along, since
/// a training configuration may take known defects from there.
pub(super) fn assemble(base: &Path, groups: Option<&Path>, reviewed: &Path) -> anyhow::Result<Assembled> {
    let folder = tempfile::tempdir().context("cannot make a temporary folder for the training set")?;
    let base_set = Dataset::open_for_training(base, groups).context("the base set cannot be used")?;
    let sorted = open_reviewed(reviewed)?;
    let mut assembled =
        Assembled { groups: None, hashes: BTreeSet::new(), reviewed: BTreeMap::new(), with_mask: 0, folder };
    let mut listing = vec![["file".to_owned(), "group".to_owned()]];
    for sample in &base_set.samples {
        link(&sample.path, &assembled.root().join(&sample.name))?;
        if let Some(mask) = &sample.mask {
            link(mask, &assembled.root().join(MASKS).join(sample.label.as_str()).join(file_name(mask)?))?;
        }
        if sample.split == Split::Train {
            assembled.hashes.insert(sample.sha256()?);
        }
        listing.push([sample.name.clone(), sample.group.clone().unwrap_or_default()]);
    }
    let mut seen: BTreeMap<String, &Sample> = BTreeMap::new();
    for sample in sorted.iter().flat_map(|set| &set.0.samples) {
        let hash = sample.sha256()?;
        if let Some(other) = seen.get(&hash).filter(|other| other.label != sample.label) {
            bail!(
                "the same picture was sorted into {} and {} below {}: keep one of them",
                &other.name["train/".len()..],
                &sample.name["train/".len()..],
                reviewed.display()
            );
        }
        // Sorted twice into one folder it would only count twice.
        if seen.contains_key(&hash) {
            continue;
        }
        seen.insert(hash.clone(), sample);
        let name = format!("train/{}/{PREFIX}{}", sample.label, file_name(&sample.path)?);
        link(&sample.path, &assembled.root().join(&name))?;
        if let Some(mask) = &sample.mask {
            let mask_name = format!("{PREFIX}{}", file_name(mask)?);
            link(mask, &assembled.root().join(MASKS).join(sample.label.as_str()).join(mask_name))?;
        }
        assembled.with_mask += usize::from(sample.mask.is_some() && sample.label.is_defect());
        *assembled.reviewed.entry(sample.label.as_str().to_owned()).or_default() += 1;
        assembled.hashes.insert(hash);
        listing.push([name.clone(), format!("reviewed {name}")]);
    }
    if groups.is_some() {
        let path = assembled.root().join("groups.csv");
        let text: String =
            listing.iter().map(|[file, group]| format!("{},{}\n", quoted(file), quoted(group))).collect();
        fs::write(&path, text).context("cannot write the groups of the training set")?;
        assembled.groups = Some(path);
    }
    Ok(assembled)
}

/// The reviewed folder seen as `train/`, so that it is held to the same rules; none where nothing
/// was sorted yet. Its links live as long as the temporary folder.
fn open_reviewed(reviewed: &Path) -> anyhow::Result<Option<(Dataset, TempDir)>> {
    let entries = match fs::read_dir(reviewed) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        entries => entries.with_context(|| format!("cannot list the reviewed folder {}", reviewed.display()))?,
    };
    let folder = tempfile::tempdir().context("cannot make a temporary folder")?;
    let mut has_pictures = false;
    for entry in entries {
        let path = entry.with_context(|| format!("cannot list {}", reviewed.display()))?.path();
        let name = file_name(&path)?;
        if name.starts_with('.') {
            continue;
        }
        if !path.is_dir() {
            bail!("{} lies beside the folders: sort it into good/ or the folder of its defect type", path.display());
        }
        if name == MASKS {
            link(&path, &folder.path().join(MASKS))?;
        } else {
            has_pictures |= fs::read_dir(&path).is_ok_and(|mut entries| entries.next().is_some());
            link(&path, &folder.path().join("train").join(name))?;
        }
    }
    if !has_pictures {
        return Ok(None);
    }
    let set = Dataset::open(folder.path(), None).with_context(|| {
        format!("the reviewed folder {} (below, {}/train stands for it)", reviewed.display(), folder.path().display())
    })?;
    Ok(Some((set, folder)))
}

fn file_name(path: &Path) -> anyhow::Result<&str> {
    path.file_name().and_then(|name| name.to_str()).with_context(|| format!("{} has no readable name", path.display()))
}

fn link(target: &Path, at: &Path) -> anyhow::Result<()> {
    let doing = || format!("cannot link {} into the training set", target.display());
    if let Some(parent) = at.parent() {
        fs::create_dir_all(parent).with_context(doing)?;
    }
    // A link to a link below a temporary folder would end with it.
    let target = fs::canonicalize(target).with_context(doing)?;
    symlink(target, at).with_context(doing)
}

fn quoted(field: &str) -> String {
    if field.contains([',', '"']) { format!("\"{}\"", field.replace('"', "\"\"")) } else { field.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A picture file whose content depends on its shade alone.
    fn picture(path: &Path, shade: u8) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        image::RgbImage::from_pixel(32, 32, image::Rgb([shade; 3])).save(path).unwrap();
    }

    fn base() -> TempDir {
        let base = tempfile::tempdir().unwrap();
        for i in 0..3 {
            picture(&base.path().join(format!("train/good/{i}.png")), i);
        }
        picture(&base.path().join("test/crack/7.png"), 50);
        picture(&base.path().join("ground_truth/crack/7_mask.png"), 255);
        base
    }

    #[test]
    fn reviewed_pictures_join_the_base_set_with_their_masks_and_without_a_clash_of_names() {
        let base = base();
        let reviewed = tempfile::tempdir().unwrap();
        picture(&reviewed.path().join("good/0.png"), 100);
        picture(&reviewed.path().join("crack/7.png"), 101);
        picture(&reviewed.path().join("crack/8.png"), 102);
        picture(&reviewed.path().join("ground_truth/crack/7_mask.png"), 255);
        let assembled = assemble(base.path(), None, reviewed.path()).unwrap();
        let set = Dataset::open_for_training(assembled.root(), None).unwrap();
        assert_eq!(set.train_good().len(), 4);
        let defects = set.train_defects();
        assert_eq!(
            defects.iter().map(|s| s.name.as_str()).collect::<Vec<_>>(),
            ["train/crack/reviewed-7.png", "train/crack/reviewed-8.png"]
        );
        assert!(defects[0].mask.as_ref().is_some_and(|mask| mask.is_file()));
        assert!(defects[1].mask.is_none());
        assert!(set.test_defects()[0].mask.is_some());
        assert_eq!((assembled.reviewed["good"], assembled.reviewed["crack"], assembled.with_mask), (1, 2, 1));
        assert_eq!(assembled.hashes.len(), 6);
        assert!(!assembled.hashes.contains(&set.test_defects()[0].sha256().unwrap()));
        assert!(assembled.groups.is_none());
    }

    #[test]
    fn groups_of_the_base_set_stay_and_every_reviewed_picture_is_a_group_of_its_own() {
        let base = base();
        let groups = base.path().join("groups.csv");
        fs::write(
            &groups,
            "file,group\ntrain/good/0.png,a\ntrain/good/1.png,a\ntrain/good/2.png,b\ntest/crack/7.png,c\n",
        )
        .unwrap();
        let reviewed = tempfile::tempdir().unwrap();
        picture(&reviewed.path().join("good/one, two.png"), 100);
        let assembled = assemble(base.path(), Some(&groups), reviewed.path()).unwrap();
        let set = Dataset::open(assembled.root(), assembled.groups.as_deref()).unwrap();
        let groups: Vec<_> = set.train_good().iter().map(|s| s.group.clone().unwrap()).collect();
        assert_eq!(groups, ["a", "a", "b", "reviewed train/good/reviewed-one, two.png"]);
    }

    #[test]
    fn a_picture_sorted_as_good_and_as_a_defect_is_refused_and_twice_the_same_counts_once() {
        let base = base();
        let reviewed = tempfile::tempdir().unwrap();
        picture(&reviewed.path().join("crack/1.png"), 100);
        picture(&reviewed.path().join("crack/2.png"), 100);
        assert_eq!(assemble(base.path(), None, reviewed.path()).unwrap().reviewed["crack"], 1);
        picture(&reviewed.path().join("good/3.png"), 100);
        let error = assemble(base.path(), None, reviewed.path()).unwrap_err().to_string();
        assert!(error.contains("crack/1.png and good/3.png"), "{error}");
    }

    #[test]
    fn nothing_reviewed_is_no_error_and_a_stray_file_is_one() {
        let base = base();
        let reviewed = tempfile::tempdir().unwrap();
        fs::create_dir(reviewed.path().join("good")).unwrap();
        assert!(assemble(base.path(), None, reviewed.path()).unwrap().reviewed.is_empty());
        assert!(assemble(base.path(), None, &reviewed.path().join("none")).unwrap().reviewed.is_empty());
        picture(&reviewed.path().join("7.png"), 9);
        assert!(assemble(base.path(), None, reviewed.path()).is_err());
    }
}
