//! Subscriptions: their present state, and how far their deliveries are. Knows nothing of how anything is delivered.

use diesel::dsl::case_when;
use diesel::prelude::*;
use diesel::sql_types::{BigInt, Text};
use handoff_domain::ports::{Attention, Due, Kind, SearchIndex, StoreError};
use handoff_domain::subscription::{Course, Subscription, SubscriptionStatus, shard_of};
use handoff_domain::{SubscriptionId, TenantId, Timestamp};

use crate::dialect::{AnyConnection, Column, Hold, Table};
use crate::error::{OrRefused, exactly_one, unreadable};
use crate::schema::{subscription_counts as counts, subscription_courses as courses, subscriptions};
use crate::search::Digest;
use crate::statement::Statement;
use crate::unit::Unit;
use crate::{history, search};

static SUBSCRIPTIONS: Table = Table {
    name: "subscriptions",
    columns: &[
        ("tenant", Column::Text),
        ("id", Column::Text),
        ("version", Column::Int),
        ("last_updated", Column::Int),
        ("status", Column::Text),
        ("created_by", Column::Text),
        ("deleted", Column::Flag),
        ("state", Column::Text),
        ("indexed", Column::Text),
        ("sealed", Column::Bytes),
    ],
};

static COUNTS: Table = Table {
    name: "subscription_counts",
    columns: &[
        ("tenant", Column::Text),
        ("subscription", Column::Text),
        ("events", Column::Int),
    ],
};

static COURSES: Table = Table {
    name: "subscription_courses",
    columns: &[
        ("tenant", Column::Text),
        ("subscription", Column::Text),
        ("shard", Column::Int),
        ("eager", Column::Flag),
        ("due", Column::Int),
        ("delivered", Column::Int),
        ("attempts", Column::Int),
    ],
};

#[derive(Queryable, Selectable)]
#[diesel(table_name = courses)]
struct CourseRow {
    delivered: i64,
    trying: Option<i64>,
    attempts: i64,
    failing_since: Option<i64>,
    next_try: Option<i64>,
    last_sent: Option<i64>,
    problem: Option<String>,
}

impl From<CourseRow> for Course {
    fn from(row: CourseRow) -> Self {
        Self {
            delivered: row.delivered,
            trying: row.trying,
            attempts: u32::try_from(row.attempts).unwrap_or(u32::MAX),
            failing_since: row.failing_since.map(Timestamp),
            next_try: row.next_try.map(Timestamp),
            last_sent: row.last_sent.map(Timestamp),
            problem: row.problem,
        }
    }
}

fn parse(state: &str) -> Result<Subscription, StoreError> {
    serde_json::from_str(state).map_err(|_| unreadable("subscription"))
}

fn state(subscription: &Subscription) -> Result<String, StoreError> {
    serde_json::to_string(subscription)
        .map_err(|_| StoreError::Broken("a subscription can't be stored".to_owned()))
}

/// State, secrets, events, when it is to be looked at, and its course.
type Whole = (String, Vec<u8>, i64, Option<i64>, CourseRow);

fn whole((state, sealed, events, due, course): Whole) -> Result<Attention, StoreError> {
    Ok(Attention {
        subscription: parse(&state)?,
        events,
        course: course.into(),
        due: due.map(Timestamp),
        sealed,
    })
}

/// Subscriptions with all that belongs to them.
macro_rules! wholes {
    () => {
        subscriptions::table
            .inner_join(
                counts::table.on(counts::tenant
                    .eq(subscriptions::tenant)
                    .and(counts::subscription.eq(subscriptions::id))),
            )
            .inner_join(
                courses::table.on(courses::tenant
                    .eq(subscriptions::tenant)
                    .and(courses::subscription.eq(subscriptions::id))),
            )
            .select((
                subscriptions::state,
                subscriptions::sealed,
                counts::events,
                courses::due,
                CourseRow::as_select(),
            ))
    };
}

/// A Subscription with all that belongs to it, a deleted one too.
pub(crate) fn subscription(
    connection: &mut AnyConnection,
    tenant: &TenantId,
    id: &SubscriptionId,
) -> Result<Option<Attention>, StoreError> {
    wholes!()
        .filter(subscriptions::tenant.eq(tenant.as_str()))
        .filter(subscriptions::id.eq(id.as_str()))
        .first::<Whole>(connection)
        .optional()
        .or_refused()?
        .map(whole)
        .transpose()
}

/// Those that fail, or are in error with events that were not delivered; longest failing first.
pub(crate) fn undelivered(
    connection: &mut AnyConnection,
    tenant: &TenantId,
    limit: u32,
) -> Result<Vec<Attention>, StoreError> {
    let is_lost = subscriptions::status
        .eq(SubscriptionStatus::Error.as_str())
        .and(counts::events.gt(courses::delivered));
    wholes!()
        .filter(subscriptions::tenant.eq(tenant.as_str()))
        .filter(subscriptions::deleted.eq(false))
        .filter(courses::failing_since.is_not_null().or(is_lost))
        .order((courses::failing_since, subscriptions::id))
        .limit(i64::from(limit))
        .load::<Whole>(connection)
        .or_refused()?
        .into_iter()
        .map(whole)
        .collect()
}

/// How many there are that are not off: of all, and of one creator.
pub(crate) fn count(
    connection: &mut AnyConnection,
    tenant: &TenantId,
    creator: &str,
) -> Result<(u64, u64), StoreError> {
    let (all, own): (i64, i64) =
        Statement::<(BigInt, BigInt)>::new("SELECT count(*), count(CASE WHEN created_by = ")
            .bind(creator)
            .sql(" THEN 1 END) FROM subscriptions WHERE NOT deleted AND status <> 'off' AND tenant = ")
            .bind(tenant.as_str())
            .get_result(connection)
            .or_refused()?;
    Ok((u64::try_from(all).unwrap_or(0), u64::try_from(own).unwrap_or(0)))
}

/// Those of some shards with events to be delivered, or whose time has come.
pub(crate) fn due(
    connection: &mut AnyConnection,
    shards: &[u8],
    now: Timestamp,
    after: Option<&Due>,
    limit: u32,
) -> Result<Vec<Due>, StoreError> {
    let mut statement = Statement::<(Text, Text)>::new(
        "SELECT c.tenant, c.subscription FROM subscription_courses c JOIN subscription_counts n \
         ON n.tenant = c.tenant AND n.subscription = c.subscription WHERE c.shard",
    )
    .one_of(shards.iter().map(|shard| i64::from(*shard)))
    .sql(" AND (c.due <= ")
    .bind(now.0)
    .sql(" OR (c.eager AND n.events > c.delivered))");
    if let Some(after) = after {
        statement = statement
            .sql(" AND (c.tenant, c.subscription) > (")
            .bind(after.tenant.as_str())
            .sql(", ")
            .bind(after.id.as_str())
            .sql(")");
    }
    let rows: Vec<(String, String)> = statement
        .sql(" ORDER BY c.tenant, c.subscription LIMIT ")
        .bind(i64::from(limit))
        .load(connection)
        .or_refused()?;
    all_due(rows)
}

fn all_due(rows: Vec<(String, String)>) -> Result<Vec<Due>, StoreError> {
    rows.into_iter()
        .map(|(tenant, id)| {
            Ok(Due {
                tenant: TenantId::parse(tenant).map_err(|_| unreadable("subscription"))?,
                id: SubscriptionId::parse(id).map_err(|_| unreadable("subscription"))?,
            })
        })
        .collect()
}

/// The Subscription, held until the transaction ends.
pub(crate) fn lock(
    unit: &mut Unit<'_>,
    tenant: &TenantId,
    id: &SubscriptionId,
) -> Result<Option<Subscription>, StoreError> {
    unit.settle_tables(&["subscriptions"])?;
    let found: Option<(String, String)> =
        Statement::<(Text, Text)>::new("SELECT state, indexed FROM subscriptions WHERE tenant = ")
            .bind(tenant.as_str())
            .sql(" AND id = ")
            .bind(id.as_str())
            .sql(unit.connection.holding(Hold::Exclusive))
            .get_result(unit.connection)
            .optional()
            .or_refused()?;
    let Some((state, indexed)) = found else {
        return Ok(None);
    };
    let key = (tenant.clone(), Kind::Subscription, id.as_str().to_owned());
    unit.digests.insert(key, Digest::parse(&indexed)?);
    parse(&state).map(Some)
}

/// Stores a new Subscription.
pub(crate) fn insert(
    unit: &mut Unit<'_>,
    tenant: &TenantId,
    subscription: &Subscription,
    body: &[u8],
    index: &SearchIndex,
    sealed: &[u8],
) -> Result<(), StoreError> {
    let id = subscription.id.as_str();
    unit.touch(tenant, Kind::Subscription, id)?;
    let indexed = unit.index(tenant, Kind::Subscription, id, index, &Digest::default())?;
    unit.bulk.add(
        &SUBSCRIPTIONS,
        vec![
            tenant.as_str().into(),
            id.into(),
            subscription.version.into(),
            subscription.last_updated.0.into(),
            subscription.status.as_str().into(),
            subscription.created_by.as_str().into(),
            subscription.deleted.into(),
            state(subscription)?.into(),
            indexed.into(),
            sealed.to_vec().into(),
        ],
    );
    unit.bulk
        .add(&COUNTS, vec![tenant.as_str().into(), id.into(), 0_i64.into()]);
    let due = Course::default().due(subscription, subscription.last_updated);
    unit.bulk.add(
        &COURSES,
        vec![
            tenant.as_str().into(),
            id.into(),
            i64::from(shard_of(tenant, &subscription.id)).into(),
            is_eager(subscription, &Course::default()).into(),
            due.map(|due| due.0).into(),
            0_i64.into(),
            0_i64.into(),
        ],
    );
    keep_version(unit, tenant, subscription, body);
    // Who delivers looks at it at once.
    unit.told.events = true;
    raise_revision(unit, tenant)
}

/// Stores the next version of a Subscription.
pub(crate) fn update(
    unit: &mut Unit<'_>,
    tenant: &TenantId,
    subscription: &Subscription,
    body: &[u8],
    index: &SearchIndex,
    sealed: Option<&[u8]>,
) -> Result<(), StoreError> {
    let id = subscription.id.as_str();
    unit.touch(tenant, Kind::Subscription, id)?;
    unit.settle_tables(&["subscriptions"])?;
    let before = unit
        .digests
        .get(&(tenant.clone(), Kind::Subscription, id.to_owned()))
        .cloned()
        .ok_or(StoreError::Conflict)?;
    if subscription.deleted {
        search::remove(&mut unit.bulk, tenant, Kind::Subscription, id);
    }
    let (index, before) = if subscription.deleted {
        (&SearchIndex::default(), Digest::default())
    } else {
        (index, before)
    };
    let indexed = unit.index(tenant, Kind::Subscription, id, index, &before)?;
    let changed = diesel::update(subscriptions::table.find((tenant.as_str(), id)))
        .filter(subscriptions::version.eq(subscription.version.saturating_sub(1)))
        .set((
            subscriptions::version.eq(subscription.version),
            subscriptions::last_updated.eq(subscription.last_updated.0),
            subscriptions::status.eq(subscription.status.as_str()),
            subscriptions::deleted.eq(subscription.deleted),
            subscriptions::state.eq(state(subscription)?),
            subscriptions::indexed.eq(indexed),
            sealed.map(|sealed| subscriptions::sealed.eq(sealed.to_vec())),
        ))
        .execute(unit.connection)
        .or_refused()?;
    exactly_one(changed)?;
    keep_version(unit, tenant, subscription, body);
    // Who delivers looks at it at once.
    unit.told.events = true;
    raise_revision(unit, tenant)
}

fn keep_version(unit: &mut Unit<'_>, tenant: &TenantId, subscription: &Subscription, body: &[u8]) {
    history::add(
        &mut unit.bulk,
        tenant,
        Kind::Subscription,
        subscription.id.as_str(),
        subscription.version,
        subscription.last_updated,
        body,
    );
}

/// Whoever gives events away sees by this that a tenant's Subscriptions are others than before.
fn raise_revision(unit: &mut Unit<'_>, tenant: &TenantId) -> Result<(), StoreError> {
    Statement::<()>::new("INSERT INTO subscription_revisions (tenant, revision) VALUES (")
        .bind(tenant.as_str())
        .sql(", 1) ON CONFLICT (tenant) DO UPDATE SET revision = subscription_revisions.revision + 1")
        .run(unit.connection)
        .map(drop)
        .or_refused()
}

/// Whether events go out as they come, without waiting for a time.
fn is_eager(subscription: &Subscription, course: &Course) -> bool {
    !subscription.deleted
        && subscription.status == SubscriptionStatus::Active
        && subscription.channel.is_pushed()
        && course.next_try.is_none()
}

/// Writes down how far deliveries are. Whoever records what was taken writes meanwhile, and never is that undone.
pub(crate) fn set_course(
    unit: &mut Unit<'_>,
    tenant: &TenantId,
    subscription: &Subscription,
    course: &Course,
    now: Timestamp,
) -> Result<(), StoreError> {
    unit.settle_tables(&["subscription_courses"])?;
    let changed = diesel::update(courses::table.find((tenant.as_str(), subscription.id.as_str())))
        .set((
            courses::eager.eq(is_eager(subscription, course)),
            courses::due.eq(course.due(subscription, now).map(|due| due.0)),
            courses::delivered.eq(
                case_when(courses::delivered.gt(course.delivered), courses::delivered)
                    .otherwise(course.delivered),
            ),
            courses::trying.eq(course.trying),
            courses::attempts.eq(i64::from(course.attempts)),
            courses::failing_since.eq(course.failing_since.map(|at| at.0)),
            courses::next_try.eq(course.next_try.map(|at| at.0)),
            courses::last_sent.eq(course.last_sent.map(|at| at.0)),
            courses::problem.eq(course.problem.as_deref()),
        ))
        .execute(unit.connection)
        .or_refused()?;
    exactly_one(changed)
}

/// Goes back to after event `delivered`.
pub(crate) fn rewind(
    unit: &mut Unit<'_>,
    tenant: &TenantId,
    id: &SubscriptionId,
    delivered: i64,
) -> Result<(), StoreError> {
    unit.settle_tables(&["subscription_courses"])?;
    let changed = diesel::update(courses::table.find((tenant.as_str(), id.as_str())))
        .set((courses::delivered.eq(delivered), courses::trying.eq(None::<i64>)))
        .execute(unit.connection)
        .or_refused()?;
    exactly_one(changed)
}

/// Writes down that several were delivered to, in one statement: how far, and when each wants to be looked at again. Not
/// where something else has to be weighed: who is not active, or failed meanwhile, or is further by now. Answers those that
/// were written.
pub(crate) fn advance(
    unit: &mut Unit<'_>,
    delivered: &[(Due, i64, Option<Timestamp>)],
    now: Timestamp,
) -> Result<Vec<Due>, StoreError> {
    if delivered.is_empty() {
        return Ok(Vec::new());
    }
    unit.settle_tables(&["subscription_courses"])?;
    let mut statement = Statement::<(Text, Text)>::new(
        "UPDATE subscription_courses SET delivered = v.column3, due = v.column4, attempts = 0, failing_since = NULL, \
         next_try = NULL, problem = NULL, trying = CASE WHEN trying > v.column3 THEN trying END, last_sent = ",
    )
    .bind(now.0)
    .sql(" FROM (VALUES ");
    for (number, (which, until, due)) in delivered.iter().enumerate() {
        statement = statement
            .sql(if number == 0 { "(" } else { ", (" })
            .bind(which.tenant.as_str())
            .sql(", ")
            .bind(which.id.as_str())
            .sql(", ")
            .bind(*until)
            .sql(", ")
            .bind(due.map(|due| due.0))
            .sql(")");
    }
    let rows: Vec<(String, String)> = statement
        .sql(
            ") AS v WHERE subscription_courses.tenant = v.column1 AND \
             subscription_courses.subscription = v.column2 AND subscription_courses.eager \
             AND subscription_courses.delivered < v.column3 \
             RETURNING subscription_courses.tenant, subscription_courses.subscription",
        )
        .uncached()
        .load(unit.connection)
        .or_refused()?;
    all_due(rows)
}

/// Writes down what is being tried, of several in one statement; answers those of which it was written. Not where another
/// process tries something, or is further.
pub(crate) fn fix(unit: &mut Unit<'_>, tried: &[(Due, i64)]) -> Result<Vec<Due>, StoreError> {
    if tried.is_empty() {
        return Ok(Vec::new());
    }
    unit.settle_tables(&["subscription_courses"])?;
    let mut statement =
        Statement::<(Text, Text)>::new("UPDATE subscription_courses SET trying = v.column3 FROM (VALUES ");
    for (number, (which, until)) in tried.iter().enumerate() {
        statement = statement
            .sql(if number == 0 { "(" } else { ", (" })
            .bind(which.tenant.as_str())
            .sql(", ")
            .bind(which.id.as_str())
            .sql(", ")
            .bind(*until)
            .sql(")");
    }
    let rows: Vec<(String, String)> = statement
        .sql(
            ") AS v WHERE subscription_courses.tenant = v.column1 AND \
             subscription_courses.subscription = v.column2 AND subscription_courses.delivered < v.column3 \
             AND (subscription_courses.trying IS NULL OR subscription_courses.trying <= \
             subscription_courses.delivered) \
             RETURNING subscription_courses.tenant, subscription_courses.subscription",
        )
        .uncached()
        .load(unit.connection)
        .or_refused()?;
    all_due(rows)
}
