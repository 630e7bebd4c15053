//! Where the blob store and the records differ: what records say of their content, and what is kept of differences.

use handoff_domain::drift::{Drift, DriftKind, Look, Shelf};
use handoff_domain::retention::{Cause, Disposal, DisposalState};
use handoff_domain::{TenantId, Timestamp};

use crate::rig::{NOW, Rig, after, binary, binary_id, on_both};

fn drift(name: &str, kind: DriftKind, size: u64, found: Timestamp) -> Drift {
    Drift {
        name: name.to_owned(),
        kind,
        size,
        found,
    }
}

fn marked(id: &str) -> Disposal {
    Disposal {
        binary: binary_id(id),
        document: None,
        cause: Cause::Purge,
        schedule: String::new(),
        marked_at: NOW,
        due: NOW,
        state: DisposalState::Marked,
        state_at: NOW,
    }
}

async fn shelved(
    rig: &Rig,
    after: Option<&'static str>,
    until: Option<&'static str>,
    limit: u32,
) -> Vec<String> {
    let tenant = rig.tenant.clone();
    let found = rig
        .read(move |read| read.shelved(&tenant, after, until, limit))
        .await;
    found.into_iter().map(|one| one.id.to_string()).collect()
}

on_both! {
    async fn records_say_what_should_be_there(rig: Arc<Rig>) {
        let (tenant, other) = (rig.tenant.clone(), TenantId::parse("elsewhere").unwrap());
        rig.write(move |tx| {
            // In the order of their bytes, whatever the database's language says.
            for id in ["b-2", "b.1", "B3", "b2", "b10"] {
                tx.insert_binary(&tenant, &binary(id), &[])?;
            }
            tx.insert_binary(&other, &binary("b-9"), &[])?;
            for id in ["b-2", "b.1", "b10"] {
                tx.mark_disposal(&tenant, &marked(id))?;
            }
            let (marked, deleting, gone) = (DisposalState::Marked, DisposalState::Deleting, DisposalState::Gone);
            for id in ["b.1", "b10"] {
                assert!(tx.move_disposal(&tenant, &binary_id(id), marked, deleting, after(5))?);
            }
            assert!(tx.move_disposal(&tenant, &binary_id("b10"), deleting, gone, after(7))?);
            Ok(())
        }).await.unwrap();
        assert_eq!(shelved(&rig, None, None, 10).await, ["B3", "b-2", "b.1", "b10", "b2"]);
        assert_eq!(shelved(&rig, Some("b-2"), Some("b10"), 10).await, ["b.1", "b10"]);
        assert_eq!(shelved(&rig, Some("b-"), Some("b.1"), 1).await, ["b-2"]);
        assert_eq!(shelved(&rig, Some("ein Ärgernis"), None, 10).await, [""; 0]);
        let tenant = rig.tenant.clone();
        let all = rig.read(move |read| read.shelved(&tenant, None, None, 10)).await;
        let said: Vec<_> = all.iter().map(|one| (one.shelf, one.since)).collect();
        assert_eq!(said, [
            (Shelf::Kept, NOW),
            (Shelf::Kept, NOW),
            (Shelf::Going, after(5)),
            (Shelf::Gone, after(7)),
            (Shelf::Kept, NOW),
        ]);
        assert_eq!((all[0].size, all[0].etag.as_str()), (binary("b").size, "\"0x1\""));
    }

    async fn differences_are_kept_until_they_are_forgotten(rig: Arc<Rig>) {
        let tenant = rig.tenant.clone();
        rig.write(move |tx| {
            tx.note_drift(&tenant, &drift("a", DriftKind::Orphaned, 7, NOW), NOW)?;
            tx.note_drift(&tenant, &drift("b", DriftKind::Orphaned, 8, NOW), NOW)?;
            tx.note_drift(&tenant, &drift("Ä/é", DriftKind::Foreign, 9, NOW), NOW)?;
            // It is another thing now, and the next look has seen it.
            tx.note_drift(&tenant, &drift("b", DriftKind::Altered, 5, after(3)), after(3))
        }).await.unwrap();
        let tenant = rig.tenant.clone();
        rig.write(move |tx| {
            let all = [
                drift("a", DriftKind::Orphaned, 7, NOW),
                drift("b", DriftKind::Altered, 5, after(3)),
                drift("Ä/é", DriftKind::Foreign, 9, NOW),
            ];
            assert_eq!(tx.drift(&tenant, None, 10)?, all);
            assert_eq!(tx.drift(&tenant, Some("a"), 1)?, all[1..2]);
            assert_eq!(tx.drift_of(&tenant, &["b".to_owned(), "c".to_owned()])?, all[1..2]);
            assert_eq!(tx.drift_of(&tenant, &[])?, []);
            assert_eq!(tx.drift_unseen(&tenant, after(3), 10)?, [all[0].clone(), all[2].clone()]);
            let mut counts = tx.drift_counts(Some(&tenant))?;
            counts.sort();
            assert_eq!(counts, [
                (DriftKind::Orphaned, 1, 7),
                (DriftKind::Foreign, 1, 9),
                (DriftKind::Altered, 1, 5),
            ]);
            tx.forget_drift(&tenant, "a")?;
            tx.forget_drift(&tenant, "a")?;
            assert_eq!(tx.drift(&tenant, None, 10)?, all[1..]);
            assert_eq!(tx.drift(&TenantId::parse("elsewhere").unwrap(), None, 10)?, []);
            Ok(())
        }).await.unwrap();
    }

    async fn the_last_look_is_kept(rig: Arc<Rig>) {
        let tenant = rig.tenant.clone();
        let look = |n: i64| Look { began: after(n), ended: after(n + 1), objects: 3, bytes: 5 << 40, asked: None };
        rig.write(move |tx| {
            assert_eq!(tx.last_look(&tenant)?, None);
            tx.ask_for_look(&tenant, after(0))?;
            assert_eq!(tx.last_look(&tenant)?, None);
            tx.keep_look(&tenant, &look(1))?;
            assert_eq!(tx.last_look(&tenant)?, Some(look(1)));
            // What is asked for while one goes on is still asked for when that is over.
            tx.ask_for_look(&tenant, after(6))?;
            tx.keep_look(&tenant, &look(5))?;
            assert_eq!(tx.last_look(&tenant)?, Some(Look { asked: Some(after(6)), ..look(5) }));
            Ok(())
        }).await.unwrap();
    }
}
