//! Redemptions: what is cut, what is opened again, what is abandoned, and how other processes learn of it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use handoff_domain::grant::Grant;
use handoff_domain::ports::{Store, StoreError};
use handoff_domain::redemption::{Redemption, RedemptionState, ResumeError};
use handoff_domain::{Reason, Span, Timestamp};
use handoff_store::DieselStore;

use crate::rig::{
    NOW, Rig, after, bound, grant_id, insert_task, on_both, poll_once, redemption, redemption_id, task,
};

async fn store(rig: &Rig, redemptions: Vec<Redemption>) {
    let tenant = rig.tenant.clone();
    rig.write(move |tx| {
        redemptions
            .iter()
            .try_for_each(|one| tx.insert_redemption(&tenant, one))
    })
    .await
    .unwrap();
}

async fn states(rig: &Rig, grant: &'static str) -> Vec<(String, RedemptionState, Option<Reason>)> {
    let tenant = rig.tenant.clone();
    let mut found = rig
        .read(move |read| read.redemptions_of_grant(&tenant, &grant_id(grant)))
        .await;
    found.sort_by(|a, b| a.id.cmp(&b.id));
    found
        .into_iter()
        .map(|r| (r.id.to_string(), r.state, r.cut_reason))
        .collect()
}

/// What a process must stop: id, which stream, state, why it was cut.
async fn halted(rig: &Rig, process: &'static str) -> Vec<(String, u32, RedemptionState, Option<Reason>)> {
    let found = rig.read(move |read| read.halted_at(process)).await;
    found
        .into_iter()
        .map(|one| {
            (
                one.redemption.id.to_string(),
                one.stream,
                one.state,
                one.cut_reason,
            )
        })
        .collect()
}

fn one_of_each_state(grant: &str) -> Vec<Redemption> {
    RedemptionState::ALL
        .into_iter()
        .map(|state| redemption(state.as_str(), grant, state))
        .collect()
}

on_both! {
    async fn a_redemption_comes_back_as_it_was_stored_and_changes_once_per_revision(rig: Arc<Rig>) {
        let first = redemption("r1", "g1", RedemptionState::Streaming);
        store(&rig, vec![first.clone()]).await;
        let last = Redemption {
            state: RedemptionState::Completed, ended_at: Some(after(3)), bytes_sent: 100, sent_up_to: 100,
            streams: 2, process: None, revision: 2, ..first
        };
        let tenant = rig.tenant.clone();
        let changed = last.clone();
        rig.write(move |tx| tx.update_redemption(&tenant, &changed)).await.unwrap();
        let tenant = rig.tenant.clone();
        let again = last.clone();
        assert_eq!(rig.write(move |tx| tx.update_redemption(&tenant, &again)).await, Err(StoreError::Conflict));
        let tenant = rig.tenant.clone();
        assert_eq!(rig.read(move |read| read.redemption(&tenant, &redemption_id("r1"))).await, Some(last));
    }

    async fn a_cut_ends_what_is_open_and_nothing_else(rig: Arc<Rig>) {
        store(&rig, one_of_each_state("g1")).await;
        let tenant = rig.tenant.clone();
        let cut = rig.write(move |tx| {
            assert_eq!(tx.cut_redemptions(&tenant, &grant_id("none"), Reason::Emergency, after(1))?, 0);
            tx.cut_redemptions(&tenant, &grant_id("g1"), Reason::TaskOnHold, after(1))
        }).await.unwrap();
        assert_eq!(cut, 3);
        let on_hold = Some(Reason::TaskOnHold);
        let of = |state: RedemptionState, now, reason| (state.as_str().to_owned(), now, reason);
        assert_eq!(states(&rig, "g1").await, [
            of(RedemptionState::Authorized, RedemptionState::CutOff, on_hold),
            of(RedemptionState::Completed, RedemptionState::Completed, None),
            of(RedemptionState::CutOff, RedemptionState::CutOff, None),
            of(RedemptionState::IntegrityFailed, RedemptionState::IntegrityFailed, None),
            of(RedemptionState::Interrupted, RedemptionState::CutOff, on_hold),
            of(RedemptionState::Streaming, RedemptionState::CutOff, on_hold),
        ]);
    }

    async fn what_a_process_must_stop_is_told_until_the_end_of_its_stream_is(rig: Arc<Rig>) {
        let at = |id: &str, grant: &str, process: &str| Redemption {
            process: Some(process.to_owned()), streams: 3, ..redemption(id, grant, RedemptionState::Streaming)
        };
        let opened = Redemption { streams: 0, ..redemption("opened", "g1", RedemptionState::Authorized) };
        store(&rig, vec![at("r1", "g1", "p1"), at("r2", "g1", "p2"), at("r3", "g2", "p1"), opened]).await;
        assert_eq!(halted(&rig, "p1").await, []);
        let tenant = rig.tenant.clone();
        rig.write(move |tx| tx.cut_redemptions(&tenant, &grant_id("g1"), Reason::TaskOnHold, NOW)).await.unwrap();
        let cut = |id: &str| (id.to_owned(), 3, RedemptionState::CutOff, Some(Reason::TaskOnHold));
        // Asked twice, told twice; what was only opened has no stream to stop.
        assert_eq!(halted(&rig, "p1").await, [cut("r1")]);
        assert_eq!(halted(&rig, "p1").await, [cut("r1")]);
        assert_eq!(halted(&rig, "p2").await, [cut("r2")]);
        assert_eq!(halted(&rig, "p3").await, []);
        // Reopened, the stream that was cut must end all the same, and nothing new begins before it has.
        let tenant = rig.tenant.clone();
        rig.write(move |tx| tx.reopen_redemptions(&tenant, &grant_id("g1"), Reason::TaskOnHold, "p4", NOW)).await.unwrap();
        assert_eq!(halted(&rig, "p1").await, [("r1".to_owned(), 3, RedemptionState::Interrupted, None)]);
        let tenant = rig.tenant.clone();
        let told = rig.write(move |tx| {
            let found = tx.redemption(&tenant, &redemption_id("r1"))?.unwrap();
            assert_eq!(found.clone().start(10, 5, "p2", NOW), Err(ResumeError::Busy));
            let ended = found.end_earlier_stream(10, 5, true);
            tx.update_redemption(&tenant, &ended)?;
            Ok(ended)
        }).await.unwrap();
        assert_eq!(halted(&rig, "p1").await, []);
        assert!(told.start(15, 5, "p2", NOW).is_ok());
    }

    async fn a_process_learns_how_all_its_streams_stand_grants_included(rig: Arc<Rig>) {
        let of = |id: &str, grant: &str, state, process: &str| Redemption {
            process: Some(process.to_owned()), ..redemption(id, grant, state)
        };
        let mut suspended = bound("suspended", "t1");
        suspended.state = suspended.clone().suspend(Reason::TaskOnHold).unwrap().state;
        let exhausted = bound("exhausted", "t2").take_use(NOW).unwrap();
        let revoked = bound("revoked", "t3").revoke(NOW, Reason::Emergency).unwrap();
        let tenant = rig.tenant.clone();
        let late = bound("late", "t4").take_use(NOW).unwrap();
        let grants: Vec<_> = [suspended, exhausted, revoked, late].map(|g| Grant { revision: 1, ..g }).into();
        rig.write(move |tx| {
            for (n, grant) in grants.iter().enumerate() {
                let mut of_it = task(&format!("t{}", n + 1));
                of_it.facts.due = (n == 3).then(|| after(60));
                insert_task(tx, &tenant, &of_it)?;
                tx.insert_grant(&tenant, grant)?;
            }
            Ok(())
        }).await.unwrap();
        store(&rig, vec![
            of("a", "exhausted", RedemptionState::Streaming, "p1"),
            of("b", "suspended", RedemptionState::Streaming, "p1"),
            of("c", "revoked", RedemptionState::Streaming, "p1"),
            of("d", "gone", RedemptionState::Streaming, "p1"),
            of("e", "exhausted", RedemptionState::CutOff, "p1"),
            of("f", "exhausted", RedemptionState::Authorized, "p1"),
            of("g", "exhausted", RedemptionState::Streaming, "p2"),
            of("i", "late", RedemptionState::Streaming, "p1"),
            Redemption { process: None, ..of("h", "exhausted", RedemptionState::Completed, "") },
        ]).await;
        let mut held = rig.read(|read| read.held_by("p1", after(60))).await;
        held.sort_by(|a, b| a.redemption.id.cmp(&b.redemption.id));
        let held: Vec<_> = held.iter()
            .map(|one| (one.redemption.id.as_str(), one.state, one.grant_ended, one.redemption.revision)).collect();
        assert_eq!(held, [
            ("a", RedemptionState::Streaming, None, 1),
            ("b", RedemptionState::Streaming, Some(Reason::TaskOnHold), 1),
            ("c", RedemptionState::Streaming, Some(Reason::Emergency), 1),
            ("d", RedemptionState::Streaming, Some(Reason::Revoked), 1),
            ("e", RedemptionState::CutOff, None, 1),
            ("i", RedemptionState::Streaming, Some(Reason::Expired), 1),
        ]);
    }

    async fn what_was_given_up_is_not_cut_any_more(rig: Arc<Rig>) {
        let given_up = Redemption { window_end: Timestamp(0), streams: 0, ..redemption("r1", "g1", RedemptionState::Interrupted) };
        store(&rig, vec![given_up]).await;
        let tenant = rig.tenant.clone();
        let cut = rig.write(move |tx| tx.cut_redemptions(&tenant, &grant_id("g1"), Reason::TaskCancelled, after(1))).await.unwrap();
        assert_eq!(cut, 0);
        assert_eq!(states(&rig, "g1").await, [("r1".to_owned(), RedemptionState::Interrupted, None)]);
    }

    async fn coming_back_reopens_only_what_the_same_reason_cut_and_is_in_time(rig: Arc<Rig>) {
        let late = Redemption { window_end: after(5), ..redemption("late", "g1", RedemptionState::Streaming) };
        let unasked = Redemption { streams: 0, ..redemption("unasked", "g1", RedemptionState::Authorized) };
        store(&rig, vec![redemption("open", "g1", RedemptionState::Streaming), late, unasked]).await;
        let tenant = rig.tenant.clone();
        let reopened = rig.write(move |tx| {
            tx.cut_redemptions(&tenant, &grant_id("g1"), Reason::TaskOnHold, after(1))?;
            assert_eq!(tx.reopen_redemptions(&tenant, &grant_id("g1"), Reason::Emergency, "p4", after(2))?, 0);
            tx.reopen_redemptions(&tenant, &grant_id("g1"), Reason::TaskOnHold, "p4", after(10))
        }).await.unwrap();
        assert_eq!(reopened, 2);
        assert_eq!(states(&rig, "g1").await, [
            ("late".to_owned(), RedemptionState::CutOff, Some(Reason::TaskOnHold)),
            ("open".to_owned(), RedemptionState::Interrupted, None),
            ("unasked".to_owned(), RedemptionState::Authorized, None),
        ]);
        // What nobody has begun to fetch yet still awaits it, and somebody answers for it.
        let (tenant, id) = (rig.tenant.clone(), redemption_id("unasked"));
        let unasked = rig.read(move |read| read.redemption(&tenant, &id)).await.unwrap();
        assert_eq!((unasked.process.as_deref(), unasked.ended_at), (Some("p4"), None));
    }

    async fn a_redemption_whose_process_fell_silent_is_abandoned(rig: Arc<Rig>) {
        for process in ["lives", "dies"] {
            rig.store.heartbeat(process).await.unwrap();
        }
        rig.store.heartbeat("lives").await.unwrap();
        let silent = |seconds| Span::seconds(seconds).0;
        rig.execute(&format!("UPDATE processes SET seen = seen - {} WHERE name = 'dies'", silent(40)));
        let of = |id: &str, process: Option<&str>, state| Redemption {
            process: process.map(str::to_owned), ..redemption(id, "g1", state)
        };
        store(&rig, vec![
            of("a", Some("lives"), RedemptionState::Streaming),
            of("b", Some("dies"), RedemptionState::Streaming),
            of("c", None, RedemptionState::Completed),
            of("d", Some("dies"), RedemptionState::CutOff),
            of("e", Some("unknown"), RedemptionState::Authorized),
            of("f", Some("dies"), RedemptionState::Interrupted),
            of("g", None, RedemptionState::Interrupted),
            Redemption { window_end: after(5), ..of("h", Some("lives"), RedemptionState::Authorized) },
        ]).await;
        let found = |silence, now| {
            let rig = Arc::clone(&rig);
            async move {
                let mut ids: Vec<String> = rig.read(move |read| read.abandoned(Span::seconds(silence), now, 10)).await
                    .into_iter().map(|one| one.id.to_string()).collect();
                ids.sort();
                ids
            }
        };
        assert_eq!(found(30, NOW).await, ["b", "d", "e", "f"]);
        assert_eq!(found(60, NOW).await, ["e"]);
        // Opened and not asked for until long after its window: nothing of it will ever be sent.
        assert_eq!(found(30, after(36)).await, ["b", "d", "e", "f", "h"]);
    }

    async fn a_cut_wakes_who_waits_in_the_same_process(rig: Arc<Rig>) {
        store(&rig, vec![redemption("r1", "g1", RedemptionState::Streaming)]).await;
        let tenant = rig.tenant.clone();
        rig.write(move |tx| tx.cut_redemptions(&tenant, &grant_id("g1"), Reason::Revoked, NOW)).await.unwrap();
        // What came before the wait began counts too: there is nothing left to wait for.
        assert!(poll_once(&mut rig.store.await_cut()).is_some());
    }

    async fn who_waits_for_nothing_waits_a_short_time_only(rig: Arc<Rig>) {
        let start = Instant::now();
        rig.store.await_cut().await;
        assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    }
}

#[test]
fn a_cut_is_seen_by_another_process_at_once() {
    crate::rig::on(Rig::postgres(), |rig| async move {
        let other = DieselStore::open(&rig.config).await.unwrap();
        let mut fastest = Duration::MAX;
        for number in 1..=5 {
            let id = format!("r{number}");
            store(&rig, vec![redemption(&id, "g1", RedemptionState::Streaming)]).await;
            let watching = Arc::clone(&other);
            let watcher = tokio::spawn(async move {
                let deadline = Instant::now() + Duration::from_secs(10);
                loop {
                    let halted: Result<_, StoreError> =
                        handoff_domain::ports::watch(&*watching, |read| read.halted_at("p1")).await;
                    if halted.unwrap().len() == number {
                        return Instant::now();
                    }
                    assert!(Instant::now() < deadline);
                    watching.await_cut().await;
                }
            });
            let tenant = rig.tenant.clone();
            rig.write(move |tx| tx.cut_redemptions(&tenant, &grant_id("g1"), Reason::Revoked, NOW))
                .await
                .unwrap();
            let committed = Instant::now();
            fastest = fastest.min(watcher.await.unwrap().saturating_duration_since(committed));
        }
        // The machine may be busy with other tests, but not each time.
        assert!(
            fastest < Duration::from_millis(90),
            "{fastest:?}: not by notification"
        );
    });
}

#[test]
fn a_cut_that_was_rolled_back_is_told_to_nobody() {
    crate::rig::on(Rig::sqlite(), |rig| async move {
        store(&rig, vec![redemption("r1", "g1", RedemptionState::Streaming)]).await;
        let tenant = rig.tenant.clone();
        let undone: Result<(), _> = rig
            .write(move |tx| {
                tx.cut_redemptions(&tenant, &grant_id("g1"), Reason::Revoked, NOW)?;
                Err(StoreError::Broken("on purpose".to_owned()))
            })
            .await;
        assert!(undone.is_err());
        assert_eq!(halted(&rig, "p1").await, []);
        assert_eq!(states(&rig, "g1").await[0].1, RedemptionState::Streaming);
    });
}
