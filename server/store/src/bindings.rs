//! Binding tokens, by their digests; and what connections of subscribers ask: how many events there are, and how far
//! they were told. Knows nothing of connections.

use std::collections::BTreeMap;

use diesel::prelude::*;
use diesel::sql_types::{BigInt, Text};
use handoff_domain::binding::Binding;
use handoff_domain::document::Sha256;
use handoff_domain::ports::{Counted, Due, StoreError};
use handoff_domain::{ActorRef, SubscriptionId, TenantId, Timestamp};

use crate::dialect::{AnyConnection, Column, Table};
use crate::error::{OrRefused, unreadable};
use crate::schema::binding_tokens as tokens;
use crate::statement::Statement;
use crate::unit::Unit;

/// How many subscriptions are asked about in one statement.
const AT_ONCE: usize = 500;

static TOKENS: Table = Table {
    name: "binding_tokens",
    columns: &[
        ("tenant", Column::Text),
        ("digest", Column::Bytes),
        ("creator", Column::Text),
        ("subscriptions", Column::Text),
        ("expires_at", Column::Int),
    ],
};

/// Keeps what a token is for.
pub(crate) fn keep(
    unit: &mut Unit<'_>,
    tenant: &TenantId,
    digest: &Sha256,
    binding: &Binding,
) -> Result<(), StoreError> {
    let subscriptions: Vec<&str> = binding.subscriptions.iter().map(SubscriptionId::as_str).collect();
    let subscriptions = serde_json::to_string(&subscriptions)
        .map_err(|_| StoreError::Broken("a binding token can't be stored".to_owned()))?;
    unit.bulk.add(
        &TOKENS,
        vec![
            tenant.as_str().into(),
            digest.0.to_vec().into(),
            binding.creator.as_str().into(),
            subscriptions.into(),
            binding.expires_at.0.into(),
        ],
    );
    Ok(())
}

/// What a token is for, which it is no more: of two who come with it one has it.
pub(crate) fn take(
    unit: &mut Unit<'_>,
    tenant: &TenantId,
    digest: &Sha256,
) -> Result<Option<Binding>, StoreError> {
    unit.settle_tables(&["binding_tokens"])?;
    let found: Option<(String, String, i64)> =
        Statement::<(Text, Text, BigInt)>::new("DELETE FROM binding_tokens WHERE tenant = ")
            .bind(tenant.as_str())
            .sql(" AND digest = ")
            .bind(digest.0.to_vec())
            .sql(" RETURNING creator, subscriptions, expires_at")
            .get_result(unit.connection)
            .optional()
            .or_refused()?;
    let Some((creator, subscriptions, expires_at)) = found else {
        return Ok(None);
    };
    let ids: Vec<String> = serde_json::from_str(&subscriptions).map_err(|_| unreadable("binding token"))?;
    let subscriptions: Result<Vec<_>, _> = ids.into_iter().map(SubscriptionId::parse).collect();
    Ok(Some(Binding {
        creator: ActorRef::parse(creator).map_err(|_| unreadable("binding token"))?,
        subscriptions: subscriptions.map_err(|_| unreadable("binding token"))?,
        expires_at: Timestamp(expires_at),
    }))
}

/// Forgets tokens of all tenants that are good no more; answers how many.
pub(crate) fn forget(unit: &mut Unit<'_>, now: Timestamp) -> Result<usize, StoreError> {
    unit.settle_tables(&["binding_tokens"])?;
    diesel::delete(tokens::table.filter(tokens::expires_at.le(now.0)))
        .execute(unit.connection)
        .or_refused()
}

/// How many events each of these has counted, and which version it is at; of those that exist.
pub(crate) fn counted(connection: &mut AnyConnection, which: &[Due]) -> Result<Vec<Counted>, StoreError> {
    let mut by_tenant: BTreeMap<&TenantId, Vec<&SubscriptionId>> = BTreeMap::new();
    for one in which {
        by_tenant.entry(&one.tenant).or_default().push(&one.id);
    }
    let mut all = Vec::with_capacity(which.len());
    for (tenant, ids) in by_tenant {
        for some in ids.chunks(AT_ONCE) {
            let rows: Vec<(String, i64, i64)> = Statement::<(Text, BigInt, BigInt)>::new(
                "SELECT n.subscription, n.events, s.version FROM subscription_counts n JOIN subscriptions s \
                 ON s.tenant = n.tenant AND s.id = n.subscription WHERE n.tenant = ",
            )
            .bind(tenant.as_str())
            .sql(" AND n.subscription")
            .one_of(some.iter().map(|id| id.as_str()))
            .load(connection)
            .or_refused()?;
            for (id, events, version) in rows {
                all.push(Counted {
                    which: Due {
                        tenant: tenant.clone(),
                        id: SubscriptionId::parse(id).map_err(|_| unreadable("subscription"))?,
                    },
                    events,
                    version,
                });
            }
        }
    }
    Ok(all)
}

/// Writes down how far a subscription was told, and nothing else of its course. It never goes back.
pub(crate) fn told(
    unit: &mut Unit<'_>,
    tenant: &TenantId,
    id: &SubscriptionId,
    until: i64,
    now: Timestamp,
) -> Result<(), StoreError> {
    unit.settle_tables(&["subscription_courses"])?;
    Statement::<()>::new("UPDATE subscription_courses SET last_sent = ")
        .bind(now.0)
        .sql(", delivered = ")
        .bind(until)
        .sql(" WHERE tenant = ")
        .bind(tenant.as_str())
        .sql(" AND subscription = ")
        .bind(id.as_str())
        .sql(" AND delivered <= ")
        .bind(until)
        .run(unit.connection)
        .map(drop)
        .or_refused()
}
