//! Disposing of content whose time is over, or that a records manager purges, in two phases: it is marked, and nobody is released
//! it from then on; then its bytes are deleted, and that they are gone is recorded. Each step is found again where it was broken off.
//! A hold stops everything but what is being deleted already.

use std::collections::HashMap;
use std::sync::Arc;

use handoff_domain::access::Action;
use handoff_domain::audit::{About, Event, Outcome};
use handoff_domain::document::{Document, StoredBinary};
use handoff_domain::hold::Hold;
use handoff_domain::ids::{BinaryId, DocumentId, TenantId};
use handoff_domain::ports::{Classes, Kind, Read, Tx};
use handoff_domain::reason::Reason;
use handoff_domain::retention::{
    Cause, Disposal, DisposalState, KeptDocument, KeptFrom, Retention, Schedule, Schedules, holding,
};
use handoff_domain::time::{Span, Timestamp};

use super::documents::{about, lock_with_tasks, settle_tasks};
use super::finish::server_itself;
use super::holds::{MOST_HOLDS, deny_by, may};
use super::standing::note_of;
use super::{App, AppError, Caller, Class, Cuts, Scope};
use crate::telemetry::{metrics, retention as measured};

/// How many are looked at once.
const BATCH: u32 = 100;
/// How long one process disposes before another may, unless it goes on.
const TURN: Span = Span::minutes(1);
/// The name of the lease.
const LEASE: &str = "disposal";

/// Marks what is due in these tenants, and deletes what was marked long enough ago. One process at a time does it.
pub async fn run_once(app: &App, tenants: &[TenantId]) -> Result<(), AppError> {
    let schedules = app.rules.now();
    if schedules.schedules.dispose() {
        for tenant in tenants {
            mark_due(app, tenant, &schedules.schedules).await?;
        }
    }
    delete_due(app).await?;
    let (waiting, due) = app.read(|read| Ok(read.disposals_waiting()?)).await?;
    let late = due.map_or(Span(0), |due| app.clock.now().since(due));
    measured::disposals_waiting(waiting, late);
    Ok(())
}

/// Whether it is this process's turn.
async fn is_ours(app: &App) -> Result<bool, AppError> {
    Ok(app.store.lease(LEASE, &app.settings.process, TURN).await?)
}

/// The classes that are disposed of, by the schedule that says when.
fn groups(schedules: &Schedules) -> Vec<(Classes, Schedule)> {
    let own = schedules
        .by_class
        .iter()
        .map(|(class, schedule)| (Classes::One(class.clone()), *schedule));
    let others = Classes::AllBut(schedules.by_class.keys().cloned().collect());
    own.chain([(others, schedules.default)])
        .filter(|(_, schedule)| schedule.keep.is_some())
        .collect()
}

async fn mark_due(app: &App, tenant: &TenantId, schedules: &Schedules) -> Result<(), AppError> {
    for (classes, schedule) in groups(schedules) {
        let Some(keep) = schedule.keep else { continue };
        let mut after: Option<(Timestamp, DocumentId)> = None;
        loop {
            if !is_ours(app).await? {
                return Ok(());
            }
            // Whatever it is counted from, nothing is due that was created later.
            let now = app.clock.now();
            let until = now.plus(Span(keep.0.saturating_neg()));
            let (of, wanted, from) = (tenant.clone(), classes.clone(), after.clone());
            let (page, holds) = app
                .read(move |read| {
                    let page = read.documents_by_age(&of, &wanted, until, from.as_ref(), BATCH)?;
                    Ok((page, read.holds(&of, now, MOST_HOLDS)?))
                })
                .await?;
            after = page
                .last()
                .and_then(|last| Some((last.created?, last.document.id.clone())));
            if after.is_none() {
                break;
            }
            for kept in page {
                if kept.at(now, schedules, &holds) == Retention::Over {
                    let (scope, id) = (app.scope(&server_itself(app, tenant)?), kept.document.id);
                    let marked = app.write(tenant, move |tx| mark_document(tx, &scope, &id)).await;
                    // One that fails keeps no other from being disposed of.
                    if let Err(error) = marked {
                        tracing::error!(cause = ?error.cause, reason = %error.reason, "a document that is due could not be marked");
                    }
                }
            }
        }
    }
    Ok(())
}

/// Marks a document, where it is due by what stands under lock.
fn mark_document(tx: &mut dyn Tx, scope: &Scope, id: &DocumentId) -> Result<((), Cuts), AppError> {
    let (tasks, _) = lock_with_tasks(tx, scope, id)?;
    let holds = tx.lock_holds(scope.tenant(), scope.now(), MOST_HOLDS)?;
    let schedules = &scope.rules.schedules;
    let kept = tx.kept_document(scope.tenant(), id)?;
    let due = |kept: &KeptDocument| {
        !kept.document.disposed && kept.at(scope.now(), schedules, &holds) == Retention::Over
    };
    let Some(KeptDocument { document, .. }) = kept.filter(due) else {
        return Ok(((), Cuts::none()));
    };
    let schedule = schedules.of(document.class.as_deref());
    let said = said(document.class.as_deref(), schedule);
    let due = scope.now().plus(schedule.grace);
    dispose(tx, scope, document, (Cause::Retention, said, due))?;
    Ok(((), settle_tasks(tx, scope, &tasks)?))
}

/// A schedule in words, for the record.
fn said(class: Option<&str>, schedule: &Schedule) -> String {
    let days = schedule
        .keep
        .map_or(0, |keep| keep.whole_seconds().div_euclid(24 * 3600));
    let from = match schedule.from {
        KeptFrom::Created => "its creation",
        KeptFrom::LastChanged => "its last change",
    };
    format!("{}: {days} days from {from}", class.unwrap_or("unmapped"))
}

/// Ends a locked document and marks its content, that of earlier versions too.
fn dispose(
    tx: &mut dyn Tx,
    scope: &Scope,
    document: Document,
    (cause, schedule, due): (Cause, String, Timestamp),
) -> Result<Vec<Disposal>, AppError> {
    let mut after = Document {
        disposed: true,
        ..document
    };
    if !after.deleted {
        after.deleted = true;
        after.version = after.version.saturating_add(1);
        after.last_updated = after.last_updated.max(scope.now());
        tx.update_document(scope.tenant(), &after, &[], None)?;
        let row = scope
            .row(Event::DocumentDeleted, Outcome::Success, Reason::Permitted)
            .about(about(&after))
            .detail("cause", cause.as_str());
        tx.record(scope.tenant(), row);
    }
    tx.keep_document(scope.tenant(), &after, None, scope.now())?;
    let mut marked = Vec::new();
    for id in tx.binaries_of(scope.tenant(), &after.id)? {
        if tx
            .binary(scope.tenant(), &id)?
            .is_some_and(|binary| !binary.deleted)
        {
            tx.delete_binary(scope.tenant(), &id, Some(&after.id), scope.now())?;
        }
        marked.push(mark(
            tx,
            scope,
            &id,
            Some(&after.id),
            cause,
            schedule.clone(),
            due,
        )?);
    }
    let row = scope
        .row(Event::Retention, Outcome::Success, Reason::Permitted)
        .about(about(&after))
        .detail("act", "marked")
        .detail("cause", cause.as_str())
        .detail("schedule", schedule)
        .detail("due", due.to_instant())
        .detail("contents", marked.len().to_string());
    tx.record(scope.tenant(), row);
    Ok(marked)
}

/// Marks content.
pub(super) fn mark(
    tx: &mut dyn Tx,
    scope: &Scope,
    binary: &BinaryId,
    document: Option<&DocumentId>,
    cause: Cause,
    schedule: String,
    due: Timestamp,
) -> Result<Disposal, AppError> {
    let disposal = Disposal {
        binary: binary.clone(),
        document: document.cloned(),
        cause,
        schedule,
        marked_at: scope.now(),
        due,
        state: DisposalState::Marked,
        state_at: scope.now(),
    };
    tx.mark_disposal(scope.tenant(), &disposal)?;
    Ok(disposal)
}

async fn delete_due(app: &App) -> Result<(), AppError> {
    let mut after: Option<(TenantId, BinaryId)> = None;
    loop {
        if !is_ours(app).await? {
            return Ok(());
        }
        let (now, from) = (app.clock.now(), after.clone());
        let (last, due) = app
            .read(move |read| {
                let due = read.disposals_due(now, from.as_ref(), BATCH)?;
                let last = due
                    .last()
                    .map(|(tenant, last)| (tenant.clone(), last.binary.clone()));
                Ok((last, not_held(read, now, due)?))
            })
            .await?;
        if last.is_none() {
            return Ok(());
        }
        after = last;
        for (tenant, disposal) in due {
            // One that fails keeps no other from being disposed of.
            if let Err(error) = carry_out(app, &tenant, &disposal).await {
                metrics::job_failure("disposal");
                tracing::error!(binary = %disposal.binary, cause = ?error.cause, reason = %error.reason, "content could not be disposed of, and will be tried again");
            }
        }
    }
}

/// Those that no hold keeps: what is held is come back to each time, and there may be much of it.
fn not_held(
    read: &mut dyn Read,
    now: Timestamp,
    due: Vec<(TenantId, Disposal)>,
) -> Result<Vec<(TenantId, Disposal)>, AppError> {
    let mut holds: HashMap<TenantId, Vec<Hold>> = HashMap::new();
    let mut free = Vec::new();
    for (tenant, disposal) in due {
        let document = match &disposal.document {
            Some(id) if disposal.state == DisposalState::Marked => read.document(&tenant, id)?,
            _ => None,
        };
        if !holds.contains_key(&tenant) {
            holds.insert(tenant.clone(), read.holds(&tenant, now, MOST_HOLDS)?);
        }
        let of_tenant = holds.get(&tenant).into_iter().flatten();
        if document.is_none_or(|document| holding(&document, now, of_tenant).is_empty()) {
            free.push((tenant, disposal));
        }
    }
    Ok(free)
}

/// Deletes the bytes of content that was marked, and records that they are gone; nothing where a hold keeps them.
pub(super) async fn carry_out(app: &App, tenant: &TenantId, disposal: &Disposal) -> Result<(), AppError> {
    let scope = app.scope(&server_itself(app, tenant)?);
    let of = disposal.clone();
    let begun = app.write(tenant, move |tx| Ok((begin(tx, &scope, &of)?, Cuts::none())));
    let Some(binary) = begun.await? else {
        return Ok(());
    };
    app.blobs.delete(&binary.pin).await?;
    let scope = app.scope(&server_itself(app, tenant)?);
    let (of, binary) = (disposal.clone(), Arc::new(binary));
    app.write(tenant, move |tx| {
        finish(tx, &scope, &of, &binary)?;
        Ok(((), Cuts::none()))
    })
    .await
}

/// Whether content may be deleted now: from then on a hold comes too late. Answers what it is.
fn begin(tx: &mut dyn Tx, scope: &Scope, disposal: &Disposal) -> Result<Option<StoredBinary>, AppError> {
    let (tenant, now) = (scope.tenant(), scope.now());
    let binary = tx.binary(tenant, &disposal.binary)?;
    if disposal.state == DisposalState::Deleting {
        return Ok(binary);
    }
    if let Some(id) = &disposal.document {
        let holds = tx.lock_holds(tenant, now, MOST_HOLDS)?;
        // Of a document that can't be read it is not known whether it is held.
        let Some(document) = tx.document(tenant, id)? else {
            return Ok(None);
        };
        if !holding(&document, now, &holds).is_empty() {
            return Ok(None);
        }
        // A schedule that was mended since keeps what it had not meant.
        let schedules = &scope.rules.schedules;
        let is_over = before_its_mark(tx, scope, id)?
            .is_some_and(|kept| kept.at(now, schedules, &[]) == Retention::Over);
        if disposal.cause == Cause::Retention && !is_over {
            return Ok(None);
        }
    }
    let (from, to) = (DisposalState::Marked, DisposalState::Deleting);
    let moved = tx.move_disposal(tenant, &disposal.binary, from, to, now)?;
    Ok(binary.filter(|_| moved))
}

/// A document as it was kept before it was marked, which was a change of it too.
fn before_its_mark(
    tx: &mut dyn Tx,
    scope: &Scope,
    id: &DocumentId,
) -> Result<Option<KeptDocument>, AppError> {
    let Some(mut kept) = tx.kept_document(scope.tenant(), id)? else {
        return Ok(None);
    };
    let marked = tx.disposals_of(scope.tenant(), id)?;
    let by_mark = |one: &Disposal| kept.document.disposed && kept.document.last_updated >= one.marked_at;
    if marked.first().is_some_and(by_mark) {
        let number = kept.document.version.saturating_sub(1);
        if let Some(before) = tx.version(scope.tenant(), Kind::Document, id.as_str(), number)? {
            kept.document.last_updated = before.last_updated;
        }
    }
    Ok(Some(kept))
}

/// Records that content is gone, once.
fn finish(
    tx: &mut dyn Tx,
    scope: &Scope,
    disposal: &Disposal,
    binary: &StoredBinary,
) -> Result<(), AppError> {
    let (tenant, now) = (scope.tenant(), scope.now());
    let (from, to) = (DisposalState::Deleting, DisposalState::Gone);
    if !tx.move_disposal(tenant, &disposal.binary, from, to, now)? {
        return Ok(());
    }
    let document = match &disposal.document {
        Some(id) => tx.document(tenant, id)?,
        None => None,
    };
    let row = scope
        .row(Event::ContentDisposed, Outcome::Success, Reason::Permitted)
        .about(About {
            binary: Some(format!("Binary/{}", disposal.binary)),
            ..document.as_ref().map(about).unwrap_or_default()
        })
        .detail("cause", disposal.cause.as_str())
        .detail(
            "schedule",
            Some(disposal.schedule.as_str())
                .filter(|said| !said.is_empty())
                .unwrap_or("none"),
        )
        .detail("marked", disposal.marked_at.to_instant())
        .detail("bytes", binary.size.to_string())
        .detail("sha256", binary.sha256.to_hex());
    tx.record(tenant, row);
    Ok(())
}

impl App {
    /// Disposes of a document's content before its time, on a records manager's word: not while it is held, and not while its
    /// schedule keeps it. Answers how much content is gone, or about to be.
    pub async fn purge_document(
        &self,
        caller: &Caller,
        id: DocumentId,
        note: &str,
    ) -> Result<usize, AppError> {
        let (scope, note) = (self.scope(caller), note_of(note)?);
        let marked = self
            .write(caller.tenant(), move |tx| {
                may(&scope, Action::RecordsManage, Event::Retention)?;
                purge(tx, &scope, &id, &note)
            })
            .await?;
        for disposal in &marked {
            if let Err(error) = carry_out(self, caller.tenant(), disposal).await {
                tracing::warn!(binary = %disposal.binary, reason = %error.reason, "purged content is still in the blob store; it is tried again");
            }
        }
        Ok(marked.len())
    }
}

fn purge(
    tx: &mut dyn Tx,
    scope: &Scope,
    id: &DocumentId,
    note: &str,
) -> Result<(Vec<Disposal>, Cuts), AppError> {
    let (tasks, document) = lock_with_tasks(tx, scope, id)?;
    let document = document.ok_or_else(AppError::not_found)?;
    let holds = tx.lock_holds(scope.tenant(), scope.now(), MOST_HOLDS)?;
    deny_by(scope, &document, &holds)?;
    let kept = before_its_mark(tx, scope, id)?;
    // Kept for ever means until somebody decides: here.
    let scheduled = kept.and_then(|kept| kept.until(&scope.rules.schedules));
    let kept_until = scheduled.max(document.retain_until);
    if let Some(until) = kept_until.filter(|until| scope.now() < *until) {
        let row = scope
            .row(Event::Retention, Outcome::Denied, Reason::PolicyDenied)
            .about(about(&document))
            .detail("act", "purge")
            .detail("kept-until", until.to_instant());
        let text = format!("the document is kept until {}", until.to_instant());
        return Err(AppError::new(Class::Conflict, Reason::PolicyDenied, text).recorded(row));
    }
    let row = scope
        .row(Event::Retention, Outcome::Success, Reason::Permitted)
        .about(about(&document))
        .detail("act", "purge")
        .detail("note", note);
    tx.record(scope.tenant(), row);
    if document.disposed {
        // What is marked does not wait any longer; what is gone is.
        tx.hasten_disposals(scope.tenant(), id, Cause::Purge, scope.now())?;
        let mut marked = tx.disposals_of(scope.tenant(), id)?;
        marked.retain(|disposal| disposal.state == DisposalState::Marked);
        return Ok((marked, Cuts::none()));
    }
    let how = (Cause::Purge, "asked for".to_owned(), scope.now());
    let marked = dispose(tx, scope, document, how)?;
    Ok((marked, settle_tasks(tx, scope, &tasks)?))
}
