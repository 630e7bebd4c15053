//! A DocumentReference that came to be or changed at a source: mirrored like a POST or PUT of the placer. Its content is
//! governed here where it came along; an address at the source is kept as one, and nothing of it is ever released.

use std::sync::{Arc, Mutex, PoisonError};

use handoff_domain::audit::About;
use handoff_domain::ids::{BinaryId, DocumentId, TaskId};
use handoff_domain::inbox::{Mirror, SourceVersion};
use handoff_domain::ports::{Kind, Tx};
use handoff_domain::source::{ContentRule, FeedType, Source};
use handoff_domain::standing::Target;
use handoff_fhir_model::Resource;
use serde_json::{Map, Value, json};

use super::references::{is_echo, localise, rename};
use super::restraint::while_applying;
use super::{Applying, Held, Here, as_it_is, ask, hold, mirrored, mirrored_as, settle, settle_old};
use crate::app::documents;
use crate::app::standing::take_back;
use crate::app::tasks::{self, Expected};
use crate::app::{App, AppError, Cuts, Scope, json_edit};

/// The most Tasks that wait for one document.
const MOST_AWAITING: u32 = 100;

/// What became of the document.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Became {
    /// Nothing more is to be done.
    Settled,
    /// It is mirrored as this, `DocumentReference/1`; Tasks may have waited for it.
    Mirrored {
        ours: String,
        /// Whether it was held back, and is not any more.
        lifted: bool,
    },
}

/// Applies a notice about a document.
pub(super) async fn apply(
    app: &App,
    applying: &Applying,
    resource: Resource,
    version: SourceVersion,
) -> Result<(), AppError> {
    let became = mirror(app, applying, resource, version.clone()).await?;
    let Became::Mirrored { ours, lifted } = became else {
        return Ok(());
    };
    let tenant = applying.caller.tenant().clone();
    if lifted && let Ok(target) = Target::parse("document", &ours) {
        app.see_change().await;
        take_back(app, &tenant, &target).await?;
    }
    release_awaiting(app, applying, &ours).await?;
    let scope = app.scope(&applying.caller);
    let of = applying.clone();
    app.write(&tenant, move |tx| {
        if let Held::Open(notice, _) = hold(tx, &of, &version)? {
            let about = About {
                document: Some(ours.clone()),
                ..About::default()
            };
            settle(tx, &scope, &of, notice, Some(ours.clone()), about)?;
        }
        Ok(((), Cuts::none()))
    })
    .await
}

/// Stores the document. The notice is settled later, so that what follows is done again where this process dies.
async fn mirror(
    app: &App,
    applying: &Applying,
    resource: Resource,
    version: SourceVersion,
) -> Result<Became, AppError> {
    let new = documents::new_document_id(&app.scope(&applying.caller))?;
    let of = applying.clone();
    // Content is not taken in for what is not to be applied.
    let (ahead, at) = (of.clone(), version.clone());
    let scope = app.scope(&applying.caller);
    let answer: Arc<Mutex<Option<Became>>> = Arc::default();
    let found = Arc::clone(&answer);
    let tenant = applying.caller.tenant().clone();
    let open = app
        .write(&tenant, move |tx| {
            let mut cuts = Cuts::none();
            let became = match hold(tx, &ahead, &at)? {
                Held::Settled => Some(Became::Settled),
                Held::Old(notice) => {
                    cuts = settle_old(tx, &scope, notice)?;
                    Some(Became::Settled)
                }
                Held::Open(notice, Some(before)) if before.notice == notice.id => {
                    // Whether it had been held back was not written down: it is looked at once more.
                    before.ours.map(|ours| Became::Mirrored { ours, lifted: true })
                }
                Held::Open(..) => None,
            };
            let open = became.is_none();
            *found.lock().unwrap_or_else(PoisonError::into_inner) = became;
            Ok((open, cuts))
        })
        .await?;
    if !open && let Some(became) = answer.lock().unwrap_or_else(PoisonError::into_inner).take() {
        return Ok(became);
    }
    let mut resource = resource;
    let is_current = resource.value().get("status").and_then(Value::as_str) == Some("current");
    // Of what is withdrawn no content is needed, and it may not be there any more.
    if applying.source.settings.content == ContentRule::Fetch && is_current {
        fetch_content(app, applying, &mut resource).await?;
    }
    app.with_content(&applying.caller, resource, move |tx, scope, resource| {
        scope.begin_another();
        let Held::Open(notice, before) = hold(tx, &of, &version)? else {
            return Ok((Became::Settled, Cuts::none()));
        };
        let ours = mirrored_as(
            tx,
            scope,
            FeedType::DocumentReference,
            before.as_ref(),
            of.reference(),
        )?;
        if (before.is_none() || ours.is_none()) && is_echo(tx, scope, &of.source, resource)? {
            let cuts = settle_old(tx, scope, notice)?;
            return Ok((Became::Settled, cuts));
        }
        let mut local = localise(tx, scope, &of.source, resource.clone())?;
        let known = ours
            .as_deref()
            .and_then(|ours| ours.strip_prefix("DocumentReference/"))
            .and_then(|id| DocumentId::parse(id).ok());
        keep_addresses(tx, scope, &of.source, known.as_ref(), &mut local.resource)?;
        if let Some(id) = &known {
            keep_content(tx, scope, id, is_current, &mut local.resource)?;
        }
        let here = match &known {
            Some(id) => as_it_is(tx, scope, Kind::Document, id.as_str(), &local.resource, &version)?,
            None => Here::Differs,
        };
        if before.is_none() && here == Here::Newer {
            let cuts = settle_old(tx, scope, notice)?;
            return Ok((Became::Settled, cuts));
        }
        let ours = format!("DocumentReference/{}", known.as_ref().unwrap_or(&new));
        let going = while_applying(tx, scope, &of, &notice, &ours)?;
        let (scope, lifted) = (going.scope, going.is_lifted);
        let cuts = match (&known, here) {
            (Some(_), Here::Same(_)) => Cuts::none(),
            (Some(id), _) => documents::update(tx, &scope, id, &local.resource, Expected::Existing)?.1,
            (None, _) => documents::create(tx, &scope, &new, &local.resource)?.1,
        };
        let mirror: Mirror = mirrored(&notice, before, Some(ours.clone()), Vec::new());
        tx.put_mirror(scope.tenant(), &mirror)?;
        Ok((Became::Mirrored { ours, lifted }, cuts))
    })
    .await
}

/// Puts content that lies at the source into the document, as if it had come along.
async fn fetch_content(app: &App, applying: &Applying, resource: &mut Resource) -> Result<(), AppError> {
    let contents = resource.value().get("content").and_then(Value::as_array);
    for i in 0..contents.map_or(0, Vec::len) {
        let attachment = attachment_mut(resource, i);
        let Some(url) = attachment.and_then(|one| one.get("url")).and_then(Value::as_str) else {
            continue;
        };
        let path = applying.source.local(url).to_owned();
        let Some(id) = path.strip_prefix("Binary/").map(str::to_owned) else {
            continue;
        };
        if path == url && is_uploaded(app, applying, &id).await? {
            continue;
        }
        let (content_type, data) = ask::content(app, &applying.source, &path).await?;
        if let Some(attachment) = attachment_mut(resource, i) {
            attachment.remove("url");
            attachment.insert("data".to_owned(), json!(data));
            if !attachment.contains_key("contentType") {
                attachment.insert("contentType".to_owned(), json!(content_type));
            }
        }
    }
    Ok(())
}

/// The attachment of the `i`th content.
fn attachment_mut(resource: &mut Resource, i: usize) -> Option<&mut Map<String, Value>> {
    let contents = resource.value_mut().get_mut("content")?.as_array_mut()?;
    contents.get_mut(i)?.get_mut("attachment")?.as_object_mut()
}

/// Whether it is content that the placer uploaded here.
async fn is_uploaded(app: &App, applying: &Applying, id: &str) -> Result<bool, AppError> {
    let Ok(id) = BinaryId::parse(id) else {
        return Ok(false);
    };
    let tenant = applying.caller.tenant().clone();
    let found = app.read(move |read| Ok(read.binary(&tenant, &id)?)).await?;
    Ok(found.is_some_and(|binary| binary.uploaded_by == applying.caller.principal.actor))
}

/// A document of the placer's own that the source speaks of by our id.
pub(super) fn adopted(tx: &mut dyn Tx, scope: &Scope, id: Option<&str>) -> Result<Option<String>, AppError> {
    let Some(id) = id.and_then(|id| DocumentId::parse(id).ok()) else {
        return Ok(None);
    };
    let found = tx.document(scope.tenant(), &id)?;
    let own =
        found.filter(|document| !document.deleted && document.created_by == scope.caller.principal.actor);
    Ok(own.map(|document| format!("DocumentReference/{}", document.id)))
}

/// Content that is here already stays as it is: the same bytes again are no other content, and what is withdrawn loses none.
fn keep_content(
    tx: &mut dyn Tx,
    scope: &Scope,
    id: &DocumentId,
    is_current: bool,
    resource: &mut Resource,
) -> Result<(), AppError> {
    let stored = tx.current(scope.tenant(), Kind::Document, id.as_str())?;
    let Some(stored) = stored.filter(|version| !version.body.is_empty()) else {
        return Ok(());
    };
    let stored = json_edit::open(&stored.body)?;
    let Some(before) = stored.value().get("content").and_then(Value::as_array) else {
        return Ok(());
    };
    if !is_current {
        json_edit::set_field(resource.value_mut(), "content", json!(before));
        return Ok(());
    }
    let digest = |tx: &mut dyn Tx, content: &Value| -> Result<_, AppError> {
        let url = content.pointer("/attachment/url").and_then(Value::as_str);
        let id = url
            .and_then(|url| url.strip_prefix("Binary/"))
            .map(BinaryId::parse);
        let Some(Ok(id)) = id else { return Ok(None) };
        Ok(tx
            .binary(scope.tenant(), &id)?
            .map(|binary| (binary.sha256, binary.content_type)))
    };
    for i in 0..before.len() {
        let (Some(known), Some(sent)) = (
            before.get(i),
            resource.value().pointer(&format!("/content/{i}")).cloned(),
        ) else {
            break;
        };
        let held = digest(tx, known)?;
        if held.is_some()
            && held == digest(tx, &sent)?
            && let Some(attachment) = attachment_mut(resource, i)
        {
            for own in ["url", "size", "hash", "extension"] {
                match known.pointer(&format!("/attachment/{own}")) {
                    Some(value) => drop(attachment.insert(own.to_owned(), value.clone())),
                    None => drop(attachment.remove(own)),
                }
            }
        }
    }
    Ok(())
}

/// Addresses of content at the source are written in full: a `Binary/1` there is not one of ours.
fn keep_addresses(
    tx: &mut dyn Tx,
    scope: &Scope,
    source: &Source,
    document: Option<&DocumentId>,
    resource: &mut Resource,
) -> Result<(), AppError> {
    let Some(base) = source.settings.base.as_deref() else {
        return Ok(());
    };
    let contents = resource
        .value_mut()
        .get_mut("content")
        .and_then(Value::as_array_mut);
    for content in contents.into_iter().flatten() {
        let Some(attachment) = content.get_mut("attachment").and_then(Value::as_object_mut) else {
            continue;
        };
        let Some(url) = attachment.get("url").and_then(Value::as_str) else {
            continue;
        };
        let Some(id) = source.local(url).strip_prefix("Binary/").map(str::to_owned) else {
            continue;
        };
        let ours = match BinaryId::parse(id.as_str()) {
            Ok(binary) => tx.binary(scope.tenant(), &binary)?,
            Err(_) => None,
        };
        let is_ours = ours.is_some_and(|binary| match &binary.document {
            Some(owner) => Some(owner) == document,
            None => binary.uploaded_by == scope.caller.principal.actor,
        });
        let address = if is_ours {
            format!("Binary/{id}")
        } else {
            format!("{base}/Binary/{id}")
        };
        attachment.insert("url".to_owned(), json!(address));
    }
    Ok(())
}

/// Tasks that came before a document they name are given it now.
async fn release_awaiting(app: &App, applying: &Applying, ours: &str) -> Result<(), AppError> {
    let theirs = applying.notice.matter.reference().unwrap_or_default().to_owned();
    let (tenant, source, awaited) = (
        applying.caller.tenant().clone(),
        applying.source.id.clone(),
        theirs.clone(),
    );
    let waiting: Vec<Mirror> = app
        .write(&tenant.clone(), move |tx| {
            let found = tx.awaiting(&tenant, &source, &awaited, MOST_AWAITING)?;
            Ok((found, Cuts::none()))
        })
        .await?;
    for task in waiting {
        let (scope, theirs, ours) = (app.scope(&applying.caller), theirs.clone(), ours.to_owned());
        let tenant = applying.caller.tenant().clone();
        let given = app
            .write(&tenant, move |tx| give(tx, &scope, &task, &theirs, &ours))
            .await;
        match given {
            // The Task was moved on by whoever may: it is theirs to name the document.
            Err(error) if error.is_refusal() => {
                tracing::warn!(reason = %error.reason, "a Task could not be given a document that came after it");
            }
            other => other?,
        }
    }
    Ok(())
}

/// Gives one Task the document.
fn give(
    tx: &mut dyn Tx,
    scope: &Scope,
    awaiting: &Mirror,
    theirs: &str,
    ours: &str,
) -> Result<((), Cuts), AppError> {
    let none = ((), Cuts::none());
    let Some(mirror) = tx.lock_mirror(scope.tenant(), &awaiting.source, &awaiting.theirs)? else {
        return Ok(none);
    };
    let id = mirror
        .ours
        .as_deref()
        .and_then(|ours| ours.strip_prefix("Task/"))
        .and_then(|id| TaskId::parse(id).ok());
    let (Some(id), true) = (id, mirror.awaits.iter().any(|one| one == theirs)) else {
        return Ok(none);
    };
    let after = Mirror {
        awaits: mirror
            .awaits
            .iter()
            .filter(|one| *one != theirs)
            .cloned()
            .collect(),
        revision: mirror.revision.saturating_add(1),
        ..mirror
    };
    tx.put_mirror(scope.tenant(), &after)?;
    // What is read is what will be changed.
    scope.lock_tasks(tx, std::slice::from_ref(&id))?;
    let Some(stored) = tx
        .current(scope.tenant(), Kind::Task, id.as_str())?
        .filter(|v| !v.body.is_empty())
    else {
        return Ok(none);
    };
    let mut resource = json_edit::open(&stored.body)?;
    rename(&mut resource, theirs, ours);
    let (_, cuts) = tasks::update(tx, scope, &id, &resource, Expected::Version(stored.version))?;
    Ok(((), cuts))
}
