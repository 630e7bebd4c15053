//! The gate, whatever the route in: by a Binary's id, by a link, or on with an open redemption. One transaction
//! reads Task, document and grant under lock, decides, takes the use and writes the audit row; only then may a
//! byte leave. Every refusal is recorded with its reason.

use std::sync::Arc;

use handoff_domain::access::Role;
use handoff_domain::audit::{About, AuditRow, Event, Outcome};
use handoff_domain::break_glass::BreakGlassReason;
use handoff_domain::document::StoredBinary;
use handoff_domain::grant::Grant;
use handoff_domain::ids::{BinaryId, RedemptionId, TaskId};
use handoff_domain::ports::Tx;
use handoff_domain::reason::Reason;
use handoff_domain::redemption::{Redemption, ResumeError};
use handoff_domain::scopes::Interaction;
use handoff_domain::task::Task;

use super::caps::Reach;
use super::finish::Ending;
use super::redemption_scene::Scene;
use super::streams::{Announced, Streams};
use super::{App, AppError, Caller, Class, Cuts, Scope, break_glass};

/// A part of the content that a client asks to go on with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Continue {
    /// First byte.
    pub from: u64,
    /// One past the last byte; the end of the content where `None`.
    pub until: Option<u64>,
}

/// Leave to send bytes, as a transaction gives it; worth nothing before its commit.
pub struct Leave {
    /// The use.
    pub redemption: Redemption,
    /// The bytes.
    pub binary: StoredBinary,
    /// The Task that justifies it.
    pub task: TaskId,
    /// What its audit rows are about.
    pub about: About,
    /// First byte to send.
    pub from: u64,
    /// One past the last byte to send.
    pub until: u64,
    /// Whether a range was asked for and is given.
    pub ranged: bool,
    /// The running stream.
    pub announced: Announced,
}

/// Committed leave to send bytes. However it is dropped, the end of its stream is recorded.
pub struct Ticket {
    /// The use.
    pub redemption: RedemptionId,
    /// The bytes.
    pub binary: StoredBinary,
    /// First byte to send.
    pub from: u64,
    /// One past the last byte to send.
    pub until: u64,
    /// Whether a range was asked for and is given.
    pub ranged: bool,
    /// Its end to come.
    pub ending: Ending,
}

impl Ticket {
    async fn new(app: &App, caller: &Caller, leave: Leave) -> Self {
        let entry = leave.announced.entry();
        entry.allow(leave.redemption.streams);
        // What was blocked after the gate asked finds the stream, or is found here: if it stands still. What this process has in
        // sight may be of before it was lifted.
        if entry.is_blocked(&app.standing.of(caller.tenant())) {
            app.see_change().await;
            entry.cut_if_blocked(Some(&app.standing.of(caller.tenant())));
        }
        Self {
            redemption: leave.redemption.id.clone(),
            binary: leave.binary.clone(),
            from: leave.from,
            until: leave.until,
            ranged: leave.ranged,
            ending: Ending::new(app, caller, leave),
        }
    }
}

/// What a transaction decided on a fetch.
pub enum Decided {
    /// Bytes may be sent once it is committed.
    Content(Box<Leave>),
    /// A HEAD's answer.
    Preview(Box<Preview>),
    /// The redemption's earlier stream runs in another process, which is told to end it. With what is reported where it
    /// does not in time.
    RunsElsewhere(Box<AuditRow>),
}

/// What a HEAD is told: what a GET would get, without taking a use.
#[derive(Debug, Clone)]
pub struct Preview {
    /// The bytes.
    pub binary: StoredBinary,
}

/// The outcome of a fetch.
pub enum Fetched {
    /// Bytes may be sent.
    Content(Box<Ticket>),
    /// A HEAD's answer.
    Preview(Box<Preview>),
}

/// What is asked of the gate by a Binary's id.
#[derive(Debug, Clone)]
pub struct Fetch {
    /// The Binary.
    pub binary: BinaryId,
    /// The Task that picks the grant, where the caller names one.
    pub task: Option<TaskId>,
    /// Going on with an interrupted redemption, where the client asks and its validator matches.
    pub resume: Option<(String, Continue)>,
    /// Whether only the decision is asked for.
    pub head: bool,
    /// The longest content that the asked for form can carry.
    pub at_most: Option<u64>,
    /// Why the caller breaks the glass, where that is what it does.
    pub break_glass: Option<BreakGlassReason>,
}

/// How often a client that came back waits for its own old stream to end.
const BUSY_RETRIES: u32 = 20;
const BUSY_PAUSE: std::time::Duration = std::time::Duration::from_millis(100);

impl App {
    /// Asks the gate for a Binary's content.
    pub async fn fetch_binary(&self, caller: &Caller, fetch: Fetch) -> Result<Fetched, AppError> {
        let id = self.fresh_redemption()?;
        let fresh = Some(id.clone());
        if let Some(reason) = fetch.break_glass.clone() {
            let gate = move |tx: &mut dyn Tx, scope: &Scope, streams: &Arc<Streams>| {
                break_glass::fetch(tx, scope, streams, &id, &fetch, &reason)
            };
            return self.decide(caller, fresh, gate).await;
        }
        let reach = self.demand_content(caller).await?;
        self.decide(caller, fresh, move |tx, scope, streams| {
            by_binary(tx, scope, &reach, streams, &id, &fetch)
        })
        .await
    }

    /// Content of an open redemption: its first stream, or the rest after an interruption.
    pub async fn redemption_content(
        &self,
        caller: &Caller,
        id: RedemptionId,
        resume: Option<(String, Continue)>,
        head: bool,
    ) -> Result<Fetched, AppError> {
        let reach = self.demand_content(caller).await?;
        self.decide(caller, None, move |tx, scope, streams| {
            by_redemption(tx, scope, &reach, streams, &id, resume.as_ref(), head)
        })
        .await
    }

    /// How far the scopes reach content, by whichever way it is asked for.
    pub(super) async fn demand_content(&self, caller: &Caller) -> Result<Reach, AppError> {
        self.demand(&self.scope(caller), "Binary", Interaction::Read)
            .await
    }

    pub(super) fn fresh_redemption(&self) -> Result<RedemptionId, AppError> {
        RedemptionId::parse(self.entropy.ordered_id(self.clock.now()))
            .map_err(|e| AppError::bad(e.to_string()))
    }

    /// Runs the gate to its end, even where the caller goes away meanwhile: a use that was taken always has a
    /// ticket, and a ticket's end is always recorded. Where the redemption's own earlier stream still runs, here or in
    /// another process, that one is ended and the gate asked again. Where it is not known whether the redemption that was to
    /// be made (`fresh`) was, it is remembered that nothing of it was sent.
    async fn decide(
        &self,
        caller: &Caller,
        fresh: Option<RedemptionId>,
        gate: impl Fn(&mut dyn Tx, &Scope, &Arc<Streams>) -> Result<Decided, AppError> + Send + Sync + 'static,
    ) -> Result<Fetched, AppError> {
        let (app, caller, gate) = (self.clone(), caller.clone(), Arc::new(gate));
        self.to_the_end(async move {
            let mut refused = None;
            for _ in 0..=BUSY_RETRIES {
                let (scope, streams, gate) =
                    (app.scope(&caller), Arc::clone(&app.streams), Arc::clone(&gate));
                let decided = app
                    .write(caller.tenant(), move |tx| {
                        gate(tx, &scope, &streams).map(|d| (d, Cuts::none()))
                    })
                    .await;
                match decided {
                    Ok(Decided::Preview(preview)) => return Ok(Fetched::Preview(preview)),
                    Ok(Decided::Content(leave)) => {
                        return Ok(Fetched::Content(Box::new(
                            Ticket::new(&app, &caller, *leave).await,
                        )));
                    }
                    Ok(Decided::RunsElsewhere(row)) => refused = Some(*row),
                    Err(AppError { busy: Some(busy), .. }) => {
                        app.streams.supersede(&busy.redemption);
                        refused = Some(busy.row);
                    }
                    Err(error) => {
                        if error.class == Class::Unavailable
                            && let Some(fresh) = fresh
                        {
                            app.streams.doubt(fresh);
                        }
                        return Err(error);
                    }
                }
                tokio::time::sleep(BUSY_PAUSE).await;
            }
            let error = AppError::new(
                Class::Conflict,
                ResumeError::Busy.reason(),
                "another download of this redemption is running; wait for it to end",
            );
            Err(match refused {
                Some(row) => app.record_denial(caller.tenant(), error.recorded(row)).await,
                None => error,
            })
        })
        .await
    }
}

pub(super) fn by_binary(
    tx: &mut dyn Tx,
    scope: &Scope,
    reach: &Reach,
    streams: &Arc<Streams>,
    id: &RedemptionId,
    fetch: &Fetch,
) -> Result<Decided, AppError> {
    let binary = tx
        .binary(scope.tenant(), &fetch.binary)?
        .ok_or_else(|| unknown(scope, &fetch.binary))?;
    if !reach.covers_content_of(tx, scope, binary.document.as_ref())? {
        return Err(unknown(scope, &fetch.binary));
    }
    let Some(task) = pick_task(tx, scope, &binary, fetch.task.as_ref())? else {
        return Err(without_relation(scope, &binary, fetch.task.as_ref()));
    };
    let scene = Scene::lock(tx, scope, &task.id, binary)?;
    // Once more, now that nobody can change the document.
    if !reach.covers_content_of(tx, scope, scene.document.as_ref().map(|d| &d.id))? {
        return Err(unknown(scope, &fetch.binary));
    }
    if !fetch.head
        && let Some((etag, wanted)) = &fetch.resume
        && *etag == scene.etag()
        && let Some(open) = scene.open_redemption(tx, scope)?
    {
        return scene.resume(tx, scope, streams, open, Some(*wanted));
    }
    release(scene, tx, scope, streams, id, fetch)
}

/// Asks the gate, takes the use and starts the stream; or tells what a HEAD asks.
pub(super) fn release(
    scene: Scene,
    tx: &mut dyn Tx,
    scope: &Scope,
    streams: &Arc<Streams>,
    id: &RedemptionId,
    fetch: &Fetch,
) -> Result<Decided, AppError> {
    scene.pass(scope)?;
    if let Some(limit) = fetch.at_most
        && scene.binary.size > limit
    {
        return Err(scene.not_sent(
            scope,
            Class::NotAcceptable,
            Reason::TooLarge,
            format!("content over {limit} bytes is only given raw: ask with `Accept: */*`"),
        ));
    }
    if fetch.head {
        return Ok(Decided::Preview(Box::new(Preview { binary: scene.binary })));
    }
    let redemption = scene.take_use(tx, scope, id)?;
    scene.start(tx, scope, streams, redemption, None)
}

fn by_redemption(
    tx: &mut dyn Tx,
    scope: &Scope,
    reach: &Reach,
    streams: &Arc<Streams>,
    id: &RedemptionId,
    resume: Option<&(String, Continue)>,
    head: bool,
) -> Result<Decided, AppError> {
    let unknown = || {
        let row = scope.row(Event::RedemptionDenied, Outcome::Denied, Reason::NotFound);
        let about = About {
            redemption: Some(id.to_string()),
            ..About::default()
        };
        AppError::not_found().recorded(row.about(about))
    };
    let redemption = tx.redemption(scope.tenant(), id)?.ok_or_else(unknown)?;
    if redemption.grantee != scope.caller.principal.actor {
        return Err(unknown());
    }
    let grant = tx
        .grant(scope.tenant(), &redemption.grant)?
        .ok_or_else(AppError::not_found)?;
    let binary = tx
        .binary(scope.tenant(), &grant.binary)?
        .ok_or_else(AppError::not_found)?;
    let task = tx
        .task(scope.tenant(), &grant.task)?
        .ok_or_else(AppError::not_found)?;
    let mut scene = Scene::lock(tx, scope, &task.id, binary)?;
    scene.grant = tx.grant(scope.tenant(), &grant.id)?;
    scene.check_reach(tx, scope, reach)?;
    // Read again: now nobody else can change it.
    let redemption = tx
        .redemption(scope.tenant(), id)?
        .ok_or_else(AppError::not_found)?;
    if head {
        scene.may_resume(scope)?;
        return Ok(Decided::Preview(Box::new(Preview { binary: scene.binary })));
    }
    let wanted = match resume {
        Some((etag, wanted)) if *etag == scene.etag() => Some(*wanted),
        _ => None,
    };
    scene.resume(tx, scope, streams, redemption, wanted)
}

/// There is no such content. The attempt is recorded all the same.
pub(super) fn unknown(scope: &Scope, binary: &BinaryId) -> AppError {
    let about = About {
        binary: Some(format!("Binary/{binary}")),
        ..About::default()
    };
    let row = scope.row(Event::RedemptionDenied, Outcome::Denied, Reason::NotFound);
    AppError::not_found().recorded(row.about(about))
}

/// How many Tasks are looked at for one that the caller has to do with.
const TASKS_LOOKED_AT: usize = 200;

/// The Task that the caller's right would come from: the one it names; else that of its live grant which expires
/// first; else the newest one that it has to do with.
pub(super) fn pick_task(
    tx: &mut dyn Tx,
    scope: &Scope,
    binary: &StoredBinary,
    named: Option<&TaskId>,
) -> Result<Option<Task>, AppError> {
    let me = &scope.caller.principal.actor;
    if let Some(id) = named {
        let task = tx
            .task(scope.tenant(), id)?
            .filter(|t| scope.caller.relation_to(t).any());
        let releases = |t: &Task| binary.document.as_ref().is_some_and(|d| t.documents.contains(d));
        if task.as_ref().is_none_or(releases) {
            return Ok(task);
        }
        // Not a document of the Task any more: a grant may tell that it was.
        let mut grants = tx.grants_of_task(scope.tenant(), id)?.into_iter();
        let had = grants.any(|g| g.sha256 == binary.sha256);
        return Ok(task.filter(|_| had));
    }
    let mut grants = tx.grants_of_binary(scope.tenant(), &binary.id)?;
    let live = |g: &Grant| g.grantee() == Some(me) && g.is_live(scope.now());
    let first = grants
        .iter()
        .filter(|g| live(g))
        .min_by_key(|g| g.expires_at())
        .map(|g| g.task.clone());
    if let Some(id) = first {
        return Ok(tx.task(scope.tenant(), &id)?);
    }
    grants.sort_by_key(|g| std::cmp::Reverse(g.issued_at));
    // Her own grants come before those of others under Tasks that she merely sees.
    grants.sort_by_key(|g| g.grantee() != Some(me));
    let mut ids: Vec<TaskId> = Vec::new();
    for grant in grants {
        if !ids.contains(&grant.task) {
            ids.push(grant.task);
        }
    }
    if let Some(document) = &binary.document {
        for id in tx.tasks_of_document(scope.tenant(), document)? {
            if !ids.contains(&id) {
                ids.push(id);
            }
        }
    }
    for id in ids.into_iter().take(TASKS_LOOKED_AT) {
        if let Some(task) = tx.task(scope.tenant(), &id)?
            && scope.caller.relation_to(&task).any()
        {
            return Ok(Some(task));
        }
    }
    Ok(None)
}

/// The answer to a caller without any Task to show for: those who may know of the content are told that they may
/// not have it; to everybody else it does not exist.
pub(super) fn without_relation(scope: &Scope, binary: &StoredBinary, named: Option<&TaskId>) -> AppError {
    let principal = &scope.caller.principal;
    let knows = binary.uploaded_by == principal.actor
        || principal.has_any(&[Role::Operator, Role::RecordsManager, Role::Auditor]);
    let (error, reason) = if knows {
        (AppError::forbidden(Reason::PolicyDenied), Reason::PolicyDenied)
    } else {
        (AppError::not_found(), Reason::NotFound)
    };
    let about = About {
        task: named.map(|id| format!("Task/{id}")),
        ..super::binaries::about(binary)
    };
    error.recorded(
        scope
            .row(Event::RedemptionDenied, Outcome::Denied, reason)
            .about(about),
    )
}

/// The strong `ETag` of content: quoted SHA-256, the same on every route.
pub fn strong_etag(binary: &StoredBinary) -> String {
    format!("\"{}\"", binary.sha256.to_hex())
}
