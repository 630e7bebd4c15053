//! Reading where a version of a Task or document came from: for whoever may read the Task or document itself, and for who may read the
//! audit, which it is told by.

use handoff_domain::access::{Action, Object, Relation};
use handoff_domain::audit::Event;
use handoff_domain::ports::{AuditSearch, Kind, Read, RecordedRow};
use handoff_domain::scopes::Interaction;

use super::caps::Reach;
use super::{App, AppError, Caller, Scope};

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
                let scope = self.scope(caller);
                let reach = self
                    .demand(&scope, target.kind.as_str(), Interaction::Read)
                    .await?;
                self.read_current(caller, target.kind, target.id.clone()).await?;
                self.read(move |read| within(read, &scope, &reach, &target, search))
                    .await
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
        let scope = self.scope(caller);
        // Which rows tell of Tasks is nothing that a token without a scope for Tasks may find out.
        let reach = self.demand(&scope, target.kind.as_str(), Interaction::Read).await;
        let reach = reach.map_err(|_| AppError::not_found())?;
        self.read_current(caller, target.kind, target.id.clone()).await?;
        let (told, row) = self
            .read(move |read| Ok((is_within(read, &scope, &reach, &target, &row)?, row)))
            .await?;
        told.then_some(row).ok_or_else(AppError::not_found)
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

/// Rows that match and tell of versions that the scopes reach: others are left out, as in a history, and later ones take their place.
fn within(
    read: &mut dyn Read,
    scope: &Scope,
    reach: &Reach,
    target: &Target,
    mut search: AuditSearch,
) -> Result<Vec<RecordedRow>, AppError> {
    let limit = search.limit as usize;
    let mut told = Vec::new();
    loop {
        let rows = read.audit(scope.tenant(), &search)?;
        let is_full = rows.len() >= limit;
        search.after = rows.last().map(|row| row.sequence);
        for row in rows {
            if is_within(read, scope, reach, target, &row)? {
                told.push(row);
            }
        }
        if !is_full || told.len() >= limit || limit == 0 {
            told.truncate(limit);
            return Ok(told);
        }
    }
}

fn is_within(
    read: &mut dyn Read,
    scope: &Scope,
    reach: &Reach,
    target: &Target,
    row: &RecordedRow,
) -> Result<bool, AppError> {
    if matches!(reach, Reach::All) {
        return Ok(true);
    }
    let about = &row.row.about;
    let version = match target.kind {
        Kind::Task => about.task_version,
        _ => about.document_version,
    };
    let Some(version) = version else {
        return Ok(false);
    };
    let version = read.version(scope.tenant(), target.kind, &target.id, version)?;
    Ok(version.is_some_and(|version| reach.covers(scope, &target.id, version.last_updated, &version.body)))
}
