//! How far the audit was forwarded to each sink. Belongs to no tenant: a sink gets the rows of all. Knows nothing of the rows.

use diesel::prelude::*;
use handoff_domain::forwarding::{Cursor, SinkName};
use handoff_domain::ports::StoreError;

use crate::dialect::{AnyConnection, Column, Table};
use crate::error::OrRefused;
use crate::schema::forwarding;
use crate::unit::Unit;

static CURSORS: Table = Table {
    name: "forwarding",
    columns: &[
        ("sink", Column::Text),
        ("stream", Column::Text),
        ("done", Column::Int),
        ("sending", Column::Int),
    ],
};

/// How far a sink is.
pub(crate) fn cursor(connection: &mut AnyConnection, sink: &SinkName) -> Result<Option<Cursor>, StoreError> {
    let row: Option<(String, i64, Option<i64>)> = forwarding::table
        .find(sink.as_str())
        .select((forwarding::stream, forwarding::done, forwarding::sending))
        .first(connection)
        .optional()
        .or_refused()?;
    Ok(row.map(|(stream, done, sending)| Cursor {
        sink: sink.clone(),
        stream,
        done,
        sending,
    }))
}

/// Begins with a sink.
pub(crate) fn add(unit: &mut Unit<'_>, cursor: &Cursor) {
    unit.bulk.add(
        &CURSORS,
        vec![
            cursor.sink.as_str().into(),
            cursor.stream.as_str().into(),
            cursor.done.into(),
            cursor.sending.into(),
        ],
    );
}

/// Puts one cursor in the place of another; answers whether that was still there.
pub(crate) fn replace(unit: &mut Unit<'_>, from: &Cursor, to: &Cursor) -> Result<bool, StoreError> {
    unit.settle_tables(&["forwarding"])?;
    let is_as_before = forwarding::stream
        .eq(from.stream.as_str())
        .and(forwarding::done.eq(from.done));
    let set = (forwarding::done.eq(to.done), forwarding::sending.eq(to.sending));
    let row = forwarding::table.find(from.sink.as_str()).filter(is_as_before);
    let changed = match from.sending {
        Some(until) => diesel::update(row.filter(forwarding::sending.eq(until)))
            .set(set)
            .execute(unit.connection),
        None => diesel::update(row.filter(forwarding::sending.is_null()))
            .set(set)
            .execute(unit.connection),
    };
    Ok(changed.or_refused()? == 1)
}
