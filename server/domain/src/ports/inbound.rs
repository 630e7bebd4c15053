//! What the store keeps of sources: who they are, what they told, what it became here, and the facts that follow from it.

use std::collections::BTreeMap;

use super::store::StoreError;
use crate::facts::Fact;
use crate::ids::{NoticeId, SourceId, TenantId};
use crate::inbox::{FeedSubscription, Mirror, Notice};
use crate::source::Source;
use crate::time::Timestamp;

/// Which notices are listed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NoticeSearch {
    /// In this state, by its word.
    pub state: &'static str,
    /// Of this source; of any where `None`.
    pub source: Option<SourceId>,
    /// About this resource at the source; about any where `None`.
    pub about: Option<String>,
    /// Older than this one.
    pub before: Option<NoticeId>,
    /// The most.
    pub limit: u32,
}

/// Reads of what sources told.
pub trait ReadInbound {
    /// A source.
    fn source(&mut self, tenant: &TenantId, id: &SourceId) -> Result<Option<Source>, StoreError>;

    /// The sources of a tenant by name; of all tenants where `None`.
    fn sources(&mut self, tenant: Option<&TenantId>) -> Result<Vec<(TenantId, Source)>, StoreError>;

    /// The subscriptions that a source told of.
    fn feed_subscriptions(
        &mut self,
        tenant: &TenantId,
        source: &SourceId,
    ) -> Result<Vec<FeedSubscription>, StoreError>;

    /// One notice.
    fn notice(&mut self, tenant: &TenantId, id: &NoticeId) -> Result<Option<Notice>, StoreError>;

    /// Notices that match, newest first, without what was sent.
    fn notices(&mut self, tenant: &TenantId, search: &NoticeSearch) -> Result<Vec<Notice>, StoreError>;

    /// Sources of all tenants of which notices wait whose time has come.
    fn waiting_sources(&mut self, now: Timestamp) -> Result<Vec<(TenantId, SourceId)>, StoreError>;

    /// Notices of a source that wait and whose time has come, oldest first.
    fn waiting_notices(
        &mut self,
        tenant: &TenantId,
        source: &SourceId,
        now: Timestamp,
        limit: u32,
    ) -> Result<Vec<NoticeId>, StoreError>;

    /// How many notices of a source wait, and how many of them ask for whatever changed and were not begun.
    fn backlog(&mut self, tenant: &TenantId, source: &SourceId) -> Result<(u64, u64), StoreError>;

    /// How many notices wait and how many are quarantined, over all tenants, by the word of the state.
    fn inbox_depth(&mut self) -> Result<BTreeMap<String, u64>, StoreError>;

    /// What is known of a resource at a source.
    fn mirror(
        &mut self,
        tenant: &TenantId,
        source: &SourceId,
        theirs: &str,
    ) -> Result<Option<Mirror>, StoreError>;

    /// Facts about these, `Type/id` each, that stand.
    fn facts_about(&mut self, tenant: &TenantId, subjects: &[String]) -> Result<Vec<Fact>, StoreError>;

    /// Facts of all tenants that bear on releases and changed at or after `since`, those that stand no more too; all that
    /// stand where `None`.
    fn facts_changed(&mut self, since: Option<Timestamp>) -> Result<Vec<(TenantId, Fact)>, StoreError>;
}

/// Writes of what sources told.
pub trait TxInbound {
    /// Stores a new source; `Conflict` where there is one of that name.
    fn insert_source(&mut self, tenant: &TenantId, source: &Source) -> Result<(), StoreError>;

    /// The source, under lock: what it tells is taken in one by one.
    fn lock_source(&mut self, tenant: &TenantId, id: &SourceId) -> Result<Option<Source>, StoreError>;

    /// Stores a source that was locked.
    fn update_source(&mut self, tenant: &TenantId, source: &Source) -> Result<(), StoreError>;

    /// Forgets a source, with its subscriptions. What it told stays.
    fn remove_source(&mut self, tenant: &TenantId, id: &SourceId) -> Result<bool, StoreError>;

    /// Stores what is known of a subscription at a source: a new one where its revision is 0, else the next one.
    fn put_feed_subscription(
        &mut self,
        tenant: &TenantId,
        subscription: &FeedSubscription,
    ) -> Result<(), StoreError>;

    /// Forgets what is known of a subscription at a source.
    fn remove_feed_subscription(
        &mut self,
        tenant: &TenantId,
        source: &SourceId,
        reference: &str,
    ) -> Result<(), StoreError>;

    /// Stores a new notice.
    fn insert_notice(&mut self, tenant: &TenantId, notice: &Notice) -> Result<(), StoreError>;

    /// The notice, under lock.
    fn lock_notice(&mut self, tenant: &TenantId, id: &NoticeId) -> Result<Option<Notice>, StoreError>;

    /// Stores a changed notice: its revision must be one above the stored one, else `Conflict`.
    fn update_notice(&mut self, tenant: &TenantId, notice: &Notice) -> Result<(), StoreError>;

    /// Forgets notices of all tenants that are settled and came before `until`; answers how many.
    fn forget_notices(&mut self, until: Timestamp) -> Result<usize, StoreError>;

    /// What is known of a resource at a source, under lock.
    fn lock_mirror(
        &mut self,
        tenant: &TenantId,
        source: &SourceId,
        theirs: &str,
    ) -> Result<Option<Mirror>, StoreError>;

    /// Stores what is known of a resource: a new one where its revision is 1, else the next one.
    fn put_mirror(&mut self, tenant: &TenantId, mirror: &Mirror) -> Result<(), StoreError>;

    /// Resources of a source that await this one, by reference, at most `limit`.
    fn awaiting(
        &mut self,
        tenant: &TenantId,
        source: &SourceId,
        theirs: &str,
        limit: u32,
    ) -> Result<Vec<Mirror>, StoreError>;

    /// The facts that a resource of a source is known for, those that stand no more too.
    fn facts_of(
        &mut self,
        tenant: &TenantId,
        source: &SourceId,
        resource: &str,
    ) -> Result<Vec<Fact>, StoreError>;

    /// Stores a fact, new or changed, as of `now`. Every process learns of it once this is committed.
    fn put_fact(&mut self, tenant: &TenantId, fact: &Fact, now: Timestamp) -> Result<(), StoreError>;
}
