//! Every test of the store, on both databases. PostgreSQL is reached at `HANDOFF_TEST_POSTGRES_URL`; without
//! it these tests fail, they do not skip.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

#[path = "store/audit.rs"]
mod audit;
#[path = "store/binaries.rs"]
mod binaries;
#[path = "store/bindings.rs"]
mod bindings;
#[path = "store/courses.rs"]
mod courses;
#[path = "store/drift.rs"]
mod drift;
#[path = "store/engine.rs"]
mod engine;
#[path = "store/forwarding.rs"]
mod forwarding;
#[path = "store/grants.rs"]
mod grants;
#[path = "store/inbound.rs"]
mod inbound;
#[path = "store/processes.rs"]
mod processes;
#[path = "store/redemptions.rs"]
mod redemptions;
#[path = "store/retention.rs"]
mod retention;
#[path = "store/rig.rs"]
mod rig;
#[path = "store/scans.rs"]
mod scans;
#[path = "store/schema.rs"]
mod schema;
#[path = "store/search.rs"]
mod search;
#[path = "store/sessions.rs"]
mod sessions;
#[path = "store/standing.rs"]
mod standing;
#[path = "store/subscriptions.rs"]
mod subscriptions;
#[path = "store/tasks.rs"]
mod tasks;
