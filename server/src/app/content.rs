//! The bytes of one stream: read from the blob store pinned to what was recorded, each block verified before any
//! of it is sent, stopped the moment the right to it ends. Whatever happens, its end is recorded exactly once.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll};

use bytes::{Bytes, BytesMut};
use futures_util::{Stream, StreamExt};
use handoff_domain::document::{BLOCK_SIZE, StoredBinary};
use handoff_domain::ids::TenantId;
use handoff_domain::ports::ByteStream;
use handoff_domain::reason::Reason;
use handoff_domain::redemption::StreamEnd;
use sha2::{Digest, Sha256};
use thiserror::Error;

use super::finish::Ending;
use super::redeem::Ticket;
use super::streams::Entry;
use super::{App, AppError, Caller, Class};

/// Bytes handed to the connection at once: small, so that little is on its way when a stream is cut.
const PIECE: usize = 32 * 1024;
/// Block digests read from the database at once: 128 MiB of content.
const DIGEST_PAGE: u32 = 1024;

/// Why a stream broke off. The connection is aborted; the client never sees a clean end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum ContentError {
    /// The right to it ended.
    #[error("cut off: {0}")]
    Cut(Reason),
    /// A stored block is not what was recorded.
    #[error("stored content failed verification")]
    Integrity,
    /// The blob store or the database failed.
    #[error("storage failed")]
    Storage,
}

/// Verified bytes on their way to one client.
pub struct Content {
    blocks: Pin<Box<dyn Stream<Item = Result<Bytes, ContentError>> + Send>>,
    pieces: VecDeque<Bytes>,
    cut: Pin<Box<dyn Future<Output = Reason> + Send>>,
    ending: Ending,
    /// Whether all was handed over, and the connection was given the time to write it.
    flushed: bool,
    done: bool,
}

impl App {
    /// Opens the bytes that a ticket allows. Fails before any byte where the blob store does; the use is then
    /// given back.
    pub async fn open_content(&self, caller: &Caller, ticket: Ticket) -> Result<Content, AppError> {
        let Ticket {
            binary,
            from,
            until,
            ending,
            ..
        } = ticket;
        match verified(self.clone(), caller.tenant().clone(), binary, from, until).await {
            Ok(blocks) => Ok(Content {
                blocks,
                pieces: VecDeque::new(),
                cut: until_cut(Arc::clone(ending.entry())),
                ending,
                flushed: false,
                done: false,
            }),
            Err(error) => {
                let end = if error.reason == Reason::IntegrityFailed {
                    StreamEnd::IntegrityFailed
                } else {
                    StreamEnd::Gone
                };
                ending.end(end);
                Err(error)
            }
        }
    }
}

fn until_cut(entry: Arc<Entry>) -> Pin<Box<dyn Future<Output = Reason> + Send>> {
    Box::pin(async move { entry.until_cut().await })
}

impl Content {
    fn fail(&mut self, error: ContentError) -> Poll<Option<Result<Bytes, ContentError>>> {
        self.done = true;
        self.pieces.clear();
        self.ending.end(match error {
            ContentError::Cut(reason) => StreamEnd::Cut(reason),
            ContentError::Integrity => StreamEnd::IntegrityFailed,
            ContentError::Storage => StreamEnd::Gone,
        });
        Poll::Ready(Some(Err(error)))
    }
}

impl Stream for Content {
    type Item = Result<Bytes, ContentError>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        if this.done {
            return Poll::Ready(None);
        }
        this.ending.entry().touch();
        if let Poll::Ready(reason) = this.cut.as_mut().poll(cx) {
            return this.fail(ContentError::Cut(reason));
        }
        loop {
            if let Some(piece) = this.pieces.pop_front() {
                // Counted as it is handed over, not when it is asked beyond: some of it may leave although the
                // connection then fails, and no byte that left may count as unsent.
                this.ending.count(piece.len());
                return Poll::Ready(Some(Ok(piece)));
            }
            match this.blocks.as_mut().poll_next(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Some(Err(error))) => return this.fail(error),
                Poll::Ready(Some(Ok(mut block))) => {
                    while block.len() > PIECE {
                        this.pieces.push_back(block.split_to(PIECE));
                    }
                    if !block.is_empty() {
                        this.pieces.push_back(block);
                    }
                }
                Poll::Ready(None) if !this.flushed => {
                    // Pending makes the connection write what it holds. If that fails, this is dropped, and the client
                    // that went away may resume; it is never told as sent.
                    this.flushed = true;
                    this.blocks = Box::pin(futures_util::stream::empty());
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                Poll::Ready(None) => {
                    this.done = true;
                    this.ending.end(StreamEnd::Sent);
                    return Poll::Ready(None);
                }
            }
        }
    }
}

/// What the verifying stream works on.
struct Verifier {
    app: App,
    tenant: TenantId,
    binary: StoredBinary,
    source: ByteStream,
    /// Bytes read and not yet verified; less than a block beyond the one being gathered.
    gathered: BytesMut,
    /// The next block.
    block: u64,
    digests: VecDeque<[u8; 32]>,
    from: u64,
    until: u64,
}

/// The bytes `[from, until)`, block by block, none before its digest was found right.
async fn verified(
    app: App,
    tenant: TenantId,
    binary: StoredBinary,
    from: u64,
    until: u64,
) -> Result<Pin<Box<dyn Stream<Item = Result<Bytes, ContentError>> + Send>>, AppError> {
    if from >= until {
        return Ok(Box::pin(futures_util::stream::empty()));
    }
    let size = BLOCK_SIZE as u64;
    let first = from / size;
    let start = first.saturating_mul(size);
    let end = until.div_ceil(size).saturating_mul(size).min(binary.size);
    let source = app.blobs.get(&binary.pin, start..end).await?;
    let verifier = Verifier {
        app,
        tenant,
        binary,
        source,
        gathered: BytesMut::new(),
        block: first,
        digests: VecDeque::new(),
        from,
        until,
    };
    // The first block is verified before the answer begins, so that a store that fails at once costs no use.
    let mut blocks = Box::pin(futures_util::stream::unfold(Some(verifier), step));
    let head = match blocks.next().await {
        Some(Ok(block)) => block,
        Some(Err(ContentError::Integrity)) => {
            return Err(AppError::new(
                Class::Internal,
                Reason::IntegrityFailed,
                super::error::explain(Reason::IntegrityFailed),
            ));
        }
        Some(Err(_)) | None => {
            return Err(AppError::new(
                Class::Unavailable,
                Reason::StorageUnavailable,
                super::error::explain(Reason::StorageUnavailable),
            ));
        }
    };
    Ok(Box::pin(futures_util::stream::iter([Ok(head)]).chain(blocks)))
}

async fn step(verifier: Option<Verifier>) -> Option<(Result<Bytes, ContentError>, Option<Verifier>)> {
    let mut verifier = verifier?;
    match verifier.next_block().await {
        Ok(Some(block)) => Some((Ok(block), Some(verifier))),
        Ok(None) => None,
        Err(error) => Some((Err(error), None)),
    }
}

impl Verifier {
    async fn next_block(&mut self) -> Result<Option<Bytes>, ContentError> {
        let start = self.block.saturating_mul(BLOCK_SIZE as u64);
        if start >= self.until {
            return Ok(None);
        }
        let end = start.saturating_add(BLOCK_SIZE as u64).min(self.binary.size);
        let length = usize::try_from(end.saturating_sub(start)).map_err(|_| ContentError::Storage)?;
        while self.gathered.len() < length {
            match self.source.next().await {
                Some(Ok(chunk)) => self.gathered.extend_from_slice(&chunk),
                Some(Err(error)) => {
                    tracing::warn!(binary = %self.binary.id, %error, "content broke off in the blob store");
                    return Err(match error {
                        handoff_domain::ports::BlobError::Changed
                        | handoff_domain::ports::BlobError::NotFound => ContentError::Integrity,
                        _ => ContentError::Storage,
                    });
                }
                // Shorter than recorded: what is missing can't be verified.
                None => return Err(ContentError::Integrity),
            }
        }
        let block = self.gathered.split_to(length).freeze();
        let digest = self.next_digest().await?;
        if Sha256::digest(&block).as_slice() != digest {
            tracing::error!(binary = %self.binary.id, block = self.block, "a stored block is not what was recorded");
            return Err(ContentError::Integrity);
        }
        self.block = self.block.saturating_add(1);
        let skip = usize::try_from(self.from.saturating_sub(start))
            .unwrap_or(usize::MAX)
            .min(length);
        let keep = usize::try_from(self.until.saturating_sub(start))
            .unwrap_or(usize::MAX)
            .min(length);
        Ok(Some(block.slice(skip..keep)))
    }

    async fn next_digest(&mut self) -> Result<[u8; 32], ContentError> {
        if let Some(digest) = self.digests.pop_front() {
            return Ok(digest);
        }
        let (tenant, id) = (self.tenant.clone(), self.binary.id.clone());
        let first = u32::try_from(self.block).map_err(|_| ContentError::Storage)?;
        let page = self
            .app
            .read(move |read| Ok(read.block_hashes(&tenant, &id, first, DIGEST_PAGE)?))
            .await
            .map_err(|_| ContentError::Storage)?;
        self.digests = page.into();
        self.digests.pop_front().ok_or(ContentError::Integrity)
    }
}
