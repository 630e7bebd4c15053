//! The news that there are cuts: from this process as soon as they are committed, from others by PostgreSQL's
//! LISTEN. It may be lost; who waits looks for himself after a short time in any case.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use diesel::PgConnection;
use diesel::connection::SimpleConnection;
use handoff_domain::ports::StoreError;
use tokio::sync::watch;

use crate::config::{Database, StoreConfig};
use crate::dialect::{CUT_CHANNEL, open_postgres};
use crate::error::OrRefused;

/// How long anybody waits at most.
const PATIENCE: Duration = Duration::from_millis(100);

/// How often the listener looks whether something has arrived. The client library can't be waited on without
/// unsafe code; looking costs one system call.
const LOOK: Duration = Duration::from_millis(10);

/// How long the listener waits before it connects again.
const RECONNECT: Duration = Duration::from_millis(500);

/// Wakes who waits for cuts.
pub(crate) struct CutNews {
    told: watch::Sender<u64>,
    /// The last news that somebody was woken for.
    heard: AtomicU64,
    /// Dropped with this, which ends the listener.
    _listener: Option<Sender<()>>,
}

impl CutNews {
    /// Starts listening, where there may be other processes to listen to.
    pub(crate) fn start(config: &StoreConfig) -> Result<Self, StoreError> {
        let (told, _) = watch::channel(0);
        let listener = match config.database() {
            Database::Postgres if config.listen => {
                let first = listen(config)?;
                let (stop, stopped) = channel();
                let (config, told) = (config.clone(), told.clone());
                std::thread::Builder::new()
                    .name("cut-listener".to_owned())
                    .spawn(move || follow(&config, first, &told, &stopped))
                    .map_err(|_| StoreError::Unavailable("no thread for the listener".to_owned()))?;
                Some(stop)
            }
            Database::Postgres | Database::Sqlite(_) => None,
        };
        Ok(Self {
            told,
            heard: AtomicU64::new(0),
            _listener: listener,
        })
    }

    /// There are cuts.
    pub(crate) fn tell(&self) {
        tell(&self.told);
    }

    /// Waits for news, also such as came since somebody was last woken, or for a short time. Answers whether there was
    /// any.
    pub(crate) async fn wait(&self) -> bool {
        let mut news = self.told.subscribe();
        let now = *news.borrow_and_update();
        if self.heard.swap(now, Ordering::AcqRel) != now {
            return true;
        }
        let told = matches!(tokio::time::timeout(PATIENCE, news.changed()).await, Ok(Ok(())));
        if told {
            let now = *news.borrow();
            self.heard.fetch_max(now, Ordering::AcqRel);
        }
        told
    }
}

fn tell(told: &watch::Sender<u64>) {
    told.send_modify(|count| *count = count.wrapping_add(1));
}

fn listen(config: &StoreConfig) -> Result<PgConnection, StoreError> {
    let mut connection = open_postgres(config)?;
    connection
        .batch_execute(&format!("LISTEN {CUT_CHANNEL}"))
        .or_refused()?;
    Ok(connection)
}

fn follow(config: &StoreConfig, first: PgConnection, told: &watch::Sender<u64>, stopped: &Receiver<()>) {
    let mut connection = Some(first);
    loop {
        let mut pause = LOOK;
        if let Some(listening) = connection.as_mut() {
            let mut arrived = false;
            let broken = listening.notifications_iter().any(|notification| {
                arrived |= notification.is_ok();
                notification.is_err()
            });
            if arrived {
                tell(told);
            }
            if broken {
                connection = None;
                tracing::warn!("the connection that listens for cuts broke; polling until it is back");
            }
        } else {
            connection = listen(config).ok();
            if connection.is_some() {
                // What was told meanwhile was missed.
                tell(told);
            } else {
                pause = RECONNECT;
            }
        }
        if !matches!(stopped.recv_timeout(pause), Err(RecvTimeoutError::Timeout)) {
            return;
        }
    }
}
