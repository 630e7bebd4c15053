//! Bytes in flight: cut when their reason ends, resumed after an interruption, never wrong.

use std::time::{Duration, Instant};

use futures_util::StreamExt;
use handoff::app::Caller;
use handoff::app::redeem::{Fetch, Fetched};
use handoff_domain::access::{Principal, Role};
use handoff_domain::audit::{Agent, Context};
use handoff_domain::ids::{ActorRef, BinaryId, CorrelationId, TenantId};
use handoff_domain::ports::Clock;
use handoff_domain::time::Span;
use handoff_integration_tests::scene::{Referral, document_reference, noise, upload};
use handoff_integration_tests::slow::SlowDownload;
use handoff_integration_tests::{Backend, TestApp, eventually, on_both};
use reqwest::Method;
use serde_json::json;
use sha2::{Digest, Sha256};

const MIB: usize = 1024 * 1024;

/// Fails unless the download breaks off soon, having sent no more than was on its way.
async fn expect_cut(mut download: SlowDownload, content: &[u8]) {
    let began = Instant::now();
    let (bytes, clean) = download.read_to_end().await;
    assert!(
        !clean && bytes.len() < content.len(),
        "the client must see an error, not a short success"
    );
    assert!(content.starts_with(&bytes), "what was sent was right");
    assert!(
        began.elapsed() < Duration::from_secs(5),
        "the cut took {:?}",
        began.elapsed()
    );
}

on_both! {
    async fn completing_a_task_cuts_the_download_in_flight(backend) {
        let app = TestApp::start(backend).await;
        let content = noise(200 * MIB);
        let referral = Referral::with_content(&app, &content).await;
        referral.move_to(&referral.lane, "in-progress").await.expect(200);
        let download = SlowDownload::start(&referral.lane, &referral.content_path(), 300_000).await;
        referral.move_to(&referral.lane, "completed").await.expect(200);
        expect_cut(download, &content).await;
        eventually("the cut is in the audit", async || {
            referral.audited(&app).await.iter().any(|row| row.to_string().contains("redemption-cut-off"))
        })
        .await;
        eventually("no stream is left", async || app.server.app.streams.count() == 0).await;
    }

    async fn a_hold_cuts_the_download_and_coming_back_lets_it_go_on(backend) {
        let app = TestApp::start(backend).await;
        let content = noise(20 * MIB);
        let referral = Referral::with_content(&app, &content).await;
        let mut download = SlowDownload::start(&referral.lane, &referral.content_path(), 300_000).await;
        referral.move_to(&referral.lane, "on-hold").await.expect(200);
        let (bytes, clean) = download.read_to_end().await;
        assert!(!clean);
        let etag = format!("\"{:x}\"", Sha256::digest(&content));
        resume(&referral, &etag, bytes.len()).await.refused(403, "task-on-hold");
        referral.move_to(&referral.lane, "accepted").await.expect(200);
        let mut rest = None;
        eventually("the download goes on", async || {
            let answer = resume(&referral, &etag, bytes.len()).await;
            let resumed = answer.status == 206;
            rest = Some(answer);
            resumed
        })
        .await;
        let whole = [bytes, rest.unwrap().body].concat();
        assert_eq!(Sha256::digest(&whole), Sha256::digest(&content));
        assert_eq!(referral.grants().await[0]["uses"], 1);
    }

    async fn an_interrupted_download_goes_on_and_ends_with_the_right_bytes_under_one_use(backend) {
        let app = TestApp::start(backend).await;
        let content = noise(12 * MIB + 17);
        let referral = Referral::with_content(&app, &content).await;
        let mut download = SlowDownload::start(&referral.lane, &referral.content_path(), 200_000).await;
        let mut got = download.read_some(3 * MIB).await;
        let etag = download.header("etag").unwrap();
        drop(download);
        // Neither another application of the same person nor a plain repetition goes on with it.
        let viewer = app.client("viewer-app").await;
        let mut foreign = resume_as(&viewer, &referral, &etag, got.len()).await;
        if foreign.status == 409 {
            foreign = resume_as(&viewer, &referral, &etag, got.len()).await;
        }
        foreign.refused(403, "constraint-client");
        referral.fetch(&referral.lane).await.refused(403, "exhausted");
        let answer = resume(&referral, &etag, got.len()).await.expect(206);
        let range = format!("bytes {}-{}/{}", got.len(), content.len() - 1, content.len());
        assert_eq!(answer.header("content-range"), Some(range.as_str()));
        got.extend_from_slice(&answer.body);
        assert_eq!(Sha256::digest(&got), Sha256::digest(&content));
        let grants = referral.grants().await;
        assert_eq!((grants.len(), grants[0]["uses"].as_u64()), (1, Some(1)));
        eventually("it can't be replayed", async || {
            resume(&referral, &etag, 5).await.reason().as_deref() == Some("replayed")
        })
        .await;
    }

    async fn head_takes_no_use_and_tells_what_get_would(backend) {
        let app = TestApp::start(backend).await;
        let referral = Referral::set(&app).await;
        for _ in 0..5 {
            let head = referral.lane.head(&referral.content_path()).await.expect(200);
            let length = referral.document.content.len().to_string();
            assert_eq!(head.header("content-length"), Some(length.as_str()));
            assert!(head.header("etag").unwrap().starts_with('"'));
            assert!(head.body.is_empty());
        }
        referral.fetch(&referral.lane).await.expect(200);
        assert_eq!(referral.lane.head(&referral.content_path()).await.status, 403);
    }

    async fn the_wrapped_form_passes_the_same_gate_and_takes_the_same_use(backend) {
        let app = TestApp::start(backend).await;
        let referral = Referral::set(&app).await;
        let wrapped = || referral.lane.request(Method::GET, &referral.content_path()).header("accept", "application/fhir+json");
        let answer = referral.lane.send(wrapped()).await.expect(200).json();
        assert_eq!(answer["resourceType"], "Binary");
        let data = handoff_fhir_model::binary::decode(answer["data"].as_str().unwrap()).unwrap();
        assert_eq!(data, referral.document.content);
        referral.lane.send(wrapped()).await.refused(403, "exhausted");
    }

    async fn content_over_ten_mebibytes_is_only_given_raw(backend) {
        let app = TestApp::start(backend).await;
        let content = noise(10 * MIB + 1);
        let referral = Referral::with_content(&app, &content).await;
        let wrapped = referral.lane.request(Method::GET, &referral.content_path()).header("accept", "application/fhir+json");
        referral.lane.send(wrapped).await.expect(406);
        assert_eq!(referral.fetch(&referral.lane).await.expect(200).body, content);
    }

    async fn an_empty_document_is_fetched_once_like_any_other(backend) {
        let app = TestApp::start(backend).await;
        let referral = Referral::with_content(&app, b"").await;
        assert!(referral.fetch(&referral.lane).await.expect(200).body.is_empty());
        referral.fetch(&referral.lane).await.refused(403, "exhausted");
    }

    async fn a_client_that_takes_some_bytes_and_vanishes_has_had_its_use(backend) {
        let app = TestApp::start(backend).await;
        for length in [2_000, 31_000, 32 * 1024, 33_000, 70_000] {
            let referral = Referral::with_content(&app, &noise(length)).await;
            let download = SlowDownload::start(&referral.lane, &referral.content_path(), 1_000).await;
            let etag = download.header("etag").unwrap();
            // Dropped with bytes unread, the connection is reset.
            drop(download);
            eventually("the stream has ended", async || app.server.app.streams.count() == 0).await;
            referral.fetch(&referral.lane).await.refused(403, "exhausted");
            assert_eq!(referral.grants().await[0]["uses"], 1, "{length} bytes");
            // All of it may have been written before the reset was seen; else the same client goes on.
            let again = resume(&referral, &etag, 0).await;
            assert!(again.status == 206 || again.reason().as_deref() == Some("replayed"), "{}", again.status);
        }
    }

    async fn a_piece_that_was_handed_over_counts_even_if_nothing_is_asked_beyond_it(backend) {
        let app = TestApp::start(backend).await;
        let (server, lane) = (&app.server.app, lane_herself(&app));
        let referral = Referral::with_content(&app, &noise(70_000)).await;
        let fetch = Fetch {
            binary: BinaryId::parse(referral.document.binary.as_str()).unwrap(),
            task: None,
            resume: None,
            head: false,
            at_most: None,
            break_glass: None,
        };
        // Nothing was handed over: the use is given back.
        drop(server.fetch_binary(&lane, fetch.clone()).await.unwrap());
        eventually("the use is given back", async || referral.grants().await[0]["uses"] == 0).await;
        // One piece was: it is not.
        let Ok(Fetched::Content(ticket)) = server.fetch_binary(&lane, fetch).await else {
            panic!("the gate is open")
        };
        let mut content = server.open_content(&lane, *ticket).await.unwrap();
        assert!(!content.next().await.unwrap().unwrap().is_empty());
        drop(content);
        eventually("the stream has ended", async || server.streams.count() == 0).await;
        assert_eq!(referral.grants().await[0]["uses"], 1);
        referral.fetch(&referral.lane).await.refused(403, "exhausted");
    }

    async fn the_wrapped_form_is_cut_like_any_other_stream(backend) {
        let app = TestApp::start(backend).await;
        let referral = Referral::with_content(&app, &noise(9 * MIB)).await;
        let path = format!("{}&_format=json", referral.content_path());
        let mut download = SlowDownload::start(&referral.lane, &path, 100_000).await;
        referral.move_to(&referral.ehr, "cancelled").await.expect(200);
        let (bytes, whole) = download.read_to_end().await;
        assert!(!whole && bytes.len() < 2 * MIB, "{} bytes came after the cut", bytes.len());
    }

    async fn a_due_date_that_passes_cuts_the_download_in_flight(backend) {
        let app = TestApp::start(backend).await;
        let content = noise(50 * MIB);
        let referral = Referral::with_content(&app, &content).await;
        let due = app.clock.now().plus(Span::hours(1)).to_instant();
        referral
            .change(&referral.ehr, |task| task["restriction"] = json!({"period": {"end": due}}))
            .await
            .expect(200);
        let download = SlowDownload::start(&referral.lane, &referral.content_path(), 300_000).await;
        app.clock.advance(Span::minutes(61));
        expect_cut(download, &content).await;
    }

    async fn a_head_with_a_range_takes_nothing_of_an_interrupted_download(backend) {
        let app = TestApp::start(backend).await;
        let content = noise(4 * MIB);
        let referral = Referral::with_content(&app, &content).await;
        let mut download = SlowDownload::start(&referral.lane, &referral.content_path(), 200_000).await;
        let got = download.read_some(MIB).await;
        let etag = download.header("etag").unwrap();
        drop(download);
        let head = referral
            .lane
            .request(Method::HEAD, &referral.content_path())
            .header("range", format!("bytes={}-", got.len()))
            .header("if-range", &etag);
        referral.lane.send(head).await;
        let rest = resume(&referral, &etag, got.len()).await.expect(206);
        assert!([got, rest.body].concat() == content);
    }

    async fn superseding_a_document_cuts_its_download(backend) {
        let app = TestApp::start(backend).await;
        let content = noise(50 * MIB);
        let referral = Referral::with_content(&app, &content).await;
        let download = SlowDownload::start(&referral.lane, &referral.content_path(), 300_000).await;
        let binary = upload(&referral.ehr, b"newer").await;
        let mut newer = document_reference(&binary, "Patient/ada");
        newer["relatesTo"] = json!([{"code": "replaces",
            "target": {"reference": format!("DocumentReference/{}", referral.document.id)}}]);
        referral.ehr.post("/fhir/DocumentReference", &newer).await.expect(201);
        expect_cut(download, &content).await;
    }
}

/// Dr. Lane as the use cases see her, without HTTP between.
fn lane_herself(app: &TestApp) -> Caller {
    let principal = Principal {
        tenant: TenantId::default_tenant(),
        issuer: "test".to_owned(),
        subject: "lane".to_owned(),
        client: "lane".to_owned(),
        actor: ActorRef::parse("Practitioner/lane").unwrap(),
        delegate: None,
        roles: [Role::Fulfiller].into(),
        teams: ["cardiology".to_owned()].into(),
        scopes: std::collections::BTreeSet::new(),
        patient: None,
        key: None,
        token_id: "test".to_owned(),
        attributes: handoff_domain::access::Attributes::default(),
    };
    let context = Context {
        tenant: TenantId::default_tenant(),
        correlation: CorrelationId::parse("test").unwrap(),
        now: app.clock.now(),
        agent: std::sync::Arc::new(Agent::default()),
    };
    Caller {
        principal: std::sync::Arc::new(principal),
        context,
        session: None,
        caps: handoff::app::caps::Caps::Unbounded,
    }
}

async fn resume(referral: &Referral, etag: &str, from: usize) -> handoff_integration_tests::Answer {
    resume_as(&referral.lane, referral, etag, from).await
}

async fn resume_as(
    client: &handoff_integration_tests::Client,
    referral: &Referral,
    etag: &str,
    from: usize,
) -> handoff_integration_tests::Answer {
    let request = client
        .request(Method::GET, &referral.content_path())
        .header("range", format!("bytes={from}-"))
        .header("if-range", etag);
    client.send(request).await
}

/// A byte that was flipped in the store never leaves: what comes before it may, then the connection breaks.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flipped_byte_never_leaves_the_server() {
    let app = TestApp::start(Backend::Embedded).await;
    let content = noise(MIB);
    let referral = Referral::with_content(&app, &content).await;
    let stored = app
        .folder()
        .join("blobs")
        .join("default")
        .join(&referral.document.binary);
    let mut bytes = std::fs::read(&stored).unwrap();
    let at = 600_000;
    bytes[at] ^= 1;
    std::fs::write(&stored, &bytes).unwrap();
    let mut download = SlowDownload::start(&referral.lane, &referral.content_path(), 1).await;
    let (got, clean) = download.read_to_end().await;
    assert!(!clean && got.len() <= at && content.starts_with(&got));
    eventually("the failure is in the audit", async || {
        referral
            .audited(&app)
            .await
            .iter()
            .any(|row| row.to_string().contains("integrity-failed"))
    })
    .await;
}

/// In the first block, nothing leaves at all: the answer says so, and the use is given back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_corrupt_beginning_is_an_error_and_costs_no_use() {
    let app = TestApp::start(Backend::Embedded).await;
    let content = noise(MIB);
    let referral = Referral::with_content(&app, &content).await;
    let stored = app
        .folder()
        .join("blobs")
        .join("default")
        .join(&referral.document.binary);
    let mut bytes = content.clone();
    bytes[10] ^= 1;
    std::fs::write(&stored, &bytes).unwrap();
    referral
        .fetch(&referral.lane)
        .await
        .refused(500, "integrity-failed");
    eventually("the use is given back", async || {
        referral.grants().await[0]["status"] == "bound"
    })
    .await;
    std::fs::write(&stored, &content).unwrap();
    assert_eq!(referral.fetch(&referral.lane).await.expect(200).body, content);
}

/// Behind our back, somebody writes other content under the same name in the container: the pin holds.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn content_replaced_in_the_container_is_not_served() {
    let app = TestApp::start(Backend::Production).await;
    let referral = Referral::set(&app).await;
    app.replace_content(&referral.document.binary, b"forged").await;
    referral
        .fetch(&referral.lane)
        .await
        .refused(500, "integrity-failed");
}
