//! Redemptions, and the feed of orders to cut their streams. Knows nothing of streams.

use diesel::prelude::*;
use diesel::sql_types::{BigInt, Text};
use handoff_domain::ports::{Cut, Loose, StoreError};
use handoff_domain::redemption::{Redemption, RedemptionState};
use handoff_domain::{ActorRef, GrantId, Reason, RedemptionId, TenantId, Timestamp};

use crate::dialect::{AnyConnection, Column, Table};
use crate::error::{OrRefused, exactly_one, unreadable};
use crate::schema::{cuts, redemptions};
use crate::statement::{Statement, Value};
use crate::unit::Unit;

static REDEMPTIONS: Table = Table {
    name: "redemptions",
    columns: &[
        ("tenant", Column::Text),
        ("id", Column::Text),
        ("grant_id", Column::Text),
        ("grantee", Column::Text),
        ("client", Column::Text),
        ("token_key", Column::Text),
        ("session", Column::Text),
        ("state", Column::Text),
        ("cut_reason", Column::Text),
        ("opened_at", Column::Int),
        ("window_end", Column::Int),
        ("ended_at", Column::Int),
        ("size", Column::Int),
        ("bytes_sent", Column::Int),
        ("sent_up_to", Column::Int),
        ("streams", Column::Int),
        ("process", Column::Text),
        ("revision", Column::Int),
    ],
};

static CUTS: Table = Table {
    name: "cuts",
    columns: &[
        ("tenant", Column::Text),
        ("grant_id", Column::Text),
        ("reason", Column::Text),
        ("at", Column::Int),
    ],
};

#[derive(Queryable, Selectable)]
#[diesel(table_name = redemptions)]
struct Row {
    id: String,
    grant_id: String,
    grantee: String,
    client: String,
    token_key: Option<String>,
    session: Option<String>,
    state: String,
    cut_reason: Option<String>,
    opened_at: i64,
    window_end: i64,
    ended_at: Option<i64>,
    size: i64,
    bytes_sent: i64,
    sent_up_to: i64,
    streams: i64,
    process: Option<String>,
    revision: i64,
}

impl Row {
    fn read(self) -> Option<Redemption> {
        Some(Redemption {
            id: RedemptionId::parse(self.id).ok()?,
            grant: GrantId::parse(self.grant_id).ok()?,
            grantee: ActorRef::parse(self.grantee).ok()?,
            client: self.client,
            key: self.token_key,
            session: self.session,
            state: RedemptionState::parse(&self.state)?,
            cut_reason: match self.cut_reason {
                Some(code) => Some(Reason::parse(&code)?),
                None => None,
            },
            opened_at: Timestamp(self.opened_at),
            window_end: Timestamp(self.window_end),
            ended_at: self.ended_at.map(Timestamp),
            size: u64::try_from(self.size).ok()?,
            bytes_sent: u64::try_from(self.bytes_sent).ok()?,
            sent_up_to: u64::try_from(self.sent_up_to).ok()?,
            streams: u32::try_from(self.streams).ok()?,
            process: self.process,
            revision: self.revision,
        })
    }
}

fn read(rows: impl IntoIterator<Item = Row>) -> Result<Vec<Redemption>, StoreError> {
    rows.into_iter()
        .map(|row| row.read().ok_or_else(|| unreadable("redemption")))
        .collect()
}

fn length(bytes: u64) -> Result<i64, StoreError> {
    i64::try_from(bytes).map_err(|_| StoreError::Broken("a size too large".to_owned()))
}

/// One redemption.
pub(crate) fn redemption(
    connection: &mut AnyConnection,
    tenant: &TenantId,
    id: &RedemptionId,
) -> Result<Option<Redemption>, StoreError> {
    let row = redemptions::table
        .find((tenant.as_str(), id.as_str()))
        .select(Row::as_select())
        .first(connection)
        .optional()
        .or_refused()?;
    Ok(read(row)?.pop())
}

/// The redemptions of a grant, newest first.
pub(crate) fn of_grant(
    connection: &mut AnyConnection,
    tenant: &TenantId,
    grant: &GrantId,
) -> Result<Vec<Redemption>, StoreError> {
    let rows = redemptions::table
        .filter(redemptions::tenant.eq(tenant.as_str()))
        .filter(redemptions::grant_id.eq(grant.as_str()))
        .order((redemptions::opened_at.desc(), redemptions::id.desc()))
        .select(Row::as_select())
        .load(connection)
        .or_refused()?;
    read(rows)
}

/// Stores a new redemption.
pub(crate) fn insert(unit: &mut Unit<'_>, tenant: &TenantId, new: &Redemption) -> Result<(), StoreError> {
    unit.bulk.add(&REDEMPTIONS, values(tenant, new)?);
    Ok(())
}

/// A redemption's row, in the order of the table's columns.
fn values(tenant: &TenantId, new: &Redemption) -> Result<Vec<Value>, StoreError> {
    Ok(vec![
        tenant.as_str().into(),
        new.id.as_str().into(),
        new.grant.as_str().into(),
        new.grantee.as_str().into(),
        new.client.as_str().into(),
        new.key.clone().into(),
        new.session.clone().into(),
        new.state.as_str().into(),
        new.cut_reason.map(|reason| reason.as_str().to_owned()).into(),
        new.opened_at.0.into(),
        new.window_end.0.into(),
        new.ended_at.map(|at| at.0).into(),
        length(new.size)?.into(),
        length(new.bytes_sent)?.into(),
        length(new.sent_up_to)?.into(),
        i64::from(new.streams).into(),
        new.process.clone().into(),
        new.revision.into(),
    ])
}

/// Stores a changed redemption, if nobody else changed it since.
pub(crate) fn update(unit: &mut Unit<'_>, tenant: &TenantId, new: &Redemption) -> Result<(), StoreError> {
    let key = [tenant.as_str().into(), new.id.as_str().into()];
    if let Some(row) = unit.bulk.waiting(&REDEMPTIONS, &key) {
        // Written first in this very unit: it is written once, as it ends up.
        if row.last() != Some(&new.revision.saturating_sub(1).into()) {
            return Err(StoreError::Conflict);
        }
        *row = values(tenant, new)?;
        return Ok(());
    }
    let changed = Statement::<()>::new("UPDATE redemptions SET state = ")
        .bind(new.state.as_str())
        .sql(", cut_reason = ")
        .bind(new.cut_reason.map(|reason| reason.as_str().to_owned()))
        .sql(", window_end = ")
        .bind(new.window_end.0)
        .sql(", ended_at = ")
        .bind(new.ended_at.map(|at| at.0))
        .sql(", bytes_sent = ")
        .bind(length(new.bytes_sent)?)
        .sql(", sent_up_to = ")
        .bind(length(new.sent_up_to)?)
        .sql(", streams = ")
        .bind(i64::from(new.streams))
        .sql(", process = ")
        .bind(new.process.clone())
        .sql(", revision = ")
        .bind(new.revision)
        .sql(" WHERE tenant = ")
        .bind(tenant.as_str())
        .sql(" AND id = ")
        .bind(new.id.as_str())
        .sql(" AND revision = ")
        .bind(new.revision.saturating_sub(1))
        .run(unit.connection)
        .or_refused()?;
    exactly_one(changed)
}

fn settle(unit: &mut Unit<'_>) -> Result<(), StoreError> {
    unit.settle_tables(&["redemptions"])
}

/// Marks the open redemptions of a grant as cut and, if there were any, orders every process to stop them.
pub(crate) fn cut(
    unit: &mut Unit<'_>,
    tenant: &TenantId,
    grant: &GrantId,
    reason: Reason,
    now: Timestamp,
) -> Result<u32, StoreError> {
    settle(unit)?;
    let changed = diesel::update(redemptions::table)
        .filter(redemptions::tenant.eq(tenant.as_str()))
        .filter(redemptions::grant_id.eq(grant.as_str()))
        .filter(redemptions::state.eq_any([
            RedemptionState::Authorized.as_str(),
            RedemptionState::Streaming.as_str(),
            RedemptionState::Interrupted.as_str(),
        ]))
        .set((
            redemptions::state.eq(RedemptionState::CutOff.as_str()),
            redemptions::cut_reason.eq(reason.as_str()),
            redemptions::ended_at.eq(now.0),
            redemptions::revision.eq(redemptions::revision + 1),
        ))
        .execute(unit.connection)
        .or_refused()?;
    make_final(unit, tenant, grant, reason)?;
    if changed > 0 {
        unit.cut = true;
        unit.bulk.add(
            &CUTS,
            vec![
                tenant.as_str().into(),
                grant.as_str().into(),
                reason.as_str().into(),
                now.0.into(),
            ],
        );
    }
    Ok(u32::try_from(changed).unwrap_or(u32::MAX))
}

/// A cut by a hold is reopened when the Task comes back; any other cut after it is final.
fn make_final(
    unit: &mut Unit<'_>,
    tenant: &TenantId,
    grant: &GrantId,
    reason: Reason,
) -> Result<(), StoreError> {
    if reason == Reason::TaskOnHold {
        return Ok(());
    }
    diesel::update(redemptions::table)
        .filter(redemptions::tenant.eq(tenant.as_str()))
        .filter(redemptions::grant_id.eq(grant.as_str()))
        .filter(redemptions::state.eq(RedemptionState::CutOff.as_str()))
        .filter(redemptions::cut_reason.eq(Reason::TaskOnHold.as_str()))
        .set((
            redemptions::cut_reason.eq(reason.as_str()),
            redemptions::revision.eq(redemptions::revision + 1),
        ))
        .execute(unit.connection)
        .or_refused()?;
    Ok(())
}

/// Reopens the redemptions of a grant that were cut for `reason` and can still be resumed.
pub(crate) fn reopen(
    unit: &mut Unit<'_>,
    tenant: &TenantId,
    grant: &GrantId,
    reason: Reason,
    now: Timestamp,
) -> Result<u32, StoreError> {
    settle(unit)?;
    let changed = diesel::update(redemptions::table)
        .filter(redemptions::tenant.eq(tenant.as_str()))
        .filter(redemptions::grant_id.eq(grant.as_str()))
        .filter(redemptions::state.eq(RedemptionState::CutOff.as_str()))
        .filter(redemptions::cut_reason.eq(reason.as_str()))
        .filter(redemptions::window_end.gt(now.0))
        .set((
            redemptions::state.eq(RedemptionState::Interrupted.as_str()),
            redemptions::cut_reason.eq(None::<String>),
            redemptions::revision.eq(redemptions::revision + 1),
        ))
        .execute(unit.connection)
        .or_refused()?;
    Ok(u32::try_from(changed).unwrap_or(u32::MAX))
}

/// Redemptions that no living process answers for.
pub(crate) fn abandoned(
    connection: &mut AnyConnection,
    silent_since: Timestamp,
    limit: u32,
) -> Result<Vec<Loose>, StoreError> {
    let rows = Statement::<(Text, Text, BigInt)>::new(
        "SELECT r.tenant, r.id, r.revision FROM redemptions r WHERE r.state IN ('authorized', 'streaming') \
         AND r.opened_at < ",
    )
    .bind(silent_since.0)
    .sql(" AND NOT EXISTS (SELECT 1 FROM processes p WHERE p.name = r.process AND p.seen >= ")
    .bind(silent_since.0)
    .sql(
        ") UNION ALL SELECT r.tenant, r.id, r.revision FROM redemptions r \
         WHERE r.state = 'authorized' AND r.window_end < ",
    )
    .bind(silent_since.0)
    .sql(" LIMIT ")
    .bind(i64::from(limit))
    .load(connection)
    .or_refused()?;
    loose(rows)
}

/// Redemptions that this process is said to stream.
pub(crate) fn streaming_at(connection: &mut AnyConnection, process: &str) -> Result<Vec<Loose>, StoreError> {
    let rows = Statement::<(Text, Text, BigInt)>::new(
        "SELECT tenant, id, revision FROM redemptions WHERE state = 'streaming' AND process = ",
    )
    .bind(process)
    .load(connection)
    .or_refused()?;
    loose(rows)
}

fn loose(rows: Vec<(String, String, i64)>) -> Result<Vec<Loose>, StoreError> {
    rows.into_iter()
        .map(|(tenant, id, revision)| {
            Some(Loose {
                tenant: TenantId::parse(tenant).ok()?,
                id: RedemptionId::parse(id).ok()?,
                revision,
            })
        })
        .collect::<Option<_>>()
        .ok_or_else(|| unreadable("redemption"))
}

/// Orders to cut, in the order of their numbers. A number is taken when its transaction writes, not when it
/// commits: a smaller one may appear after a larger, so readers ask again for the last few seconds.
pub(crate) fn cuts(connection: &mut AnyConnection, after: i64, limit: u32) -> Result<Vec<Cut>, StoreError> {
    let rows: Vec<(i64, String, String, String, i64)> = cuts::table
        .filter(cuts::sequence.gt(after))
        .order(cuts::sequence)
        .limit(i64::from(limit))
        .select((
            cuts::sequence,
            cuts::tenant,
            cuts::grant_id,
            cuts::reason,
            cuts::at,
        ))
        .load(connection)
        .or_refused()?;
    rows.into_iter()
        .map(|(sequence, tenant, grant, reason, at)| {
            Some(Cut {
                sequence,
                tenant: TenantId::parse(tenant).ok()?,
                grant: GrantId::parse(grant).ok()?,
                reason: Reason::parse(&reason)?,
                at: Timestamp(at),
            })
        })
        .collect::<Option<_>>()
        .ok_or_else(|| unreadable("cut"))
}
