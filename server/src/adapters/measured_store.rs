//! A store that counts its failures, and what its committed audit rows say of grants and redemptions.

use std::sync::{Arc, Mutex, PoisonError};

use handoff_domain::audit::Event;
use handoff_domain::ports::{BoxFuture, Reading, Store, StoreError, Verdict, Work};
use handoff_domain::time::Span;

use super::measured_tx::{MeasuredTx, Noted};
use crate::telemetry::metrics;

/// What the audit rows of a unit of work say, until it is committed.
type Committing = Arc<Mutex<Vec<Noted>>>;

/// Another store, with its failures and committed events counted.
pub struct MeasuredStore(Arc<dyn Store>);

impl MeasuredStore {
    /// Counts what happens in `store`.
    pub fn new(store: Arc<dyn Store>) -> Self {
        Self(store)
    }
}

fn counted<'a, T: 'a>(answer: BoxFuture<'a, Result<T, StoreError>>) -> BoxFuture<'a, Result<T, StoreError>> {
    Box::pin(async move {
        let answer = answer.await;
        if let Err(error) = &answer {
            metrics::database_error(match error {
                StoreError::Conflict => "conflict",
                StoreError::Unavailable(_) => "unavailable",
                StoreError::Full => "full",
                StoreError::Broken(_) => "broken",
            });
        }
        answer
    })
}

impl Store for MeasuredStore {
    fn write(&self, mut work: Work) -> BoxFuture<'_, Result<(), StoreError>> {
        let committing: Committing = Arc::default();
        let noted = Arc::clone(&committing);
        let measured: Work = Box::new(move |tx| {
            let mut recorded = Vec::new();
            let verdict = work(&mut MeasuredTx::new(tx, &mut recorded))?;
            // Of several runs the last one counts, and only where it is kept.
            if verdict == Verdict::Rollback {
                recorded.clear();
            }
            *noted.lock().unwrap_or_else(PoisonError::into_inner) = recorded;
            Ok(verdict)
        });
        let answer = counted(self.0.write(measured));
        Box::pin(async move {
            answer.await?;
            for noted in committing
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .drain(..)
            {
                metrics::audited(noted.event, noted.reason, noted.bytes);
                if noted.event == Event::BreakGlass {
                    warn_of_broken_glass(&noted);
                }
            }
            Ok(())
        })
    }

    fn read(&self, reading: Reading) -> BoxFuture<'_, Result<(), StoreError>> {
        counted(self.0.read(reading))
    }

    fn watch(&self, reading: Reading) -> BoxFuture<'_, Result<(), StoreError>> {
        counted(self.0.watch(reading))
    }

    fn heartbeat(&self, process: &str) -> BoxFuture<'_, Result<(), StoreError>> {
        counted(self.0.heartbeat(process))
    }

    fn lease(&self, name: &str, process: &str, term: Span) -> BoxFuture<'_, Result<bool, StoreError>> {
        counted(self.0.lease(name, process, term))
    }

    fn lease_shards(&self, process: &str, term: Span) -> BoxFuture<'_, Result<Vec<u8>, StoreError>> {
        counted(self.0.lease_shards(process, term))
    }

    fn leave(&self, process: &str) -> BoxFuture<'_, Result<(), StoreError>> {
        counted(self.0.leave(process))
    }

    fn await_cut(&self) -> BoxFuture<'_, bool> {
        self.0.await_cut()
    }

    fn await_outbox(&self) -> BoxFuture<'_, bool> {
        self.0.await_outbox()
    }

    fn await_events(&self) -> BoxFuture<'_, bool> {
        self.0.await_events()
    }

    fn ready(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        counted(self.0.ready())
    }
}

/// The line of the log that an operator's alarm waits for. Why the glass was broken stands in the audit alone.
fn warn_of_broken_glass(noted: &Noted) {
    let outcome = noted.outcome.as_str();
    metrics::glass_broken(outcome);
    tracing::warn!(correlation = %noted.correlation, outcome, reason = %noted.reason, "break-glass");
}
