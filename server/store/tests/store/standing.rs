//! Standing blocks: where they stand, until when, and which Tasks each kind concerns.

use handoff_domain::grant::Grant;
use handoff_domain::ports::SearchIndex;
use handoff_domain::redemption::RedemptionState;
use handoff_domain::standing::{Block, Standing, Target};
use handoff_domain::{BlockId, Handle, Reason, TenantId};

use crate::rig::{
    NOW, actor, after, binary_id, body, bound, document, document_id, grant_id, insert_task, on_both,
    redemption, redemption_id, task, task_id,
};

fn block(id: &str, kind: &str, value: &str, seconds: i64) -> Block {
    Block {
        id: BlockId::parse(id).unwrap(),
        target: Target::parse(kind, value).unwrap(),
        note: "badge stolen".to_owned(),
        placed_at: after(seconds),
        placed_by: actor("Practitioner/operator"),
        lifted: None,
    }
}

fn standing<'b>(blocks: impl IntoIterator<Item = &'b Block>) -> Standing {
    blocks.into_iter().map(|block| block.target.clone()).collect()
}

on_both! {
    async fn a_block_stands_in_its_tenant_until_it_is_lifted(rig: Arc<Rig>) {
        let other = TenantId::parse("other").unwrap();
        let first = block("k1", "actor", "Practitioner/lane", 1);
        let second = block("k2", "all", "", 2);
        let (tenant, elsewhere) = (rig.tenant.clone(), other.clone());
        let placed = [first.clone(), second.clone()];
        rig.write(move |tx| {
            tx.place_block(&tenant, &placed[0])?;
            tx.place_block(&elsewhere, &placed[0])?;
            tx.place_block(&tenant, &placed[1])
        }).await.unwrap();
        let (tenant, elsewhere) = (rig.tenant.clone(), other.clone());
        let both = [first.clone(), second.clone()];
        rig.read(move |read| {
            assert_eq!(read.standing(&tenant)?, standing(&both));
            assert_eq!(read.blocks(&tenant, 9)?, [both[1].clone(), both[0].clone()]);
            assert_eq!(read.blocks(&tenant, 1)?, [both[1].clone()]);
            let everywhere = read.standing_everywhere()?;
            assert_eq!(everywhere.get(&tenant), Some(&standing(&both)));
            assert_eq!(everywhere.get(&elsewhere), Some(&standing(&both[..1])));
            Ok(())
        }).await;
        let tenant = rig.tenant.clone();
        let (by, id) = (actor("Device/handoff"), first.id.clone());
        let lifted = rig.write(move |tx| {
            Ok([tx.lift_block(&tenant, &id, &by, after(9))?, tx.lift_block(&tenant, &id, &by, after(10))?])
        }).await.unwrap();
        assert_eq!(lifted, [true, false]);
        let tenant = rig.tenant.clone();
        rig.read(move |read| {
            assert_eq!(read.standing(&tenant)?, standing([&second]));
            assert_eq!(read.standing(&other)?, standing([&first]));
            let gone = Block { lifted: Some((after(9), actor("Device/handoff"))), ..first };
            assert_eq!(read.block(&tenant, &gone.id)?.as_ref(), Some(&gone));
            Ok(())
        }).await;
    }

    async fn a_block_concerns_the_tasks_with_something_open_of_it(rig: Arc<Rig>) {
        // t1: an open grant. t2: used up, but a use of it may go on. t3: over. t4: another's, another document, about
        // nobody, but its document is about Ben.
        let used_up = |id, task| bound(id, task).take_use(after(1)).unwrap();
        let grants = [
            bound("g1", "t1"),
            used_up("g2", "t2"),
            bound("g3", "t3").revoke(after(1), Reason::TaskCompleted).unwrap(),
            Grant {
                document: document_id("d4"),
                ..crate::rig::grant("g4", "t4").bind(actor("Practitioner/otis"), NOW).unwrap()
            },
        ];
        let tenant = rig.tenant.clone();
        rig.write(move |tx| {
            for id in ["t1", "t2", "t3", "t4"] {
                let mut task = task(id);
                if id == "t4" {
                    task.facts.subject = None;
                }
                insert_task(tx, &tenant, &task)?;
            }
            for (id, patient) in [("d1", "Patient/ada"), ("d4", "Patient/ben")] {
                let mut document = document(id);
                document.facts.subject = Some(patient.to_owned());
                let index = SearchIndex {
                    references: vec![("subject".to_owned(), patient.to_owned())],
                    ..SearchIndex::default()
                };
                tx.insert_document(&tenant, &document, &body(id), &index)?;
            }
            for grant in &grants {
                let named = Grant {
                    handle: Handle::parse(grant.id.as_str()).unwrap(),
                    binary: binary_id(grant.id.as_str()),
                    revision: 1,
                    ..grant.clone()
                };
                tx.insert_grant(&tenant, &named)?;
            }
            tx.insert_redemption(&tenant, &redemption("r2", "g2", RedemptionState::Interrupted))?;
            let mut over = redemption("r3", "g3", RedemptionState::Completed);
            over.id = redemption_id("r3");
            over.grant = grant_id("g3");
            tx.insert_redemption(&tenant, &over)
        }).await.unwrap();
        for (kind, value, expected) in [
            ("actor", "Practitioner/lane", &["t1", "t2"][..]),
            ("actor", "Practitioner/otis", &["t4"]),
            ("document", "d1", &["t1", "t2"]),
            ("document", "d4", &["t4"]),
            ("task", "t2", &["t2"]),
            ("task", "t3", &[]),
            ("patient", "ada", &["t1", "t2"]),
            ("patient", "ben", &["t4"]),
            ("all", "", &["t1", "t2", "t4"]),
            ("client", "viewer-app", &[]),
            ("issuer", "https://issuer.example", &[]),
        ] {
            let target = Target::parse(kind, value).unwrap();
            let tenant = rig.tenant.clone();
            rig.read(move |read| {
                let all = read.tasks_with_open(&tenant, &target, None, 9)?;
                let expected: Vec<_> = expected.iter().map(|id| task_id(id)).collect();
                assert_eq!(all, expected, "{target:?}");
                if let [first, rest @ ..] = all.as_slice() {
                    assert_eq!(read.tasks_with_open(&tenant, &target, None, 1)?, std::slice::from_ref(first));
                    assert_eq!(read.tasks_with_open(&tenant, &target, Some(first), 9)?, rest);
                }
                let elsewhere = TenantId::parse("other").unwrap();
                assert_eq!(read.tasks_with_open(&elsewhere, &target, None, 9)?, []);
                Ok(())
            }).await;
        }
    }
}
