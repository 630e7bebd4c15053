//! Notifications of other servers: taken in once and durably, applied in the order of the source's versions by the rights
//! of its placer, laid aside where they are refused; and what they tell of patients, consent and teams ends releases.

use std::collections::BTreeSet;
use std::time::Duration;

use handoff_domain::ids::{ActorRef, TenantId};
use handoff_integration_tests::scene::{ADA, Referral, document, document_reference, noise, task, upload};
use handoff_integration_tests::slow::SlowDownload;
use handoff_integration_tests::{Answer, Client, TestApp, eventually, on_both};
use reqwest::Method;
use serde_json::{Value, json};

const FEED: &str = "/notifications/ehr-feed";
const TEAM: &str = "https://handoff.example/fhir/CodeSystem/team";

/// The demo's source.
pub fn feed(app: &TestApp) -> Client {
    app.stranger().with_token("demo".to_owned())
}

/// A resource at the source, in a version.
pub fn versioned(mut resource: Value, id: &str, version: u32) -> Value {
    resource["id"] = json!(id);
    resource["meta"] = json!({
        "versionId": version.to_string(),
        "lastUpdated": format!("2026-03-01T12:{version:02}:00Z"),
    });
    resource
}

/// A notification Bundle of the Backport IG: each event with its number, its focus and the resource where it is sent.
pub fn notification(
    kind: &str,
    counted: Option<u32>,
    events: &[(u32, Option<&str>, Option<&Value>)],
) -> Value {
    let mut status = vec![
        json!({"name": "subscription", "valueReference": {"reference": "https://ehr.example/fhir/Subscription/7"}}),
        json!({"name": "status", "valueCode": "active"}),
        json!({"name": "type", "valueCode": kind}),
    ];
    if let Some(counted) = counted {
        status.push(json!({"name": "events-since-subscription-start", "valueString": counted.to_string()}));
    }
    let mut carried = Vec::new();
    for (number, focus, resource) in events {
        let mut part = vec![json!({"name": "event-number", "valueString": number.to_string()})];
        if let Some(focus) = focus {
            part.push(json!({"name": "focus", "valueReference": {"reference": format!("https://ehr.example/fhir/{focus}")}}));
            if let Some(resource) = resource {
                carried.push(json!({
                    "fullUrl": format!("https://ehr.example/fhir/{focus}"),
                    "resource": resource,
                    "request": {"method": "PUT", "url": focus},
                    "response": {"status": "200"}
                }));
            }
        }
        status.push(json!({"name": "notification-event", "part": part}));
    }
    let mut entries = vec![json!({
        "fullUrl": "urn:uuid:2d5afc69-6ef2-420f-a8d1-8500c99eb96c",
        "resource": {"resourceType": "Parameters", "parameter": status},
        "request": {"method": "GET", "url": "Subscription/7/$status"},
        "response": {"status": "200"}
    })];
    entries.extend(carried);
    json!({"resourceType": "Bundle", "type": "history", "entry": entries})
}

pub fn event(number: u32, resource: &Value) -> Value {
    let focus = format!(
        "{}/{}",
        resource["resourceType"].as_str().unwrap(),
        resource["id"].as_str().unwrap()
    );
    notification(
        "event-notification",
        Some(number),
        &[(number, Some(&focus), Some(resource))],
    )
}

/// Sends a resource as base R4 does.
pub async fn put(feed: &Client, resource: &Value) -> Answer {
    let path = format!(
        "{FEED}/{}/{}",
        resource["resourceType"].as_str().unwrap(),
        resource["id"].as_str().unwrap()
    );
    feed.put(&path, resource).await
}

/// The Tasks with an identifier, as `client` sees them.
async fn found(client: &Client, kind: &str, identifier: &str) -> Vec<Value> {
    let path = format!("/fhir/{kind}?identifier={identifier}&_count=50");
    let body = client.get(&path).await.expect(200).json();
    let entries = body["entry"].as_array().cloned().unwrap_or_default();
    entries
        .into_iter()
        .map(|entry| entry["resource"].clone())
        .collect()
}

/// The one Task with an identifier, in a status.
pub async fn mirrored(client: &Client, identifier: &str, status: &str) -> Value {
    eventually(&format!("{identifier} is {status}"), async || {
        let tasks = found(client, "Task", identifier).await;
        assert!(tasks.len() <= 1, "mirrored twice");
        tasks.first().is_some_and(|task| task["status"] == status)
    })
    .await;
    found(client, "Task", identifier).await.remove(0)
}

/// A Task of Lane's at the source over one of the placer's documents.
pub fn theirs(status: &str, document: &str, identifier: &str, version: u32) -> Value {
    let mut task = task(status, document, Some("Practitioner/lane"));
    task["identifier"] = json!([{"system": "https://ehr.example/tasks", "value": identifier}]);
    versioned(task, identifier, version)
}

async fn quarantine(app: &TestApp) -> Vec<Value> {
    let operator = app.client("operator").await;
    let body = operator.get("/admin/quarantine").await.expect(200).json();
    body["quarantine"].as_array().cloned().unwrap_or_default()
}

pub async fn quarantined(app: &TestApp, about: &str) -> Value {
    eventually(&format!("{about} is quarantined"), async || {
        quarantine(app).await.iter().any(|one| one["about"] == about)
    })
    .await;
    let all = quarantine(app).await;
    all.into_iter().find(|one| one["about"] == about).unwrap()
}

fn consent(status: &str, version: u32) -> Value {
    versioned(
        json!({
            "resourceType": "Consent",
            "status": status,
            "scope": {"coding": [{"system": "http://terminology.hl7.org/CodeSystem/consentscope", "code": "patient-privacy"}]},
            "category": [{"coding": [{"system": "http://loinc.org", "code": "59284-0"}]}],
            "patient": {"reference": ADA},
            "policy": [{"uri": "https://ehr.example/policy"}]
        }),
        "consent-1",
        version,
    )
}

fn merged(version: u32) -> Value {
    versioned(
        json!({
            "resourceType": "Patient",
            "link": [{"other": {"reference": "Patient/ada-too"}, "type": "replaced-by"}]
        }),
        "ada",
        version,
    )
}

fn team(members: &[&str], version: u32) -> Value {
    let participants: Vec<Value> = members
        .iter()
        .map(|member| json!({"member": {"reference": member}}))
        .collect();
    versioned(
        json!({
            "resourceType": "CareTeam",
            "status": "active",
            "category": [{"coding": [{"system": TEAM, "code": "cardiology"}]}],
            "participant": participants
        }),
        "cardiology-team",
        version,
    )
}

fn role(active: bool, version: u32) -> Value {
    versioned(
        json!({
            "resourceType": "PractitionerRole",
            "active": active,
            "practitioner": {"reference": "Practitioner/lane"},
            "code": [{"coding": [{"system": TEAM, "code": "cardiology"}]}]
        }),
        "role-1",
        version,
    )
}

on_both! {
    /// A Task that comes in a Bundle is ours, with the placer's rights; it moves as the source's does, and so do grants.
    async fn a_task_of_a_source_is_mirrored_with_its_grants(backend) {
        let app = TestApp::start(backend).await;
        let (feed, ehr, lane) = (feed(&app), app.client("ehr").await, app.client("lane").await);
        let letter = document(&ehr, b"%PDF-1.4 a letter").await;
        feed.post(FEED, &notification("handshake", Some(0), &[])).await.expect(200);
        feed.post(FEED, &event(1, &theirs("requested", &letter.id, "t-1", 1))).await.expect(200);
        let ours = mirrored(&ehr, "t-1", "requested").await;
        assert_ne!(ours["id"], "t-1", "its id is ours");
        assert_eq!(ours["focus"]["reference"], format!("DocumentReference/{}", letter.id));
        let content = format!("/fhir/Binary/{}", letter.binary);
        lane.get(&content).await.refused(403, "task-not-actionable");

        feed.post(FEED, &event(2, &theirs("accepted", &letter.id, "t-1", 2))).await.expect(200);
        mirrored(&ehr, "t-1", "accepted").await;
        lane.get(&content).await.expect(200);
        // As base R4 sends it.
        put(&feed, &theirs("cancelled", &letter.id, "t-1", 3)).await.expect(200);
        let after = mirrored(&ehr, "t-1", "cancelled").await;
        assert_eq!(after["id"], ours["id"]);
        lane.get(&content).await.refused(403, "task-cancelled");
        feed.post(FEED, &notification("heartbeat", Some(2), &[])).await.expect(200);
        assert_eq!(quarantine(&app).await, [] as [Value; 0]);
    }

    /// Each event counts once, whatever is sent again; an older version never moves a Task back.
    async fn repeated_and_late_events_change_nothing(backend) {
        let app = TestApp::start(backend).await;
        let (feed, ehr) = (feed(&app), app.client("ehr").await);
        let letter = document(&ehr, b"%PDF-1.4 a letter").await;
        let of = |status: &str, version| theirs(status, &letter.id, "t-2", version);
        feed.post(FEED, &event(1, &of("accepted", 1))).await.expect(200);
        mirrored(&ehr, "t-2", "accepted").await;
        // The third comes before the second, which is old by then.
        feed.post(FEED, &event(3, &of("on-hold", 3))).await.expect(200);
        let held = mirrored(&ehr, "t-2", "on-hold").await;
        feed.post(FEED, &event(2, &of("in-progress", 2))).await.expect(200);
        for again in [event(1, &of("accepted", 1)), event(3, &of("on-hold", 3))] {
            feed.post(FEED, &again).await.expect(200);
        }
        put(&feed, &of("accepted", 2)).await.expect(200);
        put(&feed, &of("on-hold", 3)).await.expect(200);
        let after = mirrored(&ehr, "t-2", "on-hold").await;
        assert_eq!(after["meta"]["versionId"], held["meta"]["versionId"]);
        // A newer version counts under whichever number it comes: a source may begin its numbers anew.
        feed.post(FEED, &event(1, &of("cancelled", 9))).await.expect(200);
        mirrored(&ehr, "t-2", "cancelled").await;
        assert_eq!(quarantine(&app).await, [] as [Value; 0]);
    }

    /// What the table forbids is laid aside where operators see it, keeps nothing else waiting, and can be tried again.
    async fn an_illegal_move_is_quarantined_and_applied_once_its_cause_is_gone(backend) {
        let app = TestApp::start(backend).await;
        let (feed, ehr, operator) = (feed(&app), app.client("ehr").await, app.client("operator").await);
        let letter = document(&ehr, b"%PDF-1.4 a letter").await;
        let of = |status: &str, version| theirs(status, &letter.id, "t-3", version);
        feed.post(FEED, &event(1, &of("requested", 1))).await.expect(200);
        mirrored(&ehr, "t-3", "requested").await;
        feed.post(FEED, &event(3, &of("completed", 3))).await.expect(200);
        let refused = quarantined(&app, "Task/t-3").await;
        assert_eq!(refused["reason"], "illegal-transition");
        assert_eq!((&refused["source"], &refused["event"]), (&json!("ehr-feed"), &json!(3)));
        let path = format!("/admin/quarantine/{}", refused["id"].as_str().unwrap());
        let whole = operator.get(&path).await.expect(200).json();
        let outcome = &whole["outcome"];
        assert_eq!(outcome["resourceType"], "OperationOutcome");
        assert_eq!(outcome["issue"][0]["details"]["coding"][0]["code"], "illegal-transition");
        assert!(!whole.to_string().contains("Zebulon"), "{whole}");
        let tried = operator.post_plain(&format!("{path}/retry"), &json!({})).await.expect(200).json();
        assert_eq!(tried["state"], "quarantined");

        // Others are not kept waiting.
        feed.post(FEED, &event(4, &theirs("accepted", &letter.id, "t-4", 1))).await.expect(200);
        mirrored(&ehr, "t-4", "accepted").await;
        // What was between comes late; then the move is legal, and made without anybody asking.
        feed.post(FEED, &event(2, &of("ready", 2))).await.expect(200);
        mirrored(&ehr, "t-3", "completed").await;
        let done = operator.get(&path).await.expect(200).json();
        assert_eq!(done["state"], "applied", "{done}");
        operator.post_plain(&format!("{path}/retry"), &json!({})).await.expect(409);
        operator.delete(&path).await.expect(409);

        // Nobody else sees or touches it, and an operator may give one up.
        put(&feed, &theirs("completed", &letter.id, "t-5", 1)).await.expect(200);
        let refused = quarantined(&app, "Task/t-5").await;
        let path = format!("/admin/quarantine/{}", refused["id"].as_str().unwrap());
        for client in [&ehr, &app.client("auditor").await, &app.client("lane").await] {
            client.get("/admin/quarantine").await.expect(403);
            client.get(&path).await.expect(403);
            client.delete(&path).await.expect(403);
            client.post_plain(&format!("{path}/retry"), &json!({})).await.expect(403);
        }
        operator.delete(&path).await.expect(204);
        operator.delete(&path).await.expect(204);
        assert_eq!(quarantine(&app).await, [] as [Value; 0]);
    }

    /// Merged patients, withdrawn consent and ended memberships end what was granted, in mid-download, and keep from
    /// being issued again what they forbid, at every replica, until the source says otherwise.
    async fn what_a_source_tells_ends_releases_until_it_says_otherwise(backend) {
        let app = TestApp::start(backend).await;
        let (feed, replica) = (feed(&app), app.replica().await);
        let content = noise(20 * 1024 * 1024);
        let cases: [(&str, Value, Value); 4] = [
            ("consent-withdrawn", consent("inactive", 1), consent("active", 2)),
            ("patient-merged", merged(1), versioned(json!({"resourceType": "Patient"}), "ada", 2)),
            ("actor-revoked", role(false, 1), role(true, 2)),
            ("actor-revoked", team(&["Practitioner/otis"], 2), team(&["Practitioner/lane", "Practitioner/otis"], 3)),
        ];
        for (reason, ending, lifting) in cases {
            let what = format!("{}: {reason}", ending["resourceType"]);
            if ending["resourceType"] == "CareTeam" {
                put(&feed, &team(&["Practitioner/lane", "Practitioner/otis"], 1)).await.expect(200);
                // The role that was tried before places her in the team as well.
                put(&feed, &versioned(json!({
                    "resourceType": "PractitionerRole", "practitioner": {"reference": "Practitioner/otis"}
                }), "role-1", 3)).await.expect(200);
            }
            let running = Referral::with_content(&app, &content).await;
            let download = SlowDownload::start(&running.lane, &running.content_path(), 300_000).await;
            let elsewhere = Referral::with_content(&app, &content).await;
            let there = elsewhere.lane.at(&replica.server.base_url);
            let remote = SlowDownload::start(&there, &elsewhere.content_path(), 300_000).await;
            let referral = Referral::set(&app).await;

            put(&feed, &ending).await.expect(200);
            assert!(!download.over().await.1, "{what}: the download came to its end");
            assert!(!remote.over().await.1, "{what}: the download at the replica came to its end");
            referral.fetch(&referral.lane).await.refused(403, reason);
            let there = referral.lane.at(&replica.server.base_url);
            referral.fetch(&there).await.refused(403, reason);
            eventually(&format!("{what}: the grant is revoked"), async || {
                referral.grants().await.iter().all(|grant| grant["reason"] == reason)
            }).await;
            // Neither the next move nor asking issues another.
            referral.move_to(&referral.ehr, "ready").await.expect(200);
            let ask = json!({
                "task": format!("Task/{}", referral.task),
                "actor": {"reference": "Practitioner/lane"}
            });
            let path = format!("/files/{}/access-grants", referral.document.id);
            referral.ehr.post_plain(&path, &ask).await.refused(403, reason);
            assert_eq!(referral.grants().await.len(), 1, "{what}");

            put(&feed, &lifting).await.expect(200);
            eventually(&format!("{what}: it is lifted"), async || {
                referral.ehr.post_plain(&path, &ask).await.status == 201
            }).await;
            referral.fetch(&referral.lane).await.expect(200);
            eventually(&format!("{what}: the replica knows that it is lifted"), async || {
                let known = replica.server.app.standing.of(&TenantId::default_tenant());
                let lane = ActorRef::parse("Practitioner/lane").unwrap();
                let cardiology = BTreeSet::from(["cardiology".to_owned()]);
                known.facts().on_patient(ADA).is_none() && known.facts().on_member(&lane, &cardiology).is_none()
            }).await;
        }
    }

    /// A document of a source is governed like one that is posted: with its content where that came along.
    async fn a_document_of_a_source_is_mirrored_superseded_and_withdrawn(backend) {
        let app = TestApp::start(backend).await;
        let (feed, ehr, lane) = (feed(&app), app.client("ehr").await, app.client("lane").await);
        let letter = |id: &str, version: u32, change: &dyn Fn(&mut Value)| {
            let mut letter = document_reference("none", ADA);
            letter["identifier"] = json!([{"system": "https://ehr.example/letters", "value": id}]);
            letter["content"] = json!([{"attachment": {"contentType": "text/plain", "data": "aGVsbG8="}}]);
            change(&mut letter);
            versioned(letter, id, version)
        };
        // The Task comes first, and is given its document when that comes.
        let mut task = theirs("accepted", "d-1", "t-6", 1);
        task["focus"]["reference"] = json!("https://ehr.example/fhir/DocumentReference/d-1");
        feed.post(FEED, &event(1, &task)).await.expect(200);
        mirrored(&ehr, "t-6", "accepted").await;
        assert_eq!(found(&lane, "DocumentReference", "d-1").await.len(), 0);
        feed.post(FEED, &event(2, &letter("d-1", 1, &|_| ()))).await.expect(200);
        eventually("the Task has its document", async || {
            found(&lane, "DocumentReference", "d-1").await.len() == 1
        }).await;
        let ours = found(&lane, "DocumentReference", "d-1").await.remove(0);
        let address = ours["content"][0]["attachment"]["url"].as_str().unwrap().to_owned();
        assert!(address.starts_with("Binary/"), "{address}");
        let path = format!("/fhir/{address}");
        assert_eq!(lane.get(&path).await.expect(200).body, b"hello");

        // Another takes its place.
        let second = letter("d-2", 1, &|letter| {
            letter["relatesTo"] = json!([{"code": "replaces", "target": {"reference": "DocumentReference/d-1"}}]);
        });
        feed.post(FEED, &event(3, &second)).await.expect(200);
        eventually("the first is superseded", async || {
            found(&ehr, "DocumentReference", "d-1").await[0]["status"] == "superseded"
        }).await;
        lane.get(&path).await.refused(403, "document-superseded");
        // And the second was a mistake.
        put(&feed, &theirs("accepted", "d-2", "t-7", 1)).await.expect(200);
        mirrored(&ehr, "t-7", "accepted").await;
        let second = found(&lane, "DocumentReference", "d-2").await.remove(0);
        let path = format!("/fhir/{}", second["content"][0]["attachment"]["url"].as_str().unwrap());
        lane.get(&path).await.expect(200);
        put(&feed, &letter("d-2", 2, &|letter| letter["status"] = json!("entered-in-error"))).await.expect(200);
        eventually("the second is withdrawn", async || {
            found(&ehr, "DocumentReference", "d-2").await[0]["status"] == "entered-in-error"
        }).await;
        lane.get(&path).await.refused(403, "document-entered-in-error");
        assert_eq!(quarantine(&app).await, [] as [Value; 0]);
    }

    /// Strangers, wrong secrets and tokens are answered alike, whether there is such a source or not.
    async fn only_a_source_that_proves_itself_is_heard(backend) {
        let app = TestApp::start(backend).await;
        let (feed, ehr, stranger) = (feed(&app), app.client("ehr").await, app.stranger());
        let letter = document(&ehr, b"%PDF-1.4 a letter").await;
        let told = event(1, &theirs("accepted", &letter.id, "t-8", 1));
        let wrong = stranger.clone().with_token("demo2".to_owned());
        let elsewhere = feed.at(&format!("{}/t/b", app.server.base_url));
        let mut bodies = Vec::new();
        for (client, path) in [
            (&wrong, FEED),
            (&feed, "/notifications/nobody"),
            (&feed, "/notifications/no%20body"),
            (&ehr, FEED),
            (&elsewhere, FEED),
        ] {
            let answer = client.post(path, &told).await.refused(401, "token-invalid");
            let mut body = answer.json();
            body["issue"][0]["diagnostics"] = json!("*");
            bodies.push(body);
            client.put(&format!("{path}/Task/t-8"), &theirs("accepted", &letter.id, "t-8", 1)).await.expect(401);
        }
        assert!(bodies.iter().all(|body| *body == bodies[0]), "{bodies:?}");
        for path in [FEED, "/notifications/nobody"] {
            stranger.post(path, &told).await.refused(401, "unauthenticated");
        }
        assert_eq!(found(&ehr, "Task", "t-8").await.len(), 0);
        // Its secret opens nothing else.
        feed.get("/fhir/Task").await.expect(401);
        feed.get("/admin/quarantine").await.expect(401);
        // A blocked placer sends nothing by its source either.
        let operator = app.client("operator").await;
        let body = json!({"client": "source/ehr-feed", "reason": "a drill"});
        let block = operator.post_plain("/admin/revocations", &body).await.expect(201).json();
        feed.post(FEED, &told).await.refused(403, "emergency");
        operator.delete(&format!("/admin/revocations/{}", block["id"].as_str().unwrap())).await.expect(204);
        feed.post(FEED, &told).await.expect(200);
        mirrored(&ehr, "t-8", "accepted").await;
    }

    /// A source has its placer's rights and no more: what is somebody else's is named without effect.
    async fn a_source_releases_only_what_is_its_placers(backend) {
        let app = TestApp::start(backend).await;
        let (feed, ehr, lane) = (feed(&app), app.client("ehr").await, app.client("lane").await);
        let records = app.client("records").await;
        let other = document(&records, b"%PDF-1.4 somebody else's").await;
        put(&feed, &theirs("accepted", &other.id, "t-9", 1)).await.expect(200);
        mirrored(&ehr, "t-9", "accepted").await;
        lane.get(&format!("/fhir/Binary/{}", other.binary)).await.expect(404);
        // Nor does it change another's document by calling it its own.
        let mut taken = document_reference(&other.binary, ADA);
        taken["content"][0]["attachment"] = json!({"contentType": "text/plain", "data": "aGVsbG8="});
        taken["description"] = json!("taken over");
        put(&feed, &versioned(taken, &other.id, 1)).await.expect(200);
        let kept = records.get(&format!("/fhir/DocumentReference/{}", other.id)).await.expect(200).json();
        assert_eq!(kept["meta"]["versionId"], "1");
        // Nor does it bring content past the gate, nor keys to storage.
        let mut smuggled = theirs("accepted", &other.id, "t-14", 1);
        smuggled["input"] = json!([{
            "type": {"text": "scan"},
            "valueAttachment": {"contentType": "text/plain", "data": "aGVsbG8="}
        }]);
        put(&feed, &smuggled).await.expect(200);
        assert_eq!(quarantined(&app, "Task/t-14").await["reason"], "invalid");
        let mut keyed = document_reference("none", ADA);
        keyed["content"][0]["attachment"]["url"] = json!("https://a.blob.example/c/b?sv=1&sig=abc");
        put(&feed, &versioned(keyed, "d-8", 1)).await.expect(200);
        assert_eq!(quarantined(&app, "DocumentReference/d-8").await["reason"], "invalid");
        // A Task that the placer had posted itself is known by our id.
        let own = document(&ehr, b"%PDF-1.4 its own").await;
        let posted = ehr.post("/fhir/Task", &task("accepted", &own.id, Some("Practitioner/lane"))).await.expect(201).json();
        let mut moved = posted.clone();
        moved["status"] = json!("cancelled");
        put(&feed, &moved).await.expect(200);
        lane.get(&format!("/fhir/Binary/{}", own.binary)).await.refused(403, "task-cancelled");
    }

    /// Each malformed or unsupported request is refused whole and says where it is wrong.
    async fn what_is_no_notification_is_refused(backend) {
        let app = TestApp::start(backend).await;
        let (feed, ehr) = (feed(&app), app.client("ehr").await);
        let letter = document(&ehr, b"%PDF-1.4 a letter").await;
        let good = event(1, &theirs("accepted", &letter.id, "t-10", 1));
        let changed = |change: &dyn Fn(&mut Value)| {
            let mut bundle = good.clone();
            change(&mut bundle);
            bundle
        };
        for bad in [
            changed(&|b| b["type"] = json!("collection")),
            changed(&|b| { b["entry"].as_array_mut().unwrap().remove(0); }),
            changed(&|b| { b["entry"][0]["resource"]["parameter"].as_array_mut().unwrap().remove(0); }),
            changed(&|b| b["entry"][0]["resource"]["parameter"][2]["valueCode"] = json!("query-event")),
            changed(&|b| b["entry"][0]["resource"]["parameter"][3]["valueString"] = json!("-1")),
            changed(&|b| b["entry"][0]["resource"]["parameter"][4]["part"][0]["valueString"] = json!("first")),
            changed(&|b| { b["entry"][0]["resource"]["parameter"].as_array_mut().unwrap().pop(); }),
            changed(&|b| b["entry"][1]["resource"]["status"] = json!("nonsense")),
            json!({"resourceType": "Task"}),
            json!([]),
        ] {
            let answer = feed.post(FEED, &bad).await.expect(400);
            assert_eq!(answer.json()["resourceType"], "OperationOutcome");
        }
        let send = async |kind: &str, body: String| {
            let request = feed.request(Method::POST, FEED).header("content-type", kind).body(body);
            feed.send(request).await
        };
        send("application/fhir+xml", "<Bundle/>".to_owned()).await.expect(415);
        send("application/fhir+json; fhirVersion=5.0", good.to_string()).await.expect(415);
        send("application/fhir+json; fhirVersion=4.0", good.to_string()).await.expect(200);
        mirrored(&ehr, "t-10", "accepted").await;
        feed.get(FEED).await.expect(405);
        let task = theirs("accepted", &letter.id, "t-10", 2);
        feed.put(&format!("{FEED}/Task/t-11"), &task).await.expect(400);
        feed.put(&format!("{FEED}/Patient/t-10"), &task).await.expect(400);
        feed.put(&format!("{FEED}/Observation/o"), &json!({
            "resourceType": "Observation", "id": "o", "status": "final", "code": {"text": "a"}
        })).await.expect(422);
        // What can't be read without the source is kept and shown, since this one can't be asked.
        feed.post(FEED, &notification("event-notification", None, &[(7, Some("Task/t-12"), None)])).await.expect(200);
        assert_eq!(quarantined(&app, "Task/t-12").await["reason"], "not-supported");
        let request = feed.request(Method::POST, FEED);
        feed.send(request).await.expect(200);
        eventually("that something changed is kept", async || {
            quarantine(&app).await.iter().any(|one| one["about"].is_null())
        }).await;
    }

    /// A stored CareTeam lets an owner hand a Task on within the team.
    async fn a_team_that_a_source_tells_of_lets_its_members_hand_on(backend) {
        let app = TestApp::start(backend).await;
        let feed = feed(&app);
        let referral = Referral::set(&app).await;
        let hand_on = async || {
            referral.change(&referral.lane, |task| {
                task["owner"] = json!({"reference": "Practitioner/maya"});
            }).await
        };
        hand_on().await.expect(403);
        put(&feed, &team(&["Practitioner/lane", "Practitioner/maya"], 1)).await.expect(200);
        hand_on().await.expect(200);
    }
}

/// Content that was uploaded and named by a notification belongs to its document.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_document_may_name_content_that_the_placer_uploaded() {
    let app = TestApp::start(handoff_integration_tests::Backend::Embedded).await;
    let (feed, ehr, lane) = (feed(&app), app.client("ehr").await, app.client("lane").await);
    let binary = upload(&ehr, b"%PDF-1.4 uploaded before").await;
    put(&feed, &versioned(document_reference(&binary, ADA), "d-9", 1))
        .await
        .expect(200);
    put(&feed, &theirs("accepted", "d-9", "t-13", 1))
        .await
        .expect(200);
    mirrored(&ehr, "t-13", "accepted").await;
    tokio::time::timeout(Duration::from_secs(10), async {
        lane.get(&format!("/fhir/Binary/{binary}")).await.expect(200);
    })
    .await
    .unwrap();
}

/// Rules may ask whether the encounter that a Task belongs to is over.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rule_may_end_releases_with_the_encounter() {
    let app = TestApp::with_own_rules(handoff_integration_tests::Backend::Embedded).await;
    let before = app.server.app.rules.now().policy.version().to_owned();
    let rule = "@id(\"not-after-the-encounter\")
        forbid (principal, action == Action::\"binary-fetch\", resource) when { context.encounterOver };";
    std::fs::write(app.folder().join("policies/encounter.cedar"), rule).unwrap();
    eventually("the rule is in force", async || {
        app.server.app.rules.now().policy.version() != before
    })
    .await;
    let feed = feed(&app);
    let told = |status: &str, version| {
        let encounter = json!({"resourceType": "Encounter", "status": status, "class": {"code": "AMB"}});
        versioned(encounter, "visit", version)
    };
    put(&feed, &told("in-progress", 1)).await.expect(200);
    let visit = |task: &mut Value| task["encounter"] = json!({"reference": "Encounter/visit"});
    let (first, second) = (Referral::set(&app).await, Referral::set(&app).await);
    for referral in [&first, &second] {
        referral.change(&referral.ehr, visit).await.expect(200);
    }
    first.fetch(&first.lane).await.expect(200);
    put(&feed, &told("finished", 2)).await.expect(200);
    second.fetch(&second.lane).await.refused(403, "policy-denied");
    put(&feed, &told("in-progress", 3)).await.expect(200);
    second.fetch(&second.lane).await.expect(200);
}
