//! Several versions of one resource of which some can't be applied, in any order: the newest decides what is held back, and
//! whose it is.

use std::time::Duration;

use handoff_domain::ids::{SourceId, TenantId};
use handoff_domain::source::{ContentRule, FeedType};
use handoff_domain::time::Span;
use handoff_integration_tests::scene::task;
use handoff_integration_tests::{Answer, TestApp, eventually, on_both};
use serde_json::{Value, json};

use crate::notifications::{event, mirrored, notification, put, quarantined, theirs, versioned};
use crate::restraint::{SECRET, Scene, add, at_base, hanging, next, settings};

/// What else a version says.
type Change = fn(&mut Value);

/// No plan is applied here, whatever else it says.
fn refused(mut version: Value) -> Value {
    version["intent"] = json!("plan");
    version
}

async fn notices(app: &TestApp) -> Vec<Value> {
    let operator = app.client("operator").await;
    let found = operator.get("/admin/quarantine").await.expect(200).json();
    found["quarantine"].as_array().unwrap().clone()
}

fn reason(answer: &(u16, Option<String>)) -> &str {
    answer.1.as_deref().unwrap_or_default()
}

on_both! {
    async fn an_older_version_that_is_refused_loosens_nothing(backend) {
        let scene = Scene::set(TestApp::start(backend).await).await;
        let ehr = scene.app.client("ehr").await;
        for (identifier, newest, why) in [("d-1", "on-hold", "task-on-hold"), ("d-2", "completed", "task-not-actionable")] {
            let id = scene.accepted(identifier).await;
            put(&scene.feed, &refused(scene.version(identifier, newest, 9))).await.expect(200);
            put(&scene.feed, &refused(scene.version(identifier, "in-progress", 5))).await.expect(200);
            eventually("both are refused", async || {
                let about = json!(format!("Task/{identifier}"));
                notices(&scene.app).await.iter().filter(|one| one["about"] == about).count() == 2
            })
            .await;
            assert_eq!(reason(&scene.fetched(&id).await), why);
            // Nor does trying the older one again, or giving it up.
            let operator = scene.app.client("operator").await;
            let older = notices(&scene.app).await.into_iter().find(|one| one["about"] == format!("Task/{identifier}")).unwrap();
            let path = format!("/admin/quarantine/{}", older["id"].as_str().unwrap());
            operator.post_plain(&format!("{path}/retry"), &json!({})).await.expect(200);
            operator.delete(&path).await.expect_one_of(&[200, 204]);
            assert_eq!(reason(&scene.fetched(&id).await), why);
            if newest == "completed" {
                let asked = ehr.post(&format!("/fhir/Task/{id}/$grant"), &json!({"resourceType": "Parameters"})).await;
                assert_ne!(asked.status, 200);
            }
        }
    }

    /// Whatever is refused, it may say in any of its elements that nobody is to be given this.
    async fn whatever_is_refused_is_held(backend) {
        let scene = Scene::set(TestApp::start(backend).await).await;
        let changes: [(&str, Change); 4] = [
            ("e-1", |task| task["status"] = json!("requested")),
            ("e-2", |task| task["for"] = json!({"reference": "Patient/ben"})),
            ("e-3", |task| task["restriction"] = json!({"period": {"end": "2020-01-01"}})),
            ("e-4", |_| {}),
        ];
        for (identifier, change) in changes {
            let id = scene.accepted(identifier).await;
            let mut told = refused(scene.version(identifier, "accepted", 2));
            change(&mut told);
            put(&scene.feed, &told).await.expect(200);
            quarantined(&scene.app, &format!("Task/{identifier}")).await;
            assert_eq!(reason(&scene.fetched(&id).await), "task-on-hold", "{identifier}");
        }
    }

    async fn the_parts_of_what_is_held_are_held_with_it(backend) {
        let scene = Scene::set(TestApp::start(backend).await).await;
        let whole = scene.accepted("p-1").await;
        let ehr = scene.app.client("ehr").await;
        let mut part = task("accepted", &scene.letter.id, Some("Practitioner/lane"));
        part["partOf"] = json!([{"reference": format!("Task/{whole}")}]);
        let part = ehr.post("/fhir/Task", &part).await.expect(201).id();
        put(&scene.feed, &refused(scene.version("p-1", "on-hold", 2))).await.expect(200);
        quarantined(&scene.app, "Task/p-1").await;
        assert_eq!(reason(&scene.fetched(&part).await), "task-on-hold");
        put(&scene.feed, &scene.version("p-1", "in-progress", 3)).await.expect(200);
        mirrored(&scene.lane, "p-1", "in-progress").await;
        eventually("he has it again", async || scene.fetched(&part).await == (200, None)).await;
        put(&scene.feed, &refused(scene.version("p-1", "completed", 4))).await.expect(200);
        quarantined(&scene.app, "Task/p-1").await;
        assert_eq!(reason(&scene.fetched(&part).await), "task-not-actionable");
    }

    async fn what_a_refused_document_replaces_is_held(backend) {
        let scene = Scene::set(TestApp::start(backend).await).await;
        let of = |id: &str, more: Value, version| {
            let mut sent = json!({
                "resourceType": "DocumentReference", "status": "current", "subject": {"reference": "Patient/ada"},
                "content": [{"attachment": {"contentType": "text/plain", "data": "aGVsbG8="}}],
                "identifier": [{"value": id}],
            });
            sent.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            versioned(sent, id, version)
        };
        put(&scene.feed, &of("old", json!({}), 1)).await.expect(200);
        put(&scene.feed, &theirs("accepted", "old", "o-1", 1)).await.expect(200);
        let ours = mirrored(&scene.lane, "o-1", "accepted").await;
        let document = ours["focus"]["reference"].as_str().unwrap().to_owned();
        let ehr = scene.app.client("ehr").await;
        let binary = ehr.get(&format!("/fhir/{document}")).await.expect(200).json()["content"][0]["attachment"]["url"].clone();
        let path = format!("/fhir/{}?task=Task/{}", binary.as_str().unwrap(), ours["id"].as_str().unwrap());
        let too_many: Vec<Value> = (0..60).map(|_| json!({"code": "replaces", "target": {"reference": "DocumentReference/old"}})).collect();
        put(&scene.feed, &of("new", json!({"relatesTo": too_many}), 1)).await.expect(200);
        quarantined(&scene.app, "DocumentReference/new").await;
        scene.lane.get(&path).await.refused(403, "document-withheld");
        scene.dismiss("DocumentReference/new").await;
        eventually("it is released again", async || scene.lane.get(&path).await.status == 200).await;
    }

    /// What frees one that is refused may be applied just before it is laid aside, and finds nothing to free: it is applied all
    /// the same, also where the first version of all is the one that comes late.
    async fn what_is_refused_while_its_cause_goes_is_applied(backend) {
        let scene = Scene::set(TestApp::start(backend).await).await;
        let ehr = scene.app.client("ehr").await;
        for number in 0..60 {
            let identifier = format!("overtaken-{number}");
            let of = |status, version| scene.version(&identifier, status, version);
            let is_known = number % 2 == 0;
            if is_known {
                put(&scene.feed, &of("requested", 1)).await.expect(200);
                mirrored(&ehr, &identifier, "requested").await;
            }
            let between = of(if is_known { "ready" } else { "in-progress" }, 2);
            let last = of("completed", 3);
            let late = async {
                tokio::time::sleep(Duration::from_micros(number * 500)).await;
                put(&scene.feed, &between).await
            };
            let (one, other) = tokio::join!(put(&scene.feed, &last), late);
            one.expect(200);
            other.expect(200);
            mirrored(&ehr, &identifier, "completed").await;
        }
        assert_eq!(notices(&scene.app).await, [] as [Value; 0]);
    }

    /// A history tells the newest version first; whatever came along is applied in the order in which it came to be.
    async fn of_several_versions_in_one_notification_the_newest_counts(backend) {
        let scene = Scene::set(TestApp::start(backend).await).await;
        for (identifier, newest_first) in [("h-1", true), ("h-2", false)] {
            scene.accepted(identifier).await;
            let focus = format!("Task/{identifier}");
            let (second, third) = (scene.version(identifier, "in-progress", 2), scene.version(identifier, "cancelled", 3));
            let (one, two) = (next(), next());
            let mut told = notification("event-notification", Some(two), &[
                (one, Some(&focus), Some(&third)), (two, Some(&focus), Some(&second)),
            ]);
            if !newest_first {
                told["entry"].as_array_mut().unwrap()[1..].reverse();
            }
            scene.feed.post("/notifications/ehr-feed", &told).await.expect(200);
            let ours = mirrored(&scene.lane, identifier, "cancelled").await;
            assert_eq!(ours["meta"]["versionId"], "3", "the step between was applied too");
        }
        let id = scene.accepted("h-3").await;
        let mut told = notification("event-notification", Some(next()), &[
            (next(), Some("Task/h-3"), Some(&scene.version("h-3", "in-progress", 2))),
        ]);
        let gone = json!({"fullUrl": "https://ehr.example/fhir/Task/h-3", "request": {"method": "DELETE", "url": "Task/h-3"},
            "response": {"status": "204", "lastModified": "2026-03-01T12:30:00Z"}});
        told["entry"].as_array_mut().unwrap().insert(1, gone);
        scene.feed.post("/notifications/ehr-feed", &told).await.expect(200);
        eventually("it is gone", async || scene.lane.get(&format!("/fhir/Task/{id}")).await.status == 410).await;
    }

    async fn a_crowd_of_old_versions_hides_no_newer_one(backend) {
        let scene = Scene::set(TestApp::start(backend).await).await;
        let id = scene.accepted("c-1").await;
        put(&scene.feed, &refused(scene.version("c-1", "on-hold", 59))).await.expect(200);
        for second in 0..110 {
            let mut old = refused(scene.version("c-1", "in-progress", 2));
            old["meta"]["versionId"] = json!(format!("{}", second + 2));
            old["meta"]["lastUpdated"] = json!(format!("2026-03-01T12:{:02}:{:02}Z", 2 + second / 60, second % 60));
            put(&scene.feed, &old).await.expect(200);
        }
        put(&scene.feed, &scene.version("c-1", "in-progress", 30)).await.expect(200);
        mirrored(&scene.lane, "c-1", "in-progress").await;
        assert_eq!(reason(&scene.fetched(&id).await), "task-on-hold");
    }

    /// Who may not speak of Tasks, or speaks for another, ends none.
    async fn a_source_holds_nothing_that_is_not_for_it_to_tell(backend) {
        let scene = Scene::set(TestApp::start(backend).await).await;
        let id = scene.accepted("s-1").await;
        let mut patients = settings(None, ContentRule::Keep, "Organization/referring-clinic");
        patients.types = [FeedType::Patient].into();
        add(&scene.app, "default", "patients", patients).await;
        add(&scene.app, "default", "stranger", settings(None, ContentRule::Keep, "Organization/stranger")).await;
        let other = scene.app.stranger().with_token(SECRET.to_owned());
        let mut ended = scene.version("s-1", "cancelled", 9);
        ended["id"] = json!(id);
        for source in ["patients", "stranger"] {
            other.put(&format!("/notifications/{source}/Task/{id}"), &ended).await.expect(200);
        }
        eventually("both are refused", async || notices(&scene.app).await.len() == 2).await;
        assert_eq!(scene.fetched(&id).await, (200, None));
    }

    /// What was held for want of an answer goes on where the answer is an old one.
    async fn a_hold_ends_with_the_notice_that_it_is_because_of(backend) {
        let scene = Scene::set(TestApp::start(backend).await).await;
        let id = scene.accepted("w-1").await;
        // Nothing can be read there: refused, and held.
        let told = notification("event-notification", Some(next()), &[(next(), Some("Task/w-1"), None)]);
        scene.feed.post("/notifications/ehr-feed", &told).await.expect(200);
        let aside = quarantined(&scene.app, "Task/w-1").await;
        assert_eq!(reason(&scene.fetched(&id).await), "task-on-hold");
        // It turns out to be what is known already.
        let source = SourceId::parse("ehr-feed").unwrap();
        let known = scene.version("w-1", "accepted", 1);
        let body = serde_json::to_vec(&known).unwrap();
        let (notice, tenant) = (aside["id"].as_str().unwrap().to_owned(), TenantId::default_tenant());
        handoff_domain::ports::write(scene.app.server.app.store.as_ref(), move |tx| {
            let id = handoff_domain::ids::NoticeId::parse(notice.as_str()).unwrap();
            let mut notice = tx.lock_notice(&tenant, &id)?.unwrap();
            assert_eq!(notice.source, source);
            notice.body.clone_from(&body);
            notice.version = handoff_domain::inbox::SourceVersion {
                updated: handoff_domain::Timestamp::parse_instant("2026-03-01T12:01:00Z"),
                version: Some("1".to_owned()),
            };
            tx.insert_notice(&tenant, &handoff_domain::inbox::Notice {
                id: handoff_domain::ids::NoticeId::parse(format!("{}x", notice.id)).unwrap(),
                state: handoff_domain::inbox::NoticeState::Waiting { due: notice.received_at },
                numbered: None,
                ..notice.clone()
            })?;
            let at = notice.received_at;
            tx.update_notice(&tenant, &notice.become_state(handoff_domain::inbox::NoticeState::Superseded { at }))
        })
        .await
        .map_err(|error: handoff_domain::ports::StoreError| error)
        .unwrap();
        eventually("he has it again", async || scene.fetched(&id).await == (200, None)).await;
    }

    /// What waits behind a question that nobody answers is not released meanwhile.
    async fn what_waits_too_long_is_held(backend) {
        let scene = Scene::set(TestApp::start(backend).await).await;
        let (base, held) = hanging().await;
        add(&scene.app, "default", "slow", settings(Some(&base), ContentRule::Fetch, "Organization/referring-clinic")).await;
        let slow = scene.app.stranger().with_token(SECRET.to_owned());
        let send = async |sent: &Value| -> Answer {
            let (kind, id) = (sent["resourceType"].as_str().unwrap(), sent["id"].as_str().unwrap());
            slow.put(&format!("/notifications/slow/{kind}/{id}"), sent).await.expect(200)
        };
        send(&scene.version("l-1", "accepted", 1)).await;
        let ours = mirrored(&scene.lane, "l-1", "accepted").await;
        let id = ours["id"].as_str().unwrap().to_owned();
        let named: Vec<String> = (1..=8).map(|number| format!("Task/slow-{number}")).collect();
        let last = json!({"reference": "Task/l-1"});
        let events: Vec<_> = (1..).zip(named.iter().map(String::as_str).chain(last["reference"].as_str()))
            .map(|(number, name)| (number, Some(name), None))
            .collect();
        let told = at_base(&notification("event-notification", Some(9), &events), &base);
        slow.post("/notifications/slow", &told).await.expect(200);
        assert_eq!(notices(&scene.app).await, [] as [Value; 0]);
        // It is about time, which passes at once.
        scene.app.clock.advance(Span::seconds(3));
        eventually("it is held", async || {
            held_back(&scene.app, &id).await
        })
        .await;
        assert_eq!(reason(&scene.fetched(&id).await), "task-on-hold");
        held.abort();
    }

    /// Numbers that begin anew without a word lose nothing that was never heard of.
    async fn a_number_that_came_before_tells_of_something_new_all_the_same(backend) {
        let scene = Scene::set(TestApp::start(backend).await).await;
        for number in 901..=905 {
            let told = event(number, &scene.version(&format!("b-{number}"), "accepted", 1));
            scene.feed.post("/notifications/ehr-feed", &told).await.expect(200);
        }
        let anew = event(901, &scene.version("b-new", "accepted", 1));
        for _ in 0..2 {
            scene.feed.post("/notifications/ehr-feed", &anew).await.expect(200);
        }
        mirrored(&scene.lane, "b-new", "accepted").await;
    }
}

/// Whether a fact holds the Task back.
async fn held_back(app: &TestApp, id: &str) -> bool {
    let (tenant, subject) = (TenantId::default_tenant(), format!("Task/{id}"));
    let facts = app
        .server
        .app
        .read(move |read| Ok(read.facts_about(&tenant, std::slice::from_ref(&subject))?))
        .await
        .unwrap();
    facts.iter().any(|fact| fact.stands)
}
