//! Tasks and documents: what was stored comes back, versions are kept, and of two changes one comes first.

use handoff_domain::ports::{Kind, Method, StoreError};
use handoff_domain::task::TaskStatus;
use handoff_domain::{TenantId, ports};

use crate::rig::{
    NOW, actor, after, body, document, document_id, index, insert_task, next, on_both, task, task_id,
    update_task,
};

on_both! {
    async fn a_task_comes_back_as_it_was_stored(rig: Arc<Rig>) {
        let stored = task("t1");
        let tenant = rig.tenant.clone();
        let new = stored.clone();
        rig.write(move |tx| insert_task(tx, &tenant, &new)).await.unwrap();
        let tenant = rig.tenant.clone();
        let found = rig.read(move |read| read.task(&tenant, &task_id("t1"))).await;
        assert_eq!(found, Some(stored));
        let other = TenantId::parse("other").unwrap();
        assert_eq!(rig.read(move |read| read.task(&other, &task_id("t1"))).await, None);
    }

    async fn a_document_comes_back_as_it_was_stored(rig: Arc<Rig>) {
        let tenant = rig.tenant.clone();
        let mut changed = document("d1");
        changed.version = 2;
        changed.superseded = true;
        let last = changed.clone();
        rig.write(move |tx| {
            tx.insert_document(&tenant, &document("d1"), &body("one"), &ports::SearchIndex::default())?;
            tx.update_document(&tenant, &changed, &body("two"), None)
        }).await.unwrap();
        let tenant = rig.tenant.clone();
        let (found, current) = rig.read(move |read| {
            Ok((read.document(&tenant, &document_id("d1"))?, read.current(&tenant, Kind::Document, "d1")?))
        }).await;
        assert_eq!(found, Some(last));
        assert_eq!(current.unwrap().body, body("two"));
    }

    async fn of_two_changes_to_the_same_version_the_second_is_a_conflict(rig: Arc<Rig>) {
        let tenant = rig.tenant.clone();
        rig.write(move |tx| {
            insert_task(tx, &tenant, &task("t1"))?;
            update_task(tx, &tenant, &next(&task("t1"), after(1)))
        }).await.unwrap();
        let tenant = rig.tenant.clone();
        let late = rig.write(move |tx| update_task(tx, &tenant, &next(&task("t1"), after(2)))).await;
        assert_eq!(late, Err(StoreError::Conflict));
    }

    async fn every_version_is_kept_and_a_deletion_is_one(rig: Arc<Rig>) {
        let tenant = rig.tenant.clone();
        rig.write(move |tx| {
            let first = task("t1");
            insert_task(tx, &tenant, &first)?;
            let second = next(&first, after(1));
            update_task(tx, &tenant, &second)?;
            let mut third = next(&second, after(2));
            third.deleted = true;
            tx.update_task(&tenant, &third, &[], None)
        }).await.unwrap();
        let tenant = rig.tenant.clone();
        rig.read(move |read| {
            let all = read.history(&tenant, Kind::Task, "t1", None, None, 10)?;
            let methods: Vec<_> = all.iter().map(|v| (v.version, v.method, v.body.is_empty())).collect();
            assert_eq!(methods, [(3, Method::Delete, true), (2, Method::Update, false), (1, Method::Create, false)]);
            let page = read.history(&tenant, Kind::Task, "t1", Some(after(1)), Some(3), 10)?;
            assert_eq!(page.iter().map(|v| v.version).collect::<Vec<_>>(), [2]);
            assert_eq!(read.history(&tenant, Kind::Task, "t1", None, None, 1)?.len(), 1);
            assert_eq!(read.current(&tenant, Kind::Task, "t1")?.unwrap().version, 3);
            let first = read.version(&tenant, Kind::Task, "t1", 1)?.unwrap();
            assert_eq!((first.last_updated, first.body), (NOW, body("t1")));
            assert_eq!(read.version(&tenant, Kind::Task, "t1", 4)?, None);
            assert_eq!(read.current(&tenant, Kind::Task, "t2")?, None);
            Ok(())
        }).await;
    }

    async fn a_task_is_found_from_its_documents_and_its_parent_until_it_is_deleted(rig: Arc<Rig>) {
        let tenant = rig.tenant.clone();
        let mut child = task("child");
        child.facts.part_of = vec!["Task/parent".to_owned()];
        let first = child.clone();
        rig.write(move |tx| {
            insert_task(tx, &tenant, &first)?;
            // Read in the middle of the transaction that writes it.
            assert_eq!(tx.children(&tenant, &task_id("parent"))?, [task_id("child")]);
            Ok(())
        }).await.unwrap();
        let tenant = rig.tenant.clone();
        let mut second = next(&child, after(1));
        second.documents = vec![document_id("d2")];
        let moved = second.clone();
        rig.write(move |tx| {
            assert_eq!(tx.tasks_of_document(&tenant, &document_id("d1"))?, [task_id("child")]);
            // An update that was not preceded by a lock replaces the rows as well.
            update_task(tx, &tenant, &moved)
        }).await.unwrap();
        let tenant = rig.tenant.clone();
        rig.write(move |tx| {
            assert_eq!(tx.tasks_of_document(&tenant, &document_id("d1"))?, []);
            assert_eq!(tx.tasks_of_document(&tenant, &document_id("d2"))?, [task_id("child")]);
            let locked = tx.lock_tasks(&tenant, &[task_id("child")])?;
            let mut last = next(&locked[0], after(2));
            last.deleted = true;
            tx.update_task(&tenant, &last, &[], None)?;
            assert_eq!(tx.tasks_of_document(&tenant, &document_id("d2"))?, []);
            assert_eq!(tx.children(&tenant, &task_id("parent"))?, []);
            Ok(())
        }).await.unwrap();
    }

    async fn locked_tasks_come_in_the_order_of_their_ids_and_only_those_that_exist(rig: Arc<Rig>) {
        let tenant = rig.tenant.clone();
        rig.write(move |tx| {
            for id in ["b", "a", "C"] {
                insert_task(tx, &tenant, &task(id))?;
            }
            let ids = ["b", "C", "a", "none"].map(task_id);
            let locked: Vec<_> = tx.lock_tasks(&tenant, &ids)?.into_iter().map(|t| t.id).collect();
            assert_eq!(locked, ["C", "a", "b"].map(task_id));
            assert_eq!(tx.lock_tasks(&tenant, &[])?, []);
            Ok(())
        }).await.unwrap();
    }

    async fn of_two_claims_at_once_one_wins(rig: Arc<Rig>) {
        let tenant = rig.tenant.clone();
        let mut open = task("t1");
        open.facts.owner = None;
        rig.write(move |tx| insert_task(tx, &tenant, &open)).await.unwrap();
        let claims = (0..16).map(|n| {
            let rig = std::sync::Arc::clone(&rig);
            tokio::spawn(async move {
                let tenant = rig.tenant.clone();
                rig.write(move |tx| {
                    let mut locked = tx.lock_tasks(&tenant, &[task_id("t1")])?.remove(0);
                    if locked.facts.owner.is_some() {
                        return Ok(false);
                    }
                    locked.facts.owner = Some(format!("Practitioner/p{n}"));
                    locked.facts.status = TaskStatus::Accepted;
                    update_task(tx, &tenant, &next(&locked, after(n)))?;
                    Ok(true)
                }).await.unwrap()
            })
        }).collect::<Vec<_>>();
        let mut winners = 0;
        for claim in claims {
            winners += i32::from(claim.await.unwrap());
        }
        assert_eq!(winners, 1);
        let tenant = rig.tenant.clone();
        assert_eq!(rig.read(move |read| read.task(&tenant, &task_id("t1"))).await.unwrap().version, 2);
    }

    async fn teams_are_remembered_for_a_while(rig: Arc<Rig>) {
        let tenant = rig.tenant.clone();
        let lane = actor("Practitioner/lane");
        rig.write(move |tx| {
            tx.remember_actor(&tenant, &lane, &["oncology".to_owned()], NOW)?;
            tx.remember_actor(&tenant, &lane, &["cardiology".to_owned(), "x,y".to_owned()], after(1))
        }).await.unwrap();
        let tenant = rig.tenant.clone();
        rig.read(move |read| {
            let lane = actor("Practitioner/lane");
            assert_eq!(read.teams_of(&tenant, &lane, after(1))?, ["cardiology", "x,y"]);
            assert_eq!(read.teams_of(&tenant, &lane, after(2))?, [""; 0]);
            assert_eq!(read.teams_of(&tenant, &actor("Practitioner/otis"), NOW)?, [""; 0]);
            Ok(())
        }).await;
    }

    async fn an_update_without_an_index_keeps_the_one_before(rig: Arc<Rig>) {
        let tenant = rig.tenant.clone();
        rig.write(move |tx| {
            insert_task(tx, &tenant, &task("t1"))?;
            tx.update_task(&tenant, &next(&task("t1"), after(1)), &body("t1"), None)
        }).await.unwrap();
        let tenant = rig.tenant.clone();
        let found = rig.read(move |read| read.search(&tenant, &crate::search::for_code("18842-5"))).await;
        assert_eq!(found.resources.len(), 1);
        assert_eq!(index(&task("t1")).tokens.len(), 2);
    }
}
