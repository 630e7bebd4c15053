//! A proxy is what the operator configured, and nothing that stands in the environment.

use std::env;
use std::process::Command;
use std::sync::Arc;

use handoff_domain::ports::{Outbound as _, SendError};
use handoff_outbound::{Guarded, Rules, RulesError};

use crate::support::{Authority, Doorbell, ELSEWHERE, Names, Peer, Reply, allowing, get, plain_loopback};

/// Set where a test runs under variables that name a proxy.
const UNDER_PROXY: &str = "HANDOFF_TEST_UNDER_PROXY";
const VARIABLES: [&str; 6] = [
    "HTTP_PROXY",
    "http_proxy",
    "HTTPS_PROXY",
    "https_proxy",
    "ALL_PROXY",
    "all_proxy",
];

#[tokio::test]
async fn proxies_of_the_environment_are_ignored() {
    if env::var_os(UNDER_PROXY).is_none() {
        // Variables can't be set beside other threads: the test runs once more, in a process of its own.
        let doorbell = Doorbell::hang().await;
        let mut again = Command::new(env::current_exe().unwrap());
        again
            .args(["--exact", "proxies::proxies_of_the_environment_are_ignored"])
            .env(UNDER_PROXY, "1")
            .env_remove("NO_PROXY")
            .env_remove("no_proxy");
        for variable in VARIABLES {
            again.env(variable, format!("http://127.0.0.1:{}", doorbell.port()));
        }
        let output = again.output().unwrap();
        assert!(output.status.success(), "{output:?}");
        assert!(
            String::from_utf8_lossy(&output.stdout).contains("1 passed"),
            "{output:?}"
        );
        doorbell.nobody_came().await;
        return;
    }
    assert!(env::var("HTTPS_PROXY").is_ok());
    let authority = Authority::new();
    let secure = Peer::tls(
        ELSEWHERE,
        authority.vouches_for(ELSEWHERE),
        Reply::status("200 OK"),
    )
    .await;
    let plain = Peer::plain(ELSEWHERE, Reply::status("200 OK")).await;
    let rules = Rules {
        plain_loopback: true,
        extra_roots: vec![authority.pem()],
        ..allowing(ELSEWHERE)
    };
    let outbound = Guarded::new(&rules).unwrap();
    let url = format!("https://{ELSEWHERE}:{}/", secure.port());
    assert_eq!(outbound.send(get(&url)).await.unwrap().status, 200);
    assert_eq!(outbound.send(get(&plain.url("/"))).await.unwrap().status, 200);
}

#[tokio::test]
async fn a_configured_proxy_is_given_the_name_and_looks_it_up_itself() {
    let proxy = Peer::plain(ELSEWHERE, Reply::Last(b"HTTP/1.1 403 Forbidden\r\n\r\n".to_vec())).await;
    let names = Arc::new(Names::default().with("proxy.internal", &[&[ELSEWHERE]]));
    let rules = Rules {
        proxy: Some(format!("http://user:secret@Proxy.internal:{}", proxy.port())),
        ..Rules::default()
    };
    assert!(!format!("{rules:?}").contains("secret"));
    let outbound = Guarded::with_resolver(&rules, Arc::clone(&names) as _).unwrap();
    let sent = outbound.send(get("https://hooks.example/secret")).await;
    assert_eq!(sent, Err(SendError::Unreachable));
    assert_eq!(names.asked(), ["proxy.internal"]);
    let asked = proxy.requests();
    assert_eq!(asked.len(), 1);
    assert!(
        asked[0].starts_with("CONNECT hooks.example:443 HTTP/1.1\r\n"),
        "{asked:?}"
    );
    assert!(!asked[0].contains("secret"), "{asked:?}");
    // What needs no name is judged as always, and never gets to the proxy.
    for url in [
        "https://127.0.0.1/",
        "https://2130706433/",
        "https://[::ffff:10.0.0.1]/",
    ] {
        assert_eq!(outbound.send(get(url)).await, Err(SendError::NotPublic), "{url}");
    }
    assert_eq!(proxy.connections(), 1);
}

#[tokio::test]
async fn plain_http_on_this_machine_goes_through_no_proxy() {
    let doorbell = Doorbell::hang().await;
    let peer = Peer::plain("127.0.0.1", Reply::status("200 OK")).await;
    let rules = Rules {
        proxy: Some(format!("http://127.0.0.1:{}", doorbell.port())),
        ..plain_loopback()
    };
    let outbound = Guarded::new(&rules).unwrap();
    assert_eq!(outbound.send(get(&peer.url("/"))).await.unwrap().status, 200);
    doorbell.nobody_came().await;
}

#[test]
fn a_proxy_is_an_http_or_https_url() {
    for text in [
        "",
        "proxy.internal:3128",
        "socks5://proxy.internal:1080",
        "file:///proxy",
        "http://",
    ] {
        let rules = Rules {
            proxy: Some(text.to_owned()),
            ..Rules::default()
        };
        assert_eq!(Guarded::new(&rules).err(), Some(RulesError::Proxy), "{text:?}");
    }
}
