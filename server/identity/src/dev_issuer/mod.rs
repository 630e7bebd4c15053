//! A development issuer: a plain OIDC issuer with a fixed cast and no passwords, for the demo and the tests.
//! It makes documents, codes and tokens; whoever serves them over HTTP sees to it that this is loopback only.

mod cast;
mod codes;
mod key;

use std::fmt;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use handoff_domain::ids::{TenantId, is_fhir_id};
use handoff_domain::ports::Entropy;
use handoff_domain::time::{Span, Timestamp};
use ring::digest::{SHA256, digest};
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Map, Value, json};
use thiserror::Error;

pub use cast::{CastMember, Realm};
pub use codes::AuthorizeRequest;
pub use key::{DevKey, DevKeyError};

use crate::config::{Alg, IssuerConfig};
use codes::{Codes, Kept};

/// How long tokens last.
const TOKEN_LIFE: Span = Span::hours(1);
const MOST_SCOPE_BYTES: usize = 4096;

/// Why the development issuer refused: an OAuth error code and a sentence (RFC 6749 sections 4.1.2.1, 5.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("{description}")]
pub struct DevIssuerError {
    /// The code: `invalid_client`, `invalid_scope`, …
    pub code: &'static str,
    /// What was wrong; no value of the request in it.
    pub description: &'static str,
}

impl DevIssuerError {
    const fn new(code: &'static str, description: &'static str) -> Self {
        Self { code, description }
    }
}

/// The answer of the token endpoint.
#[derive(Debug)]
pub struct TokenResponse {
    /// The access token.
    pub access_token: SecretString,
    /// The id token, where `openid` was asked for in a login.
    pub id_token: Option<SecretString>,
    /// Seconds that both last.
    pub expires_in: i64,
    /// The granted scope.
    pub scope: String,
    /// The patient of the launch context.
    pub patient: Option<String>,
}

impl TokenResponse {
    /// The body of the answer (RFC 6749 section 5.1). It holds the tokens: send it with `no-store`, log it never.
    pub fn to_json(&self) -> String {
        let mut body = json!({
            "access_token": self.access_token.expose_secret(),
            "token_type": "Bearer",
            "expires_in": self.expires_in,
            "scope": self.scope,
        });
        if let Some(id_token) = &self.id_token {
            set(&mut body, "id_token", json!(id_token.expose_secret()));
        }
        if let Some(patient) = &self.patient {
            set(&mut body, "patient", json!(patient));
        }
        body.to_string()
    }
}

/// The development issuer of one realm.
pub struct DevIssuer {
    issuer: String,
    realm: Realm,
    key: DevKey,
    entropy: Arc<dyn Entropy>,
    codes: Codes,
}

impl fmt::Debug for DevIssuer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DevIssuer")
            .field("issuer", &self.issuer)
            .field("realm", &self.realm)
            .finish_non_exhaustive()
    }
}

impl DevIssuer {
    /// The issuer of `realm` under `base` (`http://127.0.0.1:8080`, no path).
    pub fn new(base: &str, realm: Realm, key: DevKey, entropy: Arc<dyn Entropy>) -> Self {
        Self {
            issuer: realm.issuer(base),
            realm,
            key,
            entropy,
            codes: Codes::default(),
        }
    }

    /// `iss` of its tokens.
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// The realm it issues for.
    pub const fn realm(&self) -> Realm {
        self.realm
    }

    /// How a validator accepts the issuer of `realm` under `base`, for `tenant`. Needs no key: another
    /// process's issuer is configured in the same way.
    pub fn issuer_config(base: &str, realm: Realm, tenant: TenantId) -> IssuerConfig {
        IssuerConfig {
            algorithms: vec![Alg::Es256],
            require_jti: true,
            allow_insecure_loopback: true,
            ..IssuerConfig::new(realm.issuer(base), tenant, vec![realm.audience().to_owned()])
        }
    }

    /// The discovery document, to be served at `{issuer}/.well-known/openid-configuration`.
    pub fn discovery(&self) -> Value {
        let issuer = &self.issuer;
        json!({
            "issuer": issuer,
            "authorization_endpoint": format!("{issuer}/authorize"),
            "token_endpoint": format!("{issuer}/token"),
            "jwks_uri": format!("{issuer}/jwks"),
            "response_types_supported": ["code"],
            "response_modes_supported": ["query"],
            "grant_types_supported": ["authorization_code", "client_credentials"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["ES256"],
            "code_challenge_methods_supported": ["S256"],
            "token_endpoint_auth_methods_supported": ["none"],
            "scopes_supported": [
                "openid",
                "fhirUser",
                "patient/*.cruds",
                "user/*.cruds",
                "system/*.cruds",
            ],
            "authorization_response_iss_parameter_supported": true,
            "claims_supported": ["sub", "name", "fhirUser", "roles", "teams", "auth_time", "sid"],
        })
    }

    /// The public keys, to be served at `{issuer}/jwks`.
    pub fn jwks(&self) -> Value {
        json!({ "keys": [self.key.public_jwk()] })
    }

    /// The people that the sign-in page offers.
    pub fn people(&self) -> impl Iterator<Item = &'static CastMember> {
        self.realm.cast().iter().filter(|member| member.is_person)
    }

    /// A token of the cast member `client_id` for itself (`grant_type=client_credentials`).
    ///
    /// `requested_scope` is granted as it stands; without it the widest scope, so that it is policy that decides.
    /// `patient` is an id or `Patient/{id}`.
    pub fn issue(
        &self,
        client_id: &str,
        requested_scope: Option<&str>,
        patient: Option<&str>,
        now: Timestamp,
    ) -> Result<TokenResponse, DevIssuerError> {
        let member = self.realm.member(client_id).ok_or(DevIssuerError::new(
            "invalid_client",
            "the cast has no such client",
        ))?;
        let scope = granted_scope(requested_scope, member.default_scope())?;
        let patient = patient.map(patient_id).transpose()?;
        let access_token = self.access_token(member, client_id, &scope, patient.as_deref(), now)?;
        Ok(TokenResponse {
            access_token,
            id_token: None,
            expires_in: TOKEN_LIFE.whole_seconds(),
            scope,
            patient,
        })
    }

    /// A login by `person` (a cast member's name): answers the code to redirect with. Codes are good for one
    /// minute and one exchange.
    pub fn authorize(
        &self,
        request: &AuthorizeRequest<'_>,
        person: &str,
        now: Timestamp,
    ) -> Result<SecretString, DevIssuerError> {
        request.check()?;
        let member = self
            .people()
            .find(|member| member.client_id == person)
            .ok_or(DevIssuerError::new(
                "access_denied",
                "the cast has no such person",
            ))?;
        let scope = granted_scope(request.scope, member.default_scope())?;
        let mut bytes = [0; 32];
        self.entropy.fill(&mut bytes);
        let code = URL_SAFE_NO_PAD.encode(bytes);
        self.codes
            .keep(&code, Kept::new(request, member, scope, now), now);
        Ok(code.into())
    }

    /// The tokens for a code (`grant_type=authorization_code`). A code is used up by any attempt.
    pub fn exchange(
        &self,
        code: &str,
        verifier: &str,
        redirect_uri: &str,
        client_id: &str,
        now: Timestamp,
    ) -> Result<TokenResponse, DevIssuerError> {
        let login = self
            .codes
            .take(code, now)
            .filter(|kept| kept.fits(verifier, redirect_uri, client_id))
            .ok_or(DevIssuerError::new(
                "invalid_grant",
                "the code is unknown, used, expired or another's",
            ))?;
        let access_token = self.access_token(login.person, client_id, &login.scope, None, now)?;
        let id_token = if login.scope.split(' ').any(|scope| scope == "openid") {
            Some(self.id_token(&login, client_id, &access_token, now)?)
        } else {
            None
        };
        Ok(TokenResponse {
            access_token,
            id_token,
            expires_in: TOKEN_LIFE.whole_seconds(),
            scope: login.scope,
            patient: None,
        })
    }

    fn access_token(
        &self,
        member: &CastMember,
        client_id: &str,
        scope: &str,
        patient: Option<&str>,
        now: Timestamp,
    ) -> Result<SecretString, DevIssuerError> {
        let mut claims = self.claims(member, self.realm.audience(), now);
        set(&mut claims, "client_id", json!(client_id));
        set(&mut claims, "scope", json!(scope));
        set(&mut claims, "jti", json!(self.entropy.fresh_id()));
        set(&mut claims, "roles", json!([member.role]));
        set(&mut claims, "teams", json!(member.teams));
        if let Some(actor) = member.acts_as_delegate() {
            set(&mut claims, "act", json!({ "sub": actor }));
        }
        if let Some(patient) = patient {
            set(&mut claims, "patient", json!(patient));
        }
        self.sign("at+jwt", &claims)
    }

    fn id_token(
        &self,
        login: &Kept,
        client_id: &str,
        access_token: &SecretString,
        now: Timestamp,
    ) -> Result<SecretString, DevIssuerError> {
        let member = login.person;
        let hash = digest(&SHA256, access_token.expose_secret().as_bytes());
        let half = hash
            .as_ref()
            .first_chunk::<16>()
            .map(|half| URL_SAFE_NO_PAD.encode(half));
        let mut claims = self.claims(member, client_id, now);
        set(&mut claims, "name", json!(member.name));
        set(&mut claims, "roles", json!([member.role]));
        set(&mut claims, "teams", json!(member.teams));
        set(&mut claims, "sid", json!(self.entropy.fresh_id()));
        set(&mut claims, "at_hash", json!(half));
        set(
            &mut claims,
            "auth_time",
            json!(login.since.0.div_euclid(1_000_000)),
        );
        if let Some(nonce) = &login.nonce {
            set(&mut claims, "nonce", json!(nonce));
        }
        self.sign("JWT", &claims)
    }

    fn claims(&self, member: &CastMember, audience: &str, now: Timestamp) -> Value {
        json!({
            "iss": self.issuer,
            "sub": member.subject,
            "aud": audience,
            "iat": now.0.div_euclid(1_000_000),
            "exp": now.plus(TOKEN_LIFE).0.div_euclid(1_000_000),
            "fhirUser": member.fhir_user,
        })
    }

    fn sign(&self, typ: &str, claims: &Value) -> Result<SecretString, DevIssuerError> {
        self.key
            .sign(typ, claims)
            .map(SecretString::from)
            .map_err(|_| DevIssuerError::new("server_error", "the token could not be signed"))
    }
}

fn set(object: &mut Value, name: &str, value: Value) {
    if let Some(members) = object.as_object_mut() {
        let members: &mut Map<String, Value> = members;
        members.insert(name.to_owned(), value);
    }
}

/// The requested scope if it is one (RFC 6749 section 3.3), the default if none is asked for.
fn granted_scope(requested: Option<&str>, default: &str) -> Result<String, DevIssuerError> {
    let Some(scope) = requested.filter(|scope| !scope.is_empty()) else {
        return Ok(default.to_owned());
    };
    let is_scope_byte = |b: u8| b == 0x21 || (0x23..=0x5b).contains(&b) || (0x5d..=0x7e).contains(&b);
    let is_scope = |word: &str| !word.is_empty() && word.bytes().all(is_scope_byte);
    if scope.len() <= MOST_SCOPE_BYTES && scope.split(' ').all(is_scope) {
        Ok(scope.to_owned())
    } else {
        Err(DevIssuerError::new(
            "invalid_scope",
            "scope is not a list of scopes with single spaces",
        ))
    }
}

fn patient_id(patient: &str) -> Result<String, DevIssuerError> {
    let id = patient.strip_prefix("Patient/").unwrap_or(patient);
    if is_fhir_id(id) {
        Ok(id.to_owned())
    } else {
        Err(DevIssuerError::new("invalid_request", "patient is not an id"))
    }
}

#[cfg(test)]
mod tests;
