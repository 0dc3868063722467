//! Which pictures play which part: known defects, training and calibration normals.

use std::collections::{BTreeMap, BTreeSet};

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use super::{DatasetError, Sample};

/// Least number of normals on either side of [`hold_out`].
pub const MINIMUM_NORMALS: usize = 4;

/// Samples by group, sorted; a sample without a group is a group of its own.
fn by_group<'a>(samples: &[&'a Sample]) -> Vec<Vec<&'a Sample>> {
    let mut groups: BTreeMap<(bool, &str), Vec<&Sample>> = BTreeMap::new();
    for &sample in samples {
        // The flag keeps a group from meeting a file of the same name.
        let key = sample.group.as_deref().map_or((false, sample.name.as_str()), |group| (true, group));
        groups.entry(key).or_default().push(sample);
    }
    let mut groups: Vec<_> = groups.into_values().collect();
    for group in &mut groups {
        group.sort_by(|a, b| a.name.cmp(&b.name));
        group.dedup_by(|a, b| a.name == b.name);
    }
    groups
}

/// How many groups these come from.
fn groups_in(samples: &[(usize, &Sample)]) -> usize {
    samples.iter().map(|(group, _)| group).collect::<BTreeSet<_>>().len()
}

/// Chooses `count` known defects evenly over types; sorted by name, the same for the same
/// candidates (in any order) and seed.
///
/// Groups are shuffled, and the pictures in each. Then the types, in order of their names, take
/// turns, each taking one picture; a type without any left is passed over. So the numbers per type
/// differ by one at most, but for types that run out. A type takes from a group that it has not used
/// yet, because ten defects teach more than one defect ten times: first from one that another type
/// has used, else from one that nobody has. Once nobody has used only half of its groups, it takes
/// from its own again as long as they last, because whoever evaluates must leave out every picture of
/// a used group, chosen or not. Without groups every picture is its own.
///
/// # Errors
/// [`DatasetError::TooFewDefects`] when `count` is more than there are.
pub fn choose_known_defects(candidates: &[&Sample], count: usize, seed: u64) -> Result<Vec<Sample>, DatasetError> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut groups = by_group(candidates);
    groups.shuffle(&mut rng);
    // Per type: (group, sample), the next one last.
    let mut waiting: BTreeMap<&str, Vec<(usize, &Sample)>> = BTreeMap::new();
    for (number, group) in groups.iter_mut().enumerate().rev() {
        group.shuffle(&mut rng);
        for &sample in &*group {
            waiting.entry(sample.label.as_str()).or_default().push((number, sample));
        }
    }
    let available = waiting.values().map(Vec::len).sum();
    if count > available {
        let by_type: Vec<_> = waiting.iter().map(|(kind, samples)| format!("{kind} {}", samples.len())).collect();
        let by_type = if by_type.is_empty() { "no defect type".to_owned() } else { by_type.join(", ") };
        return Err(DatasetError::TooFewDefects { asked: count, available, by_type });
    }
    let spare: BTreeMap<&str, usize> = waiting.iter().map(|(&kind, samples)| (kind, groups_in(samples) / 2)).collect();
    let mut used = BTreeSet::new();
    let mut used_by: BTreeMap<&str, BTreeSet<usize>> = BTreeMap::new();
    let mut chosen = Vec::with_capacity(count);
    while chosen.len() < count {
        for (&kind, samples) in waiting.iter_mut().filter(|(_, samples)| !samples.is_empty()) {
            if chosen.len() == count {
                break;
            }
            let own = used_by.entry(kind).or_default();
            let fresh: Vec<_> = samples.iter().filter(|(group, _)| !used.contains(group)).copied().collect();
            let may_open = groups_in(&fresh) > spare[kind];
            let rank = |group| match (used.contains(&group), own.contains(&group)) {
                (true, false) => 0,
                (false, _) if may_open => 1,
                (true, true) => 2,
                (false, _) => 3,
            };
            let Some(at) = (0..samples.len()).rev().min_by_key(|&at| rank(samples[at].0)) else { continue };
            let (group, sample) = samples.remove(at);
            used.insert(group);
            own.insert(group);
            chosen.push(sample.clone());
        }
    }
    chosen.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(chosen)
}

/// Splits normals into (training, calibration), both sorted by name, so that about `fraction` is
/// held out for calibration; by whole groups where given; the same for the same normals and seed.
///
/// Groups are shuffled and taken into calibration while that brings its size nearer to the wanted
/// one, which is kept within [`MINIMUM_NORMALS`] of either end. If calibration is then below the
/// minimum, the smallest groups follow until it is not. A group with a picture of `fitted`, on
/// which the flows were fitted before, stays in training: it would make the calibration look better
/// than what comes.
///
/// # Errors
/// [`DatasetError::TooFewUnfitted`] when calibration lacks pictures because of `fitted`;
/// [`DatasetError::TooFewNormals`] when either side would have less than [`MINIMUM_NORMALS`]
/// pictures; [`DatasetError::Fraction`] when `fraction` is not within (0, 1).
pub fn hold_out(
    normals: &[&Sample],
    fraction: f64,
    seed: u64,
    fitted: &BTreeSet<String>,
) -> Result<(Vec<Sample>, Vec<Sample>), DatasetError> {
    if !(fraction > 0.0 && fraction < 1.0) {
        return Err(DatasetError::Fraction(fraction));
    }
    let mut groups = by_group(normals);
    let number_of_groups = groups.len();
    let total: usize = groups.iter().map(Vec::len).sum();
    let too_few = || DatasetError::TooFewNormals { normals: total, groups: number_of_groups, minimum: MINIMUM_NORMALS };
    if total < 2 * MINIMUM_NORMALS {
        return Err(too_few());
    }
    let most = total - MINIMUM_NORMALS;
    let wanted = ((total as f64 * fraction).round() as usize).clamp(MINIMUM_NORMALS, most);
    groups.shuffle(&mut ChaCha8Rng::seed_from_u64(seed));

    let mut held: Vec<&Sample> = Vec::new();
    let (used, free): (Vec<_>, Vec<_>) =
        groups.into_iter().partition(|group| group.iter().any(|sample| fitted.contains(&sample.name)));
    let available = free.iter().map(Vec::len).sum();
    let mut kept = Vec::new();
    for group in free {
        let with = held.len() + group.len();
        if with <= most && with.abs_diff(wanted) < held.len().abs_diff(wanted) {
            held.extend(group);
        } else {
            kept.push(group);
        }
    }
    // Stable, so that equal sizes stay shuffled.
    kept.sort_by_key(Vec::len);
    let mut kept = kept.into_iter().peekable();
    while held.len() < MINIMUM_NORMALS {
        match kept.next_if(|group| held.len() + group.len() <= most) {
            Some(group) => held.extend(group),
            None if used.is_empty() => return Err(too_few()),
            None => return Err(DatasetError::TooFewUnfitted { available, minimum: MINIMUM_NORMALS }),
        }
    }
    let sorted = |samples: Vec<&Sample>| {
        let mut samples: Vec<Sample> = samples.into_iter().cloned().collect();
        samples.sort_by(|a, b| a.name.cmp(&b.name));
        samples
    };
    Ok((sorted(kept.chain(used).flatten().collect()), sorted(held)))
}
