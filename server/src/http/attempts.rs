//! How often an address, a client or a link may fail in a minute: tokens that are refused, and links that do not open.
//! Knows no policy: what failed it is told, and by whom.
//!
//! Nobody guesses a signature, or the 256 bits of a link's secret. The limits are against probing and nuisance: what
//! each attempt costs in signatures checked, questions to issuers, transactions and rows of the audit. So they must
//! never be a way to keep somebody from a document, and they count failures alone: however often somebody succeeds,
//! nothing is refused.
//!
//! **Tokens.** An address with too many refused tokens has no more of them looked at. A hospital may have a single
//! address, so tokens that were found good before, of which the validator keeps no more than a digest, are looked at
//! all the same; one that fails then, for want of a proof or because it was revoked, has a limit of its own at that
//! address.
//!
//! **Links.** Strangers share the limits of an address, a client and a link with her whom the link is for. So a shared
//! limit that is reached holds those alone who lately failed themselves; who has nothing of her own left to work off
//! has her attempt, at the fullest address and at a link that everybody guesses at. Somebody with many accounts has one
//! more attempt for each. All is decided before the store is asked and by what the caller sent, and the answer is the
//! same for links that exist and for others. For that reason a limit is of a link and not of its Task: that several
//! links are of one Task is known only to the store, and would be told by a limit that they share.
//!
//! A process counts what it sees itself: of several replicas each grants as much.

pub(crate) mod buckets;

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

use handoff_domain::reason::Reason;
use handoff_domain::time::{Span, Timestamp};
use sha2::{Digest as _, Sha256};

use crate::app::{AppError, Caller, Class};
use crate::config::Clients;
use crate::telemetry::clients as metrics;

use buckets::Buckets;

/// Who sends, as far as an address tells. A customer's IPv6 network is one; who has no address that can be told is one
/// with all others like that.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Source(Option<IpAddr>);

/// The interface's part of an IPv6 address.
const INTERFACE: u128 = (1 << 64) - 1;

impl Source {
    /// Of an address.
    pub fn of(address: Option<IpAddr>) -> Self {
        Self(address.map(|address| match address.to_canonical() {
            IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & !INTERFACE)),
            v4 @ IpAddr::V4(_) => v4,
        }))
    }
}

/// SHA-256 of what may be long.
type Digest = [u8; 32];

fn digest(parts: [&str; 2]) -> Digest {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(part.len().to_le_bytes());
        hash.update(part);
    }
    hash.finalize().into()
}

/// Who tries to open which link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Opening {
    source: Source,
    client: Digest,
    actor: Digest,
    link: Digest,
}

impl Opening {
    /// By a caller, of the link with what may be its handle.
    pub fn new(caller: &Caller, handle: &str) -> Self {
        let (principal, tenant) = (&caller.principal, caller.tenant().as_str());
        Self {
            source: Source::of(caller.address()),
            client: digest([&principal.issuer, &principal.client]),
            actor: digest([tenant, &principal.actor.to_string()]),
            link: digest([tenant, handle]),
        }
    }
}

/// Who failed, and how often lately.
pub struct Attempts {
    addresses: Buckets<Source>,
    /// Tokens that had been good, by address.
    tokens: Buckets<(Source, Digest)>,
    link_addresses: Buckets<Source>,
    link_clients: Buckets<Digest>,
    links: Buckets<Digest>,
    /// Those who failed to open any link.
    openers: Buckets<Digest>,
}

impl fmt::Debug for Attempts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Attempts").finish_non_exhaustive()
    }
}

impl Attempts {
    /// None yet.
    pub fn new(clients: &Clients) -> Self {
        let of_links = [
            clients.failed_links_per_minute_address,
            clients.failed_links_per_minute_client,
            clients.failed_links_per_minute_link,
        ];
        // As slow as the slowest limit that it lets through.
        let opener = of_links.into_iter().filter(|limit| *limit > 0).min();
        let [address, client, link] = of_links;
        Self {
            addresses: Buckets::new(clients.failed_tokens_per_minute),
            tokens: Buckets::new(clients.failed_tokens_per_minute),
            link_addresses: Buckets::new(address),
            link_clients: Buckets::new(client),
            links: Buckets::new(link),
            openers: Buckets::new(opener.unwrap_or(0)),
        }
    }

    /// Leave to have a token looked at. `known` is the digest of one that was good before.
    pub fn token(
        &self,
        source: Source,
        known: impl FnOnce() -> Option<Digest>,
        now: Timestamp,
    ) -> Result<Trial<'_>, AppError> {
        let trial = |token| Trial {
            attempts: self,
            of: Some(Of::Token(source, token)),
            now,
        };
        let Some(wait) = self.addresses.over(&source, now) else {
            return Ok(trial(None));
        };
        let known = known().map(|token| (source, token));
        let wait = known.map_or(Some(wait), |token| self.tokens.over(&token, now));
        match wait {
            Some(wait) => {
                metrics::attempt_refused("token");
                Err(wait_for(
                    wait,
                    "too many access tokens from your address were refused; wait and try again",
                ))
            }
            None => Ok(trial(known.map(|(_, token)| token))),
        }
    }

    /// Leave to try a link.
    pub fn link(&self, opening: Opening, now: Timestamp) -> Result<Trial<'_>, AppError> {
        let full = [
            ("link-address", self.link_addresses.over(&opening.source, now)),
            ("link-client", self.link_clients.over(&opening.client, now)),
            ("link", self.links.over(&opening.link, now)),
        ];
        let longest = full
            .into_iter()
            .filter_map(|(limit, wait)| Some((wait?, limit)))
            .max();
        match (longest, self.openers.owes(&opening.actor, now)) {
            (Some((shared, limit)), Some(own)) => {
                metrics::attempt_refused(limit);
                Err(wait_for(
                    shared.min(own),
                    "too many attempts to open links failed; wait and try again",
                ))
            }
            _ => Ok(Trial {
                attempts: self,
                of: Some(Of::Link(opening)),
                now,
            }),
        }
    }

    fn count(&self, of: Of, now: Timestamp) {
        match of {
            Of::Token(source, known) => {
                self.addresses.count(source, now);
                if let Some(token) = known {
                    self.tokens.count((source, token), now);
                }
            }
            Of::Link(opening) => {
                self.link_addresses.count(opening.source, now);
                self.link_clients.count(opening.client, now);
                self.links.count(opening.link, now);
                self.openers.count(opening.actor, now);
            }
        }
    }
}

fn wait_for(wait: Span, text: &str) -> AppError {
    let begun = Span(wait.0.saturating_add(999_999)).whole_seconds();
    let seconds = u64::try_from(begun).unwrap_or(1).max(1);
    AppError::new(Class::RateLimited { seconds }, Reason::RateLimited, text)
}

#[derive(Debug, Clone, Copy)]
enum Of {
    Token(Source, Option<Digest>),
    Link(Opening),
}

/// An attempt under way. It counts as failed where it is dropped, by a client that does not wait for the answer too,
/// unless it is said that it did not fail.
#[derive(Debug)]
#[must_use]
pub struct Trial<'a> {
    attempts: &'a Attempts,
    of: Option<Of>,
    now: Timestamp,
}

impl Trial<'_> {
    /// It did not fail, or by no fault of who tried.
    pub fn forgive(mut self) {
        self.of = None;
    }
}

impl Drop for Trial<'_> {
    fn drop(&mut self) {
        if let Some(of) = self.of.take() {
            self.attempts.count(of, self.now);
        }
    }
}

#[cfg(test)]
mod tests;
