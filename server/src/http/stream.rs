//! Bodies in and out: bounded, timed, and for content streamed in constant memory with a length that is always
//! stated, so that a cut stream can't be taken for a whole file.

use std::pin::Pin;
use std::time::Duration;

use actix_web::body::SizedStream;
use actix_web::http::header;
use actix_web::{HttpRequest, HttpResponse, web};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use handoff_domain::document::StoredBinary;
use handoff_domain::ports::{BlobError, ByteStream};
use tokio::sync::mpsc;

use super::HttpState;
use super::answer::with_correlation;
use super::connection::Connection;
use crate::app::redeem::{Ticket, strong_etag};
use crate::app::{AppError, Caller, Class};
use handoff_domain::reason::Reason;

/// Chunks of an upload that wait for the blob store.
const UPLOAD_BACKLOG: usize = 4;

/// A whole body of at most `limit` bytes.
pub async fn read_body(
    request: &HttpRequest,
    mut payload: web::Payload,
    limit: usize,
    idle: Duration,
) -> Result<Vec<u8>, AppError> {
    if stated_length(request).is_some_and(|n| n > limit as u64) {
        return Err(too_large(limit));
    }
    let mut body = Vec::new();
    loop {
        let chunk = tokio::time::timeout(idle, payload.next())
            .await
            .map_err(|_| stalled())?;
        match chunk {
            None => return Ok(body),
            Some(Ok(chunk)) => {
                if body.len().saturating_add(chunk.len()) > limit {
                    return Err(too_large(limit));
                }
                body.extend_from_slice(&chunk);
            }
            Some(Err(_)) => return Err(AppError::bad("the body broke off before its end; send it again")),
        }
    }
}

/// A body as a stream that other threads may read: the payload itself stays on the connection's own.
pub fn upload(request: &HttpRequest, mut payload: web::Payload, idle: Duration) -> ByteStream {
    let (sender, receiver) = mpsc::channel::<Result<Bytes, BlobError>>(UPLOAD_BACKLOG);
    let stated = stated_length(request);
    actix_web::rt::spawn(async move {
        let mut length: u64 = 0;
        loop {
            let chunk = match tokio::time::timeout(idle, payload.next()).await {
                Ok(Some(Ok(chunk))) => chunk,
                Ok(None) => {
                    // A clean end before the stated length is still a broken upload.
                    if stated.is_some_and(|n| n != length) {
                        let _ = sender.send(Err(BlobError::SourceFailed)).await;
                    }
                    return;
                }
                Ok(Some(Err(_))) | Err(_) => {
                    let _ = sender.send(Err(BlobError::SourceFailed)).await;
                    return;
                }
            };
            length = length.saturating_add(chunk.len() as u64);
            if sender.send(Ok(chunk)).await.is_err() {
                return;
            }
        }
    });
    Box::pin(futures_util::stream::unfold(
        receiver,
        |mut receiver| async move { receiver.recv().await.map(|item| (item, receiver)) },
    ))
}

/// `Content-Length`, where it was sent.
pub fn stated_length(request: &HttpRequest) -> Option<u64> {
    request
        .headers()
        .get(header::CONTENT_LENGTH)?
        .to_str()
        .ok()?
        .parse()
        .ok()
}

fn too_large(limit: usize) -> AppError {
    AppError::new(
        Class::TooLarge,
        Reason::TooLarge,
        format!("the body exceeds the limit of {limit} bytes"),
    )
}

fn stalled() -> AppError {
    AppError::bad("the body stopped coming; send it again without pausing")
}

/// Content of a ticket as an answer: 200 for the whole, 206 for the rest.
pub async fn content(
    state: &HttpState,
    request: &HttpRequest,
    caller: &Caller,
    ticket: Ticket,
) -> Result<HttpResponse, AppError> {
    let (from, until, size) = (ticket.from, ticket.until, ticket.binary.size);
    let partial = ticket.ranged;
    let binary = ticket.binary.clone();
    let redemption = ticket.redemption.clone();
    if let Some(transport) = request.conn_data::<Connection>().and_then(Connection::handle) {
        ticket.ending.entry().carried_by(transport);
    }
    let content = state.app.open_content(caller, ticket).await?;
    let mut response = if partial {
        let mut response = HttpResponse::PartialContent();
        let last = until.saturating_sub(1);
        response.insert_header((header::CONTENT_RANGE, format!("bytes {from}-{last}/{size}")));
        response
    } else {
        HttpResponse::Ok()
    };
    let base = state.app.settings.tenant_base(caller.tenant());
    response.insert_header((
        header::CONTENT_LOCATION,
        format!("{base}/redemptions/{redemption}/content"),
    ));
    // Stored bytes are sent as they are: a compressed form would be another representation.
    response.insert_header((header::CONTENT_ENCODING, "identity"));
    let mut response = content_headers(with_correlation(state, request, response), &binary);
    let body: Pin<Box<dyn Stream<Item = _>>> = Box::pin(content);
    Ok(response.body(SizedStream::new(until.saturating_sub(from), body)))
}

/// What a GET would be told, without content.
pub fn preview(state: &HttpState, request: &HttpRequest, binary: &StoredBinary) -> HttpResponse {
    let response = with_correlation(state, request, HttpResponse::Ok());
    let mut response = content_headers(response, binary);
    let nothing = futures_util::stream::empty::<Result<Bytes, std::io::Error>>();
    // The length is that of the content; a HEAD's answer has no body.
    response.body(SizedStream::new(binary.size, nothing))
}

fn content_headers(
    mut response: actix_web::HttpResponseBuilder,
    binary: &StoredBinary,
) -> actix_web::HttpResponseBuilder {
    let sha256 = STANDARD.encode(binary.sha256.0);
    response
        .insert_header((header::CONTENT_TYPE, safe_type(&binary.content_type)))
        .insert_header((header::ETAG, strong_etag(binary)))
        .insert_header((header::ACCEPT_RANGES, "bytes"))
        .insert_header(("repr-digest", format!("sha-256=:{sha256}:")))
        .insert_header((
            header::CONTENT_DISPOSITION,
            format!("attachment; filename=\"{}\"", file_name(binary)),
        ))
        .insert_header((
            header::CONTENT_SECURITY_POLICY,
            "sandbox; default-src 'none'; frame-ancestors 'none'",
        ))
        .insert_header((header::REFERRER_POLICY, "no-referrer"))
        .insert_header((header::CROSS_ORIGIN_RESOURCE_POLICY, "same-origin"));
    if let Some(context) = &binary.security_context {
        response.insert_header(("x-security-context", context.clone()));
    }
    response
}

/// The stored type where it is one, else plain bytes.
fn safe_type(content_type: &str) -> String {
    let plain = content_type.bytes().all(|b| (0x20..0x7f).contains(&b)) && content_type.contains('/');
    if plain {
        content_type.to_owned()
    } else {
        "application/octet-stream".to_owned()
    }
}

/// A generated name: titles may be about a patient, and names of files end up in logs and indexes.
fn file_name(binary: &StoredBinary) -> String {
    let essence = binary.content_type.split(';').next().unwrap_or_default().trim();
    let extension = match essence {
        "application/pdf" => "pdf",
        "text/plain" => "txt",
        "image/jpeg" => "jpg",
        "image/png" => "png",
        "application/dicom" => "dcm",
        "text/xml" | "application/xml" => "xml",
        "application/json" => "json",
        "application/zip" => "zip",
        _ => "bin",
    };
    format!("document-{}.{extension}", binary.id)
}

/// What a `Range` and `If-Range` pair asks to go on with: one range `a-b` or `a-`, a strong validator.
/// Anything else is no resume, and is ignored as RFC 9110 allows.
pub fn resume_of(request: &HttpRequest) -> Option<(String, crate::app::redeem::Continue)> {
    let text = |name: header::HeaderName| request.headers().get(name).and_then(|v| v.to_str().ok());
    let validator = text(header::IF_RANGE)?.trim();
    let range = text(header::RANGE)?.trim().strip_prefix("bytes=")?;
    let (from, last) = range.split_once('-')?;
    let from: u64 = from.trim().parse().ok()?;
    let until = match last.trim() {
        "" => None,
        last => Some(last.parse::<u64>().ok()?.checked_add(1)?),
    };
    if until.is_some_and(|until| until <= from) || !validator.starts_with('"') {
        return None;
    }
    Some((validator.to_owned(), crate::app::redeem::Continue { from, until }))
}
