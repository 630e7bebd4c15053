//! `/admin/subscriptions`: for operators, what subscribers did not take, and sending it again.

use actix_web::http::StatusCode;
use actix_web::{HttpRequest, HttpResponse, web};
use handoff_domain::ids::SubscriptionId;
use handoff_domain::ports::Attention;
use serde::Deserialize;
use serde_json::{Value, json};

use super::HttpState;
use super::access_grants::{Ids, not_allowed};
use super::answer::{Face, failure, json_answer};
use super::body::read_body;
use super::request::authenticate;
use crate::app::AppError;

/// The longest body.
const BODY_LIMIT: usize = 4 * 1024;

/// The routes.
pub fn routes(cfg: &mut web::ServiceConfig) {
    cfg.service(
        web::resource("/admin/subscriptions")
            .route(web::get().to(list))
            .default_service(web::to(not_allowed)),
    );
    cfg.service(
        web::resource("/admin/subscriptions/{id}/replay")
            .route(web::post().to(replay))
            .default_service(web::to(not_allowed)),
    );
}

/// The body of a replay; nothing at all asks for what was not delivered.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    from: Option<i64>,
}

async fn list(state: web::Data<HttpState>, request: HttpRequest) -> HttpResponse {
    let answer = async {
        let caller = authenticate(&state, &request).await?;
        state.app.dead_letters(&caller).await
    };
    match answer.await {
        Ok(found) => {
            let all: Vec<Value> = found.iter().map(shown).collect();
            json_answer(&state, &request, StatusCode::OK, &json!({"subscriptions": all}))
        }
        Err(error) => failure(&state, &request, Face::Problem, &error),
    }
}

async fn replay(
    state: web::Data<HttpState>,
    request: HttpRequest,
    ids: web::Path<Ids>,
    payload: web::Payload,
) -> HttpResponse {
    let answer = async {
        let caller = authenticate(&state, &request).await?;
        let body = read_body(&state, &request, payload, BODY_LIMIT).await?;
        let asked = if body.is_empty() {
            Asked::default()
        } else {
            serde_json::from_slice(&body).map_err(|_| {
                AppError::bad("the body is a JSON object with `from`, the number of an event, or nothing")
            })?
        };
        let id = SubscriptionId::parse(ids.id.as_str()).map_err(|_| AppError::not_found())?;
        state.app.replay(&caller, id, asked.from).await
    };
    match answer.await {
        Ok(found) => json_answer(&state, &request, StatusCode::ACCEPTED, &shown(&found)),
        Err(error) => failure(&state, &request, Face::Problem, &error),
    }
}

/// How a subscription stands. Not where it sends to: that may be told to its subscriber alone.
fn shown(found: &Attention) -> Value {
    let subscription = &found.subscription;
    json!({
        "id": subscription.id.as_str(),
        "status": subscription.status.as_str(),
        "subscriber": subscription.created_by.as_str(),
        "events": found.events,
        "delivered": found.course.delivered,
        "attempts": found.course.attempts,
        "failingSince": found.course.failing_since.map(handoff_domain::Timestamp::to_instant),
        "nextTry": found.course.next_try.map(handoff_domain::Timestamp::to_instant),
        "problem": found.course.problem.as_deref(),
    })
}
