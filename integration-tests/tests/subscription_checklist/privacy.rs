//! What nobody is shown again, what an operator may do, and what somebody else learns: nothing.

use handoff_domain::ports::Clock as _;
use handoff_fhir_profiles::canonical::EXT_SIGNING_SECRET;
use handoff_integration_tests::backport::{
    HEADER, Notification, becomes, id_of, structure, subscribe, topic, valid,
};
use handoff_integration_tests::scene::Referral;
use handoff_integration_tests::subscriber::{Received, Subscriber};
use handoff_integration_tests::{Answer, Client, TestApp, on_both};
use handoff_outbound::signing::{SignedHeaders, SigningSecret, verify};
use reqwest::Method;
use serde_json::{Value, json};

use super::{SOON, refused_at};

const REDACTED: &str = "Authorization: [redacted]";

/// A change to a Subscription.
type Edit = fn(&mut Value);

fn key_of(made: &Value) -> String {
    let extensions = made["channel"]["extension"].as_array().unwrap();
    let key = extensions
        .iter()
        .find(|one| one["url"] == EXT_SIGNING_SECRET)
        .unwrap();
    key["valueString"].as_str().unwrap().to_owned()
}

/// The subscription as it is read.
async fn current(client: &Client, id: &str) -> Value {
    client
        .get(&format!("/fhir/Subscription/{id}"))
        .await
        .expect(200)
        .json()
}

/// Reads it, changes it, and writes it back.
async fn change(client: &Client, id: &str, edit: impl FnOnce(&mut Value)) -> Answer {
    let mut body = current(client, id).await;
    edit(&mut body);
    client.put(&format!("/fhir/Subscription/{id}"), &body).await
}

fn handshakes(all: &[Received]) -> usize {
    all.iter()
        .filter(|one| one.kind().as_deref() == Some("handshake"))
        .count()
}

fn told(all: &[Received]) -> usize {
    all.iter()
        .filter(|one| one.kind().as_deref() == Some("event-notification"))
        .count()
}

on_both! {
    async fn headers_and_the_signing_key_are_shown_once_and_never_again(backend) {
        let app = TestApp::start(backend).await;
        let subscriber = Subscriber::start().await;
        let (interface, operator) = (app.client("interface").await, app.client("operator").await);
        let made = subscribe(&interface, &topic("task-status-changed", "full-resource", &subscriber.url)).await;
        let (id, key) = (id_of(&made), key_of(&made));
        assert_eq!(made["channel"]["header"], json!([HEADER]));
        let referral = Referral::set(&app).await;
        referral.move_to(&referral.lane, "in-progress").await.expect(200);
        subscriber.until(SOON, |all| told(all) >= 2).await;

        let updated = change(&interface, &id, |body| body["reason"] = json!("to see them through")).await;
        let path = format!("/fhir/Subscription/{id}");
        let mut answers = vec![updated.expect(200)];
        for client in [&interface, &operator] {
            for path in [
                path.clone(),
                format!("{path}/_history"),
                format!("{path}/_history/1"),
                format!("{path}/_history/2"),
                format!("{path}/_history/3"),
                format!("/fhir/Subscription?_id={id}"),
                format!("{path}/$status"),
                "/fhir/Subscription/$status".to_owned(),
                format!("{path}/$events?content=full-resource"),
            ] {
                answers.push(client.get(&path).await.expect(200));
            }
        }
        let secret = HEADER.rsplit(' ').next().unwrap();
        let mut redacted = 0;
        for answer in answers {
            let text = String::from_utf8_lossy(&answer.body).into_owned();
            assert!(!text.contains(secret) && !text.contains(&key) && !text.contains("whsec_"), "{text}");
            redacted += usize::from(text.contains(REDACTED));
        }
        // In the answer to the change, and in the first six of each.
        assert_eq!(redacted, 13);
        for one in subscriber.received() {
            let text = String::from_utf8_lossy(&one.body).into_owned();
            assert!(!text.contains(secret) && !text.contains(&key), "{text}");
        }
    }

    async fn a_redacted_header_that_is_written_back_keeps_its_value(backend) {
        let app = TestApp::start(backend).await;
        let subscriber = Subscriber::start().await;
        let interface = app.client("interface").await;
        let made = subscribe(&interface, &topic("task-status-changed", "id-only", &subscriber.url)).await;
        let (id, key) = (id_of(&made), key_of(&made));
        // Nothing of how it is told changes, so it stays active and goes on as before.
        let kept = change(&interface, &id, |body| {
            assert_eq!(body["channel"]["header"], json!([REDACTED]));
            body["reason"] = json!("to see them through");
        })
        .await
        .expect(200)
        .json();
        assert_eq!((&kept["status"], &kept["channel"]["header"]), (&json!("active"), &json!([REDACTED])));
        Referral::set(&app).await;
        let all = subscriber.until(SOON, |all| told(all) >= 1).await;
        assert_eq!(handshakes(&all), 1);
        Notification::received(all.last().unwrap(), &made);

        // Another header beside it: it is another channel, and has to show that it answers.
        let changed = change(&interface, &id, |body| {
            body["channel"]["header"] = json!([REDACTED, "X-More: one"]);
            body["status"] = json!("requested");
        })
        .await
        .expect(200)
        .json();
        assert_eq!(changed["status"], "requested");
        assert_eq!(changed["channel"]["header"], json!([REDACTED, "X-More: [redacted]"]));
        becomes(&interface, &id, "active").await;
        let all = subscriber.until(SOON, |all| handshakes(all) >= 2).await;
        let mut both = made.clone();
        both["channel"]["header"] = json!([HEADER, "X-More: one"]);
        Notification::received(all.last().unwrap(), &both);
        // The key is the same for as long as the subscription is.
        let sent = serde_json::to_string(&current(&interface, &id).await).unwrap();
        assert!(!sent.contains(&key));

        // A value that was never given is not kept.
        let unknown = change(&interface, &id, |body| {
            body["channel"]["header"] = json!([REDACTED, "X-Never: [redacted]"]);
        })
        .await;
        refused_at(&unknown, "Subscription.channel.header", "a header that was not there");
    }

    async fn who_goes_over_from_a_web_socket_is_told_the_key_once(backend) {
        let app = TestApp::start(backend).await;
        let subscriber = Subscriber::start().await;
        let interface = app.client("interface").await;
        let hook = topic("task-status-changed", "id-only", &subscriber.url);
        let mut socket = hook.clone();
        socket["channel"]["type"] = json!("websocket");
        for name in ["endpoint", "header"] {
            socket["channel"].as_object_mut().unwrap().remove(name);
        }
        let made = subscribe(&interface, &socket).await;
        assert_eq!(made["channel"].get("extension"), None, "nothing is sent there");
        let id = id_of(&made);
        let change_over = async || {
            let edit = |body: &mut Value| {
                body["status"] = json!("requested");
                body["channel"] = hook["channel"].clone();
            };
            change(&interface, &id, edit).await.expect(200).json()
        };
        let changed = change_over().await;
        assert_eq!(changed["channel"]["header"], json!([REDACTED]));
        let key = SigningSecret::parse(&key_of(&changed)).unwrap();
        let all = subscriber.until(SOON, |all| handshakes(all) >= 1).await;
        let headers = SignedHeaders {
            id: all[0].header("webhook-id").unwrap(),
            timestamp: all[0].header("webhook-timestamp").unwrap(),
            signature: all[0].header("webhook-signature").unwrap(),
        };
        let now = app.clock.now().0.div_euclid(1_000_000);
        assert_eq!(verify(&[key], headers, &all[0].body, now, SOON * 15), Ok(()));
        for told in [change_over().await, current(&interface, &id).await] {
            assert_eq!(told["channel"].get("extension"), None);
        }
    }

    async fn an_operator_changes_the_status_of_anothers_subscription_and_nothing_else(backend) {
        let app = TestApp::start(backend).await;
        let subscriber = Subscriber::start().await;
        let (interface, operator) = (app.client("interface").await, app.client("operator").await);
        let made = subscribe(&interface, &topic("task-status-changed", "id-only", &subscriber.url)).await;
        let id = id_of(&made);
        let changes: [(&str, Edit); 12] = [
            ("the endpoint", |s| s["channel"]["endpoint"] = json!("https://example.org/elsewhere")),
            ("a header", |s| s["channel"]["header"] = json!(["Authorization: Bearer mine"])),
            ("no header", |s| drop(s["channel"].as_object_mut().unwrap().remove("header"))),
            ("the topic", |s| s["criteria"] = json!("https://handoff.example/fhir/SubscriptionTopic/task-assigned")),
            ("a filter", |s| *s = handoff_integration_tests::backport::filtered(s.take(), "status=ready")),
            ("the content", |s| s["channel"]["_payload"]["extension"][0]["valueCode"] = json!("full-resource")),
            ("the payload", |s| s["channel"]["payload"] = json!("application/json")),
            ("a heartbeat", |s| {
                let url = structure("backport-heartbeat-period");
                s["channel"]["extension"] = json!([{"url": url, "valueUnsignedInt": 60}]);
            }),
            ("the end", |s| s["end"] = json!("2099-01-01T00:00:00Z")),
            ("the reason", |s| s["reason"] = json!("another one")),
            ("a contact", |s| s["contact"] = json!([{"system": "phone", "value": "1"}])),
            ("a text", |s| {
                let div = "<div xmlns=\"http://www.w3.org/1999/xhtml\">mine</div>";
                s["text"] = json!({"status": "generated", "div": div});
            }),
        ];
        let before = current(&interface, &id).await;
        for (what, edit) in changes {
            for status in ["active", "off"] {
                let answer = change(&operator, &id, |body| {
                    edit(body);
                    body["status"] = json!(status);
                })
                .await;
                assert_eq!((answer.status.as_u16(), answer.reason().as_deref()), (403, Some("policy-denied")), "{what}");
            }
        }
        assert_eq!(current(&interface, &id).await, before);

        let off = change(&operator, &id, |body| {
            body["status"] = json!("off");
            body["meta"]["tag"] = json!([{"code": "mine"}]);
        })
        .await;
        let off = valid("Subscription", &off.expect(200).body);
        assert_eq!((&off["status"], &off["meta"]["tag"]), (&json!("off"), &Value::Null));
        assert_eq!(off["channel"]["header"], json!([REDACTED]));
        // Asked for again it is told by its subscriber's rights and with its headers, as before.
        change(&operator, &id, |body| body["status"] = json!("requested")).await.expect(200);
        becomes(&operator, &id, "active").await;
        Referral::set(&app).await;
        let all = subscriber.until(SOON, |all| told(all) >= 1).await;
        assert_eq!(handshakes(&all), 2);
        for one in &all {
            Notification::received(one, &made);
        }
        operator.delete(&format!("/fhir/Subscription/{id}")).await.expect(204);
        interface.get(&format!("/fhir/Subscription/{id}")).await.expect(410);
    }

    async fn a_subscription_of_somebody_else_is_answered_as_one_that_never_was(backend) {
        let app = TestApp::start(backend).await;
        let subscriber = Subscriber::start().await;
        let (interface, ehr) = (app.client("interface").await, app.client("ehr").await);
        let lane = app.client("lane").await;
        let asked = topic("task-status-changed", "id-only", &subscriber.url);
        let theirs = id_of(&subscribe(&interface, &asked).await);
        let gone = id_of(&subscribe(&interface, &asked).await);
        interface.delete(&format!("/fhir/Subscription/{gone}")).await.expect(204);
        let hers = id_of(&subscribe(&ehr, &asked).await);
        let before = current(&interface, &theirs).await;
        // Somebody with subscriptions of her own, the other way round, and one who may have none.
        for (client, id) in [(&ehr, &theirs), (&ehr, &gone), (&interface, &hers), (&lane, &theirs), (&lane, &gone)] {
            let unknown = unlike(id);
            for (method, path) in routes() {
                let theirs = ask(client, &method, path, id, &asked).await;
                let never = ask(client, &method, path, &unknown, &asked).await;
                assert_eq!(theirs, never, "{method} {path}");
                let told = match (&method, path.contains('?')) {
                    (&Method::DELETE, _) => theirs.0 == 204,
                    (_, true) => theirs.0 == 200 || client.token == lane.token && theirs.0 == 403,
                    _ => theirs.0 == 404,
                };
                assert!(told, "{method} {path}: {theirs:?}");
            }
        }
        assert_eq!(current(&interface, &theirs).await, before);
        // Its owner is told that it was deleted, and an operator too.
        for client in [interface, app.client("operator").await] {
            client.get(&format!("/fhir/Subscription/{gone}")).await.expect(410);
            client.get(&format!("/fhir/Subscription/{gone}/$status")).await.expect(410);
            client.get(&format!("/fhir/Subscription/{gone}/$events")).await.expect(410);
        }
    }
}

/// Every way to a subscription, with `*` for its id.
fn routes() -> Vec<(Method, &'static str)> {
    vec![
        (Method::GET, "/fhir/Subscription/*"),
        (Method::HEAD, "/fhir/Subscription/*"),
        (Method::GET, "/fhir/Subscription/*/_history"),
        (Method::GET, "/fhir/Subscription/*/_history/1"),
        (Method::GET, "/fhir/Subscription/*/_history/2"),
        (Method::GET, "/fhir/Subscription/*/$status"),
        (Method::POST, "/fhir/Subscription/*/$status"),
        (Method::GET, "/fhir/Subscription/*/$events"),
        (Method::POST, "/fhir/Subscription/*/$events"),
        (Method::PUT, "/fhir/Subscription/*"),
        (Method::GET, "/fhir/Subscription?_id=*"),
        (Method::GET, "/fhir/Subscription?_id=*&_summary=count"),
        (Method::GET, "/fhir/Subscription/$status?id=*"),
        (Method::DELETE, "/fhir/Subscription/*"),
    ]
}

/// An id of the same form that nothing has.
fn unlike(id: &str) -> String {
    let (rest, last) = id.split_at(id.len() - 1);
    format!("{rest}{}", if last == "0" { "1" } else { "0" })
}

/// What is answered, without the id that was asked for, the correlation and the time.
async fn ask(client: &Client, method: &Method, path: &str, id: &str, asked: &Value) -> (u16, String, String) {
    let mut body = asked.clone();
    body["id"] = json!(id);
    let path = path.replace('*', id);
    let answer = match *method {
        Method::PUT => client.put(&path, &body).await,
        _ => client.send(client.request(method.clone(), &path)).await,
    };
    let correlation = answer.header("x-correlation-id").unwrap_or("-").to_owned();
    let plain = |text: String| text.replace(id, "*").replace(&correlation, "*");
    let mut headers: Vec<String> = answer
        .headers
        .iter()
        .filter(|(name, _)| *name != "date")
        .map(|(name, value)| plain(format!("{name}: {}", value.to_str().unwrap_or_default())))
        .collect();
    headers.sort();
    let text = plain(String::from_utf8_lossy(&answer.body).into_owned());
    let text = match text.split_once("\"timestamp\":\"") {
        Some((before, after)) => format!("{before}{}", after.split_once('"').map_or("", |(_, rest)| rest)),
        None => text,
    };
    (answer.status.as_u16(), headers.join("\n"), text)
}
