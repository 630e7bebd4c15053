//! Binding tokens: one of those who come with one has it, and it is gone with its time.

use std::sync::{Arc, Mutex};

use handoff_domain::binding::Binding;
use handoff_domain::document::Sha256;
use handoff_domain::ports::Due;
use handoff_domain::{ActorRef, SubscriptionId, TenantId};

use crate::rig::{after, on_both};

fn id(text: &str) -> SubscriptionId {
    SubscriptionId::parse(text).unwrap()
}

fn binding(seconds: i64) -> Binding {
    Binding {
        creator: ActorRef::parse("Device/interface").unwrap(),
        subscriptions: vec![id("one"), id("other")],
        expires_at: after(seconds),
    }
}

on_both! {
    async fn a_binding_token_is_taken_once_in_its_own_tenant(rig: Arc<Rig>) {
        let (tenant, digest) = (rig.tenant.clone(), Sha256([7; 32]));
        rig.write(move |tx| tx.keep_binding(&tenant, &digest, &binding(60))).await.unwrap();
        let tenant = rig.tenant.clone();
        rig.write(move |tx| {
            let other = TenantId::parse("other").unwrap();
            assert_eq!(tx.take_binding(&other, &Sha256([7; 32]))?, None);
            assert_eq!(tx.take_binding(&tenant, &Sha256([8; 32]))?, None);
            assert_eq!(tx.take_binding(&tenant, &Sha256([7; 32]))?, Some(binding(60)));
            assert_eq!(tx.take_binding(&tenant, &Sha256([7; 32]))?, None);
            Ok(())
        }).await.unwrap();
    }

    async fn of_two_who_come_with_a_binding_token_one_has_it(rig: Arc<Rig>) {
        let (tenant, digest) = (rig.tenant.clone(), Sha256([7; 32]));
        rig.write(move |tx| tx.keep_binding(&tenant, &digest, &binding(60))).await.unwrap();
        let (taken, log) = (Arc::new(Mutex::new(0_usize)), rig.tenant.clone());
        let take = || {
            let (tenant, taken) = (log.clone(), Arc::clone(&taken));
            let found = Arc::new(Mutex::new(None));
            let seen = Arc::clone(&found);
            let rig = &rig;
            async move {
                rig.write(move |tx| {
                    *seen.lock().unwrap() = tx.take_binding(&tenant, &Sha256([7; 32]))?;
                    Ok(())
                }).await.unwrap();
                if found.lock().unwrap().is_some() {
                    *taken.lock().unwrap() += 1;
                }
            }
        };
        tokio::join!(take(), take(), take(), take());
        assert_eq!(*taken.lock().unwrap(), 1);
    }

    async fn binding_tokens_are_forgotten_with_their_time(rig: Arc<Rig>) {
        let tenant = rig.tenant.clone();
        rig.write(move |tx| {
            for (number, seconds) in [(1, 10), (2, 60)] {
                tx.keep_binding(&tenant, &Sha256([number; 32]), &binding(seconds))?;
            }
            assert_eq!(tx.forget_bindings(after(9))?, 0);
            assert_eq!(tx.forget_bindings(after(10))?, 1);
            assert_eq!(tx.take_binding(&tenant, &Sha256([1; 32]))?, None);
            assert!(tx.take_binding(&tenant, &Sha256([2; 32]))?.is_some());
            Ok(())
        }).await.unwrap();
    }

    async fn what_is_unknown_is_not_counted(rig: Arc<Rig>) {
        let tenant = rig.tenant.clone();
        rig.read(move |read| {
            let which: Vec<Due> = (0..1_200)
                .map(|number| Due { tenant: tenant.clone(), id: id(&number.to_string()) })
                .collect();
            assert_eq!(read.counted(&which)?, []);
            assert_eq!(read.counted(&[])?, []);
            Ok(())
        }).await;
    }
}
