//! What becomes of a notice: applied, old, put off or laid aside. Each is one transaction's last word, with its audit row.

use handoff_domain::TenantId;
use handoff_domain::audit::{About, Event, Outcome};
use handoff_domain::ids::{NoticeId, SourceId};
use handoff_domain::inbox::{Age, Matter, Notice, NoticeState};
use handoff_domain::ports::{NoticeSearch, Tx};
use handoff_domain::reason::Reason;

use super::backlog::lock;
use super::restraint::relieve;
use super::{Applying, TRIED_AGAIN, revision_of};
use crate::app::outcome::operation_outcome;
use crate::app::{App, AppError, Caller, Cuts, Scope};

/// Among how many that were laid aside an older request to ask for everything is looked for.
const ASKED_AGAIN: u32 = 50;

/// Writes down that a notice was applied, and has those of the same resource that were refused tried again: what stood
/// in their way may be gone.
pub(super) fn settle(
    tx: &mut dyn Tx,
    scope: &Scope,
    applying: &Applying,
    notice: Notice,
    ours: Option<String>,
    about: About,
) -> Result<(), AppError> {
    let tenant = scope.tenant().clone();
    let row = told(scope, &notice, Outcome::Success, Reason::Permitted).about(about);
    let search = NoticeSearch {
        state: "quarantined",
        source: Some(notice.source.clone()),
        about: notice.matter.reference().map(str::to_owned),
        limit: TRIED_AGAIN,
        ..NoticeSearch::default()
    };
    let now = scope.now();
    let is_about_one = search.about.is_some();
    tx.update_notice(
        &tenant,
        &notice.become_state(NoticeState::Applied { at: now, ours }),
    )?;
    if !is_about_one {
        tx.record(&tenant, row);
        return Ok(());
    }
    if *lock(&applying.seen) == Some(0) {
        // There is no row yet by which `lay_aside` could see this one: whoever comes second sees the other.
        tx.lock_source(&tenant, &applying.source.id)?;
    }
    let mut freed = Vec::new();
    for refused in tx.notices(&tenant, &search)? {
        if let Some(refused) = tx.lock_notice(&tenant, &refused.id)?.filter(is_quarantined) {
            freed.push(refused.id.clone());
            tx.update_notice(&tenant, &refused.become_state(NoticeState::Waiting { due: now }))?;
        }
    }
    *lock(&applying.freed) = freed;
    tx.record(&tenant, row);
    Ok(())
}

fn is_quarantined(notice: &Notice) -> bool {
    matches!(notice.state, NoticeState::Quarantined { .. })
}

/// Writes down that a notice is old: nothing is held back because of it.
pub(super) fn settle_old(tx: &mut dyn Tx, scope: &Scope, notice: Notice) -> Result<Cuts, AppError> {
    let cuts = relieve(tx, scope, &notice)?;
    let row = told(scope, &notice, Outcome::Success, Reason::Permitted).detail("old", "true");
    let state = NoticeState::Superseded { at: scope.now() };
    tx.update_notice(scope.tenant(), &notice.become_state(state))?;
    tx.record(scope.tenant(), row);
    Ok(cuts)
}

/// An audit row about a notice.
pub(super) fn told(
    scope: &Scope,
    notice: &Notice,
    outcome: Outcome,
    reason: Reason,
) -> handoff_domain::audit::AuditRow {
    let mut row = scope
        .row(Event::NoticeApplied, outcome, reason)
        .detail("source", notice.source.as_str())
        .detail("notice", notice.id.as_str());
    if let Some(reference) = notice.matter.reference() {
        row = row.detail("about", reference);
    }
    if let Some(numbered) = &notice.numbered {
        row = row.detail("event", numbered.event.to_string());
    }
    row
}

/// Has a notice tried again later.
pub(super) async fn put_off(app: &App, caller: &Caller, notice: &Notice) -> Result<(), AppError> {
    let (scope, id) = (app.scope(caller), notice.id.clone());
    app.write(caller.tenant(), move |tx| {
        let waiting = |notice: &Notice| matches!(notice.state, NoticeState::Waiting { .. });
        if let Some(mut notice) = tx.lock_notice(scope.tenant(), &id)?.filter(waiting) {
            notice.tries = notice.tries.saturating_add(1);
            let due = notice.next_try(scope.now());
            tx.update_notice(scope.tenant(), &notice.become_state(NoticeState::Waiting { due }))?;
        }
        Ok(((), Cuts::none()))
    })
    .await
}

/// Lays a notice aside with the OperationOutcome that says why, and answers `true`; or has it tried again, where another was
/// applied since it was held against what was mirrored then (`seen`): that one found nothing to free.
pub(super) async fn lay_aside(
    app: &App,
    caller: &Caller,
    notice: &Notice,
    seen: Option<i64>,
    error: &AppError,
) -> Result<bool, AppError> {
    let (scope, id, reason) = (app.scope(caller), notice.id.clone(), error.reason);
    let outcome = operation_outcome(error, notice.correlation.as_str());
    let outcome = String::from_utf8(outcome).unwrap_or_default();
    app.write(caller.tenant(), move |tx| {
        let waiting = |notice: &Notice| matches!(notice.state, NoticeState::Waiting { .. });
        let Some(mut notice) = tx.lock_notice(scope.tenant(), &id)?.filter(waiting) else {
            return Ok((true, Cuts::none()));
        };
        // Two that are refused at the same time must see each other, and one that comes to be mirrored.
        tx.lock_source(scope.tenant(), &notice.source)?;
        if has_moved(tx, scope.tenant(), &notice, seen)? {
            return Ok((false, Cuts::none()));
        }
        notice.tries = notice.tries.saturating_add(1);
        let row = told(&scope, &notice, Outcome::Denied, reason);
        let state = if is_aside(tx, scope.tenant(), &notice)? {
            NoticeState::Superseded { at: scope.now() }
        } else {
            NoticeState::Quarantined {
                at: scope.now(),
                reason,
                outcome: outcome.clone(),
            }
        };
        let is_about_all = notice.matter == Matter::Changes;
        let (source, own) = (notice.source.clone(), notice.id.clone());
        tx.update_notice(scope.tenant(), &notice.become_state(state))?;
        tx.record(scope.tenant(), row);
        if is_about_all {
            replace_asking(tx, &scope, source, &own)?;
        }
        Ok((true, Cuts::none()))
    })
    .await
}

/// Whether its resource was mirrored anew since a notice was held against it.
fn has_moved(
    tx: &mut dyn Tx,
    tenant: &TenantId,
    notice: &Notice,
    seen: Option<i64>,
) -> Result<bool, AppError> {
    let (Some(seen), Some(reference)) = (seen, notice.matter.reference()) else {
        return Ok(false);
    };
    let mirror = tx.lock_mirror(tenant, &notice.source, reference)?;
    Ok(revision_of(mirror.as_ref()) != seen)
}

/// One request to ask for everything is enough of those that were laid aside: the newest says it all.
fn replace_asking(
    tx: &mut dyn Tx,
    scope: &Scope,
    source: SourceId,
    newest: &NoticeId,
) -> Result<(), AppError> {
    let search = NoticeSearch {
        state: "quarantined",
        source: Some(source),
        limit: ASKED_AGAIN,
        ..NoticeSearch::default()
    };
    let at = scope.now();
    for old in tx.notices(scope.tenant(), &search)? {
        if old.matter == Matter::Changes
            && old.id != *newest
            && let Some(old) = tx.lock_notice(scope.tenant(), &old.id)?.filter(is_quarantined)
        {
            tx.update_notice(scope.tenant(), &old.become_state(NoticeState::Superseded { at }))?;
        }
    }
    Ok(())
}

/// Whether the same version of the same resource is quarantined already: told by two topics, or told and found by asking. One
/// of them is enough to look after.
fn is_aside(tx: &mut dyn Tx, tenant: &TenantId, notice: &Notice) -> Result<bool, AppError> {
    let Some(reference) = notice.matter.reference() else {
        return Ok(false);
    };
    let search = NoticeSearch {
        state: "quarantined",
        source: Some(notice.source.clone()),
        about: Some(reference.to_owned()),
        limit: TRIED_AGAIN,
        ..NoticeSearch::default()
    };
    for known in tx.notices(tenant, &search)? {
        let same = match known.version.against(&notice.version) {
            Age::Same => true,
            // No version, and the same words.
            Age::Untold if known.version == notice.version && !notice.body.is_empty() => tx
                .notice(tenant, &known.id)?
                .is_some_and(|known| known.body == notice.body),
            _ => false,
        };
        if same {
            return Ok(true);
        }
    }
    Ok(false)
}
