//! Why a use case did not do what was asked: public words and a reason code, with the internal cause apart.
//! Knows no HTTP; the edge turns it into an answer in exactly one place.

use handoff_domain::audit::{About, AuditRow};
use handoff_domain::ids::RedemptionId;
use handoff_domain::ports::{BlobError, StoreError, WorkError};
use handoff_domain::reason::Reason;
use handoff_fhir_model::{Issue, IssueType};

/// What sort of failure it is; decides the status of the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// The request itself is malformed.
    Invalid,
    /// Well formed, against a rule or the present state of things.
    Unprocessable,
    /// No or bad credentials.
    Unauthenticated,
    /// Seen, not allowed.
    Forbidden,
    /// Not there, or not for this caller to know.
    NotFound,
    /// It was there and has been deleted.
    Gone,
    /// Clashes with the present state.
    Conflict,
    /// `If-Match` named another version.
    PreconditionFailed,
    /// Over a limit.
    TooLarge,
    /// The asked for representation can't be given.
    NotAcceptable,
    /// The sent representation can't be read.
    UnsupportedMediaType,
    /// The method is not for this resource.
    MethodNotAllowed,
    /// The range lies outside of the content.
    RangeNotSatisfiable {
        /// Length of the content in bytes.
        size: u64,
    },
    /// Too many requests.
    RateLimited {
        /// When to try again.
        seconds: u64,
    },
    /// No room to store it.
    NoRoom,
    /// Something behind us is down; worth trying again.
    Unavailable,
    /// Our fault.
    Internal,
}

/// A redemption whose own earlier stream stands in the way.
#[derive(Debug, Clone)]
pub struct Busy {
    /// Which.
    pub redemption: RedemptionId,
    /// What is reported where the stream does not end in time.
    pub row: AuditRow,
}

/// What a client would have to send instead of what it sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Challenge {
    /// A token with this scope.
    Scope(String),
    /// One token, in one place.
    OneToken,
    /// Another token, as it was sent: with a DPoP proof.
    BoundToken,
    /// Another DPoP proof.
    Proof,
    /// A DPoP proof with a nonce of ours.
    Nonce,
}

/// A failed use case.
#[derive(Debug, Clone)]
pub struct AppError {
    /// What sort it is.
    pub class: Class,
    /// The reason code.
    pub reason: Reason,
    /// What happened and what to do next, for the caller. Holds no PHI, no secret, no internals.
    pub text: String,
    /// Located problems of the input; empty for other failures.
    pub issues: Vec<Issue>,
    /// The audit row of a refusal, to be written in a transaction of its own after the rollback.
    pub denial: Option<Box<AuditRow>>,
    /// What went wrong inside, for the log only.
    pub cause: Option<String>,
    /// What stands in the way, and may be ended and asked again.
    pub busy: Option<Box<Busy>>,
    /// What a client would have to send instead, where that can be said.
    pub challenge: Option<Challenge>,
    pub(crate) store: Option<StoreError>,
}

impl AppError {
    /// A failure of `class` with a reason and public words.
    pub fn new(class: Class, reason: Reason, text: impl Into<String>) -> Self {
        Self {
            class,
            reason,
            text: text.into(),
            issues: Vec::new(),
            denial: None,
            cause: None,
            busy: None,
            challenge: None,
            store: None,
        }
    }

    /// Input refused with located problems.
    pub fn invalid(issues: Vec<Issue>) -> Self {
        let text = issues
            .first()
            .map_or_else(|| "invalid input".to_owned(), |i| i.text.clone());
        Self {
            issues,
            ..Self::new(Class::Invalid, Reason::Invalid, text)
        }
    }

    /// Input that breaks a rule, with located problems.
    pub fn unprocessable(issues: Vec<Issue>) -> Self {
        Self {
            class: Class::Unprocessable,
            ..Self::invalid(issues)
        }
    }

    /// One malformed thing.
    pub fn bad(text: impl Into<String>) -> Self {
        Self::new(Class::Invalid, Reason::Invalid, text)
    }

    /// One thing against a rule, at `expression`.
    pub fn rule(expression: &str, text: impl Into<String>) -> Self {
        let text = text.into();
        let issue = Issue::at(IssueType::BusinessRule, expression, text.as_str());
        Self {
            issues: vec![issue],
            ..Self::new(Class::Unprocessable, Reason::Invalid, text)
        }
    }

    /// Not there, or not for this caller to know: the same words either way.
    pub fn not_found() -> Self {
        Self::new(
            Class::NotFound,
            Reason::NotFound,
            "there is no such resource, or it is not for you to see",
        )
    }

    /// A refusal, told with its reason code.
    pub fn forbidden(reason: Reason) -> Self {
        Self::new(Class::Forbidden, reason, explain(reason))
    }

    /// Whether it is by what was asked and by whom, and not by what others did meanwhile or by anything behind us.
    pub const fn is_refusal(&self) -> bool {
        let refused = matches!(
            self.class,
            Class::Forbidden | Class::NotFound | Class::Gone | Class::Conflict | Class::Unprocessable
        );
        refused && self.store.is_none()
    }

    /// The answer where this kept the audit from being written.
    #[must_use]
    pub fn audit_unavailable(self) -> Self {
        let reason = Reason::AuditUnavailable;
        Self {
            reason,
            text: explain(reason).to_owned(),
            class: Class::Unavailable,
            ..self
        }
    }

    /// The same failure with the audit row that records it.
    #[must_use]
    pub fn recorded(mut self, row: AuditRow) -> Self {
        self.denial = Some(Box::new(row));
        self
    }

    /// The same failure whose row, where it has one, says what it was about.
    #[must_use]
    pub fn about(mut self, about: About) -> Self {
        if let Some(row) = &mut self.denial {
            row.about = about;
        }
        self
    }

    /// The same failure with its internal cause.
    #[must_use]
    pub fn because(mut self, cause: impl Into<String>) -> Self {
        self.cause = Some(cause.into());
        self
    }
}

impl From<StoreError> for AppError {
    fn from(error: StoreError) -> Self {
        let base = match &error {
            StoreError::Conflict => Self::new(
                Class::Conflict,
                Reason::VersionConflict,
                "others changed the same resource at the same time; read it again and retry",
            ),
            StoreError::Unavailable(_) => Self::new(
                Class::Unavailable,
                Reason::StorageUnavailable,
                "the database can't be reached; nothing was changed, try again shortly",
            ),
            StoreError::Full => Self::new(
                Class::NoRoom,
                Reason::StorageUnavailable,
                "the database has no room left; nothing was changed, tell the operator",
            ),
            StoreError::Broken(_) => Self::new(
                Class::Internal,
                Reason::StorageUnavailable,
                "an internal error; nothing was changed, tell support the correlation id",
            ),
        };
        Self {
            store: Some(error.clone()),
            ..base.because(error.to_string())
        }
    }
}

impl From<BlobError> for AppError {
    fn from(error: BlobError) -> Self {
        let base = match &error {
            BlobError::TooLarge { limit } => Self::new(
                Class::TooLarge,
                Reason::TooLarge,
                format!("the content exceeds the limit of {limit} bytes"),
            ),
            BlobError::SourceFailed => {
                Self::bad("the content broke off before its end; nothing was stored, send it again")
            }
            BlobError::Full => Self::new(
                Class::NoRoom,
                Reason::StorageUnavailable,
                "the content store has no room left; nothing was stored, tell the operator",
            ),
            BlobError::NotFound | BlobError::Changed => Self::new(
                Class::Internal,
                Reason::IntegrityFailed,
                "the stored content is not what was recorded; nothing was sent, tell support the correlation id",
            ),
            BlobError::Unavailable(_) => Self::new(
                Class::Unavailable,
                Reason::StorageUnavailable,
                "the content store can't be reached; try again shortly",
            ),
        };
        base.because(error.to_string())
    }
}

impl WorkError for AppError {
    fn store_error(&self) -> Option<&StoreError> {
        self.store.as_ref()
    }
}

/// What a reason means to the person who meets it, and what to do next. Says nothing of patients or others.
pub fn explain(reason: Reason) -> &'static str {
    match reason {
        Reason::Permitted => "it is permitted",
        Reason::Unauthenticated => "sign in first, or send an access token",
        Reason::TokenInvalid => "the access token is not valid here; get a fresh one",
        Reason::InsufficientScope => "the access token's scope does not reach this; ask for a wider one",
        Reason::PolicyDenied => {
            "the rules of this organization do not allow you this now; ask the sender or your administrator"
        }
        Reason::NotGrantee => "this was not released to you; ask the sender to release it to you",
        Reason::NotBound => "this is not released to anyone yet; claim or accept the task first",
        Reason::TaskNotActionable => "the task is not at a step that releases documents; accept it first",
        Reason::TaskCompleted => "the task is completed, so its documents are no longer released",
        Reason::TaskCancelled => "the task was cancelled, so its documents are no longer released",
        Reason::TaskRejected => "the task was rejected, so its documents are no longer released",
        Reason::TaskFailed => "the task failed, so its documents are no longer released",
        Reason::TaskOnHold => "the task is on hold; try again when it has been resumed",
        Reason::TaskEnteredInError => "the task was entered in error, so its documents are not released",
        Reason::TaskDeleted => "the task was deleted, so its documents are no longer released",
        Reason::Reassigned => {
            "the task was given to somebody else, so its documents are no longer released to you"
        }
        Reason::InputRemoved => "the document was taken out of the task",
        Reason::DocumentSuperseded => "a newer version has taken this document's place; fetch that one",
        Reason::DocumentWithheld => "the document is withheld; ask the sender",
        Reason::DocumentEnteredInError => "the document was entered in error and is not released",
        Reason::DocumentDeleted => "the document was deleted",
        Reason::LegalHold => "the document is under legal hold and can't be changed or deleted",
        Reason::PatientMerged => "the patient's record was merged; ask the sender to release it anew",
        Reason::ConsentWithdrawn => "consent was withdrawn, so the document is not released",
        Reason::ActorRevoked => "your access was withdrawn; ask your administrator",
        Reason::Emergency => "access was withdrawn in an emergency; ask the sender, or the operator",
        Reason::Revoked => "the grant was revoked; ask the sender for a fresh one",
        Reason::Reissued => "a fresh grant has taken the place of this one; use the newest link",
        Reason::Expired => "the time to fetch it has passed; ask for a fresh link",
        Reason::Exhausted => "it was fetched as often as allowed; ask the sender for a fresh link",
        Reason::Replayed => {
            "every byte of it was already sent, and it can't be sent again; ask for a fresh link"
        }
        Reason::LinkUnknown => "there is no such link, or its code is not the right one",
        Reason::ConstraintIp => "it may not be fetched from your address",
        Reason::ConstraintSession => {
            "it can be fetched only in the session in which it was opened; open the link again"
        }
        Reason::ConstraintClient => "it may not be fetched by this application",
        Reason::ConstraintKey => "it may be fetched only with the key that it is bound to",
        Reason::ConstraintContentType => "its content type may not be fetched",
        Reason::IntegrityFailed => "the stored content failed verification; tell support the correlation id",
        Reason::IllegalTransition => "the task can't go to that status from where it is",
        Reason::VersionConflict => "it was changed meanwhile; read it again and retry",
        Reason::Invalid => "the input is not valid",
        Reason::NotFound => "there is no such resource, or it is not for you to see",
        Reason::TooLarge => "it is too large",
        Reason::NotSupported => "this is not supported",
        Reason::RateLimited => "too many requests; wait and try again",
        Reason::StorageUnavailable => "storage can't be reached; try again shortly",
        Reason::AuditUnavailable => "the audit can't be written, so nothing is done; try again shortly",
        Reason::BreakGlass => "access was given by breaking the glass",
    }
}
