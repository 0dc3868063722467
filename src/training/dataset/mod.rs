//! Data sets in MVTec layout: `train/good`, `test/good`, `test/DEFECT`, `ground_truth/DEFECT`.
//!
//! ```text
//! ROOT/train/good/*                  normals to learn from
//! ROOT/train/DEFECT/*                defects to learn from (optional)
//! ROOT/test/good/*, test/DEFECT/*    what evaluation looks at
//! ROOT/ground_truth/DEFECT/NAME_mask.EXT or NAME.EXT   mask of DEFECT/NAME.* (optional)
//! ```
//!
//! png, jpeg, bmp and tiff; grey or colour; 8 or 16 bits; mixed sizes. Other files in these folders
//! are refused, since one that is silently left out is missed by nobody; only hidden files and
//! `Thumbs.db` are passed over. Files elsewhere under the root are not looked at.

mod choice;
mod error;
mod groups;
mod layout;
mod pixels;
mod warning;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::bundle::{sha256_file, sha256_hex};

pub use choice::{MINIMUM_NORMALS, choose_known_defects, hold_out};
pub use error::DatasetError;
pub use pixels::{MAX_FILE_BYTES, MAX_PIXELS, MAX_SIDE, load_mask, load_picture, picture_size};
pub use warning::Warning;

/// What a picture shows, by its folder.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Label {
    /// A normal part.
    Good,
    /// A defective part; the type is the folder's name.
    Defect(String),
}

impl Label {
    /// Whether it is a defect.
    pub fn is_defect(&self) -> bool {
        matches!(self, Self::Defect(_))
    }

    /// The folder's name: `good` or the defect type.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Good => "good",
            Self::Defect(kind) => kind,
        }
    }
}

impl std::fmt::Display for Label {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}

/// Which half of the data set a picture belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Split {
    /// To learn from.
    Train,
    /// To judge by.
    Test,
}

impl Split {
    /// The folder's name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Test => "test",
        }
    }
}

/// One picture file.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Sample {
    /// The file: the given root joined with `name`.
    pub path: PathBuf,
    /// Path relative to the root with `/`, such as `test/crack/07.png`.
    pub name: String,
    /// Half of the data set.
    pub split: Split,
    /// What it shows.
    pub label: Label,
    /// Its mask, where one is there.
    pub mask: Option<PathBuf>,
    /// The part or lot it shows, where a groups file was given.
    pub group: Option<String>,
}

impl Sample {
    /// SHA-256 of the picture file, hexadecimal.
    ///
    /// # Errors
    /// [`DatasetError::Unreadable`].
    pub fn sha256(&self) -> Result<String, DatasetError> {
        sha256_file(&self.path).map_err(DatasetError::unreadable(&self.path))
    }
}

/// A data set's files, sorted by name. Pictures are not decoded here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dataset {
    /// The folder, as it was given.
    pub root: PathBuf,
    /// Every picture, sorted by name.
    pub samples: Vec<Sample>,
    notes: Vec<Warning>,
}

impl Dataset {
    /// Reads the folders under `root` and, where given, the groups file: CSV, header `file,group`,
    /// a line per picture with its name as in [`Sample::name`] and its group's name. Pictures of
    /// one group show the same part; they must never stand on two sides of a split. A line that
    /// names no picture of the data set is a [`Warning`].
    ///
    /// # Errors
    /// [`DatasetError`] when a folder or file is missing, unreadable or of another kind, a mask
    /// fits no picture or several, or the groups file forgets a picture.
    pub fn open(root: &Path, groups: Option<&Path>) -> Result<Self, DatasetError> {
        let mut samples = layout::scan(root)?;
        let mut notes = Vec::new();
        if let Some(path) = groups {
            notes = groups::Groups::read(path)?.assign(path, &mut samples)?;
        }
        Ok(Self { root: root.to_path_buf(), samples, notes })
    }

    /// [`Dataset::open`], and there must be a normal picture to learn from.
    ///
    /// # Errors
    /// As [`Dataset::open`]; [`DatasetError::NoTrainGood`].
    pub fn open_for_training(root: &Path, groups: Option<&Path>) -> Result<Self, DatasetError> {
        let dataset = match Self::open(root, groups) {
            Err(DatasetError::NotALayout(_) | DatasetError::NoPictures(_)) => {
                return Err(DatasetError::NoTrainGood(root.join("train/good")));
            }
            other => other?,
        };
        if dataset.train_good().is_empty() {
            return Err(DatasetError::NoTrainGood(root.join("train/good")));
        }
        Ok(dataset)
    }

    fn select(&self, split: Split, defect: bool) -> Vec<&Sample> {
        self.samples.iter().filter(|s| s.split == split && s.label.is_defect() == defect).collect()
    }

    /// Normals to learn from, sorted by name.
    pub fn train_good(&self) -> Vec<&Sample> {
        self.select(Split::Train, false)
    }

    /// Defects under `train/`, sorted by name: known defects without a choice.
    pub fn train_defects(&self) -> Vec<&Sample> {
        self.select(Split::Train, true)
    }

    /// Normals to judge by, sorted by name.
    pub fn test_good(&self) -> Vec<&Sample> {
        self.select(Split::Test, false)
    }

    /// Defects to judge by, sorted by name.
    pub fn test_defects(&self) -> Vec<&Sample> {
        self.select(Split::Test, true)
    }

    /// Makes sure that every one of `types` is a defect type of this set.
    ///
    /// # Errors
    /// [`DatasetError::UnknownType`] names the first that is not, and those that are.
    pub fn require_types(&self, types: &[String]) -> Result<(), DatasetError> {
        let there: BTreeSet<&str> =
            self.samples.iter().filter(|s| s.label.is_defect()).map(|s| s.label.as_str()).collect();
        match types.iter().find(|wanted| !there.contains(wanted.as_str())) {
            None => Ok(()),
            Some(wanted) => Err(DatasetError::UnknownType {
                wanted: wanted.clone(),
                there: there.into_iter().collect::<Vec<_>>().join(", "),
            }),
        }
    }

    /// SHA-256, hexadecimal, over a line `NAME\0SHA-256 of the file\n` per picture in the order
    /// given: changes when a picture is added, taken out, renamed or altered.
    ///
    /// # Errors
    /// [`DatasetError::Unreadable`].
    pub fn digest(samples: &[&Sample]) -> Result<String, DatasetError> {
        let mut listing = String::new();
        for sample in samples {
            listing.extend([sample.name.as_str(), "\0", sample.sha256()?.as_str(), "\n"]);
        }
        Ok(sha256_hex(listing.as_bytes()))
    }
}
