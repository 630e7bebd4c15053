//! One notification to one endpoint. Whether the endpoint took it is all that is looked at: what it answers is not read.

use std::sync::Arc;
use std::time::Duration;

use handoff_domain::ports::{Clock, Outbound, OutboundMethod, OutboundRequest, SendError};
use handoff_domain::subscription::{Failure, Payload, Route, SubscriptionStatus};
use handoff_domain::time::{Span, Timestamp};
use handoff_outbound::signing::{SigningSecret, headers};

use crate::app::Settings;
use crate::app::deliveries::{Notice, Sending};
use crate::fhir::notification::{NoticeKind, Notification};
use crate::telemetry::notifications as metrics;

/// Sends notifications.
pub struct Courier {
    /// The way out.
    pub outbound: Arc<dyn Outbound>,
    /// What signatures are dated by.
    pub clock: Arc<dyn Clock>,
    /// What is set.
    pub settings: Arc<Settings>,
}

impl Courier {
    /// Sends a notification; it is delivered when the endpoint says so.
    pub(super) async fn send(&self, notice: &Notice) -> Result<(), Failure> {
        let request = self.request(notice)?;
        let answer = self.outbound.send(request).await;
        let outcome = match answer {
            Ok(answer) if (200..300).contains(&answer.status) => Ok(()),
            Ok(answer) => Err(Failure {
                problem: format!("status-{}", answer.status),
                retry_after: answer.retry_after.map(span),
                gone: answer.status == 410,
            }),
            Err(SendError::Redirected { status }) => Err(failure(format!("status-{status}"))),
            Err(error) => Err(failure(error.as_str().to_owned())),
        };
        metrics::notification_sent(outcome.is_ok());
        outcome
    }

    fn request(&self, notice: &Notice) -> Result<OutboundRequest, Failure> {
        let subscription = &notice.subscription;
        let channel = &subscription.channel;
        let Route::RestHook(endpoint) = &channel.route else {
            return Err(failure("no-endpoint".to_owned()));
        };
        let (method, url, body) = match (channel.payload, notice.sending, notice.told.first()) {
            (Payload::Resource, Sending::Events, Some(told)) => {
                let url = format!("{}/{}", endpoint.trim_end_matches('/'), told.event.focus);
                (OutboundMethod::Put, url, told.body.clone())
            }
            // Base R4 has no form for a handshake: that the endpoint answers is all there is to see.
            (Payload::Bare | Payload::Resource, ..) => (OutboundMethod::Post, endpoint.clone(), Vec::new()),
            (Payload::Empty | Payload::IdOnly | Payload::FullResource, ..) => {
                (OutboundMethod::Post, endpoint.clone(), self.bundle(notice))
            }
        };
        let mut all = Vec::new();
        for line in &notice.secrets.headers {
            if let Some((name, value)) = line.split_once(':') {
                all.push((name.trim().to_owned(), value.trim().to_owned()));
            }
        }
        if let Some(media_type) = channel.media_type.as_deref().filter(|_| !body.is_empty()) {
            all.push(("Content-Type".to_owned(), media_type.to_owned()));
        }
        if let Some(told) = notice.told.first() {
            all.push(("X-Correlation-Id".to_owned(), told.event.correlation.clone()));
            // Whose resource it is that base R4 puts at the subscriber's: nothing else of it says so.
            if channel.payload.content().is_none() && !body.is_empty() {
                let base = self.settings.fhir_base(&notice.tenant);
                all.push((
                    "Content-Location".to_owned(),
                    format!("{base}{}/_history/{}", told.event.focus, told.event.version),
                ));
            }
        }
        let secret = SigningSecret::parse(&notice.secrets.signing)
            .map_err(|_| failure("secrets-unreadable".to_owned()))?;
        let seconds = self.clock.now().0.div_euclid(1_000_000);
        for (name, value) in headers(&[secret], &id_of(notice), seconds, &body) {
            all.push((name.to_owned(), value));
        }
        Ok(OutboundRequest {
            method,
            url,
            headers: all,
            body,
            timeout: Duration::from_secs(u64::from(channel.timeout)),
            answer_limit: 0,
        })
    }

    fn bundle(&self, notice: &Notice) -> Vec<u8> {
        let subscription = &notice.subscription;
        let (kind, status) = match notice.sending {
            Sending::Handshake => (NoticeKind::Handshake, SubscriptionStatus::Requested),
            Sending::Heartbeat => (NoticeKind::Heartbeat, subscription.status),
            Sending::Events => (NoticeKind::Event, SubscriptionStatus::Active),
        };
        let at = instant_of(notice);
        Notification {
            base: &self.settings.fhir_base(&notice.tenant),
            subscription,
            status,
            kind,
            payload: subscription.channel.payload,
            events: notice.range.1,
            told: &notice.told,
            problem: None,
            at: at.max(Timestamp(0)),
        }
        .bundle()
    }
}

/// What a notification is called at each attempt: subscribers know by it what they had before.
fn id_of(notice: &Notice) -> String {
    let (id, shape) = (&notice.subscription.id, notice.subscription.shape);
    let (from, until) = notice.range;
    match notice.sending {
        Sending::Events => format!("{id}-{shape}-{from}-{until}{}", part_of(notice)),
        Sending::Handshake => format!("{id}-{}-{until}-handshake", notice.subscription.version),
        Sending::Heartbeat => {
            let since = notice.course.last_sent.map_or(0, |at| at.0);
            format!("{id}-{shape}-{until}-beat-{since}")
        }
    }
    .replace('.', "-")
}

/// Which of the events of its range a notification tells, where those are not all: what is withheld by now may have been
/// told before, and other content is never under the same id.
fn part_of(notice: &Notice) -> String {
    let (from, until) = notice.range;
    let all = until.saturating_sub(from).saturating_add(1);
    if i64::try_from(notice.told.len()) == Ok(all) {
        return String::new();
    }
    let told = notice.told.iter().fold(0_u128, |told, one| {
        let place = u32::try_from(one.number.saturating_sub(from)).unwrap_or(u32::MAX);
        told | 1_u128.checked_shl(place).unwrap_or(0)
    });
    format!("-{told:x}")
}

/// When what it tells came to be. That does not change however often it is sent: a notification is repeated byte by byte.
fn instant_of(notice: &Notice) -> Timestamp {
    let subscription = &notice.subscription;
    match (notice.sending, notice.told.last(), notice.course.last_sent) {
        (Sending::Events, Some(told), _) => told.event.at,
        (Sending::Heartbeat, _, Some(last)) => last.plus(Span::seconds(i64::from(
            subscription.channel.heartbeat.unwrap_or(0),
        ))),
        _ => subscription.last_updated,
    }
}

fn failure(problem: String) -> Failure {
    Failure {
        problem,
        retry_after: None,
        gone: false,
    }
}

fn span(duration: Duration) -> Span {
    Span(i64::try_from(duration.as_micros()).unwrap_or(i64::MAX))
}
