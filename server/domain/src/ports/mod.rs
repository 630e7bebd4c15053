//! What the rules need from outside, as traits: a clock, randomness, a store, a blob store, a way out.
//! Adapters live in other crates; only wiring names a concrete one.

mod blob;
mod drift;
mod forwarding;
mod headers;
mod inbound;
mod ledger;
mod matching;
mod outbound;
mod retention;
mod scans;
mod sealing;
mod source_server;
mod store;
mod subscriptions;
mod work;

pub use blob::{BlobError, BlobPin, BlobStore, ByteStream, Listed, Listing, Uploaded};
pub use drift::{ReadDrift, TxDrift};
pub use forwarding::{ReadForwarding, TxForwarding};
pub use headers::{HeaderError, LONGEST_HEADER_NAME, LONGEST_HEADER_VALUE, check_header, check_sent_header};
pub use inbound::{NoticeSearch, ReadInbound, TxInbound};
pub use ledger::{AuditSearch, RecordedRow};
pub use matching::{Subject, bare};
pub use outbound::{
    EndpointError, LONGEST_URL, Outbound, OutboundAnswer, OutboundMethod, OutboundRequest, SendError,
};
pub use retention::{Classes, ReadRetention, TxRetention};
pub use scans::{ReadScans, Scanner, ScannerError, TxScans};
pub use sealing::{ReadLedger, TxLedger};
pub use source_server::{SourceAct, SourceAnswer, SourceError, SourceRequest, SourceServer};
pub use store::*;
pub use subscriptions::{Attention, Counted, Due, Pending, ReadSubscriptions, TxSubscriptions, Vault};
pub use work::{Reading, Verdict, Work, WorkError, read, watch, write};

use std::future::Future;
use std::pin::Pin;

use crate::time::Timestamp;

/// A future without a concrete type, so that ports can be trait objects.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// The present instant. Tests turn it by hand.
pub trait Clock: Send + Sync {
    /// Now.
    fn now(&self) -> Timestamp;
}

/// Randomness from the operating system's generator. Tests seed it.
pub trait Entropy: Send + Sync {
    /// Fills `bytes` with random bytes fit for secrets.
    fn fill(&self, bytes: &mut [u8]);

    /// A fresh random id: 32 lower-case hexadecimal digits (128 bits).
    fn fresh_id(&self) -> String {
        let mut bytes = [0u8; 16];
        self.fill(&mut bytes);
        format!("{:032x}", u128::from_be_bytes(bytes))
    }

    /// A fresh id of the same shape that sorts by when it was made: 48 bits of milliseconds since 1970, then 80 random
    /// ones. Rows under such ids lie beside those that were written just before, in every index. It tells its age and
    /// is no secret.
    fn ordered_id(&self, now: Timestamp) -> String {
        let mut bytes = [0u8; 16];
        self.fill(&mut bytes);
        let random = u128::from_be_bytes(bytes) & (u128::MAX >> 48);
        let milliseconds = u128::try_from(now.0 / 1000).unwrap_or(0) & (u128::MAX >> 80);
        format!("{:032x}", milliseconds << 80 | random)
    }
}
