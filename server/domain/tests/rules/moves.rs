//! Who may make which change of a Task.

use handoff_domain::Reason;
use handoff_domain::access::{Principal, Role};
use handoff_domain::moves::{check_constant, may_move};
use handoff_domain::task::{Code, Task, TaskFacts, TaskStatus};

use crate::world::{CLINIC, LANE, OTIS, PLACER, World, principal};

fn task(status: TaskStatus, owner: Option<&str>) -> Task {
    let mut task = World::new(TaskStatus::Draft, None).task;
    task.facts.status = status;
    task.facts.owner = owner.map(str::to_owned);
    task.facts.performer_types = vec![Code {
        system: None,
        code: "cardiology".to_owned(),
    }];
    task
}

fn lane() -> Principal {
    principal(LANE, &[Role::Fulfiller], &["cardiology"])
}

fn otis() -> Principal {
    principal(OTIS, &[Role::Fulfiller], &["oncology"])
}

fn placer() -> Principal {
    principal(PLACER, &[Role::Placer], &[])
}

fn changed(task: &Task, change: impl FnOnce(&mut TaskFacts)) -> TaskFacts {
    let mut after = task.facts.clone();
    change(&mut after);
    after
}

fn to(task: &Task, status: TaskStatus) -> TaskFacts {
    changed(task, |f| f.status = status)
}

#[test]
fn the_placer_may_make_every_change_of_the_task_it_created() {
    let task = task(TaskStatus::InProgress, Some(LANE));
    for status in TaskStatus::ALL {
        assert_eq!(may_move(&placer(), &task, &to(&task, status), false), Ok(()));
    }
    let reassigned = changed(&task, |f| f.owner = Some(OTIS.to_owned()));
    assert_eq!(may_move(&placer(), &task, &reassigned, false), Ok(()));
    let refocused = changed(&task, |f| f.placer_elements.focus = Some("{}".to_owned()));
    assert_eq!(may_move(&placer(), &task, &refocused, false), Ok(()));
}

#[test]
fn another_placer_may_change_nothing() {
    let task = task(TaskStatus::Ready, None);
    let other = principal("Organization/other", &[Role::Placer], &["cardiology"]);
    let refused = may_move(&other, &task, &task.facts, false).unwrap_err();
    assert_eq!(refused.reason, Reason::PolicyDenied);
}

#[test]
fn the_owner_makes_the_moves_of_the_work_and_no_others() {
    use TaskStatus::{Accepted, Completed, Failed, InProgress, OnHold, Ready, Received, Rejected, Requested};
    for from in [Requested, Received, Accepted, Ready, InProgress, OnHold] {
        let task = task(from, Some(LANE));
        for status in TaskStatus::ALL {
            let works = [Accepted, Rejected, InProgress, OnHold, Ready, Completed, Failed].contains(&status);
            let answer = may_move(&lane(), &task, &to(&task, status), false);
            assert_eq!(answer.is_ok(), works || status == from, "{from:?} {status:?}");
        }
    }
}

#[test]
fn the_owner_cannot_release_a_draft() {
    let task = task(TaskStatus::Draft, Some(LANE));
    assert!(may_move(&lane(), &task, &to(&task, TaskStatus::Ready), false).is_err());
}

#[test]
fn the_owner_resumes_to_wherever_the_task_was_held() {
    let mut task = task(TaskStatus::OnHold, Some(LANE));
    task.held_from = Some(TaskStatus::Received);
    assert!(may_move(&lane(), &task, &to(&task, TaskStatus::Received), false).is_ok());
    assert!(may_move(&lane(), &task, &to(&task, TaskStatus::Requested), false).is_err());
}

#[test]
fn the_owner_cannot_change_what_the_task_is_about() {
    let task = task(TaskStatus::Ready, Some(LANE));
    let after = changed(&task, |f| {
        f.placer_elements.input = Some("[]".to_owned());
        f.placer_elements.subject = Some("{}".to_owned());
    });
    let refused = may_move(&lane(), &task, &after, true).unwrap_err();
    assert_eq!(refused.reason, Reason::PolicyDenied);
    assert_eq!(
        refused.text,
        "only the placer that created this Task may change `input`, `for`"
    );
}

#[test]
fn the_owner_hands_on_to_a_person_of_the_same_team_only() {
    let task = task(TaskStatus::InProgress, Some(LANE));
    let hand = |owner: &str| changed(&task, |f| f.owner = Some(owner.to_owned()));
    assert!(may_move(&lane(), &task, &hand(OTIS), true).is_ok());
    assert!(may_move(&lane(), &task, &hand(OTIS), false).is_err());
    for nobody in [
        CLINIC,
        "CareTeam/cardiology",
        "https://elsewhere.example/Practitioner/1",
    ] {
        assert!(may_move(&lane(), &task, &hand(nobody), true).is_err(), "{nobody}");
    }
    let ended = changed(&task, |f| {
        f.owner = Some(OTIS.to_owned());
        f.status = TaskStatus::Completed;
    });
    assert!(may_move(&lane(), &task, &ended, true).is_err());
}

#[test]
fn the_owner_gives_back_by_moving_to_ready_without_an_owner() {
    let working = task(TaskStatus::InProgress, Some(LANE));
    let back = changed(&working, |f| {
        f.owner = None;
        f.status = TaskStatus::Ready;
    });
    assert!(may_move(&lane(), &working, &back, false).is_ok());
    assert!(may_move(&lane(), &working, &changed(&working, |f| f.owner = None), false).is_err());
    let ready = task(TaskStatus::Ready, Some(LANE));
    assert!(may_move(&lane(), &ready, &changed(&ready, |f| f.owner = None), false).is_ok());
}

#[test]
fn a_team_member_claims_a_task_that_no_person_owns() {
    for owner in [None, Some(CLINIC)] {
        let task = task(TaskStatus::Ready, owner);
        let claim = changed(&task, |f| f.owner = Some(LANE.to_owned()));
        assert!(may_move(&lane(), &task, &claim, false).is_ok(), "{owner:?}");
        let start = TaskFacts {
            status: TaskStatus::InProgress,
            ..claim.clone()
        };
        assert!(may_move(&lane(), &task, &start, false).is_ok());
        let cancel = TaskFacts {
            status: TaskStatus::Cancelled,
            ..claim
        };
        assert!(may_move(&lane(), &task, &cancel, false).is_err());
    }
}

#[test]
fn a_claim_is_refused_for_strangers_for_others_and_for_what_is_owned_or_ended() {
    let open = task(TaskStatus::Ready, None);
    let claim = |owner: &str| changed(&open, |f| f.owner = Some(owner.to_owned()));
    assert!(
        may_move(&otis(), &open, &claim(OTIS), true).is_err(),
        "not of the team"
    );
    assert!(
        may_move(&lane(), &open, &claim(OTIS), true).is_err(),
        "for somebody else"
    );
    assert!(
        may_move(&lane(), &open, &open.facts, true).is_err(),
        "without claiming"
    );
    let watcher = principal(LANE, &[Role::Subscriber, Role::Operator], &["cardiology"]);
    assert!(
        may_move(&watcher, &open, &claim(LANE), true).is_err(),
        "without a working role"
    );
    let foreign = Some("https://elsewhere.example/Practitioner/1");
    for (status, owner) in [
        (TaskStatus::Ready, Some(OTIS)),
        (TaskStatus::Ready, foreign),
        (TaskStatus::Cancelled, None),
    ] {
        let task = task(status, owner);
        let claim = changed(&task, |f| f.owner = Some(LANE.to_owned()));
        assert!(
            may_move(&lane(), &task, &claim, true).is_err(),
            "{status:?} {owner:?}"
        );
    }
}

#[test]
fn a_claim_cannot_change_what_the_task_is_about() {
    let open = task(TaskStatus::Ready, None);
    let after = changed(&open, |f| {
        f.owner = Some(LANE.to_owned());
        f.placer_elements.code = Some("{}".to_owned());
    });
    assert!(may_move(&lane(), &open, &after, false).is_err());
}

#[test]
fn the_intent_never_changes_for_anybody() {
    let task = task(TaskStatus::Ready, None);
    assert!(check_constant(&task, &task.facts).is_ok());
    let refused = check_constant(&task, &changed(&task, |f| f.intent = "plan".to_owned())).unwrap_err();
    assert_eq!(refused.reason, Reason::Invalid);
    assert_eq!(refused.to_string(), "`Task.intent` never changes: it is `order`");
}
