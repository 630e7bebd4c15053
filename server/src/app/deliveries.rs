//! What a subscription is to be told next, and what follows when it was told or could not be. Sends nothing.

use handoff_domain::audit::{About, AuditRow, Event, Outcome};
use handoff_domain::ids::{CorrelationId, TenantId};
use handoff_domain::ports::{Attention, Due, Kind, Tx};
use handoff_domain::reason::Reason;
use handoff_domain::subscription::{
    AfterFailure, Course, Failure, NumberedEvent, Subscription, SubscriptionSecrets, SubscriptionStatus,
};
use handoff_domain::time::{Span, Timestamp};

use super::finish::server_itself;
use super::subscriber::{Telling, Told, focus_of};
use super::subscriptions::move_on;
use super::{App, AppError, Cuts, Scope};
use crate::telemetry::notifications as metrics;

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

/// A notification that was taken.
#[derive(Debug, Clone)]
pub struct Taken {
    which: Due,
    subscription: Subscription,
    until: i64,
    /// Whether nothing but how far it is has to be written down.
    plain: bool,
    rows: Vec<AuditRow>,
}

impl Taken {
    /// Whether nothing but how far its subscription is has to be written down.
    pub const fn is_plain(&self) -> bool {
        self.plain
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
                    return Ok(Look::Nothing);
                };
                let Todo::Events { from, until } = todo else {
                    return Ok(Look::Simply(Box::new(found), todo));
                };
                let events = read.events(&due.tenant, &due.id, from, until, MOST_IN_ONE)?;
                let telling = match app.listener(&due.tenant, &found.subscription, None)? {
                    Ok(listener) => listener.tell(read, events)?,
                    Err(_) => Telling {
                        told: Vec::new(),
                        withheld: numbers(&events),
                    },
                };
                Ok(Look::Events(Box::new(found), (from, until), telling))
            })
            .await?;
        match look {
            Look::Nothing => Ok(Next::Nothing),
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
            course,
        };
        if sending != Sending::Events {
            return Ok(Next::Send(Box::new(notice)));
        }
        if notice.told.is_empty() {
            // Nothing of it may be told, or it is not kept any more.
            let taken = self.taken(&notice)?;
            self.record_taken(vec![taken]).await?;
            return Ok(Next::Again);
        }
        if range.1 > range.0 && notice.course.trying != Some(range.1) {
            // It will be repeated as it is, whatever is added meanwhile.
            let (app, subscription) = (self.clone(), notice.subscription.clone());
            let course = Course {
                trying: Some(range.1),
                ..notice.course.clone()
            };
            self.write(&which.tenant.clone(), {
                let tenant = which.tenant.clone();
                move |tx| {
                    tx.set_course(&tenant, &subscription, &course, app.clock.now())?;
                    Ok(((), Cuts::none()))
                }
            })
            .await?;
        }
        Ok(Next::Send(Box::new(notice)))
    }

    /// What is to be written down of a notification that was taken.
    pub fn taken(&self, notice: &Notice) -> Result<Taken, AppError> {
        let scope = self.scope(&server_itself(self, &notice.tenant)?);
        let mut rows = Vec::new();
        for told in &notice.told {
            rows.push(row_of(&scope, notice, told));
        }
        if !notice.withheld.is_empty() {
            metrics::notifications_withheld(notice.withheld.len());
            let row = scope
                .row(Event::SubscriptionFailed, Outcome::Denied, Reason::PolicyDenied)
                .detail("subscription", notice.subscription.id.as_str())
                .detail("withheld", ranges(&notice.withheld));
            rows.push(row);
        }
        Ok(Taken {
            which: Due {
                tenant: notice.tenant.clone(),
                id: notice.subscription.id.clone(),
            },
            subscription: notice.subscription.clone(),
            until: notice.range.1,
            plain: notice.sending == Sending::Events
                && notice.course.attempts == 0
                && notice.course.trying.is_none()
                && notice.range.0 == notice.range.1,
            rows,
        })
    }

    /// Writes down that notifications were taken, all in one transaction.
    pub async fn record_taken(&self, all: Vec<Taken>) -> Result<(), AppError> {
        let now = self.clock.now();
        self.write(&TenantId::default_tenant(), move |tx| {
            let mut plain = Vec::new();
            for taken in &all {
                let due = Course::default()
                    .delivered(taken.until, now)
                    .due(&taken.subscription, now);
                if taken.plain {
                    plain.push((taken.which.clone(), taken.until, due));
                }
                for row in &taken.rows {
                    tx.record(&taken.which.tenant, row.clone());
                }
            }
            tx.advance_courses(&plain, now)?;
            for taken in all.iter().filter(|taken| !taken.plain) {
                settle_taken(tx, taken, now)?;
            }
            Ok(((), Cuts::none()))
        })
        .await
    }

    /// Writes down that a subscription's handshake was answered: it is active from here on.
    pub async fn handshake_taken(&self, notice: &Notice) -> Result<(), AppError> {
        let scope = self.scope(&server_itself(self, &notice.tenant)?);
        let (tenant, subscription) = (notice.tenant.clone(), notice.subscription.clone());
        let now = self.clock.now();
        self.write(&notice.tenant, move |tx| {
            if let Some(after) = move_on(tx, &scope, &subscription, SubscriptionStatus::Active, None)? {
                let found = tx
                    .subscription(&tenant, &after.id)?
                    .ok_or_else(AppError::not_found)?;
                let course = Course {
                    trying: found.course.trying,
                    ..found.course.delivered(found.course.delivered, now)
                };
                tx.set_course(&tenant, &after, &course, now)?;
            }
            Ok(((), Cuts::none()))
        })
        .await
    }

    /// Writes down that an attempt failed, and what follows: another one, or none.
    pub async fn notice_failed(&self, notice: &Notice, failure: &Failure) -> Result<(), AppError> {
        let scope = self.scope(&server_itself(self, &notice.tenant)?);
        let (tenant, subscription) = (notice.tenant.clone(), notice.subscription.clone());
        let (failure, give_up) = (failure.clone(), self.settings.subscriptions.give_up_after);
        let mut chance = [0_u8; 1];
        self.entropy.fill(&mut chance);
        let now = self.clock.now();
        let follows = self
            .write(&notice.tenant, move |tx| {
                let Some(found) = tx.subscription(&tenant, &subscription.id)? else {
                    return Ok((None, Cuts::none()));
                };
                if found.subscription.version != subscription.version {
                    // What failed is not what its subscriber wants by now.
                    return Ok((None, Cuts::none()));
                }
                let [chance] = chance;
                let (course, follows) =
                    found
                        .course
                        .failed(subscription.status, &failure, give_up, chance, now);
                let first = course.attempts == 1;
                let after = match follows {
                    AfterFailure::Retry => None,
                    AfterFailure::GiveUp => {
                        let text = gave_up(&failure.problem, course.attempts);
                        move_on(tx, &scope, &subscription, SubscriptionStatus::Error, Some(&text))?
                    }
                    AfterFailure::Off => {
                        let text = "the endpoint answered 410: it wants no more";
                        move_on(tx, &scope, &subscription, SubscriptionStatus::Off, Some(text))?
                    }
                };
                if first || follows != AfterFailure::Retry {
                    let row = scope
                        .row(Event::SubscriptionFailed, Outcome::Failed, Reason::Permitted)
                        .detail("subscription", subscription.id.as_str())
                        .detail("problem", failure.problem.as_str())
                        .detail("attempt", course.attempts.to_string());
                    tx.record(&tenant, row);
                }
                tx.set_course(&tenant, after.as_ref().unwrap_or(&subscription), &course, now)?;
                Ok((Some((follows, course.attempts)), Cuts::none()))
            })
            .await?;
        if let Some((AfterFailure::GiveUp | AfterFailure::Off, attempts)) = follows {
            metrics::subscription_given_up();
            tracing::warn!(
                tenant = %notice.tenant,
                subscription = %notice.subscription.id,
                attempts,
                "a subscription is given up: its subscriber can't be reached, or wants no more"
            );
        }
        Ok(())
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
                    Some(until) if until >= from => until,
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

fn settle_taken(tx: &mut dyn Tx, taken: &Taken, now: Timestamp) -> Result<(), AppError> {
    let Due { tenant, id } = &taken.which;
    let Some(found) = tx.subscription(tenant, id)? else {
        return Ok(());
    };
    let course = found.course.delivered(taken.until, now);
    tx.set_course(tenant, &found.subscription, &course, now)?;
    Ok(())
}

fn numbers(events: &[NumberedEvent]) -> Vec<i64> {
    events.iter().map(|event| event.number).collect()
}

/// Numbers in ascending order, as `3-7 9`.
fn ranges(numbers: &[i64]) -> String {
    let mut found: Vec<(i64, i64)> = Vec::new();
    for number in numbers {
        match found.last_mut() {
            Some((_, last)) if last.saturating_add(1) == *number => *last = *number,
            _ => found.push((*number, *number)),
        }
    }
    let written: Vec<String> = found
        .into_iter()
        .map(|(first, last)| {
            if first == last {
                first.to_string()
            } else {
                format!("{first}-{last}")
            }
        })
        .collect();
    written.join(" ")
}

fn row_of(scope: &Scope, notice: &Notice, told: &Told) -> AuditRow {
    let event = &told.event;
    let mut about = About {
        grant: event.grant.clone(),
        ..About::default()
    };
    match focus_of(event) {
        Some((Kind::Task, _)) => {
            about.task = Some(event.focus.clone());
            about.task_version = Some(event.version);
        }
        Some(_) => {
            about.document = Some(event.focus.clone());
            about.document_version = Some(event.version);
        }
        None => {}
    }
    let row = scope
        .row(Event::SubscriptionDelivered, Outcome::Success, Reason::Permitted)
        .about(about)
        .detail("subscription", notice.subscription.id.as_str())
        .detail("event", told.number.to_string())
        .detail("topic", event.topic.as_str())
        .detail("to", notice.subscription.created_by.as_str())
        .detail("attempt", notice.course.attempts.saturating_add(1).to_string());
    match CorrelationId::parse(event.correlation.as_str()) {
        Ok(correlation) => AuditRow { correlation, ..row },
        Err(_) => row,
    }
}

/// What `Subscription.error` says of a subscriber that was given up.
fn gave_up(problem: &str, attempts: u32) -> String {
    format!(
        "given up after {attempts} attempts, the last one: {problem}; events are kept, ask for them again with status `requested`"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_told_as_ranges() {
        assert_eq!(ranges(&[1, 2, 3, 5, 7, 8]), "1-3 5 7-8");
        assert_eq!(ranges(&[]), "");
    }
}
