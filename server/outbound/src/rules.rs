//! What an operator allows beyond public addresses, and the check of one address against it. Reads no configuration.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use thiserror::Error;
use url::{Host, Url};

use crate::address::{Network, is_metadata, is_public, meant};

/// What an operator allows. The default allows https to public addresses, without a proxy, under the roots of Mozilla.
#[derive(Clone, Default)]
pub struct Rules {
    /// Networks (an address and how many of its bits count) that may be reached although they are not public. An address where a
    /// cloud tells its machines about themselves is in none of them, unless it stands there alone, with all its bits.
    pub allowed: Vec<(IpAddr, u8)>,
    /// Whether http without TLS may go to this machine itself: for the demo and tests.
    pub plain_loopback: bool,
    /// PEM texts of certificates that vouch for servers beside the public roots.
    pub extra_roots: Vec<Vec<u8>>,
    /// An http or https URL of a proxy that everything but plain loopback goes through. It looks names up itself, so that of all
    /// checks of addresses those of literals alone are left: the proxy has to refuse what is not public.
    pub proxy: Option<String>,
}

impl Rules {
    /// For addresses that an operator configures: any, private ones too, by https, and this machine without it. The metadata
    /// services of clouds are in none of it.
    pub fn of_an_operator() -> Self {
        Self {
            allowed: vec![
                (IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0),
                (IpAddr::V6(Ipv6Addr::UNSPECIFIED), 0),
            ],
            plain_loopback: true,
            ..Self::default()
        }
    }
}

impl fmt::Debug for Rules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rules")
            .field("allowed", &self.allowed)
            .field("plain_loopback", &self.plain_loopback)
            .field("extra_roots", &self.extra_roots.len())
            .field("proxy", &self.proxy.is_some())
            .finish()
    }
}

/// What is wrong with [`Rules`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum RulesError {
    /// A network has more bits than its address.
    #[error("an allowed network has more bits than its addresses")]
    Network,
    /// A root is no PEM text with a certificate.
    #[error("a root is not a PEM text with a certificate")]
    Root,
    /// The proxy is no http or https URL.
    #[error("the proxy is not an http or https URL")]
    Proxy,
    /// TLS can't be set up.
    #[error("the HTTP client can't be set up")]
    Client,
}

/// Which addresses may be reached.
#[derive(Debug, Clone)]
pub(crate) struct Reach {
    allowed: Vec<Network>,
}

impl Reach {
    pub(crate) fn new(allowed: &[(IpAddr, u8)]) -> Result<Self, RulesError> {
        let allowed = allowed
            .iter()
            .map(|(address, bits)| Network::new(*address, *bits).ok_or(RulesError::Network))
            .collect::<Result<_, _>>()?;
        Ok(Self { allowed })
    }

    /// Whether something may be sent to `address`.
    pub(crate) fn permits(&self, address: IpAddr) -> bool {
        is_public(address) || self.allows(address)
    }

    fn allows(&self, address: IpAddr) -> bool {
        let meant = meant(address);
        self.allowed
            .iter()
            .any(|network| network.contains(meant) && (network.is_single() || !is_metadata(meant)))
    }
}

/// The URL of a proxy, and its name unless it is given as a literal address.
pub(crate) fn proxy(text: &str) -> Result<(Url, Option<String>), RulesError> {
    let url = Url::parse(text).map_err(|_| RulesError::Proxy)?;
    let name = match (url.scheme(), url.host()) {
        ("http" | "https", Some(Host::Domain(name))) => Some(name.to_owned()),
        ("http" | "https", Some(_)) => None,
        _ => return Err(RulesError::Proxy),
    };
    Ok((url, name))
}
