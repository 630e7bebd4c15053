//! Asking for a grant by name, looking at grants, and taking them back. The answer to asking carries a link whose
//! secret is shown this once and stored only as a hash.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use handoff_domain::access::{Action, Object, Relation};
use handoff_domain::audit::{AuditRow, Event, Outcome};
use handoff_domain::break_glass::BreakGlassReason;
use handoff_domain::effects::{AskRefused, Asked, Change, Plan, Step, issue};
use handoff_domain::gate::is_address_range;
use handoff_domain::grant::{Constraints, Grant, GrantState, Origin};
use handoff_domain::ids::{ActorRef, BinaryId, DocumentId, GrantId, TaskId};
use handoff_domain::ports::{Kind, Read, Tx};
use handoff_domain::reason::Reason;
use handoff_domain::scopes::Interaction;
use handoff_domain::task::Task;
use handoff_domain::time::Span;
use sha2::{Digest, Sha256};

use super::caps::Reach;
use super::effects::{Loaded, about_document, about_grant, carry_out, load, scene};
use super::tasks::lock_reached;
use super::{App, AppError, Caller, Class, Cuts, GrantView, Scope, break_glass};

/// A request for a grant, the same for both faces of the operation.
#[derive(Debug, Clone)]
pub struct GrantRequest {
    /// The Task that shall justify it.
    pub task: TaskId,
    /// The document; the Task's only one where `None`.
    pub document: Option<DocumentId>,
    /// Which of its renditions; the first where `None`.
    pub binary: Option<BinaryId>,
    /// Who shall hold it; the caller where it may, else the Task's owner, where `None`.
    pub actor: Option<ActorRef>,
    /// How often it may be used.
    pub uses: Option<u32>,
    /// How long.
    pub expires_in: Option<Span>,
    /// What a redemption must also satisfy.
    pub constraints: Constraints,
    /// Why the caller breaks the glass, where that is what it does: then the Task only says which document.
    pub break_glass: Option<BreakGlassReason>,
}

/// A grant just issued, with its one-time secret.
pub struct IssuedGrant {
    /// The grant and its document's version.
    pub view: GrantView,
    /// The link, secret included. Shown once.
    pub link: String,
}

/// How many grants of a document are listed.
const LIST_LIMIT: u32 = 200;
/// How many entries each list of a constraint may have.
const MAX_CONSTRAINTS: usize = 50;

impl App {
    /// Issues a grant on request.
    pub async fn issue_grant(&self, caller: &Caller, request: GrantRequest) -> Result<IssuedGrant, AppError> {
        check_constraints(&request.constraints)?;
        let scope = self.scope(caller);
        let mut bytes = [0u8; 32];
        self.entropy.fill(&mut bytes);
        let secret = URL_SAFE_NO_PAD.encode(bytes);
        let hash: [u8; 32] = Sha256::digest(secret.as_bytes()).into();
        let view = self
            .write(caller.tenant(), move |tx| match &request.break_glass {
                Some(reason) => break_glass::grant(tx, &scope, &request, reason, hash),
                None => ask(tx, &scope, &request, hash),
            })
            .await?;
        let base = self.settings.tenant_base(caller.tenant());
        let link = format!("{base}/handoff/{}#{secret}", view.grant.handle);
        Ok(IssuedGrant { view, link })
    }

    /// One grant, for those who may see it.
    pub async fn read_grant(&self, caller: &Caller, id: GrantId) -> Result<GrantView, AppError> {
        let scope = self.scope(caller);
        let reach = self.demand(&scope, "Task", Interaction::Read).await?;
        self.read(move |read| {
            let grant = read.grant(scope.tenant(), &id)?.ok_or_else(AppError::not_found)?;
            if !reach.covers_present(read, &scope, Kind::Task, grant.task.as_str())? {
                return Err(AppError::not_found());
            }
            let task = read
                .task(scope.tenant(), &grant.task)?
                .ok_or_else(AppError::not_found)?;
            view(read, &scope, &task, grant)?.ok_or_else(AppError::not_found)
        })
        .await
    }

    /// The grants of a document that the caller may see, newest first.
    pub async fn list_grants(
        &self,
        caller: &Caller,
        document: DocumentId,
    ) -> Result<Vec<GrantView>, AppError> {
        let scope = self.scope(caller);
        let reach = self.demand(&scope, "Task", Interaction::Read).await?;
        self.read(move |read| {
            let mut views = Vec::new();
            let found = read
                .document(scope.tenant(), &document)?
                .ok_or_else(AppError::not_found)?;
            for grant in read.grants_of_document(scope.tenant(), &document, LIST_LIMIT)? {
                let Some(task) = read.task(scope.tenant(), &grant.task)? else {
                    continue;
                };
                if let Some(seen) = view(read, &scope, &task, grant)?
                    && reach.covers_present(read, &scope, Kind::Task, task.id.as_str())?
                {
                    views.push(seen);
                }
            }
            let own = found.created_by == scope.caller.principal.actor
                && scope
                    .readable(&reach)
                    .covers_present(read, &scope, Kind::Document, document.as_str())?;
            if views.is_empty() {
                if !own {
                    return Err(AppError::not_found());
                }
                // Its creator may know of it no more than a read tells.
                super::read::check_visible(read, &scope, Kind::Document, document.as_str())?;
            }
            Ok(views)
        })
        .await
    }

    /// Revokes one grant. Doing so again is no error.
    pub async fn revoke_grant(&self, caller: &Caller, id: GrantId) -> Result<(), AppError> {
        let scope = self.scope(caller);
        self.write(caller.tenant(), move |tx| {
            // Before it is looked up: who may not revoke learns nothing of what there is.
            scope.demand("Task", Interaction::Update)?;
            let grant = tx.grant(scope.tenant(), &id)?.ok_or_else(AppError::not_found)?;
            let only = |g: &Grant| g.id == id;
            let (_, cuts) = revoke(tx, &scope, &grant.task, &only, Reason::Revoked)?;
            Ok(((), cuts))
        })
        .await
    }

    /// Revokes grants of a Task: all, or those of one document or grantee. Answers their ids.
    pub async fn revoke_grants_of_task(
        &self,
        caller: &Caller,
        task: TaskId,
        pick: RevokePick,
    ) -> Result<Vec<GrantId>, AppError> {
        let scope = self.scope(caller);
        self.write(caller.tenant(), move |tx| {
            scope.demand("Task", Interaction::Update)?;
            let held = lock_visible_even_deleted(tx, &scope, &task)?;
            // Who may revoke none is told so of a Task that they see, whether there are grants or not.
            let relation = scope.caller.relation_to(&held);
            let at_most = Relation {
                owner: false,
                recipient: false,
                grantee: true,
                ..relation
            };
            if scope
                .allows_as(Action::GrantRevoke, at_most, relation, Object::Grant(&held))
                .is_err()
            {
                let refusal = scope.denied(Action::GrantRevoke, Event::GrantRevoked);
                return Err(refusal.about(super::effects::about_task(&held)));
            }
            revoke(tx, &scope, &task, &|g| pick.matches(g), Reason::Revoked)
        })
        .await
    }
}

/// Which grants of a Task are meant. Nothing given means all.
#[derive(Debug, Clone, Default)]
pub struct RevokePick {
    /// These.
    pub grants: Vec<GrantId>,
    /// Those of this document.
    pub document: Option<DocumentId>,
    /// Those of this grantee.
    pub actor: Option<ActorRef>,
}

impl RevokePick {
    fn matches(&self, grant: &Grant) -> bool {
        (self.grants.is_empty() || self.grants.contains(&grant.id))
            && self.document.as_ref().is_none_or(|d| grant.document == *d)
            && self.actor.as_ref().is_none_or(|a| grant.grantee() == Some(a))
    }
}

fn check_constraints(constraints: &Constraints) -> Result<(), AppError> {
    let lists = [&constraints.ip, &constraints.client, &constraints.content_type];
    if lists.iter().any(|list| list.len() > MAX_CONSTRAINTS) {
        return Err(AppError::rule(
            "constraints",
            format!("at most {MAX_CONSTRAINTS} entries in a list"),
        ));
    }
    if constraints.key.as_deref().is_some_and(|key| !is_thumbprint(key)) {
        return Err(AppError::rule(
            "constraints.key",
            "not a thumbprint as `cnf.jkt` has it: 43 characters of base64url",
        ));
    }
    if let Some(at) = constraints.ip.iter().position(|range| !is_address_range(range)) {
        return Err(AppError::rule(
            &format!("constraints.ip[{at}]"),
            "not an address or CIDR range such as `10.0.0.0/8`",
        ));
    }
    Ok(())
}

/// A SHA-256 thumbprint of a key (RFC 7638).
fn is_thumbprint(text: &str) -> bool {
    text.len() == 43
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
}

fn ask(
    tx: &mut dyn Tx,
    scope: &Scope,
    request: &GrantRequest,
    secret_hash: [u8; 32],
) -> Result<(GrantView, Cuts), AppError> {
    let reach = scope.demand("Task", Interaction::Update)?;
    let task =
        lock_reached(tx, scope, &reach, &request.task).map_err(|error| refuse(scope, request, error))?;
    let loaded = load(tx, scope, &task)?;
    let whose = standing(scope, request, &task).map_err(|e| {
        let row = denial(scope, &task, request, e.reason);
        e.recorded(row)
    })?;
    give(tx, scope, &reach, request, (&task, &loaded), whose, secret_hash)
}

/// Issues a grant under a locked Task to the one who shall hold it.
pub(super) fn give(
    tx: &mut dyn Tx,
    scope: &Scope,
    reach: &Reach,
    request: &GrantRequest,
    (task, loaded): (&Task, &Loaded),
    (origin, grantee): (Origin, ActorRef),
    secret_hash: [u8; 32],
) -> Result<(GrantView, Cuts), AppError> {
    let refused = |reason: Reason| {
        let class = if is_of_the_task(reason) {
            Class::Conflict
        } else {
            Class::Forbidden
        };
        AppError::new(class, reason, super::error::explain(reason))
            .recorded(denial(scope, task, request, reason))
    };
    // A Task that has moved on is told as such before any question of which document.
    let workflow = scope.rules.workflows.of(&task.facts.code);
    if let Some(reason) = task.blocks_release(workflow, scope.now()) {
        return Err(refused(reason));
    }
    let document = match (&request.document, task.documents.as_slice()) {
        (Some(id), _) => loaded.documents.iter().find(|d| d.id == *id),
        (None, [_]) => loaded.documents.first(),
        (None, []) => None,
        (None, _) => {
            return Err(AppError::rule(
                "document",
                "the Task has several documents; say which",
            ));
        }
    };
    if let (Some(id), None) = (&request.document, document) {
        // One that the caller may not know of is as unknown as one that does not exist.
        let unknown = |e: AppError| e.recorded(denial(scope, task, request, Reason::NotFound));
        super::read::check_visible(&mut *tx, scope, Kind::Document, id.as_str()).map_err(unknown)?;
        let reach = scope.readable(reach);
        if !reach.covers_present(tx, scope, Kind::Document, id.as_str())? {
            return Err(unknown(AppError::not_found()));
        }
    }
    let document = document.ok_or_else(|| {
        AppError::rule(
            "document",
            "the document is not in the Task, or was not put there by one who may release it",
        )
        .recorded(denial(scope, task, request, Reason::Invalid))
    })?;
    let attachment = match &request.binary {
        Some(id) => document.attachments.iter().find(|a| a.binary == *id),
        None => document.attachments.first(),
    };
    let attachment = attachment.ok_or_else(|| {
        document.blocks_release().map_or_else(
            || AppError::rule("document", "the document has no content that is held here"),
            refused,
        )
    })?;
    let scene = scene(task, loaded, workflow, scope);
    let asked = Asked {
        document,
        attachment,
        grantee,
        uses: request.uses,
        window: request.expires_in,
        constraints: request.constraints.clone(),
        origin,
        secret_hash: Some(secret_hash),
    };
    let (plan, grant) = issue(&scene, asked, &mut || scope.fresh_grant()).map_err(|e| match e {
        AskRefused::Because(reason) => refused(reason),
        AskRefused::TooManyUses { at_most } => AppError::rule(
            "uses",
            format!("this workflow allows 1 to {at_most} uses"),
        )
        .recorded(denial(scope, task, request, Reason::Invalid)),
        AskRefused::WindowOutOfRange { at_most } => AppError::rule(
            "expiresIn",
            format!("this workflow allows 1 to {} seconds", at_most.whole_seconds()),
        )
        .recorded(denial(scope, task, request, Reason::Invalid)),
    })?;
    let cuts = carry_out(tx, scope, task, &loaded.documents, &plan)?;
    Ok((
        GrantView {
            document_version: document.version,
            grant,
        },
        cuts,
    ))
}

/// As whom the caller asks, and for whom.
fn standing(scope: &Scope, request: &GrantRequest, task: &Task) -> Result<(Origin, ActorRef), AppError> {
    let me = &scope.caller.principal.actor;
    let relation = scope.caller.relation_to(task);
    let holders = task.facts.holders();
    let i_hold = holders.contains(me);
    let grantee = match &request.actor {
        Some(actor) => actor.clone(),
        None if i_hold => me.clone(),
        None => match holders.first() {
            Some(holder) => holder.clone(),
            None => return Err(conflict(Reason::NotBound)),
        },
    };
    let for_myself = grantee == *me;
    // The rights of one who asks for another come from having placed the Task, or from running the server.
    let as_placer = Relation {
        grantee: false,
        owner: false,
        recipient: false,
        ..relation
    };
    if scope
        .allows_as(Action::GrantIssue, as_placer, relation, Object::Grant(task))
        .is_ok()
    {
        return Ok((Origin::Requested, grantee));
    }
    if relation.former_owner && !i_hold {
        return Err(AppError::forbidden(Reason::Reassigned));
    }
    if !for_myself {
        return Err(AppError::forbidden(if i_hold {
            Reason::NotGrantee
        } else {
            Reason::PolicyDenied
        }));
    }
    if !i_hold {
        return Err(AppError::forbidden(Reason::NotGrantee));
    }
    let as_grantee = Relation {
        grantee: true,
        ..relation
    };
    if scope
        .allows(Action::GrantIssue, as_grantee, Object::Grant(task))
        .is_ok()
    {
        Ok((Origin::SelfService, grantee))
    } else {
        Err(AppError::forbidden(Reason::PolicyDenied))
    }
}

fn conflict(reason: Reason) -> AppError {
    AppError::new(Class::Conflict, reason, super::error::explain(reason))
}

/// Reasons that lie in the Task's state: asking again later, or never, may be answered otherwise.
const fn is_of_the_task(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::TaskNotActionable
            | Reason::TaskCompleted
            | Reason::TaskCancelled
            | Reason::TaskRejected
            | Reason::TaskFailed
            | Reason::TaskOnHold
            | Reason::TaskEnteredInError
            | Reason::TaskDeleted
            | Reason::Expired
            | Reason::DocumentSuperseded
            | Reason::DocumentWithheld
            | Reason::DocumentEnteredInError
            | Reason::DocumentDeleted
    )
}

fn denial(scope: &Scope, task: &Task, request: &GrantRequest, reason: Reason) -> AuditRow {
    let mut row = scope.row(Event::GrantDenied, Outcome::Denied, reason);
    row.about = match &request.document {
        Some(id) => about_document(task, &[], id),
        None => super::effects::about_task(task),
    };
    match &request.actor {
        Some(actor) => row.detail("grantee", actor.as_str()),
        None => row,
    }
}

/// A Task that is unknown or not to be seen: recorded without saying that it exists.
fn refuse(scope: &Scope, request: &GrantRequest, error: AppError) -> AppError {
    if error.class != Class::NotFound {
        return error;
    }
    let row = scope
        .row(Event::GrantDenied, Outcome::Denied, Reason::NotFound)
        .detail("task", format!("Task/{}", request.task));
    error.recorded(row)
}

/// Revokes the open grants of a Task that `pick` picks, and cuts what they opened.
pub(super) fn revoke(
    tx: &mut dyn Tx,
    scope: &Scope,
    task: &TaskId,
    pick: &dyn Fn(&Grant) -> bool,
    reason: Reason,
) -> Result<(Vec<GrantId>, Cuts), AppError> {
    let reach = scope.demand("Task", Interaction::Update)?;
    let task = lock_visible_even_deleted(tx, scope, task)?;
    if !reach.covers_present(tx, scope, Kind::Task, task.id.as_str())? {
        return Err(AppError::not_found());
    }
    let loaded = load(tx, scope, &task)?;
    let mut plan = Plan::default();
    let mut ids = Vec::new();
    for grant in loaded.grants.iter().filter(|g| pick(g)) {
        let mut relation = scope.caller.relation_to(&task);
        relation.grantee = grant.grantee() == Some(&scope.caller.principal.actor);
        let may_know = scope
            .allows(Action::GrantRead, relation, Object::Grant(&task))
            .is_ok();
        // Owning the Task gives no right over grants of others.
        let part = Relation {
            owner: false,
            recipient: false,
            ..relation
        };
        scope
            .allows_as(Action::GrantRevoke, part, relation, Object::Grant(&task))
            .map_err(|_| {
                let refusal = scope.denied(Action::GrantRevoke, Event::GrantRevoked);
                let refusal = refusal.about(about_grant(&task, &loaded.documents, grant));
                if may_know {
                    refusal
                } else {
                    AppError {
                        denial: refusal.denial,
                        ..AppError::not_found()
                    }
                }
            })?;
        if grant.uses > 0 && !matches!(grant.state, GrantState::Revoked(..)) {
            plan.cuts.push((grant.id.clone(), reason));
        }
        if let Ok(revoked) = grant.clone().revoke(scope.now(), reason) {
            ids.push(revoked.id.clone());
            plan.steps.push(Step {
                change: Change::Revoked,
                new: false,
                grant: revoked,
            });
        }
    }
    let cuts = carry_out(tx, scope, &task, &loaded.documents, &plan)?;
    Ok((ids, cuts))
}

fn lock_visible_even_deleted(tx: &mut dyn Tx, scope: &Scope, id: &TaskId) -> Result<Task, AppError> {
    let locked = scope.lock_tasks(tx, std::slice::from_ref(id))?;
    locked
        .into_iter()
        .next()
        .filter(|t| super::tasks::sees(scope, t))
        .ok_or_else(AppError::not_found)
}

/// The grant as the caller may see it; `None` where it may not.
fn view(
    read: &mut dyn Read,
    scope: &Scope,
    task: &Task,
    grant: Grant,
) -> Result<Option<GrantView>, AppError> {
    let mut relation = scope.caller.relation_to(task);
    relation.grantee = grant.grantee() == Some(&scope.caller.principal.actor);
    if scope
        .allows(Action::GrantRead, relation, Object::Grant(task))
        .is_err()
    {
        return Ok(None);
    }
    let document_version = read
        .document(scope.tenant(), &grant.document)?
        .map_or(grant.content_version, |d| d.version);
    Ok(Some(GrantView {
        grant,
        document_version,
    }))
}
