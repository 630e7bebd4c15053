//! Malware scans: what is due and whose it is, and that a verdict is kept by who has the content in hand alone.

use handoff_domain::document::Sha256;
use handoff_domain::ports::{SearchIndex, StoreError};
use handoff_domain::scan::{Finding, Found, Scan, ScanRule, Verdict};
use handoff_domain::{Span, TenantId, Timestamp};

use crate::rig::{NOW, Rig, after, binary, binary_id, body, document, document_id, on_both};

const RULE: ScanRule = ScanRule {
    max_age: Span::seconds(80),
};
const TERM: Span = Span::seconds(30);
/// When everything is due again.
const LATER: Timestamp = NOW.plus(Span::hours(2));

fn fresh(id: &str) -> Scan {
    Scan::of_new(binary_id(id), Sha256([7; 32]), NOW)
}

fn finding(found: Found) -> Finding {
    Finding {
        found,
        engine: Some("ClamAV 1.4".to_owned()),
    }
}

async fn enrol(rig: &Rig, scan: Scan) {
    let tenant = rig.tenant.clone();
    rig.write(move |tx| tx.enrol_scan(&tenant, &scan)).await.unwrap();
}

async fn claim(rig: &Rig, id: &str, process: &'static str, term: Span) -> bool {
    let (tenant, id) = (rig.tenant.clone(), binary_id(id));
    rig.write(move |tx| tx.claim_scan(&tenant, &id, process, term, LATER))
        .await
        .unwrap()
}

async fn keep(rig: &Rig, scan: &Scan, process: &'static str) -> bool {
    let (tenant, scan) = (rig.tenant.clone(), scan.clone());
    rig.write(move |tx| tx.keep_scan(&tenant, &scan, process))
        .await
        .unwrap()
}

async fn known(rig: &Rig, id: &str) -> Option<Scan> {
    let (tenant, id) = (rig.tenant.clone(), binary_id(id));
    rig.read(move |read| read.scan(&tenant, &id)).await
}

async fn due(rig: &Rig, seconds: i64) -> Vec<String> {
    let found = rig.read(move |read| read.due_scans(after(seconds), 10)).await;
    found.into_iter().map(|(_, id)| id.to_string()).collect()
}

on_both! {
    async fn a_scan_comes_back_as_it_was_kept(rig: Arc<Rig>) {
        assert_eq!(known(&rig, "b1").await, None);
        enrol(&rig, fresh("b1")).await;
        assert_eq!(known(&rig, "b1").await, Some(fresh("b1")));
        for found in [Found::Failure, Found::Nothing, Found::TooLarge, Found::Malware("Eicar".to_owned())] {
            assert!(claim(&rig, "b1", "p1", TERM).await);
            let next = known(&rig, "b1").await.unwrap().after(finding(found), RULE, after(1));
            assert!(keep(&rig, &next, "p1").await);
            assert_eq!(known(&rig, "b1").await, Some(next));
        }
        let (tenant, twice) = (rig.tenant.clone(), fresh("b1"));
        let refused = rig.write(move |tx| tx.enrol_scan(&tenant, &twice)).await;
        assert_eq!(refused, Err(StoreError::Conflict));
    }

    async fn what_is_in_hand_is_nobody_elses_until_the_claim_lapses(rig: Arc<Rig>) {
        enrol(&rig, fresh("b1")).await;
        assert_eq!(due(&rig, -1).await, [""; 0], "not yet");
        assert_eq!(due(&rig, 0).await, ["b1"]);
        assert!(claim(&rig, "b1", "p1", TERM).await);
        assert_eq!(due(&rig, 0).await, [""; 0]);
        assert!(!claim(&rig, "b1", "p2", TERM).await);
        assert!(claim(&rig, "b1", "p1", TERM).await, "it is kept in hand");
        let clean = fresh("b1").after(finding(Found::Nothing), RULE, NOW);
        assert!(!keep(&rig, &clean, "p2").await, "who has it not in hand says nothing of it");

        // Its process died.
        assert!(claim(&rig, "b1", "p1", Span(-1)).await);
        assert_eq!(due(&rig, 0).await, ["b1"]);
        assert!(claim(&rig, "b1", "p2", TERM).await);
        assert!(!keep(&rig, &clean, "p1").await, "what comes late counts no more");
        assert!(keep(&rig, &clean, "p2").await);
        assert!(!keep(&rig, &clean, "p2").await, "it is let go of with the verdict");
        let (tenant, id) = (rig.tenant.clone(), binary_id("b1"));
        let late = rig.write(move |tx| tx.claim_scan(&tenant, &id, "p1", TERM, NOW)).await;
        assert_eq!(late, Ok(false), "who found it due before that scans it not again");

        let (tenant, id) = (rig.tenant.clone(), binary_id("b1"));
        assert!(claim(&rig, "b1", "p1", TERM).await);
        rig.write(move |tx| {
            tx.release_scan(&tenant, &id, "p2")?;
            assert!(!tx.claim_scan(&tenant, &id, "p2", TERM, LATER)?, "another's is not let go of");
            tx.release_scan(&tenant, &id, "p1")?;
            assert!(tx.claim_scan(&tenant, &id, "p2", TERM, LATER)?);
            tx.forget_scan(&tenant, &id)
        })
        .await
        .unwrap();
        assert_eq!(known(&rig, "b1").await, None);
    }

    async fn new_content_comes_before_what_is_scanned_again_and_infected_content_never(rig: Arc<Rig>) {
        for (id, found) in [
            ("clean", Some(Found::Nothing)),
            ("infected", Some(Found::Malware("Eicar".to_owned()))),
            ("failed", Some(Found::Failure)),
            ("new", None),
        ] {
            let scan = fresh(id);
            let scan = match found {
                Some(found) => scan.after(finding(found), RULE, NOW),
                None => Scan { due_at: Some(after(60)), since: after(60), ..scan },
            };
            enrol(&rig, scan).await;
        }
        assert_eq!(due(&rig, 9).await, [""; 0]);
        assert_eq!(due(&rig, 10).await, ["failed"]);
        assert_eq!(due(&rig, 70).await, ["new", "failed", "clean"]);
        let first = rig.read(move |read| read.due_scans(after(70), 1)).await;
        assert_eq!(first[0].1, binary_id("new"));
        let waits = async |seconds| rig.read(move |read| read.unscanned_since(after(seconds))).await;
        assert_eq!(waits(70).await, Some(NOW), "what failed waits since it came");

        let tenant = rig.tenant.clone();
        rig.write(move |tx| tx.rescan_within(Span::seconds(20))).await.unwrap();
        assert_eq!(due(&rig, 20).await, ["failed", "clean"]);
        rig.write(move |tx| tx.rescan_within(Span::seconds(40))).await.unwrap();
        assert_eq!(due(&rig, 20).await, ["failed", "clean"], "no verdict is left for longer by that");
        rig.write(move |tx| tx.forget_scan(&tenant, &binary_id("failed"))).await.unwrap();
        assert_eq!(waits(10).await, Some(after(60)));
    }

    async fn other_content_of_the_same_bytes_is_in_doubt(rig: Arc<Rig>) {
        let clean = |id| fresh(id).after(finding(Found::Nothing), RULE, NOW);
        let bad = fresh("bad").after(finding(Found::Malware("Eicar".to_owned())), RULE, NOW);
        let worse = Scan { binary: binary_id("worse"), ..bad.clone() };
        let other = Scan { sha256: Sha256([8; 32]), ..clean("other") };
        for scan in [clean("twin"), other.clone(), bad.clone(), worse.clone()] {
            enrol(&rig, scan).await;
        }
        let (tenant, of) = (rig.tenant.clone(), bad.clone());
        rig.write(move |tx| tx.doubt_equals(&tenant, &of, after(5))).await.unwrap();
        let twin = known(&rig, "twin").await.unwrap();
        assert_eq!((twin.verdict, twin.due_at, twin.since), (Verdict::Pending, Some(after(5)), after(5)));
        for same in [other, bad, worse] {
            assert_eq!(known(&rig, same.binary.as_str()).await, Some(same));
        }
    }

    async fn binaries_that_were_never_enrolled_are_found_page_by_page(rig: Arc<Rig>) {
        let tenant = rig.tenant.clone();
        rig.write(move |tx| {
            for id in ["b1", "b2", "b3", "b4"] {
                tx.insert_binary(&tenant, &binary(id), &[])?;
            }
            tx.delete_binary(&tenant, &binary_id("b3"), None, after(1))?;
            tx.enrol_scan(&tenant, &fresh("b2"))
        })
        .await
        .unwrap();
        let tenant = rig.tenant.clone();
        let page = async |from: Option<(TenantId, &str)>| {
            let from = from.map(|(tenant, id)| (tenant, binary_id(id)));
            let found = rig.read(move |read| read.never_enrolled(from.as_ref(), 1)).await;
            found.into_iter().map(|(_, id, _)| id.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(page(None).await, ["b1"]);
        assert_eq!(page(Some((tenant.clone(), "b1"))).await, ["b4"]);
        assert_eq!(page(Some((tenant, "b4"))).await, [""; 0]);
    }

    async fn what_is_known_of_a_documents_content_is_no_new_version_of_it(rig: Arc<Rig>) {
        let tenant = rig.tenant.clone();
        rig.write(move |tx| tx.insert_document(&tenant, &document("d1"), &body("{}"), &SearchIndex::default()))
            .await
            .unwrap();
        let infected = document("d1").with_infected(&Sha256([7; 32]));
        assert!(infected.attachments[0].infected);
        let (tenant, stated) = (rig.tenant.clone(), infected.clone());
        rig.write(move |tx| {
            tx.lock_documents(&tenant, &[document_id("d1")], true)?;
            tx.restate_document(&tenant, &stated)?;
            assert_eq!(tx.lock_documents(&tenant, &[document_id("d1")], true)?, std::slice::from_ref(&stated));
            Ok(())
        })
        .await
        .unwrap();
        let tenant = rig.tenant.clone();
        let found = rig.read(move |read| read.document(&tenant, &document_id("d1"))).await;
        assert_eq!(found, Some(infected));
        let tenant = rig.tenant.clone();
        let newer = handoff_domain::document::Document { version: 2, ..document("d1") };
        let late = rig.write(move |tx| tx.restate_document(&tenant, &newer)).await;
        assert_eq!(late, Err(StoreError::Conflict), "another version came first");
    }
}
