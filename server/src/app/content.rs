//! The bytes of one stream: read from the blob store pinned to what was recorded, each block verified before any
//! of it is sent, stopped the moment the right to it ends. Whatever happens, its end is recorded exactly once.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll};
use std::time::Instant;

use bytes::Bytes;
use futures_util::future::join;
use futures_util::{Stream, StreamExt};
use handoff_domain::document::{BLOCK_SIZE, StoredBinary};
use handoff_domain::ids::TenantId;
use handoff_domain::ports::{BlobError, ByteStream};
use handoff_domain::reason::Reason;
use handoff_domain::redemption::StreamEnd;
use thiserror::Error;
use tokio::sync::OwnedSemaphorePermit;

use super::blocks::{Block, Gathered, Pace, TOGETHER, first_wrong};
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

/// Verified blocks, in pieces.
pub(super) type Blocks = Pin<Box<dyn Stream<Item = Result<VecDeque<Bytes>, ContentError>> + Send>>;

/// Verified bytes on their way to one client.
pub struct Content {
    blocks: Blocks,
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
        let request = this.ending.request().clone();
        let _within = request.enter();
        this.ending.entry().touch();
        if let Poll::Ready(reason) = this.cut.as_mut().poll(cx) {
            return this.fail(ContentError::Cut(reason));
        }
        loop {
            if let Some(mut piece) = this.pieces.pop_front() {
                if piece.len() > PIECE {
                    this.pieces.push_front(piece.split_off(PIECE));
                }
                // Counted as it is handed over, not when it is asked beyond: some of it may leave although the
                // connection then fails, and no byte that left may count as unsent.
                this.ending.count(piece.len());
                return Poll::Ready(Some(Ok(piece)));
            }
            match this.blocks.as_mut().poll_next(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Some(Err(error))) => return this.fail(error),
                Poll::Ready(Some(Ok(block))) => this.pieces = block,
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
    /// What came beyond the block that was gathered last.
    beyond: Bytes,
    /// The next block.
    block: u64,
    pace: Pace,
    /// While several blocks are gathered, and until all of them were taken.
    place: Option<OwnedSemaphorePermit>,
    digests: VecDeque<[u8; 32]>,
    from: u64,
    until: u64,
}

/// The bytes `[from, until)`, block by block, none before its digest was found right.
pub(super) async fn verified(
    app: App,
    tenant: TenantId,
    binary: StoredBinary,
    from: u64,
    until: u64,
) -> Result<Blocks, AppError> {
    if from >= until {
        return Ok(Box::pin(futures_util::stream::empty()));
    }
    let size = BLOCK_SIZE as u64;
    let first = from / size;
    let start = first.saturating_mul(size);
    let end = until.div_ceil(size).saturating_mul(size).min(binary.size);
    let (source, digests) = join(
        app.blobs.get(&binary.pin, start..end),
        digests(&app, &tenant, &binary, first),
    )
    .await;
    let verifier = Verifier {
        source: source?,
        digests: digests?,
        app,
        tenant,
        binary,
        beyond: Bytes::new(),
        block: first,
        pace: Pace::default(),
        place: None,
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

/// The recorded digests of the blocks from `first` on, as many as are read at once.
async fn digests(
    app: &App,
    tenant: &TenantId,
    binary: &StoredBinary,
    first: u64,
) -> Result<VecDeque<[u8; 32]>, AppError> {
    let (tenant, id) = (tenant.clone(), binary.id.clone());
    let first =
        u32::try_from(first).map_err(|_| AppError::bad("the content has more blocks than can be counted"))?;
    let page = app
        .read(move |read| Ok(read.block_hashes(&tenant, &id, first, DIGEST_PAGE)?))
        .await?;
    Ok(page.into())
}

async fn step(
    verifier: Option<Verifier>,
) -> Option<(Result<VecDeque<Bytes>, ContentError>, Option<Verifier>)> {
    let mut verifier = verifier?;
    match verifier.next_blocks().await {
        Ok(Some(blocks)) => Some((Ok(blocks), Some(verifier))),
        Ok(None) => None,
        Err(error) => Some((Err(error), None)),
    }
}

impl Verifier {
    /// The bytes of the next block, of several where the client is quick, none before all were found right.
    async fn next_blocks(&mut self) -> Result<Option<VecDeque<Bytes>>, ContentError> {
        let now = Instant::now();
        self.place = None;
        if self.pace.is_quick(now) {
            self.place = self.app.streams.gathering.place();
        }
        let most = if self.place.is_some() { TOGETHER } else { 1 };
        self.pace.give(now, most);
        let (first, start) = (self.block, self.start());
        let mut blocks = Vec::with_capacity(most);
        while blocks.len() < most && self.start() < self.until {
            blocks.push(self.gather().await?);
        }
        if let Some(wrong) = first_wrong(&blocks) {
            let block = first.saturating_add(wrong as u64);
            tracing::error!(binary = %self.binary.id, block, "a stored block is not what was recorded");
            return Err(ContentError::Integrity);
        }
        if blocks.is_empty() {
            return Ok(None);
        }
        let mut pieces: VecDeque<Bytes> = blocks.into_iter().flat_map(|block| block.pieces).collect();
        let length = usize::try_from(self.start().min(self.binary.size).saturating_sub(start))
            .map_err(|_| ContentError::Storage)?;
        let place = |at: u64| {
            usize::try_from(at.saturating_sub(start))
                .unwrap_or(usize::MAX)
                .min(length)
        };
        let (skip, keep) = (place(self.from), place(self.until));
        cut_back(&mut pieces, length.saturating_sub(keep));
        cut_front(&mut pieces, skip);
        Ok(Some(pieces))
    }

    /// Where the next block starts.
    const fn start(&self) -> u64 {
        self.block.saturating_mul(BLOCK_SIZE as u64)
    }

    /// The next block, with the digest that was recorded of it.
    async fn gather(&mut self) -> Result<Block, ContentError> {
        let left = self.binary.size.saturating_sub(self.start());
        let mut missing = usize::try_from(left).unwrap_or(usize::MAX).min(BLOCK_SIZE);
        let size = if self.place.is_some() { BLOCK_SIZE } else { PIECE };
        let mut gathered = Gathered::in_pieces_of(size.min(missing));
        while missing > 0 {
            let mut chunk = self.next_chunk().await?;
            self.beyond = chunk.split_off(chunk.len().min(missing));
            missing = missing.saturating_sub(chunk.len());
            gathered.add(&chunk);
        }
        let digest = self.next_digest().await?;
        self.block = self.block.saturating_add(1);
        let pieces = gathered.into_pieces();
        Ok(Block { pieces, digest })
    }

    /// What came beyond the last block, or else the next chunk.
    async fn next_chunk(&mut self) -> Result<Bytes, ContentError> {
        if !self.beyond.is_empty() {
            return Ok(std::mem::take(&mut self.beyond));
        }
        match self.source.next().await {
            Some(Ok(chunk)) => Ok(chunk),
            Some(Err(error)) => {
                tracing::warn!(binary = %self.binary.id, %error, "content broke off in the blob store");
                Err(match error {
                    BlobError::Changed | BlobError::NotFound => ContentError::Integrity,
                    _ => ContentError::Storage,
                })
            }
            // Shorter than recorded: what is missing can't be verified.
            None => Err(ContentError::Integrity),
        }
    }

    async fn next_digest(&mut self) -> Result<[u8; 32], ContentError> {
        if self.digests.is_empty() {
            self.digests = digests(&self.app, &self.tenant, &self.binary, self.block)
                .await
                .map_err(|_| ContentError::Storage)?;
        }
        self.digests.pop_front().ok_or(ContentError::Integrity)
    }
}

/// Takes `count` bytes off the front.
fn cut_front(pieces: &mut VecDeque<Bytes>, mut count: usize) {
    while count > 0
        && let Some(mut piece) = pieces.pop_front()
    {
        let rest = piece.split_off(count.min(piece.len()));
        count = count.saturating_sub(piece.len());
        if !rest.is_empty() {
            pieces.push_front(rest);
        }
    }
}

/// Takes `count` bytes off the end.
fn cut_back(pieces: &mut VecDeque<Bytes>, mut count: usize) {
    while count > 0
        && let Some(mut piece) = pieces.pop_back()
    {
        let cut = count.min(piece.len());
        piece.truncate(piece.len().saturating_sub(cut));
        count = count.saturating_sub(cut);
        if !piece.is_empty() {
            pieces.push_back(piece);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pieces() -> VecDeque<Bytes> {
        ["ab", "cde", "f"].into_iter().map(Bytes::from).collect()
    }

    fn joined(pieces: &VecDeque<Bytes>) -> String {
        pieces.iter().map(|p| String::from_utf8_lossy(p)).collect()
    }

    #[test]
    fn bytes_are_cut_off_across_pieces() {
        for count in 0..=7 {
            let (mut front, mut back) = (pieces(), pieces());
            cut_front(&mut front, count);
            cut_back(&mut back, count);
            assert_eq!(joined(&front), "abcdef"[count.min(6)..], "{count}");
            assert_eq!(joined(&back), "abcdef"[..6 - count.min(6)], "{count}");
            assert!(front.iter().chain(&back).all(|piece| !piece.is_empty()));
        }
    }
}
