//! Reason codes: why something was allowed, denied, revoked or expired, as stable machine words.
//! The same words stand in the CodeSystem `handoff-reason`, in OperationOutcome, problem+json, audit and metrics.

use std::fmt;

use serde::{Deserialize, Serialize};

macro_rules! reasons {
    ($($variant:ident = $code:literal),+ $(,)?) => {
        /// One word of the CodeSystem `https://handoff.example/fhir/CodeSystem/handoff-reason`.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(rename_all = "kebab-case")]
        #[expect(missing_docs, reason = "each code is defined once, in the CodeSystem")]
        pub enum Reason { $($variant),+ }

        impl Reason {
            /// Every reason, in the order of the CodeSystem.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The code.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $code),+ }
            }

            /// The reason that `code` names.
            pub fn parse(code: &str) -> Option<Self> {
                match code { $($code => Some(Self::$variant),)+ _ => None }
            }
        }
    };
}

reasons! {
    Permitted = "permitted",
    Unauthenticated = "unauthenticated",
    TokenInvalid = "token-invalid",
    InsufficientScope = "insufficient-scope",
    PolicyDenied = "policy-denied",
    NotGrantee = "not-grantee",
    NotBound = "not-bound",
    TaskNotActionable = "task-not-actionable",
    TaskCompleted = "task-completed",
    TaskCancelled = "task-cancelled",
    TaskRejected = "task-rejected",
    TaskFailed = "task-failed",
    TaskOnHold = "task-on-hold",
    TaskEnteredInError = "task-entered-in-error",
    TaskDeleted = "task-deleted",
    Reassigned = "reassigned",
    InputRemoved = "input-removed",
    DocumentSuperseded = "document-superseded",
    DocumentWithheld = "document-withheld",
    DocumentEnteredInError = "document-entered-in-error",
    DocumentDeleted = "document-deleted",
    LegalHold = "legal-hold",
    PatientMerged = "patient-merged",
    ConsentWithdrawn = "consent-withdrawn",
    ActorRevoked = "actor-revoked",
    Emergency = "emergency",
    Revoked = "revoked",
    Reissued = "reissued",
    Expired = "expired",
    Exhausted = "exhausted",
    Replayed = "replayed",
    LinkUnknown = "link-unknown",
    ConstraintIp = "constraint-ip",
    ConstraintSession = "constraint-session",
    ConstraintClient = "constraint-client",
    ConstraintKey = "constraint-key",
    ConstraintContentType = "constraint-content-type",
    IntegrityFailed = "integrity-failed",
    IllegalTransition = "illegal-transition",
    VersionConflict = "version-conflict",
    Invalid = "invalid",
    NotFound = "not-found",
    TooLarge = "too-large",
    NotSupported = "not-supported",
    RateLimited = "rate-limited",
    StorageUnavailable = "storage-unavailable",
    AuditUnavailable = "audit-unavailable",
    BreakGlass = "break-glass",
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_parses_back_to_its_reason() {
        for reason in Reason::ALL {
            assert_eq!(Reason::parse(reason.as_str()), Some(*reason));
        }
        assert_eq!(Reason::parse("no-such-reason"), None);
    }
}
