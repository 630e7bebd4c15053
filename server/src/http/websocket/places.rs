//! The web sockets of this process: how many there may be, in all, of one address and for one subscriber; and the word
//! that all of them end when the server does.

use std::collections::HashMap;
use std::fmt;
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use handoff_domain::ids::{ActorRef, TenantId};
use tokio::sync::watch;

use crate::config::{AddressRange, WebSockets};
use crate::http::attempts::Source;
use crate::telemetry::websockets as metrics;

/// Whose Subscriptions a socket hears.
type Creator = (TenantId, ActorRef);

/// Why there is no place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoPlace {
    /// All are taken.
    Full,
    /// All that one address may have are taken.
    Address,
    /// All that one subscriber may have are taken.
    Creator,
    /// The server ends.
    Stopping,
}

impl NoPlace {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Address => "address",
            Self::Creator => "creator",
            Self::Stopping => "stopping",
        }
    }

    fn told(self) -> Self {
        metrics::refused(self.as_str());
        self
    }
}

/// All web sockets of this process.
pub struct Sockets {
    limits: WebSockets,
    trusted: Arc<[AddressRange]>,
    open: Mutex<Open>,
    failing: AtomicBool,
    stopping: watch::Sender<bool>,
}

#[derive(Default)]
struct Open {
    all: usize,
    /// Those of whom nothing is known yet: no access token came with them, and nothing is bound.
    strangers: usize,
    by_address: HashMap<Source, usize>,
    by_creator: HashMap<Creator, usize>,
}

impl fmt::Debug for Sockets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sockets")
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

impl Sockets {
    /// None yet. `trusted` are proxies, behind each of which there are many clients.
    pub fn new(limits: WebSockets, trusted: Arc<[AddressRange]>) -> Self {
        Self {
            limits,
            trusted,
            open: Mutex::default(),
            failing: AtomicBool::new(false),
            stopping: watch::channel(false).0,
        }
    }

    /// What is asked of those who open one.
    pub const fn limits(&self) -> &WebSockets {
        &self.limits
    }

    /// Ends all of them, and lets no other begin.
    pub fn stop(&self) {
        self.stopping.send_replace(true);
    }

    /// Turns to true when all have to end.
    pub fn stopping(&self) -> watch::Receiver<bool> {
        self.stopping.subscribe()
    }

    /// Whether something fails that did not just before, for any of them: it is told once.
    pub fn fails(&self, fails: bool) -> bool {
        self.failing.swap(fails, Ordering::Relaxed) != fails && fails
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What an address is counted by; `None` where many clients stand behind it.
    fn counted(&self, address: Option<IpAddr>) -> Option<Source> {
        let is_proxy = |address: IpAddr| {
            if self.trusted.is_empty() {
                // Whoever passes on from this machine to itself without a word of it in the configuration.
                address.is_loopback()
            } else {
                self.trusted.iter().any(|range| range.contains(address))
            }
        };
        let limited = self.limits.max_per_address > 0 && !address.is_some_and(is_proxy);
        limited.then(|| Source::of(address))
    }

    /// A place for a socket of this address. Strangers leave half of the places to others.
    pub fn enter(self: &Arc<Self>, address: Option<IpAddr>, stranger: bool) -> Result<Place, NoPlace> {
        if *self.stopping.borrow() {
            return Err(NoPlace::Stopping.told());
        }
        let source = self.counted(address);
        {
            let mut open = self.open();
            let too_many_strangers = stranger && open.strangers >= self.limits.max.div_ceil(2);
            if open.all >= self.limits.max || too_many_strangers {
                return Err(NoPlace::Full.told());
            }
            if let Some(source) = source
                && !one_more(&mut open.by_address, source, self.limits.max_per_address)
            {
                return Err(NoPlace::Address.told());
            }
            open.all = open.all.saturating_add(1);
            open.strangers = open.strangers.saturating_add(usize::from(stranger));
        }
        metrics::opened();
        Ok(Place {
            sockets: Arc::clone(self),
            source,
            stranger,
            creators: Vec::new(),
        })
    }
}

/// Counts one more, if there may be one more.
fn one_more<K: Eq + Hash>(counts: &mut HashMap<K, usize>, key: K, most: usize) -> bool {
    let count = counts.entry(key).or_default();
    let fits = *count < most;
    if fits {
        *count = count.saturating_add(1);
    }
    fits
}

fn one_less<K: Eq + Hash>(counts: &mut HashMap<K, usize>, key: &K) {
    if let Some(count) = counts.get_mut(key) {
        *count = count.saturating_sub(1);
        if *count == 0 {
            counts.remove(key);
        }
    }
}

/// The place of one socket, free again when this is dropped.
#[derive(Debug)]
pub struct Place {
    sockets: Arc<Sockets>,
    source: Option<Source>,
    stranger: bool,
    creators: Vec<Creator>,
}

impl Place {
    /// It is to hear Subscriptions of this creator too.
    pub fn hears(&mut self, tenant: &TenantId, creator: &ActorRef) -> Result<(), NoPlace> {
        let creator = (tenant.clone(), creator.clone());
        if std::mem::take(&mut self.stranger) {
            let mut open = self.sockets.open();
            open.strangers = open.strangers.saturating_sub(1);
        }
        let most = self.sockets.limits.max_per_creator;
        if most == 0 || self.creators.contains(&creator) {
            return Ok(());
        }
        if !one_more(&mut self.sockets.open().by_creator, creator.clone(), most) {
            return Err(NoPlace::Creator.told());
        }
        self.creators.push(creator);
        Ok(())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.sockets.open();
        open.all = open.all.saturating_sub(1);
        open.strangers = open.strangers.saturating_sub(usize::from(self.stranger));
        if let Some(source) = &self.source {
            one_less(&mut open.by_address, source);
        }
        for creator in &self.creators {
            one_less(&mut open.by_creator, creator);
        }
        metrics::ended();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sockets(max: usize, max_per_address: usize, max_per_creator: usize) -> Arc<Sockets> {
        let limits = WebSockets {
            max,
            max_per_address,
            max_per_creator,
            ..WebSockets::default()
        };
        Arc::new(Sockets::new(limits, Arc::from(["10.0.0.9/32".parse().unwrap()])))
    }

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn places_are_as_many_as_there_are_and_free_again_at_the_end() {
        let sockets = sockets(3, 2, 0);
        let enter = |from: &str| sockets.enter(Some(address(from)), false);
        let first = enter("10.0.0.1").unwrap();
        let _second = enter("10.0.0.1").unwrap();
        assert_eq!(enter("10.0.0.1").unwrap_err(), NoPlace::Address);
        let _third = enter("10.0.0.9").unwrap();
        assert_eq!(enter("10.0.0.2").unwrap_err(), NoPlace::Full);
        drop(first);
        assert!(enter("10.0.0.1").is_ok());
        sockets.stop();
        assert_eq!(enter("10.0.0.2").unwrap_err(), NoPlace::Stopping);
    }

    #[test]
    fn strangers_leave_half_of_the_places_to_those_who_are_known() {
        let sockets = sockets(3, 0, 0);
        let (tenant, creator) = (TenantId::default_tenant(), ActorRef::parse("Device/1").unwrap());
        let mut first = sockets.enter(Some(address("10.0.0.1")), true).unwrap();
        let _second = sockets.enter(Some(address("10.0.0.2")), true).unwrap();
        assert_eq!(
            sockets.enter(Some(address("10.0.0.3")), true).unwrap_err(),
            NoPlace::Full
        );
        assert!(sockets.enter(Some(address("10.0.0.3")), false).is_ok());
        first.hears(&tenant, &creator).unwrap();
        assert!(sockets.enter(Some(address("10.0.0.3")), true).is_ok());
        drop(first);
        assert_eq!(sockets.open().strangers, 1);
    }

    #[test]
    fn a_subscriber_has_as_many_as_one_may_have_wherever_they_come_from() {
        let sockets = sockets(9, 0, 1);
        let (tenant, creator) = (TenantId::default_tenant(), ActorRef::parse("Device/1").unwrap());
        let mut first = sockets.enter(Some(address("10.0.0.1")), true).unwrap();
        let mut second = sockets.enter(Some(address("10.0.0.2")), true).unwrap();
        assert_eq!(first.hears(&tenant, &creator), Ok(()));
        assert_eq!(first.hears(&tenant, &creator), Ok(()), "it is one socket");
        assert_eq!(second.hears(&tenant, &creator), Err(NoPlace::Creator));
        drop(first);
        assert_eq!(second.hears(&tenant, &creator), Ok(()));
        drop(second);
        let open = sockets.open();
        assert!(open.all == 0 && open.by_address.is_empty() && open.by_creator.is_empty());
    }
}
