//! Subscribing at a source: a Subscription of the Backport IG for each topic that it may tell of, with heartbeats, whose
//! endpoint is our route for its notifications. Runs beside a server, so it asks the port and not the app.

use handoff_domain::ids::TenantId;
use handoff_domain::inbox::FeedSubscription;
use handoff_domain::ports::{self, SourceAct, SourceRequest, SourceServer, Store};
use handoff_domain::reason::Reason;
use handoff_domain::source::{Source, Trust};
use handoff_domain::time::{Span, Timestamp};
use handoff_fhir_model::{ParseOptions, parse};
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};

use super::{AppError, Class};

/// How often we want to hear that a subscription lives.
const HEARTBEAT: Span = Span::minutes(1);
/// The most bytes of the answer.
const ANSWER_LIMIT: usize = 1 << 20;
/// The extensions of the Backport IG.
const IG: &str = "http://hl7.org/fhir/uv/subscriptions-backport/StructureDefinition";

/// Subscribes at a source to each of its topics; answers the subscriptions there. `secret` is what it will send along.
pub async fn subscribe(
    store: &dyn Store,
    server: &dyn SourceServer,
    tenant: &TenantId,
    source: &Source,
    endpoint: &str,
    secret: Option<&SecretString>,
    now: Timestamp,
) -> Result<Vec<String>, AppError> {
    let mut made = Vec::new();
    for topic in &source.settings.topics {
        let body = subscription(source, topic, endpoint, secret)
            .to_string()
            .into_bytes();
        let request = SourceRequest {
            act: SourceAct::Post(body),
            path: "Subscription".to_owned(),
            answer_limit: ANSWER_LIMIT,
        };
        let answer = server.ask(source, request).await.map_err(|error| {
            AppError::new(Class::Unavailable, Reason::StorageUnavailable, error.to_string())
        })?;
        if !(200..300).contains(&answer.status) {
            return Err(AppError::new(
                Class::Unprocessable,
                Reason::NotSupported,
                format!(
                    "the source refuses the Subscription (status {}){}",
                    answer.status,
                    match answer.status {
                        401 | 403 =>
                            ": give `--client-id` and `--key-file` of a client that may create Subscriptions there",
                        404 | 405 | 501 =>
                            ": it has no Subscriptions at that base; have it send by its own means",
                        _ => ": look at the topic, and at what the source says of it",
                    }
                ),
            ));
        }
        let reference = named(source, answer.location.as_deref(), &answer.body).ok_or_else(|| {
            AppError::bad("the source made a Subscription and does not say which; look there, and remove it")
        })?;
        note(store, tenant, source, &reference, now).await?;
        made.push(reference);
    }
    Ok(made)
}

fn subscription(source: &Source, topic: &str, endpoint: &str, secret: Option<&SecretString>) -> Value {
    let content = match source.settings.trust {
        Trust::AsSent => "full-resource",
        Trust::ReRead => "id-only",
    };
    let mut channel = json!({
        "extension": [{
            "url": format!("{IG}/backport-heartbeat-period"),
            "valueUnsignedInt": HEARTBEAT.whole_seconds()
        }],
        "type": "rest-hook",
        "endpoint": endpoint,
        "payload": "application/fhir+json",
        "_payload": {"extension": [{"url": format!("{IG}/backport-payload-content"), "valueCode": content}]},
    });
    if let (Some(secret), Some(channel)) = (secret, channel.as_object_mut()) {
        let header = format!("Authorization: Bearer {}", secret.expose_secret());
        channel.insert("header".to_owned(), json!([header]));
    }
    json!({
        "resourceType": "Subscription",
        "meta": {"profile": [format!("{IG}/backport-subscription")]},
        "status": "requested",
        "reason": "Handoff releases documents while their Task is actionable, and has to know when it is not",
        "criteria": topic,
        "channel": channel,
    })
}

/// `Subscription/1` of the answer: by where it is, or else by what it is.
fn named(source: &Source, location: Option<&str>, body: &[u8]) -> Option<String> {
    let by_place = location.and_then(|location| {
        let local = source.local(location);
        let start = local.rfind("Subscription/")?;
        local.get(start..).map(str::to_owned)
    });
    by_place.or_else(|| {
        let made = parse(body, &ParseOptions::expecting("Subscription")).ok()?;
        made.id().map(|id| format!("Subscription/{id}"))
    })
}

/// Writes down that it is to be heard of. Its handshake may have come meanwhile.
async fn note(
    store: &dyn Store,
    tenant: &TenantId,
    source: &Source,
    reference: &str,
    now: Timestamp,
) -> Result<(), AppError> {
    let (tenant, source, reference) = (tenant.clone(), source.id.clone(), reference.to_owned());
    ports::write(store, move |tx| {
        let known = tx
            .feed_subscriptions(&tenant, &source)?
            .into_iter()
            .find(|known| known.reference == reference);
        let known = known.unwrap_or_else(|| FeedSubscription::new(source.clone(), reference.clone(), now));
        let watched = FeedSubscription {
            heartbeat: Some(HEARTBEAT),
            ..known
        };
        Ok(tx.put_feed_subscription(&tenant, &watched)?)
    })
    .await
}
