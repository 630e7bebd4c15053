//! `/admin/revocations`: blocks that an operator places in an emergency, and lifts.

use std::fmt;

use actix_web::http::{StatusCode, header};
use actix_web::{HttpRequest, HttpResponse, web};
use handoff_domain::ids::BlockId;
use handoff_domain::standing::{Block, Target};
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};

use super::HttpState;
use super::access_grants::{Ids, not_allowed};
use super::answer::{Face, failure, json_answer, with_correlation};
use super::body::read_body;
use super::request::{authenticate_blocked_too, correlation_of};
use crate::app::AppError;
use crate::app::json_edit::set_field;

/// The longest body.
const BODY_LIMIT: usize = 16 * 1024;

/// The routes.
pub fn routes(cfg: &mut web::ServiceConfig) {
    cfg.service(
        web::resource("/admin/revocations")
            .route(web::post().to(place))
            .route(web::get().to(list))
            .default_service(web::to(not_allowed)),
    );
    cfg.service(
        web::resource("/admin/revocations/{id}")
            .route(web::delete().to(lift))
            .default_service(web::to(not_allowed)),
    );
}

async fn place(state: web::Data<HttpState>, request: HttpRequest, payload: web::Payload) -> HttpResponse {
    let answer = async {
        let caller = authenticate_blocked_too(&state, &request).await?;
        let body = read_body(&state, &request, payload, BODY_LIMIT).await?;
        let (target, note) = parse(&body)?;
        if let Target::Issuer(name) = &target
            && !state
                .validator
                .issuers_of(caller.tenant())
                .any(|known| known == name)
        {
            let text = "no such issuer is configured for this tenant; name it exactly as tokens write `iss`";
            return Err(AppError::rule("issuer", text));
        }
        let placed = state.app.place_block(&caller, target, &note).await?;
        let base = state.app.settings.tenant_base(caller.tenant());
        Ok::<_, AppError>((format!("{base}/admin/revocations/{}", placed.block.id), placed))
    };
    match answer.await {
        Ok((location, placed)) => {
            let mut body = block_json(&placed.block);
            set_field(&mut body, "tasks", json!(placed.tasks));
            set_field(
                &mut body,
                "correlationId",
                json!(correlation_of(&state, &request).as_str()),
            );
            let mut response = json_answer(&state, &request, StatusCode::CREATED, &body);
            if let Ok(location) = header::HeaderValue::from_str(&location) {
                response.headers_mut().insert(header::LOCATION, location);
            }
            response
        }
        Err(error) => failure(&state, &request, Face::Problem, &error),
    }
}

/// One target and the note.
fn parse(body: &[u8]) -> Result<(Target, String), AppError> {
    let expected = || {
        AppError::bad(format!(
            "the body is a JSON object with `reason` and exactly one of {}",
            Target::KINDS.map(|kind| format!("`{kind}`")).join(", ")
        ))
    };
    let Members(fields) = serde_json::from_slice(body).map_err(|_| expected())?;
    let (mut notes, fields): (Vec<_>, Vec<_>) = fields.into_iter().partition(|(name, _)| name == "reason");
    let (Some((_, Value::String(note))), true) = (notes.pop(), notes.is_empty()) else {
        return Err(AppError::rule("reason", "say why, in 1 to 500 characters"));
    };
    let mut fields = fields.into_iter();
    let (Some((kind, value)), None) = (fields.next(), fields.next()) else {
        return Err(expected());
    };
    let value = match (kind.as_str(), value) {
        ("all", Value::Bool(true)) => String::new(),
        ("all", _) => return Err(AppError::rule("all", "the only value is `true`")),
        (kind, Value::String(text)) if Target::KINDS.contains(&kind) => text,
        (kind, _) if Target::KINDS.contains(&kind) => return Err(AppError::rule(kind, "not a text")),
        _ => return Err(expected()),
    };
    let target = Target::parse(&kind, &value).map_err(|error| AppError::rule(&kind, error.to_string()))?;
    Ok((target, note))
}

/// The members of a JSON object as they stand there, also such as come twice.
struct Members(Vec<(String, Value)>);

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(source: D) -> Result<Self, D::Error> {
        struct Object;

        impl<'de> Visitor<'de> for Object {
            type Value = Members;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }

        source.deserialize_map(Object)
    }
}

fn block_json(block: &Block) -> Value {
    let mut body = json!({
        "id": block.id.as_str(),
        "reason": block.note,
        "placedAt": block.placed_at.to_instant(),
        "placedBy": block.placed_by.as_str(),
    });
    let named = match &block.target {
        Target::All => json!(true),
        other => json!(other.reference()),
    };
    set_field(&mut body, block.target.kind(), named);
    body
}

async fn list(state: web::Data<HttpState>, request: HttpRequest) -> HttpResponse {
    let answer = async {
        let caller = authenticate_blocked_too(&state, &request).await?;
        state.app.blocks(&caller).await
    };
    match answer.await {
        Ok(blocks) => {
            let blocks: Vec<Value> = blocks.iter().map(block_json).collect();
            json_answer(&state, &request, StatusCode::OK, &json!({"revocations": blocks}))
        }
        Err(error) => failure(&state, &request, Face::Problem, &error),
    }
}

async fn lift(state: web::Data<HttpState>, request: HttpRequest, id: web::Path<Ids>) -> HttpResponse {
    let answer = async {
        let caller = authenticate_blocked_too(&state, &request).await?;
        let id = BlockId::parse(id.id.as_str()).map_err(|_| AppError::not_found())?;
        state.app.lift_block(&caller, id).await
    };
    match answer.await {
        Ok(()) => with_correlation(&state, &request, HttpResponse::NoContent()).finish(),
        Err(error) => failure(&state, &request, Face::Problem, &error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_names_one_target_once() {
        let parsed = |body: &str| parse(body.as_bytes());
        assert!(parsed(r#"{"task":"Task/1","reason":"why"}"#).is_ok());
        for body in [
            r#"{"task":"Task/1","task":"Task/2","reason":"why"}"#,
            r#"{"task":"Task/1","reason":"why","reason":"because"}"#,
            r#"{"task":"Task/1","reason":"why"} {}"#,
            r#"[["task","Task/1"],["reason","why"]]"#,
        ] {
            assert!(parsed(body).is_err(), "{body}");
        }
    }
}
