//! What time ends: grants whose window closed and Tasks past their due date. Runs on its own, so that an expiry
//! is a recorded event with its consequences, not something noticed at the next use.

use handoff_domain::effects::{Asked, Change, Plan, issue};
use handoff_domain::grant::{Grant, Origin};
use handoff_domain::ids::{TaskId, TenantId};
use handoff_domain::outbox::Topic;
use handoff_domain::ports::Tx;
use handoff_domain::task::Task;
use handoff_domain::workflow::OnExpiry;

use super::effects::{carry_out, load, scene, settle};
use super::finish::{edit, server_itself};
use super::json_edit::{BusinessStatus, TaskEdit};
use super::tasks::tell;
use super::{App, AppError, Cuts, Scope};

/// How many Tasks are handled in one run.
const BATCH: u32 = 200;

/// Expires what is due now. Answers how many Tasks were concerned.
pub async fn run_once(app: &App) -> Result<usize, AppError> {
    let now = app.clock.now();
    let due: Vec<(TenantId, TaskId)> = app.read(move |read| Ok(read.due(now, BATCH)?)).await?;
    let count = due.len();
    for (tenant, task) in due {
        let caller = server_itself(app, &tenant)?;
        let scope = app.scope(&caller);
        // One Task that fails must not keep the others from ending in time.
        if let Err(error) = app.write(&tenant, move |tx| settle_one(tx, &scope, &task)).await {
            tracing::error!(cause = ?error.cause, reason = %error.reason, "an expiry could not be carried out");
        }
    }
    Ok(count)
}

/// Brings one Task's grants to where they belong by now.
pub fn settle_one(tx: &mut dyn Tx, scope: &Scope, id: &TaskId) -> Result<((), Cuts), AppError> {
    let Some(task) = scope.lock_tasks(tx, std::slice::from_ref(id))?.into_iter().next() else {
        return Ok(((), Cuts::none()));
    };
    let loaded = load(tx, scope, &task)?;
    Ok(((), settle(tx, scope, &task, &loaded)?))
}

/// What follows where grants expired unredeemed by a plan that was carried out for a locked Task.
pub fn follow(tx: &mut dyn Tx, scope: &Scope, task: &Task, plan: &Plan) -> Result<Cuts, AppError> {
    let unredeemed = unredeemed(plan);
    if unredeemed.is_empty() || task.deleted || task.facts.status.is_terminal() {
        return Ok(Cuts::none());
    }
    act(tx, scope, task, &unredeemed)
}

/// Grants that expired without having been used.
fn unredeemed(plan: &Plan) -> Vec<Grant> {
    plan.steps
        .iter()
        .filter(|s| s.change == Change::Expired && s.grant.uses == 0)
        .map(|s| s.grant.clone())
        .collect()
}

/// What the workflow says about an unredeemed expiry.
fn act(tx: &mut dyn Tx, scope: &Scope, task: &Task, expired: &[Grant]) -> Result<Cuts, AppError> {
    let workflow = scope.rules.workflows.of(&task.facts.code);
    match workflow.on_expiry {
        OnExpiry::None => {
            let change = TaskEdit {
                business_status: Some(BusinessStatus::LinkExpired),
                ..TaskEdit::default()
            };
            let task = edit(tx, scope, task, change)?;
            tell(tx, scope, &task, Topic::TaskStatusChanged, "link-expired");
            Ok(Cuts::none())
        }
        OnExpiry::Escalate => {
            let change = TaskEdit {
                business_status: Some(BusinessStatus::Escalated),
                priority: Some(task.facts.priority.raised()),
                ..TaskEdit::default()
            };
            let task = edit(tx, scope, task, change)?;
            tell(tx, scope, &task, Topic::TaskStatusChanged, "escalated");
            Ok(Cuts::none())
        }
        OnExpiry::Reissue { at_most } => {
            let again = task.reissues < at_most;
            let counted = Task {
                reissues: task.reissues.saturating_add(u32::from(again)),
                ..task.clone()
            };
            let change = TaskEdit {
                business_status: Some(BusinessStatus::LinkExpired),
                ..TaskEdit::default()
            };
            let task = edit(tx, scope, &counted, change)?;
            tell(tx, scope, &task, Topic::TaskStatusChanged, "link-expired");
            if again {
                reissue(tx, scope, &task, expired)
            } else {
                Ok(Cuts::none())
            }
        }
    }
}

/// A fresh decision and, where it allows, a fresh grant for each that expired. It has no link: nobody asked.
fn reissue(tx: &mut dyn Tx, scope: &Scope, task: &Task, expired: &[Grant]) -> Result<Cuts, AppError> {
    let workflow = scope.rules.workflows.of(&task.facts.code);
    let mut cuts = Cuts::none();
    for grant in expired {
        let loaded = load(tx, scope, task)?;
        let scene = scene(task, &loaded, workflow, scope);
        let document = loaded.documents.iter().find(|d| d.id == grant.document);
        let found = document.and_then(|d| {
            d.attachments
                .iter()
                .find(|a| a.sha256 == grant.sha256)
                .map(|a| (d, a))
        });
        let (Some((document, attachment)), Some(grantee)) = (found, grant.grantee().cloned()) else {
            continue;
        };
        let asked = Asked {
            document,
            attachment,
            grantee,
            uses: Some(grant.max_uses.min(workflow.max_uses)),
            window: None,
            constraints: grant.constraints.clone(),
            origin: Origin::Reissue,
            secret_hash: None,
        };
        // A Task that no longer releases anything gets no fresh grant; the expiry itself is recorded.
        if let Ok((plan, _)) = issue(&scene, asked, &mut || scope.fresh_grant()) {
            cuts.extend(carry_out(tx, scope, task, &loaded.documents, &plan)?);
        }
    }
    Ok(cuts)
}
