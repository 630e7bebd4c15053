//! Who may make which change of a Task. Whether the move itself is in the table is [`crate::task::check_move`]'s
//! to say, and asked first; here it is only about the actor. Knows nothing of tokens, scopes or storage.

use thiserror::Error;

use crate::access::{Principal, Role};
use crate::ids::ActorRef;
use crate::reason::Reason;
use crate::task::{Task, TaskFacts, TaskStatus};

/// A change of a Task that this actor may not make, or that nobody may.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{text}")]
pub struct MoveRefused {
    /// The reason code: `policy-denied` (403) for this actor, `invalid` (422) for everybody.
    pub reason: Reason,
    /// What to tell the caller.
    pub text: String,
}

impl MoveRefused {
    fn denied(text: impl Into<String>) -> Self {
        Self {
            reason: Reason::PolicyDenied,
            text: text.into(),
        }
    }
}

/// Whether an update leaves alone what never changes: `Task.intent`.
pub fn check_constant(before: &Task, after: &TaskFacts) -> Result<(), MoveRefused> {
    if before.facts.intent == after.intent {
        return Ok(());
    }
    let text = format!("`Task.intent` never changes: it is `{}`", before.facts.intent);
    Err(MoveRefused {
        reason: Reason::Invalid,
        text,
    })
}

/// Whether `actor` may turn `before` into `after`. `target_shares_team` says whether the new owner is known to be
/// in a team with the actor; it matters only where an owner hands the Task on.
///
/// - The placer that created it may make any legal change, and is alone in changing what the Task is about.
/// - The owner works on it, gives it back, and hands it on to a person of the same team.
/// - A member of its `performerType` team may claim it while no person or system owns it.
pub fn may_move(
    actor: &Principal,
    before: &Task,
    after: &TaskFacts,
    target_shares_team: bool,
) -> Result<(), MoveRefused> {
    if actor.actor == before.created_by {
        return Ok(());
    }
    let owns = before.facts.owner_actor().as_ref() == Some(&actor.actor);
    if !owns && !claims(actor, before, after) {
        return Err(MoveRefused::denied(
            "only the placer that created this Task, its owner, or a team member who claims it may change it",
        ));
    }
    let reserved = after.placer_elements.changed_from(&before.facts.placer_elements);
    if !reserved.is_empty() {
        let names: Vec<String> = reserved.iter().map(|name| format!("`{name}`")).collect();
        let text = format!(
            "only the placer that created this Task may change {}",
            names.join(", ")
        );
        return Err(MoveRefused::denied(text));
    }
    if !is_owners_move(before, after.status) {
        let text = format!(
            "the owner of a Task may not move it from `{}` to `{}`",
            before.facts.status.as_str(),
            after.status.as_str()
        );
        return Err(MoveRefused::denied(text));
    }
    if owns {
        may_pass_on(before, after, target_shares_team)
    } else {
        Ok(())
    }
}

/// Whether the update makes `actor` the owner of a living Task of its team that nobody in person owns yet.
fn claims(actor: &Principal, before: &Task, after: &TaskFacts) -> bool {
    let unowned = match &before.facts.owner {
        None => true,
        // An organisation or a team waits for one of its people to claim; a reference elsewhere is somebody.
        Some(owner) => ActorRef::parse(owner.as_str()).is_ok_and(|owner| !owner.can_hold_a_grant()),
    };
    let works = actor.has_any(&[Role::Fulfiller, Role::TeamMember, Role::DocumentViewer]);
    unowned
        && works
        && actor.actor.can_hold_a_grant()
        && after.owner_actor().as_ref() == Some(&actor.actor)
        && !before.facts.status.is_terminal()
        && !before.facts.teams().is_disjoint(&actor.teams)
}

/// Whether the step is one of those that an owner makes. A draft is not asked for yet: it is the placer's.
fn is_owners_move(before: &Task, to: TaskStatus) -> bool {
    let from = before.facts.status;
    if from == to || (from == TaskStatus::OnHold && before.held_from == Some(to)) {
        return true;
    }
    let working = match to {
        TaskStatus::Accepted
        | TaskStatus::Rejected
        | TaskStatus::InProgress
        | TaskStatus::OnHold
        | TaskStatus::Ready
        | TaskStatus::Completed
        | TaskStatus::Failed => true,
        TaskStatus::Draft
        | TaskStatus::Requested
        | TaskStatus::Received
        | TaskStatus::Cancelled
        | TaskStatus::EnteredInError => false,
    };
    working && from != TaskStatus::Draft
}

/// Whether the owner may leave the Task to whom the update names.
fn may_pass_on(before: &Task, after: &TaskFacts, target_shares_team: bool) -> Result<(), MoveRefused> {
    if before.facts.owner == after.owner {
        return Ok(());
    }
    let Some(_) = &after.owner else {
        return if after.status == TaskStatus::Ready {
            Ok(())
        } else {
            Err(MoveRefused::denied(
                "the owner gives a Task back by moving it to `ready`",
            ))
        };
    };
    let person = after.owner_actor().filter(ActorRef::can_hold_a_grant);
    if person.is_none() || !target_shares_team {
        return Err(MoveRefused::denied(
            "the owner may hand a Task on only to a person of the same team",
        ));
    }
    if before.facts.status.is_terminal() || after.status.is_terminal() {
        return Err(MoveRefused::denied("a Task that has ended cannot be handed on"));
    }
    Ok(())
}
