//! Tasks: their present state, and the rows by which they are found from people, documents and parents.
//! Knows nothing of what a status means.

use std::collections::BTreeSet;

use diesel::prelude::*;
use diesel::sql_types::{BigInt, Binary, Text};
use handoff_domain::ports::{Kind, SearchIndex, StoreError, Version};
use handoff_domain::task::Task;
use handoff_domain::{DocumentId, TaskId, TenantId};

use crate::dialect::{AnyConnection, Change, Column, Hold, Removal, Table};
use crate::error::{OrRefused, unreadable};
use crate::schema::{grants, task_documents, task_parents, tasks};
use crate::search::Digest;
use crate::statement::{Statement, Value};
use crate::unit::{HeldTask, Unit};
use crate::{history, search};

static TASKS: Table = Table {
    name: "tasks",
    columns: &[
        ("tenant", Column::Text),
        ("id", Column::Text),
        ("version", Column::Int),
        ("last_updated", Column::Int),
        ("status", Column::Text),
        ("owner", Column::Text),
        ("patient", Column::Text),
        ("created_by", Column::Text),
        ("due", Column::Int),
        ("deleted", Column::Flag),
        ("state", Column::Text),
        ("indexed", Column::Text),
    ],
};

static VIEWERS: Table = Table {
    name: "task_viewers",
    columns: &[
        ("tenant", Column::Text),
        ("viewer", Column::Text),
        ("task", Column::Text),
    ],
};

static DOCUMENTS: Table = Table {
    name: "task_documents",
    columns: &[
        ("tenant", Column::Text),
        ("document", Column::Text),
        ("task", Column::Text),
    ],
};

static PARENTS: Table = Table {
    name: "task_parents",
    columns: &[
        ("tenant", Column::Text),
        ("parent", Column::Text),
        ("task", Column::Text),
    ],
};

/// What a Task's rows in other tables say. A deleted Task has none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Links {
    viewers: BTreeSet<String>,
    documents: BTreeSet<String>,
    parents: BTreeSet<String>,
}

impl Links {
    fn of(task: &Task) -> Self {
        if task.deleted {
            return Self::default();
        }
        let facts = &task.facts;
        let people = std::iter::once(task.created_by.clone())
            .chain(facts.requester_actor())
            .chain(facts.owner_actor())
            .chain(facts.recipient_actors())
            .map(String::from);
        Self {
            viewers: people
                .chain(facts.teams().iter().map(|team| team_viewer(team)))
                .collect(),
            documents: task.documents.iter().map(|id| id.as_str().to_owned()).collect(),
            parents: facts.parents().into_iter().map(String::from).collect(),
        }
    }

    fn tables(&self) -> [(&'static Table, &BTreeSet<String>); 3] {
        [
            (&VIEWERS, &self.viewers),
            (&DOCUMENTS, &self.documents),
            (&PARENTS, &self.parents),
        ]
    }
}

/// How a team is named among the viewers; no reference to a person looks like this.
pub(crate) fn team_viewer(code: &str) -> String {
    format!("team:{code}")
}

fn parse(state: &str) -> Result<Task, StoreError> {
    serde_json::from_str(state).map_err(|_| unreadable("Task"))
}

/// The Task, a deleted one too.
pub(crate) fn task(
    connection: &mut AnyConnection,
    tenant: &TenantId,
    id: &TaskId,
) -> Result<Option<Task>, StoreError> {
    tasks::table
        .find((tenant.as_str(), id.as_str()))
        .select(tasks::state)
        .first::<String>(connection)
        .optional()
        .or_refused()?
        .map(|state| parse(&state))
        .transpose()
}

/// Tasks in which a document's reference took effect.
pub(crate) fn of_document(
    connection: &mut AnyConnection,
    tenant: &TenantId,
    document: &DocumentId,
) -> Result<Vec<TaskId>, StoreError> {
    let ids: Vec<String> = task_documents::table
        .filter(task_documents::tenant.eq(tenant.as_str()))
        .filter(task_documents::document.eq(document.as_str()))
        .order(task_documents::task)
        .select(task_documents::task)
        .load(connection)
        .or_refused()?;
    task_ids(ids)
}

/// Tasks that are part of this one.
pub(crate) fn children(
    connection: &mut AnyConnection,
    tenant: &TenantId,
    task: &TaskId,
) -> Result<Vec<TaskId>, StoreError> {
    let ids: Vec<String> = task_parents::table
        .filter(task_parents::tenant.eq(tenant.as_str()))
        .filter(task_parents::parent.eq(task.as_str()))
        .order(task_parents::task)
        .select(task_parents::task)
        .load(connection)
        .or_refused()?;
    task_ids(ids)
}

fn task_ids(ids: Vec<String>) -> Result<Vec<TaskId>, StoreError> {
    ids.into_iter()
        .map(|id| TaskId::parse(id).map_err(|_| unreadable("Task id")))
        .collect()
}

/// The Tasks, held until the transaction ends.
pub(crate) fn lock(unit: &mut Unit<'_>, tenant: &TenantId, ids: &[TaskId]) -> Result<Vec<Task>, StoreError> {
    let key = |id: &TaskId| (tenant.clone(), id.clone());
    let unheld: BTreeSet<&TaskId> = ids
        .iter()
        .filter(|id| !unit.tasks.contains_key(&key(id)))
        .collect();
    if !unheld.is_empty() {
        let rows: Vec<(String, String)> =
            Statement::<(Text, Text)>::new("SELECT state, indexed FROM tasks WHERE tenant = ")
                .bind(tenant.as_str())
                .sql(" AND id")
                .one_of(unheld.into_iter().map(TaskId::as_str))
                .sql(" ORDER BY id")
                .sql(unit.connection.holding(Hold::Exclusive))
                .load(unit.connection)
                .or_refused()?;
        for (state, indexed) in rows {
            let task = parse(&state)?;
            let digest = Digest::parse(&indexed)?;
            unit.digests
                .insert((tenant.clone(), Kind::Task, task.id.as_str().to_owned()), digest);
            hold(unit, tenant, &task, false);
        }
    }
    let ids: BTreeSet<&TaskId> = ids.iter().collect();
    Ok(ids
        .into_iter()
        .filter_map(|id| unit.tasks.get(&key(id)))
        .map(|held| held.task.clone())
        .collect())
}

/// Notes a Task as held by this unit; answers what was noted of it before.
fn hold(unit: &mut Unit<'_>, tenant: &TenantId, task: &Task, new: bool) -> Option<HeldTask> {
    let key = (tenant.clone(), task.id.clone());
    let before = unit.tasks.remove(&key);
    let held = HeldTask {
        task: task.clone(),
        links: Links::of(task),
        new: new || before.as_ref().is_some_and(|held| held.new),
    };
    unit.tasks.insert(key, held);
    before
}

/// The Task and its newest version in one look.
pub(crate) fn current(
    connection: &mut AnyConnection,
    tenant: &TenantId,
    id: &TaskId,
) -> Result<Option<(Task, Version)>, StoreError> {
    let row: Option<(String, i64, i64, String, Vec<u8>)> =
        Statement::<(Text, BigInt, BigInt, Text, Binary)>::new(
            "SELECT r.state, v.version, v.last_updated, v.method, v.body FROM tasks r \
             JOIN resource_versions v ON v.tenant = r.tenant AND v.kind = 'Task' AND v.id = r.id \
             AND v.version = r.version WHERE r.tenant = ",
        )
        .bind(tenant.as_str())
        .sql(" AND r.id = ")
        .bind(id.as_str())
        .get_result(connection)
        .optional()
        .or_refused()?;
    row.map(|(state, version, at, method, body)| {
        Ok((parse(&state)?, history::version_of((version, at, method, body))?))
    })
    .transpose()
}

/// Stores a new Task.
pub(crate) fn insert(
    unit: &mut Unit<'_>,
    tenant: &TenantId,
    task: &Task,
    body: &[u8],
    index: &SearchIndex,
) -> Result<(), StoreError> {
    unit.touch(tenant, Kind::Task, task.id.as_str())?;
    let facts = &task.facts;
    let indexed = unit.index(tenant, Kind::Task, task.id.as_str(), index, &Digest::default())?;
    unit.bulk.add(
        &TASKS,
        vec![
            tenant.as_str().into(),
            task.id.as_str().into(),
            task.version.into(),
            task.last_updated.0.into(),
            facts.status.as_str().into(),
            search::first_reference(index, &["owner"]).into(),
            search::first_reference(index, &["subject", "patient"]).into(),
            task.created_by.as_str().into(),
            facts.due.map(|due| due.0).into(),
            task.deleted.into(),
            state(task)?.into(),
            indexed.into(),
        ],
    );
    hold(unit, tenant, task, true);
    link(unit, tenant, task, &Links::default());
    history::add(
        &mut unit.bulk,
        tenant,
        Kind::Task,
        task.id.as_str(),
        task.version,
        task.last_updated,
        body,
    );
    Ok(())
}

/// Stores the next version of a Task.
pub(crate) fn update(
    unit: &mut Unit<'_>,
    tenant: &TenantId,
    task: &Task,
    body: &[u8],
    index: Option<&SearchIndex>,
) -> Result<(), StoreError> {
    unit.touch(tenant, Kind::Task, task.id.as_str())?;
    lock(unit, tenant, std::slice::from_ref(&task.id))?;
    let before = hold(unit, tenant, task, false).ok_or(StoreError::Conflict)?;
    let facts = &task.facts;
    let id = task.id.as_str();
    let found_by = if task.deleted {
        search::remove(&mut unit.bulk, tenant, Kind::Task, id);
        Some((
            None,
            None,
            unit.index(
                tenant,
                Kind::Task,
                id,
                &SearchIndex::default(),
                &Digest::default(),
            )?,
        ))
    } else if let Some(index) = index {
        let before = digest(unit, tenant, &task.id)?;
        Some((
            search::first_reference(index, &["owner"]),
            search::first_reference(index, &["subject", "patient"]),
            unit.index(tenant, Kind::Task, id, index, &before)?,
        ))
    } else {
        None
    };
    let mut update = Statement::new("UPDATE tasks SET version = ")
        .bind(task.version)
        .sql(", last_updated = ")
        .bind(task.last_updated.0)
        .sql(", status = ")
        .bind(facts.status.as_str())
        .sql(", due = ")
        .bind(facts.due.map(|due| due.0))
        .sql(", deleted = ")
        .bind(task.deleted)
        .sql(", state = ")
        .bind(state(task)?);
    if let Some((owner, patient, indexed)) = found_by {
        update = update
            .sql(", owner = ")
            .bind(owner)
            .sql(", patient = ")
            .bind(patient)
            .sql(", indexed = ")
            .bind(indexed);
    }
    unit.bulk.change(Change {
        table: TASKS.name,
        id: id.to_owned(),
        update: update
            .sql(" WHERE tenant = ")
            .bind(tenant.as_str())
            .sql(" AND id = ")
            .bind(id)
            .sql(" AND version = ")
            .bind(task.version.saturating_sub(1)),
    });
    let due = before.task.facts.due;
    link(unit, tenant, task, &before.links);
    // The last of them all, because it writes what waits: nothing of this Task may wait unnoticed after that.
    if due != facts.due {
        tell_grants_when_due(unit, tenant, task)?;
    }
    history::add(
        &mut unit.bulk,
        tenant,
        Kind::Task,
        task.id.as_str(),
        task.version,
        task.last_updated,
        body,
    );
    Ok(())
}

/// What the search rows of a Task say, as far as this unit knows or can find out.
fn digest(unit: &mut Unit<'_>, tenant: &TenantId, id: &TaskId) -> Result<Digest, StoreError> {
    if let Some(known) = unit
        .digests
        .get(&(tenant.clone(), Kind::Task, id.as_str().to_owned()))
    {
        return Ok(known.clone());
    }
    let indexed: Option<String> = tasks::table
        .find((tenant.as_str(), id.as_str()))
        .select(tasks::indexed)
        .first(unit.connection)
        .optional()
        .or_refused()?;
    indexed.map_or(Err(StoreError::Conflict), |text| Digest::parse(&text))
}

/// Replaces the rows in other tables that say something else now. Found by what they say: there are few of a Task, and an
/// index of them by Task would be written with every one.
fn link(unit: &mut Unit<'_>, tenant: &TenantId, task: &Task, before: &Links) {
    let now = Links::of(task);
    for ((table, new), (_, old)) in now.tables().into_iter().zip(before.tables()) {
        let row = |value: &str| [tenant.as_str(), value, task.id.as_str()].map(Value::from);
        for value in old.difference(new) {
            let names = table.columns.iter().map(|(name, _)| *name);
            unit.bulk.remove(Removal {
                table: table.name,
                key: names.zip(row(value)).collect(),
                names: Vec::new(),
            });
        }
        for value in new.difference(old) {
            unit.bulk.add(table, row(value).into());
        }
    }
}

/// Open grants carry the due date of their Task, so that those past it are found without asking every Task.
fn tell_grants_when_due(unit: &mut Unit<'_>, tenant: &TenantId, task: &Task) -> Result<(), StoreError> {
    unit.settle_tables(&["grants"])?;
    diesel::update(grants::table)
        .filter(grants::tenant.eq(tenant.as_str()))
        .filter(grants::task.eq(task.id.as_str()))
        .filter(
            grants::ended_at
                .is_null()
                // Their redemptions may be running, and stop with the due date too.
                .or(grants::status.eq_any(["exhausted", "expired"])),
        )
        .set(grants::task_due.eq(task.facts.due.map(|due| due.0)))
        .execute(unit.connection)
        .or_refused()?;
    Ok(())
}

fn state(task: &Task) -> Result<String, StoreError> {
    serde_json::to_string(task).map_err(|_| StoreError::Broken("a Task can't be stored".to_owned()))
}

/// The due date of a Task, as far as this unit knows or can find out.
pub(crate) fn due(unit: &mut Unit<'_>, tenant: &TenantId, id: &TaskId) -> Result<Option<i64>, StoreError> {
    if let Some(held) = unit.tasks.get(&(tenant.clone(), id.clone())) {
        return Ok(held.task.facts.due.map(|due| due.0));
    }
    let due: Option<Option<i64>> = tasks::table
        .find((tenant.as_str(), id.as_str()))
        .select(tasks::due)
        .first(unit.connection)
        .optional()
        .or_refused()?;
    Ok(due.flatten())
}
