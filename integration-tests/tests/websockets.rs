//! Web sockets of subscribers: how they are bound, what they are told, and when they end.

use std::time::Duration;

use diesel::connection::SimpleConnection as _;
use diesel::{Connection as _, SqliteConnection};
use handoff_domain::time::Span;
use handoff_integration_tests::scene::{Referral, document, task};
use handoff_integration_tests::websocket::{Heard, Notice, WebSocket};
use handoff_integration_tests::{Client, TestApp, eventually, needed, on_both, psql_in};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

const BACKPORT: &str = "http://hl7.org/fhir/uv/subscriptions-backport/StructureDefinition";
const TOPIC: &str = "https://handoff.example/fhir/SubscriptionTopic";
const POLICY: u16 = 1008;
/// As much as no buffer between holds, a megabyte each.
const LETTERS: i64 = 12;

/// A subscription to the moves of Tasks.
fn moves(content: &str) -> Value {
    json!({
        "resourceType": "Subscription",
        "status": "requested",
        "reason": "follow referrals",
        "criteria": format!("{TOPIC}/task-status-changed"),
        "channel": {
            "type": "websocket",
            "payload": "application/fhir+json",
            "_payload": {"extension": [
                {"url": format!("{BACKPORT}/backport-payload-content"), "valueCode": content},
            ]},
        },
    })
}

/// The same with one more extension of the channel.
fn with(name: &str, value: &str, number: u32) -> Value {
    let mut body = moves("id-only");
    body["channel"]["extension"] = json!([{"url": format!("{BACKPORT}/{name}"), value: number}]);
    body
}

/// The same in base R4.
fn of_base_r4() -> Value {
    json!({
        "resourceType": "Subscription",
        "status": "requested",
        "reason": "follow referrals",
        "criteria": "Task?intent=order",
        "channel": {"type": "websocket"},
    })
}

async fn subscribe(client: &Client, body: &Value) -> String {
    client.post("/fhir/Subscription", body).await.expect(201).id()
}

/// A parameter of an answer.
fn parameter<'v>(answer: &'v Value, name: &str) -> &'v Value {
    let list = answer["parameter"].as_array().expect("parameters");
    list.iter()
        .find(|one| one["name"] == name)
        .unwrap_or(&Value::Null)
}

async fn token(client: &Client, id: &str) -> (String, String) {
    let path = format!("/fhir/Subscription/{id}/$get-ws-binding-token");
    let answer = client.get(&path).await.expect(200).json();
    let text = |name: &str, kind: &str| parameter(&answer, name)[kind].as_str().expect(name).to_owned();
    assert_eq!(text("subscription", "valueString"), id);
    assert!(text("expiration", "valueDateTime").ends_with('Z'));
    (text("token", "valueString"), text("websocket-url", "valueUrl"))
}

/// A socket that hears a subscription, whose handshake has come.
async fn bound(client: &Client, id: &str) -> WebSocket {
    let (token, url) = token(client, id).await;
    let mut socket = WebSocket::open(&url, &[]).await.expect("a socket");
    socket.say(format!("bind-with-token {token}")).await;
    let handshake = socket.bundle().await;
    assert_eq!(
        (handshake.kind().as_str(), handshake.status().as_str()),
        ("handshake", "active")
    );
    assert_eq!(handshake.subscription(), id);
    socket
}

async fn with_access_token(client: &Client, url: &str) -> WebSocket {
    let bearer = format!("Bearer {}", client.token.as_deref().expect("a token"));
    WebSocket::open(url, &[("authorization", &bearer)])
        .await
        .expect("a socket")
}

fn socket_url(base: &str) -> String {
    format!("{}/fhir/websocket", base.replacen("http", "ws", 1))
}

/// Events until there are `count`, and their numbers.
async fn numbers(socket: &mut WebSocket, count: usize) -> Vec<i64> {
    let mut all = Vec::new();
    while all.len() < count {
        let notice = socket.bundle().await;
        assert_eq!(notice.kind(), "event-notification");
        all.extend(notice.numbers());
    }
    all
}

/// Runs statements in the database behind the server's back.
fn behind_its_back(app: &TestApp, statements: &str) {
    if let Some(name) = app.database() {
        let server = needed("HANDOFF_TEST_POSTGRES_URL");
        let (base, _) = server.rsplit_once('/').expect("a database in the URL");
        psql_in(&format!("{base}/{name}"), statements);
    } else {
        let path = app.folder().join("handoff.db").display().to_string();
        let mut connection = SqliteConnection::establish(&path).expect("the database");
        connection
            .batch_execute(&format!("PRAGMA busy_timeout = 10000; {statements}"))
            .expect("it runs");
    }
}

async fn audited(app: &TestApp, event: &str) -> usize {
    let auditor = app.client("auditor").await;
    let rows = auditor
        .get("/fhir/AuditEvent?_count=500")
        .await
        .expect(200)
        .json();
    let word = format!("\"{event}\"");
    let rows = rows["entry"].as_array().cloned().unwrap_or_default();
    rows.iter().filter(|row| row.to_string().contains(&word)).count()
}

on_both! {
    async fn a_socket_hears_in_order_what_happens_at_another_replica(backend) {
        let app = TestApp::start(backend).await;
        let interface = app.client("interface").await;
        let id = subscribe(&interface, &with("backport-max-count", "valuePositiveInt", 3)).await;
        let replica = app.replica().await;
        let mut socket = bound(&interface.at(&replica.server.base_url), &id).await;
        let referral = Referral::set(&app).await;
        for status in ["in-progress", "on-hold", "in-progress", "on-hold", "in-progress"] {
            referral.move_to(&referral.lane, status).await.expect(200);
        }
        assert_eq!(numbers(&mut socket, 6).await, [1, 2, 3, 4, 5, 6]);
        // Who binds later hears what comes then; what came before is fetched.
        let mut later = bound(&interface, &id).await;
        referral.move_to(&referral.lane, "completed").await.expect(200);
        let notice = later.bundle().await;
        assert_eq!((notice.numbers(), notice.count().as_str()), (vec![7], "7"));
        let entry = &notice.0["entry"][1];
        assert_eq!(entry["request"]["url"], format!("Task/{}", referral.task));
        assert!(entry["resource"].is_null(), "it is `id-only`");
        assert_eq!(numbers(&mut socket, 1).await, [7]);
        let path = format!("/fhir/Subscription/{id}/$events?eventsSinceNumber=1");
        let events = interface.get(&path).await.expect(200).json();
        assert_eq!(events["entry"][0]["resource"]["parameter"].as_array().unwrap().len(), 5 + 7);
        // Those that sockets were told, and the seven that were fetched.
        eventually("each is on record", async || audited(&app, "subscription-delivered").await == 8 + 7).await;
        assert_eq!(audited(&app, "subscription-bound").await, 2);
    }

    async fn a_binding_token_is_good_once_and_for_a_minute(backend) {
        let app = TestApp::start(backend).await;
        let interface = app.client("interface").await;
        let (one, other) = (
            subscribe(&interface, &moves("id-only")).await,
            subscribe(&interface, &moves("empty")).await,
        );
        let path = format!("/fhir/Subscription/$get-ws-binding-token?id={one}&id={other}");
        let answer = interface.get(&path).await.expect(200).json();
        let secret = parameter(&answer, "token")["valueString"].as_str().unwrap().to_owned();
        assert!(secret.len() >= 43);
        let url = parameter(&answer, "websocket-url")["valueUrl"].as_str().unwrap().to_owned();
        assert_eq!(url, socket_url(&app.server.base_url));
        let mut socket = WebSocket::open(&url, &[]).await.unwrap();
        socket.say(format!("bind-with-token {secret}")).await;
        let mut heard = [socket.bundle().await.subscription(), socket.bundle().await.subscription()];
        heard.sort();
        let mut asked = [one.clone(), other.clone()];
        asked.sort();
        assert_eq!(heard, asked);
        for again in [secret.as_str(), "", "x", &"y".repeat(1000)] {
            let mut second = WebSocket::open(&url, &[]).await.unwrap();
            second.say(format!("bind-with-token {again}")).await;
            assert!(second.text().await.starts_with("error: the binding token is unknown"));
            assert_eq!(second.end().await.0, POLICY);
        }
        // By POST, and too late.
        let body = json!({"resourceType": "Parameters", "parameter": [{"name": "id", "valueId": one}]});
        let answer = interface.post("/fhir/Subscription/$get-ws-binding-token", &body).await.expect(200).json();
        let secret = parameter(&answer, "token")["valueString"].as_str().unwrap().to_owned();
        app.clock.advance(Span::seconds(61));
        let mut late = WebSocket::open(&url, &[]).await.unwrap();
        late.say(format!("bind-with-token {secret}")).await;
        assert!(late.text().await.contains("too old"));
        assert_eq!(late.end().await.0, POLICY);
        // No token is in the database as it was told.
        eventually("refused callers are on record", async || audited(&app, "request-denied").await > 0).await;
    }

    async fn a_binding_token_is_of_its_tenant(backend) {
        let app = TestApp::start(backend).await;
        let b = app.client("ehr-b").await;
        let id = b.post("/t/b/fhir/Subscription", &moves("id-only")).await.expect(201).id();
        let path = format!("/t/b/fhir/Subscription/{id}/$get-ws-binding-token");
        let answer = b.get(&path).await.expect(200).json();
        let secret = parameter(&answer, "token")["valueString"].as_str().unwrap().to_owned();
        let url = parameter(&answer, "websocket-url")["valueUrl"].as_str().unwrap().to_owned();
        assert!(url.ends_with("/t/b/fhir/websocket"), "{url}");
        let mut elsewhere = WebSocket::open(&socket_url(&app.server.base_url), &[]).await.unwrap();
        elsewhere.say(format!("bind-with-token {secret}")).await;
        assert_eq!(elsewhere.end().await.0, POLICY);
        let mut socket = WebSocket::open(&url, &[]).await.unwrap();
        socket.say(format!("bind-with-token {secret}")).await;
        assert_eq!(socket.bundle().await.subscription(), id);
        // Its own access token is none of another tenant.
        let bearer = format!("Bearer {}", b.token.as_deref().unwrap());
        let elsewhere = socket_url(&app.server.base_url);
        assert_eq!(WebSocket::open(&elsewhere, &[("authorization", &bearer)]).await.err(), Some(401));
    }

    async fn nobody_gets_a_token_for_a_subscription_that_is_not_theirs_or_not_for_sockets(backend) {
        let app = TestApp::start(backend).await;
        let (interface, ehr) = (app.client("interface").await, app.client("ehr").await);
        let own = subscribe(&interface, &moves("id-only")).await;
        let anothers = subscribe(&ehr, &moves("id-only")).await;
        let mut hook = moves("id-only");
        hook["channel"]["type"] = json!("rest-hook");
        hook["channel"]["endpoint"] = json!("http://127.0.0.1:18999/hook");
        let pushed = subscribe(&interface, &hook).await;
        let of = |ids: &[&str]| format!("/fhir/Subscription/$get-ws-binding-token?id={}", ids.join("&id="));
        interface.get(&of(&[&own])).await.expect(200);
        interface.get(&of(&[&own, &anothers])).await.refused(404, "not-found");
        interface.get(&of(&[&own, "nobody"])).await.refused(404, "not-found");
        interface.get(&of(&[&own, "no id at all"])).await.refused(404, "not-found");
        // An operator sees them, and hears none.
        let operator = app.client("operator").await;
        operator.get(&format!("/fhir/Subscription/{own}")).await.expect(200);
        operator.get(&of(&[&own])).await.refused(404, "not-found");
        interface.get(&of(&[&own, &pushed])).await.expect(422);
        interface.get("/fhir/Subscription/$get-ws-binding-token").await.expect(400);
        app.stranger().get(&of(&[&own])).await.expect(401);
        interface.delete(&format!("/fhir/Subscription/{own}")).await.expect(204);
        interface.get(&of(&[&own])).await.refused(404, "not-found");
        // With an access token it is no other.
        let url = socket_url(&app.server.base_url);
        for id in [anothers.as_str(), own.as_str(), "nobody", ""] {
            let mut socket = with_access_token(&interface, &url).await;
            socket.say(format!("bind {id}")).await;
            assert!(socket.text().await.starts_with("error: there is no such resource"), "{id}");
            assert_eq!(socket.end().await.0, POLICY);
        }
    }

    async fn base_r4_binds_by_the_access_token_that_opened_the_socket_until_it_expires(backend) {
        let app = TestApp::start(backend).await;
        let interface = app.client("interface").await;
        let id = subscribe(&interface, &of_base_r4()).await;
        let url = socket_url(&app.server.base_url);
        let mut nobody = WebSocket::open(&url, &[]).await.unwrap();
        nobody.say(format!("bind {id}")).await;
        assert!(nobody.text().await.starts_with("error: bind needs an access token"));
        assert_eq!(nobody.end().await.0, POLICY);
        assert_eq!(WebSocket::open(&url, &[("authorization", "Bearer wrong")]).await.err(), Some(401));
        assert_eq!(WebSocket::open(&format!("{url}?access_token=x"), &[]).await.err(), Some(401));

        let mut socket = with_access_token(&interface, &url).await;
        socket.say(format!("bind {id}")).await;
        assert_eq!(socket.text().await, format!("bound {id}"));
        let referral = Referral::set(&app).await;
        referral.move_to(&referral.lane, "in-progress").await.expect(200);
        for _ in 0..2 {
            assert_eq!(socket.text().await, format!("ping {id}"));
        }
        socket.say("hello").await;
        assert!(socket.text().await.starts_with("error: messages are"));
        app.clock.advance(Span::hours(2));
        let (code, why) = socket.end().await;
        assert_eq!(code, POLICY);
        assert!(why.contains("expired"), "{why}");
    }

    async fn a_heartbeat_comes_after_silence_and_names_the_last_event(backend) {
        let app = TestApp::start(backend).await;
        let interface = app.client("interface").await;
        let id = subscribe(&interface, &with("backport-heartbeat-period", "valueUnsignedInt", 60)).await;
        let mut socket = bound(&interface, &id).await;
        let referral = Referral::set(&app).await;
        assert_eq!(numbers(&mut socket, 1).await, [1]);
        app.clock.advance(Span::seconds(61));
        let beat = socket.bundle().await;
        assert_eq!((beat.kind().as_str(), beat.status().as_str()), ("heartbeat", "active"));
        assert_eq!((beat.count().as_str(), beat.numbers()), ("1", vec![]));
        referral.move_to(&referral.lane, "in-progress").await.expect(200);
        assert_eq!(numbers(&mut socket, 1).await, [2]);
        app.clock.advance(Span::seconds(61));
        assert_eq!(socket.bundle().await.count(), "2");
    }

    async fn what_the_subscriber_may_not_see_by_then_is_withheld(backend) {
        let app = TestApp::start(backend).await;
        let ehr = app.client("ehr").await;
        let id = subscribe(&ehr, &moves("id-only")).await;
        let mut socket = bound(&ehr, &id).await;
        let withheld = app.metric("handoff_notifications_withheld_total").await;
        // Counted as if it had been seen then.
        behind_its_back(&app, &format!(
            "INSERT INTO subscription_events (tenant, subscription, number, topic, focus, version, change, correlation, at) \
             VALUES ('default', '{id}', 1, 'task-status-changed', 'Task/of-others', 1, 'ready', 'c', 1); \
             UPDATE subscription_counts SET events = 1 WHERE subscription = '{id}';"
        ));
        eventually("it is withheld and on record", async || audited(&app, "subscription-failed").await == 1).await;
        assert!(app.metric("handoff_notifications_withheld_total").await > withheld);
        Referral::set(&app).await;
        assert_eq!(numbers(&mut socket, 1).await, [2]);
    }

    async fn a_subscription_that_ends_says_so_and_the_socket_with_the_last(backend) {
        let app = TestApp::start(backend).await;
        let interface = app.client("interface").await;
        let (one, other, third) = (
            subscribe(&interface, &moves("id-only")).await,
            subscribe(&interface, &moves("id-only")).await,
            subscribe(&interface, &of_base_r4()).await,
        );
        let path = format!("/fhir/Subscription/$get-ws-binding-token?id={one},{other}");
        let answer = interface.get(&path).await.expect(200).json();
        let secret = parameter(&answer, "token")["valueString"].as_str().unwrap().to_owned();
        let url = socket_url(&app.server.base_url);
        let mut socket = WebSocket::open(&url, &[]).await.unwrap();
        socket.say(format!("bind-with-token {secret}")).await;
        let (_, _) = (socket.bundle().await, socket.bundle().await);
        let mut base = with_access_token(&interface, &url).await;
        base.say(format!("bind {third}")).await;
        assert_eq!(base.text().await, format!("bound {third}"));

        interface.delete(&format!("/fhir/Subscription/{one}")).await.expect(204);
        let last = socket.bundle().await;
        assert_eq!((last.subscription(), last.status().as_str()), (one, "off"));
        let mut off = interface.get(&format!("/fhir/Subscription/{other}")).await.expect(200).json();
        off["status"] = json!("off");
        interface.put(&format!("/fhir/Subscription/{other}"), &off).await.expect(200);
        let last = socket.bundle().await;
        assert_eq!((last.subscription(), last.status().as_str()), (other, "off"));
        assert_eq!(socket.end().await, (POLICY, "the subscription has ended".to_owned()));
        interface.delete(&format!("/fhir/Subscription/{third}")).await.expect(204);
        assert_eq!(base.hear().await, Heard::Closed(POLICY, "the subscription was deleted".to_owned()));
    }

    async fn a_subscriber_who_is_blocked_hears_nothing_more(backend) {
        let app = TestApp::start(backend).await;
        let (interface, operator) = (app.client("interface").await, app.client("operator").await);
        let (id, base) = (
            subscribe(&interface, &moves("id-only")).await,
            subscribe(&interface, &of_base_r4()).await,
        );
        let mut socket = bound(&interface, &id).await;
        let mut other = with_access_token(&interface, &socket_url(&app.server.base_url)).await;
        other.say(format!("bind {base}")).await;
        assert_eq!(other.text().await, format!("bound {base}"));
        let block = json!({"actor": "Device/interface", "reason": "lost"});
        operator.post_plain("/admin/revocations", &block).await.expect(201);
        assert_eq!(socket.bundle().await.status(), "error");
        assert_eq!(socket.end().await.0, POLICY);
        assert_eq!(other.end().await.0, POLICY);
    }

    async fn what_a_client_may_not_send_ends_its_socket_with_the_reason(backend) {
        let app = TestApp::start_with(backend, |options| {
            options.websockets.first_bind = Duration::from_secs(1);
        })
        .await;
        let interface = app.client("interface").await;
        let id = subscribe(&interface, &moves("id-only")).await;
        let url = socket_url(&app.server.base_url);
        for (message, code) in [
            (Message::text("x".repeat(4097)), 1009),
            (Message::text("x".repeat(1 << 20)), 1009),
            (Message::binary(b"bind 1".to_vec()), 1003),
        ] {
            let mut socket = WebSocket::open(&url, &[]).await.unwrap();
            socket.send(message).await;
            assert_eq!(socket.end().await.0, code);
        }
        let mut idle = WebSocket::open(&url, &[]).await.unwrap();
        assert_eq!(idle.end().await, (POLICY, "nothing was bound in time".to_owned()));
        let mut loud = bound(&interface, &id).await;
        for _ in 0..30 {
            loud.say("bind").await;
            if let Heard::Closed(code, _) = loud.hear().await {
                assert_eq!(code, POLICY);
                break;
            }
        }
        let mut flood = bound(&interface, &id).await;
        for _ in 0..25 {
            flood.say("hello").await;
        }
        let (code, why) = flood.end().await;
        assert_eq!((code, why.as_str()), (POLICY, "more than 20 messages in a minute"));
        let mut pings = bound(&interface, &id).await;
        for _ in 0..130 {
            pings.send(Message::Ping("there?".into())).await;
        }
        assert_eq!(pings.end().await.0, POLICY);
    }

    async fn a_client_that_takes_nothing_is_let_go_and_told_where_the_rest_is(backend) {
        let app = TestApp::start_with(backend, |options| {
            options.timeouts.body_idle = Duration::from_secs(1);
            options.timeouts.disconnect = Duration::from_mins(1);
        })
        .await;
        let ehr = app.client("ehr").await;
        let id = subscribe(&ehr, &moves("full-resource")).await;
        let mut socket = bound(&ehr, &id).await;
        let letter = document(&ehr, b"%PDF-1.4 a letter").await;
        let mut large = task("requested", &letter.id, Some("Practitioner/lane"));
        large["description"] = json!("x".repeat(1_000_000));
        for _ in 0..LETTERS {
            ehr.post("/fhir/Task", &large).await.expect(201);
        }
        // It is about time: nothing tells from outside that it is up.
        tokio::time::sleep(Duration::from_secs(4)).await;
        let mut told = Vec::new();
        let end = loop {
            match socket.hear().await {
                Heard::Text(text) => {
                    let notice = Notice(serde_json::from_str(&text).unwrap());
                    told.extend(notice.numbers());
                }
                end => break end,
            }
        };
        assert_eq!(end, Heard::Closed(1013, "nothing was taken for too long; fetch the rest by $events".to_owned()));
        let last = *told.last().expect("some came");
        assert_eq!(told, (1..=last).collect::<Vec<_>>(), "in order, none left out");
        assert!(last < LETTERS, "{last}");
        // An answer holds no more than some MiB, so the rest comes in several.
        eventually("the rest is there", async || {
            let from = told.last().map_or(1, |number| number + 1);
            let path = format!("/fhir/Subscription/{id}/$events?eventsSinceNumber={from}");
            told.extend(Notice(ehr.get(&path).await.expect(200).json()).numbers());
            told == (1..=LETTERS).collect::<Vec<_>>()
        })
        .await;
    }

    async fn a_client_that_gives_no_sign_of_life_is_let_go(backend) {
        let app = TestApp::start_with(backend, |options| {
            options.websockets.ping = Duration::from_millis(200);
            options.websockets.pong = Duration::from_secs(3);
            options.timeouts.disconnect = Duration::from_secs(1);
        })
        .await;
        let interface = app.client("interface").await;
        let id = subscribe(&interface, &moves("id-only")).await;
        let mut alive = bound(&interface, &id).await;
        let mut deaf = bound(&interface, &id).await;
        let (lives, ended) = tokio::join!(alive.hear(), async {
            let ended = deaf.deaf().await;
            Referral::set(&app).await;
            ended
        });
        assert_eq!(ended, (POLICY, "no pong came for too long".to_owned()));
        assert!(matches!(lives, Heard::Text(_)), "{lives:?}");
    }

    async fn there_are_so_many_sockets_in_all_and_of_one_subscriber(backend) {
        let app = TestApp::start_with(backend, |options| {
            options.websockets.max = 3;
            options.websockets.max_per_creator = 1;
            options.websockets.max_subscriptions = 1;
        })
        .await;
        let (interface, ehr) = (app.client("interface").await, app.client("ehr").await);
        let (id, other) = (
            subscribe(&interface, &moves("id-only")).await,
            subscribe(&interface, &of_base_r4()).await,
        );
        let of_ehr = subscribe(&ehr, &moves("id-only")).await;
        let url = socket_url(&app.server.base_url);
        let mut first = bound(&interface, &id).await;
        let _second = bound(&ehr, &of_ehr).await;
        let mut third = with_access_token(&interface, &url).await;
        assert_eq!(WebSocket::open(&url, &[]).await.err(), Some(503));
        third.say(format!("bind {other}")).await;
        assert_eq!(third.end().await.0, 1013, "one subscriber has one");
        let (secret, _) = token(&interface, &other).await;
        first.say(format!("bind-with-token {secret}")).await;
        let (code, why) = first.end().await;
        assert_eq!(code, POLICY);
        assert!(why.starts_with("a web socket hears at most 1"), "{why}");
        eventually("places are free again", async || WebSocket::open(&url, &[]).await.is_ok()).await;
    }

    async fn wrong_binding_tokens_count_as_refused_access_tokens_do(backend) {
        let app = TestApp::start_with(backend, |options| options.clients.failed_tokens_per_minute = 3).await;
        let interface = app.client("interface").await;
        let id = subscribe(&interface, &moves("id-only")).await;
        let (secret, url) = token(&interface, &id).await;
        for wrong in ["a", "b", "c"] {
            let mut socket = WebSocket::open(&url, &[]).await.unwrap();
            socket.say(format!("bind-with-token {wrong}")).await;
            assert_eq!(socket.end().await.0, POLICY);
        }
        let mut socket = WebSocket::open(&url, &[]).await.unwrap();
        socket.say(format!("bind-with-token {secret}")).await;
        assert!(socket.text().await.starts_with("error: too many access tokens"));
        assert_eq!(socket.end().await.0, 1013);
        assert_eq!(WebSocket::open(&url, &[("authorization", "Bearer wrong")]).await.err(), Some(429));
        // It was not looked at, and so is not used up.
        app.clock.advance(Span::seconds(50));
        let mut socket = WebSocket::open(&url, &[]).await.unwrap();
        socket.say(format!("bind-with-token {secret}")).await;
        assert_eq!(socket.bundle().await.kind(), "handshake");
    }

    async fn sockets_are_told_when_the_server_stops(backend) {
        let mut app = TestApp::start(backend).await;
        let interface = app.client("interface").await;
        let id = subscribe(&interface, &moves("id-only")).await;
        let mut socket = bound(&interface, &id).await;
        let began = std::time::Instant::now();
        let (end, ()) = tokio::join!(socket.end(), app.server.stop());
        assert_eq!(end, (1001, "the server is about to stop; connect again".to_owned()));
        assert!(began.elapsed() < Duration::from_secs(10));
    }

    async fn pages_of_other_origins_open_no_socket(backend) {
        let app = TestApp::start_with(backend, |options| {
            options.cors_origins = vec!["https://app.example".to_owned()];
        })
        .await;
        let url = socket_url(&app.server.base_url);
        let own = app.server.base_url.clone();
        for (origin, status) in [
            (own.as_str(), None),
            ("https://app.example", None),
            ("https://evil.example", Some(403)),
            ("https://app.example.evil.example", Some(403)),
            ("null", Some(403)),
        ] {
            let opened = WebSocket::open(&url, &[("origin", origin)]).await;
            assert_eq!(opened.err(), status, "{origin}");
        }
        // Of two none counts.
        let two = [("origin", own.as_str()), ("origin", "https://evil.example")];
        assert_eq!(WebSocket::open(&url, &two).await.err(), Some(403));
    }

    async fn what_asks_for_no_web_socket_gets_none(backend) {
        let app = TestApp::start(backend).await;
        let interface = app.client("interface").await;
        app.stranger().get("/fhir/websocket").await.expect(401);
        let answer = interface.get("/fhir/websocket").await.expect(426);
        assert_eq!(answer.header("upgrade"), Some("websocket"));
        assert_eq!(answer.header("sec-websocket-version"), Some("13"));
        interface.post("/fhir/websocket", &json!({})).await.expect(405);
        let stranger = app.stranger();
        let get = |version: &str, length: Option<&str>| {
            let request = stranger
                .request(reqwest::Method::GET, "/fhir/websocket")
                .header("connection", "upgrade")
                .header("upgrade", "websocket")
                .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")
                .header("sec-websocket-version", version);
            match length {
                Some(length) => request.header("content-length", length),
                None => request,
            }
        };
        stranger.send(get("12", None)).await.expect(401);
        stranger.send(get("13", Some("5")).body("hello")).await.expect(401);
        let unknown = format!("{}/t/nobody/fhir/websocket", app.server.base_url.replacen("http", "ws", 1));
        assert_eq!(WebSocket::open(&unknown, &[]).await.err(), Some(404));
        let statement = stranger.get("/fhir/metadata").await.expect(200).json();
        let url = &statement["rest"][0]["extension"][0]["valueUri"];
        assert_eq!(*url, socket_url(&app.server.base_url));
    }
}
