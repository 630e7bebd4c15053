//! The ends of a session: by the person, whom the issuer then signs out as well (OpenID Connect RP-Initiated Logout
//! 1.0), and by the issuer, which says so with a logout token (Back-Channel Logout 1.0).

use handoff_domain::ids::TenantId;
use handoff_domain::time::{Span, Timestamp};
use serde_json::Value;
use url::Url;

use super::id_token::check_audience;
use crate::claims::{Claims, date, optional_name, required_name};
use crate::config::may_fetch;
use crate::error::{TokenError, quoted};
use crate::jws::Jws;
use crate::validator::TokenValidator;

/// How old a logout token may be.
const FRESH_FOR: Span = Span::minutes(5);
const EVENT: &str = "http://schemas.openid.net/event/backchannel-logout";

/// Whose sessions an issuer ends: those that have the subject and the `sid`, as far as it names them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Logout {
    /// `iss`.
    pub issuer: String,
    /// `sub`; present where `sid` is not.
    pub subject: Option<String>,
    /// `sid`; present where `sub` is not.
    pub sid: Option<String>,
}

impl<D> TokenValidator<D> {
    /// Where a person who signed in at `issuer` is sent to be signed out there too; `post_logout_redirect_uri` is where
    /// the issuer sends them then. `None` where the issuer has no such place, or was never read and can't be reached.
    pub async fn end_session_url(
        &self,
        tenant: &TenantId,
        issuer: &str,
        post_logout_redirect_uri: &Url,
    ) -> Option<Url> {
        let (issuer, sign_in) = self.signs_in(tenant, issuer)?;
        let metadata = issuer.keys.metadata().await.ok()?;
        let mut url = Url::parse(metadata.end_session_endpoint.as_deref()?)
            .ok()
            .filter(|url| may_fetch(url, issuer.config.allow_insecure_loopback))?;
        url.query_pairs_mut()
            .append_pair("client_id", &sign_in.client_id)
            .append_pair("post_logout_redirect_uri", post_logout_redirect_uri.as_str());
        Some(url)
    }

    /// Validates a logout token that an issuer of `tenant` sent (Back-Channel Logout 1.0 section 2.6). Good as often as
    /// it comes.
    pub async fn logout_token(&self, tenant: &TenantId, token: &str) -> Result<Logout, TokenError> {
        let jws = Jws::parse(token).map_err(|error| refused(error.detail()))?;
        let issuer = self
            .issuer_of(&jws, tenant)
            .map_err(|error| refused(error.detail()))?;
        let sign_in = issuer
            .config
            .sign_in
            .as_ref()
            .ok_or_else(|| refused("nobody signs in at the issuer"))?;
        issuer.vouches(&jws).await.map_err(|error| match error {
            TokenError::Unavailable(_) => error,
            other => refused(other.detail()),
        })?;
        let leeway = Span::seconds(issuer.config.leeway_seconds);
        check(&jws, &sign_in.client_id, self.clock.now(), leeway).map_err(|detail| refused(&detail))
    }
}

fn check(jws: &Jws<'_>, client_id: &str, now: Timestamp, leeway: Span) -> Result<Logout, String> {
    let claims = &jws.claims;
    if !matches!(jws.typ.as_deref(), None | Some("jwt" | "logout+jwt")) {
        return Err(format!(
            "header type is {}, which is no logout token's",
            jws.typ.as_deref().map_or("none".to_owned(), quoted)
        ));
    }
    // It must not be of use as an id token, nor an id token as this.
    if claims.contains_key("nonce") {
        return Err("token has `nonce`".to_owned());
    }
    let event = claims.get("events").and_then(|events| events.get(EVENT));
    if !event.is_some_and(Value::is_object) {
        return Err("`events` is not that of a logout".to_owned());
    }
    check_audience(claims, client_id)?;
    check_times(claims, now, leeway)?;
    let name = |name| optional_name(claims, name).map_err(|error| error.detail().to_owned());
    let (subject, sid) = (name("sub")?, name("sid")?);
    if subject.is_none() && sid.is_none() {
        return Err("token names neither `sub` nor `sid`".to_owned());
    }
    let needed = |name| required_name(claims, name).map_err(|error| error.detail().to_owned());
    needed("jti")?;
    Ok(Logout {
        issuer: needed("iss")?,
        subject,
        sid,
    })
}

fn check_times(claims: &Claims, now: Timestamp, leeway: Span) -> Result<(), String> {
    let at = |name| date(claims, name).map_err(|error| error.detail().to_owned());
    let issued_at = at("iat")?.ok_or("there is no `iat`")?;
    if issued_at > now.plus(leeway) {
        return Err("`iat` is in the future".to_owned());
    }
    if now > issued_at.plus(FRESH_FOR).plus(leeway) {
        return Err("`iat` is too long ago".to_owned());
    }
    if at("exp")?.is_some_and(|expires_at| now >= expires_at.plus(leeway)) {
        return Err("`exp` is past".to_owned());
    }
    Ok(())
}

fn refused(detail: &str) -> TokenError {
    TokenError::invalid("the logout token is not acceptable here", detail)
}
