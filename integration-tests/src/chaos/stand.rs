//! What the servers stand on: a database and a content store of their own for each run, gone afterwards unless
//! something was found. Reads them behind the servers' backs.

use std::path::{Path, PathBuf};

use diesel::connection::SimpleConnection;
use diesel::sql_types::Text;
use diesel::{Connection, PgConnection, QueryableByName, RunQueryDsl, SqliteConnection};
use serde_json::Value;
use tempfile::TempDir;

use super::record::now;
use crate::{Backend, azurite, needed, psql};

/// The stores of one run.
pub struct Stand {
    backend: Backend,
    /// The database and the container of the production stores.
    name: String,
    folder: Option<TempDir>,
    path: PathBuf,
}

/// One cell of a row that is read.
#[derive(Debug, Clone, Copy)]
pub enum Cell {
    /// A column.
    Plain(&'static str),
    /// A column of bytes, in hexadecimal digits.
    Hex(&'static str),
    /// A column of bytes, as text.
    Text(&'static str),
    /// What an audit entry says in `about`.
    About(&'static str),
    /// What an audit entry says in `detail`.
    Detail(&'static str),
}

impl Cell {
    fn of(self, backend: Backend) -> String {
        match (self, backend) {
            (Self::Plain(name), _) => name.to_owned(),
            (Self::Hex(name), Backend::Embedded) => format!("lower(hex({name}))"),
            (Self::Hex(name), Backend::Production) => format!("encode({name}, 'hex')"),
            (Self::Text(name), Backend::Embedded) => format!("CAST({name} AS TEXT)"),
            (Self::Text(name), Backend::Production) => format!("convert_from({name}, 'UTF8')"),
            (Self::Detail(name), Backend::Embedded) => format!("json_extract(entry, '$.detail.\"{name}\"')"),
            (Self::Detail(name), Backend::Production) => format!("(entry::json #>> '{{detail,{name}}}')"),
            (Self::About(name), Backend::Embedded) => format!("json_extract(entry, '$.about.{name}')"),
            (Self::About(name), Backend::Production) => format!("(entry::json #>> '{{about,{name}}}')"),
        }
    }
}

#[derive(QueryableByName)]
struct Line {
    #[diesel(sql_type = Text)]
    line: String,
}

impl Stand {
    /// Fresh stores.
    pub fn prepare(backend: Backend) -> Self {
        let folder = tempfile::Builder::new()
            .prefix("handoff-chaos.")
            .tempdir()
            .expect("a temporary folder");
        let name = format!("chaos-{:x}-{:x}", now(), std::process::id());
        if backend == Backend::Production {
            psql(&format!("CREATE DATABASE \"{name}\""));
        }
        Self {
            backend,
            name,
            path: folder.path().to_path_buf(),
            folder: Some(folder),
        }
    }

    /// Which stores these are.
    pub const fn backend(&self) -> Backend {
        self.backend
    }

    /// The name of database and container, where they have one.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where everything is kept that is a file.
    pub fn folder(&self) -> &Path {
        &self.path
    }

    /// The database.
    pub fn database_url(&self) -> String {
        match self.backend {
            Backend::Embedded => format!("sqlite://{}", self.path.join("handoff.db").display()),
            Backend::Production => {
                let server = needed("HANDOFF_TEST_POSTGRES_URL");
                let (base, _) = server.rsplit_once('/').expect("a database in the URL");
                format!("{base}/{}", self.name)
            }
        }
    }

    /// The content store.
    pub fn blob_url(&self) -> String {
        match self.backend {
            Backend::Embedded => format!("file://{}", self.path.join("blobs").display()),
            Backend::Production => format!("{}/{}", needed("HANDOFF_TEST_AZURITE_URL"), self.name),
        }
    }

    /// `host:port` of database and content store, where they are reached over the network.
    pub fn places(&self) -> Option<(String, String)> {
        let place = |url: &str| {
            let rest = url.split_once("://").expect("a URL").1;
            let authority = rest.split('/').next().expect("an authority");
            authority.rsplit('@').next().expect("a host").to_owned()
        };
        (self.backend == Backend::Production).then(|| (place(&self.database_url()), place(&self.blob_url())))
    }

    /// Reads the database as it is at its first query.
    pub fn reader(&self) -> Reader {
        match self.backend {
            Backend::Embedded => {
                let mut connection = self.sqlite();
                connection.batch_execute("BEGIN").expect("a transaction");
                Reader::Sqlite(connection)
            }
            Backend::Production => {
                let mut connection = self.postgres();
                connection
                    .batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
                    .expect("a transaction");
                Reader::Postgres(connection)
            }
        }
    }

    /// Does something to the rows behind the servers' backs, as the tests of the checker do.
    pub fn tamper(&self, statement: &str) {
        match self.backend {
            Backend::Embedded => self.sqlite().batch_execute(statement),
            Backend::Production => self.postgres().batch_execute(statement),
        }
        .expect("a statement");
    }

    fn sqlite(&self) -> SqliteConnection {
        let path = self.path.join("handoff.db").display().to_string();
        let mut connection = SqliteConnection::establish(&path).expect("the database");
        connection
            .batch_execute("PRAGMA busy_timeout = 10000")
            .expect("a setting");
        connection
    }

    fn postgres(&self) -> PgConnection {
        PgConnection::establish(&self.database_url()).expect("the database")
    }

    /// The ids of the objects in the content store.
    pub async fn objects(&self) -> Vec<String> {
        let names = match self.backend {
            Backend::Embedded => files(&self.path.join("blobs").join("default")),
            Backend::Production => azurite::objects(&self.name).await,
        };
        names
            .into_iter()
            .map(|name| name.rsplit('/').next().unwrap_or_default().to_owned())
            .collect()
    }

    /// Leaves everything where it is, to be looked at.
    pub fn keep(&mut self) {
        if let Some(folder) = self.folder.take() {
            let _path = folder.keep();
        }
    }
}

impl Drop for Stand {
    fn drop(&mut self) {
        if self.backend == Backend::Production && self.folder.is_some() {
            psql(&format!("DROP DATABASE IF EXISTS \"{}\" WITH (FORCE)", self.name));
        }
    }
}

fn files(folder: &Path) -> Vec<String> {
    std::fs::read_dir(folder)
        .into_iter()
        .flatten()
        .map(|entry| {
            entry
                .expect("an entry")
                .file_name()
                .to_string_lossy()
                .into_owned()
        })
        .collect()
}

/// One transaction that reads.
pub enum Reader {
    /// Of PostgreSQL.
    Postgres(PgConnection),
    /// Of SQLite.
    Sqlite(SqliteConnection),
}

impl Reader {
    /// The rows that a query gives, each a JSON array of these cells.
    pub fn rows(&mut self, cells: &[Cell], rest: &str) -> Vec<Value> {
        let (backend, function, cast) = match self {
            Self::Sqlite(_) => (Backend::Embedded, "json_array", ""),
            Self::Postgres(_) => (Backend::Production, "json_build_array", "::text"),
        };
        let cells: Vec<String> = cells.iter().map(|cell| cell.of(backend)).collect();
        let query = format!("SELECT {function}({}){cast} AS line {rest}", cells.join(", "));
        let lines: Vec<Line> = match self {
            Self::Sqlite(connection) => diesel::sql_query(query).load(connection),
            Self::Postgres(connection) => diesel::sql_query(query).load(connection),
        }
        .expect("a query");
        lines
            .iter()
            .map(|line| serde_json::from_str(&line.line).expect("JSON"))
            .collect()
    }
}
