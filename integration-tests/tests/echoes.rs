//! Servers that tell each other the same, counts that can't be, and what was refused although it had ended: none of it runs
//! away, deafens or opens anything.

use handoff_integration_tests::scene::{Referral, task};
use handoff_integration_tests::subscriber::{Received, Reply, Subscriber};
use handoff_integration_tests::{TestApp, eventually, on_both};
use reqwest::Method;
use serde_json::{Value, json};

use crate::notifications::{event, feed, mirrored, notification, put, quarantined, theirs, versioned};
use crate::subscriptions::{SOON, becomes, subscribe, topic};

on_both! {
    /// As two servers do that mirror each other.
    async fn a_server_that_hears_its_own_changes_makes_no_further_version_of_them(backend) {
        let app = TestApp::start(backend).await;
        let ehr = app.client("ehr").await;
        let made = ehr
            .post(
                "/fhir/Subscription",
                &json!({
                    "resourceType": "Subscription", "status": "requested", "reason": "an echo",
                    "criteria": "Task?patient=Patient/ada",
                    "channel": {
                        "type": "rest-hook", "endpoint": format!("{}/notifications/ehr-feed", app.server.base_url),
                        "payload": "application/fhir+json", "header": ["Authorization: Bearer demo"],
                    },
                }),
            )
            .await
            .expect(201)
            .id();
        becomes(&ehr, &made, "active").await;
        let referral = Referral::set(&app).await;
        referral.move_to(&referral.lane, "in-progress").await.expect(200);
        let delivered = format!("/fhir/Subscription/{made}/$status");
        eventually("both versions were told", async || {
            let status = ehr.get(&delivered).await.expect(200).json();
            status.to_string().contains(r#""valueString":"2""#)
        })
        .await;
        // What came back is applied within moments, and would have been told again within as many.
        let operator = app.client("operator").await;
        eventually("what came back was applied", async || {
            let found = app
                .client("auditor")
                .await
                .get("/fhir/AuditEvent?subtype=notice-applied&_count=50")
                .await
                .expect(200)
                .json();
            found["entry"].as_array().map_or(0, Vec::len) >= 2
        })
        .await;
        let versions = ehr.get(&format!("/fhir/Task/{}/_history", referral.task)).await.expect(200).json();
        assert_eq!(versions["entry"].as_array().unwrap().len(), 2, "{versions}");
        // The empty handshake asks a source that has no base; the older version may come back after the newer was stored.
        let listed = operator.get("/admin/quarantine").await.expect(200).json();
        let reasons = listed["quarantine"].as_array().unwrap().iter().map(|one| &one["reason"]);
        for reason in reasons {
            assert!(reason == "not-supported" || reason == "illegal-transition", "{listed}");
        }
    }

    async fn a_task_that_ended_at_its_source_releases_nothing_here_although_its_end_is_refused(backend) {
        let app = TestApp::start(backend).await;
        let feed = feed(&app);
        let document = versioned(
            json!({
                "resourceType": "DocumentReference", "status": "current",
                "subject": {"reference": "Patient/ada"},
                "content": [{"attachment": {"contentType": "text/plain", "data": "aGVsbG8="}}],
            }),
            "dd",
            1,
        );
        put(&feed, &document).await.expect(200);
        put(&feed, &theirs("accepted", "dd", "tt", 1)).await.expect(200);
        let lane = app.client("lane").await;
        let ours = mirrored(&lane, "tt", "accepted").await;
        let id = ours["id"].as_str().unwrap().to_owned();
        let grants = async || {
            let reference = ours["input"][0]["valueReference"]["reference"]
                .as_str()
                .or(ours["focus"]["reference"].as_str())
                .unwrap()
                .trim_start_matches("DocumentReference/")
                .to_owned();
            let ehr = app.client("ehr").await;
            ehr.get(&format!("/files/{reference}/access-grants")).await.expect(200).json()
        };
        eventually("a grant is bound", async || grants().await.to_string().contains(r#""bound""#)).await;
        // In progress never came: the move is none that the table has.
        put(&feed, &theirs("completed", "dd", "tt", 2)).await.expect(200);
        quarantined(&app, "Task/tt").await;
        let after = grants().await.to_string();
        assert!(!after.contains(r#""bound""#) && after.contains("task-not-actionable"), "{after}");
        let task = lane.get(&format!("/fhir/Task/{id}")).await.expect(200).json();
        assert_eq!(task["status"], "accepted");
    }

    async fn a_count_that_cannot_be_does_not_deafen_a_source(backend) {
        let app = TestApp::start(backend).await;
        let feed = feed(&app);
        let ehr = app.client("ehr").await;
        let document = Referral::set(&app).await.document.id;
        let tell = async |body: &Value| feed.post("/notifications/ehr-feed", body).await;
        tell(&event(1, &theirs("requested", &document, "one", 1))).await.expect(200);
        mirrored(&ehr, "one", "requested").await;
        tell(&notification("heartbeat", Some(2_000_000_000), &[])).await.refused(422, "invalid");
        tell(&event(2, &theirs("requested", &document, "two", 1))).await.expect(200);
        mirrored(&ehr, "two", "requested").await;
        // It begins anew without a handshake: its signs of life tell.
        tell(&event(900, &theirs("requested", &document, "three", 1))).await.expect(200);
        tell(&notification("heartbeat", Some(0), &[])).await.expect(200);
        tell(&event(1, &theirs("requested", &document, "four", 1))).await.expect(200);
        mirrored(&ehr, "four", "requested").await;
    }

    async fn what_happened_while_a_subscriber_was_blocked_leaves_a_gap_and_nothing_is_told_of_it(backend) {
        let app = TestApp::start(backend).await;
        let subscriber = Subscriber::start().await;
        let (interface, operator) = (app.client("interface").await, app.client("operator").await);
        let hook = format!("{}/hook", subscriber.url);
        let own = interface
            .post("/fhir/Subscription", &topic("task-status-changed", "id-only", &[], &hook))
            .await
            .expect(201)
            .json();
        let id = own["id"].as_str().unwrap().to_owned();
        becomes(&interface, &id, "active").await;
        let actor = interface_actor(&app).await;
        let block = operator
            .post_plain("/admin/revocations", &json!({"actor": actor, "reason": "a drill"}))
            .await
            .expect(201)
            .json();
        let referral = Referral::set(&app).await;
        eventually("what happened meanwhile is withheld", async || {
            let found = app
                .client("auditor")
                .await
                .get("/fhir/AuditEvent?subtype=subscription-failed&_count=5")
                .await
                .expect(200)
                .json();
            found["entry"].as_array().map_or(0, Vec::len) >= 1
        })
        .await;
        operator
            .delete(&format!("/admin/revocations/{}", block["id"].as_str().unwrap()))
            .await
            .expect_one_of(&[200, 204]);
        referral.move_to(&referral.lane, "in-progress").await.expect(200);
        let all = subscriber
            .until(SOON, |all| all.iter().flat_map(Received::events).count() >= 1)
            .await;
        let numbers: Vec<i64> = all.iter().flat_map(Received::events).map(|(number, _)| number).collect();
        assert_eq!(numbers, [2]);
    }

    async fn another_endpoint_is_not_given_the_headers_of_the_first_and_signs_with_another_key(backend) {
        let app = TestApp::start(backend).await;
        let subscriber = Subscriber::start().await;
        let interface = app.client("interface").await;
        let hook = format!("{}/hook", subscriber.url);
        let body = topic("task-status-changed", "id-only", &[], &hook);
        let made = interface.post("/fhir/Subscription", &body).await.expect(201).json();
        let id = made["id"].as_str().unwrap().to_owned();
        becomes(&interface, &id, "active").await;
        let path = format!("/fhir/Subscription/{id}");
        let mut read = interface.get(&path).await.expect(200).json();
        read["channel"]["endpoint"] = json!(format!("{}/thief", subscriber.url));
        read["status"] = json!("requested");
        interface.put(&path, &read).await.expect(422);
        assert!(subscriber.received().iter().all(|one| one.path == "/hook"));
        read["channel"]["header"] = json!(["Authorization: Bearer another"]);
        let moved = interface.put(&path, &read).await.expect(200).json();
        let key = |of: &Value| of["channel"]["extension"].to_string();
        assert!(key(&moved).contains("whsec_") && key(&moved) != key(&made));
        becomes(&interface, &id, "active").await;
        let all = subscriber.received();
        assert_eq!(all.last().unwrap().header("authorization"), Some("Bearer another"));
    }

    async fn a_key_is_told_whatever_answer_was_preferred(backend) {
        let app = TestApp::start(backend).await;
        let subscriber = Subscriber::start().await;
        let interface = app.client("interface").await;
        let body = topic("task-status-changed", "id-only", &[], &format!("{}/hook", subscriber.url));
        let asked = interface
            .request(Method::POST, "/fhir/Subscription")
            .header("content-type", "application/fhir+json")
            .header("prefer", "return=minimal")
            .body(body.to_string());
        let made = interface.send(asked).await.expect(201);
        assert!(String::from_utf8_lossy(&made.body).contains("whsec_"));
    }

    async fn a_backlog_of_large_resources_is_told_in_bounded_pieces(backend) {
        let app = TestApp::start_with(backend, |options| {
            options.subscriptions.give_up_after = std::time::Duration::from_hours(1);
        })
        .await;
        let subscriber = Subscriber::start().await;
        let (interface, ehr) = (app.client("interface").await, app.client("ehr").await);
        let hook = format!("{}/hook", subscriber.url);
        let mut body = topic("task-status-changed", "full-resource", &[], &hook);
        body["channel"]["extension"] = json!([{
            "url": "http://hl7.org/fhir/uv/subscriptions-backport/StructureDefinition/backport-max-count",
            "valuePositiveInt": 100,
        }]);
        let id = subscribe(&interface, &body).await;
        subscriber.behave(|_| Reply::status(503));
        let document = Referral::set(&app).await.document.id;
        for _ in 0..6 {
            let mut large = task("requested", &document, None);
            large["description"] = json!("x".repeat(700_000));
            ehr.post("/fhir/Task", &large).await.expect(201);
        }
        subscriber.behave(|_| Reply::status(200));
        let all = subscriber
            .until(SOON, |all| {
                let taken = all.iter().filter(|one| one.answered == Some(200));
                taken.flat_map(Received::events).count() >= 7
            })
            .await;
        let largest = all.iter().map(|one| one.body.len()).max().unwrap();
        assert!(largest < 2_500_000, "{largest}");
        let asked = interface.get(&format!("/fhir/Subscription/{id}/$events")).await.expect(200);
        assert!(asked.body.len() < 10_000_000);
    }
}

/// Who the demo's subscriber is.
async fn interface_actor(app: &TestApp) -> String {
    let found = app
        .client("auditor")
        .await
        .get("/fhir/AuditEvent?subtype=subscription-created&_count=1")
        .await
        .expect(200)
        .json();
    found["entry"][0]["resource"]["agent"][0]["who"]["reference"]
        .as_str()
        .unwrap_or("Device/interface")
        .to_owned()
}
