//! Creating, changing and deleting a Task: the move is checked against the table, the mover against the rules,
//! and the grants follow in the same transaction.

use std::collections::BTreeSet;

use handoff_domain::access::{Action, Object, Relation, Role};
use handoff_domain::audit::{About, Event, Outcome};
use handoff_domain::document::Document;
use handoff_domain::ids::{DocumentId, TaskId};
use handoff_domain::moves::{check_constant, may_move};
use handoff_domain::outbox::{DELETED, Topic};
use handoff_domain::ports::{Kind, Read, SearchIndex, Tx};
use handoff_domain::reason::Reason;
use handoff_domain::scopes::Interaction;
use handoff_domain::task::{MAX_TASK_DEPTH, Task, TaskFacts, TaskStatus, check_move};
use handoff_domain::time::Timestamp;
use handoff_fhir_model::{Issue, IssueType, Resource, search_index, task_facts};

use super::caps::Reach;
use super::effects::{Loaded, about_task, load, settle};
use super::told::shares_team;
use super::{App, AppError, Caller, Class, Cuts, Scope, Stored, break_glass, json_edit, task_family};

/// How many Tasks a Task may be part of on one level.
const MAX_FAMILY: usize = 64;

/// What the caller said about the version that it means to change.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Expected {
    /// Nothing.
    #[default]
    Any,
    /// `If-Match: *`.
    Existing,
    /// `If-Match: W/"n"`.
    Version(i64),
}

impl Expected {
    /// The version that an entity tag names: `W/"3"` and `"3"` alike, `*` for any. `None` where the text is no tag.
    pub fn parse(tag: &str) -> Option<Self> {
        let tag = tag.trim();
        if tag == "*" {
            return Some(Self::Existing);
        }
        let quoted = tag.strip_prefix("W/").unwrap_or(tag);
        let inner = quoted.strip_prefix('"')?.strip_suffix('"')?;
        // One tag alone: a list of them is nothing that a version could be compared with.
        if inner.contains('"') {
            return None;
        }
        // A tag that is no number of ours names a version that does not exist.
        Some(Self::Version(inner.parse().unwrap_or(-1)))
    }

    /// Checks the present version; a missing `If-Match` is refused where the workflow demands one.
    pub fn check(self, present: i64, demanded: bool) -> Result<(), AppError> {
        match self {
            Self::Version(version) if version != present => Err(AppError::new(
                Class::PreconditionFailed,
                Reason::VersionConflict,
                format!("the resource is at version {present}, not the one named; read it again and retry"),
            )),
            Self::Any if demanded => Err(AppError::bad(
                "this workflow demands `If-Match` with the version that you read; send it",
            )),
            Self::Any | Self::Existing | Self::Version(_) => Ok(()),
        }
    }
}

impl App {
    /// Creates a Task. Its id is ours.
    pub async fn create_task(&self, caller: &Caller, resource: Resource) -> Result<Stored, AppError> {
        let scope = self.scope(caller);
        let id = new_task_id(&scope)?;
        self.write(caller.tenant(), move |tx| {
            create(tx, &scope, &id, &resource)
                .map_err(|error| scope.refused(error, Event::TaskCreated, About::default()))
        })
        .await
    }

    /// Changes a Task.
    pub async fn update_task(
        &self,
        caller: &Caller,
        id: TaskId,
        resource: Resource,
        expected: Expected,
    ) -> Result<Stored, AppError> {
        let scope = self.scope(caller);
        self.write(caller.tenant(), move |tx| {
            update(tx, &scope, &id, &resource, expected)
                .map_err(|error| scope.refused(error, Event::TaskUpdated, About::of_task(&id)))
        })
        .await
    }

    /// Deletes a Task; its grants die with it. Deleting it again is no error.
    pub async fn delete_task(&self, caller: &Caller, id: TaskId, expected: Expected) -> Result<(), AppError> {
        let scope = self.scope(caller);
        self.write(caller.tenant(), move |tx| {
            delete(tx, &scope, &id, expected)
                .map_err(|error| scope.refused(error, Event::TaskDeleted, About::of_task(&id)))
        })
        .await
    }
}

/// An id for a new Task.
pub fn new_task_id(scope: &Scope) -> Result<TaskId, AppError> {
    TaskId::parse(scope.ordered_id()).map_err(|e| AppError::bad(e.to_string()))
}

/// The facts of a Task resource, with our own base taken off its references.
pub fn facts_of(scope: &Scope, resource: &Resource) -> Result<TaskFacts, AppError> {
    let mut facts = task_facts(resource).map_err(AppError::invalid)?;
    let base = scope.fhir_base();
    for reference in [
        &mut facts.focus,
        &mut facts.subject,
        &mut facts.encounter,
        &mut facts.requester,
        &mut facts.owner,
    ]
    .into_iter()
    .flatten()
    .chain(&mut facts.inputs)
    .chain(&mut facts.recipients)
    .chain(&mut facts.part_of)
    {
        if let Some(local) = reference.strip_prefix(&base) {
            *reference = local.to_owned();
        }
    }
    Ok(facts)
}

/// Creates a Task inside a transaction.
pub fn create(
    tx: &mut dyn Tx,
    scope: &Scope,
    id: &TaskId,
    resource: &Resource,
) -> Result<(Stored, Cuts), AppError> {
    let reach = scope.demand("Task", Interaction::Create)?;
    scope.permit(
        Action::TaskCreate,
        Relation::default(),
        Object::Tenant,
        Event::TaskCreated,
    )?;
    let facts = facts_of(scope, resource)?;
    break_glass::check_code(&facts, None)?;
    let workflow = scope.rules.workflows.of(&facts.code);
    check_move(workflow, None, None, facts.status).map_err(|e| illegal(&e))?;
    check_parents(tx, scope, &reach, id, &facts)?;
    let documents = effective_documents(tx, scope, &reach, &facts, None)?;
    let task = Task {
        id: id.clone(),
        version: 1,
        last_updated: scope.now(),
        held_from: None,
        held_by_parent: false,
        created_by: scope.caller.principal.actor.clone(),
        documents,
        former_owners: Vec::new(),
        reissues: 0,
        accessed: false,
        deleted: false,
        facts,
    };
    let mut resource = resource.clone();
    resource.set_id(id.as_str());
    json_edit::stamp(&mut resource, 1, task.last_updated);
    let answer = stored(&task, resource.to_json(), true);
    scope.keep_within(&reach, &answer, about_task(&task))?;
    let cuts = place(tx, scope, &task, &answer.body, &index(scope, &resource))?;
    Ok((answer, cuts))
}

/// Stores a new Task with its JSON and index, records it, tells subscribers, and issues its grants.
pub fn place(
    tx: &mut dyn Tx,
    scope: &Scope,
    task: &Task,
    body: &[u8],
    found_by: &SearchIndex,
) -> Result<Cuts, AppError> {
    tx.insert_task(scope.tenant(), task, body, found_by)?;
    let status = task.facts.status.as_str();
    let row = scope
        .row(Event::TaskCreated, Outcome::Success, Reason::Permitted)
        .about(about_task(task))
        .detail("to", status);
    tx.record(scope.tenant(), row);
    tell(tx, scope, task, Topic::TaskStatusChanged, status);
    let loaded = load(tx, scope, task)?;
    settle(tx, scope, task, &loaded)
}

/// Changes a Task inside a transaction. The order of the checks is the contract's.
pub fn update(
    tx: &mut dyn Tx,
    scope: &Scope,
    id: &TaskId,
    resource: &Resource,
    expected: Expected,
) -> Result<(Stored, Cuts), AppError> {
    let reach = scope.demand("Task", Interaction::Update)?;
    let before = lock_reached(tx, scope, &reach, id)?;
    let facts = facts_of(scope, resource)?;
    let workflow = scope.rules.workflows.of(&before.facts.code);
    let asked = facts.status;
    check_move(workflow, Some(before.facts.status), before.held_from, asked).map_err(|e| {
        illegal(&e).recorded(
            scope
                .row(Event::TaskUpdated, Outcome::Denied, Reason::IllegalTransition)
                .about(about_task(&before))
                .detail("from", before.facts.status.as_str())
                .detail("to", asked.as_str()),
        )
    })?;
    check_mover(tx, scope, &before, &facts)?;
    expected.check(before.version, workflow.require_if_match)?;
    check_constant(&before, &facts).map_err(|e| AppError::rule("Task.intent", e.text))?;
    break_glass::check_code(&facts, Some(&before))?;
    if facts.part_of != before.facts.part_of {
        check_parents(tx, scope, &reach, id, &facts)?;
    }
    let documents = effective_documents(tx, scope, &reach, &facts, Some(&before))?;
    let after = advance(scope, &before, facts, documents);
    let mut resource = resource.clone();
    resource.set_id(id.as_str());
    json_edit::stamp(&mut resource, after.version, after.last_updated);
    let answer = stored(&after, resource.to_json(), false);
    scope.keep_within(&reach, &answer, about_task(&after))?;
    tx.update_task(
        scope.tenant(),
        &after,
        &answer.body,
        Some(&index(scope, &resource)),
    )?;
    let mut cuts = settle_move(tx, scope, &before, &after)?;
    cuts.extend(task_family::follow(tx, scope, &before, &after)?);
    Ok((answer, cuts))
}

/// Deletes a Task inside a transaction.
pub fn delete(
    tx: &mut dyn Tx,
    scope: &Scope,
    id: &TaskId,
    expected: Expected,
) -> Result<((), Cuts), AppError> {
    let reach = scope.demand("Task", Interaction::Delete)?;
    let locked = scope.lock_tasks(tx, std::slice::from_ref(id))?;
    let before = locked.into_iter().next().filter(|t| !t.deleted && sees(scope, t));
    // Gone already, never there or not to be seen: the same success.
    let reached = reach.covers_present(tx, scope, Kind::Task, id.as_str())?;
    let Some(before) = before.filter(|_| reached) else {
        tx.record(
            scope.tenant(),
            scope.in_vain(Event::TaskDeleted, About::of_task(id)),
        );
        return Ok(((), Cuts::none()));
    };
    let relation = scope.caller.relation_to(&before);
    scope
        .permit(
            Action::TaskDelete,
            relation,
            Object::Task(Some(&before)),
            Event::TaskDeleted,
        )
        .map_err(|e| e.about(about_task(&before)))?;
    expected.check(before.version, false)?;
    let after = Task {
        version: before.version.saturating_add(1),
        last_updated: scope.now(),
        deleted: true,
        ..before.clone()
    };
    tx.update_task(scope.tenant(), &after, &[], None)?;
    let row = scope
        .row(Event::TaskDeleted, Outcome::Success, Reason::Permitted)
        .about(about_task(&after));
    tx.record(scope.tenant(), row);
    tell(tx, scope, &after, Topic::TaskStatusChanged, DELETED);
    let loaded = load(tx, scope, &after)?;
    let mut cuts = settle(tx, scope, &after, &loaded)?;
    cuts.extend(task_family::follow(tx, scope, &before, &after)?);
    Ok(((), cuts))
}

/// Records a move that was written, brings the grants along, and tells subscribers.
pub fn settle_move(tx: &mut dyn Tx, scope: &Scope, before: &Task, after: &Task) -> Result<Cuts, AppError> {
    let (from, to) = (before.facts.status, after.facts.status);
    let mut row = scope
        .row(Event::TaskUpdated, Outcome::Success, Reason::Permitted)
        .about(about_task(after));
    if from == to {
        tell(tx, scope, after, Topic::TaskVersion, "updated");
    } else {
        row = row.detail("from", from.as_str()).detail("to", to.as_str());
        tell(tx, scope, after, Topic::TaskStatusChanged, to.as_str());
    }
    if before.facts.owner != after.facts.owner {
        if let Some(owner) = after.facts.owner_actor() {
            row = row.detail("owner", owner.as_str());
        }
        tell(tx, scope, after, Topic::TaskAssigned, "assigned");
    }
    tx.record(scope.tenant(), row);
    let loaded: Loaded = load(tx, scope, after)?;
    let cuts = settle(tx, scope, after, &loaded)?;
    Ok(cuts)
}

/// Whether the caller may know that the Task exists.
pub fn sees(scope: &Scope, task: &Task) -> bool {
    scope
        .allows(
            Action::TaskRead,
            scope.caller.relation_to(task),
            Object::Task(Some(task)),
        )
        .is_ok()
}

/// The Task under lock, or the same 404 whether it is unknown or not for this caller.
pub fn lock_visible(tx: &mut dyn Tx, scope: &Scope, id: &TaskId) -> Result<Task, AppError> {
    let locked = scope.lock_tasks(tx, std::slice::from_ref(id))?;
    let task = locked
        .into_iter()
        .next()
        .filter(|t| sees(scope, t))
        .ok_or_else(AppError::not_found)?;
    if task.deleted {
        return Err(AppError::new(
            Class::Gone,
            Reason::TaskDeleted,
            "the task was deleted",
        ));
    }
    Ok(task)
}

/// As [`lock_visible`], for a Task that the scopes reach.
pub fn lock_reached(tx: &mut dyn Tx, scope: &Scope, reach: &Reach, id: &TaskId) -> Result<Task, AppError> {
    let task = lock_visible(tx, scope, id);
    // A deleted one is as unknown as any other that they do not reach.
    let is_known = match &task {
        Ok(_) => true,
        Err(error) => error.class == Class::Gone,
    };
    if is_known && !reach.covers_present(tx, scope, Kind::Task, id.as_str())? {
        return Err(AppError::not_found());
    }
    task
}

/// The index of a Task, with our own base taken off its references.
pub fn index(scope: &Scope, resource: &Resource) -> SearchIndex {
    search_index(resource, &scope.fhir_base())
}

/// A stored Task as it is answered.
pub fn stored(task: &Task, body: Vec<u8>, created: bool) -> Stored {
    Stored {
        kind: Kind::Task.as_str(),
        id: task.id.to_string(),
        version: task.version,
        last_updated: task.last_updated,
        body,
        created,
    }
}

/// Tells subscribers of a Task event.
pub fn tell(tx: &mut dyn Tx, scope: &Scope, task: &Task, topic: Topic, change: &str) {
    let event = scope.event(topic, format!("Task/{}", task.id), task.version, change);
    tx.tell(scope.tenant(), event);
}

/// The next version of a Task with new facts: remembers what it was suspended from and who owned it.
fn advance(scope: &Scope, before: &Task, facts: TaskFacts, documents: Vec<DocumentId>) -> Task {
    let (from, to) = (before.facts.status, facts.status);
    let mut former_owners = before.former_owners.clone();
    let (old, new) = (before.facts.owner_actor(), facts.owner_actor());
    if old != new {
        former_owners.extend(old.filter(|o| !before.former_owners.contains(o)));
    }
    former_owners.retain(|o| Some(o) != new.as_ref());
    let held_from = match to {
        TaskStatus::OnHold if from == TaskStatus::OnHold => before.held_from,
        TaskStatus::OnHold => Some(from),
        _ => None,
    };
    Task {
        version: before.version.saturating_add(1),
        last_updated: next_instant(before.last_updated, scope.now()),
        held_from,
        held_by_parent: before.held_by_parent && to == TaskStatus::OnHold,
        documents,
        former_owners,
        facts,
        ..before.clone()
    }
}

/// `lastUpdated` never goes back, whatever the clocks of the replicas say.
fn next_instant(last: Timestamp, now: Timestamp) -> Timestamp {
    last.max(now)
}

/// Whether the caller may make this change.
fn check_mover(tx: &mut dyn Tx, scope: &Scope, before: &Task, facts: &TaskFacts) -> Result<(), AppError> {
    let relation = scope.caller.relation_to(before);
    scope
        .permit(
            Action::TaskUpdate,
            relation,
            Object::Task(Some(before)),
            Event::TaskUpdated,
        )
        .map_err(|e| e.about(about_task(before)))?;
    let target = facts
        .owner_actor()
        .filter(|o| before.facts.owner_actor().as_ref() != Some(o));
    let shares_team = match &target {
        Some(target) => shares_team(tx, scope, target)?,
        None => false,
    };
    may_move(&scope.caller.principal, before, facts, shares_team).map_err(|refused| {
        let row = scope
            .row(Event::TaskUpdated, Outcome::Denied, refused.reason)
            .about(about_task(before))
            .detail("from", before.facts.status.as_str())
            .detail("to", facts.status.as_str());
        AppError::new(Class::Forbidden, refused.reason, refused.text).recorded(row)
    })
}

/// The documents whose reference takes effect: those that had it, and those that the caller may release.
/// Any other reference is kept as text and opens nothing, whether its target exists or not. A Task that turns to
/// another subject takes none of its documents along that are not about it.
fn effective_documents(
    tx: &mut dyn Tx,
    scope: &Scope,
    reach: &Reach,
    facts: &TaskFacts,
    before: Option<&Task>,
) -> Result<Vec<DocumentId>, AppError> {
    let kept = before.map_or(&[][..], |task| &task.documents);
    let turned = before.is_some_and(|task| task.facts.subject != facts.subject);
    let named = facts.document_ids();
    let at_most = scope.rules.workflows.of(&facts.code).max_documents;
    if named.len() > at_most {
        return Err(AppError::rule(
            "Task.input",
            format!("a Task of this kind names at most {at_most} documents"),
        ));
    }
    let judged: BTreeSet<DocumentId> = named
        .iter()
        .filter(|id| turned || !kept.contains(id))
        .cloned()
        .collect();
    let found = if judged.is_empty() {
        Vec::new()
    } else {
        scope.lock_documents(tx, &judged.into_iter().collect::<Vec<_>>(), false)?
    };
    let readable = scope.readable(reach);
    let mut own: Vec<&Document> = Vec::new();
    for document in &found {
        if kept.contains(&document.id)
            || (may_release(scope, document)
                && readable.covers_present(tx, scope, Kind::Document, document.id.as_str())?)
        {
            own.push(document);
        }
    }
    for document in &own {
        if !document.is_about(facts.subject.as_deref()) {
            return Err(AppError::rule(
                place_of(facts, &document.id),
                "the document is about another subject than `Task.for`; name the right document",
            ));
        }
    }
    Ok(named
        .into_iter()
        .filter(|id| kept.contains(id) || own.iter().any(|d| d.id == *id))
        .collect())
}

/// Who created a document may release it.
fn may_release(scope: &Scope, document: &Document) -> bool {
    !document.deleted
        && document.created_by == scope.caller.principal.actor
        && scope
            .caller
            .principal
            .has_any(&[Role::Placer, Role::RecordsManager])
}

fn place_of(facts: &TaskFacts, id: &DocumentId) -> &'static str {
    let focus = format!("DocumentReference/{id}");
    if facts
        .focus
        .as_deref()
        .is_some_and(|f| f == focus || f.starts_with(&format!("{focus}/")))
    {
        "Task.focus"
    } else {
        "Task.input"
    }
}

/// `partOf` must not make a cycle nor go too deep. A parent that is unknown or not to be seen counts as none.
fn check_parents(
    read: &mut dyn Tx,
    scope: &Scope,
    reach: &Reach,
    id: &TaskId,
    facts: &TaskFacts,
) -> Result<(), AppError> {
    let mut level: BTreeSet<TaskId> = facts.parents().into_iter().collect();
    for _ in 0..MAX_TASK_DEPTH {
        if level.len() > MAX_FAMILY {
            return Err(AppError::rule(
                "Task.partOf",
                "the Task would be part of too many others",
            ));
        }
        if level.is_empty() {
            return Ok(());
        }
        if level.contains(id) {
            return Err(AppError::rule(
                "Task.partOf",
                "a Task can't be part of itself, at any depth",
            ));
        }
        let mut above = BTreeSet::new();
        for parent in &level {
            if let Some(task) = Read::task(read, scope.tenant(), parent)?.filter(|t| sees(scope, t))
                && reach.covers_present(read, scope, Kind::Task, parent.as_str())?
            {
                above.extend(task.facts.parents());
            }
        }
        level = above;
    }
    Err(AppError::rule(
        "Task.partOf",
        format!("Tasks may be nested at most {MAX_TASK_DEPTH} deep"),
    ))
}

fn illegal(error: &handoff_domain::task::IllegalTransition) -> AppError {
    let legal: Vec<&str> = error.legal.iter().map(|s| s.as_str()).collect();
    let next = if legal.is_empty() {
        "nothing may follow".to_owned()
    } else {
        format!("legal next: `{}`", legal.join("`, `"))
    };
    let text = format!("{error}; {next}");
    AppError {
        issues: vec![Issue::at(IssueType::BusinessRule, "Task.status", text.as_str())],
        ..AppError::new(Class::Unprocessable, Reason::IllegalTransition, text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_weak_and_a_strong_tag_name_the_same_version() {
        assert_eq!(Expected::parse("W/\"3\""), Some(Expected::Version(3)));
        assert_eq!(Expected::parse("\"3\""), Some(Expected::Version(3)));
        assert_eq!(Expected::parse("*"), Some(Expected::Existing));
        assert_eq!(Expected::parse("W/\"abc\""), Some(Expected::Version(-1)));
        assert_eq!(Expected::parse("3"), None);
        assert_eq!(Expected::parse("\"3\", \"4\""), None);
    }
}
