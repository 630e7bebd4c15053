//! Whom a TLS session is made with.

use std::sync::Arc;

use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpListener;

use handoff_domain::ports::{Outbound as _, SendError};
use handoff_outbound::{Guarded, Rules, RulesError};

use crate::support::{Authority, ELSEWHERE, Names, Peer, Reply, allowing, get};

#[tokio::test]
async fn a_server_has_to_prove_the_name_that_was_given() {
    let authority = Authority::new();
    let peer = Peer::tls(
        ELSEWHERE,
        authority.vouches_for("hooks.example"),
        Reply::status("200 OK"),
    )
    .await;
    let names = || {
        let names = Names::default()
            .with("hooks.example", &[&[ELSEWHERE]])
            .with("hooks.example.", &[&[ELSEWHERE]])
            .with("other.example", &[&[ELSEWHERE]]);
        Arc::new(names)
    };
    let trusting = Rules {
        extra_roots: vec![authority.pem()],
        ..allowing(ELSEWHERE)
    };
    let outbound = Guarded::with_resolver(&trusting, names()).unwrap();
    let url = |host: &str| format!("https://{host}:{}/", peer.port());
    for host in ["hooks.example", "HOOKS.example", "hooks.example."] {
        assert_eq!(
            outbound.send(get(&url(host))).await.unwrap().status,
            200,
            "{host}"
        );
    }
    for host in ["other.example", ELSEWHERE] {
        assert_eq!(
            outbound.send(get(&url(host))).await,
            Err(SendError::Tls),
            "{host}"
        );
    }
    let strict = Guarded::with_resolver(&allowing(ELSEWHERE), names()).unwrap();
    assert_eq!(strict.send(get(&url("hooks.example"))).await, Err(SendError::Tls));
    let expected_host = format!("host: hooks.example:{}\r\n", peer.port());
    assert!(peer.requests()[0].contains(&expected_host));
    assert_eq!(peer.requests().len(), 3);
}

#[tokio::test]
async fn a_server_without_tls_is_no_server() {
    let listener = TcpListener::bind((ELSEWHERE, 0)).await.unwrap();
    let url = format!("https://{}/", listener.local_addr().unwrap());
    let mail = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(b"220 mail.example ESMTP\r\n").await.unwrap();
        stream
    });
    let outbound = Guarded::new(&allowing(ELSEWHERE)).unwrap();
    assert_eq!(outbound.send(get(&url)).await, Err(SendError::Tls));
    mail.await.unwrap();
}

#[test]
fn a_root_is_a_certificate() {
    for text in [
        "",
        "hello",
        "-----BEGIN CERTIFICATE-----\naGVsbG8=\n-----END CERTIFICATE-----\n",
    ] {
        let rules = Rules {
            extra_roots: vec![text.into()],
            ..Rules::default()
        };
        assert_eq!(Guarded::new(&rules).err(), Some(RulesError::Root), "{text:?}");
    }
}
