//! Task, DocumentReference and Subscription: create, read, vread, update, delete, history and search.

use actix_web::http::header;
use actix_web::{HttpRequest, HttpResponse, web};
use handoff_domain::ids::{DocumentId, SubscriptionId, TaskId};
use handoff_domain::ports::Kind;
use handoff_fhir_model::{Issue, IssueType, ParseOptions, Resource, parse};
use serde::Deserialize;

use super::subscription::asked_for;
use super::{failed, negotiate, not_allowed, ok, search, stored};
use crate::app::read::History;
use crate::app::subscriptions::AskedFor;
use crate::app::{AppError, Caller, admission};
use crate::http::HttpState;
use crate::http::answer::with_correlation;
use crate::http::body::read_body;
use crate::http::request::{authenticate, has_token, token_in_form};

/// The longest body of a search by POST.
const SEARCH_BODY: usize = 64 * 1024;

/// The routes of all three types.
pub fn routes(cfg: &mut web::ServiceConfig) {
    for kind in [Kind::Task, Kind::Document, Kind::Subscription] {
        let name = kind.as_str();
        cfg.service(
            web::resource(format!("/{name}"))
                .app_data(web::Data::new(kind))
                .route(web::post().to(create))
                .route(web::get().to(search_by_get))
                .default_service(web::to(not_allowed)),
        );
        cfg.service(
            web::resource(format!("/{name}/_search"))
                .app_data(web::Data::new(kind))
                .route(web::post().to(search_by_post))
                .default_service(web::to(not_allowed)),
        );
        cfg.service(
            web::resource(format!("/{name}/{{id}}"))
                .app_data(web::Data::new(kind))
                .route(web::get().to(read))
                .route(web::head().to(read))
                .route(web::put().to(update))
                .route(web::delete().to(delete))
                .default_service(web::to(not_allowed)),
        );
        cfg.service(
            web::resource(format!("/{name}/{{id}}/_history"))
                .app_data(web::Data::new(kind))
                .route(web::get().to(history))
                .default_service(web::to(not_allowed)),
        );
        cfg.service(
            web::resource(format!("/{name}/{{id}}/_history/{{version}}"))
                .app_data(web::Data::new(kind))
                .route(web::get().to(vread))
                .default_service(web::to(not_allowed)),
        );
    }
}

/// The ids of a route.
#[derive(Debug, Deserialize)]
struct Ids {
    id: String,
    version: Option<String>,
}

type State = web::Data<HttpState>;

/// A resource from a body, checked against base R4, against the profiles that it claims, and for payload where
/// none may be.
pub fn checked(body: &[u8], kind: &'static str, limit: usize) -> Result<Resource, AppError> {
    // A Task has no inline data, so its size is known before it is read.
    if kind == "Task" && body.len() > limit {
        return Err(admission::too_large(limit));
    }
    let resource = parse(body, &ParseOptions::expecting(kind)).map_err(AppError::invalid)?;
    admission::check_size(&resource, body.len(), limit)?;
    admission::check(&resource)?;
    Ok(resource)
}

async fn create(
    state: State,
    kind: web::Data<Kind>,
    request: HttpRequest,
    payload: web::Payload,
) -> HttpResponse {
    let answer = async {
        let caller = authenticate(&state, &request).await?;
        negotiate::check_accept(&request)?;
        negotiate::check_content_type(&request)?;
        refuse_conditional(&request, "if-none-exist")?;
        let body = read_body(&state, &request, payload, state.limits.max_body).await?;
        let resource = checked(&body, kind.as_str(), state.limits.max_resource)?;
        let answer = match **kind {
            Kind::Task => state.app.create_task(&caller, resource).await?,
            Kind::Subscription => {
                let asked = subscription_asked(&state, &caller, resource)?;
                state.app.create_subscription(&caller, asked).await?
            }
            Kind::Document | Kind::Binary => state.app.create_document(&caller, resource).await?,
        };
        Ok((caller, answer))
    };
    finish(&state, &request, answer.await)
}

/// Conditional requests are not supported; ignoring the header would do what was not asked.
fn refuse_conditional(request: &HttpRequest, name: &str) -> Result<(), AppError> {
    if request.headers().contains_key(name) {
        return Err(AppError::new(
            crate::app::Class::Invalid,
            handoff_domain::reason::Reason::NotSupported,
            format!("`{name}` is not supported; search first, then create"),
        ));
    }
    Ok(())
}

async fn update(
    state: State,
    kind: web::Data<Kind>,
    request: HttpRequest,
    ids: web::Path<Ids>,
    payload: web::Payload,
) -> HttpResponse {
    let answer = async {
        let caller = authenticate(&state, &request).await?;
        negotiate::check_accept(&request)?;
        negotiate::check_content_type(&request)?;
        refuse_conditional(&request, "if-none-match")?;
        let expected = super::conditional::expected(&request)?;
        let body = read_body(&state, &request, payload, state.limits.max_body).await?;
        let resource = checked(&body, kind.as_str(), state.limits.max_resource)?;
        if resource.id() != Some(ids.id.as_str()) {
            let text = "the resource's `id` must be that of the URL";
            let issue = Issue::at(IssueType::Invalid, format!("{}.id", kind.as_str()), text);
            return Err(AppError::invalid(vec![issue]));
        }
        let answer = match **kind {
            Kind::Task => {
                state
                    .app
                    .update_task(&caller, task_id(&ids.id)?, resource, expected)
                    .await?
            }
            Kind::Subscription => {
                let asked = subscription_asked(&state, &caller, resource)?;
                state
                    .app
                    .update_subscription(&caller, subscription_id(&ids.id)?, asked, expected)
                    .await?
            }
            Kind::Document | Kind::Binary => {
                state
                    .app
                    .update_document(&caller, document_id(&ids.id)?, resource, expected)
                    .await?
            }
        };
        Ok((caller, answer))
    };
    finish(&state, &request, answer.await)
}

async fn read(
    state: State,
    kind: web::Data<Kind>,
    request: HttpRequest,
    ids: web::Path<Ids>,
) -> HttpResponse {
    let answer = async {
        let caller = authenticate(&state, &request).await?;
        negotiate::check_accept(&request)?;
        let answer = state.app.read_current(&caller, **kind, ids.id.clone()).await?;
        Ok((caller, answer))
    };
    finish(&state, &request, answer.await)
}

async fn vread(
    state: State,
    kind: web::Data<Kind>,
    request: HttpRequest,
    ids: web::Path<Ids>,
) -> HttpResponse {
    let answer = async {
        let caller = authenticate(&state, &request).await?;
        negotiate::check_accept(&request)?;
        let version = ids
            .version
            .as_deref()
            .and_then(|v| v.parse().ok())
            .ok_or_else(AppError::not_found)?;
        let answer = state
            .app
            .read_version(&caller, **kind, ids.id.clone(), version)
            .await?;
        Ok((caller, answer))
    };
    finish(&state, &request, answer.await)
}

fn finish(
    state: &HttpState,
    request: &HttpRequest,
    answer: Result<(Caller, crate::app::Stored), AppError>,
) -> HttpResponse {
    match answer {
        Ok((caller, answer)) => {
            let base = state.app.settings.fhir_base(caller.tenant());
            let etag = format!("W/\"{}\"", answer.version);
            let reads = request.method() == actix_web::http::Method::GET;
            if reads && !answer.created && if_none_match(request, &etag) {
                return with_correlation(state, request, HttpResponse::NotModified())
                    .insert_header((header::ETAG, etag))
                    .finish();
            }
            stored(state, request, &answer, &base)
        }
        Err(error) => failed(state, request, &error),
    }
}

/// Whether the client has this version already (RFC 9110, 13.1.2: weak comparison).
fn if_none_match(request: &HttpRequest, etag: &str) -> bool {
    let text = request
        .headers()
        .get(header::IF_NONE_MATCH)
        .and_then(|v| v.to_str().ok())
        .unwrap_or_default();
    let bare = |tag: &str| tag.trim().trim_start_matches("W/").to_owned();
    text.split(',').any(|tag| bare(tag) == bare(etag))
}

async fn delete(
    state: State,
    kind: web::Data<Kind>,
    request: HttpRequest,
    ids: web::Path<Ids>,
) -> HttpResponse {
    let answer = async {
        let caller = authenticate(&state, &request).await?;
        let expected = super::conditional::expected(&request)?;
        match **kind {
            Kind::Task => state.app.delete_task(&caller, task_id(&ids.id)?, expected).await,
            Kind::Subscription => {
                state
                    .app
                    .delete_subscription(&caller, subscription_id(&ids.id)?, expected)
                    .await
            }
            Kind::Document | Kind::Binary => {
                state
                    .app
                    .delete_document(&caller, document_id(&ids.id)?, expected)
                    .await
            }
        }
    };
    match answer.await {
        Ok(()) => with_correlation(&state, &request, HttpResponse::NoContent()).finish(),
        Err(error) => failed(&state, &request, &error),
    }
}

async fn history(
    state: State,
    kind: web::Data<Kind>,
    request: HttpRequest,
    ids: web::Path<Ids>,
) -> HttpResponse {
    let answer = async {
        let caller = authenticate(&state, &request).await?;
        negotiate::check_accept(&request)?;
        let pairs = pairs_of(request.query_string().as_bytes());
        let page = search::parse_history(&pairs)?;
        let History { versions, more } = state
            .app
            .read_history(
                &caller,
                **kind,
                ids.id.clone(),
                page.since,
                page.before,
                page.count,
            )
            .await?;
        let base = state.app.settings.fhir_base(caller.tenant());
        Ok(search::history_bundle(
            &base,
            **kind,
            &ids.id,
            &versions,
            &page,
            more,
            caller.context.now,
        ))
    };
    match answer.await {
        Ok(body) => ok(&state, &request, body),
        Err(error) => failed(&state, &request, &error),
    }
}

async fn search_by_get(state: State, kind: web::Data<Kind>, request: HttpRequest) -> HttpResponse {
    let pairs = pairs_of(request.query_string().as_bytes());
    match authenticate(&state, &request).await {
        Ok(caller) => answer_search(&state, **kind, &request, &caller, pairs).await,
        Err(error) => failed(&state, &request, &error),
    }
}

async fn search_by_post(
    state: State,
    kind: web::Data<Kind>,
    request: HttpRequest,
    payload: web::Payload,
) -> HttpResponse {
    let caller = match authenticate(&state, &request).await {
        Ok(caller) => caller,
        Err(error) => return failed(&state, &request, &error),
    };
    let mut pairs = pairs_of(request.query_string().as_bytes());
    if negotiate::content_type(&request).is_some_and(|t| t != "application/x-www-form-urlencoded") {
        let error = AppError::new(
            crate::app::Class::UnsupportedMediaType,
            handoff_domain::reason::Reason::NotSupported,
            "send the parameters as `application/x-www-form-urlencoded`",
        );
        return failed(&state, &request, &error);
    }
    match read_body(&state, &request, payload, SEARCH_BODY).await {
        Ok(body) if has_token(&body) => failed(&state, &request, &token_in_form()),
        Ok(body) => {
            pairs.extend(pairs_of(&body));
            answer_search(&state, **kind, &request, &caller, pairs).await
        }
        Err(error) => failed(&state, &request, &error),
    }
}

async fn answer_search(
    state: &HttpState,
    kind: Kind,
    request: &HttpRequest,
    caller: &Caller,
    pairs: Vec<(String, String)>,
) -> HttpResponse {
    let answer = async {
        negotiate::check_accept(request)?;
        let base = state.app.settings.fhir_base(caller.tenant());
        let parsed = search::parse(kind, &pairs, negotiate::handling_strict(request), &base)?;
        let found = state.app.search(caller, parsed.query.clone()).await?;
        Ok(search::searchset(
            &base,
            kind,
            &found,
            &parsed,
            caller.context.now,
        ))
    };
    match answer.await {
        Ok(body) => ok(state, request, body),
        Err(error) => failed(state, request, &error),
    }
}

/// Decoded name and value pairs of a query or form.
pub fn pairs_of(encoded: &[u8]) -> Vec<(String, String)> {
    url::form_urlencoded::parse(encoded).into_owned().collect()
}

fn subscription_asked(state: &HttpState, caller: &Caller, resource: Resource) -> Result<AskedFor, AppError> {
    let base = state.app.settings.fhir_base(caller.tenant());
    asked_for(resource, &base, state.app.outbound.as_ref())
}

fn subscription_id(text: &str) -> Result<SubscriptionId, AppError> {
    SubscriptionId::parse(text).map_err(|_| AppError::not_found())
}

fn task_id(text: &str) -> Result<TaskId, AppError> {
    TaskId::parse(text).map_err(|_| AppError::not_found())
}

fn document_id(text: &str) -> Result<DocumentId, AppError> {
    DocumentId::parse(text).map_err(|_| AppError::not_found())
}
