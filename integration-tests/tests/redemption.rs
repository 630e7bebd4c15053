//! One document handed over: who gets it, how often, and what ends it.

use std::time::Duration;

use futures_util::future::join_all;
use handoff::app::finish;
use handoff_domain::time::Span;
use handoff_integration_tests::open_transaction::OpenTransaction;
use handoff_integration_tests::scene::{Referral, document, document_reference, task, upload};
use handoff_integration_tests::{Backend, TestApp, eventually, on_both, psql_in};
use reqwest::Method;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// A link to the referral's document for its owner: its page, and the code as a body.
async fn link(referral: &Referral) -> (String, Value) {
    let asked =
        json!({"task": format!("Task/{}", referral.task), "actor": {"reference": "Practitioner/lane"}});
    let path = format!("/files/{}/access-grants", referral.document.id);
    let issued = referral.ehr.post_plain(&path, &asked).await.expect(201).json();
    let (page, secret) = issued["link"].as_str().unwrap().split_once('#').unwrap();
    (page.to_owned(), json!({ "secret": secret }))
}

on_both! {
    async fn the_owner_of_an_accepted_task_fetches_the_exact_document_once(backend) {
        let app = TestApp::start(backend).await;
        let referral = Referral::set(&app).await;
        let answer = referral.fetch(&referral.lane).await.expect(200);
        assert_eq!(answer.body, referral.document.content);
        assert_eq!(answer.header("content-type"), Some("application/pdf"));
        assert_eq!(answer.header("cache-control"), Some("no-store"));
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
        let digest = Sha256::digest(&referral.document.content);
        let etag = answer.header("etag").unwrap().to_owned();
        assert_eq!(etag, format!("\"{digest:x}\""));
        referral.fetch(&referral.lane).await.refused(403, "exhausted");
        let grants = referral.grants().await;
        assert_eq!(grants.len(), 1);
        assert_eq!((grants[0]["status"].as_str(), grants[0]["uses"].as_u64()), (Some("exhausted"), Some(1)));
    }

    async fn only_one_of_64_parallel_redemptions_of_a_grant_succeeds(backend) {
        let app = TestApp::start(backend).await;
        let referral = Referral::set(&app).await;
        let answers = join_all((0..64).map(|_| referral.fetch(&referral.lane))).await;
        let served = answers.iter().filter(|a| a.status == 200).count();
        assert_eq!(served, 1);
        for refused in answers.into_iter().filter(|a| a.status != 200) {
            refused.refused(403, "exhausted");
        }
    }

    async fn a_completed_task_releases_nothing(backend) {
        let app = TestApp::start(backend).await;
        let referral = Referral::set(&app).await;
        referral.move_to(&referral.lane, "in-progress").await.expect(200);
        referral.move_to(&referral.lane, "completed").await.expect(200);
        referral.fetch(&referral.lane).await.refused(403, "task-completed");
        assert_eq!(referral.grants().await[0]["reason"], "task-completed");
    }

    async fn reassigning_takes_the_document_from_the_old_owner_and_gives_it_to_the_new_one(backend) {
        let app = TestApp::start(backend).await;
        let referral = Referral::set(&app).await;
        let otis = app.client("otis").await;
        referral.fetch(&otis).await.expect(404);
        referral
            .change(&referral.ehr, |task| task["owner"] = json!({"reference": "Practitioner/otis"}))
            .await
            .expect(200);
        referral.fetch(&referral.lane).await.refused(403, "reassigned");
        let answer = referral.fetch(&otis).await.expect(200);
        assert_eq!(answer.body, referral.document.content);
    }

    async fn a_hold_suspends_and_coming_back_binds_again(backend) {
        let app = TestApp::start(backend).await;
        let referral = Referral::set(&app).await;
        referral.move_to(&referral.lane, "on-hold").await.expect(200);
        referral.fetch(&referral.lane).await.refused(403, "task-on-hold");
        assert_eq!(referral.grants().await[0]["status"], "suspended");
        referral.move_to(&referral.lane, "accepted").await.expect(200);
        referral.fetch(&referral.lane).await.expect(200);
        assert_eq!(referral.grants().await.len(), 1);
    }

    async fn what_was_opened_before_a_hold_and_not_fetched_is_neither_lost_nor_taken(backend) {
        let app = TestApp::start(backend).await;
        let referral = Referral::set(&app).await;
        let (page, code) = link(&referral).await;
        let opened = referral.lane.post_plain(&page, &code).await.expect(303);
        let content = opened.header("location").unwrap().to_owned();
        referral.move_to(&referral.lane, "on-hold").await.expect(200);
        referral.lane.get(&content).await.refused(403, "task-on-hold");
        referral.move_to(&referral.lane, "accepted").await.expect(200);
        // Nobody comes for it: the use is there again.
        app.clock.advance(Span::minutes(11));
        finish::sweep_abandoned(&app.server.app).await.unwrap();
        referral.lane.get(&content).await.refused(403, "expired");
        let again = referral.lane.post_plain(&page, &code).await.expect(303);
        let content = again.header("location").unwrap().to_owned();
        // And after another hold she opens the same one once more, as if the answer had been lost.
        referral.move_to(&referral.lane, "on-hold").await.expect(200);
        referral.move_to(&referral.lane, "accepted").await.expect(200);
        let same = referral.lane.post_plain(&page, &code).await.expect(303);
        assert_eq!(same.header("location").unwrap(), content);
        assert_eq!(referral.lane.get(&content).await.expect(200).body, referral.document.content);
        let ends = app.client("auditor").await.get("/fhir/AuditEvent?subtype=redemption-interrupted").await.expect(200).json();
        assert_eq!(ends["entry"].as_array().unwrap().len(), 1, "the one that nobody came for");
    }

    async fn what_was_opened_before_a_hold_is_taken_back_by_a_block_for_good(backend) {
        let app = TestApp::start(backend).await;
        let operator = app.client("operator").await;
        for target in ["task", "document", "patient"] {
            let referral = Referral::set(&app).await;
            let (page, code) = link(&referral).await;
            let opened = referral.lane.post_plain(&page, &code).await.expect(303);
            let content = opened.header("location").unwrap().to_owned();
            referral.move_to(&referral.lane, "on-hold").await.expect(200);
            let named = match target {
                "task" => format!("Task/{}", referral.task),
                "document" => format!("DocumentReference/{}", referral.document.id),
                _ => "Patient/ada".to_owned(),
            };
            let block = json!({target: named, "reason": "a wrong person"});
            let placed = operator.post_plain("/admin/revocations", &block).await.expect(201).json();
            let id = placed["id"].as_str().unwrap();
            operator.delete(&format!("/admin/revocations/{id}")).await.expect(204);
            referral.move_to(&referral.lane, "accepted").await.expect(200);
            referral.lane.get(&content).await.refused(403, "emergency");
        }
    }

    async fn a_requested_task_shows_its_grant_and_opens_nothing(backend) {
        let app = TestApp::start(backend).await;
        let (ehr, lane) = (app.client("ehr").await, app.client("lane").await);
        let document = document(&ehr, b"content").await;
        let id = ehr.post("/fhir/Task", &task("requested", &document.id, None)).await.expect(201).id();
        let path = format!("/fhir/Binary/{}?task=Task/{id}", document.binary);
        lane.get(&path).await.refused(403, "task-not-actionable");
        let grants = ehr.get(&format!("/files/{}/access-grants", document.id)).await.expect(200).json();
        assert_eq!(grants["grants"][0]["status"], "issued");
        // She belongs to the team that it is for, so she may claim it.
        let mut claimed = ehr.get(&format!("/fhir/Task/{id}")).await.expect(200).json();
        claimed["status"] = json!("accepted");
        claimed["owner"] = json!({"reference": "Practitioner/lane"});
        lane.put(&format!("/fhir/Task/{id}"), &claimed).await.expect(200);
        lane.get(&path).await.expect(200);
    }

    async fn placer_operator_and_auditor_are_refused_and_strangers_learn_nothing(backend) {
        let app = TestApp::start(backend).await;
        let referral = Referral::set(&app).await;
        for name in ["ehr", "operator", "records", "auditor"] {
            let client = app.client(name).await;
            client.get(&format!("/fhir/Binary/{}", referral.document.binary)).await.refused(403, "policy-denied");
        }
        for name in ["otis", "interface", "glass"] {
            let client = app.client(name).await;
            client.get(&format!("/fhir/Binary/{}", referral.document.binary)).await.expect(404);
        }
        let other = app.client("lane-b").await;
        other.get(&referral.content_path()).await.refused(401, "token-invalid");
        app.stranger().get(&referral.content_path()).await.refused(401, "unauthenticated");
        referral.fetch(&referral.lane).await.expect(200);
    }

    async fn an_app_acting_for_the_owner_fetches_for_her(backend) {
        let app = TestApp::start(backend).await;
        let referral = Referral::set(&app).await;
        let viewer = app.client("viewer-app").await;
        assert_eq!(referral.fetch(&viewer).await.expect(200).body, referral.document.content);
    }

    async fn a_grant_expires_by_itself_and_the_task_says_so(backend) {
        let app = TestApp::start(backend).await;
        let referral = Referral::set(&app).await;
        app.clock.advance(Span::minutes(16));
        eventually("the grant expires", async || referral.grants().await[0]["status"] == "expired").await;
        assert_eq!(referral.current().await["businessStatus"]["coding"][0]["code"], "link-expired");
        referral.fetch(&referral.lane).await.refused(403, "expired");
    }

    async fn an_expiry_escalates_where_the_workflow_says_so(backend) {
        let app = TestApp::with_workflows(backend, "[default]\non_expiry = \"escalate\"").await;
        let referral = Referral::set(&app).await;
        app.clock.advance(Span::minutes(16));
        eventually("the Task is escalated", async || {
            referral.current().await["businessStatus"]["coding"][0]["code"] == "escalated"
        })
        .await;
        assert_eq!(referral.current().await["priority"], "urgent");
        referral.fetch(&referral.lane).await.refused(403, "expired");
    }

    async fn an_expiry_reissues_as_often_as_the_workflow_says_and_no_more(backend) {
        let app = TestApp::with_workflows(backend, "[default]\non_expiry = \"reissue\"\nreissue_at_most = 1").await;
        let referral = Referral::set(&app).await;
        app.clock.advance(Span::minutes(16));
        eventually("a fresh grant is there", async || {
            let grants = referral.grants().await;
            grants.len() == 2 && grants.iter().any(|g| g["origin"] == "reissue" && g["status"] == "bound")
        })
        .await;
        app.clock.advance(Span::minutes(16));
        eventually("it expires too", async || {
            referral.grants().await.iter().all(|g| g["status"] == "expired")
        })
        .await;
        assert_eq!(referral.grants().await.len(), 2);
        referral.fetch(&referral.lane).await.refused(403, "expired");
    }

    async fn what_follows_an_expiry_happens_once_whoever_sees_it_first(backend) {
        for (workflow, status, grants) in [
            ("", "link-expired", 1),
            ("on_expiry = \"escalate\"", "escalated", 1),
            ("on_expiry = \"reissue\"\nreissue_at_most = 5", "link-expired", 2),
        ] {
            let app = TestApp::with_workflows(backend, &format!("[default]\n{workflow}")).await;
            // The server looks for itself five times a second; a change that comes before it is what this is about.
            let (mut rounds, mut seen_by_us) = (0, false);
            while !seen_by_us {
                rounds += 1;
                assert!(rounds < 20, "the change never comes first");
                let referral = Referral::set(&app).await;
                let task = referral.current().await;
                let put = referral
                    .ehr
                    .request(Method::PUT, &format!("/fhir/Task/{}", referral.task))
                    .header("content-type", "application/fhir+json")
                    .header("if-match", "W/\"1\"")
                    .body(task.to_string());
                app.clock.advance(Span::minutes(16));
                let answer = referral.ehr.send(put).await;
                assert!(matches!(answer.status.as_u16(), 200 | 412), "{}", answer.status);
                eventually("it is seen", async || {
                    referral.current().await["businessStatus"]["coding"][0]["code"] == status
                })
                .await;
                let rows = referral.audited(&app).await;
                let has = |row: &Value, words: &[&str]| words.iter().all(|word| row.to_string().contains(word));
                let expiries: Vec<_> = rows.iter().filter(|row| has(row, &["grant-expired"])).collect();
                assert_eq!(expiries.len(), 1, "{expiries:?}");
                let edits: Vec<_> = rows.iter().filter(|row| has(row, &["task-updated", status])).collect();
                assert_eq!(edits.len(), 1, "{edits:?}");
                seen_by_us = has(expiries[0], &["Organization/referring-clinic"]);
                let task = referral.current().await;
                assert_eq!(task.get("priority").and_then(Value::as_str), (status == "escalated").then_some("urgent"));
                assert_eq!(referral.grants().await.len(), grants);
            }
        }
    }

    async fn a_past_due_date_expires_the_grants(backend) {
        let app = TestApp::start(backend).await;
        let referral = Referral::set(&app).await;
        referral
            .change(&referral.ehr, |task| {
                task["restriction"] = json!({"period": {"end": "2020-01-01T00:00:00Z"}});
            })
            .await
            .expect(200);
        referral.fetch(&referral.lane).await.refused(403, "expired");
    }

    async fn a_completed_redemption_marks_the_task_as_accessed(backend) {
        let app = TestApp::start(backend).await;
        let referral = Referral::set(&app).await;
        referral.fetch(&referral.lane).await.expect(200);
        eventually("the Task is accessed", async || {
            referral.current().await["businessStatus"]["coding"][0]["code"] == "accessed"
        })
        .await;
    }

    async fn replacing_the_document_revokes(backend) {
        let app = TestApp::start(backend).await;
        let referral = Referral::set(&app).await;
        let binary = upload(&referral.ehr, b"a newer letter").await;
        let mut newer = document_reference(&binary, "Patient/ada");
        newer["relatesTo"] = json!([{
            "code": "replaces",
            "target": {"reference": format!("DocumentReference/{}", referral.document.id)}
        }]);
        referral.ehr.post("/fhir/DocumentReference", &newer).await.expect(201);
        referral.fetch(&referral.lane).await.refused(403, "document-superseded");
        let older = referral.ehr.get(&format!("/fhir/DocumentReference/{}", referral.document.id)).await;
        assert_eq!(older.expect(200).json()["status"], "superseded");
    }

    async fn replacing_the_content_revokes_and_the_same_content_does_not(backend) {
        let app = TestApp::start(backend).await;
        let referral = Referral::set(&app).await;
        let path = format!("/fhir/DocumentReference/{}", referral.document.id);
        let mut document = referral.ehr.get(&path).await.expect(200).json();
        document["description"] = json!("edited");
        referral.ehr.put(&path, &document).await.expect(200);
        assert_eq!(referral.grants().await[0]["status"], "bound");
        let binary = upload(&referral.ehr, b"other content").await;
        document["content"] = json!([{"attachment": {"contentType": "application/pdf", "url": format!("Binary/{binary}")}}]);
        referral.ehr.put(&path, &document).await.expect(200);
        referral.fetch(&referral.lane).await.refused(403, "document-superseded");
    }

    async fn a_link_opens_the_document_for_its_grantee_only(backend) {
        let app = TestApp::start(backend).await;
        let referral = Referral::set(&app).await;
        let asked = json!({"task": format!("Task/{}", referral.task), "actor": {"reference": "Practitioner/lane"},
            "role": "physician", "action": "download", "uses": 1, "expiresIn": 900});
        let path = format!("/files/{}/access-grants", referral.document.id);
        let issued = referral.ehr.post_plain(&path, &asked).await.expect(201).json();
        let link = issued["link"].as_str().unwrap();
        let (page, secret) = link.split_once('#').unwrap();
        assert_eq!(issued["sha256"], format!("{:x}", Sha256::digest(&referral.document.content)));
        let stranger = app.stranger();
        for _ in 0..100 {
            stranger.get(page).await.expect(200);
            stranger.head(page).await.expect(200);
        }
        let code = json!({"secret": secret});
        stranger.post_plain(page, &code).await.refused(401, "unauthenticated");
        let otis = app.client("otis").await;
        otis.post_plain(page, &code).await.refused(403, "not-grantee");
        otis.post_plain(page, &json!({"secret": "wrong"})).await.refused(404, "link-unknown");
        let opened = referral.lane.post_plain(page, &code).await.expect(303);
        let content = opened.header("location").unwrap().to_owned();
        otis.get(&content).await.expect(404);
        assert_eq!(referral.lane.get(&content).await.expect(200).body, referral.document.content);
        eventually("it can't be replayed", async || {
            referral.lane.get(&content).await.reason().as_deref() == Some("replayed")
        })
        .await;
        referral.lane.post_plain(page, &code).await.refused(403, "exhausted");
    }

    async fn asking_again_revokes_the_older_grant(backend) {
        let app = TestApp::start(backend).await;
        let referral = Referral::set(&app).await;
        let asked = json!({"task": format!("Task/{}", referral.task)});
        let path = format!("/files/{}/access-grants", referral.document.id);
        referral.lane.post_plain(&path, &asked).await.expect(201);
        let grants = referral.grants().await;
        assert_eq!(grants.len(), 2);
        let of = |status: &str| grants.iter().find(|g| g["status"] == status).cloned().unwrap();
        assert_eq!(of("revoked")["reason"], "reissued");
        assert_eq!(of("bound")["origin"], "self-service");
        referral.fetch(&referral.lane).await.expect(200);
        referral.lane.post_plain(&path, &asked).await.refused(403, "exhausted");
        referral.ehr.post_plain(&path, &asked).await.expect(201);
        referral.fetch(&referral.lane).await.expect(200);
    }

    async fn a_revoked_grant_opens_nothing(backend) {
        let app = TestApp::start(backend).await;
        let referral = Referral::set(&app).await;
        let id = referral.grants().await[0]["grantId"].as_str().unwrap().to_owned();
        let otis = app.client("otis").await;
        otis.delete(&format!("/access-grants/{id}")).await.expect(404);
        referral.ehr.delete(&format!("/access-grants/{id}")).await.expect(204);
        referral.fetch(&referral.lane).await.refused(403, "revoked");
        let again = json!({"resourceType": "Parameters"});
        let path = format!("/fhir/Task/{}/$revoke-grants", referral.task);
        referral.ehr.post(&path, &again).await.expect(200);
    }

    async fn every_step_is_audited_under_one_correlation_id(backend) {
        let app = TestApp::start(backend).await;
        let referral = Referral::set(&app).await;
        referral.fetch(&referral.lane).await.expect(200);
        referral.fetch(&referral.lane).await.refused(403, "exhausted");
        let wanted = ["task-created", "grant-issued", "grant-bound", "redemption-authorized",
            "redemption-denied", "redemption-completed"];
        eventually("all is in the audit", async || {
            let text = serde_json::to_string(&referral.audited(&app).await).unwrap();
            wanted.iter().all(|event| text.contains(event))
        })
        .await;
        tokio::time::timeout(Duration::from_secs(5), referral.lane.get("/fhir/AuditEvent"))
            .await
            .unwrap()
            .refused(403, "policy-denied");
    }
}

/// The decision is of the instant at which nobody else can change anything any more, not of that at which it was asked for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_grant_that_expires_while_its_redemption_waits_for_the_task_opens_nothing() {
    let app = TestApp::start(Backend::Production).await;
    let referral = Referral::set(&app).await;
    let lock = format!("SELECT 1 FROM tasks WHERE id = '{}' FOR UPDATE", referral.task);
    let held = OpenTransaction::begin(&app.options.store.url, &lock).await;
    let (lane, path) = (referral.lane.clone(), referral.content_path());
    let fetch = tokio::spawn(async move { lane.get(&path).await });
    let waits = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
    eventually("it waits for the Task", async || {
        psql_in(&app.options.store.url, waits) == "1"
    })
    .await;
    app.clock.advance(Span::minutes(16));
    drop(held);
    fetch.await.unwrap().refused(403, "expired");
}
