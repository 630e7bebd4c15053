//! Subscriptions R5 Backport 1.1.0 on R4 as a subscriber knows it: what it asks for, and what it holds notifications to. The
//! rules of its profiles are written down here by hand, so that nobody asks the server what is right.

use handoff_fhir_model::{ParseOptions, parse};
use serde_json::{Value, json};

use crate::subscriber::Received;
use crate::{Client, eventually};

/// The base of what the Backport defines.
pub const BACKPORT: &str = "http://hl7.org/fhir/uv/subscriptions-backport";

/// The base of our topics.
pub const TOPIC: &str = "https://handoff.example/fhir/SubscriptionTopic";

/// The header that each subscription here asks for.
pub const HEADER: &str = "Authorization: Bearer subscriber-secret";

/// The URL of a profile or extension of the Backport.
pub fn structure(name: &str) -> String {
    format!("{BACKPORT}/StructureDefinition/{name}")
}

/// A Subscription to one of our topics by rest-hook, as the test kit's client would send it.
pub fn topic(name: &str, content: &str, endpoint: &str) -> Value {
    json!({
        "resourceType": "Subscription",
        "meta": {"profile": [structure("backport-subscription")]},
        "status": "requested",
        "reason": "follow referrals",
        "criteria": format!("{TOPIC}/{name}"),
        "channel": {
            "type": "rest-hook",
            "endpoint": endpoint,
            "payload": "application/fhir+json",
            "_payload": {"extension": [
                {"url": structure("backport-payload-content"), "valueCode": content},
            ]},
            "header": [HEADER],
        },
    })
}

/// The same with a filter.
pub fn filtered(mut subscription: Value, filter: &str) -> Value {
    let extension = json!({"url": structure("backport-filter-criteria"), "valueString": filter});
    match subscription["_criteria"]["extension"].as_array_mut() {
        Some(filters) => filters.push(extension),
        None => subscription["_criteria"] = json!({"extension": [extension]}),
    }
    subscription
}

/// The same with an extension of the channel: `backport-heartbeat-period`, `backport-max-count`.
pub fn with_number(mut subscription: Value, name: &str, value: &str, number: u32) -> Value {
    let extension = json!({"url": structure(name), value: number});
    match subscription["channel"]["extension"].as_array_mut() {
        Some(extensions) => extensions.push(extension),
        None => subscription["channel"]["extension"] = json!([extension]),
    }
    subscription
}

/// Creates a subscription and waits until it is active; answers what creating it answered.
pub async fn subscribe(client: &Client, asked: &Value) -> Value {
    let made = client.post("/fhir/Subscription", asked).await.expect(201).json();
    becomes(client, &id_of(&made), "active").await;
    made
}

/// Waits until a subscription has this status.
pub async fn becomes(client: &Client, id: &str, status: &str) {
    let path = format!("/fhir/Subscription/{id}");
    eventually(&format!("the subscription becomes {status}"), async || {
        client.get(&path).await.expect(200).json()["status"] == status
    })
    .await;
}

/// A resource's id.
pub fn id_of(resource: &Value) -> String {
    resource["id"].as_str().expect("an id").to_owned()
}

/// A resource that our own reader of R4 finds no fault with.
#[track_caller]
pub fn valid(kind: &'static str, body: &[u8]) -> Value {
    match parse(body, &ParseOptions::expecting(kind)) {
        Ok(resource) => resource.into_value(),
        Err(issues) => panic!("no valid {kind}: {issues:#?}\n{}", String::from_utf8_lossy(body)),
    }
}

/// Name, where its value stands, least and most.
type Rule = (&'static str, &'static str, usize, usize);

const MANY: usize = usize::MAX;

/// `backport-subscription-status-r4`.
const STATUS: [Rule; 7] = [
    ("subscription", "valueReference", 1, 1),
    ("topic", "valueCanonical", 0, 1),
    ("status", "valueCode", 1, 1),
    ("type", "valueCode", 1, 1),
    ("events-since-subscription-start", "valueString", 0, 1),
    ("notification-event", "part", 0, MANY),
    ("error", "valueCodeableConcept", 0, MANY),
];

const EVENT: [Rule; 4] = [
    ("event-number", "valueString", 1, 1),
    ("timestamp", "valueInstant", 0, 1),
    ("focus", "valueReference", 0, 1),
    ("additional-context", "valueReference", 0, MANY),
];

/// The parameters of one level, held to names, types and cardinalities.
struct Level<'a>(Vec<(&'static str, &'a Value)>);

impl<'a> Level<'a> {
    #[track_caller]
    fn held_to(rules: &[Rule], list: &'a Value) -> Self {
        let mut found = Vec::new();
        for parameter in list.as_array().expect("parameters") {
            let rule = rules.iter().find(|(name, ..)| parameter["name"] == *name);
            let (name, place, ..) =
                rule.unwrap_or_else(|| panic!("the profile has no such parameter: {parameter}"));
            let value = parameter.get(place);
            found.push((
                *name,
                value.unwrap_or_else(|| panic!("no `{place}`: {parameter}")),
            ));
        }
        let level = Self(found);
        for (name, _, least, most) in rules {
            let count = level.all(name).count();
            assert!((*least..=*most).contains(&count), "{count} of `{name}` in {list}");
        }
        level
    }

    fn all(&self, name: &str) -> impl Iterator<Item = &'a Value> {
        self.0
            .iter()
            .filter(move |(known, _)| *known == name)
            .map(|(_, value)| *value)
    }

    fn text(&self, name: &str) -> Option<String> {
        self.all(name).next().map(text_of)
    }
}

#[track_caller]
fn text_of(value: &Value) -> String {
    let text = value.as_str().or_else(|| value["reference"].as_str());
    text.unwrap_or_else(|| panic!("no text: {value}")).to_owned()
}

/// An event as a notification tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// `event-number`.
    pub number: i64,
    /// `focus`.
    pub focus: Option<String>,
    /// `additional-context`.
    pub context: Vec<String>,
}

/// The status of a subscription.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// The last segment of the reference to the subscription.
    pub id: String,
    /// `topic`.
    pub topic: Option<String>,
    /// `status`.
    pub status: String,
    /// `type`.
    pub kind: String,
    /// `events-since-subscription-start`.
    pub events: Option<i64>,
    /// Each `notification-event`.
    pub told: Vec<Event>,
}

impl Status {
    /// Reads Parameters that conform to the profile; anything else fails the test.
    #[track_caller]
    pub fn read(parameters: &Value) -> Self {
        assert_eq!(parameters["resourceType"], "Parameters", "{parameters}");
        let profile = json!(structure("backport-subscription-status-r4"));
        let claimed = parameters["meta"]["profile"].as_array().expect("profiles");
        assert!(claimed.contains(&profile), "{parameters}");
        let level = Level::held_to(&STATUS, &parameters["parameter"]);
        let code = |name: &str, codes: &[&str]| {
            let code = level.text(name).expect("a code");
            assert!(codes.contains(&code.as_str()), "`{name}` is `{code}`");
            code
        };
        let number = |text: String| text.parse::<i64>().expect("a number");
        let subscription = level.text("subscription").expect("a reference");
        Self {
            id: subscription.rsplit('/').next().unwrap_or_default().to_owned(),
            topic: level.text("topic"),
            status: code("status", &["requested", "active", "error", "off"]),
            kind: code(
                "type",
                &[
                    "handshake",
                    "heartbeat",
                    "event-notification",
                    "query-status",
                    "query-event",
                ],
            ),
            events: level.text("events-since-subscription-start").map(number),
            told: level
                .all("notification-event")
                .map(|parts| {
                    let event = Level::held_to(&EVENT, parts);
                    Event {
                        number: event.text("event-number").map(number).expect("a number"),
                        focus: event.text("focus"),
                        context: event.all("additional-context").map(text_of).collect(),
                    }
                })
                .collect(),
        }
    }

    /// The numbers of the events told.
    pub fn numbers(&self) -> Vec<i64> {
        self.told.iter().map(|event| event.number).collect()
    }
}

/// A notification that keeps every rule that all of them keep.
#[derive(Debug, Clone)]
pub struct Notification {
    /// Its status entry.
    pub status: Status,
    /// The entries after that.
    pub entries: Vec<Value>,
}

impl Notification {
    /// Reads a Bundle about the subscription `id`: a valid history, each entry with its request and response, that of its
    /// status first.
    #[track_caller]
    pub fn read(body: &[u8], id: &str) -> Self {
        let bundle = valid("Bundle", body);
        assert_eq!(bundle["type"], "history");
        let entries = bundle["entry"].as_array().cloned().unwrap_or_default();
        for entry in &entries {
            assert!(
                entry["request"].is_object() && entry["response"].is_object(),
                "{entry}"
            );
        }
        let first = entries.first().expect("an entry");
        let url = first["request"]["url"].as_str().expect("a URL");
        assert!(url.ends_with(&format!("Subscription/{id}/$status")), "{url}");
        assert_eq!(first["request"]["method"], "GET");
        let status = Status::read(&first["resource"]);
        assert_eq!(status.id, id);
        Self {
            status,
            entries: entries.into_iter().skip(1).collect(),
        }
    }

    /// Reads what an endpoint received on behalf of `made`, the Subscription as it was answered when it was created: of its
    /// media type, and with its headers to the letter.
    #[track_caller]
    pub fn received(received: &Received, made: &Value) -> Self {
        assert_eq!(received.method, "POST");
        let channel = &made["channel"];
        let media_type = received.header("content-type").expect("a media type");
        assert!(
            media_type.starts_with(channel["payload"].as_str().expect("a payload")),
            "{media_type}"
        );
        for line in channel["header"].as_array().into_iter().flatten() {
            let (name, value) = line
                .as_str()
                .and_then(|line| line.split_once(": "))
                .expect("a header");
            let sent = (name.to_ascii_lowercase(), value.to_owned());
            assert!(
                received.headers.contains(&sent),
                "{line} is not in {:?}",
                received.headers
            );
        }
        Self::read(&received.body, &id_of(made))
    }

    /// Whether a reference leads to an entry: a URN to its full URL, any other to the id of what it holds, or to its full URL
    /// where a deleted resource has nothing to show.
    pub fn resolves(&self, reference: &str) -> bool {
        self.entries.iter().any(|entry| {
            let resource = &entry["resource"];
            let full_url = entry["fullUrl"].as_str();
            match (resource["resourceType"].as_str(), resource["id"].as_str()) {
                (Some(kind), Some(id)) if !reference.starts_with("urn:") => {
                    reference.ends_with(&format!("{kind}/{id}"))
                }
                _ => full_url == Some(reference),
            }
        })
    }
}
