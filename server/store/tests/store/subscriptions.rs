//! Subscriptions and their events: each committed event is given once, numbered without gaps, in the order of its focus;
//! and each process delivers to its share.

use std::sync::Arc;

use handoff_domain::access::{Attributes, Principal};
use handoff_domain::outbox::{Topic, TopicEvent};
use handoff_domain::ports::{Due, Kind, Pending, SearchIndex, Store, StoreError, Tx};
use handoff_domain::subscription::{
    Channel, Course, Criteria, Payload, Route, SHARDS, Subscription, SubscriptionStatus, Trigger, shard_of,
};
use handoff_domain::trace::TraceContext;
use handoff_domain::{Span, SubscriptionId, TenantId};

use crate::rig::{NOW, Rig, actor, after, on_both};

const TERM: Span = Span::seconds(10);

fn id(text: &str) -> SubscriptionId {
    SubscriptionId::parse(text).unwrap()
}

fn subscription(name: &str) -> Subscription {
    Subscription {
        id: id(name),
        version: 1,
        last_updated: NOW,
        created_by: actor("Device/interface"),
        subscriber: Principal {
            tenant: TenantId::default_tenant(),
            issuer: "https://issuer.example".to_owned(),
            subject: "interface".to_owned(),
            client: "interface".to_owned(),
            actor: actor("Device/interface"),
            delegate: None,
            roles: std::collections::BTreeSet::new(),
            teams: std::collections::BTreeSet::new(),
            scopes: std::collections::BTreeSet::new(),
            patient: None,
            key: None,
            token_id: "t".to_owned(),
            attributes: Attributes::default(),
        },
        status: SubscriptionStatus::Active,
        criteria: Criteria {
            trigger: Trigger::Topic(Topic::TaskStatusChanged),
            focus: Kind::Task,
            filters: Vec::new(),
            changes: Vec::new(),
        },
        channel: Channel {
            route: Route::RestHook("https://hooks.example/1".to_owned()),
            media_type: Some("application/fhir+json".to_owned()),
            payload: Payload::IdOnly,
            heartbeat: None,
            timeout: 15,
            max_count: 1,
        },
        end: None,
        shape: 1,
        begun: true,
        deleted: false,
    }
}

fn event(focus: &str, version: i64) -> TopicEvent {
    TopicEvent {
        topic: Topic::TaskStatusChanged,
        focus: focus.to_owned(),
        version,
        change: "ready".to_owned(),
        grant: None,
        correlation: "c1".to_owned(),
        trace: TraceContext::new(1, 2, true),
        at: after(version),
    }
}

async fn insert(rig: &Rig, one: Subscription) {
    let tenant = rig.tenant.clone();
    rig.write(move |tx| tx.insert_subscription(&tenant, &one, b"{}", &SearchIndex::default(), b"sealed"))
        .await
        .unwrap();
}

/// Gives everything that waits to one subscription.
fn give_all(tx: &mut dyn Tx, to: &Due, limit: u32) -> Result<Vec<Pending>, StoreError> {
    let pending = tx.take_pending(limit)?;
    let events: Vec<TopicEvent> = pending.iter().map(|one| one.event.clone()).collect();
    if !events.is_empty() {
        tx.give_events(&[(to.clone(), events)])?;
    }
    tx.settle_pending(&pending)?;
    Ok(pending)
}

fn due(rig: &Rig, name: &str) -> Due {
    Due {
        tenant: rig.tenant.clone(),
        id: id(name),
    }
}

fn all_shards() -> Vec<u8> {
    (0..SHARDS).collect()
}

on_both! {
    async fn a_subscription_is_found_again_as_it_was_stored_and_counts_from_zero(rig: Arc<Rig>) {
        insert(&rig, subscription("s1")).await;
        let tenant = rig.tenant.clone();
        let found = rig.read(move |read| read.subscription(&tenant, &id("s1"))).await.unwrap();
        assert_eq!(found.subscription, subscription("s1"));
        assert_eq!((found.events, found.course), (0, Course::default()));
        assert_eq!(found.sealed, b"sealed");
    }

    async fn events_are_numbered_in_the_order_of_the_outbox_and_given_once(rig: Arc<Rig>) {
        insert(&rig, subscription("s1")).await;
        let tenant = rig.tenant.clone();
        rig.write(move |tx| {
            for version in 1..=5 {
                tx.tell(&tenant, event("Task/1", version));
            }
            Ok(())
        })
        .await
        .unwrap();
        assert!(rig.read(|read| read.has_pending()).await);
        let to = due(&rig, "s1");
        for expected in [2, 2, 1, 0] {
            let to = to.clone();
            let given = rig.write(move |tx| give_all(tx, &to, 2)).await.unwrap();
            assert_eq!(given.len(), expected);
        }
        assert!(!rig.read(|read| read.has_pending()).await);
        let tenant = rig.tenant.clone();
        let kept = rig.read(move |read| read.events(&tenant, &id("s1"), 2, 4, 100)).await;
        let numbers: Vec<(i64, i64)> = kept.iter().map(|one| (one.number, one.event.version)).collect();
        assert_eq!(numbers, [(2, 2), (3, 3), (4, 4)]);
        assert_eq!(kept[0].event, event("Task/1", 2));
    }

    async fn what_was_rolled_back_is_never_given_and_what_is_committed_late_is(rig: Arc<Rig>) {
        insert(&rig, subscription("s1")).await;
        let tenant = rig.tenant.clone();
        let refused: Result<(), StoreError> = rig
            .write(move |tx| {
                tx.tell(&tenant, event("Task/1", 1));
                Err(StoreError::Broken("undone".to_owned()))
            })
            .await;
        assert!(refused.is_err());
        let tenant = rig.tenant.clone();
        rig.write(move |tx| {
            tx.tell(&tenant, event("Task/1", 2));
            Ok(())
        })
        .await
        .unwrap();
        let to = due(&rig, "s1");
        let given = rig.write(move |tx| give_all(tx, &to, 10)).await.unwrap();
        assert_eq!(given.iter().map(|one| one.event.version).collect::<Vec<_>>(), [2]);
        // One with a lower number than what was given already, as of a transaction that was slow to commit.
        rig.execute(
            "INSERT INTO outbox (tenant, sequence, topic, focus, version, change, at, pending, correlation) \
             VALUES ('default', -1, 'task-status-changed', 'Task/9', 1, 'ready', 0, TRUE, 'c')",
        );
        let to = due(&rig, "s1");
        let given = rig.write(move |tx| give_all(tx, &to, 10)).await.unwrap();
        assert_eq!(given.iter().map(|one| one.event.focus.as_str()).collect::<Vec<_>>(), ["Task/9"]);
    }

    async fn several_that_give_at_once_give_each_event_once_and_leave_no_gap(rig: Arc<Rig>) {
        insert(&rig, subscription("s1")).await;
        let writers: Vec<_> = (0..8)
            .map(|writer| {
                let rig = Arc::clone(&rig);
                tokio::spawn(async move {
                    for version in 1..=20 {
                        let tenant = rig.tenant.clone();
                        rig.write(move |tx| {
                            tx.tell(&tenant, event(&format!("Task/{writer}"), version));
                            Ok(())
                        })
                        .await
                        .unwrap();
                    }
                })
            })
            .collect();
        let givers: Vec<_> = (0..3)
            .map(|_| {
                let rig = Arc::clone(&rig);
                tokio::spawn(async move {
                    let mut given = 0;
                    for _ in 0..2_000 {
                        let to = due(&rig, "s1");
                        given += rig.write(move |tx| give_all(tx, &to, 7)).await.unwrap().len();
                        let tenant = rig.tenant.clone();
                        let counted = rig.read(move |read| read.subscription(&tenant, &id("s1"))).await;
                        if counted.unwrap().events == 160 {
                            break;
                        }
                    }
                    given
                })
            })
            .collect();
        for writer in writers {
            writer.await.unwrap();
        }
        let mut given = 0;
        for giver in givers {
            given += giver.await.unwrap();
        }
        assert_eq!(given, 160);
        let tenant = rig.tenant.clone();
        let kept = rig.read(move |read| read.events(&tenant, &id("s1"), 1, i64::MAX, 1_000)).await;
        assert_eq!(kept.iter().map(|one| one.number).collect::<Vec<_>>(), (1..=160).collect::<Vec<_>>());
        for writer in 0..8 {
            let focus = format!("Task/{writer}");
            let versions: Vec<i64> = kept
                .iter()
                .filter(|one| one.event.focus == focus)
                .map(|one| one.event.version)
                .collect();
            assert_eq!(versions, (1..=20).collect::<Vec<_>>(), "{focus}");
        }
    }

    async fn a_tenants_revision_rises_with_every_change_and_only_those_that_count_are_given_events(rig: Arc<Rig>) {
        insert(&rig, subscription("s1")).await;
        insert(&rig, Subscription { status: SubscriptionStatus::Requested, begun: false, ..subscription("s2") }).await;
        let tenant = rig.tenant.clone();
        let (before, counting) = rig
            .write(move |tx| Ok((tx.subscription_revisions()?, tx.counting_subscriptions(&tenant)?)))
            .await
            .unwrap();
        assert_eq!(counting, [subscription("s1")]);
        let tenant = rig.tenant.clone();
        rig.write(move |tx| {
            let found = tx.lock_subscription(&tenant, &id("s2"))?.unwrap();
            let after = Subscription { version: 2, status: SubscriptionStatus::Active, ..found };
            tx.update_subscription(&tenant, &after, b"{}", &SearchIndex::default(), None)
        })
        .await
        .unwrap();
        let tenant = rig.tenant.clone();
        let (now, counting) = rig
            .write(move |tx| Ok((tx.subscription_revisions()?, tx.counting_subscriptions(&tenant)?)))
            .await
            .unwrap();
        assert!(now[&rig.tenant] > before[&rig.tenant]);
        assert_eq!(counting.len(), 2);
    }

    async fn a_second_change_of_the_same_version_is_a_conflict(rig: Arc<Rig>) {
        insert(&rig, subscription("s1")).await;
        let tenant = rig.tenant.clone();
        let twice = rig
            .write(move |tx| {
                let found = tx.lock_subscription(&tenant, &id("s1"))?.unwrap();
                let after = Subscription { version: 3, ..found };
                tx.update_subscription(&tenant, &after, b"{}", &SearchIndex::default(), None)
            })
            .await;
        assert_eq!(twice, Err(StoreError::Conflict));
    }

    async fn a_subscription_is_due_by_its_events_or_by_its_time(rig: Arc<Rig>) {
        insert(&rig, subscription("s1")).await;
        insert(&rig, Subscription { status: SubscriptionStatus::Requested, begun: false, ..subscription("s2") }).await;
        let listed = async |at| {
            let found = rig.read(move |read| read.due_subscriptions(&all_shards(), at, None, 10)).await;
            let mut names: Vec<String> = found.iter().map(|one| one.id.to_string()).collect();
            names.sort();
            names
        };
        assert_eq!(listed(NOW).await, ["s2"], "its handshake is to come");
        let (tenant, to) = (rig.tenant.clone(), due(&rig, "s1"));
        rig.write(move |tx| {
            tx.tell(&tenant, event("Task/1", 1));
            give_all(tx, &to, 10).map(drop)
        })
        .await
        .unwrap();
        assert_eq!(listed(NOW).await, ["s1", "s2"]);
        let tenant = rig.tenant.clone();
        rig.write(move |tx| {
            let course = Course { next_try: Some(after(60)), attempts: 1, failing_since: Some(NOW), ..Course::default() };
            tx.set_course(&tenant, &subscription("s1"), &course, NOW)
        })
        .await
        .unwrap();
        assert_eq!(listed(after(59)).await, ["s2"]);
        assert_eq!(listed(after(60)).await, ["s1", "s2"]);
        let tenant = rig.tenant.clone();
        let failing = rig.read(move |read| read.undelivered(&tenant, 10)).await;
        assert_eq!(failing.len(), 1);
        let none: Vec<u8> = all_shards()
            .into_iter()
            .filter(|shard| *shard != shard_of(&rig.tenant, &id("s1")) && *shard != shard_of(&rig.tenant, &id("s2")))
            .collect();
        assert!(rig.read(move |read| read.due_subscriptions(&none, after(60), None, 10)).await.is_empty());
    }

    async fn how_far_deliveries_are_never_goes_back_by_what_is_written_late(rig: Arc<Rig>) {
        insert(&rig, subscription("s1")).await;
        for until in [5, 3] {
            let to = due(&rig, "s1");
            rig.write(move |tx| tx.advance_courses(&[(to.clone(), until, None)], NOW)).await.unwrap();
        }
        let tenant = rig.tenant.clone();
        let found = rig.read(move |read| read.subscription(&tenant, &id("s1"))).await.unwrap();
        assert_eq!(found.course.delivered, 5);
        assert_eq!(found.course.last_sent, Some(NOW));
    }

    async fn an_operator_alone_has_events_told_again(rig: Arc<Rig>) {
        insert(&rig, subscription("s1")).await;
        let to = due(&rig, "s1");
        let tenant = rig.tenant.clone();
        rig.write(move |tx| {
            tx.advance_courses(&[(to.clone(), 5, None)], NOW)?;
            // Whoever writes down a failure of before does not undo what was delivered since.
            tx.set_course(&tenant, &subscription("s1"), &Course { delivered: 2, ..Course::default() }, NOW)
        })
        .await
        .unwrap();
        let delivered = async || {
            let tenant = rig.tenant.clone();
            rig.read(move |read| read.subscription(&tenant, &id("s1"))).await.unwrap().course.delivered
        };
        assert_eq!(delivered().await, 5);
        let tenant = rig.tenant.clone();
        rig.write(move |tx| tx.rewind_course(&tenant, &id("s1"), 2)).await.unwrap();
        assert_eq!(delivered().await, 2);
    }

    async fn old_events_are_forgotten_and_young_ones_kept(rig: Arc<Rig>) {
        insert(&rig, subscription("s1")).await;
        let (tenant, to) = (rig.tenant.clone(), due(&rig, "s1"));
        rig.write(move |tx| {
            for version in 1..=4 {
                tx.tell(&tenant, event("Task/1", version));
            }
            give_all(tx, &to, 10)?;
            // Not given yet: kept, however old.
            tx.tell(&tenant, event("Task/2", 0));
            Ok(())
        })
        .await
        .unwrap();
        let tenant = rig.tenant.clone();
        let forgotten = rig.write(move |tx| tx.forget_events(&tenant, after(3), 10)).await.unwrap();
        assert_eq!(forgotten, 2);
        let tenant = rig.tenant.clone();
        let kept = rig.read(move |read| read.events(&tenant, &id("s1"), 1, 10, 10)).await;
        assert_eq!(kept.iter().map(|one| one.number).collect::<Vec<_>>(), [3, 4]);
        let left = rig.names("SELECT focus || ' ' || version AS name FROM outbox ORDER BY sequence");
        assert_eq!(left, ["Task/1 3", "Task/1 4", "Task/2 0"]);
    }

    async fn processes_share_the_shards_and_take_over_those_of_one_that_died(rig: Arc<Rig>) {
        let store = &rig.store;
        store.heartbeat("a").await.unwrap();
        assert_eq!(store.lease_shards("a", TERM).await.unwrap(), all_shards());
        store.heartbeat("b").await.unwrap();
        assert!(store.lease_shards("b", TERM).await.unwrap().is_empty(), "none is free yet");
        let of_a = store.lease_shards("a", TERM).await.unwrap();
        assert_eq!(of_a.len(), 8, "it gives back what is more than its share");
        let of_b = store.lease_shards("b", TERM).await.unwrap();
        assert_eq!(of_b.len(), 8);
        assert!(of_a.iter().all(|shard| !of_b.contains(shard)));
        // `a` dies.
        rig.execute(&format!("UPDATE processes SET seen = seen - {} WHERE name = 'a'", Span::seconds(30).0));
        rig.execute(&format!("UPDATE leases SET until = until - {} WHERE process = 'a'", Span::seconds(11).0));
        assert_eq!(store.lease_shards("b", TERM).await.unwrap(), all_shards());
    }

    async fn whoever_waits_for_news_of_events_is_woken_by_those_that_were_given(rig: Arc<Rig>) {
        insert(&rig, subscription("s1")).await;
        while rig.store.await_events().await {}
        let (tenant, to) = (rig.tenant.clone(), due(&rig, "s1"));
        rig.write(move |tx| {
            tx.tell(&tenant, event("Task/1", 1));
            Ok(())
        })
        .await
        .unwrap();
        assert!(rig.store.await_outbox().await);
        rig.write(move |tx| give_all(tx, &to, 10).map(drop)).await.unwrap();
        assert!(rig.store.await_events().await);
    }
}
