//! What the folder holds, and what goes first when it is full.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use serde::Deserialize;

use super::write::{ENDINGS, RECORD, TEMPORARY};
use crate::inspection::Verdict;

/// One kept frame with all its files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Kept {
    /// Whether it goes first: an accept, or one without a readable record.
    pub(super) accept: bool,
    /// Bytes of all files.
    pub(super) bytes: u64,
}

/// All kept frames by stem (`day/result_id`), which ascends with time.
#[derive(Debug, Default)]
pub(super) struct Inventory {
    accepts: BTreeMap<String, u64>,
    others: BTreeMap<String, u64>,
    bytes: u64,
}

/// The part of a record that matters here.
#[derive(Deserialize)]
struct Head {
    verdict: Verdict,
}

impl Inventory {
    /// Counts what is in the folder; removes temporary files of a process that died.
    pub(super) fn take(directory: &Path) -> io::Result<Self> {
        let mut inventory = Self::default();
        for day in std::fs::read_dir(directory)? {
            let day = day?;
            let Ok(name) = day.file_name().into_string() else { continue };
            if !day.file_type()?.is_dir() || name.parse::<jiff::civil::Date>().is_err() {
                continue;
            }
            for (stem, kept) in take_day(&day.path(), &name)? {
                inventory.add(stem, kept);
            }
        }
        Ok(inventory)
    }

    pub(super) fn frames(&self) -> u64 {
        (self.accepts.len() + self.others.len()) as u64
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn add(&mut self, stem: String, kept: Kept) {
        self.remove(&stem);
        self.bytes += kept.bytes;
        let frames = if kept.accept { &mut self.accepts } else { &mut self.others };
        frames.insert(stem, kept.bytes);
    }

    pub(super) fn remove(&mut self, stem: &str) {
        for frames in [&mut self.accepts, &mut self.others] {
            if let Some(bytes) = frames.remove(stem) {
                self.bytes -= bytes;
            }
        }
    }

    /// The oldest accept; without one the oldest of the rest.
    pub(super) fn first_to_go(&self) -> Option<String> {
        self.accepts.first_key_value().or_else(|| self.others.first_key_value()).map(|(stem, _)| stem.clone())
    }
}

fn take_day(folder: &Path, day: &str) -> io::Result<BTreeMap<String, Kept>> {
    let mut frames: BTreeMap<String, Kept> = BTreeMap::new();
    for file in std::fs::read_dir(folder)? {
        let file = file?;
        let Ok(name) = file.file_name().into_string() else { continue };
        if name.ends_with(TEMPORARY) {
            std::fs::remove_file(file.path())?;
            continue;
        }
        // The longest ending first: `.map.png` is no `.png`.
        let Some(id) = ENDINGS.iter().find_map(|ending| name.strip_suffix(ending)) else { continue };
        let metadata = file.metadata()?;
        let kept = frames.entry(format!("{day}/{id}")).or_insert(Kept { accept: true, bytes: 0 });
        kept.bytes += metadata.len();
        if name.ends_with(RECORD) {
            let head = std::fs::read(file.path()).map(|record| serde_json::from_slice::<Head>(&record));
            kept.accept = !matches!(head, Ok(Ok(Head { verdict })) if verdict != Verdict::Accept);
        }
    }
    Ok(frames)
}
