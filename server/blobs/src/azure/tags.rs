//! Index tags: what others say of a blob, like the result of a scan. They belong to one version of it, and setting them changes
//! neither that nor its `ETag`.

use azure_core::prelude::IfMatchCondition;
use azure_storage_blobs::prelude::{BlobClient, BlobVersioning, VersionId};
use handoff_domain::ports::{BlobError, BlobPin};

use super::download::gone_or;
use super::pipeline::{CONTROL_DEADLINE, within};

/// The tags of the pinned object.
pub(super) async fn tags(blob: &BlobClient, pin: &BlobPin) -> Result<Vec<(String, String)>, BlobError> {
    let version = || -> Option<BlobVersioning> { pin.version_id.clone().map(|id| VersionId::new(id).into()) };
    let mut asking = blob.get_tags();
    if let Some(version) = version() {
        asking = asking.blob_versioning(version);
    }
    let found = within(CONTROL_DEADLINE, asking.into_future())
        .await
        .map_err(|failure| failure.error)?;
    // Tags are not asked for by `ETag`. An object that still has it now had it when they were read.
    let mut look = blob
        .get_properties()
        .if_match(IfMatchCondition::Match(pin.etag.clone()));
    if let Some(version) = version() {
        look = look.blob_versioning(version);
    }
    match within(CONTROL_DEADLINE, look.into_future()).await {
        Ok(_) => Ok(found.tags.into_iter().collect()),
        Err(failure) => Err(gone_or(failure.error, blob, version()).await),
    }
}
