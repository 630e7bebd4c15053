//! Which browser apps of other origins may call the API, and read the answers (CORS). None but those that are listed.
//! They send tokens, never cookies, so an answer is never theirs to read by somebody else's session.

use actix_cors::Cors;
use actix_web::http::{Method, header};
use actix_web::middleware::Condition;

use super::answer::DPOP_NONCE;

/// How long a browser may keep what it was told, in seconds.
const KEPT: usize = 600;

/// For the API of a server that lets apps of `origins` call it; does nothing where there is none.
pub fn cors(origins: &[String]) -> Condition<Cors> {
    let mut cors = Cors::default()
        .allowed_methods([
            Method::GET,
            Method::HEAD,
            Method::POST,
            Method::PUT,
            Method::PATCH,
            Method::DELETE,
        ])
        .allowed_headers([
            header::ACCEPT,
            header::AUTHORIZATION,
            header::CONTENT_TYPE,
            header::IF_MATCH,
            header::IF_MODIFIED_SINCE,
            header::IF_NONE_MATCH,
            header::IF_RANGE,
            header::RANGE,
        ])
        .allowed_headers([
            "cache-control",
            "dpop",
            "if-none-exist",
            "prefer",
            "traceparent",
            "x-break-glass-reason",
            "x-correlation-id",
            "x-request-id",
        ])
        .expose_headers([
            header::CONTENT_DISPOSITION,
            header::CONTENT_LOCATION,
            header::CONTENT_RANGE,
            header::ETAG,
            header::LAST_MODIFIED,
            header::LOCATION,
            header::RETRY_AFTER,
            header::WWW_AUTHENTICATE,
        ])
        .expose_headers([DPOP_NONCE, "x-correlation-id", "x-request-id"])
        // Who is not allowed is told nothing; the API is no less closed to those who are no browsers.
        .block_on_origin_mismatch(false)
        .max_age(KEPT);
    for origin in origins {
        cors = cors.allowed_origin(origin);
    }
    Condition::new(!origins.is_empty(), cors)
}
