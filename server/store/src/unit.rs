//! One unit of work: the port's `Read` and `Tx` over one connection. Rows that nobody reads in between are
//! kept until the end, or until something is read, and written together then.

use std::collections::{HashMap, HashSet};

use handoff_domain::audit::AuditRow;
use handoff_domain::document::{Document, StoredBinary};
use handoff_domain::grant::Grant;
use handoff_domain::outbox::TopicEvent;
use handoff_domain::ports::{
    AuditSearch, Cut, Found, Kind, Loose, Read, RecordedRow, Search, SearchIndex, StoreError, Tx, Verdict,
    Version, Work,
};
use handoff_domain::redemption::Redemption;
use handoff_domain::task::Task;
use handoff_domain::{
    ActorRef, BinaryId, DocumentId, GrantId, Handle, Reason, RedemptionId, TaskId, TenantId, Timestamp,
};

use crate::dialect::{AnyConnection, Bulk, Hold};
use crate::engine::Done;
use crate::error::OrRefused;
use crate::search::Digest;
use crate::tasks::Links;
use crate::{actors, audit, binaries, documents, grants, history, outbox, redemptions, search, tasks};

/// Reads outside of any transaction.
pub(crate) struct Session<'c> {
    /// Where to read.
    pub(crate) connection: &'c mut AnyConnection,
}

/// What is known of a Task because it was read under lock, or written, in this unit.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    /// Its rows in other tables.
    pub(crate) links: Links,
    /// Its due date, which its grants carry too.
    pub(crate) due: Option<Timestamp>,
}

/// One transaction.
pub(crate) struct Unit<'c> {
    pub(crate) connection: &'c mut AnyConnection,
    pub(crate) bulk: Bulk,
    pub(crate) seen: HashMap<(TenantId, TaskId), Seen>,
    /// Resources whose index was written in this unit and may still wait in `bulk`.
    pub(crate) indexed: HashSet<(TenantId, Kind, String)>,
    /// What the search rows of resources say that were read under lock, or written, in this unit.
    pub(crate) digests: HashMap<(TenantId, Kind, String), Digest>,
    pub(crate) cut: bool,
    /// The database refused something: nothing that follows can be trusted to belong to the transaction.
    failed: Option<StoreError>,
}

/// Runs a use case's work as a unit of this connection's transaction.
pub(crate) fn run(connection: &mut AnyConnection, work: &mut Work) -> Result<Done, StoreError> {
    let mut unit = Unit {
        connection,
        bulk: Bulk::default(),
        seen: HashMap::new(),
        indexed: HashSet::new(),
        digests: HashMap::new(),
        cut: false,
        failed: None,
    };
    let verdict = work(&mut unit)?;
    unit.finish(verdict)
}

impl Unit<'_> {
    fn finish(mut self, verdict: Verdict) -> Result<Done, StoreError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        if verdict == Verdict::Rollback {
            return Ok(Done { verdict, cut: false });
        }
        self.settle()?;
        if self.cut {
            self.connection.notify_of_cuts().or_refused()?;
        }
        Ok(Done {
            verdict,
            cut: self.cut,
        })
    }

    /// Writes what waits to be written.
    pub(crate) fn settle(&mut self) -> Result<(), StoreError> {
        if !self.bulk.is_empty() {
            self.bulk.write(self.connection).or_refused()?;
            self.indexed.clear();
        }
        Ok(())
    }

    /// Prepares for writing a resource's rows: those written before in this unit must be there to be replaced.
    pub(crate) fn touch(&mut self, tenant: &TenantId, kind: Kind, id: &str) -> Result<(), StoreError> {
        if !self.indexed.insert((tenant.clone(), kind, id.to_owned())) {
            self.settle()?;
            self.indexed.insert((tenant.clone(), kind, id.to_owned()));
        }
        Ok(())
    }

    /// Writes a resource's index; answers the digest to be stored with it.
    pub(crate) fn index(
        &mut self,
        tenant: &TenantId,
        kind: Kind,
        id: &str,
        index: &SearchIndex,
        before: &Digest,
    ) -> Result<String, StoreError> {
        let now = search::replace(&mut self.bulk, tenant, kind, id, index, before);
        let text = now.to_text()?;
        self.digests.insert((tenant.clone(), kind, id.to_owned()), now);
        Ok(text)
    }

    /// Writes what waits, if there are grants among it.
    pub(crate) fn settle_grants(&mut self) -> Result<(), StoreError> {
        if self.bulk.holds(&grants::GRANTS) {
            self.settle()
        } else {
            Ok(())
        }
    }

    /// Does one thing, unless something failed before.
    fn attempt<T>(&mut self, act: impl FnOnce(&mut Self) -> Result<T, StoreError>) -> Result<T, StoreError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        let answer = act(self);
        if let Err(error) = &answer {
            self.failed = Some(error.clone());
        }
        answer
    }

    /// Reads, after what waits was written.
    fn reading<T>(
        &mut self,
        act: impl FnOnce(&mut AnyConnection) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        self.attempt(|unit| {
            unit.settle()?;
            act(unit.connection)
        })
    }
}

impl Session<'_> {
    fn reading<T>(
        &mut self,
        act: impl FnOnce(&mut AnyConnection) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        act(self.connection)
    }
}

/// The reads are the same in a transaction and outside.
macro_rules! reads {
    ($on:ty: $($name:ident($($arg:ident: $kind:ty),*) -> $answer:ty = $function:path;)+) => {
        impl Read for $on {
            $(fn $name(&mut self, $($arg: $kind),*) -> Result<$answer, StoreError> {
                self.reading(|connection| $function(connection, $($arg),*))
            })+
        }
    };
    ($($on:ty),+) => {$(reads! { $on:
        task(tenant: &TenantId, id: &TaskId) -> Option<Task> = tasks::task;
        document(tenant: &TenantId, id: &DocumentId) -> Option<Document> = documents::document;
        binary(tenant: &TenantId, id: &BinaryId) -> Option<StoredBinary> = binaries::binary;
        block_hashes(tenant: &TenantId, id: &BinaryId, first: u32, count: u32) -> Vec<[u8; 32]>
            = binaries::block_hashes;
        current(tenant: &TenantId, kind: Kind, id: &str) -> Option<Version> = history::current;
        version(tenant: &TenantId, kind: Kind, id: &str, version: i64) -> Option<Version> = history::version;
        history(tenant: &TenantId, kind: Kind, id: &str, since: Option<Timestamp>, before: Option<i64>, limit: u32)
            -> Vec<Version> = history::history;
        search(tenant: &TenantId, search: &Search) -> Found = search::search;
        grants_of_task(tenant: &TenantId, task: &TaskId) -> Vec<Grant> = grants::of_task;
        grants_of_document(tenant: &TenantId, document: &DocumentId, limit: u32) -> Vec<Grant>
            = grants::of_document;
        grants_of_binary(tenant: &TenantId, binary: &BinaryId) -> Vec<Grant> = grants::of_binary;
        grant(tenant: &TenantId, id: &GrantId) -> Option<Grant> = grants::grant;
        grant_by_handle(tenant: &TenantId, handle: &Handle) -> Option<Grant> = grants::by_handle;
        redemption(tenant: &TenantId, id: &RedemptionId) -> Option<Redemption> = redemptions::redemption;
        redemptions_of_grant(tenant: &TenantId, grant: &GrantId) -> Vec<Redemption> = redemptions::of_grant;
        tasks_of_document(tenant: &TenantId, document: &DocumentId) -> Vec<TaskId> = tasks::of_document;
        children(tenant: &TenantId, task: &TaskId) -> Vec<TaskId> = tasks::children;
        teams_of(tenant: &TenantId, actor: &ActorRef, since: Timestamp) -> Vec<String> = actors::teams_of;
        audit(tenant: &TenantId, search: &AuditSearch) -> Vec<RecordedRow> = audit::search;
        due(now: Timestamp, limit: u32) -> Vec<(TenantId, TaskId)> = grants::due;
        next_due(now: Timestamp) -> Option<Timestamp> = grants::next_due;
        abandoned(silent_since: Timestamp, limit: u32) -> Vec<Loose> = redemptions::abandoned;
        streaming_at(process: &str) -> Vec<Loose> = redemptions::streaming_at;
        cuts(after: i64, limit: u32) -> Vec<Cut> = redemptions::cuts;
    })+};
}

reads!(Session<'_>, Unit<'_>);

impl Tx for Unit<'_> {
    fn lock_tasks(&mut self, tenant: &TenantId, ids: &[TaskId]) -> Result<Vec<Task>, StoreError> {
        self.attempt(|unit| tasks::lock(unit, tenant, ids))
    }

    fn lock_documents(
        &mut self,
        tenant: &TenantId,
        ids: &[DocumentId],
        exclusive: bool,
    ) -> Result<Vec<Document>, StoreError> {
        let hold = if exclusive { Hold::Exclusive } else { Hold::Shared };
        self.attempt(|unit| documents::lock(unit, tenant, ids, hold))
    }

    fn insert_task(
        &mut self,
        tenant: &TenantId,
        task: &Task,
        body: &[u8],
        index: &SearchIndex,
    ) -> Result<(), StoreError> {
        self.attempt(|unit| tasks::insert(unit, tenant, task, body, index))
    }

    fn update_task(
        &mut self,
        tenant: &TenantId,
        task: &Task,
        body: &[u8],
        index: Option<&SearchIndex>,
    ) -> Result<(), StoreError> {
        self.attempt(|unit| tasks::update(unit, tenant, task, body, index))
    }

    fn insert_document(
        &mut self,
        tenant: &TenantId,
        document: &Document,
        body: &[u8],
        index: &SearchIndex,
    ) -> Result<(), StoreError> {
        self.attempt(|unit| documents::insert(unit, tenant, document, body, index))
    }

    fn update_document(
        &mut self,
        tenant: &TenantId,
        document: &Document,
        body: &[u8],
        index: Option<&SearchIndex>,
    ) -> Result<(), StoreError> {
        self.attempt(|unit| documents::update(unit, tenant, document, body, index))
    }

    fn insert_binary(
        &mut self,
        tenant: &TenantId,
        binary: &StoredBinary,
        blocks: &[[u8; 32]],
    ) -> Result<(), StoreError> {
        self.attempt(|unit| binaries::insert(unit, tenant, binary, blocks))
    }

    fn claim_binary(
        &mut self,
        tenant: &TenantId,
        id: &BinaryId,
        document: &DocumentId,
    ) -> Result<bool, StoreError> {
        self.attempt(|unit| binaries::claim(unit, tenant, id, document))
    }

    fn delete_binary(&mut self, tenant: &TenantId, id: &BinaryId, now: Timestamp) -> Result<(), StoreError> {
        self.attempt(|unit| binaries::delete(unit, tenant, id, now))
    }

    fn insert_grant(&mut self, tenant: &TenantId, grant: &Grant) -> Result<(), StoreError> {
        self.attempt(|unit| grants::insert(unit, tenant, grant))
    }

    fn update_grant(&mut self, tenant: &TenantId, grant: &Grant) -> Result<(), StoreError> {
        self.attempt(|unit| grants::update(unit, tenant, grant))
    }

    fn insert_redemption(&mut self, tenant: &TenantId, redemption: &Redemption) -> Result<(), StoreError> {
        self.attempt(|unit| redemptions::insert(unit, tenant, redemption))
    }

    fn update_redemption(&mut self, tenant: &TenantId, redemption: &Redemption) -> Result<(), StoreError> {
        self.attempt(|unit| redemptions::update(unit, tenant, redemption))
    }

    fn cut_redemptions(
        &mut self,
        tenant: &TenantId,
        grant: &GrantId,
        reason: Reason,
        now: Timestamp,
    ) -> Result<u32, StoreError> {
        self.attempt(|unit| redemptions::cut(unit, tenant, grant, reason, now))
    }

    fn reopen_redemptions(
        &mut self,
        tenant: &TenantId,
        grant: &GrantId,
        reason: Reason,
        now: Timestamp,
    ) -> Result<u32, StoreError> {
        self.attempt(|unit| redemptions::reopen(unit, tenant, grant, reason, now))
    }

    fn remember_actor(
        &mut self,
        tenant: &TenantId,
        actor: &ActorRef,
        teams: &[String],
        seen: Timestamp,
    ) -> Result<(), StoreError> {
        self.attempt(|unit| actors::remember(unit, tenant, actor, teams, seen))
    }

    fn record(&mut self, tenant: &TenantId, row: AuditRow) {
        if let Err(error) = audit::add(&mut self.bulk, tenant, &row) {
            self.failed.get_or_insert(error);
        }
    }

    fn tell(&mut self, tenant: &TenantId, event: TopicEvent) {
        outbox::add(&mut self.bulk, tenant, event);
    }
}
