//! What a unit of work, and reads outside of one, do for sources.

use std::collections::BTreeMap;

use handoff_domain::facts::Fact;
use handoff_domain::inbox::{FeedSubscription, Mirror, Notice};
use handoff_domain::ports::{NoticeSearch, ReadInbound, StoreError, TxInbound};
use handoff_domain::source::Source;
use handoff_domain::{NoticeId, SourceId, TenantId, Timestamp};

use super::{Reader, Unit};
use crate::{clinical_facts, mirrors, notices, sources};

reads! { ReadInbound for Reader<'_>, Unit<'_>:
    source(tenant: &TenantId, id: &SourceId) -> Option<Source> = sources::source, of ["sources"];
    sources(tenant: Option<&TenantId>) -> Vec<(TenantId, Source)> = sources::sources, of ["sources"];
    feed_subscriptions(tenant: &TenantId, source: &SourceId) -> Vec<FeedSubscription>
        = sources::subscriptions, of ["feed_subscriptions"];
    notice(tenant: &TenantId, id: &NoticeId) -> Option<Notice> = notices::notice, of ["notices"];
    notices(tenant: &TenantId, search: &NoticeSearch) -> Vec<Notice> = notices::search, of ["notices"];
    waiting_sources(now: Timestamp) -> Vec<(TenantId, SourceId)>
        = notices::waiting_sources, of ["notices"];
    waiting_notices(tenant: &TenantId, source: &SourceId, now: Timestamp, limit: u32) -> Vec<NoticeId>
        = notices::waiting, of ["notices"];
    backlog(tenant: &TenantId, source: &SourceId) -> (u64, u64) = notices::backlog, of ["notices"];
    inbox_depth() -> BTreeMap<String, u64> = notices::depth, of ["notices"];
    mirror(tenant: &TenantId, source: &SourceId, theirs: &str) -> Option<Mirror>
        = mirrors::mirror, of ["mirrors"];
    facts_about(tenant: &TenantId, subjects: &[String]) -> Vec<Fact>
        = clinical_facts::about, of ["clinical_facts"];
    facts_changed(since: Option<Timestamp>) -> Vec<(TenantId, Fact)>
        = clinical_facts::changed, of ["clinical_facts"];
}

impl TxInbound for Unit<'_> {
    fn insert_source(&mut self, tenant: &TenantId, source: &Source) -> Result<(), StoreError> {
        self.attempt(|unit| sources::insert(unit, tenant, source))
    }

    fn lock_source(&mut self, tenant: &TenantId, id: &SourceId) -> Result<Option<Source>, StoreError> {
        self.attempt(|unit| sources::lock(unit, tenant, id))
    }

    fn update_source(&mut self, tenant: &TenantId, source: &Source) -> Result<(), StoreError> {
        self.attempt(|unit| sources::update(unit, tenant, source))
    }

    fn remove_source(&mut self, tenant: &TenantId, id: &SourceId) -> Result<bool, StoreError> {
        self.attempt(|unit| sources::remove(unit, tenant, id))
    }

    fn put_feed_subscription(
        &mut self,
        tenant: &TenantId,
        subscription: &FeedSubscription,
    ) -> Result<(), StoreError> {
        self.attempt(|unit| sources::put_subscription(unit, tenant, subscription))
    }

    fn remove_feed_subscription(
        &mut self,
        tenant: &TenantId,
        source: &SourceId,
        reference: &str,
    ) -> Result<(), StoreError> {
        self.attempt(|unit| sources::remove_subscription(unit, tenant, source, reference))
    }

    fn insert_notice(&mut self, tenant: &TenantId, notice: &Notice) -> Result<(), StoreError> {
        self.attempt(|unit| {
            notices::insert(unit, tenant, notice);
            Ok(())
        })
    }

    fn lock_notice(&mut self, tenant: &TenantId, id: &NoticeId) -> Result<Option<Notice>, StoreError> {
        self.attempt(|unit| notices::lock(unit, tenant, id))
    }

    fn update_notice(&mut self, tenant: &TenantId, notice: &Notice) -> Result<(), StoreError> {
        self.attempt(|unit| notices::update(unit, tenant, notice))
    }

    fn forget_notices(&mut self, until: Timestamp) -> Result<usize, StoreError> {
        self.attempt(|unit| notices::forget(unit, until))
    }

    fn lock_mirror(
        &mut self,
        tenant: &TenantId,
        source: &SourceId,
        theirs: &str,
    ) -> Result<Option<Mirror>, StoreError> {
        self.attempt(|unit| mirrors::lock(unit, tenant, source, theirs))
    }

    fn put_mirror(&mut self, tenant: &TenantId, mirror: &Mirror) -> Result<(), StoreError> {
        self.attempt(|unit| mirrors::put(unit, tenant, mirror))
    }

    fn awaiting(
        &mut self,
        tenant: &TenantId,
        source: &SourceId,
        theirs: &str,
        limit: u32,
    ) -> Result<Vec<Mirror>, StoreError> {
        self.attempt(|unit| {
            unit.settle_tables(&["mirrors"])?;
            mirrors::awaiting(unit.connection, tenant, source, theirs, limit)
        })
    }

    fn facts_of(
        &mut self,
        tenant: &TenantId,
        source: &SourceId,
        resource: &str,
    ) -> Result<Vec<Fact>, StoreError> {
        self.attempt(|unit| {
            unit.settle_tables(&["clinical_facts"])?;
            clinical_facts::of(unit.connection, tenant, source, resource)
        })
    }

    fn put_fact(&mut self, tenant: &TenantId, fact: &Fact, now: Timestamp) -> Result<(), StoreError> {
        self.attempt(|unit| clinical_facts::put(unit, tenant, fact, now))
    }
}
