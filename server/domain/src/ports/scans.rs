//! What the store keeps of malware scans, and what scans.

use thiserror::Error;

use super::BoxFuture;
use super::blob::{BlobError, ByteStream};
use super::store::StoreError;
use crate::document::{Document, Sha256, StoredBinary};
use crate::ids::{BinaryId, TenantId};
use crate::scan::{Finding, Scan};
use crate::time::{Span, Timestamp};

/// Reads of scans.
pub trait ReadScans {
    /// What is known of a Binary; `None` where it was never to be scanned.
    fn scan(&mut self, tenant: &TenantId, binary: &BinaryId) -> Result<Option<Scan>, StoreError>;

    /// Binaries of all tenants that are to be scanned by now and that nobody has in hand, at most `limit`: those that were never
    /// scanned first, then those that have waited longest.
    fn due_scans(&mut self, now: Timestamp, limit: u32) -> Result<Vec<(TenantId, BinaryId)>, StoreError>;

    /// Since when the Binary waits that has waited longest at `now`; `None` where none does.
    fn unscanned_since(&mut self, now: Timestamp) -> Result<Option<Timestamp>, StoreError>;

    /// Binaries of all tenants, deleted ones not, of which nothing is known here: the first after one, in the order of their ids.
    fn never_enrolled(
        &mut self,
        after: Option<&(TenantId, BinaryId)>,
        limit: u32,
    ) -> Result<Vec<(TenantId, BinaryId, Sha256)>, StoreError>;
}

/// Changes to scans.
pub trait TxScans {
    /// Begins with a Binary.
    fn enrol_scan(&mut self, tenant: &TenantId, scan: &Scan) -> Result<(), StoreError>;

    /// What is known of a Binary, which stays so until the transaction ends.
    fn hold_scan(&mut self, tenant: &TenantId, binary: &BinaryId) -> Result<Option<Scan>, StoreError>;

    /// Takes a Binary in hand that is to be scanned by `now`, or keeps it there, for as long as `term` by the database's own clock;
    /// answers whether it is ours. What another process has scanned meanwhile is not due any more.
    fn claim_scan(
        &mut self,
        tenant: &TenantId,
        binary: &BinaryId,
        process: &str,
        term: Span,
        now: Timestamp,
    ) -> Result<bool, StoreError>;

    /// Lets go of a Binary that `process` has in hand.
    fn release_scan(&mut self, tenant: &TenantId, binary: &BinaryId, process: &str)
    -> Result<(), StoreError>;

    /// Keeps what was found out and lets go of the Binary, where `process` still has it in hand; answers whether it had.
    fn keep_scan(&mut self, tenant: &TenantId, scan: &Scan, process: &str) -> Result<bool, StoreError>;

    /// Forgets a Binary.
    fn forget_scan(&mut self, tenant: &TenantId, binary: &BinaryId) -> Result<(), StoreError>;

    /// All other Binaries with the same bytes, but those known to be infected, are to be scanned anew before anything of them is
    /// released.
    fn doubt_equals(&mut self, tenant: &TenantId, of: &Scan, now: Timestamp) -> Result<(), StoreError>;

    /// No clean verdict is left for longer than `span` before the content is scanned again.
    fn rescan_within(&mut self, span: Span) -> Result<(), StoreError>;

    /// Stores what is known of a document's content. It is no new version: nothing that it says has changed.
    fn restate_document(&mut self, tenant: &TenantId, document: &Document) -> Result<(), StoreError>;
}

/// Why a scanner gave no verdict.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ScannerError {
    /// It does not answer. No content is at fault.
    #[error("the scanner can't be reached: {0}")]
    Unreachable(String),
    /// It stopped in the middle, or did not come to an end. The content may be at fault.
    #[error("the scanner gave no verdict: {0}")]
    BrokeOff(String),
    /// The content can't be read.
    #[error("the content can't be read: {0}")]
    Content(BlobError),
    /// Whoever gives the verdict has not given it yet.
    #[error("there is no verdict yet")]
    NotYet,
}

/// What looks for malware.
pub trait Scanner: Send + Sync {
    /// Whether it answers.
    fn ready(&self) -> BoxFuture<'_, Result<(), ScannerError>>;

    /// Looks at content. Its bytes are not read before they are asked for.
    fn scan<'a>(
        &'a self,
        content: &'a StoredBinary,
        bytes: ByteStream,
    ) -> BoxFuture<'a, Result<Finding, ScannerError>>;
}
