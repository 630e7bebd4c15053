//! The use cases, one a file: each is one transaction that holds the change, its effects on grants, its audit
//! rows and its outbox rows. Knows no HTTP and no database; reaches both only through the domain's ports.

pub mod admission;
pub mod apply;
pub mod attachments;
pub mod audit_read;
pub mod binaries;
pub mod bindings;
mod blocks;
pub mod break_glass;
pub mod bundle;
pub mod caps;
pub mod content;
pub mod dead_letters;
pub mod delivered;
pub mod deliveries;
pub mod disclosures;
pub mod disposal;
pub mod documents;
pub mod drift;
pub mod ear;
pub mod effects;
pub mod error;
pub mod expiry;
pub mod fan_out;
pub mod feed_watch;
pub mod finish;
pub mod forwarding;
pub mod fresh_link;
pub mod grants;
pub mod holds;
pub mod inbox;
pub mod json_edit;
pub mod ledger;
pub mod links;
pub mod listening;
pub mod outcome;
pub mod provenance;
pub mod quarantine;
pub mod read;
pub mod reads;
pub mod redeem;
mod redemption_scene;
pub mod retention;
pub mod scan;
pub mod server_tasks;
pub mod sessions;
pub mod sources;
pub mod standing;
pub mod streams;
pub mod subscribe;
pub mod subscriber;
pub mod subscription_events;
pub mod subscription_form;
mod subscription_secrets;
pub mod subscriptions;
pub mod task_family;
pub mod tasks;
mod told;
mod unit;
pub mod watch;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use handoff_domain::access::{
    AccessRequest, Action, Denied, Object, Permit, Policy, Principal, Relation, RuleId, authorize,
};
use handoff_domain::audit::{About, AuditRow, Context, Event, Outcome};
use handoff_domain::document::Document;
use handoff_domain::grant::Grant;
use handoff_domain::ids::{DocumentId, GrantId, Handle, TaskId, TenantId};
use handoff_domain::outbox::{Topic, TopicEvent};
use handoff_domain::ports::{BlobStore, Clock, Entropy, Outbound, SourceServer, Store, Tx, Vault};
use handoff_domain::reason::Reason;
use handoff_domain::retention::Schedules;
use handoff_domain::scan::ScanRule;
use handoff_domain::standing::Standing;
use handoff_domain::task::Task;
use handoff_domain::time::Timestamp;
use handoff_domain::workflow::Workflows;

use tokio::sync::Notify;

use crate::telemetry::metrics;

use ear::Ear;
pub use error::{AppError, Class};
use sessions::SessionTimes;
use standing::KnownBlocks;
use streams::Streams;
use subscriber::Standings;
use subscriptions::SubscriptionSettings;
pub use unit::Cuts;

/// What is set once and the same for every request.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The public base URL without a trailing slash: `https://handoff.example.org`.
    pub public_base: String,
    /// Names this process among replicas, in leases and redemptions. No two ever have the same.
    pub process: String,
    /// The most bytes of a raw Binary.
    pub max_binary: u64,
    /// The most bytes of inline `data`, decoded; also of a Binary served in its wrapped form.
    pub max_inline: u64,
    /// The most entries of a Bundle.
    pub max_entries: usize,
    /// The most bytes of a resource without its inline `data`.
    pub max_resource: usize,
    /// How long browser sessions last.
    pub sessions: SessionTimes,
    /// How subscriptions are served.
    pub subscriptions: SubscriptionSettings,
    /// What releases ask of malware scans; nothing where `None`.
    pub scan: Option<ScanRule>,
}

impl Settings {
    /// The public base URL of a tenant, without a trailing slash.
    pub fn tenant_base(&self, tenant: &TenantId) -> String {
        if *tenant == TenantId::default_tenant() {
            self.public_base.clone()
        } else {
            format!("{}/t/{tenant}", self.public_base)
        }
    }

    /// The FHIR base of a tenant, with a trailing slash.
    pub fn fhir_base(&self, tenant: &TenantId) -> String {
        format!("{}/fhir/", self.tenant_base(tenant))
    }
}

/// One set of rules.
pub struct Rules {
    /// Who may do what.
    pub policy: Arc<dyn Policy>,
    /// What each kind of Task allows.
    pub workflows: Workflows,
    /// How long documents of each class are kept and released.
    pub schedules: Schedules,
}

/// The rules in force. They may be replaced at any time; a request keeps those that it began with.
pub struct InForce(ArcSwap<Rules>);

impl InForce {
    /// These, to begin with.
    pub fn new(rules: Rules) -> Self {
        Self(ArcSwap::from_pointee(rules))
    }

    /// Those of this moment.
    pub fn now(&self) -> Arc<Rules> {
        self.0.load_full()
    }

    /// Others from here on.
    pub fn replace(&self, rules: Rules) {
        self.0.store(Arc::new(rules));
    }
}

/// Everything that a use case works with. Cloned freely; all parts are shared.
#[derive(Clone)]
pub struct App {
    /// The database.
    pub store: Arc<dyn Store>,
    /// The content store.
    pub blobs: Arc<dyn BlobStore>,
    /// The way to servers that send us notifications.
    pub sources: Arc<dyn SourceServer>,
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// The source of ids and secrets.
    pub entropy: Arc<dyn Entropy>,
    /// The rules in force.
    pub rules: Arc<InForce>,
    /// Streams of this process, so that they can be cut.
    pub streams: Arc<Streams>,
    /// What operators have blocked.
    pub standing: Arc<KnownBlocks>,
    /// What subscribers may still do.
    pub standings: Standings,
    /// The way to addresses that customers gave.
    pub outbound: Arc<dyn Outbound>,
    /// Keeps what is secret in Subscriptions.
    pub vault: Arc<dyn Vault>,
    /// Who in this process waits for events of which subscriptions.
    pub ear: Arc<Ear>,
    /// What sources told that this process is applying.
    pub in_hand: Arc<apply::InHand>,
    /// Where what was read is written down.
    pub reads: reads::ReadLog,
    /// Rung when content has come, for whoever scans it.
    pub came: Arc<Notify>,
    /// What is set.
    pub settings: Arc<Settings>,
    /// Where work goes on that must outlive the request which began it.
    pub background: tokio::runtime::Handle,
}

/// A caller whose token was validated, with the circumstances of the request.
#[derive(Debug, Clone)]
pub struct Caller {
    /// Who.
    pub principal: Arc<Principal>,
    /// When, from where, under which correlation id.
    pub context: Context,
    /// The hash of the browser session, where there is one.
    pub session: Option<String>,
    /// What the token's scopes leave of the caller's rights.
    pub caps: caps::Caps,
}

impl Caller {
    /// The tenant acted in.
    pub const fn tenant(&self) -> &TenantId {
        &self.context.tenant
    }

    /// The source address, where it is known.
    pub fn address(&self) -> Option<std::net::IpAddr> {
        self.context.agent.address.as_deref().and_then(|a| a.parse().ok())
    }

    /// How the caller stands to a Task.
    pub fn relation_to(&self, task: &Task) -> Relation {
        let me = &self.principal.actor;
        Relation {
            creator: task.created_by == *me,
            requester: task.facts.requester_actor().as_ref() == Some(me),
            owner: task.facts.owner_actor().as_ref() == Some(me),
            former_owner: task.former_owners.contains(me),
            recipient: task.facts.recipient_actors().contains(me),
            team: task
                .facts
                .teams()
                .iter()
                .any(|t| self.principal.teams.contains(t)),
            grantee: false,
            through_task: false,
        }
    }
}

/// The caller and the parts of the app that work inside a transaction needs; moves into the unit of work.
#[derive(Clone)]
pub struct Scope {
    /// Who asks.
    pub caller: Caller,
    /// The rules that it is held to.
    pub rules: Arc<Rules>,
    /// What operators had blocked when it began.
    pub standing: Arc<Standing>,
    /// The source of ids.
    pub entropy: Arc<dyn Entropy>,
    /// What is set.
    pub settings: Arc<Settings>,
    clock: Arc<dyn Clock>,
    /// What [`Self::now`] answers, in microseconds since 1970.
    instant: Arc<AtomicI64>,
    /// The rules that decided last on each action, for the audit.
    decided: Arc<Mutex<BTreeMap<Action, Vec<RuleId>>>>,
}

impl Scope {
    /// The Tasks under lock. Waiting for it may take seconds, in which rights expire and others decide: what follows is
    /// of the instant at which they are held.
    pub fn lock_tasks(&self, tx: &mut dyn Tx, ids: &[TaskId]) -> Result<Vec<Task>, AppError> {
        let tasks = tx.lock_tasks(self.tenant(), ids)?;
        self.go_on();
        Ok(tasks)
    }

    /// The documents under lock, as [`Self::lock_tasks`].
    pub fn lock_documents(
        &self,
        tx: &mut dyn Tx,
        ids: &[DocumentId],
        exclusive: bool,
    ) -> Result<Vec<Document>, AppError> {
        let documents = tx.lock_documents(self.tenant(), ids, exclusive)?;
        self.go_on();
        Ok(documents)
    }

    fn go_on(&self) {
        self.instant.store(self.clock.now().0, Ordering::Relaxed);
    }

    /// The tenant acted in.
    pub const fn tenant(&self) -> &TenantId {
        self.caller.tenant()
    }

    /// The FHIR base of the tenant with a trailing slash, as it stands before a local reference.
    pub fn fhir_base(&self) -> String {
        self.settings.fhir_base(self.tenant())
    }

    /// The instant at which it holds what it last locked, or else began.
    pub fn now(&self) -> Timestamp {
        Timestamp(self.instant.load(Ordering::Relaxed))
    }

    /// Whether the policy allows `action` to a caller who stands like this to its object.
    pub fn allows(&self, action: Action, relation: Relation, object: Object<'_>) -> Result<Permit, Denied> {
        let request = AccessRequest {
            principal: &self.caller.principal,
            action,
            relation,
            object,
            tenant: self.tenant(),
            address: self.caller.address(),
            now: self.now(),
        };
        let answer = authorize(self.rules.policy.as_ref(), &request);
        let rules = match &answer {
            Ok(permit) => permit.rules(),
            Err(denied) => &denied.rules,
        };
        if answer.as_ref().is_err_and(|denied| denied.failed) {
            metrics::rules_failed();
            tracing::warn!(
                action = action.as_str(),
                rules = rules.join(" "),
                "rules could not be evaluated, which denies"
            );
        }
        let mut decided = self.decided.lock().unwrap_or_else(PoisonError::into_inner);
        decided.insert(action, rules.to_vec());
        answer
    }

    /// The same for rights that come of a part of how the caller stands to the object: rules may still forbid it for
    /// all of that.
    pub fn allows_as(
        &self,
        action: Action,
        part: Relation,
        whole: Relation,
        object: Object<'_>,
    ) -> Result<Permit, Denied> {
        match self.allows(action, whole, object) {
            Err(denied) if denied.is_forbidden() => Err(denied),
            _ => self.allows(action, part, object),
        }
    }

    /// What follows is about something else: decisions so far say nothing of it.
    pub fn begin_another(&self) {
        self.decided
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
    }

    /// A permit for `action`, or a refusal that says so and is recorded as `event`.
    pub fn permit(
        &self,
        action: Action,
        relation: Relation,
        object: Object<'_>,
        event: Event,
    ) -> Result<Permit, AppError> {
        self.allows(action, relation, object)
            .map_err(|_| self.denied(action, event))
    }

    /// The refusal of an action that the policy denied, recorded as `event`.
    pub fn denied(&self, action: Action, event: Event) -> AppError {
        let row = self
            .row(event, Outcome::Denied, Reason::PolicyDenied)
            .detail("action", action.as_str());
        AppError::forbidden(Reason::PolicyDenied).recorded(self.with_rules(row, action))
    }

    /// A refusal that says nothing for the audit yet, with the row that does: `event` was asked for, `about` this.
    pub fn refused(&self, error: AppError, event: Event, about: About) -> AppError {
        let refused = error.is_refusal() || error.class == Class::PreconditionFailed;
        if !refused || error.denial.is_some() {
            return error;
        }
        let row = self.row(event, Outcome::Denied, error.reason).about(about);
        error.recorded(row)
    }

    /// The row of what was answered as done because there was nothing to do that the caller may know of.
    pub fn in_vain(&self, event: Event, about: About) -> AuditRow {
        self.row(event, Outcome::Denied, Reason::NotFound).about(about)
    }

    /// An audit row of this request, with the rules that it is held to and those that decided.
    pub fn row(&self, event: Event, outcome: Outcome, reason: Reason) -> AuditRow {
        let row = AuditRow {
            recorded: self.now(),
            ..self.caller.context.row(event, outcome, reason)
        };
        let row = row.detail("policy", self.rules.policy.version());
        match event.decided_as() {
            Some(action) => self.with_rules(row, action),
            None => row,
        }
    }

    /// The row with the rules that decided on `action`.
    fn with_rules(&self, row: AuditRow, action: Action) -> AuditRow {
        let decided = self.decided.lock().unwrap_or_else(PoisonError::into_inner);
        match decided.get(&action) {
            Some(rules) if rules.is_empty() => row.detail("rules", "none"),
            Some(rules) => row.detail("rules", rules.join(" ")),
            None => row,
        }
    }

    /// Something that this request does, for subscribers.
    pub fn event(&self, topic: Topic, focus: String, version: i64, change: &str) -> TopicEvent {
        TopicEvent {
            topic,
            focus,
            version,
            change: change.to_owned(),
            grant: None,
            correlation: self.caller.context.correlation.to_string(),
            // The transaction that writes it knows.
            trace: None,
            at: self.now(),
        }
    }

    /// An id for something that this request makes.
    pub fn ordered_id(&self) -> String {
        self.entropy.ordered_id(self.now())
    }

    /// Ids for a new grant.
    pub fn fresh_grant(&self) -> (GrantId, Handle) {
        let id = self.ordered_id();
        // In links: it says nothing, not even when it was made.
        let handle = self.entropy.fresh_id();
        // Fresh ids are hexadecimal, so both always parse; the fallback keeps the signature free of panics.
        let grant = GrantId::parse(id).unwrap_or_else(|_| unreachable_id());
        let handle = Handle::parse(handle).unwrap_or_else(|_| unreachable_handle());
        (grant, handle)
    }
}

#[expect(clippy::expect_used, reason = "a literal that is an id")]
fn unreachable_id() -> GrantId {
    GrantId::parse("0").expect("`0` is an id")
}

#[expect(clippy::expect_used, reason = "a literal that is an id")]
fn unreachable_handle() -> Handle {
    Handle::parse("0").expect("`0` is an id")
}

impl App {
    /// The scope of one request.
    pub fn scope(&self, caller: &Caller) -> Scope {
        Scope {
            caller: caller.clone(),
            rules: self.rules.now(),
            standing: self.standing.of(caller.tenant()),
            entropy: Arc::clone(&self.entropy),
            settings: Arc::clone(&self.settings),
            clock: Arc::clone(&self.clock),
            // Not the instant at which the request's head came in.
            instant: Arc::new(AtomicI64::new(self.clock.now().0)),
            decided: Arc::default(),
        }
    }
}

/// A stored version, as it is answered.
#[derive(Debug, Clone)]
pub struct Stored {
    /// FHIR resource type.
    pub kind: &'static str,
    /// Logical id.
    pub id: String,
    /// `meta.versionId`.
    pub version: i64,
    /// `meta.lastUpdated`.
    pub last_updated: Timestamp,
    /// The resource as JSON.
    pub body: Vec<u8>,
    /// Whether it came to be by this request.
    pub created: bool,
}

/// A grant as callers see it: everything but the secret.
#[derive(Debug, Clone)]
pub struct GrantView {
    /// The grant.
    pub grant: Grant,
    /// The document's version at the time of asking.
    pub document_version: i64,
}
