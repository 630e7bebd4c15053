//! A content store whose failures are counted, and whose work is spans of the traces that it belongs to. Names no object: its key is
//! nobody's business.

use std::ops::Range;
use std::sync::Arc;

use futures_util::{StreamExt as _, TryStreamExt as _};
use handoff_domain::ids::TenantId;
use handoff_domain::ports::{
    BlobError, BlobPin, BlobStore, BoxFuture, ByteStream, Listed, Listing, Uploaded,
};
use tracing::{Instrument as _, Span};

use crate::telemetry::{content, spans};

/// Another store, with its failures counted and its work traced.
pub struct MeasuredBlobs(Arc<dyn BlobStore>);

impl MeasuredBlobs {
    /// Counts and traces what `store` does.
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

fn note(span: &Span, operation: &'static str, error: &BlobError) {
    let kind = kind_of(error);
    content::blob_error(operation, kind);
    spans::note_failure(span, kind);
}

/// Waits for an answer within a span, which ends with it.
async fn within<T>(
    operation: &'static str,
    span: Span,
    answer: BoxFuture<'_, Result<T, BlobError>>,
) -> Result<T, BlobError> {
    let answer = answer.instrument(span.clone()).await;
    if let Err(error) = &answer {
        note(&span, operation, error);
    }
    answer
}

impl BlobStore for MeasuredBlobs {
    fn put<'a>(
        &'a self,
        key: &'a str,
        content_type: &'a str,
        bytes: ByteStream,
        limit: u64,
    ) -> BoxFuture<'a, Result<Uploaded, BlobError>> {
        let span = spans::blob("put");
        Box::pin(within("put", span, self.0.put(key, content_type, bytes, limit)))
    }

    fn get<'a>(
        &'a self,
        pin: &'a BlobPin,
        range: Range<u64>,
    ) -> BoxFuture<'a, Result<ByteStream, BlobError>> {
        let span = spans::blob("get");
        spans::note_bytes(&span, range.end.saturating_sub(range.start));
        let answer = within("get", span.clone(), self.0.get(pin, range));
        Box::pin(async move {
            let mut content = answer.await?;
            let first = if span.is_none() {
                None
            } else {
                // Until the first byte; what follows comes at the pace of whoever takes it.
                content.next().instrument(span.clone()).await
            };
            if let Some(Err(error)) = &first {
                spans::note_failure(&span, kind_of(error));
            }
            drop(span);
            let content = futures_util::stream::iter(first).chain(content);
            let content: ByteStream = Box::pin(content.inspect_err(|error| {
                content::blob_error("get", kind_of(error));
            }));
            Ok(content)
        })
    }

    fn tags<'a>(&'a self, pin: &'a BlobPin) -> BoxFuture<'a, Result<Vec<(String, String)>, BlobError>> {
        Box::pin(within("tags", spans::blob("tags"), self.0.tags(pin)))
    }

    fn list<'a>(
        &'a self,
        tenant: &'a TenantId,
        from: Option<String>,
    ) -> BoxFuture<'a, Result<Listing, BlobError>> {
        Box::pin(within("list", spans::blob("list"), self.0.list(tenant, from)))
    }

    fn delete<'a>(&'a self, pin: &'a BlobPin) -> BoxFuture<'a, Result<(), BlobError>> {
        Box::pin(within("delete", spans::blob("delete"), self.0.delete(pin)))
    }

    fn remove_listed<'a>(
        &'a self,
        tenant: &'a TenantId,
        object: &'a Listed,
    ) -> BoxFuture<'a, Result<(), BlobError>> {
        let answer = self.0.remove_listed(tenant, object);
        Box::pin(within("delete", spans::blob("delete"), answer))
    }

    fn sweep(&self, older_than_seconds: u64) -> BoxFuture<'_, Result<u64, BlobError>> {
        self.0.sweep(older_than_seconds)
    }

    fn ready(&self) -> BoxFuture<'_, Result<(), BlobError>> {
        self.0.ready()
    }
}
