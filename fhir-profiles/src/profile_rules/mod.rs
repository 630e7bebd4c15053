//! Checks a resource against Handoff's profiles and extensions, by the rules that stand in the differentials of the
//! structure definitions. It adds to the base check of R4 and does not repeat it: types, formats and the bindings of the
//! standard are somebody else's. It knows nothing of Tasks or documents beyond what the JSON says.

mod definition;
mod invariant;
mod values;

use serde_json::Value;

use self::definition::{Definition, ElementRule, Step};
use self::values::{Node, children, is_primitive_without_value};
use crate::artifacts::{items, text};
use crate::canonical::BASE;
use crate::terminology::value_set_contains;

/// One way in which a resource departs from a profile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProfileIssue {
    /// Where, as `FHIRPath` that an `OperationOutcome.issue.expression` can carry: `Task.input[0].value`.
    pub expression: String,
    /// An R4 issue type: `required`, `structure`, `value`, `code-invalid`, `invariant` or `extension`.
    pub code: &'static str,
    /// What is wrong, without the values of the resource.
    pub text: String,
}

/// Whether [`check`] has rules for that canonical URL (a version after `|` must be the one that is shipped).
pub fn knows(profile_url: &str) -> bool {
    definition::find(profile_url).is_some_and(|definition| !definition.is_extension)
}

/// Every departure of `resource` from the profile, in the order of the profile's elements.
/// Empty where the resource conforms, and where the profile is not ours: ask [`knows`] first if that matters.
pub fn check(profile_url: &str, resource: &Value) -> Vec<ProfileIssue> {
    let Some(definition) = definition::find(profile_url).filter(|definition| !definition.is_extension) else {
        return Vec::new();
    };
    let mut issues = Vec::new();
    if text(resource, "resourceType") != Some(definition.constrained_type) {
        issues.push(ProfileIssue {
            expression: definition.constrained_type.to_owned(),
            code: "structure",
            text: format!(
                "the profile `{}` is for `{}`",
                definition.name, definition.constrained_type
            ),
        });
        return issues;
    }
    let root = Node {
        value: resource,
        expression: definition.constrained_type.to_owned(),
        chosen_type: None,
    };
    check_definition(definition, &root, resource, &mut issues);
    check_extensions(&root, resource, &mut issues);
    issues
}

fn check_definition(
    definition: &Definition,
    root: &Node<'_>,
    resource: &Value,
    issues: &mut Vec<ProfileIssue>,
) {
    for rule in &definition.elements {
        let Some((last, parents)) = rule.steps.split_last() else {
            check_value(rule, root, resource, issues);
            continue;
        };
        let mut nodes = vec![root.clone()];
        for step in parents {
            nodes = nodes.iter().flat_map(|node| children(node, step)).collect();
        }
        for parent in &nodes {
            check_count(rule, last, parent, definition.name, issues);
            for node in children(parent, last) {
                check_value(rule, &node, resource, issues);
            }
        }
    }
}

fn check_count(
    rule: &ElementRule,
    step: &Step,
    parent: &Node<'_>,
    profile: &str,
    issues: &mut Vec<ProfileIssue>,
) {
    let found = children(parent, step).len();
    let what = match step.slice {
        Some(url) => format!("`{}` with url `{url}`", step.name),
        None => format!("`{}`", step.name),
    };
    if found < rule.min {
        let least = if rule.min == 1 {
            String::new()
        } else {
            format!(", at least {} times", rule.min)
        };
        issues.push(ProfileIssue {
            expression: format!("{}.{}", parent.expression, step.name),
            code: "required",
            text: format!("{what} is required by `{profile}`{least}"),
        });
    }
    if let Some(max) = rule.max.filter(|max| found > *max) {
        let most = if max == 0 {
            "may not occur".to_owned()
        } else {
            format!("may occur at most {max} times")
        };
        issues.push(ProfileIssue {
            expression: format!("{}.{}", parent.expression, step.name),
            code: "structure",
            text: format!("{what} {most} by `{profile}`"),
        });
    }
}

fn check_value(rule: &ElementRule, node: &Node<'_>, resource: &Value, issues: &mut Vec<ProfileIssue>) {
    if is_primitive_without_value(node) {
        return;
    }
    let mut report = |code, text| {
        issues.push(ProfileIssue {
            expression: node.expression.clone(),
            code,
            text,
        });
    };
    if let Some(chosen) = node.chosen_type
        && !rule.types.is_empty()
        && !rule.types.iter().any(|allowed| allowed.choice_suffix() == chosen)
    {
        let allowed: Vec<_> = rule
            .types
            .iter()
            .map(|allowed| format!("`{}`", allowed.code))
            .collect();
        report(
            "structure",
            format!("the value must be of type {}", allowed.join(" or ")),
        );
        return;
    }
    let targets: Vec<_> = rule
        .types
        .iter()
        .flat_map(|allowed| &allowed.targets)
        .copied()
        .collect();
    if let Some(target) = values::reference_type(node.value, resource)
        && !targets.is_empty()
        && !targets.contains(&target)
    {
        report(
            "value",
            format!("the reference must be to `{}`", targets.join("` or `")),
        );
    }
    if rule.fixed.is_some_and(|fixed| fixed != node.value) {
        report(
            "value",
            "the value is not the one that the profile fixes".to_owned(),
        );
    }
    if rule
        .pattern
        .is_some_and(|pattern| !values::matches_pattern(node.value, pattern))
    {
        report(
            "value",
            "the value does not have the parts that the profile fixes".to_owned(),
        );
    }
    if let Some(value_set) = rule.value_set {
        let coded = values::codings(node.value);
        if !coded
            .iter()
            .any(|(system, code)| value_set_contains(value_set, *system, code) == Some(true))
        {
            report(
                "code-invalid",
                format!("the code is not in the value set `{value_set}`"),
            );
        }
    }
    if let Some(slices) = &rule.closed_slices
        && !text(node.value, "url").is_some_and(|url| slices.contains(&url))
    {
        report(
            "extension",
            format!("only the extensions `{}` may stand here", slices.join("`, `")),
        );
    }
    for invariant in &rule.invariants {
        if !invariant.expression.holds(node.value) {
            report("invariant", format!("{} ({})", invariant.human, invariant.key));
        }
    }
}

/// Checks every extension of ours, wherever in the resource it stands.
fn check_extensions(node: &Node<'_>, resource: &Value, issues: &mut Vec<ProfileIssue>) {
    let Value::Object(fields) = node.value else { return };
    for extension in items(node.value, "extension").iter().enumerate() {
        let (index, value) = extension;
        let Some(url) = text(value, "url").filter(|url| url.starts_with(BASE)) else {
            continue;
        };
        let expression = format!("{}.extension[{index}]", node.expression);
        match definition::find(url).filter(|definition| definition.is_extension) {
            Some(definition) => {
                let root = Node {
                    value,
                    expression,
                    chosen_type: None,
                };
                check_definition(definition, &root, resource, issues);
            }
            None => {
                issues.push(ProfileIssue {
                    expression,
                    code: "extension",
                    text: "there is no extension of that url".to_owned(),
                });
            }
        }
    }
    for name in fields
        .keys()
        .filter(|name| *name != "extension" && *name != "contained")
    {
        for child in children(node, &Step::plain(name)) {
            check_extensions(&child, resource, issues);
        }
    }
}

#[cfg(test)]
mod tests;
