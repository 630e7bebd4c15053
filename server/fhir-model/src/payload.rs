//! Content where it may not be: bytes belong into `DocumentReference.content.attachment.data` or `Binary.data`,
//! where the gate stands before them. Anywhere else they would be readable as metadata.

use handoff_fhir_profiles::canonical::EXT_SHA256;
use handoff_fhir_profiles::elements::{Key, Primitive, Shape, Type, table};
use serde_json::{Map, Value};

use crate::issue::{Issue, IssueType};
use crate::narrative;
use crate::path::Path;
use crate::resource::Resource;

/// A digest of 512 bits in base64: nothing longer is a hash.
const LONGEST_HASH: usize = 88;

/// Every place in a resource with content that may not stand there.
pub fn elsewhere(resource: &Resource) -> Vec<Issue> {
    let mut found = Vec::new();
    let (Some(kind), Some(map)) = (
        table().resource(resource.type_name()),
        resource.value().as_object(),
    ) else {
        return found;
    };
    let mut path = Path::default();
    path.push(kind.name);
    object(map, kind, &mut path, &mut found);
    match kind.name {
        "DocumentReference" => found.retain(|issue| !is_document_data(issue)),
        "Binary" => found.retain(|issue| issue.expression.as_deref() != Some("Binary.data")),
        _ => {}
    }
    found
}

/// Whether the place is `DocumentReference.content[n].attachment.data`.
fn is_document_data(issue: &Issue) -> bool {
    let inner = issue
        .expression
        .as_deref()
        .and_then(|at| at.strip_prefix("DocumentReference.content["))
        .and_then(|at| at.strip_suffix("].attachment.data"));
    inner.is_some_and(|index| index.bytes().all(|b| b.is_ascii_digit()))
}

fn object(map: &Map<String, Value>, kind: &'static Type, path: &mut Path, found: &mut Vec<Issue>) {
    for (name, value) in map {
        let (plain, is_companion) = match name.strip_prefix('_') {
            Some(plain) => (plain, true),
            None => (name.as_str(), false),
        };
        let Some((key, element)) = kind.key(plain).and_then(|key| Some((key, kind.element(key)?))) else {
            continue;
        };
        path.push(element.name);
        let items = value
            .as_array()
            .map_or(std::slice::from_ref(value), Vec::as_slice);
        for (index, item) in items.iter().enumerate() {
            if value.is_array() {
                path.push_index(index);
            }
            one(item, key, (map, kind), is_companion, path, found);
            if value.is_array() {
                path.pop();
            }
        }
        path.pop();
    }
}

fn one(
    value: &Value,
    key: &'static Key,
    owner: (&Map<String, Value>, &'static Type),
    is_companion: bool,
    path: &mut Path,
    found: &mut Vec<Issue>,
) {
    let mut refuse = |text: &str| found.push(Issue::at(IssueType::BusinessRule, path.to_string(), text));
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
            match kind {
                Some(kind) if kind.name == "Binary" && key.name == "contained" => {
                    refuse("a Binary may not be contained: send it on its own");
                }
                Some(kind) => object(map, kind, path, found),
                None => {}
            }
        }
        Value::String(text) => match key.shape {
            Shape::Primitive(Primitive::Base64Binary) if !is_digest(text, key, owner) => {
                refuse("content may not stand here: send it as a document's attachment or as a Binary");
            }
            Shape::Primitive(Primitive::Uri | Primitive::Url | Primitive::Canonical) if is_data_url(text) => {
                refuse("content may not stand in a `data:` URL");
            }
            Shape::Primitive(Primitive::Xhtml) => {
                let inline = narrative::links(text)
                    .into_iter()
                    .filter_map(|place| text.get(place))
                    .any(is_data_url);
                if inline {
                    refuse("content may not stand in a `data:` URL");
                }
            }
            _ => {}
        },
        _ => {}
    }
}

/// Whether base64 is the digest of content and not content.
fn is_digest(text: &str, key: &Key, (map, kind): (&Map<String, Value>, &Type)) -> bool {
    let hash = kind.name == "Attachment" && key.name == "hash";
    let ours = kind.name == "Extension" && map.get("url").and_then(Value::as_str) == Some(EXT_SHA256);
    (hash || ours) && text.len() <= LONGEST_HASH
}

fn is_data_url(text: &str) -> bool {
    text.trim_start()
        .get(..5)
        .is_some_and(|scheme| scheme.eq_ignore_ascii_case("data:"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ParseOptions, parse};

    fn places(text: &str) -> Vec<String> {
        let resource = parse(text.as_bytes(), &ParseOptions::default()).unwrap();
        elsewhere(&resource)
            .into_iter()
            .filter_map(|issue| issue.expression)
            .collect()
    }

    const DATA: &str = r#"{"contentType":"text/plain","data":"aGk="}"#;

    #[test]
    fn content_is_at_home_in_documents_and_binaries() {
        let document = format!(
            r#"{{"resourceType":"DocumentReference","status":"current","content":[{{"attachment":{DATA}}},
            {{"attachment":{{"contentType":"text/plain","hash":"2jmj7l5rSw0yVb/vlWAYkK/YBwk=","extension":[{{"url":"{EXT_SHA256}",
            "valueBase64Binary":"47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="}}]}}}}]}}"#
        );
        assert!(places(&document).is_empty());
        assert!(places(r#"{"resourceType":"Binary","contentType":"text/plain","data":"aGk="}"#).is_empty());
    }

    #[test]
    fn content_anywhere_else_is_found() {
        let document = format!(
            r#"{{"resourceType":"DocumentReference","status":"current",
            "contained":[{{"resourceType":"Binary","id":"b","contentType":"text/plain","data":"aGk="}},
                {{"resourceType":"DocumentReference","id":"d","status":"current","content":[{{"attachment":{DATA}}}]}}],
            "extension":[{{"url":"http://x/e","valueAttachment":{DATA}}},{{"url":"http://x/e","valueBase64Binary":"aGk="}}],
            "_status":{{"extension":[{{"url":"http://x/e","valueAttachment":{DATA}}}]}},
            "content":[{{"attachment":{{"contentType":"text/plain","url":"data:text/plain,hi"}}}},
                {{"attachment":{{"contentType":"text/plain","hash":"{}"}}}}]}}"#,
            "AAAA".repeat(30)
        );
        assert_eq!(
            places(&document),
            [
                "DocumentReference.contained[0]",
                "DocumentReference.contained[1].content[0].attachment.data",
                "DocumentReference.extension[0].value.data",
                "DocumentReference.extension[1].value",
                "DocumentReference.status.extension[0].value.data",
                "DocumentReference.content[0].attachment.url",
                "DocumentReference.content[1].attachment.hash",
            ]
        );
        let task = format!(
            r#"{{"resourceType":"Task","status":"ready","intent":"order","text":{{"status":"generated",
            "div":"<div xmlns='http://www.w3.org/1999/xhtml'><img src='data:image/png;base64,AAAA' alt='x'/></div>"}},
            "input":[{{"type":{{"text":"a"}},"valueAttachment":{DATA}}},{{"type":{{"text":"a"}},"valueBase64Binary":"aGk="}}],
            "output":[{{"type":{{"text":"a"}},"valueSignature":{{"type":[{{"code":"a"}}],"when":"2026-03-01T12:00:00Z",
            "who":{{"display":"x"}},"data":"aGk="}}}}]}}"#
        );
        assert_eq!(
            places(&task),
            [
                "Task.text.div",
                "Task.input[0].value.data",
                "Task.input[1].value",
                "Task.output[0].value.data"
            ]
        );
    }
}
