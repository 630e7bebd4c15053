//! The FHIR R4 edge: REST routes, content negotiation, Bundles, searches, operations.
//! Turns HTTP into use cases and their answers into FHIR; decides nothing itself.

pub mod artifacts;
pub mod audit_event;
pub mod binary;
pub mod bundle;
pub mod conditional;
pub mod metadata;
pub mod negotiate;
pub mod notification;
pub mod operation;
pub mod provenance;
pub mod resource;
pub mod search;
pub mod subscription;
pub mod system;

use actix_web::http::header;
use actix_web::{HttpRequest, HttpResponse, web};
use handoff_domain::ports::Kind;
use handoff_domain::reason::Reason;

use crate::app::{AppError, Class, Stored};
use crate::http::HttpState;
use crate::http::answer::{FHIR_JSON, Face, failure, with_correlation};
use crate::http::cors::cors;

/// All routes under the FHIR base of a tenant.
pub fn routes(cfg: &mut web::ServiceConfig, origins: &[String]) {
    cfg.service(
        web::scope("/fhir")
            .wrap(cors(origins))
            .configure(system::routes)
            .configure(binary::routes)
            .configure(operation::routes)
            .configure(subscription::routes)
            .configure(crate::http::websocket::routes)
            .configure(resource::routes)
            .default_service(web::to(unknown_route)),
    );
}

async fn unknown_route(state: web::Data<HttpState>, request: HttpRequest) -> HttpResponse {
    // Who asks comes first: strangers learn nothing of what is served.
    if let Err(error) = crate::http::request::authenticate(&state, &request).await {
        return failed(&state, &request, &error);
    }
    let error = AppError::new(
        Class::NotFound,
        Reason::NotSupported,
        "no such resource type or operation is served here; see `metadata`",
    );
    failed(&state, &request, &error)
}

/// A method that the resource does not have.
pub async fn not_allowed(state: web::Data<HttpState>, request: HttpRequest) -> HttpResponse {
    if let Err(error) = crate::http::request::authenticate(&state, &request).await {
        return failed(&state, &request, &error);
    }
    let error = AppError::new(
        Class::MethodNotAllowed,
        Reason::NotSupported,
        "this interaction is not supported for this resource; see `metadata`",
    );
    failed(&state, &request, &error)
}

/// A failure as an OperationOutcome.
pub fn failed(state: &HttpState, request: &HttpRequest, error: &AppError) -> HttpResponse {
    failure(state, request, Face::Fhir, error)
}

/// FHIR JSON with status 200.
pub fn ok(state: &HttpState, request: &HttpRequest, body: Vec<u8>) -> HttpResponse {
    with_correlation(state, request, HttpResponse::Ok())
        .content_type(FHIR_JSON)
        .body(body)
}

/// A stored version, with the headers of a read, create or update.
pub fn stored(state: &HttpState, request: &HttpRequest, answer: &Stored, tenant_base: &str) -> HttpResponse {
    let builder = if answer.created {
        HttpResponse::Created()
    } else {
        HttpResponse::Ok()
    };
    let mut response = with_correlation(state, request, builder);
    response
        .insert_header((header::ETAG, format!("W/\"{}\"", answer.version)))
        .insert_header((header::LAST_MODIFIED, negotiate::http_date(answer.last_updated)));
    if answer.created {
        response.insert_header((header::LOCATION, location(answer, tenant_base)));
    }
    // What a Subscription's answer says once, its signing key, must not be lost to a preference.
    let may_be_short =
        request.method() != actix_web::http::Method::GET && answer.kind != Kind::Subscription.as_str();
    match negotiate::preferred_return(request) {
        negotiate::Return::Minimal if may_be_short => response.finish(),
        negotiate::Return::OperationOutcome if may_be_short => {
            let outcome =
                handoff_fhir_model::outcome::outcome(&[], handoff_fhir_model::outcome::Details::default());
            response.content_type(FHIR_JSON).body(outcome.to_string())
        }
        _ => response.content_type(FHIR_JSON).body(answer.body.clone()),
    }
}

/// `[base]/Type/id/_history/version`.
pub fn location(answer: &Stored, fhir_base: &str) -> String {
    format!(
        "{fhir_base}{}/{}/_history/{}",
        answer.kind, answer.id, answer.version
    )
}
