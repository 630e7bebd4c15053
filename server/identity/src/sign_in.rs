//! People's sign-in for web pages, as a relying party of the configured issuers (OpenID Connect Core 1.0 section 3.1
//! with PKCE, RFC 7636): the way there, the way back, and who the claims of a session say that the person is now.
//! Keeps nothing of a login or a session, and knows no HTTP server and no cookie.

mod error;
mod exchange;
mod id_token;
mod logout;
mod secret;

use std::fmt;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use handoff_domain::ids::TenantId;
use handoff_domain::time::Timestamp;
use openidconnect::core::{CoreClient, CoreResponseType};
use openidconnect::{
    AuthUrl, AuthenticationFlow, ClientId, CsrfToken, JsonWebKeySet, Nonce, PkceCodeChallenge,
    PkceCodeVerifier, RedirectUrl, Scope,
};
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;
use url::Url;

pub use error::SignInError;
pub use logout::Logout;
pub use secret::LoginSecret;

use crate::claims::{self, Claims};
use crate::config::may_fetch;
use crate::error::{TokenError, quoted};
use crate::jws::Jws;
use crate::metadata::IssuerMetadata;
use crate::validator::{Issuer, TokenValidator, Validated, named_by, sha256};
use exchange::{Grant, Tokens, exchange};
use id_token::Login;
use secret::Part;

const MOST_LABEL_CHARS: usize = 100;
const MOST_PLACE_BYTES: usize = 200;
const MOST_CODE_BYTES: usize = 4096;
/// The most of a session's claims, in bytes of JSON.
const MOST_CLAIMS_BYTES: usize = 16 * 1024;
/// Bytes of an issuer's digest that tell the issuers of a tenant apart.
const KEY_BYTES: usize = 8;

/// How people sign in at an issuer.
#[derive(Debug, Clone)]
pub struct SignIn {
    /// As which of the issuer's clients we ask.
    pub client_id: String,
    /// What proves that it is us; `None` for a public client.
    pub client_secret: Option<SecretString>,
    /// What is asked for beside `openid`.
    pub scopes: Vec<String>,
    /// What the button says, 1 to 100 characters.
    pub label: String,
}

impl SignIn {
    /// Every problem, each the rest of a sentence.
    pub(crate) fn problems(&self) -> impl Iterator<Item = &'static str> {
        let is_scope_byte = |b: u8| b == 0x21 || (0x23..=0x5b).contains(&b) || (0x5d..=0x7e).contains(&b);
        let is_scope = |scope: &String| !scope.is_empty() && scope.bytes().all(is_scope_byte);
        let is_label = |label: &str| {
            (1..=MOST_LABEL_CHARS).contains(&label.chars().count())
                && !label.trim().is_empty()
                && !label.chars().any(char::is_control)
        };
        let secret = self.client_secret.as_ref();
        [
            (claims::is_name(&self.client_id), "needs a client id"),
            (
                secret.is_none_or(|secret| !secret.expose_secret().is_empty()),
                "has an empty client secret",
            ),
            (
                self.scopes.iter().all(is_scope),
                "asks for a scope that is not one word",
            ),
            (is_label(&self.label), "needs a label of 1 to 100 characters"),
        ]
        .into_iter()
        .filter(|(good, _)| !good)
        .map(|(_, problem)| problem)
    }
}

/// An issuer at which people of a tenant can sign in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignInChoice {
    /// What it is called in addresses: 11 characters of base64url, the same as long as the issuer's name is.
    pub key: String,
    /// What the button says.
    pub label: String,
    /// The issuer.
    pub issuer: String,
}

/// What an issuer sent the browser back with: parameters of the query.
#[derive(Clone, Copy, Default)]
#[expect(missing_docs, reason = "each is the parameter of that name")]
pub struct Callback<'c> {
    pub code: Option<&'c str>,
    pub state: Option<&'c str>,
    /// RFC 9207.
    pub iss: Option<&'c str>,
    pub error: Option<&'c str>,
}

impl fmt::Debug for Callback<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Callback")
            .field("iss", &self.iss)
            .field("error", &self.error)
            .finish_non_exhaustive()
    }
}

/// Somebody who has signed in.
#[derive(Clone, PartialEq, Eq)]
pub struct SignedIn {
    /// `iss`.
    pub issuer: String,
    /// What the issuer vouches for, as a JSON object of at most 16 KiB: for `of_session`.
    pub claims: String,
    /// `sub`.
    pub subject: String,
    /// The issuer's name for its own session with the person.
    pub sid: Option<String>,
    /// Where the person goes now.
    pub place: String,
}

impl fmt::Debug for SignedIn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SignedIn")
            .field("issuer", &self.issuer)
            .field("place", &self.place)
            .finish_non_exhaustive()
    }
}

impl<D> TokenValidator<D> {
    /// Where people of `tenant` can sign in, in the order in which the issuers are configured.
    pub fn sign_in_choices(&self, tenant: &TenantId) -> Vec<SignInChoice> {
        self.issuers_of(tenant)
            .filter_map(|name| self.signs_in(tenant, name))
            .map(|(issuer, sign_in)| SignInChoice {
                key: key_of(&issuer.config.issuer),
                label: sign_in.label.clone(),
                issuer: issuer.config.issuer.clone(),
            })
            .collect()
    }

    /// Where the browser goes to sign in at the issuer called `key`. It comes back to `redirect_uri`, and `finish` then
    /// says that the person goes on to `place`: at most 200 of `A-Z a-z 0-9 _ ~ / -`.
    pub async fn authorization_url(
        &self,
        tenant: &TenantId,
        key: &str,
        secret: &LoginSecret,
        redirect_uri: &Url,
        place: &str,
    ) -> Result<Url, SignInError> {
        if !is_place(place) {
            return Err(SignInError::Place);
        }
        let (issuer, sign_in) = self.by_key(tenant, key).ok_or(SignInError::NotOffered)?;
        let metadata = issuer.keys.metadata().await.map_err(SignInError::Unavailable)?;
        let endpoint = Url::parse(&metadata.authorization_endpoint)
            .ok()
            .filter(|url| may_fetch(url, issuer.config.allow_insecure_loopback))
            .ok_or_else(|| {
                SignInError::Refused("the issuer names no usable authorization endpoint".to_owned())
            })?;
        let url = issuer
            .config
            .url()
            .map_err(|error| SignInError::Refused(error.to_string()))?;
        let derive = |part| secret.derive(part, &issuer.config.issuer, place);
        let (nonce, verifier) = (derive(Part::Nonce), derive(Part::Verifier));
        let state = format!("{place}.{key}.{}", derive(Part::State));
        let client = CoreClient::new(
            ClientId::new(sign_in.client_id.clone()),
            url,
            JsonWebKeySet::default(),
        )
        .set_auth_uri(AuthUrl::from_url(endpoint))
        .set_redirect_uri(RedirectUrl::from_url(redirect_uri.clone()));
        // It asks for `openid` by itself.
        let further = sign_in.scopes.iter().filter(|scope| *scope != "openid");
        let (url, _, _) = client
            .authorize_url(
                AuthenticationFlow::<CoreResponseType>::AuthorizationCode,
                || CsrfToken::new(state),
                || Nonce::new(nonce),
            )
            .add_scopes(further.cloned().map(Scope::new))
            .set_pkce_challenge(PkceCodeChallenge::from_code_verifier_sha256(
                &PkceCodeVerifier::new(verifier),
            ))
            .url();
        Ok(url)
    }

    /// Ends a login that this browser began with `secret`: exchanges the code and checks what the issuer vouches for.
    /// `redirect_uri` is the one that the login began with.
    pub async fn finish(
        &self,
        tenant: &TenantId,
        secret: &LoginSecret,
        redirect_uri: &Url,
        callback: Callback<'_>,
    ) -> Result<SignedIn, SignInError> {
        let (issuer, sign_in, place) = self.begun(tenant, secret, callback.state)?;
        let name = issuer.config.issuer.as_str();
        if callback.iss.is_some_and(|iss| iss != name) {
            return Err(SignInError::NotBegunHere("`iss` is another issuer".to_owned()));
        }
        if let Some(error) = callback.error {
            return Err(refusal(error));
        }
        let metadata = issuer.keys.metadata().await.map_err(SignInError::Unavailable)?;
        let code = code_of(&callback, &metadata)?;
        let grant = Grant {
            code,
            redirect_uri,
            verifier: secret.derive(Part::Verifier, name, place).into(),
        };
        let tokens = exchange(issuer, &metadata, sign_in, &grant).await?;
        let (subject, claims) = self.vouched(issuer, sign_in, secret, place, &tokens).await?;
        let sid = claims::session(&claims);
        let claims = Value::Object(claims).to_string();
        if claims.len() > MOST_CLAIMS_BYTES {
            return Err(SignInError::Invalid("the claims are too long".to_owned()));
        }
        Ok(SignedIn {
            issuer: name.to_owned(),
            claims,
            subject,
            sid,
            place: place.to_owned(),
        })
    }

    /// Who the person of a session is, by the `claims` that `finish` gave and by how the issuer is configured now. Their
    /// own times are not looked at: the session, and so what is known of the caller, ends at `expires_at`.
    pub fn of_session(
        &self,
        tenant: &TenantId,
        issuer: &str,
        claims: &str,
        expires_at: Timestamp,
    ) -> Result<Arc<Validated<D>>, TokenError> {
        let over =
            |detail: &str| TokenError::invalid("the sign-in is no longer good here; sign in again", detail);
        let (issuer, sign_in) = self
            .signs_in(tenant, issuer)
            .ok_or_else(|| over("nobody of this tenant signs in at the issuer now"))?;
        let said: Claims =
            serde_json::from_str(claims).map_err(|_| over("the claims are not a JSON object"))?;
        if said.get("iss").and_then(Value::as_str) != Some(issuer.config.issuer.as_str()) {
            return Err(over("the claims are another issuer's"));
        }
        let named = || named_by(sha256(claims));
        let principal = claims::person(&issuer.config, &sign_in.client_id, &said, named)
            .map_err(|error| over(error.detail()))?;
        Ok(self.derived(Validated {
            principal: Arc::new(principal),
            derived: (),
            expires_at,
        }))
    }

    /// The issuer of that name, where people of `tenant` sign in there.
    fn signs_in(&self, tenant: &TenantId, issuer: &str) -> Option<(&Issuer, &SignIn)> {
        let issuer = self.issuers.get(issuer)?;
        let sign_in = issuer.config.sign_in.as_ref()?;
        (issuer.config.tenant == *tenant).then_some((issuer, sign_in))
    }

    fn by_key(&self, tenant: &TenantId, key: &str) -> Option<(&Issuer, &SignIn)> {
        self.issuers_of(tenant)
            .find(|name| key_of(name) == key)
            .and_then(|name| self.signs_in(tenant, name))
    }

    /// The login that `state` belongs to: where it was begun, and the place that it leads to.
    fn begun<'s>(
        &self,
        tenant: &TenantId,
        secret: &LoginSecret,
        state: Option<&'s str>,
    ) -> Result<(&Issuer, &SignIn, &'s str), SignInError> {
        let foreign = |detail: &str| SignInError::NotBegunHere(detail.to_owned());
        let (place, rest) = state
            .unwrap_or_default()
            .split_once('.')
            .ok_or_else(|| foreign("`state` is not one of ours"))?;
        let (key, mac) = rest
            .split_once('.')
            .filter(|_| is_place(place))
            .ok_or_else(|| foreign("`state` is not one of ours"))?;
        let (issuer, sign_in) = self
            .by_key(tenant, key)
            .ok_or_else(|| foreign("`state` names no issuer at which people sign in"))?;
        if secret.derives(Part::State, &issuer.config.issuer, place, mac) {
            Ok((issuer, sign_in, place))
        } else {
            Err(foreign("`state` is another login's"))
        }
    }

    /// The claims of an id token that is for this login, and their subject.
    async fn vouched(
        &self,
        issuer: &Issuer,
        sign_in: &SignIn,
        secret: &LoginSecret,
        place: &str,
        tokens: &Tokens,
    ) -> Result<(String, Claims), SignInError> {
        let token = tokens
            .id_token
            .as_ref()
            .ok_or_else(|| SignInError::Invalid("the issuer gave no id token".to_owned()))?;
        let invalid = |error: &TokenError| SignInError::Invalid(format!("id token: {}", error.detail()));
        let jws = Jws::parse(token.expose_secret()).map_err(|error| invalid(&error))?;
        let alg = issuer.vouches(&jws).await.map_err(|error| match error {
            TokenError::Unavailable(_) => SignInError::Unavailable(error.detail().to_owned()),
            other => invalid(&other),
        })?;
        let login = Login {
            config: &issuer.config,
            client_id: &sign_in.client_id,
            secret,
            place,
            access_token: tokens.access_token.as_ref().map(ExposeSecret::expose_secret),
        };
        let subject = login
            .check(&jws, alg, self.clock.now())
            .map_err(|detail| SignInError::Invalid(format!("id token: {detail}")))?;
        let mut claims = jws.claims;
        // They have served, and say nothing of the person.
        for spent in ["nonce", "at_hash", "c_hash"] {
            claims.shift_remove(spent);
        }
        claims::person(&issuer.config, &sign_in.client_id, &claims, String::new)
            .map_err(|error| SignInError::NobodyHere(format!("id token: {}", error.detail())))?;
        Ok((subject, claims))
    }
}

/// What an issuer is called in addresses.
fn key_of(issuer: &str) -> String {
    URL_SAFE_NO_PAD.encode(sha256(issuer).get(..KEY_BYTES).unwrap_or_default())
}

fn is_place(place: &str) -> bool {
    let fits = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'~' | b'/' | b'-');
    place.len() <= MOST_PLACE_BYTES && place.bytes().all(fits)
}

/// An error that came instead of a code (RFC 6749 section 4.1.2.1).
fn refusal(error: &str) -> SignInError {
    let detail = || format!("the issuer answered {}", quoted(error));
    match error {
        "access_denied" => SignInError::Denied,
        "temporarily_unavailable" | "server_error" => SignInError::Unavailable(detail()),
        _ => SignInError::Refused(detail()),
    }
}

fn code_of<'c>(callback: &Callback<'c>, metadata: &IssuerMetadata) -> Result<&'c str, SignInError> {
    if callback.iss.is_none() && metadata.authorization_response_iss_parameter_supported {
        let detail = "there is no `iss`, and the issuer says that it sends it";
        return Err(SignInError::NotBegunHere(detail.to_owned()));
    }
    callback
        .code
        .filter(|code| (1..=MOST_CODE_BYTES).contains(&code.len()))
        .filter(|code| code.bytes().all(|b| matches!(b, 0x20..=0x7e)))
        .ok_or_else(|| SignInError::NotBegunHere("there is no code".to_owned()))
}

#[cfg(test)]
mod tests;
