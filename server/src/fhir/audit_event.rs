//! The audit as FHIR AuditEvent: rows out, searches in. A row holds ids, codes and what was searched for, and nothing is
//! added to them here; who may read them is decided before.

mod search;
#[cfg(test)]
pub(super) mod tests;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use handoff_domain::audit::{About, Event, Outcome};
use handoff_domain::ids::TenantId;
use handoff_domain::ports::RecordedRow;
use handoff_domain::time::Timestamp;
use handoff_fhir_profiles::canonical::{AUDIT_EVENT_SYSTEM, ROLE_SYSTEM};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Map, Value, json};

pub use search::{Parsed, parse};

const DCM: &str = "http://dicom.nema.org/resources/ontology/DCM";
const EVENT_TYPE: &str = "http://terminology.hl7.org/CodeSystem/audit-event-type";
const INTERACTION: &str = "http://hl7.org/fhir/restful-interaction";
const LIFECYCLE: &str = "http://terminology.hl7.org/CodeSystem/iso-21089-lifecycle";
const ENTITY_TYPE: &str = "http://terminology.hl7.org/CodeSystem/audit-entity-type";
const ENTITY_ROLE: &str = "http://terminology.hl7.org/CodeSystem/object-role";
const DATA_LIFECYCLE: &str = "http://terminology.hl7.org/CodeSystem/dicom-audit-lifecycle";
const SOURCE_TYPE: &str = "http://terminology.hl7.org/CodeSystem/security-source-type";
const ACT_REASON: &str = "http://terminology.hl7.org/CodeSystem/v3-ActReason";
const BALP_ENTITY: &str = "https://profiles.ihe.net/ITI/BALP/CodeSystem/BasicAuditEntityType";

/// The detail that has a place of its own.
const QUERY: &str = "query";

/// How an event is told in FHIR's own words.
struct Shape {
    /// `AuditEvent.type`: system and code.
    kind: (&'static str, &'static str),
    /// A standard `AuditEvent.subtype` beside ours.
    subtype: Option<(&'static str, &'static str)>,
    /// `AuditEvent.action`.
    action: &'static str,
}

const fn rest(interaction: &'static str, action: &'static str) -> Shape {
    Shape {
        kind: (EVENT_TYPE, "rest"),
        subtype: Some((INTERACTION, interaction)),
        action,
    }
}

/// A record of a patient's: DICOM's type, and the event in its life.
const fn life(event: &'static str, action: &'static str) -> Shape {
    Shape {
        kind: (DCM, "110110"),
        subtype: Some((LIFECYCLE, event)),
        action,
    }
}

/// DICOM's type for what decides on access.
const fn security(action: &'static str) -> Shape {
    Shape {
        kind: (DCM, "110113"),
        subtype: None,
        action,
    }
}

const fn shape(event: Event) -> Shape {
    match event {
        Event::TaskCreated | Event::DocumentCreated | Event::BinaryCreated | Event::SubscriptionCreated => {
            rest("create", "C")
        }
        Event::TaskRead | Event::DocumentRead => rest("read", "R"),
        Event::TaskSearched | Event::DocumentSearched => rest("search-type", "E"),
        Event::TaskUpdated
        | Event::DocumentUpdated
        | Event::DocumentSuperseded
        | Event::SubscriptionUpdated => rest("update", "U"),
        Event::TaskDeleted | Event::DocumentDeleted | Event::BinaryDeleted | Event::SubscriptionDeleted => {
            rest("delete", "D")
        }
        // ISO 21089's events in the life of a record.
        Event::DocumentHeld => life("hold", "U"),
        Event::DocumentReleased => life("unhold", "U"),
        Event::RecordsRead => life("access", "R"),
        Event::Retention => life("amend", "U"),
        Event::ContentDisposed => life("destroy", "D"),
        // References to patients' Tasks have left, or would have.
        Event::SubscriptionDelivered | Event::SubscriptionFailed => Shape {
            kind: (DCM, "110106"),
            subtype: None,
            action: "R",
        },
        Event::GrantIssued => security("C"),
        Event::GrantBound | Event::GrantSuspended | Event::GrantResumed => security("U"),
        Event::GrantRevoked | Event::GrantExpired => security("D"),
        Event::RequestDenied
        | Event::GrantDenied
        | Event::LinkOpened
        | Event::RedemptionAuthorized
        | Event::RedemptionDenied
        | Event::RedemptionResumed
        | Event::SubscriptionBound
        | Event::NoticeReceived
        | Event::NoticeApplied
        | Event::ContentScanned
        | Event::ContentDrifted => security("E"),
        // Bytes have left, all or some of them: an export, and a disclosure.
        Event::RedemptionCompleted
        | Event::RedemptionInterrupted
        | Event::RedemptionCutOff
        | Event::RedemptionIntegrityFailed => Shape {
            kind: (DCM, "110106"),
            subtype: Some((LIFECYCLE, "disclose")),
            action: "R",
        },
        Event::AuditRead => Shape {
            kind: (DCM, "110101"),
            subtype: None,
            action: "R",
        },
        Event::Login => Shape {
            kind: (DCM, "110114"),
            subtype: None,
            action: "E",
        },
        Event::AdminAction => Shape {
            kind: (DCM, "110100"),
            subtype: None,
            action: "E",
        },
        Event::BreakGlass => Shape {
            kind: (DCM, "110113"),
            subtype: Some((DCM, "110127")),
            action: "E",
        },
        Event::PolicyChanged => Shape {
            kind: (DCM, "110113"),
            subtype: Some((DCM, "110129")),
            action: "U",
        },
    }
}

const fn outcome_code(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Success => "0",
        Outcome::Denied => "4",
        Outcome::Failed => "8",
    }
}

/// A Coding.
pub(super) fn coding((system, code): (&str, &str)) -> Value {
    json!({ "system": system, "code": code })
}

/// One row of a tenant as a FHIR AuditEvent.
pub fn resource(tenant: &TenantId, recorded: &RecordedRow) -> Value {
    let row = &recorded.row;
    let at = row.recorded.to_instant();
    let shape = shape(row.event);
    let ours = coding((AUDIT_EVENT_SYSTEM, row.event.as_str()));
    let subtypes: Vec<Value> = shape.subtype.map(coding).into_iter().chain([ours]).collect();
    let mut event = json!({
        "resourceType": "AuditEvent",
        "id": recorded.id,
        "meta": { "versionId": "1", "lastUpdated": at },
        "type": coding(shape.kind),
        "subtype": subtypes,
        "action": shape.action,
        "recorded": at,
        "outcome": outcome_code(row.outcome),
        "outcomeDesc": row.reason.as_str(),
        "agent": agents(recorded),
        "source": {
            "site": tenant.as_str(),
            "observer": { "type": "Device", "display": "Handoff" },
            "type": [coding((SOURCE_TYPE, "4"))],
        },
        "entity": entities(recorded),
    });
    let purpose = match row.event {
        Event::BreakGlass => Some("BTG"),
        _ => row.agent.purpose.as_deref(),
    };
    if let (Some(purpose), Some(map)) = (purpose, event.as_object_mut()) {
        map.insert("purposeOfEvent".to_owned(), json!([for_purpose(purpose)]));
    }
    event
}

/// A purpose of use.
pub(super) fn for_purpose(code: &str) -> Value {
    json!({ "coding": [coding((ACT_REASON, code))] })
}

fn agents(recorded: &RecordedRow) -> Vec<Value> {
    let agent = &recorded.row.agent;
    let mut who = Map::new();
    if let Some(actor) = &agent.actor {
        who.insert("reference".to_owned(), actor.as_str().into());
    }
    if let Some(subject) = &agent.subject {
        who.insert(
            "identifier".to_owned(),
            agent_identifier(agent.issuer.as_deref(), subject),
        );
    }
    let caller = !who.is_empty() || agent.address.is_some();
    if !caller {
        who.insert("type".to_owned(), "Device".into());
        who.insert("display".to_owned(), "Handoff".into());
    }
    let mut first = Map::new();
    if !who.is_empty() {
        first.insert("who".to_owned(), Value::Object(who));
    }
    let mapped = agent
        .roles
        .iter()
        .map(|role| json!({ "coding": [coding((ROLE_SYSTEM, role.as_str()))] }));
    let unmapped = agent
        .unmapped_roles
        .iter()
        .map(|role| json!({ "text": format!("unmapped: {role}") }));
    let roles: Vec<Value> = mapped.chain(unmapped).collect();
    if !roles.is_empty() {
        first.insert("role".to_owned(), roles.into());
    }
    first.insert("requestor".to_owned(), caller.into());
    if let Some(token) = &agent.token_id {
        let urn = format!("urn:ietf:params:oauth:jti:{}", utf8_percent_encode(token, URN));
        first.insert("policy".to_owned(), json!([urn]));
    }
    if let Some(address) = &agent.address {
        first.insert("network".to_owned(), json!({ "address": address, "type": "2" }));
    }
    if let Some(purpose) = &agent.purpose {
        first.insert("purposeOfUse".to_owned(), json!([for_purpose(purpose)]));
    }
    let mut agents = vec![Value::Object(first)];
    if let Some(client) = &agent.client {
        agents.push(json!({
            "type": { "coding": [coding((DCM, "110150"))] },
            "who": { "identifier": agent_identifier(agent.issuer.as_deref(), client) },
            "requestor": false,
        }));
    }
    if let Some(delegate) = &agent.delegate {
        agents.push(json!({
            "type": { "text": "delegate" },
            "who": { "identifier": agent_identifier(agent.issuer.as_deref(), delegate) },
            "requestor": false,
        }));
    }
    agents
}

const URN: &percent_encoding::AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~')
    .remove(b':');

/// Somebody whom an issuer knows by this name.
pub(super) fn agent_identifier(system: Option<&str>, value: &str) -> Value {
    match system {
        Some(system) => json!({ "system": system, "value": value }),
        None => json!({ "value": value }),
    }
}

/// What a row was about, the most telling first, and the request at the end with the rest of the row.
fn entities(recorded: &RecordedRow) -> Vec<Value> {
    let row = &recorded.row;
    let About {
        task,
        task_version,
        document,
        document_version,
        binary,
        grant,
        redemption,
        patient,
    } = &row.about;
    let disclosed = shape(row.event).kind == (DCM, "110106");
    let thing = |reference: &Option<String>, version: Option<i64>, role: &str, disclosed: bool| {
        reference.as_ref().map(|reference| {
            let exact = version.map_or_else(|| reference.clone(), |v| format!("{reference}/_history/{v}"));
            let mut entity = json!({
                "what": { "reference": exact },
                "type": coding((ENTITY_TYPE, "2")),
                "role": coding((ENTITY_ROLE, role)),
            });
            if let (true, Some(map)) = (disclosed, entity.as_object_mut()) {
                map.insert("lifecycle".to_owned(), coding((DATA_LIFECYCLE, "11")));
            }
            entity
        })
    };
    let secured = |id: &Option<String>, name: &str| {
        id.as_ref().map(|id| {
            json!({
                "what": { "identifier": { "value": id } },
                "type": coding((ENTITY_TYPE, "2")),
                "role": coding((ENTITY_ROLE, "13")),
                "name": name,
            })
        })
    };
    let person = patient.as_ref().map(|patient| {
        json!({
            "what": { "reference": patient },
            "type": coding((ENTITY_TYPE, "1")),
            "role": coding((ENTITY_ROLE, "1")),
        })
    });
    let query = row.detail.get(QUERY).map(|query| {
        json!({
            "type": coding((ENTITY_TYPE, "2")),
            "role": coding((ENTITY_ROLE, "24")),
            "query": STANDARD.encode(query),
        })
    });
    let about = [
        query,
        thing(task, *task_version, "4", false),
        thing(document, *document_version, "3", false),
        thing(binary, None, "3", disclosed),
        secured(grant, "grant"),
        secured(redemption, "redemption"),
        person,
    ];
    let own = [("event", row.event.as_str()), ("reason", row.reason.as_str())];
    let user_agent = row.agent.user_agent.as_deref().map(|text| ("user-agent", text));
    let kept = row
        .detail
        .iter()
        .filter(|(name, _)| *name != QUERY)
        .map(|(name, value)| (name.as_str(), value.as_str()));
    let detail: Vec<Value> = own
        .into_iter()
        .chain(kept)
        .chain(user_agent)
        .map(|(name, value)| (name, printable(value)))
        .filter(|(_, value)| !value.trim().is_empty())
        .map(|(name, value)| json!({ "type": name, "valueString": value }))
        .collect();
    let request = json!({
        "what": { "identifier": { "value": row.correlation.as_str() } },
        "type": coding((BALP_ENTITY, "XrequestId")),
        "detail": detail,
    });
    about.into_iter().flatten().chain([request]).collect()
}

/// Text without what FHIR strings may not hold, and without line breaks that would make two lines of one.
fn printable(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}

/// The answer to a search. `rows` may hold one more than the page: it tells that more follow. `base` is our
/// FHIR base with its trailing slash.
pub fn searchset(
    tenant: &TenantId,
    base: &str,
    rows: &[RecordedRow],
    parsed: &Parsed,
    now: Timestamp,
) -> Vec<u8> {
    parsed
        .page
        .searchset(base, rows, now, |row| Some(resource(tenant, row)))
}
