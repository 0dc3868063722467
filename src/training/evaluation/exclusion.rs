//! Which test pictures training has seen.

use std::collections::{BTreeSet, HashSet};

use super::result::{Excluded, Exclusion};
use crate::bundle::Provenance;
use crate::training::dataset::{Dataset, DatasetError, Sample, Split};

/// The test pictures in order of their names, and those left out: known defects by the content of
/// the file (wherever it lies), everything of their groups, and normals by name.
///
/// # Errors
/// A picture cannot be read.
pub(super) fn split<'a>(
    dataset: &'a Dataset,
    provenance: &Provenance,
) -> Result<(Vec<&'a Sample>, Vec<Excluded>), DatasetError> {
    let known: HashSet<&str> = provenance.known_defects.iter().map(|d| d.sha256.as_str()).collect();
    let normals: HashSet<&str> = provenance.normals.iter().map(String::as_str).collect();
    let mut groups: BTreeSet<&str> = provenance.known_defects.iter().filter_map(|d| d.group.as_deref()).collect();
    let mut used: HashSet<&str> = HashSet::new();
    if !known.is_empty() {
        // Also those outside test/: their groups must not be met there.
        for sample in &dataset.samples {
            if (sample.label.is_defect() || sample.split == Split::Test) && known.contains(sample.sha256()?.as_str()) {
                used.insert(&sample.name);
                groups.extend(sample.group.as_deref());
            }
        }
    }
    let reason = |sample: &Sample| {
        if used.contains(sample.name.as_str()) {
            Some(Exclusion::KnownDefect)
        } else if sample.group.as_deref().is_some_and(|group| groups.contains(group)) {
            Some(Exclusion::GroupOfKnownDefect)
        } else {
            normals.contains(sample.name.as_str()).then_some(Exclusion::TrainingNormal)
        }
    };
    let (mut kept, mut excluded) = (Vec::new(), Vec::new());
    for sample in dataset.samples.iter().filter(|sample| sample.split == Split::Test) {
        match reason(sample) {
            Some(reason) => excluded.push(Excluded { name: sample.name.clone(), reason }),
            None => kept.push(sample),
        }
    }
    Ok((kept, excluded))
}

/// What a reader of the figures must know about what was or was not left out.
pub(super) fn warnings(dataset: &Dataset, provenance: &Provenance, kept: &[&Sample]) -> Vec<String> {
    let mut warnings = Vec::new();
    let grouped = dataset.samples.iter().any(|sample| sample.group.is_some());
    if !grouped && provenance.known_defects.iter().any(|defect| defect.group.is_some()) {
        warnings.push(
            "the bundle was trained with groups and none are given here: other pictures of its known defects' parts \
             are still in the test, which makes it easier than it looks; give --groups"
                .to_owned(),
        );
    }
    let groups: BTreeSet<&str> = kept.iter().filter_map(|sample| sample.group.as_deref()).collect();
    if grouped && groups.len() < kept.len() {
        warnings.push(format!(
            "{} pictures show only {} parts: the intervals take them as independent and are too narrow",
            kept.len(),
            groups.len()
        ));
    }
    warnings
}
