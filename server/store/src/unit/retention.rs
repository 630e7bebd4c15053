//! What a unit of work, and reads outside of one, do for the clocks of documents.

use handoff_domain::document::Document;
use handoff_domain::hold::Hold;
use handoff_domain::ports::{Classes, ReadRetention, StoreError, TxRetention};
use handoff_domain::retention::{Cause, Disposal, DisposalState, KeptDocument};
use handoff_domain::{ActorRef, BinaryId, DocumentId, HoldId, TenantId, Timestamp};

use super::{Reader, Unit};
use crate::retention;

reads! { ReadRetention for Reader<'_>, Unit<'_>:
    holds(tenant: &TenantId, now: Timestamp, limit: u32) -> Vec<Hold> = retention::holds, of ["holds"];
    hold(tenant: &TenantId, id: &HoldId) -> Option<Hold> = retention::hold, of ["holds"];
    kept_document(tenant: &TenantId, id: &DocumentId) -> Option<KeptDocument>
        = retention::kept_document, of ["documents"];
    documents_by_age(
        tenant: &TenantId, classes: &Classes, until: Timestamp, after: Option<&(Timestamp, DocumentId)>, limit: u32
    ) -> Vec<KeptDocument> = retention::documents_by_age, of ["documents"];
    documents_turned(now: Timestamp, limit: u32) -> Vec<(TenantId, DocumentId)>
        = retention::documents_turned, of ["documents"];
    binaries_of(tenant: &TenantId, document: &DocumentId) -> Vec<BinaryId>
        = retention::binaries_of, of ["binaries"];
    disposals_of(tenant: &TenantId, document: &DocumentId) -> Vec<Disposal>
        = retention::disposals_of, of ["disposals"];
    disposals_due(now: Timestamp, after: Option<&(TenantId, BinaryId)>, limit: u32) -> Vec<(TenantId, Disposal)>
        = retention::disposals_due, of ["disposals"];
    disposals_waiting() -> (u64, Option<Timestamp>) = retention::disposals_waiting, of ["disposals"];
}

impl TxRetention for Unit<'_> {
    fn place_hold(&mut self, tenant: &TenantId, hold: &Hold) -> Result<(), StoreError> {
        self.attempt(|unit| {
            retention::place(unit, tenant, hold);
            Ok(())
        })
    }

    fn lift_hold(
        &mut self,
        tenant: &TenantId,
        id: &HoldId,
        by: &ActorRef,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        self.attempt(|unit| retention::lift(unit, tenant, id, by, now))
    }

    fn lock_holds(&mut self, tenant: &TenantId, now: Timestamp, limit: u32) -> Result<Vec<Hold>, StoreError> {
        self.attempt(|unit| retention::lock(unit, tenant, now, limit))
    }

    fn keep_document(
        &mut self,
        tenant: &TenantId,
        document: &Document,
        turns: Option<Timestamp>,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        self.attempt(|unit| retention::keep(unit, tenant, document, turns, now))
    }

    fn mark_disposal(&mut self, tenant: &TenantId, disposal: &Disposal) -> Result<(), StoreError> {
        self.attempt(|unit| retention::mark(unit, tenant, disposal))
    }

    fn hasten_disposals(
        &mut self,
        tenant: &TenantId,
        document: &DocumentId,
        cause: Cause,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        self.attempt(|unit| retention::hasten(unit, tenant, document, cause, now))
    }

    fn move_disposal(
        &mut self,
        tenant: &TenantId,
        binary: &BinaryId,
        from: DisposalState,
        to: DisposalState,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        self.attempt(|unit| retention::advance(unit, tenant, binary, (from, to), now))
    }
}
