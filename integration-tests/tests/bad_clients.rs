//! Clients that dawdle, fall silent or vanish: they are let go, and what they held is free again.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use handoff_integration_tests::process::Program;
use handoff_integration_tests::scene::{Referral, document, task};
use handoff_integration_tests::slow::SlowDownload;
use handoff_integration_tests::{Backend, Client, TestApp, azurite, eventually, http_client, on_both};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

const MIB: usize = 1024 * 1024;

/// A bare connection to a client's server.
pub(crate) async fn connect(client: &Client) -> TcpStream {
    TcpStream::connect(client.base.trim_start_matches("http://"))
        .await
        .unwrap()
}

/// The head of an upload of `length` bytes.
pub(crate) fn upload_head(client: &Client, path: &str, content_type: &str, length: usize) -> String {
    let token = client.token.as_deref().unwrap();
    format!(
        "POST {path} HTTP/1.1\r\nhost: handoff\r\nauthorization: Bearer {token}\r\n\
         content-type: {content_type}\r\ncontent-length: {length}\r\n\r\n"
    )
}

/// Whatever comes until the server closes, which it must do soon.
pub(crate) async fn until_closed(stream: &mut TcpStream) -> String {
    let mut all = Vec::new();
    let closed = timeout(Duration::from_secs(10), stream.read_to_end(&mut all)).await;
    assert!(closed.is_ok(), "the server keeps the connection");
    String::from_utf8_lossy(&all).into_owned()
}

/// What a store holds in visible objects and in unfinished ones.
async fn stored(app: &TestApp) -> (usize, usize) {
    match app.backend {
        Backend::Production => (azurite::objects(app.database().unwrap()).await.len(), 0),
        Backend::Embedded => {
            let files = |name: &str| {
                std::fs::read_dir(app.folder().join("blobs").join(name)).map_or(0, Iterator::count)
            };
            (files("default"), files(".incoming"))
        }
    }
}

async fn binaries_created(app: &TestApp) -> usize {
    let auditor = app.client("auditor").await;
    let body = auditor.get("/fhir/AuditEvent?_count=200").await.expect(200);
    let text = String::from_utf8(body.body).unwrap();
    text.matches("binary-created").count()
}

on_both! {
    async fn a_client_that_vanishes_in_mid_upload_leaves_nothing(backend) {
        let app = TestApp::start(backend).await;
        let ehr = app.client("ehr").await;
        for _ in 0..3 {
            let mut stream = connect(&ehr).await;
            let head = upload_head(&ehr, "/fhir/Binary", "application/pdf", 12 * MIB);
            stream.write_all(head.as_bytes()).await.unwrap();
            stream.write_all(&vec![7; 6 * MIB]).await.unwrap();
        }
        eventually("what was begun is gone", async || stored(&app).await == (0, 0)).await;
        assert_eq!(binaries_created(&app).await, 0);
        let kept = document(&ehr, b"%PDF-1.4").await;
        assert_eq!(stored(&app).await.0, 1, "{}", kept.binary);
    }

    async fn an_upload_that_stops_coming_is_given_up(backend) {
        let app = TestApp::start_with(backend, |o| o.timeouts.body_idle = Duration::from_millis(300)).await;
        let ehr = app.client("ehr").await;
        for (path, content_type) in [("/fhir/Binary", "application/pdf"), ("/fhir/Task", "application/fhir+json")] {
            let mut stream = connect(&ehr).await;
            stream.write_all(upload_head(&ehr, path, content_type, 100_000).as_bytes()).await.unwrap();
            stream.write_all(b"{\"resourceType\"").await.unwrap();
            let answer = until_closed(&mut stream).await;
            assert!(answer.starts_with("HTTP/1.1 4"), "{path}: {answer}");
            assert!(answer.contains("OperationOutcome"), "{path}: {answer}");
        }
        eventually("nothing is left", async || stored(&app).await == (0, 0)).await;
        assert_eq!(binaries_created(&app).await, 0);
    }

    async fn downloaders_that_vanish_leave_no_stream_behind(backend) {
        let app = TestApp::start(backend).await;
        let referral = Referral::with_content(&app, &vec![5; 20 * MIB]).await;
        let download = SlowDownload::start(&referral.lane, &referral.content_path(), 100_000).await;
        assert_eq!(app.server.app.streams.count(), 1);
        drop(download);
        eventually("the stream is gone", async || app.server.app.streams.count() == 0).await;
        eventually("its end is recorded", async || {
            referral.audited(&app).await.iter().any(|row| row.to_string().contains("redemption-interrupted"))
        })
        .await;
        assert_eq!(referral.grants().await[0]["uses"], 1);
    }

    async fn a_downloader_that_stops_reading_is_let_go(backend) {
        let app = TestApp::start_with(backend, |o| o.timeouts.body_idle = Duration::from_secs(1)).await;
        let referral = Referral::with_content(&app, &vec![5; 20 * MIB]).await;
        let mut download = SlowDownload::start(&referral.lane, &referral.content_path(), 100_000).await;
        eventually("the stream is gone", async || app.server.app.streams.count() == 0).await;
        let (_, whole) = download.read_to_end().await;
        assert!(!whole, "the client must see an error, not a short success");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_head_that_drips_in_is_cut_off_in_time() {
    let app = TestApp::start_with(Backend::Embedded, |o| {
        o.timeouts.request_header = Duration::from_secs(1);
    })
    .await;
    let stranger = app.stranger();
    let mut stream = connect(&stranger).await;
    let began = Instant::now();
    let mut closed = false;
    for byte in b"GET /fhir/metadata HTTP/1.1\r\nhost: handoff\r\nx-slow: "
        .iter()
        .chain([b'x'; 200].iter())
    {
        let mut sink = [0; 512];
        closed |= stream.write_all(&[*byte]).await.is_err();
        closed |= matches!(
            timeout(Duration::from_millis(50), stream.read(&mut sink)).await,
            Ok(Ok(0) | Err(_))
        );
        if closed {
            break;
        }
    }
    assert!(closed, "the server listened for {:?}", began.elapsed());
    assert!(
        began.elapsed() < Duration::from_secs(5),
        "it took {:?}",
        began.elapsed()
    );
    stranger.get("/fhir/metadata").await.expect(200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_says_nothing_does_not_stay() {
    let app = TestApp::start_with(Backend::Embedded, |o| {
        o.timeouts.request_header = Duration::from_secs(1);
        o.timeouts.keep_alive = Duration::from_secs(1);
    })
    .await;
    let mut silent = connect(&app.stranger()).await;
    until_closed(&mut silent).await;
    let mut idle = connect(&app.stranger()).await;
    idle.write_all(b"GET /fhir/metadata HTTP/1.1\r\nhost: handoff\r\n\r\n")
        .await
        .unwrap();
    assert!(until_closed(&mut idle).await.starts_with("HTTP/1.1 200"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_slow_readers_neither_starve_a_quick_one_nor_fill_the_memory() {
    const READERS: usize = 200;
    let mut server = Program::start(&["demo", "--no-play", "--port", "0"]);
    let (base, admin) = server.addresses().await;
    let http = http_client();
    let ehr = Client::sign_in(&http, &base, &base, "ehr").await;
    let lane = Client::sign_in(&http, &base, &base, "lane").await;
    let document = document(&ehr, &vec![3; 8 * MIB]).await;
    let body = task("accepted", &document.id, Some("Practitioner/lane"));
    let mut paths = Vec::new();
    for _ in 0..=READERS {
        let id = ehr.post("/fhir/Task", &body).await.expect(201).id();
        paths.push(format!("/fhir/Binary/{}?task=Task/{id}", document.binary));
    }
    let before = server.resident();
    let quick = paths.pop().unwrap();
    let slow = join_all(paths.iter().map(|path| SlowDownload::start(&lane, path, 1000))).await;
    let began = Instant::now();
    assert_eq!(
        lane.get(&quick).await.expect(200).body.len(),
        document.content.len()
    );
    assert!(
        began.elapsed() < Duration::from_secs(10),
        "the quick one took {:?}",
        began.elapsed()
    );
    // A block being gathered, one being sent and some change for each.
    let grown = server.resident().saturating_sub(before);
    assert!(
        grown < READERS as u64 * 768 * 1024,
        "{} KiB for each",
        grown / READERS as u64 / 1024
    );
    drop(slow);
    eventually("no stream is left", async || {
        let metrics = http
            .get(format!("{admin}/metrics"))
            .send()
            .await
            .unwrap()
            .text()
            .await
            .unwrap();
        let running = metrics.lines().find(|line| line.starts_with("handoff_streams"));
        running.is_some_and(|line| line.ends_with(" 0"))
    })
    .await;
    server.signal("TERM");
    assert_eq!(server.ended().await, Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_without_a_length_is_bounded_while_it_comes() {
    let app = TestApp::start_with(Backend::Embedded, |o| {
        o.limits.max_binary = 100_000;
        o.timeouts.disconnect = Duration::from_secs(1);
    })
    .await;
    let ehr = app.client("ehr").await;
    let mut stream = connect(&ehr).await;
    let token = ehr.token.as_deref().unwrap();
    let head = format!(
        "POST /fhir/Binary HTTP/1.1\r\nhost: handoff\r\nauthorization: Bearer {token}\r\n\
         content-type: application/pdf\r\ntransfer-encoding: chunked\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    for _ in 0..200 {
        if stream
            .write_all(format!("2710\r\n{}\r\n", "x".repeat(10_000)).as_bytes())
            .await
            .is_err()
        {
            break;
        }
    }
    // The body never ends, and the server does not wait for that.
    let answer = until_closed(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
    let outcome: Value = serde_json::from_str(answer.split("\r\n\r\n").nth(1).unwrap()).unwrap();
    assert_eq!(outcome["issue"][0]["code"], "too-long");
    eventually("nothing is left", async || stored(&app).await == (0, 0)).await;
}
