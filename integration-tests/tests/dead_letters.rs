//! What subscribers did not take, as operators see it, and sending it after all.

use handoff_integration_tests::scene::Referral;
use handoff_integration_tests::subscriber::{Received, Reply, Subscriber};
use handoff_integration_tests::{TestApp, on_both};
use serde_json::json;

use crate::subscriptions::{SOON, becomes, subscribe, topic};

on_both! {
    async fn an_operator_sees_what_was_not_delivered_and_sends_it_again_and_nobody_else_does(backend) {
        let app = TestApp::start_with(backend, |options| {
            options.subscriptions.give_up_after = std::time::Duration::from_millis(1);
        })
        .await;
        let subscriber = Subscriber::start().await;
        let (interface, operator) = (app.client("interface").await, app.client("operator").await);
        let hook = format!("{}/hook", subscriber.url);
        let id = subscribe(&interface, &topic("task-status-changed", "id-only", &[], &hook)).await;
        subscriber.behave(|_| Reply::status(503));

        let referral = Referral::set(&app).await;
        becomes(&interface, &id, "error").await;
        referral.move_to(&referral.lane, "in-progress").await.expect(200);
        let path = format!("/fhir/Subscription/{id}/$status");
        handoff_integration_tests::eventually("events go on being counted", async || {
            interface.get(&path).await.json()["entry"][0]["resource"]["parameter"]
                .as_array()
                .is_some_and(|all| all.iter().any(|one| one["valueString"] == "2"))
        })
        .await;

        let listed = operator.get("/admin/subscriptions").await.expect(200).json();
        assert_eq!(listed["subscriptions"].as_array().unwrap().len(), 1);
        let one = &listed["subscriptions"][0];
        assert_eq!((&one["id"], &one["status"]), (&json!(id), &json!("error")));
        assert_eq!((&one["events"], &one["delivered"]), (&json!(2), &json!(0)));
        assert_eq!(one["problem"], "status-503");
        assert!(!listed.to_string().contains(&subscriber.url), "{listed}");

        let replay = format!("/admin/subscriptions/{id}/replay");
        for name in ["interface", "lane", "ehr", "auditor"] {
            let other = app.client(name).await;
            other.post_plain(&replay, &json!({})).await.refused(403, "policy-denied");
            other.get("/admin/subscriptions").await.refused(403, "policy-denied");
        }
        for (body, status) in [(json!({"from": 0}), 422), (json!({"from": 4}), 422), (json!({"until": 1}), 400)] {
            operator.post_plain(&replay, &body).await.expect(status);
        }

        let before = subscriber.received().len();
        subscriber.behave(|_| Reply::status(200));
        operator.post_plain(&replay, &json!({})).await.expect(202);
        let all = subscriber
            .until(SOON, |all| {
                all[before..].iter().flat_map(Received::events).count() >= 2
            })
            .await;
        assert_eq!(all[before].kind().as_deref(), Some("handshake"));
        let numbers: Vec<i64> = all[before..]
            .iter()
            .flat_map(Received::events)
            .map(|(number, _)| number)
            .collect();
        assert_eq!(numbers, [1, 2]);
        becomes(&interface, &id, "active").await;
        operator.post_plain(&replay, &json!({})).await.expect(409);

        // Once more, and this time from the beginning.
        subscriber.behave(|_| Reply::status(503));
        referral.move_to(&referral.lane, "ready").await.expect(200);
        becomes(&interface, &id, "error").await;
        let before = subscriber.received().len();
        subscriber.behave(|_| Reply::status(200));
        operator.post_plain(&replay, &json!({"from": 1})).await.expect(202);
        let all = subscriber
            .until(SOON, |all| all[before..].iter().flat_map(Received::events).count() >= 3)
            .await;
        let numbers: Vec<i64> = all[before..].iter().flat_map(Received::events).map(|(number, _)| number).collect();
        assert_eq!(numbers, [1, 2, 3]);
        operator
            .post_plain("/admin/subscriptions/nothing/replay", &json!({}))
            .await
            .expect(404);
    }
}
