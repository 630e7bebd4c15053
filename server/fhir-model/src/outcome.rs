//! OperationOutcome: issues as FHIR says them.

use serde_json::{Map, Value};

use crate::issue::{Issue, IssueType, Severity};

/// What an OperationOutcome says beside its issues.
#[derive(Debug, Clone, Copy, Default)]
pub struct Details<'a> {
    /// `issue.details.coding`: system, code, and display where there is one.
    pub coding: Option<(&'a str, &'a str, Option<&'a str>)>,
    /// `issue.diagnostics`, the correlation id for instance.
    pub diagnostics: Option<&'a str>,
}

/// An OperationOutcome with one entry per issue. Without issues it says that all is well.
pub fn outcome(issues: &[Issue], details: Details<'_>) -> Value {
    let all_well;
    let listed = if issues.is_empty() {
        all_well = [Issue {
            severity: Severity::Information,
            code: IssueType::Informational,
            expression: None,
            text: "all is well".to_owned(),
        }];
        &all_well
    } else {
        issues
    };
    let mut map = Map::new();
    map.insert("resourceType".to_owned(), "OperationOutcome".into());
    map.insert(
        "issue".to_owned(),
        listed.iter().map(|issue| one(issue, details)).collect(),
    );
    Value::Object(map)
}

fn one(issue: &Issue, details: Details<'_>) -> Value {
    let mut map = Map::new();
    map.insert("severity".to_owned(), issue.severity.as_str().into());
    map.insert("code".to_owned(), issue.code.as_str().into());
    let mut concept = Map::new();
    if let Some((system, code, display)) = details.coding {
        let mut coding = Map::new();
        coding.insert("system".to_owned(), system.into());
        coding.insert("code".to_owned(), code.into());
        if let Some(display) = display {
            coding.insert("display".to_owned(), display.into());
        }
        concept.insert("coding".to_owned(), Value::Array(vec![Value::Object(coding)]));
    }
    if !issue.text.is_empty() {
        concept.insert("text".to_owned(), issue.text.as_str().into());
    }
    if !concept.is_empty() {
        map.insert("details".to_owned(), Value::Object(concept));
    }
    if let Some(diagnostics) = details.diagnostics {
        map.insert("diagnostics".to_owned(), diagnostics.into());
    }
    if let Some(expression) = &issue.expression {
        map.insert(
            "expression".to_owned(),
            Value::Array(vec![expression.as_str().into()]),
        );
    }
    Value::Object(map)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ParseOptions, from_value};

    #[test]
    fn an_outcome_is_itself_valid_fhir() {
        let issues = [
            Issue::at(IssueType::Required, "Task.status", "the element must be given"),
            Issue::general(IssueType::Structure, "the JSON ends too early"),
        ];
        let details = Details {
            coding: Some(("http://x/cs", "invalid", Some("invalid"))),
            diagnostics: Some("correlation 1"),
        };
        for value in [outcome(&issues, details), outcome(&[], Details::default())] {
            from_value(value, &ParseOptions::expecting("OperationOutcome")).unwrap();
        }
        assert_eq!(
            outcome(&issues, details)["issue"][0]["expression"][0],
            "Task.status"
        );
    }
}
