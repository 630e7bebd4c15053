//! The blob store held against the records: what differs is found, told once and forgotten when it is mended; nothing is removed
//! that was not asked for, and never what a record needs.

use std::time::Duration;

use handoff::app::drift::{self, Reconciling};
use handoff_domain::ids::{BinaryId, TenantId};
use handoff_domain::time::Span;
use handoff_integration_tests::scene::{Document, document, task};
use handoff_integration_tests::{Backend, TestApp, on_both};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

const DRIFT: &str = "/admin/storage/drift";
/// Names as we give them.
const STRAY: &str = "0123456789abcdef0123456789abcde1";
const LATE: &str = "0123456789abcdef0123456789abcde2";

/// Everything counts, however young.
const AT_ONCE: Reconciling = Reconciling {
    every: Span(0),
    remove_after: None,
    settled_after: Span(0),
};

async fn look(app: &TestApp, how: Reconciling) {
    let tenants = [TenantId::default_tenant()];
    drift::run_once(&app.server.app, &tenants, how).await.unwrap();
}

/// Stores an object that no record names.
async fn stray(app: &TestApp, name: &str) {
    let content = futures_util::stream::iter([Ok(bytes::Bytes::from_static(b"%PDF-1.4 stray"))]);
    let key = format!("default/{name}");
    let stored = app
        .server
        .app
        .blobs
        .put(&key, "application/pdf", Box::pin(content), 1024);
    stored.await.unwrap();
}

/// Removes an object behind the server's back.
async fn lose(app: &TestApp, name: &str) {
    let (tenant, blobs) = (TenantId::default_tenant(), &app.server.app.blobs);
    let listed = blobs.list(&tenant, None).await.unwrap().objects;
    let object = listed.iter().find(|object| object.name == name).unwrap();
    blobs.remove_listed(&tenant, object).await.unwrap();
}

async fn names(app: &TestApp) -> Vec<String> {
    let listed = app
        .server
        .app
        .blobs
        .list(&TenantId::default_tenant(), None)
        .await
        .unwrap();
    listed.objects.into_iter().map(|object| object.name).collect()
}

/// What is told of differences, as kind and name.
async fn told(app: &TestApp) -> Vec<(String, String)> {
    let body = app.client("records").await.get(DRIFT).await.expect(200).json();
    let text = |one: &Value, field: &str| one[field].as_str().unwrap().to_owned();
    let all = body["drift"].as_array().unwrap().iter();
    let mut told: Vec<_> = all.map(|one| (text(one, "kind"), text(one, "name"))).collect();
    told.sort();
    told
}

/// The acts that are on record, as act and kind.
async fn acts(app: &TestApp) -> Vec<String> {
    let auditor = app.client("auditor").await;
    let found = auditor
        .get("/fhir/AuditEvent?subtype=content-drifted&_count=100")
        .await
        .expect(200)
        .json();
    let mut acts: Vec<String> = found["entry"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|entry| {
            let details = entry["resource"]["entity"].as_array().unwrap().last().unwrap()["detail"].clone();
            let said = |name: &str| {
                let detail = details
                    .as_array()
                    .unwrap()
                    .iter()
                    .find(|detail| detail["type"] == name);
                detail.unwrap()["valueString"].as_str().unwrap().to_owned()
            };
            format!("{} {}", said("act"), said("kind"))
        })
        .collect();
    acts.sort();
    acts
}

/// A server with four letters: one is as it should be, one is lost, one was replaced, one was disposed of and came back; and an
/// object that nobody knows.
async fn differing(backend: Backend) -> (TestApp, [Document; 4]) {
    let app = TestApp::start(backend).await;
    let ehr = app.client("ehr").await;
    let mut letters = Vec::new();
    for number in 0..4 {
        letters.push(document(&ehr, format!("%PDF-1.4 letter {number}").as_bytes()).await);
    }
    let letters: [Document; 4] = letters.try_into().ok().unwrap();
    let reason = json!({"resourceType": "Parameters", "parameter": [{"name": "reason", "valueString": "a duplicate"}]});
    let purge = format!("/fhir/DocumentReference/{}/$purge", letters[3].id);
    app.client("records")
        .await
        .post(&purge, &reason)
        .await
        .expect(200);
    assert_eq!(names(&app).await.len(), 3, "the purged letter is gone");
    look(&app, AT_ONCE).await;
    assert_eq!(told(&app).await, []);

    lose(&app, &letters[1].binary).await;
    app.replace_content(&letters[2].binary, b"%PDF-1.4 forged letter")
        .await;
    stray(&app, &letters[3].binary).await;
    stray(&app, STRAY).await;
    (app, letters)
}

fn pairs(letters: &[Document; 4]) -> Vec<(String, String)> {
    let pair = |kind: &str, name: &str| (kind.to_owned(), name.to_owned());
    vec![
        pair("altered", &letters[2].binary),
        pair("lingering", &letters[3].binary),
        pair("missing", &letters[1].binary),
        pair("orphaned", STRAY),
    ]
}

on_both! {
    async fn what_differs_is_told_once_and_forgotten_when_it_is_mended(backend) {
        let (app, letters) = differing(backend).await;
        // What is young is on its way.
        let patient = Reconciling { settled_after: Span::hours(1), ..AT_ONCE };
        look(&app, patient).await;
        assert_eq!(told(&app).await, pairs(&letters)[..1], "only what lies there in place of something else");
        look(&app, AT_ONCE).await;
        look(&app, AT_ONCE).await;
        assert_eq!(told(&app).await, pairs(&letters));
        let found = ["found altered", "found lingering", "found missing", "found orphaned"];
        assert_eq!(acts(&app).await, found);
        for kind in ["orphaned", "missing", "altered", "lingering"] {
            assert!(app.metric(&format!("handoff_content_drift{{kind=\"{kind}\"}}")).await >= 1.0, "{kind}");
        }
        let body = app.client("operator").await.get(DRIFT).await.expect(200).json();
        assert_eq!(body["lookedAt"]["objects"], 4);
        assert_eq!(body["counts"]["orphaned"], json!({"count": 1, "bytes": 14}));

        // Nothing of it was touched.
        assert_eq!(names(&app).await.len(), 4);
        lose(&app, STRAY).await;
        lose(&app, &letters[3].binary).await;
        look(&app, AT_ONCE).await;
        assert_eq!(told(&app).await, [pairs(&letters)[0].clone(), pairs(&letters)[2].clone()]);
        let acts = acts(&app).await;
        assert_eq!(acts[4..], ["resolved lingering", "resolved orphaned"]);
    }

    async fn what_nobody_needs_is_removed_where_that_is_asked_for_and_its_time_is_over(backend) {
        let (app, letters) = differing(backend).await;
        let how = Reconciling { remove_after: Some(Span::hours(24)), ..AT_ONCE };
        look(&app, how).await;
        app.clock.advance(Span::hours(23));
        look(&app, how).await;
        assert_eq!(names(&app).await.len(), 4, "it is too early");
        app.clock.advance(Span::hours(2));
        look(&app, how).await;
        let mut left = names(&app).await;
        left.sort();
        let mut wanted = vec![letters[0].binary.clone(), letters[2].binary.clone()];
        wanted.sort();
        assert_eq!(left, wanted, "what a record needs stays, whatever it is");
        assert_eq!(told(&app).await, [pairs(&letters)[0].clone(), pairs(&letters)[2].clone()]);
        let acts = acts(&app).await;
        assert_eq!(acts[4..], ["removed lingering", "removed orphaned", "removing lingering", "removing orphaned"]);

        let ehr = app.client("ehr").await;
        let asked = task("accepted", &letters[0].id, Some("Practitioner/lane"));
        let task = ehr.post("/fhir/Task", &asked).await.expect(201).id();
        let path = format!("/fhir/Binary/{}?task=Task/{task}", letters[0].binary);
        app.client("lane").await.get(&path).await.expect(200);
    }

    async fn what_turned_out_to_be_needed_is_not_removed(backend) {
        let app = TestApp::start(backend).await;
        let ehr = app.client("ehr").await;
        stray(&app, LATE).await;
        let how = Reconciling { remove_after: Some(Span::hours(24)), ..AT_ONCE };
        look(&app, how).await;
        // The record comes after all, put back by hand.
        let known = document(&ehr, b"%PDF-1.4 letter").await;
        let (tenant, id) = (TenantId::default_tenant(), BinaryId::parse(known.binary).unwrap());
        let late = BinaryId::parse(LATE).unwrap();
        let work = move |tx: &mut dyn handoff_domain::ports::Tx| {
            let mut record = tx.binary(&tenant, &id)?.unwrap();
            record.id = late.clone();
            record.size = 14;
            record.pin.key = format!("default/{LATE}");
            tx.insert_binary(&tenant, &record, &[])?;
            Ok(((), handoff::app::Cuts::none()))
        };
        app.server.app.write(&TenantId::default_tenant(), work).await.unwrap();
        app.clock.advance(Span::hours(48));
        look(&app, how).await;
        assert!(names(&app).await.contains(&LATE.to_owned()));
        let told = told(&app).await;
        assert!(told.iter().all(|(kind, _)| kind != "orphaned"), "{told:?}");
    }

    async fn what_was_never_ours_is_left_alone_and_named_to_nobody_but_who_asks(backend) {
        let app = TestApp::start(backend).await;
        stray(&app, "report-anna-1957.pdf").await;
        let how = Reconciling { remove_after: Some(Span::hours(24)), ..AT_ONCE };
        look(&app, how).await;
        app.clock.advance(Span::hours(48));
        look(&app, how).await;
        assert_eq!(told(&app).await, [("foreign".to_owned(), "report-anna-1957.pdf".to_owned())]);
        assert_eq!(names(&app).await, ["report-anna-1957.pdf"]);
        assert_eq!(acts(&app).await, ["found foreign"]);
        let rows = app.client("auditor").await.get("/fhir/AuditEvent?subtype=content-drifted").await.expect(200).text();
        assert!(!rows.contains("anna"), "{rows}");
    }

    async fn only_who_reads_records_sees_it_and_a_look_can_be_asked_for(backend) {
        let (app, _) = differing(backend).await;
        for name in ["ehr", "lane", "interface", "viewer-app"] {
            let client = app.client(name).await;
            client.get(DRIFT).await.expect(403);
            client.post_plain(DRIFT, &json!({})).await.expect(403);
        }
        app.stranger().get(DRIFT).await.expect(401);
        for name in ["records", "operator", "auditor"] {
            app.client(name).await.get(DRIFT).await.expect(200);
        }
        let operator = app.client("operator").await;
        for odd in ["?after=%00", "?before=a", "?after=a&after=b"] {
            operator.get(&format!("{DRIFT}{odd}")).await.expect(400);
        }
        operator.get(&format!("{DRIFT}?after=zzz%C3%A9")).await.expect(200);
        operator.delete(DRIFT).await.expect(405);

        // All content is old enough by the server's clock; what lies in the blob store goes by that one's own.
        app.clock.advance(Span::hours(2));
        let operator = app.client("operator").await;
        operator.post_plain(DRIFT, &json!({})).await.expect(202);
        let deadline = Instant::now() + Duration::from_mins(2);
        while told(&app).await.len() < 3 {
            assert!(Instant::now() < deadline, "nobody looked: {:?}", told(&app).await);
            sleep(Duration::from_millis(200)).await;
        }
        let kinds: Vec<String> = told(&app).await.into_iter().map(|(kind, _)| kind).collect();
        assert_eq!(kinds, ["altered", "lingering", "missing"]);
    }

    async fn a_blob_store_that_does_not_answer_says_nothing_about_content(backend) {
        let (app, _) = differing(backend).await;
        let mut options = app.options.clone();
        options.blobs = match backend {
            Backend::Embedded => handoff_blobs::BlobConfig::Directory { path: app.folder().join("elsewhere") },
            Backend::Production => {
                let free = handoff_integration_tests::free_address();
                handoff_blobs::BlobConfig::parse(&format!("http://{free}/devstoreaccount1/gone")).unwrap()
            }
        };
        if backend == Backend::Production {
            let handoff_blobs::BlobConfig::Azure(azure) = &mut options.blobs else { panic!("Azure") };
            azure.create_container = false;
        }
        let blobs = handoff_blobs::open(&options.blobs).await.unwrap();
        if backend == Backend::Embedded {
            std::fs::remove_dir_all(app.folder().join("elsewhere")).unwrap();
        }
        let broken = handoff::app::App { blobs, ..app.server.app.clone() };
        let tenants = [TenantId::default_tenant()];
        drift::run_once(&broken, &tenants, AT_ONCE).await.unwrap_err();
        assert_eq!(told(&app).await, []);
    }
}

/// Several pages of a listing and of records, in turn.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_objects_and_many_records_are_held_against_each_other() {
    const OBJECTS: usize = 5_500;
    const RECORDS: usize = 2_700;
    let app = TestApp::start(Backend::Embedded).await;
    let ehr = app.client("ehr").await;
    let known = document(&ehr, b"%PDF-1.4 letter").await;
    let folder = app.folder().join("blobs").join("default");
    // Every name that divides by three has no object; every object that has an odd number has no record.
    let object = |n: &usize| !n.is_multiple_of(3);
    let record = |n: &usize| n.is_multiple_of(2) && *n < 2 * RECORDS;
    for n in (0..OBJECTS).filter(object) {
        std::fs::write(
            folder.join(format!("ffffffffffffffff00000000000{n:05}")),
            b"content",
        )
        .unwrap();
    }
    let (tenant, id) = (TenantId::default_tenant(), BinaryId::parse(known.binary).unwrap());
    let work = move |tx: &mut dyn handoff_domain::ports::Tx| {
        let like = tx.binary(&tenant, &id)?.unwrap();
        for n in (0..OBJECTS).filter(record) {
            let mut record = like.clone();
            record.id = BinaryId::parse(format!("ffffffffffffffff00000000000{n:05}")).unwrap();
            record.size = 7;
            tx.insert_binary(&tenant, &record, &[])?;
        }
        Ok(((), handoff::app::Cuts::none()))
    };
    app.server
        .app
        .write(&TenantId::default_tenant(), work)
        .await
        .unwrap();
    look(&app, AT_ONCE).await;
    let count = |wanted: &dyn Fn(&usize) -> bool| (0..OBJECTS).filter(|n| wanted(n)).count();
    let operator = app.client("operator").await;
    let first = operator.get(DRIFT).await.expect(200).json();
    assert_eq!(
        first["counts"]["orphaned"]["count"],
        count(&|n| object(n) && !record(n))
    );
    assert_eq!(
        first["counts"]["missing"]["count"],
        count(&|n| !object(n) && record(n))
    );
    assert_eq!(first["lookedAt"]["objects"], count(&object) + 1);
    // Its pages tell each of them.
    let (mut told, mut page) = (Vec::new(), first);
    loop {
        told.extend(
            page["drift"]
                .as_array()
                .unwrap()
                .iter()
                .map(|one| one["name"].to_string()),
        );
        let Some(next) = page["next"].as_str() else { break };
        page = operator
            .get(&format!("{DRIFT}?after={next}"))
            .await
            .expect(200)
            .json();
    }
    assert_eq!(told.len(), count(&|n| object(n) != record(n)));
    told.dedup();
    assert_eq!(told.len(), count(&|n| object(n) != record(n)));
}
