//! Asking for a fresh link: a Task for whoever placed the one that the link belongs to, made by the server when the link's
//! holder asks on its page. One for each link.

use handoff_domain::grant::newest_of;
use handoff_domain::ids::{ActorRef, Handle, TaskId};
use handoff_domain::ports::{Kind, Tx};
use handoff_domain::reason::Reason;
use handoff_domain::task::Task;
use handoff_fhir_profiles::canonical::REASON_SYSTEM;
use serde_json::json;

use super::caps::Reach;
use super::links::{LinkKey, open, requester, stored};
use super::redemption_scene::Scene;
use super::server_tasks::{code, coding, first_version};
use super::tasks::{index, place, sees};
use super::{App, AppError, Caller, Class, Cuts, Scope, json_edit};

/// The code of such Tasks, in CodeSystem `task-type`.
const CODE: &str = "fresh-link";

/// A request for a fresh link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AskedForLink {
    /// The Task that is the request.
    pub task: TaskId,
    /// What whoever was asked is called, where that is known.
    pub of: Option<String>,
    /// Whether the request is still open: one that was made before may have been answered, whichever way.
    pub open: bool,
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

    /// Whether the holder of a link could ask for another. Nothing is recorded.
    pub async fn may_ask_for_link(
        &self,
        caller: &Caller,
        handle: Handle,
        key: LinkKey,
    ) -> Result<bool, AppError> {
        let scope = self.scope(caller);
        let reach = self.demand_content(caller).await?;
        self.write(caller.tenant(), move |tx| {
            let may = match open(tx, &scope, &reach, &handle, key) {
                Ok(scene) => check(tx, &scope, &scene),
                Err(refusal) => Err(refusal),
            };
            match may {
                Err(failure) if failure.store.is_some() => Err(failure),
                answer => Ok((answer.is_ok(), Cuts::none())),
            }
        })
        .await
    }
}

/// Whether another link would open, and is needed.
fn check(tx: &mut dyn Tx, scope: &Scope, scene: &Scene) -> Result<(), AppError> {
    scene
        .gate(scope)
        .check_standing()
        .map_err(|reason| scene.refuse(scope, reason))?;
    if !sees(scope, &scene.task) {
        return Err(scene.refuse(scope, Reason::PolicyDenied));
    }
    let me = &scope.caller.principal.actor;
    let grants = tx.grants_of_task(scope.tenant(), &scene.task.id)?;
    match newest_of(&grants, me, scene.binary.sha256) {
        Some(newest) if newest.is_live(scope.now()) => Err(scene.not_sent(
            scope,
            Class::Conflict,
            Reason::Invalid,
            "the newest link to the document can still be used; there is no need of another",
        )),
        _ => Ok(()),
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
    check(tx, scope, &scene)?;
    let Some(grant) = &scene.grant else {
        return Err(scene.refuse(scope, Reason::NotBound));
    };
    let id = TaskId::parse(format!("{CODE}-{}", grant.id)).map_err(|e| AppError::bad(e.to_string()))?;
    let before = tx.lock_tasks(scope.tenant(), std::slice::from_ref(&id))?.pop();
    let (is_open, cuts) = match &before {
        Some(request) => (
            !request.deleted && !request.facts.status.is_terminal(),
            Cuts::none(),
        ),
        None => (true, request(tx, scope, &scene, &id)?),
    };
    // Who is named on the Task is who was asked, unless it names nobody who can act.
    let of = match scene.task.facts.requester_actor() {
        Some(_) => requester(&stored(tx, scope, Kind::Task, scene.task.id.as_str())?),
        None => None,
    };
    let asked = AskedForLink {
        task: id,
        of,
        open: is_open,
    };
    Ok((asked, cuts))
}

/// Makes the request, as its placer's own: whoever placed the Task sees it, moves it and may delete it.
fn request(tx: &mut dyn Tx, scope: &Scope, scene: &Scene, id: &TaskId) -> Result<Cuts, AppError> {
    let task: &Task = &scene.task;
    let why = scene.grant.as_ref().and_then(|g| g.state.reason());
    let owner: ActorRef = task
        .facts
        .requester_actor()
        .unwrap_or_else(|| task.created_by.clone());
    let mut resource = json!({
        "resourceType": "Task",
        "status": "requested",
        "intent": "order",
        "priority": task.facts.priority.as_str(),
        "code": code(CODE),
        "description": "The link to a document no longer opens; the person it was for asks for another.",
        "focus": {"reference": format!("Task/{}", task.id)},
        "authoredOn": scope.now().to_instant(),
        "requester": {"reference": scope.caller.principal.actor.as_str()},
        "owner": {"reference": owner.as_str()},
        "reasonCode": {"coding": [coding(REASON_SYSTEM, why.unwrap_or(Reason::Expired).as_str())]},
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
    let (made, resource) = first_version(scope, id.clone(), resource, task.created_by.clone(), Vec::new())?;
    place(tx, scope, &made, &resource.to_json(), &index(scope, &resource))
}
