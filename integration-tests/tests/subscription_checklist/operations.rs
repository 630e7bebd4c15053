//! `$status`, `$events`, and how subscriptions are found.

use handoff_integration_tests::backport::{
    Notification, Status, becomes, filtered, id_of, subscribe, topic, valid,
};
use handoff_integration_tests::scene::{Referral, task};
use handoff_integration_tests::subscriber::{Reply, Subscriber};
use handoff_integration_tests::{Answer, Client, TestApp, eventually, on_both};
use reqwest::Method;
use serde_json::{Value, json};

use super::{CONTENTS, refused_at};

/// Names and texts of parameters.
type Asked<'a> = &'a [(&'a str, &'a str)];

/// Parameters with these texts.
fn parameters(list: Asked<'_>) -> Value {
    let list: Vec<Value> = list
        .iter()
        .map(|(name, value)| json!({"name": name, "valueString": value}))
        .collect();
    if list.is_empty() {
        return json!({"resourceType": "Parameters"});
    }
    json!({"resourceType": "Parameters", "parameter": list})
}

/// The statuses of a searchset, each held to its profile.
#[track_caller]
fn statuses(answer: Answer) -> Vec<Status> {
    let bundle = valid("Bundle", &answer.expect(200).body);
    assert_eq!(bundle["type"], "searchset");
    let entries = bundle["entry"].as_array().cloned().unwrap_or_default();
    assert_eq!(bundle["total"], entries.len());
    entries
        .iter()
        .map(|entry| {
            assert_eq!(entry["search"]["mode"], "match");
            let status = Status::read(&entry["resource"]);
            assert_eq!(status.kind, "query-status");
            status
        })
        .collect()
}

fn ids(statuses: &[Status]) -> Vec<&str> {
    let mut ids: Vec<&str> = statuses.iter().map(|status| status.id.as_str()).collect();
    ids.sort_unstable();
    ids
}

/// Waits until a subscription has counted so many events.
async fn counted(client: &Client, id: &str, events: i64) {
    let path = format!("/fhir/Subscription/{id}/$status");
    eventually("the events are counted", async || {
        statuses(client.get(&path).await)[0].events == Some(events)
    })
    .await;
}

on_both! {
    async fn the_status_of_one_is_told_by_get_and_by_post(backend) {
        let app = TestApp::start(backend).await;
        let subscriber = Subscriber::start().await;
        let interface = app.client("interface").await;
        for content in CONTENTS {
            let made = subscribe(&interface, &topic("task-status-changed", content, &subscriber.url)).await;
            let id = id_of(&made);
            Referral::set(&app).await;
            counted(&interface, &id, 1).await;
            let path = format!("/fhir/Subscription/{id}/$status");
            let bare = interface.send(interface.request(Method::POST, &path)).await;
            for answer in [
                interface.get(&path).await,
                interface.get(&format!("{path}?_format=json")).await,
                bare,
                interface.post(&path, &parameters(&[])).await,
                // To one, which others there are and how they stand is no matter.
                interface.post(&path, &parameters(&[("id", "another"), ("status", "off")])).await,
            ] {
                let [status] = &statuses(answer)[..] else { panic!("one status") };
                assert_eq!((status.id.as_str(), status.status.as_str()), (id.as_str(), "active"));
                assert_eq!((status.events, status.told.len()), (Some(1), 0));
                assert_eq!(status.topic.is_some(), content != "empty");
            }
            interface.get(&format!("{path}?nonsense=1")).await.refused(400, "invalid");
            interface.send(interface.request(Method::PUT, &path)).await.expect(405);
        }
    }

    async fn what_is_wrong_with_a_subscription_is_the_servers_to_say(backend) {
        let app = TestApp::start(backend).await;
        let subscriber = Subscriber::start().await;
        subscriber.behave(|_| Reply::status(500));
        let interface = app.client("interface").await;
        let asked = topic("task-status-changed", "id-only", &subscriber.url);
        let id = interface.post("/fhir/Subscription", &asked).await.expect(201).id();
        becomes(&interface, &id, "error").await;
        let path = format!("/fhir/Subscription/{id}");
        let mut body = interface.get(&path).await.expect(200).json();
        let said = body["error"].clone();
        assert!(said.as_str().unwrap().contains("status-500"), "{said}");
        let answer = interface.get(&format!("{path}/$status")).await;
        assert!(answer.json()["entry"][0]["resource"]["parameter"]
            .as_array()
            .unwrap()
            .iter()
            .any(|one| one["name"] == "error" && one["valueCodeableConcept"]["text"] == "status-500"));
        let [status] = &statuses(answer)[..] else { panic!("one status") };
        assert_eq!((status.status.as_str(), status.events), ("error", Some(0)));

        body["error"] = json!("nothing at all");
        assert_eq!(interface.put(&path, &body).await.expect(200).json()["error"], said);
        // It is asked for again by its status, and that alone.
        body["status"] = json!("active");
        refused_at(&interface.put(&path, &body).await, "Subscription.status", "active");
        subscriber.behave(|_| Reply::status(200));
        body["status"] = json!("requested");
        assert_eq!(interface.put(&path, &body).await.expect(200).json().get("error"), None);
        becomes(&interface, &id, "active").await;
        assert_eq!(interface.get(&path).await.expect(200).json().get("error"), None);
    }

    async fn the_status_of_many_is_told_by_ids_and_by_statuses(backend) {
        let app = TestApp::start(backend).await;
        let subscriber = Subscriber::start().await;
        let interface = app.client("interface").await;
        let mut own = Vec::new();
        for content in CONTENTS {
            own.push(id_of(&subscribe(&interface, &topic("task-status-changed", content, &subscriber.url)).await));
        }
        let mut off = topic("task-assigned", "empty", &subscriber.url);
        off["status"] = json!("off");
        own.push(interface.post("/fhir/Subscription", &off).await.expect(201).id());
        own.sort_unstable();
        // Somebody else's.
        let ehr = app.client("ehr").await;
        let theirs = id_of(&subscribe(&ehr, &topic("task-assigned", "empty", &subscriber.url)).await);

        let path = "/fhir/Subscription/$status";
        assert_eq!(ids(&statuses(interface.get(path).await)), own);
        assert_eq!(ids(&statuses(interface.send(interface.request(Method::POST, path)).await)), own);
        for (codes, count) in [("off", 1), ("active", 3), ("active,off", 4), ("error", 0)] {
            let found = statuses_by(&interface, &[("status", codes)]).await;
            assert_eq!(found.len(), count, "{codes}");
            assert!(found.iter().all(|one| codes.contains(&one.status)), "{codes}");
        }
        let (one, other) = (own[0].as_str(), own[1].as_str());
        for asked in [
            vec![("id", one), ("id", other)],
            vec![("id", &*format!("{one},{other}"))],
            vec![("id", one), ("id", other), ("id", "nobody"), ("id", &theirs)],
        ] {
            assert_eq!(ids(&statuses_by(&interface, &asked).await), [one, other], "{asked:?}");
        }
        assert_eq!(statuses_by(&interface, &[("id", &theirs)]).await, []);
        // An operator sees them all.
        let operator = app.client("operator").await;
        assert_eq!(statuses(operator.get(path).await).len(), own.len() + 1);

        for bad in ["status=nonsense", "status=", "nonsense=1"] {
            interface.get(&format!("{path}?{bad}")).await.refused(400, "invalid");
        }
        let number = json!({"resourceType": "Parameters", "parameter": [{"name": "id", "valueInteger": 1}]});
        interface.post(path, &number).await.refused(400, "invalid");
        refused_at(&interface.post(path, &json!({"resourceType": "Task"})).await, "", "a Task");
    }

    async fn events_are_told_again_by_their_numbers(backend) {
        let app = TestApp::start(backend).await;
        let subscriber = Subscriber::start().await;
        let interface = app.client("interface").await;
        let made = subscribe(&interface, &topic("task-status-changed", "id-only", &subscriber.url)).await;
        let id = id_of(&made);
        let referral = Referral::set(&app).await;
        for status in ["in-progress", "on-hold", "in-progress"] {
            referral.move_to(&referral.lane, status).await.expect(200);
        }
        counted(&interface, &id, 4).await;
        let path = format!("/fhir/Subscription/{id}/$events");
        let read = |answer: Answer| {
            let found = Notification::read(&answer.expect(200).body, &id);
            assert_eq!((found.status.kind.as_str(), found.status.status.as_str()), ("query-event", "active"));
            assert_eq!(found.status.events, Some(4));
            found
        };
        let (since, until) = ("eventsSinceNumber", "eventsUntilNumber");
        let told: [(Asked<'_>, &[i64]); 10] = [
            (&[], &[1, 2, 3, 4]),
            (&[(since, "2"), (until, "3")], &[2, 3]),
            (&[(since, "3"), (until, "3")], &[3]),
            (&[(since, "3")], &[3, 4]),
            (&[(until, "2")], &[1, 2]),
            (&[(since, "0")], &[1, 2, 3, 4]),
            (&[(until, "0")], &[]),
            (&[(since, "4"), (until, "1")], &[]),
            (&[(since, "5")], &[]),
            (&[(since, "2"), (until, "9223372036854775807")], &[2, 3, 4]),
        ];
        for (asked, numbers) in told {
            let query = query_of(asked);
            assert_eq!(read(interface.get(&format!("{path}?{query}")).await).status.numbers(), numbers, "{query}");
            let posted = interface.post(&path, &parameters(asked)).await;
            assert_eq!(read(posted).status.numbers(), numbers, "{query}");
        }
        for number in ["", "-1", "+1", "%2B1", "1.5", "1e3", "0x1", "one", "%202", "99999999999999999999"] {
            for name in [since, until] {
                interface.get(&format!("{path}?{name}={number}")).await.refused(400, "invalid");
            }
        }
        for bad in ["nonsense=1", "content=everything", "eventsSinceNumber=1&eventsSinceNumber=2", "eventssincenumber=1"] {
            interface.get(&format!("{path}?{bad}")).await.refused(400, "invalid");
        }
        for asked in [
            &[(since, "+1")][..],
            &[(until, "")],
            &[("nonsense", "1")],
            &[("content", "everything")],
            &[(since, "1"), (since, "2")],
        ] {
            let answer = interface.post(&path, &parameters(asked)).await;
            answer.refused(400, "invalid");
        }
        let reference = json!({"resourceType": "Parameters", "parameter": [
            {"name": since, "valueReference": {"reference": "Task/1"}},
        ]});
        interface.post(&path, &reference).await.refused(400, "invalid");

        // `content` says how much; without it, as much as the subscription asks for.
        let focus = format!("{}/fhir/Task/{}", app.server.base_url, referral.task);
        let empty = read(interface.get(&format!("{path}?content=empty")).await);
        assert_eq!(empty.entries, [] as [Value; 0]);
        assert_eq!(empty.status.topic, None);
        assert!(empty.status.told.iter().all(|event| event.focus.is_none()));
        for hint in ["", "?content=id-only"] {
            let named = read(interface.get(&format!("{path}{hint}")).await);
            assert!(named.status.told.iter().all(|event| event.focus.as_deref() == Some(&focus)));
            assert!(named.entries.iter().all(|entry| entry.get("resource").is_none()));
        }
        let full = read(interface.post(&path, &parameters(&[("content", "full-resource")])).await);
        assert!(full.resolves(&focus));
        let shown: Vec<_> = full.entries.iter().map(|entry| entry["resource"]["status"].clone()).collect();
        assert_eq!(shown, ["accepted", "in-progress", "on-hold", "in-progress"]);

        // More than are read at once.
        for _ in 0..60 {
            referral.ehr.post("/fhir/Task", &task("requested", &referral.document.id, None)).await.expect(201);
        }
        counted(&interface, &id, 64).await;
        for (query, first, last) in [("", 1, 64), ("?eventsSinceNumber=4&eventsUntilNumber=60", 4, 60)] {
            let answer = interface.get(&format!("{path}{query}")).await.expect(200);
            let told = Notification::read(&answer.body, &id).status;
            assert_eq!((told.events, told.numbers()), (Some(64), (first..=last).collect()));
        }
    }

        async fn subscriptions_are_found_by_what_they_say(backend) {
        let app = TestApp::start(backend).await;
        let subscriber = Subscriber::start().await;
        let interface = app.client("interface").await;
        let hook = format!("{}/one", subscriber.url);
        let one = subscribe(&interface, &filtered(topic("task-status-changed", "id-only", &hook), "status=ready")).await;
        let mut other = topic("task-assigned", "empty", &format!("{}/other", subscriber.url));
        other["status"] = json!("off");
        other["channel"]["payload"] = json!("application/json");
        other["contact"] = json!([{"system": "phone", "value": "4123"}]);
        let other = interface.post("/fhir/Subscription", &other).await.expect(201).json();
        let (one, other) = (id_of(&one), id_of(&other));
        let encoded = |text: &str| percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string();
        let topics = "https://handoff.example/fhir/SubscriptionTopic/";
        for (query, found) in [
            (format!("url={}", encoded(&hook)), vec![&one]),
            (format!("url={}", encoded(&subscriber.url)), vec![]),
            ("status=active".to_owned(), vec![&one]),
            ("status=off".to_owned(), vec![&other]),
            ("status=active,off".to_owned(), vec![&one, &other]),
            ("status=error".to_owned(), vec![]),
            ("type=rest-hook".to_owned(), vec![&one, &other]),
            ("type=websocket".to_owned(), vec![]),
            (format!("payload={}", encoded("application/fhir+json")), vec![&one]),
            (format!("payload={}", encoded("application/json")), vec![&other]),
            (format!("criteria={}", encoded(&format!("{topics}task-assigned"))), vec![&other]),
            (format!("criteria={}", encoded(topics)), vec![&one, &other]),
            ("criteria=Task".to_owned(), vec![]),
            ("contact=4123".to_owned(), vec![&other]),
            (format!("_id={one}"), vec![&one]),
            (format!("_id={one},{other}&status=off"), vec![&other]),
        ] {
            let answer = interface.get(&format!("/fhir/Subscription?{query}")).await.expect(200);
            let bundle = valid("Bundle", &answer.body);
            let mut ids: Vec<_> = bundle["entry"]
                .as_array()
                .into_iter()
                .flatten()
                .map(|entry| id_of(&valid("Subscription", entry["resource"].to_string().as_bytes())))
                .collect();
            ids.sort_unstable();
            let mut found: Vec<_> = found.into_iter().cloned().collect();
            found.sort_unstable();
            assert_eq!(ids, found, "{query}");
            assert_eq!(bundle["total"], found.len(), "{query}");
        }
        let form = "application/x-www-form-urlencoded";
        let answer = interface.post_bytes("/fhir/Subscription/_search", form, b"status=off".to_vec()).await;
        assert_eq!(answer.expect(200).json()["entry"][0]["resource"]["id"], other.as_str());
    }
}

async fn statuses_by(client: &Client, asked: Asked<'_>) -> Vec<Status> {
    let path = "/fhir/Subscription/$status";
    let told = statuses(client.get(&format!("{path}?{}", query_of(asked))).await);
    assert_eq!(told, statuses(client.post(path, &parameters(asked)).await));
    told
}

fn query_of(asked: Asked<'_>) -> String {
    let pairs: Vec<String> = asked
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    pairs.join("&")
}
