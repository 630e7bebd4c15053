//! What a test kit of Subscriptions R5 Backport 1.1.0 on R4 holds a server to. The numbers are those of the checks that
//! Inferno's subscriptions-test-kit 0.12.1 makes, in its order; what goes beyond them has none.
//!
//! | check | what | test |
//! |---|---|---|
//! | 1–6 | what its own client sends is taken | `what_the_kits_client_sends_is_taken` |
//! | 7–10 | 201 exactly, with the resource, `requested` | `what_the_kits_client_sends_is_taken` |
//! | 11–18 | every notification: history, entries, status first, media type, headers | `Notification::received`, in every test of `notifications` |
//! | 19 | a notification that is repeated is the same | `notifications::a_notification_is_signed_and_repeated_byte_by_byte` |
//! | 20–23 | `empty` | `notifications::an_empty_notification_tells_numbers_and_nothing_else` |
//! | 24–28 | `id-only` | `notifications::an_id_only_notification_names_what_it_is_about` |
//! | 29–33 | `full-resource` | `notifications::a_full_notification_holds_each_version_and_a_deletion_without_one` |
//! | 34–35 | handshake | `what_the_kits_client_sends_is_taken` |
//! | 36–38 | heartbeats where asked for, and else none | `notifications::heartbeats_come_to_who_asked_for_them_alone` |
//! | 39–42 | `$status` | `operations::the_status_of_one_is_told_by_get_and_by_post` |
//! | 43 | cross-version extension | `what_would_not_be_done_is_refused_in_its_place` |
//! | 44 | topic | `what_would_not_be_done_is_refused_in_its_place` |
//! | 45 | filter | `what_would_not_be_done_is_refused_in_its_place` |
//! | 46 | channel type | `what_would_not_be_done_is_refused_in_its_place` |
//! | 47 | endpoint | `what_would_not_be_done_is_refused_in_its_place` |
//! | 48 | payload type | `what_would_not_be_done_is_refused_in_its_place` |
//! | 49 | channel and payload together | `what_would_not_be_done_is_refused_in_its_place` |
//! | 50–54 | CapabilityStatement | `the_capability_statement_names_the_profile_and_topics_that_can_be_subscribed_to` |
//! | 55–56 | topic discovery | `the_capability_statement_names_the_profile_and_topics_that_can_be_subscribed_to` |

mod kit_client;
mod notifications;
mod operations;
mod privacy;
mod validation;

use std::time::Duration;

use handoff_fhir_profiles::canonical::EXT_SIGNING_SECRET;
use handoff_integration_tests::backport::{
    BACKPORT, HEADER, Notification, becomes, filtered, id_of, structure, subscribe, topic, valid, with_number,
};
use handoff_integration_tests::subscriber::Subscriber;
use handoff_integration_tests::{Answer, TestApp, on_both};
use serde_json::{Value, json};

/// How long something may take in a debug build while other tests run.
const SOON: Duration = Duration::from_secs(20);

const CONTENTS: [&str; 3] = ["empty", "id-only", "full-resource"];

/// The Subscription without what the server adds to it.
fn as_sent(made: &Value) -> Value {
    let mut sent = made.clone();
    sent.as_object_mut().unwrap().remove("id");
    for name in ["versionId", "lastUpdated"] {
        sent["meta"].as_object_mut().unwrap().remove(name);
    }
    let extensions = sent["channel"]["extension"].as_array_mut().unwrap();
    extensions.retain(|one| one["url"] != EXT_SIGNING_SECRET);
    if extensions.is_empty() {
        sent["channel"].as_object_mut().unwrap().remove("extension");
    }
    sent
}

/// What refuses says where: a valid OperationOutcome with our reason, and with an issue at that place or in it.
#[track_caller]
fn refused_at(answer: &Answer, place: &str, what: &str) {
    let status = answer.status.as_u16();
    assert!(status == 400 || status == 422, "{what}: {status}");
    let outcome = valid("OperationOutcome", &answer.body);
    assert!(answer.reason().is_some(), "{what}: {outcome}");
    let issues = outcome["issue"].as_array().unwrap();
    let found = issues.iter().any(|issue| {
        issue["expression"][0]
            .as_str()
            .is_some_and(|at| at.starts_with(place))
            && issue["severity"] == "error"
    });
    assert!(found, "{what}: nothing at {place} in {outcome}");
}

on_both! {
    async fn what_the_kits_client_sends_is_taken(backend) {
        let app = TestApp::start(backend).await;
        let subscriber = Subscriber::start().await;
        let interface = app.client("interface").await;
        let mut all = Vec::new();
        for content in CONTENTS {
            for payload in ["application/fhir+json", "application/json", "application/fhir+json; fhirVersion=4.0"] {
                let run = format!("{}/{}", subscriber.url, all.len());
                let mut asked = topic("task-status-changed", content, &run);
                asked["channel"]["payload"] = json!(payload);
                asked["channel"]["header"] = json!([HEADER, "X-Trace: a: b", "x-lower: UPPER"]);
                let asked = with_number(asked, "backport-timeout", "valueUnsignedInt", 10);
                let asked = with_number(asked, "backport-max-count", "valuePositiveInt", 20);
                let asked = filtered(asked, "Task?patient=Patient/ada");
                let answer = interface.post("/fhir/Subscription", &asked).await.expect(201);
                let made = valid("Subscription", &answer.body);
                let place = format!("{}/fhir/Subscription/{}/_history/1", app.server.base_url, id_of(&made));
                assert_eq!(answer.header("location"), Some(place.as_str()));
                assert_eq!(answer.header("etag"), Some("W/\"1\""));
                assert_eq!(made["status"], "requested");
                assert_eq!(made["channel"]["type"], "rest-hook");
                // Word for word, the headers too.
                assert_eq!(as_sent(&made), asked);
                all.push((run, made));
            }
        }
        let came = subscriber.until(SOON, |came| came.len() >= all.len()).await;
        for (run, made) in &all {
            let path = run.strip_prefix(&subscriber.url).unwrap();
            let own: Vec<_> = came.iter().filter(|one| one.path == path).collect();
            assert_eq!(own.len(), 1, "one handshake at {path}");
            let notification = Notification::received(own[0], made);
            assert_eq!(notification.status.kind, "handshake");
            assert_eq!(notification.status.status, "requested");
            assert_eq!(notification.status.events, Some(0));
            assert_eq!((notification.status.told.len(), notification.entries.len()), (0, 0));
            becomes(&interface, &id_of(made), "active").await;
        }
    }

    async fn what_would_not_be_done_is_refused_in_its_place(backend) {
        let app = TestApp::start(backend).await;
        let subscriber = Subscriber::start().await;
        let interface = app.client("interface").await;
        let good = topic("task-status-changed", "id-only", &subscriber.url);
        for (what, place, change) in refusals() {
            let mut asked = good.clone();
            change(&mut asked);
            let answer = interface.post("/fhir/Subscription", &asked).await;
            refused_at(&answer, place, what);
        }
        let found = interface.get("/fhir/Subscription?_summary=count").await.expect(200).json();
        assert_eq!(found["total"], 0);
        // The same with nothing wrong is taken, and is the only one that its endpoint hears of.
        subscribe(&interface, &good).await;
        assert_eq!(subscriber.received().len(), 1);
    }

    async fn the_capability_statement_names_the_profile_and_topics_that_can_be_subscribed_to(backend) {
        let app = TestApp::start(backend).await;
        let subscriber = Subscriber::start().await;
        let answer = app.stranger().get("/fhir/metadata").await.expect(200);
        let statement = valid("CapabilityStatement", &answer.body);
        let server = format!("{BACKPORT}/CapabilityStatement/backport-subscription-server-r4");
        assert!(statement["instantiates"].as_array().unwrap().contains(&json!(server)));
        let rest = statement["rest"].as_array().unwrap().iter().find(|rest| rest["mode"] == "server").unwrap();
        let own = rest["resource"].as_array().unwrap().iter().find(|one| one["type"] == "Subscription").unwrap();
        assert!(own["supportedProfile"].as_array().unwrap().contains(&json!(structure("backport-subscription"))));
        let names = |list: &str, name: &str| -> Vec<String> {
            own[list].as_array().unwrap().iter().map(|one| one[name].as_str().unwrap().to_owned()).collect()
        };
        for code in ["create", "read", "update", "delete", "search-type"] {
            assert!(names("interaction", "code").contains(&code.to_owned()), "{code}");
        }
        for name in ["url", "status", "type", "payload", "criteria", "_id"] {
            assert!(names("searchParam", "name").contains(&name.to_owned()), "{name}");
        }
        for name in ["status", "events"] {
            assert!(names("operation", "name").contains(&name.to_owned()), "{name}");
        }
        let discovered = structure("capabilitystatement-subscriptiontopic-canonical");
        let topics: Vec<&str> = own["extension"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|one| one["url"] == discovered.as_str())
            .map(|one| one["valueCanonical"].as_str().unwrap())
            .collect();
        for name in ["task-status-changed", "task-assigned", "grant-lifecycle", "document-superseded", "redemption"] {
            assert!(topics.iter().any(|url| url.ends_with(&format!("/{name}"))), "{name}");
        }
        // A placer may be told of each.
        let ehr = app.client("ehr").await;
        for canonical in topics {
            let mut asked = topic("", "id-only", &subscriber.url);
            asked["criteria"] = json!(canonical);
            subscribe(&ehr, &asked).await;
        }
    }

    async fn a_subscriber_of_documents_needs_the_right_to_see_some(backend) {
        let app = TestApp::start(backend).await;
        let asked = topic("document-superseded", "id-only", "https://subscriber.example/hook");
        app.client("interface").await.post("/fhir/Subscription", &asked).await.refused(403, "policy-denied");
        app.client("lane").await.post("/fhir/Subscription", &asked).await.refused(403, "policy-denied");
    }
}

type Refusal = (&'static str, &'static str, fn(&mut Value));

/// What is wrong, where that is told, and how it comes to be.
fn refusals() -> Vec<Refusal> {
    [of_criteria(), of_channels(), of_payloads(), of_the_rest()].concat()
}

fn add_extension(element: &mut Value, url: &str, name: &str, value: &str) {
    *element = json!({"extension": [{"url": url, name: value}]});
}

fn filter(asked: &mut Value, text: &str) {
    *asked = filtered(asked.take(), text);
}

fn number(asked: &mut Value, name: &str, value: &str, number: u32) {
    *asked = with_number(asked.take(), name, value, number);
}

fn of_criteria() -> Vec<Refusal> {
    const CRITERIA: &str = "Subscription.criteria";
    const FILTER: &str = "Subscription.criteria.extension";
    vec![
        ("43: a cross-version filter", FILTER, |s| {
            let url =
                "http://hl7.org/fhir/5.0/subscriptions-backport/StructureDefinition/backport-filter-criteria";
            add_extension(
                &mut s["_criteria"],
                url,
                "valueString",
                "Encounter.patient=Patient/123",
            );
        }),
        ("43: a cross-version element", "Subscription.extension", |s| {
            let url = "http://hl7.org/fhir/5.0/StructureDefinition/extension-Subscription.filterBy";
            s["extension"] = json!([{"url": url, "valueString": "patient=Patient/123"}]);
        }),
        ("44: a topic of nobody", CRITERIA, |s| {
            s["criteria"] = json!("http://fhirserver.org/topics/patient-admission");
        }),
        ("44: a topic of ours that there is not", CRITERIA, |s| {
            s["criteria"] = json!("https://handoff.example/fhir/SubscriptionTopic/task-version");
        }),
        ("44: a query in place of the topic", CRITERIA, |s| {
            s["criteria"] = json!("Task?status=ready");
        }),
        ("45: a parameter that there is not", FILTER, |s| {
            filter(s, "nonsense=1");
        }),
        ("45: one of another type", FILTER, |s| {
            filter(s, "Encounter?patient=Patient/123");
        }),
        ("45: one of another type, with a dot", FILTER, |s| {
            filter(s, "Encounter.patient=Patient/123");
        }),
        ("45: one of another topic", FILTER, |s| {
            filter(s, "grant-status=issued");
        }),
        ("45: a modifier that there is not", FILTER, |s| {
            filter(s, "status:nonsense=ready");
        }),
        ("45: a value that is none", FILTER, |s| {
            filter(s, "_lastUpdated=yesterday");
        }),
        ("45: no filter at all", FILTER, |s| filter(s, "?")),
        ("45: one that is good, and one that is not", FILTER, |s| {
            filter(s, "status=ready");
            filter(s, "nonsense=1");
        }),
    ]
}

fn of_channels() -> Vec<Refusal> {
    const TYPE: &str = "Subscription.channel.type";
    const ENDPOINT: &str = "Subscription.channel.endpoint";
    const HEADER: &str = "Subscription.channel.header[0]";
    vec![
        ("46: a channel of nobody", TYPE, |s| {
            s["channel"]["type"] = json!("carrier-pigeon");
        }),
        ("46: email", TYPE, |s| s["channel"]["type"] = json!("email")),
        ("46: sms", TYPE, |s| s["channel"]["type"] = json!("sms")),
        ("46: message", TYPE, |s| s["channel"]["type"] = json!("message")),
        ("46: a custom channel", TYPE, |s| {
            let url = structure("backport-channel-type");
            s["channel"]["_type"] = json!({"extension": [{"url": url, "valueCoding": {"code": "zulip"}}]});
        }),
        ("47: no URL", ENDPOINT, |s| {
            s["channel"]["endpoint"] = json!("not a url");
        }),
        ("47: a relative one", ENDPOINT, |s| {
            s["channel"]["endpoint"] = json!("/hook");
        }),
        ("47: another scheme", ENDPOINT, |s| {
            s["channel"]["endpoint"] = json!("ftp://127.0.0.1/hook");
        }),
        ("47: a mail address", ENDPOINT, |s| {
            s["channel"]["endpoint"] = json!("mailto:someone@example.org");
        }),
        ("47: http to elsewhere", ENDPOINT, |s| {
            s["channel"]["endpoint"] = json!("http://example.org/hook");
        }),
        ("47: an inner network", ENDPOINT, |s| {
            s["channel"]["endpoint"] = json!("https://10.0.0.1/hook");
        }),
        ("47: the cloud's own address", ENDPOINT, |s| {
            s["channel"]["endpoint"] = json!("https://169.254.169.254/latest/meta-data");
        }),
        ("47: a password in it", ENDPOINT, |s| {
            s["channel"]["endpoint"] = json!("https://user:secret@example.org/hook");
        }),
        ("47: none", ENDPOINT, |s| {
            drop(s["channel"].as_object_mut().unwrap().remove("endpoint"));
        }),
        ("no header", HEADER, |s| {
            s["channel"]["header"] = json!(["no colon"]);
        }),
        ("a header of ours", HEADER, |s| {
            s["channel"]["header"] = json!(["Content-Type: text/plain"]);
        }),
        ("a header of the connection", HEADER, |s| {
            s["channel"]["header"] = json!(["Host: example.org"]);
        }),
        ("a signature of theirs", HEADER, |s| {
            s["channel"]["header"] = json!(["webhook-signature: v1,x"]);
        }),
        ("two lines in one", HEADER, |s| {
            s["channel"]["header"] = json!(["X-A: b\r\nX-C: d"]);
        }),
        ("a value that is redacted", "Subscription.channel.header", |s| {
            s["channel"]["header"] = json!(["Authorization: [redacted]"]);
        }),
    ]
}

fn of_payloads() -> Vec<Refusal> {
    const PAYLOAD: &str = "Subscription.channel.payload";
    const CONTENT: &str = "Subscription.channel.payload.extension";
    vec![
        ("48: a type of nobody", PAYLOAD, |s| {
            s["channel"]["payload"] = json!("application/nonsense");
        }),
        ("48: text", PAYLOAD, |s| {
            s["channel"]["payload"] = json!("text/plain");
        }),
        ("48: XML", PAYLOAD, |s| {
            s["channel"]["payload"] = json!("application/fhir+xml");
        }),
        ("48: another version", PAYLOAD, |s| {
            s["channel"]["payload"] = json!("application/fhir+json; fhirVersion=5.0");
        }),
        (
            "49: a web socket with an endpoint",
            "Subscription.channel.endpoint",
            |s| {
                s["channel"]["type"] = json!("websocket");
            },
        ),
        (
            "49: a web socket with headers",
            "Subscription.channel.header",
            |s| {
                s["channel"]["type"] = json!("websocket");
                s["channel"].as_object_mut().unwrap().remove("endpoint");
            },
        ),
        ("49: content of nobody", CONTENT, |s| {
            add_extension(
                &mut s["channel"]["_payload"],
                &structure("backport-payload-content"),
                "valueCode",
                "everything",
            );
        }),
        ("49: a topic without content", PAYLOAD, |s| {
            drop(s["channel"].as_object_mut().unwrap().remove("_payload"));
        }),
        ("49: content without a type", PAYLOAD, |s| {
            drop(s["channel"].as_object_mut().unwrap().remove("payload"));
        }),
    ]
}

fn of_the_rest() -> Vec<Refusal> {
    const CHANNEL: &str = "Subscription.channel.extension";
    vec![
        ("a heartbeat all the time", CHANNEL, |s| {
            number(s, "backport-heartbeat-period", "valueUnsignedInt", 1);
        }),
        ("a timeout of an hour", CHANNEL, |s| {
            number(s, "backport-timeout", "valueUnsignedInt", 3_600);
        }),
        ("two counts", CHANNEL, |s| {
            number(s, "backport-max-count", "valuePositiveInt", 5);
            number(s, "backport-max-count", "valuePositiveInt", 6);
        }),
        ("an extension of nobody", CHANNEL, |s| {
            number(s, "backport-nonsense", "valueUnsignedInt", 5);
        }),
        (
            "a status that the server alone gives",
            "Subscription.status",
            |s| s["status"] = json!("active"),
        ),
        ("an end that is past", "Subscription.end", |s| {
            s["end"] = json!("2020-01-01T00:00:00Z");
        }),
        ("a modifier", "Subscription.modifierExtension", |s| {
            s["modifierExtension"] = json!([{"url": "http://example.org/not", "valueBoolean": true}]);
        }),
        ("no reason", "Subscription.reason", |s| {
            drop(s.as_object_mut().unwrap().remove("reason"));
        }),
    ]
}
