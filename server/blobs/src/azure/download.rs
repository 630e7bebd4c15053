//! Downloads: the range in windows, each pinned and asked for by one request, passed on as it comes, and taken up again
//! where a connection broke. Keeps no more than the chunk in hand.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use azure_core::ResponseBody;
use azure_core::prelude::IfMatchCondition;
use azure_storage_blobs::prelude::{BlobClient, BlobVersioning, VersionId};
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use handoff_domain::ports::{BlobError, BlobPin, ByteStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tracing::debug;

use super::pipeline::{CONTROL_DEADLINE, Failure, IDLE_TIMEOUT, unavailable, within};

/// Breaks of the connection, with no byte between them, that end a download.
const PATIENCE: u32 = 3;

/// The bytes `range` of the pinned object.
pub(super) async fn download(
    blob: BlobClient,
    ample: BlobClient,
    places: Arc<Semaphore>,
    window: Window,
    pin: BlobPin,
    range: Range<u64>,
) -> Result<ByteStream, BlobError> {
    if range.start > range.end {
        return Err(BlobError::Changed);
    }
    let mut reading = Reading {
        blob,
        ample,
        places,
        place: None,
        pin,
        next: range.start,
        end: range.end,
        window,
        body: None,
        broken: 0,
    };
    if range.is_empty() {
        // There is no such thing as an empty range, but whether the object is there and the same must be told.
        reading.check().await?;
        return Ok(Box::pin(stream::empty()));
    }
    reading.body = Some(reading.open().await?);
    Ok(Box::pin(stream::try_unfold(reading, |mut reading| async move {
        Ok(reading.chunk().await?.map(|bytes| (bytes, reading)))
    })))
}

/// A condition can fail because there is nothing to hold it against: tells a changed object from none.
pub(super) async fn gone_or(
    error: BlobError,
    blob: &BlobClient,
    version: Option<BlobVersioning>,
) -> BlobError {
    if error != BlobError::Changed {
        return error;
    }
    let mut look = blob.get_properties();
    if let Some(version) = version {
        look = look.blob_versioning(version);
    }
    match within(CONTROL_DEADLINE, look.into_future()).await {
        Err(Failure {
            error: BlobError::NotFound,
            ..
        }) => BlobError::NotFound,
        _ => error,
    }
}

/// How much is asked for at once: about what the reader takes in a few seconds. What it does not take waits in the
/// kernels of both sides, where thousands of slow readers would fill the memory for sockets with what they want later.
#[derive(Debug)]
pub(super) struct Window {
    size: u64,
    opened: Instant,
    /// Where it ends.
    end: u64,
}

impl Window {
    const SMALLEST: u64 = 512 * 1024;
    /// Larger than any first one: its reader has shown that it takes much at once.
    const AMPLE: u64 = 1024 * 1024;
    const LARGEST: u64 = 2 * 1024 * 1024 * 1024;
    /// The first is taken by buffers, so it says little of the reader.
    const GROWTH: u64 = 64;
    /// One that lasts for less was too small: the next one is larger.
    const SHORT: Duration = Duration::from_secs(1);
    /// One that lasts for longer was too large.
    const LONG: Duration = Duration::from_secs(4);
    /// In milliseconds.
    const WANTED: u64 = 2_000;

    /// That of the download begun as number `turn`. Slow readers who begin together would all be through the same
    /// window together, and ask for the next one at once. Theirs differ by up to half of it to either side: steps of
    /// the golden ratio fill that room evenly, however many there are.
    pub(super) fn first(turn: u32) -> Self {
        const GOLDEN: u32 = 0x9E37_79B9;
        let part = u64::from(turn.wrapping_mul(GOLDEN));
        Self {
            size: Self::SMALLEST / 2 + ((part * Self::SMALLEST) >> 32),
            opened: Instant::now(),
            end: 0,
        }
    }

    /// Opens at `next`, short of `end`.
    fn open(&mut self, next: u64, end: u64) {
        self.opened = Instant::now();
        self.end = next.saturating_add(self.size).min(end);
    }

    /// All of it was taken, in this time: the next one should last for [`Self::WANTED`].
    fn taken_in(&mut self, time: Duration) {
        if (Self::SHORT..=Self::LONG).contains(&time) {
            return;
        }
        let milliseconds = u64::try_from(time.as_millis()).unwrap_or(u64::MAX).max(1);
        let wanted = self.size.saturating_mul(Self::WANTED) / milliseconds;
        let most = self.size.saturating_mul(Self::GROWTH).min(Self::LARGEST);
        self.size = wanted.clamp(Self::SMALLEST, most);
    }
}

struct Reading {
    blob: BlobClient,
    /// The same, for readers who have shown that they take much at once.
    ample: BlobClient,
    /// Places for those.
    places: Arc<Semaphore>,
    /// The place of the present window, where it is read amply.
    place: Option<OwnedSemaphorePermit>,
    pin: BlobPin,
    next: u64,
    end: u64,
    window: Window,
    body: Option<ResponseBody>,
    broken: u32,
}

impl Reading {
    fn version(&self) -> Option<BlobVersioning> {
        self.pin.version_id.clone().map(|id| VersionId::new(id).into())
    }

    fn same(&self) -> IfMatchCondition {
        IfMatchCondition::Match(self.pin.etag.clone())
    }

    async fn check(&self) -> Result<(), BlobError> {
        let mut request = self.blob.get_properties().if_match(self.same());
        if let Some(version) = self.version() {
            request = request.blob_versioning(version);
        }
        match within(CONTROL_DEADLINE, request.into_future()).await {
            Ok(_) => Ok(()),
            Err(failure) => Err(gone_or(failure.error, &self.blob, self.version()).await),
        }
    }

    /// Asks for the next window.
    async fn open(&mut self) -> Result<ResponseBody, BlobError> {
        self.window.open(self.next, self.end);
        self.place = None;
        if self.window.size >= Window::AMPLE {
            self.place = Arc::clone(&self.places).try_acquire_owned().ok();
        }
        let blob = if self.place.is_some() {
            &self.ample
        } else {
            &self.blob
        };
        let mut request = blob
            .get()
            .range(self.next..self.window.end)
            .chunk_size(self.window.end - self.next)
            .if_match(self.same());
        if let Some(version) = self.version() {
            request = request.blob_versioning(version);
        }
        let mut answers = request.into_stream();
        let first = async {
            answers.next().await.unwrap_or_else(|| {
                Err(azure_core::Error::message(
                    azure_core::error::ErrorKind::Other,
                    "no answer",
                ))
            })
        };
        match within(CONTROL_DEADLINE, first).await {
            Ok(answer) => Ok(answer.data),
            Err(failure) => Err(gone_or(failure.error, &self.blob, self.version()).await),
        }
    }

    async fn chunk(&mut self) -> Result<Option<Bytes>, BlobError> {
        while self.next < self.end {
            if self.body.is_some() && self.next == self.window.end {
                // All of its answer was read, so its connection is free for the next request.
                self.body = None;
                self.window.taken_in(self.window.opened.elapsed());
            }
            let mut body = match self.body.take() {
                Some(body) => body,
                None => self.open().await?,
            };
            // Times the service alone: a reader who pauses between two chunks does not run this clock.
            match tokio::time::timeout(IDLE_TIMEOUT, body.next()).await {
                Ok(Some(Ok(mut bytes))) => {
                    let left = usize::try_from(self.window.end - self.next).unwrap_or(usize::MAX);
                    bytes.truncate(left);
                    self.next = self
                        .next
                        .saturating_add(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
                    self.body = Some(body);
                    if !bytes.is_empty() {
                        self.broken = 0;
                        return Ok(Some(bytes));
                    }
                }
                // The object ends before the window does, so it is not the one the caller knows.
                Ok(None) => return Err(BlobError::Changed),
                Ok(Some(Err(_))) | Err(_) => {
                    self.broken += 1;
                    if self.broken >= PATIENCE {
                        return Err(unavailable("the connection broke while bytes were coming"));
                    }
                    debug!(
                        offset = self.next,
                        "a download's connection broke and is taken up again"
                    );
                }
            }
        }
        // Lets go of the connection as soon as the last byte is out.
        self.body = None;
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readers_who_begin_together_ask_again_at_different_times() {
        let mut sizes: Vec<u64> = (0..2_000).map(|turn| Window::first(turn).size).collect();
        sizes.sort_unstable();
        let (first, last) = (sizes[0], sizes[1_999]);
        assert!(first >= Window::SMALLEST / 2 && last <= Window::SMALLEST * 3 / 2);
        assert!(last < Window::AMPLE, "nobody has shown anything yet");
        let even = (last - first) / 2_000;
        let widest = sizes.windows(2).map(|pair| pair[1] - pair[0]).max();
        assert!(widest < Some(even * 4), "no bunch and no gap: {widest:?}");
    }

    #[test]
    fn a_window_is_as_large_as_its_reader_is_fast() {
        let mut window = Window {
            size: Window::SMALLEST,
            ..Window::first(0)
        };
        let mut sizes = Vec::new();
        for milliseconds in [0, 500, 2_000, 0, 0, 5_000, 16_000, 16_000, 16_000, 1_200_000, 900] {
            window.open(10, u64::MAX);
            sizes.push((window.end - 10) / Window::SMALLEST);
            window.taken_in(Duration::from_millis(milliseconds));
        }
        assert_eq!(sizes, [1, 64, 256, 256, 4096, 4096, 1638, 204, 25, 3, 1]);
        window.open(10, u64::MAX);
        assert_eq!(
            window.end - 10,
            Window::SMALLEST * 2_000 / 900,
            "what it takes in two seconds"
        );
        window.open(10, 20);
        assert_eq!(window.end, 20, "no further than the range");
    }
}
