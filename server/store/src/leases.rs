//! Leases and heartbeats: which processes live, and which of them does what only one may do. Belong to no tenant,
//! and go by the database's clock: those of several machines need not agree.

use diesel::sql_types::BigInt;
use diesel::{OptionalExtension, RunQueryDsl};
use handoff_domain::Span;
use handoff_domain::ports::StoreError;

use crate::dialect::AnyConnection;
use crate::error::OrRefused;
use crate::statement::Statement;

/// Processes that were silent for so long are forgotten; nothing of theirs is open any more.
const FORGOTTEN: Span = Span::hours(24);

/// Tells that a process lives.
pub(crate) fn beat(connection: &mut AnyConnection, process: &str) -> Result<(), StoreError> {
    let clock = connection.clock();
    let known = Statement::<()>::new("UPDATE processes SET seen = ")
        .sql(clock)
        .sql(" WHERE name = ")
        .bind(process)
        .run(connection)
        .or_refused()?;
    if known == 0 {
        Statement::<()>::new("INSERT INTO processes (name, seen) VALUES (")
            .bind(process)
            .sql(", ")
            .sql(clock)
            .sql(") ON CONFLICT (name) DO UPDATE SET seen = excluded.seen")
            .run(connection)
            .or_refused()?;
        Statement::<()>::new("DELETE FROM processes WHERE seen < ")
            .sql(clock)
            .sql(" - ")
            .bind(FORGOTTEN.0)
            .run(connection)
            .or_refused()?;
    }
    Ok(())
}

/// Takes or renews a lease for a while; answers whether it is the process's own now.
pub(crate) fn take(
    connection: &mut AnyConnection,
    name: &str,
    process: &str,
    term: Span,
) -> Result<bool, StoreError> {
    let clock = connection.clock();
    let taken = Statement::<()>::new("UPDATE leases SET process = ")
        .bind(process)
        .sql(", until = ")
        .sql(clock)
        .sql(" + ")
        .bind(term.0)
        .sql(" WHERE name = ")
        .bind(name)
        .sql(" AND (process = ")
        .bind(process)
        .sql(" OR until <= ")
        .sql(clock)
        .sql(")")
        .run(connection)
        .or_refused()?;
    if taken == 1 {
        return Ok(true);
    }
    let held: Option<i64> = Statement::<BigInt>::new("SELECT until FROM leases WHERE name = ")
        .bind(name)
        .get_result(connection)
        .optional()
        .or_refused()?;
    if held.is_some() {
        return Ok(false);
    }
    Statement::<()>::new("INSERT INTO leases (name, process, until) VALUES (")
        .bind(name)
        .sql(", ")
        .bind(process)
        .sql(", ")
        .sql(clock)
        .sql(" + ")
        .bind(term.0)
        .sql(")")
        .run(connection)
        .or_refused()?;
    Ok(true)
}
