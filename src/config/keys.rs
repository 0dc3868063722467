//! The one place that knows which keys exist, what they hold and within which limits. The structs
//! in `model.rs` and `training.rs` say the same in types; a test holds the two together.

/// What a key holds.
#[derive(Debug, Clone, Copy)]
pub(super) enum Kind {
    /// `true` or `false`.
    Bool,
    /// A whole number within limits, both included.
    Integer(i64, i64),
    /// A number within limits.
    Number(Limit, Limit),
    /// Text, 1 to [`MAX_TEXT`] bytes.
    Text,
    /// A file or folder; relative to the configuration's folder.
    Path,
    /// A name used in topics.
    Name,
    /// The name of a pipeline, or the path of a `.launch` file.
    Pipeline,
    /// An IP address and port of this machine alone.
    Listen,
    /// A picture size: a whole number (square) `"WIDTHxHEIGHT"` or `"auto"`.
    Size,
    /// One of some words.
    Choice(&'static [&'static str]),
    /// At least so many of a kind, and no more than [`MAX_LIST`].
    List(usize, &'static Kind),
    /// A table of known keys.
    Table(&'static [Key]),
    /// A table whose other keys depend on the word under the key `kind`.
    Tagged(&'static [(&'static str, &'static [Key])]),
    /// A table of free keys with texts, numbers or booleans.
    Free,
}

/// An end of a range of numbers.
#[derive(Debug, Clone, Copy)]
pub(super) enum Limit {
    /// The limit itself is allowed.
    Within(f64),
    /// The limit itself is not allowed.
    Beyond(f64),
}

/// One key of a table.
#[derive(Debug, Clone, Copy)]
pub(super) struct Key {
    /// Its name.
    pub(super) name: &'static str,
    /// What it holds.
    pub(super) kind: Kind,
    /// Whether it must be there.
    pub(super) required: bool,
}

/// Longest text, bytes.
pub(super) const MAX_TEXT: usize = 4096;
/// Longest list.
pub(super) const MAX_LIST: usize = 256;
/// The key that tells the variants of a [`Kind::Tagged`] apart.
pub(super) const TAG: &str = "kind";
/// Largest picture side, pixels.
pub(super) const MAX_SIDE: i64 = 65_535;

const fn must(name: &'static str, kind: Kind) -> Key {
    Key { name, kind, required: true }
}

const fn may(name: &'static str, kind: Kind) -> Key {
    Key { name, kind, required: false }
}

const SHARE: Kind = Kind::Number(Limit::Within(0.0), Limit::Within(1.0));
const OPEN_SHARE: Kind = Kind::Number(Limit::Beyond(0.0), Limit::Beyond(1.0));
const POLICY: Kind = Kind::Choice(&["reject", "accept"]);

/// `linegate run`, `check` and `retrain`.
pub(super) const LINE: &[Key] = &[
    must("station", Kind::Table(&[must("site", Kind::Name), must("line", Kind::Name), must("station", Kind::Name)])),
    must("model", Kind::Table(MODEL)),
    may(
        "batching",
        Kind::Table(&[
            may("max_batch", Kind::Integer(0, 64)),
            may("max_wait_ms", Kind::Integer(0, 10_000)),
            may("queue_frames", Kind::Integer(1, 1024)),
            may("shed", Kind::Choice(&["oldest", "newest"])),
        ]),
    ),
    may("decisions", Kind::Table(&[may("suspect", POLICY), may("not_inspected", POLICY)])),
    must("camera", Kind::List(1, &Kind::Table(CAMERA))),
    may("part", Kind::List(0, &Kind::Table(PART))),
    may("mqtt", Kind::Table(MQTT)),
    may(
        "outbox",
        Kind::Table(&[
            may("file", Kind::Path),
            may("max_decisions", Kind::Integer(1, 100_000_000)),
            may("max_age_h", Kind::Integer(1, 87_600)),
            may("durability", Kind::Choice(&["process", "power"])),
        ]),
    ),
    may(
        "archive",
        Kind::Table(&[
            must("directory", Kind::Path),
            may("quota_mib", Kind::Integer(1, 1_000_000_000)),
            may("accept_sample", SHARE),
            may("min_free_mib", Kind::Integer(0, 1_000_000_000)),
            may("min_memory_mib", Kind::Integer(0, 1_000_000)),
        ]),
    ),
    may("retrain", Kind::Table(RETRAIN)),
];

const MODEL: &[Key] = &[
    may("bundle", Kind::Path),
    may("registry", Kind::Path),
    may("public_key_file", Kind::Path),
    may("providers", Kind::List(1, &Kind::Choice(&["tensorrt", "cuda", "openvino", "cpu"]))),
    may("required", Kind::Bool),
    may("sessions", Kind::Integer(0, 64)),
    may("threads", Kind::Integer(0, 256)),
    may("spinning", Kind::Bool),
    may("pinned", Kind::Bool),
    may("arena", Kind::Bool),
    may("engine_cache", Kind::Path),
    // Below what a stage may hang before the service manager ends the process.
    may("run_timeout_ms", Kind::Integer(100, 15_000)),
];

const CAMERA: &[Key] = &[
    must("name", Kind::Name),
    must("pipeline", Kind::Pipeline),
    may("parameters", Kind::Free),
    may("deadline_ms", Kind::Integer(1, 3_600_000)),
    may(
        "region_of_interest",
        Kind::Table(&[
            must("x", Kind::Integer(0, MAX_SIDE)),
            must("y", Kind::Integer(0, MAX_SIDE)),
            must("width", Kind::Integer(1, MAX_SIDE)),
            must("height", Kind::Integer(1, MAX_SIDE)),
        ]),
    ),
    may("watchdog_ms", Kind::Integer(100, 86_400_000)),
    may("trigger", Kind::Choice(&["free", "hardware", "software"])),
    may("trigger_timeout_ms", Kind::Integer(1, 3_600_000)),
    may("lent_buffers", Kind::Integer(0, 1024)),
    may(
        "presence",
        Kind::Table(&[
            must("empty", Kind::Path),
            may("difference", Kind::Number(Limit::Beyond(0.0), Limit::Within(255.0))),
            may("share", OPEN_SHARE),
        ]),
    ),
    may("ends", Kind::Bool),
];

const PART: &[Key] = &[
    must("name", Kind::Name),
    must("cameras", Kind::List(1, &Kind::Text)),
    must("rule", Kind::Choice(&["all", "any", "at_least"])),
    may("at_least", Kind::Integer(1, 256)),
    must("window_ms", Kind::Integer(1, 3_600_000)),
    may("frames", Kind::Integer(1, 64)),
    may("accept_frames", Kind::Integer(1, 64)),
];

const MQTT: &[Key] = &[
    may(
        "broker",
        Kind::Tagged(&[
            ("embedded", &[must("listen", Kind::Listen)]),
            ("external", &[must("host", Kind::Text), must("port", Kind::Integer(1, 65_535))]),
        ]),
    ),
    may("client_id", Kind::Text),
    may("username", Kind::Text),
    may("password_file", Kind::Path),
    may("password_environment", Kind::Text),
    may("command_secret_file", Kind::Path),
    may("command_secret_environment", Kind::Text),
    may(
        "tls",
        Kind::Table(&[
            may("ca_file", Kind::Path),
            may("client_pkcs12_file", Kind::Path),
            may("client_password_file", Kind::Path),
        ]),
    ),
    may("keep_alive_s", Kind::Integer(5, 3600)),
    may("stats_interval_s", Kind::Integer(1, 3600)),
    may("drain_ms", Kind::Integer(0, 600_000)),
    may("expiry_s", Kind::Integer(1, 86_400)),
    may("subscriber_wait_s", Kind::Integer(0, 600)),
];

const RETRAIN: &[Key] = &[
    must("base", Kind::Path),
    may("base_groups", Kind::Path),
    must("reviewed", Kind::Path),
    must("gate", Kind::Path),
    may("training", Kind::Path),
    must("reports", Kind::Path),
    may("false_reject_slack", SHARE),
    may("warm_start", Kind::Bool),
    may("private_key_file", Kind::Path),
];

/// `linegate train --config`.
pub(super) const TRAINING: &[Key] = &[
    may("preset", Kind::Choice(&["fast", "standard", "paper"])),
    may("image_size", Kind::Size),
    may("tile", Kind::Integer(0, 4096)),
    may("orientation", Kind::Choice(&["auto", "fixed", "any"])),
    may("numbers", Kind::Choice(&["f32", "f16", "int8"])),
    may("defects", Kind::Integer(0, 10_000)),
    may("seed", Kind::Integer(0, i64::MAX)),
    may("threads", Kind::Integer(0, 256)),
    may("boundary_quantile", OPEN_SHARE),
    may("margin", Kind::Number(Limit::Within(0.0), Limit::Within(100.0))),
    may("steps", Kind::Integer(1, 10_000_000)),
    may("batch_pixels", Kind::Integer(64, 1_048_576)),
    may("learning_rate", Kind::Number(Limit::Beyond(0.0), Limit::Within(1.0))),
    may("hidden_width", Kind::Integer(1, 8192)),
    may("finest_hidden_width", Kind::Integer(1, 8192)),
    may("blocks", Kind::Integer(1, 64)),
    may("finest_blocks", Kind::Integer(1, 64)),
    may("pooling", Kind::Integer(1, 63)),
    may("whiten", Kind::Bool),
    may("context", Kind::Integer(0, 63)),
    may("coreset", Kind::Integer(0, 65_536)),
    may("contrast", Kind::Bool),
    may("strongest", Kind::Number(Limit::Within(0.0), Limit::Within(1.0))),
    may("synthesised", Kind::Integer(0, 100_000)),
    may("invented", Kind::Integer(0, 100_000)),
    may("ceiling", Kind::Number(Limit::Within(0.0), Limit::Within(1000.0))),
    may("beside_pixels", Kind::Integer(0, 1_048_576)),
    may("unseen", Kind::List(0, &Kind::Text)),
    may("calibration_fraction", OPEN_SHARE),
    may("false_reject_rate", OPEN_SHARE),
    may("suspect_rate", OPEN_SHARE),
    may("synthetic", Kind::Bool),
    may("feature_budget_mib", Kind::Integer(1, 1 << 24)),
];

#[cfg(test)]
mod tests {
    use serde::Serialize;
    use serde::de::DeserializeOwned;
    use toml::{Table, Value};

    use super::*;
    use crate::config::{Config, TrainingConfig};

    /// A value that a kind allows; `highest` takes the upper end of its range.
    fn sample(kind: Kind, variant: usize, highest: bool) -> Value {
        match kind {
            Kind::Bool => true.into(),
            Kind::Integer(min, max) => if highest { max } else { min }.into(),
            Kind::Number(Limit::Within(low) | Limit::Beyond(low), Limit::Within(high) | Limit::Beyond(high)) => {
                f64::midpoint(low, high).into()
            }
            Kind::Text | Kind::Path | Kind::Name | Kind::Pipeline => "name".into(),
            Kind::Listen => "127.0.0.1:1883".into(),
            Kind::Size => "64x32".into(),
            Kind::Choice(words) => words[if highest { words.len() - 1 } else { 0 }].into(),
            Kind::List(_, of) => vec![sample(*of, variant, highest)].into(),
            Kind::Table(keys) => table(keys, variant, highest).into(),
            Kind::Tagged(variants) => {
                let (word, keys) = variants[variant];
                let mut table = table(keys, variant, highest);
                table.insert(TAG.into(), word.into());
                table.into()
            }
            Kind::Free => Table::from_iter([("key".to_owned(), Value::from(1.5))]).into(),
        }
    }

    fn table(keys: &[Key], variant: usize, highest: bool) -> Table {
        keys.iter().map(|key| (key.name.to_owned(), sample(key.kind, variant, highest))).collect()
    }

    /// Every key of the table has a field of its type and the reverse: what the table allows is
    /// read, and written again it is the same.
    fn agrees<T: Serialize + DeserializeOwned>(keys: &[Key]) {
        for (variant, highest) in [(0, false), (1, true)] {
            let full = table(keys, variant, highest);
            let read: T = Value::Table(full.clone()).try_into().expect("what the table of keys allows");
            assert_eq!(Table::try_from(&read).unwrap(), full);
        }
    }

    #[test]
    fn the_table_of_keys_agrees_with_the_line_s_structs() {
        agrees::<Config>(LINE);
    }

    #[test]
    fn the_table_of_keys_agrees_with_the_training_s_struct() {
        agrees::<TrainingConfig>(TRAINING);
    }

    /// The names between backticks in what serde says of one that it does not know, that one left out.
    fn known_to<T: DeserializeOwned + std::fmt::Debug>(key: &str, value: &str) -> Vec<String> {
        let table = Table::from_iter([(key.to_owned(), Value::from(value))]);
        let error = Value::Table(table).try_into::<T>().unwrap_err().to_string();
        error.split('`').skip(1).step_by(2).filter(|name| ![UNKNOWN, key].contains(name)).map(str::to_owned).collect()
    }

    const UNKNOWN: &str = "unknown";

    /// An absent key is not written again: only serde itself tells a field, or a word, that the table lacks.
    #[test]
    fn the_table_of_keys_lacks_no_field_and_no_word_of_the_training_s_struct() {
        let names: Vec<&str> = TRAINING.iter().map(|key| key.name).collect();
        let mut known = known_to::<TrainingConfig>(UNKNOWN, UNKNOWN);
        known.retain(|name| !names.contains(&name.as_str()));
        assert!(known.is_empty(), "no key for {known:?}");
        for key in TRAINING {
            if let Kind::Choice(words) = key.kind {
                let known = known_to::<TrainingConfig>(key.name, UNKNOWN);
                assert!(known.len() > 1, "{known:?}");
                assert!(known.iter().all(|word| words.contains(&word.as_str())), "{}: {known:?}", key.name);
            }
        }
    }

    /// Leaves every key out in turn: serde must miss exactly the required ones.
    fn required_agree<T: DeserializeOwned>(keys: &'static [Key], root: &'static [Key], path: &[&'static str]) {
        for key in keys {
            let mut full = Value::Table(table(root, 0, false));
            let mut parent = &mut full;
            for step in path {
                parent = parent.get_mut(*step).unwrap();
                if let Value::Array(items) = parent {
                    parent = &mut items[0];
                }
            }
            parent.as_table_mut().unwrap().remove(key.name).expect("a known key");
            let read = full.try_into::<T>();
            assert_eq!(read.is_err(), key.required, "{path:?} {}: {:?}", key.name, read.err());
            let mut below = path.to_vec();
            below.push(key.name);
            match key.kind {
                Kind::Table(keys) | Kind::List(_, &Kind::Table(keys)) => required_agree::<T>(keys, root, &below),
                Kind::Tagged(variants) => required_agree::<T>(variants[0].1, root, &below),
                _ => {}
            }
        }
    }

    #[test]
    fn required_keys_are_those_without_a_default() {
        required_agree::<Config>(LINE, LINE, &[]);
        required_agree::<TrainingConfig>(TRAINING, TRAINING, &[]);
    }
}
