//! Who is known to a demo from the start: its cast, and its source of notifications.

use std::collections::BTreeSet;

use handoff_domain::ids::{ActorRef, SourceId, TenantId};
use handoff_domain::ports::{self, Store, StoreError};
use handoff_domain::source as feed;
use handoff_domain::time::Timestamp;
use handoff_identity::dev_issuer::Realm;
use sha2::{Digest as _, Sha256};

use crate::app::{AppError, sources};

/// Stores in which teams the demo's cast is, as if all of them had signed in just now.
pub(super) async fn introduce_cast(store: &dyn Store, now: Timestamp) -> Result<(), StoreError> {
    let mut cast = Vec::new();
    for realm in Realm::ALL {
        for member in realm.cast().iter().filter(|member| !member.teams.is_empty()) {
            if let (Ok(tenant), Ok(actor)) =
                (TenantId::parse(realm.tenant()), ActorRef::parse(member.fhir_user))
            {
                let teams: Vec<String> = member.teams.iter().map(|team| (*team).to_owned()).collect();
                cast.push((tenant, actor, teams));
            }
        }
    }
    ports::write(store, move |tx| {
        for (tenant, actor, teams) in &cast {
            tx.remember_actor(tenant, actor, teams, now)?;
        }
        Ok::<(), StoreError>(())
    })
    .await
}

/// Stores the demo's source `ehr-feed`, which acts as `ehr`.
pub(super) async fn introduce_feed(store: &dyn Store, now: Timestamp) -> Result<(), AppError> {
    let named = |error: handoff_domain::ids::IdError| AppError::bad(error.to_string());
    let settings = feed::Settings {
        base: None,
        acts_as: ActorRef::parse("Organization/referring-clinic").map_err(named)?,
        topics: BTreeSet::new(),
        types: feed::FeedType::ALL.iter().copied().collect(),
        trust: feed::Trust::AsSent,
        content: feed::ContentRule::Keep,
        proof: feed::Proof::Bearer {
            sha256: Sha256::digest("demo").into(),
        },
        credentials: None,
    };
    let id = SourceId::parse("ehr-feed").map_err(named)?;
    sources::preset(store, TenantId::default_tenant(), id, settings, now).await
}
