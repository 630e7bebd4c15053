//! Reading the audit: for those who may, and itself a recorded act.

use handoff_domain::access::{Action, Object, Relation};
use handoff_domain::audit::{About, Event, Outcome};
use handoff_domain::ids::TenantId;
use handoff_domain::ledger::SignedCheckpoint;
use handoff_domain::ports::{AuditSearch, Read, RecordedRow};
use handoff_domain::reason::Reason;
use handoff_domain::scopes::Interaction;

use super::ledger::export::Export;
use super::ledger::{LedgerError, prove};
use super::{App, AppError, Caller};

/// How many checkpoints are shown at once.
const CHECKPOINTS: u32 = 100;

impl App {
    /// Audit rows that match. That they were read is in the audit before they are shown.
    pub async fn search_audit(
        &self,
        caller: &Caller,
        search: AuditSearch,
        interaction: Interaction,
    ) -> Result<Vec<RecordedRow>, AppError> {
        let about = About {
            patient: search.patient.clone(),
            ..About::default()
        };
        self.read_recorded(caller, interaction, about, move |read, tenant| {
            let rows = read.audit(tenant, &search)?;
            let count = rows.len().to_string();
            Ok((rows, ("rows", count)))
        })
        .await
    }

    /// The newest checkpoint of the ledger.
    pub async fn checkpoint(&self, caller: &Caller) -> Result<String, AppError> {
        self.read_ledger(caller, "checkpoint", |read, tenant| {
            let newest = read.last_checkpoint(tenant)?.ok_or(LedgerError::Unsealed)?;
            Ok(newest.note)
        })
        .await
    }

    /// Earlier checkpoints, newest first, of trees of fewer than `below` rows.
    pub async fn checkpoints(
        &self,
        caller: &Caller,
        below: Option<u64>,
    ) -> Result<Vec<SignedCheckpoint>, AppError> {
        self.read_ledger(caller, "checkpoints", move |read, tenant| {
            Ok(read.checkpoints(tenant, below.unwrap_or(u64::MAX), CHECKPOINTS)?)
        })
        .await
    }

    /// The proof that a row is in the ledger.
    pub async fn prove_row(&self, caller: &Caller, sequence: i64) -> Result<String, AppError> {
        self.read_ledger(caller, "proof", move |read, tenant| {
            prove::row(read, tenant, sequence)
        })
        .await
    }

    /// The proof that the ledger goes on from its first rows.
    pub async fn prove_consistency(&self, caller: &Caller, first: u64) -> Result<String, AppError> {
        self.read_ledger(caller, "consistency", move |read, tenant| {
            prove::consistency(read, tenant, first)
        })
        .await
    }

    /// The whole sealed audit from a position on, as a file. That it was asked for is in the audit before the first byte.
    pub async fn export_audit(&self, caller: &Caller, from: u64) -> Result<Export, AppError> {
        self.read_ledger(caller, "export", move |_, _| Ok(())).await?;
        Ok(Export::begin(self.store.as_ref(), caller.tenant(), from).await?)
    }

    /// Reads something of the ledger.
    async fn read_ledger<T: Send + 'static>(
        &self,
        caller: &Caller,
        what: &'static str,
        reading: impl FnOnce(&mut dyn Read, &TenantId) -> Result<T, LedgerError> + Send + 'static,
    ) -> Result<T, AppError> {
        self.read_recorded(
            caller,
            Interaction::Read,
            About::default(),
            move |read, tenant| Ok((reading(read, tenant)?, ("ledger", what.to_owned()))),
        )
        .await
    }

    /// Reads for whoever may read the whole audit. That it was read is in the audit before anything is shown, with a detail.
    pub(super) async fn read_recorded<T: Send + 'static>(
        &self,
        caller: &Caller,
        interaction: Interaction,
        about: About,
        reading: impl FnOnce(&mut dyn Read, &TenantId) -> Result<(T, (&'static str, String)), AppError>
        + Send
        + 'static,
    ) -> Result<T, AppError> {
        let scope = self.scope(caller);
        let allowed = scope.demand("AuditEvent", interaction).and_then(|_| {
            scope.permit(
                Action::AuditRead,
                Relation::default(),
                Object::Audit,
                Event::AuditRead,
            )
        });
        if let Err(refusal) = allowed {
            return Err(self.record_denial(scope.tenant(), refusal).await);
        }
        let tenant = scope.tenant().clone();
        let (answer, (name, value)) = self.read(move |read| reading(read, &tenant)).await?;
        let row = scope
            .row(Event::AuditRead, Outcome::Success, Reason::Permitted)
            .about(about)
            .detail(name, value);
        self.reads.record(scope.tenant().clone(), vec![row]).await?;
        Ok(answer)
    }
}
