//! The one way to addresses that customers gave: endpoints of Subscriptions, other FHIR servers.
//!
//! Knows URLs, addresses, TLS and how a delivery is signed. Knows nothing of Subscriptions, Tasks, FHIR or SQL, decides about
//! no retry, and reads no file and no environment.

mod address;
mod answer;
mod endpoint;
mod failure;
mod guarded;
mod resolve;
mod rules;
pub mod signing;

pub use guarded::{Guarded, check};
pub use resolve::{Lookup, SystemLookup};
pub use rules::{Rules, RulesError};
