//! Half-precision values: in memory while they are few, else in a file without a name.
//!
//! The file is read and written at positions and not mapped: the kernel's page cache keeps what is
//! used often all the same, a full disk is an error and not a signal, and no unsafe code is needed.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use half::f16;

/// Bytes of one value.
pub(super) const VALUE_BYTES: u64 = 2;
/// Values per read: a cell of most backbones in one go.
const CHUNK: usize = 1024;

/// The file of features failed.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} the temporary file of features in {}: make room there or lower `feature_budget_mib`", folder.display())]
pub struct FeatureFileError {
    /// Where it lies; it has no name.
    pub folder: PathBuf,
    /// What was tried.
    pub action: &'static str,
    /// Cause.
    pub source: std::io::Error,
}

/// Values in the order in which they came.
#[derive(Debug)]
pub(super) enum Store {
    Memory(Vec<f16>),
    File { file: File, values: u64, folder: PathBuf },
}

impl Store {
    /// An empty one in memory.
    pub(super) fn in_memory() -> Self {
        Self::Memory(Vec::new())
    }

    /// An empty one in a file of `folder` that is gone with the program, however it ends.
    pub(super) fn in_file(folder: &Path) -> Result<Self, FeatureFileError> {
        let file = tempfile::tempfile_in(folder).map_err(|source| FeatureFileError {
            folder: folder.to_owned(),
            action: "create",
            source,
        })?;
        Ok(Self::File { file, values: 0, folder: folder.to_owned() })
    }

    /// Adds values; beyond the range of half precision they become its ends.
    pub(super) fn push(&mut self, values: &[f32]) -> Result<(), FeatureFileError> {
        let half = |&v: &f32| f16::from_f32(v.clamp(f16::MIN.to_f32(), f16::MAX.to_f32()));
        match self {
            Self::Memory(all) => all.extend(values.iter().map(half)),
            Self::File { file, values: count, folder } => {
                let bytes: Vec<u8> = values.iter().flat_map(|v| half(v).to_le_bytes()).collect();
                file.write_all_at(&bytes, *count * VALUE_BYTES).map_err(|source| FeatureFileError {
                    folder: folder.clone(),
                    action: "write",
                    source,
                })?;
                *count += values.len() as u64;
            }
        }
        Ok(())
    }

    /// Appends `count` values from number `at` on to `into`.
    pub(super) fn read(&self, at: usize, count: usize, into: &mut Vec<f32>) -> Result<(), FeatureFileError> {
        match self {
            Self::Memory(all) => into.extend(all[at..at + count].iter().map(|v| v.to_f32())),
            Self::File { file, folder, .. } => {
                let mut bytes = [0; CHUNK * VALUE_BYTES as usize];
                let mut done = 0;
                while done < count {
                    let part = &mut bytes[..(count - done).min(CHUNK) * VALUE_BYTES as usize];
                    file.read_exact_at(part, (at + done) as u64 * VALUE_BYTES).map_err(|source| FeatureFileError {
                        folder: folder.clone(),
                        action: "read",
                        source,
                    })?;
                    into.extend(part.chunks_exact(2).map(|v| f16::from_le_bytes([v[0], v[1]]).to_f32()));
                    done += part.len() / VALUE_BYTES as usize;
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_gives_what_memory_gives_and_leaves_nothing_behind() {
        let folder = tempfile::tempdir().unwrap();
        let values: Vec<f32> = (0..5000).map(|i| (i as f32 - 2500.0) * 0.37).chain([1e9, -1e9, 0.0]).collect();
        let mut stores = [Store::in_memory(), Store::in_file(folder.path()).unwrap()];
        let read = stores.each_mut().map(|store| {
            values.chunks(700).for_each(|part| store.push(part).unwrap());
            let mut all = Vec::new();
            store.read(3, values.len() - 3, &mut all).unwrap();
            all
        });
        assert_eq!(read[0], read[1]);
        assert!(read[0].iter().zip(&values[3..5000]).all(|(read, v)| (read - v).abs() <= v.abs() / 2048.0));
        assert_eq!(read[1][4997..], [65504.0, -65504.0, 0.0]);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
