//! What a unit of work, and reads outside of one, do for malware scans.

use handoff_domain::document::{Document, Sha256};
use handoff_domain::ports::{ReadScans, StoreError, TxScans};
use handoff_domain::scan::Scan;
use handoff_domain::{BinaryId, Span, TenantId, Timestamp};

use super::{Reader, Unit};
use crate::{documents, scans};

reads! { ReadScans for Reader<'_>, Unit<'_>:
    scan(tenant: &TenantId, binary: &BinaryId) -> Option<Scan> = scans::scan, of ["scans"];
    due_scans(now: Timestamp, limit: u32) -> Vec<(TenantId, BinaryId)> = scans::due, of ["scans"];
    unscanned_since(now: Timestamp) -> Option<Timestamp> = scans::unscanned_since, of ["scans"];
    never_enrolled(after: Option<&(TenantId, BinaryId)>, limit: u32) -> Vec<(TenantId, BinaryId, Sha256)>
        = scans::never_enrolled, of ["scans", "binaries"];
}

impl TxScans for Unit<'_> {
    fn enrol_scan(&mut self, tenant: &TenantId, scan: &Scan) -> Result<(), StoreError> {
        self.attempt(|unit| {
            scans::enrol(unit, tenant, scan);
            Ok(())
        })
    }

    fn hold_scan(&mut self, tenant: &TenantId, binary: &BinaryId) -> Result<Option<Scan>, StoreError> {
        self.attempt(|unit| scans::hold(unit, tenant, binary))
    }

    fn claim_scan(
        &mut self,
        tenant: &TenantId,
        binary: &BinaryId,
        process: &str,
        term: Span,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        self.attempt(|unit| scans::claim(unit, tenant, binary, process, term, now))
    }

    fn release_scan(
        &mut self,
        tenant: &TenantId,
        binary: &BinaryId,
        process: &str,
    ) -> Result<(), StoreError> {
        self.attempt(|unit| scans::release(unit, tenant, binary, process))
    }

    fn keep_scan(&mut self, tenant: &TenantId, scan: &Scan, process: &str) -> Result<bool, StoreError> {
        self.attempt(|unit| scans::keep(unit, tenant, scan, process))
    }

    fn forget_scan(&mut self, tenant: &TenantId, binary: &BinaryId) -> Result<(), StoreError> {
        self.attempt(|unit| scans::forget(unit, tenant, binary))
    }

    fn doubt_equals(&mut self, tenant: &TenantId, of: &Scan, now: Timestamp) -> Result<(), StoreError> {
        self.attempt(|unit| scans::doubt_equals(unit, tenant, of, now))
    }

    fn rescan_within(&mut self, span: Span) -> Result<(), StoreError> {
        self.attempt(|unit| scans::rescan_within(unit, span))
    }

    fn restate_document(&mut self, tenant: &TenantId, document: &Document) -> Result<(), StoreError> {
        self.attempt(|unit| documents::restate(unit, tenant, document))
    }
}
