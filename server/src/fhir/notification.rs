//! Notifications as FHIR: the Bundle of Subscriptions R5 Backport 1.1.0 in its R4 form, and the status of a Subscription.
//! The same notification is the same bytes whenever it is written, so that it can be repeated. Knows what is told, not
//! to whom it may be told.

use handoff_domain::ids::SubscriptionId;
use handoff_domain::outbox::DELETED;
use handoff_domain::subscription::{Payload, Subscription, SubscriptionStatus, Trigger};
use handoff_domain::time::Timestamp;
use handoff_fhir_profiles::canonical::{EXT_EVENT_CHANGE, EXT_EVENT_GRANT, TOPIC};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::search::answer::BundleWriter;
use crate::app::subscriber::Told;

/// The base of what the Backport defines.
const BACKPORT: &str = "http://hl7.org/fhir/uv/subscriptions-backport/StructureDefinition";

/// What a notification is (ValueSet `subscription-notification-type`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoticeKind {
    /// The first one.
    Handshake,
    /// A sign of life.
    Heartbeat,
    /// Events.
    Event,
    /// The answer to `$status`.
    QueryStatus,
    /// The answer to `$events`.
    QueryEvent,
}

impl NoticeKind {
    const fn code(self) -> &'static str {
        match self {
            Self::Handshake => "handshake",
            Self::Heartbeat => "heartbeat",
            Self::Event => "event-notification",
            Self::QueryStatus => "query-status",
            Self::QueryEvent => "query-event",
        }
    }
}

/// One notification.
#[derive(Debug, Clone, Copy)]
pub struct Notification<'a> {
    /// Our FHIR base with its trailing slash.
    pub base: &'a str,
    /// The subscription.
    pub subscription: &'a Subscription,
    /// Its status, as it is told.
    pub status: SubscriptionStatus,
    /// What it is.
    pub kind: NoticeKind,
    /// How much of each event it holds.
    pub payload: Payload,
    /// How many events there were since the subscription began.
    pub events: i64,
    /// The events told.
    pub told: &'a [Told],
    /// What is wrong with the subscription, in a word.
    pub problem: Option<&'a str>,
    /// When.
    pub at: Timestamp,
}

impl Notification<'_> {
    /// The Bundle.
    pub fn bundle(&self) -> Vec<u8> {
        let size: usize = match self.payload {
            Payload::FullResource => self
                .told
                .iter()
                .map(|told| told.body.len().saturating_add(300))
                .sum(),
            _ => self.told.len().saturating_mul(300),
        };
        let mut bundle = BundleWriter::new("history", self.at, size.saturating_add(2_000));
        let id = &self.subscription.id;
        let request = json!({"method": "GET", "url": status_url(self.base, id)});
        let rest = format!(r#","request":{request},"response":{{"status":"200"}}"#);
        let status = self.parameters().to_string();
        let name = format!("{id} {} {} {}", self.kind.code(), self.events, self.at.0);
        bundle.entry(&urn(&name), status.as_bytes(), &rest);
        let mut entered: Vec<(&str, i64)> = Vec::new();
        for told in self.told {
            let event = &told.event;
            let deleted = event.change == DELETED;
            let (body, version): (&[u8], i64) = match self.payload {
                Payload::FullResource => (&told.body, event.version),
                Payload::IdOnly => (&[], 0),
                _ => continue,
            };
            if entered.contains(&(event.focus.as_str(), version)) {
                continue;
            }
            entered.push((event.focus.as_str(), version));
            let method = if deleted {
                "DELETE"
            } else if self.payload == Payload::IdOnly {
                "GET"
            } else {
                "PUT"
            };
            let request = json!({"method": method, "url": event.focus});
            let code = if deleted { "204" } else { "200" };
            let rest = format!(r#","request":{request},"response":{{"status":"{code}"}}"#);
            bundle.entry(&format!("{}{}", self.base, event.focus), body, &rest);
        }
        bundle.finish()
    }

    /// The status as Parameters.
    pub fn parameters(&self) -> Value {
        let reference = |to: String| json!({ "reference": to });
        let mut list = vec![json!({"name": "subscription", "valueReference":
                reference(format!("{}Subscription/{}", self.base, self.subscription.id))})];
        if let Trigger::Topic(topic) = self.subscription.criteria.trigger
            && self.payload != Payload::Empty
        {
            list.push(json!({"name": "topic", "valueCanonical": format!("{TOPIC}{}", topic.as_str())}));
        }
        list.push(json!({"name": "status", "valueCode": self.status.as_str()}));
        list.push(json!({"name": "type", "valueCode": self.kind.code()}));
        list.push(json!({"name": "events-since-subscription-start", "valueString": self.events.to_string()}));
        for told in self.told {
            list.push(self.event(told));
        }
        if let Some(problem) = self.problem {
            list.push(json!({"name": "error", "valueCodeableConcept": {"text": problem}}));
        }
        json!({
            "resourceType": "Parameters",
            "meta": {"profile": [format!("{BACKPORT}/backport-subscription-status-r4")]},
            "parameter": list,
        })
    }

    fn event(&self, told: &Told) -> Value {
        let event = &told.event;
        let mut parts = vec![
            json!({"name": "event-number", "valueString": told.number.to_string()}),
            json!({"name": "timestamp", "valueInstant": event.at.to_instant()}),
        ];
        if self.payload == Payload::Empty {
            return json!({"name": "notification-event", "part": parts});
        }
        let focus = format!("{}{}", self.base, event.focus);
        parts.push(json!({"name": "focus", "valueReference": {"reference": focus}}));
        let mut extension = vec![json!({"url": EXT_EVENT_CHANGE, "valueCode": event.change})];
        if let Some(grant) = &event.grant {
            extension.push(json!({"url": EXT_EVENT_GRANT, "valueId": grant}));
        }
        json!({"extension": extension, "name": "notification-event", "part": parts})
    }
}

/// The address of a Subscription's status.
pub fn status_url(base: &str, id: &SubscriptionId) -> String {
    format!("{base}Subscription/{id}/$status")
}

/// The same URN for the same name.
fn urn(name: &str) -> String {
    let digest = Sha256::digest(name.as_bytes());
    let mut bytes = [0_u8; 16];
    for (byte, of) in bytes.iter_mut().zip(digest) {
        *byte = of;
    }
    // Version 8 and the variant of RFC 9562.
    let number = u128::from_be_bytes(bytes) & !(0xf << 76) & !(0b11 << 62) | (8 << 76) | (0b10 << 62);
    let mut uuid = format!("{number:032x}");
    for at in [8, 13, 18, 23] {
        uuid.insert(at, '-');
    }
    format!("urn:uuid:{uuid}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_urn_is_a_uuid_and_the_same_each_time() {
        let one = urn("a");
        assert_eq!(one, urn("a"));
        assert_ne!(one, urn("b"));
        let parts: Vec<usize> = one
            .strip_prefix("urn:uuid:")
            .unwrap()
            .split('-')
            .map(str::len)
            .collect();
        assert_eq!(parts, [8, 4, 4, 4, 12]);
        let third = one.split('-').nth(2).unwrap();
        assert!(third.starts_with('8'), "{one}");
    }
}
