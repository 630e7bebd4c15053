//! What rows look like as AuditEvent resources, and what searches of them ask the ledger.

use handoff_domain::access::Role;
use handoff_domain::audit::{About, Agent, AuditRow, Event, Outcome};
use handoff_domain::ids::{CorrelationId, TenantId};
use handoff_domain::ports::RecordedRow;
use handoff_domain::reason::Reason;
use handoff_domain::time::Timestamp;
use handoff_fhir_model::{ParseOptions, from_value, parse as parse_fhir};
use serde_json::Value;

use super::*;

const BASE: &str = "https://h.example/fhir/";

/// A row in which everything is said.
pub(in crate::fhir) fn row(sequence: i64, event: Event, outcome: Outcome, reason: Reason) -> RecordedRow {
    let agent = Agent {
        unmapped_roles: Vec::new(),
        actor: Some("Practitioner/lane".to_owned()),
        subject: Some("lane".to_owned()),
        issuer: Some("https://id.example".to_owned()),
        roles: vec![Role::Fulfiller],
        client: Some("viewer".to_owned()),
        delegate: Some("viewer-app".to_owned()),
        purpose: None,
        token_id: Some("jti 1".to_owned()),
        address: Some("192.0.2.1".to_owned()),
        user_agent: Some("curl/8\nx".to_owned()),
    };
    let about = About {
        task: Some("Task/1".to_owned()),
        task_version: Some(3),
        document: Some("DocumentReference/2".to_owned()),
        document_version: Some(1),
        binary: Some("Binary/3".to_owned()),
        grant: Some("g1".to_owned()),
        redemption: Some("r1".to_owned()),
        patient: Some("Patient/ada".to_owned()),
    };
    let row = AuditRow {
        recorded: Timestamp::parse_instant("2026-03-01T12:00:00Z").unwrap(),
        event,
        outcome,
        reason,
        correlation: CorrelationId::parse("c-1").unwrap(),
        agent,
        about,
        detail: std::collections::BTreeMap::new(),
    };
    RecordedRow {
        sequence,
        id: sequence.to_string(),
        row: row.detail("bytes", "12").detail("empty", ""),
    }
}

fn valid(row: &RecordedRow) -> Value {
    from_value(
        resource(&TenantId::default_tenant(), row),
        &ParseOptions::expecting("AuditEvent"),
    )
    .unwrap()
    .into_value()
}

fn pairs(query: &[(&str, &str)]) -> Vec<(String, String)> {
    query
        .iter()
        .map(|(n, v)| ((*n).to_owned(), (*v).to_owned()))
        .collect()
}

fn ask(query: &[(&str, &str)]) -> Parsed {
    parse(&pairs(query), true, BASE).unwrap()
}

#[test]
fn every_event_with_every_outcome_is_valid_r4() {
    for event in Event::ALL {
        for (outcome, code) in [
            (Outcome::Success, "0"),
            (Outcome::Denied, "4"),
            (Outcome::Failed, "8"),
        ] {
            let value = valid(&row(1, *event, outcome, Reason::Permitted));
            assert_eq!(value["outcome"], code);
            let subtypes = value["subtype"].as_array().unwrap();
            assert_eq!(subtypes.last().unwrap()["code"], event.as_str());
        }
    }
}

#[test]
fn a_completed_redemption_is_a_disclosure_by_export() {
    let value = valid(&row(
        7,
        Event::RedemptionCompleted,
        Outcome::Success,
        Reason::Permitted,
    ));
    assert_eq!(value["type"]["code"], "110106");
    assert_eq!(value["subtype"][0]["code"], "disclose");
    let text = value.to_string();
    for part in [
        "Task/1/_history/3",
        "DocumentReference/2/_history/1",
        "Binary/3",
        "g1",
        "r1",
        "Patient/ada",
        "c-1",
    ] {
        assert!(text.contains(part), "{part}");
    }
    assert_eq!(value["source"]["site"], "default");
    let agent = &value["agent"][0];
    assert_eq!(agent["who"]["reference"], "Practitioner/lane");
    assert_eq!(agent["role"][0]["coding"][0]["code"], "fulfiller");
    assert_eq!(agent["network"]["address"], "192.0.2.1");
    assert_eq!(agent["policy"][0], "urn:ietf:params:oauth:jti:jti%201");
    assert_eq!(value["agent"][1]["type"]["coding"][0]["code"], "110150");
    let requestors = value["agent"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|a| a["requestor"] == true)
        .count();
    assert_eq!(requestors, 1);
    assert!(text.contains(r#"{"type":"bytes","valueString":"12"}"#));
    assert!(!text.contains("\\n"));
}

#[test]
fn a_row_of_the_server_itself_and_one_of_a_stranger_are_told_apart() {
    let mut own = row(1, Event::GrantExpired, Outcome::Success, Reason::Expired);
    own.row.agent = Agent::default();
    own.row.about = About::default();
    let value = valid(&own);
    assert_eq!(value["agent"][0]["who"]["display"], "Handoff");
    assert_eq!(value["agent"][0]["requestor"], false);
    let mut stranger = row(2, Event::RequestDenied, Outcome::Denied, Reason::TokenInvalid);
    stranger.row.agent = Agent {
        address: Some("192.0.2.9".to_owned()),
        ..Agent::default()
    };
    let value = valid(&stranger);
    assert!(value["agent"][0].get("who").is_none());
    assert_eq!(value["agent"][0]["requestor"], true);
    assert_eq!(value["outcomeDesc"], "token-invalid");
}

#[test]
fn parameters_become_the_ledgers_own_question() {
    let search = ask(&[
        ("_id", "5"),
        ("agent", "https://h.example/fhir/Practitioner/lane"),
        ("patient", "ada"),
        ("entity", "Task/1"),
        ("outcome", "4"),
        ("-correlation", "c-1"),
        ("date", "ge2026-03-01"),
        ("date", "lt2026-04"),
        ("_sort", "date"),
        ("_count", "10"),
    ])
    .search;
    assert_eq!(search.id.as_deref(), Some("5"));
    assert_eq!(search.actor.as_deref(), Some("Practitioner/lane"));
    assert_eq!(search.patient.as_deref(), Some("Patient/ada"));
    assert_eq!(search.entity.as_deref(), Some("Task/1"));
    assert_eq!(search.outcome.as_deref(), Some("denied"));
    assert_eq!(search.correlation.as_deref(), Some("c-1"));
    let instant = |text| Timestamp::parse_instant(text).unwrap();
    assert_eq!(
        search.recorded,
        Some((instant("2026-03-01T00:00:00Z"), instant("2026-04-01T00:00:00Z")))
    );
    assert!(search.oldest_first);
    assert_eq!((search.limit, search.after), (11, None));
    assert_eq!(ask(&[("entity", "g1")]).search.entity.as_deref(), Some("g1"));
}

#[test]
fn types_and_actions_narrow_to_the_events_that_show_them() {
    type Query<'a> = &'a [(&'a str, &'a str)];
    let cases: [(Query<'_>, &[&str]); 7] = [
        (&[("subtype", "grant-bound")], &["grant-bound"]),
        (
            &[("subtype", "grant-bound,grant-issued")],
            &["grant-issued", "grant-bound"],
        ),
        (
            &[("type", "rest"), ("action", "C")],
            &[
                "task-created",
                "document-created",
                "binary-created",
                "subscription-created",
            ],
        ),
        (
            &[
                ("subtype", "http://hl7.org/fhir/restful-interaction|delete"),
                ("action", "D"),
            ],
            &[
                "task-deleted",
                "document-deleted",
                "binary-deleted",
                "subscription-deleted",
            ],
        ),
        (
            &[("type", "http://dicom.nema.org/resources/ontology/DCM|110101")],
            &["audit-read"],
        ),
        (&[("subtype", "no-such-event")], &["none"]),
        (&[], &[]),
    ];
    for (query, events) in cases {
        assert_eq!(ask(query).search.events, events, "{query:?}");
    }
    assert_eq!(ask(&[("outcome", "12")]).search.outcome.as_deref(), Some("none"));
}

#[test]
fn what_the_ledger_cannot_be_asked_is_refused() {
    for (name, value) in [
        ("colour", "red"),
        ("agent", "lane"),
        ("agent", "Practitioner/a,Practitioner/b"),
        ("agent:missing", "true"),
        ("agent.name", "x"),
        ("date", "ne2026"),
        ("date", "soon"),
        ("_sort", "_id"),
        ("_total", "accurate"),
        ("_summary", "count"),
        ("_page", "x"),
    ] {
        assert!(
            parse(&pairs(&[(name, value)]), true, BASE).is_err(),
            "{name}={value}"
        );
    }
    assert!(parse(&pairs(&[("_id", "1"), ("_id", "2")]), false, BASE).is_err());
    assert_eq!(
        parse(&pairs(&[("colour", "red")]), false, BASE)
            .unwrap()
            .page
            .ignored,
        ["colour"]
    );
}

#[test]
fn pages_of_the_audit_follow_the_ledgers_sequence() {
    let rows: Vec<_> = [9, 8, 7]
        .map(|n| row(n, Event::GrantIssued, Outcome::Success, Reason::Permitted))
        .into();
    let parsed = ask(&[("subtype", "grant-issued"), ("_count", "2")]);
    let bytes = searchset(&TenantId::default_tenant(), BASE, &rows, &parsed, Timestamp(0));
    let bundle = parse_fhir(&bytes, &ParseOptions::expecting("Bundle"))
        .unwrap()
        .into_value();
    assert_eq!(bundle["entry"].as_array().unwrap().len(), 2);
    assert_eq!(
        bundle["entry"][0]["fullUrl"],
        "https://h.example/fhir/AuditEvent/9"
    );
    assert!(bundle.get("total").is_none());
    let next = url::Url::parse(bundle["link"][1]["url"].as_str().unwrap()).unwrap();
    let again = parse(&next.query_pairs().into_owned().collect::<Vec<_>>(), true, BASE).unwrap();
    assert_eq!(again.search.after, Some(8));
    let last = searchset(
        &TenantId::default_tenant(),
        BASE,
        &rows[2..],
        &again,
        Timestamp(0),
    );
    let last = parse_fhir(&last, &ParseOptions::expecting("Bundle"))
        .unwrap()
        .into_value();
    assert!(last["link"].get(1).is_none());
}

#[test]
fn a_search_shows_what_was_searched_for_and_what_for() {
    let mut searched = row(3, Event::TaskSearched, Outcome::Success, Reason::Permitted);
    searched.row = searched
        .row
        .detail("query", "Task?status=requested")
        .detail("interaction", "search-type");
    searched.row.agent.purpose = Some("TREAT".to_owned());
    let value = valid(&searched);
    assert_eq!(
        (&value["action"], &value["subtype"][0]["code"]),
        (&json!("E"), &json!("search-type"))
    );
    let query = &value["entity"][0];
    assert_eq!(
        (&query["role"]["code"], &query["query"]),
        (&json!("24"), &json!("VGFzaz9zdGF0dXM9cmVxdWVzdGVk"))
    );
    assert!(!value.to_string().contains("Task?status"), "{value}");
    for purpose in [&value["purposeOfEvent"][0], &value["agent"][0]["purposeOfUse"][0]] {
        assert_eq!(purpose["coding"][0]["code"], "TREAT");
    }
}
