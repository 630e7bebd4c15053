//! How far the audit was forwarded: whoever moves a cursor has to know how it stands.

use handoff_domain::TenantId;
use handoff_domain::audit::Event;
use handoff_domain::forwarding::{Cursor, SinkName};
use handoff_domain::ports::StoreError;

use crate::rig::{Rig, audit_row, on_both};

fn sink(name: &str) -> SinkName {
    SinkName::parse(name).unwrap()
}

fn fresh(name: &str) -> Cursor {
    Cursor {
        sink: sink(name),
        stream: "s1".to_owned(),
        done: 0,
        sending: None,
    }
}

async fn add(rig: &Rig, cursor: &Cursor) -> Result<(), StoreError> {
    let cursor = cursor.clone();
    rig.write(move |tx| tx.add_cursor(&cursor)).await
}

async fn moved(rig: &Rig, from: &Cursor, to: &Cursor) -> bool {
    let (from, to) = (from.clone(), to.clone());
    rig.write(move |tx| tx.move_cursor(&from, &to)).await.unwrap()
}

async fn found(rig: &Rig, name: &str) -> Option<Cursor> {
    let sink = sink(name);
    rig.read(move |read| read.cursor(&sink)).await
}

on_both! {
    async fn a_cursor_is_moved_by_whoever_knows_how_it_stands(rig: Arc<Rig>) {
        let begun = fresh("siem");
        assert_eq!(found(&rig, "siem").await, None);
        add(&rig, &begun).await.unwrap();
        assert_eq!(found(&rig, "siem").await, Some(begun.clone()));
        assert_eq!(add(&rig, &begun).await, Err(StoreError::Conflict));

        let fixed = begun.fixed(9).unwrap();
        assert!(moved(&rig, &begun, &fixed).await);
        assert_eq!(found(&rig, "siem").await, Some(fixed.clone()));
        // Another process that saw it before fixes nothing else, and takes nothing.
        assert!(!moved(&rig, &begun, &begun.fixed(12).unwrap()).await);
        let other = Cursor { sending: Some(12), ..begun.clone() };
        assert!(!moved(&rig, &other, &other.taken().unwrap()).await);

        let taken = fixed.taken().unwrap();
        assert!(moved(&rig, &fixed, &taken).await);
        assert!(!moved(&rig, &fixed, &taken).await, "twice");
        assert_eq!(found(&rig, "siem").await, Some(taken.clone()));
        // One that began anew is another.
        let anew = Cursor { stream: "s2".to_owned(), ..taken.clone() };
        assert!(!moved(&rig, &anew, &anew.fixed(20).unwrap()).await);
        assert!(!moved(&rig, &fresh("nobody"), &fixed).await);
    }

    async fn rows_of_all_tenants_come_in_the_order_of_their_numbers_across_holes(rig: Arc<Rig>) {
        let (ours, theirs) = (rig.tenant.clone(), TenantId::parse("b").unwrap());
        rig.write(move |tx| {
            for number in 0..6 {
                let tenant = if number % 3 == 1 { &theirs } else { &ours };
                tx.record(tenant, audit_row(Event::TaskCreated, "c1"));
            }
            Ok(())
        }).await.unwrap();
        let numbers = |after: i64, until: i64, limit: u32| {
            let rig = std::sync::Arc::clone(&rig);
            async move {
                let rows = rig.read(move |read| read.rows_of_all(after, until, limit)).await;
                rows.into_iter().map(|(tenant, entry)| (tenant.to_string(), entry.sequence)).collect::<Vec<_>>()
            }
        };
        let all = numbers(0, i64::MAX, 100).await;
        assert_eq!(all.len(), 6);
        assert!(all.windows(2).all(|pair| pair[0].1 < pair[1].1), "{all:?}");
        assert_eq!(all.iter().filter(|(tenant, _)| tenant == "b").count(), 2);
        let first = all[0].1;
        assert_eq!(numbers(first, first + 2, 100).await, all[1..3]);
        assert_eq!(numbers(first - 1, i64::MAX, 2).await, all[..2]);
        // A hole that is larger than what is asked for.
        rig.execute("UPDATE audit_log SET sequence = sequence + 10000 WHERE tenant = 'b'");
        rig.execute("DELETE FROM audit_log WHERE tenant = 'default' AND sequence > 2");
        let after_hole = numbers(2, i64::MAX, 3).await;
        assert!(!after_hole.is_empty() && after_hole.iter().all(|(tenant, _)| tenant == "b"), "{after_hole:?}");
        assert_eq!(numbers(2, 5_000, 3).await, []);
        assert_eq!(numbers(100_000, i64::MAX, 3).await, []);
    }

    async fn each_sink_has_a_cursor_of_its_own(rig: Arc<Rig>) {
        let (one, two) = (fresh("one"), Cursor { done: 7, ..fresh("two") });
        add(&rig, &one).await.unwrap();
        add(&rig, &two).await.unwrap();
        let fixed = two.fixed(8).unwrap();
        assert!(moved(&rig, &two, &fixed).await);
        assert_eq!(found(&rig, "one").await, Some(one));
        assert_eq!(found(&rig, "two").await, Some(fixed));
    }
}
