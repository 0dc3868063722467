//! Reading and writing bundles.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::{BUNDLE_SCHEMA_VERSION, Evidence, MANIFEST_FILE, MODEL_FILE, Manifest, PROCESSOR_MODEL_FILE};
use crate::inspection::ModelIdentity;

/// Largest manifest that is read, bytes.
const MAX_MANIFEST_BYTES: u64 = 64 << 20;
/// Most cells across which regions are merged; every cell looks at all so near.
const MOST_MERGED: usize = 16;

/// Why a bundle could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// A file operation failed.
    #[error("bundle {path}: cannot {action}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// Cause.
        source: std::io::Error,
    },
    /// The manifest is not what it should be.
    #[error("bundle manifest {path} cannot be read; it was torn or written by another program")]
    Manifest {
        /// The file.
        path: PathBuf,
        /// Cause.
        source: serde_json::Error,
    },
    /// The layout version differs.
    #[error(
        "bundle {path} has schema version {found}, this program reads {expected}: train it again with this version"
    )]
    SchemaVersion {
        /// The bundle.
        path: PathBuf,
        /// Version found.
        found: u32,
        /// Version this program reads.
        expected: u32,
    },
    /// A file does not have the hash that the manifest gives.
    #[error(
        "bundle file {path} does not match its SHA-256 in the manifest ({found}, expected {expected}): copy the bundle again"
    )]
    Hash {
        /// The file.
        path: PathBuf,
        /// Hash found.
        found: String,
        /// Hash in the manifest.
        expected: String,
    },
    /// The manifest contradicts itself.
    #[error("bundle {path} is not usable: {problem}")]
    Inconsistent {
        /// The bundle.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
}

fn io(path: &Path, action: &'static str) -> impl FnOnce(std::io::Error) -> BundleError {
    let path = path.to_owned();
    move |source| BundleError::Io { path, action, source }
}

/// SHA-256 of bytes, hexadecimal.
pub fn sha256_hex(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// Bytes as hexadecimal digits.
pub(super) fn hex(digest: &[u8]) -> String {
    use std::fmt::Write;
    digest.iter().fold(String::with_capacity(64), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// SHA-256 of a file, hexadecimal.
///
/// # Errors
/// The file cannot be read.
pub fn sha256_file(path: &Path) -> std::io::Result<String> {
    let mut hasher = Sha256::new();
    let mut file = File::open(path)?;
    let mut chunk = vec![0; 1 << 16];
    loop {
        let n = file.read(&mut chunk)?;
        if n == 0 {
            return Ok(hex(&hasher.finalize()));
        }
        hasher.update(&chunk[..n]);
    }
}

/// A bundle that was verified: hashes, version and shapes fit.
#[derive(Debug, Clone)]
pub struct Bundle {
    /// Its directory.
    pub path: PathBuf,
    /// Its manifest.
    pub manifest: Manifest,
    /// Name, version and SHA-256 of the manifest file.
    pub identity: ModelIdentity,
}

impl Bundle {
    /// Reads and verifies the bundle in `path`.
    ///
    /// # Errors
    /// [`BundleError`] when a file is missing, torn, of another version or inconsistent.
    pub fn open(path: &Path) -> Result<Self, BundleError> {
        let file = path.join(MANIFEST_FILE);
        let length = fs::metadata(&file).map_err(io(&file, "read it"))?.len();
        if length > MAX_MANIFEST_BYTES {
            return Err(BundleError::Inconsistent {
                path: path.to_owned(),
                problem: format!("its manifest has {length} bytes, the limit is {MAX_MANIFEST_BYTES}"),
            });
        }
        let bytes = fs::read(&file).map_err(io(&file, "read it"))?;
        let broken = |source| BundleError::Manifest { path: file.clone(), source };
        // The version first: a manifest of another version may have other fields.
        let any: serde_json::Value = serde_json::from_slice(&bytes).map_err(broken)?;
        let found = any.get("schema_version").and_then(serde_json::Value::as_u64).unwrap_or(0);
        if found != u64::from(BUNDLE_SCHEMA_VERSION) {
            return Err(BundleError::SchemaVersion {
                path: path.to_owned(),
                found: u32::try_from(found).unwrap_or(u32::MAX),
                expected: BUNDLE_SCHEMA_VERSION,
            });
        }
        let manifest: Manifest = serde_json::from_slice(&bytes).map_err(broken)?;
        if let Err(problem) = manifest.verify() {
            return Err(BundleError::Inconsistent { path: path.to_owned(), problem });
        }
        for (name, expected) in &manifest.files {
            let file = path.join(name);
            let found = sha256_file(&file).map_err(io(&file, "read it"))?;
            if found != *expected {
                return Err(BundleError::Hash { path: file, found, expected: expected.clone() });
            }
        }
        let identity = ModelIdentity {
            name: manifest.name.clone(),
            version: manifest.version.clone(),
            sha256: sha256_hex(&bytes),
        };
        Ok(Self { path: path.to_owned(), manifest, identity })
    }

    /// The ONNX file for every provider.
    pub fn model_path(&self) -> PathBuf {
        self.path.join(MODEL_FILE)
    }

    /// The ONNX file for processors alone, where the bundle has one: those of before have not. What the
    /// manifest gives no hash for is none of the bundle.
    pub fn processor_model_path(&self) -> Option<PathBuf> {
        self.manifest.files.contains_key(PROCESSOR_MODEL_FILE).then(|| self.path.join(PROCESSOR_MODEL_FILE))
    }
}

impl Manifest {
    /// Says what contradicts itself in the manifest.
    fn verify(&self) -> Result<(), String> {
        let size = self.preprocessing.size;
        let finite = |what: &str, v: f32| if v.is_finite() { Ok(()) } else { Err(format!("{what} is {v}")) };
        if size.width == 0 || size.height == 0 || !size.width.is_multiple_of(16) || !size.height.is_multiple_of(16) {
            return Err(format!("the model size {size} is not a multiple of 16"));
        }
        if self.levels.is_empty() || self.levels.len() != self.calibration.levels.len() {
            return Err(format!("{} levels but {} calibrated", self.levels.len(), self.calibration.levels.len()));
        }
        for (shape, level) in self.levels.iter().zip(&self.calibration.levels) {
            if shape.stride == 0
                || shape.rows * shape.stride != size.height
                || shape.columns * shape.stride != size.width
            {
                return Err(format!(
                    "level {} of {}x{} cells does not cover {size}",
                    shape.output, shape.columns, shape.rows
                ));
            }
            finite("a level's mean", level.mean)?;
            finite("a level's weight", level.weight)?;
            finite("a normal boundary", level.normal_boundary)?;
            finite("an abnormal boundary", level.abnormal_boundary)?;
            if !(level.deviation.is_finite() && level.deviation > 0.0) {
                return Err(format!("a level's deviation is {}", level.deviation));
            }
        }
        for (number, _) in self.calibration.levels.iter().enumerate().filter(|(_, level)| level.or_previous) {
            let shape = |at: usize| self.levels.get(at).map(|level| (level.rows, level.columns));
            if number.checked_sub(1).and_then(shape) != shape(number) {
                return Err(format!("level {number} goes by the level before it, which has other rows and columns"));
            }
        }
        finite("the smoothing", self.calibration.smoothing_sigma)?;
        if !(0.0..=1.0).contains(&self.calibration.strongest) {
            return Err(format!("the strongest level's share is {}", self.calibration.strongest));
        }
        if let Evidence::Bounded { ceiling } = self.calibration.evidence
            && !(ceiling.is_finite() && ceiling > 0.0)
        {
            return Err(format!("the levels' ceiling is {ceiling}"));
        }
        finite("the normal image boundary", self.calibration.image.normal)?;
        finite("the abnormal image boundary", self.calibration.image.abnormal)?;
        if self.calibration.image.abnormal < self.calibration.image.normal {
            return Err("the abnormal image boundary lies below the normal one".into());
        }
        if self.calibration.minimum_area == 0 {
            return Err("the minimum area is 0".into());
        }
        if self.calibration.merging > MOST_MERGED {
            return Err(format!(
                "regions with {} cells between them are merged, at most {MOST_MERGED} can be",
                self.calibration.merging
            ));
        }
        if !self.files.contains_key(MODEL_FILE) {
            return Err(format!("the manifest gives no hash for {MODEL_FILE}"));
        }
        if let Some(name) = self
            .files
            .keys()
            .find(|n| Path::new(n).components().any(|part| !matches!(part, std::path::Component::Normal(_))))
        {
            return Err(format!("the file name {name} leaves the bundle"));
        }
        Ok(())
    }
}

/// A bundle being written next to its final place. Dropped without [`BundleWriter::commit`], it
/// leaves nothing behind.
#[derive(Debug)]
pub struct BundleWriter {
    staging: tempfile::TempDir,
    target: PathBuf,
}

impl BundleWriter {
    /// Starts a bundle that will stand at `target`.
    ///
    /// # Errors
    /// The parent folder cannot be written.
    pub fn new(target: &Path) -> Result<Self, BundleError> {
        let parent = match target.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        fs::create_dir_all(parent).map_err(io(parent, "create the folder"))?;
        let staging = tempfile::Builder::new()
            .prefix(".linegate-bundle-")
            .tempdir_in(parent)
            .map_err(io(parent, "write into the folder"))?;
        Ok(Self { staging, target: target.to_owned() })
    }

    /// The folder to write the files into.
    pub fn path(&self) -> &Path {
        self.staging.path()
    }

    /// Hashes every file, writes the manifest, syncs and puts the bundle in place, replacing an
    /// older one there. A crash leaves the old bundle or the new one.
    ///
    /// # Errors
    /// A file operation failed or the manifest contradicts itself.
    pub fn commit(self, mut manifest: Manifest) -> Result<Bundle, BundleError> {
        let root = self.staging.path();
        manifest.files = BTreeMap::new();
        hash_tree(root, root, &mut manifest.files)?;
        if let Err(problem) = manifest.verify() {
            return Err(BundleError::Inconsistent { path: self.target.clone(), problem });
        }
        let file = root.join(MANIFEST_FILE);
        let text = serde_json::to_vec_pretty(&manifest)
            .map_err(|source| BundleError::Manifest { path: file.clone(), source })?;
        let mut out = File::create(&file).map_err(io(&file, "create it"))?;
        out.write_all(&text).and_then(|()| out.sync_all()).map_err(io(&file, "write it"))?;
        for name in manifest.files.keys() {
            let path = root.join(name);
            File::open(&path).and_then(|f| f.sync_all()).map_err(io(&path, "sync it"))?;
        }
        File::open(root).and_then(|f| f.sync_all()).map_err(io(root, "sync it"))?;
        // From here on the staging folder is ours to move, no longer to be deleted.
        let staging = self.staging.keep();
        let target = &self.target;
        let mut retired = None;
        if target.exists() {
            let old = staging.with_extension("old");
            fs::rename(target, &old).map_err(io(target, "move the old bundle away"))?;
            retired = Some(old);
        }
        if let Err(source) = fs::rename(&staging, target) {
            if let Some(old) = &retired {
                // Best effort: the error that matters is the one reported below.
                let _ = fs::rename(old, target);
            }
            let _ = fs::remove_dir_all(&staging);
            return Err(BundleError::Io { path: target.clone(), action: "put it in place", source });
        }
        if let Some(old) = retired {
            fs::remove_dir_all(&old).map_err(io(&old, "remove the old bundle"))?;
        }
        if let Some(parent) = target.parent().filter(|p| !p.as_os_str().is_empty()) {
            File::open(parent).and_then(|f| f.sync_all()).map_err(io(parent, "sync it"))?;
        }
        Bundle::open(target)
    }
}

fn hash_tree(root: &Path, folder: &Path, files: &mut BTreeMap<String, String>) -> Result<(), BundleError> {
    for entry in fs::read_dir(folder).map_err(io(folder, "list it"))? {
        let path = entry.map_err(io(folder, "list it"))?.path();
        if path.is_dir() {
            hash_tree(root, &path, files)?;
        } else {
            let name = path.strip_prefix(root).unwrap_or(&path).to_string_lossy().into_owned();
            files.insert(name, sha256_file(&path).map_err(io(&path, "read it"))?);
        }
    }
    Ok(())
}
