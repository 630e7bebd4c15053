//! A failure as an OperationOutcome: what FHIR callers are told, and what is kept with a notice that was refused.
//! Knows no HTTP.

use handoff_domain::reason::Reason;
use handoff_fhir_model::outcome::{Details, outcome};
use handoff_fhir_model::{Issue, IssueType};
use handoff_fhir_profiles::canonical::REASON_SYSTEM;
use handoff_fhir_profiles::terminology;

use super::{AppError, Class};

const fn issue_type(error: &AppError) -> IssueType {
    match error.class {
        Class::Invalid => match error.reason {
            Reason::NotSupported => IssueType::NotSupported,
            _ => IssueType::Invalid,
        },
        Class::Unprocessable => IssueType::BusinessRule,
        Class::Unauthenticated => IssueType::Login,
        Class::Forbidden => IssueType::Forbidden,
        Class::NotFound => IssueType::NotFound,
        Class::Gone => IssueType::Deleted,
        Class::Conflict | Class::PreconditionFailed => IssueType::Conflict,
        Class::TooLarge => IssueType::TooLong,
        Class::NotAcceptable
        | Class::UnsupportedMediaType
        | Class::MethodNotAllowed
        | Class::RangeNotSatisfiable { .. } => IssueType::NotSupported,
        Class::RateLimited { .. } => IssueType::Throttled,
        Class::NoRoom => IssueType::NoStore,
        Class::Unavailable => IssueType::Transient,
        Class::Internal => IssueType::Exception,
    }
}

/// A failure as an OperationOutcome.
pub fn operation_outcome(error: &AppError, correlation: &str) -> Vec<u8> {
    let general;
    let issues = if error.issues.is_empty() {
        general = [Issue::general(issue_type(error), error.text.as_str())];
        general.as_slice()
    } else {
        error.issues.as_slice()
    };
    let code = error.reason.as_str();
    let display = terminology::concept(REASON_SYSTEM, code).map(|c| c.display);
    let details = Details {
        coding: Some((REASON_SYSTEM, code, display)),
        diagnostics: Some(correlation),
    };
    outcome(issues, details).to_string().into_bytes()
}
