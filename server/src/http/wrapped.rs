//! The wrapped form of content: base64 in a Binary resource, written as it streams, so that a cut reaches it like any
//! other stream and its length is known from the start.

use actix_web::body::SizedStream;
use actix_web::{HttpRequest, HttpResponse};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures_util::StreamExt;

use super::HttpState;
use super::answer::{FHIR_JSON, with_correlation};
use super::room::Taken;
use super::stream::carry;
use crate::app::content::{Content, ContentError};
use crate::app::redeem::Ticket;
use crate::app::{AppError, Caller};

/// Closes the text of `data` and the resource.
const END: &str = "\"}";

/// Content of a ticket as a Binary resource. Its room is `taken` until the end.
pub async fn wrapped(
    state: &HttpState,
    request: &HttpRequest,
    caller: &Caller,
    ticket: Ticket,
    taken: Option<Taken>,
) -> Result<HttpResponse, AppError> {
    let binary = &ticket.binary;
    let created = binary.created.to_instant();
    let empty =
        handoff_fhir_model::binary::wrap(binary.id.as_str(), "1", &created, &binary.content_type, &[])
            .to_string();
    let size = binary.size;
    carry(request, &ticket);
    let content = state.app.open_content(caller, ticket).await?;
    let mut response = with_correlation(state, request, HttpResponse::Ok());
    response.content_type(FHIR_JSON);
    let (head, end) = match (size, empty.strip_suffix('}')) {
        (0, _) | (_, None) => (empty.clone(), ""),
        (_, Some(open)) => (format!("{open},\"data\":\""), END),
    };
    let encoded = size.div_ceil(3).saturating_mul(4);
    let length = (head.len() as u64)
        .saturating_add(encoded)
        .saturating_add(end.len() as u64);
    let writer = Writer {
        content,
        head: Some(head),
        end,
        carried: Vec::new(),
        left: size,
        done: false,
        _taken: taken,
    };
    let body = futures_util::stream::unfold(writer, Writer::step);
    Ok(response.body(SizedStream::new(length, Box::pin(body))))
}

/// What is left to write.
struct Writer {
    content: Content,
    head: Option<String>,
    end: &'static str,
    /// Bytes that do not yet fill three, which base64 needs.
    carried: Vec<u8>,
    left: u64,
    done: bool,
    _taken: Option<Taken>,
}

impl Writer {
    async fn step(mut self) -> Option<(Result<Bytes, ContentError>, Self)> {
        if let Some(head) = self.head.take() {
            return Some((Ok(Bytes::from(head)), self));
        }
        if self.done {
            return None;
        }
        match self.content.next().await {
            Some(Ok(piece)) => {
                let text = self.encode(&piece);
                Some((Ok(Bytes::from(text)), self))
            }
            Some(Err(error)) => {
                self.done = true;
                Some((Err(error), self))
            }
            None => None,
        }
    }

    /// The next part of the text; with the last byte also what closes it.
    fn encode(&mut self, piece: &[u8]) -> String {
        self.left = self.left.saturating_sub(piece.len() as u64);
        self.carried.extend_from_slice(piece);
        let last = self.left == 0;
        let whole = if last {
            self.carried.len()
        } else {
            self.carried.len() - self.carried.len() % 3
        };
        let rest = self.carried.split_off(whole);
        let mut text = STANDARD.encode(&self.carried);
        self.carried = rest;
        if last {
            text.push_str(self.end);
        }
        text
    }
}
