//! Reading where a version of a Task or document came from: for whoever may read the Task or document itself, and for who may read the
//! audit, which it is told by.

use handoff_domain::access::{Action, Object, Relation};
use handoff_domain::audit::Event;
use handoff_domain::ports::{AuditSearch, Kind, RecordedRow};
use handoff_domain::scopes::Interaction;

use super::{App, AppError, Caller};

/// The events that make a version, or end one.
pub const EVENTS: [Event; 7] = [
    Event::TaskCreated,
    Event::TaskUpdated,
    Event::TaskDeleted,
    Event::DocumentCreated,
    Event::DocumentUpdated,
    Event::DocumentSuperseded,
    Event::DocumentDeleted,
];

/// A Task or document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Which of them.
    pub kind: Kind,
    /// Its id.
    pub id: String,
}

impl Target {
    /// The Task or document that a relative reference names.
    pub fn parse(reference: &str) -> Option<Self> {
        let (kind, id) = reference.split_once('/')?;
        let kind = [Kind::Task, Kind::Document]
            .into_iter()
            .find(|known| known.as_str() == kind)?;
        Some(Self {
            kind,
            id: id.to_owned(),
        })
    }
}

impl App {
    /// Rows that tell of versions that were made. That they were read is in the audit before they are shown: as a read of the target, or
    /// of the audit by who may read all of it.
    pub async fn search_provenance(
        &self,
        caller: &Caller,
        search: AuditSearch,
        target: Option<Target>,
        interaction: Interaction,
    ) -> Result<Vec<RecordedRow>, AppError> {
        match target {
            Some(target) if !self.may_read_audit(caller, interaction) => {
                self.read_current(caller, target.kind, target.id).await?;
                let tenant = caller.tenant().clone();
                self.read(move |read| Ok(read.audit(&tenant, &search)?)).await
            }
            _ => self.search_audit(caller, search, interaction).await,
        }
    }

    /// One such row by its id. What it is about has to be known before it can be said whether it may be seen; where it may not, it is
    /// not there.
    pub async fn read_provenance(
        &self,
        caller: &Caller,
        search: AuditSearch,
        target_of: impl FnOnce(&RecordedRow) -> Option<Target>,
    ) -> Result<RecordedRow, AppError> {
        if self.may_read_audit(caller, Interaction::Read) {
            let found = self.search_audit(caller, search, Interaction::Read).await?;
            return found.into_iter().next().ok_or_else(AppError::not_found);
        }
        let tenant = caller.tenant().clone();
        let found = self.read(move |read| Ok(read.audit(&tenant, &search)?)).await?;
        let row = found.into_iter().next().ok_or_else(AppError::not_found)?;
        let target = target_of(&row).ok_or_else(AppError::not_found)?;
        self.read_current(caller, target.kind, target.id).await?;
        Ok(row)
    }

    /// Whether the rules and the token let the caller read the audit. Nothing is asked for yet, so nothing is recorded.
    fn may_read_audit(&self, caller: &Caller, interaction: Interaction) -> bool {
        let scope = self.scope(caller);
        let allowed = scope.demand("AuditEvent", interaction).and_then(|_| {
            let audit = Object::Audit;
            scope.permit(Action::AuditRead, Relation::default(), audit, Event::AuditRead)
        });
        allowed.is_ok()
    }
}
