//! Content on its way out: streamed in constant memory with a length that is always stated, so that a cut stream can't
//! be taken for a whole file.

use std::pin::Pin;
use std::sync::Arc;

use actix_web::body::SizedStream;
use actix_web::http::header;
use actix_web::{HttpRequest, HttpResponse};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use handoff_domain::document::StoredBinary;

use super::HttpState;
use super::answer::with_correlation;
use super::connection::Connection;
use super::room::Taken;
use crate::app::redeem::{Continue, Ticket, strong_etag};
use crate::app::{AppError, Caller};

/// Content of a ticket as an answer: 200 for the whole, 206 for the rest. Its room is `taken` until the end.
pub async fn content(
    state: &HttpState,
    request: &HttpRequest,
    caller: &Caller,
    ticket: Ticket,
    taken: Option<Taken>,
) -> Result<HttpResponse, AppError> {
    let (from, until, size) = (ticket.from, ticket.until, ticket.binary.size);
    let partial = ticket.ranged;
    let binary = ticket.binary.clone();
    let redemption = ticket.redemption.clone();
    carry(request, &ticket);
    let content = state.app.open_content(caller, ticket).await?;
    let content = content.inspect(move |_| {
        let _until_the_end = &taken;
    });
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

/// Lets the stream of a ticket be cut with the connection that carries it.
pub fn carry(request: &HttpRequest, ticket: &Ticket) {
    if let Some(connection) = request.conn_data::<Arc<Connection>>() {
        ticket.ending.entry().carried_by(connection.handle());
    }
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
pub fn resume_of(request: &HttpRequest) -> Option<(String, Continue)> {
    let text = |name: header::HeaderName| request.headers().get(name).and_then(|v| v.to_str().ok());
    let validator = text(header::IF_RANGE)?.trim();
    let wanted = range(text(header::RANGE)?.trim())?;
    validator.starts_with('"').then(|| (validator.to_owned(), wanted))
}

/// One range with a first byte (RFC 9110, 14.1.2). Units are told in any case, positions in digits alone.
fn range(text: &str) -> Option<Continue> {
    let (unit, set) = text.split_once('=')?;
    let (from, last) = set.split_once('-')?;
    let is_position = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    if !unit.eq_ignore_ascii_case("bytes") || !is_position(from) || !is_position(last) {
        return None;
    }
    let from: u64 = from.parse().ok()?;
    // None, or one beyond all numbers, means the end.
    let until = last.parse().ok().and_then(|last: u64| last.checked_add(1));
    until
        .is_none_or(|until| from < until)
        .then_some(Continue { from, until })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_range_with_a_first_byte_is_gone_on_with_and_nothing_else() {
        let asked = |text| range(text).map(|c| (c.from, c.until));
        assert_eq!(asked("bytes=0-9"), Some((0, Some(10))));
        assert_eq!(asked("BYTES=5-"), Some((5, None)));
        assert_eq!(asked("bytes=7-7"), Some((7, Some(8))));
        assert_eq!(asked("bytes=1-18446744073709551615"), Some((1, None)));
        assert_eq!(asked("bytes=1-99999999999999999999"), Some((1, None)));
        for odd in [
            "bytes=-5",
            "bytes=9-5",
            "bytes=+5-9",
            "bytes= 5 - 9",
            "bytes=0-1,3-4",
            "bytes=99999999999999999999-",
            "bytes=",
            "bytes",
            "rows=0-9",
        ] {
            assert_eq!(asked(odd), None, "{odd}");
        }
    }
}
