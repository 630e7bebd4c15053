//! The validator of access tokens (RFC 9068 section 4, strictness by issuer): issuer, signature, claims, in that
//! order, and a principal at the end. Knows no HTTP status and no policy.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use handoff_domain::access::Principal;
use handoff_domain::ids::TenantId;
use handoff_domain::ports::Clock;
use handoff_domain::time::{Span, Timestamp};
use openidconnect::JsonWebKeySet;
use openidconnect::core::CoreJsonWebKey;
use serde_json::Value;

use crate::cache::{TokenCache, TokenHash};
use crate::claims;
use crate::config::{Alg, HttpSettings, IssuerConfig, IssuerConfigError};
use crate::error::{TokenError, quoted};
use crate::fetch::Fetcher;
use crate::jws::{Jws, MOST_TOKEN_BYTES};
use crate::keys::{IssuerKeys, KeyError};
use crate::metadata::{Discovered, IssuerMetadata};

/// A validated token is not checked again for this long.
const REMEMBERED_FOR: Span = Span::seconds(60);

/// What a token says, once it is believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Validated {
    /// Who is calling.
    pub principal: Principal,
    /// Roles of the token that map to nothing, and so give nothing. For the audit.
    pub unmapped_roles: Vec<String>,
    /// `exp`.
    pub expires_at: Timestamp,
}

struct Issuer {
    config: IssuerConfig,
    keys: Arc<IssuerKeys>,
}

/// Validates access tokens of the configured issuers.
pub struct TokenValidator {
    issuers: HashMap<String, Issuer>,
    /// Their names, as they are configured.
    order: Vec<String>,
    clock: Arc<dyn Clock>,
    remembered: TokenCache<Validated>,
}

impl fmt::Debug for TokenValidator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let issuers: BTreeSet<_> = self.issuers.keys().collect();
        f.debug_struct("TokenValidator")
            .field("issuers", &issuers)
            .finish_non_exhaustive()
    }
}

impl TokenValidator {
    /// A validator for `issuers`. Fetches nothing yet: keys are read when the first token asks for them.
    pub fn new(
        issuers: Vec<IssuerConfig>,
        http: &HttpSettings,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, IssuerConfigError> {
        let mut problems: Vec<String> = issuers.iter().flat_map(IssuerConfig::problems).collect();
        let order = issuers.iter().map(|issuer| issuer.issuer.clone()).collect();
        let mut by_name = HashMap::new();
        for mut config in issuers {
            let Ok(url) = config.url() else { continue };
            let fetcher = match Fetcher::new(url.url(), config.allow_insecure_loopback, http) {
                Ok(fetcher) => fetcher,
                Err(error) => {
                    problems.push(format!("cannot fetch keys of `{}`: {error}", config.issuer));
                    continue;
                }
            };
            config.role_map = config
                .role_map
                .into_iter()
                .map(|(name, role)| (name.to_lowercase(), role))
                .collect();
            let keys = Arc::new(IssuerKeys::new(url, fetcher, Arc::clone(&clock)));
            let name = config.issuer.clone();
            if by_name.insert(name.clone(), Issuer { config, keys }).is_some() {
                problems.push(format!("issuer `{name}` is configured twice"));
            }
        }
        if problems.is_empty() {
            Ok(Self {
                issuers: by_name,
                order,
                clock,
                remembered: TokenCache::new(),
            })
        } else {
            Err(IssuerConfigError(problems))
        }
    }

    /// Hands in the discovery document and the keys (a JWKS document) of `issuer`, as if they had been read just now.
    /// For an issuer in the same process, which need not be asked over HTTP. False where the issuer is not configured
    /// or the documents are not what they should be.
    pub fn preload(&self, issuer: &str, discovery: &Value, jwks: &Value) -> bool {
        let metadata = serde_json::from_value::<Discovered>(discovery.clone());
        let keys = serde_json::from_value::<JsonWebKeySet<CoreJsonWebKey>>(jwks.clone());
        match (self.issuers.get(issuer), metadata, keys) {
            (Some(issuer), Ok(metadata), Ok(keys)) => {
                issuer.keys.preload(&metadata, &keys);
                true
            }
            _ => false,
        }
    }

    /// The issuers of a tenant by name, in the order in which they are configured.
    pub fn issuers_of<'v>(&'v self, tenant: &'v TenantId) -> impl Iterator<Item = &'v str> + 'v {
        self.order
            .iter()
            .filter(|name| {
                self.issuers
                    .get(*name)
                    .is_some_and(|issuer| issuer.config.tenant == *tenant)
            })
            .map(String::as_str)
    }

    /// What an issuer says about itself. Fails where it is not configured, or was never read and can't be reached.
    pub async fn metadata(&self, issuer: &str) -> Result<IssuerMetadata, TokenError> {
        let issuer = self.issuers.get(issuer).ok_or_else(foreign)?;
        issuer.keys.metadata().await.map_err(TokenError::unavailable)
    }

    /// Validates `token`, which was presented to `tenant` as a bearer token.
    ///
    /// Fails closed: what is not understood is refused. A token that is bound to a key (`cnf`) is refused,
    /// since no proof comes with it here.
    pub async fn validate(&self, token: &str, tenant: &TenantId) -> Result<Arc<Validated>, TokenError> {
        if token.len() > MOST_TOKEN_BYTES {
            return Err(TokenError::malformed("token is longer than 16 KiB"));
        }
        let now = self.clock.now();
        let hash = sha256(token);
        if let Some(known) = self.remembered.get(&hash, now) {
            return if known.principal.tenant == *tenant {
                Ok(known)
            } else {
                Err(foreign())
            };
        }
        let jws = Jws::parse(token)?;
        let issuer = self.issuer_of(&jws, tenant)?;
        let alg = Alg::parse(&jws.alg)
            .filter(|alg| issuer.config.algorithms.contains(alg))
            .ok_or_else(|| not_held(format!("algorithm {} is not allowed", quoted(&jws.alg))))?;
        issuer.keys.verify(&jws, alg).await.map_err(|error| match error {
            KeyError::Signature => not_held("signature does not hold".to_owned()),
            KeyError::UnknownKey => {
                let kid = jws.kid.as_deref().map_or("none".to_owned(), quoted);
                not_held(format!("no such key of the issuer: {kid}"))
            }
            KeyError::Unavailable(detail) => TokenError::unavailable(detail),
        })?;
        // Reading keys can take a while.
        let now = self.clock.now();
        let validated = Arc::new(claims::principal(
            &issuer.config,
            jws.typ.as_deref(),
            &jws.claims,
            now,
            || format!("sha256:{}", URL_SAFE_NO_PAD.encode(hash)),
        )?);
        let leeway = Span::seconds(issuer.config.leeway_seconds);
        let until = validated.expires_at.plus(leeway).min(now.plus(REMEMBERED_FOR));
        self.remembered.put(hash, Arc::clone(&validated), now, until);
        Ok(validated)
    }

    fn issuer_of(&self, jws: &Jws<'_>, tenant: &TenantId) -> Result<&Issuer, TokenError> {
        jws.claims
            .get("iss")
            .and_then(Value::as_str)
            .and_then(|name| self.issuers.get(name))
            .filter(|issuer| issuer.config.tenant == *tenant)
            .ok_or_else(foreign)
    }
}

/// The same answer for an unknown issuer and for another tenant's.
fn foreign() -> TokenError {
    TokenError::invalid(
        "the issuer of the access token is not trusted here",
        "issuer is not configured for this tenant",
    )
}

fn not_held(detail: String) -> TokenError {
    TokenError::invalid("the signature of the access token could not be verified", detail)
}

fn sha256(token: &str) -> TokenHash {
    let digest = ring::digest::digest(&ring::digest::SHA256, token.as_bytes());
    let mut hash = [0; 32];
    for (to, from) in hash.iter_mut().zip(digest.as_ref()) {
        *to = *from;
    }
    hash
}

#[cfg(test)]
mod tests;
