//! Those who fail too often are told to wait: by address, by client and at each link. Nobody else notices.

use std::collections::BTreeSet;

use handoff::config::{AddressRange, Clients};
use handoff_domain::time::Span;
use handoff_integration_tests::scene::Referral;
use handoff_integration_tests::{Answer, Backend, Client, TestApp, on_both};
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};

const HERE: &str = "203.0.113.5";
const THERE: &str = "203.0.113.6";

async fn limited(backend: Backend, change: impl FnOnce(&mut Clients)) -> TestApp {
    TestApp::start_with(backend, |o| {
        // This machine is the proxy in front.
        o.trusted_proxies = vec!["127.0.0.1/32".parse::<AddressRange>().unwrap()];
        // One at a time: a test says which.
        o.clients.failed_tokens_per_minute = 0;
        o.clients.failed_links_per_minute_address = 0;
        o.clients.failed_links_per_minute_client = 0;
        o.clients.failed_links_per_minute_link = 0;
        change(&mut o.clients);
    })
    .await
}

/// Sends a request that comes from an address, as the proxy on this machine says.
async fn from(address: &str, client: &Client, request: RequestBuilder) -> Answer {
    client.send(request.header("x-forwarded-for", address)).await
}

async fn get_from(address: &str, client: &Client, path: &str) -> Answer {
    from(address, client, client.request(Method::GET, path)).await
}

async fn open_from(address: &str, client: &Client, page: &str, secret: &str) -> Answer {
    let request = client
        .request(Method::POST, page)
        .header("content-type", "application/json")
        .body(json!({"secret": secret}).to_string());
    from(address, client, request).await
}

/// A link to a referral's document, and its secret.
async fn link(referral: &Referral) -> (String, String) {
    let asked =
        json!({"task": format!("Task/{}", referral.task), "actor": {"reference": "Practitioner/lane"}});
    let path = format!("/files/{}/access-grants", referral.document.id);
    let issued = referral.ehr.post_plain(&path, &asked).await.expect(201).json();
    let (page, secret) = issued["link"].as_str().unwrap().split_once('#').unwrap();
    (page.to_owned(), secret.to_owned())
}

/// What a refusal tells, but for its correlation id.
fn told(answer: &Answer) -> (u16, Option<String>, Value) {
    let mut body = answer.json();
    body["correlationId"] = Value::Null;
    let kind = answer.header("content-type").map(str::to_owned);
    (answer.status.as_u16(), kind, body)
}

#[track_caller]
fn seconds_to_wait(answer: &Answer) -> u64 {
    let seconds = answer.header("retry-after").expect("when to come back");
    seconds.parse().expect("seconds")
}

/// The newest refusals as an auditor sees them: event, reason, and how many went unrecorded before.
async fn refusals(auditor: &Client, event: &str) -> Vec<(String, u64)> {
    let path = format!("/fhir/AuditEvent?subtype={event}&_count=100");
    let found = auditor.get(&path).await.expect(200).json();
    let told = |row: &Value| {
        let entities = row["entity"].as_array().cloned().unwrap_or_default();
        let before = entities
            .iter()
            .flat_map(|e| e["detail"].as_array().cloned().unwrap_or_default())
            .find(|detail| detail["type"] == "refused-before")
            .map_or(0, |detail| {
                detail["valueString"].as_str().unwrap().parse().unwrap()
            });
        (row["outcomeDesc"].as_str().unwrap().to_owned(), before)
    };
    let rows = found["entry"].as_array().cloned().unwrap_or_default();
    rows.iter().map(|entry| told(&entry["resource"])).collect()
}

on_both! {
    async fn an_address_whose_tokens_are_refused_too_often_is_told_to_wait(backend) {
        let app = limited(backend, |clients| clients.failed_tokens_per_minute = 5).await;
        let counted = "handoff_attempts_refused_total{limit=\"token\"}";
        let before = app.metric(counted).await;
        let (known, fresh) = (app.client("lane").await, app.client("otis").await);
        get_from(HERE, &known, "/fhir/Task").await.expect(200);
        let forged = app.stranger().with_token("forged".to_owned());
        for _ in 0..5 {
            get_from(HERE, &forged, "/fhir/Task").await.refused(401, "token-invalid");
        }
        let refused = get_from(HERE, &forged, "/fhir/Task").await.refused(429, "rate-limited");
        assert_eq!(refused.header("content-type"), Some("application/fhir+json"));
        assert_eq!(refused.json()["issue"][0]["code"], "throttled");
        assert!((1..=12).contains(&seconds_to_wait(&refused)));
        for path in ["/files/a/access-grants", "/redemptions/a/content", "/access-grants/a"] {
            let refused = get_from(HERE, &forged, path).await.refused(429, "rate-limited");
            assert_eq!(refused.header("content-type"), Some("application/problem+json"), "{path}");
            assert!((1..=12).contains(&seconds_to_wait(&refused)), "{path}");
        }
        open_from(HERE, &forged, "/handoff/a", "secret").await.refused(429, "rate-limited");
        // A token in the wrong place is one more.
        get_from(HERE, &app.stranger(), "/fhir/Task?access_token=a").await.refused(429, "rate-limited");
        assert!(app.metric(counted).await >= before + 6.0);

        get_from(HERE, &known, "/fhir/Task").await.expect(200);
        get_from(HERE, &app.stranger(), "/fhir/Task").await.refused(401, "unauthenticated");
        get_from(HERE, &app.stranger(), "/fhir/metadata").await.expect(200);
        get_from(THERE, &forged, "/fhir/Task").await.refused(401, "token-invalid");
        // Nobody can tell without looking that this one is good.
        get_from(HERE, &fresh, "/fhir/Task").await.refused(429, "rate-limited");
        get_from(THERE, &fresh, "/fhir/Task").await.expect(200);
        // Known is known, wherever it was seen; and for longer than the minute for which it is not checked again.
        get_from(HERE, &fresh, "/fhir/Task").await.expect(200);
        app.clock.advance(Span::seconds(90));
        for _ in 0..5 {
            get_from(HERE, &forged, "/fhir/Task").await.refused(401, "token-invalid");
        }
        get_from(HERE, &forged, "/fhir/Task").await.refused(429, "rate-limited");
        get_from(HERE, &known, "/fhir/Task").await.expect(200);
        let newcomer = app.client("ehr").await;
        get_from(HERE, &newcomer, "/fhir/Task").await.refused(429, "rate-limited");
        app.clock.advance(Span::seconds(13));
        get_from(HERE, &newcomer, "/fhir/Task").await.expect(200);
    }

    async fn refusals_by_a_limit_are_rolled_up_in_the_audit(backend) {
        let app = limited(backend, |clients| {
            clients.failed_tokens_per_minute = 5;
            clients.failed_links_per_minute_link = 5;
        })
        .await;
        let referral = Referral::set(&app).await;
        let (page, _) = link(&referral).await;
        let auditor = app.client("auditor").await;
        let (forged, otis) = (app.stranger().with_token("forged".to_owned()), app.client("otis").await);
        let all = async || {
            for _ in 0..30 {
                get_from(HERE, &forged, "/fhir/Task").await.expect_one_of(&[401, 429]);
                open_from(THERE, &otis, &page, "wrong").await.expect_one_of(&[404, 429]);
            }
        };
        all().await;
        // The others of that second come with the next row.
        app.clock.advance(Span::seconds(2));
        get_from(HERE, &forged, "/fhir/Task").await.refused(429, "rate-limited");
        open_from(THERE, &otis, &page, "wrong").await.refused(429, "rate-limited");
        for (event, at_least) in [("request-denied", 30), ("redemption-denied", 25)] {
            let rows = refusals(&auditor, event).await;
            let (newest, _) = rows.first().expect("a row");
            assert_eq!(newest, "rate-limited", "{event}");
            let limited = rows.iter().filter(|(reason, _)| reason == "rate-limited").count();
            assert!(limited <= 10, "{event}: {limited} rows");
            let told = rows.iter().filter(|(reason, _)| reason != "link-unknown");
            let sum: u64 = told.map(|(_, before)| before + 1).sum();
            assert_eq!(sum, at_least + 1, "{event}: all of them are told of");
        }
        let wrong = refusals(&auditor, "redemption-denied").await;
        let each = wrong.iter().filter(|(reason, _)| reason == "link-unknown").count();
        assert_eq!(each, 5, "what was tried is recorded each time");
    }

    async fn whoever_guesses_at_a_link_is_told_to_wait_and_its_holder_is_not(backend) {
        let app = limited(backend, |clients| clients.failed_links_per_minute_link = 3).await;
        let counted = "handoff_attempts_refused_total{limit=\"link\"}";
        let before = app.metric(counted).await;
        let referral = Referral::set(&app).await;
        let (page, secret) = link(&referral).await;
        let (otis, interface) = (app.client("otis").await, app.client("interface").await);
        let mut answers = Vec::new();
        // One that exists, one that does not, and one that can't.
        for (client, page) in [(&otis, page.as_str()), (&interface, "/handoff/0123456789abcdef")] {
            for _ in 0..3 {
                open_from(HERE, client, page, "wrong").await.refused(404, "link-unknown");
            }
            let refused = open_from(HERE, client, page, "wrong").await.refused(429, "rate-limited");
            assert!((1..=20).contains(&seconds_to_wait(&refused)));
            answers.push(refused);
        }
        assert_eq!(told(&answers[0]), told(&answers[1]), "nothing is told of whether it exists");
        let headers = |answer: &Answer| {
            let names: BTreeSet<String> = answer.headers.keys().map(ToString::to_string).collect();
            names
        };
        assert_eq!(headers(&answers[0]), headers(&answers[1]));
        assert!(app.metric(counted).await >= before + 2.0);
        // From wherever he comes, and with the right secret too, which he might have guessed.
        open_from(THERE, &otis, &page, &secret).await.refused(429, "rate-limited");
        // At other links he has his attempts.
        open_from(HERE, &otis, "/handoff/a%20b", "wrong").await.refused(404, "link-unknown");
        open_from(HERE, &otis, "/handoff/another", "wrong").await.refused(404, "link-unknown");

        open_from(HERE, &referral.lane, &page, &secret).await.expect(303);
        assert_eq!(referral.fetch(&referral.lane).await.reason().as_deref(), Some("exhausted"));
    }

    async fn a_link_opens_again_for_those_who_have_waited(backend) {
        let app = limited(backend, |clients| clients.failed_links_per_minute_link = 3).await;
        let referral = Referral::set(&app).await;
        let (page, secret) = link(&referral).await;
        // She mistypes, and what she is told is what she has to wait.
        for _ in 0..3 {
            open_from(HERE, &referral.lane, &page, "wrong").await.refused(404, "link-unknown");
        }
        let refused = open_from(HERE, &referral.lane, &page, &secret).await.refused(429, "rate-limited");
        app.clock.advance(Span::seconds(i64::try_from(seconds_to_wait(&refused)).unwrap()));
        let opened = open_from(HERE, &referral.lane, &page, &secret).await.expect(303);
        // What succeeds is counted nowhere.
        let content = opened.header("location").unwrap().to_owned();
        for _ in 0..10 {
            open_from(HERE, &referral.lane, &page, &secret).await.expect(303);
        }
        assert_eq!(referral.lane.get(&content).await.expect(200).body, referral.document.content);
    }

    async fn refused_attempts_at_links_are_limited_by_address_and_by_client(backend) {
        let app = limited(backend, |clients| clients.failed_links_per_minute_address = 3).await;
        let otis = app.client("otis").await;
        for n in 0..3 {
            open_from(HERE, &otis, &format!("/handoff/{n}"), "wrong").await.refused(404, "link-unknown");
        }
        open_from(HERE, &otis, "/handoff/3", "wrong").await.refused(429, "rate-limited");
        open_from(THERE, &otis, "/handoff/3", "wrong").await.refused(404, "link-unknown");
        // Whom the address is shared with is not held by it before failing too.
        let records = app.client("records").await;
        open_from(HERE, &records, "/handoff/4", "wrong").await.refused(404, "link-unknown");
        open_from(HERE, &records, "/handoff/5", "wrong").await.refused(429, "rate-limited");
        app.clock.advance(Span::minutes(2));
        open_from(HERE, &otis, "/handoff/3", "wrong").await.refused(404, "link-unknown");

        let app = limited(backend, |clients| clients.failed_links_per_minute_client = 3).await;
        let referral = Referral::set(&app).await;
        let (page, secret) = link(&referral).await;
        let otis = app.client("otis").await;
        // That it is somebody else's is told to the holder of its secret, and fails.
        for n in 0..3 {
            open_from(&format!("203.0.113.{n}"), &otis, &page, &secret).await.refused(403, "not-grantee");
        }
        open_from(HERE, &otis, "/handoff/other", "wrong").await.refused(429, "rate-limited");
        open_from(HERE, &app.client("records").await, "/handoff/other", "wrong").await.refused(404, "link-unknown");
        open_from(HERE, &referral.lane, &page, &secret).await.expect(303);
    }
}

/// An IPv6 network is given to one customer, who chooses among more addresses than can be counted.
#[tokio::test]
async fn all_addresses_of_an_ipv6_network_are_one() {
    let app = limited(Backend::Embedded, |clients| clients.failed_tokens_per_minute = 5).await;
    let forged = app.stranger().with_token("forged".to_owned());
    for n in 0..5 {
        let address = format!("2001:db8:0:1:{n}::{n}");
        get_from(&address, &forged, "/fhir/Task").await.expect(401);
    }
    get_from("2001:db8:0:1:ffff::1", &forged, "/fhir/Task")
        .await
        .expect(429);
    get_from("2001:db8:0:2::1", &forged, "/fhir/Task")
        .await
        .expect(401);
}

/// Whoever sends many at once has them looked at, as none has failed yet; and waits the longer for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_forged_tokens_is_turned_away_and_others_are_served() {
    let app = TestApp::start(Backend::Embedded).await;
    let (lane, auditor) = (app.client("lane").await, app.client("auditor").await);
    lane.get("/fhir/Task").await.expect(200);
    assert_eq!(refusals(&auditor, "request-denied").await, []);
    let forged = app
        .stranger()
        .with_token(format!("{}x", lane.token.as_deref().unwrap()));
    let flood = futures_util::future::join_all((0..20).map(async |_| {
        let mut refused = 0;
        for _ in 0..100 {
            let answer = forged.get("/fhir/Task").await.expect_one_of(&[401, 429]);
            refused += usize::from(answer.status == 401);
        }
        refused
    }));
    let served = async {
        for _ in 0..20 {
            lane.get("/fhir/Task").await.expect(200);
        }
    };
    let (refused, ()) = tokio::join!(flood, served);
    let looked_at: usize = refused.iter().sum();
    assert!(
        (100..200).contains(&looked_at),
        "{looked_at} of 2000 were looked at"
    );
    let rows = refusals(&auditor, "request-denied").await.len();
    assert!(rows < 60, "{rows} rows for 2000 refusals");
}
