//! The audit row: one fact about who did what to which document by what right, in the transaction it reports.
//! Holds ids and codes, and what was searched for; never content, secrets, tokens or names of patients.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::access::{Action, Principal, Role};
use crate::ids::{CorrelationId, DocumentId, TaskId, TenantId};
use crate::reason::Reason;
use crate::time::Timestamp;

macro_rules! events {
    ($($(#[$doc:meta])* $variant:ident = $code:literal),+ $(,)?) => {
        /// What happened (CodeSystem `audit-event`).
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(rename_all = "kebab-case")]
        pub enum Event { $($(#[$doc])* $variant),+ }

        impl Event {
            /// Every event.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The code.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $code),+ }
            }

            /// The event that a code names.
            pub fn parse(code: &str) -> Option<Self> {
                match code { $($code => Some(Self::$variant),)+ _ => None }
            }
        }
    };
}

events! {
    /// A request was refused before it reached a resource.
    RequestDenied = "request-denied",
    /// A Task was created.
    TaskCreated = "task-created",
    /// A Task, a version of it or its history was read.
    TaskRead = "task-read",
    /// Tasks were searched; one for each patient whose Tasks were shown.
    TaskSearched = "task-searched",
    /// A Task was changed.
    TaskUpdated = "task-updated",
    /// A Task was deleted.
    TaskDeleted = "task-deleted",
    /// A document was created.
    DocumentCreated = "document-created",
    /// A document's metadata, a version of it or its history was read.
    DocumentRead = "document-read",
    /// Documents were searched; one for each patient whose documents were shown.
    DocumentSearched = "document-searched",
    /// A document's metadata or content changed.
    DocumentUpdated = "document-updated",
    /// A document was replaced, or its content was.
    DocumentSuperseded = "document-superseded",
    /// A legal hold was placed.
    DocumentHeld = "document-held",
    /// A legal hold was lifted.
    DocumentReleased = "document-released",
    /// It was looked at which holds stand, or how a document is kept.
    RecordsRead = "records-read",
    /// A document's availability or retention was set or carried out.
    Retention = "retention",
    /// A document was deleted.
    DocumentDeleted = "document-deleted",
    /// Content was taken in.
    BinaryCreated = "binary-created",
    /// Content was deleted.
    BinaryDeleted = "binary-deleted",
    /// Content is gone from the blob store.
    ContentDisposed = "content-disposed",
    /// Content was looked at for malware.
    ContentScanned = "content-scanned",
    /// The blob store and the records differ, or do no more.
    ContentDrifted = "content-drifted",
    /// A grant was issued.
    GrantIssued = "grant-issued",
    /// A grant was asked for and refused.
    GrantDenied = "grant-denied",
    /// A grant was bound to its grantee.
    GrantBound = "grant-bound",
    /// A grant was suspended.
    GrantSuspended = "grant-suspended",
    /// A suspended grant was bound again.
    GrantResumed = "grant-resumed",
    /// A grant was revoked.
    GrantRevoked = "grant-revoked",
    /// A grant expired.
    GrantExpired = "grant-expired",
    /// A handoff link was opened. Takes nothing.
    LinkOpened = "link-opened",
    /// A redemption was allowed; bytes may leave from here on.
    RedemptionAuthorized = "redemption-authorized",
    /// A redemption was refused.
    RedemptionDenied = "redemption-denied",
    /// An interrupted redemption goes on.
    RedemptionResumed = "redemption-resumed",
    /// Every byte was sent.
    RedemptionCompleted = "redemption-completed",
    /// The client went away before the last byte.
    RedemptionInterrupted = "redemption-interrupted",
    /// A redemption was cut because its grant, Task or document moved on.
    RedemptionCutOff = "redemption-cut-off",
    /// The stored bytes were not those recorded; none of the wrong ones was sent.
    RedemptionIntegrityFailed = "redemption-integrity-failed",
    /// Emergency access was taken, or asked for and refused.
    BreakGlass = "break-glass",
    /// The audit was read.
    AuditRead = "audit-read",
    /// A Subscription was created.
    SubscriptionCreated = "subscription-created",
    /// A Subscription was changed, by its subscriber or by the server.
    SubscriptionUpdated = "subscription-updated",
    /// A Subscription was bound to a connection of its subscriber.
    SubscriptionBound = "subscription-bound",
    /// A Subscription was deleted.
    SubscriptionDeleted = "subscription-deleted",
    /// A subscriber took a notification.
    SubscriptionDelivered = "subscription-delivered",
    /// A notification could not be delivered, or the subscriber has no right to it any more.
    SubscriptionFailed = "subscription-failed",
    /// A person signed in, signed out, or failed to.
    Login = "login",
    /// An operator acted.
    AdminAction = "admin-action",
    /// Rules were loaded or replaced.
    PolicyChanged = "policy-changed",
    /// A source told of something, and it was taken in.
    NoticeReceived = "notice-received",
    /// What a source told took effect, was old, or was laid aside.
    NoticeApplied = "notice-applied",
}

impl Event {
    /// The action that the policy decides before this happens, where one caller asks for it.
    pub const fn decided_as(self) -> Option<Action> {
        Some(match self {
            Self::TaskCreated => Action::TaskCreate,
            Self::TaskRead => Action::TaskRead,
            Self::TaskSearched => Action::TaskSearch,
            Self::TaskUpdated => Action::TaskUpdate,
            Self::TaskDeleted => Action::TaskDelete,
            Self::DocumentCreated => Action::DocumentCreate,
            Self::DocumentRead => Action::DocumentRead,
            Self::DocumentSearched => Action::DocumentSearch,
            Self::DocumentUpdated => Action::DocumentUpdate,
            Self::DocumentDeleted => Action::DocumentDelete,
            Self::RecordsRead => Action::RecordsRead,
            Self::DocumentHeld | Self::DocumentReleased | Self::Retention => Action::RecordsManage,
            Self::BinaryCreated => Action::BinaryCreate,
            Self::BinaryDeleted => Action::BinaryDelete,
            Self::GrantDenied | Self::GrantIssued | Self::GrantBound => Action::GrantIssue,
            Self::GrantRevoked => Action::GrantRevoke,
            Self::LinkOpened
            | Self::RedemptionAuthorized
            | Self::RedemptionResumed
            | Self::RedemptionDenied => Action::BinaryFetch,
            Self::BreakGlass => Action::BreakGlass,
            Self::AuditRead => Action::AuditRead,
            Self::SubscriptionCreated => Action::SubscriptionCreate,
            Self::SubscriptionUpdated => Action::SubscriptionUpdate,
            Self::SubscriptionDeleted => Action::SubscriptionDelete,
            _ => return None,
        })
    }
}

/// How it went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// Done.
    Success,
    /// Refused.
    Denied,
    /// Tried, and failed.
    Failed,
}

impl Outcome {
    /// The word in store and search.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Denied => "denied",
            Self::Failed => "failed",
        }
    }

    /// The outcome that a word names.
    pub fn parse(word: &str) -> Option<Self> {
        [Self::Success, Self::Denied, Self::Failed]
            .into_iter()
            .find(|o| o.as_str() == word)
    }
}

/// Who acted, and from where.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Agent {
    /// FHIR reference of the actor; `None` for the server itself and for strangers.
    pub actor: Option<String>,
    /// `sub` of the token.
    pub subject: Option<String>,
    /// `iss` of the token.
    pub issuer: Option<String>,
    /// Canonical roles.
    pub roles: Vec<Role>,
    /// Roles of the token that map to none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unmapped_roles: Vec<String>,
    /// OAuth client.
    pub client: Option<String>,
    /// The acting party of a delegation.
    pub delegate: Option<String>,
    /// What it says its request is for: a code of v3-PurposeOfUse.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub purpose: Option<String>,
    /// `jti` of the token, or a hash where it has none.
    pub token_id: Option<String>,
    /// Source address.
    pub address: Option<String>,
    /// `User-Agent`, cut to 200 characters.
    pub user_agent: Option<String>,
}

/// The circumstances of one request, or of one run of a job: what every row of it has in common.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Context {
    /// The tenant acted in.
    pub tenant: TenantId,
    /// From the caller's first word to the last byte.
    pub correlation: CorrelationId,
    /// When.
    pub now: Timestamp,
    /// Who and from where.
    pub agent: Arc<Agent>,
}

impl Context {
    /// The same circumstances with the caller known.
    #[must_use]
    pub fn with_principal(self, principal: &Principal) -> Self {
        let agent = Agent {
            actor: Some(principal.actor.to_string()),
            subject: Some(principal.subject.clone()),
            issuer: Some(principal.issuer.clone()),
            roles: principal.roles.iter().copied().collect(),
            unmapped_roles: principal.attributes.unmapped_roles.clone(),
            client: Some(principal.client.clone()),
            delegate: principal.delegate.clone(),
            purpose: principal.attributes.purpose_of_use.clone(),
            token_id: Some(principal.token_id.clone()),
            address: self.agent.address.clone(),
            user_agent: self.agent.user_agent.clone(),
        };
        Self {
            agent: Arc::new(agent),
            ..self
        }
    }

    /// A row of this request about `event`.
    pub fn row(&self, event: Event, outcome: Outcome, reason: Reason) -> AuditRow {
        AuditRow {
            recorded: self.now,
            event,
            outcome,
            reason,
            correlation: self.correlation.clone(),
            agent: Agent::clone(&self.agent),
            about: About::default(),
            detail: BTreeMap::new(),
        }
    }
}

/// What it was about. Versions make the record exact.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct About {
    /// `Task/{id}`.
    pub task: Option<String>,
    /// Version of the Task.
    pub task_version: Option<i64>,
    /// `DocumentReference/{id}`.
    pub document: Option<String>,
    /// Version of the document.
    pub document_version: Option<i64>,
    /// `Binary/{id}`.
    pub binary: Option<String>,
    /// The grant's id.
    pub grant: Option<String>,
    /// The redemption's id.
    pub redemption: Option<String>,
    /// The patient's reference, for the patient's own accounting.
    pub patient: Option<String>,
}

impl About {
    /// A Task of which no more is known.
    pub fn of_task(id: &TaskId) -> Self {
        Self {
            task: Some(format!("Task/{id}")),
            ..Self::default()
        }
    }

    /// A document of which no more is known.
    pub fn of_document(id: &DocumentId) -> Self {
        Self {
            document: Some(format!("DocumentReference/{id}")),
            ..Self::default()
        }
    }
}

/// The patient that a reference names, as rows and whoever asks for them call it: `Patient/{id}`, or the whole URL where another
/// server has it; never a version of it. `None` for what is no patient.
pub fn patient_named(reference: &str) -> Option<String> {
    let unversioned = reference
        .split_once("/_history/")
        .map_or(reference, |(before, _)| before);
    let mut parts = unversioned.rsplit('/');
    let (id, kind) = (parts.next()?, parts.next()?);
    let whole = parts.next().is_none() || unversioned.contains("://");
    (kind == "Patient" && !id.is_empty() && whole).then(|| unversioned.to_owned())
}

/// One row of the audit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditRow {
    /// When it was recorded.
    pub recorded: Timestamp,
    /// What happened.
    pub event: Event,
    /// How it went.
    pub outcome: Outcome,
    /// Why.
    pub reason: Reason,
    /// Ties the rows of one request together.
    pub correlation: CorrelationId,
    /// Who and from where.
    pub agent: Agent,
    /// What it was about.
    pub about: About,
    /// Counts, digests and codes worth keeping: `bytes`, `sha256`, `from`, `to`, `rule`.
    pub detail: BTreeMap<String, String>,
}

impl AuditRow {
    /// The same row with what it was about.
    #[must_use]
    pub fn about(mut self, about: About) -> Self {
        self.about = about;
        self
    }

    /// The same row with one more detail.
    #[must_use]
    pub fn detail(mut self, name: &str, value: impl Into<String>) -> Self {
        self.detail.insert(name.to_owned(), value.into());
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_patient_is_called_the_same_whatever_version_is_named() {
        for (reference, named) in [
            ("Patient/bob", Some("Patient/bob")),
            ("Patient/bob/_history/3", Some("Patient/bob")),
            (
                "https://other.example/fhir/Patient/rem",
                Some("https://other.example/fhir/Patient/rem"),
            ),
            (
                "https://other.example/fhir/Patient/rem/_history/1",
                Some("https://other.example/fhir/Patient/rem"),
            ),
            ("Group/1", None),
            ("Patient/", None),
            ("Patient", None),
            ("a/Patient/1", None),
            ("#p", None),
            ("urn:uuid:1", None),
        ] {
            assert_eq!(patient_named(reference).as_deref(), named, "{reference}");
        }
    }
}
