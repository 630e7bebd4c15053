//! The store: `handoff_domain::ports::Store` over PostgreSQL and over SQLite, by Diesel.
//!
//! One file per aggregate, the same for both databases: what differs in SQL is in `dialect`, how units of work are
//! run in `engine`, how news travels in `store::cuts`. Knows rows and transactions; knows nothing of HTTP, and
//! decides nothing about who may do what.

mod actors;
mod audit;
mod binaries;
mod bindings;
mod clinical_facts;
mod config;
mod dialect;
mod documents;
mod drift;
mod engine;
mod error;
mod forwarding;
mod grants;
mod history;
mod leases;
mod ledger;
mod migrations;
mod mirrors;
mod notices;
mod outbox;
mod redemptions;
mod retention;
mod scans;
mod schema;
mod search;
mod sessions;
mod sources;
mod standing;
mod statement;
mod store;
mod subscription_events;
mod subscriptions;
mod tasks;
mod unit;

pub use config::{Database, StoreConfig};
pub use migrations::{migrate, pending};
pub use store::{DieselStore, Statistics, open};

// Linked for what they bring, not called: the databases' client libraries, built from source.
use libsqlite3_sys as _;
use openssl_sys as _;
use pq_sys as _;
