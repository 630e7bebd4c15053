//! What the store keeps for the clocks of documents: holds, what is due, and content that is disposed of.

use super::store::StoreError;
use crate::document::Document;
use crate::hold::Hold;
use crate::ids::{ActorRef, BinaryId, DocumentId, HoldId, TenantId};
use crate::retention::{Cause, Disposal, DisposalState, KeptDocument};
use crate::time::Timestamp;

/// Documents of which classes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Classes {
    /// Of this one.
    One(String),
    /// Of none of these, or of none at all.
    AllBut(Vec<String>),
}

/// Reads of it.
pub trait ReadRetention {
    /// The holds of a tenant that stand at `now`, newest first.
    fn holds(&mut self, tenant: &TenantId, now: Timestamp, limit: u32) -> Result<Vec<Hold>, StoreError>;

    /// One hold, whether it stands or not.
    fn hold(&mut self, tenant: &TenantId, id: &HoldId) -> Result<Option<Hold>, StoreError>;

    /// A document, a deleted one too, with when it was created.
    fn kept_document(
        &mut self,
        tenant: &TenantId,
        id: &DocumentId,
    ) -> Result<Option<KeptDocument>, StoreError>;

    /// Documents of these classes that were created at `until` or before and are not disposed of, in the order of their creation
    /// and after one of them.
    fn documents_by_age(
        &mut self,
        tenant: &TenantId,
        classes: &Classes,
        until: Timestamp,
        after: Option<&(Timestamp, DocumentId)>,
        limit: u32,
    ) -> Result<Vec<KeptDocument>, StoreError>;

    /// Documents whose availability has changed by `now`, of any tenant.
    fn documents_turned(
        &mut self,
        now: Timestamp,
        limit: u32,
    ) -> Result<Vec<(TenantId, DocumentId)>, StoreError>;

    /// The Binaries that belong to a document, those of earlier versions and deleted ones too.
    fn binaries_of(&mut self, tenant: &TenantId, document: &DocumentId) -> Result<Vec<BinaryId>, StoreError>;

    /// What is disposed of a document.
    fn disposals_of(&mut self, tenant: &TenantId, document: &DocumentId)
    -> Result<Vec<Disposal>, StoreError>;

    /// Content of any tenant that may be deleted by `now` and is not gone, after one of it, in the order of tenant and Binary.
    fn disposals_due(
        &mut self,
        now: Timestamp,
        after: Option<&(TenantId, BinaryId)>,
        limit: u32,
    ) -> Result<Vec<(TenantId, Disposal)>, StoreError>;

    /// How much content is marked and not gone, and when the longest-due of it was to be.
    fn disposals_waiting(&mut self) -> Result<(u64, Option<Timestamp>), StoreError>;
}

/// Changes to it.
pub trait TxRetention {
    /// Places a hold.
    fn place_hold(&mut self, tenant: &TenantId, hold: &Hold) -> Result<(), StoreError>;

    /// Lifts a hold; answers whether it was not lifted before.
    fn lift_hold(
        &mut self,
        tenant: &TenantId,
        id: &HoldId,
        by: &ActorRef,
        now: Timestamp,
    ) -> Result<bool, StoreError>;

    /// As [`ReadRetention::holds`], and no other can be placed before the transaction ends.
    fn lock_holds(&mut self, tenant: &TenantId, now: Timestamp, limit: u32) -> Result<Vec<Hold>, StoreError>;

    /// Changes the clocks of a locked document, which is no new version of it: its availability, which changes next at
    /// `turns`, until when it is kept, and that it is disposed of.
    fn keep_document(
        &mut self,
        tenant: &TenantId,
        document: &Document,
        turns: Option<Timestamp>,
        now: Timestamp,
    ) -> Result<(), StoreError>;

    /// Marks content to be disposed of. What is marked already stays as it is.
    fn mark_disposal(&mut self, tenant: &TenantId, disposal: &Disposal) -> Result<(), StoreError>;

    /// Has what is marked of a document be deleted for another cause, from now on.
    fn hasten_disposals(
        &mut self,
        tenant: &TenantId,
        document: &DocumentId,
        cause: Cause,
        now: Timestamp,
    ) -> Result<(), StoreError>;

    /// Goes on with what is disposed of; answers whether it was there.
    fn move_disposal(
        &mut self,
        tenant: &TenantId,
        binary: &BinaryId,
        from: DisposalState,
        to: DisposalState,
        now: Timestamp,
    ) -> Result<bool, StoreError>;
}
