//! How a source proves itself: its shared secret as a Bearer token, or a signature of what it sends (Standard Webhooks 1.0).
//! Takes the same time whether there is such a source or not, as far as that can be.

use std::time::Duration;

use actix_web::HttpRequest;
use actix_web::http::header;
use handoff_domain::ids::TenantId;
use handoff_domain::reason::Reason;
use handoff_domain::source::{Proof, Source};
use handoff_domain::time::Timestamp;
use handoff_outbound::signing::{SignatureError, SignedHeaders, SigningSecret, verify};
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest as _, Sha256};

use super::digest;
use crate::adapters::secret_place;
use crate::app::{AppError, Class};

/// The longest secret and the longest id of a message.
const LONGEST: usize = 1000;
/// How far the instant of a signature may be from ours.
const TOLERANCE: Duration = Duration::from_mins(5);

/// What a request proves itself by.
pub(super) enum Presented {
    /// A secret.
    Bearer(SecretString),
    /// A signature.
    Signature(Signature),
}

/// The headers of a signed message.
pub(super) struct Signature {
    id: String,
    timestamp: String,
    signatures: String,
}

impl Presented {
    /// What a request comes with; `None` where it proves nothing.
    pub(super) fn of(request: &HttpRequest) -> Option<Self> {
        let one = |name: &str| {
            let mut values = request.headers().get_all(name);
            let value = values.next()?.to_str().ok()?;
            (values.next().is_none() && (1..=LONGEST).contains(&value.len())).then(|| value.to_owned())
        };
        if request.headers().contains_key(header::AUTHORIZATION) {
            let value = one("authorization")?;
            let (scheme, secret) = value.split_once(' ')?;
            let secret = secret.trim();
            return (scheme.eq_ignore_ascii_case("bearer") && !secret.is_empty())
                .then(|| Self::Bearer(SecretString::from(secret.to_owned())));
        }
        let id = one("webhook-id")?;
        // A dot would let the end of the id be taken for the timestamp.
        (!id.contains('.')).then_some(())?;
        Some(Self::Signature(Signature {
            id,
            timestamp: one("webhook-timestamp")?,
            signatures: one("webhook-signature")?,
        }))
    }

    /// What is remembered of it where it was good: nothing that it could be told from.
    pub(super) fn digest(&self, tenant: &TenantId, source: &str) -> [u8; 32] {
        let place = format!("{tenant}/{source}");
        match self {
            Self::Bearer(secret) => digest([b"bearer", place.as_bytes(), secret.expose_secret().as_bytes()]),
            // Each signature is of one message.
            Self::Signature(signature) => {
                digest([b"signature", place.as_bytes(), signature.signatures.as_bytes()])
            }
        }
    }
}

/// Whether this is the source's secret.
pub(super) fn is_bearer(source: Option<&Source>, secret: &SecretString) -> bool {
    let sent: [u8; 32] = Sha256::digest(secret.expose_secret()).into();
    let expected = match source.map(|source| &source.settings.proof) {
        Some(Proof::Bearer { sha256 }) => *sha256,
        // Nobody's: the comparison below is made all the same, and fails.
        _ => sent.map(|byte| !byte),
    };
    sent.iter()
        .zip(expected)
        .fold(0, |differ, (a, b)| differ | (a ^ b))
        == 0
}

/// How a signature stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Signed {
    /// It is the source's, over the body, and of now.
    Now,
    /// It is, and of another time.
    Once,
    /// It is not.
    Not,
}

/// Whether the body was signed by the source, just now.
pub(super) async fn is_signed(
    source: Option<&Source>,
    signature: &Signature,
    body: &[u8],
    now: Timestamp,
) -> Result<Signed, AppError> {
    let (secret, known) = match source.map(|source| &source.settings.proof) {
        Some(Proof::Signature { key }) => {
            let text = secret_place::read(key).await.map_err(unusable)?;
            let secret = SigningSecret::parse(text.expose_secret().trim());
            (secret.map_err(|error| unusable(error.to_string()))?, true)
        }
        // Nobody's: it is looked at all the same, and does not count.
        _ => (SigningSecret::new([0; 32]), false),
    };
    let headers = SignedHeaders {
        id: &signature.id,
        timestamp: &signature.timestamp,
        signature: &signature.signatures,
    };
    let secrets = [secret];
    let as_of = |seconds: i64| verify(&secrets, headers, body, seconds, TOLERANCE);
    Ok(match as_of(now.0.div_euclid(1_000_000)) {
        Ok(()) if known => Signed::Now,
        Err(SignatureError::Untimely) if known => match signature.timestamp.parse().map(as_of) {
            Ok(Ok(())) => Signed::Once,
            _ => Signed::Not,
        },
        _ => Signed::Not,
    })
}

fn unusable(cause: String) -> AppError {
    let text = "the key of this source can't be used here; tell the operator";
    AppError::new(Class::Unavailable, Reason::StorageUnavailable, text).because(cause)
}

/// Whether a text is a key of signatures.
pub fn is_signing_key(text: &str) -> bool {
    SigningSecret::parse(text.trim()).is_ok()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use actix_web::test::TestRequest;
    use handoff_domain::ids::{ActorRef, SourceId};
    use handoff_domain::source::{ContentRule, Feed, FeedType, SecretPlace, Settings, Trust};

    use super::*;

    fn source(proof: Proof) -> Source {
        Source {
            id: SourceId::parse("ehr").unwrap(),
            settings: Settings {
                base: None,
                acts_as: ActorRef::parse("Organization/clinic").unwrap(),
                topics: BTreeSet::new(),
                types: BTreeSet::from([FeedType::Task]),
                trust: Trust::AsSent,
                content: ContentRule::Keep,
                proof,
                credentials: None,
            },
            added_at: Timestamp(0),
            feed: Feed::default(),
        }
    }

    #[test]
    fn the_secret_proves_the_source_and_no_other_does() {
        let known = source(Proof::Bearer {
            sha256: Sha256::digest("demo").into(),
        });
        let is = |text: &str| is_bearer(Some(&known), &SecretString::from(text.to_owned()));
        assert!(is("demo"));
        assert!(!is("Demo") && !is("") && !is("demo "));
        assert!(!is_bearer(None, &SecretString::from("demo".to_owned())));
        let signed = source(Proof::Signature {
            key: SecretPlace::Environment("NONE".to_owned()),
        });
        assert!(!is_bearer(Some(&signed), &SecretString::from("demo".to_owned())));
    }

    /// The example of the Standard Webhooks specification's own libraries.
    #[tokio::test]
    async fn a_signature_is_over_id_time_and_body() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n").unwrap();
        let known = source(Proof::Signature {
            key: SecretPlace::File(file.path().to_str().unwrap().to_owned()),
        });
        let signature = |id: &str, at: &str, tag: &str| Signature {
            id: id.to_owned(),
            timestamp: at.to_owned(),
            signatures: format!("v1a,AAAA v1,{tag}"),
        };
        let (id, at) = ("msg_p5jXN8AQM9LWM0D4loKWxJek", "1614265330");
        let tag = "g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";
        let body = br#"{"test": 2432232314}"#;
        let now = Timestamp(1_614_265_330 * 1_000_000);
        let good = signature(id, at, tag);
        let stands = async |source: Option<&Source>, signature: &Signature, body: &[u8], at| {
            is_signed(source, signature, body, at).await.unwrap()
        };
        assert_eq!(stands(Some(&known), &good, body, now).await, Signed::Now);
        assert_eq!(stands(Some(&known), &good, b"{}", now).await, Signed::Not);
        assert_eq!(stands(None, &good, body, now).await, Signed::Not);
        let late = Timestamp(now.0 + 301 * 1_000_000);
        assert_eq!(stands(Some(&known), &good, body, late).await, Signed::Once);
        assert_eq!(stands(Some(&known), &good, b"{}", late).await, Signed::Not);
        assert_eq!(stands(None, &good, body, late).await, Signed::Not);
        let other = signature("msg_other", at, tag);
        assert_eq!(stands(Some(&known), &other, body, now).await, Signed::Not);
    }

    #[test]
    fn what_proves_nothing_is_not_looked_at() {
        let presented = |request: TestRequest| Presented::of(&request.to_http_request());
        assert!(presented(TestRequest::default()).is_none());
        for value in ["Basic ZGVtbw==", "Bearer", "Bearer ", "demo"] {
            let request = TestRequest::default().insert_header(("authorization", value));
            assert!(presented(request).is_none(), "{value}");
        }
        let twice = TestRequest::default()
            .append_header(("authorization", "Bearer a"))
            .append_header(("authorization", "Bearer b"));
        assert!(presented(twice).is_none());
        let signed = |id: &'static str| {
            TestRequest::default()
                .insert_header(("webhook-id", id))
                .insert_header(("webhook-timestamp", "1"))
                .insert_header(("webhook-signature", "v1,AAAA"))
        };
        assert!(presented(signed("a.1")).is_none());
        assert!(matches!(presented(signed("a")), Some(Presented::Signature(_))));
    }
}
