//! The Task: its statuses, the closed table of moves between them, and who may make which move.
//! Knows nothing of how a Task is written down in FHIR or stored.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::ids::{ActorRef, DocumentId, TaskId};
use crate::reason::Reason;
use crate::time::Timestamp;
use crate::workflow::Workflow;

/// `Task.status` (R4, required binding `http://hl7.org/fhir/task-status`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[expect(missing_docs, reason = "the codes are FHIR's own")]
pub enum TaskStatus {
    Draft,
    Requested,
    Received,
    Accepted,
    Rejected,
    Ready,
    Cancelled,
    InProgress,
    OnHold,
    Failed,
    Completed,
    EnteredInError,
}

impl TaskStatus {
    /// Every status, in the order of the R4 value set.
    pub const ALL: [Self; 12] = [
        Self::Draft,
        Self::Requested,
        Self::Received,
        Self::Accepted,
        Self::Rejected,
        Self::Ready,
        Self::Cancelled,
        Self::InProgress,
        Self::OnHold,
        Self::Failed,
        Self::Completed,
        Self::EnteredInError,
    ];

    /// The FHIR code.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Draft => "draft",
            Self::Requested => "requested",
            Self::Received => "received",
            Self::Accepted => "accepted",
            Self::Rejected => "rejected",
            Self::Ready => "ready",
            Self::Cancelled => "cancelled",
            Self::InProgress => "in-progress",
            Self::OnHold => "on-hold",
            Self::Failed => "failed",
            Self::Completed => "completed",
            Self::EnteredInError => "entered-in-error",
        }
    }

    /// The status that a FHIR code names.
    pub fn parse(code: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|s| s.as_str() == code)
    }

    /// Whether the Task has ended: only `entered-in-error` can follow.
    pub const fn is_terminal(self) -> bool {
        self.ending().is_some()
    }

    /// Why a grant dies when its Task enters this status; `None` while the Task lives.
    pub const fn ending(self) -> Option<Reason> {
        match self {
            Self::Rejected => Some(Reason::TaskRejected),
            Self::Cancelled => Some(Reason::TaskCancelled),
            Self::Failed => Some(Reason::TaskFailed),
            Self::Completed => Some(Reason::TaskCompleted),
            Self::EnteredInError => Some(Reason::TaskEnteredInError),
            Self::Draft
            | Self::Requested
            | Self::Received
            | Self::Accepted
            | Self::Ready
            | Self::InProgress
            | Self::OnHold => None,
        }
    }
}

/// `Task.priority` (R4, `http://hl7.org/fhir/request-priority`), lowest first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[expect(missing_docs, reason = "the codes are FHIR's own")]
pub enum Priority {
    #[default]
    Routine,
    Urgent,
    Asap,
    Stat,
}

impl Priority {
    /// The FHIR code.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Routine => "routine",
            Self::Urgent => "urgent",
            Self::Asap => "asap",
            Self::Stat => "stat",
        }
    }

    /// The priority that a FHIR code names.
    pub fn parse(code: &str) -> Option<Self> {
        [Self::Routine, Self::Urgent, Self::Asap, Self::Stat]
            .into_iter()
            .find(|p| p.as_str() == code)
    }

    /// One step more urgent; `stat` stays.
    #[must_use]
    pub const fn raised(self) -> Self {
        match self {
            Self::Routine => Self::Urgent,
            Self::Urgent => Self::Asap,
            Self::Asap | Self::Stat => Self::Stat,
        }
    }
}

/// One code of a `CodeableConcept` or `Coding`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Code {
    /// `Coding.system`, where given.
    pub system: Option<String>,
    /// `Coding.code`.
    pub code: String,
}

/// What the rules need to know of a Task resource. References are the text of `Reference.reference`,
/// with the server's own base already taken off (`DocumentReference/1`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskFacts {
    /// `Task.status`.
    pub status: TaskStatus,
    /// `Task.intent`; never changes.
    pub intent: String,
    /// `Task.priority`; routine where absent.
    pub priority: Priority,
    /// `Task.code.coding`.
    pub code: Vec<Code>,
    /// `Task.focus.reference`.
    pub focus: Option<String>,
    /// Every `Task.input.valueReference.reference`, in order.
    pub inputs: Vec<String>,
    /// `Task.for.reference`.
    pub subject: Option<String>,
    /// `Task.encounter.reference`.
    pub encounter: Option<String>,
    /// `Task.requester.reference`.
    pub requester: Option<String>,
    /// `Task.owner.reference`.
    pub owner: Option<String>,
    /// `Task.restriction.recipient.reference`.
    pub recipients: Vec<String>,
    /// `Task.restriction.period.end`: the due date. A partial date means its last instant.
    pub due: Option<Timestamp>,
    /// `Task.performerType.coding`.
    pub performer_types: Vec<Code>,
    /// `Task.partOf.reference`.
    pub part_of: Vec<String>,
    /// The elements that only the placer may change, as canonical JSON text.
    pub placer_elements: PlacerElements,
}

/// The elements that only the placer may change, each as canonical JSON text, `None` where absent.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlacerElements {
    /// `Task.focus`.
    pub focus: Option<String>,
    /// `Task.input`.
    pub input: Option<String>,
    /// `Task.for`.
    pub subject: Option<String>,
    /// `Task.restriction`.
    pub restriction: Option<String>,
    /// `Task.code`.
    pub code: Option<String>,
    /// `Task.requester`.
    pub requester: Option<String>,
    /// `Task.performerType`: whose team may claim it.
    #[serde(default)]
    pub performer_type: Option<String>,
    /// `Task.partOf`: whose end is its end.
    #[serde(default)]
    pub part_of: Option<String>,
}

impl PlacerElements {
    /// The FHIR names of the elements that differ from `other`.
    pub fn changed_from(&self, other: &Self) -> Vec<&'static str> {
        [
            ("focus", &self.focus, &other.focus),
            ("input", &self.input, &other.input),
            ("for", &self.subject, &other.subject),
            ("restriction", &self.restriction, &other.restriction),
            ("code", &self.code, &other.code),
            ("requester", &self.requester, &other.requester),
            ("performerType", &self.performer_type, &other.performer_type),
            ("partOf", &self.part_of, &other.part_of),
        ]
        .into_iter()
        .filter_map(|(name, mine, theirs)| (mine != theirs).then_some(name))
        .collect()
    }
}

impl TaskFacts {
    /// `Task.owner`, where it is a local actor.
    pub fn owner_actor(&self) -> Option<ActorRef> {
        self.owner.as_deref().and_then(|o| ActorRef::parse(o).ok())
    }

    /// `Task.requester`, where it is a local actor.
    pub fn requester_actor(&self) -> Option<ActorRef> {
        self.requester.as_deref().and_then(|r| ActorRef::parse(r).ok())
    }

    /// `Task.restriction.recipient`, those that are local actors.
    pub fn recipient_actors(&self) -> Vec<ActorRef> {
        self.recipients
            .iter()
            .filter_map(|r| ActorRef::parse(r.as_str()).ok())
            .collect()
    }

    /// The persons and systems that may hold this Task's grants: the owner, and the recipients.
    pub fn holders(&self) -> Vec<ActorRef> {
        let mut holders: Vec<ActorRef> = Vec::new();
        for actor in self.owner_actor().into_iter().chain(self.recipient_actors()) {
            if actor.can_hold_a_grant() && !holders.contains(&actor) {
                holders.push(actor);
            }
        }
        holders
    }

    /// The ids of each `DocumentReference` in `focus` and `input`, once, in order.
    pub fn document_ids(&self) -> Vec<DocumentId> {
        let mut ids: Vec<DocumentId> = Vec::new();
        for reference in self.focus.iter().chain(&self.inputs) {
            let id = reference
                .strip_prefix("DocumentReference/")
                .map(|rest| rest.split('/').next().unwrap_or_default())
                .and_then(|id| DocumentId::parse(id).ok());
            if let Some(id) = id
                && !ids.contains(&id)
            {
                ids.push(id);
            }
        }
        ids
    }

    /// The ids of the Tasks that this one is part of.
    pub fn parents(&self) -> Vec<TaskId> {
        self.part_of
            .iter()
            .filter_map(|r| r.strip_prefix("Task/"))
            .filter_map(|rest| TaskId::parse(rest.split('/').next().unwrap_or_default()).ok())
            .collect()
    }

    /// The team codes of `performerType`, whatever their system.
    pub fn teams(&self) -> BTreeSet<String> {
        self.performer_types.iter().map(|c| c.code.clone()).collect()
    }
}

/// A stored Task: its facts, and what the server itself keeps beside them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Task {
    /// Logical id.
    pub id: TaskId,
    /// `meta.versionId`, from 1.
    pub version: i64,
    /// `meta.lastUpdated`.
    pub last_updated: Timestamp,
    /// What the resource says.
    pub facts: TaskFacts,
    /// The placer: who created it.
    pub created_by: ActorRef,
    /// The status it was in when it went on hold; `None` unless it is on hold.
    pub held_from: Option<TaskStatus>,
    /// Whether it went on hold because its parent did.
    pub held_by_parent: bool,
    /// The documents whose reference from this Task took effect: put there by somebody who may release them.
    pub documents: Vec<DocumentId>,
    /// Those who owned it before and do not now.
    pub former_owners: Vec<ActorRef>,
    /// How often a grant of it was reissued because one expired.
    pub reissues: u32,
    /// Whether a redemption under it was completed.
    #[serde(default)]
    pub accessed: bool,
    /// Whether it has been deleted.
    pub deleted: bool,
}

impl Task {
    /// Why this Task's content cannot be released now; `None` while it can.
    pub fn blocks_release(&self, workflow: &Workflow, now: Timestamp) -> Option<Reason> {
        if self.deleted {
            return Some(Reason::TaskDeleted);
        }
        if let Some(ending) = self.facts.status.ending() {
            return Some(ending);
        }
        if self.facts.status == TaskStatus::OnHold {
            return Some(Reason::TaskOnHold);
        }
        if !workflow.is_actionable(self.facts.status) {
            return Some(Reason::TaskNotActionable);
        }
        self.is_past_due(now).then_some(Reason::Expired)
    }

    /// Whether the due date (`restriction.period.end`) has passed.
    pub fn is_past_due(&self, now: Timestamp) -> bool {
        self.facts.due.is_some_and(|due| due <= now)
    }
}

/// A move that the table does not hold.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("a Task cannot go from `{}` to `{}`", .from.map_or("(none)", TaskStatus::as_str), .to.as_str())]
pub struct IllegalTransition {
    /// The present status; `None` for a Task about to be created.
    pub from: Option<TaskStatus>,
    /// The status that was asked for.
    pub to: TaskStatus,
    /// The statuses that it could go to.
    pub legal: Vec<TaskStatus>,
}

/// Whether a Task may go from one status to another: an update that keeps the status always may.
/// `held_from` is the status that an on-hold Task was suspended from.
pub fn check_move(
    workflow: &Workflow,
    from: Option<TaskStatus>,
    held_from: Option<TaskStatus>,
    to: TaskStatus,
) -> Result<(), IllegalTransition> {
    let legal = legal_next(workflow, from, held_from);
    if from == Some(to) || legal.contains(&to) {
        Ok(())
    } else {
        Err(IllegalTransition { from, to, legal })
    }
}

/// The statuses that may follow `from` under `workflow`, without `from` itself.
pub fn legal_next(
    workflow: &Workflow,
    from: Option<TaskStatus>,
    held_from: Option<TaskStatus>,
) -> Vec<TaskStatus> {
    let mut next: Vec<TaskStatus> = workflow.transitions(from).to_vec();
    if from == Some(TaskStatus::OnHold)
        && let Some(origin) = held_from
    {
        next.insert(0, origin);
    }
    next.retain(|to| Some(*to) != from);
    next.dedup();
    next
}

/// The closed table of DESIGN: what may follow each status when the workflow changes nothing.
/// From `on-hold` the status it was suspended from comes on top.
pub const fn default_transitions(from: Option<TaskStatus>) -> &'static [TaskStatus] {
    use TaskStatus::{
        Accepted, Cancelled, Completed, Draft, EnteredInError, Failed, InProgress, OnHold, Ready, Received,
        Rejected, Requested,
    };
    match from {
        None => &[Draft, Requested, Received, Accepted, Ready, InProgress],
        Some(Draft) => &[Requested, Ready, Cancelled, EnteredInError],
        Some(Requested) => &[Received, Accepted, Rejected, Ready, Cancelled, EnteredInError],
        Some(Received) => &[Accepted, Rejected, Ready, Cancelled, EnteredInError],
        Some(Accepted) => &[Ready, InProgress, OnHold, Cancelled, Failed, EnteredInError],
        Some(Ready) => &[
            InProgress,
            OnHold,
            Requested,
            Cancelled,
            Failed,
            Completed,
            EnteredInError,
        ],
        Some(InProgress) => &[OnHold, Ready, Completed, Failed, Cancelled, EnteredInError],
        Some(OnHold) => &[Cancelled, Failed, EnteredInError],
        Some(Rejected | Cancelled | Failed | Completed) => &[EnteredInError],
        Some(EnteredInError) => &[],
    }
}

/// How deep Tasks may be nested by `partOf`.
pub const MAX_TASK_DEPTH: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entered_in_error_can_be_reached_from_everywhere_and_left_to_nowhere() {
        let workflow = Workflow::default();
        for from in TaskStatus::ALL {
            assert!(check_move(&workflow, Some(from), None, TaskStatus::EnteredInError).is_ok());
        }
        assert!(legal_next(&workflow, Some(TaskStatus::EnteredInError), None).is_empty());
    }

    #[test]
    fn a_terminal_status_goes_nowhere_but_to_entered_in_error() {
        let workflow = Workflow::default();
        for from in TaskStatus::ALL.into_iter().filter(|s| s.is_terminal()) {
            for to in TaskStatus::ALL.into_iter().filter(|to| *to != from) {
                let allowed = check_move(&workflow, Some(from), None, to).is_ok();
                assert_eq!(
                    allowed,
                    to == TaskStatus::EnteredInError && from != to,
                    "{from:?} {to:?}"
                );
            }
        }
    }

    #[test]
    fn a_task_on_hold_resumes_only_where_it_was_suspended() {
        let workflow = Workflow::default();
        let held = Some(TaskStatus::Ready);
        assert!(check_move(&workflow, Some(TaskStatus::OnHold), held, TaskStatus::Ready).is_ok());
        let error =
            check_move(&workflow, Some(TaskStatus::OnHold), held, TaskStatus::InProgress).unwrap_err();
        assert_eq!(
            error.to_string(),
            "a Task cannot go from `on-hold` to `in-progress`"
        );
        assert_eq!(
            error.legal,
            [
                TaskStatus::Ready,
                TaskStatus::Cancelled,
                TaskStatus::Failed,
                TaskStatus::EnteredInError
            ]
        );
    }
}
