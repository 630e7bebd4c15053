//! `/admin/quarantine`: what sources told and could not be applied, for operators to see, try again, or give up.

use actix_web::http::StatusCode;
use actix_web::{HttpRequest, HttpResponse, web};
use handoff_domain::ids::{NoticeId, SourceId};
use handoff_domain::inbox::{Notice, NoticeState};
use serde_json::{Value, json};

use super::HttpState;
use super::access_grants::{Ids, not_allowed};
use super::answer::{Face, failure, json_answer, with_correlation};
use super::request::authenticate;
use crate::app::AppError;
use crate::app::json_edit::set_field;
use crate::app::quarantine::PAGE;

/// The routes.
pub fn routes(cfg: &mut web::ServiceConfig) {
    cfg.service(
        web::resource("/admin/quarantine")
            .route(web::get().to(list))
            .default_service(web::to(not_allowed)),
    );
    cfg.service(
        web::resource("/admin/quarantine/{id}")
            .route(web::get().to(one))
            .route(web::delete().to(dismiss))
            .default_service(web::to(not_allowed)),
    );
    cfg.service(
        web::resource("/admin/quarantine/{id}/retry")
            .route(web::post().to(retry))
            .default_service(web::to(not_allowed)),
    );
}

async fn list(state: web::Data<HttpState>, request: HttpRequest) -> HttpResponse {
    let answer = async {
        let caller = authenticate(&state, &request).await?;
        let (mut source, mut before) = (None, None);
        for (name, value) in url::form_urlencoded::parse(request.query_string().as_bytes()) {
            match name.as_ref() {
                "source" => source = Some(SourceId::parse(value).map_err(|_| unknown("source"))?),
                "before" => before = Some(NoticeId::parse(value).map_err(|_| unknown("before"))?),
                _ => return Err(unknown("the query")),
            }
        }
        state.app.quarantined(&caller, source, before).await
    };
    match answer.await {
        Ok(notices) => {
            let full = u32::try_from(notices.len()).unwrap_or(PAGE) >= PAGE;
            let last = notices
                .last()
                .map(|notice| notice.id.to_string())
                .filter(|_| full);
            let notices: Vec<Value> = notices.iter().map(notice_json).collect();
            let mut body = json!({"quarantine": notices});
            if let Some(last) = last {
                set_field(&mut body, "before", json!(last));
            }
            json_answer(&state, &request, StatusCode::OK, &body)
        }
        Err(error) => failure(&state, &request, Face::Problem, &error),
    }
}

fn unknown(what: &str) -> AppError {
    AppError::bad(format!(
        "{what} is not understood; give `source` and `before`, an id each, or neither"
    ))
}

async fn one(state: web::Data<HttpState>, request: HttpRequest, id: web::Path<Ids>) -> HttpResponse {
    let answer = async {
        let caller = authenticate(&state, &request).await?;
        state.app.quarantined_one(&caller, notice_id(&id)?).await
    };
    match answer.await {
        Ok(notice) => json_answer(&state, &request, StatusCode::OK, &whole_json(&notice)),
        Err(error) => failure(&state, &request, Face::Problem, &error),
    }
}

async fn retry(state: web::Data<HttpState>, request: HttpRequest, id: web::Path<Ids>) -> HttpResponse {
    let answer = async {
        let caller = authenticate(&state, &request).await?;
        state.app.retry_notice(&caller, notice_id(&id)?).await
    };
    match answer.await {
        Ok(notice) => json_answer(&state, &request, StatusCode::OK, &whole_json(&notice)),
        Err(error) => failure(&state, &request, Face::Problem, &error),
    }
}

async fn dismiss(state: web::Data<HttpState>, request: HttpRequest, id: web::Path<Ids>) -> HttpResponse {
    let answer = async {
        let caller = authenticate(&state, &request).await?;
        state.app.dismiss_notice(&caller, notice_id(&id)?).await
    };
    match answer.await {
        Ok(()) => with_correlation(&state, &request, HttpResponse::NoContent()).finish(),
        Err(error) => failure(&state, &request, Face::Problem, &error),
    }
}

fn notice_id(ids: &Ids) -> Result<NoticeId, AppError> {
    NoticeId::parse(ids.id.as_str()).map_err(|_| AppError::not_found())
}

fn notice_json(notice: &Notice) -> Value {
    let mut body = json!({
        "id": notice.id.as_str(),
        "source": notice.source.as_str(),
        "state": notice.state.as_str(),
        "about": notice.matter.reference(),
        "receivedAt": notice.received_at.to_instant(),
        "tries": notice.tries,
        "correlationId": notice.correlation.as_str(),
    });
    if let Some(numbered) = &notice.numbered {
        set_field(&mut body, "subscription", json!(numbered.subscription));
        set_field(&mut body, "event", json!(numbered.event));
    }
    match &notice.state {
        NoticeState::Quarantined { at, reason, .. } => {
            set_field(&mut body, "quarantinedAt", json!(at.to_instant()));
            set_field(&mut body, "reason", json!(reason.as_str()));
        }
        NoticeState::Applied { ours, .. } => set_field(&mut body, "resource", json!(ours)),
        NoticeState::Waiting { due } => set_field(&mut body, "nextTryAt", json!(due.to_instant())),
        NoticeState::Superseded { .. } | NoticeState::Dismissed { .. } => {}
    }
    body
}

/// With the OperationOutcome.
fn whole_json(notice: &Notice) -> Value {
    let mut body = notice_json(notice);
    if let NoticeState::Quarantined { outcome, .. } = &notice.state {
        let outcome: Value = serde_json::from_str(outcome).unwrap_or(Value::Null);
        set_field(&mut body, "outcome", outcome);
    }
    body
}
