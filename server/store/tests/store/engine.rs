//! Transactions: tried again when others came first, undone as a whole, and nothing breaks for good.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use diesel::connection::SimpleConnection;
use diesel::{Connection, PgConnection};
use handoff_domain::ports::{SearchIndex, Store, StoreError, Verdict};
use handoff_store::{DieselStore, StoreConfig};

use crate::rig::{
    Rig, after, body, document, document_id, insert_task, next, on_both, poll_once, task, task_id,
    update_task,
};

async fn has(rig: &Rig, id: &'static str) -> bool {
    let tenant = rig.tenant.clone();
    rig.read(move |read| read.task(&tenant, &task_id(id)))
        .await
        .is_some()
}

async fn add(rig: &Rig, id: &'static str) -> Result<(), StoreError> {
    let tenant = rig.tenant.clone();
    rig.write(move |tx| insert_task(tx, &tenant, &task(id))).await
}

on_both! {
    async fn a_unit_of_work_is_tried_again_from_the_start_when_others_came_first(rig: Arc<Rig>) {
        let runs = Arc::new(AtomicU32::new(0));
        let (tenant, counted) = (rig.tenant.clone(), Arc::clone(&runs));
        rig.write(move |tx| {
            insert_task(tx, &tenant, &task("t1"))?;
            if counted.fetch_add(1, Ordering::Relaxed) < 3 { Err(StoreError::Conflict) } else { Ok(()) }
        }).await.unwrap();
        assert_eq!(runs.load(Ordering::Relaxed), 4);
        assert!(has(&rig, "t1").await);
    }

    async fn a_conflict_that_stays_is_told_after_a_bounded_number_of_tries(rig: Arc<Rig>) {
        let runs = Arc::new(AtomicU32::new(0));
        let counted = Arc::clone(&runs);
        let refused: Result<(), _> = rig.write(move |_| {
            counted.fetch_add(1, Ordering::Relaxed);
            Err(StoreError::Conflict)
        }).await;
        assert_eq!(refused, Err(StoreError::Conflict));
        assert_eq!(runs.load(Ordering::Relaxed), 9);
    }

    async fn a_unit_that_asks_for_it_is_undone(rig: Arc<Rig>) {
        let tenant = rig.tenant.clone();
        rig.store.write(Box::new(move |tx| {
            insert_task(tx, &tenant, &task("t1"))?;
            Ok(Verdict::Rollback)
        })).await.unwrap();
        assert!(!has(&rig, "t1").await);
    }

    async fn a_unit_that_panics_is_undone_and_the_next_one_works(rig: Arc<Rig>) {
        for _ in 0..20 {
            let tenant = rig.tenant.clone();
            let broken: Result<(), _> = rig.write(move |tx| {
                insert_task(tx, &tenant, &task("t1"))?;
                tx.task(&tenant, &task_id("t1"))?;
                panic!("on purpose");
            }).await;
            assert_eq!(broken, Err(StoreError::Broken("a unit of work panicked: on purpose".to_owned())));
        }
        assert!(!has(&rig, "t1").await);
        add(&rig, "t2").await.unwrap();
        assert!(has(&rig, "t2").await);
        let broken: Result<(), _> = handoff_domain::ports::read(&*rig.store, |_| -> Result<(), StoreError> {
            panic!("on purpose");
        }).await;
        assert!(matches!(broken, Err(StoreError::Broken(_))));
        assert!(has(&rig, "t2").await);
    }

    async fn an_error_of_the_database_that_the_work_swallows_undoes_it_all_the_same(rig: Arc<Rig>) {
        add(&rig, "t1").await.unwrap();
        let tenant = rig.tenant.clone();
        let refused = rig.write(move |tx| {
            insert_task(tx, &tenant, &task("t2"))?;
            let twice = insert_task(tx, &tenant, &task("t1"));
            assert_eq!(twice, Ok(()), "rows are written together, later");
            let _swallowed = tx.task(&tenant, &task_id("t1"));
            insert_task(tx, &tenant, &task("t3")).ok();
            Ok(())
        }).await;
        assert_eq!(refused, Err(StoreError::Conflict));
        assert!(!has(&rig, "t2").await);
        assert!(!has(&rig, "t3").await);
    }

    async fn a_text_that_looks_like_sql_is_a_text(rig: Arc<Rig>) {
        let evil = "x'); DROP TABLE tasks; --";
        let mut stored = task("t1");
        stored.facts.owner = Some(evil.to_owned());
        let (tenant, new) = (rig.tenant.clone(), stored.clone());
        rig.write(move |tx| insert_task(tx, &tenant, &new)).await.unwrap();
        let tenant = rig.tenant.clone();
        assert_eq!(rig.read(move |read| read.task(&tenant, &task_id("t1"))).await, Some(stored));
    }

    async fn no_change_is_lost_under_load(rig: Arc<Rig>) {
        add(&rig, "t1").await.unwrap();
        let workers: Vec<_> = (0..16).map(|_| {
            let rig = Arc::clone(&rig);
            tokio::spawn(async move {
                for _ in 0..5 {
                    let tenant = rig.tenant.clone();
                    rig.write(move |tx| {
                        let seen = tx.lock_tasks(&tenant, &[task_id("t1")])?.remove(0);
                        let mut changed = next(&seen, after(seen.version));
                        changed.reissues += 1;
                        update_task(tx, &tenant, &changed)
                    }).await.unwrap();
                }
            })
        }).collect();
        for worker in workers {
            worker.await.unwrap();
        }
        let tenant = rig.tenant.clone();
        let last = rig.read(move |read| read.task(&tenant, &task_id("t1"))).await.unwrap();
        assert_eq!((last.version, last.reissues), (81, 80));
    }
}

#[test]
fn a_group_of_units_is_made_durable_by_one_commit() {
    crate::rig::on(Rig::sqlite(), |rig| async move {
        // The first unit keeps the writer busy until all others wait.
        let (started, wait_started) = std::sync::mpsc::channel();
        let (go, gone) = std::sync::mpsc::channel::<()>();
        let first = {
            let rig = Arc::clone(&rig);
            tokio::spawn(async move {
                rig.write(move |_| {
                    started.send(()).unwrap();
                    gone.recv().unwrap();
                    Ok(())
                })
                .await
            })
        };
        tokio::task::spawn_blocking(move || wait_started.recv().unwrap())
            .await
            .unwrap();
        let before = rig.store.statistics();
        let mut others: Vec<_> = (0..40)
            .map(|n| {
                let tenant = rig.tenant.clone();
                Box::pin(rig.write(move |tx| {
                    insert_task(tx, &tenant, &task(&format!("t{n}")))?;
                    if n == 7 {
                        Err(StoreError::Broken("on purpose".to_owned()))
                    } else {
                        Ok(())
                    }
                }))
            })
            .collect();
        for other in &mut others {
            // Polled once, a unit is on its way to the writer.
            assert!(poll_once(other).is_none());
        }
        go.send(()).unwrap();
        first.await.unwrap().unwrap();
        for (n, other) in others.into_iter().enumerate() {
            assert_eq!(other.await.is_ok(), n != 7);
        }
        let after = rig.store.statistics();
        assert_eq!(after.units - before.units, 40);
        assert_eq!(after.commits - before.commits, 1);
        assert!(has(&rig, "t39").await);
        assert!(!has(&rig, "t7").await);
    });
}

#[test]
fn a_full_disk_refuses_what_does_not_fit_and_keeps_what_did() {
    let directory = tempfile::tempdir().unwrap();
    let mut config = StoreConfig::new(directory.path().join("small.db").to_str().unwrap());
    handoff_store::migrate(&config).unwrap();
    config.sqlite_max_pages = Some(140);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let store = DieselStore::open(&config).await.unwrap();
        let tenant = handoff_domain::TenantId::default_tenant();
        let mut kept = 0_usize;
        let refused = loop {
            let (id, tenant) = (format!("t{kept}"), tenant.clone());
            let answer = handoff_domain::ports::write(&*store, move |tx| -> Result<(), StoreError> {
                tx.insert_task(&tenant, &task(&id), &vec![b'x'; 20_000], &SearchIndex::default())
            });
            match answer.await {
                Ok(()) => kept += 1,
                Err(error) => break error,
            }
            assert!(kept < 1000);
        };
        assert_eq!(refused, StoreError::Full);
        assert!(kept > 0);
        // It says so again, and everything that was answered for is there.
        let again = tenant.clone();
        let answer = handoff_domain::ports::write(&*store, move |tx| -> Result<(), StoreError> {
            tx.insert_task(
                &again,
                &task("more"),
                &vec![b'x'; 200_000],
                &SearchIndex::default(),
            )
        });
        assert_eq!(answer.await, Err(StoreError::Full));
        let found = handoff_domain::ports::read(&*store, move |read| -> Result<usize, StoreError> {
            let mut found = 0;
            for n in 0..=kept {
                found += usize::from(read.task(&tenant, &task_id(&format!("t{n}")))?.is_some());
            }
            Ok(found)
        });
        assert_eq!(found.await, Ok(kept));
    });
}

fn kill_all(rig: &Rig) {
    let (server, name) = rig.config.url.rsplit_once('/').unwrap();
    let mut connection = PgConnection::establish(&format!("{server}/postgres")).unwrap();
    connection
        .batch_execute(&format!(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'"
        ))
        .unwrap();
}

#[test]
fn killed_connections_are_replaced() {
    crate::rig::on(Rig::postgres(), |rig| async move {
        add(&rig, "t1").await.unwrap();
        kill_all(&rig);
        // A write notices before it has done anything, and goes on with a new connection.
        add(&rig, "t2").await.unwrap();
        kill_all(&rig);
        let deadline = Instant::now() + Duration::from_secs(5);
        loop {
            let tenant = rig.tenant.clone();
            match handoff_domain::ports::read(&*rig.store, move |read| read.task(&tenant, &task_id("t2")))
                .await
            {
                Ok(found) => break assert!(found.is_some()),
                Err(StoreError::Unavailable(_)) => assert!(Instant::now() < deadline),
                Err(error) => panic!("{error}"),
            }
        }
        // In the middle of a unit there is nothing to go on with: it is refused, and the next one works.
        let tenant = rig.tenant.clone();
        let killer = Arc::clone(&rig);
        let broken = rig
            .write(move |tx| {
                tx.lock_tasks(&tenant, &[task_id("t1")])?;
                kill_all(&killer);
                tx.lock_tasks(&tenant, &[task_id("t2")]).map(drop)
            })
            .await;
        assert!(matches!(broken, Err(StoreError::Unavailable(_))), "{broken:?}");
        add(&rig, "t3").await.unwrap();
        assert!(has(&rig, "t3").await);
    });
}

#[test]
fn who_finds_every_connection_in_use_is_told_so_after_a_while() {
    crate::rig::on(Rig::postgres(), |rig| async move {
        let config = StoreConfig {
            pool_size: 1,
            pool_wait: Duration::from_millis(50),
            ..rig.config.clone()
        };
        let store = DieselStore::open(&config).await.unwrap();
        let (started, wait_started) = std::sync::mpsc::channel();
        let (go, gone) = std::sync::mpsc::channel::<()>();
        let busy = Arc::clone(&store);
        let first = tokio::spawn(async move {
            busy.read(Box::new(move |_| {
                started.send(()).unwrap();
                gone.recv().unwrap();
                Ok(())
            }))
            .await
        });
        tokio::task::spawn_blocking(move || wait_started.recv().unwrap())
            .await
            .unwrap();
        assert!(matches!(store.ready().await, Err(StoreError::Unavailable(_))));
        // The server's own watch has connections that requests can't take.
        assert_eq!(store.heartbeat("p1").await, Ok(()));
        let halted = handoff_domain::ports::watch(&*store, |read| read.halted_at("p1")).await;
        assert_eq!(halted, Ok::<_, StoreError>(vec![]));
        go.send(()).unwrap();
        first.await.unwrap().unwrap();
        assert_eq!(store.ready().await, Ok(()));
    });
}

#[test]
fn a_document_may_be_held_by_many_readers_and_changed_by_none_meanwhile() {
    crate::rig::on(Rig::postgres(), |rig| async move {
        let tenant = rig.tenant.clone();
        rig.write(move |tx| {
            tx.insert_document(&tenant, &document("d1"), &body("d"), &SearchIndex::default())
        })
        .await
        .unwrap();
        let config = StoreConfig {
            lock_timeout: Duration::from_millis(100),
            ..rig.config.clone()
        };
        let other = DieselStore::open(&config).await.unwrap();
        let runtime = tokio::runtime::Handle::current();
        let tenant = rig.tenant.clone();
        rig.write(move |tx| {
            assert_eq!(tx.lock_documents(&tenant, &[document_id("d1")], false)?.len(), 1);
            let hold = |exclusive| {
                let tenant = tenant.clone();
                runtime.block_on(handoff_domain::ports::write(&*other, move |tx| {
                    tx.lock_documents(&tenant, &[document_id("d1")], exclusive)
                        .map(|found| found.len())
                }))
            };
            assert_eq!(hold(false), Ok(1));
            assert!(matches!(hold(true), Err(StoreError::Unavailable(_))));
            Ok(())
        })
        .await
        .unwrap();
    });
}

#[test]
fn two_that_lock_in_opposite_order_both_succeed() {
    crate::rig::on(Rig::postgres(), |rig| async move {
        add(&rig, "a").await.unwrap();
        add(&rig, "b").await.unwrap();
        let meet = Arc::new(std::sync::Barrier::new(2));
        let both: Vec<_> = [["a", "b"], ["b", "a"]]
            .into_iter()
            .map(|order| {
                let (rig, meet) = (Arc::clone(&rig), Arc::clone(&meet));
                tokio::spawn(async move {
                    let tenant = rig.tenant.clone();
                    let mut first_try = true;
                    rig.write(move |tx| {
                        tx.lock_tasks(&tenant, &[task_id(order[0])])?;
                        if std::mem::take(&mut first_try) {
                            meet.wait();
                        }
                        tx.lock_tasks(&tenant, &[task_id(order[1])]).map(drop)
                    })
                    .await
                })
            })
            .collect();
        for one in both {
            assert_eq!(one.await.unwrap(), Ok(()));
        }
        assert!(rig.store.statistics().retries >= 1);
    });
}

#[test]
fn a_database_that_cannot_be_reached_is_told_without_its_password() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    for url in [
        "postgres://handoff:s3cret@127.0.0.1:1/handoff",
        "postgres://handoff:s3cret@127.0.0.1:x/handoff",
    ] {
        let config = StoreConfig::new(url);
        let refused = runtime.block_on(DieselStore::open(&config)).err().unwrap();
        assert!(
            matches!(&refused, StoreError::Unavailable(text) if !text.contains("s3cret")),
            "{refused}"
        );
    }
}
