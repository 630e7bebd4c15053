//! What is logged: enough to follow a request, and never a patient, a token or a secret.

use std::process::Command;

use handoff_integration_tests::scene::{MARKER, Referral};
use handoff_integration_tests::{TestApp, needed, on_both};
use reqwest::Method;
use serde_json::json;

/// The log of this process's servers.
fn log() -> (String, String) {
    let path = format!(
        "{}/http-{}.log",
        needed("HANDOFF_TEST_LOG_DIR"),
        std::process::id()
    );
    let text = std::fs::read_to_string(&path).unwrap();
    (path, text)
}

on_both! {
    async fn a_log_names_no_patient_and_holds_no_token_and_no_secret(backend) {
        let app = TestApp::start(backend).await;
        let referral = Referral::set(&app).await;
        let (ehr, lane) = (&referral.ehr, &referral.lane);

        // Names where a client may put them: in queries, forms, paths, headers, bodies.
        for path in [
            format!("/fhir/Task?patient={MARKER}"),
            format!("/fhir/Task?patient=Patient/{MARKER}"),
            format!("/fhir/Task?patient:identifier=http://hospital|{MARKER}"),
            format!("/fhir/Task?{MARKER}=1"),
            format!("/fhir/Task?_lastUpdated={MARKER}"),
            format!("/fhir/DocumentReference?identifier={MARKER}&_sort={MARKER}"),
            format!("/fhir/Task/{MARKER}"),
            format!("/fhir/{MARKER}/1"),
            format!("/fhir/Binary/{MARKER}?task=Task/{MARKER}"),
            format!("/t/{MARKER}/fhir/Task"),
            format!("/{MARKER}"),
            format!("/handoff/{MARKER}"),
            format!("/redemptions/{MARKER}/content"),
            format!("/fhir/AuditEvent?entity=Patient/{MARKER}"),
        ] {
            ehr.get(&path).await;
            app.stranger().get(&path).await;
        }
        let form = ehr
            .request(Method::POST, "/fhir/Task/_search")
            .header("content-type", "application/x-www-form-urlencoded")
            .body(format!("patient={MARKER}&{MARKER}={MARKER}"));
        ehr.send(form).await;
        let mut wrong = referral.current().await;
        wrong["intent"] = json!(MARKER);
        wrong[MARKER] = json!({"name": MARKER});
        wrong["authoredOn"] = json!(MARKER);
        ehr.post("/fhir/Task", &wrong).await.expect(400);
        ehr.put(&format!("/fhir/Task/{}", referral.task), &wrong).await.expect(400);
        let broken = format!("{{\"resourceType\": \"Task\", \"description\": \"{MARKER}\", ");
        let broken = ehr
            .request(Method::POST, "/fhir/Task")
            .header("content-type", "application/fhir+json")
            .header("if-match", MARKER)
            .header("prefer", MARKER)
            .body(broken);
        ehr.send(broken).await.expect(400);
        let glass = app.client("glass").await;
        for (path, status) in [(referral.content_path(), 200), ("/fhir/Binary/none".to_owned(), 404)] {
            let request = glass.request(Method::GET, &path).header("x-break-glass-reason", MARKER);
            glass.send(request).await.expect(status);
        }
        ehr.post_bytes("/fhir/Binary", &format!("text/plain; name=\"{MARKER}\""), MARKER.into()).await.expect(201);

        // Secrets: links good and bad, tokens good and bad, also where they do not belong.
        let body = json!({
            "task": format!("Task/{}", referral.task),
            "actor": {"reference": "Practitioner/lane"},
            "role": "physician",
            "action": "download"
        });
        let granted = ehr.post_plain(&format!("/files/{}/access-grants", referral.document.id), &body).await;
        let link = granted.expect(201).json()["link"].as_str().unwrap().to_owned();
        let (address, secret) = link.split_once('#').unwrap();
        let handle = address.rsplit('/').next().unwrap();
        let path = format!("/handoff/{handle}");
        lane.get(&format!("{path}?secret={secret}")).await;
        lane.post_plain(&path, &json!({"secret": format!("{secret}x")})).await;
        app.client("otis").await.post_plain(&path, &json!({"secret": secret})).await;
        lane.post_plain(&path, &json!({"secret": secret})).await.expect(303);
        let token = lane.token.clone().unwrap();
        lane.get(&format!("/fhir/Task?access_token={token}")).await.refused(401, "token-invalid");
        let mut forged = lane.clone();
        forged.token = Some(format!("{token}x"));
        forged.get("/fhir/Task").await.refused(401, "token-invalid");
        let basic = app.stranger().request(Method::GET, "/fhir/Task").basic_auth("ehr", Some("a-long-password"));
        lane.send(basic).await.expect(401);

        let (path, log) = log();
        assert!(log.contains("\"break-glass\""), "emergency access is told of");
        assert!(log.contains("\"answered\"") && log.contains("\"route\":\"/fhir/Task/{id}\""), "requests are logged");
        for (what, text) in [("a patient's name", MARKER), ("a link's secret", secret), ("a token", token.as_str())] {
            if let Some(line) = log.lines().find(|line| line.contains(text)) {
                panic!("{what} is logged: {}", line.replace(text, "(found)"));
            }
        }
        let search = concat!(env!("CARGO_MANIFEST_DIR"), "/checks/logs");
        let found = Command::new(search).arg(&path).output().unwrap();
        assert!(found.status.success(), "{}", String::from_utf8_lossy(&found.stdout));
    }
}

#[test]
fn the_search_of_the_logs_finds_what_it_is_for() {
    let search = concat!(env!("CARGO_MANIFEST_DIR"), "/checks/logs");
    let tested = Command::new(search).arg("--self-test").output().unwrap();
    assert!(
        tested.status.success(),
        "{}",
        String::from_utf8_lossy(&tested.stdout)
    );
}
