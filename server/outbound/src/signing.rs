//! Signatures on deliveries as in Standard Webhooks 1.0: HMAC-SHA256 over `id.timestamp.body`, so that a receiver can tell
//! who sent it, that it is whole, and that it is not an old one. Reads no clock and draws no random numbers.

use std::fmt;
use std::time::Duration;

use base64::alphabet::STANDARD as ALPHABET;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, STANDARD};
use base64::engine::{DecodePaddingMode, Engine as _};
use ring::hmac::{self, HMAC_SHA256, Key};
use secrecy::{ExposeSecret as _, SecretSlice, SecretString};
use thiserror::Error;

/// Names a delivery, the same at each try.
pub const ID_HEADER: &str = "webhook-id";
/// When this try was made, in seconds since 1970.
pub const TIMESTAMP_HEADER: &str = "webhook-timestamp";
/// The signatures, separated by blanks: one for each secret that is valid.
pub const SIGNATURE_HEADER: &str = "webhook-signature";

const SECRET_PREFIX: &str = "whsec_";
const SIGNATURE_PREFIX: &str = "v1,";
/// How many signatures a receiver looks at: each costs a pass over the body.
const MOST_SIGNATURES: usize = 8;

/// Secrets come with padding and without.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &ALPHABET,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// What the two ends of an endpoint share: 24 to 64 bytes.
#[derive(Clone)]
pub struct SigningSecret(SecretSlice<u8>);

/// A text that is no secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("not a signing secret: `{SECRET_PREFIX}` and the base64 of 24 to 64 bytes")]
pub struct SecretError;

impl SigningSecret {
    /// A new secret of `random` bytes, which have to be fit for secrets.
    pub fn new(random: [u8; 32]) -> Self {
        Self(random.to_vec().into())
    }

    /// The secret that its text, `whsec_` and base64, stands for.
    pub fn parse(text: &str) -> Result<Self, SecretError> {
        let encoded = text.strip_prefix(SECRET_PREFIX).ok_or(SecretError)?;
        let secret = Self(LENIENT.decode(encoded).map_err(|_| SecretError)?.into());
        if (24..=64).contains(&secret.0.expose_secret().len()) {
            Ok(secret)
        } else {
            Err(SecretError)
        }
    }

    /// The text that a receiver is given.
    pub fn to_text(&self) -> SecretString {
        format!("{SECRET_PREFIX}{}", STANDARD.encode(self.0.expose_secret())).into()
    }

    /// The signature of a delivery: `v1,` and the base64 of 32 bytes. `id` holds no dot, or it could be read in two ways where
    /// it ends; `timestamp` is in seconds since 1970.
    pub fn sign(&self, id: &str, timestamp: i64, body: &[u8]) -> String {
        debug_assert!(is_id(id), "the id of a delivery holds no dot");
        let tag = hmac::sign(&self.key(), &signed(id, &timestamp.to_string(), body));
        format!("{SIGNATURE_PREFIX}{}", STANDARD.encode(tag))
    }

    fn key(&self) -> Key {
        Key::new(HMAC_SHA256, self.0.expose_secret())
    }
}

/// What is signed.
fn signed(id: &str, timestamp: &str, body: &[u8]) -> Vec<u8> {
    [id.as_bytes(), timestamp.as_bytes(), body].join(&b'.')
}

fn is_id(text: &str) -> bool {
    !text.is_empty() && !text.contains('.')
}

impl fmt::Debug for SigningSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SigningSecret(..)")
    }
}

/// The headers of a delivery, signed by each of `secrets`: while one replaces another there are two.
pub fn headers(
    secrets: &[SigningSecret],
    id: &str,
    timestamp: i64,
    body: &[u8],
) -> [(&'static str, String); 3] {
    let signatures: Vec<String> = secrets
        .iter()
        .map(|secret| secret.sign(id, timestamp, body))
        .collect();
    [
        (ID_HEADER, id.to_owned()),
        (TIMESTAMP_HEADER, timestamp.to_string()),
        (SIGNATURE_HEADER, signatures.join(" ")),
    ]
}

/// What a receiver finds in the three headers.
#[derive(Debug, Clone, Copy)]
pub struct SignedHeaders<'a> {
    /// Of [`ID_HEADER`].
    pub id: &'a str,
    /// Of [`TIMESTAMP_HEADER`].
    pub timestamp: &'a str,
    /// Of [`SIGNATURE_HEADER`].
    pub signature: &'a str,
}

/// Why a delivery is not what it says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum SignatureError {
    /// The id is empty or holds a dot, or the timestamp is no number.
    #[error("the headers of the signature are malformed")]
    Malformed,
    /// Too old, or of a time to come.
    #[error("the delivery is not of the present time")]
    Untimely,
    /// No signature of any of the secrets.
    #[error("no signature matches")]
    Mismatch,
}

/// Whether the holder of one of `secrets` signed `body`, and within `tolerance` of `now` (seconds since 1970). Comparing takes
/// the same time whatever is wrong. That a delivery comes twice is for the caller to notice, by its id.
pub fn verify(
    secrets: &[SigningSecret],
    headers: SignedHeaders<'_>,
    body: &[u8],
    now: i64,
    tolerance: Duration,
) -> Result<(), SignatureError> {
    let timestamp: i64 = headers.timestamp.parse().map_err(|_| SignatureError::Malformed)?;
    if !is_id(headers.id) {
        return Err(SignatureError::Malformed);
    }
    if now.abs_diff(timestamp) > tolerance.as_secs() {
        return Err(SignatureError::Untimely);
    }
    let given: Vec<Vec<u8>> = headers
        .signature
        .split(' ')
        .filter_map(|one| one.strip_prefix(SIGNATURE_PREFIX))
        .take(MOST_SIGNATURES)
        .filter_map(|encoded| STANDARD.decode(encoded).ok())
        .collect();
    let signed = signed(headers.id, headers.timestamp, body);
    let vouched_for = secrets.iter().any(|secret| {
        let key = secret.key();
        given.iter().any(|tag| hmac::verify(&key, &signed, tag).is_ok())
    });
    if vouched_for {
        Ok(())
    } else {
        Err(SignatureError::Mismatch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The vector that Standard Webhooks publishes.
    const TEXT: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    const ID: &str = "msg_p5jXN8AQM9LWM0D4loKWxJek";
    const TIMESTAMP: i64 = 1_614_265_330;
    const BODY: &[u8] = br#"{"test": 2432232314}"#;
    const SIGNATURE: &str = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";
    const FIVE_MINUTES: Duration = Duration::from_mins(5);

    fn check(
        secrets: &[SigningSecret],
        id: &str,
        timestamp: &str,
        signature: &str,
        body: &[u8],
    ) -> Result<(), SignatureError> {
        let headers = SignedHeaders {
            id,
            timestamp,
            signature,
        };
        verify(secrets, headers, body, TIMESTAMP, FIVE_MINUTES)
    }

    fn published() -> SigningSecret {
        SigningSecret::parse(TEXT).unwrap()
    }

    #[test]
    fn a_delivery_is_signed_as_the_standard_says() {
        assert_eq!(published().sign(ID, TIMESTAMP, BODY), SIGNATURE);
        let stamp = TIMESTAMP.to_string();
        assert_eq!(check(&[published()], ID, &stamp, SIGNATURE, BODY), Ok(()));
    }

    #[test]
    fn a_delivery_that_was_changed_is_not_vouched_for() {
        let stamp = TIMESTAMP.to_string();
        let later = (TIMESTAMP + 1).to_string();
        let secrets = [published()];
        let other = [SigningSecret::new([7; 32])];
        for (secrets, id, timestamp, signature, body) in [
            (&secrets[..], "msg_other", &stamp, SIGNATURE, BODY),
            (&secrets, ID, &later, SIGNATURE, BODY),
            (&secrets, ID, &stamp, SIGNATURE, br#"{"test": 2432232315}"#),
            (&secrets, ID, &stamp, SIGNATURE, b""),
            (&secrets, ID, &stamp, "", BODY),
            (&secrets, ID, &stamp, "v1,", BODY),
            (&secrets, ID, &stamp, "v1,g0hM9SsE", BODY),
            (&secrets, ID, &stamp, "v1,!", BODY),
            (&secrets, ID, &stamp, SIGNATURE.trim_start_matches("v1,"), BODY),
            (&secrets, ID, &stamp, &SIGNATURE.replace("v1,", "v1a,"), BODY),
            (&secrets, ID, &stamp, &SIGNATURE.replace("g0", "G0"), BODY),
            (&other, ID, &stamp, SIGNATURE, BODY),
            (&[], ID, &stamp, SIGNATURE, BODY),
        ] {
            let found = check(secrets, id, timestamp, signature, body);
            assert_eq!(
                found,
                Err(SignatureError::Mismatch),
                "{id} {timestamp} {signature}"
            );
        }
    }

    #[test]
    fn an_old_delivery_and_one_of_the_future_are_refused() {
        let secrets = [published()];
        for (apart, expected) in [
            (0, Ok(())),
            (-300, Ok(())),
            (300, Ok(())),
            (-301, Err(SignatureError::Untimely)),
            (301, Err(SignatureError::Untimely)),
        ] {
            let stamp = TIMESTAMP + apart;
            let signature = secrets[0].sign(ID, stamp, BODY);
            let found = check(&secrets, ID, &stamp.to_string(), &signature, BODY);
            assert_eq!(found, expected, "{apart}");
        }
        let far = i64::MIN.to_string();
        assert_eq!(
            check(&secrets, ID, &far, SIGNATURE, BODY),
            Err(SignatureError::Untimely)
        );
    }

    #[test]
    fn an_id_ends_where_it_says() {
        // Otherwise both would sign the bytes `a.1.2.b`.
        let stamp = TIMESTAMP.to_string();
        let secrets = [published()];
        for (id, timestamp) in [("", &*stamp), ("a.1", &stamp), (ID, ""), (ID, "now"), (ID, "1.5")] {
            let found = check(&secrets, id, timestamp, SIGNATURE, BODY);
            assert_eq!(found, Err(SignatureError::Malformed), "{id} {timestamp}");
        }
    }

    #[test]
    fn while_a_secret_is_replaced_both_vouch() {
        let (old, new) = (published(), SigningSecret::new([7; 32]));
        let secrets = [old.clone(), new.clone()];
        let [id, timestamp, signature] = headers(&secrets, ID, TIMESTAMP, BODY);
        assert_eq!(id, ("webhook-id", ID.to_owned()));
        assert_eq!(timestamp, ("webhook-timestamp", "1614265330".to_owned()));
        assert_eq!(signature.0, "webhook-signature");
        for secret in [old, new] {
            assert_eq!(check(&[secret], ID, &timestamp.1, &signature.1, BODY), Ok(()));
        }
        let none_of_ours = format!("v1a,abc {}", SIGNATURE.replace("g0", "G0"));
        let mixed = format!("{none_of_ours} {SIGNATURE}");
        assert_eq!(check(&secrets, ID, &timestamp.1, &mixed, BODY), Ok(()));
        let flood = format!("{}{SIGNATURE}", "v1,abcd ".repeat(MOST_SIGNATURES));
        assert_eq!(
            check(&secrets, ID, &timestamp.1, &flood, BODY),
            Err(SignatureError::Mismatch)
        );
    }

    #[test]
    fn a_secret_has_one_text_and_is_not_printed() {
        let secret = SigningSecret::new([7; 32]);
        let text = secret.to_text();
        assert_eq!(
            text.expose_secret(),
            "whsec_BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc="
        );
        let again = SigningSecret::parse(text.expose_secret().trim_end_matches('=')).unwrap();
        assert_eq!(again.to_text().expose_secret(), text.expose_secret());
        assert_eq!(
            format!("{secret:?} {text:?}"),
            "SigningSecret(..) SecretBox<str>([REDACTED])"
        );
    }

    #[test]
    fn what_is_too_short_too_long_or_something_else_is_no_secret() {
        let encoded = |n: usize| format!("whsec_{}", STANDARD.encode(vec![1; n]));
        assert!(SigningSecret::parse(&encoded(24)).is_ok());
        assert!(SigningSecret::parse(&encoded(64)).is_ok());
        let (short, long) = (encoded(23), encoded(65));
        for text in [
            "",
            "whsec_",
            "whsec_!",
            "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
            "whsk_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
            &short,
            &long,
        ] {
            assert_eq!(SigningSecret::parse(text).err(), Some(SecretError), "{text}");
        }
    }
}
