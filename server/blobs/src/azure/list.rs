//! What lies in the container, as the service lists it.

use std::num::NonZeroU32;

use azure_core::prelude::{IfMatchCondition, NextMarker};
use azure_storage_blobs::prelude::{BlobClient, ContainerClient};
use futures_util::StreamExt as _;
use handoff_domain::ids::TenantId;
use handoff_domain::ports::{BlobError, BlobPin, Listed, Listing};
use handoff_domain::time::Span;

use super::pipeline::{CONTROL_DEADLINE, VersionSlot, unavailable, within};

/// As many as the service gives at once ("List Blobs", `maxresults`).
const PAGE: NonZeroU32 = NonZeroU32::new(5000).unwrap();

/// Some of a tenant's blobs.
pub(super) async fn list(
    container: &ContainerClient,
    tenant: &TenantId,
    from: Option<String>,
) -> Result<Listing, BlobError> {
    let prefix = format!("{tenant}/");
    let mut asking = container.list_blobs().prefix(prefix.clone()).max_results(PAGE);
    if let Some(from) = from {
        asking = asking.marker(NextMarker::new(from));
    }
    let mut pages = asking.into_stream();
    let first = async { pages.next().await.transpose() };
    let Some(page) = within(CONTROL_DEADLINE, first)
        .await
        .map_err(|failure| failure.error)?
    else {
        return Ok(Listing::default());
    };
    let mut objects: Vec<Listed> = page
        .blobs
        .blobs()
        .filter_map(|blob| {
            let age = page.date - blob.properties.last_modified;
            Some(Listed {
                name: blob.name.strip_prefix(&prefix)?.to_owned(),
                size: blob.properties.content_length,
                etag: Some(quoted(blob.properties.etag.as_ref())),
                age: Span(i64::try_from(age.whole_microseconds()).unwrap_or(0)),
            })
        })
        .collect();
    objects.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(Listing {
        objects,
        next: page
            .next_marker
            .map(|marker| marker.as_str().to_owned())
            .filter(|marker| !marker.is_empty()),
    })
}

/// A listing leaves out the quotes that an `ETag` has in a header.
fn quoted(etag: &str) -> String {
    if etag.starts_with('"') {
        etag.to_owned()
    } else {
        format!("\"{etag}\"")
    }
}

/// What pins a listed blob, where it is still the same; a listing does not tell the version.
pub(super) async fn pin(blob: &BlobClient, key: String, object: &Listed) -> Result<BlobPin, BlobError> {
    let etag = object
        .etag
        .clone()
        .ok_or_else(|| unavailable("the listing told no ETag"))?;
    let version = VersionSlot::default();
    let look = blob
        .get_properties()
        .if_match(IfMatchCondition::Match(etag.clone()))
        .context(version.context());
    within(CONTROL_DEADLINE, look.into_future())
        .await
        .map_err(|failure| failure.error)?;
    Ok(BlobPin {
        key,
        version_id: version.take(),
        etag,
    })
}
