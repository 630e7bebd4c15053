//! What differs between the two databases in SQL: how rows are locked, written in bulk, and how a connection is
//! made. Knows nothing of what the rows mean.

mod bulk;

use std::time::Duration;

use diesel::connection::{AnsiTransactionManager, CacheSize, SimpleConnection, TransactionManager};
use diesel::{Connection, MultiConnection, PgConnection, QueryResult, SqliteConnection};
use handoff_domain::ports::StoreError;

use crate::config::{Database, StoreConfig};
use crate::error::{OrRefused, unreachable};
use crate::statement::Statement;

pub(crate) use bulk::{Bulk, Change, Column, Removal, Table};

/// A connection to either database.
#[derive(MultiConnection)]
pub(crate) enum AnyConnection {
    /// To PostgreSQL.
    Postgres(PgConnection),
    /// To SQLite.
    Sqlite(SqliteConnection),
}

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Everything (SQLite: only one of them at a time).
    Write,
    /// Reading only.
    Read,
}

/// How strongly rows are held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hold {
    /// Others may read and hold it so too, not change it.
    Shared,
    /// Nobody else may hold or change it.
    Exclusive,
}

/// The channel that tells other processes of cuts.
pub(crate) const CUT_CHANNEL: &str = "handoff_cut";

/// The channel that tells other processes of events for subscribers.
pub(crate) const EVENT_CHANNEL: &str = "handoff_events";

impl AnyConnection {
    /// Connects, and sets what every connection has set.
    pub(crate) fn open(config: &StoreConfig, purpose: Purpose) -> Result<Self, StoreError> {
        match config.database() {
            Database::Postgres => open_postgres(config).map(Self::Postgres),
            Database::Sqlite(path) => {
                keep_private(&path);
                let path = path.to_string_lossy();
                let mut connection =
                    SqliteConnection::establish(&path).map_err(|error| unreachable(&error, &config.url))?;
                connection.set_prepared_statement_cache_size(CacheSize::Unbounded);
                connection
                    .batch_execute(&sqlite_settings(config, purpose))
                    .or_refused()?;
                Ok(Self::Sqlite(connection))
            }
        }
    }

    /// Begins the transaction that everything else is nested in.
    pub(crate) fn begin_outer(&mut self) -> QueryResult<()> {
        match self {
            Self::Postgres(connection) => AnsiTransactionManager::begin_transaction(connection),
            // At once as a writer: one that reads first and then finds that others wrote could not go on.
            Self::Sqlite(connection) => {
                AnsiTransactionManager::begin_transaction_sql(connection, "BEGIN IMMEDIATE")
            }
        }
    }

    /// Whether nothing more can be done with it.
    pub(crate) fn is_broken(&mut self) -> bool {
        match self {
            Self::Postgres(connection) => {
                AnsiTransactionManager::is_broken_transaction_manager(connection)
                    || <AnsiTransactionManager as TransactionManager<PgConnection>>::transaction_manager_status_mut(connection)
                        .transaction_depth()
                        .map_or(true, |depth| depth.is_some())
            }
            Self::Sqlite(connection) => {
                AnsiTransactionManager::is_broken_transaction_manager(connection)
                    || <AnsiTransactionManager as TransactionManager<SqliteConnection>>::transaction_manager_status_mut(connection)
                        .transaction_depth()
                        .map_or(true, |depth| depth.is_some())
            }
        }
    }

    /// The words at the end of a SELECT that hold its rows until the transaction ends. SQLite has one writer,
    /// which holds everything.
    pub(crate) const fn holding(&self, hold: Hold) -> &'static str {
        match (self, hold) {
            (Self::Postgres(_), Hold::Shared) => " FOR SHARE",
            (Self::Postgres(_), Hold::Exclusive) => " FOR NO KEY UPDATE",
            (Self::Sqlite(_), _) => "",
        }
    }

    /// The instant at which a statement runs, in microseconds since 1970, by the clock that all processes share.
    pub(crate) const fn clock(&self) -> &'static str {
        match self {
            Self::Postgres(_) => "(extract(epoch FROM clock_timestamp()) * 1000000)::bigint",
            Self::Sqlite(_) => "CAST(unixepoch('now', 'subsec') * 1000000 AS INTEGER)",
        }
    }

    /// Tells other processes, when this transaction commits, that there is news. With SQLite there are none.
    pub(crate) fn notify(&mut self, channel: &'static str) -> QueryResult<()> {
        if matches!(self, Self::Postgres(_)) {
            Statement::<()>::new("SELECT pg_notify(")
                .bind(channel)
                .sql(", '')")
                .run(self)?;
        }
        Ok(())
    }
}

/// How long a host may be silent before its connection counts as broken; libpq would wait for many minutes.
/// What the URL itself says comes first.
const PATIENCE: [(&str, &str); 5] = [
    ("connect_timeout", "5"),
    ("keepalives_idle", "10"),
    ("keepalives_interval", "5"),
    ("keepalives_count", "3"),
    ("tcp_user_timeout", "15000"),
];

fn with_patience(url: &str) -> String {
    let mut url = url.to_owned();
    for (name, value) in PATIENCE {
        if !url.contains(&format!("{name}=")) {
            let mark = if url.contains('?') { '&' } else { '?' };
            url.push(mark);
            url.extend([name, "=", value]);
        }
    }
    url
}

/// Creates the file of a new database for its owner alone; SQLite gives its companions the same permissions. A file
/// that can't be created is told by the connection itself, with more to say.
fn keep_private(path: &std::path::Path) {
    use std::os::unix::fs::OpenOptionsExt;
    let created = std::fs::OpenOptions::new()
        .create_new(true)
        .write(true)
        .mode(0o600)
        .open(path);
    drop(created);
}

/// Connects to PostgreSQL.
pub(crate) fn open_postgres(config: &StoreConfig) -> Result<PgConnection, StoreError> {
    let mut connection = PgConnection::establish(&with_patience(&config.url))
        .map_err(|error| unreachable(&error, &config.url))?;
    connection.set_prepared_statement_cache_size(CacheSize::Unbounded);
    // Errors are told apart by their text in places, so it should be English. Only some roles may ask for that.
    if connection.batch_execute("SET lc_messages TO 'C'").is_err() {
        tracing::debug!(
            "the database role may not set `lc_messages`; errors are told in the server's language"
        );
    }
    connection
        .batch_execute(&format!(
            "SET statement_timeout TO {}; SET lock_timeout TO {}; \
             SET idle_in_transaction_session_timeout TO 60000; \
             SET jit TO off; SET client_min_messages TO warning; SET TIME ZONE 'UTC'",
            milliseconds(config.statement_timeout),
            milliseconds(config.lock_timeout),
        ))
        .or_refused()?;
    Ok(connection)
}

fn milliseconds(duration: Duration) -> u128 {
    duration.as_millis().max(1)
}

fn sqlite_settings(config: &StoreConfig, purpose: Purpose) -> String {
    // Durable at every commit: grants and the ledger need it. The writer groups commits to make up for it.
    let mut settings = "PRAGMA busy_timeout = 10000; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; \
                        PRAGMA foreign_keys = ON; PRAGMA trusted_schema = OFF; PRAGMA temp_store = MEMORY;"
        .to_owned();
    settings.push_str(match purpose {
        Purpose::Read => " PRAGMA cache_size = -8192;",
        // Every unit touches pages all over the indexes, by people, codes, documents: those are kept at hand, and moved from the
        // log into the database less often than every few units, each time by two more waits for the disk.
        Purpose::Write => " PRAGMA cache_size = -65536; PRAGMA wal_autocheckpoint = 8192;",
    });
    if let Some(pages) = config.sqlite_max_pages {
        settings.push_str(" PRAGMA max_page_count = ");
        settings.push_str(&pages.to_string());
        settings.push(';');
    }
    if purpose == Purpose::Read {
        settings.push_str(" PRAGMA query_only = ON;");
    }
    settings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_says_itself_how_patient_to_be_or_gets_our_patience() {
        let url = with_patience("postgres://h/db");
        assert!(
            url.starts_with("postgres://h/db?connect_timeout=5&keepalives_idle=10&"),
            "{url}"
        );
        let url = with_patience("postgres://h/db?connect_timeout=60");
        assert!(
            url.starts_with("postgres://h/db?connect_timeout=60&keepalives_idle=10&"),
            "{url}"
        );
    }
}
