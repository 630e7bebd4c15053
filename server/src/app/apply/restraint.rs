//! What holds a Task or document back while the newest word of its source about it is not applied: refused, put off, or still
//! to come. Nobody is released anything here that the source may have ended there. Facts like those about patients: the gate
//! asks the store for them, and streams end by them in every process.

use std::collections::BTreeMap;
use std::sync::Arc;

use handoff_domain::facts::{Fact, FactKind, Saying};
use handoff_domain::ids::{DocumentId, SourceId, TaskId};
use handoff_domain::inbox::{Age, Mirror, Notice, NoticeState};
use handoff_domain::ports::{Kind, NoticeSearch, Tx};
use handoff_domain::source::FeedType;
use handoff_domain::standing::Target;
use handoff_domain::task::TaskStatus;
use serde_json::Value;

use super::references::localise;
use super::{Applying, checked, mirrored_as};
use crate::app::expiry::settle_one;
use crate::app::json_edit::open;
use crate::app::standing::take_back;
use crate::app::task_family::parts;
use crate::app::{App, AppError, Cuts, Scope};

/// How many notices of one resource are looked at at once, and how often: where there are more, one of them may be newer.
const PAGE: u32 = 100;
const MOST_PAGES: u32 = 10;
/// How many documents one that can't be applied may replace.
const MOST_REPLACED: usize = 100;
/// Those that stand in the way of releases, and follow from Tasks and documents.
const KINDS: [FactKind; 4] = [
    FactKind::TaskEnded,
    FactKind::TaskHeld,
    FactKind::DocumentEnded,
    FactKind::DocumentHeld,
];
/// What of a Task says whether, to whom and what is released under it.
const DECIDES: [&str; 8] = [
    "owner",
    "for",
    "focus",
    "input",
    "restriction",
    "partOf",
    "performerType",
    "code",
];

/// What came of a version so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Doubt {
    /// It can't be applied.
    Refused,
    /// It may be, later.
    Open,
}

/// What is held back because of one resource of a source: of ours, and how.
type Wanted = BTreeMap<String, FactKind>;

/// What became of it: facts that are new, and facts that stand no more.
#[derive(Default)]
struct Changed(Vec<Fact>);

/// How a version is applied while others may be known.
pub(super) struct Going {
    /// The scope to go on with.
    pub(super) scope: Scope,
    /// Whether something that was held back is not any more.
    pub(super) is_lifted: bool,
    /// Tasks of those that have to be settled, beside the one that is applied.
    freed: Vec<TaskId>,
}

/// Holds back what a notice tells of that was not applied, by what it says as far as that can be read.
pub(super) async fn restrain(app: &App, applying: &Applying, doubt: Doubt) -> Result<(), AppError> {
    let kinds = [FeedType::Task, FeedType::DocumentReference];
    let may_tell = |kind: &FeedType| kinds.contains(kind) && applying.source.settings.types.contains(kind);
    let Some(kind) = applying.kind().filter(may_tell) else {
        return Ok(());
    };
    let (unit, scope, of) = (app.clone(), app.scope(&applying.caller), applying.clone());
    let tenant = applying.tenant().clone();
    let held = app
        .write(&tenant, move |tx| {
            let waiting = |notice: &Notice| matches!(notice.state, NoticeState::Waiting { .. });
            let open = tx.lock_notice(scope.tenant(), &of.notice.id)?;
            if !open.as_ref().is_some_and(waiting) {
                return Ok((Vec::new(), Cuts::none()));
            }
            let notice = of.notice_as_read();
            let mirror = tx.lock_mirror(scope.tenant(), &of.source.id, of.reference())?;
            if mirror.as_ref().is_some_and(|mirror| !mirror.takes(&notice)) {
                return Ok((Vec::new(), Cuts::none()));
            }
            let mut wanted = wanted(tx, &unit, &scope, &of, (kind, mirror.as_ref()), doubt)?;
            if is_open_beyond(tx, &scope, &notice, mirror.as_ref())? {
                // Another that can't be applied may be the newest: nothing is loosened.
                for fact in standing_of(tx, &scope, &of.source.id, of.reference())? {
                    let kind = wanted.entry(fact.saying.subject).or_insert(fact.saying.kind);
                    *kind = stricter(*kind, fact.saying.kind);
                }
            }
            let changed = put(tx, &scope, &of.source.id, of.reference(), &wanted)?;
            let cuts = changed.settle(tx, &scope)?;
            Ok((wanted.into_keys().collect(), cuts))
        })
        .await?;
    if !held.is_empty() {
        app.see_change().await;
    }
    for target in held.iter().filter_map(|ours| target_of(ours)) {
        take_back(app, &tenant, &target).await?;
    }
    Ok(())
}

/// What stands of a resource from the version that is applied on: nothing of that version is released as long as a newer one is
/// known and not applied.
pub(super) fn while_applying(
    tx: &mut dyn Tx,
    scope: &Scope,
    applying: &Applying,
    notice: &Notice,
    ours: &str,
) -> Result<Going, AppError> {
    let held = match applying.kind() {
        Some(FeedType::Task) => FactKind::TaskHeld,
        _ => FactKind::DocumentHeld,
    };
    let (source, theirs) = (&applying.source.id, applying.reference());
    let is_passing = applying.is_step || is_newer_known(tx, scope, notice)?;
    let changed = if !is_passing {
        put(tx, scope, source, theirs, &Wanted::new())?
    } else if standing_of(tx, scope, source, theirs)?.is_empty() {
        put(
            tx,
            scope,
            source,
            theirs,
            &Wanted::from([(ours.to_owned(), held)]),
        )?
    } else {
        // What has ended is not only held.
        Changed::default()
    };
    // What this process has in sight of it may be of before.
    let known = tx.facts_of(scope.tenant(), source, theirs)?;
    let mut freed = changed.freed();
    let is_lifted = changed.lifts();
    freed.retain(|task| Some(task) != task_of(ours).as_ref());
    Ok(Going {
        scope: knowing(scope, &known),
        is_lifted,
        freed,
    })
}

impl Going {
    /// Brings the grants of the other Tasks to where they belong.
    pub(super) fn settle_others(&self, tx: &mut dyn Tx) -> Result<Cuts, AppError> {
        let mut cuts = Cuts::none();
        for task in &self.freed {
            cuts.extend(settle_one(tx, &self.scope, task)?.1);
        }
        Ok(cuts)
    }
}

/// Once a notice was settled without having been applied: nothing is held back because of it any more.
pub(in crate::app) fn relieve(tx: &mut dyn Tx, scope: &Scope, notice: &Notice) -> Result<Cuts, AppError> {
    let Some(reference) = notice.matter.reference() else {
        return Ok(Cuts::none());
    };
    if standing_of(tx, scope, &notice.source, reference)?.is_empty() {
        return Ok(Cuts::none());
    }
    let mirror = tx.lock_mirror(scope.tenant(), &notice.source, reference)?;
    if is_open_beyond(tx, scope, notice, mirror.as_ref())? {
        return Ok(Cuts::none());
    }
    put(tx, scope, &notice.source, reference, &Wanted::new())?.settle(tx, scope)
}

/// Whether something else about the same resource is known that is newer than what is mirrored, and not applied.
fn is_open_beyond(
    tx: &mut dyn Tx,
    scope: &Scope,
    notice: &Notice,
    mirror: Option<&Mirror>,
) -> Result<bool, AppError> {
    is_open(tx, scope, notice, |other| {
        mirror.is_none_or(|mirror| mirror.takes(other))
    })
}

/// Whether something about the same resource is known that is newer than this, and not applied.
fn is_newer_known(tx: &mut dyn Tx, scope: &Scope, notice: &Notice) -> Result<bool, AppError> {
    is_open(tx, scope, notice, |other| {
        match other.version.against(&notice.version) {
            Age::Newer => true,
            Age::Untold => other.place > notice.place,
            Age::Same | Age::Older => false,
        }
    })
}

fn is_open(
    tx: &mut dyn Tx,
    scope: &Scope,
    notice: &Notice,
    counts: impl Fn(&Notice) -> bool,
) -> Result<bool, AppError> {
    for state in ["waiting", "quarantined"] {
        let mut search = NoticeSearch {
            state,
            source: Some(notice.source.clone()),
            about: notice.matter.reference().map(str::to_owned),
            limit: PAGE,
            ..NoticeSearch::default()
        };
        for page in 1.. {
            let known = tx.notices(scope.tenant(), &search)?;
            if known.iter().any(|other| other.id != notice.id && counts(other)) {
                return Ok(true);
            }
            match known.last() {
                Some(_) if known.len() >= PAGE as usize && page >= MOST_PAGES => return Ok(true),
                Some(last) if known.len() >= PAGE as usize => search.before = Some(last.id.clone()),
                _ => break,
            }
        }
    }
    Ok(false)
}

/// What is held back because of a notice that is not applied.
fn wanted(
    tx: &mut dyn Tx,
    app: &App,
    scope: &Scope,
    of: &Applying,
    (kind, mirror): (FeedType, Option<&Mirror>),
    doubt: Doubt,
) -> Result<Wanted, AppError> {
    let mut wanted = Wanted::new();
    let ours = mirrored_as(tx, scope, kind, mirror, of.reference())?;
    let ours = match ours {
        Some(ours) if is_placers(tx, scope, &ours)? => Some(ours),
        _ => None,
    };
    if kind == FeedType::DocumentReference {
        for old in replaced(tx, scope, of)? {
            wanted.insert(old, FactKind::DocumentHeld);
        }
        if let Some(ours) = ours {
            wanted.insert(ours, of_document(of));
        }
    } else if let Some(ours) = ours
        && let Some(what) = of_task(tx, app, scope, of, &ours, doubt)?
        && let Some(id) = task_of(&ours)
    {
        // As a move of the Task itself would be followed by its parts.
        for part in parts(tx, scope, &id)? {
            wanted.insert(format!("Task/{part}"), what);
        }
        wanted.insert(ours, what);
    }
    Ok(wanted)
}

/// Whether what is stored here is of the placer that the source acts as: of others it says nothing.
fn is_placers(tx: &mut dyn Tx, scope: &Scope, ours: &str) -> Result<bool, AppError> {
    let placer = match (task_of(ours), document_of(ours)) {
        (Some(task), _) => tx.task(scope.tenant(), &task)?.map(|task| task.created_by),
        (None, Some(document)) => tx
            .document(scope.tenant(), &document)?
            .map(|document| document.created_by),
        (None, None) => None,
    };
    Ok(placer.as_ref() == Some(&scope.caller.principal.actor))
}

/// What a version of a Task that is not applied means for the one that it is here.
fn of_task(
    tx: &mut dyn Tx,
    app: &App,
    scope: &Scope,
    applying: &Applying,
    ours: &str,
    doubt: Doubt,
) -> Result<Option<FactKind>, AppError> {
    if applying.is_gone() {
        return Ok(Some(FactKind::TaskEnded));
    }
    let status = applying
        .as_read()
        .and_then(|value| TaskStatus::parse(value.get("status")?.as_str()?));
    Ok(match status {
        Some(status) if status.is_terminal() => Some(FactKind::TaskEnded),
        Some(status)
            if doubt == Doubt::Open && releases_the_same(tx, app, scope, applying, (ours, status))? =>
        {
            None
        }
        _ => Some(FactKind::TaskHeld),
    })
}

/// Whether a version that may still be applied would release the same to the same people.
fn releases_the_same(
    tx: &mut dyn Tx,
    app: &App,
    scope: &Scope,
    applying: &Applying,
    (ours, status): (&str, TaskStatus),
) -> Result<bool, AppError> {
    let Ok(resource) = checked(app, applying.body(), FeedType::Task, applying.reference()) else {
        return Ok(false);
    };
    let resource = localise(tx, scope, &applying.source, resource)?.resource;
    let Some(id) = task_of(ours) else {
        return Ok(false);
    };
    let stored = tx.current(scope.tenant(), Kind::Task, id.as_str())?;
    let Some(stored) = stored.filter(|version| !version.body.is_empty()) else {
        return Ok(false);
    };
    let stored = open(&stored.body)?;
    let task = tx.task(scope.tenant(), &id)?;
    if !task.is_some_and(|task| scope.rules.workflows.of(&task.facts.code).is_actionable(status)) {
        return Ok(false);
    }
    Ok(DECIDES
        .iter()
        .all(|name| stored.value().get(name) == resource.value().get(name)))
}

/// What a version of a document that is not applied means for the one that it is here.
fn of_document(applying: &Applying) -> FactKind {
    if applying.is_gone() {
        return FactKind::DocumentEnded;
    }
    let value = applying.as_read();
    let says = |name: &str| value.as_ref().and_then(|value| value.get(name)?.as_str());
    match (says("status"), says("docStatus")) {
        (Some("superseded" | "entered-in-error"), _) | (_, Some("entered-in-error")) => {
            FactKind::DocumentEnded
        }
        _ => FactKind::DocumentHeld,
    }
}

/// Documents here that one which is not applied says it replaces.
fn replaced(tx: &mut dyn Tx, scope: &Scope, of: &Applying) -> Result<Vec<String>, AppError> {
    let value = of.as_read().unwrap_or_default();
    let related = value.get("relatesTo").and_then(Value::as_array);
    let named: Vec<&str> = related
        .into_iter()
        .flatten()
        .filter(|one| one.get("code").and_then(Value::as_str) == Some("replaces"))
        .filter_map(|one| one.pointer("/target/reference")?.as_str())
        .map(|reference| of.source.local(reference))
        .take(MOST_REPLACED)
        .collect();
    let mut found = Vec::new();
    for theirs in named {
        let mirror = tx.mirror(scope.tenant(), &of.source.id, theirs)?;
        let ours = mirrored_as(tx, scope, FeedType::DocumentReference, mirror.as_ref(), theirs)?;
        if let Some(ours) = ours
            && is_placers(tx, scope, &ours)?
        {
            found.push(ours);
        }
    }
    Ok(found)
}

/// Of two that stand in the way of the same the one that goes further.
fn stricter(one: FactKind, other: FactKind) -> FactKind {
    if one.only_holds() { other } else { one }
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

/// Writes that this stands because of a resource, and nothing else of the kind.
fn put(
    tx: &mut dyn Tx,
    scope: &Scope,
    source: &SourceId,
    theirs: &str,
    wanted: &Wanted,
) -> Result<Changed, AppError> {
    let before = standing_of(tx, scope, source, theirs)?;
    let mut changed = Vec::new();
    for fact in &before {
        if wanted.get(&fact.saying.subject) != Some(&fact.saying.kind) {
            changed.push(Fact {
                stands: false,
                ..fact.clone()
            });
        }
    }
    for (subject, kind) in wanted {
        let is_known = |fact: &Fact| fact.saying.subject == *subject && fact.saying.kind == *kind;
        if !before.iter().any(is_known) {
            changed.push(Fact {
                source: source.clone(),
                resource: theirs.to_owned(),
                saying: Saying {
                    kind: *kind,
                    subject: subject.clone(),
                    team: String::new(),
                },
                at: scope.now(),
                stands: true,
            });
        }
    }
    for fact in &changed {
        tx.put_fact(scope.tenant(), fact, scope.now())?;
    }
    Ok(Changed(changed))
}

impl Changed {
    /// Whether something that stood in the way does not any more.
    fn lifts(&self) -> bool {
        self.0.iter().any(|fact| !fact.stands)
    }

    /// Tasks that nothing of this stands in the way of any more.
    fn freed(&self) -> Vec<TaskId> {
        let stands = |subject: &str| {
            let same = |fact: &&Fact| fact.stands && fact.saying.subject == subject;
            self.0.iter().any(|fact| same(&fact))
        };
        self.0
            .iter()
            .filter(|fact| !fact.stands && !stands(&fact.saying.subject))
            .filter_map(|fact| task_of(&fact.saying.subject))
            .collect()
    }

    /// Brings the grants of those to where they belong.
    fn settle(&self, tx: &mut dyn Tx, scope: &Scope) -> Result<Cuts, AppError> {
        let scope = knowing(scope, &self.0);
        let mut cuts = Cuts::none();
        for task in &self.freed() {
            cuts.extend(settle_one(tx, &scope, task)?.1);
        }
        Ok(cuts)
    }
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

fn document_of(ours: &str) -> Option<DocumentId> {
    ours.strip_prefix("DocumentReference/")
        .and_then(|id| DocumentId::parse(id).ok())
}

fn target_of(ours: &str) -> Option<Target> {
    task_of(ours)
        .map(Target::Task)
        .or_else(|| document_of(ours).map(Target::Document))
}
