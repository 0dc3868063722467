//! What is odd about a data set, but no reason to stop.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::{Dataset, DatasetError, Label, load_mask, picture_size};

/// What is odd about a data set, but no reason to stop.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Warning {
    /// A defect's mask shows nothing.
    #[error(
        "the mask {} marks no defect (no value above 127): its picture counts as a defect without a region",
        .0.display()
    )]
    EmptyMask(PathBuf),
    /// Defects without masks.
    #[error("{count} of {of} pictures of {kind} have no mask: they have no say in the pixel figures")]
    WithoutMask {
        /// Defect type.
        kind: String,
        /// Pictures without a mask.
        count: usize,
        /// Pictures.
        of: usize,
    },
    /// One part on both sides of the judgement.
    #[error("group {group} is both in train/ and in test/: the test is easier than it looks")]
    GroupInBothSplits {
        /// The group.
        group: String,
    },
    /// The groups file names pictures that are not there.
    #[error("{} names {count} picture(s) that are not there, first {first} on line {line}", .groups.display())]
    GroupsNameMissing {
        /// The groups file.
        groups: PathBuf,
        /// How many.
        count: usize,
        /// The first one.
        first: String,
        /// Its line, counted from 1.
        line: usize,
    },
}

impl Dataset {
    /// What is odd about the data set. Decodes every mask and reads every such picture's size.
    ///
    /// # Errors
    /// [`DatasetError`] when a mask cannot be read or has another size than its picture.
    pub fn warnings(&self) -> Result<Vec<Warning>, DatasetError> {
        let mut warnings = self.notes.clone();
        let mut without: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
        for sample in &self.samples {
            if let Label::Defect(kind) = &sample.label {
                let counts = without.entry(kind).or_default();
                counts.0 += usize::from(sample.mask.is_none());
                counts.1 += 1;
            }
            if let Some(mask) = &sample.mask
                && load_mask(mask, picture_size(&sample.path)?)?.area() == 0
                && sample.label.is_defect()
            {
                warnings.push(Warning::EmptyMask(mask.clone()));
            }
        }
        warnings.extend(
            without.into_iter().filter(|(_, (count, _))| *count > 0).map(|(kind, (count, of))| Warning::WithoutMask {
                kind: kind.to_owned(),
                count,
                of,
            }),
        );
        Ok(warnings)
    }
}
