//! Asking for a fresh link: a Task for whoever placed the one that the link belongs to, made by the server when the link's
//! holder asks on its page. One for each link.

use handoff_domain::ids::{Handle, TaskId};
use handoff_domain::ports::{Kind, Tx};
use handoff_domain::reason::Reason;
use handoff_domain::task::Task;
use handoff_fhir_model::{ParseOptions, from_value};
use handoff_fhir_profiles::canonical::{REASON_SYSTEM, TASK_TYPE_SYSTEM};
use handoff_fhir_profiles::terminology;
use serde_json::json;

use super::caps::Reach;
use super::links::{LinkKey, open, requester, still_opens, stored};
use super::redemption_scene::Scene;
use super::tasks::{facts_of, place, sees};
use super::{App, AppError, Caller, Class, Cuts, Scope, json_edit};

/// The code of such Tasks, in [`TASK_TYPE_SYSTEM`].
const CODE: &str = "fresh-link";

/// A request for a fresh link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AskedForLink {
    /// The Task that is the request.
    pub task: TaskId,
    /// What whoever was asked is called.
    pub of: Option<String>,
}

impl App {
    /// Asks the sender of a link for another. Asking again is the same request.
    pub async fn ask_for_link(
        &self,
        caller: &Caller,
        handle: Handle,
        key: LinkKey,
    ) -> Result<AskedForLink, AppError> {
        let scope = self.scope(caller);
        let reach = self.demand_content(caller).await?;
        self.write(caller.tenant(), move |tx| ask(tx, &scope, &reach, &handle, key))
            .await
    }
}

fn ask(
    tx: &mut dyn Tx,
    scope: &Scope,
    reach: &Reach,
    handle: &Handle,
    key: LinkKey,
) -> Result<(AskedForLink, Cuts), AppError> {
    let scene = open(tx, scope, reach, handle, key)?;
    let Some(grant) = &scene.grant else {
        return Err(scene.refuse(scope, Reason::NotBound));
    };
    // Where another would not open either, there is nothing to ask for.
    scene
        .gate(scope)
        .check_standing()
        .map_err(|reason| scene.refuse(scope, reason))?;
    if !sees(scope, &scene.task) {
        return Err(scene.refuse(scope, Reason::PolicyDenied));
    }
    if still_opens(grant, scope.now()) {
        return Err(AppError::new(
            Class::Conflict,
            Reason::Invalid,
            "the link still opens the document; there is no need of another",
        ));
    }
    let id = TaskId::parse(format!("{CODE}-{}", grant.id)).map_err(|e| AppError::bad(e.to_string()))?;
    let of = requester(&stored(tx, scope, Kind::Task, scene.task.id.as_str())?);
    let cuts = match tx.lock_tasks(scope.tenant(), std::slice::from_ref(&id))?.pop() {
        // Asked before; how that went is in the request.
        Some(_) => Cuts::none(),
        None => request(tx, scope, &scene, &id)?,
    };
    Ok((AskedForLink { task: id, of }, cuts))
}

/// Makes the request, as its placer's own: whoever placed the Task sees it, moves it and may delete it.
fn request(tx: &mut dyn Tx, scope: &Scope, scene: &Scene, id: &TaskId) -> Result<Cuts, AppError> {
    let (task, now) = (&scene.task, scope.now());
    let display = |system, code| terminology::concept(system, code).map_or(code, |c| c.display);
    let why = scene.grant.as_ref().and_then(|g| g.state.reason());
    let why = why.unwrap_or(Reason::Expired).as_str();
    let owner = task.facts.requester_actor();
    let mut resource = json!({
        "resourceType": "Task",
        "status": "requested",
        "intent": "order",
        "priority": task.facts.priority.as_str(),
        "code": {"coding": [{
            "system": TASK_TYPE_SYSTEM,
            "code": CODE,
            "display": display(TASK_TYPE_SYSTEM, CODE),
        }]},
        "description": "The link to a document no longer opens; the person it was for asks for another.",
        "focus": {"reference": format!("Task/{}", task.id)},
        "authoredOn": now.to_instant(),
        "requester": {"reference": scope.caller.principal.actor.as_str()},
        "owner": {"reference": owner.as_ref().unwrap_or(&task.created_by).as_str()},
        "reasonCode": {"coding": [{
            "system": REASON_SYSTEM,
            "code": why,
            "display": display(REASON_SYSTEM, why),
        }]},
    });
    if let Some(subject) = &task.facts.subject {
        json_edit::set_field(&mut resource, "for", json!({"reference": subject}));
    }
    if let Some(document) = &scene.document {
        // As a text: the request releases nothing.
        let named = format!("DocumentReference/{}", document.id);
        let input = json!([{"type": {"text": "document"}, "valueString": named}]);
        json_edit::set_field(&mut resource, "input", input);
    }
    let mut resource = from_value(resource, &ParseOptions::expecting("Task")).map_err(AppError::invalid)?;
    resource.set_id(id.as_str());
    json_edit::stamp(&mut resource, 1, now);
    let made = Task {
        id: id.clone(),
        version: 1,
        last_updated: now,
        facts: facts_of(scope, &resource)?,
        created_by: task.created_by.clone(),
        held_from: None,
        held_by_parent: false,
        documents: Vec::new(),
        former_owners: Vec::new(),
        reissues: 0,
        accessed: false,
        deleted: false,
    };
    place(tx, scope, &made, &resource)
}
