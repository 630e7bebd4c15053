//! Whether the claims of an id token, whose signature holds, are for this login (OpenID Connect Core 1.0 section
//! 3.1.3.7). Who the person is by them is for `claims` to say.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use handoff_domain::time::{Span, Timestamp};
use ring::digest::{SHA256, SHA384, digest};
use serde_json::Value;

use super::secret::{LoginSecret, Part};
use crate::claims::{Claims, date, required_name};
use crate::config::{Alg, IssuerConfig};
use crate::error::quoted;
use crate::jws::Jws;

/// The login that an id token must be for.
pub(super) struct Login<'l> {
    pub(super) config: &'l IssuerConfig,
    pub(super) client_id: &'l str,
    pub(super) secret: &'l LoginSecret,
    pub(super) place: &'l str,
    pub(super) access_token: Option<&'l str>,
}

impl Login<'_> {
    /// Checks an id token that was signed by `alg`, and answers its subject. What is wrong with it is for the log.
    pub(super) fn check(&self, jws: &Jws<'_>, alg: Alg, now: Timestamp) -> Result<String, String> {
        let claims = &jws.claims;
        if !matches!(jws.typ.as_deref(), None | Some("jwt")) {
            return Err(format!(
                "header type is {}, which is no id token's",
                jws.typ.as_deref().map_or("none".to_owned(), quoted)
            ));
        }
        if claims.get("iss").and_then(Value::as_str) != Some(self.config.issuer.as_str()) {
            return Err("`iss` is another issuer".to_owned());
        }
        check_audience(claims, self.client_id)?;
        check_times(claims, now, Span::seconds(self.config.leeway_seconds))?;
        let nonce = claims.get("nonce").and_then(Value::as_str).unwrap_or_default();
        if !self
            .secret
            .derives(Part::Nonce, &self.config.issuer, self.place, nonce)
        {
            return Err("`nonce` is another login's".to_owned());
        }
        if let Some(hash) = claims.get("at_hash") {
            let fits = self.access_token.map(|token| hash_of(token, alg));
            if fits.is_none() || hash.as_str() != fits.as_deref() {
                return Err("`at_hash` is another access token's".to_owned());
            }
        }
        required_name(claims, "sub").map_err(|error| error.detail().to_owned())
    }
}

/// Ours must be among those that the token is for; among several it must be the one that it was made for.
pub(super) fn check_audience(claims: &Claims, client_id: &str) -> Result<(), String> {
    let several = match claims.get("aud") {
        Some(Value::String(one)) if one == client_id => false,
        Some(Value::Array(all)) if all.iter().any(|one| one == client_id) => all.len() > 1,
        _ => return Err("`aud` does not name our client".to_owned()),
    };
    match claims.get("azp") {
        Some(party) if party == client_id => Ok(()),
        Some(_) => Err("`azp` is another client".to_owned()),
        None if several => Err("`aud` names several, and there is no `azp`".to_owned()),
        None => Ok(()),
    }
}

fn check_times(claims: &Claims, now: Timestamp, leeway: Span) -> Result<(), String> {
    let at = |name| date(claims, name).map_err(|error| error.detail().to_owned());
    let expires_at = at("exp")?.ok_or("there is no `exp`")?;
    if now >= expires_at.plus(leeway) {
        return Err("`exp` is past".to_owned());
    }
    let issued_at = at("iat")?.ok_or("there is no `iat`")?;
    let latest = at("nbf")?.map_or(issued_at, |from| from.max(issued_at));
    if latest > now.plus(leeway) {
        return Err("`iat` or `nbf` is in the future".to_owned());
    }
    // What cannot be read now would be refused at every request.
    at("auth_time").map(|_| ())
}

/// The left half of the token's digest, of the size of the signature's (section 3.1.3.6).
fn hash_of(token: &str, alg: Alg) -> String {
    let algorithm = match alg {
        Alg::Rs256 | Alg::Es256 | Alg::Ps256 => &SHA256,
        Alg::Rs384 | Alg::Es384 => &SHA384,
    };
    let whole = digest(algorithm, token.as_bytes());
    let half = whole.as_ref().len() / 2;
    URL_SAFE_NO_PAD.encode(whole.as_ref().get(..half).unwrap_or_default())
}
