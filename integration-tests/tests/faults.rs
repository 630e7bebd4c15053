//! What the server stands on fails: it says so, half-writes nothing, and goes on by itself when it is back.

use std::time::Duration;

use handoff::wiring::Options;
use handoff_blobs::BlobConfig;
use handoff_domain::ids::{RedemptionId, TenantId};
use handoff_integration_tests::process::Program;
use handoff_integration_tests::proxy::Proxy;
use handoff_integration_tests::scene::{Referral, document, noise, task, upload};
use handoff_integration_tests::slow::SlowDownload;
use handoff_integration_tests::{Answer, Backend, Client, TestApp, azurite, eventually, http_client, needed};
use serde_json::Value;

/// `host:port` of a URL.
fn place(url: &str) -> String {
    let rest = url.split_once("://").unwrap().1;
    let authority = rest.split('/').next().unwrap();
    authority.rsplit('@').next().unwrap().to_owned()
}

async fn before_postgres() -> Proxy {
    Proxy::before(&place(&needed("HANDOFF_TEST_POSTGRES_URL"))).await
}

async fn before_azurite() -> Proxy {
    Proxy::before(&place(&needed("HANDOFF_TEST_AZURITE_URL"))).await
}

/// The database is reached through the proxy.
fn database_behind(proxy: &Proxy, options: &mut Options) {
    let direct = place(&needed("HANDOFF_TEST_POSTGRES_URL"));
    options.store.url = options.store.url.replace(&direct, &proxy.address.to_string());
    options.store.pool_wait = Duration::from_millis(500);
}

/// The content store is reached through the proxy.
fn blobs_behind(proxy: &Proxy, options: &mut Options) {
    let BlobConfig::Azure(azure) = &mut options.blobs else {
        panic!("not the production stores")
    };
    azure.account_url.set_port(Some(proxy.address.port())).unwrap();
}

/// What the admin listener says: status and body.
async fn health(app: &TestApp, what: &str) -> (u16, Value) {
    let answer = http_client()
        .get(format!("{}/health/{what}", app.server.admin_url))
        .send()
        .await
        .unwrap();
    (answer.status().as_u16(), answer.json().await.unwrap())
}

/// Readiness names the one part that is down; the process itself is alive.
async fn expect_down(app: &TestApp, down: &str, up: &str) {
    let (status, body) = health(app, "ready").await;
    assert_eq!(status, 503, "{body}");
    assert_eq!(body["parts"][down]["status"], "down", "{body}");
    assert_eq!(body["parts"][up]["status"], "up", "{body}");
    assert_eq!(health(app, "live").await.0, 200);
}

async fn ready_again(app: &TestApp) {
    eventually("the server is ready again", async || {
        health(app, "ready").await.0 == 200
    })
    .await;
}

/// A refusal that a client may try again after a while.
#[track_caller]
fn unavailable(answer: Answer) {
    let answer = answer.refused(503, "storage-unavailable");
    assert!(
        answer
            .header("retry-after")
            .and_then(|s| s.parse::<u32>().ok())
            .is_some_and(|s| s > 0)
    );
    assert_eq!(answer.json()["resourceType"], "OperationOutcome");
}

/// How many rows of one event there are in the audit.
async fn audited(app: &TestApp, event: &str) -> usize {
    let auditor = app.client("auditor").await;
    let body = auditor
        .get("/fhir/AuditEvent?_count=200")
        .await
        .expect(200)
        .json();
    let rows = body["entry"].as_array().cloned().unwrap_or_default();
    let is_of_event = |row: &Value| {
        row["resource"]["subtype"]
            .as_array()
            .is_some_and(|s| s.iter().any(|c| c["code"] == event))
    };
    rows.iter().filter(|row| is_of_event(row)).count()
}

/// How many Tasks the placer sees over a document.
async fn tasks_of(client: &Client, document: &str) -> usize {
    let path = format!("/fhir/Task?focus=DocumentReference/{document}&_count=100");
    let body = client.get(&path).await.expect(200).json();
    body["entry"].as_array().map_or(0, Vec::len)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_is_down_is_told_and_recovers_by_itself() {
    let proxy = before_postgres().await;
    let app = TestApp::start_with(Backend::Production, |o| database_behind(&proxy, o)).await;
    let referral = Referral::set(&app).await;
    proxy.refuse();
    unavailable(
        referral
            .ehr
            .post("/fhir/Task", &task("requested", &referral.document.id, None))
            .await,
    );
    unavailable(referral.ehr.get(&format!("/fhir/Task/{}", referral.task)).await);
    unavailable(referral.fetch(&referral.lane).await);
    unavailable(
        referral
            .ehr
            .post_bytes("/fhir/Binary", "application/pdf", b"%PDF-1.4".to_vec())
            .await,
    );
    expect_down(&app, "database", "blobs").await;
    proxy.forward();
    ready_again(&app).await;
    assert_eq!(tasks_of(&referral.ehr, &referral.document.id).await, 1);
    assert_eq!(audited(&app, "task-created").await, 1);
    assert_eq!(audited(&app, "binary-created").await, 1);
    // Nothing was used up.
    assert_eq!(
        referral.fetch(&referral.lane).await.expect(200).body,
        referral.document.content
    );
    referral
        .ehr
        .post("/fhir/Task", &task("requested", &referral.document.id, None))
        .await
        .expect(201);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_falls_silent_is_told_and_recovers_by_itself() {
    let proxy = before_postgres().await;
    let app = TestApp::start_with(Backend::Production, |o| {
        database_behind(&proxy, o);
        o.store.statement_timeout = Duration::from_secs(1);
    })
    .await;
    let referral = Referral::set(&app).await;
    proxy.stall();
    let began = std::time::Instant::now();
    unavailable(referral.ehr.get(&format!("/fhir/Task/{}", referral.task)).await);
    unavailable(referral.fetch(&referral.lane).await);
    unavailable(
        referral
            .ehr
            .post("/fhir/Task", &task("requested", &referral.document.id, None))
            .await,
    );
    assert!(
        began.elapsed() < Duration::from_secs(15),
        "it took {:?}",
        began.elapsed()
    );
    expect_down(&app, "database", "blobs").await;
    proxy.cut();
    proxy.forward();
    ready_again(&app).await;
    assert_eq!(
        referral.fetch(&referral.lane).await.expect(200).body,
        referral.document.content
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_breaks_off_in_the_middle_leaves_all_or_nothing() {
    let proxy = before_postgres().await;
    let app = TestApp::start_with(Backend::Production, |o| database_behind(&proxy, o)).await;
    let ehr = app.client("ehr").await;
    let document = document(&ehr, b"content").await;
    for _ in 0..5 {
        proxy.stall_answers();
        let before = proxy.requested();
        let (sender, body) = (
            ehr.clone(),
            task("accepted", &document.id, Some("Practitioner/lane")),
        );
        let posting = tokio::spawn(async move { sender.post("/fhir/Task", &body).await });
        eventually("the request is on its way", async || proxy.requested() > before).await;
        proxy.cut();
        proxy.forward();
        let answer = posting.await.unwrap();
        // A unit that never reached its commit may have been run again on another connection.
        assert!(matches!(answer.status.as_u16(), 201 | 503), "{}", answer.status);
        ready_again(&app).await;
    }
    let tasks = tasks_of(&ehr, &document.id).await;
    let grants = ehr
        .get(&format!("/files/{}/access-grants", document.id))
        .await
        .expect(200)
        .json();
    assert_eq!(grants["grants"].as_array().map(Vec::len), Some(tasks));
    assert_eq!(audited(&app, "task-created").await, tasks);
}

/// Found under fire: each time that the end of a stream was tried to be written down its bytes were counted again, and
/// it was reported again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_end_of_a_stream_is_told_once_though_the_answer_to_its_commit_is_lost() {
    let proxy = before_postgres().await;
    let app = TestApp::start_with(Backend::Production, |o| database_behind(&proxy, o)).await;
    let referral = Referral::set(&app).await;
    proxy.lose_answer(&["UPDATE redemptions", "COMMIT"]);
    let answer = referral.fetch(&referral.lane).await.expect(200);
    eventually("the end is written down", async || {
        app.server.app.streams.count() == 0
    })
    .await;
    assert!(proxy.has_lost_it());

    let path = answer.header("content-location").unwrap();
    let id = path.split('/').rev().nth(1).unwrap();
    let id = RedemptionId::parse(id).unwrap();
    let read = app
        .server
        .app
        .read(move |read| Ok(read.redemption(&TenantId::default_tenant(), &id)?));
    let redemption = read.await.unwrap().unwrap();
    assert_eq!(redemption.bytes_sent, redemption.size);
    assert_eq!(audited(&app, "redemption-completed").await, 1);
}

/// The transaction that took the use was committed, and nobody here learned of it: no byte left, so nothing was used.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_use_whose_commit_was_never_answered_is_given_back() {
    let proxy = before_postgres().await;
    let app = TestApp::start_with(Backend::Production, |o| database_behind(&proxy, o)).await;
    let referral = Referral::set(&app).await;
    proxy.lose_answer(&["INSERT INTO redemptions", "COMMIT"]);
    unavailable(referral.fetch(&referral.lane).await);
    assert!(proxy.has_lost_it());
    assert_eq!(audited(&app, "redemption-authorized").await, 1);
    eventually("the use is given back", async || {
        let grant = &referral.grants().await[0];
        grant["uses"] == 0 && grant["status"] == "bound"
    })
    .await;
    referral.fetch(&referral.lane).await.expect(200);
    referral.fetch(&referral.lane).await.refused(403, "exhausted");
}

/// A short outage of the database is no reason to stop who is being served; a right that can't be confirmed for long is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_download_outlives_a_short_outage_of_the_database_and_not_a_long_one() {
    let proxy = before_postgres().await;
    let app = TestApp::start_with(Backend::Production, |o| {
        database_behind(&proxy, o);
        o.store.statement_timeout = Duration::from_secs(1);
    })
    .await;
    let content = noise(64 * 1024 * 1024);
    let referral = Referral::with_content(&app, &content).await;
    let mut download = SlowDownload::start(&referral.lane, &referral.content_path(), 100_000).await;
    let etag = download.header("etag").unwrap();
    proxy.refuse();
    unavailable(referral.ehr.get(&format!("/fhir/Task/{}", referral.task)).await);
    download.read_some(4 * 1024 * 1024).await;
    proxy.forward();
    ready_again(&app).await;
    download.read_some(8 * 1024 * 1024).await;
    assert_eq!(app.server.app.streams.count(), 1, "it goes on");

    proxy.stall();
    let began = std::time::Instant::now();
    let ended = async || {
        let entries = app.server.app.streams.all();
        entries.iter().all(|entry| entry.halted().is_some())
    };
    while !ended().await {
        assert!(began.elapsed() < Duration::from_secs(40), "it never ends");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(
        began.elapsed() > Duration::from_secs(15),
        "ended too soon: {:?}",
        began.elapsed()
    );
    let (bytes, whole) = download.read_to_end().await;
    assert!(!whole && content.starts_with(&bytes));
    proxy.cut();
    proxy.forward();
    ready_again(&app).await;
    eventually("its end is recorded", async || {
        audited(&app, "redemption-interrupted").await == 1 && app.server.app.streams.count() == 0
    })
    .await;
    // No right has ended, so she goes on where she was.
    let rest = referral
        .lane
        .request(reqwest::Method::GET, &referral.content_path())
        .header("range", format!("bytes={}-", bytes.len()))
        .header("if-range", etag);
    let rest = referral.lane.send(rest).await.expect(206).body;
    assert!([bytes, rest].concat() == content);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_content_store_that_is_down_is_told_costs_no_use_and_recovers_by_itself() {
    let proxy = before_azurite().await;
    let app = TestApp::start_with(Backend::Production, |o| blobs_behind(&proxy, o)).await;
    let referral = Referral::set(&app).await;
    proxy.refuse();
    unavailable(
        referral
            .ehr
            .post_bytes("/fhir/Binary", "application/pdf", b"%PDF-1.4".to_vec())
            .await,
    );
    unavailable(referral.fetch(&referral.lane).await);
    expect_down(&app, "blobs", "database").await;
    // What needs no content goes on.
    referral
        .ehr
        .get(&format!("/fhir/Task/{}", referral.task))
        .await
        .expect(200);
    proxy.forward();
    ready_again(&app).await;
    eventually("the use is given back", async || {
        referral.grants().await[0]["status"] == "bound"
    })
    .await;
    assert_eq!(
        referral.fetch(&referral.lane).await.expect(200).body,
        referral.document.content
    );
    referral.fetch(&referral.lane).await.refused(403, "exhausted");
    assert_eq!(audited(&app, "binary-created").await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_content_store_that_goes_in_mid_upload_leaves_nothing_visible() {
    let proxy = before_azurite().await;
    let app = TestApp::start_with(Backend::Production, |o| blobs_behind(&proxy, o)).await;
    let ehr = app.client("ehr").await;
    proxy.refuse_after(6 * 1024 * 1024);
    unavailable(
        ehr.post_bytes("/fhir/Binary", "application/pdf", vec![7; 20 * 1024 * 1024])
            .await,
    );
    proxy.forward();
    ready_again(&app).await;
    assert_eq!(
        azurite::objects(app.database().unwrap()).await,
        Vec::<String>::new()
    );
    assert_eq!(audited(&app, "binary-created").await, 0);
    let id = upload(&ehr, b"%PDF-1.4 again").await;
    assert_eq!(
        azurite::objects(app.database().unwrap()).await,
        [format!("default/{id}")]
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_content_store_that_goes_in_mid_download_breaks_it_off_and_it_can_be_resumed() {
    let proxy = before_azurite().await;
    let app = TestApp::start_with(Backend::Production, |o| blobs_behind(&proxy, o)).await;
    let content = vec![9; 30 * 1024 * 1024];
    let referral = Referral::with_content(&app, &content).await;
    let mut download = SlowDownload::start(&referral.lane, &referral.content_path(), 200_000).await;
    proxy.refuse();
    let (bytes, whole) = download.read_to_end().await;
    assert!(!whole, "the client must see an error, not a short success");
    proxy.forward();
    ready_again(&app).await;
    let etag = download.header("etag").unwrap();
    let request = referral
        .lane
        .request(reqwest::Method::GET, &referral.content_path())
        .header("range", format!("bytes={}-", bytes.len()))
        .header("if-range", etag);
    let rest = referral.lane.send(request).await.expect(206).body;
    assert_eq!(bytes.len() + rest.len(), content.len());
    assert_eq!(referral.grants().await[0]["uses"], 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_database_refuses_what_does_not_fit_and_takes_it_when_there_is_room() {
    let app = TestApp::start(Backend::Embedded).await;
    let referral = Referral::set(&app).await;
    // The file may not grow any more, as on a disk without room.
    let mut options = app.options.clone();
    options.store.sqlite_max_pages = Some(1);
    options.identity = handoff::wiring::Identity::Demo {
        issuer_of: Some(app.server.base_url.clone()),
    };
    let full = handoff::wiring::start(options).await;
    let Ok(full) = full else {
        panic!("it does not start: {:?}", full.err())
    };
    let ehr = referral.ehr.at(&full.base_url);
    let mut big = task("requested", &referral.document.id, None);
    big["description"] = "x".repeat(500_000).into();
    let refused = ehr
        .post("/fhir/Task", &big)
        .await
        .refused(507, "storage-unavailable");
    assert_eq!(refused.json()["issue"][0]["code"], "no-store");
    drop(full);
    assert_eq!(tasks_of(&referral.ehr, &referral.document.id).await, 1);
    assert_eq!(audited(&app, "task-created").await, 1);
    referral.ehr.post("/fhir/Task", &big).await.expect(201);
}

/// A disk with little room: a small file system of its own where that is allowed, else a limit on every file.
const LITTLE_ROOM: &str = r#"
place=$1; shift
if unshare --mount true 2>/dev/null; then
    exec unshare --mount bash -c 'mount -t tmpfs -o size=4m tmpfs "$0" && exec "$@"' "$place" "$@"
elif unshare --user --map-root-user --mount true 2>/dev/null; then
    exec unshare --user --map-root-user --mount bash -c 'mount -t tmpfs -o size=4m tmpfs "$0" && exec "$@"' "$place" "$@"
fi
trap '' XFSZ
ulimit -f 2560
exec "$@"
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_refuses_content_leaves_nothing_and_takes_it_when_there_is_room() {
    let folder = tempfile::tempdir().unwrap();
    let (blobs, data) = (folder.path().join("blobs"), folder.path().join("data"));
    std::fs::create_dir_all(&blobs).unwrap();
    let url = format!("file://{}", blobs.display());
    let script = format!("set -- {:?} \"$@\"\n{LITTLE_ROOM}", blobs.display().to_string());
    let arguments = [
        "demo",
        "--no-play",
        "--port",
        "0",
        "--blob",
        &url,
        "--data",
        data.to_str().unwrap(),
    ];
    let mut server = Program::start_by_script(&script, &arguments);
    let (base, admin) = server.addresses().await;
    let ehr = Client::sign_in(&http_client(), &base, &base, "ehr").await;
    let first = upload(&ehr, &vec![1; 2_000_000]).await;
    let refused = ehr
        .post_bytes("/fhir/Binary", "application/pdf", vec![2; 3_000_000])
        .await;
    let refused = refused.refused(507, "storage-unavailable");
    assert_eq!(refused.json()["issue"][0]["code"], "no-store");
    // The folder as the server sees it, whichever file system is mounted there for it.
    let seen = format!("/proc/{}/root{}", server.id(), blobs.display());
    let files = |name: &str| std::fs::read_dir(format!("{seen}/{name}")).unwrap().count();
    assert_eq!(files("default"), 1);
    eventually("what was begun is gone", async || files(".incoming") == 0).await;
    ehr.delete(&format!("/fhir/Binary/{first}")).await.expect(204);
    upload(&ehr, &vec![3; 2_000_000]).await;
    assert_eq!(files("default"), 1);
    let ready = http_client()
        .get(format!("{admin}/health/ready"))
        .send()
        .await
        .unwrap();
    assert_eq!(ready.status().as_u16(), 200);
    server.signal("TERM");
    assert_eq!(server.ended().await, Some(0));
}
