//! Emergency access: a person who may break the glass has the server make a Task that releases one document to her at
//! once. That Task is like any other from there on, and so is the gate; what is her own is the record, with her reason,
//! and the alert, both in the transaction that gives access.

use std::sync::Arc;

use handoff_domain::access::{Action, Object, Relation, Role};
use handoff_domain::audit::{About, AuditRow, Event, Outcome, patient_named};
use handoff_domain::break_glass::BreakGlassReason;
use handoff_domain::document::{Document, StoredBinary};
use handoff_domain::grant::{Grant, Origin, newest_of};
use handoff_domain::ids::{ActorRef, BinaryId, DocumentId, GrantId, RedemptionId};
use handoff_domain::outbox::{Topic, TopicEvent};
use handoff_domain::ports::{Kind, Tx};
use handoff_domain::reason::Reason;
use handoff_domain::redemption::RedemptionState;
use handoff_domain::scopes::Interaction;
use handoff_domain::task::{Code, Task, TaskFacts};
use handoff_fhir_profiles::canonical::TASK_TYPE_SYSTEM;
use serde_json::json;

use super::caps::Reach;
use super::effects::{about_document, load};
use super::finish::SERVER;
use super::grants::{GrantRequest, give};
use super::redeem::{Decided, Fetch, by_binary, pick_task, release, strong_etag, unknown, without_relation};
use super::redemption_scene::Scene;
use super::server_tasks::{self, first_version};
use super::streams::Streams;
use super::tasks::{index, new_task_id, place, sees};
use super::{AppError, Cuts, GrantView, Scope};

/// The code of such Tasks, in [`TASK_TYPE_SYSTEM`].
const CODE: &str = "break-glass";

/// Whether the server made the Task because its owner broke the glass.
pub fn is_of(task: &Task) -> bool {
    task.created_by.as_str() == SERVER && is_named(&task.facts)
}

fn is_named(facts: &TaskFacts) -> bool {
    facts
        .code
        .iter()
        .any(|c| c.code == CODE && c.system.as_deref() == Some(TASK_TYPE_SYSTEM))
}

/// Refuses a Task that a client calls so.
pub fn check_code(facts: &TaskFacts, before: Option<&Task>) -> Result<(), AppError> {
    if is_named(facts) && !before.is_some_and(|task| is_named(&task.facts)) {
        let text =
            "such Tasks are made by the server alone; send `X-Break-Glass-Reason` on the fetch or `$grant`";
        return Err(AppError::rule("Task.code", text));
    }
    Ok(())
}

/// The content of a Binary for somebody who breaks the glass; a download that only goes on needs none broken.
pub(super) fn fetch(
    tx: &mut dyn Tx,
    scope: &Scope,
    streams: &Arc<Streams>,
    id: &RedemptionId,
    fetch: &Fetch,
    reason: &BreakGlassReason,
) -> Result<Decided, AppError> {
    let mut about = About {
        binary: Some(format!("Binary/{}", fetch.binary)),
        ..About::default()
    };
    let reach = scope
        .demand("Binary", Interaction::Read)
        .map_err(|e| refused(scope, reason, &about, e))?;
    let found = tx.binary(scope.tenant(), &fetch.binary)?;
    if let Some(binary) = &found {
        if goes_on(tx, scope, binary, fetch)? {
            return by_binary(tx, scope, &reach, streams, id, fetch);
        }
        about = super::binaries::about(binary);
    }
    let asked = Asked {
        scope,
        reason,
        reach: &reach,
    };
    asked
        .by_fetch(tx, streams, id, fetch, found, &mut about)
        .map_err(|e| refused(scope, reason, &about, e))
}

/// A grant with a link for somebody who breaks the glass, under a Task of her own over the document that was asked for.
pub(super) fn grant(
    tx: &mut dyn Tx,
    scope: &Scope,
    request: &GrantRequest,
    reason: &BreakGlassReason,
    secret_hash: [u8; 32],
) -> Result<(GrantView, Cuts), AppError> {
    let mut about = About {
        document: request
            .document
            .as_ref()
            .map(|d| format!("DocumentReference/{d}")),
        ..About::default()
    };
    let asked = scope
        .demand("Task", Interaction::Update)
        .and_then(|tasks| Ok((tasks, scope.demand("Binary", Interaction::Read)?)));
    let (tasks, reach) = asked.map_err(|e| refused(scope, reason, &about, e))?;
    let asked = Asked {
        scope,
        reason,
        reach: &reach,
    };
    asked
        .by_grant(tx, &tasks, request, secret_hash, &mut about)
        .map_err(|e| refused(scope, reason, &about, e))
}

/// Whether the client comes back for the rest of a download that is still open.
fn goes_on(tx: &mut dyn Tx, scope: &Scope, binary: &StoredBinary, fetch: &Fetch) -> Result<bool, AppError> {
    let matches = fetch
        .resume
        .as_ref()
        .is_some_and(|(etag, _)| *etag == strong_etag(binary));
    if !matches {
        return Ok(false);
    }
    let Some(task) = pick_task(tx, scope, binary, fetch.task.as_ref())? else {
        return Ok(false);
    };
    let grants = tx.grants_of_task(scope.tenant(), &task.id)?;
    let Some(grant) = newest_of(&grants, &scope.caller.principal.actor, binary.sha256) else {
        return Ok(false);
    };
    let redemptions = tx.redemptions_of_grant(scope.tenant(), &grant.id)?;
    Ok(redemptions
        .iter()
        .any(|r| r.window_end > scope.now() || r.state == RedemptionState::Streaming))
}

/// Whether a grant can be used and was not.
fn is_unused(scope: &Scope, grant: &Grant) -> bool {
    grant.is_live(scope.now()) && grant.uses == 0
}

/// Whether the caller's role lets her know of things that she has nothing to do with.
fn knows_all(scope: &Scope) -> bool {
    scope.caller.principal.has_any(&[
        Role::Operator,
        Role::RecordsManager,
        Role::Auditor,
        Role::BreakGlass,
    ])
}

/// The refusal of emergency access, recorded as one whatever it was that refused it. A Task that was made is gone again.
fn refused(scope: &Scope, reason: &BreakGlassReason, about: &About, mut error: AppError) -> AppError {
    if error.store.is_some() {
        return error;
    }
    let row = match error.denial.take() {
        Some(row) => AuditRow {
            event: Event::BreakGlass,
            outcome: Outcome::Denied,
            ..*row
        },
        None => scope.row(Event::BreakGlass, Outcome::Denied, error.reason),
    };
    error.recorded(row.about(about.clone()).detail("note", reason.as_str()))
}

/// Emergency access, as it was asked for.
struct Asked<'a> {
    scope: &'a Scope,
    reason: &'a BreakGlassReason,
    /// How far the scopes reach content.
    reach: &'a Reach,
}

impl Asked<'_> {
    fn by_fetch(
        &self,
        tx: &mut dyn Tx,
        streams: &Arc<Streams>,
        id: &RedemptionId,
        fetch: &Fetch,
        found: Option<StoredBinary>,
        about: &mut About,
    ) -> Result<Decided, AppError> {
        let scope = self.scope;
        let binary = found.ok_or_else(|| unknown(scope, &fetch.binary))?;
        let named = fetch.task.as_ref();
        let related = pick_task(tx, scope, &binary, named)?;
        let Some(document) = &binary.document else {
            return Err(without_relation(scope, &binary, named));
        };
        let (live, document) = self.lock(tx, document, Some(&binary.id))?;
        let relation = Relation {
            creator: document.created_by == scope.caller.principal.actor,
            through_task: related.as_ref().is_some_and(|t| !t.deleted && sees(scope, t)),
            ..Relation::default()
        };
        let knows = related.is_some() || binary.uploaded_by == scope.caller.principal.actor;
        self.permit(relation, &document, knows)?;
        fill(about, &document);
        let live = match live {
            Some(task) => {
                let scene = Scene::lock(tx, scope, &task.id, binary.clone())?;
                let unused = scene.grant.as_ref().is_some_and(|g| is_unused(scope, g));
                (unused && scene.gate(scope).check().is_ok()).then_some(task)
            }
            None => None,
        };
        let (task, _none) = self.task(tx, live, &document, Some(&binary.id))?;
        let scene = Scene::lock(tx, scope, &task.id, binary)?;
        self.alert(tx, &task, scene.grant.as_ref().map(|g| &g.id));
        release(scene, tx, scope, streams, id, fetch)
    }

    fn by_grant(
        &self,
        tx: &mut dyn Tx,
        tasks: &Reach,
        request: &GrantRequest,
        secret_hash: [u8; 32],
        about: &mut About,
    ) -> Result<(GrantView, Cuts), AppError> {
        let (scope, me) = (self.scope, &self.scope.caller.principal.actor);
        let named = tx
            .task(scope.tenant(), &request.task)?
            .filter(|t| !t.deleted && (knows_all(scope) || sees(scope, t)))
            .ok_or_else(AppError::not_found)?;
        if !tasks.covers_present(tx, scope, Kind::Task, named.id.as_str())? {
            return Err(AppError::not_found());
        }
        let id = match (&request.document, named.documents.as_slice()) {
            (Some(id), documents) if documents.contains(id) => id.clone(),
            (Some(id), _) => {
                super::read::check_visible(&mut *tx, scope, Kind::Document, id.as_str())?;
                return Err(AppError::rule("document", "the document is not in the Task"));
            }
            (None, [only]) => only.clone(),
            (None, []) => return Err(AppError::rule("document", "the Task has no document")),
            (None, _) => {
                return Err(AppError::rule(
                    "document",
                    "the Task has several documents; say which",
                ));
            }
        };
        let asked_for = if let Some(binary) = &request.binary {
            Some(binary.clone())
        } else {
            let document = tx.document(scope.tenant(), &id)?;
            document.and_then(|d| d.attachments.first().map(|a| a.binary.clone()))
        };
        let (live, document) = self.lock(tx, &id, asked_for.as_ref())?;
        let relation = Relation {
            creator: document.created_by == *me,
            through_task: sees(scope, &named),
            ..Relation::default()
        };
        self.permit(relation, &document, true)?;
        fill(about, &document);
        if request.actor.as_ref().is_some_and(|actor| actor != me) {
            return Err(AppError::forbidden(Reason::NotGrantee));
        }
        let content = document
            .attachments
            .iter()
            .find(|a| Some(&a.binary) == asked_for.as_ref());
        let live = match (live, content) {
            (Some(task), Some(content)) => {
                let grants = tx.grants_of_task(scope.tenant(), &task.id)?;
                let newest = newest_of(&grants, me, content.sha256);
                newest.is_some_and(|g| is_unused(scope, g)).then_some(task)
            }
            _ => None,
        };
        let (task, mut cuts) = self.task(tx, live, &document, asked_for.as_ref())?;
        let loaded = load(tx, scope, &task)?;
        let request = GrantRequest {
            task: task.id.clone(),
            document: Some(id),
            ..request.clone()
        };
        let whose = (Origin::SelfService, me.clone());
        let (view, more) = give(tx, scope, tasks, &request, (&task, &loaded), whose, secret_hash)?;
        cuts.extend(more);
        self.alert(tx, &task, Some(&view.grant.id));
        Ok((view, cuts))
    }

    /// The document under lock, and before it the Task of an earlier time that still holds an unused grant for the caller.
    fn lock(
        &self,
        tx: &mut dyn Tx,
        document: &DocumentId,
        binary: Option<&BinaryId>,
    ) -> Result<(Option<Task>, Document), AppError> {
        let scope = self.scope;
        let mut live = None;
        let grants = match binary {
            Some(binary) => tx.grants_of_binary(scope.tenant(), binary)?,
            None => Vec::new(),
        };
        for grant in grants {
            let mine = grant.grantee() == Some(&scope.caller.principal.actor);
            if mine
                && grant.document == *document
                && is_unused(scope, &grant)
                && tx.task(scope.tenant(), &grant.task)?.is_some_and(|t| is_of(&t))
            {
                live = Some(grant.task);
                break;
            }
        }
        let live = match live {
            Some(id) => scope.lock_tasks(tx, &[id])?.into_iter().next(),
            None => None,
        };
        let document = scope
            .lock_documents(tx, std::slice::from_ref(document), false)?
            .into_iter()
            .next()
            .ok_or_else(AppError::not_found)?;
        // Now that nobody can change it.
        if !self.reach.covers_content_of(tx, scope, Some(&document.id))? {
            return Err(AppError::not_found());
        }
        Ok((live, document))
    }

    /// Whether the rules let the caller break the glass for the document. It is as if there were none for whoever may not
    /// know of it.
    fn permit(&self, relation: Relation, document: &Document, knows: bool) -> Result<(), AppError> {
        let scope = self.scope;
        let object = Object::Document(Some(document));
        if scope.allows(Action::BreakGlass, relation, object).is_err() {
            let refusal = scope.denied(Action::BreakGlass, Event::BreakGlass);
            return Err(if knows || knows_all(scope) {
                refusal
            } else {
                AppError {
                    denial: refusal.denial,
                    ..AppError::not_found()
                }
            });
        }
        // An emergency is somebody's.
        match document.facts.subject.as_deref() {
            Some(subject) if subject.starts_with("Patient/") => Ok(()),
            _ => Err(AppError::forbidden(Reason::DocumentWithheld)),
        }
    }

    /// The Task that gives access, with the record of it: the one of an earlier time, or else a new one.
    fn task(
        &self,
        tx: &mut dyn Tx,
        live: Option<Task>,
        document: &Document,
        binary: Option<&BinaryId>,
    ) -> Result<(Task, Cuts), AppError> {
        let record = |tx: &mut dyn Tx, task: &Task| {
            let about = About {
                binary: binary.map(|id| format!("Binary/{id}")),
                ..about_document(task, std::slice::from_ref(document), &document.id)
            };
            let row = self
                .scope
                .row(Event::BreakGlass, Outcome::Success, Reason::BreakGlass);
            let row = row.about(about).detail("note", self.reason.as_str());
            tx.record(self.scope.tenant(), row);
        };
        if let Some(task) = live {
            record(tx, &task);
            return Ok((task, Cuts::none()));
        }
        let (scope, now) = (self.scope, self.scope.now());
        let code = Code {
            system: Some(TASK_TYPE_SYSTEM.to_owned()),
            code: CODE.to_owned(),
        };
        let due = now.plus(scope.rules.workflows.of(&[code]).grant_window);
        let me = json!({"reference": scope.caller.principal.actor.as_str()});
        let resource = json!({
            "resourceType": "Task",
            "status": "in-progress",
            "intent": "order",
            "priority": "stat",
            "code": server_tasks::code(CODE),
            "focus": {"reference": format!("DocumentReference/{}", document.id)},
            "for": {"reference": document.facts.subject},
            "authoredOn": now.to_instant(),
            "requester": me,
            "owner": me,
            "reasonCode": {"text": self.reason.as_str()},
            "restriction": {"period": {"end": due.to_instant()}},
        });
        // Not the one who will fetch: who placed a Task never does.
        let created_by = ActorRef::parse(SERVER).map_err(|e| AppError::bad(e.to_string()))?;
        let id = new_task_id(scope)?;
        let documents = vec![document.id.clone()];
        let (task, resource) = first_version(scope, id, resource, created_by, documents)?;
        record(tx, &task);
        let cuts = place(tx, scope, &task, &resource.to_json(), &index(scope, &resource))?;
        Ok((task, cuts))
    }

    /// Tells subscribers at once.
    fn alert(&self, tx: &mut dyn Tx, task: &Task, grant: Option<&GrantId>) {
        tx.tell(
            self.scope.tenant(),
            TopicEvent {
                grant: grant.map(ToString::to_string),
                ..self.scope.event(
                    Topic::BreakGlass,
                    format!("Task/{}", task.id),
                    task.version,
                    "broken",
                )
            },
        );
    }
}

/// What a refusal was about, once the document is known.
fn fill(about: &mut About, document: &Document) {
    about.document = Some(format!("DocumentReference/{}", document.id));
    about.document_version = Some(document.version);
    about.patient = document.facts.subject.as_deref().and_then(patient_named);
}
