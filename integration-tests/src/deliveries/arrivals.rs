//! What a subscriber was sent, request by request, and what it makes of it. Judges nothing.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::hmac;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::chaos::record::Micros;

/// An event as a notification tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// Its number.
    pub number: i64,
    /// Logical id of the Task.
    pub task: String,
    /// The version of the Task that came with it, where it did.
    pub version: Option<i64>,
    /// The status that it came to.
    pub status: String,
    /// When, as it is written.
    pub at: String,
}

/// One request that reached the subscriber.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arrival {
    /// `webhook-id`.
    pub id: String,
    /// The SHA-256 of the body.
    pub digest: [u8; 32],
    /// What it tells; nothing where it is a handshake.
    pub told: Vec<Told>,
    /// Whether the subscriber has it, whatever its server knows of that.
    pub had: bool,
    /// Whether its signature is right.
    pub is_signed: bool,
    /// When it was read whole.
    pub at: Micros,
}

impl Arrival {
    /// A request as it was read.
    pub fn of(headers: &[(String, String)], body: &[u8], secret: &str, had: bool, at: Micros) -> Self {
        let header = |name: &str| {
            let found = headers.iter().find(|(known, _)| known == name);
            found.map(|(_, value)| value.as_str()).unwrap_or_default()
        };
        let id = header("webhook-id").to_owned();
        let signed = [
            id.as_bytes(),
            b".",
            header("webhook-timestamp").as_bytes(),
            b".",
            body,
        ]
        .concat();
        let is_signed = header("webhook-signature").split(' ').any(|signature| {
            let decoded = signature
                .strip_prefix("v1,")
                .and_then(|text| STANDARD.decode(text).ok());
            decoded.is_some_and(|tag| hmac::verify(&key_of(secret), &signed, &tag).is_ok())
        });
        Self {
            id,
            digest: Sha256::digest(body).into(),
            told: told_in(body),
            had,
            is_signed,
            at,
        }
    }
}

fn key_of(secret: &str) -> hmac::Key {
    let bytes = secret
        .strip_prefix("whsec_")
        .and_then(|text| STANDARD.decode(text).ok());
    hmac::Key::new(hmac::HMAC_SHA256, &bytes.unwrap_or_default())
}

fn told_in(body: &[u8]) -> Vec<Told> {
    let bundle: Value = serde_json::from_slice(body).unwrap_or_default();
    let entries = bundle["entry"].as_array().map_or(&[][..], Vec::as_slice);
    // Behind the status, of each event in its turn: its resource, where those are told.
    let mut resources = entries.iter().skip(1).map(|entry| &entry["resource"]);
    let parameters = entries.first().map(|entry| &entry["resource"]["parameter"]);
    parameters
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter(|one| one["name"] == "notification-event")
        .map(|event| {
            let part = |name: &str| {
                let parts = event["part"].as_array().into_iter().flatten();
                parts
                    .clone()
                    .find(|one| one["name"] == name)
                    .cloned()
                    .unwrap_or_default()
            };
            let focus = part("focus")["valueReference"]["reference"]
                .as_str()
                .unwrap_or_default()
                .to_owned();
            let resource = resources.next().cloned().unwrap_or_default();
            let version = resource["meta"]["versionId"]
                .as_str()
                .and_then(|text| text.parse().ok());
            Told {
                number: part("event-number")["valueString"]
                    .as_str()
                    .and_then(|text| text.parse().ok())
                    .unwrap_or(-1),
                task: focus.rsplit('/').next().unwrap_or_default().to_owned(),
                version,
                status: event["extension"][0]["valueCode"]
                    .as_str()
                    .unwrap_or_default()
                    .to_owned(),
                at: part("timestamp")["valueInstant"]
                    .as_str()
                    .unwrap_or_default()
                    .to_owned(),
            }
        })
        .collect()
}
