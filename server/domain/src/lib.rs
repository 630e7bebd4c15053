//! The rules of a handoff: what a Task's movement does to its grants, who may act, and when bytes may leave.
//!
//! Pure: this crate knows no HTTP, no SQL, no clock and no randomness. Time and fresh ids are arguments,
//! storage is a port. `integration-tests/checks/architecture` holds it to that.

pub mod access;
pub mod audit;
pub mod binding;
pub mod break_glass;
pub mod document;
pub mod drift;
pub mod effects;
pub mod facts;
pub mod forwarding;
pub mod gate;
pub mod grant;
pub mod hold;
pub mod ids;
pub mod inbox;
pub mod ledger;
pub mod moves;
pub mod outbox;
pub mod ports;
pub mod reason;
pub mod redemption;
pub mod retention;
pub mod scan;
pub mod scopes;
pub mod session;
pub mod source;
pub mod standing;
pub mod subscription;
pub mod task;
pub mod time;
pub mod trace;
pub mod workflow;

pub use ids::{
    ActorRef, BinaryId, BlockId, CorrelationId, DocumentId, GrantId, Handle, HoldId, NoticeId, RedemptionId,
    SourceId, SubscriptionId, TaskId, TenantId,
};
pub use reason::Reason;
pub use time::{Span, Timestamp};
