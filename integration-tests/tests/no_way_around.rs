//! No way around the gate: each sentence of the contract's paragraph of that name, tried from the outside by one
//! who would like it to be otherwise.

use handoff_integration_tests::scene::{ADA, Referral, document, document_reference, task, upload};
use handoff_integration_tests::{Answer, Client, TestApp, on_both};
use reqwest::Method;
use serde_json::{Value, json};

/// An id that no resource has.
const NOBODY: &str = "00000000000000000000000000000000";
const LANE: &str = "Practitioner/lane";

/// The answer with everything taken out that differs between any two requests.
fn bare(answer: &Answer) -> (u16, Value) {
    let mut body = answer.json();
    for name in ["id", "meta", "focus", "relatesTo", "content"] {
        body.as_object_mut().unwrap().remove(name);
    }
    for issue in body["issue"].as_array_mut().into_iter().flatten() {
        issue.as_object_mut().unwrap().remove("diagnostics");
    }
    (answer.status.as_u16(), body)
}

/// Every member name in a JSON tree.
fn names(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(map) => map.iter().for_each(|(name, value)| {
            found.push(name.clone());
            names(value, found);
        }),
        Value::Array(list) => list.iter().for_each(|value| names(value, found)),
        _ => {}
    }
}

fn carries_data(answer: &Answer) -> bool {
    let mut found = Vec::new();
    names(&answer.json(), &mut found);
    found.iter().any(|name| name == "data")
}

/// How many resources a search finds.
async fn count(client: &Client, search: &str) -> u64 {
    client.get(search).await.expect(200).json()["total"]
        .as_u64()
        .unwrap()
}

fn transaction(entries: &[Value]) -> Value {
    let entry: Vec<Value> = entries
        .iter()
        .map(|resource| {
            let kind = resource["resourceType"].as_str().unwrap();
            match resource["id"].as_str() {
                Some(id) => {
                    json!({"resource": resource, "request": {"method": "PUT", "url": format!("{kind}/{id}")}})
                }
                None => json!({"resource": resource, "request": {"method": "POST", "url": kind}}),
            }
        })
        .collect();
    json!({"resourceType": "Bundle", "type": "transaction", "entry": entry})
}

/// Resources with content where none may be, and where it stands.
fn smuggled(document: &str, binary: &str) -> Vec<(Value, &'static str)> {
    let attachment = json!({"contentType": "text/plain", "data": "c2VjcmV0"});
    let hidden = json!([{"url": "https://example.org/x", "valueAttachment": attachment}]);
    let mut cases = Vec::new();
    let mut case = |mut resource: Value, edit: &dyn Fn(&mut Value), place: &'static str| {
        edit(&mut resource);
        cases.push((resource, place));
    };
    let plain = task("accepted", document, Some(LANE));
    case(
        plain.clone(),
        &|t| t["input"] = json!([{"type": {"text": "a letter"}, "valueAttachment": attachment}]),
        "Task.input[0].value.data",
    );
    case(
        plain.clone(),
        &|t| t["output"] = json!([{"type": {"text": "a letter"}, "valueBase64Binary": "c2VjcmV0"}]),
        "Task.output[0].value",
    );
    case(
        plain.clone(),
        &|t| {
            t["contained"] = json!([{"resourceType": "Binary", "id": "b", "contentType": "text/plain", "data": "c2VjcmV0"}]);
            t["reasonReference"] = json!({"reference": "#b"});
        },
        "Task.contained[0]",
    );
    case(
        plain.clone(),
        &|t| {
            t["contained"] = json!([{"resourceType": "DocumentReference", "id": "d", "status": "current",
                "content": [{"attachment": attachment}]}]);
            t["reasonReference"] = json!({"reference": "#d"});
        },
        "Task.contained[0].content[0].attachment.data",
    );
    case(
        plain.clone(),
        &|t| t["extension"] = hidden.clone(),
        "Task.extension[0].value.data",
    );
    case(
        plain.clone(),
        &|t| t["for"]["extension"] = hidden.clone(),
        "Task.for.extension[0].value.data",
    );
    case(
        plain,
        &|t| t["_status"] = json!({"extension": hidden}),
        "Task.status.extension[0].value.data",
    );
    let plain = document_reference(binary, ADA);
    case(
        plain.clone(),
        &|d| d["extension"] = hidden.clone(),
        "DocumentReference.extension[0].value.data",
    );
    case(
        plain.clone(),
        &|d| d["content"][0]["attachment"]["extension"] = hidden.clone(),
        "DocumentReference.content[0].attachment.extension[0].value.data",
    );
    case(
        plain.clone(),
        &|d| {
            d["contained"] = json!([{"resourceType": "Binary", "id": "b", "contentType": "text/plain", "data": "c2VjcmV0"}]);
            d["context"] = json!({"related": [{"reference": "#b"}]});
        },
        "DocumentReference.contained[0]",
    );
    case(
        plain,
        &|d| d["content"][0]["attachment"] = json!({"url": "data:text/plain;base64,c2VjcmV0"}),
        "DocumentReference.content[0].attachment.url",
    );
    cases
}

on_both! {
    async fn anothers_document_in_a_task_opens_nothing_and_is_answered_like_one_that_does_not_exist(backend) {
        let app = TestApp::start(backend).await;
        let (ehr, lane, records) = (app.client("ehr").await, app.client("lane").await, app.client("records").await);
        let theirs = document(&records, b"of the archive").await;
        let named = ehr.post("/fhir/Task", &task("accepted", &theirs.id, Some(LANE))).await.expect(201);
        let nothing = ehr.post("/fhir/Task", &task("accepted", NOBODY, Some(LANE))).await.expect(201);
        assert_eq!(bare(&named), bare(&nothing));
        let focus = |document: &str| format!("DocumentReference/{document}");
        assert_eq!(named.json()["focus"]["reference"], focus(&theirs.id), "kept as it was sent");
        // As `input`, by an update, in a Bundle, by the absolute address: the same.
        let mut with_input = task("accepted", NOBODY, Some(LANE));
        let address = format!("{}/fhir/DocumentReference/{}", ehr.base, theirs.id);
        with_input["input"] = json!([{"type": {"text": "x"}, "valueReference": {"reference": address}}]);
        let with_input = ehr.post("/fhir/Task", &with_input).await.expect(201).id();
        let mut updated = nothing.json();
        updated["focus"] = json!({"reference": focus(&theirs.id)});
        let path = format!("/fhir/Task/{}", nothing.id());
        ehr.put(&path, &updated).await.expect(200);
        let bundle = transaction(&[task("accepted", &theirs.id, Some(LANE))]);
        ehr.post("/fhir", &bundle).await.expect(200);
        for id in [named.id(), nothing.id(), with_input] {
            lane.get(&format!("/fhir/Binary/{}?task=Task/{id}", theirs.binary)).await.expect(404);
            let asked = json!({"task": format!("Task/{id}")});
            let refused = ehr.post_plain(&format!("/files/{}/access-grants", theirs.id), &asked).await;
            let unknown = ehr.post_plain(&format!("/files/{NOBODY}/access-grants"), &asked).await;
            assert_eq!((refused.status, refused.reason()), (unknown.status, unknown.reason()));
            assert!(refused.status.is_client_error());
        }
        lane.get(&format!("/fhir/Binary/{}", theirs.binary)).await.expect(404);
        lane.get(&format!("/fhir/Binary/{NOBODY}")).await.expect(404);
        for client in [&lane, &ehr] {
            client.get(&format!("/fhir/DocumentReference/{}", theirs.id)).await.expect(404);
            client.get(&format!("/files/{}/access-grants", theirs.id)).await.expect(404);
            assert_eq!(count(client, "/fhir/DocumentReference?_summary=count").await, 0);
        }
        let grants = records.get(&format!("/files/{}/access-grants", theirs.id)).await.expect(200).json();
        assert_eq!(grants["grants"], json!([]));
    }

    async fn an_operator_cannot_release_what_the_placer_had_no_right_to(backend) {
        let app = TestApp::start(backend).await;
        let (ehr, records, operator) =
            (app.client("ehr").await, app.client("records").await, app.client("operator").await);
        let theirs = document(&records, b"of the archive").await;
        let id = ehr.post("/fhir/Task", &task("accepted", &theirs.id, Some(LANE))).await.expect(201).id();
        let asked = json!({"task": format!("Task/{id}"), "actor": {"reference": LANE}});
        operator.post_plain(&format!("/files/{}/access-grants", theirs.id), &asked).await.refused(422, "invalid");
    }

    async fn a_document_about_another_subject_is_refused(backend) {
        let app = TestApp::start(backend).await;
        let referral = Referral::set(&app).await;
        let ehr = &referral.ehr;
        let binary = upload(ehr, b"about ben").await;
        let bens = ehr.post("/fhir/DocumentReference", &document_reference(&binary, "Patient/ben")).await.expect(201).id();
        let before = count(ehr, "/fhir/Task?_summary=count").await;
        let refused = ehr.post("/fhir/Task", &task("accepted", &bens, Some(LANE))).await.refused(422, "invalid");
        assert_eq!(refused.json()["issue"][0]["expression"], json!(["Task.focus"]));
        let input = json!([{"type": {"text": "x"}, "valueReference": {"reference": format!("DocumentReference/{bens}")}}]);
        let mut wanted = task("accepted", &referral.document.id, Some(LANE));
        wanted["input"] = input.clone();
        let refused = ehr.post("/fhir/Task", &wanted).await.refused(422, "invalid");
        assert_eq!(refused.json()["issue"][0]["expression"], json!(["Task.input"]));
        ehr.post("/fhir", &transaction(&[wanted])).await.refused(422, "invalid");
        assert_eq!(count(ehr, "/fhir/Task?_summary=count").await, before);
        referral.change(ehr, |task| task["input"] = input).await.refused(422, "invalid");
        // Nor by turning the Task to another subject once the document is in it.
        referral.change(ehr, |task| task["for"]["reference"] = json!("Patient/ben")).await.refused(422, "invalid");
        referral.fetch(&referral.lane).await.expect(200);
    }

    async fn turning_the_document_to_another_subject_takes_its_grants_away(backend) {
        let app = TestApp::start(backend).await;
        let referral = Referral::set(&app).await;
        let path = format!("/fhir/DocumentReference/{}", referral.document.id);
        let mut changed = referral.ehr.get(&path).await.expect(200).json();
        changed["subject"]["reference"] = json!("Patient/ben");
        referral.ehr.put(&path, &changed).await.expect(200);
        referral.fetch(&referral.lane).await.refused(403, "document-withheld");
        assert_eq!(referral.grants().await[0]["status"], "revoked");
    }

    async fn a_binary_that_is_unknown_or_not_free_is_one_and_the_same_refusal(backend) {
        let app = TestApp::start(backend).await;
        let (ehr, records) = (app.client("ehr").await, app.client("records").await);
        let first = document(&ehr, b"the first letter").await;
        let theirs = upload(&records, b"of the archive").await;
        let taken = document(&records, b"of the archive, taken").await.binary;
        let gone = upload(&ehr, b"deleted").await;
        ehr.delete(&format!("/fhir/Binary/{gone}")).await.expect(204);
        let before = count(&ehr, "/fhir/DocumentReference?_summary=count").await;
        let unknown = ehr.post("/fhir/DocumentReference", &document_reference(NOBODY, ADA)).await.refused(422, "invalid");
        assert_eq!(unknown.json()["issue"][0]["expression"], json!(["DocumentReference.content[0].attachment.url"]));
        for binary in [&first.binary, &theirs, &taken, &gone] {
            let wanted = document_reference(binary, ADA);
            assert_eq!(bare(&ehr.post("/fhir/DocumentReference", &wanted).await), bare(&unknown), "{binary}");
            let mut absolute = wanted.clone();
            absolute["content"][0]["attachment"]["url"] = json!(format!("{}/fhir/Binary/{binary}", ehr.base));
            assert_eq!(bare(&ehr.post("/fhir/DocumentReference", &absolute).await), bare(&unknown));
            let mut versioned = wanted.clone();
            versioned["content"][0]["attachment"]["url"] = json!(format!("Binary/{binary}/_history/1"));
            assert_eq!(bare(&ehr.post("/fhir/DocumentReference", &versioned).await), bare(&unknown));
            ehr.post("/fhir", &transaction(&[wanted])).await.refused(422, "invalid");
        }
        assert_eq!(count(&ehr, "/fhir/DocumentReference?_summary=count").await, before);
        // An update of the own document can't take them in either.
        let binary = upload(&ehr, b"of a second letter").await;
        let second = ehr.post("/fhir/DocumentReference", &document_reference(&binary, ADA)).await.expect(201).json();
        for binary in [&first.binary, &theirs, &taken, &gone] {
            let mut changed = second.clone();
            changed["content"][0] = json!({"attachment": {"url": format!("Binary/{binary}")}});
            let path = format!("/fhir/DocumentReference/{}", second["id"].as_str().unwrap());
            assert_eq!(bare(&ehr.put(&path, &changed).await), bare(&unknown));
        }
    }

    async fn a_replacement_of_anothers_document_has_no_effect_and_is_answered_alike(backend) {
        let app = TestApp::start(backend).await;
        let (ehr, records) = (app.client("ehr").await, app.client("records").await);
        let theirs = document(&records, b"of the archive").await;
        let mut answers = Vec::new();
        for target in [theirs.id.as_str(), NOBODY] {
            let mut newer = document_reference(&upload(&ehr, b"newer").await, ADA);
            newer["relatesTo"] =
                json!([{"code": "replaces", "target": {"reference": format!("DocumentReference/{target}")}}]);
            let created = ehr.post("/fhir/DocumentReference", &newer).await.expect(201);
            let read = ehr.get(&format!("/fhir/DocumentReference/{}", created.id())).await.expect(200);
            assert_eq!(read.json()["relatesTo"], newer["relatesTo"]);
            answers.push(bare(&created));
        }
        assert_eq!(answers[0], answers[1]);
        let path = format!("/fhir/DocumentReference/{}", theirs.id);
        let untouched = records.get(&path).await.expect(200);
        assert_eq!(untouched.json()["status"], "current");
        assert_eq!(untouched.header("etag"), Some("W/\"1\""));
    }

    async fn content_anywhere_else_is_refused(backend) {
        let app = TestApp::start(backend).await;
        let referral = Referral::set(&app).await;
        let ehr = &referral.ehr;
        let document = ehr.get(&format!("/fhir/DocumentReference/{}", referral.document.id)).await.expect(200).json();
        let free = upload(ehr, b"free").await;
        let before = (count(ehr, "/fhir/Task?_summary=count").await, count(ehr, "/fhir/DocumentReference?_summary=count").await);
        for (resource, place) in smuggled(&referral.document.id, &free) {
            let kind = resource["resourceType"].as_str().unwrap().to_owned();
            let path = format!("/fhir/{kind}");
            let refused = ehr.post(&path, &resource).await.refused(422, "invalid");
            assert_eq!(refused.json()["issue"][0]["expression"], json!([place]));
            let current = if kind == "Task" { referral.current().await } else { document.clone() };
            let mut changed = resource.clone();
            changed["id"] = current["id"].clone();
            let one = format!("{path}/{}", current["id"].as_str().unwrap());
            ehr.put(&one, &changed).await.refused(422, "invalid");
            let validated = ehr.post(&format!("{path}/$validate"), &resource).await.expect(200).json();
            assert_eq!(validated["issue"][0]["severity"], "error", "{place}");
            for resource in [&resource, &changed] {
                let refused = ehr.post("/fhir", &transaction(std::slice::from_ref(resource))).await.refused(422, "invalid");
                let at = place.split_once('.').unwrap().1;
                let located = format!("Bundle.entry[0].resource.{at}");
                assert_eq!(refused.json()["issue"][0]["expression"], json!([located]));
                let mut batch = transaction(std::slice::from_ref(resource));
                batch["type"] = json!("batch");
                let answer = ehr.post("/fhir", &batch).await.expect(200).json();
                assert!(answer["entry"][0]["response"]["status"].as_str().unwrap().starts_with("422"), "{answer}");
            }
            assert_eq!(ehr.get(&one).await.expect(200).json(), current, "{place}");
        }
        let after = (count(ehr, "/fhir/Task?_summary=count").await, count(ehr, "/fhir/DocumentReference?_summary=count").await);
        assert_eq!(before, after);
    }

    async fn inline_data_becomes_a_binary_and_is_never_read_back(backend) {
        let app = TestApp::start(backend).await;
        let (ehr, lane) = (app.client("ehr").await, app.client("lane").await);
        let mut inline = document_reference(NOBODY, ADA);
        inline["content"] = json!([{"attachment": {"contentType": "text/plain", "data": "Zmlyc3Q="}}]);
        let created = ehr.post("/fhir/DocumentReference", &inline).await.expect(201);
        let id = created.id();
        let path = format!("/fhir/DocumentReference/{id}");
        let mut changed = created.json();
        changed["content"] = json!([{"attachment": {"contentType": "text/plain", "data": "c2Vjb25k"}}]);
        let updated = ehr.put(&path, &changed).await.expect(200);
        let bundled = ehr.post("/fhir", &transaction(&[inline])).await.expect(200);
        let mut answers = vec![created.clone(), updated.clone(), bundled];
        for path in [
            path.clone(),
            format!("{path}/_history/1"),
            format!("{path}/_history/2"),
            format!("{path}/_history"),
            "/fhir/DocumentReference".to_owned(),
        ] {
            answers.push(ehr.get(&path).await.expect(200));
        }
        for answer in &answers {
            assert!(!carries_data(answer), "{}", answer.json());
            for secret in ["Zmlyc3Q=", "c2Vjb25k", "first", "second"] {
                assert!(!String::from_utf8_lossy(&answer.body).contains(secret));
            }
        }
        let attachment = updated.json()["content"][0]["attachment"].clone();
        assert_eq!(attachment["size"], 6);
        let binary = attachment["url"].as_str().unwrap().to_owned();
        let id = ehr.post("/fhir/Task", &task("accepted", &id, Some(LANE))).await.expect(201).id();
        assert_eq!(lane.get(&format!("/fhir/{binary}?task=Task/{id}")).await.expect(200).body, b"second");
    }

    async fn a_binary_comes_by_no_other_way_than_its_gate(backend) {
        let app = TestApp::start(backend).await;
        let secret = b"the-only-copy-of-this-text";
        let referral = Referral::with_content(&app, secret).await;
        let (binary, document, task) = (&referral.document.binary, &referral.document.id, &referral.task);
        let tries = [
            ("/fhir/DocumentReference?_include=DocumentReference:location".to_owned(), 400),
            (format!("/fhir/DocumentReference?_id={document}&_include=*"), 400),
            (format!("/fhir/DocumentReference?_id={document}&_include:iterate=*:*"), 400),
            ("/fhir/DocumentReference?_revinclude=Task:focus".to_owned(), 400),
            ("/fhir/Binary".to_owned(), 405),
            (format!("/fhir/Binary?_id={binary}"), 405),
            ("/fhir/Binary/_search".to_owned(), 404),
            (format!("/fhir/Binary/{binary}/_history"), 404),
            (format!("/fhir/Binary/{binary}/_history/2"), 404),
            (format!("/fhir/Binary/{binary}/$meta"), 404),
            ("/fhir/_history".to_owned(), 404),
            ("/fhir/_search?_type=Binary".to_owned(), 404),
            (format!("/fhir/DocumentReference/{document}/$everything"), 404),
            (format!("/fhir/DocumentReference/{binary}"), 404),
            (format!("/fhir/Task/{task}/Binary"), 404),
        ];
        for (path, status) in tries {
            let answer = referral.lane.get(&path).await.expect(status);
            assert!(!answer.body.windows(secret.len()).any(|w| w == secret), "{path}");
        }
        for kind in ["transaction", "batch"] {
            let bundle = json!({"resourceType": "Bundle", "type": kind, "entry": [
                {"request": {"method": "GET", "url": format!("Binary/{binary}?task=Task/{task}")}}
            ]});
            let answer = referral.lane.post("/fhir", &bundle).await;
            assert!(!answer.body.windows(secret.len()).any(|w| w == secret));
            assert!(!carries_data(&answer));
            if kind == "transaction" {
                answer.refused(400, "not-supported");
            } else {
                let status = answer.expect(200).json()["entry"][0]["response"]["status"].as_str().unwrap().to_owned();
                assert!(status.starts_with("400"), "{status}");
            }
        }
        let history = referral.ehr.get(&format!("/fhir/DocumentReference/{document}/_history")).await.expect(200);
        assert!(!carries_data(&history));
        // None of it took the use.
        assert_eq!(referral.fetch(&referral.lane).await.expect(200).body, secret);
    }

    async fn a_foreign_address_is_kept_never_fetched_and_never_released(backend) {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let url = format!("http://{}/letter.pdf", listener.local_addr().unwrap());
        let app = TestApp::start(backend).await;
        let (ehr, lane) = (app.client("ehr").await, app.client("lane").await);
        let mut foreign = document_reference(NOBODY, ADA);
        foreign["content"][0]["attachment"]["url"] = json!(url);
        let created = ehr.post("/fhir/DocumentReference", &foreign).await.expect(201);
        let id = created.id();
        let path = format!("/fhir/DocumentReference/{id}");
        let read = ehr.get(&path).await.expect(200).json();
        assert_eq!(read["content"], foreign["content"]);
        let task = ehr.post("/fhir/Task", &task("accepted", &id, Some(LANE))).await.expect(201).id();
        lane.get(&path).await.expect(200);
        lane.get(&format!("{path}/_history")).await.expect(200);
        lane.get(&format!("/fhir/DocumentReference?location={url}")).await.expect(200);
        ehr.post("/fhir/DocumentReference/$validate", &foreign).await.expect(200);
        ehr.put(&path, &read).await.expect(200);
        let asked = json!({"task": format!("Task/{task}")});
        ehr.post_plain(&format!("/files/{id}/access-grants"), &asked).await.refused(422, "invalid");
        let grants = ehr.get(&format!("/files/{id}/access-grants")).await.expect(200).json();
        assert_eq!(grants["grants"], json!([]));
        let seen = listener.accept().map(|_| ()).unwrap_err();
        assert_eq!(seen.kind(), std::io::ErrorKind::WouldBlock, "the address was called");
    }

    async fn an_address_with_a_storage_signature_is_refused(backend) {
        let app = TestApp::start(backend).await;
        let ehr = app.client("ehr").await;
        for url in [
            "https://a.blob.core.windows.net/c/letter.pdf?sv=2024-01-01&sr=b&sig=c2ln",
            "https://a.blob.core.windows.net/c/letter.pdf?SIG=c2ln",
            "https://a.blob.core.windows.net/c/letter.pdf?se=1&%73%69g=c2ln",
        ] {
            let mut signed = document_reference(NOBODY, ADA);
            signed["content"][0]["attachment"]["url"] = json!(url);
            let refused = ehr.post("/fhir/DocumentReference", &signed).await.refused(422, "invalid");
            assert_eq!(refused.json()["issue"][0]["expression"], json!(["DocumentReference.content[0].attachment.url"]));
            assert!(!String::from_utf8_lossy(&refused.body).contains("c2ln"), "a key is not repeated");
            ehr.post("/fhir", &transaction(&[signed])).await.refused(422, "invalid");
        }
        assert_eq!(count(&ehr, "/fhir/DocumentReference?_summary=count").await, 0);
    }

    async fn the_owner_changes_nothing_of_what_the_task_is_about(backend) {
        let app = TestApp::start(backend).await;
        let referral = Referral::set(&app).await;
        let other = document(&referral.ehr, b"another letter").await.id;
        let reference = |id: &str| json!({"reference": format!("DocumentReference/{id}")});
        let before = referral.current().await;
        let changes: [(&str, Value); 7] = [
            ("focus", reference(&other)),
            ("input", json!([{"type": {"text": "x"}, "valueReference": reference(&other)}])),
            ("for", json!({"reference": "Patient/ben"})),
            ("restriction", json!({"recipient": [{"reference": "Practitioner/otis"}]})),
            ("restriction", json!({"period": {"end": "2099-01-01"}})),
            ("code", json!({"coding": [{"code": "asynchronous-review"}]})),
            ("requester", json!({"reference": LANE})),
        ];
        for (element, value) in changes {
            let changed = referral.change(&referral.lane, |task| task[element] = value.clone()).await;
            changed.refused(403, "policy-denied");
            // Nor together with a move that is the owner's to make.
            let changed = referral
                .change(&referral.lane, |task| {
                    task[element] = value.clone();
                    task["status"] = json!("in-progress");
                })
                .await;
            changed.refused(403, "policy-denied");
            let mut bundled = referral.current().await;
            bundled[element] = value;
            referral.lane.post("/fhir", &transaction(&[bundled])).await.refused(403, "policy-denied");
        }
        let removed = referral.change(&referral.lane, |task| {
            task.as_object_mut().unwrap().remove("focus");
        });
        removed.await.refused(403, "policy-denied");
        assert_eq!(referral.current().await, before);
        // Nor may one of the team with the claim that makes her the owner.
        let open = referral.ehr.post("/fhir/Task", &task("requested", &other, None)).await.expect(201);
        let mut claimed = open.json();
        claimed["owner"] = json!({"reference": LANE});
        claimed["status"] = json!("accepted");
        claimed["focus"] = reference(&referral.document.id);
        referral.lane.put(&format!("/fhir/Task/{}", open.id()), &claimed).await.refused(403, "policy-denied");
    }

    async fn content_beside_the_tasks_document_is_not_reached_through_the_task(backend) {
        let app = TestApp::start(backend).await;
        let referral = Referral::set(&app).await;
        let loose = upload(&referral.ehr, b"named by no document").await;
        let other = document(&referral.ehr, b"in no task").await;
        for binary in [loose, other.binary] {
            referral.lane.get(&format!("/fhir/Binary/{binary}?task=Task/{}", referral.task)).await.expect(404);
            referral.lane.get(&format!("/fhir/Binary/{binary}")).await.expect(404);
        }
    }

    async fn a_version_of_content_passes_the_same_gate(backend) {
        let app = TestApp::start(backend).await;
        let referral = Referral::set(&app).await;
        let path = format!("/fhir/Binary/{}/_history/1?task=Task/{}", referral.document.binary, referral.task);
        app.client("otis").await.get(&path).await.refused(404, "not-found");
        referral.ehr.get(&path).await.refused(403, "policy-denied");
        assert_eq!(referral.lane.get(&path).await.expect(200).body, referral.document.content);
        referral.lane.get(&path).await.refused(403, "exhausted");
        referral.fetch(&referral.lane).await.refused(403, "exhausted");
    }

    async fn content_is_deleted_by_its_uploader_alone_and_not_under_a_live_grant(backend) {
        let app = TestApp::start(backend).await;
        let referral = Referral::set(&app).await;
        let path = format!("/fhir/Binary/{}", referral.document.binary);
        let unknown = referral.lane.delete(&format!("/fhir/Binary/{NOBODY}")).await;
        for name in ["lane", "otis", "clerk", "interface"] {
            let answer = app.client(name).await.delete(&path).await;
            assert_eq!((answer.status, &answer.body), (unknown.status, &unknown.body), "{name}");
        }
        for name in ["operator", "records", "auditor"] {
            app.client(name).await.delete(&path).await.refused(403, "policy-denied");
        }
        referral.ehr.delete(&path).await.refused(409, "invalid");
        referral.fetch(&referral.lane).await.expect(200);
        referral.ehr.delete(&format!("/fhir/DocumentReference/{}", referral.document.id)).await.expect(204);
        referral.ehr.delete(&path).await.expect(204);
        referral.ehr.delete(&path).await.expect(204);
        referral.fetch(&referral.lane).await.refused(403, "document-deleted");
    }

    async fn another_tenant_reaches_nothing(backend) {
        let app = TestApp::start(backend).await;
        let referral = Referral::set(&app).await;
        let (placer, specialist) = (app.client("ehr-b").await, app.client("lane-b").await);
        let (binary, document, id) = (&referral.document.binary, &referral.document.id, &referral.task);
        let grant = referral.grants().await[0]["grantId"].as_str().unwrap().to_owned();
        let paths = [
            format!("/fhir/Task/{id}"),
            format!("/fhir/Task/{id}/_history"),
            format!("/fhir/DocumentReference/{document}"),
            format!("/fhir/Binary/{binary}?task=Task/{id}"),
            format!("/files/{document}/access-grants"),
            format!("/access-grants/{grant}"),
        ];
        for client in [&placer, &specialist] {
            for path in &paths {
                client.get(path).await.refused(401, "token-invalid");
                client.get(&format!("/t/b{path}")).await.refused(404, "not-found");
                referral.lane.get(&format!("/t/b{path}")).await.refused(401, "token-invalid");
                client.get(&format!("/t/nowhere{path}")).await.expect(404);
            }
            assert_eq!(count(client, "/t/b/fhir/Task?_summary=count").await, 0);
            assert_eq!(count(client, "/t/b/fhir/DocumentReference?_summary=count").await, 0);
        }
        let mut stolen = referral.current().await;
        stolen["owner"] = json!({"reference": LANE});
        placer.put(&format!("/t/b/fhir/Task/{id}"), &stolen).await.refused(404, "not-found");
        placer.delete(&format!("/t/b/access-grants/{grant}")).await.refused(404, "not-found");
        placer.post("/t/b/fhir/DocumentReference", &document_reference(binary, ADA)).await.refused(422, "invalid");
        let made = placer.post("/t/b/fhir/Task", &task("accepted", document, Some(LANE))).await.expect(201).id();
        specialist.get(&format!("/t/b/fhir/Binary/{binary}?task=Task/{made}")).await.expect(404);
        let asked = json!({"task": format!("Task/{id}")});
        placer.post_plain(&format!("/t/b/files/{document}/access-grants"), &asked).await.refused(404, "not-found");
        let open = specialist.request(Method::GET, &format!("/t/b/fhir/Binary/{binary}"));
        specialist.send(open.header("x-forwarded-for", "127.0.0.1")).await.expect(404);
        referral.fetch(&referral.lane).await.expect(200);
    }
}
