//! The forms of `Reference.reference` (R4 references page): relative, contained, absolute, URN, conditional.
//! Says what form a text has; whether the target exists is not known here.

use handoff_fhir_profiles::elements::table;

use crate::formats;

/// What a reference says about its target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target<'a> {
    /// `#id`, or `#` for the resource that contains this one: the id without `#`.
    Contained(&'a str),
    /// `Type/id`, perhaps with a version.
    Relative {
        /// Resource type.
        kind: &'a str,
        /// Logical id.
        id: &'a str,
        /// Version id, where given.
        version: Option<&'a str>,
    },
    /// `http://…` or `https://…`; the type where the URL ends like a FHIR read.
    Absolute {
        /// Resource type, where the URL tells it.
        kind: Option<&'a str>,
    },
    /// `urn:uuid:…` or `urn:oid:…`.
    Urn,
    /// `Type?query`, for transactions.
    Conditional {
        /// Resource type.
        kind: &'a str,
    },
}

impl<'a> Target<'a> {
    /// The form of `text`, or `None` where it has none of those that FHIR allows.
    pub fn parse(text: &'a str) -> Option<Self> {
        if let Some(id) = text.strip_prefix('#') {
            return (id.is_empty() || formats::is_id(id)).then_some(Self::Contained(id));
        }
        if text.starts_with("urn:") {
            return (formats::is_any_case_uuid(text) || formats::is_oid(text)).then_some(Self::Urn);
        }
        if text.is_empty() || text.chars().any(char::is_whitespace) {
            return None;
        }
        if let Some(rest) = text
            .strip_prefix("http://")
            .or_else(|| text.strip_prefix("https://"))
        {
            let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
            let last = path.split(['?', '#']).next().unwrap_or_default();
            return (!host.is_empty() && !host.starts_with([':', '?', '#'])).then(|| Self::Absolute {
                kind: end_of_url(last).map(|(kind, ..)| kind),
            });
        }
        if let Some((kind, query)) = text.split_once('?') {
            let query_fine = !query.is_empty() && query.contains('=');
            return (query_fine && is_type(kind)).then_some(Self::Conditional { kind });
        }
        let (kind, id, version) = end_of_url(text)?;
        let whole =
            text.len() == kind.len() + 1 + id.len() + version.map_or(0, |v| v.len() + "/_history/".len());
        whole.then_some(Self::Relative { kind, id, version })
    }

    /// The type of the target, where the reference tells it.
    pub fn kind(&self) -> Option<&'a str> {
        match *self {
            Self::Relative { kind, .. } | Self::Conditional { kind } => Some(kind),
            Self::Absolute { kind } => kind,
            Self::Contained(_) | Self::Urn => None,
        }
    }
}

fn is_type(name: &str) -> bool {
    table().resource(name).is_some()
}

/// The `Type/id` or `Type/id/_history/version` that a path ends with.
fn end_of_url(path: &str) -> Option<(&str, &str, Option<&str>)> {
    let mut parts = path.rsplit('/');
    let last = parts.next().filter(|id| formats::is_id(id))?;
    let before = parts.next()?;
    if before == "_history" {
        let id = parts.next().filter(|id| formats::is_id(id))?;
        let kind = parts.next().filter(|kind| is_type(kind))?;
        return Some((kind, id, Some(last)));
    }
    is_type(before).then_some((before, last, None))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_form_of_reference_is_told_apart() {
        for (text, target) in [
            ("#a", Target::Contained("a")),
            ("#", Target::Contained("")),
            (
                "Task/1",
                Target::Relative {
                    kind: "Task",
                    id: "1",
                    version: None,
                },
            ),
            (
                "Task/1/_history/2",
                Target::Relative {
                    kind: "Task",
                    id: "1",
                    version: Some("2"),
                },
            ),
            (
                "http://x/fhir/Patient/1",
                Target::Absolute {
                    kind: Some("Patient"),
                },
            ),
            (
                "https://x/fhir/Patient/1/_history/4",
                Target::Absolute {
                    kind: Some("Patient"),
                },
            ),
            ("https://x/anything", Target::Absolute { kind: None }),
            ("urn:uuid:c757873d-ec9a-4326-a141-556f43239520", Target::Urn),
            ("urn:uuid:C757873D-EC9A-4326-A141-556F43239520", Target::Urn),
            ("urn:oid:1.2.3", Target::Urn),
            ("Patient?identifier=a|b", Target::Conditional { kind: "Patient" }),
        ] {
            assert_eq!(Target::parse(text), Some(target), "{text}");
        }
    }

    #[test]
    fn what_has_no_form_of_a_reference_is_none() {
        for text in [
            "",
            "1",
            "Task",
            "Task/",
            "/Task/1",
            "Tasks/1",
            "task/1",
            "Task/1/2",
            "Task/a b",
            "Task/1/_history",
            "Task/1/_history/",
            "fhir/Task/1",
            "Task/_/1",
            "#a b",
            "urn:uuid:1",
            "urn:isbn:1",
            "Patient?",
            "Nobody?a=b",
            "http://",
            "http:///Task/1",
            "ftp://x/Task/1",
            "javascript:alert(1)",
            "Task/1?x=y",
            "DomainResource/1",
            "Task/../Patient/1",
        ] {
            assert_eq!(Target::parse(text), None, "{text}");
        }
    }
}
