//! The groups file: which pictures show the same part.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use super::{DatasetError, Sample, Warning};

const MAX_BYTES: u64 = 256 << 20;

/// Picture name to line and group.
pub(super) struct Groups(BTreeMap<String, (usize, String)>);

impl Groups {
    pub(super) fn read(path: &Path) -> Result<Self, DatasetError> {
        let bytes = fs::metadata(path).map_err(DatasetError::unreadable(path))?.len();
        if bytes > MAX_BYTES {
            return Err(DatasetError::TooManyBytes { path: path.to_path_buf(), bytes, limit: MAX_BYTES });
        }
        let text = fs::read_to_string(path).map_err(DatasetError::unreadable(path))?;
        Self::parse(text.trim_start_matches('\u{feff}')).map_err(|(line, problem)| DatasetError::Groups {
            path: path.to_path_buf(),
            line,
            problem,
        })
    }

    fn parse(text: &str) -> Result<Self, (usize, String)> {
        let mut lines = text.lines().enumerate().map(|(index, line)| (index + 1, line));
        let header = lines.next().map(|(_, line)| line.trim());
        if header != Some("file,group") {
            let found = header.unwrap_or_default();
            return Err((1, format!("the columns are \"{found}\": they must be \"file,group\"")));
        }
        let mut groups = BTreeMap::new();
        for (line, text) in lines {
            if text.trim().is_empty() {
                continue;
            }
            let fields = fields(text).map_err(|problem| (line, problem))?;
            let [file, group] = fields.as_slice() else {
                let found = fields.len();
                return Err((line, format!("{found} column(s) where file and group are expected: \"{text}\"")));
            };
            if file.is_empty() || group.is_empty() {
                return Err((line, format!("file and group must not be empty: \"{text}\"")));
            }
            if let Some((first, _)) = groups.insert(file.clone(), (line, group.clone())) {
                return Err((line, format!("{file} was named on line {first} already: keep one of the lines")));
            }
        }
        Ok(Self(groups))
    }

    /// Gives every sample its group; returns what a person should know.
    pub(super) fn assign(mut self, path: &Path, samples: &mut [Sample]) -> Result<Vec<Warning>, DatasetError> {
        let mut splits: BTreeMap<String, BTreeSet<_>> = BTreeMap::new();
        for sample in samples {
            let Some((_, group)) = self.0.remove(&sample.name) else {
                return Err(DatasetError::NotGrouped { groups: path.to_path_buf(), name: sample.name.clone() });
            };
            splits.entry(group.clone()).or_default().insert(sample.split);
            sample.group = Some(group);
        }
        let across = splits.into_iter().filter(|(_, splits)| splits.len() > 1);
        let mut notes: Vec<_> = across.map(|(group, _)| Warning::GroupInBothSplits { group }).collect();
        if let Some((name, (line, _))) = self.0.iter().min_by_key(|(_, (line, _))| *line) {
            notes.push(Warning::GroupsNameMissing {
                groups: path.to_path_buf(),
                count: self.0.len(),
                first: name.clone(),
                line: *line,
            });
        }
        Ok(notes)
    }
}

/// Comma-separated fields; one with commas or quotes inside stands in double quotes, as RFC 4180
/// says. A line break inside a field is not read.
fn fields(line: &str) -> Result<Vec<String>, String> {
    let mut fields = Vec::new();
    let mut rest = line.trim();
    loop {
        let field;
        if let Some(quoted) = rest.strip_prefix('"') {
            let mut end = None;
            let mut quotes = quoted.match_indices('"').map(|(at, _)| at).peekable();
            while let Some(at) = quotes.next() {
                if quotes.next_if_eq(&(at + 1)).is_none() {
                    end = Some(at);
                    break;
                }
            }
            let end = end.ok_or_else(|| format!("a quote is not closed: \"{line}\""))?;
            field = quoted[..end].replace("\"\"", "\"");
            rest = &quoted[end + 1..];
        } else {
            let end = rest.find(',').unwrap_or(rest.len());
            field = rest[..end].trim().to_owned();
            rest = &rest[end..];
        }
        fields.push(field);
        match rest.strip_prefix(',') {
            Some(after) => rest = after,
            None if rest.trim().is_empty() => return Ok(fields),
            None => return Err(format!("text after a closing quote: \"{line}\"")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(text: &str) -> (usize, String) {
        Groups::parse(text).err().unwrap()
    }

    #[test]
    fn names_with_commas_and_quotes_are_read_when_quoted() {
        let groups = Groups::parse("file,group\r\n\"test/a, \"\"b\"\".png\",g1\r\n\r\ntest/c.png , g2\r\n").unwrap();
        assert_eq!(groups.0["test/a, \"b\".png"], (2, "g1".to_owned()));
        assert_eq!(groups.0["test/c.png"], (4, "g2".to_owned()));
    }

    #[test]
    fn a_bad_row_is_told_with_its_line() {
        assert_eq!(problem("").0, 1);
        assert!(problem("name,group\n").1.contains("file,group"));
        assert_eq!(problem("file,group\na.png,g\nb.png\n").0, 3);
        assert_eq!(problem("file,group\na.png,g,h\n").0, 2);
        assert_eq!(problem("file,group\na.png,\n").0, 2);
        assert_eq!(problem("file,group\n\"a.png,g\n").0, 2);
        assert_eq!(problem("file,group\n\"a.png\"x,g\n").0, 2);
        let (line, text) = problem("file,group\na.png,g\na.png,h\n");
        assert_eq!(line, 3);
        assert!(text.contains("line 2"), "{text}");
    }
}
