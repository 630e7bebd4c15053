//! What a subscriber is told over a connection of its own: the events after those it was told, by its rights at that
//! moment. Each is on record before it leaves, as there is nobody who would ask for it again. Knows no connection.

use handoff_domain::ids::TenantId;
use handoff_domain::ports::{Due, Read};
use handoff_domain::reason::Reason;
use handoff_domain::subscription::{Course, Route, Subscription, SubscriptionSecrets, SubscriptionStatus};

use super::deliveries::{MOST_IN_ONE, Notice, Sending};
use super::subscriber::{MUCH, Telling, Told};
use super::{App, AppError, Cuts};
use crate::telemetry::notifications as metrics;

/// What there is for a connection.
#[derive(Debug)]
pub enum Heard {
    /// Nothing new for now, of the subscription as it stands.
    Nothing(Box<Subscription>),
    /// Events, recorded as told.
    Events(Box<News>),
    /// Nothing more, ever.
    Over(Box<Over>),
}

/// Events of a subscription.
#[derive(Debug)]
pub struct News {
    /// The subscription as it stands.
    pub subscription: Subscription,
    /// What may be told of them.
    pub told: Vec<Told>,
    /// The number of the last one, told or withheld.
    pub until: i64,
}

/// A subscription that is told nothing more.
#[derive(Debug)]
pub struct Over {
    /// The subscription, where there is one.
    pub subscription: Option<Subscription>,
    /// The status to be told.
    pub status: SubscriptionStatus,
    /// How many events it has counted.
    pub events: i64,
    /// Why, for the subscriber.
    pub why: &'static str,
}

enum Look {
    Nothing(Box<Subscription>),
    Events(Box<Subscription>, (i64, i64), Telling),
    Over(Box<Over>, Option<((i64, i64), Vec<i64>)>),
}

impl App {
    /// What a subscription has after event `told`, at most `most` events of it.
    pub async fn hear(&self, which: &Due, told: i64, most: u32) -> Result<Heard, AppError> {
        let (app, due) = (self.clone(), which.clone());
        let look = self.read(move |read| app.look(read, &due, told, most)).await?;
        match look {
            Look::Nothing(subscription) => Ok(Heard::Nothing(subscription)),
            Look::Over(over, lost) => {
                if let Some(((range, withheld), subscription)) = lost.zip(over.subscription.clone()) {
                    let telling = Telling {
                        withheld,
                        ..Telling::default()
                    };
                    self.record_told(&which.tenant, subscription, range, telling)
                        .await?;
                }
                Ok(Heard::Over(over))
            }
            Look::Events(subscription, range, telling) => {
                let told = self
                    .record_told(&which.tenant, Subscription::clone(&subscription), range, telling)
                    .await?;
                if let Some(last) = told.last() {
                    metrics::notification_delay(self.clock.now().since(last.event.at));
                }
                Ok(Heard::Events(Box::new(News {
                    subscription: *subscription,
                    told,
                    until: range.1,
                })))
            }
        }
    }

    /// What there is by now, and what of it the subscriber has a right to.
    fn look(&self, read: &mut dyn Read, which: &Due, told: i64, most: u32) -> Result<Look, AppError> {
        let Some(found) = read.subscription(&which.tenant, &which.id)? else {
            let over = Over {
                subscription: None,
                status: SubscriptionStatus::Off,
                events: told,
                why: "there is no such subscription",
            };
            return Ok(Look::Over(Box::new(over), None));
        };
        let (subscription, events) = (found.subscription, found.events);
        let has_ended = subscription.end.is_some_and(|end| end <= self.clock.now());
        let over = if subscription.deleted {
            Some((SubscriptionStatus::Off, "the subscription was deleted"))
        } else if has_ended || subscription.status == SubscriptionStatus::Off {
            Some((SubscriptionStatus::Off, "the subscription has ended"))
        } else if subscription.channel.route != Route::WebSocket {
            Some((subscription.status, "the subscription has another channel by now"))
        } else {
            None
        };
        if let Some((status, why)) = over {
            let over = Over {
                subscription: Some(subscription),
                status,
                events,
                why,
            };
            return Ok(Look::Over(Box::new(over), None));
        }
        let mut next = |most: u32| {
            let from = told.saturating_add(1);
            let until = told.saturating_add(i64::from(most)).min(events);
            let found = read.events(&which.tenant, &which.id, from, until, MOST_IN_ONE)?;
            Ok::<_, AppError>(((from, until), found))
        };
        let Ok(listener) = self.listener(&which.tenant, &subscription, None)? else {
            // What it would have been told now is withheld.
            let (range, lost) = next(MOST_IN_ONE)?;
            let lost: Vec<i64> = lost.iter().map(|event| event.number).collect();
            let over = Over {
                subscription: Some(subscription),
                status: SubscriptionStatus::Error,
                events: told,
                why: "the subscriber has no right to it any more",
            };
            let lost = (!lost.is_empty()).then_some((range, lost));
            return Ok(Look::Over(Box::new(over), lost));
        };
        if subscription.status != SubscriptionStatus::Active || events <= told {
            return Ok(Look::Nothing(Box::new(subscription)));
        }
        let ((from, until), found) = next(most.clamp(1, MOST_IN_ONE))?;
        let telling = listener.tell(read, found, MUCH)?;
        // What would be too much waits for the next one. What is not kept any more is passed over.
        let until = telling.until.unwrap_or(until);
        Ok(Look::Events(Box::new(subscription), (from, until), telling))
    }

    /// Writes down what is told and what is withheld, and how far that is, in one transaction.
    async fn record_told(
        &self,
        tenant: &TenantId,
        subscription: Subscription,
        range: (i64, i64),
        telling: Telling,
    ) -> Result<Vec<Told>, AppError> {
        if telling.told.is_empty() && telling.withheld.is_empty() {
            // None of it is kept any more.
            return Ok(telling.told);
        }
        let id = subscription.id.clone();
        let notice = Notice {
            tenant: tenant.clone(),
            subscription,
            secrets: SubscriptionSecrets::default(),
            sending: Sending::Events,
            told: telling.told,
            withheld: telling.withheld,
            counted: range.1,
            range,
            course: Course::default(),
        };
        let rows = self.taken(&notice)?.into_rows();
        let of = tenant.clone();
        let now = self.clock.now();
        self.write(tenant, move |tx| {
            for row in &rows {
                tx.record(&of, row.clone());
            }
            tx.told_until(&of, &id, range.1, now)?;
            Ok(((), Cuts::none()))
        })
        .await?;
        Ok(notice.told)
    }

    /// Why a subscriber is told nothing more, where that is so, without a look into the database.
    pub fn refuses(&self, which: &Due, subscription: &Subscription) -> Result<Option<Reason>, AppError> {
        Ok(self.listener(&which.tenant, subscription, None)?.err())
    }
}
