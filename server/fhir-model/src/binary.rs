//! Binary resources and inline data: base64 in, bytes out, and back.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};

use crate::issue::{Issue, IssueType};
use crate::resource::Resource;

/// A Binary taken apart.
#[derive(Clone, PartialEq, Eq)]
pub struct Binary {
    /// `contentType`.
    pub content_type: String,
    /// `securityContext.reference`.
    pub security_context: Option<String>,
    /// `data`, decoded; `None` where absent.
    pub data: Option<Vec<u8>>,
}

/// Prints the type and length alone.
impl std::fmt::Debug for Binary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Binary")
            .field("content_type", &self.content_type)
            .field("bytes", &self.data.as_ref().map(Vec::len))
            .finish_non_exhaustive()
    }
}

/// A Binary's content type, security context and bytes.
pub fn binary(resource: &Resource) -> Result<Binary, Vec<Issue>> {
    if resource.type_name() != "Binary" {
        return Err(vec![Issue::at(
            IssueType::Invalid,
            "resourceType",
            "a Binary is expected",
        )]);
    }
    let data = match resource.text("data") {
        Some(text) => Some(decode(text).ok_or_else(|| vec![not_base64("Binary.data")])?),
        None => None,
    };
    let security_context = resource
        .value()
        .get("securityContext")
        .and_then(|c| c.get("reference"))
        .and_then(Value::as_str);
    Ok(Binary {
        content_type: resource.text("contentType").unwrap_or_default().to_owned(),
        security_context: security_context.map(str::to_owned),
        data,
    })
}

/// A Binary resource as JSON, for the wrapped form of content.
pub fn wrap(id: &str, version: &str, last_updated: &str, content_type: &str, bytes: &[u8]) -> Value {
    let mut meta = Map::new();
    meta.insert("versionId".to_owned(), version.into());
    meta.insert("lastUpdated".to_owned(), last_updated.into());
    let mut map = Map::new();
    map.insert("resourceType".to_owned(), "Binary".into());
    map.insert("id".to_owned(), id.into());
    map.insert("meta".to_owned(), Value::Object(meta));
    map.insert("contentType".to_owned(), content_type.into());
    if !bytes.is_empty() {
        map.insert("data".to_owned(), encode(bytes).into());
    }
    Value::Object(map)
}

/// Bytes as base64.
pub fn encode(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

/// The bytes that base64 stands for; white space within is allowed.
pub fn decode(text: &str) -> Option<Vec<u8>> {
    let spaced = text.bytes().any(|b| b.is_ascii_whitespace());
    if spaced {
        let squeezed: Vec<u8> = text.bytes().filter(|b| !b.is_ascii_whitespace()).collect();
        STANDARD.decode(squeezed).ok()
    } else {
        STANDARD.decode(text).ok()
    }
}

/// How many bytes base64 stands for, without decoding it.
pub fn decoded_len(text: &str) -> usize {
    let letters = text
        .bytes()
        .filter(|b| !b.is_ascii_whitespace() && *b != b'=')
        .count();
    letters / 4 * 3 + (letters % 4).saturating_sub(1)
}

pub(crate) fn not_base64(at: &str) -> Issue {
    Issue::at(IssueType::Value, at, "base64 is expected")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ParseOptions, parse};

    #[test]
    fn a_binary_is_taken_apart() {
        let text = r#"{"resourceType":"Binary","contentType":"text/plain","securityContext":{"reference":"DocumentReference/1"},"data":"aGkg\ndGhlcmU="}"#;
        let resource = parse(text.as_bytes(), &ParseOptions::default()).unwrap();
        let binary = binary(&resource).unwrap();
        assert_eq!(binary.content_type, "text/plain");
        assert_eq!(binary.security_context.as_deref(), Some("DocumentReference/1"));
        assert_eq!(binary.data.as_deref(), Some(b"hi there".as_slice()));
        assert!(!format!("{binary:?}").contains("104"));
    }

    #[test]
    fn the_length_is_known_before_decoding() {
        for len in 0..10 {
            assert_eq!(decoded_len(&encode(&vec![7; len])), len);
        }
        assert_eq!(decoded_len("aGkg\ndGhlcmU="), 8);
    }

    #[test]
    fn a_wrapped_binary_is_valid_even_when_empty() {
        for bytes in [b"hi".as_slice(), b""] {
            let value = wrap("b1", "1", "2026-03-01T12:00:00.000Z", "text/plain", bytes);
            let resource = crate::from_value(value, &ParseOptions::expecting("Binary")).unwrap();
            assert_eq!(binary(&resource).unwrap().data.unwrap_or_default(), bytes);
        }
    }
}
