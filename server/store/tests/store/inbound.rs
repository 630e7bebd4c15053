//! What sources told: who they are, what waits, what is whose, and the facts that follow.

use std::collections::BTreeSet;

use handoff_domain::facts::{Fact, FactKind, Saying};
use handoff_domain::inbox::{FeedSubscription, Matter, Mirror, Notice, NoticeState, Numbered, SourceVersion};
use handoff_domain::ports::{NoticeSearch, StoreError};
use handoff_domain::source::{ContentRule, Feed, FeedType, Proof, Settings, Source, Trust};
use handoff_domain::{CorrelationId, NoticeId, Reason, SourceId, TenantId};

use crate::rig::{NOW, actor, after, on_both};

fn source_id(id: &str) -> SourceId {
    SourceId::parse(id).unwrap()
}

fn source(id: &str) -> Source {
    Source {
        id: source_id(id),
        settings: Settings {
            base: Some("https://ehr.example/fhir".to_owned()),
            acts_as: actor("Organization/clinic"),
            topics: BTreeSet::from(["https://ehr.example/topic".to_owned()]),
            types: BTreeSet::from([FeedType::Task, FeedType::Patient]),
            trust: Trust::ReRead,
            content: ContentRule::Keep,
            proof: Proof::Bearer { sha256: [7; 32] },
            credentials: None,
        },
        added_at: NOW,
        feed: Feed::default(),
    }
}

fn notice(id: &str, about: Option<&str>) -> Notice {
    Notice {
        id: NoticeId::parse(id).unwrap(),
        source: source_id("ehr"),
        place: 1,
        numbered: Some(Numbered {
            subscription: "Subscription/1".to_owned(),
            event: 4,
            part: 0,
        }),
        matter: about.map_or(Matter::Changes, |about| Matter::Resource(about.to_owned())),
        version: SourceVersion {
            updated: Some(after(1)),
            version: Some("3".to_owned()),
        },
        body: b"{}".to_vec(),
        gone: about.is_none(),
        received_at: NOW,
        correlation: CorrelationId::parse("c-1").unwrap(),
        state: NoticeState::Waiting { due: NOW },
        tries: 0,
        revision: 1,
    }
}

fn fact(resource: &str, kind: FactKind, subject: &str, stands: bool) -> Fact {
    Fact {
        source: source_id("ehr"),
        resource: resource.to_owned(),
        saying: Saying {
            kind,
            subject: subject.to_owned(),
            team: String::new(),
        },
        at: NOW,
        stands,
    }
}

on_both! {
    async fn a_source_is_found_in_its_tenant_alone(rig: Arc<Rig>) {
        let (tenant, other) = (rig.tenant.clone(), TenantId::parse("other").unwrap());
        let (first, second) = (source("ehr"), source("lab"));
        let (of, one, two) = (tenant.clone(), first.clone(), second.clone());
        rig.write(move |tx| {
            tx.insert_source(&of, &one)?;
            tx.insert_source(&of, &two)
        }).await.unwrap();
        let of = tenant.clone();
        rig.write(move |tx| {
            let mut held = tx.lock_source(&of, &source_id("ehr"))?.unwrap();
            held.feed = Feed { place: 9, heard_at: Some(after(2)), asked_to: Some(after(1)) };
            tx.update_source(&of, &held)?;
            assert_eq!(tx.lock_source(&of, &source_id("none"))?, None);
            Ok(())
        }).await.unwrap();
        let of = tenant.clone();
        let again = first.clone();
        let twice = rig.write(move |tx| tx.insert_source(&of, &again)).await;
        assert_eq!(twice, Err(StoreError::Conflict));
        let of = tenant.clone();
        rig.read(move |read| {
            let known = read.source(&of, &source_id("ehr"))?.unwrap();
            assert_eq!((known.feed.place, known.feed.heard_at), (9, Some(after(2))));
            assert_eq!(known.settings, first.settings);
            assert_eq!(read.source(&other, &source_id("ehr"))?, None);
            assert_eq!(read.sources(Some(&other))?, []);
            let all: Vec<_> = read.sources(None)?.into_iter().map(|(_, s)| s.id).collect();
            assert_eq!(all, [source_id("ehr"), source_id("lab")]);
            Ok(())
        }).await;
        let removed = rig.write(move |tx| {
            Ok([tx.remove_source(&tenant, &source_id("lab"))?, tx.remove_source(&tenant, &source_id("lab"))?])
        }).await.unwrap();
        assert_eq!(removed, [true, false]);
    }

    async fn what_is_known_of_a_subscription_is_changed_by_who_saw_it_last(rig: Arc<Rig>) {
        let tenant = rig.tenant.clone();
        let mut known = FeedSubscription::new(source_id("ehr"), "Subscription/1".to_owned(), NOW);
        assert!(!known.is_repeated(3));
        let (of, first) = (tenant.clone(), known.clone());
        rig.write(move |tx| tx.put_feed_subscription(&of, &first)).await.unwrap();
        let of = tenant.clone();
        let stored = rig.write(move |tx| {
            let stored = tx.feed_subscriptions(&of, &source_id("ehr"))?.remove(0);
            tx.put_feed_subscription(&of, &stored)?;
            Ok(stored)
        }).await.unwrap();
        assert_eq!((stored.last_event, stored.missing.as_slice(), stored.revision), (3, &[(1, 2)][..], 1));
        let of = tenant.clone();
        let late = rig.write(move |tx| tx.put_feed_subscription(&of, &stored)).await;
        assert_eq!(late, Err(StoreError::Conflict));
        let left = rig.write(move |tx| {
            let (ehr, lab) = (source_id("ehr"), source_id("lab"));
            tx.remove_feed_subscription(&tenant, &lab, "Subscription/1")?;
            let other = tx.feed_subscriptions(&tenant, &ehr)?.len();
            tx.remove_feed_subscription(&tenant, &ehr, "Subscription/1")?;
            Ok((other, tx.feed_subscriptions(&tenant, &ehr)?.len()))
        }).await.unwrap();
        assert_eq!(left, (1, 0));
    }

    async fn a_notice_waits_until_it_is_settled_and_then_keeps_nothing_that_was_sent(rig: Arc<Rig>) {
        let tenant = rig.tenant.clone();
        let (of, first, second) = (tenant.clone(), notice("n1", Some("Task/1")), notice("n2", None));
        rig.write(move |tx| {
            tx.insert_notice(&of, &first)?;
            tx.insert_notice(&of, &second)?;
            assert_eq!(tx.notice(&of, &first.id)?, Some(first.clone()), "a unit sees what it wrote");
            Ok(())
        }).await.unwrap();
        let of = tenant.clone();
        rig.read(move |read| {
            let (ehr, lab) = (source_id("ehr"), source_id("lab"));
            let waiting: Vec<_> = read.waiting_notices(&of, &ehr, NOW, 9)?.into_iter().map(|id| id.to_string()).collect();
            assert_eq!(waiting, ["n1", "n2"]);
            assert_eq!(read.waiting_sources(NOW)?, [(of.clone(), ehr.clone())]);
            assert!(read.waiting_notices(&of, &ehr, after(-1), 9)?.is_empty(), "not yet");
            assert!(read.waiting_sources(after(-1))?.is_empty());
            assert!(read.waiting_notices(&of, &lab, NOW, 9)?.is_empty());
            assert_eq!(read.backlog(&of, &source_id("ehr"))?, (2, 1));
            assert_eq!(read.backlog(&of, &source_id("lab"))?, (0, 0));
            assert_eq!(read.inbox_depth()?["waiting"], 2);
            Ok(())
        }).await;
        let of = tenant.clone();
        rig.write(move |tx| {
            let held = tx.lock_notice(&of, &NoticeId::parse("n1").unwrap())?.unwrap();
            let state = NoticeState::Quarantined {
                at: after(5),
                reason: Reason::IllegalTransition,
                outcome: "{}".to_owned(),
            };
            tx.update_notice(&of, &held.become_state(state))?;
            let held = tx.lock_notice(&of, &NoticeId::parse("n2").unwrap())?.unwrap();
            tx.update_notice(&of, &held.become_state(NoticeState::Applied { at: after(6), ours: Some("Task/9".to_owned()) }))
        }).await.unwrap();
        let of = tenant.clone();
        rig.read(move |read| {
            let search = |source: Option<&str>, about: Option<&str>, before: Option<&str>| NoticeSearch {
                state: "quarantined",
                source: source.map(source_id),
                about: about.map(str::to_owned),
                before: before.map(|id| NoticeId::parse(id).unwrap()),
                limit: 9,
            };
            let found = read.notices(&of, &search(Some("ehr"), Some("Task/1"), Some("n2")))?;
            assert_eq!(found.len(), 1);
            assert_eq!(found[0].revision, 2);
            assert!(matches!(&found[0].state, NoticeState::Quarantined { reason: Reason::IllegalTransition, .. }));
            for none in [search(Some("lab"), None, None), search(None, Some("Task/2"), None), search(None, None, Some("n1"))] {
                assert_eq!(read.notices(&of, &none)?, []);
            }
            assert_eq!(read.notice(&of, &found[0].id)?.unwrap().body, b"{}");
            let applied = read.notice(&of, &NoticeId::parse("n2").unwrap())?.unwrap();
            assert_eq!(applied.state, NoticeState::Applied { at: after(6), ours: Some("Task/9".to_owned()) });
            assert!(applied.body.is_empty());
            assert_eq!(read.inbox_depth()?["quarantined"], 1);
            Ok(())
        }).await;
        // Only who saw the last revision changes it.
        let (of, stale) = (tenant.clone(), notice("n1", Some("Task/1")));
        let late = rig.write(move |tx| tx.update_notice(&of, &stale.clone().become_state(NoticeState::Dismissed { at: NOW }))).await;
        assert_eq!(late, Err(StoreError::Conflict));
        let forgotten = rig.write(move |tx| Ok([tx.forget_notices(NOW)?, tx.forget_notices(after(1))?])).await.unwrap();
        assert_eq!(forgotten, [0, 1], "what is quarantined stays");
    }

    async fn a_resource_of_a_source_is_one_of_ours_and_may_await_others(rig: Arc<Rig>) {
        let tenant = rig.tenant.clone();
        let mirror = |theirs: &str, awaits: &[&str]| Mirror {
            source: source_id("ehr"),
            theirs: theirs.to_owned(),
            ours: Some("Task/9".to_owned()),
            version: SourceVersion { updated: Some(NOW), version: None },
            notice: NoticeId::parse("n1").unwrap(),
            place: 4,
            awaits: awaits.iter().map(|a| (*a).to_owned()).collect(),
            revision: 1,
        };
        let first = mirror("Task/1", &["DocumentReference/1", "DocumentReference/12"]);
        let (of, one, two) = (tenant.clone(), first.clone(), mirror("Task/2", &[]));
        rig.write(move |tx| {
            tx.put_mirror(&of, &one)?;
            tx.put_mirror(&of, &two)
        }).await.unwrap();
        let of = tenant.clone();
        rig.write(move |tx| {
            assert_eq!(tx.lock_mirror(&of, &source_id("ehr"), "Task/1")?.as_ref(), Some(&first));
            assert_eq!(tx.mirror(&of, &source_id("lab"), "Task/1")?, None);
            for (awaited, count) in [("DocumentReference/1", 1), ("DocumentReference/12", 1), ("DocumentReference/2", 0)] {
                assert_eq!(tx.awaiting(&of, &source_id("ehr"), awaited, 9)?.len(), count, "{awaited}");
            }
            let next = Mirror { awaits: Vec::new(), revision: 2, ..first.clone() };
            tx.put_mirror(&of, &next)?;
            assert_eq!(tx.awaiting(&of, &source_id("ehr"), "DocumentReference/1", 9)?, []);
            assert_eq!(tx.mirror(&of, &source_id("ehr"), "Task/1")?, Some(next));
            Ok(())
        }).await.unwrap();
        let again = mirror("Task/1", &[]);
        let twice = rig.write(move |tx| tx.put_mirror(&tenant, &again)).await;
        assert_eq!(twice, Err(StoreError::Conflict));
    }

    async fn facts_stand_until_their_resource_says_otherwise(rig: Arc<Rig>) {
        let tenant = rig.tenant.clone();
        let merged = fact("Patient/ada", FactKind::PatientMerged, "Patient/ada", true);
        let over = fact("Encounter/1", FactKind::EncounterEnded, "Encounter/1", true);
        let (of, facts) = (tenant.clone(), [merged.clone(), over.clone()]);
        rig.write(move |tx| {
            for fact in &facts {
                tx.put_fact(&of, fact, after(10))?;
            }
            Ok(())
        }).await.unwrap();
        let (of, known) = (tenant.clone(), merged.clone());
        rig.read(move |read| {
            let about = |subject: &str| vec![subject.to_owned(), "Patient/nobody".to_owned()];
            assert_eq!(read.facts_about(&of, &about("Patient/ada"))?, std::slice::from_ref(&known));
            assert_eq!(read.facts_about(&of, &[])?, []);
            assert_eq!(read.facts_about(&TenantId::parse("other").unwrap(), &about("Patient/ada"))?, []);
            // What bears on releases; all that stands, or what changed since.
            assert_eq!(read.facts_changed(None)?, [(of.clone(), known.clone())]);
            assert_eq!(read.facts_changed(Some(after(10)))?, [(of.clone(), known.clone())]);
            assert_eq!(read.facts_changed(Some(after(11)))?, []);
            Ok(())
        }).await;
        let (of, lifted) = (tenant.clone(), Fact { stands: false, ..merged.clone() });
        rig.write(move |tx| {
            tx.put_fact(&of, &lifted, after(20))?;
            assert_eq!(tx.facts_of(&of, &source_id("ehr"), "Patient/ada")?, std::slice::from_ref(&lifted));
            Ok(())
        }).await.unwrap();
        rig.read(move |read| {
            assert_eq!(read.facts_about(&tenant, &["Patient/ada".to_owned()])?, []);
            assert_eq!(read.facts_changed(None)?, []);
            assert_eq!(read.facts_changed(Some(after(20)))?, [(tenant.clone(), Fact { stands: false, ..merged })]);
            Ok(())
        }).await;
    }
}
