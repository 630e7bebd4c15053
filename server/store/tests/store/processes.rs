//! Leases: one process at a time has one, until it lets it lapse.

use handoff_domain::ports::Store;

use crate::rig::{NOW, after, on_both};

on_both! {
    async fn one_process_at_a_time_has_a_lease(rig: Arc<Rig>) {
        let store = &rig.store;
        assert!(store.lease("expiry", "a", NOW, after(10)).await.unwrap());
        assert!(!store.lease("expiry", "b", after(5), after(15)).await.unwrap());
        assert!(store.lease("expiry", "a", after(9), after(20)).await.unwrap());
        assert!(!store.lease("expiry", "b", after(19), after(30)).await.unwrap());
        assert!(store.lease("expiry", "b", after(20), after(30)).await.unwrap());
        assert!(!store.lease("expiry", "a", after(21), after(40)).await.unwrap());
        assert!(store.lease("sealing", "a", NOW, after(10)).await.unwrap());
    }

    async fn of_many_that_ask_at_once_one_gets_the_lease(rig: Arc<Rig>) {
        let asking: Vec<_> = (0..16).map(|n| {
            let rig = std::sync::Arc::clone(&rig);
            tokio::spawn(async move { rig.store.lease("job", &format!("p{n}"), NOW, after(10)).await.unwrap() })
        }).collect();
        let mut holders = 0;
        for one in asking {
            holders += i32::from(one.await.unwrap());
        }
        assert_eq!(holders, 1);
    }
}
