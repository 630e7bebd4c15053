//! Transaction and batch Bundles. A transaction is one database transaction: references between its entries are
//! rewritten, deletions come first, then Binaries, documents and Tasks, and all of it happens or nothing.

use std::collections::{BTreeMap, BTreeSet};

use handoff_domain::audit::{About, Event};
use handoff_domain::ids::{BinaryId, DocumentId, TaskId};
use handoff_domain::ports::Tx;
use handoff_domain::reason::Reason;
use handoff_domain::scopes::Interaction;
use handoff_fhir_model::bundle::{Bundle, Entry};
use handoff_fhir_model::links::LinkKind;
use handoff_fhir_model::{Issue, IssueType, Resource};

use super::attachments::take_inline_data;
use super::binaries::{self, Ingested};
use super::tasks::Expected;
use super::{App, AppError, Caller, Class, Cuts, Scope, Stored, admission, documents, tasks};

/// What became of one entry.
#[derive(Debug, Clone)]
pub enum EntryAnswer {
    /// Created or changed.
    Stored(Stored),
    /// Deleted.
    Deleted,
    /// Refused; in batches only.
    Failed(AppError),
}

/// What one entry asks for.
#[derive(Clone)]
enum Act {
    CreateBinary(Box<Ingested>),
    CreateDocument(DocumentId, Box<Resource>, Vec<Ingested>),
    CreateTask(TaskId, Box<Resource>),
    UpdateDocument(DocumentId, Box<Resource>, Vec<Ingested>, Expected),
    UpdateTask(TaskId, Box<Resource>, Expected),
    DeleteDocument(DocumentId, Expected),
    DeleteTask(TaskId, Expected),
}

impl Act {
    /// Where in a transaction it is done, whatever the order of the entries.
    const fn rank(&self) -> u8 {
        match self {
            Self::DeleteDocument(..) | Self::DeleteTask(..) => 0,
            Self::CreateBinary(_) => 1,
            Self::CreateDocument(..) => 2,
            Self::CreateTask(..) => 3,
            Self::UpdateDocument(..) => 4,
            Self::UpdateTask(..) => 5,
        }
    }

    fn ingested(&self) -> &[Ingested] {
        match self {
            Self::CreateBinary(one) => std::slice::from_ref(one.as_ref()),
            Self::CreateDocument(_, _, many) | Self::UpdateDocument(_, _, many, _) => many,
            Self::CreateTask(..) | Self::UpdateTask(..) | Self::DeleteDocument(..) | Self::DeleteTask(..) => {
                &[]
            }
        }
    }
}

/// An entry whose request has been read, before its content is taken in.
struct Planned {
    place: String,
    target: Target,
    resource: Option<Resource>,
}

/// The method and the resource that an entry's request names.
enum Target {
    Create {
        kind: &'static str,
        id: String,
    },
    Update {
        kind: &'static str,
        id: String,
        expected: Expected,
    },
    Delete {
        kind: &'static str,
        id: String,
        expected: Expected,
    },
}

impl App {
    /// Runs a transaction: every entry, or none.
    pub async fn transaction(&self, caller: &Caller, bundle: Bundle) -> Result<Vec<EntryAnswer>, AppError> {
        let (app, caller) = (self.clone(), caller.clone());
        self.to_the_end(async move {
            let scope = app.scope(&caller);
            let acts = take_in(&app, &caller, plan(&app, &scope, bundle.entries)?).await?;
            let unit = acts.clone();
            let answer = app.write(caller.tenant(), move |tx| run(tx, &scope, &unit)).await;
            discard_unless(&app, &answer, &acts).await;
            answer
        })
        .await
    }

    /// Runs a batch: each entry by itself.
    pub async fn batch(&self, caller: &Caller, bundle: Bundle) -> Result<Vec<EntryAnswer>, AppError> {
        let mut answers = Vec::with_capacity(bundle.entries.len());
        for (i, entry) in bundle.entries.into_iter().enumerate() {
            let alone = Bundle {
                kind: "transaction".to_owned(),
                entries: vec![entry],
            };
            // Boxed, so that the future of a batch does not hold that of a transaction inline.
            let answer = Box::pin(self.transaction(caller, alone)).await;
            answers.push(match answer {
                Ok(mut one) => one.pop().unwrap_or(EntryAnswer::Deleted),
                Err(error) => EntryAnswer::Failed(relocate(error, i)),
            });
        }
        Ok(answers)
    }
}

/// Takes the content of every entry in; where one fails, what was taken in is removed again.
async fn take_in(app: &App, caller: &Caller, planned: Vec<Planned>) -> Result<Vec<Act>, AppError> {
    let mut acts: Vec<Act> = Vec::with_capacity(planned.len());
    for (i, entry) in planned.into_iter().enumerate() {
        match prepare(app, caller, entry).await.map_err(|e| locate(e, i)) {
            Ok(act) => acts.push(act),
            Err(error) => {
                for one in acts.iter().flat_map(Act::ingested) {
                    app.discard(one).await;
                }
                return Err(error);
            }
        }
    }
    Ok(acts)
}

/// Does everything in the order of a transaction, and answers in the order of the entries.
fn run(tx: &mut dyn Tx, scope: &Scope, acts: &[Act]) -> Result<(Vec<EntryAnswer>, Cuts), AppError> {
    lock_all(tx, scope, acts)?;
    let mut order: Vec<(usize, &Act)> = acts.iter().enumerate().collect();
    order.sort_by_key(|(_, act)| act.rank());
    let mut answers: BTreeMap<usize, EntryAnswer> = BTreeMap::new();
    let mut cuts = Cuts::none();
    for (i, act) in order {
        scope.begin_another();
        let (answer, more) = carry_out(tx, scope, act).map_err(|e| locate(e, i))?;
        answers.insert(i, answer);
        cuts.extend(more);
    }
    Ok((answers.into_values().collect(), cuts))
}

/// Locks what several entries touch in the one order that everybody keeps: all Tasks, then all documents. Entry by
/// entry, two transactions could each hold what the other waits for.
fn lock_all(tx: &mut dyn Tx, scope: &Scope, acts: &[Act]) -> Result<(), AppError> {
    if acts.len() < 2 {
        return Ok(());
    }
    let mut moved: BTreeSet<TaskId> = BTreeSet::new();
    let mut changed: BTreeSet<DocumentId> = BTreeSet::new();
    let mut named: BTreeSet<DocumentId> = BTreeSet::new();
    let mut fresh: BTreeSet<&DocumentId> = BTreeSet::new();
    for (i, act) in acts.iter().enumerate() {
        match act {
            Act::CreateBinary(_) => {}
            Act::CreateDocument(id, resource, _) => {
                fresh.insert(id);
                changed.extend(documents::replaced_by(scope, resource).map_err(|e| locate(e, i))?);
            }
            Act::UpdateDocument(id, resource, ..) => {
                changed.insert(id.clone());
                changed.extend(documents::replaced_by(scope, resource).map_err(|e| locate(e, i))?);
            }
            Act::DeleteDocument(id, _) => {
                changed.insert(id.clone());
            }
            Act::CreateTask(_, resource) => {
                named.extend(documents_of(scope, resource).map_err(|e| locate(e, i))?);
            }
            Act::UpdateTask(id, resource, _) => {
                moved.insert(id.clone());
                named.extend(documents_of(scope, resource).map_err(|e| locate(e, i))?);
            }
            Act::DeleteTask(id, _) => {
                moved.insert(id.clone());
            }
        }
    }
    for id in &changed {
        moved.extend(tx.tasks_of_document(scope.tenant(), id)?);
    }
    if !moved.is_empty() {
        scope.lock_tasks(tx, &moved.into_iter().collect::<Vec<_>>())?;
    }
    for id in changed.union(&named).filter(|id| !fresh.contains(id)) {
        scope.lock_documents(tx, std::slice::from_ref(id), changed.contains(id))?;
    }
    Ok(())
}

fn documents_of(scope: &Scope, task: &Resource) -> Result<Vec<DocumentId>, AppError> {
    Ok(tasks::facts_of(scope, task)?.document_ids())
}

async fn discard_unless<T>(app: &App, answer: &Result<T, AppError>, acts: &[Act]) {
    let ingested: Vec<Ingested> = acts.iter().flat_map(Act::ingested).cloned().collect();
    app.discard_unless(answer, &ingested).await;
}

fn unsupported(place: &str, text: &str) -> AppError {
    AppError {
        issues: vec![Issue::at(IssueType::NotSupported, place, text)],
        ..AppError::new(Class::Invalid, Reason::NotSupported, text)
    }
}

/// Reads every request, gives new resources their ids, and rewrites the references between them.
fn plan(app: &App, scope: &Scope, entries: Vec<Entry>) -> Result<Vec<Planned>, AppError> {
    if entries.len() > app.settings.max_entries {
        return Err(AppError::new(
            Class::TooLarge,
            Reason::TooLarge,
            format!("a Bundle has at most {} entries", app.settings.max_entries),
        ));
    }
    let mut planned = Vec::with_capacity(entries.len());
    let mut links: BTreeMap<String, String> = BTreeMap::new();
    let mut touched: BTreeSet<(&'static str, String)> = BTreeSet::new();
    for (i, entry) in entries.into_iter().enumerate() {
        let place = format!("Bundle.entry[{i}]");
        let target = target_of(scope, &place, &entry)?;
        let named = match &target {
            Target::Create { kind, id } => entry.full_url.as_ref().map(|url| (url, kind, id)),
            // An address of its own needs no rewriting; a placeholder does.
            Target::Update { kind, id, .. } => entry
                .full_url
                .as_ref()
                .filter(|url| url.starts_with("urn:"))
                .map(|url| (url, kind, id)),
            Target::Delete { .. } => None,
        };
        if let Some((full_url, kind, id)) = named
            && links.insert(full_url.clone(), format!("{kind}/{id}")).is_some()
        {
            let issue = Issue::at(
                IssueType::Invariant,
                format!("{place}.fullUrl"),
                "`fullUrl` is given twice",
            );
            return Err(AppError::invalid(vec![issue]));
        }
        if let Target::Update { kind, id, .. } | Target::Delete { kind, id, .. } = &target
            && !touched.insert((kind, id.clone()))
        {
            let issue = Issue::at(
                IssueType::Invariant,
                format!("{place}.request.url"),
                "the same resource is changed twice",
            );
            return Err(AppError::invalid(vec![issue]));
        }
        planned.push(Planned {
            place,
            target,
            resource: entry.resource,
        });
    }
    for entry in &mut planned {
        if let Some(resource) = &mut entry.resource {
            rewrite(&entry.place, resource, &links)?;
        }
    }
    Ok(planned)
}

fn target_of(scope: &Scope, place: &str, entry: &Entry) -> Result<Target, AppError> {
    let missing = |what: &str| {
        AppError::invalid(vec![Issue::at(
            IssueType::Required,
            format!("{place}.{what}"),
            format!("`{what}` is missing"),
        )])
    };
    let request = entry.request.as_ref().ok_or_else(|| missing("request"))?;
    let at = format!("{place}.request");
    if request.if_none_exist.is_some()
        || request.if_none_match.is_some()
        || request.if_modified_since.is_some()
    {
        return Err(unsupported(
            &at,
            "only `ifMatch` is supported of the conditional requests",
        ));
    }
    let base = scope.fhir_base();
    let url = request.url.strip_prefix(&base).unwrap_or(&request.url);
    let bad_url = || {
        AppError::invalid(vec![Issue::at(
            IssueType::Value,
            format!("{at}.url"),
            "expected `Binary`, `DocumentReference` or `Task`, with an id for PUT and DELETE",
        )])
    };
    let (kind, id) = match url.split_once('/') {
        Some((kind, id)) => (kind, Some(id)),
        None => (url, None),
    };
    let kind = ["Binary", "DocumentReference", "Task"]
        .into_iter()
        .find(|k| *k == kind)
        .ok_or_else(bad_url)?;
    let expected = match &request.if_match {
        Some(tag) => {
            Expected::parse(tag).ok_or_else(|| AppError::bad("`ifMatch` is not a version like `W/\"1\"`"))?
        }
        None => Expected::Any,
    };
    if let Some(resource) = &entry.resource
        && resource.type_name() != kind
    {
        return Err(AppError::invalid(vec![Issue::at(
            IssueType::Invalid,
            format!("{at}.url"),
            "the URL names another type than the resource has",
        )]));
    }
    match (request.method.as_str(), id) {
        ("POST", None) if entry.resource.is_some() => Ok(Target::Create {
            kind,
            id: scope.ordered_id(),
        }),
        ("PUT", Some(id)) if entry.resource.is_some() => {
            if entry.resource.as_ref().and_then(Resource::id) != Some(id) {
                return Err(AppError::invalid(vec![Issue::at(
                    IssueType::Invalid,
                    format!("{place}.resource.id"),
                    "the resource's id is not that of the URL",
                )]));
            }
            Ok(Target::Update {
                kind,
                id: id.to_owned(),
                expected,
            })
        }
        ("POST" | "PUT", _) if entry.resource.is_none() => Err(missing("resource")),
        ("DELETE", Some(id)) => Ok(Target::Delete {
            kind,
            id: id.to_owned(),
            expected,
        }),
        ("POST" | "PUT" | "DELETE", _) => Err(bad_url()),
        _ => Err(unsupported(
            &format!("{at}.method"),
            "only POST, PUT and DELETE are supported in a Bundle",
        )),
    }
}

/// Whether a place must point at something: a reference, and the content of an attachment.
fn points(path: &str, kind: LinkKind) -> bool {
    kind == LinkKind::Reference || (kind == LinkKind::Url && path.ends_with("attachment.url"))
}

/// Points references between entries at the ids that their targets will have.
fn rewrite(place: &str, resource: &mut Resource, links: &BTreeMap<String, String>) -> Result<(), AppError> {
    let mut unmatched: Vec<Issue> = Vec::new();
    resource.visit_references_mut(&mut |path, kind, text| {
        if let Some(target) = links.get(text.as_str()) {
            target.clone_into(text);
        } else if points(path, kind) && text.starts_with("urn:uuid:") {
            let at = format!(
                "{place}.resource.{}",
                path.split_once('.').map_or(path, |(_, rest)| rest)
            );
            unmatched.push(Issue::at(
                IssueType::NotFound,
                at,
                "no entry of the Bundle has this `fullUrl`",
            ));
        } else if kind == LinkKind::Reference && text.contains('?') && !text.contains("://") {
            let at = format!(
                "{place}.resource.{}",
                path.split_once('.').map_or(path, |(_, rest)| rest)
            );
            unmatched.push(Issue::at(
                IssueType::NotSupported,
                at,
                "conditional references are not supported",
            ));
        }
    });
    if unmatched.is_empty() {
        Ok(())
    } else {
        Err(AppError::unprocessable(unmatched))
    }
}

/// Takes content in, so that the transaction itself only writes rows.
async fn prepare(app: &App, caller: &Caller, entry: Planned) -> Result<Act, AppError> {
    let Planned {
        place,
        target,
        resource,
    } = entry;
    let bad_id = |_| AppError::not_found();
    let (kind, interaction) = match &target {
        Target::Create { kind, .. } => (*kind, Interaction::Create),
        Target::Update { kind, .. } => (*kind, Interaction::Update),
        Target::Delete { kind, .. } => (*kind, Interaction::Delete),
    };
    app.demand(&app.scope(caller), kind, interaction).await?;
    match (target, resource) {
        (Target::Create { kind: "Binary", id }, Some(resource)) => {
            let binary = handoff_fhir_model::binary::binary(&resource).map_err(AppError::invalid)?;
            let data = binary.data.unwrap_or_default();
            let one = app
                .ingest_bytes(
                    caller,
                    BinaryId::parse(id).map_err(bad_id)?,
                    binary.content_type,
                    binary.security_context,
                    data,
                )
                .await?;
            Ok(Act::CreateBinary(Box::new(one)))
        }
        (
            Target::Create {
                kind: "DocumentReference",
                id,
            },
            Some(mut resource),
        ) => {
            admission::check(&resource)?;
            let ingested = take_inline_data(app, caller, &mut resource).await?;
            Ok(Act::CreateDocument(
                DocumentId::parse(id).map_err(bad_id)?,
                Box::new(resource),
                ingested,
            ))
        }
        (Target::Create { id, .. }, Some(resource)) => {
            admission::check(&resource)?;
            Ok(Act::CreateTask(
                TaskId::parse(id).map_err(bad_id)?,
                Box::new(resource),
            ))
        }
        (
            Target::Update {
                kind: "DocumentReference",
                id,
                expected,
            },
            Some(mut resource),
        ) => {
            admission::check(&resource)?;
            let ingested = take_inline_data(app, caller, &mut resource).await?;
            let id = DocumentId::parse(id).map_err(bad_id)?;
            Ok(Act::UpdateDocument(id, Box::new(resource), ingested, expected))
        }
        (
            Target::Update {
                kind: "Task",
                id,
                expected,
            },
            Some(resource),
        ) => {
            admission::check(&resource)?;
            Ok(Act::UpdateTask(
                TaskId::parse(id).map_err(bad_id)?,
                Box::new(resource),
                expected,
            ))
        }
        (
            Target::Delete {
                kind: "DocumentReference",
                id,
                expected,
            },
            _,
        ) => Ok(Act::DeleteDocument(
            DocumentId::parse(id).map_err(bad_id)?,
            expected,
        )),
        (
            Target::Delete {
                kind: "Task",
                id,
                expected,
            },
            _,
        ) => Ok(Act::DeleteTask(TaskId::parse(id).map_err(bad_id)?, expected)),
        _ => Err(unsupported(
            &format!("{place}.request"),
            "content is immutable: a Binary can only be created here",
        )),
    }
}

fn carry_out(tx: &mut dyn Tx, scope: &Scope, act: &Act) -> Result<(EntryAnswer, Cuts), AppError> {
    perform(tx, scope, act).map_err(|error| {
        let (event, about) = match act {
            Act::CreateBinary(_) => (Event::BinaryCreated, About::default()),
            Act::CreateDocument(..) => (Event::DocumentCreated, About::default()),
            Act::CreateTask(..) => (Event::TaskCreated, About::default()),
            Act::UpdateDocument(id, ..) => (Event::DocumentUpdated, About::of_document(id)),
            Act::UpdateTask(id, ..) => (Event::TaskUpdated, About::of_task(id)),
            Act::DeleteDocument(id, _) => (Event::DocumentDeleted, About::of_document(id)),
            Act::DeleteTask(id, _) => (Event::TaskDeleted, About::of_task(id)),
        };
        scope.refused(error, event, about)
    })
}

fn perform(tx: &mut dyn Tx, scope: &Scope, act: &Act) -> Result<(EntryAnswer, Cuts), AppError> {
    for one in act.ingested() {
        binaries::insert(tx, scope, one)?;
    }
    let stored = |(stored, cuts)| (EntryAnswer::Stored(stored), cuts);
    let deleted = |((), cuts)| (EntryAnswer::Deleted, cuts);
    match act {
        Act::CreateBinary(one) => Ok((EntryAnswer::Stored(binaries::stored(&one.binary)), Cuts::none())),
        Act::CreateDocument(id, resource, _) => documents::create(tx, scope, id, resource).map(stored),
        Act::CreateTask(id, resource) => tasks::create(tx, scope, id, resource).map(stored),
        Act::UpdateDocument(id, resource, _, expected) => {
            documents::update(tx, scope, id, resource, *expected).map(stored)
        }
        Act::UpdateTask(id, resource, expected) => {
            tasks::update(tx, scope, id, resource, *expected).map(stored)
        }
        Act::DeleteDocument(id, expected) => documents::delete(tx, scope, id, *expected).map(deleted),
        Act::DeleteTask(id, expected) => tasks::delete(tx, scope, id, *expected).map(deleted),
    }
}

/// Says which entry an error is about.
fn locate(mut error: AppError, i: usize) -> AppError {
    let place = format!("Bundle.entry[{i}]");
    if error.issues.is_empty() {
        error
            .issues
            .push(Issue::at(IssueType::Processing, place, error.text.clone()));
        return error;
    }
    for issue in &mut error.issues {
        issue.expression = Some(match issue.expression.take() {
            Some(at) if at.starts_with("Bundle.") => at,
            Some(at) => format!(
                "{place}.resource.{}",
                at.split_once('.').map_or(at.as_str(), |(_, rest)| rest)
            ),
            None => place.clone(),
        });
    }
    error
}

/// An entry that ran alone was the first; here it is another.
fn relocate(mut error: AppError, i: usize) -> AppError {
    for issue in &mut error.issues {
        if let Some(at) = &mut issue.expression
            && let Some(rest) = at.strip_prefix("Bundle.entry[0]")
        {
            *at = format!("Bundle.entry[{i}]{rest}");
        }
    }
    error
}
