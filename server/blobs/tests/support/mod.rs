//! Both adapters under one roof: a store, and a second, raw hand on what it keeps.
#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "each test binary uses a part"
)]

use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::path::PathBuf;
use std::sync::Arc;

use azure_core::auth::Secret;
use azure_storage::{CloudLocation, StorageCredentials};
use azure_storage_blobs::prelude::{ClientBuilder, ContainerClient, PublicAccess};
use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use handoff_blobs::{BlobConfig, open};
use handoff_domain::document::BLOCK_SIZE;
use handoff_domain::ports::{BlobError, BlobPin, BlobStore, ByteStream, Uploaded};
use sha1::Sha1;
use sha2::{Digest as _, Sha256};

pub const NO_LIMIT: u64 = u64::MAX;
const KEY: &str = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";

/// A store under test.
pub struct Subject {
    pub store: Arc<dyn BlobStore>,
    pub raw: Raw,
}

/// What reaches the stored objects without the store's knowledge.
pub enum Raw {
    Folder {
        root: PathBuf,
        _guard: tempfile::TempDir,
    },
    Container(ContainerClient),
}

impl Subject {
    pub async fn directory() -> Self {
        let guard = tempfile::tempdir().unwrap();
        let root = guard.path().join("blobs");
        let store = open(&BlobConfig::Directory { path: root.clone() }).await.unwrap();
        Self {
            store,
            raw: Raw::Folder { root, _guard: guard },
        }
    }

    pub async fn azure() -> Self {
        let account = std::env::var("HANDOFF_TEST_AZURITE_URL")
            .expect("HANDOFF_TEST_AZURITE_URL names the emulator, http://127.0.0.1:PORT/devstoreaccount1");
        let container = format!("test-{:016x}", RandomState::new().build_hasher().finish());
        let store = open(&BlobConfig::parse(&format!("{account}/{container}")).unwrap())
            .await
            .unwrap();
        let location = CloudLocation::Custom {
            account: "devstoreaccount1".to_owned(),
            uri: account,
        };
        let key = StorageCredentials::access_key("devstoreaccount1", Secret::new(KEY));
        let raw = ClientBuilder::with_location(location, key).container_client(container);
        Self {
            store,
            raw: Raw::Container(raw),
        }
    }

    /// Stores `content` in chunks of `step` bytes.
    pub async fn put(&self, key: &str, content: &Bytes, step: usize) -> Result<Uploaded, BlobError> {
        self.store
            .put(key, "application/pdf", chunks(content, step), NO_LIMIT)
            .await
    }

    /// Reads a range to its end.
    pub async fn get(&self, pin: &BlobPin, range: std::ops::Range<u64>) -> Result<Vec<u8>, BlobError> {
        let stream = self.store.get(pin, range).await?;
        stream
            .try_fold(Vec::new(), |mut all, chunk| async move {
                all.extend_from_slice(&chunk);
                Ok(all)
            })
            .await
    }

    /// Names of all visible objects, and of whatever else lies about.
    pub async fn visible(&self) -> Vec<String> {
        match &self.raw {
            Raw::Folder { root, .. } => {
                let mut names = Vec::new();
                for folder in std::fs::read_dir(root).unwrap() {
                    let folder = folder.unwrap();
                    for file in std::fs::read_dir(folder.path()).unwrap() {
                        let (folder, file) = (folder.file_name(), file.unwrap().file_name());
                        names.push(format!("{}/{}", folder.display(), file.display()));
                    }
                }
                names
            }
            Raw::Container(container) => {
                let mut pages = container.list_blobs().into_stream();
                let mut names = Vec::new();
                while let Some(page) = pages.next().await {
                    names.extend(page.unwrap().blobs.blobs().map(|blob| blob.name.clone()));
                }
                names
            }
        }
    }

    /// Replaces an object behind the store's back.
    pub async fn overwrite(&self, key: &str, content: &'static [u8]) {
        match &self.raw {
            Raw::Folder { root, .. } => std::fs::write(root.join(key), content).unwrap(),
            Raw::Container(container) => {
                container.blob_client(key).put_block_blob(content).await.unwrap();
            }
        }
    }

    /// Makes many small objects behind the store's back.
    pub async fn fill(&self, tenant: &str, names: &[String]) {
        match &self.raw {
            Raw::Folder { root, .. } => {
                std::fs::create_dir_all(root.join(tenant)).unwrap();
                for name in names {
                    std::fs::write(root.join(tenant).join(name), name).unwrap();
                }
            }
            Raw::Container(container) => {
                stream::iter(names)
                    .for_each_concurrent(16, async |name| {
                        let blob = container.blob_client(format!("{tenant}/{name}"));
                        blob.put_block_blob(name.clone()).await.unwrap();
                    })
                    .await;
            }
        }
    }

    /// Removes an object behind the store's back.
    pub async fn remove(&self, key: &str) {
        match &self.raw {
            Raw::Folder { root, .. } => std::fs::remove_file(root.join(key)).unwrap(),
            Raw::Container(container) => {
                container.blob_client(key).delete().await.unwrap();
            }
        }
    }

    /// Opens the whole store to the public, where it has such a thing.
    pub async fn publish(&self) {
        if let Raw::Container(container) = &self.raw {
            container.set_acl(PublicAccess::Blob).await.unwrap();
        }
    }

    /// Takes the whole store away.
    pub async fn destroy(&self) {
        match &self.raw {
            Raw::Folder { root, .. } => std::fs::remove_dir_all(root).unwrap(),
            Raw::Container(container) => container.delete().await.unwrap(),
        }
    }
}

/// `size` bytes that no two blocks share.
pub fn content(size: usize) -> Bytes {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = Vec::with_capacity(size + 8);
    while bytes.len() < size {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(size);
    Bytes::from(bytes)
}

pub fn chunks(content: &Bytes, step: usize) -> ByteStream {
    let mut rest = content.clone();
    let mut parts = Vec::new();
    while !rest.is_empty() {
        parts.push(Ok(rest.split_to(rest.len().min(step))));
    }
    Box::pin(stream::iter(parts))
}

/// Checks size and every digest of an upload against the content.
pub fn assert_described(uploaded: &Uploaded, content: &Bytes) {
    assert_eq!(uploaded.size, len(content));
    assert_eq!(uploaded.sha1, <[u8; 20]>::from(Sha1::digest(content)));
    assert_eq!(uploaded.sha256.0, <[u8; 32]>::from(Sha256::digest(content)));
    let blocks: Vec<[u8; 32]> = content
        .chunks(BLOCK_SIZE)
        .map(|block| Sha256::digest(block).into())
        .collect();
    assert_eq!(uploaded.blocks, blocks);
}

pub fn len(content: &[u8]) -> u64 {
    u64::try_from(content.len()).unwrap()
}
