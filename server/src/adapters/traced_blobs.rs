//! A content store whose work is spans of the traces that it belongs to. Names no object: its key is nobody's business.

use std::ops::Range;
use std::sync::Arc;

use futures_util::StreamExt as _;
use handoff_domain::ports::{BlobError, BlobPin, BlobStore, BoxFuture, ByteStream, Uploaded};
use tracing::{Instrument as _, Span};

use crate::telemetry::spans;

/// Another store, traced.
pub struct TracedBlobs(Arc<dyn BlobStore>);

impl TracedBlobs {
    /// Traces what `store` does.
    pub fn new(store: Arc<dyn BlobStore>) -> Self {
        Self(store)
    }
}

const fn kind_of(error: &BlobError) -> &'static str {
    match error {
        BlobError::TooLarge { .. } => "too-large",
        BlobError::SourceFailed => "source-failed",
        BlobError::NotFound => "not-found",
        BlobError::Changed => "changed",
        BlobError::Full => "full",
        BlobError::Unavailable(_) => "unavailable",
    }
}

/// Waits for an answer within a span, which ends with it.
async fn within<T>(span: Span, answer: BoxFuture<'_, Result<T, BlobError>>) -> Result<T, BlobError> {
    let answer = answer.instrument(span.clone()).await;
    if let Err(error) = &answer {
        spans::note_failure(&span, kind_of(error));
    }
    answer
}

impl BlobStore for TracedBlobs {
    fn put<'a>(
        &'a self,
        key: &'a str,
        content_type: &'a str,
        content: ByteStream,
        limit: u64,
    ) -> BoxFuture<'a, Result<Uploaded, BlobError>> {
        let span = spans::blob("put");
        Box::pin(within(span, self.0.put(key, content_type, content, limit)))
    }

    fn get<'a>(
        &'a self,
        pin: &'a BlobPin,
        range: Range<u64>,
    ) -> BoxFuture<'a, Result<ByteStream, BlobError>> {
        let span = spans::blob("get");
        spans::note_bytes(&span, range.end.saturating_sub(range.start));
        let answer = self.0.get(pin, range);
        if span.is_none() {
            return answer;
        }
        Box::pin(async move {
            let mut content = within(span.clone(), answer).await?;
            // Until the first byte; what follows comes at the pace of whoever takes it.
            let first = content.next().instrument(span.clone()).await;
            if let Some(Err(error)) = &first {
                spans::note_failure(&span, kind_of(error));
            }
            drop(span);
            let content: ByteStream = Box::pin(futures_util::stream::iter(first).chain(content));
            Ok(content)
        })
    }

    fn tags<'a>(&'a self, pin: &'a BlobPin) -> BoxFuture<'a, Result<Vec<(String, String)>, BlobError>> {
        Box::pin(within(spans::blob("tags"), self.0.tags(pin)))
    }

    fn delete<'a>(&'a self, pin: &'a BlobPin) -> BoxFuture<'a, Result<(), BlobError>> {
        Box::pin(within(spans::blob("delete"), self.0.delete(pin)))
    }

    fn sweep(&self, older_than_seconds: u64) -> BoxFuture<'_, Result<u64, BlobError>> {
        self.0.sweep(older_than_seconds)
    }

    fn ready(&self) -> BoxFuture<'_, Result<(), BlobError>> {
        self.0.ready()
    }
}
