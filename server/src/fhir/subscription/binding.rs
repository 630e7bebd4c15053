//! `$get-ws-binding-token` (Subscriptions R5 Backport 1.1.0): a token by which a web socket hears Subscriptions of the
//! caller. It is in this answer and nowhere else.

use actix_web::{HttpRequest, HttpResponse, web};
use handoff_domain::ids::SubscriptionId;
use secrecy::ExposeSecret as _;
use serde_json::json;

use super::{Ids, State, asked};
use crate::app::{AppError, Caller};
use crate::fhir::negotiate::check_accept;
use crate::fhir::{failed, ok};
use crate::http::HttpState;
use crate::http::request::authenticate;
use crate::http::websocket::address;

pub(super) async fn token_for_one(
    state: State,
    request: HttpRequest,
    ids: web::Path<Ids>,
    payload: web::Payload,
) -> HttpResponse {
    let answer = async {
        let caller = authenticate(&state, &request).await?;
        check_accept(&request)?;
        // At the level of an instance there is nothing to choose; what is sent nevertheless is ignored, as the Backport has it.
        asked(&state, &request, payload, &["id"]).await?;
        token(&state, &caller, &[ids.id.as_str()]).await
    };
    match answer.await {
        Ok(body) => ok(&state, &request, body),
        Err(error) => failed(&state, &request, &error),
    }
}

pub(super) async fn token_for_many(
    state: State,
    request: HttpRequest,
    payload: web::Payload,
) -> HttpResponse {
    let answer = async {
        let caller = authenticate(&state, &request).await?;
        check_accept(&request)?;
        let pairs = asked(&state, &request, payload, &["id"]).await?;
        let ids: Vec<&str> = pairs.iter().flat_map(|(_, value)| value.split(',')).collect();
        if ids.is_empty() {
            return Err(AppError::bad(
                "name the subscriptions that are to be heard, each by an `id`",
            ));
        }
        token(&state, &caller, &ids).await
    };
    match answer.await {
        Ok(body) => ok(&state, &request, body),
        Err(error) => failed(&state, &request, &error),
    }
}

async fn token(state: &HttpState, caller: &Caller, ids: &[&str]) -> Result<Vec<u8>, AppError> {
    let ids: Result<Vec<_>, _> = ids.iter().map(|id| SubscriptionId::parse(*id)).collect();
    let ids = ids.map_err(|_| AppError::not_found())?;
    let made = state.app.binding_token(caller, ids).await?;
    let mut parameters = vec![
        json!({"name": "token", "valueString": made.token.expose_secret()}),
        json!({"name": "expiration", "valueDateTime": made.expires_at.to_instant()}),
    ];
    for id in &made.subscriptions {
        parameters.push(json!({"name": "subscription", "valueString": id.as_str()}));
    }
    let url = address(&state.app.settings.fhir_base(caller.tenant()));
    parameters.push(json!({"name": "websocket-url", "valueUrl": url}));
    let answer = json!({"resourceType": "Parameters", "parameter": parameters});
    Ok(answer.to_string().into_bytes())
}
