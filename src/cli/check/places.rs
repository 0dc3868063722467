//! Folders and files: writable, with room, and holding what they should.

use std::path::{Path, PathBuf};

use super::Trial;
use crate::config::{Archive, Retrain, TrainingConfig};
use crate::training::dataset::Dataset;

/// Free space below which decisions may soon have nowhere to wait, MiB.
const OUTBOX_MIB: u64 = 64;
/// Entries of the archive counted at most.
const MAX_ENTRIES: usize = 1_000_000;

pub(super) fn outbox(file: &Path) -> Trial {
    let name = "outbox";
    let folder = file.parent().unwrap_or(Path::new("."));
    match writable(folder) {
        Err(problem) => Trial::fail(name, problem),
        Ok(there) => match free_mib(&there) {
            Ok(free) if free < OUTBOX_MIB => {
                Trial::fail(name, format!("only {free} MiB are free for {}: make room", file.display()))
            }
            Ok(free) => Trial::ok(name, format!("{} can be written, {free} MiB free", file.display())),
            Err(error) => Trial::fail(name, format!("{}: free space is unknown: {error}", folder.display())),
        },
    }
}

pub(super) fn archive(config: &Archive) -> Trial {
    let name = "archive";
    let folder = &config.directory;
    match writable(folder) {
        Err(problem) => Trial::fail(name, problem),
        Ok(there) => match free_mib(&there) {
            Ok(free) if free + held_mib(folder) < config.quota_mib => Trial::fail(
                name,
                format!(
                    "{} may grow to {} MiB, but only {free} MiB are free: lower `archive.quota_mib` or make room",
                    folder.display(),
                    config.quota_mib
                ),
            ),
            Ok(free) => Trial::ok(name, format!("{} can be written, {free} MiB free", folder.display())),
            Err(error) => Trial::fail(name, format!("{}: free space is unknown: {error}", folder.display())),
        },
    }
}

pub(super) fn retrain(config: &Retrain) -> Vec<Trial> {
    let base = match Dataset::open_for_training(&config.base, config.base_groups.as_deref()) {
        Ok(set) => Trial::ok("retrain base", format!("{} normal pictures to learn from", set.train_good().len())),
        Err(error) => Trial::error("retrain base", error),
    };
    let gate = match Dataset::open(&config.gate, None) {
        Ok(set) => {
            let (good, defective) = (set.test_good().len(), set.test_defects().len());
            if good == 0 || defective == 0 {
                let found = format!("{good} good and {defective} defective pictures under test/");
                Trial::fail("retrain gate", format!("{} has {found}: one of each is needed", config.gate.display()))
            } else {
                Trial::ok("retrain gate", format!("{good} good and {defective} defective pictures to judge by"))
            }
        }
        Err(error) => Trial::error("retrain gate", error),
    };
    let reviewed = if config.reviewed.is_dir() {
        Trial::ok("retrain reviewed", format!("{} is there", config.reviewed.display()))
    } else if config.reviewed.exists() {
        Trial::fail("retrain reviewed", format!("{} is no folder", config.reviewed.display()))
    } else {
        Trial::ok("retrain reviewed", format!("{} does not exist yet: nothing is reviewed", config.reviewed.display()))
    };
    let reports = match writable(&config.reports) {
        Ok(_) => Trial::ok("retrain reports", format!("{} can be written", config.reports.display())),
        Err(problem) => Trial::fail("retrain reports", problem),
    };
    let training = config.training.as_deref().map(|path| match TrainingConfig::load(path) {
        Ok(_) => Trial::ok("retrain training", format!("{} is in order", path.display())),
        Err(error) => Trial::error("retrain training", error),
    });
    [base, gate, reviewed, reports].into_iter().chain(training).collect()
}

/// The folder, or the nearest one above it that exists, where it can be written: missing ones are
/// made by the line. Nothing is left behind.
fn writable(folder: &Path) -> Result<PathBuf, String> {
    let there = folder.ancestors().find(|above| above.exists()).unwrap_or(Path::new("/"));
    if !there.is_dir() {
        return Err(format!("{} is a file where a folder is needed", there.display()));
    }
    match tempfile::tempfile_in(there) {
        Ok(_) => Ok(there.to_owned()),
        Err(error) => {
            Err(format!("{} cannot be written ({error}): give it to the user that runs the line", there.display()))
        }
    }
}

fn free_mib(folder: &Path) -> std::io::Result<u64> {
    let disk = rustix::fs::statvfs(folder)?;
    Ok(disk.f_bavail.saturating_mul(disk.f_frsize) >> 20)
}

/// What a folder holds, MiB; what cannot be read counts nothing.
fn held_mib(folder: &Path) -> u64 {
    let mut bytes = 0;
    let mut entries = 0;
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            entries += 1;
            if entries > MAX_ENTRIES {
                return bytes >> 20;
            }
            match entry.metadata() {
                Ok(metadata) if metadata.is_dir() => folders.push(entry.path()),
                Ok(metadata) => bytes += metadata.len(),
                Err(_) => {}
            }
        }
    }
    bytes >> 20
}
