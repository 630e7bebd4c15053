//! The development issuer's signing key: ECDSA P-256, made fresh or read back. Its private half is never shown.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use secrecy::{ExposeSecret, SecretSlice};
use serde_json::{Value, json};
use thiserror::Error;

/// A key that could not be made, read or used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("not a usable P-256 signing key")]
pub struct DevKeyError;

/// An ES256 key with its public JWK.
pub struct DevKey {
    pair: EcdsaKeyPair,
    random: SystemRandom,
    kid: String,
    x: String,
    y: String,
    pkcs8: SecretSlice<u8>,
}

impl fmt::Debug for DevKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DevKey")
            .field("kid", &self.kid)
            .finish_non_exhaustive()
    }
}

impl DevKey {
    /// A fresh key.
    pub fn generate() -> Result<Self, DevKeyError> {
        let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &system_random())
            .map_err(|_| DevKeyError)?;
        Self::from_pkcs8(document.as_ref())
    }

    /// The key in a PKCS #8 document, as [`Self::pkcs8`] gave it.
    pub fn from_pkcs8(document: &[u8]) -> Result<Self, DevKeyError> {
        let random = system_random();
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, document, &random)
            .map_err(|_| DevKeyError)?;
        // An uncompressed point: 0x04, then x and y of 32 bytes each.
        let (x, y) = pair
            .public_key()
            .as_ref()
            .strip_prefix(&[4])
            .and_then(|point| point.split_at_checked(32))
            .map(|(x, y)| (URL_SAFE_NO_PAD.encode(x), URL_SAFE_NO_PAD.encode(y)))
            .ok_or(DevKeyError)?;
        // RFC 7638: the members in this order, without spaces.
        let canonical = format!(r#"{{"crv":"P-256","kty":"EC","x":"{x}","y":"{y}"}}"#);
        let kid = URL_SAFE_NO_PAD.encode(ring::digest::digest(&ring::digest::SHA256, canonical.as_bytes()));
        Ok(Self {
            pair,
            random,
            kid,
            x,
            y,
            pkcs8: SecretSlice::from(document.to_vec()),
        })
    }

    /// The key as a PKCS #8 document, to be read back later.
    pub const fn pkcs8(&self) -> &SecretSlice<u8> {
        &self.pkcs8
    }

    /// A second handle on the same key, for another realm of the same process.
    pub fn duplicate(&self) -> Result<Self, DevKeyError> {
        Self::from_pkcs8(self.pkcs8.expose_secret())
    }

    /// The key's id: its RFC 7638 thumbprint.
    pub fn kid(&self) -> &str {
        &self.kid
    }

    /// The public half as a JWK.
    pub fn public_jwk(&self) -> Value {
        json!({
            "kty": "EC", "crv": "P-256", "use": "sig", "alg": "ES256",
            "kid": self.kid, "x": self.x, "y": self.y,
        })
    }

    /// A compact JWS over `claims` with header type `typ`.
    pub(crate) fn sign(&self, typ: &str, claims: &Value) -> Result<String, DevKeyError> {
        self.sign_with(&json!({ "alg": "ES256", "typ": typ, "kid": self.kid }), claims)
    }

    /// The same under any header, also one that no honest issuer would write.
    pub fn sign_with(&self, header: &Value, claims: &Value) -> Result<String, DevKeyError> {
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", part(header), part(claims));
        let signature = self
            .pair
            .sign(&self.random, signed.as_bytes())
            .map_err(|_| DevKeyError)?;
        Ok(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "ring makes keys and signatures only with a generator of its own"
)]
fn system_random() -> SystemRandom {
    SystemRandom::new()
}
