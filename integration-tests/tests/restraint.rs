//! What its source has ended, withdrawn or given to somebody else is not released here, also where what says so can't be
//! applied; and is again once the source says so.

use std::collections::BTreeSet;

use handoff::app::sources::preset;
use handoff_domain::ids::{ActorRef, SourceId, TenantId};
use handoff_domain::source::{ContentRule, FeedType, Proof, Settings, Trust};
use handoff_integration_tests::scene::{Document, document, task};
use handoff_integration_tests::{Client, TestApp, eventually, on_both};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::notifications::{event, feed, mirrored, notification, put, quarantined, theirs, versioned};

/// A mirrored Task of Lane's, and what he has of it.
pub(crate) struct Scene {
    pub(crate) app: TestApp,
    pub(crate) feed: Client,
    pub(crate) lane: Client,
    pub(crate) letter: Document,
}

impl Scene {
    pub(crate) async fn set(app: TestApp) -> Self {
        let ehr = app.client("ehr").await;
        let letter = document(&ehr, b"%PDF-1.4 a letter").await;
        Self {
            feed: feed(&app),
            lane: app.client("lane").await,
            letter,
            app,
        }
    }

    pub(crate) fn version(&self, identifier: &str, status: &str, version: u32) -> Value {
        theirs(status, &self.letter.id, identifier, version)
    }

    /// Accepted at the source, and so here.
    pub(crate) async fn accepted(&self, identifier: &str) -> String {
        put(&self.feed, &self.version(identifier, "accepted", 1))
            .await
            .expect(200);
        let ours = mirrored(&self.lane, identifier, "accepted").await;
        ours["id"].as_str().unwrap().to_owned()
    }

    /// Lane fetches: what comes of it.
    pub(crate) async fn fetched(&self, id: &str) -> (u16, Option<String>) {
        let path = format!("/fhir/Binary/{}?task=Task/{id}", self.letter.binary);
        let answer = self.lane.get(&path).await;
        (answer.status.as_u16(), answer.reason())
    }

    pub(crate) async fn dismiss(&self, about: &str) {
        let operator = self.app.client("operator").await;
        let aside = quarantined(&self.app, about).await;
        let path = format!("/admin/quarantine/{}", aside["id"].as_str().unwrap());
        operator.delete(&path).await.expect_one_of(&[200, 204]);
    }
}

/// Which Task, its new status, what else is new of it, and why nothing is released of it.
type Case = (&'static str, &'static str, fn(&mut Value), &'static str);

on_both! {
    async fn whatever_a_refused_version_ends_or_gives_away_is_not_released(backend) {
        let scene = Scene::set(TestApp::start(backend).await).await;
        let cases: [Case; 6] = [
            ("r-1", "completed", |_| {}, "task-not-actionable"),
            ("r-2", "cancelled", |task| {
                task["output"] = json!([{"type": {"text": "report"}, "valueAttachment": {"contentType": "text/plain", "data": "aGVsbG8="}}]);
            }, "task-not-actionable"),
            ("r-3", "requested", |task| drop(task.as_object_mut().unwrap().remove("owner")), "task-on-hold"),
            ("r-4", "received", |task| task["owner"] = json!({"reference": "Practitioner/otis"}), "task-on-hold"),
            ("r-5", "in-progress", |task| {
                task["owner"] = json!({"reference": "Practitioner/otis"});
                task["intent"] = json!("plan");
            }, "task-on-hold"),
            ("r-6", "on-hold", |task| task["intent"] = json!("plan"), "task-on-hold"),
        ];
        for (identifier, status, edit, reason) in cases {
            let id = scene.accepted(identifier).await;
            let mut told = scene.version(identifier, "accepted", 2);
            told["status"] = json!(status);
            edit(&mut told);
            scene.feed.post("/notifications/ehr-feed", &event(next(), &told)).await.expect(200);
            quarantined(&scene.app, &format!("Task/{identifier}")).await;
            assert_eq!(scene.fetched(&id).await, (403, Some(reason.to_owned())), "{identifier}");
        }
    }

    async fn what_rests_goes_on_once_its_source_says_so_or_an_operator_gives_the_refused_up(backend) {
        let scene = Scene::set(TestApp::start(backend).await).await;
        for (identifier, by_hand) in [("g-1", false), ("g-2", true)] {
            let id = scene.accepted(identifier).await;
            let mut told = scene.version(identifier, "on-hold", 2);
            told["intent"] = json!("plan");
            put(&scene.feed, &told).await.expect(200);
            quarantined(&scene.app, &format!("Task/{identifier}")).await;
            assert_eq!(scene.fetched(&id).await.0, 403);
            if by_hand {
                scene.dismiss(&format!("Task/{identifier}")).await;
            } else {
                put(&scene.feed, &scene.version(identifier, "in-progress", 3)).await.expect(200);
                mirrored(&scene.lane, identifier, "in-progress").await;
            }
            eventually("he has it again", async || scene.fetched(&id).await == (200, None)).await;
        }
    }

    async fn nobody_takes_what_has_ended_at_its_source(backend) {
        let scene = Scene::set(TestApp::start(backend).await).await;
        let mut waits = scene.version("n-1", "requested", 1);
        drop(waits.as_object_mut().unwrap().remove("owner"));
        waits["performerType"] = json!([{"coding": [{"system": "https://handoff.example/fhir/CodeSystem/team", "code": "cardiology"}]}]);
        put(&scene.feed, &waits).await.expect(200);
        let mut ours = mirrored(&scene.lane, "n-1", "requested").await;
        let id = ours["id"].as_str().unwrap().to_owned();
        let mut ended = waits.clone();
        ended["status"] = json!("completed");
        put(&scene.feed, &versioned(ended, "n-1", 5)).await.expect(200);
        quarantined(&scene.app, "Task/n-1").await;
        ours["status"] = json!("accepted");
        ours["owner"] = json!({"reference": "Practitioner/lane"});
        scene.lane.put(&format!("/fhir/Task/{id}"), &ours).await.expect(200);
        assert_eq!(scene.fetched(&id).await, (403, Some("task-not-actionable".to_owned())));
        // Nor by a step that comes late.
        let mut late = scene.version("n-1", "accepted", 3);
        late["performerType"] = waits["performerType"].clone();
        put(&scene.feed, &late).await.expect(200);
        assert_eq!(scene.fetched(&id).await.0, 403);
    }

    async fn what_was_deleted_at_its_source_is_deleted_here(backend) {
        let scene = Scene::set(TestApp::start(backend).await).await;
        let id = scene.accepted("x-1").await;
        let mut gone = event(next(), &scene.version("x-1", "accepted", 2));
        let entry = &mut gone["entry"][1];
        drop(entry.as_object_mut().unwrap().remove("resource"));
        entry["request"] = json!({"method": "DELETE", "url": "Task/x-1"});
        entry["response"] = json!({"status": "204"});
        gone["entry"][0]["resource"]["parameter"].as_array_mut().unwrap().last_mut().unwrap()["part"]
            .as_array_mut()
            .unwrap()
            .push(json!({"name": "timestamp", "valueInstant": "2026-03-01T13:00:00Z"}));
        scene.feed.post("/notifications/ehr-feed", &gone).await.expect(200);
        eventually("the Task is gone", async || {
            scene.lane.get(&format!("/fhir/Task/{id}")).await.status == 410
        })
        .await;
        assert_ne!(scene.fetched(&id).await.0, 200);
        assert_eq!(quarantine_of(&scene.app).await, 0);
    }

    /// A clock that counts seconds does not tell which of two came first; their order does.
    async fn two_versions_of_one_second_count_in_their_order(backend) {
        let scene = Scene::set(TestApp::start(backend).await).await;
        let id = scene.accepted("s-1").await;
        for status in ["in-progress", "completed"] {
            let mut told = scene.version("s-1", status, 2);
            drop(told["meta"].as_object_mut().unwrap().remove("versionId"));
            put(&scene.feed, &told).await.expect(200);
        }
        mirrored(&scene.lane, "s-1", "completed").await;
        assert_eq!(scene.fetched(&id).await.0, 403);
    }

    async fn a_document_that_is_withdrawn_is_so_without_its_content(backend) {
        let app = TestApp::start(backend).await;
        let settings = settings(Some("http://127.0.0.1:9/fhir"), ContentRule::Fetch, "Organization/referring-clinic");
        add(&app, "default", "fetching", settings).await;
        let feed = app.stranger().with_token(SECRET.to_owned());
        let send = async |resource: &Value| {
            let (kind, id) = (resource["resourceType"].as_str().unwrap(), resource["id"].as_str().unwrap());
            feed.put(&format!("/notifications/fetching/{kind}/{id}"), resource).await.expect(200);
        };
        let of = |status: &str, attachment: Value, version| {
            let content = json!([{"attachment": attachment}]);
            versioned(json!({
                "resourceType": "DocumentReference", "status": status, "subject": {"reference": "Patient/ada"},
                "content": content, "identifier": [{"value": "w-1"}],
            }), "d-1", version)
        };
        let inline = json!({"contentType": "text/plain", "data": "aGVsbG8="});
        send(&of("current", inline.clone(), 1)).await;
        send(&theirs("accepted", "d-1", "w-1", 1)).await;
        let (lane, ehr) = (app.client("lane").await, app.client("ehr").await);
        let ours = mirrored(&lane, "w-1", "accepted").await;
        // The same bytes again are no other version.
        send(&of("current", inline, 2)).await;
        let known = async || ehr.get("/fhir/DocumentReference?identifier=w-1").await.expect(200).json()["entry"][0]["resource"].clone();
        let before = known().await;
        assert_eq!(before["meta"]["versionId"], "1", "{before}");
        let binary = before["content"][0]["attachment"]["url"].as_str().unwrap().to_owned();
        let path = format!("/fhir/{binary}?task=Task/{}", ours["id"].as_str().unwrap());
        send(&of("entered-in-error", json!({"contentType": "text/plain", "url": "http://127.0.0.1:9/fhir/Binary/b-1"}), 3)).await;
        eventually("it is withdrawn", async || known().await["status"] == "entered-in-error").await;
        lane.get(&path).await.refused(403, "document-entered-in-error");
        assert_eq!(known().await["content"][0]["attachment"]["url"], json!(binary));
    }

    /// One source that takes questions and answers none.
    async fn a_source_that_hangs_keeps_no_other_waiting(backend) {
        let scene = Scene::set(TestApp::start(backend).await).await;
        let (base, held) = hanging().await;
        add(&scene.app, "default", "slow", settings(Some(&base), ContentRule::Keep, "Organization/referring-clinic")).await;
        let slow = scene.app.stranger().with_token(SECRET.to_owned());
        let named: Vec<String> = (1..=20).map(|number| format!("Task/slow-{number}")).collect();
        let events: Vec<_> = (1..).zip(&named).map(|(number, name)| (number, Some(name.as_str()), None)).collect();
        let told = at_base(&notification("event-notification", Some(20), &events), &base);
        slow.post("/notifications/slow", &told).await.expect(200);
        let id = scene.accepted("q-1").await;
        put(&scene.feed, &scene.version("q-1", "completed", 3)).await.expect(200);
        quarantined(&scene.app, "Task/q-1").await;
        put(&scene.feed, &scene.version("q-1", "in-progress", 2)).await.expect(200);
        mirrored(&scene.lane, "q-1", "completed").await;
        assert_eq!(scene.fetched(&id).await.0, 403);
        assert_eq!(quarantine_of(&scene.app).await, 0, "they wait still");
        held.abort();
    }

    /// Two tenants that mirror each other come to rest, and so does one that hears itself, whatever is changed meanwhile.
    async fn mirrors_of_each_other_come_to_rest(backend) {
        let app = TestApp::start(backend).await;
        add(&app, "b", "from-default", settings(None, ContentRule::Keep, "Organization/clinic-b")).await;
        add(&app, "default", "from-b", settings(None, ContentRule::Keep, "Organization/referring-clinic")).await;
        let (ehr, ehr_b) = (app.client("ehr").await, app.client("ehr-b").await);
        let base = &app.server.base_url;
        for (client, path, endpoint, secret) in [
            (&ehr, "/fhir", format!("{base}/t/b/notifications/from-default"), SECRET),
            (&ehr_b, "/t/b/fhir", format!("{base}/notifications/from-b"), SECRET),
            (&ehr, "/fhir", format!("{base}/notifications/ehr-feed"), "demo"),
        ] {
            let id = client.post(&format!("{path}/Subscription"), &json!({
                "resourceType": "Subscription", "status": "requested", "reason": "an echo",
                "criteria": "Task?patient=Patient/ada",
                "channel": {
                    "type": "rest-hook", "endpoint": endpoint, "payload": "application/fhir+json",
                    "header": [format!("Authorization: Bearer {secret}")],
                },
            })).await.expect(201).id();
            eventually("it is active", async || {
                client.get(&format!("{path}/Subscription/{id}")).await.expect(200).json()["status"] == "active"
            })
            .await;
        }
        let letter = document(&ehr, b"%PDF-1.4 a letter").await;
        let mut sent = task("ready", &letter.id, Some("Practitioner/lane"));
        sent["identifier"] = json!([{"value": "m-1"}]);
        let id = ehr.post("/fhir/Task", &sent).await.expect(201).id();
        sent["id"] = json!(id);
        for number in 2..=5 {
            sent["description"] = json!(format!("change {number}"));
            ehr.put(&format!("/fhir/Task/{id}"), &sent).await.expect(200);
        }
        let seen = async |client: &Client, path: &str| {
            let found = client.get(&format!("{path}/Task?identifier=m-1")).await.expect(200).json();
            let tasks: Vec<(Value, Value)> = found["entry"].as_array().into_iter().flatten()
                .map(|entry| (entry["resource"]["description"].clone(), entry["resource"]["meta"]["versionId"].clone()))
                .collect();
            tasks
        };
        let mine = vec![(json!("change 5"), json!("5"))];
        eventually("the other has the last change", async || {
            let theirs = seen(&ehr_b, "/t/b/fhir").await;
            theirs.len() == 1 && theirs[0].0 == "change 5"
        })
        .await;
        let before = (seen(&ehr, "/fhir").await, seen(&ehr_b, "/t/b/fhir").await);
        assert_eq!(before.0, mine);
        tokio::time::sleep(std::time::Duration::from_secs(3)).await;
        assert_eq!((seen(&ehr, "/fhir").await, seen(&ehr_b, "/t/b/fhir").await), before);
    }
}

/// The FHIR base of a server that takes questions and answers none, until the task is aborted.
pub(crate) async fn hanging() -> (String, tokio::task::JoinHandle<()>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}/fhir", listener.local_addr().unwrap());
    let held = tokio::spawn(async move {
        let mut all = Vec::new();
        while let Ok(one) = listener.accept().await {
            all.push(one);
        }
    });
    (base, held)
}

/// A notification of a source that is somewhere else.
pub(crate) fn at_base(told: &Value, base: &str) -> Value {
    serde_json::from_str(&told.to_string().replace("https://ehr.example/fhir", base)).unwrap()
}

pub(crate) const SECRET: &str = "a secret that the two servers share";

pub(crate) fn settings(base: Option<&str>, content: ContentRule, acts_as: &str) -> Settings {
    Settings {
        base: base.map(str::to_owned),
        acts_as: ActorRef::parse(acts_as).unwrap(),
        topics: BTreeSet::new(),
        types: FeedType::ALL.iter().copied().collect(),
        trust: Trust::AsSent,
        content,
        proof: Proof::Bearer {
            sha256: Sha256::digest(SECRET).into(),
        },
        credentials: None,
    }
}

pub(crate) async fn add(app: &TestApp, tenant: &str, name: &str, settings: Settings) {
    let store = app.server.app.store.as_ref();
    let (tenant, name) = (TenantId::parse(tenant).unwrap(), SourceId::parse(name).unwrap());
    preset(store, tenant, name, settings, app.server.app.clock.now())
        .await
        .unwrap();
}

async fn quarantine_of(app: &TestApp) -> usize {
    let operator = app.client("operator").await;
    let body = operator.get("/admin/quarantine").await.expect(200).json();
    body["quarantine"].as_array().map_or(0, Vec::len)
}

/// Numbers of events, across a test.
pub(crate) fn next() -> u32 {
    use std::sync::atomic::{AtomicU32, Ordering};
    static LAST: AtomicU32 = AtomicU32::new(0);
    LAST.fetch_add(1, Ordering::Relaxed) + 1
}
