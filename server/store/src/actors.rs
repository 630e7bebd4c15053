//! Actors: in which teams each was when its token was last validated. Knows nothing of tokens.

use diesel::prelude::*;
use handoff_domain::ports::StoreError;
use handoff_domain::{ActorRef, TenantId, Timestamp};

use crate::dialect::{AnyConnection, Column, Table};
use crate::error::{OrRefused, unreadable};
use crate::schema::actors;
use crate::unit::Unit;

static ACTORS: Table = Table {
    name: "actors",
    columns: &[
        ("tenant", Column::Text),
        ("actor", Column::Text),
        ("teams", Column::Text),
        ("seen", Column::Int),
    ],
};

/// Team codes, if they were seen at or after `since`.
pub(crate) fn teams_of(
    connection: &mut AnyConnection,
    tenant: &TenantId,
    actor: &ActorRef,
    since: Timestamp,
) -> Result<Vec<String>, StoreError> {
    let teams: Option<String> = actors::table
        .find((tenant.as_str(), actor.as_str()))
        .filter(actors::seen.ge(since.0))
        .select(actors::teams)
        .first(connection)
        .optional()
        .or_refused()?;
    match teams {
        Some(teams) => serde_json::from_str(&teams).map_err(|_| unreadable("teams")),
        None => Ok(Vec::new()),
    }
}

/// Remembers an actor's teams.
pub(crate) fn remember(
    unit: &mut Unit<'_>,
    tenant: &TenantId,
    actor: &ActorRef,
    teams: &[String],
    seen: Timestamp,
) -> Result<(), StoreError> {
    unit.settle_tables(&["actors"])?;
    let teams =
        serde_json::to_string(teams).map_err(|_| StoreError::Broken("teams can't be stored".to_owned()))?;
    let known = diesel::update(actors::table.find((tenant.as_str(), actor.as_str())))
        .set((actors::teams.eq(&teams), actors::seen.eq(seen.0)))
        .execute(unit.connection)
        .or_refused()?;
    if known == 0 {
        // Another may be adding the same: one of the two is refused, and finds the row when it tries again.
        unit.bulk.add(
            &ACTORS,
            vec![
                tenant.as_str().into(),
                actor.as_str().into(),
                teams.into(),
                seen.0.into(),
            ],
        );
    }
    Ok(())
}
