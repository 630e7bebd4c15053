//! What a resource must satisfy beyond base R4 before it is stored, however it comes in: no content where none may
//! stand, no keys to storage, lists of a length that can be worked with, and the rules of those of our profiles that
//! it claims. Knows nothing of Bundles or HTTP.

use handoff_domain::reason::Reason;
use handoff_fhir_model::{Issue, IssueType, Resource, payload};
use serde_json::Value;

use super::attachments::carries_sas;
use super::{AppError, Class};

/// The longest lists that are worked through entry by entry: type, path, most.
const LONGEST: [(&str, &[&str], usize); 4] = [
    ("Task", &["restriction", "recipient"], 50),
    ("Task", &["partOf"], 8),
    ("DocumentReference", &["content"], 100),
    ("DocumentReference", &["relatesTo"], 50),
];

/// Refuses a resource with content in the wrong place, or that lacks what a profile it claims asks for.
pub fn check(resource: &Resource) -> Result<(), AppError> {
    let elsewhere = payload::elsewhere(resource);
    if !elsewhere.is_empty() {
        return Err(AppError::unprocessable(elsewhere));
    }
    let misplaced = [too_long(resource), storage_keys(resource)].concat();
    if !misplaced.is_empty() {
        return Err(AppError::unprocessable(misplaced));
    }
    let issues = profile_issues(resource, &resource.profiles());
    if issues.is_empty() {
        Ok(())
    } else {
        Err(AppError::unprocessable(issues))
    }
}

fn too_long(resource: &Resource) -> Vec<Issue> {
    let length = |path: &[&str]| {
        let element = path.iter().try_fold(resource.value(), |at, name| at.get(name));
        element.and_then(Value::as_array).map_or(0, Vec::len)
    };
    LONGEST
        .iter()
        .filter(|(kind, path, most)| *kind == resource.type_name() && length(path) > *most)
        .map(|(kind, path, most)| {
            let text = format!("at most {most} entries are accepted here");
            Issue::at(IssueType::TooLong, format!("{kind}.{}", path.join(".")), text)
        })
        .collect()
}

/// URLs with a storage signature, wherever they stand: each is a key to content past the gate.
fn storage_keys(resource: &Resource) -> Vec<Issue> {
    let mut issues = Vec::new();
    resource.clone().visit_references_mut(&mut |path, _, text| {
        if carries_sas(text) {
            let text = "the URL carries a storage signature, which is a key; give the address without it";
            issues.push(Issue::at(IssueType::BusinessRule, path, text));
        }
    });
    issues
}

/// What a resource lacks of the profiles of ours among `profiles`.
pub fn profile_issues(resource: &Resource, profiles: &[String]) -> Vec<Issue> {
    profiles
        .iter()
        .flat_map(|profile| handoff_fhir_profiles::profile_rules::check(profile, resource.value()))
        .map(|issue| Issue::at(IssueType::Invariant, issue.expression, issue.text))
        .collect()
}

/// A resource may be 2 MiB without its inline `data`.
pub fn check_size(resource: &Resource, body: usize, limit: usize) -> Result<(), AppError> {
    if body <= limit {
        return Ok(());
    }
    let inline: usize = resource
        .value()
        .get("content")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(|c| c.get("attachment")?.get("data")?.as_str())
        .map(str::len)
        .sum();
    if body.saturating_sub(inline) <= limit {
        return Ok(());
    }
    Err(too_large(limit))
}

/// The refusal of what is larger.
pub fn too_large(limit: usize) -> AppError {
    AppError::new(
        Class::TooLarge,
        Reason::TooLarge,
        format!("a resource without its inline data exceeds the limit of {limit} bytes"),
    )
}
