//! Who in this process waits for events of which subscriptions: those who serve a connection of a subscriber, whichever
//! process counts the events. News wakes them at once, and a look at all of them every second if it was lost. Knows
//! neither events nor connections.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use handoff_domain::ports::{Counted, Due};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout};

use super::App;

/// How often it is looked without news.
const PATIENCE: Duration = Duration::from_secs(1);
/// Looks take at most this share of the time, and come at least so far apart.
const SHARE: u32 = 4;
const APART: Duration = Duration::from_millis(10);

/// All who wait.
#[derive(Default)]
pub struct Ear {
    waiting: Mutex<Waiting>,
    news: Notify,
}

#[derive(Default)]
struct Waiting {
    bound: HashMap<Due, Known>,
    next: u64,
}

/// A subscription that somebody waits for.
#[derive(Default)]
struct Known {
    /// Events and version, as they were last seen.
    seen: Option<(i64, i64)>,
    bells: HashMap<u64, Arc<Bell>>,
}

/// What wakes one who waits, for any of several subscriptions.
#[derive(Debug, Default)]
pub struct Bell {
    rung: Mutex<HashSet<Due>>,
    ring: Notify,
}

impl Bell {
    /// Rings for a subscription.
    pub fn rings(&self, which: &Due) {
        self.rung
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(which.clone());
        self.ring.notify_one();
    }

    /// Waits until it rings.
    pub async fn rung(&self) {
        self.ring.notified().await;
    }

    /// For which subscriptions it has rung since this was last asked.
    pub fn answer(&self) -> HashSet<Due> {
        std::mem::take(&mut *self.rung.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Somebody waits for a subscription, until this is dropped.
pub struct Listening {
    ear: Arc<Ear>,
    which: Due,
    serial: u64,
}

impl Drop for Listening {
    fn drop(&mut self) {
        let mut waiting = self.ear.waiting();
        if let Some(known) = waiting.bound.get_mut(&self.which) {
            known.bells.remove(&self.serial);
            if known.bells.is_empty() {
                waiting.bound.remove(&self.which);
            }
        }
    }
}

impl Ear {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a subscription from here on. The bell rings at once, so that nothing between is missed.
    pub fn listen(self: &Arc<Self>, which: &Due, bell: &Arc<Bell>) -> Listening {
        let serial = {
            let mut waiting = self.waiting();
            let serial = waiting.next;
            waiting.next = serial.wrapping_add(1);
            let known = waiting.bound.entry(which.clone()).or_default();
            known.bells.insert(serial, Arc::clone(bell));
            serial
        };
        bell.rings(which);
        Listening {
            ear: Arc::clone(self),
            which: which.clone(),
            serial,
        }
    }

    /// Some subscriptions have events, here or elsewhere.
    pub fn hear(&self) {
        self.news.notify_one();
    }

    /// These have.
    pub fn ring(&self, which: &[Due]) {
        let waiting = self.waiting();
        for one in which {
            for bell in waiting
                .bound
                .get(one)
                .into_iter()
                .flat_map(|known| known.bells.values())
            {
                bell.rings(one);
            }
        }
    }

    fn bound(&self) -> Vec<Due> {
        self.waiting().bound.keys().cloned().collect()
    }

    /// Rings for those that are not what they were.
    fn compare(&self, counted: &[Counted]) {
        let mut waiting = self.waiting();
        for one in counted {
            let Some(known) = waiting.bound.get_mut(&one.which) else {
                continue;
            };
            let now = Some((one.events, one.version));
            if known.seen != now {
                known.seen = now;
                for bell in known.bells.values() {
                    bell.rings(&one.which);
                }
            }
        }
    }
}

/// Looks how far the subscriptions are that somebody waits for, for as long as the process lives.
pub async fn follow_counts(app: App) {
    let mut failing = false;
    loop {
        // Elapsed is as good as news.
        let _elapsed = timeout(PATIENCE, app.ear.news.notified()).await;
        let bound = app.ear.bound();
        if bound.is_empty() {
            continue;
        }
        let began = Instant::now();
        match app.read(move |read| Ok(read.counted(&bound)?)).await {
            Ok(counted) => {
                failing = false;
                app.ear.compare(&counted);
            }
            Err(error) if !failing => {
                failing = true;
                let cause = error.cause.as_deref().unwrap_or(error.reason.as_str());
                tracing::error!(
                    cause,
                    "what subscribers wait for can't be looked at, and will be again"
                );
            }
            Err(_) => {}
        }
        sleep((began.elapsed().saturating_mul(SHARE)).clamp(APART, PATIENCE)).await;
    }
}

#[cfg(test)]
mod tests {
    use handoff_domain::ids::{SubscriptionId, TenantId};

    use super::*;

    fn due(id: &str) -> Due {
        Due {
            tenant: TenantId::default_tenant(),
            id: SubscriptionId::parse(id).unwrap(),
        }
    }

    fn counted(id: &str, events: i64, version: i64) -> Counted {
        Counted {
            which: due(id),
            events,
            version,
        }
    }

    #[test]
    fn it_rings_for_those_alone_that_are_not_what_they_were() {
        let (ear, bell) = (Arc::new(Ear::default()), Arc::new(Bell::default()));
        let _a = ear.listen(&due("a"), &bell);
        let b = ear.listen(&due("b"), &bell);
        assert_eq!(bell.answer(), HashSet::from([due("a"), due("b")]), "at once");
        ear.compare(&[counted("a", 1, 1), counted("b", 0, 1)]);
        bell.answer();
        ear.compare(&[counted("a", 1, 1), counted("b", 0, 1)]);
        assert_eq!(bell.answer(), HashSet::new());
        ear.compare(&[counted("a", 2, 1), counted("b", 0, 1)]);
        assert_eq!(bell.answer(), HashSet::from([due("a")]), "an event");
        ear.compare(&[counted("a", 2, 1), counted("b", 0, 2)]);
        assert_eq!(bell.answer(), HashSet::from([due("b")]), "a version");
        ear.ring(&[due("a"), due("c")]);
        assert_eq!(bell.answer(), HashSet::from([due("a")]));
        drop(b);
        ear.ring(&[due("b")]);
        assert_eq!(bell.answer(), HashSet::new());
        assert_eq!(ear.bound(), [due("a")]);
    }

    #[tokio::test]
    async fn who_comes_late_hears_it_all_the_same() {
        let (ear, bell) = (Arc::new(Ear::default()), Arc::new(Bell::default()));
        let _a = ear.listen(&due("a"), &bell);
        bell.rung().await;
        ear.ring(&[due("a")]);
        bell.rung().await;
        assert_eq!(bell.answer(), HashSet::from([due("a")]));
    }
}
