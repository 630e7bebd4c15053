//! What a Task's movement does to its grants. One function, [`reconcile`], looks at the Task, its documents and
//! its grants as they now stand, and says what must change so that no grant outlives the step that justified it.
//! It is asked after every change of a Task or document and whenever time may have run out.

use crate::document::{Attachment, Document};
use crate::grant::{Constraints, Grant, GrantState, Origin};
use crate::ids::{ActorRef, DocumentId, GrantId, Handle};
use crate::reason::Reason;
use crate::standing::Standing;
use crate::task::{Task, TaskStatus};
use crate::time::{Span, Timestamp};
use crate::workflow::Workflow;

/// Everything that decides over a Task's grants, as it now stands.
#[derive(Debug, Clone, Copy)]
pub struct Scene<'a> {
    /// The Task.
    pub task: &'a Task,
    /// Its documents, in its order; those that exist, deleted ones included.
    pub documents: &'a [Document],
    /// All its grants, ended ones too, oldest first.
    pub grants: &'a [Grant],
    /// The rules for its code.
    pub workflow: &'a Workflow,
    /// What an operator has blocked.
    pub standing: &'a Standing,
    /// Now.
    pub now: Timestamp,
}

/// What happened to a grant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is what it says")]
pub enum Change {
    Issued,
    Bound,
    Suspended,
    Resumed,
    Expired,
    Revoked,
}

/// One change of one grant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// What happened.
    pub change: Change,
    /// Whether the grant is new.
    pub new: bool,
    /// The grant after the change.
    pub grant: Grant,
}

/// What must change.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// Changes of grants, in order.
    pub steps: Vec<Step>,
    /// Grants whose open redemptions are cut, and why. A redemption that only a hold has cut so far is cut again,
    /// for good, by any other reason.
    pub cuts: Vec<(GrantId, Reason)>,
    /// Grants whose redemptions that were cut by a hold, and by nothing since, may go on.
    pub reopened: Vec<GrantId>,
    /// Holders to whom a document was not released, and why: the answer of this fresh decision, given again at
    /// every later one. A document that was released before is not here: its grants' ends say it.
    pub refused: Vec<(DocumentId, Option<ActorRef>, Reason)>,
}

impl Plan {
    /// Whether nothing changes.
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty() && self.cuts.is_empty() && self.reopened.is_empty() && self.refused.is_empty()
    }
}

/// How a grant stands under its Task and document now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stands {
    Live,
    Paused(Reason),
    PastDue,
    Ended(Reason),
}

impl Scene<'_> {
    fn document(&self, id: &DocumentId) -> Option<&Document> {
        self.documents.iter().find(|d| d.id == *id)
    }

    /// Why this document, as a whole, is not released under this Task; `None` while it is.
    fn withholds(&self, document: &Document) -> Option<Reason> {
        document
            .blocks_release()
            .or_else(|| {
                (!self.workflow.may_release(document.class.as_deref())).then_some(Reason::DocumentWithheld)
            })
            .or_else(|| {
                (!document.is_about(self.task.facts.subject.as_deref())).then_some(Reason::DocumentWithheld)
            })
            .or_else(|| self.standing.on_release(self.task, document))
    }

    /// Why this document is held back for now: it is decided on once it is not.
    fn holds(&self, document: &Document) -> Option<Reason> {
        document
            .withheld_at(self.now)
            .or_else(|| self.standing.holds(&self.task.id, &document.id))
    }

    fn standing(&self, grant: &Grant) -> Stands {
        let task = self.task;
        if task.deleted {
            return Stands::Ended(Reason::TaskDeleted);
        }
        if let Some(ending) = task.facts.status.ending() {
            return Stands::Ended(ending);
        }
        if !task.documents.contains(&grant.document) {
            return Stands::Ended(Reason::InputRemoved);
        }
        let Some(document) = self.document(&grant.document) else {
            return Stands::Ended(Reason::DocumentDeleted);
        };
        if let Some(reason) = self
            .withholds(document)
            .or_else(|| document.blocks_content(&grant.sha256))
        {
            return Stands::Ended(reason);
        }
        if task.is_past_due(self.now) {
            return Stands::PastDue;
        }
        if let Some(grantee) = grant.grantee() {
            if let Some(reason) = self.standing.on_holder(task, grantee) {
                return Stands::Ended(reason);
            }
            if !task.facts.holders().contains(grantee) {
                return Stands::Ended(Reason::Reassigned);
            }
        }
        if let Some(reason) = self.holds(document) {
            return Stands::Paused(reason);
        }
        match task.facts.status {
            TaskStatus::OnHold => Stands::Paused(Reason::TaskOnHold),
            status if self.workflow.is_actionable(status) => Stands::Live,
            _ => Stands::Paused(Reason::TaskNotActionable),
        }
    }
}

/// What must change so that the grants agree with their Task and documents. `fresh` mints ids for new grants.
/// Asking again at the same instant, with the changes made, changes nothing more.
pub fn reconcile(scene: &Scene<'_>, fresh: &mut dyn FnMut() -> (GrantId, Handle)) -> Plan {
    let mut plan = Plan::default();
    let mut grants: Vec<Grant> = Vec::with_capacity(scene.grants.len());
    for (i, grant) in scene.grants.iter().enumerate() {
        let replaced =
            grant.state.is_open() && has_successor(grant, scene.grants.iter().skip(i.saturating_add(1)));
        let standing = match scene.standing(grant) {
            Stands::Live | Stands::Paused(_) if replaced => Stands::Ended(Reason::Reissued),
            standing => standing,
        };
        grants.push(settle(scene, grant, standing, &mut plan));
    }
    if may_mint(scene) {
        for id in &scene.task.documents {
            let Some(document) = scene.document(id) else {
                continue;
            };
            if let Some(reason) = scene.withholds(document) {
                if !grants.iter().any(|g| g.document == document.id) {
                    plan.refused.push((document.id.clone(), None, reason));
                }
                continue;
            }
            if scene.holds(document).is_some() {
                continue;
            }
            for attachment in distinct(&document.attachments) {
                if let Some(reason) = document.blocks_content(&attachment.sha256) {
                    if !grants.iter().any(|g| is_for(g, document, attachment)) {
                        plan.refused.push((document.id.clone(), None, reason));
                    }
                    continue;
                }
                mint(scene, document, attachment, &mut grants, fresh, &mut plan);
            }
        }
    }
    plan
}

/// Whether one of the later grants took this one's place. A use that was given back can open a grant again after
/// another was issued; of two, the newer stands.
fn has_successor<'a>(grant: &Grant, mut later: impl Iterator<Item = &'a Grant>) -> bool {
    grant.grantee().is_some_and(|grantee| {
        later
            .any(|g| g.document == grant.document && g.sha256 == grant.sha256 && g.grantee() == Some(grantee))
    })
}

/// Brings one existing grant to where its standing demands.
fn settle(scene: &Scene<'_>, grant: &Grant, standing: Stands, plan: &mut Plan) -> Grant {
    let now = scene.now;
    let timed_out = grant.expires_at().is_some_and(|at| at <= now);
    let next = match (&grant.state, standing) {
        (GrantState::Issued | GrantState::Bound(_) | GrantState::Suspended(..), Stands::Ended(reason)) => {
            grant.clone().revoke(now, reason).map(|g| (Change::Revoked, g))
        }
        (GrantState::Issued | GrantState::Bound(_) | GrantState::Suspended(..), Stands::PastDue) => {
            grant.clone().expire(now).map(|g| (Change::Expired, g))
        }
        (GrantState::Bound(_) | GrantState::Suspended(..), _) if timed_out => {
            grant.clone().expire(now).map(|g| (Change::Expired, g))
        }
        (GrantState::Bound(_), Stands::Paused(reason)) => {
            grant.clone().suspend(reason).map(|g| (Change::Suspended, g))
        }
        (GrantState::Suspended(..), Stands::Live) => grant.clone().resume(now).map(|g| (Change::Resumed, g)),
        _ => {
            settle_redemptions(grant, standing, plan);
            return grant.clone();
        }
    };
    match next {
        Ok((change, grant)) => {
            settle_redemptions(&grant, standing, plan);
            plan.steps.push(Step {
                change,
                new: false,
                grant: grant.clone(),
            });
            grant
        }
        Err(_) => grant.clone(),
    }
}

/// Open redemptions follow the standing of their grant, even one that is exhausted or has expired.
fn settle_redemptions(grant: &Grant, standing: Stands, plan: &mut Plan) {
    if grant.uses == 0 {
        return;
    }
    match standing {
        Stands::Ended(reason) | Stands::Paused(reason) => plan.cuts.push((grant.id.clone(), reason)),
        Stands::PastDue => plan.cuts.push((grant.id.clone(), Reason::Expired)),
        Stands::Live => match grant.state {
            GrantState::Bound(_) | GrantState::Exhausted(..) | GrantState::Expired(..) => {
                plan.reopened.push(grant.id.clone());
            }
            GrantState::Issued | GrantState::Suspended(..) | GrantState::Revoked(..) => {}
        },
    }
}

fn may_mint(scene: &Scene<'_>) -> bool {
    let status = scene.task.facts.status;
    let prepares = matches!(status, TaskStatus::Requested | TaskStatus::Received);
    !scene.task.deleted
        && !scene.task.is_past_due(scene.now)
        && (prepares || scene.workflow.is_actionable(status))
}

/// Each content once, however many attachments carry it.
fn distinct(attachments: &[Attachment]) -> Vec<&Attachment> {
    let mut seen: Vec<&Attachment> = Vec::new();
    for attachment in attachments {
        if !seen.iter().any(|a| a.sha256 == attachment.sha256) {
            seen.push(attachment);
        }
    }
    seen
}

fn is_for(grant: &Grant, document: &Document, attachment: &Attachment) -> bool {
    grant.document == document.id && grant.sha256 == attachment.sha256
}

fn mint(
    scene: &Scene<'_>,
    document: &Document,
    attachment: &Attachment,
    grants: &mut Vec<Grant>,
    fresh: &mut dyn FnMut() -> (GrantId, Handle),
    plan: &mut Plan,
) {
    let holders = scene.task.facts.holders();
    let actionable = scene.workflow.is_actionable(scene.task.facts.status);
    if !actionable || holders.is_empty() {
        if !grants.iter().any(|g| is_for(g, document, attachment)) {
            let grant = new_grant(scene, document, attachment, fresh);
            plan.steps.push(Step {
                change: Change::Issued,
                new: true,
                grant: grant.clone(),
            });
            grants.push(grant);
        }
        return;
    }
    for holder in holders {
        if let Some(reason) = scene.standing.on_holder(scene.task, &holder) {
            plan.refused.push((document.id.clone(), Some(holder), reason));
            continue;
        }
        // Once per Task, content and grantee: going back and forth mints no second one.
        if grants
            .iter()
            .any(|g| is_for(g, document, attachment) && g.grantee() == Some(&holder))
        {
            continue;
        }
        let waiting = grants
            .iter()
            .position(|g| is_for(g, document, attachment) && g.state == GrantState::Issued);
        let (grant, slot) = match waiting.and_then(|i| grants.get(i).cloned().map(|g| (g, i))) {
            Some((grant, i)) => (grant, Some(i)),
            None => (new_grant(scene, document, attachment, fresh), None),
        };
        let new = slot.is_none();
        if new {
            plan.steps.push(Step {
                change: Change::Issued,
                new: true,
                grant: grant.clone(),
            });
        }
        let Ok(bound) = grant.bind(holder, scene.now) else {
            continue;
        };
        plan.steps.push(Step {
            change: Change::Bound,
            new: false,
            grant: bound.clone(),
        });
        match slot.and_then(|i| grants.get_mut(i)) {
            Some(existing) => *existing = bound,
            None => grants.push(bound),
        }
    }
}

fn new_grant(
    scene: &Scene<'_>,
    document: &Document,
    attachment: &Attachment,
    fresh: &mut dyn FnMut() -> (GrantId, Handle),
) -> Grant {
    let (id, handle) = fresh();
    Grant {
        id,
        handle,
        secret_hash: None,
        task: scene.task.id.clone(),
        document: document.id.clone(),
        content_version: document.content_version,
        binary: attachment.binary.clone(),
        sha256: attachment.sha256,
        origin: Origin::Automatic,
        max_uses: scene.workflow.max_uses,
        uses: 0,
        window: scene.workflow.grant_window,
        issued_at: scene.now,
        constraints: Constraints::default(),
        state: GrantState::Issued,
        revision: 1,
    }
}

/// A grant that somebody asks for by name.
#[derive(Debug, Clone)]
pub struct Asked<'a> {
    /// The document.
    pub document: &'a Document,
    /// Which of its renditions.
    pub attachment: &'a Attachment,
    /// Who shall hold it.
    pub grantee: ActorRef,
    /// How often it may be used; the workflow's number where `None`.
    pub uses: Option<u32>,
    /// How long; the workflow's window where `None`.
    pub window: Option<Span>,
    /// What a redemption must also satisfy.
    pub constraints: Constraints,
    /// Who asks.
    pub origin: Origin,
    /// SHA-256 of the link's secret.
    pub secret_hash: Option<[u8; 32]>,
}

/// Why a grant that was asked for is not issued.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AskRefused {
    /// The Task, document or actor stands in the way.
    Because(Reason),
    /// More uses than the workflow allows.
    TooManyUses {
        /// The most.
        at_most: u32,
    },
    /// A longer window than the workflow allows, or one under a second.
    WindowOutOfRange {
        /// The longest.
        at_most: Span,
    },
}

/// Issues a grant on request, bound at once; an older open one for the same Task, content and grantee is
/// revoked as `reissued`.
pub fn issue(
    scene: &Scene<'_>,
    asked: Asked<'_>,
    fresh: &mut dyn FnMut() -> (GrantId, Handle),
) -> Result<(Plan, Grant), AskRefused> {
    let workflow = scene.workflow;
    let because = AskRefused::Because;
    if let Some(reason) = scene.task.blocks_release(workflow, scene.now) {
        return Err(because(reason));
    }
    if !scene.task.documents.contains(&asked.document.id) {
        return Err(because(Reason::Invalid));
    }
    let withheld = scene.withholds(asked.document);
    let held = || scene.holds(asked.document);
    if let Some(reason) = withheld
        .or_else(held)
        .or_else(|| asked.document.blocks_content(&asked.attachment.sha256))
    {
        return Err(because(reason));
    }
    if !scene.task.facts.holders().contains(&asked.grantee) {
        return Err(because(Reason::NotGrantee));
    }
    if let Some(reason) = scene.standing.on_holder(scene.task, &asked.grantee) {
        return Err(because(reason));
    }
    let theirs: Vec<&Grant> = scene
        .grants
        .iter()
        .filter(|g| is_for(g, asked.document, asked.attachment) && g.grantee() == Some(&asked.grantee))
        .collect();
    let mut at_most = workflow.max_uses;
    let mut constraints = asked.constraints;
    if asked.origin == Origin::SelfService {
        may_ask_herself(workflow, &theirs)?;
        // She cannot ask herself out of what the placer or an operator set for her.
        if let Some(given) = theirs.iter().rev().find(|g| g.origin != Origin::SelfService) {
            at_most = at_most.min(given.max_uses);
            constraints = within(&given.constraints, constraints).ok_or(because(Reason::PolicyDenied))?;
        }
    }
    let uses = asked.uses.unwrap_or(at_most);
    if uses == 0 || uses > at_most {
        return Err(AskRefused::TooManyUses { at_most });
    }
    let window = asked.window.unwrap_or(workflow.grant_window);
    if window < Span::seconds(1) || window > workflow.grant_window {
        return Err(AskRefused::WindowOutOfRange {
            at_most: workflow.grant_window,
        });
    }
    let mut plan = Plan::default();
    for older in theirs.into_iter().filter(|g| g.state.is_open()) {
        if let Ok(revoked) = older.clone().revoke(scene.now, Reason::Reissued) {
            if revoked.uses > 0 {
                plan.cuts.push((revoked.id.clone(), Reason::Reissued));
            }
            plan.steps.push(Step {
                change: Change::Revoked,
                new: false,
                grant: revoked,
            });
        }
    }
    let base = new_grant(scene, asked.document, asked.attachment, fresh);
    let grant = Grant {
        max_uses: uses,
        window,
        constraints,
        origin: asked.origin,
        secret_hash: asked.secret_hash,
        ..base
    };
    plan.steps.push(Step {
        change: Change::Issued,
        new: true,
        grant: grant.clone(),
    });
    let bound = grant
        .bind(asked.grantee, scene.now)
        .map_err(|_| because(Reason::NotBound))?;
    plan.steps.push(Step {
        change: Change::Bound,
        new: false,
        grant: bound.clone(),
    });
    Ok((plan, bound))
}

/// A grantee may ask for another grant while her last one is unused; after it is used only as often as the
/// workflow allows, and not at all after somebody revoked it (unless by a reassignment since undone).
fn may_ask_herself(workflow: &Workflow, theirs: &[&Grant]) -> Result<(), AskRefused> {
    let Some(last) = theirs.last() else { return Ok(()) };
    if let GrantState::Revoked(_, _, reason) = last.state
        && !matches!(reason, Reason::Reassigned | Reason::Reissued)
    {
        return Err(AskRefused::Because(reason));
    }
    if last.uses == 0 {
        return Ok(());
    }
    // What she was given first is not counted, and a grant that she replaced unused is none.
    let used = theirs.iter().filter(|g| g.uses > 0).skip(1);
    let again = used.filter(|g| g.origin == Origin::SelfService).count();
    if again < usize::try_from(workflow.self_reissue).unwrap_or(usize::MAX) {
        Ok(())
    } else {
        Err(AskRefused::Because(Reason::Exhausted))
    }
}

/// `given`, and what `asked` adds where `given` says nothing; `None` where `asked` says otherwise than `given`.
fn within(given: &Constraints, asked: Constraints) -> Option<Constraints> {
    fn list(given: &[String], asked: Vec<String>) -> Option<Vec<String>> {
        if given.is_empty() {
            Some(asked)
        } else {
            (asked.is_empty() || asked == given).then(|| given.to_vec())
        }
    }
    let key = match (&given.key, asked.key) {
        (None, key) => key,
        (Some(given), Some(asked)) if *given != asked => return None,
        (Some(given), _) => Some(given.clone()),
    };
    Some(Constraints {
        ip: list(&given.ip, asked.ip)?,
        client: list(&given.client, asked.client)?,
        content_type: list(&given.content_type, asked.content_type)?,
        key,
    })
}
