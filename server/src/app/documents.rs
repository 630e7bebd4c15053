//! Creating, changing and deleting a document: its attachments are tied to content we hold, a document that takes
//! another's place supersedes it, and every Task that releases it is judged anew in the same transaction.

use handoff_domain::access::{Action, Object, Relation};
use handoff_domain::audit::{About, Event, Outcome, patient_named};
use handoff_domain::document::{Attachment, Document, DocumentFacts, DocumentStatus, Sha256};
use handoff_domain::ids::{BinaryId, DocumentId};
use handoff_domain::outbox::Topic;
use handoff_domain::ports::{Kind, Tx};
use handoff_domain::reason::Reason;
use handoff_domain::retention::Availability;
use handoff_domain::scopes::Interaction;
use handoff_domain::task::{Code, Task};
use handoff_fhir_model::{Resource, document_facts, search_index};

use super::attachments::{self, resolve};
use super::binaries;
use super::caps::Reach;
use super::effects::{load, settle};
use super::holds;
use super::tasks::{Expected, sees};
use super::{App, AppError, Caller, Class, Cuts, Scope, Stored, json_edit};

impl App {
    /// Creates a document. Inline data becomes a Binary of its own.
    pub async fn create_document(&self, caller: &Caller, resource: Resource) -> Result<Stored, AppError> {
        let scope = self.scope(caller);
        // Before its content is taken in.
        self.demand(&scope, "DocumentReference", Interaction::Create)
            .await?;
        let id = new_document_id(&scope)?;
        self.with_content(caller, resource, move |tx, scope, resource| {
            create(tx, scope, &id, resource)
                .map_err(|error| scope.refused(error, Event::DocumentCreated, About::default()))
        })
        .await
    }

    /// Changes a document.
    pub async fn update_document(
        &self,
        caller: &Caller,
        id: DocumentId,
        resource: Resource,
        expected: Expected,
    ) -> Result<Stored, AppError> {
        self.demand(&self.scope(caller), "DocumentReference", Interaction::Update)
            .await?;
        self.with_content(caller, resource, move |tx, scope, resource| {
            update(tx, scope, &id, resource, expected)
                .map_err(|error| scope.refused(error, Event::DocumentUpdated, About::of_document(&id)))
        })
        .await
    }

    /// Takes the inline data of a document in, then runs `work` in the transaction that also records that content.
    pub(super) async fn with_content<T: Send + Sync + 'static>(
        &self,
        caller: &Caller,
        mut resource: Resource,
        mut work: impl FnMut(&mut dyn Tx, &Scope, &Resource) -> Result<(T, Cuts), AppError> + Send + 'static,
    ) -> Result<T, AppError> {
        let (app, caller) = (self.clone(), caller.clone());
        self.to_the_end(async move {
            let scope = app.scope(&caller);
            let ingested = attachments::take_inline_data(&app, &caller, &mut resource).await?;
            let unit = ingested.clone();
            let answer = app
                .write(caller.tenant(), move |tx| {
                    for one in &unit {
                        binaries::insert(tx, &scope, one)?;
                    }
                    work(tx, &scope, &resource)
                })
                .await;
            app.discard_unless(&answer, &ingested).await;
            answer
        })
        .await
    }

    /// Deletes a document; what was granted of it is revoked. Deleting it again is no error.
    pub async fn delete_document(
        &self,
        caller: &Caller,
        id: DocumentId,
        expected: Expected,
    ) -> Result<(), AppError> {
        let scope = self.scope(caller);
        self.write(caller.tenant(), move |tx| {
            delete(tx, &scope, &id, expected)
                .map_err(|error| scope.refused(error, Event::DocumentDeleted, About::of_document(&id)))
        })
        .await
    }
}

/// An id for a new document.
pub fn new_document_id(scope: &Scope) -> Result<DocumentId, AppError> {
    DocumentId::parse(scope.ordered_id()).map_err(|e| AppError::bad(e.to_string()))
}

/// Creates a document inside a transaction. Its inline data must have been taken out before.
pub fn create(
    tx: &mut dyn Tx,
    scope: &Scope,
    id: &DocumentId,
    resource: &Resource,
) -> Result<(Stored, Cuts), AppError> {
    let reach = scope.demand("DocumentReference", Interaction::Create)?;
    scope.permit(
        Action::DocumentCreate,
        Relation::default(),
        Object::Tenant,
        Event::DocumentCreated,
    )?;
    let mut resource = resource.clone();
    let facts = facts_of(scope, &resource)?;
    let attachments = resolve(tx, scope, id, &facts, &mut resource)?;
    let class = class_of(&facts);
    let available = scope.rules.schedules.of(class.as_deref()).available;
    let document = Document {
        id: id.clone(),
        version: 1,
        content_version: 1,
        last_updated: scope.now(),
        class,
        created_by: scope.caller.principal.actor.clone(),
        attachments,
        superseded: false,
        deleted: false,
        availability: Availability {
            from: None,
            until: available.map(|available| scope.now().plus(available)),
        },
        retain_until: None,
        past_classes: Vec::new(),
        disposed: false,
        facts,
    };
    resource.set_id(id.as_str());
    json_edit::stamp(&mut resource, 1, document.last_updated);
    let answer = stored(&document, resource.to_json(), true);
    scope.keep_within(&reach, &answer, about(&document))?;
    let index = search_index(&resource, &scope.fhir_base());
    tx.insert_document(scope.tenant(), &document, &answer.body, &index)?;
    let mut row = scope
        .row(Event::DocumentCreated, Outcome::Success, Reason::Permitted)
        .about(about(&document));
    row = row.detail("class", document.class.as_deref().unwrap_or("unmapped"));
    tx.record(scope.tenant(), row);
    tell(tx, scope, &document, Topic::DocumentVersion);
    let cuts = supersede_all(tx, scope, &document, &[])?;
    Ok((answer, cuts))
}

/// Changes a document inside a transaction.
pub fn update(
    tx: &mut dyn Tx,
    scope: &Scope,
    id: &DocumentId,
    resource: &Resource,
    expected: Expected,
) -> Result<(Stored, Cuts), AppError> {
    let reach = scope.demand("DocumentReference", Interaction::Update)?;
    let (tasks, before) = lock_with_tasks(tx, scope, id)?;
    let before = before.ok_or_else(AppError::not_found)?;
    let relation = relation_to(scope, &before, &tasks);
    if scope
        .allows(Action::DocumentRead, relation, Object::Document(Some(&before)))
        .is_err()
        || !reach.covers_present(tx, scope, Kind::Document, id.as_str())?
    {
        return Err(AppError::not_found());
    }
    if before.deleted {
        return Err(AppError::new(
            Class::Gone,
            Reason::DocumentDeleted,
            "the document was deleted",
        ));
    }
    scope
        .permit(
            Action::DocumentUpdate,
            relation,
            Object::Document(Some(&before)),
            Event::DocumentUpdated,
        )
        .map_err(|e| e.about(about(&before)))?;
    expected.check(before.version, false)?;
    let mut resource = resource.clone();
    let facts = facts_of(scope, &resource)?;
    let attachments = resolve(tx, scope, id, &facts, &mut resource)?;
    let same_content = contents(&attachments) == contents(&before.attachments);
    let after = Document {
        version: before.version.saturating_add(1),
        content_version: before.content_version.saturating_add(i64::from(!same_content)),
        last_updated: before.last_updated.max(scope.now()),
        class: class_of(&facts),
        attachments,
        facts,
        ..before.clone()
    }
    .remembering_class(&before)
    .remembering_infected(&before);
    holds::deny_escape(tx, scope, &before, &after)?;
    resource.set_id(id.as_str());
    json_edit::stamp(&mut resource, after.version, after.last_updated);
    let answer = stored(&after, resource.to_json(), false);
    scope.keep_within(&reach, &answer, about(&after))?;
    let index = search_index(&resource, &scope.fhir_base());
    tx.update_document(scope.tenant(), &after, &answer.body, Some(&index))?;
    let row = scope
        .row(Event::DocumentUpdated, Outcome::Success, Reason::Permitted)
        .about(about(&after));
    tx.record(scope.tenant(), row);
    tell(tx, scope, &after, Topic::DocumentVersion);
    let was_current = before.facts.status == DocumentStatus::Current;
    if !same_content || (was_current && after.facts.status == DocumentStatus::Superseded) {
        record_superseded(tx, scope, &after);
    }
    let mut cuts = settle_tasks(tx, scope, &tasks)?;
    cuts.extend(supersede_all(tx, scope, &after, &before.facts.replaces)?);
    Ok((answer, cuts))
}

/// Deletes a document inside a transaction.
pub fn delete(
    tx: &mut dyn Tx,
    scope: &Scope,
    id: &DocumentId,
    expected: Expected,
) -> Result<((), Cuts), AppError> {
    let reach = scope.demand("DocumentReference", Interaction::Delete)?;
    let (tasks, before) = lock_with_tasks(tx, scope, id)?;
    let reached = reach.covers_present(tx, scope, Kind::Document, id.as_str())?;
    let seen = before.filter(|d| !d.deleted && reached).and_then(|document| {
        let relation = relation_to(scope, &document, &tasks);
        let object = Object::Document(Some(&document));
        let seen = scope.allows(Action::DocumentRead, relation, object).is_ok();
        seen.then_some((document, relation))
    });
    let Some((before, relation)) = seen else {
        tx.record(
            scope.tenant(),
            scope.in_vain(Event::DocumentDeleted, About::of_document(id)),
        );
        return Ok(((), Cuts::none()));
    };
    scope
        .permit(
            Action::DocumentDelete,
            relation,
            Object::Document(Some(&before)),
            Event::DocumentDeleted,
        )
        .map_err(|e| e.about(about(&before)))?;
    expected.check(before.version, false)?;
    holds::deny(tx, scope, &before)?;
    let after = Document {
        version: before.version.saturating_add(1),
        last_updated: before.last_updated.max(scope.now()),
        deleted: true,
        ..before
    };
    tx.update_document(scope.tenant(), &after, &[], None)?;
    let row = scope
        .row(Event::DocumentDeleted, Outcome::Success, Reason::Permitted)
        .about(about(&after));
    tx.record(scope.tenant(), row);
    let cuts = settle_tasks(tx, scope, &tasks)?;
    Ok(((), cuts))
}

/// Locks a document and, before it, the Tasks that release it: Tasks always come first.
pub fn lock_with_tasks(
    tx: &mut dyn Tx,
    scope: &Scope,
    id: &DocumentId,
) -> Result<(Vec<Task>, Option<Document>), AppError> {
    let ids = tx.tasks_of_document(scope.tenant(), id)?;
    let tasks = if ids.is_empty() {
        Vec::new()
    } else {
        scope.lock_tasks(tx, &ids)?
    };
    let document = scope
        .lock_documents(tx, std::slice::from_ref(id), true)?
        .into_iter()
        .next();
    // A Task may have taken the document in between: with the document locked, none can any more.
    let mut again = tx.tasks_of_document(scope.tenant(), id)?;
    again.retain(|t| !tasks.iter().any(|known| known.id == *t));
    if again.is_empty() {
        Ok((tasks, document))
    } else {
        Err(AppError::from(handoff_domain::ports::StoreError::Conflict))
    }
}

/// How the caller stands to a document, given the Tasks that release it.
pub fn relation_to(scope: &Scope, document: &Document, tasks: &[Task]) -> Relation {
    Relation {
        creator: document.created_by == scope.caller.principal.actor,
        through_task: tasks.iter().any(|t| !t.deleted && sees(scope, t)),
        ..Relation::default()
    }
}

/// Judges the Tasks that release a changed document anew.
pub(super) fn settle_tasks(tx: &mut dyn Tx, scope: &Scope, tasks: &[Task]) -> Result<Cuts, AppError> {
    let mut cuts = Cuts::none();
    for task in tasks
        .iter()
        .filter(|t| !t.deleted && !t.facts.status.is_terminal())
    {
        let loaded = load(tx, scope, task)?;
        cuts.extend(settle(tx, scope, task, &loaded)?);
    }
    Ok(cuts)
}

/// Documents that this one says it replaces, and did not before, are superseded, where the caller may: others are
/// named without effect, whether they exist or not.
fn supersede_all(
    tx: &mut dyn Tx,
    scope: &Scope,
    document: &Document,
    before: &[String],
) -> Result<Cuts, AppError> {
    let targets: Vec<DocumentId> = document
        .facts
        .replaces
        .iter()
        .filter(|r| !before.contains(r))
        .filter_map(|r| document_of(r))
        .filter(|id| *id != document.id)
        .collect();
    let mut cuts = Cuts::none();
    if targets.is_empty() {
        return Ok(cuts);
    }
    // The other document is changed, whoever it is about.
    let reach = scope.demand("DocumentReference", Interaction::Update)?;
    for id in targets {
        cuts.extend(supersede(tx, scope, &reach, &id)?);
    }
    Ok(cuts)
}

/// The documents that a DocumentReference says it replaces, whether that has an effect or not.
pub fn replaced_by(scope: &Scope, resource: &Resource) -> Result<Vec<DocumentId>, AppError> {
    Ok(facts_of(scope, resource)?
        .replaces
        .iter()
        .filter_map(|r| document_of(r))
        .collect())
}

fn document_of(reference: &str) -> Option<DocumentId> {
    let rest = reference.strip_prefix("DocumentReference/")?;
    DocumentId::parse(rest.split('/').next().unwrap_or_default()).ok()
}

fn supersede(tx: &mut dyn Tx, scope: &Scope, reach: &Reach, id: &DocumentId) -> Result<Cuts, AppError> {
    let (tasks, before) = lock_with_tasks(tx, scope, id)?;
    let Some(before) = before.filter(|d| !d.deleted && !d.superseded) else {
        return Ok(Cuts::none());
    };
    let relation = relation_to(scope, &before, &tasks);
    if !relation.creator
        || scope
            .allows(Action::DocumentUpdate, relation, Object::Document(Some(&before)))
            .is_err()
    {
        return Ok(Cuts::none());
    }
    let stored = tx
        .current(scope.tenant(), Kind::Document, id.as_str())?
        .ok_or_else(AppError::not_found)?;
    if !reach.covers(scope, id.as_str(), stored.last_updated, &stored.body) {
        return Ok(Cuts::none());
    }
    let (version, at) = (
        before.version.saturating_add(1),
        before.last_updated.max(scope.now()),
    );
    let in_error = before.facts.status == DocumentStatus::EnteredInError;
    let resource = if in_error {
        let mut same = json_edit::open(&stored.body)?;
        json_edit::stamp(&mut same, version, at);
        same
    } else {
        json_edit::supersede_document(&stored.body, version, at)?
    };
    let mut after = Document {
        version,
        last_updated: at,
        superseded: true,
        ..before
    };
    if !in_error {
        after.facts.status = DocumentStatus::Superseded;
    }
    let index = search_index(&resource, &scope.fhir_base());
    tx.update_document(scope.tenant(), &after, &resource.to_json(), Some(&index))?;
    tell(tx, scope, &after, Topic::DocumentVersion);
    record_superseded(tx, scope, &after);
    settle_tasks(tx, scope, &tasks)
}

fn record_superseded(tx: &mut dyn Tx, scope: &Scope, document: &Document) {
    let row = scope
        .row(
            Event::DocumentSuperseded,
            Outcome::Success,
            Reason::DocumentSuperseded,
        )
        .about(about(document))
        .detail("content-version", document.content_version.to_string());
    tx.record(scope.tenant(), row);
    tell(tx, scope, document, Topic::DocumentSuperseded);
}

/// Tells subscribers of a document event.
fn tell(tx: &mut dyn Tx, scope: &Scope, document: &Document, topic: Topic) {
    let focus = format!("DocumentReference/{}", document.id);
    let event = scope.event(topic, focus, document.version, document.facts.status.as_str());
    tx.tell(scope.tenant(), event);
}

/// The facts of a DocumentReference, with our own base taken off its references.
fn facts_of(scope: &Scope, resource: &Resource) -> Result<DocumentFacts, AppError> {
    let mut facts = document_facts(resource).map_err(AppError::invalid)?;
    let base = scope.fhir_base();
    let urls = facts.attachments.iter_mut().filter_map(|a| a.url.as_mut());
    let own = facts.subject.iter_mut().chain(&mut facts.replaces);
    for reference in own.chain(&mut facts.encounters).chain(urls) {
        if let Some(local) = reference.strip_prefix(&base) {
            *reference = local.to_owned();
        }
    }
    Ok(facts)
}

fn class_of(facts: &DocumentFacts) -> Option<String> {
    let class = |code: &Code| {
        handoff_fhir_profiles::document_class(code.system.as_deref().unwrap_or_default(), &code.code)
    };
    facts
        .kind
        .iter()
        .chain(&facts.category)
        .find_map(class)
        .map(str::to_owned)
}

fn contents(attachments: &[Attachment]) -> std::collections::BTreeSet<Sha256> {
    attachments.iter().map(|a| a.sha256).collect()
}

/// What a row about a document says it was about.
pub fn about(document: &Document) -> About {
    About {
        document: Some(format!("DocumentReference/{}", document.id)),
        document_version: Some(document.version),
        patient: document.facts.subject.as_deref().and_then(patient_named),
        ..About::default()
    }
}

/// A stored document as it is answered.
fn stored(document: &Document, body: Vec<u8>, created: bool) -> Stored {
    Stored {
        kind: Kind::Document.as_str(),
        id: document.id.to_string(),
        version: document.version,
        last_updated: document.last_updated,
        body,
        created,
    }
}

/// The Binary that an attachment's relative URL names: `Binary/{id}`, with or without a version.
pub fn binary_of(url: &str) -> Option<Result<BinaryId, ()>> {
    let rest = url.strip_prefix("Binary/")?;
    let (id, version) = match rest.split_once("/_history/") {
        Some((id, version)) => (id, version),
        None => (rest, "1"),
    };
    Some(if version == "1" {
        BinaryId::parse(id).map_err(|_| ())
    } else {
        Err(())
    })
}
