//! How a stream ended, written down: bytes, duration, outcome; the use given back where no byte was sent; the Task
//! told when every byte was. Also closes what a process that died has left open.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use handoff_domain::audit::{About, Agent, Context, Event, Outcome};
use handoff_domain::ids::{CorrelationId, RedemptionId, TaskId, TenantId};
use handoff_domain::outbox::{Topic, TopicEvent};
use handoff_domain::ports::{self, AuditSearch, Kind, Loose, Tx};
use handoff_domain::reason::Reason;
use handoff_domain::redemption::{Redemption, RedemptionState, StreamEnd};
use handoff_domain::task::Task;
use handoff_domain::time::{Span as TimeSpan, Timestamp};
use tracing::{Instrument as _, Span};

use super::effects::{about_task, load, settle};
use super::json_edit::{BusinessStatus, TaskEdit, edit_task};
use super::redeem::Leave;
use super::streams::{Announced, Entry};
use super::tasks::tell;
use super::{App, AppError, Caller, Cuts, Scope};
use crate::telemetry::spans;

/// A process that was not heard of for this long is taken to be dead. Longer than a process itself lets its streams
/// run in doubt, so that no stream outlives its process's good name.
const SILENCE: TimeSpan = TimeSpan::seconds(30);
/// How a stream may be reported to have ended.
pub(super) const ENDS: [Event; 4] = [
    Event::RedemptionCompleted,
    Event::RedemptionInterrupted,
    Event::RedemptionCutOff,
    Event::RedemptionIntegrityFailed,
];
/// How many such reports under one correlation id, which is the client's to choose, are looked through for one.
const ENDS_LOOKED_AT: u32 = 1000;
/// How many abandoned redemptions are closed in one run.
const SWEEP_LIMIT: u32 = 200;
/// How long to wait before the end of a stream is tried to be recorded again: at first, and at most. Thousands of
/// streams may end while the database is away, and must not keep it from coming back.
const RECORD_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(16);

/// The end of one stream, recorded exactly once: when told, or at the latest when dropped.
pub struct Ending {
    app: App,
    caller: Caller,
    facts: EndFacts,
    sent: AtomicU64,
    entry: Arc<Entry>,
    /// Taken when the end is told.
    announced: Mutex<Option<Announced>>,
    /// The stream in its trace, and what asked for it. Taken when the end is told.
    span: Mutex<Span>,
    request: Span,
}

impl Ending {
    /// The end to come of the stream that `leave` allows.
    pub fn new(app: &App, caller: &Caller, leave: Leave) -> Self {
        let span = spans::stream(&leave.redemption.id);
        Self {
            span: Mutex::new(span),
            request: Span::current(),
            app: app.clone(),
            caller: caller.clone(),
            facts: EndFacts {
                redemption: leave.redemption.id,
                task: leave.task,
                about: leave.about,
                stream: leave.redemption.streams,
                from: leave.from,
                sent: None,
                end: StreamEnd::Gone,
            },
            sent: AtomicU64::new(0),
            entry: Arc::clone(leave.announced.entry()),
            announced: Mutex::new(Some(leave.announced)),
        }
    }

    /// The running stream.
    pub const fn entry(&self) -> &Arc<Entry> {
        &self.entry
    }

    /// Counts bytes handed to the connection.
    pub fn count(&self, bytes: usize) {
        self.sent.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Records the end in the background; later calls do nothing.
    pub fn end(&self, end: StreamEnd) {
        let Some(announced) = self
            .announced
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
        else {
            return;
        };
        self.entry.release();
        let end = match (end, self.entry.cut_reason()) {
            (StreamEnd::Gone, Some(reason)) => StreamEnd::Cut(reason),
            (end, _) => end,
        };
        let app = self.app.clone();
        let caller = self.caller.clone();
        let sent = self.sent.load(Ordering::Relaxed);
        let facts = EndFacts {
            sent: Some(sent),
            end,
            ..self.facts.clone()
        };
        let mut span = self.span.lock().unwrap_or_else(PoisonError::into_inner);
        let (outcome, reason) = told_of(end);
        spans::note_stream_end(
            &std::mem::replace(&mut *span, Span::none()),
            sent,
            outcome,
            reason,
        );
        drop(span);
        // The stream may be dropped on a thread without a runtime of its own.
        let background = app.background.clone();
        let recording = async move {
            record_end(&app, caller, facts).await;
            drop(announced);
        };
        background.spawn(recording.instrument(self.request.clone()));
    }

    /// What asked for the stream, which lines of the log about it are written within.
    pub const fn request(&self) -> &Span {
        &self.request
    }
}

/// How a stream ended, in the words of traces.
const fn told_of(end: StreamEnd) -> (&'static str, Option<Reason>) {
    match end {
        StreamEnd::Sent => ("sent", None),
        StreamEnd::Gone => ("gone", None),
        StreamEnd::IntegrityFailed => ("integrity-failed", None),
        StreamEnd::Cut(reason) => ("cut-off", Some(reason)),
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        self.end(StreamEnd::Gone);
    }
}

/// What stands in a row for a number that nobody knows.
const UNKNOWN: &str = "unknown";

#[derive(Clone)]
struct EndFacts {
    redemption: RedemptionId,
    task: TaskId,
    about: About,
    stream: u32,
    from: u64,
    /// How many bytes; `None` where the process died that knew.
    sent: Option<u64>,
    end: StreamEnd,
}

async fn record_end(app: &App, caller: Caller, facts: EndFacts) {
    let mut pause = RECORD_PAUSE;
    loop {
        let (scope, unit) = (app.scope(&caller), facts.clone());
        match app
            .write(caller.tenant(), move |tx| end_stream(tx, &scope, &unit))
            .await
        {
            Ok(()) => return,
            Err(error) => {
                tracing::warn!(redemption = %facts.redemption, cause = ?error.cause, "the end of a stream could not be recorded yet");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        }
    }
}

fn end_stream(tx: &mut dyn Tx, scope: &Scope, facts: &EndFacts) -> Result<((), Cuts), AppError> {
    // The Task first, as everywhere: its version may be about to change.
    let task = scope
        .lock_tasks(tx, std::slice::from_ref(&facts.task))?
        .into_iter()
        .next();
    let Some(before) = tx.redemption(scope.tenant(), &facts.redemption)? else {
        return Ok(((), Cuts::none()));
    };
    let awaited = before.awaits_end_of(facts.stream, &scope.settings.process);
    // Tries may overtake each other, so each looks for itself whether another was there before.
    if !awaited && is_recorded(tx, scope, facts)? {
        return Ok(((), Cuts::none()));
    }
    // Otherwise reopened after a hold, or closed by others, before this end could be told.
    let ours = awaited && matches!(before.state, RedemptionState::Streaming | RedemptionState::CutOff);
    let sent = facts.sent.unwrap_or(0);
    let mut after = if ours {
        before
            .clone()
            .end_stream(facts.from, sent, facts.end, scope.now())
    } else {
        before.clone().end_earlier_stream(facts.from, sent, awaited)
    };
    let unsent = matches!(
        after.state,
        RedemptionState::Interrupted | RedemptionState::IntegrityFailed
    );
    let unused = ours && after.bytes_sent == 0 && after.size > 0 && unsent;
    if unused {
        give_back(tx, scope, &mut after)?;
    }
    tx.update_redemption(scope.tenant(), &after)?;
    record_outcome(tx, scope, &before, &after, facts);
    let Some(task) = task else {
        return Ok(((), Cuts::none()));
    };
    if after.state == RedemptionState::Completed {
        mark_accessed(tx, scope, &task)?;
    }
    if unused {
        return Ok(((), settle_again(tx, scope, &task)?));
    }
    Ok(((), Cuts::none()))
}

/// Whether an earlier try was committed although the answer to its commit never came. What it locked it has let go of by
/// now, so its rows are there or never will be.
fn is_recorded(tx: &mut dyn Tx, scope: &Scope, facts: &EndFacts) -> Result<bool, AppError> {
    let rows = tx.audit(
        scope.tenant(),
        &AuditSearch {
            events: ENDS.iter().map(|event| event.as_str().to_owned()).collect(),
            correlation: Some(scope.caller.context.correlation.to_string()),
            limit: ENDS_LOOKED_AT,
            ..AuditSearch::default()
        },
    )?;
    let (redemption, stream) = (facts.redemption.as_str(), facts.stream.to_string());
    Ok(rows.iter().any(|found| {
        found.row.about.redemption.as_deref() == Some(redemption)
            && found.row.detail.get("stream") == Some(&stream)
    }))
}

/// A grant that got its use back must stand as its Task now demands, which may have moved on meanwhile.
fn settle_again(tx: &mut dyn Tx, scope: &Scope, task: &Task) -> Result<Cuts, AppError> {
    let loaded = load(tx, scope, task)?;
    settle(tx, scope, task, &loaded)
}

/// No byte was sent, so the use was not had: it is given back, and the redemption can't go on.
fn give_back(tx: &mut dyn Tx, scope: &Scope, redemption: &mut Redemption) -> Result<(), AppError> {
    // Never open again, whatever other clocks say.
    redemption.window_end = Timestamp(0);
    let Some(grant) = tx.grant(scope.tenant(), &redemption.grant)? else {
        return Ok(());
    };
    // A fresh grant may have taken its place meanwhile; two open ones there must not be.
    let replaced = tx.grants_of_task(scope.tenant(), &grant.task)?.iter().any(|g| {
        g.id != grant.id
            && g.state.is_open()
            && g.document == grant.document
            && g.sha256 == grant.sha256
            && g.grantee() == grant.grantee()
    });
    if !replaced && let Ok(given_back) = grant.give_back_use() {
        tx.update_grant(scope.tenant(), &given_back)?;
    }
    Ok(())
}

fn record_outcome(tx: &mut dyn Tx, scope: &Scope, before: &Redemption, after: &Redemption, facts: &EndFacts) {
    let (event, outcome, reason) = match after.state {
        RedemptionState::Completed => (Event::RedemptionCompleted, Outcome::Success, Reason::Permitted),
        RedemptionState::CutOff => (
            Event::RedemptionCutOff,
            Outcome::Failed,
            after.cut_reason.unwrap_or(Reason::Revoked),
        ),
        RedemptionState::IntegrityFailed => (
            Event::RedemptionIntegrityFailed,
            Outcome::Failed,
            Reason::IntegrityFailed,
        ),
        RedemptionState::Authorized | RedemptionState::Streaming | RedemptionState::Interrupted => {
            (Event::RedemptionInterrupted, Outcome::Failed, Reason::Permitted)
        }
    };
    let duration = scope.now().since(before.opened_at);
    let row = scope
        .row(event, outcome, reason)
        .about(facts.about.clone())
        .detail("stream", facts.stream.to_string())
        .detail(
            "bytes",
            facts
                .sent
                .map_or_else(|| UNKNOWN.to_owned(), |sent| sent.to_string()),
        )
        .detail("from", facts.from.to_string())
        .detail("bytes-in-all", after.bytes_sent.to_string())
        .detail("size", after.size.to_string())
        .detail("milliseconds", duration.0.div_euclid(1000).max(0).to_string());
    tx.record(scope.tenant(), row);
    let version = facts.about.task_version.unwrap_or_default();
    let focus = format!("Task/{}", facts.task);
    tx.tell(
        scope.tenant(),
        TopicEvent {
            grant: facts.about.grant.clone(),
            ..scope.event(Topic::Redemption, focus, version, after.state.as_str())
        },
    );
}

/// The first completed redemption sets `businessStatus` to `accessed`.
fn mark_accessed(tx: &mut dyn Tx, scope: &Scope, task: &Task) -> Result<(), AppError> {
    // What is over changes no more.
    if task.deleted || task.accessed || task.facts.status.is_terminal() {
        return Ok(());
    }
    let after = Task {
        accessed: true,
        ..task.clone()
    };
    let change = TaskEdit {
        business_status: Some(BusinessStatus::Accessed),
        ..TaskEdit::default()
    };
    let after = edit(tx, scope, &after, change)?;
    tell(tx, scope, &after, Topic::TaskVersion, "accessed");
    Ok(())
}

/// Writes a change of the server's own to a Task as its next version, and records it.
pub fn edit(tx: &mut dyn Tx, scope: &Scope, task: &Task, edit: TaskEdit) -> Result<Task, AppError> {
    let stored = tx
        .current(scope.tenant(), Kind::Task, task.id.as_str())?
        .ok_or_else(AppError::not_found)?;
    let version = task.version.saturating_add(1);
    let at = task.last_updated.max(scope.now());
    let resource = edit_task(&stored.body, edit, version, at)?;
    let mut after = Task {
        version,
        last_updated: at,
        ..task.clone()
    };
    if let Some(priority) = edit.priority {
        after.facts.priority = priority;
    }
    let index = super::tasks::index(scope, &resource);
    tx.update_task(scope.tenant(), &after, &resource.to_json(), Some(&index))?;
    let row = scope
        .row(Event::TaskUpdated, Outcome::Success, Reason::Permitted)
        .about(about_task(&after));
    let row = match edit.business_status {
        Some(status) => row.detail("business-status", status.code()),
        None => row,
    };
    tx.record(scope.tenant(), row);
    Ok(after)
}

/// The server itself, as an actor.
pub const SERVER: &str = "Device/handoff";

/// A caller that is the server itself.
pub fn server_itself(app: &App, tenant: &TenantId) -> Result<Caller, AppError> {
    let correlation = CorrelationId::parse(app.entropy.ordered_id(app.clock.now()))
        .map_err(|e| AppError::bad(e.to_string()))?;
    let actor = handoff_domain::ActorRef::parse(SERVER).map_err(|e| AppError::bad(e.to_string()))?;
    Ok(Caller {
        principal: Arc::new(handoff_domain::access::Principal {
            tenant: tenant.clone(),
            issuer: String::new(),
            subject: String::new(),
            client: "handoff".to_owned(),
            actor: actor.clone(),
            delegate: None,
            roles: std::collections::BTreeSet::new(),
            teams: std::collections::BTreeSet::new(),
            scopes: std::collections::BTreeSet::new(),
            patient: None,
            key: None,
            token_id: String::new(),
            attributes: handoff_domain::access::Attributes::default(),
        }),
        context: Context {
            tenant: tenant.clone(),
            correlation,
            now: app.clock.now(),
            agent: Arc::new(Agent {
                actor: Some(actor.to_string()),
                ..Agent::default()
            }),
        },
        session: None,
        caps: super::caps::Caps::Unbounded,
    })
}

/// Closes the redemptions of processes that died, and those that await the end of a stream from this process which
/// does not run here: the answer of its commit was lost. Answers how many it closed.
pub async fn sweep_abandoned(app: &App) -> Result<usize, AppError> {
    // Heard of first, so that a process that was stopped for a while does not take itself for dead.
    app.store.heartbeat(&app.settings.process).await?;
    let (now, process) = (app.clock.now(), app.settings.process.clone());
    let listing = ports::watch(app.store.as_ref(), move |read| {
        Ok::<_, AppError>((
            read.abandoned(SILENCE, now, SWEEP_LIMIT)?,
            read.held_by(&process, now)?,
        ))
    });
    let (mut loose, here) = listing.await?;
    loose.extend(here.into_iter().map(|held| held.redemption));
    // Looked up after the listing: what is announced now was, or will be, ended by its own stream.
    loose.retain(|one| !app.streams.runs(&one.id));
    let mut closed: usize = 0;
    for one in loose {
        let caller = server_itself(app, &one.tenant)?;
        let scope = app.scope(&caller);
        let tenant = one.tenant.clone();
        let is_unsent = app.streams.is_doubted(&one.id);
        match app
            .write(&tenant, move |tx| close_abandoned(tx, &scope, &one, is_unsent))
            .await
        {
            Ok(()) => closed = closed.saturating_add(1),
            Err(error) => {
                tracing::error!(cause = ?error.cause, "an abandoned redemption could not be closed");
            }
        }
    }
    Ok(closed)
}

/// Closes one. Where nothing was sent of its first stream (`is_unsent`), the use is given back.
fn close_abandoned(
    tx: &mut dyn Tx,
    scope: &Scope,
    one: &Loose,
    is_unsent: bool,
) -> Result<((), Cuts), AppError> {
    let none = Ok(((), Cuts::none()));
    let id = &one.id;
    let Some(seen) = tx.redemption(scope.tenant(), id)? else {
        return none;
    };
    let Some(grant) = tx.grant(scope.tenant(), &seen.grant)? else {
        return none;
    };
    let Some(task) = scope
        .lock_tasks(tx, std::slice::from_ref(&grant.task))?
        .into_iter()
        .next()
    else {
        return none;
    };
    let Some(before) = tx.redemption(scope.tenant(), id)? else {
        return none;
    };
    if before.revision != one.revision {
        return none;
    }
    let mut about = super::effects::about_grant(&task, &[], &grant);
    about.redemption = Some(id.to_string());
    let never_streamed = before.streams == 0 || (is_unsent && before.streams == 1);
    let mut after = match before.state {
        RedemptionState::Authorized | RedemptionState::Streaming | RedemptionState::CutOff => before
            .clone()
            .end_stream(before.sent_up_to, 0, StreamEnd::Gone, scope.now()),
        // Reopened after a hold whose cut stream never told its end.
        RedemptionState::Interrupted => before.clone().end_earlier_stream(before.sent_up_to, 0, true),
        RedemptionState::Completed | RedemptionState::IntegrityFailed => return none,
    };
    if never_streamed {
        give_back(tx, scope, &mut after)?;
    } else {
        // What a dead process had sent is not known: a use of which bytes may have left stays taken, and the client
        // may go on from wherever it came to, short of the last byte. What it does then gives nothing back.
        after.sent_up_to = after.size.saturating_sub(1);
        after.bytes_sent = after.bytes_sent.max(1);
    }
    tx.update_redemption(scope.tenant(), &after)?;
    let facts = EndFacts {
        redemption: id.clone(),
        task: task.id.clone(),
        about,
        stream: before.streams,
        from: before.sent_up_to,
        sent: never_streamed.then_some(0),
        end: StreamEnd::Gone,
    };
    record_outcome(tx, scope, &before, &after, &facts);
    if never_streamed {
        return Ok(((), settle_again(tx, scope, &task)?));
    }
    none
}
