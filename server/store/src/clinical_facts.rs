//! Facts that sources told, each by the resource that it follows from. Knows nothing of what they forbid.

use diesel::prelude::*;
use diesel::sql_types::Text;
use handoff_domain::facts::{Fact, FactKind, Saying};
use handoff_domain::ports::StoreError;
use handoff_domain::{SourceId, TenantId, Timestamp};

use crate::dialect::{AnyConnection, Column, Table};
use crate::error::{OrRefused, unreadable};
use crate::schema::clinical_facts;
use crate::statement::Statement;
use crate::unit::Unit;

static FACTS: Table = Table {
    name: "clinical_facts",
    columns: &[
        ("tenant", Column::Text),
        ("source", Column::Text),
        ("resource", Column::Text),
        ("kind", Column::Text),
        ("subject", Column::Text),
        ("team", Column::Text),
        ("at", Column::Int),
        ("stands", Column::Flag),
        ("changed_at", Column::Int),
    ],
};

#[derive(Queryable, Selectable)]
#[diesel(table_name = clinical_facts)]
struct Row {
    tenant: String,
    source: String,
    resource: String,
    kind: String,
    subject: String,
    team: String,
    at: i64,
    stands: bool,
}

impl Row {
    fn read(self) -> Result<(TenantId, Fact), StoreError> {
        // A fact that can't be read must not be taken for none.
        let broken = || unreadable("fact");
        let fact = Fact {
            source: SourceId::parse(self.source).map_err(|_| broken())?,
            resource: self.resource,
            saying: Saying {
                kind: FactKind::parse(&self.kind).ok_or_else(broken)?,
                subject: self.subject,
                team: self.team,
            },
            at: Timestamp(self.at),
            stands: self.stands,
        };
        Ok((TenantId::parse(self.tenant).map_err(|_| broken())?, fact))
    }
}

/// Facts about these that stand.
pub(crate) fn about(
    connection: &mut AnyConnection,
    tenant: &TenantId,
    subjects: &[String],
) -> Result<Vec<Fact>, StoreError> {
    if subjects.is_empty() {
        return Ok(Vec::new());
    }
    let rows: Vec<(String, String, String, String, String, i64)> =
        Statement::<(Text, Text, Text, Text, Text, diesel::sql_types::BigInt)>::new(
            "SELECT source, resource, kind, subject, team, at FROM clinical_facts WHERE stands AND tenant = ",
        )
        .bind(tenant.as_str())
        .sql(" AND subject")
        .one_of(subjects.iter().map(String::as_str))
        .load(connection)
        .or_refused()?;
    rows.into_iter()
        .map(|(source, resource, kind, subject, team, at)| {
            let row = Row {
                tenant: tenant.as_str().to_owned(),
                source,
                resource,
                kind,
                subject,
                team,
                at,
                stands: true,
            };
            row.read().map(|(_, fact)| fact)
        })
        .collect()
}

/// Facts of all tenants that bear on releases and changed since; all that stand where `None`.
pub(crate) fn changed(
    connection: &mut AnyConnection,
    since: Option<Timestamp>,
) -> Result<Vec<(TenantId, Fact)>, StoreError> {
    let bearing = clinical_facts::table.filter(clinical_facts::kind.ne(FactKind::EncounterEnded.as_str()));
    let rows: Vec<Row> = match since {
        Some(since) => bearing
            .filter(clinical_facts::changed_at.ge(since.0))
            .select(Row::as_select())
            .load(connection),
        None => bearing
            .filter(clinical_facts::stands.eq(true))
            .select(Row::as_select())
            .load(connection),
    }
    .or_refused()?;
    // One that can't be read must not keep the others from being seen; the gate, which asks about its own, fails by it.
    Ok(rows.into_iter().filter_map(|row| row.read().ok()).collect())
}

/// What a resource is known for.
pub(crate) fn of(
    connection: &mut AnyConnection,
    tenant: &TenantId,
    source: &SourceId,
    resource: &str,
) -> Result<Vec<Fact>, StoreError> {
    let rows: Vec<Row> = clinical_facts::table
        .filter(clinical_facts::tenant.eq(tenant.as_str()))
        .filter(clinical_facts::source.eq(source.as_str()))
        .filter(clinical_facts::resource.eq(resource))
        .select(Row::as_select())
        .load(connection)
        .or_refused()?;
    rows.into_iter()
        .map(|row| row.read().map(|(_, fact)| fact))
        .collect()
}

/// Stores a fact, and has every process look at what changed.
pub(crate) fn put(
    unit: &mut Unit<'_>,
    tenant: &TenantId,
    fact: &Fact,
    now: Timestamp,
) -> Result<(), StoreError> {
    unit.settle_tables(&["clinical_facts"])?;
    unit.told.cut = true;
    let key = (
        tenant.as_str(),
        fact.source.as_str(),
        fact.resource.as_str(),
        fact.saying.kind.as_str(),
        fact.saying.subject.as_str(),
        fact.saying.team.as_str(),
    );
    let known = diesel::update(clinical_facts::table.find(key))
        .set((
            clinical_facts::at.eq(fact.at.0),
            clinical_facts::stands.eq(fact.stands),
            clinical_facts::changed_at.eq(now.0),
        ))
        .execute(unit.connection)
        .or_refused()?;
    if known == 0 {
        unit.bulk.add(
            &FACTS,
            vec![
                tenant.as_str().into(),
                fact.source.as_str().into(),
                fact.resource.as_str().into(),
                fact.saying.kind.as_str().into(),
                fact.saying.subject.as_str().into(),
                fact.saying.team.as_str().into(),
                fact.at.0.into(),
                fact.stands.into(),
                now.0.into(),
            ],
        );
    }
    Ok(())
}
