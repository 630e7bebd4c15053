//! The plain JSON face of grants: `/files/{id}/access-grants` and `/access-grants/{id}`.

use actix_web::http::StatusCode;
use actix_web::{HttpRequest, HttpResponse, web};
use handoff_domain::grant::{Constraints, Grant};
use handoff_domain::ids::{ActorRef, BinaryId, DocumentId, GrantId, TaskId};
use handoff_domain::time::Span;
use serde::Deserialize;
use serde_json::{Value, json};

use super::HttpState;
use super::answer::{Face, failure, json_answer, with_correlation};
use super::body::read_body;
use super::break_glass::break_glass_reason;
use super::cors::cors;
use super::request::authenticate;
use crate::app::grants::{GrantRequest, IssuedGrant};
use crate::app::json_edit::set_field;
use crate::app::{AppError, Class, GrantView};
use handoff_domain::reason::Reason;

/// The longest body of a request for a grant.
const BODY_LIMIT: usize = 64 * 1024;

/// The routes.
pub fn routes(cfg: &mut web::ServiceConfig, origins: &[String]) {
    cfg.service(
        web::resource("/files/{id}/access-grants")
            .wrap(cors(origins))
            .route(web::post().to(issue))
            .route(web::get().to(list))
            .default_service(web::to(not_allowed)),
    );
    cfg.service(
        web::resource("/access-grants/{id}")
            .wrap(cors(origins))
            .route(web::get().to(read))
            .route(web::delete().to(revoke))
            .default_service(web::to(not_allowed)),
    );
}

/// The body of a request for a grant.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Body {
    task: String,
    actor: Option<Actor>,
    /// What the caller says the actor is; what it is allowed follows from its own token alone.
    #[serde(rename = "role")]
    _role: Option<String>,
    action: Option<String>,
    uses: Option<u32>,
    expires_in: Option<i64>,
    binary: Option<String>,
    #[serde(default)]
    constraints: Constraints,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Actor {
    reference: String,
}

/// Any other method on these routes.
pub async fn not_allowed(state: web::Data<HttpState>, request: HttpRequest) -> HttpResponse {
    let error = AppError::new(
        Class::MethodNotAllowed,
        Reason::NotSupported,
        "this method is not for this resource",
    );
    failure(&state, &request, Face::Problem, &error)
}

async fn issue(
    state: web::Data<HttpState>,
    request: HttpRequest,
    id: web::Path<Ids>,
    payload: web::Payload,
) -> HttpResponse {
    let answer = async {
        let caller = authenticate(&state, &request).await?;
        let break_glass = break_glass_reason(&request)?;
        let body = read_body(&state, &request, payload, BODY_LIMIT).await?;
        let asked = GrantRequest {
            break_glass,
            ..parse(&body, &id.id)?
        };
        state.app.issue_grant(&caller, asked).await
    };
    match answer.await {
        Ok(issued) => {
            let correlation = super::request::correlation_of(&state, &request);
            let body = issued_json(&issued, correlation.as_str());
            json_answer(&state, &request, StatusCode::CREATED, &body)
        }
        Err(error) => failure(&state, &request, Face::Problem, &error),
    }
}

/// The `{id}` of a route; `{tenant}` beside it is read elsewhere.
#[derive(Debug, Deserialize)]
pub struct Ids {
    /// The id.
    pub id: String,
}

fn parse(body: &[u8], document: &str) -> Result<GrantRequest, AppError> {
    // serde's message names fields and places, and could quote a value: only the place is handed on.
    let body: Body = serde_json::from_slice(body).map_err(|e| {
        AppError::bad(format!(
            "the body is not the expected JSON object (line {}, column {}); it has `task`, and may have `actor`, \
             `role`, `action`, `uses`, `expiresIn`, `binary`, `constraints`",
            e.line(),
            e.column()
        ))
    })?;
    if body.action.as_deref().is_some_and(|a| a != "download") {
        return Err(AppError::rule("action", "the only action is `download`"));
    }
    let task = body.task.strip_prefix("Task/").unwrap_or(&body.task);
    let reference =
        |name: &str| AppError::rule(name, format!("`{name}` is not a reference of the right type"));
    Ok(GrantRequest {
        task: TaskId::parse(task).map_err(|_| reference("task"))?,
        document: Some(DocumentId::parse(document).map_err(|_| AppError::not_found())?),
        binary: body
            .binary
            .map(|b| {
                BinaryId::parse(b.strip_prefix("Binary/").unwrap_or(&b)).map_err(|_| reference("binary"))
            })
            .transpose()?,
        actor: body
            .actor
            .map(|a| ActorRef::parse(a.reference).map_err(|_| reference("actor")))
            .transpose()?,
        uses: body.uses,
        expires_in: body.expires_in.map(Span::seconds),
        constraints: body.constraints,
        break_glass: None,
    })
}

/// A grant just issued, in the names that both faces share.
pub fn issued_json(issued: &IssuedGrant, correlation: &str) -> Value {
    let grant = &issued.view.grant;
    json!({
        "grantId": grant.id.as_str(),
        "link": issued.link,
        "expiresAt": grant.expires_at().map(handoff_domain::Timestamp::to_instant),
        "allowedUses": grant.max_uses,
        "document": format!("DocumentReference/{}", grant.document),
        "version": issued.view.document_version,
        "sha256": grant.sha256.to_hex(),
        "task": format!("Task/{}", grant.task),
        "correlationId": correlation,
    })
}

/// A grant without its secret.
fn grant_json(view: &GrantView) -> Value {
    let grant: &Grant = &view.grant;
    let mut body = json!({
        "grantId": grant.id.as_str(),
        "status": grant.state.code(),
        "task": format!("Task/{}", grant.task),
        "document": format!("DocumentReference/{}", grant.document),
        "version": view.document_version,
        "contentVersion": grant.content_version,
        "binary": format!("Binary/{}", grant.binary),
        "sha256": grant.sha256.to_hex(),
        "action": "download",
        "origin": grant.origin.as_str(),
        "allowedUses": grant.max_uses,
        "uses": grant.uses,
        "issuedAt": grant.issued_at.to_instant(),
    });
    if let Some(binding) = grant.state.binding() {
        set_field(&mut body, "actor", json!({"reference": binding.grantee.as_str()}));
        set_field(&mut body, "boundAt", json!(binding.bound_at.to_instant()));
        set_field(&mut body, "expiresAt", json!(binding.expires_at.to_instant()));
    }
    if let Some(reason) = grant.state.reason() {
        set_field(&mut body, "reason", json!(reason.as_str()));
    }
    if let Some(at) = grant.state.ended_at() {
        set_field(&mut body, "endedAt", json!(at.to_instant()));
    }
    if grant.constraints != Constraints::default() {
        set_field(&mut body, "constraints", json!(grant.constraints));
    }
    body
}

async fn list(state: web::Data<HttpState>, request: HttpRequest, id: web::Path<Ids>) -> HttpResponse {
    let answer = async {
        let caller = authenticate(&state, &request).await?;
        let document = DocumentId::parse(id.id.as_str()).map_err(|_| AppError::not_found())?;
        state.app.list_grants(&caller, document).await
    };
    match answer.await {
        Ok(views) => {
            let grants: Vec<Value> = views.iter().map(grant_json).collect();
            json_answer(&state, &request, StatusCode::OK, &json!({"grants": grants}))
        }
        Err(error) => failure(&state, &request, Face::Problem, &error),
    }
}

async fn read(state: web::Data<HttpState>, request: HttpRequest, id: web::Path<Ids>) -> HttpResponse {
    let answer = async {
        let caller = authenticate(&state, &request).await?;
        let id = GrantId::parse(id.id.as_str()).map_err(|_| AppError::not_found())?;
        state.app.read_grant(&caller, id).await
    };
    match answer.await {
        Ok(view) => json_answer(&state, &request, StatusCode::OK, &grant_json(&view)),
        Err(error) => failure(&state, &request, Face::Problem, &error),
    }
}

async fn revoke(state: web::Data<HttpState>, request: HttpRequest, id: web::Path<Ids>) -> HttpResponse {
    let answer = async {
        let caller = authenticate(&state, &request).await?;
        let id = GrantId::parse(id.id.as_str()).map_err(|_| AppError::not_found())?;
        state.app.revoke_grant(&caller, id).await
    };
    match answer.await {
        Ok(()) => with_correlation(&state, &request, HttpResponse::NoContent()).finish(),
        Err(error) => failure(&state, &request, Face::Problem, &error),
    }
}
