//! What follows when a subscriber took a notification, or did not: how far its subscription is, when it is tried again,
//! and the audit rows of both. Sends nothing.

use std::collections::{BTreeMap, HashSet};

use handoff_domain::audit::{About, AuditRow, Event, Outcome};
use handoff_domain::ids::{CorrelationId, SubscriptionId, TenantId};
use handoff_domain::ports::{Due, Kind, Tx};
use handoff_domain::reason::Reason;
use handoff_domain::subscription::{
    AfterFailure, Course, Failure, Payload, Subscription, SubscriptionStatus,
};
use handoff_domain::time::Timestamp;

use super::deliveries::{Notice, Sending};
use super::finish::server_itself;
use super::reads::patient_of;
use super::subscriber::{Told, focus_of};
use super::subscriptions::move_on;
use super::{App, AppError, Cuts, Scope};
use crate::telemetry::notifications as metrics;

/// A notification that was taken.
#[derive(Debug, Clone)]
pub struct Taken {
    which: Due,
    subscription: Subscription,
    until: i64,
    /// Whether it told events.
    events: bool,
    /// Whether nothing but how far it is has to be written down.
    plain: bool,
    rows: Vec<AuditRow>,
}

impl Taken {
    /// Whether nothing but how far its subscription is has to be written down.
    pub const fn is_plain(&self) -> bool {
        self.plain
    }

    /// What the audit says of it.
    pub(super) fn into_rows(self) -> Vec<AuditRow> {
        self.rows
    }
}

impl App {
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
            events: notice.sending == Sending::Events,
            plain: notice.sending == Sending::Events && notice.course.attempts == 0,
            rows,
        })
    }

    /// Writes down that notifications were taken and which are tried next, all in one transaction; answers those of which
    /// it was written that they are tried. Of the others somebody else tries something: look again.
    pub async fn record_deliveries(
        &self,
        all: Vec<Taken>,
        tried: Vec<(Due, i64)>,
    ) -> Result<Vec<Due>, AppError> {
        let now = self.clock.now();
        self.write(&TenantId::default_tenant(), move |tx| {
            // A statement that finds two values for one row takes either.
            let mut plain: BTreeMap<(&TenantId, &SubscriptionId), &Taken> = BTreeMap::new();
            for taken in &all {
                for row in &taken.rows {
                    tx.record(&taken.which.tenant, row.clone());
                }
                if taken.plain {
                    let last = plain
                        .entry((&taken.which.tenant, &taken.which.id))
                        .or_insert(taken);
                    if last.until < taken.until {
                        *last = taken;
                    }
                } else {
                    settle_taken(tx, taken, now)?;
                }
            }
            let delivered: Vec<_> = plain
                .values()
                .map(|taken| {
                    let due = Course::default()
                        .delivered(taken.until, now)
                        .due(&taken.subscription, now);
                    (taken.which.clone(), taken.until, due)
                })
                .collect();
            let written: HashSet<Due> = tx.advance_courses(&delivered, now)?.into_iter().collect();
            for taken in plain
                .into_values()
                .filter(|taken| !written.contains(&taken.which))
            {
                settle_taken(tx, taken, now)?;
            }
            Ok((tx.fix_courses(&tried)?, Cuts::none()))
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
                let course = found.course.delivered(found.course.delivered, now);
                tx.set_course(&tenant, &after, &course, now)?;
            }
            Ok(((), Cuts::none()))
        })
        .await
    }

    /// Writes down that an attempt failed, and what follows: another one, or none.
    /// Answers when it is tried again.
    pub async fn notice_failed(
        &self,
        notice: &Notice,
        failure: &Failure,
    ) -> Result<Option<Timestamp>, AppError> {
        let scope = self.scope(&server_itself(self, &notice.tenant)?);
        let (tenant, subscription) = (notice.tenant.clone(), notice.subscription.clone());
        let (failure, give_up) = (failure.clone(), self.settings.subscriptions.give_up_after);
        let events = (notice.sending == Sending::Events).then_some(notice.range);
        let mut chance = [0_u8; 1];
        self.entropy.fill(&mut chance);
        let now = self.clock.now();
        let follows = self
            .write(&notice.tenant, move |tx| {
                // Held: whoever changes it waits, or was before us.
                let locked = tx.lock_subscription(&tenant, &subscription.id)?;
                let Some(found) = tx.subscription(&tenant, &subscription.id)? else {
                    return Ok((None, Cuts::none()));
                };
                let is_over = events.is_some_and(|(from, _)| found.course.delivered >= from);
                if is_over || locked.is_none_or(|now| now.version != subscription.version) {
                    // Another process delivered it, or it is not what its subscriber wants by now.
                    return Ok((None, Cuts::none()));
                }
                let [chance] = chance;
                let (course, follows) =
                    found
                        .course
                        .failed(subscription.status, &failure, give_up, chance, now);
                let course = Course {
                    // It may have arrived, so it is repeated as it was, whatever is added meanwhile.
                    trying: events.map_or(course.trying, |(_, until)| Some(until)),
                    ..course
                };
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
                Ok((Some((follows, course.attempts, course.next_try)), Cuts::none()))
            })
            .await?;
        if let Some((AfterFailure::GiveUp | AfterFailure::Off, attempts, _)) = follows {
            metrics::subscription_given_up();
            tracing::warn!(
                tenant = %notice.tenant,
                subscription = %notice.subscription.id,
                attempts,
                "a subscription is given up: its subscriber can't be reached, or wants no more"
            );
        }
        Ok(follows.and_then(|(_, _, next_try)| next_try))
    }
}

/// Writes down one that is to be weighed: it was taken, whatever became of its subscription meanwhile.
fn settle_taken(tx: &mut dyn Tx, taken: &Taken, now: Timestamp) -> Result<(), AppError> {
    let Due { tenant, id } = &taken.which;
    let locked = tx.lock_subscription(tenant, id)?;
    let Some((present, found)) = locked.zip(tx.subscription(tenant, id)?) else {
        return Ok(());
    };
    let course = found.course;
    if taken.events && taken.until <= course.delivered {
        // Another process delivered it too, and has gone on.
        return Ok(());
    }
    let is_the_same = !present.deleted
        && present.status == SubscriptionStatus::Active
        && present.shape == taken.subscription.shape;
    let course = if is_the_same {
        course.delivered(taken.until.max(course.delivered), now)
    } else {
        Course {
            delivered: taken.until.max(course.delivered),
            ..course
        }
    };
    tx.set_course(tenant, &present, &course, now)?;
    Ok(())
}

/// Numbers in ascending order, as `3-7 9`.
pub(super) fn ranges(numbers: &[i64]) -> String {
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

/// What an event that was told is about: the version of its focus, and whose it is where that was told whole.
pub(super) fn about_told(scope: &Scope, told: &Told, payload: Payload) -> About {
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
    if payload.is_whole() {
        about.patient = patient_of(scope, &told.body);
    }
    about
}

fn row_of(scope: &Scope, notice: &Notice, told: &Told) -> AuditRow {
    let event = &told.event;
    let about = about_told(scope, told, notice.subscription.channel.payload);
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
