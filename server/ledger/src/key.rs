//! The keys that checkpoints are signed with: Ed25519, named as in C2SP `signed-note`. Makes none, and prints no secret.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use sha2::{Digest as _, Sha256};
use thiserror::Error;

const MOST_NAME_BYTES: usize = 255;
/// Ed25519 among the types of signatures that `signed-note` knows.
const ED25519_TYPE: u8 = 1;
const PEM_BEGIN: &str = "-----BEGIN PRIVATE KEY-----";
const PEM_END: &str = "-----END PRIVATE KEY-----";

/// Why something is no key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum KeyError {
    /// It stands in a line of its own, and ends at a `+` or blank.
    #[error("the name of a key has 1 to {MOST_NAME_BYTES} bytes, without spaces, control characters and `+`")]
    Name,
    /// Not the text of a private key.
    #[error("not one PEM block `PRIVATE KEY`")]
    Pem,
    /// Some other key, or none.
    #[error("not an Ed25519 private key in PKCS#8")]
    Pkcs8,
    /// Not the three parts of a verifier's key.
    #[error("not a verifier key: `name+id+key`, with an id of 8 lower case hex digits and a key in base64")]
    Form,
    /// Some other kind of key.
    #[error("a verifier key of type {0:#04x}: only Ed25519, type 0x01, is known")]
    Type(u8),
    /// Not as long as such a key is.
    #[error("the key in the verifier key is not 32 bytes long")]
    Length,
    /// The id was made of another name or key.
    #[error("the id in the verifier key is not that of its name and key")]
    Id,
}

/// Signs checkpoints. Its name is the origin of the log.
pub struct SigningKey {
    pair: Ed25519KeyPair,
    verifier: VerifierKey,
}

impl SigningKey {
    /// The key in the PEM block of PKCS#8 that `openssl genpkey -algorithm ed25519` writes.
    pub fn from_pem(name: &str, text: &str) -> Result<Self, KeyError> {
        let inner = text.trim().strip_prefix(PEM_BEGIN);
        let inner = inner
            .and_then(|rest| rest.strip_suffix(PEM_END))
            .ok_or(KeyError::Pem)?;
        let encoded: String = inner.split_ascii_whitespace().collect();
        let der = STANDARD.decode(encoded).map_err(|_| KeyError::Pem)?;
        Self::from_pkcs8(name, &der)
    }

    /// The key in the DER of PKCS#8, version 1 or 2.
    pub fn from_pkcs8(name: &str, der: &[u8]) -> Result<Self, KeyError> {
        let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(der).map_err(|_| KeyError::Pkcs8)?;
        let public = pair.public_key().as_ref();
        let public = public.try_into().map_err(|_| KeyError::Length)?;
        let verifier = VerifierKey::new(name, public)?;
        Ok(Self { pair, verifier })
    }

    /// The origin of the log that it signs for.
    pub fn name(&self) -> &str {
        &self.verifier.name
    }

    /// What verifies its signatures: no secret.
    pub fn verifier(&self) -> VerifierKey {
        self.verifier.clone()
    }

    /// The signature of `text` as it stands in a note: the key's id before it, in base64.
    pub(crate) fn signature(&self, text: &str) -> String {
        let signature = self.pair.sign(text.as_bytes());
        STANDARD.encode([&self.verifier.id, signature.as_ref()].concat())
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({}, ..)", self.verifier)
    }
}

/// Verifies the signatures of one key. Its text is `name+id+key`.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct VerifierKey {
    name: String,
    id: [u8; 4],
    public: [u8; 32],
}

impl VerifierKey {
    fn new(name: &str, public: [u8; 32]) -> Result<Self, KeyError> {
        let name = name.to_owned();
        if !is_name(&name) {
            return Err(KeyError::Name);
        }
        let id = Sha256::new()
            .chain_update(&name)
            .chain_update([b'\n', ED25519_TYPE])
            .chain_update(public)
            .finalize();
        let id = id.first_chunk().copied().ok_or(KeyError::Id)?;
        Ok(Self { name, id, public })
    }

    /// The key with this text.
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        let mut parts = text.splitn(3, '+');
        let (Some(name), Some(hex), Some(encoded)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(KeyError::Form);
        };
        let is_hex = hex.len() == 8 && hex.bytes().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f'));
        let id = u32::from_str_radix(hex, 16).ok().filter(|_| is_hex);
        let id = id.ok_or(KeyError::Form)?.to_be_bytes();
        let key = STANDARD.decode(encoded).map_err(|_| KeyError::Form)?;
        let public = match key.split_first().ok_or(KeyError::Form)? {
            (&ED25519_TYPE, public) => public.try_into().map_err(|_| KeyError::Length)?,
            (&other, _) => return Err(KeyError::Type(other)),
        };
        let key = Self::new(name, public)?;
        if key.id == id { Ok(key) } else { Err(KeyError::Id) }
    }

    /// The origin of the log that it verifies.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The same key where it signs for another log.
    pub fn named(&self, name: &str) -> Result<Self, KeyError> {
        Self::new(name, self.public)
    }

    /// What tells keys of the same name apart in a note.
    pub fn id(&self) -> [u8; 4] {
        self.id
    }

    /// Whether `signature` is one of `text` by this key.
    pub(crate) fn verifies(&self, text: &str, signature: &[u8]) -> bool {
        let key = UnparsedPublicKey::new(&ED25519, &self.public);
        key.verify(text.as_bytes(), signature).is_ok()
    }
}

impl FromStr for VerifierKey {
    type Err = KeyError;
    fn from_str(text: &str) -> Result<Self, KeyError> {
        Self::parse(text)
    }
}

impl fmt::Display for VerifierKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, id, public } = self;
        let key = STANDARD.encode([&[ED25519_TYPE], &public[..]].concat());
        write!(f, "{name}+{:08x}+{key}", u32::from_be_bytes(*id))
    }
}

impl fmt::Debug for VerifierKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VerifierKey({self})")
    }
}

/// Whether `name` may be that of a key.
pub(crate) fn is_name(name: &str) -> bool {
    let fits = |c: char| c != '+' && !c.is_whitespace() && !c.is_control();
    (1..=MOST_NAME_BYTES).contains(&name.len()) && name.chars().all(fits)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The vector of `golang.org/x/mod/sumdb/note`, which `signed-note` was written down from.
    const NAME: &str = "PeterNeumann";
    const VKEY: &str = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";
    const SEED: &str = "gQoUAtUUbI2E8kQzMPVAgOv5juF9nHT2JS/F1ccoMXM=";
    const TEXT: &str = "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n";
    const SIGNATURE: &str =
        "x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=";

    /// PKCS#8, version 1.
    fn der() -> Vec<u8> {
        let mut der = vec![
            0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20,
        ];
        der.extend(STANDARD.decode(SEED).unwrap());
        der
    }

    fn pem() -> String {
        format!("{PEM_BEGIN}\n{}\n{PEM_END}\n", STANDARD.encode(der()))
    }

    #[test]
    fn keys_sign_and_verify_as_the_published_ones_do() {
        let key = SigningKey::from_pem(NAME, &pem()).unwrap();
        assert_eq!(key.verifier().to_string(), VKEY);
        assert_eq!(key.signature(TEXT), SIGNATURE);
        let verifier = VerifierKey::parse(VKEY).unwrap();
        assert_eq!(verifier, key.verifier());
        let signature = STANDARD.decode(SIGNATURE).unwrap();
        assert_eq!(verifier.id(), signature[..4]);
        assert!(verifier.verifies(TEXT, &signature[4..]));
        assert!(!verifier.verifies(&TEXT.replace("cry", "Cry"), &signature[4..]));
        // The log of Go's modules.
        let known = "sum.golang.org+033de0ae+Ac4zctda0e5eza+HJyk9SxEdh+s3Ux18htTTAD8OuAn8";
        assert_eq!(VerifierKey::parse(known).unwrap().to_string(), known);
    }

    #[test]
    fn no_other_text_is_that_key() {
        for start in 0..VKEY.len() {
            for end in start..=VKEY.len() {
                let whole = start == 0 && end == VKEY.len();
                assert_eq!(
                    VerifierKey::parse(&VKEY[start..end]).is_ok(),
                    whole,
                    "{start} {end}"
                );
            }
        }
        for place in 0..VKEY.len() {
            let mut other = VKEY.as_bytes().to_vec();
            other[place] += 1;
            let other = String::from_utf8(other).unwrap();
            assert!(VerifierKey::parse(&other).is_err(), "{other}");
        }
        for (text, expected) in [
            ("PeterNeumann+c74f20a3", KeyError::Form),
            (
                "PeterNeumann+C74F20A3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW",
                KeyError::Form,
            ),
            (
                "PeterNeumann+c74f20a4+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW",
                KeyError::Id,
            ),
            (
                "PeterNeumanm+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW",
                KeyError::Id,
            ),
            (
                "Peter Neumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW",
                KeyError::Name,
            ),
            (
                "PeterNeumann+173116ae+ZRpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW",
                KeyError::Type(0x65),
            ),
            (
                "PeterNeumann+cc469956+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TWBADKEQ==",
                KeyError::Length,
            ),
        ] {
            assert_eq!(VerifierKey::parse(text), Err(expected), "{text}");
        }
    }

    #[test]
    fn names_and_private_keys_are_checked_and_not_printed() {
        let named = |name: &str| SigningKey::from_pkcs8(name, &der()).err();
        assert_eq!(named("example.org/audit/north"), None);
        for name in ["", "a b", "a+b", "a\tb", "a\u{a0}b", "a\u{7f}", &"n".repeat(256)] {
            assert_eq!(named(name), Some(KeyError::Name), "{name}");
        }
        for (text, expected) in [
            (String::new(), KeyError::Pem),
            (pem().replace("PRIVATE", "PUBLIC"), KeyError::Pem),
            (pem().replace("MC4", "MC!"), KeyError::Pem),
            (pem() + &pem(), KeyError::Pem),
            (pem().replace("MC4", "MC5"), KeyError::Pkcs8),
            (format!("{PEM_BEGIN}\n{PEM_END}"), KeyError::Pkcs8),
        ] {
            assert_eq!(SigningKey::from_pem(NAME, &text).err(), Some(expected), "{text}");
        }
        let key = SigningKey::from_pem(NAME, &pem().replace('\n', "\r\n")).unwrap();
        assert_eq!(key.name(), NAME);
        assert_eq!(format!("{key:?}"), format!("SigningKey({VKEY}, ..)"));
    }
}
