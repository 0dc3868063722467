//! Known labels of parts.

use std::collections::HashMap;
use std::path::Path;

use anyhow::{Context, bail};

use crate::inspection::Decision;

/// What a part really is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Label {
    /// Without defect.
    Good,
    /// With a defect.
    Defect,
}

/// Labels by part.
#[derive(Debug)]
pub(super) struct Labels {
    parts: HashMap<String, Label>,
}

impl Labels {
    /// Reads a CSV file with the header `part_id,label`.
    pub(super) fn read(file: &Path) -> anyhow::Result<Self> {
        let text =
            std::fs::read_to_string(file).with_context(|| format!("labels {} cannot be read", file.display()))?;
        Self::parse(&text).with_context(|| format!("labels {} cannot be used", file.display()))
    }

    fn parse(text: &str) -> anyhow::Result<Self> {
        let mut lines = text.lines().enumerate();
        let header = lines.next().map_or("", |(_, line)| line.trim().trim_start_matches('\u{feff}'));
        if header != "part_id,label" {
            bail!("line 1 is `{header}`: the header `part_id,label` is needed");
        }
        let mut parts = HashMap::new();
        for (number, line) in lines.filter(|(_, line)| !line.trim().is_empty()) {
            let number = number + 1;
            let (part, label) = line
                .trim()
                .rsplit_once(',')
                .with_context(|| format!("line {number} is `{line}`: `part_id,label` is needed"))?;
            let label = match label.trim() {
                "good" => Label::Good,
                "defect" => Label::Defect,
                other => bail!("line {number}: label `{other}` is neither `good` nor `defect`"),
            };
            if parts.insert(part.trim().to_owned(), label).is_some_and(|before| before != label) {
                bail!("line {number}: part `{part}` has both labels");
            }
        }
        if parts.is_empty() {
            bail!("there is no part in it");
        }
        Ok(Self { parts })
    }

    /// The label of the part of a decision; none where it has no identity or none is known.
    pub(super) fn of(&self, decision: &Decision) -> Option<Label> {
        self.parts.get(decision.part_id.as_deref()?).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_read_and_mistakes_are_named_by_line() {
        let labels = Labels::parse("part_id,label\na.png,good\n\nb,1.png , defect\n").unwrap();
        assert_eq!(labels.parts["a.png"], Label::Good);
        assert_eq!(labels.parts["b,1.png"], Label::Defect);
        for (text, expected) in [
            ("a,good\n", "line 1"),
            ("part_id,label\na,bad\n", "line 2"),
            ("part_id,label\na,good\na,defect\n", "both labels"),
            ("part_id,label\n", "no part"),
            ("", "line 1"),
        ] {
            let error = Labels::parse(text).unwrap_err().to_string();
            assert!(error.contains(expected), "{text:?}: {error}");
        }
    }
}
