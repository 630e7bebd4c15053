//! Browser sessions. Knows nothing of cookies.

use diesel::prelude::*;
use handoff_domain::ports::StoreError;
use handoff_domain::session::{Session, Sessions};
use handoff_domain::{TenantId, Timestamp};

use crate::dialect::{AnyConnection, Column, Table};
use crate::error::{OrRefused, unreadable};
use crate::schema::sessions;
use crate::statement::Statement;
use crate::unit::Unit;

static SESSIONS: Table = Table {
    name: "sessions",
    columns: &[
        ("tenant", Column::Text),
        ("id", Column::Text),
        ("issuer", Column::Text),
        ("subject", Column::Text),
        ("sid", Column::Text),
        ("claims", Column::Text),
        ("key", Column::Bytes),
        ("began_at", Column::Int),
        ("seen_at", Column::Int),
        ("ends_at", Column::Int),
    ],
};

#[derive(Queryable, Selectable)]
#[diesel(table_name = sessions)]
struct Row {
    id: String,
    issuer: String,
    subject: String,
    sid: Option<String>,
    claims: String,
    key: Vec<u8>,
    began_at: i64,
    seen_at: i64,
    ends_at: i64,
}

impl Row {
    fn read(self) -> Option<Session> {
        Some(Session {
            id: self.id,
            issuer: self.issuer,
            subject: self.subject,
            sid: self.sid,
            claims: self.claims,
            key: self.key.try_into().ok()?,
            began_at: Timestamp(self.began_at),
            seen_at: Timestamp(self.seen_at),
            ends_at: Timestamp(self.ends_at),
        })
    }
}

/// One session, whether it may still be used or not.
pub(crate) fn session(
    connection: &mut AnyConnection,
    tenant: &TenantId,
    id: &str,
) -> Result<Option<Session>, StoreError> {
    let row: Option<Row> = sessions::table
        .find((tenant.as_str(), id))
        .select(Row::as_select())
        .first(connection)
        .optional()
        .or_refused()?;
    row.map(|row| row.read().ok_or_else(|| unreadable("session")))
        .transpose()
}

/// Stores a new session.
pub(crate) fn insert(unit: &mut Unit<'_>, tenant: &TenantId, session: &Session) {
    unit.bulk.add(
        &SESSIONS,
        vec![
            tenant.as_str().into(),
            session.id.as_str().into(),
            session.issuer.as_str().into(),
            session.subject.as_str().into(),
            session.sid.clone().into(),
            session.claims.as_str().into(),
            session.key.to_vec().into(),
            session.began_at.0.into(),
            session.seen_at.0.into(),
            session.ends_at.0.into(),
        ],
    );
}

/// Writes down that a session was used.
pub(crate) fn touch(
    unit: &mut Unit<'_>,
    tenant: &TenantId,
    id: &str,
    now: Timestamp,
) -> Result<(), StoreError> {
    unit.settle_tables(&["sessions"])?;
    diesel::update(sessions::table.find((tenant.as_str(), id)))
        .filter(sessions::seen_at.lt(now.0))
        .set(sessions::seen_at.eq(now.0))
        .execute(unit.connection)
        .map(drop)
        .or_refused()
}

/// Ends sessions; answers how many there were.
pub(crate) fn end(unit: &mut Unit<'_>, tenant: &TenantId, which: &Sessions) -> Result<usize, StoreError> {
    unit.settle_tables(&["sessions"])?;
    let mut statement = Statement::<()>::new("DELETE FROM sessions WHERE tenant = ").bind(tenant.as_str());
    match which {
        Sessions::One(id) => statement = statement.sql(" AND id = ").bind(id.as_str()),
        Sessions::Of { issuer, subject, sid } => {
            if subject.is_none() && sid.is_none() {
                return Ok(0);
            }
            statement = statement.sql(" AND issuer = ").bind(issuer.as_str());
            if let Some(subject) = subject {
                statement = statement.sql(" AND subject = ").bind(subject.as_str());
            }
            if let Some(sid) = sid {
                statement = statement.sql(" AND (sid = ").bind(sid.as_str());
                // Who was never told a name for the session can't be told which one ended.
                statement = statement.sql(if subject.is_some() {
                    " OR sid IS NULL)"
                } else {
                    ")"
                });
            }
        }
    }
    statement.run(unit.connection).or_refused()
}

/// Forgets sessions of all tenants that have ended or were last used before `idle_since`; answers how many.
pub(crate) fn forget(
    unit: &mut Unit<'_>,
    now: Timestamp,
    idle_since: Timestamp,
) -> Result<usize, StoreError> {
    unit.settle_tables(&["sessions"])?;
    diesel::delete(sessions::table.filter(sessions::ends_at.le(now.0).or(sessions::seen_at.le(idle_since.0))))
        .execute(unit.connection)
        .or_refused()
}
