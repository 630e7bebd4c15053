//! Leases and heartbeats: which processes live, and which of them does what only one may do. Belong to no tenant.

use diesel::prelude::*;
use handoff_domain::Timestamp;
use handoff_domain::ports::StoreError;

use crate::dialect::AnyConnection;
use crate::error::OrRefused;
use crate::schema::{leases, processes};

/// Tells that a process lives.
pub(crate) fn beat(connection: &mut AnyConnection, process: &str, now: Timestamp) -> Result<(), StoreError> {
    let known = diesel::update(processes::table.find(process))
        .set(processes::seen.eq(now.0))
        .execute(connection)
        .or_refused()?;
    if known == 0 {
        diesel::insert_into(processes::table)
            .values((processes::name.eq(process), processes::seen.eq(now.0)))
            .execute(connection)
            .or_refused()?;
    }
    Ok(())
}

/// Takes or renews a lease; answers whether it is the process's own now.
pub(crate) fn take(
    connection: &mut AnyConnection,
    name: &str,
    process: &str,
    now: Timestamp,
    until: Timestamp,
) -> Result<bool, StoreError> {
    let taken = diesel::update(leases::table.find(name))
        .filter(leases::process.eq(process).or(leases::until.le(now.0)))
        .set((leases::process.eq(process), leases::until.eq(until.0)))
        .execute(connection)
        .or_refused()?;
    if taken == 1 {
        return Ok(true);
    }
    let held: Option<String> = leases::table
        .find(name)
        .select(leases::process)
        .first(connection)
        .optional()
        .or_refused()?;
    if held.is_some() {
        return Ok(false);
    }
    diesel::insert_into(leases::table)
        .values((
            leases::name.eq(name),
            leases::process.eq(process),
            leases::until.eq(until.0),
        ))
        .execute(connection)
        .or_refused()?;
    Ok(true)
}
