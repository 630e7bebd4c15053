//! Standing blocks, and the Tasks that one concerns. Knows nothing of what a block does.

use std::collections::HashMap;

use diesel::prelude::*;
use diesel::sql_types::Text;
use handoff_domain::ports::StoreError;
use handoff_domain::standing::{Block, Standing, Target};
use handoff_domain::{ActorRef, BlockId, TaskId, TenantId, Timestamp};

use crate::dialect::{AnyConnection, Column, Table};
use crate::error::{OrRefused, unreadable};
use crate::schema::standing_blocks;
use crate::statement::Statement;
use crate::unit::Unit;

static BLOCKS: Table = Table {
    name: "standing_blocks",
    columns: &[
        ("tenant", Column::Text),
        ("id", Column::Text),
        ("kind", Column::Text),
        ("value", Column::Text),
        ("note", Column::Text),
        ("placed_at", Column::Int),
        ("placed_by", Column::Text),
        ("lifted_at", Column::Int),
        ("lifted_by", Column::Text),
    ],
};

#[derive(Queryable, Selectable)]
#[diesel(table_name = standing_blocks)]
struct Row {
    id: String,
    kind: String,
    value: String,
    note: String,
    placed_at: i64,
    placed_by: String,
    lifted_at: Option<i64>,
    lifted_by: Option<String>,
}

impl Row {
    fn read(self) -> Option<Block> {
        Some(Block {
            id: BlockId::parse(self.id).ok()?,
            target: Target::parse(&self.kind, &self.value).ok()?,
            note: self.note,
            placed_at: Timestamp(self.placed_at),
            placed_by: ActorRef::parse(self.placed_by).ok()?,
            lifted: match (self.lifted_at, self.lifted_by) {
                (Some(at), Some(by)) => Some((Timestamp(at), ActorRef::parse(by).ok()?)),
                _ => None,
            },
        })
    }
}

fn target(kind: &str, value: &str) -> Result<Target, StoreError> {
    // A block that can't be read must not be taken for none.
    Target::parse(kind, value).map_err(|_| unreadable("standing block"))
}

/// Everything that is blocked, by tenant.
pub(crate) fn everywhere(connection: &mut AnyConnection) -> Result<HashMap<TenantId, Standing>, StoreError> {
    let rows: Vec<(String, String, String)> = standing_blocks::table
        .filter(standing_blocks::lifted_at.is_null())
        .select((
            standing_blocks::tenant,
            standing_blocks::kind,
            standing_blocks::value,
        ))
        .load(connection)
        .or_refused()?;
    let mut found: HashMap<TenantId, Vec<Target>> = HashMap::new();
    for (tenant, kind, value) in rows {
        let tenant = TenantId::parse(tenant).map_err(|_| unreadable("standing block"))?;
        // One that can't be read must not be taken for none, nor keep those of other tenants from being seen.
        let target = Target::parse(&kind, &value).unwrap_or(Target::All);
        found.entry(tenant).or_default().push(target);
    }
    Ok(found
        .into_iter()
        .map(|(tenant, targets)| (tenant, targets.into_iter().collect()))
        .collect())
}

/// What is blocked in a tenant.
pub(crate) fn of_tenant(connection: &mut AnyConnection, tenant: &TenantId) -> Result<Standing, StoreError> {
    let rows: Vec<(String, String)> = standing_blocks::table
        .filter(standing_blocks::tenant.eq(tenant.as_str()))
        .filter(standing_blocks::lifted_at.is_null())
        .select((standing_blocks::kind, standing_blocks::value))
        .load(connection)
        .or_refused()?;
    rows.iter().map(|(kind, value)| target(kind, value)).collect()
}

/// The blocks of a tenant that stand, newest first.
pub(crate) fn blocks(
    connection: &mut AnyConnection,
    tenant: &TenantId,
    limit: u32,
) -> Result<Vec<Block>, StoreError> {
    let rows: Vec<Row> = standing_blocks::table
        .filter(standing_blocks::tenant.eq(tenant.as_str()))
        .filter(standing_blocks::lifted_at.is_null())
        .order((standing_blocks::placed_at.desc(), standing_blocks::id.desc()))
        .limit(i64::from(limit))
        .select(Row::as_select())
        .load(connection)
        .or_refused()?;
    rows.into_iter()
        .map(|row| row.read().ok_or_else(|| unreadable("standing block")))
        .collect()
}

/// One block, whether it stands or not.
pub(crate) fn block(
    connection: &mut AnyConnection,
    tenant: &TenantId,
    id: &BlockId,
) -> Result<Option<Block>, StoreError> {
    let row: Option<Row> = standing_blocks::table
        .find((tenant.as_str(), id.as_str()))
        .select(Row::as_select())
        .first(connection)
        .optional()
        .or_refused()?;
    row.map(|row| row.read().ok_or_else(|| unreadable("standing block")))
        .transpose()
}

/// Tasks after `after` with grants or redemptions that are open although the target is blocked, ascending by id.
pub(crate) fn tasks_with_open(
    connection: &mut AnyConnection,
    tenant: &TenantId,
    target: &Target,
    after: Option<&TaskId>,
    limit: u32,
) -> Result<Vec<TaskId>, StoreError> {
    let after = after.map_or("", TaskId::as_str);
    let rows: Vec<String> = open_grants(tenant, target, after, Open::Grant)
        .sql(" UNION ")
        .and_then(&open_grants(tenant, target, after, Open::Redemption))
        .sql(" ORDER BY 1 LIMIT ")
        .bind(i64::from(limit))
        .load(connection)
        .or_refused()?;
    rows.into_iter()
        .map(|id| TaskId::parse(id).map_err(|_| unreadable("grant")))
        .collect()
}

/// What of a grant is open.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Open {
    /// It may be used.
    Grant,
    /// A use of it may go on.
    Redemption,
}

fn open_grants(tenant: &TenantId, target: &Target, after: &str, open: Open) -> Statement<Text> {
    let (from, is_open) = match open {
        Open::Grant => ("grants g", "g.ended_at IS NULL"),
        Open::Redemption => (
            "redemptions r JOIN grants g ON g.tenant = r.tenant AND g.id = r.grant_id",
            // One that a hold cut goes on when its Task comes back.
            "(r.state IN ('authorized', 'streaming', 'interrupted') OR (r.state = 'cut-off' AND r.cut_reason = 'task-on-hold'))",
        ),
    };
    let statement = Statement::new(format!(
        "SELECT g.task FROM {from} WHERE {is_open} AND g.tenant = "
    ))
    .bind(tenant.as_str())
    .sql(" AND g.task > ")
    .bind(after);
    match target {
        Target::Actor(actor) => statement.sql(" AND g.grantee = ").bind(actor.as_str()),
        Target::Document(id) => statement.sql(" AND g.document = ").bind(id.as_str()),
        Target::Task(id) => statement.sql(" AND g.task = ").bind(id.as_str()),
        Target::Patient(patient) => {
            // By whichever server's name. Ids hold nothing that LIKE takes for more than it is.
            let anywhere = format!("%/{patient}");
            statement
                .sql(" AND (EXISTS (SELECT 1 FROM tasks t WHERE t.tenant = g.tenant AND t.id = g.task AND (t.patient = ")
                .bind(patient.as_str())
                .sql(" OR t.patient LIKE ")
                .bind(anywhere.as_str())
                .sql(
                    ")) OR EXISTS (SELECT 1 FROM documents d WHERE d.tenant = g.tenant AND d.id = g.document \
                     AND (d.patient = ",
                )
                .bind(patient.as_str())
                .sql(" OR d.patient LIKE ")
                .bind(anywhere)
                .sql(")))")
        }
        Target::All => statement,
        // They hold no grants: whoever comes with them is stopped at the gate.
        Target::Client(_) | Target::Issuer(_) => statement.sql(" AND 1 = 0"),
    }
}

/// Stores a new block, and has every process look what is blocked.
pub(crate) fn place(unit: &mut Unit<'_>, tenant: &TenantId, block: &Block) {
    unit.bulk.add(
        &BLOCKS,
        vec![
            tenant.as_str().into(),
            block.id.as_str().into(),
            block.target.kind().into(),
            block.target.value().into(),
            block.note.as_str().into(),
            block.placed_at.0.into(),
            block.placed_by.as_str().into(),
            block.lifted.as_ref().map(|(at, _)| at.0).into(),
            block.lifted.as_ref().map(|(_, by)| by.as_str().to_owned()).into(),
        ],
    );
    unit.told.cut = true;
}

/// Lifts a block; answers whether it stood.
pub(crate) fn lift(
    unit: &mut Unit<'_>,
    tenant: &TenantId,
    id: &BlockId,
    by: &ActorRef,
    now: Timestamp,
) -> Result<bool, StoreError> {
    unit.settle_tables(&["standing_blocks"])?;
    let lifted = diesel::update(standing_blocks::table.find((tenant.as_str(), id.as_str())))
        .filter(standing_blocks::lifted_at.is_null())
        .set((
            standing_blocks::lifted_at.eq(now.0),
            standing_blocks::lifted_by.eq(by.as_str()),
        ))
        .execute(unit.connection)
        .or_refused()?;
    unit.told.cut |= lifted > 0;
    Ok(lifted > 0)
}
