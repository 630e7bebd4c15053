//! Who asks, what they want, and the permit that only a decision can mint.
//! Roles and relations are facts handed in; the rules themselves stand behind [`Policy`].

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::document::Document;
use crate::ids::{ActorRef, TenantId};
use crate::reason::Reason;
use crate::task::Task;
use crate::time::Timestamp;

/// A canonical role (CodeSystem `handoff-role`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Posts documents and Tasks, and can never fetch.
    Placer,
    /// Works on Tasks and fetches their documents.
    Fulfiller,
    /// Works on Tasks of a team.
    TeamMember,
    /// An app or system that fetches for the person it acts for.
    DocumentViewer,
    /// Follows Task changes.
    Subscriber,
    /// Runs the server: sees, revokes, never fetches.
    Operator,
    /// Keeps documents: availability, retention, hold.
    RecordsManager,
    /// Reads the audit.
    Auditor,
    /// May break the glass.
    BreakGlass,
}

impl Role {
    /// Every role.
    pub const ALL: [Self; 9] = [
        Self::Placer,
        Self::Fulfiller,
        Self::TeamMember,
        Self::DocumentViewer,
        Self::Subscriber,
        Self::Operator,
        Self::RecordsManager,
        Self::Auditor,
        Self::BreakGlass,
    ];

    /// The code.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Placer => "placer",
            Self::Fulfiller => "fulfiller",
            Self::TeamMember => "team-member",
            Self::DocumentViewer => "document-viewer",
            Self::Subscriber => "subscriber",
            Self::Operator => "operator",
            Self::RecordsManager => "records-manager",
            Self::Auditor => "auditor",
            Self::BreakGlass => "break-glass",
        }
    }

    /// The role that a code names.
    pub fn parse(code: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|r| r.as_str() == code)
    }
}

/// A caller whose token was validated.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Principal {
    /// The tenant that the token's issuer is bound to.
    pub tenant: TenantId,
    /// `iss`.
    pub issuer: String,
    /// `sub`.
    pub subject: String,
    /// The OAuth client (`client_id` or `azp`).
    pub client: String,
    /// Whom the caller acts as: the FHIR user, for a delegate the person it acts for.
    pub actor: ActorRef,
    /// The acting party of a delegation (`act.sub`), where there is one.
    pub delegate: Option<String>,
    /// Canonical roles; external ones are mapped before they get here.
    pub roles: BTreeSet<Role>,
    /// Team codes.
    pub teams: BTreeSet<String>,
    /// `scope`, split at spaces.
    pub scopes: BTreeSet<String>,
    /// The patient of a SMART launch context, where the token names one.
    pub patient: Option<String>,
    /// The thumbprint of the key that the token is bound to (`cnf.jkt`).
    pub key: Option<String>,
    /// `jti`, or a hash of the token where it has none: never the token itself.
    pub token_id: String,
    /// What else the token says that rules may ask about.
    pub attributes: Attributes,
}

/// What a token says of its bearer's circumstances. Absent is unknown, which no rule may take for leave.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attributes {
    /// Where in the organisation the person works.
    pub department: Option<String>,
    /// Where the person works.
    pub location: Option<String>,
    /// What for (HL7 PurposeOfUse): `TREAT`, `ETREAT`.
    pub purpose_of_use: Option<String>,
    /// When the person signed in (`auth_time`).
    pub authenticated_at: Option<Timestamp>,
    /// Whether the issuer's configuration lists the client as trusted.
    pub trusted_client: bool,
    /// Roles of the token that map to none of ours, and so give nothing. For the audit.
    pub unmapped_roles: Vec<String>,
}

impl Principal {
    /// Whether the caller has `role`.
    pub fn has(&self, role: Role) -> bool {
        self.roles.contains(&role)
    }

    /// Whether the caller has any of `roles`.
    pub fn has_any(&self, roles: &[Role]) -> bool {
        roles.iter().any(|r| self.roles.contains(r))
    }
}

/// What a caller wants to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[expect(missing_docs, reason = "each is what it says")]
pub enum Action {
    TaskRead,
    TaskSearch,
    TaskCreate,
    TaskUpdate,
    TaskDelete,
    DocumentRead,
    DocumentSearch,
    DocumentCreate,
    DocumentUpdate,
    DocumentDelete,
    BinaryCreate,
    BinaryDelete,
    /// Metadata of a Binary without its content is never shown; this is the fetch of the content.
    BinaryFetch,
    /// Having a Task made that releases a document to the caller at once, with a reason.
    BreakGlass,
    GrantIssue,
    GrantRead,
    GrantRevoke,
    AuditRead,
    /// Legal holds, availability and retention, and what is known of them.
    RecordsRead,
    RecordsManage,
    SubscriptionCreate,
    SubscriptionRead,
    SubscriptionSearch,
    SubscriptionUpdate,
    SubscriptionDelete,
    AdminAct,
}

impl Action {
    /// Every action.
    pub const ALL: [Self; 26] = [
        Self::TaskRead,
        Self::TaskSearch,
        Self::TaskCreate,
        Self::TaskUpdate,
        Self::TaskDelete,
        Self::DocumentRead,
        Self::DocumentSearch,
        Self::DocumentCreate,
        Self::DocumentUpdate,
        Self::DocumentDelete,
        Self::BinaryCreate,
        Self::BinaryDelete,
        Self::BinaryFetch,
        Self::BreakGlass,
        Self::GrantIssue,
        Self::GrantRead,
        Self::GrantRevoke,
        Self::AuditRead,
        Self::RecordsRead,
        Self::RecordsManage,
        Self::SubscriptionCreate,
        Self::SubscriptionRead,
        Self::SubscriptionSearch,
        Self::SubscriptionUpdate,
        Self::SubscriptionDelete,
        Self::AdminAct,
    ];

    /// The action that a name means.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|action| action.as_str() == name)
    }

    /// The action's name in audit rows and policies.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::TaskRead => "task-read",
            Self::TaskSearch => "task-search",
            Self::TaskCreate => "task-create",
            Self::TaskUpdate => "task-update",
            Self::TaskDelete => "task-delete",
            Self::DocumentRead => "document-read",
            Self::DocumentSearch => "document-search",
            Self::DocumentCreate => "document-create",
            Self::DocumentUpdate => "document-update",
            Self::DocumentDelete => "document-delete",
            Self::BinaryCreate => "binary-create",
            Self::BinaryDelete => "binary-delete",
            Self::BinaryFetch => "binary-fetch",
            Self::BreakGlass => "break-glass",
            Self::GrantIssue => "grant-issue",
            Self::GrantRead => "grant-read",
            Self::GrantRevoke => "grant-revoke",
            Self::AuditRead => "audit-read",
            Self::RecordsRead => "records-read",
            Self::RecordsManage => "records-manage",
            Self::SubscriptionCreate => "subscription-create",
            Self::SubscriptionRead => "subscription-read",
            Self::SubscriptionSearch => "subscription-search",
            Self::SubscriptionUpdate => "subscription-update",
            Self::SubscriptionDelete => "subscription-delete",
            Self::AdminAct => "admin-act",
        }
    }
}

/// How the caller stands to the thing acted on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "independent facts, any of which may hold"
)]
pub struct Relation {
    /// Created it (a Task, a document), or uploaded it (a Binary).
    pub creator: bool,
    /// Is named as its requester.
    pub requester: bool,
    /// Owns the Task now.
    pub owner: bool,
    /// Owned the Task before.
    pub former_owner: bool,
    /// Is a recipient of the Task's restriction.
    pub recipient: bool,
    /// Belongs to a team that the Task is for.
    pub team: bool,
    /// Holds, or held, the grant in question.
    pub grantee: bool,
    /// Reaches the document through a Task that it may see.
    pub through_task: bool,
}

impl Relation {
    /// Whether the caller has anything to do with it.
    pub const fn any(self) -> bool {
        self.creator
            || self.requester
            || self.owner
            || self.former_owner
            || self.recipient
            || self.team
            || self.grantee
            || self.through_task
    }
}

/// What is acted on, as far as rules may ask about it.
#[derive(Debug, Clone, Copy)]
pub enum Object<'a> {
    /// Nothing in particular: the tenant.
    Tenant,
    /// A Task; `None` where it is about all of them.
    Task(Option<&'a Task>),
    /// A document; `None` for content that none governs, and where it is about all of them.
    Document(Option<&'a Document>),
    /// Content that is fetched by way of a Task.
    Content {
        /// The document that governs it.
        document: Option<&'a Document>,
        /// The Task.
        task: &'a Task,
        /// Whether the Task's workflow approves the caller as an automated step.
        approved_step: bool,
        /// Whether the server made the Task because its owner broke the glass.
        break_glass: bool,
        /// Whether a source told that the Task's encounter is over.
        encounter_over: bool,
    },
    /// A grant under a Task.
    Grant(&'a Task),
    /// The audit.
    Audit,
    /// A Subscription.
    Subscription,
}

/// One question to the policy.
#[derive(Debug, Clone, Copy)]
pub struct AccessRequest<'a> {
    /// Who asks.
    pub principal: &'a Principal,
    /// What for.
    pub action: Action,
    /// How they stand to it; the default for actions on nothing in particular.
    pub relation: Relation,
    /// What is acted on.
    pub object: Object<'a>,
    /// The tenant that it belongs to.
    pub tenant: &'a TenantId,
    /// Where the request comes from, where it is known.
    pub address: Option<IpAddr>,
    /// When.
    pub now: Timestamp,
}

/// The id of a rule, as it stands in audit rows.
pub type RuleId = Arc<str>;

/// The answer, with the ids of the rules that gave it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// Whether it is allowed.
    pub allowed: bool,
    /// The rules that decided, in order; empty when none matched, which denies.
    pub rules: Vec<RuleId>,
    /// Whether those rules could not be evaluated, which denies.
    pub failed: bool,
}

/// The rules of access. Deny is the default: no rule, no access.
pub trait Policy: Send + Sync {
    /// Decides one request. A rule that cannot be evaluated denies.
    fn decide(&self, request: &AccessRequest<'_>) -> Decision;

    /// Whether rules about `action` ask more than how the caller stands to the object. Where they do, what a search
    /// finds by relation has to be held to the rules one by one.
    fn looks_at_object(&self, action: Action) -> bool;

    /// The digest of the rule set in force, for the audit.
    fn version(&self) -> &str;
}

/// Leave to do one thing, minted only by [`authorize`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Permit {
    action: Action,
    rules: Vec<RuleId>,
}

impl Permit {
    /// What it permits.
    pub const fn action(&self) -> Action {
        self.action
    }

    /// The rules that gave it.
    pub fn rules(&self) -> &[RuleId] {
        &self.rules
    }
}

/// A refusal by policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Denied {
    /// What was refused.
    pub action: Action,
    /// Why.
    pub reason: Reason,
    /// The rules that forbade it, or that could not be evaluated; none where nothing allowed it.
    pub rules: Vec<RuleId>,
    /// Whether rules could not be evaluated.
    pub failed: bool,
}

impl Denied {
    /// Whether rules forbid it, and not only none allows it.
    pub fn is_forbidden(&self) -> bool {
        self.failed || !self.rules.is_empty()
    }
}

/// Asks the policy, and mints a permit where it allows.
pub fn authorize(policy: &dyn Policy, request: &AccessRequest<'_>) -> Result<Permit, Denied> {
    let decision = policy.decide(request);
    let action = request.action;
    if decision.allowed && !decision.failed {
        Ok(Permit {
            action,
            rules: decision.rules,
        })
    } else {
        Err(Denied {
            action,
            reason: Reason::PolicyDenied,
            rules: decision.rules,
            failed: decision.failed,
        })
    }
}
