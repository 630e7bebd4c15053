//! Around every request: tells its connection when it begins, when its body was read and when its answer is out of
//! our hands, and hands large answers on in small pieces.

use std::cell::RefCell;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use actix_http::ConnectionType;
use actix_web::body::{BodySize, MessageBody};
use actix_web::dev::{Payload, ServiceRequest, ServiceResponse};
use actix_web::error::PayloadError;
use actix_web::http::header::{CONTENT_LENGTH, HeaderMap, TRANSFER_ENCODING};
use actix_web::middleware::Next;
use actix_web::{Error, HttpMessage as _};
use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};
use pin_project_lite::pin_project;
use tokio::time::timeout;

use super::{Connection, Due};

/// The HTTP server copies each piece of an answer into a buffer, which it then keeps for as long as the connection.
const PIECE: usize = 32 * 1024;

/// How much of a body that nobody wants is read all the same, and how long is waited for it.
const SKIMMED: usize = 64 * 1024;
const SKIM_FOR: Duration = Duration::from_millis(250);

/// Answers the request, and keeps its connection informed.
pub async fn serving(
    mut request: ServiceRequest,
    next: Next<impl MessageBody>,
) -> Result<ServiceResponse<Answering<impl MessageBody>>, Error> {
    let connection = request.conn_data::<Arc<Connection>>().cloned();
    let is_endless = request.headers().contains_key(TRANSFER_ENCODING);
    let serving = connection.map(|connection| Serving::begin(connection, body_due(request.headers())));
    let unread = Rc::new(RefCell::new(None));
    if let Some(serving) = serving.as_ref().filter(|serving| serving.has_body) {
        let payload = Watched {
            payload: Some(request.take_payload()),
            connection: Arc::clone(&serving.connection),
            unread: Rc::clone(&unread),
        };
        request.set_payload(Payload::Stream {
            payload: Box::pin(payload),
        });
    }
    let mut answer = next.call(request).await?;
    let payload = unread.take();
    if let Some((serving, payload)) = serving.as_ref().zip(payload) {
        skim(payload, &serving.connection).await;
    }
    let refused = answer.status().is_client_error() || answer.status().is_server_error();
    let is_unread = serving
        .as_ref()
        .is_some_and(|serving| serving.connection.progress().has_unread_body());
    if is_endless && refused && is_unread {
        // The HTTP server would read such a body to its end, however long that takes.
        answer
            .response_mut()
            .head_mut()
            .set_connection_type(ConnectionType::Close);
    }
    Ok(answer.map_body(|_, body| Answering {
        body,
        rest: Bytes::new(),
        serving,
    }))
}

/// What a request's head says of its body.
fn body_due(headers: &HeaderMap) -> Due {
    if headers.contains_key(TRANSFER_ENCODING) {
        return Due::CHUNKS;
    }
    let length = headers.get(CONTENT_LENGTH).and_then(|n| n.to_str().ok());
    match length.and_then(|n| n.trim().parse().ok()) {
        None | Some(0) => Due::Nothing,
        Some(length) => Due::Bytes(length),
    }
}

/// A request under way.
struct Serving {
    connection: Arc<Connection>,
    has_body: bool,
}

impl Serving {
    fn begin(connection: Arc<Connection>, due: Due) -> Self {
        let reader = connection.progress().begin(due);
        if let Some(reader) = reader {
            reader.wake();
        }
        Self {
            connection,
            has_body: due != Due::Nothing,
        }
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let reader = self.connection.progress().answered(Instant::now());
        if let Some(reader) = reader {
            reader.wake();
        }
    }
}

/// Reads what nobody wanted of a body, where it is short and there: a connection is not worth giving up for that.
async fn skim(mut payload: Payload, connection: &Connection) {
    let reading = async {
        let mut bytes: usize = 0;
        while bytes < SKIMMED {
            match payload.next().await {
                Some(Ok(more)) => bytes = bytes.saturating_add(more.len()),
                Some(Err(_)) => return false,
                None => return true,
            }
        }
        false
    };
    if let Ok(true) = timeout(SKIM_FOR, reading).await {
        connection.progress().body_read();
    }
}

/// A request's body on its way in.
struct Watched {
    payload: Option<Payload>,
    connection: Arc<Connection>,
    /// Where the rest goes when nobody wants it.
    unread: Rc<RefCell<Option<Payload>>>,
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.unread.replace(self.payload.take());
    }
}

impl Stream for Watched {
    type Item = Result<Bytes, PayloadError>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        let Some(payload) = &mut this.payload else {
            return Poll::Ready(None);
        };
        let item = ready!(Pin::new(payload).poll_next(cx));
        if !matches!(item, Some(Ok(_))) {
            this.payload = None;
            this.connection.progress().body_read();
        }
        Poll::Ready(item)
    }
}

pin_project! {
    /// An answer's body; its request is under way for as long as this is.
    pub struct Answering<B> {
        #[pin]
        body: B,
        rest: Bytes,
        serving: Option<Serving>,
    }
}

impl<B: MessageBody> MessageBody for Answering<B> {
    type Error = B::Error;

    fn size(&self) -> BodySize {
        self.body.size()
    }

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Self::Error>>> {
        let this = self.project();
        if let Some(serving) = this.serving
            && !serving.connection.progress().may_fill(cx.waker())
        {
            return Poll::Pending;
        }
        if this.rest.is_empty() {
            match ready!(this.body.poll_next(cx)) {
                Some(Ok(bytes)) => *this.rest = bytes,
                other => return Poll::Ready(other),
            }
        }
        let length = this.rest.len().min(PIECE);
        Poll::Ready(Some(Ok(this.rest.split_to(length))))
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::pin::pin;

    use super::*;

    #[tokio::test]
    async fn a_large_answer_is_handed_on_in_small_pieces_and_whole() {
        let whole: Vec<u8> = (0..100_000).map(|i: u32| i.to_le_bytes()[0]).collect();
        let answer = Answering {
            body: whole.clone(),
            rest: Bytes::new(),
            serving: None,
        };
        assert_eq!(answer.size(), BodySize::Sized(100_000));
        let (mut answer, mut got, mut largest) = (pin!(answer), Vec::new(), 0);
        while let Some(piece) = poll_fn(|cx| answer.as_mut().poll_next(cx)).await {
            let piece = piece.unwrap();
            largest = largest.max(piece.len());
            got.extend_from_slice(&piece);
        }
        assert_eq!((largest, got), (PIECE, whole));
    }

    #[test]
    fn a_request_has_the_body_that_its_head_states() {
        use actix_web::http::header::HeaderValue;
        let due = |name, value| {
            let mut headers = HeaderMap::new();
            headers.insert(name, HeaderValue::from_static(value));
            body_due(&headers)
        };
        assert_eq!(body_due(&HeaderMap::new()), Due::Nothing);
        assert_eq!(due(CONTENT_LENGTH, "0"), Due::Nothing);
        assert_eq!(due(CONTENT_LENGTH, "12"), Due::Bytes(12));
        assert_eq!(due(TRANSFER_ENCODING, "chunked"), Due::CHUNKS);
    }
}
