//! Redemptions, and the feed of orders to cut their streams. Knows nothing of streams.

use diesel::prelude::*;
use diesel::sql_types::{BigInt, Nullable, Text};
use handoff_domain::ports::{Held, Loose, StoreError};
use handoff_domain::redemption::{Redemption, RedemptionState};
use handoff_domain::{ActorRef, GrantId, Reason, RedemptionId, Span, TenantId, Timestamp};

use crate::dialect::{AnyConnection, Column, Table};
use crate::error::{OrRefused, exactly_one, unreadable};
use crate::schema::redemptions;
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
    unit.told.cut |= new.state == RedemptionState::Interrupted && new.process.is_some();
    exactly_one(changed)
}

fn settle(unit: &mut Unit<'_>) -> Result<(), StoreError> {
    unit.settle_tables(&["redemptions"])
}

/// Marks the open redemptions of a grant as cut and, if there were any, has every process look for streams to stop.
/// The process stays named where one streams; what was only opened awaits no end. What was given up, with its use, has ended already.
pub(crate) fn cut(
    unit: &mut Unit<'_>,
    tenant: &TenantId,
    grant: &GrantId,
    reason: Reason,
    now: Timestamp,
) -> Result<u32, StoreError> {
    settle(unit)?;
    let changed = Statement::<()>::new("UPDATE redemptions SET state = 'cut-off', cut_reason = ")
        .bind(reason.as_str())
        .sql(", ended_at = ")
        .bind(now.0)
        .sql(
            ", process = CASE WHEN state = 'authorized' THEN NULL ELSE process END, revision = revision + 1 \
             WHERE state IN ('authorized', 'streaming', 'interrupted') AND window_end > 0 AND tenant = ",
        )
        .bind(tenant.as_str())
        .sql(" AND grant_id = ")
        .bind(grant.as_str())
        .run(unit.connection)
        .or_refused()?;
    make_final(unit, tenant, grant, reason)?;
    unit.told.cut |= changed > 0;
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

/// Reopens the redemptions of a grant that were cut for `reason` and can still be resumed; one that never streamed can still begin, and
/// is given up by who answers for it when nobody does.
pub(crate) fn reopen(
    unit: &mut Unit<'_>,
    tenant: &TenantId,
    grant: &GrantId,
    (reason, process): (Reason, &str),
    now: Timestamp,
) -> Result<u32, StoreError> {
    settle(unit)?;
    let changed = Statement::<()>::new(
        "UPDATE redemptions SET state = CASE WHEN streams = 0 THEN 'authorized' ELSE 'interrupted' END, \
         ended_at = CASE WHEN streams = 0 THEN NULL ELSE ended_at END, process = CASE WHEN streams = 0 THEN ",
    )
    .bind(process)
    .sql(
        " ELSE process END, cut_reason = NULL, revision = revision + 1 WHERE state = 'cut-off' AND tenant = ",
    )
    .bind(tenant.as_str())
    .sql(" AND grant_id = ")
    .bind(grant.as_str())
    .sql(" AND cut_reason = ")
    .bind(reason.as_str())
    .sql(" AND window_end > ")
    .bind(now.0)
    .run(unit.connection)
    .or_refused()?;
    Ok(u32::try_from(changed).unwrap_or(u32::MAX))
}

/// Redemptions that no living process answers for.
pub(crate) fn abandoned(
    connection: &mut AnyConnection,
    silence: Span,
    now: Timestamp,
    limit: u32,
) -> Result<Vec<Loose>, StoreError> {
    let clock = connection.clock();
    let rows = Statement::<(Text, Text, BigInt)>::new(
        "SELECT r.tenant, r.id, r.revision FROM redemptions r WHERE r.process IS NOT NULL \
         AND NOT EXISTS (SELECT 1 FROM processes p WHERE p.name = r.process AND p.seen >= ",
    )
    .sql(clock)
    .sql(" - ")
    .bind(silence.0)
    .sql(
        ") UNION ALL SELECT r.tenant, r.id, r.revision FROM redemptions r \
         WHERE r.process IS NOT NULL AND r.state = 'authorized' AND r.window_end < ",
    )
    .bind(now.0.saturating_sub(silence.0))
    .sql(" LIMIT ")
    .bind(i64::from(limit))
    .load(connection)
    .or_refused()?;
    rows.into_iter()
        .map(|(tenant, id, revision)| loose(tenant, id, revision))
        .collect::<Option<_>>()
        .ok_or_else(|| unreadable("redemption"))
}

fn loose(tenant: String, id: String, revision: i64) -> Option<Loose> {
    Some(Loose {
        tenant: TenantId::parse(tenant).ok()?,
        id: RedemptionId::parse(id).ok()?,
        revision,
    })
}

type HeldColumns = (
    Text,
    Text,
    BigInt,
    BigInt,
    Text,
    Nullable<Text>,
    Nullable<Text>,
    Nullable<Text>,
);
type HeldRow = (
    String,
    String,
    i64,
    i64,
    String,
    Option<String>,
    Option<String>,
    Option<String>,
);

/// Redemptions that await the end of a stream from a process, with what became of their grants.
pub(crate) fn held_by(
    connection: &mut AnyConnection,
    process: &str,
    now: Timestamp,
) -> Result<Vec<Held>, StoreError> {
    let rows = Statement::<HeldColumns>::new(
        "SELECT r.tenant, r.id, r.revision, r.streams, r.state, r.cut_reason, \
         CASE WHEN g.status NOT IN ('revoked', 'suspended') AND g.task_due <= ",
    )
    .bind(now.0)
    .sql(
        " THEN 'past-due' ELSE g.status END, g.reason \
         FROM redemptions r LEFT JOIN grants g ON g.tenant = r.tenant AND g.id = r.grant_id \
         WHERE r.process IS NOT NULL AND r.state <> 'authorized' AND r.process = ",
    )
    .bind(process)
    .load(connection)
    .or_refused()?;
    held(rows)
}

/// Those whose stream may not go on. Asked ten times a second while there are streams: an index alone answers it,
/// mostly with nothing.
pub(crate) fn halted_at(connection: &mut AnyConnection, process: &str) -> Result<Vec<Held>, StoreError> {
    let rows = Statement::<HeldColumns>::new(
        "SELECT tenant, id, revision, streams, state, cut_reason, 'bound', CAST(NULL AS TEXT) \
         FROM redemptions WHERE process IS NOT NULL AND state IN ('cut-off', 'interrupted') AND process = ",
    )
    .bind(process)
    .load(connection)
    .or_refused()?;
    held(rows)
}

fn held(rows: Vec<HeldRow>) -> Result<Vec<Held>, StoreError> {
    let parse = |code: Option<String>| code.as_deref().and_then(Reason::parse);
    let read = |(tenant, id, revision, streams, state, cut, grant, why): HeldRow| {
        let (cut_reason, grant_reason) = (parse(cut), parse(why));
        Some(Held {
            redemption: loose(tenant, id, revision)?,
            stream: u32::try_from(streams).ok()?,
            state: RedemptionState::parse(&state)?,
            cut_reason,
            grant_ended: match grant.as_deref() {
                Some("revoked" | "suspended") | None => Some(grant_reason.unwrap_or(Reason::Revoked)),
                Some("past-due") => Some(Reason::Expired),
                Some(_) => None,
            },
        })
    };
    rows.into_iter()
        .map(read)
        .collect::<Option<_>>()
        .ok_or_else(|| unreadable("redemption"))
}
