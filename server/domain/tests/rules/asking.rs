//! Asking for a grant by name: who gets another, within what bounds, and what becomes of the older one.

use handoff_domain::effects::AskRefused;
use handoff_domain::grant::{Constraints, Origin};
use handoff_domain::task::TaskStatus;
use handoff_domain::{Reason, Span};

use crate::world::{LANE, OTIS, World};

const EXHAUSTED: AskRefused = AskRefused::Because(Reason::Exhausted);

#[test]
fn asking_again_revokes_the_older_grant_as_reissued() {
    let mut world = World::new(TaskStatus::Ready, Some(LANE));
    world.ask(Origin::SelfService, LANE, 0, 0, None).unwrap();
    assert_eq!(world.states(), ["revoked lane reissued", "bound lane"]);
    world.ask(Origin::Requested, LANE, 0, 0, None).unwrap();
    assert_eq!(
        world.states(),
        ["revoked lane reissued", "revoked lane reissued", "bound lane"]
    );
}

#[test]
fn a_grantee_may_ask_again_when_hers_expired_unused() {
    let mut world = World::new(TaskStatus::Ready, Some(LANE));
    world.wait(15 * 60);
    assert_eq!(world.gate(LANE, 0, 0), Err(Reason::Expired));
    world.ask(Origin::SelfService, LANE, 0, 0, None).unwrap();
    assert_eq!(world.gate(LANE, 0, 0), Ok(()));
}

#[test]
fn a_grantee_may_ask_again_when_a_reassignment_was_undone() {
    let mut world = World::new(TaskStatus::Ready, Some(LANE));
    world.assign(Some(OTIS));
    let refused = world.ask(Origin::SelfService, LANE, 0, 0, None).unwrap_err();
    assert_eq!(refused, AskRefused::Because(Reason::NotGrantee));
    world.assign(Some(LANE));
    world.ask(Origin::SelfService, LANE, 0, 0, None).unwrap();
    assert_eq!(world.gate(LANE, 0, 0), Ok(()));
}

#[test]
fn after_the_last_use_a_grantee_is_refused_and_the_placer_is_not() {
    let mut world = World::new(TaskStatus::Ready, Some(LANE));
    world.take(LANE, 0, 0).unwrap();
    assert_eq!(
        world.ask(Origin::SelfService, LANE, 0, 0, None).unwrap_err(),
        EXHAUSTED
    );
    world.ask(Origin::Requested, LANE, 0, 0, None).unwrap();
    assert_eq!(world.gate(LANE, 0, 0), Ok(()));
    assert_eq!(world.states(), ["exhausted lane", "bound lane"]);
}

#[test]
fn the_workflow_says_how_often_a_grantee_helps_herself_after_the_last_use() {
    let mut world = World::new(TaskStatus::Ready, Some(LANE));
    world.workflow.self_reissue = 1;
    // Replacing an unused grant adds no use and is not counted.
    world.ask(Origin::SelfService, LANE, 0, 0, None).unwrap();
    world.take(LANE, 0, 0).unwrap();
    world.ask(Origin::SelfService, LANE, 0, 0, None).unwrap();
    world.ask(Origin::SelfService, LANE, 0, 0, None).unwrap();
    world.take(LANE, 0, 0).unwrap();
    assert_eq!(
        world.ask(Origin::SelfService, LANE, 0, 0, None).unwrap_err(),
        EXHAUSTED
    );
}

#[test]
fn a_grantee_whose_grant_was_revoked_for_cause_cannot_help_herself() {
    let mut world = World::new(TaskStatus::Ready, Some(LANE));
    let listed = std::mem::take(&mut world.task.documents);
    world.settle();
    world.task.documents = listed;
    world.settle();
    let refused = world.ask(Origin::SelfService, LANE, 0, 0, None).unwrap_err();
    assert_eq!(refused, AskRefused::Because(Reason::InputRemoved));
}

#[test]
fn a_grantee_cannot_ask_herself_out_of_what_the_placer_set() {
    let mut world = World::new(TaskStatus::Ready, Some(LANE));
    world.workflow.max_uses = 5;
    let ip = |range: &str| Constraints {
        ip: vec![range.to_owned()],
        ..Constraints::default()
    };
    world
        .ask_with(Origin::Requested, LANE, 0, 0, Some(2), ip("10.0.0.0/8"))
        .unwrap();
    let refused = world.ask(Origin::SelfService, LANE, 0, 0, Some(5)).unwrap_err();
    assert_eq!(refused, AskRefused::TooManyUses { at_most: 2 });
    let refused = world
        .ask_with(Origin::SelfService, LANE, 0, 0, None, ip("0.0.0.0/0"))
        .unwrap_err();
    assert_eq!(refused, AskRefused::Because(Reason::PolicyDenied));
    let grant = world.ask(Origin::SelfService, LANE, 0, 0, None).unwrap();
    assert_eq!((grant.max_uses, grant.constraints), (2, ip("10.0.0.0/8")));
}

#[test]
fn a_grant_is_not_issued_beyond_the_workflow_or_outside_the_task() {
    let mut world = World::new(TaskStatus::Ready, Some(LANE));
    let refused = world.ask(Origin::Requested, LANE, 0, 0, Some(2)).unwrap_err();
    assert_eq!(refused, AskRefused::TooManyUses { at_most: 1 });
    let refused = world.ask(Origin::Requested, LANE, 0, 9, None).unwrap_err();
    assert_eq!(refused, AskRefused::Because(Reason::DocumentSuperseded));
    world.task.documents.clear();
    let refused = world.ask(Origin::Requested, LANE, 0, 0, None).unwrap_err();
    assert_eq!(refused, AskRefused::Because(Reason::Invalid));
    world.go(TaskStatus::OnHold);
    let refused = world.ask(Origin::Requested, LANE, 0, 0, None).unwrap_err();
    assert_eq!(refused, AskRefused::Because(Reason::TaskOnHold));
}

#[test]
fn a_use_given_back_opens_the_grant_again() {
    let mut world = World::new(TaskStatus::Ready, Some(LANE));
    let attempt = world.take(LANE, 0, 0).unwrap();
    assert_eq!(world.gate(LANE, 0, 0), Err(Reason::Exhausted));
    world.give_back(attempt);
    assert_eq!(world.states(), ["bound lane"]);
    assert_eq!(world.gate(LANE, 0, 0), Ok(()));
}

#[test]
fn a_use_given_back_opens_nothing_where_the_task_has_moved_on_or_the_time_is_over() {
    let mut world = World::new(TaskStatus::Ready, Some(LANE));
    let attempt = world.take(LANE, 0, 0).unwrap();
    world.go(TaskStatus::Completed);
    world.give_back(attempt);
    assert_eq!(world.states(), ["revoked lane task-completed"]);
    let mut late = World::new(TaskStatus::Ready, Some(LANE));
    let attempt = late.take(LANE, 0, 0).unwrap();
    late.now = late.now.plus(Span::minutes(15));
    late.give_back(attempt);
    assert_eq!(late.states(), ["expired lane"]);
}

#[test]
fn a_use_given_back_does_not_put_a_second_open_grant_beside_a_newer_one() {
    let mut world = World::new(TaskStatus::Ready, Some(LANE));
    let attempt = world.take(LANE, 0, 0).unwrap();
    world.ask(Origin::Requested, LANE, 0, 0, None).unwrap();
    world.give_back(attempt);
    assert_eq!(world.states(), ["revoked lane reissued", "bound lane"]);
}
