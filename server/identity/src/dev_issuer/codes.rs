//! Authorization codes: kept in memory by their hash, for one minute and one exchange, bound to the client,
//! its redirect address and its PKCE challenge (RFC 7636, S256 only).

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use handoff_domain::time::{Span, Timestamp};
use ring::digest::{SHA256, digest};
use url::Url;

use super::DevIssuerError;
use super::cast::CastMember;
use crate::config::is_loopback;

const CODE_LIFE: Span = Span::seconds(60);
const MOST_CODES: usize = 1000;

/// What a client asks of the authorization endpoint. `state` is the HTTP edge's to hand back.
#[derive(Debug, Clone, Copy)]
pub struct AuthorizeRequest<'a> {
    /// `response_type`; must be `code`.
    pub response_type: &'a str,
    /// `client_id`; any client may sign people in here.
    pub client_id: &'a str,
    /// `redirect_uri`; on loopback.
    pub redirect_uri: &'a str,
    /// `scope`.
    pub scope: Option<&'a str>,
    /// `nonce`, repeated in the id token.
    pub nonce: Option<&'a str>,
    /// `code_challenge`.
    pub code_challenge: &'a str,
    /// `code_challenge_method`; must be `S256`.
    pub code_challenge_method: &'a str,
}

impl AuthorizeRequest<'_> {
    /// Whether `redirect_uri` may be redirected to, even with an error: loopback, no fragment.
    pub fn redirect_is_safe(&self) -> bool {
        Url::parse(self.redirect_uri).is_ok_and(|url| {
            matches!(url.scheme(), "http" | "https") && is_loopback(&url) && url.fragment().is_none()
        })
    }

    /// Checks the request, before anybody is asked to pick a person.
    pub fn check(&self) -> Result<(), DevIssuerError> {
        let invalid = |description| Err(DevIssuerError::new("invalid_request", description));
        if !self.redirect_is_safe() {
            return invalid("the redirect address must be on loopback");
        }
        if self.client_id.is_empty() || self.client_id.len() > 256 {
            return invalid("the client has no usable name");
        }
        if self.response_type != "code" {
            return Err(DevIssuerError::new(
                "unsupported_response_type",
                "only `code` is supported",
            ));
        }
        let is_digest = URL_SAFE_NO_PAD
            .decode(self.code_challenge)
            .is_ok_and(|bytes| bytes.len() == 32);
        if self.code_challenge_method != "S256" || !is_digest {
            return invalid("a PKCE challenge by S256 is needed");
        }
        if self.nonce.is_some_and(|nonce| nonce.len() > 512) {
            return invalid("the nonce is too long");
        }
        Ok(())
    }
}

/// A login that waits for its exchange.
pub(super) struct Kept {
    pub(super) person: &'static CastMember,
    pub(super) scope: String,
    pub(super) nonce: Option<String>,
    pub(super) since: Timestamp,
    client_id: String,
    redirect_uri: String,
    challenge: String,
}

impl Kept {
    pub(super) fn new(
        request: &AuthorizeRequest<'_>,
        person: &'static CastMember,
        scope: String,
        since: Timestamp,
    ) -> Self {
        Self {
            person,
            scope,
            nonce: request.nonce.map(str::to_owned),
            since,
            client_id: request.client_id.to_owned(),
            redirect_uri: request.redirect_uri.to_owned(),
            challenge: request.code_challenge.to_owned(),
        }
    }

    pub(super) fn fits(&self, verifier: &str, redirect_uri: &str, client_id: &str) -> bool {
        (43..=128).contains(&verifier.len())
            && URL_SAFE_NO_PAD.encode(digest(&SHA256, verifier.as_bytes())) == self.challenge
            && self.redirect_uri == redirect_uri
            && self.client_id == client_id
    }
}

/// The codes that are out.
#[derive(Default)]
pub(super) struct Codes(Mutex<HashMap<Vec<u8>, Kept>>);

impl Codes {
    pub(super) fn keep(&self, code: &str, login: Kept, now: Timestamp) {
        let mut codes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        codes.retain(|_, kept| is_open(kept, now));
        if codes.len() >= MOST_CODES {
            codes.clear();
        }
        codes.insert(hashed(code), login);
    }

    pub(super) fn take(&self, code: &str, now: Timestamp) -> Option<Kept> {
        let mut codes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        codes.remove(&hashed(code)).filter(|kept| is_open(kept, now))
    }
}

fn is_open(kept: &Kept, now: Timestamp) -> bool {
    now.since(kept.since) < CODE_LIFE
}

fn hashed(code: &str) -> Vec<u8> {
    digest(&SHA256, code.as_bytes()).as_ref().to_vec()
}
