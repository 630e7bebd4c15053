//! Provenance: each version of a Task and of a document has one, for whoever may read that, and for nobody else.

use handoff_domain::time::Span;
use handoff_integration_tests::scene::{Referral, document, task};
use handoff_integration_tests::{Client, TestApp, on_both};
use serde_json::{Value, json};

async fn of(client: &Client, target: &str) -> Vec<Value> {
    let path = format!("/fhir/Provenance?target={target}&_sort=recorded");
    let found = client.get(&path).await.expect(200).json();
    assert_eq!(found["type"], "searchset");
    let entries = found["entry"].as_array().cloned().unwrap_or_default();
    entries
        .into_iter()
        .map(|entry| entry["resource"].clone())
        .collect()
}

/// Activity, version, and who.
fn lines(made: &[Value]) -> Vec<(String, String, String)> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let line = |one: &Value| {
        let target = text(&one["target"][0]["reference"]);
        let who = &one["agent"][0]["who"];
        (
            text(&one["activity"]["coding"][0]["code"]),
            target.rsplit('/').next().unwrap().to_owned(),
            who["reference"].as_str().unwrap_or("Handoff").to_owned(),
        )
    };
    made.iter().map(line).collect()
}

fn expected(lines: &[(&str, &str, &str)]) -> Vec<(String, String, String)> {
    let own = |(a, b, c): &(&str, &str, &str)| ((*a).to_owned(), (*b).to_owned(), (*c).to_owned());
    lines.iter().map(own).collect()
}

on_both! {
    async fn each_version_says_who_made_it_of_what(backend) {
        let app = TestApp::start(backend).await;
        let referral = Referral::set(&app).await;
        let lane = app.client("lane").await;
        let before = referral.current().await["meta"]["versionId"].as_str().unwrap().to_owned();
        referral.move_to(&lane, "in-progress").await.expect(200);
        let target = format!("Task/{}", referral.task);
        let made = of(&lane, &target).await;
        let last = made.last().unwrap();
        assert_eq!(last["entity"][0]["what"]["reference"], format!("{target}/_history/{before}"));
        let ehr = "Organization/referring-clinic";
        let told = lines(&made);
        assert_eq!(told.first().unwrap(), &expected(&[("CREATE", "1", ehr)])[0]);
        let now = referral.current().await["meta"]["versionId"].as_str().unwrap().to_owned();
        assert_eq!(told.last().unwrap(), &expected(&[("UPDATE", &now, "Practitioner/lane")])[0]);
        assert_eq!(told.len(), now.parse::<usize>().unwrap(), "one for each version");

        // One of them by its id, and pages.
        let id = last["id"].as_str().unwrap();
        let read = lane.get(&format!("/fhir/Provenance/{id}")).await.expect(200).json();
        assert_eq!(read, *last);
        let page = lane.get(&format!("/fhir/Provenance?target={target}&_count=1")).await.expect(200).json();
        let next = page["link"].as_array().unwrap().iter().find(|link| link["relation"] == "next").unwrap();
        let next = next["url"].as_str().unwrap().strip_prefix(&app.server.base_url).unwrap();
        assert_eq!(lane.get(next).await.expect(200).json()["entry"][0]["resource"], made[made.len() - 2]);
        assert_eq!(of(&app.client("ehr").await, &target).await, made);
        assert_eq!(of(&app.client("auditor").await, &target).await, made);
    }

    async fn a_document_that_is_replaced_says_so(backend) {
        let app = TestApp::start(backend).await;
        let referral = Referral::set(&app).await;
        let ehr = app.client("ehr").await;
        let old = format!("DocumentReference/{}", referral.document.id);
        let mut newer = ehr.get(&format!("/fhir/{old}")).await.expect(200).json();
        newer["relatesTo"] = json!([{"code": "replaces", "target": {"reference": old}}]);
        let binary = handoff_integration_tests::scene::upload(&ehr, b"%PDF-1.4 corrected").await;
        newer["content"] = json!([{"attachment": {"url": format!("Binary/{binary}"), "contentType": "application/pdf"}}]);
        for ours in ["id", "meta"] {
            newer.as_object_mut().unwrap().remove(ours);
        }
        ehr.post("/fhir/DocumentReference", &newer).await.expect(201);
        let clinic = "Organization/referring-clinic";
        assert_eq!(lines(&of(&ehr, &old).await), expected(&[("CREATE", "1", clinic), ("OBSOLETE", "1", clinic)]));
    }

    async fn nobody_learns_from_it_what_she_may_not_read(backend) {
        let app = TestApp::start(backend).await;
        let referral = Referral::set(&app).await;
        let target = format!("Task/{}", referral.task);
        let auditor = app.client("auditor").await;
        let id = of(&auditor, &target).await[0]["id"].as_str().unwrap().to_owned();
        let one = format!("/fhir/Provenance/{id}");
        let search = format!("/fhir/Provenance?target={target}");

        // Otis has nothing to do with it: as if it were not there.
        let otis = app.client("otis").await;
        let unknown = otis.get("/fhir/Provenance?target=Task/none").await.expect(404);
        let hidden = otis.get(&search).await.expect(404);
        assert_eq!(unknown.json()["issue"][0]["details"], hidden.json()["issue"][0]["details"]);
        otis.get(&one).await.expect(404);
        otis.get("/fhir/Provenance/999999999").await.expect(404);
        otis.get("/fhir/Provenance/abc").await.expect(404);
        // Everything there is, or all that somebody did, is for auditors.
        for all in ["/fhir/Provenance", "/fhir/Provenance?agent=Practitioner/lane"] {
            app.client("lane").await.get(all).await.expect(403);
            auditor.get(all).await.expect(200);
        }
        // Rows of other kinds are none.
        let row = auditor.get("/fhir/AuditEvent?subtype=grant-bound&_count=1").await.expect(200).json();
        let other = row["entry"][0]["resource"]["id"].as_str().unwrap().to_owned();
        for client in [&auditor, &app.client("lane").await] {
            client.get(&format!("/fhir/Provenance/{other}")).await.expect(404);
        }
        // A token for one patient, or for documents alone, reaches no Task of others.
        let ben = app.scoped("lane", "patient/*.rs", Some("ben")).await;
        ben.get(&search).await.expect(404);
        let narrow = app.scoped("lane", "user/DocumentReference.rs", None).await;
        narrow.get(&search).await.expect(403);
        narrow.get(&one).await.expect(404);
        app.stranger().get(&search).await.expect(401);
        app.client("ehr-b").await.get(&search).await.expect(401);

        // It is made by the server alone.
        let ehr = app.client("ehr").await;
        ehr.post("/fhir/Provenance", &json!({"resourceType": "Provenance"})).await.expect(405);
        ehr.put(&one, &json!({"resourceType": "Provenance", "id": id})).await.expect(405);
        ehr.delete(&one).await.expect(405);
    }

    async fn a_narrow_token_learns_of_no_version_that_it_does_not_reach(backend) {
        let app = TestApp::start(backend).await;
        let ehr = app.client("ehr").await;
        let letter = document(&ehr, b"%PDF-1.4 letter").await;
        let asked = task("requested", &letter.id, Some("Practitioner/lane"));
        let mut task = ehr.post("/fhir/Task", &asked).await.expect(201).json();
        let target = format!("Task/{}", task["id"].as_str().unwrap());
        task["status"] = json!("accepted");
        app.client("lane").await.put(&format!("/fhir/{target}"), &task).await.expect(200);
        let all = of(&app.client("lane").await, &target).await;
        assert_eq!(all.len(), 2);
        let narrow = app.scoped("lane", "user/Task.rs?status=accepted", None).await;
        assert_eq!(of(&narrow, &target).await, all[1..]);
        let page = narrow.get(&format!("/fhir/Provenance?target={target}&_sort=recorded&_count=1")).await.expect(200).json();
        assert_eq!(page["entry"][0]["resource"], all[1]);
        let id = |one: &Value| one["id"].as_str().unwrap().to_owned();
        narrow.get(&format!("/fhir/Provenance/{}", id(&all[1]))).await.expect(200);
        narrow.get(&format!("/fhir/Provenance/{}", id(&all[0]))).await.expect(404);
    }

    async fn what_the_server_did_itself_says_so_and_reading_it_is_on_record(backend) {
        let app = TestApp::start(backend).await;
        let referral = Referral::set(&app).await;
        // The link expires unused.
        app.clock.advance(Span::minutes(16));
        handoff::app::expiry::run_once(&app.server.app).await.unwrap();
        let ehr = app.client("ehr").await;
        let made = of(&ehr, &format!("Task/{}", referral.task)).await;
        assert_eq!(lines(&made).last().unwrap().2, "Device/handoff");
        let auditor = app.client("auditor").await;
        let path = format!("/fhir/AuditEvent?entity=Task/{}&subtype=task-read&agent=Organization/referring-clinic", referral.task);
        let reads = auditor.get(&path).await.expect(200).json();
        assert!(!reads["entry"].as_array().unwrap().is_empty());
    }
}
