//! Downloads: one request for the whole range, pinned, passed on as it comes, and taken up again where a connection
//! broke. Keeps no more than the chunk in hand.

use std::ops::Range;

use azure_core::ResponseBody;
use azure_core::prelude::IfMatchCondition;
use azure_storage_blobs::prelude::{BlobClient, BlobVersioning, VersionId};
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use handoff_domain::ports::{BlobError, BlobPin, ByteStream};
use tracing::debug;

use super::pipeline::{CONTROL_DEADLINE, Failure, IDLE_TIMEOUT, unavailable, within};

/// The SDK asks for a checksum with every smaller range, which the emulator can't answer.
const LEAST_RANGE: u64 = 4 * 1024 * 1024;
/// Breaks of the connection, with no byte between them, that end a download.
const PATIENCE: u32 = 3;

/// The bytes `range` of the pinned object.
pub(super) async fn download(
    blob: BlobClient,
    pin: BlobPin,
    range: Range<u64>,
) -> Result<ByteStream, BlobError> {
    if range.start > range.end {
        return Err(BlobError::Changed);
    }
    let mut reading = Reading {
        blob,
        pin,
        next: range.start,
        end: range.end,
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

struct Reading {
    blob: BlobClient,
    pin: BlobPin,
    next: u64,
    end: u64,
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

    /// Asks for the bytes that are missing, all in one request.
    async fn open(&self) -> Result<ResponseBody, BlobError> {
        let length = (self.end - self.next).max(LEAST_RANGE);
        let mut request = self
            .blob
            .get()
            .range(self.next..self.next.saturating_add(length))
            .chunk_size(length)
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
            let mut body = match self.body.take() {
                Some(body) => body,
                None => self.open().await?,
            };
            // Times the service alone: a reader who pauses between two chunks does not run this clock.
            match tokio::time::timeout(IDLE_TIMEOUT, body.next()).await {
                Ok(Some(Ok(mut bytes))) => {
                    let left = usize::try_from(self.end - self.next).unwrap_or(usize::MAX);
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
                // The object ends before the range does, so it is not the one the caller knows.
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
