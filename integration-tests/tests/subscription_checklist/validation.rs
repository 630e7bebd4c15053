//! `$validate` of a Subscription: what creating it would say, without creating it.

use handoff_integration_tests::backport::{structure, topic, valid};
use handoff_integration_tests::{Client, TestApp, on_both};
use serde_json::{Value, json};

const ENDPOINT: &str = "https://subscriber.example/hook";

/// The places of the errors that are found.
async fn errors(client: &Client, query: &str, body: &Value) -> Vec<String> {
    let answer = client
        .post(&format!("/fhir/Subscription/$validate{query}"), body)
        .await
        .expect(200);
    let outcome = valid("OperationOutcome", &answer.body);
    outcome["issue"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|issue| issue["severity"] == "error")
        .map(|issue| issue["expression"][0].as_str().unwrap_or("-").to_owned())
        .collect()
}

on_both! {
    async fn validating_a_subscription_says_what_creating_it_would(backend) {
        let app = TestApp::start(backend).await;
        let interface = app.client("interface").await;
        let good = topic("task-status-changed", "id-only", ENDPOINT);
        let profile = structure("backport-subscription");
        let mut plain = good.clone();
        plain.as_object_mut().unwrap().remove("meta");
        let mut base = plain.clone();
        base["criteria"] = json!("Task?status=ready");
        base["channel"].as_object_mut().unwrap().remove("_payload");
        let of_the_profile = format!("?profile={profile}");
        for (query, body) in [
            ("", &good),
            ("", &plain),
            ("", &base),
            (&*of_the_profile, &good),
            (&*of_the_profile, &plain),
            (&*format!("?profile={profile}|1.1.0"), &plain),
        ] {
            assert_eq!(errors(&interface, query, body).await, [] as [String; 0], "{query} {body}");
        }
        // In Parameters too.
        let parameters = json!({"resourceType": "Parameters", "parameter": [
            {"name": "profile", "valueUri": profile},
            {"name": "resource", "resource": plain},
        ]});
        assert_eq!(errors(&interface, "", &parameters).await, [] as [String; 0]);

        // Criteria of base R4 are no topic, whoever asks: who names the profile is held to it.
        let departures = ["Subscription.criteria", "Subscription.channel.payload.extension"];
        assert_eq!(errors(&interface, &of_the_profile, &base).await, departures);
        let mut claiming = base.clone();
        claiming["meta"] = json!({"profile": [profile]});
        for place in departures {
            assert!(errors(&interface, "", &claiming).await.iter().any(|at| at == place), "{place}");
        }
        interface.post("/fhir/Subscription", &claiming).await.expect(422);

        for (place, edit) in [
            ("Subscription.criteria", (|s| s["criteria"] = json!("http://example.org/topic")) as fn(&mut Value)),
            ("Subscription.channel.endpoint", |s| s["channel"]["endpoint"] = json!("ftp://example.org")),
            ("Subscription.channel.type", |s| s["channel"]["type"] = json!("sms")),
            ("Subscription.status", |s| s["status"] = json!("nonsense")),
            ("Subscription.reason", |s| drop(s.as_object_mut().unwrap().remove("reason"))),
        ] {
            let mut bad = good.clone();
            edit(&mut bad);
            assert_eq!(errors(&interface, "", &bad).await, [place], "{bad}");
            interface.post("/fhir/Subscription", &bad).await.expect_one_of(&[400, 422]);
        }
        assert_eq!(errors(&interface, "?profile=http://example.org/nobodys", &good).await, ["-"]);
        assert_eq!(errors(&interface, "?profile=https://handoff.example/fhir/StructureDefinition/handoff-task", &good).await, ["Task"]);
        let found = interface.get("/fhir/Subscription?_summary=count").await.expect(200).json();
        assert_eq!(found["total"], 0);
    }
}
