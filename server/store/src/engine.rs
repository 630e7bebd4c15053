//! Where units of work run: on connections of a pool, or one after the other on SQLite's writer, which makes
//! several of them durable by one commit. Knows nothing of what a unit does.

mod pool;
mod writer;

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use diesel::connection::TransactionManager;
use handoff_domain::ports::{StoreError, Verdict};

use crate::config::{Database, StoreConfig};
use crate::dialect::AnyConnection;
use crate::error::refused;

pub(crate) use pool::{Lease, Pool};
use writer::Writer;

type Manager = <AnyConnection as diesel::Connection>::TransactionManager;

/// How often a unit of work is run again because others came first.
const RETRIES: u32 = 8;

/// What a unit left behind, beyond its rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Done {
    /// What becomes of it.
    pub(crate) verdict: Verdict,
    /// What others are to learn of.
    pub(crate) told: Told,
}

/// What others are to learn of when a unit is committed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Told {
    /// Streams are to be cut, or what is blocked has changed.
    pub(crate) cut: bool,
    /// Subscriptions were given events.
    pub(crate) events: bool,
    /// There is something in the outbox.
    pub(crate) outbox: bool,
}

/// A unit of work: it runs inside a transaction, possibly several times, each time from the start.
pub(crate) type Op = Box<dyn FnMut(&mut AnyConnection) -> Result<Done, StoreError> + Send>;

/// How much was done since the store was opened.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) units: AtomicU64,
    pub(crate) commits: AtomicU64,
    pub(crate) retries: AtomicU64,
}

/// Runs units of work.
pub(crate) enum Engine {
    /// Several at a time, each in its own transaction.
    Parallel(Pool, Arc<Counters>),
    /// One at a time, several per commit.
    Grouped(Writer),
}

impl Engine {
    /// The engine for the configured database.
    pub(crate) fn open(
        config: &StoreConfig,
        pool: &Pool,
        counters: &Arc<Counters>,
    ) -> Result<Self, StoreError> {
        match config.database() {
            Database::Postgres => Ok(Self::Parallel(pool.clone(), Arc::clone(counters))),
            Database::Sqlite(_) => Writer::start(config, Arc::clone(counters)).map(Self::Grouped),
        }
    }

    /// Runs one unit of work until it is durable, undone or refused.
    pub(crate) async fn run(&self, op: Op) -> Result<Done, StoreError> {
        match self {
            Self::Parallel(pool, counters) => {
                let counters = Arc::clone(counters);
                pool.run(move |lease| in_own_transaction(lease, op, &counters))
                    .await
            }
            Self::Grouped(writer) => writer.run(op).await,
        }
    }
}

fn in_own_transaction(lease: &mut Lease, mut op: Op, counters: &Counters) -> Result<Done, StoreError> {
    counters.units.fetch_add(1, Ordering::Relaxed);
    let mut fresh = false;
    let mut tries = 0_u32;
    loop {
        // A connection that waited in the pool may have died there: that is found out here, before anything
        // was done, and is no reason to fail.
        if let Err(error) = lease.connection()?.begin_outer() {
            let error = refused(&error);
            lease.discard();
            if fresh {
                return Err(error);
            }
            fresh = true;
            continue;
        }
        match nested(lease.connection()?, &mut op).result {
            Err(StoreError::Conflict) if tries < RETRIES => {
                tries = tries.saturating_add(1);
                counters.retries.fetch_add(1, Ordering::Relaxed);
                back_off(tries);
            }
            Ok(done) => {
                if done.verdict == Verdict::Commit {
                    counters.commits.fetch_add(1, Ordering::Relaxed);
                }
                return Ok(done);
            }
            Err(error) => {
                if matches!(error, StoreError::Unavailable(_)) {
                    lease.give_up();
                }
                return Err(error);
            }
        }
    }
}

/// How a unit ended, and whether the connection is still where it was before.
struct Ended {
    result: Result<Done, StoreError>,
    intact: bool,
}

/// Runs a unit in the transaction or savepoint that was just begun, and ends that.
fn nested(connection: &mut AnyConnection, op: &mut Op) -> Ended {
    let result = catch_unwind(AssertUnwindSafe(|| op(connection)))
        .unwrap_or_else(|panic| Err(StoreError::Broken(panic_text(panic.as_ref()))));
    let ended = match &result {
        Ok(done) if done.verdict == Verdict::Commit => Manager::commit_transaction(connection),
        _ => Manager::rollback_transaction(connection),
    };
    match ended {
        Ok(()) => Ended { result, intact: true },
        // What went wrong first says more.
        Err(error) => Ended {
            result: Err(result.err().unwrap_or_else(|| refused(&error))),
            intact: false,
        },
    }
}

/// Begins a savepoint and runs a unit in it, again where others came first. When the connection is not intact
/// afterwards, SQLite has undone more than the savepoint.
fn in_savepoint(connection: &mut AnyConnection, op: &mut Op, counters: &Counters) -> Ended {
    counters.units.fetch_add(1, Ordering::Relaxed);
    let mut tries = 0_u32;
    loop {
        if let Err(error) = Manager::begin_transaction(connection) {
            return Ended {
                result: Err(refused(&error)),
                intact: false,
            };
        }
        match nested(connection, op) {
            // Nobody else writes, so what came first is in this very group or was there before: no use waiting.
            Ended {
                result: Err(StoreError::Conflict),
                intact: true,
            } if tries < RETRIES => {
                tries = tries.saturating_add(1);
                counters.retries.fetch_add(1, Ordering::Relaxed);
            }
            ended => return ended,
        }
    }
}

/// That a unit panicked, with what it said where that is a fixed text.
pub(crate) fn panic_text(panic: &(dyn Any + Send)) -> String {
    // A formatted message may hold values of the request.
    match panic.downcast_ref::<&'static str>() {
        Some(text) => format!("a unit of work panicked: {text}"),
        None => "a unit of work panicked".to_owned(),
    }
}

/// Waits a little, longer each time, and not as long as the others who wait.
fn back_off(tries: u32) {
    use std::hash::{BuildHasher, Hasher, RandomState};
    let most = 500_u64.checked_shl(tries.min(6)).unwrap_or(32_000);
    let share = RandomState::new()
        .build_hasher()
        .finish()
        .checked_rem(most)
        .unwrap_or(0);
    std::thread::park_timeout(Duration::from_micros(share.saturating_add(200)));
}
