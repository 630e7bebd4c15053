//! The gate, whatever the route in: by a Binary's id, by a link, or on with an open redemption. One transaction
//! reads Task, document and grant under lock, decides, takes the use and writes the audit row; only then may a
//! byte leave. Every refusal is recorded with its reason.

use std::sync::Arc;

use handoff_domain::access::{Action, Relation, Role};
use handoff_domain::audit::{About, Event, Outcome};
use handoff_domain::document::{Document, StoredBinary};
use handoff_domain::gate::Gate;
use handoff_domain::grant::{Grant, GrantState};
use handoff_domain::ids::{BinaryId, Handle, RedemptionId, TaskId};
use handoff_domain::outbox::{Topic, TopicEvent};
use handoff_domain::ports::Tx;
use handoff_domain::reason::Reason;
use handoff_domain::redemption::{Redemption, RedemptionState, ResumeError};
use handoff_domain::task::Task;
use sha2::{Digest, Sha256 as Sha256Hasher};

use super::effects::about_grant;
use super::streams::{Entry, Streams};
use super::{App, AppError, Caller, Class, Cuts, Scope};

/// A part of the content that a client asks to go on with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Continue {
    /// First byte.
    pub from: u64,
    /// One past the last byte; the end of the content where `None`.
    pub until: Option<u64>,
}

/// Leave to send bytes: committed, with its audit row.
pub struct Ticket {
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
    /// Whether it goes on with an earlier stream.
    pub resumed: bool,
    /// The running stream.
    pub entry: Arc<Entry>,
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
    Preview(Preview),
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
}

/// How often a client that came back waits for its own old stream to end.
const BUSY_RETRIES: u32 = 20;
const BUSY_PAUSE: std::time::Duration = std::time::Duration::from_millis(100);

impl App {
    /// Asks the gate for a Binary's content.
    pub async fn fetch_binary(&self, caller: &Caller, fetch: Fetch) -> Result<Fetched, AppError> {
        let scope = self.scope(caller);
        let streams = Arc::clone(&self.streams);
        let id = self.fresh_redemption()?;
        self.take_over_when_busy(caller, move || {
            let (scope, streams, id, fetch) = (scope.clone(), Arc::clone(&streams), id.clone(), fetch.clone());
            move |tx: &mut dyn Tx| by_binary(tx, &scope, &streams, &id, &fetch).map(|f| (f, Cuts::none()))
        })
        .await
    }

    /// Redeems a link: takes the use and opens a redemption, whose content is then fetched by its id.
    pub async fn redeem_link(
        &self,
        caller: &Caller,
        handle: Handle,
        secret: &str,
    ) -> Result<RedemptionId, AppError> {
        let scope = self.scope(caller);
        let id = self.fresh_redemption()?;
        let hash: [u8; 32] = Sha256Hasher::digest(secret.as_bytes()).into();
        self.write(caller.tenant(), move |tx| by_link(tx, &scope, &id, &handle, &hash)).await
    }

    /// Content of an open redemption: its first stream, or the rest after an interruption.
    pub async fn redemption_content(
        &self,
        caller: &Caller,
        id: RedemptionId,
        resume: Option<(String, Continue)>,
        head: bool,
    ) -> Result<Fetched, AppError> {
        let scope = self.scope(caller);
        let streams = Arc::clone(&self.streams);
        self.take_over_when_busy(caller, move || {
            let (scope, streams, id, resume) = (scope.clone(), Arc::clone(&streams), id.clone(), resume.clone());
            move |tx: &mut dyn Tx| {
                by_redemption(tx, &scope, &streams, &id, resume.as_ref(), head).map(|f| (f, Cuts::none()))
            }
        })
        .await
    }

    fn fresh_redemption(&self) -> Result<RedemptionId, AppError> {
        RedemptionId::parse(self.entropy.fresh_id()).map_err(|e| AppError::bad(e.to_string()))
    }

    /// Runs the gate; where the redemption's own earlier stream still runs here, ends that one and asks again.
    async fn take_over_when_busy<W, M>(&self, caller: &Caller, make: M) -> Result<Fetched, AppError>
    where
        M: Fn() -> W,
        W: FnMut(&mut dyn Tx) -> Result<(Fetched, Cuts), AppError> + Send + 'static,
    {
        for _ in 0..BUSY_RETRIES {
            match self.write(caller.tenant(), make()).await {
                Err(error) if error.busy.is_some() => {
                    if let Some(id) = error.busy {
                        self.streams.supersede(&id);
                    }
                    tokio::time::sleep(BUSY_PAUSE).await;
                }
                answer => return answer,
            }
        }
        self.write(caller.tenant(), make()).await
    }
}

fn by_binary(
    tx: &mut dyn Tx,
    scope: &Scope,
    streams: &Streams,
    id: &RedemptionId,
    fetch: &Fetch,
) -> Result<Fetched, AppError> {
    let binary = tx.binary(scope.tenant(), &fetch.binary)?.ok_or_else(AppError::not_found)?;
    let Some(task) = pick_task(tx, scope, &binary, fetch.task.as_ref())? else {
        return Err(without_relation(scope, &binary));
    };
    let scene = Scene::lock(tx, scope, task, binary)?;
    if let Some(limit) = fetch.at_most
        && scene.binary.size > limit
    {
        return Err(AppError::new(
            Class::NotAcceptable,
            Reason::TooLarge,
            format!("content over {limit} bytes is only given raw: ask with `Accept: */*`"),
        ));
    }
    if let Some((etag, wanted)) = &fetch.resume
        && *etag == scene.etag()
        && let Some(open) = scene.open_redemption(tx, scope)?
    {
        return scene.resume(tx, scope, streams, open, *wanted);
    }
    scene.pass(scope)?;
    if fetch.head {
        return Ok(Fetched::Preview(Preview { binary: scene.binary }));
    }
    let redemption = scene.take_use(tx, scope, id)?;
    scene.start(tx, scope, streams, redemption, Continue { from: 0, until: None }, false)
}

fn by_link(
    tx: &mut dyn Tx,
    scope: &Scope,
    id: &RedemptionId,
    handle: &Handle,
    secret_hash: &[u8; 32],
) -> Result<(RedemptionId, Cuts), AppError> {
    let unknown = || {
        AppError::new(Class::NotFound, Reason::LinkUnknown, super::error::explain(Reason::LinkUnknown)).recorded(
            scope
                .row(Event::RedemptionDenied, Outcome::Denied, Reason::LinkUnknown)
                .detail("handle", handle.as_str()),
        )
    };
    let grant = tx.grant_by_handle(scope.tenant(), handle)?.ok_or_else(unknown)?;
    // Without the secret nothing is told, not even that the link exists. Comparing hashes leaks nothing of it.
    if grant.secret_hash.as_ref() != Some(secret_hash) {
        return Err(unknown());
    }
    let binary = tx.binary(scope.tenant(), &grant.binary)?.ok_or_else(unknown)?;
    let task = tx.task(scope.tenant(), &grant.task)?.ok_or_else(unknown)?;
    let mut scene = Scene::lock(tx, scope, task, binary)?;
    // The link opens its own grant, not a newer one.
    scene.grant = tx.grant(scope.tenant(), &grant.id)?;
    if grant.grantee() != Some(&scope.caller.principal.actor) {
        return Err(scene.refuse(scope, Reason::NotGrantee));
    }
    scene.pass(scope)?;
    let redemption = scene.take_use(tx, scope, id)?;
    tx.record(
        scope.tenant(),
        scope.row(Event::LinkOpened, Outcome::Success, Reason::Permitted).about(scene.about(Some(id))),
    );
    Ok((redemption.id, Cuts::none()))
}

fn by_redemption(
    tx: &mut dyn Tx,
    scope: &Scope,
    streams: &Streams,
    id: &RedemptionId,
    resume: Option<&(String, Continue)>,
    head: bool,
) -> Result<Fetched, AppError> {
    let redemption = tx.redemption(scope.tenant(), id)?.ok_or_else(AppError::not_found)?;
    if redemption.grantee != scope.caller.principal.actor {
        return Err(AppError::not_found());
    }
    let grant = tx.grant(scope.tenant(), &redemption.grant)?.ok_or_else(AppError::not_found)?;
    let binary = tx.binary(scope.tenant(), &grant.binary)?.ok_or_else(AppError::not_found)?;
    let task = tx.task(scope.tenant(), &grant.task)?.ok_or_else(AppError::not_found)?;
    let mut scene = Scene::lock(tx, scope, task, binary)?;
    scene.grant = tx.grant(scope.tenant(), &grant.id)?;
    // Read again: now nobody else can change it.
    let redemption = tx.redemption(scope.tenant(), id)?.ok_or_else(AppError::not_found)?;
    if head {
        scene.gate(scope).check_resume().map_err(|reason| scene.refuse(scope, reason))?;
        return Ok(Fetched::Preview(Preview { binary: scene.binary }));
    }
    let wanted = match resume {
        Some((etag, wanted)) if *etag == scene.etag() => *wanted,
        _ => Continue { from: 0, until: None },
    };
    scene.resume(tx, scope, streams, redemption, wanted)
}

/// The Task that the caller's right would come from: the one it names; else that of its live grant which expires
/// first; else the newest one that it has to do with.
fn pick_task(
    tx: &mut dyn Tx,
    scope: &Scope,
    binary: &StoredBinary,
    named: Option<&TaskId>,
) -> Result<Option<Task>, AppError> {
    let me = &scope.caller.principal.actor;
    if let Some(id) = named {
        let task = tx.task(scope.tenant(), id)?.filter(|t| scope.caller.relation_to(t).any());
        let releases = |t: &Task| binary.document.as_ref().is_some_and(|d| t.documents.contains(d));
        let grants = tx.grants_of_task(scope.tenant(), id)?;
        return Ok(task.filter(|t| releases(t) || grants.iter().any(|g| g.sha256 == binary.sha256)));
    }
    let mut grants = tx.grants_of_binary(scope.tenant(), &binary.id)?;
    let live = |g: &Grant| {
        matches!(g.state, GrantState::Bound(_))
            && g.grantee() == Some(me)
            && g.expires_at().is_some_and(|at| at > scope.now())
    };
    let first = grants.iter().filter(|g| live(g)).min_by_key(|g| g.expires_at()).map(|g| g.task.clone());
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
    for id in ids {
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
fn without_relation(scope: &Scope, binary: &StoredBinary) -> AppError {
    let principal = &scope.caller.principal;
    let knows = binary.uploaded_by == principal.actor
        || principal.has_any(&[Role::Operator, Role::RecordsManager, Role::Auditor]);
    let (error, reason) = if knows {
        (AppError::forbidden(Reason::PolicyDenied), Reason::PolicyDenied)
    } else {
        (AppError::not_found(), Reason::NotFound)
    };
    error.recorded(
        scope.row(Event::RedemptionDenied, Outcome::Denied, reason).about(super::binaries::about(binary)),
    )
}

/// Everything that decides, read under lock.
struct Scene {
    task: Task,
    document: Option<Document>,
    grant: Option<Grant>,
    binary: StoredBinary,
    policy_allows: bool,
}

impl Scene {
    fn lock(
        tx: &mut dyn Tx,
        scope: &Scope,
        task: Task,
        binary: StoredBinary,
    ) -> Result<Self, AppError> {
        let task = tx
            .lock_tasks(scope.tenant(), std::slice::from_ref(&task.id))?
            .into_iter()
            .next()
            .ok_or_else(AppError::not_found)?;
        let grants = tx.grants_of_task(scope.tenant(), &task.id)?;
        let me = &scope.caller.principal.actor;
        let grant = grants.into_iter().rfind(|g| g.sha256 == binary.sha256 && g.grantee() == Some(me));
        let id = grant.as_ref().map(|g| &g.document).or(binary.document.as_ref()).cloned();
        let document = match id {
            Some(id) => tx.lock_documents(scope.tenant(), &[id], false)?.into_iter().next(),
            None => None,
        };
        let mut relation = scope.caller.relation_to(&task);
        relation.grantee = grant.is_some();
        let policy_allows = may_fetch(scope, relation);
        Ok(Self { task, document, grant, binary, policy_allows })
    }

    fn gate<'a>(&'a self, scope: &'a Scope) -> Gate<'a> {
        Gate {
            caller: &scope.caller.principal,
            address: scope.caller.address(),
            task: &self.task,
            document: self.document.as_ref(),
            grant: self.grant.as_ref(),
            binary: &self.binary,
            workflow: scope.rules.workflows.of(&self.task.facts.code),
            policy_allows: self.policy_allows,
            now: scope.now(),
        }
    }

    /// The gate for a new use. Who only placed or requested the Task, or runs the server, is told that it is not
    /// for them, whatever the state of things.
    fn pass(&self, scope: &Scope) -> Result<(), AppError> {
        let relation = scope.caller.relation_to(&self.task);
        let bystander = !relation.owner && !relation.recipient && !relation.former_owner && !relation.team;
        if bystander && self.grant.is_none() {
            return Err(self.refuse(scope, Reason::PolicyDenied));
        }
        self.gate(scope).check().map_err(|reason| self.refuse(scope, reason))
    }

    fn refuse(&self, scope: &Scope, reason: Reason) -> AppError {
        let row = scope.row(Event::RedemptionDenied, Outcome::Denied, reason).about(self.about(None));
        AppError::forbidden(reason).recorded(row)
    }

    /// The strong ETag of the content.
    fn etag(&self) -> String {
        strong_etag(&self.binary)
    }

    fn about(&self, redemption: Option<&RedemptionId>) -> About {
        let documents = self.document.as_slice();
        let mut about = match &self.grant {
            Some(grant) => about_grant(&self.task, documents, grant),
            None => super::effects::about_task(&self.task),
        };
        about.binary = Some(format!("Binary/{}", self.binary.id));
        about.redemption = redemption.map(ToString::to_string);
        about
    }

    /// Takes one use and opens its redemption.
    fn take_use(
        &self,
        tx: &mut dyn Tx,
        scope: &Scope,
        id: &RedemptionId,
    ) -> Result<Redemption, AppError> {
        let workflow = scope.rules.workflows.of(&self.task.facts.code);
        let grant = self.grant.clone().ok_or_else(|| self.refuse(scope, Reason::NotBound))?;
        let used = grant.take_use(scope.now()).map_err(|_| self.refuse(scope, Reason::Exhausted))?;
        tx.update_grant(scope.tenant(), &used)?;
        let principal = &scope.caller.principal;
        let redemption = Redemption {
            id: id.clone(),
            grant: used.id.clone(),
            grantee: principal.actor.clone(),
            client: principal.client.clone(),
            key: principal.key.clone(),
            session: scope.caller.session.clone(),
            state: RedemptionState::Authorized,
            cut_reason: None,
            opened_at: scope.now(),
            window_end: scope.now().plus(workflow.redemption_window),
            ended_at: None,
            size: self.binary.size,
            bytes_sent: 0,
            sent_up_to: 0,
            streams: 0,
            process: Some(scope.settings.process.clone()),
            revision: 1,
        };
        tx.insert_redemption(scope.tenant(), &redemption)?;
        let row = scope
            .row(Event::RedemptionAuthorized, Outcome::Success, Reason::Permitted)
            .about(self.about(Some(id)))
            .detail("sha256", self.binary.sha256.to_hex())
            .detail("size", self.binary.size.to_string())
            .detail("use", format!("{} of {}", used.uses, used.max_uses))
            .detail("policy", scope.rules.policy.version());
        tx.record(scope.tenant(), row);
        tx.tell(
            scope.tenant(),
            TopicEvent {
                topic: Topic::Redemption,
                focus: format!("Task/{}", self.task.id),
                version: self.task.version,
                change: RedemptionState::Authorized.as_str().to_owned(),
                grant: Some(used.id.to_string()),
                at: scope.now(),
            },
        );
        Ok(redemption)
    }

    /// The newest redemption of the caller's grant that may still go on.
    fn open_redemption(&self, tx: &mut dyn Tx, scope: &Scope) -> Result<Option<Redemption>, AppError> {
        let Some(grant) = &self.grant else { return Ok(None) };
        let redemptions = tx.redemptions_of_grant(scope.tenant(), &grant.id)?;
        Ok(redemptions
            .into_iter()
            .find(|r| r.window_end > scope.now() || r.state == RedemptionState::Streaming))
    }

    /// Starts a stream of an open redemption, where Task, document and grant still allow it.
    fn resume(
        self,
        tx: &mut dyn Tx,
        scope: &Scope,
        streams: &Streams,
        redemption: Redemption,
        wanted: Continue,
    ) -> Result<Fetched, AppError> {
        let principal = &scope.caller.principal;
        redemption
            .same_client(&principal.client, principal.key.as_deref(), scope.caller.session.as_deref())
            .map_err(|e| self.refuse(scope, e.reason()))?;
        self.gate(scope).check_resume().map_err(|reason| self.refuse(scope, reason))?;
        let resumed = redemption.streams > 0;
        self.start(tx, scope, streams, redemption, wanted, resumed)
    }

    fn start(
        self,
        tx: &mut dyn Tx,
        scope: &Scope,
        streams: &Streams,
        redemption: Redemption,
        wanted: Continue,
        resumed: bool,
    ) -> Result<Fetched, AppError> {
        let size = self.binary.size;
        let until = wanted.until.unwrap_or(size).min(size);
        if wanted.from > until || (wanted.from >= size && size > 0) {
            return Err(AppError::new(
                Class::RangeNotSatisfiable { size },
                Reason::Invalid,
                "the range lies outside of the content",
            ));
        }
        let length = until.saturating_sub(wanted.from);
        let id = redemption.id.clone();
        let redemption = redemption
            .start(length, &scope.settings.process, scope.now())
            .map_err(|e| self.refuse_start(scope, &id, e))?;
        tx.update_redemption(scope.tenant(), &redemption)?;
        let about = self.about(Some(&redemption.id));
        if resumed {
            let row = scope
                .row(Event::RedemptionResumed, Outcome::Success, Reason::Permitted)
                .about(about.clone())
                .detail("from", wanted.from.to_string())
                .detail("until", until.to_string());
            tx.record(scope.tenant(), row);
        }
        // Announced before the commit: a cut that commits after ours finds the stream.
        let entry = streams.announce(scope.tenant(), &redemption.grant, &redemption.id);
        Ok(Fetched::Content(Box::new(Ticket {
            redemption,
            task: self.task.id.clone(),
            about,
            from: wanted.from,
            until,
            resumed,
            entry,
            binary: self.binary,
        })))
    }

    fn refuse_start(&self, scope: &Scope, id: &RedemptionId, error: ResumeError) -> AppError {
        let mut refusal = self.refuse(scope, error.reason());
        if error == ResumeError::Busy {
            // Not a refusal yet: the caller's own earlier stream is being ended.
            refusal.class = Class::Conflict;
            "another download of this redemption is running; wait for it to end".clone_into(&mut refusal.text);
            refusal.denial = None;
            refusal.busy = Some(id.clone());
        }
        refusal
    }
}

fn may_fetch(scope: &Scope, relation: Relation) -> bool {
    scope.allows(Action::BinaryFetch, relation).is_some()
}

/// The strong ETag of content: quoted SHA-256, the same on every route.
pub fn strong_etag(binary: &StoredBinary) -> String {
    format!("\"{}\"", binary.sha256.to_hex())
}
