//! Versions: every resource as it was sent out, kept for good. Knows nothing of what a resource says.

use diesel::prelude::*;
use handoff_domain::ports::{Kind, Method, StoreError, Version};
use handoff_domain::{TenantId, Timestamp};

use crate::binaries;
use crate::dialect::{AnyConnection, Bulk, Column, Table};
use crate::error::{OrRefused, unreadable};
use crate::schema::resource_versions as versions;

static VERSIONS: Table = Table {
    name: "resource_versions",
    columns: &[
        ("tenant", Column::Text),
        ("kind", Column::Text),
        ("id", Column::Text),
        ("version", Column::Int),
        ("last_updated", Column::Int),
        ("method", Column::Text),
        ("body", Column::Bytes),
    ],
};

/// A version's columns as they are read.
pub(crate) type Row = (i64, i64, String, Vec<u8>);

const COLUMNS: (
    versions::version,
    versions::last_updated,
    versions::method,
    versions::body,
) = (
    versions::version,
    versions::last_updated,
    versions::method,
    versions::body,
);

/// The version that a row says.
pub(crate) fn version_of((version, last_updated, method, body): Row) -> Result<Version, StoreError> {
    let method = match method.as_str() {
        "create" => Method::Create,
        "update" => Method::Update,
        "delete" => Method::Delete,
        _ => return Err(unreadable("version")),
    };
    Ok(Version {
        version,
        last_updated: Timestamp(last_updated),
        method,
        body,
    })
}

/// Adds a version: the first is a creation, one without a body a deletion.
pub(crate) fn add(
    bulk: &mut Bulk,
    tenant: &TenantId,
    kind: Kind,
    id: &str,
    version: i64,
    last_updated: Timestamp,
    body: &[u8],
) {
    let method = match (version, body) {
        (_, []) => "delete",
        (1, _) => "create",
        _ => "update",
    };
    bulk.add(
        &VERSIONS,
        vec![
            tenant.as_str().into(),
            kind.as_str().into(),
            id.into(),
            version.into(),
            last_updated.0.into(),
            method.into(),
            body.to_vec().into(),
        ],
    );
}

/// The newest version.
pub(crate) fn current(
    connection: &mut AnyConnection,
    tenant: &TenantId,
    kind: Kind,
    id: &str,
) -> Result<Option<Version>, StoreError> {
    if kind == Kind::Binary {
        return Ok(binaries::versions(connection, tenant, id)?.into_iter().next());
    }
    versions::table
        .filter(versions::tenant.eq(tenant.as_str()))
        .filter(versions::kind.eq(kind.as_str()))
        .filter(versions::id.eq(id))
        .order(versions::version.desc())
        .select(COLUMNS)
        .first::<Row>(connection)
        .optional()
        .or_refused()?
        .map(version_of)
        .transpose()
}

/// One version.
pub(crate) fn version(
    connection: &mut AnyConnection,
    tenant: &TenantId,
    kind: Kind,
    id: &str,
    version: i64,
) -> Result<Option<Version>, StoreError> {
    if kind == Kind::Binary {
        let all = binaries::versions(connection, tenant, id)?;
        return Ok(all.into_iter().find(|one| one.version == version));
    }
    versions::table
        .find((tenant.as_str(), kind.as_str(), id, version))
        .select(COLUMNS)
        .first::<Row>(connection)
        .optional()
        .or_refused()?
        .map(version_of)
        .transpose()
}

/// Versions, newest first.
pub(crate) fn history(
    connection: &mut AnyConnection,
    tenant: &TenantId,
    kind: Kind,
    id: &str,
    since: Option<Timestamp>,
    before: Option<i64>,
    limit: u32,
) -> Result<Vec<Version>, StoreError> {
    let since = since.map_or(i64::MIN, |since| since.0);
    let before = before.unwrap_or(i64::MAX);
    if kind == Kind::Binary {
        let mut all = binaries::versions(connection, tenant, id)?;
        all.retain(|one| one.last_updated.0 >= since && one.version < before);
        all.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
        return Ok(all);
    }
    versions::table
        .filter(versions::tenant.eq(tenant.as_str()))
        .filter(versions::kind.eq(kind.as_str()))
        .filter(versions::id.eq(id))
        .filter(versions::version.lt(before))
        .filter(versions::last_updated.ge(since))
        .order(versions::version.desc())
        .limit(i64::from(limit))
        .select(COLUMNS)
        .load::<Row>(connection)
        .or_refused()?
        .into_iter()
        .map(version_of)
        .collect()
}
