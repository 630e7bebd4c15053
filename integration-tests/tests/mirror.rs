//! A short run of a mirror whose source's notifications meet trouble, on either pair of stores; and the checker on planted
//! faults.

use std::collections::BTreeSet;

use handoff_integration_tests::mirror::check::{Expected, Feed, Rule, Seen, Version, check};
use handoff_integration_tests::mirror::report::Report;
use handoff_integration_tests::mirror::trouble::Fate;
use handoff_integration_tests::mirror::{self as mirroring, Settings};
use handoff_integration_tests::on_both;
use serde_json::json;

on_both! {
    async fn both_sides_agree_and_the_quarantine_holds_what_is_illegal(backend) {
        // A seed by which the first nine notifications meet each of the fates: on a slow machine few notifications tell much.
        let outcome = mirroring::run(Settings { seed: 22_369, changes: 100, tasks: 12, backend }).await;
        let report = Report::of(&outcome);
        assert!(report.found.is_empty(), "{report}{:#?}", report.found);
        let held: Vec<usize> = outcome.moments.iter().map(|moment| moment.seen.quarantine.len()).collect();
        assert_eq!(held, [0, 6, 0], "{report}");
        for fate in Fate::ALL {
            assert!(outcome.fates.contains_key(&fate), "{fate:?}: {report}");
        }
    }
}

fn version(number: i64, mark: i64, status: &str) -> Version {
    Version {
        number,
        status: status.to_owned(),
        owner: "Practitioner/lane".to_owned(),
        mark: format!("change {mark}"),
        rest: json!({"intent": "order"}),
    }
}

/// Task `a` was mirrored but for its second version; `b` failed, which is illegal at the mirror; `c` was completed there by
/// its own user, and suspended at the source afterwards.
fn agreed() -> (Seen, Expected) {
    let mut seen = Seen::default();
    let mut both = |task: &str, source: &[Version], mirror: &[Version]| {
        seen.source.insert(task.to_owned(), source.to_vec());
        seen.mirror.insert(task.to_owned(), mirror.to_vec());
    };
    let a = [
        version(1, 1, "requested"),
        version(2, 2, "accepted"),
        version(3, 5, "in-progress"),
        version(4, 6, "on-hold"),
    ];
    both(
        "a",
        &a,
        &[
            version(1, 1, "requested"),
            version(2, 5, "in-progress"),
            version(3, 6, "on-hold"),
        ],
    );
    let b = [version(1, 3, "in-progress"), version(2, 7, "failed")];
    both("b", &b, &b[..1]);
    let c = [version(1, 4, "in-progress"), version(2, 8, "on-hold")];
    both(
        "c",
        &c,
        &[version(1, 4, "in-progress"), version(2, 4, "completed")],
    );
    let illegal = [("b".to_owned(), 2), ("c".to_owned(), 2)];
    seen.quarantine = illegal.to_vec();
    seen.feeds = vec![Feed {
        subscription: "Subscription/1".to_owned(),
        counted: 8,
        told: 8,
        missing: "[]".to_owned(),
    }];
    let expected = Expected {
        illegal: illegal.into_iter().collect(),
        moved_there: [("c".to_owned(), "completed".to_owned())].into(),
    };
    (seen, expected)
}

/// The rules that are broken once somebody meddles with what agreed.
fn broken(meddle: impl FnOnce(&mut Seen)) -> Vec<Rule> {
    let (mut seen, expected) = agreed();
    meddle(&mut seen);
    let found: BTreeSet<Rule> = check(&seen, &expected).iter().map(|one| one.rule).collect();
    found.into_iter().collect()
}

fn mirror<'a>(seen: &'a mut Seen, task: &str) -> &'a mut Vec<Version> {
    seen.mirror.get_mut(task).unwrap()
}

#[test]
fn a_mirror_that_agrees_is_found_to_do_so() {
    assert_eq!(broken(|_| ()), []);
    // A version that changes neither status nor owner is told to nobody: it may have come or not.
    let untold = version(5, 9, "on-hold");
    let came = Version {
        number: 4,
        ..untold.clone()
    };
    let at_source = |seen: &mut Seen| seen.source.get_mut("a").unwrap().push(untold.clone());
    assert_eq!(broken(at_source), []);
    assert_eq!(
        broken(|seen| {
            at_source(seen);
            mirror(seen, "a").push(came);
        }),
        []
    );
}

#[test]
fn a_task_that_is_missing_or_there_twice_is_found() {
    assert_eq!(broken(|seen| drop(seen.mirror.remove("a"))), [Rule::Missing]);
    assert_eq!(
        broken(|seen| seen.others.push("another".to_owned())),
        [Rule::Invented]
    );
}

#[test]
fn a_wrong_status_owner_or_content_is_found() {
    let last = |change: fn(&mut Version)| broken(|seen| change(mirror(seen, "a").last_mut().unwrap()));
    assert_eq!(last(|one| one.status = "accepted".to_owned()), [Rule::Status]);
    assert_eq!(
        last(|one| one.owner = "Practitioner/otis".to_owned()),
        [Rule::Owner]
    );
    assert_eq!(last(|one| one.rest = json!({"intent": "plan"})), [Rule::Content]);
    // What its own user did there is no excuse for another Task, nor for another status.
    let other = |seen: &mut Seen| mirror(seen, "c")[1].status = "failed".to_owned();
    assert_eq!(broken(other), [Rule::Status, Rule::Twice]);
}

#[test]
fn the_newest_version_that_did_not_come_is_found() {
    let lost = |seen: &mut Seen| drop(mirror(seen, "a").pop());
    assert_eq!(broken(lost), [Rule::Status, Rule::Content]);
}

#[test]
fn a_version_applied_twice_or_after_a_later_one_is_found() {
    let twice = |seen: &mut Seen| mirror(seen, "a").push(version(4, 6, "on-hold"));
    assert_eq!(broken(twice), [Rule::Twice]);
    let back = |seen: &mut Seen| {
        let versions = mirror(seen, "a");
        versions.insert(2, version(3, 2, "accepted"));
    };
    assert_eq!(broken(back), [Rule::Back]);
    let invented = |seen: &mut Seen| mirror(seen, "a").insert(1, version(2, 99, "accepted"));
    assert_eq!(broken(invented), [Rule::Invented]);
}

#[test]
fn one_too_many_and_one_too_few_in_the_quarantine_are_found() {
    let legal = |seen: &mut Seen| seen.quarantine.push(("a".to_owned(), 2));
    assert_eq!(broken(legal), [Rule::Quarantine]);
    let doubled = |seen: &mut Seen| seen.quarantine.push(("b".to_owned(), 2));
    assert_eq!(broken(doubled), [Rule::Quarantine]);
    let few = |seen: &mut Seen| drop(seen.quarantine.pop());
    assert_eq!(broken(few), [Rule::Quarantine]);
    let applied = |seen: &mut Seen| mirror(seen, "b").push(version(2, 7, "failed"));
    assert!(broken(applied).contains(&Rule::Quarantine));
}

#[test]
fn events_that_are_missing_and_notices_that_wait_are_found() {
    assert_eq!(
        broken(|seen| seen.feeds[0].missing = "[[2,2]]".to_owned()),
        [Rule::Feed]
    );
    assert_eq!(broken(|seen| seen.feeds[0].told = 7), [Rule::Feed]);
    assert_eq!(broken(|seen| seen.waiting = 1), [Rule::Waiting]);
}
