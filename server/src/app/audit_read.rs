//! Reading the audit: for those who may, and itself a recorded act.

use handoff_domain::access::{Action, Object, Relation};
use handoff_domain::audit::{Event, Outcome};
use handoff_domain::ports::{AuditSearch, RecordedRow};
use handoff_domain::reason::Reason;
use handoff_domain::scopes::Interaction;

use super::{App, AppError, Caller, Cuts};

impl App {
    /// Audit rows that match. That they were read is in the audit before they are shown.
    pub async fn search_audit(
        &self,
        caller: &Caller,
        search: AuditSearch,
        interaction: Interaction,
    ) -> Result<Vec<RecordedRow>, AppError> {
        let scope = self.scope(caller);
        self.write(caller.tenant(), move |tx| {
            scope.demand("AuditEvent", interaction)?;
            scope.permit(
                Action::AuditRead,
                Relation::default(),
                Object::Audit,
                Event::AuditRead,
            )?;
            let rows = tx.audit(scope.tenant(), &search)?;
            let row = scope
                .row(Event::AuditRead, Outcome::Success, Reason::Permitted)
                .detail("rows", rows.len().to_string());
            tx.record(scope.tenant(), row);
            Ok((rows, Cuts::none()))
        })
        .await
    }
}
