//! How far deliveries are: what is recorded late, twice or by a process that was replaced undoes nothing, and what waits is
//! found however much there is.

use std::collections::BTreeSet;

use handoff_domain::access::{Attributes, Principal};
use handoff_domain::outbox::{Topic, TopicEvent};
use handoff_domain::ports::{Attention, Due, Kind, SearchIndex, Store as _, StoreError, Tx};
use handoff_domain::subscription::{
    Channel, Course, Criteria, Payload, Route, SHARDS, Subscription, SubscriptionStatus, Trigger,
};
use handoff_domain::{Span, SubscriptionId, TenantId, Timestamp};

use crate::rig::{NOW, Rig, actor, after, on_both};

fn subscription(tenant: &TenantId, id: &str, status: SubscriptionStatus) -> Subscription {
    Subscription {
        id: SubscriptionId::parse(id).unwrap(),
        version: 1,
        last_updated: NOW,
        created_by: actor("Device/interface"),
        subscriber: Principal {
            tenant: tenant.clone(),
            issuer: "https://login.example".to_owned(),
            subject: "interface".to_owned(),
            client: "interface".to_owned(),
            actor: actor("Device/interface"),
            delegate: None,
            roles: BTreeSet::new(),
            teams: BTreeSet::new(),
            scopes: BTreeSet::new(),
            patient: None,
            key: None,
            token_id: "t".to_owned(),
            attributes: Attributes::default(),
        },
        status,
        criteria: Criteria {
            trigger: Trigger::Topic(Topic::TaskStatusChanged),
            focus: Kind::Task,
            filters: Vec::new(),
            changes: Vec::new(),
        },
        channel: Channel {
            route: Route::RestHook("https://hook.example".to_owned()),
            media_type: None,
            payload: Payload::IdOnly,
            heartbeat: None,
            timeout: 10,
            max_count: 5,
        },
        end: None,
        shape: 1,
        begun: false,
        deleted: false,
    }
}

fn due(tenant: &TenantId, id: &str) -> Due {
    Due {
        tenant: tenant.clone(),
        id: SubscriptionId::parse(id).unwrap(),
    }
}

fn events(count: i64) -> Vec<TopicEvent> {
    let event = |version| TopicEvent {
        topic: Topic::TaskStatusChanged,
        focus: "Task/1".to_owned(),
        version,
        change: "ready".to_owned(),
        grant: None,
        correlation: "c".to_owned(),
        trace: None,
        at: NOW,
    };
    (1..=count).map(event).collect()
}

fn insert(tx: &mut dyn Tx, subscription: &Subscription) -> Result<(), StoreError> {
    let tenant = subscription.subscriber.tenant.clone();
    tx.insert_subscription(&tenant, subscription, b"{}", &SearchIndex::default(), b"")
}

/// An active subscription that has counted so many events.
async fn with_events(rig: &Rig, id: &'static str, count: i64) {
    let tenant = rig.tenant.clone();
    rig.write(move |tx| {
        insert(tx, &subscription(&tenant, id, SubscriptionStatus::Active))?;
        tx.give_events(&[(due(&tenant, id), events(count))])
    })
    .await
    .unwrap();
}

async fn stands(rig: &Rig, id: &'static str) -> Attention {
    let tenant = rig.tenant.clone();
    let found = rig
        .read(move |read| read.subscription(&tenant, &due(&tenant, id).id))
        .await;
    found.unwrap()
}

async fn advance(rig: &Rig, id: &'static str, until: i64) -> usize {
    let tenant = rig.tenant.clone();
    let written = rig
        .write(move |tx| tx.advance_courses(&[(due(&tenant, id), until, None)], after(1)))
        .await;
    written.unwrap().len()
}

async fn try_next(rig: &Rig, id: &'static str, until: i64) -> usize {
    let tenant = rig.tenant.clone();
    let written = rig
        .write(move |tx| tx.fix_courses(&[(due(&tenant, id), until)]))
        .await;
    written.unwrap().len()
}

async fn set(rig: &Rig, id: &'static str, course: Course) {
    let tenant = rig.tenant.clone();
    rig.write(move |tx| {
        let active = subscription(&tenant, id, SubscriptionStatus::Active);
        tx.set_course(&tenant, &active, &course, NOW)
    })
    .await
    .unwrap();
}

async fn waiting(rig: &Rig, now: Timestamp, limit: u32) -> Vec<String> {
    let mut found = Vec::new();
    let mut behind: Option<Due> = None;
    loop {
        let after = behind.take();
        let page = rig
            .read(move |read| {
                let shards: Vec<u8> = (0..SHARDS).collect();
                read.due_subscriptions(&shards, now, after.as_ref(), limit)
            })
            .await;
        found.extend(page.iter().map(|one| one.id.to_string()));
        if page.len() < limit as usize {
            return found;
        }
        behind = page.last().cloned();
    }
}

on_both! {
    async fn a_record_that_comes_late_takes_nothing_back(rig: Arc<Rig>) {
        with_events(&rig, "s", 9).await;
        assert_eq!(advance(&rig, "s", 4).await, 1);
        assert_eq!(advance(&rig, "s", 4).await, 0, "known already");
        assert_eq!(advance(&rig, "s", 3).await, 0);
        assert_eq!(stands(&rig, "s").await.course.delivered, 4);
        set(&rig, "s", Course { delivered: 2, ..Course::default() }).await;
        assert_eq!(stands(&rig, "s").await.course.delivered, 4, "somebody read it before that was written");
    }

    /// Found in review: the late record of a process that had lost its lease took away when the next one would try again.
    async fn a_record_does_not_touch_what_waits_to_be_tried_again(rig: Arc<Rig>) {
        with_events(&rig, "s", 9).await;
        let failing = Course {
            attempts: 3,
            trying: Some(6),
            failing_since: Some(NOW),
            next_try: Some(after(60)),
            ..Course::default()
        };
        set(&rig, "s", failing.clone()).await;
        assert_eq!(advance(&rig, "s", 6).await, 0);
        let now = stands(&rig, "s").await;
        assert_eq!((now.course, now.due), (failing, Some(after(60))));
        assert_eq!(waiting(&rig, after(59), 10).await, Vec::<String>::new());
        assert_eq!(waiting(&rig, after(60), 10).await, ["s"]);
    }

    async fn what_is_tried_is_fixed_once_and_until_it_is_delivered(rig: Arc<Rig>) {
        with_events(&rig, "s", 9).await;
        assert_eq!(try_next(&rig, "s", 3).await, 1);
        assert_eq!(try_next(&rig, "s", 5).await, 0, "another process tries less");
        assert_eq!(stands(&rig, "s").await.course.trying, Some(3));
        advance(&rig, "s", 3).await;
        assert_eq!(stands(&rig, "s").await.course.trying, None);
        assert_eq!(try_next(&rig, "s", 3).await, 0, "that is delivered");
        assert_eq!(try_next(&rig, "s", 8).await, 1);
        // Recorded late, of what came before.
        let tenant = rig.tenant.clone();
        rig.write(move |tx| tx.give_events(&[(due(&tenant, "s"), events(1))])).await.unwrap();
        assert_eq!(advance(&rig, "s", 5).await, 1);
        assert_eq!(stands(&rig, "s").await.course.trying, Some(8));
    }

    async fn events_are_numbered_without_gaps_by_whoever_gives_them(rig: Arc<Rig>) {
        with_events(&rig, "s", 2).await;
        let tenant = rig.tenant.clone();
        let undone: Result<(), StoreError> = rig.write(move |tx| {
            tx.give_events(&[(due(&tenant, "s"), events(3))])?;
            Err(StoreError::Broken("undone".to_owned()))
        }).await;
        assert!(undone.is_err());
        let tenant = rig.tenant.clone();
        rig.write(move |tx| tx.give_events(&[(due(&tenant, "s"), events(2))])).await.unwrap();
        let tenant = rig.tenant.clone();
        let found = rig.read(move |read| read.events(&tenant, &due(&tenant, "s").id, 1, 99, 99)).await;
        let numbers: Vec<i64> = found.iter().map(|event| event.number).collect();
        assert_eq!(numbers, [1, 2, 3, 4]);
        assert_eq!(stands(&rig, "s").await.events, 4);
    }

    async fn all_that_wait_are_found_page_by_page(rig: Arc<Rig>) {
        const IDS: [&str; 5] = ["s1", "s2", "s3", "s4", "s5"];
        for id in IDS {
            with_events(&rig, id, 1).await;
        }
        advance(&rig, "s3", 1).await;
        for limit in [1, 2, 3, 9] {
            assert_eq!(waiting(&rig, NOW, limit).await, ["s1", "s2", "s4", "s5"], "{limit}");
        }
    }

    async fn who_asks_again_counts_on_and_who_asks_for_the_first_time_does_not(rig: Arc<Rig>) {
        let tenant = rig.tenant.clone();
        rig.write(move |tx| {
            let of = |id, status| subscription(&tenant, id, status);
            insert(tx, &of("new", SubscriptionStatus::Requested))?;
            insert(tx, &Subscription { begun: true, ..of("again", SubscriptionStatus::Requested) })?;
            insert(tx, &of("active", SubscriptionStatus::Active))?;
            insert(tx, &of("error", SubscriptionStatus::Error))?;
            insert(tx, &Subscription { begun: true, ..of("off", SubscriptionStatus::Off) })
        }).await.unwrap();
        let tenant = rig.tenant.clone();
        let counting = rig.write(move |tx| tx.counting_subscriptions(&tenant)).await.unwrap();
        let ids: Vec<&str> = counting.iter().map(|one| one.id.as_str()).collect();
        assert_eq!(ids, ["active", "again", "error"]);
    }

    async fn what_a_process_held_is_free_once_it_leaves(rig: Arc<Rig>) {
        const TERM: Span = Span::seconds(60);
        let store = &rig.store;
        for process in ["a", "b"] {
            store.heartbeat(process).await.unwrap();
        }
        assert_eq!(store.lease_shards("a", TERM).await.unwrap().len(), 8);
        assert_eq!(store.lease_shards("b", TERM).await.unwrap().len(), 8);
        assert!(store.lease("fan-out", "a", TERM).await.unwrap());
        store.leave("a").await.unwrap();
        assert_eq!(store.lease_shards("b", TERM).await.unwrap().len(), usize::from(SHARDS));
        assert!(store.lease("fan-out", "b", TERM).await.unwrap());
    }
}
