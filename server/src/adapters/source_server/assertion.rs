//! Client assertions of SMART backend services (RFC 7523): a short-lived JWT signed by our private key, ES384 or RS384 by what
//! the key is.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use handoff_domain::time::Timestamp;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, RSA_PKCS1_SHA384, RsaKeyPair};
use secrecy::{ExposeSecret, SecretSlice, SecretString};
use serde_json::json;

/// How long an assertion is good; five minutes are the most that SMART allows.
const LIFE_SECONDS: i64 = 240;

/// What an assertion says.
pub(super) struct Claims<'a> {
    /// Who we are there.
    pub(super) client_id: &'a str,
    /// The token endpoint.
    pub(super) audience: &'a str,
    /// The key's id there.
    pub(super) key_id: Option<&'a str>,
    /// Never the same twice.
    pub(super) id: &'a str,
    /// When.
    pub(super) now: Timestamp,
}

enum Key {
    Elliptic(EcdsaKeyPair),
    Rsa(RsaKeyPair),
}

/// The assertion, signed by a key in PEM; or what is wrong with the key.
pub(super) fn signed(claims: &Claims<'_>, pem: &SecretString) -> Result<SecretString, &'static str> {
    let random = system_random();
    let document = pkcs8(pem)?;
    let elliptic = EcdsaKeyPair::from_pkcs8(
        &ECDSA_P384_SHA384_FIXED_SIGNING,
        document.expose_secret(),
        &random,
    );
    let key = match elliptic {
        Ok(key) => Key::Elliptic(key),
        Err(_) => RsaKeyPair::from_pkcs8(document.expose_secret())
            .map(Key::Rsa)
            .map_err(|_| "the key is neither P-384 nor RSA of at least 2048 bits, as PKCS #8")?,
    };
    let mut header = json!({
        "typ": "JWT",
        "alg": match key {
            Key::Elliptic(_) => "ES384",
            Key::Rsa(_) => "RS384",
        },
    });
    if let (Some(id), Some(header)) = (claims.key_id, header.as_object_mut()) {
        header.insert("kid".to_owned(), json!(id));
    }
    let seconds = claims.now.0.div_euclid(1_000_000);
    let body = json!({
        "iss": claims.client_id,
        "sub": claims.client_id,
        "aud": claims.audience,
        "jti": claims.id,
        "iat": seconds,
        "exp": seconds.saturating_add(LIFE_SECONDS),
    });
    let mut text = format!(
        "{}.{}",
        URL_SAFE_NO_PAD.encode(header.to_string()),
        URL_SAFE_NO_PAD.encode(body.to_string())
    );
    let cannot = "the key can't sign";
    let signature = match &key {
        Key::Elliptic(key) => key
            .sign(&random, text.as_bytes())
            .map_err(|_| cannot)?
            .as_ref()
            .to_vec(),
        Key::Rsa(key) => {
            let mut signature = vec![0; key.public().modulus_len()];
            key.sign(&RSA_PKCS1_SHA384, &random, text.as_bytes(), &mut signature)
                .map_err(|_| cannot)?;
            signature
        }
    };
    text.push('.');
    text.push_str(&URL_SAFE_NO_PAD.encode(signature));
    Ok(SecretString::from(text))
}

/// The PKCS #8 document of a PEM text.
fn pkcs8(pem: &SecretString) -> Result<SecretSlice<u8>, &'static str> {
    let inner = pem
        .expose_secret()
        .split_once("-----BEGIN PRIVATE KEY-----")
        .and_then(|(_, rest)| rest.split_once("-----END PRIVATE KEY-----"))
        .map(|(inner, _)| inner)
        .ok_or("not PKCS #8 in PEM: it begins with `-----BEGIN PRIVATE KEY-----`")?;
    let packed: String = inner.chars().filter(|c| !c.is_ascii_whitespace()).collect();
    STANDARD
        .decode(packed)
        .map(SecretSlice::from)
        .map_err(|_| "not base64 between the lines of the PEM text")
}

#[expect(
    clippy::disallowed_methods,
    reason = "the nonces of signatures are the library's own matter"
)]
fn system_random() -> SystemRandom {
    SystemRandom::new()
}

#[cfg(test)]
mod tests {
    use ring::signature::{ECDSA_P384_SHA384_FIXED, KeyPair, UnparsedPublicKey};
    use serde_json::Value;

    use super::*;

    #[test]
    fn an_assertion_is_signed_by_the_key_and_says_who_we_are() {
        let random = system_random();
        let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P384_SHA384_FIXED_SIGNING, &random).unwrap();
        let pem = format!(
            "-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n",
            STANDARD.encode(document.as_ref())
        );
        let claims = Claims {
            client_id: "handoff",
            audience: "https://ehr.example/token",
            key_id: Some("k1"),
            id: "j1",
            now: Timestamp(1_700_000_000_000_000),
        };
        let assertion = signed(&claims, &SecretString::from(pem)).unwrap();
        let parts: Vec<&str> = assertion.expose_secret().split('.').collect();
        let decoded = |i: usize| URL_SAFE_NO_PAD.decode(parts[i]).unwrap();
        let header: Value = serde_json::from_slice(&decoded(0)).unwrap();
        assert_eq!(header, json!({"typ": "JWT", "alg": "ES384", "kid": "k1"}));
        let body: Value = serde_json::from_slice(&decoded(1)).unwrap();
        assert_eq!(body["iss"], body["sub"]);
        assert_eq!(
            (&body["aud"], &body["exp"]),
            (&json!("https://ehr.example/token"), &json!(1_700_000_240))
        );
        let pair =
            EcdsaKeyPair::from_pkcs8(&ECDSA_P384_SHA384_FIXED_SIGNING, document.as_ref(), &random).unwrap();
        UnparsedPublicKey::new(&ECDSA_P384_SHA384_FIXED, pair.public_key().as_ref())
            .verify(format!("{}.{}", parts[0], parts[1]).as_bytes(), &decoded(2))
            .unwrap();
    }

    #[test]
    fn what_is_no_key_is_told_without_showing_it() {
        let claims = Claims {
            client_id: "handoff",
            audience: "https://ehr.example/token",
            key_id: None,
            id: "j1",
            now: Timestamp(0),
        };
        for pem in [
            "secret",
            "-----BEGIN PRIVATE KEY-----\n!\n-----END PRIVATE KEY-----",
            "-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n-----END PRIVATE KEY-----",
        ] {
            let told = signed(&claims, &SecretString::from(pem.to_owned())).unwrap_err();
            assert!(!told.contains("secret"), "{told}");
        }
    }
}
