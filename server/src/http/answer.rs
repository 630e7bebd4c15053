//! How an answer is written down. The one place where a failure becomes a status, and an OperationOutcome or a
//! `problem+json`.

use actix_web::http::StatusCode;
use actix_web::http::header::{self, HeaderName, HeaderValue};
use actix_web::{HttpRequest, HttpResponse, HttpResponseBuilder, web};
use handoff_domain::reason::Reason;
use handoff_fhir_profiles::canonical::REASON_SYSTEM;
use handoff_identity::Alg;
use serde_json::json;

use super::HttpState;
use super::request::{correlation_of, tenant_of};
use crate::app::error::Challenge;
pub use crate::app::outcome::operation_outcome;
use crate::app::{AppError, Class};
use crate::telemetry::spans;

/// FHIR JSON.
pub const FHIR_JSON: &str = "application/fhir+json";
/// RFC 9457.
pub const PROBLEM_JSON: &str = "application/problem+json";

/// Which form a failure is told in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Face {
    /// OperationOutcome, on FHIR routes.
    Fhir,
    /// `application/problem+json`, on the others.
    Problem,
}

/// The status of a failure.
pub const fn status_of(class: Class) -> StatusCode {
    match class {
        Class::Invalid => StatusCode::BAD_REQUEST,
        Class::Unprocessable => StatusCode::UNPROCESSABLE_ENTITY,
        Class::Unauthenticated => StatusCode::UNAUTHORIZED,
        Class::Forbidden => StatusCode::FORBIDDEN,
        Class::NotFound => StatusCode::NOT_FOUND,
        Class::Gone => StatusCode::GONE,
        Class::Conflict => StatusCode::CONFLICT,
        Class::PreconditionFailed => StatusCode::PRECONDITION_FAILED,
        Class::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        Class::NotAcceptable => StatusCode::NOT_ACCEPTABLE,
        Class::UnsupportedMediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
        Class::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
        Class::RangeNotSatisfiable { .. } => StatusCode::RANGE_NOT_SATISFIABLE,
        Class::RateLimited { .. } => StatusCode::TOO_MANY_REQUESTS,
        Class::NoRoom => StatusCode::INSUFFICIENT_STORAGE,
        Class::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        Class::Internal => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// A nonce for the next DPoP proof (RFC 9449 section 9).
pub const DPOP_NONCE: &str = "dpop-nonce";

/// A failure, answered.
pub fn failure(state: &HttpState, request: &HttpRequest, face: Face, error: &AppError) -> HttpResponse {
    let correlation = correlation_of(state, request);
    let status = status_of(error.class);
    let mut response = failure_head(state, request, error);
    match face {
        Face::Fhir => response
            .content_type(FHIR_JSON)
            .body(operation_outcome(error, correlation.as_str())),
        Face::Problem => {
            let body = json!({
                "type": format!("{REASON_SYSTEM}#{}", error.reason),
                "title": status.canonical_reason().unwrap_or("error"),
                "status": status.as_u16(),
                "detail": error.text,
                "reason": error.reason.as_str(),
                "correlationId": correlation.as_str(),
            });
            response.content_type(PROBLEM_JSON).body(body.to_string())
        }
    }
}

/// The status and headers of a failure, in whichever form it is told; what is the server's fault is logged.
pub fn failure_head(state: &HttpState, request: &HttpRequest, error: &AppError) -> HttpResponseBuilder {
    let correlation = correlation_of(state, request);
    let status = status_of(error.class);
    spans::note_reason(error.reason);
    // A line for each that is turned away is what a flood would like to have; metrics count them.
    if status.is_server_error() && error.reason != Reason::RateLimited {
        tracing::error!(correlation_id = %correlation, reason = %error.reason, cause = error.cause.as_deref(), "request failed");
    }
    let mut response = with_correlation(state, request, HttpResponse::build(status));
    match error.class {
        Class::Unauthenticated => {
            response.insert_header((header::WWW_AUTHENTICATE, challenge(state, request, error)));
            if error.challenge == Some(Challenge::Nonce) {
                response.insert_header((DPOP_NONCE, state.validator.nonce()));
            }
        }
        Class::Forbidden if error.reason == Reason::InsufficientScope => {
            response.insert_header((header::WWW_AUTHENTICATE, challenge(state, request, error)));
        }
        Class::Unavailable => {
            response.insert_header((header::RETRY_AFTER, "2"));
        }
        Class::RateLimited { seconds } => {
            response.insert_header((header::RETRY_AFTER, seconds));
        }
        Class::RangeNotSatisfiable { size } => {
            response.insert_header((header::CONTENT_RANGE, format!("bytes */{size}")));
        }
        _ => {}
    }
    response
}

/// The challenge of a 401, or of a 403 for want of a scope (RFC 6750, RFC 9728): an error is named only where
/// credentials were sent.
fn challenge(state: &HttpState, request: &HttpRequest, error: &AppError) -> String {
    let base = tenant_of(state, request).map_or_else(
        |_| state.app.settings.public_base.clone(),
        |tenant| {
            state
                .app
                .settings
                .fhir_base(&tenant)
                .trim_end_matches('/')
                .to_owned()
        },
    );
    let (origin, path) = split_origin(&base);
    let metadata = format!("{origin}/.well-known/oauth-protected-resource{path}");
    let (scheme, code) = match &error.challenge {
        Some(Challenge::BoundToken) => ("DPoP", "invalid_token"),
        Some(Challenge::Proof) => ("DPoP", "invalid_dpop_proof"),
        Some(Challenge::Nonce) => ("DPoP", "use_dpop_nonce"),
        Some(Challenge::OneToken) => ("Bearer", "invalid_request"),
        Some(Challenge::Scope(_)) | None if error.reason == Reason::InsufficientScope => {
            ("Bearer", "insufficient_scope")
        }
        Some(Challenge::Scope(_)) | None if error.reason == Reason::TokenInvalid => {
            ("Bearer", "invalid_token")
        }
        Some(Challenge::Scope(_)) | None => return format!("Bearer resource_metadata=\"{metadata}\""),
    };
    let mut parts = vec![
        format!("{scheme} resource_metadata=\"{metadata}\""),
        format!("error=\"{code}\""),
    ];
    if scheme == "DPoP" {
        parts.push(format!("algs=\"{}\"", Alg::ALL.map(Alg::as_str).join(" ")));
    }
    match &error.challenge {
        Some(Challenge::Scope(scope)) => parts.push(format!("scope=\"{scope}\"")),
        _ if error.reason == Reason::InsufficientScope => {}
        _ => {
            let mut text = error.text.clone();
            text.retain(|c| matches!(c, ' '..='~') && c != '"' && c != '\\');
            parts.push(format!("error_description=\"{text}\""));
        }
    }
    parts.join(", ")
}

/// A URL as its origin and its path, which is empty where there is none.
pub fn split_origin(base: &str) -> (&str, &str) {
    let start = base.find("://").map_or(0, |i| i.saturating_add(3));
    let rest = base.get(start..).unwrap_or_default();
    match rest.find('/') {
        Some(slash) => base.split_at(start.saturating_add(slash)),
        None => (base, ""),
    }
}

/// Nothing is served there.
pub async fn no_route(state: web::Data<HttpState>, request: HttpRequest) -> HttpResponse {
    failure(&state, &request, Face::Problem, &AppError::not_found())
}

/// Headers that every answer carries.
pub fn with_correlation(
    state: &HttpState,
    request: &HttpRequest,
    mut response: HttpResponseBuilder,
) -> HttpResponseBuilder {
    let correlation = correlation_of(state, request);
    if let Ok(value) = HeaderValue::from_str(correlation.as_str()) {
        response.insert_header((HeaderName::from_static("x-correlation-id"), value));
    }
    echo_request_id(request, &mut response);
    response.insert_header((header::CACHE_CONTROL, "no-store"));
    response.insert_header((header::X_CONTENT_TYPE_OPTIONS, "nosniff"));
    response
}

/// The client's own `X-Request-Id` goes back with the answer (R4 http, 3.1.0.16), where it is one.
fn echo_request_id(request: &HttpRequest, response: &mut HttpResponseBuilder) {
    let sent = request
        .headers()
        .get("x-request-id")
        .and_then(|v| v.to_str().ok());
    if let Some(id) = sent.filter(|id| handoff_domain::ids::is_fhir_id(id)) {
        response.insert_header(("x-request-id", id));
    }
}

/// A JSON answer of a route that is not FHIR's.
pub fn json_answer(
    state: &HttpState,
    request: &HttpRequest,
    status: StatusCode,
    body: &serde_json::Value,
) -> HttpResponse {
    with_correlation(state, request, HttpResponse::build(status))
        .content_type("application/json")
        .body(body.to_string())
}
