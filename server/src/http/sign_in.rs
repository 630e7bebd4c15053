//! People sign in at an issuer and come back, sign out, or are signed out by it. Keeps nothing of a visitor who has not
//! signed in: a login is held together by a cookie.

use std::collections::HashMap;

use actix_web::http::StatusCode;
use actix_web::http::header;
use actix_web::{HttpRequest, HttpResponse, web};
use handoff_domain::ids::{Handle, TenantId};
use handoff_domain::reason::Reason;
use handoff_domain::session::{Session, Sessions};
use handoff_identity::{Callback, LoginSecret, SignInError};
use url::{Url, form_urlencoded};

use super::HttpState;
use super::access_grants::not_allowed;
use super::answer::{Face, failure, with_correlation};
use super::body::read_body;
use super::pages::{self, frame, refusal};
use super::request::{admit, context_of, look_at, record_refusal, refuse_token, remember, tenant_of};
use super::session::{
    caller_of, check_form, fresh, login_cookie, login_of, no_login, no_session, session_id, session_of,
};
use crate::app::{AppError, Class};

/// The longest form. A logout token is a JWT.
const FORM_LIMIT: usize = 32 * 1024;

/// The routes.
pub fn routes(cfg: &mut web::ServiceConfig) {
    cfg.service(
        web::resource("/sign-in")
            .route(web::get().to(begin))
            .default_service(web::to(not_allowed)),
    );
    cfg.service(
        web::resource("/sign-in/callback")
            .route(web::get().to(come_back))
            .default_service(web::to(not_allowed)),
    );
    cfg.service(
        web::resource("/sign-out")
            .route(web::post().to(leave))
            .default_service(web::to(not_allowed)),
    );
    cfg.service(
        web::resource("/sign-out/back-channel")
            .route(web::post().to(signed_out_by_issuer))
            .default_service(web::to(not_allowed)),
    );
}

/// Parameters of a query or a form; one that comes twice is none.
pub fn parameters(encoded: &[u8]) -> HashMap<String, String> {
    let mut found: HashMap<String, String> = HashMap::new();
    let mut twice = Vec::new();
    for (name, value) in form_urlencoded::parse(encoded) {
        if found.insert(name.to_string(), value.into_owned()).is_some() {
            twice.push(name.into_owned());
        }
    }
    for name in twice {
        found.remove(&name);
    }
    found
}

/// Where the issuer sends the browser back to.
fn callback_url(state: &HttpState, tenant: &TenantId) -> Result<Url, AppError> {
    let base = state.app.settings.tenant_base(tenant);
    Url::parse(&format!("{base}/sign-in/callback")).map_err(|error| {
        AppError::new(
            Class::Internal,
            Reason::StorageUnavailable,
            "an internal error; tell support the reference",
        )
        .because(error.to_string())
    })
}

/// Where a link's page begins a sign-in at the issuer called `key`.
pub fn begin_path(state: &HttpState, tenant: &TenantId, key: &str, to: Option<&Handle>) -> String {
    let base = state.app.settings.tenant_base(tenant);
    let to = to.map_or_else(String::new, |handle| format!("&to={handle}"));
    format!("{base}/sign-in?at={key}{to}")
}

async fn begin(state: web::Data<HttpState>, request: HttpRequest) -> HttpResponse {
    let answer = async {
        let tenant = tenant_of(&state, &request)?;
        let asked = parameters(request.query_string().as_bytes());
        let place = match asked.get("to") {
            Some(handle) => Handle::parse(handle.as_str())
                .ok()
                .filter(|handle| !handle.as_str().contains('.'))
                .ok_or_else(AppError::not_found)?
                .to_string(),
            None => String::new(),
        };
        let secret = LoginSecret::fresh(state.app.entropy.as_ref());
        let back = callback_url(&state, &tenant)?;
        let key = asked.get("at").map(String::as_str).unwrap_or_default();
        let url = state
            .validator
            .authorization_url(&tenant, key, &secret, &back, &place)
            .await
            .map_err(|error| told(&error))?;
        Ok::<_, AppError>((url, login_cookie(&state, &tenant, &place, &secret)))
    };
    match answer.await {
        Ok((url, cookie)) => with_correlation(&state, &request, HttpResponse::SeeOther())
            .insert_header((header::LOCATION, url.as_str()))
            .insert_header((header::REFERRER_POLICY, "no-referrer"))
            .cookie(cookie)
            .finish(),
        Err(error) => refusal(&state, &request, &error, None),
    }
}

async fn come_back(state: web::Data<HttpState>, request: HttpRequest) -> HttpResponse {
    let tenant = match tenant_of(&state, &request) {
        Ok(tenant) => tenant,
        Err(error) => return refusal(&state, &request, &error, None),
    };
    let said = parameters(request.query_string().as_bytes());
    // Whatever is wrong with it, the way back to where the person was.
    let place = said.get("state").and_then(|state| state.split('.').next());
    let place = place.unwrap_or_default();
    let handle = Handle::parse(place).ok();
    let Some(secret) = login_of(&state, &request, &tenant, place) else {
        let nothing = SignInError::NotBegunHere("there is no such login".to_owned());
        return refusal(&state, &request, &told(&nothing), handle.as_ref());
    };
    let mut response = match signed_in(&state, &request, &tenant, &secret, &said).await {
        Ok((to, cookie)) => with_correlation(&state, &request, HttpResponse::SeeOther())
            .insert_header((header::LOCATION, to))
            .insert_header((header::REFERRER_POLICY, "no-referrer"))
            .cookie(cookie)
            .finish(),
        Err(error) => refusal(&state, &request, &error, handle.as_ref()),
    };
    // A login ends with its first answer, whatever that was.
    if let Err(error) = response.add_cookie(&no_login(&state, &tenant, place)) {
        tracing::error!(%error, "a cookie could not be taken back");
    }
    response
}

/// The place that the person goes on to, and the cookie of the session that begins.
async fn signed_in(
    state: &HttpState,
    request: &HttpRequest,
    tenant: &TenantId,
    secret: &LoginSecret,
    said: &HashMap<String, String>,
) -> Result<(String, actix_web::cookie::Cookie<'static>), AppError> {
    let refused = async |error: &SignInError| {
        tracing::info!(detail = error.detail(), "sign-in refused");
        let context = context_of(state, request, tenant.clone());
        record_refusal(state, &context, told(error)).await
    };
    let text = |name: &str| said.get(name).map(String::as_str);
    let callback = Callback {
        code: text("code"),
        state: text("state"),
        iss: text("iss"),
        error: text("error"),
    };
    let back = callback_url(state, tenant)?;
    let context = context_of(state, request, tenant.clone());
    let trial = match look_at(state, &context, None) {
        Ok(trial) => trial,
        Err(too_many) => return Err(record_refusal(state, &context, too_many).await),
    };
    let who = match state.validator.finish(tenant, secret, &back, callback).await {
        Ok(who) => who,
        Err(error) => {
            if matches!(error, SignInError::Unavailable(_)) {
                trial.forgive();
            }
            return Err(refused(&error).await);
        }
    };
    trial.forgive();
    let base = state.app.settings.tenant_base(tenant);
    let to = match who.place.as_str() {
        "" => format!("{base}/signed-in"),
        handle => format!("{base}/handoff/{handle}"),
    };
    let (session, cookie) = fresh(state, tenant, who);
    let caller = admit(state, caller_of(state, request, tenant, &session)?).await?;
    let before = session_id(state, request, tenant);
    state.app.begin_session(&caller.context, session, before).await?;
    // Now they are fresh; a session's later uses say nothing newer of its person.
    remember(state, &caller).await?;
    Ok((to, cookie))
}

/// A failed sign-in, as people are told of it.
fn told(error: &SignInError) -> AppError {
    let class = match error {
        SignInError::NotOffered => Class::NotFound,
        SignInError::Place | SignInError::NotBegunHere(_) | SignInError::Expired(_) => Class::Invalid,
        SignInError::Denied | SignInError::Invalid(_) | SignInError::NobodyHere(_) => Class::Forbidden,
        SignInError::Unavailable(_) => Class::Unavailable,
        SignInError::Refused(_) => Class::Internal,
    };
    let reason = match error {
        SignInError::NotOffered => Reason::NotFound,
        SignInError::Place => Reason::Invalid,
        SignInError::Refused(_) | SignInError::Unavailable(_) => Reason::StorageUnavailable,
        SignInError::NobodyHere(_)
        | SignInError::NotBegunHere(_)
        | SignInError::Expired(_)
        | SignInError::Denied
        | SignInError::Invalid(_) => Reason::TokenInvalid,
    };
    AppError::new(class, reason, error.public())
}

async fn leave(state: web::Data<HttpState>, request: HttpRequest, payload: web::Payload) -> HttpResponse {
    let answer = async {
        let tenant = tenant_of(&state, &request)?;
        let body = read_body(&state, &request, payload, FORM_LIMIT).await?;
        let form = parameters(&body);
        // Whoever it is by now, blocked or gone: they may leave.
        let elsewhere = match session_of(&state, &request, &tenant).await? {
            Some(session) => {
                let token = form.get("form").map(String::as_str).unwrap_or_default();
                check_form(&state, &request, &session, token)?;
                end(&state, &request, &tenant, &session).await?
            }
            // Signed out already.
            None => None,
        };
        Ok::<_, AppError>((tenant, elsewhere))
    };
    match answer.await {
        Ok((tenant, elsewhere)) => {
            let page = frame(
                &state,
                "You are signed out",
                &pages::signed_out(elsewhere.as_ref()),
            );
            let mut response = pages::answer(&state, &request, StatusCode::OK, page);
            if let Err(error) = response.add_cookie(&no_session(&state, &tenant)) {
                tracing::error!(%error, "a cookie could not be taken back");
            }
            response
        }
        Err(error) => refusal(&state, &request, &error, None),
    }
}

/// Ends a session here; answers where the issuer's own is ended.
async fn end(
    state: &HttpState,
    request: &HttpRequest,
    tenant: &TenantId,
    session: &Session,
) -> Result<Option<Url>, AppError> {
    let context = match caller_of(state, request, tenant, session) {
        Ok(caller) => caller.context,
        Err(_) => context_of(state, request, tenant.clone()),
    };
    let which = Sessions::One(session.id.clone());
    state.app.end_sessions(&context, which, "signed-out").await?;
    let base = state.app.settings.tenant_base(tenant);
    let Ok(after) = Url::parse(&format!("{base}/signed-out")) else {
        return Ok(None);
    };
    Ok(state
        .validator
        .end_session_url(tenant, &session.issuer, &after)
        .await)
}

/// OpenID Connect Back-Channel Logout 1.0.
async fn signed_out_by_issuer(
    state: web::Data<HttpState>,
    request: HttpRequest,
    payload: web::Payload,
) -> HttpResponse {
    let answer = async {
        let tenant = tenant_of(&state, &request)?;
        let body = read_body(&state, &request, payload, FORM_LIMIT).await?;
        let form = parameters(&body);
        let token = form
            .get("logout_token")
            .ok_or_else(|| AppError::rule("logout_token", "send the logout token in this field"))?;
        let context = context_of(&state, &request, tenant.clone());
        let trial = match look_at(&state, &context, None) {
            Ok(trial) => trial,
            Err(too_many) => return Err(record_refusal(&state, &context, too_many).await),
        };
        let logout = match state.validator.logout_token(&tenant, token).await {
            Ok(logout) => {
                trial.forgive();
                logout
            }
            Err(error) => {
                let refusal = refuse_token(&state, &context, &error, false).await;
                // It is the request that is bad: nobody has to show credentials here.
                let class = match refusal.class {
                    Class::Unauthenticated => Class::Invalid,
                    other => other,
                };
                return Err(AppError { class, ..refusal });
            }
        };
        let which = Sessions::Of {
            issuer: logout.issuer,
            subject: logout.subject,
            sid: logout.sid,
        };
        state
            .app
            .end_sessions(&context, which, "signed-out-by-issuer")
            .await
    };
    match answer.await {
        Ok(_) => with_correlation(&state, &request, HttpResponse::Ok()).finish(),
        Err(error) => failure(&state, &request, Face::Problem, &error),
    }
}
