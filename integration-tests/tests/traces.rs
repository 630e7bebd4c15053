//! Traces at their collector: one from the EHR's request to the notification of the last byte, which names nobody; and nobody who waits
//! for a collector. The server is a process of its own: what is traced is a matter of the whole process.

use std::path::Path;
use std::time::{Duration, Instant};

use handoff_integration_tests::collector::{Collector, Span};
use handoff_integration_tests::process::{Program, run};
use handoff_integration_tests::scene::{ADA, MARKER, Referral};
use handoff_integration_tests::subscriber::{Reply, Subscriber};
use handoff_integration_tests::{
    Backend, Client, eventually, free_address, http_client, metric, needed, on_both,
};
use reqwest::Method;
use reqwest::header::{HeaderMap, HeaderValue};
use tempfile::TempDir;

use crate::demo::OwnDatabase;
use crate::subscriptions::{subscribe, topic};

/// How long something may take in a debug build while other tests run.
const SOON: Duration = Duration::from_mins(1);
/// What the EHR calls its trace and its step in it.
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const STEP: &str = "00f067aa0ba902b7";

/// A demo that sends its traces to `collector`, where it serves, and where its metrics are.
async fn traced(stores: &[&str], endpoint: &str) -> (Program, String, String) {
    let demo = ["demo", "--port", "0", "--no-play", "--traces", endpoint];
    let mut program = Program::start(&[&demo, stores].concat());
    let (base, admin) = program.addresses().await;
    (program, base, admin)
}

/// One that sends these headers with everything.
fn http_with(headers: &[(&'static str, &str)]) -> reqwest::Client {
    let headers: HeaderMap = headers
        .iter()
        .map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_str(value).unwrap()))
        .collect();
    reqwest::Client::builder()
        .default_headers(headers)
        .user_agent("a-user-agent-that-is-nobodys-business")
        .no_proxy()
        .build()
        .unwrap()
}

/// The only span of this name below that one, at whatever depth.
fn below<'s>(spans: &'s [Span], above: &Span, name: &str) -> &'s Span {
    let is_below = |span: &&Span| {
        let mut at = *span;
        loop {
            if at.parent == above.id {
                return true;
            }
            match spans.iter().find(|one| one.id == at.parent) {
                Some(parent) => at = parent,
                None => return false,
            }
        }
    };
    let found: Vec<_> = spans
        .iter()
        .filter(|span| span.name == name)
        .filter(is_below)
        .collect();
    assert_eq!(found.len(), 1, "`{name}` below `{}`: {found:#?}", above.name);
    found[0]
}

/// The transaction below a span in which an audit row of this event was written.
fn auditing<'s>(spans: &'s [Span], event: &str) -> &'s Span {
    let found = spans.iter().find(|span| span.audited(event));
    found.unwrap_or_else(|| panic!("no `{event}` in {spans:#?}"))
}

on_both! {
    async fn one_trace_leads_from_the_ehrs_request_to_the_last_byte_and_who_is_told(backend) {
        let database = match backend {
            Backend::Production => Some(OwnDatabase::create("traces")),
            Backend::Embedded => None,
        };
        let stores: Vec<String> = database.iter().flat_map(|database| {
            ["--database".to_owned(), database.url(), "--blob".to_owned(), database.container()]
        }).collect();
        let stores: Vec<&str> = stores.iter().map(String::as_str).collect();
        let (collector, hook) = (Collector::start().await, Subscriber::start().await);
        let (_program, base, admin) = traced(&stores, &collector.endpoint()).await;

        let interface = Client::sign_in(&http_client(), &base, &base, "interface").await;
        let subscription = subscribe(&interface, &topic("redemption", "id-only", &[], &hook.url)).await;
        // What else the EHR says of traces is not listened to.
        let http = http_with(&[
            ("traceparent", &format!("00-{TRACE}-{STEP}-01")),
            ("tracestate", "vendor=state-of-a-vendor"),
            ("baggage", "userId=baggage-of-somebody"),
        ]);
        let ehr = Client::sign_in(&http, &base, &base, "ehr").await;
        let lane = Client::sign_in(&http, &base, &base, "lane").await;
        let tokens = [ehr.token.clone().unwrap(), lane.token.clone().unwrap()];
        let content = handoff_integration_tests::scene::noise(300_000);
        let referral = Referral::between(ehr, (lane, "Practitioner/lane"), &content).await;
        let fetched = referral.fetch(&referral.lane).await.expect(200);
        assert_eq!(fetched.body, content);
        assert_eq!(fetched.header("x-correlation-id"), Some(TRACE));
        let told = hook.until(SOON, |all| all.iter().any(|one| {
            one.kind().as_deref() == Some("event-notification") && one.parameter("error").is_none()
                && one.header("x-correlation-id") == Some(TRACE) && one.events().iter().any(|(number, _)| *number == 2)
        })).await;

        let spans = collector.until(SOON, |spans| {
            let of_it = |span: &&Span| span.trace == TRACE && span.name == "notification";
            spans.iter().any(|span| span.audited("redemption-completed")) && spans.iter().filter(of_it).count() >= 2
        }).await;
        let ours: Vec<Span> = spans.iter().filter(|span| span.trace == TRACE).cloned().collect();
        let named = |name: &str| ours.iter().find(|span| span.name == name).unwrap_or_else(|| panic!("no `{name}` in {ours:#?}"));

        // The EHR's request goes on with its trace, and issues the grant.
        let posted = named("POST /fhir/Task");
        assert_eq!((posted.kind, posted.parent.as_str(), posted.service.as_str()), (2, STEP, "handoff"));
        assert_eq!(posted.says("http.request.method"), "POST");
        assert_eq!(posted.says("http.route"), "/fhir/Task");
        assert_eq!(posted.says("http.response.status_code"), "201");
        assert_eq!(posted.says("handoff.tenant"), "default");
        let created = below(&ours, posted, "transaction");
        assert!(created.audited("task-created") && created.audited("grant-bound"), "{created:#?}");
        let system = if database.is_some() { "postgresql" } else { "sqlite" };
        assert_eq!((created.says("db.system.name"), created.says("handoff.outcome")), (system, "committed"));
        assert_eq!(below(&ours, posted, "tasks").id, created.parent);

        // The redemption: the gate's transaction, the content store's first byte, the last one that left.
        let got = named("GET /fhir/Binary/{id}");
        assert_eq!((got.kind, got.parent.as_str()), (2, STEP));
        assert_eq!(got.says("http.response.status_code"), "200");
        let gate = below(&ours, got, "redeem");
        assert!(below(&ours, gate, "transaction").audited("redemption-authorized"));
        let read = below(&ours, got, "blob get");
        assert_eq!(read.says("handoff.bytes"), content.len().to_string());
        let stream = below(&ours, got, "content");
        assert_eq!((stream.says("handoff.outcome"), stream.status), ("sent", 0));
        assert_eq!(stream.says("handoff.bytes"), content.len().to_string());
        assert!(stream.time.0 <= read.time.0 && stream.time.1 >= read.time.1);
        let ended = below(&ours, got, "finish");
        assert_eq!(auditing(&ours, "redemption-completed").parent, ended.id);

        // Who is told goes on with it too: below the transaction that it tells of.
        for (event, told_by) in [("redemption-authorized", 1), ("redemption-completed", 2)] {
            let notification = ours.iter().find(|span| {
                span.name == "notification" && span.parent == auditing(&ours, event).id
            });
            let notification = notification.unwrap_or_else(|| panic!("nobody is told of {event}: {ours:#?}"));
            assert_eq!((notification.kind, notification.status), (4, 0));
            assert_eq!(notification.says("handoff.subscription"), subscription);
            assert_eq!(notification.says("handoff.correlation_id"), TRACE);
            let sent = below(&ours, notification, "POST");
            assert_eq!((sent.kind, sent.says("http.response.status_code")), (3, "200"));
            let parent = format!("00-{TRACE}-{}-01", sent.id);
            let came = told.iter().find(|one| one.header("traceparent") == Some(&parent));
            let came = came.unwrap_or_else(|| panic!("{told_by} came without {parent}"));
            assert!(came.header("tracestate").is_none() && came.header("baggage").is_none());
        }
        // Those who gave the events away did so for several traces, each of which theirs names.
        let given = spans.iter().filter(|span| span.links.iter().any(|link| link == TRACE));
        assert!(given.count() >= 1, "{spans:#?}");

        // One trace has one correlation id; and what is exported names no patient, holds no secret and no address.
        for span in &ours {
            let correlation = span.says("handoff.correlation_id");
            assert!(correlation.is_empty() || correlation == TRACE, "{span:#?}");
        }
        let [ehr, lane] = tokens.each_ref().map(String::as_str);
        let nothing = [
            ehr, lane, "Bearer", MARKER, ADA, "Patient/", "Practitioner/", "subscriber-secret", "whsec_", "?task=",
            &referral.document.id, &referral.task, &hook.url, "127.0.0.1:", "a-user-agent", "state-of-a-vendor", "baggage-of",
        ];
        let mine = collector.0.url.trim_start_matches("http://").to_owned();
        let named = collector.names_any(&nothing).filter(|found| found != "127.0.0.1:");
        assert_eq!(named, None);
        let body_has = |text: &str| collector.0.received().iter().any(|one| {
            String::from_utf8_lossy(&one.body).contains(text)
        });
        assert!(!body_has("127.0.0.1") && !body_has(&mine));
        // Nor does a run of a job that finds nothing to do leave anything.
        for job in spans.iter().filter(|span| !span.says("handoff.job").is_empty()) {
            assert!(spans.iter().any(|span| span.parent == job.id), "{job:#?}");
        }
        assert!(metric(&http_client(), &admin, "handoff_traces_exported_total").await >= 10.0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_has_one_correlation_id_is_one_trace_whoever_sends_it_and_lines_of_the_log_say_so() {
    let collector = Collector::start().await;
    let (program, base, _) = traced(&[], &collector.endpoint()).await;
    let http = http_with(&[("x-correlation-id", "referral-4711")]);
    for path in ["/fhir/metadata", "/fhir/Task/none"] {
        http.get(format!("{base}{path}")).send().await.unwrap();
    }
    // Another, with an id of ours.
    let other = http_client()
        .get(format!("{base}/fhir/metadata"))
        .send()
        .await
        .unwrap();
    let minted = other.headers()["x-correlation-id"].to_str().unwrap().to_owned();
    let is_request = |span: &&Span| span.kind == 2;
    let spans = collector
        .until(SOON, |spans| spans.iter().filter(is_request).count() >= 3)
        .await;
    let of = |correlation: &str| -> Vec<&Span> {
        let is = |span: &&Span| span.says("handoff.correlation_id") == correlation;
        spans.iter().filter(is).collect()
    };
    let [first, second] = of("referral-4711")[..] else {
        panic!("{spans:#?}")
    };
    assert_eq!(first.trace, second.trace);
    assert_eq!((first.parent.as_str(), second.parent.as_str()), ("", ""));
    let refused = if first.name == "GET /fhir/metadata" {
        second
    } else {
        first
    };
    assert_eq!(refused.name, "GET /fhir/Task/{id}");
    assert_eq!(refused.says("handoff.reason"), "unauthenticated");
    assert_eq!(
        (refused.says("http.response.status_code"), refused.status),
        ("401", 0)
    );
    let [own] = of(&minted)[..] else {
        panic!("{spans:#?}")
    };
    assert_eq!(own.trace, minted);

    let path = format!(
        "{}/program-{}.log",
        needed("HANDOFF_TEST_LOG_DIR"),
        std::process::id()
    );
    let log = std::fs::read_to_string(path).unwrap();
    let lines: Vec<serde_json::Value> = log
        .lines()
        .filter(|line| line.contains("\"correlation_id\":\"referral-4711\""))
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert!(!lines.is_empty(), "no line of process {} says it", program.id());
    for line in lines {
        assert_eq!(line["trace_id"], first.trace, "{line}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_is_sent_as_traceparent_is_no_error() {
    let collector = Collector::start().await;
    let (_program, base, _) = traced(&[], &collector.endpoint()).await;
    let good = format!("00-{TRACE}-{STEP}-01");
    let (zeros, long) = ("0".repeat(32), "0".repeat(10_000));
    let odd = [
        String::new(),
        "00-".to_owned(),
        "x".to_owned(),
        good.to_uppercase(),
        good.replace(TRACE, &zeros),
        good.replace(STEP, "0000000000000000"),
        format!("{good}-more"),
        good.replacen("00", "ff", 1),
        long,
    ];
    let client = Client::anonymous(&http_client(), &base);
    for value in &odd {
        let request = client
            .request(Method::GET, "/fhir/metadata")
            .header("traceparent", value);
        client.send(request).await.expect(200);
    }
    let twice = client
        .request(Method::GET, "/fhir/metadata")
        .header("traceparent", &good)
        .header("traceparent", &good);
    let answer = client.send(twice).await.expect(200);
    assert_ne!(answer.header("x-correlation-id"), Some(TRACE));
    let requests = |spans: &[Span]| -> Vec<Span> {
        let is_one = |span: &&Span| span.kind == 2;
        spans.iter().filter(is_one).cloned().collect()
    };
    let spans = collector
        .until(SOON, |spans| requests(spans).len() > odd.len())
        .await;
    for span in &requests(&spans) {
        assert_eq!(span.parent, "", "{span:#?}");
        assert!(span.trace != TRACE && span.trace != zeros, "{span:#?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_waits_for_a_collector_that_is_away_and_what_it_misses_is_counted() {
    let endpoint = format!("http://{}/v1/traces", free_address());
    let (mut program, base, admin) = traced(&[], &endpoint).await;
    let client = Client::anonymous(&http_client(), &base);
    for _ in 0..200 {
        let began = Instant::now();
        client.get("/fhir/metadata").await.expect(200);
        // Far longer than an answer takes, and far shorter than an attempt at a collector may.
        assert!(began.elapsed() < Duration::from_secs(8));
    }
    let deadline = Instant::now() + SOON;
    let dropped = "handoff_traces_dropped_total{reason=\"not-taken\"}";
    while metric(&http_client(), &admin, dropped).await < 1.0 {
        assert!(Instant::now() < deadline, "nothing was dropped");
        client.get("/fhir/metadata").await.expect(200);
    }
    program.signal("TERM");
    assert_eq!(program.ended().await, Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_collector_that_is_busy_is_asked_again_and_what_it_refuses_is_not() {
    let collector = Collector::start().await;
    collector
        .0
        .behave(|_| Reply::status(503).header("retry-after", "1"));
    let (_program, base, admin) = traced(&[], &collector.endpoint()).await;
    let client = Client::anonymous(&http_client(), &base);
    client.get("/fhir/metadata").await.expect(200);
    collector.0.until(SOON, |all| !all.is_empty()).await;
    collector.0.behave(|_| Reply::status(200));
    collector
        .until(SOON, |spans| {
            spans.iter().any(|span| span.name == "GET /fhir/metadata")
        })
        .await;
    let received = collector.0.received();
    assert_eq!(received[0].body, received[1].body);

    collector.0.behave(|_| Reply::status(400));
    client.get("/fhir/metadata").await.expect(200);
    eventually("it is dropped", async || {
        metric(
            &http_client(),
            &admin,
            "handoff_traces_dropped_total{reason=\"not-taken\"}",
        )
        .await
            >= 1.0
    })
    .await;
    // Of what it takes it may still refuse some: `rejected_spans`.
    collector
        .0
        .behave(|_| Reply::status(200).body(vec![0x0a, 2, 0x08, 1]));
    client.get("/fhir/metadata").await.expect(200);
    eventually("it is refused", async || {
        metric(
            &http_client(),
            &admin,
            "handoff_traces_dropped_total{reason=\"refused\"}",
        )
        .await
            >= 1.0
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_traced_last_is_sent_before_the_process_ends() {
    let collector = Collector::start().await;
    let (mut program, base, _) = traced(&[], &collector.endpoint()).await;
    let client = Client::anonymous(&http_client(), &base);
    client.get("/fhir/metadata").await.expect(200);
    program.signal("TERM");
    assert_eq!(program.ended().await, Some(0));
    let spans = collector.spans();
    assert!(
        spans.iter().any(|span| span.name == "GET /fhir/metadata"),
        "{spans:#?}"
    );
}

/// A server with a configuration of its own and these keys of `[traces]`.
async fn serve(folder: &Path, keys: &str) -> (Program, String, String) {
    let config = folder.join("handoff.toml");
    let text = format!(
        "[server]\nlisten = \"127.0.0.1:0\"\npublic_url = \"https://handoff.example\"\n\
         [admin]\nlisten = \"127.0.0.1:0\"\n\
         [database]\nurl = \"sqlite://{0}/handoff.db\"\n[blobs]\nurl = \"file://{0}/blobs\"\n\
         [[issuers]]\nissuer = \"https://login.example\"\naudience = [\"https://handoff.example/fhir\"]\n\
         [traces]\n{keys}\n",
        folder.display()
    );
    std::fs::write(&config, text).unwrap();
    let path = config.to_str().unwrap();
    let migrated = run(&["migrate", "--config", path]).await;
    assert_eq!(migrated.code, Some(0), "{}", migrated.err);
    let shown = run(&["config", "show", "--config", path]).await;
    assert!(
        shown.out.contains("[traces]") && !shown.out.contains("s3cret"),
        "{}",
        shown.out
    );
    Program::serve(&config).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callers_ask_for_no_more_traces_than_they_may_and_the_collector_is_told_who_sends() {
    let (collector, folder) = (Collector::start().await, TempDir::new().unwrap());
    let keys = format!(
        "endpoint = \"{}?key=s3cret\"\nauthorization = \"Bearer s3cret\"\nservice_name = \"clinic/handoff\"\n\
         sample = 0.0\nasked_for = 1",
        collector.endpoint()
    );
    let (mut server, base, _) = serve(folder.path(), &keys).await;
    let client = Client::anonymous(&http_client(), &base);
    let began = Instant::now();
    let ask = async |number: u32, flag: &str| {
        let parent = format!("00-{TRACE}-{number:016x}-{flag}");
        let request = client.request(Method::GET, "/fhir/metadata");
        client
            .send(request.header("traceparent", parent))
            .await
            .expect(200);
    };
    for number in 1..=60 {
        ask(number, "00").await;
        client.get("/fhir/metadata").await.expect(200);
    }
    for number in 101..=160 {
        ask(number, "01").await;
    }
    let took = began.elapsed().as_secs();
    server.signal("TERM");
    assert_eq!(server.ended().await, Some(0));
    let spans = collector.spans();
    let requests: Vec<_> = spans.iter().filter(|span| span.kind == 2).collect();
    assert!(!requests.is_empty(), "one was left at least");
    assert!(
        requests.len() as u64 <= took + 2,
        "{} within {took} s",
        requests.len()
    );
    for span in &spans {
        assert_eq!(
            (span.trace.as_str(), span.service.as_str()),
            (TRACE, "clinic/handoff")
        );
    }
    assert_eq!(requests[0].parent, format!("{:016x}", 101));
    let received = collector.0.received();
    assert_eq!(received[0].path, "/v1/traces?key=s3cret");
    assert_eq!(received[0].header("authorization"), Some("Bearer s3cret"));
}
