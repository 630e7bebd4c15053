//! Every place in a resource that may point at another one, for the rewriting of ids in a transaction
//! (R4 http page, transaction processing rules). Canonical URLs are not among them.

use handoff_fhir_profiles::elements::{Key, Primitive, Shape, Type, table};
use serde_json::{Map, Value};

use crate::narrative;
use crate::path::Path;
use crate::resource::Resource;

/// What kind of place a link stands in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkKind {
    /// `Reference.reference`.
    Reference,
    /// An element of type uri.
    Uri,
    /// An element of type url.
    Url,
    /// An element of type oid.
    Oid,
    /// An element of type uuid.
    Uuid,
    /// A `href` or `src` in a narrative.
    Narrative,
}

impl Resource {
    /// Shows every link to `visit`: its place as `FHIRPath`, its kind, and its text, which may be changed.
    pub fn visit_references_mut(&mut self, visit: &mut dyn FnMut(&str, LinkKind, &mut String)) {
        let Some(kind) = table().resource(self.type_name()) else {
            return;
        };
        let mut path = Path::default();
        path.push(kind.name);
        if let Some(map) = self.value_mut().as_object_mut() {
            object(map, kind, &mut path, visit);
        }
    }
}

type Visit<'a> = dyn FnMut(&str, LinkKind, &mut String) + 'a;

fn object(map: &mut Map<String, Value>, kind: &'static Type, path: &mut Path, visit: &mut Visit<'_>) {
    for (name, value) in map.iter_mut() {
        let (plain, is_companion) = match name.strip_prefix('_') {
            Some(plain) => (plain, true),
            None => (name.as_str(), false),
        };
        let Some((key, element)) = kind.key(plain).and_then(|key| Some((key, kind.element(key)?))) else {
            continue;
        };
        path.push(element.name);
        if let Value::Array(items) = value {
            for (index, item) in items.iter_mut().enumerate() {
                path.push_index(index);
                one(item, key, kind, is_companion, path, visit);
                path.pop();
            }
        } else {
            one(value, key, kind, is_companion, path, visit);
        }
        path.pop();
    }
}

fn one(
    value: &mut Value,
    key: &'static Key,
    owner: &'static Type,
    is_companion: bool,
    path: &mut Path,
    visit: &mut Visit<'_>,
) {
    match value {
        Value::Object(map) => {
            let kind = match key.shape {
                _ if is_companion => table().get("Element"),
                Shape::Complex(id) => table().type_at(id),
                Shape::Resource => map
                    .get("resourceType")
                    .and_then(Value::as_str)
                    .and_then(|n| table().resource(n)),
                Shape::Primitive(_) => None,
            };
            if let Some(kind) = kind {
                object(map, kind, path, visit);
            }
        }
        Value::String(text) => {
            let link = match key.shape {
                _ if owner.name == "Reference" && key.name == "reference" => LinkKind::Reference,
                Shape::Primitive(Primitive::Uri) => LinkKind::Uri,
                Shape::Primitive(Primitive::Url) => LinkKind::Url,
                Shape::Primitive(Primitive::Oid) => LinkKind::Oid,
                Shape::Primitive(Primitive::Uuid) => LinkKind::Uuid,
                Shape::Primitive(Primitive::Xhtml) => return in_narrative(text, path, visit),
                _ => return,
            };
            visit(&path.to_string(), link, text);
        }
        _ => {}
    }
}

fn in_narrative(text: &mut String, path: &Path, visit: &mut Visit<'_>) {
    let mut out = String::new();
    let mut done = 0;
    for place in narrative::links(text) {
        let Some(written) = text.get(place.clone()) else {
            continue;
        };
        let before = written.replace("&amp;", "&");
        let mut link = before.clone();
        visit(&path.to_string(), LinkKind::Narrative, &mut link);
        if link != before {
            out.push_str(text.get(done..place.start).unwrap_or_default());
            out.push_str(&escaped(&link));
            done = place.end;
        }
    }
    if done > 0 {
        out.push_str(text.get(done..).unwrap_or_default());
        *text = out;
    }
}

/// Text as it is written in an attribute of XML.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('"', "&quot;")
        .replace('\'', "&apos;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ParseOptions, parse};

    #[test]
    fn every_link_is_shown_and_can_be_changed_but_no_canonical() {
        let text = r##"{"resourceType":"Task","text":{"status":"generated","div":"<div xmlns=\"http://www.w3.org/1999/xhtml\"><a href=\"urn:uuid:c757873d-ec9a-4326-a141-556f43239520\">x</a><img src=\"y?a=1&amp;b=2\" alt=\"z\"/></div>"},
            "contained":[{"resourceType":"Patient","id":"p","managingOrganization":{"reference":"Organization/1"}}],
            "_status":{"extension":[{"url":"http://x/e","valueReference":{"reference":"Patient/9"}}]},
            "instantiatesCanonical":"http://x/c|1","instantiatesUri":"http://x/u","status":"ready","intent":"order",
            "for":{"reference":"#p"},
            "input":[{"type":{"text":"a"},"valueAttachment":{"url":"Binary/1"}},{"type":{"text":"b"},"valueOid":"urn:oid:1.2"}]}"##;
        let mut task = parse(text.as_bytes(), &ParseOptions::default()).unwrap();
        let mut seen = Vec::new();
        task.visit_references_mut(&mut |path, kind, link| {
            seen.push((path.to_owned(), kind, link.clone()));
            if kind == LinkKind::Narrative && link.starts_with("urn:") {
                *link = "Patient/1?a&b".to_owned();
            }
            if link == "#p" {
                *link = "Patient/2".to_owned();
            }
        });
        let seen: Vec<(&str, LinkKind, &str)> = seen
            .iter()
            .map(|(p, k, l)| (p.as_str(), *k, l.as_str()))
            .collect();
        assert_eq!(
            seen,
            [
                (
                    "Task.text.div",
                    LinkKind::Narrative,
                    "urn:uuid:c757873d-ec9a-4326-a141-556f43239520"
                ),
                ("Task.text.div", LinkKind::Narrative, "y?a=1&b=2"),
                (
                    "Task.contained[0].managingOrganization.reference",
                    LinkKind::Reference,
                    "Organization/1"
                ),
                ("Task.status.extension[0].url", LinkKind::Uri, "http://x/e"),
                (
                    "Task.status.extension[0].value.reference",
                    LinkKind::Reference,
                    "Patient/9"
                ),
                ("Task.instantiatesUri", LinkKind::Uri, "http://x/u"),
                ("Task.for.reference", LinkKind::Reference, "#p"),
                ("Task.input[0].value.url", LinkKind::Url, "Binary/1"),
                ("Task.input[1].value", LinkKind::Oid, "urn:oid:1.2"),
            ]
        );
        let out = String::from_utf8(task.to_json()).unwrap();
        assert!(out.contains(r#"href=\"Patient/1?a&amp;b\""#), "{out}");
        assert!(out.contains(r#""for":{"reference":"Patient/2"}"#), "{out}");
    }
}
