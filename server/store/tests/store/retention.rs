//! The clocks of documents: holds, what is due by age, content that is disposed of; and what a database of before is filled with.

use handoff_domain::hold::{Hold, HoldTarget};
use handoff_domain::ids::HoldId;
use handoff_domain::ports::{Classes, SearchIndex, StoreError, Tx};
use handoff_domain::retention::{Cause, Disposal, DisposalState};
use handoff_domain::{TenantId, Timestamp};

use crate::rig::{NOW, actor, after, binary, binary_id, document, document_id, on_both};

fn insert(
    tx: &mut dyn Tx,
    tenant: &TenantId,
    id: &str,
    class: Option<&str>,
    at: Timestamp,
) -> Result<(), StoreError> {
    let mut new = document(id);
    (new.class, new.last_updated) = (class.map(str::to_owned), at);
    tx.insert_document(tenant, &new, b"{}", &SearchIndex::default())
}

fn hold(id: &str, target: HoldTarget, until: Option<Timestamp>) -> Hold {
    Hold {
        id: HoldId::parse(id).unwrap(),
        target,
        note: "a matter before court".to_owned(),
        placed_at: NOW,
        placed_by: actor("Practitioner/records"),
        until,
        lifted: None,
    }
}

fn disposal(binary: &str, document: Option<&str>, due: Timestamp) -> Disposal {
    Disposal {
        binary: binary_id(binary),
        document: document.map(document_id),
        cause: Cause::Retention,
        schedule: "consent: 30 days from its creation".to_owned(),
        marked_at: NOW,
        due,
        state: DisposalState::Marked,
        state_at: NOW,
    }
}

/// The statements of the migration that fill rows of before.
fn filling(is_postgres: bool) -> Vec<&'static str> {
    let text = if is_postgres {
        include_str!("../../../../migrations/postgres/2026-07-03-000001_retention/up.sql")
    } else {
        include_str!("../../../../migrations/sqlite/2026-07-03-000001_retention/up.sql")
    };
    let statements = text
        .split(";\n")
        .filter_map(|one| one.find("UPDATE documents").map(|at| &one[at..]));
    statements.collect()
}

on_both! {
    async fn documents_are_found_by_class_and_age_page_by_page(rig: Arc<Rig>) {
        let tenant = rig.tenant.clone();
        rig.write(move |tx| {
            insert(tx, &tenant, "d1", Some("consent"), after(1))?;
            insert(tx, &tenant, "d2", Some("consent"), after(1))?;
            insert(tx, &tenant, "d3", Some("consent"), after(5))?;
            insert(tx, &tenant, "d4", Some("other"), after(1))?;
            insert(tx, &tenant, "d5", None, after(2))
        }).await.unwrap();
        let tenant = rig.tenant.clone();
        rig.read(move |read| {
            let mut page = |classes: &Classes, from: Option<(Timestamp, &str)>, limit| -> Vec<String> {
                let from = from.map(|(at, id)| (at, document_id(id)));
                let found = read.documents_by_age(&tenant, classes, after(4), from.as_ref(), limit).unwrap();
                found.into_iter().map(|kept| kept.document.id.to_string()).collect()
            };
            let consent = Classes::One("consent".to_owned());
            assert_eq!(page(&consent, None, 10), ["d1", "d2"]);
            assert_eq!(page(&consent, None, 1), ["d1"]);
            assert_eq!(page(&consent, Some((after(1), "d1")), 10), ["d2"]);
            assert_eq!(page(&Classes::AllBut(vec!["consent".to_owned()]), None, 10), ["d4", "d5"]);
            assert_eq!(page(&Classes::AllBut(Vec::new()), None, 10), ["d1", "d2", "d4", "d5"]);
            Ok(())
        }).await;
    }

    async fn the_clocks_of_a_document_change_without_a_version_and_are_found_when_they_turn(rig: Arc<Rig>) {
        let tenant = rig.tenant.clone();
        rig.write(move |tx| insert(tx, &tenant, "d1", None, after(1))).await.unwrap();
        let tenant = rig.tenant.clone();
        rig.write(move |tx| {
            let mut kept = tx.lock_documents(&tenant, &[document_id("d1")], true)?.remove(0);
            kept.retain_until = Some(after(90));
            tx.keep_document(&tenant, &kept, Some(after(10)), after(2))
        }).await.unwrap();
        let tenant = rig.tenant.clone();
        rig.read(move |read| {
            let kept = read.kept_document(&tenant, &document_id("d1"))?.unwrap();
            assert_eq!((kept.document.version, kept.document.retain_until), (1, Some(after(90))));
            assert_eq!(kept.created, Some(after(1)));
            let mine = |found: Vec<(TenantId, _)>| found.into_iter().filter(|(of, _)| *of == tenant).count();
            assert_eq!(mine(read.documents_turned(after(9), 100)?), 0);
            assert_eq!(mine(read.documents_turned(after(10), 100)?), 1);
            Ok(())
        }).await;
        let tenant = rig.tenant.clone();
        rig.write(move |tx| {
            let mut kept = tx.lock_documents(&tenant, &[document_id("d1")], true)?.remove(0);
            kept.disposed = true;
            tx.keep_document(&tenant, &kept, None, after(20))?;
            assert_eq!(tx.documents_by_age(&tenant, &Classes::AllBut(Vec::new()), after(30), None, 10)?, []);
            Ok(())
        }).await.unwrap();
    }

    async fn holds_stand_until_they_are_lifted_or_end(rig: Arc<Rig>) {
        let tenant = rig.tenant.clone();
        rig.write(move |tx| {
            tx.place_hold(&tenant, &hold("h1", HoldTarget::Document(document_id("d1")), None))?;
            tx.place_hold(&tenant, &hold("h2", HoldTarget::Patient("Patient/ada".to_owned()), Some(after(10))))?;
            tx.place_hold(&tenant, &hold("h3", HoldTarget::Case("Encounter/1".to_owned()), None))
        }).await.unwrap();
        let tenant = rig.tenant.clone();
        rig.write(move |tx| {
            let id = |text: &str| HoldId::parse(text).unwrap();
            let named = |holds: Vec<Hold>| holds.iter().map(|hold| hold.id.to_string()).collect::<Vec<_>>();
            assert_eq!(named(tx.lock_holds(&tenant, after(9), 10)?), ["h3", "h2", "h1"]);
            assert_eq!(named(tx.holds(&tenant, after(10), 10)?), ["h3", "h1"]);
            let by = actor("Practitioner/records");
            assert!(tx.lift_hold(&tenant, &id("h1"), &by, after(11))?);
            assert!(!tx.lift_hold(&tenant, &id("h1"), &by, after(12))?);
            assert_eq!(named(tx.holds(&tenant, after(12), 10)?), ["h3"]);
            let lifted = tx.hold(&tenant, &id("h1"))?.unwrap();
            assert_eq!(lifted.lifted, Some((after(11), by)));
            assert_eq!(tx.hold(&tenant, &id("h3"))?.unwrap().target, HoldTarget::Case("Encounter/1".to_owned()));
            Ok(())
        }).await.unwrap();
    }

    async fn content_goes_its_way_once_from_marked_to_gone(rig: Arc<Rig>) {
        let tenant = rig.tenant.clone();
        rig.write(move |tx| {
            for id in ["b1", "b2", "b3"] {
                tx.insert_binary(&tenant, &binary(id), &[])?;
            }
            for id in ["b1", "b2"] {
                tx.claim_binary(&tenant, &binary_id(id), &document_id("d1"))?;
            }
            assert_eq!(tx.binaries_of(&tenant, &document_id("d1"))?, [binary_id("b1"), binary_id("b2")]);
            tx.mark_disposal(&tenant, &disposal("b1", Some("d1"), after(10)))?;
            tx.mark_disposal(&tenant, &disposal("b2", Some("d1"), after(20)))?;
            tx.mark_disposal(&tenant, &disposal("b3", None, after(1)))?;
            // What is marked stays as it is.
            tx.mark_disposal(&tenant, &disposal("b2", None, after(0)))
        }).await.unwrap();
        let tenant = rig.tenant.clone();
        rig.write(move |tx| {
            let due = |tx: &mut dyn Tx, at, from: Option<&str>| -> Vec<String> {
                let from = from.map(|id| (tenant.clone(), binary_id(id)));
                let found = tx.disposals_due(at, from.as_ref(), 100).unwrap();
                let mine = found.into_iter().filter(|(of, _)| *of == tenant);
                mine.map(|(_, one)| one.binary.to_string()).collect()
            };
            assert_eq!(due(tx, after(10), None), ["b1", "b3"]);
            assert_eq!(due(tx, after(10), Some("b1")), ["b3"]);
            let (marked, deleting, gone) = (DisposalState::Marked, DisposalState::Deleting, DisposalState::Gone);
            assert!(tx.move_disposal(&tenant, &binary_id("b1"), marked, deleting, after(11))?);
            assert!(!tx.move_disposal(&tenant, &binary_id("b1"), marked, deleting, after(11))?);
            tx.hasten_disposals(&tenant, &document_id("d1"), Cause::Purge, after(12))?;
            let of_document = tx.disposals_of(&tenant, &document_id("d1"))?;
            let said: Vec<_> = of_document.iter().map(|one| (one.cause, one.due, one.state)).collect();
            assert_eq!(said, [(Cause::Retention, after(10), deleting), (Cause::Purge, after(12), marked)]);
            assert!(tx.move_disposal(&tenant, &binary_id("b1"), deleting, gone, after(13))?);
            assert_eq!(due(tx, after(12), None), ["b2", "b3"]);
            Ok(())
        }).await.unwrap();
    }

    async fn documents_of_before_know_their_class_their_cases_and_when_they_were_created(rig: Arc<Rig>) {
        let tenant = rig.tenant.clone();
        rig.write(move |tx| {
            let mut one = document("d1");
            let body = br#"{"context":{"encounter":[{"reference":"Encounter/1"},{"display":"none"},{"reference":"EpisodeOfCare/2"}]}}"#;
            tx.insert_document(&tenant, &one, b"{}", &SearchIndex::default())?;
            one.version = 2;
            one.last_updated = after(5);
            tx.update_document(&tenant, &one, body, None)?;
            // The last that it said before it was deleted.
            one.version = 3;
            one.deleted = true;
            tx.update_document(&tenant, &one, &[], None)?;
            tx.insert_document(&tenant, &document("d2"), br#"{"description":"\"encounter\""}"#, &SearchIndex::default())
        }).await.unwrap();
        rig.execute("UPDATE documents SET class = NULL, created = NULL");
        let filling = filling(rig.is_postgres());
        assert_eq!(filling.len(), 2);
        for statement in filling {
            rig.execute(statement);
        }
        let tenant = rig.tenant.clone();
        rig.read(move |read| {
            let kept = read.kept_document(&tenant, &document_id("d1"))?.unwrap();
            assert_eq!(kept.document.facts.encounters, ["Encounter/1", "EpisodeOfCare/2"]);
            assert_eq!(kept.created, Some(NOW));
            let other = read.kept_document(&tenant, &document_id("d2"))?.unwrap();
            assert_eq!(other.document, document("d2"));
            let class = Classes::One("discharge-summary".to_owned());
            assert_eq!(read.documents_by_age(&tenant, &class, NOW, None, 10)?.len(), 2);
            Ok(())
        }).await;
    }
}
