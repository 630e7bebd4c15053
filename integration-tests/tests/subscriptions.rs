//! Subscriptions out: who is told what, in which order and how often, and what subscribers and operators see of it.

use std::time::Duration;

use handoff_integration_tests::scene::Referral;
use handoff_integration_tests::subscriber::{Received, Subscriber};
use handoff_integration_tests::{Client, TestApp, on_both};
use serde_json::{Value, json};

const BACKPORT: &str = "http://hl7.org/fhir/uv/subscriptions-backport/StructureDefinition";
const TOPIC: &str = "https://handoff.example/fhir/SubscriptionTopic";
/// How long something may take in a debug build while other tests run.
pub const SOON: Duration = Duration::from_secs(10);

/// A subscription to a topic.
pub fn topic(name: &str, content: &str, filters: &[&str], endpoint: &str) -> Value {
    let filters: Vec<Value> = filters
        .iter()
        .map(|filter| json!({"url": format!("{BACKPORT}/backport-filter-criteria"), "valueString": filter}))
        .collect();
    let mut body = json!({
        "resourceType": "Subscription",
        "status": "requested",
        "reason": "follow referrals",
        "criteria": format!("{TOPIC}/{name}"),
        "channel": {
            "type": "rest-hook",
            "endpoint": endpoint,
            "payload": "application/fhir+json",
            "_payload": {"extension": [
                {"url": format!("{BACKPORT}/backport-payload-content"), "valueCode": content},
            ]},
            "header": ["Authorization: Bearer subscriber-secret"],
        },
    });
    if !filters.is_empty() {
        body["_criteria"] = json!({"extension": filters});
    }
    body
}

/// Creates a subscription and waits until it is active; answers its id.
pub async fn subscribe(client: &Client, body: &Value) -> String {
    let made = client.post("/fhir/Subscription", body).await.expect(201).json();
    let id = made["id"].as_str().unwrap().to_owned();
    becomes(client, &id, "active").await;
    id
}

pub async fn becomes(client: &Client, id: &str, status: &str) {
    let began = std::time::Instant::now();
    loop {
        let now = client
            .get(&format!("/fhir/Subscription/{id}"))
            .await
            .expect(200)
            .json();
        if now["status"] == status {
            return;
        }
        assert!(began.elapsed() < SOON, "{now}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

on_both! {
    async fn a_subscriber_is_told_of_every_move_of_a_task_in_order_and_numbered_without_gaps(backend) {
        let app = TestApp::start(backend).await;
        let subscriber = Subscriber::start().await;
        let interface = app.client("interface").await;
        let hook = format!("{}/hook", subscriber.url);
        let made = interface
            .post("/fhir/Subscription", &topic("task-status-changed", "id-only", &[], &hook))
            .await
            .expect(201)
            .json();
        assert_eq!(made["status"], "requested");
        assert_eq!(made["channel"]["header"][0], "Authorization: Bearer subscriber-secret");
        let id = made["id"].as_str().unwrap().to_owned();
        becomes(&interface, &id, "active").await;

        let referral = Referral::set(&app).await;
        for status in ["in-progress", "on-hold", "in-progress"] {
            referral.move_to(&referral.lane, status).await.expect(200);
        }
        let told = |all: &[Received]| -> Vec<(i64, Option<String>)> {
            all.iter().flat_map(Received::events).collect()
        };
        let all = subscriber.until(SOON, |all| told(all).len() >= 4).await;
        let numbers: Vec<i64> = told(&all).into_iter().map(|(number, _)| number).collect();
        assert_eq!(numbers, [1, 2, 3, 4]);
        let focus = format!("{}/fhir/Task/{}", app.server.base_url, referral.task);
        assert!(told(&all).into_iter().all(|(_, told)| told.as_deref() == Some(focus.as_str())));
        assert_eq!(all[0].kind().as_deref(), Some("handshake"));
        for one in &all {
            assert_eq!(one.header("authorization"), Some("Bearer subscriber-secret"));
            assert_eq!(one.header("content-type"), Some("application/fhir+json"));
        }
        let status = interface
            .get(&format!("/fhir/Subscription/{id}/$status"))
            .await
            .expect(200)
            .json();
        assert_eq!(status["entry"][0]["resource"]["parameter"][4]["valueString"], "4");
    }
}
