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
use tokio::sync::Semaphore;

use crate::cache::{TokenCache, TokenHash};
use crate::claims::{self, Said};
use crate::config::{Alg, HttpSettings, IssuerConfig, IssuerConfigError};
use crate::dpop::{Proof, Proofs};
use crate::error::{TokenError, quoted};
use crate::fetch::Fetcher;
use crate::introspect::Introspector;
use crate::jws::{Jws, MOST_TOKEN_BYTES};
use crate::keys::{IssuerKeys, KeyError};
use crate::metadata::{Discovered, IssuerMetadata};

/// A validated token is not checked again for this long.
const REMEMBERED_FOR: Span = Span::seconds(60);

/// What an issuer said is good for nothing is not asked about again for this long.
const REFUSED_FOR: Span = Span::seconds(5);

/// The most codes of one issuer that are exchanged at once.
const MOST_EXCHANGES: usize = 32;

/// What a token says, once it is believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Validated<D = ()> {
    /// Who is calling.
    pub principal: Arc<Principal>,
    /// What the validator's user works out of that.
    pub derived: D,
    /// `exp`.
    pub expires_at: Timestamp,
}

/// A token, and how it was sent.
#[derive(Debug, Clone, Copy)]
pub enum Presented<'r> {
    /// `Authorization: Bearer`.
    Bearer(&'r str),
    /// `Authorization: DPoP`, with a proof for this request.
    Dpop(&'r str, Proof<'r>),
}

pub(crate) struct Issuer {
    pub(crate) config: IssuerConfig,
    pub(crate) keys: Arc<IssuerKeys>,
    /// Places for exchanges of codes that are under way.
    pub(crate) exchanges: Semaphore,
    introspector: Option<Introspector>,
}

impl Issuer {
    /// Checks that the issuer signed `jws` by an algorithm that it is allowed, and answers which.
    pub(crate) async fn vouches(&self, jws: &Jws<'_>) -> Result<Alg, TokenError> {
        let alg = Alg::parse(&jws.alg)
            .filter(|alg| self.config.algorithms.contains(alg))
            .ok_or_else(|| not_held(format!("algorithm {} is not allowed", quoted(&jws.alg))))?;
        self.keys.verify(jws, alg).await.map_err(|error| match error {
            KeyError::Signature => not_held("signature does not hold".to_owned()),
            KeyError::UnknownKey => {
                let kid = jws.kid.as_deref().map_or("none".to_owned(), quoted);
                not_held(format!("no such key of the issuer: {kid}"))
            }
            KeyError::Unavailable(detail) => TokenError::unavailable(detail),
        })?;
        Ok(alg)
    }
}

/// What a validator's user works out of each principal, once a token and not once a request.
type Derive<D> = Box<dyn Fn(&Principal) -> D + Send + Sync>;

/// Validates access tokens of the configured issuers.
pub struct TokenValidator<D = ()> {
    pub(crate) issuers: HashMap<String, Issuer>,
    /// Their names, as they are configured.
    order: Vec<String>,
    pub(crate) clock: Arc<dyn Clock>,
    derive: Derive<D>,
    remembered: TokenCache<Validated<D>>,
    /// Tokens that were good at some time, until they end.
    accepted: TokenCache<()>,
    /// Tokens that an issuer said are good for nothing.
    refused: TokenCache<()>,
    proofs: Proofs,
}

impl<D> fmt::Debug for TokenValidator<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let issuers: BTreeSet<_> = self.issuers.keys().collect();
        f.debug_struct("TokenValidator")
            .field("issuers", &issuers)
            .finish_non_exhaustive()
    }
}

impl TokenValidator {
    /// A validator for `issuers` that works nothing out beyond who is calling.
    pub fn new(
        issuers: Vec<IssuerConfig>,
        http: &HttpSettings,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, IssuerConfigError> {
        Self::deriving(issuers, http, clock, |_| ())
    }
}

impl<D> TokenValidator<D> {
    /// A validator for `issuers`, with what its user works out of each principal. Fetches nothing yet: keys are read
    /// when the first token asks for them.
    pub fn deriving(
        issuers: Vec<IssuerConfig>,
        http: &HttpSettings,
        clock: Arc<dyn Clock>,
        derive: impl Fn(&Principal) -> D + Send + Sync + 'static,
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
            let introspector = config.introspection.clone().map(Introspector::new);
            let issuer = Issuer {
                config,
                keys,
                exchanges: Semaphore::new(MOST_EXCHANGES),
                introspector,
            };
            if by_name.insert(name.clone(), issuer).is_some() {
                problems.push(format!("issuer `{name}` is configured twice"));
            }
        }
        let asking = by_name
            .values()
            .filter(|issuer| issuer.introspector.is_some())
            .map(|issuer| &issuer.config.tenant);
        let mut tenants = BTreeSet::new();
        for tenant in asking {
            if !tenants.insert(tenant) {
                problems.push(format!(
                    "two issuers of tenant `{tenant}` would be asked about opaque tokens; each would see those of the other"
                ));
            }
        }
        let Ok(proofs) = Proofs::new() else {
            problems.push("the system gives no random bytes".to_owned());
            return Err(IssuerConfigError(problems));
        };
        if problems.is_empty() {
            Ok(Self {
                issuers: by_name,
                order,
                clock,
                derive: Box::new(derive),
                remembered: TokenCache::new(),
                accepted: TokenCache::new(),
                refused: TokenCache::new(),
                proofs,
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

    /// A nonce for the next DPoP proof.
    pub fn nonce(&self) -> String {
        self.proofs.nonce(self.clock.now())
    }

    /// The SHA-256 of a token that was good when it was seen before and has not ended since. Opens nothing: it may be
    /// revoked by now, and a bound one needs its proof. Costs a digest and a look.
    pub fn known(&self, token: &str) -> Option<[u8; 32]> {
        if token.len() > MOST_TOKEN_BYTES {
            return None;
        }
        let hash = sha256(token);
        self.accepted.get(&hash, self.clock.now()).map(|_| hash)
    }

    /// Validates a token that was presented to `tenant`.
    ///
    /// Fails closed: what is not understood is refused. A token that is bound to a key is good with a proof alone, and
    /// a proof with such a token alone.
    pub async fn validate(
        &self,
        presented: Presented<'_>,
        tenant: &TenantId,
    ) -> Result<Arc<Validated<D>>, TokenError> {
        let (token, proof) = match presented {
            Presented::Bearer(token) => (token, None),
            Presented::Dpop(token, proof) => (token, Some(proof)),
        };
        let validated = self.understood(token, tenant).await?;
        match (&validated.principal.key, proof) {
            (None, None) => {}
            (Some(key), Some(proof)) => {
                let issuer = self.issuers.get(&validated.principal.issuer);
                let demand_nonce = issuer.is_none_or(|issuer| issuer.config.require_dpop_nonce);
                self.proofs
                    .check(&proof, token, key, demand_nonce, self.clock.now())?;
            }
            (Some(_), None) => {
                return Err(TokenError::invalid(
                    "the access token is bound to a key, and cannot be used as a bearer token",
                    "token has `cnf`, and no proof came with it",
                ));
            }
            (None, Some(_)) => {
                return Err(TokenError::invalid(
                    "the access token is not bound to a key; send it as a bearer token",
                    "a proof came with a token that has no `cnf`",
                ));
            }
        }
        Ok(validated)
    }

    /// What a token says, whoever sends it.
    async fn understood(&self, token: &str, tenant: &TenantId) -> Result<Arc<Validated<D>>, TokenError> {
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
        let (issuer, validated, remember) = match Jws::parse(token) {
            Ok(jws) => {
                let issuer = self.issuer_of(&jws, tenant)?;
                self.signed(issuer, &jws, hash).await?
            }
            Err(TokenError::Malformed(refusal)) => match self.opaque(token, tenant, hash).await? {
                Some(found) => found,
                None => return Err(TokenError::Malformed(refusal)),
            },
            Err(other) => return Err(other),
        };
        let now = self.clock.now();
        let leeway = Span::seconds(issuer.config.leeway_seconds);
        let until = validated.expires_at.plus(leeway).min(now.plus(remember));
        self.remembered.put(hash, Arc::clone(&validated), now, until);
        let ends = validated.expires_at.plus(leeway);
        self.accepted.put(hash, Arc::new(()), now, ends);
        Ok(validated)
    }

    /// A signed token, by the issuer's keys.
    async fn signed<'v>(
        &'v self,
        issuer: &'v Issuer,
        jws: &Jws<'_>,
        hash: TokenHash,
    ) -> Result<Understood<'v, D>, TokenError> {
        issuer.vouches(jws).await?;
        let said = Said::BySignature(jws.typ.as_deref());
        // Reading keys can take a while.
        let now = self.clock.now();
        let validated = claims::principal(&issuer.config, said, &jws.claims, now, || named_by(hash))?;
        Ok((issuer, self.derived(validated), REMEMBERED_FOR))
    }

    /// A token that says nothing by itself, by what the tenant's issuer says of it. `None` where none can be asked.
    async fn opaque<'v>(
        &'v self,
        token: &str,
        tenant: &TenantId,
        hash: TokenHash,
    ) -> Result<Option<Understood<'v, D>>, TokenError> {
        // There is one at most: a token is shown to nobody but its own issuer.
        let asked = self
            .issuers_of(tenant)
            .filter_map(|name| self.issuers.get(name))
            .find_map(|issuer| Some((issuer, issuer.introspector.as_ref()?)));
        match asked {
            Some((issuer, introspector)) => self.asked(issuer, introspector, token, hash).await.map(Some),
            None => Ok(None),
        }
    }

    /// A token, by what its issuer says when asked.
    async fn asked<'v>(
        &'v self,
        issuer: &'v Issuer,
        introspector: &Introspector,
        token: &str,
        hash: TokenHash,
    ) -> Result<Understood<'v, D>, TokenError> {
        const INACTIVE: &str = "the access token is expired, revoked or unknown to its issuer";
        if !(1..=MOST_TOKEN_BYTES).contains(&token.len()) || !token.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(TokenError::malformed("token has bytes that no token has"));
        }
        let key = of_issuer(hash, &issuer.config.issuer);
        if self.refused.get(&key, self.clock.now()).is_some() {
            return Err(TokenError::invalid(
                INACTIVE,
                "introspection: not active, a moment ago",
            ));
        }
        let metadata;
        let endpoint = if let Some(endpoint) = introspector.endpoint() {
            endpoint
        } else {
            metadata = issuer.keys.metadata().await.map_err(TokenError::unavailable)?;
            metadata
                .introspection_endpoint
                .as_deref()
                .ok_or_else(|| TokenError::unavailable("the issuer names no introspection endpoint"))?
        };
        let said = introspector.ask(issuer.keys.fetcher(), endpoint, token).await?;
        let now = self.clock.now();
        let Some(said) = said else {
            self.refused.put(key, Arc::new(()), now, now.plus(REFUSED_FOR));
            return Err(TokenError::invalid(INACTIVE, "introspection: not active"));
        };
        let validated = claims::principal(&issuer.config, Said::ByIssuer, &said, now, || named_by(hash))?;
        let remember = Span::seconds(introspector.remember_seconds());
        Ok((issuer, self.derived(validated), remember))
    }

    pub(crate) fn derived(&self, validated: Validated) -> Arc<Validated<D>> {
        Arc::new(Validated {
            derived: (self.derive)(&validated.principal),
            principal: validated.principal,
            expires_at: validated.expires_at,
        })
    }

    /// The issuer that `jws` names, where it is one of `tenant`.
    pub(crate) fn issuer_of(&self, jws: &Jws<'_>, tenant: &TenantId) -> Result<&Issuer, TokenError> {
        jws.claims
            .get("iss")
            .and_then(Value::as_str)
            .and_then(|name| self.issuers.get(name))
            .filter(|issuer| issuer.config.tenant == *tenant)
            .ok_or_else(foreign)
    }
}

/// Whose token it is, what it says, and how long that is remembered at most.
type Understood<'v, D> = (&'v Issuer, Arc<Validated<D>>, Span);

/// What a token without an id of its own is called.
pub(crate) fn named_by(hash: TokenHash) -> String {
    format!("sha256:{}", URL_SAFE_NO_PAD.encode(hash))
}

/// What one issuer's answer about a token is remembered under.
fn of_issuer(hash: TokenHash, issuer: &str) -> TokenHash {
    sha256(&format!("{} {issuer}", URL_SAFE_NO_PAD.encode(hash)))
}

/// The same answer for an unknown issuer and for another tenant's.
pub(crate) fn foreign() -> TokenError {
    TokenError::invalid(
        "the issuer of the access token is not trusted here",
        "issuer is not configured for this tenant",
    )
}

fn not_held(detail: String) -> TokenError {
    TokenError::invalid("the signature of the access token could not be verified", detail)
}

pub(crate) fn sha256(token: &str) -> TokenHash {
    let digest = ring::digest::digest(&ring::digest::SHA256, token.as_bytes());
    let mut hash = [0; 32];
    for (to, from) in hash.iter_mut().zip(digest.as_ref()) {
        *to = *from;
    }
    hash
}

#[cfg(test)]
mod tests;
