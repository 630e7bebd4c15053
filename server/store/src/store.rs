//! The store itself: units of work to the engine, reads to the pool, and the news of cuts to who waits for it.

mod news;

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use handoff_domain::Span;
use handoff_domain::ports::{BoxFuture, Reading, Store, StoreError, Verdict, Work};

use crate::config::{Database, StoreConfig};
use crate::dialect::Purpose;
use crate::engine::{Counters, Done, Engine, Pool, Told};
use crate::leases;
use crate::migrations::missing;
use crate::unit::{self, Reader};
use news::News;

/// Opens the database, which must have been migrated: see [`crate::migrate`].
pub async fn open(config: &StoreConfig) -> Result<Arc<dyn Store>, StoreError> {
    Ok(DieselStore::open(config).await?)
}

/// Connections that requests can't take.
const WATCH_CONNECTIONS: u32 = 2;

/// The longest that a statement on them may run: there are few, and what they answer is soon old.
const WATCH_TIMEOUT: Duration = Duration::from_secs(5);

/// A database behind the port.
pub struct DieselStore {
    engine: Engine,
    reads: Pool,
    watch: Pool,
    /// Where heartbeats go, apart from requests where they can.
    pulse: Option<Engine>,
    news: News,
    counters: Arc<Counters>,
}

/// How much was done since the store was opened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Units of work that were run.
    pub units: u64,
    /// Commits that made them durable.
    pub commits: u64,
    /// Times that one was run again because others came first.
    pub retries: u64,
}

impl DieselStore {
    /// Opens the database.
    pub async fn open(config: &StoreConfig) -> Result<Arc<Self>, StoreError> {
        let config = config.clone();
        tokio::task::spawn_blocking(move || Self::connect(&config))
            .await
            .unwrap_or_else(|_| Err(StoreError::Unavailable("the server is stopping".to_owned())))
    }

    fn connect(config: &StoreConfig) -> Result<Arc<Self>, StoreError> {
        let counters = Arc::new(Counters::default());
        let purpose = match config.database() {
            Database::Postgres => Purpose::Write,
            Database::Sqlite(_) => Purpose::Read,
        };
        let reads = Pool::new(config, purpose, config.pool_size)?;
        let engine = Engine::open(config, &reads, &counters)?;
        let watch = Pool::new(&hurried(config), purpose, WATCH_CONNECTIONS)?;
        let pulse = match purpose {
            Purpose::Write => Some(Engine::open(config, &watch, &counters)?),
            // SQLite has one writer, for everything.
            Purpose::Read => None,
        };
        let news = News::start(config)?;
        Ok(Arc::new(Self {
            engine,
            reads,
            watch,
            pulse,
            news,
            counters,
        }))
    }

    /// How much was done since the store was opened.
    pub fn statistics(&self) -> Statistics {
        Statistics {
            units: self.counters.units.load(Ordering::Relaxed),
            commits: self.counters.commits.load(Ordering::Relaxed),
            retries: self.counters.retries.load(Ordering::Relaxed),
        }
    }
}

fn hurried(config: &StoreConfig) -> StoreConfig {
    let mut config = config.clone();
    for limit in [&mut config.statement_timeout, &mut config.lock_timeout] {
        *limit = WATCH_TIMEOUT.min(*limit);
    }
    config
}

fn session(pool: &Pool, reading: Reading) -> BoxFuture<'_, Result<(), StoreError>> {
    Box::pin(pool.run(move |lease| {
        let result = lease
            .connection()
            .and_then(|connection| reading(&mut Reader { connection }));
        if matches!(result, Err(StoreError::Unavailable(_))) {
            lease.give_up();
        }
        result
    }))
}

const COMMIT: Done = Done {
    verdict: Verdict::Commit,
    told: Told {
        cut: false,
        events: false,
        outbox: false,
    },
};

impl Store for DieselStore {
    fn write(&self, mut work: Work) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async move {
            let done = self
                .engine
                .run(Box::new(move |connection| unit::run(connection, &mut work)))
                .await?;
            self.news.tell(done.told);
            Ok(())
        })
    }

    fn read(&self, reading: Reading) -> BoxFuture<'_, Result<(), StoreError>> {
        session(&self.reads, reading)
    }

    fn watch(&self, reading: Reading) -> BoxFuture<'_, Result<(), StoreError>> {
        session(&self.watch, reading)
    }

    fn heartbeat(&self, process: &str) -> BoxFuture<'_, Result<(), StoreError>> {
        let process = process.to_owned();
        Box::pin(async move {
            self.pulse
                .as_ref()
                .unwrap_or(&self.engine)
                .run(Box::new(move |connection| {
                    leases::beat(connection, &process).map(|()| COMMIT)
                }))
                .await
                .map(drop)
        })
    }

    fn lease(&self, name: &str, process: &str, term: Span) -> BoxFuture<'_, Result<bool, StoreError>> {
        let (name, process) = (name.to_owned(), process.to_owned());
        Box::pin(async move {
            // As a heartbeat: requests that take all other connections must not cost the lease.
            let done = self
                .pulse
                .as_ref()
                .unwrap_or(&self.engine)
                .run(Box::new(move |connection| {
                    let ours = leases::take(connection, &name, &process, term)?;
                    Ok(Done {
                        verdict: if ours { Verdict::Commit } else { Verdict::Rollback },
                        told: Told::default(),
                    })
                }))
                .await?;
            Ok(done.verdict == Verdict::Commit)
        })
    }

    fn lease_shards(&self, process: &str, term: Span) -> BoxFuture<'_, Result<Vec<u8>, StoreError>> {
        let process = process.to_owned();
        Box::pin(async move {
            let ours = Arc::new(Mutex::new(Vec::new()));
            let taken = Arc::clone(&ours);
            self.pulse
                .as_ref()
                .unwrap_or(&self.engine)
                .run(Box::new(move |connection| {
                    let shards = leases::take_shards(connection, &process, term)?;
                    *taken.lock().unwrap_or_else(PoisonError::into_inner) = shards;
                    Ok(COMMIT)
                }))
                .await?;
            let shards = std::mem::take(&mut *ours.lock().unwrap_or_else(PoisonError::into_inner));
            Ok(shards)
        })
    }

    fn leave(&self, process: &str) -> BoxFuture<'_, Result<(), StoreError>> {
        let process = process.to_owned();
        Box::pin(async move {
            self.pulse
                .as_ref()
                .unwrap_or(&self.engine)
                .run(Box::new(move |connection| {
                    leases::leave(connection, &process).map(|()| COMMIT)
                }))
                .await
                .map(drop)
        })
    }

    fn await_cut(&self) -> BoxFuture<'_, bool> {
        Box::pin(self.news.cuts.wait())
    }

    fn await_outbox(&self) -> BoxFuture<'_, bool> {
        Box::pin(self.news.outbox.wait())
    }

    fn await_events(&self) -> BoxFuture<'_, bool> {
        Box::pin(self.news.events.wait())
    }

    fn ready(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(self.reads.run(|lease| {
            let answer = lease.connection().and_then(missing);
            match answer {
                Ok(names) if names.is_empty() => Ok(()),
                Ok(names) => Err(StoreError::Unavailable(format!(
                    "{} migrations are missing",
                    names.len()
                ))),
                Err(error) => {
                    lease.give_up();
                    Err(error)
                }
            }
        }))
    }
}
