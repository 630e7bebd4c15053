//! Holds, the clocks of documents, and content that is disposed of. Knows nothing of what they mean.

use diesel::prelude::*;
use diesel::sql_types::{BigInt, Nullable, Text};
use handoff_domain::document::Document;
use handoff_domain::hold::{Hold, HoldTarget};
use handoff_domain::ports::{Classes, StoreError};
use handoff_domain::retention::{Cause, Disposal, DisposalState, KeptDocument};
use handoff_domain::{ActorRef, BinaryId, DocumentId, HoldId, TenantId, Timestamp};

use crate::dialect::{AnyConnection, Column, Table};
use crate::documents;
use crate::error::{OrRefused, exactly_one, unreadable};
use crate::schema::{binaries, disposals, documents as stored, holds};
use crate::statement::Statement;
use crate::unit::Unit;

static HOLDS: Table = Table {
    name: "holds",
    columns: &[
        ("tenant", Column::Text),
        ("id", Column::Text),
        ("kind", Column::Text),
        ("value", Column::Text),
        ("note", Column::Text),
        ("placed_at", Column::Int),
        ("placed_by", Column::Text),
        ("until", Column::Int),
        ("lifted_at", Column::Int),
        ("lifted_by", Column::Text),
    ],
};

#[derive(Queryable, Selectable)]
#[diesel(table_name = holds)]
struct HoldRow {
    id: String,
    kind: String,
    value: String,
    note: String,
    placed_at: i64,
    placed_by: String,
    until: Option<i64>,
    lifted_at: Option<i64>,
    lifted_by: Option<String>,
}

impl HoldRow {
    // One that can't be read must not be taken for none.
    fn read(self) -> Result<Hold, StoreError> {
        let read = || {
            Some(Hold {
                id: HoldId::parse(self.id).ok()?,
                target: HoldTarget::parse(&self.kind, &self.value).ok()?,
                note: self.note,
                placed_at: Timestamp(self.placed_at),
                placed_by: ActorRef::parse(self.placed_by).ok()?,
                until: self.until.map(Timestamp),
                lifted: match (self.lifted_at, self.lifted_by) {
                    (Some(at), Some(by)) => Some((Timestamp(at), ActorRef::parse(by).ok()?)),
                    _ => None,
                },
            })
        };
        read().ok_or_else(|| unreadable("hold"))
    }
}

/// The holds of a tenant that stand, newest first.
pub(crate) fn holds(
    connection: &mut AnyConnection,
    tenant: &TenantId,
    now: Timestamp,
    limit: u32,
) -> Result<Vec<Hold>, StoreError> {
    let rows: Vec<HoldRow> = holds::table
        .filter(holds::tenant.eq(tenant.as_str()))
        .filter(holds::lifted_at.is_null())
        .filter(holds::until.is_null().or(holds::until.gt(now.0)))
        .order((holds::placed_at.desc(), holds::id.desc()))
        .limit(i64::from(limit))
        .select(HoldRow::as_select())
        .load(connection)
        .or_refused()?;
    rows.into_iter().map(HoldRow::read).collect()
}

/// One hold, whether it stands or not.
pub(crate) fn hold(
    connection: &mut AnyConnection,
    tenant: &TenantId,
    id: &HoldId,
) -> Result<Option<Hold>, StoreError> {
    let row: Option<HoldRow> = holds::table
        .find((tenant.as_str(), id.as_str()))
        .select(HoldRow::as_select())
        .first(connection)
        .optional()
        .or_refused()?;
    row.map(HoldRow::read).transpose()
}

/// As [`holds`], and nobody else locks or places any meanwhile: on SQLite nobody else writes.
pub(crate) fn lock(
    unit: &mut Unit<'_>,
    tenant: &TenantId,
    now: Timestamp,
    limit: u32,
) -> Result<Vec<Hold>, StoreError> {
    unit.settle_tables(&["holds"])?;
    if matches!(unit.connection, AnyConnection::Postgres(_)) {
        diesel::sql_query("LOCK TABLE holds IN SHARE ROW EXCLUSIVE MODE")
            .execute(unit.connection)
            .or_refused()?;
    }
    holds(unit.connection, tenant, now, limit)
}

/// Places a hold.
pub(crate) fn place(unit: &mut Unit<'_>, tenant: &TenantId, hold: &Hold) {
    unit.bulk.add(
        &HOLDS,
        vec![
            tenant.as_str().into(),
            hold.id.as_str().into(),
            hold.target.kind().into(),
            hold.target.value().into(),
            hold.note.as_str().into(),
            hold.placed_at.0.into(),
            hold.placed_by.as_str().into(),
            hold.until.map(|until| until.0).into(),
            hold.lifted.as_ref().map(|(at, _)| at.0).into(),
            hold.lifted.as_ref().map(|(_, by)| by.as_str().to_owned()).into(),
        ],
    );
}

/// Lifts a hold; answers whether it was not lifted before.
pub(crate) fn lift(
    unit: &mut Unit<'_>,
    tenant: &TenantId,
    id: &HoldId,
    by: &ActorRef,
    now: Timestamp,
) -> Result<bool, StoreError> {
    unit.settle_tables(&["holds"])?;
    let lifted = diesel::update(holds::table.find((tenant.as_str(), id.as_str())))
        .filter(holds::lifted_at.is_null())
        .set((holds::lifted_at.eq(now.0), holds::lifted_by.eq(by.as_str())))
        .execute(unit.connection)
        .or_refused()?;
    Ok(lifted > 0)
}

fn kept(state: &str, created: Option<i64>) -> Result<KeptDocument, StoreError> {
    Ok(KeptDocument {
        document: documents::parse(state)?,
        created: created.map(Timestamp),
    })
}

/// A document with when it was created.
pub(crate) fn kept_document(
    connection: &mut AnyConnection,
    tenant: &TenantId,
    id: &DocumentId,
) -> Result<Option<KeptDocument>, StoreError> {
    let row: Option<(String, Option<i64>)> = stored::table
        .find((tenant.as_str(), id.as_str()))
        .select((stored::state, stored::created))
        .first(connection)
        .optional()
        .or_refused()?;
    row.map(|(state, created)| kept(&state, created)).transpose()
}

/// Documents of some classes by when they were created.
pub(crate) fn documents_by_age(
    connection: &mut AnyConnection,
    tenant: &TenantId,
    classes: &Classes,
    until: Timestamp,
    after: Option<&(Timestamp, DocumentId)>,
    limit: u32,
) -> Result<Vec<KeptDocument>, StoreError> {
    let statement = Statement::<(Text, Nullable<BigInt>)>::new(
        "SELECT state, created FROM documents WHERE disposed_at IS NULL AND tenant = ",
    )
    .bind(tenant.as_str());
    let statement = match classes {
        Classes::One(class) => statement.sql(" AND class = ").bind(class.as_str()),
        Classes::AllBut(others) if others.is_empty() => statement,
        Classes::AllBut(others) => statement
            .sql(" AND (class IS NULL OR class NOT")
            .one_of(others.iter().map(String::as_str))
            .sql(")"),
    };
    let statement = statement.sql(" AND created <= ").bind(until.0);
    let statement = match after {
        Some((at, id)) => statement
            .sql(" AND (created > ")
            .bind(at.0)
            .sql(" OR (created = ")
            .bind(at.0)
            .sql(" AND id > ")
            .bind(id.as_str())
            .sql("))"),
        None => statement,
    };
    let rows: Vec<(String, Option<i64>)> = statement
        .sql(" ORDER BY created, id LIMIT ")
        .bind(i64::from(limit))
        .load(connection)
        .or_refused()?;
    rows.iter()
        .map(|(state, created)| kept(state, *created))
        .collect()
}

/// Documents whose availability has changed.
pub(crate) fn documents_turned(
    connection: &mut AnyConnection,
    now: Timestamp,
    limit: u32,
) -> Result<Vec<(TenantId, DocumentId)>, StoreError> {
    let rows: Vec<(String, String)> = stored::table
        .filter(stored::turns.le(now.0))
        .order(stored::turns)
        .limit(i64::from(limit))
        .select((stored::tenant, stored::id))
        .load(connection)
        .or_refused()?;
    rows.into_iter()
        .map(|(tenant, id)| {
            let tenant = TenantId::parse(tenant).map_err(|_| unreadable("document"))?;
            let id = DocumentId::parse(id).map_err(|_| unreadable("document"))?;
            Ok((tenant, id))
        })
        .collect()
}

/// The Binaries that belong to a document.
pub(crate) fn binaries_of(
    connection: &mut AnyConnection,
    tenant: &TenantId,
    document: &DocumentId,
) -> Result<Vec<BinaryId>, StoreError> {
    let rows: Vec<String> = binaries::table
        .filter(binaries::tenant.eq(tenant.as_str()))
        .filter(binaries::document.eq(document.as_str()))
        .order(binaries::id)
        .select(binaries::id)
        .load(connection)
        .or_refused()?;
    rows.into_iter()
        .map(|id| BinaryId::parse(id).map_err(|_| unreadable("Binary")))
        .collect()
}

/// Changes the clocks of a locked document.
pub(crate) fn keep(
    unit: &mut Unit<'_>,
    tenant: &TenantId,
    document: &Document,
    turns: Option<Timestamp>,
    now: Timestamp,
) -> Result<(), StoreError> {
    documents::restate(unit, tenant, document)?;
    let disposed_at = document.disposed.then_some(stored::disposed_at.eq(now.0));
    let changed = diesel::update(stored::table.find((tenant.as_str(), document.id.as_str())))
        .set((stored::turns.eq(turns.map(|at| at.0)), disposed_at))
        .execute(unit.connection)
        .or_refused()?;
    exactly_one(changed)
}

#[derive(Queryable, Selectable)]
#[diesel(table_name = disposals)]
struct DisposalRow {
    tenant: String,
    binary: String,
    document: Option<String>,
    cause: String,
    schedule: String,
    marked_at: i64,
    due: i64,
    state: String,
    state_at: i64,
}

impl DisposalRow {
    fn read(self) -> Result<(TenantId, Disposal), StoreError> {
        let read = || {
            let disposal = Disposal {
                binary: BinaryId::parse(self.binary).ok()?,
                document: self.document.map(DocumentId::parse).transpose().ok()?,
                cause: Cause::parse(&self.cause)?,
                schedule: self.schedule,
                marked_at: Timestamp(self.marked_at),
                due: Timestamp(self.due),
                state: DisposalState::parse(&self.state)?,
                state_at: Timestamp(self.state_at),
            };
            Some((TenantId::parse(self.tenant).ok()?, disposal))
        };
        read().ok_or_else(|| unreadable("disposal"))
    }
}

/// What is disposed of a document.
pub(crate) fn disposals_of(
    connection: &mut AnyConnection,
    tenant: &TenantId,
    document: &DocumentId,
) -> Result<Vec<Disposal>, StoreError> {
    let rows: Vec<DisposalRow> = disposals::table
        .filter(disposals::tenant.eq(tenant.as_str()))
        .filter(disposals::document.eq(document.as_str()))
        .order(disposals::binary)
        .select(DisposalRow::as_select())
        .load(connection)
        .or_refused()?;
    rows.into_iter().map(|row| Ok(row.read()?.1)).collect()
}

/// Content that may be deleted by `now` and is not gone.
pub(crate) fn disposals_due(
    connection: &mut AnyConnection,
    now: Timestamp,
    after: Option<&(TenantId, BinaryId)>,
    limit: u32,
) -> Result<Vec<(TenantId, Disposal)>, StoreError> {
    let mut query = disposals::table
        .filter(disposals::state.ne(DisposalState::Gone.as_str()))
        .filter(disposals::due.le(now.0))
        .order((disposals::tenant, disposals::binary))
        .limit(i64::from(limit))
        .select(DisposalRow::as_select())
        .into_boxed();
    if let Some((tenant, binary)) = after {
        let of_later = disposals::tenant.gt(tenant.as_str());
        let of_same = disposals::tenant
            .eq(tenant.as_str())
            .and(disposals::binary.gt(binary.as_str()));
        query = query.filter(of_later.or(of_same));
    }
    let rows: Vec<DisposalRow> = query.load(connection).or_refused()?;
    rows.into_iter().map(DisposalRow::read).collect()
}

/// How much is marked and not gone, and when the longest-due of it was to be.
pub(crate) fn disposals_waiting(
    connection: &mut AnyConnection,
) -> Result<(u64, Option<Timestamp>), StoreError> {
    let (count, first): (i64, Option<i64>) = disposals::table
        .filter(disposals::state.ne(DisposalState::Gone.as_str()))
        .select((diesel::dsl::count_star(), diesel::dsl::min(disposals::due)))
        .first(connection)
        .or_refused()?;
    Ok((u64::try_from(count).unwrap_or(0), first.map(Timestamp)))
}

/// Marks content, unless it is.
pub(crate) fn mark(unit: &mut Unit<'_>, tenant: &TenantId, disposal: &Disposal) -> Result<(), StoreError> {
    Statement::<()>::new(
        "INSERT INTO disposals (tenant, \"binary\", document, cause, schedule, marked_at, due, state, state_at) VALUES (",
    )
    .bind(tenant.as_str())
    .sql(", ")
    .bind(disposal.binary.as_str())
    .sql(", ")
    .bind(disposal.document.as_ref().map(|id| id.as_str().to_owned()))
    .sql(", ")
    .bind(disposal.cause.as_str())
    .sql(", ")
    .bind(disposal.schedule.as_str())
    .sql(", ")
    .bind(disposal.marked_at.0)
    .sql(", ")
    .bind(disposal.due.0)
    .sql(", ")
    .bind(disposal.state.as_str())
    .sql(", ")
    .bind(disposal.state_at.0)
    .sql(") ON CONFLICT DO NOTHING")
    .execute(unit.connection)
    .or_refused()?;
    Ok(())
}

/// Has what is marked of a document be deleted for another cause, from now on.
pub(crate) fn hasten(
    unit: &mut Unit<'_>,
    tenant: &TenantId,
    document: &DocumentId,
    cause: Cause,
    now: Timestamp,
) -> Result<(), StoreError> {
    diesel::update(disposals::table)
        .filter(disposals::tenant.eq(tenant.as_str()))
        .filter(disposals::document.eq(document.as_str()))
        .filter(disposals::state.eq(DisposalState::Marked.as_str()))
        .set((disposals::cause.eq(cause.as_str()), disposals::due.eq(now.0)))
        .execute(unit.connection)
        .or_refused()?;
    Ok(())
}

/// Goes on with what is disposed of; answers whether it was there.
pub(crate) fn advance(
    unit: &mut Unit<'_>,
    tenant: &TenantId,
    binary: &BinaryId,
    (from, to): (DisposalState, DisposalState),
    now: Timestamp,
) -> Result<bool, StoreError> {
    let moved = diesel::update(disposals::table.find((tenant.as_str(), binary.as_str())))
        .filter(disposals::state.eq(from.as_str()))
        .set((disposals::state.eq(to.as_str()), disposals::state_at.eq(now.0)))
        .execute(unit.connection)
        .or_refused()?;
    Ok(moved > 0)
}
