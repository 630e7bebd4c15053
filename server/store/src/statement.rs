//! SQL text with bound values, for what the query builder can't say on both databases at once: searches put
//! together from parts, and rows that are locked. Values are always bound, never written into the text.

use std::borrow::Cow;
use std::marker::PhantomData;

use diesel::backend::Backend;
use diesel::query_builder::{AstPass, Query, QueryFragment, QueryId};
use diesel::serialize::ToSql;
use diesel::sql_types::{BigInt, Binary, Bool, HasSqlType, Nullable, Text};
use diesel::{QueryResult, RunQueryDsl};

use crate::dialect::{AnyConnection, MultiBackend};

/// A value to bind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Value {
    /// Text.
    Text(Option<String>),
    /// An integer.
    Int(Option<i64>),
    /// Bytes.
    Bytes(Option<Vec<u8>>),
    /// True or false.
    Flag(bool),
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(Some(text.to_owned()))
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(Some(text))
    }
}

impl From<Option<String>> for Value {
    fn from(text: Option<String>) -> Self {
        Self::Text(text)
    }
}

impl From<i64> for Value {
    fn from(number: i64) -> Self {
        Self::Int(Some(number))
    }
}

impl From<Option<i64>> for Value {
    fn from(number: Option<i64>) -> Self {
        Self::Int(number)
    }
}

impl From<Vec<u8>> for Value {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Bytes(Some(bytes))
    }
}

impl From<Option<Vec<u8>>> for Value {
    fn from(bytes: Option<Vec<u8>>) -> Self {
        Self::Bytes(bytes)
    }
}

impl From<bool> for Value {
    fn from(flag: bool) -> Self {
        Self::Flag(flag)
    }
}

/// Binds a value in a statement of this database.
pub(crate) trait Bound<Db: Backend> {
    /// Binds it.
    fn push<'b>(&'b self, out: &mut AstPass<'_, 'b, Db>) -> QueryResult<()>;
}

impl<Db> Bound<Db> for Value
where
    Db: Backend + HasSqlType<Nullable<Text>> + HasSqlType<Nullable<BigInt>>,
    Db: HasSqlType<Nullable<Binary>> + HasSqlType<Bool>,
    Option<String>: ToSql<Nullable<Text>, Db>,
    Option<i64>: ToSql<Nullable<BigInt>, Db>,
    Option<Vec<u8>>: ToSql<Nullable<Binary>, Db>,
    bool: ToSql<Bool, Db>,
{
    fn push<'b>(&'b self, out: &mut AstPass<'_, 'b, Db>) -> QueryResult<()> {
        match self {
            Self::Text(text) => out.push_bind_param::<Nullable<Text>, _>(text),
            Self::Int(number) => out.push_bind_param::<Nullable<BigInt>, _>(number),
            Self::Bytes(bytes) => out.push_bind_param::<Nullable<Binary>, _>(bytes),
            Self::Flag(flag) => out.push_bind_param::<Bool, _>(flag),
        }
    }
}

#[derive(Debug, Clone)]
enum Part {
    Sql(Cow<'static, str>),
    Bind(Value),
}

/// SQL text with bound values; `Row` is the SQL type of what it answers.
#[derive(Debug, Clone)]
pub(crate) struct Statement<Row = ()> {
    parts: Vec<Part>,
    cached: bool,
    row: PhantomData<fn() -> Row>,
}

impl<Row> Statement<Row> {
    /// A statement of few shapes: each connection keeps it prepared.
    pub(crate) fn new(sql: impl Into<Cow<'static, str>>) -> Self {
        Self {
            parts: vec![Part::Sql(sql.into())],
            cached: true,
            row: PhantomData,
        }
    }

    /// Adds text.
    #[must_use]
    pub(crate) fn sql(mut self, sql: impl Into<Cow<'static, str>>) -> Self {
        self.parts.push(Part::Sql(sql.into()));
        self
    }

    /// Adds a value.
    #[must_use]
    pub(crate) fn bind(mut self, value: impl Into<Value>) -> Self {
        self.parts.push(Part::Bind(value.into()));
        self
    }

    /// Adds ` IN (…)`, with at least one value. Lists come in many lengths: the statement is not kept.
    #[must_use]
    pub(crate) fn one_of(mut self, values: impl IntoIterator<Item = impl Into<Value>>) -> Self {
        let mut count = 0_usize;
        for value in values {
            self = self.sql(if count == 0 { " IN (" } else { ", " }).bind(value);
            count = count.saturating_add(1);
        }
        if count > 4 {
            self.cached = false;
        }
        self.sql(if count == 0 { " IN (NULL)" } else { ")" })
    }

    /// Adds another statement's text and values.
    #[must_use]
    pub(crate) fn and_then<Other>(mut self, other: &Statement<Other>) -> Self {
        self.cached &= other.cached;
        self.parts.extend(other.parts.iter().cloned());
        self
    }

    /// A statement of many shapes: prepared anew each time.
    #[must_use]
    pub(crate) fn uncached(mut self) -> Self {
        self.cached = false;
        self
    }

    /// Writes it as a part of another statement, whichever database that is for.
    pub(crate) fn push<'b, Db: Backend>(&'b self, out: &mut AstPass<'_, 'b, Db>) -> QueryResult<()>
    where
        Value: Bound<Db>,
    {
        for part in &self.parts {
            match part {
                Part::Sql(sql) => out.push_sql(sql),
                Part::Bind(value) => value.push(out)?,
            }
        }
        Ok(())
    }

    /// Runs it; answers how many rows it changed.
    pub(crate) fn run(self, connection: &mut AnyConnection) -> QueryResult<usize>
    where
        Row: 'static,
    {
        self.execute(connection)
    }
}

impl<Row> QueryFragment<MultiBackend> for Statement<Row> {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, MultiBackend>) -> QueryResult<()> {
        if !self.cached {
            out.unsafe_to_cache_prepared();
        }
        self.push(&mut out)
    }
}

impl<Row> QueryId for Statement<Row> {
    type QueryId = ();

    // Known by its text.
    const HAS_STATIC_QUERY_ID: bool = false;
}

impl<Row> Query for Statement<Row> {
    type SqlType = Row;
}

impl<Row> RunQueryDsl<AnyConnection> for Statement<Row> {}
