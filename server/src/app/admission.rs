//! What a resource must satisfy beyond base R4 before it is stored, however it comes in: no content where none may
//! stand, and the rules of those of our profiles that it claims. Knows nothing of Bundles or HTTP.

use handoff_fhir_model::{Issue, IssueType, Resource, payload};

use super::AppError;

/// Refuses a resource with content in the wrong place, or that lacks what a profile it claims asks for.
pub fn check(resource: &Resource) -> Result<(), AppError> {
    let elsewhere = payload::elsewhere(resource);
    if !elsewhere.is_empty() {
        return Err(AppError::unprocessable(elsewhere));
    }
    let issues = profile_issues(resource, &resource.profiles());
    if issues.is_empty() {
        Ok(())
    } else {
        Err(AppError::unprocessable(issues))
    }
}

/// What a resource lacks of the profiles of ours among `profiles`.
pub fn profile_issues(resource: &Resource, profiles: &[String]) -> Vec<Issue> {
    profiles
        .iter()
        .flat_map(|profile| handoff_fhir_profiles::profile_rules::check(profile, resource.value()))
        .map(|issue| Issue::at(IssueType::Invariant, issue.expression, issue.text))
        .collect()
}
