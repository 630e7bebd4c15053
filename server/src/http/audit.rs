//! `/admin/audit`: for auditors, the ledger's checkpoints, proofs and export, and the accounting of disclosures.

use actix_web::http::StatusCode;
use actix_web::{HttpRequest, HttpResponse, web};
use bytes::Bytes;
use futures_util::stream;
use handoff_domain::ledger::SignedCheckpoint;
use serde_json::{Value, json};
use url::form_urlencoded;

use super::HttpState;
use super::access_grants::not_allowed;
use super::answer::{Face, failure, json_answer, with_correlation};
use super::disclosures::disclosures;
use super::request::{authenticate, correlation_of};
use super::room::Taken;
use crate::app::ledger::LedgerError;
use crate::app::ledger::export::Export;
use crate::app::{App, AppError};

/// The routes.
pub fn routes(cfg: &mut web::ServiceConfig) {
    let get = |path: &str, route: actix_web::Route| {
        web::resource(path.to_owned())
            .route(route)
            .default_service(web::to(not_allowed))
    };
    cfg.service(get("/admin/audit/checkpoint", web::get().to(checkpoint)));
    cfg.service(get("/admin/audit/checkpoints", web::get().to(checkpoints)));
    cfg.service(get("/admin/audit/proof", web::get().to(proof)));
    cfg.service(get("/admin/audit/consistency", web::get().to(consistency)));
    cfg.service(get("/admin/audit/export", web::get().to(export)));
    cfg.service(get("/admin/audit/disclosures", web::get().to(disclosures)));
}

/// The one parameter that a route takes: a number, named like this.
fn number<T: std::str::FromStr>(request: &HttpRequest, name: &str) -> Result<Option<T>, AppError> {
    let mut found = None;
    for (key, value) in form_urlencoded::parse(request.query_string().as_bytes()) {
        let wanted = || {
            AppError::rule(
                name,
                format!("the query takes `{name}`, once, and it is a number"),
            )
        };
        if key != name || found.is_some() {
            return Err(wanted());
        }
        found = Some(value.parse().map_err(|_| wanted())?);
    }
    Ok(found)
}

fn needed<T: std::str::FromStr>(request: &HttpRequest, name: &str, what: &str) -> Result<T, AppError> {
    number(request, name)?.ok_or_else(|| AppError::rule(name, format!("name {what}: `?{name}=`")))
}

fn nothing_asked(request: &HttpRequest) -> Result<(), AppError> {
    match request.query_string() {
        "" => Ok(()),
        _ => Err(AppError::bad("this takes no query")),
    }
}

async fn checkpoint(state: web::Data<HttpState>, request: HttpRequest) -> HttpResponse {
    let answer = async {
        let caller = authenticate(&state, &request).await?;
        nothing_asked(&request)?;
        state.app.checkpoint(&caller).await
    };
    match answer.await {
        Ok(note) => with_correlation(&state, &request, HttpResponse::Ok())
            .content_type("text/plain; charset=utf-8")
            .body(note),
        Err(error) => failure(&state, &request, Face::Problem, &error),
    }
}

async fn checkpoints(state: web::Data<HttpState>, request: HttpRequest) -> HttpResponse {
    let answer = async {
        let caller = authenticate(&state, &request).await?;
        let below = number(&request, "below")?;
        state.app.checkpoints(&caller, below).await
    };
    match answer.await {
        Ok(found) => {
            let shown = |one: &SignedCheckpoint| json!({"size": one.size, "signedAt": one.at.to_instant(), "checkpoint": one.note});
            let all: Vec<Value> = found.iter().map(shown).collect();
            json_answer(&state, &request, StatusCode::OK, &json!({"checkpoints": all}))
        }
        Err(error) => failure(&state, &request, Face::Problem, &error),
    }
}

async fn proof(state: web::Data<HttpState>, request: HttpRequest) -> HttpResponse {
    let answer = async {
        let caller = authenticate(&state, &request).await?;
        let sequence = needed(&request, "event", "the id of an AuditEvent")?;
        state.app.prove_row(&caller, sequence).await
    };
    document(&state, &request, answer.await)
}

async fn consistency(state: web::Data<HttpState>, request: HttpRequest) -> HttpResponse {
    let answer = async {
        let caller = authenticate(&state, &request).await?;
        let first = needed(&request, "first", "the size of an earlier checkpoint")?;
        state.app.prove_consistency(&caller, first).await
    };
    document(&state, &request, answer.await)
}

fn document(state: &HttpState, request: &HttpRequest, answer: Result<String, AppError>) -> HttpResponse {
    match answer {
        Ok(text) => with_correlation(state, request, HttpResponse::Ok())
            .content_type("application/json")
            .body(text),
        Err(error) => failure(state, request, Face::Problem, &error),
    }
}

async fn export(state: web::Data<HttpState>, request: HttpRequest) -> HttpResponse {
    let answer = async {
        let caller = authenticate(&state, &request).await?;
        let from = number(&request, "from")?.unwrap_or(0);
        let room = state.room.export()?;
        let export = state.app.export_audit(&caller, from).await?;
        Ok::<_, AppError>((export, room))
    };
    match answer.await {
        Ok((export, room)) => {
            let under_way = UnderWay {
                app: state.app.clone(),
                correlation: correlation_of(&state, &request).to_string(),
                export: Some(export),
                _room: room,
            };
            with_correlation(&state, &request, HttpResponse::Ok())
                .content_type("application/x-ndjson")
                .streaming(stream::unfold(under_way, UnderWay::next))
        }
        Err(error) => failure(&state, &request, Face::Problem, &error),
    }
}

/// An export that is being sent.
struct UnderWay {
    app: App,
    correlation: String,
    export: Option<Export>,
    _room: Taken,
}

impl UnderWay {
    async fn next(mut self) -> Option<(Result<Bytes, LedgerError>, Self)> {
        let export = self.export.take()?;
        match export.next(self.app.store.as_ref()).await {
            Ok(None) => None,
            Ok(Some((export, piece))) => {
                self.export = Some(export);
                Some((Ok(Bytes::from(piece)), self))
            }
            // The connection breaks off, and the file has no checkpoint at its end.
            Err(error) => {
                tracing::error!(correlation_id = self.correlation, cause = %error, "an export of the audit broke off");
                Some((Err(error), self))
            }
        }
    }
}
