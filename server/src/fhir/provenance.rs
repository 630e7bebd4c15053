//! Provenance: who made a version of a Task or document, when, and out of which one. Made of the rows of the audit that tell of it, so there
//! is one for each version, under the row's id, and none can be written or changed. Whoever may read its target may read it.

#[cfg(test)]
mod tests;

use handoff_domain::audit::{About, AuditRow, Event, Outcome};
use handoff_domain::ports::{AuditSearch, RecordedRow};
use handoff_domain::time::Timestamp;
use handoff_fhir_profiles::canonical::ROLE_SYSTEM;
use serde_json::{Map, Value, json};

use super::audit_event::{agent_identifier, coding, for_purpose};
use super::search::control::not_supported;
use super::search::rows::Page;
use super::search::{parameters, values};
use crate::app::AppError;
use crate::app::provenance::{EVENTS, Target};

const OPERATION: &str = "http://terminology.hl7.org/CodeSystem/v3-DataOperation";
const PARTICIPANT: &str = "http://terminology.hl7.org/CodeSystem/provenance-participant-type";

/// A search as it was understood.
#[derive(Debug, Clone)]
pub struct Parsed {
    /// What to look for.
    pub search: AuditSearch,
    /// Which page of it.
    pub page: Page,
    /// Whose Provenance it is, where that is said.
    pub target: Option<Target>,
}

/// The search that `pairs` (decoded names and values) ask for. `strict` refuses what would be ignored; `base` is our own FHIR base
/// with its trailing slash.
///
/// Fails with 400. Every parameter takes one value.
pub fn parse(pairs: &[(String, String)], strict: bool, base: &str) -> Result<Parsed, AppError> {
    let mut search = AuditSearch::default();
    let mut target = None;
    let is_known = |name: &str| parameters::of_provenance().any(|parameter| parameter.name == name);
    let page = Page::read(
        "Provenance",
        pairs,
        strict,
        is_known,
        "recorded",
        |name, value| {
            let is_again = match name {
                "target" => {
                    let reference = values::reference(name, value, base, None)?;
                    let found = Target::parse(&reference).ok_or_else(|| {
                        not_supported("`target` is a Task or document: `Task/id` or `DocumentReference/id`")
                    })?;
                    search.entity = Some(reference);
                    target.replace(found).is_some()
                }
                "agent" => search.actor.replace(values::actor(name, value, base)?).is_some(),
                "recorded" => {
                    search.recorded = Some(values::within(name, value, search.recorded)?);
                    false
                }
                _ => search.id.replace(values::unescape(value)).is_some(),
            };
            if is_again {
                return Err(not_supported(format!("`{name}` may be given once only")));
            }
            Ok(())
        },
    )?;
    Ok(Parsed {
        search: page.of(narrowed(search)),
        page,
        target,
    })
}

/// The search for one of them.
pub fn one(id: String) -> AuditSearch {
    narrowed(AuditSearch {
        id: Some(id),
        limit: 1,
        ..AuditSearch::default()
    })
}

/// Of all rows those that tell of a version that was made.
fn narrowed(search: AuditSearch) -> AuditSearch {
    AuditSearch {
        events: EVENTS.iter().map(|event| event.as_str().to_owned()).collect(),
        outcome: Some(Outcome::Success.as_str().to_owned()),
        ..search
    }
}

/// Whose Provenance a row is.
pub fn target_of(row: &AuditRow) -> Option<Target> {
    Target::parse(about(&row.about)?.0)
}

/// What a row is about, and the version that was made.
fn about(about: &About) -> Option<(&str, Option<i64>)> {
    match (&about.task, &about.document) {
        (Some(task), _) => Some((task, about.task_version)),
        (None, Some(document)) => Some((document, about.document_version)),
        (None, None) => None,
    }
}

/// One row as a FHIR Provenance; `None` for one that tells of no version.
pub fn resource(recorded: &RecordedRow) -> Option<Value> {
    let row = &recorded.row;
    let (reference, version) = about(&row.about)?;
    let exact = |version: i64| format!("{reference}/_history/{version}");
    let before = version
        .map(|version| version.saturating_sub(1))
        .filter(|before| *before > 0);
    let (activity, version, revision) = match row.event {
        Event::TaskCreated | Event::DocumentCreated => ("CREATE", version, None),
        Event::TaskUpdated | Event::DocumentUpdated => ("UPDATE", version, before),
        Event::TaskDeleted | Event::DocumentDeleted => ("DELETE", before.or(version), None),
        // What was before has been replaced.
        Event::DocumentSuperseded => ("OBSOLETE", before.or(version), None),
        _ => return None,
    };
    let at = row.recorded.to_instant();
    let target = version.map_or_else(|| reference.to_owned(), exact);
    let mut made = json!({
        "resourceType": "Provenance",
        "id": recorded.id,
        "meta": { "versionId": "1", "lastUpdated": at },
        "target": [{ "reference": target }],
        "recorded": at,
        "activity": { "coding": [coding((OPERATION, activity))] },
        "agent": agents(row),
    });
    if let Some(map) = made.as_object_mut() {
        if let Some(purpose) = &row.agent.purpose {
            map.insert("reason".to_owned(), json!([for_purpose(purpose)]));
        }
        if let Some(revision) = revision {
            let entity = json!([{ "role": "revision", "what": { "reference": exact(revision) } }]);
            map.insert("entity".to_owned(), entity);
        }
    }
    Some(made)
}

/// Who made it, and by which program. Not from where: that is for the audit.
fn agents(row: &AuditRow) -> Vec<Value> {
    let agent = &row.agent;
    let mut who = Map::new();
    if let Some(actor) = &agent.actor {
        who.insert("reference".to_owned(), actor.as_str().into());
    } else if let Some(subject) = &agent.subject {
        let identifier = agent_identifier(agent.issuer.as_deref(), subject);
        who.insert("identifier".to_owned(), identifier);
    } else {
        who.insert("display".to_owned(), "Handoff".into());
    }
    let mut author = json!({ "type": participant("author"), "who": who });
    let roles: Vec<Value> = agent
        .roles
        .iter()
        .map(|role| json!({ "coding": [coding((ROLE_SYSTEM, role.as_str()))] }))
        .collect();
    if let (false, Some(map)) = (roles.is_empty(), author.as_object_mut()) {
        map.insert("role".to_owned(), roles.into());
    }
    let issuer = agent.issuer.as_deref();
    let by = |kind: &str, name: &String| {
        let who = json!({ "identifier": agent_identifier(issuer, name) });
        json!({ "type": participant(kind), "who": who })
    };
    let program = agent.client.iter().map(|client| by("assembler", client));
    let delegate = agent.delegate.iter().map(|delegate| by("enterer", delegate));
    std::iter::once(author).chain(program).chain(delegate).collect()
}

fn participant(code: &str) -> Value {
    json!({ "coding": [coding((PARTICIPANT, code))] })
}

/// The answer to a search. `rows` may hold one more than the page: it tells that more follow. `base` is our FHIR base with its
/// trailing slash.
pub fn searchset(base: &str, rows: &[RecordedRow], parsed: &Parsed, now: Timestamp) -> Vec<u8> {
    parsed.page.searchset(base, rows, now, resource)
}
