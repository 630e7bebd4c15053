//! The vault: AES-256-GCM under keys that the operator holds apart from the database. Knows nothing of what is sealed.

use std::sync::Arc;

use handoff_domain::ports::{Entropy, Vault};
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use secrecy::{ExposeSecret, SecretBox};
use sha2::{Digest as _, Sha256};

/// The form of what is sealed, so that there may be another one day.
const FORM: u8 = 1;
/// Bytes that say by which key.
const NAME: usize = 8;

/// A key to the vault.
pub type VaultKey = SecretBox<[u8; 32]>;

struct Key {
    name: [u8; NAME],
    key: LessSafeKey,
}

impl Key {
    fn new(secret: &VaultKey) -> Option<Self> {
        let name = Sha256::digest([b"handoff vault key ", &secret.expose_secret()[..]].concat());
        Some(Self {
            name: *name.first_chunk()?,
            key: LessSafeKey::new(UnboundKey::new(&AES_256_GCM, secret.expose_secret()).ok()?),
        })
    }
}

/// Seals with the first of its keys, opens with any.
pub struct SealedVault {
    keys: Vec<Key>,
    entropy: Arc<dyn Entropy>,
}

impl SealedVault {
    /// With these keys; without any, nothing can be sealed.
    pub fn new(keys: &[VaultKey], entropy: Arc<dyn Entropy>) -> Self {
        Self {
            keys: keys.iter().filter_map(Key::new).collect(),
            entropy,
        }
    }
}

impl Vault for SealedVault {
    fn seal(&self, purpose: &str, plain: &[u8]) -> Option<Vec<u8>> {
        let key = self.keys.first()?;
        let mut nonce = [0_u8; NONCE_LEN];
        self.entropy.fill(&mut nonce);
        let mut body = plain.to_vec();
        key.key
            .seal_in_place_append_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(purpose.as_bytes()),
                &mut body,
            )
            .ok()?;
        Some([&[FORM][..], &key.name, &nonce, &body].concat())
    }

    fn open(&self, purpose: &str, sealed: &[u8]) -> Option<Vec<u8>> {
        let (form, rest) = sealed.split_first()?;
        let (name, rest) = rest.split_first_chunk::<NAME>()?;
        let (nonce, body) = rest.split_first_chunk::<NONCE_LEN>()?;
        let key = self.keys.iter().find(|key| key.name == *name)?;
        if *form != FORM {
            return None;
        }
        let mut body = body.to_vec();
        let plain = key
            .key
            .open_in_place(
                Nonce::assume_unique_for_key(*nonce),
                Aad::from(purpose.as_bytes()),
                &mut body,
            )
            .ok()?;
        Some(plain.to_vec())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::adapters::OsEntropy;

    fn vault(keys: &[u8]) -> SealedVault {
        let keys: Vec<VaultKey> = keys
            .iter()
            .map(|byte| SecretBox::new(Box::new([*byte; 32])))
            .collect();
        SealedVault::new(&keys, Arc::new(OsEntropy::new()))
    }

    #[test]
    fn what_is_sealed_is_opened_for_its_purpose_alone_and_whole() {
        let vault = vault(&[1]);
        let sealed = vault.seal("a", b"secret").unwrap();
        assert_eq!(vault.open("a", &sealed).unwrap(), b"secret");
        assert_eq!(vault.open("b", &sealed), None);
        for at in 0..sealed.len() {
            let mut altered = sealed.clone();
            altered[at] ^= 1;
            assert_eq!(vault.open("a", &altered), None, "byte {at}");
            assert_eq!(vault.open("a", &sealed[..at]), None, "cut at {at}");
        }
        assert_ne!(vault.seal("a", b"secret").unwrap(), sealed);
    }

    #[test]
    fn an_older_key_still_opens_and_a_forgotten_one_does_not() {
        let sealed = vault(&[1]).seal("a", b"secret").unwrap();
        assert_eq!(vault(&[2, 1]).open("a", &sealed).unwrap(), b"secret");
        assert_eq!(vault(&[2]).open("a", &sealed), None);
        assert_eq!(vault(&[]).seal("a", b"secret"), None);
    }
}
