//! The keys of one issuer: read by discovery, kept, read again when they are old or a token names one that
//! is not known. One read at a time, and not in close succession, so that made-up key ids cost the issuer
//! nothing. While the issuer is down known keys go on and unknown ones fail closed.

use std::sync::{Arc, PoisonError, RwLock};

use handoff_domain::ports::Clock;
use handoff_domain::time::{Span, Timestamp};
use openidconnect::core::{CoreJsonWebKey, CoreJsonWebKeyType};
use openidconnect::{IssuerUrl, JsonWebKey, JsonWebKeySet};
use serde_json::Value;
use tokio::sync::Mutex;

use crate::config::Alg;
use crate::fetch::{Fetcher, chain};
use crate::jws::Jws;
use crate::metadata::{Discovered, IssuerMetadata};

/// Keys are read again after this long.
const FRESH_FOR: Span = Span::hours(1);
/// The least time between two reads while keys are known.
const SPACING: Span = Span::seconds(10);
/// The same while none were ever read: a server that starts before its issuer should not wait long.
const SPACING_WITHOUT_KEYS: Span = Span::seconds(1);
/// The most keys that are tried for a token that names none.
const MOST_TRIES: usize = 8;
/// 2048 bits of modulus in base64url.
const LEAST_RSA_DIGITS: usize = 342;

/// Why a signature did not hold.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum KeyError {
    /// The key is known and did not make this signature.
    Signature,
    /// The issuer has no such key, or cannot be asked now.
    UnknownKey,
    /// No key of the issuer was ever read.
    Unavailable(String),
}

enum Verdict {
    Good,
    Bad,
    NoKey,
}

struct KeySet {
    keys: Vec<CoreJsonWebKey>,
    metadata: IssuerMetadata,
    read_at: Timestamp,
    generation: u64,
}

impl KeySet {
    fn verdict(&self, jws: &Jws<'_>, alg: Alg) -> Verdict {
        let holds = |key: &CoreJsonWebKey| {
            key.verify_signature(&alg.core(), jws.signed.as_bytes(), &jws.signature)
                .is_ok()
        };
        let Some(kid) = jws.kid.as_deref() else {
            // A token without key id fits any key. If none holds, the right one may not be known yet.
            let any = self.keys.iter().take(MOST_TRIES).any(holds);
            return if any { Verdict::Good } else { Verdict::NoKey };
        };
        let mut named = self
            .keys
            .iter()
            .filter(|key| key.key_id().is_some_and(|id| id.as_str() == kid))
            .peekable();
        if named.peek().is_none() {
            Verdict::NoKey
        } else if named.any(holds) {
            Verdict::Good
        } else {
            Verdict::Bad
        }
    }
}

#[derive(Default)]
struct State {
    set: Option<Arc<KeySet>>,
    last_attempt: Option<Timestamp>,
}

/// The keys of one issuer.
pub(crate) struct IssuerKeys {
    issuer: IssuerUrl,
    fetcher: Fetcher,
    clock: Arc<dyn Clock>,
    state: RwLock<State>,
    flight: Mutex<()>,
}

impl IssuerKeys {
    pub(crate) fn new(issuer: IssuerUrl, fetcher: Fetcher, clock: Arc<dyn Clock>) -> Self {
        Self {
            issuer,
            fetcher,
            clock,
            state: RwLock::default(),
            flight: Mutex::new(()),
        }
    }

    /// Checks the signature of `jws`, reading keys where that is needed and allowed.
    pub(crate) async fn verify(self: &Arc<Self>, jws: &Jws<'_>, alg: Alg) -> Result<(), KeyError> {
        let held = self.held();
        if let Some(set) = &held {
            self.refresh_if_old(set);
            match set.verdict(jws, alg) {
                Verdict::Good => return Ok(()),
                Verdict::Bad => return Err(KeyError::Signature),
                Verdict::NoKey => {}
            }
        }
        let known = held.as_ref().map_or(0, |set| set.generation);
        match self.refreshed(known).await {
            Ok(set) => match set.verdict(jws, alg) {
                Verdict::Good => Ok(()),
                Verdict::Bad => Err(KeyError::Signature),
                Verdict::NoKey => Err(KeyError::UnknownKey),
            },
            Err(_) if held.is_some() => Err(KeyError::UnknownKey),
            Err(detail) => Err(KeyError::Unavailable(detail)),
        }
    }

    /// Reads in the background what was read too long ago.
    fn refresh_if_old(self: &Arc<Self>, set: &KeySet) {
        if self.clock.now().since(set.read_at) > FRESH_FOR && self.may_attempt() {
            let (this, known) = (Arc::clone(self), set.generation);
            tokio::spawn(async move { this.refresh(known).await });
        }
    }

    /// What the issuer says about itself, asking it where it was never read.
    pub(crate) async fn metadata(self: &Arc<Self>) -> Result<IssuerMetadata, String> {
        let set = match self.held() {
            Some(set) => set,
            None => self.refreshed(0).await?,
        };
        self.refresh_if_old(&set);
        Ok(set.metadata.clone())
    }

    /// Where its requests go out.
    pub(crate) const fn fetcher(&self) -> &Fetcher {
        &self.fetcher
    }

    /// Takes both as read just now, without asking the issuer.
    pub(crate) fn preload(&self, metadata: &Discovered, jwks: &JsonWebKeySet<CoreJsonWebKey>) {
        self.take(metadata, jwks);
    }

    /// Reads the keys unless somebody else just did. The read goes on if the caller goes away.
    async fn refreshed(self: &Arc<Self>, known: u64) -> Result<Arc<KeySet>, String> {
        if !self.may_attempt() && self.flight.try_lock().is_ok() {
            return self
                .newer_than(known)
                .ok_or_else(|| "keys were asked for a moment ago".to_owned());
        }
        let this = Arc::clone(self);
        tokio::spawn(async move { this.refresh(known).await })
            .await
            .unwrap_or_else(|_| Err("reading keys was abandoned".to_owned()))
    }

    async fn refresh(&self, known: u64) -> Result<Arc<KeySet>, String> {
        let _flight = self.flight.lock().await;
        if let Some(set) = self.newer_than(known) {
            return Ok(set);
        }
        if !self.may_attempt() {
            return Err("keys were asked for a moment ago".to_owned());
        }
        let now = self.clock.now();
        self.write(|state| state.last_attempt = Some(now));
        match Discovered::discover_async(self.issuer.clone(), &self.fetcher).await {
            Ok(metadata) => Ok(self.take(&metadata, metadata.jwks())),
            Err(error) => {
                let detail = chain(&error);
                tracing::warn!(
                    issuer = self.issuer.as_str(),
                    error = detail,
                    "issuer keys could not be read"
                );
                Err(detail)
            }
        }
    }

    fn take(&self, metadata: &Discovered, jwks: &JsonWebKeySet<CoreJsonWebKey>) -> Arc<KeySet> {
        let keys: Vec<_> = jwks.keys().iter().filter(|key| is_usable(key)).cloned().collect();
        let (kept, ignored) = (keys.len(), jwks.keys().len().saturating_sub(keys.len()));
        tracing::info!(
            issuer = self.issuer.as_str(),
            kept,
            ignored,
            "issuer keys were read"
        );
        let metadata = IssuerMetadata::from(metadata);
        let read_at = self.clock.now();
        self.write(|state| {
            let generation = state
                .set
                .as_ref()
                .map_or(0, |set| set.generation)
                .saturating_add(1);
            let set = Arc::new(KeySet {
                keys,
                metadata,
                read_at,
                generation,
            });
            state.set = Some(Arc::clone(&set));
            set
        })
    }

    fn held(&self) -> Option<Arc<KeySet>> {
        self.read(|state| state.set.clone())
    }

    fn newer_than(&self, known: u64) -> Option<Arc<KeySet>> {
        self.held().filter(|set| set.generation > known)
    }

    fn may_attempt(&self) -> bool {
        let now = self.clock.now();
        self.read(|state| {
            let spacing = if state.set.is_some() {
                SPACING
            } else {
                SPACING_WITHOUT_KEYS
            };
            // A clock set back must not stop reading for good.
            state.last_attempt.is_none_or(|last| {
                let passed = now.since(last);
                passed >= spacing || passed < Span(0)
            })
        })
    }

    // Every change is one assignment, so a poisoned lock is as good as any.
    fn read<R>(&self, look: impl FnOnce(&State) -> R) -> R {
        look(&self.state.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn write<R>(&self, change: impl FnOnce(&mut State) -> R) -> R {
        change(&mut self.state.write().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Whether a published key may verify tokens: asymmetric, and RSA of 2048 bits or more.
pub(crate) fn is_usable(key: &CoreJsonWebKey) -> bool {
    match key.key_type() {
        CoreJsonWebKeyType::EllipticCurve => true,
        CoreJsonWebKeyType::RSA => serde_json::to_value(key)
            .ok()
            .as_ref()
            .and_then(|key| key.get("n").and_then(Value::as_str))
            .is_some_and(|modulus| modulus.trim_start_matches('A').len() >= LEAST_RSA_DIGITS),
        _ => false,
    }
}
