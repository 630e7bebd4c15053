//! Tasks that the server makes itself, of the kinds of CodeSystem `task-type`.

use handoff_domain::ids::{ActorRef, DocumentId, TaskId};
use handoff_domain::task::Task;
use handoff_fhir_model::{ParseOptions, Resource, from_value};
use handoff_fhir_profiles::canonical::TASK_TYPE_SYSTEM;
use handoff_fhir_profiles::terminology;
use serde_json::{Value, json};

use super::tasks::facts_of;
use super::{AppError, Scope, json_edit};

/// `Task.code` of such a kind.
pub fn code(kind: &str) -> Value {
    json!({"coding": [coding(TASK_TYPE_SYSTEM, kind)]})
}

/// A coding of a CodeSystem of ours, with its display.
pub fn coding(system: &str, code: &str) -> Value {
    let display = terminology::concept(system, code).map_or(code, |concept| concept.display);
    json!({"system": system, "code": code, "display": display})
}

/// The first version of a Task, from its resource and from what no resource says.
pub fn first_version(
    scope: &Scope,
    id: TaskId,
    resource: Value,
    created_by: ActorRef,
    documents: Vec<DocumentId>,
) -> Result<(Task, Resource), AppError> {
    let mut resource = from_value(resource, &ParseOptions::expecting("Task")).map_err(AppError::invalid)?;
    resource.set_id(id.as_str());
    json_edit::stamp(&mut resource, 1, scope.now());
    let task = Task {
        id,
        version: 1,
        last_updated: scope.now(),
        facts: facts_of(scope, &resource)?,
        created_by,
        held_from: None,
        held_by_parent: false,
        documents,
        former_owners: Vec::new(),
        reissues: 0,
        accessed: false,
        deleted: false,
    };
    Ok((task, resource))
}
