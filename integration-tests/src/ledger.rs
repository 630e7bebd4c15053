//! What tests of the ledger need: keys, SQL behind the server's back, copies of a database, and the command line on them.

use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use diesel::connection::SimpleConnection;
use diesel::sql_types::BigInt;
use diesel::{Connection, PgConnection, QueryableByName, RunQueryDsl, SqliteConnection};
use handoff::app::ledger::seal::SealKey;
use handoff_domain::ids::TenantId;
use handoff_ledger::VerifierKey;

use crate::process::{CONFIG, Ended, run_with};
use crate::{Backend, TestApp, eventually, psql};

/// The name of the tests' logs.
pub const ORIGIN: &str = "tests.handoff.example/audit";

/// A key of 32 equal bytes, in PEM.
pub fn pem(seed: u8) -> String {
    let before = [
        0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20,
    ];
    let der = [before.as_slice(), [seed; 32].as_slice()].concat();
    format!(
        "-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n",
        STANDARD.encode(der)
    )
}

/// What seals with that key.
pub fn seal(seed: u8, previous: Vec<VerifierKey>) -> SealKey {
    SealKey::new(pem(seed).into(), ORIGIN.to_owned(), previous).expect("a key")
}

/// What verifies that key in the default tenant's log.
pub fn verifier(seed: u8) -> VerifierKey {
    let keys = seal(seed, Vec::new()).verifiers(&TenantId::default_tenant());
    keys.expect("a key").remove(0)
}

/// A database that nobody serves any more, or that somebody serves besides.
#[derive(Debug)]
pub struct Database {
    backend: Backend,
    url: String,
    folder: PathBuf,
    /// Whether it is a copy, which goes when it is dropped.
    copied: Option<String>,
}

#[derive(QueryableByName)]
struct Count {
    #[diesel(sql_type = BigInt)]
    count: i64,
}

impl Database {
    /// That of a server.
    pub fn of(app: &TestApp) -> Self {
        Self {
            backend: app.backend,
            url: app.options.store.url.clone(),
            folder: app.folder(),
            copied: None,
        }
    }

    /// A copy under a name of its own; nobody may serve it meanwhile.
    #[must_use]
    pub fn copy(&self, name: &str) -> Self {
        let (url, copied) = match self.backend {
            Backend::Embedded => {
                let url = self.folder.join(format!("{name}.db")).display().to_string();
                self.sql(&format!("VACUUM INTO '{url}'"));
                (url, None)
            }
            Backend::Production => {
                let (base, template) = self.url.rsplit_once('/').expect("a database in the URL");
                let copy = format!("{template}_{name}");
                // A stopped server's connections close a moment later.
                psql(&format!(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{template}'"
                ));
                psql(&format!("CREATE DATABASE \"{copy}\" TEMPLATE \"{template}\""));
                (format!("{base}/{copy}"), Some(copy))
            }
        };
        Self {
            backend: self.backend,
            url,
            folder: self.folder.clone(),
            copied,
        }
    }

    /// Does something to it with SQL.
    pub fn sql(&self, statements: &str) {
        match self.backend {
            Backend::Embedded => self.sqlite().batch_execute(statements),
            Backend::Production => self.postgres().batch_execute(statements),
        }
        .unwrap_or_else(|error| panic!("{statements}: {error}"));
    }

    /// What a query counts, as `count`.
    pub fn count(&self, query: &str) -> i64 {
        let rows: Vec<Count> = match self.backend {
            Backend::Embedded => diesel::sql_query(query).load(&mut self.sqlite()),
            Backend::Production => diesel::sql_query(query).load(&mut self.postgres()),
        }
        .unwrap_or_else(|error| panic!("{query}: {error}"));
        rows.first().map_or(0, |row| row.count)
    }

    fn sqlite(&self) -> SqliteConnection {
        let mut connection = SqliteConnection::establish(&self.url).expect("the database");
        connection
            .batch_execute("PRAGMA busy_timeout = 10000")
            .expect("a setting");
        connection
    }

    fn postgres(&self) -> PgConnection {
        PgConnection::establish(&self.url).expect("the database")
    }

    /// Waits until every row of the default tenant is sealed; answers how many there are.
    pub async fn sealed(&self) -> i64 {
        let unsealed = "SELECT count(*) AS count FROM audit_log a WHERE a.tenant = 'default' AND NOT EXISTS \
                        (SELECT 1 FROM ledger_leaves l WHERE l.tenant = a.tenant AND l.sequence = a.sequence)";
        eventually("everything is sealed", async || self.count(unsealed) == 0).await;
        self.count("SELECT count(*) AS count FROM ledger_leaves WHERE tenant = 'default'")
    }

    /// Runs `handoff audit` on it, with the key of a seed.
    pub async fn audit(&self, seed: u8, arguments: &[&str]) -> Ended {
        let file = self.folder.join("audit.toml");
        std::fs::write(&file, CONFIG).expect("a file");
        let prefix = match self.backend {
            Backend::Embedded => "sqlite:",
            Backend::Production => "",
        };
        let (url, key) = (format!("{prefix}{}", self.url), pem(seed));
        let variables = [
            ("HANDOFF__DATABASE__URL", url.as_str()),
            ("HANDOFF__AUDIT__KEY", key.as_str()),
            ("HANDOFF__AUDIT__ORIGIN", ORIGIN),
        ];
        let config = ["--config", file.to_str().expect("a path")];
        run_with(&[&["audit"], arguments, &config].concat(), &variables).await
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        if let Some(name) = &self.copied {
            psql(&format!("DROP DATABASE IF EXISTS \"{name}\" WITH (FORCE)"));
        }
    }
}

/// Writes something into a new file of a folder; answers its path.
pub fn file(folder: &Path, name: &str, text: &str) -> String {
    let path = folder.join(name);
    std::fs::write(&path, text).expect("a file");
    path.to_str().expect("a path").to_owned()
}
