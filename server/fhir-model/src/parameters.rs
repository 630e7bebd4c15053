//! Parameters resources: the input and output of operations.

use serde_json::Value;

use crate::issue::{Issue, IssueType};
use crate::resource::Resource;

/// One parameter.
#[derive(Debug, Clone, PartialEq)]
pub struct Parameter {
    /// `name`.
    pub name: String,
    /// What it carries.
    pub content: Content,
}

/// What a parameter carries: exactly one of these (inv-1).
#[derive(Clone, PartialEq)]
pub enum Content {
    /// `value[x]`: the type as in the property name (`String`, `Reference`) and the JSON.
    Value(String, Value),
    /// `resource`.
    Resource(Resource),
    /// `part`.
    Parts(Vec<Parameter>),
}

/// Prints the kind alone: values may be about a patient.
impl std::fmt::Debug for Content {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Value(kind, _) => f.debug_tuple("Value").field(kind).finish_non_exhaustive(),
            Self::Resource(resource) => f.debug_tuple("Resource").field(resource).finish(),
            Self::Parts(parts) => f.debug_tuple("Parts").field(parts).finish(),
        }
    }
}

impl Parameter {
    /// The text of a primitive value that is text in JSON.
    pub fn text(&self) -> Option<&str> {
        match &self.content {
            Content::Value(_, value) => value.as_str(),
            _ => None,
        }
    }

    /// The whole number of an integer value.
    pub fn whole_number(&self) -> Option<i64> {
        match &self.content {
            Content::Value(_, value) => value.as_i64(),
            _ => None,
        }
    }

    /// `reference` of a `valueReference`.
    pub fn reference(&self) -> Option<&str> {
        match &self.content {
            Content::Value(kind, value) if kind == "Reference" => value.get("reference")?.as_str(),
            _ => None,
        }
    }

    /// The parts, where it has parts.
    pub fn parts(&self) -> &[Self] {
        match &self.content {
            Content::Parts(parts) => parts,
            _ => &[],
        }
    }
}

/// The parameters of a Parameters resource, in order.
pub fn parameters(resource: &Resource) -> Result<Vec<Parameter>, Vec<Issue>> {
    if resource.type_name() != "Parameters" {
        return Err(vec![Issue::at(
            IssueType::Invalid,
            "resourceType",
            "a Parameters resource is expected",
        )]);
    }
    Ok(list(resource.value().get("parameter")))
}

fn list(items: Option<&Value>) -> Vec<Parameter> {
    items
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(one)
        .collect()
}

fn one(item: &Value) -> Option<Parameter> {
    let name = item.get("name")?.as_str()?.to_owned();
    let content = if let Some(resource) = item.get("resource") {
        Content::Resource(Resource::checked(resource.clone())?)
    } else if let Some(parts) = item.get("part") {
        Content::Parts(list(Some(parts)))
    } else {
        let (kind, value) = item
            .as_object()?
            .iter()
            .find_map(|(key, value)| Some((key.strip_prefix("value")?, value)))?;
        Content::Value(kind.to_owned(), value.clone())
    };
    Some(Parameter { name, content })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ParseOptions, parse};

    #[test]
    fn parameters_come_out_by_name_with_parts_and_resources() {
        let text = r#"{"resourceType":"Parameters","parameter":[{"name":"uses","valuePositiveInt":2},
            {"name":"actor","valueReference":{"reference":"Practitioner/7"}},
            {"name":"constraints","part":[{"name":"ip","valueString":"10.0.0.0/8"}]},
            {"name":"resource","resource":{"resourceType":"Patient","active":true}}]}"#;
        let resource = parse(text.as_bytes(), &ParseOptions::expecting("Parameters")).unwrap();
        let found = parameters(&resource).unwrap();
        assert_eq!(found[0].whole_number(), Some(2));
        assert_eq!(found[1].reference(), Some("Practitioner/7"));
        assert_eq!(found[2].parts()[0].text(), Some("10.0.0.0/8"));
        assert!(matches!(&found[3].content, Content::Resource(r) if r.type_name() == "Patient"));
    }
}
