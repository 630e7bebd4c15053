//! Sources: who they are and with whose rights they act. A source is a placer that speaks to us by notices; what it may do
//! is decided by the same rules as anybody's request.

use std::collections::BTreeSet;
use std::sync::Arc;

use handoff_domain::access::{Attributes, Principal, Role};
use handoff_domain::audit::{Agent, AuditRow, Context};
use handoff_domain::ids::{SourceId, TenantId};
use handoff_domain::ports::{self, Store, Tx};
use handoff_domain::reason::Reason;
use handoff_domain::source::{Feed, Settings, Source};
use handoff_domain::time::Timestamp;

use super::caps::Caps;
use super::{App, AppError, Caller, Class};

/// The most sources of a tenant.
const MOST_SOURCES: usize = 200;

impl App {
    /// A source of a tenant.
    pub async fn source(&self, tenant: &TenantId, id: &SourceId) -> Result<Option<Source>, AppError> {
        let (tenant, id) = (tenant.clone(), id.clone());
        self.read(move |read| Ok(read.source(&tenant, &id)?)).await
    }
}

/// A source as a caller: the placer that it acts as, in the circumstances of a request or of a run of a job.
pub fn caller_of(source: &Source, context: Context) -> Caller {
    let actor = source.settings.acts_as.clone();
    let roles = BTreeSet::from([Role::Placer]);
    let agent = Agent {
        actor: Some(actor.to_string()),
        client: Some(source.client()),
        roles: roles.iter().copied().collect(),
        address: context.agent.address.clone(),
        user_agent: context.agent.user_agent.clone(),
        ..Agent::default()
    };
    Caller {
        principal: Arc::new(Principal {
            tenant: context.tenant.clone(),
            issuer: String::new(),
            subject: source.id.to_string(),
            client: source.client(),
            actor,
            delegate: None,
            roles,
            teams: BTreeSet::new(),
            scopes: BTreeSet::new(),
            patient: None,
            key: None,
            token_id: String::new(),
            attributes: Attributes::default(),
        }),
        context: Context {
            agent: Arc::new(agent),
            ..context
        },
        session: None,
        caps: Caps::Unbounded,
    }
}

/// Adds a source, recorded by `row`. One of that name is replaced where `replace` says so, and goes on from where it was.
pub fn add(
    tx: &mut dyn Tx,
    tenant: &TenantId,
    id: &SourceId,
    settings: &Settings,
    replace: bool,
    row: AuditRow,
) -> Result<(), AppError> {
    settings
        .check()
        .map_err(|error| AppError::bad(error.to_string()))?;
    let row = about_source(row, id, "source-added").detail("actor", settings.acts_as.as_str());
    match tx.lock_source(tenant, id)? {
        Some(known) if replace => tx.update_source(
            tenant,
            &Source {
                settings: settings.clone(),
                ..known
            },
        )?,
        Some(_) => {
            let text =
                format!("there is a source `{id}` already; say `--replace` to replace all of its settings");
            return Err(AppError::new(Class::Conflict, Reason::Invalid, text));
        }
        None => {
            if tx.sources(Some(tenant))?.len() >= MOST_SOURCES {
                let text = format!("a tenant has {MOST_SOURCES} sources at the most");
                return Err(AppError::new(Class::Conflict, Reason::TooLarge, text));
            }
            let source = Source {
                id: id.clone(),
                settings: settings.clone(),
                added_at: row.recorded,
                feed: Feed {
                    // What changed before it was known is not asked for.
                    asked_to: Some(row.recorded),
                    ..Feed::default()
                },
            };
            tx.insert_source(tenant, &source)?;
        }
    }
    tx.record(tenant, row);
    Ok(())
}

/// Removes a source, recorded by `row`. What it told stays, and facts that followed from it stand until they are lifted
/// by another source of the same resources.
pub fn remove(tx: &mut dyn Tx, tenant: &TenantId, id: &SourceId, row: AuditRow) -> Result<(), AppError> {
    if !tx.remove_source(tenant, id)? {
        return Err(AppError::not_found());
    }
    tx.record(tenant, about_source(row, id, "source-removed"));
    Ok(())
}

fn about_source(row: AuditRow, id: &SourceId, act: &str) -> AuditRow {
    row.detail("act", act).detail("source", id.as_str())
}

/// Adds a source that a demo is started with, where there is none of that name.
pub async fn preset(
    store: &dyn Store,
    tenant: TenantId,
    id: SourceId,
    settings: Settings,
    now: Timestamp,
) -> Result<(), AppError> {
    ports::write(store, move |tx| {
        if tx.source(&tenant, &id)?.is_some() {
            return Ok(());
        }
        let source = Source {
            id: id.clone(),
            settings: settings.clone(),
            added_at: now,
            feed: Feed::default(),
        };
        Ok(tx.insert_source(&tenant, &source)?)
    })
    .await
}
