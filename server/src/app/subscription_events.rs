//! Events of a Subscription, told again to who asks for them: as far as they are kept, and as far as it may see them now.

use handoff_domain::audit::AuditRow;
use handoff_domain::ids::SubscriptionId;
use handoff_domain::ports::Attention;
use handoff_domain::subscription::{NumberedEvent, Payload};

use super::delivered::about_told;
use super::reads::{Asked, Shown};
use super::subscriber::{Listener, Telling, Told};
use super::{App, AppError, Caller, Scope};

/// The most events that one `$events` answers, and that are looked at for it. Who wants more asks on from the last number.
const MOST_EVENTS: usize = 500;
const MOST_LOOKED_AT: usize = 5_000;
/// Nor does it gather more when its resources take so many bytes.
const MOST_BYTES: usize = 8 * 1024 * 1024;
/// How many events are read at once.
const PAGE: u32 = 50;

/// Events of a subscription for one who asks, with how it stands.
#[derive(Debug)]
pub struct Recounted {
    /// How it stands.
    pub attention: Attention,
    /// The events.
    pub telling: Telling,
    /// How much is told of them.
    pub payload: Payload,
}

impl App {
    /// Events `from` to `until` of a Subscription, both included, as far as they are kept and the caller may see them: with
    /// as much of them as `payload` says, or else the Subscription.
    pub async fn subscription_events(
        &self,
        caller: &Caller,
        id: SubscriptionId,
        from: Option<i64>,
        until: Option<i64>,
        payload: Option<Payload>,
    ) -> Result<Recounted, AppError> {
        let attention = self.subscription_status(caller, id.clone()).await?;
        let own = attention.subscription.channel.payload;
        let payload = payload.unwrap_or(if own.content().is_some() {
            own
        } else {
            Payload::IdOnly
        });
        let scope = self.scope(caller);
        let listener = Listener::caller(scope.clone());
        let found = self.read(move |read| {
            let until = until.unwrap_or(attention.events).min(attention.events);
            let mut from = from.unwrap_or(1).max(1);
            let mut telling = Telling::default();
            let (mut size, mut looked_at) = (0_usize, 0_usize);
            while telling.told.len() < MOST_EVENTS && looked_at < MOST_LOOKED_AT && size < MOST_BYTES {
                let page: Vec<NumberedEvent> =
                    read.events(listener.scope().tenant(), &id, from, until, PAGE)?;
                let Some(last) = page.last() else {
                    break;
                };
                let last = last.number;
                looked_at = looked_at.saturating_add(page.len());
                let some = listener.tell(read, page, MOST_BYTES.saturating_sub(size))?;
                from = some.until.unwrap_or(last).saturating_add(1);
                size = some
                    .told
                    .iter()
                    .fold(size, |size, told| size.saturating_add(told.body.len()));
                telling.told.extend(some.told);
                telling.withheld.extend(some.withheld);
            }
            Ok(Recounted {
                attention,
                telling,
                payload,
            })
        });
        self.once_recorded(&scope, Some(Asked::events()), found.await)
            .await
    }
}

impl Shown for Recounted {
    fn rows(&self, scope: &Scope, asked: AuditRow) -> Vec<AuditRow> {
        let row = |told: &Told| {
            asked
                .clone()
                .about(about_told(scope, told, self.payload))
                .detail("subscription", self.attention.subscription.id.as_str())
                .detail("event", told.number.to_string())
                .detail("topic", told.event.topic.as_str())
        };
        self.telling.told.iter().map(row).collect()
    }
}
