//! What this process and others have just committed, for those who wait for it: cuts, and events for subscribers. From
//! this process it comes at once, from others by PostgreSQL's LISTEN. It may be lost; who waits looks for himself after
//! a short time in any case.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use diesel::PgConnection;
use diesel::connection::SimpleConnection;
use handoff_domain::ports::StoreError;
use tokio::sync::watch;

use crate::config::{Database, StoreConfig};
use crate::dialect::{CUT_CHANNEL, EVENT_CHANNEL, open_postgres};
use crate::engine::Told;
use crate::error::OrRefused;

/// How long anybody waits at most.
const PATIENCE: Duration = Duration::from_millis(100);

/// How often the listener looks whether something has arrived. The client library can't be waited on without
/// unsafe code; looking costs one system call.
const LOOK: Duration = Duration::from_millis(10);

/// How long the listener waits before it connects again.
const RECONNECT: Duration = Duration::from_millis(500);

/// One kind of news, and who waits for it.
#[derive(Clone)]
struct Kind(watch::Sender<u64>);

impl Kind {
    fn tell(&self) {
        self.0.send_modify(|count| *count = count.wrapping_add(1));
    }
}

/// Wakes one waiter for one kind of news.
pub(crate) struct Waiter {
    told: Kind,
    /// The last news that somebody was woken for.
    heard: AtomicU64,
}

impl Waiter {
    fn new() -> Self {
        Self {
            told: Kind(watch::channel(0).0),
            heard: AtomicU64::new(0),
        }
    }

    /// Waits for news, also such as came since somebody was last woken, or for a short time. Answers whether there was
    /// any.
    pub(crate) async fn wait(&self) -> bool {
        let mut news = self.told.0.subscribe();
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

/// All kinds of news.
pub(crate) struct News {
    /// Streams are to be cut, or what is blocked has changed.
    pub(crate) cuts: Waiter,
    /// Subscriptions were given events.
    pub(crate) events: Waiter,
    /// This process wrote to the outbox.
    pub(crate) outbox: Waiter,
    /// Dropped with this, which ends the listener.
    _listener: Option<Sender<()>>,
}

impl News {
    /// Starts listening, where there may be other processes to listen to.
    pub(crate) fn start(config: &StoreConfig) -> Result<Self, StoreError> {
        let (cuts, events) = (Waiter::new(), Waiter::new());
        let listener = match config.database() {
            Database::Postgres if config.listen => {
                let first = listen(config)?;
                let (stop, stopped) = channel();
                let heard = Heard {
                    cuts: cuts.told.clone(),
                    events: events.told.clone(),
                };
                let config = config.clone();
                std::thread::Builder::new()
                    .name("news-listener".to_owned())
                    .spawn(move || follow(&config, first, &heard, &stopped))
                    .map_err(|_| StoreError::Unavailable("no thread for the listener".to_owned()))?;
                Some(stop)
            }
            Database::Postgres | Database::Sqlite(_) => None,
        };
        Ok(Self {
            cuts,
            events,
            outbox: Waiter::new(),
            _listener: listener,
        })
    }

    /// This process has committed something.
    pub(crate) fn tell(&self, told: Told) {
        for (is_told, waiter) in [
            (told.cut, &self.cuts),
            (told.events, &self.events),
            (told.outbox, &self.outbox),
        ] {
            if is_told {
                waiter.told.tell();
            }
        }
    }
}

/// Whom the listener wakes.
struct Heard {
    cuts: Kind,
    events: Kind,
}

impl Heard {
    fn tell(&self, channel: &str) {
        match channel {
            CUT_CHANNEL => self.cuts.tell(),
            EVENT_CHANNEL => self.events.tell(),
            _ => {}
        }
    }
}

fn listen(config: &StoreConfig) -> Result<PgConnection, StoreError> {
    let mut connection = open_postgres(config)?;
    connection
        .batch_execute(&format!("LISTEN {CUT_CHANNEL}; LISTEN {EVENT_CHANNEL}"))
        .or_refused()?;
    Ok(connection)
}

fn follow(config: &StoreConfig, first: PgConnection, heard: &Heard, stopped: &Receiver<()>) {
    let mut connection = Some(first);
    loop {
        let mut pause = LOOK;
        if let Some(listening) = connection.as_mut() {
            let mut broken = false;
            for notification in listening.notifications_iter() {
                let Ok(news) = notification else {
                    broken = true;
                    break;
                };
                heard.tell(&news.channel);
            }
            if broken {
                connection = None;
                tracing::warn!("the connection that listens for news broke; polling until it is back");
            }
        } else {
            connection = listen(config).ok();
            if connection.is_some() {
                // What was told meanwhile was missed.
                heard.cuts.tell();
                heard.events.tell();
            } else {
                pause = RECONNECT;
            }
        }
        if !matches!(stopped.recv_timeout(pause), Err(RecvTimeoutError::Timeout)) {
            return;
        }
    }
}
