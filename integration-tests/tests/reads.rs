//! Who reads what is in the audit before it is shown, and the accounting of disclosures says what left.

use handoff::app::reads::Recorded;
use handoff::wiring::Identity;
use handoff_domain::ports::Clock as _;
use handoff_domain::time::Span;
use handoff_integration_tests::backport::{becomes, id_of, subscribe, topic};
use handoff_integration_tests::issuer::OwnIssuer;
use handoff_integration_tests::ledger::Database;
use handoff_integration_tests::scene::{ADA, Referral, about_ben, document_reference, noise, task, upload};
use handoff_integration_tests::slow::SlowDownload;
use handoff_integration_tests::subscriber::Subscriber;
use handoff_integration_tests::{Answer, Backend, Client, TestApp, eventually, on_both};
use reqwest::Method;
use serde_json::{Value, json};

/// The audit events that a search finds, oldest first.
async fn audited(auditor: &Client, search: &str) -> Vec<Value> {
    let path = format!("/fhir/AuditEvent?{search}&_sort=date&_count=500");
    let found = auditor.get(&path).await.expect(200).json();
    let entries = found["entry"].as_array().cloned().unwrap_or_default();
    entries.into_iter().map(|e| e["resource"].clone()).collect()
}

async fn disclosures(auditor: &Client, query: &str) -> Vec<Value> {
    let path = format!("/admin/audit/disclosures?{query}");
    let body = auditor.get(&path).await.expect(200).json();
    body["disclosures"].as_array().cloned().expect("disclosures")
}

async fn table(client: &Client, accept: &str) -> Answer {
    let path = format!("/admin/audit/disclosures?patient={ADA}");
    client
        .send(client.request(Method::GET, &path).header("accept", accept))
        .await
}

on_both! {
    async fn nothing_is_shown_while_it_cannot_be_recorded(backend) {
        let app = TestApp::start(backend).await;
        let referral = Referral::set(&app).await;
        let database = Database::of(&app);
        let at = format!("/fhir/Task/{}", referral.task);
        let paths = [
            at.clone(),
            format!("{at}/_history"),
            format!("{at}/_history/1"),
            "/fhir/Task".to_owned(),
            format!("/fhir/DocumentReference/{}", referral.document.id),
            "/fhir/Task/nowhere".to_owned(),
        ];
        database.sql("ALTER TABLE audit_log RENAME TO audit_log_elsewhere");
        for path in &paths {
            let answer = referral.lane.get(path).await.refused(503, "audit-unavailable");
            assert!(!answer.text().contains(&referral.document.id), "{path}");
        }
        database.sql("ALTER TABLE audit_log_elsewhere RENAME TO audit_log");
        for path in &paths {
            referral.lane.get(path).await.expect_one_of(&[200, 404]);
        }
    }

    async fn many_reads_at_once_are_each_recorded_once(backend) {
        let app = TestApp::start_with(backend, |options| options.audit_reads = Recorded::Each).await;
        let referral = Referral::set(&app).await;
        let (at, other) = (format!("/fhir/Task/{}", referral.task), app.client("otis").await);
        let reads = (0..200).map(|n| {
            let client = if n % 2 == 0 { &referral.lane } else { &other };
            let request = client.request(Method::GET, &at).header("x-correlation-id", format!("read-{n}"));
            client.send(request)
        });
        let answers = futures_util::future::join_all(reads).await;
        let shown = answers.iter().filter(|answer| answer.status == 200).count();
        assert_eq!(shown, 100);
        let auditor = app.client("auditor").await;
        let rows = audited(&auditor, "subtype=task-read").await;
        assert_eq!(rows.len(), 200);
        for n in 0..200 {
            let word = format!("\"read-{n}\"");
            let of_it: Vec<&Value> = rows.iter().filter(|row| row.to_string().contains(&word)).collect();
            let [row] = of_it.as_slice() else { panic!("{n}: {of_it:?}") };
            assert_eq!(row["outcome"], if n % 2 == 0 { "0" } else { "4" }, "{row}");
            // Of whom a Task is that somebody may not see is not said to have been seen.
            assert_eq!(row.to_string().contains(ADA), n % 2 == 0, "{row}");
        }
    }

    async fn a_search_is_recorded_for_each_patient_that_it_shows(backend) {
        let app = TestApp::start(backend).await;
        let referral = Referral::set(&app).await;
        about_ben(&referral.ehr).await;
        Referral::set(&app).await;
        referral.lane.get("/fhir/Task?owner=Practitioner/lane&_sort=-_lastUpdated").await.expect(200);
        let auditor = app.client("auditor").await;
        let rows = audited(&auditor, "subtype=task-searched").await;
        assert_eq!(rows.len(), 2, "{rows:?}");
        for (row, patient) in rows.iter().zip(["Patient/ada", "Patient/ben"]) {
            assert_eq!((&row["type"]["code"], &row["action"]), (&json!("rest"), &json!("E")));
            assert_eq!(row["subtype"][0]["code"], "search-type");
            let entities = row["entity"].as_array().unwrap();
            assert!(entities.iter().any(|e| e["what"]["reference"] == patient && e["role"]["code"] == "1"), "{row}");
            let query = entities.iter().find(|e| e["role"]["code"] == "24").unwrap();
            // `Task?owner=Practitioner%2Flane&_sort=-_lastUpdated` or as the link `self` has it.
            let text = query["query"].as_str().unwrap();
            assert!(text.starts_with("VGFzaz9vd25lcj1QcmFjdGl0aW9uZXI"), "{text}");
        }
        assert_eq!(audited(&auditor, "subtype=task-searched&patient=Patient/ben").await.len(), 1);
        // What is only counted, or found nothing, shows nobody.
        referral.lane.get("/fhir/Task?_summary=count").await.expect(200);
        referral.lane.get("/fhir/Task?status=draft").await.expect(200);
        let more = audited(&auditor, "subtype=task-searched").await;
        assert_eq!(more.len(), 4);
        assert!(more[2..].iter().all(|row| !row.to_string().contains("Patient/")), "{more:?}");
    }

    async fn the_same_read_is_on_record_once_a_minute(backend) {
        let app = TestApp::start(backend).await;
        let referral = Referral::set(&app).await;
        let auditor = app.client("auditor").await;
        let at = format!("/fhir/Task/{}", referral.task);
        let recorded = async || audited(&auditor, "subtype=task-read").await.len();
        for _ in 0..5 {
            referral.lane.get(&at).await.expect(200);
        }
        assert_eq!(recorded().await, 1);
        // Another version, another way to read, another person, a refusal: each is something else.
        referral.move_to(&referral.lane, "in-progress").await.expect(200);
        let before = recorded().await;
        referral.lane.get(&at).await.expect(200);
        referral.lane.get(&format!("{at}/_history/2")).await.expect(200);
        app.client("viewer-app").await.get(&at).await.expect(200);
        let otis = app.client("otis").await;
        otis.get(&at).await.expect(404);
        otis.get(&at).await.expect(404);
        assert_eq!(recorded().await, before + 5);
        app.clock.advance(Span::seconds(61));
        referral.lane.get(&at).await.expect(200);
        assert_eq!(recorded().await, before + 6);
        // A history says which versions it showed, and each of its pages is recorded.
        for _ in 0..2 {
            referral.lane.get(&format!("{at}/_history?_count=1")).await.expect(200);
        }
        let pages = audited(&auditor, "subtype=task-read").await;
        assert_eq!(pages.len(), before + 8);
        assert!(pages[before + 7].to_string().contains(r#"{"type":"versions","valueString":"2"}"#), "{pages:?}");
        // Searches are recorded each time.
        referral.lane.get("/fhir/Task").await.expect(200);
        referral.lane.get("/fhir/Task").await.expect(200);
        assert_eq!(audited(&auditor, "subtype=task-searched").await.len(), 2);
    }

    async fn without_reads_the_audit_holds_those_that_were_refused(backend) {
        let app = TestApp::start_with(backend, |options| options.audit_reads = Recorded::Refused).await;
        let referral = Referral::set(&app).await;
        let at = format!("/fhir/Task/{}", referral.task);
        referral.lane.get(&at).await.expect(200);
        referral.lane.get("/fhir/Task").await.expect(200);
        app.client("otis").await.get(&at).await.expect(404);
        let rows = audited(&app.client("auditor").await, "subtype=task-read,task-searched").await;
        assert_eq!(rows.len(), 1, "{rows:?}");
        assert_eq!(rows[0]["outcome"], "4");
    }

    async fn what_subscribers_are_told_whole_is_a_disclosure(backend) {
        let app = TestApp::start(backend).await;
        let (interface, auditor) = (app.client("interface").await, app.client("auditor").await);
        let whole = Subscriber::start().await;
        let ids = Subscriber::start().await;
        let mut made = Vec::new();
        for (content, subscriber) in [("full-resource", &whole), ("id-only", &ids)] {
            let asked = topic("task-status-changed", content, &subscriber.url);
            let subscription = subscribe(&interface, &asked).await;
            becomes(&interface, &id_of(&subscription), "active").await;
            made.push(id_of(&subscription));
        }
        Referral::set(&app).await;
        let query = format!("patient={ADA}");
        eventually("it is delivered", async || !disclosures(&auditor, &query).await.is_empty()).await;
        eventually("to both", async || audited(&auditor, "subtype=subscription-delivered").await.len() == 2).await;
        let told = disclosures(&auditor, &query).await;
        assert_eq!(told.len(), 1, "{told:?}");
        assert_eq!((&told[0]["recipient"], &told[0]["extent"]), (&json!("Device/interface"), &json!("whole")));
        // Told again, to somebody else.
        let events = format!("/fhir/Subscription/{}/$events?content=full-resource", made[0]);
        app.client("operator").await.get(&events).await.expect(200);
        let few = format!("/fhir/Subscription/{}/$events?content=id-only", made[0]);
        app.client("operator").await.get(&few).await.expect(200);
        let task = audited(&auditor, "subtype=task-created").await[0]["entity"][0]["what"]["reference"].clone();
        let told = disclosures(&auditor, &query).await;
        assert_eq!(told.len(), 2, "{told:?}");
        assert_eq!(told[1]["recipient"], "Practitioner/operator");
        assert_eq!((&told[0]["task"], &told[1]["task"]), (&task, &task));
        assert_eq!(audited(&auditor, "subtype=subscription-delivered").await.len(), 4);
    }

    async fn an_accounting_is_of_one_patient_and_of_the_days_asked_for(backend) {
        let app = TestApp::start(backend).await;
        let referral = Referral::set(&app).await;
        let (task, of_ben) = about_ben(&referral.ehr).await;
        let auditor = app.client("auditor").await;
        referral.fetch(&referral.lane).await.expect(200);
        referral.lane.get(&format!("/fhir/Binary/{}?task=Task/{task}", of_ben.binary)).await.expect(200);
        let ended = async |patient: &str| {
            let query = format!("patient={patient}");
            eventually("its end is recorded", async || {
                disclosures(&auditor, &query).await.iter().all(|one| one["extent"] == "whole")
            })
            .await;
            disclosures(&auditor, &query).await
        };
        let (of_ada, of_him) = (ended("ada").await, ended("Patient/ben").await);
        assert_eq!((of_ada.len(), of_him.len()), (1, 1));
        assert_eq!(of_ada[0]["bytes"], referral.document.content.len());
        assert_eq!(of_ada[0]["class"], "referral-note");
        let url = format!("patient={}/fhir/Patient/ada", app.server.base_url);
        assert_eq!(disclosures(&auditor, &url).await, of_ada);
        for (days, count) in [("from=2020-01-01", 1), ("to=2020-01-01", 0), ("from=2020&to=2021", 0)] {
            assert_eq!(disclosures(&auditor, &format!("patient=ada&{days}")).await.len(), count, "{days}");
        }
        for query in ["", "patient=ada&from=soon", "patient=ada&patient=ben", "patient=Task/1", "date=2020", "patient=ada&from=2999"] {
            let path = format!("/admin/audit/disclosures?{query}");
            auditor.get(&path).await.expect_one_of(&[400, 422]);
        }
        for (accept, kind) in [
            ("text/csv", "text/csv"),
            ("text/csv, application/json;q=0.5", "text/csv"),
            ("application/json, text/csv", "application/json"),
            ("*/*", "application/json"),
        ] {
            let answer = table(&auditor, accept).await.expect(200);
            assert!(answer.header("content-type").unwrap().starts_with(kind), "{accept}");
        }
        table(&auditor, "image/png").await.expect(406);
        table(&auditor, "text/csv;q=0").await.expect(406);
        for name in ["lane", "ehr", "operator", "interface"] {
            table(&app.client(name).await, "text/csv").await.refused(403, "policy-denied");
        }
        let patient = app.scoped("auditor", "patient/AuditEvent.rs", Some("Patient/ada")).await;
        table(&patient, "text/csv").await.refused(403, "insufficient-scope");
        app.stranger().get("/admin/audit/disclosures?patient=ada").await.expect(401);
        // Each look is on record, as something about that patient.
        let looks = audited(&auditor, "subtype=audit-read&patient=Patient/ben").await;
        assert!(!looks.is_empty());
    }

    async fn a_patient_is_found_however_the_sender_wrote_the_reference(backend) {
        let app = TestApp::start(backend).await;
        let (ehr, lane, auditor) = (app.client("ehr").await, app.client("lane").await, app.client("auditor").await);
        let ours = format!("{}/fhir/Patient/bob", app.server.base_url);
        let far = "https://other.example/fhir/Patient/rem";
        for written in ["Patient/bob", "Patient/bob/_history/3", ours.as_str(), far] {
            let binary = upload(&ehr, b"%PDF-1.4 a letter").await;
            let document = document_reference(&binary, written);
            let document = ehr.post("/fhir/DocumentReference", &document).await.expect(201).id();
            let mut placed = task("accepted", &document, Some("Practitioner/lane"));
            placed["for"]["reference"] = json!(written);
            ehr.post("/fhir/Task", &placed).await.expect(201);
            lane.get(&format!("/fhir/Binary/{binary}")).await.expect(200);
        }
        assert_eq!(disclosures(&auditor, "patient=Patient/bob").await.len(), 3);
        assert_eq!(disclosures(&auditor, &format!("patient={far}")).await.len(), 1);
    }

    async fn what_for_is_said_as_the_token_says_it(backend) {
        let issuer = OwnIssuer::start().await;
        let identity = Identity::Issuers(vec![issuer.trusted_for("default")]);
        let app = TestApp::start_with(backend, |options| options.identity = identity).await;
        let now = app.clock.now().0.div_euclid(1_000_000);
        let client = |name: &str, role: &str, purpose: Value| {
            let claims = issuer.claims(now, &[
                ("sub", json!(name)), ("client_id", json!(name)), ("roles", json!([role])), ("purpose_of_use", purpose),
                ("fhirUser", json!(format!("Practitioner/{name}"))),
            ]);
            app.stranger().with_token(issuer.token(&claims))
        };
        let (ehr, auditor) = (client("ehr", "placer", Value::Null), client("auditor", "auditor", Value::Null));
        let lane = (client("lane", "physician", json!("TREAT")), "Practitioner/lane");
        let referral = Referral::between(ehr, lane, b"%PDF-1.4 a letter").await;
        referral.fetch(&referral.lane).await.expect(200);
        assert_eq!(disclosures(&auditor, "patient=ada").await[0]["purpose"], "TREAT");
        let rows = audited(&auditor, "subtype=redemption-authorized").await;
        assert_eq!(rows[0]["purposeOfEvent"][0]["coding"][0]["code"], "TREAT");
        assert_eq!(rows[0]["agent"][0]["purposeOfUse"][0]["coding"][0]["code"], "TREAT");
        let placed = audited(&auditor, "subtype=task-created").await;
        assert!(placed[0].get("purposeOfEvent").is_none(), "{placed:?}");
    }

    async fn of_a_download_that_goes_on_the_extent_is_not_known(backend) {
        let app = TestApp::start(backend).await;
        let referral = Referral::with_content(&app, &noise(20 * 1024 * 1024)).await;
        let auditor = app.client("auditor").await;
        let download = SlowDownload::start(&referral.lane, &referral.content_path(), 100_000).await;
        let under_way = disclosures(&auditor, "patient=ada").await;
        assert_eq!(under_way.len(), 1);
        assert_eq!(under_way[0]["extent"], "unknown");
        assert!(under_way[0].get("bytes").is_none() && under_way[0].get("ended").is_none());
        drop(download);
        eventually("a part of it", async || disclosures(&auditor, "patient=ada").await[0]["extent"] == "part").await;
        let bytes = disclosures(&auditor, "patient=ada").await[0]["bytes"].as_u64().unwrap();
        assert!((100_000..20 * 1024 * 1024).contains(&bytes), "{bytes}");
    }
}

/// A row that the database refuses for itself is the matter of its reader alone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_that_cannot_be_recorded_keeps_no_other_from_being_shown() {
    let app = TestApp::start_with(Backend::Production, |options| {
        options.audit_reads = Recorded::Each;
    })
    .await;
    let (good, bad) = (Referral::set(&app).await, Referral::set(&app).await);
    let refusal = format!(
        "ALTER TABLE audit_log ADD CONSTRAINT refused CHECK (task <> 'Task/{}') NOT VALID",
        bad.task
    );
    Database::of(&app).sql(&refusal);
    let reads = (0..100).map(|n| {
        let of = if n % 10 == 0 { &bad } else { &good };
        let (client, path) = (&good.lane, format!("/fhir/Task/{}", of.task));
        async move { (n % 10 == 0, client.get(&path).await) }
    });
    for (is_bad, answer) in futures_util::future::join_all(reads).await {
        if is_bad {
            answer.refused(503, "audit-unavailable");
        } else {
            answer.expect(200);
        }
    }
    let auditor = app.client("auditor").await;
    assert_eq!(audited(&auditor, "subtype=task-read").await.len(), 90);
}
