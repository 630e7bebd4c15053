//! Uploads: small content in one request, larger content as staged blocks that one last request makes visible.
//! Holds at most three buffers of a block's size, whatever the length of the content.

use azure_core::prelude::{IfMatchCondition, Metadata};
use azure_storage_blobs::prelude::{BlobBlockType, BlobClient, BlockList};
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;
use handoff_domain::ports::{BlobError, BlobPin, ByteStream, Uploaded};
use tokio::task::JoinSet;

use super::pipeline::{CONTROL_DEADLINE, Failure, UPLOAD_DEADLINE, VersionSlot, unavailable, within};
use crate::digest::{Digester, split_piece};
use crate::nonce::nonce;

/// Bytes per staged block. 50,000 of them, the service's limit, are 195 GiB.
const STAGE_SIZE: usize = 4 * 1024 * 1024;
/// Blocks on their way while the next one fills.
const IN_FLIGHT: usize = 2;
/// Metadata by which an upload recognises its own object when the answer to its last request was lost.
const UPLOAD_MARK: &str = "upload";

/// Stores `content` as `blob`, which must be new.
pub(super) async fn upload(
    blob: &BlobClient,
    key: &str,
    content_type: &str,
    mut content: ByteStream,
    limit: u64,
) -> Result<Uploaded, BlobError> {
    let mut staging = Staging::new(blob.clone());
    let mut digester = Digester::new(limit);
    let mut filling = BytesMut::new();
    while let Some(chunk) = content.next().await {
        let mut chunk = chunk?;
        while !chunk.is_empty() {
            let piece = split_piece(&mut chunk, STAGE_SIZE - filling.len());
            digester.update(&piece)?;
            if filling.capacity() == 0 {
                filling.reserve(STAGE_SIZE);
            }
            filling.extend_from_slice(&piece);
            if filling.len() == STAGE_SIZE {
                staging.stage(std::mem::take(&mut filling).freeze()).await?;
            }
            if !chunk.is_empty() {
                tokio::task::yield_now().await;
            }
        }
    }
    let content_type = header_text(content_type);
    let (etag, version_id) = staging.commit(filling.freeze(), content_type).await?;
    Ok(digester.finish().at(BlobPin {
        key: key.to_owned(),
        version_id,
        etag,
    }))
}

/// The blocks of one upload. Dropped, it stops those on their way.
struct Staging {
    blob: BlobClient,
    /// Part of every block's id, so that two uploads of one key can't mix their blocks.
    mark: String,
    staged: Vec<Bytes>,
    in_flight: JoinSet<Result<(), BlobError>>,
}

impl Staging {
    fn new(blob: BlobClient) -> Self {
        Self {
            blob,
            mark: format!("{:016x}", nonce()),
            staged: Vec::new(),
            in_flight: JoinSet::new(),
        }
    }

    async fn stage(&mut self, block: Bytes) -> Result<(), BlobError> {
        while self.in_flight.len() >= IN_FLIGHT {
            self.settle_one().await?;
        }
        let id = Bytes::from(format!("{}{:08x}", self.mark, self.staged.len()));
        self.staged.push(id.clone());
        let request = self.blob.put_block(id, block);
        self.in_flight.spawn(async move {
            within(UPLOAD_DEADLINE, request.into_future())
                .await
                .map(drop)
                .map_err(|failure| failure.error)
        });
        Ok(())
    }

    async fn settle_one(&mut self) -> Result<(), BlobError> {
        match self.in_flight.join_next().await {
            Some(Ok(done)) => done,
            Some(Err(_)) => Err(unavailable("the upload was stopped")),
            None => Ok(()),
        }
    }

    /// Makes the whole visible in one request and answers its `ETag` and version id.
    async fn commit(
        mut self,
        rest: Bytes,
        content_type: String,
    ) -> Result<(String, Option<String>), BlobError> {
        let versions = VersionSlot::default();
        let is_new = IfMatchCondition::NotMatch("*".to_owned());
        let mut mark = Metadata::new();
        mark.insert(UPLOAD_MARK, self.mark.clone());
        let etag = if self.staged.is_empty() {
            let whole = self
                .blob
                .put_block_blob(rest)
                .content_type(content_type)
                .metadata(mark)
                .if_match(is_new);
            within(UPLOAD_DEADLINE, whole.context(versions.context()).into_future())
                .await
                .map(|answer| answer.etag)
        } else {
            if !rest.is_empty() {
                self.stage(rest).await?;
            }
            while !self.in_flight.is_empty() {
                self.settle_one().await?;
            }
            let blocks = std::mem::take(&mut self.staged);
            let blocks = blocks
                .into_iter()
                .map(|id| BlobBlockType::Uncommitted(id.into()))
                .collect();
            let list = self.blob.put_block_list(BlockList { blocks });
            let list = list.content_type(content_type).metadata(mark).if_match(is_new);
            within(UPLOAD_DEADLINE, list.context(versions.context()).into_future())
                .await
                .map(|answer| answer.etag)
        };
        match etag {
            Ok(etag) => Ok((etag, versions.take())),
            Err(failure) if failure.conflict || failure.ambiguous => self.recover(failure).await,
            Err(failure) => Err(failure.error),
        }
    }

    /// The answer was lost, or a retry met what its first attempt had made: looks whether the object is ours.
    async fn recover(&self, failure: Failure) -> Result<(String, Option<String>), BlobError> {
        let versions = VersionSlot::default();
        let look = self.blob.get_properties().context(versions.context());
        match within(CONTROL_DEADLINE, look.into_future()).await {
            Ok(found) => {
                let mark = found.blob.metadata.as_ref().and_then(|m| m.get(UPLOAD_MARK));
                if mark == Some(&self.mark) {
                    Ok((found.blob.properties.etag.to_string(), versions.take()))
                } else {
                    Err(BlobError::Changed)
                }
            }
            Err(_) => Err(failure.error),
        }
    }
}

/// A content type that can stand in a header.
fn header_text(content_type: &str) -> String {
    let fits = !content_type.is_empty() && content_type.bytes().all(|b| (b' '..=b'~').contains(&b));
    if fits {
        content_type.to_owned()
    } else {
        "application/octet-stream".to_owned()
    }
}
