//! What could not be delivered, for operators: which subscriptions have events that nobody took, and sending them after all.

use handoff_domain::access::{Action, Object, Relation};
use handoff_domain::audit::{Event, Outcome};
use handoff_domain::ids::SubscriptionId;
use handoff_domain::ports::Attention;
use handoff_domain::reason::Reason;
use handoff_domain::scopes::Interaction;
use handoff_domain::subscription::{Course, SubscriptionStatus};

use super::subscriptions::{cannot_be, move_on};
use super::{App, AppError, Caller, Cuts, Scope};

/// The most that are listed.
const MOST: u32 = 500;

impl App {
    /// Subscriptions with events that were not delivered and are not about to be, longest failing first.
    pub async fn dead_letters(&self, caller: &Caller) -> Result<Vec<Attention>, AppError> {
        let scope = self.scope(caller);
        self.write(caller.tenant(), move |tx| {
            may_administer(&scope, Interaction::Read)?;
            let found = tx.undelivered(scope.tenant(), MOST)?;
            let row = scope
                .row(Event::AdminAction, Outcome::Success, Reason::Permitted)
                .detail("act", "dead-letters-listed")
                .detail("rows", found.len().to_string());
            tx.record(scope.tenant(), row);
            Ok((found, Cuts::none()))
        })
        .await
    }

    /// Asks for a subscription's events again, from number `from` on, or from the first that was not delivered: its
    /// handshake comes first. Only of one in error: what is active is being delivered.
    pub async fn replay(
        &self,
        caller: &Caller,
        id: SubscriptionId,
        from: Option<i64>,
    ) -> Result<Attention, AppError> {
        let scope = self.scope(caller);
        self.write(caller.tenant(), move |tx| {
            may_administer(&scope, Interaction::Update)?;
            let before = tx
                .lock_subscription(scope.tenant(), &id)?
                .filter(|found| !found.deleted)
                .ok_or_else(AppError::not_found)?;
            if before.status != SubscriptionStatus::Error {
                return Err(cannot_be(
                    "the subscription is not in `error`: there is nothing to be sent again",
                ));
            }
            let found = tx
                .subscription(scope.tenant(), &id)?
                .ok_or_else(AppError::not_found)?;
            let first = from.unwrap_or_else(|| found.course.delivered.saturating_add(1));
            if !(1..=found.events.saturating_add(1)).contains(&first) {
                return Err(AppError::rule(
                    "from",
                    format!("is the number of an event, of 1 to {}", found.events),
                ));
            }
            let after = move_on(tx, &scope, &before, SubscriptionStatus::Requested, None)?
                .ok_or_else(|| cannot_be("the subscription has changed meanwhile; look again"))?;
            let course = Course {
                delivered: first.saturating_sub(1),
                trying: found.course.trying.filter(|_| from.is_none()),
                ..found.course.again()
            };
            if from.is_some() {
                tx.rewind_course(scope.tenant(), &id, course.delivered)?;
            }
            tx.set_course(scope.tenant(), &after, &course, scope.now())?;
            let row = scope
                .row(Event::AdminAction, Outcome::Success, Reason::Permitted)
                .detail("act", "subscription-replayed")
                .detail("subscription", id.as_str())
                .detail("from", first.to_string());
            tx.record(scope.tenant(), row);
            let now = Attention {
                subscription: after,
                course,
                ..found
            };
            Ok((now, Cuts::none()))
        })
        .await
    }
}

/// Leave to act as an operator, by scopes and rules.
fn may_administer(scope: &Scope, interaction: Interaction) -> Result<(), AppError> {
    scope.demand("Subscription", interaction)?;
    scope
        .permit(
            Action::AdminAct,
            Relation::default(),
            Object::Tenant,
            Event::AdminAction,
        )
        .map(drop)
}
