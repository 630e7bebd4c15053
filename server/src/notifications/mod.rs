//! Notifications of other servers: who sends them, what they say, and the answer once that is durable. Knows HTTP and the
//! forms of notifications; what follows from them is decided by `app`.

mod proof;
mod read;

use actix_web::http::{StatusCode, header};
use actix_web::{HttpRequest, HttpResponse, web};
use handoff_domain::audit::Context;
use handoff_domain::ids::{SourceId, TenantId};
use handoff_domain::reason::Reason;
use handoff_domain::source::Source;
use handoff_fhir_model::outcome::{Details, outcome};
use handoff_fhir_model::{Issue, IssueType, ParseOptions, Severity, parse};
use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use crate::app::inbox::Told;
use crate::app::sources::caller_of;
use crate::app::{AppError, Caller, Class};
use crate::fhir::negotiate::{check_content_type, check_encoding};
use crate::http::HttpState;
use crate::http::access_grants::not_allowed;
use crate::http::answer::{FHIR_JSON, Face, failure, with_correlation};
use crate::http::attempts::buckets::Buckets;
use crate::http::body::{Body, read_body, stated_length};
use crate::http::request::{admit, context_of, look_at, record_refusal, tenant_of};

pub use proof::is_signing_key;
use proof::{Presented, Signed};

/// How many requests a source may send in a minute.
const PER_MINUTE: usize = 6_000;

/// What is remembered of those who send.
pub struct Senders {
    /// Requests by tenant and source.
    rate: Buckets<(TenantId, SourceId)>,
    /// Secrets that were good, by digest, so that others at the same address can't keep their holders out.
    good: Buckets<[u8; 32]>,
}

impl Default for Senders {
    fn default() -> Self {
        Self {
            rate: Buckets::new(PER_MINUTE),
            good: Buckets::new(1),
        }
    }
}

#[derive(Deserialize)]
struct Named {
    source: String,
}

#[derive(Deserialize)]
struct Put {
    source: String,
    kind: String,
    id: String,
}

/// The routes.
pub fn routes(cfg: &mut web::ServiceConfig) {
    cfg.service(
        web::resource("/notifications/{source}")
            .route(web::post().to(post))
            .default_service(web::to(not_allowed)),
    );
    cfg.service(
        web::resource("/notifications/{source}/{kind}/{id}")
            .route(web::put().to(put))
            .default_service(web::to(not_allowed)),
    );
}

/// A Bundle of the Backport IG, or the empty body of base R4.
async fn post(
    state: web::Data<HttpState>,
    request: HttpRequest,
    payload: web::Payload,
    named: web::Path<Named>,
) -> HttpResponse {
    let answer = async {
        let sent = receive(&state, &request, payload, &named.source).await?;
        let told = if sent.body.is_empty() {
            check_encoding(&request)?;
            read::of_empty()
        } else {
            check_content_type(&request)?;
            let bundle = parse(&sent.body, &ParseOptions::expecting("Bundle")).map_err(AppError::invalid)?;
            read::of_bundle(&sent.source, bundle, state.limits.max_entries)?
        };
        take_in(&state, sent, told).await
    };
    finish(&state, &request, answer.await)
}

/// A resource of base R4 with payload.
async fn put(
    state: web::Data<HttpState>,
    request: HttpRequest,
    payload: web::Payload,
    put: web::Path<Put>,
) -> HttpResponse {
    let answer = async {
        let sent = receive(&state, &request, payload, &put.source).await?;
        check_content_type(&request)?;
        let resource = parse(&sent.body, &ParseOptions::default()).map_err(AppError::invalid)?;
        let from = request.headers().get(header::CONTENT_LOCATION);
        let from = from.and_then(|value| value.to_str().ok());
        let told = read::of_resource(&put.kind, &put.id, resource, from)?;
        take_in(&state, sent, told).await
    };
    finish(&state, &request, answer.await)
}

/// What a source sent.
struct Sent {
    source: Source,
    caller: Caller,
    body: Body,
}

/// Reads a request of a source that proved itself. Whoever did not is told the same whether there is such a source or not.
async fn receive(
    state: &HttpState,
    request: &HttpRequest,
    payload: web::Payload,
    name: &str,
) -> Result<Sent, AppError> {
    let tenant = tenant_of(state, request)?;
    let context = context_of(state, request, tenant.clone());
    let Some(presented) = Presented::of(request) else {
        return Err(unauthenticated());
    };
    // A secret that was good lately is looked at, however many others of its address were not.
    let digest = presented.digest(&tenant, name);
    let good = state.senders.good.owes(&digest, context.now).is_some();
    let trial = if good {
        None
    } else {
        match look_at(state, &context, None) {
            Ok(trial) => Some(trial),
            Err(too_many) => return Err(record_refusal(state, &context, too_many).await),
        }
    };
    let found = match SourceId::parse(name) {
        Ok(id) => state.app.source(&tenant, &id).await,
        Err(_) => Ok(None),
    };
    let found = match found {
        Ok(found) => found,
        Err(error) => {
            if let Some(trial) = trial {
                trial.forgive();
            }
            return Err(error);
        }
    };
    let proved = |found: Option<Source>, proved: bool| found.filter(|_| proved);
    let limit = state.limits.max_body;
    let (source, body) = match &presented {
        Presented::Bearer(secret) => {
            let is_good = proof::is_bearer(found.as_ref(), secret);
            let Some(source) = proved(found, is_good) else {
                return Err(refused(state, &context).await);
            };
            let body = read_body(state, request, payload, limit).await?;
            (source, body)
        }
        Presented::Signature(signature) => {
            // It is over the body, which has to come first; of strangers not more than what a source may send.
            if stated_length(request).is_some_and(|length| length > limit as u64) {
                return Err(refused(state, &context).await);
            }
            let body = read_body(state, request, payload, limit).await?;
            let signed = proof::is_signed(found.as_ref(), signature, &body, context.now).await?;
            if signed == Signed::Once {
                // Only who has the key learns that.
                return Err(record_refusal(state, &context, untimely()).await);
            }
            let Some(source) = proved(found, signed == Signed::Now) else {
                return Err(refused(state, &context).await);
            };
            (source, body)
        }
    };
    if let Some(trial) = trial {
        trial.forgive();
    }
    state.senders.good.count(digest, context.now);
    let key = (tenant, source.id.clone());
    if let Some(wait) = state.senders.rate.over(&key, context.now) {
        let seconds = u64::try_from(wait.whole_seconds()).unwrap_or(1).saturating_add(1);
        let text = "this source sends too much; wait and send it again";
        return Err(AppError::new(
            Class::RateLimited { seconds },
            Reason::RateLimited,
            text,
        ));
    }
    state.senders.rate.count(key, context.now);
    let caller = admit(state, caller_of(&source, context)).await?;
    Ok(Sent { source, caller, body })
}

fn unauthenticated() -> AppError {
    AppError::new(
        Class::Unauthenticated,
        Reason::Unauthenticated,
        "a source proves itself by its shared secret as a Bearer token, or by signing what it sends: `webhook-id` (without dots), \
         `webhook-timestamp`, `webhook-signature`",
    )
}

fn untimely() -> AppError {
    AppError::new(
        Class::Unauthenticated,
        Reason::TokenInvalid,
        "the signature is good, and of another time: `webhook-timestamp` is more than five minutes from now; sign each attempt \
         anew, and look at the clock",
    )
}

async fn refused(state: &HttpState, context: &Context) -> AppError {
    let refusal = AppError::new(
        Class::Unauthenticated,
        Reason::TokenInvalid,
        "there is no such source, or this does not prove that you are it",
    );
    tracing::info!(correlation_id = %context.correlation, "a notification is not proved to be of a source: no such source, or wrong secret or signature");
    record_refusal(state, context, refusal).await
}

/// Makes it durable, and begins to apply it.
async fn take_in(state: &HttpState, sent: Sent, told: Told) -> Result<(), AppError> {
    let taken = state
        .app
        .take_in(&sent.caller, sent.source.id.clone(), told)
        .await?;
    // What was sent is stored now; it need not be held here meanwhile.
    drop(sent.body);
    state.app.apply_soon(sent.caller.tenant(), taken).await;
    Ok(())
}

/// What is applied, and what is laid aside, shows later.
fn taken() -> Issue {
    Issue {
        severity: Severity::Information,
        code: IssueType::Informational,
        expression: None,
        text: "taken in; what can't be applied waits in the quarantine".to_owned(),
    }
}

fn finish(state: &HttpState, request: &HttpRequest, answer: Result<(), AppError>) -> HttpResponse {
    match answer {
        Ok(()) => with_correlation(state, request, HttpResponse::build(StatusCode::OK))
            .content_type(FHIR_JSON)
            .body(outcome(&[taken()], Details::default()).to_string()),
        Err(error) => failure(state, request, Face::Fhir, &error),
    }
}

/// A digest of parts that may be long or secret.
fn digest(parts: [&[u8]; 3]) -> [u8; 32] {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(part.len().to_le_bytes());
        hash.update(part);
    }
    hash.finalize().into()
}
