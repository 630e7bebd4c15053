//! What a web socket tells: handshakes, events in their order as far as its client takes them, heartbeats, and the last
//! word of a subscription. Everything is read anew before it is told; only how far that is stands here.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use actix_http::ws::CloseCode;
use bytes::Bytes;
use handoff_domain::ids::SubscriptionId;
use handoff_domain::ports::Due;
use handoff_domain::standing::Standing;
use handoff_domain::subscription::{Payload, Subscription, SubscriptionStatus};
use handoff_domain::time::{Span, Timestamp};
use tokio::time::{Duration, MissedTickBehavior, interval, sleep};

use super::frames::{self, Outgoing, Unsent};
use super::socket::{End, LOOK_EVERY, Socket};
use crate::app::bindings::Bound;
use crate::app::ear::{Bell, Listening};
use crate::app::listening::{Heard, Over};
use crate::app::subscriber::Told;
use crate::app::{App, Rules};
use crate::fhir::notification::{NoticeKind, Notification};
use crate::http::room::Taken;
use crate::telemetry::notifications as metrics;

/// How many notifications of one subscription are told before it is the others' turn.
const AT_ONCE: usize = 16;
/// The most events of a look for a client that is told one by one.
const PINGS_AT_ONCE: u32 = 50;
/// The pause after the database could not be asked, or where there was no room for what it had.
const PAUSE: Duration = Duration::from_millis(250);
/// How often rights are looked at that only time can have changed.
const RIGHTS_EVERY: Duration = Duration::from_secs(30);

/// In which way a client is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Style {
    /// Base R4: that something happened.
    Pings,
    /// Backport: Bundles.
    Bundles,
}

/// A subscription that the socket hears.
struct Heeded {
    style: Style,
    subscription: Subscription,
    /// The number of the last event, told or withheld.
    told: i64,
    last_sent: Timestamp,
    _listening: Listening,
}

/// What a socket hears and tells.
pub(super) struct Desk<'s> {
    socket: &'s Socket,
    out: Outgoing,
    bell: Arc<Bell>,
    heeded: RefCell<HashMap<Due, Heeded>>,
    was_bound: Cell<bool>,
}

/// What rights were last looked at by.
struct Judged {
    standing: Arc<Standing>,
    rules: Arc<Rules>,
    at: Instant,
}

impl<'s> Desk<'s> {
    pub(super) fn new(socket: &'s Socket, out: Outgoing) -> Self {
        Self {
            socket,
            out,
            bell: Arc::default(),
            heeded: RefCell::default(),
            was_bound: Cell::new(false),
        }
    }

    const fn app(&self) -> &App {
        &self.socket.state.app
    }

    fn due(&self, id: &SubscriptionId) -> Due {
        Due {
            tenant: self.socket.context.tenant.clone(),
            id: id.clone(),
        }
    }

    /// Whether anything was ever bound.
    pub(super) const fn was_bound(&self) -> bool {
        self.was_bound.get()
    }

    /// Whether something is bound by an access token.
    pub(super) fn has_pings(&self) -> bool {
        self.heeded.borrow().values().any(|one| one.style == Style::Pings)
    }

    /// Waits until the client is gone.
    pub(super) async fn gone(&self) {
        self.out.gone().await;
    }

    /// Sends frames of the protocol itself, where nothing waits.
    pub(super) fn offer(&self, bytes: Bytes) {
        self.out.offer(bytes);
    }

    /// Says something in words.
    pub(super) async fn say(&self, words: &str) -> Result<(), Unsent> {
        self.out.send(frames::text(words), None).await
    }

    /// Says in words why the socket ends.
    pub(super) async fn refuse(&self, end: End) -> End {
        if let End::Closed(_, _, why) = &end
            && let Err(unsent) = self.say(&format!("error: {why}")).await
        {
            return unsent.into();
        }
        end
    }

    /// Whether there is room for these subscriptions too.
    pub(super) fn room_for(&self, ids: &[&SubscriptionId]) -> Result<(), End> {
        let most = self.socket.state.sockets.limits().max_subscriptions;
        let heeded = self.heeded.borrow();
        let new = ids
            .iter()
            .filter(|id| !heeded.contains_key(&self.due(id)))
            .count();
        if heeded.len().saturating_add(new) > most {
            let why = format!("a web socket hears at most {most} subscriptions; open another one");
            return Err(End::policy("too-many-subscriptions", why));
        }
        Ok(())
    }

    /// Tells that a subscription is bound, and hears it from here on.
    pub(super) async fn bind(&self, bound: Bound, style: Style) -> Result<(), End> {
        let Bound { subscription, events } = bound;
        let which = self.due(&subscription.id);
        match style {
            Style::Pings => self.say(&format!("bound {}", subscription.id)).await?,
            Style::Bundles => {
                let kind = NoticeKind::Handshake;
                self.send_bundle(&subscription, subscription.status, kind, events, &[], None)
                    .await?;
            }
        }
        self.was_bound.set(true);
        let now = self.app().clock.now();
        let mut heeded = self.heeded.borrow_mut();
        // Who binds it once more goes on from where it was.
        let told = heeded.remove(&which).map_or(events, |before| before.told);
        let listening = self.app().ear.listen(&which, &self.bell);
        let one = Heeded {
            style,
            subscription,
            told,
            last_sent: now,
            _listening: listening,
        };
        heeded.insert(which, one);
        Ok(())
    }

    /// Tells whatever there is, until the socket ends.
    pub(super) async fn tell(&self) -> End {
        let mut ticks = interval(LOOK_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut judged = None;
        loop {
            let told = tokio::select! {
                () = self.bell.rung() => Ok(()),
                _ = ticks.tick() => {
                    self.look_at_rights(&mut judged);
                    self.beat().await
                }
            };
            if let Err(end) = told {
                return end;
            }
            for which in self.bell.answer() {
                if let Err(end) = self.catch_up(&which).await {
                    return end;
                }
            }
        }
    }

    /// Tells what there is of a subscription.
    async fn catch_up(&self, which: &Due) -> Result<(), End> {
        for _ in 0..AT_ONCE {
            let Some((style, told, most)) = self.heeded.borrow().get(which).map(|one| {
                let most = match one.style {
                    Style::Pings => PINGS_AT_ONCE,
                    Style::Bundles => one.subscription.channel.max_count,
                };
                (one.style, one.told, most)
            }) else {
                return Ok(());
            };
            let heard = self.app().hear(which, told, most).await;
            if heard.is_ok() {
                self.socket.state.sockets.fails(false);
            }
            match heard {
                Ok(Heard::Nothing(subscription)) => {
                    if let Some(one) = self.heeded.borrow_mut().get_mut(which) {
                        one.subscription = *subscription;
                    }
                    return Ok(());
                }
                Ok(Heard::Events(news)) => {
                    if !news.told.is_empty() {
                        self.send_events(style, &news.subscription, &news.told, news.until)
                            .await?;
                        metrics::notification_sent(true);
                    }
                    let now = self.app().clock.now();
                    if let Some(one) = self.heeded.borrow_mut().get_mut(which) {
                        one.subscription = news.subscription;
                        one.told = news.until;
                        if !news.told.is_empty() {
                            one.last_sent = now;
                        }
                    }
                }
                Ok(Heard::Over(over)) => return self.end(which, style, &over).await,
                Err(error) => {
                    if self.socket.state.sockets.fails(true) {
                        let cause = error.cause.as_deref().unwrap_or(error.reason.as_str());
                        tracing::error!(
                            cause,
                            "what web sockets should tell can't be read or recorded, and will be again"
                        );
                    }
                    sleep(PAUSE).await;
                    break;
                }
            }
        }
        self.bell.rings(which);
        Ok(())
    }

    async fn send_events(
        &self,
        style: Style,
        subscription: &Subscription,
        told: &[Told],
        until: i64,
    ) -> Result<(), End> {
        if style == Style::Bundles {
            let at = told.last().map(|one| one.event.at);
            let kind = NoticeKind::Event;
            return self
                .send_bundle(subscription, SubscriptionStatus::Active, kind, until, told, at)
                .await;
        }
        let pings = frames::repeated(&format!("ping {}", subscription.id), told.len());
        Ok(self.out.send(pings, None).await?)
    }

    /// The last word about a subscription; with the last subscription the socket ends.
    async fn end(&self, which: &Due, style: Style, over: &Over) -> Result<(), End> {
        self.heeded.borrow_mut().remove(which);
        let end = End::policy("over", over.why);
        if style == Style::Pings {
            return Err(end);
        }
        if let Some(subscription) = &over.subscription {
            let kind = NoticeKind::Heartbeat;
            self.send_bundle(subscription, over.status, kind, over.events, &[], None)
                .await?;
        }
        if self.heeded.borrow().is_empty() {
            Err(end)
        } else {
            Ok(())
        }
    }

    /// Sends the heartbeats that are due.
    async fn beat(&self) -> Result<(), End> {
        let now = self.app().clock.now();
        let due: Vec<(Due, Subscription, i64)> = self
            .heeded
            .borrow()
            .iter()
            .filter(|(_, one)| {
                let period = one
                    .subscription
                    .channel
                    .heartbeat
                    .map(|period| Span::seconds(i64::from(period)));
                one.style == Style::Bundles
                    && one.subscription.status == SubscriptionStatus::Active
                    && period.is_some_and(|period| one.last_sent.plus(period) <= now)
            })
            .map(|(which, one)| (which.clone(), one.subscription.clone(), one.told))
            .collect();
        for (which, subscription, told) in due {
            let kind = NoticeKind::Heartbeat;
            self.send_bundle(&subscription, subscription.status, kind, told, &[], None)
                .await?;
            if let Some(one) = self.heeded.borrow_mut().get_mut(&which) {
                one.last_sent = now;
            }
        }
        Ok(())
    }

    /// Rings for those whose subscriber may not be told any more. What follows is up to who looks then.
    fn look_at_rights(&self, judged: &mut Option<Judged>) {
        let app = self.app();
        let (standing, rules) = (app.standing.of(&self.socket.context.tenant), app.rules.now());
        if judged.as_ref().is_some_and(|before| {
            *before.standing == *standing
                && Arc::ptr_eq(&before.rules, &rules)
                && before.at.elapsed() < RIGHTS_EVERY
        }) {
            return;
        }
        *judged = Some(Judged {
            standing,
            rules,
            at: Instant::now(),
        });
        for (which, one) in self.heeded.borrow().iter() {
            // What can't be said is looked at again then.
            if !matches!(app.refuses(which, &one.subscription), Ok(None)) {
                self.bell.rings(which);
            }
        }
    }

    async fn send_bundle(
        &self,
        subscription: &Subscription,
        status: SubscriptionStatus,
        kind: NoticeKind,
        events: i64,
        told: &[Told],
        at: Option<Timestamp>,
    ) -> Result<(), End> {
        let app = self.app();
        let bundle = Notification {
            base: &app.settings.fhir_base(&self.socket.context.tenant),
            subscription,
            status,
            kind,
            payload: payload_of(subscription),
            events,
            told,
            problem: None,
            at: at.unwrap_or_else(|| app.clock.now()),
        }
        .bundle();
        // Our own writer makes nothing else.
        let text = String::from_utf8(bundle)
            .map_err(|_| End::closed(CloseCode::Error, "unavailable", "a notification can't be written"))?;
        let taken = self.room(text.len()).await?;
        Ok(self.out.send(frames::text(text), Some(taken)).await?)
    }

    /// Room for what is on its way, which all requests share.
    async fn room(&self, bytes: usize) -> Result<Taken, End> {
        let began = Instant::now();
        let mut taken = self.socket.state.room.body();
        while !taken.more(bytes) {
            if began.elapsed() >= self.socket.patience {
                let why = "there is no room for a notification; fetch the rest by $events";
                return Err(End::closed(CloseCode::Again, "no-room", why));
            }
            sleep(PAUSE).await;
        }
        Ok(taken)
    }
}

/// How much Bundles hold; what asks for base R4 and is bound as the Backport has it, is told as much.
const fn payload_of(subscription: &Subscription) -> Payload {
    match subscription.channel.payload {
        Payload::Bare | Payload::Empty => Payload::Empty,
        Payload::IdOnly => Payload::IdOnly,
        Payload::Resource | Payload::FullResource => Payload::FullResource,
    }
}
