//! Launch descriptions: text with comments and `{placeholders}` -> the GStreamer graph's text.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::CaptureError;

/// Largest description that is read, bytes.
const MAX_BYTES: u64 = 64 << 10;

/// The descriptions that are part of the program, by name.
const BUILT_IN: [(&str, &str); 7] = [
    ("folder", include_str!("../../../pipelines/folder.launch")),
    ("file", include_str!("../../../pipelines/file.launch")),
    ("test", include_str!("../../../pipelines/test.launch")),
    ("still", include_str!("../../../pipelines/still.launch")),
    ("v4l2", include_str!("../../../pipelines/v4l2.launch")),
    ("rtsp", include_str!("../../../pipelines/rtsp.launch")),
    ("genicam", include_str!("../../../pipelines/genicam.launch")),
];

/// A parameter that a description takes.
#[derive(Debug, Clone, PartialEq)]
pub struct Parameter {
    /// Name, as in the placeholder.
    pub name: String,
    /// Value where none is given; none means that it must be given.
    pub default: Option<toml::Value>,
    /// What it means.
    pub meaning: String,
}

/// A launch description: the graph of one camera up to, but without, the appsink.
///
/// The comment lines on top declare what it takes, one line each:
/// `# parameter NAME=DEFAULT meaning` or, where a value must be given, `# parameter NAME meaning`.
#[derive(Debug, Clone, PartialEq)]
pub struct LaunchDescription {
    name: String,
    body: String,
    parameters: Vec<Parameter>,
}

/// A piece of a description's body.
enum Piece<'a> {
    Text(&'a str),
    Placeholder(&'a str),
}

impl LaunchDescription {
    /// The names of the built-in descriptions.
    pub fn built_in() -> impl Iterator<Item = &'static str> {
        BUILT_IN.iter().map(|(name, _)| *name)
    }

    /// Finds a description: a built-in one by its name, else a file by its path.
    ///
    /// # Errors
    /// No such name or file, an unreadable or oversized file, or a body whose placeholders and
    /// declarations do not match.
    pub fn find(pipeline: &str) -> Result<Self, CaptureError> {
        if let Some((name, text)) = BUILT_IN.iter().find(|(name, _)| *name == pipeline) {
            return Self::parse(name, text);
        }
        let path = Path::new(pipeline);
        let unreadable = |source| CaptureError::DescriptionFile {
            path: PathBuf::from(path),
            built_in: Self::built_in().collect::<Vec<_>>().join(", "),
            source,
        };
        let length = fs::metadata(path).map_err(unreadable)?.len();
        if length > MAX_BYTES {
            return Err(CaptureError::Description {
                name: pipeline.into(),
                problem: format!("it has {length} bytes, the limit is {MAX_BYTES}"),
            });
        }
        Self::parse(pipeline, &fs::read_to_string(path).map_err(unreadable)?)
    }

    /// Reads a description's text; `name` is for messages.
    ///
    /// # Errors
    /// [`CaptureError::Description`] for a placeholder that is not declared, a declaration that is
    /// not used or stands twice, or a placeholder inside quotes.
    pub fn parse(name: &str, text: &str) -> Result<Self, CaptureError> {
        let wrong = |problem: String| CaptureError::Description { name: name.into(), problem };
        let (comments, lines): (Vec<_>, Vec<_>) = text.lines().map(str::trim).partition(|line| line.starts_with('#'));
        let body = lines.join(" ").trim().to_owned();
        if body.is_empty() {
            return Err(wrong("it describes no element".into()));
        }
        let mut parameters: Vec<Parameter> = Vec::new();
        for line in comments {
            let Some(declaration) = line.trim_start_matches('#').trim().strip_prefix("parameter ") else { continue };
            let (head, meaning) =
                declaration.trim().split_once(char::is_whitespace).unwrap_or((declaration.trim(), ""));
            let (key, default) = match head.split_once('=') {
                Some((key, default)) => (key, Some(value_of(default))),
                None => (head, None),
            };
            if !is_name(key) {
                return Err(wrong(format!("`{key}` cannot be a parameter: use a-z, 0-9 and _")));
            }
            if parameters.iter().any(|p| p.name == key) {
                return Err(wrong(format!("parameter `{key}` is declared twice")));
            }
            parameters.push(Parameter { name: key.into(), default, meaning: meaning.trim().into() });
        }
        let mut used = Vec::new();
        let mut quote = None;
        for piece in pieces(&body) {
            match piece {
                Piece::Text(text) => {
                    for c in text.chars().filter(|c| matches!(c, '"' | '\'')) {
                        quote = match quote {
                            None => Some(c),
                            Some(open) if open == c => None,
                            open => open,
                        };
                    }
                }
                // A value brings its own quotes; inside others they would end them.
                Piece::Placeholder(key) if quote.is_some() => {
                    return Err(wrong(format!("{{{key}}} stands inside quotes: leave them out, values are quoted")));
                }
                Piece::Placeholder(key) => used.push(key),
            }
        }
        if let Some(key) = used.iter().find(|key| parameters.iter().all(|p| p.name != **key)) {
            return Err(wrong(format!("{{{key}}} is not declared: add a line `# parameter {key} MEANING` on top")));
        }
        if let Some(p) = parameters.iter().find(|p| !used.contains(&&*p.name)) {
            return Err(wrong(format!("parameter `{}` is declared and not used", p.name)));
        }
        Ok(Self { name: name.into(), body, parameters })
    }

    /// What the description takes.
    pub fn parameters(&self) -> &[Parameter] {
        &self.parameters
    }

    /// The graph's text with every placeholder filled in. Numbers and booleans stand as they are,
    /// strings in quotes, so that a value can never become an element.
    ///
    /// # Errors
    /// [`CaptureError::Parameter`] for a parameter that is missing, unknown, of a type without
    /// meaning here, or with characters that cannot be quoted; it lists what is taken.
    pub fn render(&self, values: &BTreeMap<String, toml::Value>) -> Result<String, CaptureError> {
        let wrong =
            |problem: String| CaptureError::Parameter { name: self.name.clone(), problem, takes: self.listing() };
        if let Some(key) = values.keys().find(|key| self.parameters.iter().all(|p| p.name != **key)) {
            return Err(wrong(format!("it takes no parameter `{key}`")));
        }
        let mut text = String::with_capacity(self.body.len() + 64);
        for piece in pieces(&self.body) {
            match piece {
                Piece::Text(part) => text.push_str(part),
                Piece::Placeholder(key) => {
                    let declared = self.parameters.iter().find(|p| p.name == key).and_then(|p| p.default.as_ref());
                    let value = values
                        .get(key)
                        .or(declared)
                        .ok_or_else(|| wrong(format!("parameter `{key}` must be given")))?;
                    text.push_str(&written(value).map_err(|problem| wrong(format!("parameter `{key}`: {problem}")))?);
                }
            }
        }
        Ok(text)
    }

    fn listing(&self) -> String {
        if self.parameters.is_empty() {
            return "no parameter".into();
        }
        let one = |p: &Parameter| match &p.default {
            Some(default) => format!("{}={} ({})", p.name, plain(default), p.meaning),
            None => format!("{} ({}; must be given)", p.name, p.meaning),
        };
        self.parameters.iter().map(one).collect::<Vec<_>>().join(", ")
    }
}

fn is_name(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_lowercase())
        && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
}

/// A default as written in the declaration: number or boolean where it reads as one, else text.
fn value_of(text: &str) -> toml::Value {
    if let Ok(number) = text.parse::<i64>() {
        toml::Value::Integer(number)
    } else if let Ok(number) = text.parse::<f64>() {
        toml::Value::Float(number)
    } else if let Ok(flag) = text.parse::<bool>() {
        toml::Value::Boolean(flag)
    } else {
        toml::Value::String(text.into())
    }
}

fn plain(value: &toml::Value) -> String {
    match value {
        toml::Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// A value as it stands in the graph's text.
fn written(value: &toml::Value) -> Result<String, String> {
    match value {
        toml::Value::Integer(number) => Ok(number.to_string()),
        toml::Value::Float(number) if number.is_finite() => Ok(number.to_string()),
        toml::Value::Boolean(flag) => Ok(flag.to_string()),
        // GStreamer's own grammar is ambiguous about an escaped quote or a backslash before a
        // quote: its longest match may swallow what follows. So these are refused, not escaped.
        toml::Value::String(text) => match text.chars().find(|c| matches!(c, '"' | '\\') || c.is_control()) {
            Some(c) => Err(format!("the character {c:?} cannot be passed to GStreamer; rename or percent-encode it")),
            None => Ok(format!("\"{text}\"")),
        },
        other => Err(format!("a {} is neither text nor number nor boolean", other.type_str())),
    }
}

/// Splits a body at its placeholders. GStreamer's own braces (`{ RGB, BGR }`) are text.
fn pieces(body: &str) -> Vec<Piece<'_>> {
    let mut pieces = Vec::new();
    let (mut from, mut search) = (0, 0);
    while let Some(open) = body[search..].find('{').map(|at| search + at) {
        let inside = body[open + 1..].find('}').map(|length| &body[open + 1..open + 1 + length]);
        match inside.filter(|name| is_name(name)) {
            Some(name) => {
                pieces.push(Piece::Text(&body[from..open]));
                pieces.push(Piece::Placeholder(name));
                from = open + name.len() + 2;
                search = from;
            }
            None => search = open + 1,
        }
    }
    pieces.push(Piece::Text(&body[from..]));
    pieces
}
