//! The blob store port: immutable objects, written once as a stream, read back pinned to what was written.

use std::ops::Range;
use std::pin::Pin;

use bytes::Bytes;
use futures_core::Stream;
use thiserror::Error;

use super::BoxFuture;
use crate::document::Sha256;
use crate::ids::TenantId;
use crate::time::Span;

/// Bytes on their way in or out.
pub type ByteStream = Pin<Box<dyn Stream<Item = Result<Bytes, BlobError>> + Send>>;

/// Exactly one stored object: the key, and what pins its content against replacement behind our back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlobPin {
    /// Key inside the container, `{tenant}/{id}`.
    pub key: String,
    /// The store's version id, where it keeps versions.
    pub version_id: Option<String>,
    /// The store's strong `ETag`, asked for with `If-Match` on every read.
    pub etag: String,
}

/// What an upload left behind. Hashes and size were computed from the bytes that passed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Uploaded {
    /// Where it is.
    pub pin: BlobPin,
    /// Length in bytes.
    pub size: u64,
    /// SHA-1 of the whole.
    pub sha1: [u8; 20],
    /// SHA-256 of the whole.
    pub sha256: Sha256,
    /// SHA-256 of each block of [`crate::document::BLOCK_SIZE`] bytes, the last one shorter; empty for no bytes.
    pub blocks: Vec<[u8; 32]>,
}

/// An object as a listing tells of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// What follows the tenant in its key: a Binary's id, where it is one of ours.
    pub name: String,
    /// Length in bytes.
    pub size: u64,
    /// Its strong `ETag`, where the store knows it without reading the object.
    pub etag: Option<String>,
    /// How long ago it was written, by the store's own clock.
    pub age: Span,
}

/// Some of a tenant's objects.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Listing {
    /// In the order of the bytes of their names.
    pub objects: Vec<Listed>,
    /// What to ask for the next with; `None` where these are the last.
    pub next: Option<String>,
}

/// Why the blob store did not do it.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum BlobError {
    /// The content grew past the limit.
    #[error("content exceeds {limit} bytes")]
    TooLarge {
        /// The limit in bytes.
        limit: u64,
    },
    /// The sender stopped or failed in the middle; nothing is visible of what it sent.
    #[error("the sender broke off")]
    SourceFailed,
    /// There is no such object.
    #[error("no such object")]
    NotFound,
    /// The object is not the one that was pinned.
    #[error("the object has changed since it was stored")]
    Changed,
    /// The store has no room left.
    #[error("no room left")]
    Full,
    /// The store can't be reached or answers with an error; worth trying again later.
    #[error("blob store unavailable: {0}")]
    Unavailable(String),
}

/// A private container of immutable objects.
pub trait BlobStore: Send + Sync {
    /// Stores `content` under `key`, which must be new, refusing more than `limit` bytes.
    /// Nothing is visible under the key until all of it is durable; after an error nothing remains.
    fn put<'a>(
        &'a self,
        key: &'a str,
        content_type: &'a str,
        content: ByteStream,
        limit: u64,
    ) -> BoxFuture<'a, Result<Uploaded, BlobError>>;

    /// The bytes `range` of exactly the pinned object, as a stream of chunks of any size.
    /// A store that holds something else under the key answers [`BlobError::Changed`].
    fn get<'a>(&'a self, pin: &'a BlobPin, range: Range<u64>)
    -> BoxFuture<'a, Result<ByteStream, BlobError>>;

    /// The tags that others set on exactly the pinned object, by key; a store that keeps none is [`BlobError::Unavailable`].
    fn tags<'a>(&'a self, _pin: &'a BlobPin) -> BoxFuture<'a, Result<Vec<(String, String)>, BlobError>> {
        Box::pin(async { Err(BlobError::Unavailable("this store keeps no tags".to_owned())) })
    }

    /// What lies in the container for a tenant, some thousand objects at once, of which only the present versions: from the
    /// beginning, or from where [`Listing::next`] says.
    fn list<'a>(
        &'a self,
        tenant: &'a TenantId,
        from: Option<String>,
    ) -> BoxFuture<'a, Result<Listing, BlobError>>;

    /// Removes the object. Removing what is not there is no error.
    fn delete<'a>(&'a self, pin: &'a BlobPin) -> BoxFuture<'a, Result<(), BlobError>>;

    /// Removes an object that a listing told of, where it is still the same. Removing what is not there is no error.
    fn remove_listed<'a>(
        &'a self,
        tenant: &'a TenantId,
        object: &'a Listed,
    ) -> BoxFuture<'a, Result<(), BlobError>>;

    /// Removes what uploads left behind that broke off more than `older_than_seconds` ago; answers how many.
    fn sweep(&self, older_than_seconds: u64) -> BoxFuture<'_, Result<u64, BlobError>>;

    /// Whether the store can be reached, the container exists and is private.
    fn ready(&self) -> BoxFuture<'_, Result<(), BlobError>>;
}
