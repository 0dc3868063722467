//! What is wrong with a configuration, shown with file, line and caret.

use std::fmt::{self, Display, Formatter};
use std::path::PathBuf;

use serde::Serialize;

/// Problems shown at most; a file with more is not a configuration.
const MAX_PROBLEMS: usize = 100;
/// Columns of a source line shown at most; a longer one is cut around the caret.
const MAX_COLUMNS: usize = 120;

/// Why there is no configuration. Everything here ends the program with exit code 2.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("the configuration {path} cannot be read; check the path and its permissions")]
    Read {
        /// The file.
        path: PathBuf,
        /// Cause.
        source: std::io::Error,
    },
    /// The file is larger than any configuration.
    #[error("the configuration {path} is larger than {limit} bytes; is it the right file?")]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// The limit, bytes.
        limit: u64,
    },
    /// The text has problems: all of them, in the order of the file.
    #[error("the configuration {path} has {}", Report(problems))]
    Invalid {
        /// The file.
        path: PathBuf,
        /// Every problem found.
        problems: Vec<Problem>,
    },
}

impl ConfigError {
    /// The problems with a place; empty where the file could not be read at all.
    pub fn problems(&self) -> &[Problem] {
        match self {
            Self::Invalid { problems, .. } => problems,
            _ => &[],
        }
    }
}

/// One problem and where it stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// What is wrong, with the value and the limit.
    pub message: String,
    /// The file, `environment` or `command line`.
    pub source: String,
    /// Line, from 1; none outside a file.
    pub line: Option<usize>,
    /// Column in characters, from 1.
    pub column: usize,
    /// How many characters are meant, at least 1.
    pub width: usize,
    /// The line's text.
    pub text: String,
    /// What to do, where more can be said.
    pub help: Option<String>,
}

impl Display for Problem {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let number = self.line.map(|line| line.to_string()).unwrap_or_default();
        let gutter = " ".repeat(number.len());
        writeln!(f, "{}", self.message)?;
        match self.line {
            Some(line) => writeln!(f, "{gutter}--> {}:{line}:{}", self.source, self.column)?,
            None => writeln!(f, "{gutter}--> {}", self.source)?,
        }
        let (text, before) = self.window();
        let width = self.width.min(text.chars().count().saturating_sub(before)).max(1);
        // Tabs are kept, so that the caret stands below its text whatever a tab is worth.
        let indent: String = text.chars().take(before).map(|c| if c == '\t' { '\t' } else { ' ' }).collect();
        let indent = format!("{indent}{}", " ".repeat(before.saturating_sub(text.chars().count())));
        writeln!(f, "{gutter} |")?;
        writeln!(f, "{number} | {text}")?;
        write!(f, "{gutter} | {indent}{}", "^".repeat(width))?;
        if let Some(help) = &self.help {
            write!(f, "\n{gutter} = help: {help}")?;
        }
        Ok(())
    }
}

impl Problem {
    /// The part of the line that is shown, and how many characters stand before the caret in it.
    fn window(&self) -> (String, usize) {
        let before = self.column.saturating_sub(1);
        let start = if before > MAX_COLUMNS / 2 && self.text.chars().count() > MAX_COLUMNS {
            before - MAX_COLUMNS / 2
        } else {
            0
        };
        (self.text.chars().skip(start).take(MAX_COLUMNS).collect(), before - start)
    }
}

/// All problems as text, below their count.
struct Report<'a>(&'a [Problem]);

impl Display for Report<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{} problem{}", self.0.len(), if self.0.len() == 1 { "" } else { "s" })?;
        for problem in self.0.iter().take(MAX_PROBLEMS) {
            write!(f, "\n\n{problem}")?;
        }
        match self.0.len().checked_sub(MAX_PROBLEMS) {
            Some(more @ 1..) => write!(f, "\n\nand {more} more"),
            _ => Ok(()),
        }
    }
}

/// The known word nearest to `word`, where one is near enough to be meant.
pub(super) fn nearest<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let limit = (word.chars().count() / 3).max(1);
    known
        .map(|candidate| (distance(word, candidate), candidate))
        .filter(|&(distance, candidate)| {
            // A word with its unit left out (`keep_alive`) is as near as a slip of a finger.
            distance <= limit || (word.len() >= 4 && candidate.starts_with(word))
        })
        .min()
        .map(|(_, candidate)| candidate)
}

/// Levenshtein distance in characters; words beyond 64 characters count as infinitely far.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    if a.len() > 64 || b.len() > 64 {
        return usize::MAX;
    }
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_a_finger_finds_its_word_and_another_word_finds_none() {
        let known = ["keep_alive_s", "drain_ms", "expiry_s"];
        assert_eq!(nearest("keep_alve_s", known.into_iter()), Some("keep_alive_s"));
        assert_eq!(nearest("keep_alive", known.into_iter()), Some("keep_alive_s"));
        assert_eq!(nearest("colour", known.into_iter()), None);
    }

    #[test]
    fn the_distance_counts_insertions_deletions_and_substitutions() {
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("größe", "grösse"), 2);
    }
}
