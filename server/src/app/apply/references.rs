//! References of a source's resource, as they mean something here: to what was mirrored by our ids; to anything else of the
//! source as it writes them, without its base. A reference gives no right: what it names takes effect only where the placer
//! may release it.

use std::collections::BTreeMap;

use handoff_domain::ids::{DocumentId, TaskId};
use handoff_domain::inbox::split_reference;
use handoff_domain::ports::Tx;
use handoff_domain::source::Source;
use handoff_fhir_model::Resource;
use serde_json::{Value, json};

use crate::app::json_edit::set_field;
use crate::app::{AppError, Scope};

/// The most resources of a source that one of its resources names.
const MOST_NAMED: usize = 500;
/// The longest base of a server that is written down, in bytes.
const LONGEST_BASE: usize = 500;

/// A source's resource with references of ours.
pub(super) struct Local {
    /// The resource.
    pub(super) resource: Resource,
    /// Documents of the source that it names and that were not mirrored yet.
    pub(super) awaits: Vec<String>,
}

/// Writes the references of a resource as they are meant here.
pub(super) fn localise(
    tx: &mut dyn Tx,
    scope: &Scope,
    source: &Source,
    mut resource: Resource,
) -> Result<Local, AppError> {
    let mut named = BTreeMap::new();
    let mut too_many = false;
    visit(resource.value_mut(), &mut |reference| {
        let local = source.local(reference).to_owned();
        if mirrors_of(&local).is_some() {
            too_many |= named.len() >= MOST_NAMED && !named.contains_key(&local);
            if !too_many {
                named.insert(local.clone(), None);
            }
        }
        *reference = local;
    });
    if too_many {
        return Err(AppError::rule(
            resource.type_name(),
            format!("a resource of a source names at most {MOST_NAMED} others"),
        ));
    }
    let mut awaits = Vec::new();
    for (theirs, ours) in &mut named {
        let mirror = tx.mirror(scope.tenant(), &source.id, theirs)?;
        *ours = mirror.and_then(|mirror| mirror.ours);
        if ours.is_none() && awaited(tx, scope, theirs)? {
            awaits.push(theirs.clone());
        }
    }
    visit(resource.value_mut(), &mut |reference| {
        if let Some(Some(ours)) = named.get(reference.as_str()) {
            reference.clone_from(ours);
        }
    });
    Ok(Local { resource, awaits })
}

/// Takes a source's own base off the references of its resource.
pub fn shorten(source: &Source, resource: &mut Resource) {
    visit(resource.value_mut(), &mut |reference| {
        let local = source.local(reference);
        if local.len() < reference.len() {
            *reference = local.to_owned();
        }
    });
}

/// Writes down where a resource came from, by the FHIR base of its server, unless it says so itself.
pub fn name_origin(base: Option<&str>, resource: &mut Resource) {
    let (Some(base), Some(id)) = (base.filter(|base| base.len() <= LONGEST_BASE), resource.id()) else {
        return;
    };
    let origin = format!("{base}/{}/{id}", resource.type_name());
    let value = resource.value_mut();
    if value.pointer("/meta/source").is_some() {
        return;
    }
    if value.get("meta").is_none() {
        set_field(value, "meta", json!({}));
    }
    if let Some(meta) = value.get_mut("meta") {
        set_field(meta, "source", json!(origin));
    }
}

/// Whether a resource is one of ours that comes back, from its source or by way of others: it is told here, and not changed by
/// its own echo.
pub(super) fn is_echo(
    tx: &mut dyn Tx,
    scope: &Scope,
    source: &Source,
    resource: &Resource,
) -> Result<bool, AppError> {
    let Some(origin) = resource.value().pointer("/meta/source").and_then(Value::as_str) else {
        return Ok(false);
    };
    let origin = origin.split(['#', '?']).next().unwrap_or_default();
    let origin = origin.split("/_history/").next().unwrap_or_default();
    let tenant = scope.tenant();
    if let Some(ours) = origin.strip_prefix(&scope.settings.fhir_base(tenant)) {
        let known = match split_reference(ours) {
            Some(("Task", id)) => match TaskId::parse(id) {
                Ok(id) => tx.task(tenant, &id)?.is_some(),
                Err(_) => false,
            },
            Some(("DocumentReference", id)) => match DocumentId::parse(id) {
                Ok(id) => tx.document(tenant, &id)?.is_some(),
                Err(_) => false,
            },
            _ => false,
        };
        return Ok(known);
    }
    for (_, other) in tx.sources(Some(tenant))? {
        let theirs = other.settings.base.as_deref().and_then(|base| {
            let rest = origin.strip_prefix(base)?;
            rest.strip_prefix('/')
        });
        if other.id != source.id
            && let Some(theirs) = theirs
            && tx
                .mirror(tenant, &other.id, theirs)?
                .is_some_and(|mirror| mirror.ours.is_some())
        {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Writes one reference of a resource as another.
pub(super) fn rename(resource: &mut Resource, from: &str, to: &str) {
    visit(resource.value_mut(), &mut |reference| {
        if reference == from {
            to.clone_into(reference);
        }
    });
}

/// The type of what is mirrored, where a reference is to such.
fn mirrors_of(local: &str) -> Option<&str> {
    let (kind, _) = split_reference(local)?;
    matches!(kind, "Task" | "DocumentReference").then_some(kind)
}

/// Whether it is a document that may still come; not one of ours that the source calls by our own id.
fn awaited(tx: &mut dyn Tx, scope: &Scope, theirs: &str) -> Result<bool, AppError> {
    let Some(id) = theirs.strip_prefix("DocumentReference/") else {
        return Ok(false);
    };
    let ours = match DocumentId::parse(id) {
        Ok(id) => tx.document(scope.tenant(), &id)?,
        Err(_) => None,
    };
    Ok(ours.is_none())
}

/// Every `reference` that is text.
fn visit(value: &mut Value, change: &mut dyn FnMut(&mut String)) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(|item| visit(item, change)),
        Value::Object(map) => {
            for (name, value) in map {
                match value {
                    Value::String(text) if name == "reference" => change(text),
                    other => visit(other, change),
                }
            }
        }
        _ => {}
    }
}
