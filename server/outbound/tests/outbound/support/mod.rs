//! What the tests stand on: requests, names, servers, certificates.

mod names;
mod peer;
mod pki;

pub use names::Names;
pub use peer::{Doorbell, Peer, Reply};
pub use pki::Authority;

use std::net::IpAddr;
use std::time::Duration;

use handoff_domain::ports::{OutboundMethod, OutboundRequest};
use handoff_outbound::Rules;

/// An address that no other test serves at and nobody asks for by mistake: 127.0.0.2.
pub const ELSEWHERE: &str = "127.0.0.2";
/// Long enough for anything that is to succeed.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A GET that takes answers of up to a mebibyte.
pub fn get(url: &str) -> OutboundRequest {
    OutboundRequest {
        method: OutboundMethod::Get,
        url: url.to_owned(),
        headers: Vec::new(),
        body: Vec::new(),
        timeout: PATIENCE,
        answer_limit: 1024 * 1024,
    }
}

/// A POST as of a webhook: nobody reads what is answered.
pub fn post(url: &str, body: &[u8]) -> OutboundRequest {
    OutboundRequest {
        method: OutboundMethod::Post,
        body: body.to_vec(),
        answer_limit: 0,
        ..get(url)
    }
}

/// Rules under which plain http may go to this machine.
pub fn plain_loopback() -> Rules {
    Rules {
        plain_loopback: true,
        ..Rules::default()
    }
}

/// Rules that allow one address.
pub fn allowing(address: &str) -> Rules {
    let address: IpAddr = address.parse().unwrap();
    let bits = if address.is_ipv4() { 32 } else { 128 };
    Rules {
        allowed: vec![(address, bits)],
        ..Rules::default()
    }
}
