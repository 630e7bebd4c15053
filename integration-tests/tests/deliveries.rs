//! How subscribers are told that do not take what they are sent: when they are tried again and with what, when they are given
//! up, what is withheld from them, and who does it when a replica stops.

use std::time::{Duration, Instant};

use handoff_domain::ids::{SubscriptionId, TenantId};
use handoff_domain::ports::Attention;
use handoff_domain::subscription::SubscriptionStatus;
use handoff_domain::time::Span;
use handoff_integration_tests::deliveries::report::Report;
use handoff_integration_tests::deliveries::{self, Settings};
use handoff_integration_tests::scene::{Referral, document, task};
use handoff_integration_tests::subscriber::{Received, Reply, Subscriber};
use handoff_integration_tests::{Backend, Client, TestApp, eventually, on_both};
use serde_json::{Value, json};

const BACKPORT: &str = "http://hl7.org/fhir/uv/subscriptions-backport/StructureDefinition";
const TOPIC: &str = "https://handoff.example/fhir/SubscriptionTopic/task-status-changed";
/// How long something may take in a debug build while other tests run.
const SOON: Duration = Duration::from_secs(20);

/// A subscription to every move, with these extensions of its channel.
fn every_move(endpoint: &str, channel: &[(&str, u32)]) -> Value {
    let extensions: Vec<Value> = channel
        .iter()
        .map(|(name, value)| {
            let kind = if *name == "backport-max-count" {
                "valuePositiveInt"
            } else {
                "valueUnsignedInt"
            };
            json!({"url": format!("{BACKPORT}/{name}"), kind: value})
        })
        .collect();
    let mut body = json!({
        "resourceType": "Subscription",
        "status": "requested",
        "reason": "follow referrals",
        "criteria": TOPIC,
        "channel": {
            "type": "rest-hook",
            "endpoint": format!("{endpoint}/hook"),
            "payload": "application/fhir+json",
            "_payload": {"extension": [
                {"url": format!("{BACKPORT}/backport-payload-content"), "valueCode": "full-resource"},
            ]},
        },
    });
    if !extensions.is_empty() {
        body["channel"]["extension"] = json!(extensions);
    }
    body
}

/// A subscriber, its subscription, and a Task that is moved.
struct Scene {
    app: TestApp,
    subscriber: Subscriber,
    id: String,
    referral: Referral,
}

impl Scene {
    /// Subscribes to everything, on an app of one's own.
    async fn on(app: TestApp, channel: &[(&str, u32)]) -> Self {
        let subscriber = Subscriber::start().await;
        let interface = app.client("interface").await;
        let body = every_move(&subscriber.url, channel);
        let id = interface.post("/fhir/Subscription", &body).await.expect(201).id();
        let scene = Self {
            referral: Referral::set(&app).await,
            subscriber,
            id,
            app,
        };
        scene.becomes(SubscriptionStatus::Active).await;
        scene
    }

    /// How the subscription stands.
    async fn stands(&self) -> Attention {
        let (tenant, id) = (
            TenantId::default_tenant(),
            SubscriptionId::parse(self.id.as_str()).unwrap(),
        );
        let app = &self.app.server.app;
        let found = app.read(move |read| Ok(read.subscription(&tenant, &id)?)).await;
        found.expect("the database answers").expect("the subscription")
    }

    async fn becomes(&self, status: SubscriptionStatus) {
        eventually("it has another status", async || {
            self.stands().await.subscription.status == status
        })
        .await;
    }

    async fn counts(&self, events: i64) {
        eventually("events are counted", async || {
            self.stands().await.events >= events
        })
        .await;
    }

    /// Moves the Task on as its owner, so often.
    async fn moves(&self, times: usize) {
        let (lane, ehr) = (self.app.client("lane").await, self.app.client("ehr").await);
        let path = format!("/fhir/Task/{}", self.referral.task);
        for _ in 0..times {
            let mut task = ehr.get(&path).await.expect(200).json();
            let next = if task["status"] == "in-progress" {
                "on-hold"
            } else {
                "in-progress"
            };
            task["status"] = json!(next);
            lane.put(&path, &task).await.expect(200);
        }
    }

    /// What came of events so far.
    fn notices(&self) -> Vec<Received> {
        self.subscriber.of_kind("event-notification")
    }

    async fn until(&self, enough: impl Fn(&[Received]) -> bool) -> Vec<Received> {
        self.subscriber.until(SOON, |all| enough(&events_of(all))).await;
        self.notices()
    }

    /// The audit rows about a failure or a withheld event, with their details.
    async fn failures(&self) -> Vec<Value> {
        let auditor = self.app.client("auditor").await;
        let path = "/fhir/AuditEvent?subtype=subscription-failed&_count=50";
        let found = auditor.get(path).await.expect(200).json();
        let entries = found["entry"].as_array().cloned().unwrap_or_default();
        let details = |resource: &Value| {
            let mut all = json!({"outcome": resource["outcome"]});
            for entity in resource["entity"].as_array().into_iter().flatten() {
                for detail in entity["detail"].as_array().into_iter().flatten() {
                    all[detail["type"].as_str().unwrap_or_default()] = detail["valueString"].clone();
                }
            }
            all
        };
        entries.iter().map(|entry| details(&entry["resource"])).collect()
    }
}

fn events_of(all: &[Received]) -> Vec<Received> {
    let is_event = |one: &&Received| one.kind().as_deref() == Some("event-notification");
    all.iter().filter(is_event).cloned().collect()
}

fn numbers(notices: &[Received]) -> Vec<i64> {
    notices
        .iter()
        .flat_map(Received::events)
        .map(|(number, _)| number)
        .collect()
}

/// The numbers of what was taken.
fn taken(notices: &[Received]) -> Vec<i64> {
    let taken: Vec<Received> = notices
        .iter()
        .filter(|one| one.answered == Some(200))
        .cloned()
        .collect();
    numbers(&taken)
}

fn is_event(request: &Received) -> bool {
    request.kind().as_deref() == Some("event-notification")
}

/// Refuses events with this status, and takes everything else.
fn refusing(status: u16) -> impl Fn(&Received) -> Reply + Send + Sync + 'static {
    move |request| Reply::status(if is_event(request) { status } else { 200 })
}

on_both! {
    async fn a_wish_to_be_tried_later_is_granted_to_the_second(backend) {
        let scene = Scene::on(TestApp::start(backend).await, &[]).await;
        scene.until(|notices| taken(notices) == [1]).await;
        scene.subscriber.behave(|request| {
            let reply = Reply::status(if is_event(request) { 503 } else { 200 });
            reply.header("Retry-After", "600")
        });
        scene.moves(1).await;
        scene.until(|notices| notices.len() == 2).await;
        eventually("the failure is written down", async || scene.stands().await.course.attempts == 1).await;
        let course = scene.stands().await.course;
        let pause = course.next_try.unwrap().since(course.failing_since.unwrap());
        assert_eq!(pause, Span::seconds(600));
        assert_eq!(course.problem.as_deref(), Some("status-503"));
        scene.subscriber.behave(|_| Reply::status(200));
        // More is counted meanwhile, and waits too.
        scene.moves(1).await;
        scene.counts(3).await;
        assert_eq!(scene.notices().len(), 2);
        scene.app.clock.advance(Span::seconds(601));
        let notices = scene.until(|notices| taken(notices) == [1, 2, 3]).await;
        assert_eq!(numbers(&notices), [1, 2, 2, 3]);
        assert_eq!(notices[1].body, notices[2].body);
        assert_eq!(notices[1].header("webhook-id"), notices[2].header("webhook-id"));
        assert_eq!(scene.stands().await.course.attempts, 0);
    }

    async fn who_answers_that_it_is_gone_is_told_no_more(backend) {
        let scene = Scene::on(TestApp::start(backend).await, &[]).await;
        scene.until(|notices| taken(notices) == [1]).await;
        scene.subscriber.behave(refusing(410));
        scene.moves(1).await;
        scene.becomes(SubscriptionStatus::Off).await;
        scene.subscriber.behave(|_| Reply::status(200));
        scene.moves(2).await;
        eventually("the outbox is given away", async || {
            !scene.app.server.app.read(|read| Ok(read.has_pending()?)).await.unwrap()
        })
        .await;
        assert_eq!(scene.stands().await.events, 2);
        assert_eq!(scene.notices().len(), 2);
        let interface = scene.app.client("interface").await;
        let shown = interface.get(&format!("/fhir/Subscription/{}", scene.id)).await.expect(200).json();
        assert!(shown["error"].as_str().unwrap().contains("410"), "{shown}");
    }

    async fn who_fails_for_a_day_is_given_up_and_has_everything_once_it_asks_again(backend) {
        let app = TestApp::start_with(backend, |options| {
            options.subscriptions.give_up_after = Duration::from_hours(24);
        })
        .await;
        let scene = Scene::on(app, &[]).await;
        scene.until(|notices| taken(notices) == [1]).await;
        scene.subscriber.behave(refusing(500));
        scene.moves(1).await;
        eventually("it fails", async || scene.stands().await.course.attempts > 0).await;
        scene.app.clock.advance(Span::hours(23));
        let before = scene.stands().await.course.attempts;
        eventually("it is tried again", async || scene.stands().await.course.attempts > before).await;
        assert_eq!(scene.stands().await.subscription.status, SubscriptionStatus::Active);
        scene.app.clock.advance(Span::hours(2));
        scene.becomes(SubscriptionStatus::Error).await;
        let interface = scene.app.client("interface").await;
        let path = format!("/fhir/Subscription/{}", scene.id);
        let shown = interface.get(&path).await.expect(200).json();
        assert!(shown["error"].as_str().unwrap().contains("status-500"), "{shown}");

        // It is well again, and yet nobody tries: but what happens is counted.
        scene.subscriber.behave(|_| Reply::status(200));
        let tried = scene.notices().len();
        scene.moves(2).await;
        scene.counts(4).await;
        scene.app.clock.advance(Span::hours(2));
        scene.moves(1).await;
        scene.counts(5).await;
        assert_eq!(scene.notices().len(), tried);
        assert_eq!(scene.stands().await.subscription.status, SubscriptionStatus::Error);

        // While it asks to be told again, nothing is missed either.
        scene.subscriber.behave(|request| {
            Reply::status(if is_event(request) || request.kind().is_none() { 200 } else { 503 })
        });
        let interface = scene.app.client("interface").await;
        let mut asked = interface.get(&path).await.expect(200).json();
        asked["status"] = json!("requested");
        interface.put(&path, &asked).await.expect(200);
        scene.moves(1).await;
        scene.counts(6).await;
        scene.subscriber.behave(|_| Reply::status(200));
        scene.becomes(SubscriptionStatus::Active).await;
        // Its grants have expired meanwhile, which may have made one more.
        let counted = scene.stands().await.events;
        let all: Vec<i64> = (1..=counted).collect();
        scene.until(|notices| taken(notices).starts_with(&all)).await;
    }

    async fn a_sign_of_life_comes_where_nothing_else_does_and_is_repeated_as_it_was(backend) {
        let scene = Scene::on(TestApp::start(backend).await, &[("backport-heartbeat-period", 60)]).await;
        scene.until(|notices| taken(notices) == [1]).await;
        eventually("it is written down", async || scene.stands().await.course.delivered == 1).await;
        assert_eq!(scene.subscriber.of_kind("heartbeat").len(), 0);
        scene.subscriber.behave(|request| {
            Reply::status(if request.kind().as_deref() == Some("heartbeat") { 500 } else { 200 })
        });
        scene.app.clock.advance(Span::seconds(61));
        let beats = |all: &[Received]| -> Vec<Received> {
            let is_beat = |one: &&Received| one.kind().as_deref() == Some("heartbeat");
            all.iter().filter(is_beat).cloned().collect()
        };
        scene.subscriber.until(SOON, |all| beats(all).len() >= 2).await;
        scene.subscriber.behave(|_| Reply::status(200));
        scene.subscriber.until(SOON, |all| beats(all).iter().any(|one| one.answered == Some(200))).await;
        let first = scene.subscriber.of_kind("heartbeat");
        assert!(first.iter().all(|one| one.body == first[0].body));
        assert!(first.iter().all(|one| one.header("webhook-id") == first[0].header("webhook-id")));
        assert_eq!(first[0].parameter("events-since-subscription-start").as_deref(), Some("1"));
        eventually("it is written down", async || scene.stands().await.course.attempts == 0).await;
        scene.app.clock.advance(Span::seconds(61));
        let all = scene.subscriber.until(SOON, |all| beats(all).len() > first.len()).await;
        let last = beats(&all).pop().unwrap();
        assert_ne!(last.header("webhook-id"), first[0].header("webhook-id"));
    }

    async fn an_answer_that_takes_too_long_is_none(backend) {
        let scene = Scene::on(TestApp::start(backend).await, &[("backport-timeout", 1)]).await;
        scene.until(|notices| taken(notices) == [1]).await;
        scene.subscriber.behave(|request| {
            let after = Duration::from_secs(if is_event(request) { 60 } else { 0 });
            Reply::status(200).after(after)
        });
        scene.moves(1).await;
        eventually("it is given up", async || scene.stands().await.course.attempts > 0).await;
        assert_eq!(scene.stands().await.course.problem.as_deref(), Some("timed-out"));
        scene.subscriber.behave(|_| Reply::status(200));
        let notices = scene.until(|notices| notices.len() >= 3).await;
        assert!(notices[1..].iter().all(|one| one.body == notices[1].body));
    }

    /// Found in review: what was tried alone came again together with what was counted meanwhile, under another id.
    async fn what_was_tried_is_tried_again_as_it_was_and_no_notification_holds_more_than_was_asked_for(backend) {
        let scene = Scene::on(TestApp::start(backend).await, &[("backport-max-count", 3)]).await;
        scene.until(|notices| taken(notices) == [1]).await;
        scene.subscriber.behave(refusing(500));
        scene.moves(1).await;
        scene.until(|notices| notices.len() >= 2).await;
        scene.moves(6).await;
        scene.counts(8).await;
        scene.subscriber.behave(|_| Reply::status(200));
        let notices = scene.until(|notices| taken(notices).len() == 8).await;
        assert_eq!(taken(&notices), [1, 2, 3, 4, 5, 6, 7, 8]);
        let (refused, good): (Vec<Received>, Vec<Received>) =
            notices.into_iter().partition(|one| one.answered == Some(500));
        assert!(good.iter().all(|one| (1..=3).contains(&one.events().len())));
        let again = good.iter().find(|one| one.events()[0].0 == 2).unwrap();
        assert!(refused.iter().all(|one| one.body == again.body));
        assert!(refused.iter().all(|one| one.header("webhook-id") == again.header("webhook-id")));
    }

    async fn what_was_counted_before_its_subscriber_was_blocked_is_withheld_and_that_is_recorded(backend) {
        let scene = Scene::on(TestApp::start(backend).await, &[]).await;
        failing_later(&scene).await;
        let operator = scene.app.client("operator").await;
        let body = json!({"actor": "Device/interface", "reason": "stolen key"});
        let block = operator.post_plain("/admin/revocations", &body).await.expect(201).json();
        withheld(&scene, 2).await;
        operator
            .delete(&format!("/admin/revocations/{}", block["id"].as_str().unwrap()))
            .await
            .expect_one_of(&[200, 204]);
        told_again(&scene).await;
    }

    async fn what_was_counted_before_a_rule_took_the_right_to_it_is_withheld(backend) {
        let scene = Scene::on(TestApp::with_own_rules(backend).await, &[]).await;
        failing_later(&scene).await;
        let in_force = || scene.app.server.app.rules.now().policy.version().to_owned();
        let shipped = in_force();
        let file = scene.app.folder().join("policies/own.cedar");
        std::fs::write(
            &file,
            "@id(\"nobody-follows-tasks\")\nforbid (principal in Role::\"subscriber\", action == Action::\"task-read\", resource);\n",
        )
        .unwrap();
        eventually("the rule is in force", async || in_force() != shipped).await;
        withheld(&scene, 2).await;
        std::fs::remove_file(&file).unwrap();
        eventually("the rule is gone", async || in_force() == shipped).await;
        told_again(&scene).await;
    }

    async fn what_its_placer_may_not_see_any_more_is_withheld(backend) {
        let app = TestApp::start(backend).await;
        // A placer sees what it owns, and no more: `ehr` is not who made this Task.
        let subscriber = Subscriber::start().await;
        let ehr = app.client("ehr").await;
        let id = ehr
            .post("/fhir/Subscription", &every_move(&subscriber.url, &[]))
            .await
            .expect(201)
            .id();
        let referral = Referral::set(&app).await;
        let scene = Scene { app, subscriber, id, referral };
        scene.becomes(SubscriptionStatus::Active).await;
        // It placed the Task, so it hears of it, until a token without that scope stands for it.
        scene.until(|notices| taken(notices) == [1]).await;
        scene.subscriber.behave(|request| {
            let reply = Reply::status(if is_event(request) { 503 } else { 200 });
            reply.header("Retry-After", "60")
        });
        scene.moves(1).await;
        eventually("it fails", async || scene.stands().await.course.attempts == 1).await;
        let narrow = scene
            .app
            .scoped("ehr", "system/Subscription.cruds system/Task.rs?status=completed", None)
            .await;
        let path = format!("/fhir/Subscription/{}", scene.id);
        let mut asked = ehr.get(&path).await.expect(200).json();
        asked["status"] = json!("requested");
        narrow.put(&path, &asked).await.expect(200);
        scene.subscriber.behave(|_| Reply::status(200));
        withheld(&scene, 2).await;
    }

    async fn every_subscriber_has_every_event_although_servers_die(backend) {
        let outcome = deliveries::run(Settings {
            seed: 77,
            moves: 200,
            tasks: 12,
            writers: 6,
            kills: 1,
            backend,
        })
        .await;
        let report = Report::of(&outcome);
        assert!(report.found.is_empty(), "{report}{:#?}", report.found);
        let duplicates: usize = report.lines.iter().map(|line| line.figures.duplicates).sum();
        assert!(duplicates > 0, "{report}");
    }
}

/// Two events: one that was taken, and one that is to be tried again in a minute.
async fn failing_later(scene: &Scene) {
    scene.until(|notices| taken(notices) == [1]).await;
    scene.subscriber.behave(|request| {
        let reply = Reply::status(if is_event(request) { 503 } else { 200 });
        reply.header("Retry-After", "60")
    });
    scene.moves(1).await;
    eventually("it fails", async || scene.stands().await.course.attempts == 1).await;
}

/// Waits until the event of this number is passed over, and looks whether that was recorded and nothing told.
async fn withheld(scene: &Scene, number: i64) {
    let tried = scene.notices().len();
    scene.subscriber.behave(|_| Reply::status(200));
    scene.app.clock.advance(Span::seconds(61));
    eventually("it is passed over", async || {
        scene.stands().await.course.delivered == number
    })
    .await;
    assert_eq!(scene.notices().len(), tried, "nothing of it is sent");
    let failures = scene.failures().await;
    let text = number.to_string();
    let found = failures.iter().find(|row| row["withheld"] == *text);
    let row = found.unwrap_or_else(|| panic!("{failures:#?}"));
    assert_eq!(
        (&row["subscription"], &row["outcome"]),
        (&json!(scene.id), &json!("4"))
    );
}

/// Later events come again, numbered on from where it was.
async fn told_again(scene: &Scene) {
    scene.moves(1).await;
    scene.until(|notices| taken(notices) == [1, 3]).await;
}

/// Two servers on one database, and many subscribers.
struct Pair {
    app: TestApp,
    subscriber: Subscriber,
    ehr: Client,
}

const MANY: usize = 32;

impl Pair {
    async fn place_task(&self) {
        let document = document(&self.ehr, b"%PDF-1.4 a letter").await;
        self.ehr
            .post(
                "/fhir/Task",
                &task("accepted", &document.id, Some("Practitioner/lane")),
            )
            .await
            .expect(201);
    }

    /// Waits until everybody has so many events; answers where the last ones came from.
    async fn everybody_has(&self, events: usize) -> Vec<String> {
        let all = self
            .subscriber
            .until(SOON, |all| events_of(all).len() >= MANY * events)
            .await;
        let last = events_of(&all).split_off(MANY * (events - 1));
        last.iter()
            .filter_map(|one| one.parameter("subscription"))
            .collect()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_replicas_share_the_subscribers_and_one_takes_over_when_the_other_stops() {
    let app = TestApp::start(Backend::Production).await;
    let pair = Pair {
        subscriber: Subscriber::start().await,
        ehr: app.client("ehr").await,
        app,
    };
    let interface = pair.app.client("interface").await;
    for _ in 0..MANY {
        interface
            .post("/fhir/Subscription", &every_move(&pair.subscriber.url, &[]))
            .await
            .expect(201);
    }
    pair.subscriber.until(SOON, |all| all.len() >= MANY).await;
    let active = async || {
        let found = interface
            .get("/fhir/Subscription?status=active&_summary=count")
            .await
            .expect(200);
        found.json()["total"] == MANY
    };
    eventually("all are active", active).await;
    let other = pair.app.replica().await;
    let url = pair.app.options.store.url.clone();
    eventually("each holds its half of the shards", async || {
        let held = handoff_integration_tests::psql_in(
            &url,
            "SELECT string_agg(c::text, ' ') FROM (SELECT count(*) AS c FROM leases \
             WHERE name LIKE 'deliver-%' AND process <> '' GROUP BY process) held",
        );
        held == "8 8"
    })
    .await;
    // Its own half is told by each, under the name that it has itself.
    pair.place_task().await;
    let from = pair.everybody_has(1).await;
    let bases = [&pair.app.server.base_url, &other.server.base_url];
    for base in bases {
        assert!(
            from.iter().any(|url| url.starts_with(base.as_str())),
            "{base}: {from:?}"
        );
    }
    let kept = other.server.base_url.clone();
    let began = Instant::now();
    drop(other);
    pair.place_task().await;
    let from = pair.everybody_has(2).await;
    assert!(from.iter().filter(|url| !url.starts_with(&kept)).count() > 0);
    pair.place_task().await;
    let from = pair.everybody_has(3).await;
    assert!(from.iter().all(|url| !url.starts_with(&kept)), "{from:?}");
    println!("taken over after {:?}", began.elapsed());
}
