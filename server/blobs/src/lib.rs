//! The blob store port over Azure Blob Storage and over a directory on disk.
//!
//! Knows bytes, keys and digests. Knows nothing of Tasks, grants, tenants' rules, SQL, or the HTTP of callers;
//! only the module `azure` knows the Azure SDK.

mod azure;
mod config;
mod digest;
mod directory;
mod key;
mod nonce;

use std::sync::Arc;

use handoff_domain::ports::{BlobError, BlobStore};

pub use azure::AzureStore;
pub use config::{AzureConfig, AzureCredential, BlobConfig, BlobConfigError};
pub use digest::{Digester, Digests};
pub use directory::DirectoryStore;

/// Opens the configured store. A directory is created where it is missing, and so is the container of the emulator;
/// any other container is left to [`BlobStore::ready`] to find.
pub async fn open(config: &BlobConfig) -> Result<Arc<dyn BlobStore>, BlobError> {
    match config {
        BlobConfig::Directory { path } => Ok(Arc::new(DirectoryStore::open(path).await?)),
        BlobConfig::Azure(azure) => {
            let store = AzureStore::open(azure)?;
            if azure.create_container {
                store.ensure_container().await?;
            }
            Ok(Arc::new(store))
        }
    }
}
