//! What endpoints receive.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use handoff_domain::ports::Clock as _;
use handoff_domain::time::Span;
use handoff_fhir_profiles::canonical::EXT_SIGNING_SECRET;
use handoff_integration_tests::backport::{
    Notification, TOPIC, filtered, id_of, subscribe, topic, valid, with_number,
};
use handoff_integration_tests::scene::Referral;
use handoff_integration_tests::subscriber::{Received, Reply, Subscriber};
use handoff_integration_tests::{TestApp, on_both};
use handoff_outbound::signing::{SignatureError, SignedHeaders, SigningSecret, verify};
use serde_json::Value;

use super::SOON;

const EVENT: &str = "event-notification";

fn is_event(one: &Received) -> bool {
    one.kind().as_deref() == Some(EVENT)
}

/// The notifications of events of one subscription, once there are so many events.
async fn events(subscriber: &Subscriber, made: &Value, count: usize) -> Vec<Notification> {
    let told = |all: &[Received]| {
        all.iter()
            .filter(|one| is_event(one))
            .map(|one| one.events().len())
            .sum::<usize>()
    };
    let all = subscriber.until(SOON, |all| told(all) >= count).await;
    let all: Vec<_> = all
        .iter()
        .filter(|one| is_event(one))
        .map(|one| Notification::received(one, made))
        .collect();
    for one in &all {
        assert_eq!(one.status.kind, EVENT);
        assert_eq!(one.status.status, "active");
        assert_eq!(one.status.events, one.status.numbers().last().copied());
    }
    let numbers: Vec<i64> = all.iter().flat_map(|one| one.status.numbers()).collect();
    assert_eq!(numbers, (1..).take(count).collect::<Vec<i64>>());
    all
}

on_both! {
    async fn an_empty_notification_tells_numbers_and_nothing_else(backend) {
        let app = TestApp::start(backend).await;
        let subscriber = Subscriber::start().await;
        let interface = app.client("interface").await;
        let made = subscribe(&interface, &topic("task-status-changed", "empty", &subscriber.url)).await;
        let referral = Referral::set(&app).await;
        referral.move_to(&referral.lane, "in-progress").await.expect(200);
        for one in events(&subscriber, &made, 2).await {
            assert_eq!(one.entries, [] as [Value; 0]);
            assert_eq!(one.status.topic, None);
            assert!(one.status.told.iter().all(|event| event.focus.is_none() && event.context.is_empty()));
        }
        let came = subscriber.received();
        let all: Vec<_> = came.iter().map(|one| String::from_utf8_lossy(&one.body)).collect();
        assert!(!all.iter().any(|text| text.contains(&referral.task)), "{all:?}");
    }

    async fn an_id_only_notification_names_what_it_is_about(backend) {
        let app = TestApp::start(backend).await;
        let subscriber = Subscriber::start().await;
        let interface = app.client("interface").await;
        let asked = topic("grant-lifecycle", "id-only", &subscriber.url);
        let made = subscribe(&interface, &filtered(asked, "grant-status=issued")).await;
        let referral = Referral::set(&app).await;
        let focus = format!("{}/fhir/Task/{}", app.server.base_url, referral.task);
        let told = events(&subscriber, &made, 1).await;
        let canonical = format!("{TOPIC}/grant-lifecycle");
        for one in &told {
            assert_eq!(one.status.topic.as_deref(), Some(canonical.as_str()));
            for event in &one.status.told {
                assert_eq!(event.focus.as_deref(), Some(focus.as_str()));
                assert!(one.resolves(&focus) && event.context.iter().all(|context| one.resolves(context)));
            }
            for entry in &one.entries {
                assert_eq!(entry["resource"], Value::Null);
                assert_eq!(entry["fullUrl"], focus.as_str());
                assert_eq!(entry["request"]["url"], format!("Task/{}", referral.task));
            }
        }
    }

    async fn a_full_notification_holds_each_version_and_a_deletion_without_one(backend) {
        let app = TestApp::start(backend).await;
        let subscriber = Subscriber::start().await;
        let interface = app.client("interface").await;
        let made = subscribe(&interface, &topic("task-status-changed", "full-resource", &subscriber.url)).await;
        let referral = Referral::set(&app).await;
        referral.move_to(&referral.lane, "in-progress").await.expect(200);
        referral.ehr.delete(&format!("/fhir/Task/{}", referral.task)).await.expect(204);
        let all = events(&subscriber, &made, 3).await;
        let focus = format!("{}/fhir/Task/{}", app.server.base_url, referral.task);
        let canonical = format!("{TOPIC}/task-status-changed");
        for (one, status) in all.iter().zip([Some("accepted"), Some("in-progress"), None]) {
            assert_eq!(one.status.topic.as_deref(), Some(canonical.as_str()));
            assert_eq!(one.status.told[0].focus.as_deref(), Some(focus.as_str()));
            assert!(one.resolves(&focus), "{one:?}");
            assert!(one.status.told[0].context.iter().all(|context| one.resolves(context)));
            let [entry] = &one.entries[..] else { panic!("one resource: {one:?}") };
            assert_eq!(entry["fullUrl"], focus.as_str());
            assert_eq!(entry["request"]["url"], format!("Task/{}", referral.task));
            let Some(status) = status else {
                // Nothing of what was deleted is shown any more.
                assert_eq!(entry["resource"], Value::Null);
                assert_eq!(entry["request"]["method"], "DELETE");
                assert_eq!(entry["response"]["status"], "204");
                continue;
            };
            let task = valid("Task", entry["resource"].to_string().as_bytes());
            assert_eq!(task["status"], status);
            assert_eq!(entry["request"]["method"], "PUT");
        }
        // Both versions as they are read.
        for (one, version) in all.iter().zip(["1", "2"]) {
            let path = format!("/fhir/Task/{}/_history/{}", referral.task, one.entries[0]["resource"]["meta"]["versionId"]
                .as_str()
                .unwrap());
            assert!(path.ends_with(version), "{path}");
            assert_eq!(one.entries[0]["resource"], interface.get(&path).await.expect(200).json());
        }
    }

    async fn what_waits_for_an_endpoint_comes_together_where_it_takes_several(backend) {
        let app = TestApp::start(backend).await;
        let subscriber = Subscriber::start().await;
        let interface = app.client("interface").await;
        let asked = topic("task-status-changed", "full-resource", &subscriber.url);
        let asked = with_number(asked, "backport-max-count", "valuePositiveInt", 20);
        let made = subscribe(&interface, &asked).await;
        let is_back = Arc::new(AtomicBool::new(false));
        let back = Arc::clone(&is_back);
        subscriber.behave(move |_| Reply::status(if back.load(Ordering::SeqCst) { 200 } else { 503 }));
        let referral = Referral::set(&app).await;
        for status in ["in-progress", "on-hold", "in-progress"] {
            referral.move_to(&referral.lane, status).await.expect(200);
        }
        is_back.store(true, Ordering::SeqCst);
        let taken = |all: &[Received]| -> Vec<Received> {
            all.iter().filter(|one| is_event(one) && one.answered == Some(200)).cloned().collect()
        };
        let told = |all: &[Received]| -> usize { taken(all).iter().map(|one| one.events().len()).sum() };
        let all = taken(&subscriber.until(SOON, |all| told(all) >= 4).await);
        let all: Vec<_> = all.iter().map(|one| Notification::received(one, &made)).collect();
        let numbers: Vec<i64> = all.iter().flat_map(|one| one.status.numbers()).collect();
        assert_eq!(numbers, [1, 2, 3, 4]);
        assert!(all.iter().any(|one| one.status.told.len() > 1), "{all:?}");
        for one in &all {
            assert_eq!(one.entries.len(), one.status.told.len(), "each with the version that shows it");
        }
    }

    async fn heartbeats_come_to_who_asked_for_them_alone(backend) {
        let app = TestApp::start(backend).await;
        let (with, without) = (Subscriber::start().await, Subscriber::start().await);
        let interface = app.client("interface").await;
        let asked = topic("task-status-changed", "id-only", &with.url);
        let asked = with_number(asked, "backport-heartbeat-period", "valueUnsignedInt", 5);
        let made = subscribe(&interface, &asked).await;
        let quiet = subscribe(&interface, &topic("task-status-changed", "id-only", &without.url)).await;
        for beats in 1..=2 {
            app.clock.advance(Span::seconds(6));
            with.until(SOON, |_| with.of_kind("heartbeat").len() >= beats).await;
        }
        for beat in with.of_kind("heartbeat") {
            let beat = Notification::received(&beat, &made);
            assert_eq!((beat.status.kind.as_str(), beat.status.status.as_str()), ("heartbeat", "active"));
            assert_eq!(beat.status.events, Some(0));
            assert_eq!((beat.status.told.len(), beat.entries.len()), (0, 0));
        }
        // A heartbeat is no event: the first one has the number 1.
        Referral::set(&app).await;
        events(&with, &made, 1).await;
        events(&without, &quiet, 1).await;
        assert_eq!(without.of_kind("heartbeat").len(), 0);
    }

    async fn a_notification_is_signed_and_repeated_byte_by_byte(backend) {
        let app = TestApp::start(backend).await;
        let subscriber = Subscriber::start().await;
        let interface = app.client("interface").await;
        let made = subscribe(&interface, &topic("task-status-changed", "full-resource", &subscriber.url)).await;
        let failures = AtomicU32::new(2);
        subscriber.behave(move |_| {
            let fails = failures.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
            if fails.is_ok() { Reply::status(503) } else { Reply::status(200) }
        });
        let referral = Referral::set(&app).await;
        referral.move_to(&referral.lane, "in-progress").await.expect(200);
        let all = subscriber.until(SOON, |all| all.iter().filter(|one| is_event(one)).count() >= 4).await;
        let events: Vec<_> = all.iter().filter(|one| is_event(one)).collect();
        let [first, second, third, next] = &events[..] else { panic!("{}", events.len()) };
        for again in [second, third] {
            assert_eq!(again.body, first.body);
            assert_eq!(again.header("webhook-id"), first.header("webhook-id"));
            // The kit puts together what is the same, so the status has to say the same as well.
            assert_eq!(Notification::received(again, &made).status, Notification::received(first, &made).status);
        }
        assert_ne!(next.header("webhook-id"), first.header("webhook-id"));

        let extensions = made["channel"]["extension"].as_array().unwrap();
        let key = extensions.iter().find(|one| one["url"] == EXT_SIGNING_SECRET).unwrap();
        let key = SigningSecret::parse(key["valueString"].as_str().unwrap()).unwrap();
        let now = app.clock.now().0.div_euclid(1_000_000);
        for one in &all {
            let headers = SignedHeaders {
                id: one.header("webhook-id").unwrap(),
                timestamp: one.header("webhook-timestamp").unwrap(),
                signature: one.header("webhook-signature").unwrap(),
            };
            let vouched = |body: &[u8], key: &SigningSecret| {
                verify(std::slice::from_ref(key), headers, body, now, SOON * 15)
            };
            assert_eq!(vouched(&one.body, &key), Ok(()));
            assert_eq!(vouched(b"{}", &key), Err(SignatureError::Mismatch));
            assert_eq!(vouched(&one.body, &SigningSecret::new([7; 32])), Err(SignatureError::Mismatch));
        }
        let path = format!("/fhir/Subscription/{}", id_of(&made));
        assert_eq!(interface.get(&path).await.expect(200).json()["status"], "active");
    }
}
