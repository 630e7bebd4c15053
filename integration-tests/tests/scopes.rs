//! SMART scopes: they cap what a token can do, to the letter, for reads, searches, counts, histories, changes, Bundles,
//! operations and content, and they never add to the caller's rights.

use handoff_integration_tests::scene::{ADA, BEN, Referral, about_ben, document_reference, task, upload};
use handoff_integration_tests::{Answer, Client, TestApp, on_both};
use reqwest::Method;
use serde_json::{Value, json};

const LANE: &str = "Practitioner/lane";

/// Refused for want of a scope, which the challenge names.
fn wants(answer: Answer, scope: &str) {
    let challenge = wants_scope(answer);
    assert!(challenge.contains(&format!("scope=\"{scope}\"")), "{challenge}");
}

/// Refused as beyond the patient or the constraints: more scopes of the kind would not help, so none is named.
fn beyond(answer: Answer) {
    let challenge = wants_scope(answer);
    assert!(!challenge.contains(" scope="), "{challenge}");
}

fn wants_scope(answer: Answer) -> String {
    let answer = answer.refused(403, "insufficient-scope");
    let challenge = answer.header("www-authenticate").expect("a challenge").to_owned();
    assert!(challenge.contains("error=\"insufficient_scope\""), "{challenge}");
    assert!(challenge.contains("resource_metadata="), "{challenge}");
    challenge
}

async fn total(client: &Client, search: &str) -> u64 {
    client.get(search).await.expect(200).json()["total"]
        .as_u64()
        .expect("a total")
}

on_both! {
    async fn each_letter_opens_its_own_interaction(backend) {
        let app = TestApp::start(backend).await;
        let scene = Referral::set(&app).await;
        let (task_path, document_path) = (
            format!("/fhir/Task/{}", scene.task),
            format!("/fhir/DocumentReference/{}", scene.document.id),
        );
        let stored = scene.current().await;
        let reader = app.scoped("lane", "user/Task.r", None).await;
        reader.get(&task_path).await.expect(200);
        reader.get(&format!("{task_path}/_history")).await.expect(200);
        reader.get(&format!("{task_path}/_history/1")).await.expect(200);
        wants(reader.get("/fhir/Task").await, "user/Task.s");
        wants(reader.put(&task_path, &stored).await, "user/Task.u");
        wants(reader.get(&document_path).await, "user/DocumentReference.r");
        wants(scene.fetch(&reader).await, "user/Binary.r");
        // A search by POST is a search.
        let form = reader
            .request(Method::POST, "/fhir/Task/_search")
            .header("content-type", "application/x-www-form-urlencoded")
            .body("status=accepted");
        wants(reader.send(form).await, "user/Task.s");
        // Unknown resources are refused in the same way: nothing is looked up.
        wants(reader.get("/fhir/DocumentReference/none").await, "user/DocumentReference.r");

        let searcher = app.scoped("lane", "user/Task.s", None).await;
        assert!(total(&searcher, "/fhir/Task?_summary=count").await >= 1);
        wants(searcher.get(&task_path).await, "user/Task.r");

        // Rights are not scopes: a document is reached through a Task that the token itself can't read.
        let documents = app
            .scoped("lane", "user/DocumentReference.r user/Binary.r", None)
            .await;
        documents.get(&document_path).await.expect(200);
        wants(documents.get(&task_path).await, "user/Task.r");
        scene.fetch(&documents).await.expect(200);

        let placer = app.scoped("ehr", "system/Task.r system/Binary.c", None).await;
        let fresh = task("requested", &scene.document.id, Some(LANE));
        wants(placer.post("/fhir/Task", &fresh).await, "system/Task.c");
        wants(placer.delete(&task_path).await, "system/Task.d");
        let binary = upload(&placer, b"%PDF-1.4 more").await;
        let reference = document_reference(&binary, ADA);
        wants(
            placer.post("/fhir/DocumentReference", &reference).await,
            "system/DocumentReference.c",
        );
        wants(
            placer.delete(&format!("/fhir/Binary/{binary}")).await,
            "system/Binary.d",
        );
        // Grants are of a Task: to see them is to read it, to issue or revoke one is to change it.
        wants(
            placer.post(&format!("{task_path}/$grant"), &json!({"resourceType": "Parameters"})).await,
            "system/Task.u",
        );
        wants(
            placer
                .post(
                    &format!("{task_path}/$revoke-grants"),
                    &json!({"resourceType": "Parameters"}),
                )
                .await,
            "system/Task.u",
        );
        let asked = json!({"task": format!("Task/{}", scene.task)});
        let grants = format!("/files/{}/access-grants", scene.document.id);
        wants(placer.post_plain(&grants, &asked).await, "system/Task.u");
        let listed = placer.get(&grants).await.expect(200).json();
        assert!(!listed.to_string().is_empty());
        let nothing = app.scoped("ehr", "openid", None).await;
        for grant in ["none", listed["grants"][0]["grantId"].as_str().expect("a grant")] {
            wants(nothing.delete(&format!("/access-grants/{grant}")).await, "system/Task.u");
            wants(nothing.get(&format!("/access-grants/{grant}")).await, "system/Task.r");
        }
        let auditor = app.scoped("auditor", "user/Task.cruds", None).await;
        wants(auditor.get("/fhir/AuditEvent").await, "user/AuditEvent.s");
    }

    async fn an_entry_of_a_bundle_needs_the_scope_of_its_request(backend) {
        let app = TestApp::start(backend).await;
        let scene = Referral::set(&app).await;
        let placer = app.scoped("ehr", "system/Task.c system/*.r", None).await;
        let entry = |method: &str, url: &str, resource: Option<Value>| {
            let mut entry = json!({"request": {"method": method, "url": url}});
            if let Some(resource) = resource {
                entry["resource"] = resource;
            }
            entry
        };
        let create = entry(
            "POST",
            "Task",
            Some(task("requested", &scene.document.id, Some(LANE))),
        );
        let delete = entry("DELETE", &format!("Task/{}", scene.task), None);
        let bundle = |kind: &str| json!({"resourceType": "Bundle", "type": kind, "entry": [create, delete]});
        let refused = placer
            .post("/fhir", &bundle("transaction"))
            .await
            .refused(403, "insufficient-scope");
        assert!(
            refused.json()["issue"][0]["expression"][0]
                .as_str()
                .is_some_and(|at| at.starts_with("Bundle.entry[1]")),
            "{}",
            refused.json()
        );
        let before = total(&scene.ehr, "/fhir/Task?_summary=count").await;
        let answers = placer.post("/fhir", &bundle("batch")).await.expect(200).json();
        let status = |n: usize| answers["entry"][n]["response"]["status"].as_str().unwrap_or_default().to_owned();
        assert!(status(0).starts_with("201"), "{answers}");
        assert!(status(1).starts_with("403"), "{answers}");
        assert_eq!(total(&scene.ehr, "/fhir/Task?_summary=count").await, before + 1);
    }

    async fn a_launch_for_one_patient_sees_nothing_of_another(backend) {
        let app = TestApp::start(backend).await;
        let scene = Referral::set(&app).await;
        let (other_task, other) = about_ben(&scene.ehr).await;
        let scope = "launch/patient patient/Task.cruds patient/DocumentReference.cruds patient/Binary.r";
        let ada = app.scoped("lane", scope, Some("ada")).await;
        let whole = &scene.lane;
        let task_path = format!("/fhir/Task/{other_task}");
        let document_path = format!("/fhir/DocumentReference/{}", other.id);
        let binary_path = format!("/fhir/Binary/{}?task=Task/{other_task}", other.binary);
        whole.get(&task_path).await.expect(200);
        whole.get(&document_path).await.expect(200);

        ada.get(&format!("/fhir/Task/{}", scene.task)).await.expect(200);
        scene.fetch(&ada).await.expect(200);
        // As if they did not exist.
        let unknown = |answer: Answer| {
            answer.refused(404, "not-found");
        };
        for path in [&task_path, &document_path] {
            unknown(ada.get(path).await);
            unknown(ada.get(&format!("{path}/_history/1")).await);
            unknown(ada.get(&format!("{path}/_history")).await);
        }
        unknown(ada.get(&binary_path).await);
        ada.head(&binary_path).await.expect(404);
        for (search, seen) in [
            ("/fhir/Task", 1),
            ("/fhir/Task?patient=Patient/ben", 0),
            ("/fhir/Task?subject=Patient/ben", 0),
            ("/fhir/DocumentReference", 1),
            ("/fhir/DocumentReference?patient=ben", 0),
        ] {
            let sign = if search.contains('?') { '&' } else { '?' };
            assert_eq!(total(&ada, &format!("{search}{sign}_summary=count")).await, seen, "{search}");
            let found = ada.get(search).await.expect(200).json();
            assert!(!found["entry"].to_string().contains("Patient/ben"), "{search}");
        }
        let id = format!("/fhir/Task?_id={other_task}&_summary=count");
        assert_eq!(total(&ada, &id).await, 0, "not by id either");
        // Nor changed, nor moved into or out of reach.
        let foreign = whole.get(&task_path).await.expect(200).json();
        unknown(ada.put(&task_path, &foreign).await);
        unknown(
            ada.post(&format!("{task_path}/$grant"), &json!({"resourceType": "Parameters"}))
                .await,
        );
        let placer = app.scoped("ehr", "patient/Task.cruds patient/DocumentReference.cruds", Some("ada")).await;
        let mut stranger = task("requested", &other.id, Some(LANE));
        stranger["for"]["reference"] = json!(BEN);
        beyond(placer.post("/fhir/Task", &stranger).await);
        stranger.as_object_mut().expect("an object").remove("for");
        beyond(placer.post("/fhir/Task", &stranger).await);
        placer.delete(&task_path).await.expect(204);
        scene.ehr.get(&task_path).await.expect(200);
        // Another patient's document is not superseded, nor given away, nor told of.
        let fresh = upload(&scene.ehr, b"%PDF-1.4 newer").await;
        let mut newer = document_reference(&fresh, ADA);
        newer["relatesTo"] = json!([{"code": "replaces", "target": {"reference": format!("DocumentReference/{}", other.id)}}]);
        placer.post("/fhir/DocumentReference", &newer).await.expect(201);
        assert_eq!(whole.get(&document_path).await.expect(200).json()["status"], "current");
        let only = app.scoped("ehr", "patient/DocumentReference.c", Some("ada")).await;
        let another = upload(&scene.ehr, b"%PDF-1.4 newest").await;
        newer["content"][0]["attachment"]["url"] = json!(format!("Binary/{another}"));
        wants(only.post("/fhir/DocumentReference", &newer).await, "patient/DocumentReference.u");
        let mut unclear = document_reference(&upload(&scene.ehr, b"%PDF-1.4 of nobody").await, ADA);
        unclear.as_object_mut().expect("an object").remove("subject");
        let unclear = scene.ehr.post("/fhir/DocumentReference", &unclear).await.expect(201).id();
        for named in [&unclear, &other.id] {
            let given = placer.post("/fhir/Task", &task("accepted", named, Some(LANE))).await.expect(201).id();
            let asked = json!({"resourceType": "Parameters"});
            let refused = scene.ehr.post(&format!("/fhir/Task/{given}/$grant"), &asked).await;
            assert_eq!(refused.status.as_u16(), 422, "the Task releases nothing");
        }
        let ask = json!({"task": format!("Task/{}", scene.task)});
        for document in [other.id.as_str(), "none"] {
            let path = format!("/files/{document}/access-grants");
            unknown(ada.post_plain(&path, &ask).await);
        }
        // Gone is as unknown as never there.
        scene.ehr.delete(&task_path).await.expect(204);
        unknown(ada.put(&task_path, &foreign).await);
        // The grants of her Task are hers, those of the other one unknown.
        let grants = |document: &str| format!("/files/{document}/access-grants");
        ada.get(&grants(&scene.document.id)).await.expect(200);
        unknown(ada.get(&grants(&other.id)).await);
    }

    async fn constraints_narrow_and_what_cannot_be_evaluated_reaches_nothing(backend) {
        let app = TestApp::start(backend).await;
        let scene = Referral::set(&app).await;
        let path = format!("/fhir/Task/{}", scene.task);
        let accepted = app.scoped("lane", "user/Task.rus?status=accepted", None).await;
        let completed = app.scoped("lane", "user/Task.rs?status=completed", None).await;
        let either = app
            .scoped("lane", "user/Task.rs?status=completed user/Task.rs?status=accepted", None)
            .await;
        for client in [&accepted, &either] {
            client.get(&path).await.expect(200);
            assert_eq!(total(client, "/fhir/Task?_summary=count").await, 1);
        }
        completed.get(&path).await.refused(404, "not-found");
        assert_eq!(total(&completed, "/fhir/Task?_summary=count").await, 0);
        // Out of what it reaches it can't move a Task.
        let mut moved = scene.current().await;
        moved["status"] = json!("in-progress");
        beyond(accepted.put(&path, &moved).await);
        assert_eq!(scene.current().await["status"], "accepted");
        for scope in [
            "user/Task.rs?unknown=1",
            "user/Task.rs?_count=1",
            "user/Task.rs?_include=Task:owner",
            "user/Task.rs?status:not=completed",
            "user/Task.rs?owner.name=x",
            "user/Task.sr",
            "user/Task.rx",
            "user/Patient.rs",
            "openid fhirUser launch/patient",
            // No patient is known.
            "patient/Task.rs",
            // Lane is no system.
            "system",
            "offline_access",
        ] {
            let client = app.scoped("lane", scope, None).await;
            wants(client.get(&path).await, "user/Task.r");
            wants(client.get("/fhir/Task").await, "user/Task.s");
        }
        // Version 1 means the same as its letters.
        let first = app.scoped("lane", "user/Task.read", None).await;
        first.get(&path).await.expect(200);
        assert_eq!(total(&first, "/fhir/Task?_summary=count").await, 1);
        wants(first.put(&path, &moved).await, "user/Task.u");
        // The app acts for a person: its own scopes are not the person's.
        let app_itself = app.scoped("viewer-app", "system/*.cruds", None).await;
        wants(app_itself.get(&path).await, "user/Task.r");
        let system = app.scoped("ehr", "user/*.cruds", None).await;
        wants(system.get(&path).await, "system/Task.r");
    }

    async fn a_refusal_for_want_of_a_scope_is_in_the_audit(backend) {
        let app = TestApp::start(backend).await;
        let scene = Referral::set(&app).await;
        let reader = app.scoped("lane", "user/Task.r", None).await;
        let refused = scene.fetch(&reader).await.refused(403, "insufficient-scope");
        let correlation = refused.header("x-correlation-id").expect("an id").to_owned();
        let auditor = app.client("auditor").await;
        let found = auditor
            .get(&format!("/fhir/AuditEvent?-correlation={correlation}"))
            .await
            .expect(200)
            .json();
        let text = found.to_string();
        assert!(text.contains("insufficient-scope"), "{text}");
        assert!(text.contains("Binary.r"), "{text}");
    }

    async fn a_link_is_opened_within_the_scopes_only(backend) {
        let app = TestApp::start(backend).await;
        let scene = Referral::set(&app).await;
        let asked = json!({"task": format!("Task/{}", scene.task), "actor": {"reference": LANE}});
        let grants = format!("/files/{}/access-grants", scene.document.id);
        let issued = scene.ehr.post_plain(&grants, &asked).await.expect(201).json();
        let link = issued["link"].as_str().expect("a link");
        let (path, secret) = link
            .strip_prefix(&scene.lane.base)
            .and_then(|rest| rest.split_once('#'))
            .expect("a link of this server");
        let ben = app.scoped("lane", "patient/*.cruds", Some("ben")).await;
        beyond(ben.post_plain(path, &json!({"secret": secret})).await);
        let none = app.scoped("lane", "user/Task.cruds", None).await;
        wants(none.post_plain(path, &json!({"secret": secret})).await, "user/Binary.r");
        // No use was taken.
        let ada = app.scoped("lane", "patient/Binary.r", Some("ada")).await;
        let opened = ada.post_plain(path, &json!({"secret": secret})).await.expect(303);
        let content = opened.header("location").expect("a place").to_owned();
        let content = content.strip_prefix(&ada.base).unwrap_or(&content).to_owned();
        beyond(ben.get(&content).await);
        assert_eq!(ada.get(&content).await.expect(200).body, scene.document.content);
    }

    async fn a_stranger_learns_where_tokens_come_from(backend) {
        let app = TestApp::start(backend).await;
        let stranger = app.stranger();
        let base = stranger.base.clone();
        for (tenant, issuer) in [("", "/dev-issuer"), ("/t/b", "/dev-issuer/b")] {
            let path = format!("{tenant}/fhir/.well-known/smart-configuration");
            // Whatever is accepted, it is this.
            let request = stranger.request(Method::GET, &path).header("accept", "text/html");
            let answer = stranger.send(request).await.expect(200);
            assert_eq!(answer.header("content-type"), Some("application/json"));
            assert_eq!(answer.header("access-control-allow-origin"), Some("*"));
            let smart = answer.json();
            assert_eq!(smart["issuer"], format!("{base}{issuer}"));
            assert_eq!(smart["token_endpoint"], format!("{base}{issuer}/token"));
            assert_eq!(smart["authorization_endpoint"], format!("{base}{issuer}/authorize"));
            assert_eq!(smart["code_challenge_methods_supported"], json!(["S256"]));
            for capability in ["launch-standalone", "client-public", "permission-v2", "permission-patient"] {
                assert!(smart["capabilities"].as_array().unwrap().contains(&json!(capability)), "{smart}");
            }
            let challenge = stranger.get(&format!("{tenant}/fhir/Task")).await.refused(401, "unauthenticated");
            let challenge = challenge.header("www-authenticate").unwrap().to_owned();
            let metadata = challenge.split('"').nth(1).expect("an address").to_owned();
            assert_eq!(metadata, format!("{base}/.well-known/oauth-protected-resource{tenant}/fhir"));
            let resource = stranger.get(metadata.strip_prefix(&base).unwrap()).await.expect(200).json();
            assert_eq!(resource["resource"], format!("{base}{tenant}/fhir"));
            assert_eq!(resource["authorization_servers"], json!([format!("{base}{issuer}")]));
            assert_eq!(resource["bearer_methods_supported"], json!(["header"]));
        }
        for path in ["", "/", "/fhir/", "/t/none/fhir", "/t/b", "/fhir/Task", "fhir"] {
            let path = format!("/.well-known/oauth-protected-resource{path}");
            stranger.get(&path).await.refused(404, "not-found");
        }
        for path in ["/fhir/.well-known/smart-configuration", "/.well-known/oauth-protected-resource/fhir"] {
            let refused = stranger.post_plain(path, &json!({})).await.refused(405, "not-supported");
            assert_eq!(refused.header("allow"), Some("GET, HEAD"));
        }
        stranger.get("/t/none/fhir/.well-known/smart-configuration").await.refused(404, "not-found");
    }
}
