//! Notices: what sources told, from when it was taken in until it is forgotten. Knows nothing of what applying does.

use std::collections::BTreeMap;

use diesel::prelude::*;
use diesel::sql_types::{BigInt, Text};
use handoff_domain::inbox::{Matter, Notice, NoticeState, Numbered, SourceVersion};
use handoff_domain::ports::{NoticeSearch, StoreError};
use handoff_domain::{CorrelationId, NoticeId, Reason, SourceId, Span, TenantId, Timestamp};

use crate::dialect::{AnyConnection, Column, Hold, Table};
use crate::error::{OrRefused, exactly_one, unreadable};
use crate::schema::notices;
use crate::statement::Statement;
use crate::unit::Unit;

static NOTICES: Table = Table {
    name: "notices",
    columns: &[
        ("tenant", Column::Text),
        ("id", Column::Text),
        ("source", Column::Text),
        ("place", Column::Int),
        ("subscription", Column::Text),
        ("event", Column::Int),
        ("part", Column::Int),
        ("about", Column::Text),
        ("source_updated", Column::Int),
        ("source_version", Column::Text),
        ("body", Column::Bytes),
        ("received_at", Column::Int),
        ("correlation", Column::Text),
        ("state", Column::Text),
        ("state_at", Column::Int),
        ("detail", Column::Text),
        ("outcome", Column::Text),
        ("tries", Column::Int),
        ("revision", Column::Int),
        ("gone", Column::Flag),
    ],
};

#[derive(Queryable, Selectable)]
#[diesel(table_name = notices)]
struct Row {
    id: String,
    source: String,
    place: i64,
    subscription: Option<String>,
    event: Option<i64>,
    part: Option<i64>,
    about: Option<String>,
    source_updated: Option<i64>,
    source_version: Option<String>,
    received_at: i64,
    correlation: String,
    state: String,
    state_at: i64,
    detail: Option<String>,
    outcome: Option<String>,
    tries: i64,
    revision: i64,
    gone: bool,
}

impl Row {
    fn read(self, body: Vec<u8>) -> Option<Notice> {
        let at = Timestamp(self.state_at);
        let state = match self.state.as_str() {
            "waiting" => NoticeState::Waiting { due: at },
            "applied" => NoticeState::Applied {
                at,
                ours: self.detail,
            },
            "superseded" => NoticeState::Superseded { at },
            "quarantined" => NoticeState::Quarantined {
                at,
                reason: Reason::parse(self.detail.as_deref()?)?,
                outcome: self.outcome?,
            },
            "dismissed" => NoticeState::Dismissed { at },
            _ => return None,
        };
        Some(Notice {
            id: NoticeId::parse(self.id).ok()?,
            source: SourceId::parse(self.source).ok()?,
            place: self.place,
            numbered: match (self.subscription, self.event, self.part) {
                (Some(subscription), Some(event), Some(part)) => Some(Numbered {
                    subscription,
                    event,
                    part,
                }),
                _ => None,
            },
            matter: self.about.map_or(Matter::Changes, Matter::Resource),
            version: SourceVersion {
                updated: self.source_updated.map(Timestamp),
                version: self.source_version,
            },
            body,
            gone: self.gone,
            received_at: Timestamp(self.received_at),
            correlation: CorrelationId::parse(self.correlation).ok()?,
            state,
            tries: u32::try_from(self.tries).ok()?,
            revision: self.revision,
        })
    }
}

/// The columns of a state: its instant, its detail, its outcome.
fn columns(state: &NoticeState) -> (i64, Option<String>, Option<String>) {
    match state {
        NoticeState::Waiting { due } => (due.0, None, None),
        NoticeState::Applied { at, ours } => (at.0, ours.clone(), None),
        NoticeState::Superseded { at } | NoticeState::Dismissed { at } => (at.0, None, None),
        NoticeState::Quarantined { at, reason, outcome } => {
            (at.0, Some(reason.as_str().to_owned()), Some(outcome.clone()))
        }
    }
}

/// One notice with what was sent.
pub(crate) fn notice(
    connection: &mut AnyConnection,
    tenant: &TenantId,
    id: &NoticeId,
) -> Result<Option<Notice>, StoreError> {
    let row: Option<(Row, Vec<u8>)> = notices::table
        .find((tenant.as_str(), id.as_str()))
        .select((Row::as_select(), notices::body))
        .first(connection)
        .optional()
        .or_refused()?;
    row.map(|(row, body)| row.read(body).ok_or_else(|| unreadable("notice")))
        .transpose()
}

/// Notices that match, newest first, without what was sent.
pub(crate) fn search(
    connection: &mut AnyConnection,
    tenant: &TenantId,
    search: &NoticeSearch,
) -> Result<Vec<Notice>, StoreError> {
    // Whatever this is given, it is one of few words; those of partial indexes stand as such in the text.
    let word = NoticeState::WORDS
        .into_iter()
        .find(|word| *word == search.state)
        .unwrap_or("quarantined");
    let mut statement = Statement::<Text>::new("SELECT id FROM notices WHERE state = '")
        .sql(word)
        .sql("' AND tenant = ")
        .bind(tenant.as_str());
    if let Some(source) = &search.source {
        statement = statement.sql(" AND source = ").bind(source.as_str());
    }
    if let Some(about) = &search.about {
        statement = statement.sql(" AND about = ").bind(about.as_str());
    }
    if let Some(before) = &search.before {
        statement = statement.sql(" AND id < ").bind(before.as_str());
    }
    let ids: Vec<String> = statement
        .sql(" ORDER BY id DESC LIMIT ")
        .bind(i64::from(search.limit))
        .load(connection)
        .or_refused()?;
    let mut found = Vec::with_capacity(ids.len());
    for id in ids {
        let row: Option<Row> = notices::table
            .find((tenant.as_str(), id))
            .select(Row::as_select())
            .first(connection)
            .optional()
            .or_refused()?;
        if let Some(row) = row {
            found.push(row.read(Vec::new()).ok_or_else(|| unreadable("notice"))?);
        }
    }
    Ok(found)
}

/// Sources of which some wait whose time has come.
pub(crate) fn waiting_sources(
    connection: &mut AnyConnection,
    now: Timestamp,
) -> Result<Vec<(TenantId, SourceId)>, StoreError> {
    let rows: Vec<(String, String)> = Statement::<(Text, Text)>::new(
        "SELECT DISTINCT tenant, source FROM notices WHERE state = 'waiting' AND state_at <= ",
    )
    .bind(now.0)
    .load(connection)
    .or_refused()?;
    rows.into_iter()
        .map(|(tenant, source)| Some((TenantId::parse(tenant).ok()?, SourceId::parse(source).ok()?)))
        .map(|read| read.ok_or_else(|| unreadable("notice")))
        .collect()
}

/// Those of a source that wait and whose time has come, oldest first.
pub(crate) fn waiting(
    connection: &mut AnyConnection,
    tenant: &TenantId,
    source: &SourceId,
    now: Timestamp,
    limit: u32,
) -> Result<Vec<NoticeId>, StoreError> {
    let ids: Vec<String> =
        Statement::<Text>::new("SELECT id FROM notices WHERE state = 'waiting' AND tenant = ")
            .bind(tenant.as_str())
            .sql(" AND source = ")
            .bind(source.as_str())
            .sql(" AND state_at <= ")
            .bind(now.0)
            .sql(" ORDER BY state_at, place LIMIT ")
            .bind(i64::from(limit))
            .load(connection)
            .or_refused()?;
    ids.into_iter()
        .map(|id| NoticeId::parse(id).map_err(|_| unreadable("notice")))
        .collect()
}

/// How many of a source wait, and how many of them are about no resource in particular and were not begun.
pub(crate) fn backlog(
    connection: &mut AnyConnection,
    tenant: &TenantId,
    source: &SourceId,
) -> Result<(u64, u64), StoreError> {
    let (all, asking): (i64, i64) = Statement::<(BigInt, BigInt)>::new(
        "SELECT count(*), count(CASE WHEN about IS NULL AND tries = 0 THEN 1 END) FROM notices \
         WHERE state = 'waiting' AND state IN ('waiting', 'quarantined') AND tenant = ",
    )
    .bind(tenant.as_str())
    .sql(" AND source = ")
    .bind(source.as_str())
    .get_result(connection)
    .or_refused()?;
    let number = |count| u64::try_from(count).unwrap_or(0);
    Ok((number(all), number(asking)))
}

/// How many wait, and how many are quarantined.
pub(crate) fn depth(connection: &mut AnyConnection) -> Result<BTreeMap<String, u64>, StoreError> {
    let mut depth = BTreeMap::new();
    for word in ["waiting", "quarantined"] {
        let count: Option<i64> =
            Statement::<BigInt>::new(format!("SELECT count(*) FROM notices WHERE state = '{word}'"))
                .get_result(connection)
                .optional()
                .or_refused()?;
        depth.insert(word.to_owned(), u64::try_from(count.unwrap_or(0)).unwrap_or(0));
    }
    Ok(depth)
}

/// Stores a new notice.
pub(crate) fn insert(unit: &mut Unit<'_>, tenant: &TenantId, notice: &Notice) {
    let (state_at, detail, outcome) = columns(&notice.state);
    let numbered = notice.numbered.as_ref();
    unit.bulk.add(
        &NOTICES,
        vec![
            tenant.as_str().into(),
            notice.id.as_str().into(),
            notice.source.as_str().into(),
            notice.place.into(),
            numbered.map(|of| of.subscription.clone()).into(),
            numbered.map(|of| of.event).into(),
            numbered.map(|of| of.part).into(),
            notice.matter.reference().map(str::to_owned).into(),
            notice.version.updated.map(|at| at.0).into(),
            notice.version.version.clone().into(),
            notice.body.clone().into(),
            notice.received_at.0.into(),
            notice.correlation.as_str().into(),
            notice.state.as_str().into(),
            state_at.into(),
            detail.into(),
            outcome.into(),
            i64::from(notice.tries).into(),
            notice.revision.into(),
            notice.gone.into(),
        ],
    );
}

/// The notice, held until the unit ends.
pub(crate) fn lock(
    unit: &mut Unit<'_>,
    tenant: &TenantId,
    id: &NoticeId,
) -> Result<Option<Notice>, StoreError> {
    unit.settle_tables(&["notices"])?;
    Statement::<()>::new("SELECT 1 FROM notices WHERE tenant = ")
        .bind(tenant.as_str())
        .sql(" AND id = ")
        .bind(id.as_str())
        .sql(unit.connection.holding(Hold::Exclusive))
        .run(unit.connection)
        .or_refused()?;
    notice(unit.connection, tenant, id)
}

/// Stores a changed notice.
pub(crate) fn update(unit: &mut Unit<'_>, tenant: &TenantId, notice: &Notice) -> Result<(), StoreError> {
    unit.settle_tables(&["notices"])?;
    let (state_at, detail, outcome) = columns(&notice.state);
    let changed = diesel::update(notices::table.find((tenant.as_str(), notice.id.as_str())))
        .filter(notices::revision.eq(notice.revision.saturating_sub(1)))
        .set((
            notices::source_updated.eq(notice.version.updated.map(|at| at.0)),
            notices::source_version.eq(notice.version.version.as_deref()),
            notices::body.eq(notice.body.as_slice()),
            notices::state.eq(notice.state.as_str()),
            notices::state_at.eq(state_at),
            notices::detail.eq(detail),
            notices::outcome.eq(outcome),
            notices::tries.eq(i64::from(notice.tries)),
            notices::revision.eq(notice.revision),
        ))
        .execute(unit.connection)
        .or_refused()?;
    exactly_one(changed)
}

/// How much longer what was laid aside is kept.
const LAID_ASIDE_LONGER: Span = Span::hours(60 * 24);

/// Forgets what is settled and came before `until`, and what was laid aside long before that; answers how many.
pub(crate) fn forget(unit: &mut Unit<'_>, until: Timestamp) -> Result<usize, StoreError> {
    unit.settle_tables(&["notices"])?;
    Statement::<()>::new(
        "DELETE FROM notices WHERE (state IN ('applied', 'superseded', 'dismissed') AND received_at < ",
    )
    .bind(until.0)
    .sql(") OR (state = 'quarantined' AND received_at < ")
    .bind(until.plus(Span(-LAID_ASIDE_LONGER.0)).0)
    .sql(")")
    .run(unit.connection)
    .or_refused()
}
