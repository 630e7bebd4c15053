//! Watching over sources: a subscription that should have been heard of and was not, or that its source gave up, is asked
//! about and asked for again, and the source for everything that changed meanwhile.

use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{self, StreamExt as _};
use tokio::time::timeout;

use handoff_domain::audit::{Agent, Context};
use handoff_domain::ids::{CorrelationId, TenantId};
use handoff_domain::inbox::{FeedSubscription, split_reference};
use handoff_domain::ports::SourceAct;
use handoff_domain::source::Source;
use handoff_domain::time::Span;
use handoff_fhir_model::{ParseOptions, parse};
use serde_json::{Value, json};

use super::apply::ask;
use super::inbox::{Item, Told};
use super::json_edit::set_field;
use super::sources::caller_of;
use super::{App, AppError, Caller, Cuts};

/// How many sources are asked at once, and how long each has.
const AT_ONCE: usize = 16;
const PATIENCE: Duration = Duration::from_mins(1);
/// How long one process watches before another may.
const TURN: Span = Span::seconds(30);

/// Looks after every source that can be asked.
pub async fn run_once(app: &App) -> Result<(), AppError> {
    let sources: Vec<(TenantId, Source)> = app.read(|read| Ok(read.sources(None)?)).await?;
    let asked: Vec<_> = sources
        .into_iter()
        .filter(|(_, source)| source.settings.base.is_some())
        .collect();
    if asked.is_empty() || !app.store.lease("feed-watch", &app.settings.process, TURN).await? {
        return Ok(());
    }
    // One that does not answer keeps the others waiting no longer than that.
    let each = asked.into_iter().map(|(tenant, source)| async move {
        match timeout(PATIENCE, look_after(app, &tenant, &source)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::warn!(source = %source.id, cause = ?error.cause, "a source could not be looked after");
            }
            Err(_) => tracing::warn!(source = %source.id, "a source does not answer"),
        }
    });
    stream::iter(each).buffer_unordered(AT_ONCE).collect::<()>().await;
    Ok(())
}

async fn look_after(app: &App, tenant: &TenantId, source: &Source) -> Result<(), AppError> {
    let now = app.clock.now();
    let (of, id) = (tenant.clone(), source.id.clone());
    let known: Vec<FeedSubscription> = app
        .read(move |read| Ok(read.feed_subscriptions(&of, &id)?))
        .await?;
    for subscription in known {
        let given_up = matches!(subscription.status.as_str(), "error" | "off");
        // Where no heartbeat was asked for, that it was given up is all that can be known.
        let patience = subscription.heartbeat.unwrap_or(Span::minutes(5));
        let is_time = now.since(subscription.heard_at).0 > patience.0.saturating_mul(2);
        if subscription.is_silent(now) || (given_up && is_time && subscription.heartbeat.is_some()) {
            tracing::warn!(source = %source.id, "a subscription at a source is silent or was given up");
            recover(app, tenant, source, subscription).await?;
        }
    }
    Ok(())
}

/// Asks for everything that changed, and for the subscription to be active again.
async fn recover(
    app: &App,
    tenant: &TenantId,
    source: &Source,
    known: FeedSubscription,
) -> Result<(), AppError> {
    let caller = caller(app, tenant, source)?;
    let told = Told {
        items: vec![Item::changes()],
        ..Told::default()
    };
    app.take_in(&caller, source.id.clone(), told).await?;
    let status = reactivate(app, source, &known.reference).await;
    let (of, now) = (tenant.clone(), app.clock.now());
    let (id, reference) = (source.id.clone(), known.reference.clone());
    let told = status.as_ref().ok().cloned();
    app.write(tenant, move |tx| {
        let stored = tx.feed_subscriptions(&of, &id)?;
        if let Some(mut stored) = stored.into_iter().find(|one| one.reference == reference) {
            // From now on it has another while to be heard of.
            stored.heard_at = now;
            if let Some(status) = &told {
                stored.status.clone_from(status);
            }
            tx.put_feed_subscription(&of, &stored)?;
        }
        Ok(((), Cuts::none()))
    })
    .await?;
    status.map(drop)
}

/// Asks for a subscription to be active, where it is ours to ask and is not. Answers its status.
async fn reactivate(app: &App, source: &Source, reference: &str) -> Result<String, AppError> {
    if split_reference(reference).is_none_or(|(kind, _)| kind != "Subscription") {
        return Ok("requested".to_owned());
    }
    let answer = ask(app, source, SourceAct::Get, reference).await?;
    if answer.status != 200 {
        return Ok("off".to_owned());
    }
    let resource =
        parse(&answer.body, &ParseOptions::expecting("Subscription")).map_err(AppError::invalid)?;
    let status = resource
        .value()
        .get("status")
        .and_then(Value::as_str)
        .unwrap_or("error")
        .to_owned();
    if matches!(status.as_str(), "active" | "requested") {
        return Ok(status);
    }
    let mut asked = resource.into_value();
    set_field(&mut asked, "status", json!("requested"));
    let body = asked.to_string().into_bytes();
    let answer = ask(app, source, SourceAct::Put(body), reference).await?;
    Ok(if answer.status < 300 { "requested" } else { "error" }.to_owned())
}

fn caller(app: &App, tenant: &TenantId, source: &Source) -> Result<Caller, AppError> {
    let now = app.clock.now();
    let context = Context {
        tenant: tenant.clone(),
        correlation: CorrelationId::parse(app.entropy.ordered_id(now))
            .map_err(|e| AppError::bad(e.to_string()))?,
        now,
        agent: Arc::new(Agent::default()),
    };
    Ok(caller_of(source, context))
}
