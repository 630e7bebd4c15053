//! Whom nothing is sent to, in whatever way the address is written or resolved.

use std::sync::Arc;

use handoff_domain::ports::{EndpointError, Outbound as _, SendError};
use handoff_outbound::{Guarded, Rules};

use crate::support::{
    Authority, Doorbell, ELSEWHERE, Names, Peer, Reply, allowing, get, plain_loopback, post,
};

#[tokio::test]
async fn an_address_that_is_not_public_is_never_connected_to_however_it_is_written() {
    let doorbell = Doorbell::hang().await;
    let names = Arc::new(Names::default());
    let outbound = Guarded::with_resolver(&Rules::default(), Arc::clone(&names) as _).unwrap();
    for (what, host) in [
        ("loopback", "127.0.0.1"),
        ("loopback with a dot behind", "127.0.0.1."),
        ("another loopback address", "127.255.0.1"),
        ("short form", "127.1"),
        ("shorter form", "127.0.1"),
        ("decimal", "2130706433"),
        ("octal", "0177.0.0.1"),
        ("octal in one piece", "017700000001"),
        ("hexadecimal", "0x7f.0x0.0x0.0x1"),
        ("hexadecimal in one piece", "0x7f000001"),
        ("hexadecimal, upper case", "0X7F000001"),
        ("percent-encoded", "%31%32%37.0.0.1"),
        ("full-width digits", "１２７.0.0.1"),
        ("circled digits", "①②⑦.⓪.⓪.①"),
        ("ideographic dots", "127。0。0。1"),
        ("this network", "0.0.0.0"),
        ("zero", "0"),
        ("IPv6 loopback", "[::1]"),
        (
            "IPv6 loopback at length",
            "[0000:0000:0000:0000:0000:0000:0000:0001]",
        ),
        ("IPv6 unspecified", "[::]"),
        ("IPv4-mapped", "[::ffff:127.0.0.1]"),
        ("IPv4-mapped, hexadecimal", "[::FFFF:7F00:1]"),
        ("IPv4-compatible", "[::127.0.0.1]"),
        ("translated", "[64:ff9b::127.0.0.1]"),
        ("translated within a network", "[64:ff9b:1::7f00:1]"),
        ("6to4", "[2002:7f00:1::1]"),
        ("Teredo", "[2001:0:7f00:1::80ff:fffe]"),
        ("private, 10", "10.0.0.1"),
        ("private, 172.16", "172.16.0.1"),
        ("private, 192.168", "192.168.0.1"),
        ("carrier", "100.64.0.1"),
        ("link-local", "169.254.1.1"),
        ("metadata", "169.254.169.254"),
        ("metadata, decimal", "2852039166"),
        ("metadata, mapped", "[::ffff:a9fe:a9fe]"),
        ("metadata, translated", "[64:ff9b::a9fe:a9fe]"),
        ("metadata of Amazon by IPv6", "[fd00:ec2::254]"),
        ("metadata of Alibaba", "100.100.100.200"),
        ("metadata of Oracle", "192.0.0.192"),
        ("Azure's wire server", "168.63.129.16"),
        ("benchmarks", "198.18.0.1"),
        ("documentation", "203.0.113.1"),
        ("multicast", "224.0.0.1"),
        ("reserved", "240.0.0.1"),
        ("broadcast", "255.255.255.255"),
        ("unique local", "[fc00::1]"),
        ("IPv6 link-local", "[fe80::1]"),
        ("site-local", "[fec0::1]"),
        ("IPv6 multicast", "[ff02::1]"),
        ("IPv6 documentation", "[2001:db8::1]"),
        ("discard-only", "[100::1]"),
        ("segment routing", "[5f00::1]"),
    ] {
        let url = format!("https://{host}:{}/hook", doorbell.port());
        assert_eq!(
            outbound.check(&url),
            Err(EndpointError::NotPublic),
            "{what}: {url}"
        );
        let sent = outbound.send(post(&url, b"{}")).await;
        assert_eq!(sent, Err(SendError::NotPublic), "{what}: {url}");
    }
    assert_eq!(names.asked(), Vec::<String>::new());
    doorbell.nobody_came().await;
}

#[tokio::test]
async fn a_name_with_any_address_that_is_not_public_is_never_connected_to() {
    let doorbell = Doorbell::hang().await;
    for (what, url_host, name, answer) in [
        ("loopback", "a.example", "a.example", &["127.0.0.1"][..]),
        ("IPv6 loopback", "a.example", "a.example", &["::1"]),
        ("unspecified", "a.example", "a.example", &["0.0.0.0"]),
        ("private", "a.example", "a.example", &["10.1.2.3"]),
        ("metadata", "a.example", "a.example", &["169.254.169.254"]),
        ("wire server", "a.example", "a.example", &["168.63.129.16"]),
        ("mapped", "a.example", "a.example", &["::ffff:127.0.0.1"]),
        ("translated", "a.example", "a.example", &["64:ff9b::7f00:1"]),
        (
            "public, then private",
            "a.example",
            "a.example",
            &["93.184.216.34", "127.0.0.1"],
        ),
        (
            "private, then public",
            "a.example",
            "a.example",
            &["127.0.0.1", "93.184.216.34"],
        ),
        (
            "public IPv4, private IPv6",
            "a.example",
            "a.example",
            &["93.184.216.34", "::1"],
        ),
        ("upper case", "LocalHost", "localhost", &["127.0.0.1"]),
        ("a dot behind", "localhost.", "localhost.", &["127.0.0.1"]),
        (
            "a dot behind and upper case",
            "METADATA.INTERNAL.",
            "metadata.internal.",
            &["169.254.169.254"],
        ),
        ("under localhost", "a.localhost", "a.localhost", &["127.0.0.1"]),
        ("local", "printer.local", "printer.local", &["192.168.1.9"]),
        (
            "a number in a name",
            "127.0.0.1.a.example",
            "127.0.0.1.a.example",
            &["127.0.0.1"],
        ),
        (
            "another script",
            "bücher.example",
            "xn--bcher-kva.example",
            &["127.0.0.1"],
        ),
    ] {
        let names = Arc::new(Names::default().with(name, &[answer]));
        let outbound = Guarded::with_resolver(&Rules::default(), Arc::clone(&names) as _).unwrap();
        let url = format!("https://{url_host}:{}/hook", doorbell.port());
        assert_eq!(outbound.check(&url), Ok(()), "{what}: {url}");
        let sent = outbound.send(post(&url, b"{}")).await;
        assert_eq!(sent, Err(SendError::NotPublic), "{what}: {url}");
        assert_eq!(names.asked(), [name], "{what}");
    }
    doorbell.nobody_came().await;
}

#[tokio::test]
async fn a_private_address_behind_many_public_ones_is_seen() {
    let doorbell = Doorbell::hang().await;
    let mut answer = vec!["93.184.216.34"; 40];
    answer.push("127.0.0.1");
    let names = Names::default().with("hooks.example", &[&answer]);
    let outbound = Guarded::with_resolver(&Rules::default(), Arc::new(names)).unwrap();
    let url = format!("https://hooks.example:{}/", doorbell.port());
    assert_eq!(outbound.send(get(&url)).await, Err(SendError::NotPublic));
    doorbell.nobody_came().await;
}

#[tokio::test]
async fn the_name_service_of_the_system_is_not_trusted_either() {
    let doorbell = Doorbell::hang().await;
    let outbound = Guarded::new(&Rules::default()).unwrap();
    for host in ["localhost", "LOCALHOST"] {
        let url = format!("https://{host}:{}/", doorbell.port());
        assert_eq!(
            outbound.send(get(&url)).await,
            Err(SendError::NotPublic),
            "{host}"
        );
    }
    doorbell.nobody_came().await;
}

#[tokio::test]
async fn a_name_that_nobody_knows_or_that_has_no_address_is_unresolved() {
    let names = Names::default().with("empty.example", &[&[]]);
    let outbound = Guarded::with_resolver(&Rules::default(), Arc::new(names)).unwrap();
    for url in ["https://empty.example/", "https://unknown.example/"] {
        assert_eq!(outbound.send(get(url)).await, Err(SendError::Unresolved), "{url}");
    }
}

#[tokio::test]
async fn a_name_that_turns_private_after_it_was_checked_is_not_connected_to() {
    let doorbell = Doorbell::hang().await;
    let names = Arc::new(Names::default().with("hooks.example", &[&[ELSEWHERE], &["127.0.0.1"]]));
    let outbound = Guarded::with_resolver(&allowing(ELSEWHERE), Arc::clone(&names) as _).unwrap();
    let url = format!("https://hooks.example:{}/", doorbell.port());
    assert_eq!(outbound.check(&url), Ok(()));
    // Whoever looked before saw an address that is allowed.
    let seen = handoff_outbound::Lookup::addresses(&*names, "hooks.example").await;
    assert_eq!(seen.unwrap(), [ELSEWHERE.parse::<std::net::IpAddr>().unwrap()]);
    assert_eq!(outbound.send(get(&url)).await, Err(SendError::NotPublic));
    doorbell.nobody_came().await;
}

#[tokio::test]
async fn a_connection_goes_to_the_address_that_was_judged_and_each_new_one_is_judged_again() {
    let authority = Authority::new();
    let closing = Reply::Last(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n".to_vec());
    let peer = Peer::tls(ELSEWHERE, authority.vouches_for("hooks.example"), closing).await;
    let names = Arc::new(Names::default().with("hooks.example", &[&[ELSEWHERE], &["127.0.0.1"]]));
    let rules = Rules {
        extra_roots: vec![authority.pem()],
        ..allowing(ELSEWHERE)
    };
    let outbound = Guarded::with_resolver(&rules, Arc::clone(&names) as _).unwrap();
    let url = format!("https://hooks.example:{}/", peer.port());
    assert_eq!(outbound.send(get(&url)).await.unwrap().status, 200);
    assert_eq!(names.asked().len(), 1);
    assert_eq!(outbound.send(get(&url)).await, Err(SendError::NotPublic));
    assert_eq!(names.asked().len(), 2);
    assert_eq!(peer.connections(), 1);
}

#[tokio::test]
async fn a_connection_that_is_kept_is_used_again_and_asks_for_no_name() {
    let authority = Authority::new();
    let peer = Peer::tls(
        ELSEWHERE,
        authority.vouches_for("hooks.example"),
        Reply::status("204 No Content"),
    )
    .await;
    let names = Arc::new(Names::default().with("hooks.example", &[&[ELSEWHERE], &["127.0.0.1"]]));
    let rules = Rules {
        extra_roots: vec![authority.pem()],
        ..allowing(ELSEWHERE)
    };
    let outbound = Guarded::with_resolver(&rules, Arc::clone(&names) as _).unwrap();
    let url = format!("https://hooks.example:{}/", peer.port());
    for _ in 0..3 {
        assert_eq!(outbound.send(get(&url)).await.unwrap().status, 204);
    }
    assert_eq!((peer.connections(), names.asked().len()), (1, 1));
}

#[tokio::test]
async fn an_allowed_network_is_reached_and_its_neighbours_are_not() {
    let authority = Authority::new();
    let peer = Peer::tls(
        ELSEWHERE,
        authority.vouches_for(ELSEWHERE),
        Reply::status("200 OK"),
    )
    .await;
    let doorbell = Doorbell::hang().await;
    let rules = Rules {
        extra_roots: vec![authority.pem()],
        ..allowing(ELSEWHERE)
    };
    let names = Names::default().with("both.example", &[&[ELSEWHERE, "127.0.0.1"]]);
    let outbound = Guarded::with_resolver(&rules, Arc::new(names)).unwrap();
    let allowed = format!("https://{ELSEWHERE}:{}/", peer.port());
    assert_eq!(outbound.check(&allowed), Ok(()));
    assert_eq!(outbound.send(get(&allowed)).await.unwrap().status, 200);
    for host in ["127.0.0.1", "127.0.0.3", "[::1]", "both.example"] {
        let url = format!("https://{host}:{}/", doorbell.port());
        assert_eq!(
            outbound.send(get(&url)).await,
            Err(SendError::NotPublic),
            "{host}"
        );
    }
    doorbell.nobody_came().await;
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let doorbell = Doorbell::hang().await;
    for (line, status) in [
        ("300 Multiple Choices", 300),
        ("301 Moved Permanently", 301),
        ("302 Found", 302),
        ("303 See Other", 303),
        ("307 Temporary Redirect", 307),
        ("308 Permanent Redirect", 308),
    ] {
        let target = format!(
            "Location: http://127.0.0.1:{}/latest/meta-data/\r\n",
            doorbell.port()
        );
        let peer = Peer::plain(ELSEWHERE, Reply::message(line, &target, b"")).await;
        let outbound = Guarded::new(&plain_loopback()).unwrap();
        for request in [get(&peer.url("/")), post(&peer.url("/"), b"{}")] {
            let sent = outbound.send(request).await;
            assert_eq!(sent, Err(SendError::Redirected { status }), "{line}");
        }
    }
    doorbell.nobody_came().await;
}

#[tokio::test]
async fn plain_http_stays_on_this_machine_whatever_localhost_resolves_to() {
    let peer = Peer::plain("127.0.0.1", Reply::status("200 OK")).await;
    let names = Names::default()
        .with("localhost", &[&["127.0.0.1"]])
        .with("a.localhost", &[&["93.184.216.34"]])
        .with("b.localhost", &[&["127.0.0.1", "10.0.0.1"]]);
    let outbound = Guarded::with_resolver(&plain_loopback(), Arc::new(names)).unwrap();
    let url = |host: &str| format!("http://{host}:{}/", peer.port());
    for host in ["localhost", "LOCALHOST", "127.0.0.1", "127.1"] {
        assert_eq!(
            outbound.send(get(&url(host))).await.unwrap().status,
            200,
            "{host}"
        );
    }
    let reached = peer.connections();
    let refused = SendError::Endpoint(EndpointError::Scheme);
    for (host, expected) in [
        ("a.localhost", SendError::NotPublic),
        ("b.localhost", SendError::NotPublic),
        ("hooks.example", refused),
        ("10.0.0.1", refused),
    ] {
        assert_eq!(outbound.send(get(&url(host))).await, Err(expected), "{host}");
    }
    let strict = Guarded::new(&Rules::default()).unwrap();
    assert_eq!(strict.send(get(&url("localhost"))).await, Err(refused));
    assert_eq!(peer.connections(), reached);
}
