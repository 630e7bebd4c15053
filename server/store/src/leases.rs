//! Leases and heartbeats: which processes live, and which of them does what only one may do. Belong to no tenant,
//! and go by the database's clock: those of several machines need not agree.

use diesel::sql_types::{BigInt, Bool, Text};
use diesel::{OptionalExtension, RunQueryDsl};
use handoff_domain::Span;
use handoff_domain::ports::StoreError;
use handoff_domain::subscription::SHARDS;

use crate::dialect::{AnyConnection, Hold};
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

/// A process that was silent for so long takes no part in sharing.
const SHARES_NO_MORE: Span = Span::seconds(6);
/// What the leases on shards are called, before their number.
const SHARD: &str = "deliver-";

fn shard_name(shard: u8) -> String {
    format!("{SHARD}{shard:02}")
}

/// Takes, renews or gives back leases on shards, so that each process that lives holds its share; answers those that are
/// the process's own now.
pub(crate) fn take_shards(
    connection: &mut AnyConnection,
    process: &str,
    term: Span,
) -> Result<Vec<u8>, StoreError> {
    let clock = connection.clock();
    let alive: i64 = Statement::<BigInt>::new("SELECT count(*) FROM processes WHERE seen > ")
        .sql(clock)
        .sql(" - ")
        .bind(SHARES_NO_MORE.0)
        .get_result(connection)
        .or_refused()?;
    let share = i64::from(SHARDS)
        .saturating_add(alive.max(1).saturating_sub(1))
        .checked_div(alive.max(1))
        .unwrap_or(1);
    let share = usize::try_from(share).unwrap_or(1);
    let rows: Vec<(String, String, bool)> =
        Statement::<(Text, Text, Bool)>::new("SELECT name, process, until <= ")
            .sql(clock)
            .sql(" FROM leases WHERE name LIKE ")
            .bind(format!("{SHARD}%"))
            .sql(" ORDER BY name")
            .sql(connection.holding(Hold::Exclusive))
            .load(connection)
            .or_refused()?;
    let (mut ours, mut free, mut missing) = (Vec::new(), Vec::new(), Vec::new());
    for shard in 0..SHARDS {
        let name = shard_name(shard);
        match rows.iter().find(|(known, ..)| *known == name) {
            Some((_, holder, _)) if holder == process => ours.push(shard),
            Some((_, _, true)) => free.push(shard),
            Some(_) => {}
            None => missing.push(shard),
        }
    }
    let returned = ours.split_off(ours.len().min(share));
    for shard in missing {
        Statement::<()>::new("INSERT INTO leases (name, process, until) VALUES (")
            .bind(shard_name(shard))
            .sql(", '', 0)")
            .run(connection)
            .or_refused()?;
        free.push(shard);
    }
    ours.extend(free.into_iter().take(share.saturating_sub(ours.len())));
    if !returned.is_empty() {
        Statement::<()>::new("UPDATE leases SET process = '', until = 0 WHERE name")
            .one_of(returned.into_iter().map(shard_name))
            .uncached()
            .run(connection)
            .or_refused()?;
    }
    if !ours.is_empty() {
        Statement::<()>::new("UPDATE leases SET process = ")
            .bind(process)
            .sql(", until = ")
            .sql(clock)
            .sql(" + ")
            .bind(term.0)
            .sql(" WHERE name")
            .one_of(ours.iter().map(|shard| shard_name(*shard)))
            .uncached()
            .run(connection)
            .or_refused()?;
    }
    ours.sort_unstable();
    Ok(ours)
}

/// Gives everything back that a process holds, and counts it no more among those that share. For its streams it goes on to
/// live until it has been silent for long.
pub(crate) fn leave(connection: &mut AnyConnection, process: &str) -> Result<(), StoreError> {
    Statement::<()>::new("UPDATE leases SET process = '', until = 0 WHERE process = ")
        .bind(process)
        .run(connection)
        .or_refused()?;
    let clock = connection.clock();
    Statement::<()>::new("UPDATE processes SET seen = seen - ")
        .bind(SHARES_NO_MORE.0)
        .sql(" WHERE name = ")
        .bind(process)
        .sql(" AND seen > ")
        .sql(clock)
        .sql(" - ")
        .bind(SHARES_NO_MORE.0)
        .run(connection)
        .map(drop)
        .or_refused()
}
