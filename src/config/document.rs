//! A configuration from several sources as one tree, in which every value remembers where it was
//! written: so a problem is shown there, be it a file, the environment or the command line.

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::keys::{Key, Kind, TAG};
use super::problem::Problem;

/// Where a value was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    source: usize,
    start: usize,
    end: usize,
}

/// A value and its place.
#[derive(Debug, Clone)]
pub(super) struct Node {
    pub(super) data: Data,
    pub(super) at: Place,
}

/// A value.
#[derive(Debug, Clone)]
pub(super) enum Data {
    Bool(bool),
    /// None where it does not fit 64 bits.
    Integer(Option<i64>),
    Float(f64),
    Text(String),
    Datetime(String),
    List(Vec<Node>),
    Table(Vec<Entry>),
}

/// A key of a table with its value.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) name: String,
    pub(super) at: Place,
    pub(super) value: Node,
}

impl Node {
    /// The value under a key of a table.
    pub(super) fn get(&self, name: &str) -> Option<&Node> {
        self.entry(name).map(|entry| &entry.value)
    }

    /// Key and value of a table.
    pub(super) fn entry(&self, name: &str) -> Option<&Entry> {
        match &self.data {
            Data::Table(entries) => entries.iter().find(|entry| entry.name == name),
            _ => None,
        }
    }

    /// The text, where it is one.
    pub(super) fn text(&self) -> Option<&str> {
        match &self.data {
            Data::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The number, where it is one.
    pub(super) fn number(&self) -> Option<f64> {
        match self.data {
            Data::Integer(value) => value.map(|value| value as f64),
            Data::Float(value) => Some(value),
            _ => None,
        }
    }

    /// The values of a list; none for anything else.
    pub(super) fn items(&self) -> &[Node] {
        match &self.data {
            Data::List(items) => items,
            _ => &[],
        }
    }

    /// The same without places. Values that cannot be (an integer beyond 64 bits) were reported
    /// before.
    pub(super) fn to_value(&self) -> toml::Value {
        match &self.data {
            Data::Bool(value) => (*value).into(),
            Data::Integer(value) => value.unwrap_or(i64::MAX).into(),
            Data::Float(value) => (*value).into(),
            Data::Text(text) | Data::Datetime(text) => text.clone().into(),
            Data::List(items) => items.iter().map(Node::to_value).collect::<Vec<_>>().into(),
            Data::Table(entries) => {
                let entries = entries.iter().map(|entry| (entry.name.clone(), entry.value.to_value()));
                toml::Value::Table(entries.collect())
            }
        }
    }
}

/// A text that values come from.
#[derive(Debug)]
struct Source {
    name: String,
    text: String,
    is_file: bool,
}

/// Every source read so far.
#[derive(Debug, Default)]
pub(super) struct Sources(Vec<Source>);

impl Sources {
    /// Takes a source in; its number is used in places.
    fn add(&mut self, name: String, text: String, is_file: bool) -> usize {
        self.0.push(Source { name, text, is_file });
        self.0.len() - 1
    }

    /// A problem at a place.
    pub(super) fn problem(&self, at: Place, message: impl Into<String>, help: Option<String>) -> Problem {
        let source = &self.0[at.source];
        let text = source.text.as_str();
        let mut start = at.start.min(text.len());
        while !text.is_char_boundary(start) {
            start -= 1;
        }
        let line_start = text[..start].rfind('\n').map_or(0, |newline| newline + 1);
        let line_end = text[start..].find('\n').map_or(text.len(), |newline| start + newline);
        let mut end = at.end.clamp(start, line_end);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        Problem {
            message: message.into(),
            source: source.name.clone(),
            line: source.is_file.then(|| text[..start].matches('\n').count() + 1),
            column: text[line_start..start].chars().count() + 1,
            width: text[start..end.max(start)].chars().count().max(1),
            text: text[line_start..line_end].trim_end_matches('\r').to_owned(),
            help,
        }
    }

    /// The line number of a place, from 1.
    pub(super) fn line(&self, at: Place) -> usize {
        let text = &self.0[at.source].text;
        text.as_bytes()[..at.start.min(text.len())].iter().filter(|byte| **byte == b'\n').count() + 1
    }

    /// Parses a file's text. With syntax errors there is no tree: what could be recovered would
    /// only be reported as missing.
    pub(super) fn read_file(&mut self, name: String, text: &str) -> Result<Node, Vec<Problem>> {
        let source = self.add(name, text.to_owned(), true);
        let (table, errors) = DeTable::parse_recoverable(text);
        if errors.is_empty() {
            // The root has no place of its own: the file's beginning stands for it.
            let at = Place { source, start: 0, end: 0 };
            return Ok(Node { data: table_data(source, table.get_ref()), at });
        }
        let end = text.len();
        Err(errors
            .iter()
            .map(|error| {
                let span = error.span().unwrap_or(end..end);
                let at = Place { source, start: span.start, end: span.end };
                self.problem(at, format!("this is not TOML: {}", error.message()), None)
            })
            .collect())
    }

    /// Puts `text`, shown as `shown` (`mqtt.port=1`), into the tree at `path`. What the table of
    /// keys calls text is taken literally, everything else is read as a TOML value.
    pub(super) fn set(
        &mut self,
        root: &mut Node,
        keys: &'static [Key],
        origin: &str,
        shown: String,
        path: &str,
        text: &str,
    ) -> Result<(), Problem> {
        let start = shown.len() - text.len();
        let end = shown.len();
        let source = self.add(origin.to_owned(), shown, false);
        let key_at = Place { source, start: 0, end: start.saturating_sub(1) };
        let value_at = Place { source, start, end };
        let steps: Vec<&str> = path.split('.').collect();
        let literal = matches!(
            kind_at(keys, &steps),
            Some(Kind::Text | Kind::Path | Kind::Name | Kind::Pipeline | Kind::Listen | Kind::Choice(_))
        );
        let parsed = if literal { None } else { DeValue::parse(text).ok() };
        let data = match &parsed {
            Some(value) => data(source, value.get_ref(), Some(value_at)),
            None => Data::Text(text.to_owned()),
        };
        put(root, &steps, Node { data, at: value_at }, key_at).map_err(|message| self.problem(key_at, message, None))
    }
}

/// Puts a node below `node`; tables on the way are made, list items must exist.
fn put(node: &mut Node, steps: &[&str], value: Node, key_at: Place) -> Result<(), String> {
    let Some((step, rest)) = steps.split_first() else {
        *node = value;
        return Ok(());
    };
    match &mut node.data {
        Data::List(items) => {
            let count = items.len();
            let item = step.parse::<usize>().ok().and_then(|index| items.get_mut(index));
            let item = item.ok_or_else(|| format!("`{step}` is not the number of one of {count} entries, from 0"))?;
            put(item, rest, value, key_at)
        }
        Data::Table(entries) => {
            // Another variant has other keys: those of the former one go.
            if *step == TAG && rest.is_empty() {
                let former = entries.iter().find(|entry| entry.name == TAG).and_then(|entry| entry.value.text());
                if former != value.text() {
                    entries.clear();
                }
            }
            if let Some(entry) = entries.iter_mut().find(|entry| entry.name == *step) {
                return put(&mut entry.value, rest, value, key_at);
            }
            let mut made = Node { data: Data::Table(Vec::new()), at: key_at };
            put(&mut made, rest, value, key_at)?;
            entries.push(Entry { name: (*step).to_owned(), at: key_at, value: made });
            Ok(())
        }
        _ => Err(format!("nothing lies below a single value, so `{step}` cannot be set")),
    }
}

/// What the table of keys says about a path; none for an unknown one.
fn kind_at(keys: &'static [Key], steps: &[&str]) -> Option<Kind> {
    let mut kind = Kind::Table(keys);
    for step in steps {
        let find = |keys: &'static [Key]| keys.iter().find(|key| key.name == *step).map(|key| key.kind);
        kind = match kind {
            Kind::Table(keys) => find(keys)?,
            Kind::Tagged(_) if *step == TAG => Kind::Text,
            Kind::Tagged(variants) => variants.iter().find_map(|(_, keys)| find(keys))?,
            Kind::List(_, of) => *of,
            _ => return None,
        };
    }
    Some(kind)
}

fn data(source: usize, value: &DeValue<'_>, all: Option<Place>) -> Data {
    match value {
        DeValue::String(text) => Data::Text(text.to_string()),
        DeValue::Integer(value) => Data::Integer(i64::from_str_radix(value.as_str(), value.radix()).ok()),
        DeValue::Float(value) => Data::Float(value.as_str().parse().unwrap_or(f64::NAN)),
        DeValue::Boolean(value) => Data::Bool(*value),
        DeValue::Datetime(value) => Data::Datetime(value.to_string()),
        DeValue::Array(items) => Data::List(items.iter().map(|item| node(source, item, all)).collect()),
        DeValue::Table(table) => table_data_at(source, table, all),
    }
}

fn table_data(source: usize, table: &DeTable<'_>) -> Data {
    table_data_at(source, table, None)
}

/// `all` is the place of everything inside, where there is but one (an override).
fn table_data_at(source: usize, table: &DeTable<'_>, all: Option<Place>) -> Data {
    let mut entries: Vec<Entry> = table
        .iter()
        .map(|(key, value)| {
            let span = key.span();
            let at = all.unwrap_or(Place { source, start: span.start, end: span.end });
            Entry { name: key.get_ref().to_string(), at, value: node(source, value, all) }
        })
        .collect();
    entries.sort_by_key(|entry| entry.at);
    Data::Table(entries)
}

fn node(source: usize, value: &Spanned<DeValue<'_>>, all: Option<Place>) -> Node {
    let span = value.span();
    let at = all.unwrap_or(Place { source, start: span.start, end: span.end });
    Node { data: data(source, value.get_ref(), all), at }
}
