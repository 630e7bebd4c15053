//! One unit of work: the port's `Read` and `Tx` over one connection. Rows that nobody reads in between are
//! kept until the end, or until something is read, and written together then.

use std::collections::{HashMap, HashSet};

use handoff_domain::audit::AuditRow;
use handoff_domain::document::{Document, StoredBinary};
use handoff_domain::grant::Grant;
use handoff_domain::outbox::TopicEvent;
use handoff_domain::ports::{
    AuditSearch, Found, Held, Kind, Loose, Read, RecordedRow, Search, SearchIndex, StoreError, Tx, Verdict,
    Version, Work,
};
use handoff_domain::redemption::Redemption;
use handoff_domain::session::{Session, Sessions};
use handoff_domain::standing::{Block, Standing, Target};
use handoff_domain::task::Task;
use handoff_domain::{
    ActorRef, BinaryId, BlockId, DocumentId, GrantId, Handle, Reason, RedemptionId, Span, TaskId, TenantId,
    Timestamp,
};

use crate::dialect::{AnyConnection, Bulk, CUT_CHANNEL, EVENT_CHANNEL, Hold};
use crate::engine::{Done, Told};
use crate::error::OrRefused;
use crate::search::Digest;
use crate::tasks::Links;
use crate::{
    actors, audit, binaries, documents, grants, history, outbox, redemptions, search, sessions, standing,
    tasks,
};

/// Reads outside of any transaction.
pub(crate) struct Reader<'c> {
    /// Where to read.
    pub(crate) connection: &'c mut AnyConnection,
}

/// A Task that was read under lock, or written, in this unit: nobody else can change it before the unit ends, so it
/// is not read again.
#[derive(Debug, Clone)]
pub(crate) struct HeldTask {
    /// The Task as it stands.
    pub(crate) task: Task,
    /// Its rows in other tables.
    pub(crate) links: Links,
    /// Whether it came to be in this unit: then nobody else has written anything about it.
    pub(crate) new: bool,
}

/// A document that was read under lock, or written, in this unit.
#[derive(Debug, Clone)]
pub(crate) struct HeldDocument {
    /// The document as it stands.
    pub(crate) document: Document,
    /// How it is held.
    pub(crate) hold: Hold,
}

/// One transaction.
pub(crate) struct Unit<'c> {
    pub(crate) connection: &'c mut AnyConnection,
    pub(crate) bulk: Bulk,
    pub(crate) tasks: HashMap<(TenantId, TaskId), HeldTask>,
    pub(crate) documents: HashMap<(TenantId, DocumentId), HeldDocument>,
    /// Tasks for which grants were written in this unit.
    pub(crate) granted: HashSet<(TenantId, TaskId)>,
    /// Resources whose index was written in this unit and may still wait in `bulk`.
    pub(crate) indexed: HashSet<(TenantId, Kind, String)>,
    /// What the search rows of resources say that were read under lock, or written, in this unit.
    pub(crate) digests: HashMap<(TenantId, Kind, String), Digest>,
    /// What others are to learn of once it is committed.
    pub(crate) told: Told,
    /// The database refused something: nothing that follows can be trusted to belong to the transaction.
    failed: Option<StoreError>,
}

/// Runs a use case's work as a unit of this connection's transaction.
pub(crate) fn run(connection: &mut AnyConnection, work: &mut Work) -> Result<Done, StoreError> {
    let mut unit = Unit {
        connection,
        bulk: Bulk::default(),
        tasks: HashMap::new(),
        documents: HashMap::new(),
        granted: HashSet::new(),
        indexed: HashSet::new(),
        digests: HashMap::new(),
        told: Told::default(),
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
            return Ok(Done {
                verdict,
                told: Told::default(),
            });
        }
        self.settle()?;
        if self.told.cut {
            self.connection.notify(CUT_CHANNEL).or_refused()?;
        }
        if self.told.events {
            self.connection.notify(EVENT_CHANNEL).or_refused()?;
        }
        Ok(Done {
            verdict,
            told: self.told,
        })
    }

    /// Writes what waits to be written.
    pub(crate) fn settle(&mut self) -> Result<(), StoreError> {
        if !self.bulk.is_empty() {
            let found_all = self.bulk.write(self.connection).or_refused()?;
            self.indexed.clear();
            if !found_all {
                return Err(StoreError::Conflict);
            }
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

    /// Writes what waits, if rows of one of these tables are among it.
    pub(crate) fn settle_tables(&mut self, tables: &[&str]) -> Result<(), StoreError> {
        if self.bulk.touches(tables) {
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

    /// Reads, after what waits to be written to these tables was written.
    fn reading<T>(
        &mut self,
        tables: &[&str],
        act: impl FnOnce(&mut AnyConnection) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        self.attempt(|unit| {
            unit.settle_tables(tables)?;
            act(unit.connection)
        })
    }

    fn held_task(&mut self, tenant: &TenantId, id: &TaskId) -> Option<Task> {
        let held = self.tasks.get(&(tenant.clone(), id.clone()))?;
        Some(held.task.clone())
    }

    fn held_document(&mut self, tenant: &TenantId, id: &DocumentId) -> Option<Document> {
        let held = self.documents.get(&(tenant.clone(), id.clone()))?;
        Some(held.document.clone())
    }

    /// The grants of a Task, where they are known without asking: none of one that is new in this unit.
    fn held_grants(&mut self, tenant: &TenantId, task: &TaskId) -> Option<Vec<Grant>> {
        let key = (tenant.clone(), task.clone());
        let held = self.tasks.get(&key)?;
        (held.new && !self.granted.contains(&key)).then(Vec::new)
    }
}

impl Reader<'_> {
    fn reading<T>(
        &mut self,
        _tables: &[&str],
        act: impl FnOnce(&mut AnyConnection) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        act(self.connection)
    }

    // Outside of a transaction nothing is held.

    #[expect(clippy::unused_self, reason = "the counterpart of a unit's")]
    fn held_task(&mut self, _: &TenantId, _: &TaskId) -> Option<Task> {
        None
    }

    #[expect(clippy::unused_self, reason = "the counterpart of a unit's")]
    fn held_document(&mut self, _: &TenantId, _: &DocumentId) -> Option<Document> {
        None
    }

    #[expect(clippy::unused_self, reason = "the counterpart of a unit's")]
    fn held_grants(&mut self, _: &TenantId, _: &TaskId) -> Option<Vec<Grant>> {
        None
    }
}

/// The reads are the same in a transaction and outside. In a transaction what waits to be written to the tables
/// that a read looks at is written first, and what the unit holds is not asked for.
macro_rules! reads {
    ($part:ident of $on:ty: $($name:ident($($arg:ident: $kind:ty),*) -> $answer:ty
        = $function:path, of [$($table:literal),*] $(, unless $held:ident($($of:ident),*))?;)+) => {
        impl $part for $on {
            $(fn $name(&mut self, $($arg: $kind),*) -> Result<$answer, StoreError> {
                $(if let Some(held) = self.$held($($of),*) {
                    return Ok(held.into());
                })?
                self.reading(&[$($table),*], |connection| $function(connection, $($arg),*))
            })+
        }
    };
    ($part:ident for $a:ty, $b:ty: $($rest:tt)+) => {
        reads! { $part of $a: $($rest)+ }
        reads! { $part of $b: $($rest)+ }
    };
}

reads! { Read for Reader<'_>, Unit<'_>:
        task(tenant: &TenantId, id: &TaskId) -> Option<Task> = tasks::task, of ["tasks"], unless held_task(tenant, id);
        document(tenant: &TenantId, id: &DocumentId) -> Option<Document>
            = documents::document, of ["documents"], unless held_document(tenant, id);
        binary(tenant: &TenantId, id: &BinaryId) -> Option<StoredBinary> = binaries::binary, of ["binaries"];
        block_hashes(tenant: &TenantId, id: &BinaryId, first: u32, count: u32) -> Vec<[u8; 32]>
            = binaries::block_hashes, of ["binary_blocks"];
        current(tenant: &TenantId, kind: Kind, id: &str) -> Option<Version>
            = history::current, of ["resource_versions", "binaries"];
        current_task(tenant: &TenantId, id: &TaskId) -> Option<(Task, Version)>
            = tasks::current, of ["tasks", "resource_versions"];
        version(tenant: &TenantId, kind: Kind, id: &str, version: i64) -> Option<Version>
            = history::version, of ["resource_versions", "binaries"];
        history(tenant: &TenantId, kind: Kind, id: &str, since: Option<Timestamp>, before: Option<i64>, limit: u32)
            -> Vec<Version> = history::history, of ["resource_versions", "binaries"];
        search(tenant: &TenantId, search: &Search) -> Found = search::search, of [
            "tasks", "documents", "resource_versions", "task_viewers", "task_documents",
            "search_tokens", "search_references", "search_dates", "search_strings"];
        grants_of_task(tenant: &TenantId, task: &TaskId) -> Vec<Grant>
            = grants::of_task, of ["grants"], unless held_grants(tenant, task);
        grants_of_document(tenant: &TenantId, document: &DocumentId, limit: u32) -> Vec<Grant>
            = grants::of_document, of ["grants"];
        grants_of_binary(tenant: &TenantId, binary: &BinaryId) -> Vec<Grant> = grants::of_binary, of ["grants"];
        grant(tenant: &TenantId, id: &GrantId) -> Option<Grant> = grants::grant, of ["grants"];
        grant_by_handle(tenant: &TenantId, handle: &Handle) -> Option<Grant>
            = grants::by_handle, of ["grants"];
        redemption(tenant: &TenantId, id: &RedemptionId) -> Option<Redemption>
            = redemptions::redemption, of ["redemptions"];
        redemptions_of_grant(tenant: &TenantId, grant: &GrantId) -> Vec<Redemption>
            = redemptions::of_grant, of ["redemptions"];
        tasks_of_document(tenant: &TenantId, document: &DocumentId) -> Vec<TaskId>
            = tasks::of_document, of ["task_documents"];
        children(tenant: &TenantId, task: &TaskId) -> Vec<TaskId> = tasks::children, of ["task_parents"];
        teams_of(tenant: &TenantId, actor: &ActorRef, since: Timestamp) -> Vec<String>
            = actors::teams_of, of ["actors"];
        session(tenant: &TenantId, id: &str) -> Option<Session> = sessions::session, of ["sessions"];
        standing_everywhere() -> HashMap<TenantId, Standing> = standing::everywhere, of ["standing_blocks"];
        standing(tenant: &TenantId) -> Standing = standing::of_tenant, of ["standing_blocks"];
        blocks(tenant: &TenantId, limit: u32) -> Vec<Block> = standing::blocks, of ["standing_blocks"];
        block(tenant: &TenantId, id: &BlockId) -> Option<Block> = standing::block, of ["standing_blocks"];
        tasks_with_open(tenant: &TenantId, target: &Target, after: Option<&TaskId>, limit: u32) -> Vec<TaskId>
            = standing::tasks_with_open, of ["grants", "redemptions", "tasks", "documents"];
        audit(tenant: &TenantId, search: &AuditSearch) -> Vec<RecordedRow> = audit::search, of ["audit_log"];
        due(now: Timestamp, limit: u32) -> Vec<(TenantId, TaskId)> = grants::due, of ["grants", "redemptions"];
        next_due(now: Timestamp) -> Option<Timestamp> = grants::next_due, of ["grants"];
        abandoned(silence: Span, now: Timestamp, limit: u32) -> Vec<Loose>
            = redemptions::abandoned, of ["redemptions"];
        held_by(process: &str, now: Timestamp) -> Vec<Held> = redemptions::held_by, of ["redemptions", "grants"];
        halted_at(process: &str) -> Vec<Held> = redemptions::halted_at, of ["redemptions"];
}

mod drift;
mod forwarding;
mod inbound;
mod ledger;
mod retention;
mod scans;
mod subscriptions;

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

    fn delete_binary(
        &mut self,
        tenant: &TenantId,
        id: &BinaryId,
        of: Option<&DocumentId>,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        self.attempt(|unit| binaries::delete(unit, tenant, id, of, now))
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
        process: &str,
        now: Timestamp,
    ) -> Result<u32, StoreError> {
        self.attempt(|unit| redemptions::reopen(unit, tenant, grant, (reason, process), now))
    }

    fn place_block(&mut self, tenant: &TenantId, block: &Block) -> Result<(), StoreError> {
        self.attempt(|unit| {
            standing::place(unit, tenant, block);
            Ok(())
        })
    }

    fn lift_block(
        &mut self,
        tenant: &TenantId,
        id: &BlockId,
        by: &ActorRef,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        self.attempt(|unit| standing::lift(unit, tenant, id, by, now))
    }

    fn insert_session(&mut self, tenant: &TenantId, session: &Session) -> Result<(), StoreError> {
        self.attempt(|unit| {
            sessions::insert(unit, tenant, session);
            Ok(())
        })
    }

    fn touch_session(&mut self, tenant: &TenantId, id: &str, now: Timestamp) -> Result<(), StoreError> {
        self.attempt(|unit| sessions::touch(unit, tenant, id, now))
    }

    fn end_sessions(&mut self, tenant: &TenantId, which: &Sessions) -> Result<usize, StoreError> {
        self.attempt(|unit| sessions::end(unit, tenant, which))
    }

    fn forget_sessions(&mut self, now: Timestamp, idle_since: Timestamp) -> Result<usize, StoreError> {
        self.attempt(|unit| sessions::forget(unit, now, idle_since))
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
        self.told.outbox = true;
        outbox::add(&mut self.bulk, tenant, event);
    }
}
