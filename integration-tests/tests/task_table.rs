//! The table of Task moves over HTTP: every pair of statuses, for the placer, the owner, a team member and a
//! stranger, each with the answer of the contract.

use handoff_integration_tests::scene::{document, task};
use handoff_integration_tests::{Client, TestApp, on_both};
use serde_json::json;

/// The table of the contract, written down here a second time on purpose.
const TABLE: [(&str, &[&str]); 12] = [
    ("draft", &["requested", "ready", "cancelled"]),
    (
        "requested",
        &["received", "accepted", "rejected", "ready", "cancelled"],
    ),
    ("received", &["accepted", "rejected", "ready", "cancelled"]),
    (
        "accepted",
        &["ready", "in-progress", "on-hold", "cancelled", "failed"],
    ),
    (
        "ready",
        &[
            "in-progress",
            "on-hold",
            "requested",
            "cancelled",
            "failed",
            "completed",
        ],
    ),
    (
        "in-progress",
        &["on-hold", "ready", "completed", "failed", "cancelled"],
    ),
    ("on-hold", &["accepted", "cancelled", "failed"]),
    ("rejected", &[]),
    ("cancelled", &[]),
    ("failed", &[]),
    ("completed", &[]),
    ("entered-in-error", &[]),
];

/// What an owner may move to, where the table allows it.
const OWNERS: [&str; 7] = [
    "accepted",
    "rejected",
    "in-progress",
    "on-hold",
    "ready",
    "completed",
    "failed",
];

/// How a new Task gets to each status.
fn way_to(status: &str) -> &'static [&'static str] {
    match status {
        "draft" => &["draft"],
        "requested" => &["requested"],
        "received" => &["received"],
        "accepted" => &["accepted"],
        "ready" => &["ready"],
        "in-progress" => &["in-progress"],
        "on-hold" => &["accepted", "on-hold"],
        "rejected" => &["requested", "rejected"],
        "cancelled" => &["draft", "cancelled"],
        "failed" => &["ready", "failed"],
        "completed" => &["ready", "completed"],
        "entered-in-error" => &["draft", "entered-in-error"],
        other => panic!("no way to {other}"),
    }
}

/// A Task in `status`, owned by lane.
async fn task_in(ehr: &Client, document: &str, status: &str) -> String {
    let mut way = way_to(status).iter();
    let first = way.next().unwrap();
    let id = ehr
        .post("/fhir/Task", &task(first, document, Some("Practitioner/lane")))
        .await
        .expect(201)
        .id();
    for next in way {
        put(ehr, ehr, &id, next).await.expect(200);
    }
    id
}

async fn put(ehr: &Client, by: &Client, id: &str, status: &str) -> handoff_integration_tests::Answer {
    let path = format!("/fhir/Task/{id}");
    let mut body = ehr.get(&path).await.expect(200).json();
    body["status"] = json!(status);
    by.put(&path, &body).await
}

fn is_legal(from: &str, to: &str) -> bool {
    let row = TABLE.iter().find(|(status, _)| *status == from).unwrap().1;
    from == to || to == "entered-in-error" || row.contains(&to)
}

on_both! {
    async fn every_pair_of_statuses_gets_the_answer_of_the_table(backend) {
        let app = TestApp::start(backend).await;
        let ehr = app.client("ehr").await;
        let (lane, clerk, otis) =
            (app.client("lane").await, app.client("clerk").await, app.client("otis").await);
        let document = document(&ehr, b"content").await.id;
        for (from, _) in TABLE {
            for (to, _) in TABLE {
                let id = task_in(&ehr, &document, from).await;
                let case = format!("{from} -> {to}");
                put(&ehr, &otis, &id, to).await.refused(404, "not-found");
                if !is_legal(from, to) {
                    for client in [&clerk, &lane, &ehr] {
                        let answer = put(&ehr, client, &id, to).await.refused(422, "illegal-transition");
                        let issue = &answer.json()["issue"][0];
                        assert_eq!(issue["code"], "business-rule", "{case}");
                        assert_eq!(issue["expression"][0], "Task.status", "{case}");
                    }
                    continue;
                }
                put(&ehr, &clerk, &id, to).await.refused(403, "policy-denied");
                let owners_own = from == to || OWNERS.contains(&to) && from != "draft";
                if owners_own {
                    put(&ehr, &lane, &id, to).await.expect(200);
                } else {
                    put(&ehr, &lane, &id, to).await.refused(403, "policy-denied");
                    put(&ehr, &ehr, &id, to).await.expect(200);
                }
            }
        }
    }

    async fn the_placer_may_make_every_legal_move(backend) {
        let app = TestApp::start(backend).await;
        let ehr = app.client("ehr").await;
        let document = document(&ehr, b"content").await.id;
        for (from, row) in TABLE {
            for to in row.iter().chain(&["entered-in-error"]) {
                let id = task_in(&ehr, &document, from).await;
                put(&ehr, &ehr, &id, to).await.expect(200);
            }
        }
    }

    async fn a_task_starts_only_in_the_statuses_of_the_table(backend) {
        let app = TestApp::start(backend).await;
        let ehr = app.client("ehr").await;
        let document = document(&ehr, b"content").await.id;
        let first = ["draft", "requested", "received", "accepted", "ready", "in-progress"];
        for (status, _) in TABLE {
            let answer = ehr.post("/fhir/Task", &task(status, &document, None)).await;
            if first.contains(&status) {
                answer.expect(201);
            } else {
                answer.refused(422, "illegal-transition");
            }
        }
    }
}
