//! What is served beside the workflow's own resources: the CapabilityStatement, the artifacts that we ship, the
//! audit, and Bundles posted to the base.

use actix_web::http::header;
use actix_web::{HttpRequest, HttpResponse, web};
use handoff_domain::scopes::Interaction;
use serde::Deserialize;

use super::negotiate::check_accept;
use super::resource::pairs_of;
use super::{artifacts, audit_event, bundle, failed, metadata, not_allowed, ok, provenance};
use crate::app::AppError;
use crate::http::HttpState;
use crate::http::request::{authenticate, tenant_of};

/// The types whose resources come with the server.
const ARTIFACT_TYPES: [&str; 6] = [
    "StructureDefinition",
    "SearchParameter",
    "OperationDefinition",
    "ValueSet",
    "CodeSystem",
    "ConceptMap",
];

/// The routes.
pub fn routes(cfg: &mut web::ServiceConfig) {
    for base in ["", "/"] {
        cfg.service(
            web::resource(base)
                .route(web::post().to(bundle::run))
                .default_service(web::to(not_allowed)),
        );
    }
    cfg.configure(crate::http::discovery::smart_routes);
    cfg.service(
        web::resource("/metadata")
            .route(web::get().to(capabilities))
            .route(web::head().to(capabilities))
            .default_service(web::to(not_allowed)),
    );
    for kind in ARTIFACT_TYPES {
        cfg.service(
            web::resource(format!("/{kind}"))
                .app_data(web::Data::new(kind))
                .route(web::get().to(search_artifacts))
                .default_service(web::to(not_allowed)),
        );
        cfg.service(
            web::resource(format!("/{kind}/{{id}}"))
                .app_data(web::Data::new(kind))
                .route(web::get().to(read_artifact))
                .default_service(web::to(not_allowed)),
        );
    }
    cfg.service(
        web::resource("/AuditEvent")
            .route(web::get().to(search_audit))
            .default_service(web::to(not_allowed)),
    );
    cfg.service(
        web::resource("/AuditEvent/{id}")
            .route(web::get().to(read_audit))
            .default_service(web::to(not_allowed)),
    );
    cfg.service(
        web::resource("/Provenance")
            .route(web::get().to(search_provenance))
            .default_service(web::to(not_allowed)),
    );
    cfg.service(
        web::resource("/Provenance/{id}")
            .route(web::get().to(read_provenance))
            .default_service(web::to(not_allowed)),
    );
}

type State = web::Data<HttpState>;

#[derive(Debug, Deserialize)]
struct Ids {
    id: String,
}

/// Open to all: it says what is served, and nothing of whom.
async fn capabilities(state: State, request: HttpRequest) -> HttpResponse {
    let answer = tenant_of(&state, &request).and_then(|tenant| check_accept(&request).map(|()| tenant));
    match answer {
        Ok(tenant) => {
            let base = state.app.settings.fhir_base(&tenant);
            let (body, etag) = metadata::capability_statement(&base);
            let mut response = ok(&state, &request, body);
            if let Ok(value) = header::HeaderValue::from_str(&etag) {
                response.headers_mut().insert(header::ETAG, value);
            }
            response
        }
        Err(error) => failed(&state, &request, &error),
    }
}

async fn search_artifacts(state: State, kind: web::Data<&'static str>, request: HttpRequest) -> HttpResponse {
    let answer = async {
        let caller = authenticate(&state, &request).await?;
        check_accept(&request)?;
        let base = state.app.settings.fhir_base(caller.tenant());
        artifacts::search(
            &base,
            **kind,
            &pairs_of(request.query_string().as_bytes()),
            caller.context.now,
        )
    };
    match answer.await {
        Ok(body) => ok(&state, &request, body),
        Err(error) => failed(&state, &request, &error),
    }
}

async fn read_artifact(
    state: State,
    kind: web::Data<&'static str>,
    request: HttpRequest,
    ids: web::Path<Ids>,
) -> HttpResponse {
    let answer = async {
        authenticate(&state, &request).await?;
        check_accept(&request)?;
        artifacts::read(**kind, &ids.id).ok_or_else(AppError::not_found)
    };
    match answer.await {
        Ok(body) => ok(&state, &request, body),
        Err(error) => failed(&state, &request, &error),
    }
}

async fn search_audit(state: State, request: HttpRequest) -> HttpResponse {
    let answer = async {
        let caller = authenticate(&state, &request).await?;
        check_accept(&request)?;
        let base = state.app.settings.fhir_base(caller.tenant());
        let pairs = pairs_of(request.query_string().as_bytes());
        let parsed = audit_event::parse(&pairs, super::negotiate::handling_strict(&request), &base)?;
        let rows = state
            .app
            .search_audit(&caller, parsed.search.clone(), Interaction::Search)
            .await?;
        Ok(audit_event::searchset(
            caller.tenant(),
            &base,
            &rows,
            &parsed,
            caller.context.now,
        ))
    };
    match answer.await {
        Ok(body) => ok(&state, &request, body),
        Err(error) => failed(&state, &request, &error),
    }
}

async fn read_audit(state: State, request: HttpRequest, ids: web::Path<Ids>) -> HttpResponse {
    let answer = async {
        let caller = authenticate(&state, &request).await?;
        check_accept(&request)?;
        let search = handoff_domain::ports::AuditSearch {
            id: Some(ids.id.clone()),
            limit: 1,
            ..handoff_domain::ports::AuditSearch::default()
        };
        let row = state
            .app
            .search_audit(&caller, search, Interaction::Read)
            .await?
            .pop()
            .ok_or_else(AppError::not_found)?;
        Ok(audit_event::resource(caller.tenant(), &row)
            .to_string()
            .into_bytes())
    };
    match answer.await {
        Ok(body) => ok(&state, &request, body),
        Err(error) => failed(&state, &request, &error),
    }
}

async fn search_provenance(state: State, request: HttpRequest) -> HttpResponse {
    let answer = async {
        let caller = authenticate(&state, &request).await?;
        check_accept(&request)?;
        let base = state.app.settings.fhir_base(caller.tenant());
        let pairs = pairs_of(request.query_string().as_bytes());
        let parsed = provenance::parse(&pairs, super::negotiate::handling_strict(&request), &base)?;
        let (search, target) = (parsed.search.clone(), parsed.target.clone());
        let rows = state
            .app
            .search_provenance(&caller, search, target, Interaction::Search)
            .await?;
        Ok(provenance::searchset(&base, &rows, &parsed, caller.context.now))
    };
    match answer.await {
        Ok(body) => ok(&state, &request, body),
        Err(error) => failed(&state, &request, &error),
    }
}

async fn read_provenance(state: State, request: HttpRequest, ids: web::Path<Ids>) -> HttpResponse {
    let answer = async {
        let caller = authenticate(&state, &request).await?;
        check_accept(&request)?;
        let search = provenance::one(ids.id.clone());
        let row = state
            .app
            .read_provenance(&caller, search, |row| provenance::target_of(&row.row))
            .await?;
        let body = provenance::resource(&row).ok_or_else(AppError::not_found)?;
        Ok(body.to_string().into_bytes())
    };
    match answer.await {
        Ok(body) => ok(&state, &request, body),
        Err(error) => failed(&state, &request, &error),
    }
}
