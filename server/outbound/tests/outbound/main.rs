//! The guarded way out, against servers of this machine that see what arrives, and names that resolve as a test wants.
#![expect(clippy::unwrap_used, reason = "tests")]

mod addresses;
mod answers;
mod proxies;
mod requests;
mod support;
mod tls;
