//! The one place that calls fhirbolt: its `Element`, which knows the R4 types without the cost of typed structs.
//! It trusts what it is given, so it is only ever given what [`crate::check`] has passed.
//!
//! Functions here are not generic: fhirbolt's code is compiled once, in this crate.

use std::borrow::Cow;

use fhirbolt::FhirReleases;
use fhirbolt::element::Element;
use fhirbolt::serde::{DeserializationConfig, DeserializationMode};
use serde_json::Value;

use crate::issue::{Issue, IssueType};

/// fhirbolt's model of a resource.
pub(crate) type R4Element = Element<{ FhirReleases::R4 }>;

/// Above this length inline data is looked at by the first pass alone: fhirbolt only copies it.
const LONG_TEXT: usize = 64 * 1024;

/// The resource as fhirbolt's model, in its strict mode.
pub(crate) fn from_json(value: &Value) -> Result<R4Element, Issue> {
    let value = without_long_texts(value).into_owned();
    let config = DeserializationConfig {
        mode: DeserializationMode::Strict,
    };
    fhirbolt::json::from_json_value(value, Some(config)).map_err(|_| {
        // fhirbolt's message may quote what was sent.
        Issue::general(
            IssueType::Structure,
            "the resource is not what FHIR R4 expects of its type",
        )
    })
}

/// The value with every very long text replaced by a short one of the same form.
fn without_long_texts(value: &Value) -> Cow<'_, Value> {
    if !has_long_text(value) {
        return Cow::Borrowed(value);
    }
    Cow::Owned(match value {
        Value::String(_) => Value::String("AAAA".to_owned()),
        Value::Array(items) => items
            .iter()
            .map(|item| without_long_texts(item).into_owned())
            .collect(),
        Value::Object(map) => Value::Object(
            map.iter()
                .map(|(k, v)| (k.clone(), without_long_texts(v).into_owned()))
                .collect(),
        ),
        other => other.clone(),
    })
}

fn has_long_text(value: &Value) -> bool {
    match value {
        Value::String(text) => text.len() > LONG_TEXT,
        Value::Array(items) => items.iter().any(has_long_text),
        Value::Object(map) => map.values().any(has_long_text),
        _ => false,
    }
}
