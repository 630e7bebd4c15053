//! Sessions of browsers: the cookies that carry them, who comes with one, and what proves that a form was ours.
//! Cookies count on the pages for people alone; every other route takes access tokens and nothing else.

use std::sync::Arc;

use actix_web::HttpRequest;
use actix_web::cookie::time::Duration;
use actix_web::cookie::{Cookie, SameSite};
use actix_web::http::header;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use handoff_domain::document::Sha256 as Digest;
use handoff_domain::ids::{Handle, TenantId};
use handoff_domain::reason::Reason;
use handoff_domain::session::{Session, Sessions};
use handoff_domain::time::Timestamp;
use handoff_identity::{LoginSecret, SignedIn};
use ring::hmac;
use secrecy::ExposeSecret;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::HttpState;
use super::answer::split_origin;
use super::request::{admit, authenticate, context_of, sends_token, tenant_of};
use crate::app::{AppError, Caller, Class};

/// How long a login may take, in the browser's memory of it.
const LOGIN_LASTS: Duration = Duration::minutes(10);
/// The longest name of a person that is shown.
const NAME_LENGTH: usize = 100;

/// What a cookie is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Purpose<'p> {
    Session,
    /// A login that leads to a place: people open several links at once.
    Login(&'p str),
}

/// A cookie's name: tied to its host over https, where the browser keeps to what `__Host-` promises.
fn name(state: &HttpState, tenant: &TenantId, purpose: Purpose<'_>) -> String {
    let prefix = if is_secure(state) { "__Host-" } else { "" };
    let word = match purpose {
        Purpose::Session => "session".to_owned(),
        Purpose::Login(place) => {
            let mut digest = digest(place);
            digest.truncate(8);
            format!("login-{digest}")
        }
    };
    if *tenant == TenantId::default_tenant() {
        format!("{prefix}handoff-{word}")
    } else {
        format!("{prefix}handoff-{word}-{tenant}")
    }
}

/// Plain http is for loopback alone, where there is no other way.
fn is_secure(state: &HttpState) -> bool {
    state.app.settings.public_base.starts_with("https://")
}

fn cookie(state: &HttpState, tenant: &TenantId, purpose: Purpose<'_>, value: String) -> Cookie<'static> {
    Cookie::build(name(state, tenant, purpose), value)
        .path("/")
        .http_only(true)
        .secure(is_secure(state))
        // The way back from the issuer, and a link in a mail, come from other sites.
        .same_site(SameSite::Lax)
        .finish()
}

/// The one cookie of a purpose that a request carries, by its name to the letter: what browsers promise of `__Host-` they
/// promise of no other way to write it. Of several, which may have been planted, none counts.
fn sent(state: &HttpState, request: &HttpRequest, tenant: &TenantId, purpose: Purpose<'_>) -> Option<String> {
    let name = name(state, tenant, purpose);
    let mut ours = request
        .headers()
        .get_all(header::COOKIE)
        .flat_map(|line| line.as_bytes().split(|byte| *byte == b';'))
        .filter_map(|pair| {
            pair.trim_ascii_start()
                .strip_prefix(name.as_bytes())?
                .strip_prefix(b"=")
        });
    let value = ours.next()?;
    if ours.next().is_some() {
        return None;
    }
    std::str::from_utf8(value).ok().map(str::to_owned)
}

/// The cookie of a login that begins.
pub fn login_cookie(
    state: &HttpState,
    tenant: &TenantId,
    place: &str,
    secret: &LoginSecret,
) -> Cookie<'static> {
    let value = secret.to_base64url().expose_secret().to_owned();
    let mut cookie = cookie(state, tenant, Purpose::Login(place), value);
    cookie.set_max_age(LOGIN_LASTS);
    cookie
}

/// The login to a place that this browser began.
pub fn login_of(
    state: &HttpState,
    request: &HttpRequest,
    tenant: &TenantId,
    place: &str,
) -> Option<LoginSecret> {
    LoginSecret::parse(&sent(state, request, tenant, Purpose::Login(place))?)
}

/// What makes the browser forget that login.
pub fn no_login(state: &HttpState, tenant: &TenantId, place: &str) -> Cookie<'static> {
    forgotten(cookie(state, tenant, Purpose::Login(place), String::new()))
}

/// What makes the browser forget its session.
pub fn no_session(state: &HttpState, tenant: &TenantId) -> Cookie<'static> {
    forgotten(cookie(state, tenant, Purpose::Session, String::new()))
}

fn forgotten(mut cookie: Cookie<'static>) -> Cookie<'static> {
    cookie.make_removal();
    cookie
}

/// A session for somebody who has just signed in, and the cookie that carries it.
pub fn fresh(state: &HttpState, tenant: &TenantId, who: SignedIn) -> (Session, Cookie<'static>) {
    let mut secret = [0; 32];
    let mut key = [0; 32];
    state.app.entropy.fill(&mut secret);
    state.app.entropy.fill(&mut key);
    let value = URL_SAFE_NO_PAD.encode(secret);
    let now = state.app.clock.now();
    let session = Session {
        id: digest(&value),
        issuer: who.issuer,
        subject: who.subject,
        sid: who.sid,
        claims: who.claims,
        key,
        began_at: now,
        seen_at: now,
        ends_at: now.plus(state.app.settings.sessions.absolute),
    };
    (session, cookie(state, tenant, Purpose::Session, value))
}

/// The id of the session that a request names, whether there is one or not.
pub fn session_id(state: &HttpState, request: &HttpRequest, tenant: &TenantId) -> Option<String> {
    let value = sent(state, request, tenant, Purpose::Session)?;
    // What can't be one of ours is not looked for.
    let is_ours = URL_SAFE_NO_PAD
        .decode(&value)
        .is_ok_and(|bytes| bytes.len() == 32);
    is_ours.then(|| digest(&value))
}

fn digest(value: &str) -> String {
    Digest(Sha256::digest(value.as_bytes()).into()).to_hex()
}

/// The person of a session that may be used now.
pub struct Person {
    /// As every use case knows them.
    pub caller: Caller,
    session: Session,
}

impl Person {
    /// The session.
    pub const fn session(&self) -> &Session {
        &self.session
    }

    /// What to call them.
    pub fn name(&self) -> String {
        let claims: Value = serde_json::from_str(&self.session.claims).unwrap_or_default();
        let name = ["name", "preferred_username"]
            .iter()
            .find_map(|claim| claims.get(claim).and_then(Value::as_str))
            .map(str::trim)
            .filter(|name| !name.is_empty());
        name.unwrap_or(self.caller.principal.actor.as_str())
            .chars()
            .filter(|c| !c.is_control())
            .take(NAME_LENGTH)
            .collect()
    }

    /// What every form of this session carries.
    pub fn form_token(&self) -> String {
        self.mac(&["form"])
    }

    /// What stands for a link's secret once it was shown: for this session and this link alone.
    pub fn shown(&self, handle: &Handle) -> String {
        self.mac(&["shown", handle.as_str()])
    }

    /// Whether `proof` is what [`Self::shown`] gave.
    pub fn was_shown(&self, handle: &Handle, proof: &str) -> bool {
        is_mac(&self.session, &["shown", handle.as_str()], proof)
    }

    fn mac(&self, parts: &[&str]) -> String {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &self.session.key);
        URL_SAFE_NO_PAD.encode(hmac::sign(&key, parts.join("\0").as_bytes()))
    }
}

fn is_mac(session: &Session, parts: &[&str], sent: &str) -> bool {
    let key = hmac::Key::new(hmac::HMAC_SHA256, &session.key);
    URL_SAFE_NO_PAD
        .decode(sent)
        .is_ok_and(|sent| hmac::verify(&key, parts.join("\0").as_bytes(), &sent).is_ok())
}

/// Refuses a form that no page of this session can have sent.
pub fn check_form(
    state: &HttpState,
    request: &HttpRequest,
    session: &Session,
    token: &str,
) -> Result<(), AppError> {
    if is_from_here(state, request) && is_mac(session, &["form"], token) {
        return Ok(());
    }
    Err(another_session())
}

/// The refusal of a form that was made for another session.
pub fn another_session() -> AppError {
    let text = "the page was opened in another session; open the link again";
    AppError::new(Class::Forbidden, Reason::ConstraintSession, text)
}

/// Whether a browser says that a page of ours sent the request; what is no browser says nothing.
fn is_from_here(state: &HttpState, request: &HttpRequest) -> bool {
    let header = |name: &str| request.headers().get(name).and_then(|v| v.to_str().ok());
    if let Some(site) = header("sec-fetch-site") {
        return site == "same-origin";
    }
    let origin = header(header::ORIGIN.as_str());
    origin.is_none_or(|origin| origin == split_origin(&state.app.settings.public_base).0)
}

/// Who comes to a page for people.
pub enum Visitor {
    /// An app, with an access token.
    App(Caller),
    /// A person, with a session.
    Person(Box<Person>),
}

impl Visitor {
    /// As every use case knows them.
    pub fn caller(&self) -> &Caller {
        match self {
            Self::App(caller) => caller,
            Self::Person(person) => &person.caller,
        }
    }

    /// The person, where it is one.
    pub fn person(&self) -> Option<&Person> {
        match self {
            Self::App(_) => None,
            Self::Person(person) => Some(person),
        }
    }
}

/// Who comes with a request to a page for people: by its access token where it sends one, else by its session.
pub async fn visitor(state: &HttpState, request: &HttpRequest) -> Result<Visitor, AppError> {
    if sends_token(request) {
        return Ok(Visitor::App(authenticate(state, request).await?));
    }
    let tenant = tenant_of(state, request)?;
    match person(state, request, &tenant).await? {
        Some(person) => Ok(Visitor::Person(Box::new(person))),
        None if session_id(state, request, &tenant).is_some() => Err(AppError::new(
            Class::Unauthenticated,
            Reason::Unauthenticated,
            "you are no longer signed in; sign in again",
        )),
        None => Err(AppError::new(
            Class::Unauthenticated,
            Reason::Unauthenticated,
            crate::app::error::explain(Reason::Unauthenticated),
        )),
    }
}

/// The session that a request names, if it may be used now; who it is by now is not looked at.
pub async fn session_of(
    state: &HttpState,
    request: &HttpRequest,
    tenant: &TenantId,
) -> Result<Option<Session>, AppError> {
    match session_id(state, request, tenant) {
        Some(id) => state.app.session(tenant, id).await,
        None => Ok(None),
    }
}

/// The person of the session that a request names, if it may be used now. A session that is refused is over.
pub async fn person(
    state: &HttpState,
    request: &HttpRequest,
    tenant: &TenantId,
) -> Result<Option<Person>, AppError> {
    let Some(session) = session_of(state, request, tenant).await? else {
        return Ok(None);
    };
    let admitted = match caller_of(state, request, tenant, &session) {
        Ok(caller) => admit(state, caller).await,
        Err(refusal) => Err(refusal),
    };
    match admitted {
        Ok(caller) => {
            state.app.touch_session(tenant, &session).await?;
            Ok(Some(Person { caller, session }))
        }
        Err(refusal) => {
            let context = context_of(state, request, tenant.clone());
            let which = Sessions::One(session.id);
            state.app.end_sessions(&context, which, "refused").await?;
            Err(refusal)
        }
    }
}

/// The caller that a session is, by how its issuer is configured now.
pub fn caller_of(
    state: &HttpState,
    request: &HttpRequest,
    tenant: &TenantId,
    session: &Session,
) -> Result<Caller, AppError> {
    let ends_at: Timestamp = session.ends_at;
    let known = state
        .validator
        .of_session(tenant, &session.issuer, &session.claims, ends_at)
        .map_err(|error| {
            tracing::info!(detail = error.detail(), "session refused");
            AppError::new(Class::Unauthenticated, Reason::TokenInvalid, error.public())
        })?;
    Ok(Caller {
        context: context_of(state, request, tenant.clone()).with_principal(&known.principal),
        principal: Arc::clone(&known.principal),
        session: Some(session.id.clone()),
        caps: known.derived.clone(),
    })
}
