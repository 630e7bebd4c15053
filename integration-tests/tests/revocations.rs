//! Emergency revocation: what a block stops, on every replica, and what stays so once it is lifted.

use std::time::{Duration, Instant};

use handoff_domain::TenantId;
use handoff_integration_tests::process::{CONFIG, run_with};
use handoff_integration_tests::scene::{ADA, Referral, noise, task};
use handoff_integration_tests::slow::SlowDownload;
use handoff_integration_tests::{Answer, Backend, Client, TestApp, eventually, on_both};
use serde_json::{Value, json};

const REVOCATIONS: &str = "/admin/revocations";
const KINDS: [&str; 7] = ["actor", "client", "patient", "document", "task", "issuer", "all"];
/// How long a cut may take in a debug build while other tests run.
const SOON: Duration = Duration::from_secs(2);

/// What names the scene's own, for a block of a kind.
fn named(app: &TestApp, referral: &Referral, kind: &str) -> Value {
    match kind {
        "actor" => json!("Practitioner/lane"),
        "client" => json!("lane"),
        "patient" => json!(ADA),
        "document" => json!(format!("DocumentReference/{}", referral.document.id)),
        "task" => json!(format!("Task/{}", referral.task)),
        "issuer" => json!(format!("{}/dev-issuer", app.server.base_url)),
        "all" => json!(true),
        other => panic!("{other}"),
    }
}

/// A file with that.
fn config(app: &TestApp) -> String {
    let file = app.folder().join("handoff.toml");
    std::fs::write(&file, CONFIG).unwrap();
    file.to_str().unwrap().to_owned()
}

/// The server's database, as a variable.
fn database(app: &TestApp) -> [(&'static str, &str); 1] {
    [("HANDOFF__DATABASE__URL", app.options.store.url.as_str())]
}

async fn block(operator: &Client, kind: &str, value: Value) -> Value {
    let body = json!({kind: value, "reason": "badge stolen"});
    operator.post_plain(REVOCATIONS, &body).await.expect(201).json()
}

async fn lift(operator: &Client, block: &Value) -> Answer {
    let id = block["id"].as_str().unwrap();
    operator.delete(&format!("{REVOCATIONS}/{id}")).await
}

fn reason(kind: &str) -> &'static str {
    if kind == "actor" {
        "actor-revoked"
    } else {
        "emergency"
    }
}

/// Whether nothing is left of what a block is on.
fn holds_no_grant(kind: &str) -> bool {
    matches!(kind, "client" | "issuer")
}

on_both! {
    /// For each kind: nothing is fetched, nothing is issued by moves or on request, and once lifted what was taken back
    /// has to be asked for again.
    async fn a_block_stands_until_it_is_lifted(backend) {
        let app = TestApp::start(backend).await;
        let operator = app.client("operator").await;
        for kind in KINDS {
            let referral = Referral::set(&app).await;
            let placed = block(&operator, kind, named(&app, &referral, kind)).await;
            assert_eq!(placed[kind], named(&app, &referral, kind));
            assert_eq!(placed["reason"], "badge stolen");
            let tasks = placed["tasks"].as_u64().unwrap();
            assert_eq!(tasks > 0, !holds_no_grant(kind), "{kind}: {tasks}");
            let listed = operator.get(REVOCATIONS).await.expect(200).json();
            assert_eq!(listed["revocations"][0]["id"], placed["id"], "{kind}");

            let refused = referral.fetch(&referral.lane).await.refused(403, reason(kind));
            assert!(!refused.json().to_string().contains("badge"), "{kind}: an operator's note is told");
            if kind != "issuer" {
                let states: Vec<Value> = referral.grants().await.iter().map(|g| g["reason"].clone()).collect();
                let expected = if holds_no_grant(kind) { Value::Null } else { json!(reason(kind)) };
                assert_eq!(states, [expected], "{kind}");
                // The next move does not issue again, and neither does asking.
                referral.move_to(&referral.ehr, "ready").await.expect(200);
                let ask = json!({
                    "task": format!("Task/{}", referral.task),
                    "actor": {"reference": "Practitioner/lane"}
                });
                let path = format!("/files/{}/access-grants", referral.document.id);
                let asked = referral.ehr.post_plain(&path, &ask).await;
                if holds_no_grant(kind) {
                    asked.expect(201);
                } else {
                    asked.refused(403, reason(kind));
                    assert_eq!(referral.grants().await.len(), 1, "{kind}");
                }
                referral.fetch(&referral.lane).await.refused(403, reason(kind));
            }

            lift(&operator, &placed).await.expect(204);
            lift(&operator, &placed).await.expect(204);
            let left = operator.get(REVOCATIONS).await.expect(200).json();
            assert_eq!(left["revocations"], json!([]), "{kind}");
            if holds_no_grant(kind) {
                referral.fetch(&referral.lane).await.expect(200);
                continue;
            }
            referral.fetch(&referral.lane).await.refused(403, reason(kind));
            let ask = json!({"task": format!("Task/{}", referral.task), "actor": {"reference": "Practitioner/lane"}});
            let path = format!("/files/{}/access-grants", referral.document.id);
            referral.ehr.post_plain(&path, &ask).await.expect(201);
            referral.fetch(&referral.lane).await.expect(200);
        }
    }

    /// A block on a document, a Task or a patient stops no other, one on a person or a client nobody else, and none
    /// reaches into another tenant.
    async fn a_block_stops_nothing_else(backend) {
        let app = TestApp::start(backend).await;
        let operator = app.client("operator").await;
        let b = format!("{}/t/b", app.server.base_url);
        let (ehr_b, lane_b) = (app.client("ehr-b").await.at(&b), app.client("lane-b").await.at(&b));
        let of_b = Referral::between(ehr_b, (lane_b, "Practitioner/lane-b"), b"%PDF-1.4 b").await;
        let (first, second) = (Referral::set(&app).await, Referral::set(&app).await);
        block(&operator, "task", named(&app, &first, "task")).await;
        block(&operator, "document", named(&app, &first, "document")).await;
        block(&operator, "patient", json!("Patient/ben")).await;
        block(&operator, "actor", json!("Practitioner/otis")).await;
        block(&operator, "client", json!("otis")).await;
        second.fetch(&second.lane).await.expect(200);
        first.fetch(&first.lane).await.refused(403, "emergency");
        block(&operator, "all", json!(true)).await;
        of_b.fetch(&of_b.lane).await.expect(200);
        // And its own operators are not another tenant's.
        operator.at(&b).get(REVOCATIONS).await.refused(401, "token-invalid");
    }

    /// A blocked person, client or issuer gets nothing at all, but an operator may lift the block that is on themselves.
    async fn a_blocked_caller_is_refused_everywhere_and_operators_can_lift(backend) {
        let app = TestApp::start(backend).await;
        let referral = Referral::set(&app).await;
        let operator = app.client("operator").await;
        let mine = operator.get("/fhir/Task").await.expect(200);
        drop(mine);
        for kind in ["issuer", "client"] {
            let value = if kind == "client" { json!("operator") } else { named(&app, &referral, kind) };
            let placed = block(&operator, kind, value).await;
            operator.get("/fhir/Task").await.refused(403, "emergency");
            operator.get("/fhir/metadata").await.expect(200);
            lift(&operator, &placed).await.expect(204);
            operator.get("/fhir/Task").await.expect(200);
        }
        // But not one that somebody else placed.
        let colleague = app.scoped("operator", "system/*.cruds", None).await;
        if backend == Backend::Production {
            let by_command = run_with(
                &["revoke", "--config", &config(&app), "--client", "operator", "--reason", "token stolen"],
                &database(&app),
            )
            .await;
            assert_eq!(by_command.code, Some(0), "{}", by_command.err);
            eventually("the server knows", async || {
                colleague.get("/fhir/Task").await.status == 403
            })
            .await;
            assert_eq!(colleague.get(REVOCATIONS).await.expect(200).json()["revocations"], json!([]));
            let id = by_command.out.split(' ').nth(3).unwrap().to_owned();
            colleague.delete(&format!("{REVOCATIONS}/{id}")).await.refused(403, "emergency");
            let more = json!({"all": true, "reason": "why"});
            colleague.post_plain(REVOCATIONS, &more).await.refused(403, "emergency");
            let ended = run_with(&["revoke", "--config", &config(&app), "--lift", &id], &database(&app)).await;
            assert_eq!(ended.code, Some(0), "{}", ended.err);
            eventually("the server knows", async || {
                colleague.get("/fhir/Task").await.status == 200
            })
            .await;
        }
        let placed = block(&operator, "actor", json!("Practitioner/lane")).await;
        let viewer = app.client("viewer-app").await;
        for client in [&referral.lane, &viewer] {
            client.get(&format!("/fhir/Task/{}", referral.task)).await.refused(403, "actor-revoked");
        }
        lift(&operator, &placed).await.expect(204);
        referral.lane.get(&format!("/fhir/Task/{}", referral.task)).await.expect(200);
    }

    /// Placing and lifting are in the audit with what, why and by whom; a refusal is too.
    async fn every_block_is_in_the_audit(backend) {
        let app = TestApp::start(backend).await;
        let referral = Referral::set(&app).await;
        let operator = app.client("operator").await;
        let placed = block(&operator, "task", named(&app, &referral, "task")).await;
        lift(&operator, &placed).await.expect(204);
        let acts: Vec<Value> = referral
            .audited(&app)
            .await
            .into_iter()
            .filter(|event| event.to_string().contains("\"admin-action\""))
            .collect();
        assert_eq!(acts.len(), 2, "{acts:?}");
        for (act, word) in acts.iter().zip(["block-lifted", "block-placed"]) {
            let text = act.to_string();
            for said in [word, "badge stolen", placed["id"].as_str().unwrap()] {
                assert!(text.contains(said), "{said}: {text}");
            }
        }
    }

    /// Whoever may not, and whatever names nothing.
    async fn only_operators_place_blocks_and_only_on_what_can_be_named(backend) {
        let app = TestApp::start(backend).await;
        let good = json!({"actor": "Practitioner/7", "reason": "why"});
        for name in ["ehr", "lane", "viewer-app", "interface", "records", "auditor", "glass"] {
            let client = app.client(name).await;
            let answers = [
                client.post_plain(REVOCATIONS, &good).await,
                client.get(REVOCATIONS).await,
                client.delete(&format!("{REVOCATIONS}/1")).await,
            ];
            for answer in answers {
                assert_eq!(answer.status, 403, "{name}");
            }
        }
        app.stranger().post_plain(REVOCATIONS, &good).await.refused(401, "unauthenticated");
        let operator = app.client("operator").await;
        for (bad, status) in [
            (json!({}), 422),
            (json!([]), 400),
            (json!({"actor": "Practitioner/7"}), 422),
            (json!({"reason": "why"}), 400),
            (json!({"actor": "Practitioner/7", "task": "Task/1", "reason": "why"}), 400),
            (json!({"actor": "Practitioner/7", "reason": ""}), 422),
            (json!({"actor": "Practitioner/7", "reason": "x".repeat(501)}), 422),
            (json!({"actor": 7, "reason": "why"}), 422),
            (json!({"actor": "lane", "reason": "why"}), 422),
            (json!({"patient": "Group/1", "reason": "why"}), 422),
            (json!({"all": false, "reason": "why"}), 422),
            (json!({"all": "b", "reason": "why"}), 422),
            (json!({"tenant": "b", "reason": "why"}), 400),
            (json!({"issuer": "https://issuer.example", "reason": "why"}), 422),
        ] {
            let answer = operator.post_plain(REVOCATIONS, &bad).await;
            assert_eq!(answer.status, status, "{bad}: {}", answer.json());
            assert_eq!(answer.reason().as_deref(), Some("invalid"), "{bad}");
        }
        operator.delete(&format!("{REVOCATIONS}/none")).await.refused(404, "not-found");
        assert_eq!(operator.get(REVOCATIONS).await.expect(200).json()["revocations"], json!([]));
        // A token for one patient is not one for the whole tenant.
        let confined = app.scoped("operator", "patient/*.cruds", Some("ada")).await;
        confined.post_plain(REVOCATIONS, &good).await.refused(403, "insufficient-scope");
    }

    /// What was on its way while the block was placed is taken back.
    async fn what_races_with_a_block_is_taken_back(backend) {
        let app = TestApp::start(backend).await;
        let operator = app.client("operator").await;
        let referral = Referral::set(&app).await;
        let document = referral.document.id.clone();
        let placing: Vec<_> = (0..8)
            .map(|_| {
                let (ehr, document) = (referral.ehr.clone(), document.clone());
                tokio::spawn(async move {
                    for _ in 0..12 {
                        let given = task("accepted", &document, Some("Practitioner/lane"));
                        ehr.post("/fhir/Task", &given).await.expect(201);
                    }
                })
            })
            .collect();
        eventually("many have been placed, and more will be", async || referral.grants().await.len() > 10).await;
        block(&operator, "document", named(&app, &referral, "document")).await;
        for one in placing {
            one.await.unwrap();
        }
        eventually("no grant of the document is open", async || {
            referral.grants().await.iter().all(|grant| grant["status"] == "revoked")
        })
        .await;
    }
}

/// A block of each kind, placed on one replica, cuts the stream on the other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_block_cuts_streams_on_every_replica() {
    let app = TestApp::start(Backend::Production).await;
    let replica = app.replica().await;
    let there = &replica.server.base_url;
    let operator = app.client("operator").await;
    for kind in KINDS {
        for base in [&app.server.base_url, there] {
            let referral = Referral::with_content(&app, &noise(20 * 1024 * 1024)).await;
            let lane = referral.lane.at(base);
            let download = SlowDownload::start(&lane, &referral.content_path(), 300_000).await;
            let watching = tokio::spawn(download.over());
            let asked = Instant::now();
            let placed = block(&operator, kind, named(&app, &referral, kind)).await;
            let (over, whole) = watching.await.unwrap();
            let took = over.saturating_duration_since(asked);
            assert!(!whole, "{kind}: the client must see an error");
            assert!(took < SOON, "{kind}: the cut took {took:?}");
            lane.get(&referral.content_path())
                .await
                .refused(403, reason(kind));
            lift(&operator, &placed).await.expect(204);
            eventually("the other replica knows that it is lifted", async || {
                replica
                    .server
                    .app
                    .standing
                    .of(&TenantId::default_tenant())
                    .is_empty()
            })
            .await;
        }
    }
}

/// The command line places, lists and lifts, for one tenant or for all, beside servers that run.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_command_line_blocks_all_tenants() {
    let app = TestApp::start(Backend::Production).await;
    let b = format!("{}/t/b", app.server.base_url);
    let (ehr_b, lane_b) = (
        app.client("ehr-b").await.at(&b),
        app.client("lane-b").await.at(&b),
    );
    let content = noise(20 * 1024 * 1024);
    let of_b = Referral::between(ehr_b, (lane_b, "Practitioner/lane-b"), &content).await;
    let referral = Referral::with_content(&app, &content).await;
    let downloads = [
        SlowDownload::start(&referral.lane, &referral.content_path(), 300_000).await,
        SlowDownload::start(&of_b.lane, &of_b.content_path(), 300_000).await,
    ];
    let file = &config(&app);
    let run = async |arguments: &[&str]| run_with(arguments, &database(&app)).await;
    let placed = run(&[
        "revoke",
        "--config",
        file,
        "--all-tenants",
        "--all",
        "--reason",
        "incident 4711",
    ])
    .await;
    assert_eq!(placed.code, Some(0), "{}{}", placed.out, placed.err);
    for download in downloads {
        let (_, whole) = download.over().await;
        assert!(!whole);
    }
    referral.fetch(&referral.lane).await.refused(403, "emergency");
    of_b.fetch(&of_b.lane).await.refused(403, "emergency");

    let listed = run(&["revoke", "--config", file, "--all-tenants", "--list"]).await;
    let ids: Vec<&str> = listed
        .out
        .lines()
        .filter_map(|line| line.split(' ').nth(2))
        .collect();
    assert_eq!(ids.len(), 2, "{}", listed.out);
    assert!(listed.out.contains("incident 4711"), "{}", listed.out);
    for id in &ids {
        let ended = run(&["revoke", "--config", file, "--all-tenants", "--lift", id]).await;
        assert_eq!(ended.code, Some(0), "{}", ended.err);
        assert!(ended.out.contains("stands no more"), "{}", ended.out);
    }
    let listed = run(&["revoke", "--config", file, "--tenant", "b", "--list"]).await;
    assert!(listed.out.contains("no block stands"), "{}", listed.out);
    eventually("the server knows that it is lifted", async || {
        app.server.app.standing.of(&TenantId::default_tenant()).is_empty()
    })
    .await;
    for (wrong, code) in [
        (&["revoke", "--config", file, "--lift", "none"][..], 1),
        (
            &["revoke", "--config", file, "--all-tenants", "--lift", "none"][..],
            1,
        ),
        (&["revoke", "--config", file, "--tenant", "c", "--list"][..], 1),
        (
            &["revoke", "--config", file, "--actor", "lane", "--reason", "why"][..],
            1,
        ),
        (&["revoke", "--config", file, "--all"][..], 2),
        (
            &[
                "revoke", "--config", file, "--all", "--task", "Task/1", "--reason", "why",
            ][..],
            2,
        ),
    ] {
        let ended = run(wrong).await;
        assert_eq!(ended.code, Some(code), "{wrong:?}: {}", ended.err);
    }
}
