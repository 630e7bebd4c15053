//! What a unit of work, and reads outside of one, do for the forwarding of the audit.

use handoff_domain::TenantId;
use handoff_domain::forwarding::{Cursor, SinkName};
use handoff_domain::ledger::Entry;
use handoff_domain::ports::{ReadForwarding, StoreError, TxForwarding};

use super::{Reader, Unit};
use crate::forwarding;

reads! { ReadForwarding for Reader<'_>, Unit<'_>:
    cursor(sink: &SinkName) -> Option<Cursor> = forwarding::cursor, of ["forwarding"];
    rows_of_all(after: i64, until: i64, limit: u32) -> Vec<(TenantId, Entry)>
        = forwarding::rows_of_all, of ["audit_log"];
}

impl TxForwarding for Unit<'_> {
    fn add_cursor(&mut self, cursor: &Cursor) -> Result<(), StoreError> {
        self.attempt(|unit| {
            forwarding::add(unit, cursor);
            Ok(())
        })
    }

    fn move_cursor(&mut self, from: &Cursor, to: &Cursor) -> Result<bool, StoreError> {
        self.attempt(|unit| forwarding::replace(unit, from, to))
    }
}
