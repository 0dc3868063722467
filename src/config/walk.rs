//! A tree against the table of known keys: every problem in one go.

use super::document::{Data, Node, Sources};
use super::keys::{Key, Kind, Limit, MAX_LIST, MAX_TEXT, TAG};
use super::problem::{Problem, nearest};
use super::training::parse_image_size;

/// Checks trees and collects problems.
#[derive(Debug)]
pub(super) struct Walk<'a> {
    sources: &'a Sources,
    problems: Vec<Problem>,
}

impl<'a> Walk<'a> {
    pub(super) fn new(sources: &'a Sources) -> Self {
        Self { sources, problems: Vec::new() }
    }

    pub(super) fn sources(&self) -> &'a Sources {
        self.sources
    }

    /// The problems found, in the order of the file, those of other sources after it.
    pub(super) fn finish(mut self) -> Vec<Problem> {
        sort(&mut self.problems);
        self.problems
    }

    /// Notes a problem at a node.
    pub(super) fn report(&mut self, node: &Node, message: impl Into<String>, help: Option<&str>) {
        self.problems.push(self.sources.problem(node.at, message, help.map(str::to_owned)));
    }

    /// Checks a table: unknown keys, missing keys, and every value. `extra` is a key known beside
    /// the table's own.
    pub(super) fn table(&mut self, node: &Node, path: &str, keys: &[Key], extra: Option<&str>) {
        let Data::Table(entries) = &node.data else {
            return self.wrong_type(node, path, "a table");
        };
        for entry in entries {
            if let Some(key) = keys.iter().find(|key| key.name == entry.name) {
                self.value(&entry.value, &join(path, key.name), key.kind);
            } else if extra != Some(entry.name.as_str()) {
                let names = keys.iter().map(|key| key.name).chain(extra);
                let help = match nearest(&entry.name, names.clone()) {
                    Some(name) => format!("did you mean `{name}`?"),
                    None => format!("known here: {}", names.collect::<Vec<_>>().join(", ")),
                };
                let place = if path.is_empty() { "at the top level".to_owned() } else { format!("in `{path}`") };
                let message = format!("unknown key `{}` {place}", entry.name);
                self.problems.push(self.sources.problem(entry.at, message, Some(help)));
            }
        }
        for key in keys.iter().filter(|key| key.required && node.get(key.name).is_none()) {
            self.missing(node, path, key.name, key.kind);
        }
    }

    fn missing(&mut self, node: &Node, path: &str, name: &str, kind: Kind) {
        let help = match kind {
            Kind::Table(_) | Kind::Tagged(_) => format!("add a table [{}]", join(path, name)),
            Kind::List(_, Kind::Table(_)) => format!("add a table [[{}]]", join(path, name)),
            kind => format!("add `{name} = …`, {}", wanted(kind)),
        };
        self.report(node, format!("`{}` is missing", join(path, name)), Some(&help));
    }

    fn value(&mut self, node: &Node, path: &str, kind: Kind) {
        match kind {
            Kind::Bool => {
                if !matches!(node.data, Data::Bool(_)) {
                    self.wrong_type(node, path, &wanted(kind));
                }
            }
            Kind::Integer(min, max) => match node.data {
                Data::Integer(Some(value)) if (min..=max).contains(&value) => {}
                Data::Integer(value) => {
                    let value = value.map_or_else(|| "a number beyond 64 bits".to_owned(), |value| value.to_string());
                    self.out_of_range(node, path, &value, kind);
                }
                _ => self.wrong_type(node, path, &wanted(kind)),
            },
            Kind::Number(low, high) => match node.number() {
                Some(value) if low.allows_above(value) && high.allows_below(value) => {}
                Some(value) => self.out_of_range(node, path, &value.to_string(), kind),
                None => self.wrong_type(node, path, &wanted(kind)),
            },
            Kind::Table(keys) => self.table(node, path, keys, None),
            Kind::Tagged(variants) => self.tagged(node, path, variants),
            Kind::List(min, of) => self.list(node, path, min, *of),
            Kind::Free => self.free(node, path),
            Kind::Size => {
                let text = match &node.data {
                    Data::Integer(Some(side)) => side.to_string(),
                    Data::Text(text) => text.clone(),
                    _ => return self.wrong_type(node, path, &wanted(kind)),
                };
                if let Err(problem) = parse_image_size(&text) {
                    self.report(node, format!("`{path}`: {problem}"), None);
                }
            }
            Kind::Text | Kind::Path | Kind::Name | Kind::Pipeline | Kind::Listen | Kind::Choice(_) => {
                let Some(text) = node.text() else {
                    return self.wrong_type(node, path, &wanted(kind));
                };
                if let Some(problem) = text_problem(text, kind) {
                    let help = match kind {
                        Kind::Choice(words) => {
                            nearest(text, words.iter().copied()).map(|word| format!("did you mean \"{word}\"?"))
                        }
                        Kind::Listen => Some("for a broker that others reach, run one beside this program".to_owned()),
                        _ => None,
                    };
                    self.report(node, format!("`{path}` {problem}"), help.as_deref());
                }
            }
        }
    }

    fn tagged(&mut self, node: &Node, path: &str, variants: &'static [(&'static str, &'static [Key])]) {
        if !matches!(node.data, Data::Table(_)) {
            return self.wrong_type(node, path, "a table");
        }
        let words: Vec<&str> = variants.iter().map(|(word, _)| *word).collect();
        let Some(tag) = node.get(TAG) else {
            let help = format!("add `{TAG} = …`, one of {}", words.join(", "));
            return self.report(node, format!("`{}` is missing", join(path, TAG)), Some(&help));
        };
        match variants.iter().find(|(word, _)| tag.text() == Some(word)) {
            Some((_, keys)) => self.table(node, path, keys, Some(TAG)),
            None => {
                let found = tag.text().map_or_else(|| described(tag).to_owned(), |text| format!("\"{text}\""));
                let message = format!("`{}` must be one of {}, not {found}", join(path, TAG), words.join(", "));
                self.report(tag, message, None);
            }
        }
    }

    fn list(&mut self, node: &Node, path: &str, min: usize, of: Kind) {
        let Data::List(items) = &node.data else {
            return self.wrong_type(node, path, &wanted(Kind::List(min, &Kind::Text)));
        };
        if items.len() < min || items.len() > MAX_LIST {
            let message = format!("`{path}` has {} entries, allowed are {min} to {MAX_LIST}", items.len());
            self.report(node, message, None);
        }
        for (index, item) in items.iter().take(MAX_LIST).enumerate() {
            self.value(item, &format!("{path}[{index}]"), of);
        }
    }

    fn free(&mut self, node: &Node, path: &str) {
        let Data::Table(entries) = &node.data else {
            return self.wrong_type(node, path, "a table");
        };
        for entry in entries {
            match &entry.value.data {
                Data::Bool(_) | Data::Integer(Some(_)) => {}
                Data::Float(value) if value.is_finite() => {}
                Data::Text(text) if text.len() <= MAX_TEXT => {}
                _ => {
                    let path = join(path, &entry.name);
                    self.wrong_type(&entry.value, &path, "a text, a number or a boolean");
                }
            }
        }
    }

    fn wrong_type(&mut self, node: &Node, path: &str, wanted: &str) {
        let at = if path.is_empty() { String::new() } else { format!("`{path}` ") };
        self.report(node, format!("{at}must be {wanted}, not {}", described(node)), None);
    }

    fn out_of_range(&mut self, node: &Node, path: &str, value: &str, kind: Kind) {
        self.report(node, format!("`{path}` is {value}, it must be {}", wanted(kind)), None);
    }
}

/// Sorts by place: the file first, then other sources.
pub(super) fn sort(problems: &mut [Problem]) {
    problems.sort_by_key(|problem| (problem.line.is_none(), problem.line, problem.column));
}

impl Limit {
    fn allows_above(self, value: f64) -> bool {
        match self {
            Self::Within(limit) => value >= limit,
            Self::Beyond(limit) => value > limit,
        }
    }

    fn allows_below(self, value: f64) -> bool {
        match self {
            Self::Within(limit) => value <= limit,
            Self::Beyond(limit) => value < limit,
        }
    }
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

/// What a text must be and is not.
fn text_problem(text: &str, kind: Kind) -> Option<String> {
    if text.trim().is_empty() {
        return Some("is empty".into());
    }
    if text.len() > MAX_TEXT || text.contains('\0') {
        return Some(format!("must be a text of at most {MAX_TEXT} bytes without a zero byte"));
    }
    match kind {
        Kind::Name => {
            let bad = text.chars().find(|&c| !(c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.')));
            if let Some(bad) = bad {
                return Some(format!("must have only letters, digits, `-`, `_` and `.`, not `{}`", bad.escape_debug()));
            }
            (text.len() > 64).then(|| format!("has {} characters, at most 64 are allowed", text.len()))
        }
        Kind::Choice(words) if !words.contains(&text) => Some(format!("must be {}, not \"{text}\"", wanted(kind))),
        Kind::Listen => match text.parse::<std::net::SocketAddr>() {
            Err(_) => Some(format!("must be {}, not \"{text}\"", wanted(kind))),
            Ok(address) if !address.ip().is_loopback() => Some(format!(
                "is {text}, which others can reach, and the embedded broker knows no password: it must be {}",
                wanted(kind)
            )),
            Ok(address) if address.port() == 0 => {
                Some("has port 0, which nobody could find: name one, such as 1883".into())
            }
            Ok(_) => None,
        },
        _ => None,
    }
}

/// What a kind of value looks like, as the end of a sentence.
fn wanted(kind: Kind) -> String {
    match kind {
        Kind::Bool => "true or false".into(),
        Kind::Integer(min, i64::MAX) => format!("a whole number from {min}"),
        Kind::Integer(min, max) => format!("a whole number from {min} to {max}"),
        Kind::Number(low, high) => {
            let side = |limit, within, beyond| match limit {
                Limit::Within(value) => format!("{within} {value}"),
                Limit::Beyond(value) => format!("{beyond} {value}"),
            };
            format!("a number {} and {}", side(low, "of at least", "above"), side(high, "at most", "below"))
        }
        Kind::Text => "a text".into(),
        Kind::Path => "a path in quotes".into(),
        Kind::Name => "a name of letters, digits, `-`, `_` and `.`".into(),
        Kind::Pipeline => "a pipeline's name or the path of a .launch file, in quotes".into(),
        Kind::Listen => "a loopback address with a port, such as \"127.0.0.1:1883\"".into(),
        Kind::Size => "a number of pixels, \"WIDTHxHEIGHT\" or \"auto\"".into(),
        Kind::Choice(words) => format!("one of {}", words.join(", ")),
        Kind::List(..) => "a list".into(),
        Kind::Table(_) | Kind::Tagged(_) | Kind::Free => "a table".into(),
    }
}

fn described(node: &Node) -> &'static str {
    match node.data {
        Data::Bool(_) => "a boolean",
        Data::Integer(_) => "a whole number",
        Data::Float(_) => "a number with a fraction",
        Data::Text(_) => "a text",
        Data::Datetime(_) => "a date or time",
        Data::List(_) => "a list",
        Data::Table(_) => "a table",
    }
}
