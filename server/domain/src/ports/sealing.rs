//! What the store keeps of the ledger's seal, beside the rows of the audit themselves.

use super::store::StoreError;
use crate::ids::TenantId;
use crate::ledger::{Entry, Leaf, Node, Placed, SignedCheckpoint};

/// Reads of the ledger.
pub trait ReadLedger {
    /// Tenants that have rows in the audit.
    fn audited_tenants(&mut self) -> Result<Vec<TenantId>, StoreError>;

    /// The number up to which no row of the audit can come to be any more: whoever took a number up to it has committed or
    /// given it up. Waits a moment for those who have not; `None` where that was not enough.
    fn settled_sequence(&mut self) -> Result<Option<i64>, StoreError>;

    /// Rows of the audit with numbers in `(after, until]`, in ascending order.
    fn audit_entries(
        &mut self,
        tenant: &TenantId,
        after: i64,
        until: i64,
        limit: u32,
    ) -> Result<Vec<Entry>, StoreError>;

    /// The same, held against the columns by which they are found.
    fn placed_entries(
        &mut self,
        tenant: &TenantId,
        after: i64,
        until: i64,
        limit: u32,
    ) -> Result<Vec<Placed>, StoreError>;

    /// The leaf with the highest position.
    fn last_leaf(&mut self, tenant: &TenantId) -> Result<Option<Leaf>, StoreError>;

    /// The leaf of a row.
    fn leaf_of(&mut self, tenant: &TenantId, sequence: i64) -> Result<Option<Leaf>, StoreError>;

    /// Leaves with positions in `[from, until)`, in ascending order, at most `limit`.
    fn leaves(
        &mut self,
        tenant: &TenantId,
        from: u64,
        until: u64,
        limit: u32,
    ) -> Result<Vec<Leaf>, StoreError>;

    /// Stored inner nodes of a level with indices in `[from, until)`, in ascending order, at most `limit`.
    fn ledger_nodes(
        &mut self,
        tenant: &TenantId,
        level: u8,
        from: u64,
        until: u64,
        limit: u32,
    ) -> Result<Vec<Node>, StoreError>;

    /// The newest checkpoint.
    fn last_checkpoint(&mut self, tenant: &TenantId) -> Result<Option<SignedCheckpoint>, StoreError>;

    /// Checkpoints of fewer than `below` leaves, newest first: one for each hour in which rows were sealed.
    fn checkpoints(
        &mut self,
        tenant: &TenantId,
        below: u64,
        limit: u32,
    ) -> Result<Vec<SignedCheckpoint>, StoreError>;
}

/// Changes to the ledger.
pub trait TxLedger {
    /// Adds leaves. Two that seal the same row, or the same place, are in each other's way: one of them is refused.
    fn add_leaves(&mut self, tenant: &TenantId, leaves: &[Leaf]) -> Result<(), StoreError>;

    /// Adds inner nodes.
    fn add_ledger_nodes(&mut self, tenant: &TenantId, nodes: &[Node]) -> Result<(), StoreError>;

    /// Keeps a checkpoint, in the place of an earlier one of the same hour.
    fn put_checkpoint(&mut self, tenant: &TenantId, checkpoint: &SignedCheckpoint) -> Result<(), StoreError>;
}
