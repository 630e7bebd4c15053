//! What is wrong with a resource, said so that the sender can find it.
//! Never holds a value that was sent: values may be about a patient.

use thiserror::Error;

/// One thing that is wrong, where, and in plain words.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{text}{}{}", if expression.is_some() { " at " } else { "" }, expression.as_deref().unwrap_or_default())]
pub struct Issue {
    /// `OperationOutcome.issue.severity`.
    pub severity: Severity,
    /// `OperationOutcome.issue.code`.
    pub code: IssueType,
    /// Where, as `FHIRPath` (`Task.input[0].type`); `None` where no element can be named.
    pub expression: Option<String>,
    /// What is wrong.
    pub text: String,
}

impl Issue {
    /// An error at a place.
    pub fn at(code: IssueType, expression: impl Into<String>, text: impl Into<String>) -> Self {
        Self {
            severity: Severity::Error,
            code,
            expression: Some(expression.into()),
            text: text.into(),
        }
    }

    /// A value that is not what it has to be.
    pub fn value(expression: &str, text: &str) -> Self {
        Self::at(IssueType::Value, expression, text)
    }

    /// A rule of this server that is broken.
    pub fn business_rule(expression: &str, text: &str) -> Self {
        Self::at(IssueType::BusinessRule, expression, text)
    }

    /// An error that no element can be named for.
    pub fn general(code: IssueType, text: impl Into<String>) -> Self {
        Self {
            severity: Severity::Error,
            code,
            expression: None,
            text: text.into(),
        }
    }
}

/// `OperationOutcome.issue.severity` (`http://hl7.org/fhir/issue-severity`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the codes are FHIR's own")]
pub enum Severity {
    Fatal,
    Error,
    Warning,
    Information,
}

impl Severity {
    /// The FHIR code.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Fatal => "fatal",
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Information => "information",
        }
    }
}

/// `OperationOutcome.issue.code` (`http://hl7.org/fhir/issue-type`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the codes are FHIR's own")]
pub enum IssueType {
    Invalid,
    Structure,
    Required,
    Value,
    Invariant,
    Security,
    Login,
    Unknown,
    Expired,
    Forbidden,
    Suppressed,
    Processing,
    NotSupported,
    Duplicate,
    MultipleMatches,
    NotFound,
    Deleted,
    TooLong,
    CodeInvalid,
    Extension,
    TooCostly,
    BusinessRule,
    Conflict,
    Transient,
    LockError,
    NoStore,
    Exception,
    Timeout,
    Incomplete,
    Throttled,
    Informational,
}

impl IssueType {
    /// The FHIR code.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Invalid => "invalid",
            Self::Structure => "structure",
            Self::Required => "required",
            Self::Value => "value",
            Self::Invariant => "invariant",
            Self::Security => "security",
            Self::Login => "login",
            Self::Unknown => "unknown",
            Self::Expired => "expired",
            Self::Forbidden => "forbidden",
            Self::Suppressed => "suppressed",
            Self::Processing => "processing",
            Self::NotSupported => "not-supported",
            Self::Duplicate => "duplicate",
            Self::MultipleMatches => "multiple-matches",
            Self::NotFound => "not-found",
            Self::Deleted => "deleted",
            Self::TooLong => "too-long",
            Self::CodeInvalid => "code-invalid",
            Self::Extension => "extension",
            Self::TooCostly => "too-costly",
            Self::BusinessRule => "business-rule",
            Self::Conflict => "conflict",
            Self::Transient => "transient",
            Self::LockError => "lock-error",
            Self::NoStore => "no-store",
            Self::Exception => "exception",
            Self::Timeout => "timeout",
            Self::Incomplete => "incomplete",
            Self::Throttled => "throttled",
            Self::Informational => "informational",
        }
    }
}
