//! What holds a Task or document back while the newest word of its source about it is not applied: refused, put off, or still
//! to come. Nobody is released anything here that the source may have ended there. Facts like those about patients: the gate
//! asks the store for them, and streams end by them in every process.

use std::sync::Arc;

use handoff_domain::facts::{Fact, FactKind, Saying};
use handoff_domain::ids::{DocumentId, SourceId, TaskId};
use handoff_domain::inbox::{Age, Notice};
use handoff_domain::ports::{NoticeSearch, Tx};
use handoff_domain::source::FeedType;
use handoff_domain::standing::Target;
use handoff_domain::task::TaskStatus;
use serde_json::Value;

use super::{Applying, mirrored_as};
use crate::app::expiry::settle_one;
use crate::app::standing::take_back;
use crate::app::{App, AppError, Cuts, Scope};

/// How many notices of one resource are looked at.
const LOOKED_AT: u32 = 100;
/// Those that stand in the way of releases, and follow from Tasks and documents.
const KINDS: [FactKind; 4] = [
    FactKind::TaskEnded,
    FactKind::TaskHeld,
    FactKind::DocumentEnded,
    FactKind::DocumentHeld,
];

/// Holds back what a notice tells of that was not applied, by what it says as far as that can be read.
pub(super) async fn restrain(app: &App, applying: &Applying) -> Result<(), AppError> {
    let Some(kind) = applying.kind() else {
        return Ok(());
    };
    let (scope, of) = (app.scope(&applying.caller), applying.clone());
    let tenant = applying.tenant().clone();
    let target = app
        .write(&tenant, move |tx| {
            let notice = of.notice_as_read();
            let mirror = tx.lock_mirror(scope.tenant(), &of.source.id, of.reference())?;
            if mirror.as_ref().is_some_and(|mirror| !mirror.takes(&notice)) {
                return Ok((None, Cuts::none()));
            }
            let Some(ours) = mirrored_as(tx, &scope, kind, mirror.as_ref(), of.reference())? else {
                return Ok((None, Cuts::none()));
            };
            let what = match kind {
                FeedType::Task => of_task(tx, &scope, &of, &ours)?,
                _ => of_document(&of),
            };
            let lifted = put(tx, &scope, &of.source.id, of.reference(), &ours, what)?;
            let cuts = match (lifted, task_of(&ours)) {
                (Some(freed), Some(task)) => settle_one(tx, &freed, &task)?.1,
                _ => Cuts::none(),
            };
            Ok((what.and_then(|_| target_of(&ours)), cuts))
        })
        .await?;
    if let Some(target) = target {
        app.see_change().await;
        take_back(app, &tenant, &target).await?;
    }
    Ok(())
}

/// What stands of a resource from the version that is applied on: the scope to go on with, where nothing of that version is
/// released as long as a newer one is known and not applied.
pub(super) fn while_applying(
    tx: &mut dyn Tx,
    scope: &Scope,
    applying: &Applying,
    notice: &Notice,
    ours: &str,
) -> Result<(Scope, bool), AppError> {
    let held = match applying.kind() {
        Some(FeedType::Task) => FactKind::TaskHeld,
        _ => FactKind::DocumentHeld,
    };
    let what = (applying.is_step || is_newer_known(tx, scope, notice)?).then_some(held);
    let before = standing_of(tx, scope, &applying.source.id, applying.reference())?;
    // What has ended is not only held.
    let is_restrained = what.is_some() && !before.is_empty();
    let lifted = if is_restrained {
        None
    } else {
        put(tx, scope, &applying.source.id, applying.reference(), ours, what)?
    };
    // What this process has in sight of it may be of before.
    let known = tx.facts_of(scope.tenant(), &applying.source.id, applying.reference())?;
    Ok((knowing(scope, &known), lifted.is_some()))
}

/// Once an operator gave a notice up: nothing is held back because of it any more.
pub(in crate::app) fn give_up(tx: &mut dyn Tx, scope: &Scope, notice: &Notice) -> Result<Cuts, AppError> {
    let Some(reference) = notice.matter.reference() else {
        return Ok(Cuts::none());
    };
    let search = |state| NoticeSearch {
        state,
        source: Some(notice.source.clone()),
        about: Some(reference.to_owned()),
        limit: LOOKED_AT,
        ..NoticeSearch::default()
    };
    for state in ["waiting", "quarantined"] {
        let others = tx.notices(scope.tenant(), &search(state))?;
        if others.iter().any(|other| other.id != notice.id) {
            return Ok(Cuts::none());
        }
    }
    let standing = standing_of(tx, scope, &notice.source, reference)?;
    let Some(ours) = standing.first().map(|fact| fact.saying.subject.clone()) else {
        return Ok(Cuts::none());
    };
    let freed = put(tx, scope, &notice.source, reference, &ours, None)?;
    match (freed, task_of(&ours)) {
        (Some(freed), Some(task)) => Ok(settle_one(tx, &freed, &task)?.1),
        _ => Ok(Cuts::none()),
    }
}

/// Whether something newer about the same resource is known that is not applied.
fn is_newer_known(tx: &mut dyn Tx, scope: &Scope, notice: &Notice) -> Result<bool, AppError> {
    for state in ["waiting", "quarantined"] {
        let search = NoticeSearch {
            state,
            source: Some(notice.source.clone()),
            about: notice.matter.reference().map(str::to_owned),
            limit: LOOKED_AT,
            ..NoticeSearch::default()
        };
        let known = tx.notices(scope.tenant(), &search)?;
        let is_newer = |other: &Notice| match other.version.against(&notice.version) {
            Age::Newer => true,
            Age::Untold => other.place > notice.place,
            Age::Same | Age::Older => false,
        };
        if known.iter().any(|other| other.id != notice.id && is_newer(other)) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// What a version of a Task that can't be applied means for the one that it is here.
fn of_task(
    tx: &mut dyn Tx,
    scope: &Scope,
    applying: &Applying,
    ours: &str,
) -> Result<Option<FactKind>, AppError> {
    if applying.notice.gone {
        return Ok(Some(FactKind::TaskEnded));
    }
    let Some(value) = applying.as_read() else {
        return Ok(Some(FactKind::TaskHeld));
    };
    let status = value
        .get("status")
        .and_then(Value::as_str)
        .and_then(TaskStatus::parse);
    let owner = value.pointer("/owner/reference").and_then(Value::as_str);
    let owner = owner.map(|owner| applying.source.local(owner));
    Ok(match status {
        Some(status) if status.is_terminal() => Some(FactKind::TaskEnded),
        None | Some(TaskStatus::OnHold | TaskStatus::Draft) => Some(FactKind::TaskHeld),
        Some(_) => {
            let id = task_of(ours);
            let task = match &id {
                Some(id) => tx.task(scope.tenant(), id)?,
                None => None,
            };
            let of_before = task.is_some_and(|task| task.facts.owner.as_deref() == owner);
            (!of_before).then_some(FactKind::TaskHeld)
        }
    })
}

/// What a version of a document that can't be applied means for the one that it is here.
fn of_document(applying: &Applying) -> Option<FactKind> {
    if applying.notice.gone {
        return Some(FactKind::DocumentEnded);
    }
    let Some(value) = applying.as_read() else {
        return Some(FactKind::DocumentHeld);
    };
    let says = |name: &str| value.get(name).and_then(Value::as_str);
    match (says("status"), says("docStatus")) {
        (_, Some("entered-in-error")) | (Some("superseded" | "entered-in-error"), _) => {
            Some(FactKind::DocumentEnded)
        }
        (Some("current"), _) => None,
        _ => Some(FactKind::DocumentHeld),
    }
}

fn standing_of(
    tx: &mut dyn Tx,
    scope: &Scope,
    source: &SourceId,
    theirs: &str,
) -> Result<Vec<Fact>, AppError> {
    let mut facts = tx.facts_of(scope.tenant(), source, theirs)?;
    facts.retain(|fact| fact.stands && KINDS.contains(&fact.saying.kind));
    Ok(facts)
}

/// Writes that this stands of a resource, and nothing else of the kind. Answers the scope to go on with where something stands
/// no more that did.
fn put(
    tx: &mut dyn Tx,
    scope: &Scope,
    source: &SourceId,
    theirs: &str,
    ours: &str,
    what: Option<FactKind>,
) -> Result<Option<Scope>, AppError> {
    let before = standing_of(tx, scope, source, theirs)?;
    let mut gone = Vec::new();
    for fact in before.iter().filter(|fact| Some(fact.saying.kind) != what) {
        let fact = Fact {
            stands: false,
            ..fact.clone()
        };
        tx.put_fact(scope.tenant(), &fact, scope.now())?;
        gone.push(fact);
    }
    if let Some(kind) = what
        && !before.iter().any(|fact| fact.saying.kind == kind)
    {
        let fact = Fact {
            source: source.clone(),
            resource: theirs.to_owned(),
            saying: Saying {
                kind,
                subject: ours.to_owned(),
                team: String::new(),
            },
            at: scope.now(),
            stands: true,
        };
        tx.put_fact(scope.tenant(), &fact, scope.now())?;
    }
    Ok((!gone.is_empty()).then(|| knowing(scope, &gone)))
}

/// A scope that knows these facts, as they stand or stand no more.
fn knowing(scope: &Scope, facts: &[Fact]) -> Scope {
    if facts.is_empty() {
        return scope.clone();
    }
    let mut known = scope.standing.facts().clone();
    for fact in facts {
        known.learn(fact);
    }
    Scope {
        standing: Arc::new(scope.standing.as_ref().clone().knowing(Arc::new(known))),
        ..scope.clone()
    }
}

fn task_of(ours: &str) -> Option<TaskId> {
    ours.strip_prefix("Task/").and_then(|id| TaskId::parse(id).ok())
}

fn target_of(ours: &str) -> Option<Target> {
    let document = ours.strip_prefix("DocumentReference/");
    let document = document.and_then(|id| DocumentId::parse(id).ok());
    task_of(ours)
        .map(Target::Task)
        .or_else(|| document.map(Target::Document))
}
