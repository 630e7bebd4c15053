//! The page behind a handoff link. GET tells everybody the same and takes nothing; the secret stays in the
//! fragment, which no server sees, until the person's own POST redeems it.

use actix_web::http::header;
use actix_web::{HttpRequest, HttpResponse, web};
use handoff_domain::ids::Handle;
use handoff_domain::reason::Reason;
use serde::Deserialize;

use super::HttpState;
use super::access_grants::not_allowed;
use super::answer::{Face, failure, with_correlation};
use super::body::read_body;
use super::request::authenticate;
use crate::app::{AppError, Class};

/// The page. The same bytes for every handle, known or not.
const SHELL: &str = include_str!("handoff_page.html");
/// The page's script, a file of its own so that the policy can forbid inline script.
const SCRIPT: &str = include_str!("handoff_page.js");
/// What the page may do: its own script and style, a POST to itself, nothing else.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; form-action 'self'; \
                      base-uri 'none'; frame-ancestors 'none'";
const STYLE: &str = include_str!("handoff_page.css");
/// The longest body of a redemption.
const BODY_LIMIT: usize = 4 * 1024;

/// The routes.
pub fn routes(cfg: &mut web::ServiceConfig) {
    cfg.service(
        web::resource("/handoff/page.js")
            .route(web::get().to(|| async { asset("text/javascript; charset=utf-8", SCRIPT) })),
    );
    cfg.service(
        web::resource("/handoff/page.css")
            .route(web::get().to(|| async { asset("text/css; charset=utf-8", STYLE) })),
    );
    cfg.service(
        web::resource("/handoff/{handle}")
            .route(web::get().to(shell))
            .route(web::head().to(shell))
            .route(web::post().to(redeem))
            .default_service(web::to(not_allowed)),
    );
}

fn asset(content_type: &'static str, body: &'static str) -> HttpResponse {
    HttpResponse::Ok()
        .insert_header((header::CONTENT_TYPE, content_type))
        .insert_header((header::CACHE_CONTROL, "public, max-age=300"))
        .insert_header((header::X_CONTENT_TYPE_OPTIONS, "nosniff"))
        .body(body)
}

async fn shell(state: web::Data<HttpState>, request: HttpRequest) -> HttpResponse {
    with_correlation(&state, &request, HttpResponse::Ok())
        .insert_header((header::CONTENT_TYPE, "text/html; charset=utf-8"))
        .insert_header((header::CONTENT_SECURITY_POLICY, POLICY))
        .insert_header((header::REFERRER_POLICY, "no-referrer"))
        .insert_header((header::X_FRAME_OPTIONS, "DENY"))
        .insert_header(("x-robots-tag", "noindex, nofollow"))
        .body(SHELL)
}

/// The `{handle}` of the route.
#[derive(Debug, Deserialize)]
struct Path {
    handle: String,
}

/// The body: the secret, and nothing else.
#[derive(Deserialize)]
struct Code {
    secret: String,
}

async fn redeem(
    state: web::Data<HttpState>,
    request: HttpRequest,
    path: web::Path<Path>,
    payload: web::Payload,
) -> HttpResponse {
    let answer = async {
        let caller = authenticate(&state, &request).await?;
        let body = read_body(&state, &request, payload, BODY_LIMIT).await?;
        let code = code_of(&request, &body)?;
        let handle = Handle::parse(path.handle.as_str()).map_err(|_| unknown())?;
        let id = state.app.redeem_link(&caller, handle, &code.secret).await?;
        let base = state.app.settings.tenant_base(caller.tenant());
        Ok::<_, AppError>(format!("{base}/redemptions/{id}/content"))
    };
    match answer.await {
        Ok(location) => with_correlation(&state, &request, HttpResponse::SeeOther())
            .insert_header((header::LOCATION, location))
            .insert_header((header::REFERRER_POLICY, "no-referrer"))
            .finish(),
        Err(error) => failure(&state, &request, Face::Problem, &error),
    }
}

fn unknown() -> AppError {
    AppError::new(
        Class::NotFound,
        Reason::LinkUnknown,
        crate::app::error::explain(Reason::LinkUnknown),
    )
}

fn code_of(request: &HttpRequest, body: &[u8]) -> Result<Code, AppError> {
    let kind = request
        .headers()
        .get(header::CONTENT_TYPE)
        .and_then(|v| v.to_str().ok())
        .unwrap_or_default();
    let essence = kind
        .split(';')
        .next()
        .unwrap_or_default()
        .trim()
        .to_ascii_lowercase();
    let code: Option<Code> = match essence.as_str() {
        "application/json" => serde_json::from_slice(body).ok(),
        "application/x-www-form-urlencoded" => url::form_urlencoded::parse(body)
            .find(|(name, _)| name == "secret")
            .map(|(_, value)| Code {
                secret: value.into_owned(),
            }),
        _ => {
            return Err(AppError::new(
                Class::UnsupportedMediaType,
                Reason::NotSupported,
                "send the code as a form or as JSON with the field `secret`",
            ));
        }
    };
    code.filter(|c| !c.secret.is_empty())
        .ok_or_else(|| AppError::bad("the field `secret` is missing"))
}
