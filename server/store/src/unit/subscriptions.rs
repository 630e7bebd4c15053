//! The part of a unit of work that is about Subscriptions.

use std::collections::HashMap;

use handoff_domain::binding::Binding;
use handoff_domain::document::Sha256;
use handoff_domain::outbox::TopicEvent;
use handoff_domain::ports::{
    Attention, Counted, Due, Pending, ReadSubscriptions, SearchIndex, StoreError, TxSubscriptions,
};
use handoff_domain::subscription::{Course, NumberedEvent, Subscription};
use handoff_domain::{SubscriptionId, TenantId, Timestamp};

use super::{Reader, Unit};
use crate::{bindings, subscription_events as events, subscriptions};

reads! { ReadSubscriptions for Reader<'_>, Unit<'_>:
    subscription(tenant: &TenantId, id: &SubscriptionId) -> Option<Attention>
        = subscriptions::subscription, of ["subscriptions", "subscription_counts", "subscription_courses"];
    count_subscriptions(tenant: &TenantId, creator: &str) -> (u64, u64) = subscriptions::count, of ["subscriptions"];
    events(tenant: &TenantId, id: &SubscriptionId, from: i64, until: i64, limit: u32) -> Vec<NumberedEvent>
        = events::events, of ["subscription_events"];
    due_subscriptions(shards: &[u8], now: Timestamp, after: Option<&Due>, limit: u32) -> Vec<Due>
        = subscriptions::due, of ["subscription_counts", "subscription_courses"];
    undelivered(tenant: &TenantId, limit: u32) -> Vec<Attention>
        = subscriptions::undelivered, of ["subscriptions", "subscription_counts", "subscription_courses"];
    counted(which: &[Due]) -> Vec<Counted> = bindings::counted, of ["subscription_counts", "subscriptions"];
    has_pending() -> bool = events::has_pending, of ["outbox"];
}

impl TxSubscriptions for Unit<'_> {
    fn lock_subscription(
        &mut self,
        tenant: &TenantId,
        id: &SubscriptionId,
    ) -> Result<Option<Subscription>, StoreError> {
        self.attempt(|unit| subscriptions::lock(unit, tenant, id))
    }

    fn insert_subscription(
        &mut self,
        tenant: &TenantId,
        subscription: &Subscription,
        body: &[u8],
        index: &SearchIndex,
        sealed: &[u8],
    ) -> Result<(), StoreError> {
        self.attempt(|unit| subscriptions::insert(unit, tenant, subscription, body, index, sealed))
    }

    fn update_subscription(
        &mut self,
        tenant: &TenantId,
        subscription: &Subscription,
        body: &[u8],
        index: &SearchIndex,
        sealed: Option<&[u8]>,
    ) -> Result<(), StoreError> {
        self.attempt(|unit| subscriptions::update(unit, tenant, subscription, body, index, sealed))
    }

    fn set_course(
        &mut self,
        tenant: &TenantId,
        subscription: &Subscription,
        course: &Course,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        self.attempt(|unit| subscriptions::set_course(unit, tenant, subscription, course, now))
    }

    fn advance_courses(
        &mut self,
        delivered: &[(Due, i64, Option<Timestamp>)],
        now: Timestamp,
    ) -> Result<Vec<Due>, StoreError> {
        self.attempt(|unit| subscriptions::advance(unit, delivered, now))
    }

    fn fix_courses(&mut self, tried: &[(Due, i64)]) -> Result<Vec<Due>, StoreError> {
        self.attempt(|unit| subscriptions::fix(unit, tried))
    }

    fn rewind_course(
        &mut self,
        tenant: &TenantId,
        id: &SubscriptionId,
        delivered: i64,
    ) -> Result<(), StoreError> {
        self.attempt(|unit| subscriptions::rewind(unit, tenant, id, delivered))
    }

    fn take_pending(&mut self, limit: u32) -> Result<Vec<Pending>, StoreError> {
        self.attempt(|unit| events::take_pending(unit, limit))
    }

    fn subscription_revisions(&mut self) -> Result<HashMap<TenantId, i64>, StoreError> {
        self.attempt(|unit| events::revisions(unit.connection))
    }

    fn counting_subscriptions(&mut self, tenant: &TenantId) -> Result<Vec<Subscription>, StoreError> {
        self.attempt(|unit| {
            unit.settle_tables(&["subscriptions"])?;
            events::counting(unit.connection, tenant)
        })
    }

    fn give_events(&mut self, given: &[(Due, Vec<TopicEvent>)]) -> Result<(), StoreError> {
        self.attempt(|unit| events::give(unit, given))
    }

    fn settle_pending(&mut self, pending: &[Pending]) -> Result<(), StoreError> {
        self.attempt(|unit| events::settle(unit, pending))
    }

    fn keep_binding(
        &mut self,
        tenant: &TenantId,
        digest: &Sha256,
        binding: &Binding,
    ) -> Result<(), StoreError> {
        self.attempt(|unit| bindings::keep(unit, tenant, digest, binding))
    }

    fn take_binding(&mut self, tenant: &TenantId, digest: &Sha256) -> Result<Option<Binding>, StoreError> {
        self.attempt(|unit| bindings::take(unit, tenant, digest))
    }

    fn forget_bindings(&mut self, now: Timestamp) -> Result<usize, StoreError> {
        self.attempt(|unit| bindings::forget(unit, now))
    }

    fn told_until(
        &mut self,
        tenant: &TenantId,
        id: &SubscriptionId,
        until: i64,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        self.attempt(|unit| bindings::told(unit, tenant, id, until, now))
    }

    fn forget_events(
        &mut self,
        tenant: &TenantId,
        before: Timestamp,
        limit: u32,
    ) -> Result<usize, StoreError> {
        self.attempt(|unit| events::forget(unit, tenant, before, limit))
    }
}
