//! Leases: one process at a time has one, until it lets it lapse. Time is the database's, so that is what tests turn.

use handoff_domain::Span;
use handoff_domain::ports::Store;

use crate::rig::{Rig, on_both};

const TERM: Span = Span::seconds(10);

/// Lets so much time pass for all leases.
fn pass(rig: &Rig, seconds: i64) {
    rig.execute(&format!(
        "UPDATE leases SET until = until - {}",
        Span::seconds(seconds).0
    ));
}

on_both! {
    async fn one_process_at_a_time_has_a_lease(rig: Arc<Rig>) {
        let store = &rig.store;
        assert!(store.lease("expiry", "a", TERM).await.unwrap());
        assert!(!store.lease("expiry", "b", TERM).await.unwrap());
        pass(&rig, 5);
        assert!(store.lease("expiry", "a", TERM).await.unwrap(), "renewed in time");
        pass(&rig, 8);
        assert!(!store.lease("expiry", "b", TERM).await.unwrap());
        pass(&rig, 2);
        assert!(store.lease("expiry", "b", TERM).await.unwrap());
        assert!(!store.lease("expiry", "a", TERM).await.unwrap());
        assert!(store.lease("sealing", "a", TERM).await.unwrap());
    }

    async fn of_many_that_ask_at_once_one_gets_the_lease(rig: Arc<Rig>) {
        let asking: Vec<_> = (0..16).map(|n| {
            let rig = std::sync::Arc::clone(&rig);
            tokio::spawn(async move { rig.store.lease("job", &format!("p{n}"), TERM).await.unwrap() })
        }).collect();
        let mut holders = 0;
        for one in asking {
            holders += i32::from(one.await.unwrap());
        }
        assert_eq!(holders, 1);
    }

    async fn processes_that_were_silent_for_a_day_are_forgotten(rig: Arc<Rig>) {
        rig.store.heartbeat("old").await.unwrap();
        rig.store.heartbeat("young").await.unwrap();
        rig.execute(&format!("UPDATE processes SET seen = seen - {} WHERE name = 'old'", Span::hours(25).0));
        rig.execute(&format!("UPDATE processes SET seen = seen - {} WHERE name = 'young'", Span::hours(23).0));
        rig.store.heartbeat("new").await.unwrap();
        assert_eq!(rig.names("SELECT name FROM processes ORDER BY name"), ["new", "young"]);
    }
}
