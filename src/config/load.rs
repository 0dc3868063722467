//! Defaults < file < environment < flags, checked as one tree.
//!
//! The layers are merged here, in a tree that remembers where each value was written: so a bad value
//! in the environment is shown with its variable, like one in the file with its line. The `config`
//! crate, which forgets such places, only turns the merged and checked tree into the structs, whose
//! defaults it takes.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;

use super::document::{Data, Node, Sources};
use super::keys::{Key, Kind};
use super::problem::{ConfigError, Problem};
use super::walk::{Walk, sort};

/// Largest configuration file, bytes.
const MAX_BYTES: u64 = 1 << 20;
/// Beginning of the environment variables that set keys; `__` stands for the dot.
pub(super) const ENVIRONMENT_PREFIX: &str = "LINEGATE__";

/// A value from outside the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Override {
    /// `environment` or `command line`.
    pub(super) origin: &'static str,
    /// As it was typed, ending in the value.
    pub(super) shown: String,
    /// Dotted path of the key.
    pub(super) path: String,
    /// The value.
    pub(super) text: String,
}

/// The overrides in the environment, sorted by name.
pub(super) fn from_environment(variables: impl Iterator<Item = (String, String)>) -> Vec<Override> {
    let mut overrides: Vec<Override> = variables
        .filter_map(|(name, text)| {
            let path = name.strip_prefix(ENVIRONMENT_PREFIX)?.to_lowercase().replace("__", ".");
            Some(Override { origin: "environment", shown: format!("{name}={text}"), path, text })
        })
        .collect();
    overrides.sort_by(|a, b| a.shown.cmp(&b.shown));
    overrides
}

/// The overrides of `--set`.
pub(super) fn from_flags(flags: &[(String, String)]) -> Vec<Override> {
    let shown = |(path, text): &(String, String)| Override {
        origin: "command line",
        shown: format!("--set {path}={text}"),
        path: path.clone(),
        text: text.clone(),
    };
    flags.iter().map(shown).collect()
}

/// Reads, layers and checks; `rules` says what must hold between keys.
pub(super) fn load<T: DeserializeOwned>(
    path: &Path,
    overrides: &[Override],
    keys: &'static [Key],
    rules: fn(&Node, &mut Walk<'_>),
) -> Result<T, ConfigError> {
    let invalid = |problems| ConfigError::Invalid { path: path.to_owned(), problems };
    let read = |source| ConfigError::Read { path: path.to_owned(), source };
    let mut bytes = Vec::new();
    File::open(path).and_then(|file| file.take(MAX_BYTES + 1).read_to_end(&mut bytes)).map_err(read)?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(ConfigError::TooLarge { path: path.to_owned(), limit: MAX_BYTES });
    }
    let name = path.display().to_string();
    let text = String::from_utf8(bytes).map_err(|error| invalid(vec![not_utf8(&name, &error)]))?;
    let mut sources = Sources::default();
    let mut root = sources.read_file(name, text.trim_start_matches('\u{feff}')).map_err(|mut problems| {
        sort(&mut problems);
        invalid(problems)
    })?;
    let folder = std::path::absolute(path).map_err(read)?.parent().map_or_else(PathBuf::new, Path::to_owned);
    let place = root.at;
    let mut problems = Vec::new();
    for o in overrides {
        if let Err(problem) = sources.set(&mut root, keys, o.origin, o.shown.clone(), &o.path, &o.text) {
            problems.push(problem);
        }
    }
    let mut walk = Walk::new(&sources);
    walk.table(&root, "", keys, None);
    rules(&root, &mut walk);
    let mut found = walk.finish();
    found.append(&mut problems);
    if !found.is_empty() {
        return Err(invalid(found));
    }
    resolve(&mut root, Kind::Table(keys), &folder);
    // The table of keys has let everything through: what is still refused is a gap between the
    // table and the structs, which a test excludes; it is said all the same.
    ::config::Config::try_from(&root.to_value())
        .and_then(::config::Config::try_deserialize)
        .map_err(|error| invalid(vec![sources.problem(place, &error.to_string(), None)]))
}

fn not_utf8(name: &str, error: &std::string::FromUtf8Error) -> Problem {
    let valid = error.utf8_error().valid_up_to();
    let before = String::from_utf8_lossy(&error.as_bytes()[..valid]).into_owned();
    let text = before.rsplit('\n').next().unwrap_or_default().to_owned();
    Problem {
        message: "the file is not UTF-8 from here on".into(),
        source: name.to_owned(),
        line: Some(before.matches('\n').count() + 1),
        column: text.chars().count() + 1,
        width: 1,
        text,
        help: Some("save it as UTF-8".into()),
    }
}

/// Makes relative paths relative to the file's folder, whatever the current folder is.
fn resolve(node: &mut Node, kind: Kind, folder: &Path) {
    match (&mut node.data, kind) {
        (Data::Text(text), Kind::Path) => *text = folder.join(&*text).to_string_lossy().into_owned(),
        (Data::Text(text), Kind::Pipeline) if text.ends_with(".launch") => {
            *text = folder.join(&*text).to_string_lossy().into_owned();
        }
        (Data::List(items), Kind::List(_, of)) => items.iter_mut().for_each(|item| resolve(item, *of, folder)),
        (Data::Table(entries), Kind::Table(keys)) => {
            for entry in entries {
                if let Some(key) = keys.iter().find(|key| key.name == entry.name) {
                    resolve(&mut entry.value, key.kind, folder);
                }
            }
        }
        // Of a pipeline's parameters, `location` is the one that may be a file: not so an address.
        (Data::Table(entries), Kind::Free) => {
            for entry in entries.iter_mut().filter(|entry| entry.name == "location") {
                if let Data::Text(text) = &mut entry.value.data
                    && !text.contains("://")
                {
                    *text = folder.join(&*text).to_string_lossy().into_owned();
                }
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_with_the_prefix_set_keys_and_others_do_not() {
        let variables = [("LINEGATE__MQTT__KEEP_ALIVE_S", "5"), ("LINEGATE_LOG", "debug"), ("PATH", "/bin")];
        let found = from_environment(variables.map(|(name, text)| (name.to_owned(), text.to_owned())).into_iter());
        assert_eq!(
            found,
            [Override {
                origin: "environment",
                shown: "LINEGATE__MQTT__KEEP_ALIVE_S=5".into(),
                path: "mqtt.keep_alive_s".into(),
                text: "5".into()
            }]
        );
    }

    #[test]
    fn a_flag_wins_over_the_environment_and_the_environment_over_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("training.toml");
        std::fs::write(&file, "seed = 1\nsteps = 1\nblocks = 1\n").unwrap();
        let variables = [("LINEGATE__STEPS", "2"), ("LINEGATE__BLOCKS", "2")];
        let mut overrides =
            from_environment(variables.map(|(name, text)| (name.to_owned(), text.to_owned())).into_iter());
        overrides.extend(from_flags(&[("blocks".into(), "3".into())]));
        let training: crate::config::TrainingConfig =
            load(&file, &overrides, crate::config::keys::TRAINING, crate::config::rules::training).unwrap();
        assert_eq!((training.seed, training.steps, training.blocks), (Some(1), Some(2), Some(3)));
    }
}
