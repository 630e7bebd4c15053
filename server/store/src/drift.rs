//! Where the blob store and the records differ, and when that was last looked for. Knows no blob store.

use diesel::prelude::*;
use diesel::sql_types::{BigInt, Nullable, Text};
use handoff_domain::drift::{Drift, DriftKind, Look, Shelf, Shelved};
use handoff_domain::ports::StoreError;
use handoff_domain::retention::DisposalState;
use handoff_domain::{BinaryId, TenantId, Timestamp};

use crate::dialect::AnyConnection;
use crate::error::{OrRefused, unreadable};
use crate::schema::{drift, drift_looks};
use crate::statement::Statement;
use crate::unit::Unit;

type ShelvedRow = (String, i64, String, i64, Option<String>, Option<i64>);
type ShelvedFields = (Text, BigInt, Text, BigInt, Nullable<Text>, Nullable<BigInt>);

/// What records say of their content.
pub(crate) fn shelved(
    connection: &mut AnyConnection,
    tenant: &TenantId,
    after: Option<&str>,
    until: Option<&str>,
    limit: u32,
) -> Result<Vec<Shelved>, StoreError> {
    let mut statement = Statement::<ShelvedFields>::new(
        "SELECT b.id, b.size, b.blob_etag, b.created, d.state, d.state_at FROM binaries b \
         LEFT JOIN disposals d ON d.tenant = b.tenant AND d.\"binary\" = b.id WHERE b.tenant = ",
    )
    .bind(tenant.as_str());
    if let Some(after) = after {
        statement = statement.sql(" AND b.id > ").bind(after);
    }
    if let Some(until) = until {
        statement = statement.sql(" AND b.id <= ").bind(until);
    }
    let rows: Vec<ShelvedRow> = statement
        .sql(" ORDER BY b.id LIMIT ")
        .bind(i64::from(limit))
        .load(connection)
        .or_refused()?;
    rows.into_iter()
        .map(|row| read_shelved(row).ok_or_else(|| unreadable("Binary")))
        .collect()
}

fn read_shelved((id, size, etag, created, state, state_at): ShelvedRow) -> Option<Shelved> {
    let state = match state {
        Some(state) => Some(DisposalState::parse(&state)?),
        None => None,
    };
    let (shelf, since) = match state {
        None | Some(DisposalState::Marked) => (Shelf::Kept, created),
        Some(DisposalState::Deleting) => (Shelf::Going, state_at?),
        Some(DisposalState::Gone) => (Shelf::Gone, state_at?),
    };
    Some(Shelved {
        id: BinaryId::parse(id).ok()?,
        size: u64::try_from(size).ok()?,
        etag,
        shelf,
        since: Timestamp(since),
    })
}

#[derive(Queryable, Selectable)]
#[diesel(table_name = drift)]
struct DriftRow {
    name: String,
    kind: String,
    size: i64,
    found_at: i64,
}

impl DriftRow {
    fn read(self) -> Result<Drift, StoreError> {
        let (Some(kind), Ok(size)) = (DriftKind::parse(&self.kind), u64::try_from(self.size)) else {
            return Err(unreadable("drift"));
        };
        Ok(Drift {
            name: self.name,
            kind,
            size,
            found: Timestamp(self.found_at),
        })
    }
}

/// The differences that are known.
pub(crate) fn all(
    connection: &mut AnyConnection,
    tenant: &TenantId,
    after: Option<&str>,
    limit: u32,
) -> Result<Vec<Drift>, StoreError> {
    let mut query = drift::table
        .filter(drift::tenant.eq(tenant.as_str()))
        .order(drift::name)
        .limit(i64::from(limit))
        .select(DriftRow::as_select())
        .into_boxed();
    if let Some(after) = after {
        query = query.filter(drift::name.gt(after));
    }
    let rows: Vec<DriftRow> = query.load(connection).or_refused()?;
    rows.into_iter().map(DriftRow::read).collect()
}

/// Those of these names.
pub(crate) fn of(
    connection: &mut AnyConnection,
    tenant: &TenantId,
    names: &[String],
) -> Result<Vec<Drift>, StoreError> {
    type Row = (String, String, i64, i64);
    let rows: Vec<Row> = Statement::<(Text, Text, BigInt, BigInt)>::new(
        "SELECT name, kind, size, found_at FROM drift WHERE tenant = ",
    )
    .bind(tenant.as_str())
    .sql(" AND name")
    .one_of(names.iter().map(String::as_str))
    .load(connection)
    .or_refused()?;
    let read = |(name, kind, size, found_at)| {
        DriftRow {
            name,
            kind,
            size,
            found_at,
        }
        .read()
    };
    rows.into_iter().map(read).collect()
}

/// Those that no look has seen since.
pub(crate) fn unseen(
    connection: &mut AnyConnection,
    tenant: &TenantId,
    began: Timestamp,
    limit: u32,
) -> Result<Vec<Drift>, StoreError> {
    let rows: Vec<DriftRow> = drift::table
        .filter(drift::tenant.eq(tenant.as_str()))
        .filter(drift::seen_at.lt(began.0))
        .order(drift::name)
        .limit(i64::from(limit))
        .select(DriftRow::as_select())
        .load(connection)
        .or_refused()?;
    rows.into_iter().map(DriftRow::read).collect()
}

/// How many there are of each kind.
pub(crate) fn counts(
    connection: &mut AnyConnection,
    tenant: Option<&TenantId>,
) -> Result<Vec<(DriftKind, u64, u64)>, StoreError> {
    let mut statement = Statement::<(Text, BigInt, BigInt)>::new(
        "SELECT kind, count(*), CAST(coalesce(sum(size), 0) AS BIGINT) FROM drift",
    );
    if let Some(tenant) = tenant {
        statement = statement.sql(" WHERE tenant = ").bind(tenant.as_str());
    }
    let rows: Vec<(String, i64, i64)> = statement.sql(" GROUP BY kind").load(connection).or_refused()?;
    rows.into_iter()
        .map(|(kind, count, bytes)| {
            let kind = DriftKind::parse(&kind).ok_or_else(|| unreadable("drift"))?;
            Ok((kind, count.unsigned_abs(), bytes.unsigned_abs()))
        })
        .collect()
}

/// The last complete look.
pub(crate) fn last_look(
    connection: &mut AnyConnection,
    tenant: &TenantId,
) -> Result<Option<Look>, StoreError> {
    let row: Option<(i64, i64, i64, i64, Option<i64>)> = drift_looks::table
        .find(tenant.as_str())
        .select((
            drift_looks::began_at,
            drift_looks::ended_at,
            drift_looks::objects,
            drift_looks::bytes,
            drift_looks::asked_at,
        ))
        .first(connection)
        .optional()
        .or_refused()?;
    Ok(row.map(|(began, ended, objects, bytes, asked)| Look {
        began: Timestamp(began),
        ended: Timestamp(ended),
        objects: objects.unsigned_abs(),
        bytes: bytes.unsigned_abs(),
        asked: asked.map(Timestamp),
    }))
}

/// Keeps a difference.
pub(crate) fn note(
    unit: &mut Unit<'_>,
    tenant: &TenantId,
    drift: &Drift,
    seen: Timestamp,
) -> Result<(), StoreError> {
    Statement::<()>::new("INSERT INTO drift (tenant, name, kind, size, found_at, seen_at) VALUES (")
        .bind(tenant.as_str())
        .sql(", ")
        .bind(drift.name.as_str())
        .sql(", ")
        .bind(drift.kind.as_str())
        .sql(", ")
        .bind(whole(drift.size))
        .sql(", ")
        .bind(drift.found.0)
        .sql(", ")
        .bind(seen.0)
        .sql(
            ") ON CONFLICT (tenant, name) DO UPDATE SET kind = excluded.kind, size = excluded.size, \
             found_at = excluded.found_at, seen_at = excluded.seen_at",
        )
        .execute(unit.connection)
        .or_refused()
        .map(drop)
}

/// Forgets a difference.
pub(crate) fn forget(unit: &mut Unit<'_>, tenant: &TenantId, name: &str) -> Result<(), StoreError> {
    diesel::delete(drift::table.find((tenant.as_str(), name)))
        .execute(unit.connection)
        .or_refused()
        .map(drop)
}

/// Notes that another look is asked for.
pub(crate) fn ask_for_look(unit: &mut Unit<'_>, tenant: &TenantId, now: Timestamp) -> Result<(), StoreError> {
    diesel::update(drift_looks::table.find(tenant.as_str()))
        .set(drift_looks::asked_at.eq(now.0))
        .execute(unit.connection)
        .or_refused()
        .map(drop)
}

/// Keeps a look.
pub(crate) fn keep_look(unit: &mut Unit<'_>, tenant: &TenantId, look: &Look) -> Result<(), StoreError> {
    Statement::<()>::new("INSERT INTO drift_looks (tenant, began_at, ended_at, objects, bytes) VALUES (")
        .bind(tenant.as_str())
        .sql(", ")
        .bind(look.began.0)
        .sql(", ")
        .bind(look.ended.0)
        .sql(", ")
        .bind(whole(look.objects))
        .sql(", ")
        .bind(whole(look.bytes))
        .sql(
            ") ON CONFLICT (tenant) DO UPDATE SET began_at = excluded.began_at, ended_at = excluded.ended_at, \
             objects = excluded.objects, bytes = excluded.bytes",
        )
        .execute(unit.connection)
        .or_refused()
        .map(drop)
}

fn whole(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
