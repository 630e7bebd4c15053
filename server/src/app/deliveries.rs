//! What a subscription is to be told next, if anything. Sends nothing; what follows is `delivered`'s.

use handoff_domain::ids::TenantId;
use handoff_domain::ports::{Attention, Due};
use handoff_domain::subscription::{
    Course, Failure, NumberedEvent, Subscription, SubscriptionSecrets, SubscriptionStatus,
};
use handoff_domain::time::{Span, Timestamp};

use super::finish::server_itself;
use super::subscriber::{MUCH, Telling, Told};
use super::subscriptions::move_on;
use super::{App, AppError, Cuts};

/// The most events that one notification holds, whatever its subscriber would take.
pub const MOST_IN_ONE: u32 = 100;

/// What is to be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sending {
    /// The first notification of a subscription.
    Handshake,
    /// A sign of life.
    Heartbeat,
    /// Events.
    Events,
}

/// A notification to be sent.
#[derive(Debug)]
pub struct Notice {
    /// The tenant.
    pub tenant: TenantId,
    /// The subscription.
    pub subscription: Subscription,
    /// Its headers and its key.
    pub secrets: SubscriptionSecrets,
    /// What it is.
    pub sending: Sending,
    /// What it tells.
    pub told: Vec<Told>,
    /// The numbers of events that it should have told, and that its subscriber has no right to.
    pub withheld: Vec<i64>,
    /// The number of the first event, and of the last; both that of the last one counted where it tells none.
    pub range: (i64, i64),
    /// How many events had been counted.
    pub counted: i64,
    /// How far the deliveries were before.
    pub course: Course,
}

/// What to do about a subscription.
#[derive(Debug)]
pub enum Next {
    /// Nothing for now.
    Nothing,
    /// Its state has moved: look again.
    Again,
    /// Send this.
    Send(Box<Notice>),
}

impl Notice {
    /// Whether it has to be written down that it is tried, before it is: with more events counted meanwhile, another one
    /// would be made in its place, and not the same again.
    pub fn is_to_be_fixed(&self) -> bool {
        self.sending == Sending::Events
            && self.subscription.channel.max_count > 1
            && self.course.trying != Some(self.range.1)
    }
}

impl App {
    /// What is to be done about a subscription; events up to `cursor` count as told already.
    pub async fn next_notice(&self, which: &Due, cursor: Option<i64>) -> Result<Next, AppError> {
        let now = self.clock.now();
        let (app, due) = (self.clone(), which.clone());
        let look = self
            .read(move |read| {
                let Some(found) = read.subscription(&due.tenant, &due.id)? else {
                    return Ok(Look::Nothing);
                };
                let Some(todo) = todo(&found, cursor, now) else {
                    let looked_for = found.due.is_some_and(|due| due <= now);
                    return Ok(if looked_for { Look::Rest } else { Look::Nothing });
                };
                let Todo::Events { from, until } = todo else {
                    return Ok(Look::Simply(Box::new(found), todo));
                };
                let events = read.events(&due.tenant, &due.id, from, until, MOST_IN_ONE)?;
                let telling = match app.listener(&due.tenant, &found.subscription, None)? {
                    Ok(listener) => listener.tell(read, events, MUCH)?,
                    Err(_) => Telling {
                        withheld: numbers(&events),
                        ..Telling::default()
                    },
                };
                // What would be too much waits for the next one. What is not kept any more is passed over.
                let until = telling
                    .until
                    .filter(|_| !telling.told.is_empty())
                    .unwrap_or(until);
                Ok(Look::Events(Box::new(found), (from, until), telling))
            })
            .await?;
        match look {
            Look::Nothing => Ok(Next::Nothing),
            Look::Rest => self.rest(which).await,
            Look::Simply(found, Todo::End) => {
                self.server_moves(
                    &which.tenant,
                    &found,
                    SubscriptionStatus::Off,
                    Some("it has ended"),
                )
                .await
            }
            Look::Simply(found, Todo::Activate) => {
                self.server_moves(&which.tenant, &found, SubscriptionStatus::Active, None)
                    .await
            }
            Look::Simply(found, Todo::Handshake) => {
                let range = (found.events, found.events);
                self.notice(which, *found, Sending::Handshake, Telling::default(), range)
                    .await
            }
            Look::Simply(found, _) => {
                let range = (found.events, found.events);
                self.notice(which, *found, Sending::Heartbeat, Telling::default(), range)
                    .await
            }
            Look::Events(found, range, telling) => {
                self.notice(which, *found, Sending::Events, telling, range).await
            }
        }
    }

    async fn notice(
        &self,
        which: &Due,
        found: Attention,
        sending: Sending,
        telling: Telling,
        range: (i64, i64),
    ) -> Result<Next, AppError> {
        let Attention {
            subscription,
            events: counted,
            course,
            sealed,
            ..
        } = found;
        let tenant = which.tenant.clone();
        let opened = self.open_subscription_secrets(tenant.as_str(), &subscription.id, &sealed);
        let Some(secrets) = opened else {
            let failure = Failure {
                problem: "secrets-unreadable".to_owned(),
                retry_after: None,
                gone: false,
            };
            let notice = Notice {
                tenant,
                subscription,
                secrets: SubscriptionSecrets::default(),
                sending,
                told: Vec::new(),
                withheld: Vec::new(),
                range,
                counted,
                course,
            };
            self.notice_failed(&notice, &failure).await?;
            return Ok(Next::Nothing);
        };
        let notice = Notice {
            tenant,
            subscription,
            secrets,
            sending,
            told: telling.told,
            withheld: telling.withheld,
            range,
            counted,
            course,
        };
        if sending == Sending::Events && notice.told.is_empty() {
            // Nothing of it may be told, or it is not kept any more.
            let taken = self.taken(&notice)?;
            self.record_deliveries(vec![taken], Vec::new()).await?;
            return Ok(Next::Again);
        }
        Ok(Next::Send(Box::new(notice)))
    }

    /// What was to be done about it is not to be done any more: it is not to be looked at again for that.
    async fn rest(&self, which: &Due) -> Result<Next, AppError> {
        let (due, now) = (which.clone(), self.clock.now());
        self.write(&which.tenant, move |tx| {
            tx.lock_subscription(&due.tenant, &due.id)?;
            if let Some(found) = tx.subscription(&due.tenant, &due.id)?
                && todo(&found, None, now).is_none()
            {
                tx.set_course(&due.tenant, &found.subscription, &found.course, now)?;
            }
            Ok(((), Cuts::none()))
        })
        .await?;
        Ok(Next::Nothing)
    }

    async fn server_moves(
        &self,
        tenant: &TenantId,
        found: &Attention,
        to: SubscriptionStatus,
        problem: Option<&'static str>,
    ) -> Result<Next, AppError> {
        let scope = self.scope(&server_itself(self, tenant)?);
        let (tenant, before) = (tenant.clone(), found.subscription.clone());
        let now = self.clock.now();
        self.write(&tenant.clone(), move |tx| {
            if let Some(after) = move_on(tx, &scope, &before, to, problem)? {
                let found = tx
                    .subscription(&tenant, &after.id)?
                    .ok_or_else(AppError::not_found)?;
                tx.set_course(&tenant, &after, &found.course.again(), now)?;
            }
            Ok(((), Cuts::none()))
        })
        .await?;
        Ok(Next::Again)
    }

    /// Forgets events that are older than they are kept.
    pub async fn forget_events(&self, tenants: &[TenantId]) -> Result<(), AppError> {
        /// How many at once: others wait for SQLite's writer.
        const BATCH: u32 = 2_000;
        let keep = self.settings.subscriptions.keep;
        let before = self.clock.now().plus(Span(keep.0.saturating_neg()));
        for tenant in tenants {
            loop {
                let of = tenant.clone();
                let forgotten = self
                    .write(tenant, move |tx| {
                        Ok((tx.forget_events(&of, before, BATCH)?, Cuts::none()))
                    })
                    .await?;
                if forgotten < BATCH as usize {
                    break;
                }
            }
        }
        Ok(())
    }
}

enum Look {
    Nothing,
    /// Nothing, although its time has come.
    Rest,
    Simply(Box<Attention>, Todo),
    Events(Box<Attention>, (i64, i64), Telling),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Todo {
    End,
    Activate,
    Handshake,
    Heartbeat,
    Events { from: i64, until: i64 },
}

/// What there is to do about a subscription at `now`.
fn todo(found: &Attention, cursor: Option<i64>, now: Timestamp) -> Option<Todo> {
    let Attention {
        subscription, course, ..
    } = found;
    if subscription.deleted || subscription.status == SubscriptionStatus::Off {
        return None;
    }
    if subscription.end.is_some_and(|end| end <= now) {
        return Some(Todo::End);
    }
    let waits = course.next_try.is_some_and(|at| at > now);
    match subscription.status {
        SubscriptionStatus::Requested if !subscription.channel.is_pushed() => Some(Todo::Activate),
        SubscriptionStatus::Requested => (!waits).then_some(Todo::Handshake),
        SubscriptionStatus::Active if subscription.channel.is_pushed() && !waits => {
            let told = cursor.unwrap_or(0).max(course.delivered);
            if found.events > told {
                let from = told.saturating_add(1);
                let most = i64::from(subscription.channel.max_count.clamp(1, MOST_IN_ONE));
                let until = match course.trying {
                    Some(until) if until >= from && until.saturating_sub(told) <= most => until,
                    _ => told.saturating_add(most),
                };
                return Some(Todo::Events {
                    from,
                    until: until.min(found.events),
                });
            }
            let beat = course
                .due(subscription, now)
                .filter(|_| subscription.channel.heartbeat.is_some());
            beat.is_some_and(|at| at <= now).then_some(Todo::Heartbeat)
        }
        _ => None,
    }
}

fn numbers(events: &[NumberedEvent]) -> Vec<i64> {
    events.iter().map(|event| event.number).collect()
}
