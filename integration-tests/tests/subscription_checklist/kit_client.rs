//! A client that others wrote: fhir-kit-client subscribes, is told, and asks for its status and its events.

use handoff_integration_tests::backport::{Notification, Status, id_of, topic, valid};
use handoff_integration_tests::browser::Scenario;
use handoff_integration_tests::scene::Referral;
use handoff_integration_tests::{TestApp, on_both};
use serde_json::{Value, json};

fn bytes(value: &Value) -> Vec<u8> {
    value.as_str().expect("a body").as_bytes().to_vec()
}

on_both! {
    async fn fhir_kit_client_subscribes_and_is_told_of_each_move(backend) {
        let app = TestApp::start(backend).await;
        let referral = Referral::set(&app).await;
        let seen = Scenario::client("fhir-kit-client")
            .play(&json!({
                "base": format!("{}/fhir", app.server.base_url),
                "subscriber": app.client("interface").await.token,
                "mover": referral.lane.token,
                "subscription": topic("task-status-changed", "id-only", "of its own"),
                "task": referral.task,
                "statuses": ["in-progress", "on-hold", "in-progress"],
            }))
            .await;
        let made = valid("Subscription", seen["made"].to_string().as_bytes());
        assert_eq!((&seen["created"], &made["status"]), (&json!(201), &json!("requested")));
        let id = id_of(&made);
        let received = seen["received"].as_array().unwrap();
        let focus = format!("{}/fhir/Task/{}", app.server.base_url, referral.task);
        let mut numbers = Vec::new();
        for (at, one) in received.iter().enumerate() {
            assert_eq!(one["contentType"], "application/fhir+json");
            assert_eq!(one["authorization"], "Bearer subscriber-secret");
            let notification = Notification::read(&bytes(&one["body"]), &id);
            assert_eq!(notification.status.kind, if at == 0 { "handshake" } else { "event-notification" });
            for event in notification.status.told {
                assert_eq!(event.focus.as_deref(), Some(focus.as_str()));
                numbers.push(event.number);
            }
        }
        assert_eq!(numbers, [1, 2, 3]);
        for status in ["statusByGet", "statusByPost"] {
            let bundle = valid("Bundle", seen[status].to_string().as_bytes());
            let status = Status::read(&bundle["entry"][0]["resource"]);
            assert_eq!((status.id.as_str(), status.kind.as_str(), status.events), (id.as_str(), "query-status", Some(3)));
        }
        for (events, numbers) in [("eventsByGet", [2, 3]), ("eventsByPost", [1, 2])] {
            let told = Notification::read(seen[events].to_string().as_bytes(), &id);
            assert_eq!((told.status.kind.as_str(), told.status.numbers()), ("query-event", numbers.to_vec()));
        }
        assert_eq!(seen["found"], json!([id]));
        assert_eq!((&seen["deleted"], &seen["afterwards"]), (&json!(204), &json!(410)));
    }
}
