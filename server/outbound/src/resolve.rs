//! From a host's name to addresses that may be connected to. The connection takes exactly these, so that no second answer of
//! the name service can come between the check and it. Literal addresses never pass here: `endpoint` has judged them.

use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs as _};
use std::sync::Arc;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;

use handoff_domain::ports::{BoxFuture, SendError};

use crate::address::is_loopback;
use crate::rules::Reach;

/// Names that are looked up at the same time. Each holds a thread until the name service answers or gives up.
const LOOKUPS: usize = 64;
/// Addresses of one name that are tried: nobody has us knock at hundreds of doors by a long answer.
const TRIED: usize = 8;

/// A name service.
pub trait Lookup: Send + Sync {
    /// All addresses of `name`, which is lower case and may end in a dot.
    fn addresses<'a>(&'a self, name: &'a str) -> BoxFuture<'a, io::Result<Vec<IpAddr>>>;
}

/// The name service of the operating system.
#[derive(Debug)]
pub struct SystemLookup {
    places: Arc<Semaphore>,
}

impl Default for SystemLookup {
    fn default() -> Self {
        Self {
            places: Arc::new(Semaphore::new(LOOKUPS)),
        }
    }
}

impl Lookup for SystemLookup {
    fn addresses<'a>(&'a self, name: &'a str) -> BoxFuture<'a, io::Result<Vec<IpAddr>>> {
        Box::pin(async move {
            let place = Arc::clone(&self.places)
                .acquire_owned()
                .await
                .map_err(io::Error::other)?;
            let name = name.to_owned();
            spawn_blocking(move || {
                // Held until there is an answer, though nobody may wait for it any more: the thread is not free before.
                let _place = place;
                let found = (name.as_str(), 0).to_socket_addrs()?;
                Ok(found.map(|address| address.ip()).collect())
            })
            .await
            .map_err(io::Error::other)?
        })
    }
}

/// Which names, or which of their addresses, a client may connect to.
#[derive(Debug, Clone)]
pub(crate) enum Admits {
    /// Names all of whose addresses are within reach.
    Reach(Arc<Reach>),
    /// Names all of whose addresses are of this machine.
    Loopback,
    /// The proxy's own name alone, wherever it leads; none where the proxy is a literal address. All others are for the proxy.
    Proxy(Option<String>),
}

impl Admits {
    fn judge(&self, name: &str, found: &[IpAddr]) -> Result<(), SendError> {
        let admitted = match self {
            Self::Reach(reach) => found.iter().all(|address| reach.permits(*address)),
            Self::Loopback => found.iter().all(|address| is_loopback(*address)),
            Self::Proxy(proxy) => proxy.as_deref() == Some(name),
        };
        if !admitted {
            return Err(SendError::NotPublic);
        }
        if found.is_empty() {
            return Err(SendError::Unresolved);
        }
        Ok(())
    }
}

/// Looks names up for a client, and keeps to itself what that may not connect to.
#[derive(Clone)]
pub(crate) struct Resolver {
    lookup: Arc<dyn Lookup>,
    admits: Admits,
}

impl Resolver {
    pub(crate) fn new(lookup: Arc<dyn Lookup>, admits: Admits) -> Self {
        Self { lookup, admits }
    }

    async fn admitted(self, name: Name) -> Result<Vec<IpAddr>, SendError> {
        let name = name.as_str();
        let mut found = self
            .lookup
            .addresses(name)
            .await
            .map_err(|_| SendError::Unresolved)?;
        self.admits.judge(name, &found)?;
        found.truncate(TRIED);
        Ok(found)
    }
}

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let resolver = self.clone();
        Box::pin(async move {
            let found = resolver.admitted(name).await?;
            // Port 0: the client puts that of the URL.
            let addresses: Addrs = Box::new(found.into_iter().map(|address| SocketAddr::new(address, 0)));
            Ok(addresses)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn behind_a_proxy_no_name_but_its_own_leads_anywhere() {
        let found: [IpAddr; 2] = ["10.0.0.1".parse().unwrap(), "93.184.216.34".parse().unwrap()];
        let named = Admits::Proxy(Some("proxy.internal".to_owned()));
        assert_eq!(named.judge("proxy.internal", &found), Ok(()));
        assert_eq!(named.judge("proxy.internal", &[]), Err(SendError::Unresolved));
        assert_eq!(named.judge("hooks.example", &found), Err(SendError::NotPublic));
        let literal = Admits::Proxy(None);
        assert_eq!(literal.judge("proxy.internal", &found), Err(SendError::NotPublic));
    }
}
