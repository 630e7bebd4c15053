//! A question written down: as a case that a person can read, or as something to explain. It is turned into the
//! domain's own facts and asked as the server asks.

use std::collections::BTreeSet;
use std::net::IpAddr;

use handoff_domain::access::{
    AccessRequest, Action, Attributes, Decision, Object, Policy as _, Principal, Relation, Role,
};
use handoff_domain::document::{Document, DocumentFacts, DocumentStatus};
use handoff_domain::ids::{ActorRef, DocumentId, TaskId, TenantId};
use handoff_domain::retention::Availability;
use handoff_domain::task::{Code, PlacerElements, Priority, Task, TaskFacts, TaskStatus};
use handoff_domain::time::{Span, Timestamp};
use serde::Deserialize;
use thiserror::Error;

use crate::facts::RELATIONS;
use crate::rules::RuleSet;

/// Noon of a Wednesday, for a question that names no time.
const AN_INSTANT: &str = "2026-01-07T12:00:00Z";

/// Facts of one question. What is not written is absent, or as it mostly is.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Situation {
    /// What is asked for: `binary-fetch`.
    pub action: String,
    /// How the caller stands to it: `creator`, `requester`, `owner`, `formerOwner`, `recipient`, `team`, `grantee`,
    /// `throughTask`.
    #[serde(default)]
    pub relation: Vec<String>,
    /// Who asks.
    #[serde(default)]
    pub caller: Asker,
    /// The Task, or the one by way of which something is asked for.
    #[serde(default)]
    pub task: AboutTask,
    /// The document.
    #[serde(default)]
    pub document: AboutDocument,
    /// The tenant that it belongs to.
    #[serde(default = "default_tenant")]
    pub tenant: String,
    /// Where the request comes from.
    #[serde(default)]
    pub address: Option<IpAddr>,
    /// When, as `2026-01-07T12:00:00Z`.
    #[serde(default = "an_instant")]
    pub at: String,
    /// Whether the Task's workflow approves the caller as an automated step.
    #[serde(default)]
    pub approved_step: bool,
    /// Whether the server made the Task because its owner broke the glass.
    #[serde(default)]
    pub break_glass: bool,
    /// Whether a source told that the Task's encounter is over.
    #[serde(default)]
    pub encounter_over: bool,
}

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Asker {
    /// A FHIR reference: `Practitioner/7`, `Organization/clinic`.
    pub actor: String,
    /// Canonical roles.
    pub roles: Vec<String>,
    /// Team codes.
    pub teams: Vec<String>,
    /// The tenant that the token is for.
    pub tenant: String,
    /// Department, as the token says it.
    pub department: Option<String>,
    /// Location, as the token says it.
    pub location: Option<String>,
    /// The OAuth client.
    pub client: String,
    /// `sub` of the token; for a system the client itself, unless said otherwise.
    pub subject: Option<String>,
    /// Whether that client is among the issuer's trusted ones.
    pub trusted_client: bool,
    /// Who acts for the caller.
    pub delegate: Option<String>,
    /// Purpose of use.
    pub purpose_of_use: Option<String>,
    /// Seconds since the person signed in.
    pub session_age: Option<i64>,
}

impl Default for Asker {
    fn default() -> Self {
        Self {
            actor: "Practitioner/somebody".to_owned(),
            roles: Vec::new(),
            teams: Vec::new(),
            tenant: default_tenant(),
            department: None,
            location: None,
            client: "an-app".to_owned(),
            subject: None,
            trusted_client: false,
            delegate: None,
            purpose_of_use: None,
            session_age: None,
        }
    }
}

/// The Task that a question is about.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AboutTask {
    /// Codes of `Task.code`.
    pub codes: Vec<String>,
    /// `Task.status`.
    pub status: String,
    /// `Task.priority`.
    pub priority: String,
    /// Codes of `Task.performerType`.
    pub teams: Vec<String>,
}

impl Default for AboutTask {
    fn default() -> Self {
        Self {
            codes: Vec::new(),
            status: "in-progress".to_owned(),
            priority: "routine".to_owned(),
            teams: Vec::new(),
        }
    }
}

/// The document that a question is about.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AboutDocument {
    /// The canonical class; absent where its type is not mapped.
    pub class: Option<String>,
    /// `DocumentReference.status`; `current` unless said otherwise.
    pub status: Option<String>,
    /// Security labels.
    pub labels: Vec<String>,
}

fn default_tenant() -> String {
    TenantId::default_tenant().as_str().to_owned()
}

fn an_instant() -> String {
    AN_INSTANT.to_owned()
}

/// Something in a situation that does not exist.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("`{value}` is no {what}{}", known(.choices))]
pub struct CaseProblem {
    value: String,
    what: &'static str,
    choices: Vec<&'static str>,
}

fn known(choices: &[&'static str]) -> String {
    if choices.is_empty() {
        String::new()
    } else {
        format!("; known are {}", choices.join(", "))
    }
}

fn no(value: &str, what: &'static str, choices: impl IntoIterator<Item = &'static str>) -> CaseProblem {
    CaseProblem {
        value: value.to_owned(),
        what,
        choices: choices.into_iter().collect(),
    }
}

/// A situation in the domain's own facts.
#[derive(Debug, Clone)]
pub struct Facts {
    action: Action,
    relation: Relation,
    principal: Principal,
    tenant: TenantId,
    address: Option<IpAddr>,
    now: Timestamp,
    task: Task,
    document: Document,
    approved_step: bool,
    break_glass: bool,
    encounter_over: bool,
}

impl Facts {
    /// The question, as the server would ask it.
    pub const fn request(&self) -> AccessRequest<'_> {
        AccessRequest {
            principal: &self.principal,
            action: self.action,
            relation: self.relation,
            object: self.object(),
            tenant: &self.tenant,
            address: self.address,
            now: self.now,
        }
    }

    const fn object(&self) -> Object<'_> {
        match self.action {
            Action::TaskRead | Action::TaskUpdate | Action::TaskDelete => Object::Task(Some(&self.task)),
            Action::DocumentRead
            | Action::DocumentUpdate
            | Action::DocumentDelete
            | Action::BinaryDelete
            | Action::BreakGlass => Object::Document(Some(&self.document)),
            Action::BinaryFetch => Object::Content {
                document: Some(&self.document),
                task: &self.task,
                approved_step: self.approved_step,
                break_glass: self.break_glass,
                encounter_over: self.encounter_over,
            },
            Action::GrantIssue | Action::GrantRead | Action::GrantRevoke => Object::Grant(&self.task),
            Action::AuditRead => Object::Audit,
            Action::SubscriptionRead | Action::SubscriptionUpdate | Action::SubscriptionDelete => {
                Object::Subscription
            }
            Action::TaskSearch
            | Action::TaskCreate
            | Action::DocumentSearch
            | Action::DocumentCreate
            | Action::BinaryCreate
            | Action::SubscriptionCreate
            | Action::SubscriptionSearch
            | Action::RecordsRead
            | Action::RecordsManage
            | Action::AdminAct => Object::Tenant,
        }
    }
}

impl Default for Situation {
    fn default() -> Self {
        Self {
            action: Action::TaskRead.as_str().to_owned(),
            relation: Vec::new(),
            caller: Asker::default(),
            task: AboutTask::default(),
            document: AboutDocument::default(),
            tenant: default_tenant(),
            address: None,
            at: an_instant(),
            approved_step: false,
            break_glass: false,
            encounter_over: false,
        }
    }
}

impl Situation {
    /// A question about `action` by nobody in particular.
    pub fn about(action: Action) -> Self {
        Self {
            action: action.as_str().to_owned(),
            ..Self::default()
        }
    }

    /// Its facts, or what in it does not exist.
    pub fn facts(&self) -> Result<Facts, CaseProblem> {
        let action = Action::parse(&self.action)
            .ok_or_else(|| no(&self.action, "action", Action::ALL.map(Action::as_str)))?;
        let now = Timestamp::parse_instant(&self.at).ok_or_else(|| no(&self.at, "instant", []))?;
        let mut relation = Relation::default();
        for name in &self.relation {
            let (_, fact) = RELATIONS
                .iter()
                .find(|(known, _)| known == name)
                .ok_or_else(|| no(name, "relation", RELATIONS.map(|(known, _)| known)))?;
            *fact(&mut relation) = true;
        }
        Ok(Facts {
            action,
            relation,
            principal: self.caller.principal(now)?,
            tenant: tenant(&self.tenant)?,
            address: self.address,
            now,
            task: self.task.task(now)?,
            document: self.document.document(now)?,
            approved_step: self.approved_step,
            break_glass: self.break_glass,
            encounter_over: self.encounter_over,
        })
    }

    /// What the rules say to it.
    pub fn decide(&self, rules: &RuleSet) -> Result<Decision, CaseProblem> {
        Ok(rules.decide(&self.facts()?.request()))
    }
}

fn tenant(text: &str) -> Result<TenantId, CaseProblem> {
    TenantId::parse(text).map_err(|_| no(text, "tenant", []))
}

fn codes(codes: &[String]) -> Vec<Code> {
    codes
        .iter()
        .map(|code| Code {
            system: None,
            code: code.clone(),
        })
        .collect()
}

impl Asker {
    fn principal(&self, now: Timestamp) -> Result<Principal, CaseProblem> {
        let actor =
            ActorRef::parse(self.actor.as_str()).map_err(|_| no(&self.actor, "reference to an actor", []))?;
        let mut roles = BTreeSet::new();
        for name in &self.roles {
            let role = Role::parse(name).ok_or_else(|| no(name, "role", Role::ALL.map(Role::as_str)))?;
            roles.insert(role);
        }
        let ago = |seconds: i64| now.plus(Span::seconds(seconds.saturating_neg()));
        Ok(Principal {
            tenant: tenant(&self.tenant)?,
            issuer: "https://issuer.example".to_owned(),
            subject: match &self.subject {
                Some(subject) => subject.clone(),
                None if actor.is_person() => self.actor.clone(),
                None => self.client.clone(),
            },
            client: self.client.clone(),
            actor,
            delegate: self.delegate.clone(),
            roles,
            teams: self.teams.iter().cloned().collect(),
            scopes: BTreeSet::new(),
            patient: None,
            key: None,
            token_id: "a-token".to_owned(),
            attributes: Attributes {
                department: self.department.clone(),
                location: self.location.clone(),
                purpose_of_use: self.purpose_of_use.clone(),
                authenticated_at: self.session_age.map(ago),
                trusted_client: self.trusted_client,
                unmapped_roles: Vec::new(),
            },
        })
    }
}

impl AboutTask {
    fn task(&self, now: Timestamp) -> Result<Task, CaseProblem> {
        let status = TaskStatus::parse(&self.status).ok_or_else(|| {
            no(
                &self.status,
                "Task status",
                TaskStatus::ALL.map(TaskStatus::as_str),
            )
        })?;
        let priority = Priority::parse(&self.priority).ok_or_else(|| no(&self.priority, "priority", []))?;
        Ok(Task {
            id: TaskId::parse("a-task").map_err(|_| no("a-task", "id", []))?,
            version: 1,
            last_updated: now,
            created_by: ActorRef::parse("Organization/placer").map_err(|_| no("placer", "actor", []))?,
            held_from: None,
            held_by_parent: false,
            documents: Vec::new(),
            former_owners: Vec::new(),
            reissues: 0,
            accessed: false,
            deleted: false,
            facts: TaskFacts {
                status,
                intent: "order".to_owned(),
                priority,
                code: codes(&self.codes),
                focus: None,
                inputs: Vec::new(),
                subject: None,
                encounter: None,
                requester: None,
                owner: None,
                recipients: Vec::new(),
                due: None,
                performer_types: codes(&self.teams),
                part_of: Vec::new(),
                placer_elements: PlacerElements::default(),
            },
        })
    }
}

impl AboutDocument {
    fn document(&self, now: Timestamp) -> Result<Document, CaseProblem> {
        let status = match &self.status {
            None => DocumentStatus::Current,
            Some(text) => DocumentStatus::parse(text).ok_or_else(|| no(text, "document status", []))?,
        };
        Ok(Document {
            id: DocumentId::parse("a-document").map_err(|_| no("a-document", "id", []))?,
            version: 1,
            content_version: 1,
            last_updated: now,
            class: self.class.clone(),
            created_by: ActorRef::parse("Organization/placer").map_err(|_| no("placer", "actor", []))?,
            attachments: Vec::new(),
            superseded: false,
            deleted: false,
            availability: Availability::default(),
            retain_until: None,
            past_classes: Vec::new(),
            disposed: false,
            facts: DocumentFacts {
                status,
                doc_status: None,
                subject: None,
                kind: Vec::new(),
                category: Vec::new(),
                security: codes(&self.labels),
                replaces: Vec::new(),
                encounters: Vec::new(),
                attachments: Vec::new(),
            },
        })
    }
}
