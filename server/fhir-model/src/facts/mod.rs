//! What the rules need to know of a resource, as the domain's own types. Decides nothing.

mod clinical;
mod document;
mod task;

use handoff_domain::task::Code;
use serde_json::Value;

pub use clinical::clinical_sayings;
pub use document::document_facts;
pub use task::task_facts;

/// The elements of an array, none where there is no array.
pub(crate) fn items<'a>(value: &'a Value, name: &str) -> impl Iterator<Item = &'a Value> {
    value.get(name).and_then(Value::as_array).into_iter().flatten()
}

/// The text at the end of a path of property names.
pub(crate) fn text<'a>(value: &'a Value, path: &[&str]) -> Option<&'a str> {
    path.iter().try_fold(value, |at, name| at.get(*name))?.as_str()
}

fn owned(value: &Value, path: &[&str]) -> Option<String> {
    text(value, path).map(str::to_owned)
}

/// The codings of a `CodeableConcept` that have a code.
fn codings(concept: &Value) -> impl Iterator<Item = Code> + '_ {
    items(concept, "coding").filter_map(coding)
}

fn coding(coding: &Value) -> Option<Code> {
    Some(Code {
        system: owned(coding, &["system"]),
        code: owned(coding, &["code"])?,
    })
}
