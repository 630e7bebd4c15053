//! Binaries: what pins and proves stored bytes, and to which document they belong. The bytes are elsewhere.

use diesel::prelude::*;
use handoff_domain::document::{Sha256, StoredBinary};
use handoff_domain::ports::{BlobPin, Method, StoreError, Version};
use handoff_domain::{ActorRef, BinaryId, DocumentId, TenantId, Timestamp};

use crate::dialect::{AnyConnection, Column, Table};
use crate::error::{OrRefused, exactly_one, unreadable};
use crate::schema::{binaries, binary_blocks};
use crate::unit::Unit;

/// Hashes in a row: enough that 5 GiB make ten rows, few enough that the start of a download reads little.
const HASHES: u32 = 4096;

/// Bytes of a hash.
const HASH: usize = 32;

static BINARIES: Table = Table {
    name: "binaries",
    columns: &[
        ("tenant", Column::Text),
        ("id", Column::Text),
        ("created", Column::Int),
        ("uploaded_by", Column::Text),
        ("document", Column::Text),
        ("content_type", Column::Text),
        ("security_context", Column::Text),
        ("size", Column::Int),
        ("sha1", Column::Bytes),
        ("sha256", Column::Bytes),
        ("blob_key", Column::Text),
        ("blob_version", Column::Text),
        ("blob_etag", Column::Text),
        ("deleted_at", Column::Int),
    ],
};

static BLOCKS: Table = Table {
    name: "binary_blocks",
    columns: &[
        ("tenant", Column::Text),
        ("\"binary\"", Column::Text),
        ("chunk", Column::Int),
        ("hashes", Column::Bytes),
    ],
};

#[derive(Queryable, Selectable)]
#[diesel(table_name = binaries)]
struct Row {
    id: String,
    created: i64,
    uploaded_by: String,
    document: Option<String>,
    content_type: String,
    security_context: Option<String>,
    size: i64,
    sha1: Vec<u8>,
    sha256: Vec<u8>,
    blob_key: String,
    blob_version: Option<String>,
    blob_etag: String,
    deleted_at: Option<i64>,
}

impl Row {
    fn read(self) -> Option<StoredBinary> {
        Some(StoredBinary {
            id: BinaryId::parse(self.id).ok()?,
            created: Timestamp(self.created),
            uploaded_by: ActorRef::parse(self.uploaded_by).ok()?,
            document: self.document.map(DocumentId::parse).transpose().ok()?,
            content_type: self.content_type,
            security_context: self.security_context,
            size: u64::try_from(self.size).ok()?,
            sha1: self.sha1.try_into().ok()?,
            sha256: Sha256(self.sha256.try_into().ok()?),
            pin: BlobPin {
                key: self.blob_key,
                version_id: self.blob_version,
                etag: self.blob_etag,
            },
            deleted: self.deleted_at.is_some(),
        })
    }
}

/// The record, a deleted one too.
pub(crate) fn binary(
    connection: &mut AnyConnection,
    tenant: &TenantId,
    id: &BinaryId,
) -> Result<Option<StoredBinary>, StoreError> {
    binaries::table
        .find((tenant.as_str(), id.as_str()))
        .select(Row::as_select())
        .first(connection)
        .optional()
        .or_refused()?
        .map(|row| row.read().ok_or_else(|| unreadable("Binary")))
        .transpose()
}

/// Its versions, newest first, without bodies: the first when it was uploaded, the second when it was deleted.
pub(crate) fn versions(
    connection: &mut AnyConnection,
    tenant: &TenantId,
    id: &str,
) -> Result<Vec<Version>, StoreError> {
    let row: Option<(i64, Option<i64>)> = binaries::table
        .find((tenant.as_str(), id))
        .select((binaries::created, binaries::deleted_at))
        .first(connection)
        .optional()
        .or_refused()?;
    let Some((created, deleted_at)) = row else {
        return Ok(Vec::new());
    };
    let version = |version, at, method| Version {
        version,
        last_updated: Timestamp(at),
        method,
        body: Vec::new(),
    };
    Ok(deleted_at
        .map(|at| version(2, at, Method::Delete))
        .into_iter()
        .chain([version(1, created, Method::Create)])
        .collect())
}

/// The hashes of the blocks `[first, first + count)`, as many of them as there are.
pub(crate) fn block_hashes(
    connection: &mut AnyConnection,
    tenant: &TenantId,
    id: &BinaryId,
    first: u32,
    count: u32,
) -> Result<Vec<[u8; 32]>, StoreError> {
    let last = first.saturating_add(count.saturating_sub(1));
    if count == 0 {
        return Ok(Vec::new());
    }
    let rows: Vec<Vec<u8>> = binary_blocks::table
        .filter(binary_blocks::tenant.eq(tenant.as_str()))
        .filter(binary_blocks::binary.eq(id.as_str()))
        .filter(binary_blocks::chunk.between(i64::from(first / HASHES), i64::from(last / HASHES)))
        .order(binary_blocks::chunk)
        .select(binary_blocks::hashes)
        .load(connection)
        .or_refused()?;
    let skipped = usize::try_from(first % HASHES).unwrap_or_default();
    let most = usize::try_from(count).unwrap_or(usize::MAX);
    Ok(rows
        .iter()
        .flat_map(|row| row.chunks_exact(HASH))
        .skip(skipped)
        .take(most)
        .filter_map(|hash| hash.try_into().ok())
        .collect())
}

/// Stores a new record, and the hashes of its blocks.
pub(crate) fn insert(
    unit: &mut Unit<'_>,
    tenant: &TenantId,
    binary: &StoredBinary,
    blocks: &[[u8; 32]],
) -> Result<(), StoreError> {
    let size = i64::try_from(binary.size).map_err(|_| StoreError::Broken("a size too large".to_owned()))?;
    unit.bulk.add(
        &BINARIES,
        vec![
            tenant.as_str().into(),
            binary.id.as_str().into(),
            binary.created.0.into(),
            binary.uploaded_by.as_str().into(),
            binary.document.clone().map(String::from).into(),
            binary.content_type.as_str().into(),
            binary.security_context.clone().into(),
            size.into(),
            binary.sha1.to_vec().into(),
            binary.sha256.0.to_vec().into(),
            binary.pin.key.as_str().into(),
            binary.pin.version_id.clone().into(),
            binary.pin.etag.as_str().into(),
            None::<i64>.into(),
        ],
    );
    let per_row = usize::try_from(HASHES).unwrap_or(usize::MAX);
    for (chunk, hashes) in (0_i64..).zip(blocks.chunks(per_row)) {
        unit.bulk.add(
            &BLOCKS,
            vec![
                tenant.as_str().into(),
                binary.id.as_str().into(),
                chunk.into(),
                hashes.concat().into(),
            ],
        );
    }
    Ok(())
}

/// Gives an unclaimed Binary to a document; answers whether it belongs to that document now.
pub(crate) fn claim(
    unit: &mut Unit<'_>,
    tenant: &TenantId,
    id: &BinaryId,
    document: &DocumentId,
) -> Result<bool, StoreError> {
    unit.settle_tables(&["binaries"])?;
    let changed = diesel::update(binaries::table.find((tenant.as_str(), id.as_str())))
        .filter(binaries::deleted_at.is_null())
        .filter(
            binaries::document
                .is_null()
                .or(binaries::document.eq(document.as_str())),
        )
        .set(binaries::document.eq(document.as_str()))
        .execute(unit.connection)
        .or_refused()?;
    Ok(changed == 1)
}

/// Marks a Binary as deleted that belongs to this document, or to none.
pub(crate) fn delete(
    unit: &mut Unit<'_>,
    tenant: &TenantId,
    id: &BinaryId,
    of: Option<&DocumentId>,
    now: Timestamp,
) -> Result<(), StoreError> {
    unit.settle_tables(&["binaries"])?;
    let present = diesel::update(binaries::table.find((tenant.as_str(), id.as_str())))
        .filter(binaries::deleted_at.is_null());
    let deleted = binaries::deleted_at.eq(now.0);
    let changed = match of {
        Some(document) => present
            .filter(binaries::document.eq(document.as_str()))
            .set(deleted)
            .execute(unit.connection),
        None => present
            .filter(binaries::document.is_null())
            .set(deleted)
            .execute(unit.connection),
    };
    let changed = changed.or_refused()?;
    exactly_one(changed)
}
