//! Walking and comparing FHIR JSON as far as the rules need it: children with their places, references, codes, patterns.
//! Knows the shape of JSON and nothing of profiles.

use serde_json::Value;

use super::definition::Step;
use crate::artifacts::{items, text};

/// A value and where it stands.
#[derive(Debug, Clone)]
pub(super) struct Node<'v> {
    pub value: &'v Value,
    pub expression: String,
    /// For a choice, how its name ended: `Code` of `valueCode`.
    pub chosen_type: Option<&'v str>,
}

/// What stands below `node` at that step. A primitive that has only extensions (`_status`) is there, without a value.
pub(super) fn children<'v>(node: &Node<'v>, step: &Step) -> Vec<Node<'v>> {
    let Value::Object(fields) = node.value else {
        return Vec::new();
    };
    let expression = format!("{}.{}", node.expression, step.name.trim_start_matches('_'));
    let mut found = Vec::new();
    if step.is_choice {
        for (name, value) in fields {
            let suffix = name
                .strip_prefix(&step.name)
                .filter(|it| it.starts_with(|c: char| c.is_ascii_uppercase()));
            if suffix.is_some() {
                found.push(Node {
                    value,
                    expression: expression.clone(),
                    chosen_type: suffix,
                });
            }
        }
        return found;
    }
    match fields.get(&step.name) {
        Some(Value::Array(values)) => found.extend(values.iter().enumerate().map(|(index, value)| Node {
            value,
            expression: format!("{expression}[{index}]"),
            chosen_type: None,
        })),
        Some(value) => found.push(Node {
            value,
            expression,
            chosen_type: None,
        }),
        None => {
            if fields.contains_key(&format!("_{}", step.name)) {
                found.push(Node {
                    value: &Value::Null,
                    expression,
                    chosen_type: None,
                });
            }
        }
    }
    if let Some(url) = step.slice {
        found.retain(|node| text(node.value, "url") == Some(url));
    }
    found
}

/// Whether the node stands for a primitive that has only extensions, so that there is no value to check.
pub(super) fn is_primitive_without_value(node: &Node<'_>) -> bool {
    node.value.is_null()
}

/// The resource type that a Reference leads to, where that can be told: from its literal reference, the contained
/// resource it names, or its `type`.
pub(super) fn reference_type<'v>(value: &'v Value, resource: &'v Value) -> Option<&'v str> {
    let stated = text(value, "type");
    let Some(reference) = text(value, "reference") else {
        return stated;
    };
    if let Some(id) = reference.strip_prefix('#') {
        let contained = items(resource, "contained")
            .iter()
            .find(|it| text(it, "id") == Some(id));
        return contained.and_then(|it| text(it, "resourceType")).or(stated);
    }
    if reference.starts_with("urn:") {
        return stated;
    }
    let path = reference
        .split_once("/_history/")
        .map_or(reference, |(path, _)| path);
    let mut parts = path.rsplit('/').skip(1);
    parts
        .next()
        .filter(|name| name.starts_with(|c: char| c.is_ascii_uppercase()))
        .or(stated)
}

/// System and code of a code, a Coding, or each coding of a `CodeableConcept`.
pub(super) fn codings(value: &Value) -> Vec<(Option<&str>, &str)> {
    if let Some(code) = value.as_str() {
        return vec![(None, code)];
    }
    let coding = |value| Some((text(value, "system"), text(value, "code")?));
    match value.get("coding") {
        Some(_) => items(value, "coding").iter().filter_map(coding).collect(),
        None => coding(value).into_iter().collect(),
    }
}

/// Whether a value has at least what the pattern has; of a list, some item for each of the pattern's.
pub(super) fn matches_pattern(value: &Value, pattern: &Value) -> bool {
    match (value, pattern) {
        (Value::Object(value), Value::Object(pattern)) => pattern.iter().all(|(name, pattern)| {
            value
                .get(name)
                .is_some_and(|value| matches_pattern(value, pattern))
        }),
        (Value::Array(values), Value::Array(patterns)) => patterns
            .iter()
            .all(|pattern| values.iter().any(|value| matches_pattern(value, pattern))),
        _ => value == pattern,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_type_of_a_reference_is_told_from_whatever_names_it() {
        let resource = json!({"contained": [{"resourceType": "Practitioner", "id": "p"}]});
        let type_of = |reference: Value| reference_type(&reference, &resource).map(str::to_owned);
        assert_eq!(
            type_of(json!({"reference": "Patient/ada"})).as_deref(),
            Some("Patient")
        );
        assert_eq!(
            type_of(json!({"reference": "https://ehr.example/fhir/Patient/1/_history/2"})).as_deref(),
            Some("Patient")
        );
        assert_eq!(
            type_of(json!({"reference": "#p"})).as_deref(),
            Some("Practitioner")
        );
        assert_eq!(type_of(json!({"reference": "urn:uuid:1"})), None);
        assert_eq!(
            type_of(json!({"reference": "urn:uuid:1", "type": "Task"})).as_deref(),
            Some("Task")
        );
        assert_eq!(
            type_of(json!({"type": "Group", "identifier": {"value": "1"}})).as_deref(),
            Some("Group")
        );
        assert_eq!(type_of(json!({"reference": "https://ehr.example/files/1"})), None);
    }

    #[test]
    fn a_pattern_asks_for_its_parts_and_allows_more() {
        let value =
            json!({"coding": [{"system": "a", "code": "1"}, {"system": "b", "code": "2"}], "text": "x"});
        assert!(matches_pattern(&value, &json!({"coding": [{"system": "b"}]})));
        assert!(!matches_pattern(&value, &json!({"coding": [{"system": "c"}]})));
        assert!(!matches_pattern(&value, &json!({"userSelected": true})));
    }
}
