//! Applying what sources told: right after it was taken in, and again by a job until it is settled. Each notice is a use
//! case of its own, by the placer that the source acts as; what is refused is laid aside and keeps nothing else waiting.

mod ask;
mod backlog;
mod clinical;
mod document;
mod gone;
mod outcome;
mod references;
mod restraint;
mod steps;
mod task;

use std::sync::{Arc, Mutex, OnceLock};

use handoff_domain::audit::{Agent, Context};
use handoff_domain::ids::{NoticeId, TenantId};
use handoff_domain::inbox::{Matter, Mirror, Notice, NoticeState, SourceVersion, split_reference};
use handoff_domain::ports::{Kind, Tx};
use handoff_domain::reason::Reason;
use handoff_domain::source::{ContentRule, FeedType, Source, Trust};
use handoff_domain::time::Timestamp;
use handoff_fhir_model::{ParseOptions, Resource, parse};
use serde_json::Value;

pub(super) use ask::ask;
use backlog::lock;
pub use backlog::{InHand, run_once};
use outcome::{lay_aside, put_off, settle, settle_old, told};
pub use references::{name_origin, shorten};
pub(super) use restraint::relieve;
use restraint::{Doubt, restrain};

use super::sources::caller_of;
use super::{App, AppError, Caller, Class, Scope, admission};

/// How often something that fails behind us is tried before somebody has to look.
const MOST_TRIES: u32 = 30;
/// How many notices that were refused are tried again because another about the same resource was applied.
const TRIED_AGAIN: u32 = 20;

/// How a notice is applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pace {
    /// At once: what takes many questions to its source is left to who is patient.
    Soon,
    /// By whoever works off its source's backlog.
    Patient,
    /// On the way to a later one of the same resource, which asked for all that is between.
    Step,
}

/// A notice on its way, with what it is applied by.
#[derive(Clone)]
pub(super) struct Applying {
    /// Who told.
    pub(super) source: Arc<Source>,
    /// What.
    pub(super) notice: Notice,
    /// The placer that the source acts as, under the correlation of its request.
    pub(super) caller: Caller,
    is_step: bool,
    is_patient: bool,
    /// What was read of the resource, where that was not what was sent, with its version.
    read: Arc<OnceLock<(Vec<u8>, SourceVersion)>>,
    /// How often the resource had been mirrored when the notice was last held against that; 0 where it was not.
    seen: Arc<Mutex<Option<i64>>>,
    /// Notices that may be applied now that this one was.
    freed: Arc<Mutex<Vec<NoticeId>>>,
}

impl Applying {
    fn reference(&self) -> &str {
        self.notice.matter.reference().unwrap_or_default()
    }

    fn tenant(&self) -> &TenantId {
        self.caller.tenant()
    }

    /// The type of what it is about.
    fn kind(&self) -> Option<FeedType> {
        split_reference(self.reference()).and_then(|(kind, _)| FeedType::parse(kind))
    }

    /// Whether its source has to be asked before anything can be applied.
    fn asks_first(&self) -> bool {
        let settings = &self.source.settings;
        let is_empty = self.notice.body.is_empty() && !self.notice.gone;
        let fetches =
            settings.content == ContentRule::Fetch && self.kind() == Some(FeedType::DocumentReference);
        is_empty || settings.trust == Trust::ReRead || fetches
    }

    /// The notice in the version that was read.
    fn notice_as_read(&self) -> Notice {
        let mut notice = self.notice.clone();
        if let Some((_, version)) = self.read.get() {
            notice.version = version.clone();
        }
        notice
    }

    /// The resource as it was read, or else sent where that is believed.
    fn body(&self) -> &[u8] {
        match self.read.get() {
            Some((body, _)) => body,
            None if self.source.settings.trust == Trust::AsSent => &self.notice.body,
            None => &[],
        }
    }

    /// The same, valid or not.
    fn as_read(&self) -> Option<Value> {
        serde_json::from_slice(self.body()).ok()
    }

    /// Whether the resource was deleted, as it was read, or else told where that is believed.
    fn is_gone(&self) -> bool {
        let is_so = match self.read.get() {
            Some((body, _)) => body.is_empty(),
            None => self.source.settings.trust == Trust::AsSent,
        };
        self.notice.gone && is_so
    }
}

/// Applies one notice, or says what became of it; and then those that it was in the way of.
pub(super) async fn apply_one(
    app: &App,
    tenant: &TenantId,
    id: &NoticeId,
    pace: Pace,
) -> Result<(), AppError> {
    let mut freed = apply(app, tenant, id, pace).await?;
    // Each of them frees fewer; what is left waits for its source's turn.
    for _ in 0..TRIED_AGAIN {
        let Some(next) = freed.pop() else { break };
        freed.extend(apply(app, tenant, &next, pace).await?);
    }
    Ok(())
}

/// A notice that waits, with what it is applied by. Of one whose source is not configured any more it is said so at once.
async fn prepare(
    app: &App,
    tenant: &TenantId,
    id: &NoticeId,
    pace: Pace,
) -> Result<Option<Applying>, AppError> {
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
    let Some((notice, source)) =
        found.filter(|(notice, _)| matches!(notice.state, NoticeState::Waiting { .. }))
    else {
        return Ok(None);
    };
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
        lay_aside(app, &caller, &notice, None, &gone).await?;
        return Ok(None);
    };
    Ok(Some(Applying {
        caller: caller_of(&source, context),
        source: Arc::new(source),
        notice,
        is_step: pace == Pace::Step,
        is_patient: pace == Pace::Patient,
        read: Arc::default(),
        seen: Arc::default(),
        freed: Arc::default(),
    }))
}

/// Applies one notice; answers those that may be applied now.
async fn apply(app: &App, tenant: &TenantId, id: &NoticeId, pace: Pace) -> Result<Vec<NoticeId>, AppError> {
    let Some(applying) = prepare(app, tenant, id, pace).await? else {
        return Ok(Vec::new());
    };
    let in_hand = app.in_hand.notice(&applying);
    // A step is applied before what it leads to whoever has it in hand: one of the two transactions comes first.
    if in_hand.is_none() && !applying.is_step {
        return Ok(Vec::new());
    }
    match attempt(app, &applying).await {
        Ok(Done::Settled) => {}
        Ok(Done::Later) => restrain(app, &applying, Doubt::Open).await?,
        Err(error) if is_transient(&error) && applying.notice.tries < MOST_TRIES => {
            tracing::warn!(
                source = %applying.source.id,
                notice = %applying.notice.id,
                correlation_id = %applying.notice.correlation,
                tries = applying.notice.tries,
                "what a source told is put off",
            );
            restrain(app, &applying, Doubt::Open).await?;
            put_off(app, &applying.caller, &applying.notice).await?;
            return Err(error);
        }
        Err(error) => {
            restrain(app, &applying, Doubt::Refused).await?;
            let seen = *lock(&applying.seen);
            if !lay_aside(app, &applying.caller, &applying.notice, seen, &error).await? {
                return Ok(vec![id.clone()]);
            }
        }
    }
    Ok(std::mem::take(&mut *lock(&applying.freed)))
}

/// What became of an attempt.
enum Done {
    /// What was to be done is.
    Settled,
    /// Its source has to be asked at length.
    Later,
}

/// Whether it may go better another time, without anybody doing anything about it.
fn is_transient(error: &AppError) -> bool {
    let behind_us = matches!(
        error.class,
        Class::Unavailable | Class::NoRoom | Class::Internal | Class::RateLimited { .. }
    );
    behind_us || error.store.is_some()
}

async fn attempt(app: &App, applying: &Applying) -> Result<Done, AppError> {
    let standing = app.standing.of(applying.tenant());
    if let Some(reason) = standing.on_caller(&applying.caller.principal) {
        return Err(AppError::forbidden(reason));
    }
    let Matter::Resource(reference) = &applying.notice.matter else {
        if !applying.is_patient {
            return Ok(Done::Later);
        }
        ask::changes(app, applying).await?;
        return Ok(Done::Settled);
    };
    let kind = applying
        .kind()
        .filter(|kind| applying.source.settings.types.contains(kind))
        .ok_or_else(|| {
            AppError::new(
                Class::Unprocessable,
                Reason::NotSupported,
                "this source may not speak of resources of that type, or they mean nothing here",
            )
        })?;
    if applying.notice.gone && (applying.is_gone() || is_gone_there(app, applying, reference).await?) {
        gone::apply(app, applying, kind).await?;
        return Ok(Done::Settled);
    }
    let (resource, version) = resource_of(app, applying, kind, reference).await?;
    match kind {
        FeedType::Task => return steps::apply(app, applying, resource, version).await,
        FeedType::DocumentReference => document::apply(app, applying, resource, version).await?,
        FeedType::Patient
        | FeedType::Consent
        | FeedType::Practitioner
        | FeedType::PractitionerRole
        | FeedType::CareTeam
        | FeedType::Encounter => clinical::apply(app, applying, &resource, version).await?,
    }
    Ok(Done::Settled)
}

fn unreadable() -> AppError {
    AppError::new(
        Class::Unprocessable,
        Reason::NotSupported,
        "it has to be read from the source, and this source can't be asked: configure its FHIR base (`handoff sources add … \
         --replace --base …`), then try again",
    )
}

/// Whether a source that is believed nothing by itself has no such resource, as it told.
async fn is_gone_there(app: &App, applying: &Applying, reference: &str) -> Result<bool, AppError> {
    match ask::read(app, &applying.source, reference).await {
        Ok(_) => Ok(false),
        Err(error) if error.class == Class::NotFound => {
            let _first = applying.read.set((Vec::new(), applying.notice.version.clone()));
            Ok(true)
        }
        Err(error) => Err(error),
    }
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
        let body = ask::read(app, &applying.source, reference).await;
        if body.as_ref().is_err_and(|error| error.class == Class::NotFound) {
            // Whatever was sent, it is not so any more.
            let _first = applying.read.set((Vec::new(), notice.version.clone()));
        }
        let body = body?;
        let version = |value: &Value| version_of(value).not_ahead(app.clock.now());
        if let Ok(value) = serde_json::from_slice(&body) {
            let _first = applying.read.set((body.clone(), version(&value)));
        }
        let mut resource = checked(app, &body, kind, reference)?;
        shorten(&applying.source, &mut resource);
        name_origin(applying.source.settings.base.as_deref(), &mut resource);
        let version = version(resource.value());
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
    *lock(&applying.seen) = Some(revision_of(mirror.as_ref()));
    Ok(match mirror {
        Some(mirror) if !mirror.takes(&notice) => Held::Old(notice),
        mirror => Held::Open(notice, mirror),
    })
}

/// How what is stored of a resource stands to a version of its source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Here {
    /// It says the same, in this version of ours. Another would tell nobody anything, and two servers that mirror each other
    /// would go on for ever.
    Same(i64),
    /// It says something else, and was written after that version.
    Newer,
    /// It says something else.
    Differs,
}

fn as_it_is(
    tx: &mut dyn Tx,
    scope: &Scope,
    kind: Kind,
    id: &str,
    resource: &Resource,
    version: &SourceVersion,
) -> Result<Here, AppError> {
    let Some(stored) = tx
        .current(scope.tenant(), kind, id)?
        .filter(|version| !version.body.is_empty())
    else {
        return Ok(Here::Differs);
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
    Ok(if bare(&mine) == bare(resource) {
        Here::Same(stored.version)
    } else if version
        .updated
        .is_some_and(|at| at.0 / 1000 < stored.last_updated.0 / 1000)
    {
        // Resources tell milliseconds.
        Here::Newer
    } else {
        Here::Differs
    })
}

/// What a resource is here: as it was mirrored, or one of the placer's own that the source speaks of by our id.
fn mirrored_as(
    tx: &mut dyn Tx,
    scope: &Scope,
    kind: FeedType,
    mirror: Option<&Mirror>,
    theirs: &str,
) -> Result<Option<String>, AppError> {
    if let Some(ours) = mirror.and_then(|mirror| mirror.ours.clone()) {
        return Ok(Some(ours));
    }
    let id = split_reference(theirs).map(|(_, id)| id);
    match kind {
        FeedType::Task => task::adopted(tx, scope, id),
        FeedType::DocumentReference => document::adopted(tx, scope, id),
        _ => Ok(None),
    }
}

/// How often a resource was mirrored.
fn revision_of(mirror: Option<&Mirror>) -> i64 {
    mirror.map_or(0, |mirror| mirror.revision)
}

/// What is known of the resource once the notice is applied.
fn mirrored(notice: &Notice, before: Option<Mirror>, ours: Option<String>, awaits: Vec<String>) -> Mirror {
    let revision = revision_of(before.as_ref());
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
