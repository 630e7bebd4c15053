//! Who is calling and under which circumstances: tenant, correlation id, source address, validated token.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use actix_web::http::header::{self, HeaderMap};
use actix_web::{HttpMessage, HttpRequest};
use handoff_domain::ActorRef;
use handoff_domain::audit::{Agent, Context, Event, Outcome};
use handoff_domain::ids::{CorrelationId, TenantId};
use handoff_domain::ports;
use handoff_domain::reason::Reason;
use handoff_domain::time::{Span, Timestamp};
use handoff_identity::{Presented, Proof, TokenError};

use super::HttpState;
use super::attempts::{Source, Trial};
use super::traced::caller_of;
use crate::app::error::Challenge;
use crate::app::{AppError, Caller, Class};

/// How long the record of an actor's teams is taken to be fresh.
const SEEN_AGE: Span = Span::hours(1);
/// How many actors are remembered as seen; beyond that all are forgotten.
const SEEN_LIMIT: usize = 50_000;
/// The longest `User-Agent` that is recorded.
const USER_AGENT_LENGTH: usize = 200;

/// The correlation id of a request, put there before anything else happens.
#[derive(Debug, Clone)]
pub struct Correlation(pub CorrelationId);

/// Which actors' teams were written down lately, and when.
#[derive(Debug, Default)]
pub struct Seen(Mutex<HashMap<(TenantId, ActorRef), Noted>>);

type Noted = (Timestamp, Vec<String>);

impl Seen {
    fn is_fresh(&self, tenant: &TenantId, actor: &ActorRef, teams: &[String], now: Timestamp) -> bool {
        let seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        seen.get(&(tenant.clone(), actor.clone()))
            .is_some_and(|(at, known)| now.since(*at) < SEEN_AGE && known == teams)
    }

    fn note(&self, tenant: &TenantId, actor: &ActorRef, teams: Vec<String>, now: Timestamp) {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.len() >= SEEN_LIMIT {
            seen.clear();
        }
        seen.insert((tenant.clone(), actor.clone()), (now, teams));
    }
}

/// The tenant that the path names; unknown ones do not exist.
pub fn tenant_of(state: &HttpState, request: &HttpRequest) -> Result<TenantId, AppError> {
    let tenant = match request.match_info().get("tenant") {
        Some(name) => TenantId::parse(name).map_err(|_| AppError::not_found())?,
        None => TenantId::default_tenant(),
    };
    if state.tenants.contains(&tenant) {
        Ok(tenant)
    } else {
        Err(AppError::not_found())
    }
}

/// The correlation id: the caller's where it sent a usable one, else fresh. `X-Correlation-Id` comes before the
/// trace id of `traceparent` and `X-Request-Id`.
pub fn correlation_of(state: &HttpState, request: &HttpRequest) -> CorrelationId {
    if let Some(Correlation(known)) = request.extensions().get::<Correlation>() {
        return known.clone();
    }
    let headers = request.headers();
    let sent = |name: &str| headers.get(name).and_then(|v| v.to_str().ok());
    let trace = caller_of(headers).map(|caller| format!("{:032x}", caller.trace()));
    let id = [sent("x-correlation-id"), trace.as_deref(), sent("x-request-id")]
        .into_iter()
        .flatten()
        .find_map(|text| CorrelationId::parse(text).ok())
        .or_else(|| CorrelationId::parse(state.app.entropy.ordered_id(state.app.clock.now())).ok());
    // A fresh id always parses; this only avoids a panic in the types.
    let id = id.unwrap_or_else(fallback_id);
    request.extensions_mut().insert(Correlation(id.clone()));
    id
}

#[expect(clippy::expect_used, reason = "a literal that is an id")]
fn fallback_id() -> CorrelationId {
    CorrelationId::parse("unknown").expect("`unknown` is an id")
}

/// The circumstances of a request by a caller not yet known.
pub fn context_of(state: &HttpState, request: &HttpRequest, tenant: TenantId) -> Context {
    let user_agent = request
        .headers()
        .get(header::USER_AGENT)
        .and_then(|v| v.to_str().ok())
        .map(|text| text.chars().take(USER_AGENT_LENGTH).collect());
    Context {
        tenant,
        correlation: correlation_of(state, request),
        now: state.app.clock.now(),
        agent: Arc::new(Agent {
            address: address_of(state, request).map(|a| a.to_string()),
            user_agent,
            ..Agent::default()
        }),
    }
}

/// The source address: the peer's, or what a trusted proxy says.
pub fn address_of(state: &HttpState, request: &HttpRequest) -> Option<IpAddr> {
    let peer = request.peer_addr()?.ip().to_canonical();
    let trusted = |a: IpAddr| state.trusted_proxies.iter().any(|range| range.contains(a));
    if !trusted(peer) {
        return Some(peer);
    }
    // Read from the end, where our own proxies wrote: the first address that is none of theirs is the client's.
    let lines: Vec<&[u8]> = request
        .headers()
        .get_all("x-forwarded-for")
        .map(header::HeaderValue::as_bytes)
        .collect();
    let mut client = peer;
    for part in lines
        .iter()
        .rev()
        .flat_map(|line| line.rsplit(|byte| *byte == b','))
    {
        match std::str::from_utf8(part).ok().and_then(forwarded_address) {
            Some(address) if trusted(address) => client = address,
            // What can't be read is nobody's address, and least of all that of the proxy which passed it on.
            unknown_or_client => return unknown_or_client,
        }
    }
    Some(client)
}

/// An address as proxies write it: alone, or with a port.
fn forwarded_address(text: &str) -> Option<IpAddr> {
    let text = text.trim();
    let inner = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let bare = inner.unwrap_or(text).parse::<IpAddr>().ok();
    let with_port = || text.parse::<std::net::SocketAddr>().ok().map(|a| a.ip());
    bare.or_else(with_port).map(|a| a.to_canonical())
}

/// The caller with a valid access token for the tenant, whom no operator has blocked; or the refusal, recorded where a
/// token was sent.
pub async fn authenticate(state: &HttpState, request: &HttpRequest) -> Result<Caller, AppError> {
    let caller = authenticate_blocked_too(state, request).await?;
    admit(state, caller).await
}

/// The same with the time until which the token is good.
pub async fn authenticate_until(
    state: &HttpState,
    request: &HttpRequest,
) -> Result<(Caller, Timestamp), AppError> {
    let (caller, expires_at) = validated(state, request).await?;
    Ok((admit(state, caller).await?, expires_at))
}

/// Refuses a caller whom an operator has blocked, by whatever it came with.
pub async fn admit(state: &HttpState, caller: Caller) -> Result<Caller, AppError> {
    let Some(reason) = state
        .app
        .standing
        .of(caller.tenant())
        .on_caller(&caller.principal)
    else {
        return Ok(caller);
    };
    let refusal = AppError::forbidden(reason);
    Err(record_refusal(state, &caller.context, refusal).await)
}

/// The same where blocked callers are let in: operators lift blocks, also such as are on themselves.
pub async fn authenticate_blocked_too(state: &HttpState, request: &HttpRequest) -> Result<Caller, AppError> {
    validated(state, request).await.map(|(caller, _)| caller)
}

async fn validated(state: &HttpState, request: &HttpRequest) -> Result<(Caller, Timestamp), AppError> {
    let tenant = tenant_of(state, request)?;
    let context = context_of(state, request, tenant.clone());
    let sent = match sent_token(request) {
        Ok(sent) => sent,
        Err(refusal) if refusal.reason == Reason::TokenInvalid => {
            let refusal = match look_at(state, &context, None) {
                Ok(_counted) => refusal,
                Err(too_many) => too_many,
            };
            return Err(record_refusal(state, &context, refusal).await);
        }
        Err(nothing) => return Err(nothing),
    };
    let url = public_url(state, request);
    let presented = match sent {
        Sent::Bearer(token) => Presented::Bearer(token),
        Sent::Dpop(token, jwt) => {
            let proof = Proof {
                jwt,
                method: request.method().as_str(),
                url: &url,
            };
            Presented::Dpop(token, proof)
        }
    };
    let (Sent::Bearer(token) | Sent::Dpop(token, _)) = sent;
    let trial = match look_at(state, &context, Some(token)) {
        Ok(trial) => trial,
        Err(too_many) => return Err(record_refusal(state, &context, too_many).await),
    };
    let validated = match state.validator.validate(presented, &tenant).await {
        Ok(validated) => {
            trial.forgive();
            validated
        }
        Err(error) => {
            if matches!(error, TokenError::UseNonce) || error.retry_after_seconds().is_some() {
                trial.forgive();
            } else {
                drop(trial);
            }
            let bound = matches!(sent, Sent::Dpop(..));
            return Err(refuse_token(state, &context, &error, bound).await);
        }
    };
    let context = context.with_principal(&validated.principal);
    let caller = Caller {
        principal: Arc::clone(&validated.principal),
        context,
        session: None,
        caps: validated.derived.clone(),
    };
    remember(state, &caller).await?;
    Ok((caller, validated.expires_at))
}

/// Leave to look at a token, where not too many of its address were refused. `None` is one that was badly sent.
pub fn look_at<'s>(
    state: &'s HttpState,
    context: &Context,
    token: Option<&str>,
) -> Result<Trial<'s>, AppError> {
    let known = || state.validator.known(token?);
    state.attempts.token(source_of(context), known, context.now)
}

fn source_of(context: &Context) -> Source {
    Source::of(context.agent.address.as_deref().and_then(|a| a.parse().ok()))
}

/// The request's URL as clients see it, without its query.
fn public_url(state: &HttpState, request: &HttpRequest) -> String {
    format!("{}{}", state.app.settings.public_base, request.uri().path())
}

/// A token as it was sent.
#[derive(Clone, Copy)]
enum Sent<'r> {
    Bearer(&'r str),
    /// With the proof in the `DPoP` header.
    Dpop(&'r str, &'r str),
}

/// The token of the one `Authorization` header. Tokens anywhere else are refused, not ignored.
fn sent_token(request: &HttpRequest) -> Result<Sent<'_>, AppError> {
    let refused = |challenge: Option<Challenge>, text: &str| AppError {
        challenge,
        ..AppError::new(Class::Unauthenticated, Reason::TokenInvalid, text)
    };
    if has_token(request.query_string().as_bytes()) {
        let text = "an access token must not be in the URL; send it in the Authorization header";
        return Err(refused(Some(Challenge::OneToken), text));
    }
    let mut values = authorization(request.headers());
    let Some(value) = values.next() else {
        return Err(AppError::new(
            Class::Unauthenticated,
            Reason::Unauthenticated,
            crate::app::error::explain(Reason::Unauthenticated),
        ));
    };
    if values.next().is_some() {
        let text = "more than one Authorization header was sent; send one";
        return Err(refused(Some(Challenge::OneToken), text));
    }
    let (scheme, token) = value
        .to_str()
        .unwrap_or_default()
        .split_once(' ')
        .unwrap_or_default();
    let token = token.trim();
    if token.is_empty() {
        let text = "only `Authorization: Bearer` or `DPoP` with an access token is accepted";
        return Err(refused(None, text));
    }
    if scheme.eq_ignore_ascii_case("bearer") {
        return Ok(Sent::Bearer(token));
    }
    if !scheme.eq_ignore_ascii_case("dpop") {
        let text = "only `Authorization: Bearer` or `DPoP` with an access token is accepted";
        return Err(refused(None, text));
    }
    let mut proofs = request.headers().get_all("dpop");
    match (proofs.next().and_then(|proof| proof.to_str().ok()), proofs.next()) {
        (Some(proof), None) => Ok(Sent::Dpop(token, proof)),
        _ => Err(refused(
            Some(Challenge::Proof),
            "a token that is sent as `DPoP` comes with one proof in one `DPoP` header",
        )),
    }
}

/// Whether a request comes with an access token, in whichever place.
pub fn sends_token(request: &HttpRequest) -> bool {
    request.headers().contains_key(header::AUTHORIZATION) || has_token(request.query_string().as_bytes())
}

/// Whether an access token is among these form-encoded pairs.
pub fn has_token(encoded: &[u8]) -> bool {
    url::form_urlencoded::parse(encoded).any(|(name, _)| name.eq_ignore_ascii_case("access_token"))
}

/// The refusal of a token in a form, where it would be a second one.
pub fn token_in_form() -> AppError {
    AppError {
        challenge: Some(Challenge::OneToken),
        ..AppError::new(
            Class::Unauthenticated,
            Reason::TokenInvalid,
            "an access token must not be in the form; send it in the Authorization header",
        )
    }
}

fn authorization(headers: &HeaderMap) -> impl Iterator<Item = &header::HeaderValue> {
    headers.get_all(header::AUTHORIZATION)
}

/// The refusal of a token that was sent with a DPoP proof (`bound`) or without.
pub async fn refuse_token(state: &HttpState, context: &Context, error: &TokenError, bound: bool) -> AppError {
    tracing::info!(correlation_id = %context.correlation, detail = error.detail(), "access token refused");
    if error.retry_after_seconds().is_some() {
        let text = format!("{}; try again shortly", error.public());
        return AppError::new(Class::Unavailable, Reason::StorageUnavailable, text);
    }
    let refusal = AppError {
        challenge: match error {
            TokenError::Proof(_) => Some(Challenge::Proof),
            TokenError::UseNonce => Some(Challenge::Nonce),
            _ if bound => Some(Challenge::BoundToken),
            _ => None,
        },
        ..AppError::new(Class::Unauthenticated, Reason::TokenInvalid, error.public())
    };
    match error {
        // A step of the protocol.
        TokenError::UseNonce => refusal,
        _ => record_refusal(state, context, refusal).await,
    }
}

/// Records a refused caller, where none of its address was recorded just now.
pub async fn record_refusal(state: &HttpState, context: &Context, refusal: AppError) -> AppError {
    record_refused(state, context, refusal, Event::RequestDenied).await
}

/// The same as another event, which is rolled up by itself.
pub async fn record_refused(
    state: &HttpState,
    context: &Context,
    refusal: AppError,
    event: Event,
) -> AppError {
    let Some(before) = state.refusals.to_record(event, source_of(context), context.now) else {
        return refusal;
    };
    let row = context
        .row(event, Outcome::Denied, refusal.reason)
        .detail("refused-before", before.to_string());
    state
        .app
        .record_denial(&context.tenant, refusal.recorded(row))
        .await
}

/// Refused callers by address: a flood is rolled up into a row a second, each with how many came before it.
#[derive(Debug, Default)]
pub struct Refusals(Mutex<HashMap<Refused, (Timestamp, u64)>>);

/// As which event, and from where.
type Refused = (&'static str, Source);

/// How often refusals of one address are recorded at most.
const ROLL_UP: Span = Span::seconds(1);

impl Refusals {
    /// How many refusals since the last recorded one; `None` where this one is not to be recorded by itself.
    fn to_record(&self, event: Event, source: Source, now: Timestamp) -> Option<u64> {
        let key = (event.as_str(), source);
        let mut refusals = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if refusals.len() >= SEEN_LIMIT {
            refusals.clear();
        }
        match refusals.get_mut(&key) {
            Some((last, unrecorded)) if now.since(*last) < ROLL_UP => {
                *unrecorded = unrecorded.saturating_add(1);
                None
            }
            Some(known) => {
                let before = known.1;
                *known = (now, 0);
                Some(before)
            }
            None => {
                refusals.insert(key, (now, 0));
                Some(0)
            }
        }
    }
}

/// Writes down in which teams the actor is: a fact that handing on a Task within a team relies on.
pub async fn remember(state: &HttpState, caller: &Caller) -> Result<(), AppError> {
    let teams: Vec<String> = caller.principal.teams.iter().cloned().collect();
    let (tenant, actor, now) = (
        caller.tenant().clone(),
        caller.principal.actor.clone(),
        caller.context.now,
    );
    if state.seen.is_fresh(&tenant, &actor, &teams, now) {
        return Ok(());
    }
    let (unit_tenant, unit_actor, unit_teams) = (tenant.clone(), actor.clone(), teams.clone());
    ports::write(state.app.store.as_ref(), move |tx| {
        tx.remember_actor(&unit_tenant, &unit_actor, &unit_teams, now)
    })
    .await
    .map_err(AppError::from)?;
    state.seen.note(&tenant, &actor, teams, now);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_refusals_is_rolled_up_by_address() {
        let refusals = Refusals::default();
        let at = |ms: i64| Timestamp(ms * 1000);
        let source = |text: &str| Source::of(text.parse().ok());
        let of_tokens = |address, ms| refusals.to_record(Event::RequestDenied, source(address), at(ms));
        assert_eq!(of_tokens("10.0.0.1", 0), Some(0));
        assert_eq!(of_tokens("10.0.0.1", 10), None);
        assert_eq!(of_tokens("10.0.0.1", 20), None);
        assert_eq!(of_tokens("10.0.0.2", 20), Some(0));
        assert_eq!(of_tokens("2001:db8::1", 20), Some(0));
        assert_eq!(of_tokens("2001:db8::2", 20), None);
        let of_links = refusals.to_record(Event::RedemptionDenied, source("10.0.0.1"), at(20));
        assert_eq!(of_links, Some(0));
        assert_eq!(of_tokens("10.0.0.1", 1001), Some(2));
    }

    #[test]
    fn a_forwarded_address_is_read_with_and_without_a_port() {
        let ip = |text: &str| text.parse::<IpAddr>().ok();
        assert_eq!(forwarded_address(" 203.0.113.5:4711"), ip("203.0.113.5"));
        assert_eq!(forwarded_address("[2001:db8::1]:443"), ip("2001:db8::1"));
        assert_eq!(forwarded_address("[2001:db8::1]"), ip("2001:db8::1"));
        assert_eq!(forwarded_address("203.0.113.5"), ip("203.0.113.5"));
        assert_eq!(forwarded_address("unknown"), None);
    }
}
