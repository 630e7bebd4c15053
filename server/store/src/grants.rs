//! Grants: each row is one, changed only by who saw its last revision. Knows nothing of when a grant may change.

use diesel::prelude::*;
use diesel::sql_types::{BigInt, Nullable, Text};
use handoff_domain::document::Sha256;
use handoff_domain::grant::{Binding, Grant, GrantState, Origin};
use handoff_domain::ports::StoreError;
use handoff_domain::{
    ActorRef, BinaryId, DocumentId, GrantId, Handle, Reason, Span, TaskId, TenantId, Timestamp,
};

use crate::dialect::{AnyConnection, Change, Column, Table};
use crate::error::{OrRefused, unreadable};
use crate::schema::grants;
use crate::statement::{Statement, Value};
use crate::tasks;
use crate::unit::Unit;

static GRANTS: Table = Table {
    name: "grants",
    columns: &[
        ("tenant", Column::Text),
        ("id", Column::Text),
        ("handle", Column::Text),
        ("secret_hash", Column::Bytes),
        ("task", Column::Text),
        ("document", Column::Text),
        ("content_version", Column::Int),
        ("\"binary\"", Column::Text),
        ("sha256", Column::Bytes),
        ("origin", Column::Text),
        ("max_uses", Column::Int),
        ("uses", Column::Int),
        ("time_window", Column::Int),
        ("issued_at", Column::Int),
        ("constraints", Column::Text),
        ("status", Column::Text),
        ("grantee", Column::Text),
        ("bound_at", Column::Int),
        ("expires_at", Column::Int),
        ("ended_at", Column::Int),
        ("reason", Column::Text),
        ("task_due", Column::Int),
        ("revision", Column::Int),
    ],
};

#[derive(Queryable, Selectable)]
#[diesel(table_name = grants)]
struct Row {
    id: String,
    handle: String,
    secret_hash: Option<Vec<u8>>,
    task: String,
    document: String,
    content_version: i64,
    binary: String,
    sha256: Vec<u8>,
    origin: String,
    max_uses: i64,
    uses: i64,
    time_window: i64,
    issued_at: i64,
    constraints: String,
    status: String,
    grantee: Option<String>,
    bound_at: Option<i64>,
    expires_at: Option<i64>,
    ended_at: Option<i64>,
    reason: Option<String>,
    revision: i64,
}

impl Row {
    fn state(&self) -> Option<GrantState> {
        let binding = match (&self.grantee, self.bound_at, self.expires_at) {
            (Some(grantee), Some(bound_at), Some(expires_at)) => Some(Binding {
                grantee: ActorRef::parse(grantee.as_str()).ok()?,
                bound_at: Timestamp(bound_at),
                expires_at: Timestamp(expires_at),
            }),
            _ => None,
        };
        let reason = self.reason.as_deref().and_then(Reason::parse);
        let ended = self.ended_at.map(Timestamp);
        match self.status.as_str() {
            "issued" => Some(GrantState::Issued),
            "bound" => binding.map(GrantState::Bound),
            "suspended" => Some(GrantState::Suspended(binding?, reason?)),
            "exhausted" => Some(GrantState::Exhausted(binding?, ended?)),
            "expired" => Some(GrantState::Expired(binding, ended?)),
            "revoked" => Some(GrantState::Revoked(binding, ended?, reason?)),
            _ => None,
        }
    }

    fn read(self) -> Option<Grant> {
        let state = self.state()?;
        Some(Grant {
            id: GrantId::parse(self.id).ok()?,
            handle: Handle::parse(self.handle).ok()?,
            secret_hash: self.secret_hash.map(TryInto::try_into).transpose().ok()?,
            task: TaskId::parse(self.task).ok()?,
            document: DocumentId::parse(self.document).ok()?,
            content_version: self.content_version,
            binary: BinaryId::parse(self.binary).ok()?,
            sha256: Sha256(self.sha256.try_into().ok()?),
            origin: Origin::parse(&self.origin)?,
            max_uses: u32::try_from(self.max_uses).ok()?,
            uses: u32::try_from(self.uses).ok()?,
            window: Span(self.time_window),
            issued_at: Timestamp(self.issued_at),
            constraints: serde_json::from_str(&self.constraints).ok()?,
            state,
            revision: self.revision,
        })
    }
}

/// The reason that a state holds beside its code: why suspended, why revoked.
fn kept_reason(state: &GrantState) -> Option<&'static str> {
    match state {
        GrantState::Suspended(_, reason) | GrantState::Revoked(_, _, reason) => Some(reason.as_str()),
        GrantState::Issued | GrantState::Bound(_) | GrantState::Exhausted(..) | GrantState::Expired(..) => {
            None
        }
    }
}

fn constraints(grant: &Grant) -> Result<String, StoreError> {
    serde_json::to_string(&grant.constraints)
        .map_err(|_| StoreError::Broken("constraints can't be stored".to_owned()))
}

fn read(rows: impl IntoIterator<Item = Row>) -> Result<Vec<Grant>, StoreError> {
    rows.into_iter()
        .map(|row| row.read().ok_or_else(|| unreadable("grant")))
        .collect()
}

/// One grant.
pub(crate) fn grant(
    connection: &mut AnyConnection,
    tenant: &TenantId,
    id: &GrantId,
) -> Result<Option<Grant>, StoreError> {
    let row = grants::table
        .find((tenant.as_str(), id.as_str()))
        .select(Row::as_select())
        .first(connection)
        .optional()
        .or_refused()?;
    Ok(read(row)?.pop())
}

/// The grant that a handle finds.
pub(crate) fn by_handle(
    connection: &mut AnyConnection,
    tenant: &TenantId,
    handle: &Handle,
) -> Result<Option<Grant>, StoreError> {
    let row = grants::table
        .filter(grants::tenant.eq(tenant.as_str()))
        .filter(grants::handle.eq(handle.as_str()))
        .select(Row::as_select())
        .first(connection)
        .optional()
        .or_refused()?;
    Ok(read(row)?.pop())
}

/// Grants of a Task, oldest first.
pub(crate) fn of_task(
    connection: &mut AnyConnection,
    tenant: &TenantId,
    task: &TaskId,
) -> Result<Vec<Grant>, StoreError> {
    let rows = grants::table
        .filter(grants::tenant.eq(tenant.as_str()))
        .filter(grants::task.eq(task.as_str()))
        .order((grants::issued_at, grants::id))
        .select(Row::as_select())
        .load(connection)
        .or_refused()?;
    read(rows)
}

/// Grants for a document, newest first.
pub(crate) fn of_document(
    connection: &mut AnyConnection,
    tenant: &TenantId,
    document: &DocumentId,
    limit: u32,
) -> Result<Vec<Grant>, StoreError> {
    let rows = grants::table
        .filter(grants::tenant.eq(tenant.as_str()))
        .filter(grants::document.eq(document.as_str()))
        .order((grants::issued_at.desc(), grants::id.desc()))
        .limit(i64::from(limit))
        .select(Row::as_select())
        .load(connection)
        .or_refused()?;
    read(rows)
}

/// Grants that open a Binary, newest first.
pub(crate) fn of_binary(
    connection: &mut AnyConnection,
    tenant: &TenantId,
    binary: &BinaryId,
) -> Result<Vec<Grant>, StoreError> {
    let rows = grants::table
        .filter(grants::tenant.eq(tenant.as_str()))
        .filter(grants::binary.eq(binary.as_str()))
        .order((grants::issued_at.desc(), grants::id.desc()))
        .select(Row::as_select())
        .load(connection)
        .or_refused()?;
    read(rows)
}

/// Stores a new grant.
pub(crate) fn insert(unit: &mut Unit<'_>, tenant: &TenantId, grant: &Grant) -> Result<(), StoreError> {
    let due = tasks::due(unit, tenant, &grant.task)?;
    unit.granted.insert((tenant.clone(), grant.task.clone()));
    unit.bulk.add(&GRANTS, values(tenant, grant, due.into())?);
    Ok(())
}

/// Where the due date stands among a grant's columns.
const DUE: usize = 21;

/// A grant's row, in the order of the table's columns.
fn values(tenant: &TenantId, grant: &Grant, due: Value) -> Result<Vec<Value>, StoreError> {
    let binding = grant.state.binding();
    Ok(vec![
        tenant.as_str().into(),
        grant.id.as_str().into(),
        grant.handle.as_str().into(),
        grant.secret_hash.map(|hash| hash.to_vec()).into(),
        grant.task.as_str().into(),
        grant.document.as_str().into(),
        grant.content_version.into(),
        grant.binary.as_str().into(),
        grant.sha256.0.to_vec().into(),
        grant.origin.as_str().into(),
        i64::from(grant.max_uses).into(),
        i64::from(grant.uses).into(),
        grant.window.0.into(),
        grant.issued_at.0.into(),
        constraints(grant)?.into(),
        grant.state.code().into(),
        binding.map(|b| b.grantee.as_str().to_owned()).into(),
        binding.map(|b| b.bound_at.0).into(),
        binding.map(|b| b.expires_at.0).into(),
        grant.state.ended_at().map(|at| at.0).into(),
        kept_reason(&grant.state).map(str::to_owned).into(),
        due,
        grant.revision.into(),
    ])
}

/// Stores a changed grant, if nobody else changed it since.
pub(crate) fn update(unit: &mut Unit<'_>, tenant: &TenantId, grant: &Grant) -> Result<(), StoreError> {
    let key = [tenant.as_str().into(), grant.id.as_str().into()];
    if let Some(row) = unit.bulk.waiting(&GRANTS, &key) {
        // Written first in this very unit: it is written once, as it ends up.
        if row.last() != Some(&grant.revision.saturating_sub(1).into()) {
            return Err(StoreError::Conflict);
        }
        let due = row.get(DUE).cloned().ok_or_else(|| unreadable("grant"))?;
        *row = values(tenant, grant, due)?;
        return Ok(());
    }
    if unit.bulk.changes(GRANTS.name, grant.id.as_str()) {
        unit.settle()?;
    }
    let binding = grant.state.binding();
    let update = Statement::new("UPDATE grants SET handle = ")
        .bind(grant.handle.as_str())
        .sql(", secret_hash = ")
        .bind(grant.secret_hash.map(|hash| hash.to_vec()))
        .sql(", max_uses = ")
        .bind(i64::from(grant.max_uses))
        .sql(", uses = ")
        .bind(i64::from(grant.uses))
        .sql(", time_window = ")
        .bind(grant.window.0)
        .sql(", constraints = ")
        .bind(constraints(grant)?)
        .sql(", status = ")
        .bind(grant.state.code())
        .sql(", grantee = ")
        .bind(binding.map(|b| b.grantee.as_str().to_owned()))
        .sql(", bound_at = ")
        .bind(binding.map(|b| b.bound_at.0))
        .sql(", expires_at = ")
        .bind(binding.map(|b| b.expires_at.0))
        .sql(", ended_at = ")
        .bind(grant.state.ended_at().map(|at| at.0))
        .sql(", reason = ")
        .bind(kept_reason(&grant.state).map(str::to_owned))
        .sql(", revision = ")
        .bind(grant.revision)
        .sql(" WHERE tenant = ")
        .bind(tenant.as_str())
        .sql(" AND id = ")
        .bind(grant.id.as_str())
        .sql(" AND revision = ")
        .bind(grant.revision.saturating_sub(1));
    unit.bulk.change(Change {
        table: GRANTS.name,
        id: grant.id.as_str().to_owned(),
        update,
    });
    Ok(())
}

/// How long after a due date the uses that were open then are looked for.
const JUST_PASSED: Span = Span::minutes(5);

/// The Tasks with grants whose time is over, or that are past due and have open grants.
pub(crate) fn due(
    connection: &mut AnyConnection,
    now: Timestamp,
    limit: u32,
) -> Result<Vec<(TenantId, TaskId)>, StoreError> {
    // The conditions are those of the partial indexes, word for word. Only what is bound, or was, has an end.
    let rows: Vec<(String, String)> = Statement::<(Text, Text)>::new(
        "SELECT DISTINCT tenant, task FROM (\
         SELECT tenant, task FROM grants WHERE expires_at IS NOT NULL AND ended_at IS NULL AND expires_at <= ",
    )
    .bind(now.0)
    .sql(
        " UNION ALL SELECT tenant, task FROM grants WHERE task_due IS NOT NULL AND ended_at IS NULL \
         AND task_due <= ",
    )
    .bind(now.0)
    .sql(
        // Open uses outlive their grants. None begins after the date, so that only the last minutes are looked at; what
        // runs on after that is found by the process where it runs.
        " UNION ALL SELECT g.tenant, g.task FROM grants g \
         JOIN redemptions r ON r.tenant = g.tenant AND r.grant_id = g.id \
         WHERE r.state IN ('authorized', 'streaming', 'interrupted') \
         AND (r.state = 'streaming' OR r.window_end > ",
    )
    .bind(now.0)
    .sql(") AND g.task_due IS NOT NULL AND g.task_due <= ")
    .bind(now.0)
    .sql(" AND g.task_due > ")
    .bind(now.0.saturating_sub(JUST_PASSED.0))
    .sql(") AS late LIMIT ")
    .bind(i64::from(limit))
    .load(connection)
    .or_refused()?;
    rows.into_iter()
        .map(|(tenant, task)| Some((TenantId::parse(tenant).ok()?, TaskId::parse(task).ok()?)))
        .collect::<Option<_>>()
        .ok_or_else(|| unreadable("grant"))
}

/// The next instant at which [`due`] has more.
pub(crate) fn next_due(
    connection: &mut AnyConnection,
    now: Timestamp,
) -> Result<Option<Timestamp>, StoreError> {
    let instants: Vec<Option<i64>> = Statement::<Nullable<BigInt>>::new(
        "SELECT min(expires_at) FROM grants WHERE expires_at IS NOT NULL AND ended_at IS NULL AND expires_at > ",
    )
    .bind(now.0)
    .sql(
        " UNION ALL SELECT min(task_due) FROM grants WHERE task_due IS NOT NULL AND ended_at IS NULL \
         AND task_due > ",
    )
    .bind(now.0)
    .load(connection)
    .or_refused()?;
    Ok(instants.into_iter().flatten().min().map(Timestamp))
}
