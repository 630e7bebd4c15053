//! From the outbox to the subscriptions that each event concerns: once, in the order of each Task, and only what was
//! committed. One process does it at a time; were there two, they would wait for each other.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use handoff_domain::ids::{SubscriptionId, TenantId};
use handoff_domain::outbox::{DELETED, TopicEvent};
use handoff_domain::ports::{Due, Pending, SearchIndex, Subject, Tx};
use handoff_domain::subscription::Subscription;
use handoff_domain::time::Timestamp;
use handoff_fhir_model::{parse_stored, search_index};

use super::subscriber::{Known, Listener, focus_of};
use super::{App, AppError, Cuts};

/// How many events are given away in one transaction.
const BATCH: u32 = 100;

/// The Subscriptions that count events, as they were at a revision of their tenant.
#[derive(Default)]
pub struct Counting(HashMap<TenantId, (i64, Arc<Vec<Subscription>>)>);

/// What one run did.
#[derive(Debug, Default)]
pub struct FannedOut {
    /// The subscriptions that were given events.
    pub concerned: Vec<Due>,
    /// How many events there were.
    pub events: usize,
    /// Whether there may be more.
    pub more: bool,
}

impl Counting {
    /// Those of a tenant, read again where they are others by now. A Subscription that was made active before an event was
    /// committed is in it: the event was seen first, and the revision after.
    fn of(
        &mut self,
        tx: &mut dyn Tx,
        tenant: &TenantId,
        revisions: &HashMap<TenantId, i64>,
    ) -> Result<Arc<Vec<Subscription>>, AppError> {
        let Some(revision) = revisions.get(tenant) else {
            return Ok(Arc::default());
        };
        match self.0.get(tenant) {
            Some((known, subscriptions)) if known == revision => Ok(Arc::clone(subscriptions)),
            _ => {
                let read = Arc::new(tx.counting_subscriptions(tenant)?);
                self.0.insert(tenant.clone(), (*revision, Arc::clone(&read)));
                Ok(read)
            }
        }
    }
}

/// Gives away the first events of the outbox.
pub async fn run_once(app: &App, counting: &Arc<Mutex<Counting>>) -> Result<FannedOut, AppError> {
    let (unit, known) = (app.clone(), Arc::clone(counting));
    let done = app
        .write(&TenantId::default_tenant(), move |tx| {
            let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
            Ok((give(tx, &unit, &mut known)?, Cuts::none()))
        })
        .await;
    if done.is_err() {
        // On SQLite what was read may have been of others' transactions that were undone with this one.
        counting.lock().unwrap_or_else(PoisonError::into_inner).0.clear();
    }
    done
}

fn give(tx: &mut dyn Tx, app: &App, counting: &mut Counting) -> Result<FannedOut, AppError> {
    let pending = tx.take_pending(BATCH)?;
    if pending.is_empty() {
        return Ok(FannedOut::default());
    }
    let revisions = tx.subscription_revisions()?;
    let mut given: BTreeMap<(TenantId, SubscriptionId), Vec<TopicEvent>> = BTreeMap::new();
    let (mut focus, mut known) = (None, HashMap::new());
    for one in &pending {
        let subscriptions = counting.of(tx, &one.tenant, &revisions)?;
        for subscription in concerned(
            tx,
            app,
            one,
            &subscriptions,
            (&mut focus, known.entry(one.tenant.clone()).or_default()),
        )? {
            given
                .entry((one.tenant.clone(), subscription))
                .or_default()
                .push(one.event.clone());
        }
    }
    let given: Vec<(Due, Vec<TopicEvent>)> = given
        .into_iter()
        .map(|((tenant, id), events)| (Due { tenant, id }, events))
        .collect();
    tx.give_events(&given)?;
    tx.settle_pending(&pending)?;
    Ok(FannedOut {
        concerned: given.into_iter().map(|(due, _)| due).collect(),
        events: pending.len(),
        more: pending.len() >= BATCH as usize,
    })
}

/// A version of a focus, as filters see it. Several events in a row are mostly about the same one.
struct Focus {
    tenant: TenantId,
    reference: String,
    version: i64,
    seen: Option<(Timestamp, SearchIndex)>,
}

impl Focus {
    /// The version that shows the change, or the last one before a deletion.
    fn of(tx: &mut dyn Tx, app: &App, known: &mut Known, pending: &Pending) -> Result<Self, AppError> {
        let Pending { tenant, event, .. } = pending;
        let mut seen = None;
        if let Some((kind, id)) = focus_of(event) {
            let shown = event.version.saturating_sub(i64::from(event.change == DELETED));
            if let Some(version) = known.version(tx, tenant, kind, id, shown)?
                && let Ok(resource) = parse_stored(&version.body)
            {
                let index = search_index(&resource, &app.settings.fhir_base(tenant));
                seen = Some((version.last_updated, index));
            }
        }
        Ok(Self {
            tenant: tenant.clone(),
            reference: event.focus.clone(),
            version: event.version,
            seen,
        })
    }

    fn is_of(&self, pending: &Pending) -> bool {
        self.tenant == pending.tenant
            && self.reference == pending.event.focus
            && self.version == pending.event.version
    }
}

/// The subscriptions that are to be told of an event.
fn concerned(
    tx: &mut dyn Tx,
    app: &App,
    pending: &Pending,
    subscriptions: &[Subscription],
    (focus, known): (&mut Option<Focus>, &mut Known),
) -> Result<Vec<SubscriptionId>, AppError> {
    let event = &pending.event;
    let mut concerned = Vec::new();
    for subscription in subscriptions {
        if !subscription.criteria.listens_to(event) {
            continue;
        }
        if !focus.as_ref().is_some_and(|focus| focus.is_of(pending)) {
            *focus = Some(Focus::of(tx, app, known, pending)?);
        }
        let Some((
            Focus {
                seen: Some((last_updated, index)),
                ..
            },
            (_, id),
        )) = focus.as_ref().zip(focus_of(event))
        else {
            return Ok(concerned);
        };
        let subject = Subject {
            id,
            last_updated: *last_updated,
            index,
        };
        if subscription.criteria.holds(subject) && may_be_told(tx, app, known, pending, subscription)? {
            concerned.push(subscription.id.clone());
        }
    }
    Ok(concerned)
}

/// Whether the subscriber is to count the event. One that has no right to see it does not; one that loses the right before
/// it is told, or may be told nothing at all for now, has it withheld.
fn may_be_told(
    tx: &mut dyn Tx,
    app: &App,
    known: &mut Known,
    pending: &Pending,
    subscription: &Subscription,
) -> Result<bool, AppError> {
    let listener: Result<Listener, _> = app.listener(&pending.tenant, subscription, None)?;
    let listener = match listener {
        Ok(listener) => listener,
        // Who may be told nothing for now, for what an operator or the rules say, finds by the gap that there was something:
        // of what it could have seen.
        Err(_) => app.would_be_listener(&pending.tenant, subscription)?,
    };
    Ok(listener.sees(tx, known, &pending.event)?.is_some())
}
