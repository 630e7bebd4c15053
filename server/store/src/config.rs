//! Where the database is, and how hard it may be used. Knows no table.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

/// Where the database is, and how hard it may be used.
#[derive(Clone)]
pub struct StoreConfig {
    /// `postgres://…`, `sqlite://path`, or the path of an SQLite file. May hold a password.
    pub url: String,
    /// Connections to PostgreSQL; with SQLite, connections that read.
    pub pool_size: u32,
    /// How long a unit of work waits for a connection before the database counts as unavailable.
    pub pool_wait: Duration,
    /// The longest that one statement may run.
    pub statement_timeout: Duration,
    /// The longest that one statement may wait for another transaction's locks.
    pub lock_timeout: Duration,
    /// Whether to listen for the cuts of other processes (PostgreSQL's LISTEN) on a connection kept for that. Without,
    /// they are found by asking, a little later.
    pub listen: bool,
    /// The largest that an SQLite file may grow, in pages of 4096 bytes; `None`: as large as the disk.
    pub sqlite_max_pages: Option<u32>,
}

impl StoreConfig {
    /// The usual settings for the database at `url`.
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            pool_size: 16,
            pool_wait: Duration::from_secs(3),
            statement_timeout: Duration::from_secs(30),
            lock_timeout: Duration::from_secs(10),
            listen: true,
            sqlite_max_pages: None,
        }
    }

    /// Which database the URL names.
    pub fn database(&self) -> Database {
        if self.url.starts_with("postgres://") || self.url.starts_with("postgresql://") {
            return Database::Postgres;
        }
        let path = self
            .url
            .strip_prefix("sqlite://")
            .or_else(|| self.url.strip_prefix("sqlite:"));
        Database::Sqlite(PathBuf::from(path.unwrap_or(&self.url)))
    }
}

#[expect(clippy::missing_fields_in_debug, reason = "the URL may hold a password")]
impl fmt::Debug for StoreConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoreConfig")
            .field("database", &self.database())
            .field("pool_size", &self.pool_size)
            .field("pool_wait", &self.pool_wait)
            .field("statement_timeout", &self.statement_timeout)
            .field("lock_timeout", &self.lock_timeout)
            .field("listen", &self.listen)
            .field("sqlite_max_pages", &self.sqlite_max_pages)
            .finish()
    }
}

/// The two databases.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Database {
    /// PostgreSQL: for production, and for more than one replica.
    Postgres,
    /// SQLite in a file: embedded, one process.
    Sqlite(PathBuf),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_url_names_the_database_and_its_password_is_never_shown() {
        let config = StoreConfig::new("postgres://handoff:s3cret@db/handoff");
        assert_eq!(config.database(), Database::Postgres);
        assert!(!format!("{config:?}").contains("s3cret"));
        for url in [
            "sqlite:///var/handoff.db",
            "sqlite:/var/handoff.db",
            "/var/handoff.db",
        ] {
            assert_eq!(
                StoreConfig::new(url).database(),
                Database::Sqlite("/var/handoff.db".into())
            );
        }
    }
}
