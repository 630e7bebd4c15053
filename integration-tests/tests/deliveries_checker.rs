//! The checker of deliveries finds each fault that is planted in what a subscriber was sent, and nothing where there is none.

use std::collections::BTreeSet;

use handoff_integration_tests::deliveries::arrivals::{Arrival, Told};
use handoff_integration_tests::deliveries::check::{
    Asked, Figures, Rule, Violation, check, check_course, check_outbox,
};
use handoff_integration_tests::deliveries::truth::{Change, Course, Store, Truth};

const ASKED: Asked<'static> = Asked {
    name: "a subscriber",
    status: None,
    most: 2,
    answers: true,
};

fn at(second: i64) -> String {
    format!("2026-01-01T00:00:{second:02}.000Z")
}

fn change(version: i64, status: &str, second: i64) -> Change {
    Change {
        version,
        status: status.to_owned(),
        at: at(second),
    }
}

/// Two Tasks: one has come to three statuses, the other to one.
fn truth() -> Truth {
    let mut truth = Truth::default();
    truth.tasks.insert(
        "a".to_owned(),
        vec![
            change(1, "accepted", 1),
            change(2, "on-hold", 3),
            change(4, "accepted", 4),
        ],
    );
    truth.tasks.insert("b".to_owned(), vec![change(1, "accepted", 2)]);
    truth
}

fn told(number: i64, task: &str, change: &Change) -> Told {
    Told {
        number,
        task: task.to_owned(),
        version: Some(change.version),
        status: change.status.clone(),
        at: change.at.clone(),
    }
}

fn arrival(id: &str, told: Vec<Told>) -> Arrival {
    Arrival {
        id: id.to_owned(),
        digest: [u8::try_from(id.len()).unwrap(); 32],
        told,
        had: true,
        is_signed: true,
        at: 0,
    }
}

/// All of it, in order, the last two in one.
fn sent() -> Vec<Arrival> {
    let truth = truth();
    let (a, b) = (&truth.tasks["a"], &truth.tasks["b"]);
    vec![
        arrival("s-1-1", vec![told(1, "a", &a[0])]),
        arrival("s-2-2", vec![told(2, "b", &b[0])]),
        arrival("s-3-4", vec![told(3, "a", &a[1]), told(4, "a", &a[2])]),
    ]
}

fn judge(asked: &Asked<'_>, arrivals: &[Arrival]) -> (Vec<Rule>, Figures) {
    let mut found: Vec<Violation> = Vec::new();
    let figures = check(asked, &truth(), arrivals, &mut found);
    let rules: BTreeSet<Rule> = found.iter().map(|one| one.rule).collect();
    (rules.into_iter().collect(), figures)
}

#[test]
fn everything_in_order_is_found_to_be_so_with_what_is_repeated_as_it_was() {
    let mut arrivals = sent();
    // Refused at first, and had twice afterwards.
    let mut refused = arrivals[1].clone();
    refused.had = false;
    arrivals.insert(1, refused);
    arrivals.insert(3, arrivals[2].clone());
    arrivals.push(arrivals[0].clone());
    let (found, figures) = judge(&ASKED, &arrivals);
    assert_eq!(found, []);
    assert_eq!((figures.events, figures.duplicates), (4, 2));
}

#[test]
fn a_missing_event_is_found() {
    let mut arrivals = sent();
    arrivals.pop();
    assert_eq!(judge(&ASKED, &arrivals).0, [Rule::Missing]);
}

#[test]
fn an_event_that_was_only_ever_refused_is_missing() {
    let mut arrivals = sent();
    arrivals[2].had = false;
    assert_eq!(judge(&ASKED, &arrivals).0, [Rule::Missing]);
}

#[test]
fn a_gap_in_the_numbers_is_found() {
    let mut arrivals = sent();
    arrivals[2].told[0].number = 4;
    arrivals[2].told[1].number = 5;
    assert_eq!(judge(&ASKED, &arrivals).0, [Rule::Numbers]);
}

#[test]
fn numbers_that_come_in_another_order_are_found() {
    let mut arrivals = sent();
    arrivals.swap(0, 1);
    assert_eq!(judge(&ASKED, &arrivals).0, [Rule::Numbers]);
}

#[test]
fn changes_of_a_task_in_another_order_are_found() {
    let mut arrivals = sent();
    let [first, second] = &mut arrivals[2].told[..] else {
        panic!()
    };
    std::mem::swap(first, second);
    (first.number, second.number) = (3, 4);
    assert_eq!(judge(&ASKED, &arrivals).0, [Rule::Order]);
}

#[test]
fn an_event_that_never_happened_or_was_not_asked_for_is_found() {
    let mut arrivals = sent();
    let mut more = told(5, "a", &change(5, "completed", 9));
    arrivals.push(arrival("s-05-05", vec![more.clone()]));
    assert_eq!(judge(&ASKED, &arrivals).0, [Rule::Invented]);
    more.task = "c".to_owned();
    arrivals[3].told = vec![more];
    assert_eq!(judge(&ASKED, &arrivals).0, [Rule::Invented]);
    let filtered = Asked {
        status: Some("on-hold"),
        ..ASKED
    };
    assert!(judge(&filtered, &sent()).0.contains(&Rule::Invented));
}

#[test]
fn an_event_with_the_version_of_another_is_found() {
    let mut arrivals = sent();
    arrivals[2].told[0].version = Some(4);
    assert!(judge(&ASKED, &arrivals).0.contains(&Rule::Invented));
}

#[test]
fn a_repetition_with_another_body_is_found() {
    let mut arrivals = sent();
    let mut again = arrivals[1].clone();
    again.digest = [0; 32];
    arrivals.push(again);
    assert_eq!(judge(&ASKED, &arrivals).0, [Rule::Repeats]);
}

#[test]
fn a_repetition_under_another_id_is_found_also_of_what_was_refused() {
    let mut arrivals = sent();
    let mut first = arrivals[2].clone();
    (first.id, first.had) = ("s-3-3".to_owned(), false);
    first.told.pop();
    arrivals.insert(2, first);
    assert_eq!(judge(&ASKED, &arrivals).0, [Rule::Repeats]);
}

#[test]
fn too_many_at_once_and_a_wrong_signature_are_found() {
    let one = Asked { most: 1, ..ASKED };
    assert_eq!(judge(&one, &sent()).0, [Rule::Size]);
    let mut arrivals = sent();
    arrivals[0].is_signed = false;
    assert_eq!(judge(&ASKED, &arrivals).0, [Rule::Signature]);
}

#[test]
fn what_the_store_has_wrong_is_found() {
    let judged = |course: Course, audited: &[i64]| {
        let mut found = Vec::new();
        let audited: BTreeSet<i64> = audited.iter().copied().collect();
        check_course(&ASKED, &truth(), course, Some(&audited), &mut found);
        found.iter().map(|one| one.rule).collect::<Vec<_>>()
    };
    let whole = Course {
        events: 4,
        delivered: 4,
    };
    assert_eq!(judged(whole, &[1, 2, 3, 4]), []);
    assert_eq!(judged(whole, &[1, 2, 4]), [Rule::Audit]);
    assert_eq!(judged(whole, &[1, 2, 3, 4, 5]), [Rule::Audit]);
    assert_eq!(
        judged(Course { events: 5, ..whole }, &[1, 2, 3, 4]),
        [Rule::Counts]
    );
    assert_eq!(
        judged(
            Course {
                delivered: 3,
                ..whole
            },
            &[1, 2, 3, 4]
        ),
        [Rule::Counts]
    );
}

#[test]
fn what_the_outbox_has_wrong_is_found() {
    let mut store = Store::default();
    for (task, changes) in &truth().tasks {
        for one in changes {
            store.outbox.push((task.clone(), one.version, one.status.clone()));
        }
    }
    let judged = |store: &Store| {
        let mut found = Vec::new();
        check_outbox(&truth(), store, &mut found);
        found.len()
    };
    assert_eq!(judged(&store), 0);
    let mut twice = store.clone();
    twice.outbox.push(twice.outbox[0].clone());
    assert_eq!(judged(&twice), 1);
    let mut lost = store.clone();
    lost.outbox.pop();
    assert_eq!(judged(&lost), 1);
    let mut swapped = store.clone();
    swapped.outbox.swap(0, 1);
    assert_eq!(judged(&swapped), 1);
    store.pending = 1;
    assert_eq!(judged(&store), 1);
}
