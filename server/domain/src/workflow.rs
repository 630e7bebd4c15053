//! What a hospital may set per `Task.code`: the table, the actionable statuses, windows, uses, and what expiry does.
//! The values come from `policies/workflow.toml`; here are only their meaning and defaults.

use std::collections::{BTreeMap, BTreeSet};

use crate::ids::ActorRef;
use crate::task::{Code, TaskStatus, default_transitions};
use crate::time::Span;

/// What happens when a grant expires unredeemed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum OnExpiry {
    /// Nothing beyond the record and `businessStatus`.
    #[default]
    None,
    /// The Task's priority goes one step up, `businessStatus` becomes `escalated`, and a topic event says so.
    Escalate,
    /// A fresh decision and grant, at most this many times per Task.
    Reissue {
        /// The most times.
        at_most: u32,
    },
}

/// The rules of one kind of Task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Workflow {
    /// Moves that replace the row of the default table for a status.
    pub transitions: BTreeMap<Option<TaskStatus>, Vec<TaskStatus>>,
    /// The statuses in which content may be released.
    pub actionable: BTreeSet<TaskStatus>,
    /// How long a grant may be used, from its binding.
    pub grant_window: Span,
    /// How long an interrupted redemption may be resumed, from its start.
    pub redemption_window: Span,
    /// How often a grant may be used.
    pub max_uses: u32,
    /// How many grants a grantee may ask for herself after the first is exhausted.
    pub self_reissue: u32,
    /// How many documents a Task may name.
    pub max_documents: usize,
    /// What expiry does.
    pub on_expiry: OnExpiry,
    /// Whether an update must carry `If-Match`.
    pub require_if_match: bool,
    /// The document classes it may release; `None` for all.
    pub releases: Option<BTreeSet<String>>,
    /// The systems that may fetch for themselves as a step of such a Task: an archive, a classifier.
    pub approved_steps: BTreeSet<ActorRef>,
}

impl Default for Workflow {
    fn default() -> Self {
        Self {
            transitions: BTreeMap::new(),
            actionable: [TaskStatus::Ready, TaskStatus::Accepted, TaskStatus::InProgress].into(),
            grant_window: Span::minutes(15),
            redemption_window: Span::minutes(10),
            max_uses: 1,
            self_reissue: 0,
            max_documents: 50,
            on_expiry: OnExpiry::None,
            require_if_match: false,
            releases: None,
            approved_steps: BTreeSet::new(),
        }
    }
}

impl Workflow {
    /// The statuses that may follow `from` (a new Task where `None`).
    pub fn transitions(&self, from: Option<TaskStatus>) -> &[TaskStatus] {
        self.transitions
            .get(&from)
            .map_or(default_transitions(from), Vec::as_slice)
    }

    /// Whether content may be released in `status`.
    pub fn is_actionable(&self, status: TaskStatus) -> bool {
        self.actionable.contains(&status) && !status.is_terminal() && status != TaskStatus::OnHold
    }

    /// Whether a document of `class` may be released. Where classes are listed, an unmapped document is not.
    pub fn may_release(&self, class: Option<&str>) -> bool {
        match (&self.releases, class) {
            (None, _) => true,
            (Some(listed), Some(class)) => listed.contains(class),
            (Some(_), None) => false,
        }
    }
}

/// All workflows of a server: by Task code, and one for the rest.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Workflows {
    /// By `system|code`, or by `code` alone where the file names no system.
    pub by_code: BTreeMap<String, Workflow>,
    /// For a Task whose code is not listed.
    pub default: Workflow,
}

impl Workflows {
    /// The workflow of a Task with these codes: the first listed one wins.
    pub fn of(&self, codes: &[Code]) -> &Workflow {
        codes
            .iter()
            .find_map(|c| {
                c.system
                    .as_ref()
                    .and_then(|system| self.by_code.get(&format!("{system}|{}", c.code)))
                    .or_else(|| self.by_code.get(&c.code))
            })
            .unwrap_or(&self.default)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_with_system_is_preferred_to_the_bare_code() {
        let strict = Workflow {
            max_uses: 7,
            ..Workflow::default()
        };
        let workflows = Workflows {
            by_code: [("s|review".to_owned(), strict)].into(),
            default: Workflow::default(),
        };
        let code = |system: Option<&str>| Code {
            system: system.map(str::to_owned),
            code: "review".to_owned(),
        };
        assert_eq!(workflows.of(&[code(Some("s"))]).max_uses, 7);
        assert_eq!(workflows.of(&[code(None)]).max_uses, 1);
    }

    #[test]
    fn a_listed_workflow_does_not_release_an_unmapped_document() {
        let workflow = Workflow {
            releases: Some(["referral-note".to_owned()].into()),
            ..Workflow::default()
        };
        assert!(workflow.may_release(Some("referral-note")));
        assert!(!workflow.may_release(Some("consent")));
        assert!(!workflow.may_release(None));
    }
}
