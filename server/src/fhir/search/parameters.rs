//! The search parameters of every type that can be searched: the one table that searches are read by and that
//! the CapabilityStatement lists. Knows names, types and definitions; nothing of values or tables.

use handoff_domain::ports::Kind;
use handoff_fhir_profiles::canonical::{SEARCH_TASK_DUE, SEARCH_TASK_RECIPIENT};

/// How the values of a parameter are written and compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Values {
    /// `_id`.
    Id,
    /// `_lastUpdated`.
    LastUpdated,
    /// A code, perhaps with its system.
    Token,
    /// A reference; to this type alone, where one is given.
    Reference(Option<&'static str>),
    /// A point or range of time.
    Date,
    /// A text, by its start.
    Text,
    /// A URI, as a whole.
    Uri,
}

impl Values {
    /// `CapabilityStatement.rest.resource.searchParam.type`.
    pub const fn code(self) -> &'static str {
        match self {
            Self::Id | Self::Token => "token",
            Self::LastUpdated | Self::Date => "date",
            Self::Reference(_) => "reference",
            Self::Text => "string",
            Self::Uri => "uri",
        }
    }
}

/// One search parameter.
#[derive(Debug, Clone, Copy)]
pub struct Parameter {
    /// Its name in a query.
    pub name: &'static str,
    /// How its values are written.
    pub values: Values,
    /// The canonical URL of its definition; `None` for one of ours that no SearchParameter defines.
    pub definition: Option<&'static str>,
}

macro_rules! hl7 {
    ($($name:literal $values:expr, $definition:literal;)*) => {
        &[$(Parameter {
            name: $name,
            values: $values,
            definition: Some(concat!("http://hl7.org/fhir/SearchParameter/", $definition)),
        }),*]
    };
}

const ANY: Values = Values::Reference(None);

/// What every stored resource is found by.
const COMMON: &[Parameter] = hl7! {
    "_id" Values::Id, "Resource-id";
    "_lastUpdated" Values::LastUpdated, "Resource-lastUpdated";
    "_tag" Values::Token, "Resource-tag";
    "_security" Values::Token, "Resource-security";
    "_profile" Values::Uri, "Resource-profile";
    "_source" Values::Uri, "Resource-source";
};

const TASK: &[Parameter] = hl7! {
    "authored-on" Values::Date, "Task-authored-on";
    "based-on" ANY, "Task-based-on";
    "business-status" Values::Token, "Task-business-status";
    "code" Values::Token, "Task-code";
    "encounter" Values::Reference(Some("Encounter")), "Task-encounter";
    "focus" ANY, "Task-focus";
    "group-identifier" Values::Token, "Task-group-identifier";
    "identifier" Values::Token, "Task-identifier";
    "intent" Values::Token, "Task-intent";
    "modified" Values::Date, "Task-modified";
    "owner" ANY, "Task-owner";
    "part-of" Values::Reference(Some("Task")), "Task-part-of";
    "patient" Values::Reference(Some("Patient")), "Task-patient";
    "performer" Values::Token, "Task-performer";
    "period" Values::Date, "Task-period";
    "priority" Values::Token, "Task-priority";
    "requester" ANY, "Task-requester";
    "status" Values::Token, "Task-status";
    "subject" ANY, "Task-subject";
};

/// Of Task, defined by us: R4 has no parameter for them.
const TASK_OURS: &[Parameter] = &[
    Parameter {
        name: "-due",
        values: Values::Date,
        definition: Some(SEARCH_TASK_DUE),
    },
    Parameter {
        name: "-recipient",
        values: ANY,
        definition: Some(SEARCH_TASK_RECIPIENT),
    },
];

const DOCUMENT: &[Parameter] = hl7! {
    "authenticator" ANY, "DocumentReference-authenticator";
    "author" ANY, "DocumentReference-author";
    "category" Values::Token, "DocumentReference-category";
    "contenttype" Values::Token, "DocumentReference-contenttype";
    "custodian" Values::Reference(Some("Organization")), "DocumentReference-custodian";
    "date" Values::Date, "DocumentReference-date";
    "description" Values::Text, "DocumentReference-description";
    "encounter" ANY, "clinical-encounter";
    "event" Values::Token, "DocumentReference-event";
    "facility" Values::Token, "DocumentReference-facility";
    "format" Values::Token, "DocumentReference-format";
    "identifier" Values::Token, "clinical-identifier";
    "language" Values::Token, "DocumentReference-language";
    "location" Values::Uri, "DocumentReference-location";
    "patient" Values::Reference(Some("Patient")), "clinical-patient";
    "period" Values::Date, "DocumentReference-period";
    "related" ANY, "DocumentReference-related";
    "relatesto" Values::Reference(Some("DocumentReference")), "DocumentReference-relatesto";
    "relation" Values::Token, "DocumentReference-relation";
    "security-label" Values::Token, "DocumentReference-security-label";
    "setting" Values::Token, "DocumentReference-setting";
    "status" Values::Token, "DocumentReference-status";
    "subject" ANY, "DocumentReference-subject";
    "type" Values::Token, "clinical-type";
};

const SUBSCRIPTION: &[Parameter] = hl7! {
    "contact" Values::Token, "Subscription-contact";
    "criteria" Values::Text, "Subscription-criteria";
    "payload" Values::Token, "Subscription-payload";
    "status" Values::Token, "Subscription-status";
    "type" Values::Token, "Subscription-type";
    "url" Values::Uri, "Subscription-url";
};

/// Of AuditEvent. Read by `audit_event`, one value each.
const AUDIT_EVENT: &[Parameter] = hl7! {
    "_id" Values::Id, "Resource-id";
    "date" Values::Date, "AuditEvent-date";
    "agent" ANY, "AuditEvent-agent";
    "patient" Values::Reference(Some("Patient")), "AuditEvent-patient";
    "entity" ANY, "AuditEvent-entity";
    "type" Values::Token, "AuditEvent-type";
    "subtype" Values::Token, "AuditEvent-subtype";
    "action" Values::Token, "AuditEvent-action";
    "outcome" Values::Token, "AuditEvent-outcome";
};

/// Of Provenance. Read by `provenance`, one value each.
const PROVENANCE: &[Parameter] = hl7! {
    "_id" Values::Id, "Resource-id";
    "agent" ANY, "Provenance-agent";
    "recorded" Values::Date, "Provenance-recorded";
    "target" ANY, "Provenance-target";
};

/// The correlation id, in AuditEvent.
const AUDIT_EVENT_OURS: &[Parameter] = &[Parameter {
    name: "-correlation",
    values: Values::Token,
    definition: None,
}];

/// Of the artifacts that come with the server. Read by `artifacts`.
const ARTIFACT: &[Parameter] = hl7! {
    "_id" Values::Id, "Resource-id";
    "name" Values::Text, "conformance-name";
    "status" Values::Token, "conformance-status";
    "url" Values::Uri, "conformance-url";
    "version" Values::Token, "conformance-version";
};

/// The parameters that Tasks, documents or Subscriptions are found by; none for Binary.
pub fn of(kind: Kind) -> impl Iterator<Item = &'static Parameter> {
    let own: [&[Parameter]; 3] = match kind {
        Kind::Task => [COMMON, TASK, TASK_OURS],
        Kind::Document => [COMMON, DOCUMENT, &[]],
        Kind::Subscription => [COMMON, SUBSCRIPTION, &[]],
        Kind::Binary => [&[], &[], &[]],
    };
    own.into_iter().flatten()
}

/// The parameters that audit events are found by.
pub fn of_audit_events() -> impl Iterator<Item = &'static Parameter> {
    AUDIT_EVENT.iter().chain(AUDIT_EVENT_OURS)
}

/// The parameters that Provenance is found by.
pub fn of_provenance() -> impl Iterator<Item = &'static Parameter> {
    PROVENANCE.iter()
}

/// The parameters that artifacts are found by.
pub fn of_artifacts() -> impl Iterator<Item = &'static Parameter> {
    ARTIFACT.iter()
}
