//! Grants: one change at a time, one open grant per Task, content and grantee, and what is due.

use std::sync::Arc;

use handoff_domain::grant::{Grant, GrantState};
use handoff_domain::ports::{Read, StoreError};
use handoff_domain::redemption::RedemptionState;
use handoff_domain::{Handle, Reason, Timestamp};

use crate::rig::{
    NOW, Rig, actor, after, binary_id, bound, document_id, grant, grant_id, insert_task, next, on_both,
    redemption, task, task_id, update_task,
};

async fn store(rig: &Rig, grants: Vec<Grant>) -> Result<(), StoreError> {
    let tenant = rig.tenant.clone();
    rig.write(move |tx| {
        grants
            .iter()
            .try_for_each(|grant| tx.insert_grant(&tenant, grant))
    })
    .await
}

async fn found(rig: &Rig, id: &'static str) -> Grant {
    let tenant = rig.tenant.clone();
    rig.read(move |read| read.grant(&tenant, &grant_id(id)))
        .await
        .unwrap()
}

on_both! {
    async fn a_grant_comes_back_in_every_state_of_its_life(rig: Arc<Rig>) {
        let open = bound("g", "t");
        let states = [
            grant("g", "t"),
            open.clone(),
            open.clone().suspend(Reason::TaskOnHold).unwrap(),
            open.clone().take_use(after(1)).unwrap(),
            open.clone().expire(after(2)).unwrap(),
            grant("g", "t").expire(after(2)).unwrap(),
            open.revoke(after(3), Reason::TaskCompleted).unwrap(),
            grant("g", "t").revoke(after(3), Reason::Emergency).unwrap(),
        ];
        for (number, ended) in states.into_iter().enumerate() {
            // Inserted as it is, and changed into what it is.
            for changed in [false, true] {
                let id = format!("g{number}-{changed}");
                let named = |grant: Grant, revision| Grant {
                    id: grant_id(&id),
                    handle: Handle::parse(id.clone()).unwrap(),
                    binary: binary_id(&id),
                    revision,
                    ..grant
                };
                let first = named(if changed { grant("g", "t") } else { ended.clone() }, 1);
                let last = named(ended.clone(), if changed { 2 } else { 1 });
                let (tenant, stored) = (rig.tenant.clone(), last.clone());
                rig.write(move |tx| {
                    tx.insert_grant(&tenant, &first)?;
                    if changed { tx.update_grant(&tenant, &stored) } else { Ok(()) }
                }).await.unwrap();
                let (tenant, wanted) = (rig.tenant.clone(), last.clone());
                rig.read(move |read| {
                    assert_eq!(read.grant(&tenant, &wanted.id)?.as_ref(), Some(&wanted));
                    assert_eq!(read.grant_by_handle(&tenant, &wanted.handle)?.as_ref(), Some(&wanted));
                    Ok(())
                }).await;
            }
        }
    }

    async fn a_second_open_grant_for_the_same_grantee_is_a_conflict(rig: Arc<Rig>) {
        store(&rig, vec![bound("g1", "t1")]).await.unwrap();
        assert_eq!(store(&rig, vec![bound("g2", "t1")]).await, Err(StoreError::Conflict));
        let other = Grant { handle: Handle::parse("h3").unwrap(), ..grant("g3", "t1") };
        store(&rig, vec![other.clone()]).await.unwrap();
        assert_eq!(store(&rig, vec![Grant { handle: Handle::parse("h4").unwrap(), ..grant("g4", "t1") }]).await,
            Err(StoreError::Conflict));
        // Binding it would make a second one as well.
        let tenant = rig.tenant.clone();
        let double = other.bind(actor("Practitioner/lane"), NOW).unwrap();
        assert_eq!(rig.write(move |tx| tx.update_grant(&tenant, &double)).await, Err(StoreError::Conflict));
        // Once the first has ended there is room.
        let tenant = rig.tenant.clone();
        let ended = bound("g1", "t1").revoke(after(1), Reason::Reissued).unwrap();
        rig.write(move |tx| {
            tx.update_grant(&tenant, &ended)?;
            tx.insert_grant(&tenant, &bound("g2", "t1"))
        }).await.unwrap();
    }

    async fn of_64_that_take_a_use_at_once_as_many_win_as_there_are_uses(rig: Arc<Rig>) {
        store(&rig, vec![Grant { max_uses: 3, ..bound("g1", "t1") }]).await.unwrap();
        let takers: Vec<_> = (0..64).map(|_| {
            let rig = Arc::clone(&rig);
            tokio::spawn(async move {
                loop {
                    let tenant = rig.tenant.clone();
                    let taken = rig.write(move |tx| {
                        let seen = tx.grant(&tenant, &grant_id("g1"))?.unwrap();
                        let Ok(used) = seen.take_use(after(1)) else { return Ok(false) };
                        tx.update_grant(&tenant, &used)?;
                        Ok(true)
                    }).await;
                    match taken {
                        Ok(taken) => return taken,
                        Err(StoreError::Conflict) => {}
                        Err(error) => panic!("{error}"),
                    }
                }
            })
        }).collect();
        let mut winners = 0;
        for taker in takers {
            winners += i32::from(taker.await.unwrap());
        }
        assert_eq!(winners, 3);
        let last = found(&rig, "g1").await;
        assert_eq!((last.uses, last.revision, last.state.code()), (3, 4, "exhausted"));
    }

    async fn grants_are_listed_by_task_document_and_binary(rig: Arc<Rig>) {
        let later = |id: &str, task: &str, seconds| Grant { issued_at: after(seconds), ..bound(id, task) };
        let elsewhere = Grant { document: document_id("d2"), binary: binary_id("b2"), ..later("g4", "t1", 4) };
        let ended = Grant { revision: 1, ..later("g1", "t1", 0).expire(after(1)).unwrap() };
        store(&rig, vec![later("g3", "t2", 3), ended, later("g2", "t1", 2), elsewhere]).await.unwrap();
        let tenant = rig.tenant.clone();
        rig.read(move |read| {
            let ids = |grants: Vec<Grant>| grants.into_iter().map(|g| g.id.to_string()).collect::<Vec<_>>();
            assert_eq!(ids(read.grants_of_task(&tenant, &task_id("t1"))?), ["g1", "g2", "g4"]);
            assert_eq!(ids(read.grants_of_document(&tenant, &document_id("d1"), 2)?), ["g3", "g2"]);
            assert_eq!(ids(read.grants_of_binary(&tenant, &binary_id("b1"))?), ["g3", "g2", "g1"]);
            Ok(())
        }).await;
    }

    async fn tasks_are_due_when_a_grant_expires_or_their_own_date_passes(rig: Arc<Rig>) {
        let tenant = rig.tenant.clone();
        rig.write(move |tx| {
            let mut dated = task("dated");
            dated.facts.due = Some(after(100));
            insert_task(tx, &tenant, &task("plain"))?;
            insert_task(tx, &tenant, &dated)?;
            insert_task(tx, &tenant, &task("moved"))?;
            tx.insert_grant(&tenant, &bound("g1", "plain"))?;
            tx.insert_grant(&tenant, &grant("g2", "dated"))?;
            tx.insert_grant(&tenant, &grant("g3", "moved"))
        }).await.unwrap();
        let due = |read: &mut dyn Read, now: Timestamp| -> Result<Vec<String>, StoreError> {
            let mut due: Vec<String> = read.due(now, 10)?.into_iter().map(|(_, task)| task.to_string()).collect();
            due.sort();
            Ok(due)
        };
        rig.read(move |read| {
            assert_eq!(due(read, after(99))?, [""; 0]);
            assert_eq!(read.next_due(NOW)?, Some(after(100)));
            assert_eq!(due(read, after(100))?, ["dated"]);
            assert_eq!(read.next_due(after(100))?, Some(after(900)));
            assert_eq!(due(read, after(900))?, ["dated", "plain"]);
            assert_eq!(read.next_due(after(900))?, None);
            assert_eq!(read.due(after(900), 1)?.len(), 1);
            Ok(())
        }).await;
        // A date that is set later counts for grants that exist already, seen under lock or not.
        let tenant = rig.tenant.clone();
        rig.write(move |tx| {
            let mut moved = next(&task("moved"), after(1));
            moved.facts.due = Some(after(50));
            update_task(tx, &tenant, &moved)?;
            let mut dated = next(&tx.lock_tasks(&tenant, &[task_id("dated")])?[0], after(1));
            dated.facts.due = None;
            update_task(tx, &tenant, &dated)
        }).await.unwrap();
        rig.read(move |read| { assert_eq!(due(read, after(100))?, ["moved"]); Ok(()) }).await;
        // What ended is not due.
        let tenant = rig.tenant.clone();
        rig.write(move |tx| {
            tx.update_grant(&tenant, &grant("g3", "moved").expire(after(50)).unwrap())?;
            tx.update_grant(&tenant, &Grant { revision: 2, state: GrantState::Issued, ..grant("g1", "plain") })
        }).await.unwrap();
        rig.read(move |read| { assert_eq!(due(read, after(9000))?, [""; 0]); Ok(()) }).await;
    }

    async fn a_task_is_due_while_uses_of_its_ended_grants_are_open(rig: Arc<Rig>) {
        let tenant = rig.tenant.clone();
        rig.write(move |tx| {
            for (n, state) in RedemptionState::ALL.into_iter().enumerate() {
                let (name, id) = (state.as_str(), format!("g{n}"));
                let mut dated = task(name);
                dated.facts.due = Some(after(100));
                insert_task(tx, &tenant, &dated)?;
                let used = bound(&id, name).take_use(NOW).unwrap();
                tx.insert_grant(&tenant, &Grant { revision: 1, ..used })?;
                tx.insert_redemption(&tenant, &redemption(name, &id, state))?;
            }
            Ok(())
        }).await.unwrap();
        let due = |seconds: i64| {
            let rig = std::sync::Arc::clone(&rig);
            async move {
                let due = rig.read(move |read| read.due(after(seconds), 10)).await;
                let mut due: Vec<String> = due.into_iter().map(|(_, task)| task.to_string()).collect();
                due.sort();
                due
            }
        };
        assert_eq!(due(99).await, [""; 0]);
        for seconds in [100, 399] {
            assert_eq!(due(seconds).await, ["authorized", "interrupted", "streaming"]);
        }
        // None begins after the date, and what runs on is stopped where it runs.
        assert_eq!(due(400).await, [""; 0]);
    }

    async fn a_grant_carries_the_due_date_of_a_task_stored_before(rig: Arc<Rig>) {
        let tenant = rig.tenant.clone();
        let mut dated = task("t1");
        dated.facts.due = Some(after(10));
        rig.write(move |tx| insert_task(tx, &tenant, &dated)).await.unwrap();
        store(&rig, vec![grant("g1", "t1")]).await.unwrap();
        assert_eq!(rig.read(|read| read.due(after(10), 10)).await.len(), 1);
    }
}
