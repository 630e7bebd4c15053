//! The ledger's seal: leaves, inner nodes and checkpoints, and the rows of the audit in the order of their numbers. Knows nothing
//! of hashing.

use std::time::{Duration, Instant};

use diesel::prelude::*;
use diesel::sql_types::{Array, BigInt, Nullable, Text};
use handoff_domain::audit::AuditRow;
use handoff_domain::ledger::{Entry, Leaf, Node, Placed, SignedCheckpoint};
use handoff_domain::ports::StoreError;
use handoff_domain::{TenantId, Timestamp};

use crate::dialect::{AnyConnection, Column, Table};
use crate::error::{OrRefused, unreadable};
use crate::schema::{audit_log, ledger_checkpoints, ledger_leaves, ledger_nodes};
use crate::statement::Statement;
use crate::unit::Unit;

static LEAVES: Table = Table {
    name: "ledger_leaves",
    columns: &[
        ("tenant", Column::Text),
        ("position", Column::Int),
        ("sequence", Column::Int),
        ("salt", Column::Bytes),
        ("commitment", Column::Bytes),
    ],
};

static NODES: Table = Table {
    name: "ledger_nodes",
    columns: &[
        ("tenant", Column::Text),
        ("level", Column::Int),
        ("position", Column::Int),
        ("hash", Column::Bytes),
    ],
};

static CHECKPOINTS: Table = Table {
    name: "ledger_checkpoints",
    columns: &[
        ("tenant", Column::Text),
        ("hour", Column::Int),
        ("size", Column::Int),
        ("signed_at", Column::Int),
        ("note", Column::Text),
    ],
};

/// An hour, in the units of an instant.
const HOUR: i64 = 3_600_000_000;
/// How long those who took a number are waited for, and how often they are looked for.
const PATIENCE: Duration = Duration::from_secs(2);
const LOOK_EVERY: Duration = Duration::from_millis(3);

fn hash(bytes: Vec<u8>) -> Result<[u8; 32], StoreError> {
    bytes.try_into().map_err(|_| unreadable("hash"))
}

fn count(number: i64) -> Result<u64, StoreError> {
    u64::try_from(number).map_err(|_| unreadable("position"))
}

/// A position or a bound of positions as it is stored; what is beyond any is the largest.
fn stored(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Tenants that have rows in the audit: one step of its key for each.
pub(crate) fn tenants(connection: &mut AnyConnection) -> Result<Vec<TenantId>, StoreError> {
    let (mut found, mut last) = (Vec::new(), String::new());
    loop {
        let next: Option<String> = audit_log::table
            .filter(audit_log::tenant.gt(&last))
            .order(audit_log::tenant)
            .select(audit_log::tenant)
            .first(connection)
            .optional()
            .or_refused()?;
        match next {
            Some(tenant) => {
                // One that is none of ours keeps no other from being sealed.
                found.extend(TenantId::parse(tenant.clone()));
                last = tenant;
            }
            None => return Ok(found),
        }
    }
}

/// The number up to which every row is committed or never will be.
pub(crate) fn settled_sequence(connection: &mut AnyConnection) -> Result<Option<i64>, StoreError> {
    match connection {
        // One writer at a time: whatever has a number is committed, or can't be seen and is given the number anew.
        AnyConnection::Sqlite(_) => {
            let highest: Option<i64> =
                Statement::<Nullable<BigInt>>::new("SELECT max(sequence) FROM audit_log")
                    .get_result(connection)
                    .or_refused()?;
            Ok(Some(highest.unwrap_or(0)))
        }
        AnyConnection::Postgres(connection) => settled_on_postgres(connection),
    }
}

/// A transaction locks the table before it takes a number and until it ends. So once all have ended that hold such a lock after
/// the highest number was read, nobody is left who may still commit one up to it.
#[expect(
    clippy::disallowed_methods,
    reason = "waits for a condition with a deadline, on a thread for what blocks"
)]
fn settled_on_postgres(connection: &mut PgConnection) -> Result<Option<i64>, StoreError> {
    const HOLDERS: &str = "SELECT l.virtualtransaction FROM pg_locks l WHERE l.locktype = 'relation' \
        AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database()) \
        AND l.relation = 'audit_log'::regclass AND l.mode = 'RowExclusiveLock' AND l.granted";
    let highest: i64 = diesel::dsl::sql::<BigInt>(
        "SELECT CASE WHEN is_called THEN last_value ELSE last_value - 1 END FROM audit_log_sequence_seq",
    )
    .get_result(connection)
    .or_refused()?;
    let mut open: Vec<String> = diesel::dsl::sql::<Text>(HOLDERS).load(connection).or_refused()?;
    let begun = Instant::now();
    while !open.is_empty() {
        if begun.elapsed() >= PATIENCE {
            return Ok(None);
        }
        std::thread::sleep(LOOK_EVERY);
        open = diesel::dsl::sql::<Text>(HOLDERS)
            .sql(" AND l.virtualtransaction = ANY(")
            .bind::<Array<Text>, _>(open)
            .sql(")")
            .load(connection)
            .or_refused()?;
    }
    Ok(Some(highest))
}

/// Rows with numbers in `(after, until]`. Prepared anew each time: a plan that is kept was made for another end of the table.
pub(crate) fn entries(
    connection: &mut AnyConnection,
    tenant: &TenantId,
    after: i64,
    until: i64,
    limit: u32,
) -> Result<Vec<Entry>, StoreError> {
    let rows: Vec<(i64, String)> =
        Statement::<(BigInt, Text)>::new("SELECT sequence, entry FROM audit_log WHERE tenant = ")
            .bind(tenant.as_str())
            .sql(" AND sequence > ")
            .bind(after)
            .sql(" AND sequence <= ")
            .bind(until)
            .sql(" ORDER BY sequence LIMIT ")
            .bind(i64::from(limit))
            .uncached()
            .load(connection)
            .or_refused()?;
    let entry = |(sequence, text)| Entry { sequence, text };
    Ok(rows.into_iter().map(entry).collect())
}

#[derive(Queryable, Selectable)]
#[diesel(table_name = audit_log)]
struct Row {
    sequence: i64,
    recorded: i64,
    event: String,
    outcome: String,
    correlation: String,
    actor: Option<String>,
    patient: Option<String>,
    task: Option<String>,
    document: Option<String>,
    binary: Option<String>,
    grant_id: Option<String>,
    redemption: Option<String>,
    entry: String,
}

impl Row {
    fn placed(self) -> Placed {
        let says: Result<AuditRow, _> = serde_json::from_str(&self.entry);
        let agrees = says.is_ok_and(|row| {
            self.recorded == row.recorded.0
                && self.event == row.event.as_str()
                && self.outcome == row.outcome.as_str()
                && self.correlation == row.correlation.as_str()
                && self.actor == row.agent.actor
                && self.patient == row.about.patient
                && self.task == row.about.task
                && self.document == row.about.document
                && self.binary == row.about.binary
                && self.grant_id == row.about.grant
                && self.redemption == row.about.redemption
        });
        Placed {
            entry: Entry {
                sequence: self.sequence,
                text: self.entry,
            },
            agrees,
        }
    }
}

/// Rows with numbers in `(after, until]`, held against their columns.
pub(crate) fn placed_entries(
    connection: &mut AnyConnection,
    tenant: &TenantId,
    after: i64,
    until: i64,
    limit: u32,
) -> Result<Vec<Placed>, StoreError> {
    let rows: Vec<Row> = audit_log::table
        .filter(audit_log::tenant.eq(tenant.as_str()))
        .filter(audit_log::sequence.gt(after))
        .filter(audit_log::sequence.le(until))
        .order(audit_log::sequence)
        .limit(i64::from(limit))
        .select(Row::as_select())
        .load(connection)
        .or_refused()?;
    Ok(rows.into_iter().map(Row::placed).collect())
}

type LeafRow = (i64, i64, Option<Vec<u8>>, Vec<u8>);

fn leaf((position, sequence, salt, commitment): LeafRow) -> Result<Leaf, StoreError> {
    Ok(Leaf {
        position: count(position)?,
        sequence,
        salt: salt.map(hash).transpose()?,
        commitment: hash(commitment)?,
    })
}

const LEAF: (
    ledger_leaves::position,
    ledger_leaves::sequence,
    ledger_leaves::salt,
    ledger_leaves::commitment,
) = (
    ledger_leaves::position,
    ledger_leaves::sequence,
    ledger_leaves::salt,
    ledger_leaves::commitment,
);

/// The leaf with the highest position.
pub(crate) fn last_leaf(
    connection: &mut AnyConnection,
    tenant: &TenantId,
) -> Result<Option<Leaf>, StoreError> {
    let row: Option<LeafRow> = ledger_leaves::table
        .filter(ledger_leaves::tenant.eq(tenant.as_str()))
        .order(ledger_leaves::position.desc())
        .select(LEAF)
        .first(connection)
        .optional()
        .or_refused()?;
    row.map(leaf).transpose()
}

/// The leaf of a row.
pub(crate) fn leaf_of(
    connection: &mut AnyConnection,
    tenant: &TenantId,
    sequence: i64,
) -> Result<Option<Leaf>, StoreError> {
    let row: Option<LeafRow> = ledger_leaves::table
        .filter(ledger_leaves::tenant.eq(tenant.as_str()))
        .filter(ledger_leaves::sequence.eq(sequence))
        .select(LEAF)
        .first(connection)
        .optional()
        .or_refused()?;
    row.map(leaf).transpose()
}

/// Leaves with positions in `[from, until)`.
pub(crate) fn leaves(
    connection: &mut AnyConnection,
    tenant: &TenantId,
    from: u64,
    until: u64,
    limit: u32,
) -> Result<Vec<Leaf>, StoreError> {
    let rows: Vec<LeafRow> = ledger_leaves::table
        .filter(ledger_leaves::tenant.eq(tenant.as_str()))
        .filter(ledger_leaves::position.ge(stored(from)))
        .filter(ledger_leaves::position.lt(stored(until)))
        .order(ledger_leaves::position)
        .limit(i64::from(limit))
        .select(LEAF)
        .load(connection)
        .or_refused()?;
    rows.into_iter().map(leaf).collect()
}

/// Stored nodes of a level with indices in `[from, until)`.
pub(crate) fn nodes(
    connection: &mut AnyConnection,
    tenant: &TenantId,
    level: u8,
    from: u64,
    until: u64,
    limit: u32,
) -> Result<Vec<Node>, StoreError> {
    let rows: Vec<(i64, Vec<u8>)> = ledger_nodes::table
        .filter(ledger_nodes::tenant.eq(tenant.as_str()))
        .filter(ledger_nodes::level.eq(i64::from(level)))
        .filter(ledger_nodes::position.ge(stored(from)))
        .filter(ledger_nodes::position.lt(stored(until)))
        .order(ledger_nodes::position)
        .limit(i64::from(limit))
        .select((ledger_nodes::position, ledger_nodes::hash))
        .load(connection)
        .or_refused()?;
    let node = |(index, bytes)| {
        Ok(Node {
            level,
            index: count(index)?,
            hash: hash(bytes)?,
        })
    };
    rows.into_iter().map(node).collect()
}

/// The newest checkpoint.
pub(crate) fn last_checkpoint(
    connection: &mut AnyConnection,
    tenant: &TenantId,
) -> Result<Option<SignedCheckpoint>, StoreError> {
    Ok(checkpoints(connection, tenant, u64::MAX, 1)?.pop())
}

/// Checkpoints of fewer than `below` leaves, newest first.
pub(crate) fn checkpoints(
    connection: &mut AnyConnection,
    tenant: &TenantId,
    below: u64,
    limit: u32,
) -> Result<Vec<SignedCheckpoint>, StoreError> {
    let rows: Vec<(i64, i64, String)> = ledger_checkpoints::table
        .filter(ledger_checkpoints::tenant.eq(tenant.as_str()))
        .filter(ledger_checkpoints::size.lt(stored(below)))
        .order(ledger_checkpoints::hour.desc())
        .limit(i64::from(limit))
        .select((
            ledger_checkpoints::size,
            ledger_checkpoints::signed_at,
            ledger_checkpoints::note,
        ))
        .load(connection)
        .or_refused()?;
    let checkpoint = |(size, at, note)| {
        Ok(SignedCheckpoint {
            size: count(size)?,
            at: Timestamp(at),
            note,
        })
    };
    rows.into_iter().map(checkpoint).collect()
}

/// Adds leaves.
pub(crate) fn add_leaves(unit: &mut Unit<'_>, tenant: &TenantId, leaves: &[Leaf]) {
    for leaf in leaves {
        unit.bulk.add(
            &LEAVES,
            vec![
                tenant.as_str().into(),
                stored(leaf.position).into(),
                leaf.sequence.into(),
                leaf.salt.map(|salt| salt.to_vec()).into(),
                leaf.commitment.to_vec().into(),
            ],
        );
    }
}

/// Adds nodes.
pub(crate) fn add_nodes(unit: &mut Unit<'_>, tenant: &TenantId, nodes: &[Node]) {
    for node in nodes {
        unit.bulk.add(
            &NODES,
            vec![
                tenant.as_str().into(),
                i64::from(node.level).into(),
                stored(node.index).into(),
                node.hash.to_vec().into(),
            ],
        );
    }
}

/// Keeps a checkpoint in the place of an earlier one of its hour.
pub(crate) fn put_checkpoint(
    unit: &mut Unit<'_>,
    tenant: &TenantId,
    checkpoint: &SignedCheckpoint,
) -> Result<(), StoreError> {
    let hour = checkpoint.at.0.div_euclid(HOUR);
    let known = diesel::update(ledger_checkpoints::table.find((tenant.as_str(), hour)))
        .set((
            ledger_checkpoints::size.eq(stored(checkpoint.size)),
            ledger_checkpoints::signed_at.eq(checkpoint.at.0),
            ledger_checkpoints::note.eq(checkpoint.note.as_str()),
        ))
        .execute(unit.connection)
        .or_refused()?;
    if known == 0 {
        unit.bulk.add(
            &CHECKPOINTS,
            vec![
                tenant.as_str().into(),
                hour.into(),
                stored(checkpoint.size).into(),
                checkpoint.at.0.into(),
                checkpoint.note.as_str().into(),
            ],
        );
    }
    Ok(())
}
