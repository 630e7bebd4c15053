//! One use case, one transaction: how it is run to its end, and what follows from it. Knows no use case.

use std::panic::Location;
use std::sync::Arc;

use handoff_domain::ids::{GrantId, TenantId};
use handoff_domain::ports::{self, Read, Tx};
use handoff_domain::reason::Reason;
use tracing::Instrument as _;

use super::{App, AppError, Class};
use crate::telemetry::spans;

/// What a use case is called in traces: the file where it stands, of which there is one for each.
fn name_of(caller: &'static Location<'static>) -> &'static str {
    let mut parts = caller.file().rsplit(['/', '\\']);
    let file = parts.next().unwrap_or_default();
    match file.strip_suffix(".rs").unwrap_or(file) {
        "mod" => parts.next().unwrap_or("mod"),
        name => name,
    }
}

impl App {
    /// Runs one use case in one transaction. A refusal is recorded in a transaction of its own before it is
    /// told; when that can't be done, the answer is that the audit is unavailable. Cuts that were committed
    /// reach the streams of this process at once, those of others through the store.
    ///
    /// All of that happens even where the request that asked for it is gone meanwhile.
    #[track_caller]
    pub fn write<T, F>(&self, tenant: &TenantId, work: F) -> impl Future<Output = Result<T, AppError>> + Send
    where
        T: Send + 'static,
        F: FnMut(&mut dyn Tx) -> Result<(T, Cuts), AppError> + Send + 'static,
    {
        let span = spans::use_case(name_of(Location::caller()));
        let (app, tenant) = (self.clone(), tenant.clone());
        async move {
            let unit = app.clone();
            app.to_the_end(async move { unit.write_here(&tenant, work).await }.instrument(span))
                .await
        }
    }

    async fn write_here<T, F>(&self, tenant: &TenantId, mut work: F) -> Result<T, AppError>
    where
        T: Send + 'static,
        F: FnMut(&mut dyn Tx) -> Result<(T, Cuts), AppError> + Send + 'static,
    {
        let streams = Arc::clone(&self.streams);
        let unit = move |tx: &mut dyn Tx| {
            let (value, cuts) = work(tx)?;
            // What it locked it still holds: a stream of a grant that it cuts began before, or begins after it.
            Ok((value, cuts, streams.now()))
        };
        match ports::write(self.store.as_ref(), unit).await {
            Ok((value, cuts, moment)) => {
                for (grant, reason) in cuts.0 {
                    self.streams.cut_grant(tenant, &grant, reason, moment);
                }
                Ok(value)
            }
            Err(error) => Err(self.record_denial(tenant, error).await),
        }
    }

    /// Reads that belong together.
    #[track_caller]
    pub fn read<T, F>(&self, reading: F) -> impl Future<Output = Result<T, AppError>> + Send
    where
        T: Send + 'static,
        F: FnOnce(&mut dyn Read) -> Result<T, AppError> + Send + 'static,
    {
        let span = spans::reading(name_of(Location::caller()));
        ports::read(self.store.as_ref(), reading).instrument(span)
    }

    /// Runs work to its end even where the one who waits for it goes away: a request's own future is dropped when
    /// its client disconnects, and what was begun in two stores must not be left half done.
    pub async fn to_the_end<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, AppError>> + Send + 'static,
    ) -> Result<T, AppError> {
        let work = work.in_current_span();
        self.background.spawn(work).await.unwrap_or_else(|error| {
            let text = "an internal error; tell support the correlation id";
            Err(AppError::new(Class::Internal, Reason::StorageUnavailable, text).because(error.to_string()))
        })
    }

    /// Writes the audit row of a refusal, if it has one.
    pub async fn record_denial(&self, tenant: &TenantId, mut error: AppError) -> AppError {
        let Some(row) = error.denial.take() else {
            return error;
        };
        let tenant = tenant.clone();
        let written: Result<(), AppError> = ports::write(self.store.as_ref(), move |tx| {
            tx.record(&tenant, (*row).clone());
            Ok(())
        })
        .await;
        match written {
            Ok(()) => error,
            Err(failure) => failure.audit_unavailable(),
        }
    }
}

/// The grants whose streams must stop once the transaction is committed.
#[derive(Debug, Clone, Default)]
pub struct Cuts(pub Vec<(GrantId, Reason)>);

impl Cuts {
    /// No cuts.
    pub const fn none() -> Self {
        Self(Vec::new())
    }

    /// Adds the cuts of another change of the same transaction.
    pub fn extend(&mut self, other: Self) {
        self.0.extend(other.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_use_case_is_called_like_its_file() {
        assert_eq!(name_of(Location::caller()), "unit");
    }
}
