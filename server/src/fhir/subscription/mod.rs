//! The operations on Subscriptions: `$status`, `$events`, `$get-ws-binding-token` (Subscriptions R5 Backport 1.1.0).

mod asked;
mod binding;
mod profile;

use actix_web::{HttpRequest, HttpResponse, web};
use handoff_domain::ids::SubscriptionId;
use handoff_domain::ports::{Attention, Filter, Kind, Sort};
use handoff_domain::subscription::{Payload, SubscriptionStatus};
use serde::Deserialize;

pub use asked::{asked_for, findings};
pub use profile::{departures, is_backport};

use super::negotiate::{check_accept, check_content_type};
use super::notification::{NoticeKind, Notification, status_url};
use super::operation::read_parameters;
use super::resource::pairs_of;
use super::search::answer::{BundleWriter, MATCHED};
use super::{failed, not_allowed, ok};
use crate::app::read::Query;
use crate::app::subscriber::Told;
use crate::app::{AppError, Caller};
use crate::http::HttpState;
use crate::http::body::read_body;
use crate::http::request::authenticate;

/// The longest body of an operation.
const BODY_LIMIT: usize = 64 * 1024;
/// The most Subscriptions that one `$status` answers for.
const MOST: u32 = 500;

/// The routes.
pub fn routes(cfg: &mut web::ServiceConfig) {
    cfg.service(
        web::resource("/Subscription/$status")
            .route(web::get().to(status_of_many))
            .route(web::post().to(status_of_many))
            .default_service(web::to(not_allowed)),
    );
    cfg.service(
        web::resource("/Subscription/{id}/$status")
            .route(web::get().to(status_of_one))
            .route(web::post().to(status_of_one))
            .default_service(web::to(not_allowed)),
    );
    cfg.service(
        web::resource("/Subscription/{id}/$events")
            .route(web::get().to(events))
            .route(web::post().to(events))
            .default_service(web::to(not_allowed)),
    );
    cfg.service(
        web::resource("/Subscription/$get-ws-binding-token")
            .route(web::get().to(binding::token_for_many))
            .route(web::post().to(binding::token_for_many))
            .default_service(web::to(not_allowed)),
    );
    cfg.service(
        web::resource("/Subscription/{id}/$get-ws-binding-token")
            .route(web::get().to(binding::token_for_one))
            .route(web::post().to(binding::token_for_one))
            .default_service(web::to(not_allowed)),
    );
}

type State = web::Data<HttpState>;

#[derive(Debug, Deserialize)]
struct Ids {
    id: String,
}

/// Parameters of an operation: from the query, or from a Parameters resource.
async fn asked(
    state: &HttpState,
    request: &HttpRequest,
    payload: web::Payload,
    known: &[&str],
) -> Result<Vec<(String, String)>, AppError> {
    let mut pairs = pairs_of(request.query_string().as_bytes());
    pairs.retain(|(name, _)| name != "_format" && name != "_pretty");
    if request.method() == actix_web::http::Method::POST {
        check_content_type(request)?;
        let body = read_body(state, request, payload, BODY_LIMIT).await?;
        for parameter in read_parameters(&body)? {
            let text = parameter.text().map(str::to_owned).ok_or_else(|| {
                AppError::bad(format!("`{}` is a text or a code", shown(&parameter.name, known)))
            })?;
            pairs.push((parameter.name, text));
        }
    }
    match pairs.iter().find(|(name, _)| !known.contains(&name.as_str())) {
        Some(_) => Err(AppError::bad(format!(
            "the operation's parameters are `{}`",
            known.join("`, `")
        ))),
        None => Ok(pairs),
    }
}

/// A parameter's name, where it is one of the operation's: what is sent is not said again.
fn shown<'a>(name: &'a str, known: &[&str]) -> &'a str {
    if known.contains(&name) {
        name
    } else {
        "a parameter"
    }
}

async fn status_of_one(
    state: State,
    request: HttpRequest,
    ids: web::Path<Ids>,
    payload: web::Payload,
) -> HttpResponse {
    let answer = async {
        let caller = authenticate(&state, &request).await?;
        check_accept(&request)?;
        // At the level of an instance there is nothing to choose; what is sent nevertheless is ignored, as the Backport has it.
        asked(&state, &request, payload, &["id", "status"]).await?;
        let id = SubscriptionId::parse(ids.id.as_str()).map_err(|_| AppError::not_found())?;
        let found = state.app.subscription_status(&caller, id).await?;
        Ok(searchset(&state, &caller, &[found]))
    };
    match answer.await {
        Ok(body) => ok(&state, &request, body),
        Err(error) => failed(&state, &request, &error),
    }
}

async fn status_of_many(state: State, request: HttpRequest, payload: web::Payload) -> HttpResponse {
    let answer = async {
        let caller = authenticate(&state, &request).await?;
        check_accept(&request)?;
        let pairs = asked(&state, &request, payload, &["id", "status"]).await?;
        let values = |wanted: &str| -> Vec<String> {
            pairs
                .iter()
                .filter(|(name, _)| name == wanted)
                .flat_map(|(_, value)| value.split(',').map(str::to_owned))
                .collect()
        };
        let mut filters = Vec::new();
        let (ids, statuses) = (values("id"), values("status"));
        if !ids.is_empty() {
            filters.push(Filter::Id(ids));
        }
        if !statuses.is_empty() {
            if statuses
                .iter()
                .any(|code| SubscriptionStatus::parse(code).is_none())
            {
                return Err(AppError::bad(
                    "`status` is `requested`, `active`, `error` or `off`",
                ));
            }
            filters.push(Filter::Token {
                name: "status".to_owned(),
                any_of: statuses.into_iter().map(|code| (None, Some(code))).collect(),
                negated: false,
            });
        }
        let query = Query {
            kind: Kind::Subscription,
            filters,
            sort: Sort::ById,
            limit: MOST,
            after: None,
            total: false,
            asked: String::new(),
        };
        let found = state.app.search(&caller, query).await?;
        if found.more {
            return Err(AppError::bad(format!(
                "there are more than {MOST} subscriptions; name some by `id`, or a `status`"
            )));
        }
        let mut all = Vec::with_capacity(found.resources.len());
        for (id, ..) in found.resources {
            let id = SubscriptionId::parse(id).map_err(|_| AppError::not_found())?;
            match state.app.subscription_status(&caller, id).await {
                Ok(one) => all.push(one),
                // Deleted meanwhile.
                Err(error) if error.is_refusal() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(searchset(&state, &caller, &all))
    };
    match answer.await {
        Ok(body) => ok(&state, &request, body),
        Err(error) => failed(&state, &request, &error),
    }
}

/// The status of each as Parameters, in a searchset.
fn searchset(state: &HttpState, caller: &Caller, all: &[Attention]) -> Vec<u8> {
    let base = state.app.settings.fhir_base(caller.tenant());
    let mut bundle = BundleWriter::new("searchset", caller.context.now, all.len().saturating_mul(600));
    bundle.total(u64::try_from(all.len()).unwrap_or(u64::MAX));
    for found in all {
        let status = notification(
            &base,
            found,
            NoticeKind::QueryStatus,
            &[],
            found.subscription.channel.payload,
        )
        .parameters()
        .to_string();
        let url = status_url(&base, &found.subscription.id);
        bundle.entry(&url, status.as_bytes(), MATCHED);
    }
    bundle.finish()
}

fn notification<'a>(
    base: &'a str,
    found: &'a Attention,
    kind: NoticeKind,
    told: &'a [Told],
    payload: Payload,
) -> Notification<'a> {
    Notification {
        base,
        subscription: &found.subscription,
        status: found.subscription.status,
        kind,
        payload,
        events: found.events,
        told,
        problem: found.course.problem.as_deref(),
        at: found.subscription.last_updated,
    }
}

async fn events(
    state: State,
    request: HttpRequest,
    ids: web::Path<Ids>,
    payload: web::Payload,
) -> HttpResponse {
    let answer = async {
        let caller = authenticate(&state, &request).await?;
        check_accept(&request)?;
        let names = ["eventsSinceNumber", "eventsUntilNumber", "content"];
        let pairs = asked(&state, &request, payload, &names).await?;
        let value = |wanted: &str| -> Result<Option<&str>, AppError> {
            let mut found = pairs.iter().filter(|(name, _)| name == wanted);
            let one = found.next().map(|(_, value)| value.as_str());
            match found.next() {
                Some(_) => Err(AppError::bad(format!("`{wanted}` is given more than once"))),
                None => Ok(one),
            }
        };
        let number = |wanted: &str| -> Result<Option<i64>, AppError> {
            value(wanted)?
                .map(|text| {
                    Some(text)
                        .filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()))
                        .and_then(|text| text.parse().ok())
                        .ok_or_else(|| AppError::bad(format!("`{wanted}` is the number of an event")))
                })
                .transpose()
        };
        let content = value("content")?
            .map(|code| {
                Payload::parse_content(code)
                    .ok_or_else(|| AppError::bad("`content` is `empty`, `id-only` or `full-resource`"))
            })
            .transpose()?;
        let id = SubscriptionId::parse(ids.id.as_str()).map_err(|_| AppError::not_found())?;
        let recounted = state
            .app
            .subscription_events(&caller, id, number(names[0])?, number(names[1])?, content)
            .await?;
        let base = state.app.settings.fhir_base(caller.tenant());
        let told = &recounted.telling.told;
        Ok(notification(
            &base,
            &recounted.attention,
            NoticeKind::QueryEvent,
            told,
            recounted.payload,
        )
        .bundle())
    };
    match answer.await {
        Ok(body) => ok(&state, &request, body),
        Err(error) => failed(&state, &request, &error),
    }
}
