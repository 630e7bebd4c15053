//! References of a source's resource, as they mean something here: to what was mirrored by our ids; to anything else of the
//! source as it writes them, without its base. A reference gives no right: what it names takes effect only where the placer
//! may release it.

use std::collections::BTreeMap;

use handoff_domain::ids::DocumentId;
use handoff_domain::inbox::split_reference;
use handoff_domain::ports::Tx;
use handoff_domain::source::Source;
use handoff_fhir_model::Resource;
use serde_json::Value;

use crate::app::{AppError, Scope};

/// The most resources of a source that one of its resources names.
const MOST_NAMED: usize = 500;

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
