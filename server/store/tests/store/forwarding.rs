//! How far the audit was forwarded: whoever moves a cursor has to know how it stands.

use handoff_domain::forwarding::{Cursor, SinkName};
use handoff_domain::ports::StoreError;

use crate::rig::{Rig, on_both};

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
