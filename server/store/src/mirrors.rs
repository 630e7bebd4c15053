//! Mirrors: which resource of a source is which of ours, and which version of it came last.

use diesel::prelude::*;
use handoff_domain::inbox::{Mirror, SourceVersion};
use handoff_domain::ports::StoreError;
use handoff_domain::{NoticeId, SourceId, TenantId, Timestamp};

use crate::dialect::{AnyConnection, Column, Hold, Table};
use crate::error::{OrRefused, exactly_one, unreadable};
use crate::schema::mirrors;
use crate::statement::Statement;
use crate::unit::Unit;

static MIRRORS: Table = Table {
    name: "mirrors",
    columns: &[
        ("tenant", Column::Text),
        ("source", Column::Text),
        ("theirs", Column::Text),
        ("ours", Column::Text),
        ("source_updated", Column::Int),
        ("source_version", Column::Text),
        ("notice", Column::Text),
        ("place", Column::Int),
        ("awaits", Column::Text),
        ("revision", Column::Int),
    ],
};

#[derive(Queryable, Selectable)]
#[diesel(table_name = mirrors)]
struct Row {
    source: String,
    theirs: String,
    ours: Option<String>,
    source_updated: Option<i64>,
    source_version: Option<String>,
    notice: String,
    place: i64,
    awaits: Option<String>,
    revision: i64,
}

impl Row {
    fn read(self) -> Option<Mirror> {
        Some(Mirror {
            source: SourceId::parse(self.source).ok()?,
            theirs: self.theirs,
            ours: self.ours,
            version: SourceVersion {
                updated: self.source_updated.map(Timestamp),
                version: self.source_version,
            },
            notice: NoticeId::parse(self.notice).ok()?,
            place: self.place,
            awaits: self
                .awaits
                .map(|text| text.split_whitespace().map(str::to_owned).collect())
                .unwrap_or_default(),
            revision: self.revision,
        })
    }
}

/// References are without spaces: they are kept with one around each.
fn awaits(mirror: &Mirror) -> Option<String> {
    (!mirror.awaits.is_empty()).then(|| format!(" {} ", mirror.awaits.join(" ")))
}

/// What is known of a resource.
pub(crate) fn mirror(
    connection: &mut AnyConnection,
    tenant: &TenantId,
    source: &SourceId,
    theirs: &str,
) -> Result<Option<Mirror>, StoreError> {
    let row: Option<Row> = mirrors::table
        .find((tenant.as_str(), source.as_str(), theirs))
        .select(Row::as_select())
        .first(connection)
        .optional()
        .or_refused()?;
    row.map(|row| row.read().ok_or_else(|| unreadable("mirror")))
        .transpose()
}

/// The same, held until the unit ends.
pub(crate) fn lock(
    unit: &mut Unit<'_>,
    tenant: &TenantId,
    source: &SourceId,
    theirs: &str,
) -> Result<Option<Mirror>, StoreError> {
    unit.settle_tables(&["mirrors"])?;
    Statement::<()>::new("SELECT 1 FROM mirrors WHERE tenant = ")
        .bind(tenant.as_str())
        .sql(" AND source = ")
        .bind(source.as_str())
        .sql(" AND theirs = ")
        .bind(theirs)
        .sql(unit.connection.holding(Hold::Exclusive))
        .run(unit.connection)
        .or_refused()?;
    mirror(unit.connection, tenant, source, theirs)
}

/// Stores what is known of a resource.
pub(crate) fn put(unit: &mut Unit<'_>, tenant: &TenantId, mirror: &Mirror) -> Result<(), StoreError> {
    if mirror.revision <= 1 {
        // Another may be adding the same: one of the two is refused, and finds the row when it tries again.
        unit.bulk.add(
            &MIRRORS,
            vec![
                tenant.as_str().into(),
                mirror.source.as_str().into(),
                mirror.theirs.as_str().into(),
                mirror.ours.clone().into(),
                mirror.version.updated.map(|at| at.0).into(),
                mirror.version.version.clone().into(),
                mirror.notice.as_str().into(),
                mirror.place.into(),
                awaits(mirror).into(),
                1_i64.into(),
            ],
        );
        return Ok(());
    }
    unit.settle_tables(&["mirrors"])?;
    let key = (tenant.as_str(), mirror.source.as_str(), mirror.theirs.as_str());
    let changed = diesel::update(mirrors::table.find(key))
        .filter(mirrors::revision.eq(mirror.revision.saturating_sub(1)))
        .set((
            mirrors::ours.eq(mirror.ours.as_deref()),
            mirrors::source_updated.eq(mirror.version.updated.map(|at| at.0)),
            mirrors::source_version.eq(mirror.version.version.as_deref()),
            mirrors::notice.eq(mirror.notice.as_str()),
            mirrors::place.eq(mirror.place),
            mirrors::awaits.eq(awaits(mirror)),
            mirrors::revision.eq(mirror.revision),
        ))
        .execute(unit.connection)
        .or_refused()?;
    exactly_one(changed)
}

/// Resources that await this one.
pub(crate) fn awaiting(
    connection: &mut AnyConnection,
    tenant: &TenantId,
    source: &SourceId,
    theirs: &str,
    limit: u32,
) -> Result<Vec<Mirror>, StoreError> {
    // References hold no wildcard: a type and an id.
    let rows: Vec<Row> = mirrors::table
        .filter(mirrors::tenant.eq(tenant.as_str()))
        .filter(mirrors::source.eq(source.as_str()))
        .filter(mirrors::awaits.is_not_null())
        .filter(mirrors::awaits.like(format!("% {theirs} %")))
        .order(mirrors::theirs.asc())
        .limit(i64::from(limit))
        .select(Row::as_select())
        .load(connection)
        .or_refused()?;
    rows.into_iter()
        .map(|row| row.read().ok_or_else(|| unreadable("mirror")))
        .collect()
}
