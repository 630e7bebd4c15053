//! What a unit of work, and reads outside of one, do for the ledger's seal.

use handoff_domain::TenantId;
use handoff_domain::ledger::{Entry, Leaf, Node, Placed, SignedCheckpoint};
use handoff_domain::ports::{ReadLedger, StoreError, TxLedger};

use super::{Reader, Unit};
use crate::ledger;

reads! { ReadLedger for Reader<'_>, Unit<'_>:
    audited_tenants() -> Vec<TenantId> = ledger::tenants, of ["audit_log"];
    settled_sequence() -> Option<i64> = ledger::settled_sequence, of ["audit_log"];
    audit_entries(tenant: &TenantId, after: i64, until: i64, limit: u32) -> Vec<Entry>
        = ledger::entries, of ["audit_log"];
    placed_entries(tenant: &TenantId, after: i64, until: i64, limit: u32) -> Vec<Placed>
        = ledger::placed_entries, of ["audit_log"];
    last_leaf(tenant: &TenantId) -> Option<Leaf> = ledger::last_leaf, of ["ledger_leaves"];
    leaf_of(tenant: &TenantId, sequence: i64) -> Option<Leaf> = ledger::leaf_of, of ["ledger_leaves"];
    leaves(tenant: &TenantId, from: u64, until: u64, limit: u32) -> Vec<Leaf>
        = ledger::leaves, of ["ledger_leaves"];
    ledger_nodes(tenant: &TenantId, level: u8, from: u64, until: u64, limit: u32) -> Vec<Node>
        = ledger::nodes, of ["ledger_nodes"];
    last_checkpoint(tenant: &TenantId) -> Option<SignedCheckpoint>
        = ledger::last_checkpoint, of ["ledger_checkpoints"];
    checkpoints(tenant: &TenantId, below: u64, limit: u32) -> Vec<SignedCheckpoint>
        = ledger::checkpoints, of ["ledger_checkpoints"];
}

impl TxLedger for Unit<'_> {
    fn add_leaves(&mut self, tenant: &TenantId, leaves: &[Leaf]) -> Result<(), StoreError> {
        self.attempt(|unit| {
            ledger::add_leaves(unit, tenant, leaves);
            Ok(())
        })
    }

    fn add_ledger_nodes(&mut self, tenant: &TenantId, nodes: &[Node]) -> Result<(), StoreError> {
        self.attempt(|unit| {
            ledger::add_nodes(unit, tenant, nodes);
            Ok(())
        })
    }

    fn put_checkpoint(&mut self, tenant: &TenantId, checkpoint: &SignedCheckpoint) -> Result<(), StoreError> {
        self.attempt(|unit| ledger::put_checkpoint(unit, tenant, checkpoint))
    }
}
