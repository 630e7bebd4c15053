//! Sources and what is known of their subscriptions. Knows nothing of how they prove who they are.

use diesel::prelude::*;
use handoff_domain::inbox::FeedSubscription;
use handoff_domain::ports::StoreError;
use handoff_domain::source::{Feed, Source};
use handoff_domain::{SourceId, Span, TenantId, Timestamp};

use crate::dialect::{AnyConnection, Column, Hold, Table};
use crate::error::{OrRefused, exactly_one, unreadable};
use crate::schema::{feed_subscriptions, sources};
use crate::statement::Statement;
use crate::unit::Unit;

static SOURCES: Table = Table {
    name: "sources",
    columns: &[
        ("tenant", Column::Text),
        ("id", Column::Text),
        ("settings", Column::Text),
        ("added_at", Column::Int),
        ("place", Column::Int),
        ("heard_at", Column::Int),
        ("asked_to", Column::Int),
    ],
};

static SUBSCRIPTIONS: Table = Table {
    name: "feed_subscriptions",
    columns: &[
        ("tenant", Column::Text),
        ("source", Column::Text),
        ("reference", Column::Text),
        ("status", Column::Text),
        ("last_event", Column::Int),
        ("missing", Column::Text),
        ("heard_at", Column::Int),
        ("heartbeat", Column::Int),
        ("revision", Column::Int),
    ],
};

#[derive(Queryable, Selectable)]
#[diesel(table_name = sources)]
struct Row {
    tenant: String,
    id: String,
    settings: String,
    added_at: i64,
    place: i64,
    heard_at: Option<i64>,
    asked_to: Option<i64>,
}

impl Row {
    fn read(self) -> Option<(TenantId, Source)> {
        let source = Source {
            id: SourceId::parse(self.id).ok()?,
            settings: serde_json::from_str(&self.settings).ok()?,
            added_at: Timestamp(self.added_at),
            feed: Feed {
                place: self.place,
                heard_at: self.heard_at.map(Timestamp),
                asked_to: self.asked_to.map(Timestamp),
            },
        };
        Some((TenantId::parse(self.tenant).ok()?, source))
    }
}

#[derive(Queryable, Selectable)]
#[diesel(table_name = feed_subscriptions)]
struct SubscriptionRow {
    source: String,
    reference: String,
    status: String,
    last_event: i64,
    missing: String,
    heard_at: i64,
    heartbeat: Option<i64>,
    revision: i64,
}

impl SubscriptionRow {
    fn read(self) -> Option<FeedSubscription> {
        Some(FeedSubscription {
            source: SourceId::parse(self.source).ok()?,
            reference: self.reference,
            status: self.status,
            last_event: self.last_event,
            missing: serde_json::from_str(&self.missing).ok()?,
            heard_at: Timestamp(self.heard_at),
            heartbeat: self.heartbeat.map(Span),
            revision: self.revision,
        })
    }
}

fn settings_text(source: &Source) -> Result<String, StoreError> {
    serde_json::to_string(&source.settings)
        .map_err(|_| StoreError::Broken("a source can't be stored".to_owned()))
}

/// One source.
pub(crate) fn source(
    connection: &mut AnyConnection,
    tenant: &TenantId,
    id: &SourceId,
) -> Result<Option<Source>, StoreError> {
    let row: Option<Row> = sources::table
        .find((tenant.as_str(), id.as_str()))
        .select(Row::as_select())
        .first(connection)
        .optional()
        .or_refused()?;
    row.map(|row| row.read().map(|(_, source)| source))
        .map(|read| read.ok_or_else(|| unreadable("source")))
        .transpose()
}

/// The sources of a tenant, or of all.
pub(crate) fn sources(
    connection: &mut AnyConnection,
    tenant: Option<&TenantId>,
) -> Result<Vec<(TenantId, Source)>, StoreError> {
    let ordered = sources::table.order((sources::tenant.asc(), sources::id.asc()));
    let rows: Vec<Row> = match tenant {
        Some(tenant) => ordered
            .filter(sources::tenant.eq(tenant.as_str()))
            .select(Row::as_select())
            .load(connection),
        None => ordered.select(Row::as_select()).load(connection),
    }
    .or_refused()?;
    rows.into_iter()
        .map(|row| row.read().ok_or_else(|| unreadable("source")))
        .collect()
}

/// What a source's subscriptions are known for.
pub(crate) fn subscriptions(
    connection: &mut AnyConnection,
    tenant: &TenantId,
    source: &SourceId,
) -> Result<Vec<FeedSubscription>, StoreError> {
    let rows: Vec<SubscriptionRow> = feed_subscriptions::table
        .filter(feed_subscriptions::tenant.eq(tenant.as_str()))
        .filter(feed_subscriptions::source.eq(source.as_str()))
        .order(feed_subscriptions::reference.asc())
        .select(SubscriptionRow::as_select())
        .load(connection)
        .or_refused()?;
    rows.into_iter()
        .map(|row| row.read().ok_or_else(|| unreadable("subscription of a source")))
        .collect()
}

/// Stores a new source.
pub(crate) fn insert(unit: &mut Unit<'_>, tenant: &TenantId, source: &Source) -> Result<(), StoreError> {
    unit.bulk.add(
        &SOURCES,
        vec![
            tenant.as_str().into(),
            source.id.as_str().into(),
            settings_text(source)?.into(),
            source.added_at.0.into(),
            source.feed.place.into(),
            source.feed.heard_at.map(|at| at.0).into(),
            source.feed.asked_to.map(|at| at.0).into(),
        ],
    );
    Ok(())
}

/// The source, held until the unit ends.
pub(crate) fn lock(
    unit: &mut Unit<'_>,
    tenant: &TenantId,
    id: &SourceId,
) -> Result<Option<Source>, StoreError> {
    unit.settle_tables(&["sources"])?;
    Statement::<()>::new("SELECT 1 FROM sources WHERE tenant = ")
        .bind(tenant.as_str())
        .sql(" AND id = ")
        .bind(id.as_str())
        .sql(unit.connection.holding(Hold::Exclusive))
        .run(unit.connection)
        .or_refused()?;
    source(unit.connection, tenant, id)
}

/// Stores a source that is held.
pub(crate) fn update(unit: &mut Unit<'_>, tenant: &TenantId, source: &Source) -> Result<(), StoreError> {
    unit.settle_tables(&["sources"])?;
    let changed = diesel::update(sources::table.find((tenant.as_str(), source.id.as_str())))
        .set((
            sources::settings.eq(settings_text(source)?),
            sources::place.eq(source.feed.place),
            sources::heard_at.eq(source.feed.heard_at.map(|at| at.0)),
            sources::asked_to.eq(source.feed.asked_to.map(|at| at.0)),
        ))
        .execute(unit.connection)
        .or_refused()?;
    exactly_one(changed)
}

/// Forgets a source and its subscriptions; answers whether there was one.
pub(crate) fn remove(unit: &mut Unit<'_>, tenant: &TenantId, id: &SourceId) -> Result<bool, StoreError> {
    unit.settle_tables(&["sources", "feed_subscriptions"])?;
    diesel::delete(
        feed_subscriptions::table
            .filter(feed_subscriptions::tenant.eq(tenant.as_str()))
            .filter(feed_subscriptions::source.eq(id.as_str())),
    )
    .execute(unit.connection)
    .or_refused()?;
    let removed = diesel::delete(sources::table.find((tenant.as_str(), id.as_str())))
        .execute(unit.connection)
        .or_refused()?;
    Ok(removed > 0)
}

/// Forgets what is known of a subscription.
pub(crate) fn remove_subscription(
    unit: &mut Unit<'_>,
    tenant: &TenantId,
    source: &SourceId,
    reference: &str,
) -> Result<(), StoreError> {
    unit.settle_tables(&["feed_subscriptions"])?;
    diesel::delete(feed_subscriptions::table.find((tenant.as_str(), source.as_str(), reference)))
        .execute(unit.connection)
        .or_refused()?;
    Ok(())
}

/// Stores what is known of a subscription.
pub(crate) fn put_subscription(
    unit: &mut Unit<'_>,
    tenant: &TenantId,
    known: &FeedSubscription,
) -> Result<(), StoreError> {
    let missing = serde_json::to_string(&known.missing)
        .map_err(|_| StoreError::Broken("a subscription can't be stored".to_owned()))?;
    if known.revision == 0 {
        unit.bulk.add(
            &SUBSCRIPTIONS,
            vec![
                tenant.as_str().into(),
                known.source.as_str().into(),
                known.reference.as_str().into(),
                known.status.as_str().into(),
                known.last_event.into(),
                missing.into(),
                known.heard_at.0.into(),
                known.heartbeat.map(|period| period.0).into(),
                1_i64.into(),
            ],
        );
        return Ok(());
    }
    unit.settle_tables(&["feed_subscriptions"])?;
    let key = (tenant.as_str(), known.source.as_str(), known.reference.as_str());
    let changed = diesel::update(feed_subscriptions::table.find(key))
        .filter(feed_subscriptions::revision.eq(known.revision))
        .set((
            feed_subscriptions::status.eq(known.status.as_str()),
            feed_subscriptions::last_event.eq(known.last_event),
            feed_subscriptions::missing.eq(missing),
            feed_subscriptions::heard_at.eq(known.heard_at.0),
            feed_subscriptions::heartbeat.eq(known.heartbeat.map(|period| period.0)),
            feed_subscriptions::revision.eq(known.revision.saturating_add(1)),
        ))
        .execute(unit.connection)
        .or_refused()?;
    exactly_one(changed)
}
