//! Redemptions: what is cut, what is opened again, what is abandoned, and how other processes learn of it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use handoff_domain::Reason;
use handoff_domain::ports::{Store, StoreError};
use handoff_domain::redemption::{Redemption, RedemptionState};
use handoff_store::DieselStore;

use crate::rig::{NOW, Rig, after, grant_id, on_both, poll_once, redemption, redemption_id};

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
        let feed = rig.read(|read| read.cuts(0, 10)).await;
        assert_eq!(feed.len(), 1);
        assert_eq!((&feed[0].grant, feed[0].reason, feed[0].at), (&grant_id("g1"), Reason::TaskOnHold, after(1)));
        let last = feed[0].sequence;
        assert_eq!(rig.read(move |read| read.cuts(last, 10)).await, []);
    }

    async fn coming_back_reopens_only_what_the_same_reason_cut_and_is_in_time(rig: Arc<Rig>) {
        let late = Redemption { window_end: after(5), ..redemption("late", "g1", RedemptionState::Streaming) };
        store(&rig, vec![redemption("open", "g1", RedemptionState::Streaming), late]).await;
        let tenant = rig.tenant.clone();
        let reopened = rig.write(move |tx| {
            tx.cut_redemptions(&tenant, &grant_id("g1"), Reason::TaskOnHold, after(1))?;
            assert_eq!(tx.reopen_redemptions(&tenant, &grant_id("g1"), Reason::Emergency, after(2))?, 0);
            tx.reopen_redemptions(&tenant, &grant_id("g1"), Reason::TaskOnHold, after(10))
        }).await.unwrap();
        assert_eq!(reopened, 1);
        assert_eq!(states(&rig, "g1").await, [
            ("late".to_owned(), RedemptionState::CutOff, Some(Reason::TaskOnHold)),
            ("open".to_owned(), RedemptionState::Interrupted, None),
        ]);
    }

    async fn a_redemption_whose_process_fell_silent_is_abandoned(rig: Arc<Rig>) {
        rig.store.heartbeat("lives", after(50)).await.unwrap();
        rig.store.heartbeat("died", after(5)).await.unwrap();
        rig.store.heartbeat("died", after(9)).await.unwrap();
        let of = |id: &str, process: Option<&str>, state| Redemption {
            process: process.map(str::to_owned), ..redemption(id, "g1", state)
        };
        store(&rig, vec![
            of("a", Some("lives"), RedemptionState::Streaming),
            of("b", Some("died"), RedemptionState::Streaming),
            of("c", Some("died"), RedemptionState::Completed),
            of("d", None, RedemptionState::Authorized),
            of("e", Some("unknown"), RedemptionState::Authorized),
            Redemption { opened_at: after(20), ..of("f", Some("young"), RedemptionState::Streaming) },
        ]).await;
        let found = |silent_since| {
            let rig = Arc::clone(&rig);
            async move {
                let mut ids: Vec<String> = rig.read(move |read| read.abandoned(silent_since, 10)).await
                    .into_iter().map(|one| one.id.to_string()).collect();
                ids.sort();
                ids
            }
        };
        assert_eq!(found(after(10)).await, ["b", "d", "e"]);
        assert_eq!(found(after(9)).await, ["d", "e"]);
        assert_eq!(found(NOW).await, [""; 0]);
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
                    let cuts: Result<_, StoreError> =
                        handoff_domain::ports::read(&*watching, |read| read.cuts(0, 10)).await;
                    if cuts.unwrap().len() == number {
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
        assert_eq!(rig.read(|read| read.cuts(0, 10)).await, []);
        assert_eq!(states(&rig, "g1").await[0].1, RedemptionState::Streaming);
    });
}
