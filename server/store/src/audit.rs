//! The ledger: rows are added in the transaction that they report, and never changed. Knows nothing of who
//! may read it.

use diesel::RunQueryDsl;
use diesel::sql_types::{BigInt, Text};
use handoff_domain::TenantId;
use handoff_domain::audit::AuditRow;
use handoff_domain::ports::{AuditSearch, RecordedRow, StoreError};

use crate::dialect::{AnyConnection, Bulk, Column, Table};
use crate::error::{OrRefused, unreadable};
use crate::statement::Statement;

static AUDIT: Table = Table {
    name: "audit_log",
    columns: &[
        ("tenant", Column::Text),
        ("recorded", Column::Int),
        ("event", Column::Text),
        ("outcome", Column::Text),
        ("correlation", Column::Text),
        ("actor", Column::Text),
        ("patient", Column::Text),
        ("task", Column::Text),
        ("document", Column::Text),
        ("\"binary\"", Column::Text),
        ("grant_id", Column::Text),
        ("redemption", Column::Text),
        ("entry", Column::Text),
    ],
};

/// Adds a row.
pub(crate) fn add(bulk: &mut Bulk, tenant: &TenantId, row: &AuditRow) -> Result<(), StoreError> {
    let entry = serde_json::to_string(row)
        .map_err(|_| StoreError::Broken("an audit row can't be stored".to_owned()))?;
    let about = &row.about;
    bulk.add(
        &AUDIT,
        vec![
            tenant.as_str().into(),
            row.recorded.0.into(),
            row.event.as_str().into(),
            row.outcome.as_str().into(),
            row.correlation.as_str().into(),
            row.agent.actor.clone().into(),
            about.patient.clone().into(),
            about.task.clone().into(),
            about.document.clone().into(),
            about.binary.clone().into(),
            about.grant.clone().into(),
            about.redemption.clone().into(),
            entry.into(),
        ],
    );
    Ok(())
}

/// Rows that match. A row's id is its place in the ledger.
pub(crate) fn search(
    connection: &mut AnyConnection,
    tenant: &TenantId,
    search: &AuditSearch,
) -> Result<Vec<RecordedRow>, StoreError> {
    let mut statement =
        Statement::<(BigInt, Text)>::new("SELECT sequence, entry FROM audit_log WHERE tenant = ")
            .bind(tenant.as_str());
    if let Some(id) = &search.id {
        // What is no number is the id of no row.
        let Ok(sequence) = id.parse::<i64>() else {
            return Ok(Vec::new());
        };
        statement = statement.sql(" AND sequence = ").bind(sequence);
    }
    if !search.events.is_empty() {
        statement = statement
            .sql(" AND event")
            .one_of(search.events.iter().map(String::as_str));
    }
    let exact = [
        (" AND actor = ", &search.actor),
        (" AND patient = ", &search.patient),
        (" AND outcome = ", &search.outcome),
        (" AND correlation = ", &search.correlation),
    ];
    for (sql, value) in exact {
        if let Some(value) = value {
            statement = statement.sql(sql).bind(value.as_str());
        }
    }
    if let Some(entity) = &search.entity {
        statement = about(statement, entity);
    }
    if let Some((from, until)) = search.recorded {
        statement = statement
            .sql(" AND recorded >= ")
            .bind(from.0)
            .sql(" AND recorded < ")
            .bind(until.0);
    }
    if let Some(after) = search.after {
        let sql = if search.oldest_first {
            " AND sequence > "
        } else {
            " AND sequence < "
        };
        statement = statement.sql(sql).bind(after);
    }
    let rows: Vec<(i64, String)> = statement
        .sql(if search.oldest_first {
            " ORDER BY sequence"
        } else {
            " ORDER BY sequence DESC"
        })
        .sql(" LIMIT ")
        .bind(i64::from(search.limit))
        .uncached()
        .load(connection)
        .or_refused()?;
    rows.into_iter()
        .map(|(sequence, entry)| {
            let row = serde_json::from_str(&entry).map_err(|_| unreadable("audit row"))?;
            Ok(RecordedRow {
                sequence,
                id: sequence.to_string(),
                row,
            })
        })
        .collect()
}

/// What it was about: a reference says in which column to look, a bare id may be in any.
fn about<Row>(statement: Statement<Row>, entity: &str) -> Statement<Row> {
    let column = match entity.split_once('/').map(|(kind, _)| kind) {
        Some("Task") => Some(" AND task = "),
        Some("DocumentReference") => Some(" AND document = "),
        Some("Binary") => Some(" AND \"binary\" = "),
        _ => None,
    };
    if let Some(sql) = column {
        return statement.sql(sql).bind(entity);
    }
    statement
        .sql(" AND (task = ")
        .bind(format!("Task/{entity}"))
        .sql(" OR document = ")
        .bind(format!("DocumentReference/{entity}"))
        .sql(" OR \"binary\" = ")
        .bind(format!("Binary/{entity}"))
        .sql(" OR grant_id = ")
        .bind(entity)
        .sql(" OR redemption = ")
        .bind(entity)
        .sql(")")
}
