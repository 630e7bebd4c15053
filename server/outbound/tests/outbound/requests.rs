//! What arrives at the other side.

use handoff_domain::ports::{HeaderError, Outbound as _, OutboundMethod, OutboundRequest, SendError};
use handoff_outbound::Guarded;
use handoff_outbound::signing::{SigningSecret, headers};

use crate::support::{Doorbell, Peer, Reply, get, plain_loopback, post};

fn lines(request: &str) -> Vec<String> {
    let (head, _) = request.split_once("\r\n\r\n").unwrap();
    head.lines().map(str::to_lowercase).collect()
}

#[tokio::test]
async fn a_delivery_arrives_as_it_was_signed() {
    let peer = Peer::plain("127.0.0.1", Reply::status("202 Accepted")).await;
    let outbound = Guarded::new(&plain_loopback()).unwrap();
    let body = br#"{"resourceType":"Bundle"}"#;
    let secret = SigningSecret::new([7; 32]);
    let mut request = post(&peer.url("/hook?tenant=north"), body);
    for (name, value) in headers(std::slice::from_ref(&secret), "msg_1", 1_614_265_330, body) {
        request.headers.push((name.to_owned(), value));
    }
    request
        .headers
        .push(("Content-Type".to_owned(), "application/fhir+json".to_owned()));
    assert_eq!(outbound.send(request).await.unwrap().status, 202);
    let arrived = peer.requests().remove(0);
    let signature = secret.sign("msg_1", 1_614_265_330, body);
    assert!(
        arrived.contains(&format!("webhook-signature: {signature}\r\n")),
        "{arrived}"
    );
    assert!(
        arrived.ends_with("\r\n\r\n{\"resourceType\":\"Bundle\"}"),
        "{arrived}"
    );
    let lines = lines(&arrived);
    assert_eq!(lines[0], "post /hook?tenant=north http/1.1");
    for expected in [
        "webhook-id: msg_1",
        "webhook-timestamp: 1614265330",
        "content-type: application/fhir+json",
        "content-length: 25",
        concat!("user-agent: handoff/", env!("CARGO_PKG_VERSION")),
    ] {
        assert!(lines.iter().any(|line| line == expected), "{expected}: {lines:?}");
    }
    for unwanted in [
        "accept-encoding",
        "referer",
        "cookie",
        "transfer-encoding",
        "connection",
    ] {
        assert!(!lines.iter().any(|line| line.starts_with(unwanted)), "{lines:?}");
    }
}

#[tokio::test]
async fn each_method_is_sent_with_a_body_where_it_has_one() {
    let peer = Peer::plain("127.0.0.1", Reply::status("200 OK")).await;
    let outbound = Guarded::new(&plain_loopback()).unwrap();
    for (method, body, length) in [
        (OutboundMethod::Get, "", None),
        (OutboundMethod::Delete, "", None),
        (OutboundMethod::Post, "", Some("content-length: 0")),
        (OutboundMethod::Put, "", Some("content-length: 0")),
        (OutboundMethod::Post, "{}", Some("content-length: 2")),
        (OutboundMethod::Put, "{}", Some("content-length: 2")),
    ] {
        let request = OutboundRequest {
            method,
            ..post(&peer.url("/"), body.as_bytes())
        };
        outbound.send(request).await.unwrap();
        let arrived = peer.requests().pop().unwrap();
        let lines = lines(&arrived);
        assert!(arrived.starts_with(method.as_str()), "{arrived}");
        let found = lines.iter().find(|line| line.starts_with("content-length"));
        assert_eq!(found.map(String::as_str), length, "{arrived}");
        assert!(arrived.ends_with(&format!("\r\n\r\n{body}")), "{arrived}");
    }
}

#[tokio::test]
async fn a_header_that_would_break_the_request_keeps_it_here() {
    let doorbell = Doorbell::hang().await;
    let outbound = Guarded::new(&plain_loopback()).unwrap();
    for (name, value, expected) in [
        ("X-A", "1\r\nHost: 10.0.0.1", HeaderError::Value),
        ("X-A", "1\n\nGET /admin HTTP/1.1", HeaderError::Value),
        ("X-A", "1\0", HeaderError::Value),
        ("X-A: 1\r\nX-B", "1", HeaderError::Name),
        ("", "1", HeaderError::Name),
        ("Host", "10.0.0.1", HeaderError::Reserved),
        ("content-length", "0", HeaderError::Reserved),
        ("Transfer-Encoding", "chunked", HeaderError::Reserved),
        ("Connection", "upgrade", HeaderError::Reserved),
        ("Upgrade", "h2c", HeaderError::Reserved),
        ("Expect", "100-continue", HeaderError::Reserved),
        ("Proxy-Authorization", "Basic YTpi", HeaderError::Reserved),
    ] {
        let mut request = get(&format!("http://127.0.0.1:{}/", doorbell.port()));
        request.headers.push((name.to_owned(), value.to_owned()));
        let sent = outbound.send(request).await;
        assert_eq!(sent, Err(SendError::Header(expected)), "{name:?}: {value:?}");
    }
    doorbell.nobody_came().await;
}
