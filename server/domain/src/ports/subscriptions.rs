//! What the store does for Subscriptions: gives each event its numbers, once and in order, and remembers how far each
//! subscriber is. And the vault that keeps what is secret in them.

use std::collections::HashMap;

use super::store::{SearchIndex, StoreError};
use crate::binding::Binding;
use crate::document::Sha256;
use crate::ids::{SubscriptionId, TenantId};
use crate::outbox::TopicEvent;
use crate::subscription::{Course, NumberedEvent, Subscription};
use crate::time::Timestamp;

/// An event of the outbox that no subscription was given yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pending {
    /// The tenant.
    pub tenant: TenantId,
    /// Its place in the outbox.
    pub sequence: i64,
    /// The event.
    pub event: TopicEvent,
}

/// A subscription that wants attention: it has events to be delivered, or its time has come.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Due {
    /// The tenant.
    pub tenant: TenantId,
    /// Which.
    pub id: SubscriptionId,
}

/// How far a subscription has come, for who waits for its events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counted {
    /// Which.
    pub which: Due,
    /// How many events it has counted.
    pub events: i64,
    /// Its version.
    pub version: i64,
}

/// How a subscription stands, for who delivers to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attention {
    /// The subscription.
    pub subscription: Subscription,
    /// How many events it has counted.
    pub events: i64,
    /// How far its deliveries are.
    pub course: Course,
    /// When it is to be looked at without any further event, as that was written down last.
    pub due: Option<Timestamp>,
    /// Its secrets, sealed.
    pub sealed: Vec<u8>,
}

/// Reads of Subscriptions.
pub trait ReadSubscriptions {
    /// A Subscription with all that belongs to it; a deleted one too.
    fn subscription(
        &mut self,
        tenant: &TenantId,
        id: &SubscriptionId,
    ) -> Result<Option<Attention>, StoreError>;

    /// How many Subscriptions there are in a tenant that are not off: of all, and of one creator.
    fn count_subscriptions(&mut self, tenant: &TenantId, creator: &str) -> Result<(u64, u64), StoreError>;

    /// Events `from` to `until` of a subscription, both included, in order, at most `limit`; as far as they are kept.
    fn events(
        &mut self,
        tenant: &TenantId,
        id: &SubscriptionId,
        from: i64,
        until: i64,
        limit: u32,
    ) -> Result<Vec<NumberedEvent>, StoreError>;

    /// Subscriptions of these shards with events to be delivered, or whose time has come at `now`, in the order of their
    /// ids, those behind `after`; at most `limit`.
    fn due_subscriptions(
        &mut self,
        shards: &[u8],
        now: Timestamp,
        after: Option<&Due>,
        limit: u32,
    ) -> Result<Vec<Due>, StoreError>;

    /// Subscriptions of a tenant that have failed since some time, or are in error with events that were not delivered;
    /// longest failing first, at most `limit`.
    fn undelivered(&mut self, tenant: &TenantId, limit: u32) -> Result<Vec<Attention>, StoreError>;

    /// How far each of these subscriptions has come; of those that exist, in any order.
    fn counted(&mut self, which: &[Due]) -> Result<Vec<Counted>, StoreError>;

    /// Whether the outbox holds events that no subscription was given yet.
    fn has_pending(&mut self) -> Result<bool, StoreError>;
}

/// Changes of Subscriptions.
pub trait TxSubscriptions {
    /// A Subscription, held until the transaction ends; a deleted one too.
    fn lock_subscription(
        &mut self,
        tenant: &TenantId,
        id: &SubscriptionId,
    ) -> Result<Option<Subscription>, StoreError>;

    /// Stores a new Subscription with its JSON, index and sealed secrets. It begins at event 0.
    fn insert_subscription(
        &mut self,
        tenant: &TenantId,
        subscription: &Subscription,
        body: &[u8],
        index: &SearchIndex,
        sealed: &[u8],
    ) -> Result<(), StoreError>;

    /// Stores the next version: `version` must be one above the stored one, else `Conflict`. Secrets of `None` stay.
    fn update_subscription(
        &mut self,
        tenant: &TenantId,
        subscription: &Subscription,
        body: &[u8],
        index: &SearchIndex,
        sealed: Option<&[u8]>,
    ) -> Result<(), StoreError>;

    /// Writes down how far the deliveries of a Subscription are. What was delivered stays so.
    fn set_course(
        &mut self,
        tenant: &TenantId,
        subscription: &Subscription,
        course: &Course,
        now: Timestamp,
    ) -> Result<(), StoreError>;

    /// Writes down that several were delivered to: up to which event, and when each wants to be looked at without any
    /// further one. Each at most once, and only where it is active, does not wait to be tried again, and is not as far
    /// already: answers of which that was so.
    fn advance_courses(
        &mut self,
        delivered: &[(Due, i64, Option<Timestamp>)],
        now: Timestamp,
    ) -> Result<Vec<Due>, StoreError>;

    /// Writes down what is being tried: the last event of the next notification of each. Only where nothing else is, and
    /// none of it was delivered: answers of which that was so.
    fn fix_courses(&mut self, tried: &[(Due, i64)]) -> Result<Vec<Due>, StoreError>;

    /// Goes back to after event `delivered`: what follows it is told again.
    fn rewind_course(
        &mut self,
        tenant: &TenantId,
        id: &SubscriptionId,
        delivered: i64,
    ) -> Result<(), StoreError>;

    /// The first events of the outbox, over all tenants, that no subscription was given yet, held until the
    /// transaction ends.
    fn take_pending(&mut self, limit: u32) -> Result<Vec<Pending>, StoreError>;

    /// A number for each tenant that rises with every change of its Subscriptions.
    fn subscription_revisions(&mut self) -> Result<HashMap<TenantId, i64>, StoreError>;

    /// The Subscriptions of a tenant that count events.
    fn counting_subscriptions(&mut self, tenant: &TenantId) -> Result<Vec<Subscription>, StoreError>;

    /// Gives events to subscriptions, which number them from where they are, and tells every process.
    fn give_events(&mut self, given: &[(Due, Vec<TopicEvent>)]) -> Result<(), StoreError>;

    /// These events of the outbox have been given to whom they concern.
    fn settle_pending(&mut self, pending: &[Pending]) -> Result<(), StoreError>;

    /// Keeps what a binding token is for, under its digest.
    fn keep_binding(
        &mut self,
        tenant: &TenantId,
        digest: &Sha256,
        binding: &Binding,
    ) -> Result<(), StoreError>;

    /// What a binding token is for, also where it is too old; it is gone after that.
    fn take_binding(&mut self, tenant: &TenantId, digest: &Sha256) -> Result<Option<Binding>, StoreError>;

    /// Forgets binding tokens of all tenants that are good no more; answers how many.
    fn forget_bindings(&mut self, now: Timestamp) -> Result<usize, StoreError>;

    /// Writes down up to which event a subscription was told over a connection of its subscriber. It never goes back.
    fn told_until(
        &mut self,
        tenant: &TenantId,
        id: &SubscriptionId,
        until: i64,
        now: Timestamp,
    ) -> Result<(), StoreError>;

    /// Forgets what happened in a tenant before `before`, oldest first, at most `limit`; answers how many events of
    /// subscriptions that were.
    fn forget_events(
        &mut self,
        tenant: &TenantId,
        before: Timestamp,
        limit: u32,
    ) -> Result<usize, StoreError>;
}

/// Keeps secrets sealed with a key that the database does not have.
pub trait Vault: Send + Sync {
    /// Seals `plain`; what was sealed for one `purpose` can't be opened for another. `None` where there is no key.
    fn seal(&self, purpose: &str, plain: &[u8]) -> Option<Vec<u8>>;

    /// What was sealed; `None` where the key is another, or it was altered.
    fn open(&self, purpose: &str, sealed: &[u8]) -> Option<Vec<u8>>;
}
