//! Migrations: embedded, applied in order, by one server at a time. `migrations/README.md` says how to change.

use diesel::connection::SimpleConnection;
use diesel::migration::{Migration, MigrationSource};
use diesel::pg::Pg;
use diesel::prelude::*;
use diesel::sqlite::Sqlite;
use diesel_migrations::{EmbeddedMigrations, MigrationHarness, embed_migrations};
use handoff_domain::ports::StoreError;

use crate::config::StoreConfig;
use crate::dialect::{AnyConnection, Purpose};
use crate::error::OrRefused;

const POSTGRES: EmbeddedMigrations = embed_migrations!("../../migrations/postgres");
const SQLITE: EmbeddedMigrations = embed_migrations!("../../migrations/sqlite");

/// The number of the advisory lock under which migrations run: two servers may start at once.
const LOCK: &str = "7234017283807667300";

diesel::table! {
    /// Diesel's own record of what was applied.
    __diesel_schema_migrations (version) {
        version -> Text,
    }
}

/// Brings the database up to date; answers the names of the migrations that it applied.
pub fn migrate(config: &StoreConfig) -> Result<Vec<String>, StoreError> {
    let failed = || StoreError::Broken("a migration failed".to_owned());
    match AnyConnection::open(config, Purpose::Write)? {
        AnyConnection::Postgres(mut connection) => {
            // Building an index may take as long as it takes.
            connection
                .batch_execute(&format!(
                    "SET statement_timeout TO 0; SET lock_timeout TO 0; SELECT pg_advisory_lock({LOCK})"
                ))
                .or_refused()?;
            // The lock ends with the connection.
            let applied = connection.run_pending_migrations(POSTGRES).map_err(|error| {
                tracing::error!(%error, "a migration failed");
                error
            });
            Ok(applied
                .map_err(|_| failed())?
                .iter()
                .map(ToString::to_string)
                .collect())
        }
        AnyConnection::Sqlite(mut connection) => connection
            .immediate_transaction(|connection| {
                let applied = connection.run_pending_migrations(SQLITE).map_err(|error| {
                    tracing::error!(%error, "a migration failed");
                    diesel::result::Error::RollbackTransaction
                })?;
                Ok(applied.iter().map(ToString::to_string).collect())
            })
            .map_err(|error| match error {
                diesel::result::Error::RollbackTransaction => failed(),
                other => crate::error::refused(&other),
            }),
    }
}

/// The names of the migrations that the database does not have yet.
pub fn pending(config: &StoreConfig) -> Result<Vec<String>, StoreError> {
    missing(&mut AnyConnection::open(config, Purpose::Read)?)
}

/// The names of the migrations that the database behind this connection does not have yet.
pub(crate) fn missing(connection: &mut AnyConnection) -> Result<Vec<String>, StoreError> {
    let ours = match connection {
        AnyConnection::Postgres(_) => names::<Pg>(&POSTGRES),
        AnyConnection::Sqlite(_) => names::<Sqlite>(&SQLITE),
    }?;
    // Where nothing was ever applied, there is no such table.
    let applied: Vec<String> = __diesel_schema_migrations::table
        .select(__diesel_schema_migrations::version)
        .load(connection)
        .or_else(|error| match crate::error::refused(&error) {
            StoreError::Broken(_) => Ok(Vec::new()),
            other => Err(other),
        })?;
    Ok(ours
        .into_iter()
        .filter(|(version, _)| !applied.contains(version))
        .map(|(_, name)| name)
        .collect())
}

fn names<Db: diesel::backend::Backend>(
    migrations: &impl MigrationSource<Db>,
) -> Result<Vec<(String, String)>, StoreError> {
    let mut names: Vec<(String, String)> = migrations
        .migrations()
        .map_err(|_| StoreError::Broken("the embedded migrations can't be read".to_owned()))?
        .iter()
        .map(|migration| {
            (
                migration.name().version().to_string(),
                migration.name().to_string(),
            )
        })
        .collect();
    names.sort();
    Ok(names)
}
