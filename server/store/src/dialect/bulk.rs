//! Rows that are written together when a unit of work commits, in as few round trips as can be: on PostgreSQL
//! one statement for all that goes and one for all that comes, however many tables there are.

use diesel::pg::Pg;
use diesel::query_builder::{AstPass, QueryFragment, QueryId};
use diesel::sql_types::{Array, BigInt, Binary, Bool, Nullable, Text};
use diesel::sqlite::Sqlite;
use diesel::{PgConnection, QueryResult, RunQueryDsl, SqliteConnection};

use super::AnyConnection;
use crate::statement::Value;

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

type Rows = Vec<(&'static Table, Vec<Vec<Value>>)>;

/// What is to be written.
#[derive(Debug, Default)]
pub(crate) struct Bulk {
    gone: Rows,
    new: Rows,
}

fn put(rows: &mut Rows, table: &'static Table, row: Vec<Value>) {
    debug_assert_eq!(row.len(), table.columns.len(), "{}", table.name);
    match rows.iter_mut().find(|(other, _)| other.name == table.name) {
        Some((_, rows)) => rows.push(row),
        None => rows.push((table, vec![row])),
    }
}

impl Bulk {
    /// Whether there is nothing to write.
    pub(crate) fn is_empty(&self) -> bool {
        self.gone.is_empty() && self.new.is_empty()
    }

    /// Whether rows of one of these tables are to be added or removed.
    pub(crate) fn touches(&self, tables: &[&str]) -> bool {
        let mut touched = self.gone.iter().chain(&self.new);
        touched.any(|(table, _)| tables.contains(&table.name))
    }

    /// The row that waits to be added to this table and begins with these values.
    pub(crate) fn waiting(&mut self, table: &Table, key: &[Value]) -> Option<&mut Vec<Value>> {
        let (_, rows) = self.new.iter_mut().find(|(other, _)| other.name == table.name)?;
        rows.iter_mut().find(|row| row.starts_with(key))
    }

    /// Adds a row; its values are in the order of the table's columns.
    pub(crate) fn add(&mut self, table: &'static Table, row: Vec<Value>) {
        put(&mut self.new, table, row);
    }

    /// Removes a row, given whole, of a table without NULLs. Removals come before additions.
    pub(crate) fn remove(&mut self, table: &'static Table, row: Vec<Value>) {
        put(&mut self.gone, table, row);
    }

    /// Writes everything, and is empty then.
    pub(crate) fn write(&mut self, connection: &mut AnyConnection) -> QueryResult<()> {
        let Self { mut gone, mut new } = std::mem::take(self);
        // The same tables in the same order make the same statement, which is prepared once.
        gone.sort_by_key(|(table, _)| table.name);
        new.sort_by_key(|(table, _)| table.name);
        match connection {
            AnyConnection::Postgres(connection) => {
                for (change, rows) in [(Change::Remove, gone), (Change::Add, new)] {
                    if !rows.is_empty() {
                        Together::new(change, rows).execute(connection)?;
                    }
                }
            }
            AnyConnection::Sqlite(connection) => {
                for (change, rows) in [(Change::Remove, gone), (Change::Add, new)] {
                    for (table, rows) in rows {
                        for row in rows {
                            Singly { change, table, row }.execute(connection)?;
                        }
                    }
                }
            }
        }
        Ok(())
    }
}

/// What becomes of rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Change {
    Add,
    Remove,
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

/// Rows of several tables in one statement, each table's rows as one array per column: the text does not
/// depend on how many rows there are.
struct Together {
    change: Change,
    tables: Vec<(&'static Table, Vec<Values>)>,
}

impl Together {
    fn new(change: Change, rows: Rows) -> Self {
        let tables = rows
            .into_iter()
            .map(|(table, rows)| (table, by_column(table, rows)))
            .collect();
        Self { change, tables }
    }
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

/// The names of a table's columns, each after `prefix`.
fn push_columns(table: &Table, prefix: &str, mut push: impl FnMut(&str)) {
    for (number, (column, _)) in table.columns.iter().enumerate() {
        if number > 0 {
            push(", ");
        }
        push(prefix);
        push(column);
    }
}

impl QueryFragment<Pg> for Together {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        if self.change == Change::Remove {
            // It is seldom needed, and planned for the tables as large as they are by then.
            out.unsafe_to_cache_prepared();
        }
        let last = self.tables.len().saturating_sub(1);
        for (number, (table, columns)) in self.tables.iter().enumerate() {
            if number < last {
                out.push_sql(if number == 0 { "WITH " } else { ", " });
                out.push_sql("i");
                out.push_sql(&number.to_string());
                out.push_sql(" AS (");
            }
            match self.change {
                Change::Add => {
                    out.push_sql("INSERT INTO ");
                    out.push_sql(table.name);
                    out.push_sql(" (");
                    push_columns(table, "", |sql| out.push_sql(sql));
                    out.push_sql(") SELECT * FROM ");
                    push_rows(columns, &mut out)?;
                }
                Change::Remove => {
                    out.push_sql("DELETE FROM ");
                    out.push_sql(table.name);
                    out.push_sql(" t USING ");
                    push_rows(columns, &mut out)?;
                    out.push_sql(" AS g (");
                    push_columns(table, "", |sql| out.push_sql(sql));
                    out.push_sql(") WHERE (");
                    push_columns(table, "t.", |sql| out.push_sql(sql));
                    out.push_sql(") = (");
                    push_columns(table, "g.", |sql| out.push_sql(sql));
                    out.push_sql(")");
                }
            }
            if number < last {
                out.push_sql(")");
            }
        }
        Ok(())
    }
}

/// The rows of a table as a table of their own.
fn push_rows<'b>(columns: &'b [Values], out: &mut AstPass<'_, 'b, Pg>) -> QueryResult<()> {
    let mut before = "unnest(";
    for column in columns {
        out.push_sql(before);
        before = ", ";
        match column {
            Values::Text(values) => out.push_bind_param::<Array<Nullable<Text>>, _>(values)?,
            Values::Int(values) => out.push_bind_param::<Array<Nullable<BigInt>>, _>(values)?,
            Values::Bytes(values) => out.push_bind_param::<Array<Nullable<Binary>>, _>(values)?,
            Values::Flag(values) => out.push_bind_param::<Array<Bool>, _>(values)?,
        }
    }
    out.push_sql(")");
    Ok(())
}

impl QueryId for Together {
    type QueryId = ();

    const HAS_STATIC_QUERY_ID: bool = false;
}

impl RunQueryDsl<PgConnection> for Together {}

/// One row. In the same process a round trip costs nothing; a statement that is prepared already does not
/// cost much either.
struct Singly {
    change: Change,
    table: &'static Table,
    row: Vec<Value>,
}

impl QueryFragment<Sqlite> for Singly {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Sqlite>) -> QueryResult<()> {
        let [what, columns, values] = match self.change {
            Change::Add => ["INSERT INTO ", " (", ") VALUES ("],
            Change::Remove => ["DELETE FROM ", " WHERE (", ") = ("],
        };
        out.push_sql(what);
        out.push_sql(self.table.name);
        out.push_sql(columns);
        push_columns(self.table, "", |sql| out.push_sql(sql));
        out.push_sql(values);
        for (number, value) in self.row.iter().enumerate() {
            if number > 0 {
                out.push_sql(", ");
            }
            match value {
                Value::Text(text) => out.push_bind_param::<Nullable<Text>, _>(text)?,
                Value::Int(number) => out.push_bind_param::<Nullable<BigInt>, _>(number)?,
                Value::Bytes(bytes) => out.push_bind_param::<Nullable<Binary>, _>(bytes)?,
                Value::Flag(flag) => out.push_bind_param::<Bool, _>(flag)?,
            }
        }
        out.push_sql(")");
        Ok(())
    }
}

impl QueryId for Singly {
    type QueryId = ();

    const HAS_STATIC_QUERY_ID: bool = false;
}

impl RunQueryDsl<SqliteConnection> for Singly {}
