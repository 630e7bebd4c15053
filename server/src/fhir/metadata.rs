//! The CapabilityStatement: exactly what is served. Its search parameters come from the table that searches are
//! read by; what else it says is held against the running server by a test.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use handoff_domain::ports::Kind;
use handoff_domain::subscription::TOPICS;
use handoff_fhir_profiles::canonical::{
    OPERATION_GRANT, OPERATION_PURGE, OPERATION_REVOKE_GRANTS, OPERATION_VALIDATE, PROFILE_DOCUMENT,
    PROFILE_TASK, TOPIC,
};
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

use super::search::parameters::{self, Parameter};

/// When what the statement says last changed.
const DATE: &str = "2026-11-27";

const SECURITY: &str = "Every request to this base but `metadata` and `.well-known/smart-configuration` needs an OAuth 2.0 access \
token (a JWT of a configured OpenID Connect issuer) as `Authorization: Bearer`. Its SMART scopes cap what it can do \
(`$grant` and `$revoke-grants` need `Task.u`, content needs `Binary.r`); roles and relations to a Task decide what is \
seen and done. \
The content of a Binary is served to the holder of a live grant alone, while the Task that it was granted under \
is actionable.";

const BINARY: &str = "The content is served through the grant of a Task (`?task=Task/id` picks one) and takes a \
use of it. HEAD takes none. Content is never answered with 304. In an emergency, who has the role for it sends \
`X-Break-Glass-Reason`: the content is served under a Task that is made for it.";

const TASK: &str = "Transitions of `Task.status` follow a closed table; another move is 422. `If-Match` with the \
version is honoured. Moves issue, bind, suspend and revoke the grants for the documents in `focus` and `input`.";

const DOCUMENT: &str = "`attachment.data` is taken in and replaced by a link to a Binary; it is never answered. \
A document that `relatesTo` another with `replaces` supersedes it.";

const SUBSCRIPTION: &str = "Both kinds: criteria of base R4 (`Task?status=ready`; rest-hook with and without payload, websocket) and topics \
of Subscriptions R5 Backport 1.1.0 (rest-hook and websocket; `empty`, `id-only`, `full-resource`; filters by the search \
parameters of the focus). A web socket is bound by `bind-with-token`, or by `bind` where it was opened with an access token; \
what it did not take is in `$events`. Events are numbered without gaps, delivered at least once and in order, signed (Standard Webhooks) and kept for \
`$events`. A subscriber is told what its token's scopes and the rules allow at that moment, and nothing else. Headers and the \
key of the signatures are told once, in the answer that creates the Subscription (or makes a rest-hook of it).";

/// What Subscriptions R5 Backport 1.1.0 defines.
const PROFILE_SUBSCRIPTION: &str =
    "http://hl7.org/fhir/uv/subscriptions-backport/StructureDefinition/backport-subscription";
const SUBSCRIPTION_SERVER: &str =
    "http://hl7.org/fhir/uv/subscriptions-backport/CapabilityStatement/backport-subscription-server-r4";
const TOPIC_EXTENSION: &str = "http://hl7.org/fhir/uv/subscriptions-backport/StructureDefinition/capabilitystatement-subscriptiontopic-canonical";
const OPERATION_STATUS: &str =
    "http://hl7.org/fhir/uv/subscriptions-backport/OperationDefinition/backport-subscription-status";
const OPERATION_EVENTS: &str =
    "http://hl7.org/fhir/uv/subscriptions-backport/OperationDefinition/backport-subscription-events";

const OPERATION_BINDING_TOKEN: &str = "http://hl7.org/fhir/uv/subscriptions-backport/OperationDefinition/backport-subscription-get-ws-binding-token";
/// Where web sockets are opened (an extension of base R4).
const WEBSOCKET_EXTENSION: &str = "http://hl7.org/fhir/StructureDefinition/capabilitystatement-websocket";

/// What is done with resources that are kept version by version.
const VERSIONED: [&str; 7] = [
    "create",
    "read",
    "vread",
    "update",
    "delete",
    "history-instance",
    "search-type",
];

type Statement = (Vec<u8>, String);

static WRITTEN: Mutex<BTreeMap<String, Statement>> = Mutex::new(BTreeMap::new());

/// How many bases are remembered: one for each tenant in use.
const REMEMBERED: usize = 1024;

/// The statement as JSON, and its `ETag`, for a FHIR base with its trailing slash.
pub fn capability_statement(base: &str) -> Statement {
    let mut written = WRITTEN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(statement) = written.get(base) {
        return statement.clone();
    }
    let body = statement(base).to_string().into_bytes();
    let etag = Sha256::digest(&body)
        .first_chunk()
        .map_or(0, |first| u64::from_be_bytes(*first));
    let statement = (body, format!("W/\"{etag:016x}\""));
    if written.len() < REMEMBERED {
        written.insert(base.to_owned(), statement.clone());
    }
    statement
}

fn statement(base: &str) -> Value {
    let mut resources = vec![
        Resource {
            kind: "Task",
            documentation: Some(TASK),
            profile: Some(PROFILE_TASK),
            interactions: &VERSIONED,
            search: parameters::of(Kind::Task).collect(),
            operations: &[
                ("grant", OPERATION_GRANT),
                ("revoke-grants", OPERATION_REVOKE_GRANTS),
                ("validate", OPERATION_VALIDATE),
            ],
            history: true,
        },
        Resource {
            kind: "DocumentReference",
            documentation: Some(DOCUMENT),
            profile: Some(PROFILE_DOCUMENT),
            interactions: &VERSIONED,
            search: parameters::of(Kind::Document).collect(),
            operations: &[("purge", OPERATION_PURGE), ("validate", OPERATION_VALIDATE)],
            history: true,
        },
        Resource {
            kind: "Binary",
            documentation: Some(BINARY),
            profile: None,
            interactions: &["create", "read", "vread", "delete"],
            search: Vec::new(),
            operations: &[],
            history: false,
        },
        Resource {
            kind: "Subscription",
            documentation: Some(SUBSCRIPTION),
            profile: Some(PROFILE_SUBSCRIPTION),
            interactions: &VERSIONED,
            search: parameters::of(Kind::Subscription).collect(),
            operations: &[
                ("status", OPERATION_STATUS),
                ("events", OPERATION_EVENTS),
                ("get-ws-binding-token", OPERATION_BINDING_TOKEN),
                ("validate", OPERATION_VALIDATE),
            ],
            history: true,
        },
        Resource {
            kind: "AuditEvent",
            documentation: Some("The audit ledger, for those who may read it. Reading it is recorded in it."),
            profile: None,
            interactions: &["read", "search-type"],
            search: parameters::of_audit_events().collect(),
            operations: &[],
            history: false,
        },
        Resource {
            kind: "Provenance",
            documentation: Some(
                "Who made each version of a Task or document. Whoever may read that may search its Provenance by `target`.",
            ),
            profile: None,
            interactions: &["read", "search-type"],
            search: parameters::of_provenance().collect(),
            operations: &[],
            history: false,
        },
    ];
    let shipped = [
        "StructureDefinition",
        "SearchParameter",
        "OperationDefinition",
        "ValueSet",
        "CodeSystem",
        "ConceptMap",
    ];
    resources.extend(shipped.map(|kind| Resource {
        kind,
        documentation: None,
        profile: None,
        interactions: &["read", "search-type"],
        search: parameters::of_artifacts().collect(),
        operations: &[],
        history: false,
    }));
    let resources: Vec<Value> = resources.iter().map(Resource::write).collect();
    let service = |code: &str| {
        json!({ "coding": [{
            "system": "http://terminology.hl7.org/CodeSystem/restful-security-service", "code": code,
        }] })
    };
    json!({
        "resourceType": "CapabilityStatement",
        "name": "Handoff",
        "title": "Handoff",
        "status": "active",
        "date": DATE,
        "publisher": "Handoff",
        "description": "A FHIR R4 workflow server that releases clinical documents only while their Task is actionable.",
        "kind": "instance",
        "instantiates": [SUBSCRIPTION_SERVER],
        "software": { "name": "Handoff", "version": env!("CARGO_PKG_VERSION") },
        "implementation": { "description": "Handoff", "url": base.trim_end_matches('/') },
        "fhirVersion": "4.0.1",
        "format": ["application/fhir+json", "json"],
        "rest": [{
            "extension": [{ "url": WEBSOCKET_EXTENSION, "valueUri": crate::http::websocket::address(base) }],
            "mode": "server",
            "security": {
                "service": [service("SMART-on-FHIR"), service("OAuth")],
                "description": SECURITY,
            },
            "resource": resources,
            "interaction": [{ "code": "transaction" }, { "code": "batch" }],
        }],
    })
}

struct Resource {
    kind: &'static str,
    documentation: Option<&'static str>,
    profile: Option<&'static str>,
    interactions: &'static [&'static str],
    search: Vec<&'static Parameter>,
    operations: &'static [(&'static str, &'static str)],
    /// Whether versions are kept and answered as a history.
    history: bool,
}

impl Resource {
    fn write(&self) -> Value {
        let mut out = Map::new();
        let mut put = |name: &str, value: Value| out.insert(name.to_owned(), value);
        if self.kind == Kind::Subscription.as_str() {
            let topics = TOPICS.iter().map(|kind| {
                json!({"url": TOPIC_EXTENSION, "valueCanonical": format!("{TOPIC}{}", kind.topic.as_str())})
            });
            put("extension", topics.collect());
        }
        put("type", self.kind.into());
        if let Some(profile) = self.profile {
            put("supportedProfile", json!([profile]));
        }
        if let Some(documentation) = self.documentation {
            put("documentation", documentation.into());
        }
        put(
            "interaction",
            self.interactions
                .iter()
                .map(|code| json!({ "code": code }))
                .collect(),
        );
        put(
            "versioning",
            if self.interactions.contains(&"vread") {
                "versioned"
            } else {
                "no-version"
            }
            .into(),
        );
        put("readHistory", self.history.into());
        put("updateCreate", false.into());
        put("conditionalCreate", false.into());
        put(
            "conditionalRead",
            if self.history {
                "not-match"
            } else {
                "not-supported"
            }
            .into(),
        );
        put("conditionalUpdate", false.into());
        put("conditionalDelete", "not-supported".into());
        if self.history {
            put("referencePolicy", json!(["literal", "logical", "local"]));
        }
        if !self.search.is_empty() {
            put(
                "searchParam",
                self.search
                    .iter()
                    .map(|parameter| search_parameter(parameter))
                    .collect(),
            );
        }
        if !self.operations.is_empty() {
            let operation =
                |(name, definition): &(&str, &str)| json!({ "name": name, "definition": definition });
            put("operation", self.operations.iter().map(operation).collect());
        }
        Value::Object(out)
    }
}

fn search_parameter(parameter: &Parameter) -> Value {
    let mut out = Map::new();
    out.insert("name".to_owned(), parameter.name.into());
    if let Some(definition) = parameter.definition {
        out.insert("definition".to_owned(), definition.into());
    }
    out.insert("type".to_owned(), parameter.values.code().into());
    Value::Object(out)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use handoff_domain::subscription::topic_kind;
    use handoff_fhir_model::{ParseOptions, parse};
    use handoff_fhir_profiles::artifacts;

    use super::*;

    fn parsed(base: &str) -> Value {
        let (body, _) = capability_statement(base);
        parse(&body, &ParseOptions::expecting("CapabilityStatement"))
            .unwrap()
            .into_value()
    }

    #[test]
    fn the_statement_is_valid_r4_and_names_its_own_base() {
        let statement = parsed("https://h.example/t/b/fhir/");
        assert_eq!(statement["implementation"]["url"], "https://h.example/t/b/fhir");
        assert_eq!(statement["fhirVersion"], "4.0.1");
    }

    #[test]
    fn the_etag_stays_while_the_statement_does_and_differs_between_bases() {
        let (_, a) = capability_statement("https://a.example/fhir/");
        assert_eq!(capability_statement("https://a.example/fhir/").1, a);
        assert_ne!(capability_statement("https://b.example/fhir/").1, a);
        assert!(a.starts_with("W/\"") && a.ends_with('"'));
    }

    #[test]
    fn every_type_is_listed_once_and_every_search_parameter_of_it_once() {
        let statement = parsed("https://h.example/fhir/");
        let mut kinds = HashSet::new();
        for resource in statement["rest"][0]["resource"].as_array().unwrap() {
            assert!(kinds.insert(resource["type"].as_str().unwrap().to_owned()));
            let mut names = HashSet::new();
            for parameter in resource["searchParam"].as_array().into_iter().flatten() {
                assert!(names.insert(parameter["name"].as_str().unwrap().to_owned()));
            }
        }
        assert!(kinds.contains("Task") && kinds.contains("AuditEvent") && kinds.contains("ConceptMap"));
    }

    #[test]
    fn what_of_ours_it_names_is_served_or_can_be_subscribed_to() {
        let text = parsed("https://h.example/fhir/").to_string();
        let own = "\"https://handoff.example/fhir/";
        let mut found = 0;
        for rest in text.split(own).skip(1) {
            let path = rest.split('"').next().unwrap();
            let url = format!("https://handoff.example/fhir/{path}");
            let is_topic = url.strip_prefix(TOPIC).and_then(topic_kind).is_some();
            assert!(
                is_topic || artifacts().iter().any(|artifact| artifact.url == url),
                "{url}"
            );
            found += 1;
        }
        assert!(found >= 8, "{found}");
    }

    #[test]
    fn shared_parameters_are_named_by_their_shared_definitions() {
        let statement = parsed("https://h.example/fhir/");
        let definition = |kind: &str, name: &str| {
            let resources = statement["rest"][0]["resource"].as_array().unwrap();
            let resource = resources.iter().find(|r| r["type"] == kind).unwrap();
            let parameters = resource["searchParam"].as_array().unwrap();
            parameters.iter().find(|p| p["name"] == name).unwrap()["definition"]
                .as_str()
                .unwrap()
                .to_owned()
        };
        let hl7 = |tail: &str| format!("http://hl7.org/fhir/SearchParameter/{tail}");
        assert_eq!(definition("Task", "patient"), hl7("Task-patient"));
        assert_eq!(
            definition("DocumentReference", "patient"),
            hl7("clinical-patient")
        );
        assert_eq!(
            definition("DocumentReference", "status"),
            hl7("DocumentReference-status")
        );
        assert_eq!(definition("CodeSystem", "url"), hl7("conformance-url"));
        assert_eq!(
            definition("Task", "-due"),
            handoff_fhir_profiles::canonical::SEARCH_TASK_DUE
        );
    }
}
