//! Emergency access: a reason gives one person one document for a short time, everybody who has to know is told at once,
//! and nothing else that stands in the way of content gives way.

use diesel::prelude::*;
use diesel::sql_types::{BigInt, Nullable, Text};
use handoff_domain::time::Span;
use handoff_integration_tests::scene::{
    ADA, Referral, about_ben, document, document_reference, task, upload,
};
use handoff_integration_tests::{Answer, Backend, Client, TestApp, eventually, on_both, psql_in};
use handoff_policies::SHIPPED_WORKFLOWS;
use reqwest::Method;
use serde_json::{Value, json};

const HEADER: &str = "x-break-glass-reason";
/// The way a person would write, with what neither JSON nor a log may trip over.
const WHY: &str = "unconscious, \"allergies\" unknown – 40 % blood loss";
const TYPES: &str = "https://handoff.example/fhir/CodeSystem/task-type";

async fn get(client: &Client, path: &str, reason: &str) -> Answer {
    let request = client.request(Method::GET, path).header(HEADER, reason);
    client.send(request).await
}

/// Fetches a Binary for a reason.
async fn fetch(client: &Client, binary: &str, reason: &str) -> Answer {
    get(client, &format!("/fhir/Binary/{binary}"), reason).await
}

async fn post(client: &Client, path: &str, kind: &str, body: &Value) -> Answer {
    let request = client
        .request(Method::POST, path)
        .header(HEADER, WHY)
        .header("content-type", kind);
    client.send(request.body(body.to_string())).await
}

/// The Tasks that somebody finds, newest first.
async fn tasks(client: &Client) -> Vec<Value> {
    let path = format!("/fhir/Task?code={TYPES}|break-glass&_sort=-_lastUpdated");
    let found = client.get(&path).await.expect(200).json();
    let entries = found["entry"].as_array().cloned().unwrap_or_default();
    entries.into_iter().map(|e| e["resource"].clone()).collect()
}

/// The audit events that a search finds, oldest first.
async fn audited(app: &TestApp, search: &str) -> Vec<Value> {
    let auditor = app.client("auditor").await;
    let path = format!("/fhir/AuditEvent?{search}&_count=200");
    let found = auditor.get(&path).await.expect(200).json();
    let entries = found["entry"].as_array().cloned().unwrap_or_default();
    entries.into_iter().rev().map(|e| e["resource"].clone()).collect()
}

/// Our own code of an event.
fn event(event: &Value) -> String {
    let codes = event["subtype"].as_array().expect("codes");
    codes.last().expect("ours")["code"]
        .as_str()
        .expect("text")
        .to_owned()
}

fn detail(event: &Value, name: &str) -> Option<String> {
    let entities = event["entity"].as_array().into_iter().flatten();
    let mut details = entities.flat_map(|e| e["detail"].as_array().into_iter().flatten());
    details
        .find(|d| d["type"] == name)
        .and_then(|d| d["valueString"].as_str().map(str::to_owned))
}

fn is_about(event: &Value, reference: &str) -> bool {
    let entities = event["entity"].as_array().into_iter().flatten();
    entities.into_iter().any(|e| {
        e["what"]["reference"]
            .as_str()
            .is_some_and(|r| r.starts_with(reference))
    })
}

/// The refusals that are recorded of emergency access: outcome and reason.
async fn denials(app: &TestApp) -> Vec<String> {
    let found = audited(app, "subtype=break-glass&outcome=4").await;
    found
        .iter()
        .map(|e| e["outcomeDesc"].as_str().expect("a reason").to_owned())
        .collect()
}

#[derive(QueryableByName, Debug, PartialEq, Eq)]
struct Alert {
    #[diesel(sql_type = Text)]
    focus: String,
    #[diesel(sql_type = BigInt)]
    version: i64,
    #[diesel(sql_type = Text)]
    change: String,
    #[diesel(sql_type = Nullable<Text>)]
    grant_id: Option<String>,
}

/// What subscribers are to be told of emergency access.
fn alerts(app: &TestApp) -> Vec<Alert> {
    let url = &app.options.store.url;
    let from = "FROM outbox WHERE topic = 'break-glass' ORDER BY sequence";
    if app.backend == Backend::Production {
        let rows = psql_in(
            url,
            &format!("SELECT focus || '|' || version || '|' || change || '|' || grant_id {from}"),
        );
        let parts = rows
            .lines()
            .map(|row| row.split('|').map(str::to_owned).collect::<Vec<_>>());
        return parts
            .map(|row| Alert {
                focus: row[0].clone(),
                version: row[1].parse().expect("a number"),
                change: row[2].clone(),
                grant_id: Some(row[3].clone()),
            })
            .collect();
    }
    let mut connection = SqliteConnection::establish(url).expect("the file of the database");
    diesel::sql_query(format!("SELECT focus, version, change, grant_id {from}"))
        .load(&mut connection)
        .expect("rows")
}

async fn counted(app: &TestApp, outcome: &str) -> f64 {
    app.metric(&format!("handoff_break_glass_total{{outcome=\"{outcome}\"}}"))
        .await
}

on_both! {
    async fn a_reason_opens_one_document_under_a_task_of_its_own_and_tells_at_once(backend) {
        let app = TestApp::start(backend).await;
        let referral = Referral::set(&app).await;
        let (glass, binary) = (app.client("glass").await, &referral.document.binary);
        let before = counted(&app, "success").await;
        // Without a reason nothing is different from before.
        glass.get(&format!("/fhir/Binary/{binary}")).await.refused(404, "not-found");
        glass.head(&format!("/fhir/Binary/{binary}")).await.expect(404);

        let answer = fetch(&glass, binary, &format!("  {WHY} ")).await.expect(200);
        assert_eq!(answer.body, referral.document.content);
        let correlation = answer.header("x-correlation-id").unwrap().to_owned();

        // The Task, as its owner finds it.
        let found = tasks(&glass).await;
        assert_eq!(found.len(), 1, "{found:?}");
        let made = &found[0];
        let id = made["id"].as_str().unwrap();
        eventually("the download is recorded as whole", async || {
            !audited(&app, &format!("entity=Task/{id}&subtype=redemption-completed")).await.is_empty()
        })
        .await;
        let first = glass.get(&format!("/fhir/Task/{id}/_history/1")).await.expect(200).json();
        let expected = [
            ("status", json!("in-progress")),
            ("intent", json!("order")),
            ("priority", json!("stat")),
            ("focus", json!({"reference": format!("DocumentReference/{}", referral.document.id)})),
            ("for", json!({"reference": ADA})),
            ("requester", json!({"reference": "Practitioner/glass"})),
            ("owner", json!({"reference": "Practitioner/glass"})),
            ("reasonCode", json!({"text": WHY})),
            ("code", json!({"coding": [{"system": TYPES, "code": "break-glass", "display": "Break-glass"}]})),
        ];
        for (element, value) in expected {
            assert_eq!(first[element], value, "{element}");
        }
        let instant = |value: &Value| {
            handoff_domain::Timestamp::parse_instant(value.as_str().expect("an instant")).expect("an instant")
        };
        let window = instant(&first["restriction"]["period"]["end"]).since(instant(&first["authoredOn"]));
        assert_eq!(window, Span::minutes(15));

        // The record: first why, then what followed, all of one request and before any byte.
        let rows = audited(&app, &format!("entity=Task/{id}")).await;
        let events: Vec<String> = rows.iter().map(event).collect();
        assert_eq!(
            events[..5],
            ["break-glass", "task-created", "grant-issued", "grant-bound", "redemption-authorized"]
        );
        let broken = &rows[0];
        assert_eq!(broken["purposeOfEvent"][0]["coding"][0]["code"], "BTG");
        assert_eq!((&broken["outcome"], &broken["outcomeDesc"]), (&json!("0"), &json!("break-glass")));
        assert_eq!(broken["agent"][0]["who"]["reference"], "Practitioner/glass");
        assert_eq!(detail(broken, "note").as_deref(), Some(WHY));
        assert_eq!(detail(broken, "rules").as_deref(), Some("person-breaks-the-glass"));
        assert_eq!(detail(&rows[4], "rules").as_deref(), Some("glass-breaker-fetches"));
        for thing in [format!("DocumentReference/{}", referral.document.id), format!("Binary/{binary}"), ADA.to_owned()] {
            assert!(is_about(broken, &thing), "{thing}: {broken}");
        }
        let request = |row: &Value| row["entity"].as_array().unwrap().last().unwrap()["what"]["identifier"]["value"].clone();
        assert!(rows[..5].iter().all(|row| request(row) == correlation.as_str()));

        // The alert.
        let told = alerts(&app);
        assert_eq!(told.len(), 1);
        assert_eq!((told[0].focus.as_str(), told[0].version, told[0].change.as_str()), (format!("Task/{id}").as_str(), 1, "broken"));
        assert!(told[0].grant_id.is_some());
        assert!(counted(&app, "success").await >= before + 1.0);

        // Who oversees sees it; who placed the document's own Task sees no more than before.
        for name in ["operator", "records", "auditor", "interface"] {
            app.client(name).await.get(&format!("/fhir/Task/{id}")).await.expect(200);
        }
        for name in ["ehr", "lane", "otis", "clerk"] {
            let client = app.client(name).await;
            client.get(&format!("/fhir/Task/{id}")).await.refused(404, "not-found");
            assert!(tasks(&client).await.is_empty(), "{name}");
        }
        // Her use is taken: without a reason there is nothing more, and the reason gives another Task.
        glass.get(&format!("/fhir/Binary/{binary}")).await.refused(403, "exhausted");
        fetch(&glass, binary, WHY).await.expect(200);
        assert_eq!((tasks(&glass).await.len(), alerts(&app).len()), (2, 2));
        // Nobody else's grant was touched.
        referral.fetch(&referral.lane).await.expect(200);
    }

    async fn a_link_for_a_reason_is_used_once_within_its_window(backend) {
        let app = TestApp::start(backend).await;
        let referral = Referral::set(&app).await;
        let glass = app.client("glass").await;
        let ask = json!({"task": format!("Task/{}", referral.task)});
        let files = format!("/files/{}/access-grants", referral.document.id);
        glass.post_plain(&files, &ask).await.refused(404, "not-found");

        let given = post(&glass, &files, "application/json", &ask).await.expect(201).json();
        let made = given["task"].as_str().unwrap().to_owned();
        assert_ne!(made, format!("Task/{}", referral.task));
        let rows = audited(&app, &format!("entity={made}")).await;
        assert_eq!(rows.iter().map(event).collect::<Vec<_>>()[..2], ["break-glass", "task-created"]);
        let told = alerts(&app);
        assert_eq!((told[0].focus.clone(), told[0].grant_id.as_deref()), (made.clone(), given["grantId"].as_str()));

        // Asked again while it is unused: a fresh link under the same Task, and another alert.
        let parameters = json!({"resourceType": "Parameters"});
        let operation = format!("/fhir/Task/{}/$grant", referral.task);
        let again = post(&glass, &operation, "application/fhir+json", &parameters).await.expect(200).json();
        let value = |name: &str| {
            let found = again["parameter"].as_array().unwrap().iter().find(|p| p["name"] == name);
            found.unwrap().clone()
        };
        assert_eq!(value("task")["valueReference"]["reference"], made.as_str());
        assert_eq!((tasks(&glass).await.len(), alerts(&app).len()), (1, 2));

        let redeem = async |link: &str| {
            let (handle, secret) = link.rsplit_once('/').and_then(|(_, rest)| rest.split_once('#')).unwrap();
            glass.post_plain(&format!("/handoff/{handle}"), &json!({"secret": secret})).await
        };
        redeem(given["link"].as_str().unwrap()).await.refused(403, "reissued");
        let link = value("link")["valueUrl"].as_str().unwrap().to_owned();
        let redeemed = redeem(&link).await.expect(303);
        let content = redeemed.header("location").unwrap().replace(&app.server.base_url, "");
        assert_eq!(glass.get(&content).await.expect(200).body, referral.document.content);

        // For nobody but herself, and not beyond what the window allows.
        let other = json!({"task": format!("Task/{}", referral.task), "actor": {"reference": "Practitioner/lane"}});
        post(&glass, &files, "application/json", &other).await.refused(403, "not-grantee");
        let long = json!({"task": format!("Task/{}", referral.task), "expiresIn": 901});
        post(&glass, &files, "application/json", &long).await.refused(422, "invalid");
        let twice = json!({"task": format!("Task/{}", referral.task), "uses": 2});
        post(&glass, &files, "application/json", &twice).await.refused(422, "invalid");
        // The Task has to be one that has the document; what state it is in is no matter in an emergency.
        let nowhere = json!({"task": "Task/none"});
        post(&glass, &files, "application/json", &nowhere).await.refused(404, "not-found");
        assert_eq!(tasks(&glass).await.len(), 1, "refusals leave nothing behind");
        referral.move_to(&referral.ehr, "cancelled").await.expect(200);
        post(&glass, &files, "application/json", &ask).await.expect(201);
    }

    async fn after_its_window_it_is_over(backend) {
        let app = TestApp::with_workflows(backend, SHIPPED_WORKFLOWS).await;
        let referral = Referral::set(&app).await;
        let (glass, lane) = (app.client("glass").await, app.client("lane").await);
        let files = format!("/files/{}/access-grants", referral.document.id);
        let ask = json!({"task": format!("Task/{}", referral.task)});
        let unused = post(&glass, &files, "application/json", &ask).await.expect(201).json();
        let task = unused["task"].as_str().unwrap().to_owned();

        app.clock.advance(Span::minutes(15));
        let content = format!("/fhir/Binary/{}", referral.document.binary);
        glass.get(&format!("{content}?task={task}")).await.refused(403, "expired");
        glass.get(&content).await.refused(403, "expired");
        eventually("the expiry is recorded", async || {
            !audited(&app, &format!("entity={task}&subtype=grant-expired")).await.is_empty()
        })
        .await;
        // Another reason opens another window.
        fetch(&glass, &referral.document.binary, WHY).await.expect(200);
        let made = tasks(&glass).await;
        assert_eq!(made.len(), 2);
        // No use is left to take, nor is any rest given once the window has closed.
        app.clock.advance(Span::minutes(15));
        let rest = glass.request(Method::GET, &content).header("range", "bytes=1-");
        let etag = lane.head(&content).await.header("etag").map(str::to_owned);
        let rest = rest.header("if-range", etag.unwrap_or_else(|| "\"none\"".to_owned()));
        glass.send(rest).await.refused(403, "expired");
    }

    async fn a_reason_has_to_be_one(backend) {
        let app = TestApp::start(backend).await;
        let referral = Referral::set(&app).await;
        let (glass, lane) = (app.client("glass").await, app.client("lane").await);
        let path = format!("/fhir/Binary/{}", referral.document.binary);
        let long = "x".repeat(501);
        for wrong in [b"".as_slice(), b"   ", b"a\tb", "a\u{9b}b".as_bytes(), b"\xfcbel", long.as_bytes()] {
            let value = reqwest::header::HeaderValue::from_bytes(wrong).unwrap();
            for client in [&glass, &lane] {
                let request = client.request(Method::GET, &path).header(HEADER, value.clone());
                let refused = client.send(request).await.refused(400, "invalid").json();
                assert_eq!(refused["issue"][0]["expression"], json!(["http.X-Break-Glass-Reason"]), "{wrong:?}");
            }
            let body = json!({"task": format!("Task/{}", referral.task)}).to_string();
            let files = format!("/files/{}/access-grants", referral.document.id);
            let request = glass.request(Method::POST, &files).header(HEADER, value).body(body);
            let refused = glass.send(request).await.refused(400, "invalid").json();
            assert!(refused["detail"].as_str().unwrap().contains("X-Break-Glass-Reason"), "{refused}");
        }
        let twice = glass.request(Method::GET, &path).header(HEADER, WHY).header(HEADER, WHY);
        glass.send(twice).await.refused(400, "invalid");
        assert!(tasks(&app.client("operator").await).await.is_empty());
        assert!(alerts(&app).is_empty());
        // As long as may be, and a HEAD breaks nothing.
        let head = glass.request(Method::HEAD, &path).header(HEADER, WHY);
        glass.send(head).await.expect(404);
        fetch(&glass, &referral.document.binary, &"ü".repeat(500)).await.expect(200);
        assert_eq!(tasks(&glass).await.len(), 1);
    }

    async fn without_the_role_a_reason_opens_nothing_not_even_what_is_open(backend) {
        let app = TestApp::start(backend).await;
        let referral = Referral::set(&app).await;
        let binary = &referral.document.binary;
        let files = format!("/files/{}/access-grants", referral.document.id);
        let ask = json!({"task": format!("Task/{}", referral.task)});
        let before = counted(&app, "denied").await;
        // Those who may know of it are told no, everybody else that there is nothing.
        let told = [("lane", 403), ("ehr", 403), ("operator", 403), ("records", 403), ("auditor", 403), ("clerk", 403)];
        for (name, status) in told.into_iter().chain([("otis", 404), ("interface", 404)]) {
            let client = app.client(name).await;
            let reason = if status == 403 { "policy-denied" } else { "not-found" };
            fetch(&client, binary, WHY).await.refused(status, reason);
            // Who follows Tasks may know of the Task, and of no content.
            let (status, reason) = if name == "interface" { (403, "policy-denied") } else { (status, reason) };
            post(&client, &files, "application/json", &ask).await.refused(status, reason);
        }
        let recorded = audited(&app, "subtype=break-glass&outcome=4").await;
        assert_eq!(recorded.len(), 16);
        assert!(recorded.iter().all(|e| detail(e, "note").as_deref() == Some(WHY)));
        assert!(counted(&app, "denied").await >= before + 16.0);
        assert!(alerts(&app).is_empty());
        fetch(&app.stranger(), binary, WHY).await.refused(401, "unauthenticated");
        // Her own right is what it was.
        referral.fetch(&referral.lane).await.expect(200);
    }

    async fn nothing_else_gives_way(backend) {
        let app = TestApp::start(backend).await;
        let referral = Referral::set(&app).await;
        let (ehr, glass) = (&referral.ehr, app.client("glass").await);
        fetch(&glass, "none", WHY).await.refused(404, "not-found");
        let orphan = upload(ehr, b"%PDF-1.4 of no document").await;
        fetch(&glass, &orphan, WHY).await.refused(404, "not-found");

        // A document that somebody replaced, took back or deleted, or that is nobody's.
        let store = async |change: &dyn Fn(&mut Value)| {
            let binary = upload(ehr, b"%PDF-1.4 another").await;
            let mut reference = document_reference(&binary, ADA);
            change(&mut reference);
            let id = ehr.post("/fhir/DocumentReference", &reference).await.expect(201).id();
            (id, binary)
        };
        let (old, binary) = store(&|_| ()).await;
        let replaces = json!([{"code": "replaces", "target": {"reference": format!("DocumentReference/{old}")}}]);
        store(&|d| d["relatesTo"] = replaces.clone()).await;
        fetch(&glass, &binary, WHY).await.refused(403, "document-superseded");
        let (_, binary) = store(&|d| d["status"] = json!("entered-in-error")).await;
        fetch(&glass, &binary, WHY).await.refused(403, "document-entered-in-error");
        let (gone, binary) = store(&|_| ()).await;
        ehr.delete(&format!("/fhir/DocumentReference/{gone}")).await.expect(204);
        fetch(&glass, &binary, WHY).await.refused(403, "document-deleted");
        let (_, binary) = store(&|d| {
            d.as_object_mut().unwrap().remove("subject");
        })
        .await;
        fetch(&glass, &binary, WHY).await.refused(403, "document-withheld");
        let (_, binary) = store(&|d| d["subject"] = json!({"reference": "Group/all"})).await;
        fetch(&glass, &binary, WHY).await.refused(403, "document-withheld");

        // What an operator has blocked.
        let operator = app.client("operator").await;
        let block = json!({"patient": ADA, "reason": "a celebrity"});
        let placed = operator.post_plain("/admin/revocations", &block).await.expect(201).json();
        fetch(&glass, &referral.document.binary, WHY).await.refused(403, "emergency");
        let files = format!("/files/{}/access-grants", referral.document.id);
        let ask = json!({"task": format!("Task/{}", referral.task)});
        post(&glass, &files, "application/json", &ask).await.refused(403, "emergency");
        operator.delete(&format!("/admin/revocations/{}", placed["id"].as_str().unwrap())).await.expect(204);

        let expected = [
            "not-found", "not-found", "document-superseded", "document-entered-in-error", "document-deleted",
            "document-withheld", "document-withheld", "emergency", "emergency",
        ];
        assert_eq!(denials(&app).await, expected);
        assert!(tasks(&glass).await.is_empty(), "refusals leave no Task behind");
        assert!(alerts(&app).is_empty());

        // Nobody but the server makes such a Task.
        let mut own = task("in-progress", &referral.document.id, Some("Practitioner/glass"));
        own["code"] = json!({"coding": [{"system": TYPES, "code": "break-glass"}]});
        let refused = ehr.post("/fhir/Task", &own).await.refused(422, "invalid").json();
        assert_eq!(refused["issue"][0]["expression"], json!(["Task.code"]));
        let renamed = referral.change(ehr, |task| task["code"] = own["code"].clone()).await;
        renamed.refused(422, "invalid");
        // A code of the same name by somebody else opens nothing to the role.
        own["code"] = json!({"coding": [{"system": "http://elsewhere.example", "code": "break-glass"}]});
        ehr.post("/fhir/Task", &own).await.expect(201);
        glass.get(&format!("/fhir/Binary/{}", referral.document.binary)).await.refused(403, "policy-denied");
    }

    async fn scopes_cap_it_as_they_cap_everything(backend) {
        let app = TestApp::start(backend).await;
        let referral = Referral::set(&app).await;
        let (_, bens) = about_ben(&referral.ehr).await;
        let adas = &referral.document.binary;
        let narrow = app.scoped("glass", "user/Task.rsu", None).await;
        fetch(&narrow, adas, WHY).await.refused(403, "insufficient-scope");
        let reader = app.scoped("glass", "user/Binary.r", None).await;
        let files = format!("/files/{}/access-grants", referral.document.id);
        let ask = json!({"task": format!("Task/{}", referral.task)});
        post(&reader, &files, "application/json", &ask).await.refused(403, "insufficient-scope");
        fetch(&reader, adas, WHY).await.expect(200);
        let confined = app.scoped("glass", "patient/Binary.r patient/Task.u", Some("ben")).await;
        fetch(&confined, adas, WHY).await.refused(404, "not-found");
        post(&confined, &files, "application/json", &ask).await.refused(404, "not-found");
        fetch(&confined, &bens.binary, WHY).await.expect(200);
        let expected = ["insufficient-scope", "insufficient-scope", "not-found", "not-found"];
        assert_eq!(denials(&app).await, expected);
    }

    async fn a_download_goes_on_without_another_glass_being_broken(backend) {
        let app = TestApp::start(backend).await;
        let referral = Referral::set(&app).await;
        let glass = app.client("glass").await;
        let path = format!("/fhir/Binary/{}", referral.document.binary);
        let whole = fetch(&glass, &referral.document.binary, WHY).await.expect(200);
        let etag = whole.header("etag").unwrap().to_owned();
        let made = tasks(&glass).await.len();
        let rest = async || {
            let request = glass.request(Method::GET, &path).header(HEADER, WHY);
            glass.send(request.header("range", "bytes=5-").header("if-range", &etag)).await
        };
        // All of it was sent, so it is told that and not given another Task.
        eventually("its end is recorded", async || rest().await.reason().as_deref() == Some("replayed")).await;
        assert_eq!(tasks(&glass).await.len(), made);
        // The wrapped form and a version pass the same way.
        let request = glass.request(Method::GET, &format!("{path}/_history/1")).header(HEADER, WHY);
        let wrapped = glass.send(request.header("accept", "application/fhir+json")).await.expect(200).json();
        assert_eq!(wrapped["resourceType"], "Binary");
        assert_eq!(tasks(&glass).await.len(), made + 1);
    }

    async fn a_hospital_forbids_it_by_label(backend) {
        let app = TestApp::with_own_rules(backend).await;
        let (ehr, glass) = (app.client("ehr").await, app.client("glass").await);
        let labelled = async |label: &str| {
            let binary = upload(&ehr, b"%PDF-1.4 labelled").await;
            let mut reference = document_reference(&binary, ADA);
            reference["securityLabel"] = json!([{"coding": [
                {"system": "http://terminology.hl7.org/CodeSystem/v3-ActCode", "code": label}
            ]}]);
            ehr.post("/fhir/DocumentReference", &reference).await.expect(201);
            binary
        };
        let (psychiatry, other) = (labelled("PSY").await, labelled("HIV").await);
        let before = app.server.app.rules.now().policy.version().to_owned();
        let rule = "@id(\"no-emergency-opens-psychiatry\")
            forbid (principal, action == Action::\"break-glass\", resource)
            when { resource.labels.contains(\"PSY\") };";
        let folder = app.folder().join("policies");
        std::fs::write(folder.join("own.new"), rule).unwrap();
        std::fs::rename(folder.join("own.new"), folder.join("own.cedar")).unwrap();
        eventually("other rules are in force", async || app.server.app.rules.now().policy.version() != before).await;
        fetch(&glass, &psychiatry, WHY).await.refused(403, "policy-denied");
        fetch(&glass, &other, WHY).await.expect(200);
        let denied = audited(&app, "subtype=break-glass&outcome=4").await;
        assert_eq!(detail(&denied[0], "rules").as_deref(), Some("no-emergency-opens-psychiatry"));
    }

    async fn glass_is_broken_in_ones_own_tenant_alone(backend) {
        let app = TestApp::start(backend).await;
        let referral = Referral::set(&app).await;
        let (glass, abroad) = (app.client("glass").await, app.client("lane-b").await);
        let ehr = app.client("ehr-b").await.at(&format!("{}/t/b", app.server.base_url));
        let theirs = document(&ehr, b"%PDF-1.4 of tenant b").await;
        let here = format!("/fhir/Binary/{}", referral.document.binary);
        get(&glass, &format!("/t/b/fhir/Binary/{}", theirs.binary), WHY).await.refused(401, "token-invalid");
        get(&glass, &format!("/fhir/Binary/{}", theirs.binary), WHY).await.refused(404, "not-found");
        get(&abroad, &here, WHY).await.refused(401, "token-invalid");
        get(&abroad, &format!("/t/b{here}"), WHY).await.refused(404, "not-found");
        assert!(alerts(&app).is_empty());
    }
}
