//! The events of Subscriptions: from the outbox to each that they concern, numbered without gaps. Knows nothing of who
//! is concerned.

use std::collections::HashMap;

use diesel::prelude::*;
use diesel::sql_types::{BigInt, Nullable, Text};
use handoff_domain::outbox::{Topic, TopicEvent};
use handoff_domain::ports::{Due, Pending, StoreError};
use handoff_domain::subscription::{NumberedEvent, Subscription};
use handoff_domain::trace::TraceContext;
use handoff_domain::{SubscriptionId, TenantId, Timestamp};

use crate::dialect::{AnyConnection, Column, Hold, Table};
use crate::error::{OrRefused, unreadable};
use crate::schema::{subscription_events as events, subscription_revisions as revisions, subscriptions};
use crate::statement::Statement;
use crate::unit::Unit;

static EVENTS: Table = Table {
    name: "subscription_events",
    columns: &[
        ("tenant", Column::Text),
        ("subscription", Column::Text),
        ("number", Column::Int),
        ("topic", Column::Text),
        ("focus", Column::Text),
        ("version", Column::Int),
        ("change", Column::Text),
        ("grant_id", Column::Text),
        ("correlation", Column::Text),
        ("trace", Column::Text),
        ("at", Column::Int),
    ],
};

/// An event's columns, wherever they are read from.
type EventRow = (
    String,
    String,
    i64,
    String,
    Option<String>,
    String,
    Option<String>,
    i64,
);

fn event_of(
    (topic, focus, version, change, grant, correlation, trace, at): EventRow,
) -> Result<TopicEvent, StoreError> {
    Ok(TopicEvent {
        topic: Topic::parse(&topic).ok_or_else(|| unreadable("event"))?,
        focus,
        version,
        change,
        grant,
        correlation,
        // What can't be read is of no trace: nothing else hangs on it.
        trace: trace.and_then(|text| TraceContext::parse(&text).ok()),
        at: Timestamp(at),
    })
}

/// Events of a subscription, in order.
pub(crate) fn events(
    connection: &mut AnyConnection,
    tenant: &TenantId,
    id: &SubscriptionId,
    from: i64,
    until: i64,
    limit: u32,
) -> Result<Vec<NumberedEvent>, StoreError> {
    let rows: Vec<(i64, EventRow)> = events::table
        .filter(events::tenant.eq(tenant.as_str()))
        .filter(events::subscription.eq(id.as_str()))
        .filter(events::number.between(from, until))
        .order(events::number)
        .limit(i64::from(limit))
        .select((
            events::number,
            (
                events::topic,
                events::focus,
                events::version,
                events::change,
                events::grant_id,
                events::correlation,
                events::trace,
                events::at,
            ),
        ))
        .load(connection)
        .or_refused()?;
    rows.into_iter()
        .map(|(number, row)| {
            Ok(NumberedEvent {
                number,
                event: event_of(row)?,
            })
        })
        .collect()
}

/// Whether the outbox holds events that no subscription was given yet.
pub(crate) fn has_pending(connection: &mut AnyConnection) -> Result<bool, StoreError> {
    let first: Option<i64> =
        Statement::<BigInt>::new("SELECT sequence FROM outbox WHERE pending ORDER BY sequence LIMIT 1")
            .get_result(connection)
            .optional()
            .or_refused()?;
    Ok(first.is_some())
}

/// The first of those, held. Rows of one Task are visible in the order in which they were committed, whatever the
/// order of their sequence numbers among others: whoever wrote a later one waited for the lock of its Task.
pub(crate) fn take_pending(unit: &mut Unit<'_>, limit: u32) -> Result<Vec<Pending>, StoreError> {
    type Row = (
        Text,
        BigInt,
        Text,
        Text,
        BigInt,
        Text,
        Nullable<Text>,
        Text,
        Nullable<Text>,
        BigInt,
    );
    type Read = (
        String,
        i64,
        String,
        String,
        i64,
        String,
        Option<String>,
        String,
        Option<String>,
        i64,
    );
    unit.settle_tables(&["outbox"])?;
    let rows: Vec<Read> = Statement::<Row>::new(
        "SELECT tenant, sequence, topic, focus, version, change, grant_id, correlation, trace, at FROM outbox \
         WHERE pending ORDER BY sequence LIMIT ",
    )
    .bind(i64::from(limit))
    .sql(unit.connection.holding(Hold::Exclusive))
    .load(unit.connection)
    .or_refused()?;
    rows.into_iter()
        .map(
            |(tenant, sequence, topic, focus, version, change, grant, correlation, trace, at)| {
                Ok(Pending {
                    tenant: TenantId::parse(tenant).map_err(|_| unreadable("event"))?,
                    sequence,
                    event: event_of((topic, focus, version, change, grant, correlation, trace, at))?,
                })
            },
        )
        .collect()
}

/// These have been given to whom they concern.
pub(crate) fn settle(unit: &mut Unit<'_>, pending: &[Pending]) -> Result<(), StoreError> {
    let (Some(first), Some(last)) = (pending.first(), pending.last()) else {
        return Ok(());
    };
    let numbers = pending.iter().map(|one| one.sequence);
    // The range lets the partial index find them.
    Statement::<()>::new("UPDATE outbox SET pending = FALSE WHERE pending AND sequence BETWEEN ")
        .bind(first.sequence)
        .sql(" AND ")
        .bind(last.sequence)
        .sql(" AND sequence")
        .one_of(numbers)
        .run(unit.connection)
        .map(drop)
        .or_refused()
}

/// A number for each tenant that rises with every change of its Subscriptions.
pub(crate) fn revisions(connection: &mut AnyConnection) -> Result<HashMap<TenantId, i64>, StoreError> {
    let rows: Vec<(String, i64)> = revisions::table
        .select((revisions::tenant, revisions::revision))
        .load(connection)
        .or_refused()?;
    rows.into_iter()
        .map(|(tenant, revision)| {
            let tenant = TenantId::parse(tenant).map_err(|_| unreadable("subscription"))?;
            Ok((tenant, revision))
        })
        .collect()
}

/// The Subscriptions of a tenant that count events.
pub(crate) fn counting(
    connection: &mut AnyConnection,
    tenant: &TenantId,
) -> Result<Vec<Subscription>, StoreError> {
    let rows: Vec<String> = subscriptions::table
        .filter(subscriptions::tenant.eq(tenant.as_str()))
        .filter(subscriptions::deleted.eq(false))
        .filter(subscriptions::status.ne("off"))
        .order(subscriptions::id)
        .select(subscriptions::state)
        .load(connection)
        .or_refused()?;
    rows.iter()
        .map(|state| serde_json::from_str(state).map_err(|_| unreadable("subscription")))
        .filter(|read: &Result<Subscription, _>| read.as_ref().map_or(true, Subscription::counts))
        .collect()
}

/// Numbers events for the subscriptions that they concern, and keeps them there.
pub(crate) fn give(unit: &mut Unit<'_>, given: &[(Due, Vec<TopicEvent>)]) -> Result<(), StoreError> {
    if given.is_empty() {
        return Ok(());
    }
    unit.settle_tables(&["subscription_counts", "subscription_events"])?;
    let mut statement = Statement::<(Text, Text, BigInt)>::new(
        "UPDATE subscription_counts SET events = events + v.column3 FROM (VALUES ",
    );
    for (number, (which, new)) in given.iter().enumerate() {
        statement = statement
            .sql(if number == 0 { "(" } else { ", (" })
            .bind(which.tenant.as_str())
            .sql(", ")
            .bind(which.id.as_str())
            .sql(", ")
            .bind(i64::try_from(new.len()).unwrap_or(i64::MAX))
            .sql(")");
    }
    let rows: Vec<(String, String, i64)> = statement
        .sql(
            ") AS v WHERE subscription_counts.tenant = v.column1 AND \
             subscription_counts.subscription = v.column2 \
             RETURNING subscription_counts.tenant, subscription_counts.subscription, subscription_counts.events",
        )
        .uncached()
        .load(unit.connection)
        .or_refused()?;
    if rows.len() != given.len() {
        return Err(StoreError::Conflict);
    }
    let counted: HashMap<(&str, &str), i64> = rows
        .iter()
        .map(|(tenant, id, events)| ((tenant.as_str(), id.as_str()), *events))
        .collect();
    for (which, new) in given {
        let last = counted
            .get(&(which.tenant.as_str(), which.id.as_str()))
            .ok_or(StoreError::Conflict)?;
        let before = last.saturating_sub(i64::try_from(new.len()).unwrap_or(i64::MAX));
        for (number, event) in (before.saturating_add(1)..).zip(new) {
            unit.bulk.add(
                &EVENTS,
                vec![
                    which.tenant.as_str().into(),
                    which.id.as_str().into(),
                    number.into(),
                    event.topic.as_str().into(),
                    event.focus.as_str().into(),
                    event.version.into(),
                    event.change.as_str().into(),
                    event.grant.clone().into(),
                    event.correlation.as_str().into(),
                    event.trace.map(String::from).into(),
                    event.at.0.into(),
                ],
            );
        }
    }
    unit.told.events = true;
    Ok(())
}

/// Forgets what happened before `before` in a tenant, oldest first; answers how many events of subscriptions that were.
pub(crate) fn forget(
    unit: &mut Unit<'_>,
    tenant: &TenantId,
    before: Timestamp,
    limit: u32,
) -> Result<usize, StoreError> {
    unit.settle_tables(&["subscription_events", "outbox"])?;
    let forgotten = Statement::<()>::new(
        "DELETE FROM subscription_events WHERE (tenant, subscription, number) IN (SELECT e.tenant, e.subscription, \
         e.number FROM subscription_events e WHERE e.tenant = ",
    )
    .bind(tenant.as_str())
    .sql(" AND e.at < ")
    .bind(before.0)
    .sql(" ORDER BY e.at LIMIT ")
    .bind(i64::from(limit))
    .sql(")")
    .run(unit.connection)
    .or_refused()?;
    // The outbox by its key: its rows come about in the order of time.
    Statement::<()>::new("DELETE FROM outbox WHERE NOT pending AND tenant = ")
        .bind(tenant.as_str())
        .sql(" AND at < ")
        .bind(before.0)
        .sql(" AND sequence <= (SELECT max(w.sequence) FROM (SELECT o.sequence FROM outbox o WHERE o.tenant = ")
        .bind(tenant.as_str())
        .sql(" ORDER BY o.sequence LIMIT ")
        .bind(i64::from(limit))
        .sql(") w)")
        .run(unit.connection)
        .or_refused()?;
    Ok(forgotten)
}
