//! What rows look like as Provenance, and what searches of it ask the ledger.

use handoff_domain::ports::Kind;
use handoff_domain::reason::Reason;
use handoff_fhir_model::{ParseOptions, from_value};

use super::super::audit_event;
use super::*;

const BASE: &str = "https://h.example/fhir/";

fn row(event: Event, about: About) -> RecordedRow {
    let mut recorded = audit_event::tests::row(7, event, Outcome::Success, Reason::Permitted);
    recorded.row.agent.purpose = Some("TREAT".to_owned());
    recorded.row.agent.delegate = None;
    recorded.row.about = about;
    recorded
}

fn of(kind: &str, version: Option<i64>) -> About {
    let mut about = About {
        patient: Some("Patient/ada".to_owned()),
        ..About::default()
    };
    if kind == "Task" {
        about.task = Some("Task/1".to_owned());
        about.task_version = version;
    } else {
        about.document = Some("DocumentReference/2".to_owned());
        about.document_version = version;
    }
    about
}

fn told(event: Event, about: About) -> (String, String, Option<String>) {
    let made = resource(&row(event, about)).unwrap();
    let made = from_value(made, &ParseOptions::expecting("Provenance"))
        .unwrap()
        .into_value();
    let text = |at: &str| made.pointer(at).and_then(Value::as_str).map(str::to_owned);
    (
        text("/activity/coding/0/code").unwrap(),
        text("/target/0/reference").unwrap(),
        text("/entity/0/what/reference"),
    )
}

#[test]
fn each_version_has_its_target_and_the_one_it_was_made_of() {
    let cases = [
        (
            Event::TaskCreated,
            of("Task", Some(1)),
            "CREATE",
            "Task/1/_history/1",
            None,
        ),
        (
            Event::TaskUpdated,
            of("Task", Some(3)),
            "UPDATE",
            "Task/1/_history/3",
            Some("Task/1/_history/2"),
        ),
        (
            Event::TaskDeleted,
            of("Task", Some(4)),
            "DELETE",
            "Task/1/_history/3",
            None,
        ),
        (Event::TaskDeleted, of("Task", None), "DELETE", "Task/1", None),
        (
            Event::DocumentSuperseded,
            of("", Some(2)),
            "OBSOLETE",
            "DocumentReference/2/_history/1",
            None,
        ),
        (
            Event::DocumentCreated,
            of("", Some(1)),
            "CREATE",
            "DocumentReference/2/_history/1",
            None,
        ),
    ];
    for (event, about, activity, target, revision) in cases {
        let wanted = (
            activity.to_owned(),
            target.to_owned(),
            revision.map(str::to_owned),
        );
        assert_eq!(told(event, about), wanted);
    }
    for event in EVENTS {
        told(event, of("Task", Some(2)));
    }
    assert_eq!(resource(&row(Event::GrantIssued, of("Task", Some(1)))), None);
    assert_eq!(resource(&row(Event::TaskCreated, About::default())), None);
}

#[test]
fn it_says_who_and_by_which_program_and_not_from_where() {
    let made = resource(&row(Event::TaskCreated, of("Task", Some(1)))).unwrap();
    assert_eq!(made["agent"][0]["who"]["reference"], "Practitioner/lane");
    assert_eq!(made["agent"][1]["who"]["identifier"]["value"], "viewer");
    assert_eq!(made["reason"][0]["coding"][0]["code"], "TREAT");
    let text = made.to_string();
    for secret in ["192.0.2.1", "curl", "jti", "ada"] {
        assert!(!text.contains(secret), "{secret} in {text}");
    }
}

fn ask(query: &[(&str, &str)]) -> Result<Parsed, AppError> {
    let pairs: Vec<_> = query
        .iter()
        .map(|(n, v)| ((*n).to_owned(), (*v).to_owned()))
        .collect();
    parse(&pairs, true, BASE)
}

#[test]
fn a_search_names_a_target_an_actor_or_a_time() {
    let parsed = ask(&[
        ("target", "https://h.example/fhir/Task/1"),
        ("agent", "Practitioner/lane"),
        ("recorded", "ge2026-01-01"),
        ("recorded", "lt2026-02-01"),
        ("_sort", "recorded"),
        ("_count", "5"),
    ])
    .unwrap();
    let target = Target {
        kind: Kind::Task,
        id: "1".to_owned(),
    };
    assert_eq!(parsed.target, Some(target));
    let search = parsed.search;
    assert_eq!(search.entity.as_deref(), Some("Task/1"));
    assert_eq!(search.actor.as_deref(), Some("Practitioner/lane"));
    assert_eq!((search.limit, search.oldest_first), (6, true));
    assert_eq!(search.events.len(), EVENTS.len());
    let (from, until) = search.recorded.unwrap();
    assert_eq!(
        (from.to_instant(), until.to_instant()),
        (
            "2026-01-01T00:00:00.000Z".to_owned(),
            "2026-02-01T00:00:00.000Z".to_owned(),
        )
    );
    for bad in [
        [("target", "1")],
        [("target", "Patient/ada")],
        [("target:Task", "1")],
        [("agent", "lane")],
        [("recorded", "ne2026")],
        [("when", "2026")],
        [("_sort", "target")],
        [("_total", "accurate")],
    ] {
        ask(&bad).unwrap_err();
    }
    ask(&[("target", "Task/1"), ("target", "Task/2")]).unwrap_err();
}
