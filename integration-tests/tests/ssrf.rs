//! Where notifications never go: to the server's own machine and network, whatever the endpoint calls them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use handoff_integration_tests::subscriber::{Reply, Subscriber};
use handoff_integration_tests::{TestApp, eventually, on_both};
use tokio::net::TcpListener;

use crate::subscriptions::{becomes, topic};

/// A listener that counts who connects, on both of the machine's own addresses, and its port.
async fn watched() -> (u16, Arc<AtomicUsize>) {
    let seen: Arc<AtomicUsize> = Arc::default();
    let first = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = first.local_addr().unwrap().port();
    let mut listeners = vec![first];
    listeners.extend(TcpListener::bind(("::1", port)).await);
    for listener in listeners {
        let seen = Arc::clone(&seen);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                seen.fetch_add(1, Ordering::Relaxed);
                drop(stream);
            }
        });
    }
    (port, seen)
}

/// Endpoints that are refused as they are written; `PORT` is that of a listener which must see nothing.
const REFUSED: [(&str, &str); 37] = [
    ("loopback without TLS", "http://127.0.0.1:PORT/"),
    ("loopback", "https://127.0.0.1:PORT/"),
    ("another loopback address", "https://127.8.9.10:PORT/"),
    ("loopback, short", "https://127.1:PORT/"),
    ("loopback, decimal", "https://2130706433:PORT/"),
    ("loopback, hexadecimal", "https://0x7f000001:PORT/"),
    ("loopback, hexadecimal by part", "https://0x7f.0x0.0x0.0x1:PORT/"),
    ("loopback, octal", "https://017700000001:PORT/"),
    ("loopback, octal by part", "https://0177.0.0.01:PORT/"),
    ("loopback, full-width digits", "https://１２７.０.０.１:PORT/"),
    ("loopback with a dot at the end", "https://127.0.0.1.:PORT/"),
    ("unspecified", "https://0.0.0.0:PORT/"),
    ("unspecified, one digit", "https://0:PORT/"),
    ("IPv6 loopback", "https://[::1]:PORT/"),
    ("IPv6 unspecified", "https://[::]:PORT/"),
    ("IPv4-mapped loopback", "https://[::ffff:127.0.0.1]:PORT/"),
    (
        "IPv4-mapped loopback, hexadecimal",
        "https://[::ffff:7f00:1]:PORT/",
    ),
    ("IPv4-compatible loopback", "https://[::127.0.0.1]:PORT/"),
    ("NAT64 loopback", "https://[64:ff9b::7f00:1]:PORT/"),
    ("6to4 loopback", "https://[2002:7f00:1::]:PORT/"),
    ("metadata", "https://169.254.169.254/latest/meta-data/"),
    ("metadata, decimal", "https://2852039166/"),
    ("metadata, IPv4-mapped", "https://[::ffff:169.254.169.254]/"),
    ("metadata, IPv6", "https://[fd00:ec2::254]/"),
    ("wire server", "https://168.63.129.16/"),
    ("link-local", "https://[fe80::1]/"),
    ("private, 10/8", "https://10.0.0.1/"),
    ("private, 172.16/12", "https://172.16.0.1/"),
    ("private, 192.168/16", "https://192.168.0.1/"),
    ("carrier-grade NAT", "https://100.64.0.1/"),
    ("multicast", "https://224.0.0.1/"),
    ("broadcast", "https://255.255.255.255/"),
    ("no TLS", "http://hooks.example.org/"),
    ("another scheme", "ftp://hooks.example.org/"),
    ("a file", "file:///etc/passwd"),
    ("a user in it", "https://user:secret@hooks.example.org/"),
    ("a fragment", "https://hooks.example.org/#part"),
];

on_both! {
    async fn an_endpoint_on_the_servers_own_network_is_refused_however_it_is_written(backend) {
        let app = TestApp::start_with(backend, |options| options.subscriptions.plain_loopback = false).await;
        let (port, seen) = watched().await;
        let interface = app.client("interface").await;
        for (what, endpoint) in REFUSED {
            let endpoint = endpoint.replace("PORT", &port.to_string());
            let answer = interface
                .post("/fhir/Subscription", &topic("task-status-changed", "id-only", &[], &endpoint))
                .await;
            assert_eq!(answer.status, 422, "{what}: {}", answer.json());
            let issue = &answer.json()["issue"][0];
            assert_eq!(issue["expression"][0], "Subscription.channel.endpoint", "{what}: {issue}");
            assert!(!issue.to_string().contains("secret"), "{what}: {issue}");
        }
        assert_eq!(seen.load(Ordering::Relaxed), 0);
    }

    async fn a_name_of_the_servers_own_machine_is_never_connected_to(backend) {
        let app = TestApp::start_with(backend, |options| options.subscriptions.plain_loopback = false).await;
        let (port, seen) = watched().await;
        let interface = app.client("interface").await;
        let mut made = Vec::new();
        for name in ["localhost", "LOCALHOST", "localhost.", "deep.localhost"] {
            let endpoint = format!("https://{name}:{port}/hook");
            let answer = interface
                .post("/fhir/Subscription", &topic("task-status-changed", "id-only", &[], &endpoint))
                .await;
            // Whether a name is looked at already when it is written down is no matter.
            let answer = answer.expect_one_of(&[201, 422]);
            if answer.status == 201 {
                made.push(answer.id());
            }
        }
        for id in &made {
            becomes(&interface, id, "error").await;
        }
        assert_eq!(seen.load(Ordering::Relaxed), 0);
    }

    async fn a_redirect_is_a_failure_and_is_not_followed(backend) {
        let app = TestApp::start(backend).await;
        let (port, seen) = watched().await;
        let subscriber = Subscriber::start().await;
        let target = format!("http://127.0.0.1:{port}/");
        subscriber.behave(move |_| Reply::status(307).header("Location", &target));
        let interface = app.client("interface").await;
        let hook = format!("{}/hook", subscriber.url);
        let id = interface
            .post("/fhir/Subscription", &topic("task-status-changed", "id-only", &[], &hook))
            .await
            .expect(201)
            .id();
        becomes(&interface, &id, "error").await;
        let now = interface.get(&format!("/fhir/Subscription/{id}")).await.expect(200).json();
        assert!(now["error"].as_str().unwrap().contains("status-307"), "{now}");
        assert!(subscriber.received().len() >= 2);
        assert_eq!(seen.load(Ordering::Relaxed), 0);
    }

    async fn an_allowed_network_may_be_reached(backend) {
        let app = TestApp::start_with(backend, |options| {
            options.subscriptions.plain_loopback = false;
            options.subscriptions.allowed_networks = vec!["127.0.0.1".parse().unwrap()];
        })
        .await;
        let (port, seen) = watched().await;
        let interface = app.client("interface").await;
        let endpoint = format!("https://127.0.0.1:{port}/hook");
        interface
            .post("/fhir/Subscription", &topic("task-status-changed", "id-only", &[], &endpoint))
            .await
            .expect(201);
        // It speaks no TLS, which is where it ends; that it was asked is what counts here.
        eventually("the listener is connected to", async || seen.load(Ordering::Relaxed) > 0).await;
    }
}
