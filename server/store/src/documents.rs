//! Documents: the present state of each DocumentReference. Knows nothing of the bytes.

use std::collections::BTreeSet;

use diesel::prelude::*;
use diesel::sql_types::Text;
use handoff_domain::document::Document;
use handoff_domain::ports::{Kind, SearchIndex, StoreError};
use handoff_domain::{DocumentId, TenantId};

use crate::dialect::{AnyConnection, Column, Hold, Table};
use crate::error::{OrRefused, exactly_one, unreadable};
use crate::schema::documents;
use crate::search::Digest;
use crate::statement::Statement;
use crate::unit::{HeldDocument, Unit};
use crate::{history, search};

static DOCUMENTS: Table = Table {
    name: "documents",
    columns: &[
        ("tenant", Column::Text),
        ("id", Column::Text),
        ("version", Column::Int),
        ("last_updated", Column::Int),
        ("status", Column::Text),
        ("patient", Column::Text),
        ("created_by", Column::Text),
        ("deleted", Column::Flag),
        ("state", Column::Text),
        ("indexed", Column::Text),
        ("class", Column::Text),
        ("created", Column::Int),
        ("turns", Column::Int),
        ("disposed_at", Column::Int),
    ],
};

pub(crate) fn parse(state: &str) -> Result<Document, StoreError> {
    serde_json::from_str(state).map_err(|_| unreadable("document"))
}

fn state(document: &Document) -> Result<String, StoreError> {
    serde_json::to_string(document).map_err(|_| StoreError::Broken("a document can't be stored".to_owned()))
}

/// The document, a deleted one too.
pub(crate) fn document(
    connection: &mut AnyConnection,
    tenant: &TenantId,
    id: &DocumentId,
) -> Result<Option<Document>, StoreError> {
    documents::table
        .find((tenant.as_str(), id.as_str()))
        .select(documents::state)
        .first::<String>(connection)
        .optional()
        .or_refused()?
        .map(|state| parse(&state))
        .transpose()
}

/// The documents, held until the transaction ends.
pub(crate) fn lock(
    unit: &mut Unit<'_>,
    tenant: &TenantId,
    ids: &[DocumentId],
    hold: Hold,
) -> Result<Vec<Document>, StoreError> {
    let key = |id: &DocumentId| (tenant.clone(), id.clone());
    let enough = |held: &HeldDocument| hold == Hold::Shared || held.hold == Hold::Exclusive;
    let unheld: BTreeSet<&DocumentId> = ids
        .iter()
        .filter(|id| !unit.documents.get(&key(id)).is_some_and(enough))
        .collect();
    if !unheld.is_empty() {
        let rows: Vec<(String, String)> =
            Statement::<(Text, Text)>::new("SELECT state, indexed FROM documents WHERE tenant = ")
                .bind(tenant.as_str())
                .sql(" AND id")
                .one_of(unheld.into_iter().map(DocumentId::as_str))
                .sql(" ORDER BY id")
                .sql(unit.connection.holding(hold))
                .load(unit.connection)
                .or_refused()?;
        for (state, indexed) in rows {
            let document = parse(&state)?;
            let digest = Digest::parse(&indexed)?;
            let name = document.id.as_str().to_owned();
            unit.digests
                .insert((tenant.clone(), Kind::Document, name), digest);
            keep(unit, tenant, &document, hold);
        }
    }
    let ids: BTreeSet<&DocumentId> = ids.iter().collect();
    Ok(ids
        .into_iter()
        .filter_map(|id| unit.documents.get(&key(id)))
        .map(|held| held.document.clone())
        .collect())
}

/// Notes a document as held by this unit.
fn keep(unit: &mut Unit<'_>, tenant: &TenantId, document: &Document, hold: Hold) {
    let key = (tenant.clone(), document.id.clone());
    let document = document.clone();
    unit.documents.insert(key, HeldDocument { document, hold });
}

/// Stores a new document.
pub(crate) fn insert(
    unit: &mut Unit<'_>,
    tenant: &TenantId,
    document: &Document,
    body: &[u8],
    index: &SearchIndex,
) -> Result<(), StoreError> {
    let id = document.id.as_str();
    unit.touch(tenant, Kind::Document, id)?;
    let indexed = unit.index(tenant, Kind::Document, id, index, &Digest::default())?;
    keep(unit, tenant, document, Hold::Exclusive);
    unit.bulk.add(
        &DOCUMENTS,
        vec![
            tenant.as_str().into(),
            id.into(),
            document.version.into(),
            document.last_updated.0.into(),
            document.facts.status.as_str().into(),
            search::first_reference(index, &["subject", "patient"]).into(),
            document.created_by.as_str().into(),
            document.deleted.into(),
            state(document)?.into(),
            indexed.into(),
            document.class.clone().into(),
            document.last_updated.0.into(),
            document
                .availability
                .next_change(document.last_updated)
                .map(|at| at.0)
                .into(),
            None::<i64>.into(),
        ],
    );
    history::add(
        &mut unit.bulk,
        tenant,
        Kind::Document,
        id,
        document.version,
        document.last_updated,
        body,
    );
    Ok(())
}

/// Stores the next version of a document.
pub(crate) fn update(
    unit: &mut Unit<'_>,
    tenant: &TenantId,
    document: &Document,
    body: &[u8],
    index: Option<&SearchIndex>,
) -> Result<(), StoreError> {
    let id = document.id.as_str();
    unit.touch(tenant, Kind::Document, id)?;
    let found_by = if document.deleted {
        search::remove(&mut unit.bulk, tenant, Kind::Document, id);
        Some((
            None,
            unit.index(
                tenant,
                Kind::Document,
                id,
                &SearchIndex::default(),
                &Digest::default(),
            )?,
        ))
    } else if let Some(index) = index {
        let before = digest(unit, tenant, id)?;
        Some((
            search::first_reference(index, &["subject", "patient"]),
            unit.index(tenant, Kind::Document, id, index, &before)?,
        ))
    } else {
        None
    };
    let found_by =
        found_by.map(|(patient, indexed)| (documents::patient.eq(patient), documents::indexed.eq(indexed)));
    let changed = diesel::update(documents::table.find((tenant.as_str(), id)))
        .filter(documents::version.eq(document.version.saturating_sub(1)))
        .set((
            documents::version.eq(document.version),
            documents::last_updated.eq(document.last_updated.0),
            documents::status.eq(document.facts.status.as_str()),
            documents::deleted.eq(document.deleted),
            documents::state.eq(state(document)?),
            documents::class.eq(document.class.as_deref()),
            found_by,
        ))
        .execute(unit.connection)
        .or_refused()?;
    exactly_one(changed)?;
    keep(unit, tenant, document, Hold::Exclusive);
    history::add(
        &mut unit.bulk,
        tenant,
        Kind::Document,
        id,
        document.version,
        document.last_updated,
        body,
    );
    Ok(())
}

/// Stores what is known of a document besides what it says itself: its version stays.
pub(crate) fn restate(unit: &mut Unit<'_>, tenant: &TenantId, document: &Document) -> Result<(), StoreError> {
    unit.settle_tables(&["documents"])?;
    let changed = diesel::update(documents::table.find((tenant.as_str(), document.id.as_str())))
        .filter(documents::version.eq(document.version))
        .set(documents::state.eq(state(document)?))
        .execute(unit.connection)
        .or_refused()?;
    exactly_one(changed)?;
    keep(unit, tenant, document, Hold::Exclusive);
    Ok(())
}

/// What the search rows of a document say, as far as this unit knows or can find out.
fn digest(unit: &mut Unit<'_>, tenant: &TenantId, id: &str) -> Result<Digest, StoreError> {
    if let Some(known) = unit.digests.get(&(tenant.clone(), Kind::Document, id.to_owned())) {
        return Ok(known.clone());
    }
    let indexed: Option<String> = documents::table
        .find((tenant.as_str(), id))
        .select(documents::indexed)
        .first(unit.connection)
        .optional()
        .or_refused()?;
    indexed.map_or(Err(StoreError::Conflict), |text| Digest::parse(&text))
}
