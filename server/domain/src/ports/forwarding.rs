//! What the store keeps of how far the audit was forwarded.

use super::store::StoreError;
use crate::forwarding::{Cursor, SinkName};
use crate::ids::TenantId;
use crate::ledger::Entry;

/// Reads of it.
pub trait ReadForwarding {
    /// How far a sink is; `None` where nothing was forwarded to it yet.
    fn cursor(&mut self, sink: &SinkName) -> Result<Option<Cursor>, StoreError>;

    /// The first rows of the audit with numbers in `(after, until]`, of all tenants, in ascending order. Fewer than `limit` where
    /// numbers have holes; none only where there are none.
    fn rows_of_all(
        &mut self,
        after: i64,
        until: i64,
        limit: u32,
    ) -> Result<Vec<(TenantId, Entry)>, StoreError>;
}

/// Changes to it.
pub trait TxForwarding {
    /// Begins with a sink. Of two that do so at once one is refused.
    fn add_cursor(&mut self, cursor: &Cursor) -> Result<(), StoreError>;

    /// Puts one in the place of another, where that is still how it stands; answers whether it was.
    fn move_cursor(&mut self, from: &Cursor, to: &Cursor) -> Result<bool, StoreError>;
}
