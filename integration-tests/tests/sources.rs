//! Sources that are asked: what a notice only names is read there, gaps and silence are healed by asking for what changed, and
//! content is fetched.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use handoff::app::sources::preset;
use handoff_domain::ids::{ActorRef, SourceId, TenantId};
use handoff_domain::inbox::FeedSubscription;
use handoff_domain::ports::{self, StoreError};
use handoff_domain::source::{ContentRule, Credentials, FeedType, Proof, SecretPlace, Settings, Trust};
use handoff_domain::time::Span;
use handoff_integration_tests::proxy::Proxy;
use handoff_integration_tests::scene::{document, task};
use handoff_integration_tests::{Backend, Client, TestApp, eventually, needed, on_both};
use reqwest::Method;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

const SECRET: &str = "a secret that the two servers share";
pub(crate) const FEED: &str = "/notifications/other";

/// A private key of ours, in a file.
#[expect(clippy::disallowed_methods, reason = "a key of a test's own")]
fn private_key(folder: &Path) -> String {
    let document =
        EcdsaKeyPair::generate_pkcs8(&ECDSA_P384_SHA384_FIXED_SIGNING, &SystemRandom::new()).unwrap();
    let file = folder.join("handoff.pem");
    let text = format!(
        "-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n",
        STANDARD.encode(document.as_ref())
    );
    std::fs::write(&file, text).unwrap();
    file.to_str().unwrap().to_owned()
}

/// Another server as a source of `app`, which asks it as `client`.
pub(crate) async fn introduce(app: &TestApp, other: &TestApp, client: &str) -> Client {
    let settings = Settings {
        base: Some(format!("{}/fhir", other.server.base_url)),
        acts_as: ActorRef::parse("Organization/referring-clinic").unwrap(),
        topics: BTreeSet::new(),
        types: FeedType::ALL.iter().copied().collect(),
        trust: Trust::ReRead,
        content: ContentRule::Fetch,
        proof: Proof::Bearer {
            sha256: Sha256::digest(SECRET).into(),
        },
        credentials: Some(Credentials {
            client_id: client.to_owned(),
            token_url: None,
            key: SecretPlace::File(private_key(&app.folder())),
            key_id: Some("k1".to_owned()),
            scope: "user/*.rs".to_owned(),
        }),
    };
    let store = app.server.app.store.as_ref();
    let id = SourceId::parse("other").unwrap();
    let now = app.server.app.clock.now();
    preset(store, TenantId::default_tenant(), id, settings, now)
        .await
        .unwrap();
    app.stranger().with_token(SECRET.to_owned())
}

/// Changes how the source is configured.
pub(crate) async fn change_settings(app: &TestApp, change: impl Fn(&mut Settings) + Send + 'static) {
    let store = app.server.app.store.as_ref();
    ports::write(store, move |tx| {
        let tenant = TenantId::default_tenant();
        let mut source = tx
            .lock_source(&tenant, &SourceId::parse("other").unwrap())?
            .unwrap();
        change(&mut source.settings);
        tx.update_source(&tenant, &source)
    })
    .await
    .map_err(|error: StoreError| error)
    .unwrap();
}

/// An `id-only` notification, or of another kind.
pub(crate) fn notification(kind: &str, counted: u32, events: &[(u32, &str)]) -> Value {
    let mut status = vec![
        json!({"name": "subscription", "valueReference": {"reference": "Subscription/7"}}),
        json!({"name": "status", "valueCode": "active"}),
        json!({"name": "type", "valueCode": kind}),
        json!({"name": "events-since-subscription-start", "valueString": counted.to_string()}),
    ];
    for (number, focus) in events {
        status.push(json!({"name": "notification-event", "part": [
            {"name": "event-number", "valueString": number.to_string()},
            {"name": "focus", "valueReference": {"reference": focus}}
        ]}));
    }
    json!({"resourceType": "Bundle", "type": "history", "entry": [{
        "fullUrl": "urn:uuid:2d5afc69-6ef2-420f-a8d1-8500c99eb96c",
        "resource": {"resourceType": "Parameters", "parameter": status},
        "request": {"method": "GET", "url": "Subscription/7/$status"},
        "response": {"status": "200"}
    }]})
}

/// A Task of Lane's at the other server over a letter of its own: Task and document there.
pub(crate) async fn referral(other: &TestApp, identifier: &str) -> (String, String) {
    let ehr = other.client("ehr").await;
    let letter = document(&ehr, format!("%PDF-1.4 a letter, {identifier}").as_bytes()).await;
    let mut sent = task("accepted", &letter.id, Some("Practitioner/lane"));
    sent["identifier"] = json!([{"value": identifier}]);
    let id = ehr.post("/fhir/Task", &sent).await.expect(201).id();
    (id, letter.id)
}

pub(crate) async fn move_to(other: &TestApp, id: &str, status: &str) {
    let ehr = other.client("ehr").await;
    let path = format!("/fhir/Task/{id}");
    let mut task = ehr.get(&path).await.expect(200).json();
    task["status"] = json!(status);
    ehr.put(&path, &task).await.expect(200);
}

async fn status_of(client: &Client, identifier: &str) -> Option<String> {
    let path = format!("/fhir/Task?identifier={identifier}");
    let found = client.get(&path).await.expect(200).json();
    found["entry"][0]["resource"]["status"]
        .as_str()
        .map(str::to_owned)
}

pub(crate) async fn becomes(client: &Client, identifier: &str, status: &str) {
    eventually(&format!("{identifier} is {status}"), async || {
        status_of(client, identifier).await.as_deref() == Some(status)
    })
    .await;
}

pub(crate) async fn quarantine(app: &TestApp) -> Vec<Value> {
    let operator = app.client("operator").await;
    let body = operator.get("/admin/quarantine").await.expect(200).json();
    body["quarantine"].as_array().cloned().unwrap_or_default()
}

on_both! {
    /// What a notice only names is read at the source with a token of our own, and content that lies there is governed here.
    async fn what_a_notice_names_is_read_at_the_source(backend) {
        let (app, other) = (TestApp::start(backend).await, TestApp::start(Backend::Embedded).await);
        let feed = introduce(&app, &other, "lane").await;
        let (ehr, lane) = (app.client("ehr").await, app.client("lane").await);
        let (theirs, letter) = referral(&other, "s-1").await;
        feed.post(FEED, &notification("handshake", 0, &[])).await.expect(200);
        feed.post(FEED, &notification("event-notification", 1, &[(1, &format!("DocumentReference/{letter}"))])).await.expect(200);
        let base = format!("{}/fhir", other.server.base_url);
        feed.post(FEED, &notification("event-notification", 2, &[(2, &format!("{base}/Task/{theirs}"))])).await.expect(200);
        becomes(&ehr, "s-1", "accepted").await;
        let found = lane.get("/fhir/DocumentReference?_count=9").await.expect(200).json();
        let address = found["entry"][0]["resource"]["content"][0]["attachment"]["url"].as_str().unwrap();
        let content = lane.get(&format!("/fhir/{address}")).await.expect(200);
        assert_eq!(content.body, b"%PDF-1.4 a letter, s-1");

        // What a request says of a Task counts for nothing: it is read.
        let forged = json!({
            "resourceType": "Task", "id": theirs, "status": "cancelled", "intent": "order",
            "meta": {"versionId": "99", "lastUpdated": "2099-01-01T00:00:00Z"}
        });
        feed.put(&format!("{FEED}/Task/{theirs}"), &forged).await.expect(200);
        feed.post(FEED, &notification("event-notification", 3, &[(3, &format!("Task/{theirs}"))])).await.expect(200);
        assert_eq!(status_of(&ehr, "s-1").await.as_deref(), Some("accepted"));
        move_to(&other, &theirs, "cancelled").await;
        feed.post(FEED, &notification("event-notification", 4, &[(4, &format!("Task/{theirs}"))])).await.expect(200);
        becomes(&ehr, "s-1", "cancelled").await;
        assert_eq!(quarantine(&app).await, [] as [Value; 0]);
        // What the source does not have, or not for us, is shown; another server is not asked.
        feed.post(FEED, &notification("event-notification", 6, &[
            (5, "Task/none"), (6, "https://elsewhere.example/fhir/Task/1")
        ])).await.expect(200);
        eventually("both are quarantined", async || quarantine(&app).await.len() == 2).await;
    }

    /// That something was deleted is read like everything else that it says.
    async fn a_deletion_is_looked_up_as_well(backend) {
        let (app, other) = (TestApp::start(backend).await, TestApp::start(Backend::Embedded).await);
        let feed = introduce(&app, &other, "lane").await;
        let (ehr, theirs) = (app.client("ehr").await, other.client("ehr").await);
        let (id, _) = referral(&other, "d-1").await;
        let focus = format!("Task/{id}");
        let tell = async |number: u32, gone: bool| {
            let mut told = notification("event-notification", number, &[(number, &focus)]);
            if gone {
                told["entry"].as_array_mut().unwrap().push(json!({
                    "fullUrl": format!("{}/fhir/{focus}", other.server.base_url),
                    "request": {"method": "DELETE", "url": focus}, "response": {"status": "204"},
                }));
            }
            feed.post(FEED, &told).await.expect(200);
        };
        tell(1, false).await;
        becomes(&ehr, "d-1", "accepted").await;
        tell(2, true).await;
        move_to(&other, &id, "in-progress").await;
        tell(3, false).await;
        becomes(&ehr, "d-1", "in-progress").await;
        theirs.delete(&format!("/fhir/{focus}")).await.expect_one_of(&[200, 204]);
        tell(4, true).await;
        eventually("it is gone here too", async || status_of(&ehr, "d-1").await.is_none()).await;
        assert_eq!(quarantine(&app).await, [] as [Value; 0]);
    }

    /// Gaps in the numbers, a count that is ahead, an empty body and silence all lead to the source being asked for what
    /// changed.
    async fn what_did_not_come_is_asked_for(backend) {
        let (app, other) = (TestApp::start(backend).await, TestApp::start(Backend::Embedded).await);
        let feed = introduce(&app, &other, "lane").await;
        let ehr = app.client("ehr").await;
        feed.post(FEED, &notification("handshake", 0, &[])).await.expect(200);
        let (first, _) = referral(&other, "g-1").await;
        let (second, _) = referral(&other, "g-2").await;
        // The first event never came.
        feed.post(FEED, &notification("event-notification", 2, &[(2, &format!("Task/{second}"))])).await.expect(200);
        becomes(&ehr, "g-2", "accepted").await;
        becomes(&ehr, "g-1", "accepted").await;
        eventually("nothing is missing", async || missing(&app).await.is_empty()).await;

        move_to(&other, &first, "on-hold").await;
        feed.post(FEED, &notification("heartbeat", 3, &[])).await.expect(200);
        becomes(&ehr, "g-1", "on-hold").await;

        move_to(&other, &second, "on-hold").await;
        let empty = feed.request(Method::POST, FEED);
        feed.send(empty).await.expect(200);
        becomes(&ehr, "g-2", "on-hold").await;

        // It promised a heartbeat each minute, and falls silent.
        let store = app.server.app.store.as_ref();
        ports::write(store, |tx| {
            let tenant = TenantId::default_tenant();
            let known = tx.feed_subscriptions(&tenant, &SourceId::parse("other").unwrap())?.remove(0);
            tx.put_feed_subscription(&tenant, &FeedSubscription { heartbeat: Some(Span::minutes(1)), ..known })
        }).await.map_err(|error: StoreError| error).unwrap();
        move_to(&other, &first, "accepted").await;
        app.clock.advance(Span::minutes(3));
        let ehr = app.client("ehr").await;
        becomes(&ehr, "g-1", "accepted").await;
    }
}

/// A gateway that answers for the source says nothing of what changed there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_nobody_answers_was_not_asked() {
    let (app, other) = (
        TestApp::start(Backend::Embedded).await,
        TestApp::start(Backend::Embedded).await,
    );
    let feed = introduce(&app, &other, "lane").await;
    let (elsewhere, known) = (other.server.base_url.clone(), Arc::new(Mutex::new(None)));
    let credentials = Arc::clone(&known);
    change_settings(&app, move |settings| {
        settings.base = Some(format!("{elsewhere}/nothing-here"));
        // They are asked for below the base too.
        if let Some(taken) = settings.credentials.take() {
            *credentials.lock().unwrap() = Some(taken);
        }
    })
    .await;
    feed.post(FEED, &notification("handshake", 0, &[]))
        .await
        .expect(200);
    feed.post(FEED, &notification("heartbeat", 3, &[]))
        .await
        .expect(200);
    eventually("it is laid aside", async || {
        quarantine(&app).await.iter().any(|one| one["about"].is_null())
    })
    .await;
    assert_eq!(missing(&app).await, [(1, 3)]);
    let back = other.server.base_url.clone();
    change_settings(&app, move |settings| {
        settings.base = Some(format!("{back}/fhir"));
        settings.credentials.clone_from(&known.lock().unwrap());
    })
    .await;
    let operator = app.client("operator").await;
    let id = quarantine(&app).await[0]["id"].as_str().unwrap().to_owned();
    operator
        .post_plain(&format!("/admin/quarantine/{id}/retry"), &json!({}))
        .await
        .expect(200);
    assert_eq!(missing(&app).await, [] as [(i64, i64); 0]);
}

/// A limit that held for what names a topic only would be none.
#[tokio::test]
async fn a_source_that_is_limited_to_topics_names_one() {
    let app = TestApp::start(Backend::Embedded).await;
    let feed = introduce(&app, &app, "lane").await;
    let allowed = "https://ehr.example/topics/orders";
    change_settings(&app, move |settings| {
        settings.topics = [allowed.to_owned()].into();
    })
    .await;
    let told = |number: u32, topic: Option<&str>| {
        let mut sent = notification("event-notification", number, &[(number, "Task/away")]);
        if let Some(topic) = topic {
            sent["entry"][0]["resource"]["parameter"]
                .as_array_mut()
                .unwrap()
                .push(json!({"name": "topic", "valueCanonical": topic}));
        }
        sent
    };
    feed.post(FEED, &notification("heartbeat", 0, &[]))
        .await
        .expect(200);
    feed.post(FEED, &told(1, Some(allowed))).await.expect(200);
    let without = feed
        .post(FEED, &told(2, None))
        .await
        .refused(403, "policy-denied");
    assert!(String::from_utf8_lossy(&without.body).contains("names none"));
    let another = told(2, Some("https://ehr.example/topics/other"));
    feed.post(FEED, &another).await.refused(403, "policy-denied");
    let resource = json!({"resourceType": "Patient", "id": "p", "active": true});
    let path = format!("{FEED}/Patient/p");
    feed.put(&path, &resource).await.refused(403, "policy-denied");
    change_settings(&app, |settings| settings.topics.clear()).await;
    feed.put(&path, &resource).await.expect(200);
    feed.post(FEED, &told(2, None)).await.expect(200);
}

/// How many notices wait.
pub(crate) async fn waiting(app: &TestApp) -> u64 {
    let depth = app.server.app.read(|read| Ok(read.inbox_depth()?)).await.unwrap();
    depth.get("waiting").copied().unwrap_or(0)
}

/// What is missing of the source's events.
async fn missing(app: &TestApp) -> Vec<(i64, i64)> {
    let found = app
        .server
        .app
        .read(|read| {
            Ok(read.feed_subscriptions(&TenantId::default_tenant(), &SourceId::parse("other").unwrap())?)
        })
        .await
        .unwrap();
    found.into_iter().flat_map(|known| known.missing).collect()
}

/// A source that can't be reached keeps nothing else waiting, and is tried again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_source_that_does_not_answer_is_tried_again() {
    let (app, other) = (
        TestApp::start(Backend::Embedded).await,
        TestApp::start(Backend::Embedded).await,
    );
    let (theirs, _) = referral(&other, "r-1").await;
    let proxy = Proxy::before(other.server.base_url.trim_start_matches("http://")).await;
    let feed = introduce(&app, &other, "lane").await;
    let base = format!("http://{}/fhir", proxy.address);
    let token_url = format!("{}/dev-issuer/token", other.server.base_url);
    change_settings(&app, move |settings| {
        settings.base = Some(base.clone());
        settings.credentials.as_mut().unwrap().token_url = Some(token_url.clone());
    })
    .await;
    proxy.refuse();
    let told = notification("event-notification", 1, &[(1, &format!("Task/{theirs}"))]);
    feed.post(FEED, &told).await.expect(200);
    let ehr = app.client("ehr").await;
    assert_eq!(status_of(&ehr, "r-1").await, None);
    assert_eq!(quarantine(&app).await, [] as [Value; 0]);
    proxy.forward();
    becomes(&ehr, "r-1", "accepted").await;
}

/// Nobody is told that a notice was taken in before it is durable, and what was refused for want of a database is not taken
/// for a repetition later.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_notice_is_durable_before_it_is_answered() {
    let postgres = needed("HANDOFF_TEST_POSTGRES_URL");
    let direct = postgres
        .rsplit('@')
        .next()
        .unwrap()
        .split('/')
        .next()
        .unwrap()
        .to_owned();
    let proxy = Proxy::before(&direct).await;
    let app = TestApp::start_with(Backend::Production, |options| {
        options.store.url = options.store.url.replace(&direct, &proxy.address.to_string());
        options.store.pool_wait = std::time::Duration::from_millis(500);
    })
    .await;
    let (feed, ehr) = (
        app.stranger().with_token("demo".to_owned()),
        app.client("ehr").await,
    );
    let letter = document(&ehr, b"%PDF-1.4 a letter").await;
    let mut sent = task("accepted", &letter.id, Some("Practitioner/lane"));
    sent["id"] = json!("t-1");
    sent["identifier"] = json!([{"value": "durable"}]);
    let mut told = notification("event-notification", 1, &[(1, "Task/t-1")]);
    told["entry"].as_array_mut().unwrap().push(json!({
        "fullUrl": "https://ehr.example/fhir/Task/t-1", "resource": sent,
        "request": {"method": "POST", "url": "Task"}, "response": {"status": "201"}
    }));
    proxy.refuse();
    let answer = feed.post("/notifications/ehr-feed", &told).await;
    assert!(answer.status.is_server_error(), "{}", answer.status);
    proxy.forward();
    eventually("it is taken in", async || {
        feed.post("/notifications/ehr-feed", &told).await.status == 200
    })
    .await;
    becomes(&ehr, "durable", "accepted").await;
    feed.post("/notifications/ehr-feed", &told).await.expect(200);
    let found = ehr.get("/fhir/Task?identifier=durable").await.expect(200).json();
    assert_eq!(found["entry"].as_array().unwrap().len(), 1);
}
