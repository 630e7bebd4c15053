//! Applying what sources told: right after it was taken in, and again by a job until it is settled. Each notice is a use
//! case of its own, by the placer that the source acts as; what is refused is laid aside and keeps nothing else waiting.

mod ask;
mod clinical;
mod document;
mod references;
mod steps;
mod task;

use std::sync::Arc;
use std::time::Duration;

use handoff_domain::audit::{About, Agent, Context, Event, Outcome};
use handoff_domain::ids::{NoticeId, SourceId, TenantId};
use handoff_domain::inbox::{Age, Matter, Mirror, Notice, NoticeState, SourceVersion, split_reference};
use handoff_domain::ports::{Kind, NoticeSearch, Tx};
use handoff_domain::reason::Reason;
use handoff_domain::source::{FeedType, Source, Trust};
use handoff_domain::time::{Span, Timestamp};
use handoff_fhir_model::{ParseOptions, Resource, parse};
use serde_json::Value;

pub(super) use ask::ask;
pub use references::shorten;

use super::outcome::operation_outcome;
use super::sources::caller_of;
use super::{App, AppError, Caller, Class, Cuts, Scope, admission};

/// How many notices are looked for at once.
const BATCH: u32 = 200;
/// How long one process works on the backlog before another may.
const TURN: Span = Span::seconds(10);
/// How often something that fails behind us is tried before somebody has to look.
const MOST_TRIES: u32 = 30;
/// How many notices that were refused are tried again because another about the same resource was applied.
const TRIED_AGAIN: u32 = 20;
/// Among how many that were laid aside an older request to ask for everything is looked for.
const ASKED_AGAIN: u32 = 50;
/// How long who told waits for it to be applied. It is durable, whatever comes of that.
const PATIENCE: Duration = Duration::from_secs(2);

impl App {
    /// Applies notices that were just taken in, in order, as far as that goes quickly.
    pub async fn apply_soon(&self, tenant: &TenantId, ids: Vec<NoticeId>) {
        let (app, tenant) = (self.clone(), tenant.clone());
        let work = self.to_the_end(async move {
            for id in ids {
                if let Err(error) = apply_one(&app, &tenant, &id).await {
                    tracing::error!(notice = %id, cause = ?error.cause, reason = %error.reason, "a notice could not be applied yet");
                }
            }
            Ok(())
        });
        // What takes longer goes on by itself.
        let _later = tokio::time::timeout(PATIENCE, work).await;
    }
}

/// Applies what waits. One process at a time works on the backlog.
pub async fn run_once(app: &App) -> Result<(), AppError> {
    let now = app.clock.now();
    let waiting = app
        .read(move |read| Ok(read.waiting_notices(now, BATCH)?))
        .await?;
    if waiting.is_empty() || !app.store.lease("inbox", &app.settings.process, TURN).await? {
        return Ok(());
    }
    for (tenant, id) in waiting {
        // One that fails must not keep the others waiting; it is come back to.
        if let Err(error) = apply_one(app, &tenant, &id).await {
            tracing::error!(notice = %id, cause = ?error.cause, reason = %error.reason, "a notice could not be applied yet");
        }
    }
    Ok(())
}

/// A notice on its way, with what it is applied by.
#[derive(Clone)]
pub(super) struct Applying {
    /// Who told.
    pub(super) source: Arc<Source>,
    /// The notice as it was when it was begun.
    pub(super) notice: Notice,
    /// The placer that the source acts as, under the correlation of its request.
    pub(super) caller: Caller,
    /// Whether it is applied on the way to a later one, which asked for all that is between.
    is_step: bool,
}

impl Applying {
    fn reference(&self) -> &str {
        self.notice.matter.reference().unwrap_or_default()
    }

    fn tenant(&self) -> &TenantId {
        self.caller.tenant()
    }
}

/// Applies one notice, or says what became of it.
pub(super) async fn apply_one(app: &App, tenant: &TenantId, id: &NoticeId) -> Result<(), AppError> {
    apply(app, tenant, id, false).await
}

/// Applies a notice on the way to a later one of the same resource.
async fn apply_step(app: &App, tenant: &TenantId, id: &NoticeId) -> Result<(), AppError> {
    apply(app, tenant, id, true).await
}

async fn apply(app: &App, tenant: &TenantId, id: &NoticeId, is_step: bool) -> Result<(), AppError> {
    let (of, which) = (tenant.clone(), id.clone());
    let found = app
        .read(move |read| {
            let Some(notice) = read.notice(&of, &which)? else {
                return Ok(None);
            };
            let source = read.source(&of, &notice.source)?;
            Ok(Some((notice, source)))
        })
        .await?;
    let Some((notice, source)) = found else {
        return Ok(());
    };
    if !matches!(notice.state, NoticeState::Waiting { .. }) {
        return Ok(());
    }
    let context = Context {
        tenant: tenant.clone(),
        correlation: notice.correlation.clone(),
        now: app.clock.now(),
        agent: Arc::new(Agent::default()),
    };
    let Some(source) = source else {
        let caller = super::finish::server_itself(app, tenant)?;
        let gone = AppError::new(
            Class::NotFound,
            Reason::NotFound,
            "the source that told of it is not configured any more",
        );
        return lay_aside(app, &caller, &notice, &gone).await;
    };
    let applying = Applying {
        caller: caller_of(&source, context),
        source: Arc::new(source),
        notice,
        is_step,
    };
    match attempt(app, &applying).await {
        Ok(()) => Ok(()),
        Err(error) if is_transient(&error) && applying.notice.tries < MOST_TRIES => {
            tracing::warn!(
                source = %applying.source.id,
                notice = %applying.notice.id,
                correlation = %applying.notice.correlation,
                tries = applying.notice.tries,
                "what a source told is put off",
            );
            put_off(app, &applying.caller, &applying.notice).await?;
            Err(error)
        }
        Err(error) => lay_aside(app, &applying.caller, &applying.notice, &error).await,
    }
}

/// Whether it may go better another time, without anybody doing anything about it.
fn is_transient(error: &AppError) -> bool {
    let behind_us = matches!(
        error.class,
        Class::Unavailable | Class::NoRoom | Class::Internal | Class::RateLimited { .. }
    );
    behind_us || error.store.is_some()
}

async fn attempt(app: &App, applying: &Applying) -> Result<(), AppError> {
    let standing = app.standing.of(applying.tenant());
    if let Some(reason) = standing.on_caller(&applying.caller.principal) {
        return Err(AppError::forbidden(reason));
    }
    let Matter::Resource(reference) = &applying.notice.matter else {
        return ask::changes(app, applying).await;
    };
    let kind = split_reference(reference)
        .and_then(|(kind, _)| FeedType::parse(kind))
        .filter(|kind| applying.source.settings.types.contains(kind))
        .ok_or_else(|| {
            AppError::new(
                Class::Unprocessable,
                Reason::NotSupported,
                "this source may not speak of resources of that type, or they mean nothing here",
            )
        })?;
    let (resource, version) = resource_of(app, applying, kind, reference).await?;
    match kind {
        FeedType::Task => steps::apply(app, applying, resource, version).await,
        FeedType::DocumentReference => document::apply(app, applying, resource, version).await,
        FeedType::Patient
        | FeedType::Consent
        | FeedType::Practitioner
        | FeedType::PractitionerRole
        | FeedType::CareTeam
        | FeedType::Encounter => clinical::apply(app, applying, &resource, version).await,
    }
}

fn unreadable() -> AppError {
    AppError::new(
        Class::Unprocessable,
        Reason::NotSupported,
        "it has to be read from the source, and this source can't be asked: configure its FHIR base",
    )
}

/// The resource that a notice is about, as it was sent or as it stands at the source, with its version.
async fn resource_of(
    app: &App,
    applying: &Applying,
    kind: FeedType,
    reference: &str,
) -> Result<(Resource, SourceVersion), AppError> {
    let notice = &applying.notice;
    if notice.body.is_empty() || applying.source.settings.trust == Trust::ReRead {
        let body = ask::read(app, &applying.source, reference).await?;
        let mut resource = checked(app, &body, kind, reference)?;
        shorten(&applying.source, &mut resource);
        let version = version_of(resource.value()).not_ahead(app.clock.now());
        return Ok((resource, version));
    }
    let resource = checked(app, &notice.body, kind, reference)?;
    Ok((resource, notice.version.clone()))
}

/// The resource that a source gives for `reference`.
fn checked(app: &App, body: &[u8], kind: FeedType, reference: &str) -> Result<Resource, AppError> {
    let resource = parse(body, &ParseOptions::expecting(kind.as_str())).map_err(AppError::invalid)?;
    admission::check_size(&resource, body.len(), app.settings.max_resource)?;
    // What is stored here is held to what everybody's is: no content but where it is governed, no keys to storage.
    if matches!(kind, FeedType::Task | FeedType::DocumentReference) {
        admission::check(&resource)?;
    }
    let id = split_reference(reference).map(|(_, id)| id);
    if resource.id() == id {
        Ok(resource)
    } else {
        Err(AppError::rule(
            &format!("{}.id", kind.as_str()),
            "the resource is not the one that the notice is about",
        ))
    }
}

/// Which version a resource says that it is.
pub fn version_of(resource: &Value) -> SourceVersion {
    let text = |name| resource.get("meta")?.get(name)?.as_str();
    SourceVersion {
        updated: text("lastUpdated").and_then(Timestamp::parse_instant),
        version: text("versionId").map(str::to_owned),
    }
}

/// What was found of a notice under lock.
enum Held {
    /// Somebody else was quicker.
    Settled,
    /// A newer version was applied, or this one.
    Old(Notice),
    /// To be applied, with what is known of the resource.
    Open(Notice, Option<Mirror>),
}

/// Locks a notice and what is known of its resource. These locks come before those of Tasks, and nobody else takes them.
fn hold(tx: &mut dyn Tx, applying: &Applying, version: &SourceVersion) -> Result<Held, AppError> {
    let tenant = applying.tenant();
    let waiting = |notice: &Notice| matches!(notice.state, NoticeState::Waiting { .. });
    let Some(mut notice) = tx.lock_notice(tenant, &applying.notice.id)?.filter(waiting) else {
        return Ok(Held::Settled);
    };
    notice.version = version.clone();
    let reference = notice.matter.reference().unwrap_or_default().to_owned();
    let mirror = tx.lock_mirror(tenant, &applying.source.id, &reference)?;
    Ok(match mirror {
        Some(mirror) if !mirror.takes(&notice) => Held::Old(notice),
        mirror => Held::Open(notice, mirror),
    })
}

/// Whether what is stored of a resource says the same already. A version of it would tell nobody anything, and two servers that
/// mirror each other would go on for ever.
fn is_as_stored(
    tx: &mut dyn Tx,
    scope: &Scope,
    kind: Kind,
    id: &str,
    resource: &Resource,
) -> Result<Option<i64>, AppError> {
    let Some(stored) = tx
        .current(scope.tenant(), kind, id)?
        .filter(|version| !version.body.is_empty())
    else {
        return Ok(None);
    };
    let mine = super::json_edit::open(&stored.body)?;
    let bare = |resource: &Resource| {
        let mut value = resource.value().clone();
        if let Some(object) = value.as_object_mut() {
            object.shift_remove("id");
            if let Some(meta) = object.get_mut("meta").and_then(Value::as_object_mut) {
                for own in ["versionId", "lastUpdated", "source"] {
                    meta.shift_remove(own);
                }
            }
            if object
                .get("meta")
                .and_then(Value::as_object)
                .is_some_and(serde_json::Map::is_empty)
            {
                object.shift_remove("meta");
            }
        }
        value
    };
    Ok((bare(&mine) == bare(resource)).then_some(stored.version))
}

/// What is known of the resource once the notice is applied.
fn mirrored(notice: &Notice, before: Option<Mirror>, ours: Option<String>, awaits: Vec<String>) -> Mirror {
    let revision = before.as_ref().map_or(0, |mirror| mirror.revision);
    Mirror {
        source: notice.source.clone(),
        theirs: notice.matter.reference().unwrap_or_default().to_owned(),
        ours: ours.or(before.and_then(|mirror| mirror.ours)),
        version: notice.version.clone(),
        notice: notice.id.clone(),
        place: notice.place,
        awaits,
        revision: revision.saturating_add(1),
    }
}

/// Writes down that a notice was applied, and has those of the same resource that were refused tried again: what stood
/// in their way may be gone.
fn settle(
    tx: &mut dyn Tx,
    scope: &Scope,
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
    for refused in tx.notices(&tenant, &search)? {
        if let Some(refused) = tx.lock_notice(&tenant, &refused.id)? {
            tx.update_notice(&tenant, &refused.become_state(NoticeState::Waiting { due: now }))?;
        }
    }
    tx.record(&tenant, row);
    Ok(())
}

/// Writes down that a notice is old.
fn settle_old(tx: &mut dyn Tx, scope: &Scope, notice: Notice) -> Result<(), AppError> {
    let row = told(scope, &notice, Outcome::Success, Reason::Permitted).detail("old", "true");
    let state = NoticeState::Superseded { at: scope.now() };
    tx.update_notice(scope.tenant(), &notice.become_state(state))?;
    tx.record(scope.tenant(), row);
    Ok(())
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
async fn put_off(app: &App, caller: &Caller, notice: &Notice) -> Result<(), AppError> {
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

/// Lays a notice aside with the OperationOutcome that says why.
async fn lay_aside(app: &App, caller: &Caller, notice: &Notice, error: &AppError) -> Result<(), AppError> {
    let (scope, id, reason) = (app.scope(caller), notice.id.clone(), error.reason);
    let outcome = operation_outcome(error, notice.correlation.as_str());
    let outcome = String::from_utf8(outcome).unwrap_or_default();
    app.write(caller.tenant(), move |tx| {
        let waiting = |notice: &Notice| matches!(notice.state, NoticeState::Waiting { .. });
        if let Some(mut notice) = tx.lock_notice(scope.tenant(), &id)?.filter(waiting) {
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
        }
        Ok(((), Cuts::none()))
    })
    .await
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
            && let Some(old) = tx.lock_notice(scope.tenant(), &old.id)?
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
    // Two that are refused at the same time must see each other.
    tx.lock_source(tenant, &notice.source)?;
    let search = NoticeSearch {
        state: "quarantined",
        source: Some(notice.source.clone()),
        about: Some(reference.to_owned()),
        limit: TRIED_AGAIN,
        ..NoticeSearch::default()
    };
    let aside = tx.notices(tenant, &search)?;
    Ok(aside
        .iter()
        .any(|known| known.version.against(&notice.version) == Age::Same))
}
