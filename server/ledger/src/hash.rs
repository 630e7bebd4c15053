//! The hashes of the tree (RFC 9162, section 2.1.1) and what a row of the audit is to it: a commitment to its entry, sealed with a
//! salt. Erasing a row takes entry and salt away and leaves the commitment, so what was proven stays so.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest as _, Sha256};
use thiserror::Error;

const ENTRY_PREFIX: &[u8] = b"handoff-audit-entry-v1\n";
const LEAF_PREFIX: &[u8] = b"handoff-audit-leaf-v1\n";
/// How many characters 32 bytes are in base64.
const BASE64_LENGTH: usize = 44;

/// A SHA-256. Shown as lower case hex; in JSON it is standard base64.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hash(pub [u8; 32]);

/// A text that is no hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("not the base64 of 32 bytes")]
pub struct HashError;

impl Hash {
    /// The standard base64, with padding: 44 characters.
    pub fn to_base64(self) -> String {
        STANDARD.encode(self.0)
    }

    /// The hash that `text` is the one standard base64 of.
    pub fn from_base64(text: &str) -> Result<Self, HashError> {
        // `decode_slice` wants room for what such a length could hold at most.
        let mut bytes = [0; 33];
        if text.len() != BASE64_LENGTH {
            return Err(HashError);
        }
        let length = STANDARD.decode_slice(text, &mut bytes).map_err(|_| HashError)?;
        match bytes.first_chunk() {
            Some(hash) if length == hash.len() => Ok(Self(*hash)),
            _ => Err(HashError),
        }
    }

    /// The lower case hex: 64 characters.
    fn to_hex(self) -> [u8; 64] {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let digit = |value: u8| DIGITS.get(usize::from(value)).copied().unwrap_or_default();
        let mut hex = [0; 64];
        for (pair, byte) in hex.as_chunks_mut::<2>().0.iter_mut().zip(self.0) {
            *pair = [digit(byte >> 4), digit(byte & 15)];
        }
        hex
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Hash({self})")
    }
}

impl Serialize for Hash {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.to_base64())
    }
}

impl<'de> Deserialize<'de> for Hash {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Base64;
        impl Visitor<'_> for Base64 {
            type Value = Hash;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the base64 of 32 bytes")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Hash, E> {
                Hash::from_base64(text).map_err(E::custom)
            }
        }
        deserializer.deserialize_str(Base64)
    }
}

/// What a row of the audit commits to, and what is left of it when it is erased.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Commitment(pub Hash);

/// The commitment to the exact bytes of `entry`, which nobody who lacks the salt can guess them from.
pub fn commit(salt: &[u8; 32], entry: &[u8]) -> Commitment {
    Commitment(digest(&[ENTRY_PREFIX, salt, entry]))
}

/// The leaf of the row `sequence` of `tenant`.
pub fn leaf_of(tenant: &str, sequence: i64, commitment: &Commitment) -> Hash {
    let sequence = sequence.to_string();
    let hex = commitment.0.to_hex();
    digest(&[
        &[0],
        LEAF_PREFIX,
        tenant.as_bytes(),
        b"\n",
        sequence.as_bytes(),
        b"\n",
        &hex,
        b"\n",
    ])
}

/// The hash of a leaf that is `data`.
pub fn leaf_hash(data: &[u8]) -> Hash {
    digest(&[&[0], data])
}

/// The hash of the node over two others.
pub fn node_hash(left: &Hash, right: &Hash) -> Hash {
    let mut bytes = [1; 65];
    for (place, byte) in bytes.iter_mut().skip(1).zip(left.0.iter().chain(&right.0)) {
        *place = *byte;
    }
    digest(&[&bytes])
}

/// The root of a tree without leaves.
pub fn empty_hash() -> Hash {
    digest(&[])
}

fn digest(parts: &[&[u8]]) -> Hash {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update(part);
    }
    Hash(hasher.finalize().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_has_one_text() {
        let empty = empty_hash();
        let hex = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(empty.to_string(), hex);
        assert_eq!(empty.to_hex(), hex.as_bytes());
        assert_eq!(empty.to_base64(), "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=");
        assert_eq!(Hash::from_base64(&empty.to_base64()), Ok(empty));
        for text in [
            "",
            "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU",
            "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFV=",
            "47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU=",
            "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFUA",
            "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuA==",
        ] {
            assert_eq!(Hash::from_base64(text), Err(HashError), "{text}");
        }
        assert_eq!(
            serde_json::to_string(&Commitment(empty)).unwrap(),
            format!("\"{}\"", empty.to_base64())
        );
    }

    #[test]
    fn a_leaf_is_the_text_of_its_row() {
        let (salt, entry) = ([7; 32], br#"{"resourceType":"AuditEvent"}"#);
        let mut sealed = b"handoff-audit-entry-v1\n".to_vec();
        sealed.extend(salt);
        sealed.extend(entry);
        let commitment = commit(&salt, entry);
        assert_eq!(commitment.0, Hash(Sha256::digest(&sealed).into()));
        let data = format!("handoff-audit-leaf-v1\nnorth\n-12\n{}\n", commitment.0);
        assert_eq!(leaf_of("north", -12, &commitment), leaf_hash(data.as_bytes()));
    }
}
