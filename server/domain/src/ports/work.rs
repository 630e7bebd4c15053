//! Units of work: how a use case hands its transaction to the store, and gets its own answer or error back.
//! Knows no database; a unit may run several times.

use std::any::Any;
use std::sync::{Arc, Mutex, PoisonError};

use super::store::{Read, Store, StoreError, Tx};

/// What becomes of a unit of work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Make it durable.
    Commit,
    /// Undo it.
    Rollback,
}

/// A unit of work. It may run several times, each time from the start, when others came first.
pub type Work = Box<dyn FnMut(&mut dyn Tx) -> Result<Verdict, StoreError> + Send>;

/// Reads that run together on one connection.
pub type Reading = Box<dyn FnOnce(&mut dyn Read) -> Result<(), StoreError> + Send>;

/// An error that a use case may end a unit of work with.
pub trait WorkError: From<StoreError> + Send + 'static {
    /// The store's own error inside, which decides whether the work is tried again.
    fn store_error(&self) -> Option<&StoreError>;
}

impl WorkError for StoreError {
    fn store_error(&self) -> Option<&StoreError> {
        Some(self)
    }
}

type Slot<T> = Arc<Mutex<Option<T>>>;

fn put<T>(slot: &Slot<T>, value: T) {
    *slot.lock().unwrap_or_else(PoisonError::into_inner) = Some(value);
}

fn take<T>(slot: &Slot<T>) -> Option<T> {
    slot.lock().unwrap_or_else(PoisonError::into_inner).take()
}

fn nothing<E: From<StoreError>>() -> E {
    E::from(StoreError::Broken("the unit of work gave no answer".to_owned()))
}

/// Runs `work` in one transaction: `Ok` commits, `Err` rolls back and is handed on.
pub async fn write<T, E>(
    store: &dyn Store,
    mut work: impl FnMut(&mut dyn Tx) -> Result<T, E> + Send + 'static,
) -> Result<T, E>
where
    T: Any + Send,
    E: WorkError,
{
    let slot: Slot<Result<T, E>> = Arc::default();
    let inner = Arc::clone(&slot);
    let unit: Work = Box::new(move |tx| match work(tx) {
        Ok(value) => {
            put(&inner, Ok(value));
            Ok(Verdict::Commit)
        }
        Err(error) => {
            if let Some(cause) = error.store_error() {
                return Err(cause.clone());
            }
            put(&inner, Err(error));
            Ok(Verdict::Rollback)
        }
    });
    store.write(unit).await.map_err(E::from)?;
    take(&slot).unwrap_or_else(|| Err(nothing()))
}

/// Runs `reading` on one connection.
pub async fn read<T, E>(
    store: &dyn Store,
    reading: impl FnOnce(&mut dyn Read) -> Result<T, E> + Send + 'static,
) -> Result<T, E>
where
    T: Any + Send,
    E: WorkError,
{
    let (job, slot) = job(reading);
    store.read(job).await.map_err(E::from)?;
    take(&slot).unwrap_or_else(|| Err(nothing()))
}

/// Runs `reading` on a connection that requests can't take.
pub async fn watch<T, E>(
    store: &dyn Store,
    reading: impl FnOnce(&mut dyn Read) -> Result<T, E> + Send + 'static,
) -> Result<T, E>
where
    T: Any + Send,
    E: WorkError,
{
    let (job, slot) = job(reading);
    store.watch(job).await.map_err(E::from)?;
    take(&slot).unwrap_or_else(|| Err(nothing()))
}

/// A reading that leaves its answer in a slot.
fn job<T, E>(
    reading: impl FnOnce(&mut dyn Read) -> Result<T, E> + Send + 'static,
) -> (Reading, Slot<Result<T, E>>)
where
    T: Any + Send,
    E: WorkError,
{
    let slot: Slot<Result<T, E>> = Arc::default();
    let inner = Arc::clone(&slot);
    let job: Reading = Box::new(move |read| {
        let answer = reading(read);
        if let Err(error) = &answer
            && let Some(cause) = error.store_error()
        {
            return Err(cause.clone());
        }
        put(&inner, answer);
        Ok(())
    });
    (job, slot)
}
