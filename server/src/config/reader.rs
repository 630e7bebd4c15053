//! Takes values out of a table one by one, and collects what is wrong instead of stopping at it.
//! Whatever is left in the end is a key that nobody knows.

use std::fs;
use std::time::Duration;

use secrecy::SecretString;
use toml::{Table, Value};

use super::Problem;
use super::units::{parse_duration, parse_size};

/// A secret's file is one line; nothing legitimate is longer.
const MOST_SECRET_BYTES: u64 = 64 * 1024;

/// One section of the file while it is read.
pub(super) struct Section<'a> {
    path: String,
    table: Table,
    known: Vec<&'static str>,
    problems: &'a mut Vec<Problem>,
}

impl<'a> Section<'a> {
    /// The section `name` taken out of `root`; an empty one where it is missing.
    pub(super) fn take(root: &mut Table, name: &str, problems: &'a mut Vec<Problem>) -> Self {
        let table = match root.remove(name) {
            None => Table::new(),
            Some(Value::Table(table)) => table,
            Some(_) => {
                problems.push(Problem {
                    key: name.to_owned(),
                    text: "is a value".to_owned(),
                    remedy: format!("make it a section, `[{name}]`"),
                });
                Table::new()
            }
        };
        Self::of(name, table, problems)
    }

    /// A section that is at hand already.
    pub(super) fn of(path: &str, table: Table, problems: &'a mut Vec<Problem>) -> Self {
        Self {
            path: path.to_owned(),
            table,
            known: Vec::new(),
            problems,
        }
    }

    /// Notes a problem with `key`.
    pub(super) fn problem(&mut self, key: &str, text: impl Into<String>, remedy: impl Into<String>) {
        let key = format!("{}.{key}", self.path);
        self.problems.push(Problem {
            key,
            text: text.into(),
            remedy: remedy.into(),
        });
    }

    /// Whether nothing stands under `key`, rather than something that does not fit.
    pub(super) fn is_absent(&self, key: &str) -> bool {
        !self.table.contains_key(key)
    }

    fn value(&mut self, key: &'static str) -> Option<Value> {
        self.known.push(key);
        self.table.remove(key)
    }

    /// A text.
    pub(super) fn text(&mut self, key: &'static str) -> Option<String> {
        match self.value(key)? {
            Value::String(text) if !text.trim().is_empty() => Some(text),
            Value::String(_) => {
                self.problem(key, "is empty", "give it a value or leave the key out");
                None
            }
            other => {
                let text = format!("is {}, not a text", kind_of(&other));
                self.problem(key, text, "put it in quotes");
                None
            }
        }
    }

    /// Anything that a text can be parsed to.
    pub(super) fn parsed<T>(
        &mut self,
        key: &'static str,
        remedy: &str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Option<T> {
        let text = self.text(key)?;
        let parsed = parse(text.trim());
        if parsed.is_none() {
            self.problem(key, format!("`{text}` does not fit"), remedy);
        }
        parsed
    }

    /// A whole number in a range, also as a text (the environment knows no numbers).
    pub(super) fn number(&mut self, key: &'static str, default: u64, least: u64, most: u64) -> u64 {
        let shown;
        let number = match self.value(key) {
            None => return default,
            Some(Value::Integer(n)) => {
                shown = n.to_string();
                u64::try_from(n).ok()
            }
            Some(Value::String(text)) => {
                let number = text.trim().parse().ok();
                shown = text;
                number
            }
            Some(other) => {
                shown = kind_of(&other).to_owned();
                None
            }
        };
        match number {
            Some(n) if (least..=most).contains(&n) => n,
            _ => {
                let remedy = format!("set it to a whole number from {least} to {most}");
                self.problem(key, format!("`{shown}` does not fit"), remedy);
                default
            }
        }
    }

    /// A part of all, from 0 to 1.
    pub(super) fn share(&mut self, key: &'static str, default: f64) -> f64 {
        let text = match self.value(key) {
            None => return default,
            Some(Value::Float(share)) => share.to_string(),
            Some(Value::Integer(share)) => share.to_string(),
            Some(Value::String(text)) => text,
            Some(other) => kind_of(&other).to_owned(),
        };
        let share = text.trim().parse::<f64>().ok();
        share
            .filter(|share| (0.0..=1.0).contains(share))
            .unwrap_or_else(|| {
                self.problem(
                    key,
                    format!("`{text}` does not fit"),
                    "set it to a number from 0 to 1, like `0.1`",
                );
                default
            })
    }

    /// Bytes: a number, or a text like `5 GiB`.
    pub(super) fn size(&mut self, key: &'static str, default: u64) -> u64 {
        let value = self.value(key);
        self.measured(
            key,
            value,
            default,
            "set it to bytes, at least 1, like `10 MiB`",
            |text| parse_size(text).filter(|n| *n > 0 && i64::try_from(*n).is_ok()),
        )
    }

    /// Bytes, or 0 for no limit.
    pub(super) fn size_or_none(&mut self, key: &'static str, default: u64) -> u64 {
        let value = self.value(key);
        self.measured(
            key,
            value,
            default,
            "set it to bytes like `1 KiB`, or to 0 for no limit",
            |text| parse_size(text).filter(|n| i64::try_from(*n).is_ok()),
        )
    }

    /// A length of time: seconds, or a text like `30 s`.
    pub(super) fn duration(&mut self, key: &'static str, default: Duration) -> Duration {
        let value = self.value(key);
        let day = Duration::from_hours(24);
        self.measured(
            key,
            value,
            default,
            "set it to a time from `1 ms` to `24 h`, like `30 s`",
            |text| parse_duration(text).filter(|d| !d.is_zero() && *d <= day),
        )
    }

    fn measured<T>(
        &mut self,
        key: &str,
        value: Option<Value>,
        default: T,
        remedy: &str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> T {
        let text = match value {
            None => return default,
            Some(Value::Integer(n)) => n.to_string(),
            Some(Value::String(text)) => text,
            Some(other) => kind_of(&other).to_owned(),
        };
        parse(&text).unwrap_or_else(|| {
            self.problem(key, format!("`{text}` does not fit"), remedy);
            default
        })
    }

    /// True or false, also as a text.
    pub(super) fn flag(&mut self, key: &'static str, default: bool) -> bool {
        match self.value(key) {
            None => default,
            Some(Value::Boolean(flag)) => flag,
            Some(Value::String(text)) if text == "true" => true,
            Some(Value::String(text)) if text == "false" => false,
            Some(_) => {
                self.problem(key, "is neither `true` nor `false`", "set it to one of them");
                default
            }
        }
    }

    /// Texts: an array, or one text split at commas.
    pub(super) fn texts(&mut self, key: &'static str) -> Option<Vec<String>> {
        match self.value(key)? {
            Value::String(text) => Some(
                text.split(',')
                    .map(str::trim)
                    .filter(|part| !part.is_empty())
                    .map(str::to_owned)
                    .collect(),
            ),
            Value::Array(values) => {
                let count = values.len();
                let texts: Vec<String> = values
                    .into_iter()
                    .filter_map(|v| {
                        if let Value::String(text) = v {
                            Some(text)
                        } else {
                            None
                        }
                    })
                    .collect();
                if texts.len() < count {
                    self.problem(
                        key,
                        "holds something that is no text",
                        "put every entry in quotes",
                    );
                }
                Some(texts)
            }
            other => {
                let text = format!("is {}, not a list of texts", kind_of(&other));
                self.problem(key, text, "write it as `[\"…\", \"…\"]`");
                None
            }
        }
    }

    /// Text by text: a section inside.
    pub(super) fn pairs(&mut self, key: &'static str) -> Option<Vec<(String, String)>> {
        match self.value(key)? {
            Value::Table(table) => {
                let mut pairs = Vec::new();
                for (name, value) in table {
                    if let Value::String(text) = value {
                        pairs.push((name, text));
                    } else {
                        self.problem(key, format!("`{name}` is no text"), "put it in quotes");
                    }
                }
                Some(pairs)
            }
            other => {
                let text = format!("is {}, not a section", kind_of(&other));
                self.problem(key, text, "write it as `{ \"name\" = \"value\" }`");
                None
            }
        }
    }

    /// A secret, from the key itself or from the file that the other key names, but not from both.
    pub(super) fn secret(&mut self, key: &'static str, file_key: &'static str) -> Option<SecretString> {
        let direct = self.text(key);
        let file = self.text(file_key);
        match (direct, file) {
            (Some(_), Some(_)) => {
                self.problem(file_key, format!("is set beside `{key}`"), "keep one of the two");
                None
            }
            (Some(secret), None) => Some(SecretString::from(secret)),
            (None, Some(file)) => self.secret_file(file_key, &file),
            (None, None) => None,
        }
    }

    fn secret_file(&mut self, key: &str, file: &str) -> Option<SecretString> {
        let remedy = "name a readable file that holds the secret alone";
        let read = fs::metadata(file).and_then(|facts| {
            if facts.is_file() && facts.len() <= MOST_SECRET_BYTES {
                fs::read_to_string(file)
            } else {
                Err(std::io::Error::other("it is no small file"))
            }
        });
        match read {
            Ok(text) if !text.trim().is_empty() => Some(SecretString::from(text.trim())),
            Ok(_) => {
                self.problem(key, format!("`{file}` is empty"), remedy);
                None
            }
            Err(error) => {
                self.problem(key, format!("`{file}` can't be read: {error}"), remedy);
                None
            }
        }
    }

    /// Notes every key that is left over.
    pub(super) fn finish(self) {
        for key in self.table.keys() {
            let remedy = match closest(key, &self.known) {
                Some(known) => format!("remove it, or did you mean `{known}`?"),
                None => format!("remove it; known here: {}", self.known.join(", ")),
            };
            self.problems.push(Problem {
                key: format!("{}.{key}", self.path),
                text: "is not a key of ours".to_owned(),
                remedy,
            });
        }
    }
}

/// What a value is, for people.
fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::String(_) => "a text",
        Value::Integer(_) => "a number",
        Value::Float(_) => "a fraction",
        Value::Boolean(_) => "true or false",
        Value::Datetime(_) => "a date",
        Value::Array(_) => "a list",
        Value::Table(_) => "a section",
    }
}

/// The known word that a typist most likely meant.
pub(super) fn closest(word: &str, known: &[&'static str]) -> Option<&'static str> {
    known
        .iter()
        .map(|k| (distance(word, k), *k))
        .filter(|(d, _)| *d <= 2.max(word.len() / 4))
        .min_by_key(|(d, _)| *d)
        .map(|(_, k)| k)
}

/// How many letters to add, drop or change (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut next = vec![i + 1];
        for (y, (above_left, above)) in b.iter().zip(row.iter().zip(row.iter().skip(1))) {
            let left = next.last().copied().unwrap_or_default();
            next.push((above_left + usize::from(x != *y)).min(above + 1).min(left + 1));
        }
        row = next;
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_finger_is_told_what_was_meant() {
        assert_eq!(closest("lisen", &["listen", "public_url"]), Some("listen"));
        assert_eq!(
            closest("publicurl", &["listen", "public_url"]),
            Some("public_url")
        );
        assert_eq!(closest("colour", &["listen", "public_url"]), None);
    }
}
