//! Asking for a grant, by the plain JSON and as a FHIR operation: each refusal of the contract with its status and
//! reason, the same on both faces, and what a grant demands of who redeems it.

use handoff_integration_tests::scene::{Referral, document, task};
use handoff_integration_tests::{Answer, Client, TestApp, on_both};
use serde_json::{Value, json};

const LANE: &str = "Practitioner/lane";

/// Asks by both faces and answers the plain one's answer, after checking that both say the same.
async fn ask(client: &Client, file: &str, task: &str, fields: &Value) -> Answer {
    let mut body = fields.clone();
    body["task"] = json!(format!("Task/{task}"));
    let plain = client
        .post_plain(&format!("/files/{file}/access-grants"), &body)
        .await;
    let operation = ask_operation(client, file, task, fields).await;
    if plain.status == 201 {
        assert_eq!(
            operation.status,
            200,
            "{}",
            String::from_utf8_lossy(&operation.body)
        );
    } else {
        let text = String::from_utf8_lossy(&plain.body).into_owned();
        assert_eq!(
            (plain.status, plain.reason()),
            (operation.status, operation.reason()),
            "{text}"
        );
        assert_eq!(plain.header("content-type"), Some("application/problem+json"));
        let (problem, correlation) = (plain.json(), plain.header("x-correlation-id"));
        assert_eq!(problem["correlationId"].as_str(), correlation);
        assert_eq!(problem["status"], plain.status.as_u16());
        assert_eq!(operation.json()["resourceType"], "OperationOutcome");
    }
    plain
}

async fn ask_operation(client: &Client, file: &str, task: &str, fields: &Value) -> Answer {
    let mut parameter = vec![
        json!({"name": "document", "valueReference": {"reference": format!("DocumentReference/{file}")}}),
    ];
    for (name, value) in fields.as_object().unwrap() {
        parameter.push(match name.as_str() {
            "uses" | "expiresIn" => json!({"name": name, "valueInteger": value}),
            "actor" => json!({"name": name, "valueReference": value}),
            "constraints" => {
                let parts: Vec<Value> = value
                    .as_object()
                    .unwrap()
                    .iter()
                    .flat_map(|(name, list)| {
                        list.as_array()
                            .unwrap()
                            .iter()
                            .map(move |v| json!({"name": name, "valueString": v}))
                    })
                    .collect();
                json!({"name": name, "part": parts})
            }
            _ => json!({"name": name, "valueString": value}),
        });
    }
    client
        .post(
            &format!("/fhir/Task/{task}/$grant"),
            &json!({"resourceType": "Parameters", "parameter": parameter}),
        )
        .await
}

on_both! {
    async fn both_faces_issue_a_grant_with_the_same_names(backend) {
        let app = TestApp::start(backend).await;
        let referral = Referral::set(&app).await;
        let fields = json!({"actor": {"reference": LANE}, "role": "physician", "action": "download", "uses": 1, "expiresIn": 900});
        let file = &referral.document.id;
        let mut body = fields.clone();
        body["task"] = json!(format!("Task/{}", referral.task));
        let issued = referral.ehr.post_plain(&format!("/files/{file}/access-grants"), &body).await.expect(201);
        assert_eq!(issued.json()["correlationId"].as_str(), issued.header("x-correlation-id"));
        let names: Vec<String> = issued.json().as_object().unwrap().keys().cloned().collect();
        let expected =
            ["grantId", "link", "expiresAt", "allowedUses", "document", "version", "sha256", "task", "correlationId"];
        assert_eq!(names, expected);
        let parameters = ask_operation(&referral.ehr, file, &referral.task, &fields).await.expect(200).json();
        let names: Vec<&str> =
            parameters["parameter"].as_array().unwrap().iter().map(|p| p["name"].as_str().unwrap()).collect();
        assert_eq!(names, expected);
        let issued = issued.json();
        assert_eq!(issued["task"], format!("Task/{}", referral.task));
        assert_eq!(issued["document"], format!("DocumentReference/{file}"));
        assert_eq!((issued["allowedUses"].as_u64(), issued["version"].as_u64()), (Some(1), Some(1)));
        // One grant, read by itself, without its secret.
        let path = format!("/access-grants/{}", issued["grantId"].as_str().unwrap());
        let (_, secret) = issued["link"].as_str().unwrap().split_once('#').unwrap();
        let grant = referral.lane.get(&path).await.expect(200);
        assert!(!String::from_utf8_lossy(&grant.body).contains(secret));
        assert_eq!(grant.json()["actor"]["reference"], LANE);
        app.client("otis").await.get(&path).await.refused(404, "not-found");
    }

    async fn what_is_unknown_or_not_to_be_seen_is_404(backend) {
        let app = TestApp::start(backend).await;
        let referral = Referral::set(&app).await;
        let otis = app.client("otis").await;
        let (file, task) = (referral.document.id.as_str(), referral.task.as_str());
        ask(&referral.ehr, file, "nowhere", &json!({})).await.refused(404, "not-found");
        ask(&referral.ehr, "nowhere", task, &json!({})).await.refused(404, "not-found");
        ask(&otis, file, task, &json!({})).await.refused(404, "not-found");
        ask(&otis, file, "nowhere", &json!({})).await.refused(404, "not-found");
        ask(&app.stranger(), file, task, &json!({})).await.refused(401, "unauthenticated");
        referral.ehr.get("/files/nowhere/access-grants").await.refused(404, "not-found");
        referral.ehr.get("/access-grants/nowhere").await.refused(404, "not-found");
        referral.ehr.delete("/access-grants/nowhere").await.refused(404, "not-found");
        let none = json!({"resourceType": "Parameters"});
        otis.post(&format!("/fhir/Task/{task}/$revoke-grants"), &none).await.refused(404, "not-found");
    }

    async fn only_those_who_may_get_a_grant(backend) {
        let app = TestApp::start(backend).await;
        let referral = Referral::set(&app).await;
        let (file, task) = (referral.document.id.as_str(), referral.task.as_str());
        let (clerk, auditor, operator) =
            (app.client("clerk").await, app.client("auditor").await, app.client("operator").await);
        let for_otis = json!({"actor": {"reference": "Practitioner/otis"}});
        let for_lane = json!({"actor": {"reference": LANE}});
        ask(&referral.ehr, file, task, &for_otis).await.refused(403, "not-grantee");
        ask(&operator, file, task, &for_otis).await.refused(403, "not-grantee");
        ask(&referral.lane, file, task, &for_otis).await.refused(403, "not-grantee");
        ask(&clerk, file, task, &json!({"actor": {"reference": "Practitioner/clerk"}})).await.refused(403, "not-grantee");
        ask(&clerk, file, task, &for_lane).await.refused(403, "policy-denied");
        ask(&auditor, file, task, &for_lane).await.refused(403, "policy-denied");
        let grants = referral.grants().await;
        assert_eq!(grants.len(), 1, "the automatic one alone");
        let path = format!("/access-grants/{}", grants[0]["grantId"].as_str().unwrap());
        clerk.delete(&path).await.refused(403, "policy-denied");
        auditor.delete(&path).await.refused(403, "policy-denied");
        // Who may not read it does not learn that it exists either.
        let records = app.client("records").await;
        records.get(&path).await.refused(404, "not-found");
        records.delete(&path).await.refused(404, "not-found");
        for client in [&referral.ehr, &operator, &referral.lane] {
            ask(client, file, task, &for_lane).await.expect(201);
        }
        referral.fetch(&referral.lane).await.expect(200);
        ask(&referral.lane, file, task, &for_lane).await.refused(403, "exhausted");
        ask(&referral.ehr, file, task, &for_lane).await.expect(201);
    }

    async fn a_task_that_releases_nothing_is_409_with_its_reason(backend) {
        let app = TestApp::start(backend).await;
        let referral = Referral::set(&app).await;
        let file = referral.document.id.as_str();
        let ehr = &referral.ehr;
        let nothing = json!({});
        for (way, reason) in [
            (&["requested"][..], "task-not-actionable"),
            (&["accepted", "on-hold"], "task-on-hold"),
            (&["ready", "completed"], "task-completed"),
            (&["ready", "cancelled"], "task-cancelled"),
            (&["requested", "rejected"], "task-rejected"),
            (&["ready", "failed"], "task-failed"),
            (&["ready", "entered-in-error"], "task-entered-in-error"),
        ] {
            let mut created = ehr.post("/fhir/Task", &task(way[0], file, Some(LANE))).await.expect(201).json();
            let id = created["id"].as_str().unwrap().to_owned();
            for next in &way[1..] {
                created["status"] = json!(next);
                ehr.put(&format!("/fhir/Task/{id}"), &created).await.expect(200);
            }
            for client in [ehr, &referral.lane] {
                ask(client, file, &id, &nothing).await.refused(409, reason);
            }
        }
        let path = format!("/fhir/DocumentReference/{file}");
        let mut withdrawn = ehr.get(&path).await.expect(200).json();
        withdrawn["status"] = json!("entered-in-error");
        ehr.put(&path, &withdrawn).await.expect(200);
        ask(ehr, file, &referral.task, &nothing).await.refused(409, "document-entered-in-error");
    }

    async fn what_exceeds_the_workflow_is_422(backend) {
        let app = TestApp::start(backend).await;
        let referral = Referral::set(&app).await;
        let (file, task) = (referral.document.id.as_str(), referral.task.as_str());
        let ehr = &referral.ehr;
        let elsewhere = document(ehr, b"in no task").await.id;
        ask(ehr, &elsewhere, task, &json!({})).await.refused(422, "invalid");
        for fields in [
            json!({"uses": 0}),
            json!({"uses": 2}),
            json!({"uses": 2_000_000_000}),
            json!({"expiresIn": 0}),
            json!({"expiresIn": -1}),
            json!({"expiresIn": 901}),
            json!({"expiresIn": 2_000_000_000}),
            json!({"action": "print"}),
            json!({"constraints": {"ip": ["somewhere"]}}),
            json!({"constraints": {"ip": ["10.0.0.0/33"]}}),
        ] {
            ask(ehr, file, task, &fields).await.refused(422, "invalid");
        }
        assert_eq!(referral.grants().await.len(), 1);
        ask(ehr, file, task, &json!({"expiresIn": 1})).await.expect(201);
        ask(ehr, file, task, &json!({"expiresIn": 900})).await.expect(201);
    }

    async fn a_malformed_request_for_a_grant_is_400(backend) {
        let app = TestApp::start(backend).await;
        let referral = Referral::set(&app).await;
        let path = format!("/files/{}/access-grants", referral.document.id);
        let id = &referral.task;
        for body in [
            String::new(),
            "{".to_owned(),
            "[]".to_owned(),
            "null".to_owned(),
            "{}".to_owned(),
            format!("{{\"task\":\"Task/{id}\"}} x"),
            format!("{{\"task\":\"Task/{id}\",\"task\":\"Task/{id}\"}}"),
            format!("{{\"task\":\"Task/{id}\",\"user\":1}}"),
            format!("{{\"task\":\"Task/{id}\",\"uses\":\"1\"}}"),
            format!("{{\"task\":\"Task/{id}\",\"uses\":-1}}"),
            format!("{{\"task\":\"Task/{id}\",\"uses\":1.5}}"),
            format!("{{\"task\":\"Task/{id}\",\"expiresIn\":1e300}}"),
            format!("{{\"task\":\"Task/{id}\",\"actor\":\"{LANE}\"}}"),
            format!("{{\"task\":\"Task/{id}\",\"constraints\":{{\"ip\":\"10.0.0.1\"}}}}"),
            "{\"task\":".repeat(300),
        ] {
            let answer = referral.ehr.post_bytes(&path, "application/json", body.clone().into_bytes()).await;
            answer.refused(400, "invalid");
        }
        let unknown = json!({"resourceType": "Parameters", "parameter": [{"name": "user", "valueString": "x"}]});
        let answer = referral.ehr.post(&format!("/fhir/Task/{id}/$grant"), &unknown).await.refused(400, "invalid");
        assert_eq!(answer.json()["issue"][0]["expression"], json!(["Parameters.parameter[0]"]));
        let long = vec![b' '; 65 * 1024];
        referral.ehr.post_bytes(&path, "application/json", long).await.refused(413, "too-large");
        assert_eq!(referral.grants().await.len(), 1);
    }

    async fn a_grant_holds_its_constraints(backend) {
        let app = TestApp::start(backend).await;
        let referral = Referral::set(&app).await;
        let (file, task) = (referral.document.id.as_str(), referral.task.as_str());
        let viewer = app.client("viewer-app").await;
        let issue = async |constraints: Value| {
            ask(&referral.ehr, file, task, &json!({"constraints": constraints})).await.expect(201);
        };
        issue(json!({"ip": ["10.0.0.0/8", "192.168.1.1"]})).await;
        referral.fetch(&referral.lane).await.refused(403, "constraint-ip");
        issue(json!({"client": ["viewer-app"]})).await;
        referral.fetch(&referral.lane).await.refused(403, "constraint-client");
        issue(json!({"contentType": ["image/png"]})).await;
        referral.fetch(&referral.lane).await.refused(403, "constraint-content-type");
        // A forwarded address counts only from a proxy that is trusted.
        issue(json!({"ip": ["10.0.0.0/8"]})).await;
        let spoofed = referral.lane.request(reqwest::Method::GET, &referral.content_path());
        referral.lane.send(spoofed.header("x-forwarded-for", "10.1.2.3")).await.refused(403, "constraint-ip");
        issue(json!({"ip": ["127.0.0.0/8"], "client": ["viewer-app"], "contentType": ["application/pdf"]})).await;
        referral.lane.head(&referral.content_path()).await.expect(403);
        assert_eq!(referral.fetch(&viewer).await.expect(200).body, referral.document.content);
    }

    async fn revoking_by_operation_takes_what_it_names(backend) {
        let app = TestApp::start(backend).await;
        let referral = Referral::set(&app).await;
        let path = format!("/fhir/Task/{}/$revoke-grants", referral.task);
        let parameters = |list: Value| json!({"resourceType": "Parameters", "parameter": list});
        let revoked = |answer: Answer| answer.expect(200).json()["parameter"][0]["valueUnsignedInt"].as_u64().unwrap();
        let of_otis = parameters(json!([{"name": "actor", "valueReference": {"reference": "Practitioner/otis"}}]));
        assert_eq!(revoked(referral.ehr.post(&path, &of_otis).await), 0);
        assert_eq!(referral.grants().await[0]["status"], "bound");
        let id = referral.grants().await[0]["grantId"].clone();
        let named = parameters(json!([{"name": "grantId", "valueString": id}]));
        assert_eq!(revoked(referral.lane.post(&path, &named).await), 1);
        assert_eq!(revoked(referral.lane.post(&path, &named).await), 0);
        referral.fetch(&referral.lane).await.refused(403, "revoked");
    }
}
