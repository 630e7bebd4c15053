//! Searches in the audit, and what they find.

use crate::audit::AuditRow;
use crate::time::Timestamp;

/// A search in the audit. All given must hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AuditSearch {
    /// Row id.
    pub id: Option<String>,
    /// Event codes, any of.
    pub events: Vec<String>,
    /// Actor reference.
    pub actor: Option<String>,
    /// Patient reference.
    pub patient: Option<String>,
    /// Relative reference or id of anything it was about: Task, document, Binary, grant, redemption.
    pub entity: Option<String>,
    /// Outcome word.
    pub outcome: Option<String>,
    /// Correlation id.
    pub correlation: Option<String>,
    /// Recorded in `[from, until)`.
    pub recorded: Option<(Timestamp, Timestamp)>,
    /// Oldest first instead of newest first.
    pub oldest_first: bool,
    /// The most to return.
    pub limit: u32,
    /// Continue after this sequence number.
    pub after: Option<i64>,
}

/// An audit row with its place in the ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordedRow {
    /// Its place.
    pub sequence: i64,
    /// Its id: the AuditEvent's logical id.
    pub id: String,
    /// The row.
    pub row: AuditRow,
}
