//! The subscribers: who asks to be told of what, in which form, and how each treats what it is sent.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::endpoint::{Endpoint, Manner};
use crate::{Client, http_client};

const BACKPORT: &str = "http://hl7.org/fhir/uv/subscriptions-backport/StructureDefinition";
const TOPIC: &str = "https://handoff.example/fhir/SubscriptionTopic/task-status-changed";
const SIGNING_SECRET: &str = "https://handoff.example/fhir/StructureDefinition/signing-secret";
/// How long a handshake may take.
const PATIENCE: Duration = Duration::from_mins(1);
/// Who hangs is waited for so many seconds.
const TIMEOUT: u32 = 5;

/// A kind of subscriber.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Every event in a notification of its own, with the Task.
    OneByOne,
    /// Up to fifty in one, with the Tasks.
    Many,
    /// Up to fifty in one, with nothing but references.
    References,
    /// Only what comes to `on-hold`, one by one and with the Task.
    OnHold,
    /// Refuses everything.
    Failing,
    /// Answers nothing.
    Hanging,
}

impl Kind {
    /// All.
    pub const ALL: [Self; 6] = [
        Self::OneByOne,
        Self::Many,
        Self::References,
        Self::OnHold,
        Self::Failing,
        Self::Hanging,
    ];

    /// What it is called.
    pub const fn name(self) -> &'static str {
        match self {
            Self::OneByOne => "one by one, full",
            Self::Many => "up to 50, full",
            Self::References => "up to 50, id-only",
            Self::OnHold => "on-hold alone, full",
            Self::Failing => "always fails",
            Self::Hanging => "hangs",
        }
    }

    /// Whether it ever says that it has something.
    pub const fn answers(self) -> bool {
        !matches!(self, Self::Failing | Self::Hanging)
    }

    /// The status that it asks for alone.
    pub const fn status(self) -> Option<&'static str> {
        match self {
            Self::OnHold => Some("on-hold"),
            _ => None,
        }
    }

    /// The most events that it takes in one notification.
    pub const fn most(self) -> usize {
        match self {
            Self::Many | Self::References | Self::Hanging => 50,
            Self::OneByOne | Self::OnHold | Self::Failing => 1,
        }
    }

    const fn manner(self) -> Manner {
        match self {
            Self::Failing => Manner::Failing,
            Self::Hanging => Manner::Hanging,
            _ => Manner::Troubled,
        }
    }

    fn asked(self, endpoint: &str) -> Value {
        let content = match self {
            Self::References => "id-only",
            _ => "full-resource",
        };
        let mut body = json!({
            "resourceType": "Subscription",
            "status": "requested",
            "reason": "to hold what is told against what happened",
            "criteria": TOPIC,
            "channel": {
                "extension": [
                    {"url": format!("{BACKPORT}/backport-timeout"), "valueUnsignedInt": TIMEOUT},
                    {"url": format!("{BACKPORT}/backport-max-count"), "valuePositiveInt": self.most()},
                ],
                "type": "rest-hook",
                "endpoint": endpoint,
                "payload": "application/fhir+json",
                "_payload": {"extension": [
                    {"url": format!("{BACKPORT}/backport-payload-content"), "valueCode": content},
                ]},
            },
        });
        if let Some(status) = self.status() {
            body["_criteria"] = json!({"extension": [
                {"url": format!("{BACKPORT}/backport-filter-criteria"), "valueString": format!("Task?status={status}")},
            ]});
        }
        body
    }
}

/// A subscriber that is told.
pub struct Listening {
    /// Its kind.
    pub kind: Kind,
    /// Logical id of its Subscription.
    pub subscription: String,
    /// Where it listens.
    pub endpoint: Endpoint,
}

/// Subscribes at a server, and waits until it is active.
pub async fn subscribe(issuer: &str, base: &str, kind: Kind, choice: fastrand::Rng) -> Listening {
    let endpoint = Endpoint::start(kind.manner(), choice).await;
    let interface = Client::sign_in(&http_client(), issuer, base, "interface").await;
    let made = interface
        .post("/fhir/Subscription", &kind.asked(&endpoint.url))
        .await
        .expect(201)
        .json();
    let extensions = made["channel"]["extension"].as_array();
    let secret = extensions
        .into_iter()
        .flatten()
        .find(|one| one["url"] == SIGNING_SECRET)
        .and_then(|one| one["valueString"].as_str());
    endpoint.knows(secret.expect("the key, shown once"));
    let subscription = made["id"].as_str().expect("an id").to_owned();
    let path = format!("/fhir/Subscription/{subscription}");
    let deadline = Instant::now() + PATIENCE;
    while interface.get(&path).await.expect(200).json()["status"] != "active" {
        assert!(
            Instant::now() < deadline,
            "the handshake of `{}` does not end",
            kind.name()
        );
        sleep(Duration::from_millis(20)).await;
    }
    Listening {
        kind,
        subscription,
        endpoint,
    }
}
