//! What is taken of an answer, however long, slow or strange it is.

use std::time::{Duration, Instant};

use tokio::net::TcpSocket;

use handoff_domain::ports::{Outbound as _, OutboundAnswer, OutboundRequest, SendError};
use handoff_outbound::Guarded;

use crate::support::{PATIENCE, Peer, Reply, get, plain_loopback, post};

async fn ask(
    reply: Reply,
    request: impl FnOnce(&str) -> OutboundRequest,
) -> Result<OutboundAnswer, SendError> {
    let peer = Peer::plain("127.0.0.1", reply).await;
    let outbound = Guarded::new(&plain_loopback()).unwrap();
    outbound.send(request(&peer.url("/"))).await
}

fn at_most(limit: usize) -> impl FnOnce(&str) -> OutboundRequest {
    move |url| OutboundRequest {
        answer_limit: limit,
        ..get(url)
    }
}

fn within(timeout: Duration) -> impl FnOnce(&str) -> OutboundRequest {
    move |url| OutboundRequest { timeout, ..get(url) }
}

#[tokio::test]
async fn an_answer_tells_what_the_next_request_needs() {
    let headers =
        "ETag: W/\"3\"\r\nLocation: https://ehr.example/Task/1\r\nContent-Type: application/fhir+json\r\n";
    let answer = ask(Reply::message("201 Created", headers, b"{}"), get)
        .await
        .unwrap();
    let expected = OutboundAnswer {
        status: 201,
        retry_after: None,
        etag: Some("W/\"3\"".to_owned()),
        location: Some("https://ehr.example/Task/1".to_owned()),
        content_type: Some("application/fhir+json".to_owned()),
        body: b"{}".to_vec(),
    };
    assert_eq!(answer, expected);
}

#[tokio::test]
async fn whoever_is_busy_says_when_to_come_back() {
    for (headers, expected) in [
        ("Retry-After: 120\r\n", 120),
        ("Retry-After: 999999\r\n", 86_400),
        (
            "Date: Sun, 06 Nov 1994 12:00:00 GMT\r\nRetry-After: Sun, 06 Nov 1994 12:00:30 GMT\r\n",
            30,
        ),
    ] {
        let reply = Reply::message("503 Service Unavailable", headers, b"");
        let answer = ask(reply, get).await.unwrap();
        assert_eq!(
            answer.retry_after,
            Some(Duration::from_secs(expected)),
            "{headers}"
        );
    }
}

#[tokio::test]
async fn a_failure_is_an_answer() {
    for (line, status) in [
        ("400 Bad Request", 400),
        ("410 Gone", 410),
        ("500 Internal Server Error", 500),
    ] {
        let answer = ask(Reply::status(line), |url| post(url, b"{}")).await.unwrap();
        assert_eq!(answer.status, status);
    }
}

#[tokio::test]
async fn a_body_is_read_up_to_its_limit() {
    let chunked = Reply::Bytes(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nabcd\r\n4\r\nefgh\r\n0\r\n\r\n".to_vec(),
    );
    for reply in [Reply::message("200 OK", "", b"abcdefgh"), chunked] {
        let answer = ask(reply.clone(), at_most(8)).await.unwrap();
        assert_eq!(answer.body, b"abcdefgh");
        assert_eq!(ask(reply.clone(), at_most(7)).await, Err(SendError::TooLarge));
        assert_eq!(ask(reply, at_most(0)).await.unwrap().body, b"");
    }
}

#[tokio::test]
async fn an_endless_body_is_too_large_or_of_no_interest() {
    let endless = Reply::Endless(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec(),
        [b"1000\r\n", &[b'a'; 0x1000][..], b"\r\n"].concat(),
        Duration::ZERO,
    );
    assert_eq!(
        ask(endless.clone(), at_most(100_000)).await,
        Err(SendError::TooLarge)
    );
    assert_eq!(ask(endless, at_most(0)).await.unwrap().status, 200);
    let stated = Reply::Bytes(b"HTTP/1.1 200 OK\r\nContent-Length: 999999999999\r\n\r\n".to_vec());
    assert_eq!(ask(stated, at_most(100_000)).await, Err(SendError::TooLarge));
}

#[tokio::test]
async fn endless_headers_are_no_answer() {
    let many_short = "X-A: a\r\n".repeat(1000);
    let many_long = format!("X-A: {}\r\n", "a".repeat(10_000));
    let one_without_end = "a".repeat(10_000);
    for headers in [many_short, many_long, one_without_end] {
        let endless = Reply::Endless(
            b"HTTP/1.1 200 OK\r\n".to_vec(),
            headers.into_bytes(),
            Duration::ZERO,
        );
        assert_eq!(ask(endless, get).await, Err(SendError::Protocol));
    }
}

#[tokio::test]
async fn endless_interim_answers_are_no_answer() {
    let interim = b"HTTP/1.1 103 Early Hints\r\n\r\n".to_vec();
    let endless = Reply::Endless(Vec::new(), interim, Duration::from_millis(5));
    assert_eq!(
        ask(endless, within(Duration::from_millis(300))).await,
        Err(SendError::TimedOut)
    );
}

#[tokio::test]
async fn an_answer_that_drips_ends_with_the_time_it_was_given() {
    let pace = Duration::from_millis(10);
    let drips = [
        Reply::Endless(b"HTTP/1.1 200 OK\r\n\r\n".to_vec(), b"a".to_vec(), pace),
        Reply::Endless(
            b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n".to_vec(),
            b"a".to_vec(),
            pace,
        ),
        Reply::Endless(b"HTTP/1.1 200 OK\r\nX-A: ".to_vec(), b"a".to_vec(), pace),
        Reply::Silence,
    ];
    for drip in drips {
        let began = Instant::now();
        let found = ask(drip, within(Duration::from_millis(300))).await;
        assert_eq!(found, Err(SendError::TimedOut));
        assert!(began.elapsed() < PATIENCE / 2);
    }
}

#[tokio::test]
async fn a_compressed_body_stays_as_it_is() {
    // The gzip of nothing.
    let gzip = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    for encoding in ["gzip", "br", "zstd", "deflate"] {
        let headers = format!("Content-Encoding: {encoding}\r\n");
        let answer = ask(Reply::message("200 OK", &headers, &gzip), get).await.unwrap();
        assert_eq!(answer.body, gzip, "{encoding}");
    }
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_none() {
    for bytes in [
        "",
        "HTTP/1.1 200 OK\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nab",
    ] {
        let found = ask(Reply::Last(bytes.into()), get).await;
        assert_eq!(found, Err(SendError::Unreachable), "{bytes:?}");
    }
}

#[tokio::test]
async fn what_is_not_http_is_no_answer() {
    for bytes in [
        "220 mail.example ESMTP\r\n",
        "HTTP/2 200\r\n\r\n",
        "HTTP/1.1 99999 OK\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX A: 1\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: a\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\nConnection: upgrade\r\n\r\n",
    ] {
        let found = ask(Reply::Last(bytes.into()), get).await;
        assert_eq!(found, Err(SendError::Protocol), "{bytes:?}");
    }
}

#[tokio::test]
async fn nobody_at_home_is_unreachable() {
    // Bound, so that nobody else is given the port, and never listening.
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let url = format!("http://{}/", socket.local_addr().unwrap());
    let outbound = Guarded::new(&plain_loopback()).unwrap();
    assert_eq!(outbound.send(get(&url)).await, Err(SendError::Unreachable));
}
