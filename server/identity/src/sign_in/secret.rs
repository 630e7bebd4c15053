//! What one login is held together by: a secret that the browser keeps, and what is derived of it, so that nothing
//! need be kept of a visitor whom nobody knows yet.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use handoff_domain::ports::Entropy;
use ring::hmac;
use secrecy::{ExposeSecret, SecretBox, SecretString};

/// Bytes of a secret.
const BYTES: usize = 32;

/// The secret of one login: 256 bits that only the browser has, in a cookie. PKCE verifier, nonce and state derive from
/// it, so make a fresh one for each login and let the browser forget it when the login ends.
#[derive(Debug)]
pub struct LoginSecret(SecretBox<[u8; BYTES]>);

/// What is derived of a secret.
#[derive(Debug, Clone, Copy)]
pub(super) enum Part {
    State,
    Nonce,
    Verifier,
}

impl Part {
    const fn label(self) -> &'static str {
        match self {
            Self::State => "handoff sign-in state",
            Self::Nonce => "handoff sign-in nonce",
            Self::Verifier => "handoff sign-in verifier",
        }
    }
}

impl LoginSecret {
    /// A fresh secret.
    pub fn fresh(entropy: &dyn Entropy) -> Self {
        let mut bytes = [0; BYTES];
        entropy.fill(&mut bytes);
        Self::from_bytes(bytes)
    }

    /// The secret of those bytes.
    pub fn from_bytes(bytes: [u8; BYTES]) -> Self {
        Self(SecretBox::new(Box::new(bytes)))
    }

    /// The secret that `to_base64url` wrote: 43 characters.
    pub fn parse(text: &str) -> Option<Self> {
        let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
        bytes.try_into().ok().map(Self::from_bytes)
    }

    /// The secret as the browser keeps it: 43 characters, fit for a cookie.
    pub fn to_base64url(&self) -> SecretString {
        URL_SAFE_NO_PAD.encode(self.0.expose_secret()).into()
    }

    /// A part of the login at `issuer` that leads to `place`: 43 characters.
    pub(super) fn derive(&self, part: Part, issuer: &str, place: &str) -> String {
        URL_SAFE_NO_PAD.encode(hmac::sign(&self.key(), &message(part, issuer, place)))
    }

    /// Whether `text` is that part, compared in constant time.
    pub(super) fn derives(&self, part: Part, issuer: &str, place: &str, text: &str) -> bool {
        URL_SAFE_NO_PAD
            .decode(text)
            .is_ok_and(|tag| hmac::verify(&self.key(), &message(part, issuer, place), &tag).is_ok())
    }

    fn key(&self) -> hmac::Key {
        hmac::Key::new(hmac::HMAC_SHA256, self.0.expose_secret())
    }
}

/// No place has a NUL in it, so no two logins have the same.
fn message(part: Part, issuer: &str, place: &str) -> Vec<u8> {
    [part.label(), issuer, place].join("\0").into_bytes()
}
