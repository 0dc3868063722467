//! ONNX Runtime's shared library, loaded once for the process.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock, PoisonError};

use ort::environment::Environment;
use ort::logging::LogLevel;
use tracing::{info, warn};

use super::ScoringError;

/// Environment variable that names ONNX Runtime's library: the file, or the folder it lies in.
pub const LIBRARY_VARIABLE: &str = "LINEGATE_ONNXRUNTIME";

/// Folder with fetched libraries, as `deploy/setup.sh` fills it.
const FOLDER: &str = ".runtime";
const NAME: &str = "libonnxruntime.so";

/// Held for the life of the process: ONNX Runtime allows one environment, once.
struct Runtime {
    environment: Environment,
    library: PathBuf,
}

static RUNTIME: OnceLock<Runtime> = OnceLock::new();
/// One start at a time. A failed start may be tried again, so this is no `OnceLock` initialiser.
static STARTING: Mutex<()> = Mutex::new(());

/// Loads ONNX Runtime's shared library once for the process: `library`, else the environment
/// variable `LINEGATE_ONNXRUNTIME` (both the file or its folder), else `.runtime/` below the
/// current folder, the program's folder and its parents. In a folder `libonnxruntime.so` is
/// taken, else the highest version of `libonnxruntime.so.*`.
///
/// A later call does nothing; a library once loaded cannot be exchanged, and a call that names
/// another one is told so in the log. Opening a model calls this with `None` by itself.
///
/// # Errors
/// The library is not found or cannot be loaded; the message names the places searched.
pub fn initialise(library: Option<&Path>) -> Result<(), ScoringError> {
    start(library).map(|_| ())
}

/// The library that was loaded, if one was.
pub fn library() -> Option<&'static Path> {
    RUNTIME.get().map(|runtime| runtime.library.as_path())
}

/// The environment that sessions are made in; starts the runtime where nobody did yet.
pub(super) fn environment() -> Result<&'static Environment, ScoringError> {
    start(None).map(|runtime| &runtime.environment)
}

fn start(library: Option<&Path>) -> Result<&'static Runtime, ScoringError> {
    let _turn = STARTING.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(runtime) = RUNTIME.get() {
        if let Some(wanted) = library
            && find(Some(wanted), None, Vec::new())? != runtime.library
        {
            warn!(wanted = %wanted.display(), loaded = %runtime.library.display(), "another ONNX Runtime is loaded already and stays");
        }
        return Ok(runtime);
    }
    let path = find(library, std::env::var_os(LIBRARY_VARIABLE), folders())?;
    let environment = ort::init_from(&path)
        .map_err(|source| ScoringError::LibraryUnusable { path: path.clone(), source: Box::new(source) })?
        .with_name("linegate")
        .with_telemetry(false)
        .build()
        .map_err(|source| ScoringError::Start { path: path.clone(), source })?;
    // The logger is made to forward everything; below WARN it speaks of every node of a graph.
    environment.set_log_level(LogLevel::Warning);
    info!(library = %path.display(), "ONNX Runtime loaded");
    Ok(RUNTIME.get_or_init(|| Runtime { environment, library: path }))
}

/// `.runtime/` below the current folder, the program's folder and its parents.
fn folders() -> Vec<PathBuf> {
    let program = std::env::current_exe().ok();
    let above = program.iter().flat_map(|file| file.ancestors().skip(1)).map(Path::to_owned);
    std::env::current_dir().into_iter().chain(above).map(|folder| folder.join(FOLDER)).collect()
}

/// The library's absolute path. What was named and is not there is an error, never a reason to
/// take another one.
fn find(named: Option<&Path>, variable: Option<OsString>, folders: Vec<PathBuf>) -> Result<PathBuf, ScoringError> {
    let variable = variable.filter(|value| !value.is_empty()).map(PathBuf::from);
    let searched = match named.map(Path::to_owned).or(variable) {
        Some(only) => vec![only],
        None => folders,
    };
    let found = searched.iter().find_map(|place| if place.is_dir() { inside(place) } else { file(place.clone()) });
    // Absolute: ort resolves a relative path against the program's folder, not the current one.
    found.and_then(|path| std::path::absolute(path).ok()).ok_or(ScoringError::LibraryMissing { searched })
}

fn file(path: PathBuf) -> Option<PathBuf> {
    path.is_file().then_some(path)
}

/// The library in a folder: the plain name, else the highest version.
fn inside(folder: &Path) -> Option<PathBuf> {
    if let Some(plain) = file(folder.join(NAME)) {
        return Some(plain);
    }
    let version = |path: &PathBuf| -> Option<Vec<u64>> {
        let numbers = path.file_name()?.to_str()?.strip_prefix(NAME)?.strip_prefix('.')?;
        numbers.split('.').map(|number| number.parse().ok()).collect()
    };
    let entries = std::fs::read_dir(folder).ok()?;
    entries
        .filter_map(|entry| file(entry.ok()?.path()))
        .filter_map(|path| version(&path).map(|version| (version, path)))
        .max()
        .map(|(_, path)| path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder_with(names: &[&str]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for name in names {
            std::fs::write(folder.path().join(name), b"").unwrap();
        }
        folder
    }

    #[test]
    fn the_highest_version_is_taken_where_the_plain_name_is_missing() {
        let folder =
            folder_with(&["libonnxruntime.so.1.9.0", "libonnxruntime.so.1.32.0", "libonnxruntime_providers_shared.so"]);
        let found = find(Some(folder.path()), None, Vec::new()).unwrap();
        assert_eq!(found, folder.path().join("libonnxruntime.so.1.32.0"));
        std::fs::write(folder.path().join(NAME), b"").unwrap();
        assert_eq!(find(Some(folder.path()), None, Vec::new()).unwrap(), folder.path().join(NAME));
    }

    #[test]
    fn the_argument_goes_before_the_variable_and_the_variable_before_the_folders() {
        let [argument, variable, folder] = [0; 3].map(|_| folder_with(&[NAME]));
        let folders = || vec![folder.path().to_owned()];
        let value = || Some(variable.path().as_os_str().to_owned());
        assert_eq!(find(Some(argument.path()), value(), folders()).unwrap(), argument.path().join(NAME));
        assert_eq!(find(None, value(), folders()).unwrap(), variable.path().join(NAME));
        assert_eq!(find(None, Some(OsString::new()), folders()).unwrap(), folder.path().join(NAME));
    }

    #[test]
    fn a_named_library_that_is_missing_is_an_error_and_not_replaced_by_another() {
        let folder = folder_with(&[NAME]);
        let missing = folder.path().join("nowhere.so");
        let error = find(Some(&missing), None, vec![folder.path().to_owned()]).unwrap_err().to_string();
        assert!(error.contains("nowhere.so") && error.contains("deploy/setup.sh"), "{error}");
    }

    #[test]
    fn a_missing_library_names_every_place_searched() {
        let folder = folder_with(&[]);
        let places = vec![folder.path().join("one"), folder.path().join("two")];
        let error = find(None, None, places).unwrap_err().to_string();
        assert!(error.contains("/one, ") && error.contains("/two: ") && error.contains(LIBRARY_VARIABLE), "{error}");
    }
}
