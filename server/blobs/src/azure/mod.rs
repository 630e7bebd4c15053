//! The blob store over Azure Blob Storage: one private container, one block blob an object.
//! The only module that touches the Azure SDK. It never creates a URL for anybody else, and never prints one.

mod download;
mod identity;
mod list;
mod pipeline;
mod tags;
mod transport;
mod upload;

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use azure_core::prelude::IfMatchCondition;
use azure_storage::CloudLocation;
use azure_storage_blobs::prelude::{BlobClient, ClientBuilder, ContainerClient, PublicAccess, VersionId};
use handoff_domain::ids::TenantId;
use handoff_domain::ports::{
    BlobError, BlobPin, BlobStore, BoxFuture, ByteStream, Listed, Listing, Uploaded,
};
use tokio::sync::Semaphore;
use tracing::debug;

use self::download::Window;
use self::pipeline::{CONTROL_DEADLINE, Failure, within};
use self::transport::Reads;
use crate::config::AzureConfig;
use crate::key::Key;

/// Objects as block blobs of one container. The pin is the blob's strong `ETag` and, where the account keeps
/// versions, its version id.
#[derive(Debug, Clone)]
pub struct AzureStore {
    container: ContainerClient,
    /// The same one, read in large pieces.
    ample: ContainerClient,
    /// Places for downloads that are read so.
    places: Arc<Semaphore>,
    /// Downloads begun so far.
    begun: Arc<AtomicU32>,
}

/// Each may hold most of a MiB in buffers, for as long as a reader who was quick before stops reading.
const AMPLE_READERS: usize = 128;

impl AzureStore {
    /// A client for the configured container. Nothing is sent yet.
    pub fn open(config: &AzureConfig) -> Result<Self, BlobError> {
        let account = config
            .check()
            .map_err(|e| BlobError::Unavailable(e.to_string()))?;
        let location = CloudLocation::Custom {
            account: account.clone(),
            uri: config.account_url.as_str().trim_end_matches('/').to_owned(),
        };
        let credentials = pipeline::credentials(account, &config.credential)?;
        let client = |reads| {
            ClientBuilder::with_location(location.clone(), credentials.clone())
                .client_options(pipeline::options(&config.account_url, reads))
                .container_client(config.container.clone())
        };
        Ok(Self {
            container: client(Reads::Sparing),
            ample: client(Reads::Ample),
            places: Arc::new(Semaphore::new(AMPLE_READERS)),
            begun: Arc::default(),
        })
    }

    /// Creates the container, private, where it is missing. For development: in production it is provisioned,
    /// with versioning, soft delete and its retention.
    pub async fn ensure_container(&self) -> Result<(), BlobError> {
        match within(CONTROL_DEADLINE, self.container.create().into_future()).await {
            Err(failure) if !failure.conflict => Err(failure.error),
            _ => Ok(()),
        }
    }

    fn blob(&self, key: &str) -> Result<BlobClient, BlobError> {
        Ok(self.container.blob_client(Key::parse(key)?.to_name()))
    }

    /// With versions kept, deleting a blob only makes its content a previous version, which must go as well.
    async fn erase(&self, pin: &BlobPin) -> Result<(), BlobError> {
        let blob = self.blob(&pin.key)?;
        let current = blob.delete().if_match(IfMatchCondition::Match(pin.etag.clone()));
        let replaced = match within(CONTROL_DEADLINE, current.into_future()).await {
            Ok(_)
            | Err(Failure {
                error: BlobError::NotFound,
                ..
            }) => false,
            Err(Failure {
                error: BlobError::Changed,
                ..
            }) => true,
            Err(failure) => return Err(failure.error),
        };
        let Some(version) = &pin.version_id else {
            if !replaced {
                return Ok(());
            }
            return match download::gone_or(BlobError::Changed, &blob, None).await {
                BlobError::NotFound => Ok(()),
                error => Err(error),
            };
        };
        let version = blob.delete_version_id(VersionId::new(version.clone()));
        match within(CONTROL_DEADLINE, version.into_future()).await {
            Ok(_)
            | Err(Failure {
                error: BlobError::NotFound,
                ..
            }) => Ok(()),
            Err(failure) => Err(failure.error),
        }
    }

    async fn check(&self) -> Result<(), BlobError> {
        let found = within(CONTROL_DEADLINE, self.container.get_properties().into_future())
            .await
            .map_err(|failure| match failure.error {
                BlobError::NotFound => BlobError::Unavailable("the container does not exist".to_owned()),
                error => error,
            })?;
        match found.container.public_access {
            PublicAccess::None => Ok(()),
            PublicAccess::Container | PublicAccess::Blob => Err(BlobError::Unavailable(
                "the container is open to the public: set its access level to private".to_owned(),
            )),
        }
    }
}

impl BlobStore for AzureStore {
    fn put<'a>(
        &'a self,
        key: &'a str,
        content_type: &'a str,
        content: ByteStream,
        limit: u64,
    ) -> BoxFuture<'a, Result<Uploaded, BlobError>> {
        Box::pin(async move { upload::upload(&self.blob(key)?, key, content_type, content, limit).await })
    }

    fn get<'a>(
        &'a self,
        pin: &'a BlobPin,
        range: Range<u64>,
    ) -> BoxFuture<'a, Result<ByteStream, BlobError>> {
        Box::pin(async move {
            let ample = self.ample.blob_client(Key::parse(&pin.key)?.to_name());
            let places = Arc::clone(&self.places);
            let window = Window::first(self.begun.fetch_add(1, Ordering::Relaxed));
            download::download(self.blob(&pin.key)?, ample, places, window, pin.clone(), range).await
        })
    }

    fn tags<'a>(&'a self, pin: &'a BlobPin) -> BoxFuture<'a, Result<Vec<(String, String)>, BlobError>> {
        Box::pin(async move { tags::tags(&self.blob(&pin.key)?, pin).await })
    }

    fn list<'a>(
        &'a self,
        tenant: &'a TenantId,
        from: Option<String>,
    ) -> BoxFuture<'a, Result<Listing, BlobError>> {
        Box::pin(list::list(&self.container, tenant, from))
    }

    fn delete<'a>(&'a self, pin: &'a BlobPin) -> BoxFuture<'a, Result<(), BlobError>> {
        Box::pin(self.erase(pin))
    }

    fn remove_listed<'a>(
        &'a self,
        tenant: &'a TenantId,
        object: &'a Listed,
    ) -> BoxFuture<'a, Result<(), BlobError>> {
        Box::pin(async move {
            let key = Key::parse(&format!("{tenant}/{}", object.name))?.to_name();
            let blob = self.blob(&key)?;
            match list::pin(&blob, key, object).await {
                Ok(pin) => self.erase(&pin).await,
                Err(error) => match download::gone_or(error, &blob, None).await {
                    BlobError::NotFound => Ok(()),
                    error => Err(error),
                },
            }
        })
    }

    /// Nothing to do: blocks that were never committed are invisible, and the service discards them a week after
    /// the last one came ("Put Block", remarks). The only way to hurry it would make the key visible for a moment.
    fn sweep(&self, _older_than_seconds: u64) -> BoxFuture<'_, Result<u64, BlobError>> {
        debug!("the service itself discards what broken uploads left");
        Box::pin(async { Ok(0) })
    }

    fn ready(&self) -> BoxFuture<'_, Result<(), BlobError>> {
        Box::pin(self.check())
    }
}
