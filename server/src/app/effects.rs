//! Carries out what the domain planned for a Task's grants: writes the grants, cuts and reopens redemptions,
//! records each step and tells subscribers. The only place where a plan becomes rows.

use handoff_domain::audit::{About, Event, Outcome, patient_named};
use handoff_domain::document::Document;
use handoff_domain::effects::{Change, Plan, Scene, reconcile};
use handoff_domain::grant::Grant;
use handoff_domain::ids::DocumentId;
use handoff_domain::outbox::{Topic, TopicEvent};
use handoff_domain::ports::Tx;
use handoff_domain::reason::Reason;
use handoff_domain::task::Task;
use handoff_domain::workflow::Workflow;

use super::{AppError, Cuts, Scope, expiry};

/// What a Task is judged by, loaded under lock.
pub struct Loaded {
    /// Its documents.
    pub documents: Vec<Document>,
    /// Its grants, oldest first.
    pub grants: Vec<Grant>,
}

/// Loads what a locked Task is judged by, and locks its documents against change.
pub fn load(tx: &mut dyn Tx, scope: &Scope, task: &Task) -> Result<Loaded, AppError> {
    let documents = if task.documents.is_empty() {
        Vec::new()
    } else {
        scope.lock_documents(tx, &task.documents, false)?
    };
    let grants = tx.grants_of_task(scope.tenant(), &task.id)?;
    Ok(Loaded { documents, grants })
}

/// Brings a Task's grants to where the Task and its documents demand. Where one is found to have expired, what its
/// workflow says about that happens too, in another version of the Task: whoever finds it, and not again after.
pub fn settle(tx: &mut dyn Tx, scope: &Scope, task: &Task, loaded: &Loaded) -> Result<Cuts, AppError> {
    let workflow = scope.rules.workflows.of(&task.facts.code);
    let scene = scene(task, loaded, workflow, scope);
    let plan = reconcile(&scene, &mut || scope.fresh_grant());
    let mut cuts = carry_out(tx, scope, task, &loaded.documents, &plan)?;
    cuts.extend(expiry::follow(tx, scope, task, &plan)?);
    Ok(cuts)
}

/// The scene of a Task, for planning.
pub fn scene<'a>(task: &'a Task, loaded: &'a Loaded, workflow: &'a Workflow, scope: &'a Scope) -> Scene<'a> {
    Scene {
        task,
        documents: &loaded.documents,
        grants: &loaded.grants,
        workflow,
        standing: &scope.standing,
        now: scope.now(),
    }
}

/// Writes a plan: grants, redemptions, audit rows, outbox rows.
pub fn carry_out(
    tx: &mut dyn Tx,
    scope: &Scope,
    task: &Task,
    documents: &[Document],
    plan: &Plan,
) -> Result<Cuts, AppError> {
    let tenant = scope.tenant().clone();
    // A grant that is issued and bound in one go is written once, as it ends up.
    for (i, step) in plan.steps.iter().enumerate() {
        let later = plan
            .steps
            .iter()
            .skip(i.saturating_add(1))
            .any(|s| s.grant.id == step.grant.id);
        let earlier_new = plan
            .steps
            .iter()
            .take(i)
            .any(|s| s.new && s.grant.id == step.grant.id);
        if !later {
            if step.new || earlier_new {
                tx.insert_grant(&tenant, &step.grant)?;
            } else {
                tx.update_grant(&tenant, &step.grant)?;
            }
        }
        record_step(tx, scope, task, documents, step.change, &step.grant);
    }
    let mut cuts = Cuts::none();
    for (grant, reason) in &plan.cuts {
        if tx.cut_redemptions(&tenant, grant, *reason, scope.now())? > 0 {
            cuts.0.push((grant.clone(), *reason));
        }
    }
    for grant in &plan.reopened {
        tx.reopen_redemptions(
            &tenant,
            grant,
            Reason::TaskOnHold,
            &scope.settings.process,
            scope.now(),
        )?;
    }
    for (document, holder, reason) in &plan.refused {
        let mut row = scope
            .row(Event::GrantDenied, Outcome::Denied, *reason)
            .about(about_document(task, documents, document));
        if let Some(holder) = holder {
            row = row.detail("grantee", holder.as_str());
        }
        tx.record(&tenant, row);
    }
    Ok(cuts)
}

fn record_step(
    tx: &mut dyn Tx,
    scope: &Scope,
    task: &Task,
    documents: &[Document],
    change: Change,
    grant: &Grant,
) {
    let (event, word) = match change {
        Change::Issued => (Event::GrantIssued, "issued"),
        Change::Bound => (Event::GrantBound, "bound"),
        Change::Suspended => (Event::GrantSuspended, "suspended"),
        Change::Resumed => (Event::GrantResumed, "bound"),
        Change::Expired => (Event::GrantExpired, "expired"),
        Change::Revoked => (Event::GrantRevoked, "revoked"),
    };
    let reason = grant
        .state
        .reason()
        .filter(|r| *r != Reason::NotBound)
        .unwrap_or(Reason::Permitted);
    let mut row = scope
        .row(event, Outcome::Success, reason)
        .about(about_grant(task, documents, grant));
    row = row.detail("origin", grant.origin.as_str());
    if let Some(grantee) = grant.grantee() {
        row = row.detail("grantee", grantee.as_str());
    }
    if let Some(at) = grant.expires_at() {
        row = row.detail("expires", at.to_instant());
    }
    let tenant = scope.tenant().clone();
    tx.record(&tenant, row);
    tx.tell(
        &tenant,
        TopicEvent {
            grant: Some(grant.id.to_string()),
            ..scope.event(
                Topic::GrantLifecycle,
                format!("Task/{}", task.id),
                task.version,
                word,
            )
        },
    );
}

/// What a row about a Task says it was about.
pub fn about_task(task: &Task) -> About {
    About {
        task: Some(format!("Task/{}", task.id)),
        task_version: Some(task.version),
        patient: task.facts.subject.as_deref().and_then(patient_named),
        ..About::default()
    }
}

/// What a row about a document under a Task says it was about.
pub fn about_document(task: &Task, documents: &[Document], id: &DocumentId) -> About {
    let document = documents.iter().find(|d| d.id == *id);
    let mut about = about_task(task);
    about.document = Some(format!("DocumentReference/{id}"));
    about.document_version = document.map(|d| d.version);
    if about.patient.is_none() {
        about.patient = document
            .and_then(|d| d.facts.subject.as_deref())
            .and_then(patient_named);
    }
    about
}

/// What a row about a grant says it was about.
pub fn about_grant(task: &Task, documents: &[Document], grant: &Grant) -> About {
    About {
        binary: Some(format!("Binary/{}", grant.binary)),
        grant: Some(grant.id.to_string()),
        ..about_document(task, documents, &grant.document)
    }
}
