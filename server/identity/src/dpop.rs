//! Proof of possession (RFC 9449 section 4.3): that whoever sends a token holds the key that it is bound to, for this
//! request and no other. A proof is good once.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use handoff_domain::time::{Span, Timestamp};
use openidconnect::JsonWebKey as _;
use openidconnect::core::CoreJsonWebKey;
use ring::hmac;
use ring::rand::SystemRandom;
use serde_json::{Map, Value, json};
use url::Url;

use crate::config::Alg;
use crate::error::{TokenError, quoted};
use crate::jws::{Jws, header_of};
use crate::keys::is_usable;

/// How far from now a proof may have been made. Twice as long it is remembered.
const WINDOW: Span = Span::seconds(60);
/// How long a nonce is handed out; it is good for twice as long.
const NONCE_STEP: Span = Span::minutes(3);
/// The longest proof that is looked at, in bytes.
const MOST_BYTES: usize = 8 * 1024;
/// The longest `jti`, in bytes.
const MOST_ID_BYTES: usize = 256;
/// The most proofs that are remembered of one key, and of all.
const MOST_OF_KEY: usize = 50_000;
const MOST_REMEMBERED: usize = 500_000;
/// The least time between two looks for what may be forgotten.
const CLEARED_EVERY: Span = Span::seconds(1);

/// What is sent beside a token, and for which request.
#[derive(Debug, Clone, Copy)]
pub struct Proof<'r> {
    /// The `DPoP` header.
    pub jwt: &'r str,
    /// The method of the request.
    pub method: &'r str,
    /// The request's URL as clients see it; query and fragment do not count.
    pub url: &'r str,
}

/// Checks proofs, and remembers them so that each is good once.
pub(crate) struct Proofs {
    nonce_key: hmac::Key,
    seen: Mutex<Seen>,
}

/// Proofs that were good once: by the key's thumbprint, the digest of their ids and until when.
#[derive(Default)]
struct Seen {
    by_key: HashMap<String, HashMap<[u8; 32], Timestamp>>,
    count: usize,
    cleared: Option<Timestamp>,
}

impl Seen {
    /// Forgets what is too old to be used again, where it was not looked for just now.
    fn clear(&mut self, now: Timestamp) {
        if self.cleared.is_some_and(|last| now.since(last) < CLEARED_EVERY) {
            return;
        }
        self.cleared = Some(now);
        for ids in self.by_key.values_mut() {
            ids.retain(|_, until| now < *until);
        }
        self.by_key.retain(|_, ids| !ids.is_empty());
        self.count = self.by_key.values().map(HashMap::len).sum();
    }

    /// Whether there is room for one more of this key.
    fn has_room(&self, thumbprint: &str) -> bool {
        self.count < MOST_REMEMBERED
            && self
                .by_key
                .get(thumbprint)
                .is_none_or(|ids| ids.len() < MOST_OF_KEY)
    }
}

impl Proofs {
    /// Fails where the system gives no random bytes.
    #[expect(
        clippy::disallowed_methods,
        reason = "ring makes keys only with a generator of its own"
    )]
    pub(crate) fn new() -> Result<Self, ring::error::Unspecified> {
        Ok(Self {
            nonce_key: hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new())?,
            seen: Mutex::default(),
        })
    }

    /// A nonce to hand out at `now`.
    pub(crate) fn nonce(&self, now: Timestamp) -> String {
        self.nonce_of(now.0.div_euclid(NONCE_STEP.0))
    }

    fn nonce_of(&self, step: i64) -> String {
        URL_SAFE_NO_PAD.encode(hmac::sign(&self.nonce_key, &step.to_be_bytes()))
    }

    fn knows_nonce(&self, nonce: &str, now: Timestamp) -> bool {
        let step = now.0.div_euclid(NONCE_STEP.0);
        [step, step.saturating_sub(1)]
            .iter()
            .any(|step| self.nonce_of(*step) == nonce)
    }

    /// Checks that `proof` is one for `token`, which is bound to the key with the thumbprint `bound_to`.
    pub(crate) fn check(
        &self,
        proof: &Proof<'_>,
        token: &str,
        bound_to: &str,
        demand_nonce: bool,
        now: Timestamp,
    ) -> Result<(), TokenError> {
        if proof.jwt.len() > MOST_BYTES {
            return Err(bad("the DPoP proof is too long", "longer than 8 KiB".to_owned()));
        }
        let jws = Jws::parse(proof.jwt)
            .map_err(|error| bad("the DPoP proof is not a signed JWT", error.detail().to_owned()))?;
        if jws.typ.as_deref() != Some("dpop+jwt") {
            return Err(bad(
                "the DPoP proof is not a DPoP proof",
                "header type is not `dpop+jwt`".to_owned(),
            ));
        }
        let alg = Alg::parse(&jws.alg).ok_or_else(|| {
            bad(
                "the DPoP proof is signed with an algorithm that is not allowed",
                quoted(&jws.alg),
            )
        })?;
        let (key, thumbprint) = key_of(proof.jwt)?;
        if thumbprint != bound_to {
            return Err(bad(
                "the DPoP proof is by a key that the access token is not bound to",
                "thumbprint".to_owned(),
            ));
        }
        if key
            .verify_signature(&alg.core(), jws.signed.as_bytes(), &jws.signature)
            .is_err()
        {
            return Err(bad(
                "the DPoP proof is not signed by its key",
                "signature does not hold".to_owned(),
            ));
        }
        let text = |name: &str| jws.claims.get(name).and_then(Value::as_str);
        if text("htm") != Some(proof.method) {
            return Err(bad("the DPoP proof is for another method", "`htm`".to_owned()));
        }
        if !text("htu").is_some_and(|url| is_same(url, proof.url)) {
            return Err(bad("the DPoP proof is for another URL", "`htu`".to_owned()));
        }
        let made = jws
            .claims
            .get("iat")
            .and_then(Value::as_i64)
            .filter(|seconds| *seconds >= 0);
        let made =
            made.ok_or_else(|| bad("the DPoP proof does not say when it was made", "`iat`".to_owned()))?;
        let made = Timestamp(0).plus(Span::seconds(made));
        if made.since(now).0.saturating_abs() > WINDOW.0 {
            return Err(bad(
                "the DPoP proof was not made just now",
                "`iat` is too far from now".to_owned(),
            ));
        }
        if text("ath") != Some(digest(token.as_bytes()).as_str()) {
            return Err(bad(
                "the DPoP proof is for another access token",
                "`ath`".to_owned(),
            ));
        }
        match text("nonce") {
            Some(nonce) if self.knows_nonce(nonce, now) => {}
            None if !demand_nonce => {}
            _ => return Err(TokenError::UseNonce),
        }
        let id = text("jti")
            .filter(|id| (1..=MOST_ID_BYTES).contains(&id.len()))
            .ok_or_else(|| bad("the DPoP proof has no usable id", "`jti`".to_owned()))?;
        // Last, so that only holders of a good token fill the memory.
        self.remember(&thumbprint, id, now)
    }

    fn remember(&self, thumbprint: &str, id: &str, now: Timestamp) -> Result<(), TokenError> {
        let mut hash = [0; 32];
        hash.copy_from_slice(ring::digest::digest(&ring::digest::SHA256, id.as_bytes()).as_ref());
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if !seen.has_room(thumbprint) {
            seen.clear(now);
            if !seen.has_room(thumbprint) {
                // What can't be remembered could be used again.
                return Err(TokenError::busy(
                    "too many DPoP proofs were sent to be remembered",
                ));
            }
        }
        // For as long as it would be taken as made just now, and a little more.
        let until = now.plus(WINDOW).plus(WINDOW).plus(Span::seconds(1));
        let ids = seen.by_key.entry(thumbprint.to_owned()).or_default();
        match ids.insert(hash, until) {
            Some(known) if now < known => Err(bad(
                "the DPoP proof was used before",
                "`jti` was seen before".to_owned(),
            )),
            Some(_) => Ok(()),
            None => {
                seen.count = seen.count.saturating_add(1);
                Ok(())
            }
        }
    }
}

fn bad(public: &'static str, detail: String) -> TokenError {
    TokenError::proof(public, detail)
}

/// The key that a proof offers, with its thumbprint (RFC 7638).
fn key_of(jwt: &str) -> Result<(CoreJsonWebKey, String), TokenError> {
    /// Members of private and of shared keys.
    const SECRET: [&str; 8] = ["d", "p", "q", "dp", "dq", "qi", "oth", "k"];
    let header = header_of(jwt)
        .map_err(|error| bad("the DPoP proof is not a signed JWT", error.detail().to_owned()))?;
    let Some(Value::Object(jwk)) = header.get("jwk") else {
        return Err(bad("the DPoP proof has no key", "header has no `jwk`".to_owned()));
    };
    if SECRET.iter().any(|member| jwk.contains_key(*member)) {
        return Err(bad(
            "the DPoP proof shows a private key",
            "`jwk` is not a public key".to_owned(),
        ));
    }
    let thumbprint = thumbprint(jwk).ok_or_else(|| {
        bad(
            "the DPoP proof has no usable key",
            "`jwk` lacks members".to_owned(),
        )
    })?;
    let key: CoreJsonWebKey = serde_json::from_value(Value::Object(jwk.clone()))
        .map_err(|error| bad("the DPoP proof has no usable key", format!("`jwk`: {error}")))?;
    if is_usable(&key) {
        Ok((key, thumbprint))
    } else {
        Err(bad(
            "the DPoP proof has no usable key",
            "`jwk` is of another kind, or too short".to_owned(),
        ))
    }
}

fn thumbprint(jwk: &Map<String, Value>) -> Option<String> {
    let member = |name: &str| jwk.get(name).and_then(Value::as_str);
    let members = match member("kty")? {
        "EC" => ["crv", "kty", "x", "y"].as_slice(),
        "RSA" => ["e", "kty", "n"].as_slice(),
        _ => return None,
    };
    // In order of their names, and without blanks.
    let parts: Option<Vec<String>> = members
        .iter()
        .map(|name| Some(format!("{}:{}", json!(name), json!(member(name)?))))
        .collect();
    Some(digest(format!("{{{}}}", parts?.join(",")).as_bytes()))
}

fn digest(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(ring::digest::digest(&ring::digest::SHA256, bytes))
}

/// Whether two URLs are the same but for query and fragment.
fn is_same(one: &str, other: &str) -> bool {
    let normal = |text: &str| {
        let mut url = Url::parse(text).ok()?;
        url.set_query(None);
        url.set_fragment(None);
        Some(url)
    };
    matches!((normal(one), normal(other)), (Some(one), Some(other)) if one == other)
}
