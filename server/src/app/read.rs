//! Reading and searching Tasks and documents: a read answers the stored bytes, and what a caller may not see does
//! not exist, in counts neither.

use handoff_domain::access::{Action, Relation, Role};
use handoff_domain::audit::{Event, Outcome};
use handoff_domain::ids::{DocumentId, TaskId};
use handoff_domain::ports::{Filter, Found, Kind, Read, Search, Sort, Version, Visibility};
use handoff_domain::reason::Reason;
use handoff_domain::scopes::Interaction;
use handoff_domain::time::Timestamp;

use super::caps::Reach;
use super::tasks::sees;
use super::{App, AppError, Caller, Class, Scope, Stored};

/// How many versions a page of a history holds at most.
pub const HISTORY_PAGE: u32 = 100;

/// A search as the edge understood it, without the question of who looks.
#[derive(Debug, Clone)]
pub struct Query {
    /// Task or DocumentReference.
    pub kind: Kind,
    /// All must hold.
    pub filters: Vec<Filter>,
    /// The order.
    pub sort: Sort,
    /// The most to return.
    pub limit: u32,
    /// Where the last page ended.
    pub after: Option<(Timestamp, String)>,
    /// Whether to count all.
    pub total: bool,
}

impl App {
    /// The current version of a Task or document.
    pub async fn read_current(&self, caller: &Caller, kind: Kind, id: String) -> Result<Stored, AppError> {
        let scope = self.scope(caller);
        let reach = self.demand(&scope, kind.as_str(), Interaction::Read).await?;
        self.read(move |read| {
            let version = match kind {
                // The most frequent read: in one look.
                Kind::Task => visible_task(read, &scope, &id)?,
                Kind::Document | Kind::Binary => {
                    check_visible(read, &scope, kind, &id)?;
                    read.current(scope.tenant(), kind, &id)?
                }
            };
            let version = version
                .filter(|v| reach.covers(&scope, &id, v.last_updated, &v.body))
                .ok_or_else(AppError::not_found)?;
            answer(kind, id, version)
        })
        .await
    }

    /// One version of a Task or document.
    pub async fn read_version(
        &self,
        caller: &Caller,
        kind: Kind,
        id: String,
        version: i64,
    ) -> Result<Stored, AppError> {
        let scope = self.scope(caller);
        let reach = self.demand(&scope, kind.as_str(), Interaction::Read).await?;
        self.read(move |read| {
            check_visible(read, &scope, kind, &id)?;
            let version = read
                .version(scope.tenant(), kind, &id, version)?
                .filter(|v| reach.covers(&scope, &id, v.last_updated, &v.body))
                .ok_or_else(AppError::not_found)?;
            answer(kind, id, version)
        })
        .await
    }

    /// Versions of one Task or document, newest first.
    pub async fn read_history(
        &self,
        caller: &Caller,
        kind: Kind,
        id: String,
        since: Option<Timestamp>,
        before: Option<i64>,
        limit: u32,
    ) -> Result<Vec<Version>, AppError> {
        let scope = self.scope(caller);
        let reach = self.demand(&scope, kind.as_str(), Interaction::Read).await?;
        self.read(move |read| {
            check_visible(read, &scope, kind, &id)?;
            let limit = limit.min(HISTORY_PAGE);
            let (mut before, mut reached) = (before, Vec::new());
            // Versions beyond the scopes are left out, and others take their place on the page.
            let at_once = match &reach {
                Reach::All => limit,
                Reach::Within(_) => HISTORY_PAGE,
            };
            loop {
                let page = read.history(scope.tenant(), kind, &id, since, before, at_once)?;
                let full = page.len() >= at_once as usize;
                before = page.last().map(|v| v.version);
                reached.extend(
                    page.into_iter()
                        .filter(|v| reach.covers(&scope, &id, v.last_updated, &v.body)),
                );
                if !full || reached.len() >= limit as usize {
                    break;
                }
            }
            if reached.is_empty() && !reach.covers_present(read, &scope, kind, &id)? {
                return Err(AppError::not_found());
            }
            reached.truncate(limit as usize);
            Ok(reached)
        })
        .await
    }

    /// Tasks or documents that match, and that the caller may see.
    pub async fn search(&self, caller: &Caller, query: Query) -> Result<Found, AppError> {
        let scope = self.scope(caller);
        let action = match query.kind {
            Kind::Task => Action::TaskSearch,
            Kind::Document | Kind::Binary => Action::DocumentSearch,
        };
        let reach = self
            .demand(&scope, query.kind.as_str(), Interaction::Search)
            .await?;
        if scope.allows(action, Relation::default()).is_none() {
            let row = scope
                .row(Event::RequestDenied, Outcome::Denied, Reason::PolicyDenied)
                .detail("action", action.as_str());
            let refusal = AppError::forbidden(Reason::PolicyDenied).recorded(row);
            return Err(self.record_denial(caller.tenant(), refusal).await);
        }
        let mut filters = query.filters;
        filters.extend(reach.into_filters());
        let search = Search {
            kind: query.kind,
            filters,
            visibility: visibility(&scope, query.kind),
            sort: query.sort,
            limit: query.limit,
            after: query.after,
            total: query.total,
        };
        self.read(move |read| Ok(read.search(scope.tenant(), &search)?))
            .await
    }
}

/// What part of the tenant the caller's roles open.
fn visibility(scope: &Scope, kind: Kind) -> Visibility {
    let tenant_wide: &[Role] = match kind {
        Kind::Task => &[
            Role::Subscriber,
            Role::Operator,
            Role::RecordsManager,
            Role::Auditor,
        ],
        Kind::Document | Kind::Binary => &[Role::Operator, Role::RecordsManager, Role::Auditor],
    };
    if scope.caller.principal.has_any(tenant_wide) {
        Visibility::Tenant
    } else {
        Visibility::Actor {
            actor: scope.caller.principal.actor.clone(),
            teams: scope.caller.principal.teams.iter().cloned().collect(),
        }
    }
}

/// The newest version of a Task that the caller may see.
fn visible_task(read: &mut dyn Read, scope: &Scope, id: &str) -> Result<Option<Version>, AppError> {
    let id = TaskId::parse(id).map_err(|_| AppError::not_found())?;
    let found = read.current_task(scope.tenant(), &id)?;
    Ok(found
        .filter(|(task, _)| sees(scope, task))
        .map(|(_, version)| version))
}

/// The same 404 whether a resource is unknown or not for this caller.
pub fn check_visible(read: &mut dyn Read, scope: &Scope, kind: Kind, id: &str) -> Result<(), AppError> {
    let visible = match kind {
        Kind::Task => {
            let id = TaskId::parse(id).map_err(|_| AppError::not_found())?;
            read.task(scope.tenant(), &id)?.is_some_and(|t| sees(scope, &t))
        }
        Kind::Document => {
            let id = DocumentId::parse(id).map_err(|_| AppError::not_found())?;
            match read.document(scope.tenant(), &id)? {
                Some(document) => {
                    let mut relation = Relation {
                        creator: document.created_by == scope.caller.principal.actor,
                        ..Relation::default()
                    };
                    if scope.allows(Action::DocumentRead, relation).is_none() {
                        for task in read.tasks_of_document(scope.tenant(), &id)? {
                            if let Some(task) = read.task(scope.tenant(), &task)? {
                                relation.through_task |= !task.deleted && sees(scope, &task);
                            }
                        }
                    }
                    scope.allows(Action::DocumentRead, relation).is_some()
                }
                None => false,
            }
        }
        Kind::Binary => false,
    };
    if visible {
        Ok(())
    } else {
        Err(AppError::not_found())
    }
}

fn answer(kind: Kind, id: String, version: Version) -> Result<Stored, AppError> {
    if version.body.is_empty() {
        let reason = match kind {
            Kind::Task => Reason::TaskDeleted,
            Kind::Document | Kind::Binary => Reason::DocumentDeleted,
        };
        return Err(AppError::new(Class::Gone, reason, "it was deleted"));
    }
    Ok(Stored {
        kind: kind.as_str(),
        id,
        version: version.version,
        last_updated: version.last_updated,
        body: version.body,
        created: false,
    })
}
