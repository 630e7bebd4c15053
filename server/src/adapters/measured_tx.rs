//! A transaction that remembers which audit rows it was given, so that they can be counted once it commits, and notes in events for
//! subscribers of which trace they are.

use std::collections::{BTreeMap, HashMap, HashSet};

use handoff_domain::audit::{AuditRow, Event, Outcome};
use handoff_domain::binding::Binding;
use handoff_domain::document::{Document, Sha256, StoredBinary};
use handoff_domain::drift::{Drift, DriftKind, Look, Shelved};
use handoff_domain::facts::Fact;
use handoff_domain::forwarding::{Cursor, SinkName};
use handoff_domain::grant::Grant;
use handoff_domain::hold::Hold;
use handoff_domain::ids::HoldId;
use handoff_domain::ids::{
    ActorRef, BinaryId, BlockId, CorrelationId, DocumentId, GrantId, Handle, NoticeId, RedemptionId,
    SourceId, SubscriptionId, TaskId, TenantId,
};
use handoff_domain::inbox::{FeedSubscription, Mirror, Notice};
use handoff_domain::ledger::{Entry, Leaf, Node, Placed, SignedCheckpoint};
use handoff_domain::outbox::TopicEvent;
use handoff_domain::ports::{
    Attention, AuditSearch, Classes, Counted, Due, Found, Held, Kind, Loose, NoticeSearch, Pending, Read,
    ReadDrift, ReadForwarding, ReadInbound, ReadLedger, ReadRetention, ReadScans, ReadSubscriptions,
    RecordedRow, Search, SearchIndex, StoreError, Tx, TxDrift, TxForwarding, TxInbound, TxLedger,
    TxRetention, TxScans, TxSubscriptions, Version,
};
use handoff_domain::reason::Reason;
use handoff_domain::redemption::Redemption;
use handoff_domain::retention::{Cause, Disposal, DisposalState, KeptDocument};
use handoff_domain::scan::Scan;
use handoff_domain::session::{Session, Sessions};
use handoff_domain::source::Source;
use handoff_domain::standing::{Block, Standing, Target};
use handoff_domain::subscription::{Course, NumberedEvent, Subscription};
use handoff_domain::task::Task;
use handoff_domain::time::{Span, Timestamp};
use handoff_domain::trace::TraceContext;

use crate::telemetry::traces;

/// What is counted of an audit row.
pub(super) struct Noted {
    pub(super) event: Event,
    pub(super) outcome: Outcome,
    pub(super) reason: Reason,
    pub(super) correlation: CorrelationId,
    pub(super) bytes: u64,
}

/// What a transaction that commits is counted by.
#[derive(Default)]
pub(super) struct Recorded {
    /// Its audit rows.
    pub(super) rows: Vec<Noted>,
    /// For each use that it takes of a grant, how long ago that was issued.
    pub(super) waits: Vec<Span>,
    /// The grant that it wrote last, and when that was issued.
    grant: Option<(GrantId, Timestamp)>,
}

/// Another transaction, with the events of its audit rows noted.
pub(super) struct MeasuredTx<'a> {
    inner: &'a mut dyn Tx,
    recorded: &'a mut Recorded,
    place: Option<TraceContext>,
}

impl<'a> MeasuredTx<'a> {
    /// One whose place in a trace is `place`, where it has one.
    pub(super) fn new(
        inner: &'a mut dyn Tx,
        recorded: &'a mut Recorded,
        place: Option<TraceContext>,
    ) -> Self {
        Self {
            inner,
            recorded,
            place,
        }
    }
}

/// Methods that are the inner one's.
macro_rules! handed_on {
    ($(fn $name:ident(&mut self $(, $argument:ident: $kind:ty)*) -> $answer:ty;)*) => {$(
        fn $name(&mut self $(, $argument: $kind)*) -> $answer {
            self.inner.$name($($argument),*)
        }
    )*};
}

impl Read for MeasuredTx<'_> {
    handed_on! {
        fn task(&mut self, tenant: &TenantId, id: &TaskId) -> Result<Option<Task>, StoreError>;
        fn document(&mut self, tenant: &TenantId, id: &DocumentId) -> Result<Option<Document>, StoreError>;
        fn binary(&mut self, tenant: &TenantId, id: &BinaryId) -> Result<Option<StoredBinary>, StoreError>;
        fn block_hashes(&mut self, tenant: &TenantId, id: &BinaryId, first: u32, count: u32) -> Result<Vec<[u8; 32]>, StoreError>;
        fn current(&mut self, tenant: &TenantId, kind: Kind, id: &str) -> Result<Option<Version>, StoreError>;
        fn current_task(&mut self, tenant: &TenantId, id: &TaskId) -> Result<Option<(Task, Version)>, StoreError>;
        fn version(&mut self, tenant: &TenantId, kind: Kind, id: &str, version: i64) -> Result<Option<Version>, StoreError>;
        fn history(&mut self, tenant: &TenantId, kind: Kind, id: &str, since: Option<Timestamp>, before: Option<i64>, limit: u32) -> Result<Vec<Version>, StoreError>;
        fn search(&mut self, tenant: &TenantId, search: &Search) -> Result<Found, StoreError>;
        fn grants_of_task(&mut self, tenant: &TenantId, task: &TaskId) -> Result<Vec<Grant>, StoreError>;
        fn grants_of_document(&mut self, tenant: &TenantId, document: &DocumentId, limit: u32) -> Result<Vec<Grant>, StoreError>;
        fn grants_of_binary(&mut self, tenant: &TenantId, binary: &BinaryId) -> Result<Vec<Grant>, StoreError>;
        fn grant(&mut self, tenant: &TenantId, id: &GrantId) -> Result<Option<Grant>, StoreError>;
        fn grant_by_handle(&mut self, tenant: &TenantId, handle: &Handle) -> Result<Option<Grant>, StoreError>;
        fn redemption(&mut self, tenant: &TenantId, id: &RedemptionId) -> Result<Option<Redemption>, StoreError>;
        fn redemptions_of_grant(&mut self, tenant: &TenantId, grant: &GrantId) -> Result<Vec<Redemption>, StoreError>;
        fn tasks_of_document(&mut self, tenant: &TenantId, document: &DocumentId) -> Result<Vec<TaskId>, StoreError>;
        fn children(&mut self, tenant: &TenantId, task: &TaskId) -> Result<Vec<TaskId>, StoreError>;
        fn teams_of(&mut self, tenant: &TenantId, actor: &ActorRef, since: Timestamp) -> Result<Vec<String>, StoreError>;
        fn session(&mut self, tenant: &TenantId, id: &str) -> Result<Option<Session>, StoreError>;
        fn standing_everywhere(&mut self) -> Result<HashMap<TenantId, Standing>, StoreError>;
        fn standing(&mut self, tenant: &TenantId) -> Result<Standing, StoreError>;
        fn blocks(&mut self, tenant: &TenantId, limit: u32) -> Result<Vec<Block>, StoreError>;
        fn block(&mut self, tenant: &TenantId, id: &BlockId) -> Result<Option<Block>, StoreError>;
        fn tasks_with_open(&mut self, tenant: &TenantId, target: &Target, after: Option<&TaskId>, limit: u32) -> Result<Vec<TaskId>, StoreError>;
        fn audit(&mut self, tenant: &TenantId, search: &AuditSearch) -> Result<Vec<RecordedRow>, StoreError>;
        fn due(&mut self, now: Timestamp, limit: u32) -> Result<Vec<(TenantId, TaskId)>, StoreError>;
        fn next_due(&mut self, now: Timestamp) -> Result<Option<Timestamp>, StoreError>;
        fn abandoned(&mut self, silence: Span, now: Timestamp, limit: u32) -> Result<Vec<Loose>, StoreError>;
        fn held_by(&mut self, process: &str, now: Timestamp) -> Result<Vec<Held>, StoreError>;
        fn halted_at(&mut self, process: &str) -> Result<Vec<Held>, StoreError>;
    }
}

impl ReadLedger for MeasuredTx<'_> {
    handed_on! {
        fn audited_tenants(&mut self) -> Result<Vec<TenantId>, StoreError>;
        fn settled_sequence(&mut self) -> Result<Option<i64>, StoreError>;
        fn audit_entries(&mut self, tenant: &TenantId, after: i64, until: i64, limit: u32) -> Result<Vec<Entry>, StoreError>;
        fn placed_entries(&mut self, tenant: &TenantId, after: i64, until: i64, limit: u32) -> Result<Vec<Placed>, StoreError>;
        fn last_leaf(&mut self, tenant: &TenantId) -> Result<Option<Leaf>, StoreError>;
        fn leaf_of(&mut self, tenant: &TenantId, sequence: i64) -> Result<Option<Leaf>, StoreError>;
        fn leaves(&mut self, tenant: &TenantId, from: u64, until: u64, limit: u32) -> Result<Vec<Leaf>, StoreError>;
        fn ledger_nodes(&mut self, tenant: &TenantId, level: u8, from: u64, until: u64, limit: u32) -> Result<Vec<Node>, StoreError>;
        fn last_checkpoint(&mut self, tenant: &TenantId) -> Result<Option<SignedCheckpoint>, StoreError>;
        fn checkpoints(&mut self, tenant: &TenantId, below: u64, limit: u32) -> Result<Vec<SignedCheckpoint>, StoreError>;
    }
}

impl TxLedger for MeasuredTx<'_> {
    handed_on! {
        fn add_leaves(&mut self, tenant: &TenantId, leaves: &[Leaf]) -> Result<(), StoreError>;
        fn add_ledger_nodes(&mut self, tenant: &TenantId, nodes: &[Node]) -> Result<(), StoreError>;
        fn put_checkpoint(&mut self, tenant: &TenantId, checkpoint: &SignedCheckpoint) -> Result<(), StoreError>;
    }
}

impl ReadForwarding for MeasuredTx<'_> {
    handed_on! {
        fn cursor(&mut self, sink: &SinkName) -> Result<Option<Cursor>, StoreError>;
        fn rows_of_all(&mut self, after: i64, until: i64, limit: u32) -> Result<Vec<(TenantId, Entry)>, StoreError>;
    }
}

impl TxForwarding for MeasuredTx<'_> {
    handed_on! {
        fn add_cursor(&mut self, cursor: &Cursor) -> Result<(), StoreError>;
        fn move_cursor(&mut self, from: &Cursor, to: &Cursor) -> Result<bool, StoreError>;
    }
}

impl ReadRetention for MeasuredTx<'_> {
    handed_on! {
        fn holds(&mut self, tenant: &TenantId, now: Timestamp, limit: u32) -> Result<Vec<Hold>, StoreError>;
        fn hold(&mut self, tenant: &TenantId, id: &HoldId) -> Result<Option<Hold>, StoreError>;
        fn kept_document(&mut self, tenant: &TenantId, id: &DocumentId) -> Result<Option<KeptDocument>, StoreError>;
        fn documents_by_age(&mut self, tenant: &TenantId, classes: &Classes, until: Timestamp, after: Option<&(Timestamp, DocumentId)>, limit: u32) -> Result<Vec<KeptDocument>, StoreError>;
        fn documents_turned(&mut self, now: Timestamp, limit: u32) -> Result<Vec<(TenantId, DocumentId)>, StoreError>;
        fn binaries_of(&mut self, tenant: &TenantId, document: &DocumentId) -> Result<Vec<BinaryId>, StoreError>;
        fn disposals_of(&mut self, tenant: &TenantId, document: &DocumentId) -> Result<Vec<Disposal>, StoreError>;
        fn disposals_due(&mut self, now: Timestamp, after: Option<&(TenantId, BinaryId)>, limit: u32) -> Result<Vec<(TenantId, Disposal)>, StoreError>;
        fn disposals_waiting(&mut self) -> Result<(u64, Option<Timestamp>), StoreError>;
    }
}

impl TxRetention for MeasuredTx<'_> {
    handed_on! {
        fn place_hold(&mut self, tenant: &TenantId, hold: &Hold) -> Result<(), StoreError>;
        fn lift_hold(&mut self, tenant: &TenantId, id: &HoldId, by: &ActorRef, now: Timestamp) -> Result<bool, StoreError>;
        fn lock_holds(&mut self, tenant: &TenantId, now: Timestamp, limit: u32) -> Result<Vec<Hold>, StoreError>;
        fn keep_document(&mut self, tenant: &TenantId, document: &Document, turns: Option<Timestamp>, now: Timestamp) -> Result<(), StoreError>;
        fn mark_disposal(&mut self, tenant: &TenantId, disposal: &Disposal) -> Result<(), StoreError>;
        fn hasten_disposals(&mut self, tenant: &TenantId, document: &DocumentId, cause: Cause, now: Timestamp) -> Result<(), StoreError>;
        fn move_disposal(&mut self, tenant: &TenantId, binary: &BinaryId, from: DisposalState, to: DisposalState, now: Timestamp) -> Result<bool, StoreError>;
    }
}

impl ReadDrift for MeasuredTx<'_> {
    handed_on! {
        fn shelved(&mut self, tenant: &TenantId, after: Option<&str>, until: Option<&str>, limit: u32) -> Result<Vec<Shelved>, StoreError>;
        fn drift(&mut self, tenant: &TenantId, after: Option<&str>, limit: u32) -> Result<Vec<Drift>, StoreError>;
        fn drift_of(&mut self, tenant: &TenantId, names: &[String]) -> Result<Vec<Drift>, StoreError>;
        fn drift_unseen(&mut self, tenant: &TenantId, began: Timestamp, limit: u32) -> Result<Vec<Drift>, StoreError>;
        fn drift_counts(&mut self, tenant: Option<&TenantId>) -> Result<Vec<(DriftKind, u64, u64)>, StoreError>;
        fn last_look(&mut self, tenant: &TenantId) -> Result<Option<Look>, StoreError>;
    }
}

impl TxDrift for MeasuredTx<'_> {
    handed_on! {
        fn note_drift(&mut self, tenant: &TenantId, drift: &Drift, seen: Timestamp) -> Result<(), StoreError>;
        fn forget_drift(&mut self, tenant: &TenantId, name: &str) -> Result<(), StoreError>;
        fn ask_for_look(&mut self, tenant: &TenantId, now: Timestamp) -> Result<(), StoreError>;
        fn keep_look(&mut self, tenant: &TenantId, look: &Look) -> Result<(), StoreError>;
    }
}

impl ReadScans for MeasuredTx<'_> {
    handed_on! {
        fn scan(&mut self, tenant: &TenantId, binary: &BinaryId) -> Result<Option<Scan>, StoreError>;
        fn due_scans(&mut self, now: Timestamp, limit: u32) -> Result<Vec<(TenantId, BinaryId)>, StoreError>;
        fn unscanned_since(&mut self, now: Timestamp) -> Result<Option<Timestamp>, StoreError>;
        fn never_enrolled(&mut self, after: Option<&(TenantId, BinaryId)>, limit: u32) -> Result<Vec<(TenantId, BinaryId, Sha256)>, StoreError>;
    }
}

impl TxScans for MeasuredTx<'_> {
    handed_on! {
        fn enrol_scan(&mut self, tenant: &TenantId, scan: &Scan) -> Result<(), StoreError>;
        fn hold_scan(&mut self, tenant: &TenantId, binary: &BinaryId) -> Result<Option<Scan>, StoreError>;
        fn claim_scan(&mut self, tenant: &TenantId, binary: &BinaryId, process: &str, term: Span, now: Timestamp) -> Result<bool, StoreError>;
        fn release_scan(&mut self, tenant: &TenantId, binary: &BinaryId, process: &str) -> Result<(), StoreError>;
        fn keep_scan(&mut self, tenant: &TenantId, scan: &Scan, process: &str) -> Result<bool, StoreError>;
        fn forget_scan(&mut self, tenant: &TenantId, binary: &BinaryId) -> Result<(), StoreError>;
        fn doubt_equals(&mut self, tenant: &TenantId, of: &Scan, now: Timestamp) -> Result<(), StoreError>;
        fn rescan_within(&mut self, span: Span) -> Result<(), StoreError>;
        fn restate_document(&mut self, tenant: &TenantId, document: &Document) -> Result<(), StoreError>;
    }
}

impl ReadInbound for MeasuredTx<'_> {
    handed_on! {
        fn source(&mut self, tenant: &TenantId, id: &SourceId) -> Result<Option<Source>, StoreError>;
        fn sources(&mut self, tenant: Option<&TenantId>) -> Result<Vec<(TenantId, Source)>, StoreError>;
        fn feed_subscriptions(&mut self, tenant: &TenantId, source: &SourceId) -> Result<Vec<FeedSubscription>, StoreError>;
        fn notice(&mut self, tenant: &TenantId, id: &NoticeId) -> Result<Option<Notice>, StoreError>;
        fn notices(&mut self, tenant: &TenantId, search: &NoticeSearch) -> Result<Vec<Notice>, StoreError>;
        fn waiting_sources(&mut self, now: Timestamp) -> Result<Vec<(TenantId, SourceId)>, StoreError>;
        fn waiting_notices(&mut self, tenant: &TenantId, source: &SourceId, now: Timestamp, limit: u32) -> Result<Vec<NoticeId>, StoreError>;
        fn backlog(&mut self, tenant: &TenantId, source: &SourceId) -> Result<(u64, u64), StoreError>;
        fn inbox_depth(&mut self) -> Result<BTreeMap<String, u64>, StoreError>;
        fn mirror(&mut self, tenant: &TenantId, source: &SourceId, theirs: &str) -> Result<Option<Mirror>, StoreError>;
        fn facts_about(&mut self, tenant: &TenantId, subjects: &[String]) -> Result<Vec<Fact>, StoreError>;
        fn facts_changed(&mut self, since: Option<Timestamp>) -> Result<Vec<(TenantId, Fact)>, StoreError>;
    }
}

impl TxInbound for MeasuredTx<'_> {
    handed_on! {
        fn insert_source(&mut self, tenant: &TenantId, source: &Source) -> Result<(), StoreError>;
        fn lock_source(&mut self, tenant: &TenantId, id: &SourceId) -> Result<Option<Source>, StoreError>;
        fn update_source(&mut self, tenant: &TenantId, source: &Source) -> Result<(), StoreError>;
        fn remove_source(&mut self, tenant: &TenantId, id: &SourceId) -> Result<bool, StoreError>;
        fn put_feed_subscription(&mut self, tenant: &TenantId, subscription: &FeedSubscription) -> Result<(), StoreError>;
        fn remove_feed_subscription(&mut self, tenant: &TenantId, source: &SourceId, reference: &str) -> Result<(), StoreError>;
        fn insert_notice(&mut self, tenant: &TenantId, notice: &Notice) -> Result<(), StoreError>;
        fn lock_notice(&mut self, tenant: &TenantId, id: &NoticeId) -> Result<Option<Notice>, StoreError>;
        fn update_notice(&mut self, tenant: &TenantId, notice: &Notice) -> Result<(), StoreError>;
        fn forget_notices(&mut self, until: Timestamp) -> Result<usize, StoreError>;
        fn lock_mirror(&mut self, tenant: &TenantId, source: &SourceId, theirs: &str) -> Result<Option<Mirror>, StoreError>;
        fn put_mirror(&mut self, tenant: &TenantId, mirror: &Mirror) -> Result<(), StoreError>;
        fn awaiting(&mut self, tenant: &TenantId, source: &SourceId, theirs: &str, limit: u32) -> Result<Vec<Mirror>, StoreError>;
        fn facts_of(&mut self, tenant: &TenantId, source: &SourceId, resource: &str) -> Result<Vec<Fact>, StoreError>;
        fn put_fact(&mut self, tenant: &TenantId, fact: &Fact, now: Timestamp) -> Result<(), StoreError>;
    }
}

impl Tx for MeasuredTx<'_> {
    fn record(&mut self, tenant: &TenantId, row: AuditRow) {
        let bytes = row
            .detail
            .get("bytes")
            .and_then(|text| text.parse().ok())
            .unwrap_or(0);
        self.recorded.rows.push(Noted {
            event: row.event,
            outcome: row.outcome,
            reason: row.reason,
            correlation: row.correlation.clone(),
            bytes,
        });
        self.inner.record(tenant, row);
    }

    fn update_grant(&mut self, tenant: &TenantId, grant: &Grant) -> Result<(), StoreError> {
        self.recorded.grant = Some((grant.id.clone(), grant.issued_at));
        self.inner.update_grant(tenant, grant)
    }

    fn insert_redemption(&mut self, tenant: &TenantId, redemption: &Redemption) -> Result<(), StoreError> {
        // The use is taken of its grant just before.
        let grant = self
            .recorded
            .grant
            .take()
            .filter(|(id, _)| *id == redemption.grant);
        let wait = grant.map(|(_, issued)| redemption.opened_at.since(issued));
        self.recorded.waits.extend(wait);
        self.inner.insert_redemption(tenant, redemption)
    }

    fn tell(&mut self, tenant: &TenantId, event: TopicEvent) {
        let trace = event.trace.or(self.place);
        self.inner.tell(tenant, TopicEvent { trace, ..event });
    }

    handed_on! {
        fn lock_tasks(&mut self, tenant: &TenantId, ids: &[TaskId]) -> Result<Vec<Task>, StoreError>;
        fn lock_documents(&mut self, tenant: &TenantId, ids: &[DocumentId], exclusive: bool) -> Result<Vec<Document>, StoreError>;
        fn insert_task(&mut self, tenant: &TenantId, task: &Task, body: &[u8], index: &SearchIndex) -> Result<(), StoreError>;
        fn update_task(&mut self, tenant: &TenantId, task: &Task, body: &[u8], index: Option<&SearchIndex>) -> Result<(), StoreError>;
        fn insert_document(&mut self, tenant: &TenantId, document: &Document, body: &[u8], index: &SearchIndex) -> Result<(), StoreError>;
        fn update_document(&mut self, tenant: &TenantId, document: &Document, body: &[u8], index: Option<&SearchIndex>) -> Result<(), StoreError>;
        fn insert_binary(&mut self, tenant: &TenantId, binary: &StoredBinary, blocks: &[[u8; 32]]) -> Result<(), StoreError>;
        fn claim_binary(&mut self, tenant: &TenantId, id: &BinaryId, document: &DocumentId) -> Result<bool, StoreError>;
        fn delete_binary(&mut self, tenant: &TenantId, id: &BinaryId, of: Option<&DocumentId>, now: Timestamp) -> Result<(), StoreError>;
        fn insert_grant(&mut self, tenant: &TenantId, grant: &Grant) -> Result<(), StoreError>;
        fn update_redemption(&mut self, tenant: &TenantId, redemption: &Redemption) -> Result<(), StoreError>;
        fn cut_redemptions(&mut self, tenant: &TenantId, grant: &GrantId, reason: Reason, now: Timestamp) -> Result<u32, StoreError>;
        fn reopen_redemptions(&mut self, tenant: &TenantId, grant: &GrantId, reason: Reason, process: &str, now: Timestamp) -> Result<u32, StoreError>;
        fn insert_session(&mut self, tenant: &TenantId, session: &Session) -> Result<(), StoreError>;
        fn touch_session(&mut self, tenant: &TenantId, id: &str, now: Timestamp) -> Result<(), StoreError>;
        fn end_sessions(&mut self, tenant: &TenantId, which: &Sessions) -> Result<usize, StoreError>;
        fn forget_sessions(&mut self, now: Timestamp, idle_since: Timestamp) -> Result<usize, StoreError>;
        fn place_block(&mut self, tenant: &TenantId, block: &Block) -> Result<(), StoreError>;
        fn lift_block(&mut self, tenant: &TenantId, id: &BlockId, by: &ActorRef, now: Timestamp) -> Result<bool, StoreError>;
        fn remember_actor(&mut self, tenant: &TenantId, actor: &ActorRef, teams: &[String], seen: Timestamp) -> Result<(), StoreError>;
    }
}

impl ReadSubscriptions for MeasuredTx<'_> {
    handed_on! {
        fn subscription(&mut self, tenant: &TenantId, id: &SubscriptionId) -> Result<Option<Attention>, StoreError>;
        fn count_subscriptions(&mut self, tenant: &TenantId, creator: &str) -> Result<(u64, u64), StoreError>;
        fn events(&mut self, tenant: &TenantId, id: &SubscriptionId, from: i64, until: i64, limit: u32) -> Result<Vec<NumberedEvent>, StoreError>;
        fn due_subscriptions(&mut self, shards: &[u8], now: Timestamp, after: Option<&Due>, limit: u32) -> Result<Vec<Due>, StoreError>;
        fn undelivered(&mut self, tenant: &TenantId, limit: u32) -> Result<Vec<Attention>, StoreError>;
        fn counted(&mut self, which: &[Due]) -> Result<Vec<Counted>, StoreError>;
        fn has_pending(&mut self) -> Result<bool, StoreError>;
    }
}

impl TxSubscriptions for MeasuredTx<'_> {
    fn take_pending(&mut self, limit: u32) -> Result<Vec<Pending>, StoreError> {
        let pending = self.inner.take_pending(limit)?;
        if self.place.is_some() {
            let of: HashSet<TraceContext> = pending.iter().filter_map(|one| one.event.trace).collect();
            let present = tracing::Span::current();
            for place in of {
                traces::link(&present, place);
            }
        }
        Ok(pending)
    }

    handed_on! {
        fn lock_subscription(&mut self, tenant: &TenantId, id: &SubscriptionId) -> Result<Option<Subscription>, StoreError>;
        fn insert_subscription(&mut self, tenant: &TenantId, subscription: &Subscription, body: &[u8], index: &SearchIndex, sealed: &[u8]) -> Result<(), StoreError>;
        fn update_subscription(&mut self, tenant: &TenantId, subscription: &Subscription, body: &[u8], index: &SearchIndex, sealed: Option<&[u8]>) -> Result<(), StoreError>;
        fn set_course(&mut self, tenant: &TenantId, subscription: &Subscription, course: &Course, now: Timestamp) -> Result<(), StoreError>;
        fn advance_courses(&mut self, delivered: &[(Due, i64, Option<Timestamp>)], now: Timestamp) -> Result<Vec<Due>, StoreError>;
        fn fix_courses(&mut self, tried: &[(Due, i64)]) -> Result<Vec<Due>, StoreError>;
        fn rewind_course(&mut self, tenant: &TenantId, id: &SubscriptionId, delivered: i64) -> Result<(), StoreError>;
        fn subscription_revisions(&mut self) -> Result<HashMap<TenantId, i64>, StoreError>;
        fn counting_subscriptions(&mut self, tenant: &TenantId) -> Result<Vec<Subscription>, StoreError>;
        fn give_events(&mut self, given: &[(Due, Vec<TopicEvent>)]) -> Result<(), StoreError>;
        fn settle_pending(&mut self, pending: &[Pending]) -> Result<(), StoreError>;
        fn keep_binding(&mut self, tenant: &TenantId, digest: &Sha256, binding: &Binding) -> Result<(), StoreError>;
        fn take_binding(&mut self, tenant: &TenantId, digest: &Sha256) -> Result<Option<Binding>, StoreError>;
        fn forget_bindings(&mut self, now: Timestamp) -> Result<usize, StoreError>;
        fn told_until(&mut self, tenant: &TenantId, id: &SubscriptionId, until: i64, now: Timestamp) -> Result<(), StoreError>;
        fn forget_events(&mut self, tenant: &TenantId, before: Timestamp, limit: u32) -> Result<usize, StoreError>;
    }
}
