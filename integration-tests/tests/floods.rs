//! Clients in great numbers, and clients that send what none should: each limit is kept, told and counted, what was
//! taken is free again afterwards, and everybody else is served meanwhile.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use handoff::config::{AddressRange, Clients};
use handoff_integration_tests::process::Program;
use handoff_integration_tests::scene::{Referral, noise};
use handoff_integration_tests::slow::SlowDownload;
use handoff_integration_tests::{Backend, Client, TestApp, eventually, http_client, metric, on_both};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{interval, timeout};

use crate::bad_clients::{connect, until_closed, upload_head};

const MIB: usize = 1024 * 1024;
const ASK: &[u8] = b"HEAD /fhir/metadata HTTP/1.1\r\nhost: handoff\r\n\r\n";

/// A server with other limits for clients.
async fn limited(backend: Backend, change: impl FnOnce(&mut Clients)) -> TestApp {
    TestApp::start_with(backend, |o| change(&mut o.clients)).await
}

/// Asks for something without a body; whether it was answered.
async fn answered(stream: &mut TcpStream) -> bool {
    if stream.write_all(ASK).await.is_err() {
        return false;
    }
    let mut head = Vec::new();
    let whole = async {
        while !head.ends_with(b"\r\n\r\n") {
            if stream.read_buf(&mut head).await.ok()? == 0 {
                return None;
            }
        }
        Some(())
    };
    matches!(timeout(Duration::from_secs(10), whole).await, Ok(Some(()))) && head.starts_with(b"HTTP/1.1 200")
}

/// Connections that have each been answered once, as those of a client's pool.
async fn idle_connections(client: &Client, count: usize) -> Vec<TcpStream> {
    let mut idle = Vec::new();
    while idle.len() < count {
        let batch = (count - idle.len()).min(250);
        let opened = join_all((0..batch).map(async |_| {
            let mut stream = connect(client).await;
            assert!(answered(&mut stream).await, "a connection is not served");
            stream
        }));
        idle.extend(opened.await);
    }
    idle
}

on_both! {
    async fn a_client_that_takes_too_little_is_let_go_and_may_go_on(backend) {
        let app = limited(backend, |clients| {
            clients.least_download_rate = 4 << 20;
            clients.rate_window = Duration::from_secs(1);
        })
        .await;
        let counted = "handoff_connections_ended_total{reason=\"too-slow\"}";
        let before = app.metric(counted).await;
        let referral = Referral::with_content(&app, &noise(8 * MIB)).await;
        let mut download = SlowDownload::start(&referral.lane, &referral.content_path(), 1000).await;
        let etag = download.header("etag").unwrap();
        // It never stops taking, so it is never stalled.
        let (mut pace, mut had) = (interval(Duration::from_millis(50)), Vec::new());
        loop {
            pace.tick().await;
            let more = download.read_some(had.len() + 1).await;
            if more.len() == had.len() {
                break;
            }
            had = more;
        }
        assert!(had.len() < referral.document.content.len(), "it was let go of");
        eventually("it is counted", async || app.metric(counted).await > before).await;
        let rest = referral.lane.request(reqwest::Method::GET, &referral.content_path())
            .header("range", format!("bytes={}-", had.len()))
            .header("if-range", etag);
        had.extend(referral.lane.send(rest).await.expect(206).body);
        assert!(had == referral.document.content, "the rest is the rest");
        assert_eq!(referral.grants().await[0]["uses"], 1);
    }

    async fn a_body_that_drips_in_is_given_up(backend) {
        let app = limited(backend, |clients| {
            clients.least_upload_rate = 1 << 20;
            clients.rate_window = Duration::from_secs(1);
        })
        .await;
        let ehr = app.client("ehr").await;
        for (path, content_type) in [("/fhir/Binary", "application/pdf"), ("/fhir/Task", "application/fhir+json")] {
            let counted = "handoff_bodies_refused_total{reason=\"too-slow\"}";
            let before = app.metric(counted).await;
            let (mut reader, mut writer) = connect(&ehr).await.into_split();
            writer.write_all(upload_head(&ehr, path, content_type, MIB).as_bytes()).await.unwrap();
            let dripping = tokio::spawn(async move {
                let mut pace = interval(Duration::from_millis(20));
                while writer.write_all(&[b' '; 100]).await.is_ok() {
                    pace.tick().await;
                }
            });
            let mut answer = Vec::new();
            let given_up = timeout(Duration::from_secs(10), reader.read_to_end(&mut answer)).await;
            assert!(given_up.is_ok(), "{path}: the server goes on listening");
            let answer = String::from_utf8_lossy(&answer);
            assert!(answer.starts_with("HTTP/1.1 400"), "{path}: {answer}");
            assert!(answer.contains("OperationOutcome"), "{path}: {answer}");
            assert!(app.metric(counted).await > before, "{path}");
            dripping.await.unwrap();
        }
    }

    async fn a_download_too_many_is_refused_and_costs_no_use(backend) {
        let app = limited(backend, |clients| clients.max_downloads = 1).await;
        let counted = "handoff_transfers_refused_total{direction=\"download\"}";
        let before = app.metric(counted).await;
        let running = Referral::with_content(&app, &noise(4 * MIB)).await;
        let download = SlowDownload::start(&running.lane, &running.content_path(), 1000).await;
        let other = Referral::set(&app).await;
        let refused = other.fetch(&other.lane).await.refused(503, "rate-limited");
        assert!(refused.header("retry-after").is_some());
        assert_eq!(other.grants().await[0]["uses"], 0);
        assert!(app.metric(counted).await > before);
        drop(download);
        eventually("there is room again", async || app.metric("handoff_downloads").await < 1.0).await;
        other.fetch(&other.lane).await.expect(200);
    }

    async fn an_upload_too_many_is_refused_and_leaves_nothing(backend) {
        let app = limited(backend, |clients| clients.max_uploads = 1).await;
        let ehr = app.client("ehr").await;
        let mut running = connect(&ehr).await;
        let head = upload_head(&ehr, "/fhir/Binary", "application/pdf", MIB);
        running.write_all(head.as_bytes()).await.unwrap();
        eventually("it is under way", async || app.metric("handoff_uploads").await > 0.0).await;
        let refused = ehr.post_bytes("/fhir/Binary", "application/pdf", noise(1000)).await;
        refused.refused(503, "rate-limited");
        running.write_all(&noise(MIB)).await.unwrap();
        let mut answer = [0; 12];
        running.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"HTTP/1.1 201");
        ehr.post_bytes("/fhir/Binary", "application/pdf", noise(1000)).await.expect(201);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_beyond_the_memory_there_is_for_them_are_refused() {
    let app = limited(Backend::Embedded, |clients| clients.max_buffered = 100_000).await;
    let ehr = app.client("ehr").await;
    let mut running = connect(&ehr).await;
    let head = upload_head(&ehr, "/fhir/Task", "application/fhir+json", 90_000);
    running.write_all(head.as_bytes()).await.unwrap();
    running.write_all(&vec![b' '; 80_000]).await.unwrap();
    eventually("it is in memory", async || {
        app.metric("handoff_buffered_body_bytes").await >= 80_000.0
    })
    .await;
    let body = vec![b' '; 50_000];
    let refused = ehr.post_bytes("/fhir/Task", "application/fhir+json", body).await;
    refused.refused(503, "rate-limited");
    drop(running);
    eventually("there is room again", async || {
        app.metric("handoff_buffered_body_bytes").await < 1.0
    })
    .await;
    ehr.get("/fhir/Task").await.expect(200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_idle_connections_cost_little_and_keep_nobody_out() {
    const IDLE: usize = 10_000;
    let mut server = Program::start(&["demo", "--no-play", "--port", "0"]);
    let (base, admin) = server.addresses().await;
    let http = http_client();
    let lane = Client::sign_in(&http, &base, &base, "lane").await;
    lane.get("/fhir/Task").await.expect(200);
    let before = server.resident();
    let mut idle = idle_connections(&Client::anonymous(&http, &base), IDLE).await;
    assert!(metric(&http, &admin, "handoff_connections").await >= f64::from(10_000));
    let each = server.resident().saturating_sub(before) / IDLE as u64;
    assert!(each < 32 * 1024, "{each} bytes for each");

    let began = Instant::now();
    for _ in 0..20 {
        lane.get("/fhir/Task").await.expect(200);
    }
    assert!(
        began.elapsed() < Duration::from_secs(5),
        "{:?} for 20 searches",
        began.elapsed()
    );
    for stream in idle.iter_mut().step_by(997) {
        assert!(answered(stream).await, "an idle connection is as good as new");
    }
    drop(idle);
    eventually("their places are free", async || {
        metric(&http, &admin, "handoff_connections").await < 100.0
    })
    .await;
    server.signal("TERM");
    assert_eq!(server.ended().await, Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn beyond_the_places_there_are_clients_are_told_to_come_back() {
    let app = limited(Backend::Embedded, |clients| clients.max_connections = 20).await;
    let counted = "handoff_connections_refused_total{reason=\"full\"}";
    let before = app.metric(counted).await;
    let stranger = app.stranger();
    let mut busy = Vec::new();
    for _ in 0..20 {
        let mut stream = connect(&stranger).await;
        // Something has come, so it is not idle.
        stream.write_all(b"G").await.unwrap();
        busy.push(stream);
    }
    eventually("all places are taken", async || {
        app.metric("handoff_connections").await >= 20.0
    })
    .await;
    let told = until_closed(&mut connect(&stranger).await).await;
    assert!(told.starts_with("HTTP/1.1 503"), "{told}");
    assert!(told.contains("retry-after: "), "{told}");
    assert!(app.metric(counted).await > before);
    assert!(app.metric("handoff_connections").await <= 20.0);
    drop(busy);
    eventually("there are places again", async || {
        answered(&mut connect(&stranger).await).await
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_connections_that_say_nothing_keeps_nobody_out_for_long() {
    let app = limited(Backend::Embedded, |clients| clients.max_connections = 200).await;
    let stranger = app.stranger();
    let flood = join_all((0..1000).map(async |_| connect(&stranger).await)).await;
    eventually("somebody who asks is answered", async || {
        answered(&mut connect(&stranger).await).await
    })
    .await;
    assert!(
        app.metric("handoff_connections_ended_total{reason=\"crowded\"}")
            .await
            > 0.0
    );
    drop(flood);
    // And one of connections that are broken off as soon as they are there.
    for _ in 0..1000 {
        let stream = connect(&stranger).await;
        socket2::SockRef::from(&stream)
            .set_linger(Some(Duration::ZERO))
            .unwrap();
    }
    stranger.get("/fhir/metadata").await.expect(200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_address_takes_no_more_places_than_its_share() {
    let app = TestApp::start_with(Backend::Embedded, |o| {
        // Where no proxy is named this machine itself is taken for one.
        o.trusted_proxies = vec!["192.0.2.1/32".parse::<AddressRange>().unwrap()];
        o.clients.max_per_address = 5;
    })
    .await;
    let counted = "handoff_connections_refused_total{reason=\"address\"}";
    let before = app.metric(counted).await;
    let stranger = app.stranger();
    let mut busy = Vec::new();
    for _ in 0..5 {
        let mut stream = connect(&stranger).await;
        stream.write_all(b"G").await.unwrap();
        busy.push(stream);
    }
    eventually("its share is taken", async || {
        app.metric("handoff_connections").await >= 5.0
    })
    .await;
    let told = until_closed(&mut connect(&stranger).await).await;
    assert!(told.starts_with("HTTP/1.1 503"), "{told}");
    assert!(app.metric(counted).await > before);
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.7:0".parse().unwrap()).unwrap();
    let server = stranger.base.trim_start_matches("http://").parse().unwrap();
    let mut other = socket.connect(server).await.unwrap();
    assert!(answered(&mut other).await, "another address has its own share");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_head_beyond_the_limit_is_refused_however_it_gets_there() {
    let app = TestApp::start(Backend::Embedded).await;
    let stranger = app.stranger();
    let counted = "handoff_connections_ended_total{reason=\"header-too-large\"}";
    let long = "x".repeat(40_000);
    let many = "x-another: some value\r\n".repeat(2000);
    let heads = [
        format!("GET /fhir/metadata HTTP/1.1\r\nhost: handoff\r\nx: {long}\r\n\r\n"),
        format!("GET /fhir/metadata?{long} HTTP/1.1\r\nhost: handoff\r\n\r\n"),
        format!("GET /fhir/metadata HTTP/1.1\r\nhost: handoff\r\n{many}\r\n"),
        long,
    ];
    for head in heads {
        let before = app.metric(counted).await;
        let shown = &head[..60];
        // On its own, and after a request that was answered.
        for first in [false, true] {
            let mut stream = connect(&stranger).await;
            if first {
                assert!(answered(&mut stream).await);
            }
            // Who is refused may find the connection closed before all is sent.
            let _refused_early = stream.write_all(head.as_bytes()).await;
            let told = until_closed(&mut stream).await;
            assert!(
                told.starts_with("HTTP/1.1 431") || told.starts_with("HTTP/1.1 400"),
                "{shown}: {told}"
            );
        }
        eventually("both are counted", async || {
            app.metric(counted).await
                + app
                    .metric("handoff_connections_ended_total{reason=\"malformed\"}")
                    .await
                >= before + 2.0
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_behind_a_request_ends_the_connection_and_nothing_else() {
    let app = TestApp::start(Backend::Embedded).await;
    let stranger = app.stranger();
    let counted = "handoff_connections_ended_total{reason=\"malformed\"}";
    let before = app.metric(counted).await;
    let request =
        |headers: &str| format!("POST /fhir/Task HTTP/1.1\r\nhost: handoff\r\n{headers}\r\n").into_bytes();
    let garbage = [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 a client that speaks TLS\r\n\r\n".to_vec(),
        b"\0\0\0\0\r\n\r\n".to_vec(),
        b"GET /fhir/metadata HTTP/9.9\r\nhost: handoff\r\n\r\n".to_vec(),
        b"GET /fhir/metadata\r\n\r\n".to_vec(),
        b"GET  /fhir/metadata  HTTP/1.1\r\nhost: handoff\r\n\r\n".to_vec(),
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
        request("no colon here\r\n"),
        request("x\0y: z\r\n"),
        request("content-length : 3\r\n"),
        request("content-length: -1\r\n"),
        request("content-length: 3, 4\r\n"),
        request("content-length: 18446744073709551616\r\n"),
        request("content-length: 3\r\ncontent-length: 4\r\n"),
        request("content-length: 3\r\ntransfer-encoding: chunked\r\n"),
        request("transfer-encoding: chunked, identity\r\n"),
        noise(20_000),
    ];
    let sent = garbage.len();
    for bytes in garbage {
        let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(80)]).into_owned();
        let mut stream = connect(&stranger).await;
        stream.write_all(ASK).await.unwrap();
        let _refused_early = stream.write_all(&bytes).await;
        let told = until_closed(&mut stream).await;
        assert!(told.starts_with("HTTP/1.1 200"), "{shown}: {told}");
        let second = told.split("\r\n\r\n").nth(1).unwrap_or_default();
        assert!(
            second.is_empty() || second.starts_with("HTTP/1.1 4"),
            "{shown}: {second}"
        );
    }
    eventually("each is counted", async || {
        app.metric(counted).await >= before + f64::from(u32::try_from(sent).unwrap())
    })
    .await;
    stranger.get("/fhir/metadata").await.expect(200);
}

/// Each request that the HTTP server makes of what it has read takes two hundred times the memory of its bytes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_sent_ahead_by_clients_that_read_nothing_cost_neither_memory_nor_time() {
    const CLIENTS: usize = 50;
    let mut server = Program::start(&["demo", "--no-play", "--port", "0"]);
    let (base, _) = server.addresses().await;
    let stranger = Client::anonymous(&http_client(), &base);
    stranger.get("/fhir/metadata").await.expect(200);
    let before = server.resident();
    let ahead = "GET /handoff/x HTTP/1.1\r\nhost: a\r\n\r\n".repeat(5000);
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        let address = base.trim_start_matches("http://").parse().unwrap();
        let mut client = socket.connect(address).await.unwrap();
        // As much as the server and the network take of it.
        let _more = timeout(Duration::from_millis(100), client.write_all(ahead.as_bytes())).await;
        clients.push(client);
    }
    let each = server.resident().saturating_sub(before) / CLIENTS as u64;
    assert!(each < 512 * 1024, "{each} bytes for each");
    eventually("there is nothing to do", async || {
        let before = server.processor_time();
        tokio::time::sleep(Duration::from_millis(500)).await;
        server.processor_time().saturating_sub(before) < Duration::from_millis(100)
    })
    .await;
    stranger.get("/fhir/metadata").await.expect(200);
}

on_both! {
    async fn a_request_sent_ahead_changes_nothing_of_the_answer_before(backend) {
        let app = TestApp::start(backend).await;
        let referral = Referral::with_content(&app, &noise(300_000)).await;
        let mut stream = connect(&referral.lane).await;
        let token = referral.lane.token.as_deref().unwrap();
        let both = format!(
            "GET {} HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {token}\r\n\r\n\
             HEAD /fhir/metadata HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n",
            referral.content_path()
        );
        stream.write_all(both.as_bytes()).await.unwrap();
        let mut told = Vec::new();
        stream.read_to_end(&mut told).await.unwrap();
        let begins = told.windows(4).position(|w| w == b"\r\n\r\n").unwrap() + 4;
        let (content, rest) = told[begins..].split_at(300_000);
        assert!(content == referral.document.content, "the whole content");
        assert!(rest.starts_with(b"HTTP/1.1 200"), "and the answer to the next");
        assert!(rest.ends_with(b"\r\n\r\n"), "which has no body");
    }
}

/// Found by a hostile client: such connections stayed for ever, with nobody to hear that they had ended.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_that_nobody_wants_cost_no_place() {
    let app = TestApp::start_with(Backend::Embedded, |o| {
        o.timeouts.disconnect = Duration::from_secs(1);
    })
    .await;
    let stranger = app.stranger();
    let mut kept = Vec::new();
    for _ in 0..10 {
        let mut stream = connect(&stranger).await;
        let head = "POST /fhir/Binary HTTP/1.1\r\nhost: a\r\nauthorization: Bearer no\r\n\
                    content-type: a/b\r\ntransfer-encoding: chunked\r\n\r\n";
        stream.write_all(head.as_bytes()).await.unwrap();
        let chunk = format!("4000\r\n{}\r\n", "x".repeat(0x4000));
        for _ in 0..20 {
            // Who is refused may find the connection closed before all is sent.
            let _refused_early = stream.write_all(chunk.as_bytes()).await;
        }
        kept.push(stream);
    }
    eventually("their places are free", async || {
        app.metric("handoff_connections").await < 5.0
    })
    .await;
    drop(kept);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_short_body_that_nobody_wants_does_not_cost_the_connection() {
    let app = TestApp::start(Backend::Embedded).await;
    for request in [
        "POST /fhir/Task HTTP/1.1\r\nhost: a\r\ncontent-type: application/fhir+json\r\ncontent-length: 2\r\n\r\n{}",
        "GET /fhir/metadata HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\nhello",
        "GET /fhir/metadata HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        "PUT /nowhere HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    ] {
        let mut stream = connect(&app.stranger()).await;
        let began = Instant::now();
        for _ in 0..5 {
            stream.write_all(request.as_bytes()).await.unwrap();
        }
        let last = "GET /fhir/metadata HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
        stream.write_all(last.as_bytes()).await.unwrap();
        let told = until_closed(&mut stream).await;
        assert_eq!(told.matches("HTTP/1.1 ").count(), 6, "{request:?}: {told}");
        assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    }
}

/// The parser of the HTTP server gives up on such names, and badly.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_of_64_kib_behind_a_body_that_nobody_reads_gets_nowhere() {
    let app = TestApp::start(Backend::Embedded).await;
    let stranger = app.stranger();
    let name = "a".repeat(65_536);
    for body in [
        "transfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        "content-length: 3\r\n\r\nabc",
    ] {
        let mut stream = connect(&stranger).await;
        let request = format!("GET /fhir/metadata HTTP/1.1\r\nhost: a\r\n{body}");
        stream.write_all(request.as_bytes()).await.unwrap();
        let _refused_early = stream
            .write_all(format!("GET /fhir/metadata HTTP/1.1\r\nhost: a\r\n{name}: b\r\n\r\n").as_bytes())
            .await;
        let mut told = Vec::new();
        let closed = timeout(Duration::from_secs(10), stream.read_to_end(&mut told)).await;
        assert!(closed.is_ok(), "the server keeps the connection");
        let told = String::from_utf8_lossy(&told);
        assert_eq!(told.matches("HTTP/1.1 200").count(), 1, "{body:?}: {told}");
    }
    let ended = async |reason: &str| {
        app.metric(&format!("handoff_connections_ended_total{{reason=\"{reason}\"}}"))
            .await
    };
    eventually("each is counted as what it is", async || {
        ended("header-too-large").await + ended("unread-body").await >= 2.0
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_sent_far_ahead_are_answered_in_order() {
    const AHEAD: usize = 5000;
    let app = TestApp::start(Backend::Embedded).await;
    let (mut reader, mut writer) = connect(&app.stranger()).await.into_split();
    let sending = tokio::spawn(async move {
        for n in 0..AHEAD {
            let ask =
                format!("GET /nowhere HTTP/1.1\r\nhost: handoff\r\nx-correlation-id: ahead-{n}\r\n\r\n");
            writer.write_all(ask.as_bytes()).await.unwrap();
        }
        writer
    });
    let mut told = Vec::new();
    let last = format!("x-correlation-id: ahead-{}\r\n", AHEAD - 1);
    let all = async {
        while !told
            .windows(last.len())
            .rev()
            .take(8192)
            .any(|w| w == last.as_bytes())
        {
            assert_ne!(reader.read_buf(&mut told).await.unwrap(), 0, "closed too early");
        }
    };
    timeout(Duration::from_mins(1), all)
        .await
        .expect("all are answered");
    drop(sending.await.unwrap());
    let told = String::from_utf8_lossy(&told);
    let order: Vec<&str> = told
        .lines()
        .filter_map(|line| line.strip_prefix("x-correlation-id: ahead-"))
        .collect();
    let expected: Vec<String> = (0..AHEAD).map(|n| n.to_string()).collect();
    assert_eq!(order, expected);
}
