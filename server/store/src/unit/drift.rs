//! What a unit of work, and reads outside of one, do where the blob store and the records differ.

use handoff_domain::drift::{Drift, DriftKind, Look, Shelved};
use handoff_domain::ports::{ReadDrift, StoreError, TxDrift};
use handoff_domain::{TenantId, Timestamp};

use super::{Reader, Unit};
use crate::drift;

reads! { ReadDrift for Reader<'_>, Unit<'_>:
    shelved(tenant: &TenantId, after: Option<&str>, until: Option<&str>, limit: u32) -> Vec<Shelved>
        = drift::shelved, of ["binaries", "disposals"];
    drift(tenant: &TenantId, after: Option<&str>, limit: u32) -> Vec<Drift> = drift::all, of ["drift"];
    drift_of(tenant: &TenantId, names: &[String]) -> Vec<Drift> = drift::of, of ["drift"];
    drift_unseen(tenant: &TenantId, began: Timestamp, limit: u32) -> Vec<Drift> = drift::unseen, of ["drift"];
    drift_counts(tenant: Option<&TenantId>) -> Vec<(DriftKind, u64, u64)> = drift::counts, of ["drift"];
    last_look(tenant: &TenantId) -> Option<Look> = drift::last_look, of ["drift_looks"];
}

impl TxDrift for Unit<'_> {
    fn note_drift(&mut self, tenant: &TenantId, drift: &Drift, seen: Timestamp) -> Result<(), StoreError> {
        self.attempt(|unit| drift::note(unit, tenant, drift, seen))
    }

    fn forget_drift(&mut self, tenant: &TenantId, name: &str) -> Result<(), StoreError> {
        self.attempt(|unit| drift::forget(unit, tenant, name))
    }

    fn ask_for_look(&mut self, tenant: &TenantId, now: Timestamp) -> Result<(), StoreError> {
        self.attempt(|unit| drift::ask_for_look(unit, tenant, now))
    }

    fn keep_look(&mut self, tenant: &TenantId, look: &Look) -> Result<(), StoreError> {
        self.attempt(|unit| drift::keep_look(unit, tenant, look))
    }
}
