//! Connections that are lent out, one user at a time, and replaced when they break. Knows no SQL but the
//! question whether a connection still lives.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use handoff_domain::ports::StoreError;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use super::panic_text;
use crate::config::StoreConfig;
use crate::dialect::{AnyConnection, Purpose};
use crate::statement::Statement;

/// A connection that was not used for so long is asked whether it still lives.
const UNHEARD: Duration = Duration::from_millis(500);

/// How long a thread without work is kept.
const KEEP_THREAD: Duration = Duration::from_mins(1);

/// How much longer than a statement may run an answer may take.
const GRACE: Duration = Duration::from_secs(1);

struct Idle {
    connection: AnyConnection,
    since: Instant,
}

struct Shared {
    config: StoreConfig,
    purpose: Purpose,
    idle: Mutex<Vec<Idle>>,
}

/// A bounded number of connections, and as many threads that wait for the database on behalf of others.
#[derive(Clone)]
pub(crate) struct Pool {
    shared: Arc<Shared>,
    places: Arc<Semaphore>,
    threads: Arc<Threads>,
}

/// Threads for jobs that block, no more than there are connections. Where each runtime brought its own, there would
/// be several for every connection.
struct Threads(Option<Runtime>);

impl Threads {
    fn start(count: usize) -> Result<Self, StoreError> {
        let runtime = Builder::new_current_thread()
            .max_blocking_threads(count)
            .thread_name("database")
            .thread_keep_alive(KEEP_THREAD)
            .build()
            .map_err(|error| StoreError::Unavailable(format!("no threads for the database: {error}")))?;
        Ok(Self(Some(runtime)))
    }

    /// Hands a job to a thread; `None` when they have stopped.
    fn spawn<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> Option<JoinHandle<T>> {
        self.0.as_ref().map(|runtime| runtime.spawn_blocking(job))
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            // The plain drop would wait, which is not allowed on a thread that runs futures.
            runtime.shutdown_background();
        }
    }
}

impl Pool {
    /// A pool that opens connections as they are needed.
    pub(crate) fn new(config: &StoreConfig, purpose: Purpose, size: u32) -> Result<Self, StoreError> {
        let places = usize::try_from(size.max(1)).unwrap_or(1);
        Ok(Self {
            threads: Arc::new(Threads::start(places)?),
            shared: Arc::new(Shared {
                config: config.clone(),
                purpose,
                idle: Mutex::default(),
            }),
            places: Arc::new(Semaphore::new(places)),
        })
    }

    /// Runs a job with a connection on a blocking thread. A job that was begun is finished, even if nobody
    /// waits for it any more.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Lease) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let place = tokio::time::timeout(
            self.shared.config.pool_wait,
            Arc::clone(&self.places).acquire_owned(),
        )
        .await
        .map_err(|_| StoreError::Unavailable("every connection is in use".to_owned()))?
        .map_err(|_| StoreError::Unavailable("the pool is closed".to_owned()))?;
        let shared = Arc::clone(&self.shared);
        let task = self.threads.spawn(move || {
            let mut lease = Lease {
                shared,
                connection: None,
            };
            let answer = catch_unwind(AssertUnwindSafe(|| job(&mut lease)));
            if answer.is_err() {
                lease.give_up();
            }
            drop(lease);
            drop(place);
            answer.unwrap_or_else(|panic| Err(StoreError::Broken(panic_text(panic.as_ref()))))
        });
        let stopping = || StoreError::Unavailable("the server is stopping".to_owned());
        let task = task.ok_or_else(stopping)?;
        // A database that ends overlong statements itself and still says nothing has fallen silent.
        let patience = self.shared.config.statement_timeout.saturating_add(GRACE);
        match tokio::time::timeout(patience, task).await {
            Ok(ended) => ended.unwrap_or_else(|_| Err(stopping())),
            Err(_) => Err(StoreError::Unavailable("no answer in time".to_owned())),
        }
    }
}

/// A place in the pool, with a connection once one is asked for. Gives it back when dropped, unless it broke.
pub(crate) struct Lease {
    shared: Arc<Shared>,
    connection: Option<AnyConnection>,
}

impl Lease {
    /// The connection: one that waits in the pool, or a new one.
    pub(crate) fn connection(&mut self) -> Result<&mut AnyConnection, StoreError> {
        let connection = match self.connection.take() {
            Some(connection) => connection,
            None => match self.waiting() {
                Some(connection) => connection,
                None => AnyConnection::open(&self.shared.config, self.shared.purpose)?,
            },
        };
        Ok(self.connection.insert(connection))
    }

    /// Throws the connection away.
    pub(crate) fn give_up(&mut self) {
        self.connection = None;
    }

    /// Throws the connection away, and all that wait: what broke one has mostly broken the others.
    pub(crate) fn discard(&mut self) {
        self.connection = None;
        self.shared
            .idle
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
    }

    fn waiting(&self) -> Option<AnyConnection> {
        loop {
            let idle = self
                .shared
                .idle
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .pop()?;
            let mut connection = idle.connection;
            if idle.since.elapsed() < UNHEARD || Statement::<()>::new("SELECT 1").run(&mut connection).is_ok()
            {
                return Some(connection);
            }
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(mut connection) = self.connection.take()
            && !connection.is_broken()
        {
            let idle = Idle {
                connection,
                since: Instant::now(),
            };
            self.shared
                .idle
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(idle);
        }
    }
}
