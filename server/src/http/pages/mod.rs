//! Pages for people: what a handoff link shows, signing in and out, and every refusal in words. They work without
//! script but for the one that takes a link's code out of the address.

pub mod handoff;

use actix_web::http::{StatusCode, header};
use actix_web::{HttpRequest, HttpResponse, web};
use handoff_domain::ids::{Handle, TenantId};
use handoff_domain::reason::Reason;
use maud::{DOCTYPE, Markup, html};
use url::Url;

use super::HttpState;
use super::answer::{failure_head, with_correlation};
use super::request::{correlation_of, sends_token, tenant_of};
use super::sign_in::begin_path;
use crate::app::{AppError, Class};

/// The script of a link's page, a file of its own so that the policy can forbid inline script.
const SCRIPT: &str = include_str!("page.js");
const STYLE: &str = include_str!("page.css");
/// What pages may do: their own script and style, and talk to us.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; \
                      form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

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
    cfg.service(web::resource("/signed-in").route(web::get().to(signed_in_page)));
    cfg.service(web::resource("/signed-out").route(web::get().to(signed_out_page)));
    cfg.configure(handoff::routes);
}

fn asset(content_type: &'static str, body: &'static str) -> HttpResponse {
    HttpResponse::Ok()
        .insert_header((header::CONTENT_TYPE, content_type))
        .insert_header((header::CACHE_CONTROL, "public, max-age=300"))
        .insert_header((header::X_CONTENT_TYPE_OPTIONS, "nosniff"))
        .body(body)
}

/// A page around its main part, under a heading.
pub fn frame(state: &HttpState, heading: &str, main: &Markup) -> Markup {
    let base = &state.app.settings.public_base;
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="robots" content="noindex, nofollow";
                // No heading that names a document: titles stay in the browser's history.
                title { "Document handoff" }
                // Nothing that a browser would ask for by itself.
                link rel="icon" href="data:,";
                link rel="stylesheet" href=(format!("{base}/handoff/page.css"));
                script src=(format!("{base}/handoff/page.js")) defer {}
            }
            body { main { h1 tabindex="-1" { bdi { (heading) } } (main) } }
        }
    }
}

/// A page as an answer.
pub fn answer(state: &HttpState, request: &HttpRequest, status: StatusCode, page: Markup) -> HttpResponse {
    dressed(
        with_correlation(state, request, HttpResponse::build(status)),
        page,
    )
}

fn dressed(mut response: actix_web::HttpResponseBuilder, page: Markup) -> HttpResponse {
    response
        .insert_header((header::CONTENT_TYPE, "text/html; charset=utf-8"))
        .insert_header((header::CONTENT_SECURITY_POLICY, POLICY))
        // Without any referrer browsers post forms as if from nowhere.
        .insert_header((header::REFERRER_POLICY, "same-origin"))
        .insert_header((header::X_FRAME_OPTIONS, "DENY"))
        .insert_header((header::CROSS_ORIGIN_RESOURCE_POLICY, "same-origin"))
        .insert_header(("cross-origin-opener-policy", "same-origin"))
        .insert_header(("x-robots-tag", "noindex, nofollow"))
        .body(page.into_string())
}

/// A refusal in words: what happened, what to do next, and what to tell support. `handle` is the link that the person
/// came for.
pub fn refusal(
    state: &HttpState,
    request: &HttpRequest,
    error: &AppError,
    handle: Option<&Handle>,
) -> HttpResponse {
    refusal_with(state, request, error, handle, &html! {})
}

/// The same with something to do about it.
pub fn refusal_with(
    state: &HttpState,
    request: &HttpRequest,
    error: &AppError,
    handle: Option<&Handle>,
    next: &Markup,
) -> HttpResponse {
    let correlation = correlation_of(state, request);
    let tenant = tenant_of(state, request).unwrap_or_else(|_| TenantId::default_tenant());
    let wants_sign_in = error.class == Class::Unauthenticated
        || matches!(error.reason, Reason::TokenInvalid | Reason::ConstraintSession);
    let page = frame(
        state,
        heading(error),
        &html! {
            p { (sentence(&error.text)) }
            @if let Class::RateLimited { seconds } = error.class {
                p { "Try again in " (seconds) " seconds." }
            }
            (next)
            @if wants_sign_in { (sign_in_links(state, &tenant, handle)) }
            @if let Some(handle) = handle {
                p { a href=(link_path(state, &tenant, handle)) { "Back to the link" } }
            }
            p class="reference" { "If you need help, tell support this reference: " code { (correlation.as_str()) } }
        },
    );
    dressed(failure_head(state, request, error), page)
}

/// Whether the answer is read by a person: no token came, and a page is asked for.
pub fn is_for_reading(request: &HttpRequest) -> bool {
    let accept = request
        .headers()
        .get(header::ACCEPT)
        .and_then(|v| v.to_str().ok());
    !sends_token(request) && accept.is_some_and(|accept| accept.contains("text/html"))
}

/// Where a link's page is.
pub fn link_path(state: &HttpState, tenant: &TenantId, handle: &Handle) -> String {
    format!("{}/handoff/{handle}", state.app.settings.tenant_base(tenant))
}

/// Ways to sign in; nothing where there is none.
pub fn sign_in_links(state: &HttpState, tenant: &TenantId, handle: Option<&Handle>) -> Markup {
    let choices = state.validator.sign_in_choices(tenant);
    html! {
        @for choice in &choices {
            p { a class="button" href=(begin_path(state, tenant, &choice.key, handle)) { (choice.label) } }
        }
    }
}

/// What is left to do for somebody who signed out here, and may be signed in at the issuer still.
pub fn signed_out(elsewhere: Option<&Url>) -> Markup {
    html! {
        p { "You are signed out here. Links that you were sent can be opened again after signing in." }
        @if let Some(url) = elsewhere {
            p { "You may still be signed in where you came from. On a shared computer, sign out there as well:" }
            p { a class="button" href=(url) { "Sign out there too" } }
        }
    }
}

async fn signed_out_page(state: web::Data<HttpState>, request: HttpRequest) -> HttpResponse {
    let page = frame(
        &state,
        "You are signed out",
        &html! { p { "You can close this window." } },
    );
    answer(&state, &request, StatusCode::OK, page)
}

async fn signed_in_page(state: web::Data<HttpState>, request: HttpRequest) -> HttpResponse {
    let page = frame(
        &state,
        "You are signed in",
        &html! { p { "Open the link that you were sent." } },
    );
    answer(&state, &request, StatusCode::OK, page)
}

/// A refusal's heading: what happened, in a few words.
const fn heading(error: &AppError) -> &'static str {
    if matches!(error.class, Class::Internal) {
        return "Something is wrong here";
    }
    if matches!(error.class, Class::Conflict) {
        return "There is no need of that";
    }
    match error.reason {
        Reason::Unauthenticated | Reason::ConstraintSession => "Please sign in",
        Reason::TokenInvalid => "That sign-in did not work",
        Reason::Exhausted | Reason::Replayed => "This link has been used",
        Reason::Expired => "This link has expired",
        Reason::Reissued => "There is a newer link",
        Reason::NotGrantee => "This link is for somebody else",
        Reason::Reassigned => "The task is somebody else’s now",
        Reason::TaskCompleted
        | Reason::TaskCancelled
        | Reason::TaskRejected
        | Reason::TaskFailed
        | Reason::TaskDeleted
        | Reason::TaskEnteredInError => "The task has ended",
        Reason::TaskOnHold | Reason::TaskNotActionable => "The task is paused",
        Reason::LinkUnknown | Reason::NotFound => "There is nothing here",
        Reason::RateLimited => "Too many tries",
        Reason::StorageUnavailable | Reason::AuditUnavailable => "Please try again in a moment",
        Reason::Invalid | Reason::NotSupported | Reason::TooLarge => "That was not understood",
        _ => "The document can’t be given to you",
    }
}

/// Words of ours as a sentence.
fn sentence(text: &str) -> String {
    let mut letters = text.chars();
    let first = letters.next().map(char::to_uppercase);
    let whole: String = first.into_iter().flatten().chain(letters).collect();
    if whole.ends_with(['.', '!', '?']) {
        whole
    } else {
        format!("{whole}.")
    }
}
