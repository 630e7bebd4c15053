//! `/admin/storage/drift`: where the blob store and the records differ.

use actix_web::http::StatusCode;
use actix_web::{HttpRequest, HttpResponse, web};
use handoff_domain::drift::Drift;
use serde::Deserialize;
use serde_json::{Value, json};

use super::HttpState;
use super::access_grants::not_allowed;
use super::answer::{Face, failure, json_answer, with_correlation};
use super::request::authenticate;
use crate::app::AppError;
use crate::app::drift::Known;
use crate::app::json_edit::set_field;

/// The longest name in a blob store ("Naming and referencing containers, blobs, and metadata"), in bytes of UTF-8.
const LONGEST_NAME: usize = 4096;

/// The routes.
pub fn routes(cfg: &mut web::ServiceConfig) {
    cfg.service(
        web::resource("/admin/storage/drift")
            .route(web::get().to(drift))
            .route(web::post().to(look))
            .default_service(web::to(not_allowed)),
    );
}

type State = web::Data<HttpState>;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Page {
    after: Option<String>,
}

async fn drift(state: State, request: HttpRequest) -> HttpResponse {
    let answer = async {
        let caller = authenticate(&state, &request).await?;
        let page = web::Query::<Page>::from_query(request.query_string())
            .map_err(|_| AppError::bad("the only parameter is `after`, the last name that you had"))?;
        let after = page.into_inner().after;
        if after
            .as_ref()
            .is_some_and(|after| after.len() > LONGEST_NAME || after.contains('\0'))
        {
            return Err(AppError::bad("`after` is no name of an object"));
        }
        state.app.known_drift(&caller, after).await
    };
    match answer.await {
        Ok(known) => json_answer(&state, &request, StatusCode::OK, &known_json(&known)),
        Err(error) => failure(&state, &request, Face::Problem, &error),
    }
}

async fn look(state: State, request: HttpRequest) -> HttpResponse {
    let answer = async {
        let caller = authenticate(&state, &request).await?;
        state.app.look_soon(&caller).await
    };
    match answer.await {
        Ok(()) => with_correlation(&state, &request, HttpResponse::Accepted()).finish(),
        Err(error) => failure(&state, &request, Face::Problem, &error),
    }
}

fn known_json(known: &Known) -> Value {
    let mut counts = json!({});
    for (kind, count, bytes) in &known.counts {
        set_field(
            &mut counts,
            kind.as_str(),
            json!({"count": count, "bytes": bytes}),
        );
    }
    let drift: Vec<Value> = known.drift.iter().map(drift_json).collect();
    let mut body = json!({"counts": counts, "drift": drift});
    if let Some(look) = &known.look {
        let look = json!({
            "began": look.began.to_instant(),
            "ended": look.ended.to_instant(),
            "objects": look.objects,
            "bytes": look.bytes,
        });
        set_field(&mut body, "lookedAt", look);
    }
    if let Some(last) = known.drift.last().filter(|_| known.more) {
        set_field(&mut body, "next", json!(last.name));
    }
    body
}

fn drift_json(drift: &Drift) -> Value {
    json!({
        "name": drift.name,
        "kind": drift.kind.as_str(),
        "bytes": drift.size,
        "found": drift.found.to_instant(),
    })
}
