//! How far the audit was forwarded to each sink, and the rows that come next. Belongs to no tenant: a sink gets the rows of all.

use diesel::prelude::*;
use diesel::sql_types::{BigInt, Text};
use handoff_domain::TenantId;
use handoff_domain::forwarding::{Cursor, SinkName};
use handoff_domain::ledger::Entry;
use handoff_domain::ports::StoreError;

use crate::dialect::{AnyConnection, Column, Table};
use crate::error::OrRefused;
use crate::ledger;
use crate::schema::forwarding;
use crate::statement::Statement;
use crate::unit::Unit;

static CURSORS: Table = Table {
    name: "forwarding",
    columns: &[
        ("sink", Column::Text),
        ("stream", Column::Text),
        ("done", Column::Int),
        ("sending", Column::Int),
    ],
};

/// How far a sink is.
pub(crate) fn cursor(connection: &mut AnyConnection, sink: &SinkName) -> Result<Option<Cursor>, StoreError> {
    let row: Option<(String, i64, Option<i64>)> = forwarding::table
        .find(sink.as_str())
        .select((forwarding::stream, forwarding::done, forwarding::sending))
        .first(connection)
        .optional()
        .or_refused()?;
    Ok(row.map(|(stream, done, sending)| Cursor {
        sink: sink.clone(),
        stream,
        done,
        sending,
    }))
}

/// The first rows with numbers in `(after, until]`, of all tenants.
pub(crate) fn rows_of_all(
    connection: &mut AnyConnection,
    after: i64,
    until: i64,
    limit: u32,
) -> Result<Vec<(TenantId, Entry)>, StoreError> {
    if matches!(connection, AnyConnection::Sqlite(_)) {
        return rows_by_number(connection, after, until, limit);
    }
    // The key begins with the tenant. Of as many numbers as rows are asked for there are no more rows than that.
    let tenants = ledger::tenants(connection)?;
    let window = |after: i64| after.saturating_add(i64::from(limit)).min(until);
    let rows = rows_between(connection, &tenants, after, window(after), limit)?;
    if !rows.is_empty() || window(after) >= until {
        return Ok(rows);
    }
    // Numbers have holes, and there may be large ones.
    let mut first: Option<i64> = None;
    for tenant in &tenants {
        let found = ledger::entries(connection, tenant, window(after), first.unwrap_or(until), 1)?;
        first = found.first().map(|entry| entry.sequence).or(first);
    }
    let Some(before) = first.map(|first| first.saturating_sub(1)) else {
        return Ok(Vec::new());
    };
    rows_between(connection, &tenants, before, window(before), limit)
}

fn rows_between(
    connection: &mut AnyConnection,
    tenants: &[TenantId],
    after: i64,
    until: i64,
    limit: u32,
) -> Result<Vec<(TenantId, Entry)>, StoreError> {
    let mut rows = Vec::new();
    for tenant in tenants {
        let of_tenant = ledger::entries(connection, tenant, after, until, limit)?;
        rows.extend(of_tenant.into_iter().map(|entry| (tenant.clone(), entry)));
    }
    rows.sort_by_key(|(_, entry)| entry.sequence);
    Ok(rows)
}

/// Where the number alone is the key.
fn rows_by_number(
    connection: &mut AnyConnection,
    after: i64,
    until: i64,
    limit: u32,
) -> Result<Vec<(TenantId, Entry)>, StoreError> {
    let rows: Vec<(String, i64, String)> = Statement::<(Text, BigInt, Text)>::new(
        "SELECT tenant, sequence, entry FROM audit_log WHERE sequence > ",
    )
    .bind(after)
    .sql(" AND sequence <= ")
    .bind(until)
    .sql(" ORDER BY sequence LIMIT ")
    .bind(i64::from(limit))
    .load(connection)
    .or_refused()?;
    // One of no tenant of ours keeps no other from being forwarded.
    let rows = rows.into_iter().filter_map(|(tenant, sequence, text)| {
        let tenant = TenantId::parse(tenant).ok()?;
        Some((tenant, Entry { sequence, text }))
    });
    Ok(rows.collect())
}

/// Begins with a sink.
pub(crate) fn add(unit: &mut Unit<'_>, cursor: &Cursor) {
    unit.bulk.add(
        &CURSORS,
        vec![
            cursor.sink.as_str().into(),
            cursor.stream.as_str().into(),
            cursor.done.into(),
            cursor.sending.into(),
        ],
    );
}

/// Puts one cursor in the place of another; answers whether that was still there.
pub(crate) fn replace(unit: &mut Unit<'_>, from: &Cursor, to: &Cursor) -> Result<bool, StoreError> {
    unit.settle_tables(&["forwarding"])?;
    let is_as_before = forwarding::stream
        .eq(from.stream.as_str())
        .and(forwarding::done.eq(from.done));
    let set = (forwarding::done.eq(to.done), forwarding::sending.eq(to.sending));
    let row = forwarding::table.find(from.sink.as_str()).filter(is_as_before);
    let changed = match from.sending {
        Some(until) => diesel::update(row.filter(forwarding::sending.eq(until)))
            .set(set)
            .execute(unit.connection),
        None => diesel::update(row.filter(forwarding::sending.is_null()))
            .set(set)
            .execute(unit.connection),
    };
    Ok(changed.or_refused()? == 1)
}
