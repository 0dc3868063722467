//! Files of one frame: temporary name, then the real one, the record last.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::ArchiveError;
use crate::bundle::ImageBoundary;
use crate::decision::heatmap;
use crate::inspection::{AnomalyMap, Decision, Picture, Size, encode_png};

const IMAGE: &str = ".png";
const HEATMAP: &str = ".map.png";
const NUMBERS: &str = ".map.npy";
/// Ending of the record.
pub(super) const RECORD: &str = ".json";
/// Every ending that a frame's files have; the longer ones first.
pub(super) const ENDINGS: [&str; 4] = [HEATMAP, NUMBERS, IMAGE, RECORD];
/// Ending of a file that is being written.
pub(super) const TEMPORARY: &str = ".part";
/// Side of one cell of the map in its picture, pixels.
const CELL: usize = 4;

/// Whether the folder can be written.
pub(super) fn probe(directory: &Path) -> io::Result<()> {
    let file = directory.join(format!("probe{TEMPORARY}"));
    std::fs::write(&file, b"")?;
    std::fs::remove_file(file)
}

/// Writes all files of a frame; their bytes. Nothing remains when it fails.
pub(super) fn frame(
    directory: &Path,
    stem: &str,
    decision: &Decision,
    frame: &Picture,
    map: Option<&AnomalyMap>,
) -> Result<u64, ArchiveError> {
    let encode = |picture: &Picture| {
        encode_png(picture).map_err(|source| ArchiveError::Encode { result_id: decision.result_id.clone(), source })
    };
    let mut files = vec![(IMAGE, encode(frame)?)];
    if let Some(map) = map {
        files.push((HEATMAP, encode(&colours(map, decision))?));
        files.push((NUMBERS, npy(map)));
    }
    // The record does not refer to what is not there.
    let heatmap_ref = map.map(|_| format!("{stem}{HEATMAP}"));
    let record = Decision { image_ref: Some(format!("{stem}{IMAGE}")), heatmap_ref, ..decision.clone() };
    let record = serde_json::to_vec_pretty(&record)
        .map_err(|source| ArchiveError::Record { result_id: decision.result_id.clone(), source })?;
    files.push((RECORD, record));

    let mut written: Vec<PathBuf> = Vec::new();
    for (ending, bytes) in &files {
        let file = directory.join(format!("{stem}{ending}"));
        if let Err(source) = write(&file, bytes) {
            for file in written {
                // What cannot be removed either is found and counted at the next opening.
                let _ = std::fs::remove_file(file);
            }
            return Err(ArchiveError::Write { file, source });
        }
        written.push(file);
    }
    Ok(files.iter().map(|(_, bytes)| bytes.len() as u64).sum())
}

fn write(file: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut temporary = file.as_os_str().to_owned();
    temporary.push(TEMPORARY);
    let temporary = PathBuf::from(temporary);
    if let Some(day) = file.parent() {
        std::fs::create_dir_all(day)?;
    }
    // Not synced: a power cut may cost the last pictures, a sync for each would slow the disk
    // that the outbox shares.
    let result = File::create(&temporary)
        .and_then(|mut out| out.write_all(bytes))
        .and_then(|()| std::fs::rename(&temporary, file));
    if result.is_err() {
        let _ = std::fs::remove_file(&temporary);
    }
    result
}

fn colours(map: &AnomalyMap, decision: &Decision) -> Picture {
    let (rows, columns) = map.0.dim();
    // Only the two boundaries matter for the colours.
    let normal = decision.boundary.unwrap_or(0.0);
    let boundary = ImageBoundary {
        normal,
        abnormal: decision.threshold.unwrap_or(normal),
        suspect_rate: 0.0,
        false_reject_rate: 0.0,
    };
    heatmap(map, &boundary, Size { width: columns * CELL, height: rows * CELL })
}

/// NumPy's format 1.0: magic, version, header length, a Python literal padded to 64 bytes, then
/// the values row by row, little endian.
fn npy(map: &AnomalyMap) -> Vec<u8> {
    let (rows, columns) = map.0.dim();
    let mut header = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({rows}, {columns}), }}");
    while (10 + header.len() + 1) % 64 != 0 {
        header.push(' ');
    }
    header.push('\n');
    let mut out = b"\x93NUMPY\x01\x00".to_vec();
    out.extend((header.len() as u16).to_le_bytes());
    out.extend(header.as_bytes());
    out.extend(map.0.iter().flat_map(|value| value.to_le_bytes()));
    out
}
