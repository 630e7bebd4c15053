//! Rules that a hospital changes while the server runs: the next decision follows them, a broken file changes nothing,
//! searches and grants go by them, and the audit says which rules decided.

use std::time::Duration;

use handoff_domain::access::Policy as _;
use handoff_integration_tests::scene::{ADA, Referral, document, document_reference, task, upload};
use handoff_integration_tests::{TestApp, eventually, on_both};
use handoff_policies::RuleSet;
use serde_json::{Value, json};

/// Writes a file of rules, as an editor does: whole, in one step.
fn write_rules(app: &TestApp, name: &str, text: &str) {
    let path = app.folder().join("policies").join(name);
    let beside = path.with_extension("new");
    std::fs::write(&beside, text).expect("a file can be written");
    std::fs::rename(&beside, &path).expect("a file can be replaced");
}

fn remove_rules(app: &TestApp, name: &str) {
    std::fs::remove_file(app.folder().join("policies").join(name)).expect("the file goes");
}

/// The digest of the rules in force.
fn in_force(app: &TestApp) -> String {
    app.server.app.rules.now().policy.version().to_owned()
}

/// Waits until other rules are in force, and says how long that took.
async fn changed(app: &TestApp, before: &str) -> Duration {
    let since = tokio::time::Instant::now();
    eventually("other rules are in force", async || in_force(app) != before).await;
    since.elapsed()
}

/// The details of the newest audit event of a kind.
async fn newest(app: &TestApp, event: &str) -> Value {
    let auditor = app.client("auditor").await;
    let path = format!("/fhir/AuditEvent?subtype={event}&_count=1");
    let found = auditor.get(&path).await.expect(200).json();
    let mut details = json!({ "outcome": found["entry"][0]["resource"]["outcome"] });
    for entity in found["entry"][0]["resource"]["entity"]
        .as_array()
        .into_iter()
        .flatten()
    {
        for detail in entity["detail"].as_array().into_iter().flatten() {
            details[detail["type"].as_str().expect("a type")] = detail["valueString"].clone();
        }
    }
    details
}

const IMAGING_IS_CLOSED: &str = "@id(\"restricted-is-closed\")
forbid (principal, action == Action::\"binary-fetch\", resource)
when { resource.labels.contains(\"R\") };
";

on_both! {
    async fn a_changed_rule_decides_within_a_second_and_the_audit_names_it(backend) {
        let app = TestApp::with_own_rules(backend).await;
        let (ehr, lane) = (app.client("ehr").await, app.client("lane").await);
        let shipped = in_force(&app);
        assert_eq!(shipped, RuleSet::shipped().expect("the shipped rules").version());
        let restricted = async |ehr| {
            let binary = upload(ehr, b"%PDF-1.4 restricted").await;
            let mut reference = document_reference(&binary, ADA);
            reference["securityLabel"] = json!([{"coding": [
                {"system": "http://terminology.hl7.org/CodeSystem/v3-Confidentiality", "code": "R"}
            ]}]);
            let id = ehr.post("/fhir/DocumentReference", &reference).await.expect(201).id();
            let task = task("accepted", &id, Some("Practitioner/lane"));
            let task = ehr.post("/fhir/Task", &task).await.expect(201).id();
            format!("/fhir/Binary/{binary}?task=Task/{task}")
        };
        lane.get(&restricted(&ehr).await).await.expect(200);
        let row = newest(&app, "redemption-authorized").await;
        assert_eq!((&row["policy"], &row["rules"]), (&json!(shipped), &json!("grantee-fetches")));

        let content = restricted(&ehr).await;
        write_rules(&app, "own.cedar", IMAGING_IS_CLOSED);
        let took = changed(&app, &shipped).await;
        assert!(took < Duration::from_secs(1), "{took:?}");
        let ours = in_force(&app);
        lane.get(&content).await.refused(403, "policy-denied");
        let row = newest(&app, "redemption-denied").await;
        assert_eq!((&row["policy"], &row["rules"]), (&json!(ours), &json!("restricted-is-closed")));
        let row = newest(&app, "policy-changed").await;
        assert_eq!((&row["from"], &row["to"]), (&json!(shipped), &json!(ours)));

        // A file that is broken leaves the rules as they are, and is told of once.
        let refused = "handoff_rules_loads_total{outcome=\"refused\"}";
        let before = app.metric(refused).await;
        write_rules(&app, "broken.cedar", "@id(\"open\") permit (principal, action, resource");
        eventually("the broken file is refused", async || app.metric(refused).await > before).await;
        // Three more looks at the files, after which nothing must have changed.
        tokio::time::sleep(Duration::from_millis(800)).await;
        assert_eq!(in_force(&app), ours);
        lane.get(&content).await.refused(403, "policy-denied");
        let row = newest(&app, "policy-changed").await;
        assert_eq!((&row["outcome"], &row["from"]), (&json!("8"), &json!(ours)));
        let told = app.client("auditor").await.get("/fhir/AuditEvent?subtype=policy-changed&outcome=8").await;
        assert_eq!(told.expect(200).json()["total"], 1, "told of once");

        remove_rules(&app, "broken.cedar");
        remove_rules(&app, "own.cedar");
        changed(&app, &ours).await;
        assert_eq!(in_force(&app), shipped);
        // Being denied took no use.
        lane.get(&content).await.expect(200);
    }

    async fn a_search_finds_what_a_read_would_show_and_no_more(backend) {
        let app = TestApp::with_own_rules(backend).await;
        let referral = Referral::set(&app).await;
        let (lane, clerk) = (&referral.lane, app.client("clerk").await);
        let hidden = document(&referral.ehr, b"%PDF-1.4 very restricted").await;
        let mut reference = document_reference(&hidden.binary, ADA);
        reference["securityLabel"] = json!([{"coding": [{"code": "V"}]}]);
        reference["id"] = json!(hidden.id);
        referral.ehr.put(&format!("/fhir/DocumentReference/{}", hidden.id), &reference).await.expect(200);
        let task = task("accepted", &hidden.id, Some("Practitioner/lane"));
        let task = referral.ehr.post("/fhir/Task", &task).await.expect(201).id();
        let total = async |search: &str| {
            let found = lane.get(&format!("{search}&_summary=count")).await.expect(200).json();
            found["total"].as_u64().expect("a total")
        };
        let documents = "/fhir/DocumentReference?patient=Patient/ada";
        assert_eq!(total(documents).await, 2);
        clerk.get(&format!("/fhir/Task/{task}")).await.expect(200);

        let shipped = in_force(&app);
        write_rules(&app, "own.cedar", "@id(\"very-restricted-is-hidden\")
            forbid (principal, action == Action::\"document-read\", resource)
            when { resource.labels.contains(\"V\") };
            @id(\"urgent-ones-are-for-their-owner\")
            forbid (principal, action == Action::\"task-read\", resource)
            when { context.relation.team } unless { context.relation.owner };");
        changed(&app, &shipped).await;
        lane.get(&format!("/fhir/DocumentReference/{}", hidden.id)).await.refused(404, "not-found");
        lane.get(&format!("/fhir/DocumentReference/{}/_history", hidden.id)).await.refused(404, "not-found");
        assert_eq!(total(documents).await, 1);
        let found = lane.get(documents).await.expect(200).json();
        assert_eq!(found["total"], 1);
        assert_eq!(found["entry"][0]["resource"]["id"], json!(referral.document.id));
        // Tasks of the team that she does not own are no longer the clerk's.
        clerk.get(&format!("/fhir/Task/{task}")).await.refused(404, "not-found");
        let none = clerk.get("/fhir/Task?patient=Patient/ada").await.expect(200).json();
        assert_eq!((&none["total"], none["entry"].is_null()), (&json!(0), true));
        assert_eq!(total("/fhir/Task?patient=Patient/ada").await, 2, "their owner sees both");
        // A page holds as many as there are, however many are left out before.
        let page = lane.get("/fhir/Task?_count=1&_sort=_lastUpdated").await.expect(200).json();
        assert_eq!(page["entry"].as_array().map(Vec::len), Some(1));
        assert!(page["link"].to_string().contains("next"));
    }

    async fn what_a_role_may_do_is_the_hospitals_to_say(backend) {
        let app = TestApp::with_own_rules(backend).await;
        let referral = Referral::set(&app).await;
        let clerk = app.client("clerk").await;
        let path = format!("/fhir/Task/{}", referral.task);
        clerk.get(&path).await.expect(200);
        // Without the rule that opens them, Tasks of the team are neither read nor found.
        let shipped = in_force(&app);
        let roles = std::fs::read_to_string(app.folder().join("policies/roles.cedar")).expect("the roles");
        let narrower = roles.replace(
            "context.relation.creator || context.relation.requester || context.relation.owner || context.relation.recipient ||\n  context.relation.team\n",
            "context.relation.creator || context.relation.requester || context.relation.owner || context.relation.recipient\n",
        );
        assert_ne!(narrower, roles);
        write_rules(&app, "roles.cedar", &narrower);
        changed(&app, &shipped).await;
        clerk.get(&path).await.refused(404, "not-found");
        let found = clerk.get("/fhir/Task").await.expect(200).json();
        assert_eq!(found["total"], 0);
        // What was hers stays so.
        referral.lane.get(&path).await.expect(200);
        let found = referral.lane.get("/fhir/Task").await.expect(200).json();
        assert_eq!(found["total"], 1);
    }

    async fn a_rule_is_told_the_whole_of_how_a_caller_stands(backend) {
        let app = TestApp::with_own_rules(backend).await;
        let referral = Referral::set(&app).await;
        let document = format!("/fhir/DocumentReference/{}", referral.document.id);
        let auditor = app.client("auditor").await;
        auditor.get(&document).await.expect(200);
        // A Task that its placer owns too: what it may do as placer it may not where it owns.
        let own = task("accepted", &referral.document.id, Some("Organization/referring-clinic"));
        let own = referral.ehr.post("/fhir/Task", &own).await.expect(201).id();
        let shipped = in_force(&app);
        write_rules(&app, "own.cedar", "@id(\"owners-ask-nobody\")
            forbid (principal, action in [Action::\"grant-issue\", Action::\"grant-revoke\"], resource)
            when { context.relation.owner };
            @id(\"what-tasks-release-is-not-for-auditors\")
            forbid (principal in Role::\"auditor\", action == Action::\"document-read\", resource)
            when { context.relation.throughTask };");
        changed(&app, &shipped).await;
        auditor.get(&document).await.refused(404, "not-found");
        let found = auditor.get("/fhir/DocumentReference?_summary=count").await.expect(200).json();
        assert_eq!(found["total"], 0);
        let ask = async |task: &str| {
            let body = json!({"task": format!("Task/{task}"), "actor": {"reference": "Practitioner/lane"}});
            referral.ehr.post_plain(&format!("/files/{}/access-grants", referral.document.id), &body).await
        };
        ask(&own).await.refused(403, "policy-denied");
        let nothing = json!({"resourceType": "Parameters"});
        let revoke = format!("/fhir/Task/{own}/$revoke-grants");
        referral.ehr.post(&revoke, &nothing).await.refused(403, "policy-denied");
        // Where it is the placer alone it still may.
        ask(&referral.task).await.expect(201);
    }
}
