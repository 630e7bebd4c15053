//! Binary: taken in raw or wrapped, given out only through the gate. Never searched, listed or updated.

use actix_web::http::header;
use actix_web::{HttpRequest, HttpResponse, web};
use handoff_domain::ids::{BinaryId, TaskId};
use handoff_fhir_model::references::Target;
use handoff_fhir_model::{ParseOptions, parse};
use serde::Deserialize;

use super::negotiate::{BinaryForm, binary_form, check_accept, check_encoding, content_type};
use super::{failed, not_allowed, stored};
use crate::app::AppError;
use crate::app::redeem::{Fetch, Fetched};
use crate::http::HttpState;
use crate::http::answer::with_correlation;
use crate::http::body::{read_body, stated_length, upload};
use crate::http::break_glass::break_glass_reason;
use crate::http::request::authenticate;
use crate::http::stream::{content, preview, resume_of};
use crate::http::wrapped::wrapped;

/// The routes.
pub fn routes(cfg: &mut web::ServiceConfig) {
    cfg.service(
        web::resource("/Binary")
            .route(web::post().to(create))
            .default_service(web::to(not_allowed)),
    );
    for path in ["/Binary/{id}", "/Binary/{id}/_history/{version}"] {
        let resource = web::resource(path)
            .route(web::get().to(fetch))
            .route(web::head().to(fetch))
            .default_service(web::to(not_allowed));
        let versioned = path.ends_with("{version}");
        cfg.service(if versioned {
            resource
        } else {
            resource.route(web::delete().to(delete))
        });
    }
}

#[derive(Debug, Deserialize)]
struct Ids {
    id: String,
    version: Option<String>,
}

type State = web::Data<HttpState>;

async fn create(state: State, request: HttpRequest, payload: web::Payload) -> HttpResponse {
    let answer = async {
        let caller = authenticate(&state, &request).await?;
        check_encoding(&request)?;
        let sent_type = request
            .headers()
            .get(header::CONTENT_TYPE)
            .and_then(|v| v.to_str().ok())
            .map_or_else(|| "application/octet-stream".to_owned(), |t| t.trim().to_owned());
        let context = security_context(&request)?;
        let essence = content_type(&request).unwrap_or_default();
        let answer = if matches!(
            essence.as_str(),
            "application/fhir+json" | "application/json+fhir"
        ) {
            let body = read_body(&state, &request, payload, state.limits.max_body).await?;
            // Verbatim content unless it really is a Binary resource (R4 binary).
            let (content_type, context, data) = if let Some(binary) = as_binary(&body)? {
                let data = binary.data.unwrap_or_default();
                (binary.content_type, binary.security_context.or(context), data)
            } else {
                (sent_type, context, body.to_vec())
            };
            let whole = futures_util::stream::iter([Ok(bytes::Bytes::from(data))]);
            let limit = state.app.settings.max_inline;
            state
                .app
                .create_binary(&caller, content_type, context, Box::pin(whole), limit)
                .await?
        } else {
            let limit = state.app.settings.max_binary;
            if stated_length(&request).is_some_and(|n| n > limit) {
                return Err(AppError::from(handoff_domain::ports::BlobError::TooLarge {
                    limit,
                }));
            }
            let data = upload(&state, &request, payload)?;
            state
                .app
                .create_binary(&caller, sent_type, context, data, limit)
                .await?
        };
        Ok((caller, answer))
    };
    match answer.await {
        Ok((caller, answer)) => {
            let base = state.app.settings.fhir_base(caller.tenant());
            stored(&state, &request, &answer, &base)
        }
        Err(error) => failed(&state, &request, &error),
    }
}

/// The body as a Binary resource, where it says that it is one.
fn as_binary(body: &[u8]) -> Result<Option<handoff_fhir_model::binary::Binary>, AppError> {
    #[derive(Deserialize)]
    struct Probe {
        #[serde(rename = "resourceType")]
        kind: Option<String>,
    }
    let probe = serde_json::from_slice::<Probe>(body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body));
    match probe {
        Ok(Probe { kind: Some(kind) }) if kind != "Binary" => Ok(None),
        // Not JSON at all, or a Binary: FHIR was announced, so FHIR's rules judge it.
        _ => {
            let resource = parse(body, &ParseOptions::expecting("Binary")).map_err(AppError::invalid)?;
            handoff_fhir_model::binary::binary(&resource)
                .map(Some)
                .map_err(AppError::invalid)
        }
    }
}

fn security_context(request: &HttpRequest) -> Result<Option<String>, AppError> {
    let Some(value) = request.headers().get("x-security-context") else {
        return Ok(None);
    };
    let text = value.to_str().unwrap_or_default();
    let valid = matches!(Target::parse(text), Some(Target::Relative { .. }));
    if valid {
        Ok(Some(text.to_owned()))
    } else {
        Err(AppError::bad(
            "`X-Security-Context` must be a relative reference like `DocumentReference/1`",
        ))
    }
}

async fn fetch(state: State, request: HttpRequest, ids: web::Path<Ids>) -> HttpResponse {
    let answer = async {
        let caller = authenticate(&state, &request).await?;
        let form = binary_form(&request)?;
        let binary = BinaryId::parse(ids.id.as_str()).map_err(|_| AppError::not_found())?;
        if ids.version.as_deref().is_some_and(|v| v != "1") {
            return Err(AppError::not_found());
        }
        let head = request.method() == actix_web::http::Method::HEAD;
        let fetch = Fetch {
            binary,
            task: named_task(&request)?,
            resume: resume_of(&request).filter(|_| form == BinaryForm::Raw),
            head,
            // A HEAD asks; it breaks nothing.
            break_glass: if head { None } else { break_glass_reason(&request)? },
            at_most: (form == BinaryForm::Wrapped).then_some(state.app.settings.max_inline),
        };
        // Before the use is taken.
        let taken = state.room.download_unless(head)?;
        match (state.app.fetch_binary(&caller, fetch).await?, form) {
            (Fetched::Preview(found), _) => Ok(preview(&state, &request, &found.binary)),
            (Fetched::Content(ticket), BinaryForm::Raw) => {
                content(&state, &request, &caller, *ticket, taken).await
            }
            (Fetched::Content(ticket), BinaryForm::Wrapped) => {
                wrapped(&state, &request, &caller, *ticket, taken).await
            }
        }
    };
    match answer.await {
        Ok(response) => response,
        Err(error) => failed(&state, &request, &error),
    }
}

/// `?task=Task/{id}`: the Task that picks the grant.
fn named_task(request: &HttpRequest) -> Result<Option<TaskId>, AppError> {
    let pairs = super::resource::pairs_of(request.query_string().as_bytes());
    let mut named = pairs
        .iter()
        .filter(|(name, _)| name == "task")
        .map(|(_, value)| value);
    let Some(value) = named.next() else {
        return Ok(None);
    };
    if named.next().is_some() {
        return Err(AppError::bad("`task` is given more than once"));
    }
    let id = value.strip_prefix("Task/").unwrap_or(value);
    TaskId::parse(id)
        .map(Some)
        .map_err(|_| AppError::bad("`task` is not a reference like `Task/1`"))
}

async fn delete(state: State, request: HttpRequest, ids: web::Path<Ids>) -> HttpResponse {
    let answer = async {
        let caller = authenticate(&state, &request).await?;
        check_accept(&request)?;
        let id = BinaryId::parse(ids.id.as_str()).map_err(|_| AppError::not_found())?;
        state.app.delete_binary(&caller, id).await
    };
    match answer.await {
        Ok(()) => with_correlation(&state, &request, HttpResponse::NoContent()).finish(),
        Err(error) => failed(&state, &request, &error),
    }
}
