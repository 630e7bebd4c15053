//! Versions of a Task between what is mirrored and what came: told late, or never.

use std::collections::BTreeSet;
use std::time::Duration;

use handoff_domain::source::{FeedType, Trust};
use handoff_integration_tests::open_transaction::OpenTransaction;
use handoff_integration_tests::scene::{document, task};
use handoff_integration_tests::{Backend, Client, TestApp, eventually, psql_in};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::sources::{
    FEED, becomes, change_settings, introduce, move_to, notification, quarantine, referral, waiting,
};

/// A workflow in which no Task fails.
const NEVER_FAILS: &str = r#"
[default.transitions]
in-progress = ["on-hold", "ready", "completed", "cancelled"]
"#;

/// A source that is believed what it tells of Tasks, and those who speak for it there and here.
struct Told {
    other: TestApp,
    theirs: Client,
    feed: Client,
}

impl Told {
    async fn to(app: &TestApp) -> Self {
        let other = TestApp::start(Backend::Embedded).await;
        let feed = introduce(app, &other, "lane").await;
        change_settings(app, |settings| {
            settings.trust = Trust::AsSent;
            settings.types = BTreeSet::from([FeedType::Task]);
        })
        .await;
        let theirs = other.client("ehr").await;
        Self { other, theirs, feed }
    }

    /// Tells of a Task as it now stands.
    async fn tell(&self, number: u32, id: &str) {
        let path = format!("Task/{id}");
        let mut told = notification("event-notification", number, &[(number, &path)]);
        let sent = self.theirs.get(&format!("/fhir/{path}")).await.expect(200).json();
        told["entry"].as_array_mut().unwrap().push(json!({
            "fullUrl": format!("{}/fhir/{path}", self.other.server.base_url), "resource": sent,
            "request": {"method": "PUT", "url": path}, "response": {"status": "200"}
        }));
        self.feed.post(FEED, &told).await.expect(200);
    }
}

/// Steps that never came are read at the source where a move can't stand without them; an end does not wait for them; and
/// what is refused is laid aside once, however often it is told.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn steps_that_never_came_are_read_at_the_source() {
    let app = TestApp::with_workflows(Backend::Embedded, NEVER_FAILS).await;
    let source = Told::to(&app).await;
    let ehr = app.client("ehr").await;
    let (id, _) = referral(&source.other, "h-1").await;
    source.tell(1, &id).await;
    becomes(&ehr, "h-1", "accepted").await;
    // It is suspended from work that nobody told of, and goes back to it.
    for status in ["in-progress", "on-hold"] {
        move_to(&source.other, &id, status).await;
    }
    source.tell(2, &id).await;
    becomes(&ehr, "h-1", "on-hold").await;
    move_to(&source.other, &id, "in-progress").await;
    source.tell(3, &id).await;
    becomes(&ehr, "h-1", "in-progress").await;
    assert_eq!(quarantine(&app).await, [] as [Value; 0]);
    let found = ehr.get("/fhir/Task?identifier=h-1").await.expect(200).json();
    let ours = found["entry"][0]["resource"]["id"].as_str().unwrap();
    let history = ehr
        .get(&format!("/fhir/Task/{ours}/_history"))
        .await
        .expect(200)
        .json();
    assert_eq!(history["total"], 4, "each step once: {history}");

    // Told twice, and found by asking: one in the quarantine.
    move_to(&source.other, &id, "failed").await;
    source.tell(4, &id).await;
    source.tell(5, &id).await;
    let empty = source.feed.request(Method::POST, FEED);
    source.feed.send(empty).await.expect(200);
    eventually("all is settled", async || waiting(&app).await == 0).await;
    let aside = quarantine(&app).await;
    assert_eq!(aside.len(), 1, "{aside:#?}");
    assert_eq!(aside[0]["reason"], "illegal-transition");
}

/// A step that somebody is about to apply comes before what it leads to all the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_step_that_somebody_has_in_hand_is_not_skipped() {
    let app = TestApp::start(Backend::Production).await;
    let source = Told::to(&app).await;
    let ehr = app.client("ehr").await;
    let (id, _) = referral(&source.other, "h-2").await;
    source.tell(1, &id).await;
    becomes(&ehr, "h-2", "accepted").await;
    move_to(&source.other, &id, "in-progress").await;
    // Whoever takes in the second version does not come to apply it: somebody waits for its notice, and locks it.
    let url = app.options.store.url.clone();
    let lock = format!(
        "DO $$ BEGIN LOOP \
         PERFORM 1 FROM notices WHERE about = 'Task/{id}' AND source_version = '2' FOR UPDATE; \
         EXIT WHEN FOUND; END LOOP; END $$"
    );
    let locking = tokio::spawn(async move { OpenTransaction::begin(&url, &lock).await });
    eventually("somebody waits for the notice", async || {
        let waits =
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'DO %'";
        psql_in(&app.options.store.url, waits) == "1"
    })
    .await;
    let meanwhile = async {
        let held = locking.await.unwrap();
        move_to(&source.other, &id, "on-hold").await;
        source.tell(3, &id).await;
        // By then whoever is patient has come to the third.
        sleep(Duration::from_secs(3)).await;
        drop(held);
    };
    tokio::join!(source.tell(2, &id), meanwhile);
    becomes(&ehr, "h-2", "on-hold").await;
    move_to(&source.other, &id, "in-progress").await;
    source.tell(4, &id).await;
    becomes(&ehr, "h-2", "in-progress").await;
    assert_eq!(quarantine(&app).await, [] as [Value; 0]);
}

/// Who held the Task in between at the source, and doesn't any more when that is told, never could fetch anything here.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn steps_on_the_way_to_an_end_release_nothing() {
    let app = TestApp::start(Backend::Embedded).await;
    let source = Told::to(&app).await;
    let (ehr, theirs) = (app.client("ehr").await, &source.theirs);
    let letter = document(&ehr, b"%PDF-1.4 ours, which both speak of").await;
    for (number, first_is_told) in [(1, true), (3, false)] {
        let identifier = format!("h-{number}");
        let mut sent = task("accepted", &letter.id, Some("Practitioner/lane"));
        sent["identifier"] = json!([{"value": identifier}]);
        let id = theirs.post("/fhir/Task", &sent).await.expect(201).id();
        if first_is_told {
            source.tell(number, &id).await;
            becomes(&ehr, &identifier, "accepted").await;
        }
        let path = format!("/fhir/Task/{id}");
        for (status, owner) in [
            ("in-progress", "otis"),
            ("in-progress", "lane"),
            ("completed", "lane"),
        ] {
            let mut now = theirs.get(&path).await.expect(200).json();
            now["status"] = json!(status);
            now["owner"] = json!({"reference": format!("Practitioner/{owner}")});
            theirs.put(&path, &now).await.expect(200);
        }
        source.tell(number + 1, &id).await;
        becomes(&ehr, &identifier, "completed").await;
    }
    assert_eq!(quarantine(&app).await, [] as [Value; 0]);
    let path = format!("/files/{}/access-grants?status=all", letter.id);
    let grants = ehr.get(&path).await.expect(200).json().to_string();
    assert!(!grants.contains("Practitioner/otis"), "{grants}");
    let auditor = app.client("auditor").await;
    let bound = auditor
        .get("/fhir/AuditEvent?subtype=grant-bound&_count=50")
        .await
        .expect(200)
        .json();
    assert_eq!(bound["entry"].as_array().map_or(0, Vec::len), 1, "{bound}");
}
