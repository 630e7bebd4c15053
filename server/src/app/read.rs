//! Reading and searching Tasks and documents: a read answers the stored bytes, and what a caller may not see does
//! not exist, in counts neither.

use handoff_domain::access::{Action, Object, Relation};
use handoff_domain::audit::Event;
use handoff_domain::ids::{DocumentId, TaskId};
use handoff_domain::ports::{Filter, Found, Kind, Read, Search, Sort, Version, Visibility};
use handoff_domain::reason::Reason;
use handoff_domain::scopes::Interaction;
use handoff_domain::time::Timestamp;

use super::caps::Reach;
use super::reads::Asked;
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
    /// The same in the words of whoever asks, for the audit.
    pub asked: String,
}

/// A page of a history.
#[derive(Debug)]
pub struct History {
    /// The versions, newest first.
    pub versions: Vec<Version>,
    /// Whether more follow.
    pub more: bool,
}

impl App {
    /// The current version of a Task or document.
    pub async fn read_current(&self, caller: &Caller, kind: Kind, id: String) -> Result<Stored, AppError> {
        let scope = self.scope(caller);
        let reach = self.demand(&scope, kind.as_str(), Interaction::Read).await?;
        let (recorder, asked) = (scope.clone(), Asked::one(kind, &id, None, "read"));
        let found = self.read(move |read| {
            let version = match kind {
                // The most frequent read: in one look.
                Kind::Task => visible_task(read, &scope, &id)?,
                Kind::Document | Kind::Binary | Kind::Subscription => {
                    check_visible(read, &scope, kind, &id)?;
                    read.current(scope.tenant(), kind, &id)?
                }
            };
            let version = version
                .filter(|v| reach.covers(&scope, &id, v.last_updated, &v.body))
                .ok_or_else(AppError::not_found)?;
            answer(kind, id, version)
        });
        self.once_recorded(&recorder, asked, found.await).await
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
        let (recorder, asked) = (scope.clone(), Asked::one(kind, &id, Some(version), "vread"));
        let found = self.read(move |read| {
            check_visible(read, &scope, kind, &id)?;
            let version = read
                .version(scope.tenant(), kind, &id, version)?
                .filter(|v| reach.covers(&scope, &id, v.last_updated, &v.body))
                .ok_or_else(AppError::not_found)?;
            answer(kind, id, version)
        });
        self.once_recorded(&recorder, asked, found.await).await
    }

    /// Versions of one Task or document, newest first, `count` at most.
    pub async fn read_history(
        &self,
        caller: &Caller,
        kind: Kind,
        id: String,
        since: Option<Timestamp>,
        before: Option<i64>,
        count: u32,
    ) -> Result<History, AppError> {
        let scope = self.scope(caller);
        let reach = self.demand(&scope, kind.as_str(), Interaction::Read).await?;
        let (recorder, asked) = (scope.clone(), Asked::one(kind, &id, None, "history-instance"));
        let found = self.read(move |read| {
            check_visible(read, &scope, kind, &id)?;
            // One more tells whether there is a next page.
            let limit = count.saturating_add(1).min(HISTORY_PAGE);
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
            let more = reached.len() > count as usize;
            reached.truncate(count as usize);
            Ok(History {
                versions: reached,
                more,
            })
        });
        self.once_recorded(&recorder, asked, found.await).await
    }

    /// Tasks or documents that match, and that the caller may see.
    pub async fn search(&self, caller: &Caller, query: Query) -> Result<Found, AppError> {
        let scope = self.scope(caller);
        let action = match query.kind {
            Kind::Task => Action::TaskSearch,
            Kind::Document | Kind::Binary => Action::DocumentSearch,
            Kind::Subscription => Action::SubscriptionSearch,
        };
        let reach = self
            .demand(&scope, query.kind.as_str(), Interaction::Search)
            .await?;
        if let Err(refusal) = scope.permit(action, Relation::default(), Object::Tenant, Event::RequestDenied)
        {
            return Err(self.record_denial(caller.tenant(), refusal).await);
        }
        let mut filters = query.filters;
        filters.extend(reach.into_filters());
        let Sight { visibility, each } = sight(&scope, query.kind);
        let search = Search {
            kind: query.kind,
            filters,
            visibility,
            sort: query.sort,
            limit: query.limit,
            after: query.after,
            total: query.total,
        };
        let (recorder, asked) = (scope.clone(), Asked::search(query.kind, &query.asked));
        let found = self.read(move |read| {
            if each {
                sift(read, &scope, &search)
            } else {
                Ok(read.search(scope.tenant(), &search)?)
            }
        });
        self.once_recorded(&recorder, asked, found.await).await
    }
}

/// What a search has to look at.
struct Sight {
    /// Outside of it nothing may be seen.
    visibility: Visibility,
    /// Whether the rules have to be asked about each result within.
    each: bool,
}

/// What the rules open to the caller. What they open by how it stands to a thing is found as such; where they ask for
/// more, each result is held to them.
fn sight(scope: &Scope, kind: Kind) -> Sight {
    let (action, object) = match kind {
        Kind::Task => (Action::TaskRead, Object::Task(None)),
        Kind::Document | Kind::Binary => (Action::DocumentRead, Object::Document(None)),
        Kind::Subscription => (Action::SubscriptionRead, Object::Subscription),
    };
    let opens = |standing: fn(&mut Relation)| {
        let mut relation = Relation::default();
        standing(&mut relation);
        scope.allows(action, relation, object).is_ok()
    };
    let mut each = scope.rules.policy.looks_at_object(action);
    if opens(|_| {}) {
        return Sight {
            visibility: Visibility::Tenant,
            each,
        };
    }
    let principal = &scope.caller.principal;
    let mut teams: Vec<String> = principal.teams.iter().cloned().collect();
    let mut created = false;
    match kind {
        Kind::Task => {
            each |= !opens(|r| r.creator = true)
                || !opens(|r| r.requester = true)
                || !opens(|r| r.owner = true)
                || !opens(|r| r.recipient = true);
            if !teams.is_empty() && !opens(|r| r.team = true) {
                teams.clear();
            }
        }
        Kind::Subscription => created = opens(|r| r.creator = true),
        Kind::Document | Kind::Binary => {
            created = opens(|r| r.creator = true);
            each |= !opens(|r| r.through_task = true);
            // Which Tasks lead to documents is for the rules about Tasks to say.
            let tasks = sight(scope, Kind::Task);
            each |= tasks.each;
            if let Visibility::Actor { teams: seen, .. } = tasks.visibility {
                teams = seen;
            }
        }
    }
    Sight {
        visibility: Visibility::Actor {
            actor: principal.actor.clone(),
            teams,
            created,
        },
        each,
    }
}

/// The most results that the rules are asked about one by one, for one answer.
const MOST_SIFTED: usize = 2_000;

/// What is found of `search` when the rules are asked about each result.
fn sift(read: &mut dyn Read, scope: &Scope, search: &Search) -> Result<Found, AppError> {
    let limit = search.limit as usize;
    let mut page = Search {
        limit: HISTORY_PAGE,
        total: false,
        ..search.clone()
    };
    let mut found = Found::default();
    let (mut seen, mut looked_at) = (0usize, 0usize);
    loop {
        let some = read.search(scope.tenant(), &page)?;
        page.after = some.resources.last().map(|(id, at, _)| (*at, id.clone()));
        looked_at = looked_at.saturating_add(some.resources.len());
        for resource in some.resources {
            match check_visible(read, scope, search.kind, &resource.0) {
                Ok(()) => seen = seen.saturating_add(1),
                Err(error) if error.class == Class::NotFound => continue,
                Err(error) => return Err(error),
            }
            if found.resources.len() < limit {
                found.resources.push(resource);
            }
        }
        found.more = limit > 0 && seen > limit;
        if !some.more || (found.more && !search.total) {
            break;
        }
        if looked_at >= MOST_SIFTED {
            return Err(AppError::bad(
                "the rules in force have to be asked about each result, and there are too many; narrow the search, or ask for fewer at a time and no total",
            ));
        }
    }
    // Of the results after a page's beginning alone nobody asks a number.
    found.total = (search.total && search.after.is_none()).then(|| u64::try_from(seen).unwrap_or(u64::MAX));
    Ok(found)
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
                    let object = Object::Document(Some(&document));
                    // Where rules look further, they are told the whole of it.
                    if scope.allows(Action::DocumentRead, relation, object).is_err()
                        || scope.rules.policy.looks_at_object(Action::DocumentRead)
                    {
                        for task in read.tasks_of_document(scope.tenant(), &id)? {
                            if let Some(task) = read.task(scope.tenant(), &task)? {
                                relation.through_task |= !task.deleted && sees(scope, &task);
                            }
                            if relation.through_task {
                                break;
                            }
                        }
                    }
                    scope.allows(Action::DocumentRead, relation, object).is_ok()
                }
                None => false,
            }
        }
        Kind::Subscription => super::subscriptions::check_visible(read, scope, id).is_ok(),
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
            Kind::Subscription => Reason::NotFound,
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
