//! The page behind a handoff link. GET tells everybody the same and takes nothing; the secret stays in the fragment,
//! which no server sees, until the person who signed in opens the link with a form of this page.

use std::collections::HashMap;

use actix_web::http::StatusCode;
use actix_web::http::header;
use actix_web::{HttpRequest, HttpResponse, web};
use handoff_domain::audit::Event;
use handoff_domain::ids::{Handle, TenantId};
use handoff_domain::reason::Reason;
use handoff_domain::time::Timestamp;
use maud::{Markup, html};
use serde::Deserialize;

use super::{answer, frame, is_for_reading, link_path, refusal, refusal_with, sign_in_links};
use crate::app::fresh_link::AskedForLink;
use crate::app::links::{LinkKey, LinkView};
use crate::app::{AppError, Caller, Class};
use crate::http::HttpState;
use crate::http::access_grants::not_allowed;
use crate::http::answer::{Face, failure, json_answer, with_correlation};
use crate::http::attempts::Opening;
use crate::http::body::read_body;
use crate::http::request::{has_token, record_refusal, record_refused, tenant_of, token_in_form};
use crate::http::session::{Person, Visitor, another_session, check_form, person, visitor};
use crate::http::sign_in::parameters;

/// The longest body of a form.
const BODY_LIMIT: usize = 4 * 1024;

/// The routes.
pub fn routes(cfg: &mut web::ServiceConfig) {
    cfg.service(
        web::resource("/handoff/{handle}")
            .route(web::get().to(shell))
            .route(web::head().to(shell))
            .route(web::post().to(redeem))
            .default_service(web::to(not_allowed)),
    );
    cfg.service(
        web::resource("/handoff/{handle}/document")
            .route(web::post().to(show))
            .default_service(web::to(not_allowed)),
    );
    cfg.service(
        web::resource("/handoff/{handle}/fresh-link")
            .route(web::post().to(ask))
            .default_service(web::to(not_allowed)),
    );
}

/// The `{handle}` of the route.
#[derive(Debug, Deserialize)]
struct Path {
    handle: String,
}

/// What may be a handle. Dots alone are a way up to browsers.
fn handle_of(path: &Path) -> Result<Handle, AppError> {
    match Handle::parse(path.handle.as_str()) {
        Ok(handle) if path.handle.bytes().any(|byte| byte != b'.') => Ok(handle),
        _ => Err(unknown()),
    }
}

/// The same for every handle, known or not: whether the visitor is signed in is all that it looks at.
async fn shell(state: web::Data<HttpState>, request: HttpRequest, path: web::Path<Path>) -> HttpResponse {
    let answered = async {
        let tenant = tenant_of(&state, &request)?;
        // What is no handle leads nowhere, which it says no earlier than any other.
        let handle = handle_of(&path).ok();
        // Who can't be told to be somebody is nobody in particular: the page is there for everybody.
        let here = person(&state, &request, &tenant).await.unwrap_or_default();
        Ok::<_, AppError>(match (&here, &handle) {
            (Some(person), Some(handle)) => {
                let main = html! {
                    (who(&state, person))
                    (code_form(&state, person, handle))
                };
                frame(&state, "Open the document", &main)
            }
            _ => frame(
                &state,
                "A document may be waiting for you",
                &introduction(&state, &tenant, handle.as_ref()),
            ),
        })
    };
    match answered.await {
        Ok(page) => answer(&state, &request, StatusCode::OK, page),
        Err(error) => refusal(&state, &request, &error, None),
    }
}

fn introduction(state: &HttpState, tenant: &TenantId, handle: Option<&Handle>) -> Markup {
    let links = sign_in_links(state, tenant, handle);
    let can_sign_in = !state.validator.sign_in_choices(tenant).is_empty();
    html! {
        p {
            "This link opens one document for one person, and only while the task that it belongs to is open. "
            "Opening this page has not used it up."
        }
        @if can_sign_in {
            p { "Sign in as the person it was sent to." }
            (links)
            noscript {
                p {
                    "Your browser runs no scripts here: keep what follows the " code { "#" } " in the link. It is your "
                    "code, which you are asked for once you have signed in."
                }
            }
        } @else {
            p {
                "People can’t sign in here: the link is for an application that holds your access token. "
                "Open it with that application, or ask the sender."
            }
        }
    }
}

/// Who is signed in, and the way out.
fn who(state: &HttpState, person: &Person) -> Markup {
    let base = state.app.settings.tenant_base(person.caller.tenant());
    html! {
        div class="who" {
            "Signed in as " strong { bdi { (person.name()) } } ". "
            form method="post" action=(format!("{base}/sign-out")) {
                input type="hidden" name="form" value=(person.form_token());
                button class="quiet" type="submit" { "Sign out" }
            }
        }
    }
}

fn code_form(state: &HttpState, person: &Person, handle: &Handle) -> Markup {
    let action = format!("{}/document", link_path(state, person.caller.tenant(), handle));
    html! {
        form id="open" method="post" action=(action) autocomplete="off" {
            input type="hidden" name="form" value=(person.form_token());
            label for="secret" { "Your code" }
            p id="hint" { "It is what follows the " code { "#" } " in the link that you were sent." }
            input id="secret" name="secret" type="text" required spellcheck="false" autocapitalize="off"
                autocomplete="off" aria-describedby="hint";
            button type="submit" { "Open" }
        }
    }
}

/// What a form or a body says.
struct Said {
    fields: HashMap<String, String>,
}

impl Said {
    fn field(&self, name: &str) -> &str {
        self.fields.get(name).map(String::as_str).unwrap_or_default()
    }

    /// What shows that the visitor holds the link: its code, or that it was shown before.
    fn key(&self, visitor: &Visitor, handle: &Handle) -> Result<LinkKey, AppError> {
        let secret = self.field("secret");
        if !secret.is_empty() {
            return Ok(LinkKey::of(secret));
        }
        match visitor.person() {
            Some(person) if person.was_shown(handle, self.field("shown")) => Ok(LinkKey::Shown),
            Some(_) if self.fields.contains_key("shown") => Err(another_session()),
            _ => Err(AppError::bad("the field `secret` is missing")),
        }
    }
}

/// Who sends what: a person only with a form of ours.
async fn read(
    state: &HttpState,
    request: &HttpRequest,
    payload: web::Payload,
) -> Result<(Visitor, Said), AppError> {
    let visitor = visitor(state, request).await?;
    let body = read_body(state, request, payload, BODY_LIMIT).await?;
    let fields = fields_of(request, &body)?;
    if let Some(person) = visitor.person() {
        let token = fields.get("form").map(String::as_str).unwrap_or_default();
        if let Err(refusal) = check_form(state, request, person.session(), token) {
            return Err(record_refusal(state, &person.caller.context, refusal).await);
        }
    }
    Ok((visitor, Said { fields }))
}

/// Does something with a link by what shows that the visitor holds it, unless too many attempts failed. Whether the link
/// exists is not asked before.
async fn attempt<T>(
    state: &HttpState,
    path: &Path,
    visitor: &Visitor,
    said: &Said,
    act: impl AsyncFnOnce(&Caller, Handle, LinkKey) -> Result<T, AppError>,
) -> Result<T, AppError> {
    let caller = visitor.caller();
    let context = &caller.context;
    let trial = match state
        .attempts
        .link(Opening::new(caller, &path.handle), context.now)
    {
        Ok(trial) => trial,
        Err(too_many) => {
            return Err(record_refused(state, context, too_many, Event::RedemptionDenied).await);
        }
    };
    let handle = handle_of(path)?;
    let key = said.key(visitor, &handle)?;
    let done = act(caller, handle, key).await;
    if done.as_ref().err().is_none_or(|error| !error.is_refusal()) {
        trial.forgive();
    }
    done
}

fn fields_of(request: &HttpRequest, body: &[u8]) -> Result<HashMap<String, String>, AppError> {
    let kind = request
        .headers()
        .get(header::CONTENT_TYPE)
        .and_then(|v| v.to_str().ok())
        .unwrap_or_default();
    let essence = kind.split(';').next().unwrap_or_default().trim();
    match essence.to_ascii_lowercase().as_str() {
        "application/json" => serde_json::from_slice(body)
            .map_err(|_| AppError::bad("the body is not a JSON object of texts with the field `secret`")),
        "application/x-www-form-urlencoded" if has_token(body) => Err(token_in_form()),
        "application/x-www-form-urlencoded" => Ok(parameters(body)),
        _ => Err(AppError::new(
            Class::UnsupportedMediaType,
            Reason::NotSupported,
            "send the code as a form or as JSON with the field `secret`",
        )),
    }
}

fn unknown() -> AppError {
    AppError::new(
        Class::NotFound,
        Reason::LinkUnknown,
        crate::app::error::explain(Reason::LinkUnknown),
    )
}

/// Reads what was sent, does something with the link by it, and answers what came of that.
async fn with_link<T>(
    state: &HttpState,
    request: &HttpRequest,
    path: &Path,
    payload: web::Payload,
    act: impl AsyncFnOnce(&Caller, Handle, LinkKey) -> Result<T, AppError>,
    told: impl FnOnce(&Visitor, T) -> HttpResponse,
) -> HttpResponse {
    let (visitor, said) = match read(state, request, payload).await {
        Ok(read) => read,
        Err(error) => return refused(state, request, path, None, &error).await,
    };
    match attempt(state, path, &visitor, &said, act).await {
        Ok(done) => told(&visitor, done),
        Err(error) => refused(state, request, path, Some((&visitor, &said)), &error).await,
    }
}

/// A refusal in the form that the visitor reads. A person who could do with another link, and may have one, may ask.
async fn refused(
    state: &HttpState,
    request: &HttpRequest,
    path: &Path,
    sent: Option<(&Visitor, &Said)>,
    error: &AppError,
) -> HttpResponse {
    if !is_for_reading(request) {
        return failure(state, request, Face::Problem, error);
    }
    let Ok(handle) = handle_of(path) else {
        return refusal(state, request, error, None);
    };
    if let Some((visitor, said)) = sent
        && let Some(person) = visitor.person()
        && is_about_the_link(error)
        && let Ok(key) = said.key(visitor, &handle)
        && let Ok(true) = state
            .app
            .may_ask_for_link(visitor.caller(), handle.clone(), key)
            .await
    {
        let next = html! {
            (ask_form(state, person, &handle))
            (who(state, person))
        };
        return refusal_with(state, request, error, None, &next);
    }
    // Whoever came as somebody else can leave from here; the link's own page would try the code again.
    match sent.and_then(|(visitor, _)| visitor.person()) {
        Some(person) => refusal_with(state, request, error, None, &who(state, person)),
        None => refusal(state, request, error, Some(&handle)),
    }
}

/// Whether a refusal says that the link, which the visitor holds, does not open now.
fn is_about_the_link(error: &AppError) -> bool {
    error.class == Class::Forbidden
        && !matches!(
            error.reason,
            Reason::NotGrantee | Reason::ConstraintSession | Reason::PolicyDenied
        )
}

fn ask_form(state: &HttpState, person: &Person, handle: &Handle) -> Markup {
    let action = format!("{}/fresh-link", link_path(state, person.caller.tenant(), handle));
    html! {
        form method="post" action=(action) {
            input type="hidden" name="form" value=(person.form_token());
            input type="hidden" name="shown" value=(person.shown(handle));
            button type="submit" { "Ask for a fresh link" }
        }
        p { "Whoever sent you the document sees that you asked." }
    }
}

async fn show(
    state: web::Data<HttpState>,
    request: HttpRequest,
    path: web::Path<Path>,
    payload: web::Payload,
) -> HttpResponse {
    let look = async |caller: &Caller, handle: Handle, key| {
        let view = state.app.look_at_link(caller, handle.clone(), key).await?;
        Ok((handle, view))
    };
    let told = |visitor: &Visitor, (handle, view): (Handle, LinkView)| match visitor.person() {
        Some(person) => {
            let page = document_page(&state, person, &handle, &view);
            answer(&state, &request, StatusCode::OK, page)
        }
        None => json_answer(&state, &request, StatusCode::OK, &view_json(&view)),
    };
    with_link(&state, &request, &path, payload, look, told).await
}

fn view_json(view: &LinkView) -> serde_json::Value {
    serde_json::json!({
        "title": view.title,
        "type": view.kind,
        "contentType": view.content_type,
        "size": view.size,
        "requester": view.requester,
        "usesLeft": view.uses_left,
        "expiresAt": view.until.map(Timestamp::to_instant),
    })
}

fn document_page(state: &HttpState, person: &Person, handle: &Handle, view: &LinkView) -> Markup {
    let action = link_path(state, person.caller.tenant(), handle);
    let title = view.title.as_deref().unwrap_or("A document");
    let main = html! {
        (who(state, person))
        dl {
            @if let Some(kind) = &view.kind { dt { "What it is" } dd { bdi { (kind) } } }
            @if let Some(requester) = &view.requester { dt { "Who asks" } dd { bdi { (requester) } } }
            @if let Some(until) = view.until {
                dt { "Until when" }
                dd { time datetime=(until.to_instant()) { (readable(until)) } }
            }
            dt { "File" }
            dd { (file_kind(&view.content_type)) ", " (readable_size(view.size)) }
        }
        form method="post" action=(action) {
            input type="hidden" name="form" value=(person.form_token());
            input type="hidden" name="shown" value=(person.shown(handle));
            button type="submit" { "Download" }
        }
        p { (uses(view.uses_left)) " Each download is recorded." }
    };
    frame(state, title, &main)
}

fn uses(left: u32) -> String {
    match left {
        // One that broke off goes on.
        0 => "The download that you began can be finished.".to_owned(),
        1 => "The link opens the document once.".to_owned(),
        more => format!("The link opens the document {more} more times."),
    }
}

fn readable(at: Timestamp) -> String {
    let instant = at.to_instant();
    // To the minute; a script that may run says it in the reader's own zone.
    let minute = instant.get(..16).unwrap_or_default().replace('T', ", ");
    format!("{minute} UTC")
}

fn file_kind(content_type: &str) -> &str {
    let essence = content_type.split(';').next().unwrap_or_default().trim();
    match essence {
        "application/pdf" => "PDF",
        "text/plain" => "text",
        "image/jpeg" | "image/png" => "picture",
        "application/dicom" => "DICOM image",
        other => other,
    }
}

#[expect(clippy::cast_precision_loss, reason = "it is rounded for reading")]
fn readable_size(bytes: u64) -> String {
    const UNITS: [(&str, u64); 3] = [("GB", 1_000_000_000), ("MB", 1_000_000), ("kB", 1000)];
    for (unit, of) in UNITS {
        if bytes >= of {
            return format!("{:.1} {unit}", bytes as f64 / of as f64);
        }
    }
    format!("{bytes} bytes")
}

async fn redeem(
    state: web::Data<HttpState>,
    request: HttpRequest,
    path: web::Path<Path>,
    payload: web::Payload,
) -> HttpResponse {
    let redeem = async |caller: &Caller, handle, key| {
        let id = state.app.redeem_link(caller, handle, key).await?;
        let base = state.app.settings.tenant_base(caller.tenant());
        Ok(format!("{base}/redemptions/{id}/content"))
    };
    let told = |_: &Visitor, location: String| {
        with_correlation(&state, &request, HttpResponse::SeeOther())
            .insert_header((header::LOCATION, location))
            .insert_header((header::REFERRER_POLICY, "no-referrer"))
            .finish()
    };
    with_link(&state, &request, &path, payload, redeem, told).await
}

async fn ask(
    state: web::Data<HttpState>,
    request: HttpRequest,
    path: web::Path<Path>,
    payload: web::Payload,
) -> HttpResponse {
    let ask = async |caller: &Caller, handle, key| state.app.ask_for_link(caller, handle, key).await;
    let told = |visitor: &Visitor, asked| asked_answer(&state, &request, visitor, &asked);
    with_link(&state, &request, &path, payload, ask, told).await
}

fn asked_answer(
    state: &HttpState,
    request: &HttpRequest,
    visitor: &Visitor,
    asked: &AskedForLink,
) -> HttpResponse {
    let Some(person) = visitor.person() else {
        let body = serde_json::json!({"task": format!("Task/{}", asked.task), "open": asked.open});
        return json_answer(state, request, StatusCode::OK, &body);
    };
    let sender = asked.of.as_deref().unwrap_or("the sender");
    let main = html! {
        (who(state, person))
        @if asked.open {
            p { "Your request has reached " bdi { (sender) } ", who decides about it. This link stays closed." }
        } @else {
            p {
                "You had asked before, and " bdi { (sender) } " has dealt with that request: look for a newer link, or get in "
                "touch with them."
            }
        }
        p class="reference" { "Your request is " code { "Task/" (asked.task.as_str()) } "." }
    };
    let page = frame(state, "You have asked for a fresh link", &main);
    answer(state, request, StatusCode::OK, page)
}
