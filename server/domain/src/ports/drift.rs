//! What the store keeps of differences between the blob store and its records.

use super::store::StoreError;
use crate::drift::{Drift, DriftKind, Look, Shelved};
use crate::ids::TenantId;
use crate::time::Timestamp;

/// Reads of it.
pub trait ReadDrift {
    /// What the records of a tenant say of their content, in the order of the bytes of their ids: after a name, and up to another
    /// one where one is said.
    fn shelved(
        &mut self,
        tenant: &TenantId,
        after: Option<&str>,
        until: Option<&str>,
        limit: u32,
    ) -> Result<Vec<Shelved>, StoreError>;

    /// The differences that are known, after a name, in the order of their names.
    fn drift(&mut self, tenant: &TenantId, after: Option<&str>, limit: u32)
    -> Result<Vec<Drift>, StoreError>;

    /// Those of them that have these names.
    fn drift_of(&mut self, tenant: &TenantId, names: &[String]) -> Result<Vec<Drift>, StoreError>;

    /// Those of them that no look has seen since `began`.
    fn drift_unseen(
        &mut self,
        tenant: &TenantId,
        began: Timestamp,
        limit: u32,
    ) -> Result<Vec<Drift>, StoreError>;

    /// How many there are of each kind, and of how many bytes: of one tenant, or of all.
    fn drift_counts(&mut self, tenant: Option<&TenantId>) -> Result<Vec<(DriftKind, u64, u64)>, StoreError>;

    /// The last complete look at a tenant's content.
    fn last_look(&mut self, tenant: &TenantId) -> Result<Option<Look>, StoreError>;
}

/// Changes to it.
pub trait TxDrift {
    /// Keeps a difference, in place of what is known of the same name, as seen at `seen`.
    fn note_drift(&mut self, tenant: &TenantId, drift: &Drift, seen: Timestamp) -> Result<(), StoreError>;

    /// Forgets a difference.
    fn forget_drift(&mut self, tenant: &TenantId, name: &str) -> Result<(), StoreError>;

    /// Notes that another look is asked for at `now`. Before the first one there is nothing to note: that is to come in any case.
    fn ask_for_look(&mut self, tenant: &TenantId, now: Timestamp) -> Result<(), StoreError>;

    /// Keeps a look, in place of the one before; when another was asked for stays as it is.
    fn keep_look(&mut self, tenant: &TenantId, look: &Look) -> Result<(), StoreError>;
}
