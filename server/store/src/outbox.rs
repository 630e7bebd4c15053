//! The outbox: what subscribers are to be told, written in the transaction of the change. Sends nothing.

use handoff_domain::TenantId;
use handoff_domain::outbox::TopicEvent;

use crate::dialect::{Bulk, Column, Table};

static OUTBOX: Table = Table {
    name: "outbox",
    columns: &[
        ("tenant", Column::Text),
        ("topic", Column::Text),
        ("focus", Column::Text),
        ("version", Column::Int),
        ("change", Column::Text),
        ("grant_id", Column::Text),
        ("correlation", Column::Text),
        ("trace", Column::Text),
        ("pending", Column::Flag),
        ("at", Column::Int),
    ],
};

/// Adds an event.
pub(crate) fn add(bulk: &mut Bulk, tenant: &TenantId, event: TopicEvent) {
    bulk.add(
        &OUTBOX,
        vec![
            tenant.as_str().into(),
            event.topic.as_str().into(),
            event.focus.into(),
            event.version.into(),
            event.change.into(),
            event.grant.into(),
            event.correlation.into(),
            event.trace.map(String::from).into(),
            true.into(),
            event.at.0.into(),
        ],
    );
}
