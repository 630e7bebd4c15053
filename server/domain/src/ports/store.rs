//! The store port: one transaction per use case, holding the Task version, the grant changes, the audit rows
//! and the outbox rows together. Everything is addressed inside one tenant.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::BoxFuture;
use super::drift::{ReadDrift, TxDrift};
use super::forwarding::{ReadForwarding, TxForwarding};
use super::inbound::{ReadInbound, TxInbound};
use super::ledger::{AuditSearch, RecordedRow};
use super::retention::{ReadRetention, TxRetention};
use super::scans::{ReadScans, TxScans};
use super::sealing::{ReadLedger, TxLedger};
use super::subscriptions::{ReadSubscriptions, TxSubscriptions};
use super::work::{Reading, Work};
use crate::audit::AuditRow;
use crate::document::{Document, StoredBinary};
use crate::grant::Grant;
use crate::ids::{ActorRef, BinaryId, BlockId, DocumentId, GrantId, Handle, RedemptionId, TaskId, TenantId};
use crate::outbox::TopicEvent;
use crate::reason::Reason;
use crate::redemption::{Redemption, RedemptionState};
use crate::session::{Session, Sessions};
use crate::standing::{Block, Standing, Target};
use crate::task::Task;
use crate::time::{Span, Timestamp};

/// Why the store did not do it.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum StoreError {
    /// Somebody else changed the same row first; the whole unit of work is worth trying again.
    #[error("a concurrent change came first")]
    Conflict,
    /// The database can't be reached, is shutting down, or took too long.
    #[error("database unavailable: {0}")]
    Unavailable(String),
    /// The disk is full.
    #[error("database has no room left")]
    Full,
    /// The database holds or answers what it should not.
    #[error("database error: {0}")]
    Broken(String),
}

/// Which resource type a generic read is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Kind {
    /// Task.
    Task,
    /// DocumentReference.
    Document,
    /// Binary (history and vread only; its content is in the blob store).
    Binary,
    /// Subscription.
    Subscription,
}

impl Kind {
    /// The FHIR resource type.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Task => "Task",
            Self::Document => "DocumentReference",
            Self::Binary => "Binary",
            Self::Subscription => "Subscription",
        }
    }

    /// The code system of the resource's `status`, where it has one.
    pub const fn status_system(self) -> Option<&'static str> {
        match self {
            Self::Task => Some("http://hl7.org/fhir/task-status"),
            Self::Document => Some("http://hl7.org/fhir/document-reference-status"),
            Self::Binary => None,
            Self::Subscription => Some("http://hl7.org/fhir/subscription-status"),
        }
    }
}

/// How a version came to be (`Bundle.entry.request.method` in a history).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// POST.
    Create,
    /// PUT, PATCH, or the server's own change.
    Update,
    /// DELETE.
    Delete,
}

/// One stored version of a resource, as it was sent out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    /// `meta.versionId`.
    pub version: i64,
    /// `meta.lastUpdated`.
    pub last_updated: Timestamp,
    /// How it came to be.
    pub method: Method,
    /// The resource as JSON; empty for a deletion.
    pub body: Vec<u8>,
}

/// The values of one resource under the search parameters that it has values for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SearchIndex {
    /// Token parameters: name, system (empty where none), code.
    pub tokens: Vec<(String, String, String)>,
    /// Reference parameters: name, target (`Type/id`, or an absolute URL).
    pub references: Vec<(String, String)>,
    /// Date parameters: name, first and last instant of the value's range.
    pub dates: Vec<(String, Timestamp, Timestamp)>,
    /// String parameters: name, folded text. URI parameters: name, exact text.
    pub strings: Vec<(String, String)>,
}

/// One search parameter with its alternatives (comma = or); several of them are and-ed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Filter {
    /// `_id`.
    Id(Vec<String>),
    /// `_lastUpdated`: any of these ranges, each `[from, until)`.
    LastUpdated(Vec<(Timestamp, Timestamp)>),
    /// A token parameter. System `None`: any; `Some("")`: none. Code `None`: any.
    Token {
        /// Parameter name.
        name: String,
        /// The alternatives.
        any_of: Vec<(Option<String>, Option<String>)>,
        /// `:not`: resources that have none of them, or no value at all.
        negated: bool,
    },
    /// A reference parameter: exact targets (`Type/id`), or a bare id of any type (`*/id`).
    Reference {
        /// Parameter name.
        name: String,
        /// The alternatives.
        any_of: Vec<String>,
    },
    /// A date parameter: the value's range overlaps any of these, each `[from, until)`.
    Date {
        /// Parameter name.
        name: String,
        /// The alternatives.
        any_of: Vec<(Timestamp, Timestamp)>,
    },
    /// A string parameter: folded text starts with, or (exact) equals, any of these.
    Text {
        /// Parameter name.
        name: String,
        /// The alternatives.
        any_of: Vec<String>,
        /// Whether the whole text must match.
        exact: bool,
    },
    /// `:missing`: whether the resource has no value for the parameter.
    Missing {
        /// Parameter name.
        name: String,
        /// Whether it must be missing (else present).
        missing: bool,
    },
    /// All filters of any of these; of none of them, nothing.
    AnyOf(Vec<Vec<Filter>>),
}

/// What order results come in; ties are broken by id, so that pages never overlap.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Sort {
    /// Newest `_lastUpdated` first.
    #[default]
    NewestFirst,
    /// Oldest `_lastUpdated` first.
    OldestFirst,
    /// By `_id`, ascending.
    ById,
}

/// Who looks: results outside of it do not exist for the caller, in counts neither.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Visibility {
    /// The whole tenant.
    Tenant,
    /// Tasks that the actor created, is named in, or that its teams are for; documents that such a Task releases;
    /// Subscriptions that it created.
    Actor {
        /// The actor.
        actor: ActorRef,
        /// Its team codes.
        teams: Vec<String>,
        /// Whether documents that it created are visible as such.
        created: bool,
    },
}

/// One search.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Search {
    /// Any but Binary.
    pub kind: Kind,
    /// All must hold.
    pub filters: Vec<Filter>,
    /// Who looks.
    pub visibility: Visibility,
    /// The order.
    pub sort: Sort,
    /// The most to return; 0 asks for the count alone.
    pub limit: u32,
    /// Where the last page ended: its last resource's `_lastUpdated` and id.
    pub after: Option<(Timestamp, String)>,
    /// Whether to count all matches.
    pub total: bool,
}

/// What a search found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Found {
    /// Id, `_lastUpdated` and stored JSON of each, in order.
    pub resources: Vec<(String, Timestamp, Vec<u8>)>,
    /// Whether more follow.
    pub more: bool,
    /// How many match in all, where asked for.
    pub total: Option<u64>,
}

/// Reads that need no transaction with a write.
pub trait Read:
    ReadDrift + ReadForwarding + ReadInbound + ReadLedger + ReadRetention + ReadScans + ReadSubscriptions
{
    /// The Task.
    fn task(&mut self, tenant: &TenantId, id: &TaskId) -> Result<Option<Task>, StoreError>;

    /// The document.
    fn document(&mut self, tenant: &TenantId, id: &DocumentId) -> Result<Option<Document>, StoreError>;

    /// The Binary's record; a deleted one too.
    fn binary(&mut self, tenant: &TenantId, id: &BinaryId) -> Result<Option<StoredBinary>, StoreError>;

    /// SHA-256 of the Binary's blocks `[first, first + count)`.
    fn block_hashes(
        &mut self,
        tenant: &TenantId,
        id: &BinaryId,
        first: u32,
        count: u32,
    ) -> Result<Vec<[u8; 32]>, StoreError>;

    /// The newest stored version of a resource; a deletion too.
    fn current(&mut self, tenant: &TenantId, kind: Kind, id: &str) -> Result<Option<Version>, StoreError>;

    /// One version.
    fn version(
        &mut self,
        tenant: &TenantId,
        kind: Kind,
        id: &str,
        version: i64,
    ) -> Result<Option<Version>, StoreError>;

    /// Versions of one resource, newest first, older than `before`, changed at or after `since`.
    fn history(
        &mut self,
        tenant: &TenantId,
        kind: Kind,
        id: &str,
        since: Option<Timestamp>,
        before: Option<i64>,
        limit: u32,
    ) -> Result<Vec<Version>, StoreError>;

    /// Resources that match.
    fn search(&mut self, tenant: &TenantId, search: &Search) -> Result<Found, StoreError>;

    /// Grants of a Task, oldest first, ended ones too.
    fn grants_of_task(&mut self, tenant: &TenantId, task: &TaskId) -> Result<Vec<Grant>, StoreError>;

    /// Grants for a document, newest first, ended ones too, at most `limit`.
    fn grants_of_document(
        &mut self,
        tenant: &TenantId,
        document: &DocumentId,
        limit: u32,
    ) -> Result<Vec<Grant>, StoreError>;

    /// Grants that open this Binary, newest first, ended ones too.
    fn grants_of_binary(&mut self, tenant: &TenantId, binary: &BinaryId) -> Result<Vec<Grant>, StoreError>;

    /// One grant.
    fn grant(&mut self, tenant: &TenantId, id: &GrantId) -> Result<Option<Grant>, StoreError>;

    /// The grant that a link's handle finds.
    fn grant_by_handle(&mut self, tenant: &TenantId, handle: &Handle) -> Result<Option<Grant>, StoreError>;

    /// A Task with its newest version, in one look.
    fn current_task(&mut self, tenant: &TenantId, id: &TaskId)
    -> Result<Option<(Task, Version)>, StoreError>;

    /// One redemption.
    fn redemption(&mut self, tenant: &TenantId, id: &RedemptionId) -> Result<Option<Redemption>, StoreError>;

    /// The redemptions of a grant, newest first.
    fn redemptions_of_grant(
        &mut self,
        tenant: &TenantId,
        grant: &GrantId,
    ) -> Result<Vec<Redemption>, StoreError>;

    /// Tasks in which the document's reference took effect: ended ones too, deleted ones not.
    fn tasks_of_document(
        &mut self,
        tenant: &TenantId,
        document: &DocumentId,
    ) -> Result<Vec<TaskId>, StoreError>;

    /// Tasks that are part of this one: ended ones too, deleted ones not.
    fn children(&mut self, tenant: &TenantId, task: &TaskId) -> Result<Vec<TaskId>, StoreError>;

    /// Team codes of an actor as last seen in a validated token at or after `since`.
    fn teams_of(
        &mut self,
        tenant: &TenantId,
        actor: &ActorRef,
        since: Timestamp,
    ) -> Result<Vec<String>, StoreError>;

    /// A browser session, whether it may still be used or not.
    fn session(&mut self, tenant: &TenantId, id: &str) -> Result<Option<Session>, StoreError>;

    /// What operators have blocked, by tenant; tenants without a block are not in it.
    fn standing_everywhere(&mut self) -> Result<HashMap<TenantId, Standing>, StoreError>;

    /// What operators have blocked in a tenant.
    fn standing(&mut self, tenant: &TenantId) -> Result<Standing, StoreError>;

    /// The blocks of a tenant that stand, newest first.
    fn blocks(&mut self, tenant: &TenantId, limit: u32) -> Result<Vec<Block>, StoreError>;

    /// One block, whether it stands or was lifted.
    fn block(&mut self, tenant: &TenantId, id: &BlockId) -> Result<Option<Block>, StoreError>;

    /// Tasks after `after` with a grant that is open, or with a redemption that may go on, of what `target` names,
    /// ascending by id. None for clients and issuers, which hold no grants.
    fn tasks_with_open(
        &mut self,
        tenant: &TenantId,
        target: &Target,
        after: Option<&TaskId>,
        limit: u32,
    ) -> Result<Vec<TaskId>, StoreError>;

    /// Audit rows that match.
    fn audit(&mut self, tenant: &TenantId, search: &AuditSearch) -> Result<Vec<RecordedRow>, StoreError>;

    /// Grants bound or suspended whose time is over at `now`, Tasks past due with open grants, and Tasks that
    /// have just become so with open redemptions: the Tasks concerned, over all tenants, at most `limit`.
    fn due(&mut self, now: Timestamp, limit: u32) -> Result<Vec<(TenantId, TaskId)>, StoreError>;

    /// The earliest instant after `now` at which [`Read::due`] will have more.
    fn next_due(&mut self, now: Timestamp) -> Result<Option<Timestamp>, StoreError>;

    /// Redemptions that await the end of a stream, or their first one, from a process that has been silent for
    /// longer than `silence` by the database's own clock; and those authorized whose window closed that long before
    /// `now` without a stream. Over all tenants, at most `limit`.
    fn abandoned(&mut self, silence: Span, now: Timestamp, limit: u32) -> Result<Vec<Loose>, StoreError>;

    /// Every redemption that awaits the end of a stream from `process`, and how it stands at `now`; over all tenants.
    fn held_by(&mut self, process: &str, now: Timestamp) -> Result<Vec<Held>, StoreError>;

    /// Those of them whose stream may not go on: cut, or reopened after a cut, by whichever process. Each is
    /// told again until the end of its stream is. `grant_ended` is not looked up.
    fn halted_at(&mut self, process: &str) -> Result<Vec<Held>, StoreError>;
}

/// A redemption that may have to be closed, as it was when it was listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loose {
    /// The tenant.
    pub tenant: TenantId,
    /// The redemption.
    pub id: RedemptionId,
    /// Its revision; another one by now means that it moved on.
    pub revision: i64,
}

/// A redemption that awaits the end of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// The redemption, as it was when it was listed.
    pub redemption: Loose,
    /// Which of its streams, counted from 1.
    pub stream: u32,
    /// Where it is: streaming, or what became of it meanwhile.
    pub state: RedemptionState,
    /// Why it was cut, where it was.
    pub cut_reason: Option<Reason>,
    /// Why nothing of it may run any more, where its grant was suspended or revoked or its Task is past due.
    pub grant_ended: Option<Reason>,
}

/// One transaction. Reads inside see its own writes; `lock_…` reads also keep others from changing the row.
/// Locks are taken in the order Tasks, documents, grants, each ascending by id.
pub trait Tx:
    Read + TxDrift + TxForwarding + TxInbound + TxLedger + TxRetention + TxScans + TxSubscriptions
{
    /// The Tasks, locked, ascending by id; those that exist.
    fn lock_tasks(&mut self, tenant: &TenantId, ids: &[TaskId]) -> Result<Vec<Task>, StoreError>;

    /// The documents, ascending by id; those that exist. Locked against change (shared with other such readers
    /// unless `exclusive`).
    fn lock_documents(
        &mut self,
        tenant: &TenantId,
        ids: &[DocumentId],
        exclusive: bool,
    ) -> Result<Vec<Document>, StoreError>;

    /// Stores a new Task (version 1) with its JSON and index.
    fn insert_task(
        &mut self,
        tenant: &TenantId,
        task: &Task,
        body: &[u8],
        index: &SearchIndex,
    ) -> Result<(), StoreError>;

    /// Stores the next version of a Task: `task.version` must be one above the stored one, else `Conflict`.
    /// A deletion has an empty body. An index of `None` leaves the stored one, for changes that can't touch it.
    fn update_task(
        &mut self,
        tenant: &TenantId,
        task: &Task,
        body: &[u8],
        index: Option<&SearchIndex>,
    ) -> Result<(), StoreError>;

    /// Stores a new document (version 1) with its JSON and index.
    fn insert_document(
        &mut self,
        tenant: &TenantId,
        document: &Document,
        body: &[u8],
        index: &SearchIndex,
    ) -> Result<(), StoreError>;

    /// Stores the next version of a document, as [`Tx::update_task`].
    fn update_document(
        &mut self,
        tenant: &TenantId,
        document: &Document,
        body: &[u8],
        index: Option<&SearchIndex>,
    ) -> Result<(), StoreError>;

    /// Stores a new Binary's record and the SHA-256 of its blocks.
    fn insert_binary(
        &mut self,
        tenant: &TenantId,
        binary: &StoredBinary,
        blocks: &[[u8; 32]],
    ) -> Result<(), StoreError>;

    /// Gives an unclaimed Binary to a document. Answers whether it now belongs to that document
    /// (also when it did before).
    fn claim_binary(
        &mut self,
        tenant: &TenantId,
        id: &BinaryId,
        document: &DocumentId,
    ) -> Result<bool, StoreError>;

    /// Marks a Binary as deleted that belongs to this document, or to none. Where a document has claimed it meanwhile it is a conflict.
    fn delete_binary(
        &mut self,
        tenant: &TenantId,
        id: &BinaryId,
        of: Option<&DocumentId>,
        now: Timestamp,
    ) -> Result<(), StoreError>;

    /// Stores a new grant. A second open one for the same Task, Binary and grantee is `Conflict`.
    fn insert_grant(&mut self, tenant: &TenantId, grant: &Grant) -> Result<(), StoreError>;

    /// Stores a changed grant: `grant.revision` must be one above the stored one, else `Conflict`.
    fn update_grant(&mut self, tenant: &TenantId, grant: &Grant) -> Result<(), StoreError>;

    /// Stores a new redemption.
    fn insert_redemption(&mut self, tenant: &TenantId, redemption: &Redemption) -> Result<(), StoreError>;

    /// Stores a changed redemption: `revision` must be one above the stored one, else `Conflict`.
    fn update_redemption(&mut self, tenant: &TenantId, redemption: &Redemption) -> Result<(), StoreError>;

    /// Marks the open redemptions of a grant (authorized, streaming, interrupted) as cut, and tells every
    /// process to stop their streams. Answers how many there were.
    fn cut_redemptions(
        &mut self,
        tenant: &TenantId,
        grant: &GrantId,
        reason: Reason,
        now: Timestamp,
    ) -> Result<u32, StoreError>;

    /// Reopens the redemptions of a grant that were cut for `reason` and whose window is still open: they are interrupted again, or
    /// authorized, where no stream of them had begun, which `process` answers for from then on. Answers how many there were.
    fn reopen_redemptions(
        &mut self,
        tenant: &TenantId,
        grant: &GrantId,
        reason: Reason,
        process: &str,
        now: Timestamp,
    ) -> Result<u32, StoreError>;

    /// Remembers in which teams an actor was when its token was last validated.
    fn remember_actor(
        &mut self,
        tenant: &TenantId,
        actor: &ActorRef,
        teams: &[String],
        seen: Timestamp,
    ) -> Result<(), StoreError>;

    /// Stores a new block. Every process learns of it once this is committed.
    fn place_block(&mut self, tenant: &TenantId, block: &Block) -> Result<(), StoreError>;

    /// Lifts a block; answers whether it stood until now. Every process learns of it.
    fn lift_block(
        &mut self,
        tenant: &TenantId,
        id: &BlockId,
        by: &ActorRef,
        now: Timestamp,
    ) -> Result<bool, StoreError>;

    /// Stores a new browser session.
    fn insert_session(&mut self, tenant: &TenantId, session: &Session) -> Result<(), StoreError>;

    /// Writes down that a session was used.
    fn touch_session(&mut self, tenant: &TenantId, id: &str, now: Timestamp) -> Result<(), StoreError>;

    /// Ends sessions; answers how many there were.
    fn end_sessions(&mut self, tenant: &TenantId, which: &Sessions) -> Result<usize, StoreError>;

    /// Forgets sessions of all tenants that have ended, or were last used before `idle_since`; answers how many.
    fn forget_sessions(&mut self, now: Timestamp, idle_since: Timestamp) -> Result<usize, StoreError>;

    /// Adds an audit row; it is written when the transaction commits, and the commit fails if it can't be.
    fn record(&mut self, tenant: &TenantId, row: AuditRow);

    /// Adds an outbox row; it is written when the transaction commits.
    fn tell(&mut self, tenant: &TenantId, event: TopicEvent);
}

/// A database.
pub trait Store: Send + Sync {
    /// Runs a unit of work in one transaction, again on `Conflict` a bounded number of times, and answers after
    /// its durable commit or its rollback.
    fn write(&self, work: Work) -> BoxFuture<'_, Result<(), StoreError>>;

    /// Runs reads outside of any transaction.
    fn read(&self, reading: Reading) -> BoxFuture<'_, Result<(), StoreError>>;

    /// The same on connections that requests can't take: for what keeps the streams of this process in step with
    /// the database, however many requests wait.
    fn watch(&self, reading: Reading) -> BoxFuture<'_, Result<(), StoreError>>;

    /// Tells that this process lives, so that others leave its streams alone: by the database's own clock, which
    /// all processes share, on connections that requests can't take.
    fn heartbeat(&self, process: &str) -> BoxFuture<'_, Result<(), StoreError>>;

    /// Takes or renews a lease by name for `process` for as long as `term` by the database's own clock; answers
    /// whether it is ours.
    fn lease(&self, name: &str, process: &str, term: Span) -> BoxFuture<'_, Result<bool, StoreError>>;

    /// Takes or renews leases on this process's share of the shards of Subscriptions, by the database's own clock: as
    /// many as come to each of the processes that live. Answers those that are ours for `term`.
    fn lease_shards(&self, process: &str, term: Span) -> BoxFuture<'_, Result<Vec<u8>, StoreError>>;

    /// This process ends: whatever it holds a lease on is free, and it counts no more among those that share.
    fn leave(&self, process: &str) -> BoxFuture<'_, Result<(), StoreError>>;

    /// Waits until some process may have committed a cut or changed what is blocked, or until a short time has passed.
    /// Answers whether there was such news.
    fn await_cut(&self) -> BoxFuture<'_, bool>;

    /// Waits until this process has written to the outbox, or until a short time has passed. Answers whether it has.
    fn await_outbox(&self) -> BoxFuture<'_, bool>;

    /// Waits until events may have been given to Subscriptions by whichever process, or until a short time has passed.
    /// Answers whether there was such news.
    fn await_events(&self) -> BoxFuture<'_, bool>;

    /// Whether the database can be reached and has every migration.
    fn ready(&self) -> BoxFuture<'_, Result<(), StoreError>>;
}
