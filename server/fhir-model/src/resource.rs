//! A resource that has passed every check: what the rest of the server holds, edits, and writes out.
//! Knows JSON and the R4 table; nothing of Tasks, documents or HTTP.

use handoff_fhir_profiles::elements::table;
use serde_json::{Map, Value};

use crate::check;
use crate::element;
use crate::issue::{Issue, IssueType};
use crate::json;
use crate::path;

/// What to take and how much.
#[derive(Debug, Clone, Copy)]
pub struct ParseOptions {
    /// How deep objects and arrays may nest.
    pub max_depth: usize,
    /// The resource type that must come; any where `None`.
    pub expected: Option<&'static str>,
    /// After how many issues to stop looking.
    pub max_issues: usize,
}

impl Default for ParseOptions {
    fn default() -> Self {
        Self {
            max_depth: 64,
            expected: None,
            max_issues: 50,
        }
    }
}

impl ParseOptions {
    /// The defaults, for one resource type.
    pub fn expecting(kind: &'static str) -> Self {
        Self {
            expected: Some(kind),
            ..Self::default()
        }
    }
}

/// A FHIR R4 resource that is well formed and valid against base R4.
///
/// It is kept as a JSON tree: reading 2 kB of Task through fhirbolt and keeping its model as well would cost every
/// edit and every write several times as much, and stored bytes are what reads answer with.
#[derive(Clone, PartialEq)]
pub struct Resource {
    kind: &'static str,
    value: Value,
}

/// Prints the type alone: the rest may be about a patient.
impl std::fmt::Debug for Resource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Resource")
            .field("kind", &self.kind)
            .finish_non_exhaustive()
    }
}

/// The resource that `bytes` (JSON) hold, or everything that is wrong with them.
pub fn parse(bytes: &[u8], options: &ParseOptions) -> Result<Resource, Vec<Issue>> {
    let value = json::read(bytes, options.max_depth).map_err(|error| {
        let at = path::written("", &error.path);
        let text = format!("{} (byte {})", error.text, error.offset);
        let expression = at
            .strip_prefix('.')
            .filter(|at| !at.is_empty())
            .map(|at| match options.expected {
                Some(kind) => format!("{kind}.{at}"),
                None => at.to_owned(),
            });
        vec![Issue {
            expression,
            ..Issue::general(IssueType::Structure, text)
        }]
    })?;
    from_value(value, options)
}

/// A resource that this server stored, and so checked before: read without checking it again.
pub fn parse_stored(bytes: &[u8]) -> Result<Resource, Vec<Issue>> {
    json::read(bytes, ParseOptions::default().max_depth)
        .ok()
        .and_then(Resource::checked)
        .ok_or_else(|| {
            vec![Issue::general(
                IssueType::Exception,
                "a stored resource cannot be read",
            )]
        })
}

/// As [`parse`], for JSON that is already a tree: after a patch, or built by the server itself.
pub fn from_value(value: Value, options: &ParseOptions) -> Result<Resource, Vec<Issue>> {
    let Value::Object(map) = &value else {
        return Err(vec![Issue::general(
            IssueType::Structure,
            "a resource is a JSON object",
        )]);
    };
    let issues = check::check(map, options.max_issues.max(1));
    if !issues.is_empty() {
        return Err(issues);
    }
    let name = map
        .get("resourceType")
        .and_then(Value::as_str)
        .unwrap_or_default();
    let Some(kind) = table().resource(name).map(|t| t.name) else {
        return Err(vec![Issue::at(
            IssueType::Structure,
            "resourceType",
            "`resourceType` must be given, as text",
        )]);
    };
    if let Some(expected) = options.expected
        && expected != kind
    {
        let text = format!("`resourceType` must be `{expected}` here");
        return Err(vec![Issue::at(IssueType::Invalid, "resourceType", text)]);
    }
    let mut value = value;
    put_type_first(&mut value);
    element::from_json(&value).map_err(|issue| vec![issue])?;
    Ok(Resource { kind, value })
}

/// Moves `resourceType` to the front of every resource: fhirbolt looks no further for it.
fn put_type_first(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(put_type_first),
        Value::Object(map) => {
            if map
                .keys()
                .position(|name| name == "resourceType")
                .is_some_and(|at| at > 0)
                && let Some(kind) = map.shift_remove("resourceType")
            {
                map.shift_insert(0, "resourceType".to_owned(), kind);
            }
            map.values_mut().for_each(put_type_first);
        }
        _ => {}
    }
}

impl Resource {
    /// A part of a resource that was checked as a whole.
    pub(crate) fn checked(value: Value) -> Option<Self> {
        let kind = table().resource(value.get("resourceType")?.as_str()?)?.name;
        value.is_object().then_some(Self { kind, value })
    }

    /// The resource type, `Task`.
    pub fn type_name(&self) -> &'static str {
        self.kind
    }

    /// The logical id, where there is one.
    pub fn id(&self) -> Option<&str> {
        self.text("id")
    }

    /// Sets the logical id.
    pub fn set_id(&mut self, id: &str) {
        if let Some(map) = self.value.as_object_mut() {
            map.insert("id".to_owned(), id.into());
        }
    }

    /// Sets `meta.versionId` and `meta.lastUpdated`, whatever the sender wrote there; profiles, security labels
    /// and tags stay.
    pub fn stamp_meta(&mut self, version: &str, last_updated: &str) {
        let Some(map) = self.value.as_object_mut() else {
            return;
        };
        let mut meta = Map::new();
        meta.insert("versionId".to_owned(), version.into());
        meta.insert("lastUpdated".to_owned(), last_updated.into());
        if let Some(Value::Object(sent)) = map.remove("meta") {
            let own = ["versionId", "_versionId", "lastUpdated", "_lastUpdated"];
            meta.extend(sent.into_iter().filter(|(name, _)| !own.contains(&name.as_str())));
        }
        map.insert("meta".to_owned(), Value::Object(meta));
    }

    /// `meta.profile`.
    pub fn profiles(&self) -> Vec<String> {
        let listed = self
            .value
            .get("meta")
            .and_then(|meta| meta.get("profile"))
            .and_then(Value::as_array);
        listed
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .map(str::to_owned)
            .collect()
    }

    /// The resource as JSON: `resourceType`, `id` and `meta` first, the rest in the sender's order, numbers as written.
    pub fn to_json(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(1024);
        out.push(b'{');
        let first = ["resourceType", "id", "meta"];
        let head = first
            .iter()
            .filter_map(|name| Some((*name, self.value.get(*name)?)));
        let rest = self.value.as_object().into_iter().flatten();
        let rest = rest
            .map(|(name, value)| (name.as_str(), value))
            .filter(|(name, _)| !first.contains(name));
        for (name, value) in head.chain(rest) {
            if out.len() > 1 {
                out.push(b',');
            }
            // Writing to memory cannot fail, and every key is text.
            let _ = serde_json::to_writer(&mut out, name);
            out.push(b':');
            let _ = serde_json::to_writer(&mut out, value);
        }
        out.push(b'}');
        out
    }

    /// The resource as a JSON object.
    pub fn value(&self) -> &Value {
        &self.value
    }

    /// The resource for edits by the server itself. What a caller changed goes through [`from_value`] again.
    pub fn value_mut(&mut self) -> &mut Value {
        &mut self.value
    }

    /// The resource as a JSON object, taken.
    pub fn into_value(self) -> Value {
        self.value
    }

    /// The text of a top-level element.
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.value.get(name)?.as_str()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Resource {
        parse(text.as_bytes(), &ParseOptions::default()).unwrap()
    }

    #[test]
    fn stamping_replaces_version_and_time_and_keeps_the_rest() {
        let mut resource = parsed(
            r#"{"status":"active","resourceType":"Patient","meta":{"versionId":"7","tag":[{"code":"a"}],
            "lastUpdated":"2020-01-01T00:00:00Z","profile":["http://x/p"]}}"#
                .replace(r#""status":"active","#, r#""active":true,"#)
                .as_str(),
        );
        resource.set_id("p1");
        resource.stamp_meta("1", "2026-03-01T12:00:00.000Z");
        let expected = concat!(
            r#"{"resourceType":"Patient","id":"p1","meta":{"versionId":"1","lastUpdated":"2026-03-01T12:00:00.000Z","#,
            r#""tag":[{"code":"a"}],"profile":["http://x/p"]},"active":true}"#
        );
        assert_eq!(String::from_utf8(resource.to_json()).unwrap(), expected);
        assert_eq!(resource.profiles(), ["http://x/p"]);
        assert_eq!(resource.id(), Some("p1"));
    }

    #[test]
    fn decimals_keep_their_digits() {
        let text = r#"{"resourceType":"Basic","extension":[{"url":"http://x/e","valueDecimal":1.0100}],"code":{"text":"a"}}"#;
        assert_eq!(String::from_utf8(parsed(text).to_json()).unwrap(), text);
    }

    #[test]
    fn debug_output_shows_nothing_of_the_content() {
        let resource = parsed(r#"{"resourceType":"Patient","name":[{"family":"Lovelace"}]}"#);
        assert!(!format!("{resource:?}").contains("Lovelace"));
    }

    #[test]
    fn another_type_than_expected_is_refused() {
        let issues = parse(br#"{"resourceType":"Patient"}"#, &ParseOptions::expecting("Task")).unwrap_err();
        assert_eq!(issues[0].expression.as_deref(), Some("resourceType"));
    }
}
