//! Rows that are written together when a unit of work commits, in as few round trips as can be: on PostgreSQL
//! one statement for all that goes and one for all that changes and comes, however many tables there are.

use diesel::pg::Pg;
use diesel::query_builder::{AstPass, Query, QueryFragment, QueryId};
use diesel::sql_types::{Array, BigInt, Binary, Bool, Nullable, Text};
use diesel::sqlite::Sqlite;
use diesel::{PgConnection, QueryResult, RunQueryDsl, SqliteConnection};

use super::AnyConnection;
use crate::statement::{Bound as _, Statement, Value};

/// The type of a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Column {
    /// `TEXT`.
    Text,
    /// `BIGINT`.
    Int,
    /// `BYTEA` or `BLOB`.
    Bytes,
    /// `BOOLEAN`.
    Flag,
}

/// A table that rows can be added to: its name, and its columns as far as they are given and not generated.
#[derive(Debug)]
pub(crate) struct Table {
    /// The name.
    pub(crate) name: &'static str,
    /// Names and types, in the order of a row's values.
    pub(crate) columns: &'static [(&'static str, Column)],
}

/// Rows to remove: those whose columns have these values and, where names are given, one of these names.
#[derive(Debug)]
pub(crate) struct Removal {
    /// The table.
    pub(crate) table: &'static str,
    /// Columns and their values.
    pub(crate) key: Vec<(&'static str, Value)>,
    /// Values of the column `name`; empty for any.
    pub(crate) names: Vec<String>,
}

/// A row to change that is there already, and of which nobody else may have changed anything.
#[derive(Debug)]
pub(crate) struct Change {
    /// The table.
    pub(crate) table: &'static str,
    /// Which row: no other change of the same one waits.
    pub(crate) id: String,
    /// `UPDATE … WHERE …`: changes one row, or none where somebody else came first.
    pub(crate) update: Statement,
}

/// What is to be written.
#[derive(Debug, Default)]
pub(crate) struct Bulk {
    gone: Vec<Removal>,
    changed: Vec<Change>,
    new: Vec<(&'static Table, Vec<Vec<Value>>)>,
}

impl Bulk {
    /// Whether there is nothing to write.
    pub(crate) fn is_empty(&self) -> bool {
        self.gone.is_empty() && self.changed.is_empty() && self.new.is_empty()
    }

    /// Whether rows of one of these tables are to be added, changed or removed.
    pub(crate) fn touches(&self, tables: &[&str]) -> bool {
        let added = self.new.iter().any(|(table, _)| tables.contains(&table.name));
        let changed = self.changed.iter().any(|change| tables.contains(&change.table));
        added || changed || self.gone.iter().any(|removal| tables.contains(&removal.table))
    }

    /// Whether a change of this row waits.
    pub(crate) fn changes(&self, table: &str, id: &str) -> bool {
        self.changed
            .iter()
            .any(|change| change.table == table && change.id == id)
    }

    /// The row that waits to be added to this table and begins with these values.
    pub(crate) fn waiting(&mut self, table: &Table, key: &[Value]) -> Option<&mut Vec<Value>> {
        let (_, rows) = self.new.iter_mut().find(|(other, _)| other.name == table.name)?;
        rows.iter_mut().find(|row| row.starts_with(key))
    }

    /// Adds a row; its values are in the order of the table's columns.
    pub(crate) fn add(&mut self, table: &'static Table, row: Vec<Value>) {
        debug_assert_eq!(row.len(), table.columns.len(), "{}", table.name);
        match self.new.iter_mut().find(|(other, _)| other.name == table.name) {
            Some((_, rows)) => rows.push(row),
            None => self.new.push((table, vec![row])),
        }
    }

    /// Removes rows. Removals come before additions.
    pub(crate) fn remove(&mut self, removal: Removal) {
        self.gone.push(removal);
    }

    /// Changes a row. Changes come after removals, and before additions to the same table.
    pub(crate) fn change(&mut self, change: Change) {
        self.changed.push(change);
    }

    /// Writes everything, and is empty then; answers whether every row that was to be changed was there to be.
    pub(crate) fn write(&mut self, connection: &mut AnyConnection) -> QueryResult<bool> {
        let gone = std::mem::take(&mut self.gone);
        let mut changed = std::mem::take(&mut self.changed);
        let mut new = std::mem::take(&mut self.new);
        // The same tables in the same order make the same statement, which is prepared once.
        new.sort_by_key(|(table, _)| table.name);
        changed.sort_by_key(|change| change.table);
        match connection {
            AnyConnection::Postgres(_) => {
                if !gone.is_empty() {
                    remove_together(gone).run(connection)?;
                }
            }
            AnyConnection::Sqlite(_) => {
                for one in gone {
                    removal(Statement::new(""), one).run(connection)?;
                }
            }
        }
        match connection {
            AnyConnection::Postgres(connection) => {
                // Within one statement nothing says what comes first, and a new row may need the place of an old one.
                let adds = |table: &str| new.iter().any(|(other, _)| other.name == table);
                let first = changed.extract_if(.., |change| adds(change.table)).collect();
                let first = write_together(connection, first, Vec::new())?;
                Ok(write_together(connection, changed, new)? && first)
            }
            AnyConnection::Sqlite(_) => {
                let mut found_all = true;
                for change in changed {
                    found_all &= change.update.run(connection)? == 1;
                }
                let AnyConnection::Sqlite(connection) = connection else {
                    return Ok(found_all);
                };
                for (table, rows) in new {
                    for row in rows {
                        RowInsert { table, row }.execute(connection)?;
                    }
                }
                Ok(found_all)
            }
        }
    }
}

fn removal(statement: Statement, gone: Removal) -> Statement {
    let mut statement = statement.sql("DELETE FROM ").sql(gone.table);
    let mut word = " WHERE ";
    for (column, value) in gone.key {
        statement = statement.sql(word).sql(column).sql(" = ").bind(value);
        word = " AND ";
    }
    if gone.names.is_empty() {
        statement
    } else {
        statement.sql(" AND name").one_of(gone.names)
    }
}

/// One statement of as many common table expressions as there are removals but one.
fn remove_together(mut gone: Vec<Removal>) -> Statement {
    gone.sort_by_key(|one| one.table);
    let last = gone.pop();
    let mut statement = Statement::new("");
    for (number, one) in gone.into_iter().enumerate() {
        let open = if number == 0 {
            "WITH g0 AS (".to_owned()
        } else {
            format!(", g{number} AS (")
        };
        statement = removal(statement.sql(open), one).sql(")");
    }
    match last {
        Some(one) => removal(statement.sql(" "), one),
        None => statement,
    }
}

/// A column of many rows.
enum Values {
    Text(Vec<Option<String>>),
    Int(Vec<Option<i64>>),
    Bytes(Vec<Option<Vec<u8>>>),
    Flag(Vec<bool>),
}

impl Values {
    fn push(&mut self, value: Value) {
        match (self, value) {
            (Self::Text(values), Value::Text(value)) => values.push(value),
            (Self::Int(values), Value::Int(value)) => values.push(value),
            (Self::Bytes(values), Value::Bytes(value)) => values.push(value),
            (Self::Flag(values), Value::Flag(value)) => values.push(value),
            // A value of another type than its column: the lengths differ then, and PostgreSQL fills with
            // NULL what no column may be.
            (_, value) => debug_assert!(false, "{value:?} in a column of another type"),
        }
    }
}

/// What is added to a table. One row is written as it is; of several there is one array per column, so that the text
/// does not depend on how many they are.
enum Addition {
    One(Vec<Value>),
    Several(Vec<Values>),
}

/// Changes and additions of rows of several tables in one statement, which answers how many rows were changed.
struct TogetherWritten {
    changed: Vec<Statement>,
    new: Vec<(&'static Table, Addition)>,
}

fn write_together(
    connection: &mut PgConnection,
    changed: Vec<Change>,
    new: Vec<(&'static Table, Vec<Vec<Value>>)>,
) -> QueryResult<bool> {
    if changed.is_empty() && new.is_empty() {
        return Ok(true);
    }
    let new = new
        .into_iter()
        .map(|(table, mut rows)| match rows.pop() {
            Some(row) if rows.is_empty() => (table, Addition::One(row)),
            last => {
                rows.extend(last);
                (table, Addition::Several(by_column(table, rows)))
            }
        })
        .collect();
    let changed: Vec<Statement> = changed.into_iter().map(|change| change.update).collect();
    let wanted = i64::try_from(changed.len()).unwrap_or(i64::MAX);
    let found: i64 = TogetherWritten { changed, new }.get_result(connection)?;
    Ok(found == wanted)
}

fn by_column(table: &Table, rows: Vec<Vec<Value>>) -> Vec<Values> {
    let mut columns: Vec<Values> = table
        .columns
        .iter()
        .map(|(_, kind)| match kind {
            Column::Text => Values::Text(Vec::with_capacity(rows.len())),
            Column::Int => Values::Int(Vec::with_capacity(rows.len())),
            Column::Bytes => Values::Bytes(Vec::with_capacity(rows.len())),
            Column::Flag => Values::Flag(Vec::with_capacity(rows.len())),
        })
        .collect();
    for row in rows {
        for (column, value) in columns.iter_mut().zip(row) {
            column.push(value);
        }
    }
    columns
}

fn push_columns(table: &Table, mut push: impl FnMut(&str) -> QueryResult<()>) -> QueryResult<()> {
    let mut before = " (";
    for (column, _) in table.columns {
        push(before)?;
        push(column)?;
        before = ", ";
    }
    push(")")
}

impl QueryFragment<Pg> for TogetherWritten {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        let mut before = "WITH ";
        for (number, update) in self.changed.iter().enumerate() {
            out.push_sql(before);
            before = ", ";
            out.push_sql(&format!("u{number} AS ("));
            update.push(&mut out)?;
            out.push_sql(" RETURNING 1)");
        }
        for (number, (table, addition)) in self.new.iter().enumerate() {
            out.push_sql(before);
            before = ", ";
            out.push_sql(&format!("i{number} AS (INSERT INTO "));
            out.push_sql(table.name);
            push_columns(table, |sql| {
                out.push_sql(sql);
                Ok(())
            })?;
            addition.push(&mut out)?;
            out.push_sql(")");
        }
        out.push_sql(" SELECT 0::bigint");
        for number in 0..self.changed.len() {
            out.push_sql(&format!(" + (SELECT count(*) FROM u{number})"));
        }
        Ok(())
    }
}

impl Addition {
    fn push<'b>(&'b self, out: &mut AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        match self {
            Self::One(row) => {
                out.push_sql(" VALUES (");
                for (number, value) in row.iter().enumerate() {
                    if number > 0 {
                        out.push_sql(", ");
                    }
                    value.push(out)?;
                }
            }
            Self::Several(columns) => {
                let mut before = " SELECT * FROM unnest(";
                for column in columns {
                    out.push_sql(before);
                    before = ", ";
                    match column {
                        Values::Text(values) => {
                            out.push_bind_param::<Array<Nullable<Text>>, _>(values)?;
                        }
                        Values::Int(values) => {
                            out.push_bind_param::<Array<Nullable<BigInt>>, _>(values)?;
                        }
                        Values::Bytes(values) => {
                            out.push_bind_param::<Array<Nullable<Binary>>, _>(values)?;
                        }
                        Values::Flag(values) => out.push_bind_param::<Array<Bool>, _>(values)?,
                    }
                }
            }
        }
        out.push_sql(")");
        Ok(())
    }
}

impl QueryId for TogetherWritten {
    type QueryId = ();

    const HAS_STATIC_QUERY_ID: bool = false;
}

impl Query for TogetherWritten {
    type SqlType = BigInt;
}

impl RunQueryDsl<PgConnection> for TogetherWritten {}

/// One row. In the same process a round trip costs nothing; a statement that is prepared already does not
/// cost much either.
struct RowInsert {
    table: &'static Table,
    row: Vec<Value>,
}

impl QueryFragment<Sqlite> for RowInsert {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Sqlite>) -> QueryResult<()> {
        out.push_sql("INSERT INTO ");
        out.push_sql(self.table.name);
        push_columns(self.table, |sql| {
            out.push_sql(sql);
            Ok(())
        })?;
        out.push_sql(" VALUES (");
        for (number, value) in self.row.iter().enumerate() {
            if number > 0 {
                out.push_sql(", ");
            }
            value.push(&mut out)?;
        }
        out.push_sql(")");
        Ok(())
    }
}

impl QueryId for RowInsert {
    type QueryId = ();

    const HAS_STATIC_QUERY_ID: bool = false;
}

impl RunQueryDsl<SqliteConnection> for RowInsert {}
