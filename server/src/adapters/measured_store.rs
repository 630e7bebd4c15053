//! A store that counts its failures, so that they are seen whoever met them.

use std::sync::Arc;

use handoff_domain::ports::{BoxFuture, Reading, Store, StoreError, Work};
use handoff_domain::time::Timestamp;

use crate::telemetry::metrics;

/// Another store, with its failures counted.
pub struct MeasuredStore(Arc<dyn Store>);

impl MeasuredStore {
    /// Counts the failures of `store`.
    pub fn new(store: Arc<dyn Store>) -> Self {
        Self(store)
    }
}

fn counted<'a, T: 'a>(
    answer: BoxFuture<'a, Result<T, StoreError>>,
) -> BoxFuture<'a, Result<T, StoreError>> {
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
    fn write(&self, work: Work) -> BoxFuture<'_, Result<(), StoreError>> {
        counted(self.0.write(work))
    }

    fn read(&self, reading: Reading) -> BoxFuture<'_, Result<(), StoreError>> {
        counted(self.0.read(reading))
    }

    fn heartbeat(&self, process: &str, now: Timestamp) -> BoxFuture<'_, Result<(), StoreError>> {
        counted(self.0.heartbeat(process, now))
    }

    fn lease(
        &self,
        name: &str,
        process: &str,
        now: Timestamp,
        until: Timestamp,
    ) -> BoxFuture<'_, Result<bool, StoreError>> {
        counted(self.0.lease(name, process, now, until))
    }

    fn await_cut(&self) -> BoxFuture<'_, ()> {
        self.0.await_cut()
    }

    fn ready(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        counted(self.0.ready())
    }
}
