//! The order in which the gate tells reasons.

use handoff_domain::Reason;
use handoff_domain::task::TaskStatus;
use handoff_domain::workflow::Workflow;

use crate::world::{LANE, OTIS, World, document};

#[test]
fn a_former_owner_is_told_of_the_reassignment_before_the_tasks_end() {
    let mut world = World::new(TaskStatus::Ready, Some(LANE));
    world.assign(Some(OTIS));
    world.go(TaskStatus::Completed);
    assert_eq!(world.gate(LANE, 0, 0), Err(Reason::Reassigned));
    assert_eq!(world.gate(OTIS, 0, 0), Err(Reason::TaskCompleted));
}

#[test]
fn the_tasks_state_is_told_before_the_documents_and_that_before_the_grants_end() {
    let mut world = World::new(TaskStatus::Ready, Some(LANE));
    world.take(LANE, 0, 0).unwrap();
    assert_eq!(world.gate(LANE, 0, 0), Err(Reason::Exhausted));
    world.documents[0].deleted = true;
    world.settle();
    assert_eq!(world.gate(LANE, 0, 0), Err(Reason::DocumentDeleted));
    world.go(TaskStatus::Cancelled);
    assert_eq!(world.gate(LANE, 0, 0), Err(Reason::TaskCancelled));
}

#[test]
fn a_grant_opens_its_own_documents_bytes_only() {
    let documents = vec![document("d0", &[0]), document("d1", &[0])];
    let mut world = World::unsettled(TaskStatus::Ready, Some(LANE), documents, Workflow::default());
    world.settle();
    let of_the_first = world.newest(LANE, 0, 0).unwrap().id.clone();
    assert_eq!(world.gate_resume(LANE, 0, 0, &of_the_first), Ok(()));
    assert_eq!(
        world.gate_resume(LANE, 1, 0, &of_the_first),
        Err(Reason::NotBound)
    );
}
