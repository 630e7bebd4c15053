//! A store that counts its failures, and what its committed audit rows say of grants and redemptions; and whose transactions are spans
//! of the traces that they belong to.

use std::sync::{Arc, Mutex, PoisonError};

use handoff_domain::audit::Event;
use handoff_domain::ports::{BoxFuture, Reading, Store, StoreError, Verdict, Work};
use handoff_domain::time::Span;

use super::measured_tx::{MeasuredTx, Noted, Recorded};
use crate::telemetry::{content, metrics, spans, traces};

/// What a unit of work is counted by, where it is to be committed.
type Committing = Arc<Mutex<Option<Recorded>>>;

/// Another store, with its failures and committed events counted, and its transactions traced.
pub struct MeasuredStore {
    inner: Arc<dyn Store>,
    database: &'static str,
}

impl MeasuredStore {
    /// Counts what happens in `store`, which is a database of this kind (OpenTelemetry's `db.system.name`).
    pub fn new(store: Arc<dyn Store>, database: &'static str) -> Self {
        Self {
            inner: store,
            database,
        }
    }
}

const fn kind_of(error: &StoreError) -> &'static str {
    match error {
        StoreError::Conflict => "conflict",
        StoreError::Unavailable(_) => "unavailable",
        StoreError::Full => "full",
        StoreError::Broken(_) => "broken",
    }
}

fn counted<'a, T: 'a>(answer: BoxFuture<'a, Result<T, StoreError>>) -> BoxFuture<'a, Result<T, StoreError>> {
    Box::pin(async move {
        let answer = answer.await;
        if let Err(error) = &answer {
            metrics::database_error(kind_of(error));
        }
        answer
    })
}

impl Store for MeasuredStore {
    fn write(&self, mut work: Work) -> BoxFuture<'_, Result<(), StoreError>> {
        let span = spans::transaction(self.database);
        let place = traces::of(&span);
        let committing: Committing = Arc::default();
        let noted = Arc::clone(&committing);
        let within = present(&span);
        let measured: Work = Box::new(move |tx| {
            let _within = within.enter();
            let mut recorded = Recorded::default();
            let verdict = work(&mut MeasuredTx::new(tx, &mut recorded, place))?;
            // Of several runs the last one counts, and only where it is kept.
            let kept = (verdict == Verdict::Commit).then_some(recorded);
            *noted.lock().unwrap_or_else(PoisonError::into_inner) = kept;
            Ok(verdict)
        });
        let answer = counted(self.inner.write(measured));
        Box::pin(async move {
            if let Err(error) = answer.await {
                spans::note_end(&span, Err(kind_of(&error)));
                return Err(error);
            }
            let committed = committing.lock().unwrap_or_else(PoisonError::into_inner).take();
            let outcome = if committed.is_some() {
                "committed"
            } else {
                "rolled-back"
            };
            spans::note_end(&span, Ok(outcome));
            let committed = committed.unwrap_or_default();
            for wait in committed.waits {
                content::redeemed_after(wait);
            }
            for noted in committed.rows {
                metrics::audited(noted.event, noted.reason, noted.bytes);
                spans::note_audited(&span, noted.event, noted.outcome, noted.reason);
                if noted.event == Event::BreakGlass {
                    warn_of_broken_glass(&noted);
                }
            }
            Ok(())
        })
    }

    fn read(&self, reading: Reading) -> BoxFuture<'_, Result<(), StoreError>> {
        // On another thread, whose lines of the log are of the same request.
        let within = tracing::Span::current();
        let reading: Reading = Box::new(move |read| within.in_scope(|| reading(read)));
        counted(self.inner.read(reading))
    }

    fn watch(&self, reading: Reading) -> BoxFuture<'_, Result<(), StoreError>> {
        counted(self.inner.watch(reading))
    }

    fn heartbeat(&self, process: &str) -> BoxFuture<'_, Result<(), StoreError>> {
        counted(self.inner.heartbeat(process))
    }

    fn lease(&self, name: &str, process: &str, term: Span) -> BoxFuture<'_, Result<bool, StoreError>> {
        counted(self.inner.lease(name, process, term))
    }

    fn lease_shards(&self, process: &str, term: Span) -> BoxFuture<'_, Result<Vec<u8>, StoreError>> {
        counted(self.inner.lease_shards(process, term))
    }

    fn leave(&self, process: &str) -> BoxFuture<'_, Result<(), StoreError>> {
        counted(self.inner.leave(process))
    }

    fn await_cut(&self) -> BoxFuture<'_, bool> {
        self.inner.await_cut()
    }

    fn await_outbox(&self) -> BoxFuture<'_, bool> {
        self.inner.await_outbox()
    }

    fn await_events(&self) -> BoxFuture<'_, bool> {
        self.inner.await_events()
    }

    fn ready(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        counted(self.inner.ready())
    }
}

/// What work on another thread is within: its own span, or else what asks for it.
fn present(span: &tracing::Span) -> tracing::Span {
    if span.is_none() {
        tracing::Span::current()
    } else {
        span.clone()
    }
}

/// The line of the log that an operator's alarm waits for. Why the glass was broken stands in the audit alone.
fn warn_of_broken_glass(noted: &Noted) {
    let outcome = noted.outcome.as_str();
    metrics::glass_broken(outcome);
    tracing::warn!(correlation_id = %noted.correlation, outcome, reason = %noted.reason, "break-glass");
}
