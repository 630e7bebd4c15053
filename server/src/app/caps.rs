//! What an access token's SMART scopes leave of the caller's rights. They cap and never add: asked before the policy,
//! for the kind of resource, and again of each resource where a scope is about one patient or has constraints.
//!
//! A scope is about what is asked for. What a caller stands to it by (the Task that releases a document, say) is a
//! matter of rights, which scopes do not touch.

use std::sync::Arc;

use handoff_domain::Timestamp;
use handoff_domain::audit::{About, Event, Outcome};
use handoff_domain::ids::DocumentId;
use handoff_domain::ports::{Filter, Kind, Read, Subject};
use handoff_domain::reason::Reason;
use handoff_domain::scopes::{Interaction, SmartScope};
use handoff_fhir_model::resource::parse_stored;
use handoff_fhir_model::search_index;

use super::error::Challenge;
use super::{App, AppError, Caller, Class, Scope, Stored};

/// The types that scopes are asked about here.
pub const CAPPED: [&str; 5] = [
    "AuditEvent",
    "Binary",
    "DocumentReference",
    "Subscription",
    "Task",
];

/// The most scopes with filters that count, for one type and interaction.
const MOST_ALTERNATIVES: usize = 64;

/// One scope, as it applies to one type.
#[derive(Debug, Clone)]
pub struct Cap {
    /// The type, one of [`CAPPED`].
    pub kind: &'static str,
    /// The scope.
    pub scope: SmartScope,
    /// What a resource must be for the scope to reach it; a Binary, by the document that links it.
    pub within: Vec<Filter>,
}

/// All scopes of a token.
#[derive(Debug, Clone)]
pub enum Caps {
    /// Not a token's: the server's own work.
    Unbounded,
    /// What any of these reaches.
    Union(Arc<[Cap]>),
}

/// How far the scopes reach, for one type and interaction.
#[derive(Debug, Clone)]
pub enum Reach {
    /// To every resource.
    All,
    /// To those for which all filters of any of these hold.
    Within(Vec<Vec<Filter>>),
}

impl Caps {
    /// How far they reach; `None` where no scope is about it.
    pub fn reach(&self, kind: &'static str, interaction: Interaction) -> Option<Reach> {
        let Self::Union(caps) = self else {
            return Some(Reach::All);
        };
        let mut alternatives = Vec::new();
        for cap in caps.iter() {
            if cap.kind != kind || !cap.scope.covers(kind, interaction) {
                continue;
            }
            if cap.within.is_empty() {
                return Some(Reach::All);
            }
            alternatives.push(cap.within.clone());
        }
        // Each is a part of one statement.
        alternatives.truncate(MOST_ALTERNATIVES);
        (!alternatives.is_empty()).then_some(Reach::Within(alternatives))
    }
}

impl Reach {
    /// As filters of a search, all of which must hold.
    pub fn into_filters(self) -> Vec<Filter> {
        match self {
            Self::All => Vec::new(),
            Self::Within(mut alternatives) => match alternatives.pop() {
                Some(only) if alternatives.is_empty() => only,
                last => {
                    alternatives.extend(last);
                    vec![Filter::AnyOf(alternatives)]
                }
            },
        }
    }

    /// Whether it goes as far as the stored or coming version `body`, which is empty for a deletion.
    pub fn covers(&self, scope: &Scope, id: &str, last_updated: Timestamp, body: &[u8]) -> bool {
        let Self::Within(alternatives) = self else {
            return true;
        };
        let Ok(resource) = parse_stored(body) else {
            return false;
        };
        let subject = Subject {
            id,
            last_updated,
            index: &search_index(&resource, &scope.fhir_base()),
        };
        alternatives
            .iter()
            .any(|all| all.iter().all(|filter| filter.holds(subject)))
    }

    /// Whether it goes as far as the present version of a resource; not where there is none.
    pub fn covers_present<R: Read + ?Sized>(
        &self,
        read: &mut R,
        scope: &Scope,
        kind: Kind,
        id: &str,
    ) -> Result<bool, AppError> {
        if matches!(self, Self::All) {
            return Ok(true);
        }
        let present = read.current(scope.tenant(), kind, id)?;
        Ok(present.is_some_and(|version| self.covers(scope, id, version.last_updated, &version.body)))
    }

    /// Whether it goes as far as the content of a document; content without one is nobody's.
    pub fn covers_content_of<R: Read + ?Sized>(
        &self,
        read: &mut R,
        scope: &Scope,
        document: Option<&DocumentId>,
    ) -> Result<bool, AppError> {
        match (self, document) {
            (Self::All, _) => Ok(true),
            (Self::Within(_), None) => Ok(false),
            (Self::Within(_), Some(id)) => self.covers_present(read, scope, Kind::Document, id.as_str()),
        }
    }
}

impl Scope {
    /// How far the token's scopes reach, or a refusal that says which scope is wanting.
    pub fn demand(&self, kind: &'static str, interaction: Interaction) -> Result<Reach, AppError> {
        self.caller.caps.reach(kind, interaction).ok_or_else(|| {
            let row = self
                .row(Event::RequestDenied, Outcome::Denied, Reason::InsufficientScope)
                .detail("action", format!("{kind}.{}", interaction.letter()));
            self.beyond_scope(kind, interaction).recorded(row)
        })
    }

    /// How far the scopes reach documents that are given away or told of by way of a Task. A token without any scope for
    /// documents goes by the caller's rights, unless what it may do with Tasks (`tasks`) is confined itself.
    pub fn readable(&self, tasks: &Reach) -> Reach {
        let documents = self.caller.caps.reach("DocumentReference", Interaction::Read);
        documents.unwrap_or_else(|| match tasks {
            Reach::All => Reach::All,
            Reach::Within(_) => Reach::Within(Vec::new()),
        })
    }

    /// A version must not be written that the scopes which write it do not reach. `about` says whose refusal is recorded;
    /// of a resource that will not exist nothing is named.
    pub fn keep_within(&self, reach: &Reach, coming: &Stored, about: About) -> Result<(), AppError> {
        if reach.covers(self, &coming.id, coming.last_updated, &coming.body) {
            return Ok(());
        }
        let event = match (coming.kind, coming.created) {
            ("Task", true) => Event::TaskCreated,
            ("Task", false) => Event::TaskUpdated,
            (_, true) => Event::DocumentCreated,
            (_, false) => Event::DocumentUpdated,
        };
        let (interaction, about) = if coming.created {
            (Interaction::Create, About::default())
        } else {
            (Interaction::Update, about)
        };
        let row = self.row(event, Outcome::Denied, Reason::InsufficientScope);
        Err(self
            .beyond_scope(coming.kind, interaction)
            .recorded(row.about(about)))
    }

    /// The refusal of something that the scopes do not reach; it is not recorded yet.
    pub fn beyond_scope(&self, kind: &'static str, interaction: Interaction) -> AppError {
        if self.caller.caps.reach(kind, interaction).is_some() {
            // One like those that it has would not help.
            return AppError::new(
                Class::Forbidden,
                Reason::InsufficientScope,
                "it is beyond the patient or the constraints of the access token's scopes",
            );
        }
        let level = match kind {
            // A scope about one patient never reaches the audit.
            "AuditEvent" if self.caller.principal.actor.is_person() => "user",
            "AuditEvent" => "system",
            _ => self.caller.scope_level(),
        };
        let wanted = format!("{level}/{kind}.{}", interaction.letter());
        AppError {
            challenge: Some(Challenge::Scope(wanted.clone())),
            ..AppError::new(
                Class::Forbidden,
                Reason::InsufficientScope,
                format!("the access token's scopes do not reach this; ask for one with `{wanted}`"),
            )
        }
    }
}

impl Caller {
    /// The level at which this caller would ask for scopes.
    fn scope_level(&self) -> &'static str {
        if self.principal.patient.is_some() {
            "patient"
        } else if self.principal.actor.is_person() {
            "user"
        } else {
            "system"
        }
    }
}

impl App {
    /// As [`Scope::demand`], for what changes nothing: the refusal is recorded before it is told.
    pub async fn demand(
        &self,
        scope: &Scope,
        kind: &'static str,
        interaction: Interaction,
    ) -> Result<Reach, AppError> {
        match scope.demand(kind, interaction) {
            Ok(reach) => Ok(reach),
            Err(refusal) => Err(self.record_denial(scope.tenant(), refusal).await),
        }
    }
}
