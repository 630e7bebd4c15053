//! The values of search parameters as R4 writes them: alternatives, escapes, tokens, references, dates with
//! prefixes. Knows no parameter by name.

use handoff_domain::ids::is_fhir_id;
use handoff_domain::time::Timestamp;
use handoff_fhir_model::dates;
use handoff_fhir_model::references::Target;

use super::control::not_supported;
use crate::app::AppError;

/// The most alternatives of one parameter.
const MAX_ALTERNATIVES: usize = 100;
/// The most characters of one alternative.
const MAX_LENGTH: usize = 1024;

/// A range of time, `[from, until)`.
pub type Range = (Timestamp, Timestamp);

/// The alternatives of a value, still with their escapes.
pub fn alternatives<'v>(name: &str, value: &'v str) -> Result<Vec<&'v str>, AppError> {
    let parts = split(value, ',');
    if parts.len() > MAX_ALTERNATIVES {
        return Err(AppError::bad(format!(
            "`{name}` has more than {MAX_ALTERNATIVES} alternatives"
        )));
    }
    for part in &parts {
        if part.is_empty() {
            return Err(AppError::bad(format!("`{name}` has an empty value")));
        }
        if part.chars().count() > MAX_LENGTH {
            return Err(AppError::bad(format!(
                "a value of `{name}` is longer than {MAX_LENGTH} characters"
            )));
        }
        if part.contains('\0') {
            return Err(AppError::bad(format!(
                "a value of `{name}` holds a character that is not text"
            )));
        }
    }
    Ok(parts)
}

/// The parts between separators that are not escaped.
fn split(text: &str, separator: char) -> Vec<&str> {
    let mut parts = Vec::new();
    let mut start = 0;
    let mut escaped = false;
    for (at, c) in text.char_indices() {
        if escaped {
            escaped = false;
        } else if c == '\\' {
            escaped = true;
        } else if c == separator {
            parts.extend(text.get(start..at));
            start = at + c.len_utf8();
        }
    }
    parts.extend(text.get(start..));
    parts
}

/// A value without the escapes `\,` `\$` `\|` `\\`.
pub fn unescape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match chars.peek() {
            Some(&next) if c == '\\' && matches!(next, ',' | '$' | '|' | '\\') => {
                out.push(next);
                chars.next();
            }
            _ => out.push(c),
        }
    }
    out
}

/// System and code of a token: `code`, `system|code`, `|code` (no system), `system|`.
pub fn token(name: &str, text: &str) -> Result<(Option<String>, Option<String>), AppError> {
    let parts = split(text, '|');
    match parts.as_slice() {
        [code] => Ok((None, Some(unescape(code)))),
        ["", ""] => Err(AppError::bad(format!(
            "`{name}` needs a system or a code beside `|`"
        ))),
        [system, ""] => Ok((Some(unescape(system)), None)),
        [system, code] => Ok((Some(unescape(system)), Some(unescape(code)))),
        _ => Err(AppError::bad(format!(
            "a token in `{name}` has more than one `|`; write `\\|` inside of a code"
        ))),
    }
}

/// What a reference has to name: `Type/id`, `*/id` where any type will do, or the URL of another server.
/// `base` is our own FHIR base with its trailing slash.
pub fn reference(name: &str, text: &str, base: &str, only: Option<&str>) -> Result<String, AppError> {
    let text = unescape(text);
    let own = if base.is_empty() {
        None
    } else {
        text.strip_prefix(base)
    };
    let local = own.unwrap_or(&text);
    if own.is_none() && is_fhir_id(local) {
        return Ok(format!("{}/{local}", only.unwrap_or("*")));
    }
    let kind = match Target::parse(local) {
        Some(Target::Relative { version: Some(_), .. }) => {
            return Err(not_supported(format!(
                "`{name}` can't be searched by a version of its target"
            )));
        }
        Some(target @ (Target::Relative { .. } | Target::Absolute { .. } | Target::Urn)) => target.kind(),
        Some(Target::Contained(_) | Target::Conditional { .. }) | None => {
            return Err(AppError::bad(format!(
                "`{name}` is an id, a reference `Type/id`, or a URL"
            )));
        }
    };
    match (only, kind) {
        (Some(only), Some(kind)) if only != kind => {
            Err(AppError::bad(format!("`{name}` refers to a {only} here")))
        }
        _ => Ok(local.to_owned()),
    }
}

const BEGINNING: Timestamp = Timestamp(i64::MIN);
const END: Timestamp = Timestamp(i64::MAX);

/// The ranges in which a value lies for a date with or without prefix. A value that is itself a range matches
/// where it overlaps them.
pub fn date(name: &str, text: &str) -> Result<Vec<Range>, AppError> {
    let (prefix, written) = match text.split_at_checked(2) {
        Some((prefix, rest)) if prefix.bytes().all(|b| b.is_ascii_alphabetic()) => (prefix, rest),
        _ => ("eq", text),
    };
    let (from, until) = range(written).ok_or_else(|| {
        AppError::bad(format!(
            "`{name}` is a date: `2026`, `2026-03`, `2026-03-01` or `2026-03-01T12:00:00Z`"
        ))
    })?;
    Ok(match prefix {
        "eq" => vec![(from, until)],
        "ne" => vec![(BEGINNING, from), (until, END)],
        "gt" | "sa" => vec![(until, END)],
        "lt" | "eb" => vec![(BEGINNING, from)],
        "ge" => vec![(from, END)],
        "le" => vec![(BEGINNING, until)],
        "ap" => {
            return Err(not_supported(format!(
                "the prefix `ap` is not supported for `{name}`"
            )));
        }
        _ => {
            return Err(AppError::bad(format!(
                "`{name}` has a prefix that R4 does not know"
            )));
        }
    })
}

fn range(written: &str) -> Option<Range> {
    // In a URL a `+` that was not encoded arrives as a space.
    let written = written.replacen(' ', "+", 1);
    dates::range(&written).or_else(|| {
        let zoneless = written.contains('T') && !written.ends_with('Z');
        dates::range(&format!("{written}Z")).filter(|_| zoneless)
    })
}

/// The actor that a parameter names, with its type.
pub fn actor(name: &str, text: &str, base: &str) -> Result<String, AppError> {
    let actor = reference(name, text, base, None)?;
    if actor.starts_with("*/") {
        return Err(not_supported(format!(
            "`{name}` needs the type of the actor: `Practitioner/id`"
        )));
    }
    Ok(actor)
}

/// The one range of time that a parameter names, within what others of the same name have left.
pub fn within(name: &str, text: &str, before: Option<Range>) -> Result<Range, AppError> {
    let ranges = date(name, text)?;
    let [(from, until)] = ranges.as_slice() else {
        return Err(not_supported(format!(
            "the prefix `ne` is not supported for `{name}`"
        )));
    };
    Ok(before.map_or((*from, *until), |(first, last)| {
        (first.max(*from), last.min(*until))
    }))
}
