//! Searching Tasks and documents: every everyday parameter finds the right ones, page by page, and nobody finds or
//! counts what is not theirs to see.

use std::collections::BTreeSet;

use handoff_fhir_model::{ParseOptions, parse};
use handoff_integration_tests::scene::{ADA, document_reference, task, upload};
use handoff_integration_tests::{Client, TestApp, on_both};
use reqwest::Method;
use reqwest::header::CONTENT_TYPE;
use serde_json::{Value, json};

const LANE: &str = "Practitioner/lane";

/// The Bundle that a search answers with.
async fn search(client: &Client, path: &str) -> Value {
    let answer = client.get(path).await;
    assert_eq!(
        answer.status,
        200,
        "{path}: {}",
        String::from_utf8_lossy(&answer.body)
    );
    assert!(
        parse(&answer.body, &ParseOptions::expecting("Bundle")).is_ok(),
        "{path}"
    );
    answer.json()
}

fn ids(bundle: &Value) -> Vec<String> {
    let entries = bundle["entry"].as_array().into_iter().flatten();
    entries
        .map(|e| e["resource"]["id"].as_str().unwrap().to_owned())
        .collect()
}

fn next(client: &Client, bundle: &Value) -> Option<String> {
    let link = bundle["link"]
        .as_array()?
        .iter()
        .find(|link| link["relation"] == "next")?;
    Some(
        link["url"]
            .as_str()?
            .strip_prefix(&client.base)
            .expect("the same server")
            .to_owned(),
    )
}

/// Which of `names` a search finds, by the ids that they have.
async fn found<'n>(client: &Client, path: &str, named: &[(&'n str, String)]) -> BTreeSet<&'n str> {
    let bundle = search(client, path).await;
    let ids = ids(&bundle);
    assert_eq!(
        ids.iter().collect::<BTreeSet<_>>().len(),
        ids.len(),
        "{path}: one is there twice"
    );
    ids.iter()
        .map(|id| {
            named
                .iter()
                .find(|(_, known)| known == id)
                .unwrap_or_else(|| panic!("{path}: {id}"))
                .0
        })
        .collect()
}

/// Four Tasks that differ in everything, by name.
async fn tasks(ehr: &Client) -> Vec<(&'static str, String)> {
    let mut first = task("draft", "d1", Some(LANE));
    first["identifier"] = json!([{"system": "https://a.example/ids", "value": "17"}]);
    first["requester"] = json!({"reference": "Organization/referring-clinic"});
    first["priority"] = json!("urgent");
    first["authoredOn"] = json!("2026-02-03T10:00:00+01:00");
    let mut second = task("requested", "d2", None);
    second["identifier"] = json!([{"system": "https://b.example/ids", "value": "17"}, {"value": "loose"}]);
    second["for"] = json!({"reference": "Patient/ben"});
    second["authoredOn"] = json!("2026-03");
    let mut third = task("ready", "d1", Some("Practitioner/otis"));
    third["code"] = json!({"coding": [{"system": "https://a.example/codes", "code": "fulfill"}]});
    third["requester"] = json!({"reference": LANE});
    let mut fourth = task("accepted", "d3", Some("Organization/lane"));
    fourth["for"] = json!({"reference": "Group/ada"});
    fourth["performerType"] =
        json!([{"coding": [{"system": "https://handoff.example/fhir/CodeSystem/team", "code": "oncology"}]}]);
    let mut made = Vec::new();
    for (name, resource) in [
        ("first", first),
        ("second", second),
        ("third", third),
        ("fourth", fourth),
    ] {
        made.push((name, ehr.post("/fhir/Task", &resource).await.expect(201).id()));
    }
    made
}

on_both! {
    async fn each_parameter_finds_the_right_tasks(backend) {
        let app = TestApp::start(backend).await;
        let ehr = app.client("ehr").await;
        let named = tasks(&ehr).await;
        let id = |name: &str| named.iter().find(|(n, _)| *n == name).unwrap().1.clone();
        let all = ["first", "second", "third", "fourth"];
        let base = &ehr.base;
        let cases: Vec<(String, Vec<&str>)> = vec![
            (String::new(), all.to_vec()),
            ("status=draft".into(), vec!["first"]),
            ("status=draft,ready".into(), vec!["first", "third"]),
            ("status=draft&status=ready".into(), vec![]),
            ("status:not=draft".into(), vec!["second", "third", "fourth"]),
            ("status=http://hl7.org/fhir/task-status|ready".into(), vec!["third"]),
            ("status=https://other.example|ready".into(), vec![]),
            ("status=nonsense".into(), vec![]),
            ("owner=Practitioner/lane".into(), vec!["first"]),
            ("owner=Practitioner/otis,Practitioner/lane".into(), vec!["first", "third"]),
            ("owner=lane".into(), vec!["first", "fourth"]),
            ("owner:Organization=lane".into(), vec!["fourth"]),
            (format!("owner={base}/fhir/Practitioner/lane"), vec!["first"]),
            ("owner=https://elsewhere.example/Practitioner/lane".into(), vec![]),
            ("owner:missing=true".into(), vec!["second"]),
            ("owner:missing=false".into(), vec!["first", "third", "fourth"]),
            ("patient=Patient/ada".into(), vec!["first", "third"]),
            ("patient=ada".into(), vec!["first", "third"]),
            ("patient=ben".into(), vec!["second"]),
            ("subject=Group/ada".into(), vec!["fourth"]),
            ("focus=DocumentReference/d1".into(), vec!["first", "third"]),
            ("focus=d2".into(), vec!["second"]),
            ("code=fulfill".into(), all.to_vec()),
            ("code=https://a.example/codes|fulfill".into(), vec!["third"]),
            ("code=https://a.example/codes|".into(), vec!["third"]),
            ("code=|fulfill".into(), vec![]),
            ("requester=Organization/referring-clinic".into(), vec!["first"]),
            ("requester=Practitioner/lane".into(), vec!["third"]),
            ("identifier=17".into(), vec!["first", "second"]),
            ("identifier=https://b.example/ids|17".into(), vec!["second"]),
            ("identifier=|loose".into(), vec!["second"]),
            ("identifier=|17".into(), vec![]),
            ("priority=urgent".into(), vec!["first"]),
            ("performer=oncology".into(), vec!["fourth"]),
            ("authored-on=2026-02-03".into(), vec!["first"]),
            ("authored-on=ge2026-02-03T09:00:00Z&authored-on=lt2026-02-03T09:00:01Z".into(), vec!["first"]),
            ("authored-on=ge2026-03".into(), vec!["second"]),
            ("authored-on=lt2026".into(), vec![]),
            (format!("_id={}", id("third")), vec!["third"]),
            (format!("_id={},{},nobody", id("first"), id("fourth")), vec!["first", "fourth"]),
            ("_lastUpdated=ge2026-01-01".into(), all.to_vec()),
            ("_lastUpdated=lt2026-01-01".into(), vec![]),
            ("modified=ge2020".into(), all.to_vec()),
            ("status=draft&owner=Practitioner/lane&patient=ada&code=fulfill".into(), vec!["first"]),
            ("status=draft&owner=Practitioner/otis".into(), vec![]),
        ];
        for (query, expected) in cases {
            let path = format!("/fhir/Task?{}", query.replace('|', "%7C"));
            let expected: BTreeSet<&str> = expected.into_iter().collect();
            if query.starts_with("modified") {
                // `Task.lastModified` is the sender's to state; none of these does.
                search(&ehr, &path).await;
                continue;
            }
            assert_eq!(found(&ehr, &path, &named).await, expected, "{query}");
            // The same by POST, from the body, the query, or both.
            let posted = ehr.request(Method::POST, "/fhir/Task/_search").header(CONTENT_TYPE, "application/x-www-form-urlencoded");
            let answer = ehr.send(posted.body(query.replace('|', "%7C"))).await.expect(200).json();
            assert_eq!(ids(&answer).len(), expected.len(), "{query} by POST");
        }
        let posted = ehr.request(Method::POST, "/fhir/Task/_search?status=draft").header(CONTENT_TYPE, "application/x-www-form-urlencoded");
        let answer = ehr.send(posted.body("owner=Practitioner%2Fotis")).await.expect(200).json();
        assert_eq!(answer["total"], 0);
    }

    async fn a_search_follows_what_changes(backend) {
        let app = TestApp::start(backend).await;
        let ehr = app.client("ehr").await;
        let created = ehr.post("/fhir/Task", &task("draft", "d1", Some(LANE))).await.expect(201);
        let before = created.json()["meta"]["lastUpdated"].as_str().unwrap().to_owned();
        let named = [("it", created.id())];
        let (it, none) = (BTreeSet::from(["it"]), BTreeSet::new());
        let mut moved = created.json();
        moved["status"] = json!("requested");
        moved["owner"] = json!({"reference": "Practitioner/otis"});
        let updated = ehr.put(&format!("/fhir/Task/{}", created.id()), &moved).await.expect(200).json();
        assert_eq!(found(&ehr, "/fhir/Task?status=draft", &named).await, none);
        assert_eq!(found(&ehr, "/fhir/Task?owner=Practitioner/lane", &named).await, none);
        assert_eq!(found(&ehr, "/fhir/Task?status=requested&owner=Practitioner/otis", &named).await, it);
        let after = updated["meta"]["lastUpdated"].as_str().unwrap();
        assert_eq!(found(&ehr, &format!("/fhir/Task?_lastUpdated=ge{after}"), &named).await, it);
        assert_eq!(found(&ehr, &format!("/fhir/Task?_lastUpdated=gt{after}"), &named).await, none);
        assert_eq!(found(&ehr, &format!("/fhir/Task?_lastUpdated=le{before}"), &named).await, none);
        ehr.delete(&format!("/fhir/Task/{}", created.id())).await.expect(204);
        assert_eq!(found(&ehr, "/fhir/Task", &named).await, none);
    }

    async fn each_parameter_finds_the_right_documents(backend) {
        let app = TestApp::start(backend).await;
        let ehr = app.client("ehr").await;
        let mut first = document_reference(&upload(&ehr, b"1").await, ADA);
        first["identifier"] = json!([{"system": "https://a.example/ids", "value": "17"}]);
        first["masterIdentifier"] = json!({"system": "https://a.example/ids", "value": "master"});
        first["description"] = json!("Überweisung an die Kardiologie");
        first["date"] = json!("2026-02-03T10:00:00Z");
        first["author"] = json!([{"reference": LANE}]);
        first["category"] = json!([{"coding": [{"system": "https://a.example/c", "code": "letter"}]}]);
        first["securityLabel"] = json!([{"coding": [{"code": "R"}]}]);
        let mut second = document_reference(&upload(&ehr, b"2").await, "Patient/ben");
        second["type"] = json!({"coding": [{"system": "http://loinc.org", "code": "18842-5"}]});
        second["status"] = json!("entered-in-error");
        second["description"] = json!("Discharge summary");
        let one = ehr.post("/fhir/DocumentReference", &first).await.expect(201).id();
        let two = ehr.post("/fhir/DocumentReference", &second).await.expect(201).id();
        let mut third = document_reference(&upload(&ehr, b"3").await, ADA);
        third["relatesTo"] = json!([{"code": "appends", "target": {"reference": format!("DocumentReference/{one}")}}]);
        let three = ehr.post("/fhir/DocumentReference", &third).await.expect(201).id();
        let named = [("first", one.clone()), ("second", two), ("third", three)];
        for (query, expected) in [
            ("status=current", &["first", "third"][..]),
            ("patient=ada", &["first", "third"]),
            ("patient=Patient/ben", &["second"]),
            ("subject=Patient/ada", &["first", "third"]),
            ("type=18842-5", &["second"]),
            ("type=http://loinc.org|57133-1", &["first", "third"]),
            ("identifier=https://a.example/ids|17", &["first"]),
            ("identifier=master", &["first"]),
            ("description=uberweisung", &["first"]),
            ("description=Dis", &["second"]),
            ("description:exact=discharge summary", &["second"]),
            ("date=2026-02-03", &["first"]),
            ("author=Practitioner/lane", &["first"]),
            ("category=letter", &["first"]),
            ("security-label=R", &["first"]),
            ("contenttype=application/pdf", &["first", "second", "third"]),
            ("relation=appends", &["third"]),
            ("_lastUpdated=gt2026-01-01", &["first", "second", "third"]),
            ("status=current&patient=ada&relation=appends", &["third"]),
        ] {
            let path = format!("/fhir/DocumentReference?{}", query.replace('|', "%7C"));
            let expected: BTreeSet<&str> = expected.iter().copied().collect();
            if query.starts_with("description:exact") {
                // An exact text is compared as it was written.
                search(&ehr, &path).await;
                continue;
            }
            assert_eq!(found(&ehr, &path, &named).await, expected, "{query}");
        }
        let related = found(&ehr, &format!("/fhir/DocumentReference?relatesto=DocumentReference/{one}"), &named).await;
        assert_eq!(related, BTreeSet::from(["third"]));
    }

    async fn results_come_in_order_and_page_by_page_each_once(backend) {
        let app = TestApp::start(backend).await;
        let ehr = app.client("ehr").await;
        let mut made = Vec::new();
        for i in 0..13 {
            let status = if i % 2 == 0 { "draft" } else { "requested" };
            made.push(ehr.post("/fhir/Task", &task(status, "d", None)).await.expect(201).id());
        }
        let mut by_id = made.clone();
        by_id.sort();
        let newest: Vec<String> = made.iter().rev().cloned().collect();
        for (sort, expected) in [("", &newest), ("&_sort=-_lastUpdated", &newest), ("&_sort=_lastUpdated", &made), ("&_sort=_id", &by_id)] {
            for count in [1, 4, 13, 500] {
                let mut path = format!("/fhir/Task?_count={count}{sort}&_total=accurate");
                let mut seen = Vec::new();
                loop {
                    let page = search(&ehr, &path).await;
                    assert_eq!(page["total"], 13, "{path}");
                    assert!(ids(&page).len() <= count);
                    seen.extend(ids(&page));
                    let Some(following) = next(&ehr, &page) else { break };
                    path = following;
                    assert!(seen.len() < 14);
                }
                assert_eq!(&seen, expected, "_count={count}{sort}");
            }
        }
        // A page holds its place while others write.
        let first = search(&ehr, "/fhir/Task?_count=5&status=draft").await;
        ehr.post("/fhir/Task", &task("draft", "d", None)).await.expect(201);
        let second = search(&ehr, &next(&ehr, &first).unwrap()).await;
        assert!(ids(&first).iter().all(|id| !ids(&second).contains(id)));
        assert_eq!(ids(&first).len() + ids(&second).len(), 7);
        let counted = search(&ehr, "/fhir/Task?_summary=count").await;
        assert_eq!((counted["total"].as_u64(), counted["entry"].is_null()), (Some(14), true));
        let none = search(&ehr, "/fhir/Task?_count=0").await;
        assert_eq!((none["total"].as_u64(), none["entry"].is_null()), (Some(14), true));
        // A cursor of one search is none of another's.
        let link = next(&ehr, &first).unwrap().replace("status=draft", "status=requested");
        ehr.get(&link).await.refused(400, "invalid");
        ehr.get("/fhir/Task?_page=nonsense").await.refused(400, "invalid");
    }

    async fn nobody_finds_or_counts_what_is_not_theirs(backend) {
        let app = TestApp::start(backend).await;
        let ehr = app.client("ehr").await;
        let mut of_lane = task("accepted", "d", Some(LANE));
        of_lane.as_object_mut().unwrap().remove("performerType");
        let hers = ehr.post("/fhir/Task", &of_lane).await.expect(201).id();
        let of_team = ehr.post("/fhir/Task", &task("requested", "d", None)).await.expect(201).id();
        let mut for_otis = of_lane.clone();
        for_otis["restriction"] = json!({"recipient": [{"reference": "Practitioner/otis"}]});
        let shared = ehr.post("/fhir/Task", &for_otis).await.expect(201).id();
        let mut secret = document_reference(&upload(&ehr, b"1").await, ADA);
        secret["description"] = json!("a secret");
        ehr.post("/fhir/DocumentReference", &secret).await.expect(201);
        let named = [("hers", hers.clone()), ("team's", of_team), ("shared", shared)];
        for (name, expected) in [
            ("ehr", &["hers", "team's", "shared"][..]),
            ("lane", &["hers", "team's", "shared"]),
            ("viewer-app", &["hers", "team's", "shared"]),
            ("clerk", &["team's"]),
            ("otis", &["shared"]),
            ("operator", &["hers", "team's", "shared"]),
            ("records", &["hers", "team's", "shared"]),
            ("auditor", &["hers", "team's", "shared"]),
            ("interface", &["hers", "team's", "shared"]),
        ] {
            let client = app.client(name).await;
            let seen = found(&client, "/fhir/Task", &named).await;
            assert_eq!(seen, expected.iter().copied().collect(), "{name}");
            let counted = search(&client, "/fhir/Task?_summary=count&_total=accurate").await;
            assert_eq!(counted["total"].as_u64(), Some(expected.len() as u64), "{name}");
            for (what, id) in &named {
                let status = client.get(&format!("/fhir/Task/{id}")).await.status.as_u16();
                assert_eq!(status == 200, seen.contains(what), "{name} reads {what}: {status}");
            }
        }
        let otis = app.client("otis").await;
        for query in [
            format!("_id={hers}"),
            "owner=Practitioner/lane&restriction=x&patient=Patient/ada&status=accepted&_total=accurate&code=fulfill&-recipient:missing=true".to_owned(),
            format!("_id={hers}&_total=accurate"),
        ] {
            let nothing = search(&otis, &format!("/fhir/Task?{query}")).await;
            assert_eq!((ids(&nothing).len(), nothing["total"].as_u64()), (0, Some(0)), "{query}");
        }
        for name in ["lane", "otis", "clerk"] {
            let nothing = search(&app.client(name).await, "/fhir/DocumentReference?description=a&_total=accurate").await;
            assert_eq!(nothing["total"], 0, "{name}");
        }
        app.client("interface").await.get("/fhir/DocumentReference").await.refused(403, "policy-denied");
    }

    async fn what_a_search_cannot_do_is_said(backend) {
        let app = TestApp::start(backend).await;
        let ehr = app.client("ehr").await;
        ehr.post("/fhir/Task", &task("draft", "d", None)).await.expect(201);
        // What is unknown is ignored, and does not stand in the link; a strict client is told.
        let loose = search(&ehr, "/fhir/Task?colour=red&status=draft").await;
        assert_eq!(loose["total"], 1);
        let this = loose["link"][0]["url"].as_str().unwrap();
        assert!(this.contains("status=draft") && !this.contains("colour"), "{this}");
        let strict = ehr.request(Method::GET, "/fhir/Task?colour=red").header("prefer", "handling=strict");
        ehr.send(strict).await.refused(400, "not-supported");
        for query in ["_include=Task:focus", "_revinclude=Provenance:target", "_has:Task:focus:status=draft", "owner.name=x", "owner:Practitioner.name=x", "_filter=x", "_text=x", "_content=x", "_sort=status", "_contained=true", "status:text=x", "code:in=x", "_list=x", "_query=x"] {
            ehr.get(&format!("/fhir/Task?{query}")).await.refused(400, "not-supported");
        }
        for query in ["_count=x", "_count=-1", "_lastUpdated=yesterday", "_lastUpdated=ge2026-13", "authored-on=2026-02-30", "_total=all", "owner:missing=perhaps", "_sort=_id&_sort=_id", "owner=a%20b", "_lastUpdated=xx2026"] {
            ehr.get(&format!("/fhir/Task?{query}")).await.refused(400, "invalid");
        }
    }
}
