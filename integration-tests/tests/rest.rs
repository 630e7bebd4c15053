//! The REST interactions of Tasks and documents, as the CapabilityStatement claims them: versions, histories, deletes,
//! transactions and batches, two replicas, children of Tasks.

use futures_util::future::join;
use handoff_fhir_model::{ParseOptions, parse};
use handoff_integration_tests::scene::{ADA, Referral, document, document_reference, task, upload};
use handoff_integration_tests::{Answer, Backend, Client, TestApp, eventually, on_both};
use reqwest::Method;
use reqwest::header::CONTENT_TYPE;
use serde_json::{Value, json};

const LANE: &str = "Practitioner/lane";

/// The answer as a Bundle of R4.
fn bundle(answer: Answer) -> Value {
    let answer = answer.expect(200);
    assert!(
        parse(&answer.body, &ParseOptions::expecting("Bundle")).is_ok(),
        "{}",
        String::from_utf8_lossy(&answer.body)
    );
    answer.json()
}

/// The address of the next page, as a path.
fn next(client: &Client, bundle: &Value) -> Option<String> {
    let links = bundle["link"].as_array()?;
    let next = links.iter().find(|link| link["relation"] == "next")?["url"].as_str()?;
    Some(
        next.strip_prefix(&client.base)
            .expect("a link to the same server")
            .to_owned(),
    )
}

/// All entries of all pages.
async fn pages(client: &Client, first: &str, at_most: usize) -> Vec<Value> {
    let mut all = Vec::new();
    let mut path = Some(first.to_owned());
    let mut visited = 0;
    while let Some(at) = path {
        let page = bundle(client.get(&at).await);
        let entries = page["entry"].as_array().cloned().unwrap_or_default();
        assert!(entries.len() <= at_most, "{} on a page", entries.len());
        all.extend(entries);
        path = next(client, &page);
        visited += 1;
        assert!(visited < 100, "the pages never end");
    }
    all
}

async fn put_if(client: &Client, path: &str, tag: &str, body: &Value) -> Answer {
    let put = client.request(Method::PUT, path).header("if-match", tag);
    client
        .send(
            put.header(CONTENT_TYPE, "application/fhir+json")
                .body(body.to_string()),
        )
        .await
}

async fn prefer(client: &Client, method: Method, path: &str, wanted: &str, body: &Value) -> Answer {
    let request = client.request(method, path).header("prefer", wanted);
    client
        .send(
            request
                .header(CONTENT_TYPE, "application/fhir+json")
                .body(body.to_string()),
        )
        .await
}

fn status_of(entry: &Value) -> &str {
    entry["response"]["status"]
        .as_str()
        .unwrap()
        .split(' ')
        .next()
        .unwrap()
}

async fn task_of(client: &Client, id: &str) -> Value {
    client.get(&format!("/fhir/Task/{id}")).await.expect(200).json()
}

async fn total(client: &Client, kind: &str) -> u64 {
    client
        .get(&format!("/fhir/{kind}?_summary=count"))
        .await
        .expect(200)
        .json()["total"]
        .as_u64()
        .unwrap()
}

#[expect(clippy::needless_pass_by_value, reason = "most resources are made in place")]
fn post(full_url: Option<&str>, resource: Value) -> Value {
    let mut entry =
        json!({"request": {"method": "POST", "url": resource["resourceType"]}, "resource": resource});
    if let Some(url) = full_url {
        entry["fullUrl"] = json!(url);
    }
    entry
}

fn bundle_of(kind: &str, entry: &[Value]) -> Value {
    json!({"resourceType": "Bundle", "type": kind, "entry": entry})
}

on_both! {
    async fn a_resource_lives_from_create_to_delete(backend) {
        let app = TestApp::start(backend).await;
        let (ehr, lane) = (app.client("ehr").await, app.client("lane").await);
        let file = document(&ehr, b"content").await;
        let mut sent = task("requested", &file.id, Some(LANE));
        sent["id"] = json!("mine");
        sent["meta"] = json!({"versionId": "77", "lastUpdated": "2001-01-01T00:00:00Z", "tag": [{"code": "kept"}]});
        for (kind, sent) in [("Task", sent), ("DocumentReference", document_reference(&upload(&ehr, b"x").await, ADA))] {
            let created = ehr.post(&format!("/fhir/{kind}"), &sent).await.expect(201);
            let id = created.id();
            assert_ne!(id, "mine", "ids are the server's");
            let path = format!("/fhir/{kind}/{id}");
            assert_eq!(created.header("location"), Some(format!("{}{path}/_history/1", ehr.base).as_str()));
            assert_eq!(created.header("etag"), Some("W/\"1\""));
            assert!(created.header("last-modified").is_some());
            let body = created.json();
            assert_eq!(body["meta"]["versionId"], "1");
            assert_eq!(body["meta"]["tag"], sent["meta"]["tag"]);
            // Reads answer the stored bytes.
            let (once, again) = (ehr.get(&path).await.expect(200), ehr.get(&path).await.expect(200));
            assert_eq!(once.body, created.body);
            assert_eq!(once.body, again.body);
            assert_eq!(once.header("etag"), Some("W/\"1\""));
            assert_eq!(once.header("last-modified"), created.header("last-modified"));
            assert_eq!(ehr.get(&format!("{path}/_history/1")).await.expect(200).body, created.body);
            let known = ehr.request(Method::GET, &path).header("if-none-match", "W/\"1\"");
            ehr.send(known).await.expect(304);
            let head = ehr.head(&path).await.expect(200);
            assert_eq!((head.header("etag"), head.body.len()), (Some("W/\"1\""), 0));
            // Updates.
            let mut changed = body.clone();
            changed["description"] = json!("changed");
            let updated = put_if(&ehr, &path, "W/\"1\"", &changed).await.expect(200);
            assert_eq!(updated.header("etag"), Some("W/\"2\""));
            assert_eq!(updated.json()["meta"]["versionId"], "2");
            put_if(&ehr, &path, "W/\"1\"", &changed).await.refused(412, "version-conflict");
            put_if(&ehr, &path, "W/\"99\"", &changed).await.refused(412, "version-conflict");
            put_if(&ehr, &path, "W/\"x\"", &changed).await.refused(412, "version-conflict");
            put_if(&ehr, &path, "\"2\"", &changed).await.expect(200);
            put_if(&ehr, &path, "*", &changed).await.expect(200);
            ehr.put(&path, &changed).await.expect(200);
            assert_eq!(ehr.get(&path).await.expect(200).header("etag"), Some("W/\"5\""));
            assert_eq!(ehr.get(&format!("{path}/_history/1")).await.expect(200).body, created.body);
            ehr.get(&format!("{path}/_history/6")).await.refused(404, "not-found");
            // Deletes.
            let stale = ehr.request(Method::DELETE, &path).header("if-match", "W/\"1\"");
            ehr.send(stale).await.refused(412, "version-conflict");
            let gone = if kind == "Task" { "task-deleted" } else { "document-deleted" };
            ehr.delete(&path).await.expect(204);
            ehr.get(&path).await.refused(410, gone);
            ehr.get(&format!("{path}/_history/6")).await.refused(410, gone);
            ehr.put(&path, &changed).await.refused(410, gone);
            ehr.delete(&path).await.expect(204);
            ehr.delete(&format!("/fhir/{kind}/never")).await.expect(204);
            assert_eq!(ehr.get(&format!("{path}/_history/5")).await.expect(200).header("etag"), Some("W/\"5\""));
            lane.get(&format!("/fhir/{kind}/never")).await.refused(404, "not-found");
            let found = ehr.get(&format!("/fhir/{kind}?_id={id}&_total=accurate")).await.expect(200).json();
            assert_eq!(found["total"], 0);
            // Its history tells all of it, newest first.
            let history = bundle(ehr.get(&format!("{path}/_history")).await);
            assert_eq!((history["type"].as_str(), history["total"].as_u64()), (Some("history"), Some(6)));
            let entries = history["entry"].as_array().unwrap();
            let methods: Vec<&str> = entries.iter().map(|e| e["request"]["method"].as_str().unwrap()).collect();
            assert_eq!(methods, ["DELETE", "PUT", "PUT", "PUT", "PUT", "POST"]);
            for (i, entry) in entries.iter().enumerate() {
                assert_eq!(entry["response"]["etag"], format!("W/\"{}\"", 6 - i));
                assert_eq!(entry["resource"].is_null(), i == 0, "a deletion has no resource");
                assert_eq!(entry["fullUrl"], format!("{}{path}", ehr.base));
            }
        }
    }

    async fn a_history_is_read_page_by_page(backend) {
        let app = TestApp::start(backend).await;
        let ehr = app.client("ehr").await;
        let created = ehr.post("/fhir/Task", &task("draft", "nowhere", None)).await.expect(201);
        let path = format!("/fhir/Task/{}", created.id());
        for i in 0..10 {
            let mut body = created.json();
            body["description"] = json!(format!("change {i}"));
            ehr.put(&path, &body).await.expect(200);
        }
        for count in [1, 3, 11, 50] {
            let all = pages(&ehr, &format!("{path}/_history?_count={count}"), count).await;
            let versions: Vec<&str> = all.iter().map(|e| e["resource"]["meta"]["versionId"].as_str().unwrap()).collect();
            let expected: Vec<String> = (1..=11).rev().map(|v: u32| v.to_string()).collect();
            assert_eq!(versions, expected, "_count={count}");
        }
        let at = |version: usize| async move { version };
        let third = ehr.get(&format!("{path}/_history/{}", at(3).await)).await.expect(200).json();
        let since = third["meta"]["lastUpdated"].as_str().unwrap();
        let recent = bundle(ehr.get(&format!("{path}/_history?_since={since}")).await);
        let count = recent["entry"].as_array().unwrap().len();
        assert!((8..=9).contains(&count), "{count} since version 3");
        app.client("otis").await.get(&format!("{path}/_history")).await.refused(404, "not-found");
    }

    async fn a_client_gets_back_as_much_as_it_prefers(backend) {
        let app = TestApp::start(backend).await;
        let ehr = app.client("ehr").await;
        let body = task("draft", "nowhere", None);
        let minimal = prefer(&ehr, Method::POST, "/fhir/Task", "return=minimal", &body).await.expect(201);
        assert!(minimal.body.is_empty());
        assert!(minimal.header("location").is_some());
        assert_eq!(minimal.header("etag"), Some("W/\"1\""));
        let outcome = prefer(&ehr, Method::POST, "/fhir/Task", "return=OperationOutcome", &body).await.expect(201);
        assert_eq!(outcome.json()["resourceType"], "OperationOutcome");
        assert!(parse(&outcome.body, &ParseOptions::expecting("OperationOutcome")).is_ok());
        let whole = prefer(&ehr, Method::POST, "/fhir/Task", "return=representation", &body).await.expect(201);
        let id = whole.id();
        let path = format!("/fhir/Task/{id}");
        let updated = prefer(&ehr, Method::PUT, &path, "return=minimal", &whole.json()).await.expect(200);
        assert!(updated.body.is_empty());
        assert_eq!(updated.header("etag"), Some("W/\"2\""));
    }

    async fn what_is_not_known_here_comes_back_unchanged(backend) {
        let app = TestApp::start(backend).await;
        let ehr = app.client("ehr").await;
        let mut sent = task("draft", "nowhere", None);
        sent["extension"] = json!([{"url": "https://example.org/x", "extension": [
            {"url": "amount", "valueDecimal": 1}, {"url": "when", "valueDateTime": "2026-02"}
        ]}]);
        sent["contained"] = json!([
            {"resourceType": "Patient", "id": "p", "name": [{"family": "Kovač", "given": ["Ana\u{a0}\u{1f600}"]}], "birthDate": "1970"},
            {"resourceType": "Medication", "id": "m", "code": {"text": "a medication"}}
        ]);
        sent["basedOn"] = json!([{"reference": "#m"}, {"reference": "#p"}]);
        sent["_description"] = json!({"extension": [{"url": "https://example.org/y", "valueString": "of no value"}]});
        sent["text"] = json!({"status": "generated", "div": "<div xmlns=\"http://www.w3.org/1999/xhtml\"><b>x</b> &amp; y</div>"});
        let text = sent.to_string().replace("\"valueDecimal\":1", "\"valueDecimal\":1.2300000000000000000001");
        let created = ehr.post_bytes("/fhir/Task", "application/fhir+json", text.into_bytes()).await.expect(201);
        let read = ehr.get(&format!("/fhir/Task/{}", created.id())).await.expect(200);
        assert!(String::from_utf8_lossy(&read.body).contains("1.2300000000000000000001"), "digits are kept");
        let read = read.json();
        for element in ["contained", "basedOn", "_description", "text", "performerType"] {
            assert_eq!(read[element], sent[element], "{element}");
        }
        assert_eq!(read["extension"][0]["extension"][1], sent["extension"][0]["extension"][1]);
    }

    async fn what_a_transaction_has_granted_it_takes_away_with_the_content_that_it_replaces(backend) {
        let app = TestApp::start(backend).await;
        let referral = Referral::set(&app).await;
        let (ehr, id) = (&referral.ehr, &referral.document.id);
        let fresh = upload(ehr, b"%PDF-1.4 another letter").await;
        for (binary, granted) in [(&referral.document.binary, 2), (&fresh, 3)] {
            // Tasks are made before documents are changed, whatever the order of the entries.
            let mut file = document_reference(binary, ADA);
            file["id"] = json!(id);
            let change = json!({"resource": file, "request": {"method": "PUT", "url": format!("DocumentReference/{id}")}});
            let made = post(None, task("accepted", id, Some("Practitioner/lane")));
            bundle(ehr.post("/fhir", &bundle_of("transaction", &[change, made])).await);
            let grants = referral.grants().await;
            let of = |binary: &str, status: &str| {
                let is_so = |g: &&Value| g["binary"] == format!("Binary/{binary}") && g["status"] == status;
                grants.iter().filter(is_so).count()
            };
            let stale = if *binary == fresh { of(&referral.document.binary, "bound") } else { 0 };
            assert_eq!((of(binary, "bound"), stale), (granted, 0), "{grants:#?}");
        }
    }

    async fn a_transaction_ties_its_entries_together(backend) {
        let app = TestApp::start(backend).await;
        let (ehr, lane) = (app.client("ehr").await, app.client("lane").await);
        let urn = |n: u32| format!("urn:uuid:6ba7b810-9dad-41d1-80b4-00000000000{n}");
        let mut file = document_reference("x", ADA);
        file["content"][0]["attachment"]["url"] = json!(urn(1));
        let mut wanted = task("accepted", "x", Some(LANE));
        wanted["focus"] = json!({"reference": urn(2)});
        wanted["input"] = json!([{"type": {"text": "x"}, "valueReference": {"reference": urn(2)}}]);
        wanted["text"] = json!({"status": "generated", "div": format!("<div xmlns=\"http://www.w3.org/1999/xhtml\"><a href=\"{}\">x</a></div>", urn(2))});
        let mut part = task("draft", "x", None);
        part["partOf"] = json!([{"reference": urn(3)}]);
        part.as_object_mut().unwrap().remove("focus");
        let binary = json!({"resourceType": "Binary", "contentType": "text/plain", "data": "Y29udGVudA=="});
        // In an order that no reference can be followed in.
        let entries = [post(None, part), post(Some(&urn(3)), wanted), post(Some(&urn(2)), file), post(Some(&urn(1)), binary)];
        let answer = bundle(ehr.post("/fhir", &bundle_of("transaction", &entries)).await);
        assert_eq!(answer["type"], "transaction-response");
        let made = answer["entry"].as_array().unwrap();
        let mut ids = Vec::new();
        for (entry, kind) in made.iter().zip(["Task", "Task", "DocumentReference", "Binary"]) {
            assert_eq!(status_of(entry), "201");
            assert_eq!(entry["response"]["etag"], "W/\"1\"");
            let location = entry["response"]["location"].as_str().unwrap();
            let id = location.strip_prefix(&format!("{}/fhir/{kind}/", ehr.base)).unwrap();
            ids.push(id.strip_suffix("/_history/1").unwrap().to_owned());
        }
        let stored = task_of(&ehr, &ids[1]).await;
        assert_eq!(stored["focus"]["reference"], format!("DocumentReference/{}", ids[2]));
        assert_eq!(stored["input"][0]["valueReference"], stored["focus"]);
        assert!(stored["text"]["div"].as_str().unwrap().contains(&format!("DocumentReference/{}", ids[2])));
        assert_eq!(task_of(&ehr, &ids[0]).await["partOf"][0]["reference"], format!("Task/{}", ids[1]));
        let file = ehr.get(&format!("/fhir/DocumentReference/{}", ids[2])).await.expect(200).json();
        assert_eq!(file["content"][0]["attachment"]["url"], format!("Binary/{}", ids[3]));
        let fetched = lane.get(&format!("/fhir/Binary/{}?task=Task/{}", ids[3], ids[1])).await.expect(200);
        assert_eq!(fetched.body, b"content");
        // Changes and deletions in one, a stale one of which stops all.
        let mut changed = file.clone();
        changed["description"] = json!("changed");
        let put = |tag: &str| json!({"resource": changed, "request":
            {"method": "PUT", "url": format!("DocumentReference/{}", ids[2]), "ifMatch": tag}});
        let delete = json!({"request": {"method": "DELETE", "url": format!("Task/{}", ids[0])}});
        let stale = bundle_of("transaction", &[delete.clone(), put("W/\"7\"")]);
        ehr.post("/fhir", &stale).await.refused(412, "version-conflict");
        ehr.get(&format!("/fhir/Task/{}", ids[0])).await.expect(200);
        let answer = bundle(ehr.post("/fhir", &bundle_of("transaction", &[put("W/\"1\""), delete])).await);
        let statuses: Vec<&str> = answer["entry"].as_array().unwrap().iter().map(status_of).collect();
        assert_eq!(statuses, ["200", "204"]);
        ehr.get(&format!("/fhir/Task/{}", ids[0])).await.refused(410, "task-deleted");
    }

    async fn a_transaction_happens_as_a_whole_or_not_at_all(backend) {
        let app = TestApp::start(backend).await;
        let ehr = app.client("ehr").await;
        let urn = "urn:uuid:6ba7b810-9dad-41d1-80b4-000000000001";
        let mut file = document_reference("x", ADA);
        file["content"][0]["attachment"]["url"] = json!(urn);
        let binary = json!({"resourceType": "Binary", "contentType": "text/plain", "data": "Y29udGVudA=="});
        let mut inline = document_reference("x", ADA);
        inline["content"] = json!([{"attachment": {"contentType": "text/plain", "data": "Y29udGVudA=="}}]);
        let blobs = || {
            let folder = app.folder().join("blobs");
            if backend == Backend::Embedded { files_below(&folder) } else { 0 }
        };
        for bad in [task("completed", "x", None), document_reference("nowhere", ADA), json!({"resourceType": "Task", "status": "draft"})] {
            let entries = [post(Some(urn), binary.clone()), post(None, file.clone()), post(None, inline.clone()), post(None, bad)];
            let refused = ehr.post("/fhir", &bundle_of("transaction", &entries)).await;
            assert!([400, 422].contains(&refused.status.as_u16()));
            let place = refused.json()["issue"][0]["expression"][0].as_str().unwrap().to_owned();
            assert!(place.starts_with("Bundle.entry[3].resource."), "{place}");
        }
        for kind in ["Task", "DocumentReference"] {
            assert_eq!(total(&ehr, kind).await, 0);
        }
        // The store itself may just have tried whether it can write.
        eventually("no content stays behind", async || blobs() == 0).await;
        // A batch does what it can.
        let entries = [post(None, task("completed", "x", None)), post(Some(urn), binary), post(None, file), post(None, inline)];
        let answer = bundle(ehr.post("/fhir", &bundle_of("batch", &entries)).await);
        assert_eq!(answer["type"], "batch-response");
        let made = answer["entry"].as_array().unwrap();
        assert_eq!(made.iter().map(status_of).collect::<Vec<_>>(), ["422", "201", "422", "201"]);
        let outcome = &made[0]["response"]["outcome"];
        assert_eq!(outcome["issue"][0]["details"]["coding"][0]["code"], "illegal-transition");
        assert_eq!(outcome["issue"][0]["expression"], json!(["Bundle.entry[0].resource.status"]));
        // Entries of a batch do not know each other.
        let outcome = &made[2]["response"]["outcome"];
        assert!(outcome["issue"][0]["expression"][0].as_str().unwrap().starts_with("Bundle.entry[2].resource."));
        assert_eq!(total(&ehr, "DocumentReference").await, 1);
        let empty = bundle(ehr.post("/fhir", &json!({"resourceType": "Bundle", "type": "transaction"})).await);
        assert_eq!(empty["type"], "transaction-response");
    }

    async fn a_placeholder_may_stand_for_what_a_transaction_changes(backend) {
        let app = TestApp::start(backend).await;
        let referral = Referral::set(&app).await;
        let urn = "urn:uuid:6ba7b810-9dad-41d1-80b4-000000000007";
        let mut part = task("draft", "x", None);
        part["partOf"] = json!([{"reference": urn}]);
        let change = json!({"fullUrl": urn, "resource": referral.current().await,
            "request": {"method": "PUT", "url": format!("Task/{}", referral.task)}});
        let answer = bundle(referral.ehr.post("/fhir", &bundle_of("transaction", &[post(None, part), change])).await);
        let made = answer["entry"][0]["resource"].clone();
        assert_eq!(made["partOf"][0]["reference"], format!("Task/{}", referral.task));
    }

    async fn only_those_who_may_create_do(backend) {
        let app = TestApp::start(backend).await;
        let ehr = app.client("ehr").await;
        let wanted = task("draft", "nowhere", None);
        for (name, tasks, documents) in [
            ("ehr", true, true),
            ("records", false, true),
            ("lane", false, false),
            ("clerk", false, false),
            ("viewer-app", false, false),
            ("interface", false, false),
            ("operator", false, false),
            ("auditor", false, false),
            ("glass", false, false),
        ] {
            let client = app.client(name).await;
            let made = |answer: Answer, allowed: bool| {
                if allowed { answer.expect(201) } else { answer.refused(403, "policy-denied") }
            };
            made(client.post("/fhir/Task", &wanted).await, tasks);
            let bundled = client.post("/fhir", &bundle_of("transaction", &[post(None, wanted.clone())])).await;
            if tasks { bundled.expect(200) } else { bundled.refused(403, "policy-denied") };
            let raw = made(client.post_bytes("/fhir/Binary", "text/plain", b"x".to_vec()).await, documents);
            let binary = if documents { raw.id() } else { upload(&ehr, b"x").await };
            made(client.post("/fhir/DocumentReference", &document_reference(&binary, ADA)).await, documents);
            let mut inline = document_reference("x", ADA);
            inline["content"] = json!([{"attachment": {"contentType": "text/plain", "data": "eA=="}}]);
            made(client.post("/fhir/DocumentReference", &inline).await, documents);
        }
    }

    async fn a_workflow_may_demand_the_version_that_was_read(backend) {
        let app = TestApp::start(backend).await;
        let ehr = app.client("ehr").await;
        let mut review = task("draft", "nowhere", None);
        review["code"] = json!({"coding": [{"system": "https://handoff.example/fhir/CodeSystem/workflow", "code": "prior-authorization-review"}]});
        let created = ehr.post("/fhir/Task", &review).await.expect(201);
        let path = format!("/fhir/Task/{}", created.id());
        ehr.put(&path, &created.json()).await.refused(400, "invalid");
        put_if(&ehr, &path, "W/\"2\"", &created.json()).await.refused(412, "version-conflict");
        put_if(&ehr, &path, "W/\"1\"", &created.json()).await.expect(200);
        // An illegal move is told as such first.
        let mut wrong = created.json();
        wrong["status"] = json!("completed");
        ehr.put(&path, &wrong).await.refused(422, "illegal-transition");
    }

    async fn a_profile_that_is_claimed_is_held_to_however_the_resource_comes(backend) {
        let app = TestApp::start(backend).await;
        let ehr = app.client("ehr").await;
        let claimed = json!({"resourceType": "Task", "status": "draft", "intent": "order",
            "meta": {"profile": ["https://handoff.example/fhir/StructureDefinition/handoff-task"]}});
        ehr.post("/fhir/Task", &claimed).await.refused(422, "invalid");
        ehr.post("/fhir", &bundle_of("transaction", &[post(None, claimed.clone())])).await.refused(422, "invalid");
        let answer = bundle(ehr.post("/fhir", &bundle_of("batch", &[post(None, claimed)])).await);
        assert_eq!(status_of(&answer["entry"][0]), "422");
        assert_eq!(total(&ehr, "Task").await, 0);
    }

    async fn the_metadata_is_open_and_every_claim_of_it_holds(backend) {
        let app = TestApp::start(backend).await;
        let stranger = app.stranger();
        let metadata = stranger.get("/fhir/metadata").await.expect(200);
        assert!(parse(&metadata.body, &ParseOptions::expecting("CapabilityStatement")).is_ok());
        let statement = metadata.json();
        assert_eq!(statement["fhirVersion"], "4.0.1");
        assert!(stranger.head("/fhir/metadata").await.expect(200).body.is_empty());
        stranger.get("/t/b/fhir/metadata").await.expect(200);
        stranger.get("/t/nowhere/fhir/metadata").await.refused(404, "not-found");
        let (operator, auditor) = (app.client("operator").await, app.client("auditor").await);
        for resource in statement["rest"][0]["resource"].as_array().unwrap() {
            let kind = resource["type"].as_str().unwrap();
            let claims = |what: &str| {
                resource["interaction"].as_array().unwrap().iter().any(|i| i["code"] == what)
            };
            let of_the_audit = ["AuditEvent", "Provenance"].contains(&kind);
            let client = if of_the_audit { &auditor } else { &operator };
            assert_eq!(client.get(&format!("/fhir/{kind}")).await.status == 200, claims("search-type"), "{kind}");
            for parameter in resource["searchParam"].as_array().into_iter().flatten() {
                let name = parameter["name"].as_str().unwrap();
                let value = match parameter["type"].as_str().unwrap() {
                    "date" => "ge2020-01-01",
                    "uri" => "https://example.org/x",
                    "reference" if name == "target" => "Task/a",
                    "reference" if of_the_audit && name != "patient" => "Practitioner/a",
                    "reference" => "a",
                    _ => "draft",
                };
                let strict = client.request(Method::GET, &format!("/fhir/{kind}?{name}={value}"));
                let answer = client.send(strict.header("prefer", "handling=strict")).await;
                let url = bundle(answer)["link"][0]["url"].as_str().unwrap().to_owned();
                assert!(url.contains(name), "{kind}: {name} is not in {url}");
            }
            for (interaction, method) in [("create", Method::POST), ("update", Method::PUT), ("delete", Method::DELETE)] {
                let path = if interaction == "create" { format!("/fhir/{kind}") } else { format!("/fhir/{kind}/nowhere") };
                let request = client.request(method, &path).header(CONTENT_TYPE, "application/fhir+json");
                let served = client.send(request.body("{}")).await.status != 405;
                assert_eq!(served, claims(interaction), "{kind}: {interaction}");
            }
        }
        for kind in ["StructureDefinition", "SearchParameter", "OperationDefinition", "ValueSet", "CodeSystem", "ConceptMap"] {
            let all = pages(&operator, &format!("/fhir/{kind}?_count=5"), 5).await;
            for entry in &all {
                let id = entry["resource"]["id"].as_str().unwrap();
                let read = operator.get(&format!("/fhir/{kind}/{id}")).await.expect(200);
                assert_eq!(read.json(), entry["resource"]);
            }
            stranger.get(&format!("/fhir/{kind}")).await.refused(401, "unauthenticated");
        }
        let codes = operator.get("/fhir/CodeSystem/handoff-reason").await.expect(200).json();
        assert_eq!(codes["url"], "https://handoff.example/fhir/CodeSystem/handoff-reason");
    }
}

fn files_below(folder: &std::path::Path) -> usize {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return 0;
    };
    entries
        .flatten()
        .map(|e| {
            if e.path().is_dir() {
                files_below(&e.path())
            } else {
                1
            }
        })
        .sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_replicas_see_what_the_other_wrote() {
    let app = TestApp::start(Backend::Production).await;
    let other = app.replica().await;
    let referral = Referral::set(&app).await;
    let (ehr, lane) = (
        referral.ehr.at(&other.server.base_url),
        referral.lane.at(&other.server.base_url),
    );
    let path = format!("/fhir/Task/{}", referral.task);
    assert_eq!(
        ehr.get(&path).await.expect(200).body,
        referral.ehr.get(&path).await.expect(200).body
    );
    let mut changed = ehr.get(&path).await.expect(200).json();
    changed["description"] = json!("written at the other");
    ehr.put(&path, &changed).await.expect(200);
    assert_eq!(referral.current().await["description"], "written at the other");
    put_if(&referral.ehr, &path, "W/\"1\"", &changed)
        .await
        .refused(412, "version-conflict");
    // One use, whichever of the two is asked.
    let (one, two) = join(referral.fetch(&referral.lane), lane.get(&referral.content_path())).await;
    let mut statuses = [one.status.as_u16(), two.status.as_u16()];
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 403]);
    referral.move_to(&referral.lane, "failed").await.expect(200);
    lane.get(&referral.content_path())
        .await
        .refused(403, "task-failed");
}
