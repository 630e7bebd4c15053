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
use crate::search::Indexed;
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
    ],
};

fn parse(state: &str) -> Result<Document, StoreError> {
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
            let name = document.id.as_str().to_owned();
            unit.rows
                .insert((tenant.clone(), Kind::Document, name), Indexed::parse(&indexed)?);
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
    let indexed = unit.index(tenant, Kind::Document, id, index)?;
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
    // What its rows say now is known only of one that is held.
    lock(unit, tenant, std::slice::from_ref(&document.id), Hold::Exclusive)?;
    unit.touch(tenant, Kind::Document, id)?;
    let nothing = SearchIndex::default();
    let index = if document.deleted { Some(&nothing) } else { index };
    let found_by = match index {
        Some(index) => {
            let patient = search::first_reference(index, &["subject", "patient"]);
            let indexed = unit.index(tenant, Kind::Document, id, index)?;
            Some((documents::patient.eq(patient), documents::indexed.eq(indexed)))
        }
        None => None,
    };
    let changed = diesel::update(documents::table.find((tenant.as_str(), id)))
        .filter(documents::version.eq(document.version.saturating_sub(1)))
        .set((
            documents::version.eq(document.version),
            documents::last_updated.eq(document.last_updated.0),
            documents::status.eq(document.facts.status.as_str()),
            documents::deleted.eq(document.deleted),
            documents::state.eq(state(document)?),
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
