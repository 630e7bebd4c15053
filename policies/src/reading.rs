//! Reads the TOML files of a rule set. Strict: whatever is unknown or out of range is a problem with its line and key, and all
//! problems are named at once.

use std::ops::Range;

use handoff_domain::time::Span;
use thiserror::Error;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// One thing wrong with a file.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("line {line}: {}", self.described())]
pub struct FileProblem {
    /// The line it is on, from 1.
    pub line: usize,
    /// The key, as `workflow[1].grant_window`; empty where the text is not TOML.
    pub key: String,
    /// What is wrong.
    pub text: String,
}

impl FileProblem {
    /// What is wrong with which key.
    pub(crate) fn described(&self) -> String {
        if self.key.is_empty() {
            self.text.clone()
        } else {
            format!("`{}`: {}", self.key, self.text)
        }
    }
}

/// A unit of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unit {
    Second,
    Minute,
    Hour,
    Day,
    /// Of 366 days: nothing is ever done before the anniversary.
    Year,
}

impl Unit {
    const fn sign(self) -> char {
        match self {
            Self::Second => 's',
            Self::Minute => 'm',
            Self::Hour => 'h',
            Self::Day => 'd',
            Self::Year => 'y',
        }
    }

    const fn times(self, number: i64) -> Span {
        match self {
            Self::Second => Span::seconds(number),
            Self::Minute => Span::minutes(number),
            Self::Hour => Span::hours(number),
            Self::Day => Span::hours(number.saturating_mul(24)),
            Self::Year => Span::hours(number.saturating_mul(24 * 366)),
        }
    }
}

/// A number and one of these units: `90s`, `10y`.
fn parse_duration(text: &str, units: &[Unit]) -> Option<Span> {
    let sign = text.chars().last()?;
    let unit = units.iter().find(|unit| unit.sign() == sign)?;
    let number = text.strip_suffix(sign)?;
    if number.is_empty() || !number.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    Some(unit.times(number.parse().ok()?))
}

/// Whether `text` could be a code of the CodeSystem `document-class`.
pub(crate) fn is_class(text: &str) -> bool {
    !text.is_empty()
        && text
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

/// A file as it is read, with what was found wrong so far.
pub(crate) struct Reader<'t> {
    text: &'t str,
    problems: Vec<FileProblem>,
}

impl<'t> Reader<'t> {
    /// What `read` makes of a text, or every problem with it.
    pub(crate) fn read<T>(
        text: &'t str,
        read: impl FnOnce(&mut Self, &DeTable<'_>) -> T,
    ) -> Result<T, Vec<FileProblem>> {
        let (root, syntax) = DeTable::parse_recoverable(text);
        let mut reader = Self {
            text,
            problems: Vec::new(),
        };
        for error in syntax {
            reader.problem(error.span().unwrap_or_default(), "", error.message());
        }
        if !reader.problems.is_empty() {
            return Err(reader.problems);
        }
        let value = read(&mut reader, root.get_ref());
        if reader.problems.is_empty() {
            Ok(value)
        } else {
            reader.problems.sort_by_key(|p| p.line);
            Err(reader.problems)
        }
    }

    pub(crate) fn problem(&mut self, span: Range<usize>, key: &str, text: impl Into<String>) {
        let before = self.text.as_bytes().get(..span.start).unwrap_or_default();
        let line = before.split(|b| *b == b'\n').count();
        self.problems.push(FileProblem {
            line,
            key: key.to_owned(),
            text: text.into(),
        });
    }

    pub(crate) fn wrong_type(&mut self, value: &Spanned<DeValue<'_>>, key: &str, wanted: &str) {
        let found = value.get_ref().type_str();
        self.problem(value.span(), key, format!("expected {wanted}, found {found}"));
    }

    /// Keys of a table that are in neither list are problems.
    pub(crate) fn deny_unknown(&mut self, table: &DeTable<'_>, prefix: &str, known: &[&str], more: &[&str]) {
        for name in table.keys() {
            let word: &str = name.get_ref();
            if !known.contains(&word) && !more.contains(&word) {
                let key = if prefix.is_empty() {
                    word.to_owned()
                } else {
                    format!("{prefix}.{word}")
                };
                self.problem(name.span(), &key, "no such key");
            }
        }
    }

    /// A duration in one of these units.
    pub(crate) fn duration(
        &mut self,
        value: &Spanned<DeValue<'_>>,
        key: &str,
        units: &[Unit],
    ) -> Option<Span> {
        let examples: Vec<String> = units
            .iter()
            .map(|unit| match unit {
                Unit::Second => "\"90s\"".to_owned(),
                Unit::Minute => "\"15m\"".to_owned(),
                Unit::Hour => "\"1h\"".to_owned(),
                Unit::Day => "\"30d\"".to_owned(),
                Unit::Year => "\"10y\"".to_owned(),
            })
            .collect();
        let (last, first) = examples.split_last()?;
        let examples = format!("{} or {last}", first.join(", "));
        let Some(text) = value.get_ref().as_str() else {
            self.wrong_type(value, key, &format!("a duration as a string, like {examples}"));
            return None;
        };
        let span = parse_duration(text, units);
        if span.is_none() {
            let text = format!("`{text}` is not a duration: write {examples}");
            self.problem(value.span(), key, text);
        }
        span
    }
}
